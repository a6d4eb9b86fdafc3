/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/stack/pmtu.h"

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/siphash.h"

#define MTU_LEAST_V4 576 /* RFC 9293, 3.7.1: what every host takes */
#define MTU_LEAST_V6 1280 /* RFC 8200, section 5 */
#define HEADERS_V4 40 /* IP and TCP, without options */
#define HEADERS_V6 60
#define KNOWN_US (600 * 1000000ull) /* RFC 1191, 6.3: then a larger one is tried again */
#define WINDOW_AFTER 10 /* segments, RFC 6928: what was under way is lost */

enum {
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_ICMP6 = 58,
	UNREACHABLE = 3, /* RFC 792 */
	MUST_FRAGMENT = 4, /* its code */
	TOO_BIG = 2, /* RFC 4443, 3.2 */
	ICMP_BYTES = 8,
	PORTS_AND_SEQ = 8,
	V6_BYTES = 40,
};

/* What a message says. */
struct news {
	struct ip_addr own, peer; /* of the quoted packet */
	uint16_t own_port, peer_port;
	uint32_t seq;
	uint32_t size; /* of that packet */
	uint32_t mtu; /* that the way takes */
};

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)be16(at) << 16 | be16(at + 2);
}

static void read_tcp(struct news *n, const uint8_t *tcp)
{
	n->own_port = be16(tcp);
	n->peer_port = be16(tcp + 2);
	n->seq = be32(tcp + 4);
}

/* A router that names no MTU is older than RFC 1191: the next plateau of its section 7.1 below the packet. */
static uint32_t plateau(uint32_t size)
{
	static const uint16_t plateaus[] = {8166, 4352, 2002, 1492, 1006, MTU_LEAST_V4};
	unsigned i = 0;

	while (i < sizeof(plateaus) / sizeof(plateaus[0]) - 1 && plateaus[i] >= size)
		i++;
	return plateaus[i];
}

static bool read_v4(struct news *n, struct ip_addr *to, const uint8_t *ip, size_t bytes)
{
	size_t head, end, quoted_head;
	const uint8_t *icmp, *quoted;

	if (bytes < 20)
		return false;
	head = (ip[0] & 15) * 4u;
	end = be16(ip + 2);
	if (head < 20 || end > bytes || end < head + ICMP_BYTES + 20 + PORTS_AND_SEQ)
		return false;
	if (ip[9] != PROTO_ICMP || (be16(ip + 6) & 0x3fff) != 0)
		return false;
	icmp = ip + head;
	quoted = icmp + ICMP_BYTES;
	quoted_head = (quoted[0] & 15) * 4u;
	if (icmp[0] != UNREACHABLE || icmp[1] != MUST_FRAGMENT || quoted[0] >> 4 != 4 ||
	    quoted_head < 20 || end < head + ICMP_BYTES + quoted_head + PORTS_AND_SEQ ||
	    quoted[9] != PROTO_TCP || (be16(quoted + 6) & 0x1fff) != 0)
		return false;
	if (stack_checksum(ip, (int)head) != 0xffff ||
	    stack_checksum(icmp, (int)(end - head)) != 0xffff)
		return false;
	*to = ip_addr_from_v4(ip + 16);
	n->own = ip_addr_from_v4(quoted + 12);
	n->peer = ip_addr_from_v4(quoted + 16);
	n->size = be16(quoted + 2);
	n->mtu = be16(icmp + 6);
	if (n->mtu == 0)
		n->mtu = plateau(n->size);
	n->mtu = n->mtu < MTU_LEAST_V4 ? MTU_LEAST_V4 : n->mtu;
	read_tcp(n, quoted + quoted_head);
	return true;
}

/* RFC 8200, 8.1 */
static bool sum_is_good_v6(const uint8_t *ip, size_t icmp_bytes)
{
	uint8_t pseudo[40] = {0};
	uint32_t sum;

	memcpy(pseudo, ip + 8, 32);
	pseudo[34] = (uint8_t)(icmp_bytes >> 8);
	pseudo[35] = (uint8_t)icmp_bytes;
	pseudo[39] = PROTO_ICMP6;
	sum = (uint32_t)stack_checksum(pseudo, sizeof(pseudo)) +
	      stack_checksum(ip + V6_BYTES, (int)icmp_bytes);
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

static bool read_v6(struct news *n, struct ip_addr *to, const uint8_t *ip, size_t bytes)
{
	const uint8_t *icmp = ip + V6_BYTES, *quoted = icmp + ICMP_BYTES;
	size_t icmp_bytes;

	if (bytes < V6_BYTES + ICMP_BYTES + V6_BYTES + PORTS_AND_SEQ || ip[6] != PROTO_ICMP6)
		return false;
	icmp_bytes = be16(ip + 4);
	if (icmp_bytes > bytes - V6_BYTES || icmp_bytes < ICMP_BYTES + V6_BYTES + PORTS_AND_SEQ ||
	    icmp[0] != TOO_BIG || quoted[0] >> 4 != 6 || quoted[6] != PROTO_TCP ||
	    !sum_is_good_v6(ip, icmp_bytes))
		return false;
	*to = ip_addr_from_v6(ip + 24);
	n->own = ip_addr_from_v6(quoted + 8);
	n->peer = ip_addr_from_v6(quoted + 24);
	n->size = V6_BYTES + be16(quoted + 4);
	n->mtu = be32(icmp + 4);
	n->mtu = n->mtu < MTU_LEAST_V6 ? MTU_LEAST_V6 : n->mtu;
	read_tcp(n, quoted + V6_BYTES);
	return !ip_addr_is_v4(&n->own) && !ip_addr_is_v4(&n->peer);
}

static bool is_v4(const struct tcp_pcb *pcb)
{
	return IP_IS_V4(&pcb->remote_ip);
}

static uint16_t mss_for(const struct tcp_pcb *pcb, uint32_t mtu)
{
	return (uint16_t)(mtu - (is_v4(pcb) ? HEADERS_V4 : HEADERS_V6));
}

/* Is that packet of this connection's under way, so that whoever speaks of it has seen it? */
static bool under_way(const struct tcp_pcb *pcb, const struct news *n)
{
	ip_addr_t own = addr_to_lwip(&n->own), peer = addr_to_lwip(&n->peer);

	return pcb->state >= ESTABLISHED && pcb->unacked != NULL &&
	       lwip_addr_eq(&pcb->local_ip, &own) && lwip_addr_eq(&pcb->remote_ip, &peer) &&
	       TCP_SEQ_GEQ(n->seq, pcb->lastack) && TCP_SEQ_LT(n->seq, pcb->snd_nxt);
}

/* Everything that waits or is under way, into segments that fit. lwIP cuts only the first of those that wait.
 * @return false: no memory; what was cut is whole, and only smaller */
static bool cut(struct tcp_pcb *pcb, uint16_t mss)
{
	struct tcp_seg *first;
	bool done = true;

	if (pcb->unacked != NULL && tcp_rexmit_rto_prepare(pcb) != ERR_OK)
		return false;
	first = pcb->unsent;
	for (struct tcp_seg *s = first; s != NULL && done; s = s->next) {
		pcb->unsent = s;
		done = tcp_split_unsent_seg(pcb, mss) == ERR_OK;
	}
	pcb->unsent = first;
	return done;
}

static void lower(struct stack *st, uint32_t bucket, struct tcp_pcb *pcb, uint16_t mss)
{
	uint32_t window = WINDOW_AFTER * (uint32_t)mss;

	if (cut(pcb, mss))
		pcb->mss = mss;
	/* Not for congestion: ssthresh stays, and the way back up is short. */
	if (pcb->cwnd > window)
		pcb->cwnd = window;
	pcb->dupacks = 0;
	tcp_clear_flags(pcb, TF_INFR);
	tcp_output(pcb);
	pcbs_touched(st->pcbs, bucket, pcb);
}

static struct pmtu_path *path_of(struct stack *st, const struct ip_addr *peer)
{
	uint64_t in[2];

	memcpy(in, peer->b, sizeof(in));
	return &st->paths[siphash(st->isn_key, in, 2, 1, 3) % PMTU_PATHS];
}

static void path_note(struct stack *st, const struct news *n)
{
	struct pmtu_path *p = path_of(st, &n->peer);

	memcpy(p->peer, n->peer.b, sizeof(p->peer));
	p->mtu_bytes = (uint16_t)n->mtu;
	p->until_us = st->now_us + KNOWN_US;
}

bool pmtu_input(struct stack *st, const uint8_t *ip, size_t bytes)
{
	bool v4 = bytes > 0 && ip[0] >> 4 == 4;
	struct tcp_pcb *pcb;
	struct ip_addr to;
	struct news n;
	uint32_t bucket;

	if (!(v4 ? read_v4(&n, &to, ip, bytes) : bytes > 0 && read_v6(&n, &to, ip, bytes)) ||
	    !ip_addr_eq(&to, &n.own) || n.size <= n.mtu)
		return false;
	bucket = pcbs_bucket(st->pcbs, &n.own, n.own_port, &n.peer, n.peer_port);
	pcb = pcbs_with(st->pcbs, bucket, n.own_port, n.peer_port);
	if (pcb == NULL || !under_way(pcb, &n) || mss_for(pcb, n.mtu) >= pcb->mss)
		return false;
	path_note(st, &n);
	lower(st, bucket, pcb, mss_for(pcb, n.mtu));
	return true;
}

void pmtu_connected(struct stack *st, struct tcp_pcb *pcb)
{
	struct ip_addr peer = addr_of_lwip(&pcb->remote_ip);
	const struct pmtu_path *p = path_of(st, &peer);

	if (p->until_us <= st->now_us || memcmp(p->peer, peer.b, sizeof(p->peer)) != 0 ||
	    pcb->unsent != NULL)
		return;
	if (mss_for(pcb, p->mtu_bytes) < pcb->mss)
		pcb->mss = mss_for(pcb, p->mtu_bytes);
}

void pmtu_whole(struct pbuf *p)
{
	uint8_t *ip = p->payload;
	uint32_t sum;

	/* What is as small as it can be may be cut to pieces where it must. */
	if (ip[9] != PROTO_TCP || p->tot_len <= MTU_LEAST_V4)
		return;
	ip[6] |= 0x40;
	sum = (uint16_t)~be16(ip + 10) + 0x4000u; /* RFC 1624 */
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}
