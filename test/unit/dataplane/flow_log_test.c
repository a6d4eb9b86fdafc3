/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The flow log under floods: starts are never pushed out by refusals, and what is left out is said, to the last one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_ring_elem.h>

#include "dataplane/admission.h"
#include "dataplane/flow_log.h"
#include "test/unit/dataplane/world.h"

struct heard {
	unsigned starts, refusals; /* one by one */
	unsigned more_starts, more[DROP_REASON_COUNT];
};

static void hear(struct world *x, struct heard *h)
{
	struct msg_flow_log m;

	while (rte_ring_sc_dequeue_elem(x->w->log, &m, sizeof(m)) == 0) {
		assert_int_equal(m.h.type, MSG_FLOW_LOG);
		if (m.more > 0 && m.reason == DROP_NONE)
			h->more_starts += m.more;
		else if (m.more > 0)
			h->more[m.reason] += m.more;
		else if (m.reason == DROP_NONE)
			h->starts++;
		else
			h->refusals++;
	}
}

static void a_second_later(struct world *x)
{
	x->now_us += 1000000;
	worker_pin(x->w, x->now_us);
	worker_age(x->w); /* what a worker does without packets */
}

static void refusals_do_not_push_out_starts(void **state)
{
	struct frame_spec s = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17};
	struct heard h = {0};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	x.now_us -= x.now_us % 1000000; /* the second begins */
	x.now_us += 1000000;
	for (unsigned i = 0; i < 200; i++) {
		s.sport = 1000 + i;
		s.dport = i % 20 == 0 ? 5000 : 4000; /* one in twenty is allowed, and logged */
		world_one(&x, 0, &s);
	}
	hear(&x, &h);
	assert_int_equal(h.starts, 10);
	assert_int_equal(h.refusals, FLOW_LOG_REFUSALS_PER_S);
	a_second_later(&x);
	hear(&x, &h);
	assert_int_equal(h.more[DROP_DENIED], 190 - FLOW_LOG_REFUSALS_PER_S);
	assert_int_equal(h.more_starts, 0);
	a_second_later(&x); /* said once */
	hear(&x, &h);
	assert_int_equal(h.more[DROP_DENIED], 190 - FLOW_LOG_REFUSALS_PER_S);
	world_free(&x);
}

/* Nobody reads: the ring fills, and not one note is lost without being counted. */
static void every_note_is_said_or_counted(void **state)
{
	struct admission a = {.log = true};
	struct flow_key key = {0};
	struct heard h = {0};
	struct world x;
	unsigned more = 0;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned s = 0; s < 8; s++) {
		a_second_later(&x);
		for (unsigned i = 0; i < 1500; i++) {
			flow_log_note(x.w, &key, &a, DROP_NONE);
			flow_log_note(x.w, &key, &a, DROP_REVOKED);
			flow_log_limited(x.w, &key, &a, DROP_FLOW_CAP);
		}
	}
	hear(&x, &h);
	assert_in_range(h.starts, 3000, 4096);
	a_second_later(&x);
	hear(&x, &h);
	assert_int_equal(h.starts + h.more_starts, 8 * 1500);
	for (unsigned i = 1; i < DROP_REASON_COUNT; i++)
		more += h.more[i];
	assert_int_equal(h.refusals + more, 2 * 8 * 1500);
	world_free(&x);
}

static void what_is_not_to_be_logged_is_not_counted(void **state)
{
	struct admission a = {.log = false};
	struct flow_key key = {0};
	struct heard h = {0};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned i = 0; i < 5000; i++)
		flow_log_note(x.w, &key, &a, DROP_NONE);
	a_second_later(&x);
	hear(&x, &h);
	assert_int_equal(h.starts + h.more_starts, 0);
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals_do_not_push_out_starts),
		cmocka_unit_test(every_note_is_said_or_counted),
		cmocka_unit_test(what_is_not_to_be_logged_is_not_counted),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
