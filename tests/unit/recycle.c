// SPDX-License-Identifier: GPL-2.0
/*
 * Rule 5: a recycled context carries nothing over. And the statistics, exactly.
 */
#include "vm.h"

static struct vm *the_vm;

/* Reset before its new owner sees it, and at no other time. */
static void reset(void **state)
{
	struct vm *vm = vm_make_nested(1, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;
	int i;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	assert_load(v, GPA(0), REENTERED);
	v->arch.nested.last = NULL;
	kvm_nested_context_clear(v, GPA(0));
	atomic_long_set(&ctx->owner, 0);
	assert_load(v, GPA(0), HIT);
	assert_int_equal(vendor.resets, 0);
	assert_int_equal(context_of(ctx)->kept, GPA(0));
	for (i = 1; i < 10; i++) {
		/* load_how() has seen to it that nothing is kept. */
		assert_ptr_equal(assert_load(v, GPA(i), RECYCLED), ctx);
		assert_int_equal(context_of(ctx)->resets, i);
	}
	vm_free(vm);
}

/* The old key finds it no more, the new one does; the tracepoint knows both. */
static void keys(void **state)
{
	struct vm *vm = vm_make_nested(1, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	vendor.fail_allocs = 1;
	assert_ptr_equal(assert_load(v, GPA(1), RECYCLED), ctx);
	assert_int_equal(stand_in_trace.recycles, 1);
	assert_int_equal(stand_in_trace.recycle_vcpu, v->vcpu_id);
	assert_int_equal(stand_in_trace.recycle_old, GPA(0));
	assert_int_equal(stand_in_trace.recycle_new, GPA(1));
	kvm_nested_context_clear(v, GPA(1));

	assert_null(kvm_nested_context_find(v, GPA(0)));
	assert_null(kvm_nested_context_find(w, GPA(0)));
	assert_ptr_equal(kvm_nested_context_find(w, GPA(1)), ctx);
	assert_load(w, GPA(0), NEW);
	assert_ptr_equal(assert_load(w, GPA(1), HIT), ctx);
	vm_free(vm);
}

static void others_look(struct kvm_nested_context *ctx)
{
	struct kvm_nested_context *got;

	/* Found by its new key, but not to be had. */
	assert_ptr_equal(kvm_nested_context_find(the_vm->vcpus[1], GPA(1)),
			 ctx);
	assert_int_equal(visit(the_vm->vcpus[1], GPA(1)), PRIVATE);
	/* By its old one there is a miss, and no other victim. */
	vendor.fail_allocs = 1;
	assert_int_equal(load_how(the_vm->vcpus[1], GPA(0), &got), PRIVATE);
	kvm_nested_context_clear(the_vm->vcpus[1], GPA(0));
}

/* Nobody else gets it while it is being reset. */
static void reset_in_private(void **state)
{
	struct vm *vm = the_vm = vm_make_nested(1, 2);
	struct kvm_vcpu *v = vm->vcpus[0];

	(void)state;
	assert_int_equal(visit(v, GPA(0)), NEW);
	vendor.fail_allocs = 1;
	vendor.in_reset = others_look;
	assert_load(v, GPA(1), RECYCLED);
	assert_null(vendor.in_reset);
	kvm_nested_context_clear(v, GPA(1));
	assert_int_equal(visit(vm->vcpus[1], GPA(1)), HIT);
	vm_free(vm);
}

/* With one slot a vCPU there is always one to recycle: rule 3. */
static void ratio_1(void **state)
{
	struct vm *vm = vm_make_nested(1, 4);
	struct kvm_nested_context *ctx;
	int i, how;

	(void)state;
	for (i = 0; i < 10000; i++) {
		/* No two vCPUs on one block; half of the loads are loads over. */
		how = load_how(vm->vcpus[i % 4], GPA(i % 4 + i / 4 % 7 * 4),
			       &ctx);
		assert_int_not_equal(how, PRIVATE);
		if (i % 3)
			kvm_nested_context_clear(vm->vcpus[i % 4], ctx->gpa);
	}
	assert_int_equal(atomic64_read(&vm->kvm.stat.nested_context_fallback),
			 0);
	vm_free(vm);
}

/* Re-entering counts nothing, and does not make a context look useful. */
static void reentry(void **state)
{
	struct vm *vm = vm_make_nested(2, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;
	int i;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	for (i = 0; i < 100; i++) {
		assert_ptr_equal(assert_load(v, GPA(0), REENTERED), ctx);
		if (i % 2)
			kvm_nested_context_clear(v, GPA(0));
	}
	assert_int_equal(stand_in_trace.loads, 1);
	assert_stats(vm, 1, 0, 0, 0);
	assert_false(ctx->used);

	/* So it is the first to go, where a hit would have saved it. */
	assert_int_equal(visit(v, GPA(1)), NEW);
	assert_ptr_equal(assert_load(v, GPA(2), RECYCLED), ctx);
	vm_free(vm);
}

/* A hit does make it look useful: the other one goes. */
static void hit_is_use(void **state)
{
	struct vm *vm = vm_make_nested(2, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	assert_int_equal(visit(v, GPA(0)), NEW);
	ctx = assert_load(v, GPA(1), NEW);
	assert_int_equal(visit(v, GPA(0)), HIT);
	assert_ptr_equal(assert_load(v, GPA(2), RECYCLED), ctx);
	vm_free(vm);
}

/* If another vCPU used it in between, it is a load that found it kept. */
static void used_in_between(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	int i;

	(void)state;
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), NEW);
	for (i = 1; i < 100; i++)
		assert_int_equal(visit(vm->vcpus[i % 2], GPA(0)), HIT);
	assert_stats(vm, 1, 99, 0, 0);
	vm_free(vm);
}

/* Each kind of load is counted once, and as what it was. */
static void statistics(void **state)
{
	struct vm *vm = vm_make_nested(4, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	int i;

	(void)state;
	for (i = 0; i < 8; i++)
		visit(v, GPA(i));
	assert_stats(vm, 8, 0, 0, 0);
	for (i = 0; i < 8; i++)
		visit(v, GPA(i));
	assert_stats(vm, 8, 8, 0, 0);
	for (i = 0; i < 3; i++)
		visit(w, GPA(100 + i));
	assert_stats(vm, 8, 8, 3, 0);
	assert_load(v, GPA(50), RECYCLED);
	for (i = 0; i < 5; i++)
		visit(w, GPA(50));
	assert_stats(vm, 8, 8, 4, 5);
	vm_free(vm);
}

/*
 * A vCPU adds its hits to the VM's in batches, and when it is put: what both
 * have is every hit once.
 */
static void reuse_batch(void **state)
{
	const long batch = NESTED_REUSE_BATCH;
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	atomic64_t *reuse = &vm->kvm.stat.nested_context_reuse;
	long hits, i;

	(void)state;
	visit(v, GPA(0));
	visit(v, GPA(1));
	for (hits = 1; hits <= 5 * batch / 2; hits++) {
		assert_int_equal(visit(v, GPA(!(hits % 2))), HIT);
		assert_int_equal(atomic64_read(reuse), hits / batch * batch);
	}
	hits--;
	kvm_nested_context_vcpu_put(v);
	assert_int_equal(atomic64_read(reuse), hits);
	kvm_nested_context_vcpu_put(v);
	assert_int_equal(atomic64_read(reuse), hits);

	/* The batch counts from the put. */
	for (i = 1; i < batch; i++)
		assert_int_equal(visit(v, GPA(!(i % 2))), HIT);
	assert_int_equal(atomic64_read(reuse), hits);
	assert_int_equal(visit(v, GPA(!(i % 2))), HIT);
	assert_int_equal(atomic64_read(reuse), hits + batch);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(reset),	       test(keys),	 test(reset_in_private),
		test(ratio_1),	       test(reentry),	 test(hit_is_use),
		test(used_in_between), test(statistics), test(reuse_batch),
	};

	return run_tap(tests);
}
