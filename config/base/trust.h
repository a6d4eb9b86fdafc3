/* SPDX-License-Identifier: GPL-3.0-or-later */
/* trust: the trust table, a shared-memory file that says what each device may do now.
 * Written by sallyport-agent alone; mapped read-only by the dataplane and by every TLS worker.
 *
 * Layout: struct trust_header in the first page, then one 64-byte record per device slot, then the journal, a ring
 * of changed slots. Slot 0 is never a device: ends that are networks carry it, and its record stays valid for ever.
 *
 * A reader that has admitted a flow remembers the record's generation. Each packet asks trust_current(): generation
 * unchanged and not expired. The writer changes the generation whenever what the device may do changes (segment,
 * standing, revocation), and only moves expires_ms when it does not. The reader checks the expiry itself, so a dead
 * agent cannot keep a device alive. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"

#define TRUST_MAGIC "SPTRUST"
#define TRUST_VERSION 1
#define TRUST_HEADER_BYTES 4096
#define TRUST_SLOT_NONE 0
#define TRUST_JOURNAL_ENTRIES 65536 /* power of two */

/* What a device may do now; AR4SI tiers, graduated. 0 is the value of forgotten memory, and denies. */
enum standing {
	STANDING_UNKNOWN, /* never judged, or no longer vouched for: denied */
	STANDING_FULL, /* in its own segment */
	STANDING_RESTRICTED, /* in its segment's `restricted` segment: degraded, not cut off */
	STANDING_REMEDIATION, /* in its segment's `fallback` segment, to be repaired */
	STANDING_QUARANTINE, /* in the segment named `quarantine`, by an operator's order or lost lease */
	STANDING_REVOKED, /* certificate revoked: denied */
	STANDING_COUNT
};

const char *standing_name(enum standing s); /* "unknown", "full", ...; "invalid" out of range */

/** Does this standing let packets pass at all (in the record's segment)? */
static inline bool standing_passes(uint8_t s)
{
	return s >= STANDING_FULL && s <= STANDING_QUARANTINE;
}

/* One cache line. Agent writes, everyone else reads. */
struct trust_record {
	_Atomic uint32_t
		seq; /* sequence lock over the fields below `seq`; odd while the agent writes */
	_Atomic uint32_t
		generation; /* never 0 once written; changes when flows must be re-admitted or end */
	_Atomic uint64_t
		expires_ms; /* boot clock; at this moment the record passes nothing; 0 = passes nothing */
	uint64_t revision; /* decision that this state follows from; 0 = none */
	uint64_t changed_us; /* boot clock, when generation last changed */
	uint32_t slot; /* own index, a check against a torn file */
	uint16_t segment; /* endpoint id in force (policy.h); 0 = none */
	uint8_t standing; /* enum standing */
	uint8_t reason; /* enum decide_reason of the agent, for display */
	uint8_t cert_sha256_head[16]; /* first half of the certificate's SHA-256 */
	uint64_t identity_hash; /* of the device's identity: a slot that changes hands is seen */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct trust_record) == 64, "a trust record is one cache line");

/* First page. Agent writes, everyone else reads. */
struct trust_header {
	char magic[8]; /* TRUST_MAGIC */
	uint32_t version; /* TRUST_VERSION */
	uint32_t record_bytes; /* 64 */
	uint32_t slots; /* records, slot 0 included */
	uint32_t journal_entries; /* TRUST_JOURNAL_ENTRIES */
	_Atomic uint64_t policy_epoch; /* of the policy in force in both planes; 0 = none */
	_Atomic uint64_t
		journal_head; /* entries ever written; the last stands at (head - 1) % entries */
	_Atomic uint64_t
		agent_alive_ms; /* boot clock, refreshed by the agent about once a second */
	uint64_t
		instance; /* random; another value means another table: remap and forget all generations */
};

_Static_assert(sizeof(struct trust_header) <= TRUST_HEADER_BYTES, "the header is one page");

/* A mapped table. Hot: readers index rec[] themselves. */
struct trust_table {
	struct trust_header *hdr;
	struct trust_record *rec;
	_Atomic uint32_t *journal; /* changed slots */
	uint32_t slots;
	size_t map_bytes;
};

/** A consistent copy of the fields that admission and display need. */
struct trust_view {
	uint64_t expires_ms;
	uint64_t revision;
	uint64_t changed_us;
	uint32_t generation;
	uint16_t segment;
	uint8_t standing;
	uint8_t reason;
	uint8_t cert_sha256_head[16];
};

/**
 * Map an existing table read-only and check its header and size.
 * @param[out] out caller owns, trust_unmap(); untouched on error
 * @return 0, -ENOENT (agent not yet up), -EPROTO (not a table of this version), or -errno
 */
int trust_map(struct trust_table *out, const char *path, struct err *err);
void trust_unmap(struct trust_table *t); /* NULL and an empty one are no-ops */

size_t trust_map_bytes(uint32_t slots); /* size of the file for so many slots */
void trust_layout(struct trust_table *t, void *base,
		  uint32_t slots); /* set the pointers into a mapping */

/**
 * Is what was admitted with `generation` still good? The per-packet check: one cache line, no lock.
 * The expiry is loaded before the generation: the writer stores a new generation before it extends an expiry,
 * so whoever sees the longer expiry sees the new generation too.
 */
static inline bool trust_current(const struct trust_record *r, uint32_t generation, uint64_t now_ms)
{
	uint64_t expires = atomic_load_explicit(&r->expires_ms, memory_order_acquire);

	return now_ms < expires &&
	       atomic_load_explicit(&r->generation, memory_order_acquire) == generation;
}

/** A consistent copy under the sequence lock. @return false if slot is out of range or the writer died inside:
 *  treat as denied */
bool trust_read(const struct trust_table *t, uint32_t slot, struct trust_view *out);
