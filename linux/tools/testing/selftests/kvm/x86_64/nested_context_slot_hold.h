/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An update of memslots that takes as long as a test wants.
 *
 * KVM marks a memslot that is moved or deleted as invalid, and then waits for all
 * who read the memslots.  One reader is made to stay: it reads guest memory that
 * only a userfaultfd provides.  The update itself fails, for there is no such place
 * as the one that the slot shall move to; so when it is over, all is as before.
 */
#ifndef SELFTEST_KVM_NESTED_CONTEXT_SLOT_HOLD_H
#define SELFTEST_KVM_NESTED_CONTEXT_SLOT_HOLD_H

#include <fcntl.h>
#include <pthread.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kvm_util.h"
#include "nested_context_common.h"
#include "processor.h"
#include "test_util.h"

#define SLOT_HOLD_SLOT		30
#define SLOT_HOLD_GPA		0x38000000ull
#define SLOT_HOLD_NOWHERE	BIT_ULL(52)
#define SLOT_HOLD_MS		5000

/* A thread that may get stuck in the kernel. */
struct held_thread {
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
	pid_t tid;
	bool done;
};

struct slot_hold {
	struct kvm_vm *vm;
	struct kvm_vcpu *reader;
	struct kvm_userspace_memory_region slot;
	int uffd;
	void *page;
	struct held_thread reading, updating;
};

static void *held_thread_main(void *thread)
{
	struct held_thread *t = thread;

	WRITE_ONCE(t->tid, syscall(SYS_gettid));
	t->fn(t->arg);
	WRITE_ONCE(t->done, true);
	return NULL;
}

static void held_thread_start(struct held_thread *t, void (*fn)(void *), void *arg)
{
	*t = (struct held_thread) { .fn = fn, .arg = arg };
	TEST_ASSERT(!pthread_create(&t->thread, NULL, held_thread_main, t),
		    "pthread_create");
}

/* Whether the thread sleeps in the kernel, and no common signal wakes it. */
static bool held_thread_sleeps(struct held_thread *t)
{
	char name[64], state = '?';
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", READ_ONCE(t->tid));
	f = fopen(name, "r");
	if (!f)
		return false;
	if (fscanf(f, "%*d %*s %c", &state) != 1)
		state = '?';
	fclose(f);
	return state == 'D';
}

/* Until it is through or sleeps, which it returns; false if neither happens. */
static bool held_thread_settles(struct held_thread *t)
{
	u64 began = test_now_ms();

	while (!READ_ONCE(t->done) && !held_thread_sleeps(t)) {
		if (test_now_ms() - began > SLOT_HOLD_MS)
			return false;
		usleep(1000);
	}
	return true;
}

static bool held_thread_ends(struct held_thread *t)
{
	u64 began = test_now_ms();

	while (!READ_ONCE(t->done)) {
		if (test_now_ms() - began > SLOT_HOLD_MS)
			return false;
		usleep(1000);
	}
	TEST_ASSERT(!pthread_join(t->thread, NULL), "pthread_join");
	return true;
}

/* The version of the wall clock that is there is read before it is written. */
static void slot_hold_read(void *hold)
{
	struct slot_hold *h = hold;

	vcpu_set_msr(h->reader, MSR_KVM_WALL_CLOCK_NEW, SLOT_HOLD_GPA);
}

static void slot_hold_update(void *hold)
{
	struct slot_hold *h = hold;
	int ret = ioctl(h->vm->fd, KVM_SET_USER_MEMORY_REGION, &h->slot);

	TEST_ASSERT(ret == -1 && errno == EINVAL, "A slot at %llx: %d, errno %d",
		    h->slot.guest_phys_addr, ret, errno);
}

/* From here on updates of @vm's memslots are not through; @reader is not run. */
static void slot_hold_begin(struct slot_hold *h, struct kvm_vm *vm,
			    struct kvm_vcpu *reader)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffd_msg msg;

	memset(h, 0, sizeof(*h));
	h->vm = vm;
	h->reader = reader;
	h->page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(h->page != MAP_FAILED, "mmap");
	h->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	TEST_ASSERT(h->uffd >= 0, "userfaultfd: errno %d", errno);
	TEST_ASSERT(!ioctl(h->uffd, UFFDIO_API, &api), "UFFDIO_API");
	reg.range.start = (u64)h->page;
	reg.range.len = PAGE_SIZE;
	TEST_ASSERT(!ioctl(h->uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	vm_set_user_memory_region(vm, SLOT_HOLD_SLOT, 0, SLOT_HOLD_GPA, PAGE_SIZE,
				  h->page);

	held_thread_start(&h->reading, slot_hold_read, h);
	TEST_ASSERT(read(h->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT, "No page fault");
}

/* This slot is invalid until slot_hold_end(). */
static void slot_hold_invalidate(struct slot_hold *h, u32 slot, u32 flags,
				 size_t size, void *hva)
{
	h->slot = (struct kvm_userspace_memory_region) {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = SLOT_HOLD_NOWHERE,
		.memory_size = size,
		.userspace_addr = (u64)hva,
	};
	held_thread_start(&h->updating, slot_hold_update, h);
	TEST_ASSERT(held_thread_settles(&h->updating) && !h->updating.done,
		    "The update does not wait");
}

static void slot_hold_end(struct slot_hold *h)
{
	struct uffdio_zeropage zero = {
		.range = { .start = (u64)h->page, .len = PAGE_SIZE },
	};

	TEST_ASSERT(!ioctl(h->uffd, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE");
	TEST_ASSERT(held_thread_ends(&h->reading), "The reader has not ended");
	TEST_ASSERT(held_thread_ends(&h->updating), "The update has not ended");
	vm_set_user_memory_region(h->vm, SLOT_HOLD_SLOT, 0, SLOT_HOLD_GPA, 0, h->page);
	close(h->uffd);
	munmap(h->page, PAGE_SIZE);
}

#endif /* SELFTEST_KVM_NESTED_CONTEXT_SLOT_HOLD_H */
