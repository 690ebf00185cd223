/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The first sector of the floppy that Bochs boots from. Linux is in the memory
 * of Bochs by then, see bochs.sh; it is given its place in the machine's memory
 * here and entered as its boot protocol says.
 *
 * Bochs takes memory for the guest in blocks of 128 KB, in the order in which
 * the guest first looks at them, and the BIOS took some. So look at free blocks
 * until one has what the image starts with, and then at those that the kernel
 * and the initramfs belong into, in order.
 */
#define BLOCK		0x20000
#define FREE		0x1f000000	/* bochs.sh sees to 512 MB */
#define BLOCKS_FREE	16
#define KERNEL		0x100000

	.code16
	.globl	_start
_start:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	inb	$0x92, %al		/* the A20 line */
	orb	$2, %al
	outb	%al, $0x92

	/* Segments keep the limit that they are given here. */
	lgdtl	gdt_pointer
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	movw	$8, %bx
	movw	%bx, %ds
	movw	%bx, %es
	andb	$0xfe, %al
	movl	%eax, %cr0
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es

	movl	$FREE, %esi
find:	cmpw	$0x5a4d, (%esi)		/* "MZ" */
	je	found
	addl	$BLOCK, %esi
	cmpl	$FREE + BLOCKS_FREE * BLOCK, %esi
	jbe	find

	/*
	 * Bochs reads the image once. After a reset, which is how a panic ends,
	 * this is where it comes out. A port of Bochs' own: it wants a word.
	 */
	movw	$0x8900, %dx
	movw	$word, %si
	movw	$8, %cx
	rep outsb
stop:	hlt
	jmp	stop
word:	.ascii	"Shutdown"

found:	movl	$KERNEL, %edi
look:	movb	(%edi), %al
	addl	$BLOCK, %edi
	cmpl	$FREE, %edi
	jb	look

	pushl	%esi
	movl	$0x90000, %edi
	movl	$0xf000 / 4, %ecx
	addr32 rep movsl
	popl	%esi
	movw	$0, (%esi)

	movw	$0x9000, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movw	$0xe000, %sp
	ljmp	$0x9020, $0

	.balign	8
gdt:	.quad	0, 0x00cf92000000ffff
gdt_pointer:
	.word	15
	.long	gdt

	.org	510
	.word	0xaa55
