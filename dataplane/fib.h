/* SPDX-License-Identifier: GPL-3.0-or-later */
/* fib: where an address goes. The control thread keeps the list of routes and builds from it an immutable table:
 * nested prefixes are cut into disjoint ranges, the longest wins, and a lookup is one binary search over 16-byte
 * numbers for both families. For IPv4 the first bits of the address say where to search: the more routes, the more bits,
 * at most 16 (256 kB). An edge gateway has tens to thousands of routes: the table stays in the cache, where DPDK's
 * rte_lpm and rte_fib would take 64 MB each a family. Published with one pointer, freed after a grace period. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"

struct nexthop {
	struct ip_addr gateway;
	_Atomic uint64_t
		mac; /* of the gateway, neigh_pack(); 0 = unknown. Control thread writes, workers read */
	uint16_t port; /* or MSG_PORT_KERNEL */
	uint16_t vlan;
	uint16_t mtu_bytes; /* 0: the port's */
	uint8_t kind; /* enum route_kind */
	bool has_gateway;
	bool v4; /* ::/0 does not carry IPv4 */
};

struct fib;

/** @return NULL: no route. Any worker, while it holds the fib. */
const struct nexthop *fib_lookup(const struct fib *f, const struct ip_addr *a);

/* Control thread. */
struct routes;

int routes_new(struct routes **out);
void routes_free(struct routes *r); /* NULL is a no-op */
/** Note a route (replaces an equal prefix) or its removal. @return 0, -EINVAL (prefix), -ENOMEM */
int routes_add(struct routes *r, const struct msg_route *m, uint16_t mark);
int routes_del(struct routes *r, const struct msg_route *m);
/** Forget those without this mark. */
void routes_sweep(struct routes *r, uint16_t mark);
uint32_t routes_count(const struct routes *r); /* right after a build */
bool routes_dirty(const struct routes *r); /* changed since the last build */

/** @param[out] out  caller owns, fib_free() @return 0 or -ENOMEM */
int fib_build(struct fib **out, struct routes *r);
void fib_free(struct fib *f);

/** A neighbour's address is known (mac as neigh_pack()) or lost (0): set it where it is the gateway. */
void fib_set_gateway(struct fib *f, uint16_t port, uint16_t vlan, const struct ip_addr *ip,
		     uint64_t mac);
/** All next hops; valid as long as the fib. Any worker. */
const struct nexthop *fib_nexthop_array(const struct fib *f);
/** All next hops, for resolving the gateways of a new table. */
struct nexthop *fib_nexthops(struct fib *f, uint32_t *n);
