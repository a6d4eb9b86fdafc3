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
}

/* Round keys, and behind all else the tables' first products. */
static void aes_fetch(const Aes *aes)
{
	if (aes == NULL)
		return;
	fetch(aes, offsetof(Aes, reg) + LINE);
	fetch((const char *)(aes + 1) - LINE, LINE);
}

void session_fetch(const struct session *s, int step)
{
	const WOLFSSL *ssl = step > 0 ? s->ssl : NULL;

	if (step == 0) {
		__builtin_prefetch(s);
		fetch(&s->wire, sizeof(*s) - offsetof(struct session, wire));
	} else if (step == 1 && s->opens != NULL) { /* session_record.c */
		fetch(ssl->keys.aead_enc_imp_IV,
		      offsetof(Keys, sequence_number_lo) - offsetof(Keys, aead_enc_imp_IV) + LINE);
		aes_fetch(s->opens);
		aes_fetch(s->seals);
	} else if (step == 1 && ssl != NULL) {
		fetch(ssl, offsetof(WOLFSSL, buffers) + 2 * LINE);
		fetch(&ssl->error, offsetof(WOLFSSL, keys) + LINE - offsetof(WOLFSSL, error));
		fetch((const char *)&ssl->options - 4 * LINE, 5 * LINE);
	} else if (step == 2 && ssl != NULL && s->opens == NULL) {
		aes_fetch(ssl->encrypt.aes);
		aes_fetch(ssl->decrypt.aes);
	}
}
