/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How a session ends: by either end, by its clock, and what its other end hears of it. */
#include "test/unit/tls-proxy/conn_world.h"

static void each_side_may_end_first(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	/* the device ends; the upstream still talks */
	session_up(w);
	assert_int_equal(wolfSSL_write(w->ssl, "bye", 3), 3);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 3);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 0);
	assert_int_equal(end_send(w->up, "answer", 6), 6);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 6);
	assert_memory_equal(buf, "answer", 6);
	assert_int_equal(w->closed, 0);
	end_shut(w->up);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "closed");
	dev_drop(w);

	/* the upstream ends; the device still talks */
	session_up(w);
	end_shut(w->up);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), 0); /* close_notify */
	assert_int_equal(w->closed, 1);
	assert_int_equal(wolfSSL_write(w->ssl, "late", 4), 4);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 4);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "closed");
}

static void an_upstream_that_breaks_off_is_no_clean_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	end_reset(&w->up);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
}

/* Its end was read: nothing is wanted from it any more, and it is heard all the same. */
static void an_upstream_that_ended_and_is_reset_ends_the_session(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	end_shut(w->up);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), 0); /* close_notify */
	assert_true(wakes(w, 100) < 20);
	assert_int_equal(w->closed, 0);
	end_reset(&w->up);
	UNTIL(w, end_recv(w->dev, buf, sizeof(buf)) == 0);
	end_close(&w->dev);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "upstream broke off");
}

/* The device reads nothing until the upstream has ended, in one of these ways. */
static void what_an_upstream_said_is_delivered_whatever_becomes_of_it(void **state)
{
	static const struct {
		const char *name;
		bool uploads; /* until nobody takes more */
		bool fin;
		bool writes; /* after the reset */
		int alert;
	} rows[] = {
		{"its end, and a reset", false, true, false, 0},
		{"the same, and the device says more", false, true, true, 0},
		{"a reset", false, false, false, SESSION_ALERT_INTERNAL_ERROR},
		{"an upload is refused", true, false, false, SESSION_ALERT_INTERNAL_ERROR},
		{"an upload is refused, regularly", true, true, false, 0},
		{"the same, and the device says more", true, true, true, 0},
	};
	struct world *w = *state;
	uint8_t buf[16384];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t sent = 0, got = 0;
		ssize_t n;

		print_message("%s\n", rows[i].name);
		session_up(w);
		if (rows[i].uploads)
			stuff_upstream(w);
		while (only(w)->to_dev.n == 0 && !session_backlog(only(w)->tls)) {
			for (size_t k = 0; k < 1000; k++)
				buf[k] = pattern(sent + k);
			n = end_send(w->up, buf, 1000);
			sent += n > 0 ? n : 0;
			turn(w, 0);
		}
		if (rows[i].fin)
			end_shut(w->up);
		assert_true(wakes(w, 200) < 20);
		end_reset(&w->up);
		/* of what it uploads, as much as is on its way is taken, to nowhere */
		assert_true(wakes(w, 200) < 20 || rows[i].uploads);
		assert_true(wakes(w, 200) < 20);
		assert_int_equal(w->closed, i);
		if (rows[i].writes)
			wolfSSL_write(w->ssl, buf, sizeof(buf));
		for (n = 0; n >= 0;) {
			UNTIL(w, (n = dev_read(w, buf, sizeof(buf))) != 0);
			for (ssize_t k = 0; k < n; k++)
				assert_int_equal(buf[k], pattern(got + k));
			got += n > 0 ? n : 0;
		}
		assert_int_equal(got, sent);
		assert_int_equal(dev_alert(w), rows[i].alert);
		dev_drop(w);
		UNTIL(w, w->closed == i + 1 && only(w) == NULL);
		assert_string_equal(w->last_closed.reason, "upstream broke off");
	}
}

/* A device that has said its last word is heard no more, until it is reset. */
static void a_device_that_ended_and_is_reset_ends_the_session(void **state)
{
	static const struct {
		const char *name;
		bool fin, sends;
	} rows[] = {
		{"close_notify, a silent upstream", false, false},
		{"close_notify, an upstream that sends", false, true},
		{"and FIN, a silent upstream", true, false},
		{"and FIN, an upstream that sends", true, true},
	};
	struct world *w = *state;
	uint8_t buf[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		print_message("%s\n", rows[i].name);
		session_up(w);
		wolfSSL_shutdown(w->ssl);
		if (rows[i].fin)
			end_shut(w->dev);
		UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 0);
		if (rows[i].sends)
			stuff_device(w);
		assert_true(wakes(w, 100) < 20);
		assert_int_equal(w->closed, i);
		dev_reset(w);
		UNTIL(w, w->closed == i + 1 && only(w) == NULL);
		assert_string_equal(w->last_closed.reason, "device closed the connection");
		dev_drop(w);
	}
}

static void a_stuck_upstream_pushes_back_and_burns_nothing(void **state)
{
	struct world *w = *state;

	session_up(w);
	assert_true(stuff_upstream(w) < 12u << 20);
	assert_true(wakes(w, 300) < 20);
	/* the device says its last word: what it sent before still waits for the upstream */
	end_shut(w->dev);
	assert_true(wakes(w, 300) < 20);
	assert_int_equal(w->closed, 0);
	/* it gives up: though nothing is wanted from it, that is seen, and the upstream hears of no regular end */
	dev_reset(w);
	UNTIL(w, w->closed == 1 && only(w) == NULL);
	assert_string_equal(w->last_closed.reason, "device closed the connection");
	upstream_is_reset(w);
}

/* Its upstream, which was told that end, hears of what it said since at once, not when it has probed long enough. */
static void what_nobody_has_read_is_no_regular_end_either(void **state)
{
	struct world *w = *state;
	uint64_t begun_ms;
	uint8_t buf[64];

	session_up(w);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 0);
	stuff_device(w);
	only(w)->active_ms = 0;
	conn_wake(only(w));
	UNTIL(w, only(w)->state == CONN_CLOSING);
	begun_ms = clock_boot_ms();
	UNTIL(w, end_send(w->up, buf, sizeof(buf)) < 0 && errno != EAGAIN);
	assert_true(errno == ECONNRESET || errno == EPIPE);
	assert_true(clock_boot_ms() - begun_ms < 1000);
}

/* Neither may a session that is idle for too long look like a whole one to an upstream that has not got all of it. */
static void what_is_missing_is_no_regular_end(void **state)
{
	struct world *w = *state;

	session_up(w);
	stuff_upstream(w);
	only(w)->active_ms = 0;
	conn_wake(only(w));
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "idle");
	upstream_is_reset(w);
}

static void a_stuck_device_pushes_back_and_burns_nothing(void **state)
{
	struct world *w = *state;

	session_up(w);
	stuff_device(w);
	assert_true(wakes(w, 300) < 20);
	end_close(&w->up);
	assert_true(wakes(w, 300) < 20);
	dev_reset(w);
	UNTIL(w, w->closed == 1);
}

/* Its hello can be read still, and the answer goes nowhere. */
static void a_device_that_is_reset_behind_its_hello_is_refused(void **state)
{
	struct world *w = *state;
	struct listener *l = &w->w.listeners[0];

	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) != WOLFSSL_SUCCESS && l->count[TLS_BEGUN] == 1);
	dev_reset(w);
	UNTIL(w, w->refused == 1 && only(w) == NULL);
	assert_string_equal(w->refused_why, "connection closed in the handshake");
	assert_int_equal(l->count[TLS_REFUSED], 1);
}

static void a_device_that_vanishes_while_it_is_admitted(void **state)
{
	struct world *w = *state;

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	dev_reset(w);
	UNTIL(w, only(w) == NULL);
	/* the agent, which counts it now, is told */
	w->answer = ANSWER_YES;
	agent_answer(w);
	UNTIL(w, w->closed == 1);
	assert_int_equal(w->last_closed.session, w->admit.session);
	assert_int_equal(w->up, -1);
}

static void a_session_grows_no_older_than_it_may(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	w->cfg.listeners[0].max_session_s = 1;
	session_up(w);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "as old as a session may be");
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(w->refused, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(each_side_may_end_first),
		T(an_upstream_that_breaks_off_is_no_clean_end),
		T(an_upstream_that_ended_and_is_reset_ends_the_session),
		T(what_an_upstream_said_is_delivered_whatever_becomes_of_it),
		T(a_device_that_ended_and_is_reset_ends_the_session),
		T(a_stuck_upstream_pushes_back_and_burns_nothing),
		T(what_nobody_has_read_is_no_regular_end_either),
		T(what_is_missing_is_no_regular_end),
		T(a_stuck_device_pushes_back_and_burns_nothing),
		T(a_device_that_is_reset_behind_its_hello_is_refused),
		T(a_device_that_vanishes_while_it_is_admitted),
		T(a_session_grows_no_older_than_it_may),
	};

	return WORLD_RUN(tests, group_setup);
}
