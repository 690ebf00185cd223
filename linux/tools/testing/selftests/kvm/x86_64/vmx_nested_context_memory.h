/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cases of vmx_nested_context_test: the memory under kept mappings changes.
 */
#ifndef SELFTEST_KVM_VMX_NESTED_CONTEXT_MEMORY_H
#define SELFTEST_KVM_VMX_NESTED_CONTEXT_MEMORY_H

#include "vmx_nested_context_vm.h"

#define MEMORY_L2S	6

static void memory_vm_create(void)
{
	const struct test_options opt = {
		.nr_l2 = MEMORY_L2S, .nr_vcpus = 2, .ratio = 8,
		.features = FEATURES_ALL,
	};

	test_vm_create(&opt);
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
};

FIXTURE_SETUP(replace)
{
	memory_vm_create();
}

FIXTURE_TEARDOWN(replace)
{
	test_vm_free();
}

FIXTURE_VARIANT_ADD(replace, vmcs) {
	.slot = VMCS,
};

FIXTURE_VARIANT_ADD(replace, msr_bitmap) {
	.slot = BITMAP,
};

FIXTURE_VARIANT_ADD(replace, virtual_apic) {
	.slot = VAPIC,
};

FIXTURE_VARIANT_ADD(replace, apic_access) {
	.slot = APIC,
};

FIXTURE_VARIANT_ADD(replace, private) {
	.slot = PRIVATE,
};

enum replace_how { READD, MREMAP, DONTNEED, NR_HOW };

#define POISON	0xcc

/*
 * Gives a slot other host pages with the same content.  Where the old ones
 * live on they are poisoned, and returned.
 */
static void *replace_pages(struct slot *s, enum replace_how how)
{
	void *old = NULL, *fresh, *copy = malloc(s->size);

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
	default:
		TEST_ASSERT(!madvise(s->hva, s->size, MADV_DONTNEED), "madvise");
		memcpy(s->hva, copy, s->size);
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

	if (!old)
		return;
	for (i = 0; i < size; i++)
		TEST_ASSERT(p[i] == POISON, "Offset %#zx of a page given up was written", i);
	munmap(old, size);
}

/*
 * After the host replaced the pages of one kind, the next entry of L2 uses the
 * new ones only, and nothing writes to the old: with the L2's VMCS current,
 * active or clear.  L1 changes the bitmaps after each replacement, so a stale
 * one shows; virtual-APIC pages are written in each round, APIC-access pages
 * exit.
 *
 * Where the processor reaches the page only through L1's memory, also while L2
 * runs.  KVM does not look up the two APIC pages again then.
 */
TEST_F_TIMEOUT(replace, next_entry_sees_new_pages, CASE_TIMEOUT)
{
	struct slot *s = &t.slot[variant->slot];
	bool in_l2 = variant->slot != VAPIC && variant->slot != APIC;
	void *old;
	u32 i;

	run_l2s(0, 0, MEMORY_L2S, 1);
	for (i = 0; i < NR_HOW; i++) {
		old = replace_pages(s, i);
		l1_do(0, l1_change_maps, 0, MEMORY_L2S, 5 * i + 1, 0);
		run_l2s(0, MEMORY_L2S - 1, 1, 1);
		run_l2s(i % 2, 0, MEMORY_L2S, 1);
		expect_poison(old, s->size);
		if (!in_l2)
			continue;

		pause_in_l2(0, i);
		old = replace_pages(s, i);
		finish_l2(0, i);
		expect_poison(old, s->size);
	}
	clear_l2s();
	old = replace_pages(s, READD);
	run_l2s(1, 0, MEMORY_L2S, 1);
	expect_poison(old, s->size);
}

/*
 * L1 changes bits of its bitmaps between two entries and tells nobody.  The
 * change is in force at the next entry, on this vCPU or another.
 */
TEST_F_TIMEOUT(memory, msr_bitmap_changes_unannounced, CASE_TIMEOUT)
{
	u32 i;

	for (i = 0; i < 16; i++) {
		l1_do(0, l1_change_maps, 0, MEMORY_L2S, i, 0);
		run_l2s(i / 4 % 2, 0, 1 + i % 3, 1);
	}
}

/* ---- The memslots go and come ---- */

#define VMXERR_CONTROL		7
#define VMXERR_REVISION		11

/*
 * The slot of the VMCSs is deleted between runs: L1 cannot load any, but that
 * which is current stays.  When the slot comes back, so do the L2s.
 */
TEST_F_TIMEOUT(memory, vmcs_slot_deleted, CASE_TIMEOUT)
{
	u32 round, i, cpu;

	for (round = 0; round < 3; round++) {
		cpu = round % 2;
		run_l2s(cpu, 0, MEMORY_L2S, 1);
		slot_delete(&t.slot[VMCS]);
		for (i = 0; i < MEMORY_L2S - 1; i++)
			TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmptrld, vmcs_gpa(i), 0, 0, 0),
				       VMXERR_REVISION);
		TEST_ASSERT_EQ(l1_do(cpu, l1_try_vmptrld, vmcs_gpa(MEMORY_L2S - 1),
				     0, 0, 0), 0);
		run_l2s(cpu, MEMORY_L2S - 1, 1, 1);
		slot_set(&t.slot[VMCS]);
	}
	run_l2s(1, 0, MEMORY_L2S, 1);
}

/* What L0 could not write back to is no VMCS, whatever it holds. */
TEST_F_TIMEOUT(memory, vmcs_slot_read_only, CASE_TIMEOUT)
{
	struct slot *s = &t.slot[VMCS];
	u32 round, i;

	for (round = 0; round < 3; round++) {
		run_l2s(round % 2, 0, MEMORY_L2S, 1);
		clear_l2s();
		slot_delete(s);
		s->flags = KVM_MEM_READONLY;
		slot_set(s);
		for (i = 0; i < MEMORY_L2S; i++)
			TEST_ASSERT_EQ(l1_do(round % 2, l1_try_vmptrld, vmcs_gpa(i), 0, 0, 0),
				       L1_VMFAIL_INVALID);
		slot_delete(s);
		s->flags = 0;
		slot_set(s);
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
}

/* Without its MSR bitmap L2 exits to L1 for every MSR. */
TEST_F_TIMEOUT(memory, msr_bitmap_slot_deleted, CASE_TIMEOUT)
{
	u8 intercepts[MEMORY_L2S];
	u32 round, i;

	for (round = 0; round < 3; round++) {
		run_l2s(round % 2, 0, MEMORY_L2S, 1);
		slot_delete(&t.slot[BITMAP]);
		for (i = 0; i < MEMORY_L2S; i++) {
			intercepts[i] = test_l2(i)->intercepts;
			test_l2(i)->intercepts = 0xff;
		}
		run_l2s(round / 2, 0, MEMORY_L2S, 1);
		for (i = 0; i < MEMORY_L2S; i++)
			test_l2(i)->intercepts = intercepts[i];
		slot_set(&t.slot[BITMAP]);
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
}

/* Without its virtual-APIC page L2 is not entered: a control is invalid. */
TEST_F_TIMEOUT(memory, virtual_apic_slot_deleted, CASE_TIMEOUT)
{
	u32 round, i;

	for (round = 0; round < 3; round++) {
		run_l2s(round % 2, 0, MEMORY_L2S, 1);
		slot_delete(&t.slot[VAPIC]);
		for (i = 0; i < MEMORY_L2S; i++)
			TEST_ASSERT_EQ(l1_do(round % 2, l1_try_enter, i, 0, 0, 0),
				       VMXERR_CONTROL);
		slot_set(&t.slot[VAPIC]);
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
}

/*
 * Without an APIC-access page KVM gives up on the entry and tells user space.
 * Once the page is there, L1 tries again and finds nothing amiss.
 */
TEST_F_TIMEOUT(memory, apic_access_slot_deleted, CASE_TIMEOUT)
{
	u32 round, i, cpu;

	for (round = 0; round < 4; round++) {
		cpu = round % 2;
		i = round + 1;
		run_l2s(cpu, 0, MEMORY_L2S, 1);
		slot_delete(&t.slot[APIC]);
		TEST_ASSERT_EQ(l1_start(cpu, l1_run_l2s, i, 1, 1, 0), L1_STUCK);
		TEST_ASSERT_EQ(vcpu_go(cpu), L1_STUCK);
		slot_set(&t.slot[APIC]);
		TEST_ASSERT_EQ(vcpu_go(cpu), L1_DONE);
	}
	run_l2s(0, 0, MEMORY_L2S, 1);
}

/* arg: kind of slot, distance.  L1 knows its pages at other addresses now. */
static u64 l1_follow_slot(u32 cpu, u64 *arg)
{
	struct l2_state *l2;
	u32 i;

	for (i = 0; i < MEMORY_L2S; i++) {
		l2 = &l2s[i];
		GUEST_ASSERT(!vmptrld(l2->v.vmcs));
		switch (arg[0]) {
		case VMCS:
			l2_clear(l2);
			l2->v.vmcs += arg[1];
			break;
		case BITMAP:
			l2->v.msr_bitmap += arg[1];
			vmwrite(MSR_BITMAP, (u64)l2->v.msr_bitmap);
			break;
		case VAPIC:
			l2->v.vapic += arg[1];
			vmwrite(VIRTUAL_APIC_PAGE_ADDR, (u64)l2->v.vapic);
			break;
		case APIC:
			l2->v.apic_access += arg[1];
			l2->p->apic += arg[1];
			vmwrite(APIC_ACCESS_ADDR, (u64)l2->v.apic_access);
			break;
		}
	}
	return 0;
}

/*
 * Slots move to other guest addresses and back, and L1 follows.  What is at the
 * old address meanwhile is other memory, which nobody touches.
 */
TEST_F_TIMEOUT(memory, slots_move, CASE_TIMEOUT)
{
	const u64 distance = 0x1000000;
	void *decoy;
	u32 kind, back;

	for (kind = VMCS; kind <= APIC; kind++) {
		struct slot *s = &t.slot[kind];

		virt_map(t.vm, s->gpa + distance, s->gpa + distance, s->size / PAGE_SIZE);
		run_l2s(kind % 2, 0, MEMORY_L2S, 1);
		for (back = 0; back < 2; back++) {
			move_l2s(0, 0, MEMORY_L2S);
			/* A VMCS has to be clear when it moves, others need not. */
			if (kind == VMCS)
				l1_do(0, l1_follow_slot, kind, back ? -distance : distance, 0, 0);
			s->gpa += back ? -distance : distance;
			slot_set(s);
			if (kind != VMCS)
				l1_do(0, l1_follow_slot, kind, back ? -distance : distance, 0, 0);

			decoy = slot_pages(s->size);
			memset(decoy, POISON, s->size);
			vm_set_user_memory_region(t.vm, 20, 0,
						  back ? s->gpa + distance : s->gpa - distance,
						  s->size, decoy);
			run_l2s(0, 0, MEMORY_L2S, 1);
			run_l2s(1, 0, MEMORY_L2S, 1);
			move_l2s(0, 0, MEMORY_L2S);
			vm_set_user_memory_region(t.vm, 20, 0, 0, 0, decoy);
			expect_poison(decoy, s->size);
		}
	}
}

/* ---- Dirty logging ---- */

struct dirty {
	struct slot *s;
	void *before;
	unsigned long *bitmap;
};

static void dirty_get(struct dirty *d)
{
	struct kvm_dirty_log log = {
		.slot = d->s->id,
		.dirty_bitmap = d->bitmap,
	};

	memset(d->bitmap, 0, sizeof(*d->bitmap));
	vm_ioctl(t.vm, KVM_GET_DIRTY_LOG, &log);
}

/* Forgets what was logged; from here on what changes must be. */
static void dirty_start(struct dirty *d)
{
	dirty_get(d);
	memcpy(d->before, d->s->hva, d->s->size);
}

/* Returns how many pages differ; all of them must have been logged. */
static u32 dirty_expect(struct dirty *d)
{
	u32 i, changed = 0;

	dirty_get(d);
	for (i = 0; i < d->s->size / PAGE_SIZE; i++) {
		if (!memcmp(d->before + i * PAGE_SIZE, d->s->hva + i * PAGE_SIZE,
			    PAGE_SIZE))
			continue;
		changed++;
		TEST_ASSERT(*d->bitmap >> i & 1,
			    "Slot %u: page %u was written and not logged", d->s->id, i);
	}
	return changed;
}

static void slot_log(struct slot *s, bool on)
{
	if (!on)
		slot_delete(s);
	s->flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	slot_set(s);
}

#define NR_ROUNDS	(2 * MEMORY_L2S)

/*
 * L0 writes VMCSs when L1 goes to another, and the processor writes task
 * priorities to virtual-APIC pages while L2 runs.
 *
 * Virtual-APIC pages are logged only in the middle of L2's run, when L1 has done
 * all its own writing, so nobody else's write hides the one that is missing.
 * (Nor does L1 write while they are: Bochs's page-modification log has addresses
 * that are not those of pages, and KVM warns.)
 */
TEST_F_TIMEOUT(memory, dirty_log, CASE_TIMEOUT)
{
	struct dirty vmcs = { .s = &t.slot[VMCS] }, vapic = { .s = &t.slot[VAPIC] };
	unsigned long bitmaps[2];
	u32 i, changed_vmcs = 0, changed_vapic = 0;

	run_l2s(0, 0, MEMORY_L2S, 1);
	vmcs.before = malloc(vmcs.s->size);
	vapic.before = malloc(vapic.s->size);
	vmcs.bitmap = &bitmaps[0];
	vapic.bitmap = &bitmaps[1];
	slot_log(vmcs.s, true);

	for (i = 0; i < NR_ROUNDS; i++) {
		u32 cpu = i / MEMORY_L2S % 2, l2 = i % MEMORY_L2S;

		pause_in_l2(cpu, l2);
		slot_log(vapic.s, true);
		dirty_start(&vapic);
		finish_l2(cpu, l2);
		changed_vapic += dirty_expect(&vapic);
		slot_log(vapic.s, false);

		/* The next one's load, or its own clear, writes it back. */
		dirty_start(&vmcs);
		if (i % 3)
			run_l2s(cpu, (l2 + 2) % MEMORY_L2S, 1, 1);
		else
			move_l2s(!cpu, l2, 1);
		changed_vmcs += dirty_expect(&vmcs);
	}
	TEST_ASSERT(changed_vmcs >= NR_ROUNDS, "Only %u VMCSs changed", changed_vmcs);
	TEST_ASSERT(changed_vapic >= NR_ROUNDS / 2,
		    "Only %u virtual-APIC pages changed", changed_vapic);
	free(vmcs.before);
	free(vapic.before);
}

#endif /* SELFTEST_KVM_VMX_NESTED_CONTEXT_MEMORY_H */
