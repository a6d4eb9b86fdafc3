/* SPDX-License-Identifier: GPL-3.0-or-later */
/* decision: entries, snapshots and heartbeats of the controller's log, as structs and as signed bytes.
 *
 * An entry is COSE_Sign1 over {revision, hash of the previous entry, issued, expires, operations}. The chain of hashes
 * makes a hole, a swap or a rewrite visible; see cose.h for the envelope. Decoding is strict: unknown operation or key,
 * missing or surplus field, other than the shortest CBOR form, trailing bytes, text with control bytes, value out of
 * range are all -EPROTO. Pure: no I/O, no clock. Times are wall clock in ms since 1970 UTC.
 *
 * What the operations mean, in log order:
 *   enrol            the device may exist; replaces its pin. Undoes no quarantine and no revocation.
 *   unenrol          forgets enrolment and attestation of the device; a quarantine stays until restore.
 *   revoke-cert      final. Names one certificate (its SHA-256, or issuer and serial), else a device: then all its
 *                    certificates whose notBefore is earlier than not_before_ms.
 *   quarantine       until restore.
 *   restore          undoes quarantine, and nothing else.
 *   software-certify a digest is good until not_after_ms (0: no end). Does not undo software-revoke.
 *   software-revoke  final, for a digest.
 *   attest           replaces the device's attestation result.
 *   policy           replaces the policy text (segments.cfg). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "controlplane/cose.h"

#define DECISION_REASON_BYTES 128
#define DECISION_NAME_BYTES 64
#define DECISION_FILE_BYTES 128
#define DECISION_POLICY_BYTES (512u * 1024) /* longest policy text */
#define DECISION_OPS_MAX 64 /* of an entry */
#define DECISION_SNAPSHOT_OPS_MAX 400000
#define DECISION_ENTRY_BYTES (1u << 20) /* longest entry as COSE */
#define DECISION_SNAPSHOT_BYTES (32u << 20) /* longest snapshot as COSE */
#define DECISION_TIME_MAX_MS 253402300799000ull /* end of the year 9999 */

enum decision_op {
	DECISION_ENROL = 1,
	DECISION_UNENROL,
	DECISION_REVOKE_CERT,
	DECISION_QUARANTINE,
	DECISION_RESTORE,
	DECISION_SOFTWARE_CERTIFY,
	DECISION_SOFTWARE_REVOKE,
	DECISION_ATTEST,
	DECISION_POLICY,
	DECISION_OP_COUNT
};

/* Which fields are set: bits of decision.has. Values are part of the encoding (CBOR map key = bit number). */
#define DECISION_HAS_KIND (1u << 1)
#define DECISION_HAS_IDENTITY (1u << 2)
#define DECISION_HAS_REASON (1u << 3)
#define DECISION_HAS_CERT (1u << 4)
#define DECISION_HAS_ISSUER (1u << 5)
#define DECISION_HAS_SERIAL (1u << 6)
#define DECISION_HAS_NOT_BEFORE (1u << 7)
#define DECISION_HAS_DIGEST (1u << 8)
#define DECISION_HAS_NAME (1u << 9)
#define DECISION_HAS_VERSION (1u << 10)
#define DECISION_HAS_NOT_AFTER (1u << 11)
#define DECISION_HAS_TIER (1u << 12)
#define DECISION_HAS_ISSUED (1u << 13)
#define DECISION_HAS_EXPIRES (1u << 14)
#define DECISION_HAS_FILE (1u << 15)
#define DECISION_HAS_TEXT (1u << 16)
#define DECISION_HAS_SHA256 (1u << 17)
#define DECISION_HAS_DEVICE (DECISION_HAS_KIND | DECISION_HAS_IDENTITY)

/* One operation. Fields without their bit in `has` are zero. */
struct decision {
	uint32_t has; /* DECISION_HAS_* */
	uint8_t op; /* enum decision_op */
	uint8_t identity_kind; /* enum identity_kind */
	uint8_t serial_bytes;
	uint8_t tier; /* enum attest_tier, never ATTEST_NONE */
	uint8_t serial[20];
	uint8_t cert_sha256[32]; /* enrol: the pin; revoke-cert: that certificate */
	uint8_t issuer_sha256[32]; /* of the issuer's DER name */
	uint8_t digest[32]; /* SHA-256 of the software */
	uint8_t policy_sha256[32]; /* of text */
	uint64_t not_before_ms; /* revoke-cert by device: certificates issued earlier are revoked */
	uint64_t not_after_ms; /* software-certify; unset: no end */
	uint64_t issued_ms, expires_ms; /* attest */
	uint32_t text_bytes;
	char *text; /* policy; owned, NUL-terminated, text_bytes without the NUL */
	char identity[MSG_IDENTITY_BYTES];
	char reason[DECISION_REASON_BYTES];
	char name[DECISION_NAME_BYTES], version[DECISION_NAME_BYTES]; /* of the software */
	char file[DECISION_FILE_BYTES]; /* of the policy, for messages */
};

/* An entry, or (snapshot = true) what rebuilds the state at a revision. */
struct decision_entry {
	uint64_t revision; /* from 1, without holes */
	uint64_t issued_ms;
	uint64_t
		expires_ms; /* not to be applied for the first time from then on; 0 = never expires */
	uint8_t prev
		[32]; /* SHA-256 of the previous entry's COSE bytes; zeros for revision 1 and for a snapshot */
	uint8_t hash
		[32]; /* of this entry's COSE bytes; of a snapshot: hash of the entry `revision` */
	bool snapshot; /* forget all but revocations, then apply ops */
	uint32_t n_ops;
	struct decision *ops; /* owned */
};

struct decision_heartbeat {
	uint64_t revision; /* head of the log; 0 = empty */
	uint8_t hash[32]; /* of the head entry; zeros when empty */
	uint64_t issued_ms;
	uint64_t lease_ms; /* how long the gateway may take the controller for alive */
};

/** Are the fields complete and in range for the operation? @return 0 or -EPROTO; text in err */
int decision_check(const struct decision *d, struct err *err);

/** Deep copy. @return 0 or -ENOMEM; out is all zero on error */
int decision_copy(struct decision *out, const struct decision *d);
void decision_clear(struct decision *d); /* frees the text, zeroes the rest; NULL is a no-op */
void decision_entry_free(
	struct decision_entry *e); /* e and all below it, from malloc; NULL is a no-op */

bool decision_is_revocation(const struct decision *d); /* final: revoke-cert, software-revoke */

/**
 * Encode and sign an entry or snapshot; sets e->hash of an entry.
 * @param[out] out from malloc, caller frees; untouched on error
 * @return 0, -EPROTO (a field is wrong, text in err), -E2BIG, -ENOMEM, -EIO
 */
int decision_entry_seal(uint8_t **out, size_t *out_bytes, struct decision_entry *e,
			const struct cose_signer *s, struct err *err);

/**
 * Verify and decode. Says nothing about order, time or whether the entry was seen before.
 * @param[out] out caller owns, decision_entry_free(); untouched on error
 * @return 0, -EBADMSG (signature, other key), -EPROTO (malformed), -ENOMEM; text in err
 */
int decision_entry_open(struct decision_entry **out, const void *msg, size_t bytes,
			const struct cose_verifier *v, struct err *err);
int decision_snapshot_open(struct decision_entry **out, const void *msg, size_t bytes,
			   const struct cose_verifier *v, struct err *err);

int decision_heartbeat_seal(uint8_t **out, size_t *out_bytes, const struct decision_heartbeat *h,
			    const struct cose_signer *s);
int decision_heartbeat_open(struct decision_heartbeat *out, const void *msg, size_t bytes,
			    const struct cose_verifier *v, struct err *err);

/** The payload alone, for fuzzing and tests: what *_open does after the signature was found good. */
int decision_payload_decode(struct decision_entry **out, const void *payload, size_t bytes,
			    bool snapshot, struct err *err);

/* ---- text ---- */

#define DECISION_SUMMARY_BYTES 640

const char *decision_op_name(unsigned op); /* "enrol", "revoke-cert", ...; "invalid" out of range */
const char *identity_kind_name(unsigned kind); /* "uri", "dns", "cn"; "invalid" out of range */
bool identity_kind_parse(const char *word, uint8_t *out);

/** "revoke-cert spiffe://plant-7/camera/1 (issued before 2026-01-02T03:04:05Z): stolen" into out.
 * @return out, always terminated */
const char *decision_summary(char out[DECISION_SUMMARY_BYTES], const struct decision *d);
/** Of the whole entry: the first operation, and how many more. */
const char *decision_entry_summary(char out[DECISION_SUMMARY_BYTES],
				   const struct decision_entry *e);

#define HEX_SHA256_BYTES 65
const char *hex_text(char *out, const uint8_t *data,
		     size_t bytes); /* lower case; out holds 2 * bytes + 1. @return out */
/** Exactly `bytes` bytes of hex digits, nothing else. @return 0 or -EINVAL */
int hex_parse(uint8_t *out, size_t bytes, const char *text);
