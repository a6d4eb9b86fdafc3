/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "config/base/addr.h"

static void prefixes_are_read_and_written(void **state)
{
	static const struct {
		const char *text;
		int ret;
		uint8_t len;
		const char *back;
	} rows[] = {
		{"10.0.0.0/8", 0, 104, "10.0.0.0/8"},
		{"10.0.0.1", 0, 128, "10.0.0.1/32"},
		{"0.0.0.0/0", 0, 96, "0.0.0.0/0"},
		{"::/0", 0, 0, "::/0"},
		{"fd00::/8", 0, 8, "fd00::/8"},
		{"fd00::1", 0, 128, "fd00::1/128"},
		{"10.0.0.1/8", -34, 0, NULL},
		{"10.0.0.0/33", -22, 0, NULL},
		{"10.0.0.0/", -22, 0, NULL},
		{"10.0.0.0/-1", -22, 0, NULL},
		{"10.0.0.0/ 8", -22, 0, NULL},
		{"10.0.0.0/8x", -22, 0, NULL},
		{"10.0.0/8", -22, 0, NULL},
		{"fd00::/129", -22, 0, NULL},
		{"", -22, 0, NULL},
		{"/8", -22, 0, NULL},
	};
	char text[ADDR_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ip_prefix p;
		int ret = ip_prefix_parse(&p, rows[i].text);

		if (ret != rows[i].ret ||
		    (ret == 0 &&
		     (p.len != rows[i].len || strcmp(ip_prefix_text(&p, text), rows[i].back) != 0)))
			fail_msg("\"%s\": %d", rows[i].text, ret);
	}
}

static void a_prefix_has_its_addresses_and_no_others(void **state)
{
	static const struct {
		const char *prefix, *addr;
		bool has;
	} rows[] = {
		{"10.7.0.0/20", "10.7.15.255", true},
		{"10.7.0.0/20", "10.7.16.0", false},
		{"0.0.0.0/0", "255.1.2.3", true},
		{"0.0.0.0/0", "::1", false},
		{"::/0", "10.0.0.1", true}, /* mapped: policy_compile() cuts IPv4 out of it */
		{"fd07::/65", "fd07::7fff:ffff:ffff:ffff", true},
		{"fd07::/65", "fd07::8000:0:0:0", false},
		{"10.0.0.1/32", "10.0.0.1", true},
		{"10.0.0.1/32", "10.0.0.0", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ip_prefix p;
		struct ip_addr a;

		assert_int_equal(ip_prefix_parse(&p, rows[i].prefix), 0);
		assert_int_equal(ip_addr_parse(&a, rows[i].addr), 0);
		if (ip_prefix_has(&p, &a) != rows[i].has)
			fail_msg("%s and %s", rows[i].prefix, rows[i].addr);
	}
}

static void mac_addresses_are_strict(void **state)
{
	struct mac_addr m;

	(void)state;
	assert_int_equal(mac_addr_parse(&m, "02:00:5e:10:00:01"), 0);
	assert_int_equal(m.b[2], 0x5e);
	assert_int_equal(mac_addr_parse(&m, "02:00:5e:10:00:1"), -22);
	assert_int_equal(mac_addr_parse(&m, "02:00:5e:10:00:011"), -22);
	assert_int_equal(mac_addr_parse(&m, "02-00-5e-10-00-01"), -22);
	assert_int_equal(mac_addr_parse(&m, "02:00:5e:10:00:0g"), -22);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefixes_are_read_and_written),
		cmocka_unit_test(a_prefix_has_its_addresses_and_no_others),
		cmocka_unit_test(mac_addresses_are_strict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
