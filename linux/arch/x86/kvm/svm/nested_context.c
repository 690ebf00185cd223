// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested contexts on SVM.
 *
 * A context belongs to a vmcb12.  VMRUN takes it and #VMEXIT parks it, so that
 * another vCPU may run the same L2 right after.  It keeps mapped what L0 reads
 * and writes at each of them: the vmcb12 itself and L1's MSR permission map.
 *
 * A kept page is accessed under a lock, and nothing may sleep meanwhile; see
 * nested_page.h.  That shapes the users:
 *
 *	VMRUN		copies what it needs and works on the copy.  Entering L2
 *			takes other locks and may sleep, and L1 can't change what
 *			has been checked already.
 *	#VMEXIT		writes L2's state to the page, all at once
 *	VMLOAD, VMSAVE	copy between the page and vmcb01
 *	MSR bitmap	is merged from L1's pages word by word
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/slab.h>

#include "hyperv.h"
#include "nested.h"
#include "nested_page.h"
#include "svm.h"
#include "nested_context.h"

#define MSRPM_PAGES		((MSRPM_SIZE) >> PAGE_SHIFT)
#define MSRPM_WORDS_PER_PAGE	(PAGE_SIZE / sizeof(u32))

/* Behind this no field of the control area is read by VMRUN. */
#define VMRUN_CONTROL_END	offsetofend(struct vmcb_control_area, next_rip)

/**
 * struct svm_nested_context - what is kept of an L2 on SVM
 * @base:	for the table
 * @vmcb12:	the page of the control block
 * @msrpm:	the pages of L1's MSR permission map
 *
 * The caches have their own locks, so they may be looked at without owning the
 * context; only the owner renews them.
 */
struct svm_nested_context {
	struct kvm_nested_context base;
	struct gfn_to_pfn_cache vmcb12;
	struct gfn_to_pfn_cache msrpm[MSRPM_PAGES];
};

/* VMRUN ignores the low bits, so they do not make another block. */
static gpa_t svm_context_key(gpa_t vmcb12_gpa)
{
	return gfn_to_gpa(gpa_to_gfn(vmcb12_gpa));
}

/* Take the context of a vmcb12; NULL if it is a private one. */
static struct svm_nested_context *svm_context_load(struct kvm_vcpu *vcpu,
						   gpa_t vmcb12_gpa)
{
	struct kvm_nested_context *ctx;

	ctx = kvm_nested_context_load(vcpu, svm_context_key(vmcb12_gpa));
	if (kvm_nested_context_is_private(vcpu, ctx))
		return NULL;

	return container_of(ctx, struct svm_nested_context, base);
}

static void svm_context_clear(struct kvm_vcpu *vcpu, gpa_t vmcb12_gpa)
{
	kvm_nested_context_clear(vcpu, svm_context_key(vmcb12_gpa));
}

/* Copy what VMRUN reads.  The copy's other fields are left from earlier ones. */
static void svm_copy_vmcb12(struct kvm_vcpu *vcpu, struct vmcb *to,
			    struct vmcb *from)
{
	memcpy(&to->control, &from->control, VMRUN_CONTROL_END);
	svm_copy_vmrun_state(&to->save, &from->save);
	to->save.cpl = from->save.cpl;
	to->save.cr2 = from->save.cr2;
	to->save.dr6 = from->save.dr6;
	to->save.dr7 = from->save.dr7;
#ifdef CONFIG_KVM_HYPERV
	if (kvm_hv_hypercall_enabled(vcpu))
		to->control.hv_enlightenments = from->control.hv_enlightenments;
#endif
}

/**
 * svm_vmcb12_begin_vmrun - get a vmcb12 for VMRUN
 * @vcpu: the vCPU that executes VMRUN
 * @gpa: its operand in bytes; bits 11:0 are ignored
 * @m: filled in; @m->vmcb12 stays valid until svm_vmcb12_end_vmrun()
 *
 * Takes the context of the block, which stays @vcpu's until it leaves L2.
 * @m->vmcb12 may be written, but only svm_vmcb12_fail_vmrun() brings that to L1.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 * Return: 0, or what kvm_vcpu_map() said of this address; no context is held
 * then.  See APM volume 2, 15.5.1 for VMRUN's operand.
 */
int svm_vmcb12_begin_vmrun(struct kvm_vcpu *vcpu, gpa_t gpa,
			   struct svm_vmcb12_map *m)
{
	struct vmcb *copy = to_svm(vcpu)->nested.vmcb12_copy;
	struct svm_nested_context *ctx;
	struct vmcb *page;
	int ret;

	m->gpa = gpa;
	m->copied = false;

	ctx = svm_context_load(vcpu, gpa);
	if (ctx && copy) {
		page = kvm_nested_page_lock(&ctx->vmcb12, svm_context_key(gpa),
					    true);
		if (page) {
			svm_copy_vmcb12(vcpu, copy, page);
			kvm_nested_page_unlock(&ctx->vmcb12);
			m->vmcb12 = copy;
			m->copied = true;
			return 0;
		}
	}

	ret = kvm_nested_page_begin_once(vcpu, svm_context_key(gpa), &m->page);
	m->vmcb12 = m->page.hva;
	if (ret)
		svm_context_clear(vcpu, gpa);
	return ret;
}

/**
 * svm_vmcb12_fail_vmrun - report to L1 that VMRUN did not enter L2
 * @vcpu: the vCPU that executes VMRUN
 * @m: from svm_vmcb12_begin_vmrun(); the exit code and information in
 *	@m->vmcb12 are what L1 shall see
 *
 * Lets go of the context.  If the block's memory slot is gone by now, there is
 * nobody to report to.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 */
void svm_vmcb12_fail_vmrun(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m)
{
	struct vmcb_control_area *from = &m->vmcb12->control;
	struct vmcb_control_area *to;
	struct svm_vmcb12_map w;

	if (m->copied && !svm_vmcb12_begin_vmexit(vcpu, m->gpa, &w)) {
		to = &w.vmcb12->control;
		to->exit_code = from->exit_code;
		to->exit_code_hi = from->exit_code_hi;
		to->exit_info_1 = from->exit_info_1;
		to->exit_info_2 = from->exit_info_2;
		to->event_inj = from->event_inj;
		to->event_inj_err = from->event_inj_err;
		svm_vmcb12_end_vmexit(vcpu, &w);
	}
	svm_context_clear(vcpu, m->gpa);
}

/**
 * svm_vmcb12_end_vmrun - give back what svm_vmcb12_begin_vmrun() got
 * @vcpu: the vCPU that executes VMRUN
 * @m: from svm_vmcb12_begin_vmrun()
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 */
void svm_vmcb12_end_vmrun(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m)
{
	if (!m->copied)
		kvm_nested_page_end(vcpu, &m->page, true);
	m->vmcb12 = NULL;
}

/**
 * svm_vmcb12_begin_vmexit - get a vmcb12 to write L2's state to
 * @vcpu: the vCPU that leaves L2
 * @gpa: the block that L2 was entered with
 * @m: filled in; @m->vmcb12 is L1's page until svm_vmcb12_end_vmexit()
 *
 * Takes the context, if @vcpu does not have it yet (after KVM_SET_NESTED_STATE
 * or SMM).  What is to be written: APM volume 2, 15.6.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep; but on success the
 * caller must not sleep until svm_vmcb12_end_vmexit(), for a lock is held.
 * Return: 0, or what kvm_vcpu_map() said of this address.
 */
int svm_vmcb12_begin_vmexit(struct kvm_vcpu *vcpu, gpa_t gpa,
			    struct svm_vmcb12_map *m)
{
	struct svm_nested_context *ctx = svm_context_load(vcpu, gpa);
	int ret;

	m->gpa = gpa;
	m->copied = false;
	ret = kvm_nested_page_begin(vcpu, ctx ? &ctx->vmcb12 : NULL,
				    svm_context_key(gpa), true, &m->page);
	m->vmcb12 = m->page.hva;
	return ret;
}

/**
 * svm_vmcb12_end_vmexit - L2's state is in its vmcb12
 * @vcpu: the vCPU that leaves L2
 * @m: from svm_vmcb12_begin_vmexit()
 *
 * Logs the page as dirty and parks the context.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep if the page was mapped
 * for this access alone.
 */
void svm_vmcb12_end_vmexit(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m)
{
	kvm_nested_page_end(vcpu, &m->page, true);
	m->vmcb12 = NULL;
	svm_context_clear(vcpu, m->gpa);
}

/**
 * svm_vmcb12_vmload_vmsave - do L1's VMLOAD or VMSAVE by a kept mapping
 * @vcpu: the vCPU that executes it
 * @gpa: its operand in bytes; bits 11:0 are ignored
 * @vmload: VMLOAD, else VMSAVE
 *
 * Uses the mapping of a context that is there already, whoever owns it; these
 * instructions may be used on blocks that are never run, and make no context.
 * The caller has yet to skip the instruction, which nothing done here affects.
 * See APM volume 2, 15.5.2.
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: true if it is done, false if the caller has to map the page.
 */
bool svm_vmcb12_vmload_vmsave(struct kvm_vcpu *vcpu, gpa_t gpa, bool vmload)
{
	gpa_t key = svm_context_key(gpa);
	struct vcpu_svm *svm = to_svm(vcpu);
	struct kvm_nested_context *base;
	struct svm_nested_context *ctx;
	struct vmcb *vmcb12;

	base = kvm_nested_context_find(vcpu, key);
	if (!base)
		return false;

	ctx = container_of(base, struct svm_nested_context, base);
	vmcb12 = kvm_nested_page_trylock(&ctx->vmcb12, key);
	if (!vmcb12)
		return false;

	if (vmload) {
		svm_copy_vmloadsave_state(svm->vmcb01.ptr, vmcb12);
	} else {
		svm_copy_vmloadsave_state(vmcb12, svm->vmcb01.ptr);
		kvm_gpc_mark_dirty_in_slot(&ctx->vmcb12);
	}
	kvm_nested_page_unlock(&ctx->vmcb12);
	return true;
}

/*
 * The words of the MSR permission map that are merged, those of the first page
 * first, and where those of each page end.
 */
static u16 merge_words[MSRPM_OFFSETS] __ro_after_init;
static unsigned int merge_end[MSRPM_PAGES] __ro_after_init;

/**
 * svm_contexts_setup - prepare for merging MSR permission maps
 *
 * L2's accesses to x2APIC registers are always intercepted, so their words are
 * never merged.
 *
 * Context: the module is being loaded, msrpm_offsets is complete.
 */
void __init svm_contexts_setup(void)
{
	unsigned int page, i, nr = 0;

	for (page = 0; page < MSRPM_PAGES; page++) {
		for (i = 0; i < MSRPM_OFFSETS; i++) {
			if (msrpm_offsets[i] == MSR_INVALID)
				break;
			if (msrpm_offsets[i] / MSRPM_WORDS_PER_PAGE == page &&
			    !is_x2apic_msrpm_offset(msrpm_offsets[i]))
				merge_words[nr++] = msrpm_offsets[i];
		}
		merge_end[page] = nr;
	}
}

/**
 * svm_context_merge_msrpm - merge L0's and L1's MSR permission maps for L2
 * @svm: the vCPU, in guest mode
 *
 * The map's layout: APM volume 2, 15.11.
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep.
 * Return: true if svm->nested.msrpm is up to date, false if the caller has to
 * read L1's map itself, and see whether it can be read.
 */
bool svm_context_merge_msrpm(struct vcpu_svm *svm)
{
	u32 *merged = svm->nested.msrpm, *l0 = svm->msrpm, *l1;
	struct svm_nested_context *ctx;
	struct gfn_to_pfn_cache *gpc;
	unsigned int page, p, i = 0;
	gpa_t gpa;

	ctx = svm_context_load(&svm->vcpu, svm->nested.vmcb12_gpa);
	if (!ctx)
		return false;

	for (page = 0; page < MSRPM_PAGES; page++) {
		gpc = &ctx->msrpm[page];
		gpa = svm->nested.ctl.msrpm_base_pa + page * PAGE_SIZE;
		l1 = kvm_nested_page_lock(gpc, gpa, false);
		if (!l1)
			return false;

		/* L1 may write to its map now, as on hardware. */
		for (; i < merge_end[page]; i++) {
			p = merge_words[i];
			merged[p] = l0[p] |
				    READ_ONCE(l1[p % MSRPM_WORDS_PER_PAGE]);
		}
		kvm_nested_page_unlock(gpc);
	}
	return true;
}

/**
 * svm_context_leave - L2 is left without a #VMEXIT that L1 sees
 * @vcpu: the vCPU, still in guest mode
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void svm_context_leave(struct kvm_vcpu *vcpu)
{
	svm_context_clear(vcpu, to_svm(vcpu)->nested.vmcb12_gpa);
}

/**
 * svm_contexts_init - prepare a vCPU on which L1 turns SVM on
 * @svm: the vCPU
 *
 * L1's memory is encrypted in SEV guests, L0 has nothing to keep there.  If
 * memory is short, the vCPU does without contexts.
 *
 * Context: the vCPU's task.  May sleep.
 */
void svm_contexts_init(struct vcpu_svm *svm)
{
	struct kvm *kvm = svm->vcpu.kvm;

	if (sev_guest(kvm) || !kvm->arch.nested_oversub_ratio)
		return;

	if (kvm_nested_context_table_init(kvm))
		return;

	svm->nested.vmcb12_copy = kzalloc(sizeof(*svm->nested.vmcb12_copy),
					  KVM_NESTED_CONTEXT_GFP);
}

/**
 * svm_contexts_free - undo svm_contexts_init()
 * @svm: the vCPU, not in guest mode
 *
 * The table and the contexts stay for the VM's other vCPUs.
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void svm_contexts_free(struct vcpu_svm *svm)
{
	kfree(svm->nested.vmcb12_copy);
	svm->nested.vmcb12_copy = NULL;
}

/**
 * svm_alloc_context - make a context that keeps nothing yet
 * @vcpu: a vCPU of the VM that it is for
 *
 * Context: the vCPU's task.  May sleep.
 * Return: the context, or NULL without memory.
 */
struct kvm_nested_context *svm_alloc_context(struct kvm_vcpu *vcpu)
{
	struct svm_nested_context *ctx;
	unsigned int i;

	ctx = kzalloc(sizeof(*ctx), KVM_NESTED_CONTEXT_GFP);
	if (!ctx)
		return NULL;

	kvm_nested_page_init(&ctx->vmcb12, vcpu->kvm);
	for (i = 0; i < MSRPM_PAGES; i++)
		kvm_nested_page_init(&ctx->msrpm[i], vcpu->kvm);

	return &ctx->base;
}

/**
 * svm_reset_context - forget what a context keeps
 * @base: the context, owned by the caller
 *
 * Context: the vCPU's task.  May sleep.
 */
void svm_reset_context(struct kvm_nested_context *base)
{
	struct svm_nested_context *ctx =
		container_of(base, struct svm_nested_context, base);
	unsigned int i;

	kvm_nested_page_drop(&ctx->vmcb12);
	for (i = 0; i < MSRPM_PAGES; i++)
		kvm_nested_page_drop(&ctx->msrpm[i]);
}

/**
 * svm_free_context - free a context that nobody can find any more
 * @base: the context
 *
 * Context: any task.  May sleep.
 */
void svm_free_context(struct kvm_nested_context *base)
{
	svm_reset_context(base);
	kfree(container_of(base, struct svm_nested_context, base));
}
