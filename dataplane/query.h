/* SPDX-License-Identifier: GPL-3.0-or-later */
/* query: the agent's questions about flows and counters. Control thread only; workers must be running. */
#pragma once

#include <stdint.h>

#include "config/base/msg.h"
#include "dataplane/state.h"

/** Fill the reply in place: found, mac, port, vlan. */
void query_origin(struct state *st, struct msg_flow_origin *m);
/** Fill the reply in place: closed, last_forward_us. */
void query_sweep(struct state *st, struct msg_sweep *m);
/** All but the header. */
void query_stats(struct state *st, struct msg_stats *m);

/**
 * Hand at most `max` flows of `slot` (0: any) to `each`, which returns 0 or -errno to stop.
 * @return 0 or what `each` returned, or -ENOMEM
 */
int query_flows(struct state *st, uint32_t slot, uint32_t max,
		int (*each)(void *arg, struct msg_flow_info *info), void *arg);
