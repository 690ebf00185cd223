/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Nested contexts: what a test can ask the host's memory management to do with
 * pages of a guest, and what it can learn from it, for any vendor.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_HOST_H
#define SELFTEST_KVM_NESTED_CONTEXT_HOST_H

#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "test_util.h"
#include "processor.h"

/* ---- /proc and /sys ---- */

static inline bool write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

/* The number behind @name in a file like /proc/meminfo or /proc/vmstat. */
static inline u64 proc_number(const char *path, const char *name)
{
	char line[128], key[64];
	u64 value, found = 0;
	FILE *f = fopen(path, "r");

	TEST_ASSERT(f, "Can't read %s", path);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63[^: ]%*[: ]%lu", key, &value) == 2 &&
		    !strcmp(key, name))
			found = value;
	}
	fclose(f);
	return found;
}

static inline bool has_swap(void)
{
	char line[256];
	bool found = false;
	FILE *f = fopen("/proc/swaps", "r");

	if (!f)
		return false;
	if (fgets(line, sizeof(line), f))
		found = fgets(line, sizeof(line), f);
	fclose(f);
	return found;
}

#define PAGEMAP_PFN		(BIT_ULL(55) - 1)
#define PAGEMAP_SOFT_DIRTY	BIT_ULL(55)
#define PAGEMAP_PRESENT		BIT_ULL(63)

static inline u64 pagemap_entry(void *page)
{
	u64 entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(fd >= 0, "open pagemap");
	TEST_ASSERT(pread(fd, &entry, 8, (u64)page / PAGE_SIZE * 8) == 8, "pagemap");
	close(fd);
	return entry;
}

static inline u64 host_pfn(void *page)
{
	u64 entry = pagemap_entry(page);

	return entry & PAGEMAP_PRESENT ? entry & PAGEMAP_PFN : 0;
}

/* ---- A child that keeps pages as they are now, and says if they stay so ---- */

struct witness {
	pid_t pid;
	int fd;
};

/* When this returns, the child knows what it has to look after. */
static inline struct witness witness_start(void *mem, size_t size)
{
	struct witness w;
	void *copy;
	int fds[2];
	char c = 0;

	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "socketpair");
	w.pid = fork();
	TEST_ASSERT(w.pid >= 0, "fork");
	w.fd = fds[!w.pid];
	close(fds[!!w.pid]);
	if (!w.pid) {
		copy = malloc(size);
		memcpy(copy, mem, size);
		if (write(w.fd, &c, 1) != 1 || read(w.fd, &c, 1) != 1)
			_exit(2);
		_exit(!!memcmp(copy, mem, size));
	}
	TEST_ASSERT(read(w.fd, &c, 1) == 1, "The child has ended");
	return w;
}

static inline bool witness_kept(struct witness *w)
{
	int status;

	TEST_ASSERT(write(w->fd, "", 1) == 1, "write to the child");
	close(w->fd);
	TEST_ASSERT(waitpid(w->pid, &status, 0) == w->pid, "waitpid");
	TEST_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) < 2,
		    "The child ended with %x", status);
	return !WEXITSTATUS(status);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_HOST_H */
