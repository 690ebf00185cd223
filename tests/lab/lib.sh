# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# For the tests that boot: TAP goes to stdout, the lab's progress to stderr.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lab=$top/lab
out=${OUT:-$top/out}
boots=$out/results/test
mkdir -p "$boots"
count=0

# is HAVE WANT WHAT [DIRECTIVE]: one TAP line
is()
{
	count=$((count + 1))
	if [ "$1" = "$2" ]; then
		echo "ok $count - $3${4:+ # $4}"
	else
		echo "not ok $count - $3${4:+ # $4}"
		echo "#   have $1, want $2"
	fi
}

# machine ARCH: the one to boot
machine()
{
	case $1 in
	vmx)	echo intel ;;
	svm)	echo amd-qemu ;;
	esac
}

# results NAME: the log of the boot of that name
results()
{
	echo "$boots/$1/results.log"
}

# boot NAME OPTION... JOBDIR: true if it went well; else its one line, as a
# TAP comment, says why not.
boot()
{
	local name=$1
	shift

	if ! "$lab/boot" "$@" "$boots/$name" >"$boots/$name.said" 2>&1; then
		sed 's/^/# /' "$boots/$name.said"
		return 1
	fi
	cat "$boots/$name.said" >&2
}

# run NAME OPTION... JOBDIR: boots and keeps how that went, for pass_on
run()
{
	local name=$1 code=0
	shift

	boot "$name" --time-limit 900 "$@" >"$boots/$name.failed" || code=$?
	echo $code >"$boots/$name.code"
}

# pass_on NAME: the TAP of that run, numbered anew, and last whether the boot as a
# whole is sound
pass_on()
{
	local name=$1 line

	while read -r line; do
		case $line in
		ok\ *|not\ ok\ *)
			count=$((count + 1))
			sed -E "s/ [0-9]+ (- )?/ $count - ${name#*-}: /" <<<"$line" ;;
		\#*)	echo "$line" ;;
		esac
	done <"$(results "$name")"
	cat "$boots/$name.failed"
	is "$(cat "$boots/$name.code")" 0 "${name#*-}: the boot went well"
}
