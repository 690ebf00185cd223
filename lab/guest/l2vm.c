// SPDX-License-Identifier: GPL-2.0
/*
 * The hypervisor's part of the real L1: makes many L2 VMs over /dev/kvm, runs
 * them all at once and checks every value each of them computes.
 *
 * Each VM is a process of its own, as under a usual hypervisor, and L1's
 * scheduler spreads them over its CPUs. A guest walks through its own page of
 * words with its own seed, mixing registers and memory, and puts the result out
 * at every step. Its process computes the same beside it: a register or a word
 * of memory that came from another L2, or an old one, shows at once. After each
 * exit the process lets another run, as one that serves I/O would; so nearly
 * every entry is a switch between L2s.
 *
 * usage: l2vm [-n VMS] [-e EXITS]
 * Prints "l2vm l2=VMS exits=TOTAL tsc=TICKS" and exits 0 if all values were right.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define GUEST_SIZE 0x10000u /* one real-mode segment */
#define CODE_AT 0x1000u
#define WORDS_AT 0x4000u
#define NR_WORDS 1024u
#define PORT 0x10u
#define MULTIPLIER 1664525u
#define INCREMENT 1013904223u

/*
 * ebx: state, esi: where in the words, edi: running sum. Each step:
 *	state = state * MULTIPLIER + INCREMENT
 *	word[i] += state; sum = (sum + word[i]) rotated left by one
 *	out sum; i = (i + 1) % NR_WORDS
 */
/* clang-format off */
static const uint8_t guest_code[] = {
	0x66, 0x69, 0xdb, 0x0d, 0x66, 0x19, 0x00,	/* imul ebx,ebx,1664525 */
	0x66, 0x81, 0xc3, 0x5f, 0xf3, 0x6e, 0x3c,	/* add ebx,1013904223 */
	0x66, 0x01, 0x9c, 0x00, 0x40,			/* add [si+0x4000],ebx */
	0x66, 0x03, 0xbc, 0x00, 0x40,			/* add edi,[si+0x4000] */
	0x66, 0xd1, 0xc7,				/* rol edi,1 */
	0x66, 0x89, 0xf8,				/* mov eax,edi */
	0x66, 0xe7, PORT,				/* out PORT,eax */
	0x83, 0xc6, 0x04,				/* add si,4 */
	0x81, 0xe6, 0xff, 0x0f,				/* and si,0xfff */
	0xeb, 0xd6,					/* jmp to the start */
};
/* clang-format on */

struct l2 {
	int vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
};

/* What the guest must compute, kept beside it. */
struct expected {
	uint32_t state, sum, at;
	uint32_t words[NR_WORDS];
};

static void die(const char *what)
{
	fprintf(stderr, "l2vm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int checked_ioctl(int fd, unsigned long request, void *arg,
			 const char *name)
{
	int ret = ioctl(fd, request, arg);

	if (ret < 0)
		die(name);
	return ret;
}

static void create(struct l2 *l2, uint32_t seed)
{
	struct kvm_userspace_memory_region region = { .memory_size =
							      GUEST_SIZE };
	struct kvm_sregs sregs;
	struct kvm_regs regs = {
		.rip = CODE_AT,
		.rflags = 2,
		.rbx = seed,
		.rdi = ~seed,
	};
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int size;

	if (kvm < 0)
		die("/dev/kvm");
	l2->vm = checked_ioctl(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	l2->memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l2->memory == MAP_FAILED)
		die("guest memory");
	memcpy(l2->memory + CODE_AT, guest_code, sizeof(guest_code));
	region.userspace_addr = (uintptr_t)l2->memory;
	checked_ioctl(l2->vm, KVM_SET_USER_MEMORY_REGION, &region,
		      "KVM_SET_USER_MEMORY_REGION");

	l2->vcpu =
		checked_ioctl(l2->vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	size = checked_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL,
			     "KVM_GET_VCPU_MMAP_SIZE");
	l2->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
		       l2->vcpu, 0);
	if (l2->run == MAP_FAILED)
		die("kvm_run");
	checked_ioctl(l2->vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	checked_ioctl(l2->vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	checked_ioctl(l2->vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	close(kvm);
}

static uint32_t step(struct expected *e)
{
	e->state = e->state * MULTIPLIER + INCREMENT;
	e->words[e->at] += e->state;
	e->sum += e->words[e->at];
	e->sum = e->sum << 1 | e->sum >> 31;
	e->at = (e->at + 1) % NR_WORDS;
	return e->sum;
}

static bool run_l2(unsigned int number, unsigned long exits)
{
	uint32_t seed = (number + 1) * 0x9e3779b9u;
	static struct expected expected;
	struct l2 l2;
	unsigned long i;

	create(&l2, seed);
	expected.state = seed;
	expected.sum = ~seed;
	for (i = 0; i < exits; i++) {
		uint32_t want, have;

		if (ioctl(l2.vcpu, KVM_RUN, NULL) < 0) {
			if (errno == EINTR) {
				i--;
				continue;
			}
			die("KVM_RUN");
		}
		if (l2.run->exit_reason != KVM_EXIT_IO ||
		    l2.run->io.port != PORT) {
			fprintf(stderr,
				"l2vm: L2 %u: exit reason %u after %lu exits\n",
				number, l2.run->exit_reason, i);
			return false;
		}
		memcpy(&have, (uint8_t *)l2.run + l2.run->io.data_offset,
		       sizeof(have));
		want = step(&expected);
		if (have != want) {
			fprintf(stderr,
				"l2vm: L2 %u: exit %lu: %#" PRIx32
				", not %#" PRIx32 "\n",
				number, i, have, want);
			return false;
		}
		sched_yield();
	}
	if (memcmp(l2.memory + WORDS_AT, expected.words,
		   sizeof(expected.words))) {
		fprintf(stderr, "l2vm: L2 %u: memory differs at the end\n",
			number);
		return false;
	}
	return true;
}

static unsigned long number_arg(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || !n || n > 10000000) {
		fprintf(stderr, "l2vm: %s is no number from 1\n", text);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned long vms = 16, exits = 1000, i, failed = 0;
	int go[2], option, status;
	uint64_t start, ticks;
	char byte;

	while ((option = getopt(argc, argv, "n:e:")) != -1) {
		if (option == 'n') {
			vms = number_arg(optarg);
		} else if (option == 'e') {
			exits = number_arg(optarg);
		} else {
			fprintf(stderr, "usage: l2vm [-n VMS] [-e EXITS]\n");
			return 2;
		}
	}

	/* All start together, when the last of them holds the pipe open. */
	if (pipe(go))
		die("pipe");
	for (i = 0; i < vms; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid) {
			close(go[1]);
			if (read(go[0], &byte, 1) < 0)
				die("pipe");
			_exit(!run_l2((unsigned int)i, exits));
		}
	}
	start = __rdtsc();
	close(go[1]);
	for (i = 0; i < vms; i++) {
		if (wait(&status) < 0)
			die("wait");
		failed += !WIFEXITED(status) || WEXITSTATUS(status);
	}
	ticks = __rdtsc() - start;
	printf("l2vm l2=%lu exits=%lu tsc=%" PRIu64 "\n", vms, vms * exits,
	       ticks);
	if (failed)
		fprintf(stderr, "l2vm: %lu of %lu L2s went wrong\n", failed,
			vms);
	return !!failed;
}
