/* SPDX-License-Identifier: GPL-3.0-or-later */
/* signatures: which signatures of certificates this process has verified already. Devices come again and again with the same
 * certificate, and whether its CA's signature is good follows from (key, hash or text, signature) alone.
 *
 * Remembered are successes, as 128 bits of a hash keyed with a secret of the process, in a table of fixed size that forgets
 * what has not been asked for longest. Who is trusted, what is expired, revoked or constrained, is no part of it and is
 * checked at every handshake. Of the process; one thread. ECDSA, Ed25519 and ML-DSA; RSA's verification is cheap.
 *
 * The library asks nobody, so its callers are given our functions (--wrap in the Makefile). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SIGNATURES_MAX 262144u /* 16 bytes each */

/** @param max  a power of two, at least 4; signatures_fini() before it is called again. @return 0, -ENOMEM, or -EIO: no randomness */
int signatures_init(uint32_t max);
void signatures_fini(void); /* wipes; also without an init */

/** What the library verifies from now on are signatures of a peer's chain, as long as *proved is false: what comes then is
 * the peer's own proof, which is never the same. NULL: anything else. */
void signatures_turn(const bool *proved);

struct signatures_seen {
	uint64_t known; /* spared */
	uint64_t kept; /* verified, and remembered */
};

struct signatures_seen signatures_seen(void);
