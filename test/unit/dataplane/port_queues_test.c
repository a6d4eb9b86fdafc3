/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How many queues a port gets; and that both directions of a flow have one Toeplitz hash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <rte_thash.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/port_queues.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define TCP4 RTE_ETH_RSS_NONFRAG_IPV4_TCP
#define UDP6 RTE_ETH_RSS_NONFRAG_IPV6_UDP
#define NIC "0000:03:00.0"
#define VHOST "net_vhost0,iface=/run/v.sock"
#define XDP "net_af_xdp0,iface=eth1"

struct row {
	const char *name, *driver;
	uint16_t max_rx, max_tx;
	uint64_t hashes;
	uint8_t key;
	const char *devargs;
	uint16_t workers;
	struct port_queues want;
};

static const struct row rows[] = {
	/* 1. what can hash: a queue a worker */
	{"a NIC, one worker", "net_ixgbe", 64, 64, TCP4, 40, NIC, 1, {0, 1, 1, false}},
	{"a NIC, two", "net_ixgbe", 64, 64, TCP4 | UDP6, 40, NIC, 2, {TCP4 | UDP6, 2, 2, true}},
	{"a NIC, sixteen", "net_ixgbe", 64, 64, TCP4, 40, NIC, 16, {TCP4, 16, 16, true}},
	{"fewer queues than workers", "net_x", 4, 4, TCP4, 40, NIC, 8, {TCP4, 4, 4, false}},
	{"fewer to send", "net_x", 8, 2, TCP4, 40, NIC, 4, {TCP4, 4, 2, false}},
	{"fewer to receive", "net_x", 2, 8, TCP4, 40, NIC, 4, {TCP4, 2, 4, true}},
	{"one queue", "net_x", 1, 1, TCP4, 40, NIC, 2, {0, 1, 1, false}},
	{"none to send", "net_x", 4, 0, TCP4, 40, NIC, 2, {0, 1, 1, false}},
	{"a key of its own", "net_x", 4, 4, TCP4, 0, NIC, 2, {TCP4, 2, 2, true}},
	{"a key as long as ours", "net_x", 4, 4, TCP4, 64, NIC, 2, {TCP4, 2, 2, true}},
	{"a key that is too long", "net_x", 4, 4, TCP4, 65, NIC, 2, {0, 1, 1, false}},
	{"hashes addresses alone", "net_x", 4, 4, RTE_ETH_RSS_IPV4, 40, NIC, 2, {0, 1, 1, false}},
	{"and addresses too",
	 "net_x",
	 4,
	 4,
	 TCP4 | RTE_ETH_RSS_IPV4,
	 40,
	 NIC,
	 2,
	 {TCP4 | RTE_ETH_RSS_IPV4, 2, 2, true}},
	{"of what it can only what we want",
	 "net_x",
	 4,
	 4,
	 TCP4 | RTE_ETH_RSS_L2_PAYLOAD,
	 40,
	 NIC,
	 2,
	 {TCP4, 2, 2, true}},
	{"hashes, and was asked for more",
	 "net_x",
	 8,
	 8,
	 TCP4,
	 40,
	 NIC ",queues=8",
	 2,
	 {TCP4, 2, 2, true}},

	/* 2. what was asked for queues: all of these, whatever the workers */
	{"vhost, one worker", "net_vhost", 2, 2, 0, 0, VHOST ",queues=2", 1, {0, 2, 2, false}},
	{"vhost, two", "net_vhost", 2, 2, 0, 0, VHOST ",queues=2", 2, {0, 2, 2, false}},
	{"vhost, four queues", "net_vhost", 4, 4, 0, 0, VHOST ",queues=4", 2, {0, 4, 4, false}},
	{"one is no wish", "net_vhost", 4, 4, 0, 0, VHOST ",queues=1", 2, {0, 1, 1, false}},
	{"nor is nonsense", "net_vhost", 4, 4, 0, 0, VHOST ",queues=x", 2, {0, 1, 1, false}},
	{"nor is silence", "net_vhost", 4, 4, 0, 0, VHOST, 2, {0, 1, 1, false}},
	{"another key", "net_vhost", 4, 4, 0, 0, VHOST ",myqueues=4", 2, {0, 1, 1, false}},
	{"a wish that the driver did not hear",
	 "net_vhost",
	 1,
	 1,
	 0,
	 0,
	 VHOST ",queues=2",
	 2,
	 {0, 1, 1, false}},
	{"one to send", "net_x", 4, 1, 0, 0, VHOST ",queues=4", 2, {0, 4, 1, false}},
	{"AF_XDP sends by each",
	 "net_af_xdp",
	 2,
	 2,
	 0,
	 0,
	 XDP ",queue_count=2",
	 2,
	 {0, 2, 2, true}},
	{"more of them than workers",
	 "net_af_xdp",
	 4,
	 4,
	 0,
	 0,
	 XDP ",queue_count=4",
	 2,
	 {0, 4, 4, true}},
	{"fewer", "net_af_xdp", 2, 2, 0, 0, XDP ",queue_count=2", 4, {0, 2, 2, false}},
	{"AF_PACKET too",
	 "net_af_packet",
	 2,
	 2,
	 0,
	 0,
	 "net_af_packet0,iface=e,qpairs=2",
	 2,
	 {0, 2, 2, true}},
	{"no more than there is room for",
	 "net_vhost",
	 128,
	 128,
	 0,
	 0,
	 VHOST ",queues=128",
	 2,
	 {0, PORT_QUEUES_MAX, PORT_QUEUES_MAX, false}},
	{"a driver without a name", NULL, 2, 2, 0, 0, XDP ",queue_count=2", 2, {0, 2, 2, false}},

	/* 3. any other */
	{"memif", "net_memif", 256, 256, 0, 0, "net_memif0,role=server", 2, {0, 1, 1, false}},
	{"nothing known", NULL, 0, 0, 0, 0, "", 2, {0, 1, 1, false}},
};

static void each_port_gets_its_queues(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct rte_eth_dev_info info = {.driver_name = rows[i].driver,
						.max_rx_queues = rows[i].max_rx,
						.max_tx_queues = rows[i].max_tx,
						.flow_type_rss_offloads = rows[i].hashes,
						.hash_key_size = rows[i].key};
		struct port_queues got = {.rss = 1, .rx = 99, .tx = 99, .own_tx = true};
		const struct port_queues *want = &rows[i].want;

		port_queues_pick(&info, rows[i].devargs, rows[i].workers, &got);
		if (got.rss != want->rss || got.rx != want->rx || got.tx != want->tx ||
		    got.own_tx != want->own_tx)
			fail_msg("%s: rss %lx, %u and %u queues, own %d", rows[i].name,
				 (unsigned long)got.rss, got.rx, got.tx, got.own_tx);
		/* what workers rely on: a queue that one of them sends by is there */
		assert_true(!got.own_tx || got.tx >= rows[i].workers);
		assert_in_range(got.rx, 1, PORT_QUEUES_MAX);
	}
}

static void what_devargs_ask_for(void **state)
{
	static const struct {
		const char *devargs;
		unsigned want;
	} asked[] = {
		{"", 0},
		{NIC, 0},
		{VHOST, 0},
		{VHOST ",queues=2", 2},
		{VHOST ",queues=33,client=1", 33},
		{XDP ",start_queue=1,queue_count=3", 3},
		{"net_af_packet0,iface=e,qpairs=4,blocksz=4096", 4},
		{"queues=2", 0}, /* a device of this name */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(asked); i++)
		assert_int_equal(port_queues_asked(asked[i].devargs), asked[i].want);
}

/* As a NIC hashes: addresses, then ports, in network order. @param words  of one address */
static uint32_t hash(const uint8_t *key, const uint32_t *src, const uint32_t *dst, unsigned words,
		     uint16_t sport, uint16_t dport, bool ports)
{
	uint32_t tuple[9];

	memcpy(tuple, src, words * sizeof(*src));
	memcpy(tuple + words, dst, words * sizeof(*dst));
	tuple[2 * words] = (uint32_t)sport << 16 | dport;
	return rte_softrss(tuple, 2 * words + ports, key);
}

static void both_directions_have_one_hash(void **state)
{
	uint8_t key[RSS_KEY_MAX];
	unsigned differ = 0;
	uint32_t last = 0;

	(void)state;
	srandom(7);
	port_queues_key(key, sizeof(key));
	for (unsigned i = 0; i < 10000; i++) {
		unsigned words = i % 2 == 0 ? 1 : 4;
		uint16_t sport = (uint16_t)random(), dport = (uint16_t)random();
		bool ports = i % 3 != 0;
		uint32_t src[4], dst[4], there, back;

		for (unsigned k = 0; k < 4; k++) {
			src[k] = (uint32_t)random() << 1 ^ (uint32_t)random();
			dst[k] = (uint32_t)random() << 1 ^ (uint32_t)random();
		}
		there = hash(key, src, dst, words, sport, dport, ports);
		back = hash(key, dst, src, words, dport, sport, ports);
		assert_int_equal(there, back);
		differ += there != last;
		last = there;
	}
	assert_in_range(differ, 9990, 10000); /* and different flows have different ones */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_port_gets_its_queues),
		cmocka_unit_test(what_devargs_ask_for),
		cmocka_unit_test(both_directions_have_one_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
