/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The fast lane against the stages: two worlds live the same life, one with the lane and one without; whatever happens,
 * each frame has the same verdict and leaves with the same bytes. SEED and STEPS in the environment. */
#include "dataplane/lane.h"
#include "dataplane/tcp.h"
#include "test/unit/dataplane/links_world.h"

#define STEPS 60000
#define POLICY_OTHER                                                                               \
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); },\n"      \
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } ); } );\n"    \
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\", \"fd02::/64\" ]; } );\n"    \
	"rules = ( { from = \"cams\"; to = \"core\"; service = [ \"udp/5000-5050\", \"tcp/554\" "  \
	"]; } );\n"

static uint64_t random_state;
static uint32_t coin; /* by both worlds */
static uint64_t link_packets, link_lane; /* of TLS workers, and by the lane */

static uint32_t draw(uint32_t below)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(random_state >> 33) % below;
}

struct pair {
	struct world lane, plain;
	uint64_t epoch;
};

static void pair_new(struct pair *x)
{
	setup(&x->lane);
	setup(&x->plain);
	atomic_store(&x->plain.st->lane_off, true);
	x->lane.now_us = x->plain.now_us; /* after both: no window for picking up is open */
	x->epoch = 1;
}

static void pair_free(struct pair *x)
{
	world_free(&x->lane);
	world_free(&x->plain);
}

/* ---- what is sent ---- */

/* Talk of devices with a listener of the stack, and of its TLS workers with upstreams, both ways. */
static struct frame_spec tls_draw(uint16_t *port)
{
	static const char *const upstreams[] = {"10.2.0.10", "10.9.0.5", "10.2.0.99"};
	bool v6 = draw(4) == 0, stranger = draw(6) == 0;
	const char *dev = v6 ? "fd01::10" : stranger ? "10.1.0.77" : "10.1.0.10";
	const char *up = v6 ? "fd02::10" : upstreams[draw(6) ? 0 : draw(3)];
	uint16_t own = 16384 + draw(6);
	struct frame_spec s = {.proto = 6, .tcp_flags = 16, .smac = 0x10, .dmac = 1};

	switch (draw(4)) {
	case 0: /* a device speaks */
		*port = DEV;
		s.src = dev;
		s.smac = stranger && !v6 ? 0x77 : 0x10;
		s.dst = v6 ? "fd01::1" : "10.1.0.1";
		s.sport = 9 + draw(2);
		s.dport = 8884;
		break;
	case 1: /* a worker answers, which may be another's place to do */
		*port = LINK(draw(WORKERS));
		s.src = v6 ? "fd01::1" : "10.1.0.1";
		s.dst = dev;
		s.sport = 8884;
		s.dport = 9 + draw(2);
		if (draw(8) == 0) { /* or speaks as the device */
			const struct frame_spec as = s;

			s.src = as.dst, s.dst = as.src;
			s.sport = as.dport, s.dport = as.sport;
		}
		break;
	case 2: /* a worker asks an upstream */
		*port = LINK(draw(8) ? own % WORKERS : draw(WORKERS));
		s.src = v6 ? "fd02::1" : "10.2.0.1";
		s.dst = up;
		s.sport = own;
		s.dport = 1883;
		break;
	default: /* and it answers */
		*port = UP;
		s.src = up;
		s.dst = v6 ? "fd02::1" : "10.2.0.1";
		s.smac = 0x20;
		s.dmac = 2;
		s.sport = 1883;
		s.dport = own;
	}
	return s;
}

/* Established talk of a few flows, in both directions, over VLAN and without, and some that are not allowed. */
static struct frame_spec talk_draw(uint16_t *port)
{
	static const struct {
		const char *dev, *net;
		uint8_t mac;
		uint16_t vlan;
	} ends[] = {
		{"10.1.0.10", "10.2.0.10", 0x10, 0}, {"10.1.0.10", "10.9.1.1", 0x10, 0},
		{"fd01::10", "fd02::10", 0x10, 0},   {"10.3.0.10", "10.2.0.10", 0x10, 30},
		{"10.1.0.11", "10.2.0.10", 0x11, 0}, {"10.1.0.10", "10.1.0.11", 0x10, 0},
		{"10.1.0.99", "10.2.0.10", 0x99, 0}, {"10.1.0.10", "10.2.0.77", 0x10, 0},
		{"10.1.0.10", "10.8.0.1", 0x10, 0},  {"10.1.0.10", "10.1.0.1", 0x10, 0},
	};
	unsigned i = draw(3) ? draw(4) : draw(sizeof(ends) / sizeof(ends[0]));
	bool udp = draw(2), out = draw(2), cam = i != 4;
	uint16_t dport = udp ? 5000 + draw(2) * 80 : (cam ? 554 : 502), sport = 9 + draw(2);
	struct frame_spec s = {.src = out ? ends[i].dev : ends[i].net,
			       .dst = out ? ends[i].net : ends[i].dev,
			       .smac = out ? ends[i].mac : 0x20,
			       .dmac = out ? 1 : 2,
			       .proto = udp ? 17 : 6,
			       .sport = out ? sport : dport,
			       .dport = out ? dport : sport,
			       .tcp_flags = udp ? 0 : 16};

	if (i == 5)
		s.dport = s.sport = 7000;
	*port = out || i == 5 ? DEV : UP;
	if (*port == DEV) {
		s.dmac = 1;
		s.vlan = ends[i].vlan;
		s.smac = out ? ends[i].mac : 0x11;
	}
	return s;
}

/* Mostly as it should be. */
static struct frame_spec spec_draw(uint16_t *port)
{
	struct frame_spec s = draw(3) ? talk_draw(port) : tls_draw(port);

	if (draw(40) == 0)
		s.smac = draw(0x30);
	if (draw(60) == 0)
		s.ttl = 1;
	if (draw(60) == 0)
		s.vlan = s.vlan != 0 ? 0 : 30;
	if (draw(60) == 0 && !port_is_link(*port)) { /* the right frame by the wrong port */
		*port = *port == DEV ? UP : DEV;
		s.dmac = *port + 1;
	}
	if (s.proto == 6 && draw(6) == 0)
		s.tcp_flags = (const uint8_t[]){2, 18, 17, 4, 24, 1}[draw(6)];
	s.payload = draw(8) ? draw(40) : draw(1460);
	return s;
}

static size_t frame_draw(uint8_t *frame, uint16_t *port)
{
	struct frame_spec s = spec_draw(port);
	size_t n;

	memset(frame, 0, FRAME_MAX);
	n = port_is_link(*port) ? link_frame(frame, &s, *port - PORT_LINKS) : frame_make(frame, &s);
	if (draw(25) == 0) /* one byte wrong */
		frame[draw(n < 60 ? n : 60)] ^= 1u << draw(8);
	if (draw(25) == 0)
		n = draw(n);
	else if (draw(4) == 0)
		n += draw(20); /* padding */
	return n;
}

/* ---- what happens meanwhile ---- */

static void trust_changes(struct world *x, uint32_t slot, uint32_t what)
{
	uint16_t own = slot == 5 ? WORLD_CAMS : WORLD_PLCS;

	switch (what) {
	case 0:
		world_trust(x, slot, own, STANDING_REVOKED, 0);
		break;
	case 1:
		world_trust(x, slot, own, STANDING_FULL, x->now_us / 1000 + 3);
		break;
	default:
		world_trust(x, slot, own, STANDING_FULL, CLOCK_NEVER_MS);
	}
}

static void links_change(struct world *x, uint32_t what)
{
	struct msg_neigh m = {.mac = {{2, 0, 0, 0, 0, 0x20}}, .port = UP};

	switch (what) {
	case 0:
		assert_int_equal(world_neigh(x, "10.2.0.10", 0x21, UP, 0), 0);
		break;
	case 1:
		ip_addr_parse(&m.ip, "10.2.0.200");
		MSG_INIT(&m, MSG_NEIGH_DEL, 1);
		assert_int_equal(world_say(x, &m, sizeof(m), -1), 0);
		assert_int_equal(world_neigh(x, "10.2.0.10", 0x20, UP, 0), 0);
		break;
	case 2:
		ip_addr_parse(&m.ip, "10.2.0.10");
		MSG_INIT(&m, MSG_NEIGH_DEL, 1);
		assert_int_equal(world_say(x, &m, sizeof(m), -1), 0);
		if (coin) /* another host takes its place */
			assert_int_equal(world_neigh(x, "10.2.0.200", 0x44, UP, 0), 0);
		break;
	case 3:
		x->st->ports[UP].mtu_bytes = 600;
		break;
	case 4:
		x->st->ports[UP].mtu_bytes = 1500;
		break;
	case 5:
		x->st->ports[UP].present = !x->st->ports[UP].present;
		break;
	default:
		x->st->ports[UP].present = true;
	}
}

static void routes_change(struct world *x, uint32_t what)
{
	int ret = 0;

	switch (what) {
	case 0:
		ret = world_route(x, "10.9.0.0/16", ROUTE_FORWARD, UP, 0, "10.2.0.10");
		break;
	case 1:
		ret = world_route(x, "10.9.0.0/16", ROUTE_FORWARD, UP, 0, "10.2.0.254");
		break;
	case 2:
		ret = world_route(x, "10.2.0.10/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL);
		break;
	case 3:
		ret = world_route(x, "10.2.0.10/32", ROUTE_FORWARD, DEV, 0, NULL);
		break;
	case 4:
		ret = world_route(x, "10.1.0.10/32", ROUTE_FORWARD, UP, 0, NULL);
		break;
	default:
		ret = world_route(x, "10.2.0.10/32", ROUTE_FORWARD, UP, 0, NULL) |
		      world_route(x, "10.1.0.10/32", ROUTE_FORWARD, DEV, 0, NULL);
	}
	assert_int_equal(ret, 0);
}

static void bindings_change(struct world *x, uint32_t what)
{
	int ret = 0;

	switch (what) {
	case 0: /* the device moves */
		ret = world_bind(x, "10.1.0.10", 0x12, DEV, 0, 5);
		break;
	case 1:
		ret = world_bind(x, "10.1.0.10", 0x10, DEV, 30, 5);
		break;
	case 2:
		ret = world_bind(x, "10.1.0.10", 0, DEV, 0, 0);
		if (coin) /* another address of the device takes its place */
			ret |= world_bind(x, "10.1.0.50", 0x10, DEV, 0, 5);
		break;
	case 3: /* its address is another's */
		ret = world_bind(x, "10.1.0.10", 0x10, DEV, 0, 6);
		break;
	case 4: /* a device where a network was */
		ret = world_bind(x, "10.2.0.10", 0x20, DEV, 0, 6);
		break;
	case 5:
		ret = world_bind(x, "10.2.0.10", 0, DEV, 0, 0);
		break;
	default:
		ret = world_bind(x, "10.1.0.10", 0x10, DEV, 0, 5) |
		      world_bind(x, "10.2.0.10", 0, DEV, 0, 0) |
		      world_bind(x, "10.1.0.50", 0, DEV, 0, 0);
	}
	assert_int_equal(ret, 0);
}

/* TLS workers come and go, and so do listeners and upstreams. */
static void tls_changes(struct world *x, uint32_t what)
{
	struct msg_dp_config c;
	struct err err = {""};

	if (what < WORKERS) {
		away(x, what, true);
		return;
	}
	config(&c);
	for (unsigned n = 0; n < WORKERS; n++)
		away(x, n, false);
	if (what == 3)
		c.n_listeners--;
	if (what == 4)
		c.n_upstreams = 0;
	if (what == 5) /* an upstream of another number */
		c.upstreams[0] = c.upstreams[--c.n_upstreams];
	assert_int_equal(hotplug_apply(x->st, &c, &err), 0);
}

static void event(struct pair *x)
{
	uint32_t kind = draw(7), what = draw(10), slot = 5 + draw(2);
	bool heal = draw(2); /* else too little is established for the lane to be asked */
	struct world *both[2] = {&x->lane, &x->plain};

	coin = draw(2);
	x->epoch += kind == 4 && !heal;
	for (int i = 0; i < 2; i++) {
		for (uint32_t s = 5; heal && s < 7; s++)
			trust_changes(both[i], s, 9);
		if (heal) {
			links_change(both[i], 1);
			links_change(both[i], 4);
			links_change(both[i], 9);
			routes_change(both[i], 9);
			bindings_change(both[i], 9);
			tls_changes(both[i], 9);
			continue;
		}
		switch (kind) {
		case 0:
			trust_changes(both[i], slot, what);
			break;
		case 1:
			links_change(both[i], what);
			break;
		case 2:
			routes_change(both[i], what);
			break;
		case 3:
			bindings_change(both[i], what);
			break;
		case 4:
			assert_int_equal(world_policy_set(both[i],
							  what == 0 ? POLICY_OTHER : world_policy,
							  x->epoch),
					 0);
			break;
		case 5:
			both[i]->now_us += what == 0 ? 61000000 : 700;
			break;
		case 6:
			tls_changes(both[i], what);
			break;
		}
	}
}

/* @return packets */
static unsigned step(struct pair *x, uint64_t seed, unsigned at)
{
	static uint8_t frame[2][4][FRAME_MAX];
	struct verdict v[2][4];
	unsigned n = 1 + draw(4);
	uint16_t port, other;
	size_t bytes[4];

	bytes[0] = frame_draw(frame[0][0], &port);
	for (unsigned i = 1; i < n; i++) {
		do
			bytes[i] = frame_draw(frame[0][i], &other);
		while (other != port);
	}
	memcpy(frame[1], frame[0], sizeof(frame[0]));
	if (port_is_link(port)) {
		link_packets += n;
		link_lane -= x->lane.w->stats.lane;
	}
	world_burst(&x->lane, port, frame[0], bytes, n, v[0]);
	world_burst(&x->plain, port, frame[1], bytes, n, v[1]);
	if (port_is_link(port))
		link_lane += x->lane.w->stats.lane;
	for (unsigned i = 0; i < n; i++) {
		if (v[0][i].edge == v[1][i].edge && v[0][i].reason == v[1][i].reason &&
		    (v[0][i].edge != EDGE_FORWARD || v[0][i].out_port == v[1][i].out_port) &&
		    v[0][i].bytes == v[1][i].bytes &&
		    memcmp(v[0][i].frame, v[1][i].frame, v[0][i].bytes) == 0)
			continue;
		fail_msg("SEED=%llu step %u packet %u: lane edge %u %s, stages edge %u %s",
			 (unsigned long long)seed, at, i, v[0][i].edge,
			 drop_reason_name(v[0][i].reason), v[1][i].edge,
			 drop_reason_name(v[1][i].reason));
	}
	worker_age(x->lane.w);
	worker_age(x->plain.w);
	x->lane.now_us += 50;
	x->plain.now_us += 50;
	return n;
}

static void lane_and_stages_are_one(void **state)
{
	uint64_t seed = getenv("SEED") != NULL ? strtoull(getenv("SEED"), NULL, 0) : 1;
	unsigned steps = getenv("STEPS") != NULL ? atoi(getenv("STEPS")) : STEPS;
	uint64_t packets = 0;
	struct pair x;

	(void)state;
	random_state = seed;
	pair_new(&x);
	for (unsigned i = 0; i < steps; i++) {
		if (draw(30) == 0)
			event(&x);
		packets += step(&x, seed, i);
		assert_int_equal(flow_count(x.lane.w->flows), flow_count(x.plain.w->flows));
	}
	assert_int_equal(x.plain.w->stats.lane, 0);
	print_message("%llu packets, %llu by the lane; of TLS workers %llu, %llu\n",
		      (unsigned long long)packets, (unsigned long long)x.lane.w->stats.lane,
		      (unsigned long long)link_packets, (unsigned long long)link_lane);
	/* else nothing was compared */
	assert_true(x.lane.w->stats.lane > packets / 10);
	assert_true(x.lane.w->stats.lane < packets * 9 / 10);
	assert_true(link_lane > link_packets / 10 && link_lane < link_packets * 9 / 10);
	pair_free(&x);
}

/* What the lane counts is what the stages count. */
static void counters_are_the_same(void **state)
{
	static const struct frame_spec out = {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1,
					      .proto = 17, .sport = 9,	.dport = 5000};
	struct pair x;

	(void)state;
	pair_new(&x);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(world_one(&x.lane, DEV, &out).edge, EDGE_FORWARD);
		assert_int_equal(world_one(&x.plain, DEV, &out).edge, EDGE_FORWARD);
	}
	assert_int_equal(x.lane.w->stats.lane, 9);
	for (uint32_t i = 1; i <= x.lane.w->flows->high; i++) {
		const struct flow *a = &x.lane.w->flows->flows[i];
		const struct flow *b = &x.plain.w->flows->flows[i];

		assert_int_equal(a->packets, 10);
		assert_int_equal(a->packets, b->packets);
		assert_int_equal(a->bytes, b->bytes);
	}
	pair_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lane_and_stages_are_one),
		cmocka_unit_test(counters_are_the_same),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
