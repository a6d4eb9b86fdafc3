/* SPDX-License-Identifier: GPL-3.0-or-later */
/* judge: what would happen to the first packet of a flow? For `sallyctl why`: a packet is made and sent through the real
 * stages, with a flow table and counters of its own, and to nowhere; so the answer cannot differ from what packets
 * meet. A rule's rate is left out: it depends on the moment. Control thread only. */
#pragma once

#include "config/base/msg.h"
#include "dataplane/state.h"

struct judge;

/** @param st  borrowed, outlives it @return 0 or -ENOMEM */
int judge_new(struct judge **out, struct state *st);
void judge_free(struct judge *j); /* NULL is a no-op */

/**
 * The packet enters where its source is bound, or where the route to its source leads, or at the first uplink. One whose
 * source is behind a port that the dataplane has not is not sent: edge KERNEL at stage PARSE.
 * @return 0; -EINVAL: no such packet can be made (protocol, mixed families)
 */
int judge_flow(struct judge *j, const struct msg_judge *m, struct msg_traced *out);
