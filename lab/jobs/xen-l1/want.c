// SPDX-License-Identifier: GPL-2.0
/*
 * usage: want SEED VCPUS STEPS
 * Prints what a guest with these must come to.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chain.h"
#include "guest.h"

int main(int argc, char **argv)
{
	static struct chain chains[MAX_CPUS];
	uint32_t sent[MAX_CPUS];
	uint32_t seed, cpus, steps, i, result = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: want SEED VCPUS STEPS\n");
		return 2;
	}
	seed = (uint32_t)strtoul(argv[1], NULL, 0);
	cpus = (uint32_t)strtoul(argv[2], NULL, 0);
	steps = (uint32_t)strtoul(argv[3], NULL, 0);
	if (!cpus || cpus > MAX_CPUS || !steps) {
		fprintf(stderr, "want: at least one step of 1 to %d vCPUs\n",
			MAX_CPUS);
		return 2;
	}
	for (i = 0; i < cpus; i++)
		chain_start(&chains[i], seed, i);
	while (steps--) {
		for (i = 0; i < cpus; i++)
			sent[i] = chain_step(&chains[i]);
		for (i = 0; i < cpus; i++)
			chains[i].received =
				chain_fold(chains[i].received,
					   sent[(i + cpus - 1) % cpus]);
	}
	for (i = 0; i < cpus; i++)
		result = chain_result(&chains[i], result);
	printf("%#" PRIx32 "\n", result);
	return 0;
}
