/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The checksum of every length at every place, beside a sum of bytes one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "tls-proxy/stack/arch/cc.h"

#define BYTES 300
#define GUARD 0xa5

/* RFC 1071, section 1: 16-bit words in network order, an odd byte filled up with a zero. */
static uint16_t sum_slowly(const uint8_t *at, size_t bytes)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += i % 2 == 0 ? at[i] : at[i] << 8;
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static void each_length_has_its_checksum(void **state)
{
	static const struct {
		const char *name;
		uint8_t first, step;
	} rows[] = {{"of all kinds", 7, 37}, {"all ones", 0xff, 0}, {"zeroes", 0, 0}};

	(void)state;
	assert_int_equal(stack_checksum(NULL, 0), 0);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		uint8_t from[BYTES + 8], to[BYTES + 16];

		for (size_t i = 0; i < sizeof(from); i++)
			from[i] = (uint8_t)(rows[r].first + i * rows[r].step);
		for (size_t at = 0; at < 8; at++) {
			for (int bytes = 0; bytes <= BYTES; bytes++) {
				uint16_t sum = sum_slowly(from + at, bytes);

				memset(to, GUARD, sizeof(to));
				if (stack_checksum(from + at, bytes) != sum)
					fail_msg("%s: %d bytes at %zu", rows[r].name, bytes, at);
				if (stack_checksum_copy(to + 8 - at, from + at, bytes) != sum)
					fail_msg("%s: copy of %d at %zu", rows[r].name, bytes, at);
				assert_memory_equal(to + 8 - at, from + at, bytes);
				assert_int_equal(to[8 - at + bytes], GUARD);
				assert_int_equal(to[7 - at], GUARD);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_length_has_its_checksum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
