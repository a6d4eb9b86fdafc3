/* SPDX-License-Identifier: GPL-3.0-or-later */
/* frame: packets made by hand, for the dataplane's tests and fuzz targets. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "config/base/addr.h"

#define FRAME_MAX 1600

struct frame_spec {
	const char *src, *dst; /* text of either family */
	uint8_t smac, dmac; /* last byte of 02:00:00:00:00:xx */
	uint16_t vlan; /* 0: no tag */
	uint8_t proto;
	uint16_t sport, dport; /* ICMP: type and code in sport's bytes, identifier in dport */
	uint8_t tcp_flags;
	uint8_t ttl; /* 0: 64 */
	uint16_t fragment; /* IPv4 flags and offset */
	uint8_t options; /* IPv4: words of options; IPv6: 1 = a hop-by-hop header */
	uint16_t payload; /* bytes behind the L4 header */
};

static inline void frame_put16(uint8_t *b, uint16_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static inline uint16_t frame_sum(const uint8_t *b, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)(b[i] << 8 | b[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static inline size_t frame_l4(uint8_t *b, const struct frame_spec *s)
{
	switch (s->proto) {
	case IPPROTO_TCP:
		frame_put16(b, s->sport);
		frame_put16(b + 2, s->dport);
		b[12] = 5 << 4;
		b[13] = s->tcp_flags;
		return 20 + s->payload;
	case IPPROTO_UDP:
		frame_put16(b, s->sport);
		frame_put16(b + 2, s->dport);
		frame_put16(b + 4, 8 + s->payload);
		return 8 + s->payload;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		frame_put16(b, s->sport);
		frame_put16(b + 4, s->dport);
		return 8 + s->payload;
	}
	return s->payload;
}

/* @return length of the frame in b, which holds FRAME_MAX zeroed bytes */
static inline size_t frame_make(uint8_t *b, const struct frame_spec *s)
{
	struct ip_addr src = {0}, dst = {0};
	size_t off = 14, l4, total;
	uint8_t *l3;
	bool v4;

	ip_addr_parse(&src, s->src);
	ip_addr_parse(&dst, s->dst);
	v4 = ip_addr_is_v4(&src);
	memset(b, 0, FRAME_MAX);
	b[0] = b[6] = 2;
	b[5] = s->dmac;
	b[11] = s->smac;
	if (s->vlan != 0) {
		frame_put16(b + 12, 0x8100);
		frame_put16(b + 14, s->vlan);
		off = 18;
	}
	frame_put16(b + off - 2, v4 ? 0x0800 : 0x86dd);
	l3 = b + off;
	if (!v4) {
		size_t ext = s->options ? 8 : 0;

		l4 = frame_l4(l3 + 40 + ext, s);
		l3[0] = 0x60;
		frame_put16(l3 + 4, (uint16_t)(ext + l4));
		l3[6] = ext ? IPPROTO_HOPOPTS : s->proto;
		l3[7] = s->ttl ? s->ttl : 64;
		memcpy(l3 + 8, &src, 16);
		memcpy(l3 + 24, &dst, 16);
		if (ext) {
			l3[40] = s->proto;
			l3[42] = 1; /* PadN of four */
			l3[43] = 4;
		}
		return off + 40 + ext + l4;
	}
	total = 20 + 4u * s->options;
	l4 = frame_l4(l3 + total, s);
	l3[0] = (uint8_t)(0x45 + s->options);
	frame_put16(l3 + 2, (uint16_t)(total + l4));
	frame_put16(l3 + 6, s->fragment);
	l3[8] = s->ttl ? s->ttl : 64;
	l3[9] = s->proto;
	memcpy(l3 + 12, src.b + 12, 4);
	memcpy(l3 + 16, dst.b + 12, 4);
	memset(l3 + 20, 1, 4u * s->options); /* no-operation */
	frame_put16(l3 + 10, frame_sum(l3, total));
	return off + total + l4;
}
