#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's own nested tests: what passes on the stock kernel passes on ours.
# Those that fail on the stock kernel for the emulator's sake are listed, with
# the reason, in lab/stock-tests.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"

# pair VENDOR OPTION...: boots stock and patched side by side
pair()
{
	local vendor=$1 job kvm code pids=()
	shift

	job=$("$lab/job" "stock-tests-$vendor")
	for kvm in stock patched; do
		boot "stock-tests-$vendor-$kvm" --arch "$vendor" --kvm $kvm "$@" "$job" &
		pids+=($!)
	done
	for kvm in stock patched; do
		code=0
		wait "${pids[0]}" || code=$?
		pids=("${pids[@]:1}")
		is $code 0 "$vendor: the $kvm kernel boots, runs the job and has nothing to report"
	done
}

# status VENDOR KVM TEST: its exit status, or "none" if the boot ended before
status()
{
	sed -n "s/^result $3 //p" "$(results "stock-tests-$1-$2")" | grep . || echo none
}

"$lab/initramfs" >&2
pair svm --cpus 2
pair vmx --time-limit 600
while read -r vendor test reason; do
	for kvm in stock patched; do
		sed -n "s/^again $test, /# $vendor, $kvm: $test once more, /p" "$(results "stock-tests-$vendor-$kvm")"
	done
	stock=$(status "$vendor" stock "$test") patched=$(status "$vendor" patched "$test")
	case $stock in
	0)	is "$patched" 0 "$vendor: $test" ;;
	4)	is "$patched" 4 "$vendor: $test" "SKIP on stock, and $patched on patched" ;;
	*)	# Expected on stock only with a reason; then patched may fail as well.
		is "${reason:+listed}" listed "$vendor: $test is known to fail on the stock kernel"
		is "$patched" 0 "$vendor: $test" "TODO fails on the stock kernel, too: $reason" ;;
	esac
done < <(sed 's/#.*//' "$lab/stock-tests" | grep -E '^(svm|vmx)')
echo "1..$count"
