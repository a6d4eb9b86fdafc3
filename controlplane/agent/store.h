/* SPDX-License-Identifier: GPL-3.0-or-later */
/* store: what the agent must still know after a restart, in SQLite (WAL). The decision log, receipts, policy ids and
 * alarms are durable when a call returns 0 (synchronous=FULL). Bindings live in a second file without that cost: they
 * are of use only within one boot. What comes by the hundred can be written together: store_gather(). One thread; calls
 * block for the disk.
 *
 * Errors: -ENOSPC (disk full), -EIO, -EUCLEAN (file is not or no longer a database), -ENOMEM, -EBUSY; text in err where
 * there is one. A call that failed changed nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "config/base/err.h"
#include "config/base/msg.h"
#include "config/base/policy.h"

#define STORE_ALARMS_MAX 1000 /* older ones go */
#define STORE_ALARM_KIND_BYTES 32
#define STORE_ALARM_TEXT_BYTES 512
#define STORE_BOOT_ID_BYTES 40

struct store;

/**
 * Open DIR/store.db and DIR/bindings.db, making the folder (0700) and files as needed. A bindings file that is damaged
 * or of another layout is begun anew; the store never is.
 * @param[out] out caller owns, store_close(); untouched on error
 */
int store_open(struct store **out, const char *dir, struct err *err);
void store_close(struct store *s); /* NULL is a no-op */

/* ---- decision log ---- */

struct store_entry {
	uint64_t seq; /* order of arrival */
	uint64_t revision;
	uint64_t stored_ms; /* wall clock */
	bool snapshot;
	uint8_t hash[32]; /* as decision_entry.hash */
	const uint8_t *cose; /* good during the callback */
	size_t cose_bytes;
	const uint8_t *receipt; /* receipt_decode(); NULL = none yet */
	size_t receipt_bytes;
};

/** Append one entry or snapshot. @return 0, -EEXIST (that revision is there), or an error above */
int store_entry_add(struct store *s, const struct store_entry *e, struct err *err);
/** In order of arrival. each() returns 0, or anything else to stop: that is then returned. */
int store_entries(struct store *s, int (*each)(void *arg, const struct store_entry *e), void *arg,
		  struct err *err);
/** Revisions > after, ascending, at most limit. */
int store_entries_after(struct store *s, uint64_t after, uint32_t limit,
			int (*each)(void *arg, const struct store_entry *e), void *arg,
			struct err *err);
/** Hash and receipt of a revision. receipt is from malloc (NULL: none); pass NULL if it is not wanted.
 * @return 0, -ENOENT, or an error above */
int store_entry_find(struct store *s, uint64_t revision, uint8_t hash[32], uint8_t **receipt,
		     size_t *receipt_bytes);
/** Set the receipt of a revision. @return 0, -ENOENT, or an error above */
int store_receipt_put(struct store *s, uint64_t revision, const void *receipt, size_t bytes,
		      struct err *err);

/* ---- what is written together ---- */

/** From now on store_meta_put_later(), store_binding_put() and _del() wait for store_flush(), or for a call that is durable at
 * its return as ever and takes along what waits. Reading finds it at once. @return 0, or an error above: each call is by itself */
int store_gather(struct store *s, struct err *err);
/** @return 0: what waited is durable (bindings: written), or nothing did; or an error above: none of it was, or not all */
int store_flush(struct store *s, struct err *err);

/* ---- small things by name ---- */

int store_meta_put(struct store *s, const char *key, const char *value, struct err *err);
/** The same, durable after store_flush() only, if store_gather() was called. */
int store_meta_put_later(struct store *s, const char *key, const char *value, struct err *err);
/** @return 0, -ENOENT, -ERANGE (value does not fit), or an error above */
int store_meta_get(struct store *s, const char *key, char *value, size_t value_bytes);

/* ---- bindings ---- */

struct store_binding {
	struct ip_addr ip; /* the key */
	struct mac_addr mac;
	uint16_t vlan;
	uint8_t identity_kind; /* enum identity_kind */
	char port[16]; /* gw_port.name */
	char identity[MSG_IDENTITY_BYTES];
	uint64_t lease_ms; /* boot clock; CLOCK_NEVER_MS while a session is open */
	char boot_id[STORE_BOOT_ID_BYTES]; /* of the boot that lease_ms counts from */
};

int store_binding_put(struct store *s, const struct store_binding *b,
		      struct err *err); /* replaces the same IP */
int store_binding_del(struct store *s, const struct ip_addr *ip, struct err *err); /* absent is 0 */
int store_bindings(struct store *s, int (*each)(void *arg, const struct store_binding *b),
		   void *arg, struct err *err);
int store_bindings_clear(struct store *s, struct err *err);

/** This boot's id (/proc/sys/kernel/random/boot_id) into out. @return 0 or -errno */
int store_boot_id(char out[STORE_BOOT_ID_BYTES]);

/* ---- ids that names keep over policy changes ---- */

struct store_policy_id {
	char name[POLICY_NAME_BYTES];
	uint16_t id;
};

/** Replace the whole map in one transaction. */
int store_policy_ids_set(struct store *s, const struct store_policy_id *ids, uint32_t n,
			 struct err *err);
int store_policy_ids(struct store *s, int (*each)(void *arg, const struct store_policy_id *id),
		     void *arg, struct err *err);

/* ---- alarms ---- */

struct store_alarm {
	uint64_t at_ms; /* wall clock */
	char kind[STORE_ALARM_KIND_BYTES];
	char text[STORE_ALARM_TEXT_BYTES];
};

/** Texts are cut to their room. */
int store_alarm_add(struct store *s, uint64_t at_ms, const char *kind, const char *text,
		    struct err *err);
/** The newest first, at most limit. */
int store_alarms(struct store *s, uint32_t limit,
		 int (*each)(void *arg, const struct store_alarm *a), void *arg, struct err *err);
