/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tls-proxy/proxyv2.h"

static struct proxyv2 sample(struct identity *id, const char *src, const char *dst)
{
	struct proxyv2 p = {.sport = 0x1234,
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_header_follows_the_specification),
		cmocka_unit_test(too_little_room_is_an_error_at_every_size),
		cmocka_unit_test(the_longest_identity_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
