/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is too big for a route, to and from the TLS workers' own stack: who is told, and of what. */
#include "test/unit/dataplane/links_world.h"

/* What a worker hears of its packet: @return the MTU that is named */
static uint32_t heard(const struct verdict *v, const struct frame_spec *sent)
{
	bool v4 = strchr(sent->src, ':') == NULL;
	size_t head = v4 ? 20 : 40, bytes = head + 8 + head + 8;
	const uint8_t *ip = v->frame + 14, *icmp = ip + head;
	uint8_t frame[FRAME_MAX];

	assert_int_equal(v->bytes, 14 + bytes);
	frame_make(frame, sent);
	assert_memory_equal(icmp + 8, frame + 14, head + 8);
	if (v4) {
		assert_int_equal(rte_raw_cksum(ip, 20), 0xffff);
		assert_int_equal(rte_raw_cksum(icmp, bytes - 20), 0xffff);
		assert_memory_equal(ip + 16, frame + 14 + 12, 4);
		assert_true(ip[9] == IPPROTO_ICMP && icmp[0] == 3 && icmp[1] == 4);
	} else {
		assert_int_equal(rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)ip, icmp), 0);
		assert_memory_equal(ip + 24, frame + 14 + 8, 16);
		assert_true(ip[6] == IPPROTO_ICMPV6 && icmp[0] == 2 && icmp[1] == 0);
	}
	return (uint32_t)icmp[6] << 8 | icmp[7];
}

static void what_is_too_big_is_answered(void **state)
{
	static const struct frame_spec up4 = {"10.2.0.1",     "10.2.0.10",   TCP,
					      .sport = 16384, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec up6 = {"fd02::1",      "fd02::10",    TCP,
					      .sport = 16384, .dport = 1883, .tcp_flags = ACK};
	struct world x;

	(void)state;
	setup(&x);
	for (int i = 0; i < 2; i++) {
		struct frame_spec s = i == 0 ? up4 : up6;
		uint64_t was = x.w->stats.drops[DROP_TLS_TOO_BIG];
		struct verdict v;

		s.payload = i == 0 ? 1460 : 1440;
		v = send_by(&x, LINK(1), &s);
		goes("fits", &v, UP, DROP_NONE);
		s.payload++;
		v = send_by(&x, LINK(1), &s);
		goes("one byte more", &v, LINK(1), DROP_NONE);
		assert_int_equal(heard(&v, &s), 1500);
		assert_int_equal(x.w->stats.drops[DROP_TLS_TOO_BIG], was + 1);
	}
	world_free(&x);
}

/* An ICMP error about `quoted`, from src to the quoted packet's sender. @return its bytes */
static size_t too_big(uint8_t *b, const struct frame_spec *quoted, const char *src, uint8_t smac,
		      uint8_t dmac, uint16_t type_code)
{
	uint8_t inner[FRAME_MAX];
	struct frame_spec s = {src,	     quoted->src,	    .smac = smac,
			       .dmac = dmac, .proto = IPPROTO_ICMP, .sport = type_code,
			       .payload = 28};
	size_t bytes;

	frame_make(inner, quoted);
	if (strchr(src, ':') != NULL) {
		s.proto = IPPROTO_ICMPV6;
		s.payload = 48;
	}
	bytes = frame_make(b, &s);
	memcpy(b + bytes - s.payload, inner + 14, s.payload);
	return bytes;
}

static void the_stack_hears_of_packets_too_big(void **state)
{
	static const struct frame_spec up4 = {"10.2.0.1",     "10.2.0.10",   TCP,
					      .sport = 16385, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec up6 = {"fd02::1",      "fd02::10",    TCP,
					      .sport = 16386, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec strange = {"10.2.0.1",	  "10.2.0.10",	 TCP,
						  .sport = 40000, .dport = 1883, .tcp_flags = ACK};
	static const struct frame_spec cam = {"10.1.0.1",    "10.1.0.10", TCP,
					      .sport = 8884, .dport = 9,  .tcp_flags = ACK};
	static const struct {
		const char *name;
		uint16_t port;
		const struct frame_spec *quoted;
		const char *src;
		uint8_t smac;
		uint16_t type_code;
		uint16_t to;
	} rows[] = {
		{"1. to an upstream", UP, &up4, "10.2.0.254", 0x2e, 3 << 8 | 4, LINK(2)},
		{"2. IPv6", UP, &up6, "fd02::fe", 0x2e, 2 << 8, LINK(0)},
		{"3. another error", UP, &up4, "10.2.0.254", 0x2e, 3 << 8 | 1, MSG_PORT_KERNEL},
		{"4. of nobody's port", UP, &strange, "10.2.0.254", 0x2e, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
		{"5. a device, of its own connection", DEV, &cam, "10.1.0.10", 0x10, 3 << 8 | 4,
		 ANY_LINK},
		{"6. a device, of another's", DEV, &cam, "10.1.0.11", 0x11, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
		{"7. a device, of an upstream leg", DEV, &up4, "10.1.0.10", 0x10, 3 << 8 | 4,
		 MSG_PORT_KERNEL},
	};
	struct frame_spec mine = ack;
	uint8_t frame[1][FRAME_MAX];
	struct verdict v;
	struct world x;
	uint16_t at;

	(void)state;
	setup(&x);
	mine.src = "10.1.0.10";
	mine.smac = 0x10;
	at = send_by(&x, DEV, &mine).out_port;
	for (unsigned i = 0; i < ROWS(rows); i++) {
		size_t n = too_big(frame[0], rows[i].quoted, rows[i].src, rows[i].smac,
				   rows[i].port + 1, rows[i].type_code);

		world_burst(&x, rows[i].port, frame, &n, 1, &v);
		goes(rows[i].name, &v, rows[i].to == ANY_LINK ? at : rows[i].to, DROP_NONE);
	}
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_too_big_is_answered),
		cmocka_unit_test(the_stack_hears_of_packets_too_big),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
