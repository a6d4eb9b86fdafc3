/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/tls_ctx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wolfssl/wolfcrypt/random.h>

#include "tls-proxy/pem.h"
#include "tls-proxy/session.h"
#include "tls-proxy/signatures.h"
#include "tls-proxy/tickets.h"

#define CHAIN_DEPTH_MAX 4

/* Of the generators of SP 800-90A that the library has it would take Hash_DRBG over SHA-512. The one over SHA-256 is as
 * strong for us (256 bits, table 2) and cheaper: 32 bytes in 0.42 us against 0.90, 0.68 without instructions for SHA-256. */
static int generator_choose(void)
{
	return wc_Sha512Drbg_Disable() == 0 ? 0 : -EIO;
}

int tls_ctx_global_init(void)
{
	int ret = wolfSSL_Init() == WOLFSSL_SUCCESS ? generator_choose() : -EIO;

	if (ret == 0)
		ret = signatures_init(SIGNATURES_MAX);
	if (ret < 0)
		wolfSSL_Cleanup();
	return ret;
}

void tls_ctx_global_fini(void)
{
	signatures_fini();
	wolfSSL_Cleanup();
}

/* ---- whom we trust ---- */

struct lists {
	struct revoked *r;
	const struct files *files;
	uint64_t now_s;
	unsigned n;
};

static int list_load(void *arg, const char *path, struct err *err)
{
	struct lists *l = arg;
	char *text = NULL;
	size_t bytes = 0;
	int ret = files_read(l->files, path, &text, &bytes, err);

	if (ret < 0)
		return ret;
	ret = revoked_add(l->r, text, bytes, l->now_s, err);
	files_wipe(text, bytes);
	l->n++;
	return ret < 0 ? err_wrap(err, ret, "%s: revocation list", path) : 0;
}

/* What the library does not tell: who may sign lists, and what is above whom. */
static int cas_note(struct revoked *r, const char *pem, struct err *err)
{
	DerBuffer *der;
	int ret;

	while ((ret = pem_next(&pem, &der)) == 1) {
		ret = revoked_add_ca(r, der->buffer, der->length, err);
		wc_FreeDer(&der);
		if (ret < 0)
			return ret;
	}
	return ret < 0 ? err_set(err, ret, "a certificate is no valid PEM") : 0;
}

static int trust_load(struct revoked **out, const struct gw_listener *l, const char *ca,
		      const struct files *files, struct err *err)
{
	struct lists lists = {.files = files, .now_s = time(NULL)};
	int ret = revoked_new(&lists.r, l->crl[0] != '\0');

	if (ret == 0 && (ret = cas_note(lists.r, ca, err)) < 0)
		err_wrap(err, ret, "%s", l->ca);
	if (ret == 0 && l->crl[0] != '\0') {
		ret = files_each(files, l->crl, list_load, &lists, err);
		if (ret == 0 && lists.n == 0)
			ret = err_set(err, -EINVAL, "%s: no revocation list in it", l->crl);
	}
	if (ret == 0 && (ret = revoked_seal(lists.r, err)) < 0)
		err_wrap(err, ret, "%s", l->crl);
	if (ret < 0) {
		revoked_drop(lists.r);
		return ret;
	}
	*out = lists.r;
	return 0;
}

/* ---- who we are ---- */

int tls_algorithms_set(WOLFSSL_CTX *wolf, bool tls12, bool datagrams, bool ccm, struct err *err)
{
	static const char suites13[] = "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:"
				       "TLS13-CHACHA20-POLY1305-SHA256";
	static const char suites12[] = ":ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
				       "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
				       "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
	/* RFC 7252 section 9.1.3.3 has devices that know one suite, CCM_8. Its tags of 64 bits are good enough for nobody else:
	 * RFC 9147 section 4.5.3 rules it out for DTLS 1.3. */
	static const char ccm13[] = ":TLS13-AES128-CCM-SHA256";
	static const char ccm12[] = ":ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM-8";
	int groups[] = {WOLFSSL_X25519MLKEM768, WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP256R1,
			WOLFSSL_ECC_SECP384R1};
	char suites[sizeof(suites13) + sizeof(suites12) + sizeof(ccm13) + sizeof(ccm12)];

	snprintf(suites, sizeof(suites), "%s%s%s%s", suites13, tls12 ? suites12 : "",
		 ccm ? ccm13 : "", ccm && tls12 ? ccm12 : "");
	if (wolfSSL_CTX_set_cipher_list(wolf, suites) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_set_groups(wolf, groups, sizeof(groups) / sizeof(groups[0])) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_SetMinEccKey_Sz(wolf, 256) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_SetMinRsaKey_Sz(wolf, 2048) != WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library lacks an algorithm");
	/* The library keeps nothing of a session: one that it resumed would skip every check. tickets.h has what may be. */
	if (wolfSSL_CTX_set_session_cache_mode(wolf, WOLFSSL_SESS_CACHE_OFF) != WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library keeps sessions");
	wolfSSL_CTX_set_num_tickets(wolf, 0);
	wolfSSL_CTX_NoTicketTLSv12(wolf);
	if (tls12 &&
	    wolfSSL_CTX_SetMinVersion(wolf, datagrams ? WOLFSSL_DTLSV1_2 : WOLFSSL_TLSV1_2) !=
		    WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library lacks TLS 1.2");
	return 0;
}

/* The library frees the copy that it is given. */
static int on_status(WOLFSSL *ssl, void *arg)
{
	const struct tls_cert *c = arg;
	unsigned char *copy;

	if (c->staple.der == NULL || (uint64_t)time(NULL) >= c->staple.next_update_s)
		return WOLFSSL_OCSP_STATUS_CB_NOACK;
	copy = XMALLOC(c->staple.bytes, NULL, DYNAMIC_TYPE_TMP_BUFFER);
	if (copy == NULL)
		return WOLFSSL_OCSP_STATUS_CB_NOACK;
	memcpy(copy, c->staple.der, c->staple.bytes);
	if (wolfSSL_set_tlsext_status_ocsp_resp(ssl, copy, c->staple.bytes) != WOLFSSL_SUCCESS) {
		XFREE(copy, NULL, DYNAMIC_TYPE_TMP_BUFFER);
		return WOLFSSL_OCSP_STATUS_CB_NOACK;
	}
	return WOLFSSL_OCSP_STATUS_CB_OK;
}

static WOLFSSL_METHOD *method_of(const struct gw_listener *l)
{
	if (l->protocol == GW_DTLS)
		return l->tls12 ? wolfDTLS_server_method() : wolfDTLSv1_3_server_method();
	return l->tls12 ? wolfSSLv23_server_method() : wolfTLSv1_3_server_method();
}

static int wolf_make(struct tls_cert *c, const struct gw_listener *l, const char *ca,
		     struct err *err)
{
	char reason[WOLFSSL_MAX_ERROR_SZ];
	int ret;

	c->wolf = wolfSSL_CTX_new(method_of(l));
	if (c->wolf == NULL)
		return -ENOMEM;
	/* One generator for all sessions of this thread: seeding one for each costs a tenth of a handshake. */
	if (wolfSSL_CTX_new_rng(c->wolf) != WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library has no random numbers");
	ret = tls_algorithms_set(c->wolf, l->tls12, l->protocol == GW_DTLS, l->aes_ccm, err);
	if (ret < 0)
		return ret;
	wolfSSL_CTX_set_verify_depth(c->wolf, CHAIN_DEPTH_MAX);
	ret = wolfSSL_CTX_load_verify_buffer(c->wolf, (const unsigned char *)ca, strlen(ca),
					     WOLFSSL_FILETYPE_PEM);
	return ret == WOLFSSL_SUCCESS ? 0
				      : err_set(err, -EINVAL, "%s: %s", l->ca,
						wolfSSL_ERR_error_string(ret, reason));
}

static int key_read(struct tls_cert *c, const char *key, const char *certificate, const char *chain,
		    const struct files *files, struct err *err)
{
	DerBuffer *leaf = NULL;
	char *text = NULL;
	size_t bytes = 0;
	int ret = files_read(files, key, &text, &bytes, err);

	if (ret < 0)
		return ret;
	ret = key_load(&c->key, text, bytes, err);
	files_wipe(text, bytes);
	if (ret < 0)
		return err_wrap(err, ret, "%s", key);
	if (pem_next(&chain, &leaf) != 1 || key_fits(c->key, leaf->buffer, leaf->length) < 0)
		ret = err_set(err, -EINVAL, "%s: not the key of %s", key, certificate);
	else if ((ret = key_stand_in(c->key, c->wolf)) < 0)
		err_set(err, ret, "%s: the TLS library cannot use it", key);
	wc_FreeDer(&leaf);
	return ret;
}

int tls_cert_own(struct tls_cert *c, const char *certificate, const char *key,
		 const struct files *files, struct err *err)
{
	char *chain = NULL, reason[WOLFSSL_MAX_ERROR_SZ];
	size_t bytes = 0;
	int ret = files_read(files, certificate, &chain, &bytes, err);

	if (ret < 0)
		return ret;
	proxyv2_front_read(&c->front, chain, bytes);
	key_serve(c->wolf);
	ret = wolfSSL_CTX_use_certificate_chain_buffer(c->wolf, (unsigned char *)chain, bytes);
	if (ret != WOLFSSL_SUCCESS)
		ret = err_set(err, -EINVAL, "%s: %s", certificate,
			      wolfSSL_ERR_error_string(ret, reason));
	else
		ret = key_read(c, key, certificate, chain, files, err);
	files_wipe(chain, bytes);
	return ret;
}

/* Not fresh: it is not handed out, which the listener says; everything else is an error. */
static int staple_read(struct tls_cert *c, const struct gw_certificate *g, const char *ca,
		       const struct files *files, struct err *err)
{
	char *der = NULL, *chain = NULL;
	size_t der_bytes = 0, chain_bytes = 0;
	int ret;

	if (g->ocsp[0] == '\0')
		return 0;
	snprintf(c->staple_path, sizeof(c->staple_path), "%s", g->ocsp);
	ret = files_read(files, g->ocsp, &der, &der_bytes, err);
	if (ret == 0)
		ret = files_read(files, g->certificate, &chain, &chain_bytes, err);
	if (ret == 0) {
		ret = staple_load(&c->staple, (const uint8_t *)der, der_bytes, chain, ca,
				  time(NULL), err);
		ret = ret < 0 && ret != -ETIME ? err_wrap(err, ret, "%s: OCSP response", g->ocsp)
					       : 0;
	}
	files_wipe(der, der_bytes);
	files_wipe(chain, chain_bytes);
	if (ret == 0 && (wolfSSL_CTX_EnableOCSPStapling(c->wolf) != WOLFSSL_SUCCESS ||
			 wolfSSL_CTX_set_tlsext_status_cb(c->wolf, on_status) != WOLFSSL_SUCCESS ||
			 wolfSSL_CTX_set_tlsext_status_arg(c->wolf, c) != WOLFSSL_SUCCESS))
		ret = err_set(err, -EIO, "the TLS library cannot staple");
	return ret;
}

static int cert_new(struct tls_cert **out, const struct gw_certificate *g,
		    const struct gw_listener *l, const char *ca, struct tickets *tickets,
		    const struct files *files, struct err *err)
{
	struct tls_cert *c = calloc(1, sizeof(*c));
	int ret = -ENOMEM;

	if (c == NULL)
		return ret;
	c->held = 1;
	c->names = calloc(g->n_names + 1, sizeof(*c->names));
	if (c->names == NULL)
		goto fail;
	memcpy(c->names, g->names, g->n_names * sizeof(*c->names));
	c->n_names = g->n_names;
	ret = wolf_make(c, l, ca, err);
	c->tickets = tickets_hold(tickets);
	if (ret == 0 && tickets != NULL && session_tickets_serve(c->wolf, l->resumption_s) < 0)
		ret = err_set(err, -EIO, "the TLS library lacks tickets");
	if (ret == 0)
		ret = tls_cert_own(c, g->certificate, g->key, files, err);
	if (ret == 0)
		ret = staple_read(c, g, ca, files, err);
	if (ret < 0)
		goto fail;
	*out = c;
	return 0;
fail:
	tls_cert_drop(c);
	return ret;
}

struct tls_cert *tls_cert_hold(struct tls_cert *c)
{
	c->held++;
	return c;
}

void tls_cert_drop(struct tls_cert *c)
{
	if (c == NULL || --c->held > 0)
		return;
	wolfSSL_CTX_free(c->wolf);
	tickets_drop(c->tickets);
	key_free(c->key);
	staple_fini(&c->staple);
	free(c->names);
	free(c);
}

/* "*.lab" is for "x.lab", not for "lab" nor "x.y.lab". */
static bool name_fits(const char *pattern, const char *name, bool wild)
{
	const char *dot = strchr(name, '.');

	if (!wild)
		return strcmp(pattern, name) == 0;
	return pattern[0] == '*' && dot != NULL && dot != name && strcmp(pattern + 1, dot) == 0;
}

struct tls_cert *tls_ctx_choose(const struct tls_ctx *ctx, const char *name)
{
	for (int wild = 0; wild < 2 && name[0] != '\0'; wild++) {
		for (uint32_t i = 1; i < ctx->n_certs; i++) {
			for (uint32_t k = 0; k < ctx->certs[i]->n_names; k++) {
				if (name_fits(ctx->certs[i]->names[k], name, wild))
					return ctx->certs[i];
			}
		}
	}
	return ctx->sni_required ? NULL : ctx->certs[0];
}

const char *tls_ctx_stale(const struct tls_ctx *ctx, uint64_t now_s)
{
	for (uint32_t i = 0; i < ctx->n_certs; i++) {
		const struct tls_cert *c = ctx->certs[i];

		if (c->staple_path[0] != '\0' && now_s >= c->staple.next_update_s)
			return c->staple_path;
	}
	return NULL;
}

/* ---- all together ---- */

int tls_ctx_load(struct tls_ctx *out, const struct gw_listener *l, const struct files *files,
		 struct err *err)
{
	struct tls_ctx ctx = {.keep_certificate =
				      l->proxy_protocol && (l->proxy_tlvs & PROXY_CERTIFICATE) != 0,
			      .sni_required = l->sni_required,
			      .datagrams = l->protocol == GW_DTLS};
	struct gw_certificate *own = calloc(1, sizeof(*own));
	char *ca = NULL;
	size_t bytes = 0;
	int ret = own == NULL ? -ENOMEM : files_read(files, l->ca, &ca, &bytes, err);

	if (ret < 0)
		goto out;
	memcpy(own->certificate, l->certificate, sizeof(own->certificate));
	memcpy(own->key, l->key, sizeof(own->key));
	memcpy(own->ocsp, l->ocsp, sizeof(own->ocsp));
	memcpy(ctx.alpn, l->alpn, sizeof(ctx.alpn));
	if (l->resumption_s > 0 && l->protocol == GW_TLS)
		ret = tickets_new(&ctx.tickets, l->sessions_max, l->resumption_s);
	for (uint32_t i = 0; ret == 0 && i < 1 + l->n_certificates; i++) {
		ret = cert_new(&ctx.certs[i], i == 0 ? own : &l->certificates[i - 1], l, ca,
			       ctx.tickets, files, err);
		ctx.n_certs += ret == 0;
	}
	if (ret == 0)
		ret = trust_load(&ctx.revoked, l, ca, files, err);
	if (ret < 0) {
		tls_ctx_fini(&ctx);
	} else {
		ctx.crl_next_update_s = revoked_next_update_s(ctx.revoked);
		*out = ctx;
	}
out:
	files_wipe(ca, bytes);
	free(own);
	return ret;
}

int tls_ctx_init(struct tls_ctx *out, const struct gw_listener *l, struct err *err)
{
	return tls_ctx_load(out, l, NULL, err);
}

int tls_ctx_newer(const struct tls_ctx *fresh, const struct tls_ctx *old, struct err *err)
{
	return revoked_newer(fresh->revoked, old->revoked, err);
}

int tls_ctx_reload(struct tls_ctx *ctx, const struct gw_listener *l, const struct files *files,
		   struct err *err)
{
	struct tls_ctx fresh = {0};
	int ret = tls_ctx_load(&fresh, l, files, err);

	if (ret < 0)
		return ret;
	ret = tls_ctx_newer(&fresh, ctx, err);
	if (ret < 0) {
		tls_ctx_fini(&fresh);
		return ret;
	}
	tls_ctx_fini(ctx); /* sessions hold what they need */
	*ctx = fresh;
	return 0;
}

void tls_ctx_fini(struct tls_ctx *ctx)
{
	for (uint32_t i = 0; i < ctx->n_certs; i++)
		tls_cert_drop(ctx->certs[i]);
	tickets_drop(ctx->tickets);
	revoked_drop(ctx->revoked);
	*ctx = (struct tls_ctx){0};
}
