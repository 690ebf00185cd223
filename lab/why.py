# SPDX-License-Identifier: GPL-2.0
"""Makes docs/why.md of what lab/why booted, and its JSON.

usage: why.py VERSION WORKDIR HOLDS JSON TEMPLATE DOCUMENT

HOLDS is what bench/holds said of the table. In the template a line {NAME ARGUMENT...}
stands for a table, and {=EXPRESSION} in the text for a figure; the functions that
both can use are at the end of class Why. A cell that was not measured is "-".
"""
import json
import os
import re
import sys

import report

BUILDS = ("stock", "vcpu-set", "vcpu-lru", "table-lru", "patched")
TITLES = {"stock": "stock", "vcpu-set": "set per vCPU", "vcpu-lru": "LRU per vCPU",
          "table-lru": "table, LRU", "patched": "table"}
# What differs by no more is no difference.
SAME = 0.01


def table(heads, rows):
    if not rows:
        return "(not measured)"
    text = [heads, ["---"] + ["---:"] * (len(heads) - 1)] + rows
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in text)


def pattern(row):
    if row["pattern"] == "slice":
        return f"slice, {row['entries']} entries"
    return row["pattern"]


class Why:
    def __init__(self, version, work, holds):
        self.version, self.rows = version, []
        for machine in report.MACHINES:
            for build in BUILDS:
                self.read(work, machine, build)
        self.rows += [{"table": build, **hold} for build in BUILDS
                      for hold in report.lines(holds, f"hold-{build}")]

    def read(self, work, machine, build):
        def log(job):
            path = f"{work}/{job}-{machine}-{build}"
            return f"{path}/results.log" if os.path.exists(f"{path}/done") else os.devnull

        for cell in report.lines(log("why"), "cell"):
            row = next(report.rows_of_cells([cell], machine, build))
            if "entries" in cell:
                row["entries"] = cell["entries"]
            self.rows.append(row)
        for word in "cost", "memory", "allocated":
            for line in report.lines(log("why-kept"), word):
                self.rows.append({"machine": machine, "l0": build, "what": word, **line})
        if os.path.exists(log("real-l1")) and log("real-l1") != os.devnull:
            self.rows += report.real_l1(log("real-l1"), machine, build)

    def where(self, **fields):
        return [r for r in self.rows if all(r.get(k) == v for k, v in fields.items())]

    def cell(self, machine, memory, name, l2, vcpus, build):
        """The row of one cell, None if there is none; name is as pattern() says."""
        return next((r for r in self.where(machine=machine, memory=memory, l2=l2,
                                           l1_vcpus=vcpus, l0=build)
                     if "pattern" in r and pattern(r) == name), None)

    def cells(self, machine, memory):
        """Those of stock, as (pattern, L2s, L1 vCPUs)."""
        return [(pattern(r), r["l2"], r["l1_vcpus"])
                for r in self.where(machine=machine, memory=memory, l0="stock") if "pattern" in r]

    # ---- What the template can use ----

    def mean(self, machine, memory, name, l2, vcpus, build):
        return self.cell(machine, memory, name, l2, vcpus, build)["insns"]["mean"]

    def ratio(self, machine, memory, name, l2, vcpus, build, of="stock"):
        return (self.mean(machine, memory, name, l2, vcpus, build) /
                self.mean(machine, memory, name, l2, vcpus, of))

    def figure(self, what, machine, memory, name, l2, vcpus, build):
        """hit or miss of a cell, or its share of hits."""
        row = self.cell(machine, memory, name, l2, vcpus, build)
        return row["hits"] if what == "hits" else row["insns"][what]

    def means(self, machine, memory):
        """Stock's means, and the others as shares of them: all on one vCPU, and on more
        those in which what keeps several contexts a vCPU differs."""
        rows, left = [], 0
        for name, l2, vcpus in self.cells(machine, memory):
            found = [self.cell(machine, memory, name, l2, vcpus, b) for b in BUILDS]
            if None in found[:1] or found.count(None) == len(BUILDS) - 1:
                continue
            old = found[0]["insns"]["mean"]
            ratios = [r and r["insns"]["mean"] / old for r in found[1:]]
            # A set per vCPU misses nearly always.
            have = [r for r in ratios[1:] if r] or [0]
            if max(have) - min(have) <= SAME and vcpus > 1:
                left += 1
                continue
            rows.append([name, vcpus, l2, old] + [f"{r:.3f}" if r else "-" for r in ratios])
        text = table(["pattern", "L1 vCPUs", "L2s", "stock"] + [TITLES[b] for b in BUILDS[1:]],
                     rows)
        if left:
            text += (f"\n\n{left} more, on several vCPUs, in which the last three differ by at most "
                     f"{SAME:.0%} of stock, are in the JSON.")
        return text

    def kinds(self, machine, memory):
        """Hits and misses apart, where one vCPU goes round its L2s."""
        rows = []
        for l2 in sorted({c[1] for c in self.cells(machine, memory) if c[0] == "loop"}):
            row = [l2, self.mean(machine, memory, "loop", l2, 1, "stock")]
            for build in BUILDS[1:]:
                have = self.cell(machine, memory, "loop", l2, 1, build)
                row += ["-"] * 3 if not have else [
                    have["insns"].get("hit", "-"), have["insns"].get("miss", "-"),
                    f"{have['hits']:.0%}" if "hits" in have else "-"]
            rows.append(row)
        heads = ["L2s", "stock"]
        for build in BUILDS[1:]:
            heads += [f"{TITLES[build]}: hit", "miss", "hits"]
        return table(heads, rows)

    def score(self, better, worse):
        """In how many cells a build costs less, the same and more than another."""
        rows = []
        for machine in report.MACHINES:
            for memory in "managed", "unmanaged":
                counts, by = [0, 0, 0], []
                for name, l2, vcpus in self.cells(machine, memory):
                    pair = [self.cell(machine, memory, name, l2, vcpus, b) for b in (better, worse)]
                    if None in pair:
                        continue
                    have = pair[0]["insns"]["mean"] / pair[1]["insns"]["mean"]
                    counts[0 if have < 1 - SAME else 2 if have > 1 + SAME else 1] += 1
                    by.append((have, f"{name}, {l2} L2s, {vcpus} vCPU{'s' * (vcpus > 1)}"))
                if by:
                    rows.append([f"{machine}, {memory}", *counts]
                                + [f"{have:.3f}: {what}" for have, what in (min(by), max(by))])
        return table(["machine, memory", "cheaper", f"within {SAME:.0%}", "dearer",
                      "at best", "at worst"], rows)

    def real(self):
        rows = []
        for machine in report.MACHINES:
            for build in BUILDS:
                for r in self.where(machine=machine, l0=build):
                    if "l2_exits" not in r:
                        continue
                    insns = r.get("insns_per_l2_exit", {}).get("all", "-")
                    loads = r.get("loads", 0)
                    rows.append([machine, TITLES[build], r["l2"], r["l1_vcpus"], insns]
                                + ([loads, f"{r['reuse'] / loads:.2%}", r["recycle"],
                                    r["fallback"]] if loads else ["-"] * 4))
        return table(["machine", "build", "L2 VMs", "L1 vCPUs", "instructions per L2 exit",
                      "loads", "hits", "recycled", "fallback"], rows)

    def allocated(self, machine, vcpus, build):
        return sum(r["bytes"] for r in self.where(machine=machine, l0=build, what="allocated",
                                                  l1_vcpus=vcpus))

    def vcpu_bytes(self, machine, build):
        return self.where(machine=machine, l0=build, what="memory")[0]["vcpu_bytes"]

    def memory(self):
        """What a VM holds: of 1 and 32 vCPUs measured, of 512 by the step between them."""
        rows = []
        for machine in "intel", "amd":
            for build in BUILDS[1:]:
                small, large = (self.allocated(machine, n, build) for n in (1, 32))
                if not small or not self.where(machine=machine, l0="stock", what="memory"):
                    continue
                more = self.vcpu_bytes(machine, build) - self.vcpu_bytes(machine, "stock")
                each = (large - small) / 31
                whole = [small + more, large + 32 * more, small + 511 * each + 512 * more]
                rows.append([machine, TITLES[build], more] +
                            [f"{n / 1024:,.0f} KiB" for n in whole])
        return table(["machine", "build", "added to struct vcpu, bytes", "1 vCPU", "32 vCPUs",
                      "512 vCPUs (computed)"], rows)

    def events(self, machine):
        rows = []
        stock = {r["pages"]: r for r in self.where(machine=machine, l0="stock", what="cost")}
        for new in self.where(machine=machine, l0="patched", what="cost"):
            old = stock.get(new["pages"])
            if not old:
                continue
            rows.append([new["pages"], new["l1_vcpus"]] +
                        [f"{old.get(k, '-')} / {new.get(k, '-')}"
                         for k in ("other", "kept", "all", "memslot", "trip_before", "trip_after")])
        return table(["kept pages", "vCPUs", "page not kept", "kept page", "all at once",
                      "slot added, deleted", "round trip", "the first after that"], rows)

    def per_page(self, machine, pages):
        """Instructions that each page adds to an event on all that are kept."""
        old, new = ([r for r in self.where(machine=machine, l0=b, what="cost")
                     if r["pages"] >= pages][0] for b in ("stock", "patched"))
        return (new["all"] - old["all"]) / new["pages"]

    def holds(self):
        cases = {"hit": "load that hits", "parked": "miss, all parked",
                 "found": "miss, all found since the last miss",
                 "in_use": "miss, all in use"}
        rows = []
        for case, title in cases.items():
            for build in "table-lru", "patched":
                found = [r for r in self.rows if r.get("table") == build and r["case"] == case]
                if found:
                    rows.append([title, TITLES[build]] + [r.get("max", "not taken") for r in found])
        sizes = sorted({r["contexts"] for r in self.rows if "case" in r})
        return table(["load", "build"] + [f"{n} contexts" for n in sizes], rows)


def main():
    version, work, holds, path, template, document = sys.argv[1:]
    known = report.machines(os.path.join(os.path.dirname(path), os.pardir, "emulator"))
    why = Why(version, work, holds)
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump({"target": "why", "kernel": version, "host": report.host(), "machines": known,
                   "rows": why.rows}, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)

    names = {name: getattr(why, name) for name in dir(Why) if name[0] != "_"}
    names |= {"version": version, "machines": known}

    def whole(found):
        name, *words = found[1].split()
        return names[name](*words)

    def figure(found):
        try:
            return str(eval(f'f"{{{found[1]}}}"', names))  # the template is ours
        except (TypeError, KeyError, IndexError):
            return "(not measured)"

    with open(template, encoding="utf-8") as text:
        said = re.sub(r"(?m)^\{([a-z].*)\}$", whole, text.read())
    with open(document + ".new", "w", encoding="utf-8") as out:
        out.write(re.sub(r"\{=([^}]*)\}", figure, said))
    os.replace(document + ".new", document)


if __name__ == "__main__":
    main()
