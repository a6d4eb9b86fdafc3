/* SPDX-License-Identifier: GPL-3.0-or-later */
/* shared_bucket: a token bucket that several workers draw from without a lock, kept as one number, the time at which it
 * would be full again (GCRA, ITU-T I.371). rte_meter has no such form: its state belongs to one thread. Where there is
 * one worker, limit.c uses rte_meter. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SHARED_TICKS_US 64000u /* a tick is 1/64 ns: 64 bits of them last nine years */
/* Workers' clocks differ by a burst, and what one has taken is not given back to another that lags. What is later by more
 * than this was left by a slower rate: the bucket is no more than empty. */
#define SHARED_SKEW (1000000ull * SHARED_TICKS_US)
#define SHARED_FRACTION 16 /* bits behind the point, of a token's price */

struct shared_rate {
	uint64_t
		price; /* ticks of one token, with SHARED_FRACTION bits behind the point; 0: no limit */
	uint64_t depth; /* ticks of a whole burst */
};

/** @param per_s, burst  within what policy_form_check() lets pass */
static inline struct shared_rate shared_rate_of(uint64_t per_s, uint64_t burst)
{
	struct shared_rate r = {0};
	unsigned __int128 second = (unsigned __int128)SHARED_TICKS_US * 1000000 << SHARED_FRACTION;

	if (per_s == 0)
		return r;
	r.price = (uint64_t)((second + per_s - 1) / per_s);
	r.depth = (uint64_t)(((unsigned __int128)r.price * burst) >> SHARED_FRACTION);
	return r;
}

/** Take so many tokens at once. A bucket starts as 0, which is full. @return false: too few, nothing is taken */
static inline bool shared_take(_Atomic uint64_t *full, const struct shared_rate *r, uint64_t now_us,
			       uint32_t tokens)
{
	uint64_t now = now_us * SHARED_TICKS_US, next, at;
	uint64_t cost = (r->price * tokens + (1u << SHARED_FRACTION) - 1) >> SHARED_FRACTION;

	if (r->price == 0)
		return true;
	at = atomic_load_explicit(full, memory_order_relaxed);
	do {
		bool stale = at > now + r->depth + SHARED_SKEW;

		next = stale ? now + r->depth : (at > now ? at : now) + cost;
		if (!stale && next > now + r->depth)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(full, &at, next, memory_order_relaxed,
							memory_order_relaxed));
	return at <= now + r->depth;
}
