/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "config/base/clock.h"
#include "controlplane/agent/decide.h"

#define NOW 1000000u
#define LATER (NOW + 500000u)

/* "home" requires everything; "easy" requires nothing; "strict" has no fallback; "leased" degrades, "locked" locks. */
static struct seg_segment segs[] = {
	{.name = "home",
	 .attestation = true,
	 .tier = ATTEST_AFFIRMING,
	 .software = true,
	 .crl = true,
	 .attestation_age_s = 600,
	 .fallback = "repair",
	 .lease_s = 60},
	{.name = "easy"},
	{.name = "strict", .attestation = true, .tier = ATTEST_WARNING},
	{.name = "leased", .lease_action = LEASE_RESTRICT, .restricted = "local", .lease_s = 60},
	{.name = "locked", .lease_action = LEASE_QUARANTINE, .lease_s = 60},
	{.name = "bare", .lease_action = LEASE_RESTRICT, .lease_s = 60},
	{.name = "repair"},
	{.name = "local"},
	{.name = "quarantine"},
};
static const struct segments all = {.segments = segs, .n_segments = sizeof(segs) / sizeof(segs[0])};

/* Evidence that meets everything. */
static const struct evidence good = {.enrolled = true,
				     .cert_known = true,
				     .cert_not_before_ms = NOW - 10,
				     .cert_not_after_ms = LATER + 9,
				     .crl_next_update_ms = LATER + 8,
				     .attested = true,
				     .tier = ATTEST_AFFIRMING,
				     .attested_ms = NOW,
				     .attest_expires_ms = LATER + 7,
				     .software_known = true,
				     .software_not_after_ms = LATER + 6,
				     .lease_until_ms = NOW};

#define EV(...)                                                                                    \
	((struct evidence){.enrolled = true,                                                       \
			   .cert_known = true,                                                     \
			   .cert_not_before_ms = NOW - 10,                                         \
			   .cert_not_after_ms = LATER + 9,                                         \
			   .crl_next_update_ms = LATER + 8,                                        \
			   .attested = true,                                                       \
			   .tier = ATTEST_AFFIRMING,                                               \
			   .attested_ms = NOW,                                                     \
			   .attest_expires_ms = LATER + 7,                                         \
			   .software_known = true,                                                 \
			   .software_not_after_ms = LATER + 6,                                     \
			   .lease_until_ms = NOW,                                                  \
			   __VA_ARGS__})

struct row {
	const char *name; /* begins with the number of the step */
	struct evidence ev;
	const char *home;
	uint8_t standing, reason;
	const char *segment;
	uint64_t expires_ms;
};

static void decides(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct seg_segment *home =
			rows[i].home != NULL ? segments_by_name(&all, rows[i].home) : NULL;
		struct judgement j = decide(&rows[i].ev, home, &all, NOW);

		if (j.standing != rows[i].standing || j.reason != rows[i].reason ||
		    strcmp(j.segment, rows[i].segment) != 0 || j.expires_ms != rows[i].expires_ms)
			fail_msg("%s: %s, \"%s\", segment \"%s\", expires %llu", rows[i].name,
				 standing_name(j.standing), decide_reason_text(j.reason), j.segment,
				 (unsigned long long)j.expires_ms);
		if (!standing_passes(j.standing) && (j.segment[0] != '\0' || j.expires_ms != 0))
			fail_msg("%s: denied, and yet in a segment", rows[i].name);
		if (standing_passes(j.standing) && j.next_ms > j.expires_ms)
			fail_msg("%s: nobody looks when it expires", rows[i].name);
	}
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
static void who_it_is_comes_first(void **state)
{
	const struct row rows[] = {
		{"0 forgotten memory", {0}, "home", STANDING_UNKNOWN, DECIDE_NOT_ENROLLED, "", 0},
		{"1 not enrolled", EV(.enrolled = false), "home", STANDING_UNKNOWN,
		 DECIDE_NOT_ENROLLED, "", 0},
		{"2 no certificate", EV(.cert_known = false), "home", STANDING_UNKNOWN,
		 DECIDE_NO_CERTIFICATE, "", 0},
		{"3 revoked", EV(.cert_revoked = true), "home", STANDING_REVOKED,
		 DECIDE_CERT_REVOKED, "", 0},
		{"3 revoked before quarantined", EV(.cert_revoked = true, .quarantined = true),
		 "home", STANDING_REVOKED, DECIDE_CERT_REVOKED, "", 0},
		{"4 pin", EV(.cert_pin_differs = true), "home", STANDING_UNKNOWN,
		 DECIDE_CERT_NOT_PINNED, "", 0},
		{"5 young", EV(.cert_not_before_ms = NOW + 1), "home", STANDING_UNKNOWN,
		 DECIDE_CERT_NOT_YET_VALID, "", 0},
		{"5 just valid", EV(.cert_not_before_ms = NOW), "easy", STANDING_FULL,
		 DECIDE_MEETS_ALL, "easy", LATER + 9},
		{"5 expired this moment", EV(.cert_not_after_ms = NOW), "home", STANDING_UNKNOWN,
		 DECIDE_CERT_EXPIRED, "", 0},
		{"5 last moment", EV(.cert_not_after_ms = NOW + 1), "easy", STANDING_FULL,
		 DECIDE_MEETS_ALL, "easy", NOW + 1},
		{"6 no segment", EV(.enrolled = true), NULL, STANDING_UNKNOWN, DECIDE_NO_SEGMENT,
		 "", 0},
		{"7 quarantined", EV(.quarantined = true), "home", STANDING_QUARANTINE,
		 DECIDE_QUARANTINED, "quarantine", LATER + 9},
	};

	(void)state;
	decides(rows, sizeof(rows) / sizeof(rows[0]));
}

static void then_what_its_segment_requires(void **state)
{
	const struct row rows[] = {
		{"8 no list", EV(.crl_next_update_ms = 0), "home", STANDING_REMEDIATION,
		 DECIDE_CRL_STALE, "repair", LATER + 9},
		{"8 list outdated", EV(.crl_next_update_ms = NOW), "home", STANDING_REMEDIATION,
		 DECIDE_CRL_STALE, "repair", LATER + 9},
		{"8 list not required", EV(.crl_next_update_ms = 0), "easy", STANDING_FULL,
		 DECIDE_MEETS_ALL, "easy", LATER + 9},
		{"8 not attested", EV(.attested = false), "home", STANDING_REMEDIATION,
		 DECIDE_NOT_ATTESTED, "repair", LATER + 9},
		{"8 not attested, no fallback", EV(.attested = false), "strict", STANDING_UNKNOWN,
		 DECIDE_NOT_ATTESTED, "", 0},
		{"8 attestation expired", EV(.attest_expires_ms = NOW), "home",
		 STANDING_REMEDIATION, DECIDE_ATTESTATION_EXPIRED, "repair", LATER + 9},
		{"8 attestation old", EV(.attested_ms = NOW - 600000), "home", STANDING_REMEDIATION,
		 DECIDE_ATTESTATION_OLD, "repair", LATER + 9},
		{"8 attestation nearly old", EV(.attested_ms = NOW - 599999), "home", STANDING_FULL,
		 DECIDE_MEETS_ALL, "home", NOW + 1},
		{"8 tier none", EV(.tier = ATTEST_NONE), "home", STANDING_REMEDIATION,
		 DECIDE_ATTESTATION_TIER, "repair", LATER + 9},
		{"8 tier warning where affirming is required", EV(.tier = ATTEST_WARNING), "home",
		 STANDING_REMEDIATION, DECIDE_ATTESTATION_TIER, "repair", LATER + 9},
		{"8 tier warning where it will do", EV(.tier = ATTEST_WARNING), "strict",
		 STANDING_FULL, DECIDE_MEETS_ALL, "strict", LATER + 7},
		{"8 contraindicated", EV(.tier = ATTEST_CONTRAINDICATED), "strict",
		 STANDING_UNKNOWN, DECIDE_ATTESTATION_TIER, "", 0},
		{"8 tier out of range", EV(.tier = 200), "strict", STANDING_UNKNOWN,
		 DECIDE_ATTESTATION_TIER, "", 0},
		{"8 software revoked", EV(.software_revoked = true), "home", STANDING_REMEDIATION,
		 DECIDE_SOFTWARE_REVOKED, "repair", LATER + 9},
		{"8 software unknown", EV(.software_known = false), "home", STANDING_REMEDIATION,
		 DECIDE_SOFTWARE_UNCERTIFIED, "repair", LATER + 9},
		{"8 software expired", EV(.software_not_after_ms = NOW), "home",
		 STANDING_REMEDIATION, DECIDE_SOFTWARE_EXPIRED, "repair", LATER + 9},
	};

	(void)state;
	decides(rows, sizeof(rows) / sizeof(rows[0]));
}

static void then_lease_and_expiry(void **state)
{
	const struct row rows[] = {
		{"9 lease lost, hold", EV(.lease_until_ms = 0), "easy", STANDING_FULL,
		 DECIDE_MEETS_ALL, "easy", LATER + 9},
		{"9 lease lost, restrict", EV(.lease_until_ms = NOW - 60000), "leased",
		 STANDING_RESTRICTED, DECIDE_LEASE_LOST, "local", LATER + 9},
		{"9 lease lost, quarantine", EV(.lease_until_ms = NOW - 60000), "locked",
		 STANDING_QUARANTINE, DECIDE_LEASE_LOST, "quarantine", LATER + 9},
		{"9 lease lost, nowhere to go", EV(.lease_until_ms = NOW - 60000), "bare",
		 STANDING_UNKNOWN, DECIDE_LEASE_LOST, "", 0},
		{"9 lease about to be lost", EV(.lease_until_ms = NOW - 59999), "leased",
		 STANDING_FULL, DECIDE_MEETS_ALL, "leased", NOW + 1},
		{"10 the weakest input counts", good, "home", STANDING_FULL, DECIDE_MEETS_ALL,
		 "home", LATER + 6},
		{"10 attestation is the weakest", EV(.attest_expires_ms = NOW + 3), "home",
		 STANDING_FULL, DECIDE_MEETS_ALL, "home", NOW + 3},
		{"10 the list is the weakest", EV(.crl_next_update_ms = NOW + 2), "home",
		 STANDING_FULL, DECIDE_MEETS_ALL, "home", NOW + 2},
	};

	(void)state;
	decides(rows, sizeof(rows) / sizeof(rows[0]));
}
#pragma GCC diagnostic pop

/* Without the segment that a step names, the device is denied, never left where it was. */
static void a_missing_segment_denies(void **state)
{
	static const struct segments none = {.segments = segs, .n_segments = 1};
	struct evidence ev = good;

	(void)state;
	ev.quarantined = true;
	assert_int_equal(decide(&ev, &segs[0], &none, NOW).standing, STANDING_UNKNOWN);
	ev.quarantined = false;
	ev.attested = false;
	assert_int_equal(decide(&ev, &segs[0], &none, NOW).standing, STANDING_UNKNOWN);
}

/* Soon after boot, when what was before has no place on the boot clock. */
static void a_reboot_makes_nothing_younger(void **state)
{
#define UP_MS 30000u
	static const struct {
		const char *name, *home;
		uint64_t attested_before_ms, lease_before_ms;
		uint8_t reason;
		uint64_t expires_ms;
	} rows[] = {
		{"attested 10 s before boot, 600 s allowed", "home", 10000, 0, DECIDE_MEETS_ALL,
		 590000},
		{"attested at boot less the limit and what is up", "home", 570000, 0,
		 DECIDE_ATTESTATION_OLD, LATER},
		{"attested a day before", "home", 86400000, 0, DECIDE_ATTESTATION_OLD, LATER},
		{"lease ended 10 s before boot, 60 s kept", "leased", 0, 10000, DECIDE_MEETS_ALL,
		 50000},
		{"lease ended 30 s before boot", "leased", 0, 30000, DECIDE_LEASE_LOST, LATER},
		{"lease ended a day before", "locked", 0, 86400000, DECIDE_LEASE_LOST, LATER},
		{"lease unknown", "leased", 0, CLOCK_NEVER_MS, DECIDE_LEASE_LOST, LATER},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct evidence ev = good;
		struct judgement j;

		ev.cert_not_before_ms = 0;
		ev.cert_not_after_ms = LATER;
		ev.attested_ms = ev.lease_until_ms = 0;
		ev.attested_before_boot_ms = rows[i].attested_before_ms;
		ev.lease_before_boot_ms = rows[i].lease_before_ms;
		j = decide(&ev, segments_by_name(&all, rows[i].home), &all, UP_MS);
		if (j.reason != rows[i].reason || j.expires_ms != rows[i].expires_ms)
			fail_msg("%s: %s, expires %llu", rows[i].name, decide_reason_text(j.reason),
				 (unsigned long long)j.expires_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_it_is_comes_first),
		cmocka_unit_test(then_what_its_segment_requires),
		cmocka_unit_test(then_lease_and_expiry),
		cmocka_unit_test(a_reboot_makes_nothing_younger),
		cmocka_unit_test(a_missing_segment_denies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
