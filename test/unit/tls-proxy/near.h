/* SPDX-License-Identifier: GPL-3.0-or-later */
/* near: a stream whose bytes are in this process, as the stack's are, from and to arrays. */
#pragma once

#include <errno.h>
#include <string.h>

#include "tls-proxy/session.h"
#include "tls-proxy/stream.h"

struct near {
	struct stream stream;
	uint8_t in[60000], out[60000];
	size_t at, arrived, n; /* read, come, and still to come */
	size_t low; /* so many must wait */
	size_t n_out, room;
	bool fin, may, over; /* the peer's; what the session was given */
	int lost; /* errno */
};

static inline struct near *near_of(const struct stream *s)
{
	return s->arg;
}

static inline ssize_t near_recv(struct stream *s, void *out, size_t bytes)
{
	struct near *w = near_of(s);
	size_t n = w->arrived - w->at < bytes ? w->arrived - w->at : bytes;

	w->low = 0;
	if (w->lost != 0)
		return -w->lost;
	if (n == 0)
		return w->fin && w->arrived == w->n ? 0 : -EAGAIN;
	memcpy(out, w->in + w->at, n);
	w->at += n;
	return (ssize_t)n;
}

/* Copied, as if no two bytes lay together. */
static inline const uint8_t *near_view(struct stream *s, void *buf, size_t bytes)
{
	struct near *w = near_of(s);

	w->low = bytes;
	if (w->arrived - w->at < bytes || w->lost != 0)
		return NULL;
	memcpy(buf, w->in + w->at, bytes);
	return buf;
}

static inline void near_taken(struct stream *s, size_t bytes)
{
	near_of(s)->at += bytes;
	near_of(s)->low = 0;
}

static inline ssize_t near_send(struct stream *s, const void *data, size_t bytes)
{
	struct near *w = near_of(s);
	size_t n = w->room < bytes ? w->room : bytes;

	if (w->lost != 0)
		return -w->lost;
	if (n == 0)
		return -EAGAIN;
	memcpy(w->out + w->n_out, data, n);
	w->n_out += n;
	w->room -= n;
	return (ssize_t)n;
}

static inline bool near_has(const struct stream *s)
{
	const struct near *w = near_of(s);

	return (w->arrived > w->at && w->arrived - w->at >= w->low) || w->fin || w->lost != 0;
}

static const struct stream_ops near_ops = {.recv = near_recv,
					   .send = near_send,
					   .has = near_has,
					   .view = near_view,
					   .taken = near_taken};

/* The session's records go this way from now on. */
static inline void near_join(struct near *w, struct session *s)
{
	w->at = w->arrived = w->n = w->n_out = w->low = 0;
	w->fin = w->over = false;
	w->may = true;
	w->lost = 0;
	w->room = sizeof(w->out);
	w->stream.ops = &near_ops;
	w->stream.arg = w;
	session_carry(s, &(struct session_wire){&w->stream, &w->may, &w->over});
}
