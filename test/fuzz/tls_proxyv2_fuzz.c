/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whatever a certificate and a ClientHello can say goes into a header that a strict reader takes, and finds again. */
#include <stdlib.h>
#include <string.h>

#include "config/gateway.h"
#include "test/unit/tls-proxy/proxyv2_decode.h"
#include "tls-proxy/proxyv2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct input {
	const uint8_t *at;
	size_t left;
};

static void take(struct input *in, void *out, size_t n)
{
	size_t have = n < in->left ? n : in->left;

	memset(out, 0, n);
	memcpy(out, in->at, have);
	in->at += have;
	in->left -= have;
}

static void take_text(struct input *in, char *out, size_t room)
{
	uint8_t n;

	take(in, &n, 1);
	memset(out, 0, room);
	take(in, out, n < room ? n : room - 1);
}

static void found(const struct pp2_tlv *t, unsigned n, uint8_t type, bool told, const char *want)
{
	const struct pp2_tlv *got = pp2_find(t, n, type);

	if (!told || want[0] == '\0' ? got != NULL
				     : got == NULL || got->n != strlen(want) ||
					       memcmp(got->value, want, got->n) != 0)
		abort();
}

static void encode(struct input *in)
{
	static uint8_t out[70000];
	char group[40], authority[256], alpn[256], unique[128];
	struct proxyv2_front front = {.sig_alg = ""};
	struct identity id = {0};
	struct proxyv2 p = {.id = &id, .tls_version = "TLSv1.3", .cipher = "c", .group = group};
	struct pp2 h;
	uint16_t room;
	int n;

	take(in, &p.tlvs, sizeof(p.tlvs));
	take(in, &room, sizeof(room));
	take(in, &p.src, sizeof(p.src));
	p.dst = p.src;
	take_text(in, id.name, sizeof(id.name));
	take_text(in, id.common_name, sizeof(id.common_name));
	take_text(in, group, sizeof(group));
	take_text(in, authority, sizeof(authority));
	take_text(in, alpn, sizeof(alpn));
	take_text(in, unique, sizeof(unique));
	take_text(in, front.key_alg, sizeof(front.key_alg));
	p.front = &front;
	p.authority = authority;
	p.alpn = alpn;
	p.unique_id = unique;
	p.segment = p.standing = "s";
	p.cert = in->at;
	p.cert_bytes = in->left;
	n = proxyv2_encode(out, room, &p);
	if (n < 0)
		return;
	if (n > room || !pp2_decode(&h, out, n) || h.bytes != (size_t)n || h.command != 1)
		abort();
	found(h.tlv, h.n_tlvs, 0x01, p.tlvs & PROXY_ALPN, alpn);
	found(h.tlv, h.n_tlvs, 0x02, p.tlvs & PROXY_AUTHORITY, authority);
	found(h.tlv, h.n_tlvs, 0x05, p.tlvs & PROXY_UNIQUE_ID, unique);
	found(h.tlv, h.n_tlvs, 0xe0, p.tlvs & PROXY_IDENTITY, id.name);
	found(h.ssl, h.n_ssl, 0x22, p.tlvs & PROXY_SSL, id.common_name);
	found(h.ssl, h.n_ssl, 0x26, p.tlvs & PROXY_SSL, group);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = {data, bytes};
	struct proxyv2_front front;
	struct pp2 h;

	encode(&in);
	proxyv2_front_read(&front, (const char *)data, bytes);
	(void)pp2_decode(&h, data, bytes); /* the reader itself reads nothing past the end */
	return 0;
}
