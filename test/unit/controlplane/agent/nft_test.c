/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What passes, what dies, and when: every row is traffic between namespaces. */
#include "test/unit/controlplane/agent/nft_world.h"

static void each_flow_meets_its_verdict(void **state)
{
	static const struct {
		const char *name;
		int *from, *to;
		const char *src, *dst;
		uint16_t port;
		const char *reason;
	} rows[] = {
		{"device to network, allowed", &cam, &nvr, "10.1.0.5", "10.2.0.9", 5000,
		 "forwarded"},
		{"last port of the range", &cam, &nvr, "10.1.0.5", "10.2.0.9", 5100, "forwarded"},
		{"a rule denies", &cam, &nvr, "10.1.0.5", "10.2.0.9", 5101, "denied"},
		{"no rule", &cam, &nvr, "10.1.0.5", "10.2.0.9", 4999, "denied"},
		{"IPv6 allowed", &cam, &nvr, "fd01::5", "fd02::9", 5050, "forwarded"},
		{"IPv6 denied", &cam, &nvr, "fd01::5", "fd02::9", 53, "denied"},
		{"device to device, allowed", &cam, &sensor, "10.1.0.5", "10.3.0.7", 4000,
		 "forwarded"},
		{"device to device, the other way", &sensor, &cam, "10.3.0.7", "10.1.0.5", 4000,
		 "denied"},
		{"network to device, allowed", &nvr, &cam, "10.2.0.9", "10.1.0.5", 6000,
		 "forwarded"},
		{"a device is no network", &nvr, &cam, "10.2.0.9", "10.1.0.5", 6001, "denied"},
		{"in no network", &cam, &nvr, "10.1.0.5", "10.2.0.100", 5000, "no_segment"},
		{"stranger", &cam, &nvr, "10.1.0.66", "10.2.0.9", 5000, "stranger"},
		{"stranger with a network's address", &cam, &sensor, "10.2.0.50", "10.3.0.7", 4000,
		 "stranger"},
		{"another device's address", &cam, &nvr, "10.3.0.7", "10.2.0.9", 5000, "spoofed"},
		{"a device's address from the uplink", &nvr, &sensor, "10.1.0.5", "10.3.0.7", 4000,
		 "spoofed"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int to = sock_in(*rows[i].to, SOCK_DGRAM, rows[i].dst, rows[i].port);
		int from = sock_in(*rows[i].from, SOCK_DGRAM, rows[i].src, 30000);

		assert_int_equal(sock_connect(from, rows[i].dst, rows[i].port), 0);
		expect_udp(rows[i].name, from, to, rows[i].reason);
		close(from);
		close(to);
	}
}

static void answers_pass_while_the_flow_may(void **state)
{
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 31000);

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
	assert_int_equal(sock_connect(server, "10.1.0.5", 31000), 0);
	expect_udp("before the flow", server, client, "denied"); /* nobody asked */
	expect_udp("ask", client, server, "forwarded");
	expect_udp("answer", server, client, "forwarded");
	del("10.1.0.5");
	expect_udp("revoked: answer", server, client, "no_segment");
	expect_udp("revoked: ask", client, server, "stranger");
	put(CAM4);
	expect_udp("restored", client, server, "forwarded");
	close(server);
	close(client);
}

static void revocation_stops_established_tcp(void **state)
{
	static const struct {
		const char *src, *dst;
	} rows[] = {{"10.1.0.5", "10.2.0.9"}, {"fd01::5", "fd02::9"}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t stranger, lost;
		int client, server;

		pair_tcp(&client, &server, rows[i].src, rows[i].dst,
			 (uint16_t)(32000 + now_ms() % 9000));
		stranger = counter("stranger");
		lost = counter("no_segment");
		del(rows[i].src);
		assert_int_equal(send(client, "up", 2, 0), 2);
		assert_int_equal(send(server, "down", 4, 0), 4);
		assert_true(counter_passes("stranger", stranger));
		assert_true(counter_passes("no_segment", lost));
		assert_false(readable(server, 0));
		assert_false(readable(client, 0));
		put(i == 0 ? CAM4 : CAM6);
		assert_true(readable(server, WAIT_MS)); /* TCP sends it again */
		assert_true(readable(client, WAIT_MS));
		close(client);
		close(server);
	}
}

static void policy_and_segment_change_together(void **state)
{
	struct nft_binding moved = CAM4;
	int client, server;
	uint64_t before;

	(void)state;
	pair_tcp(&client, &server, "10.1.0.5", "10.2.0.9", 42000);
	moved.segment = SEG_SENSORS;
	before = counter("denied");
	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_begin(n), -EBUSY);
	entry_add(SEG_SENSORS, NET_NVR, 17, 1, 1, POLICY_ALLOW);
	put_form();
	assert_int_equal(nft_put_binding(n, &moved), 0);
	assert_int_equal(send(client, "a", 1, 0), 1);
	assert_true(readable(server, WAIT_MS)); /* prepared is not in force */
	drain(server);
	assert_int_equal(nft_commit(n, &err), 0);
	assert_int_equal(send(client, "b", 1, 0), 1);
	assert_true(counter_passes("denied", before));
	assert_false(readable(server, 0));

	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_put_binding(n, &(struct nft_binding){.ip = moved.ip}), -EINVAL);
	moved = CAM4;
	assert_int_equal(nft_put_binding(n, &moved), 0);
	nft_abort(n);
	before = counter("denied");
	assert_true(counter_passes("denied", before)); /* TCP tries on, against the old state */

	/* Two ranges that overlap: the kernel refuses, and nothing of the batch happens. */
	assert_int_equal(nft_begin(n), 0);
	range_add("10.2.0.50", "10.2.0.150", NET_ALL);
	put_form();
	assert_int_equal(nft_put_binding(n, &moved), 0);
	assert_true(nft_commit(n, &err) < 0);
	assert_non_null(strstr(err.msg, "network4"));
	before = counter("denied");
	assert_true(counter_passes("denied", before));
	put(CAM4);
	assert_true(readable(server, WAIT_MS));
	close(client);
	close(server);
}

/* Only what differs is sent to the kernel: each of these policies is put over the one before. */
static void policies_follow_each_other(void **state)
{
	static const struct {
		const char *name;
		uint16_t lo, hi;
		uint8_t action;
		const char *at5000, *at5100;
	} rows[] = {
		{"as it was", 5000, 5100, POLICY_ALLOW, "forwarded", "forwarded"},
		{"narrower", 5050, 5100, POLICY_ALLOW, "denied", "forwarded"},
		{"other end", 5000, 5099, POLICY_ALLOW, "forwarded", "denied"},
		{"denied", 5000, 5100, POLICY_DENY, "denied", "denied"},
		{"still denied", 5000, 5100, POLICY_DENY, "denied", "denied"},
		{"wider", 4900, 5100, POLICY_ALLOW, "forwarded", "forwarded"},
	};
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 38000);
	int at5000 = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int at5100 = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5100);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (uint32_t k = 0; k < form.f.n_entries; k++) {
			struct policy_entry *e = &form.entries[k];

			if (e->from != SEG_CAMERAS || e->to != NET_NVR || e->proto != 17 ||
			    e->port_lo > 5100)
				continue;
			e->port_lo = rows[i].lo;
			e->port_hi = rows[i].hi;
			e->action = rows[i].action;
		}
		assert_int_equal(nft_begin(n), 0);
		put_form();
		assert_int_equal(nft_commit(n, &err), 0);
		assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
		expect_udp(rows[i].name, client, at5000, rows[i].at5000);
		assert_int_equal(sock_connect(client, "10.2.0.9", 5100), 0);
		expect_udp(rows[i].name, client, at5100, rows[i].at5100);
	}
	close(client);
	close(at5000);
	close(at5100);
}

/* Before the guard has heard of it: the difference to the policy in force does not fit what stands there. */
static void a_policy_comes_over_elements_that_others_changed(void **state)
{
	static const char *const rows[] = {
		"flush map inet sallyport verdicts",
		"add element inet sallyport verdicts { 1 . 7 . 17 . 4992-4995 : goto pass }",
		"flush map inet sallyport network4; flush map inet sallyport verdicts",
	};
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 39000);
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	char command[256];

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (uint16_t lo = 4990; lo <= 5000; lo += 10) {
			for (uint32_t k = 0; k < form.f.n_entries; k++) {
				struct policy_entry *e = &form.entries[k];

				if (e->from == SEG_CAMERAS && e->to == NET_NVR && e->proto == 17 &&
				    e->port_lo <= 5100)
					e->port_lo = lo;
			}
			if (lo == 4990) {
				snprintf(command, sizeof(command), "nft '%s'", rows[i]);
				assert_int_equal(system(command), 0);
			}
			assert_int_equal(nft_begin(n), 0);
			put_form();
			if (nft_commit(n, &err) < 0)
				fail_msg("%s: %s", rows[i], err.msg);
		}
		/* What is not the difference's is the guard's to repair. */
		if (strstr(rows[i], "network4") != NULL)
			assert_int_equal(nft_restore(n, &err), 0);
		expect_udp(rows[i], client, server, "forwarded");
	}
	close(client);
	close(server);
}

static void nothing_passes_without_lease(void **state)
{
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 33000);
	uint64_t end = now_ms() + 1000;

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
	expect_udp("alive", client, server, "forwarded");
	assert_int_equal(nft_heartbeat(n, 0, &err), 0);
	expect_udp("shut", client, server, "no_lease");
	assert_int_equal(nft_heartbeat(n, 1, &err), 0);
	expect_udp("alive again", client, server, "forwarded");
	assert_int_equal(poll(NULL, 0, (int)(end + 100 - now_ms())), 0);
	while (counter("no_lease") < 2) {
		assert_true(now_ms() < end + 2000);
		assert_int_equal(send(client, "x", 1, 0), 1);
		assert_int_equal(poll(NULL, 0, 20), 0);
	}
	assert_int_equal(nft_restore(n, &err), 0);
	expect_udp("a restore renews no lease", client, server, "no_lease");
	close(server);
	close(client);
}

static void bindings_expire_by_themselves(void **state)
{
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 34000);
	struct nft_binding b = CAM4;
	uint64_t end = now_ms() + 700, before;

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5000), 0);
	b.expires_ms = clock_boot_ms() + 700;
	put(b);
	expect_udp("not yet", client, server, "forwarded");
	before = counter("stranger");
	while (counter("stranger") == before) {
		assert_true(now_ms() < end + 2000);
		assert_int_equal(send(client, "x", 1, 0), 1);
		assert_int_equal(poll(NULL, 0, 20), 0);
	}
	assert_true(now_ms() >= end);
	put(CAM4); /* the old element is gone in the kernel, and still known here */
	expect_udp("extended", client, server, "forwarded");
	b.expires_ms = clock_boot_ms() - 1;
	put(b);
	expect_udp("put in the past", client, server, "stranger");
	close(server);
	close(client);
}

static void a_stranger_reaches_the_listener_only(void **state)
{
	static const struct {
		const char *name, *src, *dst;
		uint16_t port;
		const char *reason;
	} rows[] = {
		{"listener", "10.1.0.66", "10.1.0.1", 8883, "to_box"},
		{"listener, IPv6", "fd01::66", "fd01::1", 8883, "to_box"},
		{"listener of the stack", "10.1.0.66", "10.1.0.1", 8884, "stack"},
		{"listener of the stack, IPv6", "fd01::66", "fd01::1", 8884, "stack"},
		{"listener of the stack, bound device", "10.1.0.5", "10.1.0.1", 8884, "stack"},
		{"listener's port on another address", "10.1.0.66", "10.3.0.1", 8883, "stranger"},
		{"ssh", "10.1.0.66", "10.1.0.1", 22, "stranger"},
		{"bound device, listener", "10.1.0.5", "10.1.0.1", 8883, "to_box"},
		{"bound device, ssh", "10.1.0.5", "10.1.0.1", 22, "denied"},
		{"spoofed, even to the listener", "10.3.0.7", "10.1.0.1", 8883, "spoofed"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t before = counter(rows[i].reason);
		socklen_t len;
		struct sockaddr_storage ss = sock_addr(rows[i].src, 0, &len);
		int fd, on = 1;

		world_enter(cam);
		fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		world_enter(world_gateway);
		setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, sizeof(on));
		assert_int_equal(bind(fd, (void *)&ss, len), 0);
		sock_connect(fd, rows[i].dst, rows[i].port);
		if (!counter_passes(rows[i].reason, before))
			fail_msg("%s: not %s", rows[i].name, rows[i].reason);
		close(fd);
	}
	assert_int_equal(sh_in(cam, "ping -q -c1 -W2 -I 10.1.0.66 10.1.0.1 >/dev/null"), 0);
	assert_int_equal(sh_in(cam, "ping -q -c1 -W2 -I 10.1.0.5 10.2.0.9 >/dev/null"), 0);
	assert_int_equal(sh_in(cam, "ping -6 -q -c1 -W2 -I fd01::5 fd02::9 >/dev/null"), 0);
	assert_int_not_equal(sh_in(cam, "ping -q -c1 -W1 -I 10.1.0.66 10.2.0.9 >/dev/null"), 0);
	assert_int_not_equal(sh_in(nvr, "ping -q -c1 -W1 10.1.0.5 >/dev/null"), 0);
}

static uint16_t checksum(const uint8_t *data, size_t bytes)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes; i += 2)
		sum += (uint32_t)(data[i] << 8 | data[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void icmp_errors_belong_to_their_flow(void **state)
{
	/* "port unreachable" for 10.1.0.5:35000 > 10.2.0.9:5099 */
	uint8_t unreach[36] = {
		3, 3, [8] = 0x45, [11] = 29,  [16] = 64,    [17] = 17, [20] = 10,   1, 0, 5, 10,
		2, 0, 9,	  35000 >> 8, 35000 & 0xff, 5099 >> 8, 5099 & 0xff, 0, 9};
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 35000), raw;
	uint16_t sum;
	uint64_t before;
	char c;

	(void)state;
	assert_int_equal(sock_connect(client, "10.2.0.9", 5099), 0); /* nobody listens */
	assert_int_equal(send(client, "x", 1, 0), 1);
	assert_true(readable(client, WAIT_MS));
	assert_int_equal(recv(client, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNREFUSED);

	sum = checksum(unreach + 8, 20);
	memcpy(unreach + 18, &sum, 2);
	sum = checksum(unreach, sizeof(unreach));
	memcpy(unreach + 2, &sum, 2);
	world_enter(nvr);
	raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
	world_enter(world_gateway);
	assert_int_equal(sock_connect(raw, "10.1.0.5", 0), 0);
	before = counter("forwarded");
	assert_int_equal(send(raw, unreach, sizeof(unreach), 0), sizeof(unreach));
	assert_true(counter_passes("forwarded", before));
	assert_true(readable(client, WAIT_MS));
	assert_int_equal(recv(client, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNREFUSED);
	del("10.1.0.5");
	before = counter("no_segment");
	assert_int_equal(send(raw, unreach, sizeof(unreach), 0), sizeof(unreach));
	assert_true(counter_passes("no_segment", before));
	assert_false(readable(client, 0));
	close(raw);
	close(client);
}

static void raw_frames_are_dropped(void **state)
{
	uint64_t before = counter("raw");
	int fd = sock_in(nvr, SOCK_DGRAM, "10.9.0.2", 1000);

	(void)state;
	assert_int_equal(sock_connect(fd, "10.9.0.1", 8883), 0);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_true(counter_passes("raw", before));
	close(fd);
}

static void translated_flows_are_refused(void **state)
{
	int server = sock_in(nvr, SOCK_DGRAM, "10.2.0.9", 5000);
	int client = sock_in(cam, SOCK_DGRAM, "10.1.0.5", 37000);

	(void)state;
	assert_int_equal(sh("nft 'table ip lab { chain c { type nat hook prerouting priority -100; "
			    "ip daddr 10.2.0.77 dnat to 10.2.0.9; }; }'"),
			 0);
	assert_int_equal(sock_connect(client, "10.2.0.77", 5000), 0);
	expect_udp("allowed by its first address", client, server, "translated");
	assert_int_equal(sh("nft delete table ip lab"), 0);
	close(server);
	close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(each_flow_meets_its_verdict, fresh),
		cmocka_unit_test_setup(answers_pass_while_the_flow_may, fresh),
		cmocka_unit_test_setup(revocation_stops_established_tcp, fresh),
		cmocka_unit_test_setup(policy_and_segment_change_together, fresh),
		cmocka_unit_test_setup(policies_follow_each_other, fresh),
		cmocka_unit_test_setup(a_policy_comes_over_elements_that_others_changed, fresh),
		cmocka_unit_test_setup(nothing_passes_without_lease, fresh),
		cmocka_unit_test_setup(bindings_expire_by_themselves, fresh),
		cmocka_unit_test_setup(a_stranger_reaches_the_listener_only, fresh),
		cmocka_unit_test_setup(icmp_errors_belong_to_their_flow, fresh),
		cmocka_unit_test_setup(raw_frames_are_dropped, fresh),
		cmocka_unit_test_setup(translated_flows_are_refused, fresh),
	};

	return cmocka_run_group_tests(tests, up, down);
}
