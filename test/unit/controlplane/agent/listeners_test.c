/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What comes into force when gateway.cfg is read again: which listeners stay, which leave with their sessions, and what is
 * refused because it needs a restart. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/listeners.h"
#include "controlplane/agent/listeners.h"

#define NOW_MS 1000000
#define DRAIN_S 30
#define ROWS(t) (sizeof(t) / sizeof((t)[0]))

struct world {
	struct gw_config now, next;
	struct listeners out;
	uint32_t sessions[MSG_LISTENERS_MAX];
	struct err err;
};

/* "NAME PORT UPSTREAM-PORT": of TLS over sockets; a leading '!' of the name: over the stack, '~': DTLS */
static void put(struct gw_config *c, const char *text)
{
	struct gw_listener *l = &c->listeners[c->n_listeners++];
	unsigned port, upstream;
	char name[32];

	assert_int_equal(sscanf(text, "%31s %u %u", name, &port, &upstream), 3);
	strcpy(l->name, name);
	l->transport = name[0] == '!' ? GW_STACK : GW_SOCKET;
	l->protocol = name[0] == '~' ? GW_DTLS : GW_TLS;
	assert_int_equal(ip_addr_parse(&l->addr, "10.1.0.1"), 0);
	assert_int_equal(ip_addr_parse(&l->upstreams[0].addr, "10.2.0.10"), 0);
	l->port = (uint16_t)port;
	l->upstreams[0].port = (uint16_t)upstream;
	l->n_upstreams = 1;
}

static void config(struct gw_config *c, const char *const *text)
{
	memset(c, 0, sizeof(*c));
	c->drain_s = DRAIN_S;
	strcpy(c->file, "gateway.cfg");
	for (unsigned i = 0; i < 4 && text[i] != NULL; i++)
		put(c, text[i]);
}

struct row {
	const char *name;
	const char *now[4], *next[4];
	uint32_t sessions[4];
	uint32_t n, added, changed, removed;
	uint8_t was[4], left[4]; /* of all that is there then */
};

static void merges(struct world *w, const struct row *rows, size_t n)
{
	for (unsigned i = 0; i < n; i++) {
		config(&w->now, rows[i].now);
		config(&w->next, rows[i].next);
		memcpy(w->sessions, rows[i].sessions, sizeof(rows[i].sessions));
		assert_int_equal(
			listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS, &w->err),
			0);
		if (w->out.n != rows[i].n || w->out.added != rows[i].added ||
		    w->out.changed != rows[i].changed || w->out.removed != rows[i].removed)
			fail_msg("%s: n=%u added=%u changed=%u removed=%u", rows[i].name, w->out.n,
				 w->out.added, w->out.changed, w->out.removed);
		for (unsigned k = 0; k < w->now.n_listeners; k++)
			if (w->out.was[k] != rows[i].was[k])
				fail_msg("%s: listener %u is at %u now", rows[i].name, k,
					 w->out.was[k]);
		for (unsigned k = 0; k < w->out.n; k++)
			if (w->out.list[k].left != rows[i].left[k])
				fail_msg("%s: %u has left=%u", rows[i].name, k,
					 w->out.list[k].left);
	}
}

static void what_stays_or_is_added(void **state)
{
	static const struct row rows[] = {
		{"nothing has changed",
		 {"a 1 9", "b 2 9"},
		 {"a 1 9", "b 2 9"},
		 {3, 0},
		 2,
		 0,
		 0,
		 0,
		 {0, 1},
		 {0}},
		{"another order",
		 {"a 1 9", "b 2 9"},
		 {"b 2 9", "a 1 9"},
		 {3, 2},
		 2,
		 0,
		 0,
		 0,
		 {1, 0},
		 {0}},
		{"added", {"a 1 9"}, {"b 2 9", "a 1 9"}, {3}, 2, 1, 0, 0, {1}, {0}},
		{"another name at its place", {"a 1 9"}, {"b 1 9"}, {3}, 1, 0, 1, 0, {0}, {0}},
		{"another upstream",
		 {"a 1 9"},
		 {"a 1 8"},
		 {3},
		 2,
		 0,
		 1,
		 0,
		 {1},
		 {0, GW_LISTENER_BEFORE}},
		{"another upstream, nobody in it",
		 {"a 1 9"},
		 {"a 1 8"},
		 {0},
		 1,
		 0,
		 1,
		 0,
		 {LISTENERS_NONE},
		 {0}},
	};

	merges(*state, rows, ROWS(rows));
}

static void what_leaves(void **state)
{
	static const struct row rows[] = {
		{"removed",
		 {"a 1 9", "b 2 9"},
		 {"b 2 9"},
		 {3, 0},
		 2,
		 0,
		 0,
		 1,
		 {1, 0},
		 {0, GW_LISTENER_CLOSING}},
		{"removed with nobody in it: its packets are answered for a while",
		 {"a 1 9"},
		 {0},
		 {0},
		 1,
		 0,
		 0,
		 1,
		 {0},
		 {GW_LISTENER_CLOSING}},
		{"moved", {"a 1 9"}, {"a 2 9"}, {3}, 2, 1, 0, 1, {1}, {0, GW_LISTENER_CLOSING}},
		{"two have changed places",
		 {"a 1 9", "b 2 8"},
		 {"a 2 9", "b 1 8"},
		 {1, 1},
		 4,
		 0,
		 2,
		 0,
		 {2, 3},
		 {0, 0, GW_LISTENER_BEFORE, GW_LISTENER_BEFORE}},
		{"another transport: the place cannot be reached",
		 {"a 1 9"},
		 {"!a 1 9"},
		 {3},
		 1,
		 1,
		 0,
		 1,
		 {LISTENERS_NONE},
		 {0}},
		{"another protocol is another door",
		 {"a 1 9"},
		 {"~a 1 9"},
		 {3},
		 2,
		 1,
		 0,
		 1,
		 {1},
		 {0, GW_LISTENER_CLOSING}},
	};

	merges(*state, rows, ROWS(rows));
}

/* Who left stays through the next reload, for as long as it was given; who comes back is there again. */
static void who_left_goes_in_time(void **state)
{
	static const char *const both[] = {"a 1 9", "b 2 9", NULL}, *const one[] = {"b 2 9", NULL},
				 *const other[] = {"b 2 8", NULL};
	const uint64_t until = NOW_MS + DRAIN_S * 1000 + LISTENERS_LINGER_MS;
	struct world *w = *state;

	config(&w->now, both);
	config(&w->next, one);
	memset(w->sessions, 0, sizeof(w->sessions));
	w->sessions[0] = 2;
	assert_int_equal(listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS, &w->err),
			 0);
	listeners_take(&w->now, &w->out);
	assert_int_equal(w->now.listeners[1].until_ms, until);
	/* once more, a second later: no more time */
	config(&w->next, other);
	w->sessions[0] = 1;
	w->sessions[1] = 2;
	assert_int_equal(
		listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS + 1000, &w->err),
		0);
	listeners_take(&w->now, &w->out);
	assert_int_equal(w->now.n_listeners, 3);
	assert_int_equal(w->now.listeners[1].left, GW_LISTENER_BEFORE);
	assert_int_equal(w->now.listeners[2].left, GW_LISTENER_CLOSING);
	assert_int_equal(w->now.listeners[2].until_ms, until);
	assert_int_equal(w->out.removed, 0);
	/* time goes on */
	w->sessions[1] = 1;
	assert_false(listeners_expire(&w->out, &w->now, w->sessions, until - 1));
	assert_true(listeners_expire(&w->out, &w->now, w->sessions, until));
	assert_int_equal(w->out.was[2], LISTENERS_NONE);
	listeners_take(&w->now, &w->out);
	assert_int_equal(w->now.n_listeners, 2);
	w->sessions[1] = 0;
	assert_true(listeners_expire(&w->out, &w->now, w->sessions, until));
	assert_int_equal(w->out.n, 1);
	/* back again, before its time was over */
	config(&w->now, both);
	w->now.listeners[0].left = GW_LISTENER_CLOSING;
	w->now.listeners[0].until_ms = until;
	config(&w->next, both);
	assert_int_equal(listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS, &w->err),
			 0);
	assert_int_equal(w->out.n, 2);
	assert_int_equal(w->out.list[0].left, GW_LISTENER_STAYS);
	assert_int_equal(w->out.was[0], 0);
	assert_int_equal(w->out.added, 1);
}

static void more_than_there_is_room_for(void **state)
{
	struct world *w = *state;
	char text[32];

	memset(&w->now, 0, sizeof(w->now));
	memset(&w->next, 0, sizeof(w->next));
	for (unsigned i = 0; i < MSG_LISTENERS_MAX; i++) {
		snprintf(text, sizeof(text), "l %u 9", i + 1);
		put(&w->now, text);
		snprintf(text, sizeof(text), "l %u %u", i + 1, i == 5 ? 8 : 9);
		put(&w->next, text);
		w->sessions[i] = 1;
	}
	assert_int_equal(listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS, &w->err),
			 -ENOSPC);
	assert_non_null(strstr(w->err.msg, "listeners"));
	w->sessions[5] = 0;
	assert_int_equal(listeners_merge(&w->out, &w->now, &w->next, w->sessions, NOW_MS, &w->err),
			 0);
}

static void hashes_tell_what_differs(void **state)
{
	static const char *const two[] = {"a 1 9", "b 2 9", NULL},
				 *const turned[] = {"b 2 9", "a 1 9", NULL},
				 *const other[] = {"a 1 9", "b 2 8", NULL};
	struct world *w = *state;

	config(&w->now, two);
	config(&w->next, turned);
	assert_true(gw_listeners_hash(&w->now) == gw_listeners_hash(&w->next));
	w->next.listeners[0].upstream_tls.line = 7;
	w->now.listeners[1].upstream_tls.line = 9;
	assert_true(gw_listeners_hash(&w->now) == gw_listeners_hash(&w->next));
	assert_true(gw_listener_same_keys(&w->now.listeners[1], &w->next.listeners[0]));
	w->next.listeners[0].upstream_tls.line = 0; /* the group itself is gone */
	assert_false(gw_listener_same_keys(&w->now.listeners[1], &w->next.listeners[0]));
	config(&w->next, other);
	assert_true(gw_listeners_hash(&w->now) != gw_listeners_hash(&w->next));
	assert_true(gw_listener_upstreams_hash(&w->now.listeners[0]) ==
		    gw_listener_upstreams_hash(&w->next.listeners[0]));
	assert_true(gw_listener_upstreams_hash(&w->now.listeners[1]) !=
		    gw_listener_upstreams_hash(&w->next.listeners[1]));
	w->next.listeners[0].upstreams[1] = w->next.listeners[0].upstreams[0];
	w->next.listeners[0].n_upstreams = 2;
	assert_true(gw_listener_upstreams_hash(&w->now.listeners[0]) !=
		    gw_listener_upstreams_hash(&w->next.listeners[0]));
}

static void a_weight(struct gw_config *c)
{
	c->listeners[0].upstreams[0].weight = 3;
}
static void a_port(struct gw_config *c)
{
	strcpy(c->ports[0].name, "new");
	c->n_ports = 1;
}
static void sources(struct gw_config *c)
{
	c->n_tls_sources = c->n_tls_addrs = 1;
}
static void flows_max(struct gw_config *c)
{
	c->flows_max = 5;
}
static void workers(struct gw_config *c)
{
	c->tls_workers = 5;
}
static void last_port(struct gw_config *c)
{
	c->tls_port_last = 5;
}
static void a_limit(struct gw_config *c)
{
	c->limits.device_flows = 5;
}
static void a_route(struct gw_config *c)
{
	c->routes[0].to.len = 5;
	c->n_routes = 1;
}
static void stack(struct gw_config *c)
{
	c->listeners[0].transport = GW_STACK;
}
static void drain(struct gw_config *c)
{
	c->drain_s++;
}

static void what_needs_a_restart_is_named(void **state)
{
	static const char *const one[] = {"a 1 9", NULL};
	static const struct {
		void (*change)(struct gw_config *c);
		bool stack_ready;
		const char *want; /* NULL: taken */
	} rows[] = {
		{a_weight, false, NULL},
		{a_port, false, NULL},
		{sources, false, NULL},
		{flows_max, false, "gateway.cfg: dataplane.flows_max: "},
		{workers, false, "gateway.cfg: tls.workers: "},
		{last_port, false, "gateway.cfg: tls.upstream_ports: "},
		{a_limit, false, "gateway.cfg: limits: "},
		{a_route, false, "gateway.cfg: routes: "},
		{drain, false, "gateway.cfg: gateway.drain_s: "},
		{stack, false, "gateway.cfg: listeners.a.transport: "},
		{stack, true, NULL},
	};
	struct world *w = *state;

	for (unsigned i = 0; i < ROWS(rows); i++) {
		int ret;

		config(&w->now, one);
		config(&w->next, one);
		w->now.stack_ready = rows[i].stack_ready;
		rows[i].change(&w->next);
		w->err.msg[0] = '\0';
		ret = gw_reload_check(&w->now, &w->next, &w->err);
		assert_int_equal(ret, rows[i].want != NULL ? -ENOTSUP : 0);
		if (rows[i].want != NULL)
			assert_memory_equal(w->err.msg, rows[i].want, strlen(rows[i].want));
	}
}

static int fresh(void **state)
{
	*state = calloc(1, sizeof(struct world));
	return *state == NULL;
}

static int gone(void **state)
{
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_stays_or_is_added, fresh, gone),
		cmocka_unit_test_setup_teardown(what_leaves, fresh, gone),
		cmocka_unit_test_setup_teardown(who_left_goes_in_time, fresh, gone),
		cmocka_unit_test_setup_teardown(more_than_there_is_room_for, fresh, gone),
		cmocka_unit_test_setup_teardown(hashes_tell_what_differs, fresh, gone),
		cmocka_unit_test_setup_teardown(what_needs_a_restart_is_named, fresh, gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
