/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How a worker ends. */
#include "test/unit/tls-proxy/conn_world.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_worker_that_ends_lets_its_sessions_finish, setup,
						teardown),
		cmocka_unit_test_setup_teardown(but_not_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(a_second_word_ends_it_at_once_with_a_good_bye,
						setup, teardown),
	};

	return WORLD_RUN(tests, group_setup);
}
