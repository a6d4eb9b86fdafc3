/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a connection of the stack does: bytes at any pace over any wire, ends, resets, and what is told of them. */
#include "test/unit/tls-proxy/stack_wire.h"

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

static size_t put(struct end *e, size_t *at, size_t bytes, size_t piece)
{
	uint8_t buf[16384];
	size_t n = bytes - *at < piece ? bytes - *at : piece;
	ssize_t sent;

	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(*at + i);
	sent = n > 0 ? stream_send(&e->s, buf, n) : 0;
	assert_true(sent >= 0 || sent == -EAGAIN);
	*at += sent > 0 ? sent : 0;
	return sent > 0 ? sent : 0;
}

static size_t take(struct end *e, size_t *at, size_t gulp)
{
	uint8_t buf[16384];
	ssize_t n = stream_recv(&e->s, buf, gulp);

	assert_true(n > 0 || n == -EAGAIN);
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] != pattern(*at + i))
			fail_msg("byte %zu differs", *at + i);
	}
	*at += n > 0 ? n : 0;
	return n > 0 ? n : 0;
}

/* `bytes` both ways at once; each end takes at most `gulp` a turn. */
static void exchange(struct wire *x, struct end *a, struct end *b, size_t bytes, size_t piece,
		     size_t gulp)
{
	size_t a_out = 0, a_in = 0, b_out = 0, b_in = 0;
	uint64_t end_us = x->now_us + 3600 * 1000000ull;

	while (a_in < bytes || b_in < bytes) {
		put(a, &a_out, bytes, piece);
		put(b, &b_out, bytes, piece);
		take(a, &a_in, gulp);
		take(b, &b_in, gulp);
		assert_true(a->s.stk.pcb->snd_buf <= TCP_SND_BUF);
		wire_turn(x, x->head == x->tail ? 10000 : 10);
		if (x->now_us > end_us)
			fail_msg("stuck: %zu/%zu and %zu/%zu", b_in, a_out, a_in, b_out);
	}
}

static void bytes_pass_unchanged_over_any_wire(void **state)
{
	static const struct {
		const char *name, *at;
		size_t bytes, piece, gulp;
		unsigned lose, repeat, swap;
	} rows[] = {
		{"a good wire", "10.0.0.2", 10 << 20, 16384, 16384, 0, 0, 0},
		{"a good wire, IPv6", "fd00::2", 10 << 20, 16384, 16384, 0, 0, 0},
		{"a slow reader", "10.0.0.2", 1 << 20, 16384, 900, 0, 0, 0},
		{"small pieces", "10.0.0.2", 1 << 20, 100, 16384, 0, 0, 0},
		{"small pieces, a slow reader", "10.0.0.2", 256 << 10, 100, 50, 0, 0, 0},
		{"one in fifty is lost", "10.0.0.2", 2 << 20, 16384, 16384, 20, 0, 0},
		{"one in five comes twice", "10.0.0.2", 2 << 20, 16384, 16384, 0, 200, 0},
		{"every other out of order", "10.0.0.2", 2 << 20, 16384, 16384, 0, 0, 500},
		{"all of it, IPv6", "fd00::2", 1 << 20, 5000, 3000, 20, 100, 200},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire *x = wire_new(1, rows[i].at);
		struct end dev, *in = pair_up(x, &dev);

		print_message("%s\n", rows[i].name);
		x->lose = rows[i].lose;
		x->repeat = rows[i].repeat;
		x->swap = rows[i].swap;
		exchange(x, &dev, in, rows[i].bytes, rows[i].piece, rows[i].gulp);
		assert_int_equal(pcbs_check(x->stack->pcbs), 2);
		stream_reset(&dev.s);
		wire_free(x);
	}
}

static void who_does_not_read_stops_who_sends(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0, got = 0;
	unsigned tells;

	(void)state;
	stream_want(&in->s, 0);
	stream_want(&dev.s, 0);
	dev.tells = 0;
	for (unsigned idle = 0; idle < 100; wire_turn(x, 10000))
		idle = put(&dev, &out, SIZE_MAX, 16384) > 0 ? 0 : idle + 1;
	assert_true(out >= TCP_WND && out <= TCP_WND + TCP_SND_BUF + 16384);
	assert_true(stack_mem_used() < 3 * (TCP_WND + TCP_SND_BUF));
	assert_int_equal(in->tells, 0);
	/* the reader comes back, and so does the writer, told that it may */
	stream_want(&dev.s, STREAM_WRITE);
	wire_settle(x, 1000000);
	assert_int_equal(dev.tells, 0);
	stream_want(&in->s, STREAM_READ);
	while (got < out) {
		wire_turn(x, 1000);
		assert_true(got >= out || (in->told & STREAM_READ));
		take(in, &got, 16384);
	}
	WIRE_UNTIL(x, dev.told & STREAM_WRITE);
	/* for as long as it is possible and wanted, and no longer */
	tells = dev.tells;
	wire_turn(x, 10);
	wire_turn(x, 10);
	assert_int_equal(dev.tells, tells + 2);
	stream_want(&dev.s, 0);
	wire_turn(x, 10);
	assert_int_equal(dev.tells, tells + 2);
	assert_int_equal(stream_recv(&in->s, &tells, 1), -EAGAIN);
	stream_reset(&dev.s);
	wire_free(x);
}

/* Others' bytes that nobody reads take the memory: who has nothing under way goes on all the same. */
static void who_does_not_read_does_not_stop_others(void **state)
{
	struct wire *x = wire_new(2, "10.1.0.1");
	struct end slow, other, *in_slow = pair_up(x, &slow), *in = pair_up(x, &other);
	static uint8_t bytes[16384];
	char got[2] = "";

	(void)state;
	for (int i = 0; i < 100; i++) {
		(void)stream_send(&slow.s, bytes, sizeof(bytes));
		wire_settle(x, 10000);
	}
	stack_mem_limit(stack_mem_used() * 11 / 10);
	assert_true(stack_mem_scarce());
	stream_want(&slow.s, STREAM_WRITE);
	slow.tells = 0;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(stream_send(&other.s, "m", 1), 1);
		WIRE_UNTIL(x, stream_recv(&in->s, got, 1) == 1);
		assert_int_equal(stream_send(&in->s, "a", 1), 1);
		WIRE_UNTIL(x, stream_recv(&other.s, got, 1) == 1);
		wire_settle(x, 300000);
	}
	assert_int_equal(stream_send(&slow.s, bytes, 1), -EAGAIN);
	assert_int_equal(slow.tells, 0);
	stack_mem_limit(1 << 30);
	stream_reset(&in_slow->s);
	stream_reset(&other.s);
	wire_free(x);
}

/* The port takes no frame just when who was slow reads: the news of his window is sent again, without being asked for. */
static void a_window_is_told_when_the_port_has_room(void **state)
{
	static uint8_t bytes[TCP_WND];
	struct wire *x = wire_new(1, "10.1.0.1");
	struct end dev, *in = pair_up(x, &dev);
	uint64_t out;

	(void)state;
	for (int i = 0; i < 100; i++) {
		(void)stream_send(&dev.s, bytes, 16384);
		wire_settle(x, 10000);
	}
	assert_int_equal(stream_send(&dev.s, bytes, 1), -EAGAIN);
	x->cut = true; /* the sender's probes would bring it out */
	wire_settle(x, 1000000);
	x->cut = false;
	x->stall = 1000;
	while (stream_recv(&in->s, bytes, sizeof(bytes)) > 0)
		;
	assert_true(x->stall < 1000);
	assert_true(pcbs_check(x->stack->pcbs) >= 0);
	x->stall = 0;
	out = stack_stats(x->stack)->out;
	x->cut = true;
	wire_settle(x, 200000);
	assert_true(stack_stats(x->stack)->out > out);
	stream_reset(&dev.s);
	wire_free(x);
}

/* Other 16 bits in a TCP header, and its checksum; RFC 1624. */
static void tcp_change(uint8_t *tcp, unsigned at, uint16_t to)
{
	uint32_t sum = 0xffff & ~(tcp[16] << 8 | tcp[17]);

	sum += 0xffff & ~(tcp[at] << 8 | tcp[at + 1]);
	sum += to;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = 0xffff & ~((sum & 0xffff) + (sum >> 16));
	tcp[at] = to >> 8;
	tcp[at + 1] = to & 255;
	tcp[16] = sum >> 8;
	tcp[17] = sum & 255;
}

static bool from_worker(const uint8_t *ip)
{
	return (ip[20] << 8 | ip[21]) == 443;
}

/* The worker's end says that it has no room, whatever it has. */
static bool window_shut(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	(void)x, (void)bytes;
	if (from_worker(ip))
		tcp_change(ip + 20, 14, 0);
	return true;
}

/* Or little, in the units of its scale. */
static bool window_small(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	(void)x, (void)bytes;
	if (from_worker(ip))
		tcp_change(ip + 20, 14, 256 >> TCP_RCV_SCALE);
	return true;
}

/* What waits was cut for another size of segments than the peer has room for now. */
static void a_window_may_be_small_after_none(void **state)
{
	struct wire *x = wire_new(1, "10.1.0.1");
	static uint8_t bytes[2000], got[2000];
	size_t out = 0, come = 0;
	struct end dev, *in;
	ssize_t n;

	(void)state;
	x->filter = window_shut;
	in = pair_up(x, &dev);
	for (unsigned i = 0; i < 200; i++) {
		n = stream_send(&dev.s, bytes, sizeof(bytes) - out);
		assert_true(n > 0 || n == -EAGAIN);
		out += n > 0 ? n : 0;
		x->filter = window_small;
		assert_int_equal(stream_send(&in->s, "x", 1), 1);
		wire_settle(x, 100000);
		assert_int_equal(stream_recv(&dev.s, got, 1), 1);
		n = stream_recv(&in->s, got, sizeof(got));
		come += n > 0 ? n : 0;
	}
	assert_int_equal(out, sizeof(bytes));
	x->filter = NULL;
	while (come < out) {
		WIRE_UNTIL(x, (n = stream_recv(&in->s, got, sizeof(got))) > 0);
		come += n;
	}
	stream_reset(&dev.s);
	wire_free(x);
}

static uint16_t sum_of(const uint8_t *at, unsigned bytes, uint32_t sum)
{
	for (unsigned i = 0; i < bytes; i += 2)
		sum += at[i] << 8 | at[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	return 0xffff & ~(sum + (sum >> 16));
}

/* An acknowledgement of the worker's comes once more, with an option that belongs into a SYN. */
static bool mss_late(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	uint8_t late[44];
	uint16_t sum;

	if (!from_worker(ip) || bytes != 40)
		return true;
	memcpy(late, ip, 40);
	memcpy(late + 40, (uint8_t[]){2, 4, 0, 64}, 4);
	late[3] = 44;
	late[32] = 6 << 4;
	late[10] = late[11] = late[36] = late[37] = 0;
	sum = sum_of(late, 20, 0);
	late[10] = sum >> 8;
	late[11] = sum & 255;
	sum = sum_of(late + 12, 32, 6 + 24);
	late[36] = sum >> 8;
	late[37] = sum & 255;
	wire_put(x, late, 44);
	return true;
}

static void the_size_of_segments_stands_once_agreed(void **state)
{
	struct wire *x = wire_new(1, "10.1.0.1");
	struct end dev, *in = pair_up(x, &dev);
	static uint8_t bytes[1000], got[3000];
	uint64_t dropped;
	size_t come = 0;

	(void)state;
	wire_settle(x, 1000000);
	dropped = stack_stats(x->stack)->dropped;
	x->filter = mss_late;
	assert_int_equal(stream_send(&dev.s, bytes, 1000), 1000);
	wire_settle(x, 1000000);
	assert_int_equal(stack_stats(x->stack)->dropped, dropped + 1);
	x->stall = 1000; /* what is sent now waits, and more is put to it */
	assert_int_equal(stream_send(&dev.s, bytes, 1000), 1000);
	assert_int_equal(stream_send(&dev.s, bytes, 1000), 1000);
	x->stall = 0;
	while (come < 3000) {
		ssize_t n;

		WIRE_UNTIL(x, (n = stream_recv(&in->s, got, sizeof(got))) > 0);
		come += n;
	}
	stream_reset(&dev.s);
	wire_free(x);
}

/* A probe is a byte of what waits: who takes the last one and still has no room leaves nothing to probe with. */
static void a_probe_may_be_all_that_waits(void **state)
{
	struct wire *x = wire_new(1, "10.1.0.1");
	struct end dev, *in = pair_up(x, &dev);
	char got[4] = "";

	(void)state;
	x->filter = window_shut;
	assert_int_equal(stream_send(&dev.s, "a", 1), 1);
	wire_settle(x, 1000000);
	assert_int_equal(stream_send(&dev.s, "b", 1), 1);
	wire_settle(x, 60000000);
	assert_int_equal(stream_recv(&in->s, got, 2), 2);
	assert_string_equal(got, "ab");
	/* its timers go on for other reasons: what it receives it acknowledges a little later */
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(stream_send(&in->s, "x", 1), 1);
		wire_settle(x, 130000);
		assert_int_equal(stream_recv(&dev.s, got, 1), 1);
	}
	x->filter = NULL;
	assert_int_equal(stream_send(&dev.s, "c", 1), 1);
	WIRE_UNTIL(x, stream_recv(&in->s, got, 1) == 1);
	assert_int_equal(got[0], 'c');
	stream_reset(&dev.s);
	wire_free(x);
}

/* RFC 5681 section 4.2: of a burst, once, and in the same turn; of one segment, a little later; of a hole, each time. */
static void a_burst_is_acknowledged_once(void **state)
{
	static const struct {
		const char *name;
		size_t bytes;
		unsigned lost,
			stall; /* of the burst's first segments; frames that the port does not take */
		uint64_t now,
			later; /* acknowledgements in its turn, and 200 ms after it at least */
	} rows[] = {
		{"a burst", 16384, 0, 0, 1, 0},		 {"two segments", 2920, 0, 0, 1, 0},
		{"one segment", 1000, 0, 0, 0, 1},	 {"the first is lost", 16384, 1, 0, 11, 0},
		{"the port is full", 16384, 0, 1, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire *x = wire_new(1, "10.0.0.2");
		struct end dev, *in = pair_up(x, &dev);
		size_t out = 0, got = 0;
		uint64_t was;

		exchange(x, &dev, in, 200000, 16384, 16384);
		wire_settle(x, 1000000);
		out = got = 0;
		assert_int_equal(put(&dev, &out, rows[i].bytes, rows[i].bytes), rows[i].bytes);
		for (unsigned k = 0; k < rows[i].lost; k++)
			free(x->queue[x->head++ % WIRE_PACKETS]);
		was = stack_stats(x->stack)->out;
		x->stall = rows[i].stall;
		wire_turn(x, 10);
		if (stack_stats(x->stack)->out - was != rows[i].now)
			fail_msg("%s: %u acknowledgements", rows[i].name,
				 (unsigned)(stack_stats(x->stack)->out - was));
		assert_true(pcbs_check(x->stack->pcbs) == 2);
		was = stack_stats(x->stack)->out;
		wire_settle(x, 200000);
		if (stack_stats(x->stack)->out - was < rows[i].later)
			fail_msg("%s: none later", rows[i].name);
		while (got < out)
			assert_int_not_equal(take(in, &got, 16384), 0);
		stream_reset(&dev.s);
		wire_free(x);
	}
}

static void small_segments_do_not_pin_what_they_came_in(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0, got = 0;

	(void)state;
	stream_want(&in->s, 0);
	while (out < 20000) {
		put(&dev, &out, 20000, 1);
		wire_turn(x, 10);
	}
	wire_settle(x, 1000000);
	assert_true(stack_mem_used() < 60000);
	while (got < out)
		assert_int_not_equal(take(in, &got, 7000), 0);
	stream_reset(&dev.s);
	wire_free(x);
}

static ssize_t read_all(struct end *e)
{
	uint8_t buf[4096];
	ssize_t n;

	while ((n = stream_recv(&e->s, buf, sizeof(buf))) > 0)
		;
	return n;
}

static void each_end_may_end_first(void **state)
{
	static const struct {
		const char *name;
		bool dev_first, both;
	} rows[] = {{"the device", true, false},
		    {"the worker", false, false},
		    {"both at once", true, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire *x = wire_new(1, "10.0.0.2");
		struct end dev, *in = pair_up(x, &dev);
		struct end *a = rows[i].dev_first ? &dev : in, *b = rows[i].dev_first ? in : &dev;
		size_t out = 0, got = 0;

		print_message("%s\n", rows[i].name);
		stream_want(&a->s, STREAM_READ);
		stream_want(&b->s, STREAM_READ);
		put(a, &out, 100000, 16384);
		stream_shut(&a->s);
		assert_int_equal(stream_send(&a->s, "x", 1), -EPIPE);
		if (rows[i].both)
			stream_shut(&b->s);
		WIRE_UNTIL(x, b->told & STREAM_READ);
		while (got < out) {
			take(b, &got, 16384);
			wire_turn(x, 1000);
		}
		WIRE_UNTIL(x, read_all(b) == 0);
		if (!rows[i].both) {
			/* the other direction is still open */
			out = got = 0;
			while (got < 100000) {
				put(b, &out, 100000, 16384);
				take(a, &got, 16384);
				wire_turn(x, 1000);
			}
			assert_false(a->told & STREAM_GONE);
			stream_shut(&b->s);
		}
		WIRE_UNTIL(x, (a->told & STREAM_GONE) && (b->told & STREAM_GONE));
		assert_int_equal(read_all(a), 0);
		assert_int_equal(read_all(b), 0);
		/* nothing is left when TIME-WAIT is over, though neither was closed */
		wire_settle(x, 5000000);
		assert_int_equal(pcbs_check(x->stack->pcbs), 0);
		assert_null(dev.s.stk.pcb);
		assert_int_equal(stream_send(&b->s, "x", 1), -EPIPE);
		assert_false(stream_unsent(&b->s));
		stream_shut(&b->s);
		stream_close(&dev.s);
		wire_free(x);
	}
}

static void what_was_taken_goes_out_after_a_close(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0, got = 0;

	(void)state;
	x->lose = 50;
	for (int i = 0; i < 8; i++)
		put(in, &out, 200000, 16384);
	assert_true(stream_unsent(&in->s));
	stream_close(&in->s);
	assert_false(stream_is_open(&in->s));
	while (got < out) {
		wire_turn(x, 10000);
		take(&dev, &got, 16384);
	}
	WIRE_UNTIL(x, read_all(&dev) == 0);
	stream_close(&dev.s);
	x->lose = 0;
	wire_settle(x, 40000000);
	assert_int_equal(pcbs_check(x->stack->pcbs), 0);
	wire_free(x);
}

static void a_reset_says_nothing_more(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0, got = 0;

	(void)state;
	stream_want(&dev.s, STREAM_READ);
	for (int i = 0; i < 8; i++)
		put(in, &out, 200000, 16384);
	stream_reset(&in->s);
	wire_settle(x, 1000000);
	assert_true(dev.told & STREAM_GONE);
	/* what had crossed the wire is there, then it is an error, and stays one */
	while (got < 4380 && take(&dev, &got, 1000) > 0)
		;
	assert_int_equal(read_all(&dev), -ECONNRESET);
	assert_int_equal(read_all(&dev), -ECONNRESET);
	assert_int_equal(stream_send(&dev.s, "x", 1), -ECONNRESET);
	assert_int_equal(pcbs_check(x->stack->pcbs), 0);
	stream_close(&dev.s);
	stream_close(&dev.s);
	wire_free(x);
}

/* Whoever wants nothing is told all the same that nobody is there any more, once. */
static void a_reset_is_told_unasked(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0;

	(void)state;
	stream_want(&dev.s, 0);
	wire_settle(x, 100000);
	dev.tells = 0;
	put(in, &out, 1000, 1000);
	stream_reset(&in->s);
	wire_settle(x, 1000000);
	assert_int_equal(dev.tells, 1);
	assert_int_equal(dev.told, STREAM_GONE | STREAM_LOST);
	stream_want(&dev.s, 0);
	wire_settle(x, 1000000);
	assert_int_equal(dev.tells, 1);
	stream_want(&dev.s, STREAM_READ);
	wire_turn(x, 10);
	assert_int_equal(dev.told, STREAM_READ | STREAM_GONE | STREAM_LOST);
	stream_close(&dev.s);
	wire_free(x);
}

/* Closing over unread bytes would make the peer believe that they were read. */
static void a_close_over_unread_bytes_is_a_reset(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct end dev, *in = pair_up(x, &dev);
	size_t out = 0;

	(void)state;
	put(&dev, &out, 100, 100);
	WIRE_UNTIL(x, in->told & STREAM_READ);
	stream_close(&in->s);
	wire_settle(x, 100000);
	assert_int_equal(read_all(&dev), -ECONNRESET);
	stream_close(&dev.s);
	wire_free(x);
}

static bool reset_instead(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	(void)bytes;
	(void)x;
	return (ip[33] & 0x12) != 0x12; /* no SYN-ACK gets through */
}

static void what_becomes_of_a_connection_that_was_begun(void **state)
{
	struct wire *x = wire_new(1, "10.0.0.2");
	struct ip_addr from = addr("10.0.0.1");
	struct end dev;

	(void)state;
	end_connect(x, &dev);
	assert_int_equal(stream_connected(&dev.s), -EINPROGRESS);
	assert_int_equal(stream_send(&dev.s, "x", 1), -EAGAIN);
	assert_int_equal(stream_recv(&dev.s, &from, 1), -EAGAIN);
	WIRE_UNTIL(x, dev.told & STREAM_WRITE);
	assert_int_equal(stream_connected(&dev.s), 0);
	stream_reset(&dev.s);

	/* nobody listens there */
	dev = (struct end){.s = {.ready = end_ready, .arg = &dev}};
	assert_int_equal(stack_connect(x->stack, &dev.s, &from, 1, &x->at, 80), 0);
	WIRE_UNTIL(x, dev.told & STREAM_GONE);
	assert_int_equal(stream_connected(&dev.s), -ECONNREFUSED);
	stream_close(&dev.s);

	/* the worker has no room */
	x->refuse = true;
	end_connect(x, &dev);
	WIRE_UNTIL(x, dev.told & STREAM_GONE);
	assert_int_equal(stream_recv(&dev.s, &from, 1), -ECONNRESET);
	stream_close(&dev.s);

	/* no answer */
	x->filter = reset_instead;
	end_connect(x, &dev);
	WIRE_UNTIL(x, dev.told & STREAM_GONE);
	assert_int_equal(stream_connected(&dev.s), -ETIMEDOUT);
	stream_close(&dev.s);

	/* given up before the answer */
	end_connect(x, &dev);
	stream_close(&dev.s);
	wire_settle(x, 10000000);
	assert_int_equal(stack_stats(x->stack)->half_open, 0);
	assert_int_equal(pcbs_check(x->stack->pcbs), 0);
	wire_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_pass_unchanged_over_any_wire),
		cmocka_unit_test(who_does_not_read_stops_who_sends),
		cmocka_unit_test(who_does_not_read_does_not_stop_others),
		cmocka_unit_test(a_window_is_told_when_the_port_has_room),
		cmocka_unit_test(a_probe_may_be_all_that_waits),
		cmocka_unit_test(a_window_may_be_small_after_none),
		cmocka_unit_test(the_size_of_segments_stands_once_agreed),
		cmocka_unit_test(a_burst_is_acknowledged_once),
		cmocka_unit_test(small_segments_do_not_pin_what_they_came_in),
		cmocka_unit_test(each_end_may_end_first),
		cmocka_unit_test(what_was_taken_goes_out_after_a_close),
		cmocka_unit_test(a_reset_says_nothing_more),
		cmocka_unit_test(a_reset_is_told_unasked),
		cmocka_unit_test(a_close_over_unread_bytes_is_a_reset),
		cmocka_unit_test(what_becomes_of_a_connection_that_was_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
