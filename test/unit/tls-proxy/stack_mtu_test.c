/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How large the stack's segments are: by the MTU of the port that has its address. */
#include "test/unit/tls-proxy/stack_wire.h"

#define TCP_AT(ip) ((ip)[0] >> 4 == 4 ? 20 : 40)
#define SYN 0x02
#define OPTION_MSS 2

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint16_t mtu_device, mtu_listener;

static uint16_t mtu_of(void *arg, const struct ip_addr *own)
{
	const struct wire *x = arg;

	return ip_addr_eq(own, &x->at) ? mtu_listener : mtu_device;
}

static uint16_t said[2]; /* largest segment in the SYN, in its answer */
static unsigned largest; /* packet */

static bool look(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	const uint8_t *tcp = ip + TCP_AT(ip);

	(void)x;
	largest = bytes > largest ? bytes : largest;
	if (tcp[13] & SYN) {
		assert_int_equal(tcp[20], OPTION_MSS);
		said[(tcp[13] & 0x10) != 0] = be16(tcp + 22);
	}
	return true;
}

static struct wire *wire_with(const char *at, uint16_t device, uint16_t listener)
{
	struct wire *x = wire_new(4, at);

	mtu_device = device;
	mtu_listener = listener;
	x->stack->cfg.mtu_bytes = 9000;
	x->stack->cfg.mtu_of = mtu_of;
	x->stack->cfg.mtu_arg = x;
	assert_int_equal(stack_address_add(x->stack, &x->at), 0);
	x->filter = look;
	largest = 0;
	return x;
}

static void passes(struct wire *x, struct end *from, struct end *to, size_t bytes)
{
	static uint8_t data[65536], out[65536];
	size_t sent = 0, got = 0;

	assert_true(bytes <= sizeof(data));
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(i * 31 >> 3);
	for (uint64_t end_us = x->now_us + 60000000; got < bytes && x->now_us < end_us;) {
		ssize_t n = sent < bytes ? stream_send(&from->s, data + sent, bytes - sent) : 0;

		sent += n > 0 ? (size_t)n : 0;
		wire_turn(x, x->head == x->tail ? 10000 : 10);
		n = stream_recv(&to->s, out + got, sizeof(out) - got);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(got, bytes);
	assert_memory_equal(data, out, bytes);
}

static void each_address_has_its_own_size(void **state)
{
	static const struct {
		const char *at;
		uint16_t device, listener, says, answers, largest;
	} rows[] = {
		{"10.1.0.1", 9000, 9000, 8960, 8960, 9000},
		{"fd01::1", 9000, 9000, 8940, 8940, 9000},
		{"10.1.0.1", 1500, 9000, 1460, 8960, 1500},
		{"fd01::1", 1500, 9000, 1440, 8940, 1500},
		{"10.1.0.1", 9000, 1500, 8960, 1460, 1500},
		{"10.1.0.1", 1280, 1500, 1240, 1460, 1280},
		{"10.1.0.1", 0, 9500, 8960, 8960, 9000}, /* no port has it; beyond what our own takes */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire *x = wire_with(rows[i].at, rows[i].device, rows[i].listener);
		struct end dev, *in = pair_up(x, &dev);

		passes(x, &dev, in, 60000);
		passes(x, in, &dev, 60000);
		assert_int_equal(said[0], rows[i].says);
		assert_int_equal(said[1], rows[i].answers);
		assert_int_equal(largest, rows[i].largest);
		stream_reset(&dev.s);
		wire_settle(x, 1000000);
		wire_free(x);
	}
}

/* Whose it is the clock does not ask: it says the least. */
static void a_syn_that_is_sent_again_says_no_more(void **state)
{
	struct wire *x = wire_with("10.1.0.1", 9000, 1500);
	struct end dev;

	(void)state;
	x->lose = 1000;
	said[0] = 0;
	end_connect(x, &dev);
	wire_settle(x, 100000);
	x->lose = 0;
	WIRE_UNTIL(x, x->n_in == 1 && stream_connected(&dev.s) == 0);
	assert_int_equal(said[0], 1460);
	passes(x, &dev, &x->in[0], 10000);
	stream_reset(&dev.s);
	wire_settle(x, 1000000);
	wire_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_address_has_its_own_size),
		cmocka_unit_test(a_syn_that_is_sent_again_says_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
