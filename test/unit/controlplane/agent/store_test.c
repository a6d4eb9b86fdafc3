/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "config/base/clock.h"
#include "controlplane/agent/store.h"

struct world {
	char dir[64];
	struct store *store;
};

static void reopen(struct world *w)
{
	struct err err = {0};

	store_close(w->store);
	w->store = NULL;
	if (store_open(&w->store, w->dir, &err) != 0)
		fail_msg("%s", err.msg);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/sallyport-store-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	reopen(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char cmd[128];

	store_close(w->store);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
	assert_int_equal(system(cmd), 0);
	free(w);
	return 0;
}

static int add(struct store *s, uint64_t revision, bool snapshot, const void *cose, size_t bytes,
	       struct err *err)
{
	struct store_entry e = {.revision = revision,
				.stored_ms = 1000 + revision,
				.snapshot = snapshot,
				.cose = cose,
				.cose_bytes = bytes};

	memset(e.hash, (int)revision, sizeof(e.hash));
	return store_entry_add(s, &e, err);
}

struct walk {
	unsigned n;
	uint64_t revision[16];
	bool snapshot[16];
	size_t receipt_bytes[16];
	unsigned stop_at; /* 0: never */
};

static int walk_one(void *arg, const struct store_entry *e)
{
	struct walk *w = arg;

	assert_int_equal(e->cose_bytes, 3);
	assert_memory_equal(e->cose, "abc", 3);
	assert_int_equal(e->hash[31], e->revision);
	assert_int_equal(e->stored_ms, 1000 + e->revision);
	w->revision[w->n] = e->revision;
	w->snapshot[w->n] = e->snapshot;
	w->receipt_bytes[w->n++] = e->receipt_bytes;
	return w->n == w->stop_at ? 77 : 0;
}

/* As stores were before receipts had a table of their own. */
static void a_receipt_in_its_entry_is_still_found(void **state)
{
	struct world *w = *state;
	struct walk all = {0};
	uint8_t hash[32], *receipt;
	char path[128];
	size_t bytes;
	sqlite3 *db;

	assert_int_equal(add(w->store, 1, false, "abc", 3, NULL), 0);
	assert_int_equal(add(w->store, 2, false, "abc", 3, NULL), 0);
	store_close(w->store);
	w->store = NULL;
	snprintf(path, sizeof(path), "%s/store.db", w->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				      "DROP TABLE receipts;"
				      "UPDATE entries SET receipt = 'older' WHERE revision = 1",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_changes(db), 1);
	sqlite3_close(db);
	reopen(w);
	assert_int_equal(store_receipt_put(w->store, 2, "rcpt", 4, NULL), 0);
	assert_int_equal(store_entries(w->store, walk_one, &all, NULL), 0);
	assert_int_equal(all.n, 2);
	assert_int_equal(all.receipt_bytes[0], 5);
	assert_int_equal(all.receipt_bytes[1], 4);
	assert_int_equal(store_receipt_put(w->store, 1, "new", 3, NULL), 0);
	assert_int_equal(store_entry_find(w->store, 1, hash, &receipt, &bytes), 0);
	assert_int_equal(bytes, 3);
	assert_memory_equal(receipt, "new", 3);
	free(receipt);
}

static void the_log_is_there_after_reopening(void **state)
{
	struct world *w = *state;
	struct walk all = {0}, some = {0}, stopped = {.stop_at = 2};
	uint8_t hash[32], *receipt;
	size_t bytes;

	assert_int_equal(add(w->store, 1, false, "abc", 3, NULL), 0);
	assert_int_equal(add(w->store, 2, false, "abc", 3, NULL), 0);
	assert_int_equal(add(w->store, 9, true, "abc", 3, NULL), 0);
	assert_int_equal(add(w->store, 10, false, "abc", 3, NULL), 0);
	assert_int_equal(add(w->store, 2, false, "abc", 3, NULL), -EEXIST);
	assert_int_equal(store_receipt_put(w->store, 2, "rcpt", 4, NULL), 0);
	assert_int_equal(store_receipt_put(w->store, 3, "rcpt", 4, NULL), -ENOENT);
	reopen(w);
	assert_int_equal(store_entries(w->store, walk_one, &all, NULL), 0);
	assert_int_equal(all.n, 4);
	assert_int_equal(all.revision[2], 9);
	assert_true(all.snapshot[2]);
	assert_int_equal(all.receipt_bytes[1], 4);
	assert_int_equal(all.receipt_bytes[0], 0);
	assert_int_equal(store_entries_after(w->store, 1, 2, walk_one, &some, NULL), 0);
	assert_int_equal(some.n, 2);
	assert_int_equal(some.revision[0], 2);
	assert_int_equal(some.revision[1], 9);
	assert_int_equal(store_entries(w->store, walk_one, &stopped, NULL), 77);
	assert_int_equal(stopped.n, 2);
	assert_int_equal(store_entry_find(w->store, 2, hash, &receipt, &bytes), 0);
	assert_int_equal(hash[0], 2);
	assert_int_equal(bytes, 4);
	assert_memory_equal(receipt, "rcpt", 4);
	free(receipt);
	assert_int_equal(store_entry_find(w->store, 10, hash, &receipt, &bytes), 0);
	assert_null(receipt);
	assert_int_equal(store_entry_find(w->store, 11, hash, &receipt, &bytes), -ENOENT);
}

/* As a restart after a power cut would find it. */
static unsigned seen_by_another(const struct world *w, const char *like)
{
	char path[128], text[160];
	sqlite3_stmt *st = NULL;
	sqlite3 *db;
	unsigned n;

	snprintf(path, sizeof(path), "%s/store.db", w->dir);
	snprintf(text, sizeof(text), "SELECT count(*) FROM meta WHERE k LIKE '%s'", like);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, text, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = (unsigned)sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

static void a_full_disk_loses_nothing_that_was_written(void **state)
{
	struct world *w = *state;
	static uint8_t big[64 * 1024];
	struct err err = {0};
	uint64_t n = 0;
	uint8_t hash[32];
	int ret = 0;

	/* A small disk that only this process sees. */
	store_close(w->store);
	w->store = NULL;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", w->dir, "tmpfs", 0, "size=1m") < 0)
		fail_msg("cannot mount: %s", strerror(errno));
	reopen(w);
	while (ret == 0 && n < 100)
		ret = add(w->store, ++n, false, big, sizeof(big), &err);
	assert_int_equal(ret, -ENOSPC);
	assert_true(n > 1);
	assert_non_null(strstr(err.msg, "full"));
	assert_int_equal(store_entry_find(w->store, n, hash, NULL, NULL), -ENOENT);
	reopen(w);
	for (uint64_t i = 1; i < n; i++)
		assert_int_equal(store_entry_find(w->store, i, hash, NULL, NULL), 0);
	assert_int_equal(store_entry_find(w->store, n, hash, NULL, NULL), -ENOENT);
	/* What waited in vain is told, once, and the store goes on. */
	assert_int_equal(store_gather(w->store, NULL), 0);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	for (ret = 0, n = 0; ret == 0 && n < 100; n++) {
		char key[16];

		snprintf(key, sizeof(key), "late-%u", (unsigned)n);
		ret = store_meta_put_later(w->store, key, (const char *)big, NULL);
	}
	assert_true(store_flush(w->store, &err) < 0);
	assert_int_equal(seen_by_another(w, "late%"), 0);
	assert_int_equal(store_flush(w->store, &err), 0);
	assert_int_equal(store_entry_find(w->store, 1, hash, NULL, NULL), 0);
	store_close(w->store);
	w->store = NULL;
	assert_int_equal(umount(w->dir), 0);
}

static void a_store_that_is_no_database_is_refused_and_left_alone(void **state)
{
	struct world *w = *state;
	char path[128], text[32] = "";
	struct store *s = NULL;
	struct err err = {0};
	FILE *f;

	store_close(w->store);
	w->store = NULL;
	snprintf(path, sizeof(path), "rm %s/*", w->dir);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof(path), "%s/store.db", w->dir);
	f = fopen(path, "w");
	fputs("this is no database, but it is ours", f);
	fclose(f);
	assert_int_equal(store_open(&s, w->dir, &err), -EUCLEAN);
	assert_null(s);
	assert_non_null(strstr(err.msg, path));
	f = fopen(path, "r");
	assert_non_null(fgets(text, 8, f));
	fclose(f);
	assert_string_equal(text, "this is");
}

static void damaged_bindings_are_begun_anew(void **state)
{
	struct world *w = *state;
	char path[128];
	FILE *f;

	assert_int_equal(store_meta_put(w->store, "k", "kept", NULL), 0);
	store_close(w->store);
	w->store = NULL;
	snprintf(path, sizeof(path), "%s/bindings.db", w->dir);
	f = fopen(path, "w");
	fputs("torn", f);
	for (unsigned i = 0; i < 4096; i++)
		fputc('x', f);
	fclose(f);
	reopen(w);
	assert_int_equal(store_meta_get(w->store, "k", path, sizeof(path)), 0);
	assert_string_equal(path, "kept");
}

static void small_things_are_kept_by_name(void **state)
{
	struct world *w = *state;
	char value[16];

	assert_int_equal(store_meta_get(w->store, "a", value, sizeof(value)), -ENOENT);
	assert_int_equal(store_meta_put(w->store, "a", "one", NULL), 0);
	assert_int_equal(store_meta_put(w->store, "a", "two", NULL), 0);
	reopen(w);
	assert_int_equal(store_meta_get(w->store, "a", value, sizeof(value)), 0);
	assert_string_equal(value, "two");
	assert_int_equal(store_meta_get(w->store, "a", value, 3), -ERANGE);
}

static int end_by_flush(struct world *w)
{
	return store_flush(w->store, NULL);
}

static int end_by_small_thing(struct world *w)
{
	return store_meta_put(w->store, "now", "1", NULL);
}

static int end_by_entry(struct world *w)
{
	return add(w->store, 1, false, "abc", 3, NULL);
}

static int end_by_ids(struct world *w)
{
	static const struct store_policy_id ids[] = {{"cameras", 1}};

	return store_policy_ids_set(w->store, ids, 1, NULL);
}

static int end_by_alarm(struct world *w)
{
	return store_alarm_add(w->store, 1, "kind", "text", NULL);
}

static int end_by_closing(struct world *w)
{
	store_close(w->store);
	w->store = NULL;
	return 0;
}

/* What waits is found by us at once, by others after its end, and by nobody half. */
static void what_waits_is_written_as_one(void **state)
{
	static const struct {
		const char *name;
		int (*end)(struct world *w);
	} rows[] = {
		{"flush", end_by_flush},    {"something small that is durable", end_by_small_thing},
		{"an entry", end_by_entry}, {"policy ids", end_by_ids},
		{"an alarm", end_by_alarm}, {"the store is closed", end_by_closing},
	};
	struct world *w = *state;
	char key[32], value[16];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned before = seen_by_another(w, "late%");

		assert_int_equal(store_gather(w->store, NULL), 0);
		for (unsigned k = 0; k < 3; k++) {
			assert_int_equal(store_gather(w->store, NULL), 0);
			snprintf(key, sizeof(key), "late-%zu-%u", i, k);
			assert_int_equal(store_meta_put_later(w->store, key, "x", NULL), 0);
		}
		assert_int_equal(store_meta_get(w->store, key, value, sizeof(value)), 0);
		assert_int_equal(seen_by_another(w, "late%"), before);
		if (rows[i].end(w) != 0 || seen_by_another(w, "late%") != before + 3)
			fail_msg("%s: %u are there", rows[i].name, seen_by_another(w, "late%"));
		if (w->store != NULL)
			assert_int_equal(store_flush(w->store, NULL), 0); /* nothing waits */
		reopen(w);
		assert_int_equal(store_meta_get(w->store, key, value, sizeof(value)), 0);
	}
}

static int take_binding(void *arg, const struct store_binding *b)
{
	struct store_binding *out = arg;

	while (out->port[0] != '\0')
		out++;
	*out = *b;
	return 0;
}

static void bindings_come_back_as_they_were(void **state)
{
	struct world *w = *state;
	struct store_binding a = {.vlan = 10,
				  .identity_kind = IDENTITY_URI,
				  .lease_ms = CLOCK_NEVER_MS,
				  .port = "dev",
				  .identity = "spiffe://plant-7/camera/1",
				  .mac = {{2, 0, 0, 0, 0, 1}}};
	struct store_binding b = a, got[4] = {0}, rest[4] = {0};

	assert_int_equal(ip_addr_parse(&a.ip, "10.1.0.5"), 0);
	assert_int_equal(ip_addr_parse(&b.ip, "fd00::5"), 0);
	assert_int_equal(store_boot_id(a.boot_id), 0);
	assert_int_equal(strlen(a.boot_id), 36);
	strcpy(b.boot_id, "other");
	b.lease_ms = 123456789012;
	assert_int_equal(store_binding_put(w->store, &b, NULL), 0);
	assert_int_equal(store_binding_put(w->store, &a, NULL), 0);
	a.mac.b[5] = 9;
	assert_int_equal(store_binding_put(w->store, &a, NULL), 0); /* replaces */
	reopen(w);
	assert_int_equal(store_bindings(w->store, take_binding, got, NULL), 0);
	assert_memory_equal(&got[0], &a, sizeof(a));
	assert_memory_equal(&got[1], &b, sizeof(b));
	assert_int_equal(got[2].port[0], 0);
	assert_int_equal(store_binding_del(w->store, &a.ip, NULL), 0);
	assert_int_equal(store_binding_del(w->store, &a.ip, NULL), 0);
	assert_int_equal(store_bindings(w->store, take_binding, rest, NULL), 0);
	assert_memory_equal(&rest[0], &b, sizeof(b));
	assert_int_equal(store_bindings_clear(w->store, NULL), 0);
	memset(rest, 0, sizeof(rest));
	assert_int_equal(store_bindings(w->store, take_binding, rest, NULL), 0);
	assert_int_equal(rest[0].port[0], 0);
}

static int take_id(void *arg, const struct store_policy_id *id)
{
	struct store_policy_id *out = arg;

	while (out->name[0] != '\0')
		out++;
	*out = *id;
	return 0;
}

static void policy_ids_are_replaced_as_a_whole_or_not_at_all(void **state)
{
	static const struct store_policy_id first[] = {{"cameras", 1}, {"nvr", 2}},
					    clash[] = {{"a", 7}, {"b", 7}};
	struct world *w = *state;
	struct store_policy_id got[4] = {0};

	assert_int_equal(store_policy_ids_set(w->store, first, 2, NULL), 0);
	assert_int_equal(store_policy_ids_set(w->store, clash, 2, NULL), -EEXIST);
	reopen(w);
	assert_int_equal(store_policy_ids(w->store, take_id, got, NULL), 0);
	assert_string_equal(got[0].name, "cameras");
	assert_int_equal(got[0].id, 1);
	assert_string_equal(got[1].name, "nvr");
	assert_int_equal(got[2].name[0], 0);
}

struct alarms {
	unsigned n;
	struct store_alarm newest;
};

static int take_alarm(void *arg, const struct store_alarm *a)
{
	struct alarms *s = arg;

	if (s->n++ == 0)
		s->newest = *a;
	return 0;
}

static void alarms_are_bounded_and_the_newest_come_first(void **state)
{
	struct world *w = *state;
	static char text[2 * STORE_ALARM_TEXT_BYTES];
	struct alarms all = {0}, few = {0};

	for (unsigned i = 1; i <= STORE_ALARMS_MAX + 20; i++)
		assert_int_equal(
			store_alarm_add(w->store, i, "hole", "a revision is missing", NULL), 0);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(store_alarm_add(w->store, 9999,
					 "a kind whose name is far too long to be kept", text,
					 NULL),
			 0);
	assert_int_equal(store_alarms(w->store, 5000, take_alarm, &all, NULL), 0);
	assert_int_equal(all.n, STORE_ALARMS_MAX);
	assert_int_equal(all.newest.at_ms, 9999);
	assert_int_equal(strlen(all.newest.text), STORE_ALARM_TEXT_BYTES - 1);
	assert_int_equal(strlen(all.newest.kind), STORE_ALARM_KIND_BYTES - 1);
	assert_int_equal(store_alarms(w->store, 3, take_alarm, &few, NULL), 0);
	assert_int_equal(few.n, 3);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_log_is_there_after_reopening),
		T(a_receipt_in_its_entry_is_still_found),
		T(a_store_that_is_no_database_is_refused_and_left_alone),
		T(damaged_bindings_are_begun_anew),
		T(small_things_are_kept_by_name),
		T(what_waits_is_written_as_one),
		T(bindings_come_back_as_they_were),
		T(policy_ids_are_replaced_as_a_whole_or_not_at_all),
		T(alarms_are_bounded_and_the_newest_come_first),
		T(a_full_disk_loses_nothing_that_was_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
