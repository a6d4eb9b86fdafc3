/* SPDX-License-Identifier: GPL-3.0-or-later */
/* limit_rate: how much a second: buckets, rules, devices, policies that change meanwhile. */
#include "test/unit/dataplane/limit_world.h"

/* Whatever is asked and whenever: never more than rate * time + burst; who always asks gets the rate. */
static void a_bucket_gives_the_rate_and_no_more(void **state)
{
	static const struct {
		uint32_t per_s, burst;
		uint16_t workers;
		uint64_t step_us_max;
	} rows[] = {
		{1, 1, 1, 300000},	  {1, 8, 1, 900000},	 {10, 1, 1, 1000},
		{200, 400, 1, 5000},	  {1000, 1000, 1, 200},	 {4096, 7, 1, 100},
		{1000000, 100, 1, 3},	  {10000000, 100, 1, 1}, {999983, 3, 1, 2},
		{200, 400, 4, 5000},	  {3, 2, 8, 400000},	 {7, 100, 16, 100000},
		{1000000, 1000000, 2, 1},
	};
	uint64_t seed = 1;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct bucket_rate r =
			bucket_rate_of(rows[i].per_s, rows[i].burst, rows[i].workers);
		double share = 1.0 / rows[i].workers;
		double burst = rows[i].burst * share > 1 ? rows[i].burst * share : 1;
		uint64_t full = 0, start_us = 77 * US_A_S, now_us = start_us, passed = 0;

		for (unsigned n = 0; n < 200000; n++) {
			double most;

			now_us += draw(&seed) % (rows[i].step_us_max + 1);
			passed += bucket_take(&full, &r, now_us * 1000);
			most = (double)(now_us - start_us) / 1e6 * rows[i].per_s * share + burst;
			if ((double)passed > most + 1e-6)
				fail_msg("row %zu: %llu passed, at most %f", i,
					 (unsigned long long)passed, most);
		}
		/* asked more often than the rate, with a burst that bridges the gaps: it gives all of it */
		if (burst > 4 &&
		    1e6 / ((double)rows[i].step_us_max / 2) > 2.0 * rows[i].per_s * share)
			assert_true((double)passed >= (double)(now_us - start_us) / 1e6 *
								      rows[i].per_s * share *
								      0.989 -
							      1);
	}
}

/* Workers whose clocks differ, by less than SHARED_SKEW, draw from one bucket: together never more than rate * time + burst. */
static void a_shared_bucket_gives_the_rate_and_no_more(void **state)
{
	static const struct {
		uint64_t per_s, burst;
		uint32_t tokens_max;
		uint64_t step_us_max;
	} rows[] = {
		{1000, 9216, 1500, 10000},
		{125000, 12500, 1500, 1000},
		{12500000000, 125000000, 1500, 1},
		{1250000, 9216, 64, 10},
		{1, 8, 1, 10000},
		{5000, 500, 1, 100},
		{10000000, 100000000, 1, 1},
	};
	uint64_t seed = 3;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct shared_rate r = shared_rate_of(rows[i].per_s, rows[i].burst);
		uint64_t start_us = 77 * US_A_S, now_us[4], last = start_us, passed = 0;
		_Atomic uint64_t full = 0;

		for (unsigned k = 0; k < 4; k++)
			now_us[k] = start_us;
		for (unsigned n = 0; n < 200000; n++) {
			uint64_t *now = &now_us[draw(&seed) % 4];
			uint32_t tokens = 1 + (uint32_t)(draw(&seed) % rows[i].tokens_max);
			double most;

			if (draw(&seed) % 8 == 0) /* else the same burst, or one that lags */
				*now = last += draw(&seed) % (rows[i].step_us_max + 1);
			passed += shared_take(&full, &r, *now, tokens) ? tokens : 0;
			most = (double)(last - start_us) / 1e6 * (double)rows[i].per_s +
			       (double)rows[i].burst;
			if ((double)passed > most + 1e-6)
				fail_msg("row %zu: %llu passed, at most %f", i,
					 (unsigned long long)passed, most);
		}
		/* asked for more than the rate: it gives it, but for what the last few packets leave */
		if ((double)passed <
			    (double)(last - start_us) / 1e6 * (double)rows[i].per_s * 0.98 -
				    rows[i].tokens_max &&
		    200000.0 * rows[i].tokens_max / 2 >
			    3.0 * (double)(last - start_us) / 1e6 * (double)rows[i].per_s)
			fail_msg("row %zu: only %llu passed", i, (unsigned long long)passed);
	}
}

static void a_shared_bucket_forgets_a_slower_rate(void **state)
{
	struct shared_rate slow = shared_rate_of(1, 100), fast = shared_rate_of(1000, 1);
	_Atomic uint64_t full = 0;
	uint64_t now = 5 * US_A_S;

	(void)state;
	assert_true(shared_take(&full, &slow, now, 100));
	assert_false(shared_take(&full, &slow, now, 1));
	assert_false(shared_take(&full, &fast, now, 1));
	assert_true(shared_take(&full, &fast, now + 1000, 1));
	assert_false(shared_take(&full, &fast, now + 1000, 1));
}

/* One flow is one worker's, and gets all of its rule's and its device's rate; two flows at two workers share it. */
static void several_workers_keep_one_rate(void **state)
{
	static const struct {
		const char *name, *segment, *rule;
		enum drop_reason why;
	} rows[] = {
		{"rule", "", "rate = \"1 Mbit/s\";", DROP_RATE_RULE},
		{"device", "limits = { rate = \"1 Mbit/s\"; };", "", DROP_RATE_DEVICE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct limit_table *table = NULL;
		struct msg_limits none = {0};
		struct pkt p = {.ip_bytes = 1000};
		struct flow f = {.end = {{.slot = 5, .segment = WORLD_CAMS}, {0}}, .rule = 0};
		uint64_t passed[2] = {0}, refused = 0;
		struct msg_dp_config cfg;
		struct state *st = NULL;
		struct err err = {""};
		struct world x;

		start(&x, NULL, rows[i].segment, rows[i].rule);
		world_config(&cfg);
		assert_int_equal(state_new(&st, &cfg, 4, &err), 0);
		assert_int_equal(limit_table_new(&table, x.form, &none, 1000, 4, NULL, &err), 0);
		atomic_store(&st->limits, table);
		atomic_store(&st->policy, x.form);
		for (uint64_t t = 0; t < 2 * US_A_S; t += 1000) {
			/* the first second one worker has the flow, then two have one each */
			for (unsigned k = 0; k <= t / US_A_S; k++) {
				struct worker *w = st->workers[1 + k];
				enum drop_reason why;

				worker_pin(w, x.now_us + t);
				why = limit_packet(w, &f, &p);
				assert_true(why == DROP_NONE || why == rows[i].why);
				passed[t / US_A_S] += why == DROP_NONE ? p.ip_bytes : 0;
				refused += why != DROP_NONE;
			}
		}
		if (passed[0] < 125000 || passed[0] > 125000 + 12500 || passed[1] < 122500 ||
		    passed[1] > 126000)
			fail_msg("%s: %llu and %llu bytes passed", rows[i].name,
				 (unsigned long long)passed[0], (unsigned long long)passed[1]);
		assert_true(refused > 1000);
		atomic_store(&st->policy, NULL);
		atomic_store(&st->limits, NULL);
		limit_table_free(table);
		state_free(st);
		world_free(&x);
	}
}

static void a_bucket_forgets_a_slower_rate(void **state)
{
	struct bucket_rate slow = bucket_rate_of(1, 100, 1), fast = bucket_rate_of(1000, 1, 1);
	uint64_t full = 0, now = 5000000000ull;

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_true(bucket_take(&full, &slow, now));
	assert_false(bucket_take(&full, &slow, now));
	assert_false(bucket_take(&full, &fast, now));
	assert_true(bucket_take(&full, &fast, now + 1000000));
}

/* Two seconds at much more than the rate, in both directions; what passed is counted in bytes of IP packets. */
struct offered {
	uint64_t bytes[2], packets[2]; /* passed; out, back */
	uint64_t died[DROP_REASON_COUNT];
};

static struct offered offer(struct world *x, unsigned cam, uint16_t dport, bool both,
			    unsigned payload, unsigned every_us, unsigned ms)
{
	struct offered o = {0};

	for (uint64_t t = 0; t < ms * 1000ull; t += every_us) {
		struct verdict v = udp(x, cam, 9, dport, payload);

		o.bytes[0] += v.edge == EDGE_FORWARD ? payload + 28 : 0;
		o.packets[0] += v.edge == EDGE_FORWARD;
		o.died[v.reason] += v.edge == EDGE_DROP;
		if (both) {
			v = answer(x, cam, 9, dport, payload);
			o.bytes[1] += v.edge == EDGE_FORWARD ? payload + 28 : 0;
			o.packets[1] += v.edge == EDGE_FORWARD;
			o.died[v.reason] += v.edge == EDGE_DROP;
		}
		x->now_us += every_us;
	}
	return o;
}

static void a_rate_is_kept_from_both_sides(void **state)
{
	static const struct {
		const char *name, *segment, *rule;
		bool both;
		unsigned payload, every_us;
		uint64_t bytes, packets; /* a second; 0: not looked at */
		uint64_t burst; /* in the same unit */
		enum drop_reason why;
	} rows[] = {
		{"rule, 1 Mbit/s", "", "rate = \"1 Mbit/s\";", true, 1000, 500, 125000, 0, 12500,
		 DROP_RATE_RULE},
		{"rule, 8 kbit/s", "", "rate = \"8 kbit/s\";", true, 1400, 5000, 1000, 0, 9216,
		 DROP_RATE_RULE},
		{"rule, 20 Mbit/s", "", "rate = \"20 Mbit/s\"; burst_ms = 50;", false, 1400, 100,
		 2500000, 0, 125000, DROP_RATE_RULE},
		{"rule, 300 packet/s", "", "rate = \"300 packet/s\";", true, 10, 500, 0, 300, 30,
		 DROP_RATE_RULE},
		{"device, 2 Mbit/s", "limits = { rate = \"2 Mbit/s\"; };", "", false, 1000, 500,
		 250000, 0, 25000, DROP_RATE_DEVICE},
		{"device, 100 packet/s", "limits = { rate = \"100 packet/s\"; burst_ms = 1000; };",
		 "", false, 10, 500, 0, 100, 100, DROP_RATE_DEVICE},
		{"the lower of both", "limits = { rate = \"2 Mbit/s\"; };", "rate = \"1 Mbit/s\";",
		 false, 1000, 500, 125000, 0, 12500, DROP_RATE_RULE},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct offered o;
		struct world x;
		uint64_t got;
		double want;

		start(&x, NULL, rows[i].segment, rows[i].rule);
		o = offer(&x, 5, 5000, rows[i].both, rows[i].payload, rows[i].every_us, 2000);
		got = rows[i].bytes != 0 ? o.bytes[0] + o.bytes[1] : o.packets[0] + o.packets[1];
		want = 2.0 * (double)(rows[i].bytes + rows[i].packets);
		if ((double)got > want * 1.01 + (double)rows[i].burst ||
		    (double)got < want * 0.98 + (double)rows[i].burst * 0.8)
			fail_msg("%s: %llu passed, want %f and a burst of %llu", rows[i].name,
				 (unsigned long long)got, want, (unsigned long long)rows[i].burst);
		assert_true(o.died[rows[i].why] > 0);
		/* A rule without a rate, and another device, go on as if nothing were. */
		if (rows[i].segment[0] == '\0')
			assert_verdict(udp(&x, 5, 9, 6000, 1000), DROP_NONE);
		assert_verdict(udp(&x, 7, 9, 6000, 1000), DROP_NONE);
		world_free(&x);
	}
}

/* A device over its rate takes nothing from its rule, nor does it pay for what comes to it. */
static void who_sends_pays(void **state)
{
	struct offered o;
	struct world x;

	(void)state;
	start(&x, NULL, "limits = { rate = \"1 Mbit/s\"; };", "rate = \"2 Mbit/s\";");
	offer(&x, 5, 5000, false, 1000, 500, 1000);
	/* the rule has as much left as camera 5 could not use */
	o = offer(&x, 7, 5000, false, 1000, 500, 1000);
	assert_int_equal(o.died[DROP_RATE_RULE], 0);
	assert_true(o.bytes[0] > 124000);
	world_free(&x);

	start(&x, NULL, "limits = { rate = \"1 Mbit/s\"; };", "");
	o = offer(&x, 5, 5000, true, 1000, 500, 1000);
	assert_true(o.bytes[0] < 140000);
	assert_int_equal(o.packets[1], 2000); /* all that the network sends */
	world_free(&x);
}

static void the_lane_is_for_flows_without_a_rate(void **state)
{
	struct world x;
	uint64_t lane;

	(void)state;
	start(&x, NULL, "", "rate = \"1 Mbit/s\";");
	for (int i = 0; i < 3; i++) {
		udp(&x, 5, 9, 5000, 10);
		answer(&x, 5, 9, 5000, 10);
	}
	assert_int_equal(x.w->stats.lane, 0);
	for (int i = 0; i < 3; i++) {
		udp(&x, 5, 9, 6000, 10);
		answer(&x, 5, 9, 6000, 10);
	}
	lane = x.w->stats.lane;
	assert_true(lane > 0);
	/* a policy gives the other rule a rate: its flow leaves the lane */
	policy(&x, 3, "limits = { rate = \"1 Mbit/s\"; };", "");
	for (int i = 0; i < 3; i++)
		udp(&x, 5, 9, 6000, 10);
	assert_int_equal(x.w->stats.lane, lane);
	/* and comes back when the rate goes */
	policy(&x, 4, "", "");
	for (int i = 0; i < 3; i++)
		udp(&x, 5, 9, 6000, 10);
	assert_true(x.w->stats.lane > lane);
	world_free(&x);
}

static void a_new_policy_keeps_what_it_does_not_change(void **state)
{
	struct world x;

	(void)state;
	start(&x, NULL, "", "rate = \"8 kbit/s\";");
	for (int i = 0; i < 6; i++)
		assert_verdict(udp(&x, 5, 9, 5000, 1472), DROP_NONE);
	assert_verdict(udp(&x, 5, 9, 5000, 1472), DROP_RATE_RULE);
	policy(&x, 3, "limits = { flows = 100; };", "rate = \"8 kbit/s\";");
	assert_verdict(udp(&x, 5, 9, 5000, 1472), DROP_RATE_RULE);
	policy(&x, 4, "", "rate = \"16 kbit/s\";");
	assert_verdict(udp(&x, 5, 9, 5000, 1472), DROP_NONE);
	policy(&x, 5, "", "");
	for (int i = 0; i < 100; i++)
		assert_verdict(udp(&x, 5, 9, 5000, 1472), DROP_NONE);
	world_free(&x);
}

static void while_policies_change_over_each_has_its_limits(void **state)
{
	struct limit_table *a = NULL, *b = NULL;
	struct msg_limits none = {0};
	struct err err = {""};
	struct world x;
	struct policy_form *f1, *f2;

	(void)state;
	start(&x, NULL, "", "rate = \"1 Mbit/s\";");
	f1 = malloc(x.form->bytes);
	f2 = malloc(x.form->bytes);
	memcpy(f1, x.form, x.form->bytes);
	memcpy(f2, x.form, x.form->bytes);
	f2->epoch++;
	assert_int_equal(limit_table_new(&a, f1, &none, 100, 1, NULL, &err), 0);
	assert_int_equal(limit_table_new(&b, f2, &none, 100, 1, a, &err), 0);
	assert_ptr_equal(limit_table_pick(b, f2->epoch), b);
	assert_ptr_equal(limit_table_pick(b, f1->epoch), a);
	assert_null(limit_table_pick(b, f2->epoch + 1));
	assert_null(limit_table_pick(NULL, f1->epoch));
	limit_table_settle(b);
	assert_null(limit_table_pick(b, f1->epoch));
	limit_table_free(a);
	limit_table_free(b);
	limit_table_free(NULL);
	free(f1);
	free(f2);
	world_free(&x);
}

/* As many limited rules as a policy may have: the change takes a moment, and each keeps its own meter. */
static void many_rules_have_rates(void **state)
{
	enum { MANY = 16384 };
	char *text = NULL;
	struct msg_limits none = {0};
	struct limit_table *a = NULL, *b = NULL;
	struct policy_form *f;
	struct err err = {""};
	uint64_t took;
	size_t bytes;
	struct world x;
	FILE *out = open_memstream(&text, &bytes);

	(void)state;
	fprintf(out,
		"segments = ( { name = \"cams\"; } );\n"
		"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\" ]; } );\nrules = (");
	for (int i = 0; i < MANY; i++)
		fprintf(out,
			"%s{ name = \"r%d\"; from = \"cams\"; to = \"core\"; service = \"udp/%d\"; "
			"rate "
			"= \"8 kbit/s\"; }\n",
			i > 0 ? "," : "", i, i + 1);
	fprintf(out, ");\n");
	fclose(out);
	start(&x, NULL, "", "");
	assert_int_equal(world_policy_set(&x, text, 5), 0);
	for (int i = 0; i < 6; i++)
		assert_verdict(udp(&x, 5, 9, MANY, 1472), DROP_NONE);
	assert_verdict(udp(&x, 5, 9, MANY, 1472), DROP_RATE_RULE);
	assert_verdict(udp(&x, 5, 9, MANY - 1, 1472), DROP_NONE);
	assert_int_equal(world_policy_set(&x, text, 6), 0);
	assert_verdict(udp(&x, 5, 9, MANY, 1472), DROP_RATE_RULE);
	f = x.form;
	took = clock_boot_us();
	assert_int_equal(limit_table_new(&a, f, &none, 1000, 1, NULL, &err), 0);
	assert_int_equal(limit_table_new(&b, f, &none, 1000, 1, a, &err), 0);
	took = clock_boot_us() - took;
	print_message("%d limited rules, twice: %llu us\n", MANY, (unsigned long long)took);
	assert_true(took < 2 * US_A_S);
	limit_table_free(a);
	limit_table_free(b);
	free(text);
	world_free(&x);
}

static int setup(void **state)
{
	(void)state;
	return world_eal();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bucket_gives_the_rate_and_no_more),
		cmocka_unit_test(a_bucket_forgets_a_slower_rate),
		cmocka_unit_test(a_shared_bucket_gives_the_rate_and_no_more),
		cmocka_unit_test(a_shared_bucket_forgets_a_slower_rate),
		cmocka_unit_test(several_workers_keep_one_rate),
		cmocka_unit_test(a_rate_is_kept_from_both_sides),
		cmocka_unit_test(who_sends_pays),
		cmocka_unit_test(the_lane_is_for_flows_without_a_rate),
		cmocka_unit_test(a_new_policy_keeps_what_it_does_not_change),
		cmocka_unit_test(while_policies_change_over_each_has_its_limits),
		cmocka_unit_test(many_rules_have_rates),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
