/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (256u * 1024) /* one pump reads no more: other work gets its turn */
#define LENGTH_BYTES 4

void frame_buf_init(struct frame_buf *b, size_t max)
{
	*b = (struct frame_buf){.max = max};
}

void frame_buf_fini(struct frame_buf *b)
{
	free(b->data);
	*b = (struct frame_buf){.max = b->max};
}

int frame_buf_push(struct frame_buf *b, const void *data, size_t bytes)
{
	size_t cap = b->cap == 0 ? 4096 : b->cap;
	uint8_t *grown;

	if (bytes == 0)
		return 0;
	if (b->at > 0) {
		memmove(b->data, b->data + b->at, b->len - b->at);
		b->len -= b->at;
		b->at = 0;
	}
	while (cap < b->len + bytes)
		cap *= 2;
	if (cap != b->cap) {
		grown = realloc(b->data, cap);
		if (grown == NULL)
			return -ENOMEM;
		b->data = grown;
		b->cap = cap;
	}
	memcpy(b->data + b->len, data, bytes);
	b->len += bytes;
	return 0;
}

int frame_buf_next(struct frame_buf *b, const uint8_t **frame, size_t *bytes)
{
	const uint8_t *p;
	size_t n;

	if (b->len - b->at < LENGTH_BYTES)
		return 0;
	p = b->data + b->at;
	n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	if (n == 0 || n > b->max)
		return -EPROTO;
	if (b->len - b->at - LENGTH_BYTES < n)
		return 0;
	*frame = p + LENGTH_BYTES;
	*bytes = n;
	b->at += LENGTH_BYTES + n;
	return 1;
}

struct stream {
	int fd;
	struct frame_buf in;
	uint8_t *out;
	size_t out_len, out_at, out_cap, out_max;
	uint8_t chunk[READ_BYTES];
};

int stream_adopt(struct stream **out, int fd, size_t in_max, size_t out_max)
{
	struct stream *s;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->fd = fd;
	s->out_max = out_max;
	frame_buf_init(&s->in, in_max);
	*out = s;
	return 0;
}

void stream_close(struct stream *s)
{
	if (s == NULL)
		return;
	close(s->fd);
	frame_buf_fini(&s->in);
	free(s->out);
	free(s);
}

int stream_fd(const struct stream *s)
{
	return s->fd;
}

bool stream_wants_write(const struct stream *s)
{
	return s->out_at < s->out_len;
}

size_t stream_queued_bytes(const struct stream *s)
{
	return s->out_len - s->out_at;
}

static int stream_flush(struct stream *s)
{
	while (s->out_at < s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_at, s->out_len - s->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
		s->out_at += (size_t)n;
	}
	s->out_at = s->out_len = 0;
	return 0;
}

int stream_send(struct stream *s, const void *frame, size_t bytes)
{
	size_t need = stream_queued_bytes(s) + LENGTH_BYTES + bytes,
	       cap = s->out_cap == 0 ? 4096 : s->out_cap;
	uint8_t *grown;

	if (bytes == 0 || bytes > UINT32_MAX)
		return -EPROTO;
	if (need > s->out_max)
		return -ENOBUFS;
	if (s->out_at > 0) {
		memmove(s->out, s->out + s->out_at, s->out_len - s->out_at);
		s->out_len -= s->out_at;
		s->out_at = 0;
	}
	while (cap < need)
		cap *= 2;
	if (cap != s->out_cap) {
		grown = realloc(s->out, cap);
		if (grown == NULL)
			return -ENOMEM;
		s->out = grown;
		s->out_cap = cap;
	}
	s->out[s->out_len++] = (uint8_t)(bytes >> 24);
	s->out[s->out_len++] = (uint8_t)(bytes >> 16);
	s->out[s->out_len++] = (uint8_t)(bytes >> 8);
	s->out[s->out_len++] = (uint8_t)bytes;
	memcpy(s->out + s->out_len, frame, bytes);
	s->out_len += bytes;
	return stream_flush(s);
}

int stream_pump(struct stream *s, int (*deliver)(void *arg, const uint8_t *frame, size_t bytes),
		void *arg)
{
	const uint8_t *frame;
	size_t bytes;
	ssize_t n;
	int ret = stream_flush(s), more;

	/* A peer that closed may have left frames behind; they are still read, and the read then says what is wrong. */
	if (ret < 0 && ret != -EPIPE && ret != -ECONNRESET)
		return ret;
	n = recv(s->fd, s->chunk, sizeof(s->chunk), 0);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? ret : -errno;
	if (n == 0)
		return s->in.at < s->in.len ? -EPROTO : -EPIPE;
	ret = frame_buf_push(&s->in, s->chunk, (size_t)n);
	if (ret < 0)
		return ret;
	while ((more = frame_buf_next(&s->in, &frame, &bytes)) > 0) {
		ret = deliver(arg, frame, bytes);
		if (ret < 0)
			return ret;
	}
	return more;
}
