#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The host takes pages away that the processor uses while L2 runs. All cases pass
# on our kernel.
#
# In tests/slow the same with two CPUs, so that the host works while L2 runs, and
# beside it what the stock kernel does: it keeps using the page that it found when
# L1 entered L2, and so fails cases.
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/lab/lib.sh
. "$here/lib.sh"

cpus=1 kernels=(patched)
case $(cd "$(dirname "$0")" && pwd) in
*/slow)	cpus=2 kernels+=(stock) ;;
esac
job=$("$lab/job" page-invalidation)
"$lab/initramfs" >&2

run()
{
	local name=page-invalidation-$1-$cpus

	code=0
	boot "$name" --machine intel --cpus $cpus --kvm "$1" \
		--time-limit 1500 "$job" >"$boots/$name.failed" || code=$?
	echo $code >"$boots/$name.code"
}

# reason KVM SAID: why a case may fail; on the stock kernel alone
reason()
{
	case $1-$2 in
	patched-*)	;;
	*"does not run any more"*)
		echo " # TODO KVM takes a slot that moves for one that is gone" ;;
	*)	echo " # TODO KVM pins the page while L2 runs" ;;
	esac
}

# judge KVM: its lines of TAP, numbered anew, and whether it got to its end
judge()
{
	local kvm=$1 name=page-invalidation-$1-$cpus title="$1, CPUs: $cpus"
	local log said='' line failed=0 cases=0
	log=$(results "$name")

	while read -r line; do
		case $line in
		ok\ *|not\ ok\ *)
			cases=$((cases + 1)) count=$((count + 1))
			# Pages that contexts keep can be moved.
			if [[ $kvm = patched && $line = ok\ *"# SKIP"*"in use" ]]; then
				line="not ${line/ # SKIP/: }"
			fi
			line=$(sed -E "s/^((not )?ok) [0-9]+ (- )?page\./\1 $count - $title: /" <<<"$line")
			if [[ $line = not* ]]; then
				failed=$((failed + 1))
				line+=$(reason "$kvm" "$said")
			fi
			printf '%s\n' "$line" ${said:+"#   $said"}
			said= ;;
		"# without the slot"*)
			echo "# $title, ${line#\# }" ;;
		"==== Test Assertion Failure"*)
			said=expression ;;
		pid=*|*0x0*:\ *|*addr2line*|'')
			;;
		*)	# First the expression, then what it means.
			case $said in
			expression)	said=meaning ;;
			meaning)	said=$line ;;
			esac ;;
		esac
	done < <(tr -d '\r' <"$log")
	cat "$boots/$name.failed"
	is $cases "$(tr -d '\r' <"$log" | sed -n 's/^1\.\.//p')" "$title: all cases were run"
	is "$(cat "$boots/$name.code")" 0 "$title: the boot went well"
	[ "$kvm" = patched ] || is $((failed > 0)) 1 "$title: the test shows what the pinned page does"
}

for kvm in "${kernels[@]}"; do
	run "$kvm" &
done
wait
for kvm in "${kernels[@]}"; do
	judge "$kvm"
done
echo "1..$count"
