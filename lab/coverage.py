#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Adds up what boots counted and lists our lines that were never executed.

usage: lab/coverage.py VERSION TREE JSON BOOT...

TREE has stock and patched. Ours are all lines of files that only the patched tree
has, and in other files the lines that are not in the stock one. A line is executable
if the compiler made code of it, wherever that was inlined. In each BOOT's "counts"
gcov's notes are beside the counts.
"""
import collections
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys

SOURCE = re.compile(r"(?:.*/)?((?:arch|include|virt)/.*)")
FUNCTION = re.compile(r"(?=[a-z_])[^;=(]*?(\w+)\((?!.*;$)")


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def ours(stock, patched):
    """The numbers of lines that are ours in the file."""
    match = difflib.SequenceMatcher(None, stock, patched, autojunk=False)
    return {number + 1 for kind, _, _, first, last in match.get_opcodes() if kind != "equal"
            for number in range(first, last)}


def count(boot):
    """How often each line was executed in a boot: {(file, line): count}."""
    counts = collections.Counter()
    where = boot / "counts"
    for data in where.rglob("*.gcno"):
        # Without counts, none of the file's functions was called.
        said = subprocess.run(["gcov", "--json-format", "--stdout", data], cwd=where,
                              check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if b"version" in said.stderr or b"mismatch" in said.stderr:
            sys.exit(f"{data}: {said.stderr.decode().strip()}")
        for file in json.loads(said.stdout)["files"]:
            name = SOURCE.fullmatch(os.path.normpath(file["file"]))
            for line in file["lines"] if name else ():
                counts[name.group(1), line["line_number"]] += line["count"]
    return counts


def function_at(text, number):
    """The function that a line is in: the last definition that begins before it."""
    for line in reversed(text[:number]):
        found = FUNCTION.match(line)
        if found:
            return found.group(1)
    return ""


def rows(tree, counts):
    """A row for each file that has lines of ours."""
    executable = collections.defaultdict(set)
    for name, number in counts:
        executable[name].add(number)
    for name in sorted(executable):
        text, stock = (lines_of(tree / which / name) for which in ("patched", "stock"))
        mine = executable[name] & ours(stock, text)
        never = sorted(number for number in mine if not counts[name, number])
        if mine:
            yield {"file": name, "hooks": bool(stock), "lines": len(mine),
                   "executed": len(mine) - len(never),
                   "never": [{"line": number, "function": function_at(text, number),
                              "text": text[number - 1]} for number in never]}


def show(table):
    total = {"file": "all", "hooks": False}
    for what in ("lines", "executed"):
        total[what] = sum(row[what] for row in table)
    for row in table:
        last = None
        for line in row["never"]:
            if line["function"] != last:
                last = line["function"]
                print(f"\n{row['file']}: {last}()")
            print(f"{line['line']:6} {line['text'].expandtabs()}")
    width = max(len(row["file"]) for row in table) + 9
    print(f"\n{'':{width}}  lines  executed  never")
    for row in table + [total]:
        name = row["file"] + (", hooks" if row["hooks"] else "")
        print(f"{name:{width}} {row['lines']:6} {row['executed']:9} "
              f"{row['lines'] - row['executed']:6}")
    print(f"\n{total['executed']} of {total['lines']} lines of ours are executed")


def main():
    version, tree, path = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    counts = collections.Counter()
    for boot in map(pathlib.Path, sys.argv[4:]):
        one = count(boot)
        for key in one:
            counts[key] += one[key]
    table = list(rows(tree, counts))
    show(table)
    document = {"target": "coverage", "kernel": version, "rows": table}
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)


main()
