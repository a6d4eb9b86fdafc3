/* SPDX-License-Identifier: GPL-3.0-or-later */
/* frames: the rig's addresses, and flows as frames. One numbering for generator and feeder:
 *   device d      10.64.0.0/10 and fd01::/64, MAC 02:01:00:xx:xx:xx, behind the gateway's device port
 *   server of f   10.32.0.0/19 and fd32:0:0:n::/64, behind the router at the uplink port
 *   flow f        device f % devices, UDP port base + f / devices > server, UDP port 5000 + f % 100
 * A frame tells its flow, so that what comes back can be checked without a table. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"

#define FRAMES_SPORT 10000
#define FRAMES_HEAD_BYTES                                                                          \
	64 /* what of a frame is written; the rest of a longer one is whatever lies there */
#define FRAMES_KNOCK_BYTES 80
#define FRAMES_STRANGERS 0x800000u /* device numbers from here on are never enrolled */
#define FRAMES_STAMP_OFF 44 /* IPv4: a counter in the UDP payload */

#define ETH_BYTES 14
#define IP4_BYTES 20
#define IP6_BYTES 40
#define UDP_BYTES 8

static const uint8_t frames_router[6] = {2, 2, 0, 0, 0, 0xfe};

struct frame_head {
	uint8_t b[FRAMES_HEAD_BYTES];
};

/* What all frames of a run have in common. */
struct frames_plan {
	uint32_t flows, devices;
	uint16_t sport; /* base */
	bool v4, imix;
	uint8_t gateway[2][6]; /* MACs of the device port and of the uplink port */
};

static inline void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static inline uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static inline void device_mac(uint32_t d, uint8_t mac[6])
{
	const uint8_t m[6] = {2, 1, 0, (uint8_t)(d >> 16), (uint8_t)(d >> 8), (uint8_t)d};

	memcpy(mac, m, sizeof(m));
}

/* Not the first addresses of the prefix: those are networks' and broadcasts'. */
static inline void device_ip(uint32_t d, bool v4, uint8_t *at)
{
	const uint32_t n = d + 256;
	const uint8_t low[4] = {10, (uint8_t)(64 + (n >> 16 & 63)), (uint8_t)(n >> 8), (uint8_t)n};

	if (!v4) {
		memset(at, 0, 12);
		at[0] = 0xfd;
		at[1] = 1;
		put16(at + 12, n >> 16);
		put16(at + 14, n);
		return;
	}
	memcpy(at, low, 4);
	if (d >= FRAMES_STRANGERS)
		at[1] = 126;
}

static inline uint32_t device_of_ip(const uint8_t *at, bool v4)
{
	if (!v4)
		return (get16(at + 12) << 16 | get16(at + 14)) - 256;
	return ((uint32_t)(at[1] - 64) << 16 | get16(at + 2)) - 256;
}

static inline void server_ip(uint32_t f, bool v4, uint8_t *at)
{
	uint8_t net = f % (LOAD_NETWORKS - 1), host = 1 + f / (LOAD_NETWORKS - 1) % 250;

	if (v4) {
		at[0] = 10;
		at[1] = 32;
		at[2] = net;
		at[3] = host;
		return;
	}
	memset(at, 0, 16);
	at[0] = 0xfd;
	at[1] = 0x32;
	at[7] = net;
	at[15] = host;
}

/* RFC 1071 */
static inline uint32_t sum16(const uint8_t *at, uint32_t bytes, uint32_t sum)
{
	for (uint32_t i = 0; i < bytes; i += 2)
		sum += get16(at + i);
	return sum;
}

static inline uint16_t sum_end(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Without the frame check sequence. IMIX: 7 x 64, 4 x 594, 1 x 1518 bytes on the wire. */
static inline uint16_t frame_bytes(const struct frames_plan *p, uint32_t f)
{
	uint32_t k = f % 12;

	if (p->imix && k == 11)
		return 1514;
	if (p->imix && k >= 7)
		return 590;
	return p->v4 ? 60 : ETH_BYTES + IP6_BYTES + UDP_BYTES;
}

static inline void ip_head(uint8_t *ip, bool v4, uint8_t proto, uint16_t l4_bytes)
{
	memset(ip, 0, v4 ? IP4_BYTES : IP6_BYTES);
	if (v4) {
		ip[0] = 0x45;
		put16(ip + 2, IP4_BYTES + l4_bytes);
		ip[6] = 0x40;
		ip[8] = 64;
		ip[9] = proto;
	} else {
		ip[0] = 0x60;
		put16(ip + 4, l4_bytes);
		ip[6] = proto;
		ip[7] = 64;
	}
}

/* Direction 0: from the device; 1: back to it. The UDP checksum is left out over IPv4 (RFC 768) and that of an empty
 * datagram over IPv6. @return bytes of the frame */
static inline uint16_t frame_make(struct frame_head *out, const struct frames_plan *p, uint32_t f,
				  int dir)
{
	const uint16_t bytes = frame_bytes(p, f), ip_bytes = p->v4 ? IP4_BYTES : IP6_BYTES;
	const uint16_t l4_bytes = bytes - ETH_BYTES - ip_bytes, addr = p->v4 ? 4 : 16;
	const uint32_t d = f % p->devices;
	const uint16_t inner = p->sport + f / p->devices, outer = LOAD_DPORT + f % LOAD_DPORTS;
	uint8_t *eth = out->b, *ip = eth + ETH_BYTES, *udp = ip + ip_bytes;
	uint8_t *src = ip + (p->v4 ? 12 : 8), *dst = src + addr;

	memset(out->b, 0, sizeof(out->b));
	memcpy(eth, p->gateway[dir], 6);
	if (dir == 0)
		device_mac(d, eth + 6);
	else
		memcpy(eth + 6, frames_router, 6);
	put16(eth + 12, p->v4 ? 0x0800 : 0x86dd);
	ip_head(ip, p->v4, IPPROTO_UDP, l4_bytes);
	device_ip(d, p->v4, dir == 0 ? src : dst);
	server_ip(f, p->v4, dir == 0 ? dst : src);
	put16(udp, dir == 0 ? inner : outer);
	put16(udp + 2, dir == 0 ? outer : inner);
	put16(udp + 4, l4_bytes);
	if (p->v4)
		put16(ip + 10, sum_end(sum16(ip, IP4_BYTES, 0)));
	else
		put16(udp + 6,
		      sum_end(sum16(src, 32, IPPROTO_UDP + l4_bytes) + sum16(udp, UDP_BYTES, 0)));
	return bytes;
}

/* A frame of a TCP connection to a listener of the gateway, after which the gateway knows where the device is. RST: its
 * kernel, which never saw this connection begin, answers nothing. @return bytes */
static inline uint16_t frame_knock(uint8_t out[FRAMES_KNOCK_BYTES], const struct frames_plan *p,
				   uint32_t d, const uint8_t *listener, uint16_t port)
{
	const uint16_t ip_bytes = p->v4 ? IP4_BYTES : IP6_BYTES, addr = p->v4 ? 4 : 16;
	uint8_t *eth = out, *ip = eth + ETH_BYTES, *tcp = ip + ip_bytes;
	uint8_t *src = ip + (p->v4 ? 12 : 8);

	memset(out, 0, FRAMES_KNOCK_BYTES);
	memcpy(eth, p->gateway[0], 6);
	device_mac(d, eth + 6);
	put16(eth + 12, p->v4 ? 0x0800 : 0x86dd);
	ip_head(ip, p->v4, IPPROTO_TCP, 20);
	device_ip(d, p->v4, src);
	memcpy(src + addr, listener, addr);
	put16(tcp, FRAMES_SPORT);
	put16(tcp + 2, port);
	put16(tcp + 12, 0x5014);
	put16(tcp + 14, 8192);
	put16(tcp + 16, sum_end(sum16(src, 2 * addr, IPPROTO_TCP + 20) + sum16(tcp, 20, 0)));
	if (p->v4)
		put16(ip + 10, sum_end(sum16(ip, IP4_BYTES, 0)));
	return ETH_BYTES + ip_bytes + 20;
}

/* Which flow is this frame of, seen in direction dir? @return UINT32_MAX: none of the plan's */
static inline uint32_t frame_flow(const struct frames_plan *p, const uint8_t *eth, int dir)
{
	const uint8_t *ip = eth + ETH_BYTES, *udp = ip + (p->v4 ? IP4_BYTES : IP6_BYTES);
	const uint8_t *src = ip + (p->v4 ? 12 : 8),
		      *device = dir == 0 ? src : src + (p->v4 ? 4 : 16);
	uint32_t d, k;

	if (get16(eth + 12) != (p->v4 ? 0x0800 : 0x86dd) || ip[p->v4 ? 9 : 6] != IPPROTO_UDP)
		return UINT32_MAX;
	d = device_of_ip(device, p->v4);
	k = (get16(udp + (dir == 0 ? 0 : 2)) - p->sport) & 0xffff;
	if (d >= p->devices || k > p->flows / p->devices || d + k * p->devices >= p->flows)
		return UINT32_MAX;
	return d + k * p->devices;
}

/* What was done to a frame between the ports of what is measured: see gen.c. */
enum frame_kind { KIND_ROUTE, KIND_SWAP, KIND_WIRE, KIND_HOP };

/* What is wrong with flow f's frame, sent in direction dir, as it came back? @return NULL: nothing */
static inline const char *frame_fault(const struct frames_plan *p, enum frame_kind kind,
				      const uint8_t *eth, uint32_t bytes, int dir, uint32_t f)
{
	const uint8_t *ip = eth + ETH_BYTES, ttl = p->v4 ? ip[8] : ip[7];
	struct frame_head sent;
	uint8_t device[6];

	if (bytes != frame_bytes(p, f))
		return "another length";
	if (ttl != (kind == KIND_ROUTE || kind == KIND_HOP ? 63 : 64))
		return "another TTL";
	if (p->v4 && sum_end(sum16(ip, IP4_BYTES, 0)) != 0)
		return "a wrong header checksum";
	frame_make(&sent, p, f, dir);
	device_mac(f % p->devices, device);
	if (kind == KIND_ROUTE && (memcmp(eth, dir == 0 ? frames_router : device, 6) != 0 ||
				   memcmp(eth + 6, p->gateway[!dir], 6) != 0))
		return "MAC addresses that are not of its next hop and port";
	if (kind == KIND_SWAP &&
	    (memcmp(eth, sent.b + 6, 6) != 0 || memcmp(eth + 6, sent.b, 6) != 0))
		return "MAC addresses that were not exchanged";
	if (kind == KIND_WIRE && memcmp(eth, sent.b, 12) != 0)
		return "other MAC addresses";
	if (p->v4 ? memcmp(ip + 12, sent.b + ETH_BYTES + 12, 16) != 0
		  : memcmp(ip + 8, sent.b + ETH_BYTES + 8, 40) != 0)
		return "other addresses or ports";
	return NULL;
}
