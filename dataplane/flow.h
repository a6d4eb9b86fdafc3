/* SPDX-License-Identifier: GPL-3.0-or-later */
/* flow: the flow table of one worker. Two cache lines a flow, beside 16 bytes of bucket; only its worker touches it,
 * so there is no lock and no atomic. Never evicts: a full table refuses what is new.
 *
 * Hash: keyed folded multiplication, so that who does not know the seed cannot choose collisions. A key has two
 * buckets of eight and goes into the emptier; the table is never more than half full, so both being full does not
 * happen by chance. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/msg.h"

#define FLOW_SEEDS 6
#define FLOW_RULE_NONE 0xffff

struct flow {
	/* Line 1: read by every packet, written at admission. */
	struct flow_key id; /* canonical, see parse.h */
	uint32_t slot[2]; /* of id.src, id.dst; 0: a network */
	uint32_t generation[2]; /* of their trust records */
	uint64_t epoch; /* of the policy that admitted it */
	/* Line 2: written by every packet. */
	uint64_t last_us; /* boot clock, a packet last passed; 0 = never */
	uint64_t seen_ms; /* boot clock, for ageing; FLOW_REFUSED: when it was refused */
	uint64_t packets, bytes; /* that passed, both directions */
	uint16_t segment[2]; /* endpoint ids of id.src, id.dst */
	uint16_t rule; /* or FLOW_RULE_NONE */
	uint16_t port_in, vlan_in; /* of the opener */
	struct mac_addr mac; /* of the opener's frames */
	uint8_t state; /* enum flow_state */
	uint8_t tcp; /* enum tcp_state */
	uint8_t opener; /* 0: id.src opened it, 1: id.dst did */
	uint8_t refused; /* FLOW_REFUSED: bit 0, id.src may not open; bit 1, id.dst may not */
	uint8_t reason; /* of the refusal */
	bool died; /* FLOW_REFUSED, and once passed packets: the next sweep reports it */
	bool used;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct flow) == 128, "two cache lines");

struct flow_bucket {
	uint32_t tag[8];
	uint32_t index[8]; /* into flows; 0: free */
} __attribute__((aligned(64)));

struct flow_table {
	struct flow_bucket *buckets;
	struct flow *flows; /* [0] is never used */
	uint32_t *spare; /* stack of free indices */
	uint32_t n_spare;
	uint32_t mask; /* buckets - 1 */
	uint32_t max; /* flows */
	uint32_t high; /* no used flow has a higher index: walks end there */
	uint32_t n_refused, n_diverted; /* so that neither can fill the table */
	uint64_t seed[FLOW_SEEDS];
};

/**
 * @param seed  FLOW_SEEDS random numbers, the same for all workers
 * @return 0 or -ENOMEM, -EINVAL; *out is the caller's, flow_table_free()
 */
int flow_table_new(struct flow_table **out, uint32_t max, const uint64_t *seed, int numa_node);
void flow_table_free(struct flow_table *t); /* NULL is a no-op */

uint64_t flow_hash(const uint64_t *seed, const struct flow_key *id);

/** @return NULL if there is none */
struct flow *flow_find(const struct flow_table *t, const struct flow_key *id, uint64_t hash);

/** The same for n keys, with prefetch; out[i] NULL if there is none. n <= 32. */
void flow_find_bulk(const struct flow_table *t, const struct flow_key *const *id,
		    const uint64_t *hash, unsigned n, struct flow **out);

/** A zeroed flow with this key, which must not be in the table. @return NULL: table full */
struct flow *flow_insert(struct flow_table *t, const struct flow_key *id, uint64_t hash);
void flow_remove(struct flow_table *t, struct flow *f);

/** Change the state, keeping the table's counts. */
void flow_set_state(struct flow_table *t, struct flow *f, uint8_t state);

static inline uint32_t flow_count(const struct flow_table *t)
{
	return t->max - t->n_spare;
}
