/* SPDX-License-Identifier: GPL-3.0-or-later */
/* limit_count: how many: new flows, flows at a time, strangers, records, the kernel port. */
#include "test/unit/dataplane/limit_world.h"

/* A scan: every packet another port, none allowed. It costs a bucket, and nobody else anything. */
static void a_scan_costs_the_others_nothing(void **state)
{
	static const struct msg_limits limits = {
		.device_new_flows = 200, .device_new_flows_burst = 400, .device_flows = 4096};
	struct world x;
	uint64_t judged;

	(void)state;
	start(&x, &limits, "", "");
	assert_verdict(udp(&x, 7, 9, 6000, 10), DROP_NONE);
	for (unsigned i = 0; i < 20000; i++) { /* within 100 ms */
		enum drop_reason why = udp(&x, 5, 1000 + i % 60000, 7000 + i / 60000, 10).reason;

		if (i < 400)
			assert_int_equal(why, DROP_DENIED);
		else if (why != DROP_DENIED)
			assert_int_equal(why, DROP_NEW_FLOW_RATE);
		if (i % 100 == 0) {
			assert_verdict(udp(&x, 7, 9, 6000, 10), DROP_NONE);
			assert_verdict(udp(&x, 7, 10 + i / 100, 5000, 10), DROP_NONE);
		}
		x.now_us += 5;
	}
	judged = x.w->stats.drops[DROP_DENIED];
	assert_in_range(judged, 400, 421);
	assert_true(x.w->flows->n_refused <= judged);
	assert_int_equal(x.w->stats.drops[DROP_FLOW_TABLE_FULL], 0);
	assert_int_equal(x.w->stats.drops[DROP_NEW_FLOW_RATE], 20000 - judged);
	assert_int_equal(limit_flows_now(x.w, 7), 201);
	world_free(&x);
}

static void new_flows_of_a_segment(void **state)
{
	static const struct msg_limits limits = {.device_new_flows = 1000,
						 .device_new_flows_burst = 1000};
	struct world x;

	(void)state;
	start(&x, &limits, "limits = { new_flows = 5; new_flows_burst = 10; };", "");
	for (unsigned i = 0; i < 10; i++)
		assert_verdict(udp(&x, 5, 100 + i, 5000, 10), DROP_NONE);
	assert_verdict(udp(&x, 5, 200, 5000, 10), DROP_NEW_FLOW_RATE);
	assert_verdict(udp(&x, 7, 200, 5000, 10), DROP_NONE);
	assert_verdict(udp(&x, 5, 100, 5000, 10), DROP_NONE); /* what is open goes on */
	x.now_us += US_A_S / 5;
	assert_verdict(udp(&x, 5, 200, 5000, 10), DROP_NONE);
	assert_verdict(udp(&x, 5, 201, 5000, 10), DROP_NEW_FLOW_RATE);
	world_free(&x);
}

/* After a restart many flows of one device come back at once; that is no scan. For ever it would be one. */
static void a_restart_is_no_scan(void **state)
{
	static const struct {
		uint32_t pickup_ms;
		unsigned passed;
	} rows[] = {{3000, 50}, {MSG_PICKUP_ALWAYS, 10}, {0, 10}};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct msg_dp_config cfg;
		unsigned passed = 0;
		struct world x;

		world_config(&cfg);
		cfg.pickup_ms = rows[i].pickup_ms;
		cfg.limits = (struct msg_limits){
			.device_new_flows = 10, .device_new_flows_burst = 10, .device_flows = 50};
		cfg.flows_max = 4096;
		assert_int_equal(world_new(&x, &cfg), 0);
		for (unsigned k = 0; k < 60; k++)
			passed += udp(&x, 5, 1000 + k, 5000, 10).edge == EDGE_FORWARD;
		assert_int_equal(passed, rows[i].passed);
		world_free(&x);
	}
}

static void age(struct world *x, unsigned s)
{
	for (unsigned i = 0; i < s * 20; i++) {
		x->now_us += US_A_S / 20;
		worker_pin(x->w, x->now_us);
		worker_age(x->w);
	}
}

static void a_cap_holds_and_is_given_back(void **state)
{
	static const struct msg_limits limits = {.device_flows = 50};
	struct command c = {.kind = COMMAND_FORGET};
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned i = 0; i < 50; i++)
		assert_verdict(udp(&x, 5, 100 + i, 5000, 10), DROP_NONE);
	assert_int_equal(limit_flows_now(x.w, 5), 50);
	assert_verdict(udp(&x, 5, 200, 5000, 10), DROP_FLOW_CAP);
	assert_verdict(udp(&x, 5, 100, 5000, 10), DROP_NONE);
	assert_verdict(answer(&x, 5, 100, 5000, 10), DROP_NONE);
	assert_verdict(udp(&x, 7, 200, 5000, 10), DROP_NONE); /* another device */
	/* a refused flow does not count */
	assert_verdict(udp(&x, 5, 300, 7000, 10), DROP_DENIED);
	assert_int_equal(limit_flows_now(x.w, 5), 50);
	/* by age */
	age(&x, 70);
	assert_int_equal(limit_flows_now(x.w, 5), 0);
	assert_int_equal(limit_flows_now(x.w, 7), 0);
	assert_verdict(udp(&x, 5, 200, 5000, 10), DROP_NONE);
	/* by a packet that finds the device without standing */
	world_trust(&x, 5, WORLD_CAMS, STANDING_REVOKED, CLOCK_NEVER_MS);
	assert_verdict(udp(&x, 5, 200, 5000, 10), DROP_REVOKED);
	assert_int_equal(limit_flows_now(x.w, 5), 0);
	world_trust(&x, 5, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_verdict(udp(&x, 5, 201, 5000, 10), DROP_NONE);
	/* by a sweep */
	world_trust(&x, 5, WORLD_CAMS, STANDING_REVOKED, CLOCK_NEVER_MS);
	c.kind = COMMAND_SWEEP;
	c.slot = 5;
	worker_pin(x.w, x.now_us);
	while (!worker_command_step(x.w, &c))
		;
	assert_int_equal(limit_flows_now(x.w, 5), 0);
	world_trust(&x, 5, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_verdict(udp(&x, 5, 202, 5000, 10), DROP_NONE);
	/* by forgetting all */
	c = (struct command){.kind = COMMAND_FORGET};
	while (!worker_command_step(x.w, &c))
		;
	assert_int_equal(limit_flows_now(x.w, 5), 0);
	world_free(&x);
}

/* By default nobody has more than an eighth of the table, whatever the number says. */
static void a_default_cap_leaves_the_table_to_others(void **state)
{
	static const struct msg_limits limits = {.device_flows = 4000000};
	unsigned passed = 0;
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned i = 0; i < 4096; i++)
		passed += udp(&x, 5, 1000 + i, 5000, 10).edge == EDGE_FORWARD;
	assert_int_equal(passed, 4096 / 8 + 1);
	world_free(&x);
	start(&x, &limits, "limits = { flows = 2000; };", "");
	for (unsigned i = passed = 0; i < 4096; i++)
		passed += udp(&x, 5, 1000 + i, 5000, 10).edge == EDGE_FORWARD;
	assert_int_equal(passed, 2000);
	world_free(&x);
}

static void networks_have_limits_too(void **state)
{
	static const struct msg_limits limits = {.network_new_flows = 100,
						 .network_flows_pct = 1}; /* of 4096 */
	struct frame_spec s = {"10.2.0.10", "10.1.0.11",  .smac = 0x20, .dmac = 2,
			       .proto = 17, .sport = 100, .dport = 5,	.payload = 10};
	unsigned passed = 0;
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned i = 0; i < 100; i++) {
		s.sport = 1000 + i;
		passed += world_one(&x, UP, &s).edge == EDGE_FORWARD;
	}
	assert_int_equal(passed, 40);
	assert_int_equal(x.w->stats.drops[DROP_FLOW_CAP], 60);
	s.sport = 3000;
	assert_verdict(world_one(&x, UP, &s), DROP_NEW_FLOW_RATE);
	assert_verdict(udp(&x, 5, 9, 5000, 10), DROP_NONE);
	world_free(&x);
}

static struct verdict stranger(struct world *x, uint8_t mac, uint16_t sport, uint8_t flags)
{
	struct frame_spec s = {"10.1.0.77", "10.1.0.1",	    .smac = mac,   .dmac = 1,
			       .proto = 6,  .sport = sport, .dport = 8883, .tcp_flags = flags};

	return world_one(x, DEV, &s);
}

static void strangers_share_what_is_left_for_them(void **state)
{
	static const struct msg_limits limits = {.stranger_packets = 300,
						 .stranger_each_packets = 50};
	struct frame_spec arp_device = {"10.1.0.10", "10.1.0.1",  .smac = 0x10, .dmac = 1,
					.proto = 17, .sport = 68, .dport = 67};
	unsigned passed = 0;
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	/* one floods: it gets its own share, in the guard, and another none the less */
	for (unsigned i = 0; i < 1000; i++)
		passed += stranger(&x, 0x77, 1000 + i, SYN).edge == EDGE_KERNEL;
	assert_int_equal(passed, 50);
	assert_int_equal(x.w->stats.drops[DROP_STRANGER_RATE], 950);
	assert_int_equal(flow_count(x.w->flows), 0);
	assert_int_equal(stranger(&x, 0x78, 1, SYN).edge, EDGE_KERNEL);
	/* many flood: together they get what is theirs together */
	for (unsigned i = 0; i < 10000; i++)
		passed += stranger(&x, 0x80 + i % 100, 1000 + i, SYN).edge == EDGE_KERNEL;
	assert_int_equal(passed, 299);
	/* which is nothing to a device */
	assert_int_equal(world_one(&x, DEV, &arp_device).edge, EDGE_KERNEL);
	assert_verdict(udp(&x, 5, 9, 5000, 10), DROP_NONE);
	x.now_us += US_A_S;
	assert_int_equal(stranger(&x, 0x77, 9, SYN).edge, EDGE_KERNEL);
	world_free(&x);
}

static void records_of_diverted_flows_are_limited(void **state)
{
	static const struct msg_limits limits = {.stranger_new_flows = 200,
						 .stranger_each_new_flows = 20,
						 .device_new_flows = 10,
						 .device_new_flows_burst = 100,
						 .device_flows = 40};
	struct frame_spec s = {"10.1.0.10", "10.1.0.1",	   .smac = 0x10,    .dmac = 1,
			       .proto = 6,  .dport = 8883, .tcp_flags = ACK};
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned i = 0; i < 1000; i++)
		stranger(&x, 0x77, 1000 + i, ACK);
	assert_int_equal(x.w->flows->n_diverted, 20);
	for (unsigned i = 0; i < 10000; i++)
		stranger(&x, 0x80 + i % 100, 1000 + i, ACK);
	assert_int_equal(x.w->flows->n_diverted, 200);
	assert_int_equal(limit_flows_now(x.w, 0), 0);
	for (unsigned i = 0; i < 1000; i++) {
		s.sport = 1000 + i;
		world_one(&x, DEV, &s);
	}
	assert_int_equal(limit_flows_now(x.w, 5), 40);
	assert_int_equal(x.w->flows->n_diverted, 240);
	assert_int_equal(x.w->stats.drops[DROP_FLOW_CAP], 60);
	assert_int_equal(x.w->stats.drops[DROP_NEW_FLOW_RATE], 900);
	assert_int_equal(x.w->stats.drops[DROP_FLOW_TABLE_FULL], 0);
	/* its session's packets pass none the less */
	s.sport = 1000;
	assert_int_equal(world_one(&x, DEV, &s).edge, EDGE_KERNEL);
	world_free(&x);
}

/* What was a stranger's session is a device's from the binding on: it counts, and stops counting with the binding. */
static void a_record_changes_hands(void **state)
{
	static const struct msg_limits limits = {.device_flows = 40};
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	stranger(&x, 0x77, 1000, ACK);
	assert_int_equal(limit_flows_now(x.w, 7), 0);
	assert_int_equal(world_bind(&x, "10.1.0.77", 0x77, DEV, 0, 7), 0);
	stranger(&x, 0x77, 1000, ACK);
	stranger(&x, 0x77, 1000, ACK);
	assert_int_equal(limit_flows_now(x.w, 7), 1);
	assert_int_equal(world_bind(&x, "10.1.0.77", 0x77, DEV, 0, 0), 0);
	stranger(&x, 0x77, 1000, ACK);
	assert_int_equal(limit_flows_now(x.w, 7), 0);
	world_free(&x);
}

static uint64_t refused_of(struct world *x, uint32_t slot)
{
	struct account_query q = {
		.account = calloc(ACCOUNTS_MAX, sizeof(*q.account)),
		.device = calloc(accounts_devices(x->w->accounts), sizeof(*q.device))};
	uint64_t at = 0, n;

	assert_non_null(q.account);
	assert_non_null(q.device);
	while (!account_query_step(x->w, &q, &at))
		;
	n = q.device[slot].refused;
	free(q.account);
	free(q.device);
	return n;
}

static void the_kernel_port_is_shared_fairly(void **state)
{
	static const struct msg_limits limits = {.device_kernel_packets = 100,
						 .device_tls_packets = 200};
	struct frame_spec to_box = {"10.1.0.10", "10.1.0.1", .smac = 0x10, .dmac = 1,
				    .proto = 17, .sport = 9, .dport = 67};
	struct frame_spec fragment = {"10.1.0.10", "10.2.0.10", .smac = 0x10,
				      .dmac = 1,   .proto = 17, .fragment = 100};
	struct frame_spec tls = {"10.1.0.10", "10.1.0.1", .smac = 0x10,	 .dmac = 1,
				 .proto = 6,  .sport = 9, .dport = 8883, .tcp_flags = ACK};
	struct frame_spec other = {"10.1.0.12", "10.1.0.1", .smac = 0x12, .dmac = 1,
				   .proto = 17, .sport = 9, .dport = 67};
	unsigned passed = 0;
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned i = 0; i < 500; i++) {
		passed += world_one(&x, DEV, &to_box).edge == EDGE_KERNEL;
		passed += world_one(&x, DEV, &fragment).edge == EDGE_KERNEL;
	}
	assert_int_equal(passed, 100);
	assert_int_equal(x.w->stats.drops[DROP_KERNEL_RATE], 900);
	assert_int_equal(refused_of(&x, 5), 900); /* the statistics say whose they were */
	assert_int_equal(refused_of(&x, 7), 0);
	assert_int_equal(world_one(&x, DEV, &other).edge, EDGE_KERNEL);
	for (unsigned i = passed = 0; i < 500; i++)
		passed += world_one(&x, DEV, &tls).edge == EDGE_KERNEL;
	assert_int_equal(passed, 200);
	assert_verdict(udp(&x, 5, 9, 5000, 10), DROP_NONE);
	world_free(&x);
}

static uint32_t count_by_hand(const struct world *x, uint32_t slot)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i <= x->w->flows->high; i++) {
		const struct flow *f = &x->w->flows->flows[i];

		n += f->used && f->state != FLOW_REFUSED && f->end[f->opener].slot == slot &&
		     (f->state != FLOW_DIVERTED || slot != 0);
	}
	return n;
}

/* Any sequence of packets, changes of standing and policy, ageing and sweeps: the counts are those of the table. */
static void counts_never_drift(void **state)
{
	static const struct msg_limits limits = {.device_flows = 30, .network_flows_pct = 2};
	static const uint8_t flags[] = {SYN, SYNACK, ACK, 17, RST};
	uint64_t seed = 7, epoch = 10;
	struct world x;

	(void)state;
	start(&x, &limits, "", "");
	for (unsigned n = 0; n < 20000; n++) {
		struct frame_spec s = {"10.1.0.10", "10.2.0.10", .smac = 0x10,
				       .dmac = 1,   .proto = 6,	 .payload = 4};
		uint16_t sport = 100 + draw(&seed) % 60;
		uint64_t what = draw(&seed) % 100;

		s.tcp_flags = flags[draw(&seed) % COUNT(flags)];
		if (what < 30) {
			s.sport = sport;
			s.dport = 554;
			world_one(&x, DEV, &s);
		} else if (what < 45) {
			s.src = "10.2.0.10";
			s.dst = "10.1.0.10";
			s.smac = 0x20;
			s.dmac = 2;
			s.sport = 554;
			s.dport = sport;
			world_one(&x, UP, &s);
		} else if (what < 60) {
			udp(&x, draw(&seed) % 2 ? 5 : 7, sport, 5000, 10);
		} else if (what < 70) {
			answer(&x, 5, sport, 5000, 10);
		} else if (what < 75) {
			s.src = "10.2.0.10";
			s.dst = "10.1.0.11";
			s.smac = 0x20;
			s.dmac = 2;
			s.proto = 17;
			s.sport = sport;
			s.dport = 5;
			world_one(&x, UP, &s);
		} else if (what < 80) {
			s.dst = "10.1.0.1";
			s.sport = sport;
			s.dport = 8883;
			world_one(&x, DEV, &s);
		} else if (what < 84) {
			world_trust(&x, draw(&seed) % 2 ? 5 : 7, WORLD_CAMS,
				    draw(&seed) % 3 ? STANDING_FULL : STANDING_REVOKED,
				    CLOCK_NEVER_MS);
		} else if (what < 86) {
			policy(&x, ++epoch, draw(&seed) % 2 ? "limits = { flows = 20; };" : "",
			       draw(&seed) % 2 ? "rate = \"1 Mbit/s\";" : "");
		} else if (what < 90) {
			struct command c = {.kind = COMMAND_SWEEP};

			worker_pin(x.w, x.now_us);
			while (!worker_command_step(x.w, &c))
				;
		} else if (what < 92) {
			world_bind(&x, "10.1.0.12", 0x12, DEV, 0, draw(&seed) % 2 ? 5 : 7);
		} else {
			age(&x, draw(&seed) % 4);
		}
		for (uint32_t slot = 0; slot < 8; slot++)
			assert_int_equal(limit_flows_now(x.w, slot), count_by_hand(&x, slot));
	}
	world_free(&x);
}

/* The process was started for fewer slots than a message names: fail closed. */
static void a_slot_out_of_range_opens_nothing(void **state)
{
	struct msg_dp_config cfg;
	struct world x;

	(void)state;
	world_config(&cfg);
	cfg.slots = 6;
	assert_int_equal(world_new(&x, &cfg), 0);
	policy(&x, 2, "", "");
	world_trust(&x, 7, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_int_equal(world_bind(&x, "10.1.0.12", 0x12, DEV, 0, 7), 0);
	assert_verdict(udp(&x, 5, 9, 5000, 10), DROP_NONE);
	assert_verdict(udp(&x, 7, 9, 5000, 10), DROP_NEW_FLOW_RATE);
	assert_int_equal(limit_flows_now(x.w, 7), 0);
	world_free(&x);
}

/* What the log says at the start is what is taken. */
static void memory_is_what_is_said(void **state)
{
	static const uint64_t seed[FLOW_SEEDS] = {1, 2, 3, 4, 5, 6};
	struct rte_malloc_socket_stats before, after;
	struct msg_limits none = {0};
	struct flow_table *t = NULL;
	struct limits *l = NULL;
	double got, said = (double)(flow_table_bytes(30000) + limits_bytes(10000));

	(void)state;
	assert_int_equal(rte_malloc_get_socket_stats(0, &before), 0);
	assert_int_equal(flow_table_new(&t, 30000, seed, SOCKET_ID_ANY), 0);
	assert_int_equal(limits_new(&l, &none, 10000, 1, SOCKET_ID_ANY), 0);
	assert_int_equal(rte_malloc_get_socket_stats(0, &after), 0);
	got = (double)(after.heap_allocsz_bytes - before.heap_allocsz_bytes);
	if (got < said || got > said * 1.01)
		fail_msg("%.0f bytes taken, %.0f said", got, said);
	flow_table_free(t);
	limits_free(l);
	limits_free(NULL);
}

static int setup(void **state)
{
	(void)state;
	return world_eal();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scan_costs_the_others_nothing),
		cmocka_unit_test(new_flows_of_a_segment),
		cmocka_unit_test(a_restart_is_no_scan),
		cmocka_unit_test(a_cap_holds_and_is_given_back),
		cmocka_unit_test(a_default_cap_leaves_the_table_to_others),
		cmocka_unit_test(networks_have_limits_too),
		cmocka_unit_test(strangers_share_what_is_left_for_them),
		cmocka_unit_test(records_of_diverted_flows_are_limited),
		cmocka_unit_test(a_record_changes_hands),
		cmocka_unit_test(the_kernel_port_is_shared_fairly),
		cmocka_unit_test(counts_never_drift),
		cmocka_unit_test(a_slot_out_of_range_opens_nothing),
		cmocka_unit_test(memory_is_what_is_said),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
