# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # lab/boot sets what is read here
# AMD by QEMU's software emulation, a thread for each CPU. An emulator's file gives
# lab/boot:
#   emulator_check    dies if these options cannot be had
#   emulator_run      runs in the foreground until the guest powers off
# with the first serial port written to $console and the second to $results.

emulator_check()
{
	# Instructions are counted by one thread, where two CPUs starve each other.
	[ -z "$icount" ] || [ "$cpus" = 1 ] ||
		die "--icount wants --cpus 1; nothing was booted"
	# Memory is in one piece only below QEMU's hole for PCI.
	[ -z "$unmanaged" ] || [ "$machine_mem" -le 3072 ] ||
		die "--unmanaged wants at most $((3072 - unmanaged)) MB; nothing was booted"
}

emulator_run()
{
	local accel=tcg,thread=multi count=()

	# One instruction a nanosecond: the guest's TSC counts instructions.
	[ -z "$icount" ] || accel=tcg,thread=single count=(-icount shift=0)
	# In a chardev's path a comma is written twice.
	# shellcheck disable=SC2086 # LAB_QEMU_ARGS: what a person debugging adds
	exec "$OUT/emulator/qemu/run" -nodefaults -no-user-config -no-reboot \
		-display none \
		-accel "$accel" "${count[@]}" -cpu "$model,+svm,+npt" \
		-smp "$cpus" -m "$machine_mem" \
		-kernel "$VMLINUZ" -initrd "$initrd" -append "$cmdline" \
		-chardev "file,id=console,path=${console//,/,,}" -serial chardev:console \
		-chardev "file,id=results,path=${results//,/,,}" -serial chardev:results \
		${LAB_QEMU_ARGS:-}
}
