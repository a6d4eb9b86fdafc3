/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The table against others, restarts and numbers. */
#include "test/unit/controlplane/agent/nft_world.h"

static int rule_lines(void)
{
	FILE *f = popen("nft -t list table inet sallyport | grep -cE 'counter "
			"name|goto|jump|vmap|accept$|return$'",
			"r");
	int lines = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &lines), 1);
	pclose(f);
	return lines;
}

static void twenty_thousand_bindings(void **state)
{
	enum { MANY = 20000 };
	struct nft_binding *all = calloc(MANY, sizeof(*all));
	int lines = rule_lines();
	uint64_t took;
	struct nft_tamper t;

	(void)state;
	assert_non_null(all);
	assert_true(lines > 20);
	for (int i = 0; i < MANY; i++) {
		all[i] = i == 0 ? CAM4
				: binding("10.1.0.5", "02:00:00:00:00:05", "sp-dev", SEG_CAMERAS);
		if (i > 0) {
			all[i].ip.b[13] = 77;
			all[i].ip.b[14] = (uint8_t)(i >> 8);
			all[i].ip.b[15] = (uint8_t)i;
		}
	}
	for (uint16_t i = 0; form.f.n_entries < 4000; i++)
		entry_add(SEG_CAMERAS, (uint16_t)(100 + i / 100), 6, (uint16_t)(i % 100 * 10),
			  (uint16_t)(i % 100 * 10 + 5), POLICY_ALLOW);
	for (int round = 0; round < 3;
	     round++) { /* over nothing; over itself; one by one over itself */
		took = now_ms();
		assert_int_equal(nft_begin(n), 0);
		put_form();
		if (round < 2)
			assert_int_equal(nft_put_all_bindings(n, all, MANY), 0);
		for (int i = 0; round == 2 && i < MANY; i++)
			assert_int_equal(nft_put_binding(n, &all[i]), 0);
		assert_int_equal(nft_commit(n, &err), 0);
		took = now_ms() - took;
		print_message("%d bindings and 4000 entries, round %d: %llu ms\n", MANY, round,
			      (unsigned long long)took);
		assert_true(took < 10000);
	}
	took = now_ms();
	for (int i = 0; i < 100; i++)
		put(all[i * 10]);
	took = now_ms() - took;
	print_message("one of them: %llu us\n", (unsigned long long)took * 10);
	assert_true(took < 2000);
	assert_int_equal(nft_dispatch(n, &t), 0);
	assert_false(t.happened);
	assert_int_equal(rule_lines(), lines);
	assert_int_equal(nft_restore(n, &err), 0);
	assert_int_equal(sh("test $(nft list set inet sallyport bound4 | grep -c 10.77.78.31) = 1"),
			 0);
	assert_int_equal(
		sh("test $(nft list set inet sallyport bound4 | grep -oc 02:00:00) -ge 1000"), 0);
	free(all);
}

static void others_are_noticed_and_undone(void **state)
{
	static const struct {
		const char *cmd, *what; /* NULL: nobody's business */
	} rows[] = {
		{"nft add table inet other", NULL},
		{"nft add chain inet other c", NULL},
		{"nft add rule inet other c accept", NULL},
		{"nft add table ip sallyport", NULL},
		{"nft list ruleset", NULL},
		{"nft flush table inet sallyport", "deleted rule in chain"},
		{"nft add rule inet sallyport forward accept", "added rule in chain forward"},
		{"nft insert rule inet sallyport decide accept", "added rule in chain decide"},
		{"nft delete table inet sallyport", "deleted"},
		{"nft flush ruleset", "deleted"},
		{"nft add element inet sallyport segment4 '{ 10.1.0.66 : 1 }'",
		 "added elements to set segment4"},
		{"nft flush map inet sallyport verdicts", "deleted elements of set verdicts"},
		{"nft 'add table inet sallyport { flags dormant; }'", "changed table"},
		{"nft 'chain inet sallyport forward { policy accept; }'", "changed chain forward"},
	};
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 36000);
	struct nft_tamper t;

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
	put(CAM4);
	assert_int_equal(nft_heartbeat(n, 60, &err), 0);
	assert_int_equal(nft_dispatch(n, &t), 0);
	assert_false(t.happened);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool rules = rows[i].what != NULL && strstr(rows[i].what, "element") == NULL;

		assert_int_equal(sh("%s >/dev/null", rows[i].cmd), 0);
		assert_int_equal(nft_dispatch(n, &t), 0);
		if (t.happened != (rows[i].what != NULL))
			fail_msg("%s: noticed: %d (%s)", rows[i].cmd, t.happened, t.what);
		assert_int_equal(nft_verify(n, &err), rules ? -ESTALE : 0);
		if (!t.happened)
			continue;
		if (strstr(t.what, rows[i].what) == NULL)
			fail_msg("%s: told as \"%s\"", rows[i].cmd, t.what);
		assert_string_equal(t.process, "nft");
		assert_true(t.pid > 0);
		assert_int_equal(nft_restore(n, &err), 0);
		assert_int_equal(nft_dispatch(n, &t), 0);
		assert_false(t.happened);
		assert_int_equal(nft_verify(n, &err), 0);
		expect_udp(rows[i].cmd, client, server, "forwarded");
	}
	close(server);
	close(client);
}

static void a_restart_disturbs_nothing(void **state)
{
	static const struct {
		const char *name, *cmd;
		enum nft_found found;
	} rows[] = {
		{"kept", "true", NFT_FOUND_INTACT},
		{"deleted", "nft delete table inet sallyport", NFT_FOUND_NONE},
		{"a rule more", "nft insert rule inet sallyport forward accept", NFT_FOUND_FOREIGN},
		{"a chain more", "nft add chain inet sallyport mine", NFT_FOUND_FOREIGN},
		{"flushed", "nft flush table inet sallyport", NFT_FOUND_FOREIGN},
		{"dormant", "nft 'add table inet sallyport { flags dormant; }'", NFT_FOUND_FOREIGN},
		{"other", "nft 'delete table inet sallyport; add table inet sallyport'",
		 NFT_FOUND_FOREIGN},
	};
	int client, server;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum nft_found found;

		fresh(NULL);
		pair_tcp(&client, &server, "10.1.0.5", "10.2.0.9", (uint16_t)(43000 + i));
		nft_free(n);
		n = NULL;
		assert_int_equal(sh("%s", rows[i].cmd), 0);
		assert_int_equal(nft_new(&n, &cfg, &found, &err), 0);
		if (found != rows[i].found)
			fail_msg("%s: found %d", rows[i].name, found);
		assert_int_equal(nft_verify(n, &err), 0);
		assert_int_equal(send(client, "x", 1, 0), 1);
		if (found == NFT_FOUND_INTACT)
			assert_true(readable(server, WAIT_MS));
		else
			assert_true(counter_passes("stranger", 0)); /* shut, and bound to nobody */
		close(client);
		close(server);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(twenty_thousand_bindings, fresh),
		cmocka_unit_test_setup(others_are_noticed_and_undone, fresh),
		cmocka_unit_test_setup(a_restart_disturbs_nothing, fresh),
	};

	return cmocka_run_group_tests(tests, up, down);
}
