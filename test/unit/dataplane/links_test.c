/* SPDX-License-Identifier: GPL-3.0-or-later */
/* To and from the TLS workers' own stack: who gets a packet, what a worker may send, and which way it goes. */
#include "test/unit/dataplane/links_world.h"

struct row {
	const char *name;
	uint16_t port;
	struct frame_spec spec;
	uint16_t to; /* of EDGE_FORWARD, or MSG_PORT_KERNEL */
	enum drop_reason reason;
};

static void passes(const struct row *rows, size_t n)
{
	for (unsigned i = 0; i < n; i++) {
		struct verdict v;
		struct world x;

		setup(&x);
		v = send_by(&x, rows[i].port, &rows[i].spec);
		goes(rows[i].name, &v, rows[i].to, rows[i].reason);
		assert_int_equal(x.w->stats.drops[rows[i].reason], rows[i].reason != DROP_NONE);
		world_free(&x);
	}
}

static void devices_to_listeners(void **state)
{
	static const struct row rows[] = {
		{"1.1 a stranger's SYN",
		 DEV,
		 {"10.1.0.77", "10.1.0.1", STRANGE, TCP, .sport = 9, .dport = 8884,
		  .tcp_flags = SYN},
		 ANY_LINK,
		 0},
		{"1.2 IPv6",
		 DEV,
		 {"fd01::77", "fd01::1", STRANGE, TCP, .sport = 9, .dport = 8884, .tcp_flags = SYN},
		 ANY_LINK,
		 0},
		{"1.3 the kernel's listener",
		 DEV,
		 {"10.1.0.77", "10.1.0.1", STRANGE, TCP, .sport = 9, .dport = 8883,
		  .tcp_flags = SYN},
		 MSG_PORT_KERNEL,
		 0},
		{"1.4 by UDP",
		 DEV,
		 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 17, .sport = 9, .dport = 8884},
		 0,
		 DROP_STRANGER},
		{"1.5 first fragment",
		 DEV,
		 {"10.1.0.10", "10.1.0.1", CAM, TCP, .sport = 9, .dport = 8884, .tcp_flags = ACK,
		  .fragment = 0x2000},
		 0,
		 DROP_TLS_UNFIT},
		{"1.6 options",
		 DEV,
		 {"10.1.0.10", "10.1.0.1", CAM, TCP, .sport = 9, .dport = 8884, .tcp_flags = ACK,
		  .options = 1},
		 0,
		 DROP_TLS_UNFIT},
		{"1.7 forged",
		 DEV,
		 {"10.1.0.10", "10.1.0.1", STRANGE, TCP, .sport = 9, .dport = 8884,
		  .tcp_flags = ACK},
		 0,
		 DROP_SPOOFED},
		{"1.8 ping of the listener's address",
		 DEV,
		 {"10.1.0.77", "10.1.0.1", STRANGE, .proto = 1, .sport = 8 << 8},
		 MSG_PORT_KERNEL,
		 0},
	};

	(void)state;
	passes(rows, ROWS(rows));
}

static void upstreams_answers(void **state)
{
	static const struct row rows[] = {
		{"2.1 port of worker 1",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 16384,
		  .tcp_flags = ACK},
		 LINK(1),
		 0},
		{"2.2 port of worker 2",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 16385,
		  .tcp_flags = ACK},
		 LINK(2),
		 0},
		{"2.3 IPv6",
		 UP,
		 {"fd02::10", "fd02::1", CORE, TCP, .sport = 1883, .dport = 32766,
		  .tcp_flags = ACK},
		 LINK(0),
		 0},
		{"2.4 below the range",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 16383,
		  .tcp_flags = ACK},
		 MSG_PORT_KERNEL,
		 0},
		{"2.5 above",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 32768,
		  .tcp_flags = ACK},
		 MSG_PORT_KERNEL,
		 0},
		{"2.6 no upstream's port",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1884, .dport = 16384,
		  .tcp_flags = ACK},
		 MSG_PORT_KERNEL,
		 0},
		{"2.7 no upstream's address",
		 UP,
		 {"10.2.0.11", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 16384,
		  .tcp_flags = ACK},
		 MSG_PORT_KERNEL,
		 0},
		{"2.8 by UDP",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, .proto = 17, .sport = 1883, .dport = 16384},
		 MSG_PORT_KERNEL,
		 0},
		{"2.9 another address of the box",
		 UP,
		 {"10.2.0.10", "10.1.0.1", CORE, TCP, .sport = 1883, .dport = 16384,
		  .tcp_flags = ACK},
		 MSG_PORT_KERNEL,
		 0},
		{"2.10 first fragment",
		 UP,
		 {"10.2.0.10", "10.2.0.1", CORE, TCP, .sport = 1883, .dport = 16384,
		  .tcp_flags = ACK, .fragment = 0x2000},
		 0,
		 DROP_TLS_UNFIT},
		{"2.11 a device that plays an upstream",
		 DEV,
		 {"10.2.0.10", "10.2.0.1", STRANGE, TCP, .sport = 1883, .dport = 16384,
		  .tcp_flags = ACK},
		 0,
		 DROP_STRANGER},
	};

	(void)state;
	passes(rows, ROWS(rows));
}

static void workers_to_upstreams(void **state)
{
	static const struct row rows[] = {
		{"3.1 its port",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 UP,
		 0},
		{"3.2 IPv6",
		 LINK(2),
		 {"fd02::1", "fd02::10", TCP, .sport = 16385, .dport = 1883, .tcp_flags = SYN},
		 UP,
		 0},
		{"3.3 by way of a gateway",
		 LINK(0),
		 {"10.2.0.1", "10.9.0.5", TCP, .sport = 16386, .dport = 1883, .tcp_flags = SYN},
		 UP,
		 0},
		{"3.13 unknown neighbour",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.99", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_NO_NEIGHBOUR},
		{"3.14 behind a kernel-only port",
		 LINK(1),
		 {"10.2.0.1", "10.8.0.5", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_NO_ROUTE},
	};

	(void)state;
	passes(rows, ROWS(rows));
}

static void workers_send_nothing_else_there(void **state)
{
	static const struct row rows[] = {
		{"3.4 another worker's port",
		 LINK(0),
		 {"10.2.0.1", "10.2.0.10", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.5 a port of nobody's",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", TCP, .sport = 40000, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.6 no upstream's port",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", TCP, .sport = 16384, .dport = 22, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.7 no upstream",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.11", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.8 another source",
		 LINK(1),
		 {"10.2.0.2", "10.2.0.10", TCP, .sport = 16384, .dport = 1883, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.9 a device's address",
		 LINK(1),
		 {"10.1.0.10", "10.2.0.10", TCP, .sport = 16384, .dport = 554, .tcp_flags = SYN},
		 0,
		 DROP_TLS_SOURCE},
		{"3.10 by UDP",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", .proto = 17, .sport = 16384, .dport = 1883},
		 0,
		 DROP_TLS_SOURCE},
		{"3.11 ping",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", .proto = 1, .sport = 8 << 8},
		 0,
		 DROP_TLS_UNFIT},
		{"3.12 fragment",
		 LINK(1),
		 {"10.2.0.1", "10.2.0.10", TCP, .sport = 16384, .dport = 1883, .tcp_flags = ACK,
		  .fragment = 0x2000},
		 0,
		 DROP_TLS_UNFIT},
	};

	(void)state;
	passes(rows, ROWS(rows));
}

static void workers_to_devices_without_a_record(void **state)
{
	static const struct row rows[] = {
		{"4.1 bound",
		 LINK(0),
		 {"10.1.0.1", "10.1.0.10", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 DEV,
		 0},
		{"4.2 bound, IPv6",
		 LINK(2),
		 {"fd01::1", "fd01::10", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 DEV,
		 0},
		{"4.3 bound on a VLAN",
		 LINK(0),
		 {"10.1.0.1", "10.3.0.10", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 DEV,
		 0},
		{"4.4 a stranger that nobody knows",
		 LINK(0),
		 {"10.1.0.1", "10.1.0.78", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 0,
		 DROP_NO_NEIGHBOUR},
		{"4.5 as the kernel's listener",
		 LINK(0),
		 {"10.1.0.1", "10.1.0.10", TCP, .sport = 8883, .dport = 7, .tcp_flags = ACK},
		 0,
		 DROP_TLS_SOURCE},
		{"4.6 another port of the address",
		 LINK(0),
		 {"10.1.0.1", "10.1.0.10", TCP, .sport = 22, .dport = 7, .tcp_flags = ACK},
		 0,
		 DROP_TLS_SOURCE},
		{"4.7 to the box",
		 LINK(0),
		 {"10.1.0.1", "10.2.0.1", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 0,
		 DROP_NO_ROUTE},
		{"4.8 multicast",
		 LINK(0),
		 {"10.1.0.1", "224.0.0.1", TCP, .sport = 8884, .dport = 7, .tcp_flags = ACK},
		 0,
		 DROP_NO_ROUTE},
		{"4.9 without a tag only",
		 LINK(0),
		 {"10.1.0.1", "10.1.0.10", .vlan = 30, TCP, .sport = 8884, .dport = 7,
		  .tcp_flags = ACK},
		 0,
		 DROP_UNKNOWN_VLAN},
	};

	(void)state;
	passes(rows, ROWS(rows));
}

static void frames_are_changed_in_the_link_header_alone(void **state)
{
	const struct mac_addr ours = TLS_LINK_MAC_DATAPLANE;
	uint8_t frame[1][FRAME_MAX], sent[FRAME_MAX];
	struct frame_spec s = syn;
	struct mac_addr theirs;
	struct verdict v;
	struct world x;
	size_t bytes;

	(void)state;
	setup(&x);
	/* to the worker: the tag goes, TTL and all of IP stay */
	s.src = "10.3.0.10";
	s.smac = 0x10;
	s.vlan = 30;
	bytes = frame_make(frame[0], &s);
	memcpy(sent, frame[0], bytes);
	world_burst(&x, DEV, frame, &bytes, 1, &v);
	goes("in", &v, ANY_LINK, DROP_NONE);
	theirs = (struct mac_addr)TLS_LINK_MAC(v.out_port - PORT_LINKS);
	assert_int_equal(v.bytes, bytes - 4);
	assert_memory_equal(v.frame, theirs.b, 6);
	assert_memory_equal(v.frame + 6, ours.b, 6);
	assert_int_equal(v.frame[12] << 8 | v.frame[13], 0x0800);
	assert_memory_equal(v.frame + 14, sent + 18, bytes - 18);
	/* and from it: by the way that the SYN came, before any record is made */
	s = (struct frame_spec){"10.1.0.1",    "10.3.0.10", TCP,
				.sport = 8884, .dport = 9,  .tcp_flags = SYN | ACK};
	bytes = link_frame(frame[0], &s, 0);
	memcpy(sent, frame[0], bytes);
	world_burst(&x, LINK(0), frame, &bytes, 1, &v);
	goes("out", &v, DEV, DROP_NONE);
	assert_int_equal(v.bytes, bytes + 4);
	assert_memory_equal(v.frame, "\2\0\0\0\0\x10\2\0\0\0\0\1\x81\0\0\x1e\x08\0", 18);
	assert_memory_equal(v.frame + 18, sent + 14, bytes - 14);
	world_free(&x);
}

static void the_way_back_is_the_way_it_came(void **state)
{
	struct frame_spec other = back;
	struct verdict v;
	struct world x;

	(void)state;
	setup(&x);
	v = send_by(&x, LINK(0), &back);
	goes("nobody was heard", &v, 0, DROP_NO_NEIGHBOUR);
	v = send_by(&x, DEV, &syn);
	assert_int_equal(flow_count(x.w->flows), 0);
	v = send_by(&x, LINK(0), &back);
	goes("after its SYN", &v, DEV, DROP_NONE);
	assert_int_equal(v.frame[5], 0x77);
	other.dport = 10;
	v = send_by(&x, LINK(0), &other);
	goes("another connection of it", &v, 0, DROP_NO_NEIGHBOUR);
	x.now_us += (uint64_t)ORIGIN_TICKS * 64;
	v = send_by(&x, LINK(0), &back);
	goes("a SYN long ago", &v, 0, DROP_NO_NEIGHBOUR);
	v = send_by(&x, DEV, &ack);
	assert_int_equal(flow_count(x.w->flows), 1);
	x.now_us += (uint64_t)ORIGIN_TICKS * 64;
	v = send_by(&x, LINK(0), &back);
	goes("by the record", &v, DEV, DROP_NONE);
	assert_int_equal(v.frame[5], 0x77);
	x.st->ports[DEV].present = false;
	v = send_by(&x, LINK(0), &back);
	goes("its port has gone", &v, 0, DROP_NO_PORT);
	x.st->ports[DEV].present = true;
	world_neigh(&x, "10.1.0.78", 0x78, DEV, 0);
	other = back;
	other.dst = "10.1.0.78";
	v = send_by(&x, LINK(0), &other);
	goes("by route and neighbour", &v, DEV, DROP_NONE);
	assert_int_equal(v.frame[5], 0x78);
	world_free(&x);
}

static void a_connection_stays_with_its_worker(void **state)
{
	unsigned got[WORKERS] = {0}, after[WORKERS] = {0};
	struct frame_spec s = ack;
	uint16_t home[300];
	struct verdict v;
	struct world x, y;

	(void)state;
	setup(&x);
	setup(&y); /* the next run of the dataplane: another seed of its flow table */
	s.src = "10.1.0.10";
	s.smac = 0x10;
	for (unsigned i = 0; i < ROWS(home); i++) {
		s.sport = 1000 + i;
		s.tcp_flags = SYN;
		home[i] = send_by(&x, DEV, &s).out_port;
		s.tcp_flags = ACK;
		v = send_by(&x, DEV, &s);
		goes("its ACK", &v, home[i], DROP_NONE);
		v = send_by(&y, DEV, &s);
		goes("after a restart", &v, home[i], DROP_NONE);
		got[home[i] - PORT_LINKS]++;
	}
	for (unsigned n = 0; n < WORKERS; n++)
		assert_in_range(got[n], 60, 140);
	/* one goes: its connections go to others and stay there, also when it is back */
	away(&x, 1, true);
	for (unsigned i = 0; i < ROWS(home); i++) {
		s.sport = 1000 + i;
		v = send_by(&x, DEV, &s);
		goes("others are where they were", &v, home[i] == LINK(1) ? LINK(2) : home[i],
		     DROP_NONE);
	}
	away(&x, 1, false);
	for (unsigned i = 0; i < ROWS(home); i++) {
		s.sport = 1000 + i;
		after[send_by(&x, DEV, &s).out_port - PORT_LINKS]++;
	}
	assert_int_equal(after[0], got[0]);
	assert_int_equal(after[1], 0);
	assert_int_equal(after[2], got[1] + got[2]);
	/* all go */
	for (unsigned n = 0; n < WORKERS; n++)
		away(&x, n, true);
	v = send_by(&x, DEV, &s);
	goes("none is there", &v, 0, DROP_TLS_DOWN);
	world_free(&x);
	world_free(&y);
}

/* Whatever address it comes from. Record heads of RFC 9146 and RFC 9147. */
static void a_connection_id_names_its_worker(void **state)
{
	static const struct {
		const char *name;
		uint8_t record[20];
		uint16_t bytes;
		int worker; /* -1: any */
	} rows[] = {
		{"DTLS 1.2", {25, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 2}, 40, 2},
		{"DTLS 1.3", {0x3c, 1}, 40, 1},
		{"DTLS 1.3, short sequence number", {0x30, 0}, 40, 0},
		{"a worker that is not", {0x30, WORKERS}, 40, -1},
		{"a number far beyond", {0x30, 255}, 40, -1},
		{"without an ID", {0x2c, 1}, 40, -1},
		{"a ClientHello", {22, 0xfe, 0xff}, 40, -1},
		{"type 25 of something else", {25, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2}, 40, -1},
		{"too short", {0x30, 1}, 12, -1},
		{"nothing", {0}, 0, -1},
	};
	uint8_t frame[1][FRAME_MAX];
	struct msg_dp_config c;
	struct verdict v;
	struct world x;
	unsigned by_name = 0;

	(void)state;
	config(&c);
	c.listeners[1].proto = IPPROTO_UDP;
	assert_int_equal(world_new(&x, &c), 0);
	for (int n = 0; n < WORKERS; n++)
		x.st->ports[LINK(n)].present = true;
	for (size_t i = 0; i < ROWS(rows); i++) {
		uint32_t seen = 0;

		for (uint16_t sport = 1; sport <= 40; sport++) {
			struct frame_spec s = {"10.1.0.77",
					       "10.1.0.1",
					       STRANGE,
					       .proto = IPPROTO_UDP,
					       .sport = (uint16_t)(sport + i * 100),
					       .dport = 8884,
					       .payload = rows[i].bytes};
			size_t bytes = frame_make(frame[0], &s);

			memcpy(frame[0] + 14 + 28, rows[i].record,
			       rows[i].bytes < 20 ? rows[i].bytes : 20);
			world_burst(&x, DEV, frame, &bytes, 1, &v);
			x.now_us += 100000; /* strangers have a rate */
			goes(rows[i].name, &v, ANY_LINK, DROP_NONE);
			seen |= 1u << (v.out_port - PORT_LINKS);
		}
		if (rows[i].worker >= 0 ? seen != 1u << rows[i].worker
					: seen != (1u << WORKERS) - 1)
			fail_msg("%s: workers %x", rows[i].name, seen);
		by_name += rows[i].worker >= 0;
	}
	assert_int_equal(by_name, 3);
	world_free(&x);
}

/* A SYN that went to the next worker, because its own was away, and the ACK when that one is back. */
static void the_ack_follows_its_syn(void **state)
{
	struct frame_spec s = syn;
	struct verdict v;
	struct world x;
	uint16_t home, next;

	(void)state;
	setup(&x);
	home = send_by(&x, DEV, &s).out_port;
	s.tcp_flags = SYN;
	away(&x, home - PORT_LINKS, true);
	next = send_by(&x, DEV, &s).out_port;
	assert_int_not_equal(next, home);
	away(&x, home - PORT_LINKS, false);
	v = send_by(&x, DEV, &ack);
	goes("ACK", &v, next, DROP_NONE);
	world_free(&x);
}

static void answers_of_upstreams_go_to_no_other_worker(void **state)
{
	const struct frame_spec s = {"10.2.0.10",    "10.2.0.1",      CORE, TCP, .sport = 1883,
				     .dport = 16384, .tcp_flags = ACK};
	struct verdict v;
	struct world x;

	(void)state;
	setup(&x);
	away(&x, 1, true);
	v = send_by(&x, UP, &s);
	goes("its worker is away", &v, 0, DROP_TLS_DOWN);
	world_free(&x);
}

static void a_configuration_that_cannot_be_is_refused(void **state)
{
	struct err err = {""};
	struct msg_dp_config c;

	(void)state;
	config(&c);
	assert_int_equal(state_config_check(&c, &err), 0);
	c.tls_workers = MSG_TLS_WORKERS_MAX + 1;
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
	config(&c);
	c.n_upstreams = MSG_UPSTREAMS_MAX + 1;
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
	config(&c);
	c.n_sources = MSG_SOURCES_MAX + 1;
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
	config(&c);
	c.tls_port_first = c.tls_port_last + 1;
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
	config(&c);
	memset(c.tls_dir, 'x', sizeof(c.tls_dir));
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
	config(&c);
	c.tls_workers = 0; /* and a listener that wants them */
	assert_int_equal(state_config_check(&c, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices_to_listeners),
		cmocka_unit_test(upstreams_answers),
		cmocka_unit_test(workers_to_upstreams),
		cmocka_unit_test(workers_send_nothing_else_there),
		cmocka_unit_test(workers_to_devices_without_a_record),
		cmocka_unit_test(frames_are_changed_in_the_link_header_alone),
		cmocka_unit_test(the_way_back_is_the_way_it_came),
		cmocka_unit_test(a_connection_stays_with_its_worker),
		cmocka_unit_test(a_connection_id_names_its_worker),
		cmocka_unit_test(the_ack_follows_its_syn),
		cmocka_unit_test(answers_of_upstreams_go_to_no_other_worker),
		cmocka_unit_test(a_configuration_that_cannot_be_is_refused),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
