/* SPDX-License-Identifier: GPL-3.0-or-later */
/* decoded: the certificate that the library has in hand, so that nobody reads it a second time: 1.4 us of a handshake.
 *
 * The library reads the peer's certificate, checks it, asks our verify callback, which it gives the bytes alone, and only
 * then frees what it read. So its callers are given our functions for reading and freeing (--wrap in the Makefile). Of the process; one
 * thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn.h>

/** What the library read last without an error, if it was of exactly these bytes, at this place, and is still its. Only for
 * use before the library goes on. @return NULL: it has to be read */
const DecodedCert *decoded_get(const uint8_t *der, size_t bytes);
