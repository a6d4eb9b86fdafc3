/* SPDX-License-Identifier: GPL-3.0-or-later */
/* mldsa: certificates and revocation lists on ML-DSA keys (FIPS 204, RFC 9881), made by the TLS library, for the openssl
 * command of today cannot. For one test process, which dies on error. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/wc_mldsa.h>

#define MLDSA_CERT_BYTES 16384

struct mldsa_party { /* a key and its certificate */
	int kind; /* ML_DSA_44_TYPE ..., ECC_TYPE */
	union {
		wc_MlDsaKey key;
		ecc_key ecc;
	};
	uint8_t cert[MLDSA_CERT_BYTES];
	int cert_bytes;
};

static inline void mldsa_die(const char *what, int code)
{
	fprintf(stderr, "mldsa: %s: %d\n", what, code);
	exit(1);
}

static inline int mldsa_signature(const struct mldsa_party *p)
{
	return p->kind == ML_DSA_44_TYPE   ? CTC_ML_DSA_44
	       : p->kind == ML_DSA_65_TYPE ? CTC_ML_DSA_65
	       : p->kind == ML_DSA_87_TYPE ? CTC_ML_DSA_87
					   : CTC_SHA256wECDSA;
}

static inline void mldsa_key(struct mldsa_party *p, int kind, WC_RNG *rng)
{
	int level = kind == ML_DSA_44_TYPE   ? WC_ML_DSA_44
		    : kind == ML_DSA_65_TYPE ? WC_ML_DSA_65
					     : WC_ML_DSA_87;
	int ret;

	p->kind = kind;
	if (kind == ECC_TYPE)
		ret = wc_ecc_init(&p->ecc) | wc_ecc_make_key_ex(rng, 32, &p->ecc, ECC_SECP256R1);
	else
		ret = wc_MlDsaKey_Init(&p->key, NULL, INVALID_DEVID) |
		      wc_MlDsaKey_SetParams(&p->key, level) | wc_MlDsaKey_MakeKey(&p->key, rng);
	if (ret != 0)
		mldsa_die("key", ret);
}

static inline void mldsa_free(struct mldsa_party *p)
{
	if (p->kind == ECC_TYPE)
		wc_ecc_free(&p->ecc);
	else
		wc_MlDsaKey_Free(&p->key);
}

/* A key and a certificate. @param uri  subjectAltName; NULL: a CA. @param by  NULL: by itself */
static inline void mldsa_make(struct mldsa_party *p, int kind, const char *name, const char *uri,
			      struct mldsa_party *by, WC_RNG *rng)
{
	static Cert c;
	int ret;

	mldsa_key(p, kind, rng);
	wc_InitCert(&c);
	snprintf(c.subject.commonName, sizeof(c.subject.commonName), "%s", name);
	c.daysValid = 5;
	c.sigType = mldsa_signature(by != NULL ? by : p);
	c.isCA = uri == NULL;
	if (uri != NULL) {
		size_t n = strlen(uri);

		c.altNames[0] = 0x30; /* GeneralNames with one URI, RFC 5280 section 4.2.1.6 */
		c.altNames[1] = n + 2;
		c.altNames[2] = 0x86;
		c.altNames[3] = n;
		memcpy(c.altNames + 4, uri, n);
		c.altNamesSz = n + 4;
	}
	ret = wc_SetKeyUsage(&c, uri != NULL ? "digitalSignature" : "keyCertSign,cRLSign") |
	      wc_SetSubjectKeyIdFromPublicKey_ex(&c, kind, &p->key);
	if (uri != NULL)
		ret |= wc_SetExtKeyUsage(&c, "clientAuth,serverAuth");
	if (by != NULL)
		ret |= wc_SetIssuerBuffer(&c, by->cert, by->cert_bytes) |
		       wc_SetAuthKeyIdFromCert(&c, by->cert, by->cert_bytes);
	if (ret != 0)
		mldsa_die("certificate's text", ret);
	ret = wc_MakeCert_ex(&c, p->cert, sizeof(p->cert), kind, &p->key, rng);
	by = by != NULL ? by : p;
	if (ret > 0)
		ret = wc_SignCert_ex(c.bodySz, c.sigType, p->cert, sizeof(p->cert), by->kind,
				     &by->key, rng);
	if (ret <= 0)
		mldsa_die("certificate", ret);
	p->cert_bytes = ret;
}

static inline void mldsa_write(const char *dir, const char *file, const uint8_t *der, int bytes,
			       int type)
{
	static uint8_t pem[4 * MLDSA_CERT_BYTES];
	int n = wc_DerToPem(der, bytes, pem, sizeof(pem), type);
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = n > 0 ? fopen(path, "w") : NULL;
	if (f == NULL || fwrite(pem, 1, n, f) != (size_t)n || fclose(f) != 0)
		mldsa_die(file, n);
}

/* A list of the CA that names these certificates. */
static inline void mldsa_list(const char *dir, const char *file, struct mldsa_party *ca,
			      struct mldsa_party *const *listed, unsigned n, WC_RNG *rng)
{
	static uint8_t der[MLDSA_CERT_BYTES];
	RevokedCert *all = calloc(n + 1, sizeof(*all));
	time_t now = time(NULL) - 60, next = now + 86400;
	uint8_t number = 1;
	char from[24], to[24];
	DecodedCert own, cert;
	int ret;

	strftime(from, sizeof(from), "%Y%m%d%H%M%SZ", gmtime(&now));
	strftime(to, sizeof(to), "%Y%m%d%H%M%SZ", gmtime(&next));
	for (unsigned i = 0; i < n; i++) {
		wc_InitDecodedCert(&cert, listed[i]->cert, listed[i]->cert_bytes, NULL);
		wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL);
		memcpy(all[i].serialNumber, cert.serial, cert.serialSz);
		all[i].serialSz = cert.serialSz;
		memcpy(all[i].revDate, from, 15);
		all[i].revDateFormat = ASN_GENERALIZED_TIME;
		all[i].reasonCode = -1;
		all[i].next = i + 1 < n ? &all[i + 1] : NULL;
		wc_FreeDecodedCert(&cert);
	}
	wc_InitDecodedCert(&own, ca->cert, ca->cert_bytes, NULL);
	wc_ParseCert(&own, CERT_TYPE, NO_VERIFY, NULL);
	ret = wc_MakeCRL_ex(own.subjectRaw - 2, own.subjectRawLen + 2, (uint8_t *)from,
			    ASN_GENERALIZED_TIME, (uint8_t *)to, ASN_GENERALIZED_TIME,
			    n > 0 ? all : NULL, &number, 1, mldsa_signature(ca), 2, der,
			    sizeof(der));
	wc_FreeDecodedCert(&own);
	/* What is signed, and how, has the same frame as a certificate's. */
	if (ret > 0)
		ret = wc_SignCert_ex(ret, mldsa_signature(ca), der, sizeof(der), ca->kind, &ca->key,
				     rng);
	free(all);
	if (ret <= 0)
		mldsa_die("list", ret);
	mldsa_write(dir, file, der, ret, CRL_TYPE);
}
