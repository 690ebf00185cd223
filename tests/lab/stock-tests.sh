# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # lib.sh has $lab
# For what runs the kernel's own nested tests: what passes on the stock kernel
# passes on ours. Those that fail on the stock kernel for the emulator's sake are
# listed, with the reason, in lab/stock-tests. Sourced after lib.sh.

# boot_pair GROUP OPTION...: boots stock and patched side by side
boot_pair()
{
	local group=$1 job kvm code pids=()
	shift

	job=$("$lab/job" stock-tests)
	for kvm in stock patched; do
		boot "stock-tests-$group-$kvm" --machine "$(machine "${group%-slow}")" --kvm $kvm \
			--append "job.group=$group" "$@" "$job" &
		pids+=($!)
	done
	for kvm in stock patched; do
		code=0
		wait "${pids[0]}" || code=$?
		pids=("${pids[@]:1}")
		is $code 0 "$group: the $kvm kernel boots, runs the job and has nothing to report"
	done
}

# status GROUP KVM TEST: its exit status, or "none" if the boot ended before
status()
{
	sed -n "s/^result $3 //p" "$(results "stock-tests-$1-$2")" | grep . || echo none
}

# compare GROUP: each of its tests, stock beside patched
compare()
{
	local group test reason kvm stock patched

	while read -r group test reason; do
		[ "$group" = "$1" ] || continue
		for kvm in stock patched; do
			sed -n "s/^again $test, /# $group, $kvm: $test once more, /p" "$(results "stock-tests-$group-$kvm")"
		done
		stock=$(status "$group" stock "$test") patched=$(status "$group" patched "$test")
		case $stock in
		0)	is "$patched" 0 "$group: $test" ;;
		4)	is "$patched" 4 "$group: $test" "SKIP on stock, and $patched on patched" ;;
		*)	# Expected on stock only with a reason; then patched may fail as well.
			is "${reason:+listed}" listed "$group: $test is known to fail on the stock kernel"
			is "$patched" 0 "$group: $test" "TODO fails on the stock kernel, too: $reason" ;;
		esac
	done < <(sed 's/#.*//' "$lab/stock-tests")
}

# left_out GROUP: its tests, which are not run, and why
left_out()
{
	local group test reason

	while read -r group test reason; do
		[ "$group" != "$1" ] || is skipped skipped "$group: $test" "SKIP $reason"
	done < <(sed 's/#.*//' "$lab/stock-tests")
}
