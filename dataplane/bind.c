/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/bind.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_jhash.h>
#include <rte_lcore.h>

struct bindings {
	struct rte_hash *hash; /* ip_addr to struct binding */
	struct rte_rcu_qsbr *qsbr;
};

struct neigh_key {
	struct ip_addr ip;
	uint16_t port, vlan;
};

_Static_assert(sizeof(struct neigh_key) == 20, "hashed as bytes, so without padding");

struct neighs {
	struct rte_hash
		*hash; /* neigh_key to the MAC itself in the data pointer; mark in bits 49..63 */
};

#define MARK_SHIFT 49
#define MARK_MASK 0x7fffu

static void no_free(void *priv, void *data)
{
	(void)priv;
	(void)data;
}

static void data_free(void *priv, void *data)
{
	(void)priv;
	free(data);
}

/* Keys and data are freed after the workers' grace period; a table of max entries takes max entries. */
static int hash_new(struct rte_hash **out, const char *name, uint32_t max, uint32_t key_bytes,
		    struct rte_rcu_qsbr *qsbr, rte_hash_free_key_data on_free, struct err *err)
{
	struct rte_hash_parameters params = {
		.name = name,
		.entries = max < 64 ? 64 : max,
		.key_len = key_bytes,
		.hash_func = rte_jhash,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag =
			RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct rte_hash_rcu_config rcu = {
		.v = qsbr, .mode = RTE_HASH_QSBR_MODE_SYNC, .free_key_data_func = on_free};
	struct rte_hash *h = rte_hash_create(&params);

	if (h == NULL)
		return err_set(err, -rte_errno, "%s: table of %u entries: %s", name, max,
			       rte_strerror(rte_errno));
	if (rte_hash_rcu_qsbr_add(h, &rcu) != 0) {
		rte_hash_free(h);
		return err_set(err, -rte_errno, "%s: %s", name, rte_strerror(rte_errno));
	}
	*out = h;
	return 0;
}

int bindings_new(struct bindings **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err)
{
	struct bindings *b = calloc(1, sizeof(*b));
	int ret;

	if (b == NULL)
		return -ENOMEM;
	b->qsbr = qsbr;
	ret = hash_new(&b->hash, "bindings", max, sizeof(struct ip_addr), qsbr, data_free, err);
	if (ret < 0) {
		free(b);
		return ret;
	}
	*out = b;
	return 0;
}

void bindings_free(struct bindings *b)
{
	const void *key;
	void *data;
	uint32_t next = 0;

	if (b == NULL)
		return;
	while (rte_hash_iterate(b->hash, &key, &data, &next) >= 0)
		free(data);
	rte_hash_free(b->hash);
	free(b);
}

const struct binding *bindings_find(const struct bindings *b, const struct ip_addr *ip)
{
	void *data = NULL;

	return rte_hash_lookup_data(b->hash, ip, &data) >= 0 ? data : NULL;
}

void bindings_find_bulk(const struct bindings *b, const struct ip_addr **ip, unsigned n,
			const struct binding **out)
{
	void *data[RTE_HASH_LOOKUP_BULK_MAX];
	uint64_t hits = 0;

	if (n == 0)
		return;
	rte_hash_lookup_bulk_data(b->hash, (const void **)ip, n, &hits, data);
	for (unsigned i = 0; i < n; i++)
		out[i] = (hits >> i & 1) ? data[i] : NULL;
}

int bindings_add(struct bindings *b, const struct msg_bind *m, uint16_t mark)
{
	struct binding *old = (struct binding *)bindings_find(b, &m->ip);
	struct binding *new;
	int ret;

	if (old != NULL && memcmp(&old->mac, &m->mac, sizeof(m->mac)) == 0 &&
	    old->port == m->port && old->vlan == m->vlan && old->slot == m->slot) {
		old->mark = mark;
		return 0;
	}
	new = malloc(sizeof(*new));
	if (new == NULL)
		return -ENOMEM;
	*new = (struct binding){
		.mac = m->mac, .port = m->port, .vlan = m->vlan, .slot = m->slot, .mark = mark};
	ret = rte_hash_add_key_data(b->hash, &m->ip, new);
	if (ret < 0) {
		free(new);
		return ret;
	}
	if (old != NULL) {
		rte_rcu_qsbr_synchronize(b->qsbr, RTE_QSBR_THRID_INVALID);
		free(old);
	}
	return 0;
}

int bindings_del(struct bindings *b, const struct ip_addr *ip)
{
	return rte_hash_del_key(b->hash, ip) >= 0 ? 0 : -ENOENT;
}

uint32_t bindings_sweep(struct bindings *b, uint16_t mark)
{
	const void *key;
	void *data;
	uint32_t next = 0, n = 0;

	while (rte_hash_iterate(b->hash, &key, &data, &next) >= 0) {
		struct ip_addr ip;

		if (((const struct binding *)data)->mark == mark)
			continue;
		memcpy(&ip, key, sizeof(ip)); /* the key's own memory goes with it */
		n += bindings_del(b, &ip) == 0;
	}
	return n;
}

uint32_t bindings_count(const struct bindings *b)
{
	int32_t n = rte_hash_count(b->hash);

	return n > 0 ? n : 0;
}

int neighs_new(struct neighs **out, uint32_t max, struct rte_rcu_qsbr *qsbr, struct err *err)
{
	struct neighs *n = calloc(1, sizeof(*n));
	int ret;

	if (n == NULL)
		return -ENOMEM;
	ret = hash_new(&n->hash, "neighbours", max, sizeof(struct neigh_key), qsbr, no_free, err);
	if (ret < 0) {
		free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void neighs_free(struct neighs *n)
{
	if (n == NULL)
		return;
	rte_hash_free(n->hash);
	free(n);
}

int neighs_add(struct neighs *n, const struct msg_neigh *m, uint16_t mark)
{
	struct neigh_key key = {.ip = m->ip, .port = m->port, .vlan = m->vlan};
	uint64_t v = neigh_pack(&m->mac) | (uint64_t)(mark & MARK_MASK) << MARK_SHIFT;

	return rte_hash_add_key_data(n->hash, &key, (void *)(uintptr_t)v);
}

int neighs_del(struct neighs *n, const struct msg_neigh *m)
{
	struct neigh_key key = {.ip = m->ip, .port = m->port, .vlan = m->vlan};

	return rte_hash_del_key(n->hash, &key) >= 0 ? 0 : -ENOENT;
}

uint32_t neighs_sweep(struct neighs *n, uint16_t mark)
{
	const void *key;
	void *data;
	uint32_t next = 0, swept = 0;

	while (rte_hash_iterate(n->hash, &key, &data, &next) >= 0) {
		struct neigh_key k;

		if ((uintptr_t)data >> MARK_SHIFT == (mark & MARK_MASK))
			continue;
		memcpy(&k, key, sizeof(k));
		swept += rte_hash_del_key(n->hash, &k) >= 0;
	}
	return swept;
}

uint64_t neighs_find(const struct neighs *n, uint16_t port, uint16_t vlan, const struct ip_addr *ip)
{
	struct neigh_key key = {.ip = *ip, .port = port, .vlan = vlan};
	void *data = NULL;

	if (rte_hash_lookup_data(n->hash, &key, &data) < 0)
		return 0;
	return (uintptr_t)data & ((NEIGH_KNOWN << 1) - 1);
}
