/* SPDX-License-Identifier: GPL-3.0-or-later */
/* doors: whose packets are the TLS workers': listeners, their upstreams, and the addresses that speak to these. They come
 * and go while workers run: published whole (state.doors), the old ones freed after a grace period. Control thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"

struct state;

struct doors {
	uint64_t listener_ports; /* bit (port % 64) is set if some listener could match */
	uint64_t upstream_ports; /* the same of the TLS workers' upstreams */
	uint16_t n_listeners, n_upstreams, n_sources;
	struct msg_listener listeners[MSG_LISTENERS_MAX];
	struct msg_upstream upstreams[MSG_UPSTREAMS_MAX];
	struct ip_addr sources[MSG_SOURCES_MAX];
};

/** Those of a checked configuration. @return NULL: no memory; free() */
struct doors *doors_new(const struct msg_dp_config *cfg);
/** Are the doors of two configurations the same? */
bool doors_differ(const struct msg_dp_config *a, const struct msg_dp_config *b);
/** Have the workers use them. Takes them over, returns when nobody uses the old ones; what flows remember of them is void. */
void doors_publish(struct state *st, struct doors *d);
/** Leave in `c` what is no door, for comparisons. */
void doors_forget(struct msg_dp_config *c);
