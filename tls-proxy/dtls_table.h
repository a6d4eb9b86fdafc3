/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls_table: a hash table of links within structs that their owner keeps. It grows, so that a look-up stays one or two
 * steps; the hash is the caller's, and no outsider may be able to choose it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct dtls_link {
	LIST_ENTRY(dtls_link) next;
	uint64_t hash;
	bool in; /* a table */
};

LIST_HEAD(dtls_bucket, dtls_link);

struct dtls_table {
	struct dtls_bucket *bucket;
	uint32_t buckets, n; /* a power of two; links */
};

/** @return 0 or -ENOMEM */
int dtls_table_init(struct dtls_table *t);
void dtls_table_fini(struct dtls_table *t); /* takes an empty struct */

void dtls_table_put(struct dtls_table *t, struct dtls_link *l, uint64_t hash);
void dtls_table_del(struct dtls_table *t, struct dtls_link *l); /* no-op if it is in none */

/** All links of a hash: those of other hashes are passed over. @return NULL: no more */
struct dtls_link *dtls_table_first(const struct dtls_table *t, uint64_t hash);
struct dtls_link *dtls_table_next(const struct dtls_link *l);
