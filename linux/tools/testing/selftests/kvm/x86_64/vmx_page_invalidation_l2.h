/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guests of vmx_page_invalidation_test: an L2 that the host commands through
 * memory while it runs, and an L1 that only enters it.
 *
 * L2 makes no exit of its own.  Its turns are short, and in each the processor
 * uses both pages of L1 that it reaches by address and not through L1's page
 * tables: MOV CR8 goes to the virtual-APIC page, and so does an access to the
 * task priority in the APIC-access page, if the processor recognises that page.
 */
#ifndef SELFTEST_KVM_VMX_PAGE_INVALIDATION_L2_H
#define SELFTEST_KVM_VMX_PAGE_INVALIDATION_L2_H

#include "apic.h"
#include "nested_context_vmx.h"

#define MAX_L2S		2
#define X86_EFLAGS_IF	BIT(9)

enum l2_op {
	L2_READ,	/* the task priority, both ways */
	L2_WRITE_CR8,	/* once, then read */
	L2_WRITE_TPR,	/* the same by the APIC-access page */
	L2_KEEP_WRITING,/* in each turn, until there is another order */
};

/* Between the host and one L2, in memory that both just read and write. */
struct l2_mail {
	/* Set by the host, @seq last. */
	u64 op;
	u64 value;
	u64 seq;
	u64 turns_per_visit;	/* then L1 has a turn; 0: L2 stays */

	/* Set by L2; @cr8, @tpr and @last before @done. */
	u64 turns;
	u64 cr8;		/* what L2 read when it carried out the order */
	u64 tpr;
	u64 last;		/* VTPR as L2 wrote it last */
	u64 done;
};

static struct l2_mail l2_mails[MAX_L2S];

static u64 l2_read_cr8(void)
{
	u64 cr8;

	asm volatile("mov %%cr8, %0" : "=r"(cr8) : : "memory");
	return cr8;
}

static void l2_write_cr8(struct l2_mail *m, u64 class)
{
	asm volatile("mov %0, %%cr8" : : "r"(class) : "memory");
	m->last = class << 4;
}

static void l2_write_tpr(struct l2_mail *m, u32 *tpr, u32 value)
{
	WRITE_ONCE(*tpr, value);
	m->last = value;
}

/* Keeps nothing between turns but in @m, so L1 may start it anew. */
static void l2_main(struct l2_mail *m, u32 *tpr)
{
	u64 seq, op, turn;

	for (;;) {
		turn = m->turns;
		seq = READ_ONCE(m->seq);
		op = READ_ONCE(m->op);
		if (op == L2_KEEP_WRITING) {
			if (turn % 2)
				l2_write_cr8(m, turn % 16);
			else
				l2_write_tpr(m, tpr, turn % 256);
		}
		if (seq != m->done) {
			if (op == L2_WRITE_CR8)
				l2_write_cr8(m, READ_ONCE(m->value));
			else if (op == L2_WRITE_TPR)
				l2_write_tpr(m, tpr, READ_ONCE(m->value));
			m->cr8 = l2_read_cr8();
			m->tpr = READ_ONCE(*tpr);
			WRITE_ONCE(m->done, seq);
		} else if (op != L2_KEEP_WRITING) {
			(void)l2_read_cr8();
			(void)READ_ONCE(*tpr);
		}
		WRITE_ONCE(m->turns, turn + 1);
		if (READ_ONCE(m->turns_per_visit) && turn % m->turns_per_visit == 0)
			asm volatile("vmcall" : : : "memory");
	}
}

/* One L2's pages that are not under test.  L1 maps them where they are. */
struct l2_work {
	u8 vmcs[PAGE_SIZE];
	u8 ept[VMX_L2_EPT_PAGES][PAGE_SIZE];
	u8 stack[PAGE_SIZE];
};

struct l1_work {
	u8 vmxon[PAGE_SIZE];
	struct l2_work l2[MAX_L2S];
};

/* What L1 is to do, in its memory. */
struct l1_plan {
	u64 nr_l2;
	u32 features;
	u64 vapic[MAX_L2S];
	u64 apic_access[MAX_L2S];
};

static struct l1_plan l1_plan;
static struct vmx_l2 l1_l2s[MAX_L2S];

/* What L1 tells the host: that, with two arguments, L2 could not go on. */
enum { L1_SAW_VMFAIL = 1, L1_SAW_EXIT };

static void l1_main(struct l1_work *work)
{
	struct vmx_l2 *l2;
	u64 i, reason;

	l1_enable_vmx(work->vmxon, (u64)work->vmxon);
	for (i = 0; i < l1_plan.nr_l2; i++) {
		l2 = &l1_l2s[i];
		l2->vmcs = (u64)work->l2[i].vmcs;
		l2->ept = (u64 *)work->l2[i].ept;
		l2->vapic = (u8 *)l1_plan.vapic[i];
		l2->apic_access = (u8 *)l1_plan.apic_access[i];
		vmx_l2_init_vmcs(l2, l2_main,
				 (u64)&work->l2[i].stack[PAGE_SIZE - 8],
				 l1_plan.features);
		/* Bochs holds L0's interrupts back while L2 has its own off. */
		vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | X86_EFLAGS_IF);
		l2->gpr[VMX_L2_RDI] = (u64)&l2_mails[i];
		l2->gpr[VMX_L2_RSI] = l1_plan.apic_access[i] + APIC_TASKPRI;
	}

	for (i = 0;;) {
		l2 = &l1_l2s[i];
		GUEST_ASSERT(!vmptrld(l2->vmcs));
		if (vmx_l2_enter(l2, l2->launched)) {
			GUEST_SYNC_ARGS(L1_SAW_VMFAIL, vmreadz(VM_INSTRUCTION_ERROR),
					0, 0, 0);
			continue;
		}
		l2->launched = true;
		reason = vmreadz(VM_EXIT_REASON);
		if (reason != EXIT_REASON_VMCALL) {
			GUEST_SYNC_ARGS(L1_SAW_EXIT, reason,
					vmreadz(EXIT_QUALIFICATION), 0, 0);
			continue;
		}
		vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + VMX_L2_VMCALL_LEN);
		i = (i + 1) % l1_plan.nr_l2;
	}
}

#endif /* SELFTEST_KVM_VMX_PAGE_INVALIDATION_L2_H */
