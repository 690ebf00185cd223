/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Posted interrupts for L2: the host's side of the tests.  A VM whose vCPUs run in
 * threads, ways to post, checks, and a runner of cases.
 *
 * Each case runs in a process of its own, so a VM that hangs takes only its case
 * with it.
 */
#ifndef SELFTEST_KVM_NESTED_POSTED_INTERRUPT_VM_H
#define SELFTEST_KVM_NESTED_POSTED_INTERRUPT_VM_H

#include <fnmatch.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "kselftest.h"
#include "nested_context_common.h"
#include "nested_posted_interrupt_l1.h"

#define WORK_SLOT	10
#define WORK_GPA	0x10000000ull
#define REGION_SLOT	20
#define REGION_GPA	0x14000000ull
#define REGION_DISTANCE	0x01000000ull

#define FILE_PAGES	8
#define CASE_SECONDS	60
#define WAIT_MS		2000	/* then an interrupt is lost */
#define SETTLE_US	3000	/* for one that would come twice */
#define IRQFD_GSI	24

/* Exits to user space that a VMM might go on after. */
#define MAX_STOPS	2000

/* ---- Cases ---- */

struct pi_case {
	char name[64];
	void (*run)(const struct pi_case *c);
	u32 arg[4];
	bool sample;		/* one of those that stand for all */
};

#define MAX_CASES	512

static struct pi_case cases[MAX_CASES];
static u32 nr_cases;

static struct pi_case *add_case(void (*run)(const struct pi_case *), const char *fmt, ...)
	__printf(2, 3);

static struct pi_case *add_case(void (*run)(const struct pi_case *), const char *fmt, ...)
{
	struct pi_case *c = &cases[nr_cases++];
	va_list args;

	TEST_ASSERT(nr_cases <= MAX_CASES, "Too many cases");
	va_start(args, fmt);
	vsnprintf(c->name, sizeof(c->name), fmt, args);
	va_end(args);
	c->run = run;
	return c;
}

/* How a case's process ends, and why, in memory that it shares with the program. */
enum { CASE_PASSES = 0, CASE_FAILS = 1, CASE_SKIPS = 4 };

static char *verdict;
#define VERDICT_SIZE	512

static void end_case(int how, const char *fmt, ...)
	__printf(2, 3) __noreturn;

static void end_case(int how, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(verdict, VERDICT_SIZE, fmt, args);
	va_end(args);
	_exit(how);
}

#define FAIL(...)	end_case(CASE_FAILS, __VA_ARGS__)
#define SKIP_CASE(...)	end_case(CASE_SKIPS, __VA_ARGS__)
#define CHECK(cond, ...)				\
	do {						\
		if (!(cond))				\
			FAIL(__VA_ARGS__);		\
	} while (0)

/* ---- Memory ---- */

/* The pages that L0 finds for an L2 by an address in its VMCS, and the VMCS. */
enum l2_page { PI_DESC, VAPIC, APIC_ACCESS, VMCS, MSR_MAP, NR_WHICH };

static const char * const which_names[] = {
	"pi_desc", "virtual_apic", "apic_access", "vmcs12", "msr_bitmap",
};

/* One such page of the first L2, alone in a memory slot. */
struct region {
	enum l2_page which;
	u64 gpa;
	u8 *hva;
	u8 *view;		/* the file once more, NULL if the memory is private */
	int fd;
	u32 page;		/* of the file */
};

struct vm_options {
	u32 nr_l2;
	u32 desc_offset[MAX_L2S];
	bool desc_together;	/* all descriptors in the first L2's page */
	bool own_nv;
	bool x2apic;
	bool cr8_exits;
	bool l1_syncs;
	bool private_memory;
	bool few_contexts;	/* one for each vCPU, where there are nested contexts */
};

static struct {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[NR_VCPUS];
	pthread_t thread[NR_VCPUS];
	pid_t tid[NR_VCPUS];
	int stats[NR_VCPUS];
	u32 nr_l2;
	struct region region[NR_WHICH];
	struct l2 *l2;			/* the guest's, as the host has them */
	struct l1_cpu *cpu;
	struct vmx_pi_desc *desc[MAX_L2S];
	int irqfd[MAX_L2S];
	u32 irqfd_to[MAX_L2S];		/* vCPU + 1 that it is routed to */
	bool hold;			/* vCPUs stay out of KVM_RUN */
	u32 held;
	u32 stops;
	char stop[128];			/* the first of them */
} t;

static void *map_pages(u32 nr, int fd)
{
	void *p = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	TEST_ASSERT(p != MAP_FAILED, "mmap");
	madvise(p, nr * PAGE_SIZE, MADV_NOHUGEPAGE);
	return p;
}

static void region_set_slot(struct region *r, bool there)
{
	vm_set_user_memory_region(t.vm, REGION_SLOT + r->which, 0, r->gpa,
				  there ? PAGE_SIZE : 0, r->hva);
}

static void region_init(struct region *r, enum l2_page which, bool private_memory)
{
	r->which = which;
	r->gpa = REGION_GPA + which * REGION_DISTANCE;
	r->page = 0;
	r->fd = -1;
	r->view = NULL;
	if (!private_memory) {
		r->fd = kvm_memfd_alloc(FILE_PAGES * PAGE_SIZE, false);
		r->view = map_pages(FILE_PAGES, r->fd);
	}
	r->hva = map_pages(1, r->fd);
	memset(r->hva, 0, PAGE_SIZE);
	region_set_slot(r, true);
	virt_map(t.vm, r->gpa, r->gpa, 1);
}

/* Where the page can be reached even if it is not mapped for the guest. */
static u8 *region_page(struct region *r)
{
	return r->view ? r->view + r->page * PAGE_SIZE : r->hva;
}

/* ---- vCPU threads ---- */

static void note_stop(u32 id, int ret)
{
	struct kvm_run *run = t.vcpu[id]->run;
	struct ucall uc;

	if (!ret && run->exit_reason == KVM_EXIT_IO &&
	    get_ucall(t.vcpu[id], &uc) == UCALL_ABORT)
		FAIL("L1 can't go on: line %lu, %s", uc.args[GUEST_LINE], uc.buffer);
	if (!t.stops++)
		snprintf(t.stop, sizeof(t.stop), "vCPU %u: KVM_RUN ended with %s, %s",
			 id, ret ? strerror(errno) : "0",
			 exit_reason_str(run->exit_reason));
	CHECK(t.stops < MAX_STOPS, "%s, and so on for ever", t.stop);
	usleep(1000);
}

/* Like a patient VMM, tries to go on whatever KVM_RUN returns. */
static void *vcpu_thread(void *arg)
{
	u32 id = (u64)arg;
	struct kvm_run *run = t.vcpu[id]->run;
	int ret;

	WRITE_ONCE(t.tid[id], syscall(SYS_gettid));
	for (;;) {
		ret = __vcpu_run(t.vcpu[id]);
		if (READ_ONCE(t.hold)) {
			__sync_fetch_and_add(&t.held, 1);
			while (READ_ONCE(t.hold))
				usleep(500);
			__sync_fetch_and_sub(&t.held, 1);
		} else if (ret && errno == EINTR) {
			continue;
		} else if (!ret && run->exit_reason == KVM_EXIT_IO &&
			   run->io.port == YIELD_PORT) {
			sched_yield();
		} else {
			note_stop(id, ret);
		}
	}
	return NULL;
}

static void ignore_signal(int sig)
{
}

/* CPU time that a vCPU's thread has used, in microseconds. */
static u64 vcpu_time_us(u32 id)
{
	struct timespec ts;
	clockid_t clock;

	TEST_ASSERT(!pthread_getcpuclockid(t.thread[id], &clock) &&
		    !clock_gettime(clock, &ts), "The clock of a thread");
	return ts.tv_sec * 1000000ull + ts.tv_nsec / 1000;
}

static u64 vcpu_stat(u32 id, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs, *desc;
	u64 value = ~0ull;
	int fd = t.stats[id];
	u32 i;

	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc; i++) {
		desc = get_stats_descriptor(descs, i, &header);
		if (!strcmp(desc->name, name))
			read_stat_data(fd, &header, desc, &value, 1);
	}
	free(descs);
	TEST_ASSERT(value != ~0ull, "No statistic %s", name);
	return value;
}

static bool vcpu_sleeps(u32 id)
{
	char name[64], state = '?';
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", READ_ONCE(t.tid[id]));
	f = fopen(name, "r");
	TEST_ASSERT(f && fscanf(f, "%*d %*s %c", &state) == 1, "read %s", name);
	fclose(f);
	return state == 'S';
}

#define WAIT_FOR(cond, ...)						\
	do {								\
		u64 __began = test_now_ms();				\
									\
		while (!(cond)) {					\
			CHECK(test_now_ms() - __began < WAIT_MS, __VA_ARGS__); \
			usleep(200);					\
		}							\
	} while (0)

/* ---- Interrupts for L1 ---- */

static void send_msi(u32 to, u32 vector)
{
	struct kvm_msi msi = {
		.address_lo = APIC_DEFAULT_GPA | to << 12,
		.data = vector,
	};

	TEST_ASSERT(__vm_ioctl(t.vm, KVM_SIGNAL_MSI, &msi) >= 0, "KVM_SIGNAL_MSI");
}

/* One line for each L2, as a device has them that is the L2's own. */
static void irqfds_init(void)
{
	struct kvm_irqfd irqfd = {};
	u32 i;

	for (i = 0; i < t.nr_l2; i++) {
		t.irqfd[i] = eventfd(0, 0);
		irqfd.fd = t.irqfd[i];
		irqfd.gsi = IRQFD_GSI + i;
		vm_ioctl(t.vm, KVM_IRQFD, &irqfd);
	}
}

/* Interrupts follow an L2 to the vCPU that it runs on. */
static void irqfds_route(void)
{
	struct kvm_irq_routing_entry *e;
	struct kvm_irq_routing *routing;
	bool moved = false;
	u32 i;

	for (i = 0; i < t.nr_l2; i++) {
		moved |= t.irqfd_to[i] != t.l2[i].where + 1;
		t.irqfd_to[i] = t.l2[i].where + 1;
	}
	if (!moved)
		return;

	routing = kvm_gsi_routing_create();
	for (i = 0; i < t.nr_l2; i++) {
		e = &routing->entries[routing->nr++];
		*e = (struct kvm_irq_routing_entry) {
			.gsi = IRQFD_GSI + i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi.address_lo = APIC_DEFAULT_GPA | (t.irqfd_to[i] - 1) << 12,
			.u.msi.data = t.l2[i].nv,
		};
	}
	kvm_gsi_routing_write(t.vm, routing);
}

/* ---- Orders for L1 ---- */

static void order(u32 id, enum l1_order what)
{
	struct l1_cpu *cpu = &t.cpu[id];

	cpu->order = what;
	WRITE_ONCE(cpu->seq, cpu->seq + 1);
	send_msi(id, KICK_VECTOR);
}

static void wait_for_order(u32 id)
{
	WAIT_FOR(READ_ONCE(t.cpu[id].done) == t.cpu[id].seq,
		 "vCPU %u has not taken an order", id);
}

/* From now on that vCPU runs those L2s in turns, and keeps some launched. */
static void run_l2s(u32 id, u32 run, u32 keep)
{
	t.cpu[id].run = run;
	t.cpu[id].keep = keep;
	order(id, ORDER_RUN);
	wait_for_order(id);
}

static void wait_for_turns(u32 nr, u64 turns)
{
	struct l2 *l2 = &t.l2[nr];
	u64 until = l2->turns + turns;

	WAIT_FOR(READ_ONCE(l2->turns) >= until, "L2 %u does not run", nr);
}

/* The L2 that runs on @id halts, with nothing to wake it. */
static void wait_for_halt(u32 id, u32 nr)
{
	WRITE_ONCE(t.l2[nr].halts, true);
	WAIT_FOR(READ_ONCE(t.l2[nr].asleep) && vcpu_sleeps(id),
		 "L2 %u does not halt", nr);
}

static void set_tpr(u32 nr, u32 tpr)
{
	WRITE_ONCE(t.l2[nr].tpr, tpr);
	WAIT_FOR(READ_ONCE(t.l2[nr].seen_tpr) == tpr,
		 "L2 %u does not set its task priority", nr);
}

/* ---- Posting ---- */

enum poster { BY_IPI, BY_MSI, BY_IRQFD, NR_POSTERS };

static const char * const poster_names[] = { "ipi", "msi", "irqfd" };

/* Sends what says that the descriptor has something new. */
static void notify(enum poster by, u32 nr)
{
	u64 one = 1;

	if (by == BY_IRQFD) {
		irqfds_route();
		TEST_ASSERT(write(t.irqfd[nr], &one, 8) == 8, "write to eventfd");
	} else {
		send_msi(READ_ONCE(t.l2[nr].where), t.l2[nr].nv);
	}
}

/* Only the vector; returns whether a notification has to follow. */
static bool set_vector(u32 nr, u32 vector)
{
	WRITE_ONCE(t.l2[nr].posted[vector], t.l2[nr].posted[vector] + 1);
	return vmx_pi_post(t.desc[nr], vector);
}

static void post(enum poster by, u32 nr, u32 vector)
{
	struct l1_cpu *sender = &t.cpu[SENDER];

	if (by == BY_IPI) {
		sender->l2 = nr;
		sender->vector = vector;
		order(SENDER, ORDER_POST);
		wait_for_order(SENDER);
	} else if (set_vector(nr, vector)) {
		notify(by, nr);
	}
}

/* ---- Checks ---- */

static u32 total(u32 *counts)
{
	u32 i, sum = 0;

	for (i = 0; i < 256; i++)
		sum += READ_ONCE(counts[i]);
	return sum;
}

static void say_missing(u32 nr, const char *when)
{
	struct vmx_pi_desc *d = t.desc[nr];
	struct l2 *l2 = &t.l2[nr];
	u32 i;

	for (i = 0; i < 256; i++) {
		if (l2->taken[i] < l2->posted[i])
			FAIL("%s: L2 %u lost vector %#x: posted %u, taken %u, in PIR %u, ON %u",
			     when, nr, i, l2->posted[i], l2->taken[i],
			     (u32)(d->pir[i / 64] >> i % 64 & 1),
			     (u32)(d->control & VMX_PI_ON));
	}
}

static void wait_for_taken(u32 nr, const char *when)
{
	u64 began = test_now_ms();

	while (total(t.l2[nr].taken) < total(t.l2[nr].posted)) {
		if (test_now_ms() - began > WAIT_MS)
			say_missing(nr, when);
		usleep(200);
	}
}

/* All that was posted comes, and once. */
static void check_taken(const char *when)
{
	struct l2 *l2;
	u32 nr, i;

	for (nr = 0; nr < t.nr_l2; nr++)
		wait_for_taken(nr, when);
	usleep(SETTLE_US);
	for (nr = 0; nr < t.nr_l2; nr++) {
		l2 = &t.l2[nr];
		for (i = 0; i < 256; i++)
			CHECK(l2->taken[i] == l2->posted[i],
			      "%s: vector %#x of L2 %u: posted %u, taken %u", when, i,
			      nr, l2->posted[i], l2->taken[i]);
		CHECK(!l2->early, "%s: L2 %u took a masked interrupt", when, nr);
	}
	for (nr = 0; nr < NR_VCPUS; nr++) {
		for (i = 0; i < FIRST_NV; i++)
			CHECK(!t.cpu[nr].taken[i], "%s: vCPU %u of L1 took vector %#x",
			      when, nr, i);
	}
}

/* Nothing of what was posted comes, for it is masked or L2 does not run. */
static void check_not_taken(u32 nr, u32 taken, const char *when)
{
	usleep(SETTLE_US);
	CHECK(total(t.l2[nr].taken) == taken, "%s: L2 %u took an interrupt", when, nr);
}

/* A VMM would have stopped the VM. */
static void check_stops(void)
{
	CHECK(!t.stops, "%s; %u times", t.stop, t.stops);
}

/*
 * While nothing happens to L2, its vCPU exits no more often than L0's clock ticks.
 * If L2 does not run, for it halts or a page of its is missing, the vCPU sleeps.
 */
#define QUIET_MS	20

static void check_quiet(u32 id, u32 nr, const char *when)
{
	u64 time = vcpu_time_us(id), exits = vcpu_stat(id, "exits");
	u64 turns = READ_ONCE(t.l2[nr].turns);

	usleep(QUIET_MS * 1000);
	time = vcpu_time_us(id) - time;
	exits = vcpu_stat(id, "exits") - exits;
	CHECK(READ_ONCE(t.l2[nr].turns) != turns || time < QUIET_MS * 1000 / 4,
	      "%s: L2 %u did nothing, and its vCPU ran for %lu us of %u ms", when, nr,
	      time, QUIET_MS);
	CHECK(exits < 20 * QUIET_MS, "%s: %lu exits in %u ms", when, exits, QUIET_MS);
}

/* ---- The VM ---- */

#define WORK_PAGES_PER_L2	(NR_WHICH + VMX_L2_EPT_PAGES + 1)
#define WORK_PAGES		(NR_RUNNERS + MAX_L2S * WORK_PAGES_PER_L2)

/* Where there are two CPUs, L2 runs on one, and who posts on the other. */
static void pin_threads(void)
{
	cpu_set_t first, second;
	u32 i;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return;
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	CPU_ZERO(&second);
	CPU_SET(1, &second);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(first), &first), "sched_setaffinity");
	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(!pthread_setaffinity_np(t.thread[i], sizeof(first),
						    i ? &first : &second),
			    "pthread_setaffinity_np");
}

static void l2_init(u32 nr, const struct vm_options *opt, u64 work)
{
	struct l2 *l2 = &t.l2[nr];
	u64 desc = nr ? work + PI_DESC * PAGE_SIZE : t.region[PI_DESC].gpa;

	if (opt->desc_together)
		desc = t.region[PI_DESC].gpa;
	l2->desc = desc + opt->desc_offset[nr];
	t.desc[nr] = desc == t.region[PI_DESC].gpa ?
		     (void *)region_page(&t.region[PI_DESC]) : addr_gpa2hva(t.vm, desc);
	t.desc[nr] = (void *)t.desc[nr] + opt->desc_offset[nr];

	l2->vapic = nr ? work + VAPIC * PAGE_SIZE : t.region[VAPIC].gpa;
	l2->apic_access = nr ? work + APIC_ACCESS * PAGE_SIZE : t.region[APIC_ACCESS].gpa;
	l2->vmcs = nr ? work + VMCS * PAGE_SIZE : t.region[VMCS].gpa;
	l2->msr_bitmap = nr ? work + MSR_MAP * PAGE_SIZE : t.region[MSR_MAP].gpa;
	l2->ept = work + NR_WHICH * PAGE_SIZE;
	l2->stack = l2->ept + VMX_L2_EPT_PAGES * PAGE_SIZE;
	l2->nv = FIRST_NV + (opt->own_nv ? nr : 0);
	l2->x2apic = opt->x2apic;
	l2->cr8_exits = opt->cr8_exits;
	l2->l1_syncs = opt->l1_syncs;
}

static void vm_start(const struct vm_options *opt)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	u32 i, ratio = nested_context_get_ratio();
	u64 work = WORK_GPA;

	memset(&t, 0, sizeof(t));
	t.nr_l2 = opt->nr_l2;
	if (opt->few_contexts)
		nested_context_set_ratio(1);
	t.vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, NR_VCPUS, 256, l1_main, t.vcpu);
	nested_context_set_ratio(ratio);
	t.l2 = addr_gva2hva(t.vm, (vm_vaddr_t)l2s);
	t.cpu = addr_gva2hva(t.vm, (vm_vaddr_t)l1_cpus);

	vm_userspace_mem_region_add(t.vm, VM_MEM_SRC_ANONYMOUS, WORK_GPA, WORK_SLOT,
				    WORK_PAGES, 0);
	virt_map(t.vm, WORK_GPA, WORK_GPA, WORK_PAGES);
	for (i = 0; i < NR_WHICH; i++)
		region_init(&t.region[i], i, opt->private_memory);
	for (i = 0; i < NR_RUNNERS; i++, work += PAGE_SIZE)
		t.cpu[i].vmxon = work;
	for (i = 0; i < opt->nr_l2; i++, work += WORK_PAGES_PER_L2 * PAGE_SIZE)
		l2_init(i, opt, work);
	for (i = FIRST_VECTOR; i < 256; i++)
		vm_install_exception_handler(t.vm, i, guest_interrupt);
	irqfds_init();

	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < NR_VCPUS; i++) {
		t.cpu[i].id = i;
		t.stats[i] = vcpu_get_stats_fd(t.vcpu[i]);
		vcpu_args_set(t.vcpu[i], 2, &l1_cpus[i], i ? 0 : opt->nr_l2);
		TEST_ASSERT(!pthread_create(&t.thread[i], NULL, vcpu_thread,
					    (void *)(u64)i), "pthread_create");
	}
	pin_threads();
	/* The first vCPU has made the L2s when it takes its first order. */
	for (i = 0; i < NR_VCPUS; i++)
		run_l2s(i, 0, 0);
}

/* ---- Running cases ---- */

static void run_case(const struct pi_case *c)
{
	alarm(CASE_SECONDS);
	c->run(c);
	check_stops();
	_exit(CASE_PASSES);
}

/* Returns whether it failed. */
static bool report_case(const struct pi_case *c, u32 number, bool times)
{
	u64 began = test_now_ms();
	int status;
	pid_t pid;

	fflush(stdout);
	verdict[0] = 0;
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid)
		run_case(c);
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid");

	if (times)
		printf("#   %lu ms\n", test_now_ms() - began);
	if (WIFSIGNALED(status))
		snprintf(verdict, VERDICT_SIZE, "%s",
			 WTERMSIG(status) == SIGALRM ? "it hangs" :
						       strsignal(WTERMSIG(status)));
	if (WIFEXITED(status) && WEXITSTATUS(status) == CASE_SKIPS) {
		printf("ok %u - %s # SKIP %s\n", number, c->name, verdict);
		return false;
	}
	status = !WIFEXITED(status) || WEXITSTATUS(status);
	if (status)
		printf("#   %s\n", verdict[0] ? verdict : "the test itself failed, see above");
	printf("%sok %u - %s\n", status ? "not " : "", number, c->name);
	return status;
}

static void print_usage(const char *name)
{
	fprintf(stderr, "usage: %s [-l] [-t] [--sample] [-r PATTERN]...\n"
		"  -l         list the cases\n"
		"  -t         say how long each took\n"
		"  --sample   only those that stand for the others\n"
		"  -r         only those of this name, * and ? as in file names\n", name);
	exit(2);
}

/* All cases, or those that the command line names.  Returns the exit code. */
static int run_cases(int argc, char **argv)
{
	static const struct option options[] = {
		{ "sample", no_argument, NULL, 's' }, {},
	};
	u32 i, k, nr_patterns = 0, nr = 0, failed = 0;
	bool list = false, sample = false, times = false;
	const char *patterns[MAX_CASES];
	int c;

	while ((c = getopt_long(argc, argv, "ltr:", options, NULL)) != -1) {
		if (c == 'l')
			list = true;
		else if (c == 't')
			times = true;
		else if (c == 's')
			sample = true;
		else if (c == 'r' && nr_patterns < MAX_CASES)
			patterns[nr_patterns++] = optarg;
		else
			print_usage(argv[0]);
	}
	if (optind < argc)
		print_usage(argv[0]);

	for (i = k = 0; i < nr_cases; i++) {
		bool wanted = nr_patterns ? false : !sample || cases[i].sample;
		u32 p;

		for (p = 0; p < nr_patterns; p++)
			wanted |= !fnmatch(patterns[p], cases[i].name, 0);
		if (wanted)
			cases[k++] = cases[i];
	}
	nr_cases = k;
	if (list) {
		for (i = 0; i < nr_cases; i++)
			printf("%s\n", cases[i].name);
		return 0;
	}
	printf("TAP version 13\n");
	if (!vmx_has_posted_interrupts()) {
		printf("1..0 # SKIP KVM offers no posted interrupts for L2 here\n");
		return 0;
	}
	if (!nr_cases) {
		printf("1..0 # SKIP there is no such case\n");
		return 2;
	}
	verdict = mmap(NULL, VERDICT_SIZE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(verdict != MAP_FAILED, "mmap");
	printf("1..%u\n", nr_cases);
	while (nr < nr_cases) {
		failed += report_case(&cases[nr], nr + 1, times);
		nr++;
	}
	return failed ? 1 : 0;
}

#endif /* SELFTEST_KVM_NESTED_POSTED_INTERRUPT_VM_H */
