/* SPDX-License-Identifier: GPL-3.0-or-later */
/* frame: what controller and gateways say to each other on the embedded transport, one deterministic CBOR array a
 * frame. Only the signed bytes inside ENTRY, HEARTBEAT and SNAPSHOT mean anything to a gateway; the frame itself is
 * not trusted. Pure: no I/O. Decoding is strict (-EPROTO). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

#define FRAME_GATEWAY_BYTES 64
#define FRAME_UP_BYTES 4096u /* longest frame from a gateway */
#define FRAME_DOWN_BYTES ((32u << 20) + 64) /* longest frame to a gateway: a snapshot */

enum frame_type {
	FRAME_SUBSCRIBE = 1, /* gateway > controller */
	FRAME_RECEIPT,
	FRAME_WANT_SNAPSHOT,
	FRAME_ENTRY = 16, /* controller > gateway; signed bytes */
	FRAME_HEARTBEAT,
	FRAME_SNAPSHOT,
};

/* The gateway's answer to a revision. */
struct receipt {
	char gateway[FRAME_GATEWAY_BYTES];
	uint64_t revision;
	int32_t result; /* 0 or -errno */
	uint64_t
		in_force_us; /* from receiving the entry to all enforcement points having confirmed */
	uint64_t sessions_closed, flows_closed, untracked;
	char text[256]; /* why not, when result is not 0; else "" or a remark */
};

struct frame {
	enum frame_type type;
	/* FRAME_SUBSCRIBE */
	char gateway[FRAME_GATEWAY_BYTES];
	uint64_t revision; /* the gateway's head: send what follows */
	uint8_t hash[32]; /* of that entry */
	/* FRAME_RECEIPT */
	struct receipt receipt;
	/* ENTRY, HEARTBEAT, SNAPSHOT: points into the decoded bytes */
	const uint8_t *cose;
	size_t cose_bytes;
};

/**
 * @param[out] out from malloc, caller frees; untouched on error
 * @return 0, -EPROTO (a field is wrong), -ENOMEM
 */
int frame_encode(uint8_t **out, size_t *out_bytes, const struct frame *f);
/** @return 0 or -EPROTO with text in err; out is undefined then */
int frame_decode(struct frame *out, const void *data, size_t bytes, struct err *err);

/** A receipt alone, as the stores keep it: the bytes of a FRAME_RECEIPT. */
int receipt_encode(uint8_t **out, size_t *out_bytes, const struct receipt *r);
int receipt_decode(struct receipt *out, const void *data, size_t bytes, struct err *err);
