# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source this use the names
# For the tests that are scripts: TAP goes to stdout, the lab's progress to stderr.
set -euo pipefail

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=${tests%/*}
lab=$top/lab
out=${OUT:-$top/out}
[[ $out = /* ]] || export OUT=$PWD/$OUT out=$PWD/$out
results=$out/results/test
mkdir -p "$results"
count=0

# is HAVE WANT WHAT [WHY]: one TAP line; with the reason for which it may fail
is()
{
	count=$((count + 1))
	if [ "$1" = "$2" ]; then
		echo "ok $count - $3${4:+ # TODO $4}"
	else
		echo "not ok $count - $3${4:+ # TODO $4}"
		echo "#   have $1, want $2"
	fi
}

# fuzz MACHINE OPTION...: lab/fuzz, which compares stock and patched; if it is known
# to fail, $todo says why
fuzz()
{
	local machine=$1 said code=0
	shift

	said=$("$lab/fuzz" --machine "$machine" "$@" 2>&1) || code=$?
	printf '# %s\n' "${said//$'\n'/$'\n'# }"
	is "$code" 0 "$machine: lab/fuzz $*" "${todo:-}"
}
