// SPDX-License-Identifier: GPL-2.0
/* Compiled once for each table: SOURCE is its file, NAME what it is called. */
#include SOURCE

#include "contender.h"

const struct contender NAME = {
	.init = kvm_nested_context_table_init,
	.destroy = kvm_nested_context_table_destroy,
	.load = kvm_nested_context_load,
	.clear = kvm_nested_context_clear,
};
