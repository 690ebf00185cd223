// SPDX-License-Identifier: GPL-2.0
/*
 * A guest of Xen, in 32-bit mode without paging: its vCPUs stand in a ring. At each
 * step each computes a while, puts the outcome where the next can read it, and sends
 * that one an interrupt; it is answered by another. Then it waits until it has had
 * both: halted, yielding, or spinning and then yielding. An interrupt that is lost
 * leaves the guest waiting for good; one that comes twice, or a value that is not
 * that of this step, it sees at once. In the end all must come to what its command
 * line says.
 *
 * Its command line: "seed=S vcpus=N steps=N want=N x2apic=0|1". It says on Xen's
 * console that all is right and switches off, or what is wrong and crashes.
 */
#include "chain.h"
#include "guest.h"

#define STEP_VECTOR 0x40
#define ACK_VECTOR 0x41
#define NR_VECTORS 0x42

#define MSR_APIC_BASE 0x1b
#define APIC_BASE_X2 0xc00u
#define APIC_MEMORY 0xfee00000u
#define APIC_ID 0x20u
#define APIC_EOI 0xb0u
#define APIC_SPURIOUS 0xf0u
#define APIC_ENABLE 0x1ffu
#define APIC_COMMAND 0x300u
#define APIC_COMMAND_HIGH 0x310u
#define ALL_OTHERS_INIT 0xc4500u
#define ALL_OTHERS_START (0xc4600u | TRAMPOLINE >> 12)

#define DEBUG_PORT 0xe9 /* Xen prints what is put out there */
#define HYPERCALL_SCHEDULE 29u
#define SCHEDULE_YIELD 0u
#define SCHEDULE_SHUTDOWN 2u
#define SHUTDOWN_POWEROFF 0u
#define SHUTDOWN_CRASH 3u

struct cpu {
	struct chain chain;
	uint32_t apic_id;
	uint32_t sent, sent_step; /* for the next one to read */
	uint32_t got, answered;
};

struct gate {
	uint16_t offset_low, selector, type, offset_high;
};

static struct cpu cpus[MAX_CPUS];
static struct gate gates[NR_VECTORS];
static uint32_t seed, nr_cpus, nr_steps, want, x2apic, nr_ready, nr_done;

/* Memory that another vCPU writes. */
static uint32_t read_once(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void out(char byte)
{
	asm volatile("outb %0, %1" ::"a"(byte), "Nd"((uint16_t)DEBUG_PORT));
}

static uint64_t read_msr(uint32_t msr)
{
	uint64_t value;

	asm volatile("rdmsr" : "=A"(value) : "c"(msr));
	return value;
}

static void write_msr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" ::"c"(msr), "A"(value) : "memory");
}

static void cpuid(uint32_t leaf, uint32_t *a, uint32_t *b)
{
	uint32_t c = 0, d;

	*a = leaf;
	asm volatile("cpuid" : "+a"(*a), "=b"(*b), "+c"(c), "=d"(d));
}

static void schedule(uint32_t what, const uint32_t *argument)
{
	uint32_t one = what, two = (uint32_t)argument;
	char *call = hypercalls + HYPERCALL_SCHEDULE * 32;

	/* The call's result comes in place of its address. */
	asm volatile("call *%[call]"
		     : "+b"(one), "+c"(two), [call] "+a"(call)
		     :
		     : "memory", "cc");
}

static void say(const char *text)
{
	while (*text)
		out(*text++);
}

static void say_number(const char *what, uint32_t number)
{
	int shift;

	say(what);
	for (shift = 28; shift >= 0; shift -= 4)
		out("0123456789abcdef"[number >> shift & 15]);
}

static _Noreturn void end(uint32_t reason)
{
	for (;;)
		schedule(SCHEDULE_SHUTDOWN, &reason);
}

static _Noreturn void fail(const char *what, uint32_t have, uint32_t expected)
{
	say_number("guest: seed 0x", seed);
	say(": ");
	say(what);
	say_number(" 0x", have);
	say_number(", not 0x", expected);
	say("\n");
	end(SHUTDOWN_CRASH);
}

static uint32_t this_cpu(void)
{
	uint32_t stack = (uint32_t)__builtin_frame_address(0);

	return (stack - (uint32_t)stacks) / STACK_SIZE;
}

static uint32_t apic_read(uint32_t reg)
{
	uint32_t value;

	if (x2apic)
		return (uint32_t)read_msr(0x800 + (reg >> 4));
	asm volatile("movl (%1), %0" : "=r"(value) : "r"(APIC_MEMORY + reg));
	return value;
}

static void apic_write(uint32_t reg, uint32_t value)
{
	if (x2apic)
		write_msr(0x800 + (reg >> 4), value);
	else
		asm volatile("movl %0, (%1)" ::"r"(value),
			     "r"(APIC_MEMORY + reg)
			     : "memory");
}

/* Called with interrupts off: without x2APIC, a command is written in two parts. */
static void apic_command(uint32_t to, uint32_t command)
{
	if (x2apic) {
		write_msr(0x800 + (APIC_COMMAND >> 4),
			  (uint64_t)to << 32 | command);
		return;
	}
	apic_write(APIC_COMMAND_HIGH, to << 24);
	apic_write(APIC_COMMAND, command);
}

void step_interrupt(void)
{
	struct cpu *me = &cpus[this_cpu()];
	const struct cpu *from = &cpus[(this_cpu() + nr_cpus - 1) % nr_cpus];

	if (read_once(&from->sent_step) != me->got + 1)
		fail("a step came with number", read_once(&from->sent_step),
		     me->got + 1);
	me->chain.received =
		chain_fold(me->chain.received, read_once(&from->sent));
	me->got++;
	apic_write(APIC_EOI, 0);
	apic_command(from->apic_id, ACK_VECTOR);
}

void ack_interrupt(void)
{
	struct cpu *me = &cpus[this_cpu()];

	if (me->answered + 1 != me->sent_step)
		fail("an answer came after", me->answered, me->sent_step - 1);
	me->answered++;
	apic_write(APIC_EOI, 0);
}

void exception(const uint32_t *frame)
{
	fail("it met a fault, on the stack", frame[0], frame[1]);
}

static void set_gate(uint32_t vector, void (*entry)(void))
{
	gates[vector].offset_low = (uint16_t)(uint32_t)entry;
	gates[vector].offset_high = (uint16_t)((uint32_t)entry >> 16);
	gates[vector].selector = CODE;
	gates[vector].type = 0x8e00; /* present, 32-bit, interrupts off */
}

static void start_apic(struct cpu *me)
{
	uint32_t at = (uint32_t)gates;
	uint16_t idt[3] = { sizeof(gates) - 1, (uint16_t)at, at >> 16 };

	asm volatile("lidt %0" ::"m"(idt));
	if (x2apic)
		write_msr(MSR_APIC_BASE,
			  read_msr(MSR_APIC_BASE) | APIC_BASE_X2);
	apic_write(APIC_SPURIOUS, APIC_ENABLE);
	me->apic_id = apic_read(APIC_ID);
	if (!x2apic)
		me->apic_id >>= 24;
}

static int waiting(const struct cpu *me, uint32_t step)
{
	return read_once(&me->got) < step || read_once(&me->answered) < step;
}

static void wait_step(const struct cpu *me, uint32_t step)
{
	uint32_t spins;

	switch (step % 3) {
	case 0: /* what comes after the look wakes the vCPU up again */
		for (;;) {
			asm volatile("cli");
			if (!waiting(me, step))
				break;
			asm volatile("sti\n\thlt");
		}
		asm volatile("sti");
		break;
	case 1:
		while (waiting(me, step))
			schedule(SCHEDULE_YIELD, 0);
		break;
	case 2:
		for (spins = 1; waiting(me, step); spins++) {
			asm volatile("pause");
			if (!(spins % 1000))
				schedule(SCHEDULE_YIELD, 0);
		}
		break;
	}
}

static void run(uint32_t number)
{
	struct cpu *me = &cpus[number];
	uint32_t step;

	start_apic(me);
	chain_start(&me->chain, seed, number);
	__atomic_add_fetch(&nr_ready, 1, __ATOMIC_SEQ_CST);
	while (read_once(&nr_ready) < nr_cpus)
		schedule(SCHEDULE_YIELD, 0);
	asm volatile("sti");
	for (step = 1; step <= nr_steps; step++) {
		me->sent = chain_step(&me->chain);
		asm volatile("cli" ::: "memory");
		me->sent_step = step;
		apic_command(cpus[(number + 1) % nr_cpus].apic_id, STEP_VECTOR);
		asm volatile("sti");
		wait_step(me, step);
	}
	__atomic_add_fetch(&nr_done, 1, __ATOMIC_SEQ_CST);
}

void other_cpu(uint32_t number)
{
	if (number >= nr_cpus)
		fail("a vCPU has number", number, nr_cpus - 1);
	run(number);
	for (;;)
		asm volatile("cli\n\thlt");
}

static uint32_t parse(const char *words, const char *name)
{
	uint32_t value = 0, digit, i, base = 10;

	for (; *words; words++) {
		for (i = 0; name[i] && words[i] == name[i]; i++)
			;
		if (name[i])
			continue;
		words += i;
		if (words[0] == '0' && words[1] == 'x') {
			base = 16;
			words += 2;
		}
		for (; *words && *words != ' '; words++) {
			digit = (uint32_t)*words - '0';
			if (digit > 9)
				digit = (uint32_t)*words - 'a' + 10;
			value = value * base + digit;
		}
		return value;
	}
	fail(name, 0, 1);
}

static void start_hypercalls(void)
{
	uint32_t leaf, pages, msr;

	/* Xen's leaves begin at one of these, with its name. */
	for (leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
		cpuid(leaf, &pages, &msr);
		if (msr == 0x566e6558) /* "XenV" */
			break;
	}
	cpuid(leaf + 2, &pages, &msr);
	write_msr(msr, (uint32_t)hypercalls);
}

void first_cpu(const struct start_info *info)
{
	const char *words = (const char *)(uint32_t)info->command_line;
	uint32_t vector, i, result = 0;
	uint32_t from = (uint32_t)trampoline, to = TRAMPOLINE;
	uint32_t size = (uint32_t)(trampoline_end - trampoline);

	start_hypercalls();
	seed = parse(words, "seed=");
	nr_cpus = parse(words, "vcpus=");
	nr_steps = parse(words, "steps=");
	want = parse(words, "want=");
	x2apic = parse(words, "x2apic=");
	if (nr_cpus > MAX_CPUS)
		fail("vCPUs", nr_cpus, MAX_CPUS);
	for (vector = 0; vector < NR_VECTORS; vector++)
		set_gate(vector, exception_entry);
	set_gate(STEP_VECTOR, step_entry);
	set_gate(ACK_VECTOR, ack_entry);

	start_apic(&cpus[0]);
	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(size)::"memory");
	apic_command(0, ALL_OTHERS_INIT);
	apic_command(0, ALL_OTHERS_START);
	run(0);
	while (read_once(&nr_done) < nr_cpus)
		schedule(SCHEDULE_YIELD, 0);

	for (i = 0; i < nr_cpus; i++)
		result = chain_result(&cpus[i].chain, result);
	if (result != want)
		fail("it comes to", result, want);
	say_number("guest: seed 0x", seed);
	say(" is right\n");
	end(SHUTDOWN_POWEROFF);
}
