/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts on SVM: L1's control block and MSR bitmaps stay mapped.
 */
#ifndef __KVM_X86_SVM_NESTED_CONTEXT_H
#define __KVM_X86_SVM_NESTED_CONTEXT_H

#include <linux/kvm_host.h>

#include "nested_page.h"

struct vcpu_svm;
struct vmcb;

/**
 * struct svm_vmcb12_map - access to a vmcb12
 * @vmcb12:	the block, or a copy of it; NULL if it can't be accessed
 * @gpa:	its address as L1 gave it
 * @copied:	@vmcb12 is the vCPU's copy
 * @page:	else, L1's page
 */
struct svm_vmcb12_map {
	struct vmcb *vmcb12;
	gpa_t gpa;
	bool copied;
	struct kvm_nested_map page;
};

int svm_vmcb12_begin_vmrun(struct kvm_vcpu *vcpu, gpa_t gpa,
			   struct svm_vmcb12_map *m);
void svm_vmcb12_fail_vmrun(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m);
void svm_vmcb12_end_vmrun(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m);

int svm_vmcb12_begin_vmexit(struct kvm_vcpu *vcpu, gpa_t gpa,
			    struct svm_vmcb12_map *m);
void svm_vmcb12_end_vmexit(struct kvm_vcpu *vcpu, struct svm_vmcb12_map *m);

bool svm_vmcb12_vmload_vmsave(struct kvm_vcpu *vcpu, gpa_t gpa, bool vmload);

void svm_contexts_setup(void);
bool svm_context_merge_msrpm(struct vcpu_svm *svm);

void svm_contexts_init(struct vcpu_svm *svm);
void svm_contexts_free(struct vcpu_svm *svm);
void svm_context_leave(struct kvm_vcpu *vcpu);

struct kvm_nested_context *svm_alloc_context(struct kvm_vcpu *vcpu);
void svm_free_context(struct kvm_nested_context *ctx);
void svm_reset_context(struct kvm_nested_context *ctx);

#endif /* __KVM_X86_SVM_NESTED_CONTEXT_H */
