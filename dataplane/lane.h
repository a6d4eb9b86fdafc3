/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lane: the fast lane. A packet whose flow is established, and of which nothing has changed since a packet of it last
 * took the other stages, needs neither of them: the flow remembers where its ends' entries lie (hints), and each entry
 * proves itself when it is used.
 *   - end is a device: the binding at the hint still is this address's, of the slot that was admitted; the trust record
 *     of the slot is current. As a source, the frame's port, VLAN and MAC are the binding's.
 *   - end is a network: no route, and no binding of an address that is routed elsewhere, has changed (state.topo); as
 *     a source, the port is an uplink. As a destination, the gateway or the neighbour at the hint has a MAC now.
 *   - the policy's epoch is the one that admitted the flow.
 *   - the packet changes no connection's state, fits the way out, and is what parse_frame() calls a usual TCP or UDP
 *     packet.
 * So it is for what TLS workers get and send (lane_tls.c), since routes, bindings and listeners changed last:
 *   - a device's packet to a listener of their stack, once its record says which worker has the connection (the binding
 *     alone counts, not the device's trust: that is the worker's to judge); it is the one that limits.device.tls_packets
 *     may let die here;
 *   - that worker's answer, which goes to where the record says that the device's frames came from;
 *   - what a worker sends to an upstream, once a packet to it has taken the other stages;
 *   - an upstream's answer, once the guard has taken one.
 * Whatever is not so is left to the stages, which see the frame as it came. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/path.h"
#include "dataplane/rewrite.h"

/* The hint of a network is a neighbour's index, and this; else a next hop's, + 1. */
#define LANE_HINT_NEIGH (1u << 19)

struct lane_pkt {
	uint64_t key[5]; /* struct flow_key as words, canonical */
	uint64_t hash;
	struct flow *flow;
	int upstream; /* of TLS workers, that it comes from or goes to; if there is no flow */
	uint16_t port; /* ingress */
	uint16_t l3_off, vlan, ip_bytes;
	bool reversed; /* as PKT_REVERSED */
	bool v4;
	bool tcp;
};

/**
 * The part of parse_frame() that the lane needs. Pure.
 * @param bytes  of the frame, all in one segment
 * @return false: not for the lane, *out is undefined. true: parse_frame() would give this key and no flag that the
 *         lane would have to heed, provided that a flow with this key has passed it
 */
bool lane_parse(const struct port *port, const uint8_t *frame, uint32_t bytes,
		struct lane_pkt *out);

/** Would the flow's ends be taken by the lane? True means admission_current(); false means nothing. */
bool lane_current(const struct worker *w, const struct flow *f);

/** A packet of this flow passed the stages: set the hints from what they found. */
void lane_learn(const struct worker *w, struct flow *f, const struct pkt *p);

/** Where the lane will find this end again; 0: only the stages know the way. */
uint32_t lane_hint(const struct worker *w, const struct ip_addr *ip, const struct binding *b,
		   const struct nexthop *nh);

/* ---- TLS workers: lane_tls.c. `true` of a packet: it is on its way, or was dropped and counted ---- */

/** The upstream that a packet by an uplink answers for. @return its index, or -1: none */
int lane_from_which_upstream(const struct worker *w, const struct lane_pkt *l);
bool lane_from_upstream(struct worker *w, struct rte_mbuf *m, struct pkt *p,
			const struct lane_pkt *l);
/** The upstream that a packet by a link is for. @return its index, or -1: none, or not this worker's to send */
int lane_to_which_upstream(const struct worker *w, const struct lane_pkt *l);
bool lane_to_upstream(struct worker *w, struct rte_mbuf *m, struct pkt *p,
		      const struct lane_pkt *l);
/** A packet to this upstream (index u) passed stage_link() by p->nh: remember the way. */
void lane_learn_upstream(struct worker *w, unsigned u, const struct pkt *p);
/** A packet of a device's connection to a listener. */
bool lane_to_stack(struct worker *w, struct rte_mbuf *m, struct pkt *p, const struct lane_pkt *l);
/** A worker's packet of such a connection. */
bool lane_to_device(struct worker *w, struct rte_mbuf *m, struct pkt *p, const struct lane_pkt *l);

/* ---- for both files ---- */

/* Six bytes; memcmp() would be a call. */
static inline bool lane_mac_is(const struct mac_addr *mac, const uint8_t *b)
{
	uint32_t head[2];
	uint16_t tail[2];

	memcpy(&head[0], mac->b, sizeof(head[0]));
	memcpy(&head[1], b, sizeof(head[1]));
	memcpy(&tail[0], mac->b + 4, sizeof(tail[0]));
	memcpy(&tail[1], b + 4, sizeof(tail[1]));
	return ((head[0] ^ head[1]) | (uint32_t)(tail[0] ^ tail[1])) == 0;
}

/* The way to a network end. @param ip  where it goes, as words @param[out] mtu  of the route; untouched: the port's
 * @return the port's index, with MAC (0: unknown) and VLAN in *r, or MSG_PORT_KERNEL: the hint proves nothing any more */
static inline uint16_t lane_network_way(const struct worker *w, uint32_t hint, const uint64_t *ip,
					struct rewrite *r, uint16_t *mtu)
{
	uint32_t at = hint & (LANE_HINT_NEIGH - 1);

	if (hint == 0)
		return MSG_PORT_KERNEL;
	if (hint & LANE_HINT_NEIGH) {
		const struct neigh *n = &w->neighs[at];
		const flow_word *is = (const flow_word *)&n->ip;

		r->mac = atomic_load_explicit(&n->mac, memory_order_acquire);
		r->vlan = n->vlan;
		return ((is[0] ^ ip[0]) | (is[1] ^ ip[1])) == 0 ? n->port : MSG_PORT_KERNEL;
	}
	r->mac = atomic_load_explicit(&w->nexthops[at - 1].mac, memory_order_acquire);
	r->vlan = w->nexthops[at - 1].vlan;
	*mtu = w->nexthops[at - 1].mtu_bytes;
	return w->nexthops[at - 1].port;
}
