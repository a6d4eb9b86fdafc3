/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sockaddr: between our addresses and the kernel's. */
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "config/base/addr.h"

/** @return length of the sockaddr */
static inline socklen_t sockaddr_write(struct sockaddr_storage *ss, const struct ip_addr *a,
				       uint16_t port)
{
	memset(ss, 0, sizeof(*ss));
	if (ip_addr_is_v4(a)) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;

		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, a->b + 12, 4);
		return sizeof(*in);
	}
	((struct sockaddr_in6 *)ss)->sin6_family = AF_INET6;
	((struct sockaddr_in6 *)ss)->sin6_port = htons(port);
	memcpy(&((struct sockaddr_in6 *)ss)->sin6_addr, a->b, 16);
	return sizeof(struct sockaddr_in6);
}

/** @return 0, or -EAFNOSUPPORT */
static inline int sockaddr_read(const struct sockaddr_storage *ss, struct ip_addr *a,
				uint16_t *port)
{
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

		*a = ip_addr_from_v4(&in->sin_addr);
		*port = ntohs(in->sin_port);
		return 0;
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

		*a = ip_addr_from_v6(&in6->sin6_addr);
		*port = ntohs(in6->sin6_port);
		return 0;
	}
	return -EAFNOSUPPORT;
}
