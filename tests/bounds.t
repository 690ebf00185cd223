#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a hit in the nested context table may cost, counted in a trace of each
instruction and each access to memory (valgrind's lackey): of what it costs in a
table with one lock, in the same run, and of memory that two vCPUs share.
"""
import pathlib
import re
import subprocess
import tempfile

LINE = 64
STACK = 1 << 16
PHASES = 5  # see bench/hits.c
BUILD = pathlib.Path(__file__).resolve().parents[1] / "bench/build"


class Phase:
    def __init__(self):
        self.instructions, self.touched, self.written = 0, set(), {}

    def access(self, address, size, writes):
        for line in range(address // LINE, (address + size - 1) // LINE + 1):
            self.touched.add(line)
            if writes:
                self.written[line] = self.written.get(line, 0) + 1

    def writes(self, lines=None):
        return sum(n for line, n in self.written.items() if lines is None or line in lines)


def trace(program):
    """The phases, and how many hits each of them is."""
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as log:
        run = subprocess.run(["valgrind", "--tool=lackey", "--trace-mem=yes", "--basic-counts=no",
                              f"--log-file={log.name}", program], stdout=subprocess.PIPE,
                             text=True, check=True)
        said = re.match(r"phase (\w+) stack (\w+) hits (\d+)", run.stdout)
        marks, stack, hits = int(said[1], 16), int(said[2], 16), int(said[3])
        phases = [Phase() for _ in range(PHASES)]
        phase = phases[0]
        for line in log:
            if line[0] == "I":
                phase.instructions += 1
            elif line[0] == " ":
                address, size = line[3:].split(",")
                address = int(address, 16)
                if marks <= address < marks + PHASES * LINE:
                    phase = phases[(address - marks) // LINE]
                elif abs(address - stack) > STACK:
                    phase.access(address, int(size), line[1] != "L")
    return phases, hits


def main():
    program = subprocess.run([BUILD, "hits"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout.strip()
    phases, hits = trace(program)
    count = 0

    def at_most(have, limit, what):
        nonlocal count
        count += 1
        print(f"{'ok' if have <= limit else 'not ok'} {count} - {what}: {have:.4g}, "
              f"at most {limit:.4g}")

    locked, ours = phases[1:3], phases[3:5]
    for what, limit, each in (("instructions of a hit", 0.9, lambda phase: phase.instructions),
                              ("writes to memory of a hit", 0.45, Phase.writes)):
        with_lock, have = (sum(map(each, pair)) / 2 / hits for pair in (locked, ours))
        print(f"# {what}: {have:.2f}, with one lock {with_lock:.2f}")
        at_most(have / with_lock, limit, f"{what}, of those with one lock")
    # A vCPU adds what it counted to the VM's statistics once in so many hits.
    for what, (one, other), limit in (("one lock", locked, None), ("ours", ours, 1 / 500)):
        have = (one.writes(other.touched) + other.writes(one.touched)) / 2 / hits
        print(f"# {what}: {have:.4f} writes of a hit to what the other vCPU's hits use")
        if limit:
            at_most(have, limit, "writes of a hit to what another vCPU's hits use")
        else:
            at_most(1, have, "the count sees a lock: what one has to be below")
    print(f"1..{count}")


main()
