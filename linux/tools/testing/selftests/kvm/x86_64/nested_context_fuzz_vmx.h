/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts, fuzzing: L1's steps on VMX.
 *
 * The bytes of a VMCS region that is current on some vCPU are nobody's business:
 * L1 neither reads nor writes them, and lets no L2 of its own store there.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VMX_H
#define SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VMX_H

#include "apic.h"
#include "nested_context_fuzz.h"
#include "nested_context_vmx.h"

#define L2_EFLAGS_IF	BIT(9)

/* Less than KVM's struct vmcs12, and room for what is written across its end. */
#define VMX_BLOCK_SIZE	0x300

enum fuzz_vmx_op {
	VMX_RUN, VMX_INIT, VMX_VMWRITE, VMX_FLIP, VMX_VMREAD, VMX_READ_ALL,
	VMX_VMPTRLD, VMX_VMCLEAR, VMX_VMXON, VMX_VMXOFF, VMX_VMXE, VMX_SET,
	VMX_COPY, VMX_INVEPT, VMX_INVVPID, VMX_HASH, VMX_POST,
	NR_VMX_OPS,
};

static const struct fuzz_choice fuzz_vmx_ops[NR_VMX_OPS] = {
	[VMX_RUN]	= { "vmenter",	42 },	/* block, run, value */
	[VMX_INIT]	= { "init",	6 },	/* block number, features, MSR bitmap */
	[VMX_VMWRITE]	= { "vmwrite",	14 },	/* field, value */
	[VMX_FLIP]	= { "flip",	6 },	/* field, bits */
	[VMX_VMREAD]	= { "vmread",	2 },	/* field */
	[VMX_READ_ALL]	= { "readall",	1 },
	[VMX_VMPTRLD]	= { "vmptrld",	6 },	/* block */
	[VMX_VMCLEAR]	= { "vmclear",	6 },	/* block */
	[VMX_VMXON]	= { "vmxon",	2 },	/* address; 0: its usual one */
	[VMX_VMXOFF]	= { "vmxoff",	2 },
	[VMX_VMXE]	= { "vmxe",	1 },	/* on */
	[VMX_SET]	= { "set",	7 },	/* address, size, value */
	[VMX_COPY]	= { "copy",	2 },	/* to, from */
	[VMX_INVEPT]	= { "invept",	1 },	/* type, address */
	[VMX_INVVPID]	= { "invvpid",	1 },	/* type, VPID */
	[VMX_HASH]	= { "hash",	2 },	/* block */
	[VMX_POST]	= { "post",	5 },	/* descriptor, vector, notification */
};

asm(".macro vmx_nested\n\t"
	"vmptrst (%rsi)\n\t"
	".endm\n\t"
	".pushsection .text\n\t"
	"l2_routines vmx, vmcall\n\t"
	".popsection");
extern const u64 vmx_l2_table[];

/* ---- Host ---- */

static const u64 vmx_plain_fields[] = {
	VIRTUAL_PROCESSOR_ID, GUEST_ES_SELECTOR, GUEST_CS_SELECTOR, TSC_OFFSET,
	GUEST_IA32_DEBUGCTL, GUEST_IA32_PAT, GUEST_IA32_EFER, EXCEPTION_BITMAP,
	CR3_TARGET_COUNT, VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_LOAD_COUNT,
	VM_ENTRY_MSR_LOAD_COUNT, VM_ENTRY_INTR_INFO_FIELD,
	VM_ENTRY_EXCEPTION_ERROR_CODE, VM_ENTRY_INSTRUCTION_LEN, TPR_THRESHOLD,
	VM_INSTRUCTION_ERROR, VM_EXIT_REASON, GUEST_CS_LIMIT, GUEST_SS_AR_BYTES,
	GUEST_CS_AR_BYTES, GUEST_TR_AR_BYTES, GUEST_INTERRUPTIBILITY_INFO,
	GUEST_SYSENTER_CS, CR0_GUEST_HOST_MASK, CR4_GUEST_HOST_MASK,
	CR0_READ_SHADOW, CR4_READ_SHADOW, GUEST_CR0, GUEST_CR3, GUEST_CR4,
	GUEST_FS_BASE, GUEST_DR7, GUEST_RSP, GUEST_RFLAGS,
	GUEST_PENDING_DBG_EXCEPTIONS, GUEST_SYSENTER_EIP, EXIT_QUALIFICATION,
	HOST_CR0, HOST_CS_SELECTOR, HOST_IA32_SYSENTER_EIP, POSTED_INTR_NV,
	GUEST_INTR_STATUS, EOI_EXIT_BITMAP0, EOI_EXIT_BITMAP3,
};

static const struct { u32 field; enum fuzz_slot slot; } vmx_address_fields[] = {
	{ MSR_BITMAP,			SLOT_MAP },
	{ MSR_BITMAP,			SLOT_MAP },
	{ VIRTUAL_APIC_PAGE_ADDR,	SLOT_HW },
	{ VIRTUAL_APIC_PAGE_ADDR,	SLOT_HW },
	{ APIC_ACCESS_ADDR,		SLOT_HW },
	{ APIC_ACCESS_ADDR,		SLOT_HW },
	{ IO_BITMAP_A,			SLOT_MAP },
	{ IO_BITMAP_B,			SLOT_MAP },
	{ VM_EXIT_MSR_STORE_ADDR,	SLOT_HW },
	{ VM_EXIT_MSR_LOAD_ADDR,	SLOT_HW },
	{ VM_ENTRY_MSR_LOAD_ADDR,	SLOT_HW },
	{ VMCS_LINK_POINTER,		SLOT_BLOCK },
	{ VMREAD_BITMAP,		SLOT_MAP },
	{ VMWRITE_BITMAP,		SLOT_MAP },
	{ POSTED_INTR_DESC_ADDR,	SLOT_HW },
	{ PML_ADDRESS,			SLOT_HW },
};

static const u64 vmx_control_fields[] = {
	PIN_BASED_VM_EXEC_CONTROL, CPU_BASED_VM_EXEC_CONTROL,
	SECONDARY_VM_EXEC_CONTROL, VM_ENTRY_CONTROLS, VM_EXIT_CONTROLS,
	GUEST_CR0, GUEST_CR4, GUEST_RFLAGS, EPT_POINTER,
};

static void fuzz_vmx_generate_write(struct guest_random_state *rnd, struct fuzz_step *s)
{
	unsigned int i;

	switch (fuzz_below(rnd, 10)) {
	case 0 ... 4:
		i = fuzz_below(rnd, ARRAY_SIZE(vmx_address_fields));
		s->arg[0] = vmx_address_fields[i].field;
		s->arg[1] = fuzz_gpa(rnd, vmx_address_fields[i].slot, 1);
		/* Lists of MSRs: where they could change a region, only its head. */
		if (vmx_address_fields[i].slot == SLOT_HW && block_of(s->arg[1]) < NR_BLOCKS)
			s->arg[1] &= PAGE_MASK;
		break;
	case 5 ... 8:
		s->arg[0] = fuzz_pick(rnd, vmx_plain_fields, ARRAY_SIZE(vmx_plain_fields));
		s->arg[1] = fuzz_value(rnd);
		break;
	default:
		/* Any field but those that say where L1 goes on, or that L2 halts. */
		do {
			s->arg[0] = fuzz_below(rnd, 0x20) | fuzz_below(rnd, 4) << 13 |
				    fuzz_below(rnd, 3) << 10;
		} while ((s->arg[0] & ~1ull) == CPU_BASED_VM_EXEC_CONTROL ||
			 s->arg[0] == GUEST_ACTIVITY_STATE ||
			 s->arg[0] == PIN_BASED_VM_EXEC_CONTROL);
		s->arg[1] = fuzz_value(rnd);
		break;
	}
}

static void fuzz_vmx_generate(struct guest_random_state *rnd, struct fuzz_step *s)
{
	s->arg[0] = fuzz_gpa(rnd, SLOT_BLOCK, 1);

	switch (s->op) {
	case VMX_RUN:
		fuzz_generate_run(rnd, s);
		break;
	case VMX_INIT:
		s->arg[0] = fuzz_below(rnd, NR_BLOCKS);
		s->arg[1] = VMX_L2_MSR_BITMAP |
			    (guest_random_u32(rnd) & (VMX_L2_TPR_SHADOW | VMX_L2_APIC_ACCESS |
						      VMX_L2_POSTED));
		if (__guest_random_bool(rnd, 90))
			s->arg[1] |= VMX_L2_EPT;
		s->arg[2] = guest_random_u64(rnd);
		break;
	case VMX_VMREAD:
	case VMX_VMWRITE:
		fuzz_vmx_generate_write(rnd, s);
		break;
	case VMX_FLIP:
		s->arg[0] = fuzz_pick(rnd, vmx_control_fields, ARRAY_SIZE(vmx_control_fields));
		do {
			s->arg[1] = BIT_ULL(fuzz_below(rnd, 32));
		} while (s->arg[0] == CPU_BASED_VM_EXEC_CONTROL &&
			 s->arg[1] == CPU_BASED_HLT_EXITING);
		break;
	case VMX_VMXON:
		if (guest_random_bool(rnd))
			s->arg[0] = 0;
		break;
	case VMX_VMXE:
		s->arg[0] = guest_random_bool(rnd);
		break;
	case VMX_SET:
		s->arg[1] = 8;
		s->arg[2] = guest_random_bool(rnd) ? 0 : ~0ull;
		if (guest_random_bool(rnd)) {
			s->arg[0] = page_gpa(SLOT_MAP, fuzz_below(rnd, NR_BLOCKS) * MAP_PAGES) +
				    fuzz_below(rnd, 4) * 1024 + fuzz_below(rnd, 1016);
		} else if (guest_random_bool(rnd)) {
			s->arg[0] = page_gpa(SLOT_HW, fuzz_below(rnd, NR_BLOCKS)) + 0x80;
			s->arg[2] = fuzz_below(rnd, 256);
		} else {
			s->arg[0] = page_gpa(SLOT_BLOCK, fuzz_below(rnd, NR_BLOCKS)) +
				    fuzz_below(rnd, 128) * 8;
			s->arg[2] = fuzz_value(rnd);
		}
		break;
	case VMX_COPY:
		s->arg[0] = page_gpa(SLOT_BLOCK, fuzz_below(rnd, NR_BLOCKS));
		s->arg[1] = page_gpa(SLOT_ALIAS, fuzz_below(rnd, NR_BLOCKS));
		break;
	case VMX_POST:
		fuzz_generate_post(rnd, s->arg);
		break;
	case VMX_INVEPT:
	case VMX_INVVPID:
		s->arg[1] = s->arg[0];
		s->arg[0] = fuzz_below(rnd, 5);
		break;
	}
}

/* ---- L1 ---- */

/* HOST_RSP points to its vCPU's, so that any vCPU can enter any VMCS. */
static struct fuzz_vmx_l1 {
	u64 rsp;		/* fuzz_vmenter() uses these in their order */
	u64 rcx;
	u64 rdx;
	u64 rsi;
	u64 vmxon;
	u64 current;		/* the VMCS that is, ~0ull if none */
} vmx_l1[MAX_L1_VCPUS];

static bool vmx_launched[NR_BLOCKS];

/*
 * Returns 0 after an exit, the flags CF and ZF if the instruction failed, 0x100
 * and the vector if it met an exception.
 */
u64 fuzz_vmenter(struct fuzz_vmx_l1 *l1, u64 launched);
extern char fuzz_vmexited[];

asm(".pushsection .text\n\t"
	".type fuzz_vmenter, @function\n"
	"fuzz_vmenter:\n\t"
	"push %rbx\n\t"
	"push %rbp\n\t"
	"push %r12\n\t"
	"push %r13\n\t"
	"push %r14\n\t"
	"push %r15\n\t"
	"mov %rsp, 0x00(%rdi)\n\t"
	"mov 0x08(%rdi), %rcx\n\t"
	"mov 0x10(%rdi), %rdx\n\t"
	"mov $" __stringify(KVM_EXCEPTION_MAGIC) ", %r9\n\t"
	"lea 3f(%rip), %r11\n\t"
	"test %rsi, %rsi\n\t"
	"mov 0x18(%rdi), %rsi\n\t"
	"jnz 1f\n\t"
	"lea 0f(%rip), %r10\n"
	"0:\n\t"
	"vmlaunch\n\t"
	"jmp 2f\n"
	"1:\n\t"
	"lea 1f(%rip), %r10\n"
	"1:\n\t"
	"vmresume\n"
	"2:\n\t"
	"pushf\n\t"
	"pop %rax\n\t"
	"and $0x41, %eax\n\t"
	"jmp 4f\n"
	"3:\n\t"
	"movzbl %r9b, %eax\n\t"
	"or $0x100, %eax\n\t"
	"jmp 4f\n"
	"fuzz_vmexited:\n\t"
	"mov %rcx, 0x08(%rsp)\n\t"
	"mov %rdx, 0x10(%rsp)\n\t"
	"mov %rsi, 0x18(%rsp)\n\t"
	"mov 0x00(%rsp), %rsp\n\t"
	"xor %eax, %eax\n"
	"4:\n\t"
	"pop %r15\n\t"
	"pop %r14\n\t"
	"pop %r13\n\t"
	"pop %r12\n\t"
	"pop %rbp\n\t"
	"pop %rbx\n\t"
	"ret\n\t"
	".popsection");

/* As fuzz_vmenter(): CF is 1, ZF is 0x40. */
#define fuzz_vmx_safe(insn, inputs...)						\
({										\
	u64 ign_error_code;							\
	u8 vector, cf = 0, zf = 0;						\
										\
	asm volatile(KVM_ASM_SAFE(insn "\n\tsetc %[cf]\n\tsetz %[zf]")		\
		     : KVM_ASM_SAFE_OUTPUTS(vector, ign_error_code),		\
		       [cf] "+qm"(cf), [zf] "+qm"(zf)				\
		     : inputs							\
		     : KVM_ASM_SAFE_CLOBBERS, "cc", "memory");			\
	vector ? 0x100ull | vector : (u64)cf | zf << 6;				\
})

static u64 fuzz_vmread(u64 field, u64 *value)
{
	return fuzz_vmx_safe("vmread %%rax, (%%rdx)", "a"(field), "d"(value));
}

static u64 fuzz_vmwrite(u64 field, u64 value)
{
	return fuzz_vmx_safe("vmwrite %%rdx, %%rax", "a"(field), "d"(value));
}

#define fuzz_vmx_pointer(insn, gpa)						\
({										\
	u64 operand = (gpa);							\
										\
	fuzz_vmx_safe(insn " (%%rax)", "a"(&operand));				\
})

static void fuzz_vmx_note_current(u32 cpu)
{
	u64 current = ~0ull;

	fuzz_vmx_safe("vmptrst (%%rax)", "a"(&current));
	vmx_l1[cpu].current = current;
	note(cpu, "current", current);
}

static bool fuzz_vmx_is_current(u64 gpa)
{
	unsigned int block = block_of(gpa), i;

	for (i = 0; block < NR_BLOCKS && i < MAX_L1_VCPUS; i++) {
		if (block_of(READ_ONCE(vmx_l1[i].current)) == block)
			return true;
	}
	return false;
}

/* Whether eight bytes that L1's L2 stores there could do harm. */
static bool fuzz_vmx_is_open(u64 gpa)
{
	return block_of(gpa) < NR_BLOCKS &&
	       (fuzz_vmx_is_current(gpa) || (gpa & ~PAGE_MASK) >= VMX_BLOCK_SIZE);
}

static bool fuzz_vmx_can_touch(u64 gpa, unsigned int size)
{
	return l1_can_touch(gpa, size) && !fuzz_vmx_is_current(gpa) &&
	       !fuzz_vmx_is_current(gpa + size - 1);
}

static void fuzz_vmx_note_result(u32 cpu, const char *name, u64 result)
{
	u64 error = 0;

	note(cpu, name, result);
	if (result == 0x40 && !fuzz_vmread(VM_INSTRUCTION_ERROR, &error))
		note(cpu, "error", error);
}

static void fuzz_vmx_l1_init(u32 cpu, void *scratch, u64 scratch_gpa)
{
	unsigned int i;

	for (i = 0; i < MAX_L1_VCPUS; i++) {
		if (i == cpu || !vmx_l1[i].vmxon)
			vmx_l1[i].current = ~0ull;
	}
	vmx_l1[cpu].vmxon = scratch_gpa;
	l1_enable_vmx(scratch, scratch_gpa);
	x2apic_enable();
}

/*
 * The first VMCS that was made, cleared again.  Others begin as its copy, for to
 * write all fields takes longer than all else that a program does.
 */
static u8 vmx_template[PAGE_SIZE];
static bool vmx_template_made;

static void fuzz_vmx_make_template(struct vmx_l2 *l2)
{
	vmx_l2_init_vmcs(l2, (void *)vmx_l2_table[L2_EXIT], 0,
			 VMX_L2_EPT | VMX_L2_MSR_BITMAP | VMX_L2_TPR_SHADOW |
			 VMX_L2_APIC_ACCESS);
	/* No wait that nobody ends, no value that differs from run to run. */
	fuzz_vmwrite(CPU_BASED_VM_EXEC_CONTROL,
		     vmreadz(CPU_BASED_VM_EXEC_CONTROL) | CPU_BASED_HLT_EXITING |
		     CPU_BASED_RDTSC_EXITING);
	/* Whatever exception L2 meets ends in a shutdown, not in L1's handlers. */
	fuzz_vmwrite(GUEST_IDTR_LIMIT, 0);
	/* Bochs never takes the host's interrupts from an L2 that has them off. */
	fuzz_vmwrite(GUEST_RFLAGS, X86_EFLAGS_FIXED | L2_EFLAGS_IF);
	fuzz_vmx_pointer("vmclear", l2->vmcs);
	memcpy(vmx_template, (void *)l2->vmcs, PAGE_SIZE);
	vmx_template_made = true;
}

static void fuzz_vmx_init(u32 cpu, unsigned int block, u32 features, u64 map)
{
	u64 private = page_gpa(SLOT_PRIVATE, block * PRIVATE_PAGES);
	struct vmx_l2 l2 = {
		.vmcs = page_gpa(SLOT_BLOCK, block),
		.msr_bitmap = (void *)page_gpa(SLOT_MAP, block * MAP_PAGES),
		.vapic = (void *)page_gpa(SLOT_HW, block),
		.apic_access = (void *)page_gpa(SLOT_HW, block ^ 1),
		.ept = (void *)private + PAGE_SIZE,
	};
	u64 result, controls;

	if (!l1_can_touch(l2.vmcs, 1) || !l1_can_touch(private, 1) ||
	    !l1_can_touch((u64)l2.msr_bitmap, 1))
		return;
	result = fuzz_vmx_pointer("vmclear", l2.vmcs);
	fuzz_vmx_note_result(cpu, "vmclear", result);
	if (result)
		return;
	/* Another vCPU may have it current, and would write it back one day. */
	fuzz_vmx_note_current(cpu);
	if (fuzz_vmx_is_current(l2.vmcs))
		return;

	if (!vmx_template_made)
		fuzz_vmx_make_template(&l2);
	memcpy((void *)l2.vmcs, vmx_template, PAGE_SIZE);
	vmx_launched[block] = false;
	fuzz_vmx_note_result(cpu, "vmptrld", fuzz_vmx_pointer("vmptrld", l2.vmcs));
	fuzz_vmx_note_current(cpu);
	if (vmx_l1[cpu].current != l2.vmcs)
		return;

	l1_fill((u64)l2.msr_bitmap, PAGE_SIZE, map);
	vmx_l2_build_ept(&l2);
	vmwrite(MSR_BITMAP, (u64)l2.msr_bitmap);
	vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)l2.vapic);
	vmwrite(APIC_ACCESS_ADDR, (u64)l2.apic_access);
	vmwrite(GUEST_RSP, private + PAGE_SIZE - 8);
	controls = vmreadz(EPT_POINTER) & ~PAGE_MASK;
	vmwrite(EPT_POINTER, (u64)l2.ept | controls);
	if (!(features & VMX_L2_TPR_SHADOW))
		vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			vmreadz(CPU_BASED_VM_EXEC_CONTROL) & ~CPU_BASED_TPR_SHADOW);
	controls = vmreadz(SECONDARY_VM_EXEC_CONTROL);
	if (!(features & VMX_L2_APIC_ACCESS))
		controls &= ~SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
	if (!(features & VMX_L2_EPT))
		controls &= ~SECONDARY_EXEC_ENABLE_EPT;
	vmwrite(SECONDARY_VM_EXEC_CONTROL, controls);
	if (features & VMX_L2_POSTED && features & VMX_L2_TPR_SHADOW &&
	    rdmsr(MSR_IA32_VMX_TRUE_PINBASED_CTLS) >> 32 & PIN_BASED_POSTED_INTR)
		vmx_l2_init_posted(fuzz_desc_gpa(block), FUZZ_NOTIFICATION);
}

static const u32 vmx_exit_fields[] = {
	VM_EXIT_REASON, EXIT_QUALIFICATION, VM_EXIT_INTR_INFO,
	VM_EXIT_INTR_ERROR_CODE, IDT_VECTORING_INFO_FIELD, VM_EXIT_INSTRUCTION_LEN,
	VMX_INSTRUCTION_INFO, GUEST_PHYSICAL_ADDRESS, GUEST_LINEAR_ADDRESS,
	GUEST_RIP, GUEST_RSP, GUEST_RFLAGS, GUEST_CR0, GUEST_CR3, GUEST_CR4,
	GUEST_INTERRUPTIBILITY_INFO, VM_ENTRY_INTR_INFO_FIELD, TPR_THRESHOLD,
	GUEST_INTR_STATUS,
};

static void fuzz_vmx_set_vmxe(u32 cpu, bool on)
{
	u64 cr4 = get_cr4() & ~X86_CR4_VMXE;

	if (on)
		cr4 |= X86_CR4_VMXE;
	note(cpu, "vmxe", kvm_asm_safe("mov %%rax, %%cr4", "a"(cr4)));
}

static void fuzz_vmx_run(u32 cpu, const struct fuzz_step *s)
{
	bool odd = RUN_FLAGS(s->arg[1]) & RUN_ODD;
	struct fuzz_vmx_l1 *l1 = &vmx_l1[cpu];
	u64 result, value, launched;
	unsigned int block, i;

	if (!odd) {
		result = fuzz_vmx_pointer("vmptrld", s->arg[0]);
		if (result == (0x100 | UD_VECTOR) && RUN_FLAGS(s->arg[1]) & RUN_HEAL) {
			fuzz_vmx_set_vmxe(cpu, true);
			fuzz_vmx_note_result(cpu, "vmxon", fuzz_vmx_pointer("vmxon", l1->vmxon));
			result = fuzz_vmx_pointer("vmptrld", s->arg[0]);
		}
		fuzz_vmx_note_result(cpu, "vmptrld", result);
		fuzz_vmx_note_current(cpu);
	}
	fuzz_vmwrite(HOST_RSP, (u64)l1);
	fuzz_vmwrite(HOST_RIP, (u64)fuzz_vmexited);
	if (!odd)
		fuzz_vmwrite(GUEST_RIP, vmx_l2_table[RUN_ROUTINE(s->arg[1])]);

	block = block_of(l1->current);
	launched = block < NR_BLOCKS ? vmx_launched[block] : odd;
	l1->rcx = RUN_MSR(s->arg[1]);
	l1->rdx = s->arg[2];
	l1->rsi = s->arg[2];
	if (fuzz_vmx_is_open(l1->rsi) || fuzz_vmx_is_open(l1->rsi + 7))
		l1->rsi = page_gpa(SLOT_PRIVATE, 0);

	result = fuzz_vmenter(l1, launched);
	fuzz_vmx_note_result(cpu, "vmenter", result);
	if (result == 0x40 && block < NR_BLOCKS && RUN_FLAGS(s->arg[1]) & RUN_HEAL)
		fuzz_vmx_init(cpu, block, -1u, s->arg[2]);
	if (result)
		return;
	if (block < NR_BLOCKS)
		vmx_launched[block] = true;
	note(cpu, "rcx", l1->rcx);
	note(cpu, "rdx", l1->rdx);
	for (i = 0; i < ARRAY_SIZE(vmx_exit_fields); i++) {
		value = 0;
		if (!fuzz_vmread(vmx_exit_fields[i], &value))
			note(cpu, i ? "field" : "exit", value);
		if (!i && (u16)value == EXIT_REASON_EXTERNAL_INTERRUPT)
			x2apic_write_reg_safe(APIC_EOI, 0);
	}
}

/* All fields that there may be; their flags and values in one hash. */
static u64 fuzz_vmx_read_all(void)
{
	u64 hash = FUZZ_HASH_INIT, pair[2];
	u32 field, index;

	for (field = 0; field < BIT(15); field += BIT(10)) {
		for (index = 0; index < 0x2c; index++) {
			pair[1] = 0;
			pair[0] = fuzz_vmread(field | index, &pair[1]);
			hash = fuzz_hash(hash, pair, sizeof(pair));
			if (pair[0] & 0x101)
				return hash;
		}
	}
	return hash;
}

static void fuzz_vmx_l1_step(u32 cpu, const struct fuzz_step *s)
{
	u64 result, value = 0;
	struct { u64 a, b; } desc = { s->arg[1], 0 };

	switch (s->op) {
	case VMX_RUN:
		fuzz_vmx_run(cpu, s);
		break;
	case VMX_INIT:
		fuzz_vmx_init(cpu, s->arg[0], s->arg[1], s->arg[2]);
		break;
	case VMX_FLIP:
		result = fuzz_vmread(s->arg[0], &value);
		if (!result)
			result = fuzz_vmwrite(s->arg[0], value ^ s->arg[1]);
		fuzz_vmx_note_result(cpu, "flip", result);
		break;
	case VMX_VMWRITE:
		fuzz_vmx_note_result(cpu, "vmwrite", fuzz_vmwrite(s->arg[0], s->arg[1]));
		break;
	case VMX_VMREAD:
		fuzz_vmx_note_result(cpu, "vmread", fuzz_vmread(s->arg[0], &value));
		note(cpu, "value", value);
		break;
	case VMX_READ_ALL:
		note(cpu, "fields", fuzz_vmx_read_all());
		break;
	case VMX_VMPTRLD:
		fuzz_vmx_note_result(cpu, "vmptrld", fuzz_vmx_pointer("vmptrld", s->arg[0]));
		fuzz_vmx_note_current(cpu);
		break;
	case VMX_VMCLEAR:
		result = fuzz_vmx_pointer("vmclear", s->arg[0]);
		if (!result && block_of(s->arg[0]) < NR_BLOCKS)
			vmx_launched[block_of(s->arg[0])] = false;
		fuzz_vmx_note_result(cpu, "vmclear", result);
		fuzz_vmx_note_current(cpu);
		break;
	case VMX_VMXON:
		value = s->arg[0] ?: vmx_l1[cpu].vmxon;
		fuzz_vmx_note_result(cpu, "vmxon", fuzz_vmx_pointer("vmxon", value));
		fuzz_vmx_note_current(cpu);
		break;
	case VMX_VMXOFF:
		note(cpu, "vmxoff", fuzz_vmx_safe("vmxoff"));
		fuzz_vmx_note_current(cpu);
		break;
	case VMX_VMXE:
		fuzz_vmx_set_vmxe(cpu, s->arg[0]);
		break;
	case VMX_SET:
		if (fuzz_vmx_can_touch(s->arg[0], s->arg[1]) && !fuzz_vmx_is_open(s->arg[0]))
			l1_set(s->arg[0], s->arg[1], s->arg[2]);
		break;
	case VMX_COPY:
		if (fuzz_vmx_can_touch(s->arg[0], PAGE_SIZE) &&
		    fuzz_vmx_can_touch(s->arg[1], PAGE_SIZE))
			memcpy((void *)s->arg[0], (void *)s->arg[1], PAGE_SIZE);
		break;
	case VMX_INVEPT:
		fuzz_vmx_note_result(cpu, "invept",
				     fuzz_vmx_safe("invept (%%rax), %%rdx",
						   "a"(&desc), "d"(s->arg[0])));
		break;
	case VMX_INVVPID:
		desc.a &= 0xffff;
		fuzz_vmx_note_result(cpu, "invvpid",
				     fuzz_vmx_safe("invvpid (%%rax), %%rdx",
						   "a"(&desc), "d"(s->arg[0])));
		break;
	case VMX_POST:
		if (!fuzz_vmx_can_touch(s->arg[0], sizeof(struct vmx_pi_desc)))
			break;
		vmx_pi_post((void *)s->arg[0], s->arg[1] & 0xff);
		/* To itself: it is in L1, so L2 gets it with the next entry. */
		if (s->arg[2])
			note(cpu, "ipi", x2apic_write_reg_safe(APIC_ICR, APIC_DEST_SELF |
							       APIC_DM_FIXED | s->arg[2]));
		break;
	case VMX_HASH:
		value = s->arg[0] & PAGE_MASK;
		if (fuzz_vmx_can_touch(value, PAGE_SIZE))
			note(cpu, "hash", fuzz_hash(FUZZ_HASH_INIT, (void *)value, PAGE_SIZE));
		break;
	}
}

static bool fuzz_vmx_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept();
}

static void fuzz_vmx_l1_forget(struct kvm_vm *vm)
{
	memset(addr_gva2hva(vm, (vm_vaddr_t)vmx_l1), 0, sizeof(vmx_l1));
	memset(addr_gva2hva(vm, (vm_vaddr_t)vmx_launched), 0, sizeof(vmx_launched));
}

static bool fuzz_vmx_block_is_open(struct kvm_vm *vm, unsigned int block)
{
	struct fuzz_vmx_l1 *l1 = addr_gva2hva(vm, (vm_vaddr_t)vmx_l1);
	unsigned int i;

	for (i = 0; i < MAX_L1_VCPUS; i++) {
		if (l1[i].vmxon && block_of(l1[i].current) == block)
			return true;
	}
	return false;
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VMX_H */
