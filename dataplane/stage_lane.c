/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <netinet/in.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_prefetch.h>

#include "dataplane/lane.h"
#include "dataplane/links.h"
#include "dataplane/parse.h"
#include "dataplane/rewrite.h"
#include "dataplane/tcp.h"

#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_BYTES 20
#define UDP_BYTES 8
#define V4_MAPPED 0xffff0000ull /* the second word of an IPv4-mapped address, without the address */
_Static_assert(BINDINGS_MAX == FLOW_HINT_MAX && NEIGHS_LIMIT == LANE_HINT_NEIGH - 1,
	       "hints name all");
_Static_assert(RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN, "keys are put together as words");

static inline uint16_t load16(const uint8_t *b)
{
	uint16_t v;

	memcpy(&v, b, sizeof(v));
	return v;
}

static inline uint32_t load32(const uint8_t *b)
{
	uint32_t v;

	memcpy(&v, b, sizeof(v));
	return v;
}

static inline uint64_t load64(const uint8_t *b)
{
	uint64_t v;

	memcpy(&v, b, sizeof(v));
	return v;
}

/* A usual TCP or UDP header: no event but data and acknowledgements. */
static inline bool l4_usual(const uint8_t *l4, uint32_t bytes, uint8_t proto, struct lane_pkt *out)
{
	uint32_t ports = rte_be_to_cpu_32(load32(l4)); /* destination in the low half */

	out->tcp = proto == IPPROTO_TCP;
	if (out->tcp) {
		uint32_t header = (uint32_t)(l4[12] >> 4) * 4;
		uint8_t flags =
			l4[13] & (PARSE_TCP_FIN | PARSE_TCP_SYN | PARSE_TCP_RST | PARSE_TCP_ACK);

		if (header < TCP_BYTES || header > bytes || flags != PARSE_TCP_ACK)
			return false;
	} else {
		uint16_t length = rte_be_to_cpu_16(load16(l4 + 4));

		if (proto != IPPROTO_UDP || length < UDP_BYTES || length > bytes)
			return false;
	}
	if (!out->reversed)
		ports = ports << 16 | ports >> 16;
	out->key[4] = (uint64_t)ports | (uint64_t)proto << 32;
	return true;
}

static inline bool ipv4_usual(const uint8_t *l3, uint32_t bytes, struct lane_pkt *out)
{
	uint32_t src, dst, total = rte_be_to_cpu_16(load16(l3 + 2));
	uint64_t sum;

	if (l3[0] != 0x45 || total > bytes || l3[8] <= 1 ||
	    (load16(l3 + 6) & RTE_BE16(0x3fff)) != 0)
		return false;
	if (total < IPV4_BYTES + (l3[9] == IPPROTO_TCP ? TCP_BYTES : UDP_BYTES))
		return false;
	src = load32(l3 + 12);
	dst = load32(l3 + 16);
	sum = (uint64_t)load32(l3) + load32(l3 + 4) + load32(l3 + 8) + src + dst;
	/* Carries added to the low end are what is left of a division; it is not 0, for the version is not. */
	if (sum % 0xffff != 0)
		return false;
	out->reversed = rte_be_to_cpu_32(src) > rte_be_to_cpu_32(dst);
	out->key[0] = out->key[2] = 0;
	out->key[1] = V4_MAPPED | (uint64_t)(out->reversed ? dst : src) << 32;
	out->key[3] = V4_MAPPED | (uint64_t)(out->reversed ? src : dst) << 32;
	out->ip_bytes = total;
	out->v4 = true;
	return l4_usual(l3 + IPV4_BYTES, total - IPV4_BYTES, l3[9], out);
}

static inline bool ipv6_usual(const uint8_t *l3, uint32_t bytes, struct lane_pkt *out)
{
	uint32_t total = IPV6_BYTES + (uint32_t)rte_be_to_cpu_16(load16(l3 + 4));
	uint64_t a[2] = {load64(l3 + 8), load64(l3 + 16)};
	uint64_t b[2] = {load64(l3 + 24), load64(l3 + 32)};

	if (l3[0] >> 4 != 6 || total > bytes || total > UINT16_MAX || l3[7] <= 1)
		return false;
	if (total < IPV6_BYTES + (l3[6] == IPPROTO_TCP ? TCP_BYTES : UDP_BYTES))
		return false;
	/* Here live the v4-mapped addresses, which would alias the form of IPv4. */
	if (a[0] == 0 || b[0] == 0)
		return false;
	out->reversed = a[0] != b[0] ? rte_be_to_cpu_64(a[0]) > rte_be_to_cpu_64(b[0])
				     : rte_be_to_cpu_64(a[1]) > rte_be_to_cpu_64(b[1]);
	memcpy(out->key + (out->reversed ? 2 : 0), a, sizeof(a));
	memcpy(out->key + (out->reversed ? 0 : 2), b, sizeof(b));
	out->ip_bytes = total;
	out->v4 = false;
	return l4_usual(l3 + IPV6_BYTES, total - IPV6_BYTES, l3[6], out);
}

static inline bool usual(const struct port *port, const uint8_t *frame, uint32_t bytes,
			 struct lane_pkt *out)
{
	uint16_t type;

	if (bytes < REWRITE_ETH_BYTES + IPV4_BYTES + UDP_BYTES)
		return false;
	if (!lane_mac_is(&port->mac, frame) || (frame[6] & 1))
		return false;
	type = load16(frame + 12);
	out->vlan = 0;
	out->l3_off = REWRITE_ETH_BYTES;
	if (type == RTE_BE16(0x8100)) {
		out->vlan = rte_be_to_cpu_16(load16(frame + 14)) & 0xfff;
		out->l3_off += REWRITE_TAG_BYTES;
		type = load16(frame + 16);
	}
	if (!port_has_vlan(port, out->vlan))
		return false;
	frame += out->l3_off;
	bytes -= out->l3_off;
	if (type == RTE_BE16(0x0800))
		return bytes >= IPV4_BYTES + UDP_BYTES && ipv4_usual(frame, bytes, out);
	return type == RTE_BE16(0x86dd) && bytes >= IPV6_BYTES + UDP_BYTES &&
	       ipv6_usual(frame, bytes, out);
}

bool lane_parse(const struct port *port, const uint8_t *frame, uint32_t bytes, struct lane_pkt *out)
{
	return usual(port, frame, bytes, out);
}

/* ---- hints ------------------------------------------------------------------------------------ */

uint32_t lane_hint(const struct worker *w, const struct ip_addr *ip, const struct binding *b,
		   const struct nexthop *nh)
{
	const struct neigh *n;
	const struct port *out;

	if (nh == NULL || nh->kind != ROUTE_FORWARD || nh->port >= w->st->n_ports)
		return 0;
	out = &w->st->ports[nh->port];
	if (b != NULL) {
		if (nh->has_gateway || nh->mtu_bytes != 0 || nh->port != b->port ||
		    nh->vlan != b->vlan)
			return 0;
		return b - w->bindings;
	}
	if (out->side != PORT_UPLINK)
		return 0;
	if (nh->has_gateway)
		return nh - w->nexthops < LANE_HINT_NEIGH - 1 ? nh - w->nexthops + 1 : 0;
	n = nh->mtu_bytes == 0 ? neighs_find(w->st->neighs, nh->port, nh->vlan, ip) : NULL;
	return n != NULL ? LANE_HINT_NEIGH | (n - w->neighs) : 0;
}

void lane_learn(const struct worker *w, struct flow *f, const struct pkt *p)
{
	unsigned src = (p->flags & PKT_REVERSED) ? 1 : 0;
	struct flow_end *from = &f->end[src], *to = &f->end[!src];
	const struct ip_addr *ip = pkt_src(p);

	if (f->topo != w->topo)
		from->hint = to->hint = 0;
	f->topo = w->topo;
	to->hint = lane_hint(w, pkt_dst(p), p->dst_bind, p->nh);
	if (p->src_bind != NULL ? from->hint == (uint32_t)(p->src_bind - w->bindings)
				: from->hint != 0)
		return;
	from->hint = lane_hint(w, ip, p->src_bind, fib_lookup(w->fib, ip));
}

/* ---- the lane --------------------------------------------------------------------------------- */

static inline void prefetch_end(const struct worker *w, const struct flow_end *e)
{
	if (e->slot == TRUST_SLOT_NONE)
		return;
	if (e->slot < w->trust->slots)
		rte_prefetch0(&w->trust->rec[e->slot]);
	rte_prefetch0(&w->bindings[e->hint]);
}

/* The end's binding, if the hint still leads to it and its device is still trusted. */
static inline const struct binding *device_end(const struct worker *w, const struct flow_end *e,
					       const flow_word *ip)
{
	const struct binding *b = &w->bindings[e->hint];
	const flow_word *is = (const flow_word *)&b->ip;

	if (atomic_load_explicit(&b->slot, memory_order_acquire) != e->slot ||
	    e->slot >= w->trust->slots)
		return NULL;
	if (((is[0] ^ ip[0]) | (is[1] ^ ip[1])) != 0)
		return NULL;
	return trust_current(&w->trust->rec[e->slot], e->generation, w->now_ms) ? b : NULL;
}

static bool end_holds(const struct worker *w, const struct flow_end *e, const struct ip_addr *ip)
{
	if (e->slot == TRUST_SLOT_NONE)
		return e->hint != 0;
	return device_end(w, e, (const flow_word *)ip) != NULL;
}

bool lane_current(const struct worker *w, const struct flow *f)
{
	return w->lane && f->epoch == w->epoch && f->topo == w->topo &&
	       end_holds(w, &f->end[0], &f->id.src) && end_holds(w, &f->end[1], &f->id.dst);
}

static inline bool source_holds(const struct worker *w, const struct lane_pkt *l,
				const uint8_t *frame)
{
	const struct flow_end *e = &l->flow->end[l->reversed];
	const struct binding *b;

	if (e->slot == TRUST_SLOT_NONE)
		return e->hint != 0 && w->st->ports[l->port].side == PORT_UPLINK;
	b = device_end(w, e, l->key + (l->reversed ? 2 : 0));
	return b != NULL && b->port == l->port && b->vlan == l->vlan &&
	       lane_mac_is(&b->mac, frame + 6);
}

/* The way out. @return the port's index, or MSG_PORT_KERNEL */
static inline uint16_t destination(const struct worker *w, const struct lane_pkt *l,
				   struct rewrite *r, uint16_t *mtu)
{
	const struct flow_end *e = &l->flow->end[!l->reversed];
	const uint64_t *ip = l->key + (l->reversed ? 0 : 2);

	*mtu = 0;
	if (e->slot != TRUST_SLOT_NONE) {
		const struct binding *b = device_end(w, e, ip);

		if (b == NULL)
			return MSG_PORT_KERNEL;
		r->mac = neigh_pack(&b->mac);
		r->vlan = b->vlan;
		return b->port;
	}
	return lane_network_way(w, e->hint, ip, r, mtu);
}

/* Does the packet leave the flow's state as it is? */
static inline bool in_state(const struct flow *f, const struct lane_pkt *l)
{
	if (f->state == FLOW_ESTABLISHED)
		return !l->tcp || f->tcp == TCP_ESTAB;
	return f->state == FLOW_OPENING && !l->tcp && l->reversed == f->opener;
}

static inline bool pass(struct worker *w, struct rte_mbuf *m, struct pkt *p,
			const struct lane_pkt *l)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	struct rewrite r = {.l3_off = l->l3_off, .ip_bytes = l->ip_bytes, .v4 = l->v4};
	struct flow *f = l->flow;
	const struct port *out;
	uint16_t port, mtu;

	if (unlikely(!in_state(f, l)))
		return f->state == FLOW_DIVERTED && w->tls_up != 0 && lane_to_stack(w, m, p, l);
	if (f->epoch != w->epoch || f->topo != w->topo || f->metered)
		return false;
	if (!source_holds(w, l, frame))
		return false;
	port = destination(w, l, &r, &mtu);
	if (port >= w->st->n_ports || r.mac == 0)
		return false;
	out = &w->st->ports[port];
	if (!out->present || l->ip_bytes > (mtu != 0 ? mtu : out->mtu_bytes))
		return false;
	r.out = out;
	if (!rewrite_frame(m, &r))
		return false;
	flow_passed(f, w->tick, l->ip_bytes);
	p->out_port = port;
	p->edge = EDGE_FORWARD;
	return true;
}

/* Parse what can be parsed here. @return false: not for the lane */
static inline bool enter(const struct worker *w, struct rte_mbuf *m, uint16_t port,
			 const struct port *from, struct lane_pkt *l)
{
	if (unlikely(m->nb_segs != 1) ||
	    !usual(from, rte_pktmbuf_mtod(m, const uint8_t *), rte_pktmbuf_data_len(m), l))
		return false;
	l->port = port;
	l->hash = flow_hash_words(w->st->seed, l->key);
	return true;
}

/* A packet of a TLS worker's with an upstream has no flow: a configured address and port say what becomes of it. */
static inline bool of_upstream(const struct worker *w, bool uplink, bool link, struct lane_pkt *l)
{
	if (!uplink && !link)
		return false;
	l->upstream = link ? lane_to_which_upstream(w, l) : lane_from_which_upstream(w, l);
	return l->upstream >= 0;
}

static inline bool is_uplink(const struct worker *w, const struct port *from)
{
	return w->tls_up != 0 && from->side == PORT_UPLINK;
}

/* The steps of a packet. Each ends with a prefetch of what the next one reads; they run a few packets apart, so that
 * memory has time to answer, and never more is asked of it at once than it can carry. */
enum { STEP_ENTER, STEP_CANDIDATE, STEP_FLOW, STEP_PASS, STEPS };
#define APART 5 /* packets */

static inline void step_candidate(const struct worker *w, struct lane_pkt *l)
{
	l->flow = &w->flows->flows[flow_candidate(w->flows, l->hash)];
	flow_prefetch(l->flow);
}

/* The first bucket's candidate, else whatever the table has under this key. */
static inline void step_flow(const struct worker *w, bool link, struct lane_pkt *l)
{
	struct flow_key id;

	if (unlikely(!flow_key_is(l->flow, l->key))) {
		memcpy(&id, l->key, sizeof(id));
		l->flow = flow_find(w->flows, &id, l->hash);
		if (l->flow == NULL)
			return;
	}
	if (link) /* where its device's frames came from is in the flow */
		return;
	prefetch_end(w, &l->flow->end[0]);
	prefetch_end(w, &l->flow->end[1]);
	if (l->flow->state == FLOW_DIVERTED)
		limit_prefetch(w, l->flow->end[l->flow->opener].slot);
}

static inline bool step_pass(struct worker *w, struct rte_mbuf *m, bool link,
			     const struct lane_pkt *l)
{
	if (l->flow == NULL)
		return false;
	return link ? lane_to_device(w, m, pkt_of(m), l) : pass(w, m, pkt_of(m), l);
}

/* The same without a flow. */
static inline bool step_upstream(struct worker *w, struct rte_mbuf *m, bool link,
				 const struct lane_pkt *l)
{
	return link ? lane_to_upstream(w, m, pkt_of(m), l) : lane_from_upstream(w, m, pkt_of(m), l);
}

/* Compiled thrice: mostly a burst has come by one port, which need not be looked up a packet, or by one link. */
static inline __attribute__((always_inline)) void
lane_run(struct worker *w, struct burst *in, uint16_t port, bool any, bool link, struct burst *out)
{
	const struct port *from = any ? NULL : &w->st->ports[port];
	bool uplink = !any && !link && is_uplink(w, from);
	uint16_t n_workers = w->st->n_workers;
	struct lane_pkt lane[BURST_MAX];
	uint32_t left = 0; /* bit i: in->pkt[i] is for the stages */
	uint32_t here = 0; /* bit i: in->pkt[i] is in the lane, with a flow */
	uint32_t flowless = 0; /* bit i: in->pkt[i] is in the lane, an upstream's */

	for (uint16_t i = 0; i < in->n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(in->pkt[i], void *));
	for (uint32_t at = 0; at < (uint32_t)in->n + (STEPS - 1) * APART; at++) {
		uint32_t i = at;

		if (i < in->n) {
			struct rte_mbuf *m = in->pkt[i];

			if (any) {
				port = pkt_of(m)->in_port;
				from = &w->st->ports[port];
				link = port_is_link(port);
				uplink = is_uplink(w, from);
			}
			if (unlikely(!enter(w, m, port, from, &lane[i]))) {
				left |= 1u << i;
			} else if (unlikely(flow_worker(lane[i].hash, n_workers) != w->index)) {
				path_away(m, port, lane[i].hash);
			} else if (unlikely(of_upstream(w, uplink, link, &lane[i]))) {
				flowless |= 1u << i;
			} else {
				rte_prefetch0(flow_bucket_first(w->flows, lane[i].hash));
				here |= 1u << i;
			}
		}
		i -= APART;
		if (i < in->n && (here >> i & 1))
			step_candidate(w, &lane[i]);
		i -= APART;
		if (i < in->n && (here >> i & 1))
			step_flow(w, any ? port_is_link(lane[i].port) : link, &lane[i]);
		i -= APART;
		if (i >= in->n)
			continue;
		if (any)
			link = port_is_link(lane[i].port);
		if ((here >> i & 1) && !step_pass(w, in->pkt[i], link, &lane[i]))
			left |= 1u << i;
		if ((flowless >> i & 1) && !step_upstream(w, in->pkt[i], link, &lane[i]))
			left |= 1u << i;
	}
	for (; left != 0; left &= left - 1) {
		struct rte_mbuf *m = in->pkt[__builtin_ctz(left)];

		if (!any)
			pkt_of(m)->in_port = port;
		burst_push(out, m);
	}
}

/* In:  frames as they came by `port`, or, if that is PORT_ANY, by pkt_of()->in_port.
 * Out: those for the other stages, in their order; the rest is rewritten and on EDGE_FORWARD, or another worker's. */
void stage_lane(struct worker *w, struct burst *in, uint16_t port, struct burst *out)
{
	if (port == PORT_ANY)
		lane_run(w, in, port, true, false, out);
	else if (port_is_link(port))
		lane_run(w, in, port, false, true, out);
	else
		lane_run(w, in, port, false, false, out);
}

_Static_assert(BURST_MAX <= 32, "a burst's packets are bits of a word");
