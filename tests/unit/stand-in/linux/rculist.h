/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's hash lists for lockless readers.
 *
 * Every store of a link is a release here. The kernel's are plain stores or
 * WRITE_ONCE() but for the one that publishes a new head; the code under test
 * is for x86, where every store is a release, and ThreadSanitizer has to be
 * told. Following a link is an acquire in place of the address dependency.
 */
#ifndef STAND_IN_RCULIST_H
#define STAND_IN_RCULIST_H

#include <linux/atomic.h>
#include <linux/list.h>

#define stand_in_set_link(p, val) \
	__atomic_store_n(&(p), (val), __ATOMIC_RELEASE)

static inline struct hlist_node *stand_in_follow(struct hlist_node **link)
{
	stand_in_point(AT_WALK);
	return __atomic_load_n(link, __ATOMIC_ACQUIRE);
}

static inline void hlist_add_head_rcu(struct hlist_node *n,
				      struct hlist_head *h)
{
	struct hlist_node *first = h->first;

	stand_in_set_link(n->next, first);
	n->pprev = &h->first;
	stand_in_set_link(h->first, n);
	if (first)
		first->pprev = &n->next;
}

/* As in the kernel, the removed node still leads on. */
static inline void hlist_del_rcu(struct hlist_node *n)
{
	struct hlist_node *next = n->next;

	stand_in_set_link(*n->pprev, next);
	if (next)
		next->pprev = n->pprev;
	n->pprev = LIST_POISON2;
}

/* @cond is for lockdep: why the caller needs no RCU read lock. */
#define hlist_for_each_entry_rcu(pos, head, member, cond)                 \
	for (pos = hlist_entry_safe(stand_in_follow(&(head)->first),      \
				    typeof(*(pos)), member);              \
	     pos && (cond);                                               \
	     pos = hlist_entry_safe(stand_in_follow(&(pos)->member.next), \
				    typeof(*(pos)), member))

#endif
