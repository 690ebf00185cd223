/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's atomics on the compiler's, with the kernel's memory orders. */
#ifndef STAND_IN_ATOMIC_H
#define STAND_IN_ATOMIC_H

#include <linux/compiler.h>
#include <linux/stand-in.h>
#include <linux/types.h>

typedef struct {
	s64 counter;
} atomic64_t;

static inline int atomic_read(const atomic_t *v)
{
	return READ_ONCE(v->counter);
}

static inline void atomic_set(atomic_t *v, int i)
{
	WRITE_ONCE(v->counter, i);
}

static inline void atomic_inc(atomic_t *v)
{
	__atomic_fetch_add(&v->counter, 1, __ATOMIC_RELAXED);
}

static inline void atomic64_add(s64 i, atomic64_t *v)
{
	__atomic_fetch_add(&v->counter, i, __ATOMIC_RELAXED);
}

static inline void atomic64_inc(atomic64_t *v)
{
	atomic64_add(1, v);
}

static inline s64 atomic64_read(const atomic64_t *v)
{
	return READ_ONCE(v->counter);
}

static inline long atomic_long_read(const atomic_long_t *v)
{
	return READ_ONCE(v->counter);
}

static inline void atomic_long_set(atomic_long_t *v, long i)
{
	WRITE_ONCE(v->counter, i);
}

static inline void atomic_long_set_release(atomic_long_t *v, long i)
{
	__atomic_store_n(&v->counter, i, __ATOMIC_RELEASE);
}

static inline bool atomic_long_try_cmpxchg_acquire(atomic_long_t *v, long *old,
						   long new)
{
	stand_in_point(AT_EXCHANGE);
	return __atomic_compare_exchange_n(&v->counter, old, new, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

#define cmpxchg_release(ptr, old, new)                                   \
	({                                                               \
		typeof(*(ptr)) __old = (old);                            \
		stand_in_point(AT_EXCHANGE);                             \
		__atomic_compare_exchange_n((ptr), &__old, (new), false, \
					    __ATOMIC_RELEASE,            \
					    __ATOMIC_RELAXED);           \
		__old;                                                   \
	})

#endif
