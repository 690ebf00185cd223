#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Needs: 2 CPUs, 5000 MB
# Group: slow
# What tests/fuzz.t does on intel, and more of it, without APIC virtualization.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

fuzz intel --corpus --count 1000 --append kvm_intel.enable_apicv=0
echo "1..$count"
