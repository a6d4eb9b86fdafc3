/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/bind.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_jhash.h>
#include <rte_lcore.h>
#include <rte_malloc.h>

#include "config/base/trust.h"

/* An array of entries, a hash from keys to them, and what is free of it. */
struct place {
	struct rte_hash *hash; /* key to index */
	struct rte_rcu_qsbr *qsbr;
	uint32_t *spare; /* stack of free indices */
	uint32_t n_spare, max;
};

struct bindings {
	struct place at; /* ip_addr to index */
	struct binding *entry; /* [0] is never used */
};

struct neigh_key {
	struct ip_addr ip;
	uint16_t port, vlan;
};

_Static_assert(sizeof(struct neigh_key) == 20, "hashed as bytes, so without padding");

struct neighs {
	struct place at; /* neigh_key to index */
	struct neigh *entry; /* [0] is never used */
};

/* Keys are freed after the workers' grace period; a table of max entries takes max entries. */
static int place_init(struct place *p, const char *name, uint32_t max, uint32_t key_bytes,
		      struct rte_rcu_qsbr *qsbr, struct err *err)
{
	char unique[RTE_HASH_NAMESIZE]; /* in the process, where a test may have two worlds */
	struct rte_hash_parameters params = {
		.name = unique,
		.entries = max < 64 ? 64 : max,
		.key_len = key_bytes,
		.hash_func = rte_jhash,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag =
			RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct rte_hash_rcu_config rcu = {.v = qsbr, .mode = RTE_HASH_QSBR_MODE_SYNC};

	snprintf(unique, sizeof(unique), "%.8s-%" PRIxPTR, name, (uintptr_t)p);
	p->qsbr = qsbr;
	p->max = max;
	p->spare = malloc((size_t)max * sizeof(*p->spare));
	p->hash = rte_hash_create(&params);
	if (p->hash == NULL || p->spare == NULL)
		return err_set(err, -ENOMEM, "%s: no memory for a table of %u entries", name, max);
	for (uint32_t i = 0; i < max; i++)
		p->spare[i] = max - i;
	p->n_spare = max;
	if (rte_hash_rcu_qsbr_add(p->hash, &rcu) != 0)
		return err_set(err, -rte_errno, "%s: %s", name, rte_strerror(rte_errno));
	return 0;
}

static void place_fini(struct place *p)
{
	rte_hash_free(p->hash);
	free(p->spare);
}

static uint32_t place_find(const struct place *p, const void *key)
{
	void *data = NULL;

	return rte_hash_lookup_data(p->hash, key, &data) >= 0 ? (uint32_t)(uintptr_t)data : 0;
}

static int place_set(struct place *p, const void *key, uint32_t index)
{
	return rte_hash_add_key_data(p->hash, key, (void *)(uintptr_t)index);
}

/* The entry is empty already; nobody may still read it when it is filled again. */
static void place_give_back(struct place *p, uint32_t index)
{
	rte_rcu_qsbr_synchronize(p->qsbr, RTE_QSBR_THRID_INVALID);
	p->spare[p->n_spare++] = index;
}

int bindings_new(struct bindings **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err)
{
	struct bindings *b = calloc(1, sizeof(*b));
	int ret;

	if (b == NULL)
		return -ENOMEM;
	ret = max <= BINDINGS_MAX ? 0
				  : err_set(err, -EINVAL, "more than %u bindings", BINDINGS_MAX);
	if (ret == 0)
		ret = place_init(&b->at, "bindings", max, sizeof(struct ip_addr), qsbr, err);
	if (ret == 0) {
		b->entry = rte_zmalloc("bindings", ((size_t)max + 1) * sizeof(*b->entry), 64);
		if (b->entry == NULL)
			ret = err_set(err, -ENOMEM, "no memory for %u bindings", max);
	}
	if (ret < 0) {
		bindings_free(b);
		return ret;
	}
	*out = b;
	return 0;
}

void bindings_free(struct bindings *b)
{
	if (b == NULL)
		return;
	place_fini(&b->at);
	rte_free(b->entry);
	free(b);
}

const struct binding *bindings_array(const struct bindings *b)
{
	return b->entry;
}

const struct binding *bindings_find(const struct bindings *b, const struct ip_addr *ip)
{
	uint32_t i = place_find(&b->at, ip);

	return i != 0 ? &b->entry[i] : NULL;
}

void bindings_find_bulk(const struct bindings *b, const struct ip_addr **ip, unsigned n,
			const struct binding **out)
{
	void *data[RTE_HASH_LOOKUP_BULK_MAX];
	uint64_t hits = 0;

	if (n == 0)
		return;
	rte_hash_lookup_bulk_data(b->at.hash, (const void **)ip, n, &hits, data);
	for (unsigned i = 0; i < n; i++)
		out[i] = (hits >> i & 1) ? &b->entry[(uintptr_t)data[i]] : NULL;
}

int bindings_add(struct bindings *b, const struct msg_bind *m, uint16_t mark)
{
	uint32_t old = place_find(&b->at, &m->ip), index;
	struct binding *new;
	int ret;

	if (old != 0) {
		struct binding *o = &b->entry[old];

		if (memcmp(&o->mac, &m->mac, sizeof(m->mac)) == 0 && o->port == m->port &&
		    o->vlan == m->vlan && atomic_load(&o->slot) == m->slot) {
			o->mark = mark;
			return 0;
		}
	}
	if (b->at.n_spare == 0)
		return -ENOSPC;
	index = b->at.spare[b->at.n_spare - 1];
	new = &b->entry[index];
	new->ip = m->ip;
	new->mac = m->mac;
	new->port = m->port;
	new->vlan = m->vlan;
	new->mark = mark;
	atomic_store_explicit(&new->slot, m->slot, memory_order_release);
	ret = place_set(&b->at, &m->ip, index);
	if (ret < 0) {
		atomic_store(&new->slot, TRUST_SLOT_NONE);
		return ret;
	}
	b->at.n_spare--;
	if (old != 0) {
		atomic_store(&b->entry[old].slot, TRUST_SLOT_NONE);
		place_give_back(&b->at, old);
	}
	return 1;
}

int bindings_del(struct bindings *b, const struct ip_addr *ip)
{
	uint32_t i = place_find(&b->at, ip);

	if (i == 0)
		return -ENOENT;
	atomic_store(&b->entry[i].slot, TRUST_SLOT_NONE);
	(void)rte_hash_del_key(b->at.hash, ip);
	place_give_back(&b->at, i);
	return 0;
}

uint32_t bindings_sweep(struct bindings *b, uint16_t mark)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i <= b->at.max; i++) {
		if (atomic_load(&b->entry[i].slot) == TRUST_SLOT_NONE || b->entry[i].mark == mark)
			continue;
		n += bindings_del(b, &b->entry[i].ip) == 0;
	}
	return n;
}

uint32_t bindings_count(const struct bindings *b)
{
	return b->at.max - b->at.n_spare;
}

int neighs_new(struct neighs **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err)
{
	struct neighs *n = calloc(1, sizeof(*n));
	int ret;

	if (n == NULL)
		return -ENOMEM;
	ret = max <= NEIGHS_LIMIT ? 0
				  : err_set(err, -EINVAL, "more than %u neighbours", NEIGHS_LIMIT);
	if (ret == 0)
		ret = place_init(&n->at, "neighbours", max, sizeof(struct neigh_key), qsbr, err);
	if (ret == 0) {
		n->entry = rte_zmalloc("neighbours", ((size_t)max + 1) * sizeof(*n->entry), 64);
		if (n->entry == NULL)
			ret = err_set(err, -ENOMEM, "no memory for %u neighbours", max);
	}
	if (ret < 0) {
		neighs_free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void neighs_free(struct neighs *n)
{
	if (n == NULL)
		return;
	place_fini(&n->at);
	rte_free(n->entry);
	free(n);
}

const struct neigh *neighs_array(const struct neighs *n)
{
	return n->entry;
}

int neighs_add(struct neighs *n, const struct msg_neigh *m, uint16_t mark, bool *moved)
{
	struct neigh_key key = {.ip = m->ip, .port = m->port, .vlan = m->vlan};
	uint32_t i = place_find(&n->at, &key);
	bool fresh = i == 0;
	struct neigh *e;
	int ret;

	if (fresh && n->at.n_spare == 0)
		return -ENOSPC;
	if (fresh)
		i = n->at.spare[n->at.n_spare - 1];
	e = &n->entry[i];
	e->mark = mark;
	if (fresh) {
		if (moved != NULL)
			*moved = ip_addr_eq(&e->ip, &m->ip) &&
				 (e->port != m->port || e->vlan != m->vlan);
		e->ip = m->ip;
		e->port = m->port;
		e->vlan = m->vlan;
		ret = place_set(&n->at, &key, i);
		if (ret < 0)
			return ret;
		n->at.n_spare--;
	}
	atomic_store_explicit(&e->mac, neigh_pack(&m->mac), memory_order_release);
	return 0;
}

int neighs_del(struct neighs *n, const struct msg_neigh *m)
{
	struct neigh_key key = {.ip = m->ip, .port = m->port, .vlan = m->vlan};
	uint32_t i = place_find(&n->at, &key);

	if (i == 0)
		return -ENOENT;
	atomic_store(&n->entry[i].mac, 0);
	(void)rte_hash_del_key(n->at.hash, &key);
	place_give_back(&n->at, i);
	return 0;
}

uint32_t neighs_count(const struct neighs *n)
{
	return n->at.max - n->at.n_spare;
}

uint32_t neighs_sweep(struct neighs *n, uint16_t mark)
{
	uint32_t swept = 0;

	for (uint32_t i = 1; i <= n->at.max; i++) {
		const struct neigh *e = &n->entry[i];
		struct msg_neigh m = {.ip = e->ip, .port = e->port, .vlan = e->vlan};

		if (atomic_load(&e->mac) != 0 && e->mark != mark)
			swept += neighs_del(n, &m) == 0;
	}
	return swept;
}

const struct neigh *neighs_find(const struct neighs *n, uint16_t port, uint16_t vlan,
				const struct ip_addr *ip)
{
	struct neigh_key key = {.ip = *ip, .port = port, .vlan = vlan};
	uint32_t i = place_find(&n->at, &key);

	return i != 0 ? &n->entry[i] : NULL;
}

uint64_t neighs_mac(const struct neighs *n, uint16_t port, uint16_t vlan, const struct ip_addr *ip)
{
	const struct neigh *e = neighs_find(n, port, vlan, ip);

	return e != NULL ? atomic_load_explicit(&e->mac, memory_order_acquire) : 0;
}
