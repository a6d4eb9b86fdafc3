/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct ip_addr ip_addr_from_v4(const void *four_bytes)
{
	struct ip_addr a = {.b = {[10] = 0xff, [11] = 0xff}};

	memcpy(a.b + 12, four_bytes, 4);
	return a;
}

struct ip_addr ip_addr_from_v6(const void *sixteen_bytes)
{
	struct ip_addr a;

	memcpy(a.b, sixteen_bytes, 16);
	return a;
}

int ip_addr_parse(struct ip_addr *out, const char *text)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		*out = ip_addr_from_v4(&v4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6) == 1) {
		*out = ip_addr_from_v6(&v6);
		return 0;
	}
	return -EINVAL;
}

int ip_ifaddr_parse(struct ip_addr *out, uint8_t *len, const char *text)
{
	const char *slash = strchr(text, '/');
	char host[ADDR_TEXT_BYTES];
	struct ip_addr a;
	unsigned base, most;
	char *end;
	long n;

	if (slash == NULL)
		snprintf(host, sizeof(host), "%s", text);
	else if ((size_t)(slash - text) < sizeof(host))
		snprintf(host, sizeof(host), "%.*s", (int)(slash - text), text);
	else
		return -EINVAL;
	if (ip_addr_parse(&a, host) < 0)
		return -EINVAL;
	base = strchr(host, ':') == NULL ? 96 : 0;
	most = 128 - base;
	n = most;
	if (slash != NULL) {
		errno = 0;
		n = strtol(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || errno != 0 || n < 0 ||
		    n > (long)most)
			return -EINVAL;
	}
	*out = a;
	*len = base + n;
	return 0;
}

static bool host_bits_zero(const struct ip_addr *a, unsigned len)
{
	for (unsigned bit = len; bit < 128; bit++) {
		if (a->b[bit / 8] & (0x80 >> (bit % 8)))
			return false;
	}
	return true;
}

int ip_prefix_parse(struct ip_prefix *out, const char *text)
{
	struct ip_prefix p = {0};
	int ret = ip_ifaddr_parse(&p.addr, &p.len, text);

	if (ret < 0)
		return ret;
	if (!host_bits_zero(&p.addr, p.len))
		return -ERANGE;
	*out = p;
	return 0;
}

int mac_addr_parse(struct mac_addr *out, const char *text)
{
	struct mac_addr m;
	int n = 0;

	if (strlen(text) != MAC_TEXT_BYTES - 1 ||
	    sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m.b[0], &m.b[1], &m.b[2],
		   &m.b[3], &m.b[4], &m.b[5], &n) != 6 ||
	    n != MAC_TEXT_BYTES - 1)
		return -EINVAL;
	*out = m;
	return 0;
}

bool ip_prefix_has(const struct ip_prefix *p, const struct ip_addr *a)
{
	unsigned whole = p->len / 8, rest = p->len % 8;

	if (memcmp(p->addr.b, a->b, whole) != 0)
		return false;
	return rest == 0 || ((p->addr.b[whole] ^ a->b[whole]) & (0xff00 >> rest) & 0xff) == 0;
}

const char *ip_addr_text(const struct ip_addr *a, char *out)
{
	if (ip_addr_is_v4(a))
		return inet_ntop(AF_INET, a->b + 12, out, ADDR_TEXT_BYTES);
	return inet_ntop(AF_INET6, a->b, out, ADDR_TEXT_BYTES);
}

const char *ip_prefix_text(const struct ip_prefix *p, char *out)
{
	bool v4 = ip_addr_is_v4(&p->addr) && p->len >= 96;
	char host[ADDR_TEXT_BYTES];

	snprintf(out, ADDR_TEXT_BYTES, "%.46s/%d", ip_addr_text(&p->addr, host),
		 v4 ? p->len - 96 : p->len);
	return out;
}

const char *mac_addr_text(const struct mac_addr *m, char *out)
{
	snprintf(out, MAC_TEXT_BYTES, "%02x:%02x:%02x:%02x:%02x:%02x", m->b[0], m->b[1], m->b[2],
		 m->b[3], m->b[4], m->b[5]);
	return out;
}
