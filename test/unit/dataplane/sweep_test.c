/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Orders to sweep: carried out together, each answered, each closed flow told of once. The test is the worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/sweep.h"
#include "test/unit/dataplane/world.h"

#define DEV 0

struct heard {
	struct msg_sweep m[SWEEP_ORDERS_MAX];
	uint32_t n;
};

static int hear(void *arg, struct msg_sweep *m)
{
	struct heard *h = arg;

	h->m[h->n++] = *m;
	return 0;
}

/* What worker_round() does with what it is handed. @return steps */
static unsigned work(struct world *x)
{
	unsigned steps = 0;
	void *c;

	worker_pin(x->w, x->now_us);
	while (rte_ring_sc_dequeue(x->w->commands, &c) == 0) {
		do
			steps++;
		while (!worker_command_step(x->w, c));
		sem_post(&((struct command *)c)->done);
	}
	return steps;
}

/* A flow of the camera (slot 5) and one of the PLC (slot 6). */
static void open_flows(struct world *x)
{
	static const struct frame_spec cam = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1,
					      .proto = 17, .sport = 9,	.dport = 5000};
	static const struct frame_spec plc = {"10.2.0.10",  "10.1.0.11",   .smac = 0x20,
					      .dmac = 2,    .proto = 6,	   .sport = 9,
					      .dport = 502, .tcp_flags = 2};

	assert_int_equal(world_one(x, DEV, &cam).edge, EDGE_FORWARD);
	assert_int_equal(world_one(x, 1, &plc).edge, EDGE_FORWARD);
	assert_int_equal(flow_count(x->w->flows), 2);
}

static struct msg_sweep order(uint64_t seq, uint32_t slot)
{
	struct msg_sweep m = {.n_slots = slot != 0, .slot = {slot}};

	MSG_INIT(&m, MSG_SWEEP, seq);
	return m;
}

static void orders_are_carried_out_together(void **state)
{
	static const struct {
		const char *name;
		uint32_t slot[2]; /* of two orders; 0: all */
		bool revoked[2]; /* camera, PLC */
		uint32_t closed;
	} rows[] = {
		{"1 both of one", {5, 5}, {true, true}, 1},
		{"2 one each", {5, 6}, {true, true}, 2},
		{"3 one is current", {5, 6}, {false, true}, 1},
		{"4 others than the stale one", {5, 7}, {false, true}, 0},
		{"5 one wants all", {7, 0}, {true, true}, 2},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static struct sweeper s;
		struct heard h = {.n = 0};
		struct world x;

		memset(&s, 0, sizeof(s));
		assert_int_equal(world_new(&x, NULL), 0);
		open_flows(&x);
		for (uint32_t k = 0; k < 2; k++) {
			struct msg_sweep m = order(k + 1, rows[i].slot[k]);

			if (rows[i].revoked[k])
				world_trust(&x, 5 + k, 0, STANDING_REVOKED, 0);
			assert_int_equal(sweep_order(&s, &m), 0);
		}
		assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
		assert_true(sweep_busy(&s));
		/* not before the worker is done */
		assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
		assert_int_equal(h.n, 0);
		assert_true(work(&x) > 0);
		assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
		assert_int_equal(h.n, 2);
		assert_int_equal(h.m[0].h.seq, 1);
		assert_int_equal(h.m[1].h.seq, 2);
		if (h.m[0].closed != rows[i].closed || h.m[1].closed != 0)
			fail_msg("%s: closed %u, %u", rows[i].name, h.m[0].closed, h.m[1].closed);
		assert_int_equal(flow_count(x.w->flows), 2 - rows[i].closed);
		assert_false(sweep_busy(&s));
		world_free(&x);
	}
}

/* A worker with packets gives it few cycles at a time, and gets through all the same. */
static void a_busy_worker_sweeps_in_steps(void **state)
{
	static struct sweeper s;
	struct msg_sweep m = order(1, 0);
	struct heard h = {.n = 0};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (uint16_t port = 1; port <= 100; port++) {
		struct frame_spec f = {"10.1.0.10", "10.2.0.10",   .smac = 0x10, .dmac = 1,
				       .proto = 17, .sport = port, .dport = 5000};

		assert_int_equal(world_one(&x, DEV, &f).edge, EDGE_FORWARD);
	}
	world_trust(&x, 5, 0, STANDING_REVOKED, 0);
	x.w->sweep_cycles = 1;
	assert_int_equal(sweep_order(&s, &m), 0);
	assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
	assert_true(work(&x) >= 12);
	assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
	assert_int_equal(h.n, 1);
	assert_int_equal(h.m[0].closed, 100);
	assert_int_equal(flow_count(x.w->flows), 0);
	world_free(&x);
}

static void orders_have_bounds(void **state)
{
	static struct sweeper s;
	struct msg_sweep m = order(1, 5), wide = {.n_slots = MSG_SWEEP_SLOTS + 1};

	(void)state;
	assert_int_equal(sweep_order(&s, &wide), -EPROTO);
	for (unsigned i = 0; i < SWEEP_ORDERS_MAX; i++)
		assert_int_equal(sweep_order(&s, &m), 0);
	assert_int_equal(sweep_order(&s, &m), -EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(orders_are_carried_out_together),
		cmocka_unit_test(a_busy_worker_sweeps_in_steps),
		cmocka_unit_test(orders_have_bounds),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
