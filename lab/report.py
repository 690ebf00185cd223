# SPDX-License-Identifier: GPL-2.0
"""Turns the lab's logs into a table and one JSON document.

usage: report.py demo VERSION WORKDIR JSON    prints the table
       report.py test VERSION TAPDIR JSON     prints nothing
"""
import json
import os
import re
import subprocess
import sys


def host():
    version = {"cpus": os.cpu_count()}
    try:
        said = subprocess.run(["qemu-system-x86_64", "--version"], check=True,
                              capture_output=True, text=True).stdout
        version["qemu"] = re.search(r"version (\d+\.\d+)", said).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):
        pass
    return version


def number(text):
    try:
        return int(text)
    except ValueError:
        return float(text) if re.fullmatch(r"[\d.]+", text) else text


def lines(path, word):
    """The lines `word key=value ...` of a log, each as a dictionary."""
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            fields = line.split()
            if fields and fields[0] == word:
                yield {key: number(value) for key, value in
                       (field.split("=", 1) for field in fields[1:] if "=" in field)}


def cells(path, l0):
    for cell in lines(path, "cell"):
        row = {"arch": cell["arch"], "l0": l0, "memory": cell["memory"],
               "l2": cell["l2"], "l1_vcpus": cell["l1_vcpus"],
               "pattern": cell["pattern"],
               "insns": {k: cell[k] for k in ("median", "min", "max") if k in cell}}
        for key in ("maps", "remaps", "vmwrites", "hits", "ratio"):
            if key in cell:
                row[key] = cell[key]
        yield row


def real_l1(path, l0):
    l1, vms, kvm = (next(lines(path, word)) for word in ("l1", "l2vm", "real-l1"))
    row = {"arch": kvm["arch"], "l0": l0, "l1": l1["release"],
           "l1_vcpus": kvm["l1_vcpus"], "l2": vms["l2"], "l2_exits": vms["exits"],
           "nested_runs": kvm["nested_run"]}
    if "nested_context_new" in kvm:
        kinds = ("new", "reuse", "recycle", "fallback")
        counts = {kind: kvm["nested_context_" + kind] for kind in kinds}
        row["loads"] = sum(counts.values())
        row.update({k: v for k, v in counts.items() if k != "new"})
    if vms.get("icount"):
        row["insns_per_l2_exit"] = round(vms["tsc"] / vms["exits"])
    return row


def key(row):
    return (row["arch"], row.get("memory"), row.get("pattern"), row["l2"],
            row["l1_vcpus"], row.get("ratio"))


def ratio(patched, stock):
    return f"{patched / stock:.3f}" if stock else "-"


def table(version, emulator, rows):
    switching = [r for r in rows if "insns" in r]
    stock = {key(r): r for r in rows if r["l0"] == "stock"}
    print(f"\nNested contexts on Linux {version}, {emulator}\n")
    print("Instructions per L2 round trip (median, L0 with mitigations=off);\n"
          "L1 runs N L2s in a loop on one vCPU")
    print(f"{'memory':<11}{'N':>4}{'stock':>10}{'patched':>10}{'ratio':>8}"
          f"{'maps':>7}{'patched':>9}{'hits':>9}")
    for row in (r for r in switching if r["l0"] == "patched"):
        # Another capacity is compared with the one stock figure there is.
        old = stock.get(key({**row, "ratio": None}))
        insns = row["insns"]["median"]
        hits = f"{row['hits']:.1%}" if "hits" in row else "-"
        text = (f"{row['memory']:<11}{row['l2']:>4}"
                f"{old['insns']['median'] if old else '-':>10}{insns:>10}"
                f"{ratio(insns, old['insns']['median']) if old else '-':>8}"
                f"{old.get('maps', '-') if old else '-':>7}{row.get('maps', '-'):>9}{hits:>9}")
        if "ratio" in row:
            text += f"  capacity {row['ratio'] * row['l1_vcpus']}"
        print(text)

    print("\nA real L1: Debian's own kernel in QEMU, its KVM running L2 VMs all at once")
    for row in (r for r in rows if "l2_exits" in r and r["l0"] == "patched"):
        old = stock[key(row)]
        print(f"{row['l2']} L2 VMs on {row['l1_vcpus']} L1 vCPUs, {row['l2_exits']} L2 exits "
              f"to L1's user space, every value right on stock and on patched")
        if "insns_per_l2_exit" in row and "insns_per_l2_exit" in old:
            print(f"  instructions per L2 exit, all of L0, L1 and L2:  stock "
                  f"{old['insns_per_l2_exit']}  patched {row['insns_per_l2_exit']}  "
                  f"ratio {ratio(row['insns_per_l2_exit'], old['insns_per_l2_exit'])}")
        if "loads" in row:
            new = row["loads"] - row["reuse"] - row["recycle"] - row["fallback"]
            print(f"  context loads {row['loads']}: reuse {row['reuse']} "
                  f"({row['reuse'] / max(row['loads'], 1):.2%}), new {new}, "
                  f"recycle {row['recycle']}, fallback {row['fallback']}")
    print()


def demo(version, work):
    rows = []
    for l0 in ("stock", "patched"):
        rows += cells(f"{work}/bench-{l0}/results.log", l0)
        rows.append(real_l1(f"{work}/real-{l0}/results.log", l0))
    emulator = f"QEMU {host().get('qemu', '')} software emulation"
    table(version, emulator, rows)
    return rows


def test(tapdir):
    """One row per TAP line of what prove dumped."""
    point = re.compile(r"^(not )?ok\b\s*\d*\s*(?:- )?([^#]*)(?:#\s*(skip|todo)\b\s*(.*))?", re.I)
    rows = []
    for directory, _, names in sorted(os.walk(tapdir)):
        for name in sorted(names):
            path = os.path.join(directory, name)
            with open(path, encoding="utf-8", errors="replace") as tap:
                for found in filter(None, map(point.match, tap)):
                    bad, what, directive, why = found.groups()
                    row = {"script": os.path.relpath(path, tapdir), "name": what.strip(),
                           "result": (directive or ("fail" if bad else "pass")).lower()}
                    if why:
                        row["why"] = why.strip()
                    rows.append(row)
    return rows


def main():
    target, version, source, path = sys.argv[1:5]
    rows = {"demo": lambda: demo(version, source), "test": lambda: test(source)}[target]()
    document = {"target": target, "kernel": version, "host": host(), "rows": rows}
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)


main()
