/* SPDX-License-Identifier: GPL-3.0-or-later */
/* cose: COSE_Sign1 (RFC 9052 section 4.2) with EdDSA over Ed25519 (RFC 9053 section 2.2), and its keys.
 * One profile, one encoding: tag 18, deterministic CBOR, protected header {alg, content type, kid}, empty unprotected
 * header, attached payload. Whatever differs in one byte is refused. The content type separates the kinds of
 * messages: an entry can never be taken for a heartbeat. No I/O but the key files. Any thread, one object each. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

#define COSE_KEY_BYTES 32
#define COSE_KID_BYTES 8 /* first bytes of the public key's SHA-256 */
#define COSE_SIGNATURE_BYTES 64

/* Who may have signed: a public key. Plain memory, copy freely. */
struct cose_verifier {
	uint8_t key[COSE_KEY_BYTES];
	uint8_t kid[COSE_KID_BYTES];
};

struct cose_signer; /* holds a private key; wiped on free */

void cose_sha256(uint8_t out[32], const void *data, size_t bytes);

/** From the raw public key. */
void cose_verifier_init(struct cose_verifier *out, const uint8_t key[COSE_KEY_BYTES]);

/**
 * Load a public key file: one line "ed25519 <64 hex digits>".
 * @return 0, -ENOENT, -EPROTO (not such a line), or -errno; text in err
 */
int cose_verifier_load(struct cose_verifier *out, const char *path, struct err *err);

/**
 * Make a key pair: DIR/controller.key (mode 0600, the seed) and DIR/controller.pub. An existing key is never replaced.
 * @return 0, -EEXIST, or -errno; text in err
 */
int cose_key_create(const char *dir, struct err *err);

/** A fresh key that lives in memory only. @return 0 or -errno */
int cose_signer_new(struct cose_signer **out, struct err *err);

/**
 * Load DIR/controller.key. Refuses a file that group or others can read.
 * @param[out] out caller owns, cose_signer_free(); untouched on error
 * @return 0, -EACCES (permissions), -EPROTO, or -errno; text in err
 */
int cose_signer_load(struct cose_signer **out, const char *dir, struct err *err);
void cose_signer_free(struct cose_signer *s); /* NULL is a no-op */
const struct cose_verifier *cose_signer_public(const struct cose_signer *s);

/**
 * Sign a payload.
 * @param[out] out from malloc, caller frees; untouched on error
 * @return 0, -ENOMEM, -EIO (the crypto library refused)
 */
int cose_sign1(uint8_t **out, size_t *out_bytes, const char *content_type, const void *payload,
	       size_t payload_bytes, const struct cose_signer *s);

/**
 * Check a message and find its payload.
 * @param[out] payload  points into msg; set on success only
 * @return 0, -EPROTO (not this profile's encoding, other content type), -EBADMSG (other key, bad signature);
 *         text in err
 */
int cose_verify1(const uint8_t **payload, size_t *payload_bytes, const char *content_type,
		 const void *msg, size_t msg_bytes, const struct cose_verifier *v, struct err *err);
