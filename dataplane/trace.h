/* SPDX-License-Identifier: GPL-3.0-or-later */
/* trace: packets looked at on their way. While a trace is armed, every packet takes every stage by itself, and path.c
 * notes after each what it made of the packet; packets that fit the filter go by a ring to the control thread. Nothing
 * waits: a full ring loses records. With none armed it costs one load a burst.
 * The control thread arms and disarms; a worker reads the trace that it has pinned for the burst. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"
#include "dataplane/pkt.h"
#include "dataplane/state.h"

struct trace {
	struct msg_trace_filter filter;
	uint64_t id;
	uint64_t until_us; /* boot clock */
	_Atomic int32_t left; /* packets to be recorded; workers count down */
};

/** The trace in force at this moment; NULL: none, or it has expired. Any worker. */
static inline const struct trace *trace_armed(const struct state *st, uint64_t now_us)
{
	const struct trace *t = atomic_load_explicit(&st->trace, memory_order_acquire);

	return t == NULL || now_us >= t->until_us ? NULL : t;
}

/* Control thread. */
int trace_arm(struct state *st, const struct msg_trace_arm *m,
	      uint64_t now_us); /* 0, -ENOMEM, -EPROTO */
void trace_disarm(struct state *st); /* in force at all workers on return; none armed is a no-op */
/** Disarm what has expired or is complete. */
void trace_tick(struct state *st, uint64_t now_us);

/* Worker: what path.c calls, in order. A stage that does not let the packet on is noted by its edge. */
void trace_begin(const struct worker *w, struct rte_mbuf *m, struct msg_traced *r);
void trace_parsed(const struct pkt *p, struct msg_traced *r);
void trace_guarded(const struct worker *w, const struct pkt *p, struct msg_traced *r);
/** The packet is a TLS worker's. */
void trace_linked(const struct pkt *p, struct msg_traced *r);
void trace_diverted(const struct pkt *p, struct msg_traced *r);
void trace_routed(const struct pkt *p, struct msg_traced *r);
/** Before the flow stage: what it will find. */
void trace_flow(const struct worker *w, const struct pkt *p, struct msg_traced *r);
void trace_flowed(const struct worker *w, const struct pkt *p, struct msg_traced *r);
void trace_end(struct rte_mbuf *m, struct msg_traced *r);

/** Does the record fit the filter? Pure. */
bool trace_fits(const struct msg_trace_filter *f, const struct msg_traced *r);
/** Hand the record over if it fits, and if there is room. */
void trace_record(struct worker *w, struct msg_traced *r);
