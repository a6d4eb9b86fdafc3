/* SPDX-License-Identifier: GPL-3.0-or-later */
/* revoked: which certificates of which CA are revoked: the lists of a listener as sorted arrays, so that a handshake pays
 * the same with none and with 100,000 revoked certificates. Built once, then read only; who asks later holds it. Signatures and dates are checked when a list is added, nextUpdate again at each question. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"
#include "tls-proxy/crl.h"

struct revoked;

/* A certificate as its issuer's list names it. */
struct cert_ref {
	uint8_t issuer_sha256[32]; /* of the DER name, tag and length included */
	uint8_t subject_sha256[32]; /* the same; nobody asks for the device's own */
	uint8_t issuer_key[CRL_KEY_ID_BYTES]; /* authority key identifier */
	bool has_issuer_key;
	struct crl_number serial;
	uint64_t not_after_s; /* wall clock */
};

enum revoked_verdict {
	REVOKED_NO_LIST, /* of this issuer; deny */
	REVOKED_OUTDATED, /* its list is past its next update; deny */
	REVOKED_LISTED,
	REVOKED_UNTRUSTED, /* no such CA is trusted any more; deny */
	REVOKED_EXPIRED, /* a CA; deny */
	REVOKED_GOOD,
};

/** @param lists  false: no lists are configured, everything that a CA here has signed is good. @return 0 or -ENOMEM */
int revoked_new(struct revoked **out, bool lists);
/** @return r, held once more */
struct revoked *revoked_hold(struct revoked *r);
void revoked_drop(struct revoked *r); /* the last one frees it; NULL is a no-op */

/** A trusted CA: it may sign lists if its key usage says so. @return 0, -ENOMEM, -EINVAL */
int revoked_add_ca(struct revoked *r, const uint8_t *der, size_t bytes, struct err *err);

/**
 * The lists of a file, PEM (one or many) or DER, complete or delta (RFC 5280 section 5.2.4). All CAs are there already.
 * Refused: an unknown signer, a bad signature, a date in the future, an outdated list. Of two complete lists the newer counts.
 * @param text  ends with a NUL behind bytes
 */
int revoked_add(struct revoked *r, const char *text, size_t bytes, uint64_t now_s, struct err *err);

/** Apply the delta lists; nothing is added any more. @return 0, -ENOMEM, -EINVAL: a delta without its complete list */
int revoked_seal(struct revoked *r, struct err *err);

/** Is every list of `r` at least as new as that of `old`, of the same CA? @return 0 or -ESTALE */
int revoked_newer(const struct revoked *r, const struct revoked *old, struct err *err);

/** Read what revoked_check() needs of a certificate. @return 0 or -EINVAL */
int cert_ref_read(struct cert_ref *out, const uint8_t *der, size_t bytes);

/**
 * Is a chain good, from the device's certificate upwards? It must be whole: the library takes CAs for known that anybody
 * sent before, but they may have expired since. Each of the n certificates and every CA above them is looked up.
 * @param anchor  which CA it hangs on: if known is set it must still be that key's; else it is filled in
 * @param until_s  lowered to the end of the first CA that ends, wall clock
 */
enum revoked_verdict revoked_chain(const struct revoked *r, const struct cert_ref *chain,
				   unsigned n, uint64_t now_s, uint8_t anchor[static 16],
				   bool known, uint64_t *until_s);

/** The earliest nextUpdate of all lists, wall clock; 0: no lists. */
uint64_t revoked_next_update_s(const struct revoked *r);
uint32_t revoked_count(const struct revoked *r); /* certificates that are listed */
const char *revoked_text(enum revoked_verdict v); /* for engineers */
