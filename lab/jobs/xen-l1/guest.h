/* SPDX-License-Identifier: GPL-2.0 */
/* What start.S and guest.c know of each other. */
#ifndef XEN_L1_GUEST_H
#define XEN_L1_GUEST_H

#define MAX_CPUS 8
#define STACK_SIZE 0x4000 /* its alignment, too */
#define TRAMPOLINE 0x8000
#define CODE 8
#define DATA 16

#ifndef __ASSEMBLER__
#include <stdint.h>

/* What Xen tells the guest. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, command_line;
};

extern char stacks[], hypercalls[], trampoline[], trampoline_end[];
extern uint32_t nr_started;
void step_entry(void);
void ack_entry(void);
void exception_entry(void);

void first_cpu(const struct start_info *info);
void other_cpu(uint32_t number);
void step_interrupt(void);
void ack_interrupt(void);
void exception(const uint32_t *frame);
#endif

#endif
