/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tracing shows what happened and changes nothing; and what `sallyctl why` asks agrees with what packets meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include <rte_ring_elem.h>

#include "dataplane/judge.h"
#include "dataplane/trace.h"
#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define SYN 2
#define ACK 16
#define CAM 5

static void arm(struct world *x, const struct msg_trace_filter *f, uint32_t count)
{
	struct msg_trace_arm m = {.id = 7, .count = count, .for_ms = 1000};

	if (f != NULL)
		m.filter = *f;
	assert_int_equal(trace_arm(x->st, &m, x->now_us), 0);
}

static bool traced(struct world *x, struct msg_traced *r)
{
	return rte_ring_sc_dequeue_elem(x->w->traced, r, sizeof(*r)) == 0;
}

/* What a network engineer asks about, in words. */
struct occasion {
	const char *name;
	uint16_t port;
	struct frame_spec frame;
	enum standing standing; /* of the camera */
	uint8_t edge;
	enum drop_reason reason;
	enum traced_stage stage;
	bool asked; /* `why` can ask the same: it is a flow's first packet, and honest */
};

/* clang-format off */
static const struct occasion occasions[] = {
	{"allowed", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"allowed, TCP", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 6, .sport = 9, .dport = 554,
	 .tcp_flags = SYN}, STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"allowed, IPv6", DEV, {"fd01::10", "fd02::10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"ping", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 1, .sport = 8 << 8, .dport = 1},
	 STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"in a VLAN", DEV, {"10.3.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .vlan = 30, .proto = 17, .sport = 9,
	 .dport = 5000}, STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"from the network", UP, {"10.2.0.10", "10.1.0.11", .smac = 0x20, .dmac = 2, .proto = 6, .sport = 9, .dport = 502,
	 .tcp_flags = SYN}, STANDING_FULL, EDGE_FORWARD, DROP_NONE, TRACED_REWRITE, true},
	{"another port", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 4000},
	 STANDING_FULL, EDGE_DROP, DROP_DENIED, TRACED_FLOW, true},
	{"revoked", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_REVOKED, EDGE_DROP, DROP_REVOKED, TRACED_FLOW, true},
	{"without standing", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9,
	 .dport = 5000}, STANDING_UNKNOWN, EDGE_DROP, DROP_NO_TRUST, TRACED_FLOW, true},
	{"expired", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_COUNT, EDGE_DROP, DROP_EXPIRED, TRACED_FLOW, true},
	{"a stranger", DEV, {"10.1.0.99", "10.2.0.10", .smac = 0x66, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_DROP, DROP_STRANGER, TRACED_GUARD, true},
	{"spoofed", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x66, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_DROP, DROP_SPOOFED, TRACED_GUARD, false},
	{"no route", DEV, {"10.1.0.10", "192.0.2.1", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_DROP, DROP_NO_ROUTE, TRACED_ROUTE, true},
	{"to nobody", DEV, {"10.1.0.10", "10.1.0.55", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9, .dport = 5000},
	 STANDING_FULL, EDGE_DROP, DROP_NO_SEGMENT, TRACED_FLOW, true},
	{"a listener", DEV, {"10.1.0.99", "10.1.0.1", .smac = 0x66, .dmac = 1, .proto = 6, .sport = 9, .dport = 8883,
	 .tcp_flags = SYN}, STANDING_FULL, EDGE_KERNEL, DROP_NONE, TRACED_DIVERT, true},
	{"behind the kernel", DEV, {"10.1.0.10", "10.8.0.1", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9,
	 .dport = 5000}, STANDING_FULL, EDGE_KERNEL, DROP_NONE, TRACED_ROUTE, true},
	{"the device's IP from the uplink", UP, {"10.1.0.10", "10.1.0.11", .smac = 0x20, .dmac = 2, .proto = 17,
	 .sport = 9, .dport = 5000}, STANDING_FULL, EDGE_DROP, DROP_REVERSE_PATH, TRACED_GUARD, false},
	{"mid-stream", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 6, .sport = 9, .dport = 554,
	 .tcp_flags = ACK}, STANDING_FULL, EDGE_DROP, DROP_BAD_STATE, TRACED_FLOW, false},
	{"another VLAN", DEV, {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .vlan = 99, .proto = 17, .sport = 9,
	 .dport = 5000}, STANDING_FULL, EDGE_DROP, DROP_UNKNOWN_VLAN, TRACED_PARSE, false},
};
/* clang-format on */

#define OCCASIONS (sizeof(occasions) / sizeof(occasions[0]))

static void set_standing(struct world *x, enum standing s)
{
	if (s == STANDING_COUNT)
		world_trust(x, CAM, WORLD_CAMS, STANDING_FULL, x->now_us / 1000 - 1);
	else if (s != STANDING_FULL)
		world_trust(x, CAM, WORLD_CAMS, s, CLOCK_NEVER_MS);
}

static void each_record_says_where_and_why(void **state)
{
	(void)state;
	for (unsigned i = 0; i < OCCASIONS; i++) {
		const struct occasion *o = &occasions[i];
		struct verdict plain, looked_at;
		struct msg_traced r;
		struct world x;

		assert_int_equal(world_new(&x, NULL), 0);
		set_standing(&x, o->standing);
		plain = world_one(&x, o->port, &o->frame);
		assert_false(traced(&x, &r)); /* none armed: none recorded */
		world_free(&x);

		assert_int_equal(world_new(&x, NULL), 0);
		set_standing(&x, o->standing);
		arm(&x, NULL, 10);
		looked_at = world_one(&x, o->port, &o->frame);
		assert_true(traced(&x, &r));
		if (plain.edge != o->edge || plain.reason != o->reason || r.stage != o->stage)
			fail_msg("%s: edge %u, %s, stage %u", o->name, plain.edge,
				 drop_reason_name(plain.reason), r.stage);
		assert_int_equal(looked_at.edge, plain.edge);
		assert_int_equal(looked_at.reason, plain.reason);
		assert_int_equal(looked_at.out_port, plain.out_port);
		assert_int_equal(looked_at.bytes, plain.bytes);
		assert_memory_equal(looked_at.frame, plain.frame, plain.bytes);
		assert_int_equal(r.edge, plain.edge);
		assert_int_equal(r.reason, plain.reason);
		assert_int_equal(r.id, 7);
		assert_true(msg_traced_check(&r, 2));
		if (r.judged && r.reason != DROP_BAD_STATE)
			assert_int_equal(r.judged_reason, r.reason);
		world_free(&x);
	}
}

static void why_agrees_with_packets(void **state)
{
	(void)state;
	for (unsigned i = 0; i < OCCASIONS; i++) {
		const struct occasion *o = &occasions[i];
		struct msg_judge m = {.key = {.sport = o->frame.sport,
					      .dport = o->frame.dport,
					      .proto = o->frame.proto}};
		struct msg_traced packet, asked;
		struct judge *j;
		struct world x;

		if (!o->asked)
			continue;
		assert_int_equal(world_new(&x, NULL), 0);
		set_standing(&x, o->standing);
		assert_int_equal(judge_new(&j, x.st), 0);
		ip_addr_parse(&m.key.src, o->frame.src);
		ip_addr_parse(&m.key.dst, o->frame.dst);
		for (int twice = 0; twice < 2; twice++) { /* an answer leaves nothing behind */
			assert_int_equal(judge_flow(j, &m, &asked), 0);
			if (asked.edge != o->edge || asked.reason != o->reason ||
			    asked.stage != o->stage)
				fail_msg("%s: edge %u, %s, stage %u", o->name, asked.edge,
					 drop_reason_name(asked.reason), asked.stage);
		}
		assert_int_equal(flow_count(x.w->flows), 0);
		arm(&x, NULL, 1);
		world_one(&x, o->port, &o->frame);
		assert_true(traced(&x, &packet));
		assert_int_equal(asked.rule, packet.rule);
		assert_int_equal(asked.in_port, packet.in_port);
		assert_int_equal(asked.out_port, packet.out_port);
		assert_int_equal(asked.end[0].segment, packet.end[0].segment);
		assert_int_equal(asked.end[1].segment, packet.end[1].segment);
		assert_memory_equal(&asked.out_dst_mac, &packet.out_dst_mac, 6);
		judge_free(j);
		world_free(&x);
	}
}

static void impossible_questions_are_refused(void **state)
{
	static const struct {
		const char *src, *dst;
		uint8_t proto;
		int want;
	} rows[] = {
		{"10.1.0.10", "10.2.0.10", 17, 0},	 {"10.1.0.10", "10.2.0.10", 47, -EINVAL},
		{"10.1.0.10", "fd02::10", 17, -EINVAL},	 {"fd01::10", "fd02::10", 1, -EINVAL},
		{"10.1.0.10", "10.2.0.10", 58, -EINVAL}, {"10.1.0.10", "10.2.0.10", 0, -EINVAL},
		{"255.255.255.255", "10.2.0.10", 17, 0}, {"10.1.0.10", "255.255.255.255", 17, 0},
	};
	struct msg_traced r;
	struct judge *j;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_int_equal(judge_new(&j, x.st), 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg_judge m = {.key = {.proto = rows[i].proto, .dport = 5000}};

		ip_addr_parse(&m.key.src, rows[i].src);
		ip_addr_parse(&m.key.dst, rows[i].dst);
		assert_int_equal(judge_flow(j, &m, &r), rows[i].want);
	}
	judge_free(j);
	world_free(&x);
}

/* ---- the flow in a record ---- */

static const struct frame_spec udp_out = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1,
					  .proto = 17, .sport = 9,  .dport = 5000};

static void the_flow_before_and_after_is_shown(void **state)
{
	struct msg_traced r;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	arm(&x, NULL, 100);
	world_one(&x, DEV, &udp_out);
	assert_true(traced(&x, &r));
	assert_int_equal(r.flow, TRACED_NO_FLOW);
	assert_int_equal(r.judged, 1);
	assert_int_equal(r.rule, 0);
	assert_int_equal(r.state_after, FLOW_OPENING);
	assert_int_equal(r.end[0].slot, CAM);
	assert_int_equal(r.end[0].segment, WORLD_CAMS);
	assert_int_equal(r.out_ttl, 63);
	assert_int_equal(r.out_dst_mac.b[5], 0x20);
	world_one(&x, DEV, &udp_out);
	assert_true(traced(&x, &r));
	assert_int_equal(r.flow, TRACED_CURRENT);
	assert_int_equal(r.judged, 0);
	assert_int_equal(r.rule, 0);
	assert_int_equal(r.flow_packets, 1);
	assert_int_equal(r.end[0].generation, r.end[0].flow_generation);
	world_trust(&x, CAM, WORLD_CAMS, STANDING_REVOKED, CLOCK_NEVER_MS);
	world_one(&x, DEV, &udp_out);
	assert_true(traced(&x, &r));
	assert_int_equal(r.flow, TRACED_STALE);
	assert_int_equal(r.judged_reason, DROP_REVOKED);
	assert_int_equal(r.reason, DROP_REVOKED);
	assert_int_equal(r.end[0].standing, STANDING_REVOKED);
	assert_int_not_equal(r.end[0].generation, r.end[0].flow_generation);
	world_one(&x, DEV, &udp_out);
	assert_true(traced(&x, &r));
	assert_int_equal(r.flow, TRACED_REFUSED);
	assert_int_equal(r.reason, DROP_REFUSED_CACHED);
	assert_int_equal(r.judged_reason, DROP_REVOKED);
	world_free(&x);
}

/* ---- bounds ---- */

static void a_trace_ends_by_itself(void **state)
{
	struct msg_traced r;
	struct world x;
	unsigned n = 0;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	arm(&x, NULL, 3);
	for (int i = 0; i < 10; i++)
		world_one(&x, DEV, &udp_out);
	while (traced(&x, &r))
		n++;
	assert_int_equal(n, 3); /* count */
	trace_tick(x.st, x.now_us);
	assert_null(atomic_load(&x.st->trace));
	arm(&x, NULL, 1000);
	x.now_us += 999000;
	world_one(&x, DEV, &udp_out);
	assert_true(traced(&x, &r));
	x.now_us += 1000; /* time, without anybody's help */
	world_one(&x, DEV, &udp_out);
	assert_false(traced(&x, &r));
	trace_tick(x.st, x.now_us);
	assert_null(atomic_load(&x.st->trace));
	arm(&x, NULL, 1000);
	for (int i = 0; i < 300; i++) /* room */
		assert_int_equal(world_one(&x, DEV, &udp_out).edge, EDGE_FORWARD);
	for (n = 0; traced(&x, &r); n++)
		;
	assert_int_equal(n, 127);
	trace_disarm(x.st);
	world_one(&x, DEV, &udp_out);
	assert_false(traced(&x, &r));
	assert_true(x.w->lane);
	world_free(&x);
}

static void impossible_traces_are_refused(void **state)
{
	static const struct {
		uint32_t count, for_ms;
		struct msg_trace_filter f;
		int want;
	} rows[] = {
		{1, 1, {0}, 0},
		{0, 1, {0}, -EPROTO},
		{MSG_TRACE_COUNT_MAX + 1, 1, {0}, -EPROTO},
		{1, 0, {0}, -EPROTO},
		{1, MSG_TRACE_MS_MAX + 1, {0}, -EPROTO},
		{1, 1, {.fields = TRACE_FIELDS + 1}, -EPROTO},
		{1, 1, {.fields = UINT32_MAX}, -EPROTO},
		{1, 1, {.fields = TRACE_PORT, .in_port = 1}, 0},
		{1, 1, {.fields = TRACE_PORT, .in_port = 2}, -EPROTO},
		{1, 1, {.fields = TRACE_REASON, .reason = DROP_REASON_COUNT}, -EPROTO},
		{1, 1, {.fields = TRACE_SRC, .src.len = 129}, -EPROTO},
		{1, 1, {.fields = TRACE_DST, .dst.len = 255}, -EPROTO},
		{1, 1, {.fields = TRACE_HOST, .host.len = 200}, -EPROTO},
	};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg_trace_arm m = {
			.count = rows[i].count, .for_ms = rows[i].for_ms, .filter = rows[i].f};

		trace_disarm(x.st);
		assert_int_equal(trace_arm(x.st, &m, x.now_us), rows[i].want);
		assert_int_equal(atomic_load(&x.st->trace) != NULL, rows[i].want == 0);
	}
	world_free(&x);
}

/* ---- filters ---- */

static struct msg_trace_filter filter(uint32_t field, const char *prefix, uint16_t number)
{
	struct msg_trace_filter f = {.fields = field,
				     .proto = (uint8_t)number,
				     .reason = (field & TRACE_REASON) ? (uint8_t)number : 0,
				     .sport = number,
				     .dport = number,
				     .in_port = number,
				     .vlan = number,
				     .slot = number};

	if (prefix != NULL)
		ip_prefix_parse(&f.src, prefix);
	f.dst = f.host = f.src;
	return f;
}

static void filters_choose(void **state)
{
	static const struct {
		uint32_t field;
		const char *prefix;
		uint16_t number;
		bool fits;
	} rows[] = {
		{0, NULL, 0, true},
		{TRACE_SRC, "10.1.0.10", 0, true},
		{TRACE_SRC, "10.1.0.0/24", 0, true},
		{TRACE_SRC, "10.2.0.10", 0, false},
		{TRACE_DST, "10.2.0.10", 0, true},
		{TRACE_DST, "10.1.0.10", 0, false},
		{TRACE_HOST, "10.1.0.10", 0, true},
		{TRACE_HOST, "10.2.0.0/16", 0, true},
		{TRACE_HOST, "fd00::/8", 0, false},
		{TRACE_PROTO, NULL, 17, true},
		{TRACE_PROTO, NULL, 6, false},
		{TRACE_SPORT, NULL, 9, true},
		{TRACE_SPORT, NULL, 10, false},
		{TRACE_DPORT, NULL, 4000, true},
		{TRACE_DPORT, NULL, 9, false},
		{TRACE_PORT, NULL, 0, true},
		{TRACE_PORT, NULL, 1, false},
		{TRACE_VLAN, NULL, 0, true},
		{TRACE_VLAN, NULL, 30, false},
		{TRACE_DEVICE, NULL, CAM, true},
		{TRACE_DEVICE, NULL, 6, false},
		{TRACE_DROP, NULL, 0, true},
		{TRACE_REASON, NULL, DROP_DENIED, true},
		{TRACE_REASON, NULL, DROP_SPOOFED, false},
		{TRACE_SRC | TRACE_DROP, "10.1.0.10", 0, true},
		{TRACE_SRC | TRACE_PROTO, "10.1.0.10", 6, false},
	};
	struct frame_spec denied = udp_out;

	(void)state;
	denied.dport = 4000;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg_trace_filter f = filter(rows[i].field, rows[i].prefix, rows[i].number);
		struct msg_traced r;
		struct world x;

		assert_int_equal(world_new(&x, NULL), 0);
		arm(&x, &f, 10);
		world_one(&x, DEV, &denied);
		if (traced(&x, &r) != rows[i].fits)
			fail_msg("row %u", i);
		world_free(&x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_says_where_and_why),
		cmocka_unit_test(why_agrees_with_packets),
		cmocka_unit_test(impossible_questions_are_refused),
		cmocka_unit_test(the_flow_before_and_after_is_shown),
		cmocka_unit_test(a_trace_ends_by_itself),
		cmocka_unit_test(impossible_traces_are_refused),
		cmocka_unit_test(filters_choose),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
