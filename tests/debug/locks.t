#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Nested VMX on a kernel that checks locks, sleeping and freed pages. With KASAN
# Bochs does not get through its boot before the kernel reports stalls.
# shellcheck source=tests/lab/lib.sh
. "$(dirname "$0")/../lab/lib.sh"
# shellcheck source=tests/debug/lib.sh
. "$(dirname "$0")/lib.sh"

debug_boots locks vmx contexts-test page-invalidation fuzz faults storms stock-tests
echo "1..$count"
