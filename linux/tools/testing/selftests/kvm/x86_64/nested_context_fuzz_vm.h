/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts, fuzzing: the VM that runs a program, and the host's steps.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VM_H
#define SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VM_H

#include "apic.h"
#include "nested_context_fuzz.h"
#include "nested_context_vmx.h"

#define FIRST_MEMSLOT	10

/* How often a vCPU may end up where only a reset helps, and be run at all. */
#define MAX_RESETS	3
#define MAX_RUNS	20000

struct host_slot {
	void *mem[2];		/* the host's memory, and where it moves to */
	unsigned int at;
	bool present;
	bool logged;
	void *last;		/* what was in there when the log was last read */
};

static struct fuzz_vm {
	const struct fuzz_arch *arch;
	const struct fuzz_program *program;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu[MAX_L1_VCPUS];
	struct kvm_x86_state *start[MAX_L1_VCPUS];
	typeof(shared) *shared;
	struct host_slot slot[NR_SLOTS];
	bool unmanaged;
	bool dump;
	bool in_l2;
	unsigned int resets;
	u64 lost;		/* pages that changed and are not in the log */
	const char *end;	/* why the program ended before its last step */
} fuzz;

static void host_note(u32 cpu, const char *name, u64 value)
{
	note_in(fuzz.shared, cpu, name, value);
}

static size_t slot_size(enum fuzz_slot i)
{
	return slot_pages[i] * PAGE_SIZE;
}

/* SLOT_ALIAS has no memory of its own. */
static struct host_slot *slot_memory(enum fuzz_slot i)
{
	return &fuzz.slot[i == SLOT_ALIAS ? SLOT_BLOCK : i];
}

static void *slot_hva(enum fuzz_slot i)
{
	struct host_slot *s = slot_memory(i);

	return s->mem[s->at];
}

/* Tells KVM what the slot is like now; @size 0 deletes it. */
static void slot_tell(enum fuzz_slot i, size_t size)
{
	struct host_slot *s = &fuzz.slot[i];

	vm_set_user_memory_region(fuzz.vm, FIRST_MEMSLOT + i,
				  size && s->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0,
				  SLOT_GPA(i), size, slot_hva(i));
	s->present = size;
	WRITE_ONCE(fuzz.shared->present[i], s->present);
}

static void slot_snapshot(enum fuzz_slot i)
{
	if (i != SLOT_ALIAS)
		memcpy(fuzz.slot[i].last, slot_hva(i), slot_size(i));
}

static void slot_set_logged(enum fuzz_slot i, bool on)
{
	fuzz.slot[i].logged = on;
	if (fuzz.slot[i].present)
		slot_tell(i, slot_size(i));
}

/* Both slots of the control blocks are logged or none is. */
static void slot_log(enum fuzz_slot i, bool on)
{
	if (i == SLOT_ALIAS)
		return;
	slot_set_logged(i, on);
	if (i == SLOT_BLOCK)
		slot_set_logged(SLOT_ALIAS, on);
	slot_snapshot(i);
}

/* Counts the pages that changed since the last time though the log has not one. */
static void slot_read_log(enum fuzz_slot i)
{
	unsigned long dirty[2] = {}, alias[2] = {};
	unsigned int page;
	void *now, *last;

	if (i == SLOT_ALIAS || !fuzz.slot[i].logged || !fuzz.slot[i].present ||
	    (i == SLOT_BLOCK && !fuzz.slot[SLOT_ALIAS].present))
		return;

	kvm_vm_get_dirty_log(fuzz.vm, FIRST_MEMSLOT + i, dirty);
	if (i == SLOT_BLOCK)
		kvm_vm_get_dirty_log(fuzz.vm, FIRST_MEMSLOT + SLOT_ALIAS, alias);

	for (page = 0; page < slot_pages[i] && !fuzz.shared->parallel; page++) {
		now = slot_hva(i) + page * PAGE_SIZE;
		last = fuzz.slot[i].last + page * PAGE_SIZE;
		if (!memcmp(now, last, PAGE_SIZE) ||
		    test_bit(page, dirty) || test_bit(page, alias))
			continue;
		if (i == SLOT_BLOCK && fuzz.arch->block_is_open(fuzz.vm, page))
			continue;
		printf("# step %u: slot %u page %u changed and is not in the dirty log\n",
		       fuzz.shared->next[0], i, page);
		fuzz.lost++;
	}
	slot_snapshot(i);
}

static void slot_move(enum fuzz_slot i)
{
	bool alias = fuzz.slot[SLOT_ALIAS].present;
	struct host_slot *s = &fuzz.slot[i];
	bool present = s->present;
	void *from = slot_hva(i);

	if (i == SLOT_ALIAS)
		return;
	if (present)
		slot_tell(i, 0);
	if (i == SLOT_BLOCK && alias)
		slot_tell(SLOT_ALIAS, 0);
	s->at ^= 1;
	memcpy(slot_hva(i), from, slot_size(i));
	if (present)
		slot_tell(i, slot_size(i));
	if (i == SLOT_BLOCK && alias)
		slot_tell(SLOT_ALIAS, slot_size(SLOT_ALIAS));
	slot_snapshot(i);
}

/* The host's own access, which is in no log. */
static void *host_page(u64 gpa)
{
	enum fuzz_slot i = slot_of(gpa & PAGE_MASK);
	unsigned int block = block_of(gpa);

	if (i == NR_SLOTS)
		return NULL;
	if (block < NR_BLOCKS &&
	    ((gpa & ~PAGE_MASK) >= fuzz.arch->block_size ||
	     fuzz.arch->block_is_open(fuzz.vm, block)))
		return NULL;
	return slot_hva(i) + (gpa & PAGE_MASK) - SLOT_GPA(i);
}

static void host_wrote(u64 gpa)
{
	enum fuzz_slot i = slot_of(gpa & PAGE_MASK);
	size_t offset = (gpa & PAGE_MASK) - SLOT_GPA(i);

	memcpy(slot_memory(i)->last + offset, slot_hva(i) + offset, PAGE_SIZE);
}

/* Another host page comes in the place of this one, with its contents or empty. */
static void host_drop(u64 gpa, bool keep)
{
	static char copy[PAGE_SIZE];
	void *page = host_page(gpa);

	if (!page)
		return;
	memcpy(copy, page, PAGE_SIZE);
	if (fuzz.unmanaged)
		memset(page, 0, PAGE_SIZE);
	else
		madvise(page, PAGE_SIZE, MADV_DONTNEED);
	if (keep)
		memcpy(page, copy, PAGE_SIZE);
	host_wrote(gpa);
}

/* ---- vCPUs ---- */

static void vcpu_leave_nested(u32 cpu)
{
	struct kvm_nested_state state = { .size = sizeof(state) };

	if (!strcmp(fuzz.arch->name, "svm")) {
		state.format = KVM_STATE_NESTED_FORMAT_SVM;
		state.flags = KVM_STATE_NESTED_GIF_SET;
	} else {
		state.format = KVM_STATE_NESTED_FORMAT_VMX;
		state.hdr.vmx.vmxon_pa = -1ull;
		state.hdr.vmx.vmcs12_pa = -1ull;
	}
	host_note(cpu, "leave", __vcpu_nested_state_set(fuzz.vcpu[cpu], &state));
}

/* As the library's, but a state that KVM refuses is a result like others. */
static void vcpu_restore(u32 cpu, struct kvm_x86_state *state)
{
	struct kvm_vcpu *vcpu = fuzz.vcpu[cpu];

	host_note(cpu, "sregs", __vcpu_ioctl(vcpu, KVM_SET_SREGS, &state->sregs));
	host_note(cpu, "msrs", __vcpu_ioctl(vcpu, KVM_SET_MSRS, &state->msrs));
	host_note(cpu, "xcrs", __vcpu_ioctl(vcpu, KVM_SET_XCRS, &state->xcrs));
	host_note(cpu, "xsave", __vcpu_ioctl(vcpu, KVM_SET_XSAVE, state->xsave));
	host_note(cpu, "events", __vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &state->events));
	host_note(cpu, "mp", __vcpu_ioctl(vcpu, KVM_SET_MP_STATE, &state->mp_state));
	host_note(cpu, "debug", __vcpu_ioctl(vcpu, KVM_SET_DEBUGREGS, &state->debugregs));
	host_note(cpu, "regs", __vcpu_ioctl(vcpu, KVM_SET_REGS, &state->regs));
	host_note(cpu, "nested", __vcpu_nested_state_set(vcpu, &state->nested));
}

static struct kvm_x86_state *vcpu_save(u32 cpu)
{
	struct kvm_x86_state *state = vcpu_save_state(fuzz.vcpu[cpu]);

	host_note(cpu, "flags", state->nested.flags);
	if (state->nested.format == KVM_STATE_NESTED_FORMAT_VMX) {
		host_note(cpu, "vmxon", state->nested.hdr.vmx.vmxon_pa);
		host_note(cpu, "vmcs12", state->nested.hdr.vmx.vmcs12_pa);
	} else {
		host_note(cpu, "vmcb12", state->nested.hdr.svm.vmcb_pa);
	}
	return state;
}

static void vcpu_restore_in_place(u32 cpu)
{
	struct kvm_x86_state *state = vcpu_save(cpu);

	vcpu_leave_nested(cpu);
	vcpu_restore(cpu, state);
	kvm_x86_state_cleanup(state);
}

static void vcpu_reset(u32 cpu)
{
	fuzz.in_l2 = false;
	vcpu_leave_nested(cpu);
	vcpu_restore(cpu, fuzz.start[cpu]);
}

static void vm_migrate(void)
{
	struct kvm_x86_state *state[MAX_L1_VCPUS];
	unsigned int i;

	for (i = 0; i < fuzz.program->nr_vcpus; i++)
		state[i] = vcpu_save(i);
	kvm_vm_release(fuzz.vm);
	kvm_vm_restart(fuzz.vm);
	for (i = 0; i < NR_SLOTS; i++) {
		if (fuzz.slot[i].present)
			slot_tell(i, slot_size(i));
		slot_snapshot(i);
	}
	for (i = 0; i < fuzz.program->nr_vcpus; i++) {
		fuzz.vcpu[i] = vm_vcpu_recreate(fuzz.vm, i);
		vcpu_restore(i, state[i]);
		kvm_x86_state_cleanup(state[i]);
	}
}

/* ---- The host's steps ---- */

/* All memory that steps name, but for what the architecture leaves open. */
static u64 fuzz_vm_hash(void)
{
	u64 hash = FUZZ_HASH_INIT;
	unsigned int i, page;
	void *p;

	for (i = 0; i < SLOT_ALIAS; i++) {
		for (page = 0; page < slot_pages[i]; page++) {
			if (i == SLOT_BLOCK && fuzz.arch->block_is_open(fuzz.vm, page))
				continue;
			p = slot_hva(i) + page * PAGE_SIZE;
			hash = fuzz_hash(hash, p, PAGE_SIZE);
			if (fuzz.dump)
				printf("page %#lx %#lx\n", page_gpa(i, page),
				       fuzz_hash(FUZZ_HASH_INIT, p, PAGE_SIZE));
		}
	}
	return hash;
}

/* The memory is a result of the program that ends here; then all is as at first. */
static void vm_next_program(void)
{
	unsigned int i;

	host_note(0, "memory", fuzz_vm_hash());
	for (i = 0; i < NR_SLOTS; i++) {
		fuzz.slot[i].logged = false;
		if (i != SLOT_ALIAS)
			memset(slot_hva(i), 0, slot_size(i));
		slot_tell(i, slot_size(i));
		slot_snapshot(i);
	}
	fuzz.arch->l1_forget(fuzz.vm);
	for (i = 0; i < fuzz.program->nr_vcpus; i++)
		vcpu_reset(i);
	fuzz.resets = 0;
}

/* As a device does that knows where L2 runs. */
static void host_post(u32 cpu, u64 desc, u32 vector, u32 notification)
{
	struct kvm_msi msi = {
		.address_lo = APIC_DEFAULT_GPA | cpu << 12,
		.data = notification,
	};
	void *page = host_page(desc);

	if (!page || !fuzz.arch->posts)
		return;
	vmx_pi_post(page + (desc & ~PAGE_MASK), vector);
	host_wrote(desc);
	if (notification)
		host_note(cpu, "msi", __vm_ioctl(fuzz.vm, KVM_SIGNAL_MSI, &msi));
}

static void host_step(const struct fuzz_step *s)
{
	enum fuzz_slot slot = s->arg[0];
	void *page;

	/* Where the two kernels may differ, for the stock one holds a page. */
	if (fuzz.in_l2 && fuzz.arch->pins_in_l2 &&
	    (s->op == HOST_DELETE || s->op == HOST_ADD || s->op == HOST_MOVE ||
	     s->op == HOST_DROP)) {
		host_note(s->vcpu, "not in L2", s->op);
		return;
	}

	switch (s->op) {
	case HOST_RESTORE:
		vcpu_restore_in_place(s->vcpu);
		break;
	case HOST_MIGRATE:
		vm_migrate();
		break;
	case HOST_RESET:
		vcpu_reset(s->vcpu);
		break;
	case HOST_DELETE:
		if (fuzz.slot[slot].present)
			slot_tell(slot, 0);
		break;
	case HOST_ADD:
		if (!fuzz.slot[slot].present)
			slot_tell(slot, slot_size(slot));
		slot_snapshot(slot);
		break;
	case HOST_MOVE:
		slot_move(slot);
		break;
	case HOST_LOG:
		slot_log(slot, s->arg[1]);
		break;
	case HOST_GET_LOG:
		/* What VMX' processor wrote for L2 is logged when L2 exits. */
		if (!fuzz.in_l2 || !fuzz.arch->pins_in_l2)
			slot_read_log(slot);
		break;
	case HOST_DROP:
		host_drop(s->arg[0], s->arg[1]);
		break;
	case HOST_WRITE:
		page = host_page(s->arg[0]);
		if (page) {
			*(u64 *)(page + (s->arg[0] & 0xff8)) = s->arg[1];
			host_wrote(s->arg[0]);
		}
		break;
	case HOST_RATIO:
		nested_context_set_ratio(s->arg[0]);
		break;
	case HOST_POST:
		host_post(s->vcpu, s->arg[0], s->arg[1] & 0xff, s->arg[2]);
		break;
	case HOST_NEXT:
		vm_next_program();
		break;
	}
}

/* ---- The VM ---- */

static void slot_alloc(enum fuzz_slot i, int mem_fd, u64 *phys)
{
	struct host_slot *s = &fuzz.slot[i];
	unsigned int j;

	if (i == SLOT_ALIAS)
		return;
	s->last = calloc(1, slot_size(i));
	for (j = 0; j < 2; j++) {
		s->mem[j] = mmap(NULL, slot_size(i), PROT_READ | PROT_WRITE,
				 mem_fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED,
				 mem_fd, mem_fd < 0 ? 0 : *phys);
		TEST_ASSERT(s->mem[j] != MAP_FAILED, "Can't map memory at %#lx", *phys);
		*phys += slot_size(i);
		if (mem_fd >= 0)
			memset(s->mem[j], 0, slot_size(i));
		else
			madvise(s->mem[j], slot_size(i), MADV_NOHUGEPAGE);
	}
}

/* @phys: where memory without struct page is, 0 for the usual kind. */
static void fuzz_vm_init(const struct fuzz_arch *arch, unsigned int nr,
			 const struct fuzz_program *p, void *l1_main, u64 phys,
			 bool parallel)
{
	vm_vaddr_t scratch;
	unsigned int i;
	int mem_fd = -1;

	memset(&fuzz, 0, sizeof(fuzz));
	fuzz.arch = arch;
	fuzz.program = p;
	fuzz.unmanaged = phys;
	nested_context_set_ratio(p->ratio);
	fuzz.vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, p->nr_vcpus, 256,
					 l1_main, fuzz.vcpu);
	fuzz.shared = addr_gva2hva(fuzz.vm, (vm_vaddr_t)&shared);
	fuzz.shared->arch = nr;
	fuzz.shared->parallel = parallel;
	fuzz.shared->nr = p->nr;
	memcpy(fuzz.shared->step, p->step, p->nr * sizeof(p->step[0]));

	if (phys) {
		mem_fd = open("/dev/mem", O_RDWR);
		TEST_ASSERT(mem_fd >= 0, "Can't open /dev/mem");
	}
	for (i = 0; i < NR_SLOTS; i++) {
		slot_alloc(i, mem_fd, &phys);
		slot_tell(i, slot_size(i));
		virt_map(fuzz.vm, SLOT_GPA(i), SLOT_GPA(i), slot_pages[i]);
	}
	if (mem_fd >= 0)
		close(mem_fd);

	for (i = 0; i < p->nr_vcpus; i++) {
		scratch = vm_vaddr_alloc_page(fuzz.vm);
		vcpu_args_set(fuzz.vcpu[i], 3, i, scratch,
			      addr_gva2gpa(fuzz.vm, scratch));
		fuzz.start[i] = vcpu_save_state(fuzz.vcpu[i]);
	}
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_FUZZ_VM_H */
