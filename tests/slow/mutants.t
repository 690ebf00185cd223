#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Would the tests notice? Each tests/mutants/*.patch puts one fault into the
# patched tree. The kernel with the fault is built and booted with the cases that
# the patch names, and just those fail that it says. Its head has
#   Cpus:	of the machine
#   Cases:	of vmx_page_invalidation_test
#   Fails:	those that must fail; all others must pass
# Arguments limit it to the mutants of these names.
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=tests/lab/lib.sh
. "$here/../lab/lib.sh"
# shellcheck source=lab/common.sh
. "$lab/common.sh"

load_kernel
job=$("$lab/job" page-invalidation)
tree=$OUT/tree/mutant

# head_of PATCH WORD
head_of()
{
	sed -n "/^---/q; s/^$2: *//p" "$1"
}

# Hard links are enough, for patch replaces the files that it changes.
build()
{
	rm -rf "$tree"
	cp -al "$TREE/patched" "$tree"
	rm -rf "$tree/.pc" "$tree/.complete"
	patch -d "$tree" -p1 --fuzz=0 --no-backup-if-mismatch <"$1" || return
	VARIANT=mutant TREE_DIR=$tree "$lab/modules"
}

try()
{
	local patch=$1 name cpus cases case want have said
	name=$(basename "$patch" .patch)
	cpus=$(head_of "$patch" Cpus)

	if ! build "$patch" >"$boots/mutant-$name.build" 2>&1; then
		sed 's/^/# /' "$boots/mutant-$name.build"
		is failed built "$name: the mutant is built"
		return
	fi
	cases=$(head_of "$patch" Cases)

	# That the job ends with an error is what is wanted; of all else, tell.
	said=$(TREE_DIR=$tree boot "mutant-$name" --arch vmx --kvm mutant --cpus "$cpus" \
		--append "job.cases=${cases// /,}" --time-limit 600 \
		--title "mutant $name" "$job") || :
	[[ $said = *"the job ended with 1:"* ]] || printf '%s\n' ${said:+"$said"}
	for case in $cases; do
		want=ok
		[[ " $(head_of "$patch" Fails) " != *" $case "* ]] || want="not ok"
		have=$(tr -d '\r' <"$(results "mutant-$name")" |
			sed -nE "s/^((not )?ok) [0-9]+ (- )?page\.$case\$/\1/p")
		is "${have:-not run}" "$want" "$name: $case is \"$want\""
	done
}

for patch in "$top"/tests/mutants/*.patch; do
	if [ $# = 0 ] || [[ " $* " = *" $(basename "$patch" .patch) "* ]]; then
		try "$patch"
	fi
done
rm -rf "$tree"
echo "1..$count"
