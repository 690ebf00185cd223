/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts on VMX: L1's control blocks, MSR bitmaps and the pages that
 * vmcs02 refers to.
 */
#ifndef __KVM_X86_VMX_NESTED_CONTEXT_H
#define __KVM_X86_VMX_NESTED_CONTEXT_H

#include <linux/kvm_host.h>

#include "../nested.h"
#include "../nested_page.h"

struct vcpu_vmx;
struct vmcs_hdr;

/*
 * Pages of L1 that vmcs02 names by their host-physical addresses.  Hardware reads
 * and writes the last two.  It only compares addresses with the APIC-access page's,
 * which therefore must not be shared: it is looked up for writing as well.
 */
enum vmx_hw_page {
	VMX_APIC_ACCESS_PAGE,
	VMX_VIRTUAL_APIC_PAGE,
	VMX_PI_DESC_PAGE,
	NR_VMX_HW_PAGES
};

/**
 * struct vmx_nested_context - what is kept of an L2 on VMX
 * @base:	for the table
 * @block:	the page of the VMCS or eVMCS; in use as long as an eVMCS is current
 * @msr_bitmap:	the page of L1's MSR bitmap
 * @hw:		the pages that vmcs02 refers to, in use as long as L2 runs
 */
struct vmx_nested_context {
	struct kvm_nested_context base;
	struct kvm_nested_page block;
	struct kvm_nested_page msr_bitmap;
	struct kvm_nested_page hw[NR_VMX_HW_PAGES];
};

/* The context of the VMCS or eVMCS that is current; NULL if there is none. */
static inline struct vmx_nested_context *vmx_nested_context(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = kvm_nested_context_current(vcpu);

	return ctx ? container_of(ctx, struct vmx_nested_context, base) : NULL;
}

/* The page-aligned part of an address that L1 has given. */
static inline gpa_t nested_vmx_page(gpa_t gpa)
{
	return gfn_to_gpa(gpa_to_gfn(gpa));
}

/**
 * struct nested_vmx_posted - what it takes to process a posted interrupt
 * @pi:		the posted-interrupt descriptor
 * @vapic:	the virtual-APIC page
 */
struct nested_vmx_posted {
	struct pi_desc *pi;
	void *vapic;
};

void nested_vmx_context_load(struct vcpu_vmx *vmx);
bool nested_vmx_retry_entry(struct vcpu_vmx *vmx);
void nested_vmx_context_clear(struct vcpu_vmx *vmx);
int nested_vmx_read_header(struct vcpu_vmx *vmx, gpa_t vmptr, struct vmcs_hdr *hdr);
int nested_vmx_read_vmcs12(struct vcpu_vmx *vmx, gpa_t vmptr);
void nested_vmx_write_vmcs12(struct vcpu_vmx *vmx);

unsigned long *nested_vmx_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa);
void nested_vmx_end_msr_bitmap(struct vcpu_vmx *vmx);

int nested_vmx_use_page(struct vcpu_vmx *vmx, enum vmx_hw_page nr);
void nested_vmx_unuse_pages(struct vcpu_vmx *vmx);
int nested_vmx_refresh_pages(struct vcpu_vmx *vmx);
void nested_vmx_mark_page_dirty(struct vcpu_vmx *vmx, enum vmx_hw_page nr);

bool nested_vmx_begin_early_check(struct vcpu_vmx *vmx);
void nested_vmx_end_early_check(struct vcpu_vmx *vmx);
bool nested_vmx_has_posted_pages(struct vcpu_vmx *vmx);
int nested_vmx_begin_posted(struct vcpu_vmx *vmx, struct nested_vmx_posted *p);
void nested_vmx_end_posted(struct vcpu_vmx *vmx);
void *nested_vmx_hold_virtual_apic(struct vcpu_vmx *vmx);
void nested_vmx_release_virtual_apic(struct vcpu_vmx *vmx);

struct kvm_nested_context *vmx_alloc_context(struct kvm_vcpu *vcpu, bool kept);
void vmx_free_context(struct kvm_nested_context *ctx);
void vmx_reset_context(struct kvm_nested_context *ctx);

/*
 * A VMCS and an eVMCS at one address have nothing in common.  The address of
 * neither has bits set below the page size.
 */
#define VMX_CONTEXT_EVMCS	BIT(0)

/**
 * struct nested_evmcs_header - what L0 looks at more than once of L1's eVMCS
 * @hv_enlightenments_control:	as in struct hv_enlightened_vmcs
 * @revision_id:		likewise
 * @hv_clean_fields:		likewise
 *
 * As it was when L2 was entered: L1 may change its own at any time.
 */
struct nested_evmcs_header {
	typeof_member(struct hv_enlightened_vmcs,
		      hv_enlightenments_control) hv_enlightenments_control;
	u32 revision_id;
	u32 hv_clean_fields;
};

int nested_evmcs_load(struct vcpu_vmx *vmx, gpa_t evmptr);
void nested_evmcs_release(struct vcpu_vmx *vmx);
int nested_evmcs_refresh(struct vcpu_vmx *vmx);
int nested_evmcs_read_header(struct vcpu_vmx *vmx);
void nested_evmcs_set_clean(struct vcpu_vmx *vmx, bool clean);
u64 nested_evmcs_read_field(struct vcpu_vmx *vmx, unsigned long field, u16 offset);
struct hv_enlightened_vmcs *nested_evmcs_begin(struct vcpu_vmx *vmx);
struct hv_enlightened_vmcs *nested_evmcs_trybegin(struct vcpu_vmx *vmx);
void nested_evmcs_end(struct vcpu_vmx *vmx, bool dirty);

#endif /* __KVM_X86_VMX_NESTED_CONTEXT_H */
