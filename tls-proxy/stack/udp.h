/* SPDX-License-Identifier: GPL-3.0-or-later */
/* udp: datagrams of the `stack` transport: datagram_ops over lwIP. Datagrams that fill no packet of the interface's MTU
 * are lost: the dataplane takes no fragments. */
#pragma once

#include "tls-proxy/datagram.h"
#include "tls-proxy/stack/stack.h"

/** Bound to an own address; STREAM_READ is wanted. d's ready and arg are set. @return 0 or -errno: d is closed */
int stack_udp_listen(struct stack *st, struct datagram *d, const struct ip_addr *own, uint16_t port,
		     struct err *err);
/** Connected, from one of `from` (most wanted first); STREAM_READ is wanted. @return 0; -EADDRNOTAVAIL: no port is left;
 * or -errno: d is closed */
int stack_udp_connect(struct stack *st, struct datagram *d, const struct ip_addr *from,
		      unsigned n_from, const struct ip_addr *to, uint16_t port);
