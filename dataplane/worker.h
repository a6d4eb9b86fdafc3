/* SPDX-License-Identifier: GPL-3.0-or-later */
/* worker: one lcore that runs packets to completion. It owns its flow table, counters and transmit buffers. A port
 * with several queues has some for each worker; one without has an owner, which receives and sends for all. With more
 * than one worker, a packet goes after parsing to the worker that its flow's hash names, over a ring a pair of workers;
 * with one there is no such step. */
#pragma once

#include <rte_ring.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "dataplane/account.h"
#include "dataplane/backlog.h"
#include "dataplane/flow.h"
#include "dataplane/flow_log.h"
#include "dataplane/idle.h"
#include "dataplane/limit.h"
#include "dataplane/origins.h"
#include "dataplane/pkt.h"
#include "dataplane/state.h"

#define TX_BUFFER (2 * BURST_MAX)

/* The worker writes, the control thread reads: relaxed 64-bit loads and stores, each counter by itself. */
struct worker_stats {
	uint64_t drops[DROP_REASON_COUNT];
	uint64_t forwarded, diverted, admissions, refusals;
	uint64_t lane; /* packets that the fast lane judged */
	uint64_t flows; /* now */
	uint64_t busy_cycles,
		total_cycles; /* busy: rounds with packets, without what TLS workers had of them */
	uint64_t packets, bursts; /* of ports and other workers; bursts that were not empty */
	uint64_t handed,
		ring_dropped; /* packets to other workers; of those, that found the ring full */
	struct {
		uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, to_kernel, from_kernel;
	} port[PORTS_ALL];
};

enum command_kind {
	COMMAND_SWEEP,
	COMMAND_LIST,
	COMMAND_ORIGIN, /* when flow_peek() cannot tell */
	COMMAND_FORGET,
	COMMAND_TALLY,
	COMMAND_NOTHING
};

/* COMMAND_LIST: which flows, and in what order. */
struct flow_filter {
	uint16_t segment; /* at either end; 0: any */
	uint16_t rule; /* of the policy in force; MSG_ANY: any */
	uint8_t state; /* enum flow_state; 0xff: any */
	uint8_t order; /* enum msg_flows_order; with one, `list` keeps the largest `room` of all flows */
};

/* COMMAND_SWEEP: whose flows. */
struct sweep_slots {
	uint32_t n; /* 0: everybody's */
	uint32_t slot[MSG_SWEEP_SLOTS];
	uint64_t some; /* bit slot % 64 of each: most flows are told by this */
};

/* A question of the control thread to one worker. Lives with the control thread until `done` is posted. */
struct command {
	enum command_kind kind;
	uint32_t slot; /* LIST: only flows of this slot; 0: all */
	struct sweep_slots sweep; /* SWEEP */
	struct flow_key id; /* ORIGIN: canonical */
	struct flow_filter filter; /* LIST */
	struct account_query tally; /* TALLY: reply, added to */
	uint64_t tally_at; /* TALLY: 0 */
	uint32_t
		cursor; /* the worker's; LIST: first index to look at; reply: where to go on, 0 = end */
	uint32_t room; /* LIST: entries in `list` */
	struct msg_flow_info *list; /* LIST: reply */
	uint32_t count; /* reply. SWEEP: closed; LIST: entries; ORIGIN: 1 = found */
	uint64_t last_forward_us; /* SWEEP: reply */
	struct flow_origin origin; /* ORIGIN: reply */
	sem_t done;
};

struct worker {
	struct state *st;
	struct flow_table *flows;
	struct limits *limits;
	struct origins *origins; /* NULL: nothing to remember */
	struct accounts *accounts;
	uint16_t index;

	/* pinned for one burst: loaded once, so that a burst sees one state */
	const struct trust_table *trust;
	const struct policy_form *policy;
	const struct limit_table *limit_table; /* of policy */
	const struct fib *fib;
	const struct nexthop *nexthops; /* of fib */
	const struct binding *bindings; /* all, by index; constant */
	const struct neigh *neighs; /* all, by index; constant */
	uint64_t now_us, now_ms; /* boot clock */
	uint32_t tick; /* now, as flows count it */
	uint32_t topo;
	uint32_t epoch; /* of policy, low half */
	bool pickup;
	bool lane; /* all is there that the fast lane needs */
	bool judging; /* judge.c's: a rule's meters are not its to charge */
	uint32_t tls_up; /* bit N: TLS worker N is there */
	struct { /* of TLS workers; topo + 1 when that was last so, 0: never */
		uint64_t guarded; /* the guard took a packet of it */
		uint64_t routed; /* a packet to it went the way of `hint`, see lane.h */
		uint32_t hint;
	} upstream[MSG_UPSTREAMS_MAX];
	const struct trace *trace; /* packets are looked at on their way; NULL: not */

	struct idle idle;
	struct rte_ring *from[WORKERS_MAX]; /* mbufs of other workers; NULL with one worker */
	struct rte_ring *commands; /* struct command *, from the control thread */
	struct rte_ring *log; /* struct msg_flow_log, to the control thread */
	struct rte_ring *traced; /* struct msg_traced, to the control thread */
	struct command *command; /* under way */
	struct command *sweep; /* under way beside it */
	uint64_t sweep_cycles; /* how long a step of a sweep may take */
	uint64_t cycles_us; /* of the clock of cycles in a microsecond */
	uint64_t lent_cycles; /* of this round: a TLS worker had our core */
	uint32_t step_flows; /* how many flows a step of another command may look at */
	uint32_t age_at; /* index of the flow that ageing looked at last */
	uint64_t aged_ms;
	uint64_t age_due; /* flows that ageing is behind by */
	struct flow_log flow_log;

	struct {
		uint16_t n;
		struct rte_mbuf *pkt[TX_BUFFER];
	} tx[PORTS_ALL], kernel[MSG_PORTS_MAX], away[WORKERS_MAX];

	struct backlog *backlog[MSG_TLS_WORKERS_MAX]; /* of links that are ours; NULL: none */

	struct worker_stats stats;
};

int worker_new(struct worker **out, struct state *st, uint16_t index, struct err *err);
void worker_free(struct worker *w); /* NULL is a no-op */

/** The lcore's main function; arg is the worker. Returns 0 when state.stop is set. */
int worker_run(void *arg);

/**
 * Hand a command over; `done` is posted when it is carried out. One sweep at a time, and of the others one at a time.
 * Control thread, while workers run.
 */
void worker_post(struct worker *w, struct command *c);
/** The same, and wait for it. */
void worker_ask(struct worker *w, struct command *c);

/** Do a step of a command: at most a few thousand flows. Worker, or a test in its place. @return true: finished */
bool worker_command_step(struct worker *w, struct command *c);

/** Load the published pointers and the time for one burst. */
void worker_pin(struct worker *w, uint64_t now_us);

/** Forget flows that were idle for too long; a bounded step. Between bursts. @return true: there is more to do now */
bool worker_age(struct worker *w);
