/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The L2 of vmx_nested_context_test, and the L1 that checks it.
 *
 * Every L2 has state of its own in each place that a nested switch touches:
 * registers and flags, fields of its VMCS, the MSRs that may be its own without
 * an exit, an MSR bitmap like no other's, the task priority in its virtual-APIC
 * page, an APIC-access page, a shadow VMCS, its private page.  In each round L1
 * gives all of it new values, L2 notes what it got and answers with values of
 * its own, and L1 checks both sides.  A value is a hash of who, when and what,
 * so one that strays is seen.
 */
#ifndef SELFTEST_KVM_VMX_NESTED_CONTEXT_L2_H
#define SELFTEST_KVM_VMX_NESTED_CONTEXT_L2_H

#include "nested_context_vmx.h"

#define L2_MAX			16

/* Each kind of page is in a memory slot of its own, one after the other L2. */
#define L2_VMCS_SLOT		10
#define L2_VMCS_GPA		0x10000000ull
#define L2_BITMAP_SLOT		11
#define L2_BITMAP_GPA		0x12000000ull
#define L2_VAPIC_SLOT		12
#define L2_VAPIC_GPA		0x14000000ull
#define L2_APIC_SLOT		13
#define L2_APIC_GPA		0x16000000ull
#define L2_PRIVATE_SLOT		14
#define L2_PRIVATE_GPA		0x18000000ull
#define L2_PRIVATE_PAGES	(2 + VMX_L2_EPT_PAGES)

/* An OUT to this port leaves L2 for L0's user space; L1 doesn't intercept it. */
#define L2_PAUSE_PORT		0x99

#define L2_NR_SWAPPED		16	/* general registers without RSP, flags */
#define L2_FLAGS		15
#define L2_FLAGS_MASK		0xcd5ull	/* CF PF AF ZF SF DF OF */
#define L2_NR_MSRS		4
#define L2_NR_FIELDS		7

#define L2_APIC_TPR		0x80
#define L2_APIC_VERSION		0x30
#define L2_APIC_FILL		0xa5	/* what an APIC-access page holds */

/* Which way a value goes; part of its hash. */
enum l2_way { TO_L2, TO_L1, TO_MSR, FROM_MSR, FIELD, TPR, SHADOW };

/* L2's private page: its stack, and the structure. */
#define L2_STACK_TOP		2048
#define L2_STRUCT_OFFSET	3072

struct l2_private {
	/* These are laid out for l2_exchange(). */
	u64 out[L2_NR_SWAPPED];
	u64 in[L2_NR_SWAPPED];
	u64 saved_rsp;

	/* Set by L1. */
	u32 id;
	u32 features;
	u64 apic;
	u64 msr_new[L2_NR_MSRS];
	u64 tpr_new;
	bool pause;

	/* Set by L2. */
	u64 round;
	u64 msr_seen[L2_NR_MSRS];
	u64 tpr_seen;
	u64 apic_tpr_seen;
	u64 apic_version;
	u64 shadow_seen;
	u16 gdt_limit;
	u16 idt_limit;
};

/* An L2 as L1 keeps it. */
struct l2_state {
	struct vmx_l2 v;
	struct l2_private *p;
	u64 shadow_vmcs;
	u64 msr[L2_NR_MSRS];		/* what L2's MSRs hold */
	u64 seen[L2_NR_MSRS];		/* what L2's RDMSRs must give */
	u64 field[L2_NR_FIELDS];
	u32 id;
	u32 round;
	u32 features;
	u32 map;
	u8 intercepts;			/* two bits an MSR, read and write */
};

static struct l2_state l2s[L2_MAX];

/* Those that KVM lets L2 have without an exit, and one that always exits to L0. */
static const u32 l2_msrs[L2_NR_MSRS] = {
	MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_IA32_SYSENTER_CS,
};

/* Where VMX keeps them; the one with 0 is L1's to switch. */
static const u32 l2_msr_fields[L2_NR_MSRS] = {
	GUEST_FS_BASE, GUEST_GS_BASE, 0, GUEST_SYSENTER_CS,
};

/* Fields that are L2's own and that L2 doesn't change, with what they hold. */
static const struct {
	u32 field;
	u64 mask;
} l2_fields[L2_NR_FIELDS] = {
	{ GUEST_SYSENTER_ESP, 0x7fffffffffffull },
	{ GUEST_SYSENTER_EIP, 0x7fffffffffffull },
	{ GUEST_ES_BASE, 0xffffffff },
	{ TSC_OFFSET, 0xffffffffffffull },
	{ CR4_READ_SHADOW, 0x7ff },
	{ HOST_IA32_SYSENTER_EIP, 0x7fffffffffffull },
	{ HOST_IA32_SYSENTER_ESP, 0x7fffffffffffull },
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

/* A task priority class, as MOV CR8 has it. */
static u64 l2_tpr(u32 id, u32 round, u32 what)
{
	return l2_value(id, round, what, TPR) & 0xf;
}

static u64 l2_msr_value(u32 msr, u64 value)
{
	if (l2_msrs[msr] == MSR_IA32_SYSENTER_CS)
		return value & 0xffff;
	return value & 0x7fffffffffffull;
}

/*
 * l2_exchange - show L1 all registers, and take what L1 puts there
 *
 * Loads registers and flags from @p->out, exits to L1, stores what came back
 * to @p->in.  RSP points into @p meanwhile, so it too is L2's own.
 */
void l2_exchange(struct l2_private *p);
extern char l2_at_vmcall[], l2_at_apic_read[];

asm(".pushsection .text\n"
	"l2_exchange:\n\t"
	"push %rbx\n\tpush %rbp\n\t"
	"push %r12\n\tpush %r13\n\t"
	"push %r14\n\tpush %r15\n\t"
	"mov %rsp, 0x100(%rdi)\n\t"
	"mov %rdi, %rsp\n\t"
	"pop %rax\n\tpop %rcx\n\t"
	"pop %rdx\n\tpop %rbx\n\t"
	"pop %rbp\n\tpop %rsi\n\t"
	"pop %rdi\n\tpop %r8\n\t"
	"pop %r9\n\tpop %r10\n\t"
	"pop %r11\n\tpop %r12\n\t"
	"pop %r13\n\tpop %r14\n\t"
	"pop %r15\n\tpopfq\n"
	"l2_at_vmcall:\n\t"
	"vmcall\n\t"
	"lea 0x80(%rsp), %rsp\n\t"
	"pushfq\n\tpush %r15\n\t"
	"push %r14\n\tpush %r13\n\t"
	"push %r12\n\tpush %r11\n\t"
	"push %r10\n\tpush %r9\n\t"
	"push %r8\n\tpush %rdi\n\t"
	"push %rsi\n\tpush %rbp\n\t"
	"push %rbx\n\tpush %rdx\n\t"
	"push %rcx\n\tpush %rax\n\t"
	"mov 0x80(%rsp), %rsp\n\t"
	"pop %r15\n\tpop %r14\n\t"
	"pop %r13\n\tpop %r12\n\t"
	"pop %rbp\n\tpop %rbx\n\t"
	"cld\n\tret\n"
	".popsection");

/* Reads a register of the APIC; L1 knows the place and the registers used. */
u32 l2_apic_read(u64 address);

asm(".pushsection .text\n"
	"l2_apic_read:\n"
	"l2_at_apic_read:\n\t"
	"mov (%rdi), %eax\n\t"
	"ret\n"
	".popsection");

#define L2_APIC_READ_LEN	2

static void l2_main(struct l2_private *p)
{
	struct desc_ptr table;
	u64 cr8;
	u32 i;

	for (;;) {
		p->round++;
		if (p->pause)
			asm volatile("out %%al, %0" : : "N"(L2_PAUSE_PORT));

		asm volatile("sgdt %0" : "=m"(table));
		p->gdt_limit = table.size;
		asm volatile("sidt %0" : "=m"(table));
		p->idt_limit = table.size;

		for (i = 0; i < L2_NR_MSRS; i++) {
			p->msr_seen[i] = rdmsr(l2_msrs[i]);
			wrmsr(l2_msrs[i], p->msr_new[i]);
		}

		if (p->features & VMX_L2_TPR_SHADOW) {
			asm volatile("mov %%cr8, %0" : "=r"(cr8));
			p->tpr_seen = cr8;
			asm volatile("mov %0, %%cr8" : : "r"(p->tpr_new));
		}
		if (p->features & VMX_L2_APIC_ACCESS) {
			p->apic_tpr_seen = l2_apic_read(p->apic + L2_APIC_TPR);
			p->apic_version = l2_apic_read(p->apic + L2_APIC_VERSION);
		}
		if (p->features & VMX_L2_SHADOW_VMCS) {
			p->shadow_seen = vmreadz(GUEST_SYSENTER_ESP);
			vmwrite(GUEST_SYSENTER_ESP,
				l2_value(p->id, p->round, 0, SHADOW));
		}

		for (i = 0; i < L2_FLAGS; i++)
			p->out[i] = l2_value(p->id, p->round, i, TO_L1);
		p->out[L2_FLAGS] = l2_flags(p->id, p->round, TO_L1);
		l2_exchange(p);
	}
}

/*
 * Gives L2 one of 16 MSR bitmaps: one MSR is intercepted whole, another for
 * writing.  All four are tried each time: a stale bitmap shows only where it
 * lets pass what it should not.
 */
static void l2_set_map(struct l2_state *l2, u32 nr)
{
	u8 *bitmap = l2->v.msr_bitmap, *byte;
	u32 i, way, bit;

	l2->map = nr;
	l2->intercepts = 3 << nr % 4 * 2 | 2 << nr / 4 % 4 * 2;
	for (i = 0; i < L2_NR_MSRS; i++) {
		for (way = 0; way < 2; way++) {
			bit = l2_msrs[i] & 0x1fff;
			byte = bitmap + way * 2048 + bit / 8;
			if (l2_msrs[i] >= 0xc0000000)
				byte += 1024;
			*byte &= ~(1 << bit % 8);
			if (l2->intercepts >> (2 * i + way) & 1)
				*byte |= 1 << bit % 8;
		}
	}
}

/* Of a new L2 the VMCS is left clear. */
static void l2_init(u32 i, u32 features, u64 bitmaps)
{
	u64 private = L2_PRIVATE_GPA + i * L2_PRIVATE_PAGES * PAGE_SIZE;
	struct l2_state *l2 = &l2s[i];
	u32 m;

	memset(l2, 0, sizeof(*l2));
	l2->id = i + 1;
	l2->features = features;
	l2->v.vmcs = L2_VMCS_GPA + i * PAGE_SIZE;
	l2->v.msr_bitmap = (void *)(L2_BITMAP_GPA + i * PAGE_SIZE);
	l2->v.vapic = (void *)(L2_VAPIC_GPA + i * PAGE_SIZE);
	l2->v.apic_access = (void *)(L2_APIC_GPA + i * PAGE_SIZE);
	l2->v.vmread_bitmap = (void *)bitmaps;
	l2->v.vmwrite_bitmap = (void *)bitmaps;
	l2->v.private = (void *)private;
	l2->shadow_vmcs = private + PAGE_SIZE;
	l2->v.ept = (void *)(private + 2 * PAGE_SIZE);
	l2->p = l2->v.private + L2_STRUCT_OFFSET;

	memset(l2->v.private, 0, 2 * PAGE_SIZE);
	memset(l2->v.vapic, 0, PAGE_SIZE);
	memset(l2->v.apic_access, L2_APIC_FILL, PAGE_SIZE);
	memset(l2->v.msr_bitmap, 0xff, PAGE_SIZE);
	l2_set_map(l2, i);
	l2->p->id = l2->id;
	l2->p->features = features;
	l2->p->apic = (u64)l2->v.apic_access;

	if (features & VMX_L2_SHADOW_VMCS) {
		*(u32 *)l2->shadow_vmcs = vmcs_revision() | 0x80000000u;
		GUEST_ASSERT(!vmclear(l2->shadow_vmcs));
		GUEST_ASSERT(!vmptrld(l2->shadow_vmcs));
		GUEST_ASSERT(!vmwrite(GUEST_SYSENTER_ESP,
				      l2_value(l2->id, 0, 0, SHADOW)));
		GUEST_ASSERT(!vmclear(l2->shadow_vmcs));
	}

	vmx_l2_init_vmcs(&l2->v, l2_main, (u64)l2->v.private + L2_STACK_TOP - 8,
			 features);
	if (features & VMX_L2_SHADOW_VMCS)
		vmwrite(VMCS_LINK_POINTER, l2->shadow_vmcs);
	vmwrite(GUEST_GDTR_LIMIT, 0x100 + i);
	vmwrite(GUEST_IDTR_LIMIT, 0xe00 + i);
	for (m = 0; m < L2_NR_MSRS; m++) {
		l2->msr[m] = l2_msr_value(m, l2_value(l2->id, 0, m, TO_MSR));
		if (l2_msr_fields[m])
			vmwrite(l2_msr_fields[m], l2->msr[m]);
	}
	for (m = 0; m < L2_NR_FIELDS; m++) {
		l2->field[m] = l2_value(l2->id, 0, m, FIELD) & l2_fields[m].mask;
		vmwrite(l2_fields[m].field, l2->field[m]);
	}
	l2->v.gpr[VMX_L2_RDI] = (u64)l2->p;
	GUEST_ASSERT(!vmclear(l2->v.vmcs));
}

static bool l2_intercepted(struct l2_state *l2, u32 step)
{
	return !(l2->features & VMX_L2_MSR_BITMAP) || l2->intercepts >> step & 1;
}

/* Does to the model what L2 does without an exit, up to the next with one. */
static u32 l2_skip_free_accesses(struct l2_state *l2, u32 step)
{
	for (; step < 2 * L2_NR_MSRS && !l2_intercepted(l2, step); step++) {
		if (step % 2)
			l2->msr[step / 2] = l2->p->msr_new[step / 2];
		else
			l2->seen[step / 2] = l2->msr[step / 2];
	}
	return step;
}

static u32 l2_emulate_msr(struct l2_state *l2, u32 step, u64 reason)
{
	u64 *gpr = l2->v.gpr, value;
	bool write = reason == EXIT_REASON_MSR_WRITE;

	step = l2_skip_free_accesses(l2, step);
	__GUEST_ASSERT(step < 2 * L2_NR_MSRS,
		       "L2 %u round %u: exit for MSR %lx, which its bitmap allows",
		       l2->id, l2->round, gpr[VMX_L2_RCX]);
	__GUEST_ASSERT(gpr[VMX_L2_RCX] == l2_msrs[step / 2] && write == step % 2,
		       "L2 %u round %u: %s of MSR %lx exits, %s of %x should be next",
		       l2->id, l2->round, write ? "write" : "read",
		       gpr[VMX_L2_RCX], step % 2 ? "write" : "read",
		       l2_msrs[step / 2]);

	if (write) {
		value = (u32)gpr[VMX_L2_RAX] | gpr[VMX_L2_RDX] << 32;
		GUEST_ASSERT_EQ(value, l2->p->msr_new[step / 2]);
	} else {
		value = l2_value(l2->id, l2->round, step, FROM_MSR);
		l2->seen[step / 2] = value;
		gpr[VMX_L2_RAX] = (u32)value;
		gpr[VMX_L2_RDX] = value >> 32;
	}
	GUEST_ASSERT(!vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + VMX_L2_MSR_INSN_LEN));
	return step + 1;
}

/*
 * An access to the APIC-access page exits, but for that to the task priority
 * where there is a TPR shadow.
 */
static void l2_emulate_apic(struct l2_state *l2)
{
	u64 offset = vmreadz(EXIT_QUALIFICATION);
	bool tpr = !(l2->features & VMX_L2_TPR_SHADOW) && offset == L2_APIC_TPR;

	__GUEST_ASSERT(tpr || offset == L2_APIC_VERSION,
		       "L2 %u round %u: APIC access exit, qualification %lx",
		       l2->id, l2->round, offset);
	GUEST_ASSERT_EQ(vmreadz(GUEST_RIP), (u64)l2_at_apic_read);
	GUEST_ASSERT_EQ(l2->v.gpr[VMX_L2_RDI], (u64)l2->v.apic_access + offset);
	l2->v.gpr[VMX_L2_RAX] = (u32)l2_value(l2->id, l2->round, offset, TPR);
	vmwrite(GUEST_RIP, (u64)l2_at_apic_read + L2_APIC_READ_LEN);
}

/* The place in l2_private's arrays of each register. */
static const u8 l2_gpr_place[VMX_L2_NR_GPRS] = {
	[VMX_L2_RAX] = 0, [VMX_L2_RCX] = 1, [VMX_L2_RDX] = 2,
	[VMX_L2_RBX] = 3, [VMX_L2_RBP] = 4, [VMX_L2_RSI] = 5,
	[VMX_L2_RDI] = 6, [VMX_L2_R8] = 7, [VMX_L2_R9] = 8,
	[VMX_L2_R10] = 9, [VMX_L2_R11] = 10, [VMX_L2_R12] = 11,
	[VMX_L2_R13] = 12, [VMX_L2_R14] = 13, [VMX_L2_R15] = 14,
};

/* Gives L2 new values wherever L1 may, for the round that begins. */
static void l2_prepare(struct l2_state *l2)
{
	u32 i, msr, field;

	if (l2->round) {
		for (i = 0; i < VMX_L2_NR_GPRS; i++)
			l2->v.gpr[i] = l2_value(l2->id, l2->round,
						l2_gpr_place[i], TO_L2);
		vmwrite(GUEST_RFLAGS, l2_flags(l2->id, l2->round, TO_L2));
		vmwrite(GUEST_RIP, (u64)l2_at_vmcall + VMX_L2_VMCALL_LEN);
	}
	l2->round++;

	/*
	 * Not each time: KVM takes the fields that change rarely from a VMCS
	 * whenever L1 writes one, and has to when L1 loads another VMCS.
	 */
	if (l2->round % 2) {
		msr = l2->round / 2 % L2_NR_MSRS;
		l2->msr[msr] = l2_msr_value(msr, l2_value(l2->id, l2->round, msr,
							  TO_MSR));
		if (l2_msr_fields[msr])
			vmwrite(l2_msr_fields[msr], l2->msr[msr]);
		field = l2->round / 2 % L2_NR_FIELDS;
		l2->field[field] = l2_value(l2->id, l2->round, field, FIELD) &
				   l2_fields[field].mask;
		vmwrite(l2_fields[field].field, l2->field[field]);
	}

	for (i = 0; i < L2_NR_MSRS; i++)
		l2->p->msr_new[i] = l2_msr_value(i, l2_value(l2->id, l2->round,
							     100 + i, TO_MSR));
	l2->p->tpr_new = l2_tpr(l2->id, l2->round, 1);
	if (l2->features & VMX_L2_TPR_SHADOW)
		*(u32 *)(l2->v.vapic + L2_APIC_TPR) =
			l2_tpr(l2->id, l2->round, 0) << 4;
}

/* Whatever the exit: it is this L2's VMCS that is current, with its fields. */
static void l2_check_fields(struct l2_state *l2)
{
	u64 value;
	u32 i;

	GUEST_ASSERT_EQ(vmptrstz(), l2->v.vmcs);
	for (i = 0; i < L2_NR_FIELDS; i++) {
		value = vmreadz(l2_fields[i].field);
		__GUEST_ASSERT(value == l2->field[i],
			       "L2 %u round %u: field %x is %lx, not %lx", l2->id,
			       l2->round, l2_fields[i].field, value, l2->field[i]);
	}
	GUEST_ASSERT_EQ(vmreadz(GUEST_GDTR_LIMIT), 0x100 + l2->id - 1);
	GUEST_ASSERT_EQ(vmreadz(GUEST_IDTR_LIMIT), 0xe00 + l2->id - 1);
}

static void l2_check_apic(struct l2_state *l2)
{
	struct l2_private *p = l2->p;
	u32 i, *apic = (u32 *)l2->v.apic_access;
	u64 tpr;

	if (l2->features & VMX_L2_TPR_SHADOW) {
		GUEST_ASSERT_EQ(p->tpr_seen, l2_tpr(l2->id, l2->round, 0));
		GUEST_ASSERT_EQ(*(u32 *)(l2->v.vapic + L2_APIC_TPR), p->tpr_new << 4);
	}
	if (!(l2->features & VMX_L2_APIC_ACCESS))
		return;

	tpr = l2->features & VMX_L2_TPR_SHADOW ? p->tpr_new << 4 :
		(u32)l2_value(l2->id, l2->round, L2_APIC_TPR, TPR);
	GUEST_ASSERT_EQ(p->apic_tpr_seen, tpr);
	GUEST_ASSERT_EQ(p->apic_version,
			(u32)l2_value(l2->id, l2->round, L2_APIC_VERSION, TPR));
	for (i = 0; i < PAGE_SIZE / sizeof(*apic); i += 4)
		GUEST_ASSERT_EQ(apic[i], L2_APIC_FILL * 0x01010101u);
}

static void l2_check(struct l2_state *l2)
{
	struct l2_private *p = l2->p;
	u32 i, before = l2->round - 1;

	__GUEST_ASSERT(p->round == l2->round, "L2 %u made %lu rounds of %u",
		       l2->id, p->round, l2->round);
	for (i = 0; i < VMX_L2_NR_GPRS; i++) {
		if (i == VMX_L2_RSP)
			continue;
		__GUEST_ASSERT(l2->v.gpr[i] == l2_value(l2->id, l2->round,
							l2_gpr_place[i], TO_L1),
			       "L2 %u round %u: wrong value %lx from register %u",
			       l2->id, l2->round, l2->v.gpr[i], i);
	}
	GUEST_ASSERT_EQ(vmreadz(GUEST_RSP), (u64)&p->in[0]);
	GUEST_ASSERT_EQ(vmreadz(GUEST_RIP), (u64)l2_at_vmcall);
	GUEST_ASSERT_EQ(vmreadz(GUEST_RFLAGS) & L2_FLAGS_MASK,
			l2_flags(l2->id, l2->round, TO_L1) & L2_FLAGS_MASK);
	GUEST_ASSERT_EQ(p->gdt_limit, 0x100 + l2->id - 1);
	GUEST_ASSERT_EQ(p->idt_limit, 0xe00 + l2->id - 1);

	for (i = 0; i < L2_NR_MSRS; i++) {
		u64 value = l2_msr_fields[i] ? vmreadz(l2_msr_fields[i]) :
					       rdmsr(l2_msrs[i]);

		__GUEST_ASSERT(value == l2->msr[i] && p->msr_seen[i] == l2->seen[i],
			       "L2 %u round %u: MSR %x is %lx, not %lx; read as %lx, not %lx",
			       l2->id, l2->round, l2_msrs[i], value, l2->msr[i],
			       p->msr_seen[i], l2->seen[i]);
	}
	l2_check_fields(l2);
	l2_check_apic(l2);
	if (l2->features & VMX_L2_SHADOW_VMCS)
		GUEST_ASSERT_EQ(p->shadow_seen, l2_value(l2->id, before, 0, SHADOW));

	/* What L2 noted of that which L1 had given it in the round before. */
	if (!before)
		return;
	for (i = 0; i < L2_FLAGS; i++)
		__GUEST_ASSERT(p->in[i] == l2_value(l2->id, before, i, TO_L2),
			       "L2 %u round %u: wrong value %lx in its register %u",
			       l2->id, l2->round, p->in[i], i);
	GUEST_ASSERT_EQ(p->in[L2_FLAGS] & L2_FLAGS_MASK,
			l2_flags(l2->id, before, TO_L2) & L2_FLAGS_MASK);
}

static void l2_clear(struct l2_state *l2)
{
	GUEST_ASSERT(!vmclear(l2->v.vmcs));
	l2->v.launched = false;
}

/* Lets L2 make one round on this vCPU of L1 and checks everything. */
static void l2_step(struct l2_state *l2)
{
	u64 reason;
	u32 step = 0;

	GUEST_ASSERT(!vmptrld(l2->v.vmcs));
	l2_prepare(l2);
	wrmsr(MSR_KERNEL_GS_BASE, l2->msr[2]);
	for (;;) {
		if (vmx_l2_enter(&l2->v, l2->v.launched))
			__GUEST_ASSERT(false, "L2 %u round %u is not entered: %lu",
				       l2->id, l2->round,
				       vmreadz(VM_INSTRUCTION_ERROR));
		l2->v.launched = true;
		reason = vmreadz(VM_EXIT_REASON);
		if (reason == EXIT_REASON_MSR_READ || reason == EXIT_REASON_MSR_WRITE)
			step = l2_emulate_msr(l2, step, reason);
		else if (reason == EXIT_REASON_APIC_ACCESS)
			l2_emulate_apic(l2);
		else
			break;
		l2_check_fields(l2);
	}
	__GUEST_ASSERT(reason == EXIT_REASON_VMCALL,
		       "L2 %u round %u: exit %lx, qualification %lx", l2->id,
		       l2->round, reason, vmreadz(EXIT_QUALIFICATION));
	step = l2_skip_free_accesses(l2, step);
	__GUEST_ASSERT(step == 2 * L2_NR_MSRS,
		       "L2 %u round %u: no exit for access %u, which its bitmap forbids",
		       l2->id, l2->round, step);
	l2_check(l2);
}

#endif /* SELFTEST_KVM_VMX_NESTED_CONTEXT_L2_H */
