// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a host's memory management learns of the pages of L1 that KVM and the
 * hardware use for a nested guest.
 *
 * Pagers, snapshots and migrations protect, watch, copy or discard pages of a VM
 * while it runs, and rely on it that each write after the system call that did so
 * is announced, and that none goes to the page as it was before.  A page that KVM
 * or the hardware reaches by an address that was looked up before is where that
 * can go wrong.  (Rules 6 and 7 of docs/rules.md.)
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
#include <fnmatch.h>
#include <getopt.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include "kselftest.h"
#include "nested_context_host.h"
#include "nested_host_memory_vm.h"
#include "userfaultfd_util.h"

static const struct kind kinds[] = {
	{ "vmcb12", ARCH_SVM, 0, true },
	{ "msr_map_0", ARCH_SVM, 1, false },
	{ "msr_map_1", ARCH_SVM, 2, false },
	{ "vmcs12", ARCH_VMX, 0, true },
	{ "msr_bitmap", ARCH_VMX, 1, false },
	{ "virtual_apic", ARCH_VMX, 2, true },
	/* Hardware knows it by its address, which no other page may share. */
	{ "apic_access", ARCH_VMX, 3, true },
	{ "posted_descriptor", ARCH_VMX, VMX_PAGES_PER_L2, true, true },
	{ "evmcs", ARCH_EVMCS, 0, true },
};

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
	/* KVM tells page aging of a page at most once a second. */
	usleep(1100000);
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

/* ---- Methods ---- */

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
	if (t.method->promise == FORBIDS) {
		tested()->taken = tested()->n;
		t.mail[0]->overdue = 0;
		l1_do(0, L1_VISIT);
	}
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
	vm_stop();
	s = nested_context_read_stats(t.vm);
	if (nested_context_present() && the_ratio && !t.method->no_contexts && !s.reuse)
		fail("no context was found again");
	vm_end();
}

/* ---- All cases ---- */

static const char *const state_names[NR_STATES] = { "in_l2", "parked", "switching" };

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
	       (k->written || !m->only_written) && (!k->page || !m->any_page) &&
	       (!k->posted || vmx_has_posted_interrupts());
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
