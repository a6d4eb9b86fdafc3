/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lwip: lwIP's headers beside ours: both know a struct ip_addr and an ip_addr_eq(). */
#pragma once

#include <string.h>

#define ip_addr lwip_ip_addr
#include <lwip/init.h>
#include <lwip/ip.h>
#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/stats.h>
#include <lwip/sys.h>
#include <lwip/tcp.h>
#include <lwip/udp.h>

/* lwIP knows one address of each family an interface. */
static inline void lwip_netif_v4(struct netif *n, const void *four_bytes)
{
	memcpy(&n->ip_addr.u_addr.ip4.addr, four_bytes, 4);
}
#undef ip_addr
#undef ip_addr_eq

#include "config/base/addr.h"

static inline struct ip_addr addr_of_lwip(const ip_addr_t *a)
{
	return IP_IS_V4(a) ? ip_addr_from_v4(&ip_2_ip4(a)->addr)
			   : ip_addr_from_v6(ip_2_ip6(a)->addr);
}

static inline ip_addr_t addr_to_lwip(const struct ip_addr *a)
{
	ip_addr_t out = {.type = ip_addr_is_v4(a) ? IPADDR_TYPE_V4 : IPADDR_TYPE_V6};

	if (out.type == IPADDR_TYPE_V4)
		memcpy(&out.u_addr.ip4.addr, a->b + 12, 4);
	else
		memcpy(out.u_addr.ip6.addr, a->b, 16);
	return out;
}

static inline bool lwip_addr_eq(const ip_addr_t *a, const ip_addr_t *b)
{
	return a->type == b->type &&
	       (IP_IS_V4(a) ? ip_2_ip4(a)->addr == ip_2_ip4(b)->addr
			    : memcmp(ip_2_ip6(a)->addr, ip_2_ip6(b)->addr, 16) == 0);
}
