/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/flow.h"

#include <errno.h>
#include <string.h>

#include <rte_common.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>

#define WAYS 8
#define LOWER_MAX 64 /* steps of `high` a removal: no packet waits for the rest */
#define LOAD_DIVISOR 2 /* buckets have room for twice the flows */

int flow_table_new(struct flow_table **out, uint32_t max, const uint64_t *seed, int numa_node)
{
	struct flow_table *t;
	uint32_t n_buckets;

	if (max == 0 || max > 1u << 28)
		return -EINVAL;
	t = rte_zmalloc_socket("flow_table", sizeof(*t), 64, numa_node);
	if (t == NULL)
		return -ENOMEM;
	n_buckets = rte_align32pow2((max * LOAD_DIVISOR + WAYS - 1) / WAYS);
	t->max = max;
	t->mask = n_buckets - 1;
	memcpy(t->seed, seed, sizeof(t->seed));
	t->buckets = rte_zmalloc_socket("flow_buckets", (size_t)n_buckets * sizeof(*t->buckets), 64,
					numa_node);
	t->flows =
		rte_zmalloc_socket("flows", ((size_t)max + 1) * sizeof(*t->flows), 64, numa_node);
	t->spare = rte_malloc_socket("flow_spare", (size_t)max * sizeof(*t->spare), 64, numa_node);
	if (t->buckets == NULL || t->flows == NULL || t->spare == NULL) {
		flow_table_free(t);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < max; i++)
		t->spare[i] =
			max - i; /* low indices first: a young table stays small in the cache */
	t->n_spare = max;
	*out = t;
	return 0;
}

void flow_table_free(struct flow_table *t)
{
	if (t == NULL)
		return;
	rte_free(t->buckets);
	rte_free(t->flows);
	rte_free(t->spare);
	rte_free(t);
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t flow_hash(const uint64_t *seed, const struct flow_key *id)
{
	uint64_t w[5];

	memcpy(w, id, sizeof(w));
	return fold(fold(w[0] ^ seed[0], w[1] ^ seed[1]) ^ seed[4] ^ w[4],
		    fold(w[2] ^ seed[2], w[3] ^ seed[3]) ^ seed[5]);
}

static uint32_t tag_of(uint64_t hash)
{
	return (uint32_t)(hash >> 32);
}

static struct flow_bucket *first_bucket(const struct flow_table *t, uint64_t hash)
{
	return &t->buckets[(uint32_t)hash & t->mask];
}

static struct flow_bucket *second_bucket(const struct flow_table *t, uint64_t hash)
{
	return &t->buckets[((uint32_t)hash ^ (tag_of(hash) * 0x9e3779b1u >> 3 | 1)) & t->mask];
}

static bool key_eq(const struct flow_key *a, const struct flow_key *b)
{
	uint64_t x[5], y[5];

	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4])) == 0;
}

_Static_assert(sizeof(struct flow_key) == 40, "a key is five words, without padding");

static uint32_t bucket_find(const struct flow_table *t, const struct flow_bucket *b,
			    const struct flow_key *id, uint32_t tag)
{
	for (unsigned i = 0; i < WAYS; i++) {
		if (b->tag[i] == tag && b->index[i] != 0 && key_eq(&t->flows[b->index[i]].id, id))
			return b->index[i];
	}
	return 0;
}

struct flow *flow_find(const struct flow_table *t, const struct flow_key *id, uint64_t hash)
{
	uint32_t i = bucket_find(t, first_bucket(t, hash), id, tag_of(hash));

	if (i == 0)
		i = bucket_find(t, second_bucket(t, hash), id, tag_of(hash));
	return i != 0 ? &t->flows[i] : NULL;
}

static void prefetch_tagged(const struct flow_table *t, const struct flow_bucket *b, uint32_t tag)
{
	for (unsigned i = 0; i < WAYS; i++) {
		if (b->tag[i] == tag && b->index[i] != 0) {
			rte_prefetch0(&t->flows[b->index[i]]);
			rte_prefetch0(&t->flows[b->index[i]].last_us);
		}
	}
}

void flow_find_bulk(const struct flow_table *t, const struct flow_key *const *id,
		    const uint64_t *hash, unsigned n, struct flow **out)
{
	for (unsigned i = 0; i < n; i++) {
		rte_prefetch0(first_bucket(t, hash[i]));
		rte_prefetch0(second_bucket(t, hash[i]));
	}
	for (unsigned i = 0; i < n; i++) {
		prefetch_tagged(t, first_bucket(t, hash[i]), tag_of(hash[i]));
		prefetch_tagged(t, second_bucket(t, hash[i]), tag_of(hash[i]));
	}
	for (unsigned i = 0; i < n; i++)
		out[i] = flow_find(t, id[i], hash[i]);
}

static int bucket_way(const struct flow_bucket *b, uint32_t index)
{
	for (int i = 0; i < WAYS; i++) {
		if (b->index[i] == index)
			return i;
	}
	return -1;
}

static int bucket_free(const struct flow_bucket *b)
{
	int n = 0;

	for (int i = 0; i < WAYS; i++)
		n += b->index[i] == 0;
	return n;
}

struct flow *flow_insert(struct flow_table *t, const struct flow_key *id, uint64_t hash)
{
	struct flow_bucket *b = first_bucket(t, hash), *other = second_bucket(t, hash);
	uint32_t index;
	struct flow *f;
	int way;

	if (t->n_spare == 0)
		return NULL;
	/* The emptier of the two: filling the first before the second left pairs of full ones by chance. */
	if (bucket_free(other) > bucket_free(b))
		b = other;
	way = bucket_way(b, 0);
	if (way < 0)
		return NULL;
	index = t->spare[--t->n_spare];
	b->tag[way] = tag_of(hash);
	b->index[way] = index;
	if (index > t->high)
		t->high = index;
	f = &t->flows[index];
	memset(f, 0, sizeof(*f));
	f->id = *id;
	f->rule = FLOW_RULE_NONE;
	f->used = true;
	return f;
}

void flow_remove(struct flow_table *t, struct flow *f)
{
	uint32_t index = f - t->flows;
	uint64_t hash = flow_hash(t->seed, &f->id);
	struct flow_bucket *b = first_bucket(t, hash);
	int way = bucket_way(b, index);

	if (way < 0) {
		b = second_bucket(t, hash);
		way = bucket_way(b, index);
	}
	flow_set_state(t, f, FLOW_NEW);
	b->tag[way] = 0;
	b->index[way] = 0;
	f->used = false;
	t->spare[t->n_spare++] = index;
	for (unsigned i = 0; i < LOWER_MAX && t->high > 0 && !t->flows[t->high].used; i++)
		t->high--;
}

void flow_set_state(struct flow_table *t, struct flow *f, uint8_t state)
{
	t->n_refused += (state == FLOW_REFUSED) - (f->state == FLOW_REFUSED);
	t->n_diverted += (state == FLOW_DIVERTED) - (f->state == FLOW_DIVERTED);
	f->state = state;
}
