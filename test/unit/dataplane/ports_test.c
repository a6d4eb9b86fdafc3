/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Ports come up with the queues that suit them, fall back to one where the driver will not, and leave nothing behind.
 * In a network namespace of its own: each has a TAP interface as its shadow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <rte_ethdev.h>
#include <rte_log.h>

#include "dataplane/port_pool.h"
#include "dataplane/port_tap.h"
#include "dataplane/ports.h"
#include "test/unit/dataplane/world.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define VHOST "net_vhost0,iface=vhost.sock"

/* In place of the library's: a driver that says that it hashes and then takes no second queue. */
static int refuse_configure, refuse_start;
static unsigned refused;

int rte_eth_dev_configure(uint16_t eth, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf)
{
	int (*real)(uint16_t, uint16_t, uint16_t, const struct rte_eth_conf *);

	*(void **)&real = dlsym(RTLD_NEXT, "rte_eth_dev_configure");
	if (rx > 1 && refuse_configure != 0) {
		refused++;
		return refuse_configure;
	}
	return real(eth, rx, tx, conf);
}

int rte_eth_dev_start(uint16_t eth)
{
	int (*real)(uint16_t);
	struct rte_eth_dev_info info;

	*(void **)&real = dlsym(RTLD_NEXT, "rte_eth_dev_start");
	if (refuse_start != 0 && rte_eth_dev_info_get(eth, &info) == 0 && info.nb_rx_queues > 1) {
		refused++;
		return refuse_start;
	}
	return real(eth);
}

static const struct row {
	const char *name, *devargs;
	uint16_t workers;
	int configure, start; /* refused with */
	int ret;
	struct port_queues want; /* rss: whether */
} rows[] = {
	{"one worker", "net_null0", 1, 0, 0, 0, {0, 1, 1, false}},
	{"a queue for each of two", "net_null0", 2, 0, 0, 0, {1, 2, 2, true}},
	{"of three", "net_null0", 3, 0, 0, 0, {1, 3, 3, true}},
	{"the driver refuses when it is configured",
	 "net_null0",
	 2,
	 -ENOTSUP,
	 0,
	 0,
	 {0, 1, 1, false}},
	{"when it is started", "net_null0", 2, 0, -EIO, 0, {0, 1, 1, false}},
	{"and then takes them again", "net_null0", 2, 0, 0, 0, {1, 2, 2, true}},
	{"TAP", "net_tap0,iface=tp0", 2, 0, 0, 0, {1, 2, 2, true}},
	{"TAP, refuses", "net_tap0,iface=tp0", 2, -ENOTSUP, 0, 0, {0, 1, 1, false}},
	{"TAP, refuses to start", "net_tap0,iface=tp0", 2, 0, -EIO, 0, {0, 1, 1, false}},
	{"as devargs ask", VHOST ",queues=2", 2, 0, 0, 0, {0, 2, 2, false}},
	{"what was asked for is no wish to drop",
	 VHOST ",queues=2",
	 2,
	 -ENOTSUP,
	 0,
	 -ENOTSUP,
	 {0, 1, 1, 0}},
	{"nor at the start", VHOST ",queues=2", 2, 0, -EIO, -EIO, {0, 1, 1, 0}},
	{"more than there is room for", VHOST ",queues=40", 2, 0, 0, -EINVAL, {0, 1, 1, 0}},
	{"none of them stays behind", VHOST ",queues=2", 2, 0, 0, 0, {0, 2, 2, false}},
};

static void check_open(const struct row *r, struct port *p, const struct msg_dp_config *cfg)
{
	struct err err = {0};
	int ret;

	port_from_config(p, &cfg->ports[0]);
	refuse_configure = r->configure;
	refuse_start = r->start;
	refused = 0;
	ret = port_open(p, 0, cfg, r->workers, &err);
	if (ret != r->ret)
		fail_msg("%s: %d: %s", r->name, ret, err.msg);
	if (ret < 0)
		assert_true(err.msg[0] != '\0' && p->eth == PORT_ETH_NONE);
	assert_int_equal(refused, r->configure != 0 || r->start != 0);
	if (p->queues.rx != r->want.rx || p->queues.tx != r->want.tx ||
	    p->queues.own_tx != r->want.own_tx || (p->queues.rss != 0) != r->want.rss)
		fail_msg("%s: %u and %u queues, own %d, rss %lx", r->name, p->queues.rx,
			 p->queues.tx, p->queues.own_tx, (unsigned long)p->queues.rss);
}

static void config(struct msg_dp_config *cfg, const char *devargs)
{
	world_config(cfg);
	cfg->memory_mb = 64;
	snprintf(cfg->ports[0].devargs, sizeof(cfg->ports[0].devargs), "%s", devargs);
	snprintf(cfg->ports[0].tap, sizeof(cfg->ports[0].tap), "sp-test");
}

static void each_port_comes_up_with_its_queues(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct rte_eth_dev_info info;
		struct msg_dp_config cfg;
		uint16_t left = rte_eth_dev_count_avail();
		struct port p;
		bool wakes = rows[i].ret == 0 && (strstr(rows[i].devargs, "tap") != NULL ||
						  strstr(rows[i].devargs, "vhost") != NULL);

		config(&cfg, rows[i].devargs);
		check_open(&rows[i], &p, &cfg);
		for (uint16_t q = 0; q < PORT_QUEUES_MAX; q++)
			assert_int_equal(p.rx_fd[q] >= 0, wakes && q < p.queues.rx);
		if (rows[i].ret == 0) {
			assert_int_equal(rte_eth_dev_info_get(p.eth, &info), 0);
			assert_int_equal(info.nb_rx_queues, p.queues.rx);
			assert_int_equal(rte_eth_dev_info_get(p.tap_eth, &info), 0);
			assert_int_equal(info.nb_rx_queues, 1);
			assert_true(p.tap_fd >= 0);
			/* every queue can be polled */
			for (uint16_t q = 0; q < p.queues.rx; q++) {
				struct rte_mbuf *m[4];
				uint16_t n = rte_eth_rx_burst(p.eth, q, m, 4);

				rte_pktmbuf_free_bulk(m, n);
			}
		}
		port_close(&p);
		assert_int_equal(rte_eth_dev_count_avail(), left);
	}
}

static unsigned tap_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *e;
	unsigned n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL) {
		char path[PATH_MAX], to[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		n += readlink(path, to, sizeof(to) - 1) > 0 && strcmp(to, "/dev/net/tun") == 0;
	}
	closedir(dir);
	return n;
}

/* The kernel goes on to spread over every queue that is open: one that nobody reads would lose packets. */
static void a_queue_that_is_not_used_is_closed(void **state)
{
	static const struct row open[] = {
		{"one worker", "net_tap0,iface=tp0", 1, 0, 0, 0, {0, 1, 1, false}},
		{"two", "net_tap0,iface=tp0", 2, 0, 0, 0, {1, 2, 2, true}},
		{"refuses", "net_tap0,iface=tp0", 2, -ENOTSUP, 0, 0, {0, 1, 1, false}},
		{"refuses to start", "net_tap0,iface=tp0", 2, 0, -EIO, 0, {0, 1, 1, false}},
	};
	unsigned n[COUNT(open)], before = tap_descriptors();

	(void)state;
	for (size_t i = 0; i < COUNT(open); i++) {
		struct msg_dp_config cfg;
		struct port p;

		config(&cfg, open[i].devargs);
		check_open(&open[i], &p, &cfg);
		n[i] = tap_descriptors();
		port_close(&p);
		assert_int_equal(tap_descriptors(), before);
	}
	assert_true(n[0] > before && n[1] > n[0]);
	assert_int_equal(n[2], n[0]);
	assert_int_equal(n[3], n[0]);
}

static int mtu_of(const char *interface)
{
	struct ifreq ifr = {0};
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
	assert_int_equal(ioctl(s, SIOCGIFMTU, &ifr), 0);
	close(s);
	return ifr.ifr_mtu;
}

/* The kernel's end of a TAP. */
static int packet_socket(const char *interface)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct timeval second = {.tv_sec = 1};
	struct ifreq ifr = {0};
	int s = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	at.sll_ifindex = (int)if_nametoindex(interface);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
	ifr.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, &ifr), 0);
	assert_int_equal(bind(s, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second)), 0);
	return s;
}

/* @return the first frame from the kernel that is as large; others are the kernel's own (ND) */
static struct rte_mbuf *frame_from(uint16_t eth, uint16_t bytes)
{
	for (int i = 0; i < 1000; i++) {
		struct rte_mbuf *m;

		if (rte_eth_rx_burst(eth, 0, &m, 1) == 0)
			usleep(1000);
		else if (rte_pktmbuf_pkt_len(m) == bytes)
			return m;
		else
			rte_pktmbuf_free(m);
	}
	return NULL;
}

static bool frame_to(int s, uint16_t bytes)
{
	uint8_t frame[16384];
	ssize_t n;

	do {
		n = recv(s, frame, sizeof(frame), 0);
	} while (n > 0 && n != bytes);
	return n == bytes;
}

/* Past the driver, which sends nothing above its 1,518 bytes; small and large ones in their order. */
static void a_tap_carries_what_its_mtu_says(void **state)
{
	static const uint16_t sizes[] = {60, 1518, 1519, 9014, 100};
	struct rte_mbuf *m, *out[COUNT(sizes)];
	uint8_t frame[9014] = {0};
	struct msg_dp_config cfg;
	struct err err = {0};
	struct port p;
	int s;

	(void)state;
	memset(frame, 0xff, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5; /* for experiments */
	config(&cfg, "net_tap0,iface=tp0");
	cfg.ports[0].mtu_bytes = 9000;
	port_from_config(&p, &cfg.ports[0]);
	assert_int_equal(port_open(&p, 0, &cfg, 1, &err), 0);
	s = packet_socket("tp0");
	assert_int_equal(send(s, frame, sizeof(frame), 0), sizeof(frame));
	m = frame_from(p.eth, sizeof(frame));
	assert_non_null(m);
	assert_int_equal(m->nb_segs, 1);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		out[i] = rte_pktmbuf_alloc(m->pool);
		memcpy(rte_pktmbuf_append(out[i], sizes[i]), frame, sizes[i]);
	}
	rte_pktmbuf_free(m);
	assert_int_equal(port_tap_send(p.eth, p.large_fd, 0, out, COUNT(sizes)), COUNT(sizes));
	for (size_t i = 0; i < COUNT(sizes); i++)
		assert_true(frame_to(s, sizes[i]));
	close(s);
	port_close(&p);
}

/* Memory is counted for what there is: frames of 1,500 bytes have no large buffers. */
static void buffers_are_as_large_as_the_port_needs(void **state)
{
	static const struct {
		const char *devargs;
		uint16_t mtu_bytes;
		bool large;
	} ports[] = {
		{"net_tap0,iface=tp0", 1500, false}, {"net_af_xdp0,iface=x", 1500, false},
		{"net_memif0", 2000, false},	     {"net_memif0,bsize=9000", 1500, true},
		{"net_null0", 9000, true},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(ports); i++) {
		struct rte_mempool *pool = NULL;
		struct msg_dp_config cfg;
		struct err err = {0};
		unsigned room;

		config(&cfg, ports[i].devargs);
		assert_int_equal(
			port_pool_get(&pool, &cfg, ports[i].devargs, ports[i].mtu_bytes, 1, &err),
			0);
		room = rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM;
		assert_true(room >= ports[i].mtu_bytes + 22u);
		assert_int_equal(room >= 9022, ports[i].large);
	}
}

/* A worker's stack cuts its segments by what is configured. */
static void an_mtu_holds_or_the_port_stays_away(void **state)
{
	static const struct {
		const char *devargs;
		uint16_t mtu_bytes;
		int ret;
		const char *why;
	} mtus[] = {
		{"net_tap0,iface=tp0", 1400, 0, ""},
		{VHOST, 2000, 0, ""},
		{VHOST, 9000, 0, ""},
		{"net_null0", 9000, 0, ""},
		{"net_tap0,iface=tp0", 2000, 0, ""},
		{"net_tap0,iface=tp0", 9000, 0, ""},
		{"net_memif0,role=server,socket=sallyport-ports-test", 9000, 0, ""},
		{"net_memif0,role=server,socket=sallyport-ports-test2,bsize=9216", 9000, 0, ""},
		{"net_af_packet0,iface=lo,framesz=9216,blocksz=36864", 9000, 0, ""},
		{"net_af_packet0,iface=lo", 9000, -EMSGSIZE, "framesz=9216,blocksz=36864"},
		{"net_af_packet0,iface=lo,framesz=16384,blocksz=65536", 9000, -EMSGSIZE,
		 "restart the dataplane"},
		{"net_af_xdp0,iface=lo", 9000, -EMSGSIZE,
		 "mtu = 9000: a buffer of this driver takes "},
		{"net_tap0,iface=tp0", 1500, 0, ""}, /* nothing of them stays */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(mtus); i++) {
		uint16_t left = rte_eth_dev_count_avail();
		struct msg_dp_config cfg;
		struct err err = {0};
		struct port p;

		config(&cfg, mtus[i].devargs);
		cfg.ports[0].mtu_bytes = mtus[i].mtu_bytes;
		port_from_config(&p, &cfg.ports[0]);
		assert_int_equal(port_open(&p, 0, &cfg, 1, &err), mtus[i].ret);
		if (mtus[i].ret == 0 && strstr(mtus[i].devargs, "tap") != NULL)
			assert_int_equal(mtu_of("tp0"), mtus[i].mtu_bytes);
		if (mtus[i].ret == 0 && strstr(mtus[i].devargs, "iface=lo") != NULL)
			assert_int_equal(mtu_of("lo"), mtus[i].mtu_bytes);
		assert_non_null(strstr(err.msg, mtus[i].why));
		port_close(&p);
		assert_int_equal(rte_eth_dev_count_avail(), left);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_port_comes_up_with_its_queues),
		cmocka_unit_test(a_queue_that_is_not_used_is_closed),
		cmocka_unit_test(an_mtu_holds_or_the_port_stays_away),
		cmocka_unit_test(a_tap_carries_what_its_mtu_says),
		cmocka_unit_test(buffers_are_as_large_as_the_port_needs),
	};
	char folder[] =
		"/tmp/sallyport-ports-test.XXXXXX"; /* of the vhost-user sockets, which the driver removes */
	int ret;

	if (unshare(CLONE_NEWNET) < 0 || world_eal() < 0 || mkdtemp(folder) == NULL ||
	    chdir(folder) < 0)
		return 1;
	rte_log_set_level_pattern("pmd.net.tap", RTE_LOG_CRIT);
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	return rmdir(folder) == 0 ? ret : 1;
}
