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
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H
#define SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H

#include "nested_context_svm.h"
#include "nested_context_vmx.h"

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

static inline void storm_tell(u16 port)
{
	asm volatile("out %%al, %%dx" : : "d"(port) : "memory");
}

/* An L2 as L1 keeps it, at the beginning of the L2's private page. */
struct storm_l2 {
	union {
		u64 gpr[L2_NR_GPRS];
		struct l2_vcpu svm;
		struct vmx_l2 vmx;
	};
	u32 nr;
	u32 lock;
	u32 cpu;	/* that ran it last */
	u64 count;	/* steps that L1 has seen */
	u64 memory;	/* steps that L2 has counted in memory; L2 uses these two */
	u64 pause;	/* in the middle of the step, by an OUT */
};

enum storm_exit { EXIT_CALL, EXIT_MSR, EXIT_NONE };

/* What the vendor's half brings. */
struct storm_arch {
	const char *name;
	bool (*supported)(void);

	/* The pages of an L2, and which of them is the private one. */
	u32 pages_per_l2;
	u32 private_page;

	/* Guest.  @load and @unload are VMX's. */
	void (*l1_init)(void *scratch, u64 scratch_gpa);
	void (*make)(struct storm_l2 *l2, u64 gpa, u64 rsp, bool shared);
	void (*load)(struct storm_l2 *l2);
	void (*restart)(struct storm_l2 *l2);
	enum storm_exit (*enter)(struct storm_l2 *l2);
	u64 (*rsp)(struct storm_l2 *l2);
	void (*unload)(struct storm_l2 *l2);
};

/* Shared by host and guest. */
static struct {
	u32 arch;
	u32 nr_l2;
	bool stop;
} storm;

static struct storm_cpu {
	u64 steps;
	u64 moves;		/* of L2s, to this vCPU */
	u64 shared_steps;
	struct storm_l2 shared;
	struct {
		u32 line;
		u32 l2;
		u64 have;
		u64 want;
	} fail;
} storm_cpus[STORM_MAX_VCPUS];

/* KERNEL_GS_BASE: L0 lets L2 read it where L1 does. */
#define STORM_L2_STEP(call)			\
	"incq (%rdi)\n\t"			\
	"add $1, %rbx\n\t"			\
	"testb $1, 8(%rdi)\n\t"			\
	"jz 1f\n\t"				\
	"out %al, $0x99\n"			\
	"1:\n\t"				\
	"lea 1(%rsp), %rsp\n\t"			\
	"mov $0xc0000102, %ecx\n\t"		\
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

/* ---- SVM ---- */

static bool svm_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_SVM);
}

static void svm_l1_init(void *scratch, u64 scratch_gpa)
{
	l1_enable_svm(scratch_gpa);
}

static void svm_make(struct storm_l2 *l2, u64 gpa, u64 rsp, bool shared)
{
	l2_make(&l2->svm, gpa, shared ? storm_l2_shared_svm : storm_l2_svm, rsp);
	/* Two bits for each MSR; those from 0xc0000000 are in the second 2 KiB. */
	if (!storm_l2_exits(l2->nr))
		l2->svm.msrpm[0x800 + 0x102 / 4] &= ~BIT(0x102 % 4 * 2);
}

static void svm_restart(struct storm_l2 *l2)
{
	l2->svm.vmcb->save.rip = (u64)storm_l2_shared_svm;
}

static enum storm_exit svm_enter(struct storm_l2 *l2)
{
	struct vmcb *vmcb = l2->svm.vmcb;

	l2_vmrun(&l2->svm, l2->svm.vmcb_gpa);
	switch (vmcb->control.exit_code) {
	case SVM_EXIT_VMMCALL:
		if (!storm_l2_is_shared(l2->nr))
			vmcb->save.rip += L2_VMMCALL_LEN;
		return EXIT_CALL;
	case SVM_EXIT_MSR:
		vmcb->save.rip += L2_MSR_INSN_LEN;
		return EXIT_MSR;
	}
	return EXIT_NONE;
}

static u64 svm_rsp(struct storm_l2 *l2)
{
	return l2->svm.vmcb->save.rsp;
}

/* ---- VMX ---- */

static bool vmx_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept();
}

static void vmx_unload(struct storm_l2 *l2)
{
	GUEST_ASSERT(!vmclear(l2->vmx.vmcs));
	l2->vmx.launched = false;
}

static void vmx_make(struct storm_l2 *l2, u64 gpa, u64 rsp, bool shared)
{
	vmx_l2_make(&l2->vmx, gpa, shared ? storm_l2_shared_vmx : storm_l2_vmx, rsp);
	/* A bit for each MSR; reads of those from 0xc0000000 are in the second KiB. */
	if (!storm_l2_exits(l2->nr))
		l2->vmx.msr_bitmap[0x400 + 0x102 / 8] &= ~BIT(0x102 % 8);
	vmx_unload(l2);
}

/* The shared VMCS is entered with registers that are each vCPU's. */
static void vmx_load(struct storm_l2 *l2)
{
	GUEST_ASSERT(!vmptrld(l2->vmx.vmcs));
	GUEST_ASSERT(!vmwrite(HOST_RSP, (u64)&l2->vmx));
}

static void vmx_restart(struct storm_l2 *l2)
{
	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)storm_l2_shared_vmx));
}

/* Who shares a VMCS can't know whether another vCPU has launched it. */
static enum storm_exit vmx_enter(struct storm_l2 *l2)
{
	enum storm_exit exit;
	u64 len;

	if (vmx_l2_enter(&l2->vmx, l2->vmx.launched) &&
	    vmx_l2_enter(&l2->vmx, !l2->vmx.launched))
		return EXIT_NONE;
	l2->vmx.launched = true;

	switch (vmreadz(VM_EXIT_REASON)) {
	case EXIT_REASON_VMCALL:
		exit = EXIT_CALL;
		len = VMX_L2_VMCALL_LEN;
		break;
	case EXIT_REASON_MSR_READ:
		exit = EXIT_MSR;
		len = VMX_L2_MSR_INSN_LEN;
		break;
	default:
		return EXIT_NONE;
	}
	GUEST_ASSERT(!vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + len));
	return exit;
}

static u64 vmx_rsp(struct storm_l2 *l2)
{
	return vmreadz(GUEST_RSP);
}

static const struct storm_arch storm_archs[] = {
	{
		.name		= "svm",
		.supported	= svm_supported,
		.pages_per_l2	= SVM_PAGES_PER_L2,
		.private_page	= 1 + L2_MSRPM_PAGES,
		.l1_init	= svm_l1_init,
		.make		= svm_make,
		.restart	= svm_restart,
		.enter		= svm_enter,
		.rsp		= svm_rsp,
	}, {
		.name		= "vmx",
		.supported	= vmx_supported,
		.pages_per_l2	= VMX_PAGES_PER_L2,
		.private_page	= 4,
		.l1_init	= l1_enable_vmx,
		.make		= vmx_make,
		.load		= vmx_load,
		.restart	= vmx_restart,
		.enter		= vmx_enter,
		.rsp		= vmx_rsp,
		.unload		= vmx_unload,
	},
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

static struct storm_l2 *storm_l2(const struct storm_arch *arch, void *mem, u32 nr)
{
	return mem + (nr * arch->pages_per_l2 + arch->private_page) * PAGE_SIZE;
}

static void l1_make(const struct storm_arch *arch, u32 nr, bool shared)
{
	struct storm_l2 *l2 = storm_l2(arch, (void *)STORM_GPA, nr);

	memset(l2, 0, sizeof(*l2));
	l2->nr = nr;
	l2->memory = storm_base(nr, 0);
	arch->make(l2, STORM_GPA + nr * arch->pages_per_l2 * PAGE_SIZE,
		   storm_base(nr, 1), shared);
	l2->gpr[L2_RBX] = storm_base(nr, 2);
	l2->gpr[L2_RDI] = (u64)&l2->memory;
}

static void l1_step(const struct storm_arch *arch, struct storm_l2 *l2, u32 cpu)
{
	u64 count = l2->count + 1;

	l2->pause = count % STORM_PAUSE_STEPS == 0;
	if (arch->load)
		arch->load(l2);
	if (storm_l2_exits(l2->nr))
		STORM_CHECK(cpu, l2->nr, arch->enter(l2), EXIT_MSR);
	STORM_CHECK(cpu, l2->nr, arch->enter(l2), EXIT_CALL);

	STORM_CHECK(cpu, l2->nr, READ_ONCE(l2->memory), storm_base(l2->nr, 0) + count);
	STORM_CHECK(cpu, l2->nr, arch->rsp(l2), storm_base(l2->nr, 1) + count);
	STORM_CHECK(cpu, l2->nr, l2->gpr[L2_RBX], storm_base(l2->nr, 2) + count);
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
static void l1_step_shared(const struct storm_arch *arch, u32 cpu)
{
	struct storm_l2 *mine = &storm_cpus[cpu].shared;
	u64 before = mine->gpr[L2_RBX];

	if (arch->load)
		arch->load(mine);
	arch->restart(mine);
	STORM_CHECK(cpu, mine->nr, arch->enter(mine), EXIT_CALL);
	if (arch->load || mine->gpr[L2_RBX] != before)
		STORM_CHECK(cpu, mine->nr, mine->gpr[L2_RBX], before + 1);
	STORM_CHECK(cpu, mine->nr, mine->gpr[L2_R15], ~before);
	mine->gpr[L2_R15] = ~mine->gpr[L2_RBX];
	storm_cpus[cpu].shared_steps++;
}

static void l1_batch(const struct storm_arch *arch, struct guest_random_state *random,
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
		for (i = 0; i < nr; i++)
			l1_step(arch, batch[i], cpu);
	}
	for (i = 0; i < nr; i++) {
		if (arch->unload)
			arch->unload(batch[i]);
		__sync_lock_release(&batch[i]->lock);
	}
}

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	struct guest_random_state random = new_guest_random_state(cpu + 1);
	const struct storm_arch *arch = &storm_archs[storm.arch];
	struct storm_l2 *shared = &storm_cpus[cpu].shared;
	u32 i;

	arch->l1_init(scratch, scratch_gpa);
	if (!cpu) {
		for (i = 0; i < storm.nr_l2; i++)
			l1_make(arch, i, false);
		l1_make(arch, storm.nr_l2, true);
	}
	*shared = *storm_l2(arch, (void *)STORM_GPA, storm.nr_l2);
	shared->gpr[L2_RBX] = storm_base(cpu, 3);
	shared->gpr[L2_R15] = ~shared->gpr[L2_RBX];
	storm_tell(STORM_DONE_PORT);

	while (!READ_ONCE(storm.stop)) {
		l1_batch(arch, &random, cpu);
		l1_step_shared(arch, cpu);
	}
	for (;;)
		storm_tell(STORM_DONE_PORT);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_STORM_L1_H */
