#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# What the driver makes of a boot that fails in each way that there is, without a
# boot: lab/boot is a stand-in here, which says what a job's directory tells it to.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# Any path will do.
tree="$dir/a: tree"
mkdir -p "$tree"/{tests/boots,lab/debug,jobs} "$dir/bin"
cp "$tests"/{run,room} "$tree/tests/"
cp "$tests"/boots/{run,judge.py} "$tree/tests/boots/"
unset OUT PERL_TEST_HARNESS_DUMP_TAP
run=$tree/tests/run
logs=$tree/out/results/test

cat >"$tree/lab/job" <<'END'
#!/bin/sh
[ -d "${0%/lab/job}/jobs/$1" ] || { echo "lab/job: there is no job $1" >&2; exit 1; }
echo "${0%/lab/job}/jobs/$1"
END
# Last come the job and the directory for the results; --kvm is before.
cat >"$tree/lab/boot" <<'END'
#!/bin/bash
kvm=patched
while [ $# -gt 2 ]; do
	[ "$1" != --kvm ] || kvm=$2
	shift
done
from=$1
[ ! -d "$1/$kvm" ] || from=$1/$kvm
[ ! -f "$from/results" ] || sed 's/$/\r/' "$from/results" >"$2/results.log"
[ ! -f "$from/console" ] || cp "$from/console" "$2/console.log"
[ -f "$from/wrong" ] || { echo "  0:01  a title"; exit 0; }
echo "lab/boot: a title failed: $(sed "s,LOG,$2,g" "$from/wrong")" >&2
exit 1
END
chmod +x "$tree"/lab/{job,boot}
echo "svm	a_test	amd: it is not emulated" >"$tree/lab/stock-tests"
cat >"$tree/tests/boots/known" <<'END'
# job kernels machines case reason
listed   patched  *          l2.*  a fault of ours
listed   patched  amd,intel  only  not on this machine
beside   *        amd-qemu   both  neither can
must     stock    *          m.*   it pins the page
may      stock?   *          m.*   it pins the page for a moment
END
# name, machine, CPUs, kernels; the job has the same name
while read -r name machine cpus kernels; do
	echo "$name test $machine $cpus 1024 $kernels 10 $name"
	mkdir -p "$tree/jobs/$name"
done >"$tree/tests/boots/table" <<'END'
passes amd-qemu 2 patched
fails amd-qemu 1 patched
late intel 2 patched
splat amd-qemu 1 patched
no-plan amd-qemu 1 patched
early amd-qemu 1 patched
short amd-qemu 1 patched
died amd-qemu 1 patched
listed amd-qemu 1 patched
beside amd-qemu 1 stock,patched
must amd-qemu 1 stock
may amd-qemu 1 stock
stock-tests amd 1 patched
END

# job NAME [wrong]: its results come from stdin
job()
{
	mkdir -p "$tree/jobs/$1"
	cat >"$tree/jobs/$1/results"
	[ $# = 1 ] || echo "$2; nothing outside LOG was changed; see LOG/${3:-results.log}" >"$tree/jobs/$1/wrong"
}

# says NAME WHAT: its TAP, without comments, is what comes from stdin
says()
{
	"$run" "$1" 2>"$dir/stderr" | grep -v '^#' >"$dir/tap" || :
	diff - "$dir/tap" >"$dir/diff" || sed 's/^/# /' "$dir/diff"
	is "$(wc -l <"$dir/diff")" 0 "$2"
}

# told TEXT WHAT: stderr has it
told()
{
	is "$(grep -cF -- "$1" "$dir/stderr" | sed 's/^[1-9].*/some/')" some "$2"
}

job passes <<'END'
TAP version 13
1..2
#  RUN           a ...
ok 1 a
ok 2 b # SKIP no swap
TAP version 13
1..1
ok 1 c
END
says passes "a job that passes, of two programs" <<'END'
ok 1 - a
ok 2 - b # SKIP no swap
ok 3 - c
ok 4 - the boot is sound, 3 cases
1..4
END
is "$(wc -c <"$dir/stderr")" 0 "it has nothing on stderr"

job fails "the job ended with 1: not ok 2 b" <<'END'
1..3
ok 1 a
b.c:12: expected 1, have 2
not ok 2 b
not ok 3 c # TODO its own reason
END
says fails "a case that fails; one that the job has a reason for" <<'END'
ok 1 - a
not ok 2 - b
not ok 3 - c # TODO its own reason
ok 4 - the boot is sound, 3 cases
1..4
END
told "# fails failed: 1 of 4 not ok" "it is said what failed"
told "b.c:12: expected 1, have 2" "the last lines of the job's log are shown"
told "$logs/fails/patched/results.log:" "that log is named"
told "# log: $logs/fails.log" "the test's log is named"
told "# just this test: make test T=fails" "the command for just this test is there"
is "$(grep -c "lab/boot' --machine amd-qemu --cpus 1 --mem 1024 --time-limit 10 --kvm patched" "$logs/fails.log")" \
	1 "its log has the command of the boot"

echo "the last words" >"$tree/jobs/late/console"
job late "it took longer than 10 s and was killed" console.log <<'END'
1..2
ok 1 a
END
says late "a boot that takes too long" <<'END'
ok 1 - a
not ok 2 - the boot is sound, 1 cases: it took longer than 10 s and was killed
1..2
END
told "the last words" "the last lines of the console are shown"

job splat 'the kernel reports "BUG: sleeping"' console.log <<'END'
1..1
ok 1 a
END
says splat "a kernel that complains" <<'END'
ok 1 - a
not ok 2 - the boot is sound, 1 cases: the kernel reports "BUG: sleeping"
1..2
END

job no-plan <<'END'
ok 1 a
END
says no-plan "a job without a plan" <<'END'
ok 1 - a
not ok 2 - the boot is sound, 1 cases: the job printed no plan, so nobody knows how many cases are missing
1..2
END

job early "L0 ended before the job did" <<'END'
1..3
not ok 1 a
END
says early "a machine that ends early" <<'END'
not ok 1 - a
not ok 2 - the boot is sound, 1 cases: L0 ended before the job did
1..2
END

job short <<'END'
1..3
ok 1 a
ok 2 b
END
says short "a job that ends early, and well" <<'END'
ok 1 - a
ok 2 - b
not ok 3 - the boot is sound, 2 cases: the job announced 3 cases and judged 2
1..3
END

job died "the job ended with 1: LAB-ERROR: no device" <<'END'
1..1
ok 1 a
END
says died "a job that fails though all its cases pass" <<'END'
ok 1 - a
not ok 2 - the boot is sound, 1 cases: the job ended with 1: LAB-ERROR: no device
1..2
END

job listed "the job ended with 1: not ok 1 l2.a" <<'END'
1..3
not ok 1 l2.a
ok 2 l2.b
not ok 3 only
END
says listed "cases that are known to fail, one that passes, one on another machine" <<'END'
not ok 1 - l2.a # TODO a fault of ours
ok 2 - l2.b # TODO a fault of ours
not ok 3 - only
ok 4 - the boot is sound, 3 cases
1..4
END
(cd "$tree" && prove --exec tests/run listed) >"$dir/proved" 2>&1 || :
is "$(grep -c 'TODO passed: *2$' "$dir/proved")" 1 "prove names the one that passes"
is "$(grep -c 'Failed test: *3$' "$dir/proved")" 1 "prove names the one that fails"
is "$(grep -c '^Result: FAIL$' "$dir/proved")" 1 "prove fails"

# On stock "both" fails and "one" passes.
mkdir "$tree"/jobs/beside/{stock,patched}
job beside/stock "the job ended with 1: not ok 1 both" <<'END'
1..3
not ok 1 both
ok 2 one
ok 3 three
END
job beside/patched "the job ended with 1: not ok 1 both" <<'END'
1..3
not ok 1 both
not ok 2 one
ok 3 three # SKIP no memory
END
says beside "stock beside patched, which skips what stock runs" <<'END'
not ok 1 - stock: both # TODO neither can
ok 2 - stock: one
ok 3 - stock: three
ok 4 - stock: the boot is sound, 3 cases
not ok 5 - patched: both # TODO neither can
not ok 6 - patched: one
not ok 7 - patched: three, which stock runs: SKIP no memory
ok 8 - patched: the boot is sound, 3 cases
1..8
END
sed -i 's/^not ok 1/ok 1/' "$tree/jobs/beside/stock/results"
rm "$tree/jobs/beside/stock/wrong"
"$run" beside 2>&1 | grep both >"$dir/both" || :
is "$(sort -u "$dir/both" | grep -c '^ok 1 - stock: both # TODO neither can$\|^not ok 5 - patched: both$')" 2 \
	"what passes on stock must pass on patched, listed or not"

job must <<'END'
1..2
ok 1 m.a
ok 2 b
END
says must "a stock kernel that passes what it must fail" <<'END'
ok 1 - m.a # TODO it pins the page
ok 2 - b
ok 3 - the boot is sound, 2 cases
not ok 4 - the stock kernel fails 0 of 1 cases that it is known to fail
1..4
END

job may "the job ended with 1: not ok 1 m.a" <<'END'
1..2
not ok 1 m.a
ok 2 m.b
END
says may "a stock kernel that loses one race of two" <<'END'
not ok 1 - m.a # TODO it pins the page for a moment
ok 2 - m.b # TODO it pins the page for a moment
ok 3 - the boot is sound, 2 cases
1..3
END

job stock-tests "the job ended with 1: not ok 1 - a_test" <<'END'
not ok 1 - a_test
1..1
END
says stock-tests "a test of the kernel's own, with its reason in lab/stock-tests" <<'END'
not ok 1 - a_test # TODO it is not emulated
ok 2 - the boot is sound, 1 cases
1..2
END

rm -r "$tree/jobs/short"
says short "a job that cannot be made" </dev/null
told "# short failed: ended with 1" "it is said"

# What a boot weighs.
cat >"$tree/tests/room" <<'END'
#!/bin/sh
echo "$1 $2" >>"${0%/tests/room}/asked"
shift 2
exec "$@"
END
"$run" passes >/dev/null 2>&1
"$run" late >/dev/null 2>&1 || :
is "$(tr '\n' , <"$tree/asked")" "2 1424,1 1424," \
	"two CPUs of amd-qemu weigh two, two of Bochs one, and memory counts"
echo "odd test amd-qemu" >>"$tree/tests/boots/table"
"$run" passes 2>"$dir/stderr" >/dev/null || :
told "line 14 of tests/boots/table is not in the format" "a line of the table that lacks something"
echo "1..$count"
