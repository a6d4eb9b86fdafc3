/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A trace's filter, from the words of a command line to the dataplane's struct; and counters added up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "controlplane/agent/api_trace.h"
#include "controlplane/agent/tallies.h"
#include "controlplane/ctl/trace.h"

static bool device(void *arg, const char *name, uint32_t *slot)
{
	(void)arg;
	*slot = 5;
	return strcmp(name, "spiffe://x/cam/1") == 0;
}

static bool port(void *arg, const char *name, uint16_t *index)
{
	(void)arg;
	*index = 1;
	return strcmp(name, "up") == 0;
}

static const struct trace_names names = {NULL, device, port};

/* word and, behind it, what the dataplane gets */
static void words_become_a_filter(void **state)
{
	static const struct {
		const char *word[9];
		uint32_t fields; /* 0 with want < 0 */
		int words, want; /* of each step */
	} rows[] = {
		{{NULL}, 0, 0, 0},
		{{"src", "10.7.0.11", NULL}, TRACE_SRC, 0, 0},
		{{"src", "10.7.0.0/24", "dst", "fd00::/8", NULL}, TRACE_SRC | TRACE_DST, 0, 0},
		{{"host", "10.7.0.11", "proto", "udp", "dport", "53", NULL},
		 TRACE_HOST | TRACE_PROTO | TRACE_DPORT,
		 0,
		 0},
		{{"tcp/554", NULL}, TRACE_PROTO | TRACE_DPORT, 0, 0},
		{{"proto", "icmp", NULL}, TRACE_PROTO, 0, 0},
		{{"device", "spiffe://x/cam/1", NULL}, TRACE_DEVICE, 0, 0},
		{{"port", "up", "vlan", "20", NULL}, TRACE_PORT | TRACE_VLAN, 0, 0},
		{{"drop", NULL}, TRACE_DROP, 0, 0},
		{{"reason", "denied", NULL}, TRACE_REASON, 0, 0},
		{{"sport", "65535", "dport", "0", NULL}, TRACE_SPORT | TRACE_DPORT, 0, 0},
		/* refused by the words */
		{{"nosuch", NULL}, 0, -EINVAL, 0},
		{{"src", NULL}, 0, -EINVAL, 0},
		{{"src", "10.0.0.1", "src", "10.0.0.2", NULL}, 0, -EINVAL, 0},
		{{"dport", "65536", NULL}, 0, -EINVAL, 0},
		{{"dport", "-1", NULL}, 0, -EINVAL, 0},
		{{"dport", "5x", NULL}, 0, -EINVAL, 0},
		{{"tcp/", NULL}, 0, -EINVAL, 0},
		{{"tcp/1", "dport", "2", NULL}, 0, -EINVAL, 0},
		{{"src", "\xff", NULL}, 0, -EINVAL, 0},
		/* refused by the gateway */
		{{"src", "10.7.0.300", NULL}, 0, 0, -EINVAL},
		{{"src", "10.7.0.1/24", NULL}, 0, 0, -EINVAL},
		{{"proto", "xtp", NULL}, 0, 0, -EINVAL},
		{{"device", "spiffe://x/cam/2", NULL}, 0, 0, -EINVAL},
		{{"port", "nosuch", NULL}, 0, 0, -EINVAL},
		{{"reason", "nosuch", NULL}, 0, 0, -EINVAL},
		{{"reason", "none", NULL}, 0, 0, -EINVAL},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg_trace_filter f = {.fields = 12345};
		struct err err = {""};
		json_t *filter = NULL;
		int ret = trace_filter_words(&filter, rows[i].word, &err);

		if (ret != rows[i].words)
			fail_msg("row %u: words: %d %s", i, ret, err.msg);
		if (ret < 0) {
			assert_null(filter);
			assert_string_not_equal(err.msg, "");
			continue;
		}
		ret = trace_filter_read(&f, filter, &names, &err);
		json_decref(filter);
		if (ret != rows[i].want)
			fail_msg("row %u: read: %d %s", i, ret, err.msg);
		assert_int_equal(f.fields, ret == 0 ? rows[i].fields : 12345);
		if (ret == 0)
			assert_true(msg_trace_filter_check(&f, 2));
		else
			assert_string_not_equal(err.msg, "");
	}
}

static void json_of_any_kind_is_refused_or_right(void **state)
{
	static const struct {
		const char *json;
		int want;
	} rows[] = {
		{"{\"src\": 5}", -EINVAL},     {"{\"dport\": \"554\"}", -EINVAL},
		{"{\"dport\": 1.5}", -EINVAL}, {"{\"dport\": 70000}", -EINVAL},
		{"{\"vlan\": -1}", -EINVAL},   {"{\"drop\": 1}", -EINVAL},
		{"{\"drop\": false}", 0},      {"{\"proto\": 47}", 0},
		{"{\"proto\": 256}", -EINVAL}, {"{\"proto\": null}", -EINVAL},
		{"{\"device\": {}}", -EINVAL}, {"{\"reason\": 3}", -EINVAL},
		{"{\"\": \"\"}", -EINVAL},     {"[]", -EINVAL},
		{"{\"host\": \"::/0\"}", 0},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *filter = json_loads(rows[i].json, 0, NULL);
		struct msg_trace_filter f;
		struct err err = {""};

		assert_non_null(filter);
		if (trace_filter_read(&f, filter, &names, &err) != rows[i].want)
			fail_msg("%s: %s", rows[i].json, err.msg);
		json_decref(filter);
	}
}

/* ---- counters ---- */

static struct msg_tally_account entry(const char *rule, const char *from, uint8_t reason,
				      uint64_t packets)
{
	struct msg_tally_account e = {
		.reason = reason, .packets = packets, .bytes = 10 * packets, .flows = 1, .open = 1};

	strcpy(e.rule, rule);
	strcpy(e.from, from);
	strcpy(e.to, "nvr");
	return e;
}

static void workers_add_up(void **state)
{
	struct msg_tallies m = {.kind = TALLY_ACCOUNTS, .n = 4};
	struct tallies t = {0};

	(void)state;
	m.account[0] = entry("video", "cams", 0, 5);
	m.account[1] = entry("", "cams", DROP_DENIED, 7);
	m.account[2] = entry("audio", "cams", 0, 1);
	m.account[3] = entry("video", "plcs", 0, 100);
	assert_int_equal(tallies_add(&t, &m), 0); /* one worker */
	m.n = 2;
	assert_int_equal(tallies_add(&t, &m), 0); /* another */
	m.kind = TALLY_DEVICES;
	m.n = 3;
	for (unsigned i = 0; i < 3; i++)
		m.device[i] = (struct msg_tally_device){.slot = 9 - i % 2, .packets = 3};
	assert_int_equal(tallies_add(&t, &m), 0);
	tallies_merge(&t);
	assert_int_equal(t.n_accounts, 4);
	assert_int_equal(t.account[0].reason, DROP_DENIED);
	assert_int_equal(t.account[0].packets, 14);
	assert_string_equal(t.account[1].rule, "audio");
	assert_int_equal(t.account[2].packets, 10);
	assert_int_equal(t.account[2].bytes, 100);
	assert_int_equal(t.account[2].flows, 2);
	assert_int_equal(t.account[3].packets, 100);
	assert_int_equal(t.n_devices, 2);
	assert_int_equal(t.device[0].slot, 8);
	assert_int_equal(t.device[1].packets, 6);
	tallies_clear(&t);
}

static void impossible_counters_change_nothing(void **state)
{
	struct msg_tallies m = {.kind = TALLY_ACCOUNTS, .n = MSG_TALLY_ACCOUNTS + 1};
	struct tallies t = {0};

	(void)state;
	assert_int_equal(tallies_add(&t, &m), -EPROTO);
	m.n = 1;
	memset(&m.account[0], 0xff, sizeof(m.account[0]));
	assert_int_equal(tallies_add(&t, &m), -EPROTO);
	m.kind = TALLY_LCORES;
	m.n = MSG_TALLY_LCORES;
	assert_int_equal(tallies_add(&t, &m), 0);
	m.n = 1; /* more workers than there can be */
	assert_int_equal(tallies_add(&t, &m), -EPROTO);
	assert_int_equal(t.n_accounts, 0);
	assert_int_equal(t.n_lcores, MSG_TALLY_LCORES);
	tallies_clear(&t);
}

static void impossible_records_are_seen(void **state)
{
	static const struct {
		const char *what;
		struct msg_traced m;
		bool good;
	} rows[] = {
		{"good", {.in_port = 1, .out_port = 1}, true},
		{"to the kernel", {.out_port = MSG_PORT_KERNEL}, true},
		{"in_port", {.in_port = 2}, false},
		{"out_port", {.out_port = 2}, false},
		{"stage", {.stage = TRACED_LINK + 1}, false},
		{"edge", {.edge = TRACED_KERNEL + 1}, false},
		{"reason", {.reason = DROP_REASON_COUNT}, false},
		{"judged", {.judged_reason = 255}, false},
		{"flow", {.flow = TRACED_DIVERTED + 1}, false},
		{"bound", {.bound = 1, .bound_port = 9}, false},
		{"not bound", {.bound = 0, .bound_port = 9}, true},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (msg_traced_check(&rows[i].m, 2) != rows[i].good)
			fail_msg("%s", rows[i].what);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_become_a_filter),
		cmocka_unit_test(json_of_any_kind_is_refused_or_right),
		cmocka_unit_test(workers_add_up),
		cmocka_unit_test(impossible_counters_change_nothing),
		cmocka_unit_test(impossible_records_are_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
