/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <netinet/in.h>
#include <string.h>

#include "dataplane/parse.h"
#include "dataplane/path.h"

#define ETH_SRC 6
#define DNS_PORT 53
#define DHCP_SERVER 67
#define DHCP6_SERVER 547

enum guard_edge {
	GUARD_PASS,
	GUARD_KERNEL,
	GUARD_SPOOFED,
	GUARD_STRANGER,
	GUARD_STRANGER_RATE,
	GUARD_REVERSE,
};

static bool is_local(const struct worker *w, const struct ip_addr *a)
{
	const struct nexthop *nh = w->fib != NULL ? fib_lookup(w->fib, a) : NULL;

	return nh != NULL && nh->kind == ROUTE_LOCAL;
}

/* What a source without a binding may reach on the box beside the listeners. */
static bool stranger_may(const struct worker *w, const struct pkt *p)
{
	uint16_t may = w->st->cfg.stranger_services;
	uint16_t dport = pkt_dport(p);
	bool v4 = p->flags & PKT_V4;

	if (p->kind == PKT_ND)
		return true;
	if (p->kind != PKT_FLOW || (p->flags & PKT_FRAGMENT))
		return false;
	if (p->id.proto == IPPROTO_UDP && dport == (v4 ? DHCP_SERVER : DHCP6_SERVER) &&
	    (may & STRANGER_DHCP))
		return (p->flags & PKT_ON_LINK) || is_local(w, pkt_dst(p));
	if ((p->id.proto == IPPROTO_UDP || p->id.proto == IPPROTO_TCP) && dport == DNS_PORT &&
	    (may & STRANGER_DNS))
		return is_local(w, pkt_dst(p));
	if ((p->id.proto == IPPROTO_ICMP || p->id.proto == IPPROTO_ICMPV6) &&
	    !(p->flags & PKT_REPLY) && (may & STRANGER_PING))
		return is_local(w, pkt_dst(p));
	return false;
}

static bool is_from(const struct binding *b, const struct pkt *p, const uint8_t *mac)
{
	return b->port == p->in_port && b->vlan == p->vlan &&
	       memcmp(b->mac.b, mac, sizeof(b->mac.b)) == 0;
}

/* RFC 826 and RFC 4861 carry addresses in their payload, which would move a bound address in everybody's tables. */
static bool payload_is_honest(const struct worker *w, const struct pkt *p, const uint8_t *frame)
{
	const struct binding *b;
	struct ip_addr target;

	if (p->kind == PKT_ARP) {
		const uint8_t *sha = frame + p->l3_off + PARSE_ARP_SHA;

		return p->src_bind == NULL ||
		       (is_from(p->src_bind, p, frame + ETH_SRC) &&
			memcmp(sha, frame + ETH_SRC, sizeof(p->src_bind->mac.b)) == 0);
	}
	if (p->kind != PKT_ND || p->l4_flags != PARSE_ND_NA)
		return true;
	memcpy(&target, frame + p->l4_off + PARSE_ND_TARGET, sizeof(target));
	b = bindings_find(w->st->bindings, &target);
	return b == NULL || is_from(b, p, frame + ETH_SRC);
}

static enum guard_edge guard_device(const struct worker *w, struct pkt *p, const uint8_t *frame)
{
	/* 1. What is bound comes from where it was bound. */
	if (p->src_bind != NULL && !is_from(p->src_bind, p, frame + ETH_SRC))
		return GUARD_SPOOFED;
	if (!payload_is_honest(w, p, frame))
		return GUARD_SPOOFED;
	/* 2. The link's own protocols are the kernel's. */
	if (p->kind == PKT_ARP || p->kind == PKT_ND)
		return GUARD_KERNEL;
	if (p->src_bind != NULL)
		return GUARD_PASS;
	/* 3. Strangers. */
	p->flags |= PKT_STRANGER;
	if (divert_wants(w->st, p))
		return GUARD_PASS;
	return stranger_may(w, p) ? GUARD_KERNEL : GUARD_STRANGER;
}

/* No device is out there, and no address of ours: RFC 2827, RFC 3704 section 2.2 in the loose form. */
static enum guard_edge guard_uplink(const struct worker *w, struct pkt *p, const uint8_t *frame)
{
	const struct nexthop *back;

	if (p->kind == PKT_ARP || p->kind == PKT_ND)
		return p->src_bind == NULL && payload_is_honest(w, p, frame) ? GUARD_KERNEL
									     : GUARD_SPOOFED;
	if (p->src_bind != NULL)
		return GUARD_REVERSE;
	if (p->flags & PKT_ON_LINK)
		return GUARD_PASS;
	back = w->fib != NULL ? fib_lookup(w->fib, pkt_src(p)) : NULL;
	if (back == NULL)
		return GUARD_PASS;
	if (back->kind == ROUTE_LOCAL)
		return GUARD_REVERSE;
	if (back->kind == ROUTE_FORWARD && back->port < w->st->n_ports &&
	    w->st->ports[back->port].side == PORT_DEVICE)
		return GUARD_REVERSE;
	return GUARD_PASS;
}

/* In:  parsed packets.
 * Out: those whose source is who it says, labelled with both ends' bindings; strangers only towards listeners. */
void stage_guard(struct worker *w, struct burst *in, struct burst *out)
{
	const struct ip_addr *addr[2 * BURST_MAX];
	const struct binding *bind[2 * BURST_MAX];

	for (uint16_t i = 0; i < in->n; i++) {
		addr[2 * i] = pkt_src(pkt_of(in->pkt[i]));
		addr[2 * i + 1] = pkt_dst(pkt_of(in->pkt[i]));
	}
	bindings_find_bulk(w->st->bindings, addr, 2 * in->n, bind);
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);
		const uint8_t *frame = rte_pktmbuf_mtod(in->pkt[i], const uint8_t *);
		enum guard_edge edge;
		bool device;

		p->src_bind = bind[2 * i];
		p->dst_bind = bind[2 * i + 1];
		device = w->st->ports[p->in_port].side != PORT_UPLINK;
		edge = device ? guard_device(w, p, frame) : guard_uplink(w, p, frame);
		if (device && p->src_bind == NULL && (edge == GUARD_PASS || edge == GUARD_KERNEL) &&
		    limit_stranger(w, p, frame + ETH_SRC) != DROP_NONE)
			edge = GUARD_STRANGER_RATE;
		switch (edge) {
		case GUARD_PASS:
			burst_push(out, in->pkt[i]);
			break;
		case GUARD_KERNEL:
			pkt_to_kernel(w, p);
			break;
		case GUARD_SPOOFED:
			pkt_drop(w, p, DROP_SPOOFED);
			break;
		case GUARD_STRANGER:
			pkt_drop(w, p, DROP_STRANGER);
			break;
		case GUARD_STRANGER_RATE:
			pkt_drop(w, p, DROP_STRANGER_RATE);
			break;
		case GUARD_REVERSE:
			pkt_drop(w, p, DROP_REVERSE_PATH);
			break;
		}
	}
}
