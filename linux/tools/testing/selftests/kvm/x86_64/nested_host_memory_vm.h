/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's side of nested_host_memory_test: what a case is, its VM, whose vCPUs
 * run in threads of their own, orders for L1 and L2, and checks of what L2 did.
 */
#ifndef SELFTEST_KVM_NESTED_HOST_MEMORY_VM_H
#define SELFTEST_KVM_NESTED_HOST_MEMORY_VM_H

#include <asm/barrier.h>
#include <linux/bits.h>
#include <linux/compiler.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include "nested_context_common.h"
#include "nested_host_memory_l1.h"

#define MEM_SLOT	10
#define FILL_SLOT	11

enum state { IN_L2, PARKED, SWITCHING, NR_STATES };

/* A page that a context keeps: its place among those of an L2, and what is done. */
struct kind {
	const char *name;
	enum guest_arch arch;
	u32 page;
	bool written;		/* or looked up as if it were; else only read */
	bool posted;		/* it takes posted interrupts */
};

struct method {
	const char *name;
	u32 states;
	bool only_written;	/* there is nothing to see of a page that is only read */

	/* A case that goes its own way; else rounds of the rest. */
	void (*run)(void);

	void (*setup)(void);
	/* The system call under test; then @end's answer is about what comes after. */
	void (*begin)(void);
	bool (*end)(void);
	void (*teardown)(void);

	enum {
		/* @end says whether a write has been announced since @begin. */
		ANNOUNCES,
		/* @end says whether the page is as before for whom it shall be. */
		KEEPS,
		/* Until @end, KVM can't write to the page. */
		FORBIDS,
		/* KVM has to look the page up again, or L2's doings are lost. */
		RENEWS,
		/* @end says whether the page is seen to be in use. */
		AGES,
	} promise;
	bool pauses;		/* the vCPU is stopped before @end asks */
	bool ring;		/* the VM has dirty rings */
	bool no_contexts;	/* the VM keeps none */
	bool any_page;		/* it is about all pages at once */
};

#define SERIAL		(BIT(IN_L2) | BIT(PARKED))
#define ALL_STATES	(SERIAL | BIT(SWITCHING))

#define SERIAL_ROUNDS		3
#define SWITCHING_ROUNDS	40
#define FORBID_US		20000
#define WAIT_MS			20000
#define CASE_SECONDS		120
#define KILL_MS			10000

#define MAX_MEM_PAGES		(NR_VCPUS * L2S_PER_VCPU * 16)
#define FILL_PAGES		1024

/* Between the process of a case and the one that reports it. */
static struct report {
	char why[256];
	char note[256];
	u64 failed;
	u64 kill;		/* the case wants to be killed */
} *report;

/* L2 is about to be entered, and has not executed an instruction; it runs; neither. */
enum full { FULL_AT_ENTRY, FULL_IN_L2, FULL_IN_L1, NR_FULL };

struct l1_vcpu {
	struct kvm_vcpu *vcpu;
	pthread_t thread;
	struct kvm_dirty_gfn *ring;
	u32 fetch;		/* the ring's next entry */
	u64 full[NR_FULL];	/* how often it was, and where */
	sem_t paused;
	sem_t resume;
	bool pause;
	bool quit;
	u64 errors;		/* of KVM_RUN, which was called again */
};

static struct {
	const struct method *method;
	const struct kind *kind;
	enum state state;
	u32 nr_vcpus;

	struct kvm_vm *vm;
	struct l1_vcpu vcpu[NR_VCPUS];
	u8 *mem;
	size_t size;
	struct l1_mail *mail[NR_VCPUS];

	/* The page under test, and what was in it when @begin returned. */
	u8 *page;
	u8 copy[PAGE_SIZE];
	bool copied;
	u64 events;		/* userfaults, since @begin */
	u64 all_events;
	pthread_mutex_t lock;	/* of @copy and @events */

	bool dirty[MAX_MEM_PAGES];	/* what was in the rings */
	pthread_mutex_t ring_lock;
} t = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.ring_lock = PTHREAD_MUTEX_INITIALIZER,
};

static u32 the_ratio = NESTED_CONTEXT_RATIO;

/* Ends the case; whichever thread says so first is heard. */
static void __noreturn __printf(1, 2) fail(const char *fmt, ...)
{
	va_list ap;

	if (!__sync_lock_test_and_set(&report->failed, 1)) {
		va_start(ap, fmt);
		vsnprintf(report->why, sizeof(report->why), fmt, ap);
		va_end(ap);
	}
	_exit(1);
}

#define wait_for(cond, fmt, ...)					\
do {									\
	u64 __began = test_now_ms();					\
									\
	while (!(cond)) {						\
		if (test_now_ms() - __began > WAIT_MS)			\
			fail(fmt, ##__VA_ARGS__);			\
		usleep(100);						\
	}								\
} while (0)

/* ---- Dirty rings ---- */

/* With page-modification logging KVM keeps 512 more entries in reserve. */
static u32 ring_entries(void)
{
	return guest_arch != ARCH_SVM ? 1024 : 256;
}

/* The entry that many after the next, or NULL if KVM has not filled it. */
static struct kvm_dirty_gfn *ring_entry(struct l1_vcpu *v, u32 n)
{
	struct kvm_dirty_gfn *entry = &v->ring[(v->fetch + n) % ring_entries()];

	/* KVM sets the flag when the rest of the entry is there. */
	return smp_load_acquire(&entry->flags) == KVM_DIRTY_GFN_F_DIRTY ? entry : NULL;
}

static u32 ring_used(struct l1_vcpu *v)
{
	u32 n = 0;

	while (n < ring_entries() && ring_entry(v, n))
		n++;
	return n;
}

static void ring_collect(struct l1_vcpu *v)
{
	struct kvm_dirty_gfn *entry;

	pthread_mutex_lock(&t.ring_lock);
	for (; (entry = ring_entry(v, 0)); v->fetch++) {
		if (entry->slot == MEM_SLOT)
			t.dirty[entry->offset] = true;
		/* From here on the entry is KVM's again. */
		smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_RESET);
	}
	kvm_vm_reset_dirty_ring(t.vm);
	pthread_mutex_unlock(&t.ring_lock);
}

static void ring_is_full(struct l1_vcpu *v)
{
	static union vmx_nested_state n;

	n.s.size = sizeof(n);
	vcpu_nested_state_get(v->vcpu, &n.s);
	if (!(n.s.flags & KVM_STATE_NESTED_GUEST_MODE))
		v->full[FULL_IN_L1]++;
	else if (n.s.flags & KVM_STATE_NESTED_RUN_PENDING)
		v->full[FULL_AT_ENTRY]++;
	else
		v->full[FULL_IN_L2]++;
	ring_collect(v);
}

/* ---- The VM ---- */

static void ignore_signal(int sig)
{
}

/*
 * An error is one where the host forbids KVM the page, and stays one until it is
 * allowed again.
 */
static bool vcpu_may_go_on(struct l1_vcpu *v, int ret)
{
	struct kvm_run *run = v->vcpu->run;
	struct ucall uc;

	if (ret && errno == EINTR)
		return true;
	if ((ret && errno == EFAULT) ||
	    (!ret && run->exit_reason == KVM_EXIT_INTERNAL_ERROR)) {
		WRITE_ONCE(v->errors, v->errors + 1);
		usleep(1000);
		return true;
	}
	if (ret)
		fail("KVM_RUN: errno %d", errno);
	if (run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
		ring_is_full(v);
		return true;
	}
	if (run->exit_reason == KVM_EXIT_IO && get_ucall(v->vcpu, &uc) == UCALL_ABORT)
		fail("L1: %s", uc.buffer);
	fail("vCPU %u: exit %u (%s)", v->vcpu->id, run->exit_reason,
	     exit_reason_str(run->exit_reason));
}

static void *vcpu_thread(void *arg)
{
	struct l1_vcpu *v = arg;

	do {
		vcpu_may_go_on(v, __vcpu_run(v->vcpu));
		if (READ_ONCE(v->pause)) {
			sem_post(&v->paused);
			while (sem_wait(&v->resume))
				;
		}
	} while (!READ_ONCE(v->quit));
	return NULL;
}

/* Stops a vCPU wherever it is, out of guest mode. */
static void vcpu_pause(struct l1_vcpu *v)
{
	WRITE_ONCE(v->pause, true);
	WRITE_ONCE(v->vcpu->run->immediate_exit, 1);
	pthread_kill(v->thread, SIGUSR1);
	while (sem_wait(&v->paused))
		;
}

static void vcpu_resume(struct l1_vcpu *v)
{
	WRITE_ONCE(v->vcpu->run->immediate_exit, 0);
	WRITE_ONCE(v->pause, false);
	sem_post(&v->resume);
}

/* Where there are two CPUs, host and guest run at once. */
static void pin_threads(void)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	if (nr < 2)
		return;
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
	CPU_ZERO(&set);
	CPU_SET(nr - 1, &set);
	TEST_ASSERT(!pthread_setaffinity_np(t.vcpu[0].thread, sizeof(set), &set),
		    "pthread_setaffinity_np");
}

static void *add_memory(u32 slot, u64 gpa, size_t size)
{
	u32 flags = t.method->ring ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	void *mem;

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(mem != MAP_FAILED, "mmap");
	madvise(mem, size, MADV_NOHUGEPAGE);
	memset(mem, 0, size);
	vm_set_user_memory_region(t.vm, slot, flags, gpa, size, mem);
	virt_map(t.vm, gpa, gpa, size / PAGE_SIZE);
	return mem;
}

static void vcpu_prepare_hyperv(struct kvm_vcpu *vcpu)
{
	vm_vaddr_t hv;

	vcpu_set_hv_cpuid(vcpu);
	vcpu_enable_evmcs(vcpu);
	vcpu_set_msr(vcpu, HV_X64_MSR_VP_INDEX, vcpu->id);
	vcpu_alloc_hyperv_test_pages(t.vm, &hv);
	l1_hv = (void *)hv;
	sync_global_to_guest(t.vm, l1_hv);
	l1_hypercall_gpa = addr_gva2gpa(t.vm, vm_vaddr_alloc_page(t.vm));
	sync_global_to_guest(t.vm, l1_hypercall_gpa);
}

static void vm_start(void)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	vm_vaddr_t scratch;
	u32 i;

	nested_context_set_ratio(t.method->no_contexts ? 0 : the_ratio);
	/* The library knows one current eVMCS, for all vCPUs. */
	t.nr_vcpus = guest_arch == ARCH_EVMCS ? 1 : NR_VCPUS;
	t.vm = __vm_create(VM_SHAPE_DEFAULT, t.nr_vcpus, 256);
	l1_posts = guest_arch == ARCH_VMX && vmx_has_posted_interrupts();
	sync_global_to_guest(t.vm, guest_arch);
	sync_global_to_guest(t.vm, l1_posts);

	if (t.method->ring)
		vm_enable_dirty_ring(t.vm, ring_entries() * sizeof(struct kvm_dirty_gfn));

	t.size = NR_VCPUS * L2S_PER_VCPU * pages_per_l2() * PAGE_SIZE;
	TEST_ASSERT(t.size <= MAX_MEM_PAGES * PAGE_SIZE, "%zu bytes of L2s", t.size);
	t.mem = add_memory(MEM_SLOT, MEM_GPA, t.size);
	t.page = t.mem + t.kind->page * PAGE_SIZE;

	for (i = 0; i < t.nr_vcpus; i++) {
		t.mail[i] = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_mails[i]);
		t.vcpu[i].vcpu = vm_vcpu_add(t.vm, i, l1_main);
		if (t.method->ring)
			t.vcpu[i].ring = vcpu_map_dirty_ring(t.vcpu[i].vcpu);
		if (guest_arch == ARCH_EVMCS)
			vcpu_prepare_hyperv(t.vcpu[i].vcpu);
		scratch = vm_vaddr_alloc_page(t.vm);
		vcpu_args_set(t.vcpu[i].vcpu, 3, i, scratch, addr_gva2gpa(t.vm, scratch));
	}
	vm_install_exception_handler(t.vm, GP_VECTOR, guest_gp_handler);
	vm_install_exception_handler(t.vm, POSTED_VECTOR, l2_posted_handler);

	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < t.nr_vcpus; i++) {
		sem_init(&t.vcpu[i].paused, 0, 0);
		sem_init(&t.vcpu[i].resume, 0, 0);
		TEST_ASSERT(!pthread_create(&t.vcpu[i].thread, NULL, vcpu_thread, &t.vcpu[i]),
			    "pthread_create");
		wait_for(READ_ONCE(t.mail[i]->turns), "vCPU %u: L1 does not begin", i);
		vcpu_pause(&t.vcpu[i]);
	}
	pin_threads();
	vcpu_resume(&t.vcpu[0]);
}

/* Statistics are complete once a vCPU has left KVM_RUN. */
static void vm_stop(void)
{
	u32 i;

	for (i = 0; i < t.nr_vcpus; i++) {
		WRITE_ONCE(t.vcpu[i].quit, true);
		if (!t.vcpu[i].pause)
			vcpu_pause(&t.vcpu[i]);
		vcpu_resume(&t.vcpu[i]);
		pthread_join(t.vcpu[i].thread, NULL);
	}
}

static void vm_end(void)
{
	kvm_vm_free(t.vm);
	munmap(t.mem, t.size);
}

/* ---- Orders ---- */

static struct l2_mail *tested(void)
{
	return &t.mail[0]->l2_mail[TESTED];
}

static void l1_order(u32 cpu, enum l1_op op)
{
	/* An L2 that is held gets its first notification from the host. */
	WRITE_ONCE(t.mail[cpu]->notify, !cpu && !tested()->hold);
	WRITE_ONCE(t.mail[cpu]->op, op);
	WRITE_ONCE(t.mail[cpu]->stop, false);
	WRITE_ONCE(t.mail[cpu]->seq, t.mail[cpu]->seq + 1);
}

static bool l1_is_done(u32 cpu)
{
	return READ_ONCE(t.mail[cpu]->done) == t.mail[cpu]->seq;
}

static void l1_wait(u32 cpu)
{
	wait_for(l1_is_done(cpu),
		 "vCPU %u hangs: %lu visits, %lu failed entries, last exit code %#lx, %lu errors of KVM_RUN, %lu userfaults",
		 cpu, t.mail[cpu]->visits, t.mail[cpu]->failures, t.mail[cpu]->exit_code,
		 t.vcpu[cpu].errors, t.all_events);
}

static void l1_do(u32 cpu, enum l1_op op)
{
	l1_order(cpu, op);
	l1_wait(cpu);
}

/* Brings L2 to where it waits, or back from there. */
static void hold_l2(void)
{
	u64 turns = tested()->turns;

	WRITE_ONCE(tested()->hold, true);
	l1_order(0, L1_VISIT);
	wait_for(READ_ONCE(tested()->turns) != turns, "L2 does not run");
}

static void release_l2(void)
{
	struct kvm_msi msi = {
		.address_lo = APIC_DEFAULT_GPA,
		.data = NOTIFY_VECTOR,
	};

	if (l1_posts) {
		TEST_ASSERT(__vm_ioctl(t.vm, KVM_SIGNAL_MSI, &msi) > 0,
			    "the notification did not reach vCPU 0");
		WRITE_ONCE(t.mail[0]->notify, true);
	}
	WRITE_ONCE(tested()->hold, false);
}

static void wait_for_visits(u64 nr)
{
	u64 until = READ_ONCE(t.mail[0]->visits) + nr;

	wait_for(READ_ONCE(t.mail[0]->visits) >= until, "L1 has stopped switching");
}

/* ---- Checks ---- */

static bool page_holds(u8 *page, u64 value)
{
	u32 i;

	for (i = 0; i < PAGE_SIZE; i += sizeof(value)) {
		if (!memcmp(page + i, &value, sizeof(value)))
			return true;
	}
	return false;
}

static u64 msr_exits_wanted(void)
{
	const struct msr_read *r = msr_reads[guest_arch];
	u64 exits = 0;
	u32 i;

	for (i = 0; i < MAX_MSRS; i++) {
		if (t.mem[r[i].page * PAGE_SIZE + r[i].byte] & r[i].mask)
			exits |= BIT(i);
	}
	return exits;
}

/* After a visit, all that L2 did is in the pages that are the guest's now. */
static void check_values(void)
{
	u64 private = l2_private(0, TESTED), n = tested()->n;
	u32 tpr;

	if (!page_holds(t.mem, l2_token(private, n)))
		fail("L2's state of visit %lu is not in the control block", n);
	if (guest_arch == ARCH_VMX) {
		tpr = *(u32 *)(t.mem + 2 * PAGE_SIZE + APIC_TASKPRI);
		if (tpr != l2_tpr(n))
			fail("L2 wrote task priority %#x, the virtual-APIC page holds %#x",
			     l2_tpr(n), tpr);
	}
	if (l1_posts && (tested()->taken != n || t.mail[0]->overdue))
		fail("%lu posted interrupts were taken in %lu visits, %lu were overdue",
		     tested()->taken, n, t.mail[0]->overdue);
	if (tested()->msr_exits != msr_exits_wanted())
		fail("L2's reads of MSRs exit by %#lx, L1's map says %#lx",
		     tested()->msr_exits, msr_exits_wanted());
}

/* The bits of the MSR permission map that are in this page; what it says changes. */
static void flip_msr_bits(u8 *page)
{
	const struct msr_read *r = msr_reads[guest_arch];
	u32 i;

	for (i = 0; i < MAX_MSRS; i++) {
		if (r[i].msr && r[i].page == t.kind->page)
			page[r[i].byte] ^= r[i].mask;
	}
}

/* Where the page differs from its copy, or -1. */
static int page_differs(void)
{
	u32 i;

	for (i = 0; i < PAGE_SIZE; i++) {
		if (READ_ONCE(t.page[i]) != t.copy[i])
			return i;
	}
	return -1;
}

static void check_silence(const char *when)
{
	int at = page_differs();

	if (at >= 0)
		fail("offset %#x of the page was written %s", at, when);
}

static void copy_page(void)
{
	memcpy(t.copy, t.page, PAGE_SIZE);
	WRITE_ONCE(t.copied, true);
}

#endif /* SELFTEST_KVM_NESTED_HOST_MEMORY_VM_H */
