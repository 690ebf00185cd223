#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Adds up what boots counted and lists our lines that were never executed.

usage: lab/coverage.py VERSION TREE JSON BOOT...

TREE has stock and patched. Ours are all lines of files that only the patched tree
has, and in other files the lines that are not in the stock one. A line is executable
if the compiler made code of it, wherever that was inlined. In each BOOT's "counts"
gcov's notes are beside the counts.

There is no code of its own for a "return;", "break;" or "goto" that an if decides
about. Where the if is a single condition, its ways tell whether it was executed.
"""
import collections
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import report  # noqa: E402

SOURCE = re.compile(r"(?:.*/)?((?:arch|include|virt)/.*)")
FUNCTION = re.compile(r"(?=[a-z_])[^;=(]*?(\w+)\((?!.*;$)")
IF = re.compile(r"\s+(else )?if \(.*\)")
JUMP = re.compile(r"\s+(return|break|continue|goto \w+);")


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def ours(stock, patched):
    """The numbers of lines that are ours in the file."""
    match = difflib.SequenceMatcher(None, stock, patched, autojunk=False)
    return {number + 1 for kind, _, _, first, last in match.get_opcodes() if kind != "equal"
            for number in range(first, last)}


class Counts:
    """By file and line: how often it was executed, and each of its two ways."""

    def __init__(self):
        self.lines = collections.defaultdict(collections.Counter)
        self.ways = collections.defaultdict(lambda: [0, 0])

    def add(self, boot):
        where = boot / "counts"
        # Without counts, none of the file's functions was called.
        for notes in sorted(where.rglob("*.gcno")):
            said = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--stdout",
                                   notes], cwd=where, check=True, capture_output=True)
            if re.search(rb"version|mismatch", said.stderr):
                sys.exit(said.stderr.decode().strip())
            for file in json.loads(said.stdout)["files"]:
                name = SOURCE.fullmatch(os.path.normpath(file["file"]))
                for line in file["lines"] if name else ():
                    self.add_line(name.group(1), line)

    def add_line(self, name, line):
        self.lines[name][line["line_number"]] += line["count"]
        if len(line["branches"]) == 2:
            ways = self.ways[name, line["line_number"]]
            for way, branch in enumerate(line["branches"]):
                ways[way] += branch["count"]

    def jumps(self, name, text):
        """Adds jumps whose if tells about them: not executed if one way was never
        gone, and what follows was executed all the same."""
        lines = self.lines[name]
        for number in list(lines):
            jump, after = number + 1, [later for later in lines if later > number + 1]
            if (after and IF.fullmatch(text[number - 1]) and JUMP.fullmatch(text[number])
                    and jump not in lines and (name, number) in self.ways):
                never = not all(self.ways[name, number]) and lines[min(after)]
                lines[jump] = 0 if never else lines[number]


def function_at(text, number):
    """The function that a line is in: the last definition that begins before it."""
    for line in reversed(text[:number]):
        found = FUNCTION.match(line)
        if found:
            return found.group(1)
    return ""


def rows(tree, counts):
    """A row for each file that has lines of ours."""
    for name in sorted(counts.lines):
        text, stock = (lines_of(tree / which / name) for which in ("patched", "stock"))
        mine = ours(stock, text)
        if mine & counts.lines[name].keys():
            counts.jumps(name, text)
            mine &= counts.lines[name].keys()
            never = sorted(number for number in mine if not counts.lines[name][number])
            yield {"file": name, "hooks": bool(stock), "lines": len(mine),
                   "executed": len(mine) - len(never),
                   "never": [{"line": number, "function": function_at(text, number),
                              "text": text[number - 1]} for number in never]}


def show(table):
    for row in table:
        last = None
        for line in row["never"]:
            if line["function"] != last:
                last = line["function"]
                print(f"\n{row['file']}: {last}()")
            print(f"{line['line']:6} {line['text'].expandtabs()}")
    total = {"file": "all", "hooks": False}
    for what in ("lines", "executed"):
        total[what] = sum(row[what] for row in table)
    width = max(len(row["file"]) for row in table) + 9
    print(f"\n{'':{width}}  lines  executed  never")
    for row in table + [total]:
        name = row["file"] + (", hooks" if row["hooks"] else "")
        print(f"{name:{width}} {row['lines']:6} {row['executed']:9} "
              f"{row['lines'] - row['executed']:6}")
    print(f"\n{total['executed']} of {total['lines']} lines of ours are executed")


def main():
    version, tree, path = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    counts = Counts()
    for boot in sys.argv[4:]:
        counts.add(pathlib.Path(boot))
    table = list(rows(tree, counts))
    show(table)
    emulators = os.path.join(os.path.dirname(path), os.pardir, "emulator")
    document = {"target": "coverage", "kernel": version, "host": report.host(),
                "machines": report.machines(emulators), "rows": table}
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)


main()
