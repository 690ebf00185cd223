// SPDX-License-Identifier: GPL-2.0
/*
 * A million random steps on the table and on a naive model of it, comparing
 * every return value, every tracepoint and every statistic.
 *
 * The model is written from the documentation at the top of nested.c and at
 * struct kvm_nested_context, with arrays and nothing clever. A context has the
 * same number in both, the order of its allocation.
 *
 * SEED=n repeats a run, STEPS=n is how long it is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "nested.c"
#include "rnd.h"

#define MAX_VCPUS 12
#define MAX_CONTEXTS 1024
#define NONE (-1)
#define OWN (-2) /* the vCPU's private context */

/* ---- the model ---- */

struct m_context {
	gpa_t gpa;
	int user; /* vCPU that uses or used it */
	bool in_use, used, hot, passing;
};

struct m_vcpu {
	bool smm;
	int last; /* number of a context, or OWN, or NONE */
	gpa_t last_gpa; /* what the private one is for */
	bool holds;
	unsigned int hits_unseen;
};

static struct {
	bool table;
	int ratio, vcpus, contexts;
	struct m_context ctx[MAX_CONTEXTS];
	struct m_vcpu vcpu[MAX_VCPUS];
	int list[MAX_CONTEXTS]; /* list[0] is the front, victims are behind */
	int recycled;
	long new, reuse, recycle, fallback;
} m;

static int m_find(gpa_t gpa)
{
	int c;

	for (c = 0; c < m.contexts; c++) {
		if (m.ctx[c].gpa == gpa)
			return c;
	}
	return NONE;
}

static void m_take_out(int c)
{
	int i = 0, n = m.contexts;

	while (m.list[i] != c)
		i++;
	for (; i < n - 1; i++)
		m.list[i] = m.list[i + 1];
}

/* Puts a context that is not in the list of @n others to its front. */
static void m_put_in_front(int c, int n)
{
	for (; n; n--)
		m.list[n] = m.list[n - 1];
	m.list[0] = c;
}

static void m_park(int v)
{
	struct m_vcpu *vcpu = &m.vcpu[v];

	vcpu->holds = false;
	if (vcpu->last == OWN) {
		vcpu->last = NONE;
	} else {
		m.ctx[vcpu->last].in_use = false;
		m.ctx[vcpu->last].hot = true;
	}
}

static int m_victim(bool spare_hot)
{
	int order[MAX_CONTEXTS], chances = NESTED_SECOND_CHANCES;
	int i, c, passed = NONE;

	memcpy(order, m.list, sizeof(order));
	for (i = m.contexts - 1; i >= 0; i--) {
		c = order[i];
		if (m.ctx[c].in_use || (spare_hot && m.ctx[c].hot))
			continue;
		if (!m.ctx[c].used || !chances)
			return c;
		/* A second chance: to the front, unmarked. */
		chances--;
		m.ctx[c].used = m.ctx[c].passing = false;
		m_take_out(c);
		m_put_in_front(c, m.contexts - 1);
		if (passed == NONE)
			passed = c;
	}
	/* All were used: the second round meets the first one first. */
	return passed;
}

/* @last is the context that the vCPU comes from, or none. */
static int m_recycle(int last, gpa_t gpa)
{
	int c = NONE;

	if (last >= 0 && m.ctx[last].passing && !m.ctx[last].used &&
	    !m.ctx[last].in_use)
		c = last;
	if (c == NONE)
		c = m_victim(true);
	if (c == NONE)
		c = m_victim(false);
	if (c == NONE)
		return NONE;
	m.ctx[c].gpa = gpa;
	m.ctx[c].used = m.ctx[c].hot = false;
	m_take_out(c);
	m.ctx[c].passing = ++m.recycled % NESTED_KEEP_INTERVAL != 0;
	if (m.ctx[c].passing)
		m.list[m.contexts - 1] = c;
	else
		m_put_in_front(c, m.contexts - 1);
	return c;
}

/*
 * Returns the context and how it was got; -1 if that was no load. @retry: the
 * vCPU would rather have another one than its private one.
 */
static int m_load(int v, gpa_t gpa, bool retry, bool no_memory, int *how)
{
	struct m_vcpu *vcpu = &m.vcpu[v];
	struct m_context *ctx;
	int c = vcpu->last;

	*how = -1;
	retry = retry && c == OWN && vcpu->last_gpa == gpa;
	if (!vcpu->smm && c == OWN && vcpu->last_gpa == gpa && !retry)
		return OWN;
	if (!vcpu->smm && c >= 0 && m.ctx[c].gpa == gpa && m.ctx[c].user == v) {
		m.ctx[c].in_use = vcpu->holds = true;
		return c;
	}

	/* The last one is parked, and this vCPU will not be back soon. */
	if (vcpu->holds)
		m_park(v);
	if (c >= 0 && m.ctx[c].user == v)
		m.ctx[c].hot = false;

	*how = KVM_NESTED_CONTEXT_PRIVATE;
	c = NONE;
	if (m.table && !vcpu->smm) {
		c = m_find(gpa);
		if (c >= 0 && m.ctx[c].in_use) {
			c = NONE;
		} else if (c >= 0) {
			*how = KVM_NESTED_CONTEXT_HIT;
			m.ctx[c].used = true;
		} else if (m.contexts < m.ratio * m.vcpus && !no_memory) {
			*how = KVM_NESTED_CONTEXT_NEW;
			c = m.contexts++;
			m.ctx[c] = (struct m_context){ .gpa = gpa };
			m_put_in_front(c, c);
		} else {
			c = m_recycle(vcpu->last, gpa);
			if (c >= 0)
				*how = KVM_NESTED_CONTEXT_RECYCLED;
		}
	}
	vcpu->holds = true;
	vcpu->last = c == NONE ? OWN : c;
	if (c == NONE) {
		if (retry) {
			*how = -1;
			return OWN;
		}
		vcpu->last_gpa = gpa;
		m.fallback += !!m.ratio;
		return OWN;
	}
	ctx = &m.ctx[c];
	ctx->in_use = true;
	ctx->user = v;
	m.new += *how == KVM_NESTED_CONTEXT_NEW;
	m.recycle += *how == KVM_NESTED_CONTEXT_RECYCLED;
	if (*how == KVM_NESTED_CONTEXT_HIT &&
	    ++vcpu->hits_unseen == NESTED_REUSE_BATCH) {
		m.reuse += NESTED_REUSE_BATCH;
		vcpu->hits_unseen = 0;
	}
	return c;
}

static bool m_clear(int v, gpa_t gpa)
{
	struct m_vcpu *vcpu = &m.vcpu[v];

	if (!vcpu->holds ||
	    (vcpu->last == OWN ? vcpu->last_gpa : m.ctx[vcpu->last].gpa) != gpa)
		return false;
	m_park(v);
	return true;
}

/* ---- the table ---- */

struct context {
	struct kvm_nested_context base;
	int number, resets;
};

static struct kvm kvm;
static struct kvm_vcpu vcpus[MAX_VCPUS];
static bool no_memory;
static int allocated, freed, resets;
static struct kvm_nested_context *last_reset;

static unsigned long seed, step;

#define check(a, b)                                                         \
	do {                                                                \
		long __a = (a), __b = (b);                                  \
		if (__a != __b) {                                           \
			printf("not ok - step %lu of SEED=%lu: %s is %ld, " \
			       "the model's %s is %ld\n1..1\n",             \
			       step, seed, #a, __a, #b, __b);               \
			exit(1);                                            \
		}                                                           \
	} while (0)

_Noreturn void stand_in_fail(const char *what)
{
	printf("not ok - step %lu of SEED=%lu: %s\n1..1\n", step, seed, what);
	exit(1);
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu, bool kept)
{
	struct context *c;

	(void)vcpu;
	(void)kept;
	might_sleep();
	if (no_memory)
		return NULL;
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	c->number = allocated++;
	return &c->base;
}

static void reset(struct kvm_nested_context *ctx)
{
	might_sleep();
	resets++;
	last_reset = ctx;
}

static void release(struct kvm_nested_context *ctx)
{
	might_sleep();
	freed++;
	kfree(container_of(ctx, struct context, base));
}

static struct kvm_x86_nested_ops ops = {
	.alloc_context = alloc,
	.free_context = release,
	.reset_context = reset,
};

static int number_of(int v, struct kvm_nested_context *ctx)
{
	if (!ctx)
		return NONE;
	if (kvm_nested_context_is_private(&vcpus[v], ctx))
		return OWN;
	return container_of(ctx, struct context, base)->number;
}

static void check_statistics(void)
{
	int v;

	check(atomic64_read(&kvm.stat.nested_context_new), m.new);
	check(atomic64_read(&kvm.stat.nested_context_reuse), m.reuse);
	check(atomic64_read(&kvm.stat.nested_context_recycle), m.recycle);
	check(atomic64_read(&kvm.stat.nested_context_fallback), m.fallback);
	check(allocated, m.contexts);
	check(resets, m.recycle);
	for (v = 0; v < m.vcpus; v++)
		check(vcpus[v].arch.nested.reuse -
			      vcpus[v].arch.nested.reuse_seen,
		      m.vcpu[v].hits_unseen);
}

static void load(int v, gpa_t gpa, bool retry)
{
	unsigned long loads = stand_in_trace.loads;
	unsigned long recycles = stand_in_trace.recycles;
	struct kvm_nested_context *ctx;
	int how, c;

	last_reset = NULL;
	if (retry)
		ctx = kvm_nested_context_retry(&vcpus[v], gpa);
	else
		ctx = kvm_nested_context_load(&vcpus[v], gpa);
	c = m_load(v, gpa, retry, no_memory, &how);
	check(number_of(v, ctx), c);
	check(stand_in_trace.loads - loads, how >= 0);
	if (how >= 0)
		check(stand_in_trace.load_outcome, how);
	check(stand_in_trace.recycles - recycles,
	      how == KVM_NESTED_CONTEXT_RECYCLED);
	check((long)last_reset,
	      how == KVM_NESTED_CONTEXT_RECYCLED ? (long)ctx : 0);
	check(ctx->gpa, gpa);
	check(atomic_long_read(&ctx->owner), (long)&vcpus[v] | 1);
}

static void clear(int v, gpa_t gpa)
{
	unsigned long clears = stand_in_trace.clears;

	kvm_nested_context_clear(&vcpus[v], gpa);
	check(stand_in_trace.clears - clears, m_clear(v, gpa));
}

static void find(int v, gpa_t gpa)
{
	check(number_of(v, kvm_nested_context_find(&vcpus[v], gpa)),
	      m.vcpu[v].smm || !m.table ? NONE : m_find(gpa));
}

static void put(int v)
{
	kvm_nested_context_vcpu_put(&vcpus[v]);
	m.reuse += m.vcpu[v].hits_unseen;
	m.vcpu[v].hits_unseen = 0;
}

static void add_vcpu(void)
{
	if (m.vcpus == MAX_VCPUS)
		return;
	m.vcpu[m.vcpus] = (struct m_vcpu){ .last = NONE };
	vcpus[m.vcpus] = (struct kvm_vcpu){
		.kvm = &kvm,
		.vcpu_id = m.vcpus,
		.arch.nested.fallback = &vcpus[m.vcpus].arch.fallback,
	};
	m.vcpus++;
	atomic_inc(&kvm.online_vcpus);
}

static void init_table(bool fails)
{
	stand_in_no_memory = fails;
	check(kvm_nested_context_table_init(&kvm),
	      fails && m.ratio && !m.table ? -ENOMEM : 0);
	stand_in_no_memory = false;
	if (!fails && m.ratio)
		m.table = true;
}

/* A VM's whole life. */
static void life(unsigned long end)
{
	static const int ratios[] = { 0, 1, 1, 2, 3, 8, 8, 8, 30 };
	int blocks, failures, puts;

	memset(&m, 0, sizeof(m));
	memset(&kvm, 0, sizeof(kvm));
	allocated = freed = resets = 0;
	m.ratio = ratios[rnd(ARRAY_SIZE(ratios))];
	kvm.arch.nested_oversub_ratio = m.ratio;
	add_vcpu();
	blocks = 1 + rnd(rnd(2) ? 20 : 3 * (m.ratio + 1) * MAX_VCPUS);
	failures = rnd(3) ? 1000 : 3;
	puts = rnd(2) ? 1 : 1000;

	for (; step < end; step++) {
		int v = rnd(m.vcpus), what = rnd(1000);
		/* Some favour few blocks, some are kinds of one address. */
		gpa_t gpa = (gpa_t)(rnd(3) ? rnd(blocks) : rnd(blocks / 4 + 1))
				    << 12 |
			    (rnd(50) ? 0 : 1);

		no_memory = !rnd(failures);
		if (what < 550) {
			load(v, gpa, !rnd(10));
		} else if (what < 750) {
			/* What it has, or had. */
			struct kvm_nested_context *last;

			last = vcpus[v].arch.nested.last;
			clear(v, last && rnd(10) ? last->gpa : gpa);
		} else if (what < 850) {
			find(v, gpa);
		} else if (what < 870) {
			/* Anybody's. */
			struct kvm_nested_context *last;

			last = vcpus[rnd(m.vcpus)].arch.nested.last;
			clear(v, last ? last->gpa : gpa);
		} else if (what < 950) {
			/* The same once more. */
			struct kvm_nested_context *last;

			last = vcpus[v].arch.nested.last;
			load(v, last ? last->gpa : gpa, rnd(2));
		} else if (what < 970) {
			if (!rnd(puts))
				put(v);
		} else if (what < 980) {
			m.vcpu[v].smm = vcpus[v].arch.smm = !rnd(3);
		} else if (what < 985) {
			init_table(!rnd(3));
		} else if (what == 999 && !rnd(4)) {
			add_vcpu();
		}
		check_statistics();
	}

	kvm_nested_context_table_destroy(&kvm);
	check(freed, m.contexts);
	check(stand_in_allocated, 0);
}

int main(void)
{
	unsigned long steps, end, lives = 0, kinds[4] = { 0 };

	seed = env_or("SEED", time(NULL));
	steps = env_or("STEPS", 1000000);
	rnd_seed(seed);
	printf("# SEED=%lu\n", seed);
	fflush(stdout);

	kvm_x86_ops.nested_ops = &ops;
	while (step < steps) {
		end = step + 100 + rnd(20000);
		life(end < steps ? end : steps);
		lives++;
		kinds[0] += m.new;
		kinds[1] += m.reuse;
		kinds[2] += m.recycle;
		kinds[3] += m.fallback;
	}
	printf("# %lu VMs; loads: %lu new, %lu reuse, %lu recycle, %lu fallback\n",
	       lives, kinds[0], kinds[1], kinds[2], kinds[3]);
	printf("ok 1 - %lu steps as the model\n1..1\n", step);
	return 0;
}
