/* SPDX-License-Identifier: GPL-3.0-or-later */
/* reload: gateway.cfg once more while everything runs: its listeners, then its ports, then the policy's file. Of listeners
 * all comes into force, in TLS workers, dataplane and nftables, or nothing:
 *   read, check > every TLS worker reads its files and listens where it is new > dataplane and nftables know old and new >
 *   every TLS worker goes over > what is not needed any more goes (reload_tick()) */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

struct api_call;

/** SIGHUP. The log says what came of it. */
void reload_all(struct agent *a);
/** `sallyctl reload`: the same, with an answer. */
void reload_call(struct agent *a, struct api_call *call, json_t *request);
/** A TLS worker got SIGHUP: the same, with an answer to it. */
void reload_wanted(struct agent *a, struct peer *p, const struct msg_reload *m);
/** A TLS worker joined that runs other listeners than those in force. */
void reload_join(struct agent *a, const struct peer *p);

void reload_tick(struct agent *a, uint64_t now_ms);
void reload_fini(struct agent *a); /* peers are gone */
