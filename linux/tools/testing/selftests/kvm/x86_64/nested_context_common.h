/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: what their tests and their benchmark share on the host's
 * side, for any vendor.
 *
 * A kernel without nested contexts has neither the module parameter nor the
 * statistics.  The behaviour that L1 sees is the same on both, so a test runs
 * all its checks of behaviour anywhere and asks nested_context_present()
 * before it looks at a statistic.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_COMMON_H
#define SELFTEST_KVM_NESTED_CONTEXT_COMMON_H

#include <sys/stat.h>
#include <time.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define NESTED_CONTEXT_PARAM	"/sys/module/kvm/parameters/nested_oversub_ratio"
#define NESTED_CONTEXT_RATIO	8

/* The statistics of one VM; each load of a context counts in exactly one. */
struct nested_context_stats {
	u64 new;
	u64 reuse;
	u64 recycle;
	u64 fallback;
};

static inline bool nested_context_present(void)
{
	struct stat st;

	return !stat(NESTED_CONTEXT_PARAM, &st);
}

/* Sets the capacity of VMs made from now on; a stock kernel has none to set. */
static inline void nested_context_set_ratio(unsigned int ratio)
{
	char buf[16];
	int fd, len;

	if (!nested_context_present())
		return;

	fd = open(NESTED_CONTEXT_PARAM, O_WRONLY);
	TEST_ASSERT(fd >= 0, "Can't write %s", NESTED_CONTEXT_PARAM);
	len = snprintf(buf, sizeof(buf), "%u\n", ratio);
	TEST_ASSERT(write(fd, buf, len) == len, "Ratio %u not taken", ratio);
	close(fd);
}

static inline unsigned int nested_context_get_ratio(void)
{
	if (!nested_context_present())
		return 0;

	return get_kvm_param_integer("nested_oversub_ratio");
}

/*
 * Reads one statistic by name.  The library's __vm_get_stat() is not used: it
 * leaves its result alone when the name is unknown, and the file it keeps open
 * would keep a VM alive that a test wants to see destroyed.
 */
static inline bool nested_context_read_stat(struct kvm_vm *vm, const char *name,
					    u64 *value)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs, *desc;
	bool found = false;
	int fd, i;

	fd = vm_get_stats_fd(vm);
	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);

	for (i = 0; i < (int)header.num_desc && !found; i++) {
		desc = get_stats_descriptor(descs, i, &header);
		if (strcmp(desc->name, name))
			continue;
		read_stat_data(fd, &header, desc, value, 1);
		found = true;
	}

	free(descs);
	close(fd);
	return found;
}

static inline u64 nested_context_stat(struct kvm_vm *vm, const char *name)
{
	u64 value = 0;

	TEST_ASSERT(nested_context_read_stat(vm, name, &value),
		    "No statistic %s, though the module has %s",
		    name, NESTED_CONTEXT_PARAM);
	return value;
}

static inline struct nested_context_stats
nested_context_read_stats(struct kvm_vm *vm)
{
	struct nested_context_stats s = {};

	if (!nested_context_present())
		return s;

	s.new = nested_context_stat(vm, "nested_context_new");
	s.reuse = nested_context_stat(vm, "nested_context_reuse");
	s.recycle = nested_context_stat(vm, "nested_context_recycle");
	s.fallback = nested_context_stat(vm, "nested_context_fallback");
	return s;
}

static inline struct nested_context_stats
nested_context_stats_sub(struct nested_context_stats a,
			 struct nested_context_stats b)
{
	return (struct nested_context_stats) {
		.new = a.new - b.new,
		.reuse = a.reuse - b.reuse,
		.recycle = a.recycle - b.recycle,
		.fallback = a.fallback - b.fallback,
	};
}

static inline u64 nested_context_loads(struct nested_context_stats s)
{
	return s.new + s.reuse + s.recycle + s.fallback;
}

static inline u64 test_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_COMMON_H */
