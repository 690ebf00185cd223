/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Posted interrupts for L2: the guests.
 *
 * L1 has two vCPUs that run L2s, and a third that posts interrupts to them.  L2
 * has a virtual APIC whose interrupts the processor delivers by itself, and takes
 * them without an exit.  It counts each vector, and so does whoever posts it: in
 * the end the counts are equal, or an interrupt was lost, delivered twice, or
 * delivered to another L2.
 *
 * L1 is as careful as hypervisors are.  An L2's descriptor may be posted to while
 * no vCPU has loaded it, or while it moves; so L1 says first on which vCPU L2 will
 * run, and looks at the descriptor then.  Whoever posts notifies the vCPU that L2
 * was said to be on, if nobody else has since L2's vCPU looked last.
 */
#ifndef SELFTEST_KVM_NESTED_POSTED_INTERRUPT_L1_H
#define SELFTEST_KVM_NESTED_POSTED_INTERRUPT_L1_H

#include "apic.h"
#include "nested_context_vmx.h"

#define NR_RUNNERS	2
#define SENDER		NR_RUNNERS	/* the vCPU that posts */
#define NR_VCPUS	(NR_RUNNERS + 1)
#define MAX_L2S		6

/* L1's vectors; with one notification vector for all L2s it is the first. */
#define FIRST_NV	0xf0
#define KICK_VECTOR	0xfe	/* look at the orders */

/* L2's vectors, fifteen to a priority class but for the first and the last. */
#define FIRST_VECTOR	0x21
#define LAST_VECTOR	0xef

#define X86_EFLAGS_IF	BIT(9)
#define X2APIC_SELF_IPI	0x83f
#define YIELD_PORT	0x99

/* What the interrupt handler finds at GS. */
struct guest_self {
	struct guest_self *self;
	bool is_l2;
};

/* An L2.  All addresses are the guest's, physical and virtual alike. */
struct l2 {
	struct guest_self who;
	u32 nr;

	/* Set by the host before L1 begins. */
	u64 vmcs;
	u64 msr_bitmap;
	u64 vapic;
	u64 apic_access;
	u64 desc;
	u64 ept;
	u64 stack;
	u32 nv;
	bool x2apic;		/* L2 uses MSRs, not the APIC-access page */
	bool cr8_exits;		/* which a TPR shadow does not exclude */
	bool l1_syncs;		/* L1 moves the vectors itself before an entry */

	/* What the host wants of L2, which tells what it has seen. */
	u32 halts;		/* sleep, instead of spinning */
	u32 tpr;		/* interrupts up to this priority are masked */
	u32 off;		/* all are, by RFLAGS */
	u32 turns_per_visit;	/* then L1 has a turn; 0: L2 stays */
	u32 seen_tpr;
	u32 seen_off;

	/* By L2. */
	u64 turns;
	u64 asleep;
	u64 early;		/* interrupts that were taken though masked */
	u32 taken[256];
	u32 nr_log;
	u8 log[256];		/* vectors in the order in which they came */

	/* By who posts. */
	u32 posted[256];

	/* By L1. */
	struct vmx_l2 vmx;
	u32 where;		/* APIC ID of the vCPU to notify */
	u32 lock;		/* some vCPU has it loaded or launched */
	u32 syncs;		/* that L1 found a vector posted before an entry */
	u32 visits;
	u32 moves;		/* to another vCPU */
};

enum l1_order { ORDER_RUN, ORDER_POST, ORDER_STORM };

/* A vCPU of L1. */
struct l1_cpu {
	struct guest_self who;
	u32 id;
	u64 vmxon;

	/* Orders by the host, @seq last, and L1's answer. */
	enum l1_order order;
	u32 run;		/* runners: bit for each L2 that takes turns here */
	u32 keep;		/* L2s whose VMCS need not be cleared */
	bool wander;		/* let go of each L2 after its visit */
	u32 l2;			/* sender: to post to, or how many of them */
	u32 vector;
	u32 count;
	u64 seq;
	u64 done;

	u32 mine;		/* L2s that this vCPU has launched */
	u64 current;		/* VMCS */
	u32 taken[256];		/* interrupts that L1 took, by an exit or not */
	u32 to_guest[256];	/* those of them that were taken in L1 itself */
	u64 passes;		/* storm: that nothing could be posted */
};

static struct l2 l2s[MAX_L2S];
static struct l1_cpu l1_cpus[NR_VCPUS];

/* ---- Both ---- */

static struct guest_self *guest_self(void)
{
	struct guest_self *self;

	asm volatile("mov %%gs:0, %0" : "=r"(self));
	return self;
}

static void l2_end_of_interrupt(struct l2 *l2)
{
	if (l2->x2apic)
		wrmsr(APIC_BASE_MSR + (APIC_EOI >> 4), 0);
	else
		WRITE_ONCE(*(u32 *)(l2->apic_access + APIC_EOI), 0);
}

static void guest_interrupt(struct ex_regs *regs)
{
	struct guest_self *self = guest_self();
	struct l1_cpu *cpu = (void *)self;
	struct l2 *l2 = (void *)self;

	if (!self->is_l2) {
		cpu->taken[regs->vector]++;
		cpu->to_guest[regs->vector]++;
		x2apic_write_reg(APIC_EOI, 0);
		return;
	}
	if ((regs->vector & 0xf0) <= l2->seen_tpr || l2->seen_off)
		l2->early++;
	l2->log[l2->nr_log++ % ARRAY_SIZE(l2->log)] = regs->vector;
	WRITE_ONCE(l2->taken[regs->vector], l2->taken[regs->vector] + 1);
	l2_end_of_interrupt(l2);
}

/* Interrupts are on while the processor sleeps, and off again afterwards. */
static void guest_sleep(void)
{
	asm volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/* ---- L2 ---- */

/* Never says that vectors are masked which may still come. */
static void l2_mask(struct l2 *l2)
{
	u64 tpr = READ_ONCE(l2->tpr);
	u32 off = READ_ONCE(l2->off);

	if (tpr != l2->seen_tpr) {
		if (tpr < l2->seen_tpr)
			WRITE_ONCE(l2->seen_tpr, tpr);
		asm volatile("mov %0, %%cr8" : : "r"(tpr >> 4) : "memory");
		WRITE_ONCE(l2->seen_tpr, tpr);
	}
	if (off != l2->seen_off) {
		if (off)
			asm volatile("cli" : : : "memory");
		WRITE_ONCE(l2->seen_off, off);
		if (!off)
			asm volatile("sti" : : : "memory");
	}
}

static void l2_main(void)
{
	struct l2 *l2 = (void *)guest_self();

	for (;;) {
		l2_mask(l2);
		if (READ_ONCE(l2->halts)) {
			WRITE_ONCE(l2->asleep, true);
			asm volatile("hlt" : : : "memory");
			WRITE_ONCE(l2->asleep, false);
		} else {
			cpu_relax();
		}
		WRITE_ONCE(l2->turns, l2->turns + 1);
		if (READ_ONCE(l2->turns_per_visit) &&
		    l2->turns % l2->turns_per_visit == 0)
			asm volatile("vmcall" : : : "memory");
	}
}

/* ---- L1: posting ---- */

static void l1_send(u32 to, u32 vector)
{
	x2apic_write_reg(APIC_ICR, (u64)to << 32 | APIC_DM_FIXED | vector);
}

static void l1_post(struct l2 *l2, u32 vector)
{
	WRITE_ONCE(l2->posted[vector], l2->posted[vector] + 1);
	if (vmx_pi_post((void *)l2->desc, vector))
		l1_send(READ_ONCE(l2->where), l2->nv);
}

static void l1_yield(void)
{
	asm volatile("out %%al, %%dx" : : "d"((u16)YIELD_PORT) : "memory");
}

/*
 * Any vector of any L2, so many times; one that L2 has not taken yet is not posted
 * again.  Now and then L2's vCPU gets an interrupt of its own, so that L2 exits.
 */
static void l1_storm(struct l1_cpu *cpu, u32 nr_l2, u32 count)
{
	struct guest_random_state random = new_guest_random_state(count);
	u32 vector, passes = 0;
	struct l2 *l2;

	while (count) {
		l2 = &l2s[guest_random_u32(&random) % nr_l2];
		vector = FIRST_VECTOR +
			 guest_random_u32(&random) % (LAST_VECTOR - FIRST_VECTOR + 1);
		if (READ_ONCE(l2->taken[vector]) == l2->posted[vector]) {
			l1_post(l2, vector);
			if (--count % 64 == 0)
				l1_send(READ_ONCE(l2->where), KICK_VECTOR);
			passes = 0;
		} else if (++passes > 64) {
			cpu->passes++;
			l1_yield();
			passes = 0;
		}
	}
}

/* ---- L1: running ---- */

static void l1_make(struct l2 *l2)
{
	struct vmx_l2 *vmx = &l2->vmx;

	vmx->vmcs = l2->vmcs;
	vmx->msr_bitmap = (u8 *)l2->msr_bitmap;
	vmx->vapic = (u8 *)l2->vapic;
	vmx->apic_access = (u8 *)l2->apic_access;
	vmx->ept = (u64 *)l2->ept;
	vmx->pi_desc = (void *)l2->desc;
	vmx->pi_nv = l2->nv;
	vmx_l2_init_vmcs(vmx, l2_main, l2->stack + PAGE_SIZE - 8,
			 VMX_L2_MSR_BITMAP | VMX_L2_TPR_SHADOW | VMX_L2_EPT |
			 VMX_L2_POSTED | (l2->x2apic ? 0 : VMX_L2_APIC_ACCESS));
	if (l2->x2apic)
		GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL,
				      vmreadz(SECONDARY_VM_EXEC_CONTROL) |
				      SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE));
	if (l2->cr8_exits)
		GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
				      vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
				      CPU_BASED_CR8_LOAD_EXITING |
				      CPU_BASED_CR8_STORE_EXITING));
	GUEST_ASSERT(!vmwrite(GUEST_GS_BASE, (u64)&l2->who));
	/* Bochs holds L0's interrupts back while L2 has its own off. */
	GUEST_ASSERT(!vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | X86_EFLAGS_IF));

	GUEST_ASSERT(!vmclear(vmx->vmcs));
}

static void l1_let_go(struct l1_cpu *cpu, struct l2 *l2)
{
	GUEST_ASSERT(!vmclear(l2->vmcs));
	if (cpu->current == l2->vmcs)
		cpu->current = 0;
	l2->vmx.launched = false;
	cpu->mine &= ~BIT(l2->nr);
	__sync_lock_release(&l2->lock);
}

/* Returns false if another vCPU has it. */
static bool l1_load(struct l1_cpu *cpu, struct l2 *l2)
{
	if (!(cpu->mine & BIT(l2->nr))) {
		if (__sync_lock_test_and_set(&l2->lock, 1))
			return false;
		cpu->mine |= BIT(l2->nr);
	}
	if (cpu->current != l2->vmcs) {
		GUEST_ASSERT(!vmptrld(l2->vmcs));
		cpu->current = l2->vmcs;
	}
	if (!l2->vmx.launched) {
		GUEST_ASSERT(!vmwrite(HOST_GS_BASE, (u64)&cpu->who));
		GUEST_ASSERT(!vmwrite(POSTED_INTR_DESC_ADDR, l2->desc));
	}
	return true;
}

/* From the descriptor to the virtual APIC, as the processor does it. */
static void l1_sync_vectors(struct l2 *l2)
{
	struct vmx_pi_desc *desc = (void *)l2->desc;
	u64 status = vmreadz(GUEST_INTR_STATUS);
	u32 i, highest = 0;
	u64 pir;

	__sync_fetch_and_and(&desc->control, ~VMX_PI_ON);
	for (i = 0; i < ARRAY_SIZE(desc->pir); i++) {
		pir = __sync_lock_test_and_set(&desc->pir[i], 0);
		if (!pir)
			continue;
		*(u32 *)(l2->vapic + APIC_IRR + 32 * i) |= pir;
		*(u32 *)(l2->vapic + APIC_IRR + 32 * i + 16) |= pir >> 32;
		highest = 64 * i + 63 - __builtin_clzll(pir);
	}
	if (highest > (status & 0xff))
		GUEST_ASSERT(!vmwrite(GUEST_INTR_STATUS, (status & ~0xffull) | highest));
}

/*
 * Runs L2 until it calls, or there may be an order.  Interrupts are off: what
 * arrives now is taken once L2 runs, by an exit or as a notification.
 */
static void l1_visit(struct l1_cpu *cpu, struct l2 *l2)
{
	struct vmx_pi_desc *desc = (void *)l2->desc;
	u32 reason, vector;

	l2->visits++;
	for (;;) {
		l2->moves += __sync_lock_test_and_set(&l2->where, cpu->id) != cpu->id;
		if (READ_ONCE(desc->control) & VMX_PI_ON) {
			l2->syncs++;
			if (l2->l1_syncs)
				l1_sync_vectors(l2);
			else
				wrmsr(X2APIC_SELF_IPI, l2->nv);
		}
		__GUEST_ASSERT(!vmx_l2_enter(&l2->vmx, l2->vmx.launched),
			       "VMfail of L2 %u: %lu", l2->nr,
			       vmreadz(VM_INSTRUCTION_ERROR));
		l2->vmx.launched = true;

		reason = vmreadz(VM_EXIT_REASON);
		if (reason == EXIT_REASON_VMCALL) {
			vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + VMX_L2_VMCALL_LEN);
			return;
		}
		__GUEST_ASSERT(reason == EXIT_REASON_EXTERNAL_INTERRUPT,
			       "Exit %u of L2 %u, qualification %lx", reason, l2->nr,
			       vmreadz(EXIT_QUALIFICATION));
		vector = vmreadz(VM_EXIT_INTR_INFO) & 0xff;
		cpu->taken[vector]++;
		x2apic_write_reg(APIC_EOI, 0);
		if (vector == KICK_VECTOR)
			return;
	}
}

static void l1_run(struct l1_cpu *cpu)
{
	u32 i;

	for (i = 0; i < MAX_L2S && READ_ONCE(cpu->seq) == cpu->done; i++) {
		if (!(cpu->run & BIT(i)) || !l1_load(cpu, &l2s[i]))
			continue;
		l1_visit(cpu, &l2s[i]);
		if (cpu->wander) {
			l1_let_go(cpu, &l2s[i]);
			l1_yield();
		}
	}
}

/* Stops what the order does not say to run. */
static void l1_take_order(struct l1_cpu *cpu, u64 seq)
{
	u32 i;

	for (i = 0; i < MAX_L2S; i++) {
		if (cpu->mine & ~cpu->run & ~cpu->keep & BIT(i))
			l1_let_go(cpu, &l2s[i]);
	}
	if (cpu->order == ORDER_POST)
		l1_post(&l2s[cpu->l2], cpu->vector);
	else if (cpu->order == ORDER_STORM)
		l1_storm(cpu, cpu->l2, cpu->count);
	WRITE_ONCE(cpu->done, seq);
}

static void l1_main(struct l1_cpu *cpu, u32 nr_l2)
{
	u64 seq;
	u32 i;

	cpu->who.self = &cpu->who;
	wrmsr(MSR_GS_BASE, (u64)&cpu->who);
	x2apic_enable();
	if (cpu->vmxon)
		l1_enable_vmx((void *)cpu->vmxon, cpu->vmxon);
	for (i = 0; i < nr_l2; i++) {
		l2s[i].nr = i;
		l2s[i].who.self = &l2s[i].who;
		l2s[i].who.is_l2 = true;
		l1_make(&l2s[i]);
	}
	for (;;) {
		seq = READ_ONCE(cpu->seq);
		if (seq != cpu->done)
			l1_take_order(cpu, seq);
		else if (cpu->run)
			l1_run(cpu);
		else
			guest_sleep();
	}
}

#endif /* SELFTEST_KVM_NESTED_POSTED_INTERRUPT_L1_H */
