/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/gateway.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/proxyv2_decode.h"
#include "tls-proxy/proxyv2.h"

#define ALL 0x3ffu

static struct proxyv2 sample(struct identity *id, const char *src, const char *dst)
{
	static const struct proxyv2_front front = {"ecdsa-with-SHA256", "EC256"};
	static const uint8_t cert[700] = {0x30, 0x82};
	struct proxyv2 p = {.tlvs = PROXY_SSL | PROXY_IDENTITY | PROXY_SEGMENT | PROXY_STANDING |
				    PROXY_CERT_SHA256,
			    .group = "X25519MLKEM768",
			    .front = &front,
			    .cert = cert,
			    .cert_bytes = sizeof(cert),
			    .authority = "gw.plant-7",
			    .alpn = "mqtt",
			    .unique_id = "0123456789abcdef-1",
			    .sport = 0x1234,
			    .dport = 8883,
			    .id = id,
			    .tls_version = "TLSv1.3",
			    .cipher = "TLS13-AES128-GCM-SHA256",
			    .segment = "cameras",
			    .standing = "full"};

	strcpy(id->name, "spiffe://p/cam/1");
	strcpy(id->common_name, "cam1");
	memset(id->cert_sha256, 0xab, sizeof(id->cert_sha256));
	ip_addr_parse(&p.src, src);
	ip_addr_parse(&p.dst, dst);
	return p;
}

static void the_header_follows_the_specification(void **state)
{
	/* section 2.2: signature, version and command, family, length; then addresses and ports */
	static const uint8_t v4[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a,
				     0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11};
	static const uint8_t v4_body[] = {10, 7, 0, 11, 10, 7, 0, 1, 0x12, 0x34, 0x22, 0xb3, 0x20};
	uint8_t out[PROXYV2_BYTES_MAX];
	struct identity id = {0};
	struct proxyv2 p = sample(&id, "10.7.0.11", "10.7.0.1");
	int n = proxyv2_encode(out, sizeof(out), &p);

	(void)state;
	assert_true(n > 28);
	assert_memory_equal(out, v4, sizeof(v4));
	assert_int_equal(out[14] << 8 | out[15], n - 16);
	assert_memory_equal(out + 16, v4_body, sizeof(v4_body));
	p = sample(&id, "fd07::11", "fd07::1");
	n = proxyv2_encode(out, sizeof(out), &p);
	assert_int_equal(out[13], 0x21);
	assert_int_equal(out[16], 0xfd);
	assert_int_equal(out[14] << 8 | out[15], n - 16);
}

static void too_little_room_is_an_error_at_every_size(void **state)
{
	uint8_t out[PROXYV2_BYTES_MAX];
	struct identity id = {0};
	struct proxyv2 p = sample(&id, "10.7.0.11", "10.7.0.1");
	int n = proxyv2_encode(out, sizeof(out), &p);

	(void)state;
	for (int room = 0; room < n; room++)
		assert_int_equal(proxyv2_encode(out, room, &p), -90);
	assert_int_equal(proxyv2_encode(out, n, &p), n);
}

static void the_longest_identity_fits(void **state)
{
	uint8_t out[PROXYV2_BYTES_MAX];
	struct identity id = {0};
	struct proxyv2 p = sample(&id, "fd07::11", "fd07::1");

	(void)state;
	memset(id.name, 'x', sizeof(id.name) - 1);
	memset(id.common_name, 'y', sizeof(id.common_name) - 1);
	p.segment = "a-segment-with-the-longest-name";
	assert_true(proxyv2_encode(out, sizeof(out), &p) > 400);
}

static void expect(const char *name, const struct pp2_tlv *t, unsigned n, uint8_t type,
		   const void *want, size_t bytes)
{
	const struct pp2_tlv *got = pp2_find(t, n, type);

	if (want == NULL ? got != NULL
			 : got == NULL || got->n != bytes || memcmp(got->value, want, bytes) != 0)
		fail_msg("%s: TLV 0x%02x", name, type);
}

/* Each key of proxy_tlvs brings its TLVs, and nobody else's. */
static void each_tlv_is_told_when_it_is_asked_for(void **state)
{
	static const struct {
		const char *name;
		uint32_t tlvs;
	} rows[] = {{"none", 0},
		    {"ssl", PROXY_SSL},
		    {"certificate", PROXY_CERTIFICATE},
		    {"ssl and certificate", PROXY_SSL | PROXY_CERTIFICATE},
		    {"authority", PROXY_AUTHORITY},
		    {"alpn", PROXY_ALPN},
		    {"unique_id", PROXY_UNIQUE_ID},
		    {"crc32c", PROXY_CRC32C},
		    {"identity", PROXY_IDENTITY},
		    {"segment", PROXY_SEGMENT},
		    {"standing", PROXY_STANDING},
		    {"certificate_sha256", PROXY_CERT_SHA256},
		    {"all", ALL}};
	static const char *const peers[][2] = {{"10.7.0.11", "10.7.0.1"}, {"fd07::11", "fd07::1"}};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		const char *name = rows[i / 2].name;
		uint32_t tlvs = rows[i / 2].tlvs;
		uint8_t out[4096];
		struct identity id = {0};
		struct proxyv2 p = sample(&id, peers[i % 2][0], peers[i % 2][1]);
		struct pp2 h;
		int n;
#define TEXT(flag, text) (tlvs & (flag) ? (text) : NULL), strlen(text)

		p.tlvs = tlvs;
		p.datagrams = i % 3 == 0;
		n = proxyv2_encode(out, sizeof(out), &p);
		if (n < 0 || !pp2_decode(&h, out, n) || h.bytes != (size_t)n)
			fail_msg("%s: cannot be read", name);
		assert_int_equal(h.command, 1);
		assert_int_equal(h.family, (i % 2 ? 0x20 : 0x10) + (p.datagrams ? 2 : 1));
		assert_memory_equal(h.src, p.src.b + 16 - h.addr_bytes, h.addr_bytes);
		assert_memory_equal(h.dst, p.dst.b + 16 - h.addr_bytes, h.addr_bytes);
		assert_int_equal(h.sport, 0x1234);
		assert_int_equal(h.dport, 8883);
		expect(name, h.tlv, h.n_tlvs, 0x01, TEXT(PROXY_ALPN, "mqtt"));
		expect(name, h.tlv, h.n_tlvs, 0x02, TEXT(PROXY_AUTHORITY, "gw.plant-7"));
		assert_int_equal(pp2_find(h.tlv, h.n_tlvs, 0x03) != NULL,
				 (tlvs & PROXY_CRC32C) != 0);
		expect(name, h.tlv, h.n_tlvs, 0x05, TEXT(PROXY_UNIQUE_ID, "0123456789abcdef-1"));
		expect(name, h.tlv, h.n_tlvs, 0xe0, TEXT(PROXY_IDENTITY, "spiffe://p/cam/1"));
		expect(name, h.tlv, h.n_tlvs, 0xe1, TEXT(PROXY_SEGMENT, "cameras"));
		expect(name, h.tlv, h.n_tlvs, 0xe2, TEXT(PROXY_STANDING, "full"));
		expect(name, h.tlv, h.n_tlvs, 0xe3,
		       tlvs & PROXY_CERT_SHA256 ? id.cert_sha256 : NULL, 32);
		assert_int_equal(pp2_find(h.tlv, h.n_tlvs, 0x20) != NULL,
				 (tlvs & (PROXY_SSL | PROXY_CERTIFICATE)) != 0);
		expect(name, h.ssl, h.n_ssl, 0x21, TEXT(PROXY_SSL, "TLSv1.3"));
		expect(name, h.ssl, h.n_ssl, 0x22, TEXT(PROXY_SSL, "cam1"));
		expect(name, h.ssl, h.n_ssl, 0x23, TEXT(PROXY_SSL, "TLS13-AES128-GCM-SHA256"));
		expect(name, h.ssl, h.n_ssl, 0x24, TEXT(PROXY_SSL, "ecdsa-with-SHA256"));
		expect(name, h.ssl, h.n_ssl, 0x25, TEXT(PROXY_SSL, "EC256"));
		expect(name, h.ssl, h.n_ssl, 0x26, TEXT(PROXY_SSL, "X25519MLKEM768"));
		expect(name, h.ssl, h.n_ssl, 0x28, tlvs & PROXY_CERTIFICATE ? p.cert : NULL,
		       p.cert_bytes);
		if (tlvs & (PROXY_SSL | PROXY_CERTIFICATE)) {
			assert_int_equal(h.ssl_client, 7);
			assert_int_equal(h.ssl_verify, 0);
		}
	}
}

/* The reader would see a wrong sum: known value of RFC 3720 appendix B.4, and one bit changed anywhere. */
static void the_checksum_covers_every_byte(void **state)
{
	uint8_t zeroes[32] = {0}, out[4096];
	struct identity id = {0};
	struct proxyv2 p = sample(&id, "10.7.0.11", "10.7.0.1");
	struct pp2 h;
	int n;

	(void)state;
	assert_int_equal(pp2_crc32c(zeroes, sizeof(zeroes), zeroes), 0x8a9136aa);
	p.tlvs = PROXY_CRC32C | PROXY_IDENTITY;
	n = proxyv2_encode(out, sizeof(out), &p);
	assert_true(n > 0 && pp2_decode(&h, out, n));
	for (int i = 16; i < n; i++) {
		out[i] ^= 4;
		assert_false(pp2_decode(&h, out, n) && pp2_find(h.tlv, h.n_tlvs, 0x03) != NULL);
		out[i] ^= 4;
	}
}

static void what_is_too_long_is_an_error(void **state)
{
	static uint8_t out[100000], cert[70000];
	struct identity id = {0};
	struct proxyv2 p = sample(&id, "10.7.0.11", "10.7.0.1");

	(void)state;
	p.tlvs = PROXY_CERTIFICATE;
	p.cert = cert;
	p.cert_bytes = 65000;
	assert_true(proxyv2_encode(out, sizeof(out), &p) > 65000);
	p.cert_bytes = 65535; /* the TLV may, the TLVs around it may not */
	assert_int_equal(proxyv2_encode(out, sizeof(out), &p), -90);
	p.cert_bytes = 65536;
	assert_int_equal(proxyv2_encode(out, sizeof(out), &p), -90);
}

static void a_check_says_that_it_is_one(void **state)
{
	uint8_t out[PROXYV2_LOCAL_BYTES];
	struct pp2 h;

	(void)state;
	proxyv2_local(out);
	assert_true(pp2_decode(&h, out, sizeof(out)));
	assert_int_equal(h.command, 0);
	assert_int_equal(h.bytes, sizeof(out));
}

static void the_front_is_read_from_its_certificate(void **state)
{
	static const struct {
		const char *key, *digest, *sig, *alg;
	} rows[] = {{"ec -pkeyopt ec_paramgen_curve:P-256", "sha256", "ecdsa-with-SHA256", "EC256"},
		    {"ec -pkeyopt ec_paramgen_curve:P-384", "sha384", "ecdsa-with-SHA384", "EC384"},
		    {"rsa:2048", "sha256", "RSA-SHA256", "RSA2048"},
		    {"rsa:3072", "sha512", "RSA-SHA512", "RSA3072"}};
	struct proxyv2_front f;
	struct pki pki;
	unsigned char pem[8192];

	(void)state;
	strcpy(pki.dir, "/tmp/proxyv2-test-XXXXXX");
	assert_non_null(mkdtemp(pki.dir));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(pki_sh(&pki,
					"openssl req -x509 -newkey %s -%s -nodes -keyout k -out c "
					"-subj /CN=c",
					rows[i].key, rows[i].digest),
				 0);
		proxyv2_front_read(&f, (char *)pem, pki_read(&pki, "c", pem, sizeof(pem)));
		assert_string_equal(f.sig_alg, rows[i].sig);
		assert_string_equal(f.key_alg, rows[i].alg);
	}
	proxyv2_front_read(&f, "nothing", 7);
	assert_string_equal(f.sig_alg, "");
	assert_string_equal(f.key_alg, "");
	pki_drop(&pki);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_header_follows_the_specification),
		cmocka_unit_test(too_little_room_is_an_error_at_every_size),
		cmocka_unit_test(the_longest_identity_fits),
		cmocka_unit_test(each_tlv_is_told_when_it_is_asked_for),
		cmocka_unit_test(the_checksum_covers_every_byte),
		cmocka_unit_test(what_is_too_long_is_an_error),
		cmocka_unit_test(a_check_says_that_it_is_one),
		cmocka_unit_test(the_front_is_read_from_its_certificate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
