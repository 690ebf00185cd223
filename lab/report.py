# SPDX-License-Identifier: GPL-2.0
"""Turns the lab's logs into a table and one JSON document.

usage: report.py demo VERSION WORKDIR JSON    prints the tables
       report.py test VERSION TAPDIR JSON     prints nothing
       report.py fuzz VERSION WORKDIR JSON    prints what differs; exits with 1 if
                                              anything is wrong
JSON is out/results/TARGET.json: the emulators' versions are in out/emulator.
"""
import json
import os
import re
import sys

# The lab's machines as lab/common.sh has them: vendor, emulator, model of CPU.
MACHINES = {"amd": ("svm", "bochs", "ryzen"), "amd-qemu": ("svm", "qemu", "EPYC"),
            "intel": ("vmx", "bochs", "sapphire_rapids")}


def host():
    release = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as text:
            release = dict(line.strip().split("=", 1) for line in text if "=" in line)
    except OSError:
        pass
    names = (release.get(field, "").strip('"') for field in ("ID", "VERSION_ID"))
    return {"distribution": " ".join(filter(None, names)), "cpus": os.cpu_count()}


def machines(emulators):
    """What each machine is; one without its emulator is left out."""
    found = {}
    for name, (_, emulator, model) in MACHINES.items():
        try:
            with open(f"{emulators}/{emulator}/version", encoding="utf-8") as version:
                found[name] = f"{version.read().strip()}, {model}"
        except OSError:
            continue
    return found


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


def rows_of_cells(found, machine, l0):
    for cell in found:
        row = {"arch": cell["arch"], "machine": machine, "l0": l0}
        row.update({k: cell[k] for k in ("memory", "l2", "l1_vcpus", "pattern")})
        row["insns"] = {k: cell[k] for k in ("mean", "hit", "miss", "median", "min", "max")
                        if k in cell}
        row.update({k: cell[k] for k in ("left_out", "vmptrld", "maps", "remaps", "hits",
                                         "ratio") if k in cell})
        yield row


def cells(path, machine, l0):
    yield from rows_of_cells(lines(path, "cell"), machine, l0)


def real_l1(path, machine, l0):
    l1, vms, kvm = (next(lines(path, word)) for word in ("l1", "l2vm", "real-l1"))
    row = {"arch": kvm["arch"], "machine": machine, "l0": l0, "l1": f"Linux {l1['release']}",
           "l1_vcpus": kvm["l1_vcpus"], "l2": vms["l2"], "l2_exits": vms["exits"],
           "nested_runs": kvm["nested_run"]}
    if "nested_context_new" in kvm:
        kinds = ("new", "reuse", "recycle", "fallback")
        counts = {kind: kvm["nested_context_" + kind] for kind in kinds}
        row["loads"] = sum(counts.values())
        row.update({k: v for k, v in counts.items() if k != "new"})
    # In QEMU a real L1 runs without instructions counted; Bochs has no other time.
    if MACHINES[machine][1] == "bochs":
        row["insns_per_l2_exit"] = {"all": round(vms["tsc"] / vms["exits"])}
    yield row


def ratio(patched, stock):
    return f"{patched / stock:.3f}"


# The columns of the switching table: heading, width, and what it shows of a stock row
# and of a patched one. A column for which no row has anything is left out.
COLUMNS = [
    ("N", 4, lambda old, new: new["l2"]),
    ("room", 6, lambda old, new: new["ratio"] * new["l1_vcpus"]),
    ("stock", 8, lambda old, new: old["insns"]["mean"]),
    ("patched", 9, lambda old, new: new["insns"]["mean"]),
    ("ratio", 7, lambda old, new: ratio(new["insns"]["mean"], old["insns"]["mean"])),
    ("hit", 8, lambda old, new: new["insns"]["hit"]),
    ("miss", 8, lambda old, new: new["insns"]["miss"]),
    ("vmptrld", 9, lambda old, new: old["vmptrld"]),
    ("patched", 9, lambda old, new: new["vmptrld"]),
    ("maps", 6, lambda old, new: old["maps"]),
    ("patched", 9, lambda old, new: new["maps"]),
    ("hits", 8, lambda old, new: f"{new['hits']:.1%}"),
]


def column_text(column, old, new):
    try:
        return str(column[2](old, new))
    except KeyError:
        return "-"


def print_switching(rows):
    stock = {(r["memory"], r["pattern"], r["l2"], r["l1_vcpus"]): r
             for r in rows if r["l0"] == "stock"}
    table = []
    for row in (r for r in rows if r["l0"] == "patched"):
        old = stock[row["memory"], row["pattern"], row["l2"], row["l1_vcpus"]]
        table.append((row["memory"], [column_text(c, old, row) for c in COLUMNS]))
    used = [i for i in range(len(COLUMNS)) if any(texts[i] != "-" for _, texts in table)]
    print("\nInstructions per L2 round trip, L0 with mitigations=off: stock and patched are means of all,\n"
          "hit and miss medians; L1 runs N L2s in a loop on one vCPU, its VM has room contexts")
    for memory, texts in [("memory", [c[0] for c in COLUMNS])] + table:
        print(f"{memory:<9}" + "".join(f"{texts[i]:>{COLUMNS[i][1]}}" for i in used))


def print_real_l1(old, row):
    vcpus = "vCPU" if row["l1_vcpus"] == 1 else "vCPUs"
    print("\nA real L1: Debian's own kernel in QEMU, its KVM running L2 VMs all at once\n"
          f"{row['l2']} L2 VMs on {row['l1_vcpus']} L1 {vcpus}, "
          f"{row['l2_exits']} L2 exits to L1's user space, every value right on stock "
          "and on patched")
    if "insns_per_l2_exit" in row:
        have, was = row["insns_per_l2_exit"]["all"], old["insns_per_l2_exit"]["all"]
        print(f"  instructions per L2 exit, all of L0, L1 and L2: stock {was}, "
              f"patched {have}, ratio {ratio(have, was)}")
    if "loads" in row:
        new = row["loads"] - row["reuse"] - row["recycle"] - row["fallback"]
        print(f"  context loads {row['loads']}: reuse {row['reuse']} "
              f"({row['reuse'] / max(row['loads'], 1):.2%}), new {new}, "
              f"recycle {row['recycle']}, fallback {row['fallback']}")


def pair(measure, work, job, machine):
    """The rows of stock and of patched, if that job was booted on this machine."""
    logs = {l0: f"{work}/{job}-{machine}-{l0}/results.log" for l0 in ("stock", "patched")}
    if not all(map(os.path.exists, logs.values())):
        return []
    return [row for l0, log in logs.items() for row in measure(log, machine, l0)]


def demo(version, work, known):
    """The machines whose logs are there."""
    rows = []
    for machine, what in known.items():
        switching = pair(cells, work, "bench", machine)
        real = pair(real_l1, work, "real", machine)
        if switching or real:
            print(f"\n{machine}: nested {MACHINES[machine][0].upper()} on Linux {version}, {what}")
        if switching:
            print_switching(switching)
        if real:
            print_real_l1(*real)
        rows += switching + real
    print()
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


def fuzz_log(path):
    """What the VMs of one boot did, by name, and their programs and instructions."""
    line = re.compile(r"program (\S+) (?:(\w+) steps (\d+) notes (\d+) exits (\d+) "
                      r"lost (\d+): (.*)|(hangs|died: \S+))")
    vms, programs, insns = {}, 0, 0
    with open(path, encoding="utf-8", errors="replace") as log:
        for text in log:
            found = line.match(text)
            if found:
                vms[found.group(1)] = found.groups()[1:]
            elif text.startswith("total programs "):
                programs += int(text.split()[2])
                insns += int(text.split()[4])
    return vms, programs, insns


def fuzz(version, work):
    """A row for each machine and kernel; what is wrong is printed and counted."""
    rows = []
    for machine in sorted({name.rsplit("-", 1)[0] for name in os.listdir(work)}):
        chunks = sorted(n for n in os.listdir(work) if n.rsplit("-", 1)[0] == machine)
        both, wrong = {}, 0
        for l0 in ("stock", "patched"):
            logs = [fuzz_log(f"{work}/{name}/{l0}/results.log") for name in chunks
                    if os.path.exists(f"{work}/{name}/{l0}/results.log")]
            both[l0] = {k: v for log in logs for k, v in log[0].items()}
            done = [v for v in both[l0].values() if not v[6]]
            row = {"arch": MACHINES[machine][0], "machine": machine, "l0": l0,
                   "programs": sum(log[1] for log in logs), "vms": len(both[l0]),
                   "hangs": sum(v[6] == "hangs" for v in both[l0].values())}
            for field, what in ((1, "steps"), (2, "notes"), (3, "l2_exits"), (4, "lost")):
                row[what] = sum(int(v[field]) for v in done)
            row["insns"] = sum(log[2] for log in logs)
            rows.append(row)
        for name, have in both["patched"].items():
            want = both["stock"].get(name, have)
            died = (have[6] or "").startswith("died")
            if have == want and not died and not int(have[4] or 0):
                continue
            wrong += 1
            print(f"{machine} program {name}: stock {want}, patched {have}")
        missing = set(both["stock"]) - set(both["patched"]) if both["stock"] else ()
        rows[-1]["differences"] = wrong + len(missing)
        if not both["stock"]:
            rows.pop(-2)
        print("Linux {0} {machine}: {programs} programs in {vms} VMs, {steps} steps, {l2_exits} "
              "L2 exits, {notes} results, {insns} instructions; {differences} VMs wrong, "
              "{hangs} without end".format(version, **rows[-1]))
    return rows


def main():
    target, version, source, path = sys.argv[1:5]
    known = machines(os.path.join(os.path.dirname(path), os.pardir, "emulator"))
    rows = {"demo": lambda: demo(version, source, known), "test": lambda: test(source),
            "fuzz": lambda: fuzz(version, source)}[target]()
    document = {"target": target, "kernel": version, "host": host(), "machines": known,
                "rows": rows}
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)
    sys.exit(any(row.get("differences") or not row.get("programs", 1) for row in rows))


if __name__ == "__main__":
    main()
