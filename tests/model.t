#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# spin goes through all states of the two models: who owns a context (owner.pml),
# and who may take away a page that the hardware uses (page.pml). Each fault that is
# put into a model must be found by one of its properties.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)/model
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
count=0

# search MODEL "CC OPTIONS" "PAN OPTIONS" -DMACRO...: what the search says
search()
{
	local model=$1 cc=$2 pan=$3
	shift 3

	spin -a "$@" "$here/$model.pml" >/dev/null
	# shellcheck disable=SC2086 # words are wanted
	gcc -O2 -w -DVECTORSZ=512 $cc -o pan pan.c
	# shellcheck disable=SC2086
	./pan -m1000000 $pan
}

result()
{
	count=$((count + 1))
	echo "$1 $count - $2"
	grep -E '^pan:1|errors:|states, stored$' "$dir/said" | sed 's/^ */# /'
}

# holds WHAT MODEL CC PAN -DMACRO...: exhaustive, and without an error
holds()
{
	local what=$1
	shift

	search "$@" >said
	if grep -q 'errors: 0$' said && ! grep -q 'not completed\|max search depth' said; then
		result ok "$what"
	else
		result "not ok" "$what"
	fi
}

# found WHAT FAULT MODEL -DMACRO...: an error, that is
found()
{
	local what=$1 fault=$2 model=$3
	shift 3

	search "$model" "-DSAFETY -DNOCLAIM" "" "-DFAULT_$fault" "$@" >said
	if grep -q '^pan:1: \(assertion violated\|invalid end state\)' said; then
		result ok "$model finds: $what"
	else
		result "not ok" "$model finds: $what"
	fi
}

command -v spin >/dev/null || { echo "1..0 # SKIP there is no spin; run lab/setup"; exit; }

holds "owner: 2 vCPUs, 2 contexts, 3 blocks" owner -DSAFETY ""
holds "owner: 3 vCPUs, 2 contexts, 3 blocks" owner -DSAFETY "" -DVCPUS=3 -DLOADS=1
found "a context is taken without an exchange" NO_EXCHANGE owner
found "a context is parked before the last write" EARLY_PARK owner
found "the key is not looked at again" NO_KEY_CHECK owner
found "the victim is in use" VICTIM_IN_USE owner
found "a recycled context is not reset" NO_RESET owner
found "the table goes before the vCPUs" EARLY_DESTROY owner

slots=(-DEVENTS=1 -DMEMSLOTS)
holds "page: two events" page "-DSAFETY -DNOCLAIM" ""
holds "page: two events end" page -DNFAIR=4 "-a -f"
holds "page: an event and a slot that moves" page "-DSAFETY -DNOCLAIM" "" "${slots[@]}"
holds "page: the event and the move end" page -DNFAIR=4 "-a -f" "${slots[@]}"
found "the vCPU is named after the lock is dropped" LATE_USER page
found "no second look after the page was found" NO_RETRY page
found "requests are looked at before interrupts are off" EARLY_CHECK page
found "a request is answered without a refresh" NO_REFRESH page
found "no request, only a kick" NO_REQUEST page
found "the event does not wait" NO_WAIT page
found "a second event skips the invalid cache" SKIP_INVALID page
found "the first event clears the vCPU's name" CLEAR_USER page
found "a page is looked up when the VM's memory is gone" LEAVE_LOOKS page
found "who can't stop reading memslots waits for one" LEAVE_WAITS page "${slots[@]}"
found "memslots change without a request" NO_MEMSLOT_REQUEST page "${slots[@]}"
found "the vCPU waits for a slot while it reads memslots" SRCU_HELD page "${slots[@]}"
found "a slot that arrives before the vCPU waits counts as missing" SLOT_MISSED page "${slots[@]}"
echo "1..$count"
