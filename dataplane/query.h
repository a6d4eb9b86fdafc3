/* SPDX-License-Identifier: GPL-3.0-or-later */
/* query: the agent's questions about flows and counters. Control thread only; workers must be running. */
#pragma once

#include <stdint.h>

#include "config/base/msg.h"
#include "dataplane/state.h"

/** Fill the reply in place: found, mac, port, vlan. */
void query_origin(struct state *st, struct msg_flow_origin *m);
/** Add what the workers count: all but the header, bindings, links and the NICs' own word. Any thread. */
void query_counters(const struct state *st, struct msg_stats *m);
/** All but the header. */
void query_stats(struct state *st, struct msg_stats *m);

/**
 * Hand the flows that `get` asks for to `each`, which returns 0 or -errno to stop. With an order, each worker's largest
 * ones, not sorted.
 * @return 0 or what `each` returned, or -ENOMEM
 */
int query_flows(struct state *st, const struct msg_flows_get *get,
		int (*each)(void *arg, struct msg_flow_info *info), void *arg);

/**
 * Hand the lists that `get` asks for to `each`, part by part; entries without a count are left out.
 * @return 0 or what `each` returned, or -ENOMEM
 */
int query_tallies(struct state *st, const struct msg_tallies_get *get,
		  int (*each)(void *arg, struct msg_tallies *part), void *arg);

/** Of the worker with this index. Any thread. */
void query_lcore(const struct state *st, unsigned worker, struct msg_tally_lcore *out);
