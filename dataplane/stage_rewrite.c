/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "dataplane/path.h"

#define ETH_BYTES 14
#define TAG_BYTES 4
#define ADDR_BYTES 12 /* both MACs */
#define IPV4_TTL 8
#define IPV4_SUM 10
#define IPV6_HOPS 7

static void put16(uint8_t *b, uint16_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

/* RFC 1812 section 5.3.1; the sum by RFC 1624: HC' = ~(~HC + ~m + m'). The TTL is above 1. */
static void age_packet(uint8_t *l3, bool v4)
{
	uint32_t sum;

	if (!v4) {
		l3[IPV6_HOPS]--;
		return;
	}
	sum = (uint16_t)~get16(l3 + IPV4_SUM);
	sum += (uint16_t)~get16(l3 + IPV4_TTL);
	l3[IPV4_TTL]--;
	sum += get16(l3 + IPV4_TTL);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	put16(l3 + IPV4_SUM, (uint16_t)~sum);
}

/* A device's frames go to the MAC of its binding and nowhere else, whatever a neighbour table says. */
static uint64_t neighbour(const struct worker *w, const struct pkt *p)
{
	const struct nexthop *nh = p->nh;
	const struct binding *b = p->dst_bind;

	if (b != NULL && (b->port != nh->port || b->vlan != nh->vlan))
		return 0;
	if (nh->has_gateway)
		return atomic_load_explicit(&nh->mac, memory_order_acquire);
	if (b != NULL)
		return neigh_pack(&b->mac);
	return neighs_find(w->st->neighs, nh->port, nh->vlan, pkt_dst(p));
}

static bool set_link_header(struct rte_mbuf *m, const struct pkt *p, const struct port *out,
			    uint64_t mac)
{
	uint16_t want = ETH_BYTES + (p->nh->vlan != 0 ? TAG_BYTES : 0);
	uint8_t *frame;

	if (want < p->l3_off)
		rte_pktmbuf_adj(m, p->l3_off - want);
	else if (want > p->l3_off && rte_pktmbuf_prepend(m, want - p->l3_off) == NULL)
		return false;
	/* What stood behind the IP packet was padding, or somebody's hidden message. */
	if (rte_pktmbuf_pkt_len(m) > (uint32_t)want + p->ip_bytes &&
	    rte_pktmbuf_trim(m, rte_pktmbuf_pkt_len(m) - want - p->ip_bytes) != 0)
		return false;
	frame = rte_pktmbuf_mtod(m, uint8_t *);
	neigh_unpack(mac, frame);
	memcpy(frame + 6, out->mac.b, sizeof(out->mac.b));
	if (p->nh->vlan != 0) {
		put16(frame + ADDR_BYTES, 0x8100);
		put16(frame + ADDR_BYTES + 2, p->nh->vlan);
	}
	put16(frame + want - 2, (p->flags & PKT_V4) ? 0x0800 : 0x86dd);
	age_packet(frame + want, p->flags & PKT_V4);
	return true;
}

/* In:  admitted packets.
 * Each leaves rewritten, or to the kernel, which fragments, answers "too big" and finds neighbours. */
void stage_rewrite(struct worker *w, struct burst *in)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);
		const struct port *out = &w->st->ports[p->out_port];
		uint16_t mtu = p->nh->mtu_bytes != 0 ? p->nh->mtu_bytes : out->mtu_bytes;
		uint64_t mac = neighbour(w, p);

		p->edge = EDGE_KERNEL;
		if ((p->flags & PKT_FRAGMENT) || p->ip_bytes > mtu || mac == 0)
			continue;
		if (!set_link_header(in->pkt[i], p, out, mac)) {
			pkt_drop(w, p, DROP_TX_FULL);
			continue;
		}
		p->edge = EDGE_FORWARD;
	}
}
