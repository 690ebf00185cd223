/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who owns a context: arch/x86/kvm/nested.c, kvm_nested_context_load() and _clear(),
 * with the protocol of struct kvm_nested_context's owner word.
 *
 * VCPUS vCPUs load blocks of L1 at their will, any KEYS of them over CONTEXTS
 * contexts, so that contexts are found, contended for and recycled all the time.
 * The replacement's choice is not modelled: any idle context may be the victim.  Nor
 * are hash buckets: a walk that finds nothing is always possible, as it is for one
 * that was led into another bucket.
 *
 * Properties (assertions; rules 2 and 5 of docs/rules.md): a context is used by one
 * vCPU at a time, by its key, and holds what was kept for this key or nothing; whoever
 * parks it has written all back; nobody sees it once the table is destroyed.  Everybody
 * gets on (no invalid end state): a load returns, with a private context at worst.
 *
 * -DFAULT_... puts in a fault, see model.t.
 */
#ifndef VCPUS
#define VCPUS	2
#endif
#ifndef CONTEXTS
#define CONTEXTS 2
#endif
#define KEYS	(CONTEXTS + 1)
#ifndef LOADS
#define LOADS	3
#endif
#define NONE	9
#define IN_USE	16

byte owner[CONTEXTS];		/* vCPU's number, and IN_USE */
byte key[CONTEXTS];
byte kept[CONTEXTS];		/* the block that its pages are of */
byte users[CONTEXTS];
bool written[CONTEXTS];
bool table_lock, destroyed;
byte alive;

/* nested_context_try_take(): @old is for those who put it back */
inline try_take(c, took, old)
{
	old = owner[c];
	if
	:: old >= IN_USE -> took = false
	:: else ->
#ifdef FAULT_NO_EXCHANGE
		owner[c] = me + IN_USE; took = true
#else
		atomic {
			if
			:: owner[c] == old -> owner[c] = me + IN_USE; took = true
			:: else -> took = false
			fi
		}
#endif
	fi
}

/* What the vendor does with it between load and clear. */
inline use(c)
{
	assert(!destroyed);
	users[c]++;
	assert(users[c] == 1);
	assert(kept[c] == NONE || kept[c] == want);
	assert(key[c] == want);
	kept[c] = want;
	written[c] = false;
	assert(users[c] == 1);
#ifdef FAULT_EARLY_PARK
	owner[c] = me;
#endif
	written[c] = true;
	assert(kept[c] == want);
	users[c]--
}

/* nested_context_park() */
inline park(c)
{
	assert(written[c]);
	owner[c] = me
}

proctype vcpu(byte me)
{
	byte want, last = NONE, c, loads, old;
	bool took;

	do
	:: loads == LOADS -> break
	:: else ->
		loads++;
		select(want : 0 .. KEYS - 1);
		took = false;

		/* nested_context_reenter() */
		if
		:: last != NONE && key[last] == want ->
			c = last;
			atomic {
				if
				:: owner[c] == me -> owner[c] = me + IN_USE; took = true
				:: else
				fi
			}
			/* Nobody had it in between, so the key is the same. */
		:: else
		fi;

		/* nested_context_try_hit(): the walk may miss one that is there */
		if
		:: !took ->
			last = NONE;
			select(c : 0 .. CONTEXTS - 1);
			if
			:: key[c] == want ->
				try_take(c, took, old);
#ifndef FAULT_NO_KEY_CHECK
				if
				:: took && key[c] != want -> owner[c] = old; took = false
				:: else
				fi
#endif
			:: else
			fi
		:: else
		fi;

		/* nested_context_miss() */
		if
		:: !took ->
			atomic { !table_lock -> table_lock = true };
			c = 0;
			do
			:: c == CONTEXTS -> break
			:: c < CONTEXTS && key[c] == want -> break
			:: else -> c++
			od;
			if
			:: c < CONTEXTS ->
				try_take(c, took, old);
				table_lock = false
			:: else ->
				/* nested_context_recycle() */
				select(c : 0 .. CONTEXTS - 1);
#ifdef FAULT_VICTIM_IN_USE
				owner[c] = me + IN_USE; took = true;
#else
				try_take(c, took, old);
#endif
				if
				:: took -> key[c] = want
				:: else
				fi;
				table_lock = false;
				/* reset_context(), which may sleep */
#ifndef FAULT_NO_RESET
				if
				:: took -> kept[c] = NONE
				:: else
				fi
#endif
			fi
		:: else
		fi;

		if
		:: took ->
			use(c);
			park(c);
			last = c
		:: else				/* a private context, in no table */
		fi
	od;
	alive--
}

/* kvm_nested_context_table_destroy(): the last vCPU is gone */
proctype destroy()
{
#ifndef FAULT_EARLY_DESTROY
	alive == 0;
#endif
	destroyed = true
}

init {
	byte i;

	atomic {
		for (i : 0 .. CONTEXTS - 1) {
			key[i] = i; kept[i] = NONE; written[i] = true
		}
		alive = VCPUS;
		for (i : 1 .. VCPUS) {
			run vcpu(i)
		}
		run destroy()
	}
}
