/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The whole path in memory: source guard, divert, route, rewrite. Flows over time are in life_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define CAM .smac = 0x10, .dmac = 1
#define PLC .smac = 0x11, .dmac = 1
#define STRANGE .smac = 0x77, .dmac = 1
#define CORE .smac = 0x20, .dmac = 2
#define SYN 2
#define ACK 16
#define ROWS(t) (sizeof(t) / sizeof((t)[0]))

static const struct {
	const char *name;
	uint16_t port;
	struct frame_spec spec;
	enum pkt_edge edge;
	enum drop_reason reason;
} rows[] = {
	/* 1. source guard, device side */
	{"1.1 bound",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 6, .dport = 554, .tcp_flags = SYN},
	 EDGE_FORWARD,
	 0},
	{"1.2 other MAC",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", PLC, .proto = 6, .dport = 554, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_SPOOFED},
	{"1.3 other VLAN",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .vlan = 30, .proto = 6, .dport = 554, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_SPOOFED},
	{"1.4 its VLAN",
	 DEV,
	 {"10.3.0.10", "10.2.0.10", CAM, .vlan = 30, .proto = 6, .dport = 554, .tcp_flags = SYN},
	 EDGE_FORWARD,
	 0},
	{"1.5 unbound",
	 DEV,
	 {"10.1.0.77", "10.2.0.10", STRANGE, .proto = 6, .dport = 554, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"1.6 unbound to the kernel's side",
	 DEV,
	 {"10.1.0.77", "10.8.0.1", STRANGE, .proto = 17},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"1.7 bound to the kernel's side",
	 DEV,
	 {"10.1.0.10", "10.8.0.1", CAM, .proto = 17, .dport = 1},
	 EDGE_KERNEL,
	 0},
	{"1.8 spoofed to a listener",
	 DEV,
	 {"10.1.0.10", "10.1.0.1", STRANGE, .proto = 6, .dport = 8883, .tcp_flags = ACK},
	 EDGE_DROP,
	 DROP_SPOOFED},
	/* 2. what strangers may */
	{"2.1 listener",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 6, .sport = 9, .dport = 8883,
	  .tcp_flags = SYN},
	 EDGE_KERNEL,
	 0},
	{"2.2 the listener's port on another address",
	 DEV,
	 {"10.1.0.77", "10.2.0.1", STRANGE, .proto = 6, .dport = 8883, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.3 the listener's port by UDP",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 17, .dport = 8883},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.4 SSH of the box",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 6, .dport = 22, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.5 DHCP",
	 DEV,
	 {"0.0.0.0", "255.255.255.255", STRANGE, .proto = 17, .sport = 68, .dport = 67},
	 EDGE_KERNEL,
	 0},
	{"2.6 DNS of the box",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 17, .dport = 53},
	 EDGE_KERNEL,
	 0},
	{"2.7 DNS elsewhere",
	 DEV,
	 {"10.1.0.77", "10.2.0.10", STRANGE, .proto = 17, .dport = 53},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.8 ping of the box",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 1, .sport = 8 << 8},
	 EDGE_KERNEL,
	 0},
	{"2.9 ping elsewhere",
	 DEV,
	 {"10.1.0.77", "10.2.0.10", STRANGE, .proto = 1, .sport = 8 << 8},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.10 neighbour solicitation",
	 DEV,
	 {"fe80::77", "ff02::1:ff00:1", STRANGE, .proto = 58, .sport = 135 << 8, .ttl = 255,
	  .payload = 16},
	 EDGE_KERNEL,
	 0},
	{"2.11 multicast DNS",
	 DEV,
	 {"10.1.0.77", "224.0.0.251", STRANGE, .proto = 17, .dport = 5353},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.12 fragment",
	 DEV,
	 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 17, .dport = 53, .fragment = 0x2000},
	 EDGE_DROP,
	 DROP_STRANGER},
	{"2.13 IGMP",
	 DEV,
	 {"0.0.0.0", "224.0.0.22", STRANGE, .proto = 2, .payload = 8},
	 EDGE_DROP,
	 DROP_STRANGER},
	/* 3. source guard, uplink */
	{"3.1 a network",
	 UP,
	 {"10.2.0.10", "10.1.0.11", CORE, .proto = 6, .dport = 502, .tcp_flags = SYN},
	 EDGE_FORWARD,
	 0},
	{"3.2 a device's address",
	 UP,
	 {"10.1.0.10", "10.2.0.10", CORE, .proto = 17, .dport = 5000},
	 EDGE_DROP,
	 DROP_REVERSE_PATH},
	{"3.3 the device side's prefix",
	 UP,
	 {"10.1.0.99", "10.1.0.11", CORE, .proto = 6, .dport = 502, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_REVERSE_PATH},
	{"3.4 our own address",
	 UP,
	 {"10.1.0.1", "10.1.0.11", CORE, .proto = 6, .dport = 502, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_REVERSE_PATH},
	{"3.5 from no network",
	 UP,
	 {"192.0.2.1", "10.1.0.11", CORE, .proto = 6, .dport = 502, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_NO_SEGMENT},
	/* 4. route */
	{"4.1 the box itself",
	 DEV,
	 {"10.1.0.10", "10.1.0.1", CAM, .proto = 6, .dport = 22, .tcp_flags = SYN},
	 EDGE_KERNEL,
	 0},
	{"4.2 no route",
	 DEV,
	 {"10.1.0.10", "203.0.113.1", CAM, .proto = 17, .dport = 5000},
	 EDGE_DROP,
	 DROP_NO_ROUTE},
	{"4.3 through a gateway",
	 DEV,
	 {"10.1.0.10", "10.9.1.1", CAM, .proto = 17, .dport = 5000},
	 EDGE_FORWARD,
	 0},
	{"4.4 TTL at its end",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 5000, .ttl = 1},
	 EDGE_KERNEL,
	 0},
	{"4.5 IP options",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 5000, .options = 1},
	 EDGE_KERNEL,
	 0},
	{"4.6 hop-by-hop",
	 DEV,
	 {"fd01::10", "fd02::10", CAM, .proto = 17, .dport = 5000, .options = 1},
	 EDGE_KERNEL,
	 0},
	{"4.7 other protocol",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 47, .payload = 4},
	 EDGE_KERNEL,
	 0},
	{"4.8 later fragment",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .payload = 8, .fragment = 4},
	 EDGE_KERNEL,
	 0},
	{"4.9 first fragment, allowed",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 5000, .fragment = 0x2000},
	 EDGE_KERNEL,
	 0},
	{"4.10 first fragment, denied",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 4999, .fragment = 0x2000},
	 EDGE_DROP,
	 DROP_DENIED},
	{"4.11 neighbour unknown",
	 DEV,
	 {"10.1.0.10", "10.2.0.99", CAM, .proto = 17, .dport = 5000},
	 EDGE_KERNEL,
	 0},
	{"4.12 above the MTU",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 5000, .payload = 1480},
	 EDGE_KERNEL,
	 0},
	/* 5. admission */
	{"5.1 UDP in the range",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .sport = 1, .dport = 5100},
	 EDGE_FORWARD,
	 0},
	{"5.2 UDP past the range",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .sport = 1, .dport = 5101},
	 EDGE_DROP,
	 DROP_DENIED},
	{"5.3 ping",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 1, .sport = 8 << 8, .dport = 3},
	 EDGE_FORWARD,
	 0},
	{"5.4 ping v6",
	 DEV,
	 {"fd01::10", "fd02::10", CAM, .proto = 58, .sport = 128 << 8, .dport = 3},
	 EDGE_FORWARD,
	 0},
	{"5.5 device to device",
	 DEV,
	 {"10.1.0.10", "10.1.0.11", CAM, .proto = 6, .dport = 7000, .tcp_flags = SYN},
	 EDGE_FORWARD,
	 0},
	{"5.6 and back: no rule",
	 DEV,
	 {"10.1.0.11", "10.1.0.10", PLC, .proto = 6, .dport = 7000, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_DENIED},
	{"5.7 to a stranger in the subnet",
	 DEV,
	 {"10.1.0.10", "10.1.0.99", CAM, .proto = 6, .dport = 7000, .tcp_flags = SYN},
	 EDGE_DROP,
	 DROP_NO_SEGMENT},
	{"5.8 TCP mid-stream",
	 DEV,
	 {"10.1.0.10", "10.2.0.10", CAM, .proto = 6, .dport = 554, .tcp_flags = ACK},
	 EDGE_DROP,
	 DROP_BAD_STATE},
	{"5.9 ICMP reply from nowhere",
	 UP,
	 {"10.2.0.10", "10.1.0.10", CORE, .proto = 1, .sport = 0, .dport = 3},
	 EDGE_DROP,
	 DROP_BAD_STATE},
	{"5.10 ICMP error from nowhere",
	 UP,
	 {"10.2.0.10", "10.1.0.10", CORE, .proto = 1, .sport = 3 << 8, .payload = 28},
	 EDGE_KERNEL,
	 0},
	{"5.11 network to device",
	 UP,
	 {"10.9.3.3", "10.1.0.11", CORE, .proto = 6, .dport = 502, .tcp_flags = SYN},
	 EDGE_FORWARD,
	 0},
};

static void each_packet_takes_one_edge(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct verdict v;
		struct world x;
		uint64_t drops;

		assert_int_equal(world_new(&x, NULL), 0);
		drops = x.w->stats.drops[rows[i].reason];
		v = world_one(&x, rows[i].port, &rows[i].spec);
		if (v.edge != rows[i].edge || v.reason != rows[i].reason)
			fail_msg("%s: edge %u, %s", rows[i].name, v.edge,
				 drop_reason_name(v.reason));
		if (v.edge == EDGE_DROP)
			assert_int_equal(x.w->stats.drops[rows[i].reason], drops + 1);
		world_free(&x);
	}
}

static void nothing_passes_before_the_first_sync(void **state)
{
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	atomic_store(&x.st->ready, false);
	for (size_t i = 0; i < ROWS(rows); i++)
		assert_int_equal(world_one(&x, rows[i].port, &rows[i].spec).edge, EDGE_DROP);
	world_free(&x);
}

static void rewriting_is_a_routers(void **state)
{
	static const struct {
		const char *name;
		uint16_t port;
		struct frame_spec spec;
		uint16_t out_port, vlan;
		uint8_t mac; /* last byte of the next hop's */
	} out[] = {
		{"plain",
		 DEV,
		 {"10.1.0.10", "10.2.0.10", CAM, .proto = 17, .dport = 5000, .payload = 9},
		 UP,
		 0,
		 0x20},
		{"tag off",
		 DEV,
		 {"10.3.0.10", "10.2.0.10", CAM, .vlan = 30, .proto = 17, .dport = 5000},
		 UP,
		 0,
		 0x20},
		{"gateway",
		 DEV,
		 {"10.1.0.10", "10.9.9.9", CAM, .proto = 17, .dport = 5000},
		 UP,
		 0,
		 0x2e},
		{"v6",
		 DEV,
		 {"fd01::10", "fd02::10", CAM, .proto = 17, .dport = 5000, .payload = 3},
		 UP,
		 0,
		 0x20},
		{"device",
		 DEV,
		 {"10.1.0.10", "10.1.0.11", CAM, .proto = 6, .dport = 7000, .tcp_flags = SYN},
		 DEV,
		 0,
		 0x11},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(out); i++) {
		uint8_t want[FRAME_MAX], in[FRAME_MAX];
		struct frame_spec after = out[i].spec;
		struct verdict v;
		struct world x;
		size_t bytes;

		assert_int_equal(world_new(&x, NULL), 0);
		v = world_one(&x, out[i].port, &out[i].spec);
		after.smac = out[i].out_port + 1;
		after.dmac = out[i].mac;
		after.vlan = out[i].vlan;
		after.ttl = 63;
		bytes = frame_make(want, &after);
		frame_make(in, &out[i].spec);
		if (v.edge != EDGE_FORWARD || v.out_port != out[i].out_port || v.bytes != bytes ||
		    memcmp(v.frame, want, bytes) != 0)
			fail_msg("%s: edge %u, %s, %u bytes of %zu", out[i].name, v.edge,
				 drop_reason_name(v.reason), v.bytes, bytes);
		world_free(&x);
	}
}

static void a_reply_gets_its_tag_and_loses_its_padding(void **state)
{
	static const struct frame_spec there = {"10.3.0.10", "10.2.0.10", CAM,		.vlan = 30,
						.proto = 17, .sport = 9,  .dport = 5000};
	static const struct frame_spec back = {"10.2.0.10",   "10.3.0.10", CORE,	.proto = 17,
					       .sport = 5000, .dport = 9,  .payload = 2};
	struct frame_spec after = back;
	uint8_t frame[1][FRAME_MAX], want[FRAME_MAX];
	struct verdict v;
	struct world x;
	size_t bytes;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_int_equal(world_one(&x, DEV, &there).edge, EDGE_FORWARD);
	bytes = frame_make(frame[0], &back);
	memset(frame[0] + bytes, 0xee, 20); /* padding, or a message that no policy sees */
	bytes += 20;
	world_burst(&x, UP, frame, &bytes, 1, &v);
	after.smac = 1;
	after.dmac = 0x10;
	after.vlan = 30;
	after.ttl = 63;
	bytes = frame_make(want, &after);
	assert_int_equal(v.edge, EDGE_FORWARD);
	assert_int_equal(v.bytes, bytes);
	assert_memory_equal(v.frame, want, bytes);
	world_free(&x);
}

static size_t make_arp(uint8_t *b, uint8_t smac, uint8_t sha, const uint8_t *sender)
{
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1};

	memset(b, 0, FRAME_MAX);
	memset(b, 0xff, 6);
	b[6] = 2;
	b[11] = smac;
	b[12] = 8;
	b[13] = 6;
	memcpy(b + 14, head, 8);
	b[22] = 2;
	b[27] = sha;
	memcpy(b + 28, sender, 4);
	return 14 + 28;
}

/* RFC 826: the payload's sender is what the neighbours learn. */
static void arp_and_nd_do_not_move_a_binding(void **state)
{
	static const uint8_t cam[4] = {10, 1, 0, 10}, other[4] = {10, 1, 0, 77}, none[4];
	static const struct frame_spec na = {"fe80::77",   "ff02::1",	      STRANGE,
					     .proto = 58,  .sport = 136 << 8, .ttl = 255,
					     .payload = 16};
	static const struct {
		const char *name;
		uint16_t port;
		uint8_t smac, sha;
		const uint8_t *sender;
		enum pkt_edge edge;
	} arp[] = {
		{"1 its own", DEV, 0x10, 0x10, cam, EDGE_KERNEL},
		{"2 a stranger's own", DEV, 0x77, 0x77, other, EDGE_KERNEL},
		{"3 another's", DEV, 0x77, 0x77, cam, EDGE_DROP},
		{"4 sender differs", DEV, 0x10, 0x77, cam, EDGE_DROP},
		{"5 forged frame", DEV, 0x77, 0x10, cam, EDGE_DROP},
		{"6 from the uplink", UP, 0x10, 0x10, cam, EDGE_DROP},
		{"7 probe", DEV, 0x77, 0x77, none, EDGE_KERNEL},
	};
	uint8_t frame[1][FRAME_MAX];
	struct ip_addr target;
	struct verdict v;
	struct world x;
	size_t bytes;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	for (size_t i = 0; i < ROWS(arp); i++) {
		bytes = make_arp(frame[0], arp[i].smac, arp[i].sha, arp[i].sender);
		world_burst(&x, arp[i].port, frame, &bytes, 1, &v);
		if (v.edge != arp[i].edge || (v.edge == EDGE_DROP && v.reason != DROP_SPOOFED))
			fail_msg("ARP %s: edge %u, %s", arp[i].name, v.edge,
				 drop_reason_name(v.reason));
	}
	bytes = frame_make(frame[0], &na);
	ip_addr_parse(&target, "fd01::10");
	memcpy(frame[0] + 14 + 40 + 8, &target, 16);
	world_burst(&x, DEV, frame, &bytes, 1, &v);
	assert_int_equal(v.reason, DROP_SPOOFED);
	ip_addr_parse(&target, "fd01::77");
	memcpy(frame[0] + 14 + 40 + 8, &target, 16);
	world_burst(&x, DEV, frame, &bytes, 1, &v);
	assert_int_equal(v.edge, EDGE_KERNEL);
	world_free(&x);
}

static struct command ask_origin(struct world *x, uint16_t sport)
{
	struct command c = {.kind = COMMAND_ORIGIN,
			    .id = {.sport = sport, .dport = 8883, .proto = 6}};

	ip_addr_parse(&c.id.src, "10.1.0.77");
	ip_addr_parse(&c.id.dst, "10.1.0.1");
	flow_key_canonical(&c.id);
	assert_true(worker_command_step(x->w, &c));
	return c;
}

/* The origin of a diverted flow decides where the device will be bound. */
static void an_origin_is_written_once(void **state)
{
	struct frame_spec s = {"10.1.0.77", "10.1.0.1",	   STRANGE,	    .proto = 6,
			       .sport = 9,  .dport = 8883, .tcp_flags = SYN};
	struct command c;
	struct world x;

	(void)state;
	assert_int_equal(world_new(&x, NULL), 0);
	assert_int_equal(world_one(&x, DEV, &s).edge, EDGE_KERNEL);
	assert_int_equal(flow_count(x.w->flows), 0); /* a flood of SYNs takes no room */
	s.tcp_flags = ACK;
	assert_int_equal(world_one(&x, DEV, &s).edge, EDGE_KERNEL);
	c = ask_origin(&x, 9);
	assert_int_equal(c.count, 1);
	assert_int_equal(c.origin.port, DEV);
	assert_int_equal(c.origin.mac.b[5], 0x77);
	assert_int_equal(ask_origin(&x, 10).count, 0);
	s.smac = 0x78; /* another host takes over the flow */
	assert_int_equal(world_one(&x, DEV, &s).reason, DROP_SPOOFED);
	assert_int_equal(ask_origin(&x, 9).origin.mac.b[5], 0x77);
	assert_int_equal(x.w->stats.diverted, 2);
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_packet_takes_one_edge),
		cmocka_unit_test(nothing_passes_before_the_first_sync),
		cmocka_unit_test(rewriting_is_a_routers),
		cmocka_unit_test(a_reply_gets_its_tag_and_loses_its_padding),
		cmocka_unit_test(arp_and_nd_do_not_move_a_binding),
		cmocka_unit_test(an_origin_is_written_once),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
