/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/hello.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#define HELLO_BYTES_MAX 16384
#define RECORD_HEAD 5
#define RECORD_HANDSHAKE 22
#define CLIENT_HELLO 1
#define EXT_SERVER_NAME 0
#define EXT_SESSION_TICKET 35
#define NAME_HOST 0

struct bytes {
	const uint8_t *at;
	size_t n;
};

static bool skip(struct bytes *b, size_t n)
{
	if (b->n < n)
		return false;
	b->at += n;
	b->n -= n;
	return true;
}

/* A vector with a length of `width` bytes in front of it. */
static bool vector(struct bytes *b, unsigned width, struct bytes *out)
{
	size_t n = 0;

	if (b->n < width)
		return false;
	for (unsigned i = 0; i < width; i++)
		n = n << 8 | b->at[i];
	if (b->n - width < n)
		return false;
	*out = (struct bytes){b->at + width, n};
	return skip(b, width + n);
}

static void name_take(struct bytes list, char *name)
{
	struct bytes names, host;

	if (!vector(&list, 2, &names) || names.n < 1 || names.at[0] != NAME_HOST ||
	    !skip(&names, 1) || !vector(&names, 2, &host) || host.n == 0 ||
	    host.n >= HELLO_NAME_BYTES)
		return;
	for (size_t i = 0; i < host.n; i++) {
		if (host.at[i] <= 0x20 || host.at[i] >= 0x7f) {
			name[0] = '\0';
			return;
		}
		name[i] = tolower(host.at[i]);
	}
	name[host.n] = '\0';
}

/* The message without its header. A name that cannot be read is none. */
static enum hello message_read(struct bytes m, char *name, size_t *ticket_bytes)
{
	struct bytes part, exts;
	bool named = false;

	/* version, random */
	if (!skip(&m, 2 + 32) || !vector(&m, 1, &part) || !vector(&m, 2, &part) ||
	    !vector(&m, 1, &part) || !vector(&m, 2, &exts))
		return HELLO_STRANGE;
	while (exts.n >= 4) {
		unsigned type = exts.at[0] << 8 | exts.at[1];

		if (!skip(&exts, 2) || !vector(&exts, 2, &part))
			return HELLO_STRANGE;
		if (type == EXT_SERVER_NAME && !named) {
			name_take(part, name);
			named = true;
		} else if (type == EXT_SESSION_TICKET) {
			*ticket_bytes = part.n;
		}
	}
	return HELLO_WHOLE;
}

enum hello hello_read(const uint8_t *in, size_t bytes, char name[static HELLO_NAME_BYTES],
		      size_t *ticket_bytes)
{
	uint8_t joined[HELLO_BYTES_MAX];
	struct bytes left = {in, bytes};
	size_t have = 0, want = 4;

	name[0] = '\0';
	*ticket_bytes = 0;
	while (left.n >= RECORD_HEAD) {
		size_t n = (size_t)left.at[3] << 8 | left.at[4];

		if (left.at[0] != RECORD_HANDSHAKE || left.at[1] != 3 || n == 0)
			return HELLO_STRANGE;
		if (left.n - RECORD_HEAD < n) /* part of a record: is it at least one of ours? */
			n = left.n - RECORD_HEAD;
		skip(&left, RECORD_HEAD);
		if (n > sizeof(joined) - have)
			return HELLO_STRANGE;
		memcpy(joined + have, left.at, n);
		have += n;
		skip(&left, n);
		if (have >= 1 && joined[0] != CLIENT_HELLO)
			return HELLO_STRANGE;
		if (have >= 4)
			want = 4 + ((size_t)joined[1] << 16 | (size_t)joined[2] << 8 | joined[3]);
		if (want > sizeof(joined))
			return HELLO_STRANGE;
		if (have >= 4 && have >= want)
			return message_read((struct bytes){joined + 4, want - 4}, name,
					    ticket_bytes);
	}
	return left.n > 0 && left.at[0] != RECORD_HANDSHAKE ? HELLO_STRANGE : HELLO_MORE;
}
