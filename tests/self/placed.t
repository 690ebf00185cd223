#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# A patch that patch(1) is content with, but that lands in another function than
# it names, or needs fuzz, is refused.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# source_of FILLER-LINES FIRST SECOND: two functions with the same body
source_of()
{
	seq -f '/* %g */' "$1"
	for name in "$2" "$3"; do
		printf 'static int %s(void)\n{\n\tint ret;\n\n\tret = 1;\n\tret++;\n\treturn ret;\n}\n\n' "$name"
	done
}

mkdir old new was
source_of 10 first second >old/file.c
sed '/second/,$s/ret++/ret += 2/' old/file.c >new/file.c
diff -pu old/file.c new/file.c >change.patch || :

# applies NAME FILLER FIRST SECOND
applies()
{
	source_of "$2" "$3" "$4" | tee file.c >was/file.c
	patch -p1 --fuzz="${5:-0}" file.c <change.patch >log || { echo patch; return; }
	sed -i 's/^patching file .*/patching file file.c/' log
	python3 "$lab/placed.py" change.patch log was >said && echo fine || echo refused
}

is "$(applies same 10 first second)" fine "where it was made"
is "$(applies down 12 first second)" fine "at an offset, in its function"
is "$(applies near 17 first second)" refused "at an offset, in the twin, which is nearer"
is "$(applies twin 10 second first)" refused "at no offset, in the twin"
sed -i 's/^ {$/ { \/* was *\//; s/^ \tint ret;/ \tlong ret;/' change.patch
is "$(applies fuzz 10 first second 3)" refused "with fuzz"
echo "1..$count"
