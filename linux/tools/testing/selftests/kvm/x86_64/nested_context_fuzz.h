/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts, fuzzing: what a program is, and what L1 and host share.
 *
 * A program is a list of steps over NR_BLOCKS control blocks.  L1's steps are
 * done by the L1 vCPU that they name, the host's while that vCPU is out of the
 * guest: either in L1 between two steps, or in L2, where L2 came to the host by
 * itself.  Vcpus take turns, so that a program has but one outcome.
 *
 * A VM does some programs one after the other.  Each begins with vCPUs that are
 * reset and memory that is empty; what KVM may have kept from the one before
 * must not show.
 *
 * Whatever L1 can see of a step's result it notes.  The notes, what the host
 * notes beside them, and at the end all memory are the transcript.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_FUZZ_H
#define SELFTEST_KVM_NESTED_CONTEXT_FUZZ_H

#include "nested_context_common.h"

#define MAX_L1_VCPUS	4
#define NR_BLOCKS	12

/* Making a VM takes longer than a program, so some share one. */
#define PROGRAMS_PER_VM	8
#define MAX_STEPS	1280
#define MAX_NOTES	8192

/* The only memory that steps name; each kind has its memory slot. */
enum fuzz_slot {
	SLOT_BLOCK,		/* a page for each control block */
	SLOT_MAP,		/* permission bitmaps, two pages each */
	SLOT_PRIVATE,		/* L2's stack, then its nested page table */
	SLOT_HW,		/* pages that the processor reaches by itself */
	SLOT_ALIAS,		/* the host pages of SLOT_BLOCK once more */
	NR_SLOTS,
};

#define MAP_PAGES	2
#define PRIVATE_PAGES	4
#define SLOT_SHIFT	26
#define SLOT_GPA(slot)	(0x10000000ull + ((u64)(slot) << SLOT_SHIFT))
#define NO_SLOT_GPA	SLOT_GPA(NR_SLOTS)

static const unsigned int slot_pages[NR_SLOTS] = {
	[SLOT_BLOCK]	= NR_BLOCKS,
	[SLOT_MAP]	= NR_BLOCKS * MAP_PAGES,
	[SLOT_PRIVATE]	= NR_BLOCKS * PRIVATE_PAGES,
	[SLOT_HW]	= NR_BLOCKS,
	[SLOT_ALIAS]	= NR_BLOCKS,
};

static inline u64 page_gpa(enum fuzz_slot slot, unsigned int page)
{
	return SLOT_GPA(slot) + page * PAGE_SIZE;
}

/* Which slot a GPA is in, NR_SLOTS if in none. */
static inline enum fuzz_slot slot_of(u64 gpa)
{
	u64 slot = (gpa - SLOT_GPA(0)) >> SLOT_SHIFT;

	if (gpa < SLOT_GPA(0) || slot >= NR_SLOTS ||
	    gpa - SLOT_GPA(slot) >= slot_pages[slot] * PAGE_SIZE)
		return NR_SLOTS;
	return slot;
}

/* The control block that a page is, or is an alias of; NR_BLOCKS if none. */
static inline unsigned int block_of(u64 gpa)
{
	enum fuzz_slot slot = slot_of(gpa);

	if (slot != SLOT_BLOCK && slot != SLOT_ALIAS)
		return NR_BLOCKS;
	return (gpa - SLOT_GPA(slot)) / PAGE_SIZE;
}

/* L1's steps have numbers of their vendor's; from FUZZ_HOST on they are the host's. */
enum fuzz_host_op {
	FUZZ_HOST = 64,
	HOST_RESTORE = FUZZ_HOST,	/* save the vCPU and restore it in place */
	HOST_MIGRATE,		/* save all vCPUs and restore them in a new VM */
	HOST_RESET,		/* the vCPU starts over */
	HOST_DELETE,		/* arg: slot */
	HOST_ADD,		/* arg: slot */
	HOST_MOVE,		/* arg: slot; it has other host memory afterwards */
	HOST_LOG,		/* arg: slot, on */
	HOST_GET_LOG,		/* arg: slot */
	HOST_DROP,		/* arg: page; its contents are gone */
	HOST_WRITE,		/* arg: address, value */
	HOST_RATIO,		/* arg: ratio for VMs made from now on */
	HOST_POST,		/* arg: descriptor, vector, notification or 0 */
	HOST_NEXT,		/* here begins the next program */
	FUZZ_HOST_END,
};

struct fuzz_step {
	u32 vcpu;
	u32 op;
	u64 arg[3];
};

/* The programs of one VM. */
struct fuzz_program {
	unsigned int nr_vcpus;
	unsigned int ratio;
	unsigned int nr;
	struct fuzz_step step[MAX_STEPS];
};

/* One result.  The name is a string of the program, for who reads it. */
struct fuzz_note {
	u32 step;
	u32 vcpu;
	const char *name;
	u64 value;
};

/* How the generator picks. */
struct fuzz_choice {
	const char *name;
	unsigned int weight;
};

struct fuzz_arch {
	const char *name;
	bool (*supported)(void);

	/*
	 * What of a control block's page has a meaning.  Steps leave the rest
	 * alone: a VMCS region belongs to the processor, and the stock kernel
	 * restores what it does not use sometimes and clears it sometimes.
	 */
	unsigned int block_size;

	/* The stock kernel goes on with a page that the host took while L2 runs. */
	bool pins_in_l2;

	/* L2 can have posted interrupts, and L1 has its APIC on. */
	bool posts;

	/* L1's steps, in their order. */
	const struct fuzz_choice *ops;
	unsigned int nr_ops;

	/* Host: fills the arguments of a step of this kind. */
	void (*generate)(struct guest_random_state *rnd, struct fuzz_step *s);

	/* Guest */
	void (*l1_init)(u32 cpu, void *scratch, u64 scratch_gpa);
	void (*l1_step)(u32 cpu, const struct fuzz_step *s);

	/* Host: L1 starts over, on all vCPUs. */
	void (*l1_forget)(struct kvm_vm *vm);

	/* Host: the architecture leaves this block's bytes open. */
	bool (*block_is_open)(struct kvm_vm *vm, unsigned int block);
};

/* What L1 tells the host with its GUEST_SYNC(). */
enum fuzz_sync {
	SYNC_TURN = 1,		/* the next step is not for this vCPU */
	SYNC_END,
};

/* L2's way to the host; nobody intercepts it unless a step says so. */
#define FUZZ_PORT	0xf5

/* ---- Shared by L1 and host ---- */

static struct {
	unsigned int arch;
	bool parallel;		/* each vCPU has its own place in the program */
	bool present[NR_SLOTS];
	u32 next[MAX_L1_VCPUS];
	u32 nr;
	u32 nr_notes;
	struct fuzz_step step[MAX_STEPS];
	struct fuzz_note note[MAX_NOTES];
} shared;

static inline u32 *next_of(u32 cpu)
{
	return &shared.next[shared.parallel ? cpu : 0];
}

/* Parallel vCPUs have no common order, so there is nothing to compare. */
static inline void note_in(typeof(shared) *sh, u32 cpu, const char *name, u64 value)
{
	struct fuzz_note *n = &sh->note[sh->nr_notes];

	if (sh->parallel || sh->nr_notes == MAX_NOTES)
		return;
	*n = (struct fuzz_note) { sh->next[0] - 1, cpu, name, value };
	sh->nr_notes++;
}

static inline void note(u32 cpu, const char *name, u64 value)
{
	note_in(&shared, cpu, name, value);
}

/* FNV-1a, by words. */
#define FUZZ_HASH_INIT	0xcbf29ce484222325ull

static inline u64 fuzz_hash(u64 hash, const void *data, size_t size)
{
	const u64 *p = data;
	size_t i;

	for (i = 0; i < size / sizeof(*p); i++)
		hash = (hash ^ p[i]) * 0x100000001b3ull;
	return hash;
}

/* Whether L1 itself can touch @size bytes there. */
static inline bool l1_can_touch(u64 gpa, unsigned int size)
{
	enum fuzz_slot slot = slot_of(gpa);

	return slot < NR_SLOTS && READ_ONCE(shared.present[slot]) &&
	       (slot != SLOT_ALIAS || READ_ONCE(shared.present[SLOT_BLOCK])) &&
	       slot_of(gpa + size - 1) == slot;
}

/* A bitmap that has some bits of everything, and is like no other. */
static inline void l1_fill(u64 gpa, size_t size, u64 pattern)
{
	u64 *p = (void *)gpa;
	size_t i;

	for (i = 0; i < size / sizeof(*p); i++)
		p[i] = pattern;
}

static inline void l1_set(u64 gpa, unsigned int size, u64 value)
{
	memcpy((void *)gpa, &value, size);
}

/* ---- The generator's means ---- */

static inline unsigned int fuzz_below(struct guest_random_state *rnd, unsigned int n)
{
	return guest_random_u32(rnd) % n;
}

static inline u64 fuzz_pick(struct guest_random_state *rnd, const u64 *array,
			    unsigned int nr)
{
	return array[fuzz_below(rnd, nr)];
}

static inline unsigned int fuzz_weighted(struct guest_random_state *rnd,
					 const struct fuzz_choice *c,
					 unsigned int nr)
{
	unsigned int sum = 0, i;

	for (i = 0; i < nr; i++)
		sum += c[i].weight;
	sum = fuzz_below(rnd, sum);
	for (i = 0; sum >= c[i].weight; i++)
		sum -= c[i].weight;
	return i;
}

/*
 * An address for a field or an instruction: mostly a page of @slot, else one
 * that belongs to something else, has no slot, is odd, or cannot be.
 */
static inline u64 fuzz_gpa(struct guest_random_state *rnd, enum fuzz_slot slot,
			   unsigned int stride)
{
	static const u64 odd[] = {
		0, 0x1000, 0xfee00000, NO_SLOT_GPA, NO_SLOT_GPA + 8 * PAGE_SIZE,
		BIT_ULL(40), BIT_ULL(51), BIT_ULL(52), ~0xfffull, ~0ull,
	};
	enum fuzz_slot other;

	if (!__guest_random_bool(rnd, 20))
		return page_gpa(slot, fuzz_below(rnd, slot_pages[slot] / stride) * stride);

	switch (fuzz_below(rnd, 4)) {
	case 0:
		return fuzz_pick(rnd, odd, ARRAY_SIZE(odd));
	case 1:
		return page_gpa(slot, fuzz_below(rnd, slot_pages[slot])) +
		       BIT(fuzz_below(rnd, 12));
	default:
		other = fuzz_below(rnd, NR_SLOTS);
		return page_gpa(other, fuzz_below(rnd, slot_pages[other]));
	}
}

/* Where L2s have their posted-interrupt descriptors: beside virtual-APIC pages. */
static inline u64 fuzz_desc_gpa(unsigned int block)
{
	return page_gpa(SLOT_HW, block ^ 2) + 0x800 + block * 64;
}

#define FUZZ_NOTIFICATION	0xf2

/* For a step that posts: mostly what an L2 has, and gets. */
static inline void fuzz_generate_post(struct guest_random_state *rnd, u64 arg[3])
{
	arg[0] = fuzz_desc_gpa(fuzz_below(rnd, NR_BLOCKS));
	arg[1] = fuzz_below(rnd, 256);
	arg[2] = FUZZ_NOTIFICATION;
	switch (fuzz_below(rnd, 8)) {
	case 0:
		arg[0] = fuzz_gpa(rnd, SLOT_HW, 1) & ~63ull;
		break;
	case 1:
		arg[2] = 16 + fuzz_below(rnd, 240);
		break;
	case 2:
		arg[2] = 0;
		break;
	}
}

static inline u64 fuzz_value(struct guest_random_state *rnd)
{
	switch (fuzz_below(rnd, 5)) {
	case 0:
		return 0;
	case 1:
		return BIT_ULL(fuzz_below(rnd, 64));
	case 2:
		return ~0ull;
	case 3:
		return fuzz_below(rnd, 256);
	default:
		return guest_random_u64(rnd);
	}
}

/* ---- L2: what it does is the same on both vendors ---- */

/* RCX has the number of an MSR, RSI an address, RDX a value. */
enum l2_routine {
	L2_EXIT, L2_RDMSR, L2_WRMSR, L2_CPUID, L2_HOST, L2_STORE, L2_LOAD,
	L2_HLT, L2_UD, L2_CR, L2_CR8, L2_HOST_STORE, L2_PUSH, L2_NEST,
	NR_L2_ROUTINES,
};

/*
 * Makes the routines of a vendor: @exit is the instruction that ends each, the
 * vendor's macro <vendor>_nested is L2's try at being a hypervisor.
 */
asm(".macro l2_routines vendor, exit\n"
	"\\vendor\\()_l2_exit:\n\t"
	"\\exit\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_rdmsr:\n\t"
	"rdmsr\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_wrmsr:\n\t"
	"mov %edx, %eax\n\t"
	"shr $32, %rdx\n\t"
	"wrmsr\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_cpuid:\n\t"
	"mov %edx, %eax\n\t"
	"mov %rbx, %r12\n\t"
	"cpuid\n\t"
	"xchg %rbx, %r12\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_host:\n\t"
	"out %al, $0xf5\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_store:\n\t"
	"mov %rdx, (%rsi)\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_load:\n\t"
	"mov (%rsi), %edx\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_hlt:\n\t"
	"hlt\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_ud:\n\t"
	"ud2\n"
	"\\vendor\\()_l2_cr:\n\t"
	"mov %cr0, %rdx\n\t"
	"mov %rdx, %cr0\n\t"
	"mov %cr3, %rdx\n\t"
	"mov %rdx, %cr3\n\t"
	"mov %cr4, %rdx\n\t"
	"mov %rdx, %cr4\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_cr8:\n\t"
	"and $0xf, %edx\n\t"
	"mov %rdx, %cr8\n\t"
	"mov %cr8, %rdx\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_host_store:\n\t"
	"out %al, $0xf5\n\t"
	"mov %rdx, (%rsi)\n\t"
	"out %al, $0xf5\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_push:\n\t"
	"push %rdx\n\t"
	"pop %rdx\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_nest:\n\t"
	"\\vendor\\()_nested\n\t"
	"jmp \\vendor\\()_l2_exit\n"
	"\\vendor\\()_l2_table:\n\t"
	".quad \\vendor\\()_l2_exit\n\t"
	".quad \\vendor\\()_l2_rdmsr\n\t"
	".quad \\vendor\\()_l2_wrmsr\n\t"
	".quad \\vendor\\()_l2_cpuid\n\t"
	".quad \\vendor\\()_l2_host\n\t"
	".quad \\vendor\\()_l2_store\n\t"
	".quad \\vendor\\()_l2_load\n\t"
	".quad \\vendor\\()_l2_hlt\n\t"
	".quad \\vendor\\()_l2_ud\n\t"
	".quad \\vendor\\()_l2_cr\n\t"
	".quad \\vendor\\()_l2_cr8\n\t"
	".quad \\vendor\\()_l2_host_store\n\t"
	".quad \\vendor\\()_l2_push\n\t"
	".quad \\vendor\\()_l2_nest\n"
	".endm");

/* How an L2 is entered: routine, MSR, and whether all is as it should be. */
#define RUN_MSR(run)		((u32)(run))
#define RUN_ROUTINE(run)	(((run) >> 32) & 0xff)
#define RUN_FLAGS(run)		((run) >> 40)
#define RUN_ODD			BIT(0)	/* leave out what belongs around it */
#define RUN_NO_SAVE		BIT(1)	/* SVM: no VMSAVE afterwards */
#define RUN_HEAL		BIT(2)	/* a block that can't be entered is made anew */

static inline void fuzz_generate_run(struct guest_random_state *rnd,
				     struct fuzz_step *s)
{
	static const u64 msrs[] = {
		MSR_LSTAR, MSR_STAR, MSR_FS_BASE, MSR_KERNEL_GS_BASE, MSR_EFER,
		MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_EIP, MSR_IA32_CR_PAT,
		MSR_SYSCALL_MASK, 0x8f0, 0xc0010117, 0xc0001fff, 0x12345678,
	};
	unsigned int routine = fuzz_below(rnd, NR_L2_ROUTINES);

	s->arg[1] = fuzz_pick(rnd, msrs, ARRAY_SIZE(msrs));
	/* MSRs are what bitmaps are about. */
	if (__guest_random_bool(rnd, 33))
		routine = guest_random_bool(rnd) ? L2_RDMSR : L2_WRMSR;
	else if (__guest_random_bool(rnd, 33))
		routine = L2_EXIT;
	s->arg[1] |= (u64)routine << 32;
	if (__guest_random_bool(rnd, 10))
		s->arg[1] |= (u64)RUN_ODD << 40;
	if (guest_random_bool(rnd))
		s->arg[1] |= (u64)RUN_NO_SAVE << 40;
	if (__guest_random_bool(rnd, 70))
		s->arg[1] |= (u64)RUN_HEAL << 40;
	s->arg[2] = __guest_random_bool(rnd, 70) ?
		    fuzz_gpa(rnd, fuzz_below(rnd, NR_SLOTS), 1) : fuzz_value(rnd);
}

/* Whether L2 will come to the host on its way, where the next step can be done. */
static inline bool fuzz_calls_host(const struct fuzz_step *s)
{
	return RUN_ROUTINE(s->arg[1]) == L2_HOST ||
	       RUN_ROUTINE(s->arg[1]) == L2_HOST_STORE;
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_FUZZ_H */
