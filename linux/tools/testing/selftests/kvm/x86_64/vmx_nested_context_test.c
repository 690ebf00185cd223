// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested VMX with many L2s: L1 must see what it would see without nested
 * contexts, and the contexts must do what they are for.
 *
 * The cases, each saying at its top what it proves, are in
 *
 *	this file			patterns, save and restore, VMXOFF
 *	vmx_nested_context_memory.h	memslots, host pages, dirty logging
 *	vmx_nested_context_hostile.h	what a well-behaved L1 would not do
 *
 * -l lists them, -t runs one by name, -f one group.  On a kernel without
 * nested contexts everything but the statistics is checked, which shows that
 * the checks of behaviour describe that kernel.
 *
 * The numbers of L2s and rounds are small, for the CPU that this runs on in
 * continuous testing is interpreted.
 */
#include "kselftest_harness.h"
#include "vmx_nested_context_vm.h"

#define CASE_TIMEOUT	180

#include "vmx_nested_context_memory.h"
#include "vmx_nested_context_hostile.h"

/* ---- Patterns: every L2's state, and what it cost in loads ---- */

FIXTURE(pattern) {
};

FIXTURE_VARIANT(pattern) {
	struct test_options opt;
	enum { SAME, LOOP, MIGRATE } how;
	u32 rounds;
};

FIXTURE_SETUP(pattern)
{
	test_vm_create(&variant->opt);
	model_restart();
}

FIXTURE_TEARDOWN(pattern)
{
	test_vm_free();
}

/* What differs: order, L2s, vCPUs, ratio, what is on, rounds */
#define PATTERN(how_, l2s_, vcpus_, ratio_, features_, rounds_)	\
	.opt = {						\
		.nr_l2 = l2s_,					\
		.nr_vcpus = vcpus_,				\
		.ratio = ratio_,				\
		.features = features_,				\
	},							\
	.how = how_,						\
	.rounds = rounds_

FIXTURE_VARIANT_ADD(pattern, same_1_on_1) {
	PATTERN(SAME, 1, 1, 8, FEATURES_ALL, 6)
};

FIXTURE_VARIANT_ADD(pattern, same_4_on_2) {
	PATTERN(SAME, 4, 2, 8, FEATURES_ALL, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_2_on_1) {
	PATTERN(LOOP, 2, 1, 8, FEATURES_ALL, 6)
};

FIXTURE_VARIANT_ADD(pattern, loop_8_on_1) {
	PATTERN(LOOP, 8, 1, 8, FEATURES_ALL, 4)
};

FIXTURE_VARIANT_ADD(pattern, loop_16_on_1) {
	PATTERN(LOOP, 16, 1, 8, FEATURES_ALL, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_8_on_2) {
	PATTERN(LOOP, 8, 2, 8, FEATURES_ALL, 3)
};

FIXTURE_VARIANT_ADD(pattern, migrate_1_on_2) {
	PATTERN(MIGRATE, 1, 2, 8, FEATURES_ALL, 6)
};

FIXTURE_VARIANT_ADD(pattern, migrate_8_on_2) {
	PATTERN(MIGRATE, 8, 2, 8, FEATURES_ALL, 4)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_on_1_ratio_0) {
	PATTERN(LOOP, 4, 1, 0, FEATURES_ALL, 3)
};

FIXTURE_VARIANT_ADD(pattern, migrate_4_on_2_ratio_1) {
	PATTERN(MIGRATE, 4, 2, 1, FEATURES_ALL, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_without_ept) {
	PATTERN(LOOP, 4, 1, 8, FEATURES_ALL & ~VMX_L2_EPT, 3)
};

FIXTURE_VARIANT_ADD(pattern, migrate_4_without_ept) {
	PATTERN(MIGRATE, 4, 2, 8, FEATURES_ALL & ~VMX_L2_EPT, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_without_tpr_shadow) {
	PATTERN(LOOP, 4, 1, 8, FEATURES_ALL & ~VMX_L2_TPR_SHADOW, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_without_apic_access) {
	PATTERN(LOOP, 4, 1, 8, FEATURES_ALL & ~VMX_L2_APIC_ACCESS, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_without_msr_bitmap) {
	PATTERN(LOOP, 4, 1, 8, FEATURES_ALL & ~VMX_L2_MSR_BITMAP, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_with_nothing) {
	PATTERN(LOOP, 4, 1, 8, 0, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_4_with_shadow_vmcs) {
	PATTERN(LOOP, 4, 1, 8, FEATURES_ALL | VMX_L2_SHADOW_VMCS, 3)
};

FIXTURE_VARIANT_ADD(pattern, migrate_4_with_shadow_vmcs) {
	PATTERN(MIGRATE, 4, 2, 8, FEATURES_ALL | VMX_L2_SHADOW_VMCS, 3)
};

/*
 * Whatever the order in which L1 runs its L2s, on whichever of its vCPUs: each
 * L2 finds its own state and nobody else's, its own pages are in force, and
 * the statistics are those that the order implies.  On one vCPU there is only
 * VMPTRLD between one L2 and the next, between vCPUs there is VMCLEAR.
 */
TEST_F_TIMEOUT(pattern, state_and_statistics, CASE_TIMEOUT)
{
	const struct test_options *o = &variant->opt;
	u32 i, r;

	switch (variant->how) {
	case SAME:
		for (r = 0; r < 2; r++) {
			for (i = 0; i < o->nr_l2; i++)
				run_and_model(i % o->nr_vcpus, i, 1, variant->rounds);
		}
		break;
	case LOOP:
		/* Each vCPU goes round its own share of them. */
		if (o->nr_vcpus == 1) {
			run_and_model(0, 0, o->nr_l2, variant->rounds);
			break;
		}
		for (r = 0; r < variant->rounds; r++) {
			for (i = 0; i < o->nr_l2; i++)
				run_and_model(i % o->nr_vcpus, i, 1, 1);
		}
		break;
	case MIGRATE:
		for (r = 0; r < variant->rounds; r++) {
			for (i = 0; i < o->nr_l2; i++)
				run_and_model((i + r) % o->nr_vcpus, i, 1, 1);
		}
		break;
	}
	expect_model(o->ratio * o->nr_vcpus);
}

/*
 * L2s with and without each of the pages take turns on one vCPU: what one of
 * them has must not linger in what another runs with.
 */
TEST_F_TIMEOUT(memory, kinds_take_turns, CASE_TIMEOUT)
{
	static const u32 features[MEMORY_L2S] = {
		FEATURES_ALL,
		0,
		FEATURES_ALL & ~VMX_L2_EPT,
		FEATURES_ALL & ~VMX_L2_APIC_ACCESS,
		FEATURES_ALL & ~VMX_L2_TPR_SHADOW,
		VMX_L2_MSR_BITMAP,
	};
	u32 i;

	for (i = 0; i < MEMORY_L2S; i++)
		l1_do(0, l1_make_l2s, i, 1, features[i], 0);
	for (i = 0; i < MEMORY_L2S; i++) {
		run_l2s(0, 0, MEMORY_L2S, 1);
		run_l2s(0, i, 1, 1);
		run_l2s(0, MEMORY_L2S - i - 1, 1, 1);
	}
	run_l2s(1, 0, MEMORY_L2S, 2);
}

/* ---- Nested state is taken, replaced or lost ---- */

/*
 * A VM saved and restored between every two steps continues as if nothing had
 * been: while L2 runs, while L1 runs, and with one vCPU in each.
 */
TEST_F_TIMEOUT(memory, save_restore, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 3; i++) {
		pause_in_l2(i % 2, i);
		test_save_restore();
		finish_l2(i % 2, i);
		test_save_restore();
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
	run_l2s(1, 1, 2, 1);
	pause_in_l2(0, 0);
	pause_in_l2(1, 1);
	test_save_restore();
	finish_l2(1, 1);
	test_save_restore();
	finish_l2(0, 0);
	run_l2s(1, 0, MEMORY_L2S, 2);
}

/*
 * KVM_SET_NESTED_STATE with what KVM_GET_NESTED_STATE has just given changes
 * nothing, in L2 and in L1.
 */
TEST_F_TIMEOUT(memory, set_same_nested_state, CASE_TIMEOUT)
{
	static union vmx_nested_state n;
	u32 i, k, cpu;

	for (i = 0; i < 2 * MEMORY_L2S; i++) {
		cpu = i / 4 % 2;
		pause_in_l2(cpu, i % MEMORY_L2S);
		for (k = 0; k < 2; k++) {
			n.s.size = sizeof(n);
			vcpu_nested_state_get(t.vcpu[cpu], &n.s);
			TEST_ASSERT(n.s.flags & KVM_STATE_NESTED_GUEST_MODE,
				    "Not in guest mode");
			TEST_ASSERT_EQ(n.s.hdr.vmx.vmcs12_pa, vmcs_gpa(i % MEMORY_L2S));
			vcpu_nested_state_set(t.vcpu[cpu], &n.s);
		}
		finish_l2(cpu, i % MEMORY_L2S);

		n.s.size = sizeof(n);
		vcpu_nested_state_get(t.vcpu[cpu], &n.s);
		TEST_ASSERT(!(n.s.flags & KVM_STATE_NESTED_GUEST_MODE), "In guest mode");
		TEST_ASSERT_EQ(n.s.hdr.vmx.vmcs12_pa, vmcs_gpa(i % MEMORY_L2S));
		vcpu_nested_state_set(t.vcpu[cpu], &n.s);
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
}

/* L1 leaves VMX operation; returns the vector that VMPTRLD then raises. */
static u64 l1_vmxoff(u32 cpu, u64 *arg)
{
	vmxoff();
	return kvm_asm_safe("vmptrld (%%rax)", "a"(arg));
}

static u64 l1_vmxon_again(u32 cpu, u64 *arg)
{
	return vmxon(l1_vmxon[cpu]);
}

/*
 * L1 leaves VMX operation between any two runs and comes back, with all its
 * VMCSs cleared before, and with one left current: that one's state is lost as
 * on hardware, and L1 makes it anew on its other vCPU.  The first does not keep
 * its context from that one.
 */
TEST_F_TIMEOUT(memory, vmxoff, CASE_TIMEOUT)
{
	u32 i, cpu;

	test_stats_restart();
	for (i = 0; i < MEMORY_L2S; i++) {
		cpu = i % 2;
		run_l2s(cpu, i, 1, 2);
		run_l2s(!cpu, (i + 3) % MEMORY_L2S, 1, 1);
		if (i / 2 % 2)
			clear_l2s();
		TEST_ASSERT_EQ(l1_do(cpu, l1_vmxoff, 0, 0, 0, 0), UD_VECTOR);
		TEST_ASSERT_EQ(l1_do(cpu, l1_vmxon_again, 0, 0, 0, 0), 0);
		if (!(i / 2 % 2)) {
			l1_do(!cpu, l1_make_l2s, i, 1, FEATURES_ALL, 0);
			t.where[i] = NOWHERE;
		}
	}
	TEST_ASSERT(!test_stats().fallback, "%lu went without", test_stats().fallback);
	run_l2s(0, 0, MEMORY_L2S, 2);
	run_l2s(1, 0, MEMORY_L2S, 2);
}

/* The VM goes while its vCPUs are in L2, its L2s' pages with it. */
TEST_F_TIMEOUT(memory, destroyed_in_l2, CASE_TIMEOUT)
{
	run_l2s(0, 0, MEMORY_L2S, 1);
	run_l2s(1, 2, 2, 1);
	pause_in_l2(0, 1);
	pause_in_l2(1, 2);
}

/* Likewise with its memory gone before. */
TEST_F_TIMEOUT(memory, destroyed_without_memory, CASE_TIMEOUT)
{
	u32 i;

	run_l2s(0, 0, MEMORY_L2S, 1);
	run_l2s(1, 2, 2, 1);
	pause_in_l2(0, 1);
	pause_in_l2(1, 2);
	for (i = 0; i < NR_SLOTS; i++)
		slot_delete(&t.slot[i]);
}

static unsigned int ratio_before;
static pid_t main_pid;

/* The harness exits by itself, and is content with a name that fits no case. */
static void cleanup(void)
{
	if (getpid() != main_pid)
		return;

	nested_context_set_ratio(ratio_before);
	if (ksft_plan && ksft_test_num() == ksft_plan)
		return;
	printf("Bail out! %u of %u cases were run\n", ksft_test_num(), ksft_plan);
	_exit(KSFT_FAIL);
}

int main(int argc, char **argv)
{
	int i;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_cpu_has_ept());
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-l") || !strcmp(argv[i], "-h"))
			return test_harness_run(argc, argv);
	}

	if (!nested_context_present())
		ksft_print_msg("This kernel has no nested contexts: statistics are not checked\n");

	ratio_before = nested_context_get_ratio();
	main_pid = getpid();
	atexit(cleanup);
	return test_harness_run(argc, argv);
}
