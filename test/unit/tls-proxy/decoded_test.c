/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The certificate that the library has in hand: what it says, and for how long it may be asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/decoded.h"
#include "tls-proxy/identity.h"

static struct pki pki;
static uint8_t der[4096];
static size_t der_bytes;

static void path(char *out, const char *file)
{
	snprintf(out, GW_PATH_BYTES, "%s/%s", pki.dir, file);
}

static int group_setup(void **state)
{
	(void)state;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
	    pki_cert(&pki, "dev",
		     "subjectAltName=URI:spiffe://p/cam/1,DNS:cam\\nextendedKeyUsage=clientAuth\\n"
		     "authorityKeyIdentifier=keyid") != 0)
		return -1;
	der_bytes = pki_read(&pki, "dev.der", der, sizeof(der));
	return der_bytes > 0 ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

static void it_lasts_as_long_as_the_librarys(void **state)
{
	static const struct {
		const char *name;
		size_t cut; /* bytes that the library does not get */
		void (*freed)(DecodedCert *cert);
		size_t at, less; /* whom is asked for */
		bool known;
	} rows[] = {
		{"its bytes", 0, NULL, 0, 0, true},
		{"fewer of them", 0, NULL, 0, 1, false},
		{"another place", 0, NULL, 1, 1, false},
		{"not read whole", 1, NULL, 0, 1, false},
		{"freed", 0, FreeDecodedCert, 0, 0, false},
		{"freed by the public call", 0, wc_FreeDecodedCert, 0, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const DecodedCert *got;
		DecodedCert cert, other;

		wc_InitDecodedCert(&cert, der, der_bytes - rows[i].cut, NULL);
		assert_int_equal(ParseCertRelative(&cert, CERT_TYPE, NO_VERIFY, NULL, NULL) == 0,
				 rows[i].cut == 0);
		/* whatever else is freed */
		wc_InitDecodedCert(&other, der, der_bytes, NULL);
		FreeDecodedCert(&other);
		if (rows[i].freed != NULL)
			rows[i].freed(&cert);
		got = decoded_get(der + rows[i].at, der_bytes - rows[i].less);
		if (got != (rows[i].known ? &cert : NULL))
			fail_msg("%s: %p", rows[i].name, (const void *)got);
		if (rows[i].freed == NULL)
			FreeDecodedCert(&cert);
		assert_null(decoded_get(der, der_bytes));
	}
}

static void it_names_the_same_device(void **state)
{
	struct identity read, had;
	struct err err = {""};
	DecodedCert cert;

	(void)state;
	memset(&read, 0, sizeof(read));
	memset(&had, 0xff, sizeof(had));
	assert_int_equal(identity_from_der(&read, der, der_bytes, &err), 0);
	wc_InitDecodedCert(&cert, der, der_bytes, NULL);
	assert_int_equal(ParseCertRelative(&cert, CERT_TYPE, NO_VERIFY, NULL, NULL), 0);
	assert_int_equal(identity_from_decoded(&had, decoded_get(der, der_bytes), &err), 0);
	FreeDecodedCert(&cert);
	assert_string_equal(had.name, "spiffe://p/cam/1");
	assert_true(had.has_issuer_key);
	assert_memory_equal(&had, &read, sizeof(had));
}

static unsigned asked, in_hand;

static int on_verify(int good, WOLFSSL_X509_STORE_CTX *store)
{
	asked++;
	in_hand += decoded_get(store->certs[0].buffer, store->certs[0].length) != NULL;
	return good;
}

/* The client is the library's, of the same process: its callback is told what ours is told. */
static void the_verify_callback_has_it(void **state)
{
	static struct pump p;
	static struct gw_listener l;
	char ca[GW_PATH_BYTES], cert[GW_PATH_BYTES], key[GW_PATH_BYTES];
	struct tls_ctx server = {0};
	struct session *s = NULL;
	struct err err = {""};
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());

	(void)state;
	path(l.certificate, "gw.pem");
	path(l.key, "gw.key");
	path(l.ca, "ca.pem");
	path(ca, "ca.pem");
	path(cert, "dev.pem");
	path(key, "dev.key");
	assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(ctx, ca, NULL), WOLFSSL_SUCCESS);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(ctx, cert), WOLFSSL_SUCCESS);
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(ctx, key, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	assert_int_equal(session_new(&s, &server), 0);
	pump_join(&p, wolfSSL_new(ctx), s);
	wolfSSL_set_verify(p.ssl, WOLFSSL_VERIFY_PEER, on_verify);
	assert_int_equal(pump_shake(&p), SESSION_OPEN);
	assert_int_equal(asked, 1);
	assert_int_equal(in_hand, 1);
	assert_string_equal(session_identity(s)->name, "spiffe://p/cam/1");
	wolfSSL_free(p.ssl);
	session_free(s);
	tls_ctx_fini(&server);
	wolfSSL_CTX_free(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_lasts_as_long_as_the_librarys),
		cmocka_unit_test(it_names_the_same_device),
		cmocka_unit_test(the_verify_callback_has_it),
	};

	return cmocka_run_group_tests_name("decoded", tests, group_setup, group_teardown);
}
