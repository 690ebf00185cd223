/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: what L0 keeps of an L2 while its L1 runs another one.
 *
 * Only the types that struct kvm_arch and struct kvm_vcpu_arch embed live
 * here; the operations are in arch/x86/kvm/nested.h.
 */
#ifndef _ASM_X86_KVM_NESTED_H
#define _ASM_X86_KVM_NESTED_H

#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/kvm_types.h>
#include <linux/list.h>
#include <linux/types.h>

struct kvm_nested_context_table;

/**
 * struct kvm_nested_context - what L0 keeps for one L2 vCPU
 * @gpa:	the key: guest-physical address of the control block.  Blocks are
 *		page aligned; the vendor may use bits 11:0 to tell kinds of
 *		control block at one address apart.
 * @owner:	who has it, see below
 * @used:	a load found it since the replacement last looked at it
 * @hot:	the vCPU that parked it has not moved on to another one yet, so
 *		it is likely to come back.  A hint, it may be stale.
 * @passing:	it was recycled and is the next victim, unless it is found again;
 *		the table's lock
 * @hash:	link in the table's bucket for @gpa
 * @lru:	link in the table's replacement list
 *
 * The vendor embeds this in a structure of its own, with the things that are
 * worth keeping.  Once a context is in the table, it stays until the table is
 * destroyed; only its key changes, when it is recycled.  That is why lockless
 * code may look at any context at any time: what it finds may be outdated, but
 * it is always a context.
 *
 * @owner holds the vCPU that used the context last, and KVM_NESTED_IN_USE
 * while it still does.  The whole protocol is this one word:
 *
 *	vCPU | 0	parked.  Anybody may take it by exchanging the word for
 *			its own vCPU | KVM_NESTED_IN_USE, with acquire ordering.
 *			Who wins the exchange owns the context.
 *	vCPU | IN_USE	owned.  Nobody else touches what the vendor keeps, unless
 *			that has a lock of its own.  Parking stores the word
 *			without the flag, with release ordering.
 *
 * The vCPU is an identity and is never dereferenced through @owner.  If a vCPU
 * finds the word as it left it, nobody else used the context in between.
 *
 * @gpa changes only while the context is owned and the table's lock is held.
 * Who took a context without the lock must look at @gpa again, now that it
 * cannot change any more.  @hash and @lru belong to the table's lock; @hash is
 * followed without it.
 */
struct kvm_nested_context {
	gpa_t gpa;
	bool passing;
	struct hlist_node hash;
	struct list_head lru;

	/*
	 * Written by every load and clear, where the above is written by misses
	 * only: vCPUs that walk past this context to another one in its bucket
	 * do not wait for the cache line.
	 */
	atomic_long_t owner ____cacheline_aligned_in_smp;
	bool used;
	bool hot;
};

#define KVM_NESTED_IN_USE	1L

/**
 * struct kvm_vcpu_nested - a vCPU's hold on nested contexts
 * @last:	the context this vCPU uses, or the one that it parked last.
 *		NULL if there is none.  The vCPU's own, nobody else looks.
 * @fallback:	the vCPU's private context, used when the table has none to
 *		offer.  It is in no table and keeps nothing.  NULL while L1 has not
 *		turned virtualization on.
 * @reuse:	loads of this vCPU that found a kept context
 * @reuse_seen:	how many of those are in the VM's statistics already
 * @missing:	address of a page in use that no memslot has
 * @waited:	when the vCPU last waited for a page, in jiffies
 * @backoff:	how long, in milliseconds
 * @wait:	it must wait before it goes on
 */
struct kvm_vcpu_nested {
	struct kvm_nested_context *last;
	struct kvm_nested_context *fallback;
	unsigned long reuse;
	unsigned long reuse_seen;

	gpa_t missing;
	unsigned long waited;
	unsigned int backoff;
	bool wait;
};

#endif /* _ASM_X86_KVM_NESTED_H */
