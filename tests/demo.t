#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Needs: 2 CPUs, 7000 MB
# The main job runs to its end, and its figures are what the project promises.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

code=0
"$lab/demo" >"$results/demo.said" 2>&1 || code=$?
sed 's/^/# /' "$results/demo.said"
is "$code" 0 "make demo ends with its table"
[ $code = 0 ] || { echo "1..$count"; exit 1; }

exec python3 - "$out/results/demo.json" $count <<'PYTHON'
import json
import sys

document = json.load(open(sys.argv[1], encoding="utf-8"))
count = int(sys.argv[2])
rows = document["rows"]


def cell(machine, l0, memory, l2, ratio=8):
    return next(r for r in rows if r["machine"] == machine and r.get("memory") == memory
                and r["l0"] == l0 and r["l2"] == l2 and r.get("ratio", ratio) == ratio)


def cost(kind, *which):
    return cell(*which)["insns"][kind]


def at_most(have, limit, what):
    global count
    count += 1
    print(f"{'ok' if have <= limit else 'not ok'} {count} - {what}: "
          f"{have:.4g}, at most {limit:.4g}")


# machine, memory, N over 8 contexts, and what the mean of a round trip may be of stock's.
# Debian 12 compiles its kernel and our modules with gcc 12, Debian 13 with gcc 14: the
# limits are for both. On amd, managed, they give 0.643 and 0.657 at N=1, 0.661 and 0.674
# at N=8, 0.880 and 0.886 at N=16; elsewhere the two are within 2 %.
for machine, memory, l2, limit in (
        ("amd", "managed", 1, 0.665), ("amd", "managed", 8, 0.68), ("amd", "managed", 16, 0.895),
        ("amd", "unmanaged", 8, 0.26), ("amd", "unmanaged", 16, 0.74),
        ("intel", "managed", 1, 0.87), ("intel", "managed", 8, 0.87), ("intel", "managed", 16, 1.05),
        ("intel", "unmanaged", 8, 0.48), ("intel", "unmanaged", 16, 0.94)):
    at_most(cost("mean", machine, "patched", memory, l2) /
            cost("mean", machine, "stock", memory, l2), limit,
            f"{machine}: {memory}, N={l2}, of stock")

# Beside N=2: most of the step on amd is stock's, which keeps the roots of four
# nested page tables.
for machine, apart in ("amd", 0.065), ("intel", 0.005):
    at_most(abs(cost("hit", machine, "patched", "unmanaged", 8) /
                cost("hit", machine, "patched", "managed", 8) - 1), 0.005,
            f"{machine}: unmanaged beside managed, N=8")
    at_most(abs(cost("hit", machine, "patched", "managed", 16, 16) /
                cost("hit", machine, "patched", "managed", 2) - 1), apart,
            f"{machine}: N=16 within capacity beside N=2")
    for memory in "managed", "unmanaged":
        for l2 in 1, 2, 8:
            at_most(cell(machine, "patched", memory, l2)["maps"], 0,
                    f"{machine}: mappings on a hit, {memory}, N={l2}")
    for l2, misses in (16, 0.60), (9, 0.25):
        at_most(1 - cell(machine, "patched", "managed", l2)["hits"], misses,
                f"{machine}: misses, {l2} L2s over 8 contexts")

for machine in "amd-qemu", "intel":
    l1 = next(r for r in rows
              if r["machine"] == machine and "l2_exits" in r and r["l0"] == "patched")
    at_most(1 - l1["reuse"] / l1["loads"], 0.01, f"{machine}: real L1, loads that are no reuse")
    at_most(l1["fallback"], 0, f"{machine}: real L1, fallbacks")
print(f"1..{count}")
PYTHON
