# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source this use the names
# What the lab's steps share: where things are, how a step speaks, fails, locks
# and is interrupted. Sourced after "set -euo pipefail".

LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=${LAB%/*}
OUT=${OUT:-$TOP/out}
[[ $OUT = /* ]] || OUT=$PWD/$OUT
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nested-contexts
LINE=6.12			# the kernel line the series is for
PROG=lab/${0##*/}
STEP_PID=
export LC_ALL=C
export PATH=$PATH:/usr/sbin:/sbin	# modinfo and depmod, for those who are not root

# One line: what went wrong, what was left untouched, what to do.
die()
{
	printf '%s: %s\n' "$PROG" "$*" >&2
	exit 1
}

# The kernel's makefiles take no blanks or colons in a path. Where out/ would have
# some, it is a link to a directory in the cache.
plain_path()
{
	[[ $1 =~ ^[-A-Za-z0-9_./+@=~]+$ ]]
}

if ! plain_path "$OUT"; then
	link=$OUT OUT=$CACHE/out-$(cksum <<<"$OUT" | cut -d' ' -f1)
	plain_path "$OUT" ||
		die "the kernel cannot be built below $TOP, nor below $CACHE, for the blanks or other such characters in these names; nothing was made; set OUT to a directory without"
	mkdir -p "$OUT" || die "cannot write $OUT; nothing was made"
	[ "$(readlink "$link")" = "$OUT" ] || ln -sT "$OUT" "$link" ||
		die "$link cannot be made a link to $OUT; nothing was made; remove $link, or set OUT to a directory without blanks and colons in its name"
fi
export OUT

say()
{
	printf '%s\n' "$*"
}

stop_step()
{
	local pid=$STEP_PID

	STEP_PID=
	[ -z "$pid" ] || kill -s "${STEP_SIGNAL:-TERM}" -- "-$pid" 2>/dev/null || :
}
trap stop_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

elapsed()
{
	printf '%3d:%02d' $(($1 / 60)) $(($1 % 60))
}

# run_step TITLE LOG COMMAND...: runs the command with its output in LOG and
# shows the time it takes. The command gets a process group of its own, so that
# an interrupted step leaves none of its children behind.
run_step()
{
	local title=$1 log=$2 start=$SECONDS rc=0
	shift 2

	mkdir -p "${log%/*}"
	set -m
	"$@" </dev/null >"$log" 2>&1 &
	STEP_PID=$!
	set +m
	if [ -t 1 ]; then
		while kill -0 "$STEP_PID" 2>/dev/null; do
			printf '\r%s  %s ' "$(elapsed $((SECONDS - start)))" "$title"
			sleep 0.3
		done
		printf '\r'
	fi
	{ wait "$STEP_PID"; } 2>/dev/null || rc=$?
	STEP_PID=
	printf '%s  %s%s\n' "$(elapsed $((SECONDS - start)))" "$title" \
		"$([ $rc = 0 ] || printf ': failed')"
	return $rc
}

# The steps that make things under out/ take one lock, for several runs may
# share the directory. A step that calls another passes the lock on.
lab_lock()
{
	[ -z "${LAB_LOCKED:-}" ] || return 0
	mkdir -p "$OUT" 2>/dev/null || die "cannot write $OUT; nothing was changed"
	exec 9>"$OUT/.lock"
	if ! flock -w 2 9; then
		say "waiting for another run that builds in ${OUT#"$TOP"/}" >&2
		flock 9
	fi
	export LAB_LOCKED=1
}

# need_space DIR MEGABYTES
need_space()
{
	local dir=$1 want=$2 have

	while [ ! -d "$dir" ]; do
		dir=$(dirname "$dir")
	done
	have=$(($(stat -f -c '%a * %S / 1048576' "$dir")))
	[ "$have" -ge "$want" ] ||
		die "$dir has $have MB free and $want MB are needed; nothing was changed; free some space and run again"
}

# One hash over the files and texts that decide a result. Paths count relative
# to the top, so that a moved checkout does not rebuild.
hash_inputs()
{
	local what

	{
		for what in "$@"; do
			if [ -e "$TOP/$what" ]; then
				(cd "$TOP" && find "$what" -type f -print0 | sort -z | xargs -0r sha256sum)
			else
				printf '%s\n' "$what"
			fi
		done
	} | sha256sum | cut -d' ' -f1
}

# is_current STAMP HASH: the stamp is written last, so it vouches for the result.
is_current()
{
	[ -f "$1" ] && [ "$(cat "$1")" = "$2" ]
}

# Moves a finished directory into place; the old one goes first, whole.
install_dir()
{
	local new=$1 dest=$2

	if [ -e "$dest" ]; then
		rm -rf "$dest.old"
		mv "$dest" "$dest.old"
	fi
	mv "$new" "$dest"
	rm -rf "$dest.old"
}

# Sets VERSION (6.12.N), KVER (uname -r of the image) and KERNEL (where the
# packages are unpacked), fetching them if they are not there yet.
load_kernel()
{
	[ -f "$OUT/kernel/current/kernel.env" ] || "$LAB/fetch"
	KERNEL=$(readlink -f "$OUT/kernel/current")
	# shellcheck source=/dev/null
	. "$KERNEL/kernel.env"
	TREE=$OUT/tree/$VERSION
}

# Sets machine, and its arch, emulator and model; dies if there is no machine $1.
set_machine()
{
	machine=$1
	case $machine in
	intel)		arch=vmx emulator=bochs model=sapphire_rapids ;;
	amd)		arch=svm emulator=bochs model=ryzen ;;
	amd-qemu)	arch=svm emulator=qemu model=EPYC ;;
	*)	die "there is no machine $machine; nothing was booted; it is intel, amd or amd-qemu" ;;
	esac
}
