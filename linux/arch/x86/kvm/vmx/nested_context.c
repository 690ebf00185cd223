// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested contexts on VMX.
 *
 * A context belongs to a VMCS of L1, or to an enlightened one (eVMCS).  VMPTRLD
 * takes it.  It is parked when the vCPU loads another VMCS, which is how a
 * hypervisor that multiplexes L2s on one CPU leaves them, by VMCLEAR of this one,
 * which is how it moves an L2 to another CPU, or when the vCPU leaves VMX operation.
 * The context of an eVMCS is taken when L2 is entered, see nested_evmcs.c.
 *
 * It keeps mapped
 *
 *	the control block	VMCS or eVMCS.  A VMCS is copied in and out as a
 *				whole when it becomes current and when it ceases to
 *				be; an eVMCS at each entry and exit.
 *	the MSR bitmap		merged at each entry
 *	hardware's pages	APIC-access page, virtual-APIC page and posted-
 *				interrupt descriptor.  Their addresses are in vmcs02
 *				as long as L2 runs.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "hyperv.h"
#include "nested.h"
#include "nested_context.h"
#include "vmx.h"

static const unsigned long vmx_hw_page_field[NR_VMX_HW_PAGES] = {
	[VMX_APIC_ACCESS_PAGE]	= APIC_ACCESS_ADDR,
	[VMX_VIRTUAL_APIC_PAGE]	= VIRTUAL_APIC_PAGE_ADDR,
	[VMX_PI_DESC_PAGE]	= POSTED_INTR_DESC_ADDR,
};

/* The descriptor's lock is taken within that of the virtual-APIC page. */
static struct lock_class_key vmx_pi_desc_key;

static gpa_t vmx_hw_page_gpa(struct vcpu_vmx *vmx, enum vmx_hw_page nr)
{
	struct vmcs12 *vmcs12 = get_vmcs12(&vmx->vcpu);

	switch (nr) {
	case VMX_APIC_ACCESS_PAGE:
		return vmcs12->apic_access_addr;
	case VMX_VIRTUAL_APIC_PAGE:
		return vmcs12->virtual_apic_page_addr;
	default:
		return vmcs12->posted_intr_desc_addr;
	}
}

/*
 * VMLAUNCH and VMRESUME check that addresses are aligned.  RSM into L2 does not,
 * and user space may have set them in SMM.
 */
static unsigned int vmx_hw_page_offset(enum vmx_hw_page nr, gpa_t gpa)
{
	if (nr != VMX_PI_DESC_PAGE)
		return 0;
	return offset_in_page(ALIGN_DOWN(gpa, sizeof(struct pi_desc)));
}

/*
 * L2 is about to be entered.  Usually its context has been taken already.  Take it
 * now if user space has set the nested state, or try for a better one than the
 * fallback.  That of an eVMCS has been taken in any case.
 */
void nested_vmx_context_load(struct vcpu_vmx *vmx)
{
	struct kvm_nested_context *ctx = kvm_nested_context_current(&vmx->vcpu);

	if (likely(ctx && !kvm_nested_context_is_private(&vmx->vcpu, ctx)))
		return;

	if (!nested_vmx_is_evmptr12_valid(vmx))
		kvm_nested_context_retry(&vmx->vcpu, vmx->nested.current_vmptr);
}

/*
 * Whether L2's entry has to be executed again, for the memory of L1's MSR bitmap is
 * there no more and not yet again.  For pages that hardware uses, the vCPU waits.
 */
bool nested_vmx_retry_entry(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	struct vmcs12 *vmcs12 = get_vmcs12(&vmx->vcpu);

	if (likely(ctx && kvm_nested_page_is_current(&ctx->msr_bitmap)))
		return false;

	return nested_cpu_has(vmcs12, CPU_BASED_USE_MSR_BITMAPS) &&
	       kvm_nested_page_retry(&vmx->vcpu, vmcs12->msr_bitmap);
}

/* The vCPU's VMCS or eVMCS is not current any more. */
void nested_vmx_context_clear(struct vcpu_vmx *vmx)
{
	struct kvm_nested_context *ctx = kvm_nested_context_current(&vmx->vcpu);

	if (ctx)
		kvm_nested_context_clear(&vmx->vcpu, ctx->gpa);
}

/* Look at a VMCS before it becomes current and the one that is ceases to be. */
int nested_vmx_read_header(struct vcpu_vmx *vmx, gpa_t vmptr, struct vmcs_hdr *hdr)
{
	struct kvm *kvm = vmx->vcpu.kvm;
	struct kvm_nested_context *base;
	struct kvm_nested_page *block;
	struct vmcs12 *vmcs12;

	/* Whoever owns the context: the vCPU still needs the one that it has. */
	base = kvm_nested_context_find(&vmx->vcpu, vmptr);
	if (base) {
		block = &container_of(base, struct vmx_nested_context, base)->block;
		vmcs12 = kvm_nested_page_trybegin(block, vmptr);
		if (vmcs12) {
			*hdr = vmcs12->hdr;
			kvm_nested_page_tryend(&vmx->vcpu, block, false);
			return 0;
		}
	}

	/* What can be read can't always be written, and a VMCS has to be. */
	if (kvm_is_error_hva(gfn_to_hva(kvm, gpa_to_gfn(vmptr))))
		return -EFAULT;

	return kvm_read_guest_page(kvm, gpa_to_gfn(vmptr), hdr,
				   offsetof(struct vmcs12, hdr), sizeof(*hdr));
}

/* Copy a VMCS that becomes current to the vCPU's cached vmcs12. */
int nested_vmx_read_vmcs12(struct vcpu_vmx *vmx, gpa_t vmptr)
{
	struct vmx_nested_context *ctx;
	int r;

	ctx = container_of(kvm_nested_context_load(&vmx->vcpu, vmptr),
			   struct vmx_nested_context, base);

	r = kvm_nested_page_read(&vmx->vcpu, &ctx->block, vmptr,
				 vmx->nested.cached_vmcs12, sizeof(struct vmcs12));
	if (r)
		nested_vmx_context_clear(vmx);
	return r;
}

/* The current VMCS ceases to be current.  It is lost if L1 has no memory there. */
void nested_vmx_write_vmcs12(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	gpa_t vmptr = vmx->nested.current_vmptr;

	/* After KVM_SET_NESTED_STATE there is none until L2 is entered. */
	if (!ctx) {
		kvm_vcpu_write_guest_page(&vmx->vcpu, gpa_to_gfn(vmptr),
					  vmx->nested.cached_vmcs12, 0,
					  sizeof(struct vmcs12));
		return;
	}

	kvm_nested_page_write(&vmx->vcpu, &ctx->block, vmptr,
			      vmx->nested.cached_vmcs12, sizeof(struct vmcs12));
	kvm_nested_context_clear(&vmx->vcpu, vmptr);
}

/* Returns NULL if L1's MSR bitmap can't be read. */
unsigned long *nested_vmx_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	void *bitmap;

	bitmap = kvm_nested_page_begin(&vmx->vcpu, &ctx->msr_bitmap, nested_vmx_page(gpa));
	return IS_ERR(bitmap) ? NULL : bitmap;
}

void nested_vmx_end_msr_bitmap(struct vcpu_vmx *vmx)
{
	kvm_nested_page_end(&vmx->vcpu, &vmx_nested_context(&vmx->vcpu)->msr_bitmap,
			    false);
}

/*
 * Let hardware use one of L1's pages while L2 runs, and write its address to vmcs02.
 * See kvm_nested_page_use() for the errors.
 */
int nested_vmx_use_page(struct vcpu_vmx *vmx, enum vmx_hw_page nr)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	gpa_t gpa = vmx_hw_page_gpa(vmx, nr);
	hpa_t hpa;
	int r;

	r = kvm_nested_page_use(&vmx->vcpu, &ctx->hw[nr], nested_vmx_page(gpa), &hpa);
	if (likely(!r))
		vmcs_write64(vmx_hw_page_field[nr], hpa + vmx_hw_page_offset(nr, gpa));
	return r;
}

/*
 * L2 was left, or not entered.  What hardware wrote has been logged as dirty at each
 * exit from L2.
 */
void nested_vmx_unuse_pages(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	int nr;

	if (!ctx)
		return;

	for (nr = 0; nr < NR_VMX_HW_PAGES; nr++)
		kvm_nested_page_unuse(&ctx->hw[nr]);
}

/* Look up again what L2 runs with; what it runs without stays missing. */
int nested_vmx_refresh_pages(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	int nr, r;

	for (nr = 0; ctx && nr < NR_VMX_HW_PAGES; nr++) {
		if (!kvm_nested_page_in_use(&ctx->hw[nr]))
			continue;
		r = nested_vmx_use_page(vmx, nr);
		if (r)
			return r;
	}
	return 0;
}

/* Log as dirty what hardware may have written to while L2 ran. */
void nested_vmx_mark_page_dirty(struct vcpu_vmx *vmx, enum vmx_hw_page nr)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	if (likely(ctx && kvm_nested_page_in_use(&ctx->hw[nr])))
		kvm_nested_page_mark_dirty(&vmx->vcpu, &ctx->hw[nr]);
}

static void *vmx_trybegin_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page nr)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	gpa_t gpa = vmx_hw_page_gpa(vmx, nr);
	void *page;

	page = kvm_nested_page_trybegin(&ctx->hw[nr], nested_vmx_page(gpa));
	return page ? page + vmx_hw_page_offset(nr, gpa) : NULL;
}

static void vmx_tryend_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page nr, bool dirty)
{
	kvm_nested_page_tryend(&vmx->vcpu, &vmx_nested_context(&vmx->vcpu)->hw[nr],
			       dirty);
}

/*
 * The virtual-APIC page of a vCPU in guest mode, until
 * nested_vmx_release_virtual_apic(); the caller must not sleep.  NULL if L2 runs
 * without, or if the page has to be looked up first.
 */
void *nested_vmx_hold_virtual_apic(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	if (!ctx || !kvm_nested_page_in_use(&ctx->hw[VMX_VIRTUAL_APIC_PAGE]))
		return NULL;

	return vmx_trybegin_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE);
}

void nested_vmx_release_virtual_apic(struct vcpu_vmx *vmx)
{
	vmx_tryend_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE, false);
}

/*
 * Hardware reads the virtual-APIC page when it checks whether an entry would fail,
 * outside of guest mode, where no event waits for the vCPU.  Keep the page from being
 * taken meanwhile.  Returns false if it is gone already.
 */
bool nested_vmx_begin_early_check(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	return !kvm_nested_page_in_use(&ctx->hw[VMX_VIRTUAL_APIC_PAGE]) ||
	       vmx_trybegin_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE);
}

void nested_vmx_end_early_check(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	if (kvm_nested_page_in_use(&ctx->hw[VMX_VIRTUAL_APIC_PAGE]))
		vmx_tryend_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE, true);
}

/* Whether L2 runs with posted interrupts, and does not only have them in its vmcs12. */
bool nested_vmx_has_posted_pages(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	return ctx && kvm_nested_page_in_use(&ctx->hw[VMX_PI_DESC_PAGE]) &&
	       kvm_nested_page_in_use(&ctx->hw[VMX_VIRTUAL_APIC_PAGE]);
}

/*
 * Get at what it takes to process a posted interrupt, until nested_vmx_end_posted();
 * the caller must not sleep.  Returns -EAGAIN if the pages have to be looked up
 * first, which is requested; -ENXIO if L2 runs without posted interrupts.
 */
int nested_vmx_begin_posted(struct vcpu_vmx *vmx, struct nested_vmx_posted *p)
{
	if (kvm_test_request(KVM_REQ_GET_NESTED_STATE_PAGES, &vmx->vcpu))
		return -EAGAIN;

	if (!nested_vmx_has_posted_pages(vmx))
		return -ENXIO;

	p->vapic = vmx_trybegin_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE);
	if (unlikely(!p->vapic))
		goto refresh;

	p->pi = vmx_trybegin_hw_page(vmx, VMX_PI_DESC_PAGE);
	if (likely(p->pi))
		return 0;

	vmx_tryend_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE, false);
refresh:
	kvm_make_request(KVM_REQ_REFRESH_GPC, &vmx->vcpu);
	return -EAGAIN;
}

void nested_vmx_end_posted(struct vcpu_vmx *vmx)
{
	vmx_tryend_hw_page(vmx, VMX_PI_DESC_PAGE, true);
	vmx_tryend_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE, true);
}

struct kvm_nested_context *vmx_alloc_context(struct kvm_vcpu *vcpu, bool kept)
{
	struct vmx_nested_context *ctx;
	int nr;

	ctx = kzalloc(sizeof(*ctx), kvm_nested_context_gfp(kept));
	if (!ctx)
		return NULL;

	kvm_nested_page_init(&ctx->block, vcpu->kvm, kept, true);
	kvm_nested_page_init(&ctx->msr_bitmap, vcpu->kvm, kept, false);
	for (nr = 0; nr < NR_VMX_HW_PAGES; nr++)
		kvm_nested_page_init(&ctx->hw[nr], vcpu->kvm, kept, true);
	lockdep_set_class(&ctx->hw[VMX_PI_DESC_PAGE].gpc.lock, &vmx_pi_desc_key);

	return &ctx->base;
}

void vmx_reset_context(struct kvm_nested_context *base)
{
	struct vmx_nested_context *ctx =
		container_of(base, struct vmx_nested_context, base);
	int nr;

	kvm_nested_page_drop(&ctx->block);
	kvm_nested_page_drop(&ctx->msr_bitmap);
	for (nr = 0; nr < NR_VMX_HW_PAGES; nr++)
		kvm_nested_page_drop(&ctx->hw[nr]);
}

void vmx_free_context(struct kvm_nested_context *base)
{
	vmx_reset_context(base);
	kfree(container_of(base, struct vmx_nested_context, base));
}
