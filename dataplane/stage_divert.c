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
	if (why == DROP_NONE && w->flows->n_diverted >= w->flows->max / SHARE)
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

static enum drop_reason note(struct worker *w, struct pkt *p, const uint8_t *mac)
{
	struct flow *f = flow_find(w->flows, &p->id, p->hash);
	enum drop_reason why;
	bool syn = p->id.proto == IPPROTO_TCP && tcp_event_of(p->l4_flags) == TCP_EV_SYN;

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
		flow_set_state(w->flows, f, FLOW_DIVERTED);
		f->origin_port = p->in_port;
		f->origin_vlan = p->vlan;
		memcpy(f->origin_mac.b, mac, sizeof(f->origin_mac.b));
		f->opener = (p->flags & PKT_REVERSED) ? 1 : 0;
	}
	f->tcp = p->src_bind != NULL ? TCP_ESTAB : TCP_SYN_SENT;
	note_owner(w, f, p->src_bind != NULL ? p->src_bind->slot : TRUST_SLOT_NONE);
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
		why = limit_tls(w, p);
		if (why == DROP_NONE)
			why = note(w, p, rte_pktmbuf_mtod(in->pkt[i], const uint8_t *) + ETH_SRC);
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
			continue;
		}
		p->edge = EDGE_KERNEL;
		w->stats.diverted++;
	}
}
