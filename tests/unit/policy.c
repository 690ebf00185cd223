// SPDX-License-Identifier: GPL-2.0
/*
 * The replacement: L1 goes round more L2s than there are contexts, and still
 * finds most of what can be found. Beside it the naive policy, recycling the
 * least recently used, which finds nothing in a loop.
 */
#include <stdlib.h>

#include "vm.h"

#define MAX_BLOCKS 4096

/* How many of @n visits hit, in percent; visits are @next's. */
struct pattern {
	int vcpus, ratio, blocks;
	int (*next)(const struct pattern *p, int i);
};

static unsigned int rnd_state;

static unsigned int rnd(void)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return rnd_state >> 8;
}

static int in_a_loop(const struct pattern *p, int i)
{
	return i / p->vcpus % p->blocks + i % p->vcpus * p->blocks;
}

static int at_random(const struct pattern *p, int i)
{
	return rnd() % p->blocks + i % p->vcpus * p->blocks;
}

#define STEADY 20000

/* Steady state: after as many loads again to warm up. */
static double hits(const struct pattern *p)
{
	struct vm *vm = vm_make_nested(p->ratio, p->vcpus);
	int i, n = 0;

	rnd_state = 1;
	for (i = 0; i < 2 * STEADY; i++) {
		/* A block at random may be the vCPU's last: kept as well. */
		int how = visit(vm->vcpus[i % p->vcpus], GPA(p->next(p, i)));

		assert_int_not_equal(how, PRIVATE);
		n += i >= STEADY && (how == HIT || how == REENTERED);
	}
	vm_free(vm);
	return 100.0 * n / STEADY;
}

/* The same with a list in which a visit moves to the front. */
static double lru_hits(const struct pattern *p)
{
	static int lru[MAX_BLOCKS];
	int slots = p->ratio * p->vcpus, used = 0, i, j, n = 0;

	rnd_state = 1;
	for (i = 0; i < 2 * STEADY; i++) {
		int block = p->next(p, i);

		for (j = 0; j < used && lru[j] != block; j++)
			;
		if (j < used)
			n += i >= STEADY;
		else if (used < slots)
			used++;
		else
			j = used - 1;
		for (; j; j--)
			lru[j] = lru[j - 1];
		lru[0] = block;
	}
	return 100.0 * n / STEADY;
}

static double check(const char *what, const struct pattern *p, double least)
{
	double ours = hits(p), lru = lru_hits(p);

	print_message(
		"# %d vCPUs, %d contexts, %d L2s each, %s: %.1f %% hits, LRU %.1f %%\n",
		p->vcpus, p->vcpus * p->ratio, p->blocks, what, ours, lru);
	assert_true(ours >= least);
	return lru;
}

/* 9 over 8 at least 75 %, 16 over 8 at least 40 %; LRU: none. */
static void loops(void **state)
{
	const struct pattern nine = { 1, 8, 9, in_a_loop };
	const struct pattern sixteen = { 1, 8, 16, in_a_loop };

	(void)state;
	assert_true(check("in a loop", &nine, 75) == 0);
	assert_true(check("in a loop", &sixteen, 40) == 0);
}

/* What fits is always found. */
static void fits(void **state)
{
	const struct pattern eight = { 1, 8, 8, in_a_loop };
	const struct pattern random = { 1, 8, 8, at_random };
	const struct pattern four = { 4, 8, 8, in_a_loop };

	(void)state;
	check("in a loop", &eight, 100);
	check("at random", &random, 100);
	check("in a loop", &four, 100);
}

/* At random nothing can be foreseen: as good as LRU, within a little. */
static void random_order(void **state)
{
	const struct pattern nine = { 1, 8, 9, at_random };
	const struct pattern sixteen = { 1, 8, 16, at_random };

	(void)state;
	check("at random", &nine, 85);
	check("at random", &sixteen, 45);
}

/* Several vCPUs, each with more L2s than its share. */
static void several_vcpus(void **state)
{
	const struct pattern four = { 4, 8, 16, in_a_loop };
	const struct pattern eight = { 8, 8, 16, in_a_loop };
	const struct pattern over_by_one = { 4, 8, 9, in_a_loop };
	const struct pattern random = { 4, 8, 16, at_random };

	(void)state;
	check("in a loop", &four, 40);
	check("in a loop", &eight, 40);
	check("in a loop", &over_by_one, 75);
	check("at random", &random, 40);
}

/* Other ratios, down to the smallest. */
static void ratios(void **state)
{
	const struct pattern one = { 4, 1, 2, in_a_loop };
	const struct pattern two = { 4, 2, 4, in_a_loop };
	const struct pattern hundred = { 1, 100, 200, in_a_loop };

	(void)state;
	check("in a loop", &one, 0);
	check("in a loop", &two, 20);
	check("in a loop", &hundred, 40);
}

/*
 * Misses from a change of the working set until all of the new one is found,
 * or more than @limit.
 */
static int misses_to_change(struct vm *vm, int from, int slots, int limit,
			    bool random)
{
	int i, misses = 0, since = 0;

	for (i = 0; misses <= limit; i++) {
		int n = random ? (int)(rnd() % slots) : i % slots;
		int how = visit(vm->vcpus[i % vm->nr_vcpus], GPA(from + n));

		if (how != HIT && how != REENTERED) {
			misses++;
			since = 0;
		} else if (++since == (random ? 20 : 2) * slots) {
			break;
		}
	}
	return misses;
}

/* Whatever the old set was used like, the new one is in by 40 misses a slot. */
static void working_set_changes(void **state)
{
	static const struct {
		int vcpus, ratio;
		bool random;
	} sizes[] = {
		{ 1, 8, false },  { 1, 8, true },    { 1, 1, false },
		{ 2, 2, false },  { 4, 8, false },   { 4, 8, true },
		{ 16, 8, false }, { 1, 100, false }, { 1, 200, true },
	};
	size_t s;

	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		int slots = sizes[s].vcpus * sizes[s].ratio;
		struct vm *vm = vm_make_nested(sizes[s].ratio, sizes[s].vcpus);
		int from, i, misses, worst = 0;

		rnd_state = s;
		for (from = 0; from < 20; from++) {
			/* Long enough for every mark and place to be taken. */
			for (i = 0; i < 100 * slots; i++) {
				int n = rnd() % (slots + from % 3 * slots / 2);

				visit(vm->vcpus[i % vm->nr_vcpus],
				      GPA(from * 10000 + n));
			}
			misses = misses_to_change(vm, (from + 1) * 10000, slots,
						  41 * slots, sizes[s].random);
			worst = max(worst, misses);
		}
		print_message(
			"# %d vCPUs, %d contexts, new set %s: at most %.1f misses for each\n",
			sizes[s].vcpus, slots,
			sizes[s].random ? "at random" : "in a loop",
			1.0 * worst / slots);
		assert_in_range(worst, slots, 40 * slots);
		vm_free(vm);
		forget(state);
	}
}

/* A context that its vCPU is likely to come back to is not taken... */
static void hot_is_spared(void **state)
{
	struct vm *vm = vm_make_nested(1, 3);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *hot, *idle;
	int i;

	(void)state;
	/* The oldest, so without the mark it would be the first to go. */
	hot = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	idle = assert_load(w, GPA(1), NEW);
	assert_int_equal(visit(w, GPA(2)), NEW);
	for (i = 0; i < 100; i++) {
		assert_int_equal(visit(w, GPA(10 + i)), RECYCLED);
		assert_ptr_equal(kvm_nested_context_find(w, GPA(0)), hot);
	}
	assert_int_not_equal(idle->gpa, GPA(1));
	assert_ptr_equal(assert_load(v, GPA(0), REENTERED), hot);

	/* ...until it has moved on, be it in use up to then or parked. */
	assert_load(v, GPA(500), RECYCLED);
	for (i = 0; i < 40; i++)
		visit(w, GPA(600 + i));
	assert_null(kvm_nested_context_find(w, GPA(0)));
	vm_free(vm);
}

/* If all others are hot, one of them goes: better than none. */
static void hot_is_no_refusal(void **state)
{
	struct vm *vm = vm_make_nested(1, 3);
	int i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(visit(vm->vcpus[i], GPA(i)), NEW);
	vm_add_vcpu(vm);
	vendor.fail_allocs = 1;
	assert_int_equal(visit(vm->vcpus[3], GPA(3)), RECYCLED);
	assert_stats(vm, 3, 0, 1, 0);
	vm_free(vm);
}

/*
 * A search under the lock is bounded: after NESTED_SECOND_CHANCES used contexts
 * the next one goes, used or not.
 */
static void bounded_search(void **state)
{
	struct vm *vm = vm_make_nested(200, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	int i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (i = 0; i < 200; i++)
			visit(v, GPA(i));
	}
	/* The list has the oldest last; all are marked. */
	assert_load(v, GPA(1000), RECYCLED);
	assert_int_equal(stand_in_trace.recycle_old,
			 GPA(NESTED_SECOND_CHANCES));
	vm_free(vm);
}

/* All used and fewer than that: the second round finds the oldest. */
static void second_round(void **state)
{
	static const int sizes[] = { 1, 2, 8, 63, 64 };
	size_t s;

	for (s = 0; s < ARRAY_SIZE(sizes); s++) {
		struct vm *vm = vm_make_nested(sizes[s], 1);
		struct kvm_vcpu *v = vm->vcpus[0];
		struct kvm_nested_context *ctx;
		int i;

		for (i = 0; i < sizes[s]; i++)
			visit(v, GPA(i));
		list_for_each_entry(ctx, &vm->kvm.arch.nested_contexts->lru,
				    lru)
			ctx->used = true;
		assert_load(v, GPA(1000), RECYCLED);
		assert_int_equal(stand_in_trace.recycle_old, GPA(0));
		vm_free(vm);
		forget(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(loops),	      test(fits),
		test(random_order),   test(several_vcpus),
		test(ratios),	      test(working_set_changes),
		test(hot_is_spared),  test(hot_is_no_refusal),
		test(bounded_search), test(second_round),
	};

	return run_tap(tests);
}
