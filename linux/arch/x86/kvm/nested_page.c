// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of L1 that a nested context keeps mapped; see nested_page.h.
 */
#include <linux/kvm_host.h>
#include <linux/lockdep.h>

#include "nested_page.h"

/* How often a mapping that is invalidated again and again is renewed. */
#define NESTED_PAGE_TRIES	3

/*
 * Locks of other caches are taken in interrupts, those of contexts are not.
 * Tell lockdep that they are different.
 */
static struct lock_class_key nested_page_key;

/**
 * kvm_nested_page_init - make a cache that maps nothing yet
 * @gpc: the cache, zeroed
 * @kvm: the VM that it is for
 *
 * Context: nobody else knows the cache.
 */
void kvm_nested_page_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm)
{
	kvm_gpc_init(gpc, kvm);
	lockdep_set_class(&gpc->lock, &nested_page_key);
}
EXPORT_SYMBOL_GPL(kvm_nested_page_init);

/**
 * kvm_nested_page_drop - unmap a kept page
 * @gpc: the cache, in a context that the caller owns
 *
 * The cache remembers the address that it was for, but has to look it up again
 * before it is valid for any address.
 *
 * Context: any task, no spinlock held.  May sleep.
 */
void kvm_nested_page_drop(struct gfn_to_pfn_cache *gpc)
{
	kvm_gpc_deactivate(gpc);
}
EXPORT_SYMBOL_GPL(kvm_nested_page_drop);

/**
 * kvm_nested_page_map - map a page and access it
 * @gpc: the cache, in a context that the caller owns
 * @gpa: the page's address in bytes, page aligned
 * @written: L0 will write to the page, now or as long as it stays mapped
 *
 * For kvm_nested_page_lock(), which see.
 *
 * Context: the vCPU's task, kvm->srcu held, no spinlock held.  May sleep.
 * Return: the page, until kvm_nested_page_unlock(); or NULL, and not locked.
 */
void *kvm_nested_page_map(struct gfn_to_pfn_cache *gpc, gpa_t gpa, bool written)
{
	int tries = NESTED_PAGE_TRIES;
	void *page;

	do {
		if (!tries-- || kvm_gpc_activate(gpc, gpa, PAGE_SIZE))
			return NULL;
		page = kvm_nested_page_trylock(gpc, gpa);
	} while (!page);

	if (written)
		kvm_set_pfn_dirty(gpc->pfn);
	return page;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_map);
