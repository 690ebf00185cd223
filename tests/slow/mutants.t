#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Would the tests notice? Each tests/mutants/*.patch breaks one rule of ours; the
# test that it names must say so. See tests/mutants/README. At the end there is a
# table of what caught what.
# Arguments limit it to the mutants of these names.
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/lab/lib.sh
. "$here/../lab/lib.sh"
# shellcheck source=lab/common.sh
. "$lab/common.sh"

load_kernel
"$lab/tree" >&2
tree=$OUT/tree/mutant
unit=$OUT/unit/mutant
table=()

# head_of PATCH WORD
head_of()
{
	sed -n "/^---/q; s/^$2: *//p" "$1"
}

# apply PATCH DIR FROM COMMAND...: FROM as DIR, made by the command, with the fault
apply()
{
	local patch=$1 dir=$2 from=$3
	shift 3

	rm -rf "$dir"
	mkdir -p "${dir%/*}"
	"$@" "$from" "$dir"
	patch -d "$dir" -p1 --fuzz=0 --no-backup-if-mismatch <"$patch"
}

# Copies have the time of now, by which make knows that they changed.
unit_build()
{
	apply "$1" "$unit" "$top/linux" cp -r
}

# Hard links are enough, for patch replaces the files that it changes.
kernel_build()
{
	apply "$1" "$tree" "$TREE/patched" cp -al || return
	rm -rf "$tree/.pc" "$tree/.complete"
	VARIANT=mutant TREE_DIR=$tree "$lab/modules"
}

# unit_run LOG PROGRAM
unit_run()
{
	LINUX=$unit SECONDS_MAX=60 timeout 120 "$top/tests/unit/run" "$2" >"$1" 2>&1
}

# boot_run LOG ARCH JOB PROGRAM CPUS CASE...
boot_run()
{
	local log=$1 arch=$2 job=$3 program=$4 cpus=$5 rc=0
	local name=mutant-$arch-$job
	shift 5

	local cases=$*
	rm -f "$(results "$name")"
	TREE_DIR=$tree boot "$name" --machine "$(machine "$arch")" --kvm mutant --cpus "$cpus" \
		--append "job.cases=${cases// /,} job.program=$program" --time-limit 900 \
		--title "${log##*/}" "$("$lab/job" "$job")" >"$log.said" || rc=$?
	{ tr -d '\r' <"$(results "$name")"; cat "$log.said"; } >"$log"
	return $rc
}

# verdict LOG CASE: how that went
verdict()
{
	local said=''

	case $2 in
	SANITIZER) grep -qE '(ERROR|WARNING): [A-Z][a-z]*Sanitizer' "$1" && said="not ok" ;;
	SPLAT)	grep -q 'the kernel reports' "$1" && said="not ok" ;;
	*)	said=$(sed -nE "s/^((not )?ok) [0-9]+ (- )?$2( .*)?\$/\1/p" "$1" | head -n 1) ;;
	esac
	echo "${said:-not said}"
}

try()
{
	local patch=$1 name kind arg fails cases case want log start=$SECONDS
	local caught=()

	name=$(basename "$patch" .patch)
	log=$boots/mutant.$name
	read -r kind arg < <(head_of "$patch" Test)
	fails=$(head_of "$patch" Fails)
	cases=$(head_of "$patch" Cases)
	cases=${cases:-$fails}

	if ! "$([ "$kind" = unit ] && echo unit || echo kernel)_build" "$patch" >"$log" 2>&1; then
		sed 's/^/# /' "$log"
		is failed built "$name: the mutant is built"
		return
	fi
	# shellcheck disable=SC2086 # words are wanted
	case "$kind $arg" in
	"unit "*)	unit_run "$log" "$arg" ;;
	"contexts svm")	boot_run "$log" svm contexts-test '' 1 $cases ;;
	"contexts vmx")	boot_run "$log" vmx contexts-test vmx_nested_context_test 1 $cases ;;
	"contexts evmcs") boot_run "$log" vmx contexts-test vmx_nested_evmcs_test 1 $cases ;;
	"page "*)	boot_run "$log" vmx page-invalidation '' "$arg" $cases ;;
	*)		echo "Bail out! $patch has no test \"$kind $arg\""; exit 1 ;;
	esac || :

	for case in $cases; do
		want=ok
		if [[ " $fails " = *" $case "* ]]; then
			want="not ok"
			[ "$(verdict "$log" "$case")" != "not ok" ] || caught+=("$case")
		fi
		is "$(verdict "$log" "$case")" "$want" "$name: $kind $arg: $case is \"$want\""
	done
	table+=("$(printf '%-22s %4d  %-16s %s' "$name" $((SECONDS - start)) \
		"$kind $arg" "${caught[*]:-SURVIVED}")")
}

for patch in "$top"/tests/mutants/*.patch; do
	if [ $# = 0 ] || [[ " $* " = *" $(basename "$patch" .patch) "* ]]; then
		try "$patch"
	fi
done
rm -rf "$tree" "$unit"
[ ${#table[@]} -gt 0 ] || { echo "Bail out! there is no such mutant: $*"; exit 1; }
printf '# %-22s %4s  %-16s %s\n' mutant s test "caught by"
printf '# %s\n' "${table[@]}"
echo "1..$count"
