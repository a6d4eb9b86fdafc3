/* SPDX-License-Identifier: GPL-3.0-or-later */
/* controller: the parts of the process, joined. Commands come in by the API, become decisions in the journal, go out by
 * the feed, and are answered when the gateways have sent their receipts. One thread. */
#pragma once

#include <stdint.h>

#include "controlplane/api_server.h"
#include "controlplane/controller/feed.h"
#include "controlplane/controller/journal.h"
#include "controlplane/controller/pending.h"
#include "controlplane/controller/state.h"

#define CONTROLLER_RECEIPT_MS 5000 /* how long a command waits for receipts */

struct controller {
	struct cose_signer *signer;
	struct journal *journal;
	struct state *state;
	struct feed *feed;
	struct api_server *api;
	struct pending *pending; /* list of commands that wait for receipts */
	uint64_t now_boot_ms, now_wall_ms; /* of the present turn of the loop */
};

/** An api_handler; arg is the struct controller. */
void command_handle(void *arg, struct api_call *call, const char *cmd, json_t *request);
