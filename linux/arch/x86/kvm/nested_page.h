/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages of L1 that a nested context keeps mapped.
 *
 * L0 accesses a page between kvm_nested_page_begin() and kvm_nested_page_end().
 * A context of the table keeps it mapped by a gfn_to_pfn_cache, whose lock is held
 * meanwhile: nothing may sleep.  The fallback context maps it for the one access,
 * as does any context while the cache cannot be refreshed.
 *
 * Hardware accesses some pages as long as L2 runs, by the host address that
 * kvm_nested_page_use() writes to control block 02.  These are never pinned.  What
 * protects them is told at gfn_to_pfn_cache's @vcpu, and goes on like this:
 *
 *	the host takes the page		the mmu_notifier event raises
 *	back				KVM_REQ_REFRESH_GPC and waits until the vCPU
 *					is out of guest mode
 *	memslots change			the same: another page may have the address now.
 *					L2 goes on with one that has lost its memslot
 *					until it is not used any more, or the host
 *					takes it.
 *
 * The request is handled before the vCPU enters the guest or blocks, see
 * kvm_nested_pages_refresh().  A page in use that cannot be looked up keeps L2 from
 * running: until there is a page again, if a memslot has the address; else the vCPU
 * exits to user space, and tries again at the next KVM_RUN.
 *
 * Writes go past the host's page tables, so a page is marked dirty when it is
 * mapped.  The host cannot clean it again without an event that ends the mapping.
 */
#ifndef __KVM_X86_NESTED_PAGE_H
#define __KVM_X86_NESTED_PAGE_H

#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/kvm_host.h>

/**
 * struct kvm_nested_page - a page of L1
 * @gpc:	maps the page as long as it is kept or used by hardware
 * @map:	else, maps it for one access
 * @copy:	else, if it is only read, holds a copy of it
 * @accessed:	when the host was last told that the page is accessed, in jiffies
 * @kept:	it belongs to a context of the table
 *
 * Only the owner of the context changes anything.  Others may access a page that
 * is mapped already, by kvm_nested_page_trybegin().
 */
struct kvm_nested_page {
	struct gfn_to_pfn_cache gpc;
	struct kvm_host_map map;
	void *copy;
	unsigned long accessed;
	bool kept;
};

void kvm_nested_page_init(struct kvm_nested_page *page, struct kvm *kvm,
			  bool kept, bool written);
void kvm_nested_page_drop(struct kvm_nested_page *page);
void *__kvm_nested_page_begin(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			      gpa_t gpa);
void __kvm_nested_page_end_copy(struct kvm_nested_page *page);
void kvm_nested_page_mark_dirty(struct kvm_vcpu *vcpu, struct kvm_nested_page *page);
int kvm_nested_page_read(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			 gpa_t gpa, void *to, unsigned int len);
int kvm_nested_page_write(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			  gpa_t gpa, const void *from, unsigned int len);
void __kvm_nested_page_accessed(struct kvm_nested_page *page);
int __kvm_nested_page_use(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			  gpa_t gpa, hpa_t *hpa);

void kvm_nested_pages_wait_later(struct kvm_vcpu *vcpu);
bool kvm_nested_page_retry(struct kvm_vcpu *vcpu, gpa_t gpa);
int kvm_nested_pages_refresh(struct kvm_vcpu *vcpu);
void kvm_nested_pages_memslots_updated(struct kvm *kvm);

/*
 * A page that hardware uses is good without its memslot, see gfn_to_pfn_cache.
 * Unlike Xen's caches, these have no readers in interrupts, so interrupts stay on.
 */
static __always_inline void *__kvm_nested_page_check(struct gfn_to_pfn_cache *gpc,
						     gpa_t gpa)
{
	lockdep_assert_held_read(&gpc->lock);

	if (likely(gpc->valid && gpc->gpa == gpa &&
		   (gpc->generation == kvm_memslots(gpc->kvm)->generation ||
		    READ_ONCE(gpc->vcpu)))) {
		/* Sparse can't know that the lock goes with the pointer. */
		__release(&gpc->lock);
		return gpc->khva;
	}
	read_unlock(&gpc->lock);
	return NULL;
}

/* Access a page that is mapped already.  Returns NULL, or the page, locked. */
static __always_inline void *kvm_nested_page_trybegin(struct kvm_nested_page *page,
						      gpa_t gpa)
{
	read_lock(&page->gpc.lock);
	return __kvm_nested_page_check(&page->gpc, gpa);
}

/* Don't wait for a writer, which may sleep on PREEMPT_RT. */
static inline void *kvm_nested_page_trybegin_atomic(struct kvm_nested_page *page,
						    gpa_t gpa)
{
	if (!read_trylock(&page->gpc.lock))
		return NULL;
	return __kvm_nested_page_check(&page->gpc, gpa);
}

static inline void kvm_nested_page_tryend(struct kvm_vcpu *vcpu,
					  struct kvm_nested_page *page, bool dirty)
{
	if (dirty)
		kvm_nested_page_mark_dirty(vcpu, page);
	__acquire(&page->gpc.lock);
	read_unlock(&page->gpc.lock);
}

/* Page aging does not see what goes past the page tables: tell it once a second. */
static __always_inline void kvm_nested_page_accessed(struct kvm_nested_page *page)
{
	if (unlikely(time_after(jiffies, page->accessed + HZ)))
		__kvm_nested_page_accessed(page);
}

/*
 * Access a page of a context that the vCPU owns.  May sleep, but the caller must
 * not until kvm_nested_page_end().  Fails as kvm_vcpu_map() does.
 */
static __always_inline void *kvm_nested_page_begin(struct kvm_vcpu *vcpu,
						   struct kvm_nested_page *page,
						   gpa_t gpa)
{
	void *hva;

	lockdep_assert_preemption_enabled();

	hva = kvm_nested_page_trybegin(page, gpa);
	if (unlikely(!hva))
		return __kvm_nested_page_begin(vcpu, page, gpa);

	kvm_nested_page_accessed(page);
	return hva;
}

static inline void kvm_nested_page_end(struct kvm_vcpu *vcpu,
				       struct kvm_nested_page *page, bool dirty)
{
	if (unlikely(page->map.hva))
		kvm_vcpu_unmap(vcpu, &page->map, dirty);
	else if (unlikely(page->copy))
		__kvm_nested_page_end_copy(page);
	else
		kvm_nested_page_tryend(vcpu, page, dirty);
}

/* A hint: the page was found by the memslots as they are, whatever its address. */
static inline bool kvm_nested_page_is_current(struct kvm_nested_page *page)
{
	struct gfn_to_pfn_cache *gpc = &page->gpc;

	return gpc->valid && gpc->generation == kvm_memslots(gpc->kvm)->generation;
}

static inline bool kvm_nested_page_in_use(struct kvm_nested_page *page)
{
	return READ_ONCE(page->gpc.vcpu);
}

/*
 * Let hardware use a page of a context that the vCPU owns, until
 * kvm_nested_page_unuse().  @hpa is outdated once KVM_REQ_REFRESH_GPC is pending.
 *
 * Returns -EFAULT if no memslot has the address.  If the page cannot be had for
 * another reason, returns -EAGAIN: the request is pending then, the page counts as
 * used, and L2 is not entered before it was had.
 */
static __always_inline int kvm_nested_page_use(struct kvm_vcpu *vcpu,
					       struct kvm_nested_page *page,
					       gpa_t gpa, hpa_t *hpa)
{
	struct gfn_to_pfn_cache *gpc = &page->gpc;

	read_lock(&gpc->lock);
	if (unlikely(!gpc->valid || gpc->gpa != gpa ||
		     gpc->generation != kvm_memslots(gpc->kvm)->generation)) {
		read_unlock(&gpc->lock);
		return __kvm_nested_page_use(vcpu, page, gpa, hpa);
	}
	WRITE_ONCE(gpc->vcpu, vcpu);
	*hpa = pfn_to_hpa(gpc->pfn);
	kvm_nested_page_accessed(page);
	read_unlock(&gpc->lock);
	return 0;
}

/*
 * Hardware does not have the page's address any more.  The vCPU is outside of guest
 * mode, so this needs no lock: an event that still finds the vCPU kicks it in vain.
 */
static inline void kvm_nested_page_unuse(struct kvm_nested_page *page)
{
	WRITE_ONCE(page->gpc.vcpu, NULL);
}

#endif /* __KVM_X86_NESTED_PAGE_H */
