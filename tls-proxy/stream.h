/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stream: our end of one TCP connection, whoever carries it: the kernel (socket.c) or the stack in this process.
 * conn.c and relay.c know no other way to a peer. One thread; nothing here blocks or calls back: what became possible
 * is told by ready(), from the worker's turn, for as long as it is wanted and possible. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "config/base/addr.h"

struct worker;
struct stream;
struct tcp_pcb;
struct pbuf;

enum {
	STREAM_READ = 1, /* stream_recv() has something to say: bytes, the end, an error */
	STREAM_WRITE = 2, /* stream_send() takes bytes, or the connection came about, or failed */
	STREAM_GONE = 4, /* both directions are over; told unasked while anything is wanted */
	STREAM_LOST =
		8, /* with STREAM_GONE: reset, or no answer for too long; told at least once whatever is wanted */
};

struct source { /* something in the worker's epoll set */
	int fd; /* -1: not there */
	uint32_t events; /* as registered; 0: not in the set */
	void (*ready)(void *arg, uint32_t events);
	void *arg;
};

/* A connection of the stack in this process: stack/stream.c. */
struct stack_end {
	struct tcp_pcb *pcb; /* NULL: lwIP has freed it */
	struct pbuf *rx, *rx_last; /* unread bytes; no chain: each one counts its own */
	LIST_ENTRY(stream) next; /* of those of whom something is wanted and possible */
	uint32_t bucket;
	uint32_t rx_bytes; /* unread */
	uint32_t rx_low; /* STREAM_READ not before so many, or the end */
	uint16_t rx_at; /* of the first that much is read */
	uint16_t rx_n;
	uint16_t rx_room; /* free behind the last */
	uint16_t error; /* errno; 0: none */
	uint8_t wanted; /* STREAM_* */
	bool queued, connected, eof, shut;
	bool fin; /* the peer's; eof may be a reset as well */
	bool lost_told; /* STREAM_LOST, and nothing was wanted then */
};

struct stream_ops {
	ssize_t (*recv)(struct stream *s, void *out, size_t bytes);
	ssize_t (*send)(struct stream *s, const void *data, size_t bytes);
	int (*connected)(struct stream *s);
	bool (*unsent)(struct stream *s);
	void (*want)(struct stream *s, uint32_t events);
	void (*shut)(struct stream *s);
	void (*close)(struct stream *s);
	void (*reset)(struct stream *s);
	/* Would recv() have something to say? NULL: to ask is as dear as recv() itself, a system call. */
	bool (*has)(const struct stream *s);
	/* Of one that is near. */
	const uint8_t *(*view)(struct stream *s, void *buf, size_t bytes);
	void (*taken)(struct stream *s, size_t bytes);
};

struct stream {
	const struct stream_ops *ops; /* NULL: closed */
	struct worker *w;
	void (*ready)(void *arg, uint32_t events); /* STREAM_*; set by the owner, as arg is */
	void *arg;
	union {
		struct source src; /* socket.c */
		struct stack_end stk;
		struct assoc *assoc; /* dtls_assoc.c */
	};
};

static inline bool stream_is_open(const struct stream *s)
{
	return s->ops != NULL;
}

/** @return bytes; 0: the peer's FIN; -EAGAIN: nothing now; else -errno: the connection is lost */
static inline ssize_t stream_recv(struct stream *s, void *out, size_t bytes)
{
	return s->ops->recv(s, out, bytes);
}

/** Its bytes are in this process: reading a few at a time costs nothing more. */
static inline bool stream_is_near(const struct stream *s)
{
	return s->ops != NULL && s->ops->has != NULL;
}

/** Only of one that is near: has stream_recv() anything to say? */
static inline bool stream_has(const struct stream *s)
{
	return s->ops != NULL && s->ops->has(s);
}

/** Only of one that is near: the next so many bytes, where they are if they lie together, else copied into buf; then
 * stream_taken(), before anything else is asked of the stream. @return NULL: so many have not come; STREAM_READ and
 * stream_has() tell when they have, or the end, until something is received otherwise */
static inline const uint8_t *stream_view(struct stream *s, void *buf, size_t bytes)
{
	return s->ops->view(s, buf, bytes);
}

static inline void stream_taken(struct stream *s, size_t bytes)
{
	s->ops->taken(s, bytes);
}

/** @return bytes taken; -EAGAIN: no room; else -errno: the connection is lost */
static inline ssize_t stream_send(struct stream *s, const void *data, size_t bytes)
{
	return s->ops->send(s, data, bytes);
}

/** What became of a connection that was begun. @return 0, -EINPROGRESS or -errno */
static inline int stream_connected(struct stream *s)
{
	return s->ops->connected(s);
}

/** Is there something taken that has not been sent even once? */
static inline bool stream_unsent(struct stream *s)
{
	return s->ops->unsent(s);
}

/** STREAM_READ | STREAM_WRITE; 0: ready() is called for STREAM_LOST at the most. No-op on a closed one. */
static inline void stream_want(struct stream *s, uint32_t events)
{
	if (s->ops != NULL)
		s->ops->want(s, events);
}

/** FIN behind what was taken. */
static inline void stream_shut(struct stream *s)
{
	s->ops->shut(s);
}

/** What was taken still goes out, nobody hears of it any more. No-op on a closed one. */
static inline void stream_close(struct stream *s)
{
	if (s->ops != NULL)
		s->ops->close(s);
	s->ops = NULL;
}

/** Nothing goes out any more but a RST. No-op on a closed one. */
static inline void stream_reset(struct stream *s)
{
	if (s->ops != NULL)
		s->ops->reset(s);
	s->ops = NULL;
}
