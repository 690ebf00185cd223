/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VM for the single-threaded tests, and the vendor's three operations with
 * checks. Whoever includes this has the table's own source in it, statics and
 * all.
 */
#ifndef VM_H
#define VM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#ifdef VM_ITSELF
#include "nested.h"
#else
#include "nested.c"
#endif

/* A page-aligned control block address; no two of them are equal. */
#define GPA(n) ((gpa_t)((n) + 1) << 12)

#define MAX_VCPUS 256

/* What a vendor would embed the context in. */
struct context {
	struct kvm_nested_context base;
	gpa_t kept; /* the block that something is kept of; 0 after a reset */
	unsigned int resets;
};

static inline struct context *context_of(struct kvm_nested_context *ctx)
{
	return container_of(ctx, struct context, base);
}

struct vendor {
	int fail_allocs; /* so many allocations fail from now on */
	void (*in_alloc)(void); /* called once, in the middle of the next */
	void (*in_reset)(struct kvm_nested_context *ctx); /* likewise */
	long allocs, frees, resets;
};

extern struct vendor vendor;

struct vm {
	struct kvm kvm;
	int nr_vcpus;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
};

/* Re-entering is no load, so there is no outcome for it. */
#define REENTERED (-1)
#define HIT KVM_NESTED_CONTEXT_HIT
#define NEW KVM_NESTED_CONTEXT_NEW
#define RECYCLED KVM_NESTED_CONTEXT_RECYCLED
#define PRIVATE KVM_NESTED_CONTEXT_PRIVATE

/* A VM without a table, and one with. */
struct vm *vm_make(unsigned int ratio, int nr_vcpus);
struct vm *vm_make_nested(unsigned int ratio, int nr_vcpus);
/* Destroys the table, checks that nothing is left, frees all. */
void vm_free(struct vm *vm);
struct kvm_vcpu *vm_add_vcpu(struct vm *vm);
void vcpu_free(struct vm *vm, int i);

/*
 * Loads and says how; checks what holds for every load: never NULL, owned by
 * the vCPU, for the block asked for, private or not as the outcome says.
 */
int load_how(struct kvm_vcpu *vcpu, gpa_t gpa, struct kvm_nested_context **ctx);
/* The same of kvm_nested_context_retry(); KEPT is no load either. */
#define KEPT REENTERED
int retry_how(struct kvm_vcpu *vcpu, gpa_t gpa,
	      struct kvm_nested_context **ctx);

#define assert_load(vcpu, gpa, how)                                       \
	({                                                                \
		struct kvm_nested_context *__ctx;                         \
		assert_int_equal(load_how((vcpu), (gpa), &__ctx), (how)); \
		__ctx;                                                    \
	})

#define assert_retry(vcpu, gpa, how)                                       \
	({                                                                 \
		struct kvm_nested_context *__ctx;                          \
		assert_int_equal(retry_how((vcpu), (gpa), &__ctx), (how)); \
		__ctx;                                                     \
	})

/* Loads, however that goes, and lets go. */
int visit(struct kvm_vcpu *vcpu, gpa_t gpa);

/* The VM's statistics, with what the vCPUs counted by themselves. */
void assert_stats(struct vm *vm, long new, long reuse, long recycle,
		  long fallback);

bool in_use(struct kvm_nested_context *ctx);

/* Runs the tests and prints TAP. */
#define run_tap(tests)                                       \
	({                                                   \
		cmocka_set_message_output(CM_OUTPUT_TAP);    \
		cmocka_run_group_tests((tests), NULL, NULL); \
	})

/* A test whose fixture's setup forgets what an earlier one left behind. */
int forget(void **state);
#define test(f) cmocka_unit_test_setup(f, forget)

#endif
