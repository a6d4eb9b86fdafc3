/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session_internal: what the files of a session share: session.c the machine, session_record.c its records of data,
 * session_verify.c whom it believes, session_resume.c how it goes on from an earlier one, session_info.c what it tells.
 * Nobody else includes this. */
#pragma once

#include "tls-proxy/buffer.h"
#include "tls-proxy/peer.h"
#include "tls-proxy/session.h"
#include "tls-proxy/tickets.h"
#include "tls-proxy/transcript.h"

struct session {
	WOLFSSL *ssl; /* NULL until the first message is whole */
	const struct tls_ctx *ctx; /* until then */
	struct tls_cert *cert; /* ours, until the handshake is over, or session_ticket_give() */
	struct ticket *ticket; /* that came, in the handshake; then the last one; NULL: none */
	uint32_t fed; /* bytes, until the session is open */
	enum session_state state;
	bool datagrams; /* DTLS: `in` is one datagram, `out` is datagrams behind their lengths */
	bool identified;
	bool resumed;
	bool foreign; /* the device brought a ticket of TLS 1.2, which is none of ours */
	bool keep_certificate;
	bool shut; /* close_notify is out */
	bool data_came; /* that the library has not seen */
	bool client;
	bool by_address; /* the server, by `server`; else the library checks its name */
	struct ip_addr server;
	char *asked; /* server name; NULL: none, or told already */
	struct peer peer; /* the device; zeros of a client's session */
	struct revoked *revoked; /* until the handshake is over */
	struct transcript transcript; /* what waits for its suite */
	char reason[128];
	struct session_wire wire; /* stream NULL: nobody's */
	struct buffer in, out; /* from the wire, for the wire */
	struct Aes *opens, *seals; /* session_records_settle(); NULL: the library's turn */
};

/* The library has no public call for an alert of choice; this one is linked statically from the pinned version. */
extern int SendAlert(WOLFSSL *ssl, int severity, int type);

/** The first reason counts. */
void session_reason_set(struct session *s, const char *text);

/* session_record.c: records of data without the library. */
/** After each call of the library for an open session: may the next record go without it? */
void session_records_settle(struct session *s);
/** @return bytes of plaintext; -EAGAIN: no whole record is there; -ENOTSUP: the library must read, nothing was taken */
ssize_t session_record_open(struct session *s, uint8_t *out, size_t bytes);
/** Only with seals set. @param bytes  at most 16 kB, which session_output() has room for. @return bytes; -ENOTSUP: the
 * library must write; -ENOMEM: broken, for good */
ssize_t session_record_seal(struct session *s, const uint8_t *data, size_t bytes);
/** Is a whole record in `in`, or one that is the library's? */
bool session_record_waits(const struct session *s);

/* session_verify.c */
/** For engineers; NULL: the library's own text is as good. */
const char *session_error_text(int error);
/** The library's question about each certificate of the peer's chain. It can refuse more than the library, never accept more. */
int session_on_verify(int good, WOLFSSL_X509_STORE_CTX *store);

/* session_resume.c */
/** The library's handshake is over: if it resumed, who is it? Sets identified. */
void session_resume_settle(struct session *s);
/** The library ends a handshake whose ticket of TLS 1.2 is longer than its own are: it must not look at any then. */
void session_tickets_show(struct session *s, bool show);
