// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nested VMX with many L2s by enlightened VMCSs (eVMCS): L1 must see what it would
 * see without nested contexts, whatever happens to the pages that they are in.
 *
 * Hyper-V as L1 has no VMPTRLD: it writes the eVMCS's address to the VP assist
 * page and enters L2.  Each L2 here has a counter that it adds to and a marker in
 * its eVMCS that it reads by RDMSR; after each exit L1 checks both, and that the
 * exit is in that eVMCS and no other.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "nested_context_common.h"
#include "nested_context_slot_hold.h"
#include "vmx_nested_evmcs_l1.h"

#define CASE_TIMEOUT	180

/* ---- Host ---- */

static struct {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	void *pages;
	size_t size;
	u64 vmxon_gpa;
	u32 nr;
	u32 flags;
} t;

static void slot_set(void)
{
	vm_set_user_memory_region(t.vm, PAGES_SLOT, t.flags, PAGES_GPA, t.size,
				  t.pages);
}

#define PAGES_SIZE	(L2_MAX * PAGES_PER_L2 * PAGE_SIZE)

/* The L2s' pages are those of @fd if there is one. */
static void vm_start(int fd)
{
	vm_vaddr_t pages_gva, hv_gva, hypercall;

	memset(&t, 0, sizeof(t));
	nested_context_set_ratio(NESTED_CONTEXT_RATIO);
	t.vm = vm_create_with_one_vcpu(&t.vcpu, l1_main);
	t.size = PAGES_SIZE;
	t.pages = mmap(NULL, t.size, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
	TEST_ASSERT(t.pages != MAP_FAILED, "mmap of %zu bytes", t.size);
	madvise(t.pages, t.size, MADV_NOHUGEPAGE);
	slot_set();
	virt_map(t.vm, PAGES_GPA, PAGES_GPA, t.size / PAGE_SIZE);

	vcpu_set_hv_cpuid(t.vcpu);
	vcpu_enable_evmcs(t.vcpu);
	hypercall = vm_vaddr_alloc_page(t.vm);
	vcpu_alloc_hyperv_test_pages(t.vm, &hv_gva);
	t.vmxon_gpa = vcpu_alloc_vmx(t.vm, &pages_gva)->vmxon_gpa;
	vcpu_args_set(t.vcpu, 3, pages_gva, hv_gva,
		      addr_gva2gpa(t.vm, hypercall));
	vcpu_set_msr(t.vcpu, HV_X64_MSR_VP_INDEX, t.vcpu->id);
}

FIXTURE(evmcs) {
};

FIXTURE_SETUP(evmcs)
{
	vm_start(-1);
}

FIXTURE_TEARDOWN(evmcs)
{
	kvm_vm_free(t.vm);
	munmap(t.pages, t.size);
}

static void ucall_is_sync(void)
{
	struct ucall uc;

	switch (get_ucall(t.vcpu, &uc)) {
	case UCALL_SYNC:
		return;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	default:
		TEST_FAIL("ucall %lu", uc.cmd);
	}
}

/* Runs vCPU 0 until L1 is done, or L2 pauses: then returns true. */
static bool run(void)
{
	vcpu_run(t.vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(t.vcpu, KVM_EXIT_IO);
	if (t.vcpu->run->io.port == PAUSE_PORT) {
		vcpu_run_complete_io(t.vcpu);
		return true;
	}
	ucall_is_sync();
	return false;
}

static bool start(u64 (*fn)(u64 a, u64 b), u64 a, u64 b)
{
	typeof(call) *c = addr_gva2hva(t.vm, (vm_vaddr_t)&call);

	c->fn = fn;
	c->a = a;
	c->b = b;
	return run();
}

static u64 l1(u64 (*fn)(u64 a, u64 b), u64 a, u64 b)
{
	typeof(call) *c = addr_gva2hva(t.vm, (vm_vaddr_t)&call);

	TEST_ASSERT(!start(fn, a, b), "Stopped in L2");
	return c->ret;
}

static void set_pause(bool on)
{
	*(bool *)addr_gva2hva(t.vm, (vm_vaddr_t)&pause_l2) = on;
}

/* Leaves L2 @i paused, in a call of @fn. */
static void pause_in_call(u64 (*fn)(u64 a, u64 b), u32 i)
{
	set_pause(true);
	TEST_ASSERT(start(fn, i, 0), "Not paused in L2 %u", i);
	set_pause(false);
}

static void pause_in(u32 i)
{
	pause_in_call(l1_step, i);
}

/*
 * What was paused while the memslot was there has ended.  L2's next exit is that of
 * RDMSR if L1's MSR bitmap was gone then, as it is with the eVMCS.
 */
static void check_paused_call(void)
{
	u64 reason = ((typeof(call) *)addr_gva2hva(t.vm, (vm_vaddr_t)&call))->ret;

	TEST_ASSERT(reason == EXIT_REASON_VMCALL || reason == EXIT_REASON_MSR_READ,
		    "L1 saw exit %lx", reason);
}

static void make(u32 nr)
{
	u32 i;

	TEST_ASSERT(!run(), "Paused before there was an L2");
	t.nr = nr;
	for (i = 0; i < nr; i++)
		l1(l1_make, i, 0);
}

static void loop(u32 rounds)
{
	u32 i, r;

	for (r = 0; r < rounds; r++) {
		for (i = 0; i < t.nr; i++)
			l1(l1_step, i, (r + i) % 2);
	}
}

static void save_restore(void)
{
	struct kvm_x86_state *state = vcpu_save_state(t.vcpu);

	kvm_vm_release(t.vm);
	t.vcpu = vm_recreate_with_one_vcpu(t.vm);
	slot_set();
	vcpu_set_hv_cpuid(t.vcpu);
	vcpu_enable_evmcs(t.vcpu);
	vcpu_load_state(t.vcpu, state);
	kvm_x86_state_cleanup(state);
}

/* The host gives L1 other pages for L2 @i, with the same content. */
static void replace_pages(u32 i)
{
	void *pages = t.pages + i * PAGES_PER_L2 * PAGE_SIZE;
	u8 copy[PAGES_PER_L2 * PAGE_SIZE];

	memcpy(copy, pages, sizeof(copy));
	TEST_ASSERT(!madvise(pages, sizeof(copy), MADV_DONTNEED), "MADV_DONTNEED");
	memcpy(pages, copy, sizeof(copy));
}

/* ---- Cases ---- */

/* Round robin, within the capacity, and what that counts. */
TEST_F_TIMEOUT(evmcs, loop_4, CASE_TIMEOUT)
{
	struct nested_context_stats s;

	make(4);
	loop(1);
	s = nested_context_read_stats(t.vm);
	loop(5);
	s = nested_context_stats_sub(nested_context_read_stats(t.vm), s);
	if (nested_context_present())
		TEST_ASSERT(s.reuse == 5 * 4 && nested_context_loads(s) == s.reuse,
			    "new %lu reuse %lu recycle %lu fallback %lu", s.new,
			    s.reuse, s.recycle, s.fallback);
}

/* One L2 that is entered again and again loads nothing. */
TEST_F_TIMEOUT(evmcs, same, CASE_TIMEOUT)
{
	struct nested_context_stats s;

	make(1);
	loop(1);
	s = nested_context_read_stats(t.vm);
	loop(8);
	s = nested_context_stats_sub(nested_context_read_stats(t.vm), s);
	TEST_ASSERT_EQ(nested_context_loads(s), 0);
}

/* More of them than contexts: some pass through. */
TEST_F_TIMEOUT(evmcs, loop_over_capacity, CASE_TIMEOUT)
{
	make(L2_MAX);
	loop(4);
}

/* A VM that is saved and restored between any two steps, in L1 and in L2. */
TEST_F_TIMEOUT(evmcs, save_restore, CASE_TIMEOUT)
{
	u32 i;

	make(3);
	for (i = 0; i < 6; i++) {
		l1(l1_step, i % 3, i & 1);
		save_restore();
		pause_in((i + 1) % 3);
		save_restore();
		TEST_ASSERT(!run(), "Paused twice");
		save_restore();
	}
	loop(2);
}

/* The pages of a parked eVMCS are replaced. */
TEST_F_TIMEOUT(evmcs, parked_pages_replaced, CASE_TIMEOUT)
{
	u32 i;

	make(3);
	for (i = 0; i < 6; i++) {
		l1(l1_step, i % 3, 1);
		l1(l1_step, (i + 1) % 3, 1);
		replace_pages(i % 3);
		l1(l1_step, i % 3, 1);
	}
	loop(2);
}

/*
 * Those of a current one, in L1 and while L2 runs.  The kernel without contexts
 * does not notice: it pins an eVMCS as long as it is current.
 */
TEST_F_TIMEOUT(evmcs, current_pages_replaced, CASE_TIMEOUT)
{
	u32 i;

	if (!nested_context_present())
		SKIP(return, "this kernel pins the current eVMCS");

	make(3);
	for (i = 0; i < 6; i++) {
		l1(l1_step, i % 3, 1);
		replace_pages(i % 3);
		l1(l1_step, i % 3, 1);
		pause_in(i % 3);
		replace_pages(i % 3);
		TEST_ASSERT(!run(), "Paused twice");
	}
	loop(2);
}

/*
 * Each exit is a write to the eVMCS's page that the dirty log tells of.  Without
 * contexts KVM logs it when L1 uses another eVMCS next.
 */
TEST_F_TIMEOUT(evmcs, dirty_log, CASE_TIMEOUT)
{
	u64 bitmap[L2_MAX * PAGES_PER_L2 / 64 + 1];
	u32 i, bit;

	if (!nested_context_present())
		SKIP(return, "logged late");
	make(3);
	loop(1);
	t.flags = KVM_MEM_LOG_DIRTY_PAGES;
	slot_set();
	for (i = 0; i < 6; i++) {
		pause_in(i % 3);
		kvm_vm_get_dirty_log(t.vm, PAGES_SLOT, bitmap);
		TEST_ASSERT(!run(), "Paused twice");
		kvm_vm_get_dirty_log(t.vm, PAGES_SLOT, bitmap);
		bit = i % 3 * PAGES_PER_L2 + EVMCS_PAGE;
		TEST_ASSERT(bitmap[bit / 64] >> bit % 64 & 1,
			    "Round %u: the page of eVMCS %u is not logged", i, i % 3);
	}
}

/* No memory there: #UD.  No eVMCS there: VMLAUNCH fails.  And all is well again. */
TEST_F_TIMEOUT(evmcs, bad_addresses, CASE_TIMEOUT)
{
	u32 i;

	make(2);
	loop(1);
	for (i = 0; i < 3; i++) {
		TEST_ASSERT_EQ(l1(l1_try_enter_at, 0x30000000, 0), UD_VECTOR);
		l1(l1_step, 0, 1);
		TEST_ASSERT_EQ(l1(l1_try_enter_at,
				  l2_page(0, BITMAP_PAGE), 0), VMFAIL);
		l1(l1_step, i % 2, 1);
	}
	loop(2);
}

/* One page as eVMCS, as VMCS, as plain memory, and as eVMCS again. */
TEST_F_TIMEOUT(evmcs, page_changes_its_use, CASE_TIMEOUT)
{
	u32 i;

	make(3);
	for (i = 0; i < 3; i++) {
		loop(2);
		l1(l1_use_as_vmcs, 1, t.vmxon_gpa);
		l1(l1_fill, 1, 0x5a + i);
		l1(l1_step, 0, 0);
		l1(l1_step, 2, 1);
		l1(l1_check_filled, 1, 0x5a + i);
		l1(l1_make, 1, 0);
	}
	loop(2);
}

static void slot_delete(void)
{
	vm_set_user_memory_region(t.vm, PAGES_SLOT, 0, PAGES_GPA, 0, NULL);
}

/* Runs vCPU 0, whose L1 has its eVMCSs as a device now. */
static void run_without_slot(void)
{
	struct kvm_run *run = t.vcpu->run;
	u8 *page;

	for (;;) {
		vcpu_run(t.vcpu);
		if (run->exit_reason != KVM_EXIT_MMIO)
			break;
		TEST_ASSERT(run->mmio.phys_addr - PAGES_GPA < t.size, "MMIO at %#llx",
			    run->mmio.phys_addr);
		page = t.pages + run->mmio.phys_addr - PAGES_GPA;
		if (run->mmio.is_write)
			memcpy(page, run->mmio.data, run->mmio.len);
		else
			memcpy(run->mmio.data, page, run->mmio.len);
	}
	TEST_ASSERT_KVM_EXIT_REASON(t.vcpu, KVM_EXIT_IO);
	TEST_ASSERT(t.vcpu->run->io.port != PAUSE_PORT, "Paused twice");
	ucall_is_sync();
}

/* The memslot of eVMCSs goes while L2 runs: its exit is written to what was there. */
TEST_F_TIMEOUT(evmcs, slot_deleted_in_l2, CASE_TIMEOUT)
{
	u32 i;

	make(2);
	loop(1);
	for (i = 0; i < 4; i++) {
		pause_in_call(l1_enter, i % 2);
		slot_delete();
		run_without_slot();
		slot_set();
		check_paused_call();
	}
	loop(2);
}

/*
 * The memory goes as well: L1 doesn't run before the exit was written, which takes
 * memory at that address again.
 */
TEST_F_TIMEOUT(evmcs, page_taken_in_l2, CASE_TIMEOUT)
{
	struct kvm_run *run_page = t.vcpu->run;
	u32 i, k;

	if (!nested_context_present())
		SKIP(return, "this kernel pins the current eVMCS");

	make(2);
	loop(1);
	for (i = 0; i < 4; i++) {
		pause_in_call(l1_enter, i % 2);
		slot_delete();
		replace_pages(i % 2);
		for (k = 0; k < 2; k++) {
			TEST_ASSERT(__vcpu_run(t.vcpu) == -1 && errno == EFAULT,
				    "KVM_RUN did not fail with EFAULT");
			TEST_ASSERT_KVM_EXIT_REASON(t.vcpu, KVM_EXIT_MEMORY_FAULT);
			TEST_ASSERT_EQ(run_page->memory_fault.gpa,
				       (u64)l2_page(i % 2, EVMCS_PAGE));
		}
		slot_set();
		TEST_ASSERT(!run(), "Paused twice");
		check_paused_call();
	}
	loop(2);
}

/*
 * VMREAD without the eVMCS's memory reads all 1s, or what was there as long as
 * the page is pinned; and never more bits than the field has.
 */
TEST_F_TIMEOUT(evmcs, vmread_without_memory, CASE_TIMEOUT)
{
	u64 es, reason, rip;
	u32 i;

	make(2);
	for (i = 0; i < 3; i++) {
		loop(1);
		slot_delete();
		es = l1(l1_vmread, GUEST_ES_SELECTOR, 0);
		reason = l1(l1_vmread, VM_EXIT_REASON, 0);
		rip = l1(l1_vmread, GUEST_RIP, 0);
		slot_set();
		TEST_ASSERT(es == 0xffff || es == l1(l1_vmread, GUEST_ES_SELECTOR, 0),
			    "ES %lx", es);
		TEST_ASSERT(reason == ~0u || reason == EXIT_REASON_VMCALL,
			    "exit reason %lx", reason);
		TEST_ASSERT(rip == ~0ull || rip == l1(l1_vmread, GUEST_RIP, 0),
			    "RIP %lx", rip);
	}
	loop(2);
}

static void *run_other(void *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, &uc), UCALL_DONE);
	return NULL;
}

/*
 * Another vCPU of L1 changes the eVMCS all the time.  What L0 does with it must
 * not come from two looks at it.
 */
TEST_F_TIMEOUT(evmcs, changes_while_entered, CASE_TIMEOUT)
{
	struct kvm_vcpu *other;
	pthread_t thread;

	make(2);
	loop(1);
	other = vm_vcpu_add(t.vm, 1, l1_other_main);
	vcpu_args_set(other, 2, 0ul, 200000ul);
	TEST_ASSERT(!pthread_create(&thread, NULL, run_other, other), "pthread_create");
	l1(l1_run_flipped, 0, 1000);
	TEST_ASSERT(!pthread_join(thread, NULL), "pthread_join");
	l1(l1_step, 1, 1);
}

/* ---- Nested state that was set, and not yet used ---- */

static union vmx_nested_state state;

/* The state is the vCPU's own, so nothing changes but what KVM has to do. */
static void set_same_state(void *unused)
{
	vcpu_nested_state_set(t.vcpu, &state.s);
}

static void get_state(void)
{
	const u32 flags = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_EVMCS;

	state.s.size = sizeof(state);
	vcpu_nested_state_get(t.vcpu, &state.s);
	TEST_ASSERT((state.s.flags & flags) == flags, "flags %x", state.s.flags);
}

/*
 * The state is set twice, and meanwhile the eVMCS's memslot is invalid, for
 * another vCPU keeps its update from ending.  What the vCPU leaves L2 for then is
 * user space's order, and that waits for nobody.
 */
TEST_F_TIMEOUT(evmcs, state_set_while_slot_moves, CASE_TIMEOUT)
{
	struct held_thread setting;
	struct kvm_vcpu *reader;
	struct slot_hold hold;
	bool in_time;
	u32 i;

	make(2);
	loop(1);
	reader = vm_vcpu_add(t.vm, 1, l1_other_main);
	for (i = 0; i < 3; i++) {
		pause_in(i % 2);
		get_state();
		set_same_state(NULL);
		slot_hold_begin(&hold, t.vm, reader);
		slot_hold_invalidate(&hold, PAGES_SLOT, t.flags, t.size, t.pages);
		held_thread_start(&setting, set_same_state, NULL);
		in_time = held_thread_ends(&setting);
		slot_hold_end(&hold);
		TEST_ASSERT(in_time, "KVM_SET_NESTED_STATE waits for a memslot");
		TEST_ASSERT(!run(), "Paused twice");
		loop(1);
	}
}

/* A step of L2 0, of which L1 has done all but to enter it. */
static void step_held(void *unused)
{
	l1(l1_step, 0, 1);
}

/*
 * L2 is entered while its eVMCS's memslot is invalid for the moment: L1 must not
 * notice, and the next time that it is entered, either.
 */
TEST_F_TIMEOUT(evmcs, entered_while_slot_moves, CASE_TIMEOUT)
{
	bool *hold_it = addr_gva2hva(t.vm, (vm_vaddr_t)&hold_l1);
	bool *held = addr_gva2hva(t.vm, (vm_vaddr_t)&l1_held);
	struct held_thread stepping;
	struct kvm_vcpu *reader;
	struct slot_hold hold;
	u32 i;

	if (!nested_context_present())
		SKIP(return, "L2's MSR bitmap is in that memslot, and not waited for");
	make(2);
	reader = vm_vcpu_add(t.vm, 1, l1_other_main);
	for (i = 0; i < 4; i++) {
		/* The eVMCS is current already, or another one is. */
		loop(1);
		if (i % 2)
			l1(l1_step, 0, 0);
		slot_hold_begin(&hold, t.vm, reader);
		WRITE_ONCE(*held, false);
		WRITE_ONCE(*hold_it, true);
		held_thread_start(&stepping, step_held, NULL);
		while (!READ_ONCE(*held))
			usleep(1000);
		slot_hold_invalidate(&hold, PAGES_SLOT, t.flags, t.size, t.pages);
		WRITE_ONCE(*hold_it, false);
		held_thread_settles(&stepping);
		slot_hold_end(&hold);
		TEST_ASSERT(held_thread_ends(&stepping), "L2 was not entered");
	}
	loop(2);
}

/*
 * Closes the VM when told that its own process is gone, and reports whether that
 * wrote to the L2s' pages.  All memory of the VM is where it was, but for these.
 */
static void close_vm_later(int gone, int report, int pages_fd)
{
	static u8 before[PAGES_SIZE], after[PAGES_SIZE];
	bool same;

	TEST_ASSERT(read(gone, &same, 1) == 1, "Not told");
	TEST_ASSERT(!munmap(t.pages, t.size), "munmap");
	TEST_ASSERT(pread(pages_fd, before, PAGES_SIZE, 0) == PAGES_SIZE, "pread");
	kvm_vm_release(t.vm);
	TEST_ASSERT(pread(pages_fd, after, PAGES_SIZE, 0) == PAGES_SIZE, "pread");
	same = !memcmp(before, after, PAGES_SIZE);
	TEST_ASSERT(write(report, &same, 1) == 1, "write");
	_exit(0);
}

/* Makes a VM and leaves it to another process in the state that is of interest. */
static void make_vm_and_exit(int gone, int report, int pages_fd)
{
	pid_t pid;

	vm_start(pages_fd);
	make(1);
	loop(1);
	pause_in(0);
	get_state();
	set_same_state(NULL);
	memset(t.pages + offsetof(struct hv_enlightened_vmcs, hv_clean_fields), 0xff, 4);

	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid)
		close_vm_later(gone, report, pages_fd);
	_exit(0);
}

/*
 * The process that ran the VM is gone, and its memory with it, when another one
 * closes the VM.  What was kept mapped of that memory may be anybody's by then;
 * here it is a file's, where a write to it would be seen.
 */
TEST_F_TIMEOUT(evmcs, destroyed_after_its_process, CASE_TIMEOUT)
{
	int pages_fd, gone[2], report[2], status;
	bool same = false;
	pid_t pid;
	u32 i;

	pages_fd = kvm_memfd_alloc(PAGES_SIZE, false);
	TEST_ASSERT(!pipe(gone) && !pipe(report), "pipe");
	for (i = 0; i < 3; i++) {
		pid = fork();
		TEST_ASSERT(pid >= 0, "fork");
		if (!pid)
			make_vm_and_exit(gone[0], report[1], pages_fd);
		/* With all its threads, of which KVM makes one. */
		TEST_ASSERT(waitpid(pid, &status, 0) == pid && !status,
			    "The VM's process: status %x", status);
		TEST_ASSERT(write(gone[1], &same, 1) == 1 &&
			    read(report[0], &same, 1) == 1, "The VM was not closed");
		TEST_ASSERT(same, "The VM's end wrote to memory that it had no more");
	}
	close(gone[0]);
	close(gone[1]);
	close(report[0]);
	close(report[1]);
	close(pages_fd);
}

static unsigned int ratio_before;
static pid_t main_pid;

static void cleanup(void)
{
	if (getpid() == main_pid)
		nested_context_set_ratio(ratio_before);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS));

	ratio_before = nested_context_get_ratio();
	main_pid = getpid();
	atexit(cleanup);
	return test_harness_run(argc, argv);
}
