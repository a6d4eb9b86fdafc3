/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The kernel plane on real traffic: a gateway with a device port, a kernel-only device port and an uplink. */
#include "test/unit/controlplane/agent/net_world.h"

#include "config/base/clock.h"
#include "controlplane/agent/nft.h"

enum { SEG_CAMERAS = 1, SEG_SENSORS = 2, NET_NVR = 7, NET_ALL = 8 };

static struct gw_config cfg;
static struct nft *n;
static int cam, sensor, nvr; /* hosts */
static struct err err;

/* ---- a policy ---- */

static struct {
	struct policy_form f;
	struct policy_range ranges[8];
	struct policy_entry entries[4096];
} form;

static void range_add(const char *lo, const char *hi, uint16_t endpoint)
{
	struct policy_range *r = &form.ranges[form.f.n_ranges++];

	assert_int_equal(ip_addr_parse(&r->lo, lo), 0);
	assert_int_equal(ip_addr_parse(&r->hi, hi), 0);
	r->endpoint = endpoint;
}

static void entry_add(uint16_t from, uint16_t to, uint8_t proto, uint16_t lo, uint16_t hi,
		      uint8_t action)
{
	form.entries[form.f.n_entries++] = (struct policy_entry){.from = from,
								 .to = to,
								 .proto = proto,
								 .port_lo = lo,
								 .port_hi = hi,
								 .action = action};
}

static void form_base(void)
{
	memset(&form, 0, sizeof(form));
	form.f.bytes = sizeof(form);
	form.f.off_ranges = offsetof(typeof(form), ranges);
	form.f.off_entries = offsetof(typeof(form), entries);
	range_add("10.0.0.0", "10.1.255.255", NET_ALL); /* a device's address lies in it */
	range_add("10.2.0.0", "10.2.0.99", NET_NVR);
	range_add("fd02::", "fd02::ffff", NET_NVR);
	entry_add(SEG_CAMERAS, SEG_SENSORS, 17, 4000, 4000, POLICY_ALLOW);
	entry_add(SEG_CAMERAS, NET_NVR, 1, 8, 8, POLICY_ALLOW);
	entry_add(SEG_CAMERAS, NET_NVR, 6, 554, 554, POLICY_ALLOW);
	entry_add(SEG_CAMERAS, NET_NVR, 17, 5000, 5100, POLICY_ALLOW);
	entry_add(SEG_CAMERAS, NET_NVR, 17, 5101, 5200, POLICY_DENY);
	entry_add(SEG_CAMERAS, NET_NVR, 58, 128, 128, POLICY_ALLOW);
	entry_add(SEG_SENSORS, NET_ALL, 17, 1, 65535,
		  POLICY_ALLOW); /* networks, not devices that lie in them */
	entry_add(NET_NVR, NET_ALL, 17, 1, 65535, POLICY_ALLOW);
	entry_add(NET_NVR, SEG_CAMERAS, 17, 6000, 6000, POLICY_ALLOW);
}

static int entry_cmp(const void *a, const void *b)
{
	const struct policy_entry *x = a, *y = b;

	if (x->from != y->from)
		return x->from - y->from;
	if (x->to != y->to)
		return x->to - y->to;
	return x->proto != y->proto ? x->proto - y->proto : x->port_lo - y->port_lo;
}

static void put_form(void)
{
	qsort(form.entries, form.f.n_entries, sizeof(form.entries[0]), entry_cmp);
	assert_int_equal(nft_put_policy(n, &form.f), 0);
}

static struct nft_binding binding(const char *ip, const char *mac, const char *ifname,
				  uint16_t segment)
{
	struct nft_binding b = {.segment = segment, .expires_ms = clock_boot_ms() + 600000};

	assert_int_equal(ip_addr_parse(&b.ip, ip), 0);
	assert_int_equal(mac_addr_parse(&b.mac, mac), 0);
	snprintf(b.ifname, sizeof(b.ifname), "%s", ifname);
	return b;
}

#define CAM4 binding("10.1.0.5", "02:00:00:00:00:05", "sp-dev", SEG_CAMERAS)
#define CAM6 binding("fd01::5", "02:00:00:00:00:05", "sp-dev", SEG_CAMERAS)
#define SENSOR4 binding("10.3.0.7", "02:00:00:00:00:07", "wl0", SEG_SENSORS)

static void put(struct nft_binding b)
{
	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_put_binding(n, &b), 0);
	assert_int_equal(nft_commit(n, &err), 0);
}

static void del(const char *ip)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, ip), 0);
	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_del_binding(n, &a), 0);
	assert_int_equal(nft_commit(n, &err), 0);
}

/* Everything as every test finds it. */
static int fresh(void **state)
{
	const struct nft_binding all[] = {CAM4, CAM6, SENSOR4};
	struct nft_tamper t;

	(void)state;
	form_base();
	nft_abort(n);
	assert_int_equal(nft_dispatch(n, &t), 0);
	assert_int_equal(nft_restore(n, &err), 0);
	assert_int_equal(nft_begin(n), 0);
	put_form();
	assert_int_equal(nft_put_all_bindings(n, all, 3), 0);
	assert_int_equal(nft_commit(n, &err), 0);
	assert_int_equal(nft_heartbeat(n, 60, &err), 0);
	return 0;
}

/* ---- observing ---- */

struct count {
	const char *name;
	uint64_t packets;
};

static void count_one(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	struct count *c = arg;

	(void)bytes;
	if (strcmp(name, c->name) == 0)
		c->packets = packets;
}

static uint64_t counter(const char *name)
{
	struct count c = {name, UINT64_MAX};

	assert_int_equal(nft_counters(n, count_one, &c), 0);
	assert_true(c.packets != UINT64_MAX);
	return c.packets;
}

static bool counter_passes(const char *name, uint64_t before)
{
	uint64_t end = now_ms() + WAIT_MS;

	while (counter(name) <= before)
		if (now_ms() > end || poll(NULL, 0, 5) != 0)
			return false;
	return true;
}

static void drain(int fd)
{
	char buf[2048];

	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
}

/* One datagram: does it arrive (and `forwarded` count it), or die under this counter? */
static void expect_udp(const char *row, int from, int to, const char *reason)
{
	uint64_t before = counter(reason);

	drain(to);
	if (send(from, "x", 1, 0) != 1) /* an ICMP error of before */
		assert_int_equal(send(from, "x", 1, 0), 1);
	if (!counter_passes(reason, before))
		fail_msg("%s: nothing counted as %s", row, reason);
	if (readable(to, strcmp(reason, "forwarded") == 0 ? WAIT_MS : 0) !=
	    (strcmp(reason, "forwarded") == 0))
		fail_msg("%s: arrived, or did not, against %s", row, reason);
}

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

static void pair_tcp(int *client, int *server, const char *src, const char *dst, uint16_t sport)
{
	int listener = sock_in(nvr, SOCK_STREAM, dst, 554);
	socklen_t len;
	struct sockaddr_storage ss = sock_addr(src, sport, &len);

	world_enter(cam);
	*client = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	world_enter(world_gateway);
	assert_int_equal(bind(*client, (void *)&ss, len), 0);
	assert_int_equal(sock_connect(*client, dst, 554), -1);
	assert_int_equal(errno, EINPROGRESS);
	assert_true(readable(listener, WAIT_MS));
	*server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(*server >= 0);
	assert_int_equal(send(*client, "hello", 5, 0), 5);
	assert_true(readable(*server, WAIT_MS));
	drain(*server);
	close(listener);
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

/* ---- the world ---- */

static void configure(void)
{
	static const struct {
		const char *tap, *raw;
		uint8_t side;
	} rows[] = {{"sp-dev", "", PORT_DEVICE},
		    {"sp-up", "xraw", PORT_UPLINK},
		    {"wl0", "", PORT_DEVICE}};

	for (size_t i = 0; i < 3; i++) {
		struct gw_port *p = &cfg.ports[cfg.n_ports++];

		strcpy(p->tap, rows[i].tap);
		strcpy(p->raw, rows[i].raw);
		p->side = rows[i].side;
		p->untagged = true;
	}
	cfg.strangers = STRANGER_PING;
	for (int i = 0; i < 2; i++) {
		ip_addr_parse(&cfg.listeners[i].addr, i == 0 ? "10.1.0.1" : "fd01::1");
		cfg.listeners[i].port = 8883;
	}
	cfg.n_listeners = 2;
}

static int up(void **state)
{
	(void)state;
	world_gateway = world_new();
	cam = world_host("sp-dev", "02:00:00:00:00:05");
	nvr = world_host("sp-up", "02:00:00:00:00:09");
	sensor = world_host("wl0", "02:00:00:00:00:07");
	assert_int_equal(sh("ip link add xraw type veth peer name xhost netns /proc/%d/fd/%d && ip "
			    "link set xraw up",
			    getpid(), nvr),
			 0);
	assert_int_equal(
		sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 "
		   ">/proc/sys/net/ipv6/conf/all/forwarding; "
		   "ip addr add 10.1.0.1/16 dev sp-dev; ip addr add fd01::1/64 dev sp-dev nodad; "
		   "ip addr add 10.2.0.1/24 dev sp-up; ip addr add fd02::1/64 dev sp-up nodad; "
		   "ip addr add 10.3.0.1/24 dev wl0; ip addr add 10.9.0.1/24 dev xraw; "
		   "for i in all sp-dev sp-up wl0; do echo 0 "
		   ">/proc/sys/net/ipv4/conf/$i/rp_filter; done"),
		0);
	assert_int_equal(
		sh_in(cam,
		      "ip addr add 10.1.0.5/16 dev eth0; ip addr add 10.1.0.66/16 dev eth0; "
		      "ip addr add fd01::5/64 dev eth0 nodad; ip addr add fd01::66/64 dev eth0 "
		      "nodad; "
		      "ip route add default via 10.1.0.1; ip -6 route add default via fd01::1"),
		0);
	assert_int_equal(
		sh_in(nvr,
		      "ip addr add 10.2.0.9/24 dev eth0; ip addr add 10.2.0.100/24 dev eth0; "
		      "ip addr add fd02::9/64 dev eth0 nodad; ip link set xhost up; "
		      "ip addr add 10.9.0.2/24 dev xhost; "
		      "ip route add default via 10.2.0.1; ip -6 route add default via fd02::1"),
		0);
	assert_int_equal(
		sh_in(sensor,
		      "ip addr add 10.3.0.7/24 dev eth0; ip route add default via 10.3.0.1"),
		0);
	configure();
	assert_int_equal(nft_new(&n, &cfg, NULL, &err), 0);
	return 0;
}

static int down(void **state)
{
	(void)state;
	nft_free(n);
	nft_free(NULL);
	close(cam);
	close(nvr);
	close(sensor);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(each_flow_meets_its_verdict, fresh),
		cmocka_unit_test_setup(answers_pass_while_the_flow_may, fresh),
		cmocka_unit_test_setup(revocation_stops_established_tcp, fresh),
		cmocka_unit_test_setup(policy_and_segment_change_together, fresh),
		cmocka_unit_test_setup(policies_follow_each_other, fresh),
		cmocka_unit_test_setup(nothing_passes_without_lease, fresh),
		cmocka_unit_test_setup(bindings_expire_by_themselves, fresh),
		cmocka_unit_test_setup(a_stranger_reaches_the_listener_only, fresh),
		cmocka_unit_test_setup(icmp_errors_belong_to_their_flow, fresh),
		cmocka_unit_test_setup(raw_frames_are_dropped, fresh),
		cmocka_unit_test_setup(translated_flows_are_refused, fresh),
		cmocka_unit_test_setup(twenty_thousand_bindings, fresh),
		cmocka_unit_test_setup(others_are_noticed_and_undone, fresh),
		cmocka_unit_test_setup(a_restart_disturbs_nothing, fresh),
	};

	return cmocka_run_group_tests(tests, up, down);
}
