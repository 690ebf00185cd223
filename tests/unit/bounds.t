#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A hit costs at most 0.7 of what it costs with a single lock, and two threads on
# different control blocks do at least 1.7 times what one does.
exec "$(dirname "$0")/../../bench/table" --tap
