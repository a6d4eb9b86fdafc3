/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/tls_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/wolfcrypt/asn.h>

#define CHAIN_DEPTH_MAX 4

static int roots_load(WOLFSSL_CTX *wolf, const struct gw_upstream_tls *u, const struct files *files,
		      struct err *err)
{
	char *ca = NULL, reason[WOLFSSL_MAX_ERROR_SZ];
	size_t bytes = 0;
	int ret = files_read(files, u->ca, &ca, &bytes, err);

	if (ret < 0)
		return ret;
	ret = wolfSSL_CTX_load_verify_buffer(wolf, (unsigned char *)ca, bytes,
					     WOLFSSL_FILETYPE_PEM);
	files_wipe(ca, bytes);
	return ret == WOLFSSL_SUCCESS ? 0
				      : err_set(err, -EINVAL, "%s: %s", u->ca,
						wolfSSL_ERR_error_string(ret, reason));
}

static int build(struct tls_cert *c, const struct gw_upstream_tls *u, const struct files *files,
		 struct err *err)
{
	int ret;

	c->wolf = wolfSSL_CTX_new(u->tls12 ? wolfSSLv23_client_method()
					   : wolfTLSv1_3_client_method());
	if (c->wolf == NULL)
		return -ENOMEM;
	wolfSSL_CTX_set_verify(c->wolf, WOLFSSL_VERIFY_PEER, NULL);
	wolfSSL_CTX_set_verify_depth(c->wolf, CHAIN_DEPTH_MAX);
	ret = wolfSSL_CTX_new_rng(c->wolf) == WOLFSSL_SUCCESS
		      ? tls_algorithms_set(c->wolf, u->tls12, false, false, err)
		      : err_set(err, -EIO, "the TLS library has no random numbers");
	if (ret == 0)
		ret = roots_load(c->wolf, u, files, err);
	if (ret == 0 && u->certificate[0] != '\0')
		ret = tls_cert_own(c, u->certificate, u->key, files, err);
	return ret;
}

int tls_client_load(struct tls_ctx *out, const struct gw_upstream_tls *u, const struct files *files,
		    struct err *err)
{
	struct tls_cert *c = calloc(1, sizeof(*c));
	int ret = c == NULL ? -ENOMEM : 0;

	if (ret < 0)
		return ret;
	c->held = 1;
	ret = build(c, u, files, err);
	if (ret < 0)
		tls_cert_drop(c);
	else
		*out = (struct tls_ctx){.certs = {c}, .n_certs = 1};
	return ret;
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
