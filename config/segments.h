/* SPDX-License-Identifier: GPL-3.0-or-later */
/* segments: segments.cfg as a struct: segments and who belongs, networks, rules. policy_compile() makes the form
 * that both planes use; the agent keeps this struct for decide(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config/base/msg.h"
#include "config/base/policy.h"
#include "config/errors.h"
#include "config/rate.h"

#define SEG_PATTERN_BYTES 256

enum attest_tier { /* AR4SI trustworthiness tiers, RFC 9711 and draft-ietf-rats-ar4si; 0 = none known */
		   ATTEST_NONE = 0,
		   ATTEST_AFFIRMING,
		   ATTEST_WARNING,
		   ATTEST_CONTRAINDICATED,
};

const char *attest_tier_name(enum attest_tier t);
bool attest_tier_parse(const char *word, enum attest_tier *out);

enum lease_action { LEASE_HOLD, LEASE_RESTRICT, LEASE_QUARANTINE };

struct seg_member {
	uint8_t kind; /* enum identity_kind */
	char pattern[SEG_PATTERN_BYTES]; /* '*' does not cross '/' */
};

struct seg_segment {
	char name[POLICY_NAME_BYTES];
	uint32_t line;
	struct seg_member *members;
	uint32_t n_members;
	/* requires */
	bool attestation; /* an attestation result at least as good as `tier` */
	enum attest_tier tier; /* AFFIRMING, or WARNING = affirming or warning */
	uint32_t attestation_age_s; /* result not older than this; 0 = only its own expiry counts */
	bool software; /* the attested digest must be certified */
	bool crl; /* certificate status must be fresh (CRL nextUpdate not passed) */
	char fallback[POLICY_NAME_BYTES]; /* segment while a requirement is not met; "" = refused */
	char restricted[POLICY_NAME_BYTES]; /* segment while restricted; "" = the fallback's rule */
	/* lease: controller out of reach */
	enum lease_action lease_action;
	uint32_t lease_s; /* for so long nothing changes */
	/* limits of each member; 0: none here (new_flows, flows: gateway.cfg's) */
	struct rate rate; /* of what it sends */
	uint32_t burst_ms;
	uint32_t new_flows_per_s, new_flows_burst; /* burst 0: two seconds' worth */
	uint32_t flows; /* open at a time */
};

struct seg_network {
	char name[POLICY_NAME_BYTES];
	uint32_t line;
	struct ip_prefix *prefixes;
	uint32_t n_prefixes;
};

struct seg_service {
	uint8_t proto; /* IP protocol number */
	uint16_t lo, hi; /* ports, or ICMP types */
};

struct seg_rule {
	char name[POLICY_NAME_BYTES];
	uint32_t line;
	char from[POLICY_NAME_BYTES], to[POLICY_NAME_BYTES]; /* endpoint names, or "any" */
	struct seg_service *services;
	uint32_t n_services;
	bool log;
	uint8_t action; /* enum policy_action */
	struct rate rate; /* of all its flows together, both directions */
	uint32_t burst_ms;
};

struct segments {
	char file[128];
	uint8_t sha256[32]; /* set by the agent, of the text */
	struct seg_segment *segments;
	struct seg_network *networks;
	struct seg_rule *rules;
	uint32_t n_segments, n_networks, n_rules;
};

/**
 * Parse and check a policy text. `file` is the name for messages. Reports every error that it finds.
 * @param[out] out  caller owns, segments_free(); untouched on error
 * @return 0, -EINVAL with the errors in errs, or -ENOMEM
 */
int segments_parse(struct segments **out, const char *text, const char *file,
		   struct config_errors *errs);
int segments_load(struct segments **out, const char *path, struct config_errors *errs);
void segments_free(struct segments *s); /* NULL is a no-op */

/** The reference of segments.cfg: every key with type, range, unit, default and meaning. */
void segments_reference(FILE *to);

/** The segment whose members match this identity first, in the text's order; NULL if none does. */
const struct seg_segment *segments_match(const struct segments *s, uint8_t identity_kind,
					 const char *identity);
const struct seg_segment *segments_by_name(const struct segments *s, const char *name);

enum segments_change {
	SEGMENTS_SAME, /* the same members, requirements, fallbacks and leases, at the same places */
	SEGMENTS_TERMS, /* every device has its segment as before, at the same place; what that requires differs */
	SEGMENTS_MEMBERS, /* anything else */
};

/** What the step from one policy to another means for devices. Networks, rules and limits do not count. */
enum segments_change segments_compare(const struct segments *was, const struct segments *is);

/** A segment's limits, as the form carries them; *l is zeroed. */
void segment_limits(struct policy_limits *l, const struct seg_segment *g);

/**
 * Compile to the form that both planes use.
 * @param prev  the form in force, whose names keep their ids; NULL if none
 * @param[out] out  one block from malloc, caller frees; untouched on error
 * @return 0, -ENOMEM, -E2BIG (ids, entries or ranges past what a plane can hold; says which in err)
 */
int policy_compile(struct policy_form **out, const struct segments *s, uint64_t epoch,
		   const struct policy_form *prev, struct err *err);

/**
 * Everything that can be known to be wrong with a policy text: parse it, and compile it, since what no plane can hold
 * is an error of the text too. Whoever is about to accept a text asks this.
 * @param[out] out  caller owns, segments_free(); NULL: not wanted; untouched on error
 * @return 0, -EINVAL with the errors in errs, or -ENOMEM
 */
int segments_check(struct segments **out, const char *text, const char *file,
		   struct config_errors *errs);
