/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/path.h"

static void stages(struct worker *w, struct burst *in)
{
	struct burst parsed, own, guarded, transit, routed, admitted;

	parsed.n = own.n = guarded.n = transit.n = routed.n = admitted.n = 0;
	stage_parse(w, in, &parsed);
	stage_spread(w, &parsed, &own);
	stage_guard(w, &own, &guarded);
	stage_divert(w, &guarded, &transit);
	stage_route(w, &transit, &routed);
	stage_flow(w, &routed, &admitted);
	stage_rewrite(w, &admitted);
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
	stages(w, in);
}
