// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much does L0 do when a hypervisor in a guest switches between its L2s?
 *
 * L1 runs N L2s round robin.  Each L2 has its own control block, MSR
 * permission map and nested page table, on VMX also a virtual-APIC page and an
 * APIC-access page, and does nothing but exit to L1.  L1 reads its TSC around
 * each round trip, once everything is warm.  Where the emulator counts
 * instructions as time (QEMU's -icount shift=0, Bochs), the figures are
 * instructions.
 *
 * After each round trip, outside what is timed, L1 exits to this program, which
 * reads the VM's statistics: the context was a hit if it was reused, or if no
 * load was counted, as this vCPU used it last; else it was a miss.  mean is over
 * both, hit and miss are medians.  Without contexts there are no kinds.
 *
 * L0 does other things, too, which would distort the mean.  So a round trip is
 * left out if L0's clock ticked or the vCPU's thread was scheduled out since the
 * one before; left_out is their share.  Long ones are left out more often than
 * short ones: hits and misses enter the mean in the proportion in which they
 * occurred.  The kernel frees the areas that memunmap() leaves in a worker, so
 * the mean lacks that part of what unmanaged memory costs.
 *
 * With --batch L1 exits only when all round trips are done.  It shows that the
 * exits change nothing: median and min are the same.  Nothing is left out then,
 * so there is no mean.
 *
 *	same	one L2 is entered again and again
 *	loop	each L1 vCPU enters its share of the N L2s in turn
 *	slice	as loop, and each L2 is entered --entries times before the next
 *	uneven	one L1 vCPU enters all N L2s in turn, the others have none
 *	random	as migrate, but which L2 is next is left to chance
 *	migrate	one L1 vCPU enters all N L2s in turn, then the next vCPU takes over
 *
 * On VMX a round trip is VMPTRLD and VMRESUME, also where the VMCS is current
 * already; with slice only the first round trip of a visit has a VMPTRLD.  An L2
 * that moves to another vCPU takes VMCLEAR on the one, VMPTRLD and VMLAUNCH on the
 * other; the VMCLEAR counts to the next round trip.  vmptrld is the mean of
 * VMPTRLD alone.
 *
 * With --unmanaged the pages that L0 reaches for a control block come from
 * /dev/mem at --phys, beyond the end of the kernel's memory (mem=): they have
 * no struct page.
 *
 * With --maps a second VM runs the same again with probes on the functions
 * that map guest pages; the timed pass never has them.
 *
 * One line is printed for each cell, its fields are name=value.  A field that
 * was not measured is left out.  maps counts kvm_vcpu_map() and the gpc's;
 * remaps counts memremap(), which those two use for pages without struct page.
 */
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/resource.h>

#include "nested_context_common.h"
#include "nested_context_svm.h"
#include "nested_context_vmx.h"

/*
 * All that L0 reaches for L2s is in one memory slot, beside the library's own:
 * like the few large slots of a real machine.
 */
#define L2_SLOT		10
#define L2_GPA		0x10000000ull

#define MAX_L1_VCPUS	16
#define MAX_SAMPLES	(64 * 1024)
#define MAX_CELLS	32
#define MAX_ENTRIES	100
#define MMU_PAGES	4096

/* Mappings are counted and not timed: contexts settle, and a few rounds tell. */
#define MAPS_WARMUP_ROUNDS	8
#define MAPS_TRIPS		128

enum bench_pattern {
	PATTERN_SAME,
	PATTERN_LOOP,
	PATTERN_SLICE,
	PATTERN_UNEVEN,
	PATTERN_MIGRATE,
	PATTERN_RANDOM,
	NR_PATTERNS,
};

static const char * const pattern_names[NR_PATTERNS] = {
	[PATTERN_SAME]		= "same",
	[PATTERN_LOOP]		= "loop",
	[PATTERN_SLICE]		= "slice",
	[PATTERN_UNEVEN]	= "uneven",
	[PATTERN_MIGRATE]	= "migrate",
	[PATTERN_RANDOM]	= "random",
};

/* What the vendor's half brings. */
struct bench_arch {
	const char *name;
	bool (*supported)(void);

	/* Host: how many pages of the memory under measurement an L2 has. */
	unsigned int pages_per_l2;

	/*
	 * Guest.  @load and @unload are what an L1 has to do when it goes to an
	 * L2, and when the L2 leaves a vCPU; not all have such a thing.  @unload
	 * tells whether the L2 was on a vCPU.
	 */
	void (*l1_init)(void *scratch, u64 scratch_gpa);
	void (*l2_init)(unsigned int l2);
	void (*load)(unsigned int l2);
	void (*round_trip)(unsigned int l2);
	bool (*unload)(unsigned int l2);

	/* The name under which the mean of @load is told. */
	const char *load_name;
};

/* ---- SVM ---- */

static struct l2_vcpu l2s[L2_MAX];

static bool svm_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_SVM);
}

static void svm_l1_init(void *scratch, u64 scratch_gpa)
{
	l1_enable_svm(scratch_gpa);
}

static void svm_l2_main(void)
{
	for (;;)
		asm volatile("vmmcall");
}

static void svm_l2_init(unsigned int i)
{
	u64 gpa = L2_GPA + i * SVM_PAGES_PER_L2 * PAGE_SIZE;
	u64 stack = gpa + (2 + L2_MSRPM_PAGES) * PAGE_SIZE;

	l2_make(&l2s[i], gpa, svm_l2_main, stack - 8);
}

static void svm_round_trip(unsigned int i)
{
	struct l2_vcpu *l2 = &l2s[i];

	l2_vmrun(l2, l2->vmcb_gpa);
	__GUEST_ASSERT(l2->vmcb->control.exit_code == SVM_EXIT_VMMCALL,
		       "L2 %u exited with %#x", i, l2->vmcb->control.exit_code);
	l2->vmcb->save.rip += L2_VMMCALL_LEN;
}

/* ---- VMX ---- */

static struct vmx_l2 vmx_l2s[L2_MAX];
static bool vmx_fresh[L2_MAX];		/* made, and not launched yet */

static bool vmx_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept();
}

extern char vmx_l2_main[];

asm(".pushsection .text\n"
	"vmx_l2_main:\n\t"
	"vmcall\n\t"
	"jmp vmx_l2_main\n\t"
	".popsection");

static void vmx_l2_init(unsigned int i)
{
	u64 gpa = L2_GPA + i * VMX_PAGES_PER_L2 * PAGE_SIZE;

	vmx_l2_make(&vmx_l2s[i], gpa, vmx_l2_main, gpa + 5 * PAGE_SIZE - 8);
	vmx_fresh[i] = true;
}

static void vmx_load(unsigned int i)
{
	__GUEST_ASSERT(!vmptrld(vmx_l2s[i].vmcs), "VMPTRLD of L2 %u", i);
}

static void vmx_round_trip(unsigned int i)
{
	struct vmx_l2 *l2 = &vmx_l2s[i];
	u64 reason;

	__GUEST_ASSERT(!vmx_l2_enter(l2, l2->launched), "L2 %u is not entered", i);
	l2->launched = true;
	reason = vmreadz(VM_EXIT_REASON);
	__GUEST_ASSERT(reason == EXIT_REASON_VMCALL, "L2 %u exited with %#lx",
		       i, reason);
	vmwrite(GUEST_RIP, (u64)vmx_l2_main);
}

static bool vmx_unload(unsigned int i)
{
	if (!vmx_l2s[i].launched && !vmx_fresh[i])
		return false;

	__GUEST_ASSERT(!vmclear(vmx_l2s[i].vmcs), "VMCLEAR of L2 %u", i);
	vmx_l2s[i].launched = false;
	vmx_fresh[i] = false;
	return true;
}

static const struct bench_arch bench_archs[] = {
	{
		.name		= "svm",
		.supported	= svm_supported,
		.pages_per_l2	= SVM_PAGES_PER_L2,
		.l1_init	= svm_l1_init,
		.l2_init	= svm_l2_init,
		.round_trip	= svm_round_trip,
	}, {
		.name		= "vmx",
		.supported	= vmx_supported,
		.pages_per_l2	= VMX_PAGES_PER_L2,
		.l1_init	= l1_enable_vmx,
		.l2_init	= vmx_l2_init,
		.load		= vmx_load,
		.round_trip	= vmx_round_trip,
		.unload		= vmx_unload,
		.load_name	= "vmptrld",
	},
};

/* ---- L1 ---- */

/* Why L1 exits to the host. */
enum l1_sync {
	L1_TURN_OVER,
	L1_SAMPLE,
};

/* Written by the host before each run. */
static struct {
	unsigned int arch;
	unsigned int nr_l2;
	unsigned int passes;		/* over all visits, in this turn */
	unsigned int entries;		/* of the L2 at each visit */
	unsigned int nr_visits;
	u8 visits[L2_MAX];		/* which L2 */
	bool record;
	bool stop;			/* exit to the host after each sample */
	bool unload;			/* the L2s leave the vCPU after this turn */
	u32 *samples;
	u32 *loads;			/* the part of each sample that is @load */
	u64 nr_samples;
} job;

/* What the unload of each L2 took, part of its next round trip. */
static u64 unload_time[L2_MAX];

static void l1_unload_all(const struct bench_arch *arch)
{
	unsigned int i;
	u64 before;

	for (i = 0; i < job.nr_l2; i++) {
		before = rdtsc();
		if (arch->unload(i))
			unload_time[i] = rdtsc() - before;
	}
}

static void l1_visit(const struct bench_arch *arch, unsigned int l2)
{
	u64 before, loaded, after;
	unsigned int entry;

	for (entry = 0; entry < job.entries; entry++) {
		before = rdtsc();
		loaded = before;
		if (arch->load && !entry) {
			arch->load(l2);
			loaded = rdtsc();
		}
		arch->round_trip(l2);
		after = rdtsc() + unload_time[l2];
		unload_time[l2] = 0;
		if (!job.record)
			continue;
		job.samples[job.nr_samples] = after - before;
		job.loads[job.nr_samples++] = loaded - before;
		if (job.stop)
			GUEST_SYNC(L1_SAMPLE);
	}
}

static void l1_main(void *scratch, u64 scratch_gpa, bool make_l2s)
{
	const struct bench_arch *arch = &bench_archs[job.arch];
	unsigned int pass, i;

	arch->l1_init(scratch, scratch_gpa);
	if (make_l2s) {
		for (i = 0; i < job.nr_l2; i++)
			arch->l2_init(i);
		if (arch->unload)
			l1_unload_all(arch);
	}
	GUEST_SYNC(L1_TURN_OVER);

	for (;;) {
		for (pass = 0; pass < job.passes; pass++) {
			for (i = 0; i < job.nr_visits; i++)
				l1_visit(arch, job.visits[i]);
		}
		if (job.unload && arch->unload)
			l1_unload_all(arch);
		GUEST_SYNC(L1_TURN_OVER);
	}
}

/* ---- Host ---- */

struct options {
	const struct bench_arch *arch;
	unsigned int l2s[MAX_CELLS];
	unsigned int nr_l2s;
	bool patterns[NR_PATTERNS];
	unsigned int entries[MAX_CELLS];
	unsigned int nr_entries;
	unsigned int l1_vcpus[MAX_CELLS];
	unsigned int nr_l1_vcpus;
	unsigned int trips;
	unsigned int warmup;
	u64 phys;
	bool unmanaged;
	bool maps;
	bool batch;
};

/* What the host knows of a round trip. */
enum trip_kind {
	TRIP_ANY,		/* there are no contexts, or nobody looked */
	TRIP_HIT,
	TRIP_MISS,
	NR_TRIP_KINDS,
};

struct trip {
	enum trip_kind kind;
	bool left_out;
};

/* What changes while L0 does something else than run the vCPU. */
struct l0_activity {
	struct timespec tick;
	long switches;
};

struct bench;

struct turn_taker {
	struct bench *bench;
	struct kvm_vcpu *vcpu;
	pthread_t thread;
	sem_t go;
	unsigned int nr;
};

/* What is measured. */
struct cell {
	enum bench_pattern pattern;
	unsigned int nr_l2;
	unsigned int nr_vcpus;
	unsigned int entries;
};

struct bench {
	const struct options *opt;
	struct cell cell;
	struct kvm_vm *vm;
	struct turn_taker taker[MAX_L1_VCPUS];
	u64 chance;
	sem_t done;
	bool quit;
	void *mem;
	size_t mem_size;
	u32 *samples;
	u32 *loads;
	u64 nr_samples;
	bool contexts;
	struct trip *trips;
	u64 nr_trips;
	struct nested_context_stats stats;
	struct l0_activity activity;
};

struct map_counts {
	bool valid;
	double maps;
	double remaps;
};

/*
 * Reads the statistics by the library's function, which keeps its file open:
 * this happens at each round trip.
 */
static struct nested_context_stats bench_stats(struct bench *b)
{
	struct nested_context_stats s = {};

	if (!nested_context_present())
		return s;

	s.new = vm_get_stat(b->vm, "nested_context_new");
	s.reuse = vm_get_stat(b->vm, "nested_context_reuse");
	s.recycle = vm_get_stat(b->vm, "nested_context_recycle");
	s.fallback = vm_get_stat(b->vm, "nested_context_fallback");
	return s;
}

/* The coarse clock moves at each tick and at no other time. */
static struct l0_activity l0_activity(void)
{
	struct l0_activity a;
	struct rusage usage;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &a.tick);
	getrusage(RUSAGE_THREAD, &usage);
	a.switches = usage.ru_nvcsw + usage.ru_nivcsw;
	return a;
}

static bool l0_was_busy(struct l0_activity *before)
{
	struct l0_activity now = l0_activity();
	bool busy = now.switches != before->switches ||
		    now.tick.tv_sec != before->tick.tv_sec ||
		    now.tick.tv_nsec != before->tick.tv_nsec;

	*before = now;
	return busy;
}

static void bench_note_trip(struct bench *b)
{
	struct nested_context_stats now = bench_stats(b), s;
	struct trip *trip = &b->trips[b->nr_trips++];

	s = nested_context_stats_sub(now, b->stats);
	b->stats = now;
	trip->kind = TRIP_ANY;
	if (b->contexts)
		trip->kind = nested_context_loads(s) == s.reuse ? TRIP_HIT : TRIP_MISS;
	trip->left_out = l0_was_busy(&b->activity);
}

static void vcpu_take_turn(struct bench *b, struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	b->activity = l0_activity();

	for (;;) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_SYNC:
			if (uc.args[1] == L1_TURN_OVER)
				return;
			bench_note_trip(b);
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
			break;
		default:
			TEST_FAIL("Unexpected ucall %lu", uc.cmd);
		}
	}
}

/*
 * Each vCPU has its thread, pinned where there are processors enough.  Only
 * one of them runs at a time, so what is measured is the switch and not the
 * wait for a turn.
 */
static void *turn_taker(void *arg)
{
	struct turn_taker *t = arg;

	kvm_pin_this_task_to_pcpu(t->nr % sysconf(_SC_NPROCESSORS_ONLN));

	for (;;) {
		sem_wait(&t->go);
		if (t->bench->quit)
			return NULL;
		vcpu_take_turn(t->bench, t->vcpu);
		sem_post(&t->bench->done);
	}
}

static void bench_turn(struct bench *b, unsigned int vcpu)
{
	sem_post(&b->taker[vcpu].go);
	sem_wait(&b->done);
}

/* Both kinds of memory are set up alike, the library knows only one of them. */
static void bench_add_memory(struct bench *b)
{
	u32 pages = b->opt->arch->pages_per_l2 * b->cell.nr_l2;
	size_t size = pages * PAGE_SIZE;
	void *mem;
	int fd;

	if (b->opt->unmanaged) {
		fd = open("/dev/mem", O_RDWR);
		TEST_ASSERT(fd >= 0, "Can't open /dev/mem");
		mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   b->opt->phys);
		TEST_ASSERT(mem != MAP_FAILED,
			    "Can't map %#lx of /dev/mem, is the kernel booted with mem= below it?",
			    b->opt->phys);
		close(fd);
	} else {
		mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		TEST_ASSERT(mem != MAP_FAILED, "Can't allocate %zu bytes", size);
		madvise(mem, size, MADV_NOHUGEPAGE);
	}
	memset(mem, 0, size);

	vm_set_user_memory_region(b->vm, L2_SLOT, 0, L2_GPA, size, mem);
	virt_map(b->vm, L2_GPA, L2_GPA, pages);
	b->mem = mem;
	b->mem_size = size;
}

static void bench_init(struct bench *b, const struct options *opt,
		       const struct cell *cell)
{
	const u64 sample_pages = MAX_SAMPLES * sizeof(u32) / PAGE_SIZE;
	struct kvm_vcpu *vcpus[MAX_L1_VCPUS];
	vm_vaddr_t samples, loads, scratch;
	unsigned int i;

	memset(b, 0, sizeof(*b));
	b->opt = opt;
	b->cell = *cell;
	b->chance = 88172645463325252ull;
	sem_init(&b->done, 0, 0);

	b->vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, cell->nr_vcpus,
				       2 * sample_pages + 512, l1_main, vcpus);
	bench_add_memory(b);

	/*
	 * By default a VM may have shadow pages for a fiftieth of its memory; for
	 * this small one that is too few for the page tables of 32 L2s.
	 */
	vm_ioctl(b->vm, KVM_SET_NR_MMU_PAGES, (void *)(unsigned long)MMU_PAGES);

	b->contexts = nested_context_get_ratio();
	b->trips = calloc(MAX_SAMPLES, sizeof(*b->trips));
	TEST_ASSERT(b->trips, "Can't allocate %u trips", MAX_SAMPLES);

	samples = vm_vaddr_alloc_pages(b->vm, sample_pages);
	b->samples = addr_gva2hva(b->vm, samples);
	loads = vm_vaddr_alloc_pages(b->vm, sample_pages);
	b->loads = addr_gva2hva(b->vm, loads);
	job.arch = opt->arch - bench_archs;
	job.nr_l2 = cell->nr_l2;
	job.samples = (u32 *)samples;
	job.loads = (u32 *)loads;
	job.nr_samples = 0;
	job.record = false;
	job.stop = false;
	job.unload = false;
	sync_global_to_guest(b->vm, job);

	for (i = 0; i < cell->nr_vcpus; i++) {
		struct turn_taker *t = &b->taker[i];

		scratch = vm_vaddr_alloc_page(b->vm);
		vcpu_args_set(vcpus[i], 3, scratch,
			      addr_gva2gpa(b->vm, scratch), !i);
		t->bench = b;
		t->vcpu = vcpus[i];
		t->nr = i;
		sem_init(&t->go, 0, 0);
		pthread_create(&t->thread, NULL, turn_taker, t);
		bench_turn(b, i);
	}
}

/* The same L2s at each start: Marsaglia's xorshift. */
static unsigned int bench_chance(struct bench *b, unsigned int below)
{
	b->chance ^= b->chance << 13;
	b->chance ^= b->chance >> 7;
	b->chance ^= b->chance << 17;
	return b->chance % below;
}

/*
 * Whole rounds, so that each L2 makes as many round trips as the others.  Not too
 * few of them: many entries make few visits.
 */
static unsigned int rounds_for(unsigned int trips, const struct cell *cell)
{
	unsigned int rounds = DIV_ROUND_UP(trips, cell->nr_l2 * cell->entries);

	return max(rounds, min(trips, 4u));
}

/* Which L2s @vcpu visits in its turn. */
static void bench_plan(struct bench *b, unsigned int vcpu)
{
	const struct cell *c = &b->cell;
	unsigned int i, step = 1;

	if (c->pattern == PATTERN_LOOP || c->pattern == PATTERN_SLICE)
		step = c->nr_vcpus;

	job.nr_visits = 0;
	for (i = step > 1 ? vcpu : 0; i < c->nr_l2; i += step)
		job.visits[job.nr_visits++] = c->pattern == PATTERN_RANDOM ?
					      bench_chance(b, c->nr_l2) : i;
}

static void bench_run_turn(struct bench *b, unsigned int vcpu)
{
	/* The guest has left the number of samples there. */
	sync_global_from_guest(b->vm, job.nr_samples);
	bench_plan(b, vcpu);
	sync_global_to_guest(b->vm, job);
	bench_turn(b, vcpu);
}

/* Lets the L2s make @rounds visits each, or as many of them by chance. */
static void bench_run(struct bench *b, unsigned int rounds, bool record)
{
	const struct cell *c = &b->cell;
	unsigned int round, vcpu;

	sync_global_from_guest(b->vm, job);
	job.record = record;
	job.stop = record && !b->opt->batch;
	job.entries = c->entries;
	job.passes = 1;
	b->stats = bench_stats(b);

	switch (c->pattern) {
	case PATTERN_RANDOM:
	case PATTERN_MIGRATE:
		job.unload = c->nr_vcpus > 1;
		for (round = 0; round < rounds; round++)
			bench_run_turn(b, round % c->nr_vcpus);
		break;
	case PATTERN_LOOP:
	case PATTERN_SLICE:
		if (c->nr_vcpus > 1) {
			for (round = 0; round < rounds; round++)
				for (vcpu = 0; vcpu < c->nr_vcpus; vcpu++)
					bench_run_turn(b, vcpu);
			break;
		}
		fallthrough;
	default:
		job.passes = rounds;
		bench_run_turn(b, 0);
	}

	sync_global_from_guest(b->vm, job);
	b->nr_samples = job.nr_samples;
}

static void bench_destroy(struct bench *b)
{
	unsigned int i;

	b->quit = true;
	for (i = 0; i < b->cell.nr_vcpus; i++) {
		sem_post(&b->taker[i].go);
		pthread_join(b->taker[i].thread, NULL);
	}
	kvm_vm_free(b->vm);
	free(b->trips);
	munmap(b->mem, b->mem_size);
}

/* ---- Probes ---- */

#define TRACEFS		"/sys/kernel/tracing/"
#define PROBE_GROUP	"nested_context_bench"

/*
 * A gpc maps in hva_to_pfn_retry(); where the compiler has inlined that,
 * __kvm_gpc_refresh() around it is counted, which is called for nothing else
 * than to map anew.
 */
static const char * const probe_maps[] = { "kvm_vcpu_map", "hva_to_pfn_retry" };
static const char * const probe_gpc_inlined = "__kvm_gpc_refresh";
static const char * const probe_remap = "memremap";

static bool write_text(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | flags);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

static bool probe_add(const char *symbol)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "p:" PROBE_GROUP "/%s %s\n", symbol, symbol);
	return write_text(TRACEFS "kprobe_events", O_APPEND, cmd);
}

static void probes_remove(void)
{
	write_text(TRACEFS "events/" PROBE_GROUP "/enable", 0, "0");
	write_text(TRACEFS "kprobe_events", O_APPEND, "-:" PROBE_GROUP "/\n");
}

static bool probes_add(void)
{
	probes_remove();
	if (!probe_add(probe_maps[0]) || !probe_add(probe_remap))
		return false;
	if (!probe_add(probe_maps[1]) && !probe_add(probe_gpc_inlined))
		return false;
	return write_text(TRACEFS "events/" PROBE_GROUP "/enable", 0, "1");
}

static void probes_read(u64 *maps, u64 *remaps)
{
	char name[128];
	u64 hits;
	FILE *f;

	*maps = 0;
	*remaps = 0;
	f = fopen(TRACEFS "kprobe_profile", "r");
	TEST_ASSERT(f, "Can't read kprobe_profile");
	while (fscanf(f, "%127s %lu %*u", name, &hits) == 2) {
		if (!strcmp(name, probe_remap))
			*remaps += hits;
		else if (!strcmp(name, probe_maps[0]) ||
			 !strcmp(name, probe_maps[1]) ||
			 !strcmp(name, probe_gpc_inlined))
			*maps += hits;
	}
	fclose(f);
}

static struct map_counts count_maps(const struct options *opt, const struct cell *cell)
{
	u64 maps[2], remaps[2];
	unsigned int rounds = rounds_for(MAPS_TRIPS, cell);
	double trips = (double)rounds * cell->nr_l2 * cell->entries;
	struct map_counts c = {};
	struct bench b;

	bench_init(&b, opt, cell);
	bench_run(&b, MAPS_WARMUP_ROUNDS, false);
	if (probes_add()) {
		probes_read(&maps[0], &remaps[0]);
		bench_run(&b, rounds, false);
		probes_read(&maps[1], &remaps[1]);
		c.maps = (maps[1] - maps[0]) / trips;
		c.remaps = (remaps[1] - remaps[0]) / trips;
		c.valid = true;
	} else {
		fprintf(stderr, "No probes: maps are not counted\n");
	}
	probes_remove();
	bench_destroy(&b);
	return c;
}

/* ---- Cells ---- */

/* Round trips of one kind.  The sums and @median are of those that are kept. */
struct kind_figures {
	u64 all;
	u64 kept;
	u64 sum;
	u64 load_sum;
	u32 median;
};

struct cell_figures {
	struct kind_figures kind[NR_TRIP_KINDS];
	u64 left_out;
	u32 median;
	u32 min;
	u32 max;
	double mean;
	double load_mean;
};

static int compare_samples(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

static u32 median(u32 *samples, u64 nr)
{
	qsort(samples, nr, sizeof(*samples), compare_samples);
	return samples[nr / 2];
}

static void kind_figures(struct bench *b, enum trip_kind kind,
			 struct kind_figures *f, u32 *kept)
{
	u64 i;

	for (i = 0; i < b->nr_samples; i++) {
		if (b->trips[i].kind != kind)
			continue;
		f->all++;
		if (b->trips[i].left_out)
			continue;
		kept[f->kept++] = b->samples[i];
		f->sum += b->samples[i];
		f->load_sum += b->loads[i];
	}
	if (f->kept)
		f->median = median(kept, f->kept);
}

/* Of each kind as much as occurred, those left out included. */
static void cell_means(struct cell_figures *f)
{
	double sum = 0, load_sum = 0, all = 0;
	int kind;

	for (kind = 0; kind < NR_TRIP_KINDS; kind++) {
		const struct kind_figures *k = &f->kind[kind];

		if (!k->kept)
			continue;
		sum += (double)k->sum / k->kept * k->all;
		load_sum += (double)k->load_sum / k->kept * k->all;
		all += k->all;
	}
	f->mean = sum / all;
	f->load_mean = load_sum / all;
}

static struct cell_figures cell_figures(struct bench *b)
{
	u32 *kept = calloc(b->nr_samples, sizeof(*kept));
	struct cell_figures f = {};
	u64 i, nr = 0;
	int kind;

	TEST_ASSERT(kept, "Can't allocate %lu samples", b->nr_samples);

	for (kind = 0; kind < NR_TRIP_KINDS; kind++)
		kind_figures(b, kind, &f.kind[kind], kept);

	for (i = 0; i < b->nr_samples; i++) {
		if (!b->trips[i].left_out)
			kept[nr++] = b->samples[i];
	}
	TEST_ASSERT(nr, "L0 was busy during each of %lu round trips", b->nr_samples);
	f.left_out = b->nr_samples - nr;
	f.median = median(kept, nr);
	f.min = kept[0];
	f.max = kept[nr - 1];
	cell_means(&f);

	free(kept);
	return f;
}

/*
 * The kernel frees what memunmap() leaves in large batches, and until then each
 * memremap() searches longer.  The first cell warms up until that has happened;
 * those after it only until their contexts have settled.
 */
static unsigned int warmup_rounds(const struct options *opt, const struct cell *cell)
{
	static bool cold = true;
	unsigned int trips = opt->warmup;

	if (!trips)
		trips = opt->unmanaged && cold ? 1500 : 300;
	cold = false;
	return DIV_ROUND_UP(trips, cell->nr_l2);
}

static void bench_cell(const struct options *opt, const struct cell *cell)
{
	unsigned int rounds = rounds_for(opt->trips, cell);
	struct nested_context_stats before, s;
	struct map_counts maps = {};
	struct cell_figures f;
	struct bench b;
	u64 loads;

	bench_init(&b, opt, cell);
	bench_run(&b, warmup_rounds(opt, cell), false);
	before = nested_context_read_stats(b.vm);
	bench_run(&b, rounds, true);
	s = nested_context_stats_sub(nested_context_read_stats(b.vm), before);

	TEST_ASSERT_EQ(b.nr_samples, (u64)rounds * cell->nr_l2 * cell->entries);
	TEST_ASSERT_EQ(b.nr_trips, opt->batch ? 0 : b.nr_samples);
	f = cell_figures(&b);

	printf("cell arch=%s memory=%s l2=%u l1_vcpus=%u pattern=%s",
	       opt->arch->name, opt->unmanaged ? "unmanaged" : "managed",
	       cell->nr_l2, cell->nr_vcpus, pattern_names[cell->pattern]);
	if (cell->pattern == PATTERN_SLICE)
		printf(" entries=%u", cell->entries);
	if (!opt->batch)
		printf(" mean=%.0f", f.mean);
	if (f.kind[TRIP_HIT].kept)
		printf(" hit=%u", f.kind[TRIP_HIT].median);
	if (f.kind[TRIP_MISS].kept)
		printf(" miss=%u", f.kind[TRIP_MISS].median);
	printf(" median=%u min=%u max=%u", f.median, f.min, f.max);
	if (!opt->batch)
		printf(" left_out=%.4f", (double)f.left_out / b.nr_samples);
	if (!opt->batch && opt->arch->load_name)
		printf(" %s=%.0f", opt->arch->load_name, f.load_mean);
	bench_destroy(&b);

	if (opt->maps)
		maps = count_maps(opt, cell);
	if (maps.valid)
		printf(" maps=%.2f remaps=%.2f", maps.maps, maps.remaps);

	if (nested_context_present()) {
		loads = nested_context_loads(s);
		printf(" ratio=%u new=%lu reuse=%lu recycle=%lu fallback=%lu",
		       nested_context_get_ratio(), s.new, s.reuse, s.recycle, s.fallback);
		if (loads)
			printf(" hits=%.4f", (double)s.reuse / loads);
	}
	printf("\n");
}

static void usage(const char *name)
{
	printf("Usage: %s [option]...\n"
	       "  --l2 N[,N]...         L2s in the loop (default 1,2,8,9,16)\n"
	       "  --pattern P[,P]...    same, loop, slice, uneven, migrate, random (default loop)\n"
	       "  --entries N[,N]...    of each visit, for slice (default 2)\n"
	       "  --trips N             round trips that are measured, of all L2s together\n"
	       "                        and at least (default 384)\n"
	       "  --warmup N            those before that are not (default 300, in the\n"
	       "                        first cell of --unmanaged 1500)\n"
	       "  --l1-vcpus N[,N]...   (default 1; uneven and migrate want 2 at least)\n"
	       "  --unmanaged --phys A  back control blocks from /dev/mem at A\n"
	       "  --maps                count page mappings in a second pass\n"
	       "  --batch               L1 exits once, not after each round trip\n",
	       name);
}

static unsigned long parse_number(const char *what, const char *text,
				  unsigned long min, unsigned long max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 0);
	if (errno || end == text || *end || n < min || n > max) {
		fprintf(stderr, "%s: %s is no number from %lu to %lu\n",
			what, text, min, max);
		exit(KSFT_FAIL);
	}
	return n;
}

static unsigned int parse_numbers(const char *what, char *list, unsigned int *to,
				  unsigned int max)
{
	unsigned int nr = 0;
	char *item;

	while ((item = strsep(&list, ","))) {
		if (nr == MAX_CELLS) {
			fprintf(stderr, "%s: more than %u\n", what, MAX_CELLS);
			exit(KSFT_FAIL);
		}
		to[nr++] = parse_number(what, item, 1, max);
	}
	return nr;
}

static void parse_patterns(struct options *opt, char *list)
{
	char *item;
	int i;

	memset(opt->patterns, 0, sizeof(opt->patterns));
	while ((item = strsep(&list, ","))) {
		for (i = 0; i < NR_PATTERNS && strcmp(item, pattern_names[i]); i++)
			;
		if (i == NR_PATTERNS) {
			fprintf(stderr, "--pattern: %s is none\n", item);
			exit(KSFT_FAIL);
		}
		opt->patterns[i] = true;
	}
}

static void parse_options(struct options *opt, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "l2",		required_argument, NULL, 'n' },
		{ "pattern",	required_argument, NULL, 'p' },
		{ "trips",	required_argument, NULL, 't' },
		{ "warmup",	required_argument, NULL, 'w' },
		{ "l1-vcpus",	required_argument, NULL, 'v' },
		{ "entries",	required_argument, NULL, 'e' },
		{ "unmanaged",	no_argument,	   NULL, 'u' },
		{ "phys",	required_argument, NULL, 'a' },
		{ "maps",	no_argument,	   NULL, 'm' },
		{ "batch",	no_argument,	   NULL, 'b' },
		{ "help",	no_argument,	   NULL, 'h' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			opt->nr_l2s = parse_numbers("--l2", optarg, opt->l2s, L2_MAX);
			break;
		case 'p':
			parse_patterns(opt, optarg);
			break;
		case 't':
			opt->trips = parse_number("--trips", optarg, 1,
						  MAX_SAMPLES - 4 * L2_MAX * MAX_ENTRIES);
			break;
		case 'w':
			opt->warmup = parse_number("--warmup", optarg, 1, MAX_SAMPLES);
			break;
		case 'v':
			opt->nr_l1_vcpus = parse_numbers("--l1-vcpus", optarg,
							 opt->l1_vcpus, MAX_L1_VCPUS);
			break;
		case 'e':
			opt->nr_entries = parse_numbers("--entries", optarg,
							opt->entries, MAX_ENTRIES);
			break;
		case 'u':
			opt->unmanaged = true;
			break;
		case 'a':
			opt->phys = parse_number("--phys", optarg, PAGE_SIZE, LONG_MAX);
			break;
		case 'm':
			opt->maps = true;
			break;
		case 'b':
			opt->batch = true;
			break;
		default:
			usage(argv[0]);
			exit(c == 'h' ? KSFT_PASS : KSFT_FAIL);
		}
	}

	if (optind != argc || (opt->unmanaged && !opt->phys) ||
	    opt->phys % PAGE_SIZE) {
		usage(argv[0]);
		exit(KSFT_FAIL);
	}
}

/* Not all that the options ask for makes sense. */
static bool cell_is_one(const struct cell *c)
{
	switch (c->pattern) {
	case PATTERN_UNEVEN:
	case PATTERN_MIGRATE:
		return c->nr_vcpus > 1;
	case PATTERN_LOOP:
	case PATTERN_SLICE:
		return c->nr_l2 >= c->nr_vcpus;
	default:
		return true;
	}
}

static void bench_cells(const struct options *opt, struct cell *cell)
{
	unsigned int v, i, e;

	if (cell->pattern == PATTERN_SAME) {
		cell->nr_vcpus = 1;
		cell->nr_l2 = 1;
		cell->entries = 1;
		bench_cell(opt, cell);
		return;
	}

	for (v = 0; v < opt->nr_l1_vcpus; v++) {
		for (e = 0; e < (cell->pattern == PATTERN_SLICE ? opt->nr_entries : 1); e++) {
			for (i = 0; i < opt->nr_l2s; i++) {
				cell->nr_vcpus = opt->l1_vcpus[v];
				cell->nr_l2 = opt->l2s[i];
				cell->entries = cell->pattern == PATTERN_SLICE ?
						opt->entries[e] : 1;
				if (cell_is_one(cell))
					bench_cell(opt, cell);
			}
		}
	}
}

int main(int argc, char **argv)
{
	struct options opt = {
		.l2s = { 1, 2, 8, 9, 16 },
		.nr_l2s = 5,
		.patterns = { [PATTERN_LOOP] = true },
		.entries = { 2 },
		.nr_entries = 1,
		.l1_vcpus = { 1 },
		.nr_l1_vcpus = 1,
		.trips = 384,
	};
	struct cell cell;
	unsigned int i;

	parse_options(&opt, argc, argv);
	for (i = 0; i < ARRAY_SIZE(bench_archs) && !opt.arch; i++) {
		if (bench_archs[i].supported())
			opt.arch = &bench_archs[i];
	}
	__TEST_REQUIRE(opt.arch, "No nested virtualization for this program");

	for (cell.pattern = 0; cell.pattern < NR_PATTERNS; cell.pattern++) {
		if (opt.patterns[cell.pattern])
			bench_cells(&opt, &cell);
	}

	return KSFT_PASS;
}
