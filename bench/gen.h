/* SPDX-License-Identifier: GPL-3.0-or-later */
/* gen: what the generator's commands (gen.c) are made of: its ports, the flows of a run, sending, and receiving with a
 * check of what comes back. One thread; one struct gen. */
#pragma once

#include <inttypes.h>
#include <stdio.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include "bench/frames.h"
#include "config/base/addr.h"
#include "config/base/clock.h"

#define BURST 64
#define TARGETS_MAX 8
#define FLOWS_MAX 1500000u
#define DEVICES_MAX 200000u
#define STRANGERS 1000
#define AHEAD 64 /* frames prefetched before they are copied */
#define SAMPLE 64 /* one in so many that come back is checked */
#define DRAIN_MS 100
#define PRIME_STUCK 3 /* rounds in which nothing new came through */
#define PRIME_MPPS 1.0
#define MBUFS 8191
#define RING 1024

struct target {
	char name[16];
	enum frame_kind kind;
	uint16_t port[2];
	uint8_t mac[2][6];
};

/* A burst that the port has not taken yet. */
struct outbox {
	uint16_t n, at;
	struct rte_mbuf *pkt[BURST];
};

struct counts {
	uint64_t sent[2], strangers, received[2], strange, checked, bad, full, polls;
	uint32_t stamp[2]; /* highest counter seen, by port of arrival */
};

struct gen {
	struct target target[TARGETS_MAX];
	unsigned n_targets;
	struct rte_mempool *pool;
	struct frames_plan plan;
	struct frame_head *frame[2];
	uint16_t *bytes; /* NULL: all alike */
	uint32_t *order; /* flow of each template */
	uint32_t at[2]; /* next to send */
	uint32_t stranger_at, stamp[2];
	uint64_t *last_us; /* by device; NULL: not noted */
	uint8_t *seen; /* by flow; NULL: not noted */
	uint32_t seen_n;
	struct outbox out[2];
	struct counts c;
	const char *why; /* the first bad frame: what is wrong with it */
};

static struct gen g;

static inline void die(const char *what)
{
	fprintf(stderr, "gen: %s\n", what);
	exit(1);
}

/* ---- ports ---- */

static inline uint16_t port_up(const char *devargs)
{
	const struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}};
	uint16_t eth, rx = RING, tx = RING;
	char name[256];

	snprintf(name, sizeof(name), "%s", devargs);
	name[strcspn(name, ",")] = '\0';
	if (rte_eth_dev_get_port_by_name(name, &eth) != 0 &&
	    (rte_dev_probe(devargs) < 0 || rte_eth_dev_get_port_by_name(name, &eth) != 0)) {
		fprintf(stderr, "gen: %s: no such port (is the other side up?)\n", devargs);
		exit(1);
	}
	if (rte_eth_dev_configure(eth, 1, 1, &conf) < 0 ||
	    rte_eth_dev_adjust_nb_rx_tx_desc(eth, &rx, &tx) < 0 ||
	    rte_eth_rx_queue_setup(eth, 0, rx, SOCKET_ID_ANY, NULL, g.pool) < 0 ||
	    rte_eth_tx_queue_setup(eth, 0, tx, SOCKET_ID_ANY, NULL) < 0 ||
	    rte_eth_dev_start(eth) < 0) {
		fprintf(stderr, "gen: %s: does not start\n", devargs);
		exit(1);
	}
	(void)rte_eth_promiscuous_enable(eth);
	return eth;
}

/* NAME=KIND:DEVARGS+DEVARGS */
static inline void target_add(const char *text)
{
	static const char *const kinds[] = {"route:", "swap:", "wire:", "hop:"};
	struct target *t = &g.target[g.n_targets];
	char copy[1024], *kind, *dev, *dev2;
	unsigned k = 0;

	if (g.n_targets == TARGETS_MAX || strlen(text) >= sizeof(copy))
		die("too many targets, or one too long");
	strcpy(copy, text);
	kind = strchr(copy, '=');
	dev = kind != NULL ? strchr(kind, ':') : NULL;
	dev2 = dev != NULL ? strchr(dev, '+') : NULL;
	if (dev2 == NULL || kind - copy >= (long)sizeof(t->name))
		die("a target is NAME=KIND:DEVARGS+DEVARGS");
	*kind++ = '\0';
	dev++;
	*dev2++ = '\0';
	while (k < 4 && strncmp(kind, kinds[k], strlen(kinds[k])) != 0)
		k++;
	if (k == 4)
		die("KIND is route, swap, wire or hop");
	strcpy(t->name, copy);
	t->kind = k;
	t->port[0] = port_up(dev);
	t->port[1] = port_up(dev2);
	g.n_targets++;
}

static inline struct target *target_of(const char *name)
{
	for (unsigned i = 0; name != NULL && i < g.n_targets; i++) {
		if (strcmp(g.target[i].name, name) == 0)
			return &g.target[i];
	}
	return NULL;
}

/* ---- flows ---- */

static inline void flows_free(void)
{
	rte_free(g.frame[0]);
	rte_free(g.frame[1]);
	free(g.bytes);
	free(g.order);
	g.frame[0] = g.frame[1] = NULL;
	g.bytes = NULL;
	g.order = NULL;
}

static inline void frames_write(void)
{
	for (uint32_t i = 0; i < g.plan.flows; i++) {
		for (int dir = 0; dir < 2; dir++)
			frame_make(&g.frame[dir][i], &g.plan, g.order[i], dir);
		if (g.bytes != NULL)
			g.bytes[i] = frame_bytes(&g.plan, g.order[i]);
	}
}

static inline const char *flows_new(const struct frames_plan *plan)
{
	flows_free();
	g.plan = *plan;
	g.at[0] = g.at[1] = 0;
	for (int dir = 0; dir < 2; dir++)
		g.frame[dir] =
			rte_malloc(NULL, (size_t)plan->flows * sizeof(struct frame_head), 64);
	g.order = malloc(plan->flows * sizeof(*g.order));
	if (plan->imix)
		g.bytes = malloc(plan->flows * sizeof(*g.bytes));
	if (g.frame[0] == NULL || g.frame[1] == NULL || g.order == NULL ||
	    (plan->imix && g.bytes == NULL)) {
		flows_free();
		g.plan.flows = 0;
		return "no memory";
	}
	shuffle(g.order, plan->flows);
	frames_write();
	return NULL;
}

/* The MACs of the frames are the target's. */
static inline void aim(const struct target *t)
{
	if (memcmp(g.plan.gateway, t->mac, sizeof(t->mac)) == 0)
		return;
	memcpy(g.plan.gateway, t->mac, sizeof(t->mac));
	frames_write();
}

/* ---- sending ---- */

static inline bool outbox_fill(struct outbox *o, uint16_t n)
{
	if (rte_pktmbuf_alloc_bulk(g.pool, o->pkt, n) != 0)
		return false;
	o->n = n;
	o->at = 0;
	return true;
}

static inline void frame_put(struct rte_mbuf *m, const struct frame_head *f, uint16_t bytes)
{
	m->data_len = bytes;
	m->pkt_len = bytes;
	memcpy(rte_pktmbuf_mtod(m, void *), f, sizeof(*f));
}

/* The next n packets of a direction. */
static inline void flows_fill(int dir, uint16_t n)
{
	struct outbox *o = &g.out[dir];
	uint16_t bytes = frame_bytes(&g.plan, 0);

	if (!outbox_fill(o, n))
		return;
	for (uint16_t i = 0; i < n; i++) {
		uint32_t at = g.at[dir];

		/* A million frames lie in no cache. Beyond the end is still an address. */
		rte_prefetch0(&g.frame[dir][at + AHEAD]);
		frame_put(o->pkt[i], &g.frame[dir][at], g.bytes != NULL ? g.bytes[at] : bytes);
		if (g.plan.v4) {
			uint32_t stamp = ++g.stamp[dir];

			memcpy(rte_pktmbuf_mtod_offset(o->pkt[i], void *, FRAMES_STAMP_OFF), &stamp,
			       sizeof(stamp));
		}
		g.at[dir] = at + 1 < g.plan.flows ? at + 1 : 0;
	}
	g.c.sent[dir] += n;
}

static inline void strangers_fill(uint16_t n)
{
	static struct frame_head frame[STRANGERS];
	static struct frames_plan of;
	struct frames_plan plan = g.plan;

	/* Made once: as device 0's, then with an address and a MAC of its own. */
	plan.imix = false;
	if (memcmp(&of, &plan, sizeof(plan)) != 0) {
		for (uint32_t i = 0; i < STRANGERS; i++) {
			uint8_t *ip = frame[i].b + ETH_BYTES;

			frame_make(&frame[i], &plan, 0, 0);
			device_mac(FRAMES_STRANGERS + i, frame[i].b + 6);
			device_ip(FRAMES_STRANGERS + i, plan.v4, ip + (plan.v4 ? 12 : 8));
			if (plan.v4) {
				put16(ip + 10, 0);
				put16(ip + 10, sum_end(sum16(ip, IP4_BYTES, 0)));
			}
		}
		of = plan;
	}
	if (!outbox_fill(&g.out[0], n))
		return;
	for (uint16_t i = 0; i < n; i++) {
		frame_put(g.out[0].pkt[i], &frame[g.stranger_at], frame_bytes(&plan, 0));
		g.stranger_at = g.stranger_at + 1 < STRANGERS ? g.stranger_at + 1 : 0;
	}
	g.c.strangers += n;
}

/* What the port takes now. */
static inline void outbox_send(const struct target *t, int dir)
{
	struct outbox *o = &g.out[dir];

	g.c.polls++;
	o->at += rte_eth_tx_burst(t->port[dir], 0, o->pkt + o->at, o->n - o->at);
	g.c.full += o->at < o->n;
}

/* ---- receiving ---- */

/* One direction's packets travel through one queue each: none overtakes another. */
static inline const char *stamp_fault(const uint8_t *eth, int dir)
{
	uint32_t stamp;

	if (!g.plan.v4)
		return NULL;
	memcpy(&stamp, eth + FRAMES_STAMP_OFF, sizeof(stamp));
	if (stamp == 0 || stamp <= g.c.stamp[dir] || stamp > g.stamp[dir])
		return "a counter out of order: it was overtaken, or came twice";
	g.c.stamp[dir] = stamp;
	return NULL;
}

static inline void frame_check(const struct target *t, const struct rte_mbuf *m, int dir)
{
	const uint8_t *eth = rte_pktmbuf_mtod(m, const uint8_t *);
	uint32_t f = frame_flow(&g.plan, eth, dir);
	const char *why = f == UINT32_MAX ? "no flow of ours"
					  : frame_fault(&g.plan, t->kind, eth,
							rte_pktmbuf_pkt_len(m), dir, f);

	/* A peer may sort the packets of a burst by flow, and keeps the order within each. */
	if (why == NULL && (t->kind == KIND_ROUTE || t->kind == KIND_SWAP))
		why = stamp_fault(eth, dir);
	g.c.checked++;
	if (why == NULL)
		return;
	g.c.bad++;
	g.why = g.why != NULL ? g.why : why;
}

static inline void frame_note(const struct rte_mbuf *m, int dir, uint64_t now_us)
{
	uint32_t f = frame_flow(&g.plan, rte_pktmbuf_mtod(m, const uint8_t *), dir);

	if (f == UINT32_MAX)
		return;
	if (g.last_us != NULL)
		g.last_us[f % g.plan.devices] = now_us;
	if (g.seen != NULL && (g.seen[f] & 1 << dir) == 0) {
		g.seen[f] |= 1 << dir;
		g.seen_n++;
	}
}

/* Is it a packet of ours at all? The kernel behind a gateway asks for neighbours and says who it is. */
static inline bool is_flow(const struct rte_mbuf *m)
{
	const uint8_t *eth = rte_pktmbuf_mtod(m, const uint8_t *);

	return get16(eth + 12) == (g.plan.v4 ? 0x0800 : 0x86dd) &&
	       eth[ETH_BYTES + (g.plan.v4 ? 9 : 6)] == IPPROTO_UDP;
}

/* What arrives at port side `to` was sent in direction !to. @return how many */
static inline unsigned receive(const struct target *t, int to)
{
	struct rte_mbuf *pkt[BURST];
	uint16_t n = rte_eth_rx_burst(t->port[to], 0, pkt, BURST);
	uint64_t now_us = n > 0 && g.last_us != NULL ? clock_boot_us() : 0;
	const int dir = !to;

	for (uint16_t i = 0; i < n; i++) {
		if (i + 4 < n)
			rte_prefetch0(rte_pktmbuf_mtod(pkt[i + 4], void *));
		if (!is_flow(pkt[i])) {
			g.c.strange++;
			continue;
		}
		if (g.c.received[dir]++ % SAMPLE == 0)
			frame_check(t, pkt[i], dir);
		if (g.last_us != NULL || g.seen != NULL)
			frame_note(pkt[i], dir, now_us);
	}
	if (n > 0)
		rte_pktmbuf_free_bulk(pkt, n);
	return n;
}

/* Until nothing came for a while. @return cycles at the last packet */
static inline uint64_t drain(const struct target *t)
{
	const uint64_t wait = rte_get_tsc_hz() / 1000 * DRAIN_MS;
	uint64_t last = rte_rdtsc();

	for (int dir = 0; dir < 2; dir++) { /* what was counted as sent goes out first */
		while (g.out[dir].at < g.out[dir].n && rte_rdtsc() - last < 10 * wait) {
			outbox_send(t, dir);
			receive(t, 0);
			receive(t, 1);
		}
		if (g.out[dir].at < g.out[dir].n) {
			rte_pktmbuf_free_bulk(g.out[dir].pkt + g.out[dir].at,
					      g.out[dir].n - g.out[dir].at);
			g.c.sent[dir] -= g.out[dir].n - g.out[dir].at;
		}
		g.out[dir].n = g.out[dir].at = 0;
	}
	last = rte_rdtsc();
	for (uint64_t now = last; now - last < wait; now = rte_rdtsc()) {
		if (receive(t, 0) + receive(t, 1) > 0)
			last = now;
	}
	return last;
}

static inline void counts_reset(const struct target *t)
{
	drain(t); /* what an earlier command left behind */
	g.c = (struct counts){.stamp = {g.stamp[0], g.stamp[1]}};
	g.why = NULL;
}

/* ---- running ---- */

struct pace {
	double cycles; /* for one burst; 0: none */
	double due;
};

static inline struct pace pace_of(double mpps, uint16_t burst)
{
	return (struct pace){.cycles =
				     mpps > 0 ? (double)rte_get_tsc_hz() / (mpps * 1e6) * burst : 0,
			     .due = (double)rte_rdtsc()};
}

static inline bool pace_due(struct pace *p, uint64_t now)
{
	if (p->cycles == 0)
		return true;
	if ((double)now < p->due)
		return false;
	p->due += p->cycles;
	/* What was missed by more than a ring is not made up for. */
	if ((double)now - p->due > p->cycles * RING / BURST)
		p->due = (double)now;
	return true;
}

/* Both directions, or the first only, until the time is over or (once) each flow was sent. @return cycles it took */
static inline uint64_t run(const struct target *t, uint64_t cycles, double mpps, double strangers,
			   int directions, bool once)
{
	struct pace flows[2] = {pace_of(mpps / directions, BURST),
				pace_of(mpps / directions, BURST)};
	struct pace flood = pace_of(strangers, BURST);
	uint64_t start = rte_rdtsc(), now = start;

	while (now - start < cycles && (!once || g.c.sent[directions - 1] < g.plan.flows)) {
		for (int dir = 0; dir < 2; dir++) {
			receive(t, dir);
			if (g.out[dir].at < g.out[dir].n) {
				outbox_send(t, dir);
				continue;
			}
			if (dir < directions && pace_due(&flows[dir], now))
				flows_fill(dir, once && g.plan.flows - g.at[dir] < BURST
							? g.plan.flows - g.at[dir]
							: BURST);
			else if (dir == 0 && strangers != 0 && pace_due(&flood, now))
				strangers_fill(BURST);
			if (g.out[dir].at < g.out[dir].n)
				outbox_send(t, dir);
		}
		now = rte_rdtsc();
	}
	return now - start;
}

static inline double mpps_of(uint64_t packets, uint64_t cycles)
{
	return cycles > 0 ? (double)packets * (double)rte_get_tsc_hz() / (double)cycles / 1e6 : 0;
}
