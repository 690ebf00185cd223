/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's volatile accesses as relaxed atomics, so that ThreadSanitizer
 * sees which accesses are meant to race.
 */
#include_next <linux/compiler.h>

#ifndef STAND_IN_COMPILER_H
#define STAND_IN_COMPILER_H

#undef READ_ONCE
#undef WRITE_ONCE
#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, val) __atomic_store_n(&(x), (val), __ATOMIC_RELAXED)
#define smp_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)

#endif
