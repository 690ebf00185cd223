// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested SVM with many L2s: L1 must see what it would see without nested
 * contexts, and the contexts must do what they are for.
 *
 * The cases, each saying at its top what it proves, are in
 *
 *	this file			patterns, policy, capacity, sharing
 *	svm_nested_context_memory.h	memslots, host pages, dirty logging
 *	svm_nested_context_state.h	save and restore, SVME, INIT, SMM, destroy
 *	svm_nested_context_hostile.h	what a well-behaved L1 would not do
 *
 * -l lists them, -t runs one by name, -f one group.  On a kernel without
 * nested contexts everything but the statistics is checked, which shows that
 * the checks of behaviour describe that kernel.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "svm_nested_context_vm.h"

#define CASE_TIMEOUT	180

#include "svm_nested_context_memory.h"
#include "svm_nested_context_state.h"
#include "svm_nested_context_hostile.h"

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
	test_stats_restart();
	model_restart();
}

FIXTURE_TEARDOWN(pattern)
{
	test_vm_free();
}

/* What differs: order, L2s, vCPUs, ratio, nested paging, clean bits, rounds */
#define PATTERN(how_, l2s_, vcpus_, ratio_, npt_, clean_, rounds_)	\
	.opt = {							\
		.nr_l2 = l2s_,						\
		.nr_vcpus = vcpus_,					\
		.ratio = ratio_,					\
		.accesses = L2_NR_ACCESSES,				\
		.npt = npt_,						\
		.clean = clean_,					\
	},								\
	.how = how_,							\
	.rounds = rounds_

FIXTURE_VARIANT_ADD(pattern, same_1_on_1) {
	PATTERN(SAME, 1, 1, 8, true, true, 20)
};

FIXTURE_VARIANT_ADD(pattern, same_2_on_1) {
	PATTERN(SAME, 2, 1, 8, true, false, 10)
};

FIXTURE_VARIANT_ADD(pattern, same_8_on_1) {
	PATTERN(SAME, 8, 1, 8, false, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, same_9_on_1) {
	PATTERN(SAME, 9, 1, 8, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, same_16_on_2) {
	PATTERN(SAME, 16, 2, 8, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, same_64_on_4) {
	PATTERN(SAME, 64, 4, 8, true, true, 3)
};

FIXTURE_VARIANT_ADD(pattern, loop_1_on_1) {
	PATTERN(LOOP, 1, 1, 8, true, true, 20)
};

FIXTURE_VARIANT_ADD(pattern, loop_2_on_1) {
	PATTERN(LOOP, 2, 1, 8, true, true, 20)
};

FIXTURE_VARIANT_ADD(pattern, loop_8_on_1) {
	PATTERN(LOOP, 8, 1, 8, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_9_on_1) {
	PATTERN(LOOP, 9, 1, 8, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_16_on_1) {
	PATTERN(LOOP, 16, 1, 8, false, false, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_16_on_2) {
	PATTERN(LOOP, 16, 2, 8, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_64_on_1) {
	PATTERN(LOOP, 64, 1, 8, true, true, 4)
};

FIXTURE_VARIANT_ADD(pattern, loop_64_on_4) {
	PATTERN(LOOP, 64, 4, 8, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, migrate_1_on_2) {
	PATTERN(MIGRATE, 1, 2, 8, true, true, 20)
};

FIXTURE_VARIANT_ADD(pattern, migrate_2_on_2) {
	PATTERN(MIGRATE, 2, 2, 8, true, true, 20)
};

FIXTURE_VARIANT_ADD(pattern, migrate_8_on_3) {
	PATTERN(MIGRATE, 8, 3, 8, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, migrate_9_on_2) {
	PATTERN(MIGRATE, 9, 2, 8, false, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, migrate_16_on_4) {
	PATTERN(MIGRATE, 16, 4, 8, true, false, 8)
};

FIXTURE_VARIANT_ADD(pattern, migrate_64_on_4) {
	PATTERN(MIGRATE, 64, 4, 8, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, loop_8_on_1_ratio_0) {
	PATTERN(LOOP, 8, 1, 0, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, migrate_8_on_2_ratio_0) {
	PATTERN(MIGRATE, 8, 2, 0, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, loop_1_on_1_ratio_1) {
	PATTERN(LOOP, 1, 1, 1, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_2_on_1_ratio_1) {
	PATTERN(LOOP, 2, 1, 1, true, true, 10)
};

FIXTURE_VARIANT_ADD(pattern, loop_8_on_1_ratio_1) {
	PATTERN(LOOP, 8, 1, 1, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, migrate_8_on_2_ratio_1) {
	PATTERN(MIGRATE, 8, 2, 1, true, true, 5)
};

FIXTURE_VARIANT_ADD(pattern, loop_64_on_1_ratio_100) {
	PATTERN(LOOP, 64, 1, 100, true, true, 4)
};

FIXTURE_VARIANT_ADD(pattern, migrate_64_on_2_ratio_100) {
	PATTERN(MIGRATE, 64, 2, 100, true, true, 4)
};

/*
 * Whatever the order in which L1 runs its L2s, on whichever of its vCPUs: each
 * L2 finds its own state and nobody else's, its own MSR map is in force, and
 * the statistics are those that the order implies.
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

/* ---- Policy ---- */

FIXTURE(policy) {
};

FIXTURE_SETUP(policy)
{
}

FIXTURE_TEARDOWN(policy)
{
	test_vm_free();
}

static void policy_vm(u32 nr_l2)
{
	const struct test_options opt = {
		.nr_l2 = nr_l2, .nr_vcpus = 1, .ratio = 8, .npt = true, .clean = true,
	};

	test_vm_create(&opt);
}

static void expect_hits(u32 percent)
{
	struct nested_context_stats s = test_stats();

	if (!nested_context_present())
		return;

	TEST_ASSERT(s.reuse * 100 >= nested_context_loads(s) * percent &&
		    !s.fallback,
		    "%lu of %lu loads hit (%lu fallback), at least %u %% should",
		    s.reuse, nested_context_loads(s), s.fallback, percent);
}

/* One L2 too many in the loop costs no more than a quarter of the hits. */
TEST_F_TIMEOUT(policy, nine_over_eight, CASE_TIMEOUT)
{
	policy_vm(9);
	run_l2s(0, 0, 9, 100);
	test_stats_restart();
	run_l2s(0, 0, 9, 200);
	expect_hits(75);
}

/* Twice as many L2s as contexts: at least 40 of the 50 % that are possible. */
TEST_F_TIMEOUT(policy, sixteen_over_eight, CASE_TIMEOUT)
{
	policy_vm(16);
	run_l2s(0, 0, 16, 60);
	test_stats_restart();
	run_l2s(0, 0, 16, 150);
	expect_hits(40);
}

/*
 * L2s that L1 has stopped running don't hold on to their contexts: a new set
 * that fits has all it needs within 40 misses for each context.
 */
TEST_F_TIMEOUT(policy, changed_set_wins, CASE_TIMEOUT)
{
	struct nested_context_stats s;
	u32 round;

	policy_vm(24);
	run_l2s(0, 0, 16, 60);
	test_stats_restart();
	for (round = 0; round < 40 * 8; round++) {
		s = test_stats();
		run_l2s(0, 16, 8, 1);
		if (nested_context_present() &&
		    test_stats().reuse == s.reuse + 8)
			break;
	}
	if (nested_context_present())
		TEST_ASSERT(test_stats().recycle <= 40 * 8 && !test_stats().fallback,
			    "%lu misses", test_stats().recycle);

	test_stats_restart();
	run_l2s(0, 16, 8, 10);
	expect_stats(0, 80, 0, 0);
}

/* ---- Several L1 vCPUs at once ---- */

FIXTURE(parallel) {
};

FIXTURE_SETUP(parallel)
{
}

FIXTURE_TEARDOWN(parallel)
{
	test_vm_free();
}

static void *vcpu_thread(void *arg)
{
	u32 cpu = (unsigned long)arg;

	TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
	return NULL;
}

/* Lets all vCPUs execute @fn at once, each in its own thread. */
static void all_vcpus(l1_fn fn, u64 a, u64 b, u64 c)
{
	pthread_t thread[MAX_L1_VCPUS];
	u32 i;

	for (i = 0; i < t.nr_vcpus; i++)
		l1_set_call(i, fn, a, b, c, 0);
	for (i = 0; i < t.nr_vcpus; i++)
		pthread_create(&thread[i], NULL, vcpu_thread, (void *)(unsigned long)i);
	for (i = 0; i < t.nr_vcpus; i++)
		pthread_join(thread[i], NULL);
}

/* arg: number of L2s, steps.  Takes any L2 that no other vCPU runs just now. */
static u64 l1_run_free_l2s(u32 cpu, u64 *arg)
{
	struct guest_random_state random = new_guest_random_state(cpu + 1);
	struct l2_state *l2;
	u64 n;

	for (n = 0; n < arg[1]; n++) {
		do {
			l2 = &l2s[guest_random_u32(&random) % arg[0]];
		} while (__sync_lock_test_and_set(&l2->lock, 1));
		l2_step(l2, cpu);
		__sync_lock_release(&l2->lock);
	}
	return 0;
}

/*
 * L2s that move between vCPUs which run at the same time keep their state; as
 * long as L1 runs each on one at a time, every load gets a kept context.
 */
TEST_F_TIMEOUT(parallel, moving, CASE_TIMEOUT)
{
	const struct test_options opt = {
		.nr_l2 = 16, .nr_vcpus = 4, .ratio = 8, .npt = true, .clean = true,
		.accesses = L2_NR_ACCESSES,
	};
	struct nested_context_stats s;

	test_vm_create(&opt);
	test_stats_restart();
	all_vcpus(l1_run_free_l2s, 16, 300, 0);
	s = test_stats();
	if (nested_context_present())
		TEST_ASSERT(s.new == 16 && !s.recycle && !s.fallback &&
			    nested_context_loads(s) <= 1200,
			    "new %lu reuse %lu recycle %lu fallback %lu",
			    s.new, s.reuse, s.recycle, s.fallback);
}

/* The same with half the contexts that it would need. */
TEST_F_TIMEOUT(parallel, moving_over_capacity, CASE_TIMEOUT)
{
	const struct test_options opt = {
		.nr_l2 = 16, .nr_vcpus = 4, .ratio = 2, .npt = true, .clean = true,
		.accesses = L2_NR_ACCESSES,
	};
	struct nested_context_stats s;

	test_vm_create(&opt);
	test_stats_restart();
	all_vcpus(l1_run_free_l2s, 16, 300, 0);
	s = test_stats();
	if (nested_context_present())
		TEST_ASSERT(s.new == 8 && s.recycle && !s.fallback &&
			    nested_context_loads(s) <= 1200,
			    "new %lu reuse %lu recycle %lu fallback %lu",
			    s.new, s.reuse, s.recycle, s.fallback);
}

/* arg: number of runs.  All vCPUs run the control block of L2 0. */
static u64 l1_run_shared(u32 cpu, u64 *arg)
{
	struct vmcb *vmcb = l2s[0].v.vmcb;
	struct l2_vcpu mine;
	u64 n, i;

	mine.vmcb_gpa = l2s[0].v.vmcb_gpa;
	for (n = 0; n < arg[0]; n++) {
		for (i = 0; i < L2_NR_GPRS; i++)
			mine.gpr[i] = l2_value(cpu + 1, n, i, TO_L2);
		l2_vmrun(&mine, mine.vmcb_gpa);
		GUEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		GUEST_ASSERT_EQ(vmcb->save.rip, (u64)l2_quiet);
		for (i = 0; i < L2_NR_GPRS; i++) {
			if (i == L2_RAX || i == L2_RSP)
				continue;
			__GUEST_ASSERT(mine.gpr[i] == l2_value(cpu + 1, n, i, TO_L2),
				       "vCPU %u got register %lu of another", cpu, i);
		}
	}
	return 0;
}

/*
 * One control block run by all vCPUs at once: nothing but the block itself is
 * shared.  L2 only exits, so the block is the same whoever wrote it last.
 */
TEST_F_TIMEOUT(parallel, one_block, CASE_TIMEOUT)
{
	const struct test_options opt = {
		.nr_l2 = 2, .nr_vcpus = 4, .ratio = 8, .npt = true,
	};
	struct nested_context_stats s;

	test_vm_create(&opt);
	test_stats_restart();
	test_vmcb(0)->save.rip = (u64)l2_quiet;
	all_vcpus(l1_run_shared, 500, 0, 0);
	s = test_stats();
	if (nested_context_present())
		TEST_ASSERT(s.new == 1 && !s.recycle &&
			    nested_context_loads(s) <= 2000,
			    "new %lu reuse %lu recycle %lu fallback %lu",
			    s.new, s.reuse, s.recycle, s.fallback);
}

/*
 * The same in slow motion.  While vCPU 0 stands in L2, vCPU 1 runs the same
 * block twice: it starts from what memory holds and leaves its results there.
 * Then vCPU 0 exits, with its own registers, and overwrites them.
 */
TEST_F_TIMEOUT(parallel, one_block_interleaved, CASE_TIMEOUT)
{
	const struct test_options opt = {
		.nr_l2 = 2, .nr_vcpus = 2, .ratio = 8, .npt = true,
	};
	struct nested_context_stats s;
	struct kvm_regs regs;
	struct vmcb *vmcb;

	test_vm_create(&opt);
	vmcb = test_vmcb(0);
	vmcb->save.rax = 1000;
	test_stats_restart();

	TEST_ASSERT_EQ(l1_start(0, l1_run_counter, 0, 100, 1, 0), L2_PAUSED);
	TEST_ASSERT_EQ(l1_start(1, l1_run_counter, 0, 200, 1, 0), L2_PAUSED);
	vcpu_regs_get(t.vcpu[0], &regs);
	TEST_ASSERT(regs.rax == 1001 && regs.rbx == 101, "vCPU 0 in L2: rax %llu rbx %llu",
		    regs.rax, regs.rbx);
	vcpu_regs_get(t.vcpu[1], &regs);
	TEST_ASSERT(regs.rax == 1001 && regs.rbx == 201, "vCPU 1 in L2: rax %llu rbx %llu",
		    regs.rax, regs.rbx);

	TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
	TEST_ASSERT_EQ(l1_ret(1), 201);
	TEST_ASSERT_EQ(vmcb->save.rax, 1001);
	TEST_ASSERT_EQ(l1_start(1, l1_run_counter, 0, 300, 1, 0), L2_PAUSED);
	TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
	TEST_ASSERT_EQ(l1_ret(1), 301);
	TEST_ASSERT_EQ(vmcb->save.rax, 1002);

	/* Still vCPU 0's first run: it entered with 1000. */
	TEST_ASSERT_EQ(vcpu_go(0), L1_DONE);
	TEST_ASSERT_EQ(l1_ret(0), 101);
	TEST_ASSERT_EQ(vmcb->save.rax, 1001);

	/* vCPU 0 made a context, vCPU 1 did without, each time anew. */
	s = test_stats();
	if (nested_context_present())
		TEST_ASSERT(s.new == 1 && !s.reuse && !s.recycle && s.fallback == 2,
			    "new %lu reuse %lu recycle %lu fallback %lu",
			    s.new, s.reuse, s.recycle, s.fallback);

	/* Now it is free, and vCPU 1 finds it. */
	TEST_ASSERT_EQ(l1_start(1, l1_run_counter, 0, 400, 1, 0), L2_PAUSED);
	TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
	expect_stats(1, 1, 0, 2);
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

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM));
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
