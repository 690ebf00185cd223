// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's enlightened VMCS (eVMCS) in a nested context.
 *
 * Its page is in use as long as it is current, as KVM pins it without contexts:
 * until it is released, L0 goes on with it though its memslot is deleted.  An exit
 * that cannot be written to it, because the host took the page, stays pending and
 * keeps L1 from running.
 */
#include <linux/kvm_host.h>

#include "hyperv.h"
#include "hyperv_evmcs.h"
#include "nested.h"
#include "nested_context.h"
#include "vmx.h"

static gpa_t nested_evmcs_gpa(struct vmx_nested_context *ctx)
{
	return nested_vmx_page(ctx->base.gpa);
}

/*
 * Access the current eVMCS, until nested_evmcs_end().  May sleep, but the caller must
 * not meanwhile.  Returns NULL if L1 has no memory there.
 */
struct hv_enlightened_vmcs *nested_evmcs_begin(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	void *evmcs;

	evmcs = kvm_nested_page_begin(&vmx->vcpu, &ctx->block, nested_evmcs_gpa(ctx));
	return IS_ERR(evmcs) ? NULL : evmcs;
}

/* The same where nothing may sleep.  NULL if nested_evmcs_refresh() has to be called. */
struct hv_enlightened_vmcs *nested_evmcs_trybegin(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	return kvm_nested_page_trybegin_atomic(&ctx->block, nested_evmcs_gpa(ctx));
}

void nested_evmcs_end(struct vcpu_vmx *vmx, bool dirty)
{
	kvm_nested_page_end(&vmx->vcpu, &vmx_nested_context(&vmx->vcpu)->block, dirty);
}

/* Map the current eVMCS again, to write an exit to it. */
int nested_evmcs_refresh(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);
	hpa_t unused;

	return kvm_nested_page_use(&vmx->vcpu, &ctx->block, nested_evmcs_gpa(ctx), &unused);
}

/*
 * L2 is entered with an eVMCS, which may be current already.  Reads what
 * nested_vmx_evmcs() then gives.
 *
 * Returns -EFAULT if L1 has no memory there.  If the page can't be had for another
 * reason, returns -EAGAIN: the vCPU waits then, and L1 must execute the instruction
 * again.  The context is held in any case.
 */
int nested_evmcs_load(struct vcpu_vmx *vmx, gpa_t evmptr)
{
	struct kvm_vcpu *vcpu = &vmx->vcpu;
	struct vmx_nested_context *old = vmx_nested_context(vcpu), *ctx;
	struct hv_enlightened_vmcs *evmcs;
	int r;

	kvm_nested_context_load(vcpu, nested_vmx_page(evmptr) | VMX_CONTEXT_EVMCS);
	ctx = vmx_nested_context(vcpu);
	if (old && old != ctx)
		kvm_nested_page_unuse(&old->block);

	r = nested_evmcs_refresh(vmx);
	if (r) {
		if (r == -EAGAIN)
			kvm_nested_pages_wait_later(vcpu);
		return r;
	}

	evmcs = nested_evmcs_begin(vmx);
	if (!evmcs)
		return -EFAULT;

	/*
	 * L1 may write to its eVMCS any time, from another vCPU.  What decides about
	 * more than one thing is read once per entry; all else is read once when the
	 * eVMCS is copied to the vmcs12.
	 */
	vmx->nested.evmcs.revision_id = READ_ONCE(evmcs->revision_id);
	vmx->nested.evmcs.hv_clean_fields = READ_ONCE(evmcs->hv_clean_fields);
	vmx->nested.evmcs.hv_enlightenments_control =
		READ_ONCE(evmcs->hv_enlightenments_control);
	nested_evmcs_end(vmx, false);
	return 0;
}

/* If an eVMCS is current, it is not any more. */
void nested_evmcs_release(struct vcpu_vmx *vmx)
{
	struct vmx_nested_context *ctx = vmx_nested_context(&vmx->vcpu);

	if (!ctx || !(ctx->base.gpa & VMX_CONTEXT_EVMCS))
		return;

	kvm_nested_page_unuse(&ctx->block);
	nested_vmx_context_clear(vmx);
}

/*
 * VMREAD of a field, zero-extended.  Without memory it is all 1s, as reads from an
 * unbacked page are.
 */
u64 nested_evmcs_read_field(struct vcpu_vmx *vmx, unsigned long field, u16 offset)
{
	struct hv_enlightened_vmcs *evmcs = nested_evmcs_begin(vmx);
	u64 value;

	if (evmcs) {
		value = evmcs_read_any(evmcs, field, offset);
		nested_evmcs_end(vmx, false);
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

/* Tell L1, and L0 for this entry, that nothing or everything has to be read. */
void nested_evmcs_set_clean(struct vcpu_vmx *vmx, bool clean)
{
	const u32 all = HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL;
	struct nested_evmcs_header *header = &vmx->nested.evmcs;
	struct hv_enlightened_vmcs *evmcs;

	header->hv_clean_fields &= ~all;
	header->hv_clean_fields |= clean ? all : 0;

	evmcs = nested_evmcs_begin(vmx);
	if (!evmcs)
		return;

	evmcs->hv_clean_fields &= ~all;
	evmcs->hv_clean_fields |= clean ? all : 0;
	nested_evmcs_end(vmx, true);
}
