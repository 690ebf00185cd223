/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases of svm_nested_context_test: a vCPU's nested state is taken, replaced
 * or lost, between runs and while L2 runs.
 */
#ifndef SELFTEST_KVM_SVM_NESTED_CONTEXT_STATE_H
#define SELFTEST_KVM_SVM_NESTED_CONTEXT_STATE_H

#include "svm_nested_context_vm.h"

#define STATE_L2S	8

FIXTURE(state) {
};

FIXTURE_SETUP(state)
{
	const struct test_options opt = {
		.nr_l2 = STATE_L2S, .nr_vcpus = 2, .ratio = 8, .npt = true,
		.clean = true, .accesses = L2_NR_ACCESSES,
	};

	test_vm_create(&opt);
	test_stats_restart();
	model_restart();
}

FIXTURE_TEARDOWN(state)
{
	test_vm_free();
}

/* After the loss of contexts or not: everybody still runs, on both vCPUs. */
static void expect_all_run(void)
{
	run_l2s(0, 0, STATE_L2S, 2);
	run_l2s(1, 0, STATE_L2S, 2);
}

/*
 * A VM saved and restored between every two exits continues as if nothing had
 * been: while L2 runs, while L1 runs, and with one vCPU in each.  The new VM
 * starts with no contexts; restoring L2 takes one, a private or a new one.
 */
TEST_F_TIMEOUT(state, save_restore, CASE_TIMEOUT)
{
	u32 round, i;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < STATE_L2S; i++) {
			pause_in_l2(round, i);
			test_save_restore();
			finish_l2(round, i);
			test_save_restore();
		}
	}
	for (i = 0; i < STATE_L2S; i += 2) {
		pause_in_l2(0, i);
		pause_in_l2(1, i + 1);
		test_save_restore();
		finish_l2(1, i + 1);
		test_save_restore();
		finish_l2(0, i);
	}
	expect_all_run();
}

/* As before, with all the L2s going round between one save and the next. */
TEST_F_TIMEOUT(state, save_restore_amid_others, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < STATE_L2S; i++) {
		run_l2s(0, 0, STATE_L2S, 2);
		pause_in_l2(1, i);
		if (i)
			run_l2s(0, 0, i, 1);
		test_save_restore();
		if (i)
			run_l2s(0, 0, i, 1);
		finish_l2(1, i);
		test_save_restore();
	}

	/* What a new VM counts is what was loaded in it. */
	test_stats_restart();
	run_l2s(0, 0, STATE_L2S, 3);
	expect_stats(STATE_L2S, 2 * STATE_L2S, 0, 0);
}

/*
 * KVM_SET_NESTED_STATE with what KVM_GET_NESTED_STATE has just given changes
 * nothing, in L2 and in L1.
 */
TEST_F_TIMEOUT(state, set_same_nested_state, CASE_TIMEOUT)
{
	struct {
		struct kvm_nested_state s;
		u8 space[KVM_STATE_NESTED_SVM_VMCB_SIZE];
	} n;
	u32 i, k;

	for (i = 0; i < 3 * STATE_L2S; i++) {
		pause_in_l2(0, i % STATE_L2S);
		for (k = 0; k < 3; k++) {
			n.s.size = sizeof(n);
			vcpu_nested_state_get(t.vcpu[0], &n.s);
			TEST_ASSERT(n.s.flags & KVM_STATE_NESTED_GUEST_MODE,
				    "Not in guest mode");
			TEST_ASSERT_EQ(n.s.hdr.svm.vmcb_pa,
				       L2_VMCB_GPA + i % STATE_L2S * PAGE_SIZE);
			vcpu_nested_state_set(t.vcpu[0], &n.s);
		}
		finish_l2(0, i % STATE_L2S);

		n.s.size = sizeof(n);
		vcpu_nested_state_get(t.vcpu[0], &n.s);
		TEST_ASSERT(!(n.s.flags & KVM_STATE_NESTED_GUEST_MODE), "In guest mode");
		vcpu_nested_state_set(t.vcpu[0], &n.s);
		run_l2s(i % 2, 0, STATE_L2S, 1);
	}
}

/* arg: whether on.  Returns what EFER was. */
static u64 l1_set_svme(u32 cpu, u64 *arg)
{
	u64 efer = rdmsr(MSR_EFER);

	wrmsr(MSR_EFER, arg[0] ? efer | EFER_SVME : efer & ~EFER_SVME);
	return efer;
}

/*
 * L1 leaves SVM and comes back, between any two runs.  Off, VMRUN, VMLOAD and
 * VMSAVE raise #UD.  Contexts belong to the VM, so none is made anew for it.
 */
TEST_F_TIMEOUT(state, svme_cleared_by_l1, CASE_TIMEOUT)
{
	u64 gpa = L2_VMCB_GPA;
	u32 i, cpu;

	for (i = 0; i < 3 * STATE_L2S; i++) {
		cpu = i % 2;
		run_l2s(cpu, i % STATE_L2S, 1, 2);
		run_l2s(!cpu, (i + 3) % STATE_L2S, 1, 1);
		l1_do(cpu, l1_set_svme, false, 0, 0, 0);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, gpa, 0, 0, 0), UD_VECTOR);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmload, gpa, 0, 0, 0), UD_VECTOR);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmsave, gpa, 0, 0, 0), UD_VECTOR);
		l1_do(cpu, l1_set_svme, true, 0, 0, 0);
	}
	expect_all_run();
	if (nested_context_present())
		TEST_ASSERT(test_stats().new == STATE_L2S && !test_stats().fallback,
			    "%lu contexts for %u L2s, %lu fallbacks",
			    test_stats().new, STATE_L2S, test_stats().fallback);
}

/*
 * What one L2 is, and its vCPU's state and stack in L1, so that a run that the
 * host cuts off can be taken back as if L1 had never begun it.
 */
struct snapshot {
	struct kvm_x86_state *vcpu;
	u8 stack[PAGE_SIZE];
	struct l2_state l2;
	u8 vmcb[PAGE_SIZE];
	u8 private[PAGE_SIZE - L2_STRUCT_OFFSET];
};

/* L1 waits for a call with less than a page on its stack. */
static void *l1_stack_page(struct snapshot *s)
{
	return addr_gva2hva(t.vm, s->vcpu->regs.rsp & ~(PAGE_SIZE - 1ull));
}

static struct snapshot *snapshot_take(u32 cpu, u32 l2)
{
	struct snapshot *s = malloc(sizeof(*s));

	s->vcpu = vcpu_save_state(t.vcpu[cpu]);
	memcpy(s->stack, l1_stack_page(s), sizeof(s->stack));
	s->l2 = *test_l2(l2);
	memcpy(s->vmcb, test_vmcb(l2), sizeof(s->vmcb));
	memcpy(s->private, test_private(l2), sizeof(s->private));
	return s;
}

/* L2's stack is not restored: where it stood, nothing below matters. */
static void snapshot_restore(struct snapshot *s, u32 cpu, u32 l2)
{
	memcpy(l1_stack_page(s), s->stack, sizeof(s->stack));
	vcpu_load_state(t.vcpu[cpu], s->vcpu);
	kvm_x86_state_cleanup(s->vcpu);
	*test_l2(l2) = s->l2;
	test_l2(l2)->last_cpu = -1;
	memcpy(test_vmcb(l2), s->vmcb, sizeof(s->vmcb));
	memcpy(test_private(l2), s->private, sizeof(s->private));
	free(s);
}

/* The way by which a VM is restored that had an INIT waiting. */
static void set_init_pending(u32 cpu, bool pending)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(t.vcpu[cpu], &events);
	events.smi.latched_init = pending;
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	vcpu_events_set(t.vcpu[cpu], &events);
}

/* Ways for the host to take a vCPU out of L2 without a #VMEXIT. */
enum cut { CUT_NESTED_STATE, CUT_SVME, CUT_INIT, NR_CUTS };

static void cut_off(u32 cpu, enum cut how)
{
	struct kvm_nested_state n = {
		.flags = KVM_STATE_NESTED_GIF_SET,
		.format = KVM_STATE_NESTED_FORMAT_SVM,
		.size = sizeof(n),
	};
	struct kvm_mp_state mp_state;
	struct kvm_sregs sregs;

	switch (how) {
	case CUT_NESTED_STATE:
		vcpu_nested_state_set(t.vcpu[cpu], &n);
		break;
	case CUT_SVME:
		vcpu_sregs_get(t.vcpu[cpu], &sregs);
		sregs.efer &= ~EFER_SVME;
		vcpu_sregs_set(t.vcpu[cpu], &sregs);
		break;
	case CUT_INIT:
		/* An INIT that L1 doesn't intercept resets the vCPU at once. */
		set_init_pending(cpu, true);
		vcpu_mp_state_get(t.vcpu[cpu], &mp_state);
		vcpu_sregs_get(t.vcpu[cpu], &sregs);
		TEST_ASSERT(!(sregs.efer & EFER_SVME) && !(sregs.cr0 & 1),
			    "INIT did not reset the vCPU: efer %#llx cr0 %#llx",
			    sregs.efer, sregs.cr0);
		break;
	default:
		break;
	}

	n.size = sizeof(n);
	vcpu_nested_state_get(t.vcpu[cpu], &n);
	TEST_ASSERT(!(n.flags & KVM_STATE_NESTED_GUEST_MODE), "Still in L2");
}

/*
 * The host takes a vCPU out of L2 by KVM_SET_NESTED_STATE, by clearing SVME or
 * by INIT.  Nothing is written to the control block, and the context is free
 * for whoever runs the L2 next, on this vCPU or another.
 */
TEST_F_TIMEOUT(state, cut_off_in_l2, CASE_TIMEOUT)
{
	u8 before[PAGE_SIZE];
	struct snapshot *s;
	u32 i, l2, cpu;

	/* vCPU 0 would not wait after INIT: it is the one that boots. */
	cpu = 1;
	for (i = 0; i < 2 * NR_CUTS * STATE_L2S; i++) {
		l2 = i % STATE_L2S;
		run_and_model(0, l2, 1, 1);

		s = snapshot_take(cpu, l2);
		model_run(cpu, l2, 1, 1);
		pause_in_l2(cpu, l2);
		memcpy(before, test_vmcb(l2), sizeof(before));
		cut_off(cpu, i / STATE_L2S % NR_CUTS);
		TEST_ASSERT(!memcmp(before, test_vmcb(l2), sizeof(before)),
			    "Block of L2 %u written", l2);

		snapshot_restore(s, cpu, l2);
		run_l2s(i / 2 % 2, l2, 1, 1);
	}
	if (nested_context_present())
		TEST_ASSERT(test_stats().new == STATE_L2S && !test_stats().fallback,
			    "%lu contexts for %u L2s, %lu fallbacks",
			    test_stats().new, STATE_L2S, test_stats().fallback);
	expect_all_run();
}

/* arg: L2.  Returns L2's exit code. */
static u64 l1_run_once(u32 cpu, u64 *arg)
{
	struct l2_vcpu mine = l2s[arg[0]].v;

	mine.vmcb->save.rip = (u64)l2_counter;
	l2_vmrun(&mine, mine.vmcb_gpa);
	return mine.vmcb->control.exit_code;
}

/* An INIT that L1 intercepts is a #VMEXIT like any other. */
TEST_F_TIMEOUT(state, init_intercepted, CASE_TIMEOUT)
{
	u32 i = 5;

	run_l2s(0, i, 1, 2);
	test_vmcb(i)->control.intercept |= BIT_ULL(INTERCEPT_INIT);
	test_vmcb(i)->save.rax = 77;
	TEST_ASSERT_EQ(l1_start(1, l1_run_once, i, 0, 0, 0), L2_PAUSED);
	set_init_pending(1, true);
	TEST_ASSERT_EQ(vcpu_go(1), L1_DONE);
	TEST_ASSERT_EQ(l1_ret(1), SVM_EXIT_INIT);
	TEST_ASSERT_EQ(test_vmcb(i)->save.rax, 78);
	TEST_ASSERT_EQ(test_vmcb(i)->save.rip, (u64)l2_counter_vmmcall);

	/* GIF is clear in L1, so the INIT waits.  The next L2 would take it. */
	set_init_pending(1, false);
	run_l2s(1, 0, i, 2);
	run_l2s(0, 0, i, 2);
}

/*
 * Shutdown in L2 that L1 doesn't intercept ends the run, and KVM resets the
 * vCPU.  The L2 can be run by the other vCPU then.
 */
static u64 l1_run_shutdown(u32 cpu, u64 *arg)
{
	struct vmcb *vmcb = l2s[arg[0]].v.vmcb;

	/* No descriptor table: the first exception is a triple fault. */
	vmcb->save.idtr.limit = 0;
	vmcb->save.rip = (u64)l2_ud;
	vmcb->control.clean = 0;
	vmcb->control.intercept &= ~BIT_ULL(INTERCEPT_SHUTDOWN);
	l2_vmrun(&l2s[arg[0]].v, l2s[arg[0]].v.vmcb_gpa);
	GUEST_FAIL("L2 survived shutdown");
	return 0;
}

TEST_F_TIMEOUT(state, shutdown_in_l2, CASE_TIMEOUT)
{
	struct snapshot *s;
	u32 i;

	for (i = 0; i < STATE_L2S; i++) {
		run_l2s(0, i, 1, 2);
		s = snapshot_take(1, i);
		l1_set_call(1, l1_run_shutdown, i, 0, 0, 0);
		vcpu_run(t.vcpu[1]);
		TEST_ASSERT_KVM_EXIT_REASON(t.vcpu[1], KVM_EXIT_SHUTDOWN);
		snapshot_restore(s, 1, i);
		run_l2s(0, i, 1, 1);
		run_l2s(1, i, 1, 1);
	}
	expect_all_run();
}

/* VMs are destroyed while their vCPUs are in L2, all in the same or not. */
TEST_F_TIMEOUT(state, destroyed_in_l2, CASE_TIMEOUT)
{
	const struct test_options opt = {
		.nr_l2 = 4, .nr_vcpus = 4, .ratio = 1, .npt = true,
	};
	u32 i, cpu;

	for (i = 0; i < 8; i++) {
		test_vm_free();
		test_vm_create(&opt);
		for (cpu = 0; cpu < 4; cpu++) {
			if (i % 2)
				pause_in_l2(cpu, cpu);
			else
				TEST_ASSERT_EQ(l1_start(cpu, l1_run_counter, 0, 0, 1, 0),
					       L2_PAUSED);
		}
	}
}

/* ---- SMM ---- */

#define SMRAM_GPA	0x1000000
#define SMRAM_SLOT	(BIT(16) | 1)	/* of the address space that SMM has */
#define SMRAM_SIZE	0x10000

/* Runs in real mode: tell the host, and go back. */
static const u8 smi_handler[] = {
	0xe6, SMM_PORT,		/* out %al, $SMM_PORT */
	0x0f, 0xaa,		/* rsm */
};

static void inject_smi(u32 cpu)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(t.vcpu[cpu], &events);
	events.smi.pending = 1;
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	vcpu_events_set(t.vcpu[cpu], &events);
}

static u64 l1_stgi(u32 cpu, u64 *arg)
{
	stgi();
	return 0;
}

/*
 * An SMI that hits L2 leaves it for SMM and RSM leads back into it, with all
 * its state, even when another vCPU has run other L2s meanwhile, or the VM
 * was saved in SMM.  One that hits L1 between runs does no harm either.
 */
TEST_F_TIMEOUT(state, smm, CASE_TIMEOUT)
{
	u32 i, cpu;

	if (!kvm_has_cap(KVM_CAP_X86_SMM)) {
		ksft_print_msg("This kernel has no SMM: nothing was tried\n");
		return;
	}

	vm_userspace_mem_region_add(t.vm, VM_MEM_SRC_ANONYMOUS, SMRAM_GPA, SMRAM_SLOT,
				    SMRAM_SIZE / PAGE_SIZE, 0);
	memcpy(addr_gpa2hva(t.vm, SMRAM_GPA) + 0x8000, smi_handler, sizeof(smi_handler));
	for (cpu = 0; cpu < t.nr_vcpus; cpu++)
		vcpu_set_msr(t.vcpu[cpu], MSR_IA32_SMBASE, SMRAM_GPA);

	for (i = 0; i < 2 * STATE_L2S; i++) {
		u32 l2 = i % STATE_L2S, other = (i + 1) % STATE_L2S;

		pause_in_l2(0, l2);
		inject_smi(0);
		TEST_ASSERT_EQ(vcpu_go(0), SMM_STOP);
		run_l2s(1, other, 1, 1);
		if (i % 4 == 1)
			test_save_restore();
		finish_l2(0, l2);

		l1_do(0, l1_stgi, 0, 0, 0, 0);
		inject_smi(0);
		l1_set_call(0, l1_run_l2s, other, 1, 1, 0);
		TEST_ASSERT_EQ(vcpu_go(0), SMM_STOP);
		TEST_ASSERT_EQ(vcpu_go(0), L1_DONE);
	}
	expect_all_run();
}

#endif /* SELFTEST_KVM_SVM_NESTED_CONTEXT_STATE_H */
