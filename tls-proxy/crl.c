/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/crl.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/sha256.h>

#define ENTRY_REMOVED 8 /* reasonCode removeFromCRL, section 5.3.1 */

/* id-ce, 2.5.29.x */
enum { CE_CRL_NUMBER = 20, CE_REASON = 21, CE_DELTA = 27, CE_AUTHORITY_KEY = 35 };

bool crl_number_set(struct crl_number *out, const uint8_t *bytes, size_t n)
{
	if (n == 0 || (bytes[0] & 0x80) != 0)
		return false;
	while (n > 0 && bytes[0] == 0) {
		bytes++;
		n--;
	}
	if (n > sizeof(out->b))
		return false;
	memset(out->b, 0, sizeof(out->b));
	memcpy(out->b + sizeof(out->b) - n, bytes, n);
	return true;
}

/* One extension. @return its number under id-ce, or 0 */
static unsigned extension(struct der *list, bool *critical, struct der *value, bool *good)
{
	struct der ext, oid, flag;

	*critical = false;
	*good = der_take(list, DER_SEQUENCE, &ext) && der_take(&ext, DER_OID, &oid);
	if (*good && der_take(&ext, DER_BOOLEAN, &flag))
		*critical = der_left(&flag) != 1 || flag.at[0] != 0;
	*good = *good && der_take(&ext, DER_OCTETS, value) && der_left(&ext) == 0;
	return *good && der_left(&oid) == 3 && oid.at[0] == 0x55 && oid.at[1] == 0x1d ? oid.at[2]
										      : 0;
}

static bool number_read(struct crl_number *out, struct der value)
{
	struct der n;

	return der_take(&value, DER_INTEGER, &n) && der_left(&value) == 0 &&
	       crl_number_set(out, n.at, der_left(&n));
}

static int extensions_read(struct crl *out, struct der list, struct err *err)
{
	while (der_left(&list) > 0) {
		struct der value, seq, id;
		bool critical, good;
		unsigned ce = extension(&list, &critical, &value, &good);

		if (!good)
			return err_set(err, -EINVAL, "an extension is malformed");
		switch (ce) {
		case CE_CRL_NUMBER:
			good = !out->has_number && number_read(&out->number, value);
			out->has_number = true;
			break;
		case CE_DELTA:
			good = !out->is_delta && number_read(&out->base, value);
			out->is_delta = true;
			break;
		case CE_AUTHORITY_KEY:
			good = der_take(&value, DER_SEQUENCE, &seq);
			/* An identifier of another length is no SHA-1 of a key, the signature alone must do then. */
			if (good && der_take(&seq, 0x80, &id) &&
			    der_left(&id) == CRL_KEY_ID_BYTES) {
				memcpy(out->key_id, id.at, CRL_KEY_ID_BYTES);
				out->has_key_id = true;
			}
			break;
		default:
			if (critical)
				return err_set(err, -EINVAL,
					       "it has a critical extension that is not supported "
					       "(an indirect or partitioned list?)");
		}
		if (!good)
			return err_set(err, -EINVAL, "extension 2.5.29.%u is malformed", ce);
	}
	/* Section 5.2.4: a delta list has a number; without it nobody knows which is the newer one. */
	if (out->is_delta && !out->has_number)
		return err_set(err, -EINVAL, "it is a delta list without a number");
	return 0;
}

static bool time_read(struct der *tbs, uint64_t *out_s)
{
	uint8_t tag = der_peek(tbs);
	char text[32];
	struct der t;
	struct tm tm;

	if ((tag != DER_UTC_TIME && tag != DER_GENERAL_TIME) || !der_any(tbs, &t) ||
	    der_left(&t) >= sizeof(text))
		return false;
	/* Section 5.1.2.4: with seconds, and Z. The library's reader looks for the digits itself. */
	if (der_left(&t) != (tag == DER_UTC_TIME ? 13 : 15) || t.end[-1] != 'Z')
		return false;
	memcpy(text, t.at, der_left(&t));
	text[der_left(&t)] = '\0';
	if (wc_GetDateAsCalendarTime((const byte *)text, der_left(&t), tag, &tm) != 0)
		return false;
	tm.tm_isdst = 0;
	*out_s = timegm(&tm);
	return true;
}

/* The algorithm twice, inside and outside of what is signed, must be the same bytes. */
static bool algorithm_read(struct crl *out, struct der inner, struct der outer)
{
	word32 at = 0, oid;

	if (der_left(&inner) != der_left(&outer) ||
	    memcmp(inner.at, outer.at, der_left(&inner)) != 0 || der_peek(&outer) != DER_OID ||
	    GetObjectId(outer.at, &at, &oid, oidSigType, der_left(&outer)) != 0)
		return false;
	out->signature_oid = oid;
	out->signature_params = (struct der){outer.at + at, outer.end};
	/* NULL says nothing; only RSASSA-PSS has parameters. */
	if (oid != CTC_RSASSAPSS)
		out->signature_params = (struct der){NULL, NULL};
	return true;
}

static int tbs_read(struct crl *out, struct der tbs, struct der outer, struct err *err)
{
	struct der content, inner, issuer, ext;
	const uint8_t *name;

	if (der_take(&tbs, DER_INTEGER, &content) && !der_is(&content, "\x01", 1))
		return err_set(err, -EINVAL, "its version is not 2");
	if (!der_take(&tbs, DER_SEQUENCE, &inner) || !algorithm_read(out, inner, outer))
		return err_set(err, -EINVAL, "its signature algorithm is unknown or ambiguous");
	name = tbs.at;
	if (!der_take(&tbs, DER_SEQUENCE, &issuer))
		return err_set(err, -EINVAL, "it has no issuer");
	wc_Sha256Hash(name, issuer.end - name, out->issuer_sha256);
	if (!time_read(&tbs, &out->this_update_s))
		return err_set(err, -EINVAL, "its date cannot be read");
	if (!time_read(&tbs, &out->next_update_s))
		return err_set(err, -EINVAL, "it has no next update");
	out->entries = (struct der){tbs.at, tbs.at};
	der_take(&tbs, DER_SEQUENCE, &out->entries);
	if (der_take(&tbs, DER_CONTEXT, &content)) {
		if (!der_take(&content, DER_SEQUENCE, &ext) || der_left(&content) != 0)
			return err_set(err, -EINVAL, "its extensions are malformed");
		if (extensions_read(out, ext, err) < 0)
			return -EINVAL;
	}
	return der_left(&tbs) == 0 ? 0 : err_set(err, -EINVAL, "it is malformed");
}

int crl_entry(struct der *entries, struct crl_entry *out, struct err *err)
{
	struct der entry, serial, content, list;

	if (der_left(entries) == 0)
		return 0;
	if (!der_take(entries, DER_SEQUENCE, &entry) || !der_take(&entry, DER_INTEGER, &serial) ||
	    (der_peek(&entry) != DER_UTC_TIME && der_peek(&entry) != DER_GENERAL_TIME) ||
	    !der_any(&entry, &content))
		return err_set(err, -EINVAL, "an entry is malformed");
	if (!crl_number_set(&out->serial, serial.at, der_left(&serial)))
		return err_set(err, -EINVAL, "a serial number is negative or above 20 bytes");
	out->removed = false;
	if (!der_take(&entry, DER_SEQUENCE, &list))
		return der_left(&entry) == 0 ? 1 : err_set(err, -EINVAL, "an entry is malformed");
	while (der_left(&list) > 0) {
		struct der value, reason;
		bool critical, good;
		unsigned ce = extension(&list, &critical, &value, &good);

		/* certificateIssuer is critical: an entry of an indirect list names somebody else's certificate. */
		if (!good || (critical && ce != CE_REASON))
			return err_set(err, -EINVAL, "an entry's extension is not supported");
		if (ce != CE_REASON)
			continue;
		if (!der_take(&value, DER_ENUMERATED, &reason) || der_left(&reason) != 1)
			return err_set(err, -EINVAL, "an entry's reason is malformed");
		out->removed = reason.at[0] == ENTRY_REMOVED;
	}
	return der_left(&entry) == 0 ? 1 : err_set(err, -EINVAL, "an entry is malformed");
}

int crl_read(struct crl *out, const uint8_t *der, size_t bytes, struct err *err)
{
	struct der all = {der, der + bytes}, list, tbs, algorithm, bits, walk;
	struct crl_entry e;
	int ret;

	memset(out, 0, sizeof(*out));
	if (!der_take(&all, DER_SEQUENCE, &list))
		return err_set(err, -EINVAL, "it is no revocation list");
	out->tbs.at = list.at;
	if (!der_take(&list, DER_SEQUENCE, &tbs))
		return err_set(err, -EINVAL, "it is no revocation list");
	out->tbs.end = list.at;
	if (!der_take(&list, DER_SEQUENCE, &algorithm) || !der_take(&list, DER_BITS, &bits) ||
	    der_left(&list) != 0 || der_left(&all) != 0 || der_left(&bits) < 2 || bits.at[0] != 0)
		return err_set(err, -EINVAL, "it is malformed or cut off");
	out->signature = (struct der){bits.at + 1, bits.end};
	ret = tbs_read(out, tbs, algorithm, err);
	if (ret < 0)
		return ret;
	walk = out->entries;
	while ((ret = crl_entry(&walk, &e, err)) == 1) {
		/* Section 5.3.1: removeFromCRL only appears in delta lists. */
		if (e.removed && !out->is_delta)
			return err_set(err, -EINVAL, "removeFromCRL in a list that is no delta");
	}
	return ret;
}
