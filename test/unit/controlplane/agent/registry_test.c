/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "config/base/clock.h"
#include "controlplane/agent/registry.h"

#define WALL 1800000000000ull
#define BOOT 5000000ull

static uint64_t revision;

static void apply(struct registry *r, struct decision d)
{
	struct err err = {""};

	if (registry_apply(r, &d, ++revision, &err) != 0)
		fail_msg("%s", err.msg);
}

static struct decision op(uint8_t what, const char *identity)
{
	struct decision d = {.op = what, .has = DECISION_HAS_DEVICE, .identity_kind = IDENTITY_URI};

	strcpy(d.identity, identity);
	return d;
}

static struct decision attest(const char *identity, uint8_t digest)
{
	struct decision d = op(DECISION_ATTEST, identity);

	memset(d.digest, digest, sizeof(d.digest));
	d.tier = ATTEST_AFFIRMING;
	d.issued_ms = WALL - 1000;
	d.expires_ms = WALL + 1000;
	return d;
}

static struct decision software(uint8_t what, uint8_t digest)
{
	struct decision d = {.op = what, .has = DECISION_HAS_DIGEST};

	memset(d.digest, digest, sizeof(d.digest));
	return d;
}

static struct device_cert cert(uint8_t id, uint64_t not_before_s, uint64_t not_after_s)
{
	struct device_cert c = {.known = true,
				.serial_bytes = 2,
				.not_before_s = not_before_s,
				.not_after_s = not_after_s};

	memset(c.sha256, id, sizeof(c.sha256));
	memset(c.issuer_sha256, 0x77, sizeof(c.issuer_sha256));
	memset(c.serial, id, 2);
	return c;
}

static unsigned drain(struct registry *r)
{
	unsigned n = 0;

	while (registry_next_dirty(r) != NULL)
		n++;
	return n;
}

static int setup(void **state)
{
	struct registry *r = NULL;

	revision = 0;
	if (registry_new(&r, 8, NULL, NULL) < 0)
		return -1;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	registry_free(*state);
	return 0;
}

static void revocation_of_software_touches_exactly_its_devices(void **state)
{
	struct registry *r = *state;
	struct device *a, *b;

	apply(r, op(DECISION_ENROL, "x://a"));
	apply(r, op(DECISION_ENROL, "x://b"));
	apply(r, software(DECISION_SOFTWARE_CERTIFY, 1));
	apply(r, software(DECISION_SOFTWARE_CERTIFY, 2));
	apply(r, attest("x://a", 1));
	apply(r, attest("x://b", 2));
	drain(r);
	apply(r, software(DECISION_SOFTWARE_REVOKE, 1));
	a = registry_find(r, IDENTITY_URI, "x://a");
	b = registry_find(r, IDENTITY_URI, "x://b");
	assert_true(a->dirty);
	assert_false(b->dirty);
	/* attested 1 s ago: after boot if the box is up for longer, else so long before it */
	assert_int_equal(registry_evidence(r, a, 0, BOOT, WALL).attested_ms, BOOT - 1000);
	assert_int_equal(registry_evidence(r, a, 0, BOOT, WALL).attested_before_boot_ms, 0);
	assert_int_equal(registry_evidence(r, a, 0, 400, WALL).attested_ms, 0);
	assert_int_equal(registry_evidence(r, a, 0, 400, WALL).attested_before_boot_ms, 600);
	assert_true(registry_evidence(r, a, 0, BOOT, WALL).software_revoked);
	assert_false(registry_evidence(r, b, 0, BOOT, WALL).software_revoked);
	/* final: certifying again does not help */
	apply(r, software(DECISION_SOFTWARE_CERTIFY, 1));
	assert_true(registry_evidence(r, a, 0, BOOT, WALL).software_revoked);
}

static void a_device_revocation_hits_all_earlier_certificates(void **state)
{
	struct registry *r = *state;
	struct decision d = op(DECISION_REVOKE_CERT, "x://a");
	struct device_cert old = cert(1, 1000, 9000), fresh = cert(2, 3000, 9000);
	struct device *a;

	apply(r, op(DECISION_ENROL, "x://a"));
	a = registry_find(r, IDENTITY_URI, "x://a");
	registry_present(r, a, &old);
	assert_false(registry_evidence(r, a, 0, BOOT, WALL).cert_revoked);
	d.has |= DECISION_HAS_NOT_BEFORE;
	d.not_before_ms = 2000 * 1000;
	apply(r, d);
	assert_true(registry_evidence(r, a, 0, BOOT, WALL).cert_revoked);
	/* neither restore nor another enrolment brings the old one back */
	apply(r, op(DECISION_RESTORE, "x://a"));
	apply(r, op(DECISION_ENROL, "x://a"));
	assert_true(registry_evidence(r, a, 0, BOOT, WALL).cert_revoked);
	/* an earlier cut-off does not move it back */
	d.not_before_ms = 500 * 1000;
	apply(r, d);
	assert_true(registry_cert_revoked(r, a, &old));
	/* a newer certificate is another matter */
	assert_true(registry_present(r, a, &fresh));
	assert_false(registry_evidence(r, a, 0, BOOT, WALL).cert_revoked);
	/* and the revoked one does not displace it */
	assert_false(registry_present(r, a, &old));
	assert_memory_equal(a->cert.sha256, fresh.sha256, 32);
}

static void one_certificate_is_revoked_by_hash_or_by_issuer_and_serial(void **state)
{
	struct registry *r = *state;
	struct decision d = {.op = DECISION_REVOKE_CERT, .has = DECISION_HAS_CERT};
	struct device_cert one = cert(1, 1, 9), two = cert(2, 1, 9), three = cert(3, 1, 9);
	struct device *a;

	apply(r, op(DECISION_ENROL, "x://a"));
	a = registry_find(r, IDENTITY_URI, "x://a");
	registry_present(r, a, &one);
	drain(r);
	memcpy(d.cert_sha256, one.sha256, 32);
	apply(r, d);
	assert_true(a->dirty); /* although the decision names no device */
	assert_true(registry_cert_revoked(r, a, &one));
	assert_false(registry_cert_revoked(r, a, &two));
	d = (struct decision){.op = DECISION_REVOKE_CERT,
			      .has = DECISION_HAS_ISSUER | DECISION_HAS_SERIAL,
			      .serial_bytes = 2};
	memcpy(d.issuer_sha256, two.issuer_sha256, 32);
	memcpy(d.serial, two.serial, 2);
	apply(r, d);
	assert_true(registry_cert_revoked(r, a, &two));
	assert_false(registry_cert_revoked(r, a, &three));
}

static void a_snapshot_forgets_everything_but_revocations(void **state)
{
	struct registry *r = *state;
	struct decision d = op(DECISION_REVOKE_CERT, "x://a");
	struct device *a;
	uint32_t slot;
	struct device_cert c = cert(1, 1, 9);

	apply(r, op(DECISION_ENROL, "x://a"));
	apply(r, op(DECISION_QUARANTINE, "x://a"));
	apply(r, software(DECISION_SOFTWARE_CERTIFY, 1));
	apply(r, software(DECISION_SOFTWARE_REVOKE, 2));
	apply(r, attest("x://a", 1));
	d.has |= DECISION_HAS_NOT_BEFORE;
	d.not_before_ms = 2000 * 1000;
	apply(r, d);
	a = registry_find(r, IDENTITY_URI, "x://a");
	slot = a->slot;
	registry_reset(r);
	assert_false(a->enrolled || a->quarantined || a->attested);
	assert_false(registry_software(r, (uint8_t[32]){[0 ... 31] = 1})->certified);
	assert_true(registry_software(r, (uint8_t[32]){[0 ... 31] = 2})->revoked);
	assert_true(registry_cert_revoked(r, a, &c));
	apply(r, op(DECISION_ENROL, "x://a"));
	assert_int_equal(registry_find(r, IDENTITY_URI, "x://a")->slot, slot);
}

static void no_slot_left_is_an_error_and_harms_nobody(void **state)
{
	struct registry *r = *state;
	struct decision d;
	struct err err = {""};
	char name[16];

	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "x://%d", i);
		apply(r, op(DECISION_ENROL, name));
	}
	d = op(DECISION_ENROL, "x://surplus");
	assert_int_equal(registry_apply(r, &d, 99, &err), -28);
	assert_null(registry_find(r, IDENTITY_URI, "x://surplus"));
	assert_non_null(registry_find(r, IDENTITY_URI, "x://6"));
	assert_int_equal(registry_devices(r), 7);
}

static void the_kind_is_part_of_the_identity(void **state)
{
	struct registry *r = *state;

	apply(r, op(DECISION_ENROL, "x://a"));
	assert_non_null(registry_find(r, IDENTITY_URI, "x://a"));
	assert_null(registry_find(r, IDENTITY_CN, "x://a"));
	assert_null(registry_find(r, IDENTITY_DNS, "x://a"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(revocation_of_software_touches_exactly_its_devices,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_revocation_hits_all_earlier_certificates,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			one_certificate_is_revoked_by_hash_or_by_issuer_and_serial, setup,
			teardown),
		cmocka_unit_test_setup_teardown(a_snapshot_forgets_everything_but_revocations,
						setup, teardown),
		cmocka_unit_test_setup_teardown(no_slot_left_is_an_error_and_harms_nobody, setup,
						teardown),
		cmocka_unit_test_setup_teardown(the_kind_is_part_of_the_identity, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
