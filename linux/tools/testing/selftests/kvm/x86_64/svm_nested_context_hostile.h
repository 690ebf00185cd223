/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases of svm_nested_context_test: what L1 should not do, but may.
 *
 * What is expected here is what the kernel does without nested contexts; where
 * that is not what one would guess, the check says so.
 */
#ifndef SELFTEST_KVM_SVM_NESTED_CONTEXT_HOSTILE_H
#define SELFTEST_KVM_SVM_NESTED_CONTEXT_HOSTILE_H

#include "svm_nested_context_vm.h"

#define HOSTILE_L2S	8
#define SPARE_SLOT	21
#define SPARE_GPA	0x1c000000ull

FIXTURE(hostile) {
};

FIXTURE_SETUP(hostile)
{
	const struct test_options opt = {
		.nr_l2 = HOSTILE_L2S, .nr_vcpus = 2, .ratio = 8, .npt = true,
		.clean = true, .accesses = L2_NR_ACCESSES,
	};

	test_vm_create(&opt);
	run_l2s(0, 0, HOSTILE_L2S, 2);
	test_stats_restart();
}

/* Whatever L1 did, the L2s that it did it to and all others still run. */
FIXTURE_TEARDOWN(hostile)
{
	run_l2s(1, 0, HOSTILE_L2S, 2);
	run_l2s(0, 0, HOSTILE_L2S, 2);
	test_vm_free();
}

static u64 hostile_gpa(u32 l2)
{
	return L2_VMCB_GPA + l2 * PAGE_SIZE;
}

static u64 try_all(u32 cpu, u64 gpa)
{
	u64 vector = l1_do(cpu, l1_try_vmrun, gpa, 0, 0, 0);

	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmload, gpa, 0, 0, 0), vector);
	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmsave, gpa, 0, 0, 0), vector);
	return vector;
}

/* A control block's address must be that of a page: #GP, from the CPU itself. */
TEST_F_TIMEOUT(hostile, misaligned_vmcb, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 8; i++) {
		TEST_ASSERT_EQ(try_all(i % 2, hostile_gpa(i) + 8), GP_VECTOR);
		TEST_ASSERT_EQ(try_all(i % 2, hostile_gpa(i) + PAGE_SIZE - 8), GP_VECTOR);
	}
	expect_stats(0, 0, 0, 0);
}

/*
 * Addresses with no memory behind them: past the last slot, at an emulated
 * device, beyond what the CPU can address.  #GP, and no context is taken over, or kept
 * from the other vCPU.
 */
TEST_F_TIMEOUT(hostile, vmcb_without_memory, CASE_TIMEOUT)
{
	const u64 gpas[] = {
		hostile_gpa(HOSTILE_L2S),
		0xfee00000,
		0xfec00000,
		0x7ffffff000ull,
		1ull << 51,
		~0xfffull,
	};
	u32 i, cpu;

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		for (cpu = 0; cpu < 2; cpu++)
			TEST_ASSERT(try_all(cpu, gpas[i]) == GP_VECTOR,
				    "No #GP at %#llx", (unsigned long long)gpas[i]);
	}
	if (nested_context_present())
		TEST_ASSERT(!test_stats().recycle && !test_stats().fallback,
			    "%lu contexts were taken over, %lu held back",
			    test_stats().recycle, test_stats().fallback);
}

/* A control block that L0 may not write to is as none. */
TEST_F_TIMEOUT(hostile, vmcb_in_readonly_slot, CASE_TIMEOUT)
{
	void *mem = slot_pages(PAGE_SIZE);

	memcpy(mem, test_vmcb(0), PAGE_SIZE);
	vm_set_user_memory_region(t.vm, SPARE_SLOT, KVM_MEM_READONLY, SPARE_GPA,
				  PAGE_SIZE, mem);
	TEST_ASSERT_EQ(try_all(0, SPARE_GPA), GP_VECTOR);
	TEST_ASSERT_EQ(try_all(1, SPARE_GPA), GP_VECTOR);
	TEST_ASSERT(!memcmp(mem, test_vmcb(0), PAGE_SIZE), "Written");
	vm_set_user_memory_region(t.vm, SPARE_SLOT, 0, SPARE_GPA, 0, mem);
	munmap(mem, PAGE_SIZE);
}

/* Runs L2 0 with a control block that must not pass, and puts it right. */
static void expect_invalid(u32 cpu, const char *what)
{
	struct vmcb *vmcb = test_vmcb(0);
	u64 vector;

	vmcb->control.clean = 0;
	vmcb->control.exit_code = 0;
	vector = l1_do(cpu, l1_try_vmrun, hostile_gpa(0), 0, 0, 0);
	TEST_ASSERT(!vector && vmcb->control.exit_code == (u32)SVM_EXIT_ERR,
		    "%s: vector %llu, exit %#x", what, (unsigned long long)vector,
		    vmcb->control.exit_code);
}

/*
 * MSR maps that can't be read to their end make VMRUN fail, wherever the end
 * of memory lies: before the first page, between the two, beyond the CPU's
 * addresses.  So do controls and registers that are illegal.
 */
TEST_F_TIMEOUT(hostile, vmrun_fails, CASE_TIMEOUT)
{
	const u64 msrpm_end = t.slot[MSRPM].gpa + t.slot[MSRPM].size;
	struct vmcb *vmcb = test_vmcb(0), good = *vmcb;
	u32 cpu, n;

	for (n = 0; n < 4; n++) {
		cpu = n % 2;

		vmcb->control.msrpm_base_pa = msrpm_end;
		expect_invalid(cpu, "map without memory");
		*vmcb = good;
		vmcb->control.msrpm_base_pa = msrpm_end - PAGE_SIZE;
		expect_invalid(cpu, "second page of map without memory");
		*vmcb = good;
		vmcb->control.msrpm_base_pa = 1ull << 51;
		expect_invalid(cpu, "map beyond the CPU's addresses");
		*vmcb = good;
		vmcb->control.msrpm_base_pa = 0xfee00000;
		expect_invalid(cpu, "map at a device");
		*vmcb = good;
		vmcb->control.iopm_base_pa = ~0ull;
		expect_invalid(cpu, "I/O map beyond the CPU's addresses");
		*vmcb = good;
		vmcb->control.asid = 0;
		expect_invalid(cpu, "ASID 0");
		*vmcb = good;
		vmcb->control.intercept &= ~BIT_ULL(INTERCEPT_VMRUN);
		expect_invalid(cpu, "VMRUN not intercepted");
		*vmcb = good;
		vmcb->save.efer &= ~EFER_SVME;
		expect_invalid(cpu, "L2 without SVME");
		*vmcb = good;
		vmcb->save.cr0 |= BIT_ULL(40);
		expect_invalid(cpu, "CR0 beyond 32 bits");
		*vmcb = good;

		/* A failed VMRUN holds nothing that another vCPU would miss. */
		vmcb->control.asid = 0;
		expect_invalid(cpu, "ASID 0");
		*vmcb = good;
		run_l2s(!cpu, 0, 1, 1);
		good = *vmcb;
	}
	if (nested_context_present())
		TEST_ASSERT(!test_stats().fallback, "%lu went without",
			    test_stats().fallback);
}

/* The low bits of the map's address are ignored, it is the same map. */
TEST_F_TIMEOUT(hostile, misaligned_msrpm, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < HOSTILE_L2S; i++)
		test_vmcb(i)->control.msrpm_base_pa |= 0x123;
	run_l2s(0, 0, HOSTILE_L2S, 2);
	run_l2s(1, 0, HOSTILE_L2S, 2);
}

/*
 * arg: MSR, value.  L2 0 writes it, and L1 intercepts none.  Returns what L1 reads
 * of it then.
 */
static u64 l1_let_l2_wrmsr(u32 cpu, u64 *arg)
{
	struct l2_vcpu mine = l2s[0].v;

	memset(mine.msrpm, 0, L2_MSRPM_PAGES * PAGE_SIZE);
	mine.gpr[L2_RCX] = arg[0];
	mine.gpr[L2_RDX] = arg[1] >> 32;
	mine.vmcb->save.rax = (u32)arg[1];
	mine.vmcb->save.rip = (u64)l2_wrmsr;
	l2_vmrun(&mine, mine.vmcb_gpa);
	GUEST_ASSERT_EQ(mine.vmcb->control.exit_code, SVM_EXIT_VMMCALL);

	memset(mine.msrpm, 0xff, L2_MSRPM_PAGES * PAGE_SIZE);
	l2_set_map(&l2s[0], l2s[0].map);
	return rdmsr(arg[0]);
}

/*
 * L1's map lets L2 have an MSR that L0 keeps for itself, next to such that L0 does
 * not: what L2 writes there goes to L1's register, not to the host's.
 */
TEST_F_TIMEOUT(hostile, map_allows_what_l0_does_not, CASE_TIMEOUT)
{
	struct vmcb *vmcb = test_vmcb(0), good = *vmcb;
	u32 i;

	if (!kvm_cpu_has(X86_FEATURE_RDTSCP))
		SKIP(return, "no TSC_AUX");
	for (i = 1; i < 4; i++) {
		TEST_ASSERT_EQ(l1_do(i % 2, l1_let_l2_wrmsr, MSR_TSC_AUX, 0x5a5a + i, 0, 0),
			       0x5a5a + i);
		*vmcb = good;
	}
}

/* arg: page, value.  Changes it by VMLOAD and VMSAVE only. */
static u64 l1_vmload_vmsave(u32 cpu, u64 *arg)
{
	struct vmcb *vmcb = (void *)arg[0];
	u64 i;

	for (i = 0; i < L2_NR_MSRS; i++)
		*l2_msr_in_vmcb(vmcb, i) = l2_msr_value(i, arg[1] + i);
	asm volatile("vmload %0" : : "a"(arg[0]) : "memory");
	for (i = 0; i < L2_NR_MSRS; i++) {
		GUEST_ASSERT_EQ(rdmsr(l2_msrs[i]), l2_msr_value(i, arg[1] + i));
		*l2_msr_in_vmcb(vmcb, i) = 0;
	}
	asm volatile("vmsave %0" : : "a"(arg[0]) : "memory");
	for (i = 0; i < L2_NR_MSRS; i++)
		GUEST_ASSERT_EQ(*l2_msr_in_vmcb(vmcb, i), l2_msr_value(i, arg[1] + i));
	return 0;
}

/*
 * VMLOAD and VMSAVE work on any page, one that never was a control block or
 * one that is no longer, and never take a context: nothing is counted.
 */
TEST_F_TIMEOUT(hostile, vmload_vmsave_of_any_page, CASE_TIMEOUT)
{
	vm_vaddr_t page = L2_PRIVATE_GPA + L2_PRIVATE_PAGES * PAGE_SIZE;
	u64 private[PAGE_SIZE / 8];
	u32 i;

	/* The page at work is L2 1's private one, which is put right after. */
	memcpy(private, test_hva(page), PAGE_SIZE);
	for (i = 0; i < 32; i++)
		l1_do(i % 2, l1_vmload_vmsave, page, 0x1000 * i + 1, 0, 0);
	memcpy(test_hva(page), private, PAGE_SIZE);
	expect_stats(0, 0, 0, 0);
}

/*
 * VMSAVE into and VMLOAD from a control block that another vCPU is running:
 * plain accesses to its memory, that #VMEXIT leaves as they are.
 */
TEST_F_TIMEOUT(hostile, vmload_vmsave_of_block_in_use, CASE_TIMEOUT)
{
	struct nested_context_stats s;
	struct vmcb *vmcb = test_vmcb(0), good = *vmcb;
	u32 i, m;

	for (i = 0; i < 8; i++) {
		vmcb->save.rip = (u64)l2_pause;
		/* Not l2_vmrun(), whose VMSAVE would cover the traces. */
		TEST_ASSERT_EQ(l1_start(0, l1_try_vmrun, hostile_gpa(0), 0, 0, 0),
			       L2_PAUSED);
		l1_do(1, l1_vmload_vmsave, hostile_gpa(0), 0x777000 + i, 0, 0);
		TEST_ASSERT_EQ(vcpu_go(0), L1_DONE);
		for (m = 0; m < L2_NR_MSRS; m++)
			TEST_ASSERT_EQ(*l2_msr_in_vmcb(vmcb, m),
				       l2_msr_value(m, 0x777000 + i + m));
	}
	*vmcb = good;
	s = test_stats();
	if (nested_context_present())
		TEST_ASSERT(!s.new && s.reuse <= 1 && !s.recycle && !s.fallback,
			    "new %lu reuse %lu recycle %lu fallback %lu",
			    s.new, s.reuse, s.recycle, s.fallback);
}

/*
 * One page is everything in turn: control block, MSR map of another, plain
 * memory, control block again, with a context of its first life still there.
 */
TEST_F_TIMEOUT(hostile, page_changes_its_role, CASE_TIMEOUT)
{
	const size_t size = L2_MSRPM_PAGES * PAGE_SIZE;
	const u64 map_gpa = L2_MSRPM_GPA + size;
	struct vmcb *other = test_vmcb(1);
	void *map = test_hva(map_gpa), *blocks = test_vmcb(2);
	u8 kept_map[L2_MSRPM_PAGES * PAGE_SIZE];
	u8 kept_blocks[L2_MSRPM_PAGES * PAGE_SIZE];
	u32 i;

	for (i = 0; i < 6; i++) {
		run_l2s(i % 2, 0, 2, 1);

		/*
		 * Blocks 2 and 3 become L2 1's map, its own lets all pass.  (A
		 * stale map that forbids too much would not show: L0 asks L1's
		 * map again at the exit.)
		 */
		memcpy(kept_blocks, blocks, size);
		memcpy(kept_map, map, size);
		memcpy(blocks, map, size);
		memset(map, 0, size);
		other->control.msrpm_base_pa = hostile_gpa(2);
		run_l2s(i % 2, 1, 1, 2);

		memcpy(map, kept_map, size);
		memcpy(blocks, kept_blocks, size);
		other->control.msrpm_base_pa = map_gpa;
		run_l2s(!(i % 2), 0, HOSTILE_L2S, 1);
	}
}

/*
 * A control block that is its own MSR map, or the host save area: nothing is
 * promised but that L0 and the other L2s survive it.
 */
TEST_F_TIMEOUT(hostile, block_is_its_own_map, CASE_TIMEOUT)
{
	struct vmcb *vmcb = test_vmcb(0), good = *vmcb;
	u32 i;

	for (i = 0; i < 4; i++) {
		vmcb->save.rip = (u64)l2_quiet;
		vmcb->control.msrpm_base_pa = hostile_gpa(0);
		TEST_ASSERT_EQ(l1_do(i % 2, l1_try_vmrun, hostile_gpa(0), 0, 0, 0), 0);
		TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		*vmcb = good;
		run_l2s(i % 2, 0, 2, 1);
		good = *vmcb;
	}
}

/*
 * L1 names far more control blocks than there are contexts, and none of them
 * can be run.  Nobody goes without a context for that, on either vCPU.
 */
TEST_F_TIMEOUT(hostile, many_bad_blocks, CASE_TIMEOUT)
{
	const u32 pages = 256;
	void *mem = slot_pages(pages * PAGE_SIZE);
	u32 i;

	vm_set_user_memory_region(t.vm, SPARE_SLOT, 0, SPARE_GPA, pages * PAGE_SIZE, mem);
	for (i = 0; i < pages; i++) {
		struct vmcb *vmcb = mem + i * PAGE_SIZE;

		TEST_ASSERT_EQ(l1_do(i / 16 % 2, l1_try_vmrun, SPARE_GPA + i * PAGE_SIZE,
				     0, 0, 0), 0);
		TEST_ASSERT_EQ(vmcb->control.exit_code, (u32)SVM_EXIT_ERR);
		if (i % 8 == 0)
			run_l2s(i / 8 % 2, 0, HOSTILE_L2S, 1);
	}
	if (nested_context_present())
		TEST_ASSERT(!test_stats().fallback, "%lu went without",
			    test_stats().fallback);
	vm_set_user_memory_region(t.vm, SPARE_SLOT, 0, SPARE_GPA, 0, mem);
	munmap(mem, pages * PAGE_SIZE);
}

#endif /* SELFTEST_KVM_SVM_NESTED_CONTEXT_HOSTILE_H */
