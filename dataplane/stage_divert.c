/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <netinet/in.h>
#include <string.h>

#include "dataplane/parse.h"
#include "dataplane/path.h"
#include "dataplane/tcp.h"

#define ETH_SRC 6
#define SHARE 4 /* diverted flows fill at most 1/SHARE of the table */

bool divert_wants(const struct state *st, const struct pkt *p)
{
	uint16_t port = pkt_dport(p);

	if (p->kind != PKT_FLOW || !(st->listener_ports >> (port % 64) & 1))
		return false;
	for (unsigned i = 0; i < st->cfg.n_listeners; i++) {
		const struct msg_listener *l = &st->cfg.listeners[i];

		if (l->port == port && l->proto == p->id.proto && ip_addr_eq(&l->addr, pkt_dst(p)))
			return true;
	}
	return false;
}

static bool same_origin(const struct flow *f, const struct pkt *p, const uint8_t *mac)
{
	return f->origin_port == p->in_port && f->origin_vlan == p->vlan &&
	       memcmp(f->origin_mac.b, mac, sizeof(f->origin_mac.b)) == 0;
}

/* The origin decides where a device's address will be bound, so it is written once: frames of the same flow from
 * elsewhere are forged. A SYN leaves no record: the handshake that is bound comes later, and a flood of SYNs is free
 * to send. A stranger's record ages as an opening connection, a device's as an open one. */
static enum drop_reason note(struct worker *w, struct pkt *p, const uint8_t *mac)
{
	struct flow *f = flow_find(w->flows, &p->id, p->hash);
	bool syn = p->id.proto == IPPROTO_TCP && tcp_event_of(p->l4_flags) == TCP_EV_SYN;

	if (f != NULL && f->state == FLOW_DIVERTED && !same_origin(f, p, mac))
		return DROP_SPOOFED;
	if (f == NULL && syn)
		return DROP_NONE;
	if (f == NULL) {
		if (w->flows->n_diverted >= w->flows->max / SHARE)
			return DROP_FLOW_TABLE_FULL;
		f = flow_insert(w->flows, &p->id, p->hash);
		if (f == NULL)
			return DROP_FLOW_TABLE_FULL;
	}
	if (f->state != FLOW_DIVERTED) {
		flow_set_state(w->flows, f, FLOW_DIVERTED);
		f->origin_port = p->in_port;
		f->origin_vlan = p->vlan;
		memcpy(f->origin_mac.b, mac, sizeof(f->origin_mac.b));
		f->opener = (p->flags & PKT_REVERSED) ? 1 : 0;
	}
	f->tcp = p->src_bind != NULL ? TCP_ESTAB : TCP_SYN_SENT;
	f->end[f->opener].slot = p->src_bind != NULL ? p->src_bind->slot : 0;
	flow_passed(f, w->tick, p->ip_bytes);
	return DROP_NONE;
}

/* In:  guarded packets.
 * Out: those that are not for a listener; the others are the TLS workers', through the kernel port. */
void stage_divert(struct worker *w, struct burst *in, struct burst *out)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);
		enum drop_reason why;

		if (!divert_wants(w->st, p)) {
			burst_push(out, in->pkt[i]);
			continue;
		}
		why = note(w, p, rte_pktmbuf_mtod(in->pkt[i], const uint8_t *) + ETH_SRC);
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
			continue;
		}
		p->edge = EDGE_KERNEL;
		w->stats.diverted++;
	}
}
