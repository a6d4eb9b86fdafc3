/* SPDX-License-Identifier: GPL-3.0-or-later */
/* To and from the TLS workers' own stack by the fast lane, with several workers, and what a trace tells of it. */
#include "test/unit/dataplane/links_world.h"

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
	struct frame_spec client = answer; /* of a listener among the workers' own ports */
	struct msg_dp_config before, more, bad;
	struct err err = {""};
	struct world x;

	(void)state;
	setup(&x);
	before = more = x.st->cfg;
	more.listeners[more.n_listeners] = more.listeners[1];
	more.listeners[more.n_listeners++].port = 8886;
	more.listeners[more.n_listeners] = more.listeners[1];
	ip_addr_parse(&more.listeners[more.n_listeners].addr, "10.2.0.1");
	more.listeners[more.n_listeners++].port = 16390;
	more.upstreams[more.n_upstreams] = more.upstreams[0];
	more.upstreams[more.n_upstreams++].port = 7777;
	expect_lane(&x, "nobody's", DEV, &mine, false, MSG_PORT_KERNEL, 0);
	expect_lane(&x, "one that stays", DEV, &stays, false, ANY_LINK, 0);
	assert_int_equal(hotplug_apply(x.st, &more, &err), 0);
	expect_lane(&x, "added", DEV, &mine, false, ANY_LINK, 0);
	expect_lane(&x, "then by the lane", DEV, &mine, true, ANY_LINK, 0);
	expect_lane(&x, "its upstream", UP, &answer, false, LINK(2), 0);
	expect_lane(&x, "by the lane too", UP, &answer, true, LINK(2), 0);
	client.dport = 16390;
	expect_lane(&x, "no answer", UP, &client, false, ANY_LINK, 0);
	assert_int_equal(x.w->flows->flows[x.w->flows->high].state, FLOW_DIVERTED);
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

/* And the way back: to the device as its flow says, to an upstream as a packet went before. */
static void what_workers_send_is_known_too(void **state)
{
	const struct frame_spec mine = {
		"10.1.0.10",   "10.1.0.1",	 CAM,	       TCP, .sport = 9,
		.dport = 8884, .tcp_flags = ACK, .payload = 40};
	const struct frame_spec answer = {"10.1.0.1",	 "10.1.0.10", TCP,
					  .sport = 8884, .dport = 9,  .tcp_flags = ACK};
	struct frame_spec ask = {"10.2.0.1",	 "10.2.0.10",	TCP,
				 .sport = 16385, .dport = 1883, .tcp_flags = ACK};
	struct frame_spec routed = ask;
	struct world x;
	uint16_t at;

	(void)state;
	setup(&x);
	expect_lane(&x, "to nobody", LINK(1), &answer, false, DEV, 0); /* by its binding */
	at = send_by(&x, DEV, &mine).out_port;
	expect_lane(&x, "its worker", at, &answer, true, DEV, 0);
	expect_lane(&x, "another worker", LINK((at - PORT_LINKS + 1) % WORKERS), &answer, false,
		    DEV, 0);
	x.st->ports[DEV].present = false;
	expect_lane(&x, "the port is gone", at, &answer, false, 0, DROP_NO_PORT);
	x.st->ports[DEV].present = true;

	expect_lane(&x, "first", LINK(2), &ask, false, UP, 0);
	expect_lane(&x, "then", LINK(2), &ask, true, UP, 0);
	expect_lane(&x, "another worker's port", LINK(1), &ask, false, 0, DROP_TLS_SOURCE);
	routed.dst = "10.9.0.5";
	expect_lane(&x, "another upstream", LINK(2), &routed, false, UP, 0);
	expect_lane(&x, "through a gateway", LINK(2), &routed, true, UP, 0);
	ask.payload = 1460;
	expect_lane(&x, "as large as fits", LINK(2), &ask, true, UP, 0);
	x.st->ports[UP].mtu_bytes = 600;
	expect_lane(&x, "too large", LINK(2), &ask, false, LINK(2), 0); /* its worker hears of it */
	x.st->ports[UP].mtu_bytes = 1500;
	world_route(&x, "10.2.0.10/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL);
	expect_lane(&x, "no way any more", LINK(2), &ask, false, 0, DROP_NO_ROUTE);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_trace_tells_of_workers),
		cmocka_unit_test(the_lane_hands_over_what_is_known),
		cmocka_unit_test(what_workers_send_is_known_too),
		cmocka_unit_test(listeners_come_and_go),
		cmocka_unit_test(the_lane_keeps_to_the_rate),
		cmocka_unit_test(with_several_workers_the_flows_own_answers),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
