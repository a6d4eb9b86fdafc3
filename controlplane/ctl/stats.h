/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stats: the gateway's counters as tables, and as rates between two readings. The list of parts and columns here is
 * what `sallyctl stats` and `sallyctl top` print. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "controlplane/ctl/args.h"

/** The command. @return exit code */
int stats_run(json_t *req, const struct args *a, const char *const *word, FILE *to);

/** Print the parts that the answer has. every: also rows in which all counters are zero */
void stats_print(const json_t *r, bool every, FILE *to);

/**
 * What happened between two answers, a second: counters become rates, gauges stay, an lcore's shares are those of the
 * time between. A row that is new, or a counter that went back, counts from zero.
 * @return an object like `now`; caller owns
 */
json_t *stats_rate(const json_t *before, const json_t *now);
