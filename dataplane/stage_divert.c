/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <netinet/in.h>
#include <string.h>

#include "dataplane/links.h"
#include "dataplane/parse.h"
#include "dataplane/path.h"
#include "dataplane/tcp.h"

#define ETH_SRC 6

static const struct msg_listener *listener_of(const struct state *st, const struct pkt *p)
{
	return p->kind == PKT_FLOW ? links_listener(st, pkt_dst(p), pkt_dport(p), p->id.proto)
				   : NULL;
}

bool divert_wants(const struct state *st, const struct pkt *p)
{
	return listener_of(st, p) != NULL;
}

static bool same_origin(const struct flow *f, const struct pkt *p, const uint8_t *mac)
{
	return f->origin_port == p->in_port && f->origin_vlan == p->vlan &&
	       memcmp(f->origin_mac.b, mac, sizeof(f->origin_mac.b)) == 0;
}

/* Listeners may not take the whole table from the flows that pass. */
static uint64_t records_max(const struct worker *w)
{
	uint32_t pct = w->st->cfg.limits.listener_flows_pct;

	return (uint64_t)w->flows->max * (pct != 0 ? pct : LISTENER_FLOWS_PCT) / 100;
}

/* The origin decides where a device's address will be bound, so it is written once: frames of the same flow from
 * elsewhere are forged. A SYN leaves no record: the handshake that is bound comes later, and a flood of SYNs is free
 * to send. A stranger's record ages as an opening connection, a device's as an open one. */
/* May whoever sent this have one more record? A device pays as for a flow, which keeps the records' share of the table
 * for all. */
static enum drop_reason may_note(struct worker *w, const struct pkt *p, const uint8_t *mac)
{
	enum drop_reason why;

	if (p->src_bind == NULL) {
		why = limit_stranger_flow(w, p, mac);
	} else {
		why = limit_open(w, p->src_bind->slot);
		if (why == DROP_NONE)
			why = limit_room(w, p->src_bind->slot, NULL);
	}
	if (why == DROP_NONE && w->flows->n_diverted >= records_max(w))
		why = DROP_FLOW_TABLE_FULL;
	return why;
}

/* A stranger's records are not counted: its rate and their age bound them. */
static void note_owner(struct worker *w, struct flow *f, uint32_t slot)
{
	if (f->end[f->opener].slot == slot && f->counted == (slot != TRUST_SLOT_NONE))
		return;
	limit_flow_ended(w, f);
	f->end[f->opener].slot = slot;
	if (slot != TRUST_SLOT_NONE)
		limit_flow_started(w, f);
}

static void note_origin(struct flow_table *t, struct flow *f, const struct pkt *p,
			const uint8_t *mac)
{
	struct flow_origin from = {.vlan = p->vlan, .port = (uint8_t)p->in_port};

	memcpy(from.mac.b, mac, sizeof(from.mac.b));
	f->end[0].hint = f->end[1].hint = 0;
	f->opener = (p->flags & PKT_REVERSED) ? 1 : 0;
	flow_divert(t, f, &from);
}

/* @param[out] record  NULL: a SYN, of which nothing is noted */
static enum drop_reason note(struct worker *w, struct pkt *p, const uint8_t *mac,
			     struct flow **record)
{
	struct flow *f = flow_find(w->flows, &p->id, p->hash);
	enum drop_reason why;
	bool syn = p->id.proto == IPPROTO_TCP && tcp_event_of(p->l4_flags) == TCP_EV_SYN;

	*record = NULL;
	if (f != NULL && f->state == FLOW_DIVERTED && !same_origin(f, p, mac))
		return DROP_SPOOFED;
	if (f == NULL && syn)
		return DROP_NONE;
	if (f == NULL) {
		why = may_note(w, p, mac);
		if (why != DROP_NONE)
			return why;
		f = flow_insert(w->flows, &p->id, p->hash);
		if (f == NULL)
			return DROP_FLOW_TABLE_FULL;
	}
	if (f->state != FLOW_DIVERTED) {
		limit_flow_ended(w, f);
		account_leave(w, f);
		note_origin(w->flows, f, p, mac);
	}
	f->tcp = p->src_bind != NULL ? TCP_ESTAB : TCP_SYN_SENT;
	note_owner(w, f, p->src_bind != NULL ? p->src_bind->slot : TRUST_SLOT_NONE);
	flow_passed(f, w->tick, p->ip_bytes);
	*record = f;
	return DROP_NONE;
}

/* ---- to the TLS workers ------------------------------------------------------------------------ */

/* A connection stays with the TLS worker that it was given to, as long as that one is there.
 * @return the worker's number, or -1 */
static int pick(struct worker *w, struct rte_mbuf *m, const uint8_t *mac, struct flow *f)
{
	const struct pkt *p = pkt_of(m);
	const struct origin *o = origins_find(w->origins, p->hash, w->tick);
	int n = f != NULL ? f->tls_worker - 1 : -1;

	if (n < 0 && o != NULL)
		n = o->tls_worker - 1;
	if (n < 0 || !(w->tls_up >> n & 1))
		n = links_named(w, m);
	if (n < 0)
		n = links_choose(w, &p->id);
	if (n < 0)
		return n;
	if (f != NULL) {
		f->tls_worker = (uint8_t)(n + 1);
		f->end[!f->opener].generation = w->topo;
		if (p->src_bind != NULL)
			f->end[f->opener].hint = (uint32_t)(p->src_bind - w->bindings);
	} else if (w->origins != NULL) {
		struct origin *e = origins_place(w->origins, p->hash);

		*e = (struct origin){.hash = p->hash,
				     .tick = w->tick,
				     .vlan = p->vlan,
				     .port = (uint8_t)p->in_port,
				     .tls_worker = (uint8_t)(n + 1)};
		memcpy(e->mac.b, mac, sizeof(e->mac.b));
	}
	return n;
}

static void to_stack(struct worker *w, struct rte_mbuf *m, const uint8_t *mac, struct flow *f)
{
	int n = pick(w, m, mac, f);

	if (n < 0)
		pkt_drop(w, pkt_of(m), DROP_TLS_DOWN);
	else if (links_hand(w, m, (unsigned)n))
		w->stats.diverted++;
}

/* What an upstream answers. No state: the port says whose it is. */
static bool is_return(struct worker *w, const struct pkt *p)
{
	int u;

	if (p->kind != PKT_FLOW || w->st->ports[p->in_port].side != PORT_UPLINK)
		return false;
	u = links_upstream(w->st, pkt_dst(p), pkt_dport(p), pkt_src(p), pkt_sport(p), p->id.proto);
	if (u >= 0)
		w->upstream[u].guarded = (uint64_t)w->topo + 1;
	return u >= 0;
}

/* "Too big" is news for the sender's TCP: RFC 1191, RFC 8201. */
static bool is_too_big(struct rte_mbuf *m, const struct pkt *p)
{
	const uint8_t *icmp = rte_pktmbuf_mtod(m, const uint8_t *) + p->l4_off;

	if (p->kind != PKT_ICMP_ERROR || (p->flags & (PKT_FRAGMENT | PKT_UNUSUAL)))
		return false;
	return (p->flags & PKT_V4) ? icmp[0] == 3 && icmp[1] == 4 : icmp[0] == 2;
}

/* Whose packet does the error speak of? A device may only speak of its own connections.
 * @return the TLS worker's number, or -1: of none */
static int error_owner(const struct worker *w, struct rte_mbuf *m, const struct pkt *p)
{
	const struct msg_listener *l;
	struct ip_addr sender, to;
	uint16_t sport, dport;
	struct flow_key id;
	struct flow *f;
	bool rev;

	if (!error_flow(m, p, &id, &sender) || !ip_addr_eq(&sender, pkt_dst(p)))
		return -1;
	rev = !ip_addr_eq(&sender, &id.src);
	sport = rev ? id.dport : id.sport;
	dport = rev ? id.sport : id.dport;
	to = rev ? id.src : id.dst;
	l = links_listener(w->st, &sender, sport, id.proto);
	if (l != NULL) {
		f = flow_find(w->flows, &id, flow_hash(w->st->seed, &id));
		if (!l->stack || (p->src_bind != NULL && !ip_addr_eq(pkt_src(p), &to)) ||
		    f == NULL || f->state != FLOW_DIVERTED)
			return -1;
		return f->tls_worker - 1;
	}
	if (p->src_bind == NULL && links_upstream(w->st, &sender, sport, &to, dport, id.proto) >= 0)
		return sport % w->st->cfg.tls_workers;
	return -1;
}

/* @return true: the packet is a TLS worker's, and is on its way there or dropped */
static bool for_stack(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	enum drop_reason why;
	int n;

	if (w->st->cfg.tls_workers == 0)
		return false;
	if (is_return(w, p)) {
		if (p->flags & (PKT_FRAGMENT | PKT_UNUSUAL))
			pkt_drop(w, p, DROP_TLS_UNFIT);
		else
			(void)links_hand(w, m, pkt_dport(p) % w->st->cfg.tls_workers);
		return true;
	}
	n = is_too_big(m, p) ? error_owner(w, m, p) : -1;
	if (n < 0)
		return false;
	why = limit_tls(w, p);
	if (why != DROP_NONE)
		pkt_drop(w, p, why);
	else
		(void)links_hand(w, m, (unsigned)n);
	return true;
}

/* In:  guarded packets.
 * Out: those that are not for a TLS worker. Those for a listener of the kernel's sockets go to the kernel port, those
 *      for the workers' own stack to the worker's link. */
void stage_divert(struct worker *w, struct burst *in, struct burst *out)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct rte_mbuf *m = in->pkt[i];
		const uint8_t *mac = rte_pktmbuf_mtod(m, const uint8_t *) + ETH_SRC;
		struct pkt *p = pkt_of(m);
		const struct msg_listener *l = listener_of(w->st, p);
		struct flow *f = NULL;
		enum drop_reason why;

		if (l == NULL) {
			if (!for_stack(w, m))
				burst_push(out, m);
			continue;
		}
		why = l->stack && (p->flags & (PKT_FRAGMENT | PKT_UNUSUAL)) ? DROP_TLS_UNFIT
									    : limit_tls(w, p);
		if (why == DROP_NONE)
			why = note(w, p, mac, &f);
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
		} else if (l->stack) {
			to_stack(w, m, mac, f);
		} else {
			p->edge = EDGE_KERNEL;
			w->stats.diverted++;
		}
	}
}
