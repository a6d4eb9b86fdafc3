/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ring_elem.h>

#include "dataplane/admission.h"
#include "dataplane/worker.h"
#include "dataplane/rewrite.h"

#define ETH_SRC 6
#define IPV4_TTL 8
#define IPV6_HOPS 7

_Static_assert(sizeof(struct msg_traced) % 4 == 0, "an element of rte_ring");
_Static_assert(TRACED_FRAGMENT == PKT_FRAGMENT && TRACED_UNUSUAL == PKT_UNUSUAL &&
		       TRACED_ON_LINK == PKT_ON_LINK && TRACED_FORWARDED == (int)EDGE_FORWARD &&
		       TRACED_KERNEL == (int)EDGE_KERNEL && TRACED_DROPPED == (int)EDGE_DROP,
	       "the message has the path's numbers");

/* ---- control thread ---- */

void trace_disarm(struct state *st)
{
	struct trace *old = (struct trace *)atomic_exchange(&st->trace, NULL);

	if (old == NULL)
		return;
	state_grace(st);
	free(old);
}

int trace_arm(struct state *st, const struct msg_trace_arm *m, uint64_t now_us)
{
	struct trace *t;

	if (!msg_trace_filter_check(&m->filter, st->n_ports) || m->count == 0 ||
	    m->count > MSG_TRACE_COUNT_MAX || m->for_ms == 0 || m->for_ms > MSG_TRACE_MS_MAX)
		return -EPROTO;
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return -ENOMEM;
	t->filter = m->filter;
	t->id = m->id;
	t->until_us = now_us + m->for_ms * 1000ull;
	atomic_store(&t->left, (int32_t)m->count);
	trace_disarm(st);
	atomic_store(&st->trace, t);
	return 0;
}

void trace_tick(struct state *st, uint64_t now_us)
{
	const struct trace *t = atomic_load(&st->trace);

	if (t != NULL && (now_us >= t->until_us || atomic_load(&t->left) <= 0))
		trace_disarm(st);
}

/* ---- worker ---- */

void trace_begin(const struct worker *w, struct rte_mbuf *m, struct msg_traced *r)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);

	memset(r, 0, sizeof(*r));
	MSG_INIT(r, MSG_TRACED, 0);
	r->id = w->trace != NULL ? w->trace->id : 0;
	r->at_us = w->now_us;
	r->epoch = w->policy != NULL ? w->policy->epoch : 0;
	r->frame_bytes = rte_pktmbuf_pkt_len(m);
	r->in_port = pkt_of(m)->in_port;
	r->worker = w->index;
	r->rule = FLOW_RULE_NONE;
	if (rte_pktmbuf_data_len(m) >= 2 * ETH_SRC) {
		memcpy(&r->dst_mac, frame, ETH_SRC);
		memcpy(&r->src_mac, frame + ETH_SRC, ETH_SRC);
	}
}

/* After parsing, also if it failed: what it got. */
void trace_parsed(const struct pkt *p, struct msg_traced *r)
{
	static const struct ip_addr none;

	r->vlan = p->vlan;
	r->kind = p->kind;
	r->flags = p->flags & (TRACED_FRAGMENT | TRACED_UNUSUAL | TRACED_ON_LINK);
	r->l4_flags = p->l4_flags;
	r->ip_bytes = p->ip_bytes;
	r->key = (struct flow_key){.src = *pkt_src(p),
				   .dst = *pkt_dst(p),
				   .sport = pkt_sport(p),
				   .dport = pkt_dport(p),
				   .proto = p->id.proto};
	r->known = !ip_addr_eq(&r->key.src, &none) || !ip_addr_eq(&r->key.dst, &none);
}

static void note_end(const struct worker *w, const struct binding *b, struct traced_end *e)
{
	struct trust_view v;

	if (b == NULL)
		return;
	e->slot = b->slot;
	if (w->trust == NULL || !trust_read(w->trust, b->slot, &v))
		return;
	e->generation = v.generation;
	e->standing = v.standing;
	e->segment = v.segment;
}

void trace_guarded(const struct worker *w, const struct pkt *p, struct msg_traced *r)
{
	r->stage = TRACED_GUARD;
	if (p->flags & PKT_STRANGER)
		r->flags |= TRACED_STRANGER;
	note_end(w, p->src_bind, &r->end[0]);
	note_end(w, p->dst_bind, &r->end[1]);
	if (p->src_bind == NULL)
		return;
	r->bound = 1;
	r->bound_mac = p->src_bind->mac;
	r->bound_port = p->src_bind->port;
	r->bound_vlan = p->src_bind->vlan;
}

void trace_linked(const struct pkt *p, struct msg_traced *r)
{
	r->stage = TRACED_LINK;
	if (p->edge != EDGE_FORWARD)
		return;
	r->out_port = p->out_port;
}

void trace_diverted(const struct pkt *p, struct msg_traced *r)
{
	r->stage = TRACED_DIVERT;
	if (p->edge == EDGE_FORWARD)
		r->out_port = p->out_port;
}

void trace_routed(const struct pkt *p, struct msg_traced *r)
{
	r->stage = TRACED_ROUTE;
	if (p->nh == NULL)
		return;
	r->route_kind = p->nh->kind;
	r->has_gateway = p->nh->has_gateway;
	r->gateway = p->nh->gateway;
	r->out_port = p->nh->port;
	r->out_vlan = p->nh->vlan;
}

/* The flow stage asks the same function with the same inputs. */
static void note_admission(const struct worker *w, const struct pkt *p, bool reversed,
			   struct msg_traced *r)
{
	const struct binding *from = reversed ? p->dst_bind : p->src_bind;
	const struct binding *to = reversed ? p->src_bind : p->dst_bind;
	struct flow_key key = r->key;
	struct admission a;

	if (reversed) {
		key.src = r->key.dst;
		key.dst = r->key.src;
		key.sport = r->key.dport;
		key.dport = r->key.sport;
	}
	r->judged = 1;
	r->judged_reason = admission_judge(w, &key, from, to, &a);
	r->rule = a.rule;
	for (int end = 0; end < 2; end++) {
		int side = reversed ? !end : end;

		if (a.segment[end] != 0)
			r->end[side].segment = a.segment[end];
		if (a.generation[end] != 0)
			r->end[side].generation = a.generation[end];
	}
}

static uint8_t found(const struct worker *w, const struct pkt *p, const struct flow *f)
{
	bool rev = p->flags & PKT_REVERSED;
	const struct binding *bind[2];

	if (f == NULL)
		return TRACED_NO_FLOW;
	if (f->state == FLOW_REFUSED)
		return TRACED_REFUSED;
	if (f->state == FLOW_DIVERTED)
		return TRACED_DIVERTED;
	bind[rev] = p->src_bind;
	bind[!rev] = p->dst_bind;
	return admission_current(w, f, bind) ? TRACED_CURRENT : TRACED_STALE;
}

void trace_flow(const struct worker *w, const struct pkt *p, struct msg_traced *r)
{
	bool rev = p->flags & PKT_REVERSED;
	const struct flow *f;

	if (p->kind != PKT_FLOW)
		return;
	f = flow_find(w->flows, &p->id, p->hash);
	r->flow = found(w, p, f);
	if (f != NULL && f->state != FLOW_DIVERTED) {
		r->state_before = f->state;
		r->flow_packets = f->packets;
		r->end[0].flow_generation = f->end[rev].generation;
		r->end[1].flow_generation = f->end[!rev].generation;
		if (f->epoch == w->epoch)
			r->rule = f->rule;
	}
	if (r->flow == TRACED_STALE)
		note_admission(w, p, rev != f->opener, r);
	else if (r->flow == TRACED_NO_FLOW || r->flow == TRACED_REFUSED)
		note_admission(w, p, false, r);
	if (r->flow == TRACED_CURRENT) {
		r->end[0].segment = f->end[rev].segment;
		r->end[1].segment = f->end[!rev].segment;
	}
}

void trace_flowed(const struct worker *w, const struct pkt *p, struct msg_traced *r)
{
	const struct flow *f = p->kind == PKT_FLOW ? flow_find(w->flows, &p->id, p->hash) : NULL;

	r->stage = TRACED_FLOW;
	if (f != NULL)
		r->state_after = f->state;
}

void trace_end(struct rte_mbuf *m, struct msg_traced *r)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	const struct pkt *p = pkt_of(m);
	uint16_t l3 = 2 * ETH_SRC + 2 + rewrite_tags_bytes(r->out_vlan);

	r->edge = p->edge;
	r->reason = p->edge == EDGE_DROP ? p->reason : DROP_NONE;
	if (r->stage != TRACED_REWRITE || p->edge != EDGE_FORWARD)
		return;
	memcpy(&r->out_dst_mac, frame, ETH_SRC);
	memcpy(&r->out_src_mac, frame + ETH_SRC, ETH_SRC);
	r->out_ttl = frame[l3 + ((p->flags & PKT_V4) ? IPV4_TTL : IPV6_HOPS)];
	r->ttl = r->out_ttl + 1;
}

bool trace_fits(const struct msg_trace_filter *f, const struct msg_traced *r)
{
	uint32_t want = f->fields;

	if ((want & TRACE_PORT) && r->in_port != f->in_port)
		return false;
	if ((want & TRACE_DROP) && r->edge != TRACED_DROPPED)
		return false;
	if ((want & TRACE_REASON) && (r->edge != TRACED_DROPPED || r->reason != f->reason))
		return false;
	if ((want & TRACE_VLAN) && r->vlan != f->vlan)
		return false;
	if ((want & TRACE_DEVICE) && r->end[0].slot != f->slot && r->end[1].slot != f->slot)
		return false;
	/* What follows needs addresses: a packet without any fits none. */
	if ((want &
	     (TRACE_SRC | TRACE_DST | TRACE_HOST | TRACE_PROTO | TRACE_SPORT | TRACE_DPORT)) != 0 &&
	    !r->known)
		return false;
	if ((want & TRACE_SRC) && !ip_prefix_has(&f->src, &r->key.src))
		return false;
	if ((want & TRACE_DST) && !ip_prefix_has(&f->dst, &r->key.dst))
		return false;
	if ((want & TRACE_HOST) && !ip_prefix_has(&f->host, &r->key.src) &&
	    !ip_prefix_has(&f->host, &r->key.dst))
		return false;
	if ((want & TRACE_PROTO) && r->key.proto != f->proto)
		return false;
	if ((want & TRACE_SPORT) && r->key.sport != f->sport)
		return false;
	return !(want & TRACE_DPORT) || r->key.dport == f->dport;
}

void trace_record(struct worker *w, struct msg_traced *r)
{
	struct trace *t = (struct trace *)w->trace; /* `left` is the workers' */

	if (!trace_fits(&t->filter, r) || rte_ring_free_count(w->traced) == 0 ||
	    atomic_fetch_sub(&t->left, 1) <= 0)
		return;
	rte_ring_sp_enqueue_elem(w->traced, r, sizeof(*r));
}
