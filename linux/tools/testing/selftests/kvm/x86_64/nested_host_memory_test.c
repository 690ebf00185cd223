// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a host's memory management learns of the pages of L1 that KVM and the
 * hardware use for a nested guest.
 *
 * Pagers, snapshots and migrations protect, watch, copy or discard pages of a VM
 * while it runs, and rely on it that each write after the system call that did so
 * is announced, and that none goes to the page as it was before.  A page that KVM
 * or the hardware reaches by an address that was looked up before is where that
 * can go wrong.
 *
 * A case is one thing that the host does (a method), to one of those pages (a
 * kind), in one of three states:
 *
 *	in_l2		L2 runs, and exits to L1 only after the host has done it
 *	parked		L1 has left L2, has run another one since, and comes back
 *	switching	L1 goes from one L2 to the other all the time
 *
 * In each visit L2 writes a task priority to its virtual-APIC page, if there is
 * one, and a value to its control block, by RSP, and reads MSRs that exit if the
 * MSR permission map says so.  Then L1 runs another L2, and both a second time.
 * So each page is read or written, whichever KVM and the hardware do with it,
 * first as it was when the host did its thing, and again after a look-up.
 *
 * Each case has a process and a VM of its own.
 */
#include <linux/compiler.h>
#include <fnmatch.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>

#include "apic.h"
#include "kselftest.h"
#include "nested_context_arch.h"
#include "nested_context_common.h"
#include "nested_context_host.h"
#include "userfaultfd_util.h"

#define NR_VCPUS	2
#define X86_EFLAGS_IF	BIT(9)

#define MEM_SLOT	10
#define MEM_GPA		0x10000000ull

/* ---- Guest ---- */

/* Of each vCPU: the one whose pages are looked at, and the one that parks it. */
enum { TESTED, OTHER, L2S_PER_VCPU };

/* An MSR that L2 reads, and the bit of L1's map that makes it exit. */
struct msr_read {
	u32 msr;
	u32 page;
	u32 byte;
	u8 mask;
};

#define MAX_MSRS	2

static const struct msr_read msr_reads[NR_NESTED_VENDORS][MAX_MSRS] = {
	[NESTED_SVM] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x800 + 0x102 / 4, BIT(0x102 % 4 * 2) },
		{ MSR_AMD64_NB_CFG, 2, 0x1f / 4, BIT(0x1f % 4 * 2) },
	},
	[NESTED_VMX] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x400 + 0x102 / 8, BIT(0x102 % 8) },
	},
};

struct l2_mail {
	u64 hold;		/* set by the host: L2 stays where it is */
	u64 turns;		/* of L2, meanwhile */
	u64 n;			/* visits that L2 has made */
	u64 msr_exits;		/* in the last visit, a bit for each of msr_reads */
};

enum l1_op { L1_VISIT, L1_SWITCH };

static struct l1_mail {
	/* Set by the host, @seq last. */
	u64 op;
	u64 seq;
	u64 stop;

	u64 turns;		/* of L1, waiting for an order */
	u64 done;		/* the last order that L1 has carried out */
	u64 visits;
	u64 failures;		/* entries that failed, #GPs of L1 and L2 */
	u64 exit_code;		/* of the last failed entry */
	struct nested_l2 l2[L2S_PER_VCPU];
	struct l2_mail l2_mail[L2S_PER_VCPU];
} l1_mails[NR_VCPUS];

static u64 guest_vendor;

static u64 l2_pages(u32 cpu, u32 l2)
{
	return MEM_GPA + (cpu * L2S_PER_VCPU + l2) *
			 nested_archs[guest_vendor].pages_per_l2 * PAGE_SIZE;
}

static u64 l2_private(u32 cpu, u32 l2)
{
	return l2_pages(cpu, l2) + nested_archs[guest_vendor].private_page * PAGE_SIZE;
}

/* L2's RSP when it exits: a stack still, and different from the last ones. */
static u64 l2_token(u64 private, u64 n)
{
	return private + PAGE_SIZE / 4 + n % 64 * 16;
}

static u32 l2_tpr(u64 n)
{
	return (n % 15 + 1) << 4;
}

static void l2_call(u64 token)
{
	if (guest_vendor == NESTED_SVM)
		asm volatile("xchg %%rsp, %0\n\tvmmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
	else
		asm volatile("xchg %%rsp, %0\n\tvmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
}

/* The task priority is written by MOV to CR8 first, and to the APIC page then. */
static void l2_main(struct l2_mail *m, u64 private, u32 *tpr)
{
	const struct msr_read *r = msr_reads[guest_vendor];
	u64 n, cr8;
	u32 i;

	for (;;) {
		while (READ_ONCE(m->hold))
			WRITE_ONCE(m->turns, m->turns + 1);

		n = m->n + 1;
		for (i = 0; i < MAX_MSRS && r[i].msr; i++)
			rdmsr(r[i].msr);
		if (tpr) {
			cr8 = l2_tpr(n + 1) >> 4;
			asm volatile("mov %0, %%cr8" : : "r"(cr8) : "memory");
			WRITE_ONCE(*tpr, l2_tpr(n));
		}
		WRITE_ONCE(m->n, n);
		l2_call(l2_token(private, n));
	}
}

static void l1_make(const struct nested_arch *arch, u32 cpu, u32 nr)
{
	struct l1_mail *m = &l1_mails[cpu];
	struct nested_l2 *l2 = &m->l2[nr];
	u64 tpr = 0;

	arch->make(l2, l2_pages(cpu, nr), l2_main, l2_private(cpu, nr) + PAGE_SIZE - 8);
	if (guest_vendor == NESTED_VMX) {
		/* Bochs holds L0's interrupts back while L2 has its own off. */
		vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | X86_EFLAGS_IF);
		tpr = (u64)l2->vmx.apic_access + APIC_TASKPRI;
	}
	l2->gpr[L2_RDI] = (u64)&m->l2_mail[nr];
	l2->gpr[L2_RSI] = l2_private(cpu, nr);
	l2->gpr[L2_RDX] = tpr;
}

/* Where L1 waits it makes exits, for Bochs' sake again. */
static void l1_relax(void)
{
	(void)this_cpu_has(X86_FEATURE_VMX);
}

static void l1_note_msr(struct nested_l2 *l2, struct l2_mail *m)
{
	const struct msr_read *r = msr_reads[guest_vendor];
	u32 i;

	for (i = 0; i < MAX_MSRS; i++) {
		if (r[i].msr && r[i].msr == (u32)l2->gpr[L2_RCX])
			m->msr_exits |= BIT(i);
	}
}

static void l1_visit(const struct nested_arch *arch, struct l1_mail *m, u32 nr)
{
	struct nested_l2 *l2 = &m->l2[nr];
	enum nested_exit exit;

	m->l2_mail[nr].msr_exits = 0;
	if (arch->load)
		arch->load(l2);
	do {
		exit = arch->enter(l2);
		if (exit == EXIT_NONE) {
			m->exit_code = arch->exit_code(l2);
			WRITE_ONCE(m->failures, m->failures + 1);
			l1_relax();
			continue;
		}
		if (exit == EXIT_MSR)
			l1_note_msr(l2, &m->l2_mail[nr]);
		arch->skip(l2, exit);
	} while (exit != EXIT_CALL);
	WRITE_ONCE(m->visits, m->visits + 1);
}

static void l1_visit_all(const struct nested_arch *arch, struct l1_mail *m)
{
	l1_visit(arch, m, TESTED);
	l1_visit(arch, m, OTHER);
}

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	const struct nested_arch *arch = &nested_archs[guest_vendor];
	struct l1_mail *m = &l1_mails[cpu];
	u64 seq;
	u32 i;

	arch->l1_init(scratch, scratch_gpa);
	for (i = 0; i < L2S_PER_VCPU; i++)
		l1_make(arch, cpu, i);

	for (;;) {
		WRITE_ONCE(m->turns, m->turns + 1);
		l1_relax();
		seq = READ_ONCE(m->seq);
		if (seq == m->done)
			continue;
		if (m->op == L1_VISIT) {
			l1_visit_all(arch, m);
			l1_visit_all(arch, m);
		} else {
			while (!READ_ONCE(m->stop))
				l1_visit_all(arch, m);
		}
		WRITE_ONCE(m->done, seq);
	}
}

/*
 * Where the host does not let KVM reach the control block, VMRUN and the other
 * instructions on it raise #GP, and so does L2's exit.  They are tried again.
 */
static void guest_gp_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&l1_mails[0].failures, 1);
	l1_relax();
}

/* ---- Cases ---- */

enum state { IN_L2, PARKED, SWITCHING, NR_STATES };

static const char *const state_names[NR_STATES] = { "in_l2", "parked", "switching" };

/* A page that a context keeps: its place among those of an L2, and what is done. */
static const struct kind {
	const char *name;
	enum nested_vendor vendor;
	u32 page;
	bool written;		/* by KVM or by the hardware; else only read */
} kinds[] = {
	{ "vmcb12", NESTED_SVM, 0, true },
	{ "msr_map_0", NESTED_SVM, 1, false },
	{ "msr_map_1", NESTED_SVM, 2, false },
	{ "vmcs12", NESTED_VMX, 0, true },
	{ "msr_bitmap", NESTED_VMX, 1, false },
	{ "virtual_apic", NESTED_VMX, 2, true },
	{ "apic_access", NESTED_VMX, 3, false },
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
		/* KVM has to look the page up again; @end says whether it did. */
		RENEWS,
		/* @end says whether the page is seen to be in use. */
		AGES,
	} promise;
	bool pauses;		/* vCPUs are stopped before @end asks */
};

#define SERIAL		(BIT(IN_L2) | BIT(PARKED))
#define ALL_STATES	(SERIAL | BIT(SWITCHING))

#define SERIAL_ROUNDS		3
#define SWITCHING_ROUNDS	40
#define WAIT_MS			20000
#define CASE_SECONDS		120
#define KILL_MS			10000

/* Between the process of a case and the one that reports it. */
static struct report {
	char why[256];
	char note[256];
	u64 failed;
	u64 kill;		/* the case wants to be killed */
} *report;

#define NR_RING_ENTRIES	1024

struct l1_vcpu {
	struct kvm_vcpu *vcpu;
	pthread_t thread;
	sem_t paused;
	sem_t resume;
	bool pause;
	bool quit;
	u64 errors;		/* of KVM_RUN, which was called again */
};

static struct {
	const struct nested_arch *arch;
	const struct method *method;
	const struct kind *kind;
	enum state state;

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
} t = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
};

static const struct nested_arch *the_arch;
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

static void vm_start(void)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	vm_vaddr_t scratch;
	u32 i;

	nested_context_set_ratio(the_ratio);
	t.vm = __vm_create(VM_SHAPE_DEFAULT, NR_VCPUS, 256);
	guest_vendor = t.arch - nested_archs;
	sync_global_to_guest(t.vm, guest_vendor);

	t.size = NR_VCPUS * L2S_PER_VCPU * t.arch->pages_per_l2 * PAGE_SIZE;
	t.mem = mmap(NULL, t.size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(t.mem != MAP_FAILED, "mmap");
	madvise(t.mem, t.size, MADV_NOHUGEPAGE);
	memset(t.mem, 0, t.size);
	vm_set_user_memory_region(t.vm, MEM_SLOT, 0, MEM_GPA, t.size, t.mem);
	virt_map(t.vm, MEM_GPA, MEM_GPA, t.size / PAGE_SIZE);
	t.page = t.mem + t.kind->page * PAGE_SIZE;

	for (i = 0; i < NR_VCPUS; i++) {
		t.mail[i] = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_mails[i]);
		t.vcpu[i].vcpu = vm_vcpu_add(t.vm, i, l1_main);
		scratch = vm_vaddr_alloc_page(t.vm);
		vcpu_args_set(t.vcpu[i].vcpu, 3, i, scratch, addr_gva2gpa(t.vm, scratch));
	}
	vm_install_exception_handler(t.vm, GP_VECTOR, guest_gp_handler);

	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < NR_VCPUS; i++) {
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

static void vm_end(void)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		WRITE_ONCE(t.vcpu[i].quit, true);
		if (!t.vcpu[i].pause)
			vcpu_pause(&t.vcpu[i]);
		vcpu_resume(&t.vcpu[i]);
		pthread_join(t.vcpu[i].thread, NULL);
	}
	kvm_vm_free(t.vm);
	munmap(t.mem, t.size);
}

/* ---- Orders ---- */

static void l1_order(u32 cpu, enum l1_op op)
{
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

static struct l2_mail *tested(void)
{
	return &t.mail[0]->l2_mail[TESTED];
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
	const struct msr_read *r = msr_reads[guest_vendor];
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
	if (guest_vendor == NESTED_VMX) {
		tpr = *(u32 *)(t.mem + 2 * PAGE_SIZE + APIC_TASKPRI);
		if (tpr != l2_tpr(n))
			fail("L2 wrote task priority %#x, the virtual-APIC page holds %#x",
			     l2_tpr(n), tpr);
	}
	if (tested()->msr_exits != msr_exits_wanted())
		fail("L2's reads of MSRs exit by %#lx, L1's map says %#lx",
		     tested()->msr_exits, msr_exits_wanted());
}

/* The bits of the MSR permission map that are in this page; what it says changes. */
static void flip_msr_bits(u8 *page)
{
	const struct msr_read *r = msr_reads[guest_vendor];
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

/* ---- userfaultfd, write protection ---- */

static struct uffd_desc *uffd;
static bool answers, protects_again;
static u32 answer_ms;

static void uffd_protect(int fd, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (u64)t.page, .len = PAGE_SIZE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp))
		fail("UFFDIO_WRITEPROTECT: errno %d", errno);
}

/* Until it is answered, the page must stay as it was when it was protected. */
static int uffd_wp_event(int mode, int fd, struct uffd_msg *msg)
{
	if (msg->arg.pagefault.address / PAGE_SIZE != (u64)t.page / PAGE_SIZE ||
	    !(msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP))
		fail("A userfault at %llx, flags %llx, the page is %p",
		     msg->arg.pagefault.address, msg->arg.pagefault.flags, t.page);
	while (!READ_ONCE(t.copied))
		usleep(10);

	pthread_mutex_lock(&t.lock);
	check_silence("before it was announced");
	t.events++;
	t.all_events++;
	if (answers) {
		if (answer_ms) {
			usleep(answer_ms * 1000);
			check_silence("before it was allowed");
		}
		uffd_protect(fd, false);
		if (protects_again) {
			uffd_protect(fd, true);
			copy_page();
		}
	}
	pthread_mutex_unlock(&t.lock);
	return 0;
}

static void uffd_wp_setup(void)
{
	answers = true;
	uffd = uffd_setup_demand_paging(UFFDIO_REGISTER_MODE_WP, 0, t.page, PAGE_SIZE, 1,
					uffd_wp_event);
}

static void uffd_late_setup(void)
{
	answer_ms = 20;
	uffd_wp_setup();
}

static void uffd_again_setup(void)
{
	protects_again = true;
	uffd_wp_setup();
}

static void uffd_wp_begin(void)
{
	uffd_protect(uffd->uffd, true);
	copy_page();
}

static bool uffd_wp_end(void)
{
	if (protects_again)
		check_silence("after it was protected again");
	return t.events;
}

static void uffd_teardown(void)
{
	uffd_stop_demand_paging(uffd);
}

/* ---- Methods ---- */

static struct witness witness;

static void fork_begin(void)
{
	witness = witness_start(t.page, PAGE_SIZE);
	copy_page();
}

static bool witness_end(void)
{
	return witness_kept(&witness);
}

static const struct method methods[] = {
	{
		.name = "wp",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.setup = uffd_wp_setup,
		.begin = uffd_wp_begin,
		.end = uffd_wp_end,
		.teardown = uffd_teardown,
	}, {
		.name = "wp_late",
		.states = SERIAL,
		.promise = ANNOUNCES,
		.setup = uffd_late_setup,
		.begin = uffd_wp_begin,
		.end = uffd_wp_end,
		.teardown = uffd_teardown,
	}, {
		.name = "wp_again",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.setup = uffd_again_setup,
		.begin = uffd_wp_begin,
		.end = uffd_wp_end,
		.teardown = uffd_teardown,
	}, {
		.name = "fork",
		.states = ALL_STATES,
		.only_written = true,
		.promise = KEEPS,
		.begin = fork_begin,
		.end = witness_end,
	},
};

/* ---- Running a case ---- */

/* Between @begin and @end: what KVM and the hardware do with the page. */
static void use_page(void)
{
	switch (t.state) {
	case IN_L2:
		release_l2();
		break;
	case PARKED:
		l1_order(0, L1_VISIT);
		break;
	default:
		wait_for_visits(2 * L2S_PER_VCPU);
		return;
	}
	l1_wait(0);
}

static void judge(bool answer, int changed)
{
	switch (t.method->promise) {
	case ANNOUNCES:
		if (changed >= 0 && !answer)
			fail("offset %#x of the page was written, and nothing announced it",
			     changed);
		if (answer && !t.kind->written)
			fail("a write was announced to a page that is only read (%lu events)",
			     t.all_events);
		break;
	case KEEPS:
		if (!answer)
			fail("a write came through to the page as it was before");
		break;
	default:
		break;
	}
}

static void run_round(void)
{
	bool answer;
	int changed;

	WRITE_ONCE(t.copied, false);
	t.events = 0;
	if (t.state == IN_L2)
		hold_l2();
	t.method->begin();
	use_page();

	pthread_mutex_lock(&t.lock);
	if (t.method->pauses)
		vcpu_pause(&t.vcpu[0]);
	changed = page_differs();
	answer = t.method->end();
	if (t.method->pauses)
		vcpu_resume(&t.vcpu[0]);
	pthread_mutex_unlock(&t.lock);

	judge(answer, changed);
	if (t.state != SWITCHING)
		check_values();
}

static void run_rounds(void)
{
	u32 i;

	if (t.method->setup)
		t.method->setup();
	if (t.state == SWITCHING)
		l1_order(0, L1_SWITCH);
	for (i = 0; i < (t.state == SWITCHING ? SWITCHING_ROUNDS : SERIAL_ROUNDS); i++)
		run_round();
	if (t.method->teardown)
		t.method->teardown();
	if (t.state == SWITCHING) {
		WRITE_ONCE(t.mail[0]->stop, true);
		l1_wait(0);
	}
}

static void run_case(void)
{
	struct nested_context_stats s;

	vm_start();
	l1_do(0, L1_VISIT);
	check_values();
	if (t.method->run)
		t.method->run();
	else
		run_rounds();
	l1_do(0, L1_VISIT);
	check_values();

	if (t.method->promise != FORBIDS && (t.mail[0]->failures || t.vcpu[0].errors))
		fail("%lu entries failed, exit code %#lx, and %lu times KVM_RUN",
		     t.mail[0]->failures, t.mail[0]->exit_code, t.vcpu[0].errors);
	s = nested_context_read_stats(t.vm);
	if (nested_context_present() && the_ratio && !s.reuse)
		fail("no context was found again");
	vm_end();
}

/* ---- All cases ---- */

/*
 * Cases that fail, and why.  There is nothing to mend in the stock kernel; of what
 * is not stock, see to it that the list gets shorter.
 */
static const struct {
	const char *cases;
	bool stock;
	const char *why;
} known[] = {
	{ "wp*.msr_map_*", false, "L1's MSR map is looked up for writing" },
};

static const char *known_reason(const char *name, bool stock)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].stock == stock && !fnmatch(known[i].cases, name, 0))
			return known[i].why;
	}
	return NULL;
}

static struct {
	const char *patterns[64];
	u32 nr_patterns;
	bool list;
	bool sample;
	bool stock;
} options;

static bool wanted(const char *name)
{
	u32 i;

	for (i = 0; i < options.nr_patterns; i++) {
		if (!fnmatch(options.patterns[i], name, 0))
			return true;
	}
	return !options.nr_patterns;
}

/* Waits for the process of a case, and says how it ended or NULL. */
static const char *reap(pid_t pid)
{
	static char how[64];
	u64 asked = 0;
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		usleep(1000);
		if (!READ_ONCE(report->kill))
			continue;
		if (!asked) {
			kill(pid, SIGKILL);
			asked = test_now_ms();
		}
		if (test_now_ms() - asked > KILL_MS)
			return "it can't be killed";
	}
	if (READ_ONCE(report->kill) && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return NULL;
	if (WIFSIGNALED(status)) {
		snprintf(how, sizeof(how), WTERMSIG(status) == SIGALRM ?
			 "it did not end within %u s" : "killed by signal %d",
			 WTERMSIG(status) == SIGALRM ? CASE_SECONDS : WTERMSIG(status));
		return how;
	}
	if (!WEXITSTATUS(status))
		return NULL;
	snprintf(how, sizeof(how), "exit status %d", WEXITSTATUS(status));
	return report->failed ? report->why : how;
}

/* Returns false if the case failed and nobody knows why it would. */
static bool report_case(u32 nr, const char *name)
{
	const char *known = known_reason(name, options.stock);
	const char *why;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	fflush(NULL);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(CASE_SECONDS);
		run_case();
		_exit(0);
	}
	why = reap(pid);

	printf("%sok %u - %s", why ? "not " : "", nr, name);
	if (known)
		printf(" # TODO %s: %s", options.stock ? "stock" : "known", known);
	printf("\n");
	if (why)
		printf("#   %s\n", why);
	if (report->note[0])
		printf("#   %s\n", report->note);
	return !why || known;
}

/* In a sample each method is seen in each state on one page, and pages take turns. */
static bool in_sample(u32 method, u32 state, u32 kind, u32 nr_kinds)
{
	return !options.sample || kind == (method + state) % nr_kinds;
}

static bool possible(const struct method *m, enum state s, const struct kind *k)
{
	return &nested_archs[k->vendor] == the_arch && m->states & BIT(s) &&
	       (k->written || !m->only_written);
}

typedef bool (*case_fn)(u32 nr, const char *name);

/* Calls for each case that is wanted; returns their number. */
static u32 for_each_case(case_fn call, bool *ok)
{
	u32 m, s, k, nr_kinds, kind, nr = 0;
	char name[96];

	for (m = 0; m < ARRAY_SIZE(methods); m++) {
		for (s = 0; s < NR_STATES; s++) {
			for (k = 0, nr_kinds = 0; k < ARRAY_SIZE(kinds); k++)
				nr_kinds += possible(&methods[m], s, &kinds[k]);
			for (k = 0, kind = 0; k < ARRAY_SIZE(kinds); k++) {
				if (!possible(&methods[m], s, &kinds[k]))
					continue;
				snprintf(name, sizeof(name), "%s.%s.%s", methods[m].name,
					 kinds[k].name, state_names[s]);
				if (!in_sample(m, s, kind++, nr_kinds) || !wanted(name))
					continue;
				nr++;
				t.arch = the_arch;
				t.method = &methods[m];
				t.kind = &kinds[k];
				t.state = s;
				if (call && !call(nr, name))
					*ok = false;
			}
		}
	}
	return nr;
}

static bool list_case(u32 nr, const char *name)
{
	printf("# %s\n", name);
	return true;
}

static void help(const char *program)
{
	printf("%s [-l] [-r PATTERN]... [--sample] [--stock] [--ratio N]\n"
	       "  -l             list the cases\n"
	       "  -r PATTERN     run those that match; * and ? stand for anything\n"
	       "  --sample       each method in each state on one page\n"
	       "  --stock        what is known to fail on a stock kernel is TODO\n"
	       "  --ratio N      contexts for each vCPU\n", program);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "sample", no_argument, NULL, 's' },
		{ "stock", no_argument, NULL, 'S' },
		{ "ratio", required_argument, NULL, 'R' },
		{ "help", no_argument, NULL, 'h' },
		{ },
	};
	u32 before = nested_context_get_ratio();
	bool ok = true;
	int c;

	while ((c = getopt_long(argc, argv, "lr:h", longs, NULL)) != -1) {
		switch (c) {
		case 'l':
			options.list = true;
			break;
		case 'r':
			TEST_ASSERT(options.nr_patterns < ARRAY_SIZE(options.patterns),
				    "At most %zu patterns", ARRAY_SIZE(options.patterns));
			options.patterns[options.nr_patterns++] = optarg;
			break;
		case 's':
			options.sample = true;
			break;
		case 'S':
			options.stock = true;
			break;
		case 'R':
			the_ratio = atoi_non_negative("Ratio", optarg);
			break;
		default:
			help(argv[0]);
			return c == 'h' ? 0 : KSFT_FAIL;
		}
	}

	the_arch = nested_arch_find();
	__TEST_REQUIRE(the_arch, "No nested virtualization for this program");
	if (options.list)
		return !for_each_case(list_case, &ok);

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(report != MAP_FAILED, "mmap");
	printf("TAP version 13\n1..%u\n", for_each_case(NULL, &ok));
	for_each_case(report_case, &ok);
	nested_context_set_ratio(before);
	return ok ? KSFT_PASS : KSFT_FAIL;
}
