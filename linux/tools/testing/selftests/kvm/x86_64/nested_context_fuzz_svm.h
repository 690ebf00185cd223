/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts, fuzzing: L1's steps on SVM.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_FUZZ_SVM_H
#define SELFTEST_KVM_NESTED_CONTEXT_FUZZ_SVM_H

#include "nested_context_fuzz.h"
#include "nested_context_svm.h"

enum fuzz_svm_op {
	SVM_RUN, SVM_INIT, SVM_SET, SVM_COPY, SVM_VMLOAD, SVM_VMSAVE, SVM_SVME,
	SVM_HSAVE, SVM_GIF, SVM_INVLPGA, SVM_HASH,
	NR_SVM_OPS,
};

static const struct fuzz_choice fuzz_svm_ops[NR_SVM_OPS] = {
	[SVM_RUN]	= { "vmrun",	44 },	/* block, run, value */
	[SVM_INIT]	= { "init",	9 },	/* block number, nested paging, MSR map */
	[SVM_SET]	= { "set",	20 },	/* address, size, value */
	[SVM_COPY]	= { "copy",	3 },	/* to, from */
	[SVM_VMLOAD]	= { "vmload",	4 },	/* block */
	[SVM_VMSAVE]	= { "vmsave",	4 },	/* block */
	[SVM_SVME]	= { "svme",	3 },	/* on */
	[SVM_HSAVE]	= { "hsave",	1 },	/* address */
	[SVM_GIF]	= { "gif",	2 },	/* on */
	[SVM_INVLPGA]	= { "invlpga",	2 },	/* address, ASID */
	[SVM_HASH]	= { "hash",	2 },	/* block */
};

asm(".macro svm_nested\n\t"
	"mov %rsi, %rax\n\t"
	"vmsave %rax\n\t"
	"vmload %rax\n\t"
	"vmrun %rax\n\t"
	".endm\n\t"
	".pushsection .text\n\t"
	"l2_routines svm, vmmcall\n\t"
	".popsection");
extern const u64 svm_l2_table[];

/* ---- Host ---- */

#define VMCB_FIELD(field, size)	{ offsetof(struct vmcb, field), size }

static const struct { u32 offset, size; } svm_fields[] = {
	VMCB_FIELD(control.intercept_cr, 4),
	VMCB_FIELD(control.intercept_dr, 4),
	VMCB_FIELD(control.intercept_exceptions, 4),
	VMCB_FIELD(control.tsc_offset, 8),
	VMCB_FIELD(control.asid, 4),
	VMCB_FIELD(control.tlb_ctl, 1),
	VMCB_FIELD(control.int_ctl, 4),
	VMCB_FIELD(control.int_vector, 4),
	VMCB_FIELD(control.int_state, 4),
	VMCB_FIELD(control.exit_code, 4),
	VMCB_FIELD(control.exit_int_info, 4),
	VMCB_FIELD(control.nested_ctl, 8),
	VMCB_FIELD(control.event_inj, 4),
	VMCB_FIELD(control.event_inj_err, 4),
	VMCB_FIELD(control.virt_ext, 8),
	VMCB_FIELD(control.clean, 4),
	VMCB_FIELD(control.next_rip, 8),
	VMCB_FIELD(save.cpl, 1),
	VMCB_FIELD(save.cs.attrib, 2),
	VMCB_FIELD(save.ss.selector, 2),
	VMCB_FIELD(save.efer, 8),
	VMCB_FIELD(save.cr0, 8),
	VMCB_FIELD(save.cr2, 8),
	VMCB_FIELD(save.cr3, 8),
	VMCB_FIELD(save.cr4, 8),
	VMCB_FIELD(save.dr6, 8),
	VMCB_FIELD(save.dr7, 8),
	VMCB_FIELD(save.g_pat, 8),
	VMCB_FIELD(save.rflags, 8),
	VMCB_FIELD(save.rsp, 8),
	VMCB_FIELD(save.rax, 8),
	VMCB_FIELD(save.lstar, 8),
	VMCB_FIELD(save.fs.base, 8),
	VMCB_FIELD(save.kernel_gs_base, 8),
};

/* An L2 that halts, and nobody to wake it, would end the program. */
static bool svm_halts(u32 offset, u32 size)
{
	u32 hlt = offsetof(struct vmcb, control.intercept) + INTERCEPT_HLT % 64 / 8;

	return offset <= hlt && hlt < offset + size;
}

static void fuzz_svm_generate_set(struct guest_random_state *rnd, struct fuzz_step *s)
{
	unsigned int block = fuzz_below(rnd, NR_BLOCKS), kind = fuzz_below(rnd, 10), i;
	u64 vmcb = page_gpa(SLOT_BLOCK, block);

	s->arg[1] = 8;
	switch (kind) {
	case 0 ... 2:
		s->arg[0] = vmcb + offsetof(struct vmcb, control.msrpm_base_pa);
		s->arg[2] = fuzz_gpa(rnd, SLOT_MAP, MAP_PAGES);
		break;
	case 3:
		s->arg[0] = vmcb + offsetof(struct vmcb, control.nested_cr3);
		s->arg[2] = fuzz_gpa(rnd, SLOT_PRIVATE, 1);
		break;
	case 4:
		s->arg[0] = vmcb + offsetof(struct vmcb, control.iopm_base_pa);
		s->arg[2] = fuzz_gpa(rnd, SLOT_MAP, 1);
		break;
	case 5 ... 6:
		/* All intercepts, or none, of 32 or 4 MSRs. */
		s->arg[0] = page_gpa(SLOT_MAP, fuzz_below(rnd, NR_BLOCKS) * MAP_PAGES);
		s->arg[0] += fuzz_below(rnd, 3) * 2048 + fuzz_below(rnd, 80);
		s->arg[1] = guest_random_bool(rnd) ? 8 : 1;
		s->arg[2] = guest_random_bool(rnd) ? 0 : ~0ull;
		break;
	case 7 ... 8:
		i = fuzz_below(rnd, ARRAY_SIZE(svm_fields));
		s->arg[0] = vmcb + svm_fields[i].offset;
		s->arg[1] = svm_fields[i].size;
		s->arg[2] = fuzz_value(rnd);
		break;
	default:
		do {
			i = fuzz_below(rnd, PAGE_SIZE / 4);
			s->arg[1] = BIT(fuzz_below(rnd, 3));
		} while (svm_halts(i, s->arg[1]));
		s->arg[0] = vmcb + i;
		s->arg[2] = fuzz_value(rnd);
		break;
	}
	if (s->arg[1] < 8)
		s->arg[2] &= BIT_ULL(s->arg[1] * 8) - 1;
}

static void fuzz_svm_generate(struct guest_random_state *rnd, struct fuzz_step *s)
{
	s->arg[0] = fuzz_gpa(rnd, SLOT_BLOCK, 1);

	switch (s->op) {
	case SVM_RUN:
		fuzz_generate_run(rnd, s);
		break;
	case SVM_INIT:
		s->arg[0] = fuzz_below(rnd, NR_BLOCKS);
		s->arg[1] = __guest_random_bool(rnd, 85);
		s->arg[2] = guest_random_u64(rnd);
		break;
	case SVM_SET:
		fuzz_svm_generate_set(rnd, s);
		break;
	case SVM_COPY:
		s->arg[0] = page_gpa(SLOT_BLOCK, fuzz_below(rnd, NR_BLOCKS));
		s->arg[1] = page_gpa(SLOT_ALIAS, fuzz_below(rnd, NR_BLOCKS));
		break;
	case SVM_SVME:
	case SVM_GIF:
		s->arg[0] = guest_random_bool(rnd);
		break;
	case SVM_INVLPGA:
		s->arg[1] = fuzz_below(rnd, 3);
		break;
	}
}

/* ---- L1 ---- */

static void fuzz_svm_l1_init(u32 cpu, void *scratch, u64 scratch_gpa)
{
	l1_enable_svm(scratch_gpa);
}

/* What an exit left in the registers that are not in the control block. */
struct fuzz_gprs {
	u64 rcx, rdx, rsi, rdi;
};

static u8 fuzz_vmrun(u64 gpa, struct fuzz_gprs *r)
{
	u64 error_code;
	u8 vector;

	asm volatile("push %%rbp\n\t"
		     "push %%rbx\n\t"
		     KVM_ASM_SAFE("vmrun %%rax")
		     "pop %%rbx\n\t"
		     "pop %%rbp\n\t"
		     : "+a"(gpa), "+c"(r->rcx), "+d"(r->rdx), "+S"(r->rsi),
		       "+D"(r->rdi), [vector] "=r"(vector), [error_code] "=r"(error_code)
		     :
		     : KVM_ASM_SAFE_CLOBBERS, "r12", "r13", "r14", "r15",
		       "cc", "memory");
	return vector;
}

static void fuzz_svm_init(unsigned int block, bool npt, u64 map)
{
	u64 private = page_gpa(SLOT_PRIVATE, block * PRIVATE_PAGES);
	struct l2_vcpu l2 = {
		.vmcb_gpa = page_gpa(SLOT_BLOCK, block),
		.vmcb = (void *)page_gpa(SLOT_BLOCK, block),
		.msrpm = (void *)page_gpa(SLOT_MAP, block * MAP_PAGES),
		.npt = (void *)private + PAGE_SIZE,
	};

	if (!l1_can_touch(l2.vmcb_gpa, 1) || !l1_can_touch(private, 1) ||
	    !l1_can_touch((u64)l2.msrpm, 1))
		return;
	l1_fill((u64)l2.msrpm, MAP_PAGES * PAGE_SIZE, map);
	/* VMSAVE is in there, which wants SVM. */
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	l2_init_vmcb(&l2, (void *)svm_l2_table[L2_EXIT], private + PAGE_SIZE - 8, npt);
	/* No wait that nobody ends, no value that differs from run to run. */
	l2.vmcb->control.intercept |= BIT_ULL(INTERCEPT_HLT) | BIT_ULL(INTERCEPT_RDTSC) |
				      BIT_ULL(INTERCEPT_RDTSCP);
	/* Whatever exception L2 meets ends in a shutdown, not in L1's handlers. */
	l2.vmcb->save.idtr.limit = 0;
}

static void fuzz_svm_run(u32 cpu, const struct fuzz_step *s)
{
	struct fuzz_gprs r = {
		.rcx = RUN_MSR(s->arg[1]),
		.rdx = s->arg[2],
		.rsi = s->arg[2],
	};
	unsigned int routine = RUN_ROUTINE(s->arg[1]);
	bool odd = RUN_FLAGS(s->arg[1]) & RUN_ODD;
	struct vmcb *vmcb = (void *)(s->arg[0] & PAGE_MASK);
	bool seen = l1_can_touch((u64)vmcb, PAGE_SIZE);

	/* QEMU 7.2 aborts when L2 writes CR8 with a virtual interrupt pending. */
	if (seen && !odd && routine == L2_CR8 && vmcb->control.int_ctl & V_IRQ_MASK)
		routine = L2_EXIT;
	if (seen && !odd)
		vmcb->save.rip = svm_l2_table[routine];
	if (!odd)
		note(cpu, "vmload", kvm_asm_safe("vmload %%rax", "a"(s->arg[0])));
	note(cpu, "vmrun", fuzz_vmrun(s->arg[0], &r));
	if (!odd && !(RUN_FLAGS(s->arg[1]) & RUN_NO_SAVE))
		note(cpu, "vmsave", kvm_asm_safe("vmsave %%rax", "a"(s->arg[0])));
	note(cpu, "rcx", r.rcx);
	note(cpu, "rdx", r.rdx);

	/* The host may have taken the slot meanwhile. */
	if (!seen || !l1_can_touch((u64)vmcb, PAGE_SIZE))
		return;
	/*
	 * Where QEMU finds an error that KVM does not look for, L2's RIP has
	 * the offset in its page of L0's own VMRUN.
	 */
	if (vmcb->control.exit_code == (u32)SVM_EXIT_ERR)
		vmcb->save.rip = 0;
	note(cpu, "exit", vmcb->control.exit_code);
	note(cpu, "info1", vmcb->control.exit_info_1);
	note(cpu, "info2", vmcb->control.exit_info_2);
	note(cpu, "rip", vmcb->save.rip);
	note(cpu, "rax", vmcb->save.rax);
	note(cpu, "block", fuzz_hash(FUZZ_HASH_INIT, vmcb, PAGE_SIZE));
	if (vmcb->control.exit_code == (u32)SVM_EXIT_ERR && block_of((u64)vmcb) < NR_BLOCKS &&
	    RUN_FLAGS(s->arg[1]) & RUN_HEAL)
		fuzz_svm_init(block_of((u64)vmcb), true, s->arg[2]);
}

static void fuzz_svm_l1_step(u32 cpu, const struct fuzz_step *s)
{
	u64 efer;

	switch (s->op) {
	case SVM_RUN:
		fuzz_svm_run(cpu, s);
		break;
	case SVM_INIT:
		fuzz_svm_init(s->arg[0], s->arg[1], s->arg[2]);
		break;
	case SVM_SET:
		if (l1_can_touch(s->arg[0], s->arg[1]))
			l1_set(s->arg[0], s->arg[1], s->arg[2]);
		break;
	case SVM_COPY:
		if (l1_can_touch(s->arg[0], PAGE_SIZE) && l1_can_touch(s->arg[1], PAGE_SIZE))
			memcpy((void *)s->arg[0], (void *)s->arg[1], PAGE_SIZE);
		break;
	case SVM_VMLOAD:
		note(cpu, "vmload", kvm_asm_safe("vmload %%rax", "a"(s->arg[0])));
		note(cpu, "lstar", rdmsr(MSR_LSTAR));
		note(cpu, "kernel_gs", rdmsr(MSR_KERNEL_GS_BASE));
		break;
	case SVM_VMSAVE:
		note(cpu, "vmsave", kvm_asm_safe("vmsave %%rax", "a"(s->arg[0])));
		break;
	case SVM_SVME:
		efer = rdmsr(MSR_EFER) & ~EFER_SVME;
		note(cpu, "svme", wrmsr_safe(MSR_EFER, s->arg[0] ? efer | EFER_SVME : efer));
		break;
	case SVM_HSAVE:
		note(cpu, "hsave", wrmsr_safe(MSR_VM_HSAVE_PA, s->arg[0]));
		note(cpu, "hsave", rdmsr(MSR_VM_HSAVE_PA));
		break;
	case SVM_GIF:
		note(cpu, "gif", s->arg[0] ? kvm_asm_safe("stgi") : kvm_asm_safe("clgi"));
		break;
	case SVM_INVLPGA:
		note(cpu, "invlpga", kvm_asm_safe("invlpga %%rax, %%ecx",
						  "a"(s->arg[0]), "c"(s->arg[1])));
		break;
	case SVM_HASH:
		if (l1_can_touch(s->arg[0] & PAGE_MASK, PAGE_SIZE))
			note(cpu, "hash", fuzz_hash(FUZZ_HASH_INIT,
						    (void *)(s->arg[0] & PAGE_MASK),
						    PAGE_SIZE));
		break;
	}
}

static bool fuzz_svm_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_SVM);
}

static void fuzz_svm_l1_forget(struct kvm_vm *vm)
{
}

static bool fuzz_svm_block_is_open(struct kvm_vm *vm, unsigned int block)
{
	return false;
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_FUZZ_SVM_H */
