/* SPDX-License-Identifier: GPL-3.0-or-later */
/* cpus: the cores that the dataplane's workers have to themselves, or share with us. */
#pragma once

#include <sched.h>

/** gateway.cfg's `lcores`: numbers and ranges with commas between. Whatever else it is: no core at all. */
void cpus_read(const char *text, cpu_set_t *out);
