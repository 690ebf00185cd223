// SPDX-License-Identifier: GPL-2.0
/*
 * The bound: ratio x online vCPUs contexts and never one more, whoever
 * allocates at the same time. And the table's life, from the first vCPU that
 * goes nested to the end of the VM.
 */
#include <limits.h>

#include "vm.h"

static struct vm *the_vm; /* for what runs in the middle of an allocation */
static struct kvm_nested_context *taken;

static unsigned int count(struct vm *vm)
{
	return vm->kvm.arch.nested_contexts->count;
}

static long live(void)
{
	return vendor.allocs - vendor.frees;
}

/* The bound, for one vCPU after another. */
static void bound(void **state)
{
	static const int ratios[] = { 1, 2, 8, 100 };
	size_t r;
	int nr, i;

	for (r = 0; r < ARRAY_SIZE(ratios); r++) {
		for (nr = 1; nr < 4; nr++) {
			struct vm *vm = vm_make_nested(ratios[r], nr);
			int cap = ratios[r] * nr;

			for (i = 0; i < 3 * cap; i++) {
				assert_int_equal(visit(vm->vcpus[i % nr],
						       GPA(i)),
						 i < cap ? NEW : RECYCLED);
				assert_int_equal(count(vm), min(i + 1, cap));
				assert_int_equal(live(), min(i + 1, cap));
			}
			assert_stats(vm, cap, 0, 2 * cap, 0);
			vm_free(vm);
			forget(state);
		}
	}
}

/* It grows with the vCPUs. */
static void grows(void **state)
{
	struct vm *vm = vm_make_nested(2, 1);
	int i, n = 0;

	(void)state;
	for (i = 1; i < 50; i++) {
		assert_int_equal(visit(vm->vcpus[0], GPA(n++)), NEW);
		assert_int_equal(visit(vm->vcpus[i / 2], GPA(n++)), NEW);
		assert_int_equal(visit(vm->vcpus[i - 1], GPA(n++)), RECYCLED);
		vm_add_vcpu(vm);
	}
	assert_int_equal(live(), 2 * 49);
	vm_free(vm);
}

/* The capacity does not wrap, and a huge one does not make a huge table. */
static void huge_ratio(void **state)
{
	struct vm *vm = vm_make_nested(UINT_MAX / 2 + 1, 2);

	(void)state;
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), NEW);
	assert_int_equal(vm->kvm.arch.nested_contexts->hash_bits,
			 NESTED_MAX_HASH_BITS);
	vm_free(vm);
}

/* The module parameter is for VMs that are made after it was set. */
static void parameter(void **state)
{
	struct kvm old = { 0 }, new = { 0 };

	(void)state;
	kvm_nested_context_init_vm(&old);
	assert_int_equal(old.arch.nested_oversub_ratio, 8);
	nested_oversub_ratio = 3;
	kvm_nested_context_init_vm(&new);
	assert_int_equal(old.arch.nested_oversub_ratio, 8);
	assert_int_equal(new.arch.nested_oversub_ratio, 3);
	nested_oversub_ratio = KVM_NESTED_OVERSUB_RATIO;
}

static void other_takes_same_block(void)
{
	taken = assert_load(the_vm->vcpus[1], GPA(0), NEW);
}

/* While one vCPU allocates, another one loads the same block and keeps it. */
static void race_same_block_in_use(void **state)
{
	struct vm *vm = the_vm = vm_make_nested(8, 2);

	(void)state;
	vendor.in_alloc = other_takes_same_block;
	assert_load(vm->vcpus[0], GPA(0), PRIVATE);
	assert_true(nested_context_is_mine(taken, vm->vcpus[1]));
	assert_int_equal(count(vm), 1);
	assert_int_equal(live(), 1);
	assert_stats(vm, 1, 0, 0, 1);
	vm_free(vm);
}

static void other_visits_same_block(void)
{
	other_takes_same_block();
	kvm_nested_context_clear(the_vm->vcpus[1], GPA(0));
}

/* Likewise, but lets go of it: there must not be two contexts for a block. */
static void race_same_block_parked(void **state)
{
	struct vm *vm = the_vm = vm_make_nested(8, 2);
	struct kvm_nested_context *ctx;

	(void)state;
	vendor.in_alloc = other_visits_same_block;
	ctx = assert_load(vm->vcpus[0], GPA(0), HIT);
	assert_ptr_equal(ctx, taken);
	assert_int_equal(count(vm), 1);
	assert_int_equal(live(), 1);
	assert_stats(vm, 1, 1, 0, 0);
	vm_free(vm);
}

static void other_wants_a_place(void)
{
	/* The last place is reserved by who is allocating. */
	assert_int_equal(visit(the_vm->vcpus[1], GPA(50)), RECYCLED);
	assert_int_equal(visit(the_vm->vcpus[1], GPA(51)), RECYCLED);
}

/* While one vCPU allocates the last one, another one wants one as well. */
static void race_last_place(void **state)
{
	struct vm *vm = the_vm = vm_make_nested(1, 2);

	(void)state;
	assert_int_equal(visit(vm->vcpus[1], GPA(0)), NEW);
	vendor.in_alloc = other_wants_a_place;
	assert_int_equal(visit(vm->vcpus[0], GPA(1)), NEW);
	assert_int_equal(count(vm), 2);
	assert_int_equal(live(), 2);
	vm_free(vm);
}

/* The same with nothing to recycle: the bound holds, the load is served. */
static void other_gets_nothing(void)
{
	assert_int_equal(visit(the_vm->vcpus[1], GPA(50)), PRIVATE);
}

static void race_only_place(void **state)
{
	struct vm *vm = the_vm = vm_make_nested(1, 1);

	(void)state;
	vm_add_vcpu(vm);
	vm->kvm.online_vcpus.counter = 1;
	vendor.in_alloc = other_gets_nothing;
	assert_int_equal(visit(vm->vcpus[0], GPA(1)), NEW);
	assert_int_equal(count(vm), 1);
	vm_free(vm);
}

/* A failed allocation gives its place back. */
static void failed_place(void **state)
{
	struct vm *vm = vm_make_nested(2, 1);
	int i;

	(void)state;
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), NEW);
	vendor.fail_allocs = 100;
	for (i = 0; i < 100; i++) {
		assert_int_equal(visit(vm->vcpus[0], GPA(1 + i)), RECYCLED);
		assert_int_equal(count(vm), 1);
	}
	assert_int_equal(visit(vm->vcpus[0], GPA(200)), NEW);
	assert_int_equal(visit(vm->vcpus[0], GPA(201)), RECYCLED);
	vm_free(vm);
}

/* table_init() refuses a vendor that lacks an operation, whatever the ratio. */
static void init_einval(void **state)
{
	struct vm *vm = vm_make(8, 1);
	struct kvm_x86_nested_ops ops = *kvm_x86_ops.nested_ops, lacks;
	int i;

	(void)state;
	kvm_x86_ops.nested_ops = &lacks;
	for (i = 0; i < 3; i++) {
		lacks = ops;
		if (i == 0)
			lacks.alloc_context = NULL;
		else if (i == 1)
			lacks.free_context = NULL;
		else
			lacks.reset_context = NULL;
		assert_int_equal(kvm_nested_context_table_init(&vm->kvm),
				 -EINVAL);
		assert_null(vm->kvm.arch.nested_contexts);
		assert_int_equal(visit(vm->vcpus[0], GPA(0)), PRIVATE);
	}
	lacks = ops;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), NEW);
	vm_free(vm);
}

/* Out of memory is an error that leaves nothing, and may be tried again. */
static void init_enomem(void **state)
{
	struct vm *vm = vm_make(8, 1);

	(void)state;
	stand_in_no_memory = true;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), -ENOMEM);
	assert_null(vm->kvm.arch.nested_contexts);
	stand_in_no_memory = false;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	assert_non_null(vm->kvm.arch.nested_contexts);
	vm_free(vm);
}

/* Every vCPU that goes nested calls it; the table stays. */
static void init_again(void **state)
{
	struct vm *vm = vm_make_nested(8, 1);
	struct kvm_nested_context_table *table = vm->kvm.arch.nested_contexts;

	(void)state;
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), NEW);
	stand_in_no_memory = true;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	assert_ptr_equal(vm->kvm.arch.nested_contexts, table);
	assert_int_equal(visit(vm->vcpus[0], GPA(1)), NEW);
	assert_non_null(kvm_nested_context_find(vm->vcpus[0], GPA(0)));
	vm_free(vm);
}

static void other_inits(enum stand_in_point p)
{
	assert_int_equal(p, AT_EXCHANGE);
	stand_in_hook = NULL;
	assert_int_equal(kvm_nested_context_table_init(&the_vm->kvm), 0);
	assert_int_equal(visit(the_vm->vcpus[1], GPA(0)), NEW);
}

/* Two at once: one table, and nothing that is in it is lost. */
static void init_race(void **state)
{
	struct vm *vm = the_vm = vm_make(8, 2);

	(void)state;
	stand_in_hook = other_inits;
	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	assert_null(stand_in_hook);
	assert_int_equal(stand_in_allocated, 1);
	assert_int_equal(visit(vm->vcpus[0], GPA(0)), HIT);
	vm_free(vm);
}

/* destroy() frees everything once, in use or not; and a VM may go nested anew. */
static void destroy(void **state)
{
	struct vm *vm = vm_make(8, 2);
	struct kvm_nested_context *ctx;
	int i;

	(void)state;
	kvm_nested_context_table_destroy(&vm->kvm);
	for (i = 0; i < 2; i++) {
		assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
		vm->vcpus[0]->arch.nested.last = NULL;
		while (live() < 16)
			load_how(vm->vcpus[0], GPA(live()), &ctx);
		assert_true(in_use(ctx));
		kvm_nested_context_table_destroy(&vm->kvm);
		assert_null(vm->kvm.arch.nested_contexts);
		assert_int_equal(live(), 0);
		assert_int_equal(stand_in_allocated, 0);
		kvm_nested_context_table_destroy(&vm->kvm);
	}
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(bound),
		test(grows),
		test(huge_ratio),
		test(parameter),
		test(race_same_block_in_use),
		test(race_same_block_parked),
		test(race_last_place),
		test(race_only_place),
		test(failed_place),
		test(init_einval),
		test(init_enomem),
		test(init_again),
		test(init_race),
		test(destroy),
	};

	return run_tap(tests);
}
