/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api_stats: counters and flows for `sallyctl stats`, `flows` and `top`. Asks the dataplane anew for each call. */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

/** {"what": "ports|reasons|rules|pairs|devices|lcores", default all, "device": name}; answers the call, later. */
void api_stats(struct agent *a, struct api_call *call, json_t *request);

/** {"device","segment","rule","state": names, "limit": n, "top": n, "by": "packets|bytes"}; answers the call, later. */
void api_flows(struct agent *a, struct api_call *call, json_t *request);

/* The parts of an answer, for tests. */
json_t *stats_ports(const struct gw_config *cfg, const struct msg_stats *s);
json_t *stats_reasons(const struct msg_stats *s);
json_t *stats_rules(const struct tallies *t);
json_t *stats_pairs(const struct tallies *t);
json_t *stats_lcores(const struct tallies *t);
