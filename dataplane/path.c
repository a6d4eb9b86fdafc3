/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/path.h"

#include "dataplane/trace.h"

static void stages(struct worker *w, struct burst *in)
{
	struct burst parsed, own, outside, guarded, transit, routed, admitted;

	parsed.n = own.n = outside.n = guarded.n = transit.n = routed.n = admitted.n = 0;
	stage_parse(w, in, &parsed);
	stage_spread(w, &parsed, &own);
	stage_link(w, &own, &outside);
	stage_guard(w, &outside, &guarded);
	stage_divert(w, &guarded, &transit);
	stage_route(w, &transit, &routed);
	stage_flow(w, &routed, &admitted);
	stage_rewrite(w, &admitted);
}

/* The same for one packet, with a note after each stage. */
void path_run_noted(struct worker *w, struct rte_mbuf *m, struct msg_traced *r)
{
	struct burst in = {.n = 1, .pkt = {m}}, parsed, own, outside, guarded, transit, routed,
		     admitted;
	struct pkt *p = pkt_of(m);

	parsed.n = own.n = outside.n = guarded.n = transit.n = routed.n = admitted.n = 0;
	trace_begin(w, m, r);
	stage_parse(w, &in, &parsed);
	trace_parsed(p, r);
	stage_spread(w, &parsed, &own);
	stage_link(w, &own, &outside);
	if (own.n > outside.n)
		trace_linked(p, r);
	stage_guard(w, &outside, &guarded);
	if (outside.n > 0)
		trace_guarded(w, p, r);
	stage_divert(w, &guarded, &transit);
	if (guarded.n > 0)
		trace_diverted(p, r);
	stage_route(w, &transit, &routed);
	if (transit.n > 0)
		trace_routed(p, r);
	if (routed.n > 0)
		trace_flow(w, p, r);
	stage_flow(w, &routed, &admitted);
	if (routed.n > 0)
		trace_flowed(w, p, r);
	stage_rewrite(w, &admitted);
	if (admitted.n > 0)
		r->stage = TRACED_REWRITE;
	trace_end(m, r);
}

static void stages_traced(struct worker *w, struct burst *in)
{
	struct msg_traced r;

	for (uint16_t i = 0; i < in->n; i++) {
		path_run_noted(w, in->pkt[i], &r);
		if (pkt_of(in->pkt[i])->edge != EDGE_AWAY)
			trace_record(w, &r);
	}
}

void path_run(struct worker *w, struct burst *in, uint16_t port)
{
	struct burst rest;

	rest.n = 0;
	if (w->lane) {
		stage_lane(w, in, port, &rest);
		w->stats.lane += in->n - rest.n;
		if (rest.n > 0)
			stages(w, &rest);
		return;
	}
	for (uint16_t i = 0; port != PORT_ANY && i < in->n; i++)
		pkt_of(in->pkt[i])->in_port = port;
	if (w->trace != NULL)
		stages_traced(w, in);
	else
		stages(w, in);
}
