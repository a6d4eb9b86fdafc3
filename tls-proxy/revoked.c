/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/revoked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "tls-proxy/identity.h"

#define PEM_BEGIN "-----BEGIN X509 CRL-----"
#define PEM_END "-----END X509 CRL-----"
#define FUTURE_S 300 /* a clock that is a little behind */
#define CLIMB_MAX 8

/* A list, complete or delta; arrays are sorted. */
struct list {
	struct list *next; /* of deltas, ascending numbers */
	struct crl_number *serials, *removed;
	uint32_t n, n_removed;
	bool there, has_number;
	struct crl_number number, base;
	uint64_t this_update_s, next_update_s;
};

struct ca {
	uint8_t subject_sha256[32];
	uint8_t key_id[CRL_KEY_ID_BYTES];
	bool has_key_id, signs_lists, root;
	uint8_t id[16]; /* of its public key */
	struct cert_ref self;
	uint8_t *key;
	uint32_t key_bytes, key_oid;
	struct list list;
	struct list *deltas;
};

struct revoked {
	uint32_t held;
	bool lists; /* are asked for */
	struct ca *cas;
	uint32_t n_cas;
};

int revoked_new(struct revoked **out, bool lists)
{
	struct revoked *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return -ENOMEM;
	r->held = 1;
	r->lists = lists;
	*out = r;
	return 0;
}

static void list_clear(struct list *l)
{
	free(l->serials);
	free(l->removed);
	*l = (struct list){0};
}

struct revoked *revoked_hold(struct revoked *r)
{
	r->held++;
	return r;
}

void revoked_drop(struct revoked *r)
{
	if (r == NULL || --r->held > 0)
		return;
	for (uint32_t i = 0; i < r->n_cas; i++) {
		struct ca *ca = &r->cas[i];

		free(ca->key);
		list_clear(&ca->list);
		while (ca->deltas != NULL) {
			struct list *d = ca->deltas;

			ca->deltas = d->next;
			list_clear(d);
			free(d);
		}
	}
	free(r->cas);
	free(r);
}

/* ---- certificates ---- */

/* The DER name with its SEQUENCE header, which stands right before the content that the parser points at. */
static void name_hash(uint8_t out[32], const uint8_t *raw, int bytes)
{
	int head = bytes < 0x80 ? 2 : bytes < 0x100 ? 3 : 4;

	wc_Sha256Hash(raw - head, bytes + head, out);
}

static int ref_of(struct cert_ref *out, const DecodedCert *cert)
{
	memset(out, 0, sizeof(*out));
	if (cert->issuerRaw == NULL || cert->serialSz <= 0)
		return -EINVAL;
	/* The parser has taken the zero before a high bit away already. */
	if (cert->serialSz > CRL_NUMBER_BYTES)
		return -EINVAL;
	memcpy(out->serial.b + CRL_NUMBER_BYTES - cert->serialSz, cert->serial, cert->serialSz);
	name_hash(out->issuer_sha256, cert->issuerRaw, cert->issuerRawLen);
	if (cert->subjectRaw != NULL)
		name_hash(out->subject_sha256, cert->subjectRaw, cert->subjectRawLen);
	if (identity_date(&out->not_after_s, cert->afterDate, cert->afterDateLen) < 0)
		return -EINVAL;
	out->has_issuer_key = cert->extAuthKeyIdSet;
	if (out->has_issuer_key)
		memcpy(out->issuer_key, cert->extAuthKeyId, sizeof(out->issuer_key));
	return 0;
}

int cert_ref_read(struct cert_ref *out, const uint8_t *der, size_t bytes)
{
	DecodedCert cert;
	int ret = -EINVAL;

	if (bytes == 0 || bytes > 65536)
		return ret;
	wc_InitDecodedCert(&cert, der, bytes, NULL);
	if (wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0)
		ret = ref_of(out, &cert);
	wc_FreeDecodedCert(&cert);
	return ret;
}

static int ca_fill(struct ca *ca, const DecodedCert *cert)
{
	uint8_t hash[32];

	if (ref_of(&ca->self, cert) < 0 || cert->subjectRaw == NULL || cert->publicKey == NULL)
		return -EINVAL;
	name_hash(ca->subject_sha256, cert->subjectRaw, cert->subjectRawLen);
	ca->root = memcmp(ca->subject_sha256, ca->self.issuer_sha256, 32) == 0;
	ca->has_key_id = cert->extSubjKeyIdSet;
	if (ca->has_key_id)
		memcpy(ca->key_id, cert->extSubjKeyId, sizeof(ca->key_id));
	ca->signs_lists = !cert->extKeyUsageSet || (cert->extKeyUsage & KEYUSE_CRL_SIGN) != 0;
	ca->key = malloc(cert->pubKeySize);
	if (ca->key == NULL)
		return -ENOMEM;
	memcpy(ca->key, cert->publicKey, cert->pubKeySize);
	ca->key_bytes = cert->pubKeySize;
	ca->key_oid = cert->keyOID;
	wc_Sha256Hash(ca->key, ca->key_bytes, hash);
	memcpy(ca->id, hash, sizeof(ca->id));
	return 0;
}

int revoked_add_ca(struct revoked *r, const uint8_t *der, size_t bytes, struct err *err)
{
	struct ca *cas = realloc(r->cas, (r->n_cas + 1) * sizeof(*cas));
	DecodedCert cert;
	int ret = -EINVAL;

	if (cas == NULL)
		return -ENOMEM;
	r->cas = cas;
	memset(&cas[r->n_cas], 0, sizeof(*cas));
	wc_InitDecodedCert(&cert, der, bytes, NULL);
	if (bytes > 0 && wc_ParseCert(&cert, CERT_TYPE, NO_VERIFY, NULL) == 0)
		ret = ca_fill(&cas[r->n_cas], &cert);
	wc_FreeDecodedCert(&cert);
	if (ret < 0)
		return err_set(err, ret, "a CA certificate cannot be read");
	r->n_cas++;
	return 0;
}

/* ---- lists ---- */

static int by_value(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct crl_number));
}

static void sort(struct crl_number *at, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		if (by_value(&at[i - 1], &at[i]) > 0) {
			qsort(at, n, sizeof(*at), by_value);
			return;
		}
	}
}

static bool in(const struct crl_number *at, uint32_t n, const struct crl_number *v)
{
	return n > 0 && bsearch(v, at, n, sizeof(*at), by_value) != NULL;
}

static int list_fill(struct list *out, const struct crl *crl, struct err *err)
{
	struct der walk = crl->entries;
	struct crl_entry e;
	uint32_t n = 0, removed = 0;

	while (crl_entry(&walk, &e, err) == 1) {
		n += !e.removed;
		removed += e.removed;
	}
	*out = (struct list){.there = true,
			     .has_number = crl->has_number,
			     .number = crl->number,
			     .base = crl->base,
			     .this_update_s = crl->this_update_s,
			     .next_update_s = crl->next_update_s};
	out->serials = calloc(n + 1, sizeof(*out->serials));
	out->removed = calloc(removed + 1, sizeof(*out->removed));
	if (out->serials == NULL || out->removed == NULL) {
		list_clear(out);
		return -ENOMEM;
	}
	walk = crl->entries;
	while (crl_entry(&walk, &e, err) == 1) {
		if (e.removed)
			out->removed[out->n_removed++] = e.serial;
		else
			out->serials[out->n++] = e.serial;
	}
	sort(out->serials, out->n);
	sort(out->removed, out->n_removed);
	return 0;
}

static bool signed_by(const struct crl *crl, const struct ca *ca)
{
	SignatureCtx sig;
	int ret;

	if (!ca->signs_lists || memcmp(ca->subject_sha256, crl->issuer_sha256, 32) != 0 ||
	    (crl->has_key_id && ca->has_key_id &&
	     memcmp(crl->key_id, ca->key_id, CRL_KEY_ID_BYTES) != 0))
		return false;
	InitSignatureCtx(&sig, NULL, INVALID_DEVID);
	ret = ConfirmSignature(&sig, crl->tbs.at, der_left(&crl->tbs), ca->key, ca->key_bytes,
			       ca->key_oid, crl->signature.at, der_left(&crl->signature),
			       crl->signature_oid, crl->signature_params.at,
			       der_left(&crl->signature_params), NULL);
	FreeSignatureCtx(&sig);
	return ret == 0;
}

static bool newer(const struct list *a, const struct list *b)
{
	if (!b->there)
		return true;
	if (a->has_number && b->has_number)
		return by_value(&a->number, &b->number) > 0;
	return a->this_update_s > b->this_update_s;
}

static int list_keep(struct ca *ca, struct list *l, bool delta)
{
	struct list **at = &ca->deltas, *d;

	if (!delta) {
		if (newer(l, &ca->list)) {
			list_clear(&ca->list);
			ca->list = *l;
		} else {
			list_clear(l);
		}
		return 0;
	}
	d = malloc(sizeof(*d));
	if (d == NULL) {
		list_clear(l);
		return -ENOMEM;
	}
	*d = *l;
	while (*at != NULL && by_value(&(*at)->number, &d->number) <= 0)
		at = &(*at)->next;
	d->next = *at;
	*at = d;
	return 0;
}

static int add_one(struct revoked *r, const uint8_t *der, size_t bytes, uint64_t now_s,
		   struct err *err)
{
	struct list l;
	struct crl crl;
	int ret = crl_read(&crl, der, bytes, err);

	if (ret < 0)
		return ret;
	if (crl.this_update_s > now_s + FUTURE_S)
		return err_set(err, -EINVAL, "it is not valid yet: is the clock right?");
	if (crl.next_update_s <= now_s)
		return err_set(err, -EINVAL, "it is past its next update: get the CA's new one");
	for (uint32_t i = 0; i < r->n_cas; i++) {
		if (!signed_by(&crl, &r->cas[i]))
			continue;
		ret = list_fill(&l, &crl, err);
		return ret < 0 ? ret : list_keep(&r->cas[i], &l, crl.is_delta);
	}
	return err_set(err, -EINVAL,
		       "no CA of this listener has signed it, or its key usage has no cRLSign");
}

static int add_pem(struct revoked *r, const char *at, const char *end, uint64_t now_s,
		   struct err *err)
{
	DerBuffer *der = NULL;
	int ret = -EINVAL;

	if (wc_PemToDer((const unsigned char *)at, end - at, CRL_TYPE, &der, NULL, NULL, NULL) != 0)
		err_set(err, ret, "it is no valid PEM");
	else
		ret = add_one(r, der->buffer, der->length, now_s, err);
	wc_FreeDer(&der);
	return ret;
}

int revoked_add(struct revoked *r, const char *text, size_t bytes, uint64_t now_s, struct err *err)
{
	const char *at = strstr(text, PEM_BEGIN);
	int ret = 0;

	if (at == NULL)
		ret = add_one(r, (const uint8_t *)text, bytes, now_s, err);
	while (ret == 0 && at != NULL) {
		const char *end = strstr(at, PEM_END);

		if (end == NULL)
			return err_set(err, -EINVAL, "it is cut off");
		end += strlen(PEM_END);
		end += *end == '\n';
		ret = add_pem(r, at, end, now_s, err);
		at = strstr(end, PEM_BEGIN);
	}
	return ret;
}

/* What the complete list says, then what the delta adds, without what it removes. */
static int delta_apply(struct list *l, const struct list *d)
{
	struct crl_number *out = calloc((size_t)l->n + d->n + 1, sizeof(*out));
	uint32_t n = 0;

	if (out == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->n; i++) {
		if (!in(d->removed, d->n_removed, &l->serials[i]))
			out[n++] = l->serials[i];
	}
	memcpy(out + n, d->serials, d->n * sizeof(*out));
	n += d->n;
	sort(out, n);
	free(l->serials);
	l->serials = out;
	l->n = n;
	l->number = d->number;
	return 0;
}

static int ca_seal(struct ca *ca, struct err *err)
{
	uint64_t base_next_s = ca->list.next_update_s;

	for (struct list *d = ca->deltas; d != NULL; d = d->next) {
		int ret;

		if (!ca->list.there || !ca->list.has_number)
			return err_set(
				err, -EINVAL,
				"there is a delta revocation list without its complete list");
		if (by_value(&d->number, &ca->list.number) <= 0)
			continue; /* the complete list has it already */
		if (by_value(&ca->list.number, &d->base) < 0)
			return err_set(err, -EINVAL,
				       "a delta revocation list wants a newer complete list");
		ret = delta_apply(&ca->list, d);
		if (ret < 0)
			return ret;
		ca->list.next_update_s =
			d->next_update_s < base_next_s ? d->next_update_s : base_next_s;
	}
	return 0;
}

int revoked_seal(struct revoked *r, struct err *err)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < r->n_cas; i++)
		ret = ca_seal(&r->cas[i], err);
	return ret;
}

int revoked_newer(const struct revoked *r, const struct revoked *old, struct err *err)
{
	for (uint32_t i = 0; i < r->n_cas; i++) {
		const struct ca *a = &r->cas[i];

		for (uint32_t k = 0; k < old->n_cas; k++) {
			const struct ca *b = &old->cas[k];

			if (memcmp(a->id, b->id, sizeof(a->id)) == 0 && a->list.there &&
			    memcmp(a->subject_sha256, b->subject_sha256, 32) == 0 &&
			    b->list.there && newer(&b->list, &a->list))
				return err_set(err, -ESTALE,
					       "a revocation list is older than the one in force");
		}
	}
	return 0;
}

/* ---- questions ---- */

static bool issued_by(const struct cert_ref *c, const struct ca *ca)
{
	return memcmp(c->issuer_sha256, ca->subject_sha256, 32) == 0 &&
	       (!c->has_issuer_key || !ca->has_key_id ||
		memcmp(c->issuer_key, ca->key_id, CRL_KEY_ID_BYTES) == 0);
}

/* Two CAs of one name and no key identifier: whatever one of them says against it counts. */
static enum revoked_verdict check(const struct revoked *r, const struct cert_ref *c, uint64_t now_s)
{
	enum revoked_verdict found = REVOKED_NO_LIST;

	for (uint32_t i = 0; i < r->n_cas; i++) {
		const struct list *l = &r->cas[i].list;

		if (!issued_by(c, &r->cas[i]))
			continue;
		if (!l->there)
			return REVOKED_NO_LIST;
		if (in(l->serials, l->n, &c->serial))
			return REVOKED_LISTED;
		if (now_s >= l->next_update_s)
			return REVOKED_OUTDATED;
		found = REVOKED_GOOD;
	}
	return found;
}

static const struct ca *issuer_of(const struct revoked *r, const struct cert_ref *c,
				  const uint8_t *anchor)
{
	for (uint32_t i = 0; i < r->n_cas; i++) {
		if (issued_by(c, &r->cas[i]) &&
		    (anchor == NULL || memcmp(r->cas[i].id, anchor, sizeof(r->cas[i].id)) == 0))
			return &r->cas[i];
	}
	return NULL;
}

static const struct cert_ref *sent_issuer_of(const struct cert_ref *c, const struct cert_ref *chain,
					     unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		if (&chain[i] != c && memcmp(chain[i].subject_sha256, c->issuer_sha256,
					     sizeof(c->issuer_sha256)) == 0)
			return &chain[i];
	}
	return NULL;
}

/* From one to the next, in whatever order they were sent, to the first CA that is ours. */
static const struct ca *anchor_of(const struct revoked *r, const struct cert_ref *chain, unsigned n,
				  const uint8_t *anchor)
{
	const struct cert_ref *c = chain;

	for (unsigned i = 0; i < n && c != NULL; i++) {
		const struct ca *ca = issuer_of(r, c, anchor);

		if (ca != NULL)
			return ca;
		c = sent_issuer_of(c, chain, n);
	}
	return NULL;
}

static bool lives(const struct cert_ref *ca, uint64_t now_s, uint64_t *until_s)
{
	if (ca->not_after_s < *until_s)
		*until_s = ca->not_after_s;
	return now_s < ca->not_after_s;
}

enum revoked_verdict revoked_chain(const struct revoked *r, const struct cert_ref *chain,
				   unsigned n, uint64_t now_s, uint8_t anchor[static 16],
				   bool known, uint64_t *until_s)
{
	const struct ca *ca = anchor_of(r, chain, n, known ? anchor : NULL);
	enum revoked_verdict v = REVOKED_GOOD;

	if (ca == NULL)
		return REVOKED_UNTRUSTED;
	if (!known)
		memcpy(anchor, ca->id, 16);
	for (unsigned i = 1; i < n; i++) {
		if (!lives(&chain[i], now_s, until_s))
			return REVOKED_EXPIRED;
	}
	for (unsigned i = 0; r->lists && i < n && v == REVOKED_GOOD; i++)
		v = check(r, &chain[i], now_s);
	for (unsigned i = 0; i < CLIMB_MAX && ca != NULL && v == REVOKED_GOOD; i++) {
		if (!lives(&ca->self, now_s, until_s))
			return REVOKED_EXPIRED;
		v = r->lists ? check(r, &ca->self, now_s) : v;
		ca = ca->root ? NULL : issuer_of(r, &ca->self, NULL);
	}
	return v;
}

uint64_t revoked_next_update_s(const struct revoked *r)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < r->n_cas; i++) {
		const struct list *l = &r->cas[i].list;

		if (l->there && (at == 0 || l->next_update_s < at))
			at = l->next_update_s;
	}
	return at;
}

uint32_t revoked_count(const struct revoked *r)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->n_cas; i++)
		n += r->cas[i].list.n;
	return n;
}

const char *revoked_text(enum revoked_verdict v)
{
	switch (v) {
	case REVOKED_OUTDATED:
		return "revocation list is past its next update";
	case REVOKED_LISTED:
		return "certificate revoked (CRL)";
	case REVOKED_UNTRUSTED:
		return "unknown CA";
	case REVOKED_EXPIRED:
		return "a CA of its chain is expired";
	case REVOKED_GOOD:
		return "good";
	case REVOKED_NO_LIST:
		break;
	}
	return "no revocation list of the certificate's issuer";
}
