/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_client: what sessions to a listener's upstreams share: roots, own certificate and key, algorithms. */
#pragma once

#include "tls-proxy/tls_ctx.h"

/**
 * Read the files of an upstream_tls group. The server's certificate is always verified; TLS 1.3, and 1.2 with ECDHE and
 * AEAD only where the group allows it; no tickets, no renegotiation, no early data.
 * @param files  NULL: from the disk
 * @return 0 or -EINVAL, -errno; text in err. out is untouched on error; tls_ctx_fini()
 */
int tls_client_load(struct tls_ctx *out, const struct gw_upstream_tls *u, const struct files *files,
		    struct err *err);

/**
 * Does this certificate have the address among its alternative names (RFC 5280 section 4.2.1.6, RFC 6125 has no CN for it)?
 * Pure; the chain was checked before.
 * @return 0; -EINVAL (not a certificate), -EACCES (another address, or none)
 */
int tls_client_address_check(const uint8_t *der, size_t bytes, const struct ip_addr *want);
