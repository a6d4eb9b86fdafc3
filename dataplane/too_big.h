/* SPDX-License-Identifier: GPL-3.0-or-later */
/* too_big: a TLS worker's packet that the way out does not take becomes the router's answer to it, as the next router
 * would send it: ICMP "fragmentation needed" (RFC 792, RFC 1191), ICMPv6 "packet too big" (RFC 4443, section 3.2). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

/**
 * @param m  with its struct pkt: TCP without IP options, larger than mtu
 * @return false: not in one piece as far as the quote goes; m is unchanged. true: m is the answer, and its pkt says how
 *         many bytes it has; where it goes is the caller's
 */
bool too_big_answer(struct rte_mbuf *m, uint16_t mtu);
