/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The VM of vmx_nested_context_test: L1 vCPUs that do what the host asks them
 * to, memory slots that can be pulled from under them, save and restore, and
 * a model that says what the statistics must be.
 */
#ifndef SELFTEST_KVM_VMX_NESTED_CONTEXT_VM_H
#define SELFTEST_KVM_VMX_NESTED_CONTEXT_VM_H

#include "nested_context_common.h"
#include "vmx_nested_context_l2.h"

#define MAX_L1_VCPUS	2
#define NOWHERE		MAX_L1_VCPUS

/*
 * Whether kvm_intel loads contexts where the table is there.  If it did not, it
 * would have to count nothing.
 */
#define VMX_LOADS_CONTEXTS	true

/* Why an L1 vCPU came back to the host. */
enum l1_stop {
	L1_DONE,	/* the call is finished, the vCPU is in L1 */
	L2_PAUSED,	/* L2 did its OUT; the vCPU is in L2 */
	L1_STUCK,	/* KVM could not enter L2; L1 is before the instruction */
};

typedef u64 (*l1_fn)(u32 cpu, u64 *arg);

/* A call from the host to one L1 vCPU. */
static struct l1_call {
	l1_fn fn;
	u64 arg[4];
	u64 ret;
} l1_calls[MAX_L1_VCPUS];

/* Where each L1 vCPU has its VMXON region, and a page of zeroes for all. */
static u64 l1_vmxon[MAX_L1_VCPUS];
static u64 l1_zeroes;

static void l1_main(u32 cpu, void *vmxon, u64 vmxon_gpa, u64 zeroes)
{
	struct l1_call *call = &l1_calls[cpu];

	l1_vmxon[cpu] = vmxon_gpa;
	l1_zeroes = zeroes;
	l1_enable_vmx(vmxon, vmxon_gpa);
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
			l2_step(&l2s[i]);
	}
	return 0;
}

/* arg: first L2, number, features */
static u64 l1_make_l2s(u32 cpu, u64 *arg)
{
	u32 i;

	for (i = arg[0]; i < arg[0] + arg[1]; i++)
		l2_init(i, arg[2], l1_zeroes);
	return 0;
}

/* arg: L2 */
static u64 l1_clear_l2(u32 cpu, u64 *arg)
{
	l2_clear(&l2s[arg[0]]);
	return 0;
}

/* arg: first L2, number, what to add to its number for that of its bitmap */
static u64 l1_change_maps(u32 cpu, u64 *arg)
{
	u64 i;

	for (i = arg[0]; i < arg[0] + arg[1]; i++)
		l2_set_map(&l2s[i], i + arg[2]);
	return 0;
}

#define L1_VMFAIL_INVALID	~0ull

/*
 * What an instruction that failed left behind: the error, or L1_VMFAIL_INVALID
 * where no VMCS was current to note it in.
 */
static u64 l1_error(int failed)
{
	u64 error = 0;

	if (!failed)
		return 0;
	if (vmread(VM_INSTRUCTION_ERROR, &error))
		return L1_VMFAIL_INVALID;
	return error;
}

/* arg: physical address.  Each returns the error or 0. */
static u64 l1_try_vmptrld(u32 cpu, u64 *arg)
{
	return l1_error(vmptrld(arg[0]));
}

static u64 l1_try_vmclear(u32 cpu, u64 *arg)
{
	return l1_error(vmclear(arg[0]));
}

/* arg: L2.  What happens when it is to be entered. */
static u64 l1_try_enter(u32 cpu, u64 *arg)
{
	struct l2_state *l2 = &l2s[arg[0]];

	GUEST_ASSERT(!vmptrld(l2->v.vmcs));
	return l1_error(vmx_l2_enter(&l2->v, l2->v.launched));
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

enum { VMCS, BITMAP, VAPIC, APIC, PRIVATE, NR_SLOTS };

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[MAX_L1_VCPUS];
	u32 nr_vcpus;
	u32 nr_l2;
	u32 where[L2_MAX];	/* the vCPU that an L2's VMCS is active on */
	bool in_l2[MAX_L1_VCPUS];
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

static struct l2_private *test_private(u32 l2)
{
	return t.slot[PRIVATE].hva + l2 * L2_PRIVATE_PAGES * PAGE_SIZE +
	       L2_STRUCT_OFFSET;
}

static struct l2_state *test_l2(u32 l2)
{
	return addr_gva2hva(t.vm, (vm_vaddr_t)&l2s[l2]);
}

static u64 vmcs_gpa(u32 l2)
{
	return L2_VMCS_GPA + l2 * PAGE_SIZE;
}

/* Runs a vCPU until it has something to say to the host. */
static enum l1_stop vcpu_go(u32 cpu)
{
	struct kvm_vcpu *vcpu = t.vcpu[cpu];
	struct ucall uc;

	t.in_l2[cpu] = false;
	vcpu_run(vcpu);
	if (vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		return L1_STUCK;
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (vcpu->run->io.port == L2_PAUSE_PORT) {
		vcpu_run_complete_io(vcpu);
		t.in_l2[cpu] = true;
		return L2_PAUSED;
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

static enum l1_stop l1_start(u32 cpu, l1_fn fn, u64 a, u64 b, u64 c, u64 d)
{
	struct l1_call *call = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_calls[cpu]);

	TEST_ASSERT(!t.in_l2[cpu], "vCPU %u is in L2, L1 cannot be called", cpu);
	*call = (struct l1_call) { fn, { a, b, c, d }, 0 };
	return vcpu_go(cpu);
}

static u64 l1_ret(u32 cpu)
{
	struct l1_call *call = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_calls[cpu]);

	return call->ret;
}

static u64 l1_do(u32 cpu, l1_fn fn, u64 a, u64 b, u64 c, u64 d)
{
	enum l1_stop stop = l1_start(cpu, fn, a, b, c, d);

	TEST_ASSERT(stop == L1_DONE, "vCPU %u stopped in L2 (%u)", cpu, stop);
	return l1_ret(cpu);
}

/* As a hypervisor has to: VMCLEAR on the vCPU that an L2 leaves. */
static void move_l2s(u32 cpu, u32 first, u32 nr)
{
	u32 i;

	for (i = first; i < first + nr; i++) {
		if (t.where[i] != NOWHERE && t.where[i] != cpu)
			l1_do(t.where[i], l1_clear_l2, i, 0, 0, 0);
		t.where[i] = cpu;
	}
}

/* Everything that vCPU @cpu has not yet written to memory it writes. */
static void clear_l2s(void)
{
	u32 i;

	for (i = 0; i < t.nr_l2; i++) {
		if (t.where[i] != NOWHERE)
			l1_do(t.where[i], l1_clear_l2, i, 0, 0, 0);
		t.where[i] = NOWHERE;
	}
}

static void run_l2s(u32 cpu, u32 first, u32 nr, u32 rounds)
{
	move_l2s(cpu, first, nr);
	l1_do(cpu, l1_run_l2s, first, nr, rounds, 0);
}

/* Starts one round of an L2 and stops at its beginning, in L2. */
static void pause_in_l2(u32 cpu, u32 l2)
{
	enum l1_stop stop;

	move_l2s(cpu, l2, 1);
	test_private(l2)->pause = true;
	stop = l1_start(cpu, l1_run_l2s, l2, 1, 1, 0);
	TEST_ASSERT(stop == L2_PAUSED, "vCPU %u did not pause in L2 %u: %u",
		    cpu, l2, stop);
	test_private(l2)->pause = false;
}

static void finish_l2(u32 cpu, u32 l2)
{
	enum l1_stop stop = vcpu_go(cpu);

	TEST_ASSERT(stop == L1_DONE, "vCPU %u did not finish L2 %u: %u",
		    cpu, l2, stop);
}

#define FEATURES_ALL	(VMX_L2_MSR_BITMAP | VMX_L2_TPR_SHADOW | \
			 VMX_L2_APIC_ACCESS | VMX_L2_EPT)

struct test_options {
	u32 nr_l2;
	u32 nr_vcpus;
	u32 ratio;
	u32 features;
};

static void test_vm_create(const struct test_options *opt)
{
	static const struct { u64 gpa; u32 id, pages; } slots[NR_SLOTS] = {
		[VMCS]	  = { L2_VMCS_GPA, L2_VMCS_SLOT, 1 },
		[BITMAP]  = { L2_BITMAP_GPA, L2_BITMAP_SLOT, 1 },
		[VAPIC]	  = { L2_VAPIC_GPA, L2_VAPIC_SLOT, 1 },
		[APIC]	  = { L2_APIC_GPA, L2_APIC_SLOT, 1 },
		[PRIVATE] = { L2_PRIVATE_GPA, L2_PRIVATE_SLOT, L2_PRIVATE_PAGES },
	};
	vm_vaddr_t vmxon, zeroes;
	u32 i;

	nested_context_set_ratio(opt->ratio);
	memset(&t, 0, sizeof(t));
	t.nr_vcpus = opt->nr_vcpus;
	t.nr_l2 = opt->nr_l2;
	t.vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, t.nr_vcpus, 256,
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
	zeroes = vm_vaddr_alloc_page(t.vm);
	for (i = 0; i < t.nr_vcpus; i++) {
		vmxon = vm_vaddr_alloc_page(t.vm);
		vcpu_args_set(t.vcpu[i], 4, i, vmxon, addr_gva2gpa(t.vm, vmxon),
			      addr_gva2gpa(t.vm, zeroes));
		TEST_ASSERT_EQ(vcpu_go(i), L1_DONE);
	}
	for (i = 0; i < L2_MAX; i++)
		t.where[i] = NOWHERE;
	l1_do(0, l1_make_l2s, 0, opt->nr_l2, opt->features, 0);
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

static bool stats_expected(void)
{
	return nested_context_present() && VMX_LOADS_CONTEXTS;
}

static void test_stats_restart(void)
{
	t.base = nested_context_read_stats(t.vm);
}

static struct nested_context_stats test_stats(void)
{
	return nested_context_stats_sub(nested_context_read_stats(t.vm), t.base);
}

/*
 * What a sequence of rounds must count.  Making the L2s has loaded each of them
 * once, on vCPU 0.  Loading again what this vCPU loaded last, if no other did
 * since, is none.
 */
static struct {
	u64 reuse;
	u32 last[MAX_L1_VCPUS];		/* number of the L2 plus one */
	u32 user[L2_MAX];		/* number of the vCPU plus one */
} model;

static void model_restart(void)
{
	u32 i;

	memset(&model, 0, sizeof(model));
	for (i = 0; i < t.nr_l2; i++)
		model.user[i] = 1;
	model.last[0] = t.nr_l2;
	test_stats_restart();
}

/* Runs and counts. */
static void run_and_model(u32 cpu, u32 first, u32 nr, u32 rounds)
{
	u32 i, round;

	run_l2s(cpu, first, nr, rounds);
	for (round = 0; round < rounds; round++) {
		for (i = first; i < first + nr; i++) {
			if (model.last[cpu] == i + 1 && model.user[i] == cpu + 1)
				continue;
			model.reuse++;
			model.last[cpu] = i + 1;
			model.user[i] = cpu + 1;
		}
	}
}

/* With room for all L2s each load finds its context; without, none is lost. */
static void expect_model(u32 capacity)
{
	struct nested_context_stats s = test_stats();
	u64 loads = stats_expected() && capacity ? model.reuse : 0;

	TEST_ASSERT(nested_context_loads(s) == loads && !s.fallback &&
		    (t.nr_l2 > capacity || s.reuse == loads),
		    "%lu loads expected, new %lu reuse %lu recycle %lu fallback %lu",
		    loads, s.new, s.reuse, s.recycle, s.fallback);
}

#endif /* SELFTEST_KVM_VMX_NESTED_CONTEXT_VM_H */
