/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/flow.h"

#include <errno.h>
#include <string.h>

#include <rte_common.h>
#include <rte_malloc.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

#define LOWER_MAX 64 /* steps of `high` a removal: no packet waits for the rest */
#define LOAD_DIVISOR 2 /* buckets have room for twice the flows */
#define PEEK_TRIES                                                                                 \
	1000 /* a change takes some ten stores: who loses so often waits for a worker that does not run */

static uint32_t buckets_for(uint32_t max)
{
	return rte_align32pow2((max * LOAD_DIVISOR + FLOW_WAYS - 1) / FLOW_WAYS);
}

static uint64_t marks_bytes(uint32_t max)
{
	return ((uint64_t)max / FLOW_BLOCK + 1) * sizeof(uint64_t);
}

uint64_t flow_table_bytes(uint32_t max)
{
	return sizeof(struct flow_table) + (uint64_t)buckets_for(max) * sizeof(struct flow_bucket) +
	       ((uint64_t)max + 1) * sizeof(struct flow) + (uint64_t)max * sizeof(uint32_t) +
	       marks_bytes(max);
}

int flow_table_new(struct flow_table **out, uint32_t max, const uint64_t *seed, int numa_node)
{
	struct flow_table *t;
	uint32_t n_buckets;

	if (max == 0 || max > 1u << 28)
		return -EINVAL;
	t = rte_zmalloc_socket("flow_table", sizeof(*t), 64, numa_node);
	if (t == NULL)
		return -ENOMEM;
	n_buckets = buckets_for(max);
	t->max = max;
	t->mask = n_buckets - 1;
	memcpy(t->seed, seed, sizeof(t->seed));
	t->buckets = rte_zmalloc_socket("flow_buckets", (size_t)n_buckets * sizeof(*t->buckets), 64,
					numa_node);
	t->flows =
		rte_zmalloc_socket("flows", ((size_t)max + 1) * sizeof(*t->flows), 64, numa_node);
	t->spare = rte_malloc_socket("flow_spare", (size_t)max * sizeof(*t->spare), 64, numa_node);
	t->marks = rte_zmalloc_socket("flow_marks", marks_bytes(max), 64, numa_node);
	if (t->buckets == NULL || t->flows == NULL || t->spare == NULL || t->marks == NULL) {
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
	rte_free(t->marks);
	rte_free(t);
}

uint64_t flow_hash(const uint64_t *seed, const struct flow_key *id)
{
	uint64_t w[5];

	memcpy(w, id, sizeof(w));
	return flow_hash_words(seed, w);
}

_Static_assert(sizeof(struct flow_key) == 40, "a key is five words, without padding");

static struct flow_bucket *second_bucket(const struct flow_table *t, uint64_t hash)
{
	return &t->buckets[flow_bucket_other(t, (uint32_t)hash & t->mask, flow_tag(hash))];
}

static uint32_t bucket_find(const struct flow_table *t, const struct flow_bucket *b,
			    const uint64_t *words, uint16_t tag)
{
	for (unsigned i = flow_bucket_match(b, tag, 0); i < FLOW_WAYS;
	     i = flow_bucket_match(b, tag, i + 1)) {
		if (flow_key_is(&t->flows[b->index[i]], words))
			return b->index[i];
	}
	return 0;
}

struct flow *flow_find(const struct flow_table *t, const struct flow_key *id, uint64_t hash)
{
	uint64_t words[5];
	uint32_t i;

	memcpy(words, id, sizeof(words));
	i = bucket_find(t, flow_bucket_first(t, hash), words, flow_tag(hash));
	if (i == 0)
		i = bucket_find(t, second_bucket(t, hash), words, flow_tag(hash));
	return i != 0 ? &t->flows[i] : NULL;
}

void flow_find_bulk(const struct flow_table *t, const struct flow_key *const *id,
		    const uint64_t *hash, unsigned n, struct flow **out)
{
	for (unsigned i = 0; i < n; i++)
		rte_prefetch0(flow_bucket_first(t, hash[i]));
	for (unsigned i = 0; i < n; i++) {
		uint32_t candidate = flow_candidate(t, hash[i]);

		if (candidate != 0)
			flow_prefetch(&t->flows[candidate]);
		else
			rte_prefetch0(second_bucket(t, hash[i]));
	}
	for (unsigned i = 0; i < n; i++)
		out[i] = flow_find(t, id[i], hash[i]);
}

static int bucket_way(const struct flow_bucket *b, uint32_t index)
{
	for (int i = 0; i < FLOW_WAYS; i++) {
		if (b->index[i] == index)
			return i;
	}
	return -1;
}

/* ---- what others may look at ------------------------------------------------------------------- */

/* A reader takes what it has read only if `changes` was even before and is the same after it. So a change needs a place
 * between begin and end if it could make an answer wrong: which flows are diverted, their keys and origins, and a move,
 * by which a reader could miss what was there all the time. A flow that is not diverted may come, change and go
 * without: a reader does not answer with it, whatever it takes for its key. The fence orders all later stores behind the
 * odd value, also those after the end: to the place of a flow that was removed. */
static inline void change_begin(struct flow_table *t)
{
	uint32_t n = atomic_load_explicit(&t->changes, memory_order_relaxed);

	atomic_store_explicit(&t->changes, n + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

static inline void change_end(struct flow_table *t)
{
	uint32_t n = atomic_load_explicit(&t->changes, memory_order_relaxed);

	atomic_store_explicit(&t->changes, n + 1, memory_order_release);
}

/* Stores and loads of one instruction each, of what a reader may look at meanwhile. */
static inline void way_put(struct flow_bucket *b, int way, uint16_t tag, uint32_t index)
{
	__atomic_store_n(&b->tag[way], tag, __ATOMIC_RELAXED);
	__atomic_store_n(&b->index[way], index, __ATOMIC_RELAXED);
}

static inline void flow_put(struct flow *at, const struct flow *f)
{
	flow_word *to = (flow_word *)at;
	const flow_word *from = (const flow_word *)f;

#pragma GCC unroll 12
	for (unsigned i = 0; i < sizeof(*f) / sizeof(*to); i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

static inline void what_put(struct flow *f, uint8_t state, bool stays)
{
	struct flow is;

	is.what = f->what;
	is.state = state;
	is.used &= stays;
	__atomic_store_n(&f->what, is.what, __ATOMIC_RELAXED);
}

static bool peek_key(const struct flow *f, const uint64_t *words)
{
	const flow_word *id = (const flow_word *)&f->id;

	for (unsigned i = 0; i < 5; i++) {
		if (__atomic_load_n(&id[i], __ATOMIC_RELAXED) != words[i])
			return false;
	}
	return true;
}

static void peek_origin(const struct flow *f, struct flow_origin *out)
{
	for (unsigned i = 0; i < sizeof(out->mac.b); i++)
		out->mac.b[i] = __atomic_load_n(&f->origin_mac.b[i], __ATOMIC_RELAXED);
	out->vlan = __atomic_load_n(&f->origin_vlan, __ATOMIC_RELAXED);
	out->port = __atomic_load_n(&f->origin_port, __ATOMIC_RELAXED);
}

/* A way may be half changed: no index is followed that is not one of the table. */
static bool peek_bucket(const struct flow_table *t, const struct flow_bucket *b,
			const uint64_t *words, uint16_t tag, struct flow_origin *out)
{
	for (unsigned way = 0; way < FLOW_WAYS; way++) {
		uint32_t i = __atomic_load_n(&b->index[way], __ATOMIC_RELAXED);
		struct flow is;

		if (i == 0 || i > t->max ||
		    __atomic_load_n(&b->tag[way], __ATOMIC_RELAXED) != tag ||
		    !peek_key(&t->flows[i], words))
			continue;
		is.what = __atomic_load_n(&t->flows[i].what, __ATOMIC_RELAXED);
		if (is.state != FLOW_DIVERTED)
			continue;
		peek_origin(&t->flows[i], out);
		return true;
	}
	return false;
}

int flow_peek(const struct flow_table *t, const struct flow_key *id, uint64_t hash,
	      struct flow_origin *out)
{
	uint64_t words[5];

	memcpy(words, id, sizeof(words));
	for (unsigned try = 0; try < PEEK_TRIES; try++) {
		uint32_t n = atomic_load_explicit(&t->changes, memory_order_acquire);
		struct flow_origin o;
		bool found;

		if (n & 1) {
			rte_pause();
			continue;
		}
		found = peek_bucket(t, flow_bucket_first(t, hash), words, flow_tag(hash), &o) ||
			peek_bucket(t, second_bucket(t, hash), words, flow_tag(hash), &o);
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&t->changes, memory_order_relaxed) != n)
			continue;
		if (found)
			*out = o;
		return found;
	}
	return -EAGAIN;
}

/* ---- changes ----------------------------------------------------------------------------------- */

/* Both buckets of a key are full: move one entry to its other bucket. The tag is the distance, so no key is read.
 * @return the way that became free, or -1 */
static int make_room(struct flow_table *t, struct flow_bucket *b)
{
	uint32_t at = b - t->buckets;

	for (int i = 0; i < FLOW_WAYS; i++) {
		struct flow_bucket *other = &t->buckets[flow_bucket_other(t, at, b->tag[i])];
		int way = bucket_way(other, 0);

		if (way < 0 || other == b)
			continue;
		change_begin(t);
		way_put(other, way, b->tag[i], b->index[i]);
		way_put(b, i, b->tag[i], 0);
		change_end(t);
		return i;
	}
	return -1;
}

/* A free way in one of the key's buckets. @return the bucket, or NULL */
static struct flow_bucket *place(struct flow_table *t, uint64_t hash, int *way)
{
	struct flow_bucket *first = flow_bucket_first(t, hash), *second = second_bucket(t, hash);

	*way = bucket_way(first, 0);
	if (*way >= 0)
		return first;
	*way = bucket_way(second, 0);
	if (*way >= 0)
		return second;
	*way = make_room(t, first);
	if (*way >= 0)
		return first;
	*way = make_room(t, second);
	return *way >= 0 ? second : NULL;
}

struct flow *flow_insert(struct flow_table *t, const struct flow_key *id, uint64_t hash)
{
	struct flow_bucket *b;
	uint32_t index;
	int way;

	if (t->n_spare == 0)
		return NULL;
	b = place(t, hash, &way);
	if (b == NULL)
		return NULL;
	index = t->spare[--t->n_spare];
	way_put(b, way, flow_tag(hash), index);
	if (index > t->high)
		t->high = index;
	flow_put(&t->flows[index],
		 &(const struct flow){.id = *id, .rule = FLOW_RULE_NONE, .used = 1});
	return &t->flows[index];
}

static inline void count_state(struct flow_table *t, const struct flow *f, uint8_t state)
{
	t->n_refused += (state == FLOW_REFUSED) - (f->state == FLOW_REFUSED);
	t->n_diverted += (state == FLOW_DIVERTED) - (f->state == FLOW_DIVERTED);
}

static inline void state_put(struct flow_table *t, struct flow *f, uint8_t state, bool stays)
{
	bool seen = f->state == FLOW_DIVERTED;

	count_state(t, f, state);
	if (seen)
		change_begin(t);
	what_put(f, state, stays);
	if (seen)
		change_end(t);
}

void flow_remove(struct flow_table *t, struct flow *f)
{
	uint32_t index = f - t->flows;
	uint64_t hash = flow_hash(t->seed, &f->id);
	struct flow_bucket *b = flow_bucket_first(t, hash);
	int way = bucket_way(b, index);

	if (way < 0) {
		b = second_bucket(t, hash);
		way = bucket_way(b, index);
	}
	state_put(t, f, FLOW_NEW, false);
	way_put(b, way, 0, 0);
	t->spare[t->n_spare++] = index;
	for (unsigned i = 0; i < LOWER_MAX && t->high > 0 && !t->flows[t->high].used; i++)
		t->high--;
}

void flow_set_state(struct flow_table *t, struct flow *f, uint8_t state)
{
	state_put(t, f, state, true);
}

void flow_divert(struct flow_table *t, struct flow *f, const struct flow_origin *from)
{
	count_state(t, f, FLOW_DIVERTED);
	change_begin(t);
	for (unsigned i = 0; i < sizeof(from->mac.b); i++)
		__atomic_store_n(&f->origin_mac.b[i], from->mac.b[i], __ATOMIC_RELAXED);
	__atomic_store_n(&f->origin_vlan, from->vlan, __ATOMIC_RELAXED);
	__atomic_store_n(&f->origin_port, from->port, __ATOMIC_RELAXED);
	f->tls_worker = 0;
	what_put(f, FLOW_DIVERTED, true);
	change_end(t);
}

void flow_block_marks(struct flow_table *t, uint32_t block)
{
	uint32_t first = block * FLOW_BLOCK, end = RTE_MIN(first + FLOW_BLOCK, t->max + 1);
	uint64_t marks = 0;

	for (uint32_t i = first; i < end; i++)
		marks |= flow_is_swept(&t->flows[i]) ? flow_marks_of(&t->flows[i]) : 0;
	t->marks[block] = marks;
}
