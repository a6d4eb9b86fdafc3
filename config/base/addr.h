/* SPDX-License-Identifier: GPL-3.0-or-later */
/* addr: IP addresses, prefixes and MAC addresses as plain memory in network byte order.
 * An IPv4 address is kept IPv4-mapped (RFC 4291 section 2.5.5.2), so that one 16-byte compare serves both families. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ADDR_TEXT_BYTES 52 /* longest text of an address or prefix, with its end */
#define MAC_TEXT_BYTES 18

struct ip_addr {
	uint8_t b[16];
};

struct ip_prefix {
	struct ip_addr addr; /* host bits are zero */
	uint8_t len; /* of the 128-bit form: an IPv4 /24 is 120 */
};

struct mac_addr {
	uint8_t b[6];
};

static inline bool ip_addr_is_v4(const struct ip_addr *a)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static inline bool ip_addr_eq(const struct ip_addr *a, const struct ip_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/** From four (v4) or sixteen (v6) bytes in network order. */
struct ip_addr ip_addr_from_v4(const void *four_bytes);
struct ip_addr ip_addr_from_v6(const void *sixteen_bytes);

/** @return 0 or -EINVAL */
int ip_addr_parse(struct ip_addr *out, const char *text);
/** "10.0.0.0/8", "fd00::/8", or an address alone (a host prefix). @return 0, -EINVAL; -ERANGE if host bits are set */
int ip_prefix_parse(struct ip_prefix *out, const char *text);
/** "10.0.0.1/24": an interface's address with its prefix length (128-bit form in *len). @return 0 or -EINVAL */
int ip_ifaddr_parse(struct ip_addr *out, uint8_t *len, const char *text);
int mac_addr_parse(struct mac_addr *out, const char *text);

bool ip_prefix_has(const struct ip_prefix *p, const struct ip_addr *a);

/** Text into out, which holds ADDR_TEXT_BYTES (MAC_TEXT_BYTES). @return out */
const char *ip_addr_text(const struct ip_addr *a, char *out);
const char *ip_prefix_text(const struct ip_prefix *p, char *out);
const char *mac_addr_text(const struct mac_addr *m, char *out);
