/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls_record: whose datagram is this? As much of its first record as says so, before any library looks at it.
 * RFC 6347 section 4.1, RFC 9146 section 4, RFC 9147 section 4. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of ours: the worker's number, so that others can find the worker, then random bytes. */
#define DTLS_CID_BYTES 8

enum dtls_kind {
	DTLS_NOTHING, /* no DTLS */
	DTLS_RECORD, /* of the association with its source address */
	DTLS_CID, /* of the association with this connection ID */
	DTLS_HELLO, /* a ClientHello in the clear, or a piece of one */
};

struct dtls_record {
	size_t bytes; /* of the first record and its header; the datagram may hold more */
	bool sealed; /* encrypted: an epoch beyond 0 */
	const uint8_t *cid; /* DTLS_CID: DTLS_CID_BYTES, within the datagram */
	/* DTLS_HELLO */
	bool begins; /* it is the first piece, and what follows is known */
	bool cookie; /* it returns a cookie, good or not */
	uint64_t
		random; /* of the client's random value, enough to tell one handshake from another */
};

enum dtls_kind dtls_record_read(struct dtls_record *out, const uint8_t *data, size_t bytes);
