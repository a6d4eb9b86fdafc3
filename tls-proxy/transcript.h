/* SPDX-License-Identifier: GPL-3.0-or-later */
/* transcript: the hashes of a handshake that nobody will read.
 *
 * The library feeds each handshake message to SHA-256, SHA-384 and SHA-512. TLS 1.3 reads the hash of its suite alone
 * (RFC 8446 section 4.4.1), and no suite has SHA-512; most have SHA-256, the one of the three that CPUs have instructions
 * for. So of a session in TLS 1.3 the other two are not fed, as soon as that is certain; until then the messages are kept:
 *
 *   version   suite     SHA-384   SHA-512
 *   TLS 1.3   SHA-256   nothing   nothing
 *   TLS 1.3   SHA-384   fed       nothing
 *   TLS 1.3   not yet   kept      nothing; kept by a client, whose server may still choose TLS 1.2
 *   TLS 1.2   any       fed       fed: a proof of a key may be over any hash (RFC 5246 section 7.4.8)
 *
 * Why it is certain. The library hashes a ClientHello as TLS 1.3 when it has read in it that it is, and forgets the
 * version only for a client that has not seen a ServerHello. Once it has chosen a suite in TLS 1.3 every reader takes the
 * hash that ssl->specs names: the keys (Tls13DeriveKey), the proofs of keys (GetMsgHash), Finished and binders
 * (BuildTls13HandshakeHmac), and what follows a HelloRetryRequest, which begins all hashes anew from that one
 * (RestartHandshakeHash) and binds the second hello to the same suite. A ticket's suite is set before the hello that brings
 * it is hashed, and a ticket that then turns out bad ends the handshake. And whoever would read a hash that was not fed all
 * gets an error and no hash, so a mistake here ends handshakes and proves nothing.
 *
 * The library asks nobody, so its callers are given our functions (--wrap in the Makefile). They touch the session alone
 * whose turn it is; all other hashes are made as ever. Of the process; one thread. SHA-256 is always fed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

struct transcript { /* of a session; zeros: nothing yet */
	struct transcript_hash {
		uint8_t *kept; /* that it may still have to be fed; NULL: nothing */
		uint32_t kept_bytes;
		bool partial; /* not all was fed: nobody may read it */
	} sha384, sha512;
};

/** What the library hashes from now on is this session's handshake. NULL, NULL: anything else; then a server's session keeps
 * nothing. @param t  of that session; transcript_drop() before it goes */
void transcript_turn(struct transcript *t, WOLFSSL *ssl);
void transcript_drop(struct transcript *t);

struct transcript_seen { /* bytes, of both hashes */
	uint64_t spared;
	uint64_t kept; /* for a while; fed or spared then */
};

struct transcript_seen transcript_seen(void);
