/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/segments.h"
#include "controlplane/cbor_io.h"
#include "controlplane/decision.h"

static struct cose_signer *signer, *stranger;

#define POLICY_TEXT "segments = ();\n\t# text\r\n"

static void set_device(struct decision *d, uint8_t kind, const char *name)
{
	d->identity_kind = kind;
	snprintf(d->identity, sizeof(d->identity), "%s", name);
	d->has |= DECISION_HAS_DEVICE;
}

/* A good operation of each kind. */
static struct decision good_op(uint8_t op)
{
	struct decision d = {.op = op};

	switch (op) {
	case DECISION_ENROL:
		set_device(&d, IDENTITY_URI, "spiffe://plant-7/camera/1");
		memset(d.cert_sha256, 0xaa, 32);
		d.has |= DECISION_HAS_CERT;
		break;
	case DECISION_UNENROL:
	case DECISION_RESTORE:
		set_device(&d, IDENTITY_CN,
			   "K\xc3\xbc"
			   "hlhaus 3");
		break;
	case DECISION_REVOKE_CERT:
		set_device(&d, IDENTITY_DNS, "cam.plant.example");
		d.not_before_ms = 1750000000123;
		strcpy(d.reason, "stolen");
		d.has |= DECISION_HAS_NOT_BEFORE | DECISION_HAS_REASON;
		break;
	case DECISION_QUARANTINE:
		set_device(&d, IDENTITY_URI, "spiffe://plant-7/camera/1");
		strcpy(d.reason, "scans");
		d.has |= DECISION_HAS_REASON;
		break;
	case DECISION_SOFTWARE_CERTIFY:
		memset(d.digest, 0x11, 32);
		strcpy(d.name, "fw");
		strcpy(d.version, "4.2");
		d.not_after_ms = 1760000000000;
		d.has |= DECISION_HAS_DIGEST | DECISION_HAS_NAME | DECISION_HAS_VERSION |
			 DECISION_HAS_NOT_AFTER;
		break;
	case DECISION_SOFTWARE_REVOKE:
		memset(d.digest, 0x11, 32);
		d.has |= DECISION_HAS_DIGEST;
		break;
	case DECISION_ATTEST:
		set_device(&d, IDENTITY_URI, "spiffe://plant-7/camera/1");
		memset(d.digest, 0x11, 32);
		d.tier = ATTEST_AFFIRMING;
		d.issued_ms = 1750000000000;
		d.expires_ms = 1750000600000;
		d.has |= DECISION_HAS_DIGEST | DECISION_HAS_TIER | DECISION_HAS_ISSUED |
			 DECISION_HAS_EXPIRES;
		break;
	case DECISION_POLICY:
		strcpy(d.file, "segments.cfg");
		d.text = strdup(POLICY_TEXT);
		d.text_bytes = strlen(d.text);
		cose_sha256(d.policy_sha256, d.text, d.text_bytes);
		d.has |= DECISION_HAS_FILE | DECISION_HAS_TEXT | DECISION_HAS_SHA256;
		break;
	}
	return d;
}

static void same_op(const struct decision *a, const struct decision *b)
{
	struct decision x = *a, y = *b;

	if (a->text != NULL) {
		assert_non_null(b->text);
		assert_string_equal(a->text, b->text);
	}
	x.text = y.text = NULL;
	assert_memory_equal(&x, &y, sizeof(x));
}

static void every_operation_survives_a_round_trip(void **state)
{
	struct decision ops[DECISION_OP_COUNT - 1];
	struct decision_entry e = {.revision = 7,
				   .issued_ms = 1750000000000,
				   .expires_ms = 1750000009999,
				   .n_ops = DECISION_OP_COUNT - 1,
				   .ops = ops};
	struct decision_entry *back = NULL;
	struct err err = {0};
	uint8_t *msg, hash[32];
	size_t bytes;

	(void)state;
	memset(e.prev, 0x77, 32);
	for (uint8_t op = 1; op < DECISION_OP_COUNT; op++)
		ops[op - 1] = good_op(op);
	assert_int_equal(decision_entry_seal(&msg, &bytes, &e, signer, &err), 0);
	assert_int_equal(decision_entry_open(&back, msg, bytes, cose_signer_public(signer), &err),
			 0);
	cose_sha256(hash, msg, bytes);
	assert_memory_equal(back->hash, hash, 32);
	assert_memory_equal(e.hash, hash, 32);
	assert_memory_equal(back->prev, e.prev, 32);
	assert_int_equal(back->revision, 7);
	assert_int_equal(back->issued_ms, e.issued_ms);
	assert_int_equal(back->expires_ms, e.expires_ms);
	assert_int_equal(back->n_ops, e.n_ops);
	assert_false(back->snapshot);
	for (uint32_t i = 0; i < e.n_ops; i++)
		same_op(&back->ops[i], &ops[i]);
	for (uint32_t i = 0; i < e.n_ops; i++)
		decision_clear(&ops[i]);
	decision_entry_free(back);
	free(msg);
}

static uint8_t *one_entry(size_t *bytes)
{
	struct decision op = good_op(DECISION_REVOKE_CERT);
	struct decision_entry e = {
		.revision = 1, .issued_ms = 1750000000000, .n_ops = 1, .ops = &op};
	uint8_t *msg;

	assert_int_equal(decision_entry_seal(&msg, bytes, &e, signer, NULL), 0);
	return msg;
}

static void no_flipped_bit_no_other_length_and_no_other_key_verifies(void **state)
{
	struct decision_entry *back = NULL;
	size_t bytes;
	uint8_t *msg = one_entry(&bytes), *longer = malloc(bytes + 1);

	(void)state;
	for (size_t i = 0; i < bytes * 8; i++) {
		msg[i / 8] ^= 1u << i % 8;
		assert_int_not_equal(
			decision_entry_open(&back, msg, bytes, cose_signer_public(signer), NULL),
			0);
		msg[i / 8] ^= 1u << i % 8;
	}
	for (size_t n = 0; n < bytes; n++)
		assert_int_equal(
			decision_entry_open(&back, msg, n, cose_signer_public(signer), NULL),
			-EPROTO);
	memcpy(longer, msg, bytes);
	longer[bytes] = 0;
	assert_int_equal(
		decision_entry_open(&back, longer, bytes + 1, cose_signer_public(signer), NULL),
		-EPROTO);
	assert_int_equal(decision_entry_open(&back, msg, bytes, cose_signer_public(stranger), NULL),
			 -EBADMSG);
	assert_null(back);
	assert_int_equal(decision_entry_open(&back, msg, bytes, cose_signer_public(signer), NULL),
			 0);
	decision_entry_free(back);
	free(longer);
	free(msg);
}

static void a_message_of_one_kind_is_none_of_another(void **state)
{
	struct decision_heartbeat h = {.revision = 3, .issued_ms = 5, .lease_ms = 9, .hash = {1}},
				  back;
	struct decision_entry snap = {.revision = 3, .issued_ms = 5, .snapshot = true, .hash = {1}},
			      *e = NULL;
	const struct cose_verifier *v = cose_signer_public(signer);
	uint8_t *entry, *beat, *shot;
	size_t n_entry, n_beat, n_shot;

	(void)state;
	entry = one_entry(&n_entry);
	assert_int_equal(decision_heartbeat_seal(&beat, &n_beat, &h, signer), 0);
	assert_int_equal(decision_entry_seal(&shot, &n_shot, &snap, signer, NULL), 0);
	assert_int_equal(decision_entry_open(&e, beat, n_beat, v, NULL), -EPROTO);
	assert_int_equal(decision_entry_open(&e, shot, n_shot, v, NULL), -EPROTO);
	assert_int_equal(decision_snapshot_open(&e, entry, n_entry, v, NULL), -EPROTO);
	assert_int_equal(decision_snapshot_open(&e, beat, n_beat, v, NULL), -EPROTO);
	assert_int_equal(decision_heartbeat_open(&back, entry, n_entry, v, NULL), -EPROTO);
	assert_int_equal(decision_heartbeat_open(&back, shot, n_shot, v, NULL), -EPROTO);
	assert_int_equal(decision_heartbeat_open(&back, beat, n_beat, v, NULL), 0);
	assert_memory_equal(&back, &h, sizeof(h));
	assert_int_equal(decision_snapshot_open(&e, shot, n_shot, v, NULL), 0);
	assert_true(e->snapshot);
	assert_int_equal(e->n_ops, 0);
	decision_entry_free(e);
	free(entry);
	free(beat);
	free(shot);
}

/* ---- strictness: payloads by hand ---- */

#define H32                                                                                        \
	"\x58\x20"                                                                                 \
	"\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"                         \
	"\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"
#define Z32                                                                                        \
	"\x58\x20"                                                                                 \
	"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
/* {1: 1, 2: zeros, 3: 5, 5: [ */
#define HEAD "\xa4\x01\x01\x02" Z32 "\x03\x05\x05"
#define UNENROL "\xa3\x00\x02\x01\x03\x02\x61\x41" /* {0: unenrol, 1: CN, 2: "A"} */
#define ROW(name, bytes, want)                                                                     \
	{                                                                                          \
		name, bytes, sizeof(bytes) - 1, want                                               \
	}

static const struct {
	const char *name;
	const char *bytes;
	size_t n;
	int want;
} payloads[] = {
	ROW("one unenrol", HEAD "\x81" UNENROL, 0),
	ROW("two operations", HEAD "\x82" UNENROL UNENROL, 0),
	ROW("empty", "", -EPROTO),
	ROW("not a map", "\x80", -EPROTO),
	ROW("trailing byte", HEAD "\x81" UNENROL "\x00", -EPROTO),
	ROW("no operations", HEAD "\x80", -EPROTO),
	ROW("more operations claimed than there are", HEAD "\x82" UNENROL, -EPROTO),
	ROW("a huge count", HEAD "\x9b\xff\xff\xff\xff\xff\xff\xff\xff" UNENROL, -EPROTO),
	ROW("indefinite array", HEAD "\x9f" UNENROL "\xff", -EPROTO),
	ROW("indefinite map", "\xbf\x01\x01\x02" Z32 "\x03\x05\x05\x81" UNENROL "\xff", -EPROTO),
	ROW("revision not in its shortest form",
	    "\xa4\x01\x18\x01\x02" Z32 "\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("length not in its shortest form", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x78\x01\x41",
	    -EPROTO),
	ROW("map size not in its shortest form",
	    "\xb8\x04\x01\x01\x02" Z32 "\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("revision 0", "\xa4\x01\x00\x02" Z32 "\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("revision negative", "\xa4\x01\x20\x02" Z32 "\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("revision 1 with a previous hash", "\xa4\x01\x01\x02" H32 "\x03\x05\x05\x81" UNENROL,
	    -EPROTO),
	ROW("revision 2 without a previous hash", "\xa4\x01\x02\x02" Z32 "\x03\x05\x05\x81" UNENROL,
	    -EPROTO),
	ROW("revision 2 with a previous hash", "\xa4\x01\x02\x02" H32 "\x03\x05\x05\x81" UNENROL,
	    0),
	ROW("issued 0", "\xa4\x01\x01\x02" Z32 "\x03\x00\x05\x81" UNENROL, -EPROTO),
	ROW("issued past the year 9999",
	    "\xa4\x01\x01\x02" Z32 "\x03\x1b\x00\x01\x00\x00\x00\x00\x00\x00\x05\x81" UNENROL,
	    -EPROTO),
	ROW("expires", "\xa5\x01\x01\x02" Z32 "\x03\x05\x04\x09\x05\x81" UNENROL, 0),
	ROW("expires 0 spelled out", "\xa5\x01\x01\x02" Z32 "\x03\x05\x04\x00\x05\x81" UNENROL,
	    -EPROTO),
	ROW("keys out of order", "\xa4\x02" Z32 "\x01\x01\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("unknown entry key", "\xa5\x01\x01\x02" Z32 "\x03\x05\x06\x09\x05\x81" UNENROL,
	    -EPROTO),
	ROW("short previous hash", "\xa4\x01\x01\x02\x41\x00\x03\x05\x05\x81" UNENROL, -EPROTO),
	ROW("operation 0", HEAD "\x81\xa3\x00\x00\x01\x03\x02\x61\x41", -EPROTO),
	ROW("unknown operation", HEAD "\x81\xa3\x00\x0a\x01\x03\x02\x61\x41", -EPROTO),
	ROW("operation is no map", HEAD "\x81\x02", -EPROTO),
	ROW("unknown field", HEAD "\x81\xa4\x00\x02\x01\x03\x02\x61\x41\x12\x00", -EPROTO),
	ROW("repeated field", HEAD "\x81\xa4\x00\x02\x01\x03\x02\x61\x41\x02\x61\x41", -EPROTO),
	ROW("fields out of order", HEAD "\x81\xa3\x00\x02\x02\x61\x41\x01\x03", -EPROTO),
	ROW("field of another operation", HEAD "\x81\xa4\x00\x02\x01\x03\x02\x61\x41\x03\x61\x41",
	    -EPROTO),
	ROW("field missing", HEAD "\x81\xa2\x00\x02\x02\x61\x41", -EPROTO),
	ROW("identity kind 0", HEAD "\x81\xa3\x00\x02\x01\x00\x02\x61\x41", -EPROTO),
	ROW("identity kind 4", HEAD "\x81\xa3\x00\x02\x01\x04\x02\x61\x41", -EPROTO),
	ROW("identity kind 257", HEAD "\x81\xa3\x00\x02\x01\x19\x01\x01\x02\x61\x41", -EPROTO),
	ROW("identity empty", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x60", -EPROTO),
	ROW("identity as bytes", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x41\x41", -EPROTO),
	ROW("identity with NUL", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x63\x41\x00\x42", -EPROTO),
	ROW("identity with a line feed", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x62\x41\x0a", -EPROTO),
	ROW("identity with an escape", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x62\x1b\x41", -EPROTO),
	ROW("identity not UTF-8", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x62\xc3\x28", -EPROTO),
	ROW("identity overlong UTF-8", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x62\xc0\xaf", -EPROTO),
	ROW("identity a surrogate", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x63\xed\xa0\x80", -EPROTO),
	ROW("identity UTF-8", HEAD "\x81\xa3\x00\x02\x01\x03\x02\x62\xc3\xbc", 0),
	ROW("text longer than the message",
	    HEAD "\x81\xa3\x00\x02\x01\x03\x02\x7a\xff\xff\xff\xff\x41", -EPROTO),
	ROW("float", HEAD "\x81\xa3\x00\x02\x01\xf9\x00\x00\x02\x61\x41", -EPROTO),
	ROW("revoke nothing", HEAD "\x81\xa1\x00\x03", -EPROTO),
	ROW("revoke a device without a limit", HEAD "\x81\xa3\x00\x03\x01\x03\x02\x61\x41",
	    -EPROTO),
	ROW("revoke a limit without a device", HEAD "\x81\xa2\x00\x03\x07\x05", -EPROTO),
	ROW("revoke a device", HEAD "\x81\xa4\x00\x03\x01\x03\x02\x61\x41\x07\x05", 0),
	ROW("revoke a certificate", HEAD "\x81\xa2\x00\x03\x04" H32, 0),
	ROW("revoke a certificate, with its device",
	    HEAD "\x81\xa4\x00\x03\x01\x03\x02\x61\x41\x04" H32, 0),
	ROW("revoke a certificate with a limit",
	    HEAD "\x81\xa5\x00\x03\x01\x03\x02\x61\x41\x04" H32 "\x07\x05", -EPROTO),
	ROW("revoke with half a device", HEAD "\x81\xa3\x00\x03\x01\x03\x04" H32, -EPROTO),
	ROW("revoke issuer and serial", HEAD "\x81\xa3\x00\x03\x05" H32 "\x06\x41\x01", 0),
	ROW("revoke issuer without serial", HEAD "\x81\xa2\x00\x03\x05" H32, -EPROTO),
	ROW("revoke with an empty serial", HEAD "\x81\xa3\x00\x03\x05" H32 "\x06\x40", -EPROTO),
	ROW("revoke with a serial of 21 bytes",
	    HEAD "\x81\xa3\x00\x03\x05" H32 "\x06\x55"
		 "123456789012345678901",
	    -EPROTO),
	ROW("attest",
	    HEAD "\x81\xa7\x00\x08\x01\x03\x02\x61\x41\x08" H32 "\x0c\x01\x0d\x05\x0e\x06", 0),
	ROW("attest without a tier",
	    HEAD "\x81\xa6\x00\x08\x01\x03\x02\x61\x41\x08" H32 "\x0d\x05\x0e\x06", -EPROTO),
	ROW("attest with tier none",
	    HEAD "\x81\xa7\x00\x08\x01\x03\x02\x61\x41\x08" H32 "\x0c\x00\x0d\x05\x0e\x06",
	    -EPROTO),
	ROW("attest with tier 4",
	    HEAD "\x81\xa7\x00\x08\x01\x03\x02\x61\x41\x08" H32 "\x0c\x04\x0d\x05\x0e\x06",
	    -EPROTO),
	ROW("attest that ends as it begins",
	    HEAD "\x81\xa7\x00\x08\x01\x03\x02\x61\x41\x08" H32 "\x0c\x01\x0d\x05\x0e\x05",
	    -EPROTO),
	ROW("policy with another hash", HEAD "\x81\xa4\x00\x09\x0f\x61\x66\x10\x61\x41\x11" H32,
	    -EPROTO),
};

static void payloads_are_taken_in_one_form_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
		struct decision_entry *e = NULL;
		struct err err = {0};
		int ret =
			decision_payload_decode(&e, payloads[i].bytes, payloads[i].n, false, &err);

		if (ret != payloads[i].want || (ret < 0 && err.msg[0] == '\0'))
			fail_msg("%s: %d (%s), wanted %d", payloads[i].name, ret, err.msg,
				 payloads[i].want);
		assert_true((e != NULL) == (ret == 0));
		decision_entry_free(e);
	}
}

static void limits_hold_when_signing_and_when_reading(void **state)
{
	static struct decision ops[DECISION_OPS_MAX + 1];
	struct decision_entry e = {
		.revision = 1, .issued_ms = 5, .n_ops = DECISION_OPS_MAX, .ops = ops};
	struct decision big = good_op(DECISION_POLICY);
	uint8_t *msg = NULL;
	size_t bytes;

	(void)state;
	for (unsigned i = 0; i <= DECISION_OPS_MAX; i++)
		ops[i] = good_op(DECISION_UNENROL);
	assert_int_equal(decision_entry_seal(&msg, &bytes, &e, signer, NULL), 0);
	free(msg);
	e.n_ops++;
	assert_int_equal(decision_entry_seal(&msg, &bytes, &e, signer, NULL), -E2BIG);

	big.text = realloc(big.text, DECISION_POLICY_BYTES + 2);
	memset(big.text, 'x', DECISION_POLICY_BYTES + 1);
	for (unsigned more = 0; more <= 1; more++) {
		struct decision_entry *back = NULL;

		big.text_bytes = DECISION_POLICY_BYTES + more;
		big.text[big.text_bytes] = '\0';
		cose_sha256(big.policy_sha256, big.text, big.text_bytes);
		e.ops = &big;
		e.n_ops = 1;
		assert_int_equal(decision_entry_seal(&msg, &bytes, &e, signer, NULL),
				 more ? -EPROTO : 0);
		if (more)
			break;
		assert_int_equal(
			decision_entry_open(&back, msg, bytes, cose_signer_public(signer), NULL),
			0);
		assert_int_equal(back->ops[0].text_bytes, DECISION_POLICY_BYTES);
		decision_entry_free(back);
		free(msg);
	}
	decision_clear(&big);
}

static void keys_live_in_files_of_the_right_mode(void **state)
{
	char dir[] = "/tmp/sallyport-key-XXXXXX", path[64];
	struct cose_signer *s = NULL;
	struct cose_verifier v;
	struct err err = {0};
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(cose_key_create(dir, &err), 0);
	assert_int_equal(cose_key_create(dir, &err), -EEXIST);
	assert_int_equal(cose_signer_load(&s, dir, &err), 0);
	snprintf(path, sizeof(path), "%s/controller.pub", dir);
	assert_int_equal(cose_verifier_load(&v, path, &err), 0);
	assert_memory_equal(&v, cose_signer_public(s), sizeof(v));
	cose_signer_free(s);
	f = fopen(path, "w");
	fputs("ed25519 00ff\n", f);
	fclose(f);
	assert_int_equal(cose_verifier_load(&v, path, &err), -EPROTO);
	snprintf(path, sizeof(path), "%s/controller.key", dir);
	assert_int_equal(cose_verifier_load(&v, path, &err),
			 -EPROTO); /* a secret is not taken for a public key */
	snprintf(path, sizeof(path), "chmod 640 %s/controller.key", dir);
	assert_int_equal(system(path), 0);
	assert_int_equal(cose_signer_load(&s, dir, &err), -EACCES);
	snprintf(path, sizeof(path), "rm -r %s", dir);
	assert_int_equal(system(path), 0);
}

static int setup(void **state)
{
	(void)state;
	return cose_signer_new(&signer, NULL) != 0 || cose_signer_new(&stranger, NULL) != 0;
}

static int teardown(void **state)
{
	(void)state;
	cose_signer_free(signer);
	cose_signer_free(stranger);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_operation_survives_a_round_trip),
		cmocka_unit_test(no_flipped_bit_no_other_length_and_no_other_key_verifies),
		cmocka_unit_test(a_message_of_one_kind_is_none_of_another),
		cmocka_unit_test(payloads_are_taken_in_one_form_only),
		cmocka_unit_test(limits_hold_when_signing_and_when_reading),
		cmocka_unit_test(keys_live_in_files_of_the_right_mode),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
