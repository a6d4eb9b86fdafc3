/* SPDX-License-Identifier: GPL-3.0-or-later */
/* bind: which addresses are devices', and which MAC addresses hosts on the links have. The control thread writes,
 * workers look up without a lock. Entries lie in arrays, so that a flow can remember an entry's index as a hint. An
 * entry is filled before it is published, emptied first when it is removed, and used again only after a grace period
 * of the workers: whoever finds it published during a burst finds it unchanged to the burst's end. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_rcu_qsbr.h>

#include "config/base/err.h"
#include "config/base/msg.h"

struct binding { /* control thread writes, workers read */
	struct ip_addr ip __attribute__((aligned(8)));
	struct mac_addr mac;
	uint16_t port;
	uint16_t vlan;
	uint16_t mark; /* control thread's own */
	_Atomic uint32_t slot; /* of the trust table; 0: this entry is none (now) */
};

_Static_assert(sizeof(struct binding) == 32, "two bindings a cache line");

#define BINDINGS_MAX ((1u << 20) - 1) /* what a flow's hint can name */

struct bindings;

/** @param qsbr  of the workers, borrowed @return 0, -EINVAL (more than BINDINGS_MAX) or -ENOMEM */
int bindings_new(struct bindings **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err);
void bindings_free(struct bindings *b); /* NULL is a no-op */

/** Bind, replacing the IP's earlier binding. @return 1, 0 (it was so already), -ENOSPC, -ENOMEM */
int bindings_add(struct bindings *b, const struct msg_bind *m, uint16_t mark);
/** In force at all workers on return. @return 0 or -ENOENT */
int bindings_del(struct bindings *b, const struct ip_addr *ip);
/** Remove all that do not carry this mark. @return how many */
uint32_t bindings_sweep(struct bindings *b, uint16_t mark);
uint32_t bindings_count(const struct bindings *b);

/** Any worker, between two quiescent states. @return NULL: the address is no device's */
const struct binding *bindings_find(const struct bindings *b, const struct ip_addr *ip);
/** n <= 64; out[i] NULL if there is none. */
void bindings_find_bulk(const struct bindings *b, const struct ip_addr **ip, unsigned n,
			const struct binding **out);
/** All entries; an entry's index is its place here, 1..max. */
const struct binding *bindings_array(const struct bindings *b);

/* A host on a link of ours, as the kernel's neighbour table has it. */
struct neigh { /* control thread writes, workers read */
	struct ip_addr ip __attribute__((aligned(8)));
	_Atomic uint64_t mac; /* neigh_pack(); 0: this entry is none (now) */
	uint16_t port, vlan;
	uint16_t mark; /* control thread's own */
};

_Static_assert(sizeof(struct neigh) == 32, "two neighbours a cache line");

#define NEIGHS_LIMIT ((1u << 19) - 1) /* what a flow's hint can name, beside its kind */

struct neighs;

int neighs_new(struct neighs **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err);
void neighs_free(struct neighs *n);
/** @param[out] moved  may be NULL; set if a hint to the entry would now lead to another port or VLAN */
int neighs_add(struct neighs *n, const struct msg_neigh *m, uint16_t mark, bool *moved);
int neighs_del(struct neighs *n, const struct msg_neigh *m);
uint32_t neighs_count(const struct neighs *n);
uint32_t neighs_sweep(struct neighs *n, uint16_t mark);
/** Any worker. @return NULL: unknown */
const struct neigh *neighs_find(const struct neighs *n, uint16_t port, uint16_t vlan,
				const struct ip_addr *ip);
/** The MAC's 48 bits, first byte lowest, with NEIGH_KNOWN set; 0 if unknown. */
uint64_t neighs_mac(const struct neighs *n, uint16_t port, uint16_t vlan, const struct ip_addr *ip);
const struct neigh *neighs_array(const struct neighs *n);

#define NEIGH_KNOWN (1ull << 48)

_Static_assert(RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN, "a MAC is the low end of a word");

static inline uint64_t neigh_pack(const struct mac_addr *mac)
{
	uint32_t low;
	uint16_t high;

	/* In two parts: eight bytes read after six were written would wait for the store. */
	memcpy(&low, mac->b, sizeof(low));
	memcpy(&high, mac->b + sizeof(low), sizeof(high));
	return NEIGH_KNOWN | (uint64_t)high << 32 | low;
}

static inline void neigh_unpack(uint64_t v, uint8_t *six)
{
	uint32_t low = (uint32_t)v;
	uint16_t high = (uint16_t)(v >> 32);

	memcpy(six, &low, sizeof(low));
	memcpy(six + sizeof(low), &high, sizeof(high));
}
