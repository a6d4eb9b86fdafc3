/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/tickets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <wolfssl/wolfcrypt/aes.h>

#define TAG_BYTES 16 /* of the MAC; zeros behind it */

LIST_HEAD(ticket_bucket, ticket);

struct tickets {
	uint32_t held;
	uint32_t max, n, buckets; /* a power of two */
	uint32_t life_s;
	TAILQ_HEAD(, ticket) ages; /* the oldest first */
	struct ticket_bucket bucket[];
};

/* A key seals once, so its nonce may be the same for all; the library wants one that is not zero. */
static const uint8_t iv_only[TICKET_IV_BYTES] = {1};

int tickets_new(struct tickets **out, uint32_t max, uint32_t life_s)
{
	uint32_t buckets = 64;
	struct tickets *t;

	while (buckets < max && buckets < 1u << 20)
		buckets *= 2;
	t = calloc(1, sizeof(*t) + buckets * sizeof(t->bucket[0]));
	if (t == NULL)
		return -ENOMEM;
	t->held = 1;
	t->max = max;
	t->buckets = buckets;
	t->life_s = life_s;
	TAILQ_INIT(&t->ages);
	*out = t;
	return 0;
}

struct tickets *tickets_hold(struct tickets *t)
{
	if (t != NULL)
		t->held++;
	return t;
}

static void unlist(struct tickets *t, struct ticket *k)
{
	TAILQ_REMOVE(&t->ages, k, age);
	LIST_REMOVE(k, named);
	k->listed = false;
	t->n--;
	ticket_drop(k);
}

void tickets_drop(struct tickets *t)
{
	struct ticket *k;

	if (t == NULL || --t->held > 0)
		return;
	while ((k = TAILQ_FIRST(&t->ages)) != NULL)
		unlist(t, k);
	free(t);
}

struct ticket *ticket_new(const struct peer *peer, const char *asked, const void *home,
			  uint64_t until_ms)
{
	size_t n = asked != NULL ? strlen(asked) : 0;
	struct ticket *k = calloc(1, sizeof(*k) + n + 1);

	if (k == NULL)
		return NULL;
	k->held = 1;
	k->home = home;
	k->until_ms = until_ms;
	if (n > 0)
		memcpy(k->asked, asked, n);
	if (peer_copy(&k->peer, peer) < 0) {
		ticket_drop(k);
		return NULL;
	}
	return k;
}

void ticket_drop(struct ticket *k)
{
	if (k == NULL || --k->held > 0)
		return;
	peer_drop(&k->peer);
	explicit_bzero(k, sizeof(*k));
	free(k);
}

static struct ticket_bucket *bucket_of(struct tickets *t, const uint8_t *name)
{
	uint32_t hash;

	memcpy(&hash, name, sizeof(hash)); /* random, and ours */
	return &t->bucket[hash & (t->buckets - 1)];
}

static struct ticket *find(struct tickets *t, const uint8_t *name)
{
	struct ticket *k;

	LIST_FOREACH(k, bucket_of(t, name), named) {
		if (memcmp(k->name, name, TICKET_NAME_BYTES) == 0)
			return k;
	}
	return NULL;
}

static void list(struct tickets *t, struct ticket *k)
{
	while (t->n >= t->max)
		unlist(t, TAILQ_FIRST(&t->ages));
	TAILQ_INSERT_TAIL(&t->ages, k, age);
	LIST_INSERT_HEAD(bucket_of(t, k->name), k, named);
	k->listed = true;
	k->held++;
	t->n++;
}

int tickets_seal(struct tickets *t, struct ticket *k, uint8_t name[static TICKET_NAME_BYTES],
		 uint8_t iv[static TICKET_IV_BYTES], uint8_t mac[static TICKET_MAC_BYTES],
		 uint8_t *text, size_t bytes)
{
	Aes aes;
	int ret = -EIO;

	if (k->listed || t->max == 0 || wc_AesInit(&aes, NULL, INVALID_DEVID) != 0)
		return -EIO;
	do {
		if (getrandom(k->name, sizeof(k->name), 0) != sizeof(k->name))
			goto out;
	} while (find(t, k->name) != NULL);
	if (getrandom(k->key, sizeof(k->key), 0) != sizeof(k->key) ||
	    wc_AesGcmSetKey(&aes, k->key, sizeof(k->key)) != 0)
		goto out;
	memset(mac, 0, TICKET_MAC_BYTES);
	memcpy(name, k->name, TICKET_NAME_BYTES);
	memcpy(iv, iv_only, TICKET_IV_BYTES);
	if (wc_AesGcmEncrypt(&aes, text, text, bytes, iv, GCM_NONCE_MID_SZ, mac, TAG_BYTES, name,
			     TICKET_NAME_BYTES) != 0)
		goto out;
	list(t, k);
	ret = 0;
out:
	wc_AesFree(&aes);
	explicit_bzero(&aes, sizeof(aes));
	return ret;
}

static bool unseal(const struct ticket *k, const uint8_t *mac, uint8_t *text, size_t bytes)
{
	bool good;
	Aes aes;

	if (wc_AesInit(&aes, NULL, INVALID_DEVID) != 0)
		return false;
	good = wc_AesGcmSetKey(&aes, k->key, sizeof(k->key)) == 0 &&
	       wc_AesGcmDecrypt(&aes, text, text, bytes, iv_only, GCM_NONCE_MID_SZ, mac, TAG_BYTES,
				k->name, TICKET_NAME_BYTES) == 0;
	wc_AesFree(&aes);
	explicit_bzero(&aes, sizeof(aes));
	return good;
}

struct ticket *tickets_open(struct tickets *t, const uint8_t name[static TICKET_NAME_BYTES],
			    const uint8_t iv[static TICKET_IV_BYTES],
			    const uint8_t mac[static TICKET_MAC_BYTES], uint8_t *text, size_t bytes,
			    const void *home, const char *asked, uint64_t now_ms)
{
	static const uint8_t zeros[TICKET_MAC_BYTES - TAG_BYTES];
	struct ticket *k = find(t, name);

	if (k == NULL || k->home != home || strcmp(k->asked, asked != NULL ? asked : "") != 0)
		return NULL;
	if (now_ms >= k->until_ms) {
		unlist(t, k);
		return NULL;
	}
	if (memcmp(iv, iv_only, sizeof(iv_only)) != 0 ||
	    memcmp(mac + TAG_BYTES, zeros, sizeof(zeros)) != 0 || !unseal(k, mac, text, bytes))
		return NULL;
	k->held++;
	return k;
}

bool tickets_spend(struct tickets *t, struct ticket *k)
{
	if (!k->listed)
		return false;
	unlist(t, k);
	return true;
}

void tickets_expire(struct tickets *t, uint64_t now_ms)
{
	struct ticket *k;

	while (t != NULL && (k = TAILQ_FIRST(&t->ages)) != NULL && now_ms >= k->until_ms)
		unlist(t, k);
}

uint32_t tickets_life_s(const struct tickets *t)
{
	return t->life_s;
}

uint32_t tickets_count(const struct tickets *t)
{
	return t->n;
}
