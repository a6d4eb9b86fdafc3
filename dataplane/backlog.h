/* SPDX-License-Identifier: GPL-3.0-or-later */
/* backlog: frames for a TLS worker that has not taken those before them, in their order. The worker's ring is short, so that
 * the same few buffers stay in the cache (tls-proxy/stack/port.c); what it has no room for waits here while the worker is
 * busy with something else. One worker of the dataplane, the link's owner. */
#pragma once

#include <stdint.h>

struct rte_mbuf;

#define BACKLOG_MAX 1024 /* frames; a power of two */
#define BACKLOG_US 50000 /* a TLS worker that takes none for so long is not merely busy */

struct backlog {
	uint64_t taken_us; /* when the TLS worker took one last, or the first came to wait */
	uint32_t at, n;
	struct rte_mbuf *pkt[BACKLOG_MAX];
};

/** Send those that wait, then those in pkt; what is not taken waits, as far as there is room. Gives the core to a TLS worker
 * that is on it before anything has to wait.
 * @param[out] sent_bytes  added to
 * @param[out] kept        how many of pkt left or wait; the others stay the caller's
 * @return frames that left */
uint32_t backlog_send(struct backlog *b, uint16_t eth, uint16_t queue, struct rte_mbuf **pkt,
		      uint16_t n, uint64_t now_us, uint16_t *kept, uint64_t *sent_bytes);

/** Free all if none was taken for BACKLOG_US. @return how many */
uint32_t backlog_expire(struct backlog *b, uint64_t now_us);

/** Free all. */
void backlog_drop(struct backlog *b);
