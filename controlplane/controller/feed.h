/* SPDX-License-Identifier: GPL-3.0-or-later */
/* feed: serves the decision log to gateways on the embedded transport (frame.h). A gateway subscribes from its revision
 * and gets every entry after it, heartbeats, and a snapshot when it asks. What a gateway says is bounded and only
 * recorded: it can cost itself the connection, nothing else.
 * One thread, non-blocking; poll feed_fd() for reading (always the same epoll descriptor). */
#pragma once

#include <stdint.h>

#include "controlplane/controller/journal.h"
#include "controlplane/controller/state.h"

#define FEED_GATEWAYS_MAX 64

struct feed;

struct feed_config {
	const char *path; /* of the socket; copied */
	uint32_t heartbeat_ms, lease_ms;
	/* borrowed, must outlive the feed */
	struct journal *journal;
	struct state *state;
	const struct cose_signer *signer;
	/** A receipt came (already recorded). It answers all revisions from `covers` to its own: more than one after a
	 * snapshot. */
	void (*receipt)(void *arg, const struct receipt *r, uint64_t covers);
	void (*gone)(void *arg, const char *gateway); /* a subscribed gateway's connection ended */
	void *arg;
};

/** @param[out] out caller owns, feed_free(); untouched on error. @return 0 or -errno; text in err */
int feed_new(struct feed **out, const struct feed_config *cfg, struct err *err);
void feed_free(struct feed *f); /* NULL is a no-op; calls no gone() */
int feed_fd(const struct feed *f);
void feed_dispatch(struct feed *f, uint64_t now_boot_ms, uint64_t now_wall_ms);
void feed_tick(struct feed *f, uint64_t now_boot_ms,
	       uint64_t now_wall_ms); /* heartbeats; call at least every 250 ms */
/** The log grew: send it to everyone. */
void feed_push(struct feed *f);
/** Subscribed gateways. */
void feed_gateways(const struct feed *f,
		   void (*each)(void *arg, const char *gateway, uint64_t sent), void *arg);
