/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: a small L1 hypervisor for SVM.
 *
 * The library's run_guest() keeps the registers of its one L2 in a global.
 * Here many L2s run on several L1 vCPUs, so each L2 has its own registers,
 * control block, MSR permission map, nested page table and private page.
 *
 * These pages come in three memory slots, so that a test can move, delete or
 * watch one kind without the others:
 *
 *	L2_VMCB_SLOT	one control block per L2
 *	L2_MSRPM_SLOT	two pages of MSR permission map per L2
 *	L2_PRIVATE_SLOT	one private page and the nested page table per L2
 *
 * All three are mapped in L1 at the virtual address that equals the physical.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_SVM_H
#define SELFTEST_KVM_NESTED_CONTEXT_SVM_H

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "svm_util.h"

#define L2_MAX			128

#define L2_VMCB_SLOT		10
#define L2_VMCB_GPA		0x10000000ull
#define L2_MSRPM_SLOT		11
#define L2_MSRPM_GPA		0x14000000ull
#define L2_MSRPM_PAGES		2
#define L2_PRIVATE_SLOT		12
#define L2_PRIVATE_GPA		0x18000000ull
#define L2_PRIVATE_PAGES	4

#define L2_VMMCALL_LEN		3
#define L2_MSR_INSN_LEN		2

/* Registers in the order in which instructions number them. */
enum l2_gpr {
	L2_RAX, L2_RCX, L2_RDX, L2_RBX, L2_RSP, L2_RBP, L2_RSI, L2_RDI,
	L2_R8, L2_R9, L2_R10, L2_R11, L2_R12, L2_R13, L2_R14, L2_R15,
	L2_NR_GPRS,
};

/*
 * What L1 knows of one L2.  RAX and RSP live in the control block, their
 * places in @gpr are not used.
 */
struct l2_vcpu {
	u64 gpr[L2_NR_GPRS];	/* must be first, l2_vmrun() uses it */
	u64 vmcb_gpa;
	struct vmcb *vmcb;
	u8 *msrpm;
	void *private;
	u64 *npt;
};

/*
 * l2_vmrun - VMLOAD, VMRUN and VMSAVE of @l2's control block
 *
 * Everything that the instructions leave to software is loaded from @l2->gpr
 * before and stored there after.
 */
void l2_vmrun(struct l2_vcpu *l2, u64 vmcb_gpa);

asm(".pushsection .text\n\t"
	".type l2_vmrun, @function\n"
	"l2_vmrun:\n\t"
	"push %rbx\n\t"
	"push %rbp\n\t"
	"push %r12\n\t"
	"push %r13\n\t"
	"push %r14\n\t"
	"push %r15\n\t"
	"push %rdi\n\t"
	"mov %rsi, %rax\n\t"
	"vmload %rax\n\t"
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
	"vmrun %rax\n\t"
	"xchg %rdi, (%rsp)\n\t"
	"mov %rcx, 0x08(%rdi)\n\t"
	"mov %rdx, 0x10(%rdi)\n\t"
	"mov %rbx, 0x18(%rdi)\n\t"
	"mov %rbp, 0x28(%rdi)\n\t"
	"mov %rsi, 0x30(%rdi)\n\t"
	"mov %r8, 0x40(%rdi)\n\t"
	"mov %r9, 0x48(%rdi)\n\t"
	"mov %r10, 0x50(%rdi)\n\t"
	"mov %r11, 0x58(%rdi)\n\t"
	"mov %r12, 0x60(%rdi)\n\t"
	"mov %r13, 0x68(%rdi)\n\t"
	"mov %r14, 0x70(%rdi)\n\t"
	"mov %r15, 0x78(%rdi)\n\t"
	"pop 0x38(%rdi)\n\t"
	"vmsave %rax\n\t"
	"pop %r15\n\t"
	"pop %r14\n\t"
	"pop %r13\n\t"
	"pop %r12\n\t"
	"pop %rbp\n\t"
	"pop %rbx\n\t"
	"ret\n\t"
	".popsection");

static inline void l2_place(struct l2_vcpu *l2, unsigned int i)
{
	u64 private = L2_PRIVATE_GPA + i * L2_PRIVATE_PAGES * PAGE_SIZE;

	l2->vmcb_gpa = L2_VMCB_GPA + i * PAGE_SIZE;
	l2->vmcb = (void *)l2->vmcb_gpa;
	l2->msrpm = (void *)(L2_MSRPM_GPA + i * L2_MSRPM_PAGES * PAGE_SIZE);
	l2->private = (void *)private;
	l2->npt = (void *)(private + PAGE_SIZE);
}

/*
 * Builds L2's own nested page table: the first GiB, one to one, by 2 MiB
 * pages.  Each L2 has its own, as it would under a real L1.
 */
static inline u64 l2_build_npt(struct l2_vcpu *l2)
{
	const u64 table = PTE_PRESENT_MASK | PTE_WRITABLE_MASK | PTE_USER_MASK;
	const u64 leaf = table | PTE_ACCESSED_MASK | PTE_DIRTY_MASK |
			      PTE_LARGE_MASK;
	u64 *pml4 = l2->npt, *pdpt = pml4 + 512, *pd = pdpt + 512;
	u64 i;

	memset(pml4, 0, 2 * PAGE_SIZE);
	pml4[0] = (u64)pdpt | table;
	pdpt[0] = (u64)pd | table;
	for (i = 0; i < 512; i++)
		pd[i] = i << 21 | leaf;

	return (u64)pml4;
}

static inline void l2_set_seg(struct vmcb_seg *seg, u16 selector,
			      u16 attrib)
{
	seg->selector = selector;
	seg->attrib = attrib;
	seg->limit = -1U;
	seg->base = 0;
}

/* Enters SVM operation on this vCPU. */
static inline void l1_enable_svm(u64 hsave_gpa)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, hsave_gpa);
}

/*
 * Makes @l2's control block: flat 64-bit code on L1's tables, MSR permission
 * map on, and nested paging on if wanted.  The map is the caller's to fill.
 */
static inline void l2_init_vmcb(struct l2_vcpu *l2, void *rip, u64 rsp,
				bool npt)
{
	const u16 data = 3 | SVM_SELECTOR_S_MASK | SVM_SELECTOR_P_MASK |
			      SVM_SELECTOR_DB_MASK | SVM_SELECTOR_G_MASK;
	const u16 code = 9 | SVM_SELECTOR_S_MASK | SVM_SELECTOR_P_MASK |
			      SVM_SELECTOR_L_MASK | SVM_SELECTOR_G_MASK;
	struct vmcb_control_area *ctrl = &l2->vmcb->control;
	struct vmcb_save_area *save = &l2->vmcb->save;

	memset(l2->vmcb, 0, PAGE_SIZE);
	asm volatile("vmsave %0" : : "a"(l2->vmcb_gpa) : "memory");

	l2_set_seg(&save->es, get_es(), data);
	l2_set_seg(&save->ss, get_ss(), data);
	l2_set_seg(&save->ds, get_ds(), data);
	l2_set_seg(&save->cs, get_cs(), code);
	save->gdtr.base = get_gdt().address;
	save->gdtr.limit = get_gdt().size;
	save->idtr.base = get_idt().address;
	save->idtr.limit = get_idt().size;

	save->efer = rdmsr(MSR_EFER);
	save->cr0 = get_cr0();
	save->cr3 = get_cr3();
	save->cr4 = get_cr4();
	save->dr6 = 0xffff0ff0;
	save->dr7 = 0x400;
	save->rflags = X86_EFLAGS_FIXED;
	save->g_pat = rdmsr(MSR_IA32_CR_PAT);
	save->rip = (u64)rip;
	save->rsp = rsp;

	ctrl->asid = 1;
	ctrl->intercept = BIT_ULL(INTERCEPT_VMRUN) | BIT_ULL(INTERCEPT_VMMCALL) |
			  BIT_ULL(INTERCEPT_MSR_PROT) | BIT_ULL(INTERCEPT_SHUTDOWN);
	ctrl->msrpm_base_pa = (u64)l2->msrpm;

	if (npt) {
		ctrl->nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
		ctrl->nested_cr3 = l2_build_npt(l2);
	}
}

/* An L2's pages in one piece: block, MSR permission map, private page, tables. */
#define SVM_PAGES_PER_L2	(1 + L2_MSRPM_PAGES + L2_PRIVATE_PAGES)

/* Makes an L2 with nested paging whose pages are at @gpa; every MSR exits. */
static inline void l2_make(struct l2_vcpu *l2, u64 gpa, void *rip, u64 rsp)
{
	l2->vmcb_gpa = gpa;
	l2->vmcb = (void *)gpa;
	l2->msrpm = (void *)(gpa + PAGE_SIZE);
	l2->private = (void *)(gpa + (1 + L2_MSRPM_PAGES) * PAGE_SIZE);
	l2->npt = l2->private + PAGE_SIZE;

	memset(l2->msrpm, 0xff, L2_MSRPM_PAGES * PAGE_SIZE);
	l2_init_vmcb(l2, rip, rsp, true);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_SVM_H */
