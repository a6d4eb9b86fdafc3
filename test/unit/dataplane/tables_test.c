/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The tables that packets are looked up in: flows and routes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/flow.h"
#include "test/unit/dataplane/world.h"

#define FLOWS 5000

static const uint64_t seed[FLOW_SEEDS] = {
	0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 3, 5, 7};

static struct flow_key key_of(uint32_t i)
{
	struct flow_key k = {.proto = 17, .sport = (uint16_t)i, .dport = (uint16_t)(i >> 16)};

	k.src.b[15] = 1;
	k.dst.b[15] = 2;
	return k;
}

static void a_flow_table_takes_what_it_promises(void **state)
{
	struct flow_table *t;

	(void)state;
	assert_int_equal(flow_table_new(&t, FLOWS, seed, SOCKET_ID_ANY), 0);
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct flow_key k = key_of(i);
		struct flow *f = flow_insert(t, &k, flow_hash(seed, &k));

		assert_non_null(f);
		f->packets = i;
	}
	assert_int_equal(flow_count(t), FLOWS);
	{ /* full: refused, nobody evicted */
		struct flow_key k = key_of(FLOWS);

		assert_null(flow_insert(t, &k, flow_hash(seed, &k)));
		assert_null(flow_find(t, &k, flow_hash(seed, &k)));
	}
	for (uint32_t i = 0; i < FLOWS; i += 2) {
		struct flow_key k = key_of(i);

		flow_remove(t, flow_find(t, &k, flow_hash(seed, &k)));
	}
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct flow_key k = key_of(i);
		const struct flow *f = flow_find(t, &k, flow_hash(seed, &k));

		assert_int_equal(f != NULL, i % 2);
		if (f != NULL)
			assert_int_equal(f->packets, i);
	}
	assert_int_equal(flow_count(t), FLOWS / 2);
	flow_table_free(t);
}

/* As many flows as it was made for, whatever their keys: chance fills no pair of buckets. */
static void a_large_flow_table_refuses_none(void **state)
{
	enum { LARGE = 1 << 18 };
	struct flow_table *t;
	uint32_t refused = 0;

	(void)state;
	for (uint64_t round = 0; round < 4; round++) {
		uint64_t other[FLOW_SEEDS];

		for (unsigned i = 0; i < FLOW_SEEDS; i++)
			other[i] = seed[i] ^ round * 0x9e3779b97f4a7c15;
		assert_int_equal(flow_table_new(&t, LARGE, other, SOCKET_ID_ANY), 0);
		for (uint32_t i = 0; i < LARGE; i++) {
			struct flow_key k = key_of(i);

			refused += flow_insert(t, &k, flow_hash(other, &k)) == NULL;
		}
		flow_table_free(t);
	}
	assert_int_equal(refused, 0);
}

static void bulk_finds_what_one_finds(void **state)
{
	struct flow_key key[BURST_MAX];
	const struct flow_key *ptr[BURST_MAX];
	uint64_t hash[BURST_MAX];
	struct flow *out[BURST_MAX];
	struct flow_table *t;

	(void)state;
	assert_int_equal(flow_table_new(&t, 64, seed, SOCKET_ID_ANY), 0);
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		key[i] = key_of(i);
		ptr[i] = &key[i];
		hash[i] = flow_hash(seed, &key[i]);
		if (i % 3 == 0)
			assert_non_null(flow_insert(t, &key[i], hash[i]));
	}
	flow_find_bulk(t, ptr, hash, BURST_MAX, out);
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		assert_ptr_equal(out[i], flow_find(t, &key[i], hash[i]));
		assert_int_equal(out[i] != NULL, i % 3 == 0);
	}
	flow_table_free(t);
}

static void state_counts_follow(void **state)
{
	struct flow_key k = key_of(1);
	const struct flow_origin from = {.port = 1};
	struct flow_table *t;
	struct flow *f;

	(void)state;
	assert_int_equal(flow_table_new(&t, 8, seed, SOCKET_ID_ANY), 0);
	f = flow_insert(t, &k, flow_hash(seed, &k));
	flow_set_state(t, f, FLOW_REFUSED);
	assert_int_equal(t->n_refused, 1);
	flow_divert(t, f, &from);
	assert_int_equal(t->n_refused, 0);
	assert_int_equal(t->n_diverted, 1);
	flow_remove(t, f);
	assert_int_equal(t->n_diverted, 0);
	assert_int_equal(flow_table_new(&t, 0, seed, SOCKET_ID_ANY), -EINVAL);
	flow_table_free(t);
}

#define CHURN_ROUTES 2000

static void note(struct routes *r, const char *prefix, uint16_t port, uint16_t mark, bool add)
{
	struct msg_route m = {.kind = ROUTE_FORWARD, .port = port};

	assert_int_equal(ip_prefix_parse(&m.prefix, prefix), 0);
	assert_int_equal(add ? routes_add(r, &m, mark) : routes_del(r, &m), 0);
}

static int port_for(const struct fib *f, const char *text)
{
	const struct nexthop *nh;
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, text), 0);
	nh = fib_lookup(f, &a);
	return nh != NULL ? nh->port : -1;
}

static void the_longest_prefix_wins(void **state)
{
	static const struct {
		const char *to;
		int port;
	} rows[] = {
		{"10.0.0.0", 1}, {"10.1.0.0", 2}, {"10.1.2.3", 4},     {"10.1.2.4", 3},
		{"10.1.3.0", 2}, {"10.2.0.0", 1}, {"11.0.0.0", 0},     {"255.255.255.255", 0},
		{"0.0.0.0", 0},	 {"fd00::1", 6},  {"fd00:0:0:1::", 5}, {"fe00::", -1},
		{"fc00::", 5},	 {"ffff::", -1},  {"::1", -1},
	};
	struct routes *r;
	struct fib *f;

	(void)state;
	assert_int_equal(routes_new(&r), 0);
	note(r, "10.1.2.3/32", 4, 1, true);
	note(r, "10.0.0.0/8", 1, 1, true);
	note(r, "0.0.0.0/0", 0, 1, true);
	note(r, "10.1.2.0/24", 3, 1, true);
	note(r, "10.1.0.0/16", 9, 1, true);
	note(r, "10.1.0.0/16", 2, 1, true); /* replaces */
	note(r, "fc00::/7", 5, 1, true);
	note(r, "fd00::/64", 6, 1, true);
	assert_int_equal(fib_build(&f, r), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (port_for(f, rows[i].to) != rows[i].port)
			fail_msg("%s goes to %d", rows[i].to, port_for(f, rows[i].to));
	}
	fib_free(f);
	routes_free(r);
}

static void a_v6_default_carries_no_v4(void **state)
{
	struct routes *r;
	struct fib *f;

	(void)state;
	assert_int_equal(routes_new(&r), 0);
	note(r, "::/0", 1, 1, true);
	assert_int_equal(fib_build(&f, r), 0);
	assert_int_equal(port_for(f, "10.0.0.1"), -1);
	assert_int_equal(port_for(f, "fd00::1"), 1);
	assert_int_equal(port_for(f, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 1);
	fib_free(f);
	routes_free(r);
}

static void routes_go_by_removal_and_by_sweep(void **state)
{
	struct msg_route bad = {.kind = ROUTE_FORWARD, .prefix = {.len = 129}};
	struct routes *r;
	struct fib *f;

	(void)state;
	assert_int_equal(routes_new(&r), 0);
	note(r, "10.0.0.0/8", 1, 1, true);
	note(r, "10.1.0.0/16", 2, 1, true);
	note(r, "10.2.0.0/16", 3, 2, true);
	note(r, "10.1.0.0/16", 0, 0, false);
	assert_int_equal(fib_build(&f, r), 0);
	assert_int_equal(port_for(f, "10.1.0.1"), 1);
	assert_false(routes_dirty(r));
	fib_free(f);
	routes_sweep(r, 2);
	assert_true(routes_dirty(r));
	assert_int_equal(fib_build(&f, r), 0);
	assert_int_equal(port_for(f, "10.1.0.1"), -1);
	assert_int_equal(port_for(f, "10.2.0.1"), 3);
	fib_free(f);
	assert_int_equal(routes_add(r, &bad, 1), -EINVAL);
	bad.prefix.len = 8;
	bad.prefix.addr.b[15] = 1; /* host bits */
	assert_int_equal(routes_add(r, &bad, 1), -EINVAL);
	routes_free(r);
}

/* What fib_lookup() should say, by looking at every route. */
struct plain {
	struct msg_route r[CHURN_ROUTES];
	bool there[CHURN_ROUTES];
};

static bool in_prefix(const struct ip_prefix *p, const struct ip_addr *a)
{
	for (unsigned bit = 0; bit < p->len; bit++) {
		if ((p->addr.b[bit / 8] ^ a->b[bit / 8]) & (0x80 >> (bit % 8)))
			return false;
	}
	return true;
}

static const struct msg_route *plain_lookup(const struct plain *x, const struct ip_addr *a)
{
	const struct msg_route *best = NULL;

	for (unsigned i = 0; i < CHURN_ROUTES; i++) {
		const struct msg_route *r = &x->r[i];

		if (x->there[i] && in_prefix(&r->prefix, a) &&
		    (best == NULL || r->prefix.len > best->prefix.len))
			best = r;
	}
	/* ::/0 does not carry IPv4 */
	return best != NULL && ip_addr_is_v4(a) && best->prefix.len < 96 ? NULL : best;
}

static uint32_t rnd(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* Narrow ranges of addresses, so that prefixes nest and lookups hit. */
static struct ip_addr random_addr(uint32_t *seed)
{
	uint8_t v4[4] = {10, rnd(seed) % 4, rnd(seed), rnd(seed)};
	uint8_t v6[16] = {0x20, 0x01, rnd(seed) % 3, rnd(seed) % 5};

	if (rnd(seed) % 16 == 0)
		v4[0] = rnd(seed);
	for (unsigned i = 4; i < 16; i++)
		v6[i] = rnd(seed) % 3;
	return rnd(seed) % 3 != 0 ? ip_addr_from_v4(v4) : ip_addr_from_v6(v6);
}

static void random_route(struct msg_route *m, uint32_t *seed)
{
	struct ip_addr a = random_addr(seed);
	unsigned least = ip_addr_is_v4(&a) ? 96 : 0;

	*m = (struct msg_route){.kind = ROUTE_FORWARD, .port = rnd(seed) % 8, .has_gateway = 1};
	m->prefix.len = least + rnd(seed) % (129 - least);
	for (unsigned bit = 0; bit < 128; bit++) {
		if (bit < m->prefix.len)
			m->prefix.addr.b[bit / 8] |= a.b[bit / 8] & (0x80 >> (bit % 8));
	}
	m->gateway = random_addr(seed);
}

static bool prefix_there(const struct plain *x, const struct msg_route *m)
{
	for (unsigned i = 0; i < CHURN_ROUTES; i++) {
		if (x->there[i] && x->r[i].prefix.len == m->prefix.len &&
		    ip_addr_eq(&x->r[i].prefix.addr, &m->prefix.addr))
			return true;
	}
	return false;
}

static void check_against(const struct plain *x, const struct fib *f, uint32_t *seed)
{
	for (unsigned i = 0; i < 400; i++) {
		struct ip_addr a = random_addr(seed);
		const struct msg_route *want;
		const struct nexthop *got;

		if (i % 4 == 0) /* an end of a route's range */
			a = x->r[rnd(seed) % CHURN_ROUTES].prefix.addr;
		want = plain_lookup(x, &a);
		got = fib_lookup(f, &a);
		assert_int_equal(got != NULL, want != NULL);
		if (want != NULL) {
			assert_int_equal(got->port, want->port);
			assert_memory_equal(&got->gateway, &want->gateway, sizeof(got->gateway));
		}
	}
}

static void routes_under_churn_are_as_a_plain_list_has_them(void **state)
{
	static struct plain x;
	struct routes *r;
	uint32_t seed = 7;

	(void)state;
	assert_int_equal(routes_new(&r), 0);
	for (unsigned round = 0; round < 60; round++) {
		struct fib *f;

		/* from a handful of routes to many and back */
		for (unsigned n = 0; n < (round < 5 ? 3 : 200); n++) {
			unsigned i = rnd(&seed) % CHURN_ROUTES;

			if (x.there[i])
				assert_int_equal(routes_del(r, &x.r[i]), 0);
			x.there[i] = false;
			random_route(&x.r[i], &seed);
			if ((round < 40 || rnd(&seed) % 4 == 0) && !prefix_there(&x, &x.r[i])) {
				x.there[i] = true;
				assert_int_equal(routes_add(r, &x.r[i], 1), 0);
			}
		}
		assert_int_equal(fib_build(&f, r), 0);
		check_against(&x, f, &seed);
		fib_free(f);
	}
	routes_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flow_table_takes_what_it_promises),
		cmocka_unit_test(a_large_flow_table_refuses_none),
		cmocka_unit_test(bulk_finds_what_one_finds),
		cmocka_unit_test(state_counts_follow),
		cmocka_unit_test(the_longest_prefix_wins),
		cmocka_unit_test(a_v6_default_carries_no_v4),
		cmocka_unit_test(routes_go_by_removal_and_by_sweep),
		cmocka_unit_test(routes_under_churn_are_as_a_plain_list_has_them),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
