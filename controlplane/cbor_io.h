/* SPDX-License-Identifier: GPL-3.0-or-later */
/* cbor_io: write and read deterministic CBOR (RFC 8949 section 4.2.1) over libcbor's streaming calls: no item tree, no
 * allocation while reading, and every head that is not the shortest, every indefinite length is refused. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- writing: errors stick; check once at the end ---- */

struct cbor_out {
	uint8_t *data; /* from malloc; the caller takes or frees it */
	size_t len, cap;
	bool failed; /* out of memory */
};

void cw_uint(struct cbor_out *w, uint64_t v);
void cw_int(struct cbor_out *w, int64_t v);
void cw_bytes(struct cbor_out *w, const void *data, size_t bytes);
void cw_text(struct cbor_out *w, const char *text, size_t bytes);
void cw_array(struct cbor_out *w, size_t n);
void cw_map(struct cbor_out *w, size_t pairs);
void cw_tag(struct cbor_out *w, uint64_t tag);

/* ---- reading: each call takes one item of exactly that kind, or fails; a failure sticks ---- */

struct cbor_in {
	const uint8_t *at;
	size_t left;
	bool failed;
};

uint64_t cr_uint(struct cbor_in *r);
int64_t cr_int(struct cbor_in *r);
const uint8_t *cr_bytes(struct cbor_in *r, size_t *bytes); /* into the input; NULL on failure */
/** Valid UTF-8 without control bytes is the caller's to check (text_ok). */
const char *cr_text(struct cbor_in *r, size_t *bytes);
size_t cr_array(struct cbor_in *r);
size_t cr_map(struct cbor_in *r);
uint64_t cr_tag(struct cbor_in *r); /* 0 to 23 */
/** A byte string of exactly this length, copied. */
void cr_bytes_into(struct cbor_in *r, void *out, size_t bytes);
/** A text that is text_ok() and fits out with its end; copied. */
void cr_text_into(struct cbor_in *r, char *out, size_t out_bytes);

/** Well-formed UTF-8 (RFC 3629) without C0 controls and DEL; `lines` also lets tab, line feed and carriage return be. */
bool text_ok(const char *text, size_t bytes, bool lines);
