/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What TLS workers send: is it theirs to send, and which way does it go? */
#include <netinet/in.h>

#include <rte_prefetch.h>

#include "dataplane/lane.h"
#include "dataplane/links.h"
#include "dataplane/path.h"
#include "dataplane/rewrite.h"
#include "dataplane/too_big.h"

enum leg { LEG_NONE, LEG_DEVICE, LEG_UPSTREAM };

/* Default is none: a worker that was taken over must not speak as anybody else, nor to anybody else.
 * @param[out] upstream  of LEG_UPSTREAM */
static enum leg leg_of(const struct state *st, const struct pkt *p, unsigned *upstream)
{
	unsigned tls_worker = p->in_port - PORT_LINKS;
	const struct msg_listener *l = links_listener(st, pkt_src(p), pkt_sport(p), p->id.proto);
	int u;

	if (l != NULL)
		return l->stack ? LEG_DEVICE : LEG_NONE;
	u = links_upstream(st, pkt_src(p), pkt_sport(p), pkt_dst(p), pkt_dport(p), p->id.proto);
	if (u < 0 || pkt_sport(p) % st->cfg.tls_workers != tls_worker)
		return LEG_NONE;
	*upstream = (unsigned)u;
	return LEG_UPSTREAM;
}

/* The way that the connection's frames came by. */
static bool way_back(const struct worker *w, const struct pkt *p, struct rewrite *r, uint16_t *port)
{
	const struct flow *f = flow_find(w->flows, &p->id, p->hash);
	const struct origin *o;

	if (f != NULL && f->state == FLOW_DIVERTED && f->tls_worker != 0) {
		*port = f->origin_port;
		r->vlan = f->origin_vlan;
		r->mac = neigh_pack(&f->origin_mac);
	} else {
		o = origins_find(w->origins, p->hash, w->tick);
		if (o == NULL)
			return false;
		*port = o->port;
		r->vlan = o->vlan;
		r->mac = neigh_pack(&o->mac);
	}
	/* The port may be another now. */
	return *port < w->st->n_ports && port_present(&w->st->ports[*port]) &&
	       (r->vlan >= SUBINTERFACE_QINQ || port_has_vlan(&w->st->ports[*port], r->vlan));
}

static enum drop_reason way_by_route(const struct worker *w, struct pkt *p, struct rewrite *r,
				     uint16_t *port, uint16_t *mtu)
{
	p->nh = w->fib != NULL ? fib_lookup(w->fib, pkt_dst(p)) : NULL;
	if (p->nh == NULL || p->nh->kind != ROUTE_FORWARD || p->nh->port >= w->st->n_ports ||
	    (p->flags & PKT_ON_LINK))
		return DROP_NO_ROUTE;
	if (!port_present(&w->st->ports[p->nh->port]))
		return DROP_NO_PORT;
	*port = p->nh->port;
	*mtu = p->nh->mtu_bytes;
	r->vlan = p->nh->vlan;
	r->mac = rewrite_neighbour(w, p);
	return r->mac != 0 ? DROP_NONE : DROP_NO_NEIGHBOUR;
}

/* The worker hears of it as from any router, and sends smaller segments. */
static enum drop_reason answer(struct worker *w, struct rte_mbuf *m, uint16_t mtu)
{
	struct pkt *p = pkt_of(m);

	if (p->id.proto != IPPROTO_TCP || !too_big_answer(m, mtu))
		return DROP_TLS_TOO_BIG;
	w->stats.drops[DROP_TLS_TOO_BIG]++;
	(void)links_hand(w, m, p->in_port - PORT_LINKS);
	return DROP_NONE;
}

static enum drop_reason send_on(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	struct rewrite r = {.l3_off = p->l3_off, .ip_bytes = p->ip_bytes, .v4 = p->flags & PKT_V4};
	enum drop_reason why;
	uint16_t port, mtu = 0;
	unsigned upstream = 0;
	enum leg leg;

	p->src_bind = p->dst_bind = NULL;
	if (p->kind != PKT_FLOW || (p->id.proto != IPPROTO_TCP && p->id.proto != IPPROTO_UDP) ||
	    (p->flags & (PKT_FRAGMENT | PKT_UNUSUAL)))
		return DROP_TLS_UNFIT;
	leg = leg_of(w->st, p, &upstream);
	if (leg == LEG_NONE)
		return DROP_TLS_SOURCE;
	if (leg == LEG_UPSTREAM || !way_back(w, p, &r, &port)) {
		if (leg == LEG_DEVICE)
			p->dst_bind = bindings_find(w->st->bindings, pkt_dst(p));
		why = way_by_route(w, p, &r, &port, &mtu);
		if (why != DROP_NONE)
			return why;
	}
	r.out = &w->st->ports[port];
	if (mtu == 0)
		mtu = r.out->mtu_bytes;
	if (p->ip_bytes > mtu)
		return answer(w, m, mtu);
	if (leg == LEG_UPSTREAM)
		lane_learn_upstream(w, upstream, p);
	if (rewrite_link(m, &r) == 0)
		return DROP_TX_FULL;
	p->out_port = port;
	p->edge = EDGE_FORWARD;
	return DROP_NONE;
}

/* Into the cache: the flows that say which way packets to devices go. */
static void flows_fetch(const struct worker *w, const struct burst *in)
{
	const struct pkt *p;
	uint32_t i, candidate;

	for (i = 0; i < in->n; i++) {
		p = pkt_of(in->pkt[i]);
		if (port_is_link(p->in_port))
			rte_prefetch0(flow_bucket_first(w->flows, p->hash));
	}
	for (i = 0; i < in->n; i++) {
		p = pkt_of(in->pkt[i]);
		candidate = port_is_link(p->in_port) ? flow_candidate(w->flows, p->hash) : 0;
		if (candidate != 0)
			flow_prefetch(&w->flows->flows[candidate]);
	}
}

/* In:  packets of this worker's flows, by ports and links.
 * Out: those by ports. A TLS worker's leave by a port, or die here. */
void stage_link(struct worker *w, struct burst *in, struct burst *out)
{
	if (w->tls_up != 0)
		flows_fetch(w, in);
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);
		enum drop_reason why;

		if (likely(!port_is_link(p->in_port))) {
			burst_push(out, in->pkt[i]);
			continue;
		}
		why = send_on(w, in->pkt[i]);
		if (why != DROP_NONE)
			pkt_drop(w, p, why);
	}
}
