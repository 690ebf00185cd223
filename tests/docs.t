#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The tests and functions that docs/failure-modes.md and docs/rules.md name are there.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
kvm=$top/linux/tools/testing/selftests/kvm/x86_64
count=0

# quoted NAME FILE...: whether each part of a case's name is in quotes there
quoted()
{
	local parts part
	IFS=. read -ra parts <<<"$1"

	for part in "${parts[@]}"; do
		grep -qs "\"${part}[\".]" "${@:2}" || return 1
	done
}

# there WHERE WHAT: whether the test WHAT is there
there()
{
	case $1 in
	svm)	grep -qs "TEST_F_TIMEOUT(${2/./, }," "$kvm"/svm_nested_context_* ;;
	vmx)	grep -qs "TEST_F_TIMEOUT(${2/./, }," "$kvm"/vmx_nested_context_* ;;
	evmcs)	grep -qs "TEST_F_TIMEOUT(evmcs, $2," "$kvm"/vmx_nested_evmcs_test.c ;;
	storm)	grep -qs "TEST_F_TIMEOUT(${2/./, }," "$kvm"/nested_context_storm_* ;;
	posted)	quoted "$2" "$kvm"/nested_posted_interrupt_* ;;
	host)	quoted "$2" "$kvm"/nested_host_memory_* ;;
	page)	grep -qs "\<$2\>" "$kvm"/vmx_page_invalidation_* ;;
	unit)	grep -qs "cmocka.*(${2#*.}\>\|\<TEST(${2#*.})\|^static void ${2#*.}(void \*\*" "$top/tests/unit/${2%%.*}.c" ;;
	model)	grep -qsF "found \"$2\"" "$top/tests/model.t" ;;
	mutant)	[ -f "$top/tests/mutants/$2.patch" ] ;;
	fuzz)	[ -x "$top/tests/fuzz.t" ] ;;
	*)	return 1 ;;
	esac
}

# said FILE: what it has in backquotes, of failure-modes.md what is in its table
said()
{
	# shellcheck disable=SC2016 # the backquotes are the text's
	sed -n '/^| ---/,$p; /^## /,$p' "$top/docs/$1" | grep -o '`[a-z_][^`]*`' |
		tr -d '`' | sort -u
}

# named FILE WHAT COMMAND...: it succeeds
named()
{
	count=$((count + 1))
	if "${@:3}"; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2 is named in docs/$1 and is nowhere"
	fi
}

for file in failure-modes.md rules.md; do
	before=$count
	while read -r name; do
		case $name in
		*'()')	named "$file" "$name" grep -qrw "${name%'()'}" "$top/linux/arch" "$top/patches/6.12" ;;
		*/*)	;;
		*.*|fuzz) named "$file" "$name" there "${name%%.*}" "${name#*.}" ;;
		esac
	done < <(said "$file")
	[ "$count" -gt $((before + 30)) ] || echo "not ok $((count += 1)) - $file names its tests"
done
echo "1..$count"
