/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts on SVM: L1's control block and MSR permission map stay mapped.
 */
#ifndef __KVM_X86_SVM_NESTED_CONTEXT_H
#define __KVM_X86_SVM_NESTED_CONTEXT_H

#include <linux/kvm_host.h>

#include "nested_page.h"

struct vcpu_svm;
struct vmcb;

struct vmcb *nested_svm_read_vmcb12(struct kvm_vcpu *vcpu, gpa_t gpa);
void nested_svm_fail_vmrun(struct kvm_vcpu *vcpu, gpa_t gpa, struct vmcb *vmcb12);
struct vmcb *nested_svm_begin_vmexit(struct kvm_vcpu *vcpu, gpa_t gpa);
void nested_svm_end_vmexit(struct kvm_vcpu *vcpu);
bool nested_svm_vmload_vmsave(struct kvm_vcpu *vcpu, gpa_t gpa, bool vmload);

void nested_svm_setup_msrpm(void);
bool nested_svm_merge_msrpm(struct vcpu_svm *svm);

int nested_svm_contexts_enable(struct vcpu_svm *svm);
void nested_svm_contexts_disable(struct vcpu_svm *svm);
void nested_svm_context_clear(struct kvm_vcpu *vcpu);

struct kvm_nested_context *svm_alloc_context(struct kvm_vcpu *vcpu, bool kept);
void svm_free_context(struct kvm_nested_context *ctx);
void svm_reset_context(struct kvm_nested_context *ctx);

#endif /* __KVM_X86_SVM_NESTED_CONTEXT_H */
