/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Thousands of connections in their buckets, coming and going in every way, and what an attacker leaves behind. */
#include "test/unit/tls-proxy/stack_wire.h"

#define CONNECTIONS 3000

/* Open, close, shut, reset, send, at random: after each hundred steps every list is as it should be. */
static void lists_stay_whole_while_connections_come_and_go(void **state)
{
	static const char *const rows[] = {"10.0.0.2", "fd00::2"};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire *x = wire_new(20 * CONNECTIONS, rows[i]);
		struct end *dev = calloc(CONNECTIONS, sizeof(*dev));
		uint8_t buf[3000] = {0};

		x->lose = 10;
		x->repeat = 10;
		x->swap = 50;
		for (unsigned step = 0; step < 12 * CONNECTIONS; step++) {
			struct end *e = &dev[wire_random(x, CONNECTIONS)];
			struct end *in = x->n_in > 0 ? &x->in[wire_random(x, x->n_in)] : NULL;

			switch (wire_random(x, 8)) {
			case 0:
				stream_close(&e->s);
				break;
			case 1:
				stream_reset(&e->s);
				break;
			case 2:
				if (stream_is_open(&e->s))
					stream_shut(&e->s);
				break;
			case 3:
				if (in != NULL && wire_random(x, 4) == 0)
					stream_close(&in->s);
				break;
			case 4:
				if (in != NULL && stream_is_open(&in->s))
					stream_recv(&in->s, buf, sizeof(buf));
				break;
			default:
				if (!stream_is_open(&e->s))
					end_connect(x, e);
				else
					stream_send(&e->s, buf, 1 + wire_random(x, sizeof(buf)));
			}
			wire_turn(x, 100);
			if (step % 100 == 0)
				assert_true(pcbs_check(x->stack->pcbs) >= 0);
		}
		assert_true(x->n_in > CONNECTIONS);
		assert_true(pcbs_check(x->stack->pcbs) > 100);
		/* all of them closed: nothing is left but what TIME-WAIT holds, and then nothing */
		x->lose = x->repeat = 0;
		for (unsigned k = 0; k < CONNECTIONS; k++)
			stream_close(&dev[k].s);
		wire_settle(x, 5 * 1000000ull); /* some come only now */
		for (unsigned k = 0; k < x->n_in; k++)
			stream_close(&x->in[k].s);
		wire_settle(x, 60 * 1000000ull);
		assert_int_equal(pcbs_check(x->stack->pcbs), 0);
		assert_int_equal(stack_stats(x->stack)->streams, 0);
		assert_int_equal(stack_stats(x->stack)->half_open, 0);
		free(dev);
		wire_free(x);
	}
}

/* Idle connections cost no timer: the clock has nobody to wake for. */
static void an_idle_connection_waits_for_nothing(void **state)
{
	struct wire *x = wire_new(100, "10.0.0.2");
	struct end dev[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		pair_up(x, &dev[i]);
	for (int i = 0; i < 100; i++)
		stream_want(&dev[i].s, STREAM_READ);
	wire_settle(x, 1000000);
	assert_true(stack_wait_us(x->stack, x->now_us) == UINT64_MAX);
	/* one sends: it waits for an acknowledgement, and then nobody does */
	assert_int_equal(stream_send(&dev[50].s, "x", 1), 1);
	assert_true(stack_wait_us(x->stack, x->now_us) <= TCP_TMR_INTERVAL * 1000);
	wire_settle(x, 1000000);
	assert_int_equal(stack_wait_us(x->stack, x->now_us), 0); /* its other end has it to read */
	for (int i = 0; i < 100; i++) {
		char c;

		if (stream_recv(&x->in[i].s, &c, 1) == 1)
			assert_int_equal(c, 'x');
	}
	wire_settle(x, 1000000);
	assert_true(stack_wait_us(x->stack, x->now_us) == UINT64_MAX);
	for (int i = 0; i < 100; i++)
		stream_reset(&dev[i].s);
	wire_free(x);
}

/* TIME-WAIT costs no timer before it ends, and ends in time: some 2 s after the last FIN, all of it in one go. */
static void time_wait_rests_and_ends(void **state)
{
	struct wire *x = wire_new(200, "10.0.0.2");
	uint64_t closed_us, wait_us;
	struct end dev[200];

	(void)state;
	for (int i = 0; i < 200; i++)
		pair_up(x, &dev[i]);
	closed_us = x->now_us;
	for (int i = 0; i < 200; i++) {
		stream_close(&dev[i].s);
		stream_close(&x->in[i].s);
	}
	wire_settle(x, 400000);
	assert_true(pcbs_check(x->stack->pcbs) >= 200);
	wait_us = stack_wait_us(x->stack, x->now_us);
	assert_in_range(x->now_us + wait_us - closed_us, 2000000, 2300000);
	wire_turn(x, wait_us); /* those who are due have their timers from here on */
	assert_true(pcbs_check(x->stack->pcbs) >= 200);
	for (int i = 0; i < 6; i++)
		wire_turn(x, TCP_TMR_INTERVAL * 1000);
	assert_int_equal(pcbs_check(x->stack->pcbs), 0);
	assert_true(stack_wait_us(x->stack, x->now_us) == UINT64_MAX);
	wire_free(x);
}

/* A lost segment is sent again after a second at the most, in whatever bucket, however often the timers were asked. */
static void a_lost_segment_is_sent_again_in_time(void **state)
{
	struct wire *x = wire_new(200, "10.0.0.2");
	struct end dev[200];
	uint64_t was_us;
	char c;

	(void)state;
	for (int i = 0; i < 200; i++)
		pair_up(x, &dev[i]);
	for (int step = 1; step < 20000; step *= 3) {
		x->cut = true;
		for (int i = 0; i < 200; i++)
			assert_int_equal(stream_send(&dev[i].s, "x", 1), 1);
		x->cut = false;
		was_us = x->now_us;
		for (int i = 0; i < 200; i++) {
			while (stream_recv(&x->in[i].s, &c, 1) != 1) {
				wire_turn(x, step);
				assert_true(x->now_us < was_us + 1200000);
			}
		}
		wire_settle(x, 1000000);
	}
	for (int i = 0; i < 200; i++)
		stream_reset(&dev[i].s);
	wire_free(x);
}

/* An acknowledgement waits for data to go with, but not for long: less where thousands wait. */
static void an_acknowledgement_waits_for_a_while_or_for_others(void **state)
{
	static const struct {
		uint32_t connections, at_least, at_most; /* acknowledged at once */
	} rows[] = {{10, 0, 0}, {1000, 0, 0}, {3500, 500, 2500}};
	struct end *dev = calloc(3500, sizeof(*dev));

	(void)state;
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct wire *x = wire_new(rows[r].connections, "10.0.0.2");
		uint32_t n = rows[r].connections, now = 0, later = 0;

		for (uint32_t i = 0; i < n; i++)
			pair_up(x, &dev[i]);
		wire_settle(x, 1000000);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(stream_send(&dev[i].s, "x", 1), 1);
		for (int i = 0; i < 100; i++)
			wire_turn(x, 10);
		assert_true(pcbs_check(x->stack->pcbs) == 2 * (int64_t)n);
		for (uint32_t i = 0; i < n; i++)
			now += dev[i].s.stk.pcb->unacked == NULL;
		assert_in_range(now, rows[r].at_least, rows[r].at_most);
		wire_turn(x, 40000);
		wire_turn(x, 10);
		for (uint32_t i = 0; i < n; i++)
			later += dev[i].s.stk.pcb->unacked == NULL;
		assert_int_equal(later, n);
		wire_settle(x, 1000000);
		assert_true(pcbs_check(x->stack->pcbs) == 2 * (int64_t)n);
		for (uint32_t i = 0; i < n; i++)
			stream_reset(&dev[i].s);
		wire_free(x);
	}
	free(dev);
}

static void checksums(uint8_t *ip, uint16_t bytes)
{
	uint8_t pseudo[12] = {10, 1, 0, 1, 10, 0, 0, 2, 0, 6, 0, (uint8_t)(bytes - 20)};
	uint32_t sum;

	sum = stack_checksum(pseudo, 12) + stack_checksum(ip + 20, bytes - 20);
	sum = ~((sum & 0xffff) + (sum >> 16));
	memcpy(ip + 36, &(uint16_t){(uint16_t)sum}, 2);
	sum = ~stack_checksum(ip, 20);
	memcpy(ip + 10, &(uint16_t){(uint16_t)sum}, 2);
}

static void syn_frame(uint8_t *ip, uint16_t sport, uint32_t seq)
{
	static const uint8_t model[40] = {0x45, 0, 0, 40, 0,  0, 0x40, 0, 64,	6, 0,	 0,
					  10,	1, 0, 1,  10, 0, 0,    2, 0,	0, 1,	 187,
					  0,	0, 0, 0,  0,  0, 0,    0, 0x50, 2, 0xff, 0xff};

	memcpy(ip, model, 40);
	ip[20] = (uint8_t)(sport >> 8);
	ip[21] = (uint8_t)sport;
	memcpy(ip + 24, &seq, 4);
	checksums(ip, 40);
}

/* What is cut or lies about its lengths never reaches lwIP, which reads an option's length without looking. */
static void a_malformed_packet_is_dropped(void **state)
{
	static const struct {
		const char *name;
		uint8_t at, value; /* of the packet, changed */
		uint8_t options[8];
		bool good;
	} rows[] = {
		{"as it should be", 0, 0x45, {2, 4, 5, 0xb4, 1, 1, 1, 0}, true},
		{"an end before the last byte", 0, 0x45, {0, 9, 9, 9, 9, 9, 9, 9}, true},
		{"an option without a length", 0, 0x45, {1, 1, 1, 1, 1, 1, 1, 2}, false},
		{"an option of no length", 0, 0x45, {3, 0, 1, 1, 1, 1, 1, 1}, false},
		{"an option of one byte", 0, 0x45, {3, 1, 1, 1, 1, 1, 1, 1}, false},
		{"an option beyond the end", 0, 0x45, {1, 1, 1, 1, 1, 8, 10, 0}, false},
		{"a TCP header beyond the end", 32, 0x80, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"a TCP header of 16 bytes", 32, 0x40, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"an IP header of 16 bytes", 0, 0x44, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"an IP header of 60 bytes", 0, 0x4f, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"another version of IP", 0, 0x55, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"longer than it is", 3, 49, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"another protocol", 9, 1, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"the first of fragments", 6, 0x20, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"a later fragment", 7, 1, {1, 1, 1, 1, 1, 1, 1, 1}, false},
		{"to an address that is not ours", 19, 3, {1, 1, 1, 1, 1, 1, 1, 1}, false},
	};
	struct wire *x = wire_new(1, "10.0.0.2");
	const struct stack_stats *stats = stack_stats(x->stack);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t dropped = stats->dropped;
		uint32_t half_open = stats->half_open;
		uint8_t ip[48];

		syn_frame(ip, (uint16_t)(2000 + i), 1);
		ip[3] = 48;
		ip[32] = 0x70;
		memcpy(ip + 40, rows[i].options, 8);
		ip[rows[i].at] = rows[i].value;
		memset(ip + 10, 0, 2);
		memset(ip + 36, 0, 2);
		checksums(ip, 48);
		wire_in(x, ip, 48);
		if (stats->dropped != dropped + !rows[i].good ||
		    stats->half_open != half_open + rows[i].good)
			fail_msg("%s", rows[i].name);
		for (uint16_t n = 0; n < 48; n++)
			wire_in(x, ip, n); /* cut anywhere */
		assert_int_equal(stats->half_open, half_open + rows[i].good);
	}
	wire_settle(x, 8000000);
	wire_free(x);
}

static void a_flood_of_syns_is_bounded_and_leaves_nothing(void **state)
{
	struct wire *x = wire_new(2, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	const struct stack_stats *stats = stack_stats(x->stack);
	uint8_t ip[40];
	char c;

	(void)state;
	x->cut = true; /* nobody answers them */
	for (uint32_t i = 0; i < 20000; i++) {
		syn_frame(ip, (uint16_t)(1024 + i), i * 7919);
		wire_in(x, ip, sizeof(ip));
	}
	assert_int_equal(stats->half_open, 4096);
	assert_int_equal(stats->syns_dropped, 20000 - 4096);
	assert_true(stack_mem_used() < 4096 * 700);
	assert_int_equal(pcbs_check(x->stack->pcbs), 4098);
	x->cut = false;
	/* who is in does not notice */
	assert_int_equal(stream_send(&dev.s, "x", 1), 1);
	WIRE_UNTIL(x, stream_recv(&in->s, &c, 1) == 1);
	wire_settle(x, 8000000);
	assert_int_equal(stats->half_open, 0);
	assert_int_equal(pcbs_check(x->stack->pcbs), 2);
	stream_reset(&dev.s);
	wire_free(x);
}

static void only_the_ports_of_its_slice_are_used_each_once(void **state)
{
	struct wire *x = wire_new(64, "10.0.0.2");
	struct ip_addr from[2] = {addr("10.0.0.1"), addr("10.0.0.3")};
	struct end dev[65];
	bool used[2][65536] = {{false}};

	(void)state;
	x->stack->cfg.port_first = 20000;
	x->stack->cfg.port_last = 20127;
	x->stack->cfg.workers = 4;
	x->stack->cfg.index = 3;
	for (int i = 0; i < 64; i++) {
		const struct tcp_pcb *pcb;
		int second;

		dev[i] = (struct end){.s = {.ready = end_ready, .arg = &dev[i]}};
		assert_int_equal(stack_connect(x->stack, &dev[i].s, from, 2, &x->at, 443), 0);
		pcb = dev[i].s.stk.pcb;
		second = ((const uint8_t *)&pcb->local_ip)[3] == 3;
		assert_true(pcb->local_port >= 20000 && pcb->local_port <= 20127);
		assert_int_equal(pcb->local_port % 4, 3);
		assert_false(used[second][pcb->local_port]);
		used[second][pcb->local_port] = true;
		wire_turn(x, 10);
	}
	dev[64] = (struct end){.s = {.ready = end_ready, .arg = &dev[64]}};
	assert_int_equal(stack_connect(x->stack, &dev[64].s, from, 2, &x->at, 443), -EADDRNOTAVAIL);
	assert_false(stream_is_open(&dev[64].s));
	assert_int_equal(stack_stats(x->stack)->ports_out, 1);
	/* one comes back; towards another port all of them are free */
	stream_reset(&dev[7].s);
	assert_int_equal(stack_connect(x->stack, &dev[64].s, from, 2, &x->at, 443), 0);
	dev[7] = (struct end){.s = {.ready = end_ready, .arg = &dev[7]}};
	assert_int_equal(stack_connect(x->stack, &dev[7].s, from, 2, &x->at, 80), 0);
	for (int i = 0; i < 65; i++)
		stream_reset(&dev[i].s);
	wire_free(x);
}

/* No memory: it stands still, says so, and goes on when there is some. */
static void nothing_is_lost_when_memory_is(void **state)
{
	struct wire *x = wire_new(64, "10.0.0.2");
	struct end dev[64];
	uint8_t buf[16384] = {0};
	size_t out = 0, got = 0;

	(void)state;
	for (int i = 0; i < 64; i++)
		pair_up(x, &dev[i]);
	stack_mem_limit(stack_mem_used() + 500000);
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 64; i++) {
			ssize_t n = stream_send(&dev[i].s, buf, sizeof(buf));

			assert_true(n > 0 || n == -EAGAIN);
			out += n > 0 ? n : 0;
		}
		wire_turn(x, 1000);
		assert_true(stack_mem_used() < 1000000);
	}
	assert_true(out > 300000);
	while (got < out) {
		for (int i = 0; i < 64; i++) {
			ssize_t n = stream_recv(&x->in[i].s, buf, sizeof(buf));

			assert_true(n > 0 || n == -EAGAIN);
			got += n > 0 ? n : 0;
		}
		wire_turn(x, 10000);
		assert_true(x->now_us < 600 * 1000000ull);
	}
	assert_true(pcbs_check(x->stack->pcbs) == 128);
	for (int i = 0; i < 64; i++)
		stream_reset(&dev[i].s);
	wire_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_stay_whole_while_connections_come_and_go),
		cmocka_unit_test(an_idle_connection_waits_for_nothing),
		cmocka_unit_test(time_wait_rests_and_ends),
		cmocka_unit_test(a_lost_segment_is_sent_again_in_time),
		cmocka_unit_test(an_acknowledgement_waits_for_a_while_or_for_others),
		cmocka_unit_test(a_malformed_packet_is_dropped),
		cmocka_unit_test(a_flood_of_syns_is_bounded_and_leaves_nothing),
		cmocka_unit_test(only_the_ports_of_its_slice_are_used_each_once),
		cmocka_unit_test(nothing_is_lost_when_memory_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
