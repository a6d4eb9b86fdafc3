/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/path.h"
#include "dataplane/rewrite.h"

/* A device's frames go to the MAC of its binding and nowhere else, whatever a neighbour table says. */
uint64_t rewrite_neighbour(const struct worker *w, const struct pkt *p)
{
	const struct nexthop *nh = p->nh;
	const struct binding *b = p->dst_bind;

	if (b != NULL && (b->port != nh->port || b->vlan != nh->vlan))
		return 0;
	if (nh->has_gateway)
		return atomic_load_explicit(&nh->mac, memory_order_acquire);
	if (b != NULL)
		return neigh_pack(&b->mac);
	return neighs_mac(w->st->neighs, nh->port, nh->vlan, pkt_dst(p));
}

/* In:  admitted packets.
 * Each leaves rewritten, or to the kernel, which fragments, answers "too big" and finds neighbours. */
void stage_rewrite(struct worker *w, struct burst *in)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);
		const struct port *out = &w->st->ports[p->out_port];
		uint16_t mtu = p->nh->mtu_bytes != 0 ? p->nh->mtu_bytes : out->mtu_bytes;
		struct rewrite r = {.mac = rewrite_neighbour(w, p),
				    .out = out,
				    .vlan = p->nh->vlan,
				    .l3_off = p->l3_off,
				    .ip_bytes = p->ip_bytes,
				    .v4 = p->flags & PKT_V4};

		if ((p->flags & PKT_FRAGMENT) || p->ip_bytes > mtu || r.mac == 0) {
			pkt_to_kernel(w, p);
			continue;
		}
		if (!rewrite_frame(in->pkt[i], &r)) {
			pkt_drop(w, p, DROP_TX_FULL);
			continue;
		}
		p->edge = EDGE_FORWARD;
	}
}
