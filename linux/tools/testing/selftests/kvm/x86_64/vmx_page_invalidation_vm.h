/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's side of vmx_page_invalidation_test: a VM whose vCPU runs L2 in a
 * thread of its own, memory slots whose pages can be exchanged meanwhile, and
 * the check that the processor uses those pages that are there now.
 */
#ifndef SELFTEST_KVM_VMX_PAGE_INVALIDATION_VM_H
#define SELFTEST_KVM_VMX_PAGE_INVALIDATION_VM_H

#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>

#include "nested_context_common.h"
#include "vmx_page_invalidation_l2.h"

#define WORK_SLOT	10
#define WORK_GPA	0x10000000ull
#define FIRST_SLOT	20
#define FIRST_GPA	0x14000000ull
#define SLOT_DISTANCE	0x01000000ull
#define OTHER_REGION	8	/* regions from this number on are no L2's */

/* Where the page under test may be in its slot; a slot slides by whole pages. */
#define SLOT_PAGES	3
#define FILE_PAGES	16
#define MAX_RETIRED	32

#define WAIT_SECONDS	20

enum which { VAPIC, APIC, NR_WHICH };

/* A memory slot with one page under test, which stays at @gpa. */
struct region {
	u32 slot;
	u32 flags;
	u64 gpa;
	u64 base;		/* the slot's address */
	u8 *hva;
	u32 page[SLOT_PAGES];	/* of the file, at each place in the slot */
	u8 fill[FILE_PAGES];	/* what each page of the file is full of */
	u8 *view;		/* the whole file, mapped for the test to look at */
	int fd;			/* -1: private anonymous memory, no view */
	u32 next;		/* page of the file to use next */
};

/* A page that is no longer the guest's, and what was in it then. */
struct retired {
	u8 *page;
	u8 copy[PAGE_SIZE];
};

enum stop_kind {
	STOP_NONE,
	STOP_INTERNAL_ERROR,	/* KVM gave up on entering L2 */
	STOP_MEMORY_FAULT,	/* no memory for a page that L2 runs with */
	STOP_SHUTDOWN,
	STOP_MMIO,		/* L2 found no memory where the page was */
	STOP_VMFAIL,		/* L1 saw that, or an exit that it did not order */
	STOP_EXIT,
	STOP_OTHER,
};

static const char * const stop_names[] = {
	"runs", "KVM_EXIT_INTERNAL_ERROR", "KVM_EXIT_MEMORY_FAULT",
	"KVM_EXIT_SHUTDOWN", "KVM_EXIT_MMIO",
	"VMfail in L1", "exit to L1", "unexpected exit",
};

struct vm_options {
	u32 nr_l2;
	u32 features;
	bool file;		/* memory of a file that the test maps twice */
	bool zap_slot_only;	/* KVM_X86_QUIRK_SLOT_ZAP_ALL is off */
};

static struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u32 nr_l2;
	void *work;
	struct region region[MAX_L2S][NR_WHICH];
	struct retired retired[MAX_RETIRED];
	u32 nr_retired;
	u32 value;
	u64 seq;
	bool may_stop;		/* without a page L2 may have stopped; it goes on */
	bool in_storm;		/* pages come and go unobserved */

	pthread_t thread;
	sem_t resume;
	enum stop_kind stop;
	u64 stop_info[2];
	bool quit;
} t;

static struct l2_mail *mail(u32 l2)
{
	return addr_gva2hva(t.vm, (vm_vaddr_t)&l2_mails[l2]);
}

/* ---- Memory ---- */

static void *map_pages(u32 nr, int fd, u32 page)
{
	void *p = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd,
		       fd < 0 ? 0 : page * PAGE_SIZE);

	TEST_ASSERT(p != MAP_FAILED, "mmap");
	madvise(p, nr * PAGE_SIZE, MADV_NOHUGEPAGE);
	return p;
}

static void slot_set(struct region *r)
{
	vm_set_user_memory_region(t.vm, r->slot, r->flags, r->base,
				  SLOT_PAGES * PAGE_SIZE, r->hva);
}

static void slot_delete(struct region *r)
{
	vm_set_user_memory_region(t.vm, r->slot, 0, r->base, 0, r->hva);
}

static u32 place(struct region *r)
{
	return (r->gpa - r->base) / PAGE_SIZE;
}

/* The page that is the guest's now, and what it is full of. */
static u8 *page_now(struct region *r)
{
	return r->hva + place(r) * PAGE_SIZE;
}

static u8 *fill_now(struct region *r)
{
	return &r->fill[r->page[place(r)]];
}

/* The processor reads and writes it at any time. */
static u32 read_vtpr(u8 *page)
{
	return READ_ONCE(*(u32 *)(page + APIC_TASKPRI));
}

static void write_vtpr(u8 *page, u32 value)
{
	WRITE_ONCE(*(u32 *)(page + APIC_TASKPRI), value);
}

/* The same page where the test's other mapping of the file has it. */
static u8 *page_view(struct region *r)
{
	return r->view ? r->view + r->page[place(r)] * PAGE_SIZE : page_now(r);
}

static void region_init(struct region *r, u32 nr, bool file)
{
	u32 i;

	r->slot = FIRST_SLOT + nr;
	r->flags = 0;
	r->base = FIRST_GPA + nr * SLOT_DISTANCE;
	r->gpa = r->base + PAGE_SIZE;
	r->fd = -1;
	r->view = NULL;
	if (file) {
		r->fd = kvm_memfd_alloc(FILE_PAGES * PAGE_SIZE, false);
		r->view = map_pages(FILE_PAGES, r->fd, 0);
	}
	r->hva = map_pages(SLOT_PAGES, r->fd, 0);
	for (i = 0; i < FILE_PAGES; i++)
		r->fill[i] = 16 + 24 * nr + i;
	for (i = 0; i < SLOT_PAGES; i++) {
		r->page[i] = i;
		memset(r->hva + i * PAGE_SIZE, r->fill[i], PAGE_SIZE);
	}
	r->next = SLOT_PAGES;
	slot_set(r);
	virt_map(t.vm, r->gpa, r->gpa, 1);
}

static void region_free(struct region *r)
{
	munmap(r->hva, SLOT_PAGES * PAGE_SIZE);
	if (r->fd < 0)
		return;
	munmap(r->view, FILE_PAGES * PAGE_SIZE);
	close(r->fd);
}

/* From here on nobody may write to @page, which the guest had. */
static void retire(u8 *page)
{
	struct retired *old = &t.retired[t.nr_retired];

	if (t.in_storm)
		return;
	t.nr_retired++;
	TEST_ASSERT(t.nr_retired <= MAX_RETIRED, "Too many pages");
	old->page = page;
	memcpy(old->copy, page, PAGE_SIZE);
}

static void check_retired(void)
{
	u32 i, k;

	for (i = 0; i < t.nr_retired; i++) {
		for (k = 0; k < PAGE_SIZE; k++)
			TEST_ASSERT(t.retired[i].page[k] == t.retired[i].copy[k],
				    "Offset %#x of a page that is no longer the guest's was written: %#x, was %#x",
				    k, t.retired[i].page[k], t.retired[i].copy[k]);
	}
	t.nr_retired = 0;
}

/* ---- The vCPU's thread ---- */

static enum stop_kind vcpu_classify(int ret)
{
	struct kvm_run *run = t.vcpu->run;
	struct ucall uc;

	if (ret && errno == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
		t.stop_info[0] = run->memory_fault.gpa;
		t.stop_info[1] = run->memory_fault.size;
		return STOP_MEMORY_FAULT;
	}
	if (ret) {
		t.stop_info[0] = errno;
		return STOP_OTHER;
	}
	t.stop_info[0] = run->exit_reason;
	switch (run->exit_reason) {
	case KVM_EXIT_INTERNAL_ERROR:
		t.stop_info[0] = run->internal.suberror;
		return STOP_INTERNAL_ERROR;
	case KVM_EXIT_SHUTDOWN:
		return STOP_SHUTDOWN;
	case KVM_EXIT_MMIO:
		t.stop_info[0] = run->mmio.phys_addr;
		return STOP_MMIO;
	case KVM_EXIT_IO:
		break;
	default:
		return STOP_OTHER;
	}

	switch (get_ucall(t.vcpu, &uc)) {
	case UCALL_SYNC:
		t.stop_info[0] = uc.args[2];
		t.stop_info[1] = uc.args[3];
		return uc.args[1] == L1_SAW_VMFAIL ? STOP_VMFAIL : STOP_EXIT;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	}
	return STOP_OTHER;
}

static void ignore_signal(int sig)
{
}

static void *vcpu_thread(void *unused)
{
	int ret;

	for (;;) {
		ret = __vcpu_run(t.vcpu);
		if (READ_ONCE(t.quit))
			return NULL;
		t.stop_info[1] = 0;
		if (ret && errno == EINTR)
			continue;
		WRITE_ONCE(t.stop, vcpu_classify(ret));
		while (sem_wait(&t.resume))
			;
		if (READ_ONCE(t.quit))
			return NULL;
	}
}

static void vcpu_resume(void)
{
	WRITE_ONCE(t.stop, STOP_NONE);
	sem_post(&t.resume);
}

static void check_running(void)
{
	if (READ_ONCE(t.stop) == STOP_NONE)
		return;
	if (t.may_stop && t.stop < STOP_OTHER && t.stop != STOP_SHUTDOWN) {
		vcpu_resume();
		return;
	}
	TEST_FAIL("L2 does not run any more: %s, %#lx %#lx", stop_names[t.stop],
		  t.stop_info[0], t.stop_info[1]);
}

/* ---- Orders for L2 ---- */

static void l2_post(u32 l2, enum l2_op op, u32 value)
{
	struct l2_mail *m = mail(l2);

	WRITE_ONCE(m->op, op);
	WRITE_ONCE(m->value, value);
	WRITE_ONCE(m->seq, ++t.seq);
}

static void l2_wait(u32 l2)
{
	struct l2_mail *m = mail(l2);
	u64 start = test_now_ms();

	while (READ_ONCE(m->done) != m->seq) {
		check_running();
		TEST_ASSERT(test_now_ms() - start < WAIT_SECONDS * 1000,
			    "L2 %u has not carried out an order for %u s, at turn %lu",
			    l2, WAIT_SECONDS, m->turns);
		usleep(50);
	}
}

static void l2_do(u32 l2, enum l2_op op, u32 value)
{
	l2_post(l2, op, value);
	l2_wait(l2);
}

/* Lets the L2s write all the time, as when pages are taken from them. */
static void l2s_keep_writing(void)
{
	u32 i;

	for (i = 0; i < t.nr_l2; i++)
		l2_do(i, L2_KEEP_WRITING, 0);
}

static void l2_turns_per_visit(u32 l2, u64 turns)
{
	WRITE_ONCE(mail(l2)->turns_per_visit, turns);
}

/* ---- Checks ---- */

/* Byte for byte what it is full of, but for the task priority if it has one. */
static void check_page(u8 *page, u8 fill, bool vapic, const char *what)
{
	u32 i;

	for (i = 0; i < PAGE_SIZE; i++) {
		if (vapic && i / 4 == APIC_TASKPRI / 4)
			continue;
		TEST_ASSERT(page[i] == fill, "Offset %#x of the %s page is %#x, not %#x",
			    i, what, page[i], fill);
	}
}

static void check_vtpr(u32 l2, u32 want, const char *way)
{
	struct region *r = &t.region[l2][VAPIC];
	struct l2_mail *m = mail(l2);

	TEST_ASSERT(m->cr8 == (want >> 4 & 0xf),
		    "%s wrote task priority %#x, L2 reads %#lx in CR8", way, want, m->cr8);
	TEST_ASSERT(m->tpr == want,
		    "%s wrote task priority %#x, L2 reads %#lx in the APIC-access page",
		    way, want, m->tpr);
	TEST_ASSERT(read_vtpr(page_now(r)) == want && read_vtpr(page_view(r)) == want,
		    "%s wrote task priority %#x, the virtual-APIC page holds %#x",
		    way, want, read_vtpr(page_now(r)));
}

/* A task priority that differs from what is in L2's page. */
static u32 fresh_value(u32 l2, u32 mask)
{
	u32 value, old = read_vtpr(page_now(&t.region[l2][VAPIC]));

	do
		value = (t.value += 0x35) & mask;
	while (!(value & 0xf0) || (value & 0xf0) == (old & 0xf0));
	return value;
}

/*
 * Writes by each of the three ways in turn, once each, and reads by all three.
 * @first is the way to begin with: where the processor has not noticed that a
 * page was exchanged, it is the first one that shows it.
 */
static void verify(u32 l2, u32 first)
{
	struct region *vapic = &t.region[l2][VAPIC], *apic = &t.region[l2][APIC];
	u32 i, value;

	for (i = 0; i < 3; i++) {
		switch ((first + i) % 3) {
		case 0:
			value = fresh_value(l2, 0xf0);
			l2_do(l2, L2_WRITE_CR8, value >> 4);
			check_vtpr(l2, value, "MOV to CR8");
			break;
		case 1:
			value = fresh_value(l2, 0xff);
			l2_do(l2, L2_WRITE_TPR, value);
			check_vtpr(l2, value, "The APIC-access page");
			break;
		default:
			/* L2 must have stopped writing first. */
			if (!i)
				l2_do(l2, L2_READ, 0);
			value = fresh_value(l2, 0xff);
			write_vtpr(page_now(vapic), value);
			l2_do(l2, L2_READ, 0);
			check_vtpr(l2, value, "The host");
			break;
		}
	}
	check_page(page_now(vapic), *fill_now(vapic), true, "virtual-APIC");
	check_page(page_now(apic), *fill_now(apic), false, "APIC-access");
}

static void verify_all(u32 first)
{
	u32 i;

	for (i = 0; i < t.nr_l2; i++)
		verify(i, first);
	check_retired();
}

/* What L2 wrote last is still there, after a change that must not lose it. */
static void verify_kept(u32 l2)
{
	l2_do(l2, L2_READ, 0);
	check_vtpr(l2, mail(l2)->last, "L2, before,");
}

/* ---- The VM ---- */

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
	TEST_ASSERT(!pthread_setaffinity_np(t.thread, sizeof(set), &set),
		    "pthread_setaffinity_np");
}

static void test_vm_start(const struct vm_options *opt)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	size_t work = sizeof(struct l1_work);
	struct l1_plan *plan;
	u32 i, k;

	memset(&t, 0, sizeof(t));
	t.nr_l2 = opt->nr_l2;
	t.vm = __vm_create_with_one_vcpu(&t.vcpu, 256, l1_main);
	if (opt->zap_slot_only)
		vm_enable_cap(t.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_SLOT_ZAP_ALL);

	t.work = map_pages(work / PAGE_SIZE, -1, 0);
	vm_set_user_memory_region(t.vm, WORK_SLOT, 0, WORK_GPA, work, t.work);
	virt_map(t.vm, WORK_GPA, WORK_GPA, work / PAGE_SIZE);
	vcpu_args_set(t.vcpu, 1, WORK_GPA);

	plan = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_plan);
	plan->nr_l2 = opt->nr_l2;
	plan->features = opt->features;
	for (i = 0; i < opt->nr_l2; i++) {
		for (k = 0; k < NR_WHICH; k++)
			region_init(&t.region[i][k], i * NR_WHICH + k, opt->file);
		plan->vapic[i] = t.region[i][VAPIC].gpa;
		plan->apic_access[i] = t.region[i][APIC].gpa;
		write_vtpr(page_now(&t.region[i][VAPIC]), 0);
		mail(i)->turns_per_visit = opt->nr_l2 > 1;
	}

	sigaction(SIGUSR1, &action, NULL);
	sem_init(&t.resume, 0, 0);
	TEST_ASSERT(!pthread_create(&t.thread, NULL, vcpu_thread, NULL), "pthread_create");
	pin_threads();
	verify_all(0);
}

static void test_vm_free(void)
{
	u32 i, k;

	if (!t.vm)
		return;
	WRITE_ONCE(t.quit, true);
	t.vcpu->run->immediate_exit = 1;
	sem_post(&t.resume);
	pthread_kill(t.thread, SIGUSR1);
	pthread_join(t.thread, NULL);
	kvm_vm_free(t.vm);
	for (i = 0; i < t.nr_l2; i++) {
		for (k = 0; k < NR_WHICH; k++)
			region_free(&t.region[i][k]);
	}
	munmap(t.work, sizeof(struct l1_work));
	t.vm = NULL;
}

#endif /* SELFTEST_KVM_VMX_PAGE_INVALIDATION_VM_H */
