/* SPDX-License-Identifier: GPL-3.0-or-later */
/* QinQ: a service tag (802.1ad) with a VLAN inside is a subinterface like any other, if the port has the pair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1

struct tags {
	uint16_t type[3], tag[3]; /* outermost first; type 0: no more */
};

static const struct tags pair_dev = {{0x88a8, 0x8100}, {100, 20}};
static const struct tags pair_up = {{0x88a8, 0x8100}, {200, 7}};
static const struct frame_spec out = {"10.4.0.10", "10.9.5.10", .smac = 0x10,  .dmac = 1,
				      .proto = 17, .sport = 9,	.dport = 5000, .payload = 30};
static const struct frame_spec back = {"10.9.5.10", "10.4.0.10",   .smac = 0x30, .dmac = 2,
				       .proto = 17, .sport = 5000, .dport = 9,	 .payload = 30};

static size_t tagged(uint8_t *frame, const struct frame_spec *s, const struct tags *t)
{
	size_t bytes = frame_make(frame, s), n = 0;

	while (n < 3 && t->type[n] != 0)
		n++;
	memmove(frame + 12 + 4 * n, frame + 12, bytes - 12);
	for (size_t i = 0; i < n; i++) {
		frame_put16(frame + 12 + 4 * i, t->type[i]);
		frame_put16(frame + 14 + 4 * i, t->tag[i]);
	}
	return bytes + 4 * n;
}

static struct verdict one(struct world *x, uint16_t port, const struct frame_spec *s,
			  const struct tags *t)
{
	uint8_t frame[1][FRAME_MAX];
	size_t bytes = tagged(frame[0], s, t);
	struct verdict v;

	world_burst(x, port, frame, &bytes, 1, &v);
	return v;
}

/* Port 0 has 20 in 100 and 21 in 100, port 1 has 7 in 200. The camera is also 10.4.0.10, in 20 in 100. */
static void world_qinq(struct world *x)
{
	uint16_t dev = subinterface_id(100, 20), up = subinterface_id(200, 7);
	struct msg_dp_config cfg;

	world_config(&cfg);
	cfg.ports[0].n_vlans = 3;
	cfg.ports[0].vlans[1] = 20;
	cfg.ports[0].outer[1] = 100;
	cfg.ports[0].vlans[2] = 21;
	cfg.ports[0].outer[2] = 100;
	cfg.ports[1].n_vlans = 1;
	cfg.ports[1].vlans[0] = 7;
	cfg.ports[1].outer[0] = 200;
	assert_int_equal(world_new(x, &cfg), 0);
	assert_int_equal(world_route(x, "10.4.0.0/24", ROUTE_FORWARD, DEV, dev, NULL), 0);
	assert_int_equal(world_route(x, "10.9.5.0/24", ROUTE_FORWARD, UP, up, NULL), 0);
	assert_int_equal(world_neigh(x, "10.9.5.10", 0x30, UP, up), 0);
	assert_int_equal(world_bind(x, "10.4.0.10", 0x10, DEV, dev, 5), 0);
}

static void assert_tags(const struct verdict *v, const struct tags *t, uint8_t dmac)
{
	assert_int_equal(v->edge, EDGE_FORWARD);
	assert_int_equal(v->frame[5], dmac);
	for (unsigned i = 0; i < 3 && t->type[i] != 0; i++) {
		assert_int_equal(v->frame[12 + 4 * i] << 8 | v->frame[13 + 4 * i], t->type[i]);
		assert_int_equal(v->frame[14 + 4 * i] << 8 | v->frame[15 + 4 * i], t->tag[i]);
	}
}

static void pairs_pass_both_ways(void **state)
{
	struct world x;

	(void)state;
	world_qinq(&x);
	/* the first is judged by the stages, the others may take the fast lane */
	for (int i = 0; i < 4; i++) {
		struct verdict v = one(&x, DEV, &out, &pair_dev);

		assert_tags(&v, &pair_up, 0x30);
		assert_int_equal(v.out_port, UP);
		assert_int_equal(v.bytes, 14 + 8 + 20 + 8 + 30);
		assert_int_equal(v.frame[20] << 8 | v.frame[21], 0x0800);
		assert_int_equal(v.frame[22 + 8], 63); /* TTL */
		assert_int_equal(frame_sum(v.frame + 22, 20), 0);
		v = one(&x, UP, &back, &pair_up);
		assert_tags(&v, &pair_dev, 0x10);
		assert_int_equal(v.out_port, DEV);
	}
	world_free(&x);
}

static void a_pair_and_a_plain_way_out(void **state)
{
	static const struct tags none = {{0}, {0}};
	struct frame_spec to = out, from = back;
	struct world x;

	(void)state;
	world_qinq(&x);
	to.dst = "10.2.0.10";
	from.src = "10.2.0.10";
	for (int i = 0; i < 4; i++) {
		struct verdict v = one(&x, DEV, &to, &pair_dev);

		assert_int_equal(v.edge, EDGE_FORWARD);
		assert_int_equal(v.frame[12] << 8 | v.frame[13], 0x0800);
		assert_int_equal(v.bytes, 14 + 20 + 8 + 30);
		v = one(&x, UP, &from, &none);
		assert_tags(&v, &pair_dev, 0x10);
	}
	world_free(&x);
}

static void only_the_ports_pairs(void **state)
{
	static const struct {
		const char *name;
		struct tags t;
		enum drop_reason why;
	} rows[] = {
		{"its pair", {{0x88a8, 0x8100}, {100, 20}}, DROP_NONE},
		{"priority bits do not count", {{0x88a8, 0x8100}, {0xe064, 0xa014}}, DROP_NONE},
		{"a pair that the port has, and the device not",
		 {{0x88a8, 0x8100}, {100, 21}},
		 DROP_SPOOFED},
		{"another inner tag", {{0x88a8, 0x8100}, {100, 22}}, DROP_UNKNOWN_VLAN},
		{"another outer tag", {{0x88a8, 0x8100}, {101, 20}}, DROP_UNKNOWN_VLAN},
		{"the tags the other way round", {{0x88a8, 0x8100}, {20, 100}}, DROP_UNKNOWN_VLAN},
		{"the other port's pair", {{0x88a8, 0x8100}, {200, 7}}, DROP_UNKNOWN_VLAN},
		{"two VLAN tags", {{0x8100, 0x8100}, {100, 20}}, DROP_UNKNOWN_VLAN},
		{"two service tags", {{0x88a8, 0x88a8}, {100, 20}}, DROP_UNKNOWN_VLAN},
		{"a VLAN tag around a service tag",
		 {{0x8100, 0x88a8}, {30, 20}},
		 DROP_UNKNOWN_VLAN},
		{"three tags", {{0x88a8, 0x8100, 0x8100}, {100, 20, 5}}, DROP_UNKNOWN_VLAN},
		{"a service tag alone", {{0x88a8}, {100}}, DROP_UNKNOWN_VLAN},
		{"the inner tag alone", {{0x8100}, {20}}, DROP_UNKNOWN_VLAN},
		{"no tag", {{0}, {0}}, DROP_SPOOFED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct verdict v;
		struct world x;

		world_qinq(&x);
		v = one(&x, DEV, &out, &rows[i].t);
		if (v.reason != rows[i].why)
			fail_msg("%s: edge %u, %s", rows[i].name, v.edge,
				 drop_reason_name(v.reason));
		world_free(&x);
	}
}

static void every_length_is_checked(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct world x;
	struct pkt p = {.in_port = DEV};

	(void)state;
	world_qinq(&x);
	tagged(frame, &out, &pair_dev);
	for (size_t n = 0; n < 14 + 8 + 20 + 8; n++) {
		uint8_t *exact = malloc(n); /* so that a sanitizer sees a byte too many */

		memcpy(exact, frame, n);
		if (parse_frame(&x.st->ports[DEV], exact, n, n, &p) == DROP_NONE)
			fail_msg("%zu bytes are taken", n);
		free(exact);
	}
	world_free(&x);
}

static void a_number_that_is_no_pair_is_refused(void **state)
{
	struct world x;

	(void)state;
	world_qinq(&x);
	assert_int_equal(subinterface_id(0, 20), 20);
	assert_true(subinterface_id(4094, 4094) >= SUBINTERFACE_QINQ);
	assert_int_not_equal(subinterface_id(100, 20), subinterface_id(20, 100));
	assert_int_equal(world_bind(&x, "10.4.0.11", 0x12, UP, subinterface_id(100, 20), 5),
			 -EPROTO);
	assert_int_equal(world_route(&x, "10.66.0.0/24", ROUTE_FORWARD, UP, 5000, NULL), -EPROTO);
	assert_int_equal(world_neigh(&x, "10.66.0.1", 1, DEV, 65535), -EPROTO);
	world_free(&x);
}

static int setup(void **state)
{
	(void)state;
	return world_eal();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs_pass_both_ways),
		cmocka_unit_test(a_pair_and_a_plain_way_out),
		cmocka_unit_test(only_the_ports_pairs),
		cmocka_unit_test(every_length_is_checked),
		cmocka_unit_test(a_number_that_is_no_pair_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
