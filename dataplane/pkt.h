/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pkt: what the stages know about a packet. Lives in the mbuf's private area, so it costs no allocation and travels
 * with the packet from worker to worker. Written by the worker that holds the mbuf. */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"

#define BURST_MAX 32 /* also half of rte_hash's bulk limit: both ends of a packet in one lookup */

enum pkt_kind {
	PKT_OTHER, /* nothing that the fast path judges: the kernel's, after the source guard */
	PKT_FLOW, /* TCP, UDP or ICMP echo with its whole header */
	PKT_ICMP_ERROR,
	PKT_ARP,
	PKT_ND, /* RFC 4861 and MLD: what IPv6 needs on the link itself */
};

#define PKT_V4 1u
#define PKT_FRAGMENT 2u /* any fragment; PKT_FLOW if it is the first */
#define PKT_UNUSUAL                                                                                \
	4u /* options, routing header, TTL at its end, link-layer group address: the kernel's */
#define PKT_ON_LINK 8u /* link-local, multicast or broadcast: never forwarded */
#define PKT_REVERSED 16u /* the packet goes from id.dst to id.src */
#define PKT_STRANGER 32u /* device side, source without a binding */
#define PKT_REPLY 64u /* ICMP echo reply: opens nothing */

enum pkt_edge {
	EDGE_DROP, /* 0: fail closed */
	EDGE_FORWARD, /* out of out_port, rewritten */
	EDGE_KERNEL, /* to the shadow of in_port, as it came */
	EDGE_AWAY, /* to the worker that owns the flow */
};

struct binding;
struct flow;
struct nexthop;

struct pkt {
	struct flow_key id; /* canonical: the same for both directions of a flow */
	uint64_t hash; /* of id */
	const struct binding *src_bind, *dst_bind; /* NULL: not a device. Valid for this burst */
	struct flow *flow;
	const struct nexthop *nh; /* EDGE_FORWARD's way out; valid for this burst */
	uint16_t in_port, vlan; /* ingress; vlan 0: no tag */
	uint16_t out_port;
	uint16_t l3_off, l4_off;
	uint16_t ip_bytes; /* of the IP packet, without link-layer padding */
	uint8_t kind; /* enum pkt_kind */
	uint8_t flags; /* PKT_* */
	uint8_t l4_flags; /* TCP: flags byte. ICMP: type */
	uint8_t edge; /* enum pkt_edge; where it left the path */
	uint8_t reason; /* enum drop_reason of EDGE_DROP */
};

_Static_assert(sizeof(struct pkt) <= 128, "two cache lines in front of the data");

struct burst {
	uint16_t n;
	struct rte_mbuf *pkt[BURST_MAX];
};

static inline struct pkt *pkt_of(struct rte_mbuf *m)
{
	return rte_mbuf_to_priv(m);
}

static inline void burst_push(struct burst *b, struct rte_mbuf *m)
{
	b->pkt[b->n++] = m;
}

static inline const struct ip_addr *pkt_src(const struct pkt *p)
{
	return (p->flags & PKT_REVERSED) ? &p->id.dst : &p->id.src;
}

static inline const struct ip_addr *pkt_dst(const struct pkt *p)
{
	return (p->flags & PKT_REVERSED) ? &p->id.src : &p->id.dst;
}

static inline uint16_t pkt_dport(const struct pkt *p)
{
	return (p->flags & PKT_REVERSED) ? p->id.sport : p->id.dport;
}

static inline uint16_t pkt_sport(const struct pkt *p)
{
	return (p->flags & PKT_REVERSED) ? p->id.dport : p->id.sport;
}
