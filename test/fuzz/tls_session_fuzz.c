/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A session fed with bytes in pieces: it never opens, for no fuzzer holds a device's key. */
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct tls_ctx ctx;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct gw_listener l = {.tls12 = true, .resumption_s = 60, .sessions_max = 4};
	struct pki pki;
	struct err err = {""};

	(void)argc;
	(void)argv;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0)
		abort();
	snprintf(l.certificate, sizeof(l.certificate), "%s/gw.pem", pki.dir);
	snprintf(l.key, sizeof(l.key), "%s/gw.key", pki.dir);
	snprintf(l.ca, sizeof(l.ca), "%s/ca.pem", pki.dir);
	snprintf(l.crl, sizeof(l.crl), "%s/ca.crl", pki.dir);
	if (tls_ctx_init(&ctx, &l, &err) < 0)
		abort();
	pki_drop(&pki);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct session *s;
	size_t out, piece = bytes > 0 ? 1 + data[0] * 8u : 1;
	uint8_t buf[256];

	if (session_new(&s, &ctx) < 0)
		abort();
	for (size_t at = bytes > 0; at < bytes;) {
		size_t n = bytes - at < piece ? bytes - at : piece;

		if (n > session_room(s))
			n = session_room(s);
		if (n == 0)
			break;
		session_feed(s, data + at, n);
		at += n;
		if (session_step(s) == SESSION_OPEN || session_identity(s) != NULL)
			abort();
		session_output(s, &out);
		session_sent(s, out);
	}
	if (session_read(s, buf, sizeof(buf)) >= 0 || session_write(s, buf, 1) >= 0)
		abort();
	session_free(s);
	return 0;
}
