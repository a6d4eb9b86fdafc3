/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/clock_near.h"

#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

#include "config/base/clock.h"

#define GOOD_NS 1000000ull /* of a look */
#define MEASURE_NS 10000000ull
#define MEASURE_MOST_NS 4000000000ull /* times 2^32 is more than fits */
#define ALIKE                                                                                      \
	1000 /* rates differ by less than one part of so many: more than any daemon slews a clock */
#define SLOWEST_32 (100ull << 32) /* a tick of 100 ns, and one of 0.1 ns */
#define FASTEST_32 ((1ull << 32) / 10)
#define LOOK_TICKS 20000 /* at most, or somebody else had the core in the middle of it */

static bool alike(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) < b / ALIKE;
}

/* Two in a row that agree: one alone may have seen a suspended machine, or another host's counter. */
static void rate_measure(struct clock_near *c, uint64_t ticks, uint64_t ns)
{
	uint64_t spent_ns = ns - c->from_ns, spent = ticks - c->from_ticks, rate_32;

	if (c->from_ns != 0 && spent_ns < MEASURE_NS)
		return;
	if (c->from_ns != 0 && spent_ns < MEASURE_MOST_NS && spent != 0) {
		rate_32 = (spent_ns << 32) / spent;
		c->ns_32 = alike(rate_32, c->measured_32) && rate_32 >= FASTEST_32 &&
					   rate_32 <= SLOWEST_32
				   ? rate_32
				   : 0;
		c->measured_32 = rate_32;
		c->for_ticks = c->ns_32 != 0 ? (GOOD_NS << 32) / c->ns_32 : 0;
	}
	c->from_ticks = ticks;
	c->from_ns = ns;
}

bool clock_near_at(struct clock_near *c, uint64_t ticks, uint64_t *ns)
{
	uint64_t since = ticks - c->at_ticks, now;

	/* A counter that went back is as far away as one that is too far ahead. */
	if (since >= c->for_ticks)
		return false;
	now = c->at_ns + (since * c->ns_32 >> 32);
	if (now > c->last_ns)
		c->last_ns = now;
	*ns = c->last_ns;
	return true;
}

uint64_t clock_near_look(struct clock_near *c, uint64_t ticks, uint64_t ns)
{
	rate_measure(c, ticks, ns);
	c->at_ticks = ticks;
	c->at_ns = ns;
	if (ns > c->last_ns)
		c->last_ns = ns;
	return c->last_ns;
}

static uint64_t boot_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#if defined(__x86_64__)
#define ADVANCED_POWER 0x80000007
#define INVARIANT_TSC (1u << 8) /* the same rate in all states, stops in none; AMD APM 3, CPUID */

static bool ticks_are_even(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(ADVANCED_POWER, &a, &b, &c, &d) && (d & INVARIANT_TSC);
}

static uint64_t ticks_now(void)
{
	return __rdtsc();
}
#else
static bool ticks_are_even(void)
{
	return false;
}

static uint64_t ticks_now(void)
{
	return 0;
}
#endif

/* Somebody who had the core between the two belongs to no look. */
static uint64_t near_look(struct clock_near *c)
{
	uint64_t before = ticks_now(), ns = boot_ns(), after = ticks_now();

	if (after - before <= LOOK_TICKS)
		return clock_near_look(c, before + (after - before) / 2, ns);
	if (ns > c->last_ns)
		c->last_ns = ns;
	return c->last_ns;
}

static uint64_t near_ns(void)
{
	static _Thread_local struct clock_near near;
	static _Thread_local enum { UNASKED, EVEN, UNEVEN } ticks;
	uint64_t ns;

	if (ticks == EVEN)
		return clock_near_at(&near, ticks_now(), &ns) ? ns : near_look(&near);
	if (ticks == UNASKED)
		ticks = ticks_are_even() ? EVEN : UNEVEN;
	return boot_ns();
}

uint64_t clock_near_us(void)
{
	return near_ns() / 1000;
}

uint64_t clock_near_ms(void)
{
	return near_ns() / 1000000;
}
