#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The kernel's own nested tests, but those that take minutes.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/stock-tests.sh
. "$(dirname "$0")/stock-tests.sh"

"$lab/initramfs" >&2
boot_pair svm --cpus 2
boot_pair vmx --time-limit 600
compare svm
compare vmx
echo "1..$count"
