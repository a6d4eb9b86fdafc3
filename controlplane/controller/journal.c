/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/controller/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { Q_APPEND, Q_READ, Q_HASH, Q_RECEIPT_PUT, Q_RECEIPTS, Q_COUNT };

static const char *const sql[Q_COUNT] = {
	[Q_APPEND] = "INSERT INTO entries(revision, hash, cose) VALUES(?,?,?)",
	[Q_READ] = "SELECT cose FROM entries WHERE revision = ?",
	[Q_HASH] = "SELECT hash FROM entries WHERE revision = ?",
	[Q_RECEIPT_PUT] =
		"INSERT OR REPLACE INTO receipts(revision, gateway, receipt) VALUES(?,?,?)",
	[Q_RECEIPTS] = "SELECT receipt FROM receipts WHERE revision = ? ORDER BY gateway",
};

static const char schema[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
			     "CREATE TABLE IF NOT EXISTS entries(revision INTEGER PRIMARY KEY, "
			     "hash BLOB NOT NULL, cose BLOB NOT NULL);"
			     "CREATE TABLE IF NOT EXISTS receipts(revision INTEGER NOT NULL, "
			     "gateway TEXT NOT NULL, receipt BLOB NOT NULL,"
			     " PRIMARY KEY(revision, gateway)) WITHOUT ROWID;";

struct journal {
	const struct cose_signer *signer;
	sqlite3 *db;
	sqlite3_stmt *q[Q_COUNT];
	struct journal_head head;
	int lock; /* flock()ed file */
};

static int db_error(struct journal *j, int rc, struct err *err, const char *what)
{
	int ret = (rc & 0xff) == SQLITE_FULL	? -ENOSPC
		  : (rc & 0xff) == SQLITE_NOMEM ? -ENOMEM
						: -EIO;

	return err_set(err, ret, "decision log: %s: %s", what, sqlite3_errmsg(j->db));
}

static int lock_dir(struct journal *j, const char *dir, struct err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/lock", dir);
	j->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (j->lock < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (flock(j->lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, -EBUSY, "%s: another controller works here", dir);
	return 0;
}

static int db_open(struct journal *j, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	mode_t old = umask(0077);
	int rc;

	snprintf(path, sizeof(path), "%s/decisions.db", dir);
	rc = sqlite3_open_v2(path, &j->db,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			     NULL);
	if (rc == SQLITE_OK)
		sqlite3_busy_timeout(j->db, 1000);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(j->db, schema, NULL, NULL, NULL);
	for (unsigned i = 0; rc == SQLITE_OK && i < Q_COUNT; i++)
		rc = sqlite3_prepare_v3(j->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &j->q[i],
					NULL);
	umask(old);
	return rc == SQLITE_OK ? 0 : db_error(j, rc, err, path);
}

static int verify_row(struct journal *j, sqlite3_stmt *st,
		      int (*each)(void *arg, const struct decision_entry *e), void *arg,
		      struct err *err)
{
	struct decision_entry *e = NULL;
	uint64_t revision = (uint64_t)sqlite3_column_int64(st, 0);
	const void *cose = sqlite3_column_blob(st, 2);
	int ret = decision_entry_open(&e, cose, (size_t)sqlite3_column_bytes(st, 2),
				      cose_signer_public(j->signer), err);

	if (ret < 0)
		return err_wrap(err, ret, "decision log: revision %llu",
				(unsigned long long)revision);
	if (e->revision != j->head.revision + 1 || e->revision != revision ||
	    memcmp(e->prev, j->head.hash, sizeof(e->prev)) != 0 ||
	    sqlite3_column_bytes(st, 1) != 32 ||
	    memcmp(sqlite3_column_blob(st, 1), e->hash, 32) != 0) {
		ret = err_set(err, -EBADMSG,
			      "decision log: revision %llu does not continue the chain",
			      (unsigned long long)revision);
	} else {
		j->head.revision = e->revision;
		j->head.issued_ms = e->issued_ms;
		memcpy(j->head.hash, e->hash, sizeof(j->head.hash));
		ret = each(arg, e);
	}
	decision_entry_free(e);
	return ret;
}

static int verify_all(struct journal *j, int (*each)(void *arg, const struct decision_entry *e),
		      void *arg, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = 0, rc = sqlite3_prepare_v2(
			     j->db, "SELECT revision, hash, cose FROM entries ORDER BY revision",
			     -1, &st, NULL);

	if (rc != SQLITE_OK)
		return db_error(j, rc, err, "read");
	while (ret == 0 && (rc = sqlite3_step(st)) != SQLITE_DONE)
		ret = rc == SQLITE_ROW ? verify_row(j, st, each, arg, err)
				       : db_error(j, rc, err, "read");
	sqlite3_finalize(st);
	return ret;
}

int journal_open(struct journal **out, const char *dir, const struct cose_signer *signer,
		 int (*each)(void *arg, const struct decision_entry *e), void *arg, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	int ret;

	if (j == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	j->lock = -1;
	j->signer = signer;
	ret = lock_dir(j, dir, err);
	if (ret == 0)
		ret = db_open(j, dir, err);
	if (ret == 0)
		ret = verify_all(j, each, arg, err);
	if (ret < 0)
		goto fail;
	*out = j;
	return 0;
fail:
	journal_close(j);
	return ret;
}

void journal_close(struct journal *j)
{
	if (j == NULL)
		return;
	for (unsigned i = 0; i < Q_COUNT; i++)
		sqlite3_finalize(j->q[i]);
	sqlite3_close(j->db);
	if (j->lock >= 0)
		close(j->lock);
	free(j);
}

const struct journal_head *journal_head(const struct journal *j)
{
	return &j->head;
}

int journal_append(struct journal *j, struct decision_entry *e, uint64_t now_wall_ms,
		   struct err *err)
{
	sqlite3_stmt *st = j->q[Q_APPEND];
	uint8_t *cose = NULL;
	size_t bytes;
	int rc, ret;

	e->snapshot = false;
	e->revision = j->head.revision + 1;
	e->issued_ms = now_wall_ms > j->head.issued_ms ? now_wall_ms : j->head.issued_ms;
	memcpy(e->prev, j->head.hash, sizeof(e->prev));
	ret = decision_entry_seal(&cose, &bytes, e, j->signer, err);
	if (ret < 0)
		return ret;
	sqlite3_bind_int64(st, 1, (sqlite3_int64)e->revision);
	sqlite3_bind_blob(st, 2, e->hash, sizeof(e->hash), SQLITE_STATIC);
	sqlite3_bind_blob64(st, 3, cose, bytes, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc != SQLITE_DONE)
		ret = db_error(j, rc, err, "append");
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	free(cose);
	if (ret < 0)
		return ret;
	j->head.revision = e->revision;
	j->head.issued_ms = e->issued_ms;
	memcpy(j->head.hash, e->hash, sizeof(j->head.hash));
	return 0;
}

int journal_read(struct journal *j, uint64_t revision, uint8_t **cose, size_t *bytes)
{
	sqlite3_stmt *st = j->q[Q_READ];
	int rc, ret = 0;

	sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		*bytes = (size_t)sqlite3_column_bytes(st, 0);
		*cose = malloc(*bytes + 1);
		if (*cose == NULL)
			ret = -ENOMEM;
		else
			memcpy(*cose, sqlite3_column_blob(st, 0), *bytes);
	} else {
		ret = rc == SQLITE_DONE ? -ENOENT : -EIO;
	}
	sqlite3_reset(st);
	return ret;
}

int journal_hash(struct journal *j, uint64_t revision, uint8_t hash[32])
{
	sqlite3_stmt *st = j->q[Q_HASH];
	int rc, ret = 0;

	if (revision == 0) {
		memset(hash, 0, 32);
		return 0;
	}
	sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW && sqlite3_column_bytes(st, 0) == 32)
		memcpy(hash, sqlite3_column_blob(st, 0), 32);
	else
		ret = rc == SQLITE_DONE ? -ENOENT : -EIO;
	sqlite3_reset(st);
	return ret;
}

int journal_receipt_put(struct journal *j, const struct receipt *r, struct err *err)
{
	sqlite3_stmt *st = j->q[Q_RECEIPT_PUT];
	uint8_t *data;
	size_t bytes;
	int rc, ret = receipt_encode(&data, &bytes, r);

	if (ret < 0)
		return err_set(err, ret, "receipt: %s", strerror(-ret));
	sqlite3_bind_int64(st, 1, (sqlite3_int64)r->revision);
	sqlite3_bind_text(st, 2, r->gateway, -1, SQLITE_STATIC);
	sqlite3_bind_blob64(st, 3, data, bytes, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc != SQLITE_DONE)
		ret = db_error(j, rc, err, "receipt");
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	free(data);
	return ret;
}

int journal_receipts(struct journal *j, uint64_t revision,
		     void (*each)(void *arg, const struct receipt *r), void *arg)
{
	sqlite3_stmt *st = j->q[Q_RECEIPTS];
	struct receipt r;
	int rc;

	sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (receipt_decode(&r, sqlite3_column_blob(st, 0),
				   (size_t)sqlite3_column_bytes(st, 0), NULL) == 0)
			each(arg, &r);
	}
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : -EIO;
}
