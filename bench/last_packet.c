/* SPDX-License-Identifier: GPL-3.0-or-later */
/* last_packet: how long a worker at full rate goes on after a revocation: `last_packet` prints a line for bench/run.
 *
 * Core 1 runs packets of 100,000 devices' flows to completion, burst after burst, as worker_round() does, without ports: what
 * it forwards counts as gone when path_run() returns. Core 0 stores a revocation in the trust table, as the agent's writer
 * does, of one device after another whose packets core 1 has right now. Both read the one clock of the machine (TSC). A
 * device none of whose packets passed after the store counts as 0. Not in it: what a NIC's or a vhost ring holds. */
#include <pthread.h>
#include <rte_cycles.h>
#include <sched.h>

#include "bench/world.h"

#define DEVICES 100000u
#define REVOKED 1000u
#define EVERY_US 200

static struct {
	struct bench b;
	struct traffic t;
	uint32_t device[REVOKED]; /* whose flow is in the bursts; fixed before the threads start */
	uint64_t stored[REVOKED]; /* TSC; the revoker's */
	uint64_t last[REVOKED]; /* TSC after a packet passed; the worker's */
	_Atomic uint32_t n_revoked;
	_Atomic bool end;
} m;

static void on_core(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0)
		die("no second core");
}

static void *revoker(void *arg)
{
	uint64_t every = rte_get_tsc_hz() / 1000000 * EVERY_US, next = rte_rdtsc() + 50 * every;

	(void)arg;
	on_core(0);
	for (uint32_t i = 0; i < REVOKED; i++, next += every) {
		while (rte_rdtsc() < next)
			rte_pause();
		world_trust(&m.b.x, m.device[i] + 1, 0, STANDING_REVOKED, 0);
		m.stored[i] = rte_rdtsc();
		atomic_store(&m.n_revoked, i + 1);
	}
	while (rte_rdtsc() < next + 50 * every) /* who would go on after the last one is seen too */
		rte_pause();
	atomic_store(&m.end, true);
	return NULL;
}

static void load(uint32_t at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct rte_mbuf *p = m.b.ring[i];

		rte_pktmbuf_reset(p);
		p->data_len = p->pkt_len = m.t.bytes;
		memcpy(rte_pktmbuf_mtod(p, void *), &m.t.frame[0][at + i], sizeof(struct frame64));
	}
}

/* @return packets that passed */
static uint32_t burst(uint32_t at, uint32_t n)
{
	struct burst in = {.n = n};
	uint32_t passed = 0;
	uint64_t now;

	load(at, n);
	memcpy(in.pkt, m.b.ring, n * sizeof(in.pkt[0]));
	worker_pin(m.b.x.w, clock_boot_us());
	path_run(m.b.x.w, &in, 0);
	now = rte_rdtsc();
	for (uint32_t i = 0; i < n; i++) {
		if (pkt_of(in.pkt[i])->edge != EDGE_FORWARD)
			continue;
		m.last[at + i] = now;
		passed++;
	}
	return passed;
}

/* The order of flows is the traffic's, which is not that of the devices. */
static void find_devices(void)
{
	for (uint32_t i = 0; i < REVOKED; i++) {
		const uint8_t *mac = m.t.frame[0][i].b + 6;
		uint32_t d = 0;
		uint8_t want[6];

		do
			device_mac(d, want);
		while (memcmp(want, mac, sizeof(want)) != 0 && ++d < DEVICES);
		if (d == DEVICES)
			die("whose frame is this?");
		m.device[i] = d;
	}
}

int main(void)
{
	static char *eal[] = {"last_packet", "--in-memory", "--no-pci",		"--no-telemetry",
			      "-l",	     "1",	    "--log-level=error"};
	uint64_t packets = 0, started;
	struct rte_mempool *pool;
	pthread_t thread;

	log_init("last_packet", LOG_LEVEL_ERROR);
	if (rte_eal_init(sizeof(eal) / sizeof(eal[0]), eal) < 0)
		die("no EAL: 2 MB huge pages (256) and core 1 are needed");
	pool = rte_pktmbuf_pool_create("path", 2 * RING - 1, 0, sizeof(struct pkt),
				       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL)
		die("no mbufs");
	bench_new(&m.b, DEVICES, pool);
	traffic_new(&m.t, DEVICES, DEVICES, true);
	find_devices();
	on_core(1);
	for (int round = 0; round < 2; round++) {
		for (uint32_t at = 0; at < REVOKED; at += BURST_MAX)
			packets += burst(at, RTE_MIN(REVOKED - at, (uint32_t)BURST_MAX));
	}
	if (packets != 2 * REVOKED)
		die("not every flow passes");
	packets = 0;
	if (pthread_create(&thread, NULL, revoker, NULL) != 0)
		die("no thread");
	started = rte_rdtsc();
	while (!atomic_load(&m.end)) {
		for (uint32_t at = 0; at < REVOKED; at += BURST_MAX)
			packets += burst(at, RTE_MIN(REVOKED - at, (uint32_t)BURST_MAX));
	}
	started = rte_rdtsc() - started;
	pthread_join(thread, NULL);
	printf("revoke_to_last_packet_us_p99\tus\tp99\t<= 50\t");
	for (uint32_t i = 0; i < REVOKED; i++) {
		double us = m.last[i] > m.stored[i]
				    ? 1e6 * (m.last[i] - m.stored[i]) / rte_get_tsc_hz()
				    : 0;

		printf("%s%.2f", i ? "," : "", us);
	}
	printf("\t\t\n");
	fprintf(stderr, "last_packet: %.1f Mpps passed meanwhile\n",
		packets * 1e-6 / ((double)started / rte_get_tsc_hz()));
	traffic_free(&m.t);
	bench_free(&m.b);
	rte_mempool_free(pool);
	rte_eal_cleanup();
	return 0;
}
