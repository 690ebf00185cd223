// SPDX-License-Identifier: GPL-2.0
/*
 * What a hit costs, beside a table with one spinlock, and what a second thread
 * on other control blocks adds.
 *
 * All figures are from clock_gettime() on this machine. Other work on it is
 * dealt with like this: a round's parts are so short that most are undisturbed;
 * one in which a thread did not have its CPU for all of the time is done again;
 * what counts is the median of the rounds' ratios, each of parts that followed
 * each other. If too many are disturbed, there is no result.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "contender.h"

#define BLOCKS 8 /* that each thread goes round */
#define ROUND_NS 200000L
#define LEAD_NS 100000L /* to wake up, and spin until the start */
#define WANTED 201 /* undisturbed rounds */
#define TRIES 20 /* for each figure of a round */
#define MEASURE_NS 15000000000L /* then it is given up */

/* The bounds. */
#define MAX_HIT_RATIO 0.7
#define MIN_SCALING 1.7
#define FULL_SCALING 1.9 /* of an idle machine */

struct kvm_x86_ops kvm_x86_ops;

/* The last is no rival: two threads that share nothing, which is what to hope for. */
enum { LOCKLESS, LOCKED, APART, TABLES };

struct table {
	const struct contender *is;
	int vms;
	struct kvm *kvm[2];
	struct kvm_vcpu *vcpu[2];
};

static struct table tables[TABLES] = {
	[LOCKLESS] = { .is = &lockless, .vms = 1 },
	[LOCKED] = { .is = &locked, .vms = 1 },
	[APART] = { .is = &lockless, .vms = 2 },
};

static long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* As in the kernel, what belongs to different objects shares no cache line. */
static void *object(size_t size)
{
	void *p = aligned_alloc(4096, (size + 4095) & ~4095ul);

	if (!p)
		exit(2);
	return memset(p, 0, size);
}

static struct kvm_nested_context *alloc(struct kvm_vcpu *vcpu, bool kept)
{
	struct kvm_nested_context *ctx = aligned_alloc(64, 512);

	(void)vcpu;
	(void)kept;
	return ctx ? memset(ctx, 0, 512) : NULL;
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

static gpa_t block(int thread, int n)
{
	return (gpa_t)(1 + thread * BLOCKS + n) << 12;
}

/* Hits one after another until the time is up; ns each, or 0 if disturbed. */
static double hit_for(const struct table *t, int thread, long start)
{
	const struct contender *is = t->is;
	struct kvm_vcpu *vcpu = t->vcpu[thread];
	long end, cpu, n = 0, begun;
	int i;

	while ((begun = now(CLOCK_MONOTONIC)) < start)
		;
	/* The partner has begun long since, or is not there any more. */
	if (begun > start + ROUND_NS / 20)
		return 0;
	cpu = now(CLOCK_THREAD_CPUTIME_ID);
	do {
		for (i = 0; i < 16 * BLOCKS; i++) {
			gpa_t gpa = block(thread, i % BLOCKS);

			is->load(vcpu, gpa);
			is->clear(vcpu, gpa);
		}
		n += i;
		end = now(CLOCK_MONOTONIC);
	} while (end < start + ROUND_NS);
	cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	if (end - begun > cpu + ROUND_NS / 50)
		return 0;
	return 1.0 * (end - begun) / n;
}

/* The second thread sleeps unless a round is for two. */
static struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	const struct table *table; /* there is a round to do */
	long start;
	bool done;
	double ns;
} second = { .mutex = PTHREAD_MUTEX_INITIALIZER,
	     .cond = PTHREAD_COND_INITIALIZER };

static int cpus[2], nr_cpus;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *second_thread(void *arg)
{
	(void)arg;
	pin(cpus[1]);
	pthread_mutex_lock(&second.mutex);
	for (;;) {
		while (!second.table)
			pthread_cond_wait(&second.cond, &second.mutex);
		second.ns = hit_for(second.table, 1, second.start);
		second.table = NULL;
		second.done = true;
		pthread_cond_signal(&second.cond);
	}
	return NULL;
}

static double alone(const struct table *t)
{
	return hit_for(t, 0, now(CLOCK_MONOTONIC) + LEAD_NS);
}

/* What both together take for a hit, ns; 0 if either was disturbed. */
static double both(const struct table *t)
{
	double ns;

	pthread_mutex_lock(&second.mutex);
	second.start = now(CLOCK_MONOTONIC) + LEAD_NS;
	second.table = t;
	second.done = false;
	pthread_cond_signal(&second.cond);
	pthread_mutex_unlock(&second.mutex);
	ns = hit_for(t, 0, second.start);
	pthread_mutex_lock(&second.mutex);
	while (!second.done)
		pthread_cond_wait(&second.cond, &second.mutex);
	pthread_mutex_unlock(&second.mutex);
	if (!ns || !second.ns)
		return 0;
	return 1 / (1 / ns + 1 / second.ns);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, int n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

/* Medians; the index is of tables[]. */
static struct {
	double alone[TABLES], both[TABLES], scaling[TABLES];
	double hit_ratio;
	int rounds, disturbed;
} result;

static double undisturbed(double (*round)(const struct table *t),
			  const struct table *t)
{
	double ns = 0;
	int i;

	for (i = 0; i < TRIES && !ns; i++) {
		ns = round(t);
		result.disturbed += !ns;
	}
	return ns;
}

static void measure(void)
{
	static double a[TABLES][WANTED], b[TABLES][WANTED];
	static double scale[TABLES][WANTED], hit[WANTED];
	long end = now(CLOCK_MONOTONIC) + MEASURE_NS;
	double x[TABLES], y[TABLES];
	int t, n = 0;

	memset(&result, 0, sizeof(result));
	while (n < WANTED && now(CLOCK_MONOTONIC) < end) {
		bool good = true;

		for (t = 0; t < TABLES && good; t++) {
			x[t] = undisturbed(alone, &tables[t]);
			y[t] = nr_cpus > 1 ? undisturbed(both, &tables[t]) :
					     x[t];
			good = x[t] && y[t];
		}
		if (!good)
			continue;
		for (t = 0; t < TABLES; t++) {
			a[t][n] = x[t];
			b[t][n] = y[t];
			scale[t][n] = x[t] / y[t];
		}
		hit[n++] = x[LOCKLESS] / x[LOCKED];
	}
	result.rounds = n;
	if (!n)
		return;
	result.hit_ratio = median(hit, n);
	for (t = 0; t < TABLES; t++) {
		result.alone[t] = median(a[t], n);
		result.both[t] = median(b[t], n);
		result.scaling[t] = median(scale[t], n);
	}
}

static void make(struct table *t)
{
	int thread, i;

	for (i = 0; i < t->vms; i++) {
		t->kvm[i] = object(sizeof(*t->kvm[i]));
		t->kvm[i]->arch.nested_oversub_ratio = KVM_NESTED_OVERSUB_RATIO;
		atomic_set(&t->kvm[i]->online_vcpus, 2);
		if (t->is->init(t->kvm[i]))
			exit(2);
	}
	/* When this is done, all loads are hits. */
	for (thread = 0; thread < 2; thread++) {
		t->vcpu[thread] = object(sizeof(*t->vcpu[thread]));
		t->vcpu[thread]->kvm = t->kvm[thread % t->vms];
		t->vcpu[thread]->arch.nested.fallback =
			&t->vcpu[thread]->arch.fallback;
		for (i = 0; i < BLOCKS; i++)
			t->is->load(t->vcpu[thread], block(thread, i));
		t->is->clear(t->vcpu[thread], block(thread, BLOCKS - 1));
	}
}

/* Throughout the measurement, every load was a hit. */
static void check(const struct table *t)
{
	int i;

	for (i = 0; i < t->vms; i++) {
		struct kvm_vm_stat *stat = &t->kvm[i]->stat;

		if (atomic64_read(&stat->nested_context_new) !=
			    2 / t->vms * BLOCKS ||
		    atomic64_read(&stat->nested_context_recycle) ||
		    atomic64_read(&stat->nested_context_fallback)) {
			fprintf(stderr, "bench: not all loads were hits\n");
			exit(2);
		}
		t->is->destroy(t->kvm[i]);
	}
}

static void print_table(void)
{
	static const char *const names[] = { "lock-free", "one lock",
					     "nothing shared" };
	int t;

	printf("Nested context table, a hit: load and clear, %d contexts for each thread.\n"
	       "ns by clock_gettime() on this machine, medians of %d rounds; %d parts that\n"
	       "other work disturbed were done again.\n\n",
	       BLOCKS, result.rounds, result.disturbed);
	printf("%-16s %12s %12s %18s\n", "", "1 thread", "2 threads",
	       "throughput 2 : 1");
	for (t = 0; t < TABLES; t++) {
		printf("%-16s %9.1f ns", names[t], result.alone[t]);
		if (nr_cpus > 1)
			printf(" %9.1f ns %18.2f", result.both[t],
			       result.scaling[t]);
		printf("\n");
	}
	printf("lock-free : one lock, 1 thread %.2f\n", result.hit_ratio);
}

static void print_json(FILE *f, const char *kernel)
{
	static const char *const names[] = { "lockless", "locked", "apart" };
	int threads, t;

	fprintf(f,
		"{ \"target\": \"bench\", \"kernel\": \"%s\", \"host\": {\"cpus\": %ld},\n"
		"  \"rows\": [",
		kernel, sysconf(_SC_NPROCESSORS_ONLN));
	for (threads = 1; threads <= nr_cpus; threads++) {
		for (t = 0; t < TABLES; t++) {
			fprintf(f,
				"%s\n    {\"table\": \"%s\", \"threads\": %d, \"contexts\": %d, \"pattern\": \"loop\", \"hit_ns\": %.2f, \"rounds\": %d",
				threads + t > 1 ? "," : "", names[t], threads,
				BLOCKS * threads,
				threads > 1 ? result.both[t] : result.alone[t],
				result.rounds);
			if (threads > 1)
				fprintf(f, ", \"scaling\": %.3f",
					result.scaling[t]);
			else if (t == LOCKLESS)
				fprintf(f, ", \"of_locked\": %.3f",
					result.hit_ratio);
			fprintf(f, "}");
		}
	}
	fprintf(f, "\n  ] }\n");
}

/*
 * What the machine gave to two threads that share nothing should be twice what
 * one gets. If it never is, somebody else has a part of the CPUs in a way that
 * does not show as lost time, and the bound is as much lower.
 */
static double scaling_bound(void)
{
	return result.scaling[APART] >= FULL_SCALING ?
		       MIN_SCALING :
		       MIN_SCALING * result.scaling[APART] / 2;
}

/* What a reader of the table wants to know last; whether both bounds hold. */
static bool bounds(void)
{
	bool hit = result.hit_ratio <= MAX_HIT_RATIO, scales = true;

	printf("\na hit costs %.2f of one with a lock, at most %.2f: %s\n",
	       result.hit_ratio, MAX_HIT_RATIO, hit ? "holds" : "FAILS");
	if (nr_cpus < 2) {
		printf("there is one CPU only: what a second thread adds is not known\n");
	} else {
		scales = result.scaling[LOCKLESS] >= scaling_bound();
		printf("two threads do %.2f times what one does, at least %.2f: %s\n",
		       result.scaling[LOCKLESS], scaling_bound(),
		       scales ? "holds" : "FAILS");
	}
	return hit && scales;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	cpu_set_t set;
	int i, ret = 0;

	sched_getaffinity(0, sizeof(set), &set);
	for (i = 0; i < CPU_SETSIZE && nr_cpus < 2; i++) {
		if (CPU_ISSET(i, &set))
			cpus[nr_cpus++] = i;
	}
	kvm_x86_ops.nested_ops = &ops;
	for (i = 0; i < TABLES; i++)
		make(&tables[i]);
	if (nr_cpus > 1)
		pthread_create(&thread, NULL, second_thread, NULL);
	pin(cpus[0]);

	measure();
	for (i = 0; i < TABLES; i++)
		check(&tables[i]);
	if (argc != 3) {
		fprintf(stderr, "usage: table JSON KERNEL\n");
		ret = 2;
	} else if (result.rounds < WANTED) {
		fprintf(stderr,
			"bench: the machine is too busy: %d parts of %d rounds were disturbed; no result was written\n",
			result.disturbed, WANTED);
		ret = 2;
	} else {
		FILE *f = fopen(argv[1], "w");

		if (!f) {
			perror(argv[1]);
			return 2;
		}
		print_table();
		print_json(f, argv[2]);
		ret = fclose(f) ? 2 : !bounds();
	}
	return ret;
}
