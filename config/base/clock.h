/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clock: the two clocks. Expiries are kept on the boot clock (CLOCK_BOOTTIME: never jumps, counts suspend);
 * certificates and decisions speak wall clock. Pure code gets a time as an argument and never calls these. */
#pragma once

#include <stdint.h>

#define CLOCK_NEVER_MS UINT64_MAX /* an expiry that does not come */

uint64_t clock_boot_ms(void);
uint64_t clock_boot_us(void);
uint64_t clock_wall_ms(void); /* since 1970 UTC */

/**
 * A wall-clock moment on the boot clock, given both clocks' present readings.
 * Moments before boot become 0, which is always in the past.
 */
static inline uint64_t clock_boot_of_wall(uint64_t wall_ms, uint64_t now_wall_ms,
					  uint64_t now_boot_ms)
{
	if (wall_ms == CLOCK_NEVER_MS)
		return CLOCK_NEVER_MS;
	if (wall_ms >= now_wall_ms)
		return now_boot_ms + (wall_ms - now_wall_ms);
	return now_boot_ms > now_wall_ms - wall_ms ? now_boot_ms - (now_wall_ms - wall_ms) : 0;
}
