#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The main job runs to its end, and its figures are what the project promises.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"

code=0
"$lab/demo" >"$boots/demo.said" 2>&1 || code=$?
sed 's/^/# /' "$boots/demo.said"
is "$code" 0 "make demo ends with its table"
[ $code = 0 ] || { echo "1..$count"; exit 1; }

exec python3 - "$out/results/demo.json" $count <<'PYTHON'
import json
import sys

document = json.load(open(sys.argv[1], encoding="utf-8"))
count = int(sys.argv[2])
rows = document["rows"]


def cell(l0, memory, l2, ratio=None):
    return next(r for r in rows if r.get("memory") == memory and r["l0"] == l0
                and r["l2"] == l2 and r.get("ratio") == ratio)


def median(*which):
    return cell(*which)["insns"]["median"]


def at_most(have, limit, what):
    global count
    count += 1
    print(f"{'ok' if have <= limit else 'not ok'} {count} - {what}: "
          f"{have:.4g}, at most {limit:.4g}")


patched8 = median("patched", "managed", 8)
at_most(patched8 / median("stock", "managed", 8), 0.78, "managed, N=8, of stock")
at_most(median("patched", "unmanaged", 8) / median("stock", "unmanaged", 8), 0.35,
        "unmanaged, N=8, of stock")
at_most(abs(median("patched", "unmanaged", 8) / patched8 - 1), 0.05,
        "unmanaged beside managed, N=8")
at_most(abs(median("patched", "managed", 16, 16) / median("patched", "managed", 2) - 1),
        0.04, "N=16 within capacity beside N=2")
for memory in "managed", "unmanaged":
    for l2 in 1, 2, 8:
        at_most(cell("patched", memory, l2)["maps"], 0, f"mappings on a hit, {memory}, N={l2}")
at_most(1 - cell("patched", "managed", 16)["hits"], 0.60, "misses, 16 L2s over 8 contexts")
at_most(1 - cell("patched", "managed", 9)["hits"], 0.25, "misses, 9 L2s over 8 contexts")
l1 = next(r for r in rows if "l2_exits" in r and r["l0"] == "patched")
at_most(1 - l1["reuse"] / l1["loads"], 0.01, "real L1, loads that are no reuse")
at_most(l1["fallback"], 0, "real L1, fallbacks")
print(f"1..{count}")
PYTHON
