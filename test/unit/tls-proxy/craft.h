/* SPDX-License-Identifier: GPL-3.0-or-later */
/* craft: records of TLS 1.3 that no honest library writes, under the keys of a client of the library. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/internal.h>
#include <wolfssl/wolfcrypt/aes.h>

#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/tls_ctx.h"

#define CRAFT_BYTES (5 + 65535)

/* @param out  CRAFT_BYTES. @return bytes of the record of n bytes, their type, and pad zeros */
static inline size_t craft(WOLFSSL *client, uint8_t type, const uint8_t *data, size_t n, size_t pad,
			   uint8_t *out)
{
	size_t inner = n + 1 + pad, sealed = inner + 16;
	Keys *k = &client->keys;
	uint8_t nonce[12];

	memcpy(out, (uint8_t[]){23, 3, 3, sealed >> 8, sealed & 0xff}, 5);
	memcpy(out + 5, data, n);
	out[5 + n] = type;
	memset(out + 6 + n, 0, pad);
	memcpy(nonce, k->aead_enc_imp_IV, 12);
	for (int i = 0; i < 4; i++) {
		nonce[4 + i] ^= k->sequence_number_hi >> (24 - 8 * i);
		nonce[8 + i] ^= k->sequence_number_lo >> (24 - 8 * i);
	}
	if (++k->sequence_number_lo == 0)
		k->sequence_number_hi++;
	if (wc_AesGcmEncrypt(client->encrypt.aes, out + 5, out + 5, inner, nonce, 12,
			     out + 5 + inner, 16, out, 5) != 0)
		return 0;
	return 5 + sealed;
}

/* A server's context and that of a device with a certificate for it. @return the device's, NULL: it cannot be made */
static inline WOLFSSL_CTX *craft_ends(struct pki *pki, struct tls_ctx *server)
{
	WOLFSSL_CTX *client = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	struct gw_listener l = {0};
	struct err err = {""};
	char cert[128], key[128];

	if (pki_cert(pki, "dev",
		     "subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage=clientAuth") != 0)
		return NULL;
	snprintf(l.certificate, sizeof(l.certificate), "%s/gw.pem", pki->dir);
	snprintf(l.key, sizeof(l.key), "%s/gw.key", pki->dir);
	snprintf(l.ca, sizeof(l.ca), "%s/ca.pem", pki->dir);
	snprintf(cert, sizeof(cert), "%s/dev.pem", pki->dir);
	snprintf(key, sizeof(key), "%s/dev.key", pki->dir);
	if (tls_ctx_init(server, &l, &err) < 0 || client == NULL ||
	    wolfSSL_CTX_use_certificate_file(client, cert, WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(client, key, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
		return NULL;
	wolfSSL_CTX_set_verify(client, WOLFSSL_VERIFY_NONE, NULL);
	return client;
}
