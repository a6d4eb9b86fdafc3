/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a listener shows of itself: certificates by SNI, ALPN, OCSP stapling, kinds of keys; and what is refused at load.
 * Whole handshakes in memory against a client of the TLS library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <time.h>

#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/hello.h"
#include "tls-proxy/limit.h"

static struct pki pki;

struct client {
	WOLFSSL_CTX *ctx;
	struct pump p;
	char subject[64]; /* CN of the server's certificate */
};

static void path(char *out, const char *file)
{
	snprintf(out, GW_PATH_BYTES, "%s/%s", pki.dir, file);
}

static void own(struct gw_listener *l, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "%s.pem", name);
	path(l->certificate, file);
	snprintf(file, sizeof(file), "%s.key", name);
	path(l->key, file);
	path(l->ca, "ca.pem");
}

/* A certificate of the test CA: `key` are arguments of openssl genpkey */
static int cert(const char *name, const char *key)
{
	return pki_sh(&pki,
		      "set -e; openssl genpkey %s -out %s.key; openssl req -new -key %s.key -out "
		      "x.csr -subj /CN=%s; "
		      "printf "
		      "'extendedKeyUsage=serverAuth,clientAuth\\nsubjectAltName=URI:spiffe://p/cam/"
		      "1\\n' > x.ext; "
		      "openssl x509 -req -in x.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "
		      "5 -extfile x.ext -out "
		      "%s.pem",
		      key, name, name, name, name);
}

#define P256 "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
#define P384 "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"

static int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 || cert("dev", P256) != 0 ||
	       cert("one", P256) != 0 || cert("two", P256) != 0 || cert("p384", P384) != 0 ||
	       cert("ed25519", "-algorithm ED25519") != 0 ||
	       cert("rsa2048", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048") != 0 ||
	       cert("rsa1024", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024") != 0;
}

static int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static int on_server(int good, WOLFSSL_X509_STORE_CTX *store)
{
	struct client *c = store->userCtx;

	(void)good;
	snprintf(c->subject, sizeof(c->subject), "%s", store->domain != NULL ? store->domain : "");
	return 1;
}

static void client_open(struct client *c, const struct tls_ctx *server, const char *name,
			const char *alpn, int tls12)
{
	char file[GW_PATH_BYTES];
	struct session *s = NULL;

	memset(c, 0, sizeof(*c));
	assert_int_equal(session_new(&s, server), 0);
	c->ctx = wolfSSL_CTX_new(tls12 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());
	path(file, "ca.pem");
	assert_int_equal(wolfSSL_CTX_load_verify_locations(c->ctx, file, NULL), WOLFSSL_SUCCESS);
	path(file, "dev.pem");
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(c->ctx, file), WOLFSSL_SUCCESS);
	path(file, "dev.key");
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(c->ctx, file, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	pump_join(&c->p, wolfSSL_new(c->ctx), s);
	wolfSSL_set_verify(c->p.ssl, WOLFSSL_VERIFY_PEER, on_server);
	wolfSSL_SetCertCbCtx(c->p.ssl, c);
	if (name != NULL)
		assert_int_equal(
			wolfSSL_UseSNI(c->p.ssl, WOLFSSL_SNI_HOST_NAME, name, strlen(name)),
			WOLFSSL_SUCCESS);
	if (alpn != NULL)
		assert_int_equal(wolfSSL_UseALPN(c->p.ssl, (char *)alpn, strlen(alpn),
						 WOLFSSL_ALPN_CONTINUE_ON_MISMATCH),
				 WOLFSSL_SUCCESS);
}

static void client_close(struct client *c)
{
	wolfSSL_free(c->p.ssl);
	wolfSSL_CTX_free(c->ctx);
	session_free(c->p.peer);
}

static void the_name_chooses_the_certificate(void **state)
{
	static const struct {
		const char *name, *sni;
		bool required;
		const char *want; /* CN; NULL: refused */
	} rows[] = {
		{"no name", NULL, false, "gw"},
		{"an unknown one", "nowhere.example", false, "gw"},
		{"the first", "mqtt.example", false, "one"},
		{"in capitals", "MQTT.Example", false, "one"},
		{"under the star", "x.lab", false, "two"},
		{"named, and under the star", "own.lab", false, "one"},
		{"two labels are no star's", "x.y.lab", false, "gw"},
		{"nor is none", "lab", false, "gw"},
		{"required and there", "mqtt.example", true, "one"},
		{"required, no name", NULL, true, NULL},
		{"required, an unknown one", "nowhere.example", true, NULL},
	};
	static struct gw_listener l;
	struct err err = {""};

	(void)state;
	memset(&l, 0, sizeof(l));
	own(&l, "gw");
	l.n_certificates = 2;
	l.certificates[0].n_names = 2;
	strcpy(l.certificates[0].names[0], "mqtt.example");
	strcpy(l.certificates[0].names[1], "own.lab");
	path(l.certificates[0].certificate, "one.pem");
	path(l.certificates[0].key, "one.key");
	l.certificates[1].n_names = 1;
	strcpy(l.certificates[1].names[0], "*.lab");
	path(l.certificates[1].certificate, "two.pem");
	path(l.certificates[1].key, "two.key");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_ctx server = {0};
		static struct client c;
		enum session_state got;

		l.sni_required = rows[i].required;
		if (tls_ctx_init(&server, &l, &err) < 0)
			fail_msg("%s", err.msg);
		client_open(&c, &server, rows[i].sni, NULL, 0);
		got = pump_shake(&c.p);
		if (rows[i].want == NULL
			    ? got != SESSION_FAILED || c.p.alert != SESSION_ALERT_UNRECOGNIZED_NAME
			    : got != SESSION_OPEN || strcmp(c.subject, rows[i].want) != 0)
			fail_msg("%s: state %d, \"%s\", alert %d, %s", rows[i].name, got, c.subject,
				 c.p.alert, session_reason(c.p.peer));
		client_close(&c);
		tls_ctx_fini(&server);
	}
}

static void alpn_takes_what_both_have(void **state)
{
	static const struct {
		const char *name, *ours, *theirs, *want; /* NULL: refused */
	} rows[] = {
		{"not asked", "", "mqtt", ""},
		{"none offered", "mqtt", NULL, ""},
		{"one", "mqtt", "mqtt", "mqtt"},
		{"of several", "mqtt,http/1.1", "h2,http/1.1", "http/1.1"},
		{"none in common", "mqtt", "h2", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static struct gw_listener l;
		struct tls_ctx server = {0};
		struct err err = {""};
		static struct client c;
		enum session_state got;
		char alpn[64] = "";

		memset(&l, 0, sizeof(l));
		own(&l, "gw");
		strcpy(l.alpn, rows[i].ours);
		assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
		client_open(&c, &server, NULL, rows[i].theirs, 0);
		got = pump_shake(&c.p);
		if (got == SESSION_OPEN)
			session_alpn(c.p.peer, alpn, sizeof(alpn));
		if (rows[i].want == NULL ? got != SESSION_FAILED ||
						   c.p.alert != 120 /* no_application_protocol */
					 : got != SESSION_OPEN || strcmp(alpn, rows[i].want) != 0)
			fail_msg("%s: state %d, \"%s\", alert %d", rows[i].name, got, alpn,
				 c.p.alert);
		client_close(&c);
		tls_ctx_fini(&server);
	}
}

static void each_kind_of_key_signs(void **state)
{
	static const struct {
		const char *cert;
		const char *why; /* at load; NULL: taken */
	} rows[] = {
		{"gw", NULL},
		{"p384", NULL},
		{"ed25519", NULL},
		{"rsa2048", NULL},
		{"rsa1024", "key too small"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int tls12 = 0; tls12 < 2; tls12++) {
			static struct gw_listener l;
			struct tls_ctx server = {0};
			struct err err = {""};
			static struct client c;
			int ret;

			memset(&l, 0, sizeof(l));
			own(&l, rows[i].cert);
			l.tls12 = true;
			ret = tls_ctx_init(&server, &l, &err);
			if (rows[i].why != NULL ? ret != -22 || strstr(err.msg, rows[i].why) == NULL
						: ret != 0)
				fail_msg("%s: %d, %s", rows[i].cert, ret, err.msg);
			if (ret < 0)
				continue;
			client_open(&c, &server, NULL, NULL, tls12);
			if (pump_shake(&c.p) != SESSION_OPEN ||
			    strcmp(c.subject, rows[i].cert) != 0)
				fail_msg("%s, TLS 1.%d: %s", rows[i].cert, 3 - tls12,
					 session_reason(c.p.peer));
			assert_string_equal(session_version(c.p.peer),
					    tls12 ? "TLSv1.2" : "TLSv1.3");
			client_close(&c);
			tls_ctx_fini(&server);
		}
	}
}

static void a_key_must_be_the_certificates(void **state)
{
	static struct gw_listener l;
	struct tls_ctx server = {0};
	struct err err = {""};

	(void)state;
	memset(&l, 0, sizeof(l));
	own(&l, "one");
	path(l.key, "two.key");
	assert_int_equal(tls_ctx_init(&server, &l, &err), -22);
	assert_non_null(strstr(err.msg, "not the key of"));
	assert_int_equal(server.n_certs, 0);
}

/* A response of the CA about `name`, for so many minutes; in gw.ocsp */
static void response_make(const char *name, const char *status, int minutes)
{
	assert_int_equal(
		pki_sh(&pki,
		       "set -e; s=$(openssl x509 -in %s.pem -noout -serial | cut -d= -f2); printf "
		       "'%s\\t391231000000Z\\t%s\\t%%s\\tunknown\\t/CN=%s\\n' $s > ocsp.txt; "
		       "openssl ocsp -issuer "
		       "ca.pem -cert %s.pem -no_nonce -reqout q; openssl ocsp -index ocsp.txt -CA "
		       "ca.pem -rsigner "
		       "ca.pem -rkey ca.key -resp_no_certs -reqin q -respout gw.ocsp -nmin %d",
		       name, status, status[0] == 'R' ? "260101000000Z" : "", name, name, minutes),
		0);
}

static void only_a_good_response_is_stapled(void **state)
{
	static const struct {
		const char *name, *about, *status;
		const char *spoil; /* a command, or "" */
		const char *why; /* at load; NULL: taken */
	} rows[] = {
		{"good", "gw", "V", "true", NULL},
		{"about another", "one", "V", "true", "not about this certificate"},
		{"revoked", "gw", "R", "true", "says that the certificate is revoked"},
		{"cut off", "gw", "V", "head -c 100 gw.ocsp > x; mv x gw.ocsp", "no OCSP response"},
		{"signature changed", "gw", "V",
		 "c=x; [ \"$(tail -c 1 gw.ocsp | tr -d '\\0')\" != x ] || c=y; "
		 "head -c -1 gw.ocsp > x; printf $c >> x; mv x gw.ocsp",
		 ""},
		{"signed by somebody else", "gw", "V",
		 "openssl ocsp -index ocsp.txt -CA ca.pem -rsigner other.pem -rkey other.key "
		 "-reqin q -respout gw.ocsp "
		 "-nmin 60",
		 ""},
		{"no file", "gw", "V", "rm gw.ocsp", "No such file"},
	};
	static struct gw_listener l;

	(void)state;
	memset(&l, 0, sizeof(l));
	own(&l, "gw");
	path(l.ocsp, "gw.ocsp");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_ctx server = {0};
		struct err err = {""};
		static struct client c;
		int ret;

		response_make(rows[i].about, rows[i].status, 60);
		assert_int_equal(pki_sh(&pki, "%s", rows[i].spoil), 0);
		ret = tls_ctx_init(&server, &l, &err);
		if (rows[i].why != NULL ? ret == 0 || strstr(err.msg, rows[i].why) == NULL
					: ret != 0)
			fail_msg("%s: %d, %s", rows[i].name, ret, err.msg);
		if (ret < 0)
			continue;
		assert_null(tls_ctx_stale(&server, time(NULL)));
		assert_non_null(tls_ctx_stale(&server, time(NULL) + 4000));
		/* the client insists on it: without one, its handshake fails */
		client_open(&c, &server, NULL, NULL, 0);
		assert_int_equal(wolfSSL_CTX_EnableOCSPStapling(c.ctx), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_CTX_EnableOCSPMustStaple(c.ctx), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_UseOCSPStapling(c.p.ssl, WOLFSSL_CSR_OCSP, 0),
				 WOLFSSL_SUCCESS);
		if (pump_shake(&c.p) != SESSION_OPEN)
			fail_msg("%s: %s, alert %d", rows[i].name, session_reason(c.p.peer),
				 c.p.alert);
		client_close(&c);
		/* out of date meanwhile: the same client is left without one */
		server.certs[0]->staple.next_update_s = 1;
		client_open(&c, &server, NULL, NULL, 0);
		assert_int_equal(wolfSSL_CTX_EnableOCSPStapling(c.ctx), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_CTX_EnableOCSPMustStaple(c.ctx), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_UseOCSPStapling(c.p.ssl, WOLFSSL_CSR_OCSP, 0),
				 WOLFSSL_SUCCESS);
		assert_int_not_equal(pump_shake(&c.p), SESSION_OPEN);
		client_close(&c);
		tls_ctx_fini(&server);
	}
}

static void sources_are_limited(void **state)
{
	struct gw_listener cfg = {.handshakes_each = 2, .handshakes_each_s = 4, .handshakes_s = 10};
	struct ip_addr a, b, c;
	static struct limit m;

	(void)state;
	memset(&m, 0, sizeof(m));
	assert_int_equal(ip_addr_parse(&a, "10.0.0.1"), 0);
	assert_int_equal(ip_addr_parse(&b, "fd07::1"), 0);
	assert_int_equal(ip_addr_parse(&c, "fd07::2"), 0); /* b's /64 */
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_TAKEN);
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_TAKEN);
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_SOURCE_OPEN);
	assert_int_equal(limit_take(&m, &cfg, &b, 1000), LIMIT_TAKEN);
	assert_int_equal(limit_take(&m, &cfg, &c, 1000), LIMIT_TAKEN);
	assert_int_equal(limit_take(&m, &cfg, &c, 1000), LIMIT_SOURCE_OPEN);
	limit_give(&m, &a);
	limit_give(&m, &a);
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_TAKEN);
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_TAKEN);
	limit_give(&m, &a);
	assert_int_equal(limit_take(&m, &cfg, &a, 1000), LIMIT_SOURCE_RATE);
	assert_int_equal(limit_take(&m, &cfg, &a, 1249), LIMIT_SOURCE_RATE);
	assert_int_equal(limit_take(&m, &cfg, &a, 1251), LIMIT_TAKEN);
	/* however many sources: the listener's rate holds, and nobody's count is lost while he has one open */
	cfg.handshakes_each_s = 0;
	for (uint32_t i = 0; i < 100000; i++) {
		struct ip_addr s = a;

		memcpy(s.b + 12, &i, sizeof(i));
		if (limit_take(&m, &cfg, &s, 1251) == LIMIT_TAKEN)
			assert_true(i < 10);
	}
	assert_int_equal(limit_take(&m, &cfg, &c, 9000), LIMIT_SOURCE_OPEN);
}

static void a_slow_peer_costs_little(void **state)
{
	static const uint8_t head[] = {22, 3, 1, 0x40,
				       0}; /* a record of 16 kB, which never comes */
	static struct gw_listener l;
	struct tls_ctx server = {0};
	char name[HELLO_NAME_BYTES];
	size_t ticket_bytes;
	struct err err = {""};
	struct session *s;

	(void)state;
	memset(&l, 0, sizeof(l));
	own(&l, "gw");
	assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
	assert_int_equal(session_new(&s, &server), 0);
	session_feed(s, head, sizeof(head));
	assert_int_equal(session_step(s), SESSION_HANDSHAKE);
	assert_null(session_library(s));
	assert_true(session_room(s) < 2048);
	/* what is no hello gets an alert at once */
	session_free(s);
	assert_int_equal(session_new(&s, &server), 0);
	session_feed(s, (const uint8_t *)"GET / HTTP/1.0\r\n\r\n", 18);
	assert_int_equal(session_step(s), SESSION_FAILED);
	session_free(s);
	assert_int_equal(hello_read(head, sizeof(head), name, &ticket_bytes), HELLO_MORE);
	assert_int_equal(hello_read((const uint8_t *)"\x15\x03\x01", 3, name, &ticket_bytes),
			 HELLO_STRANGE);
	tls_ctx_fini(&server);
}

static void all_sessions_have_the_cheap_generator(void **state)
{
	static struct gw_listener l;
	struct tls_ctx server = {0};
	struct err err = {""};
	WOLFSSL *a, *b;

	(void)state;
	memset(&l, 0, sizeof(l));
	own(&l, "gw");
	assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
	a = wolfSSL_new(server.certs[0]->wolf);
	b = wolfSSL_new(server.certs[0]->wolf);
	assert_ptr_equal(wolfSSL_GetRNG(a), wolfSSL_GetRNG(b));
	assert_int_equal(wolfSSL_GetRNG(a)->drbgType, WC_DRBG_SHA256);
	wolfSSL_free(a);
	wolfSSL_free(b);
	tls_ctx_fini(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_chooses_the_certificate),
		cmocka_unit_test(alpn_takes_what_both_have),
		cmocka_unit_test(each_kind_of_key_signs),
		cmocka_unit_test(a_key_must_be_the_certificates),
		cmocka_unit_test(only_a_good_response_is_stapled),
		cmocka_unit_test(sources_are_limited),
		cmocka_unit_test(a_slow_peer_costs_little),
		cmocka_unit_test(all_sessions_have_the_cheap_generator),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
