/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/transcript.h"

#include <stdlib.h>
#include <string.h>
/* Where the library keeps a handshake's hashes; linked statically from the pinned version. */
#include <wolfssl/internal.h>
#include <wolfssl/wolfcrypt/sha512.h>

#define KEPT_BYTES_MAX                                                                             \
	(4 *                                                                                       \
	 1024) /* a hello has 1.5 kB; of a longer one nothing is spared before its suite is chosen */

enum fate { FEED, KEEP, SPARE };

/* One of the two hashes: the library's own functions, and its fate in the session whose turn it is. */
struct kind {
	bool is384;
	int (*init)(wc_Sha512 *sha, void *heap, int device);
	int (*update)(wc_Sha512 *sha, const byte *data, word32 bytes);
	int (*get)(wc_Sha512 *sha, byte *digest);
};

/* The library's own, and what its callers get instead. */
int __real_wc_InitSha384_ex(wc_Sha384 *sha, void *heap, int device);
int __wrap_wc_InitSha384_ex(wc_Sha384 *sha, void *heap, int device);
int __real_wc_InitSha512_ex(wc_Sha512 *sha, void *heap, int device);
int __wrap_wc_InitSha512_ex(wc_Sha512 *sha, void *heap, int device);
int __real_wc_Sha384Update(wc_Sha384 *sha, const byte *data, word32 bytes);
int __wrap_wc_Sha384Update(wc_Sha384 *sha, const byte *data, word32 bytes);
int __real_wc_Sha512Update(wc_Sha512 *sha, const byte *data, word32 bytes);
int __wrap_wc_Sha512Update(wc_Sha512 *sha, const byte *data, word32 bytes);
int __real_wc_Sha384GetHash(wc_Sha384 *sha, byte *digest);
int __wrap_wc_Sha384GetHash(wc_Sha384 *sha, byte *digest);
int __real_wc_Sha512GetHash(wc_Sha512 *sha, byte *digest);
int __wrap_wc_Sha512GetHash(wc_Sha512 *sha, byte *digest);

static const struct kind sha384 = {true, __real_wc_InitSha384_ex, __real_wc_Sha384Update,
				   __real_wc_Sha384GetHash};
static const struct kind sha512 = {false, __real_wc_InitSha512_ex, __real_wc_Sha512Update,
				   __real_wc_Sha512GetHash};

static struct {
	struct transcript *t; /* NULL: nobody's turn */
	WOLFSSL *ssl;
	struct transcript_seen seen;
} turn;

/* ---- whose hash it is, and what becomes of it ---- */

/* @return NULL: none of the session's */
static struct transcript_hash *ours(const struct kind *k, const wc_Sha512 *sha)
{
	const HS_Hashes *h = turn.t != NULL ? turn.ssl->hsHashes : NULL;

	if (h == NULL || sha != (k->is384 ? &h->hashSha384 : &h->hashSha512))
		return NULL;
	return k->is384 ? &turn.t->sha384 : &turn.t->sha512;
}

static enum fate fate(const struct kind *k)
{
	const WOLFSSL *ssl = turn.ssl;

	if (!IsAtLeastTLSv1_3(ssl->version))
		return FEED;
	switch (ssl->specs.mac_algorithm) {
	case sha256_mac:
		return SPARE;
	case sha384_mac:
		return k->is384 ? FEED : SPARE;
	case INVALID_BYTE: /* no suite yet */
		return k->is384 || ssl->options.side != WOLFSSL_SERVER_END ? KEEP : SPARE;
	default:
		return FEED;
	}
}

static void forget(struct transcript_hash *h)
{
	free(h->kept);
	h->kept = NULL;
	h->kept_bytes = 0;
}

/* @return false: no room, so it has to be fed */
static bool keep(struct transcript_hash *h, const byte *data, word32 bytes)
{
	if (bytes > KEPT_BYTES_MAX - h->kept_bytes)
		return false;
	if (h->kept == NULL)
		h->kept = malloc(KEPT_BYTES_MAX);
	if (h->kept == NULL)
		return false;
	memcpy(h->kept + h->kept_bytes, data, bytes);
	h->kept_bytes += bytes;
	turn.seen.kept += bytes;
	return true;
}

/* What was kept. @return 0, or the library's error; then nobody can read it */
static int feed(const struct kind *k, struct transcript_hash *h, wc_Sha512 *sha)
{
	int ret = 0;

	if (h->partial)
		return BAD_STATE_E;
	if (h->kept != NULL)
		ret = k->update(sha, h->kept, h->kept_bytes);
	forget(h);
	h->partial = ret != 0;
	return ret;
}

/* ---- the library's calls ---- */

static int init(const struct kind *k, wc_Sha512 *sha, void *heap, int device)
{
	struct transcript_hash *h = ours(k, sha);

	if (h != NULL) {
		turn.seen.spared += h->kept_bytes;
		forget(h);
		h->partial = false;
	}
	return k->init(sha, heap, device);
}

static int update(const struct kind *k, wc_Sha512 *sha, const byte *data, word32 bytes)
{
	struct transcript_hash *h = ours(k, sha);
	int ret;

	if (h == NULL || data == NULL || bytes == 0)
		return k->update(sha, data, bytes);
	switch (fate(k)) {
	case SPARE:
		turn.seen.spared += h->kept_bytes + bytes;
		forget(h);
		h->partial = true;
		return 0;
	case KEEP:
		if (!h->partial && keep(h, data, bytes))
			return 0;
		break;
	case FEED:
		break;
	}
	ret = feed(k, h, sha);
	return ret != 0 ? ret : k->update(sha, data, bytes);
}

/* After a HelloRetryRequest the library reads all three and uses one: then nobody looks at what comes of a partial one. */
static int get(const struct kind *k, wc_Sha512 *sha, byte *digest)
{
	struct transcript_hash *h = ours(k, sha);
	int ret = h == NULL || fate(k) == SPARE ? 0 : feed(k, h, sha);

	return ret != 0 ? ret : k->get(sha, digest);
}

int __wrap_wc_InitSha384_ex(wc_Sha384 *sha, void *heap, int device)
{
	return init(&sha384, sha, heap, device);
}

int __wrap_wc_InitSha512_ex(wc_Sha512 *sha, void *heap, int device)
{
	return init(&sha512, sha, heap, device);
}

int __wrap_wc_Sha384Update(wc_Sha384 *sha, const byte *data, word32 bytes)
{
	return update(&sha384, sha, data, bytes);
}

int __wrap_wc_Sha512Update(wc_Sha512 *sha, const byte *data, word32 bytes)
{
	return update(&sha512, sha, data, bytes);
}

int __wrap_wc_Sha384GetHash(wc_Sha384 *sha, byte *digest)
{
	return get(&sha384, sha, digest);
}

int __wrap_wc_Sha512GetHash(wc_Sha512 *sha, byte *digest)
{
	return get(&sha512, sha, digest);
}

/* ---- turns ---- */

/* A server's hello and the choice of a suite are one step: what is still kept then waits for nothing. */
static void settle(void)
{
	HS_Hashes *h = turn.ssl->hsHashes;

	if (turn.ssl->options.side != WOLFSSL_SERVER_END)
		return;
	if (h != NULL && turn.t->sha384.kept != NULL)
		feed(&sha384, &turn.t->sha384, &h->hashSha384);
	if (h != NULL && turn.t->sha512.kept != NULL)
		feed(&sha512, &turn.t->sha512, &h->hashSha512);
	transcript_drop(turn.t);
}

void transcript_turn(struct transcript *t, WOLFSSL *ssl)
{
	if (turn.t != NULL)
		settle();
	turn.t = t;
	turn.ssl = ssl;
}

void transcript_drop(struct transcript *t)
{
	forget(&t->sha384);
	forget(&t->sha512);
}

struct transcript_seen transcript_seen(void)
{
	return turn.seen;
}
