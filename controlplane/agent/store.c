/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/store.h"

#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/agent/store_internal.h"

#define LAYOUT 1 /* PRAGMA user_version of both files */

/* Receipts have a table of their own, for SQLite writes a row as a whole: an entry's with a policy in it is long. Stores
 * that are older than this table have them in the entries. */
#define RECEIPT_OR_OLD                                                                             \
	"coalesce(r.receipt, e.receipt) FROM entries e LEFT JOIN receipts r USING(revision)"
#define ENTRY_COLUMNS "seq, revision, snapshot, hash, cose, stored_ms, " RECEIPT_OR_OLD

static const char *const sql[STMT_COUNT] = {
	[ENTRY_ADD] =
		"INSERT INTO entries(revision, snapshot, hash, cose, stored_ms) VALUES(?,?,?,?,?)",
	[ENTRY_ALL] = "SELECT " ENTRY_COLUMNS " ORDER BY seq",
	[ENTRY_AFTER] = "SELECT " ENTRY_COLUMNS " WHERE revision > ? ORDER BY revision LIMIT ?",
	[ENTRY_FIND] = "SELECT hash, " RECEIPT_OR_OLD " WHERE revision = ? ORDER BY snapshot "
		       "LIMIT 1",
	[RECEIPT_PUT] = "INSERT OR REPLACE INTO receipts(revision, receipt) "
			"SELECT revision, ?2 FROM entries WHERE revision = ?1 LIMIT 1",
	[META_PUT] = "INSERT OR REPLACE INTO meta(k, v) VALUES(?,?)",
	[META_GET] = "SELECT v FROM meta WHERE k = ?",
	[BIND_PUT] = "INSERT OR REPLACE INTO live.bindings(ip, mac, port, vlan, kind, identity, "
		     "lease_ms, boot_id) "
		     "VALUES(?,?,?,?,?,?,?,?)",
	[BIND_DEL] = "DELETE FROM live.bindings WHERE ip = ?",
	[BIND_ALL] = "SELECT ip, mac, port, vlan, kind, identity, lease_ms, boot_id FROM "
		     "live.bindings ORDER BY ip",
	[BIND_CLEAR] = "DELETE FROM live.bindings",
	[IDS_CLEAR] = "DELETE FROM policy_ids",
	[IDS_PUT] = "INSERT INTO policy_ids(name, id) VALUES(?,?)",
	[IDS_ALL] = "SELECT name, id FROM policy_ids ORDER BY id",
	[ALARM_ADD] = "INSERT INTO alarms(at_ms, kind, text) VALUES(?,?,?)",
	[ALARM_TRIM] = "DELETE FROM alarms WHERE seq <= (SELECT max(seq) FROM alarms) - ?",
	[ALARM_ALL] = "SELECT at_ms, kind, text FROM alarms ORDER BY seq DESC LIMIT ?",
};

static const char store_schema[] =
	"CREATE TABLE IF NOT EXISTS entries(seq INTEGER PRIMARY KEY AUTOINCREMENT, revision "
	"INTEGER NOT NULL,"
	" snapshot INTEGER NOT NULL, hash BLOB NOT NULL, cose BLOB NOT NULL, stored_ms INTEGER NOT "
	"NULL,"
	" receipt BLOB, UNIQUE(revision, snapshot));"
	"CREATE TABLE IF NOT EXISTS receipts(revision INTEGER PRIMARY KEY, receipt BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS meta(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS policy_ids(name TEXT PRIMARY KEY, id INTEGER NOT NULL UNIQUE) "
	"WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS alarms(seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER "
	"NOT NULL,"
	" kind TEXT NOT NULL, text TEXT NOT NULL);";

static const char live_schema[] = "CREATE TABLE IF NOT EXISTS live.bindings(ip BLOB PRIMARY KEY, "
				  "mac BLOB NOT NULL, port TEXT NOT NULL,"
				  " vlan INTEGER NOT NULL, kind INTEGER NOT NULL, identity TEXT "
				  "NOT NULL, lease_ms INTEGER NOT NULL,"
				  " boot_id TEXT NOT NULL) WITHOUT ROWID;";

int store_db_error(sqlite3 *db, int rc, struct err *err, const char *what)
{
	int ret = -EIO;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		ret = -ENOSPC;
		break;
	case SQLITE_NOMEM:
		ret = -ENOMEM;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		ret = -EUCLEAN;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		ret = -EBUSY;
		break;
	case SQLITE_CONSTRAINT:
		ret = -EEXIST;
		break;
	}
	return err_set(err, ret, "store: %s: %s", what,
		       db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

int store_db_exec(struct store *s, const char *text, struct err *err, const char *what)
{
	int rc = sqlite3_exec(s->db, text, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : store_db_error(s->db, rc, err, what);
}

int store_stmt_get(struct store *s, enum stmt i, sqlite3_stmt **out, struct err *err)
{
	int rc = SQLITE_OK;

	if (s->stmt[i] == NULL)
		rc = sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[i],
					NULL);
	if (rc != SQLITE_OK)
		return store_db_error(s->db, rc, err, "prepare");
	*out = s->stmt[i];
	return 0;
}

int store_stmt_run(struct store *s, sqlite3_stmt *st, struct err *err, const char *what)
{
	int rc = sqlite3_step(st), ret = 0;

	if (rc != SQLITE_DONE)
		ret = store_db_error(
			s->db, rc, err,
			what); /* before reset, which keeps the code but may change the text */
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	/* Of some errors (a full disk) all of an open transaction is undone. */
	if (ret < 0 && s->gathering && sqlite3_get_autocommit(s->db)) {
		s->gathering = false;
		s->lost = ret;
	}
	return ret;
}

bool store_column_text(sqlite3_stmt *st, int col, char *out, size_t bytes)
{
	const char *text = (const char *)sqlite3_column_text(st, col);
	size_t n = (size_t)sqlite3_column_bytes(st, col);

	if (text == NULL || n >= bytes)
		return false;
	memcpy(out, text, n);
	out[n] = '\0';
	return true;
}

/* ---- opening ---- */

static int user_version(struct store *s, const char *pragma, int *out, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(s->db, pragma, -1, &st, NULL), ret = 0;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*out = sqlite3_column_int(st, 0);
	else
		ret = store_db_error(s->db, rc, err, "open");
	sqlite3_finalize(st);
	return ret;
}

static int open_durable(struct store *s, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	int rc, version = 0, ret;

	snprintf(path, sizeof(path), "%s/store.db", dir);
	rc = sqlite3_open_v2(path, &s->db,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
				     SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW,
			     NULL);
	if (rc != SQLITE_OK)
		return err_wrap(err, store_db_error(s->db, rc, err, "open"), "%s", path);
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, 1000); /* somebody looks with the sqlite3 shell */
	ret = user_version(s, "PRAGMA user_version", &version, err);
	if (ret == 0 && version != 0 && version != LAYOUT)
		ret = err_set(err, -EUCLEAN, "store: layout %d, this program knows %d", version,
			      LAYOUT);
	if (ret == 0)
		ret = store_db_exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;", err,
				    "open");
	if (ret == 0)
		ret = store_db_exec(s, store_schema, err, "schema");
	if (ret == 0 && version == 0)
		ret = store_db_exec(s, "PRAGMA user_version=1", err, "schema");
	return ret < 0 ? err_wrap(err, ret, "%s", path) : 0;
}

static int attach_live(struct store *s, const char *path, struct err *err)
{
	char *text = sqlite3_mprintf("ATTACH %Q AS live", path);
	int ret, version = 0;

	if (text == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	ret = store_db_exec(s, text, err, "attach");
	sqlite3_free(text);
	if (ret < 0)
		return ret;
	ret = user_version(s, "PRAGMA live.user_version", &version, err);
	if (ret == 0 && version != 0 && version != LAYOUT)
		ret = err_set(err, -EUCLEAN, "bindings: layout %d, this program knows %d", version,
			      LAYOUT);
	if (ret == 0)
		ret = store_db_exec(s, "PRAGMA live.journal_mode=WAL; PRAGMA live.synchronous=OFF;",
				    err, "bindings");
	if (ret == 0)
		ret = store_db_exec(s, live_schema, err, "bindings");
	if (ret == 0 && version == 0)
		ret = store_db_exec(s, "PRAGMA live.user_version=1", err, "bindings");
	if (ret == 0)
		ret = store_db_exec(s, "SELECT count(*), max(lease_ms) FROM live.bindings", err,
				    "bindings");
	if (ret < 0)
		sqlite3_exec(s->db, "DETACH live", NULL, NULL, NULL);
	return ret;
}

static int open_live(struct store *s, const char *dir, struct err *err)
{
	static const char *const tails[] = {"", "-wal", "-shm"};
	char path[PATH_MAX], side[PATH_MAX + 8];
	int ret;

	snprintf(path, sizeof(path), "%s/bindings.db", dir);
	ret = attach_live(s, path, err);
	if (ret != -EUCLEAN)
		return ret;
	/* Not written with care, so a power cut may have torn it; devices bind again by a handshake. */
	for (unsigned i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
		snprintf(side, sizeof(side), "%s%s", path, tails[i]);
		unlink(side);
	}
	return attach_live(s, path, err);
}

int store_open(struct store **out, const char *dir, struct err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	mode_t old;
	int ret;

	if (s == NULL)
		return err_set(err, -ENOMEM, "out of memory");
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		ret = err_set(err, -errno, "%s: %s", dir, strerror(errno));
		goto fail;
	}
	old = umask(0077);
	ret = open_durable(s, dir, err);
	if (ret == 0)
		ret = open_live(s, dir, err);
	umask(old);
	if (ret < 0)
		goto fail;
	*out = s;
	return 0;
fail:
	store_close(s);
	return ret;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	store_settle(s);
	for (unsigned i = 0; i < STMT_COUNT; i++)
		sqlite3_finalize(s->stmt[i]);
	sqlite3_close(s->db);
	free(s);
}

/* ---- what is written together ---- */

int store_gather(struct store *s, struct err *err)
{
	int ret = s->gathering ? 0 : store_db_exec(s, "BEGIN", err, "begin");

	s->gathering = ret == 0;
	return ret;
}

int store_flush(struct store *s, struct err *err)
{
	int lost = s->lost, ret = 0;

	if (lost < 0)
		err_set(err, lost, "store: what waited to be written was lost: %s",
			strerror(-lost));
	if (s->gathering)
		ret = store_db_exec(s, "COMMIT", err, "write");
	if (ret < 0 && !sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	s->gathering = false;
	s->lost = 0;
	return ret < 0 ? ret : lost;
}

void store_settle(struct store *s)
{
	s->lost = store_flush(s, NULL);
}

/* ---- decision log ---- */

int store_entry_add(struct store *s, const struct store_entry *e, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, ENTRY_ADD, &st, err);

	if (ret < 0)
		return ret;
	store_settle(s);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)e->revision);
	sqlite3_bind_int(st, 2, e->snapshot);
	sqlite3_bind_blob(st, 3, e->hash, sizeof(e->hash), SQLITE_STATIC);
	sqlite3_bind_blob64(st, 4, e->cose, e->cose_bytes, SQLITE_STATIC);
	sqlite3_bind_int64(st, 5, (sqlite3_int64)e->stored_ms);
	return store_stmt_run(s, st, err, "write entry");
}

static void entry_of_row(struct store_entry *e, sqlite3_stmt *st)
{
	memset(e, 0, sizeof(*e));
	e->seq = (uint64_t)sqlite3_column_int64(st, 0);
	e->revision = (uint64_t)sqlite3_column_int64(st, 1);
	e->snapshot = sqlite3_column_int(st, 2) != 0;
	/* A hash of another length stays zero, and then matches nothing. */
	if (sqlite3_column_bytes(st, 3) == sizeof(e->hash))
		memcpy(e->hash, sqlite3_column_blob(st, 3), sizeof(e->hash));
	e->cose = sqlite3_column_blob(st, 4);
	e->cose_bytes = (size_t)sqlite3_column_bytes(st, 4);
	e->stored_ms = (uint64_t)sqlite3_column_int64(st, 5);
	e->receipt = sqlite3_column_blob(st, 6);
	e->receipt_bytes = (size_t)sqlite3_column_bytes(st, 6);
}

/* each() may call the store (a receipt put), but not walk the same list again. */
static int entries_walk(struct store *s, sqlite3_stmt *st,
			int (*each)(void *arg, const struct store_entry *e), void *arg,
			struct err *err)
{
	struct store_entry e;
	int rc, ret = 0;

	while (ret == 0 && (rc = sqlite3_step(st)) != SQLITE_DONE) {
		if (rc != SQLITE_ROW) {
			ret = store_db_error(s->db, rc, err, "read entries");
			break;
		}
		entry_of_row(&e, st);
		ret = each(arg, &e);
	}
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return ret;
}

int store_entries(struct store *s, int (*each)(void *arg, const struct store_entry *e), void *arg,
		  struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, ENTRY_ALL, &st, err);

	return ret < 0 ? ret : entries_walk(s, st, each, arg, err);
}

int store_entries_after(struct store *s, uint64_t after, uint32_t limit,
			int (*each)(void *arg, const struct store_entry *e), void *arg,
			struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, ENTRY_AFTER, &st, err);

	if (ret < 0)
		return ret;
	sqlite3_bind_int64(st, 1, after > INT64_MAX ? INT64_MAX : (sqlite3_int64)after);
	sqlite3_bind_int64(st, 2, limit);
	return entries_walk(s, st, each, arg, err);
}

int store_entry_find(struct store *s, uint64_t revision, uint8_t hash[32], uint8_t **receipt,
		     size_t *receipt_bytes)
{
	sqlite3_stmt *st = NULL;
	int rc, n, ret = store_stmt_get(s, ENTRY_FIND, &st, NULL);

	if (ret < 0)
		return ret;
	sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
	rc = sqlite3_step(st);
	if (rc != SQLITE_ROW || sqlite3_column_bytes(st, 0) != 32) {
		ret = rc == SQLITE_DONE	 ? -ENOENT
		      : rc == SQLITE_ROW ? -EUCLEAN
					 : store_db_error(s->db, rc, NULL, "");
		goto out;
	}
	memcpy(hash, sqlite3_column_blob(st, 0), 32);
	if (receipt == NULL)
		goto out;
	*receipt = NULL;
	*receipt_bytes = 0;
	n = sqlite3_column_bytes(st, 1);
	if (n > 0) {
		*receipt = malloc((size_t)n);
		if (*receipt == NULL) {
			ret = -ENOMEM;
			goto out;
		}
		memcpy(*receipt, sqlite3_column_blob(st, 1), (size_t)n);
		*receipt_bytes = (size_t)n;
	}
out:
	sqlite3_reset(st);
	return ret;
}

int store_receipt_put(struct store *s, uint64_t revision, const void *receipt, size_t bytes,
		      struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, RECEIPT_PUT, &st, err);

	if (ret < 0)
		return ret;
	store_settle(s);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)revision);
	sqlite3_bind_blob64(st, 2, receipt, bytes, SQLITE_STATIC);
	ret = store_stmt_run(s, st, err, "write receipt");
	if (ret == 0 && sqlite3_changes(s->db) == 0)
		ret = err_set(err, -ENOENT, "store: no entry with revision %llu",
			      (unsigned long long)revision);
	return ret;
}

/* ---- small things by name ---- */

int store_meta_put(struct store *s, const char *key, const char *value, struct err *err)
{
	store_settle(s);
	return store_meta_put_later(s, key, value, err);
}

int store_meta_put_later(struct store *s, const char *key, const char *value, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, META_PUT, &st, err);

	if (ret < 0)
		return ret;
	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, value, -1, SQLITE_STATIC);
	return store_stmt_run(s, st, err, "write");
}

int store_meta_get(struct store *s, const char *key, char *value, size_t value_bytes)
{
	sqlite3_stmt *st = NULL;
	int rc, ret = store_stmt_get(s, META_GET, &st, NULL);

	if (ret < 0)
		return ret;
	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		ret = -ENOENT;
	else if (rc != SQLITE_ROW)
		ret = store_db_error(s->db, rc, NULL, "");
	else if (!store_column_text(st, 0, value, value_bytes))
		ret = -ERANGE;
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return ret;
}
