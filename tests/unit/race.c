// SPDX-License-Identifier: GPL-2.0
/*
 * Rule 2, where it is hardest: what another vCPU does between a vCPU's look at
 * a context and its exchange, or between its look-up and the lock. Each test
 * puts the other vCPU's steps at that very place.
 */
#include "vm.h"

static struct vm *vm;
static struct kvm_vcpu *v, *w;
static struct kvm_nested_context *ctx;

/* What to do at the @nth point of kind @at from now. */
static struct {
	enum stand_in_point at;
	int nth;
	void (*act)(void);
} plan;

static void hook(enum stand_in_point p)
{
	if (p != plan.at || --plan.nth)
		return;
	stand_in_hook = NULL;
	plan.act();
}

static void at(enum stand_in_point p, int nth, void (*act)(void))
{
	plan.at = p;
	plan.nth = nth;
	plan.act = act;
	stand_in_hook = hook;
}

/* v and w, @ratio contexts each, and one for GPA(0) that nobody has in mind. */
static void setup(unsigned int ratio)
{
	vm = vm_make_nested(ratio, 2);
	v = vm->vcpus[0];
	w = vm->vcpus[1];
	ctx = assert_load(v, GPA(0), NEW);
	assert_load(v, GPA(1), NEW);
	kvm_nested_context_clear(v, GPA(1));
	assert_null(stand_in_hook);
}

static void finish(void)
{
	/* It was reached. */
	assert_null(stand_in_hook);
	vm_free(vm);
}

static void w_recycles_it(void)
{
	assert_ptr_equal(assert_load(w, GPA(9), RECYCLED), ctx);
}

static void w_recycles_and_parks_it(void)
{
	w_recycles_it();
	kvm_nested_context_clear(w, GPA(9));
}

/*
 * The context was recycled and parked again between look-up and exchange. The
 * exchange succeeds, so the key has to be looked at again; and w's word is put
 * back, so that w may re-enter.
 */
static void recycled_before_exchange(void **state)
{
	struct kvm_nested_context *got;

	(void)state;
	setup(1);
	at(AT_EXCHANGE, 1, w_recycles_and_parks_it);
	got = assert_load(v, GPA(0), RECYCLED);
	assert_ptr_not_equal(got, ctx);
	assert_ptr_equal(assert_load(w, GPA(9), REENTERED), ctx);
	assert_stats(vm, 2, 0, 2, 0);
	finish();
}

/* The same, but w still uses it: it is not v's, whatever its key. */
static void recycled_and_in_use_before_exchange(void **state)
{
	struct kvm_nested_context *got;

	(void)state;
	setup(1);
	at(AT_EXCHANGE, 1, w_recycles_it);
	got = assert_load(v, GPA(0), RECYCLED);
	assert_ptr_not_equal(got, ctx);
	assert_true(nested_context_is_mine(ctx, w));
	finish();
}

static void w_takes_it(void)
{
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
}

/* Both want it; w is quicker. */
static void taken_before_exchange(void **state)
{
	(void)state;
	setup(8);
	at(AT_EXCHANGE, 1, w_takes_it);
	assert_load(v, GPA(0), PRIVATE);
	assert_true(nested_context_is_mine(ctx, w));
	finish();
}

static void w_visits_it(void)
{
	w_takes_it();
	kvm_nested_context_clear(w, GPA(0));
}

/* w was quicker, and is through with it: the owner word changed, that is all. */
static void visited_before_exchange(void **state)
{
	(void)state;
	setup(8);
	at(AT_EXCHANGE, 1, w_visits_it);
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);
	assert_stats(vm, 2, 2, 0, 0);
	finish();
}

/* v re-enters its last context, which w takes over first. */
static void taken_before_reentry(void **state)
{
	(void)state;
	setup(8);
	assert_int_equal(visit(v, GPA(0)), HIT);
	at(AT_EXCHANGE, 1, w_takes_it);
	assert_load(v, GPA(0), PRIVATE);
	assert_true(nested_context_is_mine(ctx, w));
	finish();
}

static void visited_before_reentry(void **state)
{
	(void)state;
	setup(8);
	assert_int_equal(visit(v, GPA(0)), HIT);
	at(AT_EXCHANGE, 1, w_visits_it);
	/* w used it in between: a load, no re-entry. */
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);
	assert_stats(vm, 2, 3, 0, 0);
	finish();
}

static void w_recycles_vs_last(void)
{
	vendor.fail_allocs = 1;
	assert_int_equal(load_how(w, GPA(9), &ctx), RECYCLED);
	assert_ptr_equal(v->arch.nested.last, ctx);
	kvm_nested_context_clear(w, GPA(9));
}

/* v re-enters its last context, which w recycles first. */
static void recycled_before_reentry(void **state)
{
	(void)state;
	vm = vm_make_nested(1, 2);
	v = vm->vcpus[0];
	w = vm->vcpus[1];
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	at(AT_EXCHANGE, 1, w_recycles_vs_last);
	assert_load(v, GPA(0), NEW);
	assert_ptr_equal(assert_load(w, GPA(9), REENTERED), ctx);
	finish();
}

static void w_makes_it(void)
{
	ctx = assert_load(w, GPA(5), NEW);
}

static void w_makes_and_parks_it(void)
{
	w_makes_it();
	kvm_nested_context_clear(w, GPA(5));
}

/* w made a context for the block after v's look-up, before v had the lock. */
static void made_before_lock(void **state)
{
	struct kvm_nested_context *got;

	(void)state;
	setup(8);
	at(AT_LOCK, 1, w_makes_and_parks_it);
	got = assert_load(v, GPA(5), HIT);
	assert_ptr_equal(got, ctx);
	assert_int_equal(vendor.allocs, 3);
	assert_stats(vm, 3, 1, 0, 0);
	finish();
}

/* The same, and uses it. */
static void made_and_in_use_before_lock(void **state)
{
	(void)state;
	setup(8);
	at(AT_LOCK, 1, w_makes_it);
	assert_load(v, GPA(5), PRIVATE);
	assert_true(nested_context_is_mine(ctx, w));
	assert_int_equal(vendor.allocs, 3);
	finish();
}

/* The same between the two times that v has the lock, for it has to allocate. */
static void made_before_second_lock(void **state)
{
	struct kvm_nested_context *got;

	(void)state;
	setup(8);
	at(AT_LOCK, 2, w_makes_and_parks_it);
	got = assert_load(v, GPA(5), HIT);
	assert_ptr_equal(got, ctx);
	assert_int_equal(vendor.allocs - vendor.frees, 3);
	assert_int_equal(vm->kvm.arch.nested_contexts->count, 3);
	finish();
}

/* The victim that v picked is taken by w without the lock: v picks another. */
static void victim_taken(void **state)
{
	struct kvm_nested_context *got;

	(void)state;
	setup(1);
	at(AT_EXCHANGE, 1, w_takes_it);
	got = assert_load(v, GPA(5), RECYCLED);
	assert_ptr_not_equal(got, ctx);
	assert_true(nested_context_is_mine(ctx, w));
	assert_int_equal(ctx->gpa, GPA(0));
	finish();
}

/* The victim's block is loaded while v has it: w gets something else. */
static void w_wants_victim(void)
{
	assert_true(nested_context_is_mine(ctx, v));
	vendor.fail_allocs = 1;
	assert_int_equal(visit(w, GPA(0)), RECYCLED);
}

static void victim_wanted(void **state)
{
	(void)state;
	setup(1);
	at(AT_UNLOCK, 1, w_wants_victim);
	assert_ptr_equal(assert_load(v, GPA(5), RECYCLED), ctx);
	assert_stats(vm, 2, 0, 2, 0);
	finish();
}

static gpa_t diverting; /* recycled under v's feet */

static void w_recycles_where_v_stands(void)
{
	vendor.fail_allocs = 1;
	assert_int_equal(visit(w, diverting), RECYCLED);
}

/*
 * v walks a bucket and stands on a context that w recycles, which leads v into
 * another bucket. What v misses there is found with the lock.
 */
static void walk_diverted(void **state)
{
	struct kvm_nested_context_table *table;
	struct kvm_nested_context *got;
	gpa_t first, other;

	(void)state;
	vm = vm_make_nested(1, 2);
	v = vm->vcpus[0];
	w = vm->vcpus[1];
	table = vm->kvm.arch.nested_contexts;

	/* Two blocks in one bucket, one elsewhere. */
	for (first = GPA(1); hash_64(first, table->hash_bits) !=
			     hash_64(GPA(0), table->hash_bits);)
		first += GPA(0);
	for (other = GPA(1); hash_64(other, table->hash_bits) ==
			     hash_64(GPA(0), table->hash_bits);)
		other += GPA(0);

	/* GPA(0) is behind @first in the bucket, which is the next victim. */
	ctx = assert_load(v, GPA(0), NEW);
	assert_load(w, first, NEW);
	kvm_nested_context_clear(w, first);
	v->arch.nested.last = NULL;
	atomic_long_set(&ctx->owner, 0);
	WRITE_ONCE(ctx->used, true);

	diverting = other;
	at(AT_WALK, 2, w_recycles_where_v_stands);
	got = assert_load(v, GPA(0), HIT);
	assert_ptr_equal(got, ctx);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(recycled_before_exchange),
		test(recycled_and_in_use_before_exchange),
		test(taken_before_exchange),
		test(visited_before_exchange),
		test(taken_before_reentry),
		test(visited_before_reentry),
		test(recycled_before_reentry),
		test(made_before_lock),
		test(made_and_in_use_before_lock),
		test(made_before_second_lock),
		test(victim_taken),
		test(victim_wanted),
		test(walk_diverted),
	};

	return run_tap(tests);
}
