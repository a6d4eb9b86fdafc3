/* SPDX-License-Identifier: GPL-3.0-or-later */
/* rewrite: what a router changes in a frame: link header, TTL, header checksum (RFC 1812 section 5.3). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_mbuf.h>

#include "dataplane/bind.h"
#include "dataplane/ports.h"

#define REWRITE_ETH_BYTES 14
#define REWRITE_TAG_BYTES 4

struct rewrite {
	uint64_t mac; /* of the next hop, neigh_pack() */
	const struct port *out;
	uint16_t vlan; /* of the way out, subinterface_id(); 0: no tag */
	uint16_t l3_off, ip_bytes; /* as the packet came */
	bool v4;
};

static inline void rewrite_put16(uint8_t *b, uint16_t v)
{
	v = rte_cpu_to_be_16(v);
	memcpy(b, &v, sizeof(v));
}

/* RFC 1812 section 5.3.1; the sum by RFC 1624: the TTL, above 1, is the high byte of its word, so one less of it is
 * 0x0100 more in the sum, with the carry at the other end. In this byte order (RFC 1071 section 2 B) the word's high byte
 * is the low one, and the carry's end is the high one of the four bytes that are written at once. */
static inline void rewrite_age(uint8_t *l3, bool v4)
{
	uint32_t word, sum;

	if (!v4) {
		l3[7]--;
		return;
	}
	memcpy(&word, l3 + 8, sizeof(word));
	sum = (word >> 16) + 1;
	sum += sum >= 0xffff;
	word = ((word & 0xffff) - 1) | sum << 16;
	memcpy(l3 + 8, &word, sizeof(word));
}

static inline uint16_t rewrite_tags_bytes(uint16_t vlan)
{
	return vlan == 0 ? 0 : vlan < SUBINTERFACE_QINQ ? REWRITE_TAG_BYTES : 2 * REWRITE_TAG_BYTES;
}

/* A service tag and the one inside it, from byte 12 on. */
static inline void rewrite_pair(uint8_t *frame, const struct port_qinq *pair)
{
	rewrite_put16(frame + 12, 0x88a8);
	rewrite_put16(frame + 14, pair->outer);
	rewrite_put16(frame + 16, 0x8100);
	rewrite_put16(frame + 18, pair->tag);
}

/**
 * The link header alone: for packets of the box's own.
 * @return where the IP packet begins now; 0: no room in front of the frame, or no such subinterface, and the frame is
 *         unchanged
 */
static inline uint16_t rewrite_link(struct rte_mbuf *m, const struct rewrite *r)
{
	uint16_t want = REWRITE_ETH_BYTES + rewrite_tags_bytes(r->vlan);
	uint32_t bytes = (uint32_t)want + r->ip_bytes;
	const struct port_qinq *pair = NULL;
	uint8_t *frame;

	if (unlikely(r->vlan >= SUBINTERFACE_QINQ)) {
		pair = port_qinq(r->out, r->vlan);
		if (pair == NULL)
			return 0;
	}
	if (want < r->l3_off)
		rte_pktmbuf_adj(m, r->l3_off - want);
	else if (want > r->l3_off && rte_pktmbuf_prepend(m, want - r->l3_off) == NULL)
		return 0;
	/* What stood behind the IP packet was padding, or somebody's hidden message. */
	if (rte_pktmbuf_pkt_len(m) > bytes &&
	    rte_pktmbuf_trim(m, rte_pktmbuf_pkt_len(m) - bytes) != 0)
		return 0;
	frame = rte_pktmbuf_mtod(m, uint8_t *);
	neigh_unpack(r->mac, frame);
	memcpy(frame + 6, r->out->mac.b, sizeof(r->out->mac.b));
	if (unlikely(pair != NULL)) {
		rewrite_pair(frame, pair);
	} else if (r->vlan != 0) {
		rewrite_put16(frame + 12, 0x8100);
		rewrite_put16(frame + 14, r->vlan);
	}
	rewrite_put16(frame + want - 2, r->v4 ? 0x0800 : 0x86dd);
	return want;
}

/** @return false: as rewrite_link() */
static inline bool rewrite_frame(struct rte_mbuf *m, const struct rewrite *r)
{
	uint16_t l3 = rewrite_link(m, r);

	if (unlikely(l3 == 0))
		return false;
	rewrite_age(rte_pktmbuf_mtod(m, uint8_t *) + l3, r->v4);
	return true;
}
