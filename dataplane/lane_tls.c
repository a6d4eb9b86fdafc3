/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The fast lane's part for what goes to TLS workers and what comes from them. */
#include <string.h>

#include "dataplane/fib.h"
#include "dataplane/lane.h"
#include "dataplane/links.h"
#include "dataplane/parse.h"
#include "dataplane/tcp.h"

#define IPV4_BYTES 20
#define IPV6_BYTES 40

/* Addresses and ports as the packet has them, out of its canonical key. */
static const struct ip_addr *src_of(const struct lane_pkt *l)
{
	return (const struct ip_addr *)(l->key + (l->reversed ? 2 : 0));
}

static const struct ip_addr *dst_of(const struct lane_pkt *l)
{
	return (const struct ip_addr *)(l->key + (l->reversed ? 0 : 2));
}

static uint16_t sport_of(const struct lane_pkt *l)
{
	return (uint16_t)(l->key[4] >> (l->reversed ? 16 : 0));
}

static uint16_t dport_of(const struct lane_pkt *l)
{
	return (uint16_t)(l->key[4] >> (l->reversed ? 0 : 16));
}

static uint8_t proto_of(const struct lane_pkt *l)
{
	return (uint8_t)(l->key[4] >> 32);
}

/* What links_hand() and limit_tls() read. */
static void pkt_from_lane(struct pkt *p, const struct lane_pkt *l)
{
	*p = (struct pkt){
		.hash = l->hash,
		.flow = l->flow,
		.in_port = l->port,
		.vlan = l->vlan,
		.l3_off = l->l3_off,
		.l4_off = l->l3_off + (l->v4 ? IPV4_BYTES : IPV6_BYTES),
		.ip_bytes = l->ip_bytes,
		.kind = PKT_FLOW,
		.flags = (l->v4 ? PKT_V4 : 0) | (l->reversed ? PKT_REVERSED : 0),
		.l4_flags = l->tcp ? PARSE_TCP_ACK : 0,
	};
	memcpy(&p->id, l->key, sizeof(p->id));
}

/* Out of a port, as the box's own: no TTL is taken. @return false: the stages have to see to it */
static bool leave(struct worker *w, struct rte_mbuf *m, struct pkt *p, struct rewrite *r,
		  uint16_t port, uint16_t mtu)
{
	if (port >= w->st->n_ports || r->mac == 0)
		return false;
	r->out = &w->st->ports[port];
	if (!port_present(r->out) || r->ip_bytes > (mtu != 0 ? mtu : r->out->mtu_bytes) ||
	    rewrite_link(m, r) == 0)
		return false;
	p->out_port = port;
	p->edge = EDGE_FORWARD;
	return true;
}

/* ---- devices ----------------------------------------------------------------------------------- */

/* What guard and divert would find has not changed. */
bool lane_to_stack(struct worker *w, struct rte_mbuf *m, struct pkt *p, const struct lane_pkt *l)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	struct flow *f = l->flow;
	const struct flow_end *e = &f->end[f->opener];
	const struct binding *b = &w->bindings[e->hint];
	const flow_word *is = (const flow_word *)&b->ip;
	const uint64_t *ip = l->key + (l->reversed ? 2 : 0);
	enum drop_reason why;

	if (f->tls_worker == 0 || !(w->tls_up >> (f->tls_worker - 1) & 1) ||
	    l->reversed != f->opener || e->slot == TRUST_SLOT_NONE || !f->counted ||
	    f->tcp != TCP_ESTAB || f->end[!f->opener].generation != w->topo)
		return false;
	if (atomic_load_explicit(&b->slot, memory_order_acquire) != e->slot ||
	    ((is[0] ^ ip[0]) | (is[1] ^ ip[1])) != 0)
		return false;
	if (b->port != l->port || b->vlan != l->vlan || !lane_mac_is(&b->mac, frame + 6) ||
	    f->origin_port != l->port || f->origin_vlan != l->vlan ||
	    !lane_mac_is(&f->origin_mac, frame + 6))
		return false;
	pkt_from_lane(p, l);
	p->src_bind = b;
	why = limit_tls(w, p);
	if (why != DROP_NONE) {
		pkt_drop(w, p, why);
		return true;
	}
	flow_passed(f, w->tick, l->ip_bytes);
	if (links_hand(w, m, f->tls_worker - 1u))
		w->stats.diverted++;
	return true;
}

bool lane_to_device(struct worker *w, struct rte_mbuf *m, struct pkt *p, const struct lane_pkt *l)
{
	const struct flow *f = l->flow;
	struct rewrite r = {.l3_off = l->l3_off, .ip_bytes = l->ip_bytes, .v4 = l->v4};

	if (f->state != FLOW_DIVERTED || f->tls_worker != l->port - PORT_LINKS + 1 ||
	    l->reversed == f->opener || f->end[!f->opener].generation != w->topo ||
	    f->origin_port >= w->st->n_ports || f->origin_vlan >= SUBINTERFACE_QINQ ||
	    !port_has_vlan(&w->st->ports[f->origin_port], f->origin_vlan))
		return false;
	r.vlan = f->origin_vlan;
	r.mac = neigh_pack(&f->origin_mac);
	return leave(w, m, p, &r, f->origin_port, 0);
}

/* ---- upstreams --------------------------------------------------------------------------------- */

int lane_from_which_upstream(const struct worker *w, const struct lane_pkt *l)
{
	if (links_listener(w->st, dst_of(l), dport_of(l), proto_of(l)) != NULL)
		return -1; /* a client's: listeners come first, as in stage_divert() */
	return links_upstream(w->st, dst_of(l), dport_of(l), src_of(l), sport_of(l), proto_of(l));
}

bool lane_from_upstream(struct worker *w, struct rte_mbuf *m, struct pkt *p,
			const struct lane_pkt *l)
{
	unsigned tls_worker = dport_of(l) % w->st->cfg.tls_workers;

	if (w->upstream[l->upstream].guarded != (uint64_t)w->topo + 1 ||
	    !(w->tls_up >> tls_worker & 1))
		return false;
	pkt_from_lane(p, l);
	(void)links_hand(w, m, tls_worker);
	return true;
}

int lane_to_which_upstream(const struct worker *w, const struct lane_pkt *l)
{
	int u = links_upstream(w->st, src_of(l), sport_of(l), dst_of(l), dport_of(l), proto_of(l));

	if (u < 0 || sport_of(l) % w->st->cfg.tls_workers != l->port - PORT_LINKS ||
	    links_listener(w->st, src_of(l), sport_of(l), proto_of(l)) != NULL)
		return -1;
	return u;
}

bool lane_to_upstream(struct worker *w, struct rte_mbuf *m, struct pkt *p, const struct lane_pkt *l)
{
	struct rewrite r = {.l3_off = l->l3_off, .ip_bytes = l->ip_bytes, .v4 = l->v4};
	uint16_t port, mtu = 0;

	if (w->upstream[l->upstream].routed != (uint64_t)w->topo + 1)
		return false;
	port = lane_network_way(w, w->upstream[l->upstream].hint, l->key + (l->reversed ? 0 : 2),
				&r, &mtu);
	return leave(w, m, p, &r, port, mtu);
}

void lane_learn_upstream(struct worker *w, unsigned u, const struct pkt *p)
{
	w->upstream[u].hint = lane_hint(w, pkt_dst(p), p->dst_bind, p->nh);
	w->upstream[u].routed = w->upstream[u].hint != 0 ? (uint64_t)w->topo + 1 : 0;
}
