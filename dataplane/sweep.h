/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sweep: the agent's orders to close what is no longer current, and to count it. Nothing waits for them: such a flow dies
 * on its next packet anyway, so workers sweep with a small share of their time while packets come, and the control
 * thread serves other messages meanwhile. Orders that come while a sweep is under way are carried out together by the
 * next one. Control thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"
#include "dataplane/state.h"
#include "dataplane/worker.h"

#define SWEEP_ORDERS_MAX 128 /* at a time; of later ones the agent hears that they were not done */

struct sweeper {
	struct msg_sweep now[SWEEP_ORDERS_MAX], next[SWEEP_ORDERS_MAX];
	uint32_t n_now, n_next;
	struct command command[WORKERS_MAX]; /* of the sweep under way */
	bool done[WORKERS_MAX];
	bool running;
};

/** @return 0, -EAGAIN: too many wait, or -EPROTO: more slots than there can be */
int sweep_order(struct sweeper *s, const struct msg_sweep *m);

/**
 * Begin what waits, collect what is done.
 * @param reply  called with each order that is done: closed (in one of them, if several were carried out together) and
 *               last_forward_us are set; returns 0 or -errno, which ends the step
 */
int sweep_step(struct sweeper *s, struct state *st, int (*reply)(void *arg, struct msg_sweep *m),
	       void *arg);

static inline bool sweep_busy(const struct sweeper *s)
{
	return s->running || s->n_next > 0;
}

/** Wait for the workers, while they run, and forget all orders: the agent is gone, or we are. */
void sweep_drop(struct sweeper *s, struct state *st);
