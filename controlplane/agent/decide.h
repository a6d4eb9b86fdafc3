/* SPDX-License-Identifier: GPL-3.0-or-later */
/* decide: from what is known about a device to what it may do.
 * Pure: no I/O, clock, allocation, globals. Live path, tests and `sallyctl why` therefore cannot disagree.
 * All times are boot clock; 0 is never (in the past), CLOCK_NEVER_MS does not come. Forgotten memory denies. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/trust.h"
#include "config/segments.h"

/* Why this standing. X(symbol, sentence); the order is the order of decide()'s steps. */
#define DECIDE_REASONS(X)                                                                          \
	X(NOT_ENROLLED, "the device is not enrolled")                                              \
	X(NO_CERTIFICATE, "no certificate was presented yet")                                      \
	X(CERT_REVOKED, "the certificate is revoked")                                              \
	X(CERT_NOT_PINNED, "enrolment pins another certificate")                                   \
	X(CERT_NOT_YET_VALID, "the certificate is not yet valid")                                  \
	X(CERT_EXPIRED, "the certificate has expired")                                             \
	X(NO_SEGMENT, "no segment has such a member")                                              \
	X(QUARANTINED, "quarantined by an operator")                                               \
	X(CRL_STALE, "the revocation list is missing or past its next update")                     \
	X(NOT_ATTESTED, "no attestation result")                                                   \
	X(ATTESTATION_EXPIRED, "the attestation result has expired")                               \
	X(ATTESTATION_OLD, "the attestation result is older than the segment allows")              \
	X(ATTESTATION_TIER, "the attestation result is not good enough")                           \
	X(SOFTWARE_REVOKED, "the certification of its software is revoked")                        \
	X(SOFTWARE_UNCERTIFIED, "its software is not certified")                                   \
	X(SOFTWARE_EXPIRED, "the certification of its software has expired")                       \
	X(LEASE_LOST, "the controller has been out of reach for too long")                         \
	X(MEETS_ALL, "meets everything that its segment requires")

enum decide_reason {
	DECIDE_NONE, /* never judged */
#define DECIDE_ENUM(sym, text) DECIDE_##sym,
	DECIDE_REASONS(DECIDE_ENUM)
#undef DECIDE_ENUM
		DECIDE_REASON_COUNT
};

const char *decide_reason_text(unsigned reason);

struct evidence {
	bool enrolled;
	bool cert_known; /* presented in a good handshake */
	bool cert_revoked;
	bool cert_pin_differs;
	uint64_t cert_not_before_ms, cert_not_after_ms;
	uint64_t crl_next_update_ms; /* of the CRLs that the handshake used; 0 = none */
	bool quarantined;
	bool attested;
	uint8_t tier; /* enum attest_tier */
	uint64_t attested_ms, attest_expires_ms;
	uint64_t
		attested_before_boot_ms; /* attested_ms is 0: it was so long before the box started */
	bool software_known; /* the attested digest was certified at some time */
	bool software_revoked;
	uint64_t software_not_after_ms;
	uint64_t lease_until_ms; /* the controller was last known to be alive up to here */
	uint64_t
		lease_before_boot_ms; /* lease_until_ms is 0: it ended so long before the box started */
};

struct judgement {
	uint8_t standing; /* enum standing */
	uint8_t reason; /* enum decide_reason */
	char segment[POLICY_NAME_BYTES]; /* in force; "" = none */
	uint64_t expires_ms; /* the weakest input's; 0 if it passes nothing */
	uint64_t
		next_ms; /* when to judge again even if nothing happens; CLOCK_NEVER_MS = no need */
};

/**
 * @param home  the segment whose members match the device; NULL if none
 * @param all   the policy, for fallback, restricted and quarantine segments
 */
struct judgement decide(const struct evidence *ev, const struct seg_segment *home,
			const struct segments *all, uint64_t now_ms);
