/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts on VMX: L1's control blocks, MSR bitmaps and the pages that
 * vmcs02 refers to stay mapped.
 */
#ifndef __KVM_X86_VMX_NESTED_CONTEXT_H
#define __KVM_X86_VMX_NESTED_CONTEXT_H

#include <linux/kvm_host.h>

#include "../nested_page.h"

struct vcpu_vmx;
struct vmcs_hdr;
struct vmx_nested_context;

/*
 * Pages of L1 that vmcs02 names by their host-physical addresses.  The hardware
 * only compares addresses with that of the APIC-access page; it reads and writes
 * the two others (SDM volume 3C, "APIC-Access Address" and what follows there).
 */
enum vmx_hw_page {
	VMX_APIC_ACCESS_PAGE,
	VMX_VIRTUAL_APIC_PAGE,
	VMX_PI_DESC_PAGE,
	NR_VMX_HW_PAGES
};

/**
 * struct vmx_evmcs_header - what is looked at more than once of L1's eVMCS
 * @hv_enlightenments_control:	as in struct hv_enlightened_vmcs
 * @revision_id:		likewise
 * @hv_clean_fields:		likewise
 *
 * L1 may change its own any time.
 */
struct vmx_evmcs_header {
	typeof_member(struct hv_enlightened_vmcs,
		      hv_enlightenments_control) hv_enlightenments_control;
	u32 revision_id;
	u32 hv_clean_fields;
};

/**
 * struct vmx_l1_pages - a vCPU's hold on L1's pages
 * @taken:	the vCPU has taken a context, of the block that @key stands for
 * @key:	see VMX_CONTEXT_EVMCS
 * @context:	the context, NULL if there is none or it is a private one
 * @hw_map:	the hardware's pages that are not kept in @context, for as long as
 *		L2 runs
 * @hw_mapped:	there may be such pages
 * @evmcs_map:	L1's eVMCS if it can't be kept in @context; as long as it is current
 * @evmcs:	of L1's eVMCS, as it was when L2 was entered
 */
struct vmx_l1_pages {
	bool taken;
	gpa_t key;
	struct vmx_nested_context *context;
	struct kvm_host_map hw_map[NR_VMX_HW_PAGES];
	bool hw_mapped;
	struct kvm_host_map evmcs_map;
	struct vmx_evmcs_header evmcs;
};

/**
 * struct vmx_posted_pages - what it takes to process a posted interrupt
 * @pi:		the posted-interrupt descriptor
 * @vapic:	the virtual-APIC page
 * @pi_gpc:	@pi's page, locked; NULL if it is mapped for this run of L2
 * @vapic_gpc:	likewise @vapic's
 */
struct vmx_posted_pages {
	struct pi_desc *pi;
	void *vapic;
	struct gfn_to_pfn_cache *pi_gpc;
	struct gfn_to_pfn_cache *vapic_gpc;
};

void vmx_context_enter(struct vcpu_vmx *vmx);
void vmx_context_leave(struct vcpu_vmx *vmx);
int vmx_context_read_header(struct vcpu_vmx *vmx, gpa_t vmptr,
			    struct vmcs_hdr *hdr);
int vmx_context_read_vmcs12(struct vcpu_vmx *vmx, gpa_t vmptr);
void vmx_context_write_vmcs12(struct vcpu_vmx *vmx);

unsigned long *vmx_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa,
				    struct kvm_nested_map *m);

hpa_t vmx_use_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page, gpa_t gpa);
void vmx_unuse_hw_pages(struct vcpu_vmx *vmx);
void vmx_mark_hw_page_dirty(struct vcpu_vmx *vmx, enum vmx_hw_page page,
			    gpa_t gpa);
bool vmx_peek_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page, gpa_t gpa,
		      unsigned int offset, void *to, unsigned int len);
int vmx_begin_posted(struct vcpu_vmx *vmx, struct vmx_posted_pages *p);
void vmx_end_posted(struct vmx_posted_pages *p);

bool vmx_context_load_evmcs(struct vcpu_vmx *vmx, gpa_t evmptr);
void vmx_context_leave_evmcs(struct vcpu_vmx *vmx);
bool vmx_map_evmcs(struct vcpu_vmx *vmx);
bool vmx_read_evmcs(struct vcpu_vmx *vmx);
u64 vmx_read_evmcs_field(struct vcpu_vmx *vmx, unsigned long field, u16 offset);
void vmx_evmcs_set_clean(struct vcpu_vmx *vmx, bool clean);
struct hv_enlightened_vmcs *vmx_begin_evmcs(struct vcpu_vmx *vmx,
					    struct kvm_nested_map *m);
struct hv_enlightened_vmcs *vmx_trybegin_evmcs(struct vcpu_vmx *vmx,
					       struct kvm_nested_map *m);

struct kvm_nested_context *vmx_alloc_context(struct kvm_vcpu *vcpu);
void vmx_free_context(struct kvm_nested_context *ctx);
void vmx_reset_context(struct kvm_nested_context *ctx);

#endif /* __KVM_X86_VMX_NESTED_CONTEXT_H */
