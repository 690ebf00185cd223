// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does L1 see the same with nested contexts as without?  (Rule 10 of docs/rules.md.)
 *
 * Programs for a hostile L1 are made from seeds, see nested_context_fuzz.h, and
 * run one after the other, some in each VM, each VM in a process of its own.  For
 * each VM a line with its first seed tells the hash of its transcript.  Run on the
 * stock kernel and on one with nested contexts, the lines must be equal.
 *
 * What needs no comparison is checked at once: memory that changed while its
 * slot's dirty log was on must be in the log ("lost" counts pages that are not).
 *
 * With --parallel all L1 vCPUs do all of L1's steps at once, while the host does
 * its own over and over.  There is no one outcome then; the kernel must live.
 *
 * With --fail-nth one allocation fails in each VM, where fault injection is set up
 * for that (Documentation/fault-injection).
 *
 * --print writes a program as text, which can be shortened and given back as a
 * file; --dump tells all notes of a transcript.  The last line tells how far the
 * TSC went, which is instructions where the emulator counts them as time.
 */
#include <getopt.h>
#include <pthread.h>
#include <sys/wait.h>

#include "nested_context_fuzz.h"
#include "nested_context_fuzz_svm.h"
#include "nested_context_fuzz_vmx.h"
#include "nested_context_fuzz_text.h"
#include "nested_context_fuzz_vm.h"

static const struct fuzz_arch fuzz_archs[] = {
	{
		.name		= "svm",
		.supported	= fuzz_svm_supported,
		.block_size	= PAGE_SIZE,
		.ops		= fuzz_svm_ops,
		.nr_ops		= NR_SVM_OPS,
		.generate	= fuzz_svm_generate,
		.l1_init	= fuzz_svm_l1_init,
		.l1_step	= fuzz_svm_l1_step,
		.l1_forget	= fuzz_svm_l1_forget,
		.block_is_open	= fuzz_svm_block_is_open,
	}, {
		.name		= "vmx",
		.supported	= fuzz_vmx_supported,
		.block_size	= VMX_BLOCK_SIZE,
		.pins_in_l2	= true,
		.posts		= true,
		.ops		= fuzz_vmx_ops,
		.nr_ops		= NR_VMX_OPS,
		.generate	= fuzz_vmx_generate,
		.l1_init	= fuzz_vmx_l1_init,
		.l1_step	= fuzz_vmx_l1_step,
		.l1_forget	= fuzz_vmx_l1_forget,
		.block_is_open	= fuzz_vmx_block_is_open,
	},
};

/* ---- L1 ---- */

static void l1_main(u32 cpu, void *scratch, u64 scratch_gpa)
{
	const struct fuzz_arch *arch = &fuzz_archs[shared.arch];
	const struct fuzz_step *s;
	u32 *next = next_of(cpu);

	arch->l1_init(cpu, scratch, scratch_gpa);
	for (;;) {
		if (*next == shared.nr) {
			GUEST_SYNC(SYNC_END);
			continue;
		}
		s = &shared.step[*next];
		if (shared.parallel ? s->op < FUZZ_HOST :
				      s->op < FUZZ_HOST && s->vcpu == cpu) {
			++*next;
			arch->l1_step(cpu, s);
		} else if (shared.parallel) {
			++*next;
		} else {
			GUEST_SYNC(SYNC_TURN);
		}
	}
}

/* ---- The generator ---- */

static const u64 fuzz_ratios[] = { 8, 8, 4, 2, 1, 0 };

static void generate_host_step(struct guest_random_state *rnd, struct fuzz_step *s)
{
	enum fuzz_slot slot = fuzz_below(rnd, NR_SLOTS);

	s->op = FUZZ_HOST + fuzz_weighted(rnd, host_ops, ARRAY_SIZE(host_ops));
	switch (s->op) {
	case HOST_DROP:
		s->arg[0] = page_gpa(slot, fuzz_below(rnd, slot_pages[slot]));
		s->arg[1] = __guest_random_bool(rnd, 70);
		break;
	case HOST_WRITE:
		s->arg[0] = page_gpa(slot, fuzz_below(rnd, slot_pages[slot])) +
			    fuzz_below(rnd, 512) * 8;
		s->arg[1] = fuzz_value(rnd);
		break;
	case HOST_POST:
		fuzz_generate_post(rnd, s->arg);
		break;
	case HOST_RATIO:
		s->arg[0] = fuzz_pick(rnd, fuzz_ratios, ARRAY_SIZE(fuzz_ratios));
		break;
	case HOST_LOG:
	case HOST_GET_LOG:
		/* Most of what KVM writes itself are control blocks. */
		s->arg[0] = guest_random_bool(rnd) ? SLOT_BLOCK : slot;
		s->arg[1] = __guest_random_bool(rnd, 80);
		break;
	default:
		s->arg[0] = slot;
		break;
	}
}

/*
 * A program begins with control blocks that work, and works on few at a time:
 * more than a small table holds, but coming back to them.
 */
static void generate(const struct fuzz_arch *arch, u32 seed, struct fuzz_program *p)
{
	struct guest_random_state rnd = new_guest_random_state(seed);
	unsigned int vcpus = 1 + fuzz_below(&rnd, p->nr_vcpus);
	unsigned int blocks = 2 + fuzz_below(&rnd, NR_BLOCKS - 1);
	unsigned int init = 0, made = 0, round = 0, vcpu = 0;
	unsigned int end = p->nr + blocks + 24 + fuzz_below(&rnd, 72);
	bool deleted[NR_SLOTS] = {}, host = false;
	enum fuzz_slot slot;
	struct fuzz_step *s;

	while (strcmp(arch->ops[init].name, "init"))
		init++;

	while (p->nr < end) {
		s = &p->step[p->nr++];
		s->vcpu = vcpu;
		if (made < blocks) {
			s->op = init;
			arch->generate(&rnd, s);
			s->arg[0] = made++;
		} else if (__guest_random_bool(&rnd, host ? 70 : 12)) {
			generate_host_step(&rnd, s);
			if (s->op == HOST_DELETE)
				deleted[s->arg[0]] = true;
		} else {
			s->op = fuzz_weighted(&rnd, arch->ops, arch->nr_ops);
			arch->generate(&rnd, s);
			/* Half of what is entered goes on in a round. */
			if (!s->op && guest_random_bool(&rnd))
				s->arg[0] = page_gpa(SLOT_BLOCK, round++ % blocks);
		}
		host = !s->op && fuzz_calls_host(s);

		if (__guest_random_bool(&rnd, 20))
			vcpu = fuzz_below(&rnd, vcpus);
		slot = fuzz_below(&rnd, NR_SLOTS);
		if (deleted[slot]) {
			deleted[slot] = false;
			p->step[p->nr++] = (struct fuzz_step) {
				.vcpu = vcpu, .op = HOST_ADD, .arg = { slot },
			};
		}
	}
}

/* The programs of @nr seeds, for one VM. */
static void generate_vm(const struct fuzz_arch *arch, u32 seed, unsigned int nr,
			struct fuzz_program *p)
{
	struct guest_random_state rnd = new_guest_random_state(seed);
	unsigned int i;

	memset(p, 0, sizeof(*p));
	p->nr_vcpus = guest_random_bool(&rnd) ? 1 : 1 + fuzz_below(&rnd, MAX_L1_VCPUS);
	p->ratio = fuzz_pick(&rnd, fuzz_ratios, ARRAY_SIZE(fuzz_ratios));
	for (i = 0; i < nr; i++) {
		generate(arch, seed + i, p);
		p->step[p->nr++].op = HOST_NEXT;
	}
}

/* ---- Running a program ---- */

/* What comes next is the host's: in L1 in its turn, in L2 when L2 asks for it. */
static void host_steps(void)
{
	typeof(shared) *sh = fuzz.shared;

	while (sh->next[0] < sh->nr && sh->step[sh->next[0]].op >= FUZZ_HOST) {
		sh->next[0]++;
		host_step(&sh->step[sh->next[0] - 1]);
	}
}

/* Something that only a reset helps against; not for ever. */
static void stuck(u32 cpu, const char *why, u64 value)
{
	typeof(shared) *sh = fuzz.shared;

	host_note(cpu, why, value);
	vcpu_reset(cpu);
	if (++fuzz.resets <= MAX_RESETS)
		return;
	while (sh->next[0] < sh->nr && sh->step[sh->next[0]].op != HOST_NEXT)
		sh->next[0]++;
	host_steps();
	if (sh->next[0] == sh->nr)
		fuzz.end = why;
}

/*
 * Was it not a check of L1's own that failed, but an exception that it has no use
 * for?  Then the library's handler says so.
 */
static bool l1_is_lost(const struct ucall *uc)
{
	return strstr((const char *)uc->args[GUEST_FILE],
		      "lib/x86_64/processor.c");
}

/* One run of a vCPU.  Returns whether it has something else for the host to do. */
static bool vcpu_go(u32 cpu)
{
	struct kvm_vcpu *vcpu = fuzz.vcpu[cpu];
	struct kvm_run *run = vcpu->run;
	struct ucall uc;

	if (__vcpu_run(vcpu)) {
		stuck(cpu, "errno", errno);
		return false;
	}
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.port == FUZZ_PORT) {
			fuzz.in_l2 = true;
			host_note(cpu, "host", 0);
			return true;
		}
		fuzz.in_l2 = false;
		if (get_ucall(vcpu, &uc) == UCALL_SYNC) {
			if (uc.args[1] == SYNC_END)
				fuzz.end = "end";
			return true;
		}
		if (uc.cmd == UCALL_ABORT && l1_is_lost(&uc)) {
			printf("# lost: %s\n", uc.buffer);
			stuck(cpu, "lost", 0);
			return false;
		}
		if (uc.cmd == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
		/* Not for L1's page of calls to the host: L2 wrote to its port. */
		stuck(cpu, "ucall", uc.cmd);
		return false;
	case KVM_EXIT_MMIO:
		host_note(cpu, run->mmio.is_write ? "store" : "load", run->mmio.phys_addr);
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		stuck(cpu, "internal", run->internal.suberror);
		return false;
	default:
		stuck(cpu, "exit", run->exit_reason);
		return false;
	}
}

static void run_in_turn(void)
{
	typeof(shared) *sh = fuzz.shared;
	unsigned int runs;
	u32 cpu = 0;

	for (runs = 0; !fuzz.end; runs++) {
		if (runs == MAX_RUNS) {
			fuzz.end = "runs";
			break;
		}
		cpu = fuzz.in_l2 ? cpu : sh->step[min(sh->next[0], sh->nr - 1)].vcpu;
		if (vcpu_go(cpu))
			host_steps();
	}
}

/* ---- All at once ---- */

static struct parallel {
	pthread_t thread;
	u32 cpu;
	bool done;
} parallel[MAX_L1_VCPUS];

static void *parallel_vcpu(void *arg)
{
	struct parallel *t = arg;
	struct kvm_vcpu *vcpu = fuzz.vcpu[t->cpu];
	unsigned int resets = 0, calls = 0, runs;

	for (runs = 0; runs < MAX_RUNS && resets <= MAX_RESETS; runs++) {
		if (__vcpu_run(vcpu) ||
		    (vcpu->run->exit_reason != KVM_EXIT_IO &&
		     vcpu->run->exit_reason != KVM_EXIT_MMIO)) {
			vcpu_reset(t->cpu);
			resets++;
		} else if (vcpu->run->exit_reason == KVM_EXIT_MMIO) {
			memset(vcpu->run->mmio.data, 0, sizeof(vcpu->run->mmio.data));
		} else if (vcpu->run->io.port != FUZZ_PORT) {
			/*
			 * L1 is done, or lost to what another vCPU's L2 wrote:
			 * then its call has no address to look at.
			 */
			if (READ_ONCE(fuzz.shared->next[t->cpu]) >= fuzz.shared->nr)
				break;
			vcpu_reset(t->cpu);
			resets++;
		} else if (++calls % 8 == 0) {
			vcpu_reset(t->cpu);
		} else if (calls % 2 == 0) {
			vcpu_restore_in_place(t->cpu);
		}
	}
	WRITE_ONCE(t->done, true);
	return NULL;
}

static void run_parallel(void)
{
	const struct fuzz_program *p = fuzz.program;
	bool done = false;
	unsigned int i, j;

	for (i = 0; i < p->nr_vcpus; i++) {
		parallel[i].cpu = i;
		pthread_create(&parallel[i].thread, NULL, parallel_vcpu, &parallel[i]);
	}
	while (!done) {
		for (i = 0; i < p->nr; i++) {
			/* What is about vCPUs is for their own threads. */
			if (p->step[i].op > HOST_RESET && p->step[i].op < HOST_NEXT)
				host_step(&p->step[i]);
		}
		for (i = 0; i < NR_SLOTS; i++) {
			if (!fuzz.slot[i].present)
				slot_tell(i, slot_size(i));
		}
		done = true;
		for (j = 0; j < p->nr_vcpus; j++)
			done &= READ_ONCE(parallel[j].done);
	}
	for (i = 0; i < p->nr_vcpus; i++)
		pthread_join(parallel[i].thread, NULL);
	fuzz.end = "end";
}

/* ---- Host ---- */

struct options {
	const struct fuzz_arch *arch;
	u32 seed;
	unsigned int count;
	unsigned int seconds;	/* for one program */
	u64 phys;
	const char *fail_nth;
	bool parallel;
	bool print;
	bool dump;
};

static void dump_notes(void)
{
	typeof(shared) *sh = fuzz.shared;
	u32 i, last = -1;

	for (i = 0; i < sh->nr_notes; i++) {
		struct fuzz_note *n = &sh->note[i];

		if (n->step != last && n->step < sh->nr) {
			printf("%u: ", n->step);
			print_step(fuzz.arch, &sh->step[n->step]);
		}
		last = n->step;
		printf("\t%u %s %#lx\n", n->vcpu, n->name, n->value);
	}
}

/* Counts from here on, in this thread. */
static void fail_nth(const char *nth)
{
	int fd = open("/proc/thread-self/fail-nth", O_WRONLY);

	TEST_ASSERT(fd >= 0 && write(fd, nth, strlen(nth)) == strlen(nth),
		    "No fault injection: %s", nth);
	close(fd);
}

/* The child's part: one VM, and what it did in one line. */
static void run_program(const struct options *opt, const char *name,
			const struct fuzz_program *p)
{
	bool unmanaged = opt->phys && p->nr % 2;
	u64 hash = FUZZ_HASH_INIT, exits = 0;
	typeof(shared) *sh;
	u32 i;

	if (opt->fail_nth)
		fail_nth(opt->fail_nth);
	fuzz_vm_init(opt->arch, opt->arch - fuzz_archs, p, l1_main,
		     unmanaged ? opt->phys : 0, opt->parallel);
	sh = fuzz.shared;
	fuzz.dump = opt->dump;
	if (opt->parallel) {
		run_parallel();
	} else {
		run_in_turn();
		host_note(0, "memory", fuzz_vm_hash());
	}

	for (i = 0; i < sh->nr_notes; i++) {
		u64 words[3] = { sh->note[i].step, sh->note[i].vcpu, sh->note[i].value };

		hash = fuzz_hash(hash, words, sizeof(words));
		exits += !strcmp(sh->note[i].name, "exit");
	}
	if (opt->dump)
		dump_notes();
	printf("program %s %016lx steps %u notes %u exits %lu lost %lu: %s\n", name,
	       opt->parallel ? 0 : hash, opt->parallel ? p->nr : sh->next[0],
	       sh->nr_notes, exits, fuzz.lost, fuzz.end);
	kvm_vm_free(fuzz.vm);
}

static void no_op(int sig)
{
}

/*
 * A program that does not end, or that ends in a way the library has no mercy
 * on, is not the end of all.  Returns false if its process died.
 */
static bool run_apart(const struct options *opt, const char *name,
		      const struct fuzz_program *p)
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid) {
		run_program(opt, name, p);
		fflush(stdout);
		_exit(0);
	}
	alarm(opt->seconds);
	if (waitpid(pid, &status, 0) != pid) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		printf("program %s hangs\n", name);
		return true;
	}
	alarm(0);
	if (!status)
		return true;
	printf("program %s died: %#x\n", name, status);
	return false;
}

static void help(const char *name)
{
	printf("usage: %s [--seed N] [--count N] [--seconds N] [--phys ADDRESS]\n"
	       "\t[--fail-nth N] [--parallel] [--print] [--dump] [FILE...]\n", name);
}

int main(int argc, char *argv[])
{
	enum { SEED, COUNT, SECONDS, PHYS, FAIL_NTH, PARALLEL, PRINT, DUMP, HELP };
	static const struct option longs[] = {
		{ "seed",	required_argument, NULL, SEED },
		{ "count",	required_argument, NULL, COUNT },
		{ "seconds",	required_argument, NULL, SECONDS },
		{ "phys",	required_argument, NULL, PHYS },
		{ "fail-nth",	required_argument, NULL, FAIL_NTH },
		{ "parallel",	no_argument, NULL, PARALLEL },
		{ "print",	no_argument, NULL, PRINT },
		{ "dump",	no_argument, NULL, DUMP },
		{ "help",	no_argument, NULL, HELP },
		{ }
	};
	struct sigaction alarmed = { .sa_handler = no_op };
	struct options opt = { .seed = 1, .seconds = 15 };
	unsigned int programs = 0, ratio, i, n;
	struct fuzz_program p;
	u64 before = rdtsc();
	bool ok = true;
	char name[32];
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case SEED:
			opt.seed = strtoul(optarg, NULL, 0);
			break;
		case COUNT:
			opt.count = strtoul(optarg, NULL, 0);
			break;
		case SECONDS:
			opt.seconds = strtoul(optarg, NULL, 0);
			break;
		case PHYS:
			opt.phys = strtoull(optarg, NULL, 0);
			break;
		case FAIL_NTH:
			opt.fail_nth = optarg;
			break;
		case PARALLEL:
			opt.parallel = true;
			break;
		case PRINT:
			opt.print = true;
			break;
		case DUMP:
			opt.dump = true;
			/* The console is slow. */
			opt.seconds = 600;
			break;
		default:
			help(argv[0]);
			return c != HELP;
		}
	}
	for (i = 0; i < ARRAY_SIZE(fuzz_archs) && !opt.arch; i++) {
		if (fuzz_archs[i].supported())
			opt.arch = &fuzz_archs[i];
	}
	TEST_REQUIRE(opt.arch);
	if (!opt.count && optind == argc)
		opt.count = 1;

	setvbuf(stdout, NULL, _IOFBF, BUFSIZ);
	sigaction(SIGALRM, &alarmed, NULL);
	ratio = nested_context_get_ratio();
	for (; optind < argc; optind++, programs++) {
		read_program(opt.arch, argv[optind], &p);
		ok &= run_apart(&opt, argv[optind], &p);
	}
	for (i = 0; i < opt.count; i += n, programs += n) {
		n = min(PROGRAMS_PER_VM + 0u, opt.count - i);
		generate_vm(opt.arch, opt.seed + i, n, &p);
		if (opt.print)
			print_program(opt.arch, &p);
		snprintf(name, sizeof(name), "%u", opt.seed + i);
		ok &= run_apart(&opt, name, &p);
	}
	nested_context_set_ratio(ratio);
	printf("total programs %u tsc %lu\n", programs, rdtsc() - before);
	return !ok;
}
