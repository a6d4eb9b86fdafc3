/* SPDX-License-Identifier: GPL-3.0-or-later */
/* craft: records of TLS 1.3 that no honest library writes, under the keys of a client of the library. */
#pragma once

#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/internal.h>
#include <wolfssl/wolfcrypt/aes.h>

#define CRAFT_BYTES (5 + 65535)

/* @param out  CRAFT_BYTES. @return bytes of the record of n bytes, their type, and pad zeros */
static inline size_t craft(WOLFSSL *client, uint8_t type, const uint8_t *data, size_t n, size_t pad,
			   uint8_t *out)
{
	size_t inner = n + 1 + pad, sealed = inner + 16;
	Keys *k = &client->keys;
	uint8_t nonce[12];

	memcpy(out, (uint8_t[]){23, 3, 3, sealed >> 8, sealed & 0xff}, 5);
	memcpy(out + 5, data, n);
	out[5 + n] = type;
	memset(out + 6 + n, 0, pad);
	memcpy(nonce, k->aead_enc_imp_IV, 12);
	for (int i = 0; i < 4; i++) {
		nonce[4 + i] ^= k->sequence_number_hi >> (24 - 8 * i);
		nonce[8 + i] ^= k->sequence_number_lo >> (24 - 8 * i);
	}
	if (++k->sequence_number_lo == 0)
		k->sequence_number_hi++;
	if (wc_AesGcmEncrypt(client->encrypt.aes, out + 5, out + 5, inner, nonce, 12,
			     out + 5 + inner, 16, out, 5) != 0)
		return 0;
	return 5 + sealed;
}
