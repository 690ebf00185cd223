/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The L2 of svm_nested_context_test, and the L1 that checks it.
 *
 * Every L2 has state of its own in each place that a nested switch touches:
 * all general purpose registers and flags, CR2, DR6, DR7, the MSRs that VMLOAD
 * and VMSAVE move, table limits, its private page, and an MSR permission map like
 * no other's.  In each round L1 gives all of it new values, L2 notes what it
 * got and answers with values of its own, and L1 checks both sides.  A value
 * is a hash of who, when and what, so one that strays is seen.
 */
#ifndef SELFTEST_KVM_SVM_NESTED_CONTEXT_L2_H
#define SELFTEST_KVM_SVM_NESTED_CONTEXT_L2_H

#include "nested_context_svm.h"

/* An OUT to this port leaves L2 for L0's user space; L1 doesn't intercept it. */
#define L2_PAUSE_PORT		0x99
/* L2's #GP handler tells of itself by an OUT to this one. */
#define L2_GP_PORT		0x9a

#define L2_NR_SWAPPED		16	/* general registers without RSP, flags */
#define L2_FLAGS		15
#define L2_FLAGS_MASK		0xcd5ull	/* CF PF AF ZF SF DF OF */
#define L2_NR_MSRS		8
#define L2_NR_ACCESSES		3

/* Which way a value goes; part of its hash. */
enum l2_way { TO_L2, TO_L1, TO_MSR, FROM_MSR };

/*
 * L2's private page: its stack, then room for a handler of an exception that
 * hits L2 within l2_exchange(), where RSP points into the structure, and the
 * structure itself.  The first three fields are laid out for l2_exchange().
 */
#define L2_STACK_TOP		2048
#define L2_STRUCT_OFFSET	3072

struct l2_private {
	u64 out[L2_NR_SWAPPED];
	u64 in[L2_NR_SWAPPED];
	u64 saved_rsp;

	/* Set by L1. */
	u32 id;
	u32 nr_accesses;
	u64 msr_index[L2_NR_ACCESSES];
	u64 msr_new[L2_NR_ACCESSES];
	bool pause;

	/* Set by L2. */
	u64 round;
	u64 msr_seen[L2_NR_ACCESSES];
	u64 cr2_seen;
	u16 gdt_limit;
	u16 idt_limit;
};

/* An L2 as L1 keeps it. */
struct l2_state {
	struct l2_vcpu v;
	struct l2_private *p;
	u64 msr[L2_NR_MSRS];		/* what L2's MSRs hold */
	u64 seen[L2_NR_ACCESSES];	/* what L2's RDMSRs must give */
	u32 id;
	u32 round;
	u32 accesses;			/* MSRs that L2 tries in a round */
	u32 map;			/* number of its MSR permission map */
	u16 intercepts;			/* two bits an MSR, as in the map */
	u32 last_cpu;
	bool clean;			/* use clean bits, as a real L1 does */
	u32 lock;
};

static struct l2_state l2s[L2_MAX];

/* All of them are L2's own without an exit, unless L1's map says otherwise. */
static const u32 l2_msrs[L2_NR_MSRS] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK,
	MSR_KERNEL_GS_BASE, MSR_FS_BASE, MSR_GS_BASE, MSR_IA32_SYSENTER_CS,
};

static u64 l2_value(u32 id, u32 round, u32 what, enum l2_way way)
{
	u64 x = (u64)id << 40 | (u64)round << 16 | what << 4 | way;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull + 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static u64 l2_flags(u32 id, u32 round, enum l2_way way)
{
	return (l2_value(id, round, L2_FLAGS, way) & L2_FLAGS_MASK) |
	       X86_EFLAGS_FIXED;
}

static u64 l2_msr_value(u32 msr, u64 value)
{
	switch (l2_msrs[msr]) {
	case MSR_IA32_SYSENTER_CS:
		return value & 0xffff;
	case MSR_SYSCALL_MASK:
		return value & 0xffffffff;
	default:
		return value & 0x7fffffffffffull;
	}
}

static u64 *l2_msr_in_vmcb(struct vmcb *vmcb, u32 msr)
{
	static const u16 offset[L2_NR_MSRS] = {
		offsetof(struct vmcb, save.star),
		offsetof(struct vmcb, save.lstar),
		offsetof(struct vmcb, save.cstar),
		offsetof(struct vmcb, save.sfmask),
		offsetof(struct vmcb, save.kernel_gs_base),
		offsetof(struct vmcb, save.fs.base),
		offsetof(struct vmcb, save.gs.base),
		offsetof(struct vmcb, save.sysenter_cs),
	};

	return (void *)vmcb + offset[msr];
}

/*
 * l2_exchange - show L1 all registers, and take what L1 puts there
 *
 * Loads registers and flags from @p->out, exits to L1, stores what came back
 * to @p->in.  RSP points into @p meanwhile, so it too is L2's own.
 */
void l2_exchange(struct l2_private *p);
void l2_exchange_pause(struct l2_private *p);
extern char l2_at_vmmcall[], l2_at_vmmcall_pause[], l2_at_pause[];

#define L2_EXCHANGE(name, before, at_vmmcall)	\
	name ":\n\t"				\
	"push %rbx\n\tpush %rbp\n\t"		\
	"push %r12\n\tpush %r13\n\t"		\
	"push %r14\n\tpush %r15\n\t"		\
	"mov %rsp, 0x100(%rdi)\n\t"		\
	"mov %rdi, %rsp\n\t"			\
	"pop %rax\n\tpop %rcx\n\t"		\
	"pop %rdx\n\tpop %rbx\n\t"		\
	"pop %rbp\n\tpop %rsi\n\t"		\
	"pop %rdi\n\tpop %r8\n\t"		\
	"pop %r9\n\tpop %r10\n\t"		\
	"pop %r11\n\tpop %r12\n\t"		\
	"pop %r13\n\tpop %r14\n\t"		\
	"pop %r15\n\tpopfq\n"			\
	before					\
	at_vmmcall ":\n\t"			\
	"vmmcall\n\t"				\
	"lea 0x80(%rsp), %rsp\n\t"		\
	"pushfq\n\tpush %r15\n\t"		\
	"push %r14\n\tpush %r13\n\t"		\
	"push %r12\n\tpush %r11\n\t"		\
	"push %r10\n\tpush %r9\n\t"		\
	"push %r8\n\tpush %rdi\n\t"		\
	"push %rsi\n\tpush %rbp\n\t"		\
	"push %rbx\n\tpush %rdx\n\t"		\
	"push %rcx\n\tpush %rax\n\t"		\
	"mov 0x80(%rsp), %rsp\n\t"		\
	"pop %r15\n\tpop %r14\n\t"		\
	"pop %r13\n\tpop %r12\n\t"		\
	"pop %rbp\n\tpop %rbx\n\t"		\
	"cld\n\tret\n"

asm(".pushsection .text\n"
	L2_EXCHANGE("l2_exchange", "", "l2_at_vmmcall")
	L2_EXCHANGE("l2_exchange_pause", "out %al, $0x99\nl2_at_pause:\n",
		    "l2_at_vmmcall_pause")
	".popsection");

static void l2_main(struct l2_private *p)
{
	struct desc_ptr table;
	u64 cr2;
	u32 i;

	for (;;) {
		p->round++;

		asm volatile("sgdt %0" : "=m"(table));
		p->gdt_limit = table.size;
		asm volatile("sidt %0" : "=m"(table));
		p->idt_limit = table.size;

		for (i = 0; i < p->nr_accesses; i++) {
			p->msr_seen[i] = rdmsr(p->msr_index[i]);
			wrmsr(p->msr_index[i], p->msr_new[i]);
		}

		for (i = 0; i < L2_FLAGS; i++)
			p->out[i] = l2_value(p->id, p->round, i, TO_L1);
		p->out[L2_FLAGS] = l2_flags(p->id, p->round, TO_L1);
		cr2 = ~p->out[0];
		asm volatile("mov %0, %%cr2" : : "r"(cr2));

		if (p->pause)
			l2_exchange_pause(p);
		else
			l2_exchange(p);

		asm volatile("mov %%cr2, %0" : "=r"(cr2));
		p->cr2_seen = cr2;
	}
}

/*
 * Gives L2 one of 64 MSR permission maps: one MSR is intercepted whole, another
 * for writing.
 */
static void l2_set_map(struct l2_state *l2, u32 nr)
{
	u32 i, byte, shift;

	l2->map = nr;
	l2->intercepts = 3 << nr % 8 * 2 | 2 << nr / 8 % 8 * 2;
	for (i = 0; i < L2_NR_MSRS; i++) {
		byte = (l2_msrs[i] & 0x1fff) / 4;
		if (l2_msrs[i] >= 0xc0000000)
			byte += 0x800;
		shift = l2_msrs[i] % 4 * 2;
		l2->v.msrpm[byte] &= ~(3 << shift);
		l2->v.msrpm[byte] |= (l2->intercepts >> 2 * i & 3) << shift;
	}
}

/* The breakpoints that hit, and the bits of DR7 that do nothing. */
static u64 l2_dr6(u32 id)
{
	return 0xffff0ff0 | (id & 0xf);
}

static u64 l2_dr7(u32 id)
{
	return 0x400 | (id & 3) << 8;
}

static void l2_init(u32 i, bool npt, bool clean, u32 accesses)
{
	struct l2_state *l2 = &l2s[i];
	struct vmcb *vmcb;
	u32 m;

	memset(l2, 0, sizeof(*l2));
	l2_place(&l2->v, i);
	l2->p = l2->v.private + L2_STRUCT_OFFSET;
	l2->id = i + 1;
	l2->clean = clean;
	l2->accesses = accesses;
	l2->last_cpu = -1;

	memset(l2->v.private, 0, PAGE_SIZE);
	memset(l2->v.msrpm, 0xff, L2_MSRPM_PAGES * PAGE_SIZE);
	l2_set_map(l2, i);
	l2_init_vmcb(&l2->v, l2_main, (u64)l2->v.private + L2_STACK_TOP - 8, npt);

	vmcb = l2->v.vmcb;
	vmcb->save.gdtr.limit = 0x100 + i;
	vmcb->save.idtr.limit = 0xe00 + i;
	vmcb->save.dr6 = l2_dr6(l2->id);
	vmcb->save.dr7 = l2_dr7(l2->id);
	l2->v.gpr[L2_RDI] = (u64)l2->p;
	l2->p->id = l2->id;
	for (m = 0; m < L2_NR_MSRS; m++) {
		l2->msr[m] = l2_msr_value(m, l2_value(l2->id, 0, m, TO_MSR));
		*l2_msr_in_vmcb(vmcb, m) = l2->msr[m];
	}
}

/*
 * A round's MSR accesses: first the two that L2's map as it is now singles out,
 * then one that changes from round to round.  Even steps read, odd ones write.
 *
 * That the map's own bits are tried each time matters: a stale map shows only
 * where it lets pass what it should not.  Where it forbids too much, L0 asks
 * L1's map again at the exit and nobody sees.
 */
static u32 l2_access(struct l2_state *l2, u32 k)
{
	switch (k) {
	case 0:
		return l2->map % 8;
	case 1:
		return l2->map / 8 % 8;
	default:
		return (l2->id + l2->round) % 8;
	}
}

static bool l2_intercepted(struct l2_state *l2, u32 step)
{
	return l2->intercepts >> (2 * l2_access(l2, step / 2) + step % 2) & 1;
}

/* Does to the model what L2 does without an exit, up to the next with one. */
static u32 l2_skip_free_accesses(struct l2_state *l2, u32 step)
{
	u32 msr;

	for (; step < 2 * l2->accesses && !l2_intercepted(l2, step); step++) {
		msr = l2_access(l2, step / 2);
		if (step % 2)
			l2->msr[msr] = l2->p->msr_new[step / 2];
		else
			l2->seen[step / 2] = l2->msr[msr];
	}
	return step;
}

static u32 l2_emulate_msr(struct l2_state *l2, u32 step)
{
	struct vmcb *vmcb = l2->v.vmcb;
	u64 value;
	u32 msr;

	step = l2_skip_free_accesses(l2, step);
	__GUEST_ASSERT(step < 2 * l2->accesses,
		       "L2 %u round %u: exit for MSR %lx, which its map allows",
		       l2->id, l2->round, l2->v.gpr[L2_RCX]);
	msr = l2_access(l2, step / 2);
	__GUEST_ASSERT(l2->v.gpr[L2_RCX] == l2_msrs[msr] &&
		       vmcb->control.exit_info_1 == step % 2,
		       "L2 %u round %u: %s of MSR %lx exits, %s of %x should be next",
		       l2->id, l2->round, vmcb->control.exit_info_1 ? "write" : "read",
		       l2->v.gpr[L2_RCX], step % 2 ? "write" : "read", l2_msrs[msr]);

	if (step % 2) {
		value = (u32)vmcb->save.rax | l2->v.gpr[L2_RDX] << 32;
		GUEST_ASSERT_EQ(value, l2->p->msr_new[step / 2]);
	} else {
		value = l2_value(l2->id, l2->round, step, FROM_MSR);
		l2->seen[step / 2] = value;
		vmcb->save.rax = (u32)value;
		l2->v.gpr[L2_RDX] = value >> 32;
	}
	vmcb->save.rip += L2_MSR_INSN_LEN;
	return step + 1;
}

/* The place in l2_private's arrays of each register that L1 finds in gpr[]. */
static const u8 l2_gpr_place[L2_NR_GPRS] = {
	[L2_RCX] = 1, [L2_RDX] = 2, [L2_RBX] = 3, [L2_RBP] = 4, [L2_RSI] = 5,
	[L2_RDI] = 6, [L2_R8] = 7, [L2_R9] = 8, [L2_R10] = 9, [L2_R11] = 10,
	[L2_R12] = 11, [L2_R13] = 12, [L2_R14] = 13, [L2_R15] = 14,
};

/* Gives L2 new values wherever L1 may, for the round that begins. */
static void l2_prepare(struct l2_state *l2)
{
	struct vmcb *vmcb = l2->v.vmcb;
	u32 i, msr;

	if (l2->round) {
		for (i = 0; i < L2_NR_GPRS; i++)
			l2->v.gpr[i] = l2_value(l2->id, l2->round, l2_gpr_place[i], TO_L2);
		vmcb->save.rax = l2_value(l2->id, l2->round, 0, TO_L2);
		vmcb->save.rflags = l2_flags(l2->id, l2->round, TO_L2);
		vmcb->save.cr2 = ~vmcb->save.rax;
		vmcb->save.rip += L2_VMMCALL_LEN;
	}
	l2->round++;

	/* KVM loses DR7 when it saves and restores a vCPU that is in L2. */
	if (vmcb->save.dr7 != l2_dr7(l2->id)) {
		vmcb->save.dr7 = l2_dr7(l2->id);
		l2->last_cpu = -1;
	}

	msr = l2->round % L2_NR_MSRS;
	l2->msr[msr] = l2_msr_value(msr, l2_value(l2->id, l2->round, msr, TO_MSR));
	*l2_msr_in_vmcb(vmcb, msr) = l2->msr[msr];

	l2->p->nr_accesses = l2->accesses;
	for (i = 0; i < l2->accesses; i++) {
		msr = l2_access(l2, i);
		l2->p->msr_index[i] = l2_msrs[msr];
		l2->p->msr_new[i] = l2_msr_value(msr, l2_value(l2->id, l2->round,
							       100 + i, TO_MSR));
	}
}

/* What L2 noted of that which L1 had given it in the round before. */
static void l2_check_received(struct l2_state *l2)
{
	struct l2_private *p = l2->p;
	u32 i, round = l2->round - 1;

	if (!round)
		return;

	for (i = 0; i < L2_FLAGS; i++)
		__GUEST_ASSERT(p->in[i] == l2_value(l2->id, round, i, TO_L2),
			       "L2 %u round %u: wrong value %lx in its register %u",
			       l2->id, l2->round, p->in[i], i);
	GUEST_ASSERT_EQ(p->in[L2_FLAGS] & L2_FLAGS_MASK,
			l2_flags(l2->id, round, TO_L2) & L2_FLAGS_MASK);
	GUEST_ASSERT_EQ(p->cr2_seen, ~p->in[0]);
}

static void l2_check(struct l2_state *l2)
{
	struct vmcb *vmcb = l2->v.vmcb;
	struct l2_private *p = l2->p;
	u64 *rip = (u64 *)(p->pause ? l2_at_vmmcall_pause : l2_at_vmmcall);
	u32 i;

	__GUEST_ASSERT(p->round == l2->round, "L2 %u made %lu rounds of %u",
		       l2->id, p->round, l2->round);

	for (i = 0; i < L2_NR_GPRS; i++) {
		if (i == L2_RAX || i == L2_RSP)
			continue;
		__GUEST_ASSERT(l2->v.gpr[i] == l2_value(l2->id, l2->round,
							l2_gpr_place[i], TO_L1),
			       "L2 %u round %u: wrong value %lx from register %u",
			       l2->id, l2->round, l2->v.gpr[i], i);
	}
	GUEST_ASSERT_EQ(vmcb->save.rax, l2_value(l2->id, l2->round, 0, TO_L1));
	GUEST_ASSERT_EQ(vmcb->save.rsp, (u64)&p->in[0]);
	GUEST_ASSERT_EQ(vmcb->save.rip, (u64)rip);
	GUEST_ASSERT_EQ(vmcb->save.rflags & L2_FLAGS_MASK,
			l2_flags(l2->id, l2->round, TO_L1) & L2_FLAGS_MASK);
	GUEST_ASSERT_EQ(vmcb->save.cr2, ~vmcb->save.rax);
	GUEST_ASSERT_EQ(vmcb->save.dr6, l2_dr6(l2->id));
	if (!p->pause)
		GUEST_ASSERT_EQ(vmcb->save.dr7, l2_dr7(l2->id));
	GUEST_ASSERT_EQ(p->gdt_limit, 0x100 + l2->id - 1);
	GUEST_ASSERT_EQ(p->idt_limit, 0xe00 + l2->id - 1);
	GUEST_ASSERT_EQ(vmcb->save.gdtr.limit, 0x100 + l2->id - 1);
	GUEST_ASSERT_EQ(vmcb->save.idtr.limit, 0xe00 + l2->id - 1);

	for (i = 0; i < L2_NR_MSRS; i++)
		__GUEST_ASSERT(*l2_msr_in_vmcb(vmcb, i) == l2->msr[i],
			       "L2 %u round %u: MSR %x is %lx, not %lx",
			       l2->id, l2->round, l2_msrs[i],
			       *l2_msr_in_vmcb(vmcb, i), l2->msr[i]);
	for (i = 0; i < l2->accesses; i++)
		__GUEST_ASSERT(p->msr_seen[i] == l2->seen[i],
			       "L2 %u round %u: read %lx of MSR %lx, not %lx",
			       l2->id, l2->round, p->msr_seen[i],
			       p->msr_index[i], l2->seen[i]);
	l2_check_received(l2);
}

/*
 * Lets L2 make one round on L1's vCPU @cpu and checks everything.
 *
 * Clean bits say that nothing changed since the block last ran on this CPU;
 * after a move to another, L1 must clear them.
 */
static void l2_step(struct l2_state *l2, u32 cpu)
{
	const u32 clean = BIT(6) | BIT(7) | BIT(8);	/* DR, tables, segments */
	struct vmcb *vmcb = l2->v.vmcb;
	u32 step = 0;

	l2_prepare(l2);
	for (;;) {
		vmcb->control.clean = l2->clean && l2->last_cpu == cpu ? clean : 0;
		l2->last_cpu = cpu;
		l2_vmrun(&l2->v, l2->v.vmcb_gpa);
		if (vmcb->control.exit_code != SVM_EXIT_MSR)
			break;
		step = l2_emulate_msr(l2, step);
	}
	__GUEST_ASSERT(vmcb->control.exit_code == SVM_EXIT_VMMCALL,
		       "L2 %u round %u: exit %x", l2->id, l2->round,
		       vmcb->control.exit_code);
	step = l2_skip_free_accesses(l2, step);
	__GUEST_ASSERT(step == 2 * l2->accesses,
		       "L2 %u round %u: no exit for access %u, which its map forbids",
		       l2->id, l2->round, step);
	l2_check(l2);
}

#endif /* SELFTEST_KVM_SVM_NESTED_CONTEXT_L2_H */
