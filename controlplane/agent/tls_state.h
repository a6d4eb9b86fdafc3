/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_state: what the TLS workers say of their listeners and upstreams, a second old at most: for `sallyctl listeners`,
 * `sallyctl upstreams` and the metrics. */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

struct api_call;

struct tls_state { /* of one worker; peer_data() */
	uint32_t n, n_coming;
	uint64_t at_ms; /* boot clock; 0: nothing was heard yet */
	bool asked;
	struct msg_tls_listener list[MSG_LISTENERS_MAX], coming[MSG_LISTENERS_MAX];
};

/** What a worker said last. @return NULL: nothing so far */
const struct tls_state *tls_state_of(struct peer *p);
void tls_state_tick(struct agent *a, uint64_t now_ms); /* ask all */
void tls_state_left(struct peer *p); /* it is gone */

void api_listeners(struct agent *a, struct api_call *call, json_t *request);
void api_upstreams(struct agent *a, struct api_call *call, json_t *request);
