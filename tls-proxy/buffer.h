/* SPDX-License-Identifier: GPL-3.0-or-later */
/* buffer: bytes on their way, of a fixed capacity, whose memory is there only while it is needed: most sessions of
 * devices are idle most of the time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
	uint8_t *data; /* NULL: nothing is held, at == n == 0 */
	uint32_t capacity;
	uint32_t at, n; /* what waits is data[at..n) */
};

static inline size_t buffer_waiting(const struct buffer *b)
{
	return b->n - b->at;
}

static inline size_t buffer_room(const struct buffer *b)
{
	return b->capacity - buffer_waiting(b);
}

/** @return false: no memory */
static inline bool buffer_hold(struct buffer *b)
{
	if (b->data == NULL)
		b->data = malloc(b->capacity);
	return b->data != NULL;
}

/** What waits begins at the front, and the room is behind it. Held. */
static inline void buffer_pack(struct buffer *b)
{
	if (b->at == 0)
		return;
	memmove(b->data, b->data + b->at, buffer_waiting(b));
	b->n -= b->at;
	b->at = 0;
}

/** Append as much as there is room for. Held. @return bytes */
static inline size_t buffer_put(struct buffer *b, const void *data, size_t bytes)
{
	buffer_pack(b);
	if (bytes > b->capacity - b->n)
		bytes = b->capacity - b->n;
	memcpy(b->data + b->n, data, bytes);
	b->n += bytes;
	return bytes;
}

static inline void buffer_taken(struct buffer *b, size_t bytes)
{
	b->at += bytes;
	if (b->at == b->n)
		b->at = b->n = 0;
}

/** Wipe it and give its memory back, whatever it holds. */
static inline void buffer_drop(struct buffer *b)
{
	if (b->data != NULL)
		explicit_bzero(b->data, b->capacity);
	free(b->data);
	b->data = NULL;
	b->at = b->n = 0;
}

/** The same, if it is empty. */
static inline void buffer_trim(struct buffer *b)
{
	if (buffer_waiting(b) == 0)
		buffer_drop(b);
}
