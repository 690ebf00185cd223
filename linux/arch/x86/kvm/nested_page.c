// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of L1 that a nested context keeps mapped; see nested_page.h.
 */
#include <linux/kvm_host.h>
#include <linux/lockdep.h>

#include "nested_page.h"

/*
 * How often a mapping that is invalidated again and again is renewed: before the vCPU
 * sleeps, and before it maps the page for one use, past the notifiers.
 */
#define NESTED_PAGE_TRIES	3
#define NESTED_PAGE_TRIES_MAX	100

/* Milliseconds between look-ups that fail: doubled from the first to the last. */
#define NESTED_PAGE_WAIT_MIN	1
#define NESTED_PAGE_WAIT_MAX	100

/*
 * Locks of other caches are taken in interrupts, those of contexts are not.
 * Tell lockdep that they are different.
 */
static struct lock_class_key nested_page_key;

void kvm_nested_page_init(struct kvm_nested_page *page, struct kvm *kvm,
			  bool kept, bool written)
{
	kvm_gpc_init(&page->gpc, kvm);
	lockdep_set_class(&page->gpc.lock, &nested_page_key);
	page->gpc.readonly = !written;
	page->gpc.nowait = true;
	page->kept = kept;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_init);

/* Unmap the page; it is looked up again before the next access. */
void kvm_nested_page_drop(struct kvm_nested_page *page)
{
	kvm_gpc_deactivate(&page->gpc);
	free_page((unsigned long)page->copy);
	page->copy = NULL;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_drop);

void __kvm_nested_page_accessed(struct kvm_nested_page *page)
{
	lockdep_assert_held_read(&page->gpc.lock);

	page->accessed = jiffies;
	kvm_set_pfn_accessed(page->gpc.pfn);
}
EXPORT_SYMBOL_GPL(__kvm_nested_page_accessed);

/* Look the page up.  Returns it, locked, or NULL. */
static void *kvm_nested_page_map(struct kvm_nested_page *page, gpa_t gpa, int tries)
{
	struct gfn_to_pfn_cache *gpc = &page->gpc;
	void *hva;
	int r;

	for (; tries; tries--) {
		r = kvm_gpc_activate(gpc, gpa, PAGE_SIZE);
		if (r && r != -EAGAIN)
			return NULL;

		hva = r ? NULL : kvm_nested_page_trybegin(page, gpa);
		if (hva) {
			page->accessed = jiffies;
			if (!gpc->readonly)
				kvm_set_pfn_dirty(gpc->pfn);
			return hva;
		}
		cond_resched();
	}
	return NULL;
}

/* When the page is not mapped.  The error is that of kvm_vcpu_map(). */
void *__kvm_nested_page_begin(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			      gpa_t gpa)
{
	void *hva;
	int r;

	if (page->kept || kvm_nested_page_in_use(page)) {
		hva = kvm_nested_page_map(page, gpa, NESTED_PAGE_TRIES_MAX);
		if (hva)
			return hva;
	}

	/* Read what is only read, for the host sees a mapping as a write. */
	if (page->gpc.readonly && !page->copy)
		page->copy = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (page->copy) {
		r = kvm_read_guest_page(vcpu->kvm, gpa_to_gfn(gpa), page->copy, 0,
					PAGE_SIZE);
		if (!r)
			return page->copy;
		__kvm_nested_page_end_copy(page);
		return ERR_PTR(r);
	}

	r = kvm_vcpu_map(vcpu, gpa_to_gfn(gpa), &page->map);
	return r ? ERR_PTR(r) : page->map.hva;
}
EXPORT_SYMBOL_GPL(__kvm_nested_page_begin);

/* A page of a context of the table, mapped and locked; or NULL. */
static void *kvm_nested_page_begin_kept(struct kvm_nested_page *page, gpa_t gpa)
{
	void *hva;

	if (!page->kept)
		return NULL;

	hva = kvm_nested_page_trybegin(page, gpa);
	if (unlikely(!hva))
		return kvm_nested_page_map(page, gpa, NESTED_PAGE_TRIES);

	kvm_nested_page_accessed(page);
	return hva;
}

/* Copy the beginning of a page of a context that the vCPU owns. */
int kvm_nested_page_read(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			 gpa_t gpa, void *to, unsigned int len)
{
	void *hva = kvm_nested_page_begin_kept(page, gpa);

	if (unlikely(!hva))
		return kvm_read_guest_page(vcpu->kvm, gpa_to_gfn(gpa), to, 0, len);

	memcpy(to, hva, len);
	kvm_nested_page_tryend(vcpu, page, false);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_read);

int kvm_nested_page_write(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			  gpa_t gpa, const void *from, unsigned int len)
{
	void *hva = kvm_nested_page_begin_kept(page, gpa);

	if (unlikely(!hva))
		return kvm_vcpu_write_guest_page(vcpu, gpa_to_gfn(gpa), from, 0, len);

	memcpy(hva, from, len);
	kvm_nested_page_tryend(vcpu, page, true);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_write);

/*
 * Log as dirty what L0 or hardware has written.  The caller either holds the page's
 * lock or owns the context, so neither the memslot nor its generation changes.
 */
void kvm_nested_page_mark_dirty(struct kvm_vcpu *vcpu, struct kvm_nested_page *page)
{
	struct gfn_to_pfn_cache *gpc = &page->gpc;
	gfn_t gfn = gpa_to_gfn(gpc->gpa);

	if (unlikely(gpc->generation != kvm_memslots(gpc->kvm)->generation))
		kvm_vcpu_mark_page_dirty(vcpu, gfn);
	else if (unlikely(gpc->memslot && kvm_slot_dirty_track_enabled(gpc->memslot)))
		mark_page_dirty_in_slot(gpc->kvm, gpc->memslot, gfn);
}
EXPORT_SYMBOL_GPL(kvm_nested_page_mark_dirty);

/* The fallback keeps the memory for the next copy, other contexts rarely have one. */
void __kvm_nested_page_end_copy(struct kvm_nested_page *page)
{
	if (!page->kept)
		return;

	free_page((unsigned long)page->copy);
	page->copy = NULL;
}
EXPORT_SYMBOL_GPL(__kvm_nested_page_end_copy);

static bool kvm_nested_page_has_slot(struct kvm_nested_page *page, gpa_t gpa)
{
	struct kvm_memory_slot *slot;

	slot = gfn_to_memslot(page->gpc.kvm, gpa_to_gfn(gpa));
	return slot && (page->gpc.readonly || !(slot->flags & KVM_MEM_READONLY));
}

/* User space is moving or deleting the memslot right now, and does not see that. */
static bool kvm_nested_page_in_transit(struct kvm *kvm, gpa_t gpa)
{
	struct kvm_memory_slot *slot = gfn_to_memslot(kvm, gpa_to_gfn(gpa));

	return slot && slot->flags & KVM_MEMSLOT_INVALID;
}

/* When the page is not mapped, or memslots have changed. */
int __kvm_nested_page_use(struct kvm_vcpu *vcpu, struct kvm_nested_page *page,
			  gpa_t gpa, hpa_t *hpa)
{
	struct gfn_to_pfn_cache *gpc = &page->gpc;
	bool used = kvm_nested_page_in_use(page);
	u64 generation = gpc->generation;

	/* A look-up would go on with a page in use that is about to be another one. */
	if (!(used && kvm_nested_page_in_transit(gpc->kvm, gpa)) &&
	    kvm_nested_page_map(page, gpa, NESTED_PAGE_TRIES)) {
		WRITE_ONCE(gpc->vcpu, vcpu);
		*hpa = pfn_to_hpa(gpc->pfn);
		kvm_nested_page_tryend(vcpu, page, false);

		/* Hardware may have written while the old memslots were gone. */
		if (used && !gpc->readonly && gpc->generation != generation)
			kvm_nested_page_mark_dirty(vcpu, page);
		return 0;
	}

	if (!kvm_nested_page_has_slot(page, gpa)) {
		vcpu->arch.nested.missing = gpa;
		return -EFAULT;
	}

	WRITE_ONCE(gpc->vcpu, vcpu);
	kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
	return -EAGAIN;
}
EXPORT_SYMBOL_GPL(__kvm_nested_page_use);

/*
 * The caller has L1 execute an instruction again, which had to do with memory that
 * could not be looked up.  Have the vCPU wait before.
 */
void kvm_nested_pages_wait_later(struct kvm_vcpu *vcpu)
{
	vcpu->arch.nested.wait = true;
	kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
}
EXPORT_SYMBOL_GPL(kvm_nested_pages_wait_later);

/*
 * Whether L1 only seems to have no memory at @gpa, because user space is moving or
 * deleting the memslot right now.  If so, the caller must have L1 execute the
 * instruction again.
 */
bool kvm_nested_page_retry(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	if (!kvm_nested_page_in_transit(vcpu->kvm, gpa))
		return false;

	kvm_nested_pages_wait_later(vcpu);
	return true;
}
EXPORT_SYMBOL_GPL(kvm_nested_page_retry);

/*
 * Sleep until memory may be there again.  The end of an invalidation, an update of
 * the memslots and whatever else wakes a halted vCPU end the wait.  No event tells
 * that user space has made memory accessible, so look again after some time.
 */
static void kvm_nested_pages_wait(struct kvm_vcpu *vcpu)
	__releases(&vcpu->kvm->srcu) __acquires(&vcpu->kvm->srcu)
{
	struct rcuwait *wait = kvm_arch_vcpu_get_wait(vcpu);
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	struct kvm *kvm = vcpu->kvm;

	if (time_after(jiffies, nested->waited + HZ))
		nested->backoff = NESTED_PAGE_WAIT_MIN;
	else
		nested->backoff = min(2 * nested->backoff, NESTED_PAGE_WAIT_MAX);

	atomic_inc(&kvm->gpc_waiters);
	kvm_vcpu_srcu_read_unlock(vcpu);

	prepare_to_rcuwait(wait);
	set_current_state(TASK_INTERRUPTIBLE);
	if (!signal_pending(current) && !kvm_test_request(KVM_REQ_UNBLOCK, vcpu))
		schedule_timeout(msecs_to_jiffies(nested->backoff));
	finish_rcuwait(wait);

	kvm_vcpu_srcu_read_lock(vcpu);
	atomic_dec(&kvm->gpc_waiters);
	nested->waited = jiffies;
}

/*
 * Look up again the pages that hardware uses, before the vCPU enters the guest or
 * blocks.  If one cannot be had though a memslot has it, sleep for a while and leave
 * KVM_REQ_REFRESH_GPC pending, which keeps the vCPU out of the guest.
 *
 * Called with kvm->srcu held.  Returns 1, or -EFAULT if the vCPU has to exit to user
 * space: no memslot has the page, and the host took what was there.
 */
int kvm_nested_pages_refresh(struct kvm_vcpu *vcpu)
{
	const struct kvm_x86_nested_ops *ops = kvm_x86_ops.nested_ops;
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	bool wait = nested->wait;
	int r = 0;

	nested->wait = false;
	kvm_clear_request(KVM_REQ_UNBLOCK, vcpu);
	kvm_clear_request(KVM_REQ_REFRESH_GPC, vcpu);

	/* Look up after that: see what made the requests, or the next one. */
	smp_mb__after_atomic();

	/* A halted L2 that was just restored has no pages yet. */
	if (kvm_test_request(KVM_REQ_GET_NESTED_STATE_PAGES, vcpu) &&
	    ops->get_nested_state_pages(vcpu))
		kvm_clear_request(KVM_REQ_GET_NESTED_STATE_PAGES, vcpu);

	if (ops->refresh_pages)
		r = ops->refresh_pages(vcpu);

	if (r == -EFAULT) {
		kvm_make_request(KVM_REQ_REFRESH_GPC, vcpu);
		kvm_prepare_memory_fault_exit(vcpu, nested->missing, PAGE_SIZE,
					      false, false, false);
		return r;
	}

	if (r || wait)
		kvm_nested_pages_wait(vcpu);
	return 1;
}

/*
 * Memslots have changed.  Have nested vCPUs look their pages up again before they enter
 * the guest, and wait for those that are in it.
 */
void kvm_nested_pages_memslots_updated(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	bool nested = false;
	unsigned long i;

	if (!kvm_x86_ops.nested_ops->refresh_pages)
		return;

	kvm_for_each_vcpu(i, vcpu, kvm)
		nested |= !!READ_ONCE(vcpu->arch.nested.fallback);
	if (!nested)
		return;

	kvm_make_all_cpus_request(kvm, KVM_REQ_REFRESH_GPC);
	kvm_for_each_vcpu(i, vcpu, kvm)
		kvm_make_request(KVM_REQ_UNBLOCK, vcpu);
}
