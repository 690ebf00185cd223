#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Our own tests of nested SVM and nested VMX: on the patched kernel, SVM also with
# two CPUs, and on the stock one, which shows that what they expect of L1's view is
# what that kernel does. Their TAP is passed on, numbered anew.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"

job=$("$lab/job" contexts-test)
"$lab/initramfs" >&2

for arch in svm vmx; do
	run contexts-$arch-patched --machine "$(machine $arch)" --kvm patched "$job" &
	run contexts-$arch-stock --machine "$(machine $arch)" --kvm stock "$job" &
	wait
done
run contexts-svm-patched-2-cpus --kvm patched --cpus 2 "$job"
for name in {svm,vmx}-{patched,stock} svm-patched-2-cpus; do
	pass_on "contexts-$name"
done
echo "1..$count"
