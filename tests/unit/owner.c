// SPDX-License-Identifier: GPL-2.0
/*
 * Rules 2 and 3: a context has one owner, a vCPU has at most one context, and
 * taking the next one parks the last.
 */
#include <string.h>

#include "vm.h"

/* How many contexts of the table are in use. */
static int count_in_use(struct vm *vm)
{
	struct kvm_nested_context *ctx;
	int n = 0;

	list_for_each_entry(ctx, &vm->kvm.arch.nested_contexts->lru, lru)
		n += in_use(ctx);
	return n;
}

/* Rule 2: L1 names one block on two vCPUs. */
static void double_load(void **state)
{
	struct vm *vm = vm_make_nested(8, 3);
	struct kvm_nested_context *ctx, *kept;
	int i;

	(void)state;
	ctx = assert_load(vm->vcpus[0], GPA(0), NEW);
	for (i = 1; i < 3; i++) {
		kept = assert_load(vm->vcpus[i], GPA(0), PRIVATE);
		assert_ptr_not_equal(kept, ctx);
		assert_true(nested_context_is_mine(ctx, vm->vcpus[0]));
	}
	vm_free(vm);
}

/* Rule 2: VMCLEAR of what is in use on another vCPU does not touch it. */
static void foreign_clear(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(w, GPA(0));
	assert_true(nested_context_is_mine(ctx, v));
	assert_load(w, GPA(1), NEW);
	kvm_nested_context_clear(w, GPA(0));
	assert_true(nested_context_is_mine(ctx, v));
	assert_true(in_use(kvm_nested_context_find(w, GPA(1))));
	assert_int_equal(stand_in_trace.clears, 0);

	/* Nor does it if the other vCPU used it once and has it in mind. */
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	assert_ptr_equal(v->arch.nested.last, ctx);
	kvm_nested_context_clear(v, GPA(0));
	assert_true(nested_context_is_mine(ctx, w));
	/* What w had before was parked by its load. */
	assert_int_equal(stand_in_trace.clears, 2);
	assert_int_equal(stand_in_trace.clear_gpa, GPA(1));
	vm_free(vm);
}

/* A clear is of what the vCPU uses, at the address that it names. */
static void clear_of_another(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	kvm_nested_context_clear(v, GPA(0));
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(1));
	kvm_nested_context_clear(v, GPA(0) | 1);
	assert_true(in_use(ctx));
	assert_int_equal(stand_in_trace.clears, 0);

	kvm_nested_context_clear(v, GPA(0));
	assert_false(in_use(ctx));
	assert_int_equal(stand_in_trace.clears, 1);
	assert_int_equal(stand_in_trace.clear_vcpu, v->vcpu_id);
	assert_int_equal(stand_in_trace.clear_gpa, GPA(0));

	kvm_nested_context_clear(v, GPA(0));
	assert_int_equal(stand_in_trace.clears, 1);
	vm_free(vm);
}

/* Rule 3: a load over another parks it, for whoever wants it. */
static void load_over(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	assert_load(v, GPA(1), NEW);
	assert_false(in_use(ctx));
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	/* Even if all that the next one gets is a private one. */
	assert_load(w, GPA(1), PRIVATE);
	assert_false(in_use(ctx));
	vm_free(vm);
}

/* Rule 3: whatever a vCPU does, it holds at most one. */
static void holds_one(void **state)
{
	struct vm *vm = vm_make_nested(2, 4);
	struct kvm_nested_context *ctx;
	int i;

	(void)state;
	for (i = 0; i < 1000; i++) {
		load_how(vm->vcpus[i * 7 % 4], GPA(i * 5 % 13), &ctx);
		assert_in_range(count_in_use(vm), 0, 4);
		if (i % 3 == 0)
			kvm_nested_context_clear(vm->vcpus[i % 4], ctx->gpa);
	}
	for (i = 0; i < 4; i++) {
		/* A block of its own: only what it was using is parked. */
		load_how(vm->vcpus[i], GPA(100 + i), &ctx);
		kvm_nested_context_clear(vm->vcpus[i], GPA(100 + i));
	}
	assert_int_equal(count_in_use(vm), 0);
	vm_free(vm);
}

/* A context moves to another vCPU; going back to it is then no re-entry. */
static void migrates(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_load(v, GPA(0), REENTERED), ctx);
	kvm_nested_context_clear(v, GPA(0));

	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	assert_load(v, GPA(0), PRIVATE);
	kvm_nested_context_clear(v, GPA(0));
	kvm_nested_context_clear(w, GPA(0));
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	vm_free(vm);
}

/*
 * What a vCPU used last was recycled by another one: neither its old key nor
 * what it is now are taken for the vCPU's own.
 */
static void last_was_recycled(void **state)
{
	struct vm *vm = vm_make_nested(1, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	vendor.fail_allocs = 1;
	assert_ptr_equal(assert_load(w, GPA(1), RECYCLED), ctx);
	assert_ptr_equal(v->arch.nested.last, ctx);

	/* In use there, at its new key and at its old one. */
	kvm_nested_context_clear(v, GPA(1));
	assert_true(nested_context_is_mine(ctx, w));
	vendor.fail_allocs = 1;
	assert_load(v, GPA(0), PRIVATE);
	assert_true(nested_context_is_mine(ctx, w));
	kvm_nested_context_clear(v, GPA(0));

	/* Parked there: found, but a load and no re-entry. */
	v->arch.nested.last = ctx;
	kvm_nested_context_clear(w, GPA(1));
	assert_ptr_equal(assert_load(v, GPA(1), HIT), ctx);
	vm_free(vm);
}

/* Moving on from what another vCPU uses by now leaves that alone. */
static void moves_on(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	assert_load(v, GPA(1), NEW);
	assert_true(nested_context_is_mine(ctx, w));
	vm_free(vm);
}

/* A vCPU is destroyed in L2: it lets go, and is never looked at again. */
static void vcpu_destroyed(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *ctx;
	int i;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	vcpu_free(vm, 0);

	assert_ptr_equal(kvm_nested_context_find(w, GPA(0)), ctx);
	assert_ptr_equal(assert_load(w, GPA(0), HIT), ctx);
	/* Recycling everything there is meets its contexts as well. */
	for (i = 1; i < 100; i++)
		visit(w, GPA(i));
	vm_free(vm);
}

/* If nothing made it let go, its context is lost, but nothing else is. */
static void vcpu_destroyed_in_use(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	struct kvm_vcpu *w = vm->vcpus[1];
	int i;

	(void)state;
	assert_load(vm->vcpus[0], GPA(0), NEW);
	vcpu_free(vm, 0);
	assert_int_equal(visit(w, GPA(0)), PRIVATE);
	for (i = 1; i < 100; i++)
		assert_int_not_equal(visit(w, GPA(i)), PRIVATE);
	assert_int_equal(visit(w, GPA(0)), PRIVATE);
	vm_free(vm);
}

/* A new vCPU at the place of an old one has not used what that one used. */
static void vcpu_at_the_same_place(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_vcpu *v = vm->vcpus[0];
	struct kvm_nested_context *ctx;

	(void)state;
	ctx = assert_load(v, GPA(0), NEW);
	kvm_nested_context_clear(v, GPA(0));
	memset(&v->arch, 0, sizeof(v->arch));
	kvm_nested_context_clear(v, GPA(0));
	assert_ptr_equal(assert_load(v, GPA(0), HIT), ctx);
	assert_stats(vm, 1, 1, 0, 0);
	vm_free(vm);
}

/* find() takes nothing and changes nothing, whoever owns what it finds. */
static void find(void **state)
{
	struct vm *vm = vm_make_nested(1, 2);
	struct kvm_vcpu *v = vm->vcpus[0], *w = vm->vcpus[1];
	struct kvm_nested_context *a, *b;
	int i;

	(void)state;
	assert_null(kvm_nested_context_find(v, GPA(0)));
	a = assert_load(v, GPA(0), NEW);
	b = assert_load(v, GPA(1), NEW);
	for (i = 0; i < 10; i++) {
		assert_ptr_equal(kvm_nested_context_find(v, GPA(0)), a);
		assert_ptr_equal(kvm_nested_context_find(w, GPA(0)), a);
		assert_ptr_equal(kvm_nested_context_find(v, GPA(1)), b);
		assert_ptr_equal(kvm_nested_context_find(w, GPA(1)), b);
		assert_null(kvm_nested_context_find(w, GPA(2)));
	}
	assert_false(in_use(a));
	assert_true(nested_context_is_mine(b, v));
	/* Looked for ten times, and still the first to go. */
	assert_ptr_equal(assert_load(w, GPA(2), RECYCLED), a);
	assert_null(kvm_nested_context_find(v, GPA(0)));
	assert_ptr_equal(kvm_nested_context_find(v, GPA(2)), a);

	/* A private context is not found, at whatever key. */
	assert_load(w, GPA(1), PRIVATE);
	assert_ptr_equal(kvm_nested_context_find(w, GPA(1)), b);
	assert_stats(vm, 2, 0, 1, 1);
	vm_free(vm);
}

/* What the hook saw, by kind of point. */
static int seen[AT_WALK + 1];

static void note(enum stand_in_point p)
{
	seen[p]++;
}

/*
 * A hit takes no lock and exchanges one word, whichever vCPU the context comes
 * from. Going back to the last one does not look into a bucket either.
 */
static void hit_without_a_lock(void **state)
{
	struct vm *vm = vm_make_nested(8, 2);
	int i, n;

	(void)state;
	for (i = 0; i < 8; i++)
		assert_int_equal(visit(vm->vcpus[0], GPA(i)), NEW);

	memset(seen, 0, sizeof(seen));
	stand_in_hook = note;
	for (n = 0; n < 1000; n++)
		for (i = 0; i < 8; i++)
			visit(vm->vcpus[n / 10 % 2], GPA(i));
	stand_in_hook = NULL;
	assert_int_equal(seen[AT_LOCK], 0);
	assert_int_equal(seen[AT_EXCHANGE], 8000);
	assert_stats(vm, 8, 8000, 0, 0);

	memset(seen, 0, sizeof(seen));
	stand_in_hook = note;
	for (n = 0; n < 1000; n++)
		visit(vm->vcpus[1], GPA(7));
	stand_in_hook = NULL;
	assert_int_equal(seen[AT_LOCK], 0);
	assert_int_equal(seen[AT_WALK], 0);
	assert_int_equal(seen[AT_EXCHANGE], 1000);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(double_load),
		test(foreign_clear),
		test(clear_of_another),
		test(load_over),
		test(holds_one),
		test(migrates),
		test(last_was_recycled),
		test(moves_on),
		test(vcpu_destroyed),
		test(vcpu_destroyed_in_use),
		test(vcpu_at_the_same_place),
		test(find),
		test(hit_without_a_lock),
	};

	return run_tap(tests);
}
