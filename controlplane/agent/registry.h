/* SPDX-License-Identifier: GPL-3.0-or-later */
/* registry: what is known about devices, certificates and software. Fed by decisions (in log order) and by handshakes;
 * asked for evidence. No I/O, no clock. Agent's main thread only. Times here are wall clock, as decisions and
 * certificates have them; evidence is on the boot clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/base/msg.h"
#include "controlplane/agent/decide.h"
#include "controlplane/decision.h"

struct device_cert {
	bool known;
	uint8_t sha256[32];
	uint8_t issuer_sha256[32];
	uint8_t serial[20];
	uint8_t serial_bytes;
	uint64_t not_before_s, not_after_s;
	uint64_t crl_next_update_s; /* 0 = no CRL was used */
};

struct session;

#define DEVICE_HOME_UNKNOWN 0 /* nobody has looked since the policy's members changed */
#define DEVICE_HOME_NONE UINT32_MAX
/* else: 1 + index of struct segments' segments */

struct device {
	uint32_t slot; /* of the trust table, never 0; kept as long as the registry lives */
	uint8_t kind; /* enum identity_kind */
	char identity[MSG_IDENTITY_BYTES];
	uint64_t identity_hash;
	bool enrolled, pinned, quarantined, attested;
	uint8_t pin[32];
	char quarantine_reason[DECISION_REASON_BYTES];
	uint64_t
		revoked_before_ms; /* certificates with an earlier notBefore are revoked; 0 = none */
	uint8_t digest[32]; /* attested software */
	uint8_t tier; /* enum attest_tier */
	uint64_t attested_ms, attest_expires_ms;
	struct device_cert cert; /* the one that the device's standing rests on */
	uint64_t revision; /* last decision that touched it */
	/* kept by enforcement */
	struct judgement judged;
	uint32_t
		home; /* its own segment's place in the policy in force, or DEVICE_HOME_*: enforce_home() */
	uint32_t sessions; /* open now */
	LIST_HEAD(device_sessions, session) held; /* these */
	bool dirty; /* in the registry's list of devices to judge */
	bool review; /* a decision was about it: its sessions may have lost their ground though its standing stays */
	bool bump; /* end its sessions and re-admit its flows even if the standing stays */
};

struct software {
	uint8_t digest[32];
	bool certified, revoked;
	uint64_t not_after_ms; /* CLOCK_NEVER_MS = no end */
	char name[DECISION_NAME_BYTES], version[DECISION_NAME_BYTES];
};

struct registry;

/**
 * @param slots  of the trust table; one device each, slot 0 left out
 * @param hint   slot that a device with this identity_hash had before, or 0; so that a restart keeps slots
 * @param[out] out  caller owns, registry_free(); untouched on error
 * @return 0 or -ENOMEM
 */
int registry_new(struct registry **out, uint32_t slots,
		 uint32_t (*hint)(void *arg, uint64_t identity_hash), void *arg);
void registry_free(struct registry *r); /* NULL is a no-op */

/**
 * Apply one operation; devices that it concerns become dirty.
 * @return 0, -ENOSPC (no slot left), -ENOMEM; -EINVAL for an operation that is not the registry's (policy)
 */
int registry_apply(struct registry *r, const struct decision *d, uint64_t revision,
		   struct err *err);
/** Before the operations of a snapshot: forget all but revocations; the snapshot says the rest. */
void registry_reset(struct registry *r);

/** A device by identity. @return NULL if no decision ever named it */
struct device *registry_find(struct registry *r, uint8_t kind, const char *identity);
struct device *registry_by_slot(struct registry *r,
				uint32_t slot); /* NULL if the slot is free or out of range */
/** Devices 0..n-1 in slot order of first use; the pointers stay good. */
uint32_t registry_devices(const struct registry *r);
struct device *registry_device(const struct registry *r, uint32_t i);
const struct software *registry_software(const struct registry *r, const uint8_t digest[32]);

/** Is this certificate of this device revoked, by itself or by the device's cut-off date? */
bool registry_cert_revoked(const struct registry *r, const struct device *d,
			   const struct device_cert *c);

/**
 * A certificate was presented in a good handshake. It becomes the one the standing rests on unless the present one is
 * good and ends later. Makes the device dirty if anything changed.
 * @return true if d->cert changed
 */
bool registry_present(struct registry *r, struct device *d, const struct device_cert *c);

/** Never rest on this certificate again until it is presented anew: a revocation list names it. A device whose standing
 * rests on it loses that standing; one that has a better one by now only has to be admitted again. */
void registry_forget(struct registry *r, struct device *d, const uint8_t cert_sha256[32]);

void registry_touch(struct registry *r, struct device *d); /* make dirty */
void registry_touch_all(struct registry *r);
struct device *
registry_next_dirty(struct registry *r); /* takes it off the list; NULL = none left */
bool registry_is_dirty(const struct registry *r); /* is anything on that list? */

/** @param lease_until_ms boot clock */
struct evidence registry_evidence(const struct registry *r, const struct device *d,
				  uint64_t lease_until_ms, uint64_t now_boot_ms,
				  uint64_t now_wall_ms);
