// SPDX-License-Identifier: GPL-2.0
/*
 * Loads that take the table's lock, for lab/why, which counts in a trace of all
 * memory that this uses how many instructions pass between the write that takes the
 * lock and the write that releases it. Usage: holds CONTEXTS. What comes next is told
 * by a write to a byte of @phase, each in a cache line of its own: 0 nothing to
 * count, others as in their names, in this order.
 */
#include <stdio.h>
#include <string.h>

#include "contender.h"

#define LOADS 4 /* that are counted in each phase */
#define LINE 64
#define RATIO 8

/* all contexts are parked, and none was found since it was last looked at */
#define PARKED 1
/* all contexts are parked, and each was found since: second chances are due */
#define FOUND 2
/* all are in use by other vCPUs: there is none to be had */
#define IN_USE 3
/* loads that hit */
#define HIT 4

struct kvm_x86_ops kvm_x86_ops;

static char phase[5 * LINE] __aligned(4096);

static void *object(size_t size)
{
	void *p = aligned_alloc(4096, (size + 4095) & ~4095ul);

	if (!p)
		exit(1);
	return memset(p, 0, size);
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	return object(512);
}

static void reset(struct kvm_nested_context *ctx)
{
	(void)ctx;
}

static void release(struct kvm_nested_context *ctx)
{
	free(ctx);
}

static struct kvm_x86_nested_ops ops = {
	.alloc_context = alloc,
	.free_context = release,
	.reset_context = reset,
};

static struct kvm_vcpu *vcpus;

static void load(int vcpu, int block)
{
	lockless.load(&vcpus[vcpu], (gpa_t)(1 + block) << 12);
}

static void visit(int vcpu, int block)
{
	load(vcpu, block);
	lockless.clear(&vcpus[vcpu], (gpa_t)(1 + block) << 12);
}

/* A table of @n contexts, each parked once, and a vCPU for each and for each load. */
static void fill(int n)
{
	struct kvm *kvm = object(sizeof(*kvm));
	int i;

	kvm->arch.nested_oversub_ratio = RATIO;
	atomic_set(&kvm->online_vcpus, n / RATIO);
	if (lockless.init(kvm))
		exit(1);
	vcpus = object((n + LOADS) * sizeof(*vcpus));
	for (i = 0; i < n + LOADS; i++) {
		vcpus[i].kvm = kvm;
		vcpus[i].vcpu_id = i;
	}
	for (i = 0; i < n; i++)
		visit(0, i);
	printf("phase %lx lock %lx loads %d\n", (unsigned long)phase,
	       (unsigned long)kvm->arch.nested_contexts, LOADS);
	fflush(stdout);
}

/* Each load is another vCPU's, which held no context before. */
static void count(int which, int n, int block)
{
	int i;

	WRITE_ONCE(phase[which * LINE], 1);
	for (i = 0; i < LOADS; i++)
		visit(n + i, block + i);
	WRITE_ONCE(phase[0], 1);
}

int main(int argc, char **argv)
{
	int n = argc == 2 ? atoi(argv[1]) : 0, i;

	if (n < RATIO || n % RATIO)
		return 1;
	kvm_x86_ops.nested_ops = &ops;

	fill(n);
	count(PARKED, n, n);

	fill(n);
	for (i = 0; i < n; i++)
		visit(1, i);
	count(FOUND, n, n);

	fill(n);
	for (i = 0; i < n; i++)
		load(i, i);
	count(IN_USE, n, n);

	fill(n);
	count(HIT, n, 0);
	return 0;
}
