/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a TLS worker's ring has no room for waits, in its order, up to a number and a time; nothing is lost or sent twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dataplane/backlog.h"
#include "test/unit/dataplane/world.h"

#define ROOM 63 /* of a ring of 64 */
#define FRAME_BYTES 60
#define BUFFERS 4095
#define BURST 32

static struct {
	struct rte_mempool *pool;
	struct rte_ring *wire;
	uint16_t eth;
	struct backlog b;
	uint32_t made, seen; /* frames, numbered */
} bed;

static int setup(void **state)
{
	struct rte_eth_conf conf = {0};
	int eth;

	(void)state;
	assert_int_equal(world_eal(), 0);
	bed.pool = rte_pktmbuf_pool_create("backlog", BUFFERS, 0, 0, 512, SOCKET_ID_ANY);
	bed.wire = rte_ring_create("wire", ROOM + 1, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	assert_true(bed.pool != NULL && bed.wire != NULL);
	eth = rte_eth_from_ring(bed.wire);
	assert_true(eth >= 0);
	bed.eth = (uint16_t)eth;
	assert_int_equal(rte_eth_dev_configure(bed.eth, 1, 1, &conf), 0);
	assert_int_equal(rte_eth_rx_queue_setup(bed.eth, 0, 64, 0, NULL, bed.pool), 0);
	assert_int_equal(rte_eth_tx_queue_setup(bed.eth, 0, 64, 0, NULL), 0);
	assert_int_equal(rte_eth_dev_start(bed.eth), 0);
	return 0;
}

static void frames_make(struct rte_mbuf **pkt, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		pkt[i] = rte_pktmbuf_alloc(bed.pool);
		assert_non_null(pkt[i]);
		memcpy(rte_pktmbuf_append(pkt[i], FRAME_BYTES), &bed.made, sizeof(bed.made));
		bed.made++;
	}
}

/* The TLS worker takes at most so many. Each must be the one after the one before. @return how many there were */
static unsigned worker_takes(unsigned most)
{
	unsigned n = 0;
	void *m;

	for (; n < most && rte_ring_dequeue(bed.wire, &m) == 0; n++) {
		uint32_t number;

		memcpy(&number, rte_pktmbuf_mtod((struct rte_mbuf *)m, void *), sizeof(number));
		assert_int_equal(number, bed.seen);
		bed.seen++;
		rte_pktmbuf_free(m);
	}
	return n;
}

/* @param refused  of n, how many are to stay ours. @return how many left */
static uint32_t offer(unsigned n, unsigned refused, uint64_t now_us)
{
	struct rte_mbuf *pkt[BURST];
	uint64_t bytes = 0;
	uint16_t kept = 0;
	uint32_t sent;

	assert_true(n <= BURST);
	frames_make(pkt, n);
	sent = backlog_send(&bed.b, bed.eth, 0, pkt, n, now_us, &kept, &bytes);
	assert_int_equal(kept, n - refused);
	assert_int_equal(bytes, (uint64_t)sent * FRAME_BYTES);
	rte_pktmbuf_free_bulk(pkt + kept, n - kept);
	bed.made -= refused;
	return sent;
}

/* Nothing waits, nothing is under way, no buffer is lost. */
static void all_is_empty(void)
{
	assert_int_equal(bed.b.n, 0);
	assert_int_equal(rte_ring_count(bed.wire), 0);
	assert_int_equal(rte_mempool_avail_count(bed.pool), BUFFERS);
	bed.made = bed.seen = 0;
}

static void what_finds_room_leaves_at_once(void **state)
{
	(void)state;
	assert_int_equal(offer(BURST, 0, 1), BURST);
	assert_int_equal(bed.b.n, 0);
	assert_int_equal(worker_takes(BURST), BURST);
	all_is_empty();
}

static void the_rest_waits_and_leaves_first(void **state)
{
	(void)state;
	assert_int_equal(offer(BURST, 0, 1), BURST);
	assert_int_equal(offer(BURST, 0, 1), ROOM - BURST);
	assert_int_equal(bed.b.n, 1);
	assert_int_equal(offer(BURST, 0, 1), 0); /* behind the one that waits */
	assert_int_equal(bed.b.n, 1 + BURST);
	assert_int_equal(worker_takes(10), 10);
	assert_int_equal(offer(0, 0, 2), 10);
	assert_int_equal(worker_takes(ROOM), ROOM);
	assert_int_equal(offer(5, 0, 3), 1 + BURST - 10 + 5);
	worker_takes(ROOM);
	assert_int_equal(bed.seen, bed.made);
	all_is_empty();
}

/* With every place of the array as the first one, so that runs go over its end. */
static void order_holds_around_the_end(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3 * BACKLOG_MAX / 7; i++) {
		offer(7, 0, i);
		if (bed.b.n > BACKLOG_MAX / 2 || i % 3 == 0)
			worker_takes(1 + i % ROOM);
	}
	while (bed.b.n > 0 || rte_ring_count(bed.wire) > 0) {
		worker_takes(ROOM);
		offer(0, 0, 1);
	}
	assert_int_equal(bed.seen, bed.made);
	all_is_empty();
}

static void more_than_it_holds_stays_the_callers(void **state)
{
	unsigned waits = 0;

	(void)state;
	for (unsigned i = 0; i < ROOM + BACKLOG_MAX; i++) {
		offer(1, 0, 1);
		waits = bed.b.n;
	}
	assert_int_equal(waits, BACKLOG_MAX);
	assert_int_equal(offer(BURST, BURST, 1), 0);
	assert_int_equal(worker_takes(20), 20);
	assert_int_equal(offer(BURST, BURST - 20, 1), 20);
	while (bed.b.n > 0 || rte_ring_count(bed.wire) > 0) {
		worker_takes(ROOM);
		offer(0, 0, 1);
	}
	assert_int_equal(bed.seen, bed.made);
	all_is_empty();
}

static void who_takes_none_for_too_long_gets_none(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		offer(BURST, 0, 1000);
	assert_int_equal(bed.b.n, 4 * BURST - ROOM);
	assert_int_equal(backlog_expire(&bed.b, 1000 + BACKLOG_US - 1), 0);
	/* It takes one: the time begins anew, for all. */
	assert_int_equal(worker_takes(1), 1);
	assert_int_equal(offer(0, 0, 1000 + BACKLOG_US - 1), 1);
	assert_int_equal(backlog_expire(&bed.b, 1000 + BACKLOG_US), 0);
	assert_int_equal(offer(1, 0, 1000 + BACKLOG_US), 0);
	assert_int_equal(backlog_expire(&bed.b, 1000 + 2 * BACKLOG_US - 1), 4 * BURST - ROOM);
	assert_int_equal(worker_takes(ROOM), ROOM);
	all_is_empty();
	/* What comes to wait later has its own time. */
	offer(BURST, 0, 9 * BACKLOG_US);
	offer(BURST, 0, 9 * BACKLOG_US);
	assert_int_equal(backlog_expire(&bed.b, 9 * BACKLOG_US + 1), 0);
	assert_int_equal(bed.b.n, 1);
	backlog_drop(&bed.b);
	worker_takes(ROOM);
	all_is_empty();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_finds_room_leaves_at_once),
		cmocka_unit_test(the_rest_waits_and_leaves_first),
		cmocka_unit_test(order_holds_around_the_end),
		cmocka_unit_test(more_than_it_holds_stays_the_callers),
		cmocka_unit_test(who_takes_none_for_too_long_gets_none),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
