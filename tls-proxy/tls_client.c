/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/tls_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/wolfcrypt/asn.h>

#define CHAIN_DEPTH_MAX 4

static int roots_load(WOLFSSL_CTX *wolf, const struct gw_upstream_tls *u, struct err *err)
{
	char *ca = NULL, reason[WOLFSSL_MAX_ERROR_SZ];
	size_t bytes;
	int ret = tls_file_read(&ca, &bytes, u->ca, err);

	if (ret < 0)
		return ret;
	ret = wolfSSL_CTX_load_verify_buffer(wolf, (unsigned char *)ca, bytes,
					     WOLFSSL_FILETYPE_PEM);
	free(ca);
	return ret == WOLFSSL_SUCCESS ? 0
				      : err_set(err, -EINVAL, "%s: %s", u->ca,
						wolfSSL_ERR_error_string(ret, reason));
}

static int own_load(WOLFSSL_CTX *wolf, const struct tls_ctx *kept, const struct gw_upstream_tls *u,
		    struct err *err)
{
	char reason[WOLFSSL_MAX_ERROR_SZ];
	int ret;

	if (kept->certificate == NULL)
		return 0;
	ret = wolfSSL_CTX_use_certificate_chain_buffer(wolf, (unsigned char *)kept->certificate,
						       kept->certificate_bytes);
	if (ret != WOLFSSL_SUCCESS)
		return err_set(err, -EINVAL, "%s: %s", u->certificate,
			       wolfSSL_ERR_error_string(ret, reason));
	ret = wolfSSL_CTX_use_PrivateKey_buffer(wolf, (unsigned char *)kept->key, kept->key_bytes,
						WOLFSSL_FILETYPE_PEM);
	if (ret != WOLFSSL_SUCCESS || wolfSSL_CTX_check_private_key(wolf) != WOLFSSL_SUCCESS)
		return err_set(err, -EINVAL, "%s: not the key of %s", u->key, u->certificate);
	return 0;
}

static int build(WOLFSSL_CTX **out, const struct tls_ctx *kept, const struct gw_upstream_tls *u,
		 struct err *err)
{
	WOLFSSL_CTX *wolf = wolfSSL_CTX_new(u->tls12 ? wolfSSLv23_client_method()
						     : wolfTLSv1_3_client_method());
	int ret;

	if (wolf == NULL)
		return -ENOMEM;
	wolfSSL_CTX_set_verify(wolf, WOLFSSL_VERIFY_PEER, NULL);
	wolfSSL_CTX_set_verify_depth(wolf, CHAIN_DEPTH_MAX);
	ret = wolfSSL_CTX_new_rng(wolf) == WOLFSSL_SUCCESS
		      ? tls_algorithms_set(wolf, u->tls12, false, err)
		      : err_set(err, -EIO, "the TLS library has no random numbers");
	if (ret == 0)
		ret = roots_load(wolf, u, err);
	if (ret == 0)
		ret = own_load(wolf, kept, u, err);
	if (ret < 0) {
		wolfSSL_CTX_free(wolf);
		return ret;
	}
	*out = wolf;
	return 0;
}

int tls_client_init(struct tls_ctx *out, const struct gw_upstream_tls *u, struct err *err)
{
	struct tls_ctx ctx = {0};
	int ret = 0;

	if (u->certificate[0] != '\0')
		ret = tls_file_read(&ctx.certificate, &ctx.certificate_bytes, u->certificate, err);
	if (ret == 0 && u->key[0] != '\0')
		ret = tls_file_read(&ctx.key, &ctx.key_bytes, u->key, err);
	if (ret == 0)
		ret = build(&ctx.wolf, &ctx, u, err);
	if (ret < 0) {
		tls_ctx_fini(&ctx);
		return ret;
	}
	*out = ctx;
	return 0;
}

int tls_client_reload(struct tls_ctx *ctx, const struct gw_upstream_tls *u, struct err *err)
{
	WOLFSSL_CTX *wolf;
	int ret = build(&wolf, ctx, u, err);

	if (ret < 0)
		return ret;
	wolfSSL_CTX_free(ctx->wolf); /* sessions hold their own reference */
	ctx->wolf = wolf;
	return 0;
}

int tls_client_address_check(const uint8_t *der, size_t bytes, const struct ip_addr *want)
{
	size_t skip = ip_addr_is_v4(want) ? 12 : 0;
	DecodedCert cert;
	int ret = -EINVAL;

	if (bytes == 0 || bytes > 65536)
		return ret;
	wc_InitDecodedCert(&cert, der, bytes, NULL);
	if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0) {
		ret = -EACCES;
		for (const DNS_entry *e = cert.altNames; ret != 0 && e != NULL; e = e->next) {
			if (e->type == ASN_IP_TYPE && e->len == (int)(16 - skip) &&
			    memcmp(e->name, want->b + skip, e->len) == 0)
				ret = 0;
		}
	}
	wc_FreeDecodedCert(&cert);
	return ret;
}
