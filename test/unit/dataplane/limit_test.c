/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Limits: what passes is never more than rate * time + burst, and nobody pays but who sends or opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_malloc.h>

#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define SYN 2
#define SYNACK 18
#define ACK 16
#define RST 4
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define US_A_S 1000000ull

/* Cameras 5 and 7, PLC 6. %s: of the segment; of the rule. */
static const char policy_text[] =
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); %s },\n"
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } ); } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\" ]; } );\n"
	"rules = ( { name = \"video\"; from = \"cams\"; to = \"core\"; service = [ \"tcp/554\", "
	"\"udp/5000-5100\" ]; %s },\n"
	"          { name = \"free\"; from = \"cams\"; to = \"core\"; service = \"udp/6000-6100\"; "
	"},\n"
	"          { name = \"plc\"; from = \"core\"; to = \"plcs\"; service = \"udp/1-65535\"; } "
	");\n";

static void policy(struct world *x, uint64_t epoch, const char *segment, const char *rule)
{
	char text[2000];

	snprintf(text, sizeof(text), policy_text, segment, rule);
	assert_int_equal(world_policy_set(x, text, epoch), 0);
}

static void start(struct world *x, const struct msg_limits *limits, const char *segment,
		  const char *rule)
{
	struct msg_dp_config cfg;

	world_config(&cfg);
	cfg.flows_max = 4096;
	cfg.slots = WORLD_SLOTS;
	if (limits != NULL)
		cfg.limits = *limits;
	assert_int_equal(world_new(x, &cfg), 0);
	policy(x, 2, segment, rule);
	world_trust(x, 7, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_int_equal(world_bind(x, "10.1.0.12", 0x12, DEV, 0, 7), 0);
}

static struct verdict udp(struct world *x, unsigned cam, uint16_t sport, uint16_t dport,
			  uint16_t payload)
{
	struct frame_spec s = {cam == 5 ? "10.1.0.10" : "10.1.0.12",
			       "10.2.0.10",
			       .smac = cam == 5 ? 0x10 : 0x12,
			       .dmac = 1,
			       .proto = 17,
			       .sport = sport,
			       .dport = dport,
			       .payload = payload};

	return world_one(x, DEV, &s);
}

static struct verdict answer(struct world *x, unsigned cam, uint16_t sport, uint16_t dport,
			     uint16_t payload)
{
	struct frame_spec s = {"10.2.0.10",    cam == 5 ? "10.1.0.10" : "10.1.0.12",
			       .smac = 0x20,   .dmac = 2,
			       .proto = 17,    .sport = dport,
			       .dport = sport, .payload = payload};

	return world_one(x, UP, &s);
}

static void assert_verdict(struct verdict v, enum drop_reason want)
{
	if (want == DROP_NONE)
		assert_int_equal(v.edge, EDGE_FORWARD);
	assert_string_equal(drop_reason_name(v.reason), drop_reason_name(want));
}

static uint64_t draw(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

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
