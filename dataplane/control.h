/* SPDX-License-Identifier: GPL-3.0-or-later */
/* control: the conversation with the agent (config/base/msg.h), on the main lcore. It never touches a packet, and a
 * lost agent stops nothing: workers go on under the records' expiries while it knocks again. */
#pragma once

#include <signal.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "dataplane/apply.h"
#include "dataplane/state.h"

struct control {
	const char *path; /* of the agent's socket; borrowed */
	const volatile sig_atomic_t *stop; /* set by a signal; borrowed */
	int sock; /* -1: not connected */
	uint64_t instance;
	struct msg_dp_config cfg; /* in force since the first meeting */
	char trust_path[MSG_PATH_BYTES];
};

int control_init(struct control *c, const char *path, const volatile sig_atomic_t *stop);
void control_fini(struct control *c);

/** Knock until the agent has said WELCOME and DP_CONFIG. @return 0, or -EINTR: told to stop */
int control_first_meeting(struct control *c);

/**
 * Serve the agent until told to stop. Ports are up and workers run.
 * @return 0: stop; 1: the agent wants another configuration, start anew
 */
int control_run(struct control *c, struct state *st, struct apply *a);
