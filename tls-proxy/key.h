/* SPDX-License-Identifier: GPL-3.0-or-later */
/* key: a private key of the gateway's. Every use of it goes through key_sign(): a process of its own or a TPM can take
 * its place there. The TLS library never sees the key, only what was signed. It asks for each signature, but for ML-DSA's:
 * there it is given a stand-in, a key that is good for nothing, and the linker leads its call here (Makefile: --wrap). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "config/base/err.h"

struct key;

enum key_use {
	KEY_ECDSA, /* of a hash: DER signature */
	KEY_ED25519, /* of the message itself */
	KEY_RSA_PSS, /* of a hash; salt as long as the hash */
	KEY_RSA_PKCS1, /* of a DigestInfo, RFC 8017 section 9.2 */
	KEY_MLDSA, /* of the message itself, FIPS 204 with an empty context */
};

/**
 * ECDSA P-256 or P-384, Ed25519, ML-DSA, RSA of 2048 bits or more; PEM, not encrypted. Copies what it needs: wipe the text.
 * @return 0, -ENOMEM, -EINVAL
 */
int key_load(struct key **out, const char *pem, size_t bytes, struct err *err);
void key_free(struct key *k); /* wipes; NULL is a no-op */

/**
 * Sign.
 * @param hash  enum wc_HashType, of KEY_RSA_PSS
 * @param[in,out] out_bytes  room, then what it took
 * @return 0, -EINVAL: not a use of this kind of key, -EIO
 */
int key_sign(struct key *k, enum key_use use, int hash, const uint8_t *in, size_t in_bytes,
	     uint8_t *out, uint32_t *out_bytes);

/** Is this the private key of the certificate? Found out by signing. @return 0 or -EINVAL */
int key_fits(struct key *k, const uint8_t *cert_der, size_t bytes);

/** Let the library ask this key: once for a context, before its certificate, and for each session of it. */
void key_serve(WOLFSSL_CTX *ctx);
void key_attach(struct key *k, WOLFSSL *ssl);
/** What the library wants of a key that it cannot ask: once for a context. No-op for other kinds. @return 0, -ENOMEM, -EIO */
int key_stand_in(struct key *k, WOLFSSL_CTX *ctx);
/** Around each of the library's steps: whose signature it may be, of a key that it cannot ask. NULL: nobody's. */
void key_turn(struct key *k);
