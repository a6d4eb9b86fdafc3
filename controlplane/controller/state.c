/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/controller/state.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"

struct state {
	void *devices; /* tsearch trees */
	void *software;
	void *revocations; /* struct decision */
	struct decision *policy;
	uint32_t n_devices, n_software, n_revocations;
};

static int cmp_device(const void *a, const void *b)
{
	const struct state_device *x = a, *y = b;

	if (x->identity_kind != y->identity_kind)
		return x->identity_kind < y->identity_kind ? -1 : 1;
	return strcmp(x->identity, y->identity);
}

static int cmp_software(const void *a, const void *b)
{
	return memcmp(((const struct state_software *)a)->digest,
		      ((const struct state_software *)b)->digest, 32);
}

/* By what is revoked. A device keeps one revocation, with its latest limit. */
static int cmp_revocation(const void *a, const void *b)
{
	const struct decision *x = a, *y = b;
	uint32_t how_x = x->has & (DECISION_HAS_CERT | DECISION_HAS_ISSUER);
	uint32_t how_y = y->has & (DECISION_HAS_CERT | DECISION_HAS_ISSUER);
	int d;

	if (how_x != how_y)
		return how_x < how_y ? -1 : 1;
	if (how_x == DECISION_HAS_CERT)
		return memcmp(x->cert_sha256, y->cert_sha256, 32);
	if (how_x == DECISION_HAS_ISSUER) {
		d = memcmp(x->issuer_sha256, y->issuer_sha256, 32);
		if (d == 0 && x->serial_bytes != y->serial_bytes)
			return x->serial_bytes < y->serial_bytes ? -1 : 1;
		return d != 0 ? d : memcmp(x->serial, y->serial, x->serial_bytes);
	}
	if (x->identity_kind != y->identity_kind)
		return x->identity_kind < y->identity_kind ? -1 : 1;
	return strcmp(x->identity, y->identity);
}

static void decision_drop(struct decision **d)
{
	decision_clear(*d);
	free(*d);
	*d = NULL;
}

static int decision_put(struct decision **slot, const struct decision *d)
{
	struct decision *copy = calloc(1, sizeof(*copy));

	if (copy == NULL || decision_copy(copy, d) < 0) {
		free(copy);
		return -ENOMEM;
	}
	decision_drop(slot);
	*slot = copy;
	return 0;
}

static void device_free(void *p)
{
	struct state_device *d = p;

	decision_drop(&d->enrol);
	decision_drop(&d->quarantine);
	decision_drop(&d->attest);
	free(d);
}

static void software_free(void *p)
{
	struct state_software *w = p;

	decision_drop(&w->certify);
	decision_drop(&w->revoke);
	free(w);
}

int state_new(struct state **out)
{
	*out = calloc(1, sizeof(**out));
	return *out == NULL ? -ENOMEM : 0;
}

void state_free(struct state *s)
{
	if (s == NULL)
		return;
	tdestroy(s->devices, device_free);
	tdestroy(s->software, software_free);
	tdestroy(s->revocations, free);
	decision_drop(&s->policy);
	free(s);
}

/* The node that equals `key`, made as a copy of it where there is none. NULL: out of memory */
static void *tree_get(void **root, const void *key, size_t bytes,
		      int (*cmp)(const void *, const void *), uint32_t *n)
{
	void **found = tfind(key, root, cmp), *node;

	if (found != NULL)
		return *found;
	node = malloc(bytes);
	if (node == NULL)
		return NULL;
	memcpy(node, key, bytes);
	if (tsearch(node, root, cmp) == NULL) {
		free(node);
		return NULL;
	}
	(*n)++;
	return node;
}

static struct state_device *device_get(struct state *s, const struct decision *d)
{
	struct state_device key = {.identity_kind = d->identity_kind};

	memcpy(key.identity, d->identity, sizeof(key.identity));
	return tree_get(&s->devices, &key, sizeof(key), cmp_device, &s->n_devices);
}

static int fold_device(struct state *s, const struct decision *d)
{
	struct state_device *dev = device_get(s, d);

	if (dev == NULL)
		return -ENOMEM;
	switch (d->op) {
	case DECISION_ENROL:
		return decision_put(&dev->enrol, d);
	case DECISION_UNENROL:
		decision_drop(&dev->enrol);
		decision_drop(&dev->attest);
		return 0;
	case DECISION_QUARANTINE:
		return decision_put(&dev->quarantine, d);
	case DECISION_RESTORE:
		decision_drop(&dev->quarantine);
		return 0;
	default:
		return decision_put(&dev->attest, d);
	}
}

static int fold_software(struct state *s, const struct decision *d)
{
	struct state_software key = {0}, *w;

	memcpy(key.digest, d->digest, sizeof(key.digest));
	w = tree_get(&s->software, &key, sizeof(key), cmp_software, &s->n_software);
	if (w == NULL)
		return -ENOMEM;
	return decision_put(d->op == DECISION_SOFTWARE_REVOKE ? &w->revoke : &w->certify, d);
}

static int fold_revocation(struct state *s, const struct decision *d)
{
	struct decision *node =
		tree_get(&s->revocations, d, sizeof(*d), cmp_revocation, &s->n_revocations);

	if (node == NULL)
		return -ENOMEM;
	if (d->not_before_ms > node->not_before_ms)
		*node = *d; /* has no text to own */
	return 0;
}

int state_fold(struct state *s, const struct decision_entry *e)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < e->n_ops; i++) {
		const struct decision *d = &e->ops[i];

		switch ((enum decision_op)d->op) {
		case DECISION_ENROL:
		case DECISION_UNENROL:
		case DECISION_QUARANTINE:
		case DECISION_RESTORE:
		case DECISION_ATTEST:
			ret = fold_device(s, d);
			break;
		case DECISION_REVOKE_CERT:
			ret = fold_revocation(s, d);
			break;
		case DECISION_SOFTWARE_CERTIFY:
		case DECISION_SOFTWARE_REVOKE:
			ret = fold_software(s, d);
			break;
		case DECISION_POLICY:
			ret = decision_put(&s->policy, d);
			break;
		case DECISION_OP_COUNT:
			break;
		}
	}
	return ret;
}

const struct state_device *state_find_device(struct state *s, uint8_t identity_kind,
					     const char *identity)
{
	struct state_device key = {.identity_kind = identity_kind};
	void **found;

	if (strlen(identity) >= sizeof(key.identity))
		return NULL;
	strcpy(key.identity, identity);
	found = tfind(&key, &s->devices, cmp_device);
	return found == NULL ? NULL : *found;
}

const struct state_software *state_find_software(struct state *s, const uint8_t digest[32])
{
	struct state_software key = {0};
	void **found;

	memcpy(key.digest, digest, sizeof(key.digest));
	found = tfind(&key, &s->software, cmp_software);
	return found == NULL ? NULL : *found;
}

const struct decision *state_policy(const struct state *s)
{
	return s->policy;
}

/* ---- snapshot ---- */

struct collect {
	struct decision *ops;
	uint32_t n;
};

static void collect_one(struct collect *c, const struct decision *d)
{
	if (d != NULL)
		c->ops[c->n++] = *d;
}

static void collect_device(const void *node, VISIT which, void *arg)
{
	const struct state_device *d = *(const struct state_device *const *)node;

	if (which != postorder && which != leaf)
		return;
	collect_one(arg, d->enrol);
	collect_one(arg, d->quarantine);
	collect_one(arg, d->attest);
}

static void collect_software(const void *node, VISIT which, void *arg)
{
	const struct state_software *w = *(const struct state_software *const *)node;

	if (which != postorder && which != leaf)
		return;
	collect_one(arg, w->certify);
	collect_one(arg, w->revoke);
}

static void collect_revocation(const void *node, VISIT which, void *arg)
{
	if (which == postorder || which == leaf)
		collect_one(arg, *(const struct decision *const *)node);
}

int state_operations(struct state *s, struct decision **out, uint32_t *n)
{
	size_t most = 3 * (size_t)s->n_devices + 2 * (size_t)s->n_software + s->n_revocations + 1;
	struct collect c = {.ops = malloc(most * sizeof(*c.ops))};

	if (c.ops == NULL)
		return -ENOMEM;
	collect_one(&c, s->policy);
	twalk_r(s->software, collect_software, &c);
	twalk_r(s->revocations, collect_revocation, &c);
	twalk_r(s->devices, collect_device, &c);
	*out = c.ops;
	*n = c.n;
	return 0;
}

/* ---- for people ---- */

static json_t *json_hash(const uint8_t hash[32])
{
	char hex[HEX_SHA256_BYTES];

	return json_string(hex_text(hex, hash, 32));
}

static void json_device(const void *node, VISIT which, void *arg)
{
	const struct state_device *d = *(const struct state_device *const *)node;
	json_t *obj;

	if (which != postorder && which != leaf)
		return;
	obj = json_pack("{s:s, s:s, s:b, s:b}", "device", d->identity, "kind",
			identity_kind_name(d->identity_kind), "enrolled", d->enrol != NULL,
			"quarantined", d->quarantine != NULL);
	if (d->quarantine != NULL)
		json_object_set_new(obj, "reason", json_string(d->quarantine->reason));
	if (d->enrol != NULL && (d->enrol->has & DECISION_HAS_CERT))
		json_object_set_new(obj, "cert_sha256", json_hash(d->enrol->cert_sha256));
	if (d->attest != NULL)
		json_object_set_new(obj, "attestation",
				    json_pack("{s:o, s:s, s:I, s:I}", "digest",
					      json_hash(d->attest->digest), "tier",
					      attest_tier_name(d->attest->tier), "issued_ms",
					      (json_int_t)d->attest->issued_ms, "expires_ms",
					      (json_int_t)d->attest->expires_ms));
	json_array_append_new(arg, obj);
}

static void json_software(const void *node, VISIT which, void *arg)
{
	const struct state_software *w = *(const struct state_software *const *)node;
	json_t *obj;

	if (which != postorder && which != leaf)
		return;
	obj = json_pack("{s:o, s:b, s:b}", "digest", json_hash(w->digest), "certified",
			w->certify != NULL, "revoked", w->revoke != NULL);
	if (w->certify != NULL) {
		json_object_set_new(obj, "name", json_string(w->certify->name));
		json_object_set_new(obj, "version", json_string(w->certify->version));
		if (w->certify->has & DECISION_HAS_NOT_AFTER)
			json_object_set_new(obj, "not_after_ms",
					    json_integer((json_int_t)w->certify->not_after_ms));
	}
	if (w->revoke != NULL)
		json_object_set_new(obj, "reason", json_string(w->revoke->reason));
	json_array_append_new(arg, obj);
}

static void json_revocation(const void *node, VISIT which, void *arg)
{
	char text[DECISION_SUMMARY_BYTES];

	if (which == postorder || which == leaf)
		json_array_append_new(arg, json_string(decision_summary(
						   text, *(const struct decision *const *)node)));
}

json_t *state_json(struct state *s)
{
	json_t *devices = json_array(), *software = json_array(), *revocations = json_array(),
	       *policy = json_null();

	twalk_r(s->devices, json_device, devices);
	twalk_r(s->software, json_software, software);
	twalk_r(s->revocations, json_revocation, revocations);
	if (s->policy != NULL)
		policy = json_pack("{s:s, s:o}", "file", s->policy->file, "sha256",
				   json_hash(s->policy->policy_sha256));
	return json_pack("{s:o, s:o, s:o, s:o}", "devices", devices, "software", software,
			 "revocations", revocations, "policy", policy);
}
