/* SPDX-License-Identifier: GPL-3.0-or-later */
/* parse: from bytes of a frame to struct pkt. Pure: no I/O, clock, allocation, globals. Every length is checked
 * before it is read; nothing is read past head_bytes.
 * Ethernet and 802.1Q, ARP (RFC 826), IPv4 (RFC 791, 1812), IPv6 (RFC 8200), TCP (RFC 9293), UDP, ICMP, ICMPv6. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/reason.h"
#include "dataplane/pkt.h"
#include "dataplane/ports.h"

#define PARSE_TCP_FIN 0x01
#define PARSE_TCP_SYN 0x02
#define PARSE_TCP_RST 0x04
#define PARSE_TCP_ACK 0x10

#define PARSE_ARP_SHA 8 /* offset of the sender's MAC in an ARP packet */
#define PARSE_ND_TARGET 8 /* offset of the target address in NS and NA */
#define PARSE_ND_NS 135
#define PARSE_ND_NA 136

/**
 * @param frame       first segment of the frame
 * @param head_bytes  of that segment: all headers must lie in it
 * @param all_bytes   of the whole frame
 * @param[out] p  overwritten, but for in_port
 * @return DROP_NONE: p describes the packet; else why it must die
 */
enum drop_reason parse_frame(const struct port *port, const uint8_t *frame, size_t head_bytes,
			     size_t all_bytes, struct pkt *p);

/**
 * The packet quoted in an ICMP error (RFC 792, 4443): at least the addresses and ports.
 * @param quote  first byte behind the ICMP header
 * @param[out] id  canonical key of the quoted packet's flow
 * @param[out] src  source of the quoted packet
 * @return false if it does not name a TCP, UDP or echo flow
 */
bool parse_quote(const uint8_t *quote, size_t bytes, bool v4, struct flow_key *id,
		 struct ip_addr *src);

/**
 * Order the two ends so that both directions of a flow give one key. ICMP echo keeps the requester first, so that
 * two hosts pinging each other with one identifier are two flows.
 * @return true if the ends were exchanged
 */
bool flow_key_canonical(struct flow_key *k);
