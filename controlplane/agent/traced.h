/* SPDX-License-Identifier: GPL-3.0-or-later */
/* traced: a packet's way through the dataplane, in words. `trace` and `why` show the same records by this one function,
 * so they name the same reasons. */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

/** {verdict: forwarded|kernel|dropped, reason, text, rule, src, dst, ..., stages: [{stage, text}]}; a new reference.
 * m has passed msg_traced_check(). */
json_t *traced_json(struct agent *a, const struct msg_traced *m);
