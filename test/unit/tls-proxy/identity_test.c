/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/identity.h"
#include "tls-proxy/tls_ctx.h"

static struct pki pki;

static int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ? -1 : 0;
}

static int group_teardown(void **state)
{
	(void)state;

	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

#define CLIENT "extendedKeyUsage=clientAuth"

static void each_certificate_names_one_or_nobody(void **state)
{
	static const struct {
		const char *name, *extensions;
		int ret;
		uint8_t kind;
		const char *identity, *why;
	} rows[] = {
		{"uri", "subjectAltName=URI:spiffe://p/a/1\\n" CLIENT, 0, IDENTITY_URI,
		 "spiffe://p/a/1", ""},
		{"uri-wins", "subjectAltName=DNS:a.example,URI:spiffe://p/a/1", 0, IDENTITY_URI,
		 "spiffe://p/a/1", ""},
		{"dns", "subjectAltName=DNS:a.example,DNS:b.example", 0, IDENTITY_DNS, "a.example",
		 ""},
		{"only-cn", CLIENT, 0, IDENTITY_CN, "only-cn", ""},
		{"ip-only", "subjectAltName=IP:10.0.0.1", 0, IDENTITY_CN, "ip-only", ""},
		{"two-uris", "subjectAltName=URI:spiffe://p/a,URI:spiffe://p/b", -71, 0, NULL,
		 "more than one URI"},
		{"a-ca", "basicConstraints=critical,CA:TRUE\\nsubjectAltName=URI:spiffe://p/a", -13,
		 0, NULL, "CA certificate"},
		{"server", "extendedKeyUsage=serverAuth", -13, 0, NULL, "no clientAuth"},
		{"both-usages", "extendedKeyUsage=serverAuth,clientAuth", 0, IDENTITY_CN,
		 "both-usages", ""},
		{"encipher", "keyUsage=critical,keyEncipherment", -13, 0, NULL,
		 "no digitalSignature"},
		{"signs", "keyUsage=critical,digitalSignature", 0, IDENTITY_CN, "signs", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned char der[8192];
		struct identity id = {0};
		struct err err = {""};
		char file[64];
		size_t n;
		int ret;

		assert_int_equal(pki_cert(&pki, rows[i].name, rows[i].extensions), 0);
		snprintf(file, sizeof(file), "%s.der", rows[i].name);
		n = pki_read(&pki, file, der, sizeof(der));
		assert_true(n > 0);
		ret = identity_from_der(&id, der, n, &err);
		if (ret != rows[i].ret || strstr(err.msg, rows[i].why) == NULL ||
		    (ret == 0 &&
		     (id.kind != rows[i].kind || strcmp(id.name, rows[i].identity) != 0)))
			fail_msg("%s: %d, \"%s\", \"%s\"", rows[i].name, ret, id.name, err.msg);
		if (ret < 0)
			assert_int_equal(id.kind, 0); /* untouched */
		else
			assert_true(id.not_after_s - id.not_before_s == 5 * 86400 &&
				    id.serial_bytes > 0);
	}
}

/* The issuer's hash is of the DER name as others compute it. */
static void the_issuer_is_hashed_with_its_header(void **state)
{
	unsigned char der[8192], want[32];
	struct identity id;
	struct err err = {""};
	size_t n;

	(void)state;
	assert_int_equal(pki_cert(&pki, "one", CLIENT), 0);
	/* SEQUENCE { SET { SEQUENCE { 2.5.4.3, UTF8String "ca" } } } */
	assert_int_equal(pki_sh(&pki, "printf "
				      "'\\060\\015\\061\\013\\060\\011\\006\\003\\125\\004\\003\\01"
				      "4\\002ca' | openssl dgst "
				      "-sha256 -binary > want"),
			 0);
	assert_int_equal(pki_read(&pki, "want", want, 32), 32);
	n = pki_read(&pki, "one.der", der, sizeof(der));
	assert_int_equal(identity_from_der(&id, der, n, &err), 0);
	assert_memory_equal(id.issuer_sha256, want, 32);
}

static void a_cut_or_bent_certificate_is_no_certificate(void **state)
{
	unsigned char der[8192];
	struct identity id;
	struct err err;
	size_t n;

	(void)state;
	assert_int_equal(pki_cert(&pki, "cut", "subjectAltName=URI:spiffe://p/a/1"), 0);
	n = pki_read(&pki, "cut.der", der, sizeof(der));
	for (size_t i = 0; i < n; i++) {
		unsigned char *copy = malloc(i + 1); /* of exactly that size, for the sanitizer */

		memcpy(copy, der, i);
		if (identity_from_der(&id, copy, i, &err) == 0)
			fail_msg("accepted %zu of %zu bytes", i, n);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_certificate_names_one_or_nobody),
		cmocka_unit_test(the_issuer_is_hashed_with_its_header),
		cmocka_unit_test(a_cut_or_bent_certificate_is_no_certificate),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
