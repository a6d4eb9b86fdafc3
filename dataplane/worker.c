/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_ring_elem.h>

#include "config/base/clock_near.h"
#include "dataplane/links.h"
#include "dataplane/path.h"
#include "dataplane/trace.h"

#define RING_PACKETS 2048
#define STEP_FLOWS 8192 /* of a command, when no packets come */
#define STEP_FLOWS_BUSY 128
#define SWEEP_SHARE 16 /* a sweep takes this part of a busy worker's time */
#define SWEEP_IDLE_CYCLES 100000 /* some 40 us: a packet that comes meanwhile waits no longer */
#define RING_COMMANDS 16
#define RING_LOG 4096
#define RING_TRACED 128

/* Names must be unique in the process, where a test may have two worlds. */
static struct rte_ring *ring_new(const struct worker *w, const char *what, unsigned from,
				 unsigned elem_bytes, unsigned n)
{
	char name[RTE_RING_NAMESIZE];

	snprintf(name, sizeof(name), "%s-%u-%" PRIxPTR, what, from, (uintptr_t)w);
	return rte_ring_create_elem(name, elem_bytes, n, SOCKET_ID_ANY,
				    RING_F_SP_ENQ | RING_F_SC_DEQ);
}

/* Of the links whose owner it will be, see links_from_config(). */
static int backlogs_new(struct worker *w)
{
	for (unsigned i = w->index; i < w->st->cfg.tls_workers; i += w->st->n_workers) {
		w->backlog[i] = rte_zmalloc("backlog", sizeof(struct backlog), RTE_CACHE_LINE_SIZE);
		if (w->backlog[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

int worker_new(struct worker **out, struct state *st, uint16_t index, struct err *err)
{
	struct worker *w = rte_zmalloc("worker", sizeof(*w), RTE_CACHE_LINE_SIZE);
	int ret = -ENOMEM;

	if (w == NULL)
		return err_set(err, ret, "no memory for a worker");
	w->st = st;
	w->index = index;
	w->cycles_us = rte_get_tsc_hz() / 1000000;
	w->sweep_cycles = SWEEP_IDLE_CYCLES;
	w->step_flows = STEP_FLOWS;
	w->bindings = bindings_array(st->bindings);
	w->neighs = neighs_array(st->neighs);
	ret = idle_init(&w->idle);
	if (ret < 0) {
		err_set(err, ret, "eventfd: %s", strerror(-ret));
		goto fail;
	}
	ret = flow_table_new(&w->flows, st->cfg.flows_max, st->seed, SOCKET_ID_ANY);
	if (ret < 0) {
		err_set(err, ret, "no memory for %u flows", st->cfg.flows_max);
		goto fail;
	}
	ret = limits_new(&w->limits, &st->cfg.limits,
			 st->cfg.slots != 0 ? st->cfg.slots : st->cfg.bindings_max, st->n_workers,
			 SOCKET_ID_ANY);
	if (ret < 0) {
		err_set(err, ret, "no memory for the limits of %u devices", st->cfg.slots);
		goto fail;
	}
	limits_share(w->limits, st->shared_limits);
	ret = accounts_new(&w->accounts,
			   (st->cfg.slots != 0 ? st->cfg.slots : st->cfg.bindings_max) + 1);
	if (ret < 0) {
		err_set(err, ret, "no memory for a worker's accounts");
		goto fail;
	}
	ret = -ENOMEM;
	if (st->cfg.tls_workers > 0) {
		w->origins = rte_zmalloc("origins", sizeof(*w->origins), RTE_CACHE_LINE_SIZE);
		if (w->origins == NULL) {
			err_set(err, ret, "no memory for the origins of connections");
			goto fail;
		}
	}
	err_set(err, ret, "no memory for frames that TLS workers do not take at once");
	if (backlogs_new(w) < 0)
		goto fail;
	err_set(err, ret, "no memory for a worker's rings");
	w->commands = ring_new(w, "cmd", index, sizeof(void *), RING_COMMANDS);
	w->log = ring_new(w, "log", index, sizeof(struct msg_flow_log), RING_LOG);
	w->traced = ring_new(w, "trace", index, sizeof(struct msg_traced), RING_TRACED);
	if (w->commands == NULL || w->log == NULL || w->traced == NULL)
		goto fail;
	for (unsigned i = 0; st->n_workers > 1 && i < st->n_workers; i++) {
		w->from[i] = ring_new(w, "pkt", i, sizeof(void *), RING_PACKETS);
		if (w->from[i] == NULL)
			goto fail;
	}
	*out = w;
	return 0;
fail:
	worker_free(w);
	return ret;
}

static void ring_drain(struct rte_ring *r)
{
	void *m;

	while (r != NULL && rte_ring_dequeue(r, &m) == 0)
		rte_pktmbuf_free(m);
	rte_ring_free(r);
}

void worker_free(struct worker *w)
{
	if (w == NULL)
		return;
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		ring_drain(w->from[i]);
	for (unsigned i = 0; i < MSG_TLS_WORKERS_MAX; i++) {
		if (w->backlog[i] != NULL)
			backlog_drop(w->backlog[i]);
		rte_free(w->backlog[i]);
	}
	rte_ring_free(w->commands);
	rte_ring_free(w->log);
	rte_ring_free(w->traced);
	rte_free(w->origins);
	limits_free(w->limits);
	flow_table_free(w->flows);
	idle_fini(&w->idle);
	accounts_free(w->accounts);
	rte_free(w);
}

void worker_pin(struct worker *w, uint64_t now_us)
{
	w->now_us = now_us;
	w->now_ms = now_us / 1000;
	w->tick = flow_tick(now_us);
	/* Before the fib: with a new value comes a fib at least as new. */
	w->topo = atomic_load_explicit(&w->st->topo, memory_order_acquire);
	w->trust = atomic_load_explicit(&w->st->trust, memory_order_acquire);
	w->policy = atomic_load_explicit(&w->st->policy, memory_order_acquire);
	w->limit_table = w->policy != NULL
				 ? limit_table_pick(atomic_load_explicit(&w->st->limits,
									 memory_order_acquire),
						    w->policy->epoch)
				 : NULL;
	w->fib = atomic_load_explicit(&w->st->fib, memory_order_acquire);
	w->nexthops = w->fib != NULL ? fib_nexthop_array(w->fib) : NULL;
	w->epoch = w->policy != NULL ? (uint32_t)w->policy->epoch : 0;
	w->lane = w->trust != NULL && w->policy != NULL && w->fib != NULL &&
		  atomic_load_explicit(&w->st->ready, memory_order_acquire) &&
		  !atomic_load_explicit(&w->st->lane_off, memory_order_relaxed);
	w->tls_up = links_up(w->st);
	w->trace = trace_armed(w->st, now_us);
	w->lane &= w->trace == NULL;
	w->pickup = w->now_ms < atomic_load_explicit(&w->st->pickup_until_ms, memory_order_relaxed);
}

/* What the kernel sends has been judged there. */
static unsigned from_kernel(struct worker *w, uint16_t port)
{
	struct port *p = &w->st->ports[port];
	struct rte_mbuf *pkt[BURST_MAX];
	uint16_t n = rte_eth_rx_burst(p->tap_eth, 0, pkt, BURST_MAX);
	uint64_t bytes[BURST_MAX];
	uint16_t sent;

	if (n == 0)
		return 0;
	for (uint16_t i = 0; i < n; i++)
		bytes[i] = rte_pktmbuf_pkt_len(pkt[i]);
	sent = rte_eth_tx_burst(p->eth, port_tx_queue(p, w->index), pkt, n);
	for (uint16_t i = 0; i < sent; i++)
		w->stats.port[port].tx_bytes += bytes[i];
	w->stats.port[port].tx_packets += sent;
	w->stats.port[port].from_kernel += sent;
	w->stats.drops[DROP_TX_FULL] += n - sent;
	if (sent < n)
		rte_pktmbuf_free_bulk(pkt + sent, n - sent);
	return n;
}

static unsigned from_queue(struct worker *w, uint16_t port, uint16_t queue)
{
	struct burst in;

	in.n = rte_eth_rx_burst(w->st->ports[port].eth, queue, in.pkt, BURST_MAX);
	if (in.n == 0)
		return 0;
	w->stats.port[port].rx_packets += in.n;
	w->stats.packets += in.n;
	w->stats.bursts++;
	for (uint16_t i = 0; i < in.n; i++)
		w->stats.port[port].rx_bytes += rte_pktmbuf_pkt_len(in.pkt[i]);
	path_run(w, &in, port);
	emit_burst(w, &in);
	return in.n;
}

static unsigned from_port(struct worker *w, uint16_t port)
{
	const struct port *p = &w->st->ports[port];
	unsigned work = 0;

	for (uint16_t q = port_queue_first(p, w->index); q < p->queues.rx; q += w->st->n_workers)
		work += from_queue(w, port, q);
	return p->owner == w->index ? work + from_kernel(w, port) : work;
}

/* Packets of other workers: to judge here, or judged there and to be sent by us. */
static unsigned from_worker(struct worker *w, uint16_t other)
{
	void *pkt[BURST_MAX];
	struct burst judge = {0};
	unsigned n = rte_ring_sc_dequeue_burst(w->from[other], pkt, BURST_MAX, NULL);

	for (unsigned i = 0; i < n; i++) {
		struct pkt *p = pkt_of(pkt[i]);

		if (p->edge == EDGE_AWAY) {
			p->edge = EDGE_DROP;
			burst_push(&judge, pkt[i]);
		} else {
			emit_put(w, pkt[i]);
		}
	}
	if (judge.n > 0) {
		w->stats.packets += judge.n;
		w->stats.bursts++;
		path_run(w, &judge, PORT_ANY);
		emit_burst(w, &judge);
	}
	return n;
}

/* Take a step of a command that is under way; it is the asker's again when it is done. */
static void command_step(struct worker *w, struct command **at)
{
	struct command *c = *at;

	if (c == NULL || !worker_command_step(w, c))
		return;
	*at = NULL;
	sem_post(&c->done);
}

/* @param cycles  that this round's packets took; 0: there were none */
static unsigned commands_step(struct worker *w, uint64_t cycles)
{
	void *next;

	if (w->command == NULL && rte_ring_sc_dequeue(w->commands, &next) == 0) {
		struct command *c = next;

		if (c->kind == COMMAND_SWEEP)
			w->sweep = c;
		else
			w->command = c;
	}
	if (w->command == NULL && w->sweep == NULL)
		return 0;
	w->sweep_cycles = cycles != 0 ? cycles / SWEEP_SHARE : SWEEP_IDLE_CYCLES;
	w->step_flows = cycles != 0 ? STEP_FLOWS_BUSY : STEP_FLOWS;
	command_step(w, &w->command);
	command_step(w, &w->sweep);
	return 1;
}

static unsigned worker_round(struct worker *w)
{
	uint64_t start = rte_rdtsc();
	unsigned work = 0;

	worker_pin(w, clock_near_us());
	for (uint16_t i = 0; i < w->st->n_ports; i++) {
		if (port_present(&w->st->ports[i]) && w->st->ports[i].eth != PORT_ETH_NONE)
			work += from_port(w, i);
	}
	for (uint16_t i = PORT_LINKS; i < PORT_LINKS + w->st->cfg.tls_workers; i++) {
		if (w->st->ports[i].owner == w->index && port_present(&w->st->ports[i]) &&
		    w->st->ports[i].eth != PORT_ETH_NONE)
			work += from_queue(w, i, 0);
	}
	if (w->st->n_workers > 1) {
		for (uint16_t i = 0; i < w->st->n_workers; i++)
			work += i != w->index ? from_worker(w, i) : 0;
	}
	work += commands_step(w, work > 0 ? rte_rdtsc() - start : 0);
	work += emit_flush(w);
	(void)worker_age(w); /* what is left of it keeps us awake, see idle.c */
	w->stats.flows = flow_count(w->flows);
	return work;
}

/* A worker reads bytes from outside and needs no privilege for it: ports are open already. */
static void drop_privileges(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	syscall(SYS_capset, &head, none);
}

int worker_run(void *arg)
{
	struct worker *w = arg;
	uint64_t before = rte_rdtsc(), now;
	sigset_t all;

	sigfillset(&all); /* signals, the TAP PMD's SIGIO too, are the control thread's */
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	drop_privileges();
	rte_rcu_qsbr_thread_register(w->st->qsbr, w->index);
	rte_rcu_qsbr_thread_online(w->st->qsbr, w->index);
	while (!atomic_load_explicit(&w->st->stop, memory_order_relaxed)) {
		bool busy = worker_round(w) > 0;

		rte_rcu_qsbr_quiescent(w->st->qsbr, w->index);
		now = rte_rdtsc();
		w->stats.total_cycles += now - before;
		if (busy)
			w->stats.busy_cycles += now - before - w->lent_cycles;
		w->lent_cycles = 0;
		if (!w->st->cfg.poll_always)
			idle_after(w, busy);
		before = rte_rdtsc();
		w->stats.total_cycles += before - now; /* asleep is not busy */
	}
	rte_rcu_qsbr_thread_offline(w->st->qsbr, w->index);
	rte_rcu_qsbr_thread_unregister(w->st->qsbr, w->index);
	return 0;
}

void worker_post(struct worker *w, struct command *c)
{
	sem_init(&c->done, 0, 0);
	/* One asker, one command and one sweep at a time: there is always room. */
	rte_ring_sp_enqueue(w->commands, c);
	idle_wake(w);
}

void worker_ask(struct worker *w, struct command *c)
{
	worker_post(w, c);
	while (sem_wait(&c->done) < 0 && errno == EINTR)
		;
	sem_destroy(&c->done);
}
