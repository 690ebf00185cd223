#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Nested SVM on a kernel that checks memory, locks, sleeping, undefined behaviour
# and leaks, with KVM built in. What it reports fails the boot, see lab/splats.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/../lab/lib.sh"
# shellcheck source=tests/debug/lib.sh
. "$(dirname "$0")/lib.sh"

debug_boots kasan svm contexts-test fuzz faults storms stock-tests
echo "1..$count"
