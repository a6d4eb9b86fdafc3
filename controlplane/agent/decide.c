/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/decide.h"

#include <string.h>

#include "config/base/clock.h"

#define QUARANTINE_SEGMENT "quarantine"

const char *decide_reason_text(unsigned reason)
{
	static const char *const texts[DECIDE_REASON_COUNT] = {[DECIDE_NONE] = "not judged yet",
#define DECIDE_TEXT(sym, text) [DECIDE_##sym] = text,
							       DECIDE_REASONS(DECIDE_TEXT)
#undef DECIDE_TEXT
	};

	return reason < DECIDE_REASON_COUNT ? texts[reason] : "invalid";
}

static void sooner(uint64_t *at, uint64_t ms)
{
	if (ms < *at)
		*at = ms;
}

/* Denied, until something happens or `next_ms` comes. */
static struct judgement deny(enum standing standing, enum decide_reason reason, uint64_t next_ms)
{
	return (struct judgement){.standing = standing, .reason = reason, .next_ms = next_ms};
}

/* In another segment than its own; denied with STANDING_UNKNOWN if the policy has none for the case. */
static struct judgement degrade(enum standing standing, enum decide_reason reason,
				const char *segment, const struct segments *all,
				uint64_t expires_ms)
{
	struct judgement j = {.standing = standing,
			      .reason = reason,
			      .expires_ms = expires_ms,
			      .next_ms = expires_ms};

	if (segment[0] == '\0' || segments_by_name(all, segment) == NULL)
		return deny(STANDING_UNKNOWN, reason, expires_ms);
	memcpy(j.segment, segment, sizeof(j.segment));
	return j;
}

static struct judgement quarantine(enum decide_reason reason, const struct segments *all,
				   uint64_t expires_ms)
{
	char name[POLICY_NAME_BYTES] = QUARANTINE_SEGMENT;

	return degrade(STANDING_QUARANTINE, reason, name, all, expires_ms);
}

/* So long after a moment, which may lie before the boot clock's zero: a reboot makes nothing younger. */
static uint64_t after(uint64_t at_ms, uint64_t before_boot_ms, uint32_t seconds)
{
	uint64_t span_ms = seconds * 1000ull;

	if (at_ms > 0)
		return at_ms + span_ms;
	return span_ms > before_boot_ms ? span_ms - before_boot_ms : 0;
}

/* Step 8: does the device show what the segment requires? DECIDE_MEETS_ALL, or the first thing that it lacks.
 * Moves *expires to the weakest of what it shows. */
static enum decide_reason requirements(const struct evidence *ev, const struct seg_segment *home,
				       uint64_t now_ms, uint64_t *expires)
{
	uint64_t old_ms;

	if (home->crl) {
		if (ev->crl_next_update_ms <= now_ms)
			return DECIDE_CRL_STALE;
		sooner(expires, ev->crl_next_update_ms);
	}
	if (!home->attestation)
		return DECIDE_MEETS_ALL;
	if (!ev->attested)
		return DECIDE_NOT_ATTESTED;
	if (ev->attest_expires_ms <= now_ms)
		return DECIDE_ATTESTATION_EXPIRED;
	old_ms = after(ev->attested_ms, ev->attested_before_boot_ms, home->attestation_age_s);
	if (home->attestation_age_s != 0 && old_ms <= now_ms)
		return DECIDE_ATTESTATION_OLD;
	if (ev->tier != ATTEST_AFFIRMING &&
	    !(ev->tier == ATTEST_WARNING && home->tier == ATTEST_WARNING))
		return DECIDE_ATTESTATION_TIER;
	sooner(expires, ev->attest_expires_ms);
	if (home->attestation_age_s != 0)
		sooner(expires, old_ms);
	if (!home->software)
		return DECIDE_MEETS_ALL;
	if (ev->software_revoked)
		return DECIDE_SOFTWARE_REVOKED;
	if (!ev->software_known)
		return DECIDE_SOFTWARE_UNCERTIFIED;
	if (ev->software_not_after_ms <= now_ms)
		return DECIDE_SOFTWARE_EXPIRED;
	sooner(expires, ev->software_not_after_ms);
	return DECIDE_MEETS_ALL;
}

struct judgement decide(const struct evidence *ev, const struct seg_segment *home,
			const struct segments *all, uint64_t now_ms)
{
	struct judgement j = {.standing = STANDING_FULL, .reason = DECIDE_MEETS_ALL};
	uint64_t cert_end = ev->cert_not_after_ms, lease_end;
	enum decide_reason lacks;

	/* 1. Only what the controller has enrolled exists. */
	if (!ev->enrolled)
		return deny(STANDING_UNKNOWN, DECIDE_NOT_ENROLLED, CLOCK_NEVER_MS);
	/* 2. It has shown a certificate. */
	if (!ev->cert_known)
		return deny(STANDING_UNKNOWN, DECIDE_NO_CERTIFICATE, CLOCK_NEVER_MS);
	/* 3. Revocation is final, before anything that could soften it. */
	if (ev->cert_revoked)
		return deny(STANDING_REVOKED, DECIDE_CERT_REVOKED, CLOCK_NEVER_MS);
	/* 4. Enrolment may pin one certificate. */
	if (ev->cert_pin_differs)
		return deny(STANDING_UNKNOWN, DECIDE_CERT_NOT_PINNED, CLOCK_NEVER_MS);
	/* 5. RFC 5280 section 4.1.2.5: both ends of the validity period are inclusive. */
	if (now_ms < ev->cert_not_before_ms)
		return deny(STANDING_UNKNOWN, DECIDE_CERT_NOT_YET_VALID, ev->cert_not_before_ms);
	if (now_ms >= cert_end)
		return deny(STANDING_UNKNOWN, DECIDE_CERT_EXPIRED, CLOCK_NEVER_MS);
	/* 6. Exactly one segment is its own. */
	if (home == NULL)
		return deny(STANDING_UNKNOWN, DECIDE_NO_SEGMENT, CLOCK_NEVER_MS);
	/* 7. An operator's order. */
	if (ev->quarantined)
		return quarantine(DECIDE_QUARANTINED, all, cert_end);
	/* 8. What the segment requires; else remediation. */
	j.expires_ms = cert_end;
	lacks = requirements(ev, home, now_ms, &j.expires_ms);
	if (lacks != DECIDE_MEETS_ALL)
		return degrade(STANDING_REMEDIATION, lacks, home->fallback, all, cert_end);
	/* 9. Degraded operation while nobody vouches any more. */
	lease_end = after(ev->lease_until_ms, ev->lease_before_boot_ms, home->lease_s);
	if (home->lease_action != LEASE_HOLD && lease_end <= now_ms) {
		if (home->lease_action == LEASE_QUARANTINE)
			return quarantine(DECIDE_LEASE_LOST, all, j.expires_ms);
		return degrade(STANDING_RESTRICTED, DECIDE_LEASE_LOST,
			       home->restricted[0] != '\0' ? home->restricted : home->fallback, all,
			       j.expires_ms);
	}
	if (home->lease_action != LEASE_HOLD)
		sooner(&j.expires_ms, lease_end);
	/* 10. Its own segment, until the weakest input ends. */
	memcpy(j.segment, home->name, sizeof(j.segment));
	j.next_ms = j.expires_ms;
	return j;
}
