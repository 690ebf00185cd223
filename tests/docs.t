#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The tests that docs/failure-modes.md names are there.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
kvm=$top/linux/tools/testing/selftests/kvm/x86_64
count=0

# there WHERE WHAT: whether the test WHAT is there
there()
{
	case $1 in
	svm)	grep -qs "TEST_F_TIMEOUT(${2/./, }," "$kvm"/svm_nested_context_* ;;
	vmx)	grep -qs "TEST_F_TIMEOUT(${2/./, }," "$kvm"/vmx_nested_context_* ;;
	evmcs)	grep -qs "TEST_F_TIMEOUT(evmcs, $2," "$kvm"/vmx_nested_evmcs_test.c ;;
	page)	grep -qs "\<$2\>" "$kvm"/vmx_page_invalidation_* ;;
	unit)	grep -qs "cmocka.*(${2#*.}\>\|\<TEST(${2#*.})\|^static void ${2#*.}(void \*\*" "$top/tests/unit/${2%%.*}.c" ;;
	model)	grep -qsF "found \"$2\"" "$top/tests/model.t" ;;
	fuzz)	[ -x "$top/tests/fuzz.t" ] ;;
	*)	return 1 ;;
	esac
}

# shellcheck disable=SC2016 # the backquotes are the text's
names=$(sed -n '/^| ---/,$p' "$top/docs/failure-modes.md" |
	grep -o '`[a-z][^`]*`' | tr -d '`' | grep -E '\.|^fuzz$' | sort -u)
while read -r name; do
	count=$((count + 1))
	if there "${name%%.*}" "${name#*.}"; then
		echo "ok $count - $name"
	else
		echo "not ok $count - $name is named in docs/failure-modes.md and is nowhere"
	fi
done <<<"$names"
[ "$count" -gt 30 ] || echo "not ok $((count += 1)) - there is a table"
echo "1..$count"
