/* SPDX-License-Identifier: GPL-3.0-or-later */
/* memory: what lwIP takes from the heap: control blocks, segments to send, received bytes that had to be copied.
 * One count for the process, one thread. lwIP takes a failed allocation for a lost packet. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define STACK_BLOCK_BYTES ((size_t)320) /* that a control block takes: whole cache lines */

size_t stack_mem_used(void); /* bytes */
void stack_mem_limit(size_t bytes);

/** Seven eighths of the limit are taken: no new data, so that acknowledgements and ends of connections still find room. */
bool stack_mem_scarce(void);
/** Fifteen sixteenths: not even a little, of anybody's. */
bool stack_mem_spent(void);
