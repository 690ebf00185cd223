// SPDX-License-Identifier: GPL-2.0-only
/*
 * Posted interrupts for L2, with virtual-interrupt delivery: whoever posts, and
 * whatever L2 does meanwhile, each vector comes once, to the L2 that it was posted
 * to, and no vCPU sleeps while one waits.
 *
 * What L1 and L2 do is told in nested_posted_interrupt_l1.h.  Posted is by another
 * vCPU of L1 (ipi), and by the host as a device would, which sets the vector and
 * has KVM send the notification (msi: KVM_SIGNAL_MSI; irqfd).
 *
 * With one CPU, KVM processes each notification itself before it enters L2.  With
 * two, the processor does while L2 runs.
 */
#include "nested_posted_interrupt_vm.h"

#define VECTORS		8	/* of different priorities, in no order */

static const u8 vectors[VECTORS] = {
	0x45, 0xe3, 0x21, 0x9f, 0x46, 0xef, 0x80, 0x31,
};

/* One after the other, each when the last was taken. */
static void post_each(enum poster by, u32 nr, const char *when)
{
	u32 i;

	for (i = 0; i < VECTORS; i++) {
		post(by, nr, vectors[i]);
		check_taken(when);
	}
}

/* All at once, so that only the first is notified. */
static void post_all(enum poster by, u32 nr)
{
	u32 i;

	for (i = 0; i < VECTORS; i++)
		post(by, nr, vectors[i]);
}

/* ---- Delivery, by who posts and by what L2 does ---- */

static void l2_spins(enum poster by)
{
	run_l2s(0, BIT(0), 0);
	wait_for_turns(0, 10);
	post_each(by, 0, "spins, each");
	post_all(by, 0);
	check_taken("spins, all");
	wait_for_turns(0, 10);
	check_quiet(0, 0, "afterwards");
}

static void l2_halts(enum poster by)
{
	u32 i;

	run_l2s(0, BIT(0), 0);
	for (i = 0; i < VECTORS; i++) {
		wait_for_halt(0, 0);
		post(by, 0, vectors[i]);
		check_taken("halts, each");
	}
	wait_for_halt(0, 0);
	post_all(by, 0);
	check_taken("halts, all");
	wait_for_halt(0, 0);
	check_quiet(0, 0, "afterwards");
}

/* Vectors that could not come till now do by their priority. */
static void check_order(u32 first)
{
	struct l2 *l2 = &t.l2[0];
	u32 i;

	for (i = first + 1; i < l2->nr_log; i++)
		CHECK(l2->log[i] < l2->log[i - 1], "vector %#x came after %#x",
		      l2->log[i], l2->log[i - 1]);
}

static void set_off(u32 nr, u32 off)
{
	WRITE_ONCE(t.l2[nr].off, off);
	WAIT_FOR(READ_ONCE(t.l2[nr].seen_off) == off,
		 "L2 %u does not turn interrupts %s", nr, off ? "off" : "on");
}

static void masked_or_off(enum poster by, void (*set)(u32 nr, u32 value), u32 value)
{
	run_l2s(0, BIT(0), 0);
	set(0, value);
	post_all(by, 0);
	wait_for_turns(0, 10);
	check_not_taken(0, 0, "masked");
	check_quiet(0, 0, "with masked interrupts");
	set(0, 0);
	check_taken("unmasked");
	check_order(0);
}

static void l2_masks(enum poster by)
{
	masked_or_off(by, set_tpr, 0xf0);
}

static void l2_has_them_off(enum poster by)
{
	masked_or_off(by, set_off, 1);
}

static void l2_is_idle(enum poster by)
{
	run_l2s(0, BIT(0), 0);
	wait_for_turns(0, 10);
	run_l2s(0, 0, 0);
	post_all(by, 0);
	check_not_taken(0, 0, "not running");
	run_l2s(0, BIT(0), 0);
	check_taken("running again");
	check_order(0);
	CHECK(t.l2[0].syncs, "L1 found nothing posted");
}

/* The other L2 gets the notification, which is none for it. */
static void l2_is_parked(enum poster by)
{
	run_l2s(0, BIT(0), 0);
	wait_for_turns(0, 10);
	run_l2s(0, BIT(1), BIT(0));
	wait_for_turns(1, 10);
	post_all(by, 0);
	check_not_taken(0, 0, "not loaded");
	post(by, 1, 0x55);
	wait_for_taken(1, "the one that is loaded");
	run_l2s(0, BIT(0), BIT(1));
	check_taken("loaded again");
	wait_for_halt(0, 0);
	post(by, 1, 0x56);
	check_not_taken(0, VECTORS, "posted to another");
	run_l2s(0, BIT(1), BIT(0));
	check_taken("the other");
}

static void l2_moves(enum poster by)
{
	u32 i, id;

	for (i = 0; i < 4; i++) {
		id = i % 2;
		run_l2s(id, BIT(0), 0);
		post_each(by, 0, "moved");
		run_l2s(id, 0, 0);
		post_all(by, 0);
		check_not_taken(0, total(t.l2[0].posted) - VECTORS, "on its way");
		run_l2s(!id, BIT(0), 0);
		check_taken("arrived");
		/* Who still thinks that it is where it was does no harm. */
		send_msi(id, t.l2[0].nv);
		run_l2s(!id, 0, 0);
	}
}

static void (* const states[])(enum poster by) = {
	l2_spins, l2_halts, l2_masks, l2_has_them_off, l2_is_idle, l2_is_parked, l2_moves,
};

static const char * const state_names[] = {
	"spins", "halts", "masks", "off", "is_idle", "is_parked", "moves",
};

enum { HALTS = 1 };	/* in these */

enum variant { PLAIN, X2APIC, L1_SYNCS, NR_VARIANTS };

static const char * const variant_names[] = { "deliver", "x2apic", "l1_syncs" };

/* Who posts, what L2 does, and the variant. */
static void test_deliver(const struct pi_case *c)
{
	const struct vm_options opt = {
		.nr_l2 = 2,
		.x2apic = c->arg[2] == X2APIC,
		.l1_syncs = c->arg[2] == L1_SYNCS,
	};

	vm_start(&opt);
	states[c->arg[1]](c->arg[0]);
}

static void add_deliver_cases(void)
{
	struct pi_case *c;
	u32 by, state, variant;

	for (variant = 0; variant < NR_VARIANTS; variant++) {
		for (by = 0; by < NR_POSTERS; by++) {
			for (state = 0; state < ARRAY_SIZE(states); state++) {
				c = add_case(test_deliver, "%s.%s.%s",
					     variant_names[variant], poster_names[by],
					     state_names[state]);
				c->arg[0] = by;
				c->arg[1] = state;
				c->arg[2] = variant;
				c->sample = variant == state % NR_VARIANTS ||
					    state == HALTS;
			}
		}
	}
}

/* ---- L2s take turns ---- */

/* L1 goes on to the next L2 after so many turns, or when it gets an interrupt. */
#define TURNS_PER_VISIT	64
#define STORM		2500
#define HOST_STORM	200

static struct guest_random_state rnd;

/* A vector that L2 has taken as often as it was posted. */
static u32 free_vector(u32 nr)
{
	u32 vector;

	do {
		vector = FIRST_VECTOR + guest_random_u32(&rnd) %
			 (LAST_VECTOR - FIRST_VECTOR + 1);
	} while (READ_ONCE(t.l2[nr].taken[vector]) != t.l2[nr].posted[vector]);
	return vector;
}

static void post_storm(enum poster by)
{
	u32 i, nr;

	if (by == BY_IPI) {
		t.cpu[SENDER].l2 = t.nr_l2;
		t.cpu[SENDER].count = STORM;
		order(SENDER, ORDER_STORM);
		return;
	}
	for (i = 0; i < HOST_STORM; i++) {
		nr = guest_random_u32(&rnd) % t.nr_l2;
		post(by, nr, free_vector(nr));
		if (i % 4 == 0) {
			send_msi(i / 4 % NR_RUNNERS, KICK_VECTOR);
			usleep(200);
		}
	}
}

static u64 all_taken(void)
{
	u64 sum = 0;
	u32 nr;

	for (nr = 0; nr < t.nr_l2; nr++)
		sum += total(t.l2[nr].taken);
	return sum;
}

static u64 all_posted(void)
{
	u64 sum = 0;
	u32 nr;

	for (nr = 0; nr < t.nr_l2; nr++)
		sum += total(t.l2[nr].posted);
	return sum;
}

/*
 * A halted L2 keeps its vCPU until L1 gets an interrupt.  As long as L2s take what
 * was posted, or who posts goes on, none is lost.
 */
static void wait_for_storm(void)
{
	u64 last = 0, now, began = test_now_ms();

	while (READ_ONCE(t.cpu[SENDER].done) != t.cpu[SENDER].seq ||
	       all_taken() < all_posted()) {
		now = all_taken() + all_posted();
		if (now != last)
			began = test_now_ms();
		last = now;
		if (test_now_ms() - began > WAIT_MS)
			break;
		send_msi(0, KICK_VECTOR);
		send_msi(1, KICK_VECTOR);
		usleep(1000);
	}
	check_taken("after the storm");
	wait_for_order(SENDER);
}

enum {
	OWN_NV = BIT(0), WANDER = BIT(1), HALTING = BIT(2), TOGETHER = BIT(3), FEW = BIT(4),
};

/* How many L2s, who posts, and those bits. */
static void test_turns(const struct pi_case *c)
{
	struct vm_options opt = {
		.nr_l2 = c->arg[0],
		.own_nv = c->arg[2] & OWN_NV,
		.desc_together = c->arg[2] & TOGETHER,
		.few_contexts = c->arg[2] & FEW,
	};
	u32 i, visits = 0, moves = 0, syncs = 0, foreign = 0;

	/* Neighbours, and the page's first and last. */
	for (i = 0; opt.desc_together && i < opt.nr_l2; i++)
		opt.desc_offset[i] = i * sizeof(struct vmx_pi_desc);
	if (opt.desc_together)
		opt.desc_offset[opt.nr_l2 - 1] = PAGE_SIZE - sizeof(struct vmx_pi_desc);

	vm_start(&opt);
	rnd = new_guest_random_state(c->arg[2] + 1);
	for (i = 0; i < opt.nr_l2; i++) {
		t.l2[i].turns_per_visit = TURNS_PER_VISIT;
		/* With one that does not halt, L1 comes to all others soon. */
		t.l2[i].halts = c->arg[2] & HALTING && i;
	}
	for (i = 0; i < NR_RUNNERS; i++)
		t.cpu[i].wander = c->arg[2] & WANDER;
	run_l2s(0, BIT(opt.nr_l2) - 1, 0);
	if (c->arg[2] & WANDER)
		run_l2s(1, BIT(opt.nr_l2) - 1, 0);

	post_storm(c->arg[1]);
	wait_for_storm();
	for (i = 0; i < opt.nr_l2; i++) {
		visits += t.l2[i].visits;
		moves += t.l2[i].moves;
		syncs += t.l2[i].syncs;
	}
	for (i = 0; i < NR_RUNNERS; i++)
		foreign += total(t.cpu[i].taken) - t.cpu[i].taken[KICK_VECTOR];
	printf("# %lu posted, %u visits, %u moves, %u began with some, %u foreign notifications\n",
	       all_posted(), visits, moves, syncs, foreign);
	fflush(stdout);
	CHECK(visits > opt.nr_l2 && syncs, "the L2s did not take turns");
	CHECK(moves || !(c->arg[2] & WANDER), "the L2s did not move");
}

static void add_turns_cases(void)
{
	static const u8 flags[] = {
		0, OWN_NV, WANDER, WANDER | OWN_NV, HALTING, HALTING | OWN_NV,
		HALTING | WANDER, TOGETHER, TOGETHER | HALTING | WANDER, FEW,
		FEW | HALTING | WANDER,
	};
	static const u8 posters[] = { BY_IPI, BY_IRQFD };
	static const u8 nrs[] = { 2, 6 };
	struct pi_case *c;
	u32 i, k, n;

	for (n = 0; n < ARRAY_SIZE(nrs); n++) {
		for (k = 0; k < ARRAY_SIZE(posters); k++) {
			for (i = 0; i < ARRAY_SIZE(flags); i++) {
				c = add_case(test_turns, "turns.%u.%s.%s%s%s%s%s", nrs[n],
					     poster_names[posters[k]],
					     flags[i] & OWN_NV ? "own" : "shared",
					     flags[i] & HALTING ? "_halting" : "",
					     flags[i] & WANDER ? "_wandering" : "",
					     flags[i] & TOGETHER ? "_in_one_page" : "",
					     flags[i] & FEW ? "_few_contexts" : "");
				c->arg[0] = nrs[n];
				c->arg[1] = posters[k];
				c->arg[2] = flags[i];
				c->sample = !k && n == i % 2;
			}
		}
	}
}

/* ---- The descriptor ---- */

/*
 * At each place of a page.  Nothing else in the page changes.  L1 loads L2 anew for
 * each, but vmcs12 stays where it is.
 */
static void test_offsets(const struct pi_case *c)
{
	const struct vm_options opt = { .nr_l2 = 1 };
	u8 *page, *control;
	u32 offset, i;

	vm_start(&opt);
	page = region_page(&t.region[PI_DESC]);
	for (offset = 0; offset < PAGE_SIZE; offset += sizeof(struct vmx_pi_desc)) {
		run_l2s(0, 0, 0);
		memset(page, 0xff, PAGE_SIZE);
		control = page + offset;
		memset(control, 0, sizeof(struct vmx_pi_desc));
		t.desc[0] = (void *)control;
		t.l2[0].desc = t.region[PI_DESC].gpa + offset;
		run_l2s(0, BIT(0), 0);
		post(BY_MSI, 0, 0x21 + offset / sizeof(struct vmx_pi_desc));
		post(BY_IPI, 0, 0xe0);
		check_taken("the descriptor moved");
		for (i = 0; i < PAGE_SIZE; i++)
			CHECK(page[i] == (i - offset < sizeof(struct vmx_pi_desc) ? 0 : 0xff),
			      "descriptor at %#x: byte %#x of the page is %#x",
			      offset, i, page[i]);
	}
}

/* Every vector that L2 can take, lowest first and highest first. */
static void test_vectors(const struct pi_case *c)
{
	const struct vm_options opt = { .nr_l2 = 1 };
	u32 i;

	vm_start(&opt);
	run_l2s(0, BIT(0), 0);
	for (i = FIRST_VECTOR; i <= LAST_VECTOR; i++)
		post(BY_MSI, 0, i);
	check_taken("upwards");
	set_tpr(0, 0xf0);
	for (i = LAST_VECTOR; i >= FIRST_VECTOR; i--)
		post(BY_MSI, 0, i);
	check_not_taken(0, LAST_VECTOR - FIRST_VECTOR + 1, "masked");
	i = t.l2[0].nr_log;
	set_tpr(0, 0);
	check_taken("downwards");
	for (i++; i < t.l2[0].nr_log; i++)
		CHECK(t.l2[0].log[i % 256] < t.l2[0].log[(i - 1) % 256],
		      "vector %#x came after %#x", t.l2[0].log[i % 256],
		      t.l2[0].log[(i - 1) % 256]);
}

/* ---- Notifications for nothing, and vectors that L2 does not want yet ---- */

/* With nothing posted, and with ON set and no vector. */
static void test_nothing(const struct pi_case *c)
{
	const struct vm_options opt = { .nr_l2 = 1 };
	bool halts = c->arg[0];
	u64 turns;
	u32 i;

	vm_start(&opt);
	run_l2s(0, BIT(0), 0);
	if (halts)
		wait_for_halt(0, 0);
	turns = t.l2[0].turns;
	for (i = 0; i < 10; i++) {
		if (i % 2)
			__sync_fetch_and_or(&t.desc[0]->control, VMX_PI_ON);
		notify(BY_MSI, 0);
		usleep(500);
		check_not_taken(0, 0, "nothing posted");
		__sync_fetch_and_and(&t.desc[0]->control, ~VMX_PI_ON);
	}
	CHECK(!halts || t.l2[0].turns == turns, "L2 woke up for nothing");
	check_quiet(0, 0, "nothing posted");
	for (i = 0; i < VECTORS; i++)
		post(BY_MSI, 0, vectors[i]);
	check_taken("afterwards");
}

/*
 * A vector of a priority that L2 masks leaves L2 asleep.  One that it does not mask
 * has to wake it all the same.
 */
static void test_priority(const struct pi_case *c)
{
	const struct vm_options opt = { .nr_l2 = 1 };
	bool halts = c->arg[0];
	u64 turns;

	vm_start(&opt);
	run_l2s(0, BIT(0), 0);
	set_tpr(0, 0x80);
	if (halts)
		wait_for_halt(0, 0);
	turns = t.l2[0].turns;
	post(BY_MSI, 0, 0x45);
	check_not_taken(0, 0, "masked");
	CHECK(!halts || t.l2[0].turns == turns, "L2 woke up for a masked interrupt");
	check_quiet(0, 0, "with a masked interrupt");
	/* Or whoever posts next would not notify. */
	CHECK(!(t.desc[0]->control & VMX_PI_ON), "the notification is still outstanding");
	post(BY_MSI, 0, 0x9f);
	WAIT_FOR(t.l2[0].taken[0x9f], "vector 0x9f does not come, ON %lu",
		 t.desc[0]->control & 1);
	CHECK(!t.l2[0].taken[0x45], "L2 took a masked interrupt");
	WRITE_ONCE(t.l2[0].halts, false);
	WRITE_ONCE(t.l2[0].tpr, 0);
	post(BY_MSI, 0, 0xe3);
	check_taken("unmasked");
}

/* ---- L2's vCPU is saved and restored ---- */

/* Takes all vCPUs out of KVM_RUN, wherever they are, or lets them go on. */
static void vcpus_hold(bool hold)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++)
		t.vcpu[i]->run->immediate_exit = hold;
	WRITE_ONCE(t.hold, hold);
	while (READ_ONCE(t.held) != (hold ? NR_VCPUS : 0)) {
		for (i = 0; hold && i < NR_VCPUS; i++)
			pthread_kill(t.thread[i], SIGUSR1);
		usleep(500);
	}
}

static void leave_nested(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_state state = {
		.size = sizeof(state),
		.format = KVM_STATE_NESTED_FORMAT_VMX,
		.hdr.vmx.vmxon_pa = -1ull,
		.hdr.vmx.vmcs12_pa = -1ull,
	};

	vcpu_nested_state_set(vcpu, &state);
}

/*
 * In place, as a migration does it elsewhere.  What is posted while user space has
 * the vCPU comes when it runs again, whether notified before it was saved or after.
 */
static void test_restore(const struct pi_case *c)
{
	const struct vm_options opt = { .nr_l2 = 1 };
	bool halts = c->arg[0], notified = c->arg[1];
	struct kvm_x86_state *state;
	u32 i;

	vm_start(&opt);
	run_l2s(0, BIT(0), 0);
	for (i = 0; i < 3; i++) {
		if (halts)
			wait_for_halt(0, 0);
		vcpus_hold(true);
		if (notified)
			post(BY_MSI, 0, vectors[0]);
		state = vcpu_save_state(t.vcpu[0]);
		leave_nested(t.vcpu[0]);
		vcpu_load_state(t.vcpu[0], state);
		kvm_x86_state_cleanup(state);
		vcpus_hold(false);
		if (!notified) {
			usleep(2000);
			post(BY_MSI, 0, vectors[1]);
		}
		check_taken("restored");
		if (halts)
			wait_for_halt(0, 0);
		post_all(BY_IPI, 0);
		check_taken("afterwards");
	}
}

static void add_other_cases(void)
{
	struct pi_case *c;
	u32 i;

	add_case(test_offsets, "descriptor.offsets")->sample = true;
	add_case(test_vectors, "descriptor.vectors")->sample = true;
	for (i = 0; i < 2; i++) {
		c = add_case(test_nothing, "nothing.%s", i ? "halts" : "spins");
		c->arg[0] = i;
		c->sample = i;
		c = add_case(test_priority, "priority.%s", i ? "halts" : "spins");
		c->arg[0] = i;
		c->sample = i;
	}
	for (i = 0; i < 4; i++) {
		c = add_case(test_restore, "restore.%s%s", i % 2 ? "halts" : "spins",
			     i / 2 ? "_notified" : "");
		c->arg[0] = i % 2;
		c->arg[1] = i / 2;
		c->sample = i < 2;
	}
}

int main(int argc, char **argv)
{
	add_deliver_cases();
	add_turns_cases();
	add_other_cases();
	return run_cases(argc, argv);
}
