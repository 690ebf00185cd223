/* SPDX-License-Identifier: GPL-2.0 */
/* Random numbers that a seed repeats, one sequence for each thread. */
#ifndef RND_H
#define RND_H

#include <stdlib.h>
#include <time.h>

static _Thread_local unsigned long rnd_state = 1;

/* xorshift64* */
static inline unsigned int rnd(unsigned int below)
{
	rnd_state ^= rnd_state >> 12;
	rnd_state ^= rnd_state << 25;
	rnd_state ^= rnd_state >> 27;
	return (rnd_state * 0x2545F4914F6CDD1Dul >> 33) % below;
}

static inline void rnd_seed(unsigned long seed)
{
	rnd_state = (seed + 1) * 0x9E3779B97F4A7C15ul;
}

static inline unsigned long env_or(const char *name, unsigned long otherwise)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 0) : otherwise;
}

#endif
