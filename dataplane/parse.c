/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/parse.h"

#include <netinet/in.h>
#include <string.h>

#define ETH_BYTES 14
#define TAG_BYTES 4
#define ETHER_ARP 0x0806
#define ETHER_IPV4 0x0800
#define ETHER_IPV6 0x86dd
#define ETHER_VLAN 0x8100
#define ETHER_QINQ 0x88a8
#define ARP_BYTES 28
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_BYTES 20
#define UDP_BYTES 8
#define ICMP_BYTES 8
#define EXT_HEADERS_MAX                                                                            \
	8 /* RFC 8200 section 4.1 names seven orders; more is an attack on walkers */
#define V4_MAPPED_BITS 12

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static void addr_v4(struct ip_addr *out, const uint8_t *b)
{
	memset(out->b, 0, 10);
	out->b[10] = 0xff;
	out->b[11] = 0xff;
	memcpy(out->b + V4_MAPPED_BITS, b, 4);
}

bool flow_key_canonical(struct flow_key *k)
{
	int c = memcmp(&k->src, &k->dst, sizeof(k->src));
	struct ip_addr a;
	uint16_t port;

	if (k->proto == IPPROTO_ICMP || k->proto == IPPROTO_ICMPV6)
		return false;
	if (c < 0 || (c == 0 && k->sport <= k->dport))
		return false;
	a = k->src;
	k->src = k->dst;
	k->dst = a;
	port = k->sport;
	k->sport = k->dport;
	k->dport = port;
	return true;
}

/* ICMP echo: the requester's end comes first, whoever sends this packet. */
static void orient(struct pkt *p)
{
	if (p->flags & PKT_REPLY) {
		struct ip_addr a = p->id.src;

		p->id.src = p->id.dst;
		p->id.dst = a;
		p->flags |= PKT_REVERSED;
	} else if (flow_key_canonical(&p->id)) {
		p->flags |= PKT_REVERSED;
	}
}

static enum drop_reason parse_tcp(const uint8_t *l4, size_t bytes, struct pkt *p)
{
	uint8_t flags;
	size_t header;

	if (bytes < TCP_BYTES)
		return DROP_TRUNCATED;
	header = (size_t)(l4[12] >> 4) * 4;
	if (header < TCP_BYTES)
		return DROP_MALFORMED;
	if (header > bytes)
		return DROP_TRUNCATED;
	flags = l4[13] & (PARSE_TCP_FIN | PARSE_TCP_SYN | PARSE_TCP_RST | PARSE_TCP_ACK);
	if (flags == 0 || ((flags & PARSE_TCP_SYN) && (flags & (PARSE_TCP_FIN | PARSE_TCP_RST))))
		return DROP_MALFORMED;
	p->id.sport = get16(l4);
	p->id.dport = get16(l4 + 2);
	p->l4_flags = flags;
	p->kind = PKT_FLOW;
	return DROP_NONE;
}

static enum drop_reason parse_udp(const uint8_t *l4, size_t bytes, struct pkt *p)
{
	uint16_t length;

	if (bytes < UDP_BYTES)
		return DROP_TRUNCATED;
	length = get16(l4 + 4);
	if (length < UDP_BYTES)
		return DROP_MALFORMED;
	if (length > bytes && !(p->flags & PKT_FRAGMENT))
		return DROP_TRUNCATED;
	p->id.sport = get16(l4);
	p->id.dport = get16(l4 + 2);
	p->kind = PKT_FLOW;
	return DROP_NONE;
}

static void echo(const uint8_t *l4, struct pkt *p, bool reply)
{
	p->id.sport = p->id.dport = get16(l4 + 4);
	p->kind = PKT_FLOW;
	if (reply)
		p->flags |= PKT_REPLY;
}

static enum drop_reason parse_icmp(const uint8_t *l4, size_t bytes, struct pkt *p)
{
	if (bytes < ICMP_BYTES)
		return DROP_TRUNCATED;
	p->l4_flags = l4[0];
	switch (l4[0]) {
	case 0:
	case 8:
		echo(l4, p, l4[0] == 0);
		break;
	case 3: /* unreachable */
	case 11: /* time exceeded */
	case 12: /* parameter problem */
		p->kind = PKT_ICMP_ERROR;
		break;
	}
	return DROP_NONE;
}

static enum drop_reason parse_icmp6(const uint8_t *l3, const uint8_t *l4, size_t bytes,
				    struct pkt *p)
{
	if (bytes < ICMP_BYTES) /* RFC 2710, 4443, 4861: no message is shorter */
		return DROP_TRUNCATED;
	p->l4_flags = l4[0];
	switch (l4[0]) {
	case 1:
	case 2:
	case 3:
	case 4:
		p->kind = PKT_ICMP_ERROR;
		break;
	case 128:
	case 129:
		echo(l4, p, l4[0] == 129);
		break;
	case 130:
	case 131:
	case 132:
	case 143:
		p->kind = PKT_ND;
		break;
	case 133:
	case 134:
	case PARSE_ND_NS:
	case PARSE_ND_NA:
	case 137:
		if (l3[7] != 255) /* RFC 4861 section 6.1, 7.1: else it came from another link */
			return DROP_MALFORMED;
		if ((l4[0] == PARSE_ND_NS || l4[0] == PARSE_ND_NA) && bytes < PARSE_ND_TARGET + 16)
			return DROP_TRUNCATED;
		p->kind = PKT_ND;
		break;
	}
	return DROP_NONE;
}

static enum drop_reason parse_l4(const uint8_t *l3, const uint8_t *l4, size_t bytes, struct pkt *p)
{
	switch (p->id.proto) {
	case IPPROTO_TCP:
		return parse_tcp(l4, bytes, p);
	case IPPROTO_UDP:
		return parse_udp(l4, bytes, p);
	case IPPROTO_ICMP:
		return (p->flags & PKT_V4) ? parse_icmp(l4, bytes, p) : DROP_NONE;
	case IPPROTO_ICMPV6:
		return (p->flags & PKT_V4) ? DROP_NONE : parse_icmp6(l3, l4, bytes, p);
	}
	return DROP_NONE; /* PKT_OTHER */
}

/* RFC 1122 section 3.2.1.3: who may stand in the source and the destination. 0.0.0.0 is left to the caller. */
static bool v4_ends_possible(const uint8_t *src, const uint8_t *dst)
{
	bool src_zero = (src[0] | src[1] | src[2] | src[3]) == 0;
	bool dst_ones = (dst[0] & dst[1] & dst[2] & dst[3]) == 0xff;

	if ((src[0] == 0 && !src_zero) || src[0] == 127 || src[0] >= 224)
		return false;
	if (dst[0] == 0 || dst[0] == 127 || (dst[0] >= 240 && !dst_ones))
		return false;
	return memcmp(src, dst, 4) != 0;
}

static uint16_t header_sum(const uint8_t *b, size_t bytes)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes; i += 2)
		sum += get16(b + i);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

static enum drop_reason parse_ipv4(const uint8_t *l3, size_t head, size_t all, struct pkt *p)
{
	enum drop_reason why = DROP_NONE;
	size_t header, total;
	uint16_t offset;

	if (head < IPV4_BYTES)
		return DROP_TRUNCATED;
	header = (size_t)(l3[0] & 15) * 4;
	total = get16(l3 + 2);
	if (l3[0] >> 4 != 4 || header < IPV4_BYTES || total < header)
		return DROP_MALFORMED;
	if (header > head || total > all)
		return DROP_TRUNCATED;
	if (header_sum(l3, header) != 0xffff || !v4_ends_possible(l3 + 12, l3 + 16))
		return DROP_MALFORMED; /* RFC 1812 section 5.2.2 */
	p->flags |= PKT_V4;
	p->ip_bytes = total;
	p->l4_off = p->l3_off + header;
	addr_v4(&p->id.src, l3 + 12);
	addr_v4(&p->id.dst, l3 + 16);
	p->id.proto = l3[9];
	if (header > IPV4_BYTES || l3[8] <= 1)
		p->flags |= PKT_UNUSUAL;
	if (l3[16] >= 224 || (l3[16] == 169 && l3[17] == 254) || (l3[12] == 169 && l3[13] == 254))
		p->flags |= PKT_ON_LINK;
	offset = get16(l3 + 6);
	if (offset & 0x3fff)
		p->flags |= PKT_FRAGMENT;
	/* RFC 1858 section 3: a fragment at offset 1 rewrites the TCP flags that were judged. */
	if (l3[9] == IPPROTO_TCP && (offset & 0x1fff) == 1)
		return DROP_MALFORMED;
	if ((offset & 0x1fff) == 0)
		why = parse_l4(l3, l3 + header, (total < head ? total : head) - header, p);
	if (why != DROP_NONE)
		return why;
	/* RFC 1122 section 3.2.1.3: 0.0.0.0 only while a host learns its address: DHCP, and IGMP before it (RFC 3376
	 * section 4.2.13). */
	if ((l3[12] | l3[13] | l3[14] | l3[15]) == 0) {
		bool dhcp = p->kind == PKT_FLOW && p->id.proto == IPPROTO_UDP && p->id.dport == 67;

		if (!dhcp && p->id.proto != IPPROTO_IGMP)
			return DROP_MALFORMED;
		p->flags |= PKT_ON_LINK;
	}
	orient(p);
	return DROP_NONE;
}

static bool v6_ends_possible(const uint8_t *src, const uint8_t *dst)
{
	static const uint8_t zero[15];
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	/* A v4-mapped address on the wire would alias our 128-bit form of IPv4. */
	if (memcmp(src, mapped, 12) == 0 || memcmp(dst, mapped, 12) == 0 || src[0] == 0xff)
		return false;
	if (memcmp(src, zero, 15) == 0 && src[15] == 1)
		return false;
	if (memcmp(dst, zero, 15) == 0 && dst[15] <= 1)
		return false;
	return memcmp(src, dst, 16) != 0;
}

static bool is_link_local(const uint8_t *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

struct ext_walk {
	size_t off; /* of the next header, from the IP header */
	uint8_t next; /* its type */
	bool later_fragment; /* the rest is payload */
	bool unwalked; /* more headers than are walked here: the kernel's, which walks them all */
};

static enum drop_reason walk_extensions(const uint8_t *l3, size_t bytes, struct ext_walk *w,
					struct pkt *p)
{
	for (unsigned i = 0; i < EXT_HEADERS_MAX; i++) {
		const uint8_t *h = l3 + w->off;
		size_t len;

		switch (w->next) {
		case IPPROTO_HOPOPTS:
			if (i != 0) /* RFC 8200 section 4.1 */
				return DROP_MALFORMED;
			p->flags |= PKT_UNUSUAL;
			break;
		case IPPROTO_ROUTING:
			p->flags |= PKT_UNUSUAL;
			break;
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
			break;
		default:
			return DROP_NONE;
		}
		if (bytes - w->off < 8)
			return DROP_TRUNCATED;
		len = w->next == IPPROTO_FRAGMENT ? 8 : ((size_t)h[1] + 1) * 8;
		if (len > bytes - w->off)
			return DROP_TRUNCATED;
		if (w->next == IPPROTO_FRAGMENT) {
			p->flags |= PKT_FRAGMENT;
			w->later_fragment = (get16(h + 2) & 0xfff8) != 0;
		}
		w->next = h[0];
		w->off += len;
		if (w->later_fragment)
			return DROP_NONE;
	}
	w->unwalked = true;
	return DROP_NONE;
}

static enum drop_reason parse_ipv6(const uint8_t *l3, size_t head, size_t all, struct pkt *p)
{
	static const uint8_t zero[16];
	struct ext_walk w = {.off = IPV6_BYTES};
	enum drop_reason why;
	size_t total;

	if (head < IPV6_BYTES)
		return DROP_TRUNCATED;
	total = IPV6_BYTES + (size_t)get16(l3 + 4);
	if (l3[0] >> 4 != 6 || !v6_ends_possible(l3 + 8, l3 + 24))
		return DROP_MALFORMED;
	if (total > all || total > UINT16_MAX)
		return DROP_TRUNCATED;
	if (head > total)
		head = total;
	memcpy(&p->id.src, l3 + 8, 16);
	memcpy(&p->id.dst, l3 + 24, 16);
	p->ip_bytes = total;
	if (l3[7] <= 1)
		p->flags |= PKT_UNUSUAL;
	if (l3[24] == 0xff || is_link_local(l3 + 8) || is_link_local(l3 + 24))
		p->flags |= PKT_ON_LINK;
	w.next = l3[6];
	why = walk_extensions(l3, head, &w, p);
	if (why != DROP_NONE)
		return why;
	p->l4_off = p->l3_off + w.off;
	p->id.proto = w.next;
	if (w.unwalked)
		p->flags |= PKT_UNUSUAL;
	else if (!w.later_fragment)
		why = parse_l4(l3, l3 + w.off, head - w.off, p);
	if (why != DROP_NONE)
		return why;
	/* RFC 4291 section 2.5.2: the unspecified source stays on the link (address detection, MLD). */
	if (memcmp(l3 + 8, zero, 16) == 0) {
		if (p->kind != PKT_ND)
			return DROP_MALFORMED;
		p->flags |= PKT_ON_LINK;
	}
	orient(p);
	return DROP_NONE;
}

static enum drop_reason parse_arp(const uint8_t *l3, size_t head, struct pkt *p)
{
	static const uint8_t ethernet_ipv4[6] = {0, 1, 8, 0, 6, 4};

	if (head < ARP_BYTES)
		return DROP_TRUNCATED;
	if (memcmp(l3, ethernet_ipv4, sizeof(ethernet_ipv4)) != 0)
		return DROP_MALFORMED;
	p->kind = PKT_ARP;
	p->flags |= PKT_V4 | PKT_ON_LINK;
	addr_v4(&p->id.src, l3 + 14);
	addr_v4(&p->id.dst, l3 + 24);
	return DROP_NONE;
}

/* 802.1ad: a service tag, and one 802.1Q tag inside it. Only pairs that the port has. */
static enum drop_reason parse_pair(const struct port *port, const uint8_t *frame, size_t head,
				   uint16_t *type, struct pkt *p)
{
	uint16_t outer, tag;

	if (head < ETH_BYTES + 2 * TAG_BYTES)
		return DROP_TRUNCATED;
	outer = get16(frame + 14) & 0xfff;
	tag = get16(frame + 18) & 0xfff;
	if (get16(frame + 16) != ETHER_VLAN)
		return DROP_UNKNOWN_VLAN;
	for (unsigned i = 0; i < port->n_qinq; i++) {
		if (port->qinq[i].outer != outer || port->qinq[i].tag != tag)
			continue;
		p->vlan = port->qinq[i].id;
		p->l3_off = ETH_BYTES + 2 * TAG_BYTES;
		*type = get16(frame + 20);
		return DROP_NONE;
	}
	return DROP_UNKNOWN_VLAN;
}

/* No tag, one of 802.1Q, or a pair. Whatever else is there names a VLAN that no configuration can. */
static enum drop_reason parse_tag(const struct port *port, const uint8_t *frame, size_t head,
				  uint16_t *type, struct pkt *p)
{
	enum drop_reason why = DROP_NONE;

	*type = get16(frame + 12);
	p->l3_off = ETH_BYTES;
	if (*type == ETHER_QINQ) {
		why = parse_pair(port, frame, head, type, p);
	} else if (*type == ETHER_VLAN) {
		if (head < ETH_BYTES + TAG_BYTES)
			return DROP_TRUNCATED;
		p->vlan = get16(frame + 14) & 0xfff; /* 0: priority only, IEEE 802.1Q table 9-2 */
		p->l3_off = ETH_BYTES + TAG_BYTES;
		*type = get16(frame + 16);
	}
	if (why == DROP_NONE && (*type == ETHER_VLAN || *type == ETHER_QINQ))
		why = DROP_UNKNOWN_VLAN;
	if (why == DROP_NONE && p->vlan < SUBINTERFACE_QINQ && !port_has_vlan(port, p->vlan))
		why = DROP_UNKNOWN_VLAN;
	return why;
}

enum drop_reason parse_frame(const struct port *port, const uint8_t *frame, size_t head_bytes,
			     size_t all_bytes, struct pkt *p)
{
	enum drop_reason why;
	uint16_t type;
	bool group;

	*p = (struct pkt){.in_port = p->in_port};
	if (head_bytes < ETH_BYTES)
		return DROP_TRUNCATED;
	if (frame[6] & 1)
		return DROP_MALFORMED; /* a group cannot send */
	why = parse_tag(port, frame, head_bytes, &type, p);
	if (why != DROP_NONE)
		return why;
	group = frame[0] & 1;
	if (!group && memcmp(frame, port->mac.b, 6) != 0)
		return DROP_NOT_FOR_US;
	p->l4_off = p->l3_off;
	frame += p->l3_off;
	head_bytes -= p->l3_off;
	all_bytes -= p->l3_off;
	switch (type) {
	case ETHER_IPV4:
		why = parse_ipv4(frame, head_bytes, all_bytes, p);
		break;
	case ETHER_IPV6:
		why = parse_ipv6(frame, head_bytes, all_bytes, p);
		break;
	case ETHER_ARP:
		return parse_arp(frame, head_bytes, p);
	default:
		return DROP_MALFORMED;
	}
	/* RFC 1812 section 5.3.4: what came by link-layer broadcast is not forwarded. */
	if (group && !(p->flags & PKT_ON_LINK))
		p->flags |= PKT_UNUSUAL;
	return why;
}

bool parse_quote(const uint8_t *quote, size_t bytes, bool v4, struct flow_key *id,
		 struct ip_addr *src)
{
	size_t header = IPV6_BYTES;
	const uint8_t *l4;

	*id = (struct flow_key){0};
	if (bytes < (v4 ? IPV4_BYTES : IPV6_BYTES))
		return false;
	if (quote[0] >> 4 != (v4 ? 4 : 6))
		return false;
	if (v4) {
		header = (size_t)(quote[0] & 15) * 4;
		if (header < IPV4_BYTES || (get16(quote + 6) & 0x1fff) != 0)
			return false;
		addr_v4(&id->src, quote + 12);
		addr_v4(&id->dst, quote + 16);
		id->proto = quote[9];
	} else {
		if (!v6_ends_possible(quote + 8, quote + 24))
			return false;
		memcpy(&id->src, quote + 8, 16);
		memcpy(&id->dst, quote + 24, 16);
		id->proto = quote[6];
	}
	if (bytes < header + 8)
		return false;
	l4 = quote + header;
	*src = id->src;
	switch (id->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		id->sport = get16(l4);
		id->dport = get16(l4 + 2);
		flow_key_canonical(id);
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((id->proto == IPPROTO_ICMP) != v4 ||
		    (l4[0] != (v4 ? 8 : 128) && l4[0] != (v4 ? 0 : 129)))
			return false;
		id->sport = id->dport = get16(l4 + 4);
		if (l4[0] == (v4 ? 0 : 129)) {
			struct ip_addr a = id->src;

			id->src = id->dst;
			id->dst = a;
		}
		return true;
	}
	return false;
}
