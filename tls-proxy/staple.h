/* SPDX-License-Identifier: GPL-3.0-or-later */
/* staple: an OCSP response (RFC 6960) about a certificate of ours, for clients that ask (RFC 6066 section 8). Somebody
 * else fetches it and writes the file; here it is checked, and handed out while it is fresh. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

struct staple {
	uint8_t *der; /* NULL: none */
	uint32_t bytes;
	uint64_t next_update_s; /* wall clock; not handed out from then on */
};

/**
 * Is this a response about the first certificate of a chain, from its issuer, and does it say good?
 * @param chain_pem  the certificate and those above it; its issuer is there or in ca_pem
 * @param ca_pem  may be NULL
 * @return 0; -ETIME: all is well, but it is not fresh (out is filled); -EINVAL, -ENOMEM
 */
int staple_load(struct staple *out, const uint8_t *der, size_t bytes, const char *chain_pem,
		const char *ca_pem, uint64_t now_s, struct err *err);
void staple_fini(struct staple *s); /* takes an empty one */
