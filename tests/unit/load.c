// SPDX-License-Identifier: GPL-2.0
/*
 * Rule 1: a load never fails. Whenever there is no context to be had, the vCPU
 * gets its private one, which is in no table and is not kept.
 */
#include "vm.h"

/* Rule 1, no table: before L1 goes nested, or if its table had no memory. */
static void no_table(void **state)
{
	struct vm *vm = vm_make(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];

	(void)state;
	assert_load(v, GPA(0), PRIVATE);
	assert_null(kvm_nested_context_find(v, GPA(0)));
	kvm_nested_context_clear(v, GPA(0));

	stand_in_no_memory = true;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), -ENOMEM);
	stand_in_no_memory = false;
	assert_int_equal(visit(v, GPA(0)), PRIVATE);

	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	assert_int_equal(visit(v, GPA(0)), NEW);
	assert_stats(vm, 1, 0, 0, 2);
	vm_free(vm);
}

/* Rule 1, no memory for a context, and none to recycle; the next load tries. */
static void no_memory(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];

	(void)state;
	vendor.fail_allocs = 100;
	while (vendor.fail_allocs)
		assert_int_equal(visit(v, GPA(0)), PRIVATE);
	assert_int_equal(vm->kvm.arch.nested_contexts->count, 0);
	assert_int_equal(visit(v, GPA(0)), NEW);
	assert_stats(vm, 1, 0, 0, 100);
	vm_free(vm);
}

/* Rule 1, no memory for a context: one that exists is recycled. */
static void no_memory_but_an_idle_one(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	vendor.fail_allocs = 1;
	assert_ptr_equal(assert_load(v, GPA(1), RECYCLED), ctx);
	assert_int_equal(vm->kvm.arch.nested_contexts->count, 1);
	assert_load(v, GPA(2), NEW);
	vm_free(vm);
}

/* Rule 1, nothing to recycle: every context is in use. */
static void nothing_to_recycle(void **state)
{
	struct vm *vm = vm_make_nested(1, 3);
	struct kvm_nested_context *a, *b;

	(void)state;
	a = assert_load(vm->vcpus[0], GPA(0), NEW);
	b = assert_load(vm->vcpus[1], GPA(1), NEW);
	vendor.fail_allocs = 1;
	assert_load(vm->vcpus[2], GPA(2), PRIVATE);
	assert_ptr_equal(assert_load(vm->vcpus[0], GPA(0), REENTERED), a);
	assert_ptr_equal(assert_load(vm->vcpus[1], GPA(1), REENTERED), b);
	assert_stats(vm, 2, 0, 0, 1);
	vm_free(vm);
}

/* Rules 1 and 2, the block is in use on another vCPU: private, no WARN. */
static void in_use_elsewhere(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	assert_load(w, GPA(0), PRIVATE);
	assert_ptr_equal(assert_load(v, GPA(0), REENTERED), ctx);

	/* The private one is not kept, so this tries again, and again... */
	kvm_nested_context_clear(w, GPA(0));
	assert_int_equal(visit(w, GPA(0)), PRIVATE);
	kvm_nested_context_clear(v, GPA(0));
	/* ...and now it is to be had. */
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	assert_stats(vm, 1, 1, 0, 2);
	vm_free(vm);
}

/* The private context is let go of like any other, but nothing stays of it. */
static void private_is_not_kept(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	vendor.fail_allocs = 1;
	ctx = assert_load(v, GPA(0), PRIVATE);
	assert_ptr_equal(ctx, v->arch.nested.fallback);
	/* In use, so loading it again does nothing. */
	assert_ptr_equal(assert_load(v, GPA(0), REENTERED), ctx);
	/* Others do not see it. */
	assert_null(kvm_nested_context_find(v, GPA(0)));

	kvm_nested_context_clear(v, GPA(0));
	assert_int_equal(atomic_long_read(&ctx->owner), 0);
	assert_null(v->arch.nested.last);
	assert_load(v, GPA(0), NEW);

	/* Loading over a private one is letting go of it, too. */
	vendor.fail_allocs = 2;
	kvm_nested_context_table_destroy(&vm->kvm);
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	v->arch.nested.last = NULL;
	assert_load(v, GPA(1), PRIVATE);
	assert_load(v, GPA(2), PRIVATE);
	assert_load(v, GPA(1), NEW);
	vm_free(vm);
}

/*
 * A vCPU that stays with its private context gets a kept one when there is one
 * to be had: the block is free at last, memory is there again. Trying in vain
 * counts nothing, however often.
 */
static void private_is_traded(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx, *private;
	int i;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	private = assert_load(w, GPA(0), PRIVATE);
	for (i = 0; i < 3; i++)
		assert_ptr_equal(assert_retry(w, GPA(0), KEPT), private);
	assert_stats(vm, 1, 0, 0, 1);
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_retry(w, GPA(0), HIT), ctx);
	assert_false(in_use(private));
	assert_ptr_equal(assert_retry(w, GPA(0), REENTERED), ctx);
	assert_ptr_equal(assert_load(w, GPA(0), REENTERED), ctx);
	assert_stats(vm, 1, 1, 0, 1);

	/* w has the only one, and there is no memory for another. */
	vendor.fail_allocs = 3;
	private = assert_load(v, GPA(1), PRIVATE);
	while (vendor.fail_allocs)
		assert_ptr_equal(assert_retry(v, GPA(1), KEPT), private);
	assert_retry(v, GPA(1), NEW);
	assert_false(in_use(private));
	assert_stats(vm, 2, 1, 0, 2);
	vm_free(vm);
}

/* Without a private context for this block it is a load like any other. */
static void retry_is_a_load(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_retry(v, GPA(0), NEW);
	assert_retry(w, GPA(0), PRIVATE);
	assert_retry(w, GPA(1), NEW);
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_retry(v, GPA(0), REENTERED), ctx);
	assert_stats(vm, 2, 0, 0, 1);

	/* In SMM there is none to be had, and none from outside is kept. */
	v->arch.smm = true;
	assert_retry(v, GPA(0), PRIVATE);
	assert_false(in_use(ctx));
	assert_retry(v, GPA(0), KEPT);
	v->arch.smm = false;
	assert_ptr_equal(assert_retry(v, GPA(0), HIT), ctx);
	assert_stats(vm, 2, 1, 0, 2);
	vm_free(vm);
}

/* SMM may see other memory at the same address: nothing is kept, nothing used. */
static void smm(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(w, GPA(0), NEW);
	kvm_nested_context_clear(w, GPA(0));

	v->arch.smm = true;
	assert_null(kvm_nested_context_find(v, GPA(0)));
	assert_int_equal(visit(v, GPA(0)), PRIVATE);
	assert_int_equal(visit(v, GPA(1)), PRIVATE);
	v->arch.smm = false;
	assert_int_equal(vendor.allocs, 1);
	assert_ptr_equal(kvm_nested_context_find(v, GPA(0)), ctx);
	assert_int_equal(visit(v, GPA(0)), HIT);
	assert_int_equal(visit(v, GPA(1)), NEW);
	assert_stats(vm, 2, 1, 0, 2);
	vm_free(vm);
}

/* The same for the context that the vCPU used last or is using. */
static void smm_reentry(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));

	v->arch.smm = true;
	assert_load(v, GPA(0), PRIVATE);
	kvm_nested_context_clear(v, GPA(0));
	v->arch.smm = false;
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);

	v->arch.smm = true;
	assert_load(v, GPA(0), PRIVATE);
	assert_false(in_use(ctx));
	kvm_nested_context_clear(v, GPA(0));
	v->arch.smm = false;
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);
	vm_free(vm);
}

/* Rule 9: a ratio of 0 is stock behaviour, so it is no failure either. */
static void ratio_0(void **state)
{
	struct vm *vm = vm_make_nested(0, 2);

	(void)state;
	assert_null(vm->kvm.arch.nested_contexts);
	assert_load(vm->vcpus[0], GPA(0), PRIVATE);
	assert_load(vm->vcpus[1], GPA(0), PRIVATE);
	assert_load(vm->vcpus[0], GPA(1), PRIVATE);
	kvm_nested_context_clear(vm->vcpus[0], GPA(1));
	assert_null(kvm_nested_context_find(vm->vcpus[0], GPA(0)));
	assert_int_equal(vendor.allocs, 0);
	assert_int_equal(stand_in_allocated, 0);
	assert_stats(vm, 0, 0, 0, 0);
	vm_free(vm);
}

/* The key is all of the address: bits 11:0 tell kinds of block apart. */
static void any_key(void **state)
{
	static const gpa_t keys[] = { 0,	  1,	       2,
				      0xfff,	  0x1000,      0x1001,
				      1ull << 51, ~0ull << 12, ~0ull };
	struct vm *vm = vm_make_nested(100, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx[ARRAY_SIZE(keys)];
	size_t i, j;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		assert_null(kvm_nested_context_find(v, keys[i]));
		ctx[i] = assert_load(v, keys[i], NEW);
		kvm_nested_context_clear(v, keys[i]);
	}
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		assert_ptr_equal(assert_load(v, keys[i], HIT), ctx[i]);
		for (j = 0; j < ARRAY_SIZE(keys); j++)
			assert_ptr_equal(kvm_nested_context_find(v, keys[j]),
					 ctx[j]);
	}
	vm_free(vm);
}

/* So many kinds at one address that some share a bucket. */
static void many_kinds(void **state)
{
	struct vm *vm = vm_make_nested(100, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx[100];
	int i;

	(void)state;
	for (i = 0; i < 100; i++)
		ctx[i] = assert_load(v, GPA(0) + i, NEW);
	for (i = 0; i < 100; i++) {
		assert_ptr_equal(kvm_nested_context_find(v, GPA(0) + i),
				 ctx[i]);
		assert_ptr_equal(assert_load(v, GPA(0) + i, HIT), ctx[i]);
	}
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(no_table),
		test(no_memory),
		test(no_memory_but_an_idle_one),
		test(nothing_to_recycle),
		test(in_use_elsewhere),
		test(private_is_not_kept),
		test(private_is_traded),
		test(retry_is_a_load),
		test(smm),
		test(smm_reentry),
		test(ratio_0),
		test(any_key),
		test(many_kinds),
	};

	return run_tap(tests);
}
