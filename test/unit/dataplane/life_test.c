/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A flow's life: who may open it, what keeps it, what ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/tcp.h"
#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define SYN 2
#define SYNACK 18
#define ACK 16
#define RST 4
#define FIN 17

static const struct frame_spec udp_out = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1,
					  .proto = 17, .sport = 9,  .dport = 5000};
static const struct frame_spec udp_in = {"10.2.0.10", "10.1.0.10",   .smac = 0x20, .dmac = 2,
					 .proto = 17, .sport = 5000, .dport = 9};

static struct verdict tcp(struct world *x, bool out, uint8_t flags)
{
	struct frame_spec there = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1,
				   .proto = 6,	.sport = 9,  .dport = 554, .tcp_flags = flags};
	struct frame_spec back = {"10.2.0.10", "10.1.0.10",  .smac = 0x20, .dmac = 2,
				  .proto = 6,  .sport = 554, .dport = 9,   .tcp_flags = flags};

	return out ? world_one(x, DEV, &there) : world_one(x, UP, &back);
}

static void assert_verdict(struct verdict v, enum drop_reason want)
{
	if (want == DROP_NONE)
		assert_int_equal(v.edge, EDGE_FORWARD);
	assert_string_equal(drop_reason_name(v.reason), drop_reason_name(want));
}

static struct sweep_slots sweep_of(uint32_t slot)
{
	return (struct sweep_slots){
		.n = slot != 0, .slot = {slot}, .some = slot != 0 ? 1ull << (slot % 64) : 0};
}

static struct command sweep(struct world *x, uint32_t slot)
{
	struct command c = {.kind = COMMAND_SWEEP, .sweep = sweep_of(slot)};

	worker_pin(x->w, x->now_us);
	while (!worker_command_step(x->w, &c))
		;
	return c;
}

static void only_the_opener_opens(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_DENIED);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_REFUSED_CACHED);
	/* a refusal of one direction does not hold the other */
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_NONE);
	assert_int_equal(flow_count(x.w->flows), 1);
	assert_verdict(tcp(&x, false, SYNACK), DROP_BAD_STATE);
	assert_verdict(tcp(&x, true, SYN), DROP_NONE);
	assert_verdict(tcp(&x, false, SYN), DROP_BAD_STATE);
	assert_verdict(tcp(&x, false, SYNACK), DROP_NONE);
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	assert_verdict(tcp(&x, false, ACK), DROP_NONE);
	world_free(&x);
}

static void a_burst_is_a_sequence(void **state)
{
	uint8_t frame[4][FRAME_MAX];
	struct verdict v[4];
	size_t bytes[4];
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (int i = 0; i < 4; i++)
		bytes[i] = frame_make(frame[i], &udp_out);
	world_burst(&x, DEV, frame, bytes, 4, v);
	for (int i = 0; i < 4; i++)
		assert_verdict(v[i], DROP_NONE);
	assert_int_equal(flow_count(x.w->flows), 1);
	assert_int_equal(x.w->stats.admissions, 1);
	world_free(&x);
}

/* The product's promise: the next packet after the store is the first that does not pass. */
static void a_lost_standing_stops_the_next_packet(void **state)
{
	static const struct {
		const char *name;
		enum standing standing;
		uint16_t segment;
		int64_t expires_in_ms; /* 0: never */
		enum drop_reason why;
	} rows[] = {
		{"revoked", STANDING_REVOKED, 0, 0, DROP_REVOKED},
		{"unknown", STANDING_UNKNOWN, 0, 0, DROP_NO_TRUST},
		{"no segment", STANDING_FULL, 0, 0, DROP_NO_TRUST},
		{"expired", STANDING_FULL, WORLD_CAMS, -1, DROP_EXPIRED},
		{"other segment", STANDING_REMEDIATION, WORLD_PLCS, 0, DROP_DENIED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t last;
		struct command c;
		struct world x;

		assert_int_equal(world_new(&x, NULL), 0);
		assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
		assert_verdict(world_one(&x, UP, &udp_in), DROP_NONE);
		last = x.now_us;
		x.now_us += 1000;
		world_trust(&x, 5, rows[i].segment, rows[i].standing,
			    rows[i].expires_in_ms == 0 ? CLOCK_NEVER_MS
						       : x.now_us / 1000 + rows[i].expires_in_ms);
		assert_verdict(world_one(&x, i % 2 ? DEV : UP, i % 2 ? &udp_out : &udp_in),
			       rows[i].why);
		/* and it is told as closed, with the time of the last packet, though a packet found it first */
		c = sweep(&x, 5);
		assert_int_equal(c.count, 1);
		assert_in_range(c.last_forward_us, last, last + (1 << FLOW_TICK_SHIFT) - 1);
		assert_int_equal(sweep(&x, 5).count, 0);
		world_free(&x);
	}
}

/* No event at all: the expiry passes and the agent says nothing. */
static void an_expiry_needs_no_agent(void **state)
{
	struct world x;
	uint64_t end;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	end = x.now_us / 1000 + 100;
	world_trust(&x, 5, WORLD_CAMS, STANDING_FULL, end);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	x.now_us = (end - 1) * 1000;
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	x.now_us = end * 1000;
	assert_verdict(world_one(&x, UP, &udp_in), DROP_EXPIRED);
	/* extended, without a new generation: it lives again at once */
	atomic_store(&x.trust.rec[5].expires_ms, end + 1000);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	world_free(&x);
}

static void a_changed_standing_that_still_allows_loses_no_packet(void **state)
{
	const struct flow *f;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(tcp(&x, true, SYN), DROP_NONE);
	assert_verdict(tcp(&x, false, SYNACK), DROP_NONE);
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	world_trust(&x, 5, WORLD_CAMS, STANDING_RESTRICTED, CLOCK_NEVER_MS);
	assert_verdict(tcp(&x, false, ACK), DROP_NONE); /* mid-stream, from the other end */
	f = &x.w->flows->flows[1];
	assert_int_equal(f->packets, 4);
	assert_int_equal(f->tcp, TCP_ESTAB);
	world_trust(&x, 5, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_int_equal(sweep(&x, 5).count, 0);
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	world_free(&x);
}

static void a_binding_that_goes_takes_its_flows(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	assert_int_equal(world_bind(&x, "10.1.0.10", 0, 0, 0, 0), 0);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_STRANGER);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_NO_SEGMENT);
	assert_int_equal(sweep(&x, 5).count, 1);
	/* the address is another device's now: the old flow is not its */
	assert_int_equal(world_bind(&x, "10.1.0.10", 0x10, 0, 0, 6), 0);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_DENIED);
	world_free(&x);
}

static void a_policy_ends_what_it_forbids_and_nothing_else(void **state)
{
	static const char narrower[] =
		"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); } "
		");\n"
		"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\" ]; } );\n"
		"rules = ( { from = \"cams\"; to = \"core\"; service = [ \"tcp/554\" ]; } );\n";
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(tcp(&x, true, SYN), DROP_NONE);
	assert_verdict(tcp(&x, false, SYNACK), DROP_NONE);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	assert_int_equal(world_policy_set(&x, narrower, 2), 0);
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	assert_verdict(tcp(&x, false, ACK), DROP_NONE);
	assert_int_equal(sweep(&x, 0).count, 1);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_DENIED);
	assert_int_equal(world_policy_set(&x, world_policy, 3), 0);
	assert_verdict(world_one(&x, DEV, &udp_out),
		       DROP_NONE); /* the cached refusal went with its policy */
	world_free(&x);
}

static void a_full_table_refuses_and_keeps(void **state)
{
	struct frame_spec s = udp_out;
	unsigned refused = 0;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (unsigned i = 0; i < 300; i++) {
		struct verdict v;

		s.sport = 1000 + i;
		v = world_one(&x, DEV, &s);
		refused += v.reason == DROP_FLOW_TABLE_FULL;
		assert_true(v.edge == EDGE_FORWARD || v.reason == DROP_FLOW_TABLE_FULL);
	}
	assert_int_equal(refused, 300 - 256);
	s.sport = 1000;
	assert_verdict(world_one(&x, DEV, &s), DROP_NONE);
	world_free(&x);
}

static void refusals_and_diversions_cannot_fill_the_table(void **state)
{
	struct frame_spec denied = udp_out,
			  diverted = {"10.1.0.77", "10.1.0.1",	  .smac = 0x77,	   .dmac = 1,
				      .proto = 6,  .dport = 8883, .tcp_flags = ACK};
	static const struct {
		uint32_t pct;
		unsigned most; /* of 256 */
	} rows[] = {{0, 128}, {10, 25}, {80, 204}};
	struct msg_dp_config c;
	struct world x;

	(void)state;
	denied.dport = 4000;
	for (unsigned r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		world_config(&c);
		c.limits.listener_flows_pct = rows[r].pct;
		assert_int_equal(world_new(&x, &c), 0);
		for (unsigned i = 0; i < 300; i++) {
			denied.sport = 1000 + i;
			diverted.sport = 1000 + i;
			world_one(&x, DEV, &denied);
			world_one(&x, DEV, &diverted);
		}
		assert_int_equal(x.w->flows->n_refused, 256 / 8);
		assert_int_equal(x.w->flows->n_diverted, rows[r].most);
		assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
		world_free(&x);
	}
}

static void idle_flows_age_by_their_state(void **state)
{
	static const struct {
		const char *name;
		uint8_t proto;
		bool established;
		uint8_t flags[2]; /* after that: of the opener, of the replier; 0: none */
		unsigned limit_s;
	} rows[] = {
		{"tcp opening", 6, false, {0, 0}, 30},
		{"tcp established", 6, true, {0, 0}, 600},
		{"tcp half-closed", 6, true, {FIN, 0}, 600},
		{"tcp closed by both", 6, true, {FIN, FIN}, 12},
		{"tcp reset", 6, true, {0, RST}, 12},
		{"udp unanswered", 17, false, {0, 0}, 25},
		{"udp answered", 17, true, {0, 0}, 60},
		{"ping", 1, false, {0, 0}, 10},
	};
	static const struct frame_spec ping = {"10.1.0.10", "10.2.0.10", .smac = 0x10,
					       .dmac = 1,   .proto = 1,	 .sport = 0x0800,
					       .dport = 77};
	struct msg_dp_config cfg;

	(void)state;
	world_config(&cfg);
	cfg.tcp_closing_s = 12;
	cfg.udp_unanswered_s = 25;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct world x;

		assert_int_equal(world_new(&x, &cfg), 0);
		if (rows[i].proto == 6)
			tcp(&x, true, SYN);
		else
			world_one(&x, DEV, rows[i].proto == 17 ? &udp_out : &ping);
		if (rows[i].established && rows[i].proto == 17) {
			world_one(&x, UP, &udp_in);
		} else if (rows[i].established) {
			tcp(&x, false, SYNACK);
			tcp(&x, true, ACK);
		}
		if (rows[i].flags[0] != 0)
			tcp(&x, true, rows[i].flags[0]);
		if (rows[i].flags[1] != 0)
			tcp(&x, false, rows[i].flags[1]);
		for (unsigned s = 0; s <= rows[i].limit_s; s++) {
			worker_pin(x.w, x.now_us + s * 1000000ull);
			worker_age(x.w);
			if (flow_count(x.w->flows) != 1)
				fail_msg("%s: gone after %u s", rows[i].name, s);
		}
		worker_pin(x.w, x.now_us + (rows[i].limit_s + 2) * 1000000ull);
		worker_age(x.w);
		assert_int_equal(flow_count(x.w->flows), 0);
		world_free(&x);
	}
}

/* A listener of DTLS: the first datagram leaves a record, from which a binding is made; a stranger's does not stay long. */
static void datagrams_to_a_listener_leave_a_record(void **state)
{
	struct frame_spec s = {"10.1.0.77", "10.1.0.1", .smac = 0x77, .dmac = 1,
			       .proto = 17, .sport = 9, .dport = 5684};
	static const struct {
		const char *name, *src;
		uint8_t mac;
		unsigned limit_s;
	} rows[] = {
		{"a stranger's", "10.1.0.77", 0x77, 25},
		{"a device's", "10.1.0.10", 0x10, 60},
	};
	struct msg_dp_config cfg;

	(void)state;
	world_config(&cfg);
	cfg.udp_unanswered_s = 25;
	cfg.listeners[0].port = 5684;
	cfg.listeners[0].proto = IPPROTO_UDP;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct world x;

		assert_int_equal(world_new(&x, &cfg), 0);
		s.src = rows[i].src;
		s.smac = rows[i].mac;
		assert_int_equal(world_one(&x, DEV, &s).edge, EDGE_KERNEL);
		assert_int_equal(x.w->stats.diverted, 1);
		assert_int_equal(x.w->flows->n_diverted, 1);
		worker_pin(x.w, x.now_us + rows[i].limit_s * 1000000ull);
		worker_age(x.w);
		if (flow_count(x.w->flows) != 1)
			fail_msg("%s record is gone before %u s", rows[i].name, rows[i].limit_s);
		worker_pin(x.w, x.now_us + (rows[i].limit_s + 2) * 1000000ull);
		worker_age(x.w);
		if (flow_count(x.w->flows) != 0)
			fail_msg("%s record is there after %u s", rows[i].name, rows[i].limit_s);
		world_free(&x);
	}
}

static void a_restart_picks_up_what_is_allowed_either_way(void **state)
{
	struct msg_dp_config cfg;
	struct world x;

	(void)state;
	world_config(&cfg);
	cfg.pickup_ms = 3000;
	assert_int_equal(world_new(&x, &cfg), 0);
	assert_verdict(tcp(&x, false, ACK), DROP_NONE); /* the reply comes first */
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	assert_int_equal(x.w->flows->flows[1].rule, 0);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_NONE);
	{
		struct frame_spec denied = {"10.2.0.10", "10.1.0.10",	  .smac = 0x20,
					    .dmac = 2,	 .proto = 6,	  .sport = 80,
					    .dport = 9,	 .tcp_flags = ACK};

		assert_verdict(world_one(&x, UP, &denied), DROP_DENIED);
	}
	world_free(&x);
	assert_int_equal(world_new(&x, &cfg), 0);
	x.now_us += 4000000;
	assert_verdict(tcp(&x, true, ACK), DROP_BAD_STATE);
	world_free(&x);
	cfg.pickup_ms = MSG_PICKUP_ALWAYS;
	assert_int_equal(world_new(&x, &cfg), 0);
	x.now_us += 1000000000000;
	assert_verdict(tcp(&x, true, ACK), DROP_NONE);
	world_free(&x);
	cfg.pickup_ms = 0; /* never */
	assert_int_equal(world_new(&x, &cfg), 0);
	assert_verdict(tcp(&x, true, ACK), DROP_BAD_STATE);
	world_free(&x);
}

static void an_ended_connection_opens_again_only_by_admission(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	tcp(&x, true, SYN);
	tcp(&x, false, SYNACK);
	assert_verdict(tcp(&x, false, RST), DROP_NONE);
	assert_verdict(tcp(&x, false, SYN), DROP_DENIED); /* the other direction is no rule's */
	assert_verdict(tcp(&x, true, SYN), DROP_NONE);
	assert_int_equal(flow_count(x.w->flows), 1);
	world_free(&x);
}

/* An error that quotes a packet of a flow in force, to the one who sent it. */
static void icmp_errors_follow_their_flow(void **state)
{
	struct frame_spec e = {"10.2.0.10", "10.1.0.10",     .smac = 0x20, .dmac = 2,
			       .proto = 1,  .sport = 3 << 8, .payload = 28};
	uint8_t frame[1][FRAME_MAX], quoted[FRAME_MAX];
	struct verdict v;
	struct world x;
	size_t bytes;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	frame_make(quoted, &udp_out);
	bytes = frame_make(frame[0], &e);
	memcpy(frame[0] + 14 + 20 + 8, quoted + 14, 28);
	world_burst(&x, UP, frame, &bytes, 1, &v);
	assert_int_equal(v.edge, EDGE_KERNEL); /* no such flow */
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	world_burst(&x, UP, frame, &bytes, 1, &v);
	assert_int_equal(v.edge, EDGE_FORWARD);
	e.dst = "10.1.0.11"; /* to somebody else */
	bytes = frame_make(frame[0], &e);
	memcpy(frame[0] + 14 + 20 + 8, quoted + 14, 28);
	world_burst(&x, UP, frame, &bytes, 1, &v);
	assert_int_equal(v.edge, EDGE_KERNEL);
	world_trust(&x, 5, 0, STANDING_REVOKED, 0);
	e.dst = "10.1.0.10";
	bytes = frame_make(frame[0], &e);
	memcpy(frame[0] + 14 + 20 + 8, quoted + 14, 28);
	world_burst(&x, UP, frame, &bytes, 1, &v);
	assert_int_equal(v.edge, EDGE_KERNEL); /* not by us any more */
	world_free(&x);
}

static void bad_messages_change_nothing(void **state)
{
	struct msg_policy commit = {.epoch = 9};
	struct msg_bind slot0 = {.slot = 0}, slot_far = {.slot = WORLD_SLOTS},
			port_far = {.slot = 5, .port = 2};
	struct msg_route kind = {.kind = 9}, port = {.kind = ROUTE_FORWARD, .port = 7};
	struct msg_hdr hdr = {.type = MSG_SYNC_END, .bytes = sizeof(hdr)};
	struct world x;
	int fd;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	MSG_INIT(&commit, MSG_POLICY_COMMIT, 1);
	assert_int_equal(world_say(&x, &commit, sizeof(commit), -1), -EINVAL);
	MSG_INIT(&commit, MSG_POLICY_PREPARE, 1);
	assert_int_equal(world_say(&x, &commit, sizeof(commit), -1), -EPROTO);
	fd = memfd_create("unsealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	assert_int_equal(write(fd, x.form, x.form->bytes), x.form->bytes);
	assert_int_equal(world_say(&x, &commit, sizeof(commit), fd), -EPROTO);
	close(fd);
	MSG_INIT(&slot0, MSG_BIND_ADD, 1);
	MSG_INIT(&slot_far, MSG_BIND_ADD, 1);
	MSG_INIT(&port_far, MSG_BIND_ADD, 1);
	assert_int_equal(world_say(&x, &slot0, sizeof(slot0), -1), -EPROTO);
	assert_int_equal(world_say(&x, &slot_far, sizeof(slot_far), -1), -EPROTO);
	assert_int_equal(world_say(&x, &port_far, sizeof(port_far), -1), -EPROTO);
	MSG_INIT(&kind, MSG_ROUTE_ADD, 1);
	MSG_INIT(&port, MSG_ROUTE_ADD, 1);
	assert_int_equal(world_say(&x, &kind, sizeof(kind), -1), -EPROTO);
	assert_int_equal(world_say(&x, &port, sizeof(port), -1), -EPROTO);
	assert_int_equal(world_say(&x, &hdr, sizeof(hdr), -1), -EPROTO);
	/* one epoch is one policy */
	assert_int_equal(world_policy_set(&x, world_policy, 1), 0);
	assert_int_equal(bindings_count(x.st->bindings), 4);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	world_free(&x);
}

static void a_second_sync_keeps_what_it_names(void **state)
{
	struct msg_hdr begin = {.type = MSG_SYNC_BEGIN, .bytes = sizeof(begin)};
	struct msg_hdr end = {.type = MSG_SYNC_END, .bytes = sizeof(end)};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	assert_int_equal(world_say(&x, &begin, sizeof(begin), -1), 0);
	assert_verdict(world_one(&x, UP, &udp_in), DROP_NONE); /* as before while it lasts */
	assert_int_equal(world_routes(&x), 0);
	assert_int_equal(world_bind(&x, "10.1.0.10", 0x10, 0, 0, 5), 0);
	assert_int_equal(world_say(&x, &end, sizeof(end), -1), 0);
	assert_int_equal(bindings_count(x.st->bindings), 1);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	assert_int_equal(x.w->stats.admissions, 1); /* its flow was not touched */
	{
		struct frame_spec plc = {"10.1.0.11", "10.2.0.10", .smac = 0x11, .dmac = 1,
					 .proto = 17};

		assert_verdict(world_one(&x, DEV, &plc), DROP_STRANGER);
	}
	world_free(&x);
}

static void another_trust_table_forgets_everything(void **state)
{
	struct err err = {0};
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NONE);
	world_trust_file(&x, 8);
	assert_int_equal(apply_trust(x.apply, x.trust_path, false, &err), 0);
	assert_verdict(world_one(&x, DEV, &udp_out), DROP_NOT_READY);
	world_free(&x);
}

/* The agent pins each bound address as a neighbour in the kernel, and hands on what the kernel knows. */
static void neighbours_have_room_beside_the_bindings(void **state)
{
	struct msg_neigh m = {.mac = {{2, 0, 0, 0, 0, 0x33}}, .port = DEV};
	struct msg_dp_config cfg;
	struct world x;

	(void)state;
	world_config(&cfg);
	cfg.bindings_max = 20000;
	assert_int_equal(world_new(&x, &cfg), 0);
	MSG_INIT(&m, MSG_NEIGH_ADD, 1);
	for (uint32_t i = 0; i < cfg.bindings_max; i++) {
		const uint8_t ip[4] = {10, 1, (uint8_t)(i >> 8), (uint8_t)i};

		m.ip = ip_addr_from_v4(ip);
		assert_int_equal(world_say(&x, &m, sizeof(m), -1), 0);
	}
	assert_int_equal(world_neigh(&x, "10.2.0.33", 0x33, UP, 0), 0);
	world_free(&x);
}

/* A worker that slept has a whole table to look at, and says so until it is through: it must not sleep again before. */
static void ageing_catches_up_after_a_sleep(void **state)
{
	struct msg_dp_config cfg;
	unsigned steps = 1;
	struct world x;

	(void)state;
	world_config(&cfg);
	cfg.flows_max = 8192;
	assert_int_equal(world_new(&x, &cfg), 0);
	for (uint16_t port = 1; port <= 4000; port++) {
		struct frame_spec f = udp_out;

		f.sport = port;
		assert_int_equal(world_one(&x, DEV, &f).edge, EDGE_FORWARD);
	}
	while (worker_age(x.w))
		;
	worker_pin(x.w, x.now_us + 3600 * 1000000ull);
	while (worker_age(x.w))
		steps++;
	assert_int_equal(flow_count(x.w->flows), 0);
	assert_true(steps > 2);
	world_free(&x);
}

/* Each is looked at within a round, although the highest index falls with those that are forgotten. */
static void ageing_leaves_none_out(void **state)
{
	struct msg_dp_config cfg;
	struct world x;

	(void)state;
	world_config(&cfg);
	cfg.flows_max = 65536;
	cfg.udp_unanswered_s = 2;
	cfg.udp_s = 600;
	assert_int_equal(world_new(&x, &cfg), 0);
	x.w->age_at = 0xf0000000; /* wherever it was before */
	for (unsigned round = 0; round < 3; round++) {
		for (uint16_t i = 0; i < 20000; i++) {
			struct frame_spec f = udp_out;

			f.sport = 1000 + i;
			assert_int_equal(world_one(&x, DEV, &f).edge, EDGE_FORWARD);
			if (i < 2000) { /* answered: it lives on */
				f = udp_in;
				f.dport = 1000 + i;
				assert_int_equal(world_one(&x, UP, &f).edge, EDGE_FORWARD);
			}
		}
		x.now_us += (cfg.udp_unanswered_s + 1) * 1000000ull;
		for (unsigned ms = 0; ms < 1100; ms++) {
			x.now_us += 1000;
			worker_pin(x.w, x.now_us);
			while (worker_age(x.w))
				;
		}
		assert_int_equal(flow_count(x.w->flows), 2000);
	}
	world_free(&x);
}

/* Once round its flows a second: a few flows in a large table are no reason to stay awake. */
static void ageing_looks_at_what_is_there(void **state)
{
	struct msg_dp_config cfg;
	struct world x;
	uint32_t at;

	(void)state;
	world_config(&cfg);
	cfg.flows_max = 65536;
	assert_int_equal(world_new(&x, &cfg), 0);
	for (uint16_t port = 1; port <= 2000; port++) {
		struct frame_spec f = udp_out;

		f.sport = port;
		assert_int_equal(world_one(&x, DEV, &f).edge, EDGE_FORWARD);
	}
	while (worker_age(x.w))
		;
	at = x.w->age_at;
	worker_pin(x.w, x.now_us + 100000);
	assert_false(worker_age(x.w));
	assert_in_range((x.w->age_at + 2000 - at) % 2000, 200, 400);
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_opener_opens),
		cmocka_unit_test(a_burst_is_a_sequence),
		cmocka_unit_test(a_lost_standing_stops_the_next_packet),
		cmocka_unit_test(an_expiry_needs_no_agent),
		cmocka_unit_test(a_changed_standing_that_still_allows_loses_no_packet),
		cmocka_unit_test(a_binding_that_goes_takes_its_flows),
		cmocka_unit_test(a_policy_ends_what_it_forbids_and_nothing_else),
		cmocka_unit_test(a_full_table_refuses_and_keeps),
		cmocka_unit_test(refusals_and_diversions_cannot_fill_the_table),
		cmocka_unit_test(idle_flows_age_by_their_state),
		cmocka_unit_test(datagrams_to_a_listener_leave_a_record),
		cmocka_unit_test(ageing_catches_up_after_a_sleep),
		cmocka_unit_test(ageing_looks_at_what_is_there),
		cmocka_unit_test(ageing_leaves_none_out),
		cmocka_unit_test(a_restart_picks_up_what_is_allowed_either_way),
		cmocka_unit_test(an_ended_connection_opens_again_only_by_admission),
		cmocka_unit_test(icmp_errors_follow_their_flow),
		cmocka_unit_test(bad_messages_change_nothing),
		cmocka_unit_test(a_second_sync_keeps_what_it_names),
		cmocka_unit_test(another_trust_table_forgets_everything),
		cmocka_unit_test(neighbours_have_room_beside_the_bindings),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
