/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tls-proxy/cpus.h"

static void each_text_names_its_cores(void **state)
{
	static const struct {
		const char *text;
		uint64_t cores; /* of the first 64 */
	} rows[] = {
		{"1", 1 << 1},
		{"0", 1 << 0},
		{"2-3", 3 << 2},
		{"1,3", 1 << 1 | 1 << 3},
		{"1-2,5,7-8", 6 | 1 << 5 | 3 << 7},
		{"3-2", 0},
		{"", 0},
		{"1,", 0},
		{",1", 0},
		{"1-", 0},
		{"-1", 0},
		{"1;2", 0},
		{"1 ", 0},
		{"0@(1,2)", 0},
		{"99999999999999999999", 0},
		{"1-99999", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cpu_set_t set;

		cpus_read(rows[i].text, &set);
		for (int c = 0; c < CPU_SETSIZE; c++) {
			if (!CPU_ISSET(c, &set) != !(c < 64 && (rows[i].cores >> c & 1)))
				fail_msg("\"%s\": core %d", rows[i].text, c);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_text_names_its_cores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
