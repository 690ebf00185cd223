# SPDX-License-Identifier: GPL-2.0
# Every target does its own set-up and picks up where an earlier run stopped.
# What is built or fetched goes under out/; downloads are kept in the user's
# cache directory.

MAKEFLAGS += --no-print-directory

# What is given here is not for the makes below.
MAKEOVERRIDES =

# The machines of make demo and make fuzz, of lab/boot's list; all if none is named.
MACHINE =

# make why WHOLE=1: all numbers of L2s and L1 vCPUs.
WHOLE =

# The tests of make test: a group, or those of these names or patterns.
GROUP = test
T =

# The programs of make fuzz: the first seed, and how many.
SEED = 1
COUNT = 1000

.PHONY: help
help:	## this list (default)
	@awk -F '## ' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup:	## install the host packages that are missing (apt)
	@lab/setup

.PHONY: fetch
fetch: setup	## newest kernel image, headers and source that apt offers
	@lab/fetch

.PHONY: modules
modules: setup	## KVM's modules with nested contexts
	@lab/modules

.PHONY: selftests
selftests: setup	## KVM selftests, ours and the kernel's nested ones
	@lab/selftests

.PHONY: demo
demo: setup	## stock beside patched: switching cost, and a real L1 with L2 VMs; MACHINE=
	@lab/demo $(MACHINE)

.PHONY: test
test: setup	## all tests (prove); GROUP=slow, GROUP=debug: what takes longer; T='NAME...': these
	@set -f; lab/test $(if $(T),$(T),$(GROUP))

.PHONY: fuzz
fuzz: setup	## programs of a hostile L1, stock beside patched; MACHINE=, SEED=, COUNT=
	@lab/fuzz --corpus $(if $(MACHINE),--machine $(MACHINE)) --seed $(SEED) --count $(COUNT)

.PHONY: coverage
coverage: setup	## lines of ours in the kernel that no test executes (gcov); T='NAME...': of these boots
	@lab/coverage $(T)

.PHONY: why
why: setup	## docs/why.md: the table beside simpler things, five builds; 40 minutes, with WHOLE=1 an hour and a half
	@lab/why $(if $(WHOLE),--whole)

.PHONY: bench
bench: setup	## the table in user space, timed beside one with a spinlock; fails if a bound does not hold
	@bench/table

.PHONY: clean
clean:	## remove out/
	rm -rf "$$(readlink -f "$${OUT:-out}")" "$${OUT:-out}"

.PHONY: distclean
distclean: clean	## remove out/ and the cached downloads
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/nested-contexts"
