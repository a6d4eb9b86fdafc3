/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences of frames through the whole path, with standings and TLS workers that come and go. Whatever the bytes: what
 * leaves by the fast path is between a bound device that may pass now and somebody, from the right MAC, and unbound never;
 * or it is a listener's of the TLS workers' stack, or their upstreams'. A second world without the fast lane gets the same,
 * and must judge the same. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/links.h"
#include "test/unit/dataplane/world.h"

#define MAY_PORT 1u
#define MAY_LINK 0x80 /* of the second byte: from TLS worker 0 or 1, by MAY_PORT */
#define MAY_AWAY 0x40 /* of the second byte, with MAY_LINK: that worker comes or goes before */
#define MORE 0x3f /* of the second byte: a quarter of the bytes that follow */
#define WORKERS 2
#define MAY_MACS 2u /* make the MACs right, so that the fuzzer gets deeper */
#define MAY_SUM 4u
#define MAY_REVOKE 8u
#define MAY_TIME 16u
#define MAY_TEMPLATE                                                                               \
	32u /* a good frame, patched by pairs (offset, value); the two bits above say which */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct frame_spec templates[4][4] = {
	{{"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 6, .sport = 9, .dport = 554,
	  .tcp_flags = 2},
	 {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9,
	  .dport = 5000},
	 {"fd01::10", "fd02::10", .smac = 0x10, .dmac = 1, .proto = 58, .sport = 128 << 8,
	  .dport = 1},
	 {"10.1.0.77", "10.1.0.1", .smac = 0x77, .dmac = 1, .proto = 6, .sport = 9, .dport = 8884,
	  .tcp_flags = 16}},
	{{"10.2.0.10", "10.1.0.10", .smac = 0x20, .dmac = 2, .proto = 6, .sport = 554, .dport = 9,
	  .tcp_flags = 18},
	 {"10.2.0.10", "10.1.0.10", .smac = 0x20, .dmac = 2, .proto = 17, .sport = 5000,
	  .dport = 9},
	 {"fd02::10", "fd01::10", .smac = 0x20, .dmac = 2, .proto = 58, .sport = 129 << 8,
	  .dport = 1},
	 {"10.2.0.10", "10.2.0.1", .smac = 0x20, .dmac = 2, .proto = 6, .sport = 1883,
	  .dport = 16384, .tcp_flags = 16}},
	{{"10.1.0.1", "10.1.0.77", .proto = 6, .sport = 8884, .dport = 9, .tcp_flags = 18},
	 {"10.1.0.1", "10.1.0.10", .proto = 6, .sport = 8884, .dport = 9, .tcp_flags = 16},
	 {"10.2.0.1", "10.2.0.10", .proto = 6, .sport = 16384, .dport = 1883, .tcp_flags = 2},
	 {"fd01::1", "fd01::10", .proto = 6, .sport = 8884, .dport = 9, .tcp_flags = 16}},
	{{"10.1.0.1", "10.1.0.77", .proto = 6, .sport = 8884, .dport = 9, .tcp_flags = 18},
	 {"10.2.0.1", "10.9.0.5", .proto = 6, .sport = 16385, .dport = 1883, .tcp_flags = 16},
	 {"10.2.0.1", "10.2.0.10", .proto = 6, .sport = 16385, .dport = 1883, .tcp_flags = 2},
	 {"10.1.0.1", "10.3.0.10", .proto = 6, .sport = 8884, .dport = 9, .tcp_flags = 16}},
};
#define FLOWS_OF_A_DEVICE 24

/* As world_policy, with rates; and caps that a sequence of frames can reach. */
static const char policy[] =
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } );\n"
	"               limits = { new_flows = 20; }; },\n"
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } );\n"
	"               limits = { rate = \"400 packet/s\"; }; } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\", \"10.9.0.0/16\", "
	"\"fd02::/64\" ]; } );\n"
	"rules = ( { from = \"cams\"; to = \"core\"; service = [ \"tcp/554\", \"ping\" ]; },\n"
	"          { from = \"cams\"; to = \"core\"; service = \"udp/5000-5100\"; rate = \"1 "
	"Mbit/s\"; "
	"},\n"
	"          { from = \"core\"; to = \"plcs\"; service = [ \"tcp/502\" ]; },\n"
	"          { from = \"cams\"; to = \"plcs\"; service = [ \"tcp/7000\" ]; } );\n";

static struct world world, plain;
static bool revoked;

static void end(void)
{
	world_free(&world);
	world_free(&plain);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct msg_dp_config cfg;

	(void)argc;
	(void)argv;
	world_config(&cfg);
	cfg.n_listeners = 3;
	for (int i = 1; i < 3; i++) {
		ip_addr_parse(&cfg.listeners[i].addr, i == 1 ? "10.1.0.1" : "fd01::1");
		cfg.listeners[i].port = 8884;
		cfg.listeners[i].proto = IPPROTO_TCP;
		cfg.listeners[i].stack = 1;
	}
	cfg.tls_workers = WORKERS;
	cfg.tls_port_first = 16384;
	cfg.tls_port_last = 32767;
	cfg.n_upstreams = 2;
	ip_addr_parse(&cfg.upstreams[0].addr, "10.2.0.10");
	ip_addr_parse(&cfg.upstreams[1].addr, "10.9.0.5");
	cfg.upstreams[0].port = cfg.upstreams[1].port = 1883;
	cfg.upstreams[0].proto = cfg.upstreams[1].proto = IPPROTO_TCP;
	cfg.n_sources = 1;
	ip_addr_parse(&cfg.sources[0], "10.2.0.1");
	cfg.limits = (struct msg_limits){.device_flows = FLOWS_OF_A_DEVICE,
					 .device_kernel_packets = 100,
					 .device_tls_packets = 100,
					 .network_flows_pct = 5,
					 .stranger_packets = 300,
					 .stranger_each_packets = 100,
					 .stranger_new_flows = 100,
					 .stranger_each_new_flows = 20};
	if (world_eal() < 0 || world_new(&world, &cfg) < 0 || world_new(&plain, &cfg) < 0 ||
	    world_policy_set(&world, policy, 2) < 0 || world_policy_set(&plain, policy, 2) < 0)
		abort();
	atomic_store(&plain.st->lane_off, true);
	/* The small cache of origins forgets by the hash: both worlds must forget the same. */
	memcpy(plain.st->seed, world.st->seed, sizeof(plain.st->seed));
	memcpy(plain.w->flows->seed, world.w->flows->seed, sizeof(plain.w->flows->seed));
	plain.st->tls_seed = world.st->tls_seed;
	world.now_us = plain.now_us;
	atexit(end);
	return 0;
}

static bool is_link(uint16_t port)
{
	return port_is_link(port);
}

/* Of the templates: 0 device side, 1 uplink, 2 and 3 the links. */
static unsigned row_of(uint16_t port)
{
	return is_link(port) ? 2u + port - PORT_LINKS : port;
}

static void repair_macs(uint8_t *b, uint16_t port)
{
	const struct mac_addr to = TLS_LINK_MAC_DATAPLANE, from = TLS_LINK_MAC(port - PORT_LINKS);

	if (is_link(port)) {
		memcpy(b, to.b, 6);
		memcpy(b + 6, from.b, 6);
		return;
	}
	b[0] = b[6] = 2;
	memset(b + 1, 0, 4);
	memset(b + 7, 0, 4);
	b[5] = port + 1;
	b[11] = port == 0 ? 0x10 : 0x20;
}

static void repair(uint8_t *b, size_t n, uint8_t flags, uint16_t port)
{
	size_t header;

	if ((flags & MAY_MACS) && n >= 12)
		repair_macs(b, port);
	if (!(flags & MAY_SUM) || n < 34 || b[12] != 8 || b[13] != 0)
		return;
	header = (size_t)(b[14] & 15) * 4;
	if (header < 20 || 14 + header > n)
		return;
	frame_put16(b + 24, 0);
	frame_put16(b + 24, frame_sum(b + 14, header));
}

static void fill(uint8_t *b, size_t *n, const uint8_t *data, uint8_t flags, uint16_t port)
{
	size_t given = *n;

	if (!(flags & MAY_TEMPLATE)) {
		memcpy(b, data, given);
		return;
	}
	*n = frame_make(b, &templates[row_of(port)][flags >> 6]);
	if (is_link(port))
		repair_macs(b, port);
	for (size_t i = 0; i + 1 < given; i += 2)
		b[data[i]] = data[i + 1];
}

/* 0: no device; else its slot */
static uint32_t slot_of(const uint8_t *frame, size_t off4, size_t off6, bool v4)
{
	struct ip_addr a = v4 ? ip_addr_from_v4(frame + off4) : ip_addr_from_v6(frame + off6);
	const struct binding *b = bindings_find(world.st->bindings, &a);

	return b != NULL ? b->slot : 0;
}

struct ends {
	struct ip_addr src, dst;
	uint16_t sport, dport; /* TCP's, or whatever lies there */
	uint8_t proto;
};

static struct ends ends_of(const uint8_t *ip)
{
	bool v4 = ip[0] >> 4 == 4;
	const uint8_t *l4 = ip + (v4 ? (size_t)(ip[0] & 15) * 4 : 40);

	return (struct ends){v4 ? ip_addr_from_v4(ip + 12) : ip_addr_from_v6(ip + 8),
			     v4 ? ip_addr_from_v4(ip + 16) : ip_addr_from_v6(ip + 24),
			     (uint16_t)(l4[0] << 8 | l4[1]), (uint16_t)(l4[2] << 8 | l4[3]),
			     v4 ? ip[9] : ip[6]};
}

static bool of_stack(const struct ip_addr *addr, uint16_t port, uint8_t proto)
{
	const struct msg_listener *l = links_listener(world.st, addr, port, proto);

	return l != NULL && l->stack;
}

/* To a TLS worker comes what is for a listener of the stack, or an upstream's answer to this worker's port, or an error
 * about either; never from a worker. */
static void check_to_link(const struct verdict *v, uint16_t port)
{
	struct ends e = ends_of(v->frame + 14);
	uint16_t n = v->out_port - PORT_LINKS;

	if (is_link(port) || n >= WORKERS || !world.st->ports[v->out_port].present)
		abort();
	if (e.proto == IPPROTO_ICMP || e.proto == IPPROTO_ICMPV6 || e.proto == IPPROTO_DSTOPTS ||
	    of_stack(&e.dst, e.dport, e.proto))
		return;
	if (port != 1 || e.dport % WORKERS != n ||
	    links_upstream(world.st, &e.dst, e.dport, &e.src, e.sport, e.proto) < 0)
		abort();
}

/* What a worker sends leaves with an address and port of its own, unchanged but for the link header. */
static void check_from_link(const struct verdict *v, uint16_t port, const uint8_t *before)
{
	size_t l3 = v->frame[12] == 0x81 ? 18 : 14;
	struct ends e = ends_of(v->frame + l3);

	if (v->edge == EDGE_KERNEL)
		abort();
	if (v->edge != EDGE_FORWARD)
		return;
	if (is_link(v->out_port) || memcmp(v->frame + l3, before + 14, v->bytes - l3) != 0)
		abort();
	if (e.proto == IPPROTO_DSTOPTS || of_stack(&e.src, e.sport, e.proto))
		return;
	if (e.sport % WORKERS != port - PORT_LINKS || v->out_port != 1 ||
	    links_upstream(world.st, &e.src, e.sport, &e.dst, e.dport, e.proto) < 0)
		abort();
}

static void check(const struct verdict *v, uint16_t port, const uint8_t *before)
{
	size_t l3 = v->frame[12] == 0x81 ? 18 : 14;
	bool v4 = v->frame[l3] >> 4 == 4;
	uint32_t src, dst;

	if (is_link(port)) {
		check_from_link(v, port, before);
		return;
	}
	if (v->edge == EDGE_KERNEL && memcmp(v->frame, before, v->bytes) != 0)
		abort(); /* the kernel gets what came */
	if (v->edge != EDGE_FORWARD)
		return;
	if (is_link(v->out_port)) {
		check_to_link(v, port);
		return;
	}
	src = slot_of(v->frame + l3, 12, 8, v4);
	dst = slot_of(v->frame + l3, 16, 24, v4);
	if (port == 0 && (src == 0 || before[11] != (src == 5 ? 0x10 : 0x11)))
		abort();
	if (port == 1 && (src != 0 || dst == 0 || v->out_port != 0))
		abort();
	if (revoked && (src == 5 || dst == 5))
		abort();
	if (v->frame[l3 + (v4 ? 8 : 7)] == 0)
		abort();
}

static void links_all(bool present)
{
	for (unsigned n = 0; n < WORKERS; n++) {
		world.st->ports[PORT_LINKS + n].present = present;
		plain.st->ports[PORT_LINKS + n].present = present;
	}
}

static void link_turn(uint16_t port)
{
	bool now = !world.st->ports[port].present;

	world.st->ports[port].present = now;
	plain.st->ports[port].present = now;
}

static void forget(struct world *x)
{
	struct command c = {.kind = COMMAND_FORGET};

	while (!worker_command_step(x->w, &c))
		;
	if (flow_count(x->w->flows) != 0)
		abort();
	for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
		if (limit_flows_now(x->w, slot) != 0)
			abort(); /* a flow that ended still counts, or counted twice */
	}
}

static void trust(bool passes)
{
	world_trust(&world, 5, passes ? WORLD_CAMS : 0, passes ? STANDING_FULL : STANDING_REVOKED,
		    passes ? CLOCK_NEVER_MS : 0);
	world_trust(&plain, 5, passes ? WORLD_CAMS : 0, passes ? STANDING_FULL : STANDING_REVOKED,
		    passes ? CLOCK_NEVER_MS : 0);
}

static void same(const struct verdict *a, const struct verdict *b)
{
	if (a->edge != b->edge || a->reason != b->reason || a->bytes != b->bytes ||
	    (a->edge == EDGE_FORWARD && a->out_port != b->out_port) ||
	    memcmp(a->frame, b->frame, a->bytes) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	revoked = false;
	plain.now_us = world.now_us += 2000000; /* buckets are full again */
	trust(true);
	links_all(true);
	while (size >= 2) {
		static uint8_t frame[1][FRAME_MAX], before[1][FRAME_MAX];
		uint16_t port = (data[0] & MAY_PORT) ? 1 : 0;
		uint8_t flags = data[0];
		uint8_t second = data[1];
		size_t n = (size_t)(second & MORE) * 4, used;
		struct verdict v, w;

		data += 2;
		size -= 2;
		if (second & MAY_LINK) {
			port += PORT_LINKS;
			if (second & MAY_AWAY)
				link_turn(port);
		}
		if (n > size)
			n = size;
		used = n;
		memset(frame, 0, sizeof(frame));
		fill(frame[0], &n, data, flags, port);
		data += used;
		size -= used;
		if (flags & MAY_REVOKE) {
			revoked = !revoked;
			trust(!revoked);
		}
		if (flags & MAY_TIME)
			plain.now_us = world.now_us += 700000;
		repair(frame[0], n, flags, port);
		memcpy(before, frame, sizeof(before));
		world_burst(&world, port, frame, &n, 1, &v);
		world_burst(&plain, port, before, &n, 1, &w);
		worker_age(world.w);
		worker_age(plain.w);
		same(&v, &w);
		check(&v, port, before[0]);
		if (limit_flows_now(world.w, 5) > FLOWS_OF_A_DEVICE)
			abort();
	}
	forget(&world);
	forget(&plain);
	return 0;
}
