/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/registry.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "config/base/clock.h"

struct revoked_cert { /* one of the two is set */
	uint8_t key[32]; /* the certificate's SHA-256, or SHA-256(issuer hash, serial) */
};

struct registry {
	uint32_t slots;
	uint32_t (*hint)(void *arg, uint64_t identity_hash);
	void *arg;
	struct device **by_slot; /* slots entries */
	struct device **list; /* n_devices, in order of first use */
	uint32_t n_devices;
	uint32_t next_free; /* no slot below is free */
	struct device **dirty; /* n_dirty, a stack; room for all */
	uint32_t n_dirty;
	void *devices, *softwares, *revoked; /* tsearch(3) trees */
};

static int device_cmp(const void *a, const void *b)
{
	const struct device *x = a, *y = b;

	return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->identity, y->identity);
}

static int software_cmp(const void *a, const void *b)
{
	return memcmp(((const struct software *)a)->digest, ((const struct software *)b)->digest,
		      32);
}

static int revoked_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct revoked_cert));
}

int registry_new(struct registry **out, uint32_t slots,
		 uint32_t (*hint)(void *arg, uint64_t identity_hash), void *arg)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return -ENOMEM;
	r->slots = slots;
	r->hint = hint;
	r->arg = arg;
	r->next_free = 1;
	r->by_slot = calloc(slots, sizeof(*r->by_slot));
	r->list = calloc(slots, sizeof(*r->list));
	r->dirty = calloc(slots, sizeof(*r->dirty));
	if (r->by_slot == NULL || r->list == NULL || r->dirty == NULL) {
		registry_free(r);
		return -ENOMEM;
	}
	*out = r;
	return 0;
}

void registry_free(struct registry *r)
{
	if (r == NULL)
		return;
	tdestroy(r->devices, free);
	tdestroy(r->softwares, free);
	tdestroy(r->revoked, free);
	free(r->by_slot);
	free(r->list);
	free(r->dirty);
	free(r);
}

static uint64_t identity_hash(uint8_t kind, const char *identity)
{
	uint8_t digest[32];
	wc_Sha256 sha;
	uint64_t h;

	wc_InitSha256(&sha);
	wc_Sha256Update(&sha, &kind, 1);
	wc_Sha256Update(&sha, (const byte *)identity, strlen(identity));
	wc_Sha256Final(&sha, digest);
	wc_Sha256Free(&sha);
	memcpy(&h, digest, sizeof(h));
	return h;
}

static void serial_key(struct revoked_cert *out, const uint8_t issuer[32], const uint8_t *serial,
		       uint8_t n)
{
	wc_Sha256 sha;

	wc_InitSha256(&sha);
	wc_Sha256Update(&sha, issuer, 32);
	wc_Sha256Update(&sha, serial, n);
	wc_Sha256Final(&sha, out->key);
	wc_Sha256Free(&sha);
}

struct device *registry_find(struct registry *r, uint8_t kind, const char *identity)
{
	struct device key = {.kind = kind};
	void *node;

	if (strlen(identity) >= sizeof(key.identity))
		return NULL;
	strcpy(key.identity, identity);
	node = tfind(&key, &r->devices, device_cmp);
	return node != NULL ? *(struct device **)node : NULL;
}

static uint32_t slot_take(struct registry *r, uint64_t hash)
{
	uint32_t slot = r->hint != NULL ? r->hint(r->arg, hash) : 0;

	if (slot != 0 && slot < r->slots && r->by_slot[slot] == NULL)
		return slot;
	/* A slot that another identity had before is taken last: the hint of its owner may still come. */
	while (r->next_free < r->slots && r->by_slot[r->next_free] != NULL)
		r->next_free++;
	return r->next_free < r->slots ? r->next_free : 0;
}

static struct device *device_get(struct registry *r, const struct decision *d, int *ret,
				 struct err *err)
{
	struct device *dev = registry_find(r, d->identity_kind, d->identity);

	if (dev != NULL)
		return dev;
	*ret = -ENOMEM;
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL)
		return NULL;
	dev->kind = d->identity_kind;
	strcpy(dev->identity, d->identity);
	dev->identity_hash = identity_hash(dev->kind, dev->identity);
	dev->slot = slot_take(r, dev->identity_hash);
	if (dev->slot == 0) {
		*ret = err_set(err, -ENOSPC, "more devices than gateway.devices_max (%u)",
			       r->slots - 1);
		free(dev);
		return NULL;
	}
	if (tsearch(dev, &r->devices, device_cmp) == NULL) {
		free(dev);
		return NULL;
	}
	r->by_slot[dev->slot] = dev;
	r->list[r->n_devices++] = dev;
	*ret = 0;
	return dev;
}

static struct software *software_get(struct registry *r, const uint8_t digest[32])
{
	struct software key, *s;
	void *node;

	memcpy(key.digest, digest, 32);
	node = tfind(&key, &r->softwares, software_cmp);
	if (node != NULL)
		return *(struct software **)node;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	memcpy(s->digest, digest, 32);
	if (tsearch(s, &r->softwares, software_cmp) == NULL) {
		free(s);
		return NULL;
	}
	return s;
}

const struct software *registry_software(const struct registry *r, const uint8_t digest[32])
{
	struct software key;
	void *node;

	memcpy(key.digest, digest, 32);
	node = tfind(&key, &r->softwares, software_cmp);
	return node != NULL ? *(struct software **)node : NULL;
}

void registry_touch(struct registry *r, struct device *d)
{
	if (d->dirty)
		return;
	d->dirty = true;
	r->dirty[r->n_dirty++] = d;
}

void registry_touch_all(struct registry *r)
{
	for (uint32_t i = 0; i < r->n_devices; i++)
		registry_touch(r, r->list[i]);
}

struct device *registry_next_dirty(struct registry *r)
{
	struct device *d;

	if (r->n_dirty == 0)
		return NULL;
	d = r->dirty[--r->n_dirty];
	d->dirty = false;
	return d;
}

bool registry_is_dirty(const struct registry *r)
{
	return r->n_dirty > 0;
}

static void touch_by_digest(struct registry *r, const uint8_t digest[32], uint64_t revision)
{
	for (uint32_t i = 0; i < r->n_devices; i++) {
		struct device *d = r->list[i];

		if (d->attested && memcmp(d->digest, digest, 32) == 0) {
			d->revision = revision;
			d->review = true;
			registry_touch(r, d);
		}
	}
}

static int revoke_cert(struct registry *r, const struct decision *d, struct device *dev)
{
	struct revoked_cert key, *c;

	if (d->has & DECISION_HAS_CERT) {
		memcpy(key.key, d->cert_sha256, 32);
	} else if (d->has & DECISION_HAS_ISSUER) {
		serial_key(&key, d->issuer_sha256, d->serial, d->serial_bytes);
	} else {
		if (dev != NULL && d->not_before_ms > dev->revoked_before_ms)
			dev->revoked_before_ms = d->not_before_ms;
		return 0;
	}
	/* Any session on that certificate ends, also if the device's standing rests on a newer one. */
	if (tfind(&key, &r->revoked, revoked_cmp) != NULL)
		return 0;
	c = malloc(sizeof(*c));
	if (c == NULL)
		return -ENOMEM;
	*c = key;
	if (tsearch(c, &r->revoked, revoked_cmp) == NULL) {
		free(c);
		return -ENOMEM;
	}
	if (dev != NULL)
		dev->bump = true;
	return 0;
}

/* Operations on one device. */
static void device_apply(struct device *dev, const struct decision *d)
{
	switch (d->op) {
	case DECISION_ENROL:
		dev->enrolled = true;
		dev->pinned = (d->has & DECISION_HAS_CERT) != 0;
		memcpy(dev->pin, d->cert_sha256, sizeof(dev->pin));
		break;
	case DECISION_UNENROL:
		dev->enrolled = false;
		dev->attested = false;
		break;
	case DECISION_QUARANTINE:
		dev->quarantined = true;
		strcpy(dev->quarantine_reason, d->reason);
		break;
	case DECISION_RESTORE:
		dev->quarantined = false;
		break;
	case DECISION_ATTEST:
		dev->attested = true;
		dev->tier = d->tier;
		memcpy(dev->digest, d->digest, sizeof(dev->digest));
		dev->attested_ms = d->issued_ms;
		dev->attest_expires_ms = d->expires_ms;
		break;
	default:
		break;
	}
}

static int software_apply(struct registry *r, const struct decision *d, uint64_t revision)
{
	struct software *s = software_get(r, d->digest);

	if (s == NULL)
		return -ENOMEM;
	if (d->op == DECISION_SOFTWARE_REVOKE) {
		s->revoked = true;
	} else {
		s->certified = true;
		s->not_after_ms =
			d->has & DECISION_HAS_NOT_AFTER ? d->not_after_ms : CLOCK_NEVER_MS;
		strcpy(s->name, d->name);
		strcpy(s->version, d->version);
	}
	touch_by_digest(r, d->digest, revision);
	return 0;
}

int registry_apply(struct registry *r, const struct decision *d, uint64_t revision, struct err *err)
{
	struct device *dev = NULL;
	int ret = 0;

	if (d->op == DECISION_POLICY)
		return -EINVAL;
	if (d->op == DECISION_SOFTWARE_CERTIFY || d->op == DECISION_SOFTWARE_REVOKE)
		return software_apply(r, d, revision);
	if (d->has & DECISION_HAS_IDENTITY) {
		dev = device_get(r, d, &ret, err);
		if (dev == NULL)
			return ret;
	}
	if (d->op == DECISION_REVOKE_CERT) {
		/* By certificate: whoever's standing rests on it. A device's name says whose it is. */
		bool by_cert = (d->has & (DECISION_HAS_CERT | DECISION_HAS_ISSUER)) != 0;

		ret = revoke_cert(r, d, dev);
		for (uint32_t i = 0; ret == 0 && by_cert && i < r->n_devices; i++) {
			struct device *x = r->list[i];

			if (x != dev && x->cert.known && registry_cert_revoked(r, x, &x->cert)) {
				x->revision = x->judged.standing == STANDING_REVOKED ? x->revision
										     : revision;
				registry_touch(r, x);
			}
		}
	} else {
		device_apply(dev, d);
	}
	if (ret == 0 && dev != NULL) {
		dev->revision = revision;
		dev->review = true;
		registry_touch(r, dev);
	}
	return ret;
}

static void software_forget(const void *node, VISIT which, void *arg)
{
	(void)arg;
	if (which == preorder || which == leaf)
		(*(struct software *const *)node)->certified = false;
}

void registry_reset(struct registry *r)
{
	for (uint32_t i = 0; i < r->n_devices; i++) {
		struct device *d = r->list[i];

		d->enrolled = d->pinned = d->quarantined = d->attested = false;
		registry_touch(r, d);
	}
	/* Software keeps its revocation; the snapshot names again what is certified. */
	twalk_r(r->softwares, software_forget, NULL);
}

struct device *registry_by_slot(struct registry *r, uint32_t slot)
{
	return slot < r->slots ? r->by_slot[slot] : NULL;
}

uint32_t registry_devices(const struct registry *r)
{
	return r->n_devices;
}

struct device *registry_device(const struct registry *r, uint32_t i)
{
	return r->list[i];
}

bool registry_cert_revoked(const struct registry *r, const struct device *d,
			   const struct device_cert *c)
{
	struct revoked_cert key;

	if (c->not_before_s * 1000 < d->revoked_before_ms)
		return true;
	memcpy(key.key, c->sha256, sizeof(key.key));
	if (tfind(&key, &r->revoked, revoked_cmp) != NULL)
		return true;
	serial_key(&key, c->issuer_sha256, c->serial, c->serial_bytes);
	return tfind(&key, &r->revoked, revoked_cmp) != NULL;
}

bool registry_present(struct registry *r, struct device *d, const struct device_cert *c)
{
	bool good = d->cert.known && !registry_cert_revoked(r, d, &d->cert) &&
		    (!d->pinned || memcmp(d->pin, d->cert.sha256, 32) == 0);

	if (d->cert.known && memcmp(&d->cert, c, sizeof(*c)) == 0)
		return false;
	if (good && memcmp(d->cert.sha256, c->sha256, 32) != 0 &&
	    d->cert.not_after_s > c->not_after_s)
		return false;
	/* A certificate that may not be used does not replace one that may. */
	if (good &&
	    (registry_cert_revoked(r, d, c) || (d->pinned && memcmp(d->pin, c->sha256, 32) != 0)))
		return false;
	d->cert = *c;
	registry_touch(r, d);
	return true;
}

/* How long before boot a moment of the wall clock was; 0: it was not. */
static uint64_t before_boot(uint64_t wall_ms, uint64_t now_wall_ms, uint64_t now_boot_ms)
{
	uint64_t boot_wall_ms = now_wall_ms > now_boot_ms ? now_wall_ms - now_boot_ms : 0;

	return wall_ms < boot_wall_ms ? boot_wall_ms - wall_ms : 0;
}

void registry_forget(struct registry *r, struct device *d, const uint8_t cert_sha256[32])
{
	if (d->cert.known && memcmp(d->cert.sha256, cert_sha256, 32) == 0)
		d->cert = (struct device_cert){0};
	d->bump = true;
	registry_touch(r, d);
}

struct evidence registry_evidence(const struct registry *r, const struct device *d,
				  uint64_t lease_until_ms, uint64_t now_boot_ms,
				  uint64_t now_wall_ms)
{
	const struct device_cert *c = &d->cert;
	const struct software *s = d->attested ? registry_software(r, d->digest) : NULL;
	struct evidence ev = {
		.enrolled = d->enrolled,
		.quarantined = d->quarantined,
		.lease_until_ms = lease_until_ms,
	};

	if (c->known) {
		ev.cert_known = true;
		ev.cert_revoked = registry_cert_revoked(r, d, c);
		ev.cert_pin_differs = d->pinned && memcmp(d->pin, c->sha256, 32) != 0;
		ev.cert_not_before_ms =
			clock_boot_of_wall(c->not_before_s * 1000, now_wall_ms, now_boot_ms);
		/* notAfter is inclusive: good until the second after it begins */
		ev.cert_not_after_ms =
			clock_boot_of_wall((c->not_after_s + 1) * 1000, now_wall_ms, now_boot_ms);
		if (c->crl_next_update_s != 0)
			ev.crl_next_update_ms = clock_boot_of_wall(c->crl_next_update_s * 1000,
								   now_wall_ms, now_boot_ms);
	}
	if (d->attested) {
		ev.attested = true;
		ev.tier = d->tier;
		ev.attested_ms = clock_boot_of_wall(d->attested_ms, now_wall_ms, now_boot_ms);
		ev.attested_before_boot_ms = before_boot(d->attested_ms, now_wall_ms, now_boot_ms);
		ev.attest_expires_ms =
			clock_boot_of_wall(d->attest_expires_ms, now_wall_ms, now_boot_ms);
	}
	if (s != NULL) {
		ev.software_known = s->certified;
		ev.software_revoked = s->revoked;
		ev.software_not_after_ms =
			clock_boot_of_wall(s->not_after_ms, now_wall_ms, now_boot_ms);
	}
	return ev;
}
