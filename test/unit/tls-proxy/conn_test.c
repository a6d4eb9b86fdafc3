/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a session does when one of its ends is slow, silent, gone, or no longer vouched for. */
#include "test/unit/tls-proxy/conn_world.h"

/* `bytes` both ways at once, in pieces of `record`; each end reads at most `dev_gulp`, `up_gulp` at a time. */
static void exchange(struct world *w, size_t bytes, size_t record, size_t dev_gulp, size_t up_gulp)
{
	size_t dev_out = 0, dev_in = 0, up_out = 0, up_in = 0;
	uint64_t end_ms = clock_boot_ms() + 4 * PATIENCE_MS;
	uint8_t buf[16384];

	while (dev_in < bytes || up_in < bytes) {
		ssize_t n = bytes - dev_out < record ? bytes - dev_out : record;

		for (ssize_t i = 0; i < n; i++)
			buf[i] = pattern(dev_out + i);
		n = n > 0 ? wolfSSL_write(w->ssl, buf, n) : 0;
		dev_out += n > 0 ? n : 0;
		n = bytes - up_out < sizeof(buf) ? bytes - up_out : sizeof(buf);
		for (ssize_t i = 0; i < n; i++)
			buf[i] = pattern(up_out + i + 5);
		n = n > 0 ? end_send(w->up, buf, n) : 0;
		up_out += n > 0 ? n : 0;
		turn(w, 0);
		n = dev_read(w, buf, dev_gulp);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(dev_in + i + 5));
		dev_in += n > 0 ? n : 0;
		n = end_recv(w->up, buf, up_gulp);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(up_in + i));
		up_in += n > 0 ? n : 0;
		if (clock_boot_ms() > end_ms)
			fail_msg("stuck: device %zu/%zu, upstream %zu/%zu", dev_in, dev_out, up_in,
				 up_out);
	}
}

static void bytes_pass_unchanged_at_any_pace(void **state)
{
	static const struct {
		const char *name;
		size_t bytes, record, dev_gulp, up_gulp;
	} rows[] = {
		{"all as fast as it goes", 2 << 20, 16384, 16384, 16384},
		{"a slow device", 2 << 20, 16384, 1400, 16384},
		{"a slow upstream, large records", 2 << 20, 16384, 16384, 1400},
		{"a slow upstream, small records", 512 << 10, 100, 16384, 700},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		print_message("%s\n", rows[i].name);
		session_up(w);
		exchange(w, rows[i].bytes, rows[i].record, rows[i].dev_gulp, rows[i].up_gulp);
		dev_drop(w);
		UNTIL(w, w->closed == i + 1);
		assert_int_equal(w->last_closed.bytes_up, rows[i].bytes);
		assert_int_equal(w->last_closed.bytes_down, rows[i].bytes);
	}
	assert_int_equal(w->refused, 0);
}

static void what_comes_with_the_handshake_follows_the_proxy_header(void **state)
{
	struct world *w = *state;
	uint8_t buf[1024];
	ssize_t n, got = 0;

	w->cfg.listeners[0].proxy_protocol = true;
	w->answer = ANSWER_NEVER;
	dev_connect(w);
	/* everything that the device has to say is there before the worker looks */
	while (w->admits == 0) {
		if (wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->dev >= 0 && got == 0) {
			assert_int_equal(wolfSSL_write(w->ssl, "early", 5), 5);
			got = 1;
		}
		turn(w, 1);
	}
	agent_answer(w);
	for (got = 0; got < 5 || memcmp(buf + got - 5, "early", 5) != 0;) {
		uint64_t end_ms = clock_boot_ms() + PATIENCE_MS;

		turn(w, 1);
		n = w->up >= 0 ? end_recv(w->up, buf + got, sizeof(buf) - got) : 0;
		got += n > 0 ? n : 0;
		assert_true(clock_boot_ms() < end_ms);
	}
	assert_memory_equal(buf, "\r\n\r\n\0\r\nQUIT\n", 12);
}

/* Each of its key updates wants one back, which it does not read. */
static void a_device_that_only_wants_new_keys_burns_nothing(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	/* the answers are stuck; then as much again as it takes to fill what is read into */
	for (unsigned more = 0; more < 3000; more += session_backlog(only(w)->tls)) {
		assert_int_equal(wolfSSL_update_keys(w->ssl), WOLFSSL_SUCCESS);
		if (more % 64 == 0)
			turn(w, 0);
	}
	assert_true(session_backlog(only(w)->tls));
	assert_true(wakes(w, 300) < 20);
	/* when it reads again, all goes on */
	UNTIL(w, (dev_read(w, buf, sizeof(buf)), wolfSSL_write(w->ssl, "on", 2) == 2));
	UNTIL(w, (dev_read(w, buf, sizeof(buf)), end_recv(w->up, buf, sizeof(buf)) == 2));
}

static void recheck(struct world *w)
{
	struct msg_recheck m = {.slot = SLOT};

	MSG_INIT(&m, MSG_RECHECK, 9);
	w->rechecked = -1;
	assert_int_equal(msg_send(w->agent, &m, -1), 0);
	UNTIL(w, w->rechecked >= 0);
}

/* An end alone is not worth waking the agent at once: it goes with the next message, before that one, or soon after. */
static void an_end_is_told_soon_and_in_order(void **state)
{
	static const struct {
		const char *name;
		bool next; /* another message follows */
	} rows[] = {{"alone", false}, {"before the next", true}};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t start_ms;

		session_up(w);
		UNTIL(w, only(w)->state == CONN_RELAY);
		dev_reset(w);
		UNTIL(w, only(w) == NULL);
		if (w->closed != i || w->w.agent_queued != 1)
			fail_msg("%s: did not wait", rows[i].name);
		start_ms = clock_boot_ms();
		if (rows[i].next) {
			recheck(w);
			assert_int_equal(w->closed, i + 1);
		}
		/* whoever sleeps meanwhile does not do so for long */
		if (w->w.agent_queued > 0)
			assert_int_equal(agent_rests(&w->w, w->w.agent_due_us - 1, WORKER_TICK_MS),
					 1);
		while (w->closed == i && clock_boot_ms() - start_ms < WORKER_TICK_MS / 2)
			turn(w, 1);
		if (w->closed != i + 1)
			fail_msg("%s: told too late", rows[i].name);
		dev_drop(w);
		close(w->up);
		w->up = -1;
	}
}

/* Who asks to be let in waits for others in a handshake, who may soon ask too, but not for long, and not for nobody. */
static void who_asks_goes_with_others(void **state)
{
	struct world *w = *state;
	struct conn other = {.w = &w->w};
	uint64_t due_us;

	session_up(w);
	UNTIL(w, only(w)->state == CONN_RELAY);
	assert_true(TAILQ_EMPTY(&w->w.shaking));
	assert_int_equal(w->w.agent_queued, 0);
	assert_int_equal(agent_admit(only(w), true), 0);
	assert_int_equal(w->w.agent_queued, 1);
	assert_int_equal(agent_rests(&w->w, w->w.agent_due_us - 1, WORKER_TICK_MS), 0);
	agent_post(&w->w, w->w.agent_due_us - 1);
	assert_int_equal(w->w.agent_queued, 0);
	TAILQ_INSERT_TAIL(&w->w.shaking, &other, turn);
	assert_int_equal(agent_admit(only(w), true), 0);
	due_us = w->w.agent_due_us;
	agent_post(&w->w, due_us - 1);
	assert_int_equal(w->w.agent_queued, 1);
	assert_int_equal(agent_admit(only(w), true), 0);
	assert_true(w->w.agent_due_us == due_us); /* of the first */
	agent_post(&w->w, due_us);
	assert_int_equal(w->w.agent_queued, 0);
	TAILQ_REMOVE(&w->w.shaking, &other, turn);
}

static void an_answer_that_comes_too_late_is_handed_back(void **state)
{
	struct world *w = *state;

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	only(w)->deadline_ms = 0;
	conn_wake(only(w));
	UNTIL(w, w->refused == 1);
	assert_string_equal(w->refused_why, "the agent does not answer");
	w->answer = ANSWER_YES;
	agent_answer(w);
	UNTIL(w, w->closed == 1);
	assert_int_equal(w->last_closed.session, w->admit.session);
	assert_int_equal(w->up, -1);
}

static void the_table_ends_sessions(void **state)
{
	static const struct {
		const char *name;
		enum answer answer;
		enum standing standing;
		bool past;
		uint32_t generation;
		int alert;
		const char *why;
	} rows[] = {
		{"revoked", ANSWER_YES, STANDING_REVOKED, true, 8, 44, "revoked"},
		{"revoked while held", ANSWER_HELD, STANDING_REVOKED, true, 8, 44, "revoked"},
		{"moved", ANSWER_YES, STANDING_REMEDIATION, false, 8, 49, "standing changed"},
		{"expired", ANSWER_YES, STANDING_FULL, true, 7, 45, "standing expired"},
	};
	struct world *w = *state;
	uint8_t buf[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t closed = w->closed;

		w->answer = rows[i].answer;
		table_say(w, STANDING_FULL, UINT64_MAX, 7);
		dev_connect(w);
		UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == i + 1);
		UNTIL(w, only(w)->state == CONN_RELAY || only(w)->state == CONN_HELD);
		table_say(w, rows[i].standing, rows[i].past ? 1 : UINT64_MAX, rows[i].generation);
		/* a session that sees it by itself, by data on its way, is counted too */
		if (i % 2 == 0)
			wolfSSL_write(w->ssl, "x", 1);
		recheck(w);
		if (w->rechecked != 1)
			fail_msg("%s: %d closed", rows[i].name, (int)w->rechecked);
		UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
		assert_int_equal(dev_alert(w), rows[i].alert);
		recheck(w);
		assert_int_equal(w->rechecked, 0);
		dev_drop(w);
		UNTIL(w, w->closed == closed + 1);
		assert_string_equal(w->last_closed.reason, rows[i].why);
	}
}

static void an_expiry_needs_no_agent(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	table_say(w, STANDING_FULL, clock_boot_ms() + 50, 7);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_CERTIFICATE_EXPIRED);
}

static void revocation_delivers_nothing_that_was_queued(void **state)
{
	struct world *w = *state;
	uint8_t buf[16384];
	ssize_t n = 0;
	size_t late = 0;

	session_up(w);
	stuff_device(w);
	table_say(w, STANDING_REVOKED, 0, 8);
	recheck(w);
	assert_int_equal(w->rechecked, 1);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "revoked");
	/* what had crossed the wire before stays the device's; then the connection is reset, without an end */
	UNTIL(w, (late += (n = end_recv(w->dev, buf, sizeof(buf))) > 0 ? n : 0,
		  n <= 0 && errno != EAGAIN));
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(late < (ends_stack != NULL ? 300000 : 200000)); /* its window */
	/* the upstream does not take it for a regular end either */
	upstream_is_reset(w);
}

static void an_agent_that_comes_back_is_told_and_decides_anew(void **state)
{
	static const struct {
		const char *name;
		enum answer answer;
		bool lives;
	} rows[] = {
		{"as before", ANSWER_YES, true},
		{"refused", ANSWER_NO, false},
		{"in another segment", ANSWER_SEGMENT, false},
		{"with another standing", ANSWER_STANDING, false},
		{"the upstream is out of reach now", ANSWER_HELD, false},
	};
	struct world *w = *state;
	uint8_t buf[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t readmits = w->readmits;

		w->answer = ANSWER_YES;
		session_up(w);
		agent_kill(w);
		UNTIL(w, !w->w.agent_up);
		/* meanwhile it goes on */
		assert_int_equal(wolfSSL_write(w->ssl, "on", 2), 2);
		UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 2);
		w->answer = rows[i].answer;
		table_say(w, STANDING_FULL, UINT64_MAX, 7 + i);
		only(w)->generation = 7 + i;
		agent_listen(w);
		UNTIL(w, w->readmits == readmits + 1);
		if (rows[i].lives) {
			assert_int_equal(wolfSSL_write(w->ssl, "ok", 2), 2);
			UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 2);
		} else {
			UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
			if (dev_alert(w) != SESSION_ALERT_ACCESS_DENIED)
				fail_msg("%s: alert %d", rows[i].name, dev_alert(w));
		}
		dev_drop(w);
		UNTIL(w, only(w) == NULL);
	}
}

static void a_session_that_is_ending_is_not_announced_again(void **state)
{
	struct world *w = *state;

	session_up(w);
	table_say(w, STANDING_REVOKED, 0, 8);
	recheck(w); /* the device does not react: the session lingers */
	assert_int_equal(only(w)->state, CONN_CLOSING);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	agent_listen(w);
	UNTIL(w, w->w.agent_up);
	assert_int_equal(w->readmits, 0);
}

static void a_smaller_table_is_never_read_past_its_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	table_make(w, 2);
	w->answer = ANSWER_NEVER;
	agent_listen(w);
	UNTIL(w, w->w.agent_up);
	assert_int_equal(w->w.trust.slots, 2);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
}

static void an_agent_that_only_hangs_costs_no_cpu(void **state)
{
	struct world *w = *state;

	w->mute = true;
	agent_kill(w);
	agent_listen(w);
	UNTIL(w, !w->w.agent_up);
	UNTIL(w, w->w.agent.fd >= 0);
	assert_true(wakes(w, 1500) < 40);
	/* nobody gets in meanwhile */
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), only(w) != NULL && only(w)->state == CONN_CLOSING));
	assert_int_equal(w->up, -1);
}

static void those_who_wait_are_told_when_the_agent_dies(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	agent_kill(w);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	assert_int_equal(w->up, -1);
}

static void ask_state(struct world *w)
{
	struct msg_hdr m = {.type = MSG_TLS_STATE_GET, .bytes = sizeof(m), .seq = 77};
	unsigned n = w->n_told;

	assert_int_equal(msg_send(w->agent, &m, -1), 0);
	UNTIL(w, w->n_told == n + 1);
	assert_true(msg_tls_listener_check(&w->told));
	assert_int_equal(w->told.h.seq, 77);
}

/* Numbers of a listener and its upstream, as they come to be. */
static void the_agent_is_told_how_a_listener_is(void **state)
{
	struct world *w = *state;

	dev_connect(w);
	UNTIL(w, w->w.listeners[0].handshakes == 1);
	ask_state(w);
	assert_string_equal(w->told.name, "test");
	assert_int_equal(w->told.handshakes, 1);
	assert_int_equal(w->told.sessions, 1);
	assert_int_equal(w->told.count[TLS_BEGUN], 1);
	assert_int_equal(w->told.count[TLS_SESSIONS], 0);
	assert_int_equal(w->told.n_upstreams, 1);
	assert_int_equal(w->told.upstream[0].sessions, 0);
	dev_drop(w);
	UNTIL(w, w->w.listeners[0].sessions == 0);
	session_up(w);
	ask_state(w);
	assert_int_equal(w->told.handshakes, 0);
	assert_int_equal(w->told.sessions, 1);
	assert_int_equal(w->told.count[TLS_BEGUN], 2);
	assert_int_equal(w->told.count[TLS_SESSIONS], 1);
	assert_int_equal(w->told.upstream[0].sessions, 1);
	assert_int_equal(w->told.upstream[0].connected, 1);
	assert_int_equal(w->told.upstream[0].failed, 0);
	dev_drop(w);
	UNTIL(w, w->closed == 1);
	w->cfg.listeners[0].sessions_max = 0;
	dev_connect(w);
	UNTIL(w, w->w.listeners[0].count[TLS_OVER_SESSIONS] == 1);
	w->cfg.listeners[0].sessions_max = 100;
	upstream_failed(&w->w.listeners[0], 0, "Connection refused");
	ask_state(w);
	assert_int_equal(w->told.upstream[0].sessions, 0);
	assert_int_equal(w->told.count[TLS_OVER_SESSIONS], 1);
	assert_string_equal(w->told.upstream[0].why, "Connection refused");
	assert_true(w->told.upstream[0].failed_ms > 0);
}

/* What comes of a worker that was taken over. */
static void a_report_that_cannot_be_is_refused(void **state)
{
	struct msg_tls_listener good = {.name = "l", .n_upstreams = MSG_TLS_UPSTREAMS_MAX}, m;

	(void)state;
	assert_true(msg_tls_listener_check(&good));
	m = good;
	m.n_upstreams++;
	assert_false(msg_tls_listener_check(&m));
	m = good;
	memset(m.name, 'x', sizeof(m.name));
	assert_false(msg_tls_listener_check(&m));
	m = good;
	memset(m.upstream[MSG_TLS_UPSTREAMS_MAX - 1].why, 'x', sizeof(m.upstream[0].why));
	assert_false(msg_tls_listener_check(&m));
	m.n_upstreams--; /* nobody reads that one */
	assert_true(msg_tls_listener_check(&m));
}

/* As when a worker with thousands of sessions ends: more than the agent's socket takes at once. */
static void an_agent_that_is_slow_is_told_everything(void **state)
{
	enum { MANY = 5000 };
	struct world *w = *state;
	struct conn *c;

	session_up(w);
	c = LIST_FIRST(&w->w.conns);
	for (int i = 0; i < MANY; i++)
		agent_closed(c);
	assert_true(agent_backlog(&w->w));
	assert_true(w->w.agent_up);
	UNTIL(w, w->closed == MANY);
	assert_false(agent_backlog(&w->w));
	assert_true(w->w.agent_up);
	dev_drop(w);
	UNTIL(w, w->closed == MANY + 1);
}

static void no_descriptors_left_is_no_busy_loop(void **state)
{
	struct world *w = *state;
	struct rlimit was, now;
	int spare;

	if (ends_stack != NULL)
		skip();
	dev_connect(w);
	spare = dup(0);
	close(spare);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	now = was;
	now.rlim_cur = spare;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	assert_true(wakes(w, 300) < 20);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
}

static void new_revocation_lists_reach_live_sessions(void **state)
{
	struct world *w = *state, other = {.dev = -1};
	uint8_t buf[64];

	session_up(w);
	w->w.reload = true;
	turn(w, 1);
	assert_int_equal(wolfSSL_write(w->ssl, "x", 1), 1);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 1);
	/* a second device stands in the middle of its handshake */
	other.ctx = w->ctx;
	other.cfg.listeners[0].port = w->cfg.listeners[0].port;
	dev_connect(&other);
	wolfSSL_connect(other.ssl);
	UNTIL(w, w->w.listeners[0].handshakes == 1);
	assert_int_equal(pki_sh(&pki, "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem "
				      "-revoke dev.pem && openssl ca -config ca.cnf -gencrl "
				      "-keyfile ca.key -cert ca.pem -out ca.crl"),
			 0);
	w->w.reload = true;
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "revoked (CRL)");
	assert_int_equal(w->last_closed.cert_revoked, 1);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_CERTIFICATE_REVOKED);
	/* and ends it under the new lists */
	UNTIL(w, (wolfSSL_connect(other.ssl), w->refused == 1));
	assert_string_equal(w->refused_why, "certificate revoked (CRL)");
	other.up = -1;
	dev_drop(&other);
}

/* Two devices of one source knock and say nothing: the second is turned away, until the first is done. */
static void one_source_takes_no_more_than_its_share(void **state)
{
	struct world *w = *state, other = {.dev = -1, .up = -1};
	struct listener *l = &w->w.listeners[0];

	w->cfg.listeners[0].handshakes_each = 1;
	l->limit = calloc(1, sizeof(*l->limit));
	assert_non_null(l->limit);
	dev_connect(w);
	UNTIL(w, l->handshakes == 1);
	other.ctx = w->ctx;
	other.cfg.listeners[0].port = w->cfg.listeners[0].port;
	dev_connect(&other);
	UNTIL(w, l->turned_source == 1);
	assert_int_equal(l->handshakes, 1);
	dev_drop(&other);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	dev_drop(w);
	session_up(w);
	assert_int_equal(l->handshakes, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(one_source_takes_no_more_than_its_share),
		T(bytes_pass_unchanged_at_any_pace),
		T(what_comes_with_the_handshake_follows_the_proxy_header),
		T(a_device_that_only_wants_new_keys_burns_nothing),
		T(an_end_is_told_soon_and_in_order),
		T(who_asks_goes_with_others),
		T(an_answer_that_comes_too_late_is_handed_back),
		T(the_table_ends_sessions),
		T(an_expiry_needs_no_agent),
		T(revocation_delivers_nothing_that_was_queued),
		T(an_agent_that_comes_back_is_told_and_decides_anew),
		T(a_session_that_is_ending_is_not_announced_again),
		T(a_smaller_table_is_never_read_past_its_end),
		T(an_agent_that_only_hangs_costs_no_cpu),
		T(those_who_wait_are_told_when_the_agent_dies),
		T(an_agent_that_is_slow_is_told_everything),
		T(the_agent_is_told_how_a_listener_is),
		T(a_report_that_cannot_be_is_refused),
		T(no_descriptors_left_is_no_busy_loop),
		T(new_revocation_lists_reach_live_sessions), /* last: its list stays */
	};

	return WORLD_RUN(tests, group_setup);
}
