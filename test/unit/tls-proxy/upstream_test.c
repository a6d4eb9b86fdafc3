/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whose turn it is, and who is down: what a device gets to feel of it. */
#include "test/unit/tls-proxy/upstream_world.h"

static void turns_follow_the_weights(void **state)
{
	static const struct {
		const char *name;
		uint16_t weight[4];
		unsigned down, allowed; /* bits */
		const char *want; /* of ten picks */
	} rows[] = {
		{"equal", {1, 1, 1}, 0, 0xff, "0120120120"},
		{"twice as much, never all at once", {2, 1, 1}, 0, 0xff, "0120012001"},
		{"who is down is left out", {1, 1, 1}, 2, 0xff, "0202020202"},
		{"who is out of reach too", {1, 1, 1}, 1, 6, "1212121212"},
		{"one alone", {1}, 0, 0xff, "0000000000"},
		{"none up", {1, 1}, 3, 0xff, "----------"},
		{"none in reach", {1, 1}, 0, 0xfc, "----------"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct gw_listener cfg = {.name = "t"};
		struct listener l = {.cfg = &cfg};
		char got[11] = "";

		for (; cfg.n_upstreams < 4 && rows[i].weight[cfg.n_upstreams] != 0;
		     cfg.n_upstreams++)
			cfg.upstreams[cfg.n_upstreams].weight = rows[i].weight[cfg.n_upstreams];
		assert_int_equal(upstreams_open(&l, NULL), 0);
		for (uint32_t k = 0; k < l.up.n; k++)
			l.up.list[k].down = rows[i].down >> k & 1;
		for (unsigned k = 0; k < 10; k++) {
			int pick = upstream_pick(&l, rows[i].allowed);

			got[k] = pick < 0 ? '-' : '0' + pick;
		}
		if (strcmp(got, rows[i].want) != 0)
			fail_msg("%s: %s, want %s", rows[i].name, got, rows[i].want);
	}
}

static void two_upstreams(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->upstreams[1] = l->upstreams[0];
	l->upstreams[1].port = second.port;
	l->n_upstreams = 2;
	l->upstream_check = (struct gw_upstream_check){
		.interval_s = 3600, .timeout_s = 2, .rise = 2, .fall = 3};
}

static void first_is_dead(struct world *w, struct gw_listener *l)
{
	two_upstreams(w, l);
	l->upstreams[0].port = closed_port;
}

static void sessions_go_to_each_in_turn(void **state)
{
	struct world *w = *state;

	session_up(w);
	dev_drop(w);
	UNTIL(w, w->closed == 1);
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && accepted(&second) >= 0);
	assert_int_equal(w->up, -1);
}

static void an_upstream_that_is_out_of_reach_gets_nobody(void **state)
{
	struct world *w = *state;

	w->out_of_reach = 1;
	for (unsigned i = 0; i < 3; i++) {
		dev_connect(w);
		UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && accepted(&second) >= 0);
		assert_int_equal(w->up, -1);
		dev_drop(w);
		server_drop(&second);
		UNTIL(w, w->closed == i + 1);
	}
	/* told anew after the agent was away: a session at what is out of reach now ends */
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && accepted(&second) >= 0);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	w->out_of_reach = 2;
	agent_listen(w);
	UNTIL(w, only(w)->state == CONN_CLOSING);
	assert_string_equal(only(w)->reason, "standing changed");
}

static void the_next_one_serves_before_the_device_hears_of_it(void **state)
{
	struct world *w = *state;
	struct listener *l = listener_of(w);
	uint8_t buf[64];

	for (unsigned i = 0; i < 6; i++) {
		dev_connect(w);
		UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && accepted(&second) >= 0);
		assert_int_equal(wolfSSL_write(w->ssl, "hello", 5), 5);
		UNTIL(w, end_recv(second.fd, buf, sizeof(buf)) == 5);
		assert_int_equal(end_send(second.fd, "you", 3), 3);
		UNTIL(w, dev_read(w, buf, sizeof(buf)) == 3);
		dev_drop(w);
		server_drop(&second);
		UNTIL(w, w->closed == i + 1);
		/* every other session begins with the dead one, until three have failed in a row */
		assert_int_equal(l->up.list[0].down, i >= 4);
	}
	assert_int_equal(w->refused, 0);
}

static void checks_find_who_is_down_and_who_is_back(void **state)
{
	struct world *w = *state;
	struct upstream *u = listener_of(w)->up.list;
	int fd;

	for (unsigned i = 0; i < 3; i++) {
		assert_false(u[0].down);
		check_now(w);
		UNTIL(w, !checking(w));
	}
	assert_true(u[0].down);
	assert_false(u[1].down);
	fd = closed_opens();
	for (unsigned i = 0; i < 2; i++) {
		assert_true(u[0].down);
		check_now(w);
		UNTIL(w, !checking(w));
	}
	assert_false(u[0].down);
	end_unlisten(&fd);
}

static void both_dead(struct world *w, struct gw_listener *l)
{
	two_upstreams(w, l);
	l->upstreams[0].port = closed_port;
	l->upstreams[1].port = closed_port;
	l->upstreams[1].addr.b[15] = 2; /* 127.0.0.2 */
	l->upstream_check.fall = 1;
}

static void with_none_left_the_device_gets_an_alert(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	for (unsigned i = 0; i < 2; i++) {
		dev_connect(w);
		UNTIL(w, (wolfSSL_connect(w->ssl), dev_read(w, buf, sizeof(buf)) < 0));
		assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
		dev_drop(w);
		UNTIL(w, w->closed == i + 1);
		assert_string_equal(w->last_closed.reason, "upstream cannot be reached");
		assert_true(listener_of(w)->up.list[0].down && listener_of(w)->up.list[1].down);
	}
}

static void an_upstream_that_hangs_is_passed_over(void **state)
{
	struct world *w = *state;
	struct listener *l = listener_of(w);
	struct conn *c;

	/* both take connections, and never say a word of TLS */
	w->cfg.listeners[0].upstream_tls.name[0] = '\0';
	tls.ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	l->up.tls.certs[0] = calloc(1, sizeof(struct tls_cert));
	assert_non_null(l->up.tls.certs[0]);
	*l->up.tls.certs[0] = (struct tls_cert){.held = 1, .wolf = tls.ctx};
	l->up.tls.n_certs = 1;
	tls.ctx = NULL; /* the listener's now */
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->up >= 0);
	c = only(w);
	assert_int_equal(c->state, CONN_CONNECT);
	c->deadline_ms = 0;
	conn_wake(c);
	UNTIL(w, accepted(&second) >= 0);
	assert_int_equal(c->state, CONN_CONNECT);
	assert_int_equal(c->upstream, 1);
	c->deadline_ms = 0;
	conn_wake(c);
	UNTIL(w, c->state == CONN_CLOSING);
	assert_string_equal(c->reason, "upstream cannot be reached");
}

PREPARED(two_upstreams)
PREPARED(first_is_dead)
PREPARED(both_dead)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turns_follow_the_weights),
		T(sessions_go_to_each_in_turn, two_upstreams_setup),
		T(an_upstream_that_is_out_of_reach_gets_nobody, two_upstreams_setup),
		T(the_next_one_serves_before_the_device_hears_of_it, first_is_dead_setup),
		T(checks_find_who_is_down_and_who_is_back, first_is_dead_setup),
		T(with_none_left_the_device_gets_an_alert, both_dead_setup),
		T(an_upstream_that_hangs_is_passed_over, two_upstreams_setup),
	};

	return WORLD_RUN(tests, group_setup);
}
