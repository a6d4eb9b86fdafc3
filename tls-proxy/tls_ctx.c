/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/tls_ctx.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/memory.h>

#define FILE_BYTES_MAX (64u << 20) /* a list of 100,000 revoked certificates has 4 MB */
#define CERT_BEGIN "-----BEGIN CERTIFICATE-----"
#define CERT_END "-----END CERTIFICATE-----"
#define CHAIN_DEPTH_MAX 4

int tls_ctx_global_init(void)
{
	return wolfSSL_Init() == WOLFSSL_SUCCESS ? 0 : -EIO;
}

void tls_ctx_global_fini(void)
{
	wolfSSL_Cleanup();
}

static void wipe_free(char *secret, size_t bytes)
{
	if (secret != NULL)
		explicit_bzero(secret, bytes);
	free(secret);
}

int tls_file_read(char **out, size_t *out_bytes, const char *path, struct err *err)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	char *buf = NULL;
	int ret;

	if (f == NULL)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	setvbuf(f, NULL, _IONBF, 0); /* no copy of a key in a buffer that nobody wipes */
	if (fstat(fileno(f), &st) < 0 || st.st_size <= 0 || st.st_size > FILE_BYTES_MAX ||
	    !S_ISREG(st.st_mode)) {
		ret = err_set(err, -EINVAL, "%s: empty, too large or not a file", path);
		goto out;
	}
	buf = malloc(st.st_size + 1);
	if (buf == NULL) {
		ret = -ENOMEM;
		goto out;
	}
	if (fread(buf, 1, st.st_size, f) != (size_t)st.st_size) {
		ret = err_set(err, -EIO, "%s: cannot be read", path);
		wipe_free(buf, st.st_size);
		goto out;
	}
	buf[st.st_size] = '\0';
	*out = buf;
	*out_bytes = st.st_size;
	ret = 0;
out:
	fclose(f);
	return ret;
}

static int crl_file(struct revoked *r, const char *path, uint64_t now_s, struct err *err)
{
	char *text = NULL;
	size_t bytes;
	int ret = tls_file_read(&text, &bytes, path, err);

	if (ret < 0)
		return ret;
	ret = revoked_add(r, text, bytes, now_s, err);
	free(text);
	return ret < 0 ? err_wrap(err, ret, "%s: revocation list", path) : 0;
}

static int crl_load(struct revoked *r, const char *path, uint64_t now_s, struct err *err)
{
	struct dirent *e;
	struct stat st;
	unsigned n = 0;
	int ret = 0;
	DIR *d;

	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return crl_file(r, path, now_s, err);
	d = opendir(path);
	if (d == NULL)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	while (ret == 0 && (e = readdir(d)) != NULL) {
		char file[GW_PATH_BYTES + 256];

		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		ret = crl_file(r, file, now_s, err);
		n++;
	}
	closedir(d);
	if (ret == 0 && n == 0)
		ret = err_set(err, -EINVAL, "%s: no revocation list in it", path);
	return ret;
}

/* The CAs once more, for what the library does not tell: who may sign lists, and what is above whom. */
static int cas_note(struct revoked *r, const char *pem, struct err *err)
{
	const char *at = strstr(pem, CERT_BEGIN);
	int ret = 0;

	while (ret == 0 && at != NULL) {
		const char *end = strstr(at, CERT_END);
		DerBuffer *der = NULL;

		if (end == NULL)
			return err_set(err, -EINVAL, "a certificate is cut off");
		end += strlen(CERT_END);
		if (wc_PemToDer((const unsigned char *)at, end - at, CA_TYPE, &der, NULL, NULL,
				NULL) != 0)
			ret = err_set(err, -EINVAL, "a certificate is no valid PEM");
		else
			ret = revoked_add_ca(r, der->buffer, der->length, err);
		wc_FreeDer(&der);
		at = strstr(end, CERT_BEGIN);
	}
	return ret;
}

static int cas_load(WOLFSSL_CTX *wolf, struct revoked *r, const char *path, struct err *err)
{
	char *ca = NULL, reason[WOLFSSL_MAX_ERROR_SZ];
	size_t bytes;
	int ret = tls_file_read(&ca, &bytes, path, err);

	if (ret < 0)
		return ret;
	ret = wolfSSL_CTX_load_verify_buffer(wolf, (unsigned char *)ca, bytes,
					     WOLFSSL_FILETYPE_PEM);
	if (ret != WOLFSSL_SUCCESS)
		ret = err_set(err, -EINVAL, "%s: %s", path, wolfSSL_ERR_error_string(ret, reason));
	else if ((ret = cas_note(r, ca, err)) < 0)
		err_wrap(err, ret, "%s", path);
	free(ca);
	return ret;
}

static int trust_load(WOLFSSL_CTX *wolf, struct revoked **out, const struct gw_listener *l,
		      struct err *err)
{
	struct revoked *r = NULL;
	int ret = revoked_new(&r, l->crl[0] != '\0');

	if (ret == 0)
		ret = cas_load(wolf, r, l->ca, err);
	if (ret == 0 && l->crl[0] != '\0')
		ret = crl_load(r, l->crl, time(NULL), err);
	if (ret == 0 && (ret = revoked_seal(r, err)) < 0)
		err_wrap(err, ret, "%s", l->crl);
	if (ret < 0) {
		revoked_drop(r);
		return ret;
	}
	*out = r;
	return 0;
}

int tls_algorithms_set(WOLFSSL_CTX *wolf, bool tls12, bool datagrams, struct err *err)
{
	static const char suites13[] = "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:"
				       "TLS13-CHACHA20-POLY1305-SHA256";
	static const char suites12[] = ":ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
				       "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
				       "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
	int groups[] = {WOLFSSL_X25519MLKEM768, WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP256R1,
			WOLFSSL_ECC_SECP384R1};
	char suites[sizeof(suites13) + sizeof(suites12)];

	snprintf(suites, sizeof(suites), "%s%s", suites13, tls12 ? suites12 : "");
	if (wolfSSL_CTX_set_cipher_list(wolf, suites) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_set_groups(wolf, groups, sizeof(groups) / sizeof(groups[0])) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_SetMinEccKey_Sz(wolf, 256) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_SetMinRsaKey_Sz(wolf, 2048) != WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library lacks an algorithm");
	if (tls12 &&
	    wolfSSL_CTX_SetMinVersion(wolf, datagrams ? WOLFSSL_DTLSV1_2 : WOLFSSL_TLSV1_2) !=
		    WOLFSSL_SUCCESS)
		return err_set(err, -EIO, "the TLS library lacks TLS 1.2");
	return 0;
}

static WOLFSSL_METHOD *method_of(const struct gw_listener *l)
{
	if (l->protocol == GW_DTLS)
		return l->tls12 ? wolfDTLS_server_method() : wolfDTLSv1_3_server_method();
	return l->tls12 ? wolfSSLv23_server_method() : wolfTLSv1_3_server_method();
}

/* A context from the kept certificate and key, and from the files that may have changed. */
static int build(WOLFSSL_CTX **out, struct revoked **revoked, const struct tls_ctx *kept,
		 const struct gw_listener *l, struct err *err)
{
	char reason[WOLFSSL_MAX_ERROR_SZ];
	WOLFSSL_CTX *wolf = wolfSSL_CTX_new(method_of(l));
	int ret;

	if (wolf == NULL)
		return -ENOMEM;
	/* One generator for all sessions of this thread: seeding one for each costs a tenth of a handshake. */
	if (wolfSSL_CTX_new_rng(wolf) != WOLFSSL_SUCCESS) {
		ret = err_set(err, -EIO, "the TLS library has no random numbers");
		goto fail;
	}
	ret = tls_algorithms_set(wolf, l->tls12, l->protocol == GW_DTLS, err);
	if (ret < 0)
		goto fail;
	ret = wolfSSL_CTX_use_certificate_chain_buffer(wolf, (unsigned char *)kept->certificate,
						       kept->certificate_bytes);
	if (ret != WOLFSSL_SUCCESS) {
		ret = err_set(err, -EINVAL, "%s: %s", l->certificate,
			      wolfSSL_ERR_error_string(ret, reason));
		goto fail;
	}
	ret = wolfSSL_CTX_use_PrivateKey_buffer(wolf, (unsigned char *)kept->key, kept->key_bytes,
						WOLFSSL_FILETYPE_PEM);
	if (ret != WOLFSSL_SUCCESS || wolfSSL_CTX_check_private_key(wolf) != WOLFSSL_SUCCESS) {
		ret = err_set(err, -EINVAL, "%s: not the key of %s", l->key, l->certificate);
		goto fail;
	}
	wolfSSL_CTX_set_verify_depth(wolf, CHAIN_DEPTH_MAX);
	ret = trust_load(wolf, revoked, l, err);
	if (ret < 0)
		goto fail;
	*out = wolf;
	return 0;
fail:
	wolfSSL_CTX_free(wolf);
	return ret;
}

int tls_ctx_init(struct tls_ctx *out, const struct gw_listener *l, struct err *err)
{
	struct tls_ctx ctx = {.datagrams = l->protocol == GW_DTLS};
	int ret = tls_file_read(&ctx.certificate, &ctx.certificate_bytes, l->certificate, err);

	if (ret == 0)
		ret = tls_file_read(&ctx.key, &ctx.key_bytes, l->key, err);
	if (ret == 0)
		ret = build(&ctx.wolf, &ctx.revoked, &ctx, l, err);
	if (ret < 0) {
		tls_ctx_fini(&ctx);
		return ret;
	}
	ctx.crl_next_update_s = revoked_next_update_s(ctx.revoked);
	*out = ctx;
	return 0;
}

int tls_ctx_reload(struct tls_ctx *ctx, const struct gw_listener *l, struct err *err)
{
	struct revoked *revoked;
	WOLFSSL_CTX *wolf;
	int ret = build(&wolf, &revoked, ctx, l, err);

	if (ret < 0)
		return ret;
	ret = revoked_newer(revoked, ctx->revoked, err);
	if (ret < 0) {
		wolfSSL_CTX_free(wolf);
		revoked_drop(revoked);
		return err_wrap(err, ret, "%s", l->crl);
	}
	/* Sessions hold their own references. */
	wolfSSL_CTX_free(ctx->wolf);
	revoked_drop(ctx->revoked);
	ctx->wolf = wolf;
	ctx->revoked = revoked;
	ctx->crl_next_update_s = revoked_next_update_s(revoked);
	return 0;
}

void tls_ctx_fini(struct tls_ctx *ctx)
{
	wolfSSL_CTX_free(ctx->wolf);
	revoked_drop(ctx->revoked);
	free(ctx->certificate);
	wipe_free(ctx->key, ctx->key_bytes);
	*ctx = (struct tls_ctx){0};
}
