#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Needs: 2 CPUs, 5000 MB
# Some two minutes per machine of what make fuzz does: the corpus, and programs
# from seeds, which L1 must not be able to tell from those on the stock kernel.
# Then all L1 vCPUs at once, on two CPUs that run in parallel.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

fuzz amd-qemu --corpus --count 1000
fuzz intel --corpus --count 300
todo="Bochs resets: on stock as well L0 page-faults three times, after some exits of L2" \
	fuzz amd --corpus --count 300
fuzz amd-qemu --parallel --count 200
echo "1..$count"
