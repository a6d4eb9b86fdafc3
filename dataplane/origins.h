/* SPDX-License-Identifier: GPL-3.0-or-later */
/* origins: where the SYNs of connections to the TLS workers' stack came from, so that the answer finds its way back
 * though a SYN leaves no flow record. Small and lossy: a newer one takes an older one's place, and whoever is lost is
 * looked for by route and neighbour. By the hash of the flow, which nobody outside can compute: a forged SYN with
 * another's address does not move the other's answers. One a worker; only its worker touches it. */
#pragma once

#include <stdint.h>

#include "config/base/addr.h"

#define ORIGINS 4096 /* a flood of SYNs goes round in some 0.4 s, and an answer takes a few ms */
#define ORIGIN_TICKS (75 * 15625u) /* of 64 us: as long as a SYN is repeated */

struct origin {
	uint64_t hash; /* of the flow */
	uint32_t tick; /* when it was heard */
	struct mac_addr mac;
	uint16_t vlan;
	uint8_t port;
	uint8_t tls_worker; /* that it was given to, + 1; 0: this entry is none */
};

struct origins {
	struct origin entry[ORIGINS];
};

static inline struct origin *origins_place(struct origins *o, uint64_t hash)
{
	return &o->entry[(hash >> 12) % ORIGINS];
}

/** @return NULL: not known (any more) */
static inline const struct origin *origins_find(const struct origins *o, uint64_t hash,
						uint32_t tick)
{
	const struct origin *e;

	if (o == NULL)
		return NULL;
	e = &o->entry[(hash >> 12) % ORIGINS];
	return e->tls_worker != 0 && e->hash == hash && tick - e->tick < ORIGIN_TICKS ? e : NULL;
}
