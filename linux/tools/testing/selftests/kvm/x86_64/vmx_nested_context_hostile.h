/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases of vmx_nested_context_test: what L1 should not do, but may.
 *
 * What is expected here is what the kernel does without nested contexts; where
 * that is not what one would guess, the check says so.
 */
#ifndef SELFTEST_KVM_VMX_NESTED_CONTEXT_HOSTILE_H
#define SELFTEST_KVM_VMX_NESTED_CONTEXT_HOSTILE_H

#include "vmx_nested_context_vm.h"

#define HOSTILE_L2S		4

#define VMXERR_CLEAR_ADDRESS	2
#define VMXERR_CLEAR_VMXON	3
#define VMXERR_LOAD_ADDRESS	9
#define VMXERR_LOAD_VMXON	10

FIXTURE(hostile) {
};

FIXTURE_SETUP(hostile)
{
	const struct test_options opt = {
		.nr_l2 = HOSTILE_L2S, .nr_vcpus = 2, .ratio = 8,
		.features = FEATURES_ALL,
	};

	test_vm_create(&opt);
	run_l2s(0, 0, HOSTILE_L2S, 1);
}

/* Whatever L1 did, the L2s that it did it to and all others still run. */
FIXTURE_TEARDOWN(hostile)
{
	run_l2s(1, 0, HOSTILE_L2S, 1);
	run_l2s(0, 0, HOSTILE_L2S, 1);
	test_vm_free();
}

static void expect_errors(u32 cpu, u64 gpa, u64 load, u64 clear)
{
	u64 l = l1_do(cpu, l1_try_vmptrld, gpa, 0, 0, 0);
	u64 c = l1_do(cpu, l1_try_vmclear, gpa, 0, 0, 0);

	TEST_ASSERT(l == load && c == clear,
		    "vCPU %u, %llx: VMPTRLD %lld, VMCLEAR %lld, expected %lld, %lld",
		    cpu, (unsigned long long)gpa, (long long)l, (long long)c,
		    (long long)load, (long long)clear);
}

/* arg: vCPU */
static u64 l1_get_vmxon(u32 cpu, u64 *arg)
{
	return l1_vmxon[arg[0]];
}

/*
 * The VMXON region is no VMCS, nor is what is not a page's address.  Each vCPU
 * knows of its own region only.  On vCPU 0 a VMCS is current and stays so; on
 * vCPU 1 there is none to note an error in.
 */
TEST_F_TIMEOUT(hostile, bad_pointers, CASE_TIMEOUT)
{
	u64 inval = L1_VMFAIL_INVALID, vmxon[2];
	u32 i;

	for (i = 0; i < 2; i++)
		vmxon[i] = l1_do(i, l1_get_vmxon, i, 0, 0, 0);

	for (i = 0; i < 2; i++) {
		expect_errors(0, vmxon[0], VMXERR_LOAD_VMXON, VMXERR_CLEAR_VMXON);
		expect_errors(0, vmcs_gpa(0) + 8, VMXERR_LOAD_ADDRESS, VMXERR_CLEAR_ADDRESS);
		expect_errors(0, 1ull << 51, VMXERR_LOAD_ADDRESS, VMXERR_CLEAR_ADDRESS);
		expect_errors(1, vmxon[1], inval, inval);
		expect_errors(1, vmcs_gpa(0) + 8, inval, inval);
		expect_errors(1, 1ull << 51, inval, inval);
		TEST_ASSERT_EQ(l1_do(0, l1_try_vmptrld, L2_PRIVATE_GPA, 0, 0, 0),
			       VMXERR_REVISION);
		run_l2s(0, HOSTILE_L2S - 1, 1, 1);
	}
}

/*
 * Control blocks up to the last page of memory are good, the next one is not.
 * VMCLEAR of no memory at all is as good as any.
 */
TEST_F_TIMEOUT(hostile, end_of_memslot, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 4; i++) {
		run_l2s(i % 2, HOSTILE_L2S - 1, 1, 1);
		expect_errors(i % 2, vmcs_gpa(HOSTILE_L2S), VMXERR_REVISION, 0);
		expect_errors(i % 2, 0xfee00000, VMXERR_REVISION, 0);
		run_l2s(i % 2, HOSTILE_L2S - 1, 1, 1);
	}
}

/*
 * L2s without any memory of their own.  This one adds one to RBX, pauses and
 * exits.
 */
extern char l2_counter[], l2_counter_vmcall[];

asm(".pushsection .text\n"
	"l2_counter:\n\t"
	"add $1, %rbx\n\t"
	"out %al, $0x99\n"
	"l2_counter_vmcall:\n\t"
	"vmcall\n\t"
	"jmp l2_counter\n"
	".popsection");

/*
 * arg: L2, RBX and marker, launched.  Runs L2's VMCS with other registers than
 * L2's and returns RBX after, with the marker found in the VMCS above.
 */
static u64 l1_run_counter(u32 cpu, u64 *arg)
{
	struct vmx_l2 mine = { .gpr[VMX_L2_RBX] = arg[1] };
	u64 vmcs = l2s[arg[0]].v.vmcs, ptr = 0;

	GUEST_ASSERT(!vmptrld(vmcs));
	GUEST_ASSERT(!vmwrite(HOST_RSP, (u64)&mine));
	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)l2_counter));
	GUEST_ASSERT(!vmwrite(GUEST_SYSENTER_ESP, arg[1]));
	GUEST_ASSERT_EQ(vmx_l2_enter(&mine, arg[2]), 0);
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	GUEST_ASSERT_EQ(vmreadz(GUEST_RIP), (u64)l2_counter_vmcall);
	GUEST_ASSERT(!vmptrst(&ptr));
	GUEST_ASSERT_EQ(ptr, vmcs);
	return mine.gpr[VMX_L2_RBX] | vmreadz(GUEST_SYSENTER_ESP) << 32;
}

/* arg: L2.  Returns the marker, that of the VMCS in memory. */
static u64 l1_marker(u32 cpu, u64 *arg)
{
	GUEST_ASSERT(!vmptrld(l2s[arg[0]].v.vmcs));
	return vmreadz(GUEST_SYSENTER_ESP);
}

/* What is needed to make an L2 good again after such. */
static void remake_l2(u32 l2)
{
	l1_do(0, l1_make_l2s, l2, 1, FEATURES_ALL, 0);
	t.where[l2] = NOWHERE;
}

/*
 * One VMCS is current on two vCPUs at once: each works on its own copy, and the
 * last that lets go of it decides what is in memory.
 */
TEST_F_TIMEOUT(hostile, one_vmcs_on_two_vcpus, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 4; i++) {
		clear_l2s();
		TEST_ASSERT_EQ(l1_start(0, l1_run_counter, 0, 100, 0, 0), L2_PAUSED);
		TEST_ASSERT_EQ(l1_start(1, l1_run_counter, 0, 200, 0, 0), L2_PAUSED);
		TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
		TEST_ASSERT_EQ(l1_ret(1), 201 | 200ull << 32);
		TEST_ASSERT_EQ(vcpu_go(0), L1_DONE);
		TEST_ASSERT_EQ(l1_ret(0), 101 | 100ull << 32);

		/* Still launched on both. */
		TEST_ASSERT_EQ(l1_start(1, l1_run_counter, 0, 300, 1, 0), L2_PAUSED);
		TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
		TEST_ASSERT_EQ(l1_start(0, l1_run_counter, 0, 400, 1, 0), L2_PAUSED);
		TEST_ASSERT_EQ(vcpu_go(0), L1_DONE);
		TEST_ASSERT_EQ(l1_ret(0), 401 | 400ull << 32);

		TEST_ASSERT_EQ(l1_do(i % 2, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		TEST_ASSERT_EQ(l1_do(!(i % 2), l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		TEST_ASSERT_EQ(l1_do(0, l1_marker, 0, 0, 0, 0), i % 2 ? 400 : 300);
		TEST_ASSERT_EQ(l1_do(0, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		remake_l2(0);
		run_l2s(0, 0, HOSTILE_L2S, 1);
	}
}

static void run_counter(u32 cpu, u32 launched)
{
	TEST_ASSERT_EQ(l1_start(cpu, l1_run_counter, 0, 100, launched, 0), L2_PAUSED);
	TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
	TEST_ASSERT_EQ(l1_ret(cpu), 101 | 100ull << 32);
}

static void expect_loads(u64 reuse, u64 fallback)
{
	struct nested_context_stats s = test_stats();

	if (!stats_expected())
		return;
	TEST_ASSERT(nested_context_loads(s) == reuse + fallback && s.fallback == fallback,
		    "reuse %lu fallback %lu expected; new %lu reuse %lu recycle %lu fallback %lu",
		    reuse, fallback, s.new, s.reuse, s.recycle, s.fallback);
}

/*
 * A VMCS that is current on two vCPUs has one context, and the second vCPU does
 * without.  Entering L2 again and again counts nothing.  When the first vCPU has
 * let go, the second takes the context at its next entry, with no VMPTRLD.
 */
TEST_F_TIMEOUT(hostile, context_free_at_last, CASE_TIMEOUT)
{
	u32 cpu, i;

	for (cpu = 0; cpu < 2; cpu++) {
		clear_l2s();
		run_l2s(0, HOSTILE_L2S - 2, 1, 1);
		run_l2s(1, HOSTILE_L2S - 1, 1, 1);
		test_stats_restart();
		run_counter(!cpu, 0);
		run_counter(cpu, 0);
		expect_loads(1, 1);
		for (i = 0; i < 3; i++)
			run_counter(cpu, 1);
		run_counter(!cpu, 1);
		expect_loads(1, 1);

		TEST_ASSERT_EQ(l1_do(!cpu, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		for (i = 0; i < 3; i++)
			run_counter(cpu, 1);
		expect_loads(2, 1);

		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		remake_l2(0);
		run_l2s(cpu, 0, HOSTILE_L2S, 1);
	}
}

/*
 * VMCLEAR of what is current on another vCPU, which is in L2 or in L1: that
 * one does not notice.
 */
TEST_F_TIMEOUT(hostile, vmclear_of_anothers_vmcs, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 2 * HOSTILE_L2S; i++) {
		u32 l2 = i % HOSTILE_L2S, cpu = i / HOSTILE_L2S;

		pause_in_l2(cpu, l2);
		TEST_ASSERT_EQ(l1_do(!cpu, l1_try_vmclear, vmcs_gpa(l2), 0, 0, 0), 0);
		finish_l2(cpu, l2);
		run_l2s(cpu, l2, 1, 1);
		TEST_ASSERT_EQ(l1_do(!cpu, l1_try_vmclear, vmcs_gpa(l2), 0, 0, 0), 0);
		run_l2s(cpu, l2, 1, 1);
	}
}

/*
 * One page is everything in turn: VMCS, MSR bitmap of another L2, its virtual-
 * APIC page, VMCS again, with a context of its first life still there.
 */
static u64 l1_change_role(u32 cpu, u64 *arg)
{
	struct l2_state *l2 = &l2s[0], *other = &l2s[1];
	static u8 page[PAGE_SIZE];
	void *role = (void *)other->v.vmcs;
	u8 *kept;

	l2_clear(other);
	memcpy(page, role, PAGE_SIZE);

	/* Its own lets all pass meanwhile, so one that is stale shows. */
	kept = l2->v.msr_bitmap;
	memcpy(role, kept, PAGE_SIZE);
	memset(kept, 0, PAGE_SIZE);
	GUEST_ASSERT(!vmptrld(l2->v.vmcs));
	vmwrite(MSR_BITMAP, (u64)role);
	l2->v.msr_bitmap = role;
	l2_step(l2);
	memcpy(kept, role, PAGE_SIZE);
	vmwrite(MSR_BITMAP, (u64)kept);
	l2->v.msr_bitmap = kept;

	kept = l2->v.vapic;
	memset(role, 0, PAGE_SIZE);
	memset(kept, 0x5a, PAGE_SIZE);
	vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)role);
	l2->v.vapic = role;
	l2_step(l2);
	GUEST_ASSERT_EQ(*(u32 *)(kept + L2_APIC_TPR), 0x5a5a5a5a);
	memset(kept, 0, PAGE_SIZE);
	vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)kept);
	l2->v.vapic = kept;

	memcpy(role, page, PAGE_SIZE);
	l2_step(other);
	l2_step(l2);
	l2_step(other);
	return 0;
}

TEST_F_TIMEOUT(hostile, page_changes_its_role, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 4; i++) {
		move_l2s(i % 2, 0, 2);
		l1_do(i % 2, l1_change_role, 0, 0, 0, 0);
	}
}

static void swap_pages(u8 **a, u8 **b)
{
	u8 *page = *a;

	*a = *b;
	*b = page;
}

/*
 * Two L2s have their virtual-APIC pages, APIC-access pages and MSR bitmaps
 * swapped between two entries, by VMWRITE alone.
 */
static u64 l1_swap_pages(u32 cpu, u64 *arg)
{
	struct l2_state *a = &l2s[0], *b = &l2s[1], *l2;
	u8 intercepts = a->intercepts;
	u32 map = a->map, i;

	swap_pages(&a->v.vapic, &b->v.vapic);
	swap_pages(&a->v.apic_access, &b->v.apic_access);
	swap_pages(&a->v.msr_bitmap, &b->v.msr_bitmap);
	a->map = b->map;
	a->intercepts = b->intercepts;
	b->map = map;
	b->intercepts = intercepts;
	for (i = 0; i < 2; i++) {
		l2 = &l2s[i];
		l2->p->apic = (u64)l2->v.apic_access;
		GUEST_ASSERT(!vmptrld(l2->v.vmcs));
		vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)l2->v.vapic);
		vmwrite(APIC_ACCESS_ADDR, (u64)l2->v.apic_access);
		vmwrite(MSR_BITMAP, (u64)l2->v.msr_bitmap);
		l2_step(l2);
	}
	return 0;
}

TEST_F_TIMEOUT(hostile, pages_swapped, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 5; i++) {
		move_l2s(i / 2 % 2, 0, 2);
		l1_do(i / 2 % 2, l1_swap_pages, 0, 0, 0, 0);
	}
}

/*
 * A VMCS whose controls or host state are bad is not entered, and nothing about
 * it lasts.
 */
static u64 l1_bad_fields(u32 cpu, u64 *arg)
{
	static const struct {
		u32 field;
		u64 bad;
		u64 error;
	} fields[] = {
		{ MSR_BITMAP, 1ull << 51, VMXERR_CONTROL },
		{ VIRTUAL_APIC_PAGE_ADDR, 0x123, VMXERR_CONTROL },
		{ APIC_ACCESS_ADDR, 1ull << 51, VMXERR_CONTROL },
		{ EPT_POINTER, 0, VMXERR_CONTROL },
		{ HOST_CR3, 1ull << 51, 8 },
	};
	struct l2_state *l2 = &l2s[0];
	u64 good;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		GUEST_ASSERT(!vmptrld(l2->v.vmcs));
		good = vmreadz(fields[i].field);
		vmwrite(fields[i].field, fields[i].bad);
		GUEST_ASSERT_EQ(vmx_l2_enter(&l2->v, l2->v.launched), 1);
		__GUEST_ASSERT(vmreadz(VM_INSTRUCTION_ERROR) == fields[i].error,
			       "Field %x: error %lu", fields[i].field,
			       vmreadz(VM_INSTRUCTION_ERROR));
		vmwrite(fields[i].field, good);
		if (i % 2)
			l2_step(l2);
		l2_step(&l2s[1]);
	}
	return 0;
}

TEST_F_TIMEOUT(hostile, bad_fields, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 3; i++) {
		move_l2s(i % 2, 0, 2);
		l1_do(i % 2, l1_bad_fields, 0, 0, 0, 0);
	}
}

/* arg: L2.  All its accesses to CR8 exit, so it needs no virtual-APIC page. */
static u64 l1_exit_for_cr8(u32 cpu, u64 *arg)
{
	GUEST_ASSERT(!vmptrld(l2s[arg[0]].v.vmcs));
	return vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		       CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING);
}

/*
 * A TPR shadow whose page is no memory: L2 is not entered if it could reach the
 * page, and is if it can't.  A change of memslots that has nothing to do with it
 * does not keep it from running on.
 */
TEST_F_TIMEOUT(hostile, tpr_shadow_without_page, CASE_TIMEOUT)
{
	const u32 features = FEATURES_ALL & ~VMX_L2_APIC_ACCESS;
	void *other = slot_pages(PAGE_SIZE);
	u32 i, cpu;

	for (i = 0; i < 4; i++) {
		cpu = i % 2;
		clear_l2s();
		l1_do(cpu, l1_make_l2s, 0, 1, features, 0);
		slot_delete(&t.slot[VAPIC]);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_enter, 0, 0, 0, 0), VMXERR_CONTROL);
		TEST_ASSERT_EQ(l1_do(cpu, l1_exit_for_cr8, 0, 0, 0, 0), 0);
		TEST_ASSERT_EQ(l1_start(cpu, l1_run_counter, 0, 100, 0, 0), L2_PAUSED);
		vm_set_user_memory_region(t.vm, 20, 0, 0x20000000, PAGE_SIZE, other);
		TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
		TEST_ASSERT_EQ(l1_ret(cpu), 101 | 100ull << 32);
		vm_set_user_memory_region(t.vm, 20, 0, 0x20000000, 0, other);
		slot_set(&t.slot[VAPIC]);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		remake_l2(0);
	}
	munmap(other, PAGE_SIZE);
}

/* SMM has an address space of its own, and does: IN from this port, and RSM. */
#define SMM_SLOT		(BIT(16) | 1)
#define SMM_BASE		0x3a000000ull
#define SMM_SIZE		0x10000
#define SMM_ENTRY		0x8000
#define SMM_PORT		0x9a

static const u8 smm_code[] = { 0xe4, SMM_PORT, 0x0f, 0xaa };

/* In struct vmcs12, whose layout is fixed for migration. */
enum {
	VMCS12_MSR_BITMAP = 56,
	VMCS12_VIRTUAL_APIC_PAGE_ADDR = 96,
	VMCS12_APIC_ACCESS_ADDR = 104,
};

static void or_to_field(u8 *vmcs12, u32 offset, u64 what)
{
	*(u64 *)(vmcs12 + offset) |= what;
}

/*
 * An SMI in L2, and user space sets a nested state with addresses that are no
 * page's, which no entry by VMLAUNCH would get by with.  RSM does: the page that
 * such an address is in counts, if there is one.
 */
TEST_F_TIMEOUT(hostile, unaligned_addresses_by_rsm, CASE_TIMEOUT)
{
	static union vmx_nested_state n;
	void *smram = slot_pages(SMM_SIZE);
	u32 i, cpu;
	u8 *vmcs12;

	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "no SMM");
	memcpy(smram + SMM_ENTRY, smm_code, sizeof(smm_code));
	vm_set_user_memory_region(t.vm, SMM_SLOT, 0, SMM_BASE, SMM_SIZE, smram);

	for (i = 0; i < 4; i++) {
		cpu = i % 2;
		clear_l2s();
		vcpu_set_msr(t.vcpu[cpu], MSR_IA32_SMBASE, SMM_BASE);
		TEST_ASSERT_EQ(l1_start(cpu, l1_run_counter, 0, 100, 0, 0), L2_PAUSED);
		vcpu_ioctl(t.vcpu[cpu], KVM_SMI, NULL);
		vcpu_run(t.vcpu[cpu]);
		TEST_ASSERT_KVM_EXIT_REASON(t.vcpu[cpu], KVM_EXIT_IO);
		TEST_ASSERT_EQ(t.vcpu[cpu]->run->io.port, SMM_PORT);
		vcpu_run_complete_io(t.vcpu[cpu]);

		n.s.size = sizeof(n);
		vcpu_nested_state_get(t.vcpu[cpu], &n.s);
		TEST_ASSERT(n.s.hdr.vmx.smm.flags & KVM_STATE_NESTED_SMM_GUEST_MODE,
			    "RSM would not return to L2");
		vmcs12 = n.s.data.vmx[0].vmcs12;
		or_to_field(vmcs12, VMCS12_MSR_BITMAP, i < 2 ? 0xffe : ~0ull);
		or_to_field(vmcs12, VMCS12_VIRTUAL_APIC_PAGE_ADDR, 0x10);
		or_to_field(vmcs12, VMCS12_APIC_ACCESS_ADDR, 0x20);
		vcpu_nested_state_set(t.vcpu[cpu], &n.s);

		TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
		TEST_ASSERT_EQ(l1_ret(cpu), 101 | 100ull << 32);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmclear, vmcs_gpa(0), 0, 0, 0), 0);
		remake_l2(0);
	}
	vm_set_user_memory_region(t.vm, SMM_SLOT, 0, SMM_BASE, 0, smram);
	munmap(smram, SMM_SIZE);
}

#endif /* SELFTEST_KVM_VMX_NESTED_CONTEXT_HOSTILE_H */
