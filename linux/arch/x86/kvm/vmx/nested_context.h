/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts on VMX: L1's MSR bitmap stays mapped.
 */
#ifndef __KVM_X86_VMX_NESTED_CONTEXT_H
#define __KVM_X86_VMX_NESTED_CONTEXT_H

#include <linux/kvm_host.h>

struct vcpu_vmx;

/**
 * struct vmx_l1_page - access to a page of L1
 * @gpc:	set while the page is one that a context keeps mapped
 * @map:	set while the page is mapped for this access alone
 */
struct vmx_l1_page {
	struct gfn_to_pfn_cache *gpc;
	struct kvm_host_map map;
};

void vmx_contexts_init(struct kvm_vcpu *vcpu);
void vmx_context_load(struct kvm_vcpu *vcpu, gpa_t vmptr);
void vmx_context_leave(struct vcpu_vmx *vmx);
void vmx_context_leave_evmcs(struct vcpu_vmx *vmx);

unsigned long *vmx_context_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa,
					    struct vmx_l1_page *page);
void vmx_context_end_msr_bitmap(struct vcpu_vmx *vmx, struct vmx_l1_page *page);

struct kvm_nested_context *vmx_alloc_context(struct kvm_vcpu *vcpu);
void vmx_free_context(struct kvm_nested_context *ctx);
void vmx_reset_context(struct kvm_nested_context *ctx);

#endif /* __KVM_X86_VMX_NESTED_CONTEXT_H */
