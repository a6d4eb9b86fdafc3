/* SPDX-License-Identifier: GPL-3.0-or-later */
/* crl: read one certificate revocation list, RFC 5280 section 5. Pure: no signature is checked here, no clock asked.
 * Everything in struct crl points into the list that was read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"
#include "tls-proxy/der.h"

#define CRL_SERIAL_BYTES 20 /* section 4.1.2.2 */
#define CRL_NUMBER_BYTES 20 /* section 5.2.3 */
#define CRL_KEY_ID_BYTES 20

/** A whole number of at most 20 bytes, so that memcmp() orders: leading zeros. */
struct crl_number {
	uint8_t b[CRL_NUMBER_BYTES];
};

struct crl {
	struct der tbs; /* what is signed, header included */
	uint32_t signature_oid; /* the library's sum */
	struct der signature_params, signature;
	uint8_t issuer_sha256[32]; /* of the DER name, tag and length included */
	uint8_t key_id[CRL_KEY_ID_BYTES]; /* authority key identifier */
	bool has_key_id, has_number, is_delta;
	struct crl_number number, base; /* base: of a delta list */
	uint64_t this_update_s, next_update_s; /* wall clock */
	struct der entries; /* crl_entry() */
};

struct crl_entry {
	struct crl_number serial;
	bool removed; /* removeFromCRL, in delta lists */
};

/**
 * Refused: a list without nextUpdate, an unknown critical extension (so indirect and partitioned lists), a number above
 * 20 bytes. The entries have been walked once: crl_entry() finds nothing wrong in them any more.
 * @return 0 or -EINVAL, the reason in err
 */
int crl_read(struct crl *out, const uint8_t *der, size_t bytes, struct err *err);

/** Take the next entry. @return 1, 0 at the end, -EINVAL */
int crl_entry(struct der *entries, struct crl_entry *out, struct err *err);

/** @return false: more than 20 bytes, or negative */
bool crl_number_set(struct crl_number *out, const uint8_t *bytes, size_t n);
