/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's side of vmx_nested_evmcs_test: L2s with a counter and a marker, and
 * the L1 that checks them.
 */
#ifndef SELFTEST_KVM_VMX_NESTED_EVMCS_L1_H
#define SELFTEST_KVM_VMX_NESTED_EVMCS_L1_H

#include <linux/compiler.h>

#include "nested_context_vmx.h"
#include "evmcs.h"
#include "hyperv.h"

#define L2_MAX		10
#define PAGES_GPA	0x10000000ull
#define PAGES_SLOT	10
#define PAUSE_PORT	0x99

/* An L2's pages, one after the other. */
enum { EVMCS_PAGE, BITMAP_PAGE, STACK_PAGE, PAGES_PER_L2 };

struct evmcs_l2 {
	struct vmx_l2 v;
	struct hv_enlightened_vmcs *evmcs;
	u64 gpa;
	u64 count;
	u64 marker;
};

/* Guest data. */
static struct evmcs_l2 l2s[L2_MAX];
static bool pause_l2;
static bool hold_l1, l1_held;	/* L1 waits right before it enters L2 */
static struct { u64 (*fn)(u64 a, u64 b); u64 a, b, ret; } call;

/* ---- L2 ---- */

extern char l2_code[], l2_vmcall[];

asm(".pushsection .text\n"
	"l2_code:\n\t"
	"add $1, %rbx\n\t"
	"cmpb $0, pause_l2(%rip)\n\t"
	"je 1f\n\t"
	"out %al, $0x99\n"
	"1:\n\t"
	"mov $0x175, %ecx\n\t"		/* MSR_IA32_SYSENTER_ESP */
	"rdmsr\n"
	"l2_vmcall:\n\t"
	"vmcall\n\t"
	"jmp l2_code\n"
	".popsection");

/* ---- L1 ---- */

static u64 l2_page(u64 i, u32 page)
{
	return PAGES_GPA + (i * PAGES_PER_L2 + page) * PAGE_SIZE;
}

static u64 l1_make(u64 i, u64 unused)
{
	struct evmcs_l2 *l2 = &l2s[i];
	struct vmx_pages pages = { .msr_gpa = l2_page(i, BITMAP_PAGE) };

	l2->gpa = l2_page(i, EVMCS_PAGE);
	l2->evmcs = (void *)l2->gpa;
	l2->count = 0;
	l2->v.launched = false;
	memset(l2->evmcs, 0, PAGE_SIZE);
	memset((void *)pages.msr_gpa, 0, PAGE_SIZE);

	evmcs_vmptrld(l2->gpa, l2->evmcs);
	l2->evmcs->revision_id = EVMCS_VERSION;
	prepare_vmcs(&pages, l2_code,
		     (void *)(l2_page(i, STACK_PAGE) + PAGE_SIZE));
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_USE_MSR_BITMAPS);
	vmwrite(HOST_RSP, (u64)&l2->v);
	vmwrite(HOST_RIP, (u64)vmx_l2_exited);
	l2->marker = 0x1000 * (i + 1);
	vmwrite(GUEST_SYSENTER_ESP, l2->marker);
	return 0;
}

/*
 * Enters L2 @i, with a new marker if @change, and returns why it was left.  Of the
 * eVMCS, L1 writes what it has to before L2 is entered, and only reads it after.
 */
static u64 l1_enter(u64 i, u64 change)
{
	struct evmcs_l2 *l2 = &l2s[i];

	evmcs_vmptrld(l2->gpa, l2->evmcs);
	if (change)
		vmwrite(GUEST_SYSENTER_ESP, ++l2->marker);
	if (l2->v.launched)
		vmwrite(GUEST_RIP, (u64)l2_vmcall + VMX_L2_VMCALL_LEN);
	l2->v.gpr[VMX_L2_RBX] = l2->count++;
	l2->evmcs->vm_exit_reason = ~0;
	while (READ_ONCE(hold_l1)) {
		WRITE_ONCE(l1_held, true);
		/* Bochs holds L0's interrupts back until L1, its own off, exits. */
		(void)this_cpu_has(X86_FEATURE_VMX);
	}

	__GUEST_ASSERT(!vmx_l2_enter(&l2->v, l2->v.launched),
		       "eVMCS %lu is not entered", i);
	l2->v.launched = true;
	return l2->evmcs->vm_exit_reason;
}

/* One round of L2 @i, which ends as L2 wants it to. */
static u64 l1_step(u64 i, u64 change)
{
	struct evmcs_l2 *l2 = &l2s[i];
	u64 reason = l1_enter(i, change);

	__GUEST_ASSERT(reason == EXIT_REASON_VMCALL, "eVMCS %lu: exit %lx", i, reason);
	GUEST_ASSERT_EQ(l2->evmcs->guest_rip, (u64)l2_vmcall);
	GUEST_ASSERT_EQ(l2->v.gpr[VMX_L2_RBX], l2->count);
	GUEST_ASSERT_EQ((u32)l2->v.gpr[VMX_L2_RAX] | l2->v.gpr[VMX_L2_RDX] << 32,
			l2->marker);
	GUEST_ASSERT_EQ(l2->evmcs->guest_sysenter_esp, l2->marker);
	return 0;
}

/* Changes a field of an eVMCS that another vCPU runs. */
static u64 l1_flip(u64 i, u64 times)
{
	struct hv_enlightened_vmcs *evmcs = (void *)l2_page(i, EVMCS_PAGE);

	while (times--) {
		evmcs->guest_sysenter_esp ^= 1;
		evmcs->hv_clean_fields = times % 2 ? 0 : 0xffff;
		evmcs->hv_enlightenments_control.msr_bitmap ^= 1;
		barrier();
	}
	return 0;
}

/* Runs L2 while that goes on: either marker is good, a third is not. */
static u64 l1_run_flipped(u64 i, u64 times)
{
	struct evmcs_l2 *l2 = &l2s[i];
	u64 seen;

	while (times--) {
		evmcs_vmptrld(l2->gpa, l2->evmcs);
		if (l2->v.launched)
			vmwrite(GUEST_RIP, (u64)l2_vmcall + VMX_L2_VMCALL_LEN);
		l2->v.gpr[VMX_L2_RBX] = l2->count++;
		GUEST_ASSERT(!vmx_l2_enter(&l2->v, l2->v.launched));
		l2->v.launched = true;
		GUEST_ASSERT_EQ(l2->evmcs->vm_exit_reason, EXIT_REASON_VMCALL);
		GUEST_ASSERT_EQ(l2->v.gpr[VMX_L2_RBX], l2->count);
		seen = (u32)l2->v.gpr[VMX_L2_RAX] | l2->v.gpr[VMX_L2_RDX] << 32;
		GUEST_ASSERT_EQ(seen | 1, l2->marker | 1);
	}
	return 0;
}

#define VMFAIL	0x100

/* The vector that entering an eVMCS at @gpa raises, or VMFAIL. */
static u64 l1_try_enter_at(u64 gpa, u64 unused)
{
	u8 vector;

	evmcs_vmptrld(gpa, l2s[0].evmcs);
	vector = kvm_asm_safe("vmlaunch");
	return vector ? vector : VMFAIL;
}

/*
 * The page of L2 @i as a VMCS: VMPTRLD works once the VP assist page names no
 * eVMCS and VMX operation was left, and the VMCS has the VMCS's fields.
 */
static u64 l1_use_as_vmcs(u64 i, u64 vmxon_gpa)
{
	u64 gpa = l2_page(i, EVMCS_PAGE);
	int round;

	vmxoff();
	current_vp_assist->enlighten_vmentry = 0;
	current_vp_assist->current_nested_vmcs = 0;
	enable_evmcs = false;
	GUEST_ASSERT(!vmxon(vmxon_gpa));

	memset((void *)gpa, 0, PAGE_SIZE);
	*(u32 *)gpa = vmcs_revision();
	GUEST_ASSERT(!vmclear(gpa));
	for (round = 0; round < 3; round++) {
		GUEST_ASSERT(!vmptrld(gpa));
		GUEST_ASSERT(!vmwrite(GUEST_SYSENTER_ESP, 0x77000 + round));
		GUEST_ASSERT(!vmclear(gpa));
		GUEST_ASSERT(!vmptrld(gpa));
		GUEST_ASSERT_EQ(vmreadz(GUEST_SYSENTER_ESP), 0x77000 + round);
		GUEST_ASSERT(!vmclear(gpa));
	}
	enable_evmcs = true;
	return 0;
}

/* VMREAD by the instruction, as some guests do in spite of the eVMCS. */
static u64 l1_vmread(u64 field, u64 unused)
{
	u64 value;

	enable_evmcs = false;
	value = vmreadz(field);
	enable_evmcs = true;
	return value;
}

static u64 l1_fill(u64 i, u64 value)
{
	memset((void *)l2_page(i, EVMCS_PAGE), value, PAGE_SIZE);
	return 0;
}

static u64 l1_check_filled(u64 i, u64 value)
{
	u8 *p = (void *)l2_page(i, EVMCS_PAGE);
	u32 n;

	for (n = 0; n < PAGE_SIZE; n++)
		GUEST_ASSERT_EQ(p[n], value);
	return 0;
}

static void l1_serve(void)
{
	for (;;) {
		GUEST_SYNC(0);
		call.ret = call.fn(call.a, call.b);
	}
}

static void l1_main(struct vmx_pages *pages, struct hyperv_test_pages *hv,
		    u64 hypercall_gpa)
{
	wrmsr(HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	wrmsr(HV_X64_MSR_HYPERCALL, hypercall_gpa);
	enable_vp_assist(hv->vp_assist_gpa, hv->vp_assist);
	evmcs_enable();
	GUEST_ASSERT(prepare_for_vmx_operation(pages));
	l1_serve();
}

static void l1_other_main(u64 l2, u64 times)
{
	l1_flip(l2, times);
	GUEST_DONE();
}

#endif /* SELFTEST_KVM_VMX_NESTED_EVMCS_L1_H */
