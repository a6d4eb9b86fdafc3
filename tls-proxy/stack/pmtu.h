/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pmtu: path MTU discovery (RFC 1191, RFC 8201), of which lwIP knows nothing. A router says that a packet of ours was too
 * big: the connection's segments become smaller, what is under way is cut anew and sent again, and for ten minutes new
 * connections with that peer begin so.
 *
 * Anybody can send such a message. One is heeded only if its checksums are right and it quotes a packet that is under way
 * just now and larger than what it asks for (RFC 5927, sections 4 and 7.2); and never below 576 bytes (IPv4) or 1,280. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pbuf;
struct stack;
struct tcp_pcb;

#define PMTU_PATHS 256 /* that are remembered; a newer one takes an older one's place */

struct pmtu_path {
	uint8_t peer[16];
	uint64_t until_us;
	uint16_t mtu_bytes;
};

/** A packet from the wire that is neither TCP nor UDP. @return false: nothing that is heeded */
bool pmtu_input(struct stack *st, const uint8_t *ip, size_t bytes);

/** A connection has come about, and has nothing to send yet: if the way to its peer is known to be narrow, it heeds it. */
void pmtu_connected(struct stack *st, struct tcp_pcb *pcb);

/** Routers must not cut this packet to pieces, if it is TCP over IPv4 and may be smaller. */
void pmtu_whole(struct pbuf *p);
