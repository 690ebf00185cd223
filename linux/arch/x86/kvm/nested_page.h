/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages of L1 that a nested context keeps mapped, for L0 to read and write.
 *
 * Each is a gfn_to_pfn_cache.  It is accessed only with the cache's lock held for
 * reading, after a check that it still maps the wanted address, by the current
 * memslots, to a page that the host has not taken back.  Nothing may sleep while
 * the lock is held.
 *
 * Only L0 accesses these pages, never the hardware, so nobody has to be kicked
 * out of the guest when the host takes one back.
 *
 * L0's writes go past the host's page tables.  So a page that L0 writes to is
 * marked dirty when it is mapped.  The host can't clean it again, to swap it out
 * or write it back, without a notifier event that ends the mapping.
 */
#ifndef __KVM_X86_NESTED_PAGE_H
#define __KVM_X86_NESTED_PAGE_H

#include <linux/kvm_host.h>

void kvm_nested_page_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);
void kvm_nested_page_drop(struct gfn_to_pfn_cache *gpc);
void *kvm_nested_page_map(struct gfn_to_pfn_cache *gpc, gpa_t gpa, bool written);

/**
 * kvm_nested_page_trylock - access a kept page if it is mapped
 * @gpc: the cache
 * @gpa: the page's address in bytes, page aligned
 *
 * This is what kvm_gpc_check() comes to for a whole page at a known address: a
 * cache is valid only while it is active and has a host address.
 *
 * Unlike Xen's caches, these have no readers in interrupts, so interrupts stay
 * on.
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: the page, until kvm_nested_page_unlock(); or NULL, and not locked.
 */
static __always_inline void *kvm_nested_page_trylock(struct gfn_to_pfn_cache *gpc,
						     gpa_t gpa)
{
	read_lock(&gpc->lock);
	if (likely(gpc->valid && gpc->gpa == gpa &&
		   gpc->generation == kvm_memslots(gpc->kvm)->generation)) {
		/* Sparse can't know that the lock goes with the pointer. */
		__release(&gpc->lock);
		return gpc->khva;
	}
	read_unlock(&gpc->lock);
	return NULL;
}

/**
 * kvm_nested_page_lock - access a kept page, and map it if need be
 * @gpc: the cache, in a context that the caller owns
 * @gpa: the page's address in bytes, page aligned
 * @written: L0 will write to the page, now or as long as it stays mapped
 *
 * Context: the vCPU's task, kvm->srcu held, no spinlock held.  May sleep.
 * Return: the page, until kvm_nested_page_unlock(); or NULL, and not locked, if
 * it can't be kept.
 */
static __always_inline void *kvm_nested_page_lock(struct gfn_to_pfn_cache *gpc,
						  gpa_t gpa, bool written)
{
	void *page;

	lockdep_assert_preemption_enabled();

	page = kvm_nested_page_trylock(gpc, gpa);
	if (likely(page))
		return page;
	return kvm_nested_page_map(gpc, gpa, written);
}

/**
 * kvm_nested_page_unlock - the access is over
 * @gpc: the cache
 *
 * Context: as the access.  Does not sleep.
 */
static inline void kvm_nested_page_unlock(struct gfn_to_pfn_cache *gpc)
{
	__acquire(&gpc->lock);
	read_unlock(&gpc->lock);
}

#endif /* __KVM_X86_NESTED_PAGE_H */
