// SPDX-License-Identifier: GPL-2.0
#include <linux/kvm_host.h>

#include "trace.h"

_Thread_local void (*stand_in_hook)(enum stand_in_point p);
_Thread_local int stand_in_atomic;
_Thread_local bool stand_in_no_memory;
_Thread_local struct stand_in_trace stand_in_trace;
long stand_in_allocated;
struct kvm_x86_ops kvm_x86_ops;
