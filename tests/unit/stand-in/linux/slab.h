/* SPDX-License-Identifier: GPL-2.0 */
#ifndef STAND_IN_SLAB_H
#define STAND_IN_SLAB_H

#include <stdlib.h>
#include <string.h>

#include <linux/cache.h>
#include <linux/overflow.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#define GFP_KERNEL_ACCOUNT GFP_KERNEL
#define __GFP_NORETRY 0
#define __GFP_NOWARN 0

/* Aligned as the kernel's is for anything that is not tiny. */
static inline void *kzalloc(size_t size, gfp_t gfp)
{
	void *p;

	(void)gfp;
	if (posix_memalign(&p, SMP_CACHE_BYTES, size))
		return NULL;
	return memset(p, 0, size);
}

static inline void kfree(void *p)
{
	free(p);
}

#ifdef STAND_IN_BARE

static inline void *kvzalloc(size_t size, gfp_t gfp)
{
	(void)gfp;
	return calloc(1, size);
}

static inline void kvfree(void *p)
{
	free(p);
}

#else

static inline void *kvzalloc(size_t size, gfp_t gfp)
{
	(void)gfp;
	might_sleep();
	if (stand_in_no_memory)
		return NULL;
	__atomic_fetch_add(&stand_in_allocated, 1, __ATOMIC_RELAXED);
	return calloc(1, size);
}

static inline void kvfree(void *p)
{
	might_sleep();
	if (p)
		__atomic_fetch_sub(&stand_in_allocated, 1, __ATOMIC_RELAXED);
	free(p);
}

#endif

#endif
