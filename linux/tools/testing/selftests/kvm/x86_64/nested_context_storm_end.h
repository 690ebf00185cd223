/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nested_context_storm_test: VMs that go while their L2s switch, and what they
 * leave behind in the host, which has to be nothing.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_STORM_END_H
#define SELFTEST_KVM_NESTED_CONTEXT_STORM_END_H

#include <sys/prctl.h>

#include "nested_context_storm_vm.h"

#define END_VCPUS	3
#define END_L2S		24
#define END_BATCHES	10

/* ---- The host's memory ---- */

static const char * const memory_figures[] = {
	"SUnreclaim", "PageTables", "SecPageTables", "KernelStack", "VmallocUsed",
	"Percpu", "used",
};

#define NR_FIGURES	ARRAY_SIZE(memory_figures)

/* What is neither free nor cached is "used". */
static u64 memory_figure(u32 i)
{
	static const char path[] = "/proc/meminfo";

	if (strcmp(memory_figures[i], "used"))
		return proc_number(path, memory_figures[i]);
	return proc_number(path, "MemTotal") - proc_number(path, "MemFree") -
	       proc_number(path, "Buffers") - proc_number(path, "Cached");
}

/* Much is freed some time after a VM is gone: take what remains. */
static void memory_read(u64 *kb)
{
	u32 i, tries;

	for (tries = 0; tries < 5; tries++) {
		usleep(100000);
		for (i = 0; i < NR_FIGURES; i++)
			kb[i] = tries ? min(kb[i], memory_figure(i)) : memory_figure(i);
	}
}

/*
 * The first batch is to warm up.  A figure is the least that three batches left,
 * so only what stays counts; of a context that each VM leaves, that's some
 * 600 KiB in 1000 VMs.
 */
static u64 memory_least(u64 kb[][NR_FIGURES], u32 figure, u32 batch)
{
	return min(kb[batch][figure], min(kb[batch + 1][figure], kb[batch + 2][figure]));
}

static void memory_check(u64 kb[][NR_FIGURES])
{
	u64 first, last;
	u32 i;

	for (i = 0; i < NR_FIGURES; i++) {
		first = memory_least(kb, i, 1);
		last = memory_least(kb, i, END_BATCHES - 3);
		ksft_print_msg("memory: %s: warm %lu kB, then %lu kB, at the end %lu kB\n",
			       memory_figures[i], kb[0][i], first, last);
	}
	for (i = 0; i < NR_FIGURES; i++) {
		first = memory_least(kb, i, 1);
		last = memory_least(kb, i, END_BATCHES - 3);
		TEST_ASSERT(last <= first + opt(OPT_SLACK),
			    "%s grew by %lu kB", memory_figures[i], last - first);
	}
}

/* ---- VMs that go ---- */

/* A VM as all of them begin: its L2s are made, its vCPUs about to run them. */
struct beginning {
	struct storm_vm s;
	struct kvm_x86_state *state[END_VCPUS];
	struct storm_cpu cpus[STORM_MAX_VCPUS];
	void *mem;
};

static void end_prepare(struct beginning *b)
{
	storm_create(&b->s, END_VCPUS, END_L2S, NESTED_CONTEXT_RATIO);
	storm_save(&b->s, b->state);
	b->mem = malloc(b->s.size);
	memcpy(b->mem, b->s.mem, b->s.size);
	memcpy(b->cpus, addr_gva2hva(b->s.vm, (vm_vaddr_t)storm_cpus),
	       sizeof(b->cpus));
	kvm_vm_release(b->s.vm);
}

static void end_begin(struct beginning *b)
{
	struct storm_vm *s = &b->s;
	u32 i;

	memcpy(s->mem, b->mem, s->size);
	memcpy(addr_gva2hva(s->vm, (vm_vaddr_t)storm_cpus), b->cpus, sizeof(b->cpus));
	kvm_vm_restart(s->vm);
	storm_set_slot(s, 0);
	for (i = 0; i < s->nr_vcpus; i++)
		s->vcpu[i].vcpu = vm_vcpu_recreate(s->vm, i);
	storm_load(s, b->state);
	storm_go(s);
}

/* The library closes what it opened, so give it something in its place. */
static void close_now(int fd)
{
	int null = open("/dev/null", O_RDWR);

	TEST_ASSERT(null >= 0 && dup2(null, fd) == fd && !close(null), "dup2");
}

static void end_in_order(struct beginning *b, u64 steps)
{
	end_begin(b);
	storm_wait(&b->s, steps);
	storm_kick(&b->s);
	kvm_vm_release(b->s.vm);
}

/* The vCPUs stand somewhere, also within L2; the last of them takes the VM along. */
static void end_vm_first(struct beginning *b, u64 steps)
{
	end_begin(b);
	storm_wait(&b->s, steps);
	storm_kick(&b->s);
	close_now(b->s.vm->fd);
	kvm_vm_release(b->s.vm);
}

/* The same while they run. */
static void end_running(struct beginning *b, u64 steps)
{
	u32 i;

	end_begin(b);
	storm_wait(&b->s, steps);
	WRITE_ONCE(b->s.stopping, true);
	close_now(b->s.vm->fd);
	for (i = b->s.nr_vcpus; i--;)
		close_now(b->s.vcpu[i].vcpu->fd);
	storm_kick(&b->s);
	kvm_vm_release(b->s.vm);
}

/* Everything at once, in the order in which the kernel ends a process. */
static void end_killed(struct beginning *b, u64 steps)
{
	int status;
	pid_t pid;

	memcpy(b->s.mem, b->mem, b->s.size);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		end_begin(b);
		for (;;)
			pause();
	}
	while (storm_steps(&b->s) < steps) {
		TEST_ASSERT(!waitpid(pid, &status, WNOHANG), "The VM's process ended");
		usleep(2000);
	}
	kill(pid, SIGKILL);
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "waitpid");
}

static void (*const end_ways[])(struct beginning *b, u64 steps) = {
	end_in_order, end_vm_first, end_running, end_killed,
};

FIXTURE(end) {
};

FIXTURE_SETUP(end)
{
}

FIXTURE_TEARDOWN(end)
{
}

/* Whatever a VM was at when it went, it leaves nothing behind. */
TEST_F_TIMEOUT(end, midway, CASE_TIMEOUT)
{
	struct guest_random_state random = new_guest_random_state(1);
	u64 kb[END_BATCHES][NR_FIGURES], steps = 0;
	u32 vms = 0, batch, i;
	struct beginning b;
	double begin;

	end_prepare(&b);
	begin = storm_now();
	for (batch = 0; batch < END_BATCHES; batch++) {
		for (i = 0; i < DIV_ROUND_UP(opt(OPT_VMS), END_BATCHES); i++, vms++) {
			end_ways[vms % ARRAY_SIZE(end_ways)]
				(&b, 1 + guest_random_u32(&random) % 64);
			steps += storm_steps(&b.s);
		}
		memory_read(kb[batch]);
	}
	ksft_print_msg("end: %u VMs of %u vCPUs and %u L2s, %lu steps, %.1f s\n",
		       vms, END_VCPUS, END_L2S, steps, storm_now() - begin);
	memory_check(kb);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_STORM_END_H */
