/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ML-DSA. Our own keys. Devices with such certificates: chains, names, revocation, and how large they may be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test/unit/tls-proxy/mldsa.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"

static struct pki pki;
static WC_RNG rng;
static const int kinds[] = {ML_DSA_44_TYPE, ML_DSA_65_TYPE, ML_DSA_87_TYPE};
#define KINDS 3
#define URI "spiffe://p/cam/1"

/* A CA of each kind, a device of each kind under it, another one's CA, and one CA below another. */
static struct mldsa_party ca[KINDS], device[KINDS][KINDS], stranger_ca, stranger, classic_ca,
	classic, middle[4], below;

static void path(char *out, const char *file)
{
	snprintf(out, GW_PATH_BYTES, "%s/%s", pki.dir, file);
}

static int group_setup(void **state)
{
	char file[32];

	(void)state;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
	    pki_cert(&pki, "dev", "extendedKeyUsage=clientAuth") != 0 || wc_InitRng(&rng) != 0)
		return -1;
	for (unsigned i = 0; i < KINDS; i++) {
		snprintf(file, sizeof(file), "ca%u.pem", i);
		mldsa_make(&ca[i], kinds[i], file, NULL, NULL, &rng);
		mldsa_write(pki.dir, file, ca[i].cert, ca[i].cert_bytes, CERT_TYPE);
		for (unsigned k = 0; k < KINDS; k++)
			mldsa_make(&device[i][k], kinds[k], "device", URI, &ca[i], &rng);
	}
	mldsa_make(&stranger_ca, ML_DSA_65_TYPE, "ca1.pem", NULL, NULL, &rng); /* its very name */
	mldsa_make(&stranger, ML_DSA_65_TYPE, "device", URI, &stranger_ca, &rng);
	mldsa_make(&classic_ca, ECC_TYPE, "classic.pem", NULL, NULL, &rng);
	mldsa_write(pki.dir, "classic.pem", classic_ca.cert, classic_ca.cert_bytes, CERT_TYPE);
	mldsa_make(&classic, ML_DSA_65_TYPE, "device", URI, &classic_ca, &rng);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(file, sizeof(file), "middle %u", i);
		mldsa_make(&middle[i], ML_DSA_87_TYPE, file, NULL, i == 0 ? &ca[2] : &middle[i - 1],
			   &rng);
	}
	mldsa_make(&below, ML_DSA_87_TYPE, "device", URI, &middle[1], &rng);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < KINDS; i++) {
		mldsa_free(&ca[i]);
		for (unsigned k = 0; k < KINDS; k++)
			mldsa_free(&device[i][k]);
	}
	for (unsigned i = 0; i < 4; i++)
		mldsa_free(&middle[i]);
	mldsa_free(&stranger_ca);
	mldsa_free(&stranger);
	mldsa_free(&classic_ca);
	mldsa_free(&classic);
	mldsa_free(&below);
	wc_FreeRng(&rng);
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static void server_load(struct tls_ctx *server, const char *ca_file, const char *crl)
{
	static struct gw_listener l;
	struct err err = {""};

	memset(&l, 0, sizeof(l));
	path(l.certificate, "gw.pem");
	path(l.key, "gw.key");
	path(l.ca, ca_file);
	if (crl != NULL)
		path(l.crl, crl);
	if (tls_ctx_init(server, &l, &err) < 0)
		fail_msg("%s", err.msg);
}

struct end {
	enum session_state state;
	int alert;
	char why[128];
};

/* A connection of this device with these above it, from the nearest upwards. */
static struct end knock(const struct tls_ctx *server, struct mldsa_party *d,
			struct mldsa_party *const *above, unsigned n)
{
	static uint8_t chain[8 * MLDSA_CERT_BYTES], key[MLDSA_CERT_BYTES];
	static struct pump p;
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	int bytes = d->cert_bytes, key_bytes = wc_MlDsaKey_KeyToDer(&d->key, key, sizeof(key));
	struct session *s = NULL;
	struct end end = {0};
	WOLFSSL *ssl;

	assert_true(key_bytes > 0);
	memcpy(chain, d->cert, bytes);
	for (unsigned i = 0; i < n; i++) {
		memcpy(chain + bytes, above[i]->cert, above[i]->cert_bytes);
		bytes += above[i]->cert_bytes;
	}
	wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_buffer_format(ctx, chain, bytes,
									 WOLFSSL_FILETYPE_ASN1),
			 WOLFSSL_SUCCESS);
	assert_int_equal(
		wolfSSL_CTX_use_PrivateKey_buffer(ctx, key, key_bytes, WOLFSSL_FILETYPE_ASN1),
		WOLFSSL_SUCCESS);
	ssl = wolfSSL_new(ctx);
	assert_int_equal(session_new(&s, server), 0);
	pump_join(&p, ssl, s);
	end.state = pump_shake(&p);
	end.alert = p.alert;
	snprintf(end.why, sizeof(end.why), "%s", session_reason(s));
	if (end.state == SESSION_OPEN) {
		uint8_t buf[16];

		assert_string_equal(session_identity(s)->name, URI);
		assert_int_equal(wolfSSL_write(ssl, "on", 2), 2);
		assert_int_equal(session_read(s, buf, sizeof(buf)), 2);
	}
	wolfSSL_free(ssl);
	wolfSSL_CTX_free(ctx);
	session_free(s);
	return end;
}

static void each_kind_of_key_under_each_kind_of_ca(void **state)
{
	(void)state;
	for (unsigned i = 0; i < KINDS; i++) {
		struct tls_ctx server = {0};
		char file[32];

		snprintf(file, sizeof(file), "ca%u.pem", i);
		server_load(&server, file, NULL);
		for (unsigned k = 0; k < KINDS; k++) {
			struct end e = knock(&server, &device[i][k], NULL, 0);

			if (e.state != SESSION_OPEN)
				fail_msg("CA %u, device %u: %s", i, k, e.why);
		}
		tls_ctx_fini(&server);
	}
}

static void who_is_trusted(void **state)
{
	struct mldsa_party *const two[] = {&middle[1], &middle[0]};
	const struct {
		const char *name, *ca;
		struct mldsa_party *device;
		struct mldsa_party *const *above;
		unsigned n;
		const char *why; /* NULL: gets in */
	} rows[] = {
		{"a CA of another kind", "ca0.pem", &device[1][1], NULL, 0, "unknown CA"},
		{"a CA of that very name", "ca1.pem", &stranger, NULL, 0, ""},
		{"an ECDSA CA", "classic.pem", &classic, NULL, 0, NULL},
		{"two CAs between", "ca2.pem", &below, two, 2, NULL},
		{"one of them left out", "ca2.pem", &below, two, 1, "unknown CA"},
		{"in the wrong order", "ca2.pem", &below,
		 (struct mldsa_party *const[]){&middle[0], &middle[1]}, 2, "unknown CA"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_ctx server = {0};
		struct end e;

		server_load(&server, rows[i].ca, NULL);
		e = knock(&server, rows[i].device, rows[i].above, rows[i].n);
		if ((e.state == SESSION_OPEN) != (rows[i].why == NULL) ||
		    (rows[i].why != NULL && strstr(e.why, rows[i].why) == NULL))
			fail_msg("%s: state %d, \"%s\"", rows[i].name, e.state, e.why);
		if (rows[i].why != NULL && e.alert == 0)
			fail_msg("%s: no alert", rows[i].name);
		tls_ctx_fini(&server);
	}
}

/* Far more than any device needs: refused, with everything given back. */
static void a_chain_has_its_bounds(void **state)
{
	struct mldsa_party *all[8];
	struct tls_ctx server = {0};
	struct end e;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		all[i] = &middle[i % 4];
	server_load(&server, "ca2.pem", NULL);
	e = knock(&server, &below, all, 8);
	assert_int_equal(e.state, SESSION_FAILED);
	assert_string_not_equal(e.why, "");
	tls_ctx_fini(&server);
}

static void a_listed_serial_is_refused(void **state)
{
	struct mldsa_party *const one[] = {&device[1][1]};
	struct tls_ctx server = {0};
	struct err err = {""};
	static struct gw_listener l;
	struct end e;

	(void)state;
	mldsa_list(pki.dir, "ca1.crl", &ca[1], one, 1, &rng);
	server_load(&server, "ca1.pem", "ca1.crl");
	assert_int_equal(revoked_count(server.revoked), 1);
	e = knock(&server, &device[1][1], NULL, 0);
	assert_int_equal(e.state, SESSION_FAILED);
	assert_string_equal(e.why, "certificate revoked (CRL)");
	assert_int_equal(e.alert, SESSION_ALERT_CERTIFICATE_REVOKED);
	e = knock(&server, &device[1][2], NULL, 0);
	assert_int_equal(e.state, SESSION_OPEN);
	tls_ctx_fini(&server);
	/* a list that another CA of that name has signed is none */
	mldsa_list(pki.dir, "forged.crl", &stranger_ca, one, 0, &rng);
	memset(&l, 0, sizeof(l));
	path(l.certificate, "gw.pem");
	path(l.key, "gw.key");
	path(l.ca, "ca1.pem");
	path(l.crl, "forged.crl");
	assert_true(tls_ctx_init(&server, &l, &err) < 0);
	assert_non_null(strstr(err.msg, "forged.crl"));
}

/* ---- our own ---- */

static void own_write(const char *name, struct mldsa_party *p, struct mldsa_party *key_of)
{
	static uint8_t key[MLDSA_CERT_BYTES];
	int n = wc_MlDsaKey_KeyToDer(&key_of->key, key, sizeof(key));
	char file[32];

	assert_true(n > 0);
	snprintf(file, sizeof(file), "%s.pem", name);
	mldsa_write(pki.dir, file, p->cert, p->cert_bytes, CERT_TYPE);
	snprintf(file, sizeof(file), "%s.key", name);
	mldsa_write(pki.dir, file, key, n, PKCS8_PRIVATEKEY_TYPE);
}

static void own_listener(struct gw_listener *l, const char *name)
{
	char file[32];

	memset(l, 0, sizeof(*l));
	snprintf(file, sizeof(file), "%s.pem", name);
	path(l->certificate, file);
	snprintf(file, sizeof(file), "%s.key", name);
	path(l->key, file);
	path(l->ca, "ca.pem");
}

/* A client that believes the CA of the certificate alone: it checks our signature by the certificate's key. */
static void our_own_key_of_each_kind(void **state)
{
	(void)state;
	for (unsigned k = 0; k < KINDS; k++) {
		WOLFSSL_CTX *ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
		char file[GW_PATH_BYTES], key[GW_PATH_BYTES];
		static struct gw_listener l;
		struct tls_ctx server = {0};
		struct session *s = NULL;
		struct err err = {""};
		static struct pump p;

		own_write("own", &device[1][k], &device[1][k]);
		own_listener(&l, "own");
		if (tls_ctx_init(&server, &l, &err) < 0)
			fail_msg("kind %u: %s", k, err.msg);
		path(file, "ca1.pem");
		assert_int_equal(wolfSSL_CTX_load_verify_locations(ctx, file, NULL),
				 WOLFSSL_SUCCESS);
		path(file, "dev.pem");
		path(key, "dev.key");
		assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(ctx, file),
				 WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(ctx, key, WOLFSSL_FILETYPE_PEM),
				 WOLFSSL_SUCCESS);
		for (unsigned i = 0; i < 3; i++) {
			WOLFSSL *ssl = wolfSSL_new(ctx);

			assert_int_equal(session_new(&s, &server), 0);
			pump_join(&p, ssl, s);
			if (pump_shake(&p) != SESSION_OPEN)
				fail_msg("kind %u: %s; the client: %d", k, session_reason(s),
					 wolfSSL_get_error(ssl, 0));
			assert_true(wolfSSL_is_init_finished(ssl));
			wolfSSL_free(ssl);
			session_free(s);
		}
		wolfSSL_CTX_free(ctx);
		tls_ctx_fini(&server);
	}
}

static void a_key_of_another_certificate_is_refused(void **state)
{
	struct mldsa_party *const others[] = {&device[0][1], &device[1][2]};
	static struct gw_listener l;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct tls_ctx server = {0};
		struct err err = {""};

		own_write("own", &device[1][1], others[i]);
		own_listener(&l, "own");
		assert_true(tls_ctx_init(&server, &l, &err) < 0);
		if (strstr(err.msg, "not the key of") == NULL)
			fail_msg("%u: %s", i, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_of_key_under_each_kind_of_ca),
		cmocka_unit_test(who_is_trusted),
		cmocka_unit_test(a_chain_has_its_bounds),
		cmocka_unit_test(a_listed_serial_is_refused),
		cmocka_unit_test(our_own_key_of_each_kind),
		cmocka_unit_test(a_key_of_another_certificate_is_refused),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
