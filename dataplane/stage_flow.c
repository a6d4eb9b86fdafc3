/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The stateful part: find the flow, see that what admitted it still holds, follow its state, admit what is new. */
#include <netinet/in.h>
#include <string.h>

#include "dataplane/admission.h"
#include "dataplane/flow_log.h"
#include "dataplane/lane.h"
#include "dataplane/parse.h"
#include "dataplane/path.h"
#include "dataplane/tcp.h"

#define ICMP_BYTES 8
#define REFUSED_SHARE 8 /* cached refusals fill at most 1/REFUSED_SHARE of the table */

static void flow_grant(struct worker *w, struct flow *f, const struct admission *a)
{
	limit_flow_ended(w, f);
	admission_note(f, a);
	flow_mark(w->flows, f);
	f->epoch = w->epoch;
	limit_flow_started(w, f);
}

/* Remember a refusal of this opener. `f` may be NULL (not worth a place in a crowded table). */
static void flow_refuse(struct worker *w, const struct pkt *p, struct flow *f, int opener,
			const struct admission *a, enum drop_reason why)
{
	bool passed;

	w->stats.refusals++;
	if (f == NULL) {
		account_refused(w, a, why, p->ip_bytes);
		return;
	}
	limit_flow_ended(w, f);
	passed = f->packets > 0;
	account_leave(w, f);
	if (f->state != FLOW_REFUSED) {
		f->died = passed && f->state != FLOW_DIVERTED;
		f->refused = 0;
		flow_set_state(w->flows, f, FLOW_REFUSED);
	}
	for (int end = 0; end < 2; end++) {
		int side = end == 0 ? opener : !opener;

		if (!f->died) /* else the sweep wants to find whose it was */
			f->end[side].slot = a->slot[end];
		if (f->end[side].slot == a->slot[end])
			f->end[side].generation = a->generation[end];
		f->end[side].segment = a->segment[end];
	}
	f->epoch = w->epoch;
	f->refused |= 1u << opener;
	f->end[0].hint = why; /* flow_reason() */
	f->rule = a->rule;
	f->refused_at = w->tick;
	f->opener = opener;
	account_open(w, f);
	f->packets = 1; /* of a refusal: that were refused */
	f->bytes = p->ip_bytes;
}

static void ends_of(const struct pkt *p, const struct binding *bind[2])
{
	bool rev = p->flags & PKT_REVERSED;

	bind[rev] = p->src_bind;
	bind[!rev] = p->dst_bind;
}

static enum drop_reason judge(struct worker *w, const struct pkt *p, int opener,
			      struct admission *a, struct flow_key *key)
{
	struct flow as_opened = {.id = p->id, .opener = opener};
	const struct binding *bind[2];
	enum drop_reason why;

	ends_of(p, bind);
	*key = flow_opener_key(&as_opened);
	why = admission_of_flow(w, &as_opened, bind, a);
	w->stats.admissions += why == DROP_NONE;
	return why;
}

/* A packet mid-stream, right after a start: it may go either way of the flow that we forgot. */
static bool may_pick_up(const struct worker *w, const struct pkt *p)
{
	if (!w->pickup)
		return false;
	if (p->id.proto == IPPROTO_TCP)
		return tcp_event_of(p->l4_flags) == TCP_EV_ACK ||
		       tcp_event_of(p->l4_flags) == TCP_EV_FIN;
	return p->id.proto == IPPROTO_UDP;
}

static bool can_open(const struct pkt *p)
{
	if (p->id.proto == IPPROTO_TCP)
		return tcp_event_of(p->l4_flags) == TCP_EV_SYN;
	return !(p->flags & PKT_REPLY);
}

static void start_state(struct worker *w, struct flow *f, const struct pkt *p, bool picked_up)
{
	f->tcp = TCP_NONE;
	if (p->id.proto == IPPROTO_TCP)
		f->tcp = picked_up ? TCP_ESTAB : TCP_SYN_SENT;
	flow_set_state(w->flows, f,
		       p->id.proto == IPPROTO_TCP ? tcp_flow_state(f->tcp) : FLOW_OPENING);
}

/* Right after a restart, what picks up an old flow is no new one: the cap alone holds then, or a restart would cut who
 * has many. */
static bool over_rate(struct worker *w, const struct pkt *p, int opener)
{
	struct admission a = {.slot = {p->src_bind != NULL ? p->src_bind->slot : TRUST_SLOT_NONE,
				       p->dst_bind != NULL ? p->dst_bind->slot : TRUST_SLOT_NONE},
			      .rule = FLOW_RULE_NONE};
	struct flow as_opened = {.id = p->id, .opener = opener};
	struct flow_key key;

	if ((w->st->cfg.pickup_ms != MSG_PICKUP_ALWAYS && may_pick_up(w, p)) ||
	    limit_open(w, a.slot[0]) == DROP_NONE)
		return false;
	w->stats.refusals++;
	if (flow_log_wants(w, DROP_NEW_FLOW_RATE)) {
		key = flow_opener_key(&as_opened);
		flow_log_send(w, &key, &a, DROP_NEW_FLOW_RATE);
	}
	account_refused(w, &a, DROP_NEW_FLOW_RATE, p->ip_bytes);
	return true;
}

/* Admit this packet as the first of a flow; f is what the table has under its key (a refusal, or an ended
 * connection), or NULL. */
static enum drop_reason flow_open(struct worker *w, const struct pkt *p, struct flow *f)
{
	int opener = (p->flags & PKT_REVERSED) ? 1 : 0;
	bool mid = !can_open(p), reversed_pickup = false;
	struct flow_key key;
	struct admission a;
	enum drop_reason why;

	if (mid && !may_pick_up(w, p))
		return DROP_BAD_STATE;
	if (over_rate(w, p, opener))
		return DROP_NEW_FLOW_RATE;
	why = judge(w, p, opener, &a, &key);
	if (why != DROP_NONE && may_pick_up(w, p)) {
		struct admission back;
		struct flow_key back_key;

		reversed_pickup = judge(w, p, !opener, &back, &back_key) == DROP_NONE;
		if (reversed_pickup) {
			opener = !opener;
			a = back;
			key = back_key;
			why = DROP_NONE;
		}
	}
	if (why == DROP_NONE && limit_room(w, a.slot[0], f) != DROP_NONE) {
		w->stats.refusals++;
		flow_log_limited(w, &key, &a, DROP_FLOW_CAP);
		account_refused(w, &a, DROP_FLOW_CAP, p->ip_bytes);
		return DROP_FLOW_CAP;
	}
	if (f == NULL && (why == DROP_NONE || w->flows->n_refused < w->flows->max / REFUSED_SHARE))
		f = flow_insert(w->flows, &p->id, p->hash);
	if (why != DROP_NONE) {
		flow_refuse(w, p, f, opener, &a, why);
		flow_log_note(w, &key, &a, why);
		return why;
	}
	if (f == NULL) {
		w->stats.refusals++;
		return DROP_FLOW_TABLE_FULL;
	}
	limit_flow_ended(w, f);
	account_leave(w, f);
	f->opener = opener;
	f->refused = 0;
	f->died = 0;
	f->topo = 0;
	f->end[0].hint = f->end[1].hint = 0;
	flow_grant(w, f, &a);
	start_state(w, f, p, mid || reversed_pickup);
	account_open(w, f);
	flow_log_note(w, &key, &a, DROP_NONE);
	return DROP_NONE;
}

/* What admitted the flow no longer holds: judge it again as it was opened. State and counters stay. */
static enum drop_reason flow_readmit(struct worker *w, const struct pkt *p, struct flow *f)
{
	struct flow_key key;
	struct admission a;
	enum drop_reason why = judge(w, p, f->opener, &a, &key);
	bool moves = why == DROP_NONE && account_moves(w, f, &a);

	if (moves)
		account_leave(w, f);
	if (why == DROP_NONE) {
		flow_grant(w, f, &a);
		if (moves)
			account_open(w, f);
		return DROP_NONE;
	}
	flow_refuse(w, p, f, f->opener, &a, why);
	flow_log_note(w, &key, &a, why);
	return why;
}

static enum drop_reason flow_step(struct worker *w, const struct pkt *p, struct flow *f)
{
	bool from_opener = ((p->flags & PKT_REVERSED) != 0) == f->opener;
	uint8_t next;

	if (p->id.proto != IPPROTO_TCP) {
		if (!from_opener && f->state == FLOW_OPENING)
			flow_set_state(w->flows, f, FLOW_ESTABLISHED);
		return DROP_NONE;
	}
	next = tcp_next(f->tcp, from_opener, tcp_event_of(p->l4_flags));
	if (next == TCP_REOPEN)
		return flow_open(w, p, f);
	if (next == TCP_BAD)
		return DROP_BAD_STATE;
	if (next != f->tcp) {
		f->tcp = next;
		flow_set_state(w->flows, f, tcp_flow_state(next));
	}
	return DROP_NONE;
}

/* A refusal holds for the direction in which it was asked, while what refused it holds: an end's standing, of which
 * the generation tells, or its expiry, which may have been moved since without a new generation. */
static bool refusal_holds(const struct worker *w, const struct flow *f, const struct pkt *p)
{
	const struct binding *bind[2];
	unsigned dir = (p->flags & PKT_REVERSED) ? 1 : 0;
	bool expired = false;

	if (!(f->refused >> dir & 1) ||
	    flow_ticks_ms(w->tick, f->refused_at) >= w->st->cfg.refused_ms)
		return false;
	if (w->policy == NULL || f->epoch != w->epoch)
		return false;
	ends_of(p, bind);
	for (int end = 0; end < 2; end++) {
		uint32_t slot = bind[end] != NULL ? bind[end]->slot : TRUST_SLOT_NONE;
		const struct trust_record *rec;

		if (f->end[end].slot != slot)
			return false;
		if (slot == TRUST_SLOT_NONE)
			continue;
		if (w->trust == NULL || slot >= w->trust->slots)
			return false;
		rec = &w->trust->rec[slot];
		if (atomic_load_explicit(&rec->generation, memory_order_acquire) !=
		    f->end[end].generation)
			return false;
		expired |=
			w->now_ms >= atomic_load_explicit(&rec->expires_ms, memory_order_acquire);
	}
	return flow_reason(f) != DROP_EXPIRED || expired;
}

static enum drop_reason flow_judge(struct worker *w, const struct pkt *p)
{
	const struct binding *bind[2];
	enum drop_reason why = DROP_NONE;
	struct flow *f = p->flow;

	if (f == NULL) /* an earlier packet of this burst may have opened it */
		f = flow_find(w->flows, &p->id, p->hash);
	if (f == NULL || f->state == FLOW_DIVERTED)
		return f == NULL ? flow_open(w, p, NULL) : DROP_BAD_STATE;
	if (f->state == FLOW_REFUSED) {
		if (refusal_holds(w, f, p)) {
			f->packets++;
			f->bytes += p->ip_bytes;
			return DROP_REFUSED_CACHED;
		}
		return flow_open(w, p, f);
	}
	ends_of(p, bind);
	if (!admission_current(w, f, bind))
		why = flow_readmit(w, p, f);
	if (why == DROP_NONE)
		why = flow_step(w, p, f);
	return why;
}

bool error_flow(struct rte_mbuf *m, const struct pkt *p, struct flow_key *id,
		struct ip_addr *sender)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	size_t off = p->l4_off + ICMP_BYTES, end = p->l3_off + p->ip_bytes;

	if (end > rte_pktmbuf_data_len(m))
		end = rte_pktmbuf_data_len(m);
	return end >= off && parse_quote(frame + off, end - off, p->flags & PKT_V4, id, sender);
}

/* An error about a packet of a flow that is in force goes where the flow goes; a device may only speak of its own
 * flows. The kernel judges the others. */
static bool error_is_of_flow(const struct worker *w, struct rte_mbuf *m, const struct pkt *p)
{
	const struct binding *bind[2];
	struct ip_addr sender;
	struct flow_key id;
	struct flow *f;
	bool rev;

	if (!error_flow(m, p, &id, &sender) || !ip_addr_eq(&sender, pkt_dst(p)))
		return false;
	rev = !ip_addr_eq(&sender, &id.src);
	if (p->src_bind != NULL && !ip_addr_eq(pkt_src(p), rev ? &id.src : &id.dst))
		return false;
	f = flow_find(w->flows, &id, flow_hash(w->st->seed, &id));
	if (f == NULL || f->state == FLOW_REFUSED || f->state == FLOW_DIVERTED)
		return false;
	bind[rev] = p->dst_bind;
	bind[!rev] = bindings_find(w->st->bindings, rev ? &id.src : &id.dst);
	return admission_current(w, f, bind);
}

static void find_bulk(const struct worker *w, struct burst *in)
{
	const struct flow_key *key[BURST_MAX];
	uint64_t hash[BURST_MAX];
	struct flow *flow[BURST_MAX];

	for (uint16_t i = 0; i < in->n; i++) {
		key[i] = &pkt_of(in->pkt[i])->id;
		hash[i] = pkt_of(in->pkt[i])->hash;
	}
	flow_find_bulk(w->flows, key, hash, in->n, flow);
	for (uint16_t i = 0; i < in->n; i++)
		pkt_of(in->pkt[i])->flow = flow[i];
}

/* What opening a flow will touch, of all packets without one before the first is opened. */
static void prefetch_opens(const struct worker *w, const struct burst *in)
{
	uint32_t n = 0;

	for (uint16_t i = 0; i < in->n; i++) {
		const struct pkt *p = pkt_of(in->pkt[i]);
		const struct binding *const bind[2] = {p->src_bind, p->dst_bind};

		if (p->flow != NULL)
			continue;
		flow_prefetch_next(w->flows, n++);
		for (int end = 0; end < 2; end++) {
			if (bind[end] == NULL)
				continue;
			limit_prefetch(w, bind[end]->slot);
			account_prefetch(w, bind[end]->slot);
		}
	}
}

/* In:  packets that leave by a DPDK port.
 * Out: those whose flow is, or now was, admitted. No flow is removed here, so the burst's pointers stay good. */
void stage_flow(struct worker *w, struct burst *in, struct burst *out)
{
	find_bulk(w, in);
	prefetch_opens(w, in);
	for (uint16_t i = 0; i < in->n; i++) {
		struct rte_mbuf *m = in->pkt[i];
		struct pkt *p = pkt_of(m);
		enum drop_reason why;

		if (p->kind == PKT_ICMP_ERROR) {
			if (error_is_of_flow(w, m, p))
				burst_push(out, m);
			else
				pkt_to_kernel(w, p);
			continue;
		}
		why = flow_judge(w, p);
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
			continue;
		}
		if (p->flow == NULL)
			p->flow = flow_find(w->flows, &p->id, p->hash);
		why = p->flow->metered ? limit_packet(w, p->flow, p) : DROP_NONE;
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
			continue;
		}
		flow_passed(p->flow, w->tick, p->ip_bytes);
		lane_learn(w, p->flow, p);
		burst_push(out, m);
	}
}
