/* SPDX-License-Identifier: GPL-2.0 */
#ifndef STAND_IN_MODULE_H
#define STAND_IN_MODULE_H

#define module_param(name, type, perm) _Static_assert(sizeof(name), "")
#define MODULE_PARM_DESC(name, desc) _Static_assert(sizeof(name), "")
#define EXPORT_SYMBOL_GPL(name) _Static_assert(sizeof(&(name)), "")

#endif
