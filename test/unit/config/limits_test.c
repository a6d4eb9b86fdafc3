/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Limits from the engineer's text to the form that the planes enforce. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config/segments.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void a_rate_is_a_number_and_a_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t bits;
		uint32_t packets;
	} good[] = {
		{"2 Mbit/s", 2000000, 0},
		{"2Mbit/s", 2000000, 0},
		{"1.5 Mbit/s", 1500000, 0},
		{"0.25 Gbit/s", 250000000, 0},
		{"8 kbit/s", 8000, 0},
		{"8000 bit/s", 8000, 0},
		{"100 Gbit/s", 100000000000, 0},
		{"100000000000 bit/s", 100000000000, 0},
		{"9.125 kbit/s", 9125, 0},
		{"1 packet/s", 0, 1},
		{"10000000 packets/s", 0, 10000000},
	};
	static const char *const bad[] = {
		"",
		"Mbit/s",
		"2",
		"2 ",
		"2  Mbit/s",
		"-2 Mbit/s",
		"2 mbit/s",
		"2 Mbit",
		"2 MB/s",
		"2 Mbit/s ",
		"2. Mbit/s",
		".5 Mbit/s",
		"1.2345 Mbit/s",
		"0 Mbit/s",
		"7.999 kbit/s",
		"101 Gbit/s",
		"100.001 Gbit/s",
		"0 packet/s",
		"1.5 packet/s",
		"10000001 packet/s",
		"0x10 Mbit/s",
		"1e3 kbit/s",
		" 2 Mbit/s",
		"2,5 Mbit/s",
		"2\n Mbit/s",
		"9999999999999 bit/s",
		"999999999999 Gbit/s",
		"999999999999 packet/s",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		struct rate r = {0};
		const char *why = NULL;

		if (rate_parse(&r, good[i].text, &why) != 0 || r.bits_per_s != good[i].bits ||
		    r.packets_per_s != good[i].packets)
			fail_msg("\"%s\": %llu bit/s, %u packet/s: %s", good[i].text,
				 (unsigned long long)r.bits_per_s, r.packets_per_s, why);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct rate r = {0};
		const char *why = NULL;

		if (rate_parse(&r, bad[i], &why) != -22 || why == NULL || r.bits_per_s != 0 ||
		    r.packets_per_s != 0)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

static void limits_read_as_they_were_written(void **state)
{
	static const struct {
		struct policy_limits l;
		const char *want;
	} rows[] = {
		{{0}, ""},
		{{.bytes_per_s = 250000}, "2 Mbit/s"},
		{{.bytes_per_s = 187500}, "1.5 Mbit/s"},
		{{.bytes_per_s = 1000}, "8 kbit/s"},
		{{.bytes_per_s = 12500000000}, "100 Gbit/s"},
		{{.bytes_per_s = 125125}, "1.001 Mbit/s"},
		{{.packets_per_s = 1000}, "1000 packet/s"},
		{{.bytes_per_s = 250000,
		  .packets_per_s = 1000,
		  .new_flows_per_s = 20,
		  .flows = 200},
		 "2 Mbit/s, 1000 packet/s, 20 new flows/s, 200 flows"},
		{{.bytes_per_s = UINT64_MAX / 8,
		  .packets_per_s = UINT32_MAX,
		  .new_flows_per_s = UINT32_MAX,
		  .flows = UINT32_MAX},
		 "18446744073.709 Gbit/s, 4294967295 packet/s, 4294967295 new flows/s, 4294967295 "
		 "flows"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[RATE_TEXT_BYTES];

		assert_string_equal(limits_text(&rows[i].l, text), rows[i].want);
	}
}

#define RULE(more) "rules = ( { from = \"a\"; to = \"a\"; service = \"tcp\"; " more " } );"
#define SEG(more) "segments = ( { name = \"a\"; " more " } );\n"

static void each_error_names_its_line_and_key(void **state)
{
	static const struct {
		const char *name, *text, *want;
	} rows[] = {
		{"no rate", SEG("") RULE("rate = \"fast\";"),
		 "t.cfg:2: rules[0].rate: \"fast\": must be a rate, as \"2 Mbit/s\""},
		{"a number", SEG("") RULE("rate = 5;"),
		 "t.cfg:2: rules[0].rate: must be a text or an array of texts"},
		{"too fast", SEG("") RULE("rate = \"200 Gbit/s\";"),
		 "is outside 8 kbit/s .. 100 Gbit/s"},
		{"bits twice", SEG("") RULE("rate = [ \"1 Mbit/s\", \"2 Mbit/s\" ];"),
		 "t.cfg:2: rules[0].rate: \"2 Mbit/s\": bit/s is there twice"},
		{"packets twice", SEG("") RULE("rate = [ \"1 packet/s\", \"2 packet/s\" ];"),
		 "packet/s is there twice"},
		{"three", SEG("") RULE("rate = [ \"1 Mbit/s\", \"2 packet/s\", \"3 packet/s\" ];"),
		 "t.cfg:2: rules[0].rate: 3 entries, must be 1..2"},
		{"burst", SEG("") RULE("rate = \"1 Mbit/s\"; burst_ms = 0;"),
		 "t.cfg:2: rules[0].burst_ms: 0 is outside 1..10000 ms"},
		{"denies", SEG("") RULE("name = \"r\"; action = \"deny\"; rate = \"1 Mbit/s\";"),
		 "t.cfg:2: r: a rule that denies lets nothing pass: it has no rate"},
		{"of a segment", SEG("limits = { rate = \"1 MB/s\"; };"),
		 "t.cfg:1: segments.a.limits.rate: \"1 MB/s\": must be a rate"},
		{"unknown", SEG("limits = { speed = 3; };"),
		 "t.cfg:1: segments.a.limits.speed: unknown key"},
		{"new flows", SEG("limits = { new_flows = 0; };"),
		 "t.cfg:1: segments.a.limits.new_flows: 0 is outside 1..1000000 a second"},
		{"burst alone", SEG("limits = { new_flows_burst = 5; };"),
		 "t.cfg:1: a: new_flows_burst needs new_flows"},
		{"flows", SEG("limits = { flows = 70000000; };"),
		 "t.cfg:1: segments.a.limits.flows: 70000000 is outside 1..67108864"},
		{"negative", SEG("limits = { flows = -1; };"), "-1 is outside 1..67108864"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct config_errors errs = {0};
		struct segments *s = NULL;
		int ret = segments_parse(&s, rows[i].text, "t.cfg", &errs);

		if (ret != -22 || s != NULL || errs.n == 0 ||
		    strstr(errs.line[0], rows[i].want) == NULL)
			fail_msg("%s: ret %d, \"%s\", want \"%s\"", rows[i].name, ret,
				 errs.n > 0 ? errs.line[0] : "", rows[i].want);
	}
}

static struct policy_form *compile(const char *text)
{
	struct config_errors errs = {0};
	struct segments *s = NULL;
	struct policy_form *f = NULL;
	struct err err = {""};

	if (segments_parse(&s, text, "t.cfg", &errs) < 0)
		fail_msg("%s", errs.line[0]);
	if (policy_compile(&f, s, 1, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	segments_free(s);
	return f;
}

static void the_form_carries_what_the_text_says(void **state)
{
	static const struct {
		const char *name, *text;
		struct policy_limits rule, segment;
	} rows[] = {
		{"none", SEG("") RULE(""), {0}, {0}},
		{"a rule's bits",
		 SEG("") RULE("rate = \"10 Mbit/s\";"),
		 {.bytes_per_s = 1250000, .burst_bytes = 125000},
		 {0}},
		{"a rule's packets, with a burst",
		 SEG("") RULE("rate = \"5000 packet/s\"; burst_ms = 500;"),
		 {.packets_per_s = 5000, .burst_packets = 2500},
		 {0}},
		{"the least burst",
		 SEG("") RULE("rate = [ \"8 kbit/s\", \"2 packet/s\" ]; burst_ms = 1;"),
		 {.bytes_per_s = 1000, .burst_bytes = 9216, .packets_per_s = 2, .burst_packets = 8},
		 {0}},
		{"the most",
		 SEG("") RULE(
			 "rate = [ \"100 Gbit/s\", \"10000000 packet/s\" ]; burst_ms = 10000;"),
		 {.bytes_per_s = 12500000000,
		  .burst_bytes = 125000000000,
		  .packets_per_s = 10000000,
		  .burst_packets = 100000000},
		 {0}},
		{"a segment",
		 SEG("limits = { rate = [ \"2 Mbit/s\", \"1000 packet/s\" ]; new_flows = 20; flows "
		     "= 200; };") RULE(""),
		 {0},
		 {.bytes_per_s = 250000,
		  .burst_bytes = 25000,
		  .packets_per_s = 1000,
		  .burst_packets = 100,
		  .new_flows_per_s = 20,
		  .burst_new_flows = 40,
		  .flows = 200}},
		{"a segment's bursts",
		 SEG("limits = { new_flows = 600000; new_flows_burst = 7; };") RULE(""),
		 {0},
		 {.new_flows_per_s = 600000, .burst_new_flows = 7}},
		{"two seconds are too much",
		 SEG("limits = { new_flows = 600000; };") RULE(""),
		 {0},
		 {.new_flows_per_s = 600000, .burst_new_flows = 1000000}},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct policy_form *f = compile(rows[i].text);

		if (memcmp(&policy_rules(f)[0].limits, &rows[i].rule, sizeof(rows[i].rule)) != 0)
			fail_msg("%s: the rule", rows[i].name);
		if (memcmp(&policy_endpoints(f)[0].limits, &rows[i].segment,
			   sizeof(rows[i].segment)) != 0)
			fail_msg("%s: the segment", rows[i].name);
		free(f);
	}
}

/* What a damaged or hostile sender could write: nothing may pass that a plane would compute nonsense with. */
static void impossible_limits_are_refused(void **state)
{
	static const struct {
		const char *name;
		enum { RULE_OF, SEGMENT_OF, NETWORK_OF } of;
		struct policy_limits l;
	} rows[] = {
		{"rate without burst", RULE_OF, {.bytes_per_s = 1000}},
		{"burst without rate", RULE_OF, {.burst_bytes = 9216}},
		{"burst below a packet", RULE_OF, {.bytes_per_s = 1000, .burst_bytes = 9215}},
		{"rate too low", RULE_OF, {.bytes_per_s = 999, .burst_bytes = 9216}},
		{"rate too high", RULE_OF, {.bytes_per_s = UINT64_MAX, .burst_bytes = 9216}},
		{"burst too high", RULE_OF, {.bytes_per_s = 1000, .burst_bytes = UINT64_MAX}},
		{"packets without burst", RULE_OF, {.packets_per_s = 1}},
		{"packets too many", RULE_OF, {.packets_per_s = 10000001, .burst_packets = 8}},
		{"packet burst", RULE_OF, {.packets_per_s = 1, .burst_packets = UINT32_MAX}},
		{"new flows of a rule", RULE_OF, {.new_flows_per_s = 1, .burst_new_flows = 1}},
		{"flows of a rule", RULE_OF, {.flows = 1}},
		{"segment's rate", SEGMENT_OF, {.bytes_per_s = 1000}},
		{"new flows without burst", SEGMENT_OF, {.new_flows_per_s = 1}},
		{"new flows too many",
		 SEGMENT_OF,
		 {.new_flows_per_s = 1000001, .burst_new_flows = 1}},
		{"flows too many", SEGMENT_OF, {.flows = UINT32_MAX}},
		{"network's rate", NETWORK_OF, {.bytes_per_s = 1000, .burst_bytes = 9216}},
		{"network's packets", NETWORK_OF, {.packets_per_s = 1, .burst_packets = 8}},
		{"network's flows", NETWORK_OF, {.flows = 1}},
	};
	struct policy_form *f = compile(
		SEG("") "networks = ( { name = \"n\"; prefixes = \"10.0.0.0/8\"; } );" RULE(""));
	struct policy_limits *at[] = {
		[RULE_OF] = (struct policy_limits *)&policy_rules(f)[0].limits,
		[SEGMENT_OF] = (struct policy_limits *)&policy_endpoints(f)[0].limits,
		[NETWORK_OF] = (struct policy_limits *)&policy_endpoints(f)[1].limits,
	};
	struct err err = {""};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_int_equal(policy_form_check(f, f->bytes, &err), 0);
		*at[rows[i].of] = rows[i].l;
		if (policy_form_check(f, f->bytes, &err) != -71)
			fail_msg("%s: was taken", rows[i].name);
		memset(at[rows[i].of], 0, sizeof(rows[i].l));
	}
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rate_is_a_number_and_a_unit),
		cmocka_unit_test(limits_read_as_they_were_written),
		cmocka_unit_test(each_error_names_its_line_and_key),
		cmocka_unit_test(the_form_carries_what_the_text_says),
		cmocka_unit_test(impossible_limits_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
