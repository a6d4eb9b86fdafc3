/* SPDX-License-Identifier: GPL-3.0-or-later */
/* siphash: SipHash (Aumasson and Bernstein, 2012) of a few words: who does not know the key finds no two inputs of one
 * bucket, and no next sequence number. */
#pragma once

#include <stdint.h>

static inline uint64_t siphash_rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void siphash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = siphash_rotl(v[1], 13) ^ v[0];
	v[3] = siphash_rotl(v[3], 16) ^ v[2];
	v[0] = siphash_rotl(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = siphash_rotl(v[1], 17) ^ v[2];
	v[3] = siphash_rotl(v[3], 21) ^ v[0];
	v[2] = siphash_rotl(v[2], 32);
}

/* SipHash-c-d; the input is `words` of eight bytes, little-endian. */
static inline uint64_t siphash(const uint64_t key[2], const uint64_t *in, unsigned words, int c,
			       int d)
{
	uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			 key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};

	for (unsigned i = 0; i <= words; i++) {
		uint64_t m = i < words ? in[i] : (uint64_t)words * 8 << 56;

		v[3] ^= m;
		for (int r = 0; r < c; r++)
			siphash_round(v);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
	for (int r = 0; r < d; r++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
