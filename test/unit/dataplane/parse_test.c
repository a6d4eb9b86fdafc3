/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/parse.h"
#include "test/unit/dataplane/frame.h"

static const struct port port = {.mac = {{2, 0, 0, 0, 0, 1}}, .vlans = {1 | 1ull << 30}};

#define TO_US .smac = 0x10, .dmac = 1

static const struct {
	const char *name;
	struct frame_spec spec;
	enum pkt_kind kind;
	uint8_t flags; /* these of PKT_* and no others, but for REVERSED */
} valid[] = {
	{"udp4",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .sport = 9, .dport = 53, .payload = 20},
	 PKT_FLOW,
	 PKT_V4},
	{"udp4 tagged",
	 {"10.1.0.10", "10.2.0.10", TO_US, .vlan = 30, .proto = 17, .sport = 9, .dport = 53},
	 PKT_FLOW,
	 PKT_V4},
	{"tcp4",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6, .sport = 9, .dport = 80, .tcp_flags = 2},
	 PKT_FLOW,
	 PKT_V4},
	{"tcp4 options",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6, .dport = 80, .tcp_flags = 2, .options = 2},
	 PKT_FLOW,
	 PKT_V4 | PKT_UNUSUAL},
	{"ping4",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 1, .sport = 8 << 8, .dport = 77, .payload = 4},
	 PKT_FLOW,
	 PKT_V4},
	{"pong4",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 1, .sport = 0, .dport = 77, .payload = 4},
	 PKT_FLOW,
	 PKT_V4 | PKT_REPLY},
	{"unreachable4",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 1, .sport = 3 << 8, .payload = 28},
	 PKT_ICMP_ERROR,
	 PKT_V4},
	{"gre", {"10.1.0.10", "10.2.0.10", TO_US, .proto = 47, .payload = 8}, PKT_OTHER, PKT_V4},
	{"first fragment",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .dport = 53, .payload = 20,
	  .fragment = 0x2000},
	 PKT_FLOW,
	 PKT_V4 | PKT_FRAGMENT},
	{"later fragment",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .payload = 20, .fragment = 5},
	 PKT_OTHER,
	 PKT_V4 | PKT_FRAGMENT},
	{"ttl 1",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .ttl = 1},
	 PKT_FLOW,
	 PKT_V4 | PKT_UNUSUAL},
	{"multicast4",
	 {"10.1.0.10", "224.0.0.251", TO_US, .proto = 17},
	 PKT_FLOW,
	 PKT_V4 | PKT_ON_LINK},
	{"dhcp4",
	 {"0.0.0.0", "255.255.255.255", TO_US, .proto = 17, .sport = 68, .dport = 67},
	 PKT_FLOW,
	 PKT_V4 | PKT_ON_LINK},
	{"igmp before an address",
	 {"0.0.0.0", "224.0.0.22", TO_US, .proto = 2, .options = 1, .payload = 8},
	 PKT_OTHER,
	 PKT_V4 | PKT_ON_LINK | PKT_UNUSUAL},
	{"udp6",
	 {"fd01::10", "fd02::10", TO_US, .proto = 17, .sport = 9, .dport = 53, .payload = 20},
	 PKT_FLOW,
	 0},
	{"tcp6 hop-by-hop",
	 {"fd01::10", "fd02::10", TO_US, .proto = 6, .dport = 80, .tcp_flags = 16, .options = 1},
	 PKT_FLOW,
	 PKT_UNUSUAL},
	{"ping6",
	 {"fd01::10", "fd02::10", TO_US, .proto = 58, .sport = 128 << 8, .dport = 1},
	 PKT_FLOW,
	 0},
	{"too big6",
	 {"fd01::10", "fd02::10", TO_US, .proto = 58, .sport = 2 << 8, .payload = 48},
	 PKT_ICMP_ERROR,
	 0},
	{"solicitation",
	 {"fe80::1", "ff02::1:ff00:1", TO_US, .proto = 58, .sport = 135 << 8, .ttl = 255,
	  .payload = 16},
	 PKT_ND,
	 PKT_ON_LINK},
	{"address detection",
	 {"::", "ff02::1:ff00:1", TO_US, .proto = 58, .sport = 135 << 8, .ttl = 255, .payload = 16},
	 PKT_ND,
	 PKT_ON_LINK},
	{"mld report",
	 {"fe80::1", "ff02::16", TO_US, .proto = 58, .sport = 143 << 8, .ttl = 1, .options = 1},
	 PKT_ND,
	 PKT_ON_LINK | PKT_UNUSUAL},
};

#define ROWS(t) (sizeof(t) / sizeof((t)[0]))

/* The frame stands at the end of its allocation: a sanitizer sees any byte read behind it. */
static enum drop_reason parse_exact(const uint8_t *frame, size_t bytes, size_t all, struct pkt *p)
{
	uint8_t *copy = malloc(bytes != 0 ? bytes : 1);
	enum drop_reason why;

	memcpy(copy, frame, bytes);
	memset(p, 0, sizeof(*p));
	why = parse_frame(&port, copy, bytes, all, p);
	free(copy);
	return why;
}

static void valid_frames_are_known(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(valid); i++) {
		uint8_t frame[FRAME_MAX];
		size_t bytes = frame_make(frame, &valid[i].spec);
		enum drop_reason why;
		struct pkt p;

		why = parse_exact(frame, bytes, bytes, &p);
		if (why != DROP_NONE || p.kind != valid[i].kind ||
		    (p.flags & ~PKT_REVERSED) != valid[i].flags)
			fail_msg("%s: %s, kind %u, flags %#x", valid[i].name, drop_reason_name(why),
				 p.kind, p.flags);
		assert_int_equal(p.vlan, valid[i].spec.vlan);
	}
}

/* RFC 791, 8200: a packet cut anywhere is refused, and never read behind its end. */
static void cut_frames_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(valid); i++) {
		uint8_t frame[FRAME_MAX];
		size_t bytes = frame_make(frame, &valid[i].spec);
		struct pkt p;

		for (size_t cut = 0; cut < bytes; cut++) {
			enum drop_reason why = parse_exact(frame, cut, cut, &p);

			if (why == DROP_NONE)
				fail_msg("%s cut to %zu of %zu bytes passes", valid[i].name, cut,
					 bytes);
		}
		/* Only the head in the first segment: the headers must be in it. */
		(void)parse_exact(frame, bytes - 1, bytes, &p);
	}
}

static const struct {
	const char *name;
	struct frame_spec spec;
	enum drop_reason why;
} refused[] = {
	{"1 other VLAN",
	 {"10.1.0.10", "10.2.0.10", TO_US, .vlan = 31, .proto = 17},
	 DROP_UNKNOWN_VLAN},
	{"2 other MAC",
	 {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 9, .proto = 17},
	 DROP_NOT_FOR_US},
	{"3 source multicast", {"224.0.0.1", "10.2.0.10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"4 source loopback", {"127.0.0.1", "10.2.0.10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"5 source zero, no DHCP",
	 {"0.0.0.0", "10.2.0.10", TO_US, .proto = 17, .dport = 53},
	 DROP_MALFORMED},
	{"6 source broadcast",
	 {"255.255.255.255", "10.2.0.10", TO_US, .proto = 17},
	 DROP_MALFORMED},
	{"7 destination loopback", {"10.1.0.10", "127.0.0.1", TO_US, .proto = 17}, DROP_MALFORMED},
	{"8 to itself", {"10.1.0.10", "10.1.0.10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"9 v6 source multicast", {"ff02::1", "fd02::10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"10 v6 source loopback", {"::1", "fd02::10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"11 v6 unspecified, no ND", {"::", "fd02::10", TO_US, .proto = 17}, DROP_MALFORMED},
	{"12 ND from another link",
	 {"fe80::1", "ff02::1", TO_US, .proto = 58, .sport = 136 << 8, .ttl = 254, .payload = 16},
	 DROP_MALFORMED},
	{"13 no TCP flags", {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6}, DROP_MALFORMED},
	{"14 SYN FIN",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6, .tcp_flags = 3},
	 DROP_MALFORMED},
	{"15 SYN RST",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6, .tcp_flags = 6},
	 DROP_MALFORMED},
	{"16 TCP fragment at offset 1",
	 {"10.1.0.10", "10.2.0.10", TO_US, .proto = 6, .tcp_flags = 2, .fragment = 1},
	 DROP_MALFORMED},
	{"17 ND target cut",
	 {"fe80::1", "ff02::1", TO_US, .proto = 58, .sport = 136 << 8, .ttl = 255, .payload = 15},
	 DROP_TRUNCATED},
};

static void impossible_frames_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(refused); i++) {
		uint8_t frame[FRAME_MAX];
		size_t bytes = frame_make(frame, &refused[i].spec);
		enum drop_reason why;
		struct pkt p;

		why = parse_exact(frame, bytes, bytes, &p);
		if (why != refused[i].why)
			fail_msg("%s: %s", refused[i].name, drop_reason_name(why));
	}
}

static const struct frame_spec udp4 = {"10.1.0.10", "10.2.0.10", TO_US,
				       .proto = 17, .dport = 53, .payload = 8};
static const struct frame_spec udp6 = {"fd01::10",  "fd02::10",	 TO_US,
				       .proto = 17, .dport = 53, .payload = 8};

/* One byte of a good frame changed. */
static void changed_frames_are_refused(void **state)
{
	static const struct {
		const char *name;
		const struct frame_spec *spec;
		unsigned at;
		uint8_t value;
		enum drop_reason why;
	} rows[] = {
		{"1 checksum", &udp4, 24, 0xff, DROP_MALFORMED},
		{"2 IP version", &udp4, 14, 0x55, DROP_MALFORMED},
		{"3 header too short", &udp4, 14, 0x44, DROP_MALFORMED},
		{"4 total length long", &udp4, 17, 0xff, DROP_TRUNCATED},
		{"5 sender is a group", &udp4, 6, 3, DROP_MALFORMED},
		{"6 service tag", &udp4, 12, 0x88, DROP_MALFORMED},
		{"7 v6 version", &udp6, 14, 0x40, DROP_MALFORMED},
		{"8 v6 length", &udp6, 19, 0xff, DROP_TRUNCATED},
		{"9 v6 UDP length long", &udp6, 59, 0xff, DROP_TRUNCATED},
		{"10 v6 UDP length short", &udp6, 59, 7, DROP_MALFORMED},
		{"11 v6 ends in a routing header", &udp6, 20, 43, DROP_MALFORMED},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		uint8_t frame[FRAME_MAX];
		size_t bytes = frame_make(frame, rows[i].spec);
		enum drop_reason why;
		struct pkt p;

		frame[rows[i].at] = rows[i].value;
		why = parse_exact(frame, bytes, bytes, &p);
		if (why == DROP_NONE || (rows[i].at != 20 && why != rows[i].why))
			fail_msg("%s: %s", rows[i].name, drop_reason_name(why));
	}
}

/* A v4-mapped address on the wire would pass for the IPv4 address that it names. */
static void mapped_addresses_are_refused(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t bytes = frame_make(frame, &udp6);
	static const uint8_t mapped[16] = {
		[10] = 0xff, [11] = 0xff, [12] = 10, [13] = 1, [15] = 10};
	struct pkt p;

	(void)state;
	memcpy(frame + 22, mapped, 16);
	assert_int_equal(parse_exact(frame, bytes, bytes, &p), DROP_MALFORMED);
	bytes = frame_make(frame, &udp6);
	memcpy(frame + 38, mapped, 16);
	assert_int_equal(parse_exact(frame, bytes, bytes, &p), DROP_MALFORMED);
}

/* RFC 8200 section 4.5, and walks that do not end. */
static void extension_chains_are_bounded(void **state)
{
	uint8_t frame[FRAME_MAX] = {0};
	size_t bytes;
	struct pkt p;

	(void)state;
	frame_make(frame, &udp6);
	for (unsigned i = 0; i < 20; i++) { /* destination options for ever */
		frame[54 + 8 * i] = IPPROTO_DSTOPTS;
		frame[55 + 8 * i] = 0;
	}
	frame[20] = IPPROTO_DSTOPTS;
	frame_put16(frame + 18, 160);
	bytes = 14 + 40 + 160;
	/* more than is walked here: the kernel's, never a flow */
	assert_int_equal(parse_exact(frame, bytes, bytes, &p), DROP_NONE);
	assert_int_equal(p.kind, PKT_OTHER);
	assert_true(p.flags & PKT_UNUSUAL);
	frame[54 + 16] = IPPROTO_NONE; /* ends after three */
	assert_int_equal(parse_exact(frame, bytes, bytes, &p), DROP_NONE);
	assert_int_equal(p.kind, PKT_OTHER);
	assert_false(p.flags & PKT_UNUSUAL);
	frame[54 + 8] = IPPROTO_HOPOPTS; /* not first */
	assert_int_equal(parse_exact(frame, bytes, bytes, &p), DROP_MALFORMED);
}

static void both_directions_have_one_key(void **state)
{
	static const struct {
		struct frame_spec there, back;
		bool one;
	} rows[] = {
		{{"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .sport = 9, .dport = 53},
		 {"10.2.0.10", "10.1.0.10", TO_US, .proto = 17, .sport = 53, .dport = 9},
		 true},
		{{"fd01::10", "fd02::10", TO_US, .proto = 6, .sport = 9, .dport = 80,
		  .tcp_flags = 2},
		 {"fd02::10", "fd01::10", TO_US, .proto = 6, .sport = 80, .dport = 9,
		  .tcp_flags = 18},
		 true},
		{{"10.1.0.10", "10.2.0.10", TO_US, .proto = 1, .sport = 8 << 8, .dport = 5},
		 {"10.2.0.10", "10.1.0.10", TO_US, .proto = 1, .sport = 0, .dport = 5},
		 true},
		/* two hosts that ping each other with one identifier are two flows */
		{{"10.1.0.10", "10.2.0.10", TO_US, .proto = 1, .sport = 8 << 8, .dport = 5},
		 {"10.2.0.10", "10.1.0.10", TO_US, .proto = 1, .sport = 8 << 8, .dport = 5},
		 false},
		{{"10.1.0.10", "10.2.0.10", TO_US, .proto = 17, .sport = 9, .dport = 53},
		 {"10.2.0.10", "10.1.0.10", TO_US, .proto = 17, .sport = 9, .dport = 53},
		 false},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		uint8_t frame[FRAME_MAX];
		struct pkt a, b;
		size_t bytes = frame_make(frame, &rows[i].there);

		assert_int_equal(parse_exact(frame, bytes, bytes, &a), DROP_NONE);
		bytes = frame_make(frame, &rows[i].back);
		assert_int_equal(parse_exact(frame, bytes, bytes, &b), DROP_NONE);
		assert_int_equal(memcmp(&a.id, &b.id, sizeof(a.id)) == 0, rows[i].one);
		if (rows[i].one)
			assert_true((a.flags & PKT_REVERSED) != (b.flags & PKT_REVERSED));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_frames_are_known),
		cmocka_unit_test(cut_frames_are_refused),
		cmocka_unit_test(impossible_frames_are_refused),
		cmocka_unit_test(changed_frames_are_refused),
		cmocka_unit_test(mapped_addresses_are_refused),
		cmocka_unit_test(extension_chains_are_bounded),
		cmocka_unit_test(both_directions_have_one_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
