/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session_dtls: what DTLS adds to a session: the cookie exchange before there is one, connection IDs, retransmission.
 * RFC 6347 section 4.2.1, RFC 9147 section 5.1, RFC 9146. As session.h: no socket, no clock. */
#pragma once

#include "tls-proxy/dtls_record.h"
#include "tls-proxy/session.h"

#define DTLS_SECRET_BYTES 32

enum knock {
	KNOCK_ANSWERED, /* session_output() may have a cookie for the peer; nothing else is kept of it */
	KNOCK_PROVED, /* the peer returned a good cookie: the session is its own from here on, session_step() */
	KNOCK_BROKEN, /* session_output() may have an alert for the peer; free the session */
};

/** A new session of DTLS becomes a door: any number of peers may knock until one has proved its address.
 * @param secret  of the cookies, DTLS_SECRET_BYTES. @param cid  ours, if the peer wants them, DTLS_CID_BYTES
 * @return 0 or -ENOMEM */
int session_dtls_open_door(struct session *s, const uint8_t *secret, const uint8_t *cid);

/** A record with a ClientHello. @param peer  bytes that stand for the peer's address, in the cookie */
enum knock session_dtls_knock(struct session *s, const void *peer, size_t peer_bytes,
			      const uint8_t *record, size_t bytes);

/** SESSION_OPEN: does the peer put our connection ID into its records? */
bool session_dtls_has_cid(const struct session *s);

/** When nothing came for so long in a handshake, session_dtls_timed_out() has something to send again. */
uint32_t session_dtls_timeout_ms(const struct session *s);
/** @return 0, or -ETIMEDOUT: sent often enough */
int session_dtls_timed_out(struct session *s);

/** The newest record that was ever decrypted, epoch before sequence number. It grows, or nothing newer came. */
struct dtls_newest {
	uint64_t epoch, sequence;
};
struct dtls_newest session_dtls_newest(const struct session *s);
