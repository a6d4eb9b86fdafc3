/* SPDX-License-Identifier: GPL-3.0-or-later */
/* relay: plaintext between a device's session and its upstream, which is plain TCP or a TLS session of its own. A full
 * buffer on one side stops reading on the other. */
#include <errno.h>
#include <stdio.h>

#include "config/base/clock_near.h"
#include "tls-proxy/worker.h"

#define TURNS_MAX 16 /* then the other sessions, the agent and the clock come first */

/* Plaintext between its two ends: one place for all sessions, so that it is in the cache. What an end does not take at once
 * waits in the session's own buffer. */
static struct {
	uint8_t data[SESSION_RECORD_BYTES];
	size_t used; /* since it was wiped */
} hands;

bool wire_receive(struct stream *s, struct session *tls, bool *may)
{
	uint8_t *at;
	size_t room;
	ssize_t n;

	if (!*may || session_is_carried(tls))
		return true;
	at = session_space(tls, &room);
	if (at == NULL)
		return true;
	n = stream_recv(s, at, room);
	/* Less than there was room for: the stream is empty, and will tell when it is not. */
	*may = n == (ssize_t)room;
	if (n > 0) {
		session_fed(tls, n);
		return true;
	}
	return n == -EAGAIN;
}

bool wire_send(struct stream *s, struct session *tls)
{
	const uint8_t *data;
	size_t n;

	while ((data = session_output(tls, &n)), n > 0) {
		ssize_t sent = stream_send(s, data, n);

		if (sent < 0)
			return sent == -EAGAIN;
		session_sent(tls, sent);
	}
	return true;
}

static ssize_t up_read(struct conn *c, void *out, size_t bytes)
{
	ssize_t n;

	if (c->up_tls != NULL)
		return session_read(c->up_tls, out, bytes);
	if (!c->up_may)
		return -EAGAIN;
	n = stream_recv(&c->up, out, RELAY_BYTES);
	c->up_may = n == RELAY_BYTES && (!stream_is_near(&c->up) || stream_has(&c->up));
	return n;
}

static ssize_t up_write(struct conn *c, const void *data, size_t bytes)
{
	return c->up_tls != NULL ? session_write(c->up_tls, data, bytes)
				 : stream_send(&c->up, data, bytes);
}

static ssize_t dev_write(struct conn *c, const void *data, size_t bytes)
{
	return session_write(c->tls, data, bytes);
}

/* The peer of a direction is told that it is over. */
static void up_shut(struct conn *c)
{
	c->up_shut = true;
	c->up_may = true; /* datagrams have no FIN: our end is theirs too, and nothing tells */
	if (c->up_tls != NULL)
		session_close_notify(c->up_tls);
	else
		stream_shut(&c->up);
}

void relay_wipe(void)
{
	if (hands.used > 0)
		explicit_bzero(hands.data, hands.used);
	hands.used = 0;
}

static void in_hands(size_t bytes)
{
	if (bytes > hands.used)
		hands.used = bytes;
}

/* What was not taken waits. @return false: no memory */
static bool put_aside(struct buffer *b, size_t at, size_t end)
{
	if (at == end)
		return true;
	if (!buffer_hold_for(b, end - at))
		return false;
	buffer_put(b, hands.data + at, end - at);
	return true;
}

/* Plaintext to one end: first what waits. @param n  in `hands`, behind that; there is none when something waits
 * @return 0 or -errno: it takes nothing any more, or there is no memory */
static int give(struct conn *c, struct buffer *b, size_t n,
		ssize_t (*write)(struct conn *c, const void *data, size_t bytes), uint64_t now_ms)
{
	size_t at = 0;

	while (buffer_waiting(b) > 0 || at < n) {
		bool waits = buffer_waiting(b) > 0;
		ssize_t sent = waits ? write(c, b->data + b->at, buffer_waiting(b))
				     : write(c, hands.data + at, n - at);

		if (sent == -EAGAIN)
			return put_aside(b, at, n) ? 0 : -ENOMEM;
		if (sent < 0)
			return (int)sent;
		conn_active(c, now_ms);
		if (waits)
			buffer_taken(b, sent);
		else
			at += sent;
	}
	return 0;
}

/* Is the device's word wanted? */
static bool up_hears(const struct conn *c)
{
	return !c->dev_eof && !c->up_lost && c->to_up.n == 0;
}

/* Found by sending, before it was told. What it said before is the device's still, but where it is torn off, the kernel tells
 * once, which was now, and of an end from then on. An end that came before is one: -EPIPE.
 * @return false: there is nothing more to come */
static bool up_lost(struct conn *c, int error)
{
	if (error == -ENOMEM || c->assoc != NULL || (c->up_tls != NULL && !c->up_eof))
		return false;
	c->up_lost = true;
	c->up_torn |= !c->up_eof && error != -EPIPE;
	buffer_drop(&c->to_up);
	return true;
}

/* Device > upstream. @return false: it ends */
static bool relay_up(struct conn *c, uint64_t now_ms)
{
	ssize_t n = -EAGAIN;
	int ret;

	if (up_hears(c)) {
		n = session_read(c->tls, hands.data, sizeof(hands.data));
		if (n < 0 && n != -EAGAIN)
			return false;
		if (n == 0) {
			c->dev_eof = true;
			c->active_ms = now_ms;
			conn_wake(c);
		} else if (n > 0) {
			in_hands(n);
			c->bytes_up += n;
			conn_active(c, now_ms);
		}
	}
	ret = c->up_lost ? 0 : give(c, &c->to_up, n > 0 ? n : 0, up_write, now_ms);
	if (ret < 0)
		return up_lost(c, ret);
	if (c->dev_eof && !c->up_lost && !c->up_shut && c->to_up.n == 0)
		up_shut(c);
	return true;
}

/* Upstream > device. @return false: it ends */
static bool relay_down(struct conn *c, uint64_t now_ms)
{
	ssize_t n = -EAGAIN;

	if (!c->up_eof && c->to_dev.n == 0) {
		n = up_read(c, hands.data, sizeof(hands.data));
		if (n < 0 && n != -EAGAIN)
			return false;
		if (n == 0 && c->up_torn)
			return false;
		if (n == 0) {
			c->up_eof = true;
			c->active_ms = now_ms;
			conn_wake(c);
		} else if (n > 0) {
			in_hands(n);
			c->bytes_down += n;
			conn_active(c, now_ms);
		}
	}
	if (give(c, &c->to_dev, n > 0 ? n : 0, dev_write, now_ms) < 0)
		return false;
	if (c->up_eof && !c->dev_shut && c->to_dev.n == 0) {
		c->dev_shut = true;
		session_close_notify(c->tls);
	}
	return true;
}

/* Wait for exactly what can be acted on: a full buffer on one side stops reading on the other, and so does a session that
 * holds what it cannot act on before its own answers are out. */
static void relay_wait(struct conn *c)
{
	bool dev_out = session_backlog(c->tls);
	bool up_out = c->up_tls != NULL ? session_backlog(c->up_tls) : c->to_up.n > 0;
	uint32_t dev = dev_out ? STREAM_WRITE : 0, up = up_out && !c->up_lost ? STREAM_WRITE : 0;

	if (!c->dev_fin && up_hears(c) && !session_may_read(c->tls))
		dev |= STREAM_READ;
	if (!c->up_fin && !c->up_eof && c->to_dev.n == 0 && !dev_out &&
	    (c->up_tls == NULL || !session_may_read(c->up_tls)))
		up |= STREAM_READ;
	stream_want(&c->dev, dev);
	stream_want(&c->up, up);
}

static void relay_broken(struct conn *c)
{
	const char *why = session_reason(c->tls);

	if (why[0] == '\0' && c->up_tls != NULL)
		why = session_reason(c->up_tls);
	/* Not close_notify: what the device got so far is not all that there was to be. */
	conn_close(c, SESSION_ALERT_INTERNAL_ERROR, why[0] != '\0' ? why : "upstream broke off");
}

/* What can change without an event: bytes from an end, and room in what waits for it. */
static size_t room_made(const struct conn *c)
{
	size_t dev = 0, up = 0;

	if (c->to_dev.n > 0 || (c->to_up.n == 0 && session_may_read(c->tls)))
		session_output(c->tls, &dev);
	if (c->up_tls != NULL &&
	    (c->to_up.n > 0 || (c->to_dev.n == 0 && session_may_read(c->up_tls))))
		session_output(c->up_tls, &up);
	return dev + up;
}

/* Is there anything that another turn could read? */
static bool readable(const struct conn *c)
{
	/* The library may have more records of a datagram, and does not say so. */
	if (c->assoc != NULL)
		return true;
	if (up_hears(c) && (c->dev_may || session_may_read(c->tls)))
		return true;
	return !c->up_eof && c->to_dev.n == 0 &&
	       (c->up_may || (c->up_tls != NULL && session_may_read(c->up_tls)));
}

/* One turn of what can be moved. @return false: the session ended */
static bool relay_turn(struct conn *c, uint64_t now_ms, bool *more)
{
	uint64_t up = c->bytes_up, down = c->bytes_down;
	size_t full, to_up = c->to_up.n, to_dev = c->to_dev.n;

	if (!conn_current(c, now_ms)) {
		conn_revoked(c);
		return false;
	}
	if (!c->dev_fin && up_hears(c))
		c->dev_fin = !wire_receive(&c->dev, c->tls, &c->dev_may);
	if (c->up_tls != NULL && !c->up_fin && !c->up_eof && c->to_dev.n == 0)
		c->up_fin = !wire_receive(&c->up, c->up_tls, &c->up_may);
	if (!relay_up(c, now_ms) || !relay_down(c, now_ms)) {
		relay_broken(c);
		return false;
	}
	full = room_made(c);
	if (c->up_tls != NULL && !c->up_lost)
		c->up_lost = !wire_send(&c->up, c->up_tls);
	if (!wire_send(&c->dev, c->tls)) {
		conn_lost(c);
		return false;
	}
	*more = ((up != c->bytes_up || down != c->bytes_down || (to_up > 0 && c->to_up.n == 0) ||
		  (to_dev > 0 && c->to_dev.n == 0)) &&
		 readable(c)) ||
		room_made(c) < full;
	return true;
}

/* TCP that ended without close_notify: truncation, RFC 8446 section 6.1. Neither end takes it for a regular one. */
static bool truncated(struct conn *c)
{
	if (c->dev_fin && !c->dev_eof && c->to_up.n == 0) {
		conn_close(c, SESSION_ALERT_ACCESS_DENIED, "device closed the connection");
		return true;
	}
	if (c->up_fin && !c->up_eof && c->to_dev.n == 0) {
		conn_close(c, SESSION_ALERT_INTERNAL_ERROR, "upstream broke off");
		return true;
	}
	return false;
}

static bool finished(const struct conn *c)
{
	return c->up_shut && c->up_eof && c->to_dev.n == 0 && !session_backlog(c->tls) &&
	       (c->up_tls == NULL || !session_backlog(c->up_tls));
}

void relay_work(struct conn *c)
{
	uint64_t now_ms = clock_near_ms();
	bool more = true;

	for (int i = 0; i < TURNS_MAX && more; i++) {
		if (!relay_turn(c, now_ms, &more))
			return;
	}
	if (!more && truncated(c))
		return;
	if (finished(c)) {
		snprintf(c->reason, sizeof(c->reason), "closed");
		conn_end(c);
		return;
	}
	/* It has said all, and hears nothing any more: what the device still says would go nowhere. */
	if (c->up_lost && c->up_eof && c->to_dev.n == 0 && !session_backlog(c->tls)) {
		conn_close(c, 0, "upstream broke off");
		return;
	}
	/* Cut short: what the sessions hold makes no event. */
	if (more)
		conn_again(c);
	relay_wait(c);
}
