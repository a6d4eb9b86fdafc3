/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is counted per rule, segment pair and device: exactly what passed or was refused, whatever becomes of the flows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/admission.h"
#include "dataplane/query.h"
#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define CAM 5
#define PLC 6
#define IP_UDP 28 /* bytes of both headers */

static const struct frame_spec udp_out = {"10.1.0.10", "10.2.0.10", .smac = 0x10,  .dmac = 1,
					  .proto = 17, .sport = 9,  .dport = 5000, .payload = 100};
static const struct frame_spec udp_in = {"10.2.0.10", "10.1.0.10",   .smac = 0x20, .dmac = 2,
					 .proto = 17, .sport = 5000, .dport = 9,   .payload = 200};
static const struct frame_spec denied = {"10.1.0.10", "10.2.0.10", .smac = 0x10,  .dmac = 1,
					 .proto = 17, .sport = 9,  .dport = 4000, .payload = 50};

struct sums {
	struct tally account[ACCOUNTS_MAX];
	struct device_tally device[65];
	struct account_query q;
	uint64_t at;
};

static struct sums *sums_new(void)
{
	struct sums *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->q = (struct account_query){.account = s->account, .device = s->device};
	return s;
}

static struct sums *ask(struct world *x)
{
	struct sums *s = sums_new();

	worker_pin(x->w, x->now_us);
	while (!account_query_step(x->w, &s->q, &s->at))
		;
	return s;
}

/* The account of these names; zero if there is none. */
static struct tally account(const struct world *x, const struct sums *s, const char *rule,
			    const char *from, const char *to, enum drop_reason reason)
{
	for (uint32_t i = 0; i < accounts_count(x->w->accounts); i++) {
		const struct account_name *n = accounts_name(x->w->accounts, i);

		if (strcmp(n->rule, rule) == 0 && strcmp(n->from, from) == 0 &&
		    strcmp(n->to, to) == 0 && n->reason == reason && (i > 0 || rule[0] != '\0'))
			return s->account[i];
	}
	return (struct tally){0};
}

static void assert_account(struct world *x, const char *rule, const char *from, const char *to,
			   enum drop_reason reason, struct tally want)
{
	struct sums *s = ask(x);
	struct tally got = account(x, s, rule, from, to, reason);

	assert_int_equal(got.packets, want.packets);
	assert_int_equal(got.bytes, want.bytes);
	assert_int_equal(got.flows, want.flows);
	assert_int_equal(got.open, want.open);
	free(s);
}

static void assert_device(struct world *x, uint32_t slot, struct device_tally want)
{
	struct sums *s = ask(x);

	assert_int_equal(s->device[slot].packets, want.packets);
	assert_int_equal(s->device[slot].bytes, want.bytes);
	assert_int_equal(s->device[slot].flows, want.flows);
	assert_int_equal(s->device[slot].open, want.open);
	assert_int_equal(s->device[slot].refused, want.refused);
	assert_int_equal(s->device[slot].diverted, want.diverted);
	free(s);
}

static void run_command(struct world *x, struct command *c)
{
	worker_pin(x->w, x->now_us);
	while (!worker_command_step(x->w, c))
		;
}

static void pass(struct world *x, uint16_t port, const struct frame_spec *s, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		world_one(x, port, s);
}

#define OUT_BYTES (IP_UDP + 100)
#define IN_BYTES (IP_UDP + 200)

static void a_flow_counts_while_it_lives_and_after(void **state)
{
	struct command forget = {.kind = COMMAND_FORGET};
	struct tally want = {5, 3 * OUT_BYTES + 2 * IN_BYTES, 1, 1};
	struct device_tally device = {5, 3 * OUT_BYTES + 2 * IN_BYTES, 1, 0, 0, 1};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &udp_out, 3);
	pass(&x, UP, &udp_in, 2);
	assert_account(&x, "line 4", "cams", "core", DROP_NONE, want);
	assert_account(&x, "line 4", "cams", "core", DROP_NONE, want); /* asking changes nothing */
	assert_device(&x, CAM, device);
	run_command(&x, &forget);
	want.open = device.open = 0;
	assert_account(&x, "line 4", "cams", "core", DROP_NONE, want);
	assert_device(&x, CAM, device);
	pass(&x, DEV, &udp_out, 1);
	want.packets++;
	want.bytes += OUT_BYTES;
	want.flows++;
	want.open++;
	assert_account(&x, "line 4", "cams", "core", DROP_NONE, want);
	world_free(&x);
}

static void both_ends_count_when_both_are_devices(void **state)
{
	const struct frame_spec cross = {"10.1.0.10", "10.1.0.11", .smac = 0x10,  .dmac = 1,
					 .proto = 6,  .sport = 9,  .dport = 7000, .tcp_flags = 2};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &cross, 1);
	assert_account(&x, "line 6", "cams", "plcs", DROP_NONE, (struct tally){1, 40, 1, 1});
	assert_device(&x, CAM, (struct device_tally){1, 40, 1, 0, 0, 1});
	assert_device(&x, PLC, (struct device_tally){1, 40, 1, 0, 0, 1});
	world_free(&x);
}

static void refusals_count_per_pair_and_reason(void **state)
{
	struct frame_spec other = denied;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &denied, 4); /* one judgement; the others are refused from memory */
	assert_account(&x, "", "cams", "core", DROP_DENIED, (struct tally){4, 4 * 78, 1, 1});
	assert_device(&x, CAM, (struct device_tally){.refused = 4});
	x.now_us += 600000; /* the memory ends: another judgement */
	pass(&x, DEV, &denied, 1);
	assert_account(&x, "", "cams", "core", DROP_DENIED, (struct tally){5, 5 * 78, 2, 1});
	/* a crowded table remembers no refusal, and still counts each */
	for (unsigned i = 0; i < 100; i++) {
		other.sport = 1000 + i;
		pass(&x, DEV, &other, 1);
	}
	assert_account(&x, "", "cams", "core", DROP_DENIED, (struct tally){105, 105 * 78, 102, 32});
	assert_device(&x, CAM, (struct device_tally){.refused = 105});
	world_free(&x);
}

static void a_refusal_takes_nothing_from_what_passed(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &udp_out, 3);
	world_trust(&x, CAM, WORLD_CAMS, STANDING_REVOKED, CLOCK_NEVER_MS);
	pass(&x, DEV, &udp_out, 2);
	assert_account(&x, "line 4", "cams", "core", DROP_NONE,
		       (struct tally){3, 3 * OUT_BYTES, 1, 0});
	assert_account(&x, "", "", "", DROP_REVOKED, (struct tally){2, 2 * OUT_BYTES, 1, 1});
	assert_device(&x, CAM, (struct device_tally){3, 3 * OUT_BYTES, 1, 2, 0, 0});
	world_trust(&x, CAM, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	pass(&x, DEV, &udp_out, 1);
	assert_account(&x, "line 4", "cams", "core", DROP_NONE,
		       (struct tally){4, 4 * OUT_BYTES, 2, 1});
	assert_account(&x, "", "", "", DROP_REVOKED, (struct tally){2, 2 * OUT_BYTES, 1, 0});
	world_free(&x);
}

static const char named[] =
	"segments = ( { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } ); },\n"
	"             { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\" ]; } );\n"
	"rules = ( { name = \"first\"; from = \"plcs\"; to = \"core\"; service = [ \"tcp/1\" ]; "
	"},\n"
	"          { name = \"%s\"; from = \"cams\"; to = \"core\"; service = [ \"udp/5000\" ]; } "
	");\n";

static int policy_named(struct world *x, const char *rule, uint64_t epoch)
{
	char text[1024];

	snprintf(text, sizeof(text), named, rule);
	return world_policy_set(x, text, epoch);
}

/* Rules keep their accounts by name, wherever the next policy puts them; a flow that comes under another rule leaves
 * what it carried with the old one. */
static void accounts_outlive_policies(void **state)
{
	struct command sweep = {.kind = COMMAND_SWEEP};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_int_equal(policy_named(&x, "video", 2), 0);
	pass(&x, DEV, &udp_out, 3);
	assert_int_equal(world_policy_set(&x, world_policy, 3), 0);
	pass(&x, DEV, &udp_out, 2); /* re-admitted by its next packet */
	assert_account(&x, "video", "cams", "core", DROP_NONE,
		       (struct tally){3, 3 * OUT_BYTES, 1, 0});
	assert_account(&x, "line 4", "cams", "core", DROP_NONE,
		       (struct tally){2, 2 * OUT_BYTES, 1, 1});
	assert_int_equal(policy_named(&x, "video", 4), 0);
	run_command(&x, &sweep); /* re-admitted by the sweep */
	assert_int_equal(sweep.count, 0);
	pass(&x, UP, &udp_in, 1);
	assert_account(&x, "video", "cams", "core", DROP_NONE,
		       (struct tally){4, 3 * OUT_BYTES + IN_BYTES, 2, 1});
	assert_int_equal(policy_named(&x, "video", 5), 0);
	pass(&x, DEV, &udp_out, 1); /* the same rule: the flow keeps its numbers */
	assert_account(&x, "video", "cams", "core", DROP_NONE,
		       (struct tally){5, 4 * OUT_BYTES + IN_BYTES, 2, 1});
	assert_account(&x, "line 4", "cams", "core", DROP_NONE,
		       (struct tally){2, 2 * OUT_BYTES, 1, 0});
	assert_device(&x, CAM, (struct device_tally){7, 6 * OUT_BYTES + IN_BYTES, 3, 0, 0, 1});
	world_free(&x);
}

static void knocking_counts_apart(void **state)
{
	const struct frame_spec knock = {"10.1.0.10", "10.1.0.1", .smac = 0x10,	 .dmac = 1,
					 .proto = 6,  .sport = 9, .dport = 8883, .tcp_flags = 16};
	struct command forget = {.kind = COMMAND_FORGET};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &knock, 3);
	assert_device(&x, CAM, (struct device_tally){.diverted = 3, .open = 1});
	run_command(&x, &forget);
	assert_device(&x, CAM, (struct device_tally){.diverted = 3});
	world_free(&x);
}

/* A flow may end between any two steps of a query: it is in the sum once. */
static void what_ends_during_a_query_counts_once(void **state)
{
	struct frame_spec s = udp_out;

	(void)state;
	for (unsigned ends_after = 0; ends_after < 8; ends_after++) {
		struct command forget = {.kind = COMMAND_FORGET};
		struct sums *before, *during = sums_new(), *after;
		struct world x;
		uint64_t sum[3];
		unsigned steps = 0;

		assert_int_equal(world_new(&x, NULL), 0);
		for (unsigned i = 0; i < 100; i++) {
			s.sport = 100 + i;
			pass(&x, DEV, &s, 1 + i % 3);
		}
		before = ask(&x);
		do {
			if (steps == ends_after)
				run_command(&x, &forget);
			if (steps == ends_after) /* and others begin */
				pass(&x, DEV, &s, 1);
			steps++;
		} while (!account_query_step(x.w, &during->q, &during->at));
		after = ask(&x);
		sum[0] = account(&x, before, "line 4", "cams", "core", DROP_NONE).packets;
		sum[1] = account(&x, during, "line 4", "cams", "core", DROP_NONE).packets;
		sum[2] = account(&x, after, "line 4", "cams", "core", DROP_NONE).packets;
		assert_int_equal(sum[0], 199);
		assert_in_range(sum[1], sum[0], sum[2]);
		assert_int_equal(sum[2], sum[0] + (steps > ends_after));
		assert_in_range(during->device[CAM].packets, before->device[CAM].packets,
				after->device[CAM].packets);
		free(before);
		free(during);
		free(after);
		world_free(&x);
	}
}

static void too_many_accounts_share_one(void **state)
{
	struct world x;
	uint64_t packets = 0;
	struct sums *s;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	worker_pin(x.w, x.now_us);
	for (unsigned i = 0; i < 2 * ACCOUNTS_MAX; i++) {
		/* ids that no policy names have no names, rules and reasons do: few accounts, many ids */
		struct admission a = {.rule = i % 3, .segment = {i / 64 % 4096, i % 4096}};

		account_refused(x.w, &a, 1 + i % (DROP_REASON_COUNT - 1), 10);
	}
	s = ask(&x);
	for (uint32_t i = 0; i < accounts_count(x.w->accounts); i++)
		packets += s->account[i].packets;
	assert_int_equal(packets, 2 * ACCOUNTS_MAX);
	assert_true(s->account[ACCOUNT_OTHER].packets > 0);
	free(s);
	world_free(&x);
}

/* ---- the list of flows ---- */

static void the_largest_flows_are_found(void **state)
{
	static const struct {
		uint8_t order;
		uint32_t room;
	} rows[] = {{FLOWS_BY_PACKETS, 1},
		    {FLOWS_BY_BYTES, 5},
		    {FLOWS_BY_PACKETS, 60},
		    {FLOWS_BY_BYTES, 200}};
	struct msg_flow_info list[200];
	struct frame_spec s = udp_out;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		s.sport = 100 + i;
		pass(&x, DEV, &s, 1 + i * 37 % 100); /* each count from 1 to 100 once */
	}
	for (unsigned r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct command c = {
			.kind = COMMAND_LIST,
			.room = rows[r].room,
			.list = list,
			.filter = {.rule = MSG_ANY, .state = UINT8_MAX, .order = rows[r].order}};
		uint32_t want = rows[r].room < 100 ? rows[r].room : 100;
		uint64_t sum = 0;

		run_command(&x, &c);
		assert_int_equal(c.count, want);
		for (uint32_t i = 0; i < c.count; i++)
			sum += list[i].packets;
		assert_int_equal(sum, want * 100 - want * (want - 1) / 2);
	}
	world_free(&x);
}

static void flows_are_filtered(void **state)
{
	static const struct {
		uint32_t slot;
		struct flow_filter filter;
		uint32_t want;
	} rows[] = {
		{0, {0, MSG_ANY, UINT8_MAX, 0}, 3},    {CAM, {0, MSG_ANY, UINT8_MAX, 0}, 3},
		{PLC, {0, MSG_ANY, UINT8_MAX, 0}, 1},  {0, {WORLD_PLCS, MSG_ANY, UINT8_MAX, 0}, 1},
		{0, {0, 0, UINT8_MAX, 0}, 1},	       {0, {0, 1, UINT8_MAX, 0}, 0},
		{0, {0, MSG_ANY, FLOW_REFUSED, 0}, 1}, {0, {0, MSG_ANY, FLOW_OPENING, 0}, 2},
		{0, {0, MSG_ANY, FLOW_OPENING, 1}, 2}, {PLC, {0, MSG_ANY, FLOW_REFUSED, 1}, 0},
	};
	const struct frame_spec cross = {"10.1.0.10", "10.1.0.11", .smac = 0x10,  .dmac = 1,
					 .proto = 6,  .sport = 9,  .dport = 7000, .tcp_flags = 2};
	struct msg_flow_info list[16];
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	pass(&x, DEV, &udp_out, 1);
	pass(&x, DEV, &denied, 1);
	pass(&x, DEV, &cross, 1);
	for (unsigned r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct command c = {.kind = COMMAND_LIST,
				    .slot = rows[r].slot,
				    .filter = rows[r].filter,
				    .room = 16,
				    .list = list};

		run_command(&x, &c);
		assert_int_equal(c.count, rows[r].want);
	}
	world_free(&x);
}

/* ---- what the agent is told ---- */

static void impossible_tallies_are_seen(void **state)
{
	static const struct {
		uint16_t kind, n;
		uint8_t reason;
		int unended; /* which text has no end; -1: none */
		bool good;
	} rows[] = {
		{TALLY_ACCOUNTS, MSG_TALLY_ACCOUNTS, 0, -1, true},
		{TALLY_ACCOUNTS, MSG_TALLY_ACCOUNTS + 1, 0, -1, false},
		{TALLY_ACCOUNTS, 65535, 0, -1, false},
		{TALLY_ACCOUNTS, 1, DROP_REASON_COUNT - 1, -1, true},
		{TALLY_ACCOUNTS, 1, DROP_REASON_COUNT, -1, false},
		{TALLY_ACCOUNTS, 1, 0, 0, false},
		{TALLY_ACCOUNTS, 1, 0, 1, false},
		{TALLY_ACCOUNTS, 1, 0, 2, false},
		{TALLY_ACCOUNTS, 0, 0, 2, true}, /* behind the end: not looked at */
		{TALLY_DEVICES, MSG_TALLY_DEVICES, 0, -1, true},
		{TALLY_DEVICES, MSG_TALLY_DEVICES + 1, 0, -1, false},
		{TALLY_LCORES, MSG_TALLY_LCORES, 0, -1, true},
		{TALLY_LCORES, MSG_TALLY_LCORES + 1, 0, -1, false},
		{0, 0, 0, -1, false},
		{99, 0, 0, -1, false},
	};

	(void)state;
	for (unsigned r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct msg_tallies m = {.kind = rows[r].kind, .n = rows[r].n};

		m.account[0].reason = rows[r].reason;
		if (rows[r].unended == 0)
			memset(m.account[0].rule, 'x', sizeof(m.account[0].rule));
		if (rows[r].unended == 1)
			memset(m.account[0].from, 'x', sizeof(m.account[0].from));
		if (rows[r].unended == 2)
			memset(m.account[0].to, 'x', sizeof(m.account[0].to));
		assert_int_equal(msg_tallies_check(&m), rows[r].good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flow_counts_while_it_lives_and_after),
		cmocka_unit_test(both_ends_count_when_both_are_devices),
		cmocka_unit_test(refusals_count_per_pair_and_reason),
		cmocka_unit_test(a_refusal_takes_nothing_from_what_passed),
		cmocka_unit_test(accounts_outlive_policies),
		cmocka_unit_test(knocking_counts_apart),
		cmocka_unit_test(what_ends_during_a_query_counts_once),
		cmocka_unit_test(too_many_accounts_share_one),
		cmocka_unit_test(the_largest_flows_are_found),
		cmocka_unit_test(flows_are_filtered),
		cmocka_unit_test(impossible_tallies_are_seen),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
