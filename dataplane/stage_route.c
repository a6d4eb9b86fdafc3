/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/path.h"

/* May the fast path judge this packet at all? What it may not, the kernel does, under the same segments. */
static bool is_usual(const struct pkt *p)
{
	if (p->flags & PKT_UNUSUAL)
		return false;
	/* A first fragment is judged so that answers on the fast path find its flow. */
	return p->kind == PKT_FLOW || (p->kind == PKT_ICMP_ERROR && !(p->flags & PKT_FRAGMENT));
}

static bool by_fast_path(const struct worker *w, const struct nexthop *nh)
{
	return nh->kind == ROUTE_FORWARD && nh->port < w->st->n_ports;
}

/* In:  guarded packets that are not for a listener.
 * Out: those that leave by another DPDK port, or the same. */
void stage_route(struct worker *w, struct burst *in, struct burst *out)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);

		if (p->flags & PKT_ON_LINK) {
			pkt_to_kernel(w, p);
			continue;
		}
		p->nh = w->fib != NULL ? fib_lookup(w->fib, pkt_dst(p)) : NULL;
		if (p->nh == NULL) {
			pkt_drop(w, p, DROP_NO_ROUTE);
			continue;
		}
		if (!by_fast_path(w, p->nh) || !is_usual(p)) {
			pkt_to_kernel(w, p);
			continue;
		}
		/* The kernel has no way out there either: its shadow went with the port. */
		if (!port_present(&w->st->ports[p->nh->port])) {
			pkt_drop(w, p, DROP_NO_PORT);
			continue;
		}
		p->out_port = p->nh->port;
		burst_push(out, in->pkt[i]);
	}
}
