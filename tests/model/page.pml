/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A page of L1 that the hardware uses while L2 runs, and who may take it away.
 *
 *	vCPU	 kvm_nested_page_use(), vcpu_enter_guest(), vmx_unuse_hw_pages(),
 *		 vmx_leave_nested()
 *	event	 an mmu_notifier event: kvm_mmu_notifier_invalidate_range_start(),
 *		 gfn_to_pfn_cache_invalidate_start(), ..._range_end()
 *	memslots kvm_set_memslot() that moves a slot: it is invalid in between
 *
 * The steps are those of virt/kvm/pfncache.c, arch/x86/kvm/nested_page.c and x86.c.
 * Memory is sequentially consistent here: what orders it in the kernel is the
 * cache's lock, the barriers of requests, and SRCU.  One cache is enough, since
 * caches share nothing but the request.
 *
 * Properties (rules 6 and 11 of docs/rules.md): the hardware never touches a page that
 * the host has reused, nor, after a memslot update returned, one of the old slot
 * (assertions).  Nobody is stuck (no invalid end state), and events and updates end
 * (the claim "ends").
 *
 * -DFAULT_... puts in a fault, see model.t.
 */
#ifndef EVENTS
#define EVENTS	2
#endif
#define PAGES	(EVENTS + 3)
#define NONE	255
#ifdef MEMSLOTS
#define ALL	(EVENTS + 1)
#else
#define ALL	EVENTS
#endif

/* The host: page tables, notifier state, which pages were given to others. */
byte pte[2];			/* page at each of two host addresses */
bool reused[PAGES];
byte next_page;
byte mn_active, mn_seq;

/* Memslots: 0 and 1 have the page at one of the host addresses, 2 is invalid. */
byte slot;
byte returned_slot;		/* of the last update that returned */
bool slots_lock;
bool srcu;			/* the vCPU reads memslots */
bool readers_gone;		/* it has stopped since they were replaced */

/* The cache. */
byte ticket, serving;		/* its lock: fair, as queued rwlocks are */
bool valid, user;
byte pfn, cache_slot = NONE;

/* The vCPU. */
bool request, ipi, in_mode;
byte done;

#define LOCK	atomic { mine = ticket; ticket = (ticket + 1) % 4 }; serving == mine
#define UNLOCK	serving = (serving + 1) % 4

/* The host maps a page where there is none, as a page fault does. */
inline fault_in(addr, page)
{
	atomic {
		if
		:: pte[addr] == NONE -> pte[addr] = next_page; next_page++
		:: else
		fi;
		page = pte[addr]
	}
}

inline srcu_lock()   { srcu = true }
inline srcu_unlock() { atomic { srcu = false; readers_gone = true } }

/* Interrupts are on: the IPI that waits is taken. */
inline irqs_on() { ipi = false }

/* The VM's process has ended, and mmu_notifier events with it: none is left to come. */
inline memory_goes()
{
	atomic {
		if
		:: pte[0] != NONE -> reused[pte[0]] = true
		:: else
		fi;
		if
		:: pte[1] != NONE -> reused[pte[1]] = true
		:: else
		fi
	}
}

/*
 * vmx_leave_nested(), called by somebody who reads memslots and can't let go: it
 * looks nothing up.  The fault is to do so, and to wait for a slot that is missing.
 */
inline leave()
{
#ifdef FAULT_LEAVE_LOOKS
	LOCK;
	if
	:: valid && cache_slot == slot -> assert(!reused[pfn]); UNLOCK
	:: else -> UNLOCK
	fi;
#endif
#ifdef FAULT_LEAVE_WAITS
	if
	:: slot == 2 ->
		atomic { !slots_lock -> slots_lock = true };
		slots_lock = false
	:: else
	fi;
#endif
	skip
}

proctype vcpu()
{
	byte seq, page, vmcs_pfn, vmcs_slot, s, mine;
	bool have;

	srcu_lock();
use:
	have = false;
	do
	:: have -> break
	:: else ->
		LOCK;
		if
		:: valid && cache_slot == slot ->
#ifdef FAULT_LATE_USER
			page = pfn; s = cache_slot; UNLOCK;
			user = true;
#else
			user = true; page = pfn; s = cache_slot; UNLOCK;
#endif
			have = true
		:: else ->
			/* kvm_gpc_activate(): its slot, then its page */
			s = slot;
			if
			:: s == 2 ->
				valid = false; UNLOCK;
				/* kvm_nested_page_wait_for_slot() */
				if
				:: slot == 2 ->
#ifndef FAULT_SRCU_HELD
					srcu_unlock();
#endif
					atomic { !slots_lock -> slots_lock = true };
					slots_lock = false;
					srcu_lock()
				:: else ->	/* it has arrived since */
#ifdef FAULT_SLOT_MISSED
					assert(false)
#endif
				fi
			:: else ->
				cache_slot = s;
				valid = false;
retry:				seq = mn_seq;
				UNLOCK;
				fault_in(s, page);
				LOCK;
				if
#ifndef FAULT_NO_RETRY
				:: mn_active || seq != mn_seq -> goto retry
#endif
				:: else -> valid = true; pfn = page; UNLOCK
				fi
			fi
		fi
	od;
	vmcs_pfn = page; vmcs_slot = s;

enter:
	/* vcpu_enter_guest(): interrupts off from here */
#ifdef FAULT_EARLY_CHECK
	if
	:: request -> request = false; irqs_on(); goto use
	:: else
	fi;
#endif
	in_mode = true;
	srcu_unlock();
#ifndef FAULT_EARLY_CHECK
	if
	:: request ->
		in_mode = false;
		irqs_on();
		srcu_lock();
		request = false;
		goto use
	:: else
	fi;
#endif
	do
	:: !ipi ->
		/* L2 runs, the hardware touches the page */
		assert(!reused[vmcs_pfn]);
		assert(vmcs_slot == returned_slot || vmcs_slot == slot)
	:: ipi -> break
	:: true -> break
	od;
	in_mode = false;
	irqs_on();
	srcu_lock();
	if
	:: request ->
		request = false;
#ifdef FAULT_NO_REFRESH
		goto enter
#else
		goto use
#endif
	:: else ->
		if
		:: goto enter		/* an exit that L0 handles */
		:: user = false;	/* to L1 and back, by a way that sleeps */
			srcu_unlock();
end:			srcu_lock();
			goto use
		:: user = false;	/* out of L2, by user space */
			leave();
			goto use
		:: done == ALL ->	/* or by the end of the VM */
			user = false;
			memory_goes();
			leave();
			srcu_unlock()
		fi
	fi
}

/* Makes the request, and waits until the vCPU is out of guest mode. */
inline kick()
{
#ifndef FAULT_NO_REQUEST
	request = true;
#endif
#ifndef FAULT_NO_WAIT
	if
	:: atomic { in_mode -> ipi = true };
		!ipi
	:: else
	fi
#endif
}

proctype event(byte addr)
{
	bool noted;
	byte old, mine;

	mn_active++;
	LOCK;
	noted = false;
	if
	:: cache_slot == addr ->
#ifdef FAULT_SKIP_INVALID
		noted = user && valid;
#else
		noted = user;
#endif
		valid = false;
#ifdef FAULT_CLEAR_USER
		user = false
#endif
	:: else
	fi;
	UNLOCK;
	if
	:: noted -> kick()
	:: else
	fi;
	/* The page is the host's now. */
	atomic {
		old = pte[addr];
		if
		:: old != NONE -> reused[old] = true; pte[addr] = NONE
		:: else
		fi
	};
	atomic { mn_seq++; mn_active-- };
	done++
}

/* rcu_assign_pointer(), synchronize_srcu(), kvm_arch_memslots_updated() */
inline activate(new)
{
	/* kvm_swap_active_memslots() lets no event be under way */
	atomic { mn_active == 0 -> slot = new; readers_gone = !srcu };
	readers_gone;
#ifndef FAULT_NO_MEMSLOT_REQUEST
	kick()
#endif
}

proctype memslots()
{
	atomic { !slots_lock -> slots_lock = true };
	activate(2);
	activate(1);
	returned_slot = 1;
	slots_lock = false;
	done++
}

init {
	byte i;

	atomic {
		pte[0] = 0; pte[1] = 1; next_page = 2;
		pfn = NONE;
		run vcpu();
		for (i : 1 .. EVENTS) {
			run event(0)
		}
#ifdef MEMSLOTS
		run memslots()
#endif
	}
}

ltl ends { <> (done == ALL) }
