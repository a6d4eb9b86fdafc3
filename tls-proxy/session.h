/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session: one TLS session as a machine of bytes in, bytes out; of DTLS, of datagrams in, datagrams out. It owns a TLS
 * object and knows nothing of sockets, time limits or trust: a transport (socket, later a user-space stack) carries its
 * bytes, conn.c decides. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tls-proxy/identity.h"
#include "tls-proxy/tls_ctx.h"

struct session;
struct stream;

/* A stream that is near (stream.h), from and to which an open session moves its records itself. */
struct session_wire {
	struct stream *stream;
	bool *may; /* there may be something to receive; cleared when there is not */
	bool *fin; /* set: the stream has ended, or is lost */
};

enum session_state {
	SESSION_HANDSHAKE,
	SESSION_OPEN, /* the peer has proved its identity; session_identity() */
	SESSION_FAILED, /* session_reason(); what session_output() still has should be sent */
};

enum session_alert { /* RFC 8446 section 6 */
		     SESSION_ALERT_HANDSHAKE_FAILURE = 40,
		     SESSION_ALERT_CERTIFICATE_REVOKED = 44,
		     SESSION_ALERT_CERTIFICATE_EXPIRED = 45,
		     SESSION_ALERT_UNKNOWN_CA = 48,
		     SESSION_ALERT_ACCESS_DENIED = 49,
		     SESSION_ALERT_INTERNAL_ERROR = 80,
		     SESSION_ALERT_UNRECOGNIZED_NAME = 112, /* RFC 6066 section 3 */
};

/** A server's session. Until the peer's first message is whole it is little more than that message.
 * @param ctx must outlive the session; may be loaded anew meanwhile. @return 0 or -ENOMEM; out caller owns,
 * session_free() */
int session_new(struct session **out, const struct tls_ctx *ctx);

struct session_server { /* whom a client's session wants to meet */
	const char
		*name; /* DNS name in its certificate, sent as SNI; "": its address must be in it */
	struct ip_addr addr;
	const char *alpn; /* the protocol to ask for; NULL: none */
};

/** The same from the client's end: it speaks first, so call session_step() without bytes. SESSION_OPEN: the server's
 * chain and name were verified. @param ctx of tls_client.h */
int session_new_client(struct session **out, const struct tls_ctx *ctx,
		       const struct session_server *server);
void session_free(struct session *s); /* NULL is a no-op */

/** Room for bytes from the wire; 0 = read plaintext first (back-pressure). DTLS: for one datagram. */
size_t session_room(const struct session *s);
/** Take bytes from the wire, at most session_room(). Without memory the session fails. */
void session_feed(struct session *s, const uint8_t *data, size_t bytes);

/** The same without a copy: where up to *room bytes may be put; then session_fed(). @return NULL: no room, or no memory,
 * and the session failed */
uint8_t *session_space(struct session *s, size_t *room);
void session_fed(struct session *s, size_t bytes);

/** From now on session_read() takes from the wire what it needs, and session_write() gives it what it makes; what it does
 * not take waits in session_output(), as ever. No copy is between them. Not of DTLS. What `wire` points at outlives the
 * session, or the stream is closed. */
void session_carry(struct session *s, const struct session_wire *wire);
bool session_is_carried(const struct session *s);
/** Could session_read() say anything but -EAGAIN? */
bool session_may_read(const struct session *s);

/** Work on what was fed. */
enum session_state session_step(struct session *s);

/* With so much room session_read() copies no record twice: the largest one, and its type. */
#define SESSION_RECORD_BYTES (16 * 1024 + 1)
/** Plaintext from the peer; of DTLS, that of one datagram. @return bytes; -EAGAIN: none now; 0: the peer sent close_notify; -EPROTO: failed */
ssize_t session_read(struct session *s, uint8_t *out, size_t bytes);
/** Plaintext to the peer; of DTLS, in one datagram, lost if no record holds it. @return bytes taken; -EAGAIN: send session_output() first; -EPROTO: failed */
ssize_t session_write(struct session *s, const uint8_t *data, size_t bytes);

/** Bytes for the wire (NULL if there are none); call session_sent() with how many went out. DTLS: one datagram, which
 * goes as a whole. */
const uint8_t *session_output(const struct session *s, size_t *bytes);
void session_sent(struct session *s, size_t bytes);

static inline bool session_backlog(const struct session *s)
{
	size_t bytes;

	session_output(s, &bytes);
	return bytes > 0;
}

/** Of an admitted device, once: let it resume later, if its listener allows that; what is written waits in
 * session_output(). Nothing of this session is kept for tickets any more. */
void session_ticket_give(struct session *s);
bool session_resumed(const struct session *s); /* it began with a ticket, not with a certificate */
/** Let the sessions of a server's context resume: for so long after a whole handshake. @return 0 or -EIO */
int session_tickets_serve(WOLFSSL_CTX *ctx, uint32_t life_s);

/** Into the cache: what a record of it will touch, in steps of which each needs the one before.
 * @param opens  the record comes from the peer; false: it goes there */
enum { SESSION_FETCH_STEPS = 3 };
void session_fetch(const struct session *s, bool opens, int step);

/** Give back the memory of what nothing waits in. For sessions that have been quiet: the next byte takes it again. */
void session_trim(struct session *s);

void session_close_notify(struct session *s); /* no more plaintext from our side */
void session_abort(struct session *s,
		   enum session_alert alert); /* fatal; the session is SESSION_FAILED then */

/**
 * Does the peer's certificate pass this newer context: is its CA still trusted, is nothing of its chain revoked?
 * @return 0 or -EACCES
 */
int session_reverify(const struct session *s, const struct tls_ctx *ctx);

/** Of the device: NULL until SESSION_OPEN, and of a client's session. */
const struct identity *session_identity(const struct session *s);
const char *
session_reason(const struct session *s); /* why it failed, for engineers; "" if it did not */
const char *session_version(const struct session *s); /* "TLSv1.3" */
const char *session_cipher(const struct session *s);
WOLFSSL *session_library(const struct session *s); /* for session_dtls.c alone */
/** The device's certificate, DER, if the context said to keep it. @return NULL: none */
const uint8_t *session_certificate(const struct session *s, size_t *bytes);
void session_certificate_drop(struct session *s); /* it was told, and the server name too */
/** Server name that the device asked for. @return bytes, 0: none; NUL behind it */
size_t session_sni(const struct session *s, char *out, size_t out_bytes);
/** Protocol agreed on by ALPN. @return bytes, 0: none; NUL behind it */
size_t session_alpn(const struct session *s, char *out, size_t out_bytes);
const char *session_group(const struct session *s); /* key exchange, "X25519MLKEM768" */
