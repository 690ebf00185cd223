/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's side of nested_context_storm_test: a VM whose vCPUs run each in its
 * own thread, that can be stopped wherever it is, moved, and checked.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_STORM_VM_H
#define SELFTEST_KVM_NESTED_CONTEXT_STORM_VM_H

#include <pthread.h>
#include <signal.h>

#include "nested_context_common.h"
#include "nested_context_storm_l1.h"

struct storm_vm;

struct storm_vcpu {
	struct storm_vm *s;
	struct kvm_vcpu *vcpu;
	pthread_t thread;
};

struct storm_vm {
	const struct nested_arch *arch;
	struct kvm_vm *vm;
	struct storm_vcpu vcpu[STORM_MAX_VCPUS];
	u32 nr_vcpus;
	u32 nr_l2;
	u32 ratio;

	/* The slot of all L2s' pages.  It is a file's, so it can be unmapped. */
	int fd;
	void *mem;
	size_t size;
	void *old;	/* what it had before it moved */

	bool stopping;
	u64 pauses;
};

static const struct nested_arch *the_arch;

#define NO_POSTED	"KVM offers no posted interrupts for L2 here"

static bool storm_can_post(void)
{
	return the_arch == &nested_archs[NESTED_VMX] && vmx_has_posted_interrupts();
}

/* ---- vCPU threads ---- */

static void storm_kicked(int sig)
{
}

static void storm_report_failure(struct storm_vm *s, u32 cpu)
{
	struct storm_cpu *c = addr_gva2hva(s->vm, (vm_vaddr_t)&storm_cpus[cpu]);

	TEST_FAIL("vCPU %u, L2 %u, check in line %u of the guest: have %#lx, want %#lx",
		  cpu, c->fail.l2, c->fail.line, c->fail.have, c->fail.want);
}

/*
 * Runs a vCPU until it is done, or kicked.  When an L2 pauses, the others are let
 * run, while it is in L2.
 */
static void vcpu_go(struct storm_vcpu *v)
{
	struct kvm_run *run = v->vcpu->run;
	struct ucall uc;

	for (;;) {
		if (__vcpu_run(v->vcpu)) {
			if (READ_ONCE(v->s->stopping))
				return;
			TEST_ASSERT(errno == EINTR, "vCPU %u: KVM_RUN: %s",
				    v->vcpu->id, strerror(errno));
			continue;
		}
		TEST_ASSERT(run->exit_reason == KVM_EXIT_IO, "vCPU %u: exit %u (%s)",
			    v->vcpu->id, run->exit_reason,
			    exit_reason_str(run->exit_reason));
		switch (run->io.port) {
		case STORM_PAUSE_PORT:
			__sync_fetch_and_add(&v->s->pauses, 1);
			sched_yield();
			break;
		case STORM_DONE_PORT:
			return;
		case STORM_FAIL_PORT:
			storm_report_failure(v->s, v->vcpu->id);
			break;
		default:
			if (get_ucall(v->vcpu, &uc) == UCALL_ABORT)
				REPORT_GUEST_ASSERT(uc);
			TEST_FAIL("vCPU %u: OUT to port %x", v->vcpu->id, run->io.port);
		}
	}
}

static void *vcpu_thread(void *arg)
{
	vcpu_go(arg);
	return NULL;
}

static void storm_go(struct storm_vm *s)
{
	u32 i;

	s->stopping = false;
	for (i = 0; i < s->nr_vcpus; i++) {
		s->vcpu[i].vcpu->run->immediate_exit = 0;
		TEST_ASSERT(!pthread_create(&s->vcpu[i].thread, NULL, vcpu_thread,
					    &s->vcpu[i]), "pthread_create");
	}
}

static void storm_join(struct storm_vm *s)
{
	u32 i;

	for (i = 0; i < s->nr_vcpus; i++)
		pthread_join(s->vcpu[i].thread, NULL);
}

/* Stops all vCPUs wherever they are, in L1 or in L2. */
static void storm_kick(struct storm_vm *s)
{
	u32 i;

	WRITE_ONCE(s->stopping, true);
	for (i = 0; i < s->nr_vcpus; i++) {
		WRITE_ONCE(s->vcpu[i].vcpu->run->immediate_exit, 1);
		pthread_kill(s->vcpu[i].thread, SIGUSR1);
	}
	storm_join(s);
}

/* ---- Making and moving ---- */

static void *storm_map_file(int fd, size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	TEST_ASSERT(mem != MAP_FAILED, "mmap of %zu bytes", size);
	return mem;
}

static void storm_set_slot(struct storm_vm *s, u32 flags)
{
	vm_set_user_memory_region(s->vm, STORM_SLOT, flags, STORM_GPA, s->size, s->mem);
}

/* A VM that has not run yet.  Two that are made alike have the same layout. */
static void storm_make_vm(struct storm_vm *s, u32 nr_vcpus, u32 nr_l2, u32 ratio)
{
	struct sigaction kick = { .sa_handler = storm_kicked };
	struct kvm_vcpu *vcpus[STORM_MAX_VCPUS];
	vm_vaddr_t scratch;
	u32 i;

	memset(s, 0, sizeof(*s));
	s->arch = the_arch;
	s->nr_vcpus = nr_vcpus;
	s->nr_l2 = nr_l2;
	s->ratio = ratio;
	nested_context_set_ratio(ratio);
	sigaction(SIGUSR1, &kick, NULL);

	s->vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, nr_vcpus, 512, l1_main, vcpus);
	s->size = (nr_l2 + 1) * s->arch->pages_per_l2 * PAGE_SIZE;
	s->fd = kvm_memfd_alloc(s->size, false);
	s->mem = storm_map_file(s->fd, s->size);
	storm_set_slot(s, 0);
	virt_map(s->vm, STORM_GPA, STORM_GPA, s->size / PAGE_SIZE);

	/* By KVM's own rule so small a VM would have no room for all L2s' tables. */
	vm_ioctl(s->vm, KVM_SET_NR_MMU_PAGES, (void *)(nr_l2 * 16ul + 1024));

	storm.arch = s->arch - nested_archs;
	storm.nr_l2 = nr_l2;
	storm.stop = false;
	sync_global_to_guest(s->vm, storm);

	for (i = 0; i < nr_vcpus; i++) {
		s->vcpu[i].s = s;
		s->vcpu[i].vcpu = vcpus[i];
		scratch = vm_vaddr_alloc_page(s->vm);
		vcpu_args_set(vcpus[i], 3, i, scratch, addr_gva2gpa(s->vm, scratch));
	}
}

/* A VM whose L2s are made, and that waits to begin. */
static void storm_create(struct storm_vm *s, u32 nr_vcpus, u32 nr_l2, u32 ratio)
{
	u32 i;

	storm_make_vm(s, nr_vcpus, nr_l2, ratio);
	for (i = 0; i < nr_vcpus; i++)
		vcpu_go(&s->vcpu[i]);
}

static void storm_destroy(struct storm_vm *s)
{
	kvm_vm_free(s->vm);
	munmap(s->mem, s->size);
	if (s->old)
		munmap(s->old, s->size);
	close(s->fd);
}

static void storm_save(struct storm_vm *s, struct kvm_x86_state **state)
{
	u32 i;

	for (i = 0; i < s->nr_vcpus; i++)
		state[i] = vcpu_save_state(s->vcpu[i].vcpu);
}

static void storm_load(struct storm_vm *s, struct kvm_x86_state **state)
{
	u32 i;

	for (i = 0; i < s->nr_vcpus; i++)
		vcpu_load_state(s->vcpu[i].vcpu, state[i]);
}

static void storm_free_states(struct storm_vm *s, struct kvm_x86_state **state)
{
	u32 i;

	for (i = 0; i < s->nr_vcpus; i++)
		kvm_x86_state_cleanup(state[i]);
}

/* ---- Progress and checks ---- */

static struct storm_l2 *storm_hva(struct storm_vm *s, u32 nr)
{
	return storm_l2(s->arch, s->mem, nr);
}

static u64 storm_steps(struct storm_vm *s)
{
	u64 steps = 0;
	u32 i;

	for (i = 0; i < s->nr_l2; i++)
		steps += READ_ONCE(storm_hva(s, i)->count);
	return steps;
}

/* Waits until the L2s have made so many steps more; the test's timeout bounds it. */
static void storm_wait(struct storm_vm *s, u64 steps)
{
	u64 until = storm_steps(s) + steps;

	while (storm_steps(s) < until)
		usleep(2000);
}

/*
 * What was posted and not found is still in the descriptor or in the virtual-APIC
 * page, and nothing else is.
 */
static u64 storm_check_posted(struct storm_vm *s, u32 nr)
{
	struct storm_l2 *l2 = storm_hva(s, nr);
	u8 *vapic = s->mem + ((u64)l2->v.vmx.vapic - STORM_GPA);
	u64 posted = 0;
	u32 i, vector, pending;

	for (i = 0; i < s->nr_vcpus; i++) {
		vector = STORM_FIRST_VECTOR + i;
		pending = l2->desc.pir[vector / 64] >> vector % 64 & 1;
		pending += *(u32 *)(vapic + APIC_IRR + vector / 32 * 16) >> vector % 32 & 1;
		TEST_ASSERT(l2->posted[i] == l2->found[i] + pending,
			    "L2 %u: vCPU %u posted %u, %u were found, %u are pending",
			    nr, i, l2->posted[i], l2->found[i], pending);
		posted += l2->posted[i];
	}
	return posted;
}

struct storm_totals {
	u64 steps;
	u64 moves;
	u64 shared;
	u64 posted;
	double seconds;
};

/* Lets all vCPUs come to an end, and checks every count. */
static struct storm_totals storm_finish(struct storm_vm *s)
{
	struct storm_cpu *c = addr_gva2hva(s->vm, (vm_vaddr_t)storm_cpus);
	bool *stop = addr_gva2hva(s->vm, (vm_vaddr_t)&storm.stop);
	struct storm_totals t = {};
	struct storm_l2 *l2;
	u64 steps = 0;
	u32 i;

	WRITE_ONCE(*stop, true);
	storm_join(s);

	for (i = 0; i < s->nr_l2; i++) {
		l2 = storm_hva(s, i);
		TEST_ASSERT(!l2->lock && l2->memory == storm_base(i, 0) + l2->count &&
			    l2->v.gpr[L2_RBX] == storm_base(i, 2) + l2->count,
			    "L2 %u: L1 counts %lu, memory %lx, RBX %lx, lock %u", i,
			    l2->count, l2->memory, l2->v.gpr[L2_RBX], l2->lock);
		steps += l2->count;
		if (storm.posted)
			t.posted += storm_check_posted(s, i);
	}
	for (i = 0; i < s->nr_vcpus; i++) {
		t.steps += c[i].steps;
		t.moves += c[i].moves;
		t.shared += c[i].shared_steps;
	}
	TEST_ASSERT(t.steps == steps, "The vCPUs made %lu steps, the L2s %lu",
		    t.steps, steps);
	return t;
}

static double storm_now(void)
{
	return test_now_ms() / 1e3;
}

static void storm_say(struct storm_vm *s, const char *what, struct storm_totals t,
		      double seconds, struct nested_context_stats c)
{
	ksft_print_msg("%s: %u L2s on %u vCPUs, ratio %u, %.1f s\n", what, s->nr_l2,
		       s->nr_vcpus, s->ratio, seconds);
	ksft_print_msg("%s: %lu steps, %lu moves, %lu shared steps, %lu pauses\n", what,
		       t.steps, t.moves, t.shared, s->pauses);
	if (t.posted)
		ksft_print_msg("%s: %lu interrupts posted\n", what, t.posted);
	if (nested_context_present())
		ksft_print_msg("%s: loads %lu: new %lu, reuse %lu, recycle %lu, fallback %lu\n",
			       what, nested_context_loads(c), c.new, c.reuse,
			       c.recycle, c.fallback);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_STORM_VM_H */
