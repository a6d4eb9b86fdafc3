/* SPDX-License-Identifier: GPL-3.0-or-later */
/* To and from the TLS workers' own stack: who gets a packet, what a worker may send, and which way it goes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <rte_ip.h>

#include "dataplane/hotplug.h"
#include "dataplane/links.h"
#include "dataplane/trace.h"
#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define LINK(n) (PORT_LINKS + (n))
#define ANY_LINK 0xfffe
#define CAM .smac = 0x10, .dmac = 1
#define STRANGE .smac = 0x77, .dmac = 1
#define CORE .smac = 0x20, .dmac = 2
#define SYN 2
#define ACK 16
#define TCP .proto = IPPROTO_TCP
#define ROWS(t) (sizeof(t) / sizeof((t)[0]))
#define WORKERS 3

/* Beside the world's own listener of the kernel's sockets: 10.1.0.1:8884 and [fd01::1]:8884 of the stack, whose
 * upstreams are 10.2.0.10:1883, [fd02::10]:1883 and, through a gateway, 10.9.0.5:1883. */
static void config(struct msg_dp_config *c)
{
	static const struct {
		const char *addr;
		uint16_t port;
	} up[] = {{"10.2.0.10", 1883},
		  {"fd02::10", 1883},
		  {"10.9.0.5", 1883},
		  {"10.2.0.99", 1883},
		  {"10.8.0.5", 1883}};

	world_config(c);
	c->flows_max = 4096;
	c->n_listeners = 3;
	for (int i = 1; i < 3; i++) {
		ip_addr_parse(&c->listeners[i].addr, i == 1 ? "10.1.0.1" : "fd01::1");
		c->listeners[i].port = 8884;
		c->listeners[i].proto = IPPROTO_TCP;
		c->listeners[i].stack = 1;
	}
	c->tls_workers = WORKERS;
	c->tls_port_first = 16384;
	c->tls_port_last = 32767;
	strcpy(c->tls_dir, "/tmp");
	for (unsigned i = 0; i < ROWS(up); i++) {
		ip_addr_parse(&c->upstreams[i].addr, up[i].addr);
		c->upstreams[i].port = up[i].port;
		c->upstreams[i].proto = IPPROTO_TCP;
	}
	c->n_upstreams = ROWS(up);
	ip_addr_parse(&c->sources[0], "10.2.0.1");
	ip_addr_parse(&c->sources[1], "fd02::1");
	c->n_sources = 2;
}

static void setup(struct world *x)
{
	struct msg_dp_config c;

	config(&c);
	assert_int_equal(world_new(x, &c), 0);
	for (int n = 0; n < WORKERS; n++)
		x->st->ports[LINK(n)].present = true;
}

static void away(struct world *x, unsigned n, bool is)
{
	x->st->ports[LINK(n)].present = !is;
}

/* As a worker's stack makes it. */
static size_t link_frame(uint8_t *b, const struct frame_spec *s, unsigned n)
{
	const struct mac_addr to = TLS_LINK_MAC_DATAPLANE, from = TLS_LINK_MAC(n);
	size_t bytes = frame_make(b, s);

	memcpy(b, to.b, 6);
	memcpy(b + 6, from.b, 6);
	return bytes;
}

static struct verdict send_by(struct world *x, uint16_t port, const struct frame_spec *s)
{
	uint8_t frame[1][FRAME_MAX];
	size_t bytes = port_is_link(port) ? link_frame(frame[0], s, port - PORT_LINKS)
					  : frame_make(frame[0], s);
	struct verdict v;

	world_burst(x, port, frame, &bytes, 1, &v);
	return v;
}

static void goes(const char *name, const struct verdict *v, uint16_t port, enum drop_reason why)
{
	enum pkt_edge edge = why != DROP_NONE	       ? EDGE_DROP
			     : port == MSG_PORT_KERNEL ? EDGE_KERNEL
						       : EDGE_FORWARD;

	if (v->edge != edge || v->reason != why ||
	    (edge == EDGE_FORWARD &&
	     (port == ANY_LINK ? !port_is_link(v->out_port) : v->out_port != port)))
		fail_msg("%s: edge %u port %u %s, want edge %u port %u %s", name, v->edge,
			 v->out_port, drop_reason_name(v->reason), edge, port,
			 drop_reason_name(why));
}

static void who_gets_and_who_may_send(void **state)
{
	static const struct {
		const char *name;
		uint16_t port;
		struct frame_spec spec;
		uint16_t to; /* of EDGE_FORWARD, or MSG_PORT_KERNEL */
		enum drop_reason reason;
	} rows[] = {
		/* 1. devices to listeners */
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
		/* 2. upstreams' answers */
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
		/* 3. workers to upstreams */
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
		/* 4. workers to devices, without a record */
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
	for (unsigned i = 0; i < ROWS(rows); i++) {
		struct verdict v;
		struct world x;

		setup(&x);
		v = send_by(&x, rows[i].port, &rows[i].spec);
		goes(rows[i].name, &v, rows[i].to, rows[i].reason);
		assert_int_equal(x.w->stats.drops[rows[i].reason], rows[i].reason != DROP_NONE);
		world_free(&x);
	}
}

static const struct frame_spec syn = {"10.1.0.77", "10.1.0.1",	  STRANGE,	   TCP,
				      .sport = 9,  .dport = 8884, .tcp_flags = SYN};
static const struct frame_spec ack = {"10.1.0.77", "10.1.0.1",	  STRANGE,	   TCP,
				      .sport = 9,  .dport = 8884, .tcp_flags = ACK};
static const struct frame_spec back = {"10.1.0.1",    "10.1.0.77", TCP,
				       .sport = 8884, .dport = 9,  .tcp_flags = ACK};

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

/* A SYN that went to the next worker, because its own was away, and the ACK when that one is back. */
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

/* What a worker hears of its packet: @return the MTU that is named */
static uint32_t heard(const struct verdict *v, const struct frame_spec *sent)
{
	bool v4 = strchr(sent->src, ':') == NULL;
	size_t head = v4 ? 20 : 40, bytes = head + 8 + head + 8;
	const uint8_t *ip = v->frame + 14, *icmp = ip + head;
	uint8_t frame[FRAME_MAX];

	assert_int_equal(v->bytes, 14 + bytes);
	frame_make(frame, sent);
	assert_memory_equal(icmp + 8, frame + 14, head + 8);
	if (v4) {
		assert_int_equal(rte_raw_cksum(ip, 20), 0xffff);
		assert_int_equal(rte_raw_cksum(icmp, bytes - 20), 0xffff);
		assert_memory_equal(ip + 16, frame + 14 + 12, 4);
		assert_true(ip[9] == IPPROTO_ICMP && icmp[0] == 3 && icmp[1] == 4);
	} else {
		assert_int_equal(rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)ip, icmp), 0);
		assert_memory_equal(ip + 24, frame + 14 + 8, 16);
		assert_true(ip[6] == IPPROTO_ICMPV6 && icmp[0] == 2 && icmp[1] == 0);
	}
	return (uint32_t)icmp[6] << 8 | icmp[7];
}

static void what_is_too_big_is_answered(void **state)
{
	static const struct frame_spec up4 = {"10.2.0.1",     "10.2.0.10",   TCP,
					      .sport = 16384, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec up6 = {"fd02::1",      "fd02::10",    TCP,
					      .sport = 16384, .dport = 1883, .tcp_flags = ACK};
	struct world x;

	(void)state;
	setup(&x);
	for (int i = 0; i < 2; i++) {
		struct frame_spec s = i == 0 ? up4 : up6;
		uint64_t was = x.w->stats.drops[DROP_TLS_TOO_BIG];
		struct verdict v;

		s.payload = i == 0 ? 1460 : 1440;
		v = send_by(&x, LINK(1), &s);
		goes("fits", &v, UP, DROP_NONE);
		s.payload++;
		v = send_by(&x, LINK(1), &s);
		goes("one byte more", &v, LINK(1), DROP_NONE);
		assert_int_equal(heard(&v, &s), 1500);
		assert_int_equal(x.w->stats.drops[DROP_TLS_TOO_BIG], was + 1);
	}
	world_free(&x);
}

/* An ICMP error about `quoted`, from src to the quoted packet's sender. @return its bytes */
static size_t too_big(uint8_t *b, const struct frame_spec *quoted, const char *src, uint8_t smac,
		      uint8_t dmac, uint16_t type_code)
{
	uint8_t inner[FRAME_MAX];
	struct frame_spec s = {src,	     quoted->src,	    .smac = smac,
			       .dmac = dmac, .proto = IPPROTO_ICMP, .sport = type_code,
			       .payload = 28};
	size_t bytes;

	frame_make(inner, quoted);
	if (strchr(src, ':') != NULL) {
		s.proto = IPPROTO_ICMPV6;
		s.payload = 48;
	}
	bytes = frame_make(b, &s);
	memcpy(b + bytes - s.payload, inner + 14, s.payload);
	return bytes;
}

static void the_stack_hears_of_packets_too_big(void **state)
{
	static const struct frame_spec up4 = {"10.2.0.1",     "10.2.0.10",   TCP,
					      .sport = 16385, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec up6 = {"fd02::1",      "fd02::10",    TCP,
					      .sport = 16386, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec strange = {"10.2.0.1",	  "10.2.0.10",	 TCP,
						  .sport = 40000, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec cam = {"10.1.0.1",    "10.1.0.10", TCP,
					      .sport = 8884, .dport = 9,  .tcp_flags = ACK};
	static const struct {
		const char *name;
		uint16_t port;
		const struct frame_spec *quoted;
		const char *src;
		uint8_t smac;
		uint16_t type_code;
		uint16_t to;
	} rows[] = {
		{"1. to an upstream", UP, &up4, "10.2.0.254", 0x2e, 3 << 8 | 4, LINK(2)},
		{"2. IPv6", UP, &up6, "fd02::fe", 0x2e, 2 << 8, LINK(0)},
		{"3. another error", UP, &up4, "10.2.0.254", 0x2e, 3 << 8 | 1, MSG_PORT_KERNEL},
		{"4. of nobody's port", UP, &strange, "10.2.0.254", 0x2e, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
		{"5. a device, of its own connection", DEV, &cam, "10.1.0.10", 0x10, 3 << 8 | 4,
		 ANY_LINK},
		{"6. a device, of another's", DEV, &cam, "10.1.0.11", 0x11, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
		{"7. a device, of an upstream leg", DEV, &up4, "10.1.0.10", 0x10, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
	};
	struct frame_spec mine = ack;
	uint8_t frame[1][FRAME_MAX];
	struct verdict v;
	struct world x;
	uint16_t at;

	(void)state;
	setup(&x);
	mine.src = "10.1.0.10";
	mine.smac = 0x10;
	at = send_by(&x, DEV, &mine).out_port;
	for (unsigned i = 0; i < ROWS(rows); i++) {
		size_t n = too_big(frame[0], rows[i].quoted, rows[i].src, rows[i].smac,
				   rows[i].port + 1, rows[i].type_code);

		world_burst(&x, rows[i].port, frame, &n, 1, &v);
		goes(rows[i].name, &v, rows[i].to == ANY_LINK ? at : rows[i].to, DROP_NONE);
	}
	world_free(&x);
}

static void a_trace_tells_of_workers(void **state)
{
	struct msg_traced r;
	struct rte_mbuf *m;
	struct world x;
	uint8_t b[FRAME_MAX];
	size_t n;

	(void)state;
	setup(&x);
	for (int from_link = 0; from_link < 2; from_link++) {
		m = rte_pktmbuf_alloc(x.pool);
		n = from_link ? link_frame(b, &back, 2) : frame_make(b, &ack);
		memcpy(rte_pktmbuf_append(m, n), b, n);
		pkt_of(m)->in_port = from_link ? LINK(2) : DEV;
		worker_pin(x.w, x.now_us);
		path_run_noted(x.w, m, &r);
		rte_pktmbuf_free(m);
		assert_true(msg_traced_check(&r, 2));
		assert_int_equal(r.edge, TRACED_FORWARDED);
		assert_int_equal(r.stage, from_link ? TRACED_LINK : TRACED_DIVERT);
		if (from_link)
			assert_int_equal(r.out_port, DEV);
		else
			assert_true(port_is_link(r.out_port));
	}
	world_free(&x);
}

static void expect_lane(struct world *x, const char *name, uint16_t port,
			const struct frame_spec *s, bool by_lane, uint16_t to, enum drop_reason why)
{
	uint64_t before = x->w->stats.lane;
	struct verdict v = send_by(x, port, s);

	goes(name, &v, to, why);
	if (x->w->stats.lane != before + by_lane)
		fail_msg("%s: %s the lane", name, by_lane ? "not by" : "by");
}

/* What guard and divert found is found by the fast lane, as long as it is so. */
static void the_lane_hands_over_what_is_known(void **state)
{
	struct frame_spec mine = {"10.1.0.10",	 "10.1.0.1",	   CAM,		 TCP, .sport = 9,
				  .dport = 8884, .tcp_flags = ACK, .payload = 40};
	const struct frame_spec answer = {
		"10.2.0.10",	"10.2.0.1",	  CORE,		TCP, .sport = 1883,
		.dport = 16385, .tcp_flags = ACK, .payload = 40};
	struct frame_spec other = mine;
	struct flow *f;
	struct world x;
	uint16_t at;

	(void)state;
	setup(&x);
	expect_lane(&x, "first", DEV, &mine, false, ANY_LINK, 0);
	at = send_by(&x, DEV, &mine).out_port;
	expect_lane(&x, "then", DEV, &mine, true, at, 0);
	f = &x.w->flows->flows[x.w->flows->high];
	assert_int_equal(f->packets, 3);
	assert_int_equal(x.w->stats.diverted, 3);
	other.smac = 0x11;
	expect_lane(&x, "another MAC", DEV, &other, false, 0, DROP_SPOOFED);
	other = mine;
	other.vlan = 30;
	expect_lane(&x, "another VLAN", DEV, &other, false, 0, DROP_SPOOFED);
	other = mine;
	other.tcp_flags = SYN;
	expect_lane(&x, "SYN", DEV, &other, false, at, 0);
	other = mine;
	other.options = 1;
	expect_lane(&x, "options", DEV, &other, false, 0, DROP_TLS_UNFIT);
	away(&x, at - PORT_LINKS, true);
	expect_lane(&x, "its worker went", DEV, &mine, false, ANY_LINK, 0);
	expect_lane(&x, "to the next", DEV, &mine, true, ANY_LINK, 0);
	away(&x, at - PORT_LINKS, false);
	world_trust(&x, 5, WORLD_CAMS, STANDING_REVOKED, CLOCK_NEVER_MS);
	expect_lane(&x, "revoked: the TLS worker's to tell", DEV, &mine, true, ANY_LINK, 0);
	world_bind(&x, "10.1.0.10", 0x11, 0, 0, 5);
	expect_lane(&x, "bound elsewhere", DEV, &mine, false, 0, DROP_SPOOFED);
	world_bind(&x, "10.1.0.10", 0, 0, 0, 0);
	expect_lane(&x, "a stranger now", DEV, &mine, false, ANY_LINK, 0);
	expect_lane(&x, "strangers are limited", DEV, &mine, false, ANY_LINK, 0);

	expect_lane(&x, "answer", UP, &answer, false, LINK(2), 0);
	expect_lane(&x, "another answer", UP, &answer, true, LINK(2), 0);
	away(&x, 2, true);
	expect_lane(&x, "no worker", UP, &answer, false, 0, DROP_TLS_DOWN);
	away(&x, 2, false);
	world_route(&x, "10.2.0.10/32", ROUTE_FORWARD, DEV, 0, NULL);
	expect_lane(&x, "routed to the devices", UP, &answer, false, 0, DROP_REVERSE_PATH);
	world_free(&x);
}

/* A device's flow that the fast lane has, and an upstream's: both end with what they belong to, and nothing else does. */
static void listeners_come_and_go(void **state)
{
	const struct frame_spec mine = {
		"10.1.0.10",   "10.1.0.1",	 CAM,	       TCP, .sport = 9,
		.dport = 8886, .tcp_flags = ACK, .payload = 40};
	const struct frame_spec stays = {
		"10.1.0.10",   "10.1.0.1",	 CAM,	       TCP, .sport = 9,
		.dport = 8884, .tcp_flags = ACK, .payload = 40};
	const struct frame_spec answer = {
		"10.2.0.10",	"10.2.0.1",	  CORE,		TCP, .sport = 7777,
		.dport = 16385, .tcp_flags = ACK, .payload = 40};
	const struct frame_spec from_worker = {"10.1.0.1",    "10.1.0.10", TCP,
					       .sport = 8886, .dport = 9,  .tcp_flags = ACK};
	struct msg_dp_config before, more, bad;
	struct err err = {""};
	struct world x;

	(void)state;
	setup(&x);
	before = more = x.st->cfg;
	more.listeners[more.n_listeners] = more.listeners[1];
	more.listeners[more.n_listeners++].port = 8886;
	more.upstreams[more.n_upstreams] = more.upstreams[0];
	more.upstreams[more.n_upstreams++].port = 7777;
	expect_lane(&x, "nobody's", DEV, &mine, false, MSG_PORT_KERNEL, 0);
	expect_lane(&x, "one that stays", DEV, &stays, false, ANY_LINK, 0);
	assert_int_equal(hotplug_apply(x.st, &more, &err), 0);
	expect_lane(&x, "added", DEV, &mine, false, ANY_LINK, 0);
	expect_lane(&x, "then by the lane", DEV, &mine, true, ANY_LINK, 0);
	expect_lane(&x, "its upstream", UP, &answer, false, LINK(2), 0);
	expect_lane(&x, "by the lane too", UP, &answer, true, LINK(2), 0);
	expect_lane(&x, "its worker speaks", LINK(0), &from_worker, false, DEV, 0);
	expect_lane(&x, "the other, looked at anew", DEV, &stays, false, ANY_LINK, 0);
	expect_lane(&x, "and by the lane again", DEV, &stays, true, ANY_LINK, 0);
	bad = before;
	bad.n_upstreams = MSG_UPSTREAMS_MAX + 1;
	assert_int_equal(hotplug_apply(x.st, &bad, &err), -EINVAL);
	bad = before;
	bad.tls_workers++;
	assert_int_equal(hotplug_apply(x.st, &bad, &err), -EINVAL);
	expect_lane(&x, "what is wrong changes nothing", DEV, &mine, true, ANY_LINK, 0);
	assert_int_equal(hotplug_apply(x.st, &before, &err), 0);
	expect_lane(&x, "removed", DEV, &mine, false, MSG_PORT_KERNEL, 0);
	expect_lane(&x, "its worker is not heard", LINK(0), &from_worker, false, 0,
		    DROP_TLS_SOURCE);
	assert_int_not_equal(send_by(&x, UP, &answer).out_port, LINK(2));
	expect_lane(&x, "one that stays is there", DEV, &stays, false, ANY_LINK, 0);
	world_free(&x);
}

static void the_lane_keeps_to_the_rate(void **state)
{
	const struct frame_spec mine = {"10.1.0.10",   "10.1.0.1",	CAM, TCP, .sport = 9,
					.dport = 8884, .tcp_flags = ACK};
	unsigned passed = 0;
	struct msg_dp_config c;
	struct world x;

	(void)state;
	config(&c);
	c.limits.device_tls_packets = 100;
	assert_int_equal(world_new(&x, &c), 0);
	for (int n = 0; n < WORKERS; n++)
		x.st->ports[LINK(n)].present = true;
	for (int i = 0; i < 300; i++)
		passed += send_by(&x, DEV, &mine).edge == EDGE_FORWARD;
	assert_true(passed < 300);
	assert_int_equal(x.w->stats.drops[DROP_KERNEL_RATE], 300 - passed);
	assert_int_equal(x.w->stats.lane, 299);
	world_free(&x);
}

/* The record, and so the way back, is with the worker of the flow: a link's owner hands over. */
static void with_several_workers_the_flows_own_answers(void **state)
{
	struct msg_dp_config c;
	struct verdict v;
	struct world x;
	uint64_t hash;
	uint16_t owner;
	struct flow_key key = {.sport = 9, .dport = 8884, .proto = IPPROTO_TCP};

	(void)state;
	config(&c);
	assert_int_equal(world_of_workers(&x, &c, 2), 0);
	for (int n = 0; n < WORKERS; n++)
		x.st->ports[LINK(n)].present = true;
	assert_int_equal(x.st->ports[LINK(1)].owner, 1);
	ip_addr_parse(&key.src, "10.1.0.77");
	ip_addr_parse(&key.dst, "10.1.0.1");
	flow_key_canonical(&key);
	hash = flow_hash(x.st->seed, &key);
	owner = flow_worker(hash, 2);
	x.w = x.st->workers[!owner];
	v = send_by(&x, LINK(0), &back);
	assert_int_equal(v.edge, EDGE_AWAY);
	v = send_by(&x, DEV, &syn);
	assert_int_equal(v.edge, EDGE_AWAY);
	x.w = x.st->workers[owner];
	v = send_by(&x, DEV, &syn);
	goes("SYN", &v, ANY_LINK, DROP_NONE);
	v = send_by(&x, LINK(0), &back);
	goes("back", &v, DEV, DROP_NONE);
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
		cmocka_unit_test(who_gets_and_who_may_send),
		cmocka_unit_test(frames_are_changed_in_the_link_header_alone),
		cmocka_unit_test(the_way_back_is_the_way_it_came),
		cmocka_unit_test(a_connection_stays_with_its_worker),
		cmocka_unit_test(a_connection_id_names_its_worker),
		cmocka_unit_test(the_ack_follows_its_syn),
		cmocka_unit_test(answers_of_upstreams_go_to_no_other_worker),
		cmocka_unit_test(what_is_too_big_is_answered),
		cmocka_unit_test(the_stack_hears_of_packets_too_big),
		cmocka_unit_test(a_trace_tells_of_workers),
		cmocka_unit_test(with_several_workers_the_flows_own_answers),
		cmocka_unit_test(the_lane_hands_over_what_is_known),
		cmocka_unit_test(listeners_come_and_go),
		cmocka_unit_test(the_lane_keeps_to_the_rate),
		cmocka_unit_test(a_configuration_that_cannot_be_is_refused),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
