/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pending: commands whose decision is in the log, waiting for the gateways' receipts. Each is answered when every gateway
 * that was connected has answered or left, or at its deadline. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "controlplane/api_server.h"
#include "controlplane/frame.h"

struct feed;
struct pending;

/** Wait for the gateways that `feed` has now; answers at once if there are none. Takes over the call. */
void pending_add(struct pending **list, struct api_call *call, const struct feed *feed,
		 uint64_t revision, const uint8_t hash[32], uint64_t deadline_boot_ms);
/** A receipt that answers revisions `covers` to r->revision. */
void pending_receipt(struct pending **list, const struct receipt *r, uint64_t covers);
void pending_gone(struct pending **list, const char *gateway);
void pending_tick(struct pending **list, uint64_t now_boot_ms);
void pending_free(struct pending **list); /* answers all of them "unavailable" */

/** For API answers. NULL: out of memory */
json_t *receipt_json(const struct receipt *r);
