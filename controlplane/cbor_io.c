/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/cbor_io.h"

#include <cbor.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *cw_room(struct cbor_out *w, size_t bytes)
{
	size_t cap = w->cap == 0 ? 256 : w->cap;
	uint8_t *data;

	if (w->failed || bytes > SIZE_MAX / 4 - w->len)
		goto fail;
	while (cap < w->len + bytes)
		cap *= 2;
	if (cap != w->cap) {
		data = realloc(w->data, cap);
		if (data == NULL)
			goto fail;
		w->data = data;
		w->cap = cap;
	}
	return w->data + w->len;
fail:
	w->failed = true;
	return NULL;
}

static void cw_head(struct cbor_out *w, size_t (*encode)(size_t, unsigned char *, size_t), size_t v)
{
	uint8_t *at = cw_room(w, 9);

	if (at != NULL)
		w->len += encode(v, at, 9);
}

void cw_uint(struct cbor_out *w, uint64_t v)
{
	uint8_t *at = cw_room(w, 9);

	if (at != NULL)
		w->len += cbor_encode_uint(v, at, 9);
}

void cw_int(struct cbor_out *w, int64_t v)
{
	uint8_t *at;

	if (v >= 0) {
		cw_uint(w, (uint64_t)v);
		return;
	}
	at = cw_room(w, 9);
	if (at != NULL)
		w->len += cbor_encode_negint((uint64_t)(-1 - v), at, 9);
}

static void cw_raw(struct cbor_out *w, const void *data, size_t bytes)
{
	uint8_t *at = cw_room(w, bytes);

	if (at != NULL && bytes > 0) {
		memcpy(at, data, bytes);
		w->len += bytes;
	}
}

void cw_bytes(struct cbor_out *w, const void *data, size_t bytes)
{
	cw_head(w, cbor_encode_bytestring_start, bytes);
	cw_raw(w, data, bytes);
}

void cw_text(struct cbor_out *w, const char *text, size_t bytes)
{
	cw_head(w, cbor_encode_string_start, bytes);
	cw_raw(w, text, bytes);
}

void cw_array(struct cbor_out *w, size_t n)
{
	cw_head(w, cbor_encode_array_start, n);
}

void cw_map(struct cbor_out *w, size_t pairs)
{
	cw_head(w, cbor_encode_map_start, pairs);
}

void cw_tag(struct cbor_out *w, uint64_t tag)
{
	uint8_t *at = cw_room(w, 9);

	if (at != NULL)
		w->len += cbor_encode_tag(tag, at, 9);
}

/* ---- reading ---- */

enum item_kind { ITEM_NONE, ITEM_UINT, ITEM_NEGINT, ITEM_BYTES, ITEM_TEXT, ITEM_ARRAY, ITEM_MAP };

struct item {
	enum item_kind kind; /* NONE: something that no message of ours holds */
	uint64_t value; /* number, length or count */
	const uint8_t *data;
};

static void on_u8(void *arg, uint8_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_UINT, .value = v};
}

static void on_u16(void *arg, uint16_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_UINT, .value = v};
}

static void on_u32(void *arg, uint32_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_UINT, .value = v};
}

static void on_u64(void *arg, uint64_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_UINT, .value = v};
}

static void on_n8(void *arg, uint8_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_NEGINT, .value = v};
}

static void on_n16(void *arg, uint16_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_NEGINT, .value = v};
}

static void on_n32(void *arg, uint32_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_NEGINT, .value = v};
}

static void on_n64(void *arg, uint64_t v)
{
	*(struct item *)arg = (struct item){.kind = ITEM_NEGINT, .value = v};
}

static void on_bytes(void *arg, cbor_data data, size_t bytes)
{
	*(struct item *)arg = (struct item){.kind = ITEM_BYTES, .value = bytes, .data = data};
}

static void on_text(void *arg, cbor_data data, size_t bytes)
{
	*(struct item *)arg = (struct item){.kind = ITEM_TEXT, .value = bytes, .data = data};
}

static void on_array(void *arg, size_t n)
{
	*(struct item *)arg = (struct item){.kind = ITEM_ARRAY, .value = n};
}

static void on_map(void *arg, size_t n)
{
	*(struct item *)arg = (struct item){.kind = ITEM_MAP, .value = n};
}

static bool cr_item(struct cbor_in *r, enum item_kind kind, struct item *item)
{
	struct cbor_callbacks cb = cbor_empty_callbacks;
	struct cbor_decoder_result res;
	uint8_t head[9];
	size_t want;

	if (r->failed)
		return false;
	cb.uint8 = on_u8;
	cb.uint16 = on_u16;
	cb.uint32 = on_u32;
	cb.uint64 = on_u64;
	cb.negint8 = on_n8;
	cb.negint16 = on_n16;
	cb.negint32 = on_n32;
	cb.negint64 = on_n64;
	cb.byte_string = on_bytes;
	cb.string = on_text;
	cb.array_start = on_array;
	cb.map_start = on_map;
	*item = (struct item){0};
	res = cbor_stream_decode(r->at, r->left, &cb, item);
	if (res.status != CBOR_DECODER_FINISHED || item->kind != kind || res.read > r->left)
		goto fail;
	/* RFC 8949 section 4.2.1: the head in its shortest form, so that one value has one encoding. */
	want = cbor_encode_uint(item->value, head, sizeof(head));
	if (item->data != NULL) {
		if (item->value > res.read)
			goto fail;
		want += item->value;
	}
	if (res.read != want)
		goto fail;
	r->at += res.read;
	r->left -= res.read;
	return true;
fail:
	r->failed = true;
	return false;
}

uint64_t cr_uint(struct cbor_in *r)
{
	struct item item;

	return cr_item(r, ITEM_UINT, &item) ? item.value : 0;
}

int64_t cr_int(struct cbor_in *r)
{
	bool negative = r->left > 0 && (r->at[0] >> 5) == 1;
	struct item item;

	if (!cr_item(r, negative ? ITEM_NEGINT : ITEM_UINT, &item))
		return 0;
	if (item.value > INT64_MAX) {
		r->failed = true;
		return 0;
	}
	return negative ? -1 - (int64_t)item.value : (int64_t)item.value;
}

const uint8_t *cr_bytes(struct cbor_in *r, size_t *bytes)
{
	struct item item;

	*bytes = 0;
	if (!cr_item(r, ITEM_BYTES, &item))
		return NULL;
	*bytes = item.value;
	return item.data;
}

const char *cr_text(struct cbor_in *r, size_t *bytes)
{
	struct item item;

	*bytes = 0;
	if (!cr_item(r, ITEM_TEXT, &item))
		return NULL;
	*bytes = item.value;
	return (const char *)item.data;
}

/* An element takes at least one byte: a count past what is left is a lie, found before anybody allocates for it. */
static size_t cr_count(struct cbor_in *r, enum item_kind kind)
{
	struct item item;

	if (!cr_item(r, kind, &item))
		return 0;
	if (item.value > r->left) {
		r->failed = true;
		return 0;
	}
	return item.value;
}

size_t cr_array(struct cbor_in *r)
{
	return cr_count(r, ITEM_ARRAY);
}

size_t cr_map(struct cbor_in *r)
{
	return cr_count(r, ITEM_MAP);
}

/* By hand: libcbor before 0.9 refuses tags 6 to 20 as unassigned, and COSE_Sign1 is 18. Ours all fit the first byte. */
uint64_t cr_tag(struct cbor_in *r)
{
	uint8_t head;

	if (r->failed || r->left == 0 || (r->at[0] >> 5) != 6 || (r->at[0] & 31) > 23) {
		r->failed = true;
		return 0;
	}
	head = r->at[0] & 31;
	r->at++;
	r->left--;
	return head;
}

void cr_bytes_into(struct cbor_in *r, void *out, size_t bytes)
{
	size_t n;
	const uint8_t *data = cr_bytes(r, &n);

	if (data == NULL || n != bytes) {
		r->failed = true;
		return;
	}
	memcpy(out, data, bytes);
}

void cr_text_into(struct cbor_in *r, char *out, size_t out_bytes)
{
	size_t n;
	const char *text = cr_text(r, &n);

	if (text == NULL || n >= out_bytes || !text_ok(text, n, false)) {
		r->failed = true;
		return;
	}
	memcpy(out, text, n);
	out[n] = '\0';
}

/* RFC 3629 section 4, as ranges of the second byte by the first. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
	uint8_t lo = 0x80, hi = 0xbf;
	size_t n;

	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		n = 3;
		lo = p[0] == 0xe0 ? 0xa0 : lo;
		hi = p[0] == 0xed ? 0x9f : hi;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		lo = p[0] == 0xf0 ? 0x90 : lo;
		hi = p[0] == 0xf4 ? 0x8f : hi;
	} else {
		return 0;
	}
	if (left < n || p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return n;
}

bool text_ok(const char *text, size_t bytes, bool lines)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t n;

	for (size_t i = 0; i < bytes; i += n) {
		n = 1;
		if (p[i] >= 0x80) {
			n = utf8_sequence(p + i, bytes - i);
			if (n == 0)
				return false;
		} else if (p[i] < 0x20 || p[i] == 0x7f) {
			if (!lines || (p[i] != '\n' && p[i] != '\t' && p[i] != '\r'))
				return false;
		}
	}
	return true;
}
