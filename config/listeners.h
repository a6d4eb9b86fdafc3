/* SPDX-License-Identifier: GPL-3.0-or-later */
/* listeners: what a gateway.cfg that is read again says of the listeners that run: which of them stay, and what else of
 * the file has changed and cannot come into force while the gateway runs. Pure; agent and TLS workers ask the same. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/gateway.h"

/** Address, port and protocol: what a device knows of a listener. */
bool gw_listener_same_door(const struct gw_listener *a, const struct gw_listener *b);
/** The same, and who carries it: such a listener stays, whatever else of it changes. */
bool gw_listener_same_place(const struct gw_listener *a, const struct gw_listener *b);
/** Is every key the same? Where it stands in the file does not count. */
bool gw_listener_same_keys(const struct gw_listener *a, const struct gw_listener *b);

/** Of the upstreams alone, in their order: what a bit of msg_admitted.relay means. Never 0. */
uint64_t gw_listener_upstreams_hash(const struct gw_listener *l);
/** Of all listeners and all their keys, in whatever order. */
uint64_t gw_listeners_hash(const struct gw_config *cfg);

/**
 * May the listeners of `next` come into force in a gateway that was started with `now`?
 * @return 0, or -ENOTSUP and the first key in err that needs a restart: "FILE: KEY: why"
 */
int gw_reload_check(const struct gw_config *now, const struct gw_config *next, struct err *err);
