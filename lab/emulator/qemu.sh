# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # lab/boot sets what is read here
# AMD by QEMU's software emulation. An emulator's file gives lab/boot:
#   emulator_check    dies if this machine or these options cannot be had
#   emulator_run      runs in the foreground until the guest powers off
# with the first serial port written to $console and the second to $results.

emulator_check()
{
	command -v qemu-system-x86_64 >/dev/null ||
		die "there is no qemu-system-x86_64; nothing was booted; run lab/setup"
	[ "$arch" = svm ] ||
		die "QEMU's emulation has no VMX; nothing was booted; use another --emulator"
	# Counting instructions with two CPUs starves one of them.
	[ -z "$icount" ] || [ "$cpus" = 1 ] ||
		die "--icount wants --cpus 1; nothing was booted"
	# Memory is in one piece only below QEMU's hole for PCI.
	[ -z "$unmanaged" ] || [ "$machine_mem" -le 3072 ] ||
		die "--unmanaged wants at most $((3072 - unmanaged)) MB; nothing was booted"
}

emulator_run()
{
	local count=()

	# One instruction a nanosecond: the guest's TSC counts instructions.
	[ -z "$icount" ] || count=(-icount shift=0)
	# One thread for all CPUs: with a thread each, QEMU 7.2 loses track of code
	# that the guest kernel patches (int3 oopses on the stock kernel).
	# shellcheck disable=SC2086 # LAB_QEMU_ARGS: what a person debugging adds
	exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot \
		-display none \
		-accel tcg,thread=single "${count[@]}" -cpu EPYC,+svm,+npt \
		-smp "$cpus" -m "$machine_mem" \
		-kernel "$VMLINUZ" -initrd "$initrd" -append "$cmdline" \
		-serial "file:$console" -serial "file:$results" \
		${LAB_QEMU_ARGS:-}
}
