/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cbor_io.h"

/* Elements of the array, the type included; 0 for an unknown type. */
static size_t frame_elements(uint64_t type)
{
	switch (type) {
	case FRAME_SUBSCRIBE:
		return 4;
	case FRAME_RECEIPT:
		return 9;
	case FRAME_WANT_SNAPSHOT:
		return 1;
	case FRAME_ENTRY:
	case FRAME_HEARTBEAT:
	case FRAME_SNAPSHOT:
		return 2;
	default:
		return 0;
	}
}

static bool name_ok(const char *text, size_t bytes)
{
	return memchr(text, '\0', bytes) != NULL && text[0] != '\0' &&
	       text_ok(text, strlen(text), false);
}

int frame_encode(uint8_t **out, size_t *out_bytes, const struct frame *f)
{
	const struct receipt *r = &f->receipt;
	struct cbor_out w = {0};

	if (frame_elements(f->type) == 0)
		return -EPROTO;
	cw_array(&w, frame_elements(f->type));
	cw_uint(&w, f->type);
	switch (f->type) {
	case FRAME_SUBSCRIBE:
		if (!name_ok(f->gateway, sizeof(f->gateway)))
			goto fail;
		cw_text(&w, f->gateway, strlen(f->gateway));
		cw_uint(&w, f->revision);
		cw_bytes(&w, f->hash, sizeof(f->hash));
		break;
	case FRAME_RECEIPT:
		if (!name_ok(r->gateway, sizeof(r->gateway)) ||
		    memchr(r->text, '\0', sizeof(r->text)) == NULL ||
		    !text_ok(r->text, strlen(r->text), false) || r->result > 0)
			goto fail;
		cw_text(&w, r->gateway, strlen(r->gateway));
		cw_uint(&w, r->revision);
		cw_int(&w, r->result);
		cw_uint(&w, r->in_force_us);
		cw_uint(&w, r->sessions_closed);
		cw_uint(&w, r->flows_closed);
		cw_uint(&w, r->untracked);
		cw_text(&w, r->text, strlen(r->text));
		break;
	case FRAME_WANT_SNAPSHOT:
		break;
	case FRAME_ENTRY:
	case FRAME_HEARTBEAT:
	case FRAME_SNAPSHOT:
		cw_bytes(&w, f->cose, f->cose_bytes);
		break;
	}
	if (w.failed) {
		free(w.data);
		return -ENOMEM;
	}
	*out = w.data;
	*out_bytes = w.len;
	return 0;
fail:
	free(w.data);
	return -EPROTO;
}

static void receipt_fields(struct cbor_in *in, struct receipt *r)
{
	int64_t result;

	cr_text_into(in, r->gateway, sizeof(r->gateway));
	r->revision = cr_uint(in);
	result = cr_int(in);
	r->in_force_us = cr_uint(in);
	r->sessions_closed = cr_uint(in);
	r->flows_closed = cr_uint(in);
	r->untracked = cr_uint(in);
	cr_text_into(in, r->text, sizeof(r->text));
	/* 2^53: what JSON can carry exactly. */
	if (result > 0 || result < -4095 || r->gateway[0] == '\0' || r->revision > INT64_MAX ||
	    (r->in_force_us | r->sessions_closed | r->flows_closed | r->untracked) >> 53 != 0)
		in->failed = true;
	else
		r->result = (int32_t)result;
}

int frame_decode(struct frame *out, const void *data, size_t bytes, struct err *err)
{
	struct cbor_in in = {.at = data, .left = bytes};
	size_t n = cr_array(&in);
	uint64_t type = cr_uint(&in);

	memset(out, 0, sizeof(*out));
	if (in.failed || n == 0 || n != frame_elements(type))
		return err_set(err, -EPROTO, "not a frame of the decision transport");
	out->type = type;
	switch (out->type) {
	case FRAME_SUBSCRIBE:
		cr_text_into(&in, out->gateway, sizeof(out->gateway));
		out->revision = cr_uint(&in);
		cr_bytes_into(&in, out->hash, sizeof(out->hash));
		if (out->gateway[0] == '\0' || out->revision > INT64_MAX)
			in.failed = true;
		break;
	case FRAME_RECEIPT:
		receipt_fields(&in, &out->receipt);
		break;
	case FRAME_WANT_SNAPSHOT:
		break;
	case FRAME_ENTRY:
	case FRAME_HEARTBEAT:
	case FRAME_SNAPSHOT:
		out->cose = cr_bytes(&in, &out->cose_bytes);
		break;
	}
	if (in.failed || in.left != 0)
		return err_set(err, -EPROTO, "frame is malformed");
	return 0;
}

int receipt_encode(uint8_t **out, size_t *out_bytes, const struct receipt *r)
{
	struct frame f = {.type = FRAME_RECEIPT, .receipt = *r};

	return frame_encode(out, out_bytes, &f);
}

int receipt_decode(struct receipt *out, const void *data, size_t bytes, struct err *err)
{
	struct frame f;
	int ret = frame_decode(&f, data, bytes, err);

	if (ret < 0)
		return ret;
	if (f.type != FRAME_RECEIPT)
		return err_set(err, -EPROTO, "not a receipt");
	*out = f.receipt;
	return 0;
}
