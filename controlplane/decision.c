/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/decision.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"
#include "controlplane/cbor_io.h"

#define TYPE_ENTRY "application/vnd.sallyport.entry+cbor"
#define TYPE_SNAPSHOT "application/vnd.sallyport.snapshot+cbor"
#define TYPE_HEARTBEAT "application/vnd.sallyport.heartbeat+cbor"

/* ---- one operation, by table ---- */

enum field_type { FIELD_U8, FIELD_U64, FIELD_HASH, FIELD_TEXT, FIELD_SERIAL, FIELD_POLICY };

#define FIELD_COUNT 18

/* Index = CBOR map key = bit in decision.has. Key 0 is the operation itself. */
static const struct {
	const char *name;
	enum field_type type;
	size_t offset, bytes;
} fields[FIELD_COUNT] = {
#define FIELD(type, name, member)                                                                  \
	{                                                                                          \
		name, type, offsetof(struct decision, member),                                     \
			sizeof(((struct decision *)0)->member)                                     \
	}
	[1] = FIELD(FIELD_U8, "identity kind", identity_kind),
	[2] = FIELD(FIELD_TEXT, "identity", identity),
	[3] = FIELD(FIELD_TEXT, "reason", reason),
	[4] = FIELD(FIELD_HASH, "certificate hash", cert_sha256),
	[5] = FIELD(FIELD_HASH, "issuer hash", issuer_sha256),
	[6] = FIELD(FIELD_SERIAL, "serial", serial),
	[7] = FIELD(FIELD_U64, "not-before limit", not_before_ms),
	[8] = FIELD(FIELD_HASH, "digest", digest),
	[9] = FIELD(FIELD_TEXT, "name", name),
	[10] = FIELD(FIELD_TEXT, "version", version),
	[11] = FIELD(FIELD_U64, "not-after", not_after_ms),
	[12] = FIELD(FIELD_U8, "tier", tier),
	[13] = FIELD(FIELD_U64, "issued", issued_ms),
	[14] = FIELD(FIELD_U64, "expires", expires_ms),
	[15] = FIELD(FIELD_TEXT, "file", file),
	[16] = FIELD(FIELD_POLICY, "policy text", text),
	[17] = FIELD(FIELD_HASH, "policy hash", policy_sha256),
#undef FIELD
};

static const struct {
	uint32_t required, optional;
} op_fields[DECISION_OP_COUNT] = {
	[DECISION_ENROL] = {DECISION_HAS_DEVICE, DECISION_HAS_CERT},
	[DECISION_UNENROL] = {DECISION_HAS_DEVICE, 0},
	[DECISION_REVOKE_CERT] = {0, DECISION_HAS_DEVICE | DECISION_HAS_REASON | DECISION_HAS_CERT |
					     DECISION_HAS_ISSUER | DECISION_HAS_SERIAL |
					     DECISION_HAS_NOT_BEFORE},
	[DECISION_QUARANTINE] = {DECISION_HAS_DEVICE, DECISION_HAS_REASON},
	[DECISION_RESTORE] = {DECISION_HAS_DEVICE, 0},
	[DECISION_SOFTWARE_CERTIFY] = {DECISION_HAS_DIGEST | DECISION_HAS_NAME |
					       DECISION_HAS_VERSION,
				       DECISION_HAS_NOT_AFTER},
	[DECISION_SOFTWARE_REVOKE] = {DECISION_HAS_DIGEST, DECISION_HAS_REASON},
	[DECISION_ATTEST] = {DECISION_HAS_DEVICE | DECISION_HAS_DIGEST | DECISION_HAS_TIER |
				     DECISION_HAS_ISSUED | DECISION_HAS_EXPIRES,
			     0},
	[DECISION_POLICY] = {DECISION_HAS_FILE | DECISION_HAS_TEXT | DECISION_HAS_SHA256, 0},
};

static int check_fields(const struct decision *d, struct err *err)
{
	const char *base = (const char *)d;

	for (unsigned i = 1; i < FIELD_COUNT; i++) {
		const char *at = base + fields[i].offset;

		if ((d->has & (1u << i)) == 0)
			continue;
		switch (fields[i].type) {
		case FIELD_TEXT:
			if (memchr(at, '\0', fields[i].bytes) == NULL || at[0] == '\0' ||
			    !text_ok(at, strlen(at), false))
				return err_set(err, -EPROTO,
					       "%s is empty, too long or not clean text",
					       fields[i].name);
			break;
		case FIELD_U64:
			if (*(const uint64_t *)(const void *)at > DECISION_TIME_MAX_MS)
				return err_set(err, -EPROTO, "%s is past the year 9999",
					       fields[i].name);
			break;
		case FIELD_POLICY:
			if (d->text == NULL || d->text_bytes > DECISION_POLICY_BYTES ||
			    strnlen(d->text, d->text_bytes + 1) != d->text_bytes ||
			    !text_ok(d->text, d->text_bytes, true))
				return err_set(err, -EPROTO,
					       "policy text is too long or not clean text");
			break;
		case FIELD_SERIAL:
			if (d->serial_bytes == 0 || d->serial_bytes > sizeof(d->serial))
				return err_set(err, -EPROTO, "serial is not 1 to 20 bytes");
			break;
		case FIELD_U8:
		case FIELD_HASH:
			break;
		}
	}
	return 0;
}

/* Certificate, or issuer and serial, or device with its limit: exactly one way to say which. */
static int check_revoke(const struct decision *d, struct err *err)
{
	bool cert = (d->has & DECISION_HAS_CERT) != 0;
	bool issuer = (d->has & DECISION_HAS_ISSUER) != 0;
	bool serial = (d->has & DECISION_HAS_SERIAL) != 0;
	bool limit = (d->has & DECISION_HAS_NOT_BEFORE) != 0;
	uint32_t device = d->has & DECISION_HAS_DEVICE;

	if (device != 0 && device != DECISION_HAS_DEVICE)
		return err_set(err, -EPROTO, "revoke-cert: identity and its kind go together");
	if (issuer != serial)
		return err_set(err, -EPROTO, "revoke-cert: issuer and serial go together");
	if (cert + issuer + limit != 1)
		return err_set(err, -EPROTO,
			       "revoke-cert: name a certificate, or issuer and serial, or a device "
			       "with a limit");
	if (limit && device == 0)
		return err_set(err, -EPROTO, "revoke-cert: a limit needs a device");
	return 0;
}

int decision_check(const struct decision *d, struct err *err)
{
	uint32_t allowed;
	uint8_t sha[32];
	int ret;

	if (d->op == 0 || d->op >= DECISION_OP_COUNT)
		return err_set(err, -EPROTO, "unknown operation %u", d->op);
	allowed = op_fields[d->op].required | op_fields[d->op].optional;
	if ((d->has & ~allowed) != 0)
		return err_set(err, -EPROTO, "%s: a field that it does not have",
			       decision_op_name(d->op));
	if ((op_fields[d->op].required & ~d->has) != 0)
		return err_set(err, -EPROTO, "%s: a field is missing", decision_op_name(d->op));
	ret = check_fields(d, err);
	if (ret < 0)
		return err_wrap(err, ret, "%s", decision_op_name(d->op));
	if ((d->has & DECISION_HAS_KIND) &&
	    (d->identity_kind < IDENTITY_URI || d->identity_kind > IDENTITY_CN))
		return err_set(err, -EPROTO, "%s: unknown identity kind", decision_op_name(d->op));
	if (d->op == DECISION_REVOKE_CERT)
		return check_revoke(d, err);
	if (d->op == DECISION_ATTEST) {
		if (d->tier < ATTEST_AFFIRMING || d->tier > ATTEST_CONTRAINDICATED)
			return err_set(err, -EPROTO, "attest: unknown tier");
		if (d->expires_ms <= d->issued_ms)
			return err_set(err, -EPROTO, "attest: expires before it was issued");
	}
	if (d->op == DECISION_POLICY) {
		cose_sha256(sha, d->text, d->text_bytes);
		if (memcmp(sha, d->policy_sha256, sizeof(sha)) != 0)
			return err_set(err, -EPROTO, "policy: the hash is not the text's");
	}
	return 0;
}

static void op_encode(struct cbor_out *w, const struct decision *d)
{
	const char *base = (const char *)d;

	cw_map(w, 1 + __builtin_popcount(d->has));
	cw_uint(w, 0);
	cw_uint(w, d->op);
	for (unsigned i = 1; i < FIELD_COUNT; i++) {
		const char *at = base + fields[i].offset;

		if ((d->has & (1u << i)) == 0)
			continue;
		cw_uint(w, i);
		switch (fields[i].type) {
		case FIELD_U8:
			cw_uint(w, *(const uint8_t *)at);
			break;
		case FIELD_U64:
			cw_uint(w, *(const uint64_t *)(const void *)at);
			break;
		case FIELD_HASH:
			cw_bytes(w, at, 32);
			break;
		case FIELD_TEXT:
			cw_text(w, at, strlen(at));
			break;
		case FIELD_SERIAL:
			cw_bytes(w, d->serial, d->serial_bytes);
			break;
		case FIELD_POLICY:
			cw_text(w, d->text, d->text_bytes);
			break;
		}
	}
}

static int policy_text_decode(struct cbor_in *r, struct decision *d)
{
	size_t n;
	const char *text = cr_text(r, &n);

	if (text == NULL || n > DECISION_POLICY_BYTES)
		return -EPROTO;
	d->text = malloc(n + 1);
	if (d->text == NULL)
		return -ENOMEM;
	memcpy(d->text, text, n);
	d->text[n] = '\0';
	d->text_bytes = (uint32_t)n;
	return 0;
}

static int field_decode(struct cbor_in *r, struct decision *d, unsigned i)
{
	char *at = (char *)d + fields[i].offset;
	const uint8_t *data;
	uint64_t v;
	size_t n;

	switch (fields[i].type) {
	case FIELD_U8:
		v = cr_uint(r);
		if (v > UINT8_MAX)
			return -EPROTO;
		*(uint8_t *)at = (uint8_t)v;
		break;
	case FIELD_U64:
		*(uint64_t *)(void *)at = cr_uint(r);
		break;
	case FIELD_HASH:
		cr_bytes_into(r, at, 32);
		break;
	case FIELD_TEXT:
		cr_text_into(r, at, fields[i].bytes);
		break;
	case FIELD_SERIAL:
		data = cr_bytes(r, &n);
		if (data == NULL || n > sizeof(d->serial))
			return -EPROTO;
		memcpy(d->serial, data, n);
		d->serial_bytes = (uint8_t)n;
		break;
	case FIELD_POLICY:
		return policy_text_decode(r, d);
	}
	return r->failed ? -EPROTO : 0;
}

static int op_decode(struct cbor_in *r, struct decision *d, struct err *err)
{
	size_t n = cr_map(r);
	uint64_t key, op, last = 0;
	int ret;

	if (n < 1 || n > FIELD_COUNT || cr_uint(r) != 0 || r->failed)
		return err_set(err, -EPROTO, "operation is malformed");
	op = cr_uint(r);
	if (r->failed || op == 0 || op >= DECISION_OP_COUNT)
		return err_set(err, -EPROTO, "unknown operation");
	d->op = (uint8_t)op;
	for (size_t i = 1; i < n; i++) {
		key = cr_uint(r);
		if (r->failed || key <= last || key >= FIELD_COUNT)
			return err_set(err, -EPROTO, "%s: unknown, repeated or misplaced field",
				       decision_op_name(d->op));
		last = key;
		ret = field_decode(r, d, (unsigned)key);
		if (ret < 0)
			return err_set(err, ret, "%s: %s is malformed or too long",
				       decision_op_name(d->op), fields[key].name);
		d->has |= 1u << key;
	}
	return decision_check(d, err);
}

/* ---- entry and snapshot ---- */

enum { ENTRY_REVISION = 1, ENTRY_PREV, ENTRY_ISSUED, ENTRY_EXPIRES, ENTRY_OPS };

static bool hash_is_zero(const uint8_t hash[32])
{
	static const uint8_t zero[32];

	return memcmp(hash, zero, sizeof(zero)) == 0;
}

static int entry_check(const struct decision_entry *e, struct err *err)
{
	if (e->revision == 0 || e->revision > INT64_MAX)
		return err_set(err, -EPROTO, "revision out of range");
	if (e->issued_ms == 0 || e->issued_ms > DECISION_TIME_MAX_MS ||
	    e->expires_ms > DECISION_TIME_MAX_MS)
		return err_set(err, -EPROTO, "issued or expires out of range");
	if (e->snapshot)
		return hash_is_zero(e->hash) ? err_set(err, -EPROTO, "snapshot without a hash") : 0;
	if ((e->revision == 1) != hash_is_zero(e->prev))
		return err_set(err, -EPROTO, "only revision 1 has no previous hash");
	if (e->n_ops == 0)
		return err_set(err, -EPROTO, "entry without operations");
	return 0;
}

int decision_entry_seal(uint8_t **out, size_t *out_bytes, struct decision_entry *e,
			const struct cose_signer *s, struct err *err)
{
	struct cbor_out w = {0};
	uint8_t *msg = NULL;
	size_t bytes = 0;
	int ret = entry_check(e, err);

	if (ret == 0 && e->n_ops > (e->snapshot ? DECISION_SNAPSHOT_OPS_MAX : DECISION_OPS_MAX))
		ret = err_set(err, -E2BIG, "too many operations");
	for (uint32_t i = 0; ret == 0 && i < e->n_ops; i++)
		ret = decision_check(&e->ops[i], err);
	if (ret < 0)
		return ret;
	cw_map(&w, e->expires_ms != 0 ? 5 : 4);
	cw_uint(&w, ENTRY_REVISION);
	cw_uint(&w, e->revision);
	cw_uint(&w, ENTRY_PREV);
	cw_bytes(&w, e->snapshot ? e->hash : e->prev, 32);
	cw_uint(&w, ENTRY_ISSUED);
	cw_uint(&w, e->issued_ms);
	if (e->expires_ms != 0) {
		cw_uint(&w, ENTRY_EXPIRES);
		cw_uint(&w, e->expires_ms);
	}
	cw_uint(&w, ENTRY_OPS);
	cw_array(&w, e->n_ops);
	for (uint32_t i = 0; i < e->n_ops; i++)
		op_encode(&w, &e->ops[i]);
	ret = w.failed ? -ENOMEM
		       : cose_sign1(&msg, &bytes, e->snapshot ? TYPE_SNAPSHOT : TYPE_ENTRY, w.data,
				    w.len, s);
	free(w.data);
	if (ret < 0)
		return err_set(err, ret, "cannot sign: %s", strerror(-ret));
	if (bytes > (e->snapshot ? DECISION_SNAPSHOT_BYTES : DECISION_ENTRY_BYTES)) {
		free(msg);
		return err_set(err, -E2BIG, "longer than the limit");
	}
	if (!e->snapshot)
		cose_sha256(e->hash, msg, bytes);
	*out = msg;
	*out_bytes = bytes;
	return 0;
}

static int entry_head_decode(struct cbor_in *r, struct decision_entry *e, struct err *err)
{
	size_t n = cr_map(r);

	if ((n != 4 && n != 5) || cr_uint(r) != ENTRY_REVISION)
		return err_set(err, -EPROTO, "entry is malformed");
	e->revision = cr_uint(r);
	if (cr_uint(r) != ENTRY_PREV)
		return err_set(err, -EPROTO, "previous hash is missing");
	cr_bytes_into(r, e->snapshot ? e->hash : e->prev, 32);
	if (cr_uint(r) != ENTRY_ISSUED)
		return err_set(err, -EPROTO, "issued is missing");
	e->issued_ms = cr_uint(r);
	if (n == 5) {
		if (cr_uint(r) != ENTRY_EXPIRES)
			return err_set(err, -EPROTO, "unknown field");
		e->expires_ms = cr_uint(r);
		if (e->expires_ms == 0) /* one encoding for "never": absent */
			return err_set(err, -EPROTO, "expires is zero");
	}
	if (cr_uint(r) != ENTRY_OPS || r->failed)
		return err_set(err, -EPROTO, "operations are missing");
	return 0;
}

int decision_payload_decode(struct decision_entry **out, const void *payload, size_t bytes,
			    bool snapshot, struct err *err)
{
	struct cbor_in r = {.at = payload, .left = bytes};
	struct decision_entry *e = calloc(1, sizeof(*e));
	size_t n, cap = 0;
	int ret = -ENOMEM;

	if (e == NULL)
		return err_set(err, ret, "out of memory");
	e->snapshot = snapshot;
	ret = entry_head_decode(&r, e, err);
	if (ret < 0)
		goto fail;
	n = cr_array(&r);
	if (r.failed || n > (snapshot ? DECISION_SNAPSHOT_OPS_MAX : DECISION_OPS_MAX)) {
		ret = err_set(err, -EPROTO, "operations are malformed or too many");
		goto fail;
	}
	/* Grows with what was really decoded: the count alone is only a claim. */
	for (size_t i = 0; i < n; i++) {
		if (i == cap) {
			size_t more = cap == 0 ? (n < 4 ? n : 4) : cap * 2;
			struct decision *ops = realloc(e->ops, more * sizeof(*ops));

			if (ops == NULL) {
				ret = err_set(err, -ENOMEM, "out of memory");
				goto fail;
			}
			e->ops = ops;
			cap = more;
		}
		memset(&e->ops[i], 0, sizeof(e->ops[i]));
		e->n_ops++;
		ret = op_decode(&r, &e->ops[i], err);
		if (ret < 0)
			goto fail;
	}
	ret = r.failed || r.left != 0 ? err_set(err, -EPROTO, "bytes behind the entry")
				      : entry_check(e, err);
	if (ret < 0)
		goto fail;
	*out = e;
	return 0;
fail:
	decision_entry_free(e);
	return ret;
}

static int open_as(struct decision_entry **out, const void *msg, size_t bytes, bool snapshot,
		   const struct cose_verifier *v, struct err *err)
{
	const uint8_t *payload;
	size_t payload_bytes;
	int ret;

	if (bytes > (snapshot ? DECISION_SNAPSHOT_BYTES : DECISION_ENTRY_BYTES))
		return err_set(err, -EPROTO, "longer than the limit");
	ret = cose_verify1(&payload, &payload_bytes, snapshot ? TYPE_SNAPSHOT : TYPE_ENTRY, msg,
			   bytes, v, err);
	if (ret == 0)
		ret = decision_payload_decode(out, payload, payload_bytes, snapshot, err);
	if (ret == 0 && !snapshot)
		cose_sha256((*out)->hash, msg, bytes);
	return ret;
}

int decision_entry_open(struct decision_entry **out, const void *msg, size_t bytes,
			const struct cose_verifier *v, struct err *err)
{
	return open_as(out, msg, bytes, false, v, err);
}

int decision_snapshot_open(struct decision_entry **out, const void *msg, size_t bytes,
			   const struct cose_verifier *v, struct err *err)
{
	return open_as(out, msg, bytes, true, v, err);
}

/* ---- heartbeat ---- */

int decision_heartbeat_seal(uint8_t **out, size_t *out_bytes, const struct decision_heartbeat *h,
			    const struct cose_signer *s)
{
	struct cbor_out w = {0};
	int ret;

	cw_map(&w, 4);
	cw_uint(&w, 1);
	cw_uint(&w, h->revision);
	cw_uint(&w, 2);
	cw_bytes(&w, h->hash, sizeof(h->hash));
	cw_uint(&w, 3);
	cw_uint(&w, h->issued_ms);
	cw_uint(&w, 4);
	cw_uint(&w, h->lease_ms);
	ret = w.failed ? -ENOMEM : cose_sign1(out, out_bytes, TYPE_HEARTBEAT, w.data, w.len, s);
	free(w.data);
	return ret;
}

int decision_heartbeat_open(struct decision_heartbeat *out, const void *msg, size_t bytes,
			    const struct cose_verifier *v, struct err *err)
{
	struct decision_heartbeat h = {0};
	struct cbor_in r = {0};
	int ret = cose_verify1(&r.at, &r.left, TYPE_HEARTBEAT, msg, bytes, v, err);

	if (ret < 0)
		return ret;
	if (cr_map(&r) != 4 || cr_uint(&r) != 1)
		return err_set(err, -EPROTO, "heartbeat is malformed");
	h.revision = cr_uint(&r);
	if (cr_uint(&r) != 2)
		return err_set(err, -EPROTO, "heartbeat is malformed");
	cr_bytes_into(&r, h.hash, sizeof(h.hash));
	if (cr_uint(&r) != 3)
		return err_set(err, -EPROTO, "heartbeat is malformed");
	h.issued_ms = cr_uint(&r);
	if (cr_uint(&r) != 4)
		return err_set(err, -EPROTO, "heartbeat is malformed");
	h.lease_ms = cr_uint(&r);
	if (r.failed || r.left != 0 || h.issued_ms > DECISION_TIME_MAX_MS ||
	    h.lease_ms > DECISION_TIME_MAX_MS || h.revision > INT64_MAX ||
	    (h.revision == 0) != hash_is_zero(h.hash))
		return err_set(err, -EPROTO, "heartbeat is malformed");
	*out = h;
	return 0;
}

/* ---- life ---- */

int decision_copy(struct decision *out, const struct decision *d)
{
	char *text = NULL;

	if (d->text != NULL) {
		text = malloc((size_t)d->text_bytes + 1);
		if (text == NULL) {
			memset(out, 0, sizeof(*out));
			return -ENOMEM;
		}
		memcpy(text, d->text, (size_t)d->text_bytes + 1);
	}
	*out = *d;
	out->text = text;
	return 0;
}

void decision_clear(struct decision *d)
{
	if (d == NULL)
		return;
	free(d->text);
	memset(d, 0, sizeof(*d));
}

void decision_entry_free(struct decision_entry *e)
{
	if (e == NULL)
		return;
	for (uint32_t i = 0; i < e->n_ops; i++)
		decision_clear(&e->ops[i]);
	free(e->ops);
	free(e);
}

bool decision_is_revocation(const struct decision *d)
{
	return d->op == DECISION_REVOKE_CERT || d->op == DECISION_SOFTWARE_REVOKE;
}
