/* SPDX-License-Identifier: GPL-2.0 */
/* The tracepoints: each thread keeps what the last of a kind said. */
#ifndef STAND_IN_TRACE_H
#define STAND_IN_TRACE_H

#ifdef STAND_IN_BARE

#define trace_kvm_nested_context_load(vcpu_id, gpa, outcome) ((void)0)
#define trace_kvm_nested_context_clear(vcpu_id, gpa) ((void)0)
#define trace_kvm_nested_context_recycle(vcpu_id, old_gpa, new_gpa) ((void)0)

#else

struct stand_in_trace {
	unsigned long loads, clears, recycles;
	int load_vcpu, load_outcome;
	gpa_t load_gpa;
	int clear_vcpu;
	gpa_t clear_gpa;
	int recycle_vcpu;
	gpa_t recycle_old, recycle_new;
};

extern _Thread_local struct stand_in_trace stand_in_trace;

static inline void trace_kvm_nested_context_load(int vcpu_id, gpa_t gpa,
						 int outcome)
{
	stand_in_trace.loads++;
	stand_in_trace.load_vcpu = vcpu_id;
	stand_in_trace.load_gpa = gpa;
	stand_in_trace.load_outcome = outcome;
}

static inline void trace_kvm_nested_context_clear(int vcpu_id, gpa_t gpa)
{
	stand_in_trace.clears++;
	stand_in_trace.clear_vcpu = vcpu_id;
	stand_in_trace.clear_gpa = gpa;
}

static inline void trace_kvm_nested_context_recycle(int vcpu_id, gpa_t old_gpa,
						    gpa_t new_gpa)
{
	stand_in_trace.recycles++;
	stand_in_trace.recycle_vcpu = vcpu_id;
	stand_in_trace.recycle_old = old_gpa;
	stand_in_trace.recycle_new = new_gpa;
}

#endif

#endif
