/* SPDX-License-Identifier: GPL-2.0 */
#ifndef STAND_IN_KVM_TYPES_H
#define STAND_IN_KVM_TYPES_H

#include <linux/types.h>

typedef u64 gpa_t;

#endif
