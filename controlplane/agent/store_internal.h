/* SPDX-License-Identifier: GPL-3.0-or-later */
/* store_internal: what store.c (files, log) and store_state.c (bindings, ids, alarms) share. Nobody else includes it. */
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/base/err.h"

enum stmt {
	ENTRY_ADD,
	ENTRY_ALL,
	ENTRY_AFTER,
	ENTRY_FIND,
	RECEIPT_PUT,
	META_PUT,
	META_GET,
	BIND_PUT,
	BIND_DEL,
	BIND_ALL,
	BIND_CLEAR,
	IDS_CLEAR,
	IDS_PUT,
	IDS_ALL,
	ALARM_ADD,
	ALARM_TRIM,
	ALARM_ALL,
	STMT_COUNT
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *stmt[STMT_COUNT]; /* prepared at first use */
	bool gathering; /* a transaction is open, for store_flush() */
	int lost; /* -errno: something that waited was not written; store_flush() tells it */
};

int store_db_error(sqlite3 *db, int rc, struct err *err,
		   const char *what); /* @return -errno for rc; never 0 */
int store_db_exec(struct store *s, const char *text, struct err *err, const char *what);
int store_stmt_get(struct store *s, enum stmt i, sqlite3_stmt **out, struct err *err);
/** Before what must be durable at its return: what waits is written first. */
void store_settle(struct store *s);
/** Run a statement that returns no rows, and reset it. */
int store_stmt_run(struct store *s, sqlite3_stmt *st, struct err *err, const char *what);
/** @return false if the column is no text or does not fit */
bool store_column_text(sqlite3_stmt *st, int col, char *out, size_t bytes);
