/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nested_context_storm_test: what the host does with a VM's memory while L2s
 * switch.  All of it keeps the contents.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_STORM_HOST_H
#define SELFTEST_KVM_NESTED_CONTEXT_STORM_HOST_H

#include <linux/bitmap.h>

#include "nested_context_host.h"
#include "nested_context_storm_vm.h"

/* These storms are about the host, so one eighth of the vCPUs is enough. */
static void host_storm_create(struct storm_vm *s)
{
	u32 nr_vcpus = max(opt(OPT_VCPUS) / 8, 2u);

	storm_create(s, nr_vcpus, nr_vcpus * 8, NESTED_CONTEXT_RATIO);
}

static void host_storm_end(struct storm_vm *s, const char *what, double begin)
{
	struct storm_totals t = storm_finish(s);

	storm_say(s, what, t, storm_now() - begin, nested_context_read_stats(s->vm));
	storm_destroy(s);
}

/* ---- Pages ---- */

/* The page stays in its file, and is only not mapped any more. */
static void way_dontneed(struct storm_vm *s, void *page)
{
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_DONTNEED), "madvise");
}

static void way_dontneed_all(struct storm_vm *s, void *page)
{
	TEST_ASSERT(!madvise(s->mem, s->size, MADV_DONTNEED), "madvise");
}

/* What is taken and given back is the right to execute, which nobody uses. */
static void way_mprotect(struct storm_vm *s, void *page)
{
	TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) &&
		    !mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), "mprotect");
}

/* Another mapping of the same page takes the place of the first. */
static void way_mremap(struct storm_vm *s, void *page)
{
	void *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       s->fd, page - s->mem);

	TEST_ASSERT(p != MAP_FAILED, "mmap");
	(void)READ_ONCE(*(u8 *)p);
	p = mremap(p, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, page);
	TEST_ASSERT(p == page, "mremap");
}

/* To swap: when it is back, it is another page. */
static void way_pageout(struct storm_vm *s, void *page)
{
	TEST_ASSERT(!madvise(page, PAGE_SIZE, MADV_PAGEOUT), "madvise");
}

FIXTURE(pages) {
};

FIXTURE_VARIANT(pages) {
	void (*way)(struct storm_vm *s, void *page);
	bool swap;
	bool posted;
};

FIXTURE_SETUP(pages)
{
}

FIXTURE_TEARDOWN(pages)
{
}

FIXTURE_VARIANT_ADD(pages, dontneed) {
	.way = way_dontneed,
};

FIXTURE_VARIANT_ADD(pages, dontneed_all) {
	.way = way_dontneed_all,
};

FIXTURE_VARIANT_ADD(pages, mprotect) {
	.way = way_mprotect,
};

FIXTURE_VARIANT_ADD(pages, mremap) {
	.way = way_mremap,
};

FIXTURE_VARIANT_ADD(pages, pageout) {
	.way = way_pageout,
	.swap = true,
};

FIXTURE_VARIANT_ADD(pages, mremap_posted) {
	.way = way_mremap,
	.posted = true,
};

FIXTURE_VARIANT_ADD(pages, pageout_posted) {
	.way = way_pageout,
	.swap = true,
	.posted = true,
};

/*
 * The host invalidates the pages that L0 keeps mapped, one after the other without
 * a rest.
 */
TEST_F_TIMEOUT(pages, invalidated, CASE_TIMEOUT)
{
	u64 until, nr = 0, enough = max(opt(OPT_STEPS) / 100, 100u);
	u64 out = proc_number("/proc/vmstat", "pswpout");
	struct guest_random_state random = new_guest_random_state(1);
	struct storm_vm s;
	double begin;

	if (variant->swap && !proc_number("/proc/meminfo", "SwapTotal"))
		SKIP(return, "no swap");
	if (variant->posted && !storm_can_post())
		SKIP(return, NO_POSTED);

	storm.posted = variant->posted;
	host_storm_create(&s);
	begin = storm_now();
	storm_go(&s);
	until = storm_steps(&s) + opt(OPT_STEPS) / 4;
	/* On another CPU the L2s may get all their steps done in a moment. */
	for (; storm_steps(&s) < until || nr <= enough; nr++)
		variant->way(&s, s.mem + guest_random_u32(&random) %
					 (s.size / PAGE_SIZE) * PAGE_SIZE);
	out = proc_number("/proc/vmstat", "pswpout") - out;
	host_storm_end(&s, "pages", begin);

	ksft_print_msg("pages: %lu invalidations, %lu pages swapped out\n", nr, out);
	TEST_ASSERT(!variant->swap || out > 100, "Only %lu pages swapped out", out);
}

/* ---- Memory slots ---- */

FIXTURE(slots) {
};

FIXTURE_SETUP(slots)
{
}

FIXTURE_TEARDOWN(slots)
{
}

/*
 * The slot gets other memory with the same contents.  What it had is spoilt and
 * stays mapped till the next move: no notifier tells KVM of it.
 */
static void move_slot(struct storm_vm *s)
{
	int fd = kvm_memfd_alloc(s->size, false);
	void *mem = storm_map_file(fd, s->size);

	memcpy(mem, s->mem, s->size);
	vm_set_user_memory_region(s->vm, STORM_SLOT, 0, STORM_GPA, 0, s->mem);
	memset(s->mem, 0xa5, s->size);
	if (s->old)
		munmap(s->old, s->size);
	close(s->fd);

	s->old = s->mem;
	s->mem = mem;
	s->fd = fd;
	storm_set_slot(s, 0);
}

/*
 * The slot is deleted and made anew while the vCPUs stand anywhere, also within
 * L2, and contexts keep pages of it.
 */
TEST_F_TIMEOUT(slots, moved, CASE_TIMEOUT)
{
	const u32 moves = 50;
	struct storm_vm s;
	double begin;
	u32 i;

	host_storm_create(&s);
	begin = storm_now();
	storm_go(&s);
	for (i = 0; i < moves; i++) {
		storm_wait(&s, opt(OPT_STEPS) / 4 / moves);
		storm_kick(&s);
		move_slot(&s);
		storm_go(&s);
	}
	host_storm_end(&s, "slots", begin);
	ksft_print_msg("slots: moved %u times\n", moves);
}

/* ---- Dirty logging ---- */

/* All memory of a VM, and what the dirty log says of it. */
struct storm_memory {
	u32 slot;
	void *hva;
	size_t pages;
	unsigned long *log;
};

static void storm_memory(struct storm_vm *s, struct storm_memory m[2])
{
	struct userspace_mem_region *region = memslot2region(s->vm, 0);
	u32 i;

	m[0].slot = 0;
	m[0].hva = region->host_mem;
	m[0].pages = region->region.memory_size / PAGE_SIZE;
	m[1].slot = STORM_SLOT;
	m[1].hva = s->mem;
	m[1].pages = s->size / PAGE_SIZE;
	for (i = 0; i < 2; i++)
		m[i].log = bitmap_zalloc(m[i].pages);
}

static void storm_memory_free(struct storm_memory m[2])
{
	free(m[0].log);
	free(m[1].log);
}

static void storm_log(struct storm_vm *s, bool on)
{
	vm_mem_region_set_flags(s->vm, 0, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	storm_set_slot(s, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

/* A page's place among those of an L2. */
static u32 page_kind(struct storm_vm *s, size_t page)
{
	return page % s->arch->pages_per_l2;
}

FIXTURE(dirty) {
};

FIXTURE_SETUP(dirty)
{
}

FIXTURE_TEARDOWN(dirty)
{
}

/*
 * Logging is switched on while L2s switch, and then a copy is made of their
 * memory.  A page that is not like its copy any more has been written since; it
 * must be logged, whether L2 wrote to it or L0.
 */
TEST_F_TIMEOUT(dirty, logged, CASE_TIMEOUT)
{
	const u32 rounds = 24;
	u64 logged = 0, blocks = 0, privates = 0;
	struct storm_memory m[2];
	unsigned long *seen;
	struct storm_vm s;
	double begin;
	size_t page;
	void *copy;
	u32 i;

	host_storm_create(&s);
	storm_memory(&s, m);
	seen = bitmap_zalloc(m[1].pages);
	copy = malloc(s.size);
	begin = storm_now();
	storm_go(&s);
	for (i = 0; i < rounds; i++) {
		storm_log(&s, true);
		memcpy(copy, s.mem, s.size);
		storm_wait(&s, opt(OPT_STEPS) / 4 / rounds);
		memset(seen, 0, bitmap_size(m[1].pages));
		if (i % 2) {
			/* What was logged till now is forgotten by KVM. */
			kvm_vm_get_dirty_log(s.vm, STORM_SLOT, seen);
			storm_wait(&s, opt(OPT_STEPS) / 8 / rounds);
		}
		storm_kick(&s);
		kvm_vm_get_dirty_log(s.vm, STORM_SLOT, m[1].log);

		for (page = 0; page < m[1].pages; page++) {
			if (test_bit(page, m[1].log))
				__set_bit(page, seen);
			logged += test_bit(page, seen);
			if (!memcmp(copy + page * PAGE_SIZE,
				    s.mem + page * PAGE_SIZE, PAGE_SIZE))
				continue;
			TEST_ASSERT(test_bit(page, seen),
				    "Round %u: page %u of L2 %zu was written and is not logged",
				    i, page_kind(&s, page), page / s.arch->pages_per_l2);
			blocks += !page_kind(&s, page);
			privates += page_kind(&s, page) == s.arch->private_page;
		}
		storm_go(&s);
		storm_wait(&s, 100);
		storm_log(&s, false);
		storm_wait(&s, opt(OPT_STEPS) / 8 / rounds);
	}
	host_storm_end(&s, "dirty", begin);

	ksft_print_msg("dirty: %u rounds, %lu pages logged; written: %lu blocks, %lu private\n",
		       rounds, logged, blocks, privates);
	TEST_ASSERT(blocks > rounds && privates > rounds, "Nothing to find");
	storm_memory_free(m);
	free(seen);
	free(copy);
}

/* ---- Live migration ---- */

#define MOVE_L2S	32
#define MOVE_VCPUS	4
#define MOVE_ROUNDS	3

struct move_counts {
	u64 pages;
	u64 last_pages;
};

static u64 copy_logged(struct storm_vm *from, struct storm_memory *m,
		       struct storm_memory *n)
{
	u64 pages = 0;
	size_t page;

	kvm_vm_get_dirty_log(from->vm, m->slot, m->log);
	for (page = 0; page < m->pages; page++) {
		if (!test_bit(page, m->log))
			continue;
		memcpy(n->hva + page * PAGE_SIZE, m->hva + page * PAGE_SIZE, PAGE_SIZE);
		pages++;
	}
	return pages;
}

/*
 * Leaves the VM running in memory of its own elsewhere.  What is carried over is
 * memory and the state of the vCPUs, and nothing else.
 */
static void migrate(struct storm_vm *from, struct storm_vm *to, struct move_counts *c)
{
	struct kvm_x86_state *state[STORM_MAX_VCPUS];
	struct storm_memory m[2], n[2];
	u64 steps = opt(OPT_STEPS) / 4 / opt(OPT_MOVES) / (MOVE_ROUNDS + 1);
	u32 i, round;

	storm_memory(from, m);
	storm_log(from, true);
	storm_make_vm(to, from->nr_vcpus, from->nr_l2, from->ratio);
	storm_memory(to, n);
	for (i = 0; i < 2; i++)
		memcpy(n[i].hva, m[i].hva, m[i].pages * PAGE_SIZE);
	for (round = 0; round < MOVE_ROUNDS; round++) {
		storm_wait(from, steps);
		for (i = 0; i < 2; i++)
			c->pages += copy_logged(from, &m[i], &n[i]);
	}

	storm_wait(from, steps);
	storm_kick(from);
	storm_save(from, state);
	for (i = 0; i < 2; i++)
		c->last_pages += copy_logged(from, &m[i], &n[i]);
	steps = storm_steps(from);
	storm_destroy(from);

	storm_load(to, state);
	storm_free_states(to, state);
	TEST_ASSERT(storm_steps(to) == steps, "%lu steps came over of %lu",
		    storm_steps(to), steps);
	storm_memory_free(m);
	storm_memory_free(n);
	storm_go(to);
}

FIXTURE(migration) {
};

FIXTURE_SETUP(migration)
{
}

FIXTURE_TEARDOWN(migration)
{
}

/*
 * L2s go on counting through one migration after the other: L1 checks each step
 * that they make by what it knew before.
 */
TEST_F_TIMEOUT(migration, live, CASE_TIMEOUT)
{
	struct move_counts c = {};
	struct storm_vm s[2];
	double begin;
	u32 i;

	storm_create(&s[0], MOVE_VCPUS, MOVE_L2S, NESTED_CONTEXT_RATIO);
	begin = storm_now();
	storm_go(&s[0]);
	for (i = 0; i < opt(OPT_MOVES); i++)
		migrate(&s[i % 2], &s[(i + 1) % 2], &c);
	storm_wait(&s[i % 2], opt(OPT_STEPS) / 4 / opt(OPT_MOVES));
	host_storm_end(&s[i % 2], "migration", begin);
	ksft_print_msg("migration: %u, %lu pages copied from the log while L2s ran and %lu after\n",
		       i, c.pages, c.last_pages);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_STORM_HOST_H */
