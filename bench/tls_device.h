/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_device: the devices of the TLS benchmark: addresses, names, and keys and certificates made and signed by the rig's CA
 * when they are needed. For one process, which dies on error. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>

#define DEVICE_NET 0x0a400000u /* 10.64.0.0/14: device d is 10.64.0.0 + DEVICE_FIRST + d */
#define DEVICE_FIRST 256u
#define DEVICE_NAME "spiffe://bench/device/%u"
#define DEVICE_DAYS 30

struct device_ca {
	uint8_t *der; /* the CA's own certificate */
	int der_bytes;
	ecc_key key;
	WC_RNG rng;
};

struct device_identity { /* as DER */
	uint8_t *cert; /* NULL: not made yet */
	int cert_bytes, key_bytes;
	uint8_t key[160];
};

static inline void device_die(const char *what)
{
	fprintf(stderr, "tls_device: %s\n", what);
	exit(1);
}

/** Contents of a file, with a 0 behind. Caller frees. */
static inline uint8_t *device_file(const char *path, int *bytes)
{
	FILE *f = fopen(path, "re");
	uint8_t *out = calloc(1, 65536);

	if (f == NULL || out == NULL)
		device_die(path);
	*bytes = (int)fread(out, 1, 65535, f);
	fclose(f);
	return out;
}

static inline void device_ca_load(struct device_ca *ca, const char *cert_path, const char *key_path)
{
	uint8_t *pem, key_der[512];
	word32 at = 0;
	int n;

	pem = device_file(cert_path, &n);
	ca->der = malloc(65536);
	ca->der_bytes = ca->der == NULL ? -1 : wc_CertPemToDer(pem, n, ca->der, 65536, CERT_TYPE);
	free(pem);
	pem = device_file(key_path, &n);
	n = wc_KeyPemToDer(pem, n, key_der, sizeof(key_der), NULL);
	free(pem);
	if (ca->der_bytes <= 0 || n <= 0 || wc_InitRng(&ca->rng) != 0 ||
	    wc_ecc_init(&ca->key) != 0 ||
	    wc_EccPrivateKeyDecode(key_der, &at, &ca->key, (word32)n) != 0)
		device_die("the CA's certificate or key is no good");
}

/* GeneralNames with one uniformResourceIdentifier, RFC 5280 section 4.2.1.6. */
static inline void device_name(Cert *c, uint32_t d)
{
	char uri[64];
	int n = snprintf(uri, sizeof(uri), DEVICE_NAME, d);

	snprintf(c->subject.commonName, sizeof(c->subject.commonName), "device %u", d);
	c->altNames[0] = 0x30;
	c->altNames[1] = (uint8_t)(n + 2);
	c->altNames[2] = 0x86;
	c->altNames[3] = (uint8_t)n;
	memcpy(c->altNames + 4, uri, (size_t)n);
	c->altNamesSz = n + 4;
}

/** Key and certificate of device d, unless they are there already. */
static inline void device_make(struct device_identity *id, struct device_ca *ca, uint32_t d)
{
	uint8_t der[2048];
	ecc_key key;
	Cert c;
	int n = -1;

	if (id->cert != NULL)
		return;
	if (wc_InitCert(&c) != 0 || wc_ecc_init(&key) != 0 ||
	    wc_ecc_make_key_ex(&ca->rng, 32, &key, ECC_SECP256R1) != 0)
		device_die("a key cannot be made");
	id->key_bytes = wc_EccKeyToDer(&key, id->key, sizeof(id->key));
	c.daysValid = DEVICE_DAYS;
	c.sigType = CTC_SHA256wECDSA;
	device_name(&c, d);
	if (wc_SetKeyUsage(&c, "digitalSignature") == 0 &&
	    wc_SetExtKeyUsage(&c, "clientAuth") == 0 &&
	    wc_SetIssuerBuffer(&c, ca->der, ca->der_bytes) == 0 &&
	    wc_MakeCert(&c, der, sizeof(der), NULL, &key, &ca->rng) > 0)
		n = wc_SignCert(c.bodySz, c.sigType, der, sizeof(der), NULL, &ca->key, &ca->rng);
	wc_ecc_free(&key);
	id->cert = n > 0 ? malloc((size_t)n) : NULL;
	if (id->cert == NULL || id->key_bytes <= 0)
		device_die("a certificate cannot be made");
	memcpy(id->cert, der, (size_t)n);
	id->cert_bytes = n;
}

/** The number of mlkem768, x25519 or p256; 0: no such group. */
static inline int device_group(const char *name)
{
	static const struct {
		const char *name;
		int group;
	} groups[] = {{"mlkem768", WOLFSSL_X25519MLKEM768},
		      {"x25519", WOLFSSL_ECC_X25519},
		      {"p256", WOLFSSL_ECC_SECP256R1}};

	for (unsigned i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		if (strcmp(name, groups[i].name) == 0)
			return groups[i].group;
	}
	return 0;
}

/** A client's context: TLS 1.3, this CA's servers only, one random generator for all sessions. */
static inline WOLFSSL_CTX *device_ctx(const struct device_ca *ca)
{
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());

	if (ctx == NULL || wolfSSL_CTX_new_rng(ctx) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_load_verify_buffer(ctx, ca->der, ca->der_bytes, WOLFSSL_FILETYPE_ASN1) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_set_cipher_list(ctx, "TLS13-AES128-GCM-SHA256") != WOLFSSL_SUCCESS)
		device_die("no TLS context");
	wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_PEER, NULL);
	return ctx;
}

/** A session of a device; the group is the only key share. */
static inline WOLFSSL *device_session(WOLFSSL_CTX *ctx, const struct device_identity *id, int group)
{
	WOLFSSL *ssl = wolfSSL_new(ctx);

	if (ssl == NULL ||
	    wolfSSL_use_certificate_buffer(ssl, id->cert, id->cert_bytes, WOLFSSL_FILETYPE_ASN1) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_use_PrivateKey_buffer(ssl, id->key, id->key_bytes, WOLFSSL_FILETYPE_ASN1) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_set_groups(ssl, &group, 1) != WOLFSSL_SUCCESS ||
	    wolfSSL_UseKeyShare(ssl, (word16)group) != WOLFSSL_SUCCESS)
		device_die("no TLS session");
	return ssl;
}
