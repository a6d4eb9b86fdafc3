/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session_fetch: what a record of an open session reads and writes, into the cache. With thousands of sessions all of it is
 * cold, some twenty lines: for a few sessions at a time they come together. */
#include "tls-proxy/session_internal.h"

#include <stddef.h>
/* Where the library keeps keys, counters and buffers of a session; linked statically from the pinned version. */
#include <wolfssl/internal.h>

#define LINE 64

static void fetch(const void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += LINE)
		__builtin_prefetch((const char *)from + at);
	/* A function of nothing but prefetches has no effect to GCC, which drops the calls of it. */
	__asm__ volatile("");
}

/* Round keys, the hash's key, and what tells of instructions. */
static void aes_fetch(const Aes *aes)
{
	if (aes == NULL)
		return;
	fetch(aes, offsetof(Aes, gcm) + LINE);
	fetch(&aes->use_aesni, 1);
}

void session_fetch(const struct session *s, bool opens, int step)
{
	const WOLFSSL *ssl = step > 0 ? s->ssl : NULL;

	if (step == 0) {
		__builtin_prefetch(s);
		fetch(&s->wire, sizeof(*s) - offsetof(struct session, wire));
	} else if (step == 1 && s->opens != NULL) { /* session_record.c */
		fetch(ssl->keys.aead_enc_imp_IV,
		      offsetof(Keys, sequence_number_lo) - offsetof(Keys, aead_enc_imp_IV) + LINE);
		aes_fetch(opens ? s->opens : s->seals);
	} else if (step == 1 && ssl != NULL) {
		fetch(ssl, offsetof(WOLFSSL, buffers) + 2 * LINE);
		fetch(&ssl->error, offsetof(WOLFSSL, keys) + LINE - offsetof(WOLFSSL, error));
		fetch((const char *)&ssl->options - 4 * LINE, 5 * LINE);
	} else if (step == 2 && ssl != NULL && s->opens == NULL) {
		aes_fetch(opens ? ssl->decrypt.aes : ssl->encrypt.aes);
	}
}
