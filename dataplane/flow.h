/* SPDX-License-Identifier: GPL-3.0-or-later */
/* flow: the flow table of one worker. 96 bytes a flow, always two cache lines, beside 16 bytes of bucket, 4 of the
 * spare stack and 1 of the marks; only its worker changes it, and all but flow_peek() is that worker's, so there is no
 * lock. Never evicts: a full table refuses what is new.
 *
 * Hash: keyed folded multiplication, so that who does not know the seed cannot choose collisions. A key has two
 * buckets of eight. It goes into the first while that has room, so that a lookup mostly reads one line; when both are
 * full, one entry moves to its other bucket. The table is never more than half full. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_prefetch.h>

#include "config/base/msg.h"

#define FLOW_SEEDS 6
#define FLOW_RULE_NONE 0xffff
#define FLOW_WAYS 8
#define FLOW_BLOCK 8 /* flows that share a mark */
#define FLOW_TICK_SHIFT 6 /* a tick is 64 us: 32 bits of them last three days */

/* One end of a flow. A hint is where the fast lane finds what the end's address was last seen to be; it proves itself
 * at each use (see lane.h) and 0 is always right. */
struct flow_end {
	uint32_t slot; /* of the trust table; 0: a network */
	uint32_t
		generation; /* of the trust record, when it was admitted; FLOW_DIVERTED, of the end that did not
			      * open it: state.topo, with which its listener was there */
	uint32_t hint : 20;
	uint32_t segment : 12; /* endpoint id */
};

#define FLOW_HINT_MAX ((1u << 20) - 1)

struct flow {
	struct flow_key id __attribute__((aligned(8))); /* canonical, see parse.h */
	struct flow_end end[2]; /* of id.src, id.dst */
	uint64_t packets, bytes; /* that passed, both directions */
	uint32_t seen; /* tick when a packet last passed; without one, when the flow was made */
	union {
		struct {
			uint32_t epoch; /* of the policy that admitted or refused it, low half */
			union {
				uint32_t topo; /* of state.topo when the hints were set */
				uint32_t refused_at; /* FLOW_REFUSED: tick */
			};
		};
		struct
		{ /* FLOW_DIVERTED: of the opener's frames, with origin_port; flow_divert() */
			struct mac_addr origin_mac;
			uint16_t origin_vlan;
		};
	};
	union {
		uint16_t rule; /* or FLOW_RULE_NONE */
		struct { /* FLOW_DIVERTED */
			uint8_t origin_port;
			uint8_t tls_worker; /* that has the connection, + 1; 0: the kernel */
		};
	};
	union {
		struct {
			uint8_t state : 4; /* enum flow_state; flow_set_state(), flow_divert() */
			uint8_t opener : 1; /* 0: id.src opened it, 1: id.dst did */
			uint8_t died : 1; /* FLOW_REFUSED, and once passed packets: the next sweep reports it */
			uint8_t used : 1;
		};
		uint8_t what; /* all of that, for flow_peek(): no packet of a diverted flow writes it */
	};
	uint8_t tcp : 4; /* enum tcp_state */
	uint8_t refused : 2; /* FLOW_REFUSED: bit 0, id.src may not open; bit 1, id.dst may not */
	uint8_t metered : 1; /* a rate limit looks at its packets: not for the fast lane */
	uint8_t counted : 1; /* among its opener's flows, see limit.h */
} __attribute__((aligned(32)));

_Static_assert(sizeof(struct flow) == 96, "two cache lines, whatever the index");

struct flow_bucket {
	uint16_t tag[FLOW_WAYS];
	uint32_t index[FLOW_WAYS]; /* into flows; 0: free */
} __attribute__((aligned(64)));

struct flow_table {
	struct flow_bucket *buckets;
	struct flow *flows; /* [0] is never used */
	uint32_t *spare; /* stack of free indices */
	uint64_t *
		marks; /* of each block of flows, whose may lie in it: flow_mark(), flow_block_marks() */
	uint32_t n_spare;
	uint32_t mask; /* buckets - 1 */
	uint32_t max; /* flows */
	uint32_t high; /* no used flow has a higher index: walks end there */
	uint32_t n_refused, n_diverted; /* so that neither can fill the table */
	/* Of which flows are diverted, from where, and in which bucket a flow lies; odd: one is under way. The worker
	 * writes, flow_peek() reads. */
	_Atomic uint32_t changes;
	uint64_t seed[FLOW_SEEDS];
};

/**
 * @param seed  FLOW_SEEDS random numbers, the same for all workers
 * @return 0 or -ENOMEM, -EINVAL; *out is the caller's, flow_table_free()
 */
int flow_table_new(struct flow_table **out, uint32_t max, const uint64_t *seed, int numa_node);
void flow_table_free(struct flow_table *t); /* NULL is a no-op */
uint64_t flow_table_bytes(uint32_t max); /* of memory, a worker */

static inline uint64_t flow_fold(uint64_t a, uint64_t b)
{
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/** Of a key as five words. */
static inline uint64_t flow_hash_words(const uint64_t *seed, const uint64_t *w)
{
	return flow_fold(flow_fold(w[0] ^ seed[0], w[1] ^ seed[1]) ^ seed[4] ^ w[4],
			 flow_fold(w[2] ^ seed[2], w[3] ^ seed[3]) ^ seed[5]);
}

uint64_t flow_hash(const uint64_t *seed, const struct flow_key *id);

/** Whose the flow is. Other bits than those that choose a bucket, so that each worker uses all of its buckets. */
static inline uint16_t flow_worker(uint64_t hash, uint16_t n_workers)
{
	return n_workers == 1 ? 0 : (uint32_t)(hash >> 24) % n_workers;
}

/* Keys and addresses are compared in place, eight bytes at a time. */
typedef uint64_t __attribute__((may_alias)) flow_word;

/* ---- lookup in steps, for bursts: prefetch the bucket, then the candidate, then compare ---- */

static inline struct flow_bucket *flow_bucket_first(const struct flow_table *t, uint64_t hash)
{
	return &t->buckets[(uint32_t)hash & t->mask];
}

static inline uint16_t flow_tag(uint64_t hash)
{
	return (uint16_t)(hash >> 48);
}

/* The other bucket, from either one: the tag alone must tell the distance. */
static inline uint32_t flow_bucket_other(const struct flow_table *t, uint32_t bucket, uint16_t tag)
{
	return (bucket ^ ((tag + 1u) * 0x9e3779b1u >> 4 | 1)) & t->mask;
}

/* Four tags of a word at once: the high bit of each lane that is zero, and perhaps of lanes above one. */
static inline uint64_t flow_zero_lanes(uint64_t x)
{
	return (x - 0x0001000100010001ull) & ~x & 0x8000800080008000ull;
}

/** The first way whose tag fits, from `way` on. @return FLOW_WAYS: none */
static inline unsigned flow_bucket_match(const struct flow_bucket *b, uint16_t tag, unsigned way)
{
	for (; way < FLOW_WAYS; way++) {
		if (b->tag[way] == tag && b->index[way] != 0)
			break;
	}
	return way;
}

/**
 * Index of the flow that is likely to be looked for, in its first bucket. Reads one line.
 * @return 0: not here; flow_find() knows
 */
static inline uint32_t flow_candidate(const struct flow_table *t, uint64_t hash)
{
	const struct flow_bucket *b = flow_bucket_first(t, hash);
	uint64_t all = 0x0001000100010001ull * flow_tag(hash), half[2], hit;

	memcpy(half, b->tag, sizeof(half));
	hit = flow_zero_lanes(half[0] ^ all);
	if (hit != 0)
		return b->index[__builtin_ctzll(hit) / 16];
	hit = flow_zero_lanes(half[1] ^ all);
	return hit != 0 ? b->index[4 + __builtin_ctzll(hit) / 16] : 0;
}

static inline bool flow_key_is(const struct flow *f, const uint64_t *w)
{
	const flow_word *x = (const flow_word *)&f->id;

	return ((x[0] ^ w[0]) | (x[1] ^ w[1]) | (x[2] ^ w[2]) | (x[3] ^ w[3]) | (x[4] ^ w[4])) == 0;
}

static inline void flow_prefetch(const struct flow *f)
{
	rte_prefetch0(f);
	rte_prefetch0((const char *)f + 64);
}

/* The place of the flow that is made next (n = 0), or after n others. */
static inline void flow_prefetch_next(const struct flow_table *t, uint32_t n)
{
	if (n < t->n_spare)
		flow_prefetch(&t->flows[t->spare[t->n_spare - 1 - n]]);
}

/** @return NULL if there is none */
struct flow *flow_find(const struct flow_table *t, const struct flow_key *id, uint64_t hash);

/** The same for n keys, with prefetch; out[i] NULL if there is none. n <= 32. */
void flow_find_bulk(const struct flow_table *t, const struct flow_key *const *id,
		    const uint64_t *hash, unsigned n, struct flow **out);

struct flow_origin { /* of the frames of who opened a diverted flow */
	struct mac_addr mac;
	uint16_t vlan;
	uint8_t port;
};

/**
 * Where a diverted flow comes from, asked by any thread while the table's worker goes on. Takes no lock and leaves no
 * trace: what was read counts only if `changes` was even and is the same after it. What the worker stored before a
 * message that the asker has got since is seen. The table must not be freed meanwhile.
 * @param[out] out  untouched unless 1 is returned
 * @return 1; 0: no diverted flow has this key; -EAGAIN: there was a change during each try (the worker may have been
 *         stopped amid one): ask the worker
 */
int flow_peek(const struct flow_table *t, const struct flow_key *id, uint64_t hash,
	      struct flow_origin *out);

/** A zeroed flow with this key, which must not be in the table. @return NULL: table full */
struct flow *flow_insert(struct flow_table *t, const struct flow_key *id, uint64_t hash);
void flow_remove(struct flow_table *t, struct flow *f);

/** Change the state, keeping the table's counts. FLOW_DIVERTED comes by flow_divert(), and may go by this. */
void flow_set_state(struct flow_table *t, struct flow *f, uint8_t state);

/** Make it FLOW_DIVERTED from this origin, in one step for flow_peek(), with no TLS worker. It is not diverted yet. */
void flow_divert(struct flow_table *t, struct flow *f, const struct flow_origin *from);

/* By what a sweep for the devices of some slots finds a flow: a bit of each end's device; of one between networks the first. */
static inline uint64_t flow_marks_of(const struct flow *f)
{
	uint32_t a = f->end[0].slot, b = f->end[1].slot;

	return (a != 0 || b == 0 ? 1ull << a % 64 : 0) | (b != 0 ? 1ull << b % 64 : 0);
}

/** Of a flow whose ends were just admitted: a sweep must find it, until it is gone and was seen to be. */
static inline void flow_mark(struct flow_table *t, const struct flow *f)
{
	t->marks[(uint32_t)(f - t->flows) / FLOW_BLOCK] |= flow_marks_of(f);
}

/** Is it a sweep's business? What is refused or at a listener is not, but for what has died since. */
static inline bool flow_is_swept(const struct flow *f)
{
	return f->used && f->state != FLOW_DIVERTED && (f->state != FLOW_REFUSED || f->died);
}

static inline uint32_t flow_blocks(const struct flow_table *t) /* that may have flows */
{
	return t->high / FLOW_BLOCK + 1;
}

/** Of flows that went away, marks stay until this takes them. */
void flow_block_marks(struct flow_table *t, uint32_t block);

/** A packet passed. */
static inline void flow_passed(struct flow *f, uint32_t tick, uint16_t ip_bytes)
{
	f->packets++;
	f->bytes += ip_bytes;
	f->seen = tick;
}

static inline uint32_t flow_tick(uint64_t boot_us)
{
	return (uint32_t)(boot_us >> FLOW_TICK_SHIFT);
}

/** Milliseconds from one tick to a later one; a tick after `now` is now. */
static inline uint64_t flow_ticks_ms(uint32_t now, uint32_t since)
{
	int32_t ticks = (int32_t)(now - since);

	return ticks > 0 ? ((uint64_t)ticks << FLOW_TICK_SHIFT) / 1000 : 0;
}

/** Of a refusal: it takes the place of a hint. */
static inline uint8_t flow_reason(const struct flow *f)
{
	return f->end[0].hint;
}

static inline uint32_t flow_count(const struct flow_table *t)
{
	return t->max - t->n_spare;
}
