/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The store's tables beside the log: bindings, policy ids, alarms. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/agent/store.h"
#include "controlplane/agent/store_internal.h"

/* ---- bindings ---- */

int store_binding_put(struct store *s, const struct store_binding *b, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, BIND_PUT, &st, err);

	if (ret < 0)
		return ret;
	sqlite3_bind_blob(st, 1, b->ip.b, sizeof(b->ip.b), SQLITE_STATIC);
	sqlite3_bind_blob(st, 2, b->mac.b, sizeof(b->mac.b), SQLITE_STATIC);
	sqlite3_bind_text(st, 3, b->port, -1, SQLITE_STATIC);
	sqlite3_bind_int(st, 4, b->vlan);
	sqlite3_bind_int(st, 5, b->identity_kind);
	sqlite3_bind_text(st, 6, b->identity, -1, SQLITE_STATIC);
	sqlite3_bind_int64(
		st, 7,
		(sqlite3_int64)b->lease_ms); /* "never" becomes -1, and comes back as itself */
	sqlite3_bind_text(st, 8, b->boot_id, -1, SQLITE_STATIC);
	return store_stmt_run(s, st, err, "write binding");
}

int store_binding_del(struct store *s, const struct ip_addr *ip, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, BIND_DEL, &st, err);

	if (ret < 0)
		return ret;
	sqlite3_bind_blob(st, 1, ip->b, sizeof(ip->b), SQLITE_STATIC);
	return store_stmt_run(s, st, err, "delete binding");
}

static bool binding_of_row(struct store_binding *b, sqlite3_stmt *st)
{
	memset(b, 0, sizeof(*b));
	if (sqlite3_column_bytes(st, 0) != sizeof(b->ip.b) ||
	    sqlite3_column_bytes(st, 1) != sizeof(b->mac.b))
		return false;
	memcpy(b->ip.b, sqlite3_column_blob(st, 0), sizeof(b->ip.b));
	memcpy(b->mac.b, sqlite3_column_blob(st, 1), sizeof(b->mac.b));
	b->vlan = (uint16_t)sqlite3_column_int(st, 3);
	b->identity_kind = (uint8_t)sqlite3_column_int(st, 4);
	b->lease_ms = (uint64_t)sqlite3_column_int64(st, 6);
	return store_column_text(st, 2, b->port, sizeof(b->port)) &&
	       store_column_text(st, 5, b->identity, sizeof(b->identity)) &&
	       store_column_text(st, 7, b->boot_id, sizeof(b->boot_id));
}

int store_bindings(struct store *s, int (*each)(void *arg, const struct store_binding *b),
		   void *arg, struct err *err)
{
	struct store_binding b;
	sqlite3_stmt *st = NULL;
	int rc, ret = store_stmt_get(s, BIND_ALL, &st, err);

	if (ret < 0)
		return ret;
	while (ret == 0 && (rc = sqlite3_step(st)) != SQLITE_DONE) {
		if (rc != SQLITE_ROW)
			ret = store_db_error(s->db, rc, err, "read bindings");
		else if (binding_of_row(&b, st)) /* a damaged row is no binding */
			ret = each(arg, &b);
	}
	sqlite3_reset(st);
	return ret;
}

int store_bindings_clear(struct store *s, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, BIND_CLEAR, &st, err);

	return ret < 0 ? ret : store_stmt_run(s, st, err, "clear bindings");
}

static int boot_id_read(char out[STORE_BOOT_ID_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC), ret = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, STORE_BOOT_ID_BYTES - 1);
	if (n <= 0) {
		ret = n < 0 ? -errno : -EIO;
	} else {
		out[n] = '\0';
		out[strcspn(out, "\n")] = '\0';
	}
	close(fd);
	return ret;
}

/* It does not change while we run, and each binding is stored with it. */
int store_boot_id(char out[STORE_BOOT_ID_BYTES])
{
	static char kept[STORE_BOOT_ID_BYTES];
	int ret = kept[0] == '\0' ? boot_id_read(kept) : 0;

	memcpy(out, kept, sizeof(kept));
	return ret;
}

/* ---- ids that names keep ---- */

int store_policy_ids_set(struct store *s, const struct store_policy_id *ids, uint32_t n,
			 struct err *err)
{
	sqlite3_stmt *clear = NULL, *put = NULL;
	int ret = store_stmt_get(s, IDS_CLEAR, &clear, err);

	if (ret == 0)
		ret = store_stmt_get(s, IDS_PUT, &put, err);
	store_settle(s);
	if (ret == 0)
		ret = store_db_exec(s, "BEGIN IMMEDIATE", err, "begin");
	if (ret < 0)
		return ret;
	ret = store_stmt_run(s, clear, err, "policy ids");
	for (uint32_t i = 0; ret == 0 && i < n; i++) {
		sqlite3_bind_text(put, 1, ids[i].name, -1, SQLITE_STATIC);
		sqlite3_bind_int(put, 2, ids[i].id);
		ret = store_stmt_run(s, put, err, "policy ids");
	}
	if (ret == 0)
		ret = store_db_exec(s, "COMMIT", err, "policy ids");
	if (ret < 0)
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return ret;
}

int store_policy_ids(struct store *s, int (*each)(void *arg, const struct store_policy_id *id),
		     void *arg, struct err *err)
{
	struct store_policy_id id;
	sqlite3_stmt *st = NULL;
	int rc, ret = store_stmt_get(s, IDS_ALL, &st, err);

	if (ret < 0)
		return ret;
	while (ret == 0 && (rc = sqlite3_step(st)) != SQLITE_DONE) {
		memset(&id, 0, sizeof(id));
		if (rc != SQLITE_ROW) {
			ret = store_db_error(s->db, rc, err, "read policy ids");
		} else if (store_column_text(st, 0, id.name, sizeof(id.name))) {
			id.id = (uint16_t)sqlite3_column_int(st, 1);
			ret = each(arg, &id);
		}
	}
	sqlite3_reset(st);
	return ret;
}

/* ---- alarms ---- */

int store_alarm_add(struct store *s, uint64_t at_ms, const char *kind, const char *text,
		    struct err *err)
{
	sqlite3_stmt *st = NULL;
	int ret = store_stmt_get(s, ALARM_ADD, &st, err);

	if (ret < 0)
		return ret;
	store_settle(s);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)at_ms);
	sqlite3_bind_text(st, 2, kind, (int)strnlen(kind, STORE_ALARM_KIND_BYTES - 1),
			  SQLITE_STATIC);
	sqlite3_bind_text(st, 3, text, (int)strnlen(text, STORE_ALARM_TEXT_BYTES - 1),
			  SQLITE_STATIC);
	ret = store_stmt_run(s, st, err, "write alarm");
	if (ret == 0)
		ret = store_stmt_get(s, ALARM_TRIM, &st, err);
	if (ret < 0)
		return ret;
	sqlite3_bind_int(st, 1, STORE_ALARMS_MAX);
	return store_stmt_run(s, st, err, "trim alarms");
}

int store_alarms(struct store *s, uint32_t limit,
		 int (*each)(void *arg, const struct store_alarm *a), void *arg, struct err *err)
{
	struct store_alarm a;
	sqlite3_stmt *st = NULL;
	int rc, ret = store_stmt_get(s, ALARM_ALL, &st, err);

	if (ret < 0)
		return ret;
	sqlite3_bind_int64(st, 1, limit);
	while (ret == 0 && (rc = sqlite3_step(st)) != SQLITE_DONE) {
		memset(&a, 0, sizeof(a));
		a.at_ms = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
		if (rc != SQLITE_ROW)
			ret = store_db_error(s->db, rc, err, "read alarms");
		else if (store_column_text(st, 1, a.kind, sizeof(a.kind)) &&
			 store_column_text(st, 2, a.text, sizeof(a.text)))
			ret = each(arg, &a);
	}
	sqlite3_reset(st);
	return ret;
}
