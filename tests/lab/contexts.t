#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Our own tests of nested SVM and nested VMX: on the patched kernel, SVM also with
# two CPUs, and on the stock one, which shows that what they expect of L1's view is
# what that kernel does. Their TAP is passed on, numbered anew.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"

job=$("$lab/job" contexts-test)
"$lab/initramfs" >&2

run()
{
	local name=$1
	shift

	code=0
	boot "contexts-$name" --time-limit 900 "$@" "$job" >"$boots/contexts-$name.failed" || code=$?
	echo $code >"$boots/contexts-$name.code"
}

# renumber NAME: its lines of TAP, and last whether the boot as a whole is sound
renumber()
{
	local log line

	log=$(results "contexts-$1")
	while read -r line; do
		case $line in
		ok\ *|not\ ok\ *)
			count=$((count + 1))
			sed -E "s/ [0-9]+ (- )?/ $count - $1: /" <<<"$line" ;;
		\#*)	echo "$line" ;;
		esac
	done <"$log"
	cat "$boots/contexts-$1.failed"
	is "$(cat "$boots/contexts-$1.code")" 0 "$1: the boot went well"
}

for arch in svm vmx; do
	run $arch-patched --arch $arch --kvm patched &
	run $arch-stock --arch $arch --kvm stock &
	wait
done
run svm-patched-2-cpus --kvm patched --cpus 2
for name in {svm,vmx}-{patched,stock} svm-patched-2-cpus; do
	renumber "$name"
done
echo "1..$count"
