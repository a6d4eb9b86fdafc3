/* SPDX-License-Identifier: GPL-3.0-or-later */
/* limit: how many handshakes may be unfinished, and begin a second, of a listener and of each source. A source is an
 * IPv4 address or an IPv6 /64. Sources are in a table of a fixed size: one without an unfinished handshake gives its
 * place to the next; where all places of a bucket are taken, only the listener's limits hold for those who come. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/gateway.h"

#define LIMIT_BUCKETS 512
#define LIMIT_WAYS 4

struct limit_source {
	uint64_t key; /* keyed hash of the source; 0: free */
	uint64_t at_ms; /* of the tokens; boot clock */
	uint32_t open; /* unfinished handshakes */
	uint32_t tokens; /* thousandths of a handshake */
};

struct limit {
	uint64_t secret; /* strangers cannot choose their buckets */
	uint64_t at_ms;
	uint32_t tokens;
	struct limit_source sources[LIMIT_BUCKETS][LIMIT_WAYS];
};

enum limit_verdict { LIMIT_SOURCE_OPEN, LIMIT_SOURCE_RATE, LIMIT_RATE, LIMIT_TAKEN };

/** May a handshake begin? If so (LIMIT_TAKEN) limit_give() when it is over. */
enum limit_verdict limit_take(struct limit *m, const struct gw_listener *cfg,
			      const struct ip_addr *from, uint64_t now_ms);
void limit_give(struct limit *m, const struct ip_addr *from);
