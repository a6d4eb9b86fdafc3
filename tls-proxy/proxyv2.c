/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/proxyv2.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/rsa.h>

#include "config/gateway.h"

/* Section 2.2: signature, version 2 and command PROXY, family and protocol, length. */
static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
#define HEAD_BYTES 16
/* Sections 2.2.1 to 2.2.6 */
#define TYPE_ALPN 0x01
#define TYPE_AUTHORITY 0x02
#define TYPE_CRC32C 0x03
#define TYPE_UNIQUE_ID 0x05
#define TYPE_SSL 0x20
#define SUBTYPE_SSL_VERSION 0x21
#define SUBTYPE_SSL_CN 0x22
#define SUBTYPE_SSL_CIPHER 0x23
#define SUBTYPE_SSL_SIG_ALG 0x24
#define SUBTYPE_SSL_KEY_ALG 0x25
#define SUBTYPE_SSL_GROUP 0x26
#define SUBTYPE_SSL_CLIENT_CERT 0x28
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

/* A TLV whose length is known at its end. @return where it begins */
static size_t tlv_begin(struct writer *w, uint8_t type)
{
	size_t at = w->at;

	put_u8(w, type);
	put_u16(w, 0);
	return at;
}

static void tlv_end(struct writer *w, size_t at)
{
	size_t n;

	if (w->full)
		return;
	n = w->at - at - 3;
	w->full = n > UINT16_MAX;
	w->out[at + 1] = n >> 8;
	w->out[at + 2] = n & 0xff;
}

static void put_tlv(struct writer *w, uint8_t type, const void *data, size_t n)
{
	size_t at = tlv_begin(w, type);

	put(w, data, n);
	tlv_end(w, at);
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
	size_t at = tlv_begin(w, TYPE_SSL);

	put_u8(w, CLIENT_SSL | (p->resumed ? 0 : CLIENT_CERT_CONN) | CLIENT_CERT_SESS);
	put(w, verified, sizeof(verified));
	if (p->tlvs & PROXY_SSL) {
		put_text(w, SUBTYPE_SSL_VERSION, p->tls_version);
		put_text(w, SUBTYPE_SSL_CN, p->id->common_name);
		put_text(w, SUBTYPE_SSL_CIPHER, p->cipher);
		put_text(w, SUBTYPE_SSL_GROUP, p->group);
		if (p->front != NULL) {
			put_text(w, SUBTYPE_SSL_SIG_ALG, p->front->sig_alg);
			put_text(w, SUBTYPE_SSL_KEY_ALG, p->front->key_alg);
		}
	}
	if ((p->tlvs & PROXY_CERTIFICATE) && p->cert_bytes > 0)
		put_tlv(w, SUBTYPE_SSL_CLIENT_CERT, p->cert, p->cert_bytes);
	tlv_end(w, at);
}

static void put_tlvs(struct writer *w, const struct proxyv2 *p)
{
	if (p->tlvs & PROXY_ALPN)
		put_text(w, TYPE_ALPN, p->alpn);
	if (p->tlvs & PROXY_AUTHORITY)
		put_text(w, TYPE_AUTHORITY, p->authority);
	if (p->tlvs & PROXY_UNIQUE_ID)
		put_text(w, TYPE_UNIQUE_ID, p->unique_id);
	if (p->tlvs & (PROXY_SSL | PROXY_CERTIFICATE))
		put_ssl(w, p);
	if (p->tlvs & PROXY_IDENTITY)
		put_text(w, PROXYV2_TLV_IDENTITY, p->id->name);
	if (p->tlvs & PROXY_SEGMENT)
		put_text(w, PROXYV2_TLV_SEGMENT, p->segment);
	if (p->tlvs & PROXY_STANDING)
		put_text(w, PROXYV2_TLV_STANDING, p->standing);
	if (p->tlvs & PROXY_CERT_SHA256)
		put_tlv(w, PROXYV2_TLV_CERT_SHA256, p->id->cert_sha256, sizeof(p->id->cert_sha256));
}

/* RFC 4960 appendix B: polynomial 0x1edc6f41, reflected. A header is short, and there is one a session. */
static uint32_t crc32c(const uint8_t *data, size_t n)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < n; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

int proxyv2_encode(uint8_t *out, size_t out_bytes, const struct proxyv2 *p)
{
	static const uint8_t zero[4] = {0};
	struct writer w = {.out = out, .room = out_bytes};
	size_t length, sum = 0;
	uint32_t crc;

	put(&w, signature, sizeof(signature));
	put_u8(&w, 0x21);
	put_u8(&w, (ip_addr_is_v4(&p->src) ? 0x10 : 0x20) | (p->datagrams ? 0x02 : 0x01));
	put_u16(&w, 0);
	put_addresses(&w, p);
	if (p->tlvs & PROXY_CRC32C) {
		put_tlv(&w, TYPE_CRC32C, zero, sizeof(zero));
		sum = w.at - sizeof(zero);
	}
	put_tlvs(&w, p);
	if (w.full || w.at < HEAD_BYTES || w.at - HEAD_BYTES > UINT16_MAX)
		return -EMSGSIZE;
	length = w.at - HEAD_BYTES;
	out[14] = length >> 8;
	out[15] = length & 0xff;
	/* Section 2.2.3: over the whole header, with zeroes in its own place; network order. */
	if (sum > 0) {
		crc = crc32c(out, w.at);
		for (int i = 0; i < 4; i++)
			out[sum + i] = crc >> (24 - 8 * i);
	}
	return w.at;
}

void proxyv2_local(uint8_t out[static PROXYV2_LOCAL_BYTES])
{
	memset(out, 0, PROXYV2_LOCAL_BYTES);
	memcpy(out, signature, sizeof(signature));
	out[12] = 0x20;
}

/* ---- the listener's certificate ---- */

static const char *sig_name(uint32_t oid)
{
	static const struct {
		uint32_t oid;
		const char *name;
	} names[] = {{CTC_SHA256wECDSA, "ecdsa-with-SHA256"},
		     {CTC_SHA384wECDSA, "ecdsa-with-SHA384"},
		     {CTC_SHA512wECDSA, "ecdsa-with-SHA512"},
		     {CTC_SHA256wRSA, "RSA-SHA256"},
		     {CTC_SHA384wRSA, "RSA-SHA384"},
		     {CTC_SHA512wRSA, "RSA-SHA512"},
		     {CTC_RSASSAPSS, "rsassaPss"},
		     {CTC_ED25519, "ED25519"}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].oid == oid)
			return names[i].name;
	}
	return "";
}

static void key_name(struct proxyv2_front *out, const DecodedCert *cert)
{
	word32 at = 0;
	RsaKey rsa;

	if (cert->keyOID == ECDSAk) {
		int bits = cert->pkCurveOID == ECC_SECP256R1_OID   ? 256
			   : cert->pkCurveOID == ECC_SECP384R1_OID ? 384
			   : cert->pkCurveOID == ECC_SECP521R1_OID ? 521
								   : 0;

		if (bits > 0)
			snprintf(out->key_alg, sizeof(out->key_alg), "EC%d", bits);
	} else if (cert->keyOID == ED25519k) {
		strcpy(out->key_alg, "ED25519");
	} else if (cert->keyOID == RSAk && wc_InitRsaKey(&rsa, NULL) == 0) {
		if (wc_RsaPublicKeyDecode(cert->publicKey, &at, &rsa, cert->pubKeySize) == 0)
			snprintf(out->key_alg, sizeof(out->key_alg), "RSA%d",
				 wc_RsaEncryptSize(&rsa) * 8);
		wc_FreeRsaKey(&rsa);
	}
}

void proxyv2_front_read(struct proxyv2_front *out, const char *pem, size_t bytes)
{
	DerBuffer *der = NULL;
	DecodedCert cert;

	*out = (struct proxyv2_front){.sig_alg = ""};
	if (pem == NULL)
		return;
	if (wc_PemToDer((const unsigned char *)pem, bytes, CERT_TYPE, &der, NULL, NULL, NULL) !=
	    0) {
		wc_FreeDer(&der); /* which it may have left */
		return;
	}
	wc_InitDecodedCert(&cert, der->buffer, der->length, NULL);
	if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0) {
		snprintf(out->sig_alg, sizeof(out->sig_alg), "%s", sig_name(cert.signatureOID));
		key_name(out, &cert);
	}
	wc_FreeDecodedCert(&cert);
	wc_FreeDer(&der);
}
