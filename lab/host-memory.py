#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the table of what a host's memory management sees, for README.

usage: host-memory.py TITLE=RESULTS...

Each RESULTS is the results.log of a boot of the job host-memory, and becomes a
column. A cell says of how many cases all went well, and of which pages not, when.
"""
import re
import sys

POINT = re.compile(r"(not )?ok \d+ - (\w+)\.(\w+)\.(\w+)")

# What the host does, and the methods of nested_host_memory_test that are about it.
ROWS = [
    ("userfaultfd write protection", ["wp", "wp_late", "wp_again"]),
    ("the same, never answered, or the VM killed", ["wp_never", "wp_killed"]),
    ("userfaultfd, missing page", ["missing"]),
    ("userfaultfd WP_ASYNC, PAGEMAP_SCAN", ["wp_async"]),
    ("soft-dirty bits", ["soft_dirty"]),
    ("fork, the child keeps a copy", ["fork"]),
    ("mprotect, read-only", ["mprotect"]),
    ("MADV_DONTNEED", ["dontneed"]),
    ("MADV_COLD, then used", ["cold"]),
    ("KVM's dirty log", ["dirty_log"]),
    ("KVM's dirty rings, full ones too", ["dirty_ring", "ring_full", "ring_full_no_contexts"]),
]
STATES = {"in_l2": "in L2", "parked": "parked", "switching": "switching"}


def cases(path):
    """(method, page, state, whether it passed) for each case of a log."""
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            point = POINT.match(line)
            if point:
                yield *point.groups()[1:], not point.group(1)


def cell(found):
    if not found:
        return "-"
    bad = {}
    for page, state, passed in found:
        if not passed:
            bad.setdefault(page, []).append(STATES[state])
    good = sum(passed for *_, passed in found)
    text = f"{good} of {len(found)}" if bad else f"all {len(found)}"
    by_states = {}
    for page, states in bad.items():
        by_states.setdefault(", ".join(sorted(set(states))), []).append(page)
    return "; ".join([text] + [f"not {', '.join(pages)}: {states}"
                               for states, pages in by_states.items()])


def main(arguments):
    if not arguments or any("=" not in argument for argument in arguments):
        sys.exit(__doc__)
    columns = [argument.split("=", 1) for argument in arguments]
    logs = [list(cases(path)) for _, path in columns]
    unknown = {method for log in logs for method, *_ in log} - \
        {method for _, methods in ROWS for method in methods}
    if unknown:
        sys.exit(f"host-memory.py: no row is about {', '.join(sorted(unknown))}")
    table = [["the host's"] + [title for title, _ in columns]]
    for what, methods in ROWS:
        table.append([what] + [cell([rest for method, *rest in log if method in methods])
                               for log in logs])
    for number, row in enumerate(table):
        print("| " + " | ".join(row) + " |")
        if not number:
            print("|" + " --- |" * len(row))


main(sys.argv[1:])
