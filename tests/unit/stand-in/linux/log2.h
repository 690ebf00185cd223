/* SPDX-License-Identifier: GPL-2.0 */
#include_next <linux/log2.h>

#ifndef STAND_IN_LOG2_H
#define STAND_IN_LOG2_H

/* The exponent of the power of two at or above @n; 0 for 0, as the kernel's. */
static inline unsigned int order_base_2(u64 n)
{
	return n > 1 ? fls64(n - 1) : 0;
}

#endif
