#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's own nested tests: what passes on the stock kernel passes on ours.
# Those that fail on the stock kernel for the emulator's sake are listed, with
# the reason, in lab/stock-tests.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"

job=$("$lab/job" stock-tests)
"$lab/initramfs" >&2
for kvm in stock patched; do
	boot "stock-tests-$kvm" --kvm $kvm --cpus 2 --time-limit 300 "$job" &
	pids+=($!)
done
for i in 0 1; do
	code[i]=0
	wait "${pids[i]}" || code[i]=$?
done

# status KVM TEST: its exit status, or "none" if the boot ended before
status()
{
	sed -n "s/^result $2 //p" "$(results "stock-tests-$1")" | grep . || echo none
}

is "${code[0]}" 0 "the stock kernel boots, runs the job and has nothing to report"
is "${code[1]}" 0 "so does the patched one"
while read -r test reason; do
	stock=$(status stock "$test") patched=$(status patched "$test")
	case $stock in
	0)	is "$patched" 0 "$test" ;;
	4)	is "$patched" 4 "$test" "SKIP on stock, and $patched on patched" ;;
	*)	# Expected on stock only with a reason; then patched may fail as well.
		is "${reason:+listed}" listed "$test is known to fail on the stock kernel"
		is "$patched" 0 "$test" "TODO fails on the stock kernel, too: $reason" ;;
	esac
done < <(sed 's/#.*//' "$lab/stock-tests" | awk '$1 == "svm" { $1 = ""; print }')
echo "1..$count"
