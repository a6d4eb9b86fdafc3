/* SPDX-License-Identifier: GPL-3.0-or-later */
/* report: what the agent, and who asks it, is told of a worker's listeners and upstreams. Asked once a second at most; what
 * it tells is counted where it happens, and no session is looked at. */
#include <string.h>

#include "tls-proxy/worker.h"

static void upstream_put(struct msg_tls_upstream *out, const struct listener *l,
			 const struct upstream *u)
{
	*out = (struct msg_tls_upstream){.addr = u->cfg->addr,
					 .port = u->cfg->port,
					 .down = u->down,
					 .checked = upstreams_checked(l),
					 .sessions = u->sessions,
					 .connected = u->connected,
					 .failed = u->failed,
					 .checks = u->checks,
					 .checks_failed = u->checks_failed,
					 .failed_ms = u->failed_ms};
	memcpy(out->why, u->why, sizeof(out->why));
}

static void listener_put(struct msg_tls_listener *out, const struct listener *l)
{
	const struct gw_listener *cfg = l->cfg;

	*out = (struct msg_tls_listener){.addr = cfg->addr,
					 .port = cfg->port,
					 .proto = gw_listener_proto(cfg),
					 .stack = cfg->transport == GW_STACK,
					 .left = l->retired,
					 .n_upstreams = (uint16_t)l->up.n,
					 .sessions = l->sessions,
					 .handshakes = l->handshakes,
					 .sessions_max = cfg->sessions_max,
					 .handshakes_max = cfg->handshakes_max};
	memcpy(out->name, cfg->name, sizeof(out->name));
	memcpy(out->count, l->count, sizeof(out->count));
	for (uint32_t i = 0; i < l->up.n && i < MSG_TLS_UPSTREAMS_MAX; i++)
		upstream_put(&out->upstream[i], l, &l->up.list[i]);
}

void report_send(struct worker *w, uint64_t seq)
{
	struct msg_result end = {.code = 0};
	struct msg_tls_listener m;

	for (uint32_t i = 0; i < w->n_listeners; i++) {
		const struct listener *l = &w->listeners[i];

		if (l->cfg == NULL || l->preparing || (l->retired && l->sessions == 0))
			continue;
		listener_put(&m, l);
		MSG_INIT(&m, MSG_TLS_LISTENER, seq);
		if (agent_tell(w, &m) < 0)
			return;
	}
	MSG_INIT(&end, MSG_OK, seq);
	agent_tell(w, &end);
}
