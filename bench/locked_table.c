// SPDX-License-Identifier: GPL-2.0
/*
 * For comparison only: the interface of the nested context table as one would
 * build it first. One spinlock, taken by every load and every clear, covers the
 * look-up, the owners and a list in order of last use. Capacity, private
 * contexts and statistics are as in nested.c.
 */
#include <linux/kvm_host.h>

#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "nested.h"

struct kvm_nested_context_table {
	spinlock_t lock;
	unsigned int count;
	unsigned int hash_bits;
	struct list_head lru; /* the last used first */
	struct hlist_head hash[];
};

static struct hlist_head *bucket(struct kvm_nested_context_table *table,
				 gpa_t gpa)
{
	return &table->hash[hash_64(gpa, table->hash_bits)];
}

static bool in_use(struct kvm_nested_context *ctx)
{
	return ctx->owner.counter & KVM_NESTED_IN_USE;
}

static bool is_mine(struct kvm_nested_context *ctx, struct kvm_vcpu *vcpu)
{
	return ctx->owner.counter == ((long)vcpu | KVM_NESTED_IN_USE);
}

static void park(struct kvm_nested_context_table *table, struct kvm_vcpu *vcpu)
{
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;

	ctx->owner.counter = (long)vcpu;
	vcpu->arch.nested.last = NULL;
	if (!kvm_nested_context_is_private(vcpu, ctx))
		list_move(&ctx->lru, &table->lru);
}

static struct kvm_nested_context *lookup(struct kvm_nested_context_table *table,
					 gpa_t gpa)
{
	struct kvm_nested_context *ctx;

	hlist_for_each_entry(ctx, bucket(table, gpa), hash) {
		if (ctx->gpa == gpa)
			return ctx;
	}
	return NULL;
}

static struct kvm_nested_context *victim(struct kvm_nested_context_table *table)
{
	struct kvm_nested_context *ctx;

	list_for_each_entry_reverse(ctx, &table->lru, lru) {
		if (!in_use(ctx)) {
			hlist_del(&ctx->hash);
			list_del(&ctx->lru);
			return ctx;
		}
	}
	return NULL;
}

/* With the lock held, which is dropped to allocate. */
static struct kvm_nested_context *miss(struct kvm_nested_context_table *table,
				       struct kvm_vcpu *vcpu, gpa_t gpa,
				       bool *reset)
{
	struct kvm_vm_stat *stat = &vcpu->kvm->stat;
	struct kvm_nested_context *ctx = NULL;

	if (table->count < (u64)vcpu->kvm->arch.nested_oversub_ratio *
				   atomic_read(&vcpu->kvm->online_vcpus)) {
		table->count++;
		spin_unlock(&table->lock);
		ctx = kvm_x86_ops.nested_ops->alloc_context(vcpu, true);
		spin_lock(&table->lock);
		if (ctx)
			atomic64_inc(&stat->nested_context_new);
		else
			table->count--;
	}
	if (!ctx) {
		ctx = victim(table);
		if (!ctx)
			return NULL;
		*reset = true;
		atomic64_inc(&stat->nested_context_recycle);
	}
	ctx->gpa = gpa;
	hlist_add_head(&ctx->hash, bucket(table, gpa));
	list_add(&ctx->lru, &table->lru);
	return ctx;
}

struct kvm_nested_context *kvm_nested_context_load(struct kvm_vcpu *vcpu,
						   gpa_t gpa)
{
	struct kvm_nested_context_table *table =
		vcpu->kvm->arch.nested_contexts;
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;
	struct kvm_nested_context *ctx;
	bool reset = false, flush = false;

	spin_lock(&table->lock);
	if (nested->last && is_mine(nested->last, vcpu))
		park(table, vcpu);
	ctx = lookup(table, gpa);
	if (!ctx) {
		ctx = miss(table, vcpu, gpa, &reset);
	} else if (in_use(ctx)) {
		ctx = NULL;
	} else {
		list_move(&ctx->lru, &table->lru);
		flush = ++nested->reuse - nested->reuse_seen >= 64;
	}
	if (!ctx) {
		ctx = nested->fallback;
		ctx->gpa = gpa;
		atomic64_inc(&vcpu->kvm->stat.nested_context_fallback);
	}
	ctx->owner.counter = (long)vcpu | KVM_NESTED_IN_USE;
	nested->last = ctx;
	spin_unlock(&table->lock);

	if (reset)
		kvm_x86_ops.nested_ops->reset_context(ctx);
	if (flush)
		__kvm_nested_context_vcpu_put(vcpu);
	return ctx;
}

void kvm_nested_context_clear(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_nested_context_table *table =
		vcpu->kvm->arch.nested_contexts;
	struct kvm_nested_context *ctx = vcpu->arch.nested.last;

	spin_lock(&table->lock);
	if (ctx && is_mine(ctx, vcpu) && ctx->gpa == gpa)
		park(table, vcpu);
	spin_unlock(&table->lock);
}

void __kvm_nested_context_vcpu_put(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_nested *nested = &vcpu->arch.nested;

	atomic64_add(nested->reuse - nested->reuse_seen,
		     &vcpu->kvm->stat.nested_context_reuse);
	nested->reuse_seen = nested->reuse;
}

int kvm_nested_context_table_init(struct kvm *kvm)
{
	unsigned int bits =
		max_t(unsigned int, 3,
		      order_base_2(kvm->arch.nested_oversub_ratio *
				   atomic_read(&kvm->online_vcpus)));
	struct kvm_nested_context_table *table;

	table = kvzalloc(struct_size(table, hash, BIT(bits)),
			 GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	spin_lock_init(&table->lock);
	INIT_LIST_HEAD(&table->lru);
	table->hash_bits = bits;
	kvm->arch.nested_contexts = table;
	return 0;
}

void kvm_nested_context_table_destroy(struct kvm *kvm)
{
	struct kvm_nested_context_table *table = kvm->arch.nested_contexts;
	struct kvm_nested_context *ctx, *tmp;

	list_for_each_entry_safe(ctx, tmp, &table->lru, lru)
		kvm_x86_ops.nested_ops->free_context(ctx);
	kvfree(table);
	kvm->arch.nested_contexts = NULL;
}
