/* SPDX-License-Identifier: GPL-3.0-or-later */
/* buffer: bytes on their way, of a fixed capacity, whose memory is there only while it is needed, and only as much as
 * is needed: most sessions of devices are idle most of the time, and most of what strangers send is short. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_STEP 2048

struct buffer {
	uint8_t *data; /* NULL: nothing is held, at == n == 0 */
	uint32_t capacity;
	uint32_t size; /* of data, at most capacity */
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

/** Room for so many bytes more, as far as the capacity goes. @return false: no memory; b is as it was */
static inline bool buffer_hold_for(struct buffer *b, size_t bytes)
{
	size_t waiting = buffer_waiting(b), want = waiting + bytes;
	uint8_t *data;

	if (want > b->capacity)
		want = b->capacity;
	if (b->data != NULL && b->size >= want)
		return true;
	want = (want + BUFFER_STEP - 1) / BUFFER_STEP * BUFFER_STEP;
	if (want < 2 * (size_t)b->size)
		want = 2 * (size_t)b->size;
	if (want > b->capacity)
		want = b->capacity;
	data = malloc(want);
	if (data == NULL)
		return false;
	if (b->data != NULL) {
		memcpy(data, b->data + b->at, waiting);
		explicit_bzero(b->data, b->size);
		free(b->data);
	}
	b->data = data;
	b->size = want;
	b->at = 0;
	b->n = waiting;
	return true;
}

/** All of the capacity. @return false: no memory */
static inline bool buffer_hold(struct buffer *b)
{
	return buffer_hold_for(b, b->capacity);
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
	if (bytes > b->size - b->n)
		bytes = b->size - b->n;
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
		explicit_bzero(b->data, b->size);
	free(b->data);
	b->data = NULL;
	b->at = b->n = b->size = 0;
}

/** The same, if it is empty. */
static inline void buffer_trim(struct buffer *b)
{
	if (buffer_waiting(b) == 0)
		buffer_drop(b);
}
