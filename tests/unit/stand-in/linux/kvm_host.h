/* SPDX-License-Identifier: GPL-2.0 */
/* Of KVM, just what the table of nested contexts touches. */
#ifndef STAND_IN_KVM_HOST_H
#define STAND_IN_KVM_HOST_H

#include <errno.h>

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/kconfig.h>
#include <linux/kernel.h>
#include <linux/kvm_types.h>
#include <linux/slab.h>
#include <linux/types.h>

#include <asm/kvm_nested.h>

#define KVM_NESTED_OVERSUB_RATIO 8

struct kvm_vm_stat {
	atomic64_t nested_context_new;
	atomic64_t nested_context_reuse;
	atomic64_t nested_context_recycle;
	atomic64_t nested_context_fallback;
};

struct kvm_arch {
	struct kvm_nested_context_table *nested_contexts;
	unsigned int nested_oversub_ratio;
};

struct kvm {
	struct kvm_arch arch;
	atomic_t online_vcpus;
	/* In the kernel there is a lot in between: other cache lines. */
	char arch_is_apart[256];
	struct kvm_vm_stat stat;
	char stat_is_apart[256];
};

struct kvm_vcpu_arch {
	struct kvm_vcpu_nested nested;
	struct kvm_nested_context fallback; /* nested.fallback, for most tests */
	bool smm;
};

struct kvm_vcpu {
	struct kvm *kvm;
	int vcpu_id;
	struct kvm_vcpu_arch arch;
};

struct kvm_x86_nested_ops {
	struct kvm_nested_context *(*alloc_context)(struct kvm_vcpu *vcpu,
						    bool kept);
	void (*free_context)(struct kvm_nested_context *ctx);
	void (*reset_context)(struct kvm_nested_context *ctx);
};

struct kvm_x86_ops {
	struct kvm_x86_nested_ops *nested_ops;
};

extern struct kvm_x86_ops kvm_x86_ops;

#endif
