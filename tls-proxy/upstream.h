/* SPDX-License-Identifier: GPL-3.0-or-later */
/* upstream: a listener's upstreams as one worker sees them: whose turn it is, who answers, how to begin. Checks, and
 * sessions that cannot connect, find out who is down; a listener's only upstream is never out of turn, and not checked.
 * The worker's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/gateway.h"
#include "tls-proxy/session.h"
#include "tls-proxy/stream.h"

struct listener;
struct worker;

struct upstream_probe { /* one check, under way while its stream is open */
	struct stream stream;
	struct session *tls;
	bool connected;
	uint64_t deadline_ms, next_ms; /* boot clock */
};

struct upstream {
	struct listener *l;
	const struct gw_upstream *cfg;
	bool down;
	uint32_t streak; /* results in a row that speak against `down` */
	int32_t credit; /* smooth weighted round-robin */
	struct upstream_probe probe;
	uint32_t sessions; /* connected now; of this listener, also once it is retired */
	uint64_t connected, failed, checks, checks_failed; /* since the worker started */
	uint64_t failed_ms; /* boot clock, of why; 0: never */
	char why[64]; /* of the last failure */
};

struct upstreams {
	struct upstream list[GW_UPSTREAMS_MAX];
	uint32_t n;
	struct tls_ctx tls; /* no certs: plain TCP */
};

/** Read the TLS files, as root. @return 0 or -errno; text in err */
int upstreams_open(struct listener *l, struct err *err);
void upstreams_close(struct listener *l); /* takes a half-built one */
void upstreams_rest(struct listener *l); /* no check goes on */
void upstreams_tick(struct listener *l, uint64_t now_ms); /* checks begin and run out */

/** Whose turn is it among those that are up? @param allowed a bit for each. @return index, or -EHOSTUNREACH */
int upstream_pick(struct listener *l, uint32_t allowed);

/**
 * Begin to connect; STREAM_WRITE is wanted. The session of a TLS upstream speaks first, once connected.
 * @param alpn protocol that the device agreed on; NULL: none
 * @param[out] tls NULL for plain TCP; caller owns
 * @return 0 or -errno: s is closed
 */
int upstream_dial(struct listener *l, unsigned i, struct stream *s, struct session **tls,
		  const char *alpn);

bool upstreams_checked(const struct listener *l); /* by themselves, beside what sessions find */
/** The same ones in another listener, which takes this one's place, go on as they are known. */
void upstreams_inherit(struct listener *l, const struct listener *from);

/** A session reached it, or could not. */
void upstream_worked(struct listener *l, unsigned i);
void upstream_left(struct listener *l, unsigned i); /* one that had reached it ends */
void upstream_failed(struct listener *l, unsigned i, const char *why);
