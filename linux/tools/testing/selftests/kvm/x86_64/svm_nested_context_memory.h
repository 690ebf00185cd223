/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases of svm_nested_context_test: the memory under kept mappings changes.
 */
#ifndef SELFTEST_KVM_SVM_NESTED_CONTEXT_MEMORY_H
#define SELFTEST_KVM_SVM_NESTED_CONTEXT_MEMORY_H

#include "nested_context_host.h"
#include "svm_nested_context_vm.h"

#define MEMORY_L2S	8

static void memory_vm_create(void)
{
	const struct test_options opt = {
		.nr_l2 = MEMORY_L2S, .nr_vcpus = 2, .ratio = 8, .npt = true,
		.clean = true, .accesses = L2_NR_ACCESSES,
	};

	test_vm_create(&opt);
	test_stats_restart();
	model_restart();
}

FIXTURE(memory) {
};

FIXTURE_SETUP(memory)
{
	memory_vm_create();
}

FIXTURE_TEARDOWN(memory)
{
	test_vm_free();
}

/* ---- The pages are replaced, what they held stays ---- */

FIXTURE(replace) {
};

FIXTURE_VARIANT(replace) {
	u32 slot;
	enum { READD, MREMAP, DONTNEED, MMAP, FORK, COMPACT } how;
};

FIXTURE_SETUP(replace)
{
	memory_vm_create();
}

FIXTURE_TEARDOWN(replace)
{
	test_vm_free();
}

FIXTURE_VARIANT_ADD(replace, vmcb_readd) {
	.slot = VMCB, .how = READD,
};

FIXTURE_VARIANT_ADD(replace, vmcb_mremap) {
	.slot = VMCB, .how = MREMAP,
};

FIXTURE_VARIANT_ADD(replace, vmcb_dontneed) {
	.slot = VMCB, .how = DONTNEED,
};

FIXTURE_VARIANT_ADD(replace, vmcb_mmap) {
	.slot = VMCB, .how = MMAP,
};

FIXTURE_VARIANT_ADD(replace, vmcb_fork) {
	.slot = VMCB, .how = FORK,
};

FIXTURE_VARIANT_ADD(replace, vmcb_compact) {
	.slot = VMCB, .how = COMPACT,
};

FIXTURE_VARIANT_ADD(replace, msrpm_readd) {
	.slot = MSRPM, .how = READD,
};

FIXTURE_VARIANT_ADD(replace, msrpm_mremap) {
	.slot = MSRPM, .how = MREMAP,
};

FIXTURE_VARIANT_ADD(replace, msrpm_dontneed) {
	.slot = MSRPM, .how = DONTNEED,
};

FIXTURE_VARIANT_ADD(replace, msrpm_mmap) {
	.slot = MSRPM, .how = MMAP,
};

FIXTURE_VARIANT_ADD(replace, msrpm_fork) {
	.slot = MSRPM, .how = FORK,
};

FIXTURE_VARIANT_ADD(replace, msrpm_compact) {
	.slot = MSRPM, .how = COMPACT,
};

#define POISON	0xcc

/*
 * Gives a slot other host pages with the same content.  Where the old ones
 * live on they are poisoned, and returned.
 */
static void *replace_pages(struct slot *s, u32 how)
{
	void *old = NULL, *fresh, *copy = malloc(s->size);
	int fd;

	memcpy(copy, s->hva, s->size);
	switch (how) {
	case READD:
		old = s->hva;
		slot_delete(s);
		s->hva = slot_pages(s->size);
		memcpy(s->hva, copy, s->size);
		slot_set(s);
		break;
	case MREMAP:
		fresh = slot_pages(s->size);
		memcpy(fresh, copy, s->size);
		old = mremap(s->hva, s->size, s->size, MREMAP_MAYMOVE | MREMAP_FIXED,
			     slot_pages(s->size));
		TEST_ASSERT(old != MAP_FAILED, "mremap");
		TEST_ASSERT(mremap(fresh, s->size, s->size,
				   MREMAP_MAYMOVE | MREMAP_FIXED, s->hva) == s->hva,
			    "mremap");
		break;
	case DONTNEED:
		TEST_ASSERT(!madvise(s->hva, s->size, MADV_DONTNEED), "madvise");
		memcpy(s->hva, copy, s->size);
		break;
	case MMAP:
		TEST_ASSERT(!munmap(s->hva, s->size), "munmap");
		fresh = mmap(s->hva, s->size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		TEST_ASSERT(fresh == s->hva, "mmap");
		memcpy(s->hva, copy, s->size);
		break;
	case COMPACT:
		fd = open("/proc/sys/vm/compact_memory", O_WRONLY);
		if (fd >= 0) {
			TEST_ASSERT(write(fd, "1", 1) == 1, "compact_memory");
			close(fd);
		}
		break;
	}
	free(copy);

	if (old)
		memset(old, POISON, s->size);
	return old;
}

static void expect_poison(void *old, size_t size)
{
	u8 *p = old;
	size_t i;

	for (i = 0; i < size; i++)
		TEST_ASSERT(p[i] == POISON, "Offset %#zx of a page given up was written", i);
	munmap(old, size);
}

/*
 * After the host replaced the pages of control blocks or MSR maps, the next
 * VMRUN sees the new ones only, and nothing writes to the old.  L1 changes the
 * maps after each replacement, so a stale one shows.  The contexts stay.
 */
TEST_F_TIMEOUT(replace, next_run_sees_new_pages, CASE_TIMEOUT)
{
	struct slot *s = &t.slot[variant->slot];
	struct witness w = {};
	void *old;
	u32 i;

	run_and_model(0, 0, MEMORY_L2S, 2);
	for (i = 1; i <= 4; i++) {
		if (variant->how == FORK)
			w = witness_start(s->hva, s->size);
		old = replace_pages(s, variant->how);
		l1_do(0, l1_change_maps, 0, MEMORY_L2S, 9 * i, 0);
		run_and_model(i % 2, 0, MEMORY_L2S, 2);
		if (old)
			expect_poison(old, s->size);
		if (w.pid)
			TEST_ASSERT(witness_kept(&w), "The pages of a forked child changed");

		/* In the middle of a run too. */
		model_run(0, i, 1, 1);
		pause_in_l2(0, i);
		old = replace_pages(s, variant->how);
		finish_l2(0, i);
		if (old)
			expect_poison(old, s->size);
	}
	expect_model(16);
}

/*
 * L1 changes bits of its maps between two runs and tells nobody.  The change
 * is in force at the next VMRUN, on this vCPU or another.
 */
TEST_F_TIMEOUT(memory, msr_map_changes_unannounced, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 64; i++) {
		l1_do(0, l1_change_maps, 0, MEMORY_L2S, i, 0);
		run_and_model(i / 4 % 2, 0, 1 + i % MEMORY_L2S, 1);
	}
	expect_model(16);
}

/* ---- The memslots go and come ---- */

static u64 vmcb_gpa(u32 l2)
{
	return t.slot[VMCB].gpa + l2 * PAGE_SIZE;
}

/*
 * A control block in no memslot: VMRUN, VMLOAD and VMSAVE raise #GP.
 */
static void expect_no_vmcb(u32 cpu, u64 gpa)
{
	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, gpa, 0, 0, 0), GP_VECTOR);
	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmload, gpa, 0, 0, 0), GP_VECTOR);
	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmsave, gpa, 0, 0, 0), GP_VECTOR);
}

/* An MSR map in no memslot: VMRUN fails with VMEXIT_INVALID. */
static void expect_no_msrpm(u32 cpu, u32 l2)
{
	struct vmcb *vmcb = test_vmcb(l2);
	struct vmcb before = *vmcb;

	TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, vmcb_gpa(l2), 0, 0, 0), 0);
	TEST_ASSERT_EQ(vmcb->control.exit_code, (u32)SVM_EXIT_ERR);
	*vmcb = before;
}

/*
 * The slot of the control blocks is deleted between runs: L1 gets what it
 * gets for any address without memory.  When it comes back, so do the L2s.
 */
TEST_F_TIMEOUT(memory, vmcb_slot_deleted, CASE_TIMEOUT)
{
	u32 round, i;

	for (round = 0; round < 4; round++) {
		run_l2s(round % 2, 0, MEMORY_L2S, 2);
		slot_delete(&t.slot[VMCB]);
		for (i = 0; i < MEMORY_L2S; i++)
			expect_no_vmcb(i % 2, vmcb_gpa(i));
		slot_set(&t.slot[VMCB]);
	}
	run_l2s(0, 0, MEMORY_L2S, 2);
}

/* Likewise for the MSR maps. */
TEST_F_TIMEOUT(memory, msrpm_slot_deleted, CASE_TIMEOUT)
{
	u32 round, i;

	for (round = 0; round < 4; round++) {
		run_l2s(round % 2, 0, MEMORY_L2S, 2);
		slot_delete(&t.slot[MSRPM]);
		for (i = 0; i < MEMORY_L2S; i++)
			expect_no_msrpm(round / 2, i);
		slot_set(&t.slot[MSRPM]);
	}
	run_l2s(0, 0, MEMORY_L2S, 2);
}

/* arg: VMCB or MSRPM, distance */
static u64 l1_follow_slot(u32 cpu, u64 *arg)
{
	u32 i;

	for (i = 0; i < MEMORY_L2S; i++) {
		if (arg[0] == VMCB) {
			l2s[i].v.vmcb_gpa += arg[1];
			l2s[i].v.vmcb = (void *)l2s[i].v.vmcb_gpa;
		} else {
			l2s[i].v.msrpm += arg[1];
			l2s[i].v.vmcb->control.msrpm_base_pa += arg[1];
		}
	}
	return 0;
}

#define MOVE_BY	0x1000000ull

/*
 * The slot moves to another guest-physical address and back.  At the old one
 * there is nothing, at the new one is everything.
 */
TEST_F_TIMEOUT(memory, slots_move, CASE_TIMEOUT)
{
	struct slot *s;
	u64 by;
	u32 i;

	for (s = &t.slot[VMCB]; s <= &t.slot[MSRPM]; s++)
		virt_map(t.vm, s->gpa + MOVE_BY, s->gpa + MOVE_BY, s->size / PAGE_SIZE);

	for (i = 0; i < 6; i++) {
		by = i % 2 ? -MOVE_BY : MOVE_BY;
		run_l2s(i % 2, 0, MEMORY_L2S, 2);

		s = &t.slot[VMCB];
		s->gpa += by;
		slot_set(s);
		expect_no_vmcb(i % 2, vmcb_gpa(i) - by);
		l1_do(0, l1_follow_slot, VMCB, by, 0, 0);
		run_l2s(i % 2, 0, MEMORY_L2S, 2);

		s = &t.slot[MSRPM];
		s->gpa += by;
		slot_set(s);
		/* test_vmcb() knows the block's first place only. */
		if (t.slot[VMCB].gpa == L2_VMCB_GPA)
			expect_no_msrpm(i % 2, i);
		l1_do(0, l1_follow_slot, MSRPM, by, 0, 0);
	}
	run_l2s(0, 0, MEMORY_L2S, 2);
}

static void l2_gp_handler(struct ex_regs *regs)
{
	asm volatile("out %%al, $0x9a" : : : "memory");
}

/*
 * The control block's slot is deleted while L2 runs.  There is nowhere to
 * leave the exit, so L2's VMMCALL raises #GP in L2, as often as it is tried;
 * once the slot is back, the exit succeeds with all state right.
 */
TEST_F_TIMEOUT(memory, vmcb_slot_deleted_in_l2, CASE_TIMEOUT)
{
	u32 i;

	run_l2s(0, 0, MEMORY_L2S, 1);
	vm_install_exception_handler(t.vm, GP_VECTOR, l2_gp_handler);
	for (i = 0; i < MEMORY_L2S; i++) {
		pause_in_l2(i % 2, i);
		slot_delete(&t.slot[VMCB]);
		TEST_ASSERT_EQ(vcpu_go(i % 2), L2_GOT_GP);
		TEST_ASSERT_EQ(vcpu_go(i % 2), L2_GOT_GP);
		slot_set(&t.slot[VMCB]);
		finish_l2(i % 2, i);
	}
	run_l2s(1, 0, MEMORY_L2S, 2);
}

/*
 * The slot is moved while L2 runs, and another slot with the same content
 * put in its place: #VMEXIT goes where the address leads at that time.
 */
TEST_F_TIMEOUT(memory, vmcb_slot_replaced_in_l2, CASE_TIMEOUT)
{
	void *old;
	u32 i;

	for (i = 0; i < 2 * MEMORY_L2S; i++) {
		run_l2s(1, 0, MEMORY_L2S, 1);
		pause_in_l2(0, i % MEMORY_L2S);
		old = replace_pages(&t.slot[VMCB], READD);
		finish_l2(0, i % MEMORY_L2S);
		expect_poison(old, t.slot[VMCB].size);
	}
}

/*
 * One vCPU's L2s go on while the other's blocks and maps change hands: what
 * invalidates one mapping must not spoil another in use.
 */
static void *moving_thread(void *arg)
{
	enum l1_stop stop = vcpu_go(1);

	TEST_ASSERT(stop == L1_DONE, "vCPU 1 stopped in L2");
	return NULL;
}

TEST_F_TIMEOUT(memory, storm_of_invalidations, CASE_TIMEOUT)
{
	size_t half = t.slot[VMCB].size / 2;
	struct slot *s = &t.slot[VMCB];
	pthread_t thread;
	void *copy;
	u32 i;

	run_l2s(1, 0, MEMORY_L2S, 1);
	copy = malloc(half);

	/* vCPU 1 runs the upper half, the host moves pages of the lower. */
	l1_set_call(1, l1_run_l2s, MEMORY_L2S / 2, MEMORY_L2S / 2, 150, 0);
	pthread_create(&thread, NULL, moving_thread, NULL);
	for (i = 0; i < 100; i++) {
		memcpy(copy, s->hva, half);
		TEST_ASSERT(!madvise(s->hva, half, MADV_DONTNEED), "madvise");
		memcpy(s->hva, copy, half);
		/* Flags change the memslots' generation for all. */
		s->flags ^= KVM_MEM_LOG_DIRTY_PAGES;
		slot_set(s);
		run_l2s(0, 0, MEMORY_L2S / 2, 1);
	}
	pthread_join(thread, NULL);
	free(copy);
	s->flags = 0;
	slot_set(s);
	run_l2s(0, 0, MEMORY_L2S, 2);
}

/* ---- Dirty logging ---- */

static u64 dirty_pages(u32 slot)
{
	u64 bitmap = 0;

	kvm_vm_get_dirty_log(t.vm, t.slot[slot].id, &bitmap);
	return bitmap;
}

static void log_dirty(bool on)
{
	u32 i;

	for (i = VMCB; i <= MSRPM; i++) {
		t.slot[i].flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
		slot_set(&t.slot[i]);
	}
}

static void expect_dirty(u32 l2, const char *what)
{
	u64 dirty = dirty_pages(VMCB);

	TEST_ASSERT(dirty == BIT_ULL(l2), "%s of block %u: log is %#llx",
		    what, l2, (unsigned long long)dirty);
	dirty = dirty_pages(MSRPM);
	TEST_ASSERT(!dirty, "%s of block %u: log of the maps is %#llx",
		    what, l2, (unsigned long long)dirty);
}

/*
 * Each write of L0 to a control block is in the dirty log: #VMEXIT, a VMRUN
 * that fails, VMSAVE.  L1 itself does not write to the block meanwhile (the
 * host sets it up, which the log doesn't see), the log is fetched and so
 * cleared before each, even while L2 runs, and logging goes on and off while
 * mappings are kept.  Nothing else is in the log.
 */
TEST_F_TIMEOUT(memory, dirty_log, CASE_TIMEOUT)
{
	struct vmcb *vmcb;
	u32 round, cpu, i;

	for (i = 0; i < MEMORY_L2S; i++)
		test_vmcb(i)->save.rip = (u64)l2_quiet;

	for (round = 0; round < 64; round++) {
		i = round * 5 % MEMORY_L2S;
		cpu = round / 16 % 2;
		vmcb = test_vmcb(i);

		if (round % 16 == 0) {
			log_dirty(false);
			TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, vmcb_gpa(i), 0, 0, 0), 0);
			log_dirty(true);
		}
		dirty_pages(VMCB);
		dirty_pages(MSRPM);

		vmcb->control.exit_code = -2;
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, vmcb_gpa(i), 0, 0, 0), 0);
		TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		expect_dirty(i, "#VMEXIT");

		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmsave, vmcb_gpa(i), 0, 0, 0), 0);
		expect_dirty(i, "VMSAVE");

		vmcb->control.asid = 0;
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmrun, vmcb_gpa(i), 0, 0, 0), 0);
		TEST_ASSERT_EQ(vmcb->control.exit_code, (u32)SVM_EXIT_ERR);
		vmcb->control.asid = 1;
		expect_dirty(i, "Failed VMRUN");

		/* This one goes through l2_vmrun() and pauses in L2. */
		TEST_ASSERT_EQ(l1_start(cpu, l1_run_counter, i, round, 1, 0), L2_PAUSED);
		dirty_pages(VMCB);
		vmcb->control.exit_code = -2;
		TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
		TEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		expect_dirty(i, "#VMEXIT after the log was read in L2");
		vmcb->save.rip = (u64)l2_quiet;
	}
}

#endif /* SELFTEST_KVM_SVM_NESTED_CONTEXT_MEMORY_H */
