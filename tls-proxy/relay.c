/* SPDX-License-Identifier: GPL-3.0-or-later */
/* relay: plaintext between session and upstream. A full buffer on one side stops reading on the other. */
#include <errno.h>
#include <stdio.h>

#include "config/base/clock.h"
#include "tls-proxy/worker.h"

#define TURNS_MAX 16 /* then the other sessions, the agent and the clock come first */

bool device_receive(struct conn *c)
{
	uint8_t buf[16384];
	size_t room = session_room(c->tls);
	ssize_t n;

	if (room == 0)
		return true;
	n = stream_recv(&c->dev, buf, room < sizeof(buf) ? room : sizeof(buf));
	if (n > 0) {
		session_feed(c->tls, buf, n);
		return true;
	}
	return n == -EAGAIN;
}

bool device_send(struct conn *c)
{
	const uint8_t *data;
	size_t n;

	while ((data = session_output(c->tls, &n)), n > 0) {
		ssize_t sent = stream_send(&c->dev, data, n);

		if (sent < 0)
			return sent == -EAGAIN;
		session_sent(c->tls, sent);
	}
	return true;
}

/* Device > upstream. @return false: it ends */
static bool relay_up(struct conn *c, uint64_t now_ms)
{
	struct buffer *b = &c->to_up;

	while (!c->dev_eof && b->n == 0) {
		ssize_t n;

		if (!buffer_hold(b))
			return false;
		n = session_read(c->tls, b->data, b->capacity);
		if (n == -EAGAIN)
			break;
		if (n < 0)
			return false;
		if (n == 0)
			c->dev_eof = true;
		b->n = n;
		c->bytes_up += n;
		conn_active(c, now_ms);
		if (n > 0)
			break;
	}
	while (buffer_waiting(b) > 0) {
		ssize_t n = stream_send(&c->up, b->data + b->at, buffer_waiting(b));

		if (n < 0)
			return n == -EAGAIN;
		conn_active(c, now_ms);
		buffer_taken(b, n);
	}
	if (c->dev_eof && !c->up_shut) {
		c->up_shut = true;
		stream_shut(&c->up);
	}
	return true;
}

/* Upstream > device. @return false: it ends */
static bool relay_down(struct conn *c, uint64_t now_ms)
{
	struct buffer *b = &c->to_dev;

	if (!c->up_eof && b->n == 0) {
		ssize_t n;

		if (!buffer_hold(b))
			return false;
		n = stream_recv(&c->up, b->data, b->capacity);
		if (n == 0)
			c->up_eof = true;
		else if (n < 0 && n != -EAGAIN)
			return false;
		if (n > 0) {
			b->n = n;
			c->bytes_down += n;
			conn_active(c, now_ms);
		}
	}
	while (buffer_waiting(b) > 0) {
		ssize_t n = session_write(c->tls, b->data + b->at, buffer_waiting(b));

		if (n == -EAGAIN)
			return true;
		if (n < 0)
			return false;
		conn_active(c, now_ms);
		buffer_taken(b, n);
	}
	if (c->up_eof && !c->dev_shut) {
		c->dev_shut = true;
		session_close_notify(c->tls);
	}
	return true;
}

/* Wait for exactly what can be acted on: a full buffer on one side stops reading on the other. */
static void relay_wait(struct conn *c, bool more)
{
	size_t out;
	uint32_t dev = 0, up = 0;

	session_output(c->tls, &out);
	if (!c->dev_fin && !c->dev_eof && c->to_up.n == 0)
		dev |= STREAM_READ;
	if (out > 0)
		dev |= STREAM_WRITE;
	if (!c->up_eof && c->to_dev.n == 0 && out == 0)
		up |= STREAM_READ;
	if (c->to_up.n > 0)
		up |= STREAM_WRITE;
	/* Cut short: what the session holds makes no event, an upstream that takes bytes does. */
	if (more)
		up |= STREAM_WRITE;
	stream_want(&c->dev, dev);
	stream_want(&c->up, up);
}

/* One turn of what can be moved. @return false: the session ended */
static bool relay_turn(struct conn *c, bool *more)
{
	uint64_t up = c->bytes_up, down = c->bytes_down;
	size_t full, out, waiting = c->to_up.n;
	uint64_t now_ms = clock_boot_ms();

	if (!conn_current(c, now_ms)) {
		conn_revoked(c);
		return false;
	}
	if (!c->dev_fin && !c->dev_eof && c->to_up.n == 0)
		c->dev_fin = !device_receive(c);
	if (!relay_up(c, now_ms) || !relay_down(c, now_ms)) {
		/* Not close_notify: what the device got so far is not all that there was to be. */
		conn_close(c, SESSION_ALERT_INTERNAL_ERROR,
			   session_reason(c->tls)[0] != '\0' ? session_reason(c->tls)
							     : "upstream broke off");
		return false;
	}
	session_output(c->tls, &full);
	if (!device_send(c)) {
		snprintf(c->reason, sizeof(c->reason), "device closed the connection");
		conn_end(c);
		return false;
	}
	session_output(c->tls, &out);
	/* No event tells of what the session already holds, nor of room that was made just now. */
	*more = up != c->bytes_up || down != c->bytes_down || (waiting > 0 && c->to_up.n == 0) ||
		(c->to_dev.n > 0 && out < full);
	return true;
}

void relay_work(struct conn *c)
{
	size_t out;
	bool more = true;

	for (int i = 0; i < TURNS_MAX && more; i++) {
		if (!relay_turn(c, &more))
			return;
	}
	if (!more && c->dev_fin && !c->dev_eof && c->to_up.n == 0) {
		/* TCP ended without close_notify: truncation, RFC 8446 section 6.1 */
		conn_close(c, SESSION_ALERT_ACCESS_DENIED, "device closed the connection");
		return;
	}
	session_output(c->tls, &out);
	if (c->dev_eof && c->up_eof && c->to_up.n == 0 && c->to_dev.n == 0 && out == 0) {
		snprintf(c->reason, sizeof(c->reason), "closed");
		conn_end(c);
		return;
	}
	relay_wait(c, more);
}
