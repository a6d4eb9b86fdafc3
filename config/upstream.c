/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int address_read(struct gw_upstream *u, const char *text, const char **why)
{
	const char *colon = strrchr(text, ':');
	char host[ADDR_TEXT_BYTES];
	char *end;
	unsigned long port;
	size_t n;

	*why = "must be address:port ([address]:port for IPv6)";
	if (colon == NULL || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	n = colon - text;
	if (*end != '\0' || port == 0 || port > 65535 || n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
		host[n - 1] = '\0';
		memmove(host, host + 1, n - 1);
	} else if (strchr(host, ':') != NULL) {
		return -EINVAL;
	}
	u->port = port;
	return ip_addr_parse(&u->addr, host);
}

static int upstream_address(void *parent, const char *text, const char **why)
{
	return address_read(parent, text, why);
}

void *upstream_slot(void *parent)
{
	struct gw_listener *l = parent;

	return l->n_upstreams < GW_UPSTREAMS_MAX ? &l->upstreams[l->n_upstreams++] : NULL;
}

int upstream_one(void *parent, const char *text, const char **why)
{
	struct gw_listener *l = parent;

	l->upstream_alone = true;
	if (l->n_upstreams == 0)
		l->n_upstreams = 1;
	l->upstreams[0].weight = 1;
	return address_read(&l->upstreams[0], text, why);
}

/* clang-format off */
const struct key_choice upstream_tlvs[] = {
	{"ssl", PROXY_SSL}, {"certificate", PROXY_CERTIFICATE}, {"authority", PROXY_AUTHORITY}, {"alpn", PROXY_ALPN},
	{"unique_id", PROXY_UNIQUE_ID}, {"crc32c", PROXY_CRC32C}, {"identity", PROXY_IDENTITY},
	{"segment", PROXY_SEGMENT}, {"standing", PROXY_STANDING}, {"certificate_sha256", PROXY_CERT_SHA256}, {0}};

const struct schema_key upstream_keys[] = {
	{"address", KEY_EACH, .min = 1, .max = 1, .def = NULL, .doc = "address:port", .each = upstream_address},
	{"weight", KEY_UINT, SCHEMA_AT(struct gw_upstream, weight), .min = 1, .max = 100, .def = "1", .doc = "its share of new sessions"},
	{0}
};

#define C(field) SCHEMA_AT(struct gw_upstream_check, field)
const struct schema_key upstream_check_keys[] = {
	{"interval_s", KEY_UINT, C(interval_s), .min = 0, .max = 3600, .def = "5", .unit = "s", .doc = "between two checks of an upstream; 0 = none"},
	{"timeout_s", KEY_UINT, C(timeout_s), .min = 1, .max = 300, .def = "2", .unit = "s", .doc = "a check that takes longer has failed"},
	{"rise", KEY_UINT, C(rise), .min = 1, .max = 100, .def = "2", .doc = "checks passed in a row until it is up again"},
	{"fall", KEY_UINT, C(fall), .min = 1, .max = 100, .def = "3", .doc = "checks or sessions failed in a row until it is down"},
	{0}
};

#define T(field) SCHEMA_AT(struct gw_upstream_tls, field)
const struct schema_key upstream_tls_keys[] = {
	{.name = "line", .type = KEY_LINE, T(line)},
	{"ca", KEY_STRING, T(ca), .def = NULL, .doc = "PEM file: roots of the upstreams' certificates"},
	{"name", KEY_STRING, T(name), .def = "", .doc = "DNS name in their certificates, sent as SNI; \"\": the certificate must have the upstream's IP address"},
	{"certificate", KEY_STRING, T(certificate), .def = "", .doc = "PEM file: the gateway's certificate and chain as a client"},
	{"key", KEY_STRING, T(key), .def = "", .doc = "PEM file: its private key"},
	{"tls12", KEY_BOOL, T(tls12), .def = "false", .doc = "take TLS 1.2 (ECDHE-AEAD) too"},
	{"alpn", KEY_BOOL, T(alpn), .def = "false", .doc = "ask for the protocol that the device has agreed on by ALPN"},
	{0}
};
/* clang-format on */

static bool same(const struct gw_upstream *a, const struct gw_upstream *b)
{
	return ip_addr_eq(&a->addr, &b->addr) && a->port == b->port;
}

void upstream_check(const struct gw_config *c, const struct gw_listener *l, const char *key,
		    struct config_errors *errs)
{
	const struct gw_upstream_tls *t = &l->upstream_tls;
	char text[ADDR_TEXT_BYTES];

	if (l->n_upstreams == 0)
		config_error(errs, c->file, 0, key,
			     "needs upstream or upstreams: who gets the plaintext");
	else if (l->upstream_alone && l->upstreams_given)
		config_error(errs, c->file, 0, key, "has both upstream and upstreams; take one");
	for (uint32_t i = 0; i < l->n_upstreams; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (same(&l->upstreams[i], &l->upstreams[k]))
				config_error(errs, c->file, 0, key,
					     "upstream %s port %u is there twice; give it a weight",
					     ip_addr_text(&l->upstreams[i].addr, text),
					     l->upstreams[i].port);
		}
	}
	if (l->protocol == GW_DTLS && (l->proxy_tlvs & PROXY_CERTIFICATE))
		config_error(errs, c->file, 0, key,
			     "proxy_tlvs: \"certificate\" is too long for datagrams; take "
			     "\"certificate_sha256\"");
	if (t->line != 0 && t->ca[0] == '\0')
		config_error(errs, c->file, t->line, key, "upstream_tls.ca must not be empty");
	if ((t->certificate[0] == '\0') != (t->key[0] == '\0'))
		config_error(errs, c->file, t->line, key,
			     "upstream_tls needs both certificate and key, or none of them");
}
