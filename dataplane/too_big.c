/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/too_big.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_ip.h>

#include "dataplane/pkt.h"
#include "dataplane/rewrite.h"

#define ICMP_BYTES 8
#define QUOTED_MORE 8 /* ports and sequence number */
#define HOPS 64
#define V4_BYTES 20
#define V6_BYTES 40

static void sum_set(uint8_t *at, uint16_t sum)
{
	memcpy(at, &sum, sizeof(sum));
}

/* From whom the packet was for: no other address is known that the worker could expect one of. */
static void answer_v4(uint8_t *ip, uint16_t bytes, uint16_t mtu)
{
	const uint8_t *quoted = ip + V4_BYTES + ICMP_BYTES;
	uint8_t *icmp = ip + V4_BYTES;

	memset(ip, 0, V4_BYTES + ICMP_BYTES);
	ip[0] = 0x45;
	rewrite_put16(ip + 2, bytes);
	ip[8] = HOPS;
	ip[9] = IPPROTO_ICMP;
	memcpy(ip + 12, quoted + 16, 4);
	memcpy(ip + 16, quoted + 12, 4);
	sum_set(ip + 10, rte_ipv4_cksum((const struct rte_ipv4_hdr *)ip));
	icmp[0] = 3;
	icmp[1] = 4;
	rewrite_put16(icmp + 6, mtu);
	sum_set(icmp + 2, (uint16_t)~rte_raw_cksum(icmp, bytes - V4_BYTES));
}

static void answer_v6(uint8_t *ip, uint16_t bytes, uint16_t mtu)
{
	const uint8_t *quoted = ip + V6_BYTES + ICMP_BYTES;
	uint8_t *icmp = ip + V6_BYTES;

	memset(ip, 0, V6_BYTES + ICMP_BYTES);
	ip[0] = 0x60;
	rewrite_put16(ip + 4, bytes - V6_BYTES);
	ip[6] = IPPROTO_ICMPV6;
	ip[7] = HOPS;
	memcpy(ip + 8, quoted + 24, 16);
	memcpy(ip + 24, quoted + 8, 16);
	icmp[0] = 2;
	rewrite_put16(icmp + 6, mtu);
	sum_set(icmp + 2, rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)ip, icmp));
}

bool too_big_answer(struct rte_mbuf *m, uint16_t mtu)
{
	struct pkt *p = pkt_of(m);
	bool v4 = p->flags & PKT_V4;
	uint16_t head = v4 ? V4_BYTES : V6_BYTES, quote = head + QUOTED_MORE;
	uint16_t bytes = head + ICMP_BYTES + quote;
	uint8_t *ip;

	if (p->l4_off != p->l3_off + head || p->ip_bytes < bytes ||
	    rte_pktmbuf_data_len(m) < p->l3_off + bytes)
		return false;
	rte_pktmbuf_free(m->next);
	m->next = NULL;
	m->nb_segs = 1;
	m->data_len = p->l3_off + bytes;
	m->pkt_len = m->data_len;
	ip = rte_pktmbuf_mtod_offset(m, uint8_t *, p->l3_off);
	memmove(ip + head + ICMP_BYTES, ip, quote);
	if (v4)
		answer_v4(ip, bytes, mtu);
	else
		answer_v6(ip, bytes, mtu);
	p->ip_bytes = bytes;
	return true;
}
