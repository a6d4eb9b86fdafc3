/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who shakes hands waits for a turn; open sessions wait for nobody. */
#include "test/unit/tls-proxy/conn_world.h"

static const struct stream *asked[16]; /* whom bytes were asked of, in order */
static unsigned n_asked;

static ssize_t noted_recv(struct stream *s, void *out, size_t bytes)
{
	(void)out, (void)bytes;
	if (n_asked < 16)
		asked[n_asked++] = s;
	return -EAGAIN;
}
static ssize_t noted_send(struct stream *s, const void *data, size_t bytes)
{
	(void)s, (void)data;
	return bytes;
}
static int noted_connected(struct stream *s)
{
	(void)s;
	return 0;
}
static bool noted_unsent(struct stream *s)
{
	(void)s;
	return false;
}
static void noted_want(struct stream *s, uint32_t events)
{
	s->src.events = events;
}
static void noted_end(struct stream *s)
{
	(void)s;
}

static const struct stream_ops noted_ops = {
	.recv = noted_recv,
	.send = noted_send,
	.connected = noted_connected,
	.unsent = noted_unsent,
	.want = noted_want,
	.shut = noted_end,
	.close = noted_end,
	.reset = noted_end,
};

/* A device of which bytes have come. */
static struct conn *knocks(struct world *w)
{
	struct conn *c = conn_start(&w->w.listeners[0], &w->cfg.listeners[0].addr, 1);
	struct stream *s;

	assert_non_null(c);
	s = conn_device(c);
	s->ops = &noted_ops;
	s->w = &w->w;
	s->src.events = STREAM_READ;
	s->ready(s->arg, STREAM_READ);
	return c;
}

static int asked_setup(void **state)
{
	n_asked = 0;
	return setup(state);
}

static void they_go_on_in_the_order_in_which_they_came(void **state)
{
	struct world *w = *state;
	struct conn *c[3];

	for (unsigned i = 0; i < 3; i++) {
		c[i] = knocks(w);
		assert_int_equal(conn_device(c[i])->src.events, 0);
	}
	conn_device(c[0])->ready(c[0], STREAM_READ); /* once is enough */
	assert_int_equal(n_asked, 0);
	handshakes_turn(&w->w, clock_boot_us());
	assert_int_equal(n_asked, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(asked[i], conn_device(c[i]));
		assert_int_equal(conn_device(c[i])->src.events, STREAM_READ);
	}
	assert_true(TAILQ_EMPTY(&w->w.shaking));
}

static void a_worker_that_is_behind_gives_them_a_share_of_its_time(void **state)
{
	struct world *w = *state;
	uint64_t now_us = clock_boot_us();

	for (unsigned i = 0; i < 3; i++)
		knocks(w);
	w->w.behind = true;
	handshakes_turn(&w->w, now_us - 1000); /* the turn's time is over after one */
	assert_int_equal(n_asked, 1);
	assert_true(w->w.shake_after_us >= now_us + 3000);
	handshakes_turn(&w->w, w->w.shake_after_us - 1);
	assert_int_equal(n_asked, 1);
	w->w.shake_after_us = now_us;
	handshakes_turn(&w->w, clock_boot_us());
	assert_int_equal(n_asked, 3);
}

static void a_worker_that_has_caught_up_does_not_wait(void **state)
{
	struct world *w = *state;

	knocks(w);
	w->w.shake_after_us = UINT64_MAX;
	handshakes_turn(&w->w, clock_boot_us());
	assert_int_equal(n_asked, 1);
}

static void who_ends_waits_no_longer(void **state)
{
	struct world *w = *state;
	struct conn *c = knocks(w), *other = knocks(w);

	conn_end(c);
	conn_close(other, SESSION_ALERT_ACCESS_DENIED, "test");
	n_asked = 0;
	assert_true(TAILQ_EMPTY(&w->w.shaking));
	handshakes_turn(&w->w, clock_boot_us());
	assert_int_equal(n_asked, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, asked_setup, teardown)
	const struct CMUnitTest tests[] = {
		T(they_go_on_in_the_order_in_which_they_came),
		T(a_worker_that_is_behind_gives_them_a_share_of_its_time),
		T(a_worker_that_has_caught_up_does_not_wait),
		T(who_ends_waits_no_longer),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
