/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nft_world: the kernel plane on real traffic: a gateway with a device port, a kernel-only device port and an uplink,
 * a policy, bindings, and how a test sees what became of a packet. */
#pragma once

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
	struct policy_rule rules[2048];
} form;

static inline void range_add(const char *lo, const char *hi, uint16_t endpoint)
{
	struct policy_range *r = &form.ranges[form.f.n_ranges++];

	assert_int_equal(ip_addr_parse(&r->lo, lo), 0);
	assert_int_equal(ip_addr_parse(&r->hi, hi), 0);
	r->endpoint = endpoint;
}

static inline void entry_add(uint16_t from, uint16_t to, uint8_t proto, uint16_t lo, uint16_t hi,
			     uint8_t action)
{
	form.entries[form.f.n_entries++] = (struct policy_entry){.from = from,
								 .to = to,
								 .proto = proto,
								 .port_lo = lo,
								 .port_hi = hi,
								 .action = action};
}

static inline void form_base(void)
{
	memset(&form, 0, sizeof(form));
	form.f.bytes = sizeof(form);
	form.f.off_ranges = offsetof(typeof(form), ranges);
	form.f.off_entries = offsetof(typeof(form), entries);
	form.f.off_rules = offsetof(typeof(form), rules);
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

static inline int entry_cmp(const void *a, const void *b)
{
	const struct policy_entry *x = a, *y = b;

	if (x->from != y->from)
		return x->from - y->from;
	if (x->to != y->to)
		return x->to - y->to;
	return x->proto != y->proto ? x->proto - y->proto : x->port_lo - y->port_lo;
}

static inline void put_form(void)
{
	qsort(form.entries, form.f.n_entries, sizeof(form.entries[0]), entry_cmp);
	assert_int_equal(nft_put_policy(n, &form.f), 0);
}

static inline struct nft_binding binding(const char *ip, const char *mac, const char *ifname,
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

static inline void put(struct nft_binding b)
{
	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_put_binding(n, &b), 0);
	assert_int_equal(nft_commit(n, &err), 0);
}

static inline void del(const char *ip)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, ip), 0);
	assert_int_equal(nft_begin(n), 0);
	assert_int_equal(nft_del_binding(n, &a), 0);
	assert_int_equal(nft_commit(n, &err), 0);
}

/* Everything as every test finds it. */
static inline int fresh(void **state)
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

static inline void count_one(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	struct count *c = arg;

	(void)bytes;
	if (strcmp(name, c->name) == 0)
		c->packets = packets;
}

static inline uint64_t counter(const char *name)
{
	struct count c = {name, UINT64_MAX};

	assert_int_equal(nft_counters(n, count_one, &c), 0);
	assert_true(c.packets != UINT64_MAX);
	return c.packets;
}

static inline bool counter_passes(const char *name, uint64_t before)
{
	uint64_t end = now_ms() + WAIT_MS;

	while (counter(name) <= before)
		if (now_ms() > end || poll(NULL, 0, 5) != 0)
			return false;
	return true;
}

static inline void drain(int fd)
{
	char buf[2048];

	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
}

/* One datagram: does it arrive (and `forwarded` count it), or die under this counter? */
static inline void expect_udp(const char *row, int from, int to, const char *reason)
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

static inline void pair_tcp(int *client, int *server, const char *src, const char *dst,
			    uint16_t sport)
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

/* ---- the world ---- */

static inline void configure(void)
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
	for (int i = 0; i < 4; i++) {
		ip_addr_parse(&cfg.listeners[i].addr, i % 2 == 0 ? "10.1.0.1" : "fd01::1");
		cfg.listeners[i].port = i < 2 ? 8883 : 8884;
		cfg.listeners[i].transport = i < 2 ? GW_SOCKET : GW_STACK;
	}
	cfg.n_listeners = 4;
}

static inline int up(void **state)
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

static inline int down(void **state)
{
	(void)state;
	nft_free(n);
	nft_free(NULL);
	close(cam);
	close(nvr);
	close(sensor);
	return 0;
}
