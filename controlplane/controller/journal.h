/* SPDX-License-Identifier: GPL-3.0-or-later */
/* journal: the controller's decision log on disk (SQLite, WAL, synchronous=FULL): DIR/decisions.db. Append-only; an entry
 * that was returned as appended survives a power cut. One thread; calls block for the disk. Text of errors in err. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "controlplane/decision.h"
#include "controlplane/frame.h"

struct journal;

/**
 * Open, take the folder for this process alone, verify the whole chain with the signer's own key, and hand each entry
 * over in order.
 * @param signer  borrowed, must outlive the journal
 * @param[out] out caller owns, journal_close(); untouched on error
 * @return 0, -EBUSY (another controller has it), -EBADMSG (chain broken, other key), -errno, or each()'s error
 */
int journal_open(struct journal **out, const char *dir, const struct cose_signer *signer,
		 int (*each)(void *arg, const struct decision_entry *e), void *arg,
		 struct err *err);
void journal_close(struct journal *j); /* NULL is a no-op */

struct journal_head {
	uint64_t revision; /* 0 = empty */
	uint64_t issued_ms;
	uint8_t hash[32];
};

const struct journal_head *journal_head(const struct journal *j);

/**
 * Sign and append e's operations as the next revision; fills in revision, prev, hash and issued_ms (never before the
 * predecessor's, whatever the clock says).
 * @return 0; -EPROTO or -E2BIG: the entry is wrong; -ENOSPC, -EIO: not written, the log is as before
 */
int journal_append(struct journal *j, struct decision_entry *e, uint64_t now_wall_ms,
		   struct err *err);

/** Signed bytes of a revision, from malloc. @return 0, -ENOENT, -ENOMEM, -EIO */
int journal_read(struct journal *j, uint64_t revision, uint8_t **cose, size_t *bytes);
/** @return 0, -ENOENT, -EIO. Revision 0 has the zero hash. */
int journal_hash(struct journal *j, uint64_t revision, uint8_t hash[32]);

int journal_receipt_put(struct journal *j, const struct receipt *r, struct err *err); /* replaces */
int journal_receipts(struct journal *j, uint64_t revision,
		     void (*each)(void *arg, const struct receipt *r), void *arg);
