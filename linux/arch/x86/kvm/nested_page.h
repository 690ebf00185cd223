/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages of L1 that a nested context keeps mapped.
 *
 * Each is a gfn_to_pfn_cache.  L0 accesses it only with the cache's lock held for
 * reading, after a check that it still maps the wanted address, by the current
 * memslots, to a page that the host has not taken back.  Nothing may sleep while
 * the lock is held.
 *
 * Some pages are accessed by the hardware, too, as long as L2 runs: control block
 * 02 has their host address, kvm_nested_page_use() gives it.  No lock can be held
 * for that.  What holds instead, from the write to control block 02 until L2 is
 * left, is told at gfn_to_pfn_cache's @vcpu:
 *
 *	the host takes the page back	the mmu_notifier event makes the request
 *					KVM_REQ_REFRESH_GPC of that vCPU, and waits
 *					until it is out of guest mode
 *	memslots change			the same request of all vCPUs, for any page
 *					may be another one now
 *
 * The request is seen after interrupts are off and before L2 is entered, as all
 * requests are; kvm_nested_pages_refresh() then looks all pages up again, with
 * interrupts on, and writes control block 02 anew.
 *
 * Writes of L0 and of the hardware go past the host's page tables.  So a page that
 * is written to is marked dirty when it is mapped.  The host can't clean it again,
 * to swap it out or write it back, without a notifier event that ends the mapping.
 *
 * Where there is no mapping to be had, because the context is a private one or the
 * page can't be cached, the page is mapped for the one access or the one run of
 * L2, as KVM does without contexts; if that fails too, its error decides what L1
 * sees.
 */
#ifndef __KVM_X86_NESTED_PAGE_H
#define __KVM_X86_NESTED_PAGE_H

#include <linux/kvm_host.h>

/**
 * struct kvm_nested_map - L0's access to a page of L1
 * @hva:	the page
 * @gpc:	set if it is a page that a context keeps, locked
 * @map:	else, the mapping for this access alone
 */
struct kvm_nested_map {
	void *hva;
	struct gfn_to_pfn_cache *gpc;
	struct kvm_host_map map;
};

void kvm_nested_page_init(struct gfn_to_pfn_cache *gpc, struct kvm *kvm);
void kvm_nested_page_drop(struct gfn_to_pfn_cache *gpc);
void *kvm_nested_page_map(struct gfn_to_pfn_cache *gpc, gpa_t gpa, bool written);

int kvm_nested_page_begin_once(struct kvm_vcpu *vcpu, gpa_t gpa,
			       struct kvm_nested_map *m);

hpa_t kvm_nested_page_use(struct gfn_to_pfn_cache *gpc, gpa_t gpa,
			  struct kvm_vcpu *vcpu, bool written);
bool kvm_nested_page_peek(struct gfn_to_pfn_cache *gpc, gpa_t gpa, void *to,
			  unsigned int len);

int kvm_nested_pages_refresh(struct kvm_vcpu *vcpu);
int kvm_nested_pages_refresh_wanted(struct kvm_vcpu *vcpu);

/**
 * kvm_nested_pages_want - a page has to be looked up before the vCPU may sleep
 * @vcpu: the vCPU, in L2 and halted
 *
 * Whether L2 has an interrupt may be in a page that the host has taken back.  The
 * vCPU must neither sleep then, nor take that for an event and end L2's HLT: it
 * is unblocked, calls kvm_nested_pages_refresh_wanted(), and looks again.
 *
 * Context: the vCPU's task.  Does not sleep.
 */
static inline void kvm_nested_pages_want(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
	kvm_make_request(KVM_REQ_UNBLOCK, vcpu);
}

void kvm_nested_pages_memslots_updated(struct kvm *kvm);
bool kvm_nested_page_slot_moves(struct kvm_vcpu *vcpu, gpa_t gpa);
bool kvm_nested_page_wait_for_slot(struct kvm_vcpu *vcpu, gpa_t gpa,
				   const struct kvm_memslots *slots);

static __always_inline void *__kvm_nested_page_check(struct gfn_to_pfn_cache *gpc,
						     gpa_t gpa)
{
	lockdep_assert_held_read(&gpc->lock);

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
	return __kvm_nested_page_check(gpc, gpa);
}

/**
 * kvm_nested_page_trylock_atomic - the same with preemption disabled
 * @gpc: the cache
 * @gpa: the page's address in bytes, page aligned
 *
 * Does not wait for a writer either, who may sleep on a preemptible kernel
 * (PREEMPT_RT).
 *
 * Context: the vCPU's task, kvm->srcu held.  Does not sleep.
 * Return: the page, until kvm_nested_page_unlock(); or NULL, and not locked.
 */
static inline void *kvm_nested_page_trylock_atomic(struct gfn_to_pfn_cache *gpc,
						   gpa_t gpa)
{
	if (!read_trylock(&gpc->lock))
		return NULL;
	return __kvm_nested_page_check(gpc, gpa);
}

/**
 * kvm_nested_page_lock - access a kept page, and map it if need be
 * @gpc: the cache, in a context that the caller owns
 * @gpa: the page's address in bytes, page aligned
 * @written: it will be written to, now or as long as it stays mapped
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

/* The page is locked; from here on its invalidation concerns @vcpu. */
static __always_inline hpa_t __kvm_nested_page_use(struct gfn_to_pfn_cache *gpc,
						   struct kvm_vcpu *vcpu)
{
	hpa_t hpa;

	lockdep_assert_held_read(&gpc->lock);
	WRITE_ONCE(gpc->vcpu, vcpu);
	hpa = pfn_to_hpa(gpc->pfn);
	kvm_nested_page_unlock(gpc);
	return hpa;
}

/**
 * kvm_nested_page_tryuse - let the hardware use a page if it is mapped
 * @gpc: the cache, in a context that the caller owns until L2 is left
 * @gpa: the page's address in bytes, page aligned
 * @vcpu: the vCPU that will run L2
 *
 * The address may be outdated before it gets into control block 02.  But then a
 * request is pending, and @vcpu comes here again before it enters L2.
 *
 * Context: @vcpu's task, kvm->srcu held.  Does not sleep.
 * Return: the page's host-physical address, or INVALID_PAGE.
 */
static __always_inline hpa_t kvm_nested_page_tryuse(struct gfn_to_pfn_cache *gpc,
						    gpa_t gpa,
						    struct kvm_vcpu *vcpu)
{
	if (unlikely(!kvm_nested_page_trylock(gpc, gpa)))
		return INVALID_PAGE;
	return __kvm_nested_page_use(gpc, vcpu);
}

/**
 * kvm_nested_page_unuse - the hardware does not use a page any more
 * @gpc: the cache, in a context that the caller owns
 *
 * Context: the task of the vCPU that used it, outside of guest mode, or nobody
 * runs that vCPU.  Does not sleep.
 */
static inline void kvm_nested_page_unuse(struct gfn_to_pfn_cache *gpc)
{
	WRITE_ONCE(gpc->vcpu, NULL);
}

/**
 * kvm_nested_page_begin - access a page, kept or not
 * @vcpu: the vCPU
 * @gpc: the cache, in a context that the caller owns; NULL without context
 * @gpa: the page's address in bytes, page aligned
 * @written: it will be written to, now or as long as it stays mapped
 * @m: filled in; @m->hva is the page until kvm_nested_page_end()
 *
 * Context: the vCPU's task, kvm->srcu held, no spinlock held.  May sleep; but on
 * success the caller must not sleep until kvm_nested_page_end(), for a lock may
 * be held.
 * Return: 0, or what kvm_vcpu_map() said of this address; @m->hva is NULL then.
 */
static __always_inline int kvm_nested_page_begin(struct kvm_vcpu *vcpu,
						 struct gfn_to_pfn_cache *gpc,
						 gpa_t gpa, bool written,
						 struct kvm_nested_map *m)
{
	m->gpc = gpc;
	if (likely(gpc)) {
		m->hva = kvm_nested_page_lock(gpc, gpa, written);
		if (likely(m->hva))
			return 0;
	}
	return kvm_nested_page_begin_once(vcpu, gpa, m);
}

/**
 * kvm_nested_page_end - the access that kvm_nested_page_begin() began is over
 * @vcpu: the vCPU
 * @m: from kvm_nested_page_begin(), which succeeded
 * @dirty: the page was written to: log it as dirty
 *
 * Context: the vCPU's task, kvm->srcu held.  May sleep if the page was mapped
 * for this access alone.
 */
static inline void kvm_nested_page_end(struct kvm_vcpu *vcpu,
				       struct kvm_nested_map *m, bool dirty)
{
	if (likely(m->gpc)) {
		if (dirty)
			kvm_gpc_mark_dirty_in_slot(m->gpc);
		kvm_nested_page_unlock(m->gpc);
	} else {
		kvm_vcpu_unmap(vcpu, &m->map, dirty);
	}
}

#endif /* __KVM_X86_NESTED_PAGE_H */
