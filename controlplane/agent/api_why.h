/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api_why: `sallyctl why`: for a device or a flow, what is known, what follows, by which line, and until when.
 * Calls the same decide() and policy_lookup() as the live path. */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

/** {"device": name} or {"src","dst","proto","dport","sport"}; answers the call. */
void api_why(struct agent *a, struct api_call *call, json_t *request);

/** A device by its name, of whatever kind. @return NULL if there is none (api.c) */
struct device *api_device(struct agent *a, const char *name);
