/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whom a session believes. */
#include "tls-proxy/session_internal.h"

#include <errno.h>
#include <wolfssl/error-ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>

#include "tls-proxy/tls_client.h"

const char *session_error_text(int error)
{
	static const struct {
		int error;
		const char *text;
	} texts[] = {
		{ASN_NO_SIGNER_E, "unknown CA"},
		{ASN_SELF_SIGNED_E, "unknown CA (self-signed)"},
		{ASN_SIG_CONFIRM_E, "bad signature in the certificate"},
		{ASN_AFTER_DATE_E, "certificate expired"},
		{ASN_BEFORE_DATE_E, "certificate not yet valid"},
		{CRL_CERT_REVOKED, "certificate revoked (CRL)"},
		{CRL_MISSING, "no revocation list of the certificate's issuer"},
		{CRL_CERT_DATE_ERR, "revocation list is past its next update"},
		{KEYUSE_SIGNATURE_E, "wrong key usage: no digitalSignature"},
		{EXTKEYUSE_AUTH_E, "wrong key usage: no clientAuth"},
		{ASN_NAME_INVALID_E, "name constraint of a CA violated"},
		{ASN_PATHLEN_SIZE_E, "CA path too long"},
		{ASN_PATHLEN_INV_E, "CA path too long"},
		{MAX_CHAIN_ERROR, "certificate chain too long"},
		{NO_PEER_CERT, "no certificate"},
		{DOMAIN_NAME_MISMATCH, "the certificate is for another name"},
		{RSA_KEY_SIZE_E, "key too small"},
		{ECC_KEY_SIZE_E, "key too small"},
		{VERSION_ERROR, "TLS version not accepted"},
		{UNSUPPORTED_SUITE, "no common cipher suite"},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i].error == error)
			return texts[i].text;
	}
	return NULL;
}

static int server_verify(struct session *s, const WOLFSSL_X509_STORE_CTX *store)
{
	if (store->certs == NULL || store->certs[0].length > PEER_CERT_BYTES_MAX ||
	    (s->by_address && tls_client_address_check(store->certs[0].buffer,
						       store->certs[0].length, &s->server) < 0)) {
		session_reason_set(s, "the certificate is for another address");
		return 0;
	}
	s->identified = true;
	return 1;
}

/* @return 0: the library's own says it */
static int alert_of(enum revoked_verdict verdict)
{
	switch (verdict) {
	case REVOKED_LISTED:
		return SESSION_ALERT_CERTIFICATE_REVOKED;
	case REVOKED_UNTRUSTED:
		return SESSION_ALERT_UNKNOWN_CA;
	case REVOKED_EXPIRED:
		return SESSION_ALERT_CERTIFICATE_EXPIRED;
	default:
		return 0;
	}
}

static int device_verify(struct session *s, const WOLFSSL_X509_STORE_CTX *store)
{
	enum revoked_verdict verdict;
	struct err err = {""};

	if (peer_read(&s->peer, store, s->keep_certificate, &err) < 0) {
		session_reason_set(s, err.msg);
		return 0;
	}
	verdict = peer_check(&s->peer, s->revoked);
	if (verdict != REVOKED_GOOD) {
		session_reason_set(s, revoked_text(verdict));
		/* The library's own alert, bad_certificate, comes second and is not read any more. */
		if (alert_of(verdict) != 0)
			SendAlert(s->ssl, 2 /* fatal */, alert_of(verdict));
		return 0;
	}
	s->identified = true;
	return 1;
}

int session_on_verify(int good, WOLFSSL_X509_STORE_CTX *store)
{
	struct session *s = store->userCtx;

	/* Nobody is asked for a certificate later: whom the agent has admitted stays who he is. */
	if (s->state != SESSION_HANDSHAKE)
		return 0;
	if (!good) {
		const char *text = session_error_text(store->error);

		if (text != NULL)
			session_reason_set(s, text);
		return 0;
	}
	if (store->totalCerts > PEER_CERTS_MAX) {
		session_reason_set(s, "certificate chain too long");
		return 0;
	}
	if (store->error_depth != 0)
		return 1;
	return s->client ? server_verify(s, store) : device_verify(s, store);
}

int session_reverify(const struct session *s, const struct tls_ctx *ctx)
{
	return s->state == SESSION_OPEN && peer_check_again(&s->peer, ctx->revoked) == REVOKED_GOOD
		       ? 0
		       : -EACCES;
}
