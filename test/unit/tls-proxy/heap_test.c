/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When a worker gives free pages back, which stops it for a moment. */
#include <malloc.h>

#include "test/unit/tls-proxy/conn_world.h"

static unsigned trims;

/* In the place of the C library's. */
int malloc_trim(size_t pad)
{
	trims += pad == 0;
	return 1;
}

static void pages_go_back_after_a_wave_and_not_under_load(void **state)
{
	static const struct {
		const char *name;
		unsigned came, went; /* sessions */
		unsigned work; /* frames and events meanwhile */
		unsigned later; /* the same in the next window, without sessions */
		unsigned trims; /* after both */
	} rows[] = {
		{"nothing happens", 0, 0, 0, 0, 0},
		{"a few sessions", 500, 400, 0, 0, 0},
		{"a wave that goes on, and is over", 5000, 0, 10000, 10, 1},
		{"a wave of ends", 0, 5000, 10000, 10, 1},
		{"it is over, but those who are here have work", 5000, 0, 10000, 5000, 0},
	};
	struct world *w = *state;
	struct worker *k = &w->w;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		k->heap = (struct heap_watch){.sessions = k->next_id + k->freed,
					      .trimmed = k->next_id + k->freed,
					      .work = k->work};
		trims = 0;
		k->next_id += rows[i].came;
		k->freed += rows[i].went;
		k->work += rows[i].work;
		for (unsigned window = 0; window < 2; window++) {
			k->heap.since_ms = k->tick_ms = 0;
			assert_int_equal(worker_turn(k, 0), 0);
			k->work += window == 0 ? rows[i].later : 0;
		}
		if (trims != rows[i].trims)
			fail_msg("%s: %u times", rows[i].name, trims);
		/* once is enough */
		k->heap.since_ms = k->tick_ms = 0;
		k->work = k->heap.work;
		assert_int_equal(worker_turn(k, 0), 0);
		if (rows[i].later < 1000)
			assert_int_equal(trims, rows[i].trims);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pages_go_back_after_a_wave_and_not_under_load,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
