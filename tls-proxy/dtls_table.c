/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/dtls_table.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS_FIRST 64
#define BUCKETS_MOST (1u << 24)

int dtls_table_init(struct dtls_table *t)
{
	*t = (struct dtls_table){.buckets = BUCKETS_FIRST};
	t->bucket = calloc(t->buckets, sizeof(*t->bucket));
	return t->bucket != NULL ? 0 : -ENOMEM;
}

void dtls_table_fini(struct dtls_table *t)
{
	free(t->bucket);
	*t = (struct dtls_table){.bucket = NULL};
}

static struct dtls_bucket *bucket_of(const struct dtls_table *t, uint64_t hash)
{
	return &t->bucket[hash & (t->buckets - 1)];
}

/* Without memory for more buckets they only get longer. */
static void grow(struct dtls_table *t)
{
	struct dtls_table more = {.buckets = t->buckets * 2, .n = t->n};
	struct dtls_link *l;

	more.bucket = calloc(more.buckets, sizeof(*more.bucket));
	if (more.bucket == NULL)
		return;
	for (uint32_t i = 0; i < t->buckets; i++) {
		while ((l = LIST_FIRST(&t->bucket[i])) != NULL) {
			LIST_REMOVE(l, next);
			LIST_INSERT_HEAD(bucket_of(&more, l->hash), l, next);
		}
	}
	free(t->bucket);
	*t = more;
}

void dtls_table_put(struct dtls_table *t, struct dtls_link *l, uint64_t hash)
{
	if (t->n >= t->buckets && t->buckets < BUCKETS_MOST)
		grow(t);
	l->hash = hash;
	l->in = true;
	LIST_INSERT_HEAD(bucket_of(t, hash), l, next);
	t->n++;
}

void dtls_table_del(struct dtls_table *t, struct dtls_link *l)
{
	if (!l->in)
		return;
	LIST_REMOVE(l, next);
	l->in = false;
	t->n--;
}

static struct dtls_link *same(struct dtls_link *l, uint64_t hash)
{
	while (l != NULL && l->hash != hash)
		l = LIST_NEXT(l, next);
	return l;
}

struct dtls_link *dtls_table_first(const struct dtls_table *t, uint64_t hash)
{
	return same(LIST_FIRST(bucket_of(t, hash)), hash);
}

struct dtls_link *dtls_table_next(const struct dtls_link *l)
{
	return same(LIST_NEXT(l, next), l->hash);
}
