/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/proxyv2.h"

#include <errno.h>
#include <string.h>

/* Section 2.2: signature, version 2 and command PROXY, family and protocol, length. */
static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
#define HEAD_BYTES 16
#define TYPE_SSL 0x20
#define SUBTYPE_SSL_VERSION 0x21
#define SUBTYPE_SSL_CN 0x22
#define SUBTYPE_SSL_CIPHER 0x23
#define CLIENT_SSL 0x01
#define CLIENT_CERT_CONN 0x02
#define CLIENT_CERT_SESS 0x04

struct writer {
	uint8_t *out;
	size_t at, room;
	int full;
};

static void put(struct writer *w, const void *data, size_t n)
{
	if (n > w->room - w->at) {
		w->full = 1;
		return;
	}
	memcpy(w->out + w->at, data, n);
	w->at += n;
}

static void put_u8(struct writer *w, uint8_t v)
{
	put(w, &v, 1);
}

static void put_u16(struct writer *w, uint16_t v)
{
	const uint8_t b[2] = {v >> 8, v & 0xff};

	put(w, b, 2);
}

static void put_tlv(struct writer *w, uint8_t type, const void *data, size_t n)
{
	put_u8(w, type);
	put_u16(w, n);
	put(w, data, n);
}

static void put_text(struct writer *w, uint8_t type, const char *text)
{
	if (text != NULL && text[0] != '\0')
		put_tlv(w, type, text, strlen(text));
}

static void put_addresses(struct writer *w, const struct proxyv2 *p)
{
	bool v4 = ip_addr_is_v4(&p->src);
	size_t skip = v4 ? 12 : 0;

	put(w, p->src.b + skip, 16 - skip);
	put(w, p->dst.b + skip, 16 - skip);
	put_u16(w, p->sport);
	put_u16(w, p->dport);
}

/* Section 2.2.6: verify is 0 when a certificate was presented and verified. */
static void put_ssl(struct writer *w, const struct proxyv2 *p)
{
	static const uint8_t verified[4] = {0};
	uint8_t value[512];
	struct writer sub = {.out = value, .room = sizeof(value)};

	put_u8(&sub, CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS);
	put(&sub, verified, sizeof(verified));
	put_text(&sub, SUBTYPE_SSL_VERSION, p->tls_version);
	put_text(&sub, SUBTYPE_SSL_CN, p->id->common_name);
	put_text(&sub, SUBTYPE_SSL_CIPHER, p->cipher);
	w->full |= sub.full;
	put_tlv(w, TYPE_SSL, value, sub.at);
}

int proxyv2_encode(uint8_t *out, size_t out_bytes, const struct proxyv2 *p)
{
	struct writer w = {.out = out, .room = out_bytes};
	size_t length;

	put(&w, signature, sizeof(signature));
	put_u8(&w, 0x21);
	put_u8(&w, (ip_addr_is_v4(&p->src) ? 0x10 : 0x20) | (p->datagrams ? 0x02 : 0x01));
	put_u16(&w, 0);
	put_addresses(&w, p);
	put_ssl(&w, p);
	put_text(&w, PROXYV2_TLV_IDENTITY, p->id->name);
	put_text(&w, PROXYV2_TLV_SEGMENT, p->segment);
	put_text(&w, PROXYV2_TLV_STANDING, p->standing);
	put_tlv(&w, PROXYV2_TLV_CERT_SHA256, p->id->cert_sha256, sizeof(p->id->cert_sha256));
	if (w.full || w.at < HEAD_BYTES)
		return -EMSGSIZE;
	length = w.at - HEAD_BYTES;
	out[14] = length >> 8;
	out[15] = length & 0xff;
	return w.at;
}

void proxyv2_local(uint8_t out[static PROXYV2_LOCAL_BYTES])
{
	memset(out, 0, PROXYV2_LOCAL_BYTES);
	memcpy(out, signature, sizeof(signature));
	out[12] = 0x20;
}
