/* SPDX-License-Identifier: GPL-3.0-or-later */
/* peer: what a device has proved of itself by its certificate's chain, and what must be asked of that chain again as long
 * as it is believed: whether its CA is still trusted, whether anything of it is revoked. The library has checked
 * signatures, dates, names and usages before. */
#pragma once

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "tls-proxy/identity.h"
#include "tls-proxy/revoked.h"

#define PEER_CERTS_MAX 6 /* of a chain */
#define PEER_CERT_BYTES_MAX 16384

struct peer {
	struct identity id;
	uint8_t anchor[16]; /* the CA that the chain hangs on */
	uint8_t n_above;
	struct cert_ref
		*above; /* the certificates that the device sent beside its own; NULL: none */
	uint8_t *certificate; /* DER; NULL: not kept */
	size_t certificate_bytes;
};

/**
 * Read a chain that the library has found good, the device's own certificate first.
 * @param keep  the whole certificate too. @return 0 or -errno, text in err; drop it all the same
 */
int peer_read(struct peer *p, const WOLFSSL_X509_STORE_CTX *chain, bool keep, struct err *err);
/** What of it must last: all. @return 0 or -ENOMEM: out is empty */
int peer_copy(struct peer *out, const struct peer *p);
void peer_drop(struct peer *p); /* takes an empty one */

/** The first look at the lists: which CA it hangs on is found out. */
enum revoked_verdict peer_check(struct peer *p, const struct revoked *r);
/** A later one, perhaps at newer lists and CAs: it must still be that CA. */
enum revoked_verdict peer_check_again(const struct peer *p, const struct revoked *r);
