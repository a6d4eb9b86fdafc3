/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/key.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/error-crypt.h>
#include <wolfssl/wolfcrypt/rsa.h>
#include <wolfssl/wolfcrypt/wc_mldsa.h>

#define RSA_BITS_MIN 2048
#define MLDSA_DER_BYTES 8192 /* both halves of a key */
#define SIGNATURE_BYTES_MAX 5120 /* ML-DSA-87 takes 4,627 */

enum kind { KIND_NONE, KIND_ECC, KIND_ED25519, KIND_RSA, KIND_MLDSA };

struct key {
	enum kind kind;
	WC_RNG rng;
	bool has_rng;
	union {
		ecc_key ecc;
		ed25519_key ed;
		RsaKey rsa;
		wc_MlDsaKey mldsa;
	};
};

static struct key *turn; /* key_turn(); one thread */

/* The library's own, and what its callers get instead. */
int __real_wc_MlDsaKey_SignCtx(wc_MlDsaKey *key, const byte *ctx, byte ctx_bytes, byte *sig,
			       word32 *sig_bytes, const byte *msg, word32 msg_bytes, WC_RNG *rng);
int __wrap_wc_MlDsaKey_SignCtx(wc_MlDsaKey *key, const byte *ctx, byte ctx_bytes, byte *sig,
			       word32 *sig_bytes, const byte *msg, word32 msg_bytes, WC_RNG *rng);

/* ---- the one place ---- */

int key_sign(struct key *k, enum key_use use, int hash, const uint8_t *in, size_t in_bytes,
	     uint8_t *out, uint32_t *out_bytes)
{
	static const enum kind kinds[] = {[KEY_ECDSA] = KIND_ECC,
					  [KEY_ED25519] = KIND_ED25519,
					  [KEY_RSA_PSS] = KIND_RSA,
					  [KEY_RSA_PKCS1] = KIND_RSA,
					  [KEY_MLDSA] = KIND_MLDSA};
	int ret;

	if (k->kind != kinds[use])
		return -EINVAL;
	switch (use) {
	case KEY_ECDSA:
		return wc_ecc_sign_hash(in, in_bytes, out, out_bytes, &k->rng, &k->ecc) == 0 ? 0
											     : -EIO;
	case KEY_ED25519:
		return wc_ed25519_sign_msg(in, in_bytes, out, out_bytes, &k->ed) == 0 ? 0 : -EIO;
	case KEY_MLDSA:
		return __real_wc_MlDsaKey_SignCtx(&k->mldsa, NULL, 0, out, out_bytes, in, in_bytes,
						  &k->rng) == 0
			       ? 0
			       : -EIO;
	case KEY_RSA_PSS:
		ret = wc_RsaPSS_Sign(in, in_bytes, out, *out_bytes, hash, wc_hash2mgf(hash),
				     &k->rsa, &k->rng);
		break;
	case KEY_RSA_PKCS1:
		ret = wc_RsaSSL_Sign(in, in_bytes, out, *out_bytes, &k->rsa, &k->rng);
		break;
	default:
		return -EINVAL;
	}
	if (ret <= 0)
		return -EIO;
	*out_bytes = ret;
	return 0;
}

/* ---- the library's questions ---- */

static int on_ecdsa(WOLFSSL *ssl, const unsigned char *in, unsigned in_bytes, unsigned char *out,
		    word32 *out_bytes, const unsigned char *der, unsigned der_bytes, void *arg)
{
	(void)ssl, (void)der, (void)der_bytes;
	return key_sign(arg, KEY_ECDSA, 0, in, in_bytes, out, out_bytes) == 0 ? 0 : WC_FAILURE;
}

static int on_ed25519(WOLFSSL *ssl, const unsigned char *in, unsigned in_bytes, unsigned char *out,
		      unsigned *out_bytes, const unsigned char *der, unsigned der_bytes, void *arg)
{
	(void)ssl, (void)der, (void)der_bytes;
	return key_sign(arg, KEY_ED25519, 0, in, in_bytes, out, out_bytes) == 0 ? 0 : WC_FAILURE;
}

static int on_pkcs1(WOLFSSL *ssl, const unsigned char *in, unsigned in_bytes, unsigned char *out,
		    word32 *out_bytes, const unsigned char *der, unsigned der_bytes, void *arg)
{
	(void)ssl, (void)der, (void)der_bytes;
	return key_sign(arg, KEY_RSA_PKCS1, 0, in, in_bytes, out, out_bytes) == 0 ? 0 : WC_FAILURE;
}

static int on_pss(WOLFSSL *ssl, const unsigned char *in, unsigned in_bytes, unsigned char *out,
		  unsigned *out_bytes, int hash, int mgf, const unsigned char *der,
		  unsigned der_bytes, void *arg)
{
	(void)ssl, (void)mgf, (void)der, (void)der_bytes;
	return key_sign(arg, KEY_RSA_PSS, wc_OidGetHash(hash), in, in_bytes, out, out_bytes) == 0
		       ? 0
		       : WC_FAILURE;
}

/* The library looks at each RSA signature before it goes out: a fault in it would give the key away. Its public half. */
static int on_pkcs1_check(WOLFSSL *ssl, unsigned char *sig, unsigned bytes, unsigned char **out,
			  const unsigned char *der, unsigned der_bytes, void *arg)
{
	struct key *k = arg;

	(void)ssl, (void)der, (void)der_bytes;
	return k->kind == KIND_RSA ? wc_RsaSSL_VerifyInline(sig, bytes, out, &k->rsa) : WC_FAILURE;
}

static int on_pss_check(WOLFSSL *ssl, unsigned char *sig, unsigned bytes, unsigned char **out,
			int hash, int mgf, const unsigned char *der, unsigned der_bytes, void *arg)
{
	struct key *k = arg;

	(void)ssl, (void)der, (void)der_bytes;
	return k->kind == KIND_RSA
		       ? wc_RsaPSS_VerifyInline(sig, bytes, out, wc_OidGetHash(hash), mgf, &k->rsa)
		       : WC_FAILURE;
}

void key_turn(struct key *k)
{
	turn = k;
}

int __wrap_wc_MlDsaKey_SignCtx(wc_MlDsaKey *key, const byte *ctx, byte ctx_bytes, byte *sig,
			       word32 *sig_bytes, const byte *msg, word32 msg_bytes, WC_RNG *rng)
{
	if (turn == NULL || turn->kind != KIND_MLDSA || ctx_bytes != 0)
		return __real_wc_MlDsaKey_SignCtx(key, ctx, ctx_bytes, sig, sig_bytes, msg,
						  msg_bytes, rng);
	return key_sign(turn, KEY_MLDSA, 0, msg, msg_bytes, sig, sig_bytes) == 0 ? 0 : WC_FAILURE;
}

int key_stand_in(struct key *k, WOLFSSL_CTX *ctx)
{
	uint8_t *der;
	wc_MlDsaKey other;
	int n = -1, ret;
	byte level;

	if (k->kind != KIND_MLDSA)
		return 0;
	der = malloc(MLDSA_DER_BYTES);
	if (der == NULL)
		return -ENOMEM;
	if (wc_MlDsaKey_Init(&other, NULL, INVALID_DEVID) == 0) {
		if (wc_MlDsaKey_GetParams(&k->mldsa, &level) == 0 &&
		    wc_MlDsaKey_SetParams(&other, level) == 0 &&
		    wc_MlDsaKey_MakeKey(&other, &k->rng) == 0)
			n = wc_MlDsaKey_KeyToDer(&other, der, MLDSA_DER_BYTES);
		wc_MlDsaKey_Free(&other);
	}
	ret = n > 0 && wolfSSL_CTX_use_PrivateKey_buffer(ctx, der, n, WOLFSSL_FILETYPE_ASN1) ==
				      WOLFSSL_SUCCESS
		      ? 0
		      : -EIO;
	free(der);
	return ret;
}

void key_serve(WOLFSSL_CTX *ctx)
{
	wolfSSL_CTX_SetEccSignCb(ctx, on_ecdsa);
	wolfSSL_CTX_SetEd25519SignCb(ctx, on_ed25519);
	wolfSSL_CTX_SetRsaSignCb(ctx, on_pkcs1);
	wolfSSL_CTX_SetRsaSignCheckCb(ctx, on_pkcs1_check);
	wolfSSL_CTX_SetRsaPssSignCb(ctx, on_pss);
	wolfSSL_CTX_SetRsaPssSignCheckCb(ctx, on_pss_check);
}

void key_attach(struct key *k, WOLFSSL *ssl)
{
	wolfSSL_SetEccSignCtx(ssl, k);
	wolfSSL_SetEd25519SignCtx(ssl, k);
	wolfSSL_SetRsaSignCtx(ssl, k);
	wolfSSL_SetRsaPssSignCtx(ssl, k);
}

/* ---- load ---- */

static int ecc_read(struct key *k, const uint8_t *der, word32 bytes)
{
	word32 at = 0;
	int curve;

	if (wc_ecc_init(&k->ecc) != 0)
		return -ENOMEM;
	if (wc_EccPrivateKeyDecode(der, &at, &k->ecc, bytes) == 0) {
		curve = wc_ecc_get_curve_id(k->ecc.idx);
		if (curve == ECC_SECP256R1 || curve == ECC_SECP384R1) {
			k->kind = KIND_ECC;
			wc_ecc_set_rng(&k->ecc, &k->rng);
			return 0;
		}
	}
	wc_ecc_free(&k->ecc);
	return -EINVAL;
}

static int rsa_read(struct key *k, const uint8_t *der, word32 bytes)
{
	word32 at = 0;

	if (wc_InitRsaKey(&k->rsa, NULL) != 0)
		return -ENOMEM;
	if (wc_RsaPrivateKeyDecode(der, &at, &k->rsa, bytes) == 0 &&
	    wc_RsaEncryptSize(&k->rsa) * 8 >= RSA_BITS_MIN) {
		k->kind = KIND_RSA;
		wc_RsaSetRNG(&k->rsa, &k->rng);
		return 0;
	}
	wc_FreeRsaKey(&k->rsa);
	return -EINVAL;
}

static int ed25519_read(struct key *k, const uint8_t *der, word32 bytes)
{
	word32 at = 0;

	if (wc_ed25519_init(&k->ed) != 0)
		return -ENOMEM;
	if (wc_Ed25519PrivateKeyDecode(der, &at, &k->ed, bytes) == 0 &&
	    wc_ed25519_make_public(&k->ed, k->ed.p, sizeof(k->ed.p)) == 0) {
		k->ed.pubKeySet = 1;
		k->kind = KIND_ED25519;
		return 0;
	}
	wc_ed25519_free(&k->ed);
	return -EINVAL;
}

/* Its header, which names the kind, may be gone already. */
static int mldsa_read(struct key *k, const uint8_t *der, word32 bytes)
{
	static const byte levels[] = {0, WC_ML_DSA_44, WC_ML_DSA_65, WC_ML_DSA_87};

	for (size_t i = 0; i < sizeof(levels); i++) {
		word32 at = 0;

		if (wc_MlDsaKey_Init(&k->mldsa, NULL, INVALID_DEVID) != 0)
			return -ENOMEM;
		if ((levels[i] == 0 || wc_MlDsaKey_SetParams(&k->mldsa, levels[i]) == 0) &&
		    wc_MlDsaKey_PrivateKeyDecode(&k->mldsa, der, bytes, &at) == 0) {
			k->kind = KIND_MLDSA;
			return 0;
		}
		wc_MlDsaKey_Free(&k->mldsa);
	}
	return -EINVAL;
}

int key_load(struct key **out, const char *pem, size_t bytes, struct err *err)
{
	struct key *k = calloc(1, sizeof(*k));
	DerBuffer *der = NULL;
	int ret = -ENOMEM;

	if (k == NULL)
		return ret;
	if (wc_PemToDer((const unsigned char *)pem, bytes, PRIVATEKEY_TYPE, &der, NULL, NULL,
			NULL) != 0) {
		ret = err_set(err, -EINVAL, "no PEM private key without a password in it");
		goto fail;
	}
	if (wc_InitRng(&k->rng) != 0)
		goto fail;
	k->has_rng = true;
	ret = ecc_read(k, der->buffer, der->length);
	if (ret == -EINVAL)
		ret = rsa_read(k, der->buffer, der->length);
	if (ret == -EINVAL)
		ret = ed25519_read(k, der->buffer, der->length);
	if (ret == -EINVAL)
		ret = mldsa_read(k, der->buffer, der->length);
	if (ret < 0) {
		err_set(err, ret,
			"no ECDSA key on P-256 or P-384, no Ed25519 key, no ML-DSA key and no RSA "
			"key of 2048 bits or more");
		goto fail;
	}
	explicit_bzero(der->buffer, der->length);
	wc_FreeDer(&der);
	*out = k;
	return 0;
fail:
	if (der != NULL)
		explicit_bzero(der->buffer, der->length);
	wc_FreeDer(&der);
	key_free(k);
	return ret;
}

void key_free(struct key *k)
{
	if (k == NULL)
		return;
	if (k->kind == KIND_ECC)
		wc_ecc_free(&k->ecc);
	else if (k->kind == KIND_RSA)
		wc_FreeRsaKey(&k->rsa);
	else if (k->kind == KIND_ED25519)
		wc_ed25519_free(&k->ed);
	else if (k->kind == KIND_MLDSA)
		wc_MlDsaKey_Free(&k->mldsa);
	if (k->has_rng)
		wc_FreeRng(&k->rng);
	explicit_bzero(k, sizeof(*k));
	free(k);
}

/* ---- does it fit? ---- */

/* As a CA signs: SHA-256 of the text, in the encoding of its kind. */
static int text_sign(struct key *k, const uint8_t *text, size_t n, uint8_t *sig,
		     uint32_t *sig_bytes, word32 *oid)
{
	uint8_t hash[32], info[64];
	int info_bytes;
	byte level;

	if (wc_Sha256Hash(text, n, hash) != 0)
		return -EIO;
	switch (k->kind) {
	case KIND_ECC:
		*oid = CTC_SHA256wECDSA;
		return key_sign(k, KEY_ECDSA, 0, hash, sizeof(hash), sig, sig_bytes);
	case KIND_ED25519:
		*oid = CTC_ED25519;
		return key_sign(k, KEY_ED25519, 0, text, n, sig, sig_bytes);
	case KIND_MLDSA:
		if (wc_MlDsaKey_GetParams(&k->mldsa, &level) != 0)
			return -EIO;
		*oid = level == WC_ML_DSA_44   ? CTC_ML_DSA_44
		       : level == WC_ML_DSA_65 ? CTC_ML_DSA_65
					       : CTC_ML_DSA_87;
		return key_sign(k, KEY_MLDSA, 0, text, n, sig, sig_bytes);
	case KIND_RSA:
		*oid = CTC_SHA256wRSA;
		info_bytes = wc_EncodeSignature(info, hash, sizeof(hash), SHA256h);
		return info_bytes == 0
			       ? -EIO
			       : key_sign(k, KEY_RSA_PKCS1, 0, info, info_bytes, sig, sig_bytes);
	default:
		return -EINVAL;
	}
}

int key_fits(struct key *k, const uint8_t *cert_der, size_t bytes)
{
	static const uint8_t text[] = "sallyport: is this key the certificate's?";
	uint8_t sig[SIGNATURE_BYTES_MAX];
	uint32_t sig_bytes = sizeof(sig);
	DecodedCert cert;
	SignatureCtx ctx;
	int ret = -EINVAL;
	word32 oid = 0;

	wc_InitDecodedCert(&cert, cert_der, bytes, NULL);
	InitSignatureCtx(&ctx, NULL, INVALID_DEVID);
	if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0 && cert.publicKey != NULL &&
	    text_sign(k, text, sizeof(text), sig, &sig_bytes, &oid) == 0 &&
	    ConfirmSignature(&ctx, text, sizeof(text), cert.publicKey, cert.pubKeySize, cert.keyOID,
			     sig, sig_bytes, oid, NULL, 0, NULL) == 0)
		ret = 0;
	FreeSignatureCtx(&ctx);
	wc_FreeDecodedCert(&cert);
	return ret;
}
