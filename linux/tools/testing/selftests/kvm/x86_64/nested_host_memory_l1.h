/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guests of nested_host_memory_test: L2s that use each page that a context
 * keeps, and an L1 that visits them as the host tells it to.
 */
#ifndef SELFTEST_KVM_NESTED_HOST_MEMORY_L1_H
#define SELFTEST_KVM_NESTED_HOST_MEMORY_L1_H

#include "apic.h"
#include "nested_context_arch.h"
#include "evmcs.h"
#include "hyperv.h"

#define NR_VCPUS	2
#define X86_EFLAGS_IF	BIT(9)

/* The L2s' pages, and pages of L1 to write to. */
#define MEM_GPA		0x10000000ull
#define FILL_GPA	0x12000000ull

/* Hyper-V as L1 has eVMCSs instead of VMCSs; the other pages are the same. */
enum guest_arch { ARCH_SVM, ARCH_VMX, ARCH_EVMCS, NR_ARCHS };

/* Of each vCPU: the one whose pages are looked at, and the one that parks it. */
enum { TESTED, OTHER, L2S_PER_VCPU };

/* An MSR that L2 reads, and the bit of L1's map that makes it exit. */
struct msr_read {
	u32 msr;
	u32 page;
	u32 byte;
	u8 mask;
};

#define MAX_MSRS	2

static const struct msr_read msr_reads[NR_ARCHS][MAX_MSRS] = {
	[ARCH_SVM] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x800 + 0x102 / 4, BIT(0x102 % 4 * 2) },
		{ MSR_AMD64_NB_CFG, 2, 0x1f / 4, BIT(0x1f % 4 * 2) },
	},
	[ARCH_VMX] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x400 + 0x102 / 8, BIT(0x102 % 8) },
	},
	[ARCH_EVMCS] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x400 + 0x102 / 8, BIT(0x102 % 8) },
	},
};

struct l2_mail {
	u64 hold;		/* set by the host: L2 stays where it is */
	u64 turns;		/* of L2, meanwhile */
	u64 n;			/* visits that L2 has made */
	u64 posted;		/* it takes a posted interrupt in each */
	u64 taken;		/* posted interrupts */
	u64 msr_exits;		/* in the last visit, a bit for each of msr_reads */
};

enum l1_op { L1_VISIT, L1_SWITCH, L1_FILL };

static struct l1_mail {
	/* Set by the host, @seq last. */
	u64 op;
	u64 first, nr;		/* of the pages to fill */
	u64 notify;		/* of L2's posted interrupts, by L1 itself */
	u64 seq;
	u64 stop;

	u64 current;		/* L2 */
	u64 overdue;		/* posted interrupts that L2 has not taken in a visit */
	u64 turns;		/* of L1, waiting for an order */
	u64 done;		/* the last order that L1 has carried out */
	u64 visits;
	u64 failures;		/* entries that failed, #GPs of L1 and L2 */
	u64 exit_code;		/* of the last failed entry */
	struct nested_l2 l2[L2S_PER_VCPU];
	struct l2_mail l2_mail[L2S_PER_VCPU];
} l1_mails[NR_VCPUS];

static u64 guest_arch;

/* Of vCPU 0 of an L1 with VMCSs, where the host has posted interrupts. */
static u64 l1_posts;

/* For an L1 with eVMCSs. */
static struct hyperv_test_pages *l1_hv;
static u64 l1_hypercall_gpa;

static bool evmcs_supported(void)
{
	return nested_archs[NESTED_VMX].supported() &&
	       kvm_has_cap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS);
}

static void evmcs_l1_init(void *scratch, u64 scratch_gpa)
{
	wrmsr(HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	wrmsr(HV_X64_MSR_HYPERCALL, l1_hypercall_gpa);
	enable_vp_assist(l1_hv->vp_assist_gpa, l1_hv->vp_assist);
	evmcs_enable();
	l1_enable_vmx(scratch, scratch_gpa);
}

/* L1 does not write to the eVMCS here: it is KVM's writes that are looked for. */
static void evmcs_load(struct nested_l2 *l2)
{
	evmcs_vmptrld(l2->vmx.vmcs, (void *)l2->vmx.vmcs);
}

static void evmcs_make(struct nested_l2 *l2, u64 gpa, void *rip, u64 rsp)
{
	vmx_l2_place(&l2->vmx, gpa);
	memset((void *)gpa, 0, PAGE_SIZE);
	evmcs_load(l2);
	current_evmcs->revision_id = EVMCS_VERSION;
	/* An eVMCS has no APIC-access page. */
	vmx_l2_fill_vmcs(&l2->vmx, rip, rsp, VMX_L2_EPT | VMX_L2_MSR_BITMAP |
					     VMX_L2_TPR_SHADOW);
}

static const struct nested_arch evmcs_arch = {
	.name		= "evmcs",
	.supported	= evmcs_supported,
	.pages_per_l2	= VMX_PAGES_PER_L2,
	.private_page	= 4,
	.l1_init	= evmcs_l1_init,
	.make		= evmcs_make,
	.load		= evmcs_load,
	.enter		= vmx_enter,
	.skip		= vmx_skip,
	.exit_code	= vmx_exit_code,
};

static const struct nested_arch *const archs[NR_ARCHS] = {
	[ARCH_SVM] = &nested_archs[NESTED_SVM],
	[ARCH_VMX] = &nested_archs[NESTED_VMX],
	[ARCH_EVMCS] = &evmcs_arch,
};

/* One more page is for the posted-interrupt descriptor. */
static u64 pages_per_l2(void)
{
	return archs[guest_arch]->pages_per_l2 + 1;
}

static u64 l2_pages(u32 cpu, u32 l2)
{
	return MEM_GPA + (cpu * L2S_PER_VCPU + l2) * pages_per_l2() * PAGE_SIZE;
}

static u64 l2_private(u32 cpu, u32 l2)
{
	return l2_pages(cpu, l2) + archs[guest_arch]->private_page * PAGE_SIZE;
}

/* L2's RSP when it exits: a stack still, and different from the last ones. */
static u64 l2_token(u64 private, u64 n)
{
	return private + PAGE_SIZE / 4 + n % 64 * 16;
}

/* Posted interrupts come at any task priority. */
static u32 l2_tpr(u64 n)
{
	return (n % 14 + 1) << 4;
}

static void l2_call(u64 token)
{
	if (guest_arch == ARCH_SVM)
		asm volatile("xchg %%rsp, %0\n\tvmmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
	else
		asm volatile("xchg %%rsp, %0\n\tvmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
}

#define POSTED_VECTOR	0xf1	/* L2's */
#define NOTIFY_VECTOR	0xf2	/* L1's */
#define PATIENCE	BIT(20)

static void l2_posted_handler(struct ex_regs *regs)
{
	struct l1_mail *m = &l1_mails[0];

	m->l2_mail[m->current].taken++;
	WRITE_ONCE(*(u32 *)(m->l2[m->current].vmx.apic_access + APIC_EOI), 0);
}

/* The task priority is written by MOV to CR8 first, and to the APIC page then. */
static void l2_main(struct l2_mail *m, u64 private, u32 *tpr)
{
	const struct msr_read *r = msr_reads[guest_arch];
	u64 n, cr8;
	u32 i;

	for (;;) {
		while (READ_ONCE(m->hold))
			WRITE_ONCE(m->turns, m->turns + 1);

		n = m->n + 1;
		for (i = 0; m->posted && i < PATIENCE && READ_ONCE(m->taken) < n; i++)
			cpu_relax();
		for (i = 0; i < MAX_MSRS && r[i].msr; i++)
			rdmsr(r[i].msr);
		if (tpr) {
			cr8 = l2_tpr(n + 1) >> 4;
			asm volatile("mov %0, %%cr8" : : "r"(cr8) : "memory");
			WRITE_ONCE(*tpr, l2_tpr(n));
		}
		WRITE_ONCE(m->n, n);
		l2_call(l2_token(private, n));
	}
}

/* What L2 is to take in its next visit. */
static void l1_post(struct vmx_l2 *l2)
{
	l2->pi_desc->pir[POSTED_VECTOR / 64] = BIT_ULL(POSTED_VECTOR % 64);
	WRITE_ONCE(l2->pi_desc->control, l2->pi_desc->control | VMX_PI_ON);
}

static void l1_check_taken(struct l1_mail *m, struct vmx_l2 *l2)
{
	if (l2->pi_desc->control & VMX_PI_ON || l2->pi_desc->pir[POSTED_VECTOR / 64])
		m->overdue++;
}

static void l1_make_posted(struct vmx_l2 *l2, u64 gpa)
{
	l2->pi_desc = (void *)(gpa + (pages_per_l2() - 1) * PAGE_SIZE);
	l2->pi_nv = NOTIFY_VECTOR;
	vmx_l2_init_vmcs(l2, l2_main, vmreadz(GUEST_RSP),
			 VMX_L2_EPT | VMX_L2_MSR_BITMAP | VMX_L2_TPR_SHADOW |
			 VMX_L2_APIC_ACCESS | VMX_L2_POSTED);
	l1_post(l2);
}

static void l1_make(const struct nested_arch *arch, u32 cpu, u32 nr)
{
	struct l1_mail *m = &l1_mails[cpu];
	struct nested_l2 *l2 = &m->l2[nr];
	u64 tpr = 0;

	arch->make(l2, l2_pages(cpu, nr), l2_main, l2_private(cpu, nr) + PAGE_SIZE - 8);
	m->l2_mail[nr].posted = l1_posts && !cpu;
	if (m->l2_mail[nr].posted)
		l1_make_posted(&l2->vmx, l2_pages(cpu, nr));
	/* An L2 that spins can be interrupted. */
	if (guest_arch != ARCH_SVM)
		vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | X86_EFLAGS_IF);
	if (guest_arch == ARCH_VMX)
		tpr = (u64)l2->vmx.apic_access + APIC_TASKPRI;
	l2->gpr[L2_RDI] = (u64)&m->l2_mail[nr];
	l2->gpr[L2_RSI] = l2_private(cpu, nr);
	l2->gpr[L2_RDX] = tpr;
}

/* Where L1 waits it makes exits, for Bochs' sake again. */
static void l1_relax(void)
{
	(void)this_cpu_has(X86_FEATURE_VMX);
}

static void l1_note_msr(struct nested_l2 *l2, struct l2_mail *m)
{
	const struct msr_read *r = msr_reads[guest_arch];
	u32 i;

	for (i = 0; i < MAX_MSRS; i++) {
		if (r[i].msr && r[i].msr == (u32)l2->gpr[L2_RCX])
			m->msr_exits |= BIT(i);
	}
}

static void l1_visit(const struct nested_arch *arch, struct l1_mail *m, u32 nr)
{
	struct nested_l2 *l2 = &m->l2[nr];
	enum nested_exit exit;

	m->l2_mail[nr].msr_exits = 0;
	m->current = nr;
	if (arch->load)
		arch->load(l2);
	/* Interrupts are off, so it is pending when L2 is entered. */
	if (l1_posts && READ_ONCE(m->notify))
		x2apic_write_reg(APIC_ICR, APIC_DEST_SELF | APIC_DM_FIXED | NOTIFY_VECTOR);
	do {
		exit = arch->enter(l2);
		if (exit == EXIT_NONE) {
			m->exit_code = arch->exit_code(l2);
			WRITE_ONCE(m->failures, m->failures + 1);
			l1_relax();
			continue;
		}
		if (exit == EXIT_MSR)
			l1_note_msr(l2, &m->l2_mail[nr]);
		arch->skip(l2, exit);
	} while (exit != EXIT_CALL);
	if (m->l2_mail[nr].posted) {
		l1_check_taken(m, &l2->vmx);
		l1_post(&l2->vmx);
	}
	WRITE_ONCE(m->visits, m->visits + 1);
}

static void l1_visit_all(const struct nested_arch *arch, struct l1_mail *m)
{
	l1_visit(arch, m, TESTED);
	l1_visit(arch, m, OTHER);
}

/* Writes to pages one by one; with an exit each, so that KVM logs them one by one. */
static void l1_fill(u64 first, u64 nr)
{
	for (; nr--; first++) {
		(*(u64 *)(FILL_GPA + first * PAGE_SIZE))++;
		l1_relax();
	}
}

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	const struct nested_arch *arch = archs[guest_arch];
	struct l1_mail *m = &l1_mails[cpu];
	u64 seq;
	u32 i;

	if (l1_posts)
		x2apic_enable();
	arch->l1_init(scratch, scratch_gpa);
	for (i = 0; i < L2S_PER_VCPU; i++)
		l1_make(arch, cpu, i);

	for (;;) {
		WRITE_ONCE(m->turns, m->turns + 1);
		l1_relax();
		seq = READ_ONCE(m->seq);
		if (seq == m->done)
			continue;
		switch (m->op) {
		case L1_VISIT:
			l1_visit_all(arch, m);
			l1_visit_all(arch, m);
			break;
		case L1_SWITCH:
			while (!READ_ONCE(m->stop))
				l1_visit_all(arch, m);
			break;
		default:
			l1_fill(m->first, m->nr);
			break;
		}
		WRITE_ONCE(m->done, seq);
	}
}

/*
 * Where the host does not let KVM reach the control block, VMRUN and the other
 * instructions on it raise #GP, and so does L2's exit.  They are tried again.
 */
static void guest_gp_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&l1_mails[0].failures, 1);
	l1_relax();
}

#endif /* SELFTEST_KVM_NESTED_HOST_MEMORY_L1_H */
