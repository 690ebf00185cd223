/* SPDX-License-Identifier: GPL-2.0 */
/* A table to measure; each is compiled by itself and called by pointer. */
#ifndef CONTENDER_H
#define CONTENDER_H

#include <linux/kvm_host.h>

struct contender {
	int (*init)(struct kvm *kvm);
	void (*destroy)(struct kvm *kvm);
	struct kvm_nested_context *(*load)(struct kvm_vcpu *vcpu, gpa_t gpa);
	void (*clear)(struct kvm_vcpu *vcpu, gpa_t gpa);
};

extern const struct contender lockless, locked;

#endif
