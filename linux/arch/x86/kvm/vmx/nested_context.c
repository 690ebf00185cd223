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
 * It keeps mapped
 *
 *	the control block	VMCS or eVMCS.  A VMCS is copied in and out as a
 *				whole when it becomes current and when it ceases to
 *				be; an eVMCS at each entry and exit.
 *	the MSR bitmap		merged at each entry
 *	the hardware's pages	APIC-access page, virtual-APIC page and posted-
 *				interrupt descriptor.  Their addresses are in vmcs02
 *				as long as L2 runs.
 *
 * See nested_page.h for how kept pages are accessed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "../nested.h"
#include "../nested_page.h"
#include "hyperv.h"
#include "hyperv_evmcs.h"
#include "nested.h"
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
 * @block:	the page of the VMCS or eVMCS
 * @msr_bitmap:	the page of L1's MSR bitmap
 * @hw:		the pages that vmcs02 refers to
 */
struct vmx_nested_context {
	struct kvm_nested_context base;
	struct gfn_to_pfn_cache block;
	struct gfn_to_pfn_cache msr_bitmap;
	struct gfn_to_pfn_cache hw[NR_VMX_HW_PAGES];
};

static const bool vmx_hw_page_written[NR_VMX_HW_PAGES] = {
	[VMX_VIRTUAL_APIC_PAGE]	= true,
	[VMX_PI_DESC_PAGE]	= true,
};

/* The descriptor's lock is taken within that of the virtual-APIC page. */
static struct lock_class_key vmx_pi_desc_key;

static gpa_t vmx_page_of(gpa_t gpa)
{
	return gfn_to_gpa(gpa_to_gfn(gpa));
}

/*
 * VMLAUNCH and VMRESUME check that addresses are aligned.  RSM into L2 does not,
 * and user space may have set them in SMM.
 */
static unsigned int vmx_hw_page_offset(enum vmx_hw_page page, gpa_t gpa)
{
	if (page != VMX_PI_DESC_PAGE)
		return 0;
	return offset_in_page(ALIGN_DOWN(gpa, sizeof(struct pi_desc)));
}

/* Dirty logging is off most of the time. */
static void vmx_mark_kept_page_dirty(struct gfn_to_pfn_cache *gpc)
{
	if (unlikely(kvm_slot_dirty_track_enabled(gpc->memslot)))
		mark_page_dirty_in_slot(gpc->kvm, gpc->memslot,
					gpa_to_gfn(gpc->gpa));
}

static void vmx_context_taken(struct vcpu_vmx *vmx, gpa_t key,
			      struct kvm_nested_context *ctx)
{
	struct vmx_l1_pages *l1 = &vmx->nested.l1;

	l1->taken = true;
	l1->key = key;
	l1->context = NULL;
	if (!kvm_nested_context_is_private(&vmx->vcpu, ctx))
		l1->context = container_of(ctx, struct vmx_nested_context, base);
}

static void vmx_context_take(struct vcpu_vmx *vmx, gpa_t key)
{
	vmx_context_taken(vmx, key, kvm_nested_context_load(&vmx->vcpu, key));
}

/**
 * vmx_context_enter - L2 is about to be entered
 * @vmx: the vCPU
 *
 * Usually the control block's context has been taken already.  This is for when
 * the nested state was set by user space, or there was none to be had then.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 */
void vmx_context_enter(struct vcpu_vmx *vmx)
{
	gpa_t key = vmx->nested.current_vmptr;

	if (likely(vmx->nested.l1.context) ||
	    !READ_ONCE(vmx->vcpu.kvm->arch.nested_contexts))
		return;

#ifdef CONFIG_KVM_HYPERV
	if (nested_vmx_is_evmptr12_valid(vmx))
		key = vmx_page_of(vmx->nested.hv_evmcs_vmptr) | VMX_CONTEXT_EVMCS;
#endif
	if (key != INVALID_GPA)
		vmx_context_taken(vmx, key,
				  kvm_nested_context_retry(&vmx->vcpu, key));
}

/**
 * vmx_context_leave - the vCPU's VMCS or eVMCS is not current any more
 * @vmx: the vCPU, not in guest mode
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void vmx_context_leave(struct vcpu_vmx *vmx)
{
	struct vmx_l1_pages *l1 = &vmx->nested.l1;

	if (!l1->taken)
		return;

	l1->taken = false;
	l1->context = NULL;
	kvm_nested_context_clear(&vmx->vcpu, l1->key);
}

/**
 * vmx_context_read_header - look at a VMCS that is to become current
 * @vmx: the vCPU that executes VMPTRLD
 * @vmptr: the VMCS's guest-physical address in bytes, page aligned
 * @hdr: filled in
 *
 * Uses the mapping of a context that is there already, whoever owns it; the vCPU
 * still needs the one that it has, to write the VMCS that is current so far.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 * Return: 0, or -EFAULT if it can't be read, or not be written.
 */
int vmx_context_read_header(struct vcpu_vmx *vmx, gpa_t vmptr,
			    struct vmcs_hdr *hdr)
{
	struct kvm *kvm = vmx->vcpu.kvm;
	struct kvm_nested_context *base;
	struct vmx_nested_context *ctx;
	struct vmcs12 *vmcs12;

	base = kvm_nested_context_find(&vmx->vcpu, vmptr);
	if (base) {
		ctx = container_of(base, struct vmx_nested_context, base);
		vmcs12 = kvm_nested_page_trylock(&ctx->block, vmptr);
		if (vmcs12) {
			*hdr = vmcs12->hdr;
			kvm_nested_page_unlock(&ctx->block);
			return 0;
		}
	}

	/* What can be read can't always be written, and a VMCS has to be. */
	if (kvm_is_error_hva(gfn_to_hva(kvm, gpa_to_gfn(vmptr))))
		return -EFAULT;
	return kvm_read_guest_page(kvm, gpa_to_gfn(vmptr), hdr,
				   offsetof(struct vmcs12, hdr), sizeof(*hdr));
}

/**
 * vmx_context_read_vmcs12 - a VMCS becomes current
 * @vmx: the vCPU that executes VMPTRLD, with no VMCS current
 * @vmptr: the VMCS's guest-physical address in bytes, page aligned
 *
 * Takes the context and fills the vCPU's cached vmcs12.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 * Return: 0, or -EFAULT if it can't be read; no context is held then.
 */
int vmx_context_read_vmcs12(struct vcpu_vmx *vmx, gpa_t vmptr)
{
	struct vmx_nested_context *ctx;
	void *vmcs12 = NULL;
	int ret;

	vmx_context_take(vmx, vmptr);
	ctx = vmx->nested.l1.context;
	if (ctx)
		vmcs12 = kvm_nested_page_lock(&ctx->block, vmptr, true);
	if (vmcs12) {
		memcpy(vmx->nested.cached_vmcs12, vmcs12, sizeof(struct vmcs12));
		kvm_nested_page_unlock(&ctx->block);
		return 0;
	}

	ret = kvm_read_guest_page(vmx->vcpu.kvm, gpa_to_gfn(vmptr),
				  vmx->nested.cached_vmcs12, 0,
				  sizeof(struct vmcs12));
	if (ret)
		vmx_context_leave(vmx);
	return ret;
}

/**
 * vmx_context_write_vmcs12 - the current VMCS ceases to be current
 * @vmx: the vCPU, its current_vmptr still set
 *
 * Writes the vCPU's cached vmcs12 to L1's memory and parks the context.  If L1
 * has no memory there, the VMCS is lost.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 */
void vmx_context_write_vmcs12(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;
	gpa_t vmptr = vmx->nested.current_vmptr;
	void *vmcs12 = NULL;

	if (ctx)
		vmcs12 = kvm_nested_page_lock(&ctx->block, vmptr, true);
	if (vmcs12) {
		memcpy(vmcs12, vmx->nested.cached_vmcs12, sizeof(struct vmcs12));
		vmx_mark_kept_page_dirty(&ctx->block);
		kvm_nested_page_unlock(&ctx->block);
	} else {
		kvm_vcpu_write_guest_page(&vmx->vcpu, gpa_to_gfn(vmptr),
					  vmx->nested.cached_vmcs12, 0,
					  sizeof(struct vmcs12));
	}
	vmx_context_leave(vmx);
}

/**
 * vmx_begin_msr_bitmap - read L1's MSR bitmap
 * @vmx: the vCPU that enters L2
 * @gpa: an address in bytes in the bitmap's page
 * @m: filled in, for kvm_nested_page_end()
 *
 * The bitmap's layout: SDM volume 3C, "MSR-Bitmap Address".
 *
 * Context: as kvm_nested_page_begin().
 * Return: the bitmap, or NULL if it can't be read.
 */
unsigned long *vmx_begin_msr_bitmap(struct vcpu_vmx *vmx, gpa_t gpa,
				    struct kvm_nested_map *m)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;

	kvm_nested_page_begin(&vmx->vcpu, ctx ? &ctx->msr_bitmap : NULL,
			      vmx_page_of(gpa), false, m);
	return m->hva;
}

static hpa_t vmx_map_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page,
			     gpa_t gpa)
{
	struct kvm_host_map *map = &vmx->nested.l1.hw_map[page];
	struct vmx_nested_context *ctx = vmx->nested.l1.context;
	bool written = vmx_hw_page_written[page];
	hpa_t hpa;

	/* From before, if L2 runs already. */
	kvm_vcpu_unmap(&vmx->vcpu, map, written);

	if (ctx) {
		hpa = kvm_nested_page_use(&ctx->hw[page], vmx_page_of(gpa),
					  &vmx->vcpu, written);
		if (VALID_PAGE(hpa))
			return hpa;
		kvm_nested_page_unuse(&ctx->hw[page]);
	}

	if (kvm_vcpu_map(&vmx->vcpu, gpa_to_gfn(gpa), map))
		return INVALID_PAGE;
	vmx->nested.l1.hw_mapped = true;
	return pfn_to_hpa(map->pfn);
}

/* When the page has to be looked up. */
static noinline hpa_t vmx_find_hw_page(struct vcpu_vmx *vmx,
				       enum vmx_hw_page page, gpa_t gpa)
{
	const struct kvm_memslots *slots;
	hpa_t hpa;

	do {
		slots = kvm_memslots(vmx->vcpu.kvm);
		hpa = vmx_map_hw_page(vmx, page, gpa);
	} while (!VALID_PAGE(hpa) &&
		 kvm_nested_page_wait_for_slot(&vmx->vcpu, gpa, slots));

	return hpa;
}

/**
 * vmx_use_hw_page - let the hardware use one of L1's pages while L2 runs
 * @vmx: the vCPU that enters L2, or whose request KVM_REQ_REFRESH_GPC is handled
 * @page: which
 * @gpa: the address in bytes that vmcs12 has for it
 *
 * Context: the vCPU's task, kvm->srcu held as the vCPU's, no lock but
 * vcpu->mutex held.  May sleep.
 * Return: the host-physical address for vmcs02, good until vmx_unuse_hw_pages()
 * or the next KVM_REQ_REFRESH_GPC; or INVALID_PAGE if L1 has no memory there.
 */
hpa_t vmx_use_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page, gpa_t gpa)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;
	hpa_t hpa = INVALID_PAGE;

	if (likely(ctx && !vmx->nested.l1.hw_map[page].hva))
		hpa = kvm_nested_page_tryuse(&ctx->hw[page], vmx_page_of(gpa),
					     &vmx->vcpu);
	if (unlikely(!VALID_PAGE(hpa)))
		hpa = vmx_find_hw_page(vmx, page, gpa);

	return VALID_PAGE(hpa) ? hpa + vmx_hw_page_offset(page, gpa) : INVALID_PAGE;
}

/**
 * vmx_unuse_hw_pages - vmcs02 will not be entered with these pages any more
 * @vmx: the vCPU that left L2, or failed to enter it
 *
 * What the hardware wrote has been logged as dirty at each exit from L2, see
 * vmx_mark_hw_page_dirty().
 *
 * Context: the vCPU's task, or nobody runs the vCPU; kvm->srcu held, unless the VM
 * goes.  May sleep if a page was mapped for this run of L2 alone.
 */
void vmx_unuse_hw_pages(struct vcpu_vmx *vmx)
{
	struct vmx_l1_pages *l1 = &vmx->nested.l1;
	int page;

	if (likely(l1->context)) {
		for (page = 0; page < NR_VMX_HW_PAGES; page++)
			kvm_nested_page_unuse(&l1->context->hw[page]);
	}
	if (likely(!l1->hw_mapped))
		return;

	for (page = 0; page < NR_VMX_HW_PAGES; page++)
		kvm_vcpu_unmap(&vmx->vcpu, &l1->hw_map[page],
			       vmx_hw_page_written[page]);
	l1->hw_mapped = false;
}

/**
 * vmx_mark_hw_page_dirty - log as dirty what the hardware may have written to
 * @vmx: the vCPU, in guest mode
 * @page: which
 * @gpa: the address in bytes that vmcs12 has for it
 *
 * The memslot that the kept page was found in is good as long as memslots are the
 * same.  Only the owner of the context changes it, so no lock is needed.
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 */
void vmx_mark_hw_page_dirty(struct vcpu_vmx *vmx, enum vmx_hw_page page,
			    gpa_t gpa)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;
	struct kvm *kvm = vmx->vcpu.kvm;
	struct gfn_to_pfn_cache *gpc;

	if (likely(ctx)) {
		gpc = &ctx->hw[page];
		if (likely(gpc->gpa == vmx_page_of(gpa) && gpc->memslot &&
			   gpc->generation == kvm_memslots(kvm)->generation)) {
			vmx_mark_kept_page_dirty(gpc);
			return;
		}
	}
	kvm_vcpu_mark_page_dirty(&vmx->vcpu, gpa_to_gfn(gpa));
}

/**
 * vmx_peek_hw_page - read from one of the hardware's pages
 * @vmx: the vCPU, in guest mode
 * @page: which
 * @gpa: the address in bytes that vmcs12 has for it
 * @offset: of what is read, from there, all within the page
 * @to: where to put it
 * @len: its length in bytes
 *
 * For a vCPU that is about to sleep: it can't look up a page that the host has
 * taken back, but has to before it sleeps, which kvm_nested_pages_want() is for.
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: true if it was read; false if L2 runs without such a page, or if it is
 * to be looked up first.
 */
bool vmx_peek_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page, gpa_t gpa,
		      unsigned int offset, void *to, unsigned int len)
{
	struct kvm_host_map *map = &vmx->nested.l1.hw_map[page];
	struct vmx_nested_context *ctx = vmx->nested.l1.context;

	offset += vmx_hw_page_offset(page, gpa);
	if (map->hva) {
		memcpy(to, map->hva + offset, len);
		return true;
	}
	if (!ctx || !ctx->hw[page].vcpu)
		return false;

	if (kvm_nested_page_peek(&ctx->hw[page], vmx_page_of(gpa) + offset, to, len))
		return true;

	kvm_nested_pages_want(&vmx->vcpu);
	return false;
}

/*
 * L0's access to a page that may be mapped for this run of L2, or is kept in @gpc
 * and locked then.
 */
static void *vmx_begin_hw_page(struct vcpu_vmx *vmx, enum vmx_hw_page page,
			       gpa_t gpa, bool may_sleep,
			       struct gfn_to_pfn_cache **gpc)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;
	void *hva = vmx->nested.l1.hw_map[page].hva;

	*gpc = NULL;
	if (hva || !ctx)
		return hva;

	*gpc = &ctx->hw[page];
	if (may_sleep)
		return kvm_nested_page_lock(*gpc, vmx_page_of(gpa), true);
	return kvm_nested_page_trylock(*gpc, vmx_page_of(gpa));
}

/* What is mapped for this run is logged as dirty when it is unmapped. */
static void vmx_end_hw_page(struct gfn_to_pfn_cache *gpc, bool dirty)
{
	if (!gpc)
		return;
	if (dirty)
		vmx_mark_kept_page_dirty(gpc);
	kvm_nested_page_unlock(gpc);
}

/**
 * vmx_begin_posted - get at what it takes to process a posted interrupt
 * @vmx: the vCPU, in guest mode
 * @p: filled in, for vmx_end_posted()
 *
 * Two locks may be held then.  A page that has to be mapped first is mapped with
 * neither held, and the vCPU comes back to its pending events.
 *
 * Context: the vCPU's task, kvm->srcu held, no spinlock held.  May sleep; but on
 * success the caller must not sleep until vmx_end_posted().
 * Return: 1; 0 if the vCPU has to come back, which is requested; -ENXIO if L2 runs
 * without posted interrupts, or L1 has no memory for what they take.
 */
int vmx_begin_posted(struct vcpu_vmx *vmx, struct vmx_posted_pages *p)
{
	struct vmcs12 *vmcs12 = get_vmcs12(&vmx->vcpu);
	gpa_t vapic_gpa = vmcs12->virtual_apic_page_addr;
	gpa_t pi_gpa = vmcs12->posted_intr_desc_addr;
	struct kvm_vcpu *vcpu = &vmx->vcpu;
	const struct kvm_memslots *slots;
	void *page;

	/*
	 * Another vCPU may have posted to the L2 that ran before.  Without posted
	 * interrupts the address has not been checked, not even its alignment.
	 */
	if (!nested_cpu_has_posted_intr(vmcs12))
		return -ENXIO;

	slots = kvm_memslots(vcpu->kvm);
	p->vapic = vmx_begin_hw_page(vmx, VMX_VIRTUAL_APIC_PAGE, vapic_gpa, true,
				     &p->vapic_gpc);
	if (likely(p->vapic)) {
		page = vmx_begin_hw_page(vmx, VMX_PI_DESC_PAGE, pi_gpa, false,
					 &p->pi_gpc);
		if (likely(page)) {
			p->pi = page + vmx_hw_page_offset(VMX_PI_DESC_PAGE, pi_gpa);
			return 1;
		}
		vmx_end_hw_page(p->vapic_gpc, false);

		if (vmx_begin_hw_page(vmx, VMX_PI_DESC_PAGE, pi_gpa, true,
				      &p->pi_gpc)) {
			vmx_end_hw_page(p->pi_gpc, false);
			goto again;
		}
	}

	/* As kvm_nested_page_wait_for_slot(), but who handles the request waits. */
	if (kvm_memslots(vcpu->kvm) == slots &&
	    !kvm_nested_page_slot_moves(vcpu, vapic_gpa) &&
	    !kvm_nested_page_slot_moves(vcpu, pi_gpa))
		return -ENXIO;

	kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
again:
	kvm_make_request(KVM_REQ_EVENT, vcpu);
	return 0;
}

/**
 * vmx_end_posted - undo vmx_begin_posted()
 * @p: from vmx_begin_posted(), which returned 1
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 */
void vmx_end_posted(struct vmx_posted_pages *p)
{
	vmx_end_hw_page(p->pi_gpc, true);
	vmx_end_hw_page(p->vapic_gpc, true);
}

#ifdef CONFIG_KVM_HYPERV
/*
 * L1 may write to its eVMCS any time, from another vCPU.  What decides about more
 * than one thing is read here, once per entry; all else is read once when the
 * eVMCS is copied to the vmcs12.
 */
static void vmx_copy_evmcs_header(struct vmx_evmcs_header *to,
				  struct hv_enlightened_vmcs *from)
{
	to->revision_id = READ_ONCE(from->revision_id);
	to->hv_clean_fields = READ_ONCE(from->hv_clean_fields);
	to->hv_enlightenments_control = READ_ONCE(from->hv_enlightenments_control);
}

/* The page of the eVMCS whose context the vCPU has taken. */
static gpa_t vmx_evmcs_gpa(struct vcpu_vmx *vmx)
{
	return vmx_page_of(vmx->nested.l1.key);
}

/* If it is mapped as long as it is current, instead of being kept. */
static struct hv_enlightened_vmcs *vmx_pinned_evmcs(struct vcpu_vmx *vmx,
						    struct kvm_nested_map *m)
{
	m->gpc = NULL;
	m->map.hva = NULL;
	m->hva = vmx->nested.l1.evmcs_map.hva;
	return m->hva;
}

/* NULL if it is neither mapped so, nor can be kept. */
static struct hv_enlightened_vmcs *vmx_lock_evmcs(struct vcpu_vmx *vmx,
						  struct kvm_nested_map *m)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;

	if (vmx_pinned_evmcs(vmx, m) || !ctx)
		return m->hva;

	m->gpc = &ctx->block;
	m->hva = kvm_nested_page_lock(m->gpc, vmx_evmcs_gpa(vmx), true);
	return m->hva;
}

/* Map it as long as it is current; false if L1 has no memory there. */
static bool vmx_pin_evmcs(struct vcpu_vmx *vmx)
{
	struct kvm_host_map *map = &vmx->nested.l1.evmcs_map;
	const struct kvm_memslots *slots;
	struct kvm_vcpu *vcpu = &vmx->vcpu;
	gpa_t gpa = vmx_evmcs_gpa(vmx);

	do {
		slots = kvm_memslots(vcpu->kvm);
		if (!kvm_vcpu_map(vcpu, gpa_to_gfn(gpa), map))
			return true;
	} while (kvm_nested_page_wait_for_slot(vcpu, gpa, slots));

	return false;
}

/**
 * vmx_begin_evmcs - access L1's eVMCS
 * @vmx: the vCPU, with an eVMCS current
 * @m: filled in, for kvm_nested_page_end()
 *
 * Context: the vCPU's task, kvm->srcu held as the vCPU's, no lock but vcpu->mutex
 * held.  May sleep; but on success the caller must not sleep until
 * kvm_nested_page_end(), for a lock may be held.
 * Return: the eVMCS, or NULL if L1 has no memory there any more.
 */
struct hv_enlightened_vmcs *vmx_begin_evmcs(struct vcpu_vmx *vmx,
					    struct kvm_nested_map *m)
{
	if (!vmx_lock_evmcs(vmx, m) && vmx_pin_evmcs(vmx))
		vmx_pinned_evmcs(vmx, m);
	return m->hva;
}

/**
 * vmx_trybegin_evmcs - the same where nothing may sleep
 * @vmx: the vCPU, with an eVMCS current
 * @m: filled in, for kvm_nested_page_end()
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: the eVMCS, or NULL if vmx_map_evmcs() has to be called first.
 */
struct hv_enlightened_vmcs *vmx_trybegin_evmcs(struct vcpu_vmx *vmx,
					       struct kvm_nested_map *m)
{
	struct vmx_nested_context *ctx = vmx->nested.l1.context;

	if (vmx_pinned_evmcs(vmx, m) || !ctx)
		return m->hva;

	m->gpc = &ctx->block;
	m->hva = kvm_nested_page_trylock_atomic(m->gpc, vmx_evmcs_gpa(vmx));
	return m->hva;
}

/**
 * vmx_map_evmcs - map L1's eVMCS, for vmx_trybegin_evmcs()
 * @vmx: the vCPU, with an eVMCS current
 *
 * Context: as vmx_begin_evmcs().
 * Return: whether L1 has memory there.
 */
bool vmx_map_evmcs(struct vcpu_vmx *vmx)
{
	struct kvm_nested_map m;

	if (!vmx_begin_evmcs(vmx, &m))
		return false;

	kvm_nested_page_end(&vmx->vcpu, &m, false);
	return true;
}

/**
 * vmx_read_evmcs - L2 is entered with the eVMCS that is current already
 * @vmx: the vCPU
 *
 * Reads what nested_vmx_evmcs() then gives.
 *
 * Context: as vmx_begin_evmcs().
 * Return: whether L1 still has memory there.
 */
bool vmx_read_evmcs(struct vcpu_vmx *vmx)
{
	struct hv_enlightened_vmcs *evmcs;
	struct kvm_nested_map m;

	evmcs = vmx_begin_evmcs(vmx, &m);
	if (!evmcs)
		return false;

	vmx_copy_evmcs_header(&vmx->nested.l1.evmcs, evmcs);
	kvm_nested_page_end(&vmx->vcpu, &m, false);
	return true;
}

/**
 * vmx_read_evmcs_field - VMREAD of a field of L1's eVMCS
 * @vmx: the vCPU that executes it, with an eVMCS current
 * @field: the field's encoding
 * @offset: its offset in the eVMCS
 *
 * Context: as vmx_begin_evmcs().
 * Return: the field, zero-extended; all 1s, as reads from an unbacked page are, if
 * L1 has no memory there any more.
 */
u64 vmx_read_evmcs_field(struct vcpu_vmx *vmx, unsigned long field, u16 offset)
{
	struct hv_enlightened_vmcs *evmcs;
	struct kvm_nested_map m;
	u64 value;

	evmcs = vmx_begin_evmcs(vmx, &m);
	if (evmcs) {
		value = evmcs_read_any(evmcs, field, offset);
		kvm_nested_page_end(&vmx->vcpu, &m, false);
		return value;
	}

	switch (vmcs_field_width(field)) {
	case VMCS_FIELD_WIDTH_U16:
		return U16_MAX;
	case VMCS_FIELD_WIDTH_U32:
		return U32_MAX;
	default:
		return U64_MAX;
	}
}

/**
 * vmx_context_load_evmcs - an eVMCS becomes current
 * @vmx: the vCPU that enters L2, with no VMCS nor eVMCS current
 * @evmptr: the eVMCS's guest-physical address in bytes; the page is what counts
 *
 * Takes the context and does what vmx_read_evmcs() does.
 *
 * Context: as vmx_begin_evmcs().
 * Return: whether L1 has memory there; if not, no context is held.
 */
bool vmx_context_load_evmcs(struct vcpu_vmx *vmx, gpa_t evmptr)
{
	vmx_context_take(vmx, vmx_page_of(evmptr) | VMX_CONTEXT_EVMCS);

	if (vmx_read_evmcs(vmx))
		return true;
	vmx_context_leave_evmcs(vmx);
	return false;
}

/**
 * vmx_context_leave_evmcs - if an eVMCS is current, it is not any more
 * @vmx: the vCPU, not in guest mode
 *
 * Context: the vCPU's task, or nobody runs the vCPU; kvm->srcu held, unless the VM
 * goes.  May sleep if it was not kept in the context.
 */
void vmx_context_leave_evmcs(struct vcpu_vmx *vmx)
{
	struct vmx_l1_pages *l1 = &vmx->nested.l1;

	kvm_vcpu_unmap(&vmx->vcpu, &l1->evmcs_map, true);
	if (l1->taken && l1->key & VMX_CONTEXT_EVMCS)
		vmx_context_leave(vmx);
}

static u32 vmx_evmcs_clean_fields(u32 fields, bool clean)
{
	if (clean)
		return fields | HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL;
	return fields & ~HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL;
}

/**
 * vmx_evmcs_set_clean - tell L1 and L0 what is to be read of the eVMCS
 * @vmx: the vCPU that enters L2, after vmx_read_evmcs()
 * @clean: nothing has changed since L0 read it; else everything has
 *
 * Context: as vmx_begin_evmcs().
 */
void vmx_evmcs_set_clean(struct vcpu_vmx *vmx, bool clean)
{
	struct vmx_evmcs_header *header = &vmx->nested.l1.evmcs;
	struct hv_enlightened_vmcs *evmcs;
	struct kvm_nested_map m;

	header->hv_clean_fields = vmx_evmcs_clean_fields(header->hv_clean_fields, clean);

	evmcs = vmx_begin_evmcs(vmx, &m);
	if (!evmcs)
		return;

	evmcs->hv_clean_fields = vmx_evmcs_clean_fields(evmcs->hv_clean_fields, clean);
	kvm_nested_page_end(&vmx->vcpu, &m, true);
}
#endif /* CONFIG_KVM_HYPERV */

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
	int page;

	ctx = kzalloc(sizeof(*ctx), KVM_NESTED_CONTEXT_GFP);
	if (!ctx)
		return NULL;

	kvm_nested_page_init(&ctx->block, vcpu->kvm);
	kvm_nested_page_init(&ctx->msr_bitmap, vcpu->kvm);
	for (page = 0; page < NR_VMX_HW_PAGES; page++)
		kvm_nested_page_init(&ctx->hw[page], vcpu->kvm);
	lockdep_set_class(&ctx->hw[VMX_PI_DESC_PAGE].lock, &vmx_pi_desc_key);

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
	int page;

	kvm_nested_page_drop(&ctx->block);
	kvm_nested_page_drop(&ctx->msr_bitmap);
	for (page = 0; page < NR_VMX_HW_PAGES; page++)
		kvm_nested_page_drop(&ctx->hw[page]);
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
