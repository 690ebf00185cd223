/* SPDX-License-Identifier: GPL-2.0 */
static inline bool is_smm(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.smm;
}
