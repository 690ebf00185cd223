// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#define VM_ITSELF
#include "vm.h"
#include "trace.h"

struct vendor vendor;

_Noreturn void stand_in_fail(const char *what)
{
	/* The lock stays held; the next test's set-up forgets it. */
	stand_in_hook = NULL;
	fail_msg("%s", what);
	abort();
}

static struct kvm_nested_context *vendor_alloc(struct kvm_vcpu *vcpu, bool kept)
{
	void (*in_alloc)(void) = vendor.in_alloc;
	struct context *c;

	(void)kept;
	assert_non_null(vcpu);
	might_sleep();
	vendor.in_alloc = NULL;
	if (in_alloc)
		in_alloc();
	if (vendor.fail_allocs) {
		vendor.fail_allocs--;
		return NULL;
	}
	c = kzalloc(sizeof(*c), GFP_KERNEL);
	assert_non_null(c);
	vendor.allocs++;
	return &c->base;
}

static void vendor_free(struct kvm_nested_context *ctx)
{
	might_sleep();
	vendor.frees++;
	kfree(context_of(ctx));
}

static void vendor_reset(struct kvm_nested_context *ctx)
{
	void (*in_reset)(struct kvm_nested_context *) = vendor.in_reset;

	might_sleep();
	/* Rule 5: nobody else may get at it before it is reset. */
	assert_true(in_use(ctx));
	vendor.in_reset = NULL;
	if (in_reset)
		in_reset(ctx);
	vendor.resets++;
	context_of(ctx)->kept = 0;
	context_of(ctx)->resets++;
}

static struct kvm_x86_nested_ops vendor_ops;

int forget(void **state)
{
	(void)state;
	memset(&vendor, 0, sizeof(vendor));
	memset(&stand_in_trace, 0, sizeof(stand_in_trace));
	stand_in_hook = NULL;
	stand_in_atomic = 0;
	stand_in_no_memory = false;
	stand_in_allocated = 0;
	vendor_ops = (struct kvm_x86_nested_ops){
		.alloc_context = vendor_alloc,
		.free_context = vendor_free,
		.reset_context = vendor_reset,
	};
	kvm_x86_ops.nested_ops = &vendor_ops;
	return 0;
}

struct kvm_vcpu *vm_add_vcpu(struct vm *vm)
{
	struct kvm_vcpu *vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL);

	assert_non_null(vcpu);
	assert_in_range(vm->nr_vcpus, 0, MAX_VCPUS - 1);
	vcpu->kvm = &vm->kvm;
	vcpu->vcpu_id = vm->nr_vcpus;
	vcpu->arch.nested.fallback = &vcpu->arch.fallback;
	vm->vcpus[vm->nr_vcpus++] = vcpu;
	atomic_inc(&vm->kvm.online_vcpus);
	return vcpu;
}

void vcpu_free(struct vm *vm, int i)
{
	kfree(vm->vcpus[i]);
	vm->vcpus[i] = NULL;
}

struct vm *vm_make(unsigned int ratio, int nr_vcpus)
{
	struct vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL);

	assert_non_null(vm);
	kvm_nested_context_init_vm(&vm->kvm);
	vm->kvm.arch.nested_oversub_ratio = ratio;
	while (vm->nr_vcpus < nr_vcpus)
		vm_add_vcpu(vm);
	return vm;
}

struct vm *vm_make_nested(unsigned int ratio, int nr_vcpus)
{
	struct vm *vm = vm_make(ratio, nr_vcpus);

	assert_int_equal(kvm_nested_context_table_init(&vm->kvm), 0);
	return vm;
}

void vm_free(struct vm *vm)
{
	int i;

	kvm_nested_context_table_destroy(&vm->kvm);
	assert_null(vm->kvm.arch.nested_contexts);
	assert_int_equal(vendor.allocs, vendor.frees);
	assert_int_equal(stand_in_allocated, 0);
	for (i = 0; i < vm->nr_vcpus; i++)
		kfree(vm->vcpus[i]);
	kfree(vm);
}

bool in_use(struct kvm_nested_context *ctx)
{
	return atomic_long_read(&ctx->owner) & KVM_NESTED_IN_USE;
}

typedef struct kvm_nested_context *load_fn(struct kvm_vcpu *vcpu, gpa_t gpa);

static int how_of(load_fn load, struct kvm_vcpu *vcpu, gpa_t gpa,
		  struct kvm_nested_context **ctx)
{
	unsigned long loads = stand_in_trace.loads;
	int how = REENTERED;

	*ctx = load(vcpu, gpa);

	assert_non_null(*ctx);
	assert_int_equal((*ctx)->gpa, gpa);
	assert_int_equal(atomic_long_read(&(*ctx)->owner),
			 (long)vcpu | KVM_NESTED_IN_USE);
	if (stand_in_trace.loads != loads) {
		assert_int_equal(stand_in_trace.load_vcpu, vcpu->vcpu_id);
		assert_int_equal(stand_in_trace.load_gpa, gpa);
		how = stand_in_trace.load_outcome;
		assert_int_equal(kvm_nested_context_is_private(vcpu, *ctx),
				 how == PRIVATE);
	}
	if (!kvm_nested_context_is_private(vcpu, *ctx)) {
		/* Rule 5: what is kept is of this block, or nothing is. */
		if (context_of(*ctx)->kept)
			assert_int_equal(context_of(*ctx)->kept, gpa);
		if (how == NEW || how == RECYCLED)
			assert_int_equal(context_of(*ctx)->kept, 0);
		context_of(*ctx)->kept = gpa;
	}
	return how;
}

int load_how(struct kvm_vcpu *vcpu, gpa_t gpa, struct kvm_nested_context **ctx)
{
	return how_of(kvm_nested_context_load, vcpu, gpa, ctx);
}

int retry_how(struct kvm_vcpu *vcpu, gpa_t gpa, struct kvm_nested_context **ctx)
{
	return how_of(kvm_nested_context_retry, vcpu, gpa, ctx);
}

int visit(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_nested_context *ctx;
	int how = load_how(vcpu, gpa, &ctx);

	kvm_nested_context_clear(vcpu, gpa);
	assert_false(in_use(ctx));
	return how;
}

void assert_stats(struct vm *vm, long new, long reuse, long recycle,
		  long fallback)
{
	struct kvm_vm_stat *stat = &vm->kvm.stat;
	int i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		if (vm->vcpus[i])
			kvm_nested_context_vcpu_put(vm->vcpus[i]);
	}
	assert_int_equal(atomic64_read(&stat->nested_context_new), new);
	assert_int_equal(atomic64_read(&stat->nested_context_reuse), reuse);
	assert_int_equal(atomic64_read(&stat->nested_context_recycle), recycle);
	assert_int_equal(atomic64_read(&stat->nested_context_fallback),
			 fallback);
}
