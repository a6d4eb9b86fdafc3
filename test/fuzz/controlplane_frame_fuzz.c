/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The decision transport: splitting a byte stream into frames, at any cut, and decoding each. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/frame.h"
#include "controlplane/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX 4096

static void one_frame(const uint8_t *frame, size_t bytes)
{
	struct frame f;
	uint8_t *again;
	size_t n;

	if (bytes == 0 || bytes > MAX)
		abort();
	if (frame_decode(&f, frame, bytes, NULL) < 0)
		return;
	if (frame_encode(&again, &n, &f) < 0 || n != bytes || memcmp(again, frame, n) != 0)
		abort();
	free(again);
}

/* First byte: how the rest is cut. @return frames seen */
static size_t split(const uint8_t *data, size_t size, size_t step, int *end)
{
	const uint8_t *frame;
	struct frame_buf b;
	size_t bytes, n = 0;

	frame_buf_init(&b, MAX);
	*end = 0;
	for (size_t at = 0; at < size && *end >= 0; at += step) {
		if (frame_buf_push(&b, data + at, size - at < step ? size - at : step) < 0)
			abort();
		while ((*end = frame_buf_next(&b, &frame, &bytes)) > 0) {
			one_frame(frame, bytes);
			n++;
		}
	}
	frame_buf_fini(&b);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int end_cut, end_whole;

	if (size < 2)
		return 0;
	/* However the stream is cut, the frames are the same. */
	if (split(data + 1, size - 1, 1 + data[0] % 64, &end_cut) !=
		    split(data + 1, size - 1, size, &end_whole) ||
	    end_cut != end_whole)
		abort();
	if (size - 1 <= MAX)
		one_frame(data + 1, size - 1);
	return 0;
}
