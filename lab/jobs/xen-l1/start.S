/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the vCPUs of Xen's guest begin, and where interrupts come in. Xen enters the
 * first one here by the note, in 32-bit mode without paging, with %ebx pointing to
 * what it tells the guest. That one starts the others by INIT and SIPI.
 */
#include "guest.h"

	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* sizes of name and value; 32-bit entry */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	cli
	lgdt gdt_pointer
	ljmp $CODE, $1f
1:	mov $(stacks + STACK_SIZE), %esp	/* Xen gives it none */
	call load_segments
	push %ebx
	call first_cpu

load_segments:
	mov $DATA, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	ret

/* Copied to TRAMPOLINE, where another vCPU finds itself in real mode. */
	.code16
	.globl trampoline, trampoline_end
trampoline:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl TRAMPOLINE + trampoline_gdt - trampoline
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $CODE, $other
trampoline_gdt:
	.word gdt_end - gdt - 1
	.long gdt
trampoline_end:

	.code32
other:
	mov $DATA, %ax
	mov %ax, %ss
	/* They start all at once, and each takes a number, from 1. */
	mov $1, %eax
	lock xadd %eax, %ss:nr_started
	mov %eax, %ebx
	inc %eax
	imul $STACK_SIZE, %eax
	lea stacks(%eax), %esp
	call load_segments
	push %ebx
	call other_cpu

	.globl step_entry, ack_entry, exception_entry
step_entry:
	pushal
	call step_interrupt
	popal
	iret
ack_entry:
	pushal
	call ack_interrupt
	popal
	iret
exception_entry:
	push %esp
	call exception

	.data
	.align 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff	/* CODE */
	.quad 0x00cf93000000ffff	/* DATA */
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt

	.globl nr_started
nr_started:
	.long 1

	.bss
	.align STACK_SIZE
	.globl stacks
stacks:
	.skip STACK_SIZE * MAX_CPUS

	.align 4096
	.globl hypercalls		/* for Xen to fill in */
hypercalls:
	.skip 4096

	.section .note.GNU-stack, "", @progbits
