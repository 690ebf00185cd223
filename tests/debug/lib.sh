# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # tests/lab/lib.sh has what is read here
# Sourced after tests/lab/lib.sh by the tests with debug kernels.

# passed NAME: what the tests' programs said, for those that say it in TAP or by
# "result" lines; a test that is known to fail on the stock kernel may fail
passed()
{
	local name=$1 log test status known

	log=$(results "$name")
	is "$(grep -c '^not ok' "$log" || :)" 0 "$name: no case fails"
	while read -r _ test status; do
		known=$(awk -v test="$test" '!/^#/ && $2 == test && NF > 2' "$lab/stock-tests")
		case $status in
		0)	is 0 0 "$name: $test" ;;
		4)	is 4 4 "$name: $test" "SKIP by itself" ;;
		*)	is "$status" 0 "$name: $test" "${known:+TODO fails on the stock kernel, too}" ;;
		esac
	done < <(grep '^result ' "$log")
}

# debug_boots FLAVOUR ARCH JOB...
debug_boots()
{
	local flavour=$1 arch=$2 kernel job name options
	shift 2

	kernel=$("$lab/debug-kernel" "$flavour")
	for job in "$@"; do
		name=$flavour-$job-$arch
		options=(--machine "$(machine "$arch")" --kernel "$kernel" --mem 2048 --time-limit 3000)
		[ "$arch" = vmx ] || [ "$job" = faults ] || options+=(--cpus 2)
		[ "$job" != faults ] || options+=(--unmanaged)
		[ "$job$arch" != faultsvmx ] || options+=(--mem 1024 --append job.turns=4)
		[ "$job" != stock-tests ] || options+=(--append "job.group=$arch job.limit=900")
		# What such a kernel keeps of freed memory grows; kmemleak tells leaks.
		[ "$job" != storms ] ||
			options+=(--append "job.scale=vcpus=8,l2s=4,steps=4000,vms=40,moves=2,slack=65536")
		if boot "$name" "${options[@]}" "$("$lab/job" "$job")"; then
			is 0 0 "$name: the kernel has nothing to report"
		else
			is 1 0 "$name: the kernel has nothing to report"
		fi
		passed "$name"
	done
}
