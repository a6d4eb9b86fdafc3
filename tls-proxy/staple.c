/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/staple.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/error-ssl.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/error-crypt.h>

#include "tls-proxy/pem.h"

#define STAPLE_BYTES_MAX 16384 /* it must fit into the handshake's flight */

static int response_ask(void *arg, const char *url, int url_bytes, unsigned char *request,
			int request_bytes, unsigned char **response)
{
	const struct staple *s = arg;

	(void)url, (void)url_bytes, (void)request, (void)request_bytes;
	*response = s->der;
	return s->bytes;
}

static void response_free(void *arg, unsigned char *response)
{
	(void)arg, (void)response; /* it stays ours */
}

/* The dates of the one certificate that it is about. */
static int dates_read(const struct staple *s, uint64_t *this_s, uint64_t *next_s)
{
	CertStatus status;
	OcspEntry entry;
	OcspResponse r;
	struct tm a, b;
	int ret = -EINVAL;

	memset(&status, 0, sizeof(status));
	memset(&entry, 0, sizeof(entry));
	InitOcspResponse(&r, &entry, &status, s->der, s->bytes, NULL);
	if (OcspResponseDecode(&r, NULL, NULL, 1, 1) == 0 && r.responseStatus == OCSP_SUCCESSFUL &&
	    r.single != NULL && r.single->status != NULL && r.single->next == NULL &&
	    wc_GetDateAsCalendarTime(r.single->status->thisDate, MAX_DATE_SIZE,
				     r.single->status->thisDateFormat, &a) == 0 &&
	    wc_GetDateAsCalendarTime(r.single->status->nextDate, MAX_DATE_SIZE,
				     r.single->status->nextDateFormat, &b) == 0) {
		a.tm_isdst = b.tm_isdst = 0;
		*this_s = timegm(&a);
		*next_s = timegm(&b);
		ret = 0;
	}
	FreeOcspResponse(&r);
	return ret;
}

/* Whoever can have signed the certificate is trusted here: that it did not lie is the clients' concern. */
static int manager_fill(WOLFSSL_CERT_MANAGER *cm, const char *pem, bool leaf)
{
	DerBuffer *der;
	int ret;

	while ((ret = pem_next(&pem, &der)) == 1) {
		if (!leaf)
			wolfSSL_CertManagerLoadCABuffer(cm, der->buffer, der->length,
							WOLFSSL_FILETYPE_ASN1);
		leaf = false;
		wc_FreeDer(&der);
	}
	return ret;
}

static int response_check(const struct staple *s, const char *chain_pem, const char *ca_pem,
			  struct err *err)
{
	WOLFSSL_CERT_MANAGER *cm = wolfSSL_CertManagerNew();
	char reason[WOLFSSL_MAX_ERROR_SZ];
	const char *at = chain_pem;
	DerBuffer *leaf = NULL;
	int ret = -ENOMEM, found;

	if (cm == NULL)
		return ret;
	if (manager_fill(cm, chain_pem, true) < 0 ||
	    (ca_pem != NULL && manager_fill(cm, ca_pem, false) < 0) || pem_next(&at, &leaf) != 1) {
		ret = err_set(err, -EINVAL, "no certificate to go with it");
		goto out;
	}
	if (wolfSSL_CertManagerEnableOCSP(cm, WOLFSSL_OCSP_URL_OVERRIDE | WOLFSSL_OCSP_NO_NONCE) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CertManagerSetOCSPOverrideURL(cm, "file:") != WOLFSSL_SUCCESS ||
	    wolfSSL_CertManagerSetOCSP_Cb(cm, response_ask, response_free, (void *)s) !=
		    WOLFSSL_SUCCESS)
		goto out;
	found = wolfSSL_CertManagerCheckOCSP(cm, leaf->buffer, leaf->length);
	ret = 0;
	if (found == OCSP_CERT_REVOKED)
		ret = err_set(err, -EINVAL, "it says that the certificate is revoked");
	else if (found == ASN_NO_SIGNER_E)
		ret = err_set(err, -EINVAL,
			      "the certificate's issuer is not known: put it behind the "
			      "certificate in its file");
	else if (found != WOLFSSL_SUCCESS)
		ret = err_set(err, -EINVAL,
			      "it is not about this certificate, or not from its issuer (%s)",
			      wolfSSL_ERR_error_string(found, reason));
out:
	wc_FreeDer(&leaf);
	wolfSSL_CertManagerFree(cm);
	return ret;
}

int staple_load(struct staple *out, const uint8_t *der, size_t bytes, const char *chain_pem,
		const char *ca_pem, uint64_t now_s, struct err *err)
{
	struct staple s = {0};
	uint64_t this_s;
	int ret;

	if (bytes == 0 || bytes > STAPLE_BYTES_MAX)
		return err_set(err, -EINVAL, "empty, or larger than %u bytes", STAPLE_BYTES_MAX);
	s.der = malloc(bytes);
	if (s.der == NULL)
		return -ENOMEM;
	memcpy(s.der, der, bytes);
	s.bytes = bytes;
	if (dates_read(&s, &this_s, &s.next_update_s) < 0) {
		ret = err_set(err, -EINVAL,
			      "no OCSP response (DER) about one certificate with a next update");
	} else if (now_s >= s.next_update_s || this_s > now_s + 300) {
		/* The library refuses such a one before it looks at anything else. */
		*out = s;
		return err_set(err, -ETIME, "it is not fresh: fetch a new one");
	} else {
		ret = response_check(&s, chain_pem, ca_pem, err);
	}
	if (ret < 0)
		staple_fini(&s);
	else
		*out = s;
	return ret;
}

void staple_fini(struct staple *s)
{
	free(s->der);
	*s = (struct staple){0};
}
