/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A test-and-test-and-set lock, which without contention costs what the
 * kernel's does: one exchange to take it, one store to release it. A waiter
 * gives way after a while, for here the holder may be preempted.
 */
#ifndef STAND_IN_SPINLOCK_H
#define STAND_IN_SPINLOCK_H

#include <sched.h>

#include <linux/compiler.h>
#include <linux/stand-in.h>

typedef struct {
	int locked;
#ifndef STAND_IN_BARE
	const void *holder; /* its &stand_in_atomic */
#endif
} spinlock_t;

static inline void spin_lock_init(spinlock_t *lock)
{
	*lock = (spinlock_t){ 0 };
}

static inline void spin_lock(spinlock_t *lock)
{
	int spins = 0;

	stand_in_point(AT_LOCK);
#ifndef STAND_IN_BARE
	if (READ_ONCE(lock->holder) == &stand_in_atomic)
		stand_in_fail("spinlock taken twice by one thread");
#endif
	while (__atomic_exchange_n(&lock->locked, 1, __ATOMIC_ACQUIRE)) {
		while (READ_ONCE(lock->locked)) {
			__builtin_ia32_pause();
			if (++spins % 1024 == 0)
				sched_yield();
		}
	}
#ifndef STAND_IN_BARE
	WRITE_ONCE(lock->holder, &stand_in_atomic);
	stand_in_atomic++;
#endif
}

static inline void spin_unlock(spinlock_t *lock)
{
#ifndef STAND_IN_BARE
	if (READ_ONCE(lock->holder) != &stand_in_atomic)
		stand_in_fail("spinlock released by a thread without it");
	stand_in_atomic--;
	WRITE_ONCE(lock->holder, NULL);
#endif
	__atomic_store_n(&lock->locked, 0, __ATOMIC_RELEASE);
	stand_in_point(AT_UNLOCK);
}

#ifdef STAND_IN_BARE
#define lockdep_assert_held(lock) ((void)(lock))
#define might_sleep() ((void)0)
#define preempt_disable() ((void)0)
#define preempt_enable() ((void)0)
#else
#define lockdep_assert_held(lock)                                  \
	do {                                                       \
		if (READ_ONCE((lock)->holder) != &stand_in_atomic) \
			stand_in_fail(#lock " is not held");       \
	} while (0)
#define might_sleep()                                              \
	do {                                                       \
		if (stand_in_atomic)                               \
			stand_in_fail("sleeps where it must not"); \
	} while (0)
#define preempt_disable() ((void)stand_in_atomic++)
#define preempt_enable() ((void)stand_in_atomic--)
#endif

#define lockdep_assert_preemption_enabled() might_sleep()

#endif
