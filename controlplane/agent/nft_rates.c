/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rates of the policy's rules on the kernel path: a limit object a rule, and two maps that lead from an allowed flow's
 * key to it. An object's name says all that it is, so that a rule which stays as it was keeps its object, and one that is
 * there already need not be known: making it again changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <libnftnl/object.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/agent/nft_internal.h"

#define OBJECT_NAME_BYTES 80

enum rate_kind { RATE_BYTES, RATE_PACKETS };

static const char *const maps[] = {[RATE_BYTES] = MAP_RATES, [RATE_PACKETS] = MAP_PACKET_RATES};

struct limit {
	struct nft_verdict_key key;
	char object[OBJECT_NAME_BYTES];
};

static uint64_t rate_of(const struct policy_limits *l, enum rate_kind kind)
{
	return kind == RATE_BYTES ? l->bytes_per_s : l->packets_per_s;
}

/* The kernel keeps a second's worth of bytes beside the burst. */
static uint32_t burst_of(const struct policy_limits *l, enum rate_kind kind)
{
	if (kind == RATE_PACKETS)
		return l->burst_packets;
	return l->burst_bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)l->burst_bytes;
}

static void object_name(char *out, const struct policy_rule *r, enum rate_kind kind)
{
	int n = snprintf(out, OBJECT_NAME_BYTES, "%s-%.31s", kind == RATE_BYTES ? "b" : "p",
			 r->name);

	for (char *at = strchr(out, ' '); at != NULL; at = strchr(at, ' '))
		*at = '-'; /* "line 12" */
	snprintf(out + n, OBJECT_NAME_BYTES - (size_t)n, "-%" PRIu64 "-%u",
		 rate_of(&r->limits, kind), burst_of(&r->limits, kind));
}

/* The next allowed entry under a rule with such a rate. @return false at the end */
static bool next_limited(const struct policy_form *f, enum rate_kind kind, uint32_t *i,
			 struct limit *out)
{
	while (elems_next_allowed(f, i, &out->key)) {
		uint16_t rule = policy_entries(f)[*i - 1].rule;

		if (rule >= f->n_rules || rate_of(&policy_rules(f)[rule].limits, kind) == 0)
			continue;
		object_name(out->object, &policy_rules(f)[rule], kind);
		return true;
	}
	return false;
}

/* What `f` has and `other` has not, or has with another object. */
static void put_difference(struct nft_elems *e, enum rate_kind kind, const struct policy_form *f,
			   const struct policy_form *other)
{
	struct limit mine, theirs;
	uint32_t i = 0, k = 0;
	bool more = next_limited(other, kind, &k, &theirs);

	while (next_limited(f, kind, &i, &mine)) {
		while (more && memcmp(&theirs.key, &mine.key, sizeof(mine.key)) < 0)
			more = next_limited(other, kind, &k, &theirs);
		if (more && memcmp(&theirs.key, &mine.key, sizeof(mine.key)) == 0 &&
		    strcmp(theirs.object, mine.object) == 0)
			continue;
		elems_put(e, &(struct nft_elem){.key = mine.key.lo,
						.key_end = mine.key.hi,
						.key_bytes = sizeof(mine.key.lo),
						.object = mine.object});
	}
}

struct object {
	char name[OBJECT_NAME_BYTES];
	const struct policy_rule *rule;
};

static int object_cmp(const void *a, const void *b)
{
	return strcmp(((const struct object *)a)->name, ((const struct object *)b)->name);
}

/* A form's objects, sorted: of two rules with one name and one rate there is one. @return NULL: no memory */
static struct object *objects_of(const struct policy_form *f, enum rate_kind kind, uint32_t *n)
{
	uint32_t all = f != NULL ? f->n_rules : 0, kept = 0;
	struct object *list = calloc(all + 1, sizeof(*list));

	*n = 0;
	if (list == NULL)
		return NULL;
	for (uint32_t i = 0; i < all; i++) {
		const struct policy_rule *r = &policy_rules(f)[i];

		if (rate_of(&r->limits, kind) == 0)
			continue;
		object_name(list[*n].name, r, kind);
		list[(*n)++].rule = r;
	}
	qsort(list, *n, sizeof(*list), object_cmp);
	for (uint32_t i = 0; i < *n; i++) {
		if (kept == 0 || object_cmp(&list[kept - 1], &list[i]) != 0)
			list[kept++] = list[i];
	}
	*n = kept;
	return list;
}

static void put_object(struct nft_batch *b, uint16_t cmd, const struct object *of,
		       enum rate_kind kind)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	const struct policy_limits *l = &of->rule->limits;

	if (o == NULL) {
		b->ret = -ENOMEM;
		return;
	}
	nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, NFT_TABLE);
	nftnl_obj_set_str(o, NFTNL_OBJ_NAME, of->name);
	nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_LIMIT);
	if (cmd == NFT_MSG_NEWOBJ) {
		nftnl_obj_set_u64(o, NFTNL_OBJ_LIMIT_RATE, rate_of(l, kind));
		nftnl_obj_set_u64(o, NFTNL_OBJ_LIMIT_UNIT, 1); /* second */
		nftnl_obj_set_u32(o, NFTNL_OBJ_LIMIT_BURST, burst_of(l, kind));
		nftnl_obj_set_u32(o, NFTNL_OBJ_LIMIT_TYPE,
				  kind == RATE_BYTES ? NFT_LIMIT_PKT_BYTES : NFT_LIMIT_PKTS);
		nftnl_obj_set_u32(o, NFTNL_OBJ_LIMIT_FLAGS, NFT_LIMIT_F_INV); /* true if over */
	}
	nftnl_obj_nlmsg_build_payload(
		batch_msg(b, cmd, NFPROTO_INET, cmd == NFT_MSG_NEWOBJ ? NLM_F_CREATE : 0), o);
	batch_push(b);
	nftnl_obj_free(o);
}

/* The objects of `f` that `other` has not. */
static void put_objects(struct nft_batch *b, uint16_t cmd, enum rate_kind kind,
			const struct policy_form *f, const struct policy_form *other)
{
	uint32_t n, m, k = 0;
	struct object *mine = objects_of(f, kind, &n), *theirs = objects_of(other, kind, &m);

	if (mine == NULL || theirs == NULL)
		b->ret = -ENOMEM;
	for (uint32_t i = 0; mine != NULL && theirs != NULL && i < n; i++) {
		while (k < m && object_cmp(&theirs[k], &mine[i]) < 0)
			k++;
		if (k == m || object_cmp(&theirs[k], &mine[i]) != 0)
			put_object(b, cmd, &mine[i], kind);
	}
	free(mine);
	free(theirs);
}

void rates_put_policy(struct nft_batch *b, const struct policy_form *f,
		      const struct policy_form *prev)
{
	for (enum rate_kind kind = RATE_BYTES; kind <= RATE_PACKETS; kind++) {
		struct nft_elems e;

		if (prev == NULL) {
			elems_flush(b, maps[kind]);
		} else {
			elems_begin(&e, b, NFT_MSG_DELSETELEM, maps[kind]);
			put_difference(&e, kind, prev, f);
			elems_end(&e);
			put_objects(b, NFT_MSG_DELOBJ, kind, prev, f);
		}
		put_objects(b, NFT_MSG_NEWOBJ, kind, f, prev);
		elems_begin(&e, b, NFT_MSG_NEWSETELEM, maps[kind]);
		put_difference(&e, kind, f, prev);
		elems_end(&e);
	}
}
