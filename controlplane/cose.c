/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/cose.h"

#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/hash.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/cbor_io.h"
#include "controlplane/decision.h"

#define COSE_TAG_SIGN1 18
#define COSE_ALG_EDDSA (-8)
#define HEADER_ALG 1
#define HEADER_CONTENT_TYPE 3
#define HEADER_KID 4

#define KEY_FILE "controller.key"
#define PUB_FILE "controller.pub"
#define KEY_WORD "ed25519-seed"
#define PUB_WORD "ed25519"

struct cose_signer {
	ed25519_key key;
	struct cose_verifier pub;
	bool ready; /* key is initialised */
};

void cose_sha256(uint8_t out[32], const void *data, size_t bytes)
{
	/* Only a hardware back end could fail here, and none is built in. */
	if (bytes > UINT32_MAX || wc_Sha256Hash(data, (word32)bytes, out) != 0)
		abort();
}

void cose_verifier_init(struct cose_verifier *out, const uint8_t key[COSE_KEY_BYTES])
{
	uint8_t hash[32];

	memcpy(out->key, key, COSE_KEY_BYTES);
	cose_sha256(hash, key, COSE_KEY_BYTES);
	memcpy(out->kid, hash, COSE_KID_BYTES);
}

/* "<word> <64 hex digits>\n" and nothing else. */
static int key_line_parse(uint8_t key[COSE_KEY_BYTES], char *line, const char *word)
{
	size_t n = strlen(word), len = strlen(line);

	if (len > 0 && line[len - 1] == '\n')
		line[--len] = '\0';
	if (len != n + 1 + 2 * COSE_KEY_BYTES || memcmp(line, word, n) != 0 || line[n] != ' ')
		return -EPROTO;
	return hex_parse(key, COSE_KEY_BYTES, line + n + 1) == 0 ? 0 : -EPROTO;
}

static int key_file_read(uint8_t key[COSE_KEY_BYTES], const char *path, const char *word,
			 bool secret, struct err *err)
{
	char line[160];
	struct stat st;
	ssize_t n;
	int ret = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0) {
		ret = err_set(err, -errno, "%s: %s", path, strerror(errno));
		goto out;
	}
	if (secret && (st.st_mode & 077) != 0) {
		ret = err_set(err, -EACCES,
			      "%s: group or others may read it (mode %03o), wanted 600", path,
			      (unsigned)(st.st_mode & 0777));
		goto out;
	}
	n = read(fd, line, sizeof(line) - 1);
	if (n < 0) {
		ret = err_set(err, -errno, "%s: %s", path, strerror(errno));
		goto out;
	}
	line[n] = '\0';
	ret = key_line_parse(key, line, word);
	if (ret < 0)
		err_set(err, ret, "%s: not a line \"%s <64 hex digits>\"", path, word);
out:
	explicit_bzero(line, sizeof(line));
	close(fd);
	return ret;
}

static int key_file_write(const char *path, const char *word, const uint8_t key[COSE_KEY_BYTES],
			  mode_t mode, struct err *err)
{
	char line[160], hex[2 * COSE_KEY_BYTES + 1];
	int ret = 0, n, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	n = snprintf(line, sizeof(line), "%s %s\n", word, hex_text(hex, key, COSE_KEY_BYTES));
	if (write(fd, line, n) != n || fsync(fd) < 0)
		ret = err_set(err, errno != 0 ? -errno : -EIO, "%s: cannot write", path);
	explicit_bzero(line, sizeof(line));
	explicit_bzero(hex, sizeof(hex));
	close(fd);
	return ret;
}

int cose_verifier_load(struct cose_verifier *out, const char *path, struct err *err)
{
	uint8_t key[COSE_KEY_BYTES];
	int ret = key_file_read(key, path, PUB_WORD, false, err);

	if (ret == 0)
		cose_verifier_init(out, key);
	return ret;
}

static int signer_from_seed(struct cose_signer **out, const uint8_t seed[COSE_KEY_BYTES],
			    struct err *err)
{
	struct cose_signer *s = calloc(1, sizeof(*s));
	uint8_t pub[COSE_KEY_BYTES];

	if (s == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	if (wc_ed25519_init(&s->key) != 0)
		goto fail;
	s->ready = true;
	if (wc_ed25519_import_private_only(seed, COSE_KEY_BYTES, &s->key) != 0 ||
	    wc_ed25519_make_public(&s->key, pub, sizeof(pub)) != 0 ||
	    wc_ed25519_import_private_key(seed, COSE_KEY_BYTES, pub, sizeof(pub), &s->key) != 0)
		goto fail;
	cose_verifier_init(&s->pub, pub);
	*out = s;
	return 0;
fail:
	cose_signer_free(s);
	return err_set(err, -EIO, "the crypto library refused the key");
}

static int seed_random(uint8_t seed[COSE_KEY_BYTES], struct err *err)
{
	WC_RNG rng;
	int ret;

	if (wc_InitRng(&rng) != 0)
		return err_set(err, -EIO, "no random numbers");
	ret = wc_RNG_GenerateBlock(&rng, seed, COSE_KEY_BYTES);
	wc_FreeRng(&rng);
	return ret == 0 ? 0 : err_set(err, -EIO, "no random numbers");
}

int cose_signer_new(struct cose_signer **out, struct err *err)
{
	uint8_t seed[COSE_KEY_BYTES];
	int ret = seed_random(seed, err);

	if (ret == 0)
		ret = signer_from_seed(out, seed, err);
	explicit_bzero(seed, sizeof(seed));
	return ret;
}

int cose_key_create(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct cose_signer *s = NULL;
	uint8_t seed[COSE_KEY_BYTES];
	int ret;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	ret = seed_random(seed, err);
	if (ret == 0)
		ret = signer_from_seed(&s, seed, err);
	if (ret == 0) {
		snprintf(path, sizeof(path), "%s/%s", dir, KEY_FILE);
		ret = key_file_write(path, KEY_WORD, seed, 0600, err);
	}
	if (ret == 0) {
		snprintf(path, sizeof(path), "%s/%s", dir, PUB_FILE);
		unlink(path); /* of a key that is gone */
		ret = key_file_write(path, PUB_WORD, s->pub.key, 0644, err);
	}
	explicit_bzero(seed, sizeof(seed));
	cose_signer_free(s);
	return ret;
}

int cose_signer_load(struct cose_signer **out, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	uint8_t seed[COSE_KEY_BYTES];
	int ret;

	snprintf(path, sizeof(path), "%s/%s", dir, KEY_FILE);
	ret = key_file_read(seed, path, KEY_WORD, true, err);
	if (ret == 0)
		ret = signer_from_seed(out, seed, err);
	explicit_bzero(seed, sizeof(seed));
	return ret;
}

void cose_signer_free(struct cose_signer *s)
{
	if (s == NULL)
		return;
	if (s->ready)
		wc_ed25519_free(&s->key);
	explicit_bzero(s, sizeof(*s));
	free(s);
}

const struct cose_verifier *cose_signer_public(const struct cose_signer *s)
{
	return &s->pub;
}

/* ---- COSE_Sign1 ---- */

static void protected_header(struct cbor_out *w, const char *content_type,
			     const uint8_t kid[COSE_KID_BYTES])
{
	cw_map(w, 3);
	cw_uint(w, HEADER_ALG);
	cw_int(w, COSE_ALG_EDDSA);
	cw_uint(w, HEADER_CONTENT_TYPE);
	cw_text(w, content_type, strlen(content_type));
	cw_uint(w, HEADER_KID);
	cw_bytes(w, kid, COSE_KID_BYTES);
}

/* RFC 9052 section 4.4: what the signature covers. */
static void sig_structure(struct cbor_out *w, const void *protected, size_t protected_bytes,
			  const void *payload, size_t payload_bytes)
{
	cw_array(w, 4);
	cw_text(w, "Signature1", 10);
	cw_bytes(w, protected, protected_bytes);
	cw_bytes(w, NULL, 0);
	cw_bytes(w, payload, payload_bytes);
}

int cose_sign1(uint8_t **out, size_t *out_bytes, const char *content_type, const void *payload,
	       size_t payload_bytes, const struct cose_signer *s)
{
	struct cbor_out prot = {0}, tbs = {0}, msg = {0};
	uint8_t sig[COSE_SIGNATURE_BYTES];
	word32 sig_bytes = sizeof(sig);
	int ret = -ENOMEM;

	protected_header(&prot, content_type, s->pub.kid);
	if (prot.failed)
		goto fail;
	sig_structure(&tbs, prot.data, prot.len, payload, payload_bytes);
	if (tbs.failed)
		goto fail;
	/* The library's key argument is not const, though signing changes nothing in it. */
	if (tbs.len > UINT32_MAX || wc_ed25519_sign_msg(tbs.data, (word32)tbs.len, sig, &sig_bytes,
							(ed25519_key *)&s->key) != 0) {
		ret = -EIO;
		goto fail;
	}
	cw_tag(&msg, COSE_TAG_SIGN1);
	cw_array(&msg, 4);
	cw_bytes(&msg, prot.data, prot.len);
	cw_map(&msg, 0);
	cw_bytes(&msg, payload, payload_bytes);
	cw_bytes(&msg, sig, sig_bytes);
	if (msg.failed)
		goto fail;
	*out = msg.data;
	*out_bytes = msg.len;
	msg.data = NULL;
	ret = 0;
fail:
	free(prot.data);
	free(tbs.data);
	free(msg.data);
	return ret;
}

/* The header must say what we would have written; only the key id may name somebody else's key. */
static int header_check(const uint8_t *data, size_t bytes, const char *content_type,
			const struct cose_verifier *v, struct err *err)
{
	struct cbor_in r = {.at = data, .left = bytes};
	uint8_t kid[COSE_KID_BYTES] = {0};
	const char *type;
	size_t type_bytes;

	if (cr_map(&r) != 3 || cr_uint(&r) != HEADER_ALG || cr_int(&r) != COSE_ALG_EDDSA ||
	    cr_uint(&r) != HEADER_CONTENT_TYPE)
		return err_set(err, -EPROTO,
			       "protected header is not {alg EdDSA, content type, kid}");
	type = cr_text(&r, &type_bytes);
	if (type == NULL || type_bytes != strlen(content_type) ||
	    memcmp(type, content_type, type_bytes) != 0)
		return err_set(err, -EPROTO, "content type is not %s", content_type);
	if (cr_uint(&r) != HEADER_KID)
		return err_set(err, -EPROTO,
			       "protected header is not {alg EdDSA, content type, kid}");
	cr_bytes_into(&r, kid, sizeof(kid));
	if (r.failed || r.left != 0)
		return err_set(err, -EPROTO, "key id is malformed");
	if (memcmp(kid, v->kid, sizeof(kid)) != 0)
		return err_set(err, -EBADMSG, "signed by another key");
	return 0;
}

static int signature_check(const struct cbor_out *tbs, const uint8_t *sig,
			   const struct cose_verifier *v, struct err *err)
{
	ed25519_key key;
	int good = 0, ret;

	if (wc_ed25519_init(&key) != 0)
		return err_set(err, -EBADMSG, "the crypto library failed");
	ret = wc_ed25519_import_public(v->key, COSE_KEY_BYTES, &key);
	if (ret == 0)
		ret = wc_ed25519_verify_msg(sig, COSE_SIGNATURE_BYTES, tbs->data, (word32)tbs->len,
					    &good, &key);
	wc_ed25519_free(&key);
	if (ret != 0 || good != 1)
		return err_set(err, -EBADMSG, "signature does not verify");
	return 0;
}

int cose_verify1(const uint8_t **payload, size_t *payload_bytes, const char *content_type,
		 const void *msg, size_t msg_bytes, const struct cose_verifier *v, struct err *err)
{
	struct cbor_in r = {.at = msg, .left = msg_bytes};
	const uint8_t *prot, *body;
	uint8_t sig[COSE_SIGNATURE_BYTES];
	size_t prot_bytes, body_bytes;
	struct cbor_out tbs = {0};
	int ret;

	if (msg_bytes > UINT32_MAX / 2 || cr_tag(&r) != COSE_TAG_SIGN1 || cr_array(&r) != 4)
		return err_set(err, -EPROTO, "not a COSE_Sign1 message");
	prot = cr_bytes(&r, &prot_bytes);
	if (prot == NULL || cr_map(&r) != 0 || r.failed)
		return err_set(err, -EPROTO, "COSE headers are malformed");
	body = cr_bytes(&r, &body_bytes);
	cr_bytes_into(&r, sig, sizeof(sig));
	if (body == NULL || r.failed)
		return err_set(err, -EPROTO, "COSE payload or signature is cut short or malformed");
	if (r.left != 0)
		return err_set(err, -EPROTO, "bytes behind the COSE message");
	ret = header_check(prot, prot_bytes, content_type, v, err);
	if (ret < 0)
		return ret;
	sig_structure(&tbs, prot, prot_bytes, body, body_bytes);
	ret = tbs.failed ? err_set(err, -ENOMEM, "out of memory")
			 : signature_check(&tbs, sig, v, err);
	free(tbs.data);
	if (ret < 0)
		return ret;
	*payload = body;
	*payload_bytes = body_bytes;
	return 0;
}
