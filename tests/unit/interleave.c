// SPDX-License-Identifier: GPL-2.0
/*
 * Random steps of vCPUs, and in the middle of each, at every place where it
 * matters, random steps of other vCPUs. One thread, so a failure repeats with
 * its seed, and there is no luck of scheduling in meeting the rare orders.
 *
 * No model can say how such a load ends, but it has to keep the rules:
 *  - what a load returns is the vCPU's own and for the block asked for;
 *  - no other vCPU has it, and nobody wrote to it while it was owned (rule 2);
 *  - what it kept is of this block, or of none (rules 4 and 5);
 *  - a vCPU has one at most (rule 3);
 *  - never more contexts than the capacity, and no block in the table twice;
 *  - loads = new + reuse + recycle + fallback.
 *
 * SEED=n repeats a run, STEPS=n is how long it is.
 */
#include <stdio.h>
#include <string.h>

#include "nested.c"
#include "rnd.h"

#define MAX_VCPUS 6
#define MAX_DEPTH 3

struct context {
	struct kvm_nested_context base;
	gpa_t kept;
	int holder; /* vCPU that has it, or -1 */
};

static struct kvm kvm;
static struct kvm_vcpu vcpus[MAX_VCPUS];
static bool busy[MAX_VCPUS]; /* in the middle of a step */
static struct kvm_nested_context *held[MAX_VCPUS];
static int nr_vcpus, blocks, depth, live, odds, failures;
static unsigned long seed, step, meetings;

_Noreturn void stand_in_fail(const char *what)
{
	printf("not ok - step %lu of SEED=%lu: %s\n1..1\n", step, seed, what);
	exit(1);
}

#define check(a)                           \
	do {                               \
		if (!(a))                  \
			stand_in_fail(#a); \
	} while (0)

static void random_step(void);
static bool lock_is_free(void);

/* Others run here, if they can: who needs the lock would wait for its holder. */
static void others(enum stand_in_point p)
{
	(void)p;
	if (depth >= MAX_DEPTH || rnd(odds))
		return;
	meetings++;
	depth++;
	random_step();
	depth--;
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu, bool kept)
{
	struct context *c;

	(void)vcpu;
	(void)kept;
	might_sleep();
	others(AT_LOCK);
	if (!rnd(failures))
		return NULL;
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	c->holder = -1;
	live++;
	return &c->base;
}

static void reset(struct kvm_nested_context *ctx)
{
	struct context *c = container_of(ctx, struct context, base);

	might_sleep();
	check(c->holder == -1);
	others(AT_LOCK);
	check(c->holder == -1);
	c->kept = 0;
}

static void release(struct kvm_nested_context *ctx)
{
	might_sleep();
	others(AT_LOCK);
	live--;
	kfree(container_of(ctx, struct context, base));
}

static struct kvm_x86_nested_ops ops = {
	.alloc_context = alloc,
	.free_context = release,
	.reset_context = reset,
};

static bool lock_is_free(void)
{
	return !kvm.arch.nested_contexts ||
	       !kvm.arch.nested_contexts->lock.locked;
}

/* The vCPU is about to lose what it has, by a clear or by a load. */
static void let_go(int v)
{
	struct context *c;

	if (!held[v])
		return;
	c = container_of(held[v], struct context, base);
	check(c->holder == v);
	c->holder = -1;
	held[v] = NULL;
}

static void load(int v, gpa_t gpa)
{
	struct kvm_nested_context *ctx;
	struct context *c;

	let_go(v);
	ctx = rnd(8) ? kvm_nested_context_load(&vcpus[v], gpa) :
		       kvm_nested_context_retry(&vcpus[v], gpa);
	check(ctx);
	check(ctx->gpa == gpa);
	check(nested_context_is_mine(ctx, &vcpus[v]));
	if (kvm_nested_context_is_private(&vcpus[v], ctx))
		return;
	check(!vcpus[v].arch.smm);
	c = container_of(ctx, struct context, base);
	check(c->holder == -1);
	check(!c->kept || c->kept == gpa);
	c->kept = gpa;
	c->holder = v;
	held[v] = ctx;
}

static void clear(int v, gpa_t gpa)
{
	if (held[v] && held[v]->gpa == gpa)
		let_go(v);
	kvm_nested_context_clear(&vcpus[v], gpa);
}

static void check_table(void)
{
	struct kvm_nested_context_table *table = kvm.arch.nested_contexts;
	struct kvm_nested_context *a, *b;
	int n = 0, used = 0;

	if (!table)
		return;
	stand_in_hook = NULL;
	list_for_each_entry(a, &table->lru, lru) {
		n++;
		used += !!(atomic_long_read(&a->owner) & KVM_NESTED_IN_USE);
		check(nested_context_lookup(table, a->gpa) == a);
		list_for_each_entry(b, &table->lru, lru)
			check(a == b || a->gpa != b->gpa);
	}
	check(n == live);
	check(n == (int)table->count);
	check(table->count <= nested_context_capacity(&kvm));
	check(used <= nr_vcpus);
	stand_in_hook = others;
}

/* One step of a vCPU that is not in the middle of one. */
static void random_step(void)
{
	gpa_t gpa = (gpa_t)(1 + rnd(blocks)) << 12;
	struct kvm_nested_context *ctx;
	int v = rnd(nr_vcpus), what = rnd(100);

	if (busy[v])
		return;
	busy[v] = true;
	ctx = NULL;
	if (kvm.arch.nested_contexts && !vcpus[v].arch.smm)
		ctx = nested_context_lookup(kvm.arch.nested_contexts, gpa);
	if (what < 60 && lock_is_free())
		load(v, gpa);
	else if (what < 60 && ctx &&
		 !(atomic_long_read(&ctx->owner) & KVM_NESTED_IN_USE) &&
		 !rnd(2)) {
		/* The lock is held, but a hit does not need it. */
		int deep = depth;

		depth = MAX_DEPTH;
		load(v, gpa);
		depth = deep;
	} else if (what < 80 && held[v])
		clear(v, held[v]->gpa);
	else if (what < 85)
		clear(v, gpa);
	else if (what < 90)
		kvm_nested_context_find(&vcpus[v], gpa);
	else if (what < 92)
		kvm_nested_context_vcpu_put(&vcpus[v]);
	else if (what < 94 && !held[v])
		vcpus[v].arch.smm = !rnd(4);
	else if (what < 96 && lock_is_free())
		kvm_nested_context_table_init(&kvm);
	busy[v] = false;
}

static long statistics(void)
{
	struct kvm_vm_stat *stat = &kvm.stat;

	return atomic64_read(&stat->nested_context_new) +
	       atomic64_read(&stat->nested_context_reuse) +
	       atomic64_read(&stat->nested_context_recycle) +
	       atomic64_read(&stat->nested_context_fallback);
}

static void life(unsigned long end)
{
	unsigned long loads = stand_in_trace.loads;
	int v;

	memset(&kvm, 0, sizeof(kvm));
	memset(held, 0, sizeof(held));
	nr_vcpus = 2 + rnd(MAX_VCPUS - 1);
	kvm.arch.nested_oversub_ratio = 1 + rnd(3);
	atomic_set(&kvm.online_vcpus, nr_vcpus);
	blocks = 2 + rnd(2 * kvm.arch.nested_oversub_ratio * nr_vcpus);
	odds = 2 + rnd(10);
	failures = rnd(2) ? 3 : 1000;
	for (v = 0; v < nr_vcpus; v++)
		vcpus[v] = (struct kvm_vcpu){
			.kvm = &kvm,
			.vcpu_id = v,
			.arch.nested.fallback = &vcpus[v].arch.fallback,
		};

	for (; step < end; step++) {
		random_step();
		check_table();
	}
	for (v = 0; v < nr_vcpus; v++)
		kvm_nested_context_vcpu_put(&vcpus[v]);
	check((long)(stand_in_trace.loads - loads) == statistics());

	stand_in_hook = NULL;
	depth = MAX_DEPTH;
	kvm_nested_context_table_destroy(&kvm);
	depth = 0;
	stand_in_hook = others;
	check(!live);
	check(!stand_in_allocated);
}

int main(void)
{
	unsigned long steps = env_or("STEPS", 1000000), end;

	seed = env_or("SEED", time(NULL));
	rnd_seed(seed);
	printf("# SEED=%lu\n", seed);
	fflush(stdout);

	kvm_x86_ops.nested_ops = &ops;
	stand_in_hook = others;
	while (step < steps) {
		end = step + 100 + rnd(5000);
		life(end < steps ? end : steps);
	}
	printf("ok 1 - %lu steps, %lu of others in the middle of them\n1..1\n",
	       step, meetings);
	return 0;
}
