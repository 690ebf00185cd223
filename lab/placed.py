# SPDX-License-Identifier: GPL-2.0
"""Refuses a patch that patch(1) put into another function than it names.

usage: placed.py PATCH LOG, in the tree just after the patch was applied; LOG is
what patch(1) printed. A hunk names its function after the second "@@". One that
went in at an offset must still be inside it: twins of a few lines are common in
this code (svm.c and nested.c, VMLOAD and VMSAVE) and context alone cannot tell
them apart.
"""
import re
import sys

HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)$")
FILE = re.compile(r"^patching file (\S+)")
OFFSET = re.compile(r"^Hunk #(\d+) succeeded at (\d+) \(offset ")
FUZZ = re.compile(r"^Hunk #(\d+) succeeded at \d+.* with fuzz")


def headings(patch):
    """{file: [heading of each hunk, in order]}"""
    found, current = {}, None
    for line in patch:
        if line.startswith("+++ "):
            name = line[4:].split("\t")[0].strip()
            current = found.setdefault(name.split("/", 1)[-1], [])
        elif current is not None and (hunk := HUNK.match(line)):
            current.append(hunk.group(1).strip())
    return found


def enclosing(lines, at):
    """What diff -p and git would name for a hunk starting at line `at`.

    Both take the last line above that starts at the margin; git passes over
    labels, diff does not.
    """
    names = []
    for line in reversed(lines[: at - 1]):
        if not re.match(r"[A-Za-z_$]", line):
            continue
        names.append(line.strip())
        if not re.match(r"\w+:\s*(/\*.*)?$", line):
            break
    return names


def refuse(why):
    print("REFUSED " + why)
    sys.exit(1)


def main():
    patch, log = sys.argv[1:3]
    name = patch.rsplit("/", 1)[-1]
    with open(patch, encoding="utf-8", errors="replace") as text:
        hunks = headings(text)
    path = None
    with open(log, encoding="utf-8", errors="replace") as text:
        for line in text:
            if found := FILE.match(line):
                path = found.group(1)
            elif found := FUZZ.match(line):
                refuse(f"{name}: hunk {found.group(1)} of {path} needs fuzz")
            elif found := OFFSET.match(line):
                number, at = int(found.group(1)), int(found.group(2))
                heading = hunks[path][number - 1]
                with open(path, encoding="utf-8", errors="replace") as source:
                    names = enclosing(source.read().split("\n"), at)
                if heading and not any(n.startswith(heading) for n in names):
                    where = names[-1] if names else "the top of the file"
                    refuse(f"{name}: hunk {number} of {path} is for "
                           f'"{heading}" and went into "{where}"')


main()
