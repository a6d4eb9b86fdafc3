/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apply: the agent's messages, turned into what workers see. Control thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "dataplane/state.h"

struct apply;

/** @param st  borrowed, outlives it @return 0 or -ENOMEM */
int apply_new(struct apply **out, struct state *st);
/** Unmaps trust table and policies: workers have ended. NULL is a no-op. */
void apply_free(struct apply *a);

/**
 * Map the trust table that WELCOME names, and use it. Another instance than before: all flows, and the policy, are
 * forgotten, and nothing passes until the next sync is complete.
 * @param running  workers run, so they are asked; else their tables are still empty
 */
int apply_trust(struct apply *a, const char *path, bool running, struct err *err);

/**
 * Apply one message: SYNC_*, POLICY_*, ROUTE_*, NEIGH_*, BIND_*.
 * @param fd  the descriptor that came with it, or -1; the caller closes it
 * @return 0; -EPROTO: the message is impossible, its sender must go; else -errno to be reported
 */
int apply_message(struct apply *a, const union msg_any *m, int fd, struct err *err);

/** Publish routes that are noted and not yet in force. @return 0 or -ENOMEM */
int apply_flush(struct apply *a);

/** The same, but at most every 50 ms: each publication makes every flow look up its routes again. Call when the socket
 * has run dry, and again after *wait_ms. @param[out] wait_ms  lowered to when it is due; untouched if nothing is */
int apply_flush_due(struct apply *a, uint64_t now_ms, uint64_t *wait_ms);
