/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stream: frames with a 4-byte big-endian length over a non-blocking stream socket. Both ends of the embedded
 * transport use it. Memory grows with bytes that arrived, never with a length that a peer only claims.
 * One thread; the owner polls stream_fd() and calls stream_pump(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- splitting, pure ---- */

struct frame_buf {
	uint8_t *data;
	size_t len, cap, at; /* bytes held; allocated; start of the next frame */
	size_t max; /* longest frame */
};

void frame_buf_init(struct frame_buf *b, size_t max);
void frame_buf_fini(struct frame_buf *b);
int frame_buf_push(struct frame_buf *b, const void *data, size_t bytes); /* @return 0 or -ENOMEM */
/**
 * The next whole frame.
 * @param[out] frame  points into the buffer; good until the next push
 * @return 1, 0 (none yet), -EPROTO (length zero or over max: give the peer up)
 */
int frame_buf_next(struct frame_buf *b, const uint8_t **frame, size_t *bytes);

/* ---- socket ---- */

struct stream;

/**
 * Take over a connected socket (made non-blocking).
 * @param in_max   longest frame accepted
 * @param out_max  bytes queued before stream_send() refuses
 * @param[out] out  caller owns, stream_close(); untouched on error, and fd stays the caller's
 */
int stream_adopt(struct stream **out, int fd, size_t in_max, size_t out_max);
void stream_close(struct stream *s); /* NULL is a no-op */
int stream_fd(const struct stream *s);
bool stream_wants_write(const struct stream *s);
size_t stream_queued_bytes(const struct stream *s);

/** Queue one frame and write what goes now. @return 0, -ENOBUFS (queue full), -ENOMEM, -EPIPE or -errno (peer gone) */
int stream_send(struct stream *s, const void *frame, size_t bytes);

/**
 * Write what is queued, read once (bounded), and hand over each whole frame. deliver() must not close the stream;
 * it returns 0 to go on, or -errno to stop.
 * @return 0, -EPIPE (peer closed between frames), -EPROTO (bad length, or end inside a frame), deliver's error,
 *         or -errno
 */
int stream_pump(struct stream *s, int (*deliver)(void *arg, const uint8_t *frame, size_t bytes),
		void *arg);
