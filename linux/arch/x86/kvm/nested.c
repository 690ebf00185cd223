// SPDX-License-Identifier: GPL-2.0-only
/*
 * The nested context table.
 *
 * When L1 multiplexes many L2 vCPUs, L0 keeps a context for each of them, finds
 * it again by the guest-physical address of L2's control block, and reuses it
 * when the L2 comes back, on whichever L1 vCPU that happens.
 *
 * A context's life:
 *
 *	load	found		the usual case: one walk of a hash bucket without
 *				a lock, and one exchange on the owner word.  A
 *				vCPU that goes back to the context it used last
 *				does not even hash.
 *		allocated	below the VM's capacity
 *		recycled	at capacity: an idle one is taken over and reset
 *	clear	parked		nobody uses it, everybody may find it
 *	destroy	freed		with the VM, and not before
 *
 * If all fails the vCPU gets its private context, and the vendor code does what
 * it would do without this file.  So a load never fails.  What L1 can do to the
 * table is to make it useless to itself.
 *
 * Who may do what to a context, and what is read without a lock, is told at
 * struct kvm_nested_context.
 *
 * Replacement.  L1 schedulers go round their L2s.  Against a loop that is one
 * larger than the table, recycling the least recently used context always takes
 * the one that is needed soonest, and nothing is ever found.  So a context that
 * was recycled is put where the next victim is taken from, and earns its place
 * only by being found again (bimodal insertion, Qureshi et al., "Adaptive
 * insertion policies for high performance caching", ISCA 2007).  What does not
 * fit passes through few slots, and the others hit.  One recycling in
 * NESTED_KEEP_INTERVAL does keep its place, which is how a new working set gets
 * in: it needs about that many misses for each slot.
 *
 * A hit only marks the context as used.  The list is put in order when a victim
 * is looked for: what was used since goes to the front, unmarked.
 */
#include <linux/kvm_host.h>

#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "nested.h"
#include "smm.h"
#include "trace.h"

/* Read when a VM is made, so a change is for new VMs only. */
static unsigned int nested_oversub_ratio = KVM_NESTED_OVERSUB_RATIO;
module_param(nested_oversub_ratio, uint, 0644);
MODULE_PARM_DESC(nested_oversub_ratio,
		 "Nested contexts kept for each online vCPU of a VM (0 = off)");

/* One recycled context in this many keeps its place, see above. */
#define NESTED_KEEP_INTERVAL	32

/* Used contexts that are passed over in one search for a victim. */
#define NESTED_SECOND_CHANCES	64

/*
 * Hits that a vCPU counts by itself before it adds them to the VM's, which all
 * vCPUs write.
 */
#define NESTED_REUSE_BATCH	1024

#define NESTED_MIN_HASH_BITS	3
#define NESTED_MAX_HASH_BITS	16

/**
 * struct kvm_nested_context_table - all contexts of a VM
 * @lock:	serialises misses: allocation, insertion, recycling.  Innermost;
 *		nothing is allocated or freed under it.
 * @count:	contexts, including those that are being allocated; under @lock
 * @recycled:	contexts that were taken over; under @lock
 * @lru:	all contexts, the next victim last; under @lock
 * @hash_bits:	size of @hash, fixed
 * @hash:	buckets; written under @lock, followed without
 */
struct kvm_nested_context_table {
	spinlock_t lock;		/* misses */
	unsigned int count;
	unsigned int recycled;
	struct list_head lru;
	unsigned int hash_bits;
	struct hlist_head hash[];
};

static struct hlist_head *nested_context_bucket(struct kvm_nested_context_table *table,
						gpa_t gpa)
{
	return &table->hash[hash_64(gpa, table->hash_bits)];
}

/*
 * The table that @vcpu may use now.  SMM may see other memory at the same
 * address, so a vCPU in SMM has none.
 */
static struct kvm_nested_context_table *nested_context_table(struct kvm_vcpu *vcpu)
{
	if (is_smm(vcpu))
		return NULL;

	/* Pairs with the release in kvm_nested_context_table_init(). */
	return smp_load_acquire(&vcpu->kvm->arch.nested_contexts);
}

static u64 nested_context_capacity(struct kvm *kvm)
{
	return (u64)kvm->arch.nested_oversub_ratio *
	       atomic_read(&kvm->online_vcpus);
}

static long nested_context_parked_by(struct kvm_vcpu *vcpu)
{
	return (long)vcpu;
}

static long nested_context_in_use_by(struct kvm_vcpu *vcpu)
{
	return (long)vcpu | KVM_NESTED_IN_USE;
}

static bool nested_context_is_mine(struct kvm_nested_context *ctx,
				   struct kvm_vcpu *vcpu)
{
	return atomic_long_read(&ctx->owner) == nested_context_in_use_by(vcpu);
}

/*
 * Take a parked context.  @old is what the owner word was, for those who have to
 * put it back.
 */
static bool nested_context_try_take(struct kvm_nested_context *ctx,
				    struct kvm_vcpu *vcpu, long *old)
{
	*old = atomic_long_read(&ctx->owner);
	do {
		if (*old & KVM_NESTED_IN_USE)
			return false;
	} while (!atomic_long_try_cmpxchg_acquire(&ctx->owner, old,
						  nested_context_in_use_by(vcpu)));
	return true;
}

static void nested_context_park(struct kvm_nested_context *ctx,
				struct kvm_vcpu *vcpu)
{
	trace_kvm_nested_context_clear(vcpu->vcpu_id, ctx->gpa);

	/* A private context is not kept: the next load tries for a real one. */
	if (kvm_nested_context_is_private(vcpu, ctx)) {
		vcpu->arch.nested.last = NULL;
		atomic_long_set(&ctx->owner, 0);
		return;
	}

	WRITE_ONCE(ctx->hot, true);
	atomic_long_set_release(&ctx->owner, nested_context_parked_by(vcpu));
}

/*
 * The context that this vCPU used last, if it is still as the vCPU left it and
 * is the one asked for.  The vCPU may also be using it right now.
 */
static bool nested_context_reenter(struct kvm_nested_context *ctx,
				   struct kvm_vcpu *vcpu, gpa_t gpa)
{
	long old = nested_context_parked_by(vcpu);

	if (READ_ONCE(ctx->gpa) != gpa)
		return false;

	if (nested_context_is_mine(ctx, vcpu))
		return true;

	/*
	 * There is no need to look at the key again.  Only an owner changes it,
	 * and only this vCPU's parking makes the word what it is here: who puts
	 * an old one back found it there.  So as long as the word is this, there
	 * was no owner that kept the context, and the key is the one that it was
	 * parked with.
	 */
	return atomic_long_try_cmpxchg_acquire(&ctx->owner, &old,
					       nested_context_in_use_by(vcpu));
}

/* The vCPU goes elsewhere: its last context is as good a victim as any other. */
static void nested_context_move_on(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;

	if (!ctx)
		return;

	if (nested_context_is_mine(ctx, vcpu))
		nested_context_park(ctx, vcpu);

	if (atomic_long_read(&ctx->owner) == nested_context_parked_by(vcpu))
		WRITE_ONCE(ctx->hot, false);
	vcpu->arch.nested.last = NULL;
}

/*
 * A context is never freed while the table exists, so following the links needs
 * no protection but the dependency ordering of RCU's list walk.  A context that
 * is recycled during the walk may lead into another bucket; the walk then ends
 * there, and a context that it missed is found under the lock.
 */
static struct kvm_nested_context *
nested_context_lookup(struct kvm_nested_context_table *table, gpa_t gpa)
{
	struct kvm_nested_context *ctx;

	hlist_for_each_entry_rcu(ctx, nested_context_bucket(table, gpa), hash,
				 true) {
		if (READ_ONCE(ctx->gpa) == gpa)
			return ctx;
	}
	return NULL;
}

static struct kvm_nested_context *
nested_context_try_hit(struct kvm_nested_context_table *table,
		       struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_nested_context *ctx = nested_context_lookup(table, gpa);
	long old;

	if (!ctx || !nested_context_try_take(ctx, vcpu, &old))
		return NULL;

	/* It may have been recycled between the look and the exchange. */
	if (unlikely(ctx->gpa != gpa)) {
		atomic_long_set_release(&ctx->owner, old);
		return NULL;
	}
	return ctx;
}

static void nested_context_insert(struct kvm_nested_context_table *table,
				  struct kvm_nested_context *ctx, gpa_t gpa,
				  bool keep)
{
	lockdep_assert_held(&table->lock);

	WRITE_ONCE(ctx->gpa, gpa);
	WRITE_ONCE(ctx->used, false);
	WRITE_ONCE(ctx->hot, false);
	ctx->passing = !keep;
	hlist_add_head_rcu(&ctx->hash, nested_context_bucket(table, gpa));
	if (keep)
		list_add(&ctx->lru, &table->lru);
	else
		list_add_tail(&ctx->lru, &table->lru);
}

/*
 * Take the least useful idle context.  One in use, or hot if @spare_hot, stays
 * where it is in the list: it has not been found useful, it is just not to be
 * had now.  Used ones get a second chance, but only so many, for the lock is
 * held.  The second round is for one that got its chance at the very front.
 */
static struct kvm_nested_context *
nested_context_take_victim(struct kvm_nested_context_table *table,
			   struct kvm_vcpu *vcpu, bool spare_hot)
{
	int round, chances = NESTED_SECOND_CHANCES;
	struct kvm_nested_context *ctx, *tmp;
	long old;

	lockdep_assert_held(&table->lock);

	for (round = 0; round < 2; round++) {
		list_for_each_entry_safe_reverse(ctx, tmp, &table->lru, lru) {
			if (atomic_long_read(&ctx->owner) & KVM_NESTED_IN_USE)
				continue;
			if (spare_hot && READ_ONCE(ctx->hot))
				continue;
			if (READ_ONCE(ctx->used) && chances) {
				chances--;
				WRITE_ONCE(ctx->used, false);
				ctx->passing = false;
				list_move(&ctx->lru, &table->lru);
				continue;
			}
			if (nested_context_try_take(ctx, vcpu, &old))
				return ctx;
		}
	}
	return NULL;
}

/*
 * The context that the vCPU comes from, if nothing speaks for it.  A vCPU that
 * goes round L2s that do not fit recycles the same context all the time.  It
 * need not search for it behind those that other vCPUs are passing through.
 */
static struct kvm_nested_context *
nested_context_take_passing(struct kvm_nested_context_table *table,
			    struct kvm_nested_context *prev,
			    struct kvm_vcpu *vcpu)
{
	long old;

	lockdep_assert_held(&table->lock);

	if (prev && prev->passing && !READ_ONCE(prev->used) &&
	    nested_context_try_take(prev, vcpu, &old))
		return prev;
	return NULL;
}

static struct kvm_nested_context *
nested_context_recycle(struct kvm_nested_context_table *table,
		       struct kvm_nested_context *prev,
		       struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_nested_context *ctx;

	lockdep_assert_held(&table->lock);

	ctx = nested_context_take_passing(table, prev, vcpu);
	if (!ctx)
		ctx = nested_context_take_victim(table, vcpu, true);
	if (!ctx)
		ctx = nested_context_take_victim(table, vcpu, false);
	if (!ctx)
		return NULL;

	trace_kvm_nested_context_recycle(vcpu->vcpu_id, ctx->gpa, gpa);

	/* Walkers may stand on it, see nested_context_lookup(). */
	hlist_del_rcu(&ctx->hash);
	list_del(&ctx->lru);
	nested_context_insert(table, ctx, gpa,
			      ++table->recycled % NESTED_KEEP_INTERVAL == 0);
	return ctx;
}

/*
 * The lockless look-up found nothing to take.  With the lock held the table can
 * be believed: the context is in it and free, or in it and in use elsewhere, or
 * not in it.
 */
static struct kvm_nested_context *
nested_context_miss(struct kvm_nested_context_table *table,
		    struct kvm_nested_context *prev,
		    struct kvm_vcpu *vcpu, gpa_t gpa,
		    enum kvm_nested_context_outcome *outcome)
{
	const struct kvm_x86_nested_ops *ops = kvm_x86_ops.nested_ops;
	struct kvm_nested_context *ctx, *new = NULL;
	long old;

	might_sleep();

	*outcome = KVM_NESTED_CONTEXT_PRIVATE;

	spin_lock(&table->lock);

	ctx = nested_context_lookup(table, gpa);
	if (!ctx && table->count < nested_context_capacity(vcpu->kvm)) {
		/* Reserve the place, the lock is dropped to allocate. */
		table->count++;
		spin_unlock(&table->lock);
		new = ops->alloc_context(vcpu, true);
		spin_lock(&table->lock);

		/* Another vCPU may have been here for the same block. */
		ctx = nested_context_lookup(table, gpa);
		if (!new || ctx)
			table->count--;
	}

	if (ctx) {
		if (nested_context_try_take(ctx, vcpu, &old))
			*outcome = KVM_NESTED_CONTEXT_HIT;
		else
			ctx = NULL;
	} else if (new) {
		ctx = new;
		new = NULL;
		atomic_long_set(&ctx->owner, nested_context_in_use_by(vcpu));
		nested_context_insert(table, ctx, gpa, true);
		*outcome = KVM_NESTED_CONTEXT_NEW;
	} else {
		ctx = nested_context_recycle(table, prev, vcpu, gpa);
		if (ctx)
			*outcome = KVM_NESTED_CONTEXT_RECYCLED;
	}

	spin_unlock(&table->lock);

	if (new)
		ops->free_context(new);

	/*
	 * The context is found by its new key already, but is in use: nobody
	 * gets to what it kept before it is gone.
	 */
	if (*outcome == KVM_NESTED_CONTEXT_RECYCLED)
		ops->reset_context(ctx);

	return ctx;
}

static void nested_context_count(struct kvm_vcpu *vcpu,
				 enum kvm_nested_context_outcome outcome)
{
	struct kvm_vm_stat *stat = &vcpu->kvm->stat;
	unsigned long reuse;

	switch (outcome) {
	case KVM_NESTED_CONTEXT_HIT:
		/* Preemption may put the vCPU anywhere here, see there. */
		reuse = vcpu->arch.nested.reuse + 1;
		WRITE_ONCE(vcpu->arch.nested.reuse, reuse);
		if (reuse - READ_ONCE(vcpu->arch.nested.reuse_seen) >=
		    NESTED_REUSE_BATCH) {
			preempt_disable();
			kvm_nested_context_vcpu_put(vcpu);
			preempt_enable();
		}
		break;
	case KVM_NESTED_CONTEXT_NEW:
		atomic64_inc(&stat->nested_context_new);
		break;
	case KVM_NESTED_CONTEXT_RECYCLED:
		atomic64_inc(&stat->nested_context_recycle);
		break;
	case KVM_NESTED_CONTEXT_PRIVATE:
		/* With contexts switched off this is no failure. */
		if (vcpu->kvm->arch.nested_oversub_ratio)
			atomic64_inc(&stat->nested_context_fallback);
		break;
	}
}

/**
 * __kvm_nested_context_vcpu_put - see kvm_nested_context_vcpu_put()
 * @vcpu: the vCPU that leaves its CPU
 *
 * @reuse only grows and is written only by the vCPU's task, @reuse_seen only
 * here; so it does no harm that preemption may come here in the middle of an
 * increment.
 *
 * Context: as there.
 */
void __kvm_nested_context_vcpu_put(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	unsigned long reuse = READ_ONCE(nested->reuse);

	atomic64_add(reuse - nested->reuse_seen,
		     &vcpu->kvm->stat.nested_context_reuse);
	WRITE_ONCE(nested->reuse_seen, reuse);
}

/**
 * kvm_nested_context_load - get the context for a control block
 * @vcpu: the vCPU that is about to use the control block
 * @gpa: guest-physical address of the block in bytes, page aligned; bits 11:0
 *	are the vendor's, to tell kinds of block apart
 *
 * The context is @vcpu's alone until kvm_nested_context_clear(), or until it
 * loads another one: a vCPU uses one context at a time.  Loading the one that it
 * uses already is allowed and does nothing, be it the private one.
 *
 * Never fails.  If there is no memory, the block is in use on another vCPU, or
 * nothing can be recycled, the vCPU gets its private context, see
 * kvm_nested_context_is_private().
 *
 * A context found may have been kept from another time: the vendor checks
 * whatever it takes from it against the control block as it is now.
 *
 * Context: the vCPU's task, no spinlock held.  May sleep.
 * Return: the context, owned by @vcpu; never NULL.
 */
struct kvm_nested_context *kvm_nested_context_load(struct kvm_vcpu *vcpu,
						   gpa_t gpa)
{
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	enum kvm_nested_context_outcome outcome;
	struct kvm_nested_context_table *table;
	struct kvm_nested_context *ctx, *prev;

	lockdep_assert_preemption_enabled();

	prev = nested->last;
	if (prev && !is_smm(vcpu) && nested_context_reenter(prev, vcpu, gpa))
		return prev;

	nested_context_move_on(vcpu);

	table = nested_context_table(vcpu);
	if (table) {
		outcome = KVM_NESTED_CONTEXT_HIT;
		ctx = nested_context_try_hit(table, vcpu, gpa);
		if (!ctx)
			ctx = nested_context_miss(table, prev, vcpu, gpa,
						  &outcome);
	} else {
		outcome = KVM_NESTED_CONTEXT_PRIVATE;
		ctx = NULL;
	}

	if (!ctx) {
		ctx = nested->fallback;
		if (nested_context_is_mine(ctx, vcpu)) {
			/* See kvm_nested_context_retry(). */
			nested->last = ctx;
			return ctx;
		}
		ctx->gpa = gpa;
		atomic_long_set(&ctx->owner, nested_context_in_use_by(vcpu));
	} else if (outcome == KVM_NESTED_CONTEXT_HIT && !READ_ONCE(ctx->used)) {
		WRITE_ONCE(ctx->used, true);
	}

	nested->last = ctx;
	nested_context_count(vcpu, outcome);
	trace_kvm_nested_context_load(vcpu->vcpu_id, gpa, outcome);
	return ctx;
}
EXPORT_SYMBOL_GPL(kvm_nested_context_load);

/**
 * kvm_nested_context_retry - trade the private context for a kept one
 * @vcpu: the vCPU
 * @gpa: as for kvm_nested_context_load()
 *
 * For a vendor whose L2s run many times between load and clear: what was in the
 * way at the load may be gone.  A load if @vcpu does not use its private context
 * for @gpa.  If it does and there still is no other to be had, it keeps that, and
 * nothing is counted: the load was.
 *
 * Context: as for kvm_nested_context_load().
 * Return: the context, owned by @vcpu; never NULL.
 */
struct kvm_nested_context *kvm_nested_context_retry(struct kvm_vcpu *vcpu,
						    gpa_t gpa)
{
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	struct kvm_nested_context *private = nested->fallback, *ctx;

	/* While it is the last one, it is in use. */
	if (nested->last != private || private->gpa != gpa)
		return kvm_nested_context_load(vcpu, gpa);

	/*
	 * In use without being the last one it is neither re-entered nor counted
	 * again, but there still if nothing else is.
	 */
	nested->last = NULL;
	ctx = kvm_nested_context_load(vcpu, gpa);
	if (ctx != private)
		atomic_long_set(&private->owner, 0);
	return ctx;
}
EXPORT_SYMBOL_GPL(kvm_nested_context_retry);

/**
 * kvm_nested_context_clear - let go of a context
 * @vcpu: the vCPU that may be using it
 * @gpa: the address that it was loaded with
 *
 * The context stays in the table for whoever loads it next.  If @vcpu does not
 * use a context for @gpa there is nothing to do; in particular, a context in use
 * on another vCPU is not touched.
 *
 * Context: the vCPU's task, or nobody runs the vCPU.  Does not sleep.
 */
void kvm_nested_context_clear(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;

	if (!ctx || !nested_context_is_mine(ctx, vcpu) || ctx->gpa != gpa)
		return;

	nested_context_park(ctx, vcpu);
}
EXPORT_SYMBOL_GPL(kvm_nested_context_clear);

/**
 * kvm_nested_context_find - look for a context without taking it
 * @vcpu: the vCPU that asks
 * @gpa: the control block's address, as for kvm_nested_context_load()
 *
 * For accesses to a control block that are not runs of it.  They change neither
 * the owner, nor the statistics, nor what is recycled next.
 *
 * The context may be in use on another vCPU and may be recycled at any moment,
 * so the caller may use only what has a lock of its own, and must check under
 * that lock that it still is about @gpa.  It will not be freed before the VM is.
 *
 * Context: the vCPU's task.  Does not sleep.
 * Return: a context that was in the table for @gpa, or NULL.
 */
struct kvm_nested_context *kvm_nested_context_find(struct kvm_vcpu *vcpu,
						   gpa_t gpa)
{
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;
	struct kvm_nested_context_table *table;

	table = nested_context_table(vcpu);
	if (!table)
		return NULL;

	if (ctx && !kvm_nested_context_is_private(vcpu, ctx) &&
	    READ_ONCE(ctx->gpa) == gpa)
		return ctx;

	return nested_context_lookup(table, gpa);
}
EXPORT_SYMBOL_GPL(kvm_nested_context_find);

/**
 * kvm_nested_context_init_vm - fix a new VM's ratio of contexts to vCPUs
 * @kvm: the VM
 *
 * What a context keeps is kmap()ed for long, which would use up the few slots
 * that there are for high memory.
 *
 * Context: the VM is being made, nobody else knows it.
 */
void kvm_nested_context_init_vm(struct kvm *kvm)
{
	if (!IS_ENABLED(CONFIG_HIGHMEM))
		kvm->arch.nested_oversub_ratio = READ_ONCE(nested_oversub_ratio);
}

/**
 * kvm_nested_context_table_init - make a VM's table
 * @kvm: the VM, one of whose vCPUs goes nested
 *
 * Called whenever L1 turns virtualization on; the first call makes the table.
 * With a ratio of 0 there is none.
 *
 * Context: any vCPU's task, possibly several at once.  May sleep.
 * Return: 0, -EINVAL if the vendor lacks one of the three operations, -ENOMEM.
 * Without a table every load is served by a private context, so a caller may
 * ignore the error.
 */
int kvm_nested_context_table_init(struct kvm *kvm)
{
	const struct kvm_x86_nested_ops *ops = kvm_x86_ops.nested_ops;
	struct kvm_nested_context_table *table;
	unsigned int bits;
	u64 capacity;

	if (!ops->alloc_context || !ops->free_context || !ops->reset_context)
		return -EINVAL;

	if (!kvm->arch.nested_oversub_ratio ||
	    READ_ONCE(kvm->arch.nested_contexts))
		return 0;

	/*
	 * Two buckets for each context, for most to be alone in theirs.  vCPUs
	 * that are added later share them: the capacity grows, the buckets do
	 * not.
	 */
	capacity = min_t(u64, nested_context_capacity(kvm),
			 BIT(NESTED_MAX_HASH_BITS - 1));
	bits = max_t(unsigned int, order_base_2(capacity) + 1,
		     NESTED_MIN_HASH_BITS);

	table = kvzalloc(struct_size(table, hash, BIT(bits)),
			 KVM_NESTED_CONTEXT_GFP);
	if (!table)
		return -ENOMEM;

	spin_lock_init(&table->lock);
	INIT_LIST_HEAD(&table->lru);
	table->hash_bits = bits;

	/* Publish; the loser of a race has the winner's table. */
	if (cmpxchg_release(&kvm->arch.nested_contexts, NULL, table))
		kvfree(table);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_nested_context_table_init);

/*
 * L1 turns virtualization on.  Makes the vCPU's fallback context and, if it is the
 * first one, the VM's table; without memory for that, the VM does without.
 */
int kvm_nested_context_enable(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx;

	ctx = kvm_x86_ops.nested_ops->alloc_context(vcpu, false);
	if (!ctx)
		return -ENOMEM;

	WRITE_ONCE(vcpu->arch.nested.fallback, ctx);
	kvm_nested_context_table_init(vcpu->kvm);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_nested_context_enable);

/* L1 has turned virtualization off, or the vCPU goes. */
void kvm_nested_context_disable(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	struct kvm_nested_context *ctx = nested->fallback;

	if (!ctx)
		return;

	nested_context_move_on(vcpu);
	WRITE_ONCE(nested->fallback, NULL);
	kvm_x86_ops.nested_ops->free_context(ctx);
}
EXPORT_SYMBOL_GPL(kvm_nested_context_disable);

/**
 * kvm_nested_context_table_destroy - free a VM's table and all its contexts
 * @kvm: the VM
 *
 * Context: the VM's last user is gone: no vCPU exists, or none will load, clear
 * or find again.  May sleep.
 */
void kvm_nested_context_table_destroy(struct kvm *kvm)
{
	struct kvm_nested_context_table *table = kvm->arch.nested_contexts;
	struct kvm_nested_context *ctx, *tmp;

	if (!table)
		return;

	kvm->arch.nested_contexts = NULL;
	list_for_each_entry_safe(ctx, tmp, &table->lru, lru)
		kvm_x86_ops.nested_ops->free_context(ctx);
	kvfree(table);
}
