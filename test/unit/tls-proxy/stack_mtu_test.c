/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How large the stack's segments are: by the MTU of the port that has its address, and by what routers say of the way.
 * Hostile routers too. */
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

/* ---- path MTU ----------------------------------------------------------------------------------- */

static struct {
	unsigned mtu; /* of the way; beyond, the router answers */
	unsigned says; /* the MTU that it names */
	bool silent; /* it answers nothing */
	unsigned refused, whole; /* packets beyond; of these, such as must not be cut */
	uint8_t quoted[9100]; /* the last of them */
	uint16_t quoted_bytes;
} router;

static void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void sums(uint8_t *ip, size_t bytes)
{
	uint8_t pseudo[40] = {0};
	uint32_t sum;
	uint16_t sum16;

	if (ip[0] >> 4 == 4) {
		size_t head = (ip[0] & 15) * 4u;

		memset(ip + 10, 0, 2);
		sum16 = (uint16_t)~stack_checksum(ip, (int)head);
		memcpy(ip + 10, &sum16, 2);
		memset(ip + head + 2, 0, 2);
		sum16 = (uint16_t)~stack_checksum(ip + head, (int)(bytes - head));
		memcpy(ip + head + 2, &sum16, 2);
		return;
	}
	memcpy(pseudo, ip + 8, 32);
	put16(pseudo + 34, bytes - 40);
	pseudo[39] = 58;
	memset(ip + 42, 0, 2);
	sum = (uint32_t)stack_checksum(pseudo, 40) + stack_checksum(ip + 40, (int)bytes - 40);
	sum16 = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
	memcpy(ip + 42, &sum16, 2);
}

/* The message that a router sends about a packet. @return its bytes */
static size_t too_big(uint8_t *out, const uint8_t *ip, uint32_t mtu)
{
	bool v4 = ip[0] >> 4 == 4;
	size_t head = v4 ? 20 : 40, bytes = head + 8 + head + 8;

	memset(out, 0, bytes);
	memcpy(out + head + 8, ip, head + 8);
	if (v4) {
		out[0] = 0x45;
		put16(out + 2, bytes);
		out[8] = 64;
		out[9] = 1;
		memcpy(out + 12, (uint8_t[]){192, 0, 2, 1}, 4);
		memcpy(out + 16, ip + 12, 4);
		out[20] = 3;
		out[21] = 4;
		put16(out + 26, mtu);
	} else {
		out[0] = 0x60;
		put16(out + 4, bytes - 40);
		out[6] = 58;
		out[7] = 64;
		memcpy(out + 8, (uint8_t[]){0x20, 1, 0xd, 0xb8, [15] = 9}, 16);
		memcpy(out + 24, ip + 8, 16);
		out[40] = 2;
		put16(out + 44, mtu >> 16);
		put16(out + 46, mtu & 0xffff);
	}
	sums(out, bytes);
	return bytes;
}

static bool route(struct wire *x, uint8_t *ip, uint16_t bytes)
{
	uint8_t icmp[200];

	if (bytes <= router.mtu)
		return look(x, ip, bytes);
	router.refused++;
	router.whole += ip[0] >> 4 == 6 || (ip[6] & 0x40) != 0;
	memcpy(router.quoted, ip, bytes);
	router.quoted_bytes = bytes;
	if (!router.silent)
		wire_put(x, icmp, (uint16_t)too_big(icmp, ip, router.says));
	return false;
}

static struct wire *wire_behind_router(const char *at, unsigned mtu, unsigned says)
{
	struct wire *x = wire_with(at, 9000, 9000);

	memset(&router, 0, sizeof(router));
	router.mtu = mtu;
	router.says = says;
	x->filter = route;
	return x;
}

/* Each on a clean wire, then on a bad one. */
static void each_way_has_its_own_size(void **state)
{
	static const struct {
		const char *name, *at;
		unsigned mtu, says, largest;
	} rows[] = {
		{"1. a smaller one", "10.1.0.1", 1300, 1300, 1300},
		{"2. IPv6", "fd01::1", 1400, 1400, 1400},
		{"3. much smaller", "10.1.0.1", 576, 576, 576},
		{"4. IPv6", "fd01::1", 1280, 1280, 1280},
		{"5. odd", "10.1.0.1", 1501, 1501, 1501},
		{"6. no MTU is named: RFC 1191's next plateau", "10.1.0.1", 8166, 0, 8166},
		{"7. the plateau below that", "10.1.0.1", 1500, 0, 1492},
		{"8. the last plateau", "10.1.0.1", 600, 0, 576},
	};
	const size_t n_rows = sizeof(rows) / sizeof(rows[0]);

	(void)state;
	for (size_t k = 0; k < 2 * n_rows; k++) {
		size_t i = k % n_rows;
		struct wire *x = wire_behind_router(rows[i].at, rows[i].mtu, rows[i].says);
		struct end dev, *in = pair_up(x, &dev);
		unsigned refused;

		if (k >= n_rows) {
			x->lose = x->repeat = 20;
			x->swap = 100;
		}
		passes(x, in, &dev, 65536);
		passes(x, &dev, in, 65536);
		if (largest != rows[i].largest || router.refused == 0)
			fail_msg("%s: %u, %u refused", rows[i].name, largest, router.refused);
		assert_int_equal(router.whole, router.refused);
		assert_true(stack_stats(x->stack)->narrowed >= 2);
		/* the next connection knows */
		stream_reset(&dev.s);
		wire_settle(x, 1000000);
		refused = router.refused;
		in = pair_up(x, &dev);
		passes(x, in, &dev, 65536);
		if (router.refused != refused)
			fail_msg("%s: forgotten: mss %u", rows[i].name, in->s.stk.pcb->mss);
		/* but not for ever */
		x->now_us += 601 * 1000000ull;
		stream_reset(&dev.s);
		wire_settle(x, 1000000);
		in = pair_up(x, &dev);
		passes(x, in, &dev, 65536);
		assert_true(router.refused > refused);
		stream_reset(&dev.s);
		wire_settle(x, 1000000);
		wire_free(x);
	}
}

/* The way's MTU is below what every host takes: packets as small as that may be cut to pieces. */
static void the_smallest_may_be_cut_to_pieces(void **state)
{
	struct wire *x = wire_behind_router("10.1.0.1", 576, 300);
	struct end dev, *in = pair_up(x, &dev);

	(void)state;
	passes(x, in, &dev, 20000);
	assert_int_equal(largest, 576);
	router.mtu = 575;
	router.silent = true;
	assert_int_equal(stream_send(&in->s, "0123456789", 10), 10);
	for (int i = 0; i < 20; i++)
		stream_send(&in->s, router.quoted, 5000);
	wire_settle(x, 10000);
	assert_true(router.refused > 0);
	assert_int_equal(router.quoted_bytes, 576);
	assert_int_equal(router.quoted[6] & 0x40, 0);
	stream_reset(&dev.s);
	wire_settle(x, 1000000);
	wire_free(x);
}

/* Where memory is short the message is for later: nothing is lost, and no segment is larger than it may be. */
static void no_memory_to_cut_with(void **state)
{
	struct wire *x = wire_behind_router("10.1.0.1", 1300, 1300);
	struct end dev, *in = pair_up(x, &dev);
	uint8_t icmp[200];
	size_t n;

	(void)state;
	router.silent = true;
	for (int i = 0; i < 10; i++)
		assert_true(stream_send(&in->s, router.quoted, 8900) > 0);
	wire_turn(x, 10);
	assert_true(router.refused > 0);
	n = too_big(icmp, router.quoted, 1300);
	stack_mem_limit(stack_mem_used() + 4000); /* the message itself takes some */
	wire_in(x, icmp, (uint16_t)n);
	assert_true(in->s.stk.pcb->mss > 1260);
	stack_mem_limit(1 << 30);
	router.silent = false;
	WIRE_UNTIL(x, in->s.stk.pcb->unacked == NULL && in->s.stk.pcb->unsent == NULL);
	assert_int_equal(in->s.stk.pcb->mss, 1260);
	stream_reset(&dev.s);
	wire_settle(x, 1000000);
	wire_free(x);
}

/* What is wrong with a message: bytes of it are changed, then its checksums are made right, or not. */
struct lie {
	const char *name;
	int at; /* -1: nothing */
	uint8_t value;
	bool sums_wrong;
	uint32_t mtu;
	int32_t seq; /* added to the quoted one */
};

static void lies_are_not_believed(const char *at, const struct lie *lies, size_t n_lies,
				  size_t seq_at)
{
	struct wire *x = wire_behind_router(at, 1500, 1500);
	struct end dev, *in = pair_up(x, &dev);
	uint8_t icmp[200];
	uint16_t mss, dev_mss;
	size_t n;

	passes(x, in, &dev, 50000);
	mss = in->s.stk.pcb->mss;
	dev_mss = dev.s.stk.pcb->mss;
	router.mtu = 1000;
	router.silent = true;
	assert_true(stream_send(&in->s, router.quoted, 9000) > 0);
	wire_turn(x, 10);
	assert_int_equal(router.quoted_bytes, 1500);
	for (size_t i = 0; i < n_lies; i++) {
		const struct lie *l = &lies[i];
		uint32_t seq;

		n = too_big(icmp, router.quoted, l->mtu);
		memcpy(&seq, icmp + seq_at, 4);
		seq = lwip_htonl(lwip_htonl(seq) + (uint32_t)l->seq);
		memcpy(icmp + seq_at, &seq, 4);
		if (l->at >= 0)
			icmp[l->at] = l->value;
		sums(icmp, n);
		if (l->sums_wrong)
			icmp[seq_at - 20] ^= 1;
		wire_in(x, icmp, (uint16_t)n);
		if (in->s.stk.pcb->mss != mss || dev.s.stk.pcb->mss != dev_mss)
			fail_msg("%s: believed, %u", l->name, in->s.stk.pcb->mss);
	}
	/* too short, at each length */
	n = too_big(icmp, router.quoted, 1300);
	for (uint16_t k = 1; k < n; k++) {
		wire_in(x, icmp, k);
		assert_int_equal(in->s.stk.pcb->mss, mss);
	}
	/* and the same message, whole */
	wire_in(x, icmp, (uint16_t)n);
	assert_true(in->s.stk.pcb->mss < mss);
	assert_true(pcbs_check(x->stack->pcbs) > 0);
	stream_reset(&dev.s);
	wire_settle(x, 1000000);
	wire_free(x);
}

static void hostile_messages_change_nothing(void **state)
{
	enum { V4_QUOTE = 28, V6_QUOTE = 48 };
	static const struct lie v4[] = {
		{"1. wrong checksum", -1, 0, true, 1300, 0},
		{"2. an MTU as large as the packet", -1, 0, false, 1500, 0},
		{"3. larger", -1, 0, false, 65535, 0},
		{"4. what was acknowledged long ago", -1, 0, false, 1300, -20000},
		{"5. what was not sent yet", -1, 0, false, 1300, 100000},
		{"6. another port of ours", V4_QUOTE + 20, 9, false, 1300, 0},
		{"7. another port of the peer's", V4_QUOTE + 22, 9, false, 1300, 0},
		{"8. another peer", V4_QUOTE + 19, 77, false, 1300, 0},
		{"9. another address of ours", V4_QUOTE + 15, 77, false, 1300, 0},
		{"10. to another address", 19, 77, false, 1300, 0},
		{"11. not TCP", V4_QUOTE + 9, 17, false, 1300, 0},
		{"12. a later fragment", V4_QUOTE + 7, 1, false, 1300, 0},
		{"13. an error that is a fragment", 6, 0x20, false, 1300, 0},
		{"14. another error", 21, 1, false, 1300, 0},
		{"15. an echo", 20, 8, false, 1300, 0},
		{"16. a small packet", V4_QUOTE + 2, 1, false, 1300, 0},
		{"17. a quote that is shorter than it says", V4_QUOTE, 0x4f, false, 1300, 0},
		{"18. a header that is none", V4_QUOTE, 0x41, false, 1300, 0},
		{"19. IPv6 in IPv4", V4_QUOTE, 0x65, false, 1300, 0},
	};
	static const struct lie v6[] = {
		{"1. wrong checksum", -1, 0, true, 1300, 0},
		{"2. an MTU as large as the packet", -1, 0, false, 1500, 0},
		{"3. of 32 bits", -1, 0, false, 0x10000 + 1300, 0},
		{"4. what was acknowledged long ago", -1, 0, false, 1300, -20000},
		{"5. what was not sent yet", -1, 0, false, 1300, 100000},
		{"6. another port of ours", V6_QUOTE + 40, 9, false, 1300, 0},
		{"7. another peer", V6_QUOTE + 39, 77, false, 1300, 0},
		{"8. not TCP", V6_QUOTE + 6, 17, false, 1300, 0},
		{"9. another error", 40, 1, false, 1300, 0},
		{"10. IPv4 in IPv6", V6_QUOTE, 0x45, false, 1300, 0},
		{"11. a small packet", V6_QUOTE + 4, 1, false, 1300, 0},
		{"12. to another address", 39, 77, false, 1300, 0},
	};

	(void)state;
	lies_are_not_believed("10.1.0.1", v4, sizeof(v4) / sizeof(v4[0]), V4_QUOTE + 24);
	lies_are_not_believed("fd01::1", v6, sizeof(v6) / sizeof(v6[0]), V6_QUOTE + 44);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_address_has_its_own_size),
		cmocka_unit_test(a_syn_that_is_sent_again_says_no_more),
		cmocka_unit_test(each_way_has_its_own_size),
		cmocka_unit_test(the_smallest_may_be_cut_to_pieces),
		cmocka_unit_test(no_memory_to_cut_with),
		cmocka_unit_test(hostile_messages_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
