// SPDX-License-Identifier: GPL-2.0-only
/*
 * Posted interrupts for L2, while the host does something to the pages that they
 * take: the descriptor, the virtual-APIC page, and what else an L2's VMCS refers
 * to, and the VMCS.  Each vector comes all the same, once, and KVM_RUN returns for
 * none of that, for the pages are there again soon.  (Rule 11 of docs/rules.md.)
 *
 * Some of what the host does takes a while: a slot is deleted and added again, a
 * page is write protected by userfaultfd, or inaccessible.  A vector that is posted
 * meanwhile comes at the latest when that is over.  The vCPU does not spin until
 * then: it either sleeps, or runs L2.
 *
 * The host works while L2 spins, while it halts, while it has vectors pending that
 * it masks, and while another L2 is loaded.
 */
#include <linux/falloc.h>

#include "nested_context_host.h"
#include "nested_posted_interrupt_vm.h"

/* Of the kernel's interface, but not in every C library's header. */
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define WINDOW_MS	20
#define ANSWER_US	5000	/* of who write protects */
#define MOVE_TRIES	5

/* ---- What the host does ---- */

/* The page changes, and what is in it does not; nobody writes to it meanwhile. */
static void region_page_is(struct region *r, u32 page)
{
	r->page = page;
	if (r->which == PI_DESC)
		t.desc[0] = (void *)region_page(r);
}

static u32 region_copy(struct region *r)
{
	u32 page = (r->page + 1) % FILE_PAGES;

	memcpy(r->view + page * PAGE_SIZE, region_page(r), PAGE_SIZE);
	return page;
}

/* Another page is mapped in its place. */
static void map_over(struct region *r)
{
	u32 page = region_copy(r);
	void *p = mmap(r->hva, PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, r->fd, page * PAGE_SIZE);

	TEST_ASSERT(p == r->hva, "mmap");
	region_page_is(r, page);
}

/* A mapping of another page moves there. */
static void move_over(struct region *r)
{
	u32 page = region_copy(r);
	void *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		       page * PAGE_SIZE);

	TEST_ASSERT(p != MAP_FAILED, "mmap");
	(void)READ_ONCE(*(u8 *)p);
	p = mremap(p, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, r->hva);
	TEST_ASSERT(p == r->hva, "mremap");
	region_page_is(r, page);
}

/* The page leaves the file, and the next one there is filled again. */
static void punch(struct region *r)
{
	u8 copy[PAGE_SIZE];

	memcpy(copy, region_page(r), PAGE_SIZE);
	TEST_ASSERT(!fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       r->page * PAGE_SIZE, PAGE_SIZE), "fallocate");
	memcpy(region_page(r), copy, PAGE_SIZE);
}

/*
 * The stock kernel pins some pages, and they stay; then there is nothing to see.
 * Those that nested contexts keep can be moved.
 */
static void move_page(struct region *r, int advice)
{
	u64 out = proc_number("/proc/vmstat", "pswpout"), pfn = host_pfn(r->hva);
	u32 i;

	for (i = 0; i < MOVE_TRIES; i++) {
		/* Or the page waits on a list of the CPU that it was mapped on. */
		write_file("/proc/sys/vm/drop_caches", "1");
		madvise(r->hva, PAGE_SIZE, advice);
		if (advice == MADV_PAGEOUT ? proc_number("/proc/vmstat", "pswpout") > out :
					     host_pfn(r->hva) != pfn)
			return;
		usleep(1000);
	}
	CHECK(!nested_context_present(), "the page can't be moved, though nobody pins it");
	SKIP_CASE("the host's kernel does not move the page, which is in use");
}

/* To swap space, where pages of zeroes do not go; this is no part in use. */
static void page_out(struct region *r)
{
	(*(u64 *)(r->hva + PAGE_SIZE - 8))++;
	if (!has_swap())
		SKIP_CASE("no swap space");
	move_page(r, MADV_PAGEOUT);
}

/* As compaction and NUMA balancing do. */
static void migrate(struct region *r)
{
	move_page(r, MADV_SOFT_OFFLINE);
}

static int uffd;

static void write_protect(struct region *r, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (u64)r->hva, .len = PAGE_SIZE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), "UFFDIO_WRITEPROTECT");
}

static void *answer_writes(void *region)
{
	struct uffd_msg msg;

	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		usleep(ANSWER_US);
		write_protect(region, false);
	}
	return NULL;
}

static void watch_writes(struct region *r)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register reg = {
		.range = { .start = (u64)r->hva, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	TEST_ASSERT(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) &&
		    !ioctl(uffd, UFFDIO_REGISTER, &reg), "userfaultfd");
	TEST_ASSERT(!pthread_create(&thread, NULL, answer_writes, r), "pthread_create");
}

static void protect(struct region *r)
{
	if (!uffd)
		watch_writes(r);
	write_protect(r, true);
}

static void unprotect(struct region *r)
{
	write_protect(r, false);
}

static void delete_slot(struct region *r)
{
	region_set_slot(r, false);
}

static void add_slot(struct region *r)
{
	region_set_slot(r, true);
}

static void forbid(struct region *r)
{
	TEST_ASSERT(!mprotect(r->hva, PAGE_SIZE, PROT_NONE), "mprotect");
}

static void allow(struct region *r)
{
	TEST_ASSERT(!mprotect(r->hva, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
}

static const struct way {
	const char *name;
	void (*begin)(struct region *r);
	void (*end)(struct region *r);	/* if it takes a while */
	bool private_memory;
	bool absent;		/* meanwhile L2 can't touch the page */
} ways[] = {
	{ .name = "mapped_over", .begin = map_over },
	{ .name = "moved_over", .begin = move_over },
	{ .name = "hole_punched", .begin = punch },
	{ .name = "swapped", .begin = page_out, .private_memory = true },
	{ .name = "migrated", .begin = migrate, .private_memory = true },
	{ .name = "write_protected", .begin = protect, .end = unprotect },
	{ .name = "slot_readded", .begin = delete_slot, .end = add_slot, .absent = true },
	{ .name = "slot_at_once", .begin = delete_slot, .end = add_slot, .absent = true },
	{ .name = "inaccessible", .begin = forbid, .end = allow, .absent = true },
};

enum { AT_ONCE = 7 };

/* ---- What L2 does, and when the host works ---- */

enum { SPINS, HALTS, MASKS, PARKED, CR8_EXITS, NR_STATES };

static const char * const state_names[] = {
	"spins", "halts", "masks", "parked", "cr8_exits",
};

static const struct way *the_way;
static struct region *the_region;
static u32 the_state;

static void end_window(const char *when)
{
	if (!the_way->end)
		return;
	if (the_way != &ways[AT_ONCE]) {
		if (the_state == PARKED)
			usleep(WINDOW_MS * 1000);
		else
			check_quiet(0, 0, when);
	}
	the_way->end(the_region);
}

static void settle(void)
{
	if (the_state == HALTS)
		wait_for_halt(0, 0);
	else if (the_state == SPINS)
		wait_for_turns(0, 2);
}

/* Nothing is under way. */
static void work_before(enum poster by)
{
	settle();
	the_way->begin(the_region);
	end_window("nothing posted");
	settle();
	post(by, 0, 0x45);
	check_taken("posted afterwards");
	settle();
	post(by, 0, 0xe3);
	post(by, 0, 0x31);
	check_taken("more posted afterwards");
}

/* L2 runs while the host is at it, and halts later. */
static void work_before_halt(void)
{
	the_state = SPINS;
	settle();
	the_way->begin(the_region);
	end_window("nothing posted, halts later");
	the_state = HALTS;
	settle();
	post(BY_MSI, 0, 0x22);
	check_taken("posted after L2 halted");
}

/* The vector is in the descriptor and nobody has been told. */
static void work_before_notification(void)
{
	bool notification;

	settle();
	notification = set_vector(0, 0x9f);
	the_way->begin(the_region);
	end_window("not yet notified");
	if (notification)
		notify(BY_MSI, 0);
	check_taken("notified afterwards");
}

/* It is posted while the host is at it. */
static void work_meanwhile(void)
{
	/* L2 accesses this one when it has taken the vector. */
	if (!the_way->end || (the_region->which == APIC_ACCESS && the_way->absent))
		return;
	settle();
	the_way->begin(the_region);
	post(BY_MSI, 0, 0x46);
	end_window("posted meanwhile");
	check_taken("posted meanwhile");
	settle();
	post(BY_MSI, 0, 0x80);
	check_taken("posted after what was posted meanwhile");
}

/* What was posted a moment ago, KVM and the processor may be writing now. */
static void work_at_once(void)
{
	if (!the_way->private_memory && !the_way->end)
		return;
	if (the_region->which == APIC_ACCESS && the_way->absent)
		return;
	settle();
	post(BY_MSI, 0, 0x21);
	the_way->begin(the_region);
	end_window("just posted");
	check_taken("just posted");
}

/* Vectors wait in the virtual-APIC page, then L2 exits once, and wants them. */
static void work_on_masked(void)
{
	set_tpr(0, 0xf0);
	post(BY_MSI, 0, 0x45);
	post(BY_IPI, 0, 0x31);
	check_not_taken(0, total(t.l2[0].taken), "masked");
	the_way->begin(the_region);
	end_window("masked");
	post(BY_MSI, 0, 0xe3);
	post(BY_IPI, 0, 0x9f);
	wait_for_turns(0, 2);
	run_l2s(0, BIT(0), BIT(1));
	wait_for_turns(0, 2);
	set_tpr(0, 0);
	check_taken("unmasked");
}

/* VMPTRLD of another, and back. */
static void work_on_parked(void)
{
	u32 i;

	for (i = 0; i < 3; i++) {
		run_l2s(0, BIT(1), BIT(0));
		post(BY_MSI, 0, 0x45);
		wait_for_turns(1, 2);
		the_way->begin(the_region);
		end_window("parked");
		post(BY_MSI, 0, 0xe3);
		post(BY_MSI, 1, 0xe4);
		wait_for_taken(1, "the one that is loaded");
		run_l2s(0, BIT(0), BIT(1));
		check_taken("loaded again");
		post(BY_IPI, 0, 0x9f);
		check_taken("loaded and posted to");
	}
}

/* Which page, how, and what L2 does. */
static void test_memory(const struct pi_case *c)
{
	const struct way *way = &ways[c->arg[1]];
	const struct vm_options opt = {
		.nr_l2 = 2,
		.private_memory = way->private_memory,
		/* KVM may think that such an L2 can do without a TPR shadow. */
		.x2apic = c->arg[2] == CR8_EXITS,
		.cr8_exits = c->arg[2] == CR8_EXITS,
	};

	vm_start(&opt);
	the_way = way;
	the_region = &t.region[c->arg[0]];
	the_state = c->arg[2] == CR8_EXITS ? SPINS : c->arg[2];
	run_l2s(0, BIT(0), 0);
	wait_for_turns(0, 2);
	switch (the_state) {
	case MASKS:
		work_on_masked();
		break;
	case PARKED:
		work_on_parked();
		break;
	default:
		if (the_state == HALTS)
			work_before_halt();
		work_before(BY_MSI);
		work_before_notification();
		work_meanwhile();
		work_at_once();
		work_before(BY_IPI);
		break;
	}
}

int main(int argc, char **argv)
{
	struct pi_case *c;
	u32 which, way, state;

	for (which = 0; which < NR_WHICH; which++) {
		for (way = 0; way < ARRAY_SIZE(ways); way++) {
			for (state = 0; state < NR_STATES; state++) {
				if (state == CR8_EXITS &&
				    !(which == VAPIC && ways[way].absent))
					continue;
				c = add_case(test_memory, "%s.%s.%s", which_names[which],
					     ways[way].name, state_names[state]);
				c->arg[0] = which;
				c->arg[1] = way;
				c->arg[2] = state;
				/* The last two are not used while L2 runs. */
				c->sample = (which + way + state) %
					    (which < VMCS ? 3 : 6) == 0;
			}
		}
	}
	return run_cases(argc, argv);
}
