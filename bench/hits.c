// SPDX-License-Identifier: GPL-2.0
/*
 * Hits of two vCPUs, each on control blocks of its own, for bench/count, which
 * reads a trace of all memory that this uses. What comes next is told by a write
 * to a byte of @phase, each in a cache line of its own: 0 nothing to count, 1 and
 * 2 the vCPUs' hits in the table with one lock, 3 and 4 in ours.
 */
#include <stdio.h>
#include <string.h>

#include "contender.h"

#define BLOCKS 8 /* that each vCPU goes round */
#define HITS 4096 /* of each vCPU: the batches that it counts in are fewer */
#define LINE 64

struct kvm_x86_ops kvm_x86_ops;

static char phase[5 * LINE] __aligned(4096);

/* As in the kernel, what belongs to different objects shares no cache line. */
static void *object(size_t size)
{
	void *p = aligned_alloc(4096, (size + 4095) & ~4095ul);

	if (!p)
		exit(1);
	return memset(p, 0, size);
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu, bool kept)
{
	(void)vcpu;
	(void)kept;
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

static void visit(const struct contender *table, struct kvm_vcpu *vcpu, int n)
{
	gpa_t gpa = (gpa_t)(1 + vcpu->vcpu_id * BLOCKS + n % BLOCKS) << 12;

	table->load(vcpu, gpa);
	table->clear(vcpu, gpa);
}

static void count(const struct contender *table, int first)
{
	struct kvm *kvm = object(sizeof(*kvm));
	struct kvm_vcpu *vcpu[2];
	int i, n;

	kvm->arch.nested_oversub_ratio = KVM_NESTED_OVERSUB_RATIO;
	atomic_set(&kvm->online_vcpus, 2);
	if (table->init(kvm))
		exit(1);
	/* Twice, so that all is marked that a first hit marks. */
	for (i = 0; i < 2; i++) {
		vcpu[i] = object(sizeof(*vcpu[i]));
		vcpu[i]->kvm = kvm;
		vcpu[i]->vcpu_id = i;
		vcpu[i]->arch.nested.fallback = &vcpu[i]->arch.fallback;
		for (n = 0; n < 2 * BLOCKS; n++)
			visit(table, vcpu[i], n);
	}
	for (i = 0; i < 2; i++) {
		WRITE_ONCE(phase[(first + i) * LINE], 1);
		for (n = 0; n < HITS; n++)
			visit(table, vcpu[i], n);
		WRITE_ONCE(phase[0], 1);
	}
	if (atomic64_read(&kvm->stat.nested_context_new) != 2 * BLOCKS ||
	    atomic64_read(&kvm->stat.nested_context_recycle) ||
	    atomic64_read(&kvm->stat.nested_context_fallback)) {
		fprintf(stderr, "hits: not all loads were hits\n");
		exit(1);
	}
	table->destroy(kvm);
}

int main(void)
{
	/* Stacks are each thread's own, and here there is one. */
	printf("phase %lx stack %lx hits %d\n", (unsigned long)phase,
	       (unsigned long)__builtin_frame_address(0), HITS);
	kvm_x86_ops.nested_ops = &ops;
	count(&locked, 1);
	count(&lockless, 3);
	return 0;
}
