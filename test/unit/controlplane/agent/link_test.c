/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The link against a server that this test scripts, and against the controller's own feed. */
#include "test/unit/controlplane/agent/link_world.h"

static void entries_in_order_are_stored_applied_and_answered(void **state)
{
	struct world *w = *state;
	uint8_t hash[32];

	connect_link(w);
	assert_int_equal(w->subscribes, 1);
	assert_int_equal(w->last_subscribe.revision, 0);
	assert_string_equal(w->last_subscribe.gateway, "gw1");
	w->seen.answer = w->link;
	send_chain(w, 1, 4);
	assert_int_equal(w->seen.applied, 4);
	assert_int_equal(ours(w), 4);
	assert_int_equal(w->receipts, 4);
	assert_int_equal(w->last_receipt.revision, 4);
	assert_string_equal(w->last_receipt.gateway, "gw1");
	assert_int_equal(w->last_receipt.in_force_us, 412);
	assert_int_equal(store_entry_find(w->store, 4, hash, NULL, NULL), 0);
	assert_memory_equal(hash, w->hash[4], 32);
	assert_int_equal(w->seen.alarms, 0);

	/* A repetition changes nothing, is reported, and the receipt comes again. */
	send_chain(w, 2, 2);
	assert_int_equal(w->seen.applied, 4);
	assert_int_equal(w->seen.alarms, 1);
	assert_string_equal(w->seen.kind, LINK_ALARM_REPLAYED);
	assert_int_equal(w->receipts, 5);
	assert_int_equal(w->last_receipt.revision, 2);

	/* After a restart the same four come from the store, and we ask for what follows. */
	reopen(w);
	assert_int_equal(link_replay(w->link, NULL), 0);
	assert_int_equal(w->seen.replayed, 4);
	assert_int_equal(w->seen.applied, 0);
	connect_link(w);
	assert_int_equal(w->last_subscribe.revision, 4);
	assert_memory_equal(w->last_subscribe.hash, w->hash[4], 32);
	assert_int_equal(w->last_receipt.revision, 4); /* sent again: it may have been lost */
	send_chain(w, 5, 6);
	assert_int_equal(ours(w), 6);
}

static void heartbeats_extend_the_lease_only_while_we_hold_the_log(void **state)
{
	struct world *w = *state;
	struct link_state s;
	unsigned subscribes;

	connect_link(w);
	send_chain(w, 1, 3);
	send_new(w, FRAME_HEARTBEAT, heartbeat(3, w->hash[3], w->wall_ms, w->key));
	assert_int_equal(w->seen.leases, 1);
	assert_int_equal(w->seen.lease_ms, w->boot_ms + 20000);

	/* A lost tail shows: no lease, and we ask again from where we are. */
	w->boot_ms += 5000;
	subscribes = w->subscribes;
	send_new(w, FRAME_HEARTBEAT, heartbeat(5, w->hash[5], w->wall_ms + 1, w->key));
	turn(w);
	assert_int_equal(w->seen.leases, 1);
	assert_int_equal(w->subscribes, subscribes + 1);
	assert_int_equal(w->last_subscribe.revision, 3);
	link_get_state(w->link, &s);
	assert_true(s.behind);
	assert_int_equal(s.head, 5);

	send_chain(w, 4, 5);
	send_new(w, FRAME_HEARTBEAT, heartbeat(5, w->hash[5], w->wall_ms + 2, w->key));
	assert_int_equal(w->seen.leases, 2);
	assert_int_equal(w->seen.alarms, 0);

	/* One that we had, again, although its time is still near ours. */
	send_new(w, FRAME_HEARTBEAT, heartbeat(5, w->hash[5], w->wall_ms + 1, w->key));
	assert_int_equal(w->seen.leases, 2);
	assert_string_equal(w->seen.kind, LINK_ALARM_ROLLBACK);
}

static void a_snapshot_takes_us_on_and_keeps_every_revocation(void **state)
{
	struct world *w = *state;

	connect_link(w);
	send_chain(w, 1, 3); /* 3 revokes */
	send_new(w, FRAME_SNAPSHOT, snapshot(5, w->hash[5], w->key)); /* names no revocation */
	assert_int_equal(w->seen.snapshots, 1);
	assert_int_equal(w->seen.revocations_in_snapshot, 1);
	assert_int_equal(ours(w), 5);
	send_chain(w, 6, 6);
	assert_int_equal(ours(w), 6);
	send_chain(w, 4, 4); /* we passed it by the snapshot */
	assert_int_equal(w->seen.alarms, 0);

	reopen(w);
	assert_int_equal(link_replay(w->link, NULL), 0);
	assert_int_equal(w->seen.replayed, 5); /* 1, 2, 3, snapshot, 6 */
	assert_int_equal(w->seen.revocations_in_snapshot, 1);
	assert_int_equal(ours(w), 6);
}

static void exec_sql(const struct world *w, const char *text)
{
	char path[300];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/store.db", w->cfg.state_dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_changes(db), 1);
	sqlite3_close(db);
}

static void a_damaged_store_is_believed_up_to_the_damage_and_no_further(void **state)
{
	static const struct {
		const char *name, *sql;
		unsigned good;
	} rows[] = {
		{"a bit of the signed bytes",
		 "UPDATE entries SET cose = substr(cose, 1, 50) || x'00' || substr(cose, 52)"
		 " WHERE revision = 3",
		 2},
		{"another hash in the row",
		 "UPDATE entries SET hash = zeroblob(32) WHERE revision = 2", 1},
		{"an entry taken out", "DELETE FROM entries WHERE revision = 2", 1},
		{"another number", "UPDATE entries SET revision = 9 WHERE revision = 4", 3},
		{"an empty blob", "UPDATE entries SET cose = x'' WHERE revision = 1", 0},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct link_state s;
		struct err err = {0};
		char cmd[300];

		close_link(w);
		snprintf(cmd, sizeof(cmd), "rm -rf %s", w->cfg.state_dir);
		assert_int_equal(system(cmd), 0);
		open_link(w);
		connect_link(w);
		send_chain(w, 1, 4);
		close_link(w);
		exec_sql(w, rows[i].sql);
		memset(&w->seen, 0, sizeof(w->seen));
		open_link(w);
		if (link_replay(w->link, &err) != -EBADMSG || w->seen.replayed != rows[i].good ||
		    w->seen.alarms != 1 || strcmp(w->seen.kind, LINK_ALARM_STORE) != 0)
			fail_msg("%s: %u replayed, alarm %s (%s)", rows[i].name, w->seen.replayed,
				 w->seen.kind, err.msg);
		link_tick(w->link, w->boot_ms += 10000, w->wall_ms);
		link_get_state(w->link, &s);
		assert_true(s.frozen);
		assert_false(s.connected);
	}
}

/* ---- against the controller ---- */

static int no_entry(void *arg, const struct decision_entry *e)
{
	return state_fold(arg, e);
}

static void no_receipt(void *arg, const struct receipt *r, uint64_t covers)
{
	(void)covers;
	*(struct receipt *)arg = *r;
}

static void nobody_gone(void *arg, const char *gateway)
{
	(void)arg;
	(void)gateway;
}

static void decide(struct journal *j, struct state *s, uint8_t op, unsigned n)
{
	struct decision d = device_op(op, n);
	struct decision_entry e = {.n_ops = 1, .ops = &d};

	assert_int_equal(journal_append(j, &e, T0, NULL), 0);
	assert_int_equal(state_fold(s, &e), 0);
}

static void link_and_feed_understand_each_other(void **state)
{
	struct world *w = *state;
	struct state *s;
	struct journal *j;
	struct feed *f;
	struct receipt got = {0};
	struct feed_config fc = {.path = w->cfg.controller_socket,
				 .heartbeat_ms = 1000,
				 .lease_ms = 5000,
				 .signer = w->key,
				 .receipt = no_receipt,
				 .gone = nobody_gone,
				 .arg = &got};
	struct link_state ls;
	struct err err = {0};

	close(w->listener);
	w->listener = open("/dev/null", 0);
	assert_int_equal(state_new(&s), 0);
	assert_int_equal(journal_open(&j, w->dir, w->key, no_entry, s, &err), 0);
	for (unsigned n = 1; n <= 2000; n++)
		decide(j, s, n % 10 == 3 ? DECISION_REVOKE_CERT : DECISION_ENROL, n);
	fc.journal = j;
	fc.state = s;
	if (feed_new(&f, &fc, &err) != 0)
		fail_msg("%s", err.msg);
	w->wall_ms = T0 + 10;
	w->seen.answer = w->link;
	for (unsigned i = 0; i < 200 && !(w->seen.leases > 0 && got.revision == 2000); i++) {
		feed_dispatch(f, w->boot_ms, w->wall_ms);
		feed_tick(f, w->boot_ms, w->wall_ms);
		turn(w);
		w->boot_ms += 50;
		w->wall_ms += 50;
	}
	link_get_state(w->link, &ls);
	assert_int_equal(ls.revision, 2000);
	assert_memory_equal(ls.hash, journal_head(j)->hash, 32);
	assert_int_equal(w->seen.applied, 2000);
	assert_true(w->seen.leases > 0);
	assert_int_equal(w->seen.alarms, 0);
	assert_int_equal(got.revision, 2000);
	assert_string_equal(got.gateway, "gw1");
	feed_free(f);
	journal_close(j);
	state_free(s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(entries_in_order_are_stored_applied_and_answered),
		T(heartbeats_extend_the_lease_only_while_we_hold_the_log),
		T(a_snapshot_takes_us_on_and_keeps_every_revocation),
		T(a_damaged_store_is_believed_up_to_the_damage_and_no_further),
		T(link_and_feed_understand_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
