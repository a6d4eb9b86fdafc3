/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_ctx: what a listener's sessions share: own certificates and keys, roots, revocation lists, algorithms.
 * Built anew on reload; a session holds what its handshake needs of the one that it began with. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "config/gateway.h"
#include "tls-proxy/files.h"
#include "tls-proxy/key.h"
#include "tls-proxy/proxyv2.h"
#include "tls-proxy/revoked.h"
#include "tls-proxy/staple.h"

struct tickets;

struct tls_cert { /* one of our own */
	uint32_t held;
	WOLFSSL_CTX *wolf; /* with roots and algorithms */
	struct proxyv2_front front; /* of the certificate, for upstreams */
	struct tickets *tickets; /* as the context's */
	struct key *key; /* NULL: a client's without a certificate */
	struct staple staple; /* with the file's path, for messages */
	char staple_path[GW_PATH_BYTES];
	uint32_t n_names;
	char (*names)[GW_NAME_BYTES]; /* lower case */
};

struct tls_ctx {
	struct tls_cert *certs[1 + GW_CERTIFICATES_MAX]; /* the default one first */
	uint32_t n_certs; /* of a client's context (tls_client.h) 1 */
	bool datagrams; /* DTLS */
	bool keep_certificate; /* session_certificate() */
	bool sni_required;
	char alpn[256]; /* "": not asked */
	struct revoked *revoked;
	struct tickets *
		tickets; /* of this context alone: a reload forgets them. NULL: sessions are not resumed */
	uint64_t
		crl_next_update_s; /* wall clock, the earliest of all lists; 0 = no lists configured */
};

/** Library start and end, once a process. @return 0 or -EIO */
int tls_ctx_global_init(void);
void tls_ctx_global_fini(void);

/** Versions, suites, groups and key sizes, and no resumption, the same towards devices and upstreams.
 * @param ccm  AES-CCM too, where both ends have nothing better. @return 0 or -EIO */
int tls_algorithms_set(WOLFSSL_CTX *wolf, bool tls12, bool datagrams, bool ccm, struct err *err);

/**
 * Read the files of a listener. A client certificate is always required; X25519MLKEM768 is preferred; TLS 1.3, and 1.2
 * with ECDHE and AEAD only where the listener allows it; tickets only where it says for how long, and only those of
 * tickets.h; no renegotiation, no early data.
 * @param files  NULL: from the disk
 * @return 0 or -EINVAL, -errno; text in err. out is untouched on error
 */
int tls_ctx_load(struct tls_ctx *out, const struct gw_listener *l, const struct files *files,
		 struct err *err);
int tls_ctx_init(struct tls_ctx *out, const struct gw_listener *l,
		 struct err *err); /* from the disk */

/** Does `fresh` have no list that is older than that of the same CA in `old`? @return 0 or -ESTALE */
int tls_ctx_newer(const struct tls_ctx *fresh, const struct tls_ctx *old, struct err *err);

/** Read everything again; the old state stays in force on error. @return as tls_ctx_load(), tls_ctx_newer() */
int tls_ctx_reload(struct tls_ctx *ctx, const struct gw_listener *l, const struct files *files,
		   struct err *err);

void tls_ctx_fini(struct tls_ctx *ctx); /* takes an empty one */

/** The certificate for a client that asks for this name (lower case; "": for none). NULL: refuse it. Not held. */
struct tls_cert *tls_ctx_choose(const struct tls_ctx *ctx, const char *name);

/** The file of an OCSP response that is not handed out because it is not fresh; NULL: all are. */
const char *tls_ctx_stale(const struct tls_ctx *ctx, uint64_t now_s);

/** @return c, held once more */
struct tls_cert *tls_cert_hold(struct tls_cert *c);
void tls_cert_drop(struct tls_cert *c); /* the last one frees it; NULL is a no-op */

/** Read a certificate with its chain, and its key, into c->wolf and c->key. @return 0 or -EINVAL, -errno */
int tls_cert_own(struct tls_cert *c, const char *certificate, const char *key,
		 const struct files *files, struct err *err);
