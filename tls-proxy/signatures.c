/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/signatures.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/sha256.h>
#include <wolfssl/wolfcrypt/wc_mldsa.h>

#define WAYS 4u
#define SECRET_BYTES WC_SHA256_BLOCK_SIZE /* a whole block, so it is hashed once */
#define ECC_POINT_BYTES 133 /* uncompressed, of the largest curve */

enum kind { KIND_ECDSA = 1, KIND_ED25519, KIND_MLDSA };

struct tag {
	uint64_t half[2]; /* zeros: nothing; a real one is that as rarely as any other */
};

struct set { /* a cache line; what was asked for last comes first */
	struct tag way[WAYS];
};

/* What a verification depends on, all of it. */
struct question {
	enum kind kind;
	uint32_t curve; /* or the level of ML-DSA */
	const void *key, *text, *sig; /* text: or its hash */
	uint32_t key_bytes, text_bytes, sig_bytes;
};

static struct {
	struct set *set; /* NULL: nothing is remembered */
	uint32_t n_sets;
	wc_Sha256 secret; /* that block, hashed */
	const bool *proved; /* signatures_turn() */
	struct signatures_seen seen;
} all;

/* The library's own, and what its callers get instead. */
int __real_wc_ecc_verify_hash(const byte *sig, word32 sig_bytes, const byte *hash,
			      word32 hash_bytes, int *good, ecc_key *key);
int __wrap_wc_ecc_verify_hash(const byte *sig, word32 sig_bytes, const byte *hash,
			      word32 hash_bytes, int *good, ecc_key *key);
int __real_wc_ed25519_verify_msg(const byte *sig, word32 sig_bytes, const byte *msg,
				 word32 msg_bytes, int *good, ed25519_key *key);
int __wrap_wc_ed25519_verify_msg(const byte *sig, word32 sig_bytes, const byte *msg,
				 word32 msg_bytes, int *good, ed25519_key *key);
int __real_wc_MlDsaKey_VerifyCtx(wc_MlDsaKey *key, const byte *sig, word32 sig_bytes,
				 const byte *ctx, byte ctx_bytes, const byte *msg, word32 msg_bytes,
				 int *good);
int __wrap_wc_MlDsaKey_VerifyCtx(wc_MlDsaKey *key, const byte *sig, word32 sig_bytes,
				 const byte *ctx, byte ctx_bytes, const byte *msg, word32 msg_bytes,
				 int *good);

/* ---- the table ---- */

int signatures_init(uint32_t max)
{
	size_t bytes = (size_t)max / WAYS * sizeof(struct set);
	uint8_t secret[SECRET_BYTES];
	bool good;
	void *p;

	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		return -EIO;
	good = wc_InitSha256(&all.secret) == 0 &&
	       wc_Sha256Update(&all.secret, secret, sizeof(secret)) == 0;
	explicit_bzero(secret, sizeof(secret));
	if (!good)
		return -EIO;
	/* Pages of it come as signatures do. */
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	all.set = p;
	all.n_sets = max / WAYS;
	return 0;
}

void signatures_fini(void)
{
	if (all.set != NULL)
		munmap(all.set, all.n_sets * sizeof(struct set));
	wc_Sha256Free(&all.secret);
	explicit_bzero(&all, sizeof(all));
}

void signatures_turn(const bool *proved)
{
	all.proved = proved;
}

struct signatures_seen signatures_seen(void)
{
	return all.seen;
}

/* To the front of its set, the rest one back. @param at  where it was, or the last place */
static void set_first(struct set *s, unsigned at, const struct tag *t)
{
	memmove(&s->way[1], &s->way[0], at * sizeof(s->way[0]));
	s->way[0] = *t;
}

static bool part(wc_Sha256 *sha, const void *data, uint32_t bytes)
{
	return wc_Sha256Update(sha, (const byte *)&bytes, sizeof(bytes)) == 0 &&
	       wc_Sha256Update(sha, data, bytes) == 0;
}

/* Lengths in front, so two questions never hash the same bytes.
 * @return where the answer is if there is one; NULL: it cannot be asked */
static struct set *place_of(const struct question *q, struct tag *out)
{
	uint32_t head[2] = {q->kind, q->curve}, index;
	uint8_t digest[WC_SHA256_DIGEST_SIZE];
	wc_Sha256 sha;
	bool good;

	if (wc_Sha256Copy(&all.secret, &sha) != 0)
		return NULL;
	good = wc_Sha256Update(&sha, (const byte *)head, sizeof(head)) == 0 &&
	       part(&sha, q->key, q->key_bytes) && part(&sha, q->text, q->text_bytes) &&
	       part(&sha, q->sig, q->sig_bytes) && wc_Sha256Final(&sha, digest) == 0;
	wc_Sha256Free(&sha);
	memcpy(out, digest, sizeof(*out));
	memcpy(&index, digest + sizeof(*out), sizeof(index));
	return good ? &all.set[index & (all.n_sets - 1)] : NULL;
}

static bool known(struct set *s, const struct tag *t)
{
	for (unsigned i = 0; i < WAYS; i++) {
		if (s->way[i].half[0] == t->half[0] && s->way[i].half[1] == t->half[1]) {
			set_first(s, i, t);
			all.seen.known++;
			return true;
		}
	}
	return false;
}

static void keep(struct set *s, const struct tag *t)
{
	set_first(s, WAYS - 1, t);
	all.seen.kept++;
}

/* ---- the library's questions ---- */

static bool asked(const void *key, const void *text, const void *sig, const int *good)
{
	return all.set != NULL && all.proved != NULL && !*all.proved && key != NULL &&
	       text != NULL && sig != NULL && good != NULL;
}

int __wrap_wc_ecc_verify_hash(const byte *sig, word32 sig_bytes, const byte *hash,
			      word32 hash_bytes, int *good, ecc_key *key)
{
	uint8_t point[ECC_POINT_BYTES];
	struct question q = {.kind = KIND_ECDSA,
			     .key = point,
			     .text = hash,
			     .text_bytes = hash_bytes,
			     .sig = sig,
			     .sig_bytes = sig_bytes,
			     .key_bytes = sizeof(point)};
	struct set *s = NULL;
	struct tag t;
	int ret, curve;

	if (asked(key, hash, sig, good) && (curve = wc_ecc_get_curve_id(key->idx)) > 0 &&
	    wc_ecc_export_x963(key, point, &q.key_bytes) == 0) {
		q.curve = curve;
		s = place_of(&q, &t);
	}
	if (s != NULL && known(s, &t)) {
		*good = 1;
		return 0;
	}
	ret = __real_wc_ecc_verify_hash(sig, sig_bytes, hash, hash_bytes, good, key);
	if (s != NULL && ret == 0 && *good == 1)
		keep(s, &t);
	return ret;
}

int __wrap_wc_ed25519_verify_msg(const byte *sig, word32 sig_bytes, const byte *msg,
				 word32 msg_bytes, int *good, ed25519_key *key)
{
	uint8_t point[ED25519_PUB_KEY_SIZE];
	struct question q = {.kind = KIND_ED25519,
			     .key = point,
			     .key_bytes = sizeof(point),
			     .text = msg,
			     .text_bytes = msg_bytes,
			     .sig = sig,
			     .sig_bytes = sig_bytes};
	struct set *s = NULL;
	struct tag t;
	int ret;

	if (asked(key, msg, sig, good) && wc_ed25519_export_public(key, point, &q.key_bytes) == 0)
		s = place_of(&q, &t);
	if (s != NULL && known(s, &t)) {
		*good = 1;
		return 0;
	}
	ret = __real_wc_ed25519_verify_msg(sig, sig_bytes, msg, msg_bytes, good, key);
	if (s != NULL && ret == 0 && *good == 1)
		keep(s, &t);
	return ret;
}

int __wrap_wc_MlDsaKey_VerifyCtx(wc_MlDsaKey *key, const byte *sig, word32 sig_bytes,
				 const byte *ctx, byte ctx_bytes, const byte *msg, word32 msg_bytes,
				 int *good)
{
	uint8_t pub[WC_MLDSA_87_PUB_KEY_SIZE];
	struct question q = {.kind = KIND_MLDSA,
			     .key = pub,
			     .key_bytes = sizeof(pub),
			     .text = msg,
			     .text_bytes = msg_bytes,
			     .sig = sig,
			     .sig_bytes = sig_bytes};
	struct set *s = NULL;
	byte level = 0;
	struct tag t;
	int ret;

	if (asked(key, msg, sig, good) && ctx_bytes == 0 &&
	    wc_MlDsaKey_GetParams(key, &level) == 0 &&
	    wc_MlDsaKey_ExportPubRaw(key, pub, &q.key_bytes) == 0) {
		q.curve = level;
		s = place_of(&q, &t);
	}
	if (s != NULL && known(s, &t)) {
		*good = 1;
		return 0;
	}
	ret = __real_wc_MlDsaKey_VerifyCtx(key, sig, sig_bytes, ctx, ctx_bytes, msg, msg_bytes,
					   good);
	if (s != NULL && ret == 0 && *good == 1)
		keep(s, &t);
	return ret;
}
