/* SPDX-License-Identifier: GPL-3.0-or-later */
/* trace: `sallyctl trace FILTER`: the way of the next packets through the gateway, printed as they come. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "config/base/err.h"
#include "controlplane/ctl/args.h"

/** The command. Ends when the packets are complete, its time is over, or by SIGINT, SIGTERM: then it ends the trace.
 * @return exit code: CTL_REFUSED if no packet came */
int trace_run(json_t *req, const struct args *a, const char *const *word, FILE *to);

/**
 * A filter's words to the request's object: "src 10.7.0.11 dst 10.20.0.10 proto tcp dport 554", "tcp/554",
 * "device NAME", "port dev", "vlan 20", "drop", "reason denied". Pure.
 * @param word  ends with NULL
 * @param[out] out  caller owns; untouched on error
 * @return 0 or -EINVAL with text in err
 */
int trace_filter_words(json_t **out, const char *const *word, struct err *err);

/** One packet, stage by stage. */
void trace_print(const json_t *packet, unsigned number, FILE *to);
