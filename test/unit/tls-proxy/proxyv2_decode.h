/* SPDX-License-Identifier: GPL-3.0-or-later */
/* proxyv2_decode: a reader of PROXY protocol version 2, written from its specification and knowing nothing of the encoder:
 * for tests and fuzzing. Refuses whatever a strict receiver would. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pp2_tlv {
	uint8_t type;
	const uint8_t *value;
	size_t n;
};

struct pp2 {
	uint8_t command, family; /* low nibble; the whole byte */
	uint8_t src[16], dst[16];
	size_t addr_bytes;
	uint16_t sport, dport;
	struct pp2_tlv tlv[32], ssl[16];
	unsigned n_tlvs, n_ssl;
	uint8_t ssl_client;
	uint32_t ssl_verify;
	size_t bytes; /* of the header */
};

static inline bool pp2_tlvs(struct pp2_tlv *out, unsigned *n, unsigned room, const uint8_t *at,
			    size_t left)
{
	for (*n = 0; left > 0; (*n)++) {
		size_t length;

		if (left < 3 || *n == room)
			return false;
		length = (size_t)at[1] << 8 | at[2];
		if (length > left - 3)
			return false;
		out[*n] = (struct pp2_tlv){at[0], at + 3, length};
		at += 3 + length;
		left -= 3 + length;
	}
	return true;
}

static inline const struct pp2_tlv *pp2_find(const struct pp2_tlv *t, unsigned n, uint8_t type)
{
	for (unsigned i = 0; i < n; i++) {
		if (t[i].type == type)
			return &t[i];
	}
	return NULL;
}

/* Bit by bit, the other way round than a reflected table: every bit of the message into a 32-bit remainder. */
static inline uint32_t pp2_crc32c(const uint8_t *data, size_t n, const uint8_t *hole)
{
	uint32_t r = ~0u, out = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t b = data + i >= hole && data + i < hole + 4 ? 0 : data[i];

		for (int bit = 0; bit < 8; bit++) {
			bool top = (r >> 31) ^ (b >> bit & 1);

			r = r << 1 ^ (top ? 0x1edc6f41u : 0);
		}
	}
	for (int bit = 0; bit < 32; bit++)
		out |= (r >> bit & 1) << (31 - bit);
	return ~out;
}

static inline bool pp2_decode(struct pp2 *out, const uint8_t *data, size_t n)
{
	const struct pp2_tlv *t;
	size_t body;

	memset(out, 0, sizeof(*out));
	if (n < 16 || memcmp(data, "\r\n\r\n\0\r\nQUIT\n", 12) != 0 || data[12] >> 4 != 2)
		return false;
	body = (size_t)data[14] << 8 | data[15];
	out->command = data[12] & 15;
	out->family = data[13];
	if (out->command > 1 || body > n - 16)
		return false;
	out->bytes = 16 + body;
	if (out->command == 0)
		return true;
	out->addr_bytes = out->family >> 4 == 1 ? 4 : 16;
	if ((out->family >> 4 != 1 && out->family >> 4 != 2) ||
	    ((out->family & 15) != 1 && (out->family & 15) != 2) || body < 2 * out->addr_bytes + 4)
		return false;
	memcpy(out->src, data + 16, out->addr_bytes);
	memcpy(out->dst, data + 16 + out->addr_bytes, out->addr_bytes);
	data += 16 + 2 * out->addr_bytes;
	out->sport = data[0] << 8 | data[1];
	out->dport = data[2] << 8 | data[3];
	if (!pp2_tlvs(out->tlv, &out->n_tlvs, 32, data + 4, body - 2 * out->addr_bytes - 4))
		return false;
	data -= 16 + 2 * out->addr_bytes;
	t = pp2_find(out->tlv, out->n_tlvs, 0x03);
	if (t != NULL && (t->n != 4 || pp2_crc32c(data, out->bytes, t->value) !=
					       ((uint32_t)t->value[0] << 24 | t->value[1] << 16 |
						t->value[2] << 8 | t->value[3])))
		return false;
	t = pp2_find(out->tlv, out->n_tlvs, 0x20);
	if (t == NULL)
		return true;
	if (t->n < 5)
		return false;
	out->ssl_client = t->value[0];
	out->ssl_verify =
		(uint32_t)t->value[1] << 24 | t->value[2] << 16 | t->value[3] << 8 | t->value[4];
	return pp2_tlvs(out->ssl, &out->n_ssl, 16, t->value + 5, t->n - 5);
}
