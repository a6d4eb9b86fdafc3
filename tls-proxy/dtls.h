/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls: a listener of DTLS and its associations. One socket takes the datagrams of all devices:
 *   a record with one of our connection IDs   > the association of that ID, wherever it comes from; of another worker's
 *                                               IDs, that worker (dtls_steer.c)
 *   any other record                          > the association of its source address
 *   a ClientHello                             > the door: stateless, until a cookie came back from that very address
 * To conn.c and relay.c an association is a connection whose streams give and take one datagram at a time. */
#pragma once

#include "tls-proxy/datagram.h"
#include "tls-proxy/dtls_table.h"
#include "tls-proxy/session_dtls.h"
#include "tls-proxy/worker.h"

#define DTLS_SECRET_MS (10 * 60 * 1000) /* then a new one */
#define DTLS_SECRET_GRACE_MS (60 * 1000) /* and for so long cookies of the old one are still good */
#define DTLS_MOVE_MS 1000 /* an association changes its address no more often */
#define DTLS_WAITING_MAX 8 /* datagrams of a device, while it is being admitted */
#define DTLS_DATAGRAM_BYTES_MAX (18 * 1024) /* the largest record and its headers */

struct dtls_door {
	struct session *s; /* NULL: to be made when somebody knocks */
	const void *ctx, *lists; /* that it was made from, and keeps alive */
	uint8_t secret[DTLS_SECRET_BYTES]; /* of its cookies */
	uint8_t cid[DTLS_CID_BYTES]; /* of the association that it becomes */
};

struct dtls_counters {
	uint64_t hellos; /* to the door */
	uint64_t proved; /* became an association */
	uint64_t stray; /* of nobody, or no DTLS */
	uint64_t moved; /* to another address */
	uint64_t unmoved; /* from another address: forged, repeated, overtaken, or too soon */
	uint64_t overrun; /* while the device was being admitted */
	uint64_t steered; /* to another worker */
};

struct dtls_port {
	struct listener *l;
	struct datagram d;
	struct dtls_table by_address, by_cid;
	uint64_t key[3]; /* of the addresses' hash */
	struct dtls_door door[2]; /* [1]: of the secret before */
	uint64_t secret_ms; /* since when there is the present one; boot clock */
	struct dtls_counters n, said;
	uint64_t say_ms; /* not again before */
	LIST_HEAD(, assoc) opening; /* in the handshake */
	LIST_HEAD(, assoc) ripe; /* have something that waited and is wanted now */
};

struct waiting {
	uint8_t *data;
	size_t bytes;
};

struct assoc { /* a conn's; freed with it */
	struct conn *c;
	struct dtls_port *p;
	struct dtls_link by_address, by_cid;
	LIST_ENTRY(assoc) opening, ripe;
	bool is_opening, is_ripe;
	bool settled; /* by_cid says whether the peer uses the connection ID */
	uint8_t cid[DTLS_CID_BYTES];
	uint64_t random; /* of its ClientHello */
	uint64_t timer_ms; /* opening: what was sent is sent again; boot clock */
	uint64_t moved_ms;
	uint32_t want; /* STREAM_* of the device's side */
	bool shut; /* nothing more to the device */
	bool up_shut; /* nothing more to the upstream */
	const uint8_t *now; /* the datagram that is being taken; NULL: none */
	size_t now_bytes;
	struct waiting waiting[DTLS_WAITING_MAX]; /* a ring */
	uint32_t waiting_at, n_waiting;
	struct datagram up;
	uint8_t *head; /* PROXY header of each datagram to the upstream; NULL: none */
	size_t head_bytes;
};

/* dtls.c */
int dtls_listen(struct listener *l, struct err *err);
/** l listens from now on where `from` did, and has its associations, whose sessions stay with `from`. */
void dtls_take(struct listener *l, struct listener *from);
bool dtls_is_empty(const struct listener *l); /* no association is left behind its socket */
void dtls_close(struct listener *l); /* its associations have ended; takes a half-built one */
void dtls_tick(struct listener *l, uint64_t now_ms);
/** At the end of a turn: what waited. */
void dtls_turn(struct listener *l);
uint64_t dtls_address_hash(const struct dtls_port *p, const struct datagram_peer *peer);
struct assoc *dtls_find_address(const struct dtls_port *p, const struct datagram_peer *peer);

/** A datagram that another worker got. */
void dtls_steered(struct listener *l, const struct datagram_peer *from, const uint8_t *data,
		  size_t bytes);

/* dtls_steer.c */
/** The socket for what other workers get of ours; with privileges, for it is made in run_dir, and whether a listener of DTLS
 * is there or will be. @return 0 or -errno, text in err */
int dtls_steer_open(struct worker *w, struct err *err);
void dtls_steer_close(struct worker *w); /* no-op if it is not open */
/** @return false: there is no such worker, or it is too busy */
bool dtls_steer(struct listener *l, unsigned worker, const struct datagram_peer *from,
		const uint8_t *data, size_t bytes);

/* dtls_assoc.c */
/** An association of a new connection; its device stream is open, wanting STREAM_READ. @return NULL: no memory */
struct assoc *assoc_new(struct dtls_port *p, struct conn *c, const struct dtls_door *door,
			uint64_t random);
void assoc_free(struct assoc *a); /* NULL is a no-op */
struct datagram_peer assoc_peer(const struct assoc *a);
/** A datagram of the device. */
void assoc_take(struct assoc *a, const uint8_t *data, size_t bytes);
/** One with its connection ID from another address. */
void assoc_take_moved(struct assoc *a, const struct datagram_peer *from, const uint8_t *data,
		      size_t bytes);
/** What waited, as far as it is wanted. */
void assoc_work(struct assoc *a);
/** To an upstream of UDP, from an admitted connection. @return 0 or -errno */
int assoc_connect(struct conn *c);
/** Write its PROXY header anew, for the device is elsewhere. @return 0 or -errno: the old one is still there */
int assoc_header(struct assoc *a);
