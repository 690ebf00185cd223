# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# shellcheck disable=SC2034 # those who source this use the names
# What jobs share that boot a hypervisor as L1, on L0's side: starting it in QEMU,
# waiting for what it says, its monitor, and what KVM counts for its VM. Sourced by a
# job's "run"; lab/l1 puts it and QEMU into the job.
#
# L1's first serial port is its console, passed on line by line. Its second one
# brings results, and takes what l1_tell says.

l1_patience=300
l1_console=/tmp/l1.console l1_results=/tmp/l1.results l1_pid=''
l1_cases=0 l1_bad=0 l1_progress='' l1_silent=0

l1_failed()
{
	echo "LAB-ERROR: $1"
	sed 's/^/# L1 said: /' $l1_results
	sed 's/^/# QEMU said: /' /tmp/l1.errors /tmp/l1.said
	echo
	[ -z "$l1_pid" ] || kill -9 "$l1_pid"
	exit 1
}

# l1_start QEMU-OPTION...: a new L1
l1_start()
{
	rm -f /tmp/l1.*
	mkfifo /tmp/l1.tell /tmp/l1.monitor /tmp/l1.lines
	# Held open, so that QEMU finds a writer at once and never the end.
	exec 7<>/tmp/l1.tell 8<>/tmp/l1.monitor
	: >$l1_console
	: >$l1_results
	# -no-shutdown: what was counted for a VM is there as long as the VM is.
	/job/qemu/ld.so --library-path /job/qemu/lib /job/qemu/qemu-system-x86_64 \
		-L /job/qemu/firmware -nodefaults -no-user-config -display none \
		-no-shutdown -accel kvm \
		-chardev file,id=monitor,path=/tmp/l1.said,input-path=/tmp/l1.monitor \
		-mon chardev=monitor,mode=readline \
		-chardev file,id=console,path=$l1_console \
		-device isa-serial,chardev=console,index=0 \
		-chardev file,id=results,path=$l1_results,input-path=/tmp/l1.tell \
		-device isa-serial,chardev=results,index=1 \
		"$@" 7>&- 8>&- 2>/tmp/l1.errors &
	l1_pid=$!
	while read -r line; do
		echo "L1: $line"
	done </tmp/l1.lines 7>&- 8>&- &
	tail -n +1 -f $l1_console >/tmp/l1.lines 7>&- 8>&- &
	l1_tail=$!
}

# Linux as L1, by lab/l1, with a size that each vendor's emulator gets through in a
# minute or two: in Bochs a machine with little in it, whose kernel neither measures
# time, which is too coarse there, nor tests its cryptography. It takes itself for
# affected by Indirect Target Selection, and warns of its own thunks against that,
# which are written while they are executable.
l1_linux()
{
	local machine append

	case $LAB_ARCH in
	svm)	machine=pc l1_cpus=2 l1_l2=16 append='' ;;
	vmx)	machine=microvm,rtc=on l1_cpus=1 l1_l2=8
		append=' indirect_target_selection=off tsc=reliable no_timer_check cryptomgr.notests' ;;
	esac
	l1_cpus=${JOB_CPUS:-$l1_cpus} l1_l2=${JOB_L2:-$l1_l2}
	l1_start -M "$machine" -cpu host,-xsave,-la57 -smp "$l1_cpus" -m 384 \
		-kernel /job/vmlinuz -initrd /job/l1.cpio \
		-append "console=ttyS0 loglevel=6 oops=panic panic=-1$append lab.kvm=stock lab.arch=$LAB_ARCH job.l2=$l1_l2 job.exits=${JOB_EXITS:-1000}"
}

l1_tell()
{
	echo "$1" >&7
}

l1_monitor()
{
	echo "$1" >&8
}

# Fails if L1 is not well.
l1_check()
{
	local progress

	kill -0 "$l1_pid" 2>/dev/null || l1_failed "L1's QEMU ended early"
	if grep -a -q -E "$(cat /job/splats)" $l1_console; then
		l1_failed "L1 reports \"$(grep -a -E -m1 "$(cat /job/splats)" $l1_console | tr -d '\r')\""
	fi
	! grep -a -q -E '^LAB-ERROR|^l2vm: |^LAB-EXIT: [1-9]' $l1_results ||
		l1_failed "L1's job: $(grep -a -E -m1 '^LAB-ERROR|^l2vm: |^LAB-EXIT: [1-9]' $l1_results)"
	progress="$(wc -c $l1_console $l1_results) $(l1_count nested_run)"
	if [ "$progress" != "$l1_progress" ]; then
		l1_progress=$progress
		l1_silent=$(date +%s)
	elif [ $(($(date +%s) - l1_silent)) -gt $l1_patience ]; then
		l1_monitor "info registers -a"
		sleep 5
		l1_failed "L1 says nothing and enters no L2 for $l1_patience s"
	fi
}

# l1_wait COUNT REGEX: until that many lines of L1's results are like this
l1_wait()
{
	until [ "$(grep -a -c -E "$2" $l1_results)" -ge "$1" ]; do
		l1_check
		sleep 1
	done
	l1_check
}

# l1_count NAME: prints what KVM counted for this VM, nothing on a kernel without
l1_count()
{
	cat "/sys/kernel/debug/kvm/$l1_pid"-*/"$1" 2>/dev/null
}

# l1_running ENTRIES: until L1 has entered L2s that many times more
l1_running()
{
	local from

	from=$(l1_count nested_run)
	until [ $(($(l1_count nested_run) - from)) -ge "$1" ]; do
		l1_check
		sleep 0.1
	done
}

# Prints what was counted for nested contexts, as NAME=VALUE.
l1_counters()
{
	local counter value line=''

	for counter in run context_new context_reuse context_recycle context_fallback; do
		value=$(l1_count nested_$counter)
		[ -z "$value" ] || line="$line nested_$counter=$value"
	done
	echo "$line"
}

# l1_case PASSED NAME: the outcome of a case, 0 if it passed
l1_case()
{
	l1_cases=$((l1_cases + 1))
	if [ "$1" = 0 ]; then
		echo "ok $l1_cases - $2"
	else
		echo "not ok $l1_cases - $2"
		l1_bad=1
	fi
}

# l1_used ROUND COUNTER...: a case, on a kernel that has contexts: each of these is
# more than zero
l1_used()
{
	local round=$1 counter passed=0
	shift

	echo "# round $round: $(l1_counters)"
	[ "$LAB_KVM" != stock ] || return 0
	for counter in "$@"; do
		[ "$(l1_count nested_context_"$counter")" -gt 0 ] || passed=1
	done
	l1_case $passed "round $round: contexts are counted as $*"
}

l1_end()
{
	kill -9 "$l1_pid" "$l1_tail"
	wait "$l1_pid" 2>/dev/null
	exec 7>&- 8>&-
	l1_pid=''
}
