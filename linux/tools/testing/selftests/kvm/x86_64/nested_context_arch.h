/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: what L1 does with an L2, in one table for both vendors.
 *
 * A test whose L1 need not know which vendor it runs on goes by this table, and
 * picks the entry that is supported.  An L2 lives in consecutive pages at an
 * address of the test's choice, which L1 maps at the virtual address that equals
 * the physical.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_ARCH_H
#define SELFTEST_KVM_NESTED_CONTEXT_ARCH_H

#include "nested_context_svm.h"
#include "nested_context_vmx.h"

/* What L1 knows of one L2.  Both vendors' structures begin with the registers. */
struct nested_l2 {
	union {
		u64 gpr[L2_NR_GPRS];
		struct l2_vcpu svm;
		struct vmx_l2 vmx;
	};
};

enum nested_exit { EXIT_CALL, EXIT_MSR, EXIT_NONE };

/* KERNEL_GS_BASE: L0 lets L2 read it where L1 does. */
#define NESTED_MSR_OFFSET	(MSR_KERNEL_GS_BASE - 0xc0000000)

/**
 * struct nested_arch - a vendor's half of L1
 * @name:		for messages
 * @supported:		whether the host has it; all others are the guest's
 * @pages_per_l2:	what @make wants at its address
 * @private_page:	which of them is at the test's disposal
 * @l1_init:		begin; the page is KVM's from then on
 * @make:		make an L2, current; every MSR exits
 * @allow_msr:		L2 may read MSR_KERNEL_GS_BASE without an exit
 * @load:		make an L2 current, NULL where there is no such thing
 * @enter:		run the current L2 until it exits
 * @skip:		L2 goes on behind the instruction that made it exit
 * @set_rip:		L2 goes on there
 * @rsp:		L2's RSP
 * @exit_code:		why L2 exited, as the vendor numbers it
 * @unload:		let go of the L2 so that another vCPU can load it, or NULL
 */
struct nested_arch {
	const char *name;
	bool (*supported)(void);
	u32 pages_per_l2;
	u32 private_page;

	void (*l1_init)(void *scratch, u64 scratch_gpa);
	void (*make)(struct nested_l2 *l2, u64 gpa, void *rip, u64 rsp);
	void (*allow_msr)(struct nested_l2 *l2);
	void (*load)(struct nested_l2 *l2);
	enum nested_exit (*enter)(struct nested_l2 *l2);
	void (*skip)(struct nested_l2 *l2, enum nested_exit exit);
	void (*set_rip)(struct nested_l2 *l2, void *rip);
	u64 (*rsp)(struct nested_l2 *l2);
	u64 (*exit_code)(struct nested_l2 *l2);
	void (*unload)(struct nested_l2 *l2);
};

/* ---- SVM ---- */

static bool svm_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_SVM);
}

static void svm_l1_init(void *scratch, u64 scratch_gpa)
{
	l1_enable_svm(scratch_gpa);
}

static void svm_make(struct nested_l2 *l2, u64 gpa, void *rip, u64 rsp)
{
	l2_make(&l2->svm, gpa, rip, rsp);
}

/* Two bits for each MSR; those from 0xc0000000 are in the second 2 KiB. */
static void svm_allow_msr(struct nested_l2 *l2)
{
	l2->svm.msrpm[0x800 + NESTED_MSR_OFFSET / 4] &= ~BIT(NESTED_MSR_OFFSET % 4 * 2);
}

static enum nested_exit svm_enter(struct nested_l2 *l2)
{
	l2_vmrun(&l2->svm, l2->svm.vmcb_gpa);
	switch (l2->svm.vmcb->control.exit_code) {
	case SVM_EXIT_VMMCALL:
		return EXIT_CALL;
	case SVM_EXIT_MSR:
		return EXIT_MSR;
	}
	return EXIT_NONE;
}

static void svm_skip(struct nested_l2 *l2, enum nested_exit exit)
{
	l2->svm.vmcb->save.rip += exit == EXIT_CALL ? L2_VMMCALL_LEN : L2_MSR_INSN_LEN;
}

static void svm_set_rip(struct nested_l2 *l2, void *rip)
{
	l2->svm.vmcb->save.rip = (u64)rip;
}

static u64 svm_rsp(struct nested_l2 *l2)
{
	return l2->svm.vmcb->save.rsp;
}

static u64 svm_exit_code(struct nested_l2 *l2)
{
	return l2->svm.vmcb->control.exit_code;
}

/* ---- VMX ---- */

static bool vmx_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept();
}

static void vmx_unload(struct nested_l2 *l2)
{
	GUEST_ASSERT(!vmclear(l2->vmx.vmcs));
	l2->vmx.launched = false;
}

static void vmx_make(struct nested_l2 *l2, u64 gpa, void *rip, u64 rsp)
{
	vmx_l2_make(&l2->vmx, gpa, rip, rsp);
}

/* A bit for each MSR; reads of those from 0xc0000000 are in the second KiB. */
static void vmx_allow_msr(struct nested_l2 *l2)
{
	l2->vmx.msr_bitmap[0x400 + NESTED_MSR_OFFSET / 8] &= ~BIT(NESTED_MSR_OFFSET % 8);
}

/* A VMCS that vCPUs share is entered with registers that are each vCPU's. */
static void vmx_load(struct nested_l2 *l2)
{
	GUEST_ASSERT(!vmptrld(l2->vmx.vmcs));
	GUEST_ASSERT(!vmwrite(HOST_RSP, (u64)&l2->vmx));
}

/* A vCPU that shares a VMCS can't know whether another has launched it. */
static enum nested_exit vmx_enter(struct nested_l2 *l2)
{
	if (vmx_l2_enter(&l2->vmx, l2->vmx.launched) &&
	    vmx_l2_enter(&l2->vmx, !l2->vmx.launched))
		return EXIT_NONE;
	l2->vmx.launched = true;

	switch (vmreadz(VM_EXIT_REASON)) {
	case EXIT_REASON_VMCALL:
		return EXIT_CALL;
	case EXIT_REASON_MSR_READ:
		return EXIT_MSR;
	}
	return EXIT_NONE;
}

static void vmx_set_rip(struct nested_l2 *l2, void *rip)
{
	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)rip));
}

static void vmx_skip(struct nested_l2 *l2, enum nested_exit exit)
{
	u64 len = exit == EXIT_CALL ? VMX_L2_VMCALL_LEN : VMX_L2_MSR_INSN_LEN;

	vmx_set_rip(l2, (void *)(vmreadz(GUEST_RIP) + len));
}

static u64 vmx_rsp(struct nested_l2 *l2)
{
	return vmreadz(GUEST_RSP);
}

static u64 vmx_exit_code(struct nested_l2 *l2)
{
	return vmreadz(VM_EXIT_REASON);
}

enum nested_vendor { NESTED_SVM, NESTED_VMX, NR_NESTED_VENDORS };

static const struct nested_arch nested_archs[NR_NESTED_VENDORS] = {
	[NESTED_SVM] = {
		.name		= "svm",
		.supported	= svm_supported,
		.pages_per_l2	= SVM_PAGES_PER_L2,
		.private_page	= 1 + L2_MSRPM_PAGES,
		.l1_init	= svm_l1_init,
		.make		= svm_make,
		.allow_msr	= svm_allow_msr,
		.enter		= svm_enter,
		.skip		= svm_skip,
		.set_rip	= svm_set_rip,
		.rsp		= svm_rsp,
		.exit_code	= svm_exit_code,
	},
	[NESTED_VMX] = {
		.name		= "vmx",
		.supported	= vmx_supported,
		.pages_per_l2	= VMX_PAGES_PER_L2,
		.private_page	= 4,
		.l1_init	= l1_enable_vmx,
		.make		= vmx_make,
		.allow_msr	= vmx_allow_msr,
		.load		= vmx_load,
		.enter		= vmx_enter,
		.skip		= vmx_skip,
		.set_rip	= vmx_set_rip,
		.rsp		= vmx_rsp,
		.exit_code	= vmx_exit_code,
		.unload		= vmx_unload,
	},
};

/* The entry of the vendor that the host has, or NULL. */
static inline const struct nested_arch *nested_arch_find(void)
{
	u32 i;

	for (i = 0; i < NR_NESTED_VENDORS; i++) {
		if (nested_archs[i].supported())
			return &nested_archs[i];
	}
	return NULL;
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_ARCH_H */
