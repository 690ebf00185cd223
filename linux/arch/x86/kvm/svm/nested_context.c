// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested contexts on SVM.
 *
 * A context belongs to a vmcb12.  VMRUN takes it and #VMEXIT parks it, so that
 * another vCPU may run the same L2 right after.  It keeps mapped what L0 reads and
 * writes at each of them: the vmcb12 itself and L1's MSR permission map.
 *
 * Nothing may sleep while a page is accessed, which shapes the users:
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
 */
struct svm_nested_context {
	struct kvm_nested_context base;
	struct kvm_nested_page vmcb12;
	struct kvm_nested_page msrpm[MSRPM_PAGES];
};

/* VMRUN ignores the low bits, so they do not make another block. */
static gpa_t svm_context_key(gpa_t vmcb12_gpa)
{
	return gfn_to_gpa(gpa_to_gfn(vmcb12_gpa));
}

static struct svm_nested_context *svm_nested_context(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = kvm_nested_context_current(vcpu);

	return ctx ? container_of(ctx, struct svm_nested_context, base) : NULL;
}

/* Copy what VMRUN reads.  The copy's other fields are left from earlier ones. */
static void svm_copy_vmcb12(struct kvm_vcpu *vcpu, struct vmcb *to,
			    struct vmcb *from)
{
	memcpy(&to->control, &from->control, VMRUN_CONTROL_END);
	svm_copy_vmrun_state(&to->save, &from->save);
	svm_copy_lbrs(to, from);
	to->save.cpl = from->save.cpl;
	to->save.cr2 = from->save.cr2;
	to->save.dr6 = from->save.dr6;
	to->save.dr7 = from->save.dr7;
#ifdef CONFIG_KVM_HYPERV
	if (kvm_hv_hypercall_enabled(vcpu))
		to->control.hv_enlightenments = from->control.hv_enlightenments;
#endif
}

/*
 * Copy a vmcb12 for VMRUN, and take its context until L2 is left.  Returns the copy,
 * good until the next VMRUN; NULL if L1 has no memory at @gpa; or -EAGAIN if VMRUN has
 * to be executed again, for memory is there no more and not yet again.
 */
struct vmcb *nested_svm_read_vmcb12(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct vmcb *copy = to_svm(vcpu)->nested.vmcb12;
	gpa_t key = svm_context_key(gpa);
	struct svm_nested_context *ctx;
	struct vmcb *vmcb12;

	kvm_nested_context_load(vcpu, key);
	ctx = svm_nested_context(vcpu);

	vmcb12 = kvm_nested_page_begin(vcpu, &ctx->vmcb12, key);
	if (IS_ERR(vmcb12)) {
		nested_svm_context_clear(vcpu);
		return kvm_nested_page_retry(vcpu, key) ? ERR_PTR(-EAGAIN) : NULL;
	}

	svm_copy_vmcb12(vcpu, copy, vmcb12);
	kvm_nested_page_end(vcpu, &ctx->vmcb12, false);

	if (unlikely(!kvm_nested_page_is_current(&ctx->msrpm[0])) &&
	    vmcb_is_intercept(&copy->control, INTERCEPT_MSR_PROT) &&
	    kvm_nested_page_retry(vcpu, copy->control.msrpm_base_pa)) {
		nested_svm_context_clear(vcpu);
		return ERR_PTR(-EAGAIN);
	}
	return copy;
}

/*
 * VMRUN does not enter L2: report the exit code and information in @vmcb12, the copy,
 * to L1, and park the context.
 */
void nested_svm_fail_vmrun(struct kvm_vcpu *vcpu, gpa_t gpa, struct vmcb *vmcb12)
{
	struct vmcb_control_area *from = &vmcb12->control, *to;
	struct vmcb *page = nested_svm_begin_vmexit(vcpu, gpa);

	if (IS_ERR(page)) {
		nested_svm_context_clear(vcpu);
		return;
	}

	to = &page->control;
	to->exit_code = from->exit_code;
	to->exit_code_hi = from->exit_code_hi;
	to->exit_info_1 = from->exit_info_1;
	to->exit_info_2 = from->exit_info_2;
	to->event_inj = from->event_inj;
	to->event_inj_err = from->event_inj_err;
	nested_svm_end_vmexit(vcpu);
}

/*
 * Get at a vmcb12 to write L2's state to, until nested_svm_end_vmexit(); the caller
 * must not sleep.  Takes the context if the vCPU does not have it yet, after
 * KVM_SET_NESTED_STATE or SMM.  Fails as kvm_vcpu_map() does.
 */
struct vmcb *nested_svm_begin_vmexit(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	gpa_t key = svm_context_key(gpa);
	struct svm_nested_context *ctx = svm_nested_context(vcpu);

	if (unlikely(!ctx)) {
		kvm_nested_context_load(vcpu, key);
		ctx = svm_nested_context(vcpu);
	}

	return kvm_nested_page_begin(vcpu, &ctx->vmcb12, key);
}

/* L2's state is in its vmcb12: log the page as dirty and park the context. */
void nested_svm_end_vmexit(struct kvm_vcpu *vcpu)
{
	kvm_nested_page_end(vcpu, &svm_nested_context(vcpu)->vmcb12, true);
	nested_svm_context_clear(vcpu);
}

/*
 * Do L1's VMLOAD or VMSAVE by a page that is mapped already, whoever owns the
 * context.  Blocks that are never run have none, and get none.  Returns false if the
 * caller has to map the page.
 */
bool nested_svm_vmload_vmsave(struct kvm_vcpu *vcpu, gpa_t gpa, bool vmload)
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
	vmcb12 = kvm_nested_page_trybegin(&ctx->vmcb12, key);
	if (!vmcb12)
		return false;

	if (vmload)
		svm_copy_vmloadsave_state(svm->vmcb01.ptr, vmcb12);
	else
		svm_copy_vmloadsave_state(vmcb12, svm->vmcb01.ptr);

	kvm_nested_page_tryend(vcpu, &ctx->vmcb12, !vmload);
	return true;
}

/*
 * The words of the MSR permission map that are merged, those of the first page
 * first, and where those of each page end.
 */
static u16 merge_words[MSRPM_OFFSETS] __ro_after_init;
static unsigned int merge_end[MSRPM_PAGES] __ro_after_init;

/*
 * Called when the module has filled in msrpm_offsets.  L2's accesses to x2APIC
 * registers are always intercepted, so their words are never merged.
 */
void __init nested_svm_setup_msrpm(void)
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

/* Merge L0's and L1's MSR permission maps for L2.  Returns false if L1's can't be read. */
bool nested_svm_merge_msrpm(struct vcpu_svm *svm)
{
	u32 *merged = svm->nested.msrpm, *l0 = svm->msrpm, *l1;
	struct kvm_vcpu *vcpu = &svm->vcpu;
	struct svm_nested_context *ctx;
	unsigned int page, p, i = 0;
	gpa_t gpa;

	/* None is held after KVM_SET_NESTED_STATE or SMM. */
	ctx = svm_nested_context(vcpu);
	if (unlikely(!ctx)) {
		kvm_nested_context_load(vcpu, svm_context_key(svm->nested.vmcb12_gpa));
		ctx = svm_nested_context(vcpu);
	}

	for (page = 0; page < MSRPM_PAGES; page++) {
		gpa = svm->nested.ctl.msrpm_base_pa + page * PAGE_SIZE;
		l1 = kvm_nested_page_begin(vcpu, &ctx->msrpm[page], gpa);
		if (IS_ERR(l1))
			return false;

		/* L1 may write to its map now, as on hardware. */
		for (; i < merge_end[page]; i++) {
			p = merge_words[i];
			merged[p] = l0[p] |
				    READ_ONCE(l1[p % MSRPM_WORDS_PER_PAGE]);
		}
		kvm_nested_page_end(vcpu, &ctx->msrpm[page], false);
	}
	return true;
}

/* Park the context, if the vCPU has one. */
void nested_svm_context_clear(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = kvm_nested_context_current(vcpu);

	if (ctx)
		kvm_nested_context_clear(vcpu, ctx->gpa);
}

/* L1 turns SVM on. */
int nested_svm_contexts_enable(struct vcpu_svm *svm)
{
	struct kvm *kvm = svm->vcpu.kvm;

	/* L1's memory is encrypted, there is nothing to keep. */
	if (sev_guest(kvm))
		kvm->arch.nested_oversub_ratio = 0;

	svm->nested.vmcb12 = kzalloc(sizeof(*svm->nested.vmcb12), GFP_KERNEL_ACCOUNT);
	if (!svm->nested.vmcb12)
		return -ENOMEM;

	if (kvm_nested_context_enable(&svm->vcpu)) {
		kfree(svm->nested.vmcb12);
		svm->nested.vmcb12 = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* L1 has turned SVM off, or the vCPU goes. */
void nested_svm_contexts_disable(struct vcpu_svm *svm)
{
	kvm_nested_context_disable(&svm->vcpu);
	kfree(svm->nested.vmcb12);
	svm->nested.vmcb12 = NULL;
}

struct kvm_nested_context *svm_alloc_context(struct kvm_vcpu *vcpu, bool kept)
{
	struct svm_nested_context *ctx;
	unsigned int i;

	ctx = kzalloc(sizeof(*ctx), kvm_nested_context_gfp(kept));
	if (!ctx)
		return NULL;

	kvm_nested_page_init(&ctx->vmcb12, vcpu->kvm, kept, true);
	for (i = 0; i < MSRPM_PAGES; i++)
		kvm_nested_page_init(&ctx->msrpm[i], vcpu->kvm, kept, false);

	return &ctx->base;
}

void svm_reset_context(struct kvm_nested_context *base)
{
	struct svm_nested_context *ctx =
		container_of(base, struct svm_nested_context, base);
	unsigned int i;

	kvm_nested_page_drop(&ctx->vmcb12);
	for (i = 0; i < MSRPM_PAGES; i++)
		kvm_nested_page_drop(&ctx->msrpm[i]);
}

void svm_free_context(struct kvm_nested_context *base)
{
	svm_reset_context(base);
	kfree(container_of(base, struct svm_nested_context, base));
}
