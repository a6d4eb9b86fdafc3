/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a session tells of itself and its peer. */
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/session_internal.h"

const struct identity *session_identity(const struct session *s)
{
	return s->state == SESSION_OPEN && !s->client ? &s->peer.id : NULL;
}

const char *session_version(const struct session *s)
{
	return s->ssl != NULL ? wolfSSL_get_version(s->ssl) : "";
}

const char *session_cipher(const struct session *s)
{
	const char *name = s->ssl != NULL ? wolfSSL_get_cipher_name(s->ssl) : NULL;

	return name != NULL ? name : "";
}

const char *session_group(const struct session *s)
{
	const char *name = s->ssl != NULL ? wolfSSL_get_curve_name(s->ssl) : NULL;

	return name != NULL ? name : "";
}

size_t session_alpn(const struct session *s, char *out, size_t out_bytes)
{
	unsigned short n = 0;
	char *name = NULL;

	if (wolfSSL_ALPN_GetProtocol(s->ssl, &name, &n) != WOLFSSL_SUCCESS || name == NULL ||
	    n >= out_bytes)
		n = 0;
	if (n > 0)
		memcpy(out, name, n);
	out[n] = '\0';
	return n;
}

const uint8_t *session_certificate(const struct session *s, size_t *bytes)
{
	*bytes = s->peer.certificate_bytes;
	return s->peer.certificate;
}

void session_certificate_drop(struct session *s)
{
	free(s->peer.certificate);
	free(s->asked);
	s->peer.certificate = NULL;
	s->asked = NULL;
	s->peer.certificate_bytes = 0;
}

size_t session_sni(const struct session *s, char *out, size_t out_bytes)
{
	static const char dns[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t n = s->asked != NULL ? strlen(s->asked) : 0;

	if (n >= out_bytes)
		n = 0;
	if (n > 0)
		memcpy(out, s->asked, n);
	out[n] = '\0';
	/* What is no DNS name goes to nobody's log. */
	if (strspn(out, dns) != n)
		out[n = 0] = '\0';
	return n;
}
