/* SPDX-License-Identifier: GPL-3.0-or-later */
/* peers: the agent's end of config/base/msg.h: the socket that the dataplane and the TLS workers connect to, who is
 * there, and requests that wait for a reply. Says nothing about what messages mean. Agent's main thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/base/msg.h"
#include "controlplane/agent/loop.h"

#define PEERS_MAX 80

struct peers;
struct peer;

struct peers_handler {
	/* After a good HELLO; send WELCOME and the rest from here. */
	void (*joined)(void *arg, struct peer *p);
	/* A message that is no reply. Its length fits its type. @return 0, or -EPROTO: the peer is cut off */
	int (*message)(void *arg, struct peer *p, const union msg_any *m);
	/* Gone, for whatever cause; p is freed on return. Its open requests have been failed before. */
	void (*left)(void *arg, struct peer *p);
};

/* The answer to a request; NULL: the peer is gone or did not answer in time. */
typedef void peer_done(void *arg, const union msg_any *reply);

/**
 * Listen. Peers may be root (or our own user) or `uid`, who is a TLS worker and can be nothing else.
 * @param[out] out  caller owns, peers_free(); untouched on error
 * @return 0 or -errno; text in err
 */
int peers_new(struct peers **out, struct loop *loop, const char *path, uid_t uid,
	      const struct peers_handler *handler, void *arg, struct err *err);
void peers_free(struct peers *ps); /* NULL is a no-op; removes the socket */

struct peer *peers_dataplane(struct peers *ps); /* NULL if none; the newest counts */
uint32_t peers_tls(struct peers *ps, struct peer **out, uint32_t max); /* @return how many */

uint32_t peer_role(const struct peer *p); /* enum msg_role */
uint32_t peer_pid(const struct peer *p);
uint64_t peer_instance(const struct peer *p);
uint32_t peer_worker(const struct peer *p); /* a TLS worker's number */
uint64_t peer_listeners(const struct peer *p); /* as it said when it joined */
/** @return NULL: it is gone */
struct peer *peers_by_instance(struct peers *ps, uint64_t instance);
void **peer_data(struct peer *p); /* a place for the owner's pointer */

/** Queue a message; m->h.seq is set to 0 unless it repeats a request's. fd is duplicated. Cuts the peer off when it
 * takes nothing for too long: it connects again and gets everything anew. */
void peer_send(struct peer *p, const void *m, int fd);

/** Queue a request: sets its seq, calls done exactly once: later, or at once without memory. */
void peer_request(struct peer *p, void *m, int fd, uint32_t timeout_ms, peer_done *done, void *arg);

/** A request with many replies: each() for every message of `more_type` with its seq, done() for the other one. */
void peer_request_many(struct peer *p, void *m, uint32_t timeout_ms, uint16_t more_type,
		       void (*each)(void *arg, const union msg_any *m), peer_done *done, void *arg);

/** Cut it off, soon: it connects again and gets everything anew. why: for the log, a literal. Safe in callbacks. */
void peer_cut(struct peer *p, const char *why);

void peers_tick(struct peers *ps, uint64_t now_ms); /* fail requests that waited too long */
