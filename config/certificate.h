/* SPDX-License-Identifier: GPL-3.0-or-later */
/* certificate: the keys of a listener about its own certificates and what they are chosen by. A part of gateway.c's
 * tables; nobody else needs it. */
#pragma once

#include "config/gateway.h"
#include "config/schema.h"

extern const struct schema_key certificate_keys[];
extern const struct key_choice certificate_sni[];

void *certificate_slot(void *parent); /* for KEY_GROUPS of struct gw_listener */

/** One protocol of ALPN. For KEY_EACH of struct gw_listener. */
int certificate_alpn(void *parent, const char *text, const char **why);

/** What no single key shows: a name of two certificates, DTLS with what only TLS has.
 * @param key "listeners.NAME", for messages */
void certificate_check(const struct gw_config *c, const struct gw_listener *l, const char *key,
		       struct config_errors *errs);
