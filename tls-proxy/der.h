/* SPDX-License-Identifier: GPL-3.0-or-later */
/* der: read DER (X.690) element by element. A cursor is a range of bytes that somebody else owns; reading never leaves
 * it. Only what certificates and revocation lists need: tags of one byte, definite lengths below 2^31, minimal. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	DER_BOOLEAN = 0x01,
	DER_INTEGER = 0x02,
	DER_BITS = 0x03,
	DER_OCTETS = 0x04,
	DER_OID = 0x06,
	DER_ENUMERATED = 0x0a,
	DER_UTC_TIME = 0x17,
	DER_GENERAL_TIME = 0x18,
	DER_SEQUENCE = 0x30,
	DER_CONTEXT = 0xa0, /* [0], constructed; + n */
};

struct der {
	const uint8_t *at, *end;
};

static inline size_t der_left(const struct der *d)
{
	return d->end - d->at;
}

/** The tag of the next element; 0: none. */
static inline uint8_t der_peek(const struct der *d)
{
	return der_left(d) > 0 ? d->at[0] : 0;
}

/** Take the next element, whatever it is. @return false: none, or malformed */
static inline bool der_any(struct der *d, struct der *content)
{
	const uint8_t *p = d->at;
	size_t bytes, head = 2;

	if (der_left(d) < 2)
		return false;
	bytes = p[1];
	if (bytes >= 0x80) {
		size_t n = bytes & 0x7f;

		if (n == 0 || n > 4 || der_left(d) < 2 + n || p[2] == 0)
			return false;
		for (bytes = 0; head < 2 + n; head++)
			bytes = bytes << 8 | p[head];
		if (bytes < 0x80 || bytes > INT32_MAX)
			return false;
	}
	if (bytes > der_left(d) - head)
		return false;
	*content = (struct der){p + head, p + head + bytes};
	d->at = content->end;
	return true;
}

/** Take the next element if it has this tag. @return false: it has not, or it is malformed; d stays */
static inline bool der_take(struct der *d, uint8_t tag, struct der *content)
{
	return der_peek(d) == tag && der_any(d, content);
}

static inline bool der_is(const struct der *d, const void *bytes, size_t n)
{
	return der_left(d) == n && memcmp(d->at, bytes, n) == 0;
}
