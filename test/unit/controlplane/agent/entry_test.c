/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a stored decision means at start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

#define GOOD "segments = ( { name = \"a\"; } );\n"
#define BETTER "segments = ( { name = \"a\"; }, { name = \"b\"; } );\n"

struct world {
	struct agent a;
	char dir[64];
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err = {""};

	if (w == NULL)
		return -1;
	strcpy(w->dir, "/tmp/sp-entry-XXXXXX");
	*state = w;
	return mkdtemp(w->dir) == NULL || store_open(&w->a.store, w->dir, &err) < 0 ||
			       registry_new(&w->a.registry, 8, NULL, NULL) < 0
		       ? -1
		       : 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char cmd[128];

	store_close(w->a.store);
	registry_free(w->a.registry);
	free(w->a.replayed_text);
	free(w->a.replayed_file);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
	assert_int_equal(system(cmd), 0);
	free(w);
	return 0;
}

/* More entries than a plane can hold, from a text that parses. */
static char *too_many_pairs(void)
{
	char *text = malloc(65536);
	size_t n = 0;

	assert_non_null(text);
	n += (size_t)sprintf(text + n, "segments = (\n");
	for (int i = 0; i < 600; i++)
		n += (size_t)sprintf(text + n, "{ name = \"s%d\"; }%s\n", i, i < 599 ? "," : "");
	sprintf(text + n,
		");\nrules = ( { from = \"any\"; to = \"any\"; service = \"tcp/1\"; } );\n");
	return text;
}

static int alarm_one(void *arg, const struct store_alarm *al)
{
	if (strcmp(al->kind, "policy") == 0)
		++*(unsigned *)arg;
	return 0;
}

static void a_policy_that_was_refused_does_not_replace_the_one_before_it(void **state)
{
	struct world *w = *state;
	char *big = too_many_pairs();
	const struct {
		const char *name, *text, *stays;
		unsigned alarms;
	} rows[] = {
		{"good", GOOD, GOOD, 0},
		{"does not parse", "segments = (", GOOD, 1},
		{"does not compile", big, GOOD, 2},
		{"good again", BETTER, BETTER, 2},
	};

	for (uint64_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct decision d = {.op = DECISION_POLICY,
				     .has = DECISION_HAS_TEXT | DECISION_HAS_FILE,
				     .file = "segments.cfg"};
		struct decision_entry e = {.revision = i + 1, .n_ops = 1, .ops = &d};
		unsigned alarms = 0;

		d.text = strdup(rows[i].text);
		entry_callbacks.apply(&w->a, &e, true);
		free(d.text);
		if (strcmp(w->a.replayed_text, rows[i].stays) != 0)
			fail_msg("%s: another text is in force", rows[i].name);
		store_alarms(w->a.store, 10, alarm_one, &alarms, NULL);
		if (alarms != rows[i].alarms)
			fail_msg("%s: %u alarms", rows[i].name, alarms);
	}
	free(big);
}

static void the_lease_outlives_a_restart_and_nothing_more(void **state)
{
#define WALL 1800000000000ull
	static struct gw_config cfg = {.controller_skew_s = 5};
	static const struct {
		const char *name, *stored;
		uint64_t boot_ms, wall_ms, until_ms, before_boot_ms;
	} rows[] = {
		{"never heard of", NULL, 7000, WALL, 7000, 0},
		{"30 s left", "1800000030000 1799999990000", 7000, WALL, 37000, 0},
		{"ended 3 s ago", "1799999997000 1799999990000", 7000, WALL, 4000, 0},
		{"ended before the box started", "1799999990000 1799999980000", 7000, WALL, 0,
		 3000},
		{"clock a little back: no more than was left", "1800000030000 1800000002000", 7000,
		 WALL, 35000, 0},
		{"clock far back", "1800000030000 1800000010000", 7000, WALL, 0, CLOCK_NEVER_MS},
		{"clock at the epoch", "1800000030000 1800000000000", 7000, 7000, 0,
		 CLOCK_NEVER_MS},
		{"damaged", "soon", 7000, WALL, 0, CLOCK_NEVER_MS},
	};
	struct world *w = *state;
	struct err err = {""};

	w->a.cfg = &cfg;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].stored != NULL)
			assert_int_equal(
				store_meta_put(w->a.store, "lease_wall_ms", rows[i].stored, &err),
				0);
		w->a.lease_until_ms = 99;
		w->a.lease_before_boot_ms = 0;
		entry_lease_load(&w->a, rows[i].boot_ms, rows[i].wall_ms);
		if (w->a.lease_until_ms != rows[i].until_ms ||
		    w->a.lease_before_boot_ms != rows[i].before_boot_ms)
			fail_msg("%s: until %llu, %llu before boot", rows[i].name,
				 (unsigned long long)w->a.lease_until_ms,
				 (unsigned long long)w->a.lease_before_boot_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_policy_that_was_refused_does_not_replace_the_one_before_it, setup,
			teardown),
		cmocka_unit_test_setup_teardown(the_lease_outlives_a_restart_and_nothing_more,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
