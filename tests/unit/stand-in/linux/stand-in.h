/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests want from the kernel's stand-ins beyond the kernel's own
 * interface. With STAND_IN_BARE, for measurements, none of it is there.
 */
#ifndef STAND_IN_H
#define STAND_IN_H

#include <stdbool.h>

/* Where a hook may let somebody else run. */
enum stand_in_point {
	AT_EXCHANGE, /* about to exchange an owner word */
	AT_LOCK, /* about to take a spinlock */
	AT_UNLOCK, /* has just released one */
	AT_WALK, /* about to follow a link of a hash bucket */
};

#ifdef STAND_IN_BARE

static inline void stand_in_point(enum stand_in_point p)
{
	(void)p;
}

#else

/* Reports what a kernel with its debug options on would; does not return. */
_Noreturn void stand_in_fail(const char *what);

/* Called by the thread that set it, at every point it passes. */
extern _Thread_local void (*stand_in_hook)(enum stand_in_point p);

/* Spinlocks that this thread holds, and times that it disabled preemption. */
extern _Thread_local int stand_in_atomic;

/* kvzalloc() fails while this is set. */
extern _Thread_local bool stand_in_no_memory;

/* kvzalloc()ed and not kvfree()d yet, by all threads. */
extern long stand_in_allocated;

static inline void stand_in_point(enum stand_in_point p)
{
	int held = stand_in_atomic;

	if (!stand_in_hook)
		return;
	/* Somebody else runs, who does not hold what this one holds. */
	stand_in_atomic = 0;
	stand_in_hook(p);
	stand_in_atomic = held;
}

#endif

#endif
