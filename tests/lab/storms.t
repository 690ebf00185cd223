#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Nested contexts under load, on the patched kernel and in small.
#
# In tests/slow in full on SVM, with one CPU and two, and at what Bochs gets done in
# some minutes on VMX; beside it the stock kernel, which shows that what is
# expected of L1's view is what that kernel does.
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/lab/lib.sh
. "$here/lib.sh"

job=$("$lab/job" storms)
"$lab/initramfs" >&2

# storm NAME SCALE OPTION...
storm()
{
	local name=storms-$1 scale=$2
	shift 2

	run "$name" --mem 1536 --append "${scale:+job.scale=$scale}" "$@" "$job"
}

case $(cd "$(dirname "$0")" && pwd) in
*/slow)
	names=({svm,vmx}-{patched,stock} svm-patched-2-cpus)
	vmx=vcpus=16,l2s=16,steps=12000,vms=150,moves=4
	for kvm in patched stock; do
		storm vmx-$kvm $vmx --machine intel --kvm $kvm --time-limit 1500 &
		storm svm-$kvm '' --kvm $kvm --time-limit 1500
		wait
	done
	storm svm-patched-2-cpus '' --kvm patched --cpus 2 --time-limit 1500 ;;
*)
	names=(svm vmx)
	storm vmx vcpus=4,l2s=8,steps=1200,vms=10,moves=1 --machine intel --kvm patched &
	storm svm vcpus=16,l2s=8,steps=8000,vms=80,moves=4 --kvm patched
	wait ;;
esac
for name in "${names[@]}"; do
	pass_on "storms-$name"
done
echo "1..$count"
