/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whose turn it is, who is down, and TLS to an upstream: what a device gets to feel of it. */
#include "test/unit/tls-proxy/conn_world.h"

/* A server of the TLS library on an accepted connection. */
struct server {
	int listener, fd;
	uint16_t port;
	WOLFSSL_CTX *ctx;
	WOLFSSL *ssl;
};

static struct server second; /* plain unless a test gives it a context */
static struct server tls = {.listener = -1, .fd = -1};
static uint16_t closed_port;

static void server_listen(struct server *s)
{
	*s = (struct server){.listener = server_open(&s->port), .fd = -1, .port = s->port};
}

static void server_drop(struct server *s)
{
	wolfSSL_free(s->ssl);
	s->ssl = NULL;
	end_close(&s->fd);
}

static void server_end(struct server *s)
{
	server_drop(s);
	wolfSSL_CTX_free(s->ctx);
	s->ctx = NULL;
	end_unlisten(&s->listener);
}

/* @return true once its handshake is done */
static bool server_shake(struct server *s)
{
	if (s->fd < 0) {
		s->fd = end_accept(s->listener);
		if (s->fd < 0)
			return false;
		s->ssl = wolfSSL_new(s->ctx);
		end_tls(s->ssl, &s->fd);
	}
	return wolfSSL_accept(s->ssl) == WOLFSSL_SUCCESS;
}

static struct listener *listener_of(struct world *w)
{
	return &w->w.listeners[0];
}

/* Checks that come due, without the wait: `now` runs ahead of the clock. */
static void check_now(struct world *w)
{
	upstreams_tick(listener_of(w), UINT64_MAX / 2);
}

static bool checking(struct world *w)
{
	struct listener *l = listener_of(w);

	for (uint32_t i = 0; i < l->up.n; i++) {
		if (stream_is_open(&l->up.list[i].probe.stream))
			return true;
	}
	return false;
}

static void (*prepare)(struct world *w, struct gw_listener *l); /* beside the servers */

static void servers_open(struct world *w, struct gw_listener *l)
{
	int nobody = server_open(&closed_port);

	end_unlisten(&nobody);
	server_listen(&second);
	if (prepare != NULL)
		prepare(w, l);
}

static int upstream_setup(void **state)
{
	world_prepare = servers_open;
	return setup(state);
}

static int upstream_teardown(void **state)
{
	server_end(&second);
	server_end(&tls);
	teardown(state);
	world_prepare = NULL;
	prepare = NULL;
	return 0;
}

/* ---- turns ---- */

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

static int accepted(struct server *s)
{
	return s->fd >= 0 ? s->fd : (s->fd = end_accept(s->listener));
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
	fd = end_listen(&closed_port);
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

/* ---- TLS ---- */

static struct {
	const char *name;
	const char *ca, *want, *client; /* of upstream_tls; client "": no certificate */
	bool tls12;
	/* the server */
	const char *cert;
	bool old, asks;
	/* */
	const char *why; /* NULL: works */
} const tls_rows[] = {
	{"by name", "ca", "srv.test", "", false, "srv", false, false, NULL},
	{"by address", "ca", "", "", false, "srv", false, false, NULL},
	{"another name", "ca", "other.test", "", false, "srv", false, false,
	 "the certificate is for another name"},
	{"no such address", "ca", "", "", false, "srv-name", false, false,
	 "the certificate is for another address"},
	{"another CA", "other", "srv.test", "", false, "srv", false, false, "unknown CA"},
	{"a device's certificate", "ca", "dev.test", "", false, "dev-dns", false, false,
	 "wrong key usage: no clientAuth"},
	{"TLS 1.2 where it is not allowed", "ca", "srv.test", "", false, "srv", true, false, ""},
	{"TLS 1.2 where it is", "ca", "srv.test", "", true, "srv", true, false, NULL},
	{"TLS 1.3 where 1.2 is allowed", "ca", "srv.test", "", true, "srv", false, false, NULL},
	{"a client certificate", "ca", "srv.test", "dev", false, "srv", false, true, NULL},
	{"a client certificate in 1.2", "ca", "srv.test", "dev", true, "srv", true, true, NULL},
};
static size_t tls_row;

static void tls_upstream(struct world *w, struct gw_listener *l)
{
	struct gw_upstream_tls *t = &l->upstream_tls;
	char path[128];

	(void)w;
	t->line = 1;
	snprintf(t->ca, sizeof(t->ca), "%s/%s.pem", pki.dir, tls_rows[tls_row].ca);
	strcpy(t->name, tls_rows[tls_row].want);
	t->tls12 = tls_rows[tls_row].tls12;
	if (tls_rows[tls_row].client[0] != '\0') {
		snprintf(t->certificate, sizeof(t->certificate), "%s/%s.pem", pki.dir,
			 tls_rows[tls_row].client);
		snprintf(t->key, sizeof(t->key), "%s/%s.key", pki.dir, tls_rows[tls_row].client);
	}
	server_listen(&tls);
	l->upstreams[0].port = tls.port;
	tls.ctx = wolfSSL_CTX_new(tls_rows[tls_row].old ? wolfTLSv1_2_server_method()
							: wolfTLSv1_3_server_method());
	snprintf(path, sizeof(path), "%s/%s.pem", pki.dir, tls_rows[tls_row].cert);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(tls.ctx, path), WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/%s.key", pki.dir, tls_rows[tls_row].cert);
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(tls.ctx, path, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/ca.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(tls.ctx, path, NULL), WOLFSSL_SUCCESS);
	wolfSSL_CTX_set_verify(tls.ctx,
			       tls_rows[tls_row].asks
				       ? WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT
				       : WOLFSSL_VERIFY_NONE,
			       NULL);
}

static void tls_session_up(struct world *w)
{
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), server_shake(&tls)));
	UNTIL(w, only(w)->state == CONN_RELAY);
}

static void the_server_is_always_verified(void **state)
{
	(void)state;
	for (tls_row = 0; tls_row < sizeof(tls_rows) / sizeof(tls_rows[0]); tls_row++) {
		const char *why = tls_rows[tls_row].why;
		struct world *w;
		uint8_t buf[64];
		void *state2;

		print_message("%s\n", tls_rows[tls_row].name);
		prepare = tls_upstream;
		assert_int_equal(upstream_setup(&state2), 0);
		w = state2;
		if (why == NULL) {
			tls_session_up(w);
			assert_int_equal(wolfSSL_write(w->ssl, "up", 2), 2);
			UNTIL(w, wolfSSL_read(tls.ssl, buf, sizeof(buf)) == 2);
			assert_memory_equal(buf, "up", 2);
			assert_int_equal(wolfSSL_write(tls.ssl, "down", 4), 4);
			UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
			assert_memory_equal(buf, "down", 4);
		} else {
			dev_connect(w);
			UNTIL(w, (wolfSSL_connect(w->ssl), server_shake(&tls),
				  dev_read(w, buf, sizeof(buf)) < 0));
			assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
			/* nothing of the device's, and no regular end of a session */
			assert_true(wolfSSL_read(tls.ssl, buf, sizeof(buf)) < 0);
		}
		upstream_teardown(&state2);
	}
	tls_row = 0;
}

static void bulk_passes_between_two_engines(void **state)
{
	struct world *w = *state;
	const size_t bytes = 1 << 20;
	size_t dev_out = 0, dev_in = 0, up_out = 0, up_in = 0;
	uint64_t end_ms = clock_boot_ms() + 4 * PATIENCE_MS;
	uint8_t buf[16384];

	tls_session_up(w);
	while (dev_in < bytes || up_in < bytes) {
		int n = bytes - dev_out < 3000 ? bytes - dev_out : 3000;

		for (int i = 0; i < n; i++)
			buf[i] = pattern(dev_out + i);
		n = n > 0 ? wolfSSL_write(w->ssl, buf, n) : 0;
		dev_out += n > 0 ? n : 0;
		n = bytes - up_out < 9000 ? bytes - up_out : 9000;
		for (int i = 0; i < n; i++)
			buf[i] = pattern(up_out + i + 5);
		n = n > 0 ? wolfSSL_write(tls.ssl, buf, n) : 0;
		up_out += n > 0 ? n : 0;
		turn(w, 0);
		n = dev_read(w, buf, 1400);
		for (int i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(dev_in + i + 5));
		dev_in += n > 0 ? n : 0;
		n = wolfSSL_read(tls.ssl, buf, 700);
		for (int i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(up_in + i));
		up_in += n > 0 ? n : 0;
		if (clock_boot_ms() > end_ms)
			fail_msg("stuck: device %zu/%zu, upstream %zu/%zu", dev_in, dev_out, up_in,
				 up_out);
	}
}

static bool server_eof(struct server *s)
{
	uint8_t buf[64];
	int n = wolfSSL_read(s->ssl, buf, sizeof(buf));

	return n <= 0 && wolfSSL_get_error(s->ssl, n) == WOLFSSL_ERROR_ZERO_RETURN;
}

static void each_end_of_two_engines_may_close_first(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	tls_session_up(w);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, server_eof(&tls));
	assert_int_equal(wolfSSL_write(tls.ssl, "late", 4), 4);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
	assert_int_equal(w->closed, 0);
	wolfSSL_shutdown(tls.ssl);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "closed");
	dev_drop(w);
	server_drop(&tls);

	tls_session_up(w);
	wolfSSL_shutdown(tls.ssl);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), 0);
	assert_int_equal(wolfSSL_write(w->ssl, "late", 4), 4);
	UNTIL(w, wolfSSL_read(tls.ssl, buf, sizeof(buf)) == 4);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "closed");
}

static void an_upstream_cut_short_is_no_regular_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	tls_session_up(w);
	assert_int_equal(wolfSSL_write(tls.ssl, "part", 4), 4);
	end_shut(tls.fd); /* FIN, and no close_notify */
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
}

static void a_device_cut_short_is_no_regular_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	ssize_t n = 0;

	/* TLS to the upstream */
	tls_session_up(w);
	end_shut(w->dev);
	UNTIL(w, (errno = 0, n = end_recv(tls.fd, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

static void a_plain_upstream_sees_a_device_cut_short(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	ssize_t n = 0;

	session_up(w);
	UNTIL(w, only(w)->state == CONN_RELAY);
	end_shut(w->dev);
	UNTIL(w, (errno = 0, n = end_recv(w->up, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

static void a_stuck_upstream_holds_little_and_burns_nothing(void **state)
{
	static const uint8_t buf[16384];
	struct world *w = *state;
	size_t total = 0, out;
	uint8_t in[16384];
	int n;

	tls_session_up(w);
	for (unsigned idle = 0; idle < 50;) {
		n = wolfSSL_write(w->ssl, buf, sizeof(buf));
		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
		total += n > 0 ? n : 0;
	}
	/* what the kernels hold between them, and in the worker a record here and there */
	assert_true(total < 12u << 20);
	session_output(only(w)->up_tls, &out);
	assert_true(out <= 40 * 1024);
	assert_true(buffer_waiting(&only(w)->to_up) <= RELAY_BYTES);
	assert_true(wakes(w, 300) < 20);
	/* it goes on when the upstream does: all of it arrives */
	for (size_t got = 0; got<total; got += n> 0 ? n : 0) {
		UNTIL(w, (n = wolfSSL_read(tls.ssl, in, sizeof(in))) > 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(in[i], 0);
	}
}

/* An upstream that takes nothing, for it waits for its own words to be taken: many in one piece, each a record. */
static void who_does_not_read_is_read_all_the_same(void **state)
{
	static const uint8_t buf[16384];
	struct world *w = *state;
	size_t got = 0;
	uint8_t in[64];

	tls_session_up(w);
	for (unsigned idle = 0; idle < 50;) {
		int n = wolfSSL_write(w->ssl, buf, sizeof(buf));

		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
	}
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(wolfSSL_write(tls.ssl, "word", 4), 4);
	UNTIL(w, (got += dev_read(w, in, sizeof(in))) == 800);
}

/* Records that wait for a slow device make no event once they are with the worker. */
static void a_slow_device_gets_all_that_was_said(void **state)
{
	static uint8_t buf[9000];
	struct world *w = *state;
	size_t said = 0, got = 0;

	tls_session_up(w);
	for (unsigned idle = 0; idle < 20; idle++) {
		int n = wolfSSL_write(tls.ssl, buf, sizeof(buf));

		said += n > 0 ? n : 0;
		idle = n > 0 ? 0 : idle;
		turn(w, 1);
	}
	/* what the library still holds of a record goes out with the next byte */
	UNTIL(w, (got += dev_read(w, buf, 1000),
		  got >= said || wolfSSL_write(tls.ssl, buf, sizeof(buf)) == (int)sizeof(buf)));
	said += sizeof(buf);
	UNTIL(w, (got += dev_read(w, buf, 1000)) == said);
}

/* Whoever resets, and whenever: the session ends, and the other side hears no regular end. */
static void a_reset_ends_it_in_every_state(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	int fd = -1;

	/* the upstream, before it says a word of TLS */
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), fd = end_accept(tls.listener)) >= 0);
	assert_int_equal(only(w)->state, CONN_CONNECT);
	end_reset(&fd);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	dev_drop(w);
	UNTIL(w, w->closed == 1 && only(w) == NULL);

	/* the device, while its upstream is being reached */
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && only(w) != NULL &&
			 only(w)->state == CONN_CONNECT && only(w)->up_connected);
	dev_reset(w);
	UNTIL(w, w->closed == 2 && only(w) == NULL);
	UNTIL(w, accepted(&tls) >= 0);
	UNTIL(w, end_recv(tls.fd, buf, sizeof(buf)) < 0 && errno != EAGAIN);
	assert_int_equal(errno, ECONNRESET);
	dev_drop(w);
	server_drop(&tls);

	/* the upstream, in the middle */
	tls_session_up(w);
	end_reset(&tls.fd);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	dev_drop(w);
	server_drop(&tls);
	UNTIL(w, w->closed == 3 && only(w) == NULL);

	/* the device, in the middle, and when one direction is over already */
	for (unsigned half = 0; half < 2; half++) {
		ssize_t n = 0;

		tls_session_up(w);
		if (half) {
			wolfSSL_shutdown(tls.ssl);
			UNTIL(w, only(w)->up_eof);
		}
		dev_reset(w);
		UNTIL(w,
		      (errno = 0, n = end_recv(tls.fd, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
		assert_int_equal(n, -1);
		dev_drop(w);
		server_drop(&tls);
		UNTIL(w, w->closed == 4 + half && only(w) == NULL);
	}
}

static void half_closed(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->half_closed_timeout_s = 1;
}

static void a_session_half_closed_does_not_stay_for_ever(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 0);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "half-closed and idle");
	dev_drop(w);
	session_up(w);
	end_shut(w->up);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "half-closed and idle");
}

/* ---- the end ---- */

static bool knocks(struct world *w)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(w->cfg.listeners[0].port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct ip_addr at = end_addr(WORLD_ADDRESS);
	bool in_there;
	int end;

	if (ends_stack != NULL) {
		end = end_connect(&at, w->cfg.listeners[0].port);
		UNTIL(w, stream_connected(end_stream(end)) != -EINPROGRESS);
		in_there = stream_connected(end_stream(end)) == 0;
	} else {
		end = socket(AF_INET, SOCK_STREAM, 0);
		in_there = connect(end, (struct sockaddr *)&in, sizeof(in)) == 0;
	}
	end_close(&end);
	return in_there;
}

static bool listens(const struct world *w)
{
	const struct listener *l = &w->w.listeners[0];

	return ends_stack != NULL ? l->stk.pcb != NULL : l->src.fd >= 0;
}

static void a_worker_that_ends_lets_its_sessions_finish(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	w->cfg.drain_s = 3600;
	session_up(w);
	assert_true(knocks(w));
	worker_drain(&w->w);
	UNTIL(w, !listens(w));
	assert_false(knocks(w));
	assert_int_equal(wolfSSL_write(w->ssl, "on", 2), 2);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 2);
	assert_false(w->w.stop);
	wolfSSL_shutdown(w->ssl);
	end_shut(w->up);
	UNTIL(w, w->closed == 1 && only(w) == NULL);
	assert_true(w->w.stop);
}

static void but_not_for_ever(void **state)
{
	struct world *w = *state;

	w->cfg.drain_s = 1;
	session_up(w);
	worker_drain(&w->w);
	UNTIL(w, w->w.stop);
	assert_non_null(only(w));
	assert_int_equal(only(w)->state, CONN_RELAY);
}

static void a_second_word_ends_it_at_once_with_a_good_bye(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	int n;

	if (ends_stack != NULL)
		skip(); /* who would hear it ends with the worker */
	w->cfg.drain_s = 3600;
	session_up(w);
	worker_drain(&w->w);
	turn(w, 0);
	assert_false(w->w.stop);
	worker_drain(&w->w);
	assert_true(w->w.stop);
	worker_stop(&w->w);
	/* what main() does; then the device hears it */
	n = wolfSSL_read(w->ssl, buf, sizeof(buf));
	assert_true(n <= 0);
	assert_int_equal(wolfSSL_get_error(w->ssl, n), WOLFSSL_ERROR_ZERO_RETURN);
	assert_int_equal(end_recv(w->up, buf, sizeof(buf)), 0);
	w->w.epoll = epoll_create1(0); /* for teardown */
	conns_init(&w->w);
	w->w.n_listeners = 0;
}

static int tls_group_setup(void **state)
{
	return group_setup(state) != 0 ||
			       pki_cert(&pki, "srv",
					"subjectAltName=DNS:srv.test,IP:127.0.0.1,IP:" END_UPSTREAM
					"\\n"
					"extendedKeyUsage=serverAuth") != 0 ||
			       pki_cert(&pki, "srv-name",
					"subjectAltName=DNS:srv.test\\nextendedKeyUsage="
					"serverAuth") != 0 ||
			       pki_cert(&pki, "dev-dns",
					"subjectAltName=DNS:dev.test\\nextendedKeyUsage="
					"clientAuth") != 0
		       ? -1
		       : 0;
}

#define PREPARED(name)                                                                             \
	static int name##_setup(void **state)                                                      \
	{                                                                                          \
		prepare = name;                                                                    \
		return upstream_setup(state);                                                      \
	}
PREPARED(two_upstreams)
PREPARED(first_is_dead)
PREPARED(both_dead)
PREPARED(tls_upstream)
PREPARED(half_closed)

int main(void)
{
#define T(name, prepared) cmocka_unit_test_setup_teardown(name, prepared, upstream_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turns_follow_the_weights),
		T(sessions_go_to_each_in_turn, two_upstreams_setup),
		T(an_upstream_that_is_out_of_reach_gets_nobody, two_upstreams_setup),
		T(the_next_one_serves_before_the_device_hears_of_it, first_is_dead_setup),
		T(checks_find_who_is_down_and_who_is_back, first_is_dead_setup),
		T(with_none_left_the_device_gets_an_alert, both_dead_setup),
		T(an_upstream_that_hangs_is_passed_over, two_upstreams_setup),
		cmocka_unit_test(the_server_is_always_verified),
		T(bulk_passes_between_two_engines, tls_upstream_setup),
		T(each_end_of_two_engines_may_close_first, tls_upstream_setup),
		T(an_upstream_cut_short_is_no_regular_end, tls_upstream_setup),
		T(a_device_cut_short_is_no_regular_end, tls_upstream_setup),
		T(a_plain_upstream_sees_a_device_cut_short, upstream_setup),
		T(a_stuck_upstream_holds_little_and_burns_nothing, tls_upstream_setup),
		T(who_does_not_read_is_read_all_the_same, tls_upstream_setup),
		T(a_slow_device_gets_all_that_was_said, tls_upstream_setup),
		T(a_reset_ends_it_in_every_state, tls_upstream_setup),
		T(a_session_half_closed_does_not_stay_for_ever, half_closed_setup),
		T(a_worker_that_ends_lets_its_sessions_finish, upstream_setup),
		T(but_not_for_ever, upstream_setup),
		T(a_second_word_ends_it_at_once_with_a_good_bye, upstream_setup),
	};

	return WORLD_RUN(tests, tls_group_setup);
}
