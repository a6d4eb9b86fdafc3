/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is spared of a handshake's hashes, against the library itself, which feeds them all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <wolfssl/options.h>
#include <wolfssl/internal.h>

#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/tls_client.h"
#include "tls-proxy/transcript.h"

/* Every message goes through it, and every transcript begins with it. */
extern int HashRaw(WOLFSSL *ssl, const byte *data, int bytes);
extern int InitHandshakeHashes(WOLFSSL *ssl);

static struct pki pki;

/* A handshake of the library's client or server with a session of ours. */
struct row {
	const char *name;
	const char *cert; /* of the library's end, and of its kind */
	bool tls12; /* all that the library's end speaks */
	const char *suites;
	int groups[2]; /* the client's; a key share of the first alone. Zeros: its own choice */
	bool retry; /* so there is a HelloRetryRequest */
	unsigned spared; /* of how many hashes */
};

#define SUITE_128 "TLS13-AES128-GCM-SHA256"
#define SUITE_256 "TLS13-AES256-GCM-SHA384"
#define SUITE_CHACHA "TLS13-CHACHA20-POLY1305-SHA256"
#define RETRIED                                                                                    \
	{                                                                                          \
		WOLFSSL_ECC_SECP521R1, WOLFSSL_ECC_SECP256R1                                       \
	}

static const struct row rows[] = {
	{"SHA-256", "p256", false, SUITE_128, {0}, false, 2},
	{"SHA-256, ChaCha20", "p256", false, SUITE_CHACHA, {0}, false, 2},
	{"SHA-384", "p256", false, SUITE_256, {0}, false, 1},
	{"SHA-256, key over SHA-384", "p384", false, SUITE_128, {0}, false, 2},
	{"SHA-384, key over SHA-384", "p384", false, SUITE_256, {0}, false, 1},
	{"SHA-256, RSA", "rsa", false, SUITE_128, {0}, false, 2},
	{"SHA-384, RSA", "rsa", false, SUITE_256, {0}, false, 1},
	{"SHA-256, Ed25519", "ed25519", false, SUITE_128, {0}, false, 2},
	{"SHA-384, Ed25519", "ed25519", false, SUITE_256, {0}, false, 1},
	{"SHA-256, retried", "p256", false, SUITE_128, RETRIED, true, 2},
	{"SHA-384, retried", "p256", false, SUITE_256, RETRIED, true, 1},
	{"TLS 1.2, SHA-256", "p256", true, "ECDHE-ECDSA-AES128-GCM-SHA256", {0}, false, 0},
	{"TLS 1.2, SHA-384", "p256", true, "ECDHE-ECDSA-AES256-GCM-SHA384", {0}, false, 0},
	{"TLS 1.2, key over SHA-384", "p384", true, "ECDHE-ECDSA-AES128-GCM-SHA256", {0}, false, 0},
	{"TLS 1.2, Ed25519", "ed25519", true, "ECDHE-ECDSA-AES256-GCM-SHA384", {0}, false, 0},
	{"TLS 1.2, RSA", "rsa", true, "ECDHE-RSA-AES256-GCM-SHA384", {0}, false, 0},
};

static const char *path(const char *name, const char *ending)
{
	static char out[4][128];
	static int i;

	i = (i + 1) % 4;
	snprintf(out[i], sizeof(out[i]), "%s/%s%s", pki.dir, name, ending);
	return out[i];
}

static int cert_make(const char *name, const char *key)
{
	return pki_sh(
		&pki,
		"set -e; n=%s; openssl genpkey %s -out $n.key; openssl req -new -key $n.key "
		"-out $n.csr -subj /CN=$n; echo subjectAltName=DNS:up.example >$n.ext; openssl "
		"x509 -req -in $n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 5 "
		"-extfile $n.ext -out $n.pem",
		name, key);
}

static int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
			       cert_make("p256",
					 "-algorithm EC -pkeyopt ec_paramgen_curve:P-256") != 0 ||
			       cert_make("p384",
					 "-algorithm EC -pkeyopt ec_paramgen_curve:P-384") != 0 ||
			       cert_make("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048") !=
				       0 ||
			       cert_make("ed25519", "-algorithm ED25519") != 0
		       ? -1
		       : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

/* The library's end. Caller frees. */
static WOLFSSL_CTX *library_ctx(const struct row *r, bool server)
{
	WOLFSSL_METHOD *m =
		server	   ? r->tls12 ? wolfTLSv1_2_server_method() : wolfTLSv1_3_server_method()
		    : r->tls12 ? wolfTLSv1_2_client_method()
			   : wolfTLSv1_3_client_method();
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(m);

	assert_non_null(ctx);
	if (wolfSSL_CTX_load_verify_locations(ctx, path("ca", ".pem"), NULL) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_certificate_chain_file(ctx, path(r->cert, ".pem")) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(ctx, path(r->cert, ".key"), WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_set_cipher_list(ctx, r->suites) != WOLFSSL_SUCCESS)
		fail_msg("%s: the library's end cannot be made", r->name);
	return ctx;
}

/* Other ends spare nothing, so this is our session's. */
static void check_spared(const struct row *r, WOLFSSL *ssl, struct transcript_seen before,
			 uint64_t in_two[3])
{
	struct transcript_seen seen = transcript_seen();
	uint64_t spared = seen.spared - before.spared, kept = seen.kept - before.kept;

	print_message("%-28s spared %" PRIu64 ", kept %" PRIu64 "\n", r->name, spared, kept);
	if (r->retry)
		assert_int_equal(ssl->msgsReceived.got_client_hello > 1 ||
					 ssl->msgsReceived.got_hello_retry_request,
				 true);
	if ((spared > 0) != (r->spared > 0))
		fail_msg("%s: spared %" PRIu64, r->name, spared);
	in_two[r->spared] = spared;
	/* Of two hashes about twice as much as of one: hellos and certificates are the same. */
	if (r->spared == 1 && (spared * 2 < in_two[2] * 8 / 10 || spared * 2 > in_two[2] * 12 / 10))
		fail_msg("%s: %" PRIu64 " of one, %" PRIu64 " of two", r->name, spared, in_two[2]);
}

/* Both ends have the keys of the same transcript: what one writes the other reads. */
static void agreed(const struct row *r, struct pump *p, struct session *s,
		   struct transcript_seen before, uint64_t in_two[3])
{
	check_spared(r, p->ssl, before, in_two);
	assert_string_equal(session_version(s), r->tls12 ? "TLSv1.2" : "TLSv1.3");
	assert_int_equal(session_write(s, (const uint8_t *)"well", 4), 4);
	pump_carry(p);
	assert_int_equal(wolfSSL_read(p->ssl, (char[4]){0}, 4), 4);
	wolfSSL_free(p->ssl);
	session_free(s);
}

static void groups_set(WOLFSSL *ssl, const int groups[2])
{
	int list[2] = {groups[0], groups[1]};

	if (groups[0] != 0 && (wolfSSL_set_groups(ssl, list, 2) != WOLFSSL_SUCCESS ||
			       wolfSSL_UseKeyShare(ssl, groups[0]) != WOLFSSL_SUCCESS))
		fail_msg("the client cannot ask for its groups");
}

static void each_device_shakes_hands_with_us(void **state)
{
	static struct pump p;
	struct gw_listener l = {.tls12 = true};
	struct tls_ctx ctx = {0};
	uint64_t in_two[3] = {0};
	struct err err = {""};

	(void)state;
	snprintf(l.ca, sizeof(l.ca), "%s", path("ca", ".pem"));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		const char *own = r->tls12 ? r->cert : "p256";
		WOLFSSL_CTX *library = library_ctx(r, false);
		struct transcript_seen before;
		struct session *s = NULL;

		snprintf(l.certificate, sizeof(l.certificate), "%s", path(own, ".pem"));
		snprintf(l.key, sizeof(l.key), "%s", path(own, ".key"));
		if (tls_ctx_init(&ctx, &l, &err) < 0)
			fail_msg("%s: %s", r->name, err.msg);
		assert_int_equal(session_new(&s, &ctx), 0);
		pump_join(&p, wolfSSL_new(library), s);
		groups_set(p.ssl, r->groups);
		before = transcript_seen();
		if (pump_shake(&p) != SESSION_OPEN)
			fail_msg("%s: %s", r->name, session_reason(s));
		agreed(r, &p, s, before, in_two);
		tls_ctx_fini(&ctx);
		wolfSSL_CTX_free(library);
	}
}

static enum session_state shake_server(struct pump *p)
{
	enum session_state state = SESSION_HANDSHAKE;

	for (int i = 0; i < 100 && state == SESSION_HANDSHAKE; i++) {
		state = session_step(p->peer);
		while (pump_carry(p))
			;
		wolfSSL_accept(p->ssl);
	}
	return state;
}

/* Our first hello has keys for the groups that we offer, of which these servers have none or the first. */
static void we_shake_hands_with_each_upstream(void **state)
{
	static struct pump p;
	const struct session_server whom = {.name = "up.example"};
	struct gw_upstream_tls u = {.tls12 = true};
	struct tls_ctx ctx = {0};
	uint64_t in_two[3] = {0};
	struct err err = {""};

	(void)state;
	snprintf(u.ca, sizeof(u.ca), "%s", path("ca", ".pem"));
	if (tls_client_load(&ctx, &u, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		WOLFSSL_CTX *library = library_ctx(r, true);
		struct transcript_seen before = transcript_seen();
		struct session *s = NULL;
		int only[] = {WOLFSSL_ECC_SECP384R1};

		if (r->retry)
			assert_int_equal(wolfSSL_CTX_set_groups(library, only, 1), WOLFSSL_SUCCESS);
		wolfSSL_CTX_set_verify(library, WOLFSSL_VERIFY_NONE, NULL);
		assert_int_equal(session_new_client(&s, &ctx, &whom), 0);
		pump_join(&p, wolfSSL_new(library), s);
		if (shake_server(&p) != SESSION_OPEN)
			fail_msg("%s: %s", r->name, session_reason(s));
		agreed(r, &p, s, before, in_two);
		wolfSSL_CTX_free(library);
	}
	tls_ctx_fini(&ctx);
}

/* ---- one hash at a time ---- */

enum read { READ_WHOLE, READ_REFUSED, READ_BY_NOBODY };

static struct transcript t;
static WOLFSSL *ssl;
static uint8_t text[10000];

static void hash(size_t at, size_t bytes)
{
	assert_int_equal(HashRaw(ssl, text + at, bytes), 0);
}

static void check_digest(const char *name, enum read want, int ret, const uint8_t *got,
			 const uint8_t *whole, size_t bytes)
{
	if (want == READ_BY_NOBODY)
		return;
	if (ret != (want == READ_WHOLE ? 0 : BAD_STATE_E) ||
	    (ret == 0 && memcmp(got, whole, bytes) != 0))
		fail_msg("%s: SHA-%zu: %d", name, bytes * 8, ret);
}

static void check_digests(const char *name, size_t bytes, enum read want384, enum read want512)
{
	uint8_t got[64], whole[64];
	int ret;

	assert_int_equal(wc_Sha384Hash(text, bytes, whole), 0);
	ret = wc_Sha384GetHash(&ssl->hsHashes->hashSha384, got);
	check_digest(name, want384, ret, got, whole, WC_SHA384_DIGEST_SIZE);
	assert_int_equal(wc_Sha512Hash(text, bytes, whole), 0);
	ret = wc_Sha512GetHash(&ssl->hsHashes->hashSha512, got);
	check_digest(name, want512, ret, got, whole, WC_SHA512_DIGEST_SIZE);
}

/* The suite is chosen, or the version falls, in the middle of a transcript. */
static void nobody_reads_a_part(void **state)
{
	static const struct {
		const char *name;
		bool client;
		size_t before, after; /* bytes */
		int minor, mac; /* from the middle on */
		bool anew; /* the hashes are begun again there */
		int minor_read, mac_read; /* and when they are read */
		enum read want384, want512;
	} parts[] = {
		{"fed when SHA-384 is chosen", false, 1500, 300, 4, sha384_mac, false, 4,
		 sha384_mac, READ_WHOLE, READ_BY_NOBODY},
		{"a client's, the same", true, 1500, 300, 4, sha384_mac, false, 4, sha384_mac,
		 READ_WHOLE, READ_BY_NOBODY},
		{"a client's server has TLS 1.2", true, 1500, 300, 3, sha256_mac, false, 3,
		 sha256_mac, READ_WHOLE, READ_WHOLE},
		{"a long hello", true, 9000, 300, 3, sha256_mac, false, 3, sha256_mac, READ_WHOLE,
		 READ_WHOLE},
		{"never chosen", true, 1500, 0, 4, INVALID_BYTE, false, 4, INVALID_BYTE, READ_WHOLE,
		 READ_WHOLE},
		{"spared, then SHA-384 is wanted", false, 1500, 300, 4, sha256_mac, false, 4,
		 sha384_mac, READ_REFUSED, READ_BY_NOBODY},
		{"spared, then TLS 1.2", false, 1500, 300, 4, sha256_mac, false, 3, sha256_mac,
		 READ_REFUSED, READ_REFUSED},
		{"spared of a long hello", false, 9000, 300, 4, sha256_mac, false, 3, sha256_mac,
		 READ_REFUSED, READ_REFUSED},
		{"begun anew: what was kept is no part of it", false, 1500, 300, 4, sha384_mac,
		 true, 4, sha384_mac, READ_WHOLE, READ_BY_NOBODY},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		WOLFSSL_CTX *ctx = library_ctx(&rows[0], !parts[i].client);
		size_t from = parts[i].anew ? 0 : parts[i].before;

		memset(&t, 0, sizeof(t));
		ssl = wolfSSL_new(ctx);
		assert_non_null(ssl);
		transcript_turn(&t, ssl);
		hash(0, parts[i].before);
		if (parts[i].client) { /* waits for its server */
			transcript_turn(NULL, NULL);
			transcript_turn(&t, ssl);
		}
		if (parts[i].anew)
			assert_int_equal(InitHandshakeHashes(ssl), 0);
		ssl->version.minor = parts[i].minor;
		ssl->specs.mac_algorithm = parts[i].mac;
		if (parts[i].after > 0)
			hash(from, parts[i].after);
		ssl->version.minor = parts[i].minor_read;
		ssl->specs.mac_algorithm = parts[i].mac_read;
		check_digests(parts[i].name, from + parts[i].after, parts[i].want384,
			      parts[i].want512);
		transcript_turn(NULL, NULL);
		transcript_drop(&t);
		wolfSSL_free(ssl);
		wolfSSL_CTX_free(ctx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_device_shakes_hands_with_us),
		cmocka_unit_test(we_shake_hands_with_each_upstream),
		cmocka_unit_test(nobody_reads_a_part),
	};

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i * 7 + i / 256;
	return cmocka_run_group_tests_name("transcript", tests, group_setup, group_teardown);
}
