/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bytes of a connection of the stack that are looked at where they are, and what is told to whoever waits for more. */
#include "test/unit/tls-proxy/stack_wire.h"

#include "tls-proxy/stack/memory.h"

static void send_bytes(struct wire *x, struct end *e, size_t from, size_t n)
{
	uint8_t buf[8000];

	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)((from + i) * 31);
	assert_int_equal(stream_send(&e->s, buf, n), n);
	wire_settle(x, 100000);
}

static void assert_bytes(const uint8_t *at, size_t from, size_t n)
{
	assert_non_null(at);
	for (size_t i = 0; i < n; i++) {
		if (at[i] != (uint8_t)((from + i) * 31))
			fail_msg("byte %zu differs", from + i);
	}
}

static void bytes_are_seen_whole_however_they_came(void **state)
{
	static const size_t pieces[] = {1, 3, 500, 1460, 5000};
	uint8_t buf[5000];

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct wire *x = wire_new(1, "10.0.0.2");
		struct end dev, *in = pair_up(x, &dev);

		for (size_t at = 0; at < 5000; at += pieces[i])
			send_bytes(x, &dev, at, 5000 - at < pieces[i] ? 5000 - at : pieces[i]);
		assert_bytes(stream_view(&in->s, buf, 5), 0, 5);
		assert_bytes(stream_view(&in->s, buf, 5000), 0, 5000);
		assert_null(stream_view(&in->s, buf, 5001));
		assert_false(stream_has(&in->s));
		assert_bytes(stream_view(&in->s, buf, 100), 0, 100);
		stream_taken(&in->s, 100);
		assert_bytes(stream_view(&in->s, buf, 4900), 100, 4900);
		assert_int_equal(stream_recv(&in->s, buf, 900), 900);
		assert_bytes(buf, 100, 900);
		assert_bytes(stream_view(&in->s, buf, 4000), 1000, 4000);
		stream_taken(&in->s, 4000);
		assert_false(stream_has(&in->s));
		assert_int_equal(stream_recv(&in->s, buf, 1), -EAGAIN);
		stream_reset(&dev.s);
		wire_free(x);
	}
}

/* What was looked at and taken opens the window as what was received does. */
static void a_window_opens_when_bytes_are_taken(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	uint8_t buf[4000];

	(void)state;
	for (size_t at = 0; at < 4 * (size_t)TCP_WND; at += 4000) {
		send_bytes(x, &dev, at, 4000);
		assert_bytes(stream_view(&in->s, buf, 4000), at, 4000);
		stream_taken(&in->s, 4000);
	}
	stream_reset(&dev.s);
	wire_free(x);
}

static void who_waits_for_more_is_told_of_no_less(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	uint8_t buf[100];

	(void)state;
	send_bytes(x, &dev, 0, 10);
	assert_null(stream_view(&in->s, buf, 100));
	in->tells = 0;
	send_bytes(x, &dev, 10, 89);
	assert_int_equal(in->tells, 0);
	send_bytes(x, &dev, 99, 1);
	assert_true(in->tells > 0 && in->told & STREAM_READ);
	assert_bytes(stream_view(&in->s, buf, 100), 0, 100);
	stream_taken(&in->s, 100);

	assert_null(stream_view(&in->s, buf, 100));
	in->tells = 0;
	send_bytes(x, &dev, 100, 10); /* received otherwise: anything counts again */
	assert_int_equal(in->tells, 0);
	assert_int_equal(stream_recv(&in->s, buf, 5), 5);
	stream_want(&in->s, STREAM_READ);
	wire_settle(x, 100000);
	assert_true(in->tells > 0);

	assert_int_equal(stream_recv(&in->s, buf, 5), 5);
	assert_null(stream_view(&in->s, buf, 100));
	in->tells = 0;
	stream_shut(&dev.s); /* the end is told in any case */
	wire_settle(x, 100000);
	assert_true(in->tells > 0 && in->told & STREAM_READ);
	assert_true(stream_has(&in->s));
	stream_reset(&dev.s);
	wire_free(x);
}

static void who_waits_while_memory_is_scarce_takes_what_there_is(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	uint8_t buf[100];
	size_t limit;
	void *held;

	(void)state;
	send_bytes(x, &dev, 0, 10);
	assert_null(stream_view(&in->s, buf, 100));
	assert_false(stream_has(&in->s));
	limit = stack_mem_used() + 200000;
	stack_mem_limit(limit);
	/* a little may still be sent */
	held = stack_mem_alloc(limit - limit / 8 + 1000 - stack_mem_used());
	assert_non_null(held);
	assert_true(stack_mem_scarce());
	assert_true(stream_has(&in->s));
	in->tells = 0;
	send_bytes(x, &dev, 10, 10);
	assert_true(in->tells > 0);
	assert_int_equal(stream_recv(&in->s, buf, sizeof(buf)), 20);
	stack_mem_free(held);
	stream_reset(&dev.s);
	wire_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_seen_whole_however_they_came),
		cmocka_unit_test(a_window_opens_when_bytes_are_taken),
		cmocka_unit_test(who_waits_for_more_is_told_of_no_less),
		cmocka_unit_test(who_waits_while_memory_is_scarce_takes_what_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
