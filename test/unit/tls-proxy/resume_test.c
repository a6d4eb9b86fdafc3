/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Resumption: what a ticket is good for, and all that it is not good for. Whole handshakes in memory against a client of
 * the TLS library that keeps its ticket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <time.h>

#include "config/base/clock.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/tickets.h"

static struct pki pki;
static struct gw_listener listener;
static struct tls_ctx server;
static WOLFSSL_CTX *client_ctx;

static const char *path(const char *file)
{
	static char out[4][128];
	static int i;

	i = (i + 1) % 4;
	snprintf(out[i], sizeof(out[i]), "%s/%s", pki.dir, file);
	return out[i];
}

static void server_load(void)
{
	struct err err = {""};

	tls_ctx_fini(&server);
	if (tls_ctx_init(&server, &listener, &err) < 0)
		fail_msg("%s", err.msg);
}

static int group_setup(void **state)
{
	(void)state;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
	    pki_cert(&pki, "dev",
		     "subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage=clientAuth") != 0 ||
	    pki_cert(&pki, "two", "extendedKeyUsage=serverAuth") != 0)
		return -1;
	client_ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	if (client_ctx == NULL ||
	    wolfSSL_CTX_load_verify_locations(client_ctx, path("ca.pem"), NULL) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_certificate_chain_file(client_ctx, path("dev.pem")) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(client_ctx, path("dev.key"), WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS)
		return -1;
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	tls_ctx_fini(&server);
	wolfSSL_CTX_free(client_ctx);
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static int each_setup(void **state)
{
	(void)state;
	memset(&listener, 0, sizeof(listener));
	snprintf(listener.certificate, sizeof(listener.certificate), "%s", path("gw.pem"));
	snprintf(listener.key, sizeof(listener.key), "%s", path("gw.key"));
	snprintf(listener.ca, sizeof(listener.ca), "%s", path("ca.pem"));
	snprintf(listener.crl, sizeof(listener.crl), "%s", path("ca.crl"));
	listener.resumption_s = 600;
	listener.sessions_max = 8;
	listener.n_certificates = 1;
	listener.certificates[0].n_names = 2;
	strcpy(listener.certificates[0].names[0], "two.example");
	strcpy(listener.certificates[0].names[1], "also.example");
	strcpy(listener.certificates[0].certificate, path("two.pem"));
	strcpy(listener.certificates[0].key, path("two.key"));
	server_load();
	return 0;
}

struct end { /* what a client keeps of a connection */
	enum session_state state;
	bool resumed;
	int alert;
	char name[64], why[128];
	WOLFSSL_SESSION *kept; /* NULL: it got no ticket */
};

/* One connection: with a ticket if there is one, for a server name if there is one. @param admitted  may it have the next one? */
static struct end connect_as(const struct tls_ctx *ctx, WOLFSSL_SESSION *ticket, const char *sni,
			     bool admitted)
{
	static struct pump p;
	struct end end = {0};
	struct session *s = NULL;
	WOLFSSL *ssl = wolfSSL_new(client_ctx);
	uint8_t buf[16];

	assert_int_equal(session_new(&s, ctx), 0);
	pump_join(&p, ssl, s);
	if (sni != NULL)
		wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, sni, strlen(sni));
	if (ticket != NULL)
		assert_int_equal(wolfSSL_set_session(ssl, ticket), WOLFSSL_SUCCESS);
	end.state = pump_shake(&p);
	end.alert = p.alert;
	snprintf(end.why, sizeof(end.why), "%s", session_reason(s));
	if (end.state == SESSION_OPEN) {
		snprintf(end.name, sizeof(end.name), "%.63s", session_identity(s)->name);
		end.resumed = session_resumed(s);
		assert_int_equal(end.resumed, wolfSSL_session_reused(ssl) != 0);
		/* Nothing is given to whom the agent has not admitted. */
		assert_false(session_backlog(s));
		if (admitted)
			session_ticket_give(s);
		while (pump_carry(&p))
			;
		assert_true(wolfSSL_read(ssl, buf, sizeof(buf)) <= 0);
		assert_int_equal(session_write(s, (const uint8_t *)"answer", 6), 6);
		pump_carry(&p);
		assert_int_equal(wolfSSL_read(ssl, buf, sizeof(buf)), 6);
		if (admitted && ctx->tickets != NULL) {
			end.kept = wolfSSL_get1_session(ssl);
			assert_non_null(end.kept);
		}
	}
	wolfSSL_free(ssl);
	session_free(s);
	return end;
}

static struct end first(void)
{
	struct end e = connect_as(&server, NULL, NULL, true);

	assert_int_equal(e.state, SESSION_OPEN);
	assert_false(e.resumed);
	return e;
}

static void a_ticket_resumes_once_and_brings_the_next(void **state)
{
	struct end e = first(), again, third;

	(void)state;
	assert_int_equal(tickets_count(server.tickets), 1);
	again = connect_as(&server, e.kept, NULL, true);
	assert_int_equal(again.state, SESSION_OPEN);
	assert_true(again.resumed);
	assert_string_equal(again.name, "spiffe://p/cam/1");
	assert_int_equal(tickets_count(server.tickets), 1);
	third = connect_as(&server, again.kept, NULL, false);
	assert_true(third.resumed);
	assert_int_equal(tickets_count(server.tickets), 0);
	wolfSSL_SESSION_free(again.kept);
	/* used once already: a whole handshake */
	again = connect_as(&server, e.kept, NULL, false);
	assert_int_equal(again.state, SESSION_OPEN);
	assert_false(again.resumed);
	wolfSSL_SESSION_free(e.kept);
}

/* Whoever comes back very often shakes hands in full now and then, and is never turned away. */
static void a_long_chain_begins_anew(void **state)
{
	unsigned whole = 0;
	struct end e = first();

	(void)state;
	for (unsigned i = 0; i < 2 * TICKET_LINKS_MAX + 20; i++) {
		struct end next = connect_as(&server, e.kept, NULL, true);

		if (next.state != SESSION_OPEN)
			fail_msg("connection %u: %s", i, next.why);
		whole += !next.resumed;
		wolfSSL_SESSION_free(e.kept);
		e = next;
	}
	wolfSSL_SESSION_free(e.kept);
	assert_int_equal(whole, 2);
}

static void who_was_not_admitted_gets_none(void **state)
{
	struct end e = connect_as(&server, NULL, NULL, false);

	(void)state;
	assert_int_equal(e.state, SESSION_OPEN);
	assert_int_equal(tickets_count(server.tickets), 0);
}

static void off_is_off(void **state)
{
	struct end e;

	(void)state;
	listener.resumption_s = 0;
	server_load();
	assert_null(server.tickets);
	e = connect_as(&server, NULL, NULL, true);
	assert_int_equal(e.state, SESSION_OPEN);
}

/* Each begins with a good ticket of the default certificate. */
static void in_doubt_it_is_a_whole_handshake(void **state)
{
	enum doubt {
		NOTHING,
		OTHER_NAME,
		OTHER_CERTIFICATE,
		OTHER_WORKER,
		RELOADED,
		FORGOTTEN,
		EVICTED,
	};
	static const struct {
		const char *name;
		enum doubt doubt;
		bool resumed;
	} rows[] = {
		{"none", NOTHING, true},
		{"for another server name", OTHER_NAME, false},
		{"for another of our certificates", OTHER_CERTIFICATE, false},
		{"at another worker or listener", OTHER_WORKER, false},
		{"after a reload", RELOADED, false},
		{"when its time is over", FORGOTTEN, false},
		{"when many came after it", EVICTED, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_ctx other = {0}, *at = &server;
		struct err err = {""};
		const char *sni = NULL;
		struct end e, got;

		server_load();
		e = first();
		switch (rows[i].doubt) {
		case NOTHING:
			break;
		case OTHER_NAME:
			sni = "unknown.example"; /* the same certificate */
			break;
		case OTHER_CERTIFICATE:
			sni = "two.example";
			break;
		case OTHER_WORKER:
			assert_int_equal(tls_ctx_init(&other, &listener, &err), 0);
			at = &other;
			break;
		case RELOADED:
			assert_int_equal(tls_ctx_reload(&server, &listener, NULL, &err), 0);
			break;
		case FORGOTTEN:
			tickets_expire(server.tickets, clock_boot_ms() + 599000);
			assert_int_equal(tickets_count(server.tickets), 1);
			tickets_expire(server.tickets, clock_boot_ms() + 600001);
			assert_int_equal(tickets_count(server.tickets), 0);
			break;
		case EVICTED:
			for (int k = 0; k < 8; k++) {
				struct end more = first();

				wolfSSL_SESSION_free(more.kept);
			}
			assert_int_equal(tickets_count(server.tickets), 8);
			break;
		}
		got = connect_as(at, e.kept, sni, false);
		if (got.state != SESSION_OPEN || got.resumed != rows[i].resumed)
			fail_msg("%s: state %d, resumed %d, %s", rows[i].name, got.state,
				 got.resumed, got.why);
		wolfSSL_SESSION_free(e.kept);
		tls_ctx_fini(&other);
	}
}

/* The CA of the device is not trusted any more, or its certificate is listed: neither ticket nor certificate. */
static void a_ticket_outlives_no_trust(void **state)
{
	struct err err = {""};
	struct end e = first(), got;

	(void)state;
	strcpy(listener.ca, path("other.pem"));
	listener.crl[0] = '\0';
	assert_int_equal(tls_ctx_reload(&server, &listener, NULL, &err), 0);
	got = connect_as(&server, e.kept, NULL, false);
	assert_int_equal(got.state, SESSION_FAILED);
	assert_string_equal(got.why, "unknown CA");
	wolfSSL_SESSION_free(e.kept);

	each_setup(NULL);
	e = first();
	assert_int_equal(pki_sh(&pki, "cp index.txt index.keep; openssl ca -config ca.cnf -keyfile "
				      "ca.key -cert ca.pem -revoke dev.pem && openssl ca -config "
				      "ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out ca.crl"),
			 0);
	assert_int_equal(tls_ctx_reload(&server, &listener, NULL, &err), 0);
	got = connect_as(&server, e.kept, NULL, false);
	assert_int_equal(got.state, SESSION_FAILED);
	assert_string_equal(got.why, "certificate revoked (CRL)");
	assert_int_equal(got.alert, SESSION_ALERT_CERTIFICATE_REVOKED);
	wolfSSL_SESSION_free(e.kept);
	assert_int_equal(pki_sh(&pki, "mv index.keep index.txt; openssl ca -config ca.cnf -gencrl "
				      "-keyfile ca.key -cert ca.pem -out ca.crl"),
			 0);
}

/* The lists in force are asked, not those of the time when the ticket was given. */
static void the_lists_in_force_are_asked(void **state)
{
	struct revoked *keep = NULL, *empty = NULL;
	struct end e = first(), got;
	struct err err = {""};

	(void)state;
	/* a context that trusts nobody, with the same tickets: no reload does this, and still it must not open */
	keep = server.revoked;
	assert_int_equal(revoked_new(&empty, true), 0);
	assert_int_equal(revoked_seal(empty, &err), 0);
	server.revoked = empty;
	got = connect_as(&server, e.kept, NULL, false);
	assert_int_equal(got.state, SESSION_FAILED);
	server.revoked = keep;
	revoked_drop(empty);
	/* it was not used: a whole handshake was tried */
	got = connect_as(&server, e.kept, NULL, false);
	assert_true(got.resumed);
	wolfSSL_SESSION_free(e.kept);
}

/* A ticket by a ticket ends when the first would have. */
static void the_next_ticket_is_no_younger(void **state)
{
	struct end e = first(), again;
	uint64_t begun_ms = clock_boot_ms();

	(void)state;
	while (clock_boot_ms() < begun_ms + 5)
		;
	again = connect_as(&server, e.kept, NULL, true);
	assert_true(again.resumed);
	assert_int_equal(tickets_count(server.tickets), 1);
	tickets_expire(server.tickets, begun_ms + listener.resumption_s * 1000ull);
	assert_int_equal(tickets_count(server.tickets), 0);
	wolfSSL_SESSION_free(e.kept);
	wolfSSL_SESSION_free(again.kept);
}

/* A hello of TLS 1.2 with a ticket of so many bytes. @return bytes */
static size_t hello_make(uint8_t *out, size_t ticket_bytes)
{
	static const uint8_t suite[] = {0, 2, 0xc0, 0x2b, 1, 0}; /* and no compression */
	static const uint8_t exts[] = {0, 10, 0, 4, 0, 2, 0, 23, /* groups: P-256 */
				       0, 13, 0, 4, 0, 2, 4, 3}; /* ecdsa_secp256r1_sha256 */
	size_t e = sizeof(exts) + 4 + ticket_bytes, n = 2 + 32 + 1 + sizeof(suite) + 2 + e;
	const uint8_t head[] = {22, 3, 1, (n + 4) >> 8, n + 4, 1, 0, n >> 8, n, 3, 3};
	uint8_t *at = out;

	memcpy(at, head, sizeof(head));
	at += sizeof(head);
	memset(at, 5, 32); /* random */
	at[32] = 0; /* no session */
	at += 33;
	memcpy(at, suite, sizeof(suite));
	at += sizeof(suite);
	*at++ = e >> 8;
	*at++ = e;
	memcpy(at, exts, sizeof(exts));
	at += sizeof(exts);
	*at++ = 0;
	*at++ = 35; /* session_ticket */
	*at++ = ticket_bytes >> 8;
	*at++ = ticket_bytes;
	memset(at, 7, ticket_bytes);
	return at + ticket_bytes - out;
}

/* Of a server that stood here before, in the extension of TLS 1.2, however long: it is answered as if there were none. */
static void a_ticket_of_somebody_else_is_passed_over(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 238, 239, 600, 1500};
	uint8_t hello[2000];

	(void)state;
	listener.tls12 = true;
	server_load();
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t n = hello_make(hello, sizes[i]);
		struct session *s = NULL;
		const uint8_t *answer;

		assert_int_equal(session_new(&s, &server), 0);
		session_feed(s, hello, n);
		if (session_step(s) != SESSION_HANDSHAKE)
			fail_msg("%zu bytes: %s", sizes[i], session_reason(s));
		answer = session_output(s, &n);
		assert_true(n > 5 && answer[0] == 22 && answer[5] == 2); /* ServerHello */
		session_free(s);
	}
	/* and it changes nothing for the next one */
	{
		struct end e = first(), again = connect_as(&server, e.kept, NULL, false);

		assert_true(again.resumed);
		wolfSSL_SESSION_free(e.kept);
	}
}

static void none_outlives_the_certificate(void **state)
{
	struct end e;

	(void)state;
	listener.resumption_s = 6 * 24 * 3600; /* it is good for 5 days */
	server_load();
	e = connect_as(&server, NULL, NULL, true);
	assert_int_equal(e.state, SESSION_OPEN);
	assert_int_equal(tickets_count(server.tickets), 0);
	wolfSSL_SESSION_free(e.kept);
}

static void none_but_the_very_ticket_opens(void **state)
{
	static struct peer peer;
	struct tickets *t = NULL;
	struct ticket *k = ticket_new(&peer, "a.example", &pki, 5000), *got;
	uint8_t name[TICKET_NAME_BYTES], iv[TICKET_IV_BYTES], mac[TICKET_MAC_BYTES];
	uint8_t text[100], plain[100], sealed[100];
	const struct {
		uint8_t *at;
		size_t bytes;
	} parts[] = {
		{name, sizeof(name)}, {iv, sizeof(iv)}, {mac, sizeof(mac)}, {text, sizeof(text)}};

	(void)state;
	assert_int_equal(tickets_new(&t, 2, 5), 0);
	memset(plain, 7, sizeof(plain));
	memcpy(text, plain, sizeof(text));
	assert_int_equal(tickets_seal(t, k, name, iv, mac, text, sizeof(text)), 0);
	assert_memory_not_equal(text, plain, sizeof(text));
	memcpy(sealed, text, sizeof(text));
	assert_null(tickets_open(t, name, iv, mac, text, sizeof(text), &pki, "b.example", 1));
	assert_null(tickets_open(t, name, iv, mac, text, sizeof(text), &peer, "a.example", 1));
	for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
		for (size_t i = 0; i < parts[k].bytes; i++) {
			parts[k].at[i] ^= 1;
			if (tickets_open(t, name, iv, mac, text, sizeof(text), &pki, "a.example",
					 1) != NULL)
				fail_msg("opened with byte %zu of part %zu changed", i, k);
			memcpy(text, sealed, sizeof(text)); /* opened in place */
			if (parts[k].at != text)
				parts[k].at[i] ^= 1;
		}
	}
	got = tickets_open(t, name, iv, mac, text, sizeof(text), &pki, "a.example", 4999);
	assert_ptr_equal(got, k);
	assert_memory_equal(text, plain, sizeof(text));
	assert_true(tickets_spend(t, got));
	assert_false(tickets_spend(t, got)); /* two connections at a time */
	ticket_drop(got);
	memcpy(text, sealed, sizeof(text));
	assert_null(tickets_open(t, name, iv, mac, text, sizeof(text), &pki, "a.example", 1));
	assert_int_equal(tickets_count(t), 0);
	assert_int_equal(tickets_seal(t, k, name, iv, mac, text, sizeof(text)), 0);
	assert_null(tickets_open(t, name, iv, mac, text, sizeof(text), &pki, "a.example", 5000));
	assert_int_equal(tickets_count(t), 0);
	ticket_drop(k);
	tickets_drop(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_ticket_resumes_once_and_brings_the_next, each_setup),
		cmocka_unit_test_setup(a_long_chain_begins_anew, each_setup),
		cmocka_unit_test_setup(who_was_not_admitted_gets_none, each_setup),
		cmocka_unit_test_setup(off_is_off, each_setup),
		cmocka_unit_test_setup(in_doubt_it_is_a_whole_handshake, each_setup),
		cmocka_unit_test_setup(a_ticket_outlives_no_trust, each_setup),
		cmocka_unit_test_setup(the_lists_in_force_are_asked, each_setup),
		cmocka_unit_test_setup(a_ticket_of_somebody_else_is_passed_over, each_setup),
		cmocka_unit_test_setup(none_outlives_the_certificate, each_setup),
		cmocka_unit_test_setup(the_next_ticket_is_no_younger, each_setup),
		cmocka_unit_test_setup(none_but_the_very_ticket_opens, each_setup),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
