// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two pages of L1 are used by the processor itself while L2 runs, by addresses
 * in L2's VMCS: the virtual-APIC page and the APIC-access page.  When the host
 * takes such a page away or puts another in its place, with L2 running all the
 * while, the processor must use the page that is the guest's now from the moment
 * on at which the system call that changed it returned, and never again that
 * which was.  (Rule 6 of docs/rules.md.)
 *
 * L2 does not exit in these tests; see vmx_page_invalidation_l2.h.  In each
 * case it writes all the time while pages are taken from it.  Then it is told to
 * write a task priority once, and that must be read by MOV from CR8, in the
 * APIC-access page and by the host, whichever of the three wrote it; see
 * verify().  What is written once to a page that is no longer the guest's stays
 * lost, so no timer tick that makes L2 exit later can conceal it.
 *
 * With one CPU, host and L2 take turns, and the case is that KVM looks a page up
 * again before it enters L2.  With two they run at once, and KVM has to stop L2
 * first.  The host interrupts all the CPUs of a process when it takes a page
 * from it, so whether KVM did is seen only where the memslots change; see
 * slot_slides_no_flush.
 */
#include "kselftest_harness.h"
#include "vmx_page_invalidation_ways.h"

#define CASE_TIMEOUT	240
#define ROUNDS		6

#define FEATURES	(VMX_L2_TPR_SHADOW | VMX_L2_APIC_ACCESS)

#define PAGES_VAPIC	BIT(VAPIC)
#define PAGES_APIC	BIT(APIC)

FIXTURE(page) {
};

FIXTURE_VARIANT(page) {
	u32 pages;		/* which of them are taken from L2 */
	u32 features;
};

FIXTURE_SETUP(page)
{
}

FIXTURE_TEARDOWN(page)
{
	test_vm_free();
}

FIXTURE_VARIANT_ADD(page, virtual_apic) {
	.pages = PAGES_VAPIC,
	.features = FEATURES | VMX_L2_EPT,
};

FIXTURE_VARIANT_ADD(page, apic_access) {
	.pages = PAGES_APIC,
	.features = FEATURES | VMX_L2_EPT,
};

FIXTURE_VARIANT_ADD(page, both_without_ept) {
	.pages = PAGES_VAPIC | PAGES_APIC,
	.features = FEATURES,
};

enum { PRIVATE_MEMORY, FILE_MEMORY };

static void start(u32 features, bool file, bool zap_slot_only)
{
	const struct vm_options opt = {
		.nr_l2 = 1,
		.features = features,
		.file = file,
		.zap_slot_only = zap_slot_only,
	};

	test_vm_start(&opt);
}

/* Does @way to those pages of an L2 that are under test. */
static void take(u32 l2, u32 pages, way_fn way)
{
	u32 k;

	for (k = 0; k < NR_WHICH; k++) {
		if (pages & BIT(k))
			way(&t.region[l2][k]);
	}
}

/* Each round, another of the ways to look is the first. */
static void take_and_verify(u32 pages, way_fn way, u32 rounds)
{
	u32 i;

	for (i = 0; i < rounds; i++) {
		l2s_keep_writing();
		take(0, pages, way);
		verify_all(i);
	}
}

/* ---- The host's memory ---- */

TEST_F_TIMEOUT(page, discarded, CASE_TIMEOUT)
{
	start(variant->features, PRIVATE_MEMORY, false);
	take_and_verify(variant->pages, way_dontneed, ROUNDS);
}

TEST_F_TIMEOUT(page, mapped_over, CASE_TIMEOUT)
{
	start(variant->features, FILE_MEMORY, false);
	take_and_verify(variant->pages, way_mmap, ROUNDS);
}

TEST_F_TIMEOUT(page, moved_over, CASE_TIMEOUT)
{
	start(variant->features, FILE_MEMORY, false);
	take_and_verify(variant->pages, way_mremap, ROUNDS);
}

TEST_F_TIMEOUT(page, hole_punched, CASE_TIMEOUT)
{
	start(variant->features, FILE_MEMORY, false);
	take_and_verify(variant->pages, way_punch_hole, ROUNDS);
}

/* The page only leaves the host's page tables and comes back: nothing is lost. */
TEST_F_TIMEOUT(page, unmapped, CASE_TIMEOUT)
{
	u32 i;

	start(variant->features, FILE_MEMORY, false);
	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		take(0, variant->pages, way_dontneed);
		verify_kept(0);
		verify_all(i);
	}
}

/* ---- Memslots ---- */

TEST_F_TIMEOUT(page, slot_slides, CASE_TIMEOUT)
{
	start(variant->features, FILE_MEMORY, false);
	take_and_verify(variant->pages, way_slide, ROUNDS);
}

/*
 * KVM is told not to drop all its page tables when a memslot goes.  There are
 * none for the virtual-APIC page, which only the processor accesses, so nothing
 * makes L2 exit but KVM's taking care of that page.
 */
TEST_F_TIMEOUT(page, slot_slides_no_flush, CASE_TIMEOUT)
{
	start(variant->features, FILE_MEMORY, true);
	take_and_verify(variant->pages, way_slide, 4 * ROUNDS);
}

/* Dirty logging goes on and off: the page stays, and what is in it. */
TEST_F_TIMEOUT(page, slot_changes_flags, CASE_TIMEOUT)
{
	u32 i;

	start(variant->features, FILE_MEMORY, false);
	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		take(0, variant->pages, way_log_dirty);
		verify_kept(0);
		verify_all(i);
	}
}

static bool logged(struct region *r)
{
	u64 bitmap = 0;
	struct kvm_dirty_log log = {
		.slot = r->slot,
		.dirty_bitmap = &bitmap,
	};

	vm_ioctl(t.vm, KVM_GET_DIRTY_LOG, &log);
	return bitmap >> place(r) & 1;
}

/* Lets L2 write after @way, if any, and waits for the page to be logged. */
static void write_and_log(u32 features, u32 pages, way_fn way)
{
	struct region *r = &t.region[0][VAPIC];
	u32 i, value;
	u64 began;

	start(features, FILE_MEMORY, false);
	way_log_dirty(r);
	for (i = 0; i < ROUNDS; i++) {
		l2_do(0, L2_READ, 0);
		if (way)
			take(0, pages, way);
		logged(r);
		value = fresh_value(0, 0xf0);
		l2_do(0, L2_WRITE_CR8, value >> 4);
		for (began = test_now_ms(); !logged(r); usleep(1000))
			TEST_ASSERT(test_now_ms() - began < 2000,
				    "Task priority %#x was written and not logged", value);
		check_vtpr(0, value, "MOV to CR8");
	}
	check_retired();
}

/*
 * What the processor writes to the virtual-APIC page is logged, at the latest
 * when L2 exits next; a timer makes it, in a while.
 */
TEST_F_TIMEOUT(page, written_and_logged, CASE_TIMEOUT)
{
	write_and_log(variant->features, variant->pages, NULL);
}

TEST_F_TIMEOUT(page, mapped_over_and_logged, CASE_TIMEOUT)
{
	write_and_log(variant->features, variant->pages, way_mmap);
}

/*
 * Waits until L2, which has no page any more, has stopped, in one of the ways in
 * which KVM may say so: an error to user space, an entry into L2 that fails as L1
 * sees it, or shutdown.  Where it is the APIC-access page, L2's next access may
 * also be an access to no memory.
 */
static void wait_for_stop(u32 pages)
{
	u64 began = test_now_ms(), turns;

	while (READ_ONCE(t.stop) == STOP_NONE) {
		TEST_ASSERT(test_now_ms() - began < 2000,
			    "The slot is gone and L2 goes on as if it were not");
		usleep(200);
	}
	TEST_ASSERT(t.stop < STOP_OTHER, "Unexpected exit: %#lx", t.stop_info[0]);
	TEST_ASSERT(t.stop != STOP_MMIO || pages & PAGES_APIC,
		    "MMIO at %#lx without APIC-access page", t.stop_info[0]);
	turns = READ_ONCE(mail(0)->turns);
	usleep(5000);
	TEST_ASSERT_EQ(turns, READ_ONCE(mail(0)->turns));
}

static void say_stop(u32 round)
{
	if (!round)
		ksft_print_msg("without the slot and the page: %s, %#lx %#lx\n", stop_names[t.stop],
			       t.stop_info[0], t.stop_info[1]);
}

/* L2 is not stopped, and its turns go on. */
static void check_goes_on(void)
{
	u64 began = test_now_ms(), turns = READ_ONCE(mail(0)->turns);

	while (READ_ONCE(mail(0)->turns) < turns + 10) {
		check_running();
		TEST_ASSERT(test_now_ms() - began < 2000, "L2 hangs");
		usleep(200);
	}
}

/* The address is that of a page which L2 runs with. */
static void check_fault(u32 pages)
{
	u32 k;

	TEST_ASSERT_EQ(t.stop_info[1], PAGE_SIZE);
	for (k = 0; k < NR_WHICH; k++) {
		if (pages & BIT(k) && t.region[0][k].gpa == t.stop_info[0])
			return;
	}
	TEST_FAIL("The memory fault is at %#lx", t.stop_info[0]);
}

/*
 * L2 runs on while the slot is deleted.  It goes on with the page that it has, but
 * for accesses of its own.  Then the host takes the page: L2 can't go on, nor may
 * anything write to the page that it had, and each KVM_RUN says which page is
 * missing.  With a slot there again, L2 can.
 */
TEST_F_TIMEOUT(page, slot_deleted, CASE_TIMEOUT)
{
	u32 i;

	start(variant->features, FILE_MEMORY, false);
	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		take(0, variant->pages, slot_delete);
		if (!(variant->pages & PAGES_APIC))
			check_goes_on();
		take(0, variant->pages, way_mmap);
		wait_for_stop(variant->pages);
		check_retired();
		say_stop(i);
		if (t.stop == STOP_SHUTDOWN)
			return;
		if (t.stop == STOP_MEMORY_FAULT) {
			check_fault(variant->pages);
			vcpu_resume();
			wait_for_stop(variant->pages);
			TEST_ASSERT_EQ(t.stop, STOP_MEMORY_FAULT);
			check_fault(variant->pages);
		}
		take(0, variant->pages, slot_set);
		vcpu_resume();
		verify_all(i);
	}
}

/*
 * The slot moves away and another one in, and later the other way round.  L2 may
 * have stopped between the two moves, or not have noticed.
 */
TEST_F_TIMEOUT(page, slot_replaced, CASE_TIMEOUT)
{
	struct region other[NR_WHICH];
	u32 i, k;

	start(variant->features, FILE_MEMORY, false);
	for (k = 0; k < NR_WHICH; k++)
		region_init(&other[k], OTHER_REGION + k, true);
	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		t.may_stop = true;
		for (k = 0; k < NR_WHICH; k++) {
			if (variant->pages & BIT(k))
				slots_change_places(&t.region[0][k], &other[k]);
		}
		l2_do(0, L2_READ, 0);
		t.may_stop = false;
		verify_all(i);
	}
	for (k = 0; k < NR_WHICH; k++)
		region_free(&other[k]);
}

/*
 * ---- The kernel moves pages for its own ends; nothing may be lost ----
 *
 * To take a page out of service is a migration like that of compaction and of
 * NUMA balancing, but one that user space can ask for by address.
 */

#define MOVE_TRIES	5

/*
 * What changes when the page is moved.  One that is written to swap space stays
 * where it is if L2 wants it again before it is freed.
 */
static u64 trace_of_move(struct region *r, int advice)
{
	return advice == MADV_PAGEOUT ? proc_number("/proc/vmstat", "pswpout") :
					host_pfn(page_now(r));
}

static bool moved(struct region *r, int advice)
{
	u64 before = trace_of_move(r, advice);
	u32 i;

	for (i = 0; i < MOVE_TRIES; i++) {
		/* Or the page waits on a list of the CPU that it was mapped on. */
		write_file("/proc/sys/vm/drop_caches", "1");
		madvise(page_now(r), PAGE_SIZE, advice);
		if (trace_of_move(r, advice) != before)
			return true;
		usleep(1000);
	}
	return false;
}

/* Returns false if a page did not move. */
static bool move_and_verify(u32 pages, int advice)
{
	u32 i, k;

	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		for (k = 0; k < NR_WHICH; k++) {
			if (pages & BIT(k) && !moved(&t.region[0][k], advice))
				return false;
		}
		verify_kept(0);
		verify_all(i);
	}
	return true;
}

#define NOT_MOVED	"the host's kernel does not move the page, which is in use"

TEST_F_TIMEOUT(page, soft_offline, CASE_TIMEOUT)
{
	start(variant->features, PRIVATE_MEMORY, false);
	if (!move_and_verify(variant->pages, MADV_SOFT_OFFLINE))
		SKIP(return, NOT_MOVED);
}

TEST_F_TIMEOUT(page, paged_out, CASE_TIMEOUT)
{
	if (!has_swap())
		SKIP(return, "no swap space");
	start(variant->features, PRIVATE_MEMORY, false);
	if (!move_and_verify(variant->pages, MADV_PAGEOUT))
		SKIP(return, NOT_MOVED);
}

#define KSM	"/sys/kernel/mm/ksm/"

/*
 * The page becomes one with another process' page of the same content, and only
 * the one that L2 writes to may change then.  L2 reads meanwhile, for pages that
 * change are not merged.
 */
TEST_F_TIMEOUT(page, merged, CASE_TIMEOUT)
{
	struct region *r;
	u64 began, before;
	u32 k, want;
	u8 *twin;

	if (!write_file(KSM "sleep_millisecs", "1") || !write_file(KSM "run", "1"))
		SKIP(return, "no KSM");
	start(variant->features, PRIVATE_MEMORY, false);
	for (k = 0; k < NR_WHICH; k++) {
		if (!(variant->pages & BIT(k)))
			continue;
		r = &t.region[0][k];
		l2_do(0, L2_READ, 0);
		want = mail(0)->tpr;
		before = host_pfn(page_now(r));
		twin = map_pages(1, -1, 0);
		memcpy(twin, page_now(r), PAGE_SIZE);
		retire(twin);
		madvise(twin, PAGE_SIZE, MADV_MERGEABLE);
		madvise(page_now(r), PAGE_SIZE, MADV_MERGEABLE);
		for (began = test_now_ms(); host_pfn(page_now(r)) == before; usleep(1000)) {
			if (test_now_ms() - began < 3000)
				continue;
			write_file(KSM "run", "0");
			SKIP(return, NOT_MOVED);
		}
		l2_do(0, L2_READ, 0);
		check_vtpr(0, want, "L2, before,");
		verify_all(k);
	}
	write_file(KSM "run", "0");
}

/* ---- Two L2s ---- */

static void start_two(u32 features, bool file)
{
	const struct vm_options opt = {
		.nr_l2 = 2,
		.features = features,
		.file = file,
	};

	test_vm_start(&opt);
}

/* Those of an L2 that does not run, whose VMCS is not current. */
TEST_F_TIMEOUT(page, of_the_other_l2, CASE_TIMEOUT)
{
	static const way_fn ways[] = { way_mmap, way_slide, way_punch_hole, way_mremap };
	u64 turns;
	u32 i;

	start_two(variant->features, FILE_MEMORY);
	for (i = 0; i < ROUNDS; i++) {
		l2s_keep_writing();
		l2_turns_per_visit(0, 0);
		l2_do(0, L2_KEEP_WRITING, 0);
		turns = READ_ONCE(mail(1)->turns);
		take(1, variant->pages, ways[i % ARRAY_SIZE(ways)]);
		verify(0, i);
		TEST_ASSERT_EQ(turns, READ_ONCE(mail(1)->turns));
		l2_turns_per_visit(0, 1);
		verify_all(i);
	}
}

#define BURSTS		4
#define BURST_LENGTH	40

/* As fast as can be, of either L2, while L1 goes from one to the other. */
static void storm(u32 pages, const way_fn *ways, u32 nr_ways)
{
	u32 burst, i, n = 0;

	t.in_storm = true;
	for (i = 0; i < MAX_L2S; i++)
		l2_turns_per_visit(i, 16);
	for (burst = 0; burst < BURSTS; burst++) {
		l2s_keep_writing();
		for (i = 0; i < BURST_LENGTH; i++) {
			n = n * 1103515245 + 12345;
			take(n >> 16 & 1, pages, ways[(n >> 17) % nr_ways]);
		}
		verify_all(burst);
	}
}

TEST_F_TIMEOUT(page, storm_private, CASE_TIMEOUT)
{
	static const way_fn ways[] = { way_dontneed, way_slide, way_log_dirty };

	start_two(variant->features, PRIVATE_MEMORY);
	storm(variant->pages, ways, ARRAY_SIZE(ways));
}

TEST_F_TIMEOUT(page, storm_file, CASE_TIMEOUT)
{
	static const way_fn ways[] = {
		way_dontneed, way_mmap, way_mremap, way_punch_hole, way_slide,
	};

	start_two(variant->features, FILE_MEMORY);
	storm(variant->pages, ways, ARRAY_SIZE(ways));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_cpu_has_ept());
	TEST_REQUIRE(kvm_check_cap(KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_SLOT_ZAP_ALL);

	return test_harness_run(argc, argv);
}
