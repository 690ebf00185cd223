/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The nested context table: one per VM, for VMX and SVM alike.
 */
#ifndef __KVM_X86_NESTED_H
#define __KVM_X86_NESTED_H

#include <linux/kvm_host.h>

/*
 * Don't trigger the OOM killer for an optimization: without a context for the table
 * the vCPU has its fallback, and the next load tries again.
 */
#define KVM_NESTED_CONTEXT_GFP	(GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN)

static inline gfp_t kvm_nested_context_gfp(bool kept)
{
	return kept ? KVM_NESTED_CONTEXT_GFP : GFP_KERNEL_ACCOUNT;
}

/*
 * How a load was served; the order is known to the tracepoint.
 *
 * HIT:		a kept context was found
 * NEW:		a context was allocated, the table was below its capacity
 * RECYCLED:	an idle context was taken over
 * PRIVATE:	none of these was possible, the vCPU has its private context
 */
enum kvm_nested_context_outcome {
	KVM_NESTED_CONTEXT_HIT,
	KVM_NESTED_CONTEXT_NEW,
	KVM_NESTED_CONTEXT_RECYCLED,
	KVM_NESTED_CONTEXT_PRIVATE,
};

void kvm_nested_context_init_vm(struct kvm *kvm);
int kvm_nested_context_table_init(struct kvm *kvm);
void kvm_nested_context_table_destroy(struct kvm *kvm);

struct kvm_nested_context *kvm_nested_context_load(struct kvm_vcpu *vcpu,
						   gpa_t gpa);
struct kvm_nested_context *kvm_nested_context_retry(struct kvm_vcpu *vcpu,
						    gpa_t gpa);
void kvm_nested_context_clear(struct kvm_vcpu *vcpu, gpa_t gpa);
struct kvm_nested_context *kvm_nested_context_find(struct kvm_vcpu *vcpu,
						   gpa_t gpa);

int kvm_nested_context_enable(struct kvm_vcpu *vcpu);
void kvm_nested_context_disable(struct kvm_vcpu *vcpu);

/* The context that the vCPU uses, or NULL. */
static inline struct kvm_nested_context *
kvm_nested_context_current(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;

	if (ctx && atomic_long_read(&ctx->owner) == ((long)vcpu | KVM_NESTED_IN_USE))
		return ctx;
	return NULL;
}

void __kvm_nested_context_vcpu_put(struct kvm_vcpu *vcpu);

/**
 * kvm_nested_context_vcpu_put - bring the VM's statistics up to date
 * @vcpu: the vCPU that leaves its CPU
 *
 * Loads that hit are counted in the vCPU, for the hit path must not write what
 * vCPUs share.  They show in the VM's statistics from here on.
 *
 * Context: called by the vCPU's task with preemption disabled, or by its
 * preempt notifier.
 */
static inline void kvm_nested_context_vcpu_put(struct kvm_vcpu *vcpu)
{
	if (READ_ONCE(vcpu->arch.nested.reuse) != vcpu->arch.nested.reuse_seen)
		__kvm_nested_context_vcpu_put(vcpu);
}

/**
 * kvm_nested_context_is_private - is this the vCPU's private context?
 * @vcpu: the vCPU that loaded @ctx
 * @ctx: what kvm_nested_context_load() returned
 *
 * A private context is not embedded in a vendor's structure.  The vendor does
 * for it what KVM does without contexts.
 *
 * Context: any.
 * Return: true if @ctx keeps nothing.
 */
static inline bool
kvm_nested_context_is_private(struct kvm_vcpu *vcpu,
			      struct kvm_nested_context *ctx)
{
	return ctx == vcpu->arch.nested.fallback;
}

#endif /* __KVM_X86_NESTED_H */
