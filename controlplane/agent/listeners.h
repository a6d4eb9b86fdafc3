/* SPDX-License-Identifier: GPL-3.0-or-later */
/* listeners: those of the agent's configuration as they change. Behind the file's come those that are there for their
 * sessions alone (gw_listener.left): whose place has other upstreams now, and whose place is gone. Everybody who asks the
 * configuration, nftables and the dataplane among them, so goes on knowing them. Pure. */
#pragma once

#include "config/base/err.h"
#include "config/gateway.h"

#define LISTENERS_NONE 0xff /* the index of a listener that is not there (any more) */
#define LISTENERS_LINGER_MS 3000 /* a removed listener's last words reach its devices */

struct listeners {
	uint32_t n;
	struct gw_listener list[MSG_LISTENERS_MAX];
	uint8_t was[MSG_LISTENERS_MAX]; /* by index before: its index now, or LISTENERS_NONE */
	uint32_t added, changed, removed;
};

/**
 * What comes into force when `next` is read.
 * @param sessions  of each listener of `now`
 * @return 0, or -ENOSPC in err
 */
int listeners_merge(struct listeners *out, const struct gw_config *now,
		    const struct gw_config *next, const uint32_t *sessions, uint64_t now_ms,
		    struct err *err);

/** The same as time goes on: those that left and are not needed any more go. @return true: some went */
bool listeners_expire(struct listeners *out, const struct gw_config *now, const uint32_t *sessions,
		      uint64_t now_ms);

/** Put them into the configuration. */
void listeners_take(struct gw_config *cfg, const struct listeners *l);
