/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ways in which vmx_page_invalidation_test takes a page from the guest.
 */
#ifndef SELFTEST_KVM_VMX_PAGE_INVALIDATION_WAYS_H
#define SELFTEST_KVM_VMX_PAGE_INVALIDATION_WAYS_H

#include "nested_context_host.h"
#include "vmx_page_invalidation_vm.h"

/* Of the kernel's interface, but not in every C library's header. */
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

typedef void (*way_fn)(struct region *r);

/*
 * Private memory is gone then, and reads as zeroes.  A page of a file is only
 * unmapped.
 */
static void way_dontneed(struct region *r)
{
	TEST_ASSERT(!madvise(page_now(r), PAGE_SIZE, MADV_DONTNEED), "madvise");
	if (r->fd < 0)
		*fill_now(r) = 0;
}

/* A page that is in no place of the slot, full of what it should be. */
static u32 region_fresh_page(struct region *r)
{
	u32 page = r->next;

	r->next = page + 1 < FILE_PAGES ? page + 1 : SLOT_PAGES;
	memset(r->view + page * PAGE_SIZE, r->fill[page], PAGE_SIZE);
	return page;
}

static void region_page_is(struct region *r, u32 page)
{
	u8 *old = page_view(r);

	r->page[place(r)] = page;
	retire(old);
}

/* Another page is mapped in its place. */
static void way_mmap(struct region *r)
{
	u32 page = region_fresh_page(r);
	void *p = mmap(page_now(r), PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, r->fd, page * PAGE_SIZE);

	TEST_ASSERT(p == page_now(r), "mmap");
	region_page_is(r, page);
}

/* A mapping of another page moves there. */
static void way_mremap(struct region *r)
{
	u32 page = region_fresh_page(r);
	void *p = map_pages(1, r->fd, page);

	(void)READ_ONCE(*(u8 *)p);
	p = mremap(p, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, page_now(r));
	TEST_ASSERT(p == page_now(r), "mremap");
	region_page_is(r, page);
}

/* The page leaves the file; a page of zeroes is there next. */
static void way_punch_hole(struct region *r)
{
	u32 page = r->page[place(r)];

	TEST_ASSERT(!fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       page * PAGE_SIZE, PAGE_SIZE), "fallocate");
	r->fill[page] = 0;
}

/*
 * The slot moves by a page or two, so that its next page is at the address: the
 * one change of memslots after which there is another page with no time between
 * in which there is none.
 */
static void way_slide(struct region *r)
{
	u8 *old = page_now(r);

	r->base = r->gpa - (place(r) + 1) % SLOT_PAGES * PAGE_SIZE;
	slot_set(r);
	retire(old);
}

/* Where a slot is that is away; each has its own place. */
#define AWAY_GPA	0x20000000ull
#define AWAY_DISTANCE	0x00100000ull

/* @r's slot moves away, @other's in: only what L2 knows, the address, is kept. */
static void slots_change_places(struct region *r, struct region *other)
{
	struct region old = *r;
	u8 *old_page = page_now(r);

	vm_set_user_memory_region(t.vm, r->slot, r->flags,
				  AWAY_GPA + r->slot * AWAY_DISTANCE,
				  SLOT_PAGES * PAGE_SIZE, r->hva);
	*r = *other;
	r->gpa = old.gpa;
	r->base = old.base;
	slot_set(r);
	retire(old_page);
	*other = old;
}

static void way_log_dirty(struct region *r)
{
	r->flags ^= KVM_MEM_LOG_DIRTY_PAGES;
	slot_set(r);
}

#endif /* SELFTEST_KVM_VMX_PAGE_INVALIDATION_WAYS_H */
