/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Workers in threads over ports of several queues: every queue is polled by one worker, a flow is judged by one whatever
 * queue its packets came by, and each packet leaves by the queue of a worker that may send there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>

#include "dataplane/hotplug.h"
#include "test/unit/dataplane/world.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define DEV 0
#define UP 1
#define QUEUES 4
#define WORKERS 3
#define FLOWS 32
#define EACH 3 /* packets of a flow and direction */
#define PATIENCE_US 5000000

/* A port whose wires are rings: a test puts into `in` and takes from `out`. */
struct wire {
	struct rte_ring *in[QUEUES], *out[QUEUES];
	uint16_t eth, queues;
};

struct bed {
	struct world x;
	struct wire port[2], shadow[2];
	pthread_t thread[WORKERS];
	uint16_t workers;
};

static void wire_new(struct bed *b, struct wire *l, uint16_t queues)
{
	static unsigned made;
	struct rte_eth_conf conf = {0};
	char name[32];
	int eth;

	for (uint16_t q = 0; q < queues; q++) {
		snprintf(name, sizeof(name), "in%u", made++);
		l->in[q] = rte_ring_create(name, 256, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
		snprintf(name, sizeof(name), "out%u", made++);
		l->out[q] =
			rte_ring_create(name, 256, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
		assert_true(l->in[q] != NULL && l->out[q] != NULL);
	}
	snprintf(name, sizeof(name), "wire%u", made++);
	eth = rte_eth_from_rings(name, l->in, queues, l->out, queues, 0);
	assert_true(eth >= 0);
	l->eth = (uint16_t)eth;
	l->queues = queues;
	assert_int_equal(rte_eth_dev_configure(l->eth, queues, queues, &conf), 0);
	for (uint16_t q = 0; q < queues; q++) {
		assert_int_equal(rte_eth_rx_queue_setup(l->eth, q, 64, 0, NULL, b->x.pool), 0);
		assert_int_equal(rte_eth_tx_queue_setup(l->eth, q, 64, 0, NULL), 0);
	}
	assert_int_equal(rte_eth_dev_start(l->eth), 0);
}

static void wire_free(struct wire *l)
{
	void *m;

	rte_eth_dev_stop(l->eth);
	rte_eth_dev_close(l->eth);
	for (uint16_t q = 0; q < l->queues; q++) {
		while (rte_ring_dequeue(l->in[q], &m) == 0 || rte_ring_dequeue(l->out[q], &m) == 0)
			rte_pktmbuf_free(m);
		rte_ring_free(l->in[q]);
		rte_ring_free(l->out[q]);
	}
}

static void bed_new(struct bed *b, uint16_t workers, uint16_t dev_queues, bool own_tx)
{
	memset(b, 0, sizeof(*b));
	b->workers = workers;
	assert_int_equal(world_of_workers(&b->x, NULL, workers), 0);
	for (int i = 0; i < 2; i++) {
		struct port *p = &b->x.st->ports[i];

		wire_new(b, &b->port[i], i == DEV ? dev_queues : 1);
		wire_new(b, &b->shadow[i], 1);
		p->eth = b->port[i].eth;
		p->tap_eth = b->shadow[i].eth;
	}
	b->x.st->ports[DEV].queues =
		(struct port_queues){.rx = dev_queues, .tx = dev_queues, .own_tx = own_tx};
	for (uint16_t i = 0; i < workers; i++)
		assert_int_equal(pthread_create(&b->thread[i], NULL,
						(void *(*)(void *))(void (*)(void))worker_run,
						b->x.st->workers[i]),
				 0);
}

static void bed_stop(struct bed *b)
{
	atomic_store(&b->x.st->stop, true);
	for (uint16_t i = 0; i < b->workers; i++) {
		idle_wake(b->x.st->workers[i]);
		assert_int_equal(pthread_join(b->thread[i], NULL), 0);
	}
}

static void bed_free(struct bed *b)
{
	for (int i = 0; i < 2; i++) {
		wire_free(&b->port[i]);
		wire_free(&b->shadow[i]);
	}
	world_free(&b->x);
}

static void put(struct bed *b, struct rte_ring *in, const struct frame_spec *s)
{
	uint8_t frame[FRAME_MAX];
	size_t bytes = frame_make(frame, s);
	struct rte_mbuf *m = rte_pktmbuf_alloc(b->x.pool);
	char *room = m != NULL ? rte_pktmbuf_append(m, (uint16_t)bytes) : NULL;

	assert_non_null(room);
	memcpy(room, frame, bytes);
	assert_int_equal(rte_ring_enqueue(in, m), 0);
}

static bool arrive(struct rte_ring *out[], uint16_t queues, unsigned n)
{
	uint64_t until = clock_boot_us() + PATIENCE_US;
	unsigned have;

	do {
		have = 0;
		for (uint16_t q = 0; q < queues; q++)
			have += rte_ring_count(out[q]);
		sched_yield();
	} while (have < n && clock_boot_us() < until);
	return have == n;
}

/* Ports of the packets in a ring: n[sport or dport - 1000] counts. The packets are freed. */
static unsigned take(struct rte_ring *out, size_t at, unsigned *n)
{
	unsigned all = 0;
	void *m;

	while (rte_ring_dequeue(out, &m) == 0) {
		const uint8_t *b = rte_pktmbuf_mtod((struct rte_mbuf *)m, uint8_t *);
		unsigned flow = (unsigned)(b[at] << 8 | b[at + 1]) - 1000;

		assert_in_range(flow, 0, FLOWS - 1);
		n[flow]++;
		all++;
		rte_pktmbuf_free(m);
	}
	return all;
}

static void there(struct bed *b)
{
	struct frame_spec s = {"10.1.0.10", "10.2.0.10", 0x10, 1, .proto = 17, .dport = 5000};

	for (unsigned i = 0; i < FLOWS * EACH; i++) {
		s.sport = (uint16_t)(1000 + i % FLOWS);
		/* the packets of a flow come by every queue */
		put(b, b->port[DEV].in[(i + i / FLOWS) % b->port[DEV].queues], &s);
	}
}

static void back(struct bed *b)
{
	struct frame_spec s = {"10.2.0.10", "10.1.0.10", 0x20, 2, .proto = 17, .sport = 5000};

	for (unsigned i = 0; i < FLOWS * EACH; i++) {
		s.dport = (uint16_t)(1000 + i % FLOWS);
		put(b, b->port[UP].in[0], &s);
	}
}

static uint64_t received(const struct bed *b, uint16_t worker, uint16_t port)
{
	return b->x.st->workers[worker]->stats.port[port].rx_packets;
}

static const struct row {
	const char *name;
	uint16_t workers, queues;
	bool own_tx;
} rows[] = {
	{"one worker, two queues", 1, 2, false},
	{"two workers, two queues", 2, 2, false},
	{"two, each sends by its own", 2, 2, true},
	{"two, one queue", 2, 1, false},
	{"two workers, four queues", 2, 4, true},
	{"three workers, two queues", 3, 2, false},
	{"three, each sends by its own of four", 3, 4, true},
};

/* What the workers say when they have ended. */
static void check_counts(const struct bed *b, const struct row *r)
{
	uint64_t flows = 0, handed = 0, lost = 0, sent = 0;

	for (uint16_t i = 0; i < r->workers; i++) {
		const struct worker *w = b->x.st->workers[i];

		flows += w->stats.flows;
		handed += w->stats.handed;
		lost += w->stats.ring_dropped;
		sent += w->stats.port[DEV].tx_packets;
		for (unsigned d = 0; d < DROP_REASON_COUNT; d++)
			lost += w->stats.drops[d];
		/* a worker takes from the port when a queue is its, and the one of the uplink is worker 1's */
		if ((received(b, i, DEV) > 0) != (r->queues == 1 ? i == 0 : i < r->queues))
			fail_msg("%s: worker %u received %lu", r->name, i,
				 (unsigned long)received(b, i, DEV));
		assert_int_equal(received(b, i, UP),
				 i == b->x.st->ports[UP].owner ? FLOWS * EACH : 0);
		assert_true(r->own_tx || i == b->x.st->ports[DEV].owner ||
			    w->stats.port[DEV].tx_packets == 0);
	}
	assert_int_equal(flows, FLOWS);
	assert_int_equal(lost, 0);
	assert_int_equal(sent, FLOWS * EACH);
	assert_int_equal(handed > 0, r->workers > 1);
}

static void every_queue_is_served(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		unsigned up[FLOWS] = {0}, dev[FLOWS] = {0};
		const struct row *r = &rows[i];
		struct bed b;

		bed_new(&b, r->workers, r->queues, r->own_tx);
		there(&b);
		if (!arrive(b.port[UP].out, 1, FLOWS * EACH))
			fail_msg("%s: not everything came out", r->name);
		back(&b);
		if (!arrive(b.port[DEV].out, r->queues, FLOWS * EACH))
			fail_msg("%s: not everything came back", r->name);
		bed_stop(&b);
		check_counts(&b, r);
		take(b.port[UP].out[0], 34, up);
		for (uint16_t q = 0; q < r->queues; q++) {
			unsigned of[FLOWS] = {0};
			unsigned n = take(b.port[DEV].out[q], 36, of);

			assert_int_equal(n > 0, r->own_tx ? q < r->workers : q == 0);
			for (unsigned f = 0; f < FLOWS; f++) {
				/* a flow is one worker's, so all of it leaves by one queue */
				assert_true(of[f] == 0 || of[f] == EACH);
				dev[f] += of[f];
			}
		}
		for (unsigned f = 0; f < FLOWS; f++) {
			assert_int_equal(up[f], EACH);
			assert_int_equal(dev[f], EACH);
		}
		bed_free(&b);
	}
}

/* A shadow has one queue, whoever received: its owner writes and reads. What the kernel sends leaves by the owner's. */
static void the_shadow_has_one_worker(void **state)
{
	const struct frame_spec ping = {"10.1.0.10",	       "10.1.0.1",     0x10, 1,
					.proto = IPPROTO_ICMP, .sport = 8 << 8};
	const struct frame_spec pong = {"10.1.0.1", "10.1.0.10", 1, 0x10, .proto = IPPROTO_ICMP};

	(void)state;
	for (uint16_t owner = 0; owner < 2; owner++) {
		struct bed b;
		void *m;

		bed_new(&b, 2, 2, true);
		b.x.st->ports[DEV].owner = owner;
		for (unsigned i = 0; i < 20; i++)
			put(&b, b.port[DEV].in[i % 2], &ping);
		assert_true(arrive(b.shadow[DEV].out, 1, 20));
		for (unsigned i = 0; i < 20; i++)
			put(&b, b.shadow[DEV].in[0], &pong);
		assert_true(arrive(&b.port[DEV].out[owner], 1, 20));
		bed_stop(&b);
		assert_int_equal(rte_ring_count(b.port[DEV].out[!owner]), 0);
		for (uint16_t i = 0; i < 2; i++) {
			const struct worker_stats *s = &b.x.st->workers[i]->stats;

			assert_int_equal(received(&b, i, DEV), 10);
			assert_int_equal(s->port[DEV].to_kernel, i == owner ? 20 : 0);
			assert_int_equal(s->port[DEV].from_kernel, i == owner ? 20 : 0);
		}
		while (rte_ring_dequeue(b.shadow[DEV].out[0], &m) == 0)
			rte_pktmbuf_free(m);
		bed_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_queue_is_served),
		cmocka_unit_test(the_shadow_has_one_worker),
	};

	if (world_eal() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
