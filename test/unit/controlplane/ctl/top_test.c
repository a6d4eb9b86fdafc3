/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rates between two readings, and what `sallyctl top` and `trace` print of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/stats.h"
#include "controlplane/ctl/top.h"
#include "controlplane/ctl/trace.h"

static const char before_text[] =
	"{\"at_us\":1000000,\"totals\":{\"forwarded\":10,\"admissions\":4,\"flows\":3,\"flows_"
	"max\":100},"
	"\"ports\":[{\"name\":\"dev\",\"side\":\"device\",\"link\":\"up\",\"rx_packets\":100,\"rx_"
	"bytes\":1000}],"
	"\"lcores\":[{\"lcore\":0,\"cpu\":1,\"busy_cycles\":100,\"total_cycles\":1000,\"packets\":"
	"10,\"bursts\":10}],"
	"\"rules\":[{\"rule\":\"video\",\"from\":\"cams\",\"to\":\"nvr\",\"verdict\":\"allowed\","
	"\"packets\":50,\"bytes\":500,\"flows\":1,\"open\":1}],"
	"\"pairs\":[{\"from\":\"cams\",\"to\":\"nvr\",\"packets\":50,\"refused\":5,\"reasons\":{"
	"\"denied\":5}}],"
	"\"reasons\":[{\"reason\":\"denied\",\"packets\":5,\"text\":\"no rule\"}]}";

/* two seconds later */
static const char after_text[] =
	"{\"at_us\":3000000,\"totals\":{\"forwarded\":30,\"admissions\":10,\"flows\":7,\"flows_"
	"max\":100},"
	"\"ports\":[{\"name\":\"dev\",\"side\":\"device\",\"link\":\"up\",\"rx_packets\":300,\"rx_"
	"bytes\":201000}],"
	"\"lcores\":[{\"lcore\":0,\"cpu\":1,\"busy_cycles\":600,\"total_cycles\":2000,\"packets\":"
	"110,\"bursts\":35}],"
	"\"rules\":[{\"rule\":\"new\",\"from\":\"cams\",\"to\":\"nvr\",\"verdict\":\"allowed\","
	"\"packets\":8,\"bytes\":80,\"flows\":2,\"open\":2},"
	"{\"rule\":\"video\",\"from\":\"cams\",\"to\":\"nvr\",\"verdict\":\"allowed\","
	"\"packets\":2050,\"bytes\":20500,\"flows\":5,\"open\":4},"
	"{\"rule\":\"bad\\u001b[2Jname\",\"from\":\"cams\",\"to\":\"nvr\",\"verdict\":\"denied\","
	"\"packets\":2,\"bytes\":2,\"flows\":2,\"open\":0}],"
	"\"pairs\":[{\"from\":\"cams\",\"to\":\"nvr\",\"packets\":40,\"refused\":25,\"reasons\":{"
	"\"denied\":15,"
	"\"revoked\":10}}],"
	"\"reasons\":[{\"reason\":\"denied\",\"packets\":15,\"text\":\"no rule\"}]}";

static json_t *rate(const char *a, const char *b)
{
	json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL), *r;

	assert_non_null(x);
	assert_non_null(y);
	r = stats_rate(x, y);
	json_decref(x);
	json_decref(y);
	return r;
}

static long long at(const json_t *r, const char *list, size_t row, const char *member)
{
	return json_integer_value(
		json_object_get(json_array_get(json_object_get(r, list), row), member));
}

static double real_at(const json_t *r, const char *list, const char *member)
{
	return json_real_value(
		json_object_get(json_array_get(json_object_get(r, list), 0), member));
}

static void counters_become_rates(void **state)
{
	json_t *r = rate(before_text, after_text);
	json_t *pair;

	(void)state;
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(r, "totals"), "forwarded")), 10);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(r, "totals"), "flows")),
			 7);
	assert_int_equal(at(r, "ports", 0, "rx_packets"), 100);
	assert_int_equal(at(r, "ports", 0, "rx_bytes"), 100000);
	assert_int_equal(at(r, "rules", 0, "packets"), 4); /* new: from zero */
	assert_int_equal(at(r, "rules", 1, "packets"), 1000); /* found by name */
	assert_int_equal(at(r, "rules", 1, "open"), 4); /* a gauge */
	assert_int_equal(at(r, "pairs", 0, "packets"), 20); /* went back: from zero */
	assert_int_equal(at(r, "pairs", 0, "refused"), 10);
	pair = json_array_get(json_object_get(r, "pairs"), 0);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(pair, "reasons"), "denied")), 5);
	assert_true(real_at(r, "lcores", "busy_pct") == 50);
	assert_true(real_at(r, "lcores", "cycles_per_packet") == 5);
	assert_true(real_at(r, "lcores", "burst_fill") == 4);
	json_decref(r);
}

static char *page(enum top_page p, const json_t *r, const json_t *flows)
{
	struct top_view v = {.page = p, .rows = 10};
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	assert_non_null(f);
	top_print(&v, r, flows, f);
	fclose(f);
	return text;
}

static void each_page_shows_its_list(void **state)
{
	static const struct {
		enum top_page page;
		const char *has[4], *has_not;
	} rows[] = {
		{TOP_ALL, {"100 packet/s in", "800.0k bit/s in", "3 new flow/s", "video"}, "\x1b"},
		{TOP_ALL, {"CORE", "PORT", "DROPPED BECAUSE", "FROM"}, "DEVICE"},
		{TOP_RULES, {"RULE", "video", "1.0k", "bad?[2Jname"}, "CORE"},
		{TOP_PAIRS, {"REFUSED/S", "cams", "nvr", "10"}, "video"},
		{TOP_REASONS, {"denied", "no rule", "5", "MEANING"}, "video"},
		{TOP_FLOWS, {"SOURCE", "10.7.0.11 port 5", "video", "80.0k"}, "CORE"},
		{TOP_DEVICES, {"DEVICE", "SEGMENT", "packet/s", "sorted by bytes"}, "video"},
	};
	json_t *r = rate(before_text, after_text);
	json_t *flows = json_loads(
		"[{\"proto\":17,\"src\":\"10.7.0.11\",\"sport\":5,\"dst\":\"10.20.0.10\","
		"\"dport\":5000,\"rule\":\"video\",\"packets\":3,\"bytes\":10000}]",
		0, NULL);

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *text = page(rows[i].page, r, flows);

		for (unsigned k = 0; k < 4; k++) {
			if (strstr(text, rows[i].has[k]) == NULL)
				fail_msg("row %u: no \"%s\" in:\n%s", i, rows[i].has[k], text);
		}
		if (strstr(text, rows[i].has_not) != NULL)
			fail_msg("row %u: \"%s\" in:\n%s", i, rows[i].has_not, text);
		free(text);
	}
	json_decref(flows);
	json_decref(r);
}

static void strange_answers_print(void **state)
{
	static const char *const texts[] = {
		"{}",
		"{\"at_us\":\"x\",\"totals\":5,\"ports\":{},\"rules\":[null,3,\"x\",{}]}",
		"{\"at_us\":-5,\"lcores\":[{\"lcore\":\"a\",\"busy_cycles\":-1}]}",
	};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = 0; k < 3; k++) {
			json_t *r = rate(texts[i], texts[k]);

			for (int p = TOP_ALL; p < TOP_PAGES; p++)
				free(page(p, r, NULL));
			json_decref(r);
		}
	}
}

static void flows_get_rates_if_they_were_there(void **state)
{
	json_t *a = json_loads(
		"{\"at_us\":0,\"flows\":[{\"proto\":6,\"src\":\"a\",\"sport\":1,\"dst\":\"b\","
		"\"dport\":2,\"packets\":10,\"bytes\":100}]}",
		0, NULL);
	json_t *b = json_loads(
		"{\"at_us\":500000,\"flows\":[{\"proto\":6,\"src\":\"a\",\"sport\":9,\"dst\":\"b\","
		"\"dport\":2,\"packets\":99,\"bytes\":99},{\"proto\":6,\"src\":\"a\",\"sport\":1,"
		"\"dst\":\"b\",\"dport\":2,\"packets\":20,\"bytes\":400}]}",
		0, NULL);
	json_t *f = top_flows(a, b);

	(void)state;
	assert_int_equal(json_array_size(f), 1);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(f, 0), "packets")), 20);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(f, 0), "bytes")), 600);
	json_decref(f);
	json_decref(a);
	json_decref(b);
}

static void numbers_are_short(void **state)
{
	static const struct {
		long long n;
		const char *text;
	} rows[] = {
		{0, "0"},	  {999, "999"},	     {1000, "1.0k"},	     {999949, "999.9k"},
		{999950, "1.0M"}, {1234567, "1.2M"}, {34500000000, "34.5G"}, {INT64_MAX, "9223.4P"},
		{-5, "-5"}};
	char text[24];

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(top_number(rows[i].n, text), rows[i].text);
}

static void a_traced_packet_prints_its_stages(void **state)
{
	json_t *p = json_loads(
		"{\"at_ms\":1000,\"stages\":[{\"stage\":\"parse\",\"text\":\"udp\\u001b[0m\"},"
		"{\"stage\":\"end\",\"text\":\"dropped, denied: no rule\"},{},null]}",
		0, NULL);
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	(void)state;
	trace_print(p, 1, f);
	fclose(f);
	assert_string_equal(text, "packet 1 at 00:00:01.000Z\n"
				  "  parse      udp?[0m\n"
				  "  end        dropped, denied: no rule\n"
				  "  -          -\n"
				  "  -          -\n");
	free(text);
	json_decref(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_become_rates),
		cmocka_unit_test(each_page_shows_its_list),
		cmocka_unit_test(strange_answers_print),
		cmocka_unit_test(flows_get_rates_if_they_were_there),
		cmocka_unit_test(numbers_are_short),
		cmocka_unit_test(a_traced_packet_prints_its_stages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
