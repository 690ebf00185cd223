#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Nested SVM on a kernel that watches for data races. QEMU's two CPUs take turns: a
# race shows when one is preempted within a watched access.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/../lab/lib.sh"
# shellcheck source=tests/debug/lib.sh
. "$(dirname "$0")/lib.sh"

debug_boots kcsan svm contexts-test fuzz storms stock-tests
echo "1..$count"
