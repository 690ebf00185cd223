#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judges the data races that KCSAN reported on a console.

usage: lab/kcsan.py CONSOLE

The stock kernel has races of its own. What matters here are those in which a
function of linux/ has a part, in the first three frames of a stack, and those of
functions that patches/ changes. Such a race fails, unless lab/kcsan.known says why
it is none. Prints a line for each kind of race; exits with 1 if one fails.
"""
import collections
import os
import re
import sys

LAB = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(LAB)


def files(*where):
    for folder, _, names in os.walk(os.path.join(TOP, *where)):
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                yield name, file.read()


def own_functions():
    """Names of functions that are defined in our kernel files."""
    names = set()
    for name, text in files("linux", "arch"):
        if name.endswith((".c", ".h")):
            names |= set(re.findall(r"^(?:[a-z_][\w ]*[ *])?(\w+)\([^;]*?\)\n\{", text, re.M))
    return names


def changed_functions():
    """Names of functions that the patches' hunks are in, or begin in."""
    names = set()
    for name, text in files("patches"):
        if name.endswith(".patch"):
            for head, hunk in re.findall(r"^@@ .* @@(.*)\n((?:[ +-].*\n)*)", text, re.M):
                names |= set(re.findall(r"(\w+)\(", head))
                names |= set(re.findall(r"^[ +-][a-z][\w ]*[ *](\w+)\(", hunk, re.M))
    return names


def known():
    """Patterns of heads, with the reason in the comment above each group."""
    with open(os.path.join(LAB, "kcsan.known"), encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return [re.compile(line) for line in lines if line and line[0] != "#"]


def reports(console):
    """(head, functions on top of both stacks, functions that race)"""
    with open(console, encoding="utf-8", errors="replace") as file:
        text = re.sub(r"^\[[^]]*\] ?", "", file.read().replace("\r", ""), flags=re.M)
    for _ in re.findall(r"^.+BUG: KCSAN: ", text, re.M):
        yield "report that another message tore", set(), []
    for match in re.finditer(r"^BUG: KCSAN: (.*)\n((?:(?!^={20}|^BUG: ).*\n)*)", text, re.M):
        head = re.sub(r"\+0x.*", "", match[1])
        racing = re.sub(r".* in ", "", head).split(" / ")
        # An interrupt has nothing to do with what it interrupts.
        stacks = re.findall(r"^(?:read|write).*\n((?: (?!asm_).*\n){1,3})", match[2], re.M)
        stack = re.findall(r"^ (\w+)", "".join(stacks), re.M)
        yield head, set(stack), racing


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: lab/kcsan.py CONSOLE")
    own, changed, patterns = own_functions(), changed_functions(), known()
    if not own or not changed:
        sys.exit("lab/kcsan.py: no functions found in linux/ or patches/; nothing was judged")
    kinds = collections.Counter()
    for head, stack, racing in reports(sys.argv[1]):
        if any(pattern.search(head) for pattern in patterns):
            kinds["known", head] += 1
        elif not racing or stack & own or set(racing) & (own | changed):
            kinds["FAILS", head] += 1
        else:
            kinds["stock", head] += 1
    for (kind, head), number in sorted(kinds.items()):
        print(f"{kind} {number:4d} {head}")
    sys.exit(any(kind == "FAILS" for kind, _ in kinds))


if __name__ == "__main__":
    main()
