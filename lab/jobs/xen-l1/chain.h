/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the vCPUs of Xen's guests compute, for the guest and for the program that
 * says beforehand what must come out.
 */
#ifndef XEN_L1_CHAIN_H
#define XEN_L1_CHAIN_H

#include <stdint.h>

#define NR_WORDS 256u
#define LINKS_PER_STEP 2000u

struct chain {
	uint32_t state, sum, at;
	uint32_t received; /* folds what the neighbour sent */
	uint32_t words[NR_WORDS];
};

static inline uint32_t chain_fold(uint32_t sum, uint32_t value)
{
	sum += value;
	return sum << 1 | sum >> 31;
}

static inline void chain_start(struct chain *c, uint32_t seed, uint32_t cpu)
{
	uint32_t i;

	c->state = seed ^ (cpu + 1) * 0x9e3779b9u;
	c->sum = ~c->state;
	c->at = 0;
	c->received = 0;
	for (i = 0; i < NR_WORDS; i++)
		c->words[i] = 0;
}

/* Mixes registers and memory, and returns what is sent to the next vCPU. */
static inline uint32_t chain_step(struct chain *c)
{
	uint32_t i;

	for (i = 0; i < LINKS_PER_STEP; i++) {
		c->state = c->state * 1664525u + 1013904223u;
		c->words[c->at] += c->state;
		c->sum = chain_fold(c->sum, c->words[c->at]);
		c->at = (c->at + 1) % NR_WORDS;
	}
	return c->sum;
}

static inline uint32_t chain_result(const struct chain *c, uint32_t result)
{
	uint32_t i;

	result = chain_fold(result, c->sum);
	result = chain_fold(result, c->received);
	for (i = 0; i < NR_WORDS; i++)
		result = chain_fold(result, c->words[i]);
	return result;
}

#endif
