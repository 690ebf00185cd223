#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# What the kernel's own tools and shellcheck say of our files: nothing.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$top"
# shellcheck source=lab/common.sh
. lab/common.sh
load_kernel
lab/tree >&2

# quiet WHAT COMMAND...: the command succeeds and prints nothing
quiet()
{
	local what=$1 said rc=0
	shift

	said=$("$@" 2>&1) || rc=$?
	is "$rc-${said:+said}" 0- "$what"
	[ -z "$said" ] || printf '#   %s\n' "${said//$'\n'/$'\n'#   }"
}

# ours PATTERN: our files whose names match, those not yet committed included; without
# git, which need not be there, nor trust the directory of another user
ours()
{
	find . \( -path ./.git -o -path ./out -o -path "./${OUT#"$top/"}" -o -name __pycache__ \) -prune \
		-o -type f ! -name '*.pyc' -printf '%P\n' | sort | grep -E -- "$1"
}

# Our own files come by other ways than mail, MAINTAINERS is not ours to change.
checkpatch=("$TREE/stock/scripts/checkpatch.pl" --root="$TREE/stock" --quiet
	    --no-summary --no-signoff --ignore FILE_PATH_CHANGES)
# What is wrong only inside the kernel: programs have no u8, and may stand in
# for what the kernel's headers define.
user_space=NEW_TYPEDEFS,MEMORY_BARRIER,MACRO_ARG_UNUSED,SIZEOF_ADDRESS
trace_macros=PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE

while read -r file; do
	quiet "checkpatch $file" "${checkpatch[@]}" --strict --file "$file"
done < <(ours '^linux/.*\.[ch]$')
while read -r file; do
	quiet "checkpatch $file" "${checkpatch[@]}" --ignore "$user_space" --file "$file"
done < <(ours '\.[ch]$' | grep -v '^linux/')
while read -r file; do
	# The tracing macros are not written as function calls are.
	tracing=()
	! grep -q '^+TRACE_EVENT' "$file" || tracing=(--ignore "$trace_macros")
	# From a pipe: it takes a file that git knows for source, not for a patch.
	quiet "checkpatch $file" "${checkpatch[@]}" "${tracing[@]}" --strict - <"$file"
done < <(ours '^patches/[0-9].*\.patch$')
while read -r file; do
	quiet "kernel-doc $file" "$TREE/stock/scripts/kernel-doc" -none -Wall "$file"
done < <(ours '^linux/arch/.*\.[ch]$')

mapfile -t programs < <(ours '\.[ch]$' | grep -v '^linux/')
quiet "${#programs[@]} of our programs are laid out by the kernel's .clang-format" \
	clang-format --dry-run --Werror --style=file:"$TREE/stock/.clang-format" "${programs[@]}"

quiet "our kernel files compile clean with W=1 and sparse" lab/modules --check
for option in KVM_HYPERV KVM_SMM; do
	quiet "ours and what the series changes compile without $option" \
		lab/modules --check "$option"
done

# run_by PATTERN: our files with an interpreter that matches
run_by()
{
	ours . | while read -r file; do
		! head -n 1 "$file" | grep -qE "^#!.*[/ ]($1)( |\$)" || echo "$file"
	done
}

mapfile -t scripts < <(run_by '(ba|da)?sh')
quiet "shellcheck of ${#scripts[@]} scripts" shellcheck "${scripts[@]}" \
	lab/common.sh lab/emulator/*.sh tests/lib.sh
mapfile -t scripts < <({
	ours '\.([chS]|sh|py)$|Makefile$'
	run_by '.*'
} | sort -u)
quiet "each of ${#scripts[@]} sources says its licence" sh -c '
	! grep -L SPDX-License-Identifier: "$@" | grep .' sh "${scripts[@]}"
echo "1..$count"
