// SPDX-License-Identifier: GPL-2.0-only
/*
 * Storms: nested contexts under load, while the host does at full speed what it
 * otherwise does now and then.  L1 runs its L2s on all vCPUs, and each L2 counts;
 * no count may ever be wrong.
 *
 *	this file			many L2s on many vCPUs, small capacities
 *	nested_context_storm_host.h	pages and memory slots that move, dirty
 *					logging, live migration
 *	nested_context_storm_end.h	VMs that go in the middle of it, and what
 *					they leave behind
 *
 * On a kernel without nested contexts everything but the statistics is checked.
 *
 * Words NAME=NUMBER before any option set the scale, for slow machines: see
 * storm_options below.  Options are the harness's: -l lists the cases, -r runs
 * one of them.
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "nested_context_storm_vm.h"

#define CASE_TIMEOUT	900

/* The scale: what is tried in full, unless a word on the command line says less. */
static struct storm_option {
	const char *name;
	const char *what;
	u32 full;
	u32 max;
	u32 value;
} storm_options[] = {
	{ "vcpus", "vCPUs of L1",			64, STORM_MAX_VCPUS },
	{ "l2s", "L2s for each vCPU",			64, 64 },
	{ "steps", "steps of L2s in a storm",		60000, 100000000 },
	{ "vms", "VMs that are destroyed",		1000, 1000000 },
	{ "moves", "live migrations in a row",		8, 1000 },
	{ "slack", "kB of host memory to overlook",	256, 1000000 },
};

enum { OPT_VCPUS, OPT_L2S, OPT_STEPS, OPT_VMS, OPT_MOVES, OPT_SLACK };

static u32 opt(u32 which)
{
	return storm_options[which].value;
}

#include "nested_context_storm_host.h"
#include "nested_context_storm_end.h"

/* ---- Many L2s on many vCPUs ---- */

FIXTURE(many) {
};

FIXTURE_VARIANT(many) {
	u32 ratio;
	bool posted;
};

FIXTURE_SETUP(many)
{
}

FIXTURE_TEARDOWN(many)
{
}

FIXTURE_VARIANT_ADD(many, ratio_8) {
	.ratio = 8,
};

/* As many contexts as vCPUs: nearly each load recycles one. */
FIXTURE_VARIANT_ADD(many, ratio_1) {
	.ratio = 1,
};

FIXTURE_VARIANT_ADD(many, ratio_0) {
	.ratio = 0,
};

/* With interrupts that vCPUs post to L2s. */
FIXTURE_VARIANT_ADD(many, posted) {
	.ratio = 8,
	.posted = true,
};

FIXTURE_VARIANT_ADD(many, posted_ratio_1) {
	.ratio = 1,
	.posted = true,
};

/*
 * L2s wander between vCPUs, and one that all vCPUs run at once needs private
 * contexts.  The capacity is made use of in full and not exceeded.
 */
TEST_F_TIMEOUT(many, switching, CASE_TIMEOUT)
{
	u32 capacity = opt(OPT_VCPUS) * variant->ratio;
	u32 nr_l2 = opt(OPT_VCPUS) * opt(OPT_L2S);
	struct nested_context_stats c;
	struct storm_totals t;
	struct storm_vm s;
	double begin;

	if (variant->posted && !storm_can_post())
		SKIP(return, NO_POSTED);
	storm.posted = variant->posted;
	storm_create(&s, opt(OPT_VCPUS), nr_l2, variant->ratio);
	begin = storm_now();
	storm_go(&s);
	storm_wait(&s, opt(OPT_STEPS));
	t = storm_finish(&s);
	c = nested_context_read_stats(s.vm);
	storm_say(&s, "many", t, storm_now() - begin, c);

	TEST_ASSERT(t.moves > opt(OPT_STEPS) / STORM_ROUNDS / 4,
		    "Only %lu moves to another vCPU", t.moves);
	TEST_ASSERT(!variant->posted || t.posted > opt(OPT_STEPS) / 4,
		    "Only %lu interrupts posted", t.posted);
	if (nested_context_present() && !capacity)
		TEST_ASSERT_EQ(nested_context_loads(c), 0);
	if (nested_context_present() && capacity) {
		TEST_ASSERT_EQ(c.new, min(capacity, nr_l2 + 1));
		TEST_ASSERT(c.reuse, "No context was found again");
		TEST_ASSERT(c.fallback, "No vCPU had to use its private context");
		TEST_ASSERT((nr_l2 >= capacity) == !!c.recycle,
			    "%lu were recycled", c.recycle);
	}
	storm_destroy(&s);
}

/* ---- Scale ---- */

static unsigned int ratio_before;
static pid_t main_pid;

static void cleanup(void)
{
	if (getpid() == main_pid)
		nested_context_set_ratio(ratio_before);
}

/* Takes NAME=NUMBER words off the command line. */
static int parse_scale(int argc, char **argv)
{
	struct storm_option *o, *end = storm_options + ARRAY_SIZE(storm_options);
	size_t len;
	int n = 0;

	for (o = storm_options; o < end; o++)
		o->value = o->full;

	for (; n + 1 < argc && argv[n + 1][0] != '-'; n++) {
		for (o = storm_options; o < end; o++) {
			len = strlen(o->name);
			if (!strncmp(argv[n + 1], o->name, len) &&
			    argv[n + 1][len] == '=')
				break;
		}
		TEST_ASSERT(o < end, "%s is no scale, see storm_options",
			    argv[n + 1]);
		o->value = atoi_positive(o->name, argv[n + 1] + len + 1);
		TEST_ASSERT(o->value <= o->max, "At most %s=%u", o->name, o->max);
	}
	return n;
}

int main(int argc, char **argv)
{
	struct storm_option *o;
	int n;

	the_arch = nested_arch_find();
	__TEST_REQUIRE(the_arch, "No nested virtualization for this program");
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));

	n = parse_scale(argc, argv);
	for (o = storm_options; o < storm_options + ARRAY_SIZE(storm_options); o++) {
		if (o->value != o->full)
			ksft_print_msg("Scaled: %s %u, in full %u\n", o->what,
				       o->value, o->full);
	}
	if (!nested_context_present())
		ksft_print_msg("This kernel has no nested contexts: statistics are not checked\n");

	ratio_before = nested_context_get_ratio();
	main_pid = getpid();
	atexit(cleanup);
	argv[n] = argv[0];
	return test_harness_run(argc - n, argv + n);
}
