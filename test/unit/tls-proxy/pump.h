/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pump: a client of the TLS library and a session of ours, joined in memory. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tls-proxy/session.h"

#define PUMP_BYTES 65536
#define PUMP_TURNS_MAX 20000

struct pump {
	WOLFSSL *ssl;
	struct session *peer;
	uint8_t in[PUMP_BYTES]; /* from the session */
	size_t in_at, in_n;
	size_t piece; /* bytes that a transport hands over at once; 0 = all */
	void (*timer)(bool on); /* around what the session does; NULL: nobody measures */
	int alert; /* the last fatal one that came, or 0 */
};

static inline void pump_time(const struct pump *p, bool on)
{
	if (p->timer != NULL)
		p->timer(on);
}

static inline int pump_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct pump *p = arg;
	size_t n = p->in_n - p->in_at;

	(void)ssl;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_READ;
	if (n > (size_t)bytes)
		n = bytes;
	memcpy(buf, p->in + p->in_at, n);
	p->in_at += n;
	return n;
}

static inline int pump_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct pump *p = arg;
	size_t n = session_room(p->peer);

	(void)ssl;
	if (p->piece != 0 && n > p->piece)
		n = p->piece;
	if (n > (size_t)bytes)
		n = bytes;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_WRITE;
	pump_time(p, true);
	session_feed(p->peer, (uint8_t *)buf, n);
	pump_time(p, false);
	return n;
}

/* Both are the caller's, who frees them. */
static inline void pump_join(struct pump *p, WOLFSSL *ssl, struct session *peer)
{
	memset(p, 0, sizeof(*p));
	p->ssl = ssl;
	p->peer = peer;
	wolfSSL_SSLSetIORecv(ssl, pump_recv);
	wolfSSL_SSLSetIOSend(ssl, pump_send);
	wolfSSL_SetIOReadCtx(ssl, p);
	wolfSSL_SetIOWriteCtx(ssl, p);
}

/* What the session has for the wire goes to the client, a piece if asked for. @return is there more? */
static inline bool pump_carry(struct pump *p)
{
	size_t n;
	const uint8_t *data = session_output(p->peer, &n);

	if (p->piece != 0 && n > p->piece)
		n = p->piece;
	if (p->in_at == p->in_n)
		p->in_at = p->in_n = 0;
	if (n > sizeof(p->in) - p->in_n)
		n = sizeof(p->in) - p->in_n;
	if (n > 0)
		memcpy(p->in + p->in_n, data, n);
	p->in_n += n;
	pump_time(p, true);
	session_sent(p->peer, n);
	pump_time(p, false);
	return session_backlog(p->peer);
}

/* A handshake to its end, whatever that is, and what was said last. */
static inline enum session_state pump_shake(struct pump *p)
{
	enum session_state state = SESSION_HANDSHAKE;
	WOLFSSL_ALERT_HISTORY h;
	uint8_t buf[16];
	bool more;

	for (int i = 0; i < PUMP_TURNS_MAX && state == SESSION_HANDSHAKE; i++) {
		wolfSSL_connect(p->ssl);
		pump_time(p, true);
		state = session_step(p->peer);
		pump_time(p, false);
		pump_carry(p);
	}
	do {
		more = pump_carry(p);
		wolfSSL_connect(p->ssl);
	} while (more);
	if (wolfSSL_is_init_finished(p->ssl))
		wolfSSL_read(p->ssl, buf, sizeof(buf));
	if (wolfSSL_get_alert_history(p->ssl, &h) == WOLFSSL_SUCCESS && h.last_rx.level == 2)
		p->alert = h.last_rx.code;
	return state;
}
