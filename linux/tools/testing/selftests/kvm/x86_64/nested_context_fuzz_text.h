/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts, fuzzing: the names of steps, and programs as text.
 *
 * The first line is "svm" or "vmx", the number of L1's vCPUs and the ratio; each
 * further one is a step: vCPU, name, three arguments.  Lines with # in front are
 * for the reader.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_FUZZ_TEXT_H
#define SELFTEST_KVM_NESTED_CONTEXT_FUZZ_TEXT_H

#include "nested_context_fuzz.h"

static const struct fuzz_choice host_ops[] = {
	[HOST_RESTORE - FUZZ_HOST]	= { "restore",	8 },
	[HOST_MIGRATE - FUZZ_HOST]	= { "migrate",	2 },
	[HOST_RESET - FUZZ_HOST]	= { "reset",	3 },
	[HOST_DELETE - FUZZ_HOST]	= { "delete",	10 },
	[HOST_ADD - FUZZ_HOST]		= { "add",	2 },
	[HOST_MOVE - FUZZ_HOST]		= { "move",	8 },
	[HOST_LOG - FUZZ_HOST]		= { "log",	12 },
	[HOST_GET_LOG - FUZZ_HOST]	= { "getlog",	14 },
	[HOST_DROP - FUZZ_HOST]		= { "drop",	16 },
	[HOST_WRITE - FUZZ_HOST]	= { "write",	14 },
	[HOST_RATIO - FUZZ_HOST]	= { "ratio",	2 },
	[HOST_POST - FUZZ_HOST]		= { "post",	10 },
	[HOST_NEXT - FUZZ_HOST]		= { "next",	0 },
};

static const char *op_name(const struct fuzz_arch *arch, u32 op)
{
	return op < FUZZ_HOST ? arch->ops[op].name : host_ops[op - FUZZ_HOST].name;
}

static void print_step(const struct fuzz_arch *arch, const struct fuzz_step *s)
{
	printf("%u %s%s %#lx %#lx %#lx\n", s->vcpu, s->op < FUZZ_HOST ? "" : "host-",
	       op_name(arch, s->op), s->arg[0], s->arg[1], s->arg[2]);
}

static void print_program(const struct fuzz_arch *arch, const struct fuzz_program *p)
{
	unsigned int i;

	printf("%s vcpus %u ratio %u\n", arch->name, p->nr_vcpus, p->ratio);
	for (i = 0; i < p->nr; i++)
		print_step(arch, &p->step[i]);
}

static u32 find_op(const struct fuzz_arch *arch, const char *name)
{
	const struct fuzz_choice *ops = arch->ops;
	unsigned int nr = arch->nr_ops, base = 0, i;

	if (!strncmp(name, "host-", 5)) {
		ops = host_ops;
		nr = ARRAY_SIZE(host_ops);
		base = FUZZ_HOST;
		name += 5;
	}
	for (i = 0; i < nr; i++) {
		if (!strcmp(ops[i].name, name))
			return base + i;
	}
	TEST_FAIL("There is no step \"%s\" on %s", name, arch->name);
	return 0;
}

static void read_program(const struct fuzz_arch *arch, const char *path,
			 struct fuzz_program *p)
{
	char line[256], name[32];
	FILE *f = fopen(path, "r");
	struct fuzz_step *s;

	TEST_ASSERT(f, "Can't open %s", path);
	memset(p, 0, sizeof(*p));
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (!p->nr_vcpus) {
			TEST_ASSERT(sscanf(line, "%31s vcpus %u ratio %u", name,
					   &p->nr_vcpus, &p->ratio) == 3 &&
				    p->nr_vcpus >= 1 && p->nr_vcpus <= MAX_L1_VCPUS,
				    "%s does not begin as a program does", path);
			TEST_ASSERT(!strcmp(name, arch->name), "%s is for %s", path, name);
			continue;
		}
		TEST_ASSERT(p->nr < MAX_STEPS, "%s has too many steps", path);
		s = &p->step[p->nr++];
		TEST_ASSERT(sscanf(line, "%u %31s %lx %lx %lx", &s->vcpu, name,
				   &s->arg[0], &s->arg[1], &s->arg[2]) == 5 &&
			    s->vcpu < p->nr_vcpus, "%s: what is \"%s\"?", path, line);
		s->op = find_op(arch, name);
	}
	fclose(f);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_FUZZ_TEXT_H */
