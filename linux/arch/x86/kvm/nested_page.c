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
 * @gpc: the cache, in a context that the caller owns, and that no L2 runs with
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
 * @written: it will be written to, now or as long as it stays mapped
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

/**
 * kvm_nested_page_begin_once - access a page that is not kept
 * @vcpu: the vCPU
 * @gpa: the page's address in bytes, page aligned
 * @m: filled in
 *
 * For kvm_nested_page_begin(), which see.
 *
 * Context: the vCPU's task, kvm->srcu held, no spinlock held.  May sleep.
 * Return: as kvm_nested_page_begin().
 */
int kvm_nested_page_begin_once(struct kvm_vcpu *vcpu, gpa_t gpa,
			       struct kvm_nested_map *m)
{
	int ret = kvm_vcpu_map(vcpu, gpa_to_gfn(gpa), &m->map);

	m->gpc = NULL;
	m->hva = ret ? NULL : m->map.hva;
	return ret;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_begin_once);

/**
 * kvm_nested_page_use - let the hardware use a page, and map it if need be
 * @gpc: the cache, in a context that the caller owns until L2 is left
 * @gpa: the page's address in bytes, page aligned
 * @vcpu: the vCPU that will run L2
 * @written: L2 or the hardware writes to the page
 *
 * Context: @vcpu's task, kvm->srcu held, no spinlock held.  May sleep.
 * Return: as kvm_nested_page_tryuse(); INVALID_PAGE if the page can't be kept.
 */
hpa_t kvm_nested_page_use(struct gfn_to_pfn_cache *gpc, gpa_t gpa,
			  struct kvm_vcpu *vcpu, bool written)
{
	if (!kvm_nested_page_lock(gpc, gpa, written))
		return INVALID_PAGE;
	return __kvm_nested_page_use(gpc, vcpu);
}
EXPORT_SYMBOL_GPL(kvm_nested_page_use);

/**
 * kvm_nested_page_peek - read from a page that L2 runs with
 * @gpc: the cache, in a context that the caller owns
 * @gpa: address in bytes of what is read, all within one page
 * @to: where to put it
 * @len: its length in bytes
 *
 * For a vCPU that is about to sleep and can't map a page any more.
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: whether the page is still mapped by the current memslots, and was read.
 */
bool kvm_nested_page_peek(struct gfn_to_pfn_cache *gpc, gpa_t gpa, void *to,
			  unsigned int len)
{
	void *page;

	if (offset_in_page(gpa) + len > PAGE_SIZE)
		return false;

	page = kvm_nested_page_trylock(gpc, gfn_to_gpa(gpa_to_gfn(gpa)));
	if (!page)
		return false;

	memcpy(to, page + offset_in_page(gpa), len);
	kvm_nested_page_unlock(gpc);
	return true;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_peek);

/**
 * kvm_nested_pages_refresh - look up again what the hardware uses
 * @vcpu: the vCPU that found KVM_REQ_REFRESH_GPC
 *
 * Context: the vCPU's task, kvm->srcu held, interrupts on.  May sleep.
 * Return: 1, or 0 if L2 can't be entered with the memory that L1 has now; the
 * vCPU exits to user space then, and tries again when it is back.
 */
int kvm_nested_pages_refresh(struct kvm_vcpu *vcpu)
{
	const struct kvm_x86_nested_ops *ops = kvm_x86_ops.nested_ops;

	if (!ops->refresh_pages || ops->refresh_pages(vcpu))
		return 1;

	vcpu->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	vcpu->run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	vcpu->run->internal.ndata = 0;
	kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
	return 0;
}

/**
 * kvm_nested_pages_refresh_wanted - look up what kvm_nested_pages_want() is about
 * @vcpu: the vCPU, unblocked but not runnable
 *
 * Without that the pages can wait until the vCPU runs: L2 sleeps on if L1 has no
 * memory for them now.
 *
 * Context: as kvm_nested_pages_refresh().
 * Return: 1 if there is nothing to look up, else as kvm_nested_pages_refresh().
 */
int kvm_nested_pages_refresh_wanted(struct kvm_vcpu *vcpu)
{
	if (!kvm_test_request(KVM_REQ_UNBLOCK, vcpu) ||
	    !kvm_check_request(KVM_REQ_REFRESH_GPC, vcpu))
		return 1;
	return kvm_nested_pages_refresh(vcpu);
}

/**
 * kvm_nested_pages_memslots_updated - no vCPU shall use a page by old memslots
 * @kvm: the VM, its memslots just replaced
 *
 * A vCPU that entered L2 by the old memslots did so before the readers of these
 * were waited for.  So it has made the table, and it is found in guest mode.
 *
 * Context: kvm->slots_lock held.  Waits for vCPUs to leave guest mode.
 */
void kvm_nested_pages_memslots_updated(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->slots_lock);

	if (READ_ONCE(kvm->arch.nested_contexts) &&
	    kvm_x86_ops.nested_ops->refresh_pages)
		kvm_make_all_cpus_request(kvm, KVM_REQ_REFRESH_GPC);
}

/**
 * kvm_nested_page_slot_moves - is a page missing only for the moment?
 * @vcpu: the vCPU
 * @gpa: an address in the page
 *
 * A memslot that user space moves or deletes is invalid for a while.  User space
 * doesn't see that; vCPUs must wait, see kvm_nested_page_wait_for_slot().
 *
 * Context: the vCPU's task, kvm->srcu held.
 * Return: whether that is so.
 */
bool kvm_nested_page_slot_moves(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_memory_slot *slot = gfn_to_memslot(vcpu->kvm, gpa_to_gfn(gpa));

	return slot && slot->flags & KVM_MEMSLOT_INVALID;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_slot_moves);

/* Returns false if the task is killed instead. */
static bool kvm_nested_pages_wait_for_update(struct kvm *kvm)
{
	if (mutex_lock_killable(&kvm->slots_lock))
		return false;
	mutex_unlock(&kvm->slots_lock);
	return true;
}

/**
 * kvm_nested_page_wait_for_slot - wait for a page that is missing for the moment
 * @vcpu: the vCPU
 * @gpa: an address in the page
 * @slots: kvm_memslots() before the page was looked up
 *
 * An update of memslots waits for their readers, and so for @vcpu: it is let by.
 * It may be followed by another one, so the page has to be looked up in a loop;
 * but not with slots_lock held, for that may wait for user space (userfaultfd),
 * and all other work on memslots with it.
 *
 * The slot may also arrive between the look-up and this.  Memslots are replaced
 * no more than once while @vcpu reads them, so a comparison tells.
 *
 * Context: the vCPU's task, kvm->srcu held as the vCPU's; no lock but vcpu->mutex
 * held, and nothing remembered of the memslots.  Sleeps.
 * Return: true if there was something to wait for: look again; false if L1 has no
 * memory there, or the VM does without contexts, or the task is killed.
 */
bool kvm_nested_page_wait_for_slot(struct kvm_vcpu *vcpu, gpa_t gpa,
				   const struct kvm_memslots *slots)
{
	bool again;

	if (!READ_ONCE(vcpu->kvm->arch.nested_contexts))
		return false;
	if (kvm_memslots(vcpu->kvm) != slots)
		return true;
	if (!kvm_nested_page_slot_moves(vcpu, gpa))
		return false;

	kvm_vcpu_srcu_read_unlock(vcpu);
	again = kvm_nested_pages_wait_for_update(vcpu->kvm);
	kvm_vcpu_srcu_read_lock(vcpu);
	return again;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_wait_for_slot);
