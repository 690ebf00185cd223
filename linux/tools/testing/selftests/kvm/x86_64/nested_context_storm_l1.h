/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest of nested_context_storm_test: L2s that count, and an L1 that runs
 * them on all its vCPUs and checks each step.
 *
 * An L2 counts in three places, which reach it by different ways: a register
 * that L1 saves, RSP, which is in the control block, and its own memory.  In each
 * step it also reads an MSR, at which every second L2 exits: that shows whose MSR
 * permission map L0 has used.  L1 knows what each must be.
 *
 * A vCPU takes a few L2s that no other one has, goes round them, and gives them
 * back; so L2s wander between vCPUs.  On VMX they are cleared when they are
 * given back.
 *
 * If the test says so, vCPUs also post interrupts to L2s, loaded or not.  An L2
 * never takes them, for its interrupts are off.  Whoever runs it finds in its
 * virtual-APIC page what has been posted, and once each.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H
#define SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H

#include "apic.h"
#include "nested_context_arch.h"

#define STORM_MAX_VCPUS		64
#define STORM_BATCH		4
#define STORM_ROUNDS		3
#define STORM_PAUSE_STEPS	8

#define STORM_SLOT		10
#define STORM_GPA		0x10000000ull

/*
 * What a vCPU tells the host by an OUT.  The library's ucalls go by the address
 * at which the host has the guest's memory, so they don't outlive a migration.
 */
#define STORM_PAUSE_PORT	0x99	/* from L2 */
#define STORM_DONE_PORT		0x9a
#define STORM_FAIL_PORT		0x9b

/* A vCPU's vector is FIRST_VECTOR and its number. */
#define STORM_FIRST_VECTOR	0x20
#define STORM_NOTIFICATION	0xf0
#define X2APIC_SELF_IPI		0x83f

static inline void storm_tell(u16 port)
{
	asm volatile("out %%al, %%dx" : : "d"(port) : "memory");
}

/* An L2 as L1 keeps it, at the beginning of the L2's private page. */
struct storm_l2 {
	struct nested_l2 v;
	u32 nr;
	u32 lock;
	u32 cpu;	/* that ran it last */
	u64 count;	/* steps that L1 has seen */
	u64 memory;	/* steps that L2 has counted in memory; L2 uses these two */
	u64 pause;	/* in the middle of the step, by an OUT */

	struct vmx_pi_desc desc __aligned(64);
	u32 notify;				/* this vCPU */
	u32 posted[STORM_MAX_VCPUS];		/* by each vCPU */
	u32 found[STORM_MAX_VCPUS];		/* of them, by L1 */
};

/* Shared by host and guest. */
static struct {
	u32 arch;
	u32 nr_l2;
	bool posted;
	bool stop;
} storm;

static struct storm_cpu {
	u64 steps;
	u64 moves;		/* of L2s, to this vCPU */
	u64 shared_steps;
	u64 posts;
	struct storm_l2 shared;
	struct {
		u32 line;
		u32 l2;
		u64 have;
		u64 want;
	} fail;
} storm_cpus[STORM_MAX_VCPUS];

#define STORM_L2_STEP(call)			\
	"incq (%rdi)\n\t"			\
	"add $1, %rbx\n\t"			\
	"testb $1, 8(%rdi)\n\t"			\
	"jz 1f\n\t"				\
	"out %al, $0x99\n"			\
	"1:\n\t"				\
	"lea 1(%rsp), %rsp\n\t"			\
	"mov $0xc0000102, %ecx\n\t" /* MSR_KERNEL_GS_BASE */ \
	"rdmsr\n\t"				\
	call "\n\t"

/* On all vCPUs at once, so it counts in a register that is each vCPU's. */
#define STORM_L2_SHARED_STEP(call)		\
	"add $1, %rbx\n\t"			\
	"out %al, $0x99\n\t"			\
	call "\n\t"

extern char storm_l2_svm[], storm_l2_vmx[];
extern char storm_l2_shared_svm[], storm_l2_shared_vmx[];

asm(".pushsection .text\n"
	"storm_l2_svm:\n\t"
	STORM_L2_STEP("vmmcall")
	"jmp storm_l2_svm\n"
	"storm_l2_vmx:\n\t"
	STORM_L2_STEP("vmcall")
	"jmp storm_l2_vmx\n"
	"storm_l2_shared_svm:\n\t"
	STORM_L2_SHARED_STEP("vmmcall")
	"jmp storm_l2_shared_svm\n"
	"storm_l2_shared_vmx:\n\t"
	STORM_L2_SHARED_STEP("vmcall")
	"jmp storm_l2_shared_vmx\n\t"
	".popsection");

/* Whether L1's map lets this L2 exit when it reads the MSR. */
static bool storm_l2_exits(u32 nr)
{
	return __builtin_popcount(nr) & 1;
}

/*
 * The L2 that all vCPUs run, beyond the others.  Each step begins it anew: were
 * its RIP moved on by two vCPUs at once, it would go on anywhere.
 */
static bool storm_l2_is_shared(u32 nr)
{
	return nr == storm.nr_l2;
}

static void *const storm_code[NR_NESTED_VENDORS][2] = {
	[NESTED_SVM] = { storm_l2_svm, storm_l2_shared_svm },
	[NESTED_VMX] = { storm_l2_vmx, storm_l2_shared_vmx },
};

/* ---- L1 ---- */

static void storm_check(u32 cpu, u32 line, u32 l2, u64 have, u64 want)
{
	if (have == want)
		return;

	storm_cpus[cpu].fail.line = line;
	storm_cpus[cpu].fail.l2 = l2;
	storm_cpus[cpu].fail.have = have;
	storm_cpus[cpu].fail.want = want;
	for (;;)
		storm_tell(STORM_FAIL_PORT);
}

#define STORM_CHECK(cpu, l2, have, want)				\
	storm_check(cpu, __LINE__, l2, have, want)

/* Where the three ways of counting begin, no L2 like another. */
static u64 storm_base(u32 nr, u32 way)
{
	return (nr * 4 + way + 1ull) << 32;
}

static struct storm_l2 *storm_l2(const struct nested_arch *arch, void *mem, u32 nr)
{
	return mem + (nr * arch->pages_per_l2 + arch->private_page) * PAGE_SIZE;
}

/* To any L2, unless it has not been found yet what this vCPU posted last. */
static void l1_post(const struct nested_arch *arch, struct guest_random_state *random,
		    u32 cpu)
{
	struct storm_l2 *l2 = storm_l2(arch, (void *)STORM_GPA,
				       guest_random_u32(random) % storm.nr_l2);

	if (READ_ONCE(l2->found[cpu]) != l2->posted[cpu])
		return;
	WRITE_ONCE(l2->posted[cpu], l2->posted[cpu] + 1);
	if (vmx_pi_post(&l2->desc, STORM_FIRST_VECTOR + cpu))
		x2apic_write_reg(APIC_ICR, (u64)READ_ONCE(l2->notify) << 32 |
					   APIC_DM_FIXED | STORM_NOTIFICATION);
	storm_cpus[cpu].posts++;
}

/* Before L2 is entered: from here on this vCPU gets the notifications. */
static void l1_be_notified(struct storm_l2 *l2, u32 cpu)
{
	(void)__sync_lock_test_and_set(&l2->notify, cpu);
	if (READ_ONCE(l2->desc.control) & VMX_PI_ON)
		wrmsr(X2APIC_SELF_IPI, STORM_NOTIFICATION);
}

/* L2 has exited and is current; the processor does not touch the page now. */
static void l1_find_posted(struct storm_l2 *l2, u32 cpu)
{
	u32 i, bits, poster;

	for (i = 0; i < 8; i++) {
		u32 *irr = (u32 *)(l2->v.vmx.vapic + APIC_IRR + 16 * i);

		for (bits = *irr; bits; bits &= bits - 1) {
			poster = 32 * i + __builtin_ctz(bits) - STORM_FIRST_VECTOR;
			STORM_CHECK(cpu, l2->nr, poster < STORM_MAX_VCPUS, true);
			STORM_CHECK(cpu, l2->nr, READ_ONCE(l2->posted[poster]),
				    l2->found[poster] + 1);
			WRITE_ONCE(l2->found[poster], l2->found[poster] + 1);
		}
		*irr = 0;
	}
	GUEST_ASSERT(!vmwrite(GUEST_INTR_STATUS, 0));
}

static void l1_make(const struct nested_arch *arch, u32 nr, bool shared)
{
	struct storm_l2 *l2 = storm_l2(arch, (void *)STORM_GPA, nr);

	memset(l2, 0, sizeof(*l2));
	l2->nr = nr;
	l2->memory = storm_base(nr, 0);
	arch->make(&l2->v, STORM_GPA + nr * arch->pages_per_l2 * PAGE_SIZE,
		   storm_code[storm.arch][shared], storm_base(nr, 1));
	if (!storm_l2_exits(nr))
		arch->allow_msr(&l2->v);
	if (storm.posted && !shared)
		vmx_l2_init_posted((u64)&l2->desc, STORM_NOTIFICATION);
	if (arch->unload)
		arch->unload(&l2->v);
	l2->v.gpr[L2_RBX] = storm_base(nr, 2);
	l2->v.gpr[L2_RDI] = (u64)&l2->memory;
}

/* Runs L2 up to an exit that must be @exit. */
static void l1_enter(const struct nested_arch *arch, struct storm_l2 *l2, u32 cpu,
		     enum nested_exit exit)
{
	STORM_CHECK(cpu, l2->nr, arch->enter(&l2->v), exit);
	if (!storm_l2_is_shared(l2->nr))
		arch->skip(&l2->v, exit);
}

static void l1_step(const struct nested_arch *arch, struct storm_l2 *l2, u32 cpu)
{
	u64 count = l2->count + 1;

	l2->pause = count % STORM_PAUSE_STEPS == 0;
	if (arch->load)
		arch->load(&l2->v);
	if (storm.posted)
		l1_be_notified(l2, cpu);
	if (storm_l2_exits(l2->nr))
		l1_enter(arch, l2, cpu, EXIT_MSR);
	l1_enter(arch, l2, cpu, EXIT_CALL);
	if (storm.posted)
		l1_find_posted(l2, cpu);

	STORM_CHECK(cpu, l2->nr, READ_ONCE(l2->memory), storm_base(l2->nr, 0) + count);
	STORM_CHECK(cpu, l2->nr, arch->rsp(&l2->v), storm_base(l2->nr, 1) + count);
	STORM_CHECK(cpu, l2->nr, l2->v.gpr[L2_RBX], storm_base(l2->nr, 2) + count);
	if (l2->cpu != cpu) {
		storm_cpus[cpu].moves++;
		l2->cpu = cpu;
	}
	WRITE_ONCE(l2->count, count);
	storm_cpus[cpu].steps++;
}

/*
 * Between this vCPU's write of RIP and its entry another one may leave the block
 * behind L2's step.  Then L2 has no step to make; registers are nobody else's.
 */
static void l1_step_shared(const struct nested_arch *arch, u32 cpu)
{
	struct storm_l2 *mine = &storm_cpus[cpu].shared;
	u64 before = mine->v.gpr[L2_RBX];

	if (arch->load)
		arch->load(&mine->v);
	arch->set_rip(&mine->v, storm_code[storm.arch][true]);
	l1_enter(arch, mine, cpu, EXIT_CALL);
	if (arch->load || mine->v.gpr[L2_RBX] != before)
		STORM_CHECK(cpu, mine->nr, mine->v.gpr[L2_RBX], before + 1);
	STORM_CHECK(cpu, mine->nr, mine->v.gpr[L2_R15], ~before);
	mine->v.gpr[L2_R15] = ~mine->v.gpr[L2_RBX];
	storm_cpus[cpu].shared_steps++;
}

static void l1_batch(const struct nested_arch *arch, struct guest_random_state *random,
		     u32 cpu)
{
	struct storm_l2 *batch[STORM_BATCH], *l2;
	u32 nr = 0, tries, round, i;

	for (tries = 0; tries < 2 * STORM_BATCH && nr < STORM_BATCH; tries++) {
		l2 = storm_l2(arch, (void *)STORM_GPA,
			      guest_random_u32(random) % storm.nr_l2);
		if (!__sync_lock_test_and_set(&l2->lock, 1))
			batch[nr++] = l2;
	}
	for (round = 0; round < STORM_ROUNDS; round++) {
		for (i = 0; i < nr; i++) {
			l1_step(arch, batch[i], cpu);
			if (storm.posted)
				l1_post(arch, random, cpu);
		}
	}
	for (i = 0; i < nr; i++) {
		if (arch->unload)
			arch->unload(&batch[i]->v);
		__sync_lock_release(&batch[i]->lock);
	}
}

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	struct guest_random_state random = new_guest_random_state(cpu + 1);
	const struct nested_arch *arch = &nested_archs[storm.arch];
	struct storm_l2 *shared = &storm_cpus[cpu].shared;
	u32 i;

	arch->l1_init(scratch, scratch_gpa);
	if (storm.posted)
		x2apic_enable();
	if (!cpu) {
		for (i = 0; i < storm.nr_l2; i++)
			l1_make(arch, i, false);
		l1_make(arch, storm.nr_l2, true);
	}
	*shared = *storm_l2(arch, (void *)STORM_GPA, storm.nr_l2);
	shared->v.gpr[L2_RBX] = storm_base(cpu, 3);
	shared->v.gpr[L2_R15] = ~shared->v.gpr[L2_RBX];
	storm_tell(STORM_DONE_PORT);

	while (!READ_ONCE(storm.stop)) {
		l1_batch(arch, &random, cpu);
		l1_step_shared(arch, cpu);
	}
	for (;;)
		storm_tell(STORM_DONE_PORT);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H */
