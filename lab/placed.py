# SPDX-License-Identifier: GPL-2.0
"""Refuses a patch that patch(1) put into another function than it names.

usage: placed.py PATCH LOG OLD; LOG is what patch(1) printed, OLD a directory with
the files as they were before, for those are what hunks speak of. A hunk names its function after the second "@@" and must
be in it, wherever patch(1) found its lines: twins of a few lines are common in
this code (svm.c and nested.c, VMLOAD and VMSAVE) and context alone cannot tell
them apart.
"""
import os
import re
import sys

HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)$")
MOVED = re.compile(r"^Hunk #(\d+) succeeded at \d+(.*)")
OFFSET = re.compile(r"\(offset (-?\d+) line")


def hunks_of(patch):
    """{file: [[line it speaks of, heading] of each hunk, in order]}"""
    found, current = {}, None
    for line in patch:
        if line.startswith("+++ "):
            name = line[4:].split("\t")[0].strip()
            current = found.setdefault(name.split("/", 1)[-1], [])
        elif current is not None and (hunk := HUNK.match(line)):
            current.append([int(hunk.group(1)), hunk.group(2).strip()])
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
    patch, log, old = sys.argv[1:4]
    name = patch.rsplit("/", 1)[-1]
    with open(patch, encoding="utf-8", errors="replace") as text:
        hunks = hunks_of(text)

    # Only hunks that moved are in the log.
    path = None
    with open(log, encoding="utf-8", errors="replace") as text:
        for line in text:
            if line.startswith("patching file "):
                path = line.split()[2]
            elif moved := MOVED.match(line):
                number, how = moved.groups()
                if "fuzz" in how:
                    refuse(f"{name}: hunk {number} of {path} needs fuzz")
                if offset := OFFSET.search(how):
                    hunks[path][int(number) - 1][0] += int(offset.group(1))

    for path, places in hunks.items():
        with open(os.path.join(old, path), encoding="utf-8", errors="replace") as text:
            source = text.read().split("\n")
        for number, (at, heading) in enumerate(places, 1):
            names = enclosing(source, at)
            if heading and not any(n.startswith(heading) for n in names):
                where = names[-1] if names else "the top of the file"
                refuse(f"{name}: hunk {number} of {path} is for "
                       f'"{heading}" and went into "{where}"')


main()
