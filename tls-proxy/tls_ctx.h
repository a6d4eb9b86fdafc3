/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_ctx: what a listener's sessions share: own certificate and key, roots, revocation lists, algorithms.
 * Built anew on reload; sessions keep the one that they began with. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "config/gateway.h"
#include "tls-proxy/revoked.h"

struct tls_ctx {
	WOLFSSL_CTX *wolf;
	struct revoked *revoked; /* sessions hold it until their handshake is over */
	bool datagrams; /* DTLS */
	bool keep_certificate; /* session_certificate() */
	uint64_t
		crl_next_update_s; /* wall clock, the earliest of all lists; 0 = no lists configured */
	/* Read as root, kept for reloads without privileges. Secret: wiped in fini. */
	char *certificate, *key;
	size_t certificate_bytes, key_bytes;
};

/** Library start and end, once a process. @return 0 or -EIO */
int tls_ctx_global_init(void);
void tls_ctx_global_fini(void);

/** A whole file, with a NUL behind it; caller wipes and frees *out. @return 0 or -errno; text in err */
int tls_file_read(char **out, size_t *out_bytes, const char *path, struct err *err);
/** Versions, suites, groups and key sizes, the same towards devices and upstreams. @return 0 or -EIO */
int tls_algorithms_set(WOLFSSL_CTX *wolf, bool tls12, bool datagrams, struct err *err);

/**
 * Read the files of a listener. A client certificate is always required; X25519MLKEM768 is preferred; TLS 1.3, and 1.2
 * with ECDHE and AEAD only where the listener allows it; no tickets, no renegotiation, no early data.
 * @return 0 or -EINVAL, -errno; text in err. out is untouched on error
 */
int tls_ctx_init(struct tls_ctx *out, const struct gw_listener *l, struct err *err);

/** Read roots and revocation lists again; the old ones stay in force on error. Lists do not grow older.
 * @return as tls_ctx_init(), -ESTALE */
int tls_ctx_reload(struct tls_ctx *ctx, const struct gw_listener *l, struct err *err);

void tls_ctx_fini(struct tls_ctx *ctx); /* takes an empty one */
