# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# shellcheck disable=SC2154 # l1.sh sets what is read here
# For jobs that start and end an L1 twice: what of L0's memory is not given back once
# an L1 is gone. Sourced by a job's "run", after l1.sh.

# kB that L0 may have less of when an L1 is gone: the first one makes its kernel keep
# some, and free memory comes and goes by pages. What KVM allocates is counted by
# objects, and nothing else allocates many of them: each nested context shows.
l1_first_slack=1024 l1_free_slack=400 l1_object_slack=4

# Sets l1_free, the kB of L0's memory that are free, those on the CPUs' own lists
# included, and l1_objects, those in objects of the kinds that KVM allocates.
l1_memory()
{
	local cache

	rm -f /tmp/l1.*
	# What an ended VM leaves to RCU and to work queues.
	sleep 2
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	# What a CPU keeps for its next allocations would count as allocated.
	for cache in /sys/kernel/slab/*/shrink; do
		echo 1 >"$cache"
	done
	l1_objects=$(awk '/^(kmalloc-(cg-)?[0-9]|kvm|x86_emulator)/ { bytes += $2 * $4 }
		END { print int(bytes / 1024) }' /proc/slabinfo)
	l1_free=$(awk '/^MemFree:/ { kb += $2 } $1 == "count:" { kb += $2 * 4 }
		END { print kb }' /proc/meminfo /proc/zoneinfo)
}

# l1_given_back ROUND FREE OBJECTS: a case: there are no more than FREE kB less of free
# memory and OBJECTS kB more in objects than when l1_memory was last called
l1_given_back()
{
	local free=$l1_free objects=$l1_objects passed=0

	l1_memory
	free=$((free - l1_free)) objects=$((l1_objects - objects))
	echo "# round $1: L0 has $free kB less of free memory, of $2, and $objects more in objects, of $3"
	[ $free -le "$2" ] && [ $objects -le "$3" ] || passed=1
	l1_case $passed "round $1: L0 has its memory again"
}

# l1_twice COMMAND: all of a job: runs the command with 1 and then with 2, which starts
# and ends an L1 each time.
l1_twice()
{
	l1_memory
	"$1" 1
	l1_given_back 1 $l1_first_slack $l1_first_slack
	"$1" 2
	l1_given_back 2 $l1_free_slack $l1_object_slack
	echo "1..$l1_cases"
	return "$l1_bad"
}
