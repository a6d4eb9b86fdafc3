/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/base/clock.h"
#include "config/base/clock_near.h"

#define MS 1000000ull /* ns */

/* A machine of 2 GHz, asked every 100 us. */
struct machine {
	struct clock_near near;
	uint64_t ticks, ns, told_ns, looks, most_off_ns;
	uint64_t ticks_us; /* a microsecond */
};

static void ask(struct machine *m)
{
	uint64_t told, off;

	if (!clock_near_at(&m->near, m->ticks, &told)) {
		told = clock_near_look(&m->near, m->ticks, m->ns);
		m->looks++;
	}
	assert_true(told >= m->told_ns); /* never backwards */
	m->told_ns = told;
	off = told > m->ns ? told - m->ns : m->ns - told;
	if (off > m->most_off_ns)
		m->most_off_ns = off;
}

static void run_ms(struct machine *m, uint64_t ms)
{
	for (uint64_t i = 0; i < 10 * ms; i++) {
		m->ns += MS / 10;
		m->ticks += 100 * m->ticks_us;
		ask(m);
	}
}

static void after_what_happens_it_is_near_again(void **state)
{
	static const struct {
		const char *what;
		int64_t ticks; /* forward, or back */
		uint64_t ns;
		uint64_t ticks_us; /* from then on */
	} rows[] = {
		{"nothing", 0, 0, 2000},
		{"suspended, the counter stood still", 0, 3600000 * MS, 2000},
		{"suspended, the counter went on", 7200000 * 2000000ll, 7200000 * MS, 2000},
		{"suspended for a second", 0, 1000 * MS, 2000},
		{"the counter starts again", -20000000, 5 * MS, 2000},
		{"a counter that is far ahead", INT64_MAX, 0, 2000},
		{"a counter that is a little ahead", 1000000, 0, 2000},
		{"a faster host", 0, 0, 3900},
		{"a slower host", 0, 0, 1100},
		{"a much slower one", 0, 0, 250},
		{"a much faster one", 0, 0, 15000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct machine m = {.ticks = 1ull << 33, .ns = 5 * MS, .ticks_us = 2000};

		run_ms(&m, 100);
		assert_true(m.most_off_ns < 1000);
		m.ticks += rows[i].ticks;
		m.ns += rows[i].ns;
		m.ticks_us = rows[i].ticks_us;
		run_ms(&m, 2); /* the last look may be trusted for so long */
		m.most_off_ns = 0;
		run_ms(&m, 200);
		if (m.most_off_ns >= CLOCK_NEAR_OFF_US * 1000ull)
			fail_msg("%s: off by %lu ns", rows[i].what, m.most_off_ns);
		m.most_off_ns = 0;
		run_ms(&m, 200);
		if (m.most_off_ns >= 1000)
			fail_msg("%s: off by %lu ns at last", rows[i].what, m.most_off_ns);
	}
}

static void between_looks_it_goes_by_ticks(void **state)
{
	struct machine m = {.ns = MS, .ticks_us = 2000};

	(void)state;
	run_ms(&m, 5);
	assert_int_equal(m.looks, 50); /* it knows no rate yet */
	run_ms(&m, 25);
	m.looks = 0;
	run_ms(&m, 100);
	assert_in_range(m.looks, 90, 110);
	assert_true(m.most_off_ns < 1000);
}

static void a_rate_is_measured_twice(void **state)
{
	struct machine m = {.ns = MS, .ticks_us = 2000};

	(void)state;
	run_ms(&m, 5);
	m.ns += 50 * MS; /* suspended in the middle of the first */
	run_ms(&m, 12);
	m.looks = 0;
	run_ms(&m, 5);
	assert_int_equal(m.looks, 50);
	run_ms(&m, 40);
	m.looks = 0;
	run_ms(&m, 5);
	assert_in_range(m.looks, 4, 6);
}

/* A look between two readings of the real clock may be before or after both by what it is off. */
static void the_real_one_is_near(void **state)
{
	uint64_t end_us = clock_boot_us() + 100000, last_us = 0, far = 0, n = 0;

	(void)state;
	for (uint64_t before = 0; before < end_us; n++) {
		uint64_t near_us, after;

		before = clock_boot_us();
		near_us = clock_near_us();
		after = clock_boot_us();
		assert_true(near_us >= last_us);
		last_us = near_us;
		assert_true(near_us + CLOCK_NEAR_OFF_US >= before);
		assert_true(near_us <= after + CLOCK_NEAR_OFF_US);
		far += near_us + 5 < before || near_us > after + 5;
	}
	assert_true(far < n / 100); /* on a machine that others share */
	assert_in_range(clock_boot_ms() + 20 - clock_near_ms(), 10, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_what_happens_it_is_near_again),
		cmocka_unit_test(between_looks_it_goes_by_ticks),
		cmocka_unit_test(a_rate_is_measured_twice),
		cmocka_unit_test(the_real_one_is_near),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
