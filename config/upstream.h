/* SPDX-License-Identifier: GPL-3.0-or-later */
/* upstream: the keys of a listener that say where its plaintext goes. A part of gateway.c's tables; nobody else needs it. */
#pragma once

#include "config/gateway.h"
#include "config/schema.h"

extern const struct schema_key upstream_keys[], upstream_check_keys[], upstream_tls_keys[];
extern const struct key_choice upstream_tlvs[];

/** "address:port", of a key on its own: the listener's only upstream. For KEY_EACH of struct gw_listener. */
int upstream_one(void *parent, const char *text, const char **why);
void *upstream_slot(void *parent); /* for KEY_GROUPS of struct gw_listener */

/** What no single key shows: none or both ways to name upstreams, one named twice, half a certificate. Paths are
 * resolved by the caller.
 * @param key "listeners.NAME", for messages */
void upstream_check(const struct gw_config *c, const struct gw_listener *l, const char *key,
		    struct config_errors *errs);
