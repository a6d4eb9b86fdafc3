/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/path.h"

void path_run(struct worker *w, struct burst *in, uint16_t port)
{
	struct burst parsed = {0}, own = {0};

	stage_parse(w, in, port, &parsed);
	if (w->st->n_workers == 1) {
		path_run_parsed(w, &parsed);
		return;
	}
	stage_spread(w, &parsed, &own);
	path_run_parsed(w, &own);
}

void path_run_parsed(struct worker *w, struct burst *in)
{
	struct burst guarded = {0}, transit = {0}, routed = {0}, admitted = {0};

	stage_guard(w, in, &guarded);
	stage_divert(w, &guarded, &transit);
	stage_route(w, &transit, &routed);
	stage_flow(w, &routed, &admitted);
	stage_rewrite(w, &admitted);
}
