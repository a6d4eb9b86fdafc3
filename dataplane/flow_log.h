/* SPDX-License-Identifier: GPL-3.0-or-later */
/* flow_log: what the agent writes about flows: starts under log = true, and refusals. Never waits: there is a share for
 * each a second, so that a flood of refusals cannot push starts out, and what is left out is counted and said when the
 * second has ended. Worker. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"

#define FLOW_LOG_REFUSALS_PER_S 32
#define FLOW_LOG_STARTS_PER_S 1000

struct worker;
struct admission;

struct flow_log { /* of a worker */
	uint64_t second;
	uint32_t starts, refusals; /* sent in it */
	uint64_t limited; /* bits of enum drop_reason of which one was sent */
	uint32_t left[DROP_REASON_COUNT]; /* not sent */
	bool any_left;
};

_Static_assert(DROP_REASON_COUNT <= 64, "bits of flow_log.limited");

/** A start (DROP_NONE; only under log = true) or a refusal. */
void flow_log_note(struct worker *w, const struct flow_key *key, const struct admission *a,
		   enum drop_reason why);
/** Is a refusal by a limit to be noted, or only counted? One a second and reason is. */
bool flow_log_wants(struct worker *w, enum drop_reason why);
/** Note what flow_log_wants(). */
void flow_log_send(struct worker *w, const struct flow_key *key, const struct admission *a,
		   enum drop_reason why);
/** Both. */
void flow_log_limited(struct worker *w, const struct flow_key *key, const struct admission *a,
		      enum drop_reason why);
/** Say what was left out in a second that has ended. Between bursts. */
void flow_log_tick(struct worker *w);
