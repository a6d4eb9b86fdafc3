/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/dtls_record.h"

#include <string.h>

#define TYPE_CHANGE_CIPHER_SPEC 20
#define TYPE_HANDSHAKE 22
#define TYPE_APPLICATION_DATA 23
#define TYPE_CID 25 /* tls12_cid, RFC 9146 section 10 */
#define TYPE_ACK 26 /* RFC 9147 section 7 */
#define HEAD_BYTES 13 /* type, version, epoch, sequence number, length */
#define CID_AT 11 /* in a record of TYPE_CID */
#define HANDSHAKE_HEAD_BYTES 12
#define CLIENT_HELLO 1
#define RANDOM_BYTES 32
#define EXTENSION_COOKIE 44

/* The unified header of DTLS 1.3: 001CSLEE */
#define UNIFIED_MASK 0xe0
#define UNIFIED 0x20
#define UNIFIED_CID 0x10

struct reader {
	const uint8_t *at;
	size_t left;
};

static bool skip(struct reader *r, size_t bytes)
{
	if (bytes > r->left)
		return false;
	r->at += bytes;
	r->left -= bytes;
	return true;
}

static bool number(struct reader *r, unsigned bytes, uint32_t *out)
{
	*out = 0;
	if (bytes > r->left)
		return false;
	for (unsigned i = 0; i < bytes; i++)
		*out = *out << 8 | r->at[i];
	return skip(r, bytes);
}

/* A vector behind its length of so many bytes. */
static bool vector(struct reader *r, unsigned length_bytes, uint32_t *out)
{
	return number(r, length_bytes, out) && skip(r, *out);
}

/* The extensions may go on in another piece. */
static bool has_cookie_extension(struct reader *r)
{
	uint32_t type, bytes;

	while (number(r, 2, &type) && number(r, 2, &bytes)) {
		if (type == EXTENSION_COOKIE)
			return bytes > 2;
		if (!skip(r, bytes))
			return false;
	}
	return false;
}

/* RFC 6347 section 4.2.1: version, random, session, cookie, cipher suites, compression, extensions. */
static bool hello_read(struct dtls_record *out, struct reader r)
{
	uint32_t type, message, sequence, from, piece, version, bytes;

	if (!number(&r, 1, &type) || !number(&r, 3, &message) || !number(&r, 2, &sequence) ||
	    !number(&r, 3, &from) || !number(&r, 3, &piece))
		return false;
	if (piece > r.left || from > message || piece > message - from)
		return false;
	if (from > 0)
		return true;
	r.left = piece;
	if (!number(&r, 2, &version) || version >> 8 != 0xfe || r.left < RANDOM_BYTES)
		return false;
	memcpy(&out->random, r.at, sizeof(out->random));
	if (!skip(&r, RANDOM_BYTES) || !vector(&r, 1, &bytes) || !vector(&r, 1, &bytes))
		return false;
	out->cookie = bytes > 0;
	if (!vector(&r, 2, &bytes) || !vector(&r, 1, &bytes))
		return false;
	out->begins = true;
	if (number(&r, 2, &bytes) && !out->cookie)
		out->cookie = has_cookie_extension(&r);
	return true;
}

static enum dtls_kind unified_read(struct dtls_record *out, const uint8_t *data, size_t bytes)
{
	out->sealed = true;
	out->bytes = bytes;
	if (!(data[0] & UNIFIED_CID))
		return DTLS_RECORD;
	if (bytes < 1 + DTLS_CID_BYTES)
		return DTLS_NOTHING;
	out->cid = data + 1;
	return DTLS_CID;
}

enum dtls_kind dtls_record_read(struct dtls_record *out, const uint8_t *data, size_t bytes)
{
	bool with_cid;
	size_t head, payload;

	*out = (struct dtls_record){.bytes = 0};
	if (bytes < 1)
		return DTLS_NOTHING;
	if ((data[0] & UNIFIED_MASK) == UNIFIED)
		return unified_read(out, data, bytes);
	with_cid = data[0] == TYPE_CID;
	head = HEAD_BYTES + (with_cid ? DTLS_CID_BYTES : 0);
	if (bytes < head || data[1] != 0xfe || data[0] < TYPE_CHANGE_CIPHER_SPEC ||
	    data[0] > TYPE_ACK || data[0] == TYPE_APPLICATION_DATA + 1)
		return DTLS_NOTHING;
	payload = (size_t)data[head - 2] << 8 | data[head - 1];
	if (payload > bytes - head)
		return DTLS_NOTHING;
	out->bytes = head + payload;
	out->sealed = data[3] != 0 || data[4] != 0;
	if (with_cid) {
		out->cid = data + CID_AT;
		return DTLS_CID;
	}
	if (data[0] != TYPE_HANDSHAKE || out->sealed || payload < 1 || data[head] != CLIENT_HELLO)
		return DTLS_RECORD;
	return payload >= HANDSHAKE_HEAD_BYTES &&
			       hello_read(out, (struct reader){data + head, payload})
		       ? DTLS_HELLO
		       : DTLS_NOTHING;
}
