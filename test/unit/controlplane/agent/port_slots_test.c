/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A port keeps its index while others come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/agent/port_slots.h"

static void order_is_kept(void **state)
{
	static const struct {
		const char *name, *file, *remembered, *want;
	} rows[] = {
		{"nothing remembered", "a b c", "", "a b c"},
		{"no file at all", "a b c", NULL, "a b c"},
		{"the file's order has changed", "c a b", "0 a\n1 b\n2 c\n", "a b c"},
		{"a new one before the others", "n a b", "0 a\n1 b\n", "a b n"},
		{"one in the middle has gone", "a c", "0 a\n1 b\n2 c\n", "a - c"},
		{"a new one takes its place", "n a c", "0 a\n1 b\n2 c\n", "a n c"},
		{"a hole that was there before", "a c", "0 a\n2 c\n", "a - c"},
		{"all are new", "x y", "0 a\n1 b\n", "x y"},
		{"lines without sense", "a b", "nonsense\n-1 a\n99 a\n1 a extra\n0\n\n", "b a"},
		{"two ports at one place", "a b", "0 a\n0 b\n", "a b"},
		{"one port at two places", "a b", "0 a\n3 a\n", "a b"},
		{"a name too long is none", "a", "5 abcdefghijklmnopqrstuvwxyz\n", "a"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static struct gw_config cfg;
		char names[128], got[256] = "", *rest = names;
		const char *name;

		memset(&cfg, 0, sizeof(cfg));
		snprintf(names, sizeof(names), "%s", rows[i].file);
		while ((name = strsep(&rest, " ")) != NULL)
			strcpy(cfg.ports[cfg.n_ports++].name, name);
		port_slots_order(&cfg, rows[i].remembered);
		for (uint32_t k = 0; k < cfg.n_ports; k++)
			snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s",
				 k > 0 ? " " : "",
				 cfg.ports[k].name[0] != '\0' ? cfg.ports[k].name : "-");
		if (strcmp(got, rows[i].want) != 0)
			fail_msg("%s: want \"%s\", got \"%s\"", rows[i].name, rows[i].want, got);
	}
}

static void what_is_saved_is_loaded(void **state)
{
	static struct gw_config cfg, again;
	char path[64];
	struct err err = {""};

	(void)state;
	snprintf(cfg.run_dir, sizeof(cfg.run_dir), "/tmp/slots-XXXXXX");
	assert_non_null(mkdtemp(cfg.run_dir));
	again = cfg;
	assert_int_equal(port_slots_load(&again, &err), 0); /* nothing there is no error */
	cfg.n_ports = 3;
	strcpy(cfg.ports[0].name, "a");
	strcpy(cfg.ports[2].name, "c");
	assert_int_equal(port_slots_save(&cfg, &err), 0);
	again.n_ports = 2;
	strcpy(again.ports[0].name, "c");
	strcpy(again.ports[1].name, "b");
	assert_int_equal(port_slots_load(&again, &err), 0);
	assert_int_equal(again.n_ports, 3);
	assert_string_equal(again.ports[0].name, "b");
	assert_string_equal(again.ports[2].name, "c");
	snprintf(path, sizeof(path), "%.40s/ports", cfg.run_dir);
	assert_int_equal(remove(path), 0);
	assert_int_equal(rmdir(cfg.run_dir), 0);
	assert_true(port_slots_save(&cfg, &err) < 0);
	assert_true(err.msg[0] != '\0');
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_is_kept),
		cmocka_unit_test(what_is_saved_is_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
