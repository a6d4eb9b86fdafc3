/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rates of rules on the kernel path: every row is traffic between namespaces. */
#include "test/unit/controlplane/agent/nft_world.h"

#define OFFERED 40
#define CAMERA_PORT 5000

/* Rule 0 is without a rate, rule 1 has this one; the entry of this port is under rule 1. */
static void policy(const char *name, const struct policy_limits *l)
{
	form_base();
	form.f.n_rules = 2;
	strcpy(form.rules[0].name, "free");
	strcpy(form.rules[1].name, name);
	if (l != NULL)
		form.rules[1].limits = *l;
	for (uint32_t i = 0; i < form.f.n_entries; i++)
		form.entries[i].rule = form.entries[i].port_lo == CAMERA_PORT;
	assert_int_equal(nft_begin(n), 0);
	put_form();
	assert_int_equal(nft_commit(n, &err), 0);
}

static const struct policy_limits by_packets = {.packets_per_s = 1, .burst_packets = 10};
static const struct policy_limits by_packets2 = {.packets_per_s = 2, .burst_packets = 10};
static const struct policy_limits by_bytes = {.bytes_per_s = 1000, .burst_bytes = 9216};

/* Datagrams that arrive, of OFFERED in one go. Waits until each is either there or counted. */
static unsigned arrive(const char *src, const char *dst, uint16_t port, size_t bytes)
{
	static char data[1400];
	int to = sock_in(nvr, SOCK_DGRAM, dst, port), from = sock_in(cam, SOCK_DGRAM, src, 30000);
	uint64_t before = counter("rate") + counter("forwarded"), end = now_ms() + WAIT_MS;
	unsigned got = 0;
	char buf[2048];

	assert_int_equal(sock_connect(from, dst, port), 0);
	for (unsigned i = 0; i < OFFERED; i++)
		assert_int_equal(send(from, data, bytes, 0), (ssize_t)bytes);
	while (counter("rate") + counter("forwarded") < before + OFFERED && now_ms() < end)
		poll(NULL, 0, 5);
	assert_int_equal(counter("rate") + counter("forwarded"), before + OFFERED);
	while (readable(to, got == 0 ? 100 : 20) && recv(to, buf, sizeof(buf), 0) > 0)
		got++;
	close(from);
	close(to);
	return got;
}

static void a_rate_is_kept(void **state)
{
	uint64_t before = counter("rate");
	unsigned got;

	(void)state;
	policy("video", &by_packets);
	got = arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10);
	assert_in_range(got, 10, 12);
	assert_int_equal(counter("rate") - before, OFFERED - got);
	/* one rate for the rule's flows, of both families and all ports */
	assert_in_range(arrive("fd01::5", "fd02::9", CAMERA_PORT + 50, 10), 0, 1);
	/* a kernel that fills a second's worth beside the burst lets two packets more pass than 10,216 bytes hold */
	policy("video", &by_bytes);
	assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 1372), 6, 9);
}

static void other_rules_do_not_notice(void **state)
{
	int client, server;

	(void)state;
	policy("video", &by_packets);
	arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10);
	for (int i = 0; i < 3; i++) {
		pair_tcp(&client, &server, "10.1.0.5", "10.2.0.9", (uint16_t)(33000 + i));
		close(client);
		close(server);
	}
	policy("video", NULL);
	assert_int_equal(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), OFFERED);
}

/* A rule that stays keeps its bucket; one that changes gets another; one that goes leaves nothing behind. */
static void policies_change_over(void **state)
{
	(void)state;
	policy("video", &by_packets);
	arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10);
	policy("video", &by_packets);
	assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), 0, 2);
	policy("video", &by_packets2);
	assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), 10, 13);
	policy("line 12", &by_packets2);
	assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), 10, 13);
	assert_int_equal(sh("nft list limits table inet sallyport | grep -q p-line-12-2-10"), 0);
	assert_int_not_equal(sh("nft list limits table inet sallyport | grep -q p-video"), 0);
	/* the whole table can be read, and is as it should be */
	assert_int_equal(sh("nft list table inet sallyport | grep -q @packet_rates"), 0);
	assert_int_equal(nft_verify(n, &err), 0);
	policy("line 12", NULL);
	assert_int_not_equal(sh("nft list limits table inet sallyport | grep -q p-"), 0);
}

static void many_rules_have_rates(void **state)
{
	enum { MANY = 2000 };

	(void)state;
	form_base();
	form.f.n_rules = MANY;
	for (int i = 0; i < MANY; i++) {
		snprintf(form.rules[i].name, sizeof(form.rules[i].name), "r%d", i);
		form.rules[i].limits = by_packets;
		entry_add(SEG_CAMERAS, (uint16_t)(100 + i / 100), 6, (uint16_t)(i % 100 * 10),
			  (uint16_t)(i % 100 * 10 + 5), POLICY_ALLOW);
		form.entries[form.f.n_entries - 1].rule = (uint16_t)i;
	}
	for (int round = 0; round < 2; round++) { /* over none; with one changed */
		uint64_t took = now_ms();

		form.rules[7].limits.packets_per_s++;
		assert_int_equal(nft_begin(n), 0);
		put_form();
		if (nft_commit(n, &err) != 0)
			fail_msg("%s", err.msg);
		took = now_ms() - took;
		print_message("%d rules with rates, round %d: %llu ms\n", MANY, round,
			      (unsigned long long)took);
		assert_true(took < 10000);
	}
}

static void a_restored_table_has_the_rates(void **state)
{
	(void)state;
	policy("video", &by_packets);
	assert_int_equal(nft_restore(n, &err), 0);
	assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), 10, 12);
	/* and an agent that starts again on an intact table does not trip over what is there */
	{
		enum nft_found found;
		const struct nft_binding all[] = {CAM4, CAM6, SENSOR4};

		nft_free(n);
		assert_int_equal(nft_new(&n, &cfg, &found, &err), 0);
		assert_int_equal(found, NFT_FOUND_INTACT);
		assert_int_equal(nft_begin(n), 0);
		put_form();
		assert_int_equal(nft_put_all_bindings(n, all, 3), 0);
		assert_int_equal(nft_commit(n, &err), 0);
		assert_in_range(arrive("10.1.0.5", "10.2.0.9", CAMERA_PORT, 10), 0, 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_rate_is_kept, fresh),
		cmocka_unit_test_setup(other_rules_do_not_notice, fresh),
		cmocka_unit_test_setup(policies_change_over, fresh),
		cmocka_unit_test_setup(many_rules_have_rates, fresh),
		cmocka_unit_test_setup(a_restored_table_has_the_rates, fresh),
	};

	return cmocka_run_group_tests(tests, up, down);
}
