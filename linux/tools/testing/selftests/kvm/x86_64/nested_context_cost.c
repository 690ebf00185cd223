// SPDX-License-Identifier: GPL-2.0-only
/*
 * What do kept pages cost those who do not run L2s?
 *
 * L1 enters many L2s once each, each with a control block, permission map and so
 * on of its own, until L0 keeps as many pages as wanted.  The capacity is raised
 * for that: by the ratio first, which is limited, then by vCPUs.  Then this
 * program, on the host's side, reads the TSC around
 *
 *	discard		MADV_DONTNEED of one page of L1: an event for the host's
 *			MMU notifiers.  Of a page that is not kept ("other"), of
 *			one that is ("kept"), and of all that are ("all").
 *	memslot		a memory slot that is added and deleted again; it has
 *			nothing to do with L2s
 *	trip		a round trip to an L2 that was entered before, once as it
 *			is ("before") and once after a memory slot was added and
 *			deleted ("after"), when its pages have to be looked up again
 *
 * On a kernel without contexts the same is done with as many L2s, whose pages are
 * not kept.  Where the emulator counts instructions as time, the figures are
 * instructions.  Each is the median of several, but "all", which is one event.
 *
 * With --memory each vCPU enters as many L2s of its own as the default capacity
 * has contexts for one, and what the kernel allocated for contexts is read from
 * the tracepoint of its allocator.
 */
#include <getopt.h>
#include <sys/mman.h>

#include "nested_context_common.h"
#include "nested_context_svm.h"
#include "nested_context_vmx.h"

#define PAGES_SLOT	10
#define PAGES_GPA	0x10000000ull
#define SPARE_SLOT	11
#define SPARE_GPA	0x0ff00000ull

#define REPEATS		15
/* Touched by L1, in the same slot, and not kept. */
#define OTHER_PAGES	REPEATS
/* Stack and page tables, which all L2s share. */
#define SHARED_PAGES	8

/* The largest ratio that any kernel takes. */
#define MAX_RATIO	64
#define MAX_VCPUS	512
#define MAX_L2S		(MAX_VCPUS * NESTED_CONTEXT_RATIO)
#define MMU_PAGES	4096

struct cost_arch {
	const char *name;
	bool (*supported)(void);
	/* Pages of an L2 that a context keeps, from its control block on. */
	unsigned int pages_per_l2;
	void (*l1_init)(void *scratch, u64 scratch_gpa);
	/* Makes an L2 at @gpa; what all share is at @shared, made by the @first. */
	void (*l2_init)(u64 gpa, u64 shared, bool first);
	/* One round trip to the L2 at @gpa. */
	void (*round_trip)(u64 gpa);
};

/* ---- SVM ---- */

static void svm_l2_main(void)
{
	for (;;)
		asm volatile("vmmcall");
}

static bool svm_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_SVM);
}

static void svm_l1_init(void *scratch, u64 scratch_gpa)
{
	l1_enable_svm(scratch_gpa);
}

static void svm_l2_init(u64 gpa, u64 shared, bool first)
{
	struct l2_vcpu l2 = {
		.vmcb_gpa = gpa,
		.vmcb = (void *)gpa,
		.msrpm = (void *)(gpa + PAGE_SIZE),
		.npt = (void *)(shared + PAGE_SIZE),
	};

	memset(l2.msrpm, 0xff, L2_MSRPM_PAGES * PAGE_SIZE);
	l2_init_vmcb(&l2, svm_l2_main, shared + PAGE_SIZE - 8, first);
	l2.vmcb->control.nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
	l2.vmcb->control.nested_cr3 = (u64)l2.npt;
}

static void svm_round_trip(u64 gpa)
{
	struct l2_vcpu l2 = { .vmcb_gpa = gpa };
	struct vmcb *vmcb = (void *)gpa;

	l2_vmrun(&l2, gpa);
	GUEST_ASSERT_EQ(vmcb->control.exit_code, SVM_EXIT_VMMCALL);
	vmcb->save.rip += L2_VMMCALL_LEN;
}

/* ---- VMX ---- */

extern char vmx_l2_main[];

asm(".pushsection .text\n"
	"vmx_l2_main:\n\t"
	"vmcall\n\t"
	"jmp vmx_l2_main\n\t"
	".popsection");

/* Of the vCPU that runs; it is what HOST_RSP points to. */
static struct vmx_l2 vmx_l2;

static bool vmx_supported(void)
{
	return kvm_cpu_has(X86_FEATURE_VMX) && kvm_cpu_has_ept();
}

static void vmx_l2_init(u64 gpa, u64 shared, bool first)
{
	u32 features = VMX_L2_MSR_BITMAP | VMX_L2_TPR_SHADOW | VMX_L2_APIC_ACCESS;
	static u64 eptp, ept_control;

	memset(&vmx_l2, 0, sizeof(vmx_l2));
	vmx_l2.vmcs = gpa;
	vmx_l2.msr_bitmap = (void *)(gpa + PAGE_SIZE);
	vmx_l2.vapic = vmx_l2.msr_bitmap + PAGE_SIZE;
	vmx_l2.apic_access = vmx_l2.vapic + PAGE_SIZE;
	vmx_l2.ept = (void *)(shared + PAGE_SIZE);
	memset(vmx_l2.msr_bitmap, 0xff, PAGE_SIZE);

	vmx_l2_init_vmcs(&vmx_l2, vmx_l2_main, shared + PAGE_SIZE - 8,
			 first ? features | VMX_L2_EPT : features);
	if (first) {
		eptp = vmreadz(EPT_POINTER);
		ept_control = vmreadz(SECONDARY_VM_EXEC_CONTROL);
	}
	GUEST_ASSERT(!vmwrite(EPT_POINTER, eptp));
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			      vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
			      CPU_BASED_ACTIVATE_SECONDARY_CONTROLS));
	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL, ept_control));
	GUEST_ASSERT(!vmclear(gpa));
}

/* Of one that is not on a vCPU, nor is when this is over. */
static void vmx_round_trip(u64 gpa)
{
	GUEST_ASSERT(!vmptrld(gpa));
	GUEST_ASSERT(!vmx_l2_enter(&vmx_l2, false));
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)vmx_l2_main));
	GUEST_ASSERT(!vmclear(gpa));
}

static const struct cost_arch cost_archs[] = {
	{
		.name		= "svm",
		.supported	= svm_supported,
		.pages_per_l2	= 1 + L2_MSRPM_PAGES,
		.l1_init	= svm_l1_init,
		.l2_init	= svm_l2_init,
		.round_trip	= svm_round_trip,
	}, {
		.name		= "vmx",
		.supported	= vmx_supported,
		.pages_per_l2	= 4,
		.l1_init	= l1_enable_vmx,
		.l2_init	= vmx_l2_init,
		.round_trip	= vmx_round_trip,
	},
};

/* ---- L1 ---- */

/* Written by the host before each run. */
static struct {
	unsigned int arch;
	bool make;		/* the L2s, before they are entered */
	u64 gpa;		/* of the first */
	unsigned int nr_l2;
	u64 others, shared;
	u64 took;		/* by the last round trip */
} job;

static void l1_main(void *scratch, u64 scratch_gpa)
{
	const struct cost_arch *arch = &cost_archs[job.arch];
	unsigned int i;
	u64 gpa, before;

	arch->l1_init(scratch, scratch_gpa);
	for (;;) {
		for (i = 0; i < OTHER_PAGES; i++)
			WRITE_ONCE(*(u8 *)(job.others + i * PAGE_SIZE), 1);
		for (i = 0; i < job.nr_l2; i++) {
			gpa = job.gpa + i * arch->pages_per_l2 * PAGE_SIZE;
			if (job.make)
				arch->l2_init(gpa, job.shared, gpa == PAGES_GPA);
			before = rdtsc();
			arch->round_trip(gpa);
			job.took = rdtsc() - before;
		}
		GUEST_SYNC(0);
	}
}

/* ---- Host ---- */

struct cost {
	const struct cost_arch *arch;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	unsigned int nr_vcpus;
	unsigned int nr_l2;
	u64 pages;		/* of L2s, those that may be kept */
	void *mem;
	size_t size;
	void *spare;
};

static u64 cost_gpa(struct cost *c, unsigned int l2)
{
	return PAGES_GPA + (u64)l2 * c->arch->pages_per_l2 * PAGE_SIZE;
}

/* Lets a vCPU enter L2s; what the last of them took. */
static u64 cost_run(struct cost *c, unsigned int vcpu, unsigned int l2,
		    unsigned int nr, bool make)
{
	struct ucall uc;

	job.arch = c->arch - cost_archs;
	job.make = make;
	job.gpa = cost_gpa(c, l2);
	job.nr_l2 = nr;
	job.others = cost_gpa(c, c->nr_l2);
	job.shared = job.others + OTHER_PAGES * PAGE_SIZE;
	sync_global_to_guest(c->vm, job);
	vcpu_run(c->vcpus[vcpu]);
	TEST_ASSERT_KVM_EXIT_REASON(c->vcpus[vcpu], KVM_EXIT_IO);
	switch (get_ucall(c->vcpus[vcpu], &uc)) {
	case UCALL_SYNC:
		break;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("Unexpected ucall %lu", uc.cmd);
	}
	sync_global_from_guest(c->vm, job);
	return job.took;
}

static void cost_init(struct cost *c, const struct cost_arch *arch,
		      unsigned int nr_l2, unsigned int nr_vcpus)
{
	u64 shared_pages = OTHER_PAGES + SHARED_PAGES, pages;
	vm_vaddr_t scratch;
	unsigned int i;

	memset(c, 0, sizeof(*c));
	c->arch = arch;
	c->nr_l2 = nr_l2;
	c->nr_vcpus = nr_vcpus;
	c->pages = (u64)nr_l2 * arch->pages_per_l2;
	pages = c->pages + shared_pages;
	c->size = pages * PAGE_SIZE;

	c->vm = __vm_create_with_vcpus(VM_SHAPE_DEFAULT, nr_vcpus,
				       512 + pages / 256, l1_main, c->vcpus);
	vm_ioctl(c->vm, KVM_SET_NR_MMU_PAGES, (void *)(unsigned long)MMU_PAGES);

	c->mem = mmap(NULL, c->size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(c->mem != MAP_FAILED, "Can't allocate %zu bytes", c->size);
	madvise(c->mem, c->size, MADV_NOHUGEPAGE);
	memset(c->mem, 0, c->size);
	c->spare = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(c->spare != MAP_FAILED, "Can't allocate a page");

	vm_set_user_memory_region(c->vm, PAGES_SLOT, 0, PAGES_GPA, c->size, c->mem);
	virt_map(c->vm, PAGES_GPA, PAGES_GPA, pages);
	for (i = 0; i < nr_vcpus; i++) {
		scratch = vm_vaddr_alloc_page(c->vm);
		vcpu_args_set(c->vcpus[i], 2, scratch, addr_gva2gpa(c->vm, scratch));
	}
}

static void cost_destroy(struct cost *c)
{
	kvm_vm_free(c->vm);
	munmap(c->mem, c->size);
	munmap(c->spare, PAGE_SIZE);
}

static int compare_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 median(u64 *took)
{
	qsort(took, REPEATS, sizeof(*took), compare_u64);
	return took[REPEATS / 2];
}

static u64 discard(void *page, size_t size)
{
	u64 before = rdtsc();

	TEST_ASSERT(!madvise(page, size, MADV_DONTNEED), "MADV_DONTNEED failed");
	return rdtsc() - before;
}

/* Page @page of REPEATS pages that lie @apart. */
static u64 discard_pages(struct cost *c, u64 first, u64 apart)
{
	u64 took[REPEATS];
	int i;

	for (i = 0; i < REPEATS; i++)
		took[i] = discard(c->mem + (first + i * apart) * PAGE_SIZE, PAGE_SIZE);
	return median(took);
}

static u64 change_memslots(struct cost *c)
{
	u64 before = rdtsc();

	vm_set_user_memory_region(c->vm, SPARE_SLOT, 0, SPARE_GPA, PAGE_SIZE, c->spare);
	vm_set_user_memory_region(c->vm, SPARE_SLOT, 0, SPARE_GPA, 0, c->spare);
	return rdtsc() - before;
}

static void cost_trips(struct cost *c, u64 *before, u64 *after)
{
	u64 took[2][REPEATS];
	int i;

	for (i = 0; i < REPEATS; i++) {
		unsigned int l2 = i % c->nr_l2;

		/* Once more, for it is not the one that ran last. */
		cost_run(c, 0, l2, 1, false);
		cost_run(c, 0, (l2 + 1) % c->nr_l2, 1, false);
		took[0][i] = cost_run(c, 0, l2, 1, false);
		cost_run(c, 0, (l2 + 1) % c->nr_l2, 1, false);
		change_memslots(c);
		took[1][i] = cost_run(c, 0, l2, 1, false);
	}
	*before = median(took[0]);
	*after = median(took[1]);
}

static void cost_cell(const struct cost_arch *arch, unsigned int pages)
{
	unsigned int nr_l2 = max(DIV_ROUND_UP(pages, arch->pages_per_l2), 2u);
	unsigned int ratio = min_t(unsigned int, nr_l2, MAX_RATIO);
	unsigned int nr_vcpus = DIV_ROUND_UP(nr_l2, ratio), i;
	u64 other, kept = 0, slots[REPEATS], before, after, all;
	struct nested_context_stats s;
	struct cost c;

	/* None is kept with ratio 0, and with it one L2 does as well as many. */
	nested_context_set_ratio(pages ? ratio : 0);
	cost_init(&c, arch, nr_l2, nr_vcpus);
	cost_run(&c, 0, 0, nr_l2, true);
	s = nested_context_read_stats(c.vm);
	if (nested_context_present() && pages)
		TEST_ASSERT_EQ(s.new, (u64)nr_l2);

	cost_trips(&c, &before, &after);
	for (i = 0; i < REPEATS; i++)
		slots[i] = change_memslots(&c);
	/* The slots were changed: have all pages kept again. */
	cost_run(&c, 0, 0, nr_l2, false);

	other = discard_pages(&c, c.pages, 1);
	all = discard(c.mem, c.pages * PAGE_SIZE);
	cost_destroy(&c);

	/* Discarding loses L2s, so those that are kept are another VM's. */
	if (pages >= REPEATS * arch->pages_per_l2) {
		cost_init(&c, arch, nr_l2, nr_vcpus);
		cost_run(&c, 0, 0, nr_l2, true);
		kept = discard_pages(&c, 0, arch->pages_per_l2);
		cost_destroy(&c);
	}

	printf("cost arch=%s pages=%lu l2=%u l1_vcpus=%u other=%lu", arch->name,
	       pages ? (u64)nr_l2 * arch->pages_per_l2 : 0, nr_l2, nr_vcpus, other);
	if (kept)
		printf(" kept=%lu", kept);
	printf(" all=%lu memslot=%lu trip_before=%lu trip_after=%lu\n", all,
	       median(slots), before, after);
	nested_context_set_ratio(NESTED_CONTEXT_RATIO);
}

/* ---- Memory ---- */

#define KMALLOC	"/sys/kernel/tracing/events/kmem/kmalloc/"

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	TEST_ASSERT(fd >= 0, "Can't open %s", path);
	TEST_ASSERT(write(fd, text, strlen(text)) == (ssize_t)strlen(text),
		    "Can't write %s to %s", text, path);
	close(fd);
}

/*
 * What was allocated where, as the tracepoint's histogram has it:
 *	{ call_site: [ffffffffc0a01234] NAME  [kvm_amd] } hitcount: 8  bytes_alloc: 16384
 */
static void print_allocations(const struct cost *c)
{
	char line[512], site[128];
	u64 count, bytes;
	FILE *f;

	f = fopen(KMALLOC "hist", "r");
	TEST_ASSERT(f, "Can't read the histogram of kmalloc");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "{ call_site: [%*x] %127s %*[^}]} hitcount: %lu bytes_alloc: %lu",
			   site, &count, &bytes) != 3)
			continue;
		if (!strstr(site, "context") && !strstr(site, "kvmalloc"))
			continue;
		printf("allocated arch=%s l1_vcpus=%u site=%s count=%lu bytes=%lu\n",
		       c->arch->name, c->nr_vcpus, site, count, bytes);
	}
	fclose(f);
}

static u64 slab_object_size(const char *cache)
{
	char path[128];
	u64 size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/slab_size", cache);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%lu", &size) != 1)
			size = 0;
		fclose(f);
	}
	return size;
}

static void memory_cell(const struct cost_arch *arch, unsigned int nr_vcpus)
{
	unsigned int nr_l2 = nr_vcpus * NESTED_CONTEXT_RATIO, i;
	struct nested_context_stats s;
	struct cost c;
	u64 vcpu_size;

	cost_init(&c, arch, nr_l2, nr_vcpus);
	write_text(KMALLOC "trigger", "hist:keys=call_site.sym:vals=bytes_alloc:size=4096\n");
	for (i = 0; i < nr_vcpus; i++)
		cost_run(&c, i, i * NESTED_CONTEXT_RATIO, NESTED_CONTEXT_RATIO, true);
	print_allocations(&c);
	write_text(KMALLOC "trigger", "!hist:keys=call_site.sym:vals=bytes_alloc:size=4096\n");

	s = nested_context_read_stats(c.vm);
	vcpu_size = slab_object_size("kvm_vcpu");
	printf("memory arch=%s l1_vcpus=%u l2=%u new=%lu", arch->name, nr_vcpus, nr_l2, s.new);
	if (vcpu_size)
		printf(" vcpu_bytes=%lu", vcpu_size);
	printf("\n");
	cost_destroy(&c);
}

static void usage(const char *name)
{
	printf("Usage: %s [option]...\n"
	       "  --pages N[,N]...   measure with N kept pages, or 0 (at most %u contexts)\n"
	       "  --memory N[,N]...  measure what contexts take in a VM of N vCPUs (at most %u)\n",
	       name, MAX_L2S, MAX_VCPUS);
}

static void each_number(const struct cost_arch *arch, char *list, unsigned int most,
			void (*cell)(const struct cost_arch *arch, unsigned int n))
{
	unsigned long n;
	char *item, *end;

	while ((item = strsep(&list, ","))) {
		n = strtoul(item, &end, 10);
		if (end == item || *end || n > most) {
			fprintf(stderr, "%s is no number up to %u\n", item, most);
			exit(KSFT_FAIL);
		}
		cell(arch, n);
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "pages",	required_argument, NULL, 'p' },
		{ "memory",	required_argument, NULL, 'm' },
		{ "help",	no_argument,	   NULL, 'h' },
		{ }
	};
	const struct cost_arch *arch = NULL;
	unsigned int i;
	int opt;

	for (i = 0; i < ARRAY_SIZE(cost_archs) && !arch; i++) {
		if (cost_archs[i].supported())
			arch = &cost_archs[i];
	}
	__TEST_REQUIRE(arch, "No nested virtualization for this program");

	while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (opt) {
		case 'p':
			each_number(arch, optarg, MAX_L2S * arch->pages_per_l2, cost_cell);
			break;
		case 'm':
			each_number(arch, optarg, MAX_VCPUS, memory_cell);
			break;
		default:
			usage(argv[0]);
			exit(opt == 'h' ? KSFT_PASS : KSFT_FAIL);
		}
	}
	return KSFT_PASS;
}
