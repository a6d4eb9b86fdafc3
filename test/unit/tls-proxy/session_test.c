/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whole handshakes in memory: our session against a client of the TLS library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <malloc.h>

#include "test/unit/tls-proxy/near.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"

static struct pki pki;
static struct tls_ctx server;
static struct gw_listener listener;

struct client {
	WOLFSSL_CTX *ctx;
	struct pump p;
};

static const char *path(const char *file)
{
	static char out[4][128];
	static int i;

	i = (i + 1) % 4;
	snprintf(out[i], sizeof(out[i]), "%s/%s", pki.dir, file);
	return out[i];
}

static int group_setup(void **state)
{
	struct err err = {""};

	(void)state;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
	    pki_cert(&pki, "dev",
		     "subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage=clientAuth") != 0 ||
	    pki_cert(&pki, "srv", "extendedKeyUsage=serverAuth") != 0 ||
	    pki_sh(&pki, "openssl req -newkey rsa:1024 -nodes -keyout weak.key -out weak.csr -subj "
			 "/CN=weak && openssl x509 -req "
			 "-in weak.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 -out "
			 "weak.pem && openssl req -newkey ec "
			 "-pkeyopt ec_paramgen_curve:P-256 -nodes -keyout alien.key -out alien.csr "
			 "-subj /CN=alien && openssl x509 "
			 "-req -in alien.csr -CA other.pem -CAkey other.key -CAcreateserial -days "
			 "5 -out alien.pem") != 0)
		return -1;
	snprintf(listener.certificate, sizeof(listener.certificate), "%s", path("gw.pem"));
	snprintf(listener.key, sizeof(listener.key), "%s", path("gw.key"));
	snprintf(listener.ca, sizeof(listener.ca), "%s", path("ca.pem"));
	snprintf(listener.crl, sizeof(listener.crl), "%s", path("ca.crl"));
	if (tls_ctx_init(&server, &listener, &err) < 0) {
		print_error("%s\n", err.msg);
		return -1;
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	tls_ctx_fini(&server);
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static void client_open(struct client *c, struct session *peer, const char *cert, int method12)
{
	c->ctx = wolfSSL_CTX_new(method12 ? wolfTLSv1_2_client_method()
					  : wolfTLSv1_3_client_method());
	assert_non_null(c->ctx);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(c->ctx, path("ca.pem"), NULL),
			 WOLFSSL_SUCCESS);
	if (cert != NULL) {
		char pem[64], key[64];

		snprintf(pem, sizeof(pem), "%s.pem", cert);
		snprintf(key, sizeof(key), "%s.key", cert);
		wolfSSL_CTX_SetMinRsaKey_Sz(c->ctx, 1024);
		assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(c->ctx, path(pem)),
				 WOLFSSL_SUCCESS);
		assert_int_equal(
			wolfSSL_CTX_use_PrivateKey_file(c->ctx, path(key), WOLFSSL_FILETYPE_PEM),
			WOLFSSL_SUCCESS);
	}
	pump_join(&c->p, wolfSSL_new(c->ctx), peer);
}

static void client_close(struct client *c)
{
	wolfSSL_free(c->p.ssl);
	wolfSSL_CTX_free(c->ctx);
}

static void each_client_gets_what_it_deserves(void **state)
{
	static const struct {
		const char *name, *cert;
		int tls12;
		size_t piece;
		enum session_state want;
		const char *why;
	} rows[] = {
		{"good", "dev", 0, 0, SESSION_OPEN, ""},
		{"good, byte by byte", "dev", 0, 1, SESSION_OPEN, ""},
		{"good, 7 bytes at a time", "dev", 0, 7, SESSION_OPEN, ""},
		{"no certificate", NULL, 0, 0, SESSION_FAILED, "no certificate"},
		{"unknown CA", "alien", 0, 0, SESSION_FAILED, "unknown CA"},
		{"a server's", "srv", 0, 0, SESSION_FAILED, "wrong key usage: no clientAuth"},
		{"RSA 1024", "weak", 0, 0, SESSION_FAILED, "key too small"},
		{"TLS 1.2 where only 1.3 is allowed", "dev", 1, 0, SESSION_FAILED, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct session *s = NULL;
		struct client c;
		enum session_state got;

		assert_int_equal(session_new(&s, &server), 0);
		client_open(&c, s, rows[i].cert, rows[i].tls12);
		c.p.piece = rows[i].piece;
		got = pump_shake(&c.p);
		if (got != rows[i].want || strstr(session_reason(s), rows[i].why) == NULL)
			fail_msg("%s: state %d, \"%s\"", rows[i].name, got, session_reason(s));
		if (got == SESSION_OPEN) {
			assert_string_equal(session_identity(s)->name, "spiffe://p/cam/1");
			assert_string_equal(session_version(s), "TLSv1.3");
		} else {
			assert_null(session_identity(s));
			if (rows[i].tls12 == 0 && c.p.alert == 0)
				fail_msg("%s: the client got no alert", rows[i].name);
		}
		client_close(&c);
		session_free(s);
	}
}

static void pair(struct session **s, struct client *c)
{
	assert_int_equal(session_new(s, &server), 0);
	client_open(c, *s, "dev", 0);
	assert_int_equal(pump_shake(&c->p), SESSION_OPEN);
}

/* A client that offers the hybrid group gets it, whatever else it offers before it. */
static void the_hybrid_group_is_preferred(void **state)
{
	static const struct {
		const char *name;
		int groups[3], n;
		const char *want;
	} rows[] = {
		{"hybrid alone", {WOLFSSL_X25519MLKEM768}, 1, "X25519MLKEM768"},
		{"classic first",
		 {WOLFSSL_ECC_X25519, WOLFSSL_X25519MLKEM768},
		 2,
		 "X25519MLKEM768"},
		{"classic alone", {WOLFSSL_ECC_X25519}, 1, "X25519"},
		{"P-256 alone", {WOLFSSL_ECC_SECP256R1}, 1, "SECP256R1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct session *s = NULL;
		struct client c;

		assert_int_equal(session_new(&s, &server), 0);
		client_open(&c, s, "dev", 0);
		for (int k = 0; k < rows[i].n; k++)
			assert_int_equal(wolfSSL_UseKeyShare(c.p.ssl, rows[i].groups[k]),
					 WOLFSSL_SUCCESS);
		assert_int_equal(pump_shake(&c.p), SESSION_OPEN);
		if (strcmp(session_group(s), rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].name, session_group(s));
		client_close(&c);
		session_free(s);
	}
}

static void bytes_go_both_ways_and_a_full_buffer_pushes_back(void **state)
{
	static uint8_t data[16384], got[16384];
	struct session *s;
	struct client c;
	ssize_t n;
	size_t sent = 0, received = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7;
	pair(&s, &c);
	assert_int_equal(wolfSSL_write(c.p.ssl, "hello", 5), 5);
	assert_int_equal(session_read(s, got, sizeof(got)), 5);
	assert_memory_equal(got, "hello", 5);
	assert_int_equal(session_read(s, got, sizeof(got)), -EAGAIN);
	/* nobody takes the output: writing must stop, and go on without loss once somebody does */
	while ((n = session_write(s, data, sizeof(data))) > 0)
		sent += n;
	assert_int_equal(n, -EAGAIN);
	assert_true(sent >= sizeof(data));
	for (int i = 0; i < 64 && received < sent; i++) {
		int m;

		pump_carry(&c.p);
		while ((m = wolfSSL_read(c.p.ssl, got, sizeof(got))) > 0) {
			for (int k = 0; k < m; k++)
				assert_int_equal(got[k],
						 (uint8_t)(((received + k) % sizeof(data)) * 7));
			received += m;
		}
	}
	assert_int_equal(received, sent);
	assert_true(session_write(s, data, 100) == 100);
	client_close(&c);
	session_free(s);
}

/* What waits stays, what does not goes; and a session that was trimmed goes on as if nothing had been. */
static void a_quiet_session_gives_its_memory_back(void **state)
{
	struct mallinfo2 full, trimmed;
	struct session *s;
	struct client c;
	uint8_t got[64];

	(void)state;
	pair(&s, &c);
	assert_int_equal(wolfSSL_write(c.p.ssl, "hello", 5), 5);
	assert_int_equal(session_write(s, (const uint8_t *)"answer", 6), 6);
	session_trim(s); /* both wait: the record of the client, and ours */
	assert_int_equal(session_read(s, got, sizeof(got)), 5);
	pump_carry(&c.p);
	assert_int_equal(wolfSSL_read(c.p.ssl, got, sizeof(got)), 6);
	assert_memory_equal(got, "answer", 6);
	full = mallinfo2();
	session_trim(s);
	trimmed = mallinfo2();
	/* The sanitizers' allocator counts nothing here. Large blocks are counted apart. */
	if (full.uordblks > 0)
		assert_true(full.uordblks + full.hblkhd >=
			    trimmed.uordblks + trimmed.hblkhd + 4 * 1024);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wolfSSL_write(c.p.ssl, "more", 4), 4);
		assert_int_equal(session_read(s, got, sizeof(got)), 4);
		assert_int_equal(session_write(s, (const uint8_t *)"still", 5), 5);
		pump_carry(&c.p);
		assert_int_equal(wolfSSL_read(c.p.ssl, got, sizeof(got)), 5);
		session_trim(s);
	}
	client_close(&c);
	session_free(s);
}

/* New keys in both directions, long after the session has given back what only its handshake needed. */
static void keys_are_changed_in_mid_session(void **state)
{
	struct session *s;
	uint8_t got[64];
	struct client c;

	(void)state;
	pair(&s, &c);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wolfSSL_update_keys(c.p.ssl), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_write(c.p.ssl, "hello", 5), 5);
		assert_int_equal(session_read(s, got, sizeof(got)), 5);
		assert_int_equal(session_write(s, (const uint8_t *)"answer", 6), 6);
		pump_carry(&c.p);
		assert_int_equal(wolfSSL_read(c.p.ssl, got, sizeof(got)), 6);
		session_trim(s);
	}
	client_close(&c);
	session_free(s);
}

static void an_end_is_told(void **state)
{
	struct session *s;
	struct client c;
	WOLFSSL_ALERT_HISTORY h;
	uint8_t buf[64];

	(void)state;
	pair(&s, &c);
	wolfSSL_shutdown(c.p.ssl);
	assert_int_equal(session_read(s, buf, sizeof(buf)), 0); /* close_notify */
	assert_int_equal(session_write(s, (const uint8_t *)"late", 4),
			 4); /* half-close: we may still talk */
	pump_carry(&c.p);
	assert_int_equal(wolfSSL_read(c.p.ssl, buf, sizeof(buf)), 4);
	client_close(&c);
	session_free(s);

	pair(&s, &c);
	session_abort(s, SESSION_ALERT_CERTIFICATE_REVOKED);
	assert_int_equal(session_read(s, buf, sizeof(buf)), -EPROTO);
	assert_int_equal(session_write(s, buf, 1), -EPROTO);
	pump_carry(&c.p);
	assert_true(wolfSSL_read(c.p.ssl, buf, sizeof(buf)) <= 0);
	assert_int_equal(wolfSSL_get_alert_history(c.p.ssl, &h), WOLFSSL_SUCCESS);
	assert_int_equal(h.last_rx.code, SESSION_ALERT_CERTIFICATE_REVOKED);
	client_close(&c);
	session_free(s);
}

static void garbage_fails_and_never_opens(void **state)
{
	uint8_t junk[4096];
	uint32_t seed = 1;

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct session *s;
		enum session_state st;

		assert_int_equal(session_new(&s, &server), 0);
		for (size_t i = 0; i < sizeof(junk); i++) {
			seed = seed * 1664525 + 1013904223;
			junk[i] = seed >> 24;
		}
		if (round & 1) /* looks like a handshake record */
			memcpy(junk, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
		session_feed(s, junk, sizeof(junk));
		st = session_step(s);
		assert_int_not_equal(st, SESSION_OPEN);
		assert_null(session_identity(s));
		session_free(s);
	}
}

static void a_revoked_certificate_is_refused_after_a_reload(void **state)
{
	struct session *s;
	struct client c;
	struct err err = {""};

	(void)state;
	assert_true(server.crl_next_update_s > 1700000000);
	assert_int_equal(pki_sh(&pki, "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem "
				      "-revoke dev.pem && openssl ca -config "
				      "ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out ca.crl"),
			 0);
	assert_int_equal(tls_ctx_reload(&server, &listener, NULL, &err), 0);
	assert_int_equal(session_new(&s, &server), 0);
	client_open(&c, s, "dev", 0);
	assert_int_equal(pump_shake(&c.p), SESSION_FAILED);
	assert_string_equal(session_reason(s), "certificate revoked (CRL)");
	client_close(&c);
	session_free(s);
	/* a list that is cut off changes nothing */
	assert_int_equal(pki_sh(&pki, "head -c 200 ca.crl > cut && mv cut ca.crl"), 0);
	assert_int_equal(tls_ctx_reload(&server, &listener, NULL, &err), -22);
	assert_non_null(server.certs[0]);
	assert_int_equal(session_new(&s, &server), 0);
	client_open(&c, s, "dev", 0);
	assert_int_equal(pump_shake(&c.p), SESSION_FAILED);
	client_close(&c);
	session_free(s);
}

/* ---- records straight from and to a stream ------------------------------------------------------ */

static int to_near(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct near *w = arg;

	(void)ssl;
	memcpy(w->in + w->n, buf, bytes);
	w->n += bytes;
	return bytes;
}

/* An open session on a stream that is near, with one record of the client under way. */
static void near_pair(struct session **s, struct client *c, struct near *w, size_t bytes)
{
	static const uint8_t text[16000] = "a record";

	pair(s, c);
	near_join(w, *s);
	wolfSSL_SSLSetIOSend(c->p.ssl, to_near);
	wolfSSL_SetIOWriteCtx(c->p.ssl, w);
	assert_int_equal(wolfSSL_write(c->p.ssl, text, bytes), bytes);
}

static void records_are_read_from_a_stream_that_is_near(void **state)
{
	static const struct {
		const char *name;
		size_t bytes, piece, cut; /* what comes at a time; what never comes of the record */
		bool fin;
		int lost;
		ssize_t want;
	} rows[] = {
		{"a short record at once", 256, 65536, 0, false, 0, 256},
		{"byte by byte", 256, 1, 0, false, 0, 256},
		{"a long one in segments", 16000, 1460, 0, false, 0, 16000},
		{"the header alone", 256, 65536, 256 + 17, false, 0, -EAGAIN},
		{"a FIN behind it", 256, 65536, 0, true, 0, 256},
		{"a FIN in the middle of it", 256, 65536, 100, true, 0, -EAGAIN},
		{"a FIN and no record", 256, 65536, 256 + 22, true, 0, -EAGAIN},
		{"a reset", 256, 65536, 0, false, ECONNRESET, -EAGAIN},
	};
	static struct near w;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t buf[16384];
		struct session *s;
		struct client c;
		ssize_t n = -EAGAIN;

		near_pair(&s, &c, &w, rows[i].bytes);
		w.n -= rows[i].cut;
		w.fin = rows[i].fin;
		w.lost = rows[i].lost;
		while (n == -EAGAIN && w.arrived < w.n) {
			w.arrived +=
				rows[i].piece < w.n - w.arrived ? rows[i].piece : w.n - w.arrived;
			w.may = true;
			n = session_read(s, buf, sizeof(buf));
		}
		if (n != rows[i].want || (n > 8 && memcmp(buf, "a record", 8) != 0))
			fail_msg("%s: %zd", rows[i].name, n);
		w.may |= n > 0; /* the stream tells again */
		assert_int_equal(session_read(s, buf, sizeof(buf)), -EAGAIN);
		assert_false(session_may_read(s));
		if (w.over != (rows[i].fin || rows[i].lost != 0))
			fail_msg("%s: the end is %s", rows[i].name, w.over ? "told" : "not told");
		client_close(&c);
		session_free(s);
	}
}

/* What the stream does not take waits, in its order; what a lost one does not take is not lost from sight. */
static void records_are_given_to_a_stream_that_is_near(void **state)
{
	static const size_t rooms[] = {sizeof(((struct near *)0)->out), 4000, 21, 1, 0};
	static uint8_t data[4000], got[8000];
	static struct near w;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		const uint8_t *rest;
		struct session *s;
		struct client c;
		size_t n, at = 0;
		int r;

		near_pair(&s, &c, &w, 1);
		w.room = rooms[i];
		assert_int_equal(session_write(s, data, 3000), 3000);
		w.room += rooms[i] < sizeof(w.out) ? 500 : 0; /* not before what waits */
		assert_int_equal(session_write(s, data + 3000, 1000), 1000);
		rest = session_output(s, &n);
		assert_int_equal(w.n_out + n, 4000 + 2 * 22);
		assert_int_equal(w.n_out, rooms[i] < 4000 ? rooms[i] : w.n_out);
		memcpy(c.p.in, w.out, w.n_out);
		if (n > 0)
			memcpy(c.p.in + w.n_out, rest, n);
		c.p.in_at = 0;
		c.p.in_n = w.n_out + n;
		while ((r = wolfSSL_read(c.p.ssl, got + at, sizeof(got) - at)) > 0)
			at += r;
		assert_int_equal(at, 4000);
		assert_memory_equal(got, data, 4000);
		session_sent(s, n);
		w.lost = ECONNRESET;
		assert_int_equal(session_write(s, data, 100), 100);
		assert_true(session_backlog(s));
		w.stream.ops = NULL; /* closed */
		session_abort(s, SESSION_ALERT_INTERNAL_ERROR);
		assert_int_equal(session_read(s, got, sizeof(got)), -EPROTO);
		client_close(&c);
		session_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_client_gets_what_it_deserves),
		cmocka_unit_test(the_hybrid_group_is_preferred),
		cmocka_unit_test(bytes_go_both_ways_and_a_full_buffer_pushes_back),
		cmocka_unit_test(a_quiet_session_gives_its_memory_back),
		cmocka_unit_test(keys_are_changed_in_mid_session),
		cmocka_unit_test(an_end_is_told),
		cmocka_unit_test(garbage_fails_and_never_opens),
		cmocka_unit_test(records_are_read_from_a_stream_that_is_near),
		cmocka_unit_test(records_are_given_to_a_stream_that_is_near),
		cmocka_unit_test(a_revoked_certificate_is_refused_after_a_reload),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
