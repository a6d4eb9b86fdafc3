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
	assert_int_equal(flow_count(x->w->flows) - x->w->flows->n_diverted, 2);
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

/* A gateway whose devices have come and gone is full of records of their connections to listeners. */
static void whoever_has_no_flows_costs_no_walk(void **state)
{
	static const struct {
		const char *name;
		uint32_t slot; /* 0: all */
		unsigned steps_max;
		uint32_t closed;
	} rows[] = {
		{"the one with a flow", 5, 24, 1},
		{"one without", 7, 24, 0},
		{"all", 0, 24, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static struct sweeper s;
		struct msg_sweep m = order(1, rows[i].slot);
		struct heard h = {.n = 0};
		struct msg_dp_config cfg;
		struct world x;
		unsigned steps;

		memset(&s, 0, sizeof(s));
		world_config(&cfg);
		cfg.flows_max = 8192;
		assert_int_equal(world_new(&x, &cfg), 0);
		for (uint32_t n = 0; n < 4000; n++) {
			struct flow_key id = {.sport = (uint16_t)n, .dport = 8883, .proto = 6};
			struct flow *f = flow_insert(x.w->flows, &id, flow_hash(x.st->seed, &id));

			assert_non_null(f);
			flow_divert(x.w->flows, f, &(struct flow_origin){.port = DEV});
			f->end[0].slot = 5;
		}
		open_flows(&x);
		world_trust(&x, 5, 0, STANDING_REVOKED, 0);
		x.w->sweep_cycles =
			1; /* a step is a block that is looked at, or many that are not */
		assert_int_equal(sweep_order(&s, &m), 0);
		assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
		steps = work(&x);
		assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
		assert_int_equal(h.n, 1);
		if (h.m[0].closed != rows[i].closed || steps > rows[i].steps_max)
			fail_msg("%s: closed %u, in %u steps", rows[i].name, h.m[0].closed, steps);
		world_free(&x);
	}
}

/* What sweeps go by, beside what is there. */
static void marks_check(const struct world *x, bool exact, unsigned round)
{
	const struct flow_table *t = x->w->flows;

	for (uint32_t block = 0; block < flow_blocks(t); block++) {
		uint64_t want = 0;

		for (uint32_t i = block * FLOW_BLOCK; i < (block + 1) * FLOW_BLOCK && i <= t->max;
		     i++)
			want |= flow_is_swept(&t->flows[i]) ? flow_marks_of(&t->flows[i]) : 0;
		if ((want & ~t->marks[block]) != 0 || (exact && want != t->marks[block]))
			fail_msg("round %u, block %u: %llx is marked, %llx is there", round, block,
				 (unsigned long long)t->marks[block], (unsigned long long)want);
	}
}

/* Flows begin, are refused, die, are judged anew and taken away, in any order: no sweep may miss one. */
static void marks_follow_the_flows(void **state)
{
	static struct sweeper s;
	uint32_t seed = 7;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned round = 0; round < 4000; round++) {
		struct heard h = {.n = 0};
		struct msg_sweep m;
		uint32_t what, slot;

		seed = seed * 1664525 + 1013904223;
		what = seed >> 16;
		slot = 5 + (what >> 8 & 1);
		if (what % 16 == 0) {
			bool good = what >> 4 & 1;

			world_trust(&x, slot, slot == 5 ? WORLD_CAMS : WORLD_PLCS,
				    good ? STANDING_FULL : STANDING_REVOKED,
				    good ? CLOCK_NEVER_MS : 0);
		} else if (what % 16 == 1) {
			m = order(1, what >> 4 & 1 ? slot : 0);
			assert_int_equal(sweep_order(&s, &m), 0);
			assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
			work(&x);
			assert_int_equal(sweep_step(&s, x.st, hear, &h), 0);
			assert_int_equal(h.n, 1);
			marks_check(&x, m.n_slots == 0, round);
		} else if (what % 16 == 2) {
			x.now_us += 40000000; /* flows age */
			worker_pin(x.w, x.now_us);
			while (worker_age(x.w))
				;
		} else {
			struct frame_spec f = {slot == 5 ? "10.1.0.10" : "10.1.0.11",
					       "10.2.0.10",
					       .smac = slot == 5 ? 0x10 : 0x11,
					       .dmac = 1,
					       .proto = 17,
					       .sport = (what >> 9) % 128,
					       .dport = what % 16 == 3 ? 81 : 5000};

			(void)world_one(&x, DEV, &f);
		}
		marks_check(&x, false, round);
	}
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
		cmocka_unit_test(whoever_has_no_flows_costs_no_walk),
		cmocka_unit_test(marks_follow_the_flows),
		cmocka_unit_test(orders_have_bounds),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
