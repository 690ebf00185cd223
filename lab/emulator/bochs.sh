# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # lab/boot sets what is read here
# Intel and AMD by Bochs with our patches, out/emulator/bochs; the two functions are
# told in qemu.sh. Its time is instructions, with --icount or without, and a rep
# string instruction counts as 1 + bytes/32 of them.
#
# Reading a disk costs the emulated machine more than booting does. So Bochs puts
# Linux into memory itself, as an optional RAM image, and bochs-start.S gives each
# part its place: the real-mode part with the command line, the kernel at 1 MB, the
# initramfs at 96 MB. Those two lie in the image as they do in memory, from its 18th
# block of 128 KB on; the first 16 may get into memory that the BIOS uses.

BOCHS=$OUT/emulator/bochs
emulator_check()
{
	command -v ld >/dev/null ||
		die "there is no ld; nothing was booted; run lab/setup"
	[ "$mem" -ge 512 ] || die "Bochs wants --mem 512 at least; nothing was booted"
	[ "$machine_mem" -le 3072 ] ||
		die "Bochs wants at most 3072 MB, --unmanaged counted; nothing was booted"
}

# put32 FILE OFFSET VALUE
put32()
{
	local byte hex=''

	for byte in 0 8 16 24; do
		hex+=$(printf '\\x%02x' $(($3 >> byte & 255)))
	done
	# shellcheck disable=SC2059 # the escapes are the point
	printf "$hex" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# Makes the image, the floppy and the configuration in $1.
bochs_prepare()
{
	local dir=$1 sectors ips=50000000

	sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$VMLINUZ")
	dd if="$VMLINUZ" of="$dir/low" bs=512 count=$((sectors + 1)) status=none
	# What bochs-start.S looks for; without an EFI stub a kernel lacks it.
	printf MZ | dd of="$dir/low" bs=1 conv=notrunc status=none
	printf '\xff\x81' | dd of="$dir/low" bs=1 seek=$((0x210)) conv=notrunc status=none
	put32 "$dir/low" $((0x218)) $((96 << 20))
	put32 "$dir/low" $((0x21c)) "$(stat -c %s "$initrd")"
	put32 "$dir/low" $((0x224)) $((0xde00))
	put32 "$dir/low" $((0x228)) $((0x9e000))
	truncate -s $((0xe000)) "$dir/low"
	# It says it had 3.5 GHz, and at that a second of sleep would take the emulator
	# a minute. The kernel's tests of its cryptography double the boot.
	printf '%s tsc=reliable tsc_early_khz=%s no_timer_check cryptomgr.notests\0' \
		"$cmdline" $((ips / 1000)) >>"$dir/low"

	dd if="$dir/low" of="$dir/image" bs=128K seek=16 status=none
	tail -c +$(((sectors + 1) * 512 + 1)) "$VMLINUZ" |
		dd of="$dir/image" bs=128K seek=17 iflag=fullblock conv=notrunc status=none
	dd if="$initrd" of="$dir/image" bs=128K seek=$((17 + 95 * 8)) conv=notrunc status=none

	gcc -m32 -c -o "$dir/start.o" "$LAB/emulator/bochs-start.S"
	ld -m elf_i386 -Ttext 0x7c00 -e 0x7c00 --oformat binary -o "$dir/floppy" "$dir/start.o"
	truncate -s 1440K "$dir/floppy"

	ln -s "$BOCHS/BIOS-bochs-latest" "$dir/bios"
	ln -s "$BOCHS/vgabios.bin" "$dir/vgabios"
	# Its names are relative: it takes neither blanks nor "$" in them as they are.
	cat >"$dir/rc" <<-END
		display_library: nogui
		cpu: model=$model, count=$cpus, ips=$ips, reset_on_triple_fault=1
		clock: sync=none
		memory: guest=$machine_mem, host=$machine_mem
		romimage: file=bios
		vgaromimage: file=vgabios
		optramimage1: file=image, address=0
		floppya: 1_44=floppy, status=inserted
		boot: floppy
		com1: enabled=1, mode=file, dev=../${console##*/}
		com2: enabled=1, mode=file, dev=../${results##*/}
		log: log
		panic: action=fatal
		error: action=report
		info: action=ignore
		debug: action=ignore
		${LAB_BOCHS_CONFIG:-}
	END
}

export -f put32 bochs_prepare
export LAB BOCHS model

emulator_run()
{
	set -e
	local dir=${console%/*}/bochs

	rm -rf "$dir"
	mkdir "$dir"
	bochs_prepare "$dir"
	cd "$dir"
	"$BOCHS/bochs" -q -f rc >out 2>&1 </dev/null || :
	cat out log
	# To be switched off, and to be reset, is a panic to Bochs.
	grep -q -e 'ACPI control: soft power off' -e 'Shutdown port: shutdown requested' log
	cd ..
	rm -rf "$dir"
}
