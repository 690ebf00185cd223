/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The VM of svm_nested_context_test: L1 vCPUs that do what the host asks them
 * to, memory slots that can be pulled from under them, save and restore, and
 * a model that says what the statistics must be.
 */
#ifndef SELFTEST_KVM_SVM_NESTED_CONTEXT_VM_H
#define SELFTEST_KVM_SVM_NESTED_CONTEXT_VM_H

#include "nested_context_common.h"
#include "svm_nested_context_l2.h"

#define MAX_L1_VCPUS	4
#define NR_SLOTS	3

/* Why an L1 vCPU came back to the host. */
enum l1_stop {
	L1_DONE,	/* the call is finished, the vCPU is in L1 */
	L2_PAUSED,	/* L2 did its OUT; the vCPU is in L2 */
	L2_GOT_GP,	/* L2's #GP handler did its OUT; the vCPU is in L2 */
	SMM_STOP,	/* the SMI handler did its OUT */
};

typedef u64 (*l1_fn)(u32 cpu, u64 *arg);

/* A call from the host to one L1 vCPU. */
static struct l1_call {
	l1_fn fn;
	u64 arg[4];
	u64 ret;
} l1_calls[MAX_L1_VCPUS];

#define SMM_PORT	0x9b

static void l1_main(u32 cpu, u64 hsave_gpa)
{
	struct l1_call *call = &l1_calls[cpu];

	l1_enable_svm(hsave_gpa);
	for (;;) {
		GUEST_SYNC(0);
		call->ret = call->fn(cpu, call->arg);
	}
}

/* ---- L1's functions of general use ---- */

/* arg: first L2, number, rounds */
static u64 l1_run_l2s(u32 cpu, u64 *arg)
{
	u64 i, round;

	for (round = 0; round < arg[2]; round++) {
		for (i = arg[0]; i < arg[0] + arg[1]; i++)
			l2_step(&l2s[i], cpu);
	}
	return 0;
}

/* arg: number of L2s, nested paging, clean bits, MSR accesses */
static u64 l1_make_l2s(u32 cpu, u64 *arg)
{
	u32 i;

	for (i = 0; i < arg[0]; i++)
		l2_init(i, arg[1], arg[2], arg[3]);
	return 0;
}

/*
 * L2s without any memory of their own.  l2_counter adds one to RAX, which
 * is in the control block, and to RBX, which is not, and pauses before it
 * exits.  l2_quiet only exits, and L1 doesn't have to write its block to let
 * it do so again; l2_pause pauses before.  l2_ud raises an exception, l2_wrmsr
 * writes to an MSR.
 */
extern char l2_counter[], l2_counter_vmmcall[], l2_quiet[];
extern char l2_pause[], l2_ud[], l2_wrmsr[];

asm(".pushsection .text\n"
	"l2_counter:\n\t"
	"add $1, %rax\n\t"
	"add $1, %rbx\n\t"
	"out %al, $0x99\n"
	"l2_counter_vmmcall:\n\t"
	"vmmcall\n\t"
	"jmp l2_counter\n"
	"l2_quiet:\n\t"
	"vmmcall\n\t"
	"jmp l2_quiet\n"
	"l2_pause:\n\t"
	"out %al, $0x99\n\t"
	"vmmcall\n\t"
	"jmp l2_pause\n"
	"l2_ud:\n\t"
	"ud2\n"
	"l2_wrmsr:\n\t"
	"wrmsr\n\t"
	"jmp l2_quiet\n"
	".popsection");

/* arg: L2, RBX, times.  Returns RBX after. */
static u64 l1_run_counter(u32 cpu, u64 *arg)
{
	struct l2_vcpu mine = l2s[arg[0]].v;
	struct vmcb *vmcb = mine.vmcb;
	u64 n;

	mine.gpr[L2_RBX] = arg[1];
	for (n = 0; n < arg[2]; n++) {
		vmcb->save.rip = (u64)l2_counter;
		l2_vmrun(&mine, mine.vmcb_gpa);
		GUEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		GUEST_ASSERT_EQ(vmcb->save.rip, (u64)l2_counter_vmmcall);
	}
	return mine.gpr[L2_RBX];
}

/* arg: physical address.  Each returns the vector that came of it, or 0. */
static u64 l1_try_vmrun(u32 cpu, u64 *arg)
{
	return kvm_asm_safe("vmrun %%rax", "a"(arg[0]));
}

static u64 l1_try_vmload(u32 cpu, u64 *arg)
{
	return kvm_asm_safe("vmload %%rax", "a"(arg[0]));
}

static u64 l1_try_vmsave(u32 cpu, u64 *arg)
{
	return kvm_asm_safe("vmsave %%rax", "a"(arg[0]));
}

/* arg: first L2, number, what to add to its number for that of its map */
static u64 l1_change_maps(u32 cpu, u64 *arg)
{
	u64 i;

	for (i = arg[0]; i < arg[0] + arg[1]; i++)
		l2_set_map(&l2s[i], i + arg[2]);
	return 0;
}

/* ---- Host ---- */

struct slot {
	u64 gpa;
	size_t size;
	u32 id;
	u32 flags;
	void *hva;
	bool present;
};

enum { VMCB, MSRPM, PRIVATE };

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[MAX_L1_VCPUS];
	u32 nr_vcpus;
	u32 nr_l2;
	struct slot slot[NR_SLOTS];
	struct nested_context_stats base;
};

static struct test_vm t;

static void slot_set(struct slot *s)
{
	vm_set_user_memory_region(t.vm, s->id, s->flags, s->gpa, s->size, s->hva);
	s->present = true;
}

static void slot_delete(struct slot *s)
{
	vm_set_user_memory_region(t.vm, s->id, 0, s->gpa, 0, s->hva);
	s->present = false;
}

static void *slot_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(p != MAP_FAILED, "mmap of %zu bytes", size);
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static void *test_hva(u64 gpa)
{
	struct slot *s;

	for (s = t.slot; s < t.slot + NR_SLOTS; s++) {
		if (gpa >= s->gpa && gpa < s->gpa + s->size)
			return s->hva + (gpa - s->gpa);
	}
	TEST_FAIL("No slot of the test's at %llx", (unsigned long long)gpa);
}

static struct vmcb *test_vmcb(u32 l2)
{
	return test_hva(L2_VMCB_GPA + l2 * PAGE_SIZE);
}

static struct l2_private *test_private(u32 l2)
{
	return test_hva(L2_PRIVATE_GPA + l2 * L2_PRIVATE_PAGES * PAGE_SIZE +
			L2_STRUCT_OFFSET);
}

static struct l2_state *test_l2(u32 l2)
{
	return addr_gva2hva(t.vm, (vm_vaddr_t)&l2s[l2]);
}

static void test_pause(u32 l2, bool pause)
{
	test_private(l2)->pause = pause;
}

/* Runs a vCPU until it has something to say to the host. */
static enum l1_stop vcpu_go(u32 cpu)
{
	struct kvm_vcpu *vcpu = t.vcpu[cpu];
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	switch (vcpu->run->io.port) {
	case L2_PAUSE_PORT:
		vcpu_run_complete_io(vcpu);
		return L2_PAUSED;
	case L2_GP_PORT:
		vcpu_run_complete_io(vcpu);
		return L2_GOT_GP;
	case SMM_PORT:
		vcpu_run_complete_io(vcpu);
		return SMM_STOP;
	}

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		return L1_DONE;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	default:
		TEST_FAIL("vCPU %u: ucall %lu", cpu, uc.cmd);
	}
	return L1_DONE;
}

static void l1_set_call(u32 cpu, l1_fn fn, u64 a, u64 b, u64 c, u64 d)
{
	struct l1_call *call = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_calls[cpu]);

	*call = (struct l1_call) { fn, { a, b, c, d }, 0 };
}

static u64 l1_ret(u32 cpu)
{
	struct l1_call *call = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_calls[cpu]);

	return call->ret;
}

static enum l1_stop l1_start(u32 cpu, l1_fn fn, u64 a, u64 b, u64 c, u64 d)
{
	l1_set_call(cpu, fn, a, b, c, d);
	return vcpu_go(cpu);
}

static u64 l1_do(u32 cpu, l1_fn fn, u64 a, u64 b, u64 c, u64 d)
{
	enum l1_stop stop = l1_start(cpu, fn, a, b, c, d);

	TEST_ASSERT(stop == L1_DONE, "vCPU %u stopped in L2 (%u)", cpu, stop);
	return l1_ret(cpu);
}

static void run_l2s(u32 cpu, u32 first, u32 nr, u32 rounds)
{
	l1_do(cpu, l1_run_l2s, first, nr, rounds, 0);
}

/* Starts one round of an L2 and stops in its middle, in L2. */
static void pause_in_l2(u32 cpu, u32 l2)
{
	enum l1_stop stop;

	test_pause(l2, true);
	stop = l1_start(cpu, l1_run_l2s, l2, 1, 1, 0);
	TEST_ASSERT(stop == L2_PAUSED, "vCPU %u did not pause in L2 %u: %u",
		    cpu, l2, stop);
}

static void finish_l2(u32 cpu, u32 l2)
{
	enum l1_stop stop = vcpu_go(cpu);

	TEST_ASSERT(stop == L1_DONE, "vCPU %u did not finish L2 %u: %u",
		    cpu, l2, stop);
	test_pause(l2, false);
}

struct test_options {
	u32 nr_l2;
	u32 nr_vcpus;
	u32 ratio;
	u32 accesses;
	bool npt;
	bool clean;
};

static void test_vm_create_empty(const struct test_options *opt)
{
	static const struct { u64 gpa; u32 id, pages; } slots[NR_SLOTS] = {
		[VMCB]	  = { L2_VMCB_GPA, L2_VMCB_SLOT, 1 },
		[MSRPM]	  = { L2_MSRPM_GPA, L2_MSRPM_SLOT, L2_MSRPM_PAGES },
		[PRIVATE] = { L2_PRIVATE_GPA, L2_PRIVATE_SLOT, L2_PRIVATE_PAGES },
	};
	vm_vaddr_t hsave;
	u32 i;

	nested_context_set_ratio(opt->ratio);
	memset(&t, 0, sizeof(t));
	t.nr_vcpus = opt->nr_vcpus;
	t.nr_l2 = opt->nr_l2;
	t.vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, t.nr_vcpus, 1024,
				      l1_main, t.vcpu);
	for (i = 0; i < NR_SLOTS; i++) {
		struct slot *s = &t.slot[i];

		s->gpa = slots[i].gpa;
		s->id = slots[i].id;
		s->size = slots[i].pages * opt->nr_l2 * PAGE_SIZE;
		s->hva = slot_pages(s->size);
		slot_set(s);
		virt_map(t.vm, s->gpa, s->gpa, s->size / PAGE_SIZE);
	}
	for (i = 0; i < t.nr_vcpus; i++) {
		hsave = vm_vaddr_alloc_page(t.vm);
		vcpu_args_set(t.vcpu[i], 2, i, addr_gva2gpa(t.vm, hsave));
		TEST_ASSERT_EQ(vcpu_go(i), L1_DONE);
	}
}

/* A VM with its L2s made and none of them run yet. */
static void test_vm_create(const struct test_options *opt)
{
	test_vm_create_empty(opt);
	l1_do(0, l1_make_l2s, opt->nr_l2, opt->npt, opt->clean, opt->accesses);
}

static void test_vm_free(void)
{
	u32 i;

	kvm_vm_free(t.vm);
	for (i = 0; i < NR_SLOTS; i++)
		munmap(t.slot[i].hva, t.slot[i].size);
}

/* Moves everything to a new VM, as a live migration does. */
static void test_save_restore(void)
{
	struct kvm_x86_state *state[MAX_L1_VCPUS];
	u32 i;

	for (i = 0; i < t.nr_vcpus; i++)
		state[i] = vcpu_save_state(t.vcpu[i]);
	kvm_vm_release(t.vm);

	kvm_vm_restart(t.vm);
	for (i = 0; i < NR_SLOTS; i++) {
		if (t.slot[i].present)
			slot_set(&t.slot[i]);
	}
	for (i = 0; i < t.nr_vcpus; i++)
		t.vcpu[i] = vm_vcpu_recreate(t.vm, i);
	for (i = 0; i < t.nr_vcpus; i++) {
		vcpu_load_state(t.vcpu[i], state[i]);
		kvm_x86_state_cleanup(state[i]);
	}
}

/* ---- Statistics ---- */

static struct nested_context_stats test_stats(void)
{
	return nested_context_stats_sub(nested_context_read_stats(t.vm), t.base);
}

static void test_stats_restart(void)
{
	t.base = nested_context_read_stats(t.vm);
}

static void expect_stats(u64 new, u64 reuse, u64 recycle, u64 fallback)
{
	struct nested_context_stats s = test_stats();

	if (!nested_context_present())
		return;

	TEST_ASSERT(s.new == new && s.reuse == reuse &&
		    s.recycle == recycle && s.fallback == fallback,
		    "new %lu reuse %lu recycle %lu fallback %lu, expected %lu %lu %lu %lu",
		    s.new, s.reuse, s.recycle, s.fallback,
		    new, reuse, recycle, fallback);
}

/*
 * What a sequence of rounds must count while there is room for every L2.
 * Entering again what this vCPU ran last, if no other ran it since, is none.
 */
static struct {
	struct nested_context_stats s;
	u32 last[MAX_L1_VCPUS];		/* number of the L2 plus one */
	u32 user[L2_MAX];		/* number of the vCPU plus one */
} model;

static void model_restart(void)
{
	memset(&model, 0, sizeof(model));
}

static void model_run(u32 cpu, u32 first, u32 nr, u32 rounds)
{
	u32 i, round;

	for (round = 0; round < rounds; round++) {
		for (i = first; i < first + nr; i++) {
			if (model.last[cpu] == i + 1 && model.user[i] == cpu + 1)
				continue;
			if (model.user[i])
				model.s.reuse++;
			else
				model.s.new++;
			model.last[cpu] = i + 1;
			model.user[i] = cpu + 1;
		}
	}
}

/* Runs and counts. */
static void run_and_model(u32 cpu, u32 first, u32 nr, u32 rounds)
{
	run_l2s(cpu, first, nr, rounds);
	model_run(cpu, first, nr, rounds);
}

/*
 * With room for all L2s every count is exact.  Without, the capacity is made
 * use of in full, what is not found is taken over, nobody goes without, and
 * the number of loads is exact still.
 */
static void expect_model(u32 capacity)
{
	struct nested_context_stats s = test_stats();
	u64 wanted = model.s.new, loads = nested_context_loads(model.s);

	if (!nested_context_present())
		return;

	if (!capacity) {
		expect_stats(0, 0, 0, 0);
	} else if (wanted <= capacity) {
		expect_stats(wanted, model.s.reuse, 0, 0);
	} else {
		TEST_ASSERT(s.new == capacity && !s.fallback &&
			    nested_context_loads(s) == loads &&
			    s.recycle >= wanted - capacity,
			    "%lu L2s, capacity %u, %lu loads, but new %lu reuse %lu recycle %lu fallback %lu",
			    wanted, capacity, loads,
			    s.new, s.reuse, s.recycle, s.fallback);
	}
}

#endif /* SELFTEST_KVM_SVM_NESTED_CONTEXT_VM_H */
