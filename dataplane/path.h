/* SPDX-License-Identifier: GPL-3.0-or-later */
/* path: the packet path. path.c reads as its contents page; each stage has a file.
 * Every stage takes a burst, gives the packets that go on to `out`, and sets the edge of all others.
 * No stage frees or sends: only emit.c does. */
#pragma once

#include <stdint.h>

#include "dataplane/pkt.h"
#include "dataplane/worker.h"

/**
 * Judge and rewrite a burst that was received on one port. No port is touched: it runs without ethdevs.
 * On return each packet's pkt_of(m)->edge says where it goes:
 *   EDGE_DROP     with ->reason (counted in w->stats.drops)
 *   EDGE_FORWARD  out of ->out_port; the frame is rewritten (MACs, VLAN tag, TTL); of PORT_LINKS + N: to TLS worker N
 *   EDGE_KERNEL   to the shadow of ->in_port; the frame is untouched
 *   EDGE_AWAY     (only with several workers) to flow_worker(hash): path_run(PORT_ANY) there
 * Call worker_pin() before. mbufs need a private area of sizeof(struct pkt); the caller keeps them.
 * Rules beyond the policy's entries that a reference evaluator must know:
 *   - a network end is never behind a device port: such a destination is NO_SEGMENT, such a source REVERSE_PATH;
 *   - refusals are cached a direction, for cfg.refused_ms: REFUSED_CACHED instead of the first reason;
 *   - destinations that are ROUTE_LOCAL, ROUTE_DROP or behind MSG_PORT_KERNEL, on-link ones, and unusual packets
 *     (options, TTL <= 1, later fragments, other protocols) are the kernel's without a judgement here;
 *   - for cfg.pickup_ms after the first sync, a TCP packet mid-stream or a UDP packet may open its flow, also as the
 *     answer of the other end;
 *   - an unknown neighbour or a packet above the MTU is judged, then the kernel's;
 *   - limits (limit.h) come on top: a packet that would pass may die of a rate, a flow of a cap.
 *   - what TLS workers send (port_is_link(port)) is judged by stage_link() alone, or by the lane in its place.
 * @param port  index of the ingress port, or PORT_ANY
 */
void path_run(struct worker *w, struct burst *in, uint16_t port);
#define PORT_ANY 0xffff /* pkt_of(m)->in_port is set: from another worker */

/** One packet, by every stage and never the fast lane; r says what each made of it (trace.h). */
void path_run_noted(struct worker *w, struct rte_mbuf *m, struct msg_traced *r);

/* The stages, in order. */
void stage_lane(struct worker *w, struct burst *in, uint16_t port, struct burst *out);
void stage_parse(struct worker *w, struct burst *in, struct burst *out);
void stage_spread(struct worker *w, struct burst *in, struct burst *out);
void stage_link(struct worker *w, struct burst *in, struct burst *out);
void stage_guard(struct worker *w, struct burst *in, struct burst *out);
void stage_divert(struct worker *w, struct burst *in, struct burst *out);
void stage_route(struct worker *w, struct burst *in, struct burst *out);
void stage_flow(struct worker *w, struct burst *in, struct burst *out);
void stage_rewrite(struct worker *w, struct burst *in);

/** The flow that an ICMP error speaks of. @param[out] sender  of the quoted packet @return false: of none */
bool error_flow(struct rte_mbuf *m, const struct pkt *p, struct flow_key *id,
		struct ip_addr *sender);

/** Is this packet for an mTLS listener? */
bool divert_wants(const struct state *st, const struct pkt *p);

/** The MAC address of p->nh or, without a gateway, of the packet's destination; neigh_pack(). @return 0: not known */
uint64_t rewrite_neighbour(const struct worker *w, const struct pkt *p);

/** Put each packet into the buffer of its edge, free the dropped ones. */
void emit_burst(struct worker *w, struct burst *in);
/** Put one packet, which is on EDGE_FORWARD or EDGE_KERNEL, into its buffer. */
void emit_put(struct worker *w, struct rte_mbuf *m);
/** Send what the buffers hold, and what waits for TLS workers. @return packets of the buffers, and that wait still: with
 * any, the worker must not sleep */
unsigned emit_flush(struct worker *w);

/** Hand a packet to the worker of its flow. */
static inline void path_away(struct rte_mbuf *m, uint16_t in_port, uint64_t hash)
{
	pkt_of(m)->in_port = in_port;
	pkt_of(m)->hash = hash;
	pkt_of(m)->edge = EDGE_AWAY;
}

/** Let a packet die here. */
static inline void pkt_drop(struct worker *w, struct pkt *p, enum drop_reason why)
{
	p->edge = EDGE_DROP;
	p->reason = why;
	w->stats.drops[why]++;
}

/** Give a packet to the kernel, or let it die if its device has sent there too much. */
static inline void pkt_to_kernel(struct worker *w, struct pkt *p)
{
	enum drop_reason why = limit_kernel(w, p);

	if (why != DROP_NONE)
		pkt_drop(w, p, why);
	else
		p->edge = EDGE_KERNEL;
}
