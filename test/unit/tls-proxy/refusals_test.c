/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A flood of refusals costs a few lines and messages, and none of them is lost from the count. */
#include "test/unit/tls-proxy/conn_world.h"

#define FLOOD 1000
#define EACH 32 /* a second, one by one */

static void refuse(struct world *w, const char *reason)
{
	struct conn *c = conn_start(&w->w.listeners[0], &w->cfg.listeners[0].addr, 1);

	assert_non_null(c);
	refusal_tell(c, reason);
	conn_end(c);
	conns_reap(&w->w);
}

/* The second in which what follows is told has just begun. */
static void second_begin(struct world *w)
{
	uint64_t s = clock_boot_ms() / 1000;

	UNTIL(w, clock_boot_ms() / 1000 > s);
}

static void a_few_are_told_one_by_one(void **state)
{
	struct world *w = *state;

	second_begin(w);
	for (unsigned i = 0; i < EACH; i++)
		refuse(w, "unknown CA");
	UNTIL(w, w->refused == EACH);
	assert_int_equal(w->refusals_told, EACH);
	assert_string_equal(w->refused_why, "unknown CA");
}

static void a_flood_is_told_in_sums(void **state)
{
	struct world *w = *state;
	char reason[32];

	second_begin(w);
	for (unsigned i = 0; i < FLOOD; i++) {
		snprintf(reason, sizeof(reason), "reason %u", i % 100);
		refuse(w, reason);
	}
	UNTIL(w, w->refused == FLOOD); /* the tick tells the sums */
	assert_true(w->refusals_told >= EACH + REFUSALS_SUMS);
	assert_true(w->refusals_told <=
		    2 * (EACH + REFUSALS_SUMS)); /* another second may have begun */
	assert_string_equal(w->refused_why, "other");
	refuse(w, "the next");
	UNTIL(w, w->refused == FLOOD + 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_few_are_told_one_by_one),
		T(a_flood_is_told_in_sums),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
