/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clock_near: the boot clock for those who ask at each packet or record. Between two looks at the real one it goes by the
 * processor's counter of ticks, at the rate that was measured between former looks. In one thread it never goes backwards,
 * and it is off by at most CLOCK_NEAR_OFF_US; where the machine ticks evenly by less than a microsecond. Where the
 * processor does not promise an even counter, and until the rate was measured twice alike, it is the real clock.
 * A machine that was suspended, or moved to another host (whose counter may be up to ten times slower), measures anew. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NEAR_OFF_US 10000

/** The boot clock, nearly; see clock_boot_us(). Any thread. */
uint64_t clock_near_us(void);
uint64_t clock_near_ms(void);

/* ---- what it is made of; pure, for the tests ---------------------------------------------------- */

struct clock_near {
	uint64_t at_ticks, at_ns; /* the last look */
	uint64_t for_ticks; /* it is good for so many */
	uint64_t ns_32; /* of a tick, times 2^32; 0: not known */
	uint64_t last_ns; /* that was told */
	uint64_t from_ticks, from_ns; /* the rate is being measured from here on */
	uint64_t measured_32; /* the last time */
};

/** @param[out] ns  the time at that tick @return false: not known, look at the real clock */
bool clock_near_at(struct clock_near *c, uint64_t ticks, uint64_t *ns);

/** The real clock was looked at. @return the time that is told: not before one that was told already */
uint64_t clock_near_look(struct clock_near *c, uint64_t ticks, uint64_t ns);
