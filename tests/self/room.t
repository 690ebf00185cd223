#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# What does not fit beside each other does not run beside each other; what fits, does.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OUT="$dir/out put"
cd "$dir"
all=1000000000	# more than there is, so all

# Each fails if it meets the other.
cat >alone <<'END'
#!/bin/sh
mkdir met || exit 1
sleep 0.5
rmdir met
END
# Each waits for the other, a minute at most.
cat >together <<'END'
#!/bin/sh
touch "here.$1"
for _ in $(seq 600); do
	[ "$(ls here.* | wc -l)" != 2 ] || exit 0
	sleep 0.1
done
exit 1
END
chmod +x alone together

# both CPUS MEMORY COMMAND: how two end that start at once
both()
{
	local code=0 first

	"$tests/room" "$1" "$2" "./$3" 1 &
	first=$!
	"$tests/room" "$1" "$2" "./$3" 2 || code=$?
	wait $first || code=$?
	echo $code
}

is "$(both $all 1 alone)" 0 "two that want all CPUs"
is "$(both 0 $all alone)" 0 "two that want all memory"
is "$(both 0 1 together)" 0 "two that want little"
# One of those that wait for their turn is killed.
"$tests/room" $all 1 sh -c 'touch held; exec sleep 60' &
holder=$!
until [ -e held ]; do sleep 0.1; done
"$tests/room" 1 1 true &
waiter=$!
sleep 0.3
kill $waiter
kill $holder
is "$("$tests/room" $all 1 echo went)" went "what those had that were killed is free again"
code=0
"$tests/room" 1 1 sh -c 'exit 7' || code=$?
is $code 7 "the command's exit status is passed on"
echo "1..$count"
