// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested contexts on VMX.
 *
 * A context belongs to a VMCS of L1, or to an enlightened one (eVMCS).  VMPTRLD
 * takes it.  It is parked when the vCPU loads another VMCS, which is how a
 * hypervisor that multiplexes L2s on one CPU lets go of them, by VMCLEAR of this
 * one, which is how it moves an L2 to another CPU, or when the vCPU leaves VMX
 * operation.  An eVMCS's is taken when L2 is entered with it.
 *
 * It keeps mapped what only L0 reads: L1's MSR bitmap.  A kept page is accessed
 * under a lock, and nothing may sleep meanwhile; see nested_page.h.  Where there
 * is no mapping to be had, because the context is private or L1's page can't be
 * cached, the page is mapped for the one access, as KVM does without contexts; if
 * that fails too, its error decides what L1 sees.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "../nested.h"
#include "../nested_page.h"
#include "hyperv.h"
#include "nested_context.h"
#include "vmx.h"

/*
 * A VMCS and an eVMCS at one address have nothing in common.  Neither has bits
 * set below the page size; VMPTRLD fails otherwise (SDM volume 3C, VMPTRLD).
 */
#define VMX_CONTEXT_EVMCS	BIT(0)

/**
 * struct vmx_nested_context - what is kept of an L2 on VMX
 * @base:	for the table
 * @msr_bitmap:	the page of L1's MSR bitmap
 */
struct vmx_nested_context {
	struct kvm_nested_context base;
	struct gfn_to_pfn_cache msr_bitmap;
};

/* The key of the block that L2 is run with, or INVALID_GPA. */
static gpa_t vmx_context_key(struct vcpu_vmx *vmx)
{
	if (nested_vmx_is_evmptr12_valid(vmx))
		return vmx->nested.hv_evmcs_vmptr | VMX_CONTEXT_EVMCS;

	return vmx->nested.current_vmptr;
}

/* The context that the vCPU uses; NULL if it is a private one. */
static struct vmx_nested_context *vmx_context(struct vcpu_vmx *vmx)
{
	struct kvm_vcpu *vcpu = &vmx->vcpu;
	gpa_t key = vmx_context_key(vmx);
	struct kvm_nested_context *ctx;

	if (key == INVALID_GPA)
		return NULL;

	ctx = kvm_nested_context_load(vcpu, key);
	if (kvm_nested_context_is_private(vcpu, ctx))
		return NULL;

	return container_of(ctx, struct vmx_nested_context, base);
}

/**
 * vmx_contexts_init - prepare a VM in which L1 enters VMX operation
 * @vcpu: the vCPU that executes VMXON
 *
 * If memory is short, the VM does without contexts.
 *
 * Context: the vCPU's task.  May sleep.
 */
void vmx_contexts_init(struct kvm_vcpu *vcpu)
{
	kvm_nested_context_table_init(vcpu->kvm);
}

/**
 * vmx_context_load - a VMCS becomes current
 * @vcpu: the vCPU that executes VMPTRLD, or whose nested state is set
 * @vmptr: the VMCS's guest-physical address in bytes, page aligned
 *
 * Parks the context that @vcpu had.
 *
 * Context: the vCPU's task.  May sleep.
 */
void vmx_context_load(struct kvm_vcpu *vcpu, gpa_t vmptr)
{
	kvm_nested_context_load(vcpu, vmptr);
}

/**
 * vmx_context_leave - the current VMCS will not be any more
 * @vmx: the vCPU, its current_vmptr still set, or INVALID_GPA
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void vmx_context_leave(struct vcpu_vmx *vmx)
{
	kvm_nested_context_clear(&vmx->vcpu, vmx->nested.current_vmptr);
}

/**
 * vmx_context_leave_evmcs - the same for an enlightened VMCS
 * @vmx: the vCPU, its hv_evmcs_vmptr still set
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void vmx_context_leave_evmcs(struct vcpu_vmx *vmx)
{
	if (nested_vmx_is_evmptr12_valid(vmx))
		kvm_nested_context_clear(&vmx->vcpu, vmx_context_key(vmx));
}

/**
 * vmx_context_begin_msr_bitmap - read L1's MSR bitmap
 * @vmx: the vCPU that enters L2
 * @gpa: the bitmap's guest-physical address in bytes, page aligned
 * @page: filled in, for vmx_context_end_msr_bitmap()
 *
 * The bitmap's layout: SDM volume 3C, "MSR-Bitmap Address".
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep; but on success the
 * caller must not sleep until vmx_context_end_msr_bitmap(), for a lock is held.
 * Return: the bitmap, or NULL if it can't be read.
 */
unsigned long *vmx_context_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa,
					    struct vmx_l1_page *page)
{
	struct vmx_nested_context *ctx = vmx_context(vmx);
	void *bitmap;

	page->gpc = NULL;

	if (ctx) {
		bitmap = kvm_nested_page_lock(&ctx->msr_bitmap,
					      gfn_to_gpa(gpa_to_gfn(gpa)), false);
		if (bitmap) {
			page->gpc = &ctx->msr_bitmap;
			return bitmap;
		}
	}

	if (kvm_vcpu_map(&vmx->vcpu, gpa_to_gfn(gpa), &page->map))
		return NULL;
	return page->map.hva;
}

/**
 * vmx_context_end_msr_bitmap - L1's MSR bitmap has been read
 * @vmx: the vCPU that enters L2
 * @page: from vmx_context_begin_msr_bitmap(), which succeeded
 *
 * Context: the vCPU's task.  May sleep if the page was mapped for this access
 * alone.
 */
void vmx_context_end_msr_bitmap(struct vcpu_vmx *vmx, struct vmx_l1_page *page)
{
	if (page->gpc)
		kvm_nested_page_unlock(page->gpc);
	else
		kvm_vcpu_unmap(&vmx->vcpu, &page->map, false);
}

/**
 * vmx_alloc_context - make a context that keeps nothing yet
 * @vcpu: a vCPU of the VM that it is for
 *
 * Context: the vCPU's task.  May sleep.
 * Return: the context, or NULL without memory.
 */
struct kvm_nested_context *vmx_alloc_context(struct kvm_vcpu *vcpu)
{
	struct vmx_nested_context *ctx;

	ctx = kzalloc(sizeof(*ctx), KVM_NESTED_CONTEXT_GFP);
	if (!ctx)
		return NULL;

	kvm_nested_page_init(&ctx->msr_bitmap, vcpu->kvm);
	return &ctx->base;
}

/**
 * vmx_reset_context - forget what a context keeps
 * @base: the context, owned by the caller
 *
 * Context: the vCPU's task.  May sleep.
 */
void vmx_reset_context(struct kvm_nested_context *base)
{
	struct vmx_nested_context *ctx =
		container_of(base, struct vmx_nested_context, base);

	kvm_nested_page_drop(&ctx->msr_bitmap);
}

/**
 * vmx_free_context - free a context that nobody can find any more
 * @base: the context
 *
 * Context: any task.  May sleep.
 */
void vmx_free_context(struct kvm_nested_context *base)
{
	vmx_reset_context(base);
	kfree(container_of(base, struct vmx_nested_context, base));
}
