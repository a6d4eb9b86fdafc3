/* SPDX-License-Identifier: GPL-3.0-or-later */
/* identity: who a device certificate names, and whether it may be used to authenticate a client.
 * Pure; the chain and signatures were checked by the TLS library before. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"

struct identity {
	uint8_t kind; /* enum identity_kind */
	char name[MSG_IDENTITY_BYTES]; /* URI SAN, else DNS SAN, else CN; printable ASCII */
	char common_name[65]; /* "" if there is none */
	uint8_t cert_sha256[32]; /* of the DER */
	uint8_t issuer_sha256[32]; /* of the issuer's DER name, tag and length included */
	uint8_t serial[20]; /* RFC 5280 section 4.1.2.2: at most 20 octets */
	uint8_t serial_bytes;
	bool has_issuer_key;
	uint8_t issuer_key[20]; /* authority key identifier */
	uint64_t not_before_s,
		not_after_s; /* wall clock; peer.h lowers the end to that of its CAs */
};

/**
 * Read a device's certificate.
 * Refused: an X.509 SVID with more than one URI SAN (SPIFFE X.509-SVID section 2), no name at all, a name with control
 * or non-ASCII bytes or longer than MSG_IDENTITY_BYTES, an embedded NUL; a CA certificate; a key usage without
 * digitalSignature (RFC 5280 section 4.2.1.3) or an extended key usage without clientAuth (section 4.2.1.12).
 * @return 0; -EINVAL (not a certificate), -EPROTO (names), -EACCES (usage); the reason in err
 */
int identity_from_der(struct identity *out, const uint8_t *der, size_t bytes, struct err *err);

/** A UTCTime or GeneralizedTime of a certificate, RFC 5280 section 4.1.2.5, as wall clock. @return 0 or -EINVAL */
int identity_date(uint64_t *out_s, const uint8_t *date, int bytes);
