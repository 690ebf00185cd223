#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Those of the kernel's own nested tests that take Bochs minutes.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/../lab/lib.sh"
# shellcheck source=tests/lab/stock-tests.sh
. "$(dirname "$0")/../lab/stock-tests.sh"

"$lab/initramfs" >&2
boot_pair vmx-slow --append job.limit=600 --time-limit 1200
compare vmx-slow
left_out vmx-never
echo "1..$count"
