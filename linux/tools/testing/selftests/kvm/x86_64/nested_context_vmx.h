/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: a small L1 hypervisor for VMX.
 *
 * The library's vmlaunch() and vmresume() keep no registers and write two
 * fields of the VMCS at each entry.  Here each L2 has its own registers, VMCS,
 * MSR bitmap, virtual-APIC page, APIC-access page, EPT and private page, and
 * an entry is one instruction.
 *
 * Where these pages are is up to the caller, who must map them in L1 at the
 * virtual address that equals the physical.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_VMX_H
#define SELFTEST_KVM_NESTED_CONTEXT_VMX_H

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

#define VMX_L2_EPT_PAGES	3

#define VMX_L2_VMCALL_LEN	3
#define VMX_L2_MSR_INSN_LEN	2

/* Registers in the order in which instructions number them. */
enum vmx_l2_gpr {
	VMX_L2_RAX, VMX_L2_RCX, VMX_L2_RDX, VMX_L2_RBX,
	VMX_L2_RSP, VMX_L2_RBP, VMX_L2_RSI, VMX_L2_RDI,
	VMX_L2_R8, VMX_L2_R9, VMX_L2_R10, VMX_L2_R11,
	VMX_L2_R12, VMX_L2_R13, VMX_L2_R14, VMX_L2_R15,
	VMX_L2_NR_GPRS,
};

/* Which of the pages that L0 must find for an L2 are in use. */
#define VMX_L2_MSR_BITMAP	BIT(0)
#define VMX_L2_TPR_SHADOW	BIT(1)
#define VMX_L2_APIC_ACCESS	BIT(2)
#define VMX_L2_EPT		BIT(3)
#define VMX_L2_SHADOW_VMCS	BIT(4)
#define VMX_L2_POSTED		BIT(5)	/* and virtual-interrupt delivery */

/* The posted-interrupt descriptor. */
struct vmx_pi_desc {
	u64 pir[4];
	u64 control;		/* bit 0: a notification is outstanding */
	u64 unused[3];
};

#define VMX_PI_ON		BIT_ULL(0)

/* Returns whether a notification has to be sent.  For guest and host. */
static inline bool vmx_pi_post(struct vmx_pi_desc *desc, u32 vector)
{
	__sync_fetch_and_or(&desc->pir[vector / 64], BIT_ULL(vector % 64));
	return !(__sync_fetch_and_or(&desc->control, VMX_PI_ON) & VMX_PI_ON);
}

/* What L1 knows of one L2.  RSP lives in the VMCS, its place is not used. */
struct vmx_l2 {
	u64 gpr[VMX_L2_NR_GPRS];	/* vmx_l2_enter() uses these two */
	u64 l1_rsp;
	u64 vmcs;
	u8 *msr_bitmap;
	u8 *vapic;
	u8 *apic_access;
	void *private;
	u64 *ept;
	u8 *vmread_bitmap;
	u8 *vmwrite_bitmap;
	struct vmx_pi_desc *pi_desc;
	u64 pi_nv;		/* notification vector */
	u64 launched;
};

/*
 * vmx_l2_enter - VMLAUNCH or VMRESUME of the current VMCS, which is @l2's
 *
 * HOST_RSP is @l2 itself and HOST_RIP a place in this function, so neither
 * changes when another vCPU or another stack of L1 enters L2.
 *
 * Returns 0 after an exit, 1 if the instruction failed.
 */
u64 vmx_l2_enter(struct vmx_l2 *l2, u64 launched);
extern char vmx_l2_exited[];

asm(".pushsection .text\n\t"
	".type vmx_l2_enter, @function\n"
	"vmx_l2_enter:\n\t"
	"push %rbx\n\t"
	"push %rbp\n\t"
	"push %r12\n\t"
	"push %r13\n\t"
	"push %r14\n\t"
	"push %r15\n\t"
	"mov %rsp, 0x80(%rdi)\n\t"
	"test %rsi, %rsi\n\t"
	"mov 0x00(%rdi), %rax\n\t"
	"mov 0x08(%rdi), %rcx\n\t"
	"mov 0x10(%rdi), %rdx\n\t"
	"mov 0x18(%rdi), %rbx\n\t"
	"mov 0x28(%rdi), %rbp\n\t"
	"mov 0x30(%rdi), %rsi\n\t"
	"mov 0x40(%rdi), %r8\n\t"
	"mov 0x48(%rdi), %r9\n\t"
	"mov 0x50(%rdi), %r10\n\t"
	"mov 0x58(%rdi), %r11\n\t"
	"mov 0x60(%rdi), %r12\n\t"
	"mov 0x68(%rdi), %r13\n\t"
	"mov 0x70(%rdi), %r14\n\t"
	"mov 0x78(%rdi), %r15\n\t"
	"mov 0x38(%rdi), %rdi\n\t"
	"jnz 1f\n\t"
	"vmlaunch\n\t"
	"jmp 2f\n"
	"1:\n\t"
	"vmresume\n"
	"2:\n\t"
	"mov $1, %eax\n\t"
	"jmp 3f\n"
	"vmx_l2_exited:\n\t"
	"mov %rax, 0x00(%rsp)\n\t"
	"mov %rcx, 0x08(%rsp)\n\t"
	"mov %rdx, 0x10(%rsp)\n\t"
	"mov %rbx, 0x18(%rsp)\n\t"
	"mov %rbp, 0x28(%rsp)\n\t"
	"mov %rsi, 0x30(%rsp)\n\t"
	"mov %rdi, 0x38(%rsp)\n\t"
	"mov %r8, 0x40(%rsp)\n\t"
	"mov %r9, 0x48(%rsp)\n\t"
	"mov %r10, 0x50(%rsp)\n\t"
	"mov %r11, 0x58(%rsp)\n\t"
	"mov %r12, 0x60(%rsp)\n\t"
	"mov %r13, 0x68(%rsp)\n\t"
	"mov %r14, 0x70(%rsp)\n\t"
	"mov %r15, 0x78(%rsp)\n\t"
	"mov 0x80(%rsp), %rsp\n\t"
	"xor %eax, %eax\n"
	"3:\n\t"
	"pop %r15\n\t"
	"pop %r14\n\t"
	"pop %r13\n\t"
	"pop %r12\n\t"
	"pop %rbp\n\t"
	"pop %rbx\n\t"
	"ret\n\t"
	".popsection");

/* Enters VMX operation on this vCPU; @vmxon is one page of its own. */
static inline void l1_enable_vmx(void *vmxon, u64 vmxon_gpa)
{
	struct vmx_pages pages = {
		.vmxon = vmxon,
		.vmxon_gpa = vmxon_gpa,
	};

	GUEST_ASSERT(prepare_for_vmx_operation(&pages));
}

/*
 * Builds L2's own EPT: the first GiB, one to one, by 2 MiB pages.  Each L2 has
 * its own, as it would under a real L1.
 */
static inline void vmx_l2_build_ept(struct vmx_l2 *l2)
{
	const u64 table = 7, leaf = table | X86_MEMTYPE_WB << 3 | BIT(7) |
				    BIT(8) | BIT(9);
	u64 *pml4 = l2->ept, *pdpt = pml4 + 512, *pd = pdpt + 512;
	u64 i;

	memset(pml4, 0, 2 * PAGE_SIZE);
	pml4[0] = (u64)pdpt | table;
	pdpt[0] = (u64)pd | table;
	for (i = 0; i < 512; i++)
		pd[i] = i << 21 | leaf;
}

/* Posted interrupts for the current VMCS, which has a virtual-APIC page. */
static inline void vmx_l2_init_posted(u64 desc, u32 notification)
{
	GUEST_ASSERT(!vmwrite(PIN_BASED_VM_EXEC_CONTROL,
			      vmreadz(PIN_BASED_VM_EXEC_CONTROL) |
			      PIN_BASED_EXT_INTR_MASK | PIN_BASED_POSTED_INTR));
	GUEST_ASSERT(!vmwrite(VM_EXIT_CONTROLS, vmreadz(VM_EXIT_CONTROLS) |
						VM_EXIT_ACK_INTR_ON_EXIT));
	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL,
			      vmreadz(SECONDARY_VM_EXEC_CONTROL) |
			      SECONDARY_EXEC_APIC_REGISTER_VIRT |
			      SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY));
	GUEST_ASSERT(!vmwrite(POSTED_INTR_NV, notification));
	GUEST_ASSERT(!vmwrite(POSTED_INTR_DESC_ADDR, desc));
}

/*
 * Fills the current VMCS or eVMCS, which is @l2's: flat 64-bit code on L1's tables,
 * and those of @features.  MSR bitmap and virtual-APIC page are the caller's to
 * fill.
 */
static inline void vmx_l2_fill_vmcs(struct vmx_l2 *l2, void *rip, u64 rsp,
				    u32 features)
{
	struct vmx_pages pages = {
		.msr_gpa = (u64)l2->msr_bitmap,
		.vmread_gpa = (u64)l2->vmread_bitmap,
		.vmwrite_gpa = (u64)l2->vmwrite_bitmap,
	};
	u64 cpu_based, secondary;

	if (features & VMX_L2_EPT) {
		vmx_l2_build_ept(l2);
		pages.eptp_gpa = (u64)l2->ept;
	}
	prepare_vmcs(&pages, rip, (void *)rsp);
	GUEST_ASSERT(!vmwrite(HOST_RSP, (u64)l2));
	GUEST_ASSERT(!vmwrite(HOST_RIP, (u64)vmx_l2_exited));

	cpu_based = vmreadz(CPU_BASED_VM_EXEC_CONTROL);
	secondary = vmreadz(SECONDARY_VM_EXEC_CONTROL);
	if (features & VMX_L2_MSR_BITMAP)
		cpu_based |= CPU_BASED_USE_MSR_BITMAPS;
	if (features & VMX_L2_TPR_SHADOW) {
		cpu_based |= CPU_BASED_TPR_SHADOW;
		GUEST_ASSERT(!vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)l2->vapic));
	}
	if (features & VMX_L2_APIC_ACCESS) {
		secondary |= SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
		GUEST_ASSERT(!vmwrite(APIC_ACCESS_ADDR, (u64)l2->apic_access));
	}
	if (features & VMX_L2_SHADOW_VMCS)
		secondary |= SECONDARY_EXEC_SHADOW_VMCS;
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL, cpu_based));
	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL, secondary));
	if (features & VMX_L2_POSTED)
		vmx_l2_init_posted((u64)l2->pi_desc, l2->pi_nv);
}

/* Makes @l2's VMCS, as vmx_l2_fill_vmcs(), and leaves it current. */
static inline void vmx_l2_init_vmcs(struct vmx_l2 *l2, void *rip, u64 rsp,
				    u32 features)
{
	memset((void *)l2->vmcs, 0, PAGE_SIZE);
	*(u32 *)l2->vmcs = vmcs_revision();
	l2->launched = false;
	GUEST_ASSERT(!vmclear(l2->vmcs));
	GUEST_ASSERT(!vmptrld(l2->vmcs));
	vmx_l2_fill_vmcs(l2, rip, rsp, features);
}

/*
 * An L2's pages in one piece: VMCS, MSR bitmap, virtual-APIC page, APIC-access
 * page, private page, tables.
 */
#define VMX_PAGES_PER_L2	(5 + VMX_L2_EPT_PAGES)

static inline void vmx_l2_place(struct vmx_l2 *l2, u64 gpa)
{
	l2->vmcs = gpa;
	l2->msr_bitmap = (void *)(gpa + PAGE_SIZE);
	l2->vapic = l2->msr_bitmap + PAGE_SIZE;
	l2->apic_access = l2->vapic + PAGE_SIZE;
	l2->private = l2->apic_access + PAGE_SIZE;
	l2->ept = l2->private + PAGE_SIZE;

	memset(l2->msr_bitmap, 0xff, PAGE_SIZE);
}

/* Makes an L2 whose pages are at @gpa, current; every MSR exits. */
static inline void vmx_l2_make(struct vmx_l2 *l2, u64 gpa, void *rip, u64 rsp)
{
	vmx_l2_place(l2, gpa);
	vmx_l2_init_vmcs(l2, rip, rsp, VMX_L2_EPT | VMX_L2_MSR_BITMAP |
				       VMX_L2_TPR_SHADOW | VMX_L2_APIC_ACCESS);
}

/* Whether the host can give L1 what VMX_L2_POSTED takes. */
static inline bool vmx_has_posted_interrupts(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept() &&
	       kvm_get_feature_msr(MSR_IA32_VMX_TRUE_PINBASED_CTLS) >> 32 &
	       PIN_BASED_POSTED_INTR;
}

/* Room for what KVM_GET_NESTED_STATE gives. */
union vmx_nested_state {
	struct kvm_nested_state s;
	u8 space[sizeof(struct kvm_nested_state) +
		 sizeof(struct kvm_vmx_nested_state_data)];
};

#endif /* SELFTEST_KVM_NESTED_CONTEXT_VMX_H */
