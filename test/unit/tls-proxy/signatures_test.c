/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Signatures that are known: what counts as the same question, what is never remembered, and what no memory may excuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <time.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/wc_mldsa.h>

#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/signatures.h"

#define SIG_BYTES 2560
#define TEXT_BYTES 48

static const bool unproved, proved = true;
static struct pki pki;
static WC_RNG rng;

/* ---- one signature of each kind ---- */

struct signed_text {
	uint8_t text[TEXT_BYTES], sig[SIG_BYTES];
	word32 sig_bytes;
	union {
		ecc_key ecc;
		ed25519_key ed;
		wc_MlDsaKey mldsa;
	};
};

static void ecc_make(struct signed_text *t)
{
	assert_int_equal(wc_ecc_init(&t->ecc), 0);
	assert_int_equal(wc_ecc_make_key(&rng, 32, &t->ecc), 0);
	wc_ecc_set_rng(&t->ecc, &rng);
	assert_int_equal(
		wc_ecc_sign_hash(t->text, TEXT_BYTES, t->sig, &t->sig_bytes, &rng, &t->ecc), 0);
}

static void ecc384_make(struct signed_text *t)
{
	assert_int_equal(wc_ecc_init(&t->ecc), 0);
	assert_int_equal(wc_ecc_make_key(&rng, 48, &t->ecc), 0);
	wc_ecc_set_rng(&t->ecc, &rng);
	assert_int_equal(
		wc_ecc_sign_hash(t->text, TEXT_BYTES, t->sig, &t->sig_bytes, &rng, &t->ecc), 0);
}

static bool ecc_good(struct signed_text *t)
{
	int good = 0,
	    ret = wc_ecc_verify_hash(t->sig, t->sig_bytes, t->text, TEXT_BYTES, &good, &t->ecc);

	return ret == 0 && good == 1;
}

static void ed_make(struct signed_text *t)
{
	assert_int_equal(wc_ed25519_init(&t->ed), 0);
	assert_int_equal(wc_ed25519_make_key(&rng, ED25519_KEY_SIZE, &t->ed), 0);
	assert_int_equal(wc_ed25519_sign_msg(t->text, TEXT_BYTES, t->sig, &t->sig_bytes, &t->ed),
			 0);
}

static bool ed_good(struct signed_text *t)
{
	int good = 0,
	    ret = wc_ed25519_verify_msg(t->sig, t->sig_bytes, t->text, TEXT_BYTES, &good, &t->ed);

	return ret == 0 && good == 1;
}

static void mldsa_make(struct signed_text *t)
{
	assert_int_equal(wc_MlDsaKey_Init(&t->mldsa, NULL, INVALID_DEVID), 0);
	assert_int_equal(wc_MlDsaKey_SetParams(&t->mldsa, WC_ML_DSA_44), 0);
	assert_int_equal(wc_MlDsaKey_MakeKey(&t->mldsa, &rng), 0);
	assert_int_equal(wc_MlDsaKey_SignCtx(&t->mldsa, NULL, 0, t->sig, &t->sig_bytes, t->text,
					     TEXT_BYTES, &rng),
			 0);
}

static bool mldsa_good(struct signed_text *t)
{
	int good = 0, ret = wc_MlDsaKey_VerifyCtx(&t->mldsa, t->sig, t->sig_bytes, NULL, 0, t->text,
						  TEXT_BYTES, &good);

	return ret == 0 && good == 1;
}

static void ecc_drop(struct signed_text *t)
{
	wc_ecc_free(&t->ecc);
}

static void ed_drop(struct signed_text *t)
{
	wc_ed25519_free(&t->ed);
}

static void mldsa_drop(struct signed_text *t)
{
	wc_MlDsaKey_Free(&t->mldsa);
}

static const struct {
	const char *name;
	void (*make)(struct signed_text *t);
	bool (*good)(struct signed_text *t);
	void (*drop)(struct signed_text *t);
} kinds[] = {
	{"ECDSA, P-256", ecc_make, ecc_good, ecc_drop},
	{"ECDSA, P-384", ecc384_make, ecc_good, ecc_drop},
	{"Ed25519", ed_make, ed_good, ed_drop},
	{"ML-DSA-44", mldsa_make, mldsa_good, mldsa_drop},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void text_make(struct signed_text *t, size_t kind)
{
	*t = (struct signed_text){.sig_bytes = SIG_BYTES};
	assert_int_equal(wc_RNG_GenerateBlock(&rng, t->text, TEXT_BYTES), 0);
	kinds[kind].make(t);
}

static void fresh(uint32_t max)
{
	signatures_fini();
	assert_int_equal(signatures_init(max), 0);
	signatures_turn(&unproved);
}

static void assert_seen(const char *what, uint64_t known, uint64_t kept)
{
	struct signatures_seen seen = signatures_seen();

	if (seen.known != known || seen.kept != kept)
		fail_msg("%s: %llu known, %llu kept", what, (unsigned long long)seen.known,
			 (unsigned long long)seen.kept);
}

static void what_was_good_is_not_verified_again(void **state)
{
	struct signed_text t;

	(void)state;
	for (size_t k = 0; k < KINDS; k++) {
		fresh(SIGNATURES_MAX);
		text_make(&t, k);
		for (int i = 0; i < 3; i++)
			assert_true(kinds[k].good(&t));
		assert_seen(kinds[k].name, 2, 1);
		kinds[k].drop(&t);
	}
}

static void each_changed_bit_is_another_question(void **state)
{
	struct signed_text t, other;
	uint8_t text[TEXT_BYTES], sig[SIG_BYTES];

	(void)state;
	for (size_t k = 0; k < KINDS; k++) {
		fresh(SIGNATURES_MAX);
		text_make(&t, k);
		text_make(&other, k);
		assert_true(kinds[k].good(&t));
		memcpy(text, t.text, sizeof(text));
		memcpy(sig, t.sig, sizeof(sig));
		for (unsigned bit = 0; bit < 8 * TEXT_BYTES; bit += 5) {
			t.text[bit / 8] ^= 1u << bit % 8;
			/* of P-256 only the first 32 bytes of a hash count: good, and another question all the same */
			if (kinds[k].good(&t) && (k != 0 || bit < 256))
				fail_msg("%s: good with bit %u changed", kinds[k].name, bit);
			memcpy(t.text, text, sizeof(text));
		}
		for (unsigned bit = 0; bit < 8 * t.sig_bytes; bit += 5) {
			t.sig[bit / 8] ^= 1u << bit % 8;
			if (kinds[k].good(&t))
				fail_msg("%s: good with bit %u of the signature changed",
					 kinds[k].name, bit);
			memcpy(t.sig, sig, sizeof(sig));
		}
		if (signatures_seen().known != 0)
			fail_msg("%s: known though changed", kinds[k].name);
		/* another's key */
		memcpy(other.text, t.text, sizeof(t.text));
		memcpy(other.sig, t.sig, sizeof(t.sig));
		other.sig_bytes = t.sig_bytes;
		assert_false(kinds[k].good(&other));
		assert_int_equal(signatures_seen().known, 0);
		assert_true(kinds[k].good(&t));
		assert_int_equal(signatures_seen().known, 1);
		kinds[k].drop(&t);
		kinds[k].drop(&other);
	}
}

static void a_wrong_signature_is_never_remembered(void **state)
{
	struct signed_text t;

	(void)state;
	for (size_t k = 0; k < KINDS; k++) {
		fresh(SIGNATURES_MAX);
		text_make(&t, k);
		t.text[3] ^= 4;
		for (int i = 0; i < 3; i++)
			assert_false(kinds[k].good(&t));
		assert_seen(kinds[k].name, 0, 0);
		kinds[k].drop(&t);
	}
}

static void only_a_chain_is_remembered(void **state)
{
	static const struct {
		const char *name;
		const bool *turn;
	} rows[] = {{"nobody's turn", NULL}, {"the peer's own proof", &proved}};
	struct signed_text t;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t k = 0; k < KINDS; k++) {
			fresh(SIGNATURES_MAX);
			signatures_turn(rows[i].turn);
			text_make(&t, k);
			assert_true(kinds[k].good(&t) && kinds[k].good(&t));
			t.text[0] ^= 1;
			assert_false(kinds[k].good(&t));
			assert_seen(rows[i].name, 0, 0);
			kinds[k].drop(&t);
		}
	}
	/* nor by a process that has no table */
	signatures_fini();
	signatures_turn(&unproved);
	text_make(&t, 0);
	assert_true(kinds[0].good(&t) && kinds[0].good(&t));
	assert_seen("no table", 0, 0);
	kinds[0].drop(&t);
}

/* One set of four: what has not been asked for longest goes, and is verified again. */
static void a_full_table_costs_time_alone(void **state)
{
	static struct signed_text t[6];
	static const struct {
		unsigned ask;
		uint64_t known, kept;
	} steps[] = {{0, 0, 1}, {1, 0, 2}, {2, 0, 3}, {3, 0, 4}, {0, 1, 4}, {4, 1, 5},
		     {0, 2, 5}, {1, 2, 6}, {3, 3, 6}, {5, 3, 7}, {4, 3, 8}, {0, 3, 9}};

	(void)state;
	fresh(4);
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		text_make(&t[i], 0);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		char name[32];

		snprintf(name, sizeof(name), "step %zu", i);
		assert_true(ecc_good(&t[steps[i].ask]));
		assert_seen(name, steps[i].known, steps[i].kept);
	}
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		t[i].sig[t[i].sig_bytes - 1] ^= 1;
		assert_false(ecc_good(&t[i]));
		ecc_drop(&t[i]);
	}
}

/* ---- whole handshakes ---- */

static time_t later(time_t *out)
{
	time_t t =
		time(NULL) +
		6 * 86400; /* certificates of devices are good for five days, the CA's for nine */

	if (out != NULL)
		*out = t;
	return t;
}

static void listener_set(struct gw_listener *l, const char *ca, const char *crl)
{
	*l = (struct gw_listener){.tls12 = true};
	snprintf(l->certificate, sizeof(l->certificate), "%s/gw.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/gw.key", pki.dir);
	snprintf(l->ca, sizeof(l->ca), "%s/%s", pki.dir, ca);
	if (crl != NULL)
		snprintf(l->crl, sizeof(l->crl), "%s/%s", pki.dir, crl);
}

/* A device knocks. @return its session's end; why in reason */
static enum session_state knock(const struct tls_ctx *server, bool tls12, char reason[128])
{
	WOLFSSL_CTX *ctx =
		wolfSSL_CTX_new(tls12 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());
	static struct pump p;
	struct session *s = NULL;
	char path[128];
	enum session_state state;

	assert_non_null(ctx);
	snprintf(path, sizeof(path), "%s/dev.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(ctx, path), WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/dev.key", pki.dir);
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(ctx, path, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_NONE, NULL);
	assert_int_equal(session_new(&s, server), 0);
	pump_join(&p, wolfSSL_new(ctx), s);
	state = pump_shake(&p);
	snprintf(reason, 128, "%s", session_reason(s));
	wolfSSL_free(p.ssl);
	session_free(s);
	wolfSSL_CTX_free(ctx);
	return state;
}

static void a_device_that_comes_again_spares_the_ca_alone(void **state)
{
	static const struct {
		const char *name;
		bool tls12;
	} rows[] = {{"TLS 1.3", false}, {"TLS 1.2", true}};
	struct tls_ctx server = {0};
	struct gw_listener l;
	struct err err;
	char reason[128];

	(void)state;
	listener_set(&l, "ca.pem", "ca.crl");
	assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fresh(SIGNATURES_MAX);
		signatures_turn(NULL); /* a session takes its turn itself */
		for (int n = 0; n < 4; n++) {
			if (knock(&server, rows[i].tls12, reason) != SESSION_OPEN)
				fail_msg("%s: %s", rows[i].name, reason);
			/* its own proof, new each time, leaves nothing */
			assert_seen(rows[i].name, n, 1);
		}
	}
	tls_ctx_fini(&server);
}

static void no_memory_excuses_anything_else(void **state)
{
	static const struct {
		const char *name, *ca, *crl;
		bool later;
		const char *why;
	} rows[] = {
		{"revoked", "ca.pem", "revoked.crl", false, "revoked"},
		{"its CA is not trusted any more", "other.pem", NULL, false, "unknown CA"},
		{"expired", "ca.pem", NULL, true, "expired"},
	};
	struct gw_listener l;
	struct err err;
	char reason[128];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_ctx server = {0};

		fresh(SIGNATURES_MAX);
		signatures_turn(NULL);
		listener_set(&l, "ca.pem", NULL);
		assert_int_equal(tls_ctx_init(&server, &l, &err), 0);
		assert_int_equal(knock(&server, false, reason), SESSION_OPEN);
		assert_int_equal(knock(&server, false, reason), SESSION_OPEN);
		assert_seen(rows[i].name, 1, 1);
		listener_set(&l, rows[i].ca, rows[i].crl);
		assert_int_equal(tls_ctx_reload(&server, &l, NULL, &err), 0);
		if (rows[i].later)
			wc_SetTimeCb(later);
		if (knock(&server, false, reason) != SESSION_FAILED ||
		    strstr(reason, rows[i].why) == NULL)
			fail_msg("%s: \"%s\"", rows[i].name, reason);
		wc_SetTimeCb(NULL);
		tls_ctx_fini(&server);
	}
}

static int group_setup(void **state)
{
	(void)state;
	if (tls_ctx_global_init() < 0 || wc_InitRng(&rng) != 0 || pki_make(&pki) != 0)
		return -1;
	return pki_cert(&pki, "dev",
			"subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage=clientAuth") != 0 ||
			       pki_sh(&pki, "openssl ca -config ca.cnf -revoke dev.pem -keyfile "
					    "ca.key -cert ca.pem && "
					    "openssl ca -config ca.cnf -gencrl -keyfile ca.key "
					    "-cert ca.pem -out revoked.crl") != 0
		       ? -1
		       : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	wc_FreeRng(&rng);
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_good_is_not_verified_again),
		cmocka_unit_test(each_changed_bit_is_another_question),
		cmocka_unit_test(a_wrong_signature_is_never_remembered),
		cmocka_unit_test(only_a_chain_is_remembered),
		cmocka_unit_test(a_full_table_costs_time_alone),
		cmocka_unit_test(a_device_that_comes_again_spares_the_ca_alone),
		cmocka_unit_test(no_memory_excuses_anything_else),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
