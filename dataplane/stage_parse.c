/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <rte_prefetch.h>

#include "dataplane/parse.h"
#include "dataplane/path.h"

#define AHEAD 4

/* An error is judged by the worker that has the flow it speaks of. */
static void follow_error(const struct worker *w, struct rte_mbuf *m, struct pkt *p)
{
	struct ip_addr sender;
	struct flow_key id;

	if (error_flow(m, p, &id, &sender))
		p->hash = flow_hash(w->st->seed, &id);
}

/* In:  frames as they came; pkt_of()->in_port is set.
 * Out: those that are well-formed, for this box, and in a VLAN of the port. */
void stage_parse(struct worker *w, struct burst *in, struct burst *out)
{
	bool ready = atomic_load_explicit(&w->st->ready, memory_order_acquire);

	for (uint16_t i = 0; i < in->n && i < AHEAD; i++)
		rte_prefetch0(rte_pktmbuf_mtod(in->pkt[i], void *));
	for (uint16_t i = 0; i < in->n; i++) {
		struct rte_mbuf *m = in->pkt[i];
		struct pkt *p = pkt_of(m);
		enum drop_reason why;

		if (i + AHEAD < in->n)
			rte_prefetch0(rte_pktmbuf_mtod(in->pkt[i + AHEAD], void *));
		why = parse_frame(&w->st->ports[p->in_port], rte_pktmbuf_mtod(m, const uint8_t *),
				  rte_pktmbuf_data_len(m), rte_pktmbuf_pkt_len(m), p);
		if (why == DROP_NONE && !ready)
			why = DROP_NOT_READY;
		if (why != DROP_NONE) {
			pkt_drop(w, p, why);
			continue;
		}
		p->hash = flow_hash(w->st->seed, &p->id);
		if (w->st->n_workers > 1 && p->kind == PKT_ICMP_ERROR)
			follow_error(w, m, p);
		burst_push(out, m);
	}
}

/* In:  parsed packets.
 * Out: those whose flow is this worker's; the others go away to theirs. */
void stage_spread(struct worker *w, struct burst *in, struct burst *out)
{
	for (uint16_t i = 0; i < in->n; i++) {
		uint64_t hash = pkt_of(in->pkt[i])->hash;

		if (flow_worker(hash, w->st->n_workers) == w->index)
			burst_push(out, in->pkt[i]);
		else
			path_away(in->pkt[i], pkt_of(in->pkt[i])->in_port, hash);
	}
}
