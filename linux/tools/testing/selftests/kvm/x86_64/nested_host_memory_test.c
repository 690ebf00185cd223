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
 * Each case has a process and a VM of its own, so it can hang or kill no other.
 */
#include <linux/compiler.h>
#include <fnmatch.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include <asm/barrier.h>
#include <linux/bits.h>

#include "apic.h"
#include "kselftest.h"
#include "nested_context_arch.h"
#include "evmcs.h"
#include "hyperv.h"
#include "nested_context_common.h"
#include "nested_context_host.h"
#include "userfaultfd_util.h"

#define NR_VCPUS	2
#define X86_EFLAGS_IF	BIT(9)

#define MEM_SLOT	10
#define MEM_GPA		0x10000000ull
#define FILL_GPA	0x12000000ull
#define FILL_SLOT	11

/* ---- Guest ---- */

/* Hyper-V as L1 has eVMCSs instead of VMCSs; the other pages are the same. */
enum guest_arch { ARCH_SVM, ARCH_VMX, ARCH_EVMCS, NR_ARCHS };

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

static const struct msr_read msr_reads[NR_ARCHS][MAX_MSRS] = {
	[ARCH_SVM] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x800 + 0x102 / 4, BIT(0x102 % 4 * 2) },
		{ MSR_AMD64_NB_CFG, 2, 0x1f / 4, BIT(0x1f % 4 * 2) },
	},
	[ARCH_VMX] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x400 + 0x102 / 8, BIT(0x102 % 8) },
	},
	[ARCH_EVMCS] = {
		{ MSR_KERNEL_GS_BASE, 1, 0x400 + 0x102 / 8, BIT(0x102 % 8) },
	},
};

struct l2_mail {
	u64 hold;		/* set by the host: L2 stays where it is */
	u64 turns;		/* of L2, meanwhile */
	u64 n;			/* visits that L2 has made */
	u64 msr_exits;		/* in the last visit, a bit for each of msr_reads */
};

enum l1_op { L1_VISIT, L1_SWITCH, L1_FILL };

static struct l1_mail {
	/* Set by the host, @seq last. */
	u64 op;
	u64 first, nr;		/* of the pages to fill */
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

static u64 guest_arch;

/* For an L1 with eVMCSs. */
static struct hyperv_test_pages *l1_hv;
static u64 l1_hypercall_gpa;

static bool evmcs_supported(void)
{
	return nested_archs[NESTED_VMX].supported() &&
	       kvm_has_cap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS);
}

static void evmcs_l1_init(void *scratch, u64 scratch_gpa)
{
	wrmsr(HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	wrmsr(HV_X64_MSR_HYPERCALL, l1_hypercall_gpa);
	enable_vp_assist(l1_hv->vp_assist_gpa, l1_hv->vp_assist);
	evmcs_enable();
	l1_enable_vmx(scratch, scratch_gpa);
}

/* L1 does not write to the eVMCS here: it is KVM's writes that are looked for. */
static void evmcs_load(struct nested_l2 *l2)
{
	evmcs_vmptrld(l2->vmx.vmcs, (void *)l2->vmx.vmcs);
}

static void evmcs_make(struct nested_l2 *l2, u64 gpa, void *rip, u64 rsp)
{
	vmx_l2_place(&l2->vmx, gpa);
	memset((void *)gpa, 0, PAGE_SIZE);
	evmcs_load(l2);
	current_evmcs->revision_id = EVMCS_VERSION;
	vmx_l2_fill_vmcs(&l2->vmx, rip, rsp, VMX_L2_EPT | VMX_L2_MSR_BITMAP |
					     VMX_L2_TPR_SHADOW | VMX_L2_APIC_ACCESS);
}

static const struct nested_arch evmcs_arch = {
	.name		= "evmcs",
	.supported	= evmcs_supported,
	.pages_per_l2	= VMX_PAGES_PER_L2,
	.private_page	= 4,
	.l1_init	= evmcs_l1_init,
	.make		= evmcs_make,
	.load		= evmcs_load,
	.enter		= vmx_enter,
	.skip		= vmx_skip,
	.exit_code	= vmx_exit_code,
};

static const struct nested_arch *const archs[NR_ARCHS] = {
	[ARCH_SVM] = &nested_archs[NESTED_SVM],
	[ARCH_VMX] = &nested_archs[NESTED_VMX],
	[ARCH_EVMCS] = &evmcs_arch,
};

static u64 l2_pages(u32 cpu, u32 l2)
{
	return MEM_GPA + (cpu * L2S_PER_VCPU + l2) *
			 archs[guest_arch]->pages_per_l2 * PAGE_SIZE;
}

static u64 l2_private(u32 cpu, u32 l2)
{
	return l2_pages(cpu, l2) + archs[guest_arch]->private_page * PAGE_SIZE;
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
	if (guest_arch == ARCH_SVM)
		asm volatile("xchg %%rsp, %0\n\tvmmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
	else
		asm volatile("xchg %%rsp, %0\n\tvmcall\n\txchg %%rsp, %0"
			     : "+r"(token) : : "memory");
}

/* The task priority is written by MOV to CR8 first, and to the APIC page then. */
static void l2_main(struct l2_mail *m, u64 private, u32 *tpr)
{
	const struct msr_read *r = msr_reads[guest_arch];
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
	if (guest_arch != ARCH_SVM) {
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
	const struct msr_read *r = msr_reads[guest_arch];
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

/* Writes to pages one by one; with an exit each, so that KVM logs them one by one. */
static void l1_fill(u64 first, u64 nr)
{
	for (; nr--; first++) {
		(*(u64 *)(FILL_GPA + first * PAGE_SIZE))++;
		l1_relax();
	}
}

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	const struct nested_arch *arch = archs[guest_arch];
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
		switch (m->op) {
		case L1_VISIT:
			l1_visit_all(arch, m);
			l1_visit_all(arch, m);
			break;
		case L1_SWITCH:
			while (!READ_ONCE(m->stop))
				l1_visit_all(arch, m);
			break;
		default:
			l1_fill(m->first, m->nr);
			break;
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
	enum guest_arch arch;
	u32 page;
	bool written;		/* by KVM or by the hardware; else only read */
} kinds[] = {
	{ "vmcb12", ARCH_SVM, 0, true },
	{ "msr_map_0", ARCH_SVM, 1, false },
	{ "msr_map_1", ARCH_SVM, 2, false },
	{ "vmcs12", ARCH_VMX, 0, true },
	{ "msr_bitmap", ARCH_VMX, 1, false },
	{ "virtual_apic", ARCH_VMX, 2, true },
	{ "apic_access", ARCH_VMX, 3, false },
	{ "evmcs", ARCH_EVMCS, 0, true },
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
	sync_global_to_guest(t.vm, guest_arch);

	if (t.method->ring)
		vm_enable_dirty_ring(t.vm, ring_entries() * sizeof(struct kvm_dirty_gfn));

	t.size = NR_VCPUS * L2S_PER_VCPU * archs[guest_arch]->pages_per_l2 * PAGE_SIZE;
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

static void vm_end(void)
{
	u32 i;

	for (i = 0; i < t.nr_vcpus; i++) {
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
	if (guest_arch != ARCH_SVM) {
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

/* ---- A round ---- */

/* The host does its thing, and KVM and the hardware are let at the page. */
static void start_round(void)
{
	if (t.state == IN_L2)
		hold_l2();
	WRITE_ONCE(t.copied, false);
	t.events = 0;
	t.method->begin();
	if (t.state == IN_L2)
		release_l2();
	else if (t.state == PARKED)
		l1_order(0, L1_VISIT);
}

/* Until L2 has done its visits, or for some time if it can't. */
static void let_run(void)
{
	if (t.method->promise == FORBIDS && (t.kind->written || t.state == SWITCHING))
		usleep(FORBID_US);
	else if (t.state == SWITCHING)
		wait_for_visits(2 * L2S_PER_VCPU);
	else
		l1_wait(0);
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

/* Nobody answers for a while: the vCPU waits, others don't, and nothing is lost. */
static void run_never(void)
{
	uffd_wp_setup();
	answers = false;
	start_round();
	if (!t.kind->written) {
		l1_wait(0);
		uffd_teardown();
		return;
	}
	wait_for(READ_ONCE(t.events) || l1_is_done(0), "L2 hangs without an event");
	usleep(300000);
	check_silence(t.events ? "before it was allowed" : "and nothing announced it");
	if (l1_is_done(0))
		fail("L2 went on without an answer");
	if (t.nr_vcpus > 1) {
		vcpu_resume(&t.vcpu[1]);
		l1_do(1, L1_VISIT);
		vcpu_pause(&t.vcpu[1]);
	}
	uffd_teardown();
	l1_wait(0);
	check_values();
}

/* The process ends while its vCPU waits for an answer. */
static void run_killed(void)
{
	uffd_wp_setup();
	answers = false;
	start_round();
	wait_for(READ_ONCE(t.events) || l1_is_done(0), "L2 hangs without an event");
	check_silence(t.events ? "before it was allowed" : "and nothing announced it");
	WRITE_ONCE(report->kill, true);
	pause();
}

/* ---- userfaultfd, missing pages ---- */

static int uffd_missing_event(int mode, int fd, struct uffd_msg *msg)
{
	struct uffdio_copy copy = {
		.dst = (u64)t.page, .src = (u64)t.copy, .len = PAGE_SIZE,
	};

	t.all_events++;
	t.events++;
	if (ioctl(fd, UFFDIO_COPY, &copy) && errno != EEXIST)
		fail("UFFDIO_COPY: errno %d", errno);
	return 0;
}

static void uffd_missing_setup(void)
{
	uffd = uffd_setup_demand_paging(UFFDIO_REGISTER_MODE_MISSING, 0, t.page, PAGE_SIZE,
					1, uffd_missing_event);
}

static void missing_begin(void)
{
	copy_page();
	flip_msr_bits(t.copy);
	TEST_ASSERT(!madvise(t.page, PAGE_SIZE, MADV_DONTNEED), "MADV_DONTNEED");
}

static bool missing_end(void)
{
	if (!t.events)
		fail("nobody asked for the missing page");
	return true;
}

/* ---- userfaultfd, asynchronous write protection; and PAGEMAP_SCAN ---- */

static int async_fd;

/* Returns whether the page was written since it was protected. */
static bool pagemap_scan(u64 flags)
{
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = flags | PM_SCAN_CHECK_WPASYNC,
		.start = (u64)t.page,
		.end = (u64)t.page + PAGE_SIZE,
		.vec = (u64)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY);
	int found;

	TEST_ASSERT(fd >= 0, "open pagemap");
	found = ioctl(fd, PAGEMAP_SCAN, &arg);
	if (found < 0)
		fail("PAGEMAP_SCAN: errno %d", errno);
	close(fd);
	return found;
}

static void async_setup(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC,
	};
	struct uffdio_register reg = {
		.range = { .start = (u64)t.page, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	async_fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	TEST_ASSERT(async_fd >= 0, "userfaultfd: errno %d", errno);
	TEST_ASSERT(!ioctl(async_fd, UFFDIO_API, &api), "UFFDIO_API: errno %d", errno);
	TEST_ASSERT(!ioctl(async_fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER: errno %d",
		    errno);
}

static void async_begin(void)
{
	pagemap_scan(PM_SCAN_WP_MATCHING);
	copy_page();
}

static bool async_end(void)
{
	return pagemap_scan(0);
}

static void async_teardown(void)
{
	close(async_fd);
}

/* ---- Other ways to watch, to forbid, to discard ---- */

static void soft_dirty_begin(void)
{
	TEST_ASSERT(write_file("/proc/self/clear_refs", "4"), "clear_refs");
	copy_page();
}

static bool soft_dirty_end(void)
{
	return pagemap_entry(t.page) & PAGEMAP_SOFT_DIRTY;
}

static void mprotect_begin(void)
{
	TEST_ASSERT(!mprotect(t.page, PAGE_SIZE, PROT_READ), "mprotect");
	copy_page();
}

static bool mprotect_end(void)
{
	TEST_ASSERT(!mprotect(t.page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
	return true;
}

/* What was in it comes back, but for bits whose change L2 must notice. */
static void dontneed_begin(void)
{
	missing_begin();
	memcpy(t.page, t.copy, PAGE_SIZE);
}

static bool dontneed_end(void)
{
	return true;
}

/* How much of the page's mapping is seen to be in use, in kB. */
static u64 referenced(void)
{
	u64 start, end, kb = 0;
	bool here = false;
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "r");

	TEST_ASSERT(f, "open smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start == (u64)t.page;
		else if (here && sscanf(line, "Referenced: %lu", &kb) == 1)
			break;
	}
	fclose(f);
	return kb;
}

/* The flag gives the page a mapping of its own. */
static void cold_setup(void)
{
	TEST_ASSERT(!madvise(t.page, PAGE_SIZE, MADV_DONTDUMP), "MADV_DONTDUMP");
}

static void cold_begin(void)
{
	TEST_ASSERT(!madvise(t.page, PAGE_SIZE, MADV_COLD), "MADV_COLD");
	if (referenced())
		fail("the page is still in use after MADV_COLD");
}

static bool cold_end(void)
{
	return referenced();
}

/* ---- KVM's dirty log and dirty rings ---- */

static bool log_page(void)
{
	u64 bitmap[BITS_TO_LONGS(MAX_MEM_PAGES)] = {};

	kvm_vm_get_dirty_log(t.vm, MEM_SLOT, bitmap);
	return bitmap[0] >> t.kind->page & 1;
}

static void log_setup(void)
{
	vm_set_user_memory_region(t.vm, MEM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, MEM_GPA, t.size,
				  t.mem);
}

static void log_begin(void)
{
	log_page();
	copy_page();
}

static void ring_begin(void)
{
	ring_collect(&t.vcpu[0]);
	memset(t.dirty, 0, sizeof(t.dirty));
	copy_page();
}

static bool ring_end(void)
{
	ring_collect(&t.vcpu[0]);
	return t.dirty[t.kind->page];
}

static void l1_fill_pages(u64 first, u64 nr)
{
	t.mail[0]->first = first;
	t.mail[0]->nr = nr;
	l1_do(0, L1_FILL);
}

/* Empties the ring; all pages are protected anew. */
static void ring_empty(void)
{
	vcpu_pause(&t.vcpu[0]);
	ring_collect(&t.vcpu[0]);
	memset(t.dirty, 0, sizeof(t.dirty));
	vcpu_resume(&t.vcpu[0]);
}

/* How many entries a ring has when KVM says that it is full. */
static u32 ring_limit(void)
{
	u64 full = t.vcpu[0].full[FULL_IN_L1];
	u32 used = 0, i;

	ring_empty();
	for (i = 0; i < ring_entries(); i++) {
		used = ring_used(&t.vcpu[0]);
		l1_fill_pages(i, 1);
		if (t.vcpu[0].full[FULL_IN_L1] != full)
			return used + 1;
	}
	fail("the ring of %u entries does not get full, with %u used", ring_entries(), used);
}

#define RING_SWEEP	48

/*
 * The ring gets full at each of the writes that a visit makes, one after the
 * other.  Whatever was written is in the ring, wherever the vCPU had to stop.
 */
static void run_ring_full(void)
{
	u32 i, page, used, limit;
	u64 *full = t.vcpu[0].full;
	u8 *copy = malloc(t.size);

	add_memory(FILL_SLOT, FILL_GPA, FILL_PAGES * PAGE_SIZE);
	limit = ring_limit();
	memset(full, 0, sizeof(t.vcpu[0].full));
	for (i = 1; i <= RING_SWEEP; i++) {
		ring_empty();
		l1_fill_pages(0, limit - RING_SWEEP);
		used = ring_used(&t.vcpu[0]);
		if (used < limit - i)
			l1_fill_pages(limit, limit - i - used);
		memcpy(copy, t.mem, t.size);
		l1_do(0, L1_VISIT);
		vcpu_pause(&t.vcpu[0]);
		ring_collect(&t.vcpu[0]);
		for (page = 0; page < t.size / PAGE_SIZE; page++) {
			if (memcmp(copy + page * PAGE_SIZE, t.mem + page * PAGE_SIZE, PAGE_SIZE) &&
			    !t.dirty[page])
				fail("page %u was written, and is not in the ring (sweep %u)",
				     page, i);
		}
		vcpu_resume(&t.vcpu[0]);
		check_values();
	}
	snprintf(report->note, sizeof(report->note),
		 "the ring was full %lu times before L2's first instruction, %lu in L2, %lu in L1",
		 full[FULL_AT_ENTRY], full[FULL_IN_L2], full[FULL_IN_L1]);
	free(copy);
}

/* ---- Methods ---- */

static struct witness witness;

static void fork_begin(void)
{
	witness = witness_start(t.page, PAGE_SIZE);
	copy_page();
}

static bool fork_end(void)
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
		.name = "wp_never",
		.states = SERIAL,
		.promise = ANNOUNCES,
		.begin = uffd_wp_begin,
		.run = run_never,
	}, {
		.name = "wp_killed",
		.states = SERIAL,
		.only_written = true,
		.promise = ANNOUNCES,
		.begin = uffd_wp_begin,
		.run = run_killed,
	}, {
		.name = "missing",
		.states = SERIAL,
		.promise = RENEWS,
		.setup = uffd_missing_setup,
		.begin = missing_begin,
		.end = missing_end,
		.teardown = uffd_teardown,
	}, {
		.name = "wp_async",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.setup = async_setup,
		.begin = async_begin,
		.end = async_end,
		.teardown = async_teardown,
	}, {
		.name = "soft_dirty",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.begin = soft_dirty_begin,
		.end = soft_dirty_end,
	}, {
		.name = "fork",
		.states = ALL_STATES,
		.only_written = true,
		.promise = KEEPS,
		.begin = fork_begin,
		.end = fork_end,
	}, {
		.name = "mprotect",
		.states = ALL_STATES,
		.promise = FORBIDS,
		.begin = mprotect_begin,
		.end = mprotect_end,
	}, {
		.name = "dontneed",
		.states = SERIAL,
		.promise = RENEWS,
		.begin = dontneed_begin,
		.end = dontneed_end,
	}, {
		.name = "cold",
		.states = BIT(PARKED),
		.promise = AGES,
		.setup = cold_setup,
		.begin = cold_begin,
		.end = cold_end,
	}, {
		.name = "dirty_log",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.pauses = true,
		.setup = log_setup,
		.begin = log_begin,
		.end = log_page,
	}, {
		.name = "dirty_ring",
		.states = ALL_STATES,
		.promise = ANNOUNCES,
		.pauses = true,
		.ring = true,
		.begin = ring_begin,
		.end = ring_end,
	}, {
		.name = "ring_full",
		.states = BIT(SWITCHING),
		.promise = ANNOUNCES,
		.ring = true,
		.any_page = true,
		.run = run_ring_full,
	}, {
		.name = "ring_full_no_contexts",
		.states = BIT(SWITCHING),
		.promise = ANNOUNCES,
		.ring = true,
		.no_contexts = true,
		.any_page = true,
		.run = run_ring_full,
	},
};

/* ---- Running a case ---- */

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
	case FORBIDS:
		if (changed >= 0)
			fail("offset %#x of the page was written, which is read-only", changed);
		if (!t.kind->written && (t.mail[0]->failures || t.vcpu[0].errors))
			fail("L2 can't run without a page to write to that is only read");
		break;
	case RENEWS:
		break;
	case AGES:
		if (!answer)
			fail("the page is not seen to be in use");
		break;
	}
}

static void run_round(void)
{
	bool answer, looks = t.method->promise != RENEWS && t.method->promise != AGES;
	int changed = -1;

	start_round();
	let_run();

	pthread_mutex_lock(&t.lock);
	if (t.method->pauses)
		vcpu_pause(&t.vcpu[0]);
	if (looks)
		changed = page_differs();
	answer = t.method->end();
	if (t.method->pauses)
		vcpu_resume(&t.vcpu[0]);
	pthread_mutex_unlock(&t.lock);

	judge(answer, changed);
	if (t.state == SWITCHING)
		return;
	/* What could not be written may be lost, but not that which comes next. */
	l1_wait(0);
	if (t.method->promise == FORBIDS)
		l1_do(0, L1_VISIT);
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
	if (nested_context_present() && the_ratio && !t.method->no_contexts && !s.reuse)
		fail("no context was found again");
	vm_end();
}

/* ---- All cases ---- */

static struct {
	const char *patterns[64];
	u32 nr_patterns;
	bool list;
	bool sample;
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

static bool run_and_report(u32 nr, const char *name)
{
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

	if (why)
		ksft_print_msg("%s\n", why);
	if (report->note[0])
		ksft_print_msg("%s\n", report->note);
	printf("%sok %u - %s\n", why ? "not " : "", nr, name);
	return !why;
}

/* In a sample each method is seen in each state on one page, and pages take turns. */
static bool in_sample(u32 method, u32 state, u32 kind, u32 nr_kinds)
{
	return !options.sample || kind == (method + state) % nr_kinds;
}

static bool possible(const struct method *m, enum state s, const struct kind *k)
{
	return archs[k->arch]->supported() && m->states & BIT(s) &&
	       (k->written || !m->only_written) && (!k->page || !m->any_page);
}

typedef bool (*case_fn)(u32 nr, const char *name);

/* Calls for each case that is wanted; returns their number. */
static u32 all_cases(case_fn call, bool *ok)
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
				t.method = &methods[m];
				t.kind = &kinds[k];
				guest_arch = t.kind->arch;
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
	printf("%s [-l] [-r PATTERN]... [--sample] [--ratio N]\n"
	       "  -l             list the cases\n"
	       "  -r PATTERN     run those that match; * and ? stand for anything\n"
	       "  --sample       each method in each state on one page\n"
	       "  --ratio N      contexts for each vCPU\n", program);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "sample", no_argument, NULL, 's' },
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
		case 'R':
			the_ratio = atoi_non_negative("Ratio", optarg);
			break;
		default:
			help(argv[0]);
			return c == 'h' ? 0 : KSFT_FAIL;
		}
	}

	__TEST_REQUIRE(nested_arch_find(), "No nested virtualization for this program");
	if (options.list)
		return !all_cases(list_case, &ok);

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(report != MAP_FAILED, "mmap");
	printf("TAP version 13\n1..%u\n", all_cases(NULL, &ok));
	all_cases(run_and_report, &ok);
	nested_context_set_ratio(before);
	return ok ? KSFT_PASS : KSFT_FAIL;
}
