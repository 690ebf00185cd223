// SPDX-License-Identifier: GPL-2.0
/*
 * Many vCPUs, few control blocks: real threads steal, recycle, tear vCPUs down,
 * run out of memory, race to make the table. Round after round with another VM.
 *
 * What a context keeps is written without any synchronisation by who owns it,
 * so ThreadSanitizer proves that ownership excludes others and that each owner
 * sees what the last one wrote. Without it, the holder's mark does: two owners
 * at once meet in it sooner or later. At the end of a round the statistics must
 * be exact, and nothing may be left of the VM.
 *
 * SEED=n starts with the same parameters and steps; how the threads meet is up
 * to the machine. ROUNDS=n is how many VMs it makes.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nested.c"
#include "rnd.h"

#define THREADS 4
#define MAX_VCPUS 16
#define ROUND_STEPS 4000

struct context {
	struct kvm_nested_context base;
	struct vcpu *holder;
	gpa_t kept;
	unsigned char page[256]; /* all bytes are the same */
};

struct vcpu {
	struct kvm_vcpu kvm;
	struct context *held;
	gpa_t gpa; /* of its last load */
};

/* The vCPU's place; its lock is what vcpu->mutex is in KVM. */
struct place {
	pthread_mutex_t mutex;
	struct vcpu *vcpu;
};

static struct kvm kvm;
static struct place places[MAX_VCPUS];
static int vcpus, blocks, failures, to_add;
static bool bound; /* each vCPU has its thread */
static unsigned long seed, rounds, audits;
static long live;
static long served[4]; /* loads by outcome, all threads */
static _Thread_local long my_served[4];

_Noreturn void stand_in_fail(const char *what)
{
	printf("not ok - round %lu of SEED=%lu: %s\n1..1\n", rounds, seed,
	       what);
	fflush(stdout);
	abort();
}

#define check(a)                           \
	do {                               \
		if (!(a))                  \
			stand_in_fail(#a); \
	} while (0)

/* Two CPUs do not meet often by themselves. */
static void stagger(enum stand_in_point p)
{
	int n = rnd(p == AT_EXCHANGE ? 32 : 128);

	if (n == 0)
		sched_yield();
	else if (n == 1)
		for (n = rnd(500); n; n--)
			__builtin_ia32_pause();
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu, bool kept)
{
	struct context *c;

	(void)vcpu;
	(void)kept;
	might_sleep();
	stagger(AT_EXCHANGE);
	if (!rnd(failures))
		return NULL;
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	__atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
	return &c->base;
}

static void reset(struct kvm_nested_context *ctx)
{
	struct context *c = container_of(ctx, struct context, base);

	might_sleep();
	check(!c->holder);
	c->kept = 0;
	memset(c->page, 0, sizeof(c->page));
}

static void release(struct kvm_nested_context *ctx)
{
	might_sleep();
	__atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
	kfree(container_of(ctx, struct context, base));
}

static struct kvm_x86_nested_ops ops = {
	.alloc_context = alloc,
	.free_context = release,
	.reset_context = reset,
};

/* The vCPU is about to lose what it has, by a clear or by a load. */
static void let_go(struct vcpu *v)
{
	if (!v->held)
		return;
	check(v->held->holder == v);
	v->held->holder = NULL;
	v->held = NULL;
}

static void use(struct vcpu *v, struct context *c, gpa_t gpa)
{
	size_t i;

	check(!c->holder);
	c->holder = v;
	v->held = c;
	check(!c->kept || c->kept == gpa);
	for (i = 1; i < sizeof(c->page); i++)
		check(c->page[i] == c->page[0]);
	if (!c->kept)
		check(c->page[0] == 0);
	c->kept = gpa;
	memset(c->page, rnd(256), sizeof(c->page));
}

static void load(struct vcpu *v, gpa_t gpa)
{
	unsigned long loads = stand_in_trace.loads;
	struct kvm_nested_context *ctx;

	let_go(v);
	v->gpa = gpa;
	ctx = rnd(8) ? kvm_nested_context_load(&v->kvm, gpa) :
		       kvm_nested_context_retry(&v->kvm, gpa);
	if (stand_in_trace.loads != loads)
		my_served[stand_in_trace.load_outcome]++;
	check(ctx->gpa == gpa);
	check(nested_context_is_mine(ctx, &v->kvm));
	if (!kvm_nested_context_is_private(&v->kvm, ctx))
		use(v, container_of(ctx, struct context, base), gpa);
}

static void clear(struct vcpu *v, gpa_t gpa)
{
	if (v->held && v->held->base.gpa == gpa)
		let_go(v);
	kvm_nested_context_clear(&v->kvm, gpa);
}

static struct vcpu *new_vcpu(int id)
{
	struct vcpu *v = kzalloc(sizeof(*v), GFP_KERNEL);

	v->kvm.kvm = &kvm;
	v->kvm.vcpu_id = id;
	v->kvm.arch.nested.fallback = &v->kvm.arch.fallback;
	return v;
}

/* Destroyed or reset, in L2 or not; whoever was its thread. */
static void teardown(struct place *p)
{
	struct vcpu *v = p->vcpu;

	clear(v, v->gpa);
	check(!v->held);
	kvm_nested_context_vcpu_put(&v->kvm);
	p->vcpu = new_vcpu(v->kvm.vcpu_id);
	kfree(v);
}

/* The bound, as who holds the lock sees it. */
static void audit(void)
{
	struct kvm_nested_context_table *table;
	struct kvm_nested_context *ctx;
	unsigned int n = 0;

	table = smp_load_acquire(&kvm.arch.nested_contexts);
	if (!table)
		return;
	spin_lock(&table->lock);
	list_for_each_entry(ctx, &table->lru, lru) {
		/* Exactly once in its bucket. */
		check(nested_context_lookup(table, ctx->gpa) == ctx);
		n++;
	}
	check(n <= table->count);
	check(table->count <= nested_context_capacity(&kvm));
	spin_unlock(&table->lock);
	__atomic_fetch_add(&audits, 1, __ATOMIC_RELAXED);
}

static void step(struct place *p)
{
	gpa_t gpa = (gpa_t)(1 + rnd(rnd(3) ? blocks : blocks / 4 + 1)) << 12;
	struct kvm_nested_context *ctx;
	struct vcpu *v = p->vcpu;
	int what = rnd(1000);

	if (what < 600) {
		load(v, gpa);
	} else if (what < 850) {
		if (v->held)
			clear(v, v->held->base.gpa);
	} else if (what < 880) {
		clear(v, gpa);
	} else if (what < 960) {
		ctx = kvm_nested_context_find(&v->kvm, gpa);
		/* Whoever has it and whatever it is by now, it can be read. */
		if (ctx)
			check(!(READ_ONCE(ctx->gpa) & 0xfff));
	} else if (what < 970) {
		kvm_nested_context_vcpu_put(&v->kvm);
	} else if (what < 985) {
		if (!v->held)
			v->kvm.arch.smm = !rnd(8);
	} else if (what < 990) {
		teardown(p);
	} else if (what < 995) {
		audit();
	} else {
		stand_in_no_memory = !rnd(4);
		kvm_nested_context_table_init(&kvm);
		stand_in_no_memory = false;
		if (!rnd(8) &&
		    __atomic_fetch_sub(&to_add, 1, __ATOMIC_RELAXED) > 0)
			atomic_inc(&kvm.online_vcpus);
	}
}

static void *thread(void *arg)
{
	int me = (long)arg, i, n, k;

	rnd_seed(seed * 1000 + rounds * THREADS + me);
	stand_in_hook = stagger;
	kvm_nested_context_table_init(&kvm);
	for (i = 0; i < ROUND_STEPS; i += n) {
		struct place *p = &places[rnd(vcpus)];

		n = 1 + rnd(16);
		if (bound && (p - places) % THREADS != me)
			continue;
		if (pthread_mutex_trylock(&p->mutex))
			continue;
		for (k = 0; k < n; k++)
			step(p);
		pthread_mutex_unlock(&p->mutex);
	}
	stand_in_hook = NULL;
	for (i = 0; i < 4; i++)
		__atomic_fetch_add(&served[i], my_served[i], __ATOMIC_RELAXED);
	memset(my_served, 0, sizeof(my_served));
	return NULL;
}

static void round_of_threads(void)
{
	struct kvm_vm_stat *stat = &kvm.stat;
	pthread_t threads[THREADS];
	long before[4], i;

	memset(&kvm, 0, sizeof(kvm));
	memcpy(before, served, sizeof(before));
	vcpus = THREADS + rnd(MAX_VCPUS - THREADS + 1);
	kvm.arch.nested_oversub_ratio = rnd(3) ? 1 : 1 + rnd(4);
	/* Some come online later. */
	to_add = rnd(3);
	atomic_set(&kvm.online_vcpus, vcpus - to_add);
	blocks = 2 + rnd(2 * vcpus * kvm.arch.nested_oversub_ratio);
	failures = rnd(2) ? 3 : 1000;
	bound = rnd(2);

	for (i = 0; i < vcpus; i++)
		places[i].vcpu = new_vcpu(i);
	for (i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread, (void *)i);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	/* Half of the VMs end with their vCPUs in L2. */
	for (i = 0; i < vcpus; i++) {
		if (rounds % 2)
			teardown(&places[i]);
		kvm_nested_context_vcpu_put(&places[i].vcpu->kvm);
	}
	kvm_nested_context_table_destroy(&kvm);
	for (i = 0; i < vcpus; i++)
		kfree(places[i].vcpu);

	check(!live);
	check(!stand_in_allocated);
	check(atomic64_read(&stat->nested_context_reuse) ==
	      served[KVM_NESTED_CONTEXT_HIT] - before[KVM_NESTED_CONTEXT_HIT]);
	check(atomic64_read(&stat->nested_context_new) ==
	      served[KVM_NESTED_CONTEXT_NEW] - before[KVM_NESTED_CONTEXT_NEW]);
	check(atomic64_read(&stat->nested_context_recycle) ==
	      served[KVM_NESTED_CONTEXT_RECYCLED] -
		      before[KVM_NESTED_CONTEXT_RECYCLED]);
	check(atomic64_read(&stat->nested_context_fallback) ==
	      served[KVM_NESTED_CONTEXT_PRIVATE] -
		      before[KVM_NESTED_CONTEXT_PRIVATE]);
}

int main(void)
{
	unsigned long many = env_or("ROUNDS", 400);
	int i;

	seed = env_or("SEED", time(NULL));
	printf("# SEED=%lu, ROUNDS=%lu\n", seed, many);
	fflush(stdout);

	kvm_x86_ops.nested_ops = &ops;
	for (i = 0; i < MAX_VCPUS; i++)
		pthread_mutex_init(&places[i].mutex, NULL);
	for (; rounds < many; rounds++) {
		rnd_seed(seed + rounds);
		round_of_threads();
	}
	printf("# loads: %ld new, %ld reuse, %ld recycle, %ld fallback\n",
	       served[KVM_NESTED_CONTEXT_NEW], served[KVM_NESTED_CONTEXT_HIT],
	       served[KVM_NESTED_CONTEXT_RECYCLED],
	       served[KVM_NESTED_CONTEXT_PRIVATE]);
	printf("ok 1 - %lu VMs, %d threads, %lu audits\n1..1\n", rounds,
	       THREADS, audits);
	return 0;
}
