/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The link against a server that this test scripts, and against the controller's own feed. Time is an argument. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/agent/link.h"
#include "controlplane/controller/feed.h"
#include "controlplane/stream.h"
#include "controlplane/unix_listen.h"

#define T0 1750000000000ull /* wall clock of the test */
#define CHAIN 6

struct message {
	uint8_t *data;
	size_t bytes;
};

/* What the agent saw. */
struct seen {
	unsigned applied, replayed, snapshots, leases, alarms;
	uint64_t last_revision, lease_ms;
	unsigned revocations_in_snapshot;
	char kind[32], text[512];
	struct link *answer; /* send a receipt for every entry by this link */
};

struct world {
	char dir[64];
	struct cose_signer *key, *other;
	struct message chain[CHAIN + 1]; /* [revision] */
	uint8_t hash[CHAIN + 1][32];
	struct gw_config cfg;
	struct store *store;
	struct link *link;
	struct seen seen;
	uint64_t boot_ms, wall_ms;
	int listener;
	struct stream *server;
	unsigned subscribes, wants, receipts;
	struct frame last_subscribe;
	struct receipt last_receipt;
};

static void on_apply(void *arg, const struct decision_entry *e, bool replay)
{
	struct seen *s = arg;

	s->last_revision = e->revision;
	if (replay)
		s->replayed++;
	else
		s->applied++;
	if (e->snapshot) {
		s->snapshots++;
		s->revocations_in_snapshot = 0;
		for (uint32_t i = 0; i < e->n_ops; i++)
			s->revocations_in_snapshot += decision_is_revocation(&e->ops[i]);
	}
	if (s->answer != NULL && !replay) {
		struct receipt r = {
			.revision = e->revision, .in_force_us = 412, .sessions_closed = 1};

		assert_int_equal(link_receipt(s->answer, &r, NULL), 0);
	}
}

static void on_lease(void *arg, uint64_t until_boot_ms)
{
	struct seen *s = arg;

	s->leases++;
	s->lease_ms = until_boot_ms;
}

static void on_alarm(void *arg, const char *kind, const char *text)
{
	struct seen *s = arg;

	s->alarms++;
	snprintf(s->kind, sizeof(s->kind), "%s", kind);
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static const struct link_callbacks callbacks = {on_apply, on_lease, on_alarm};

/* ---- signed bytes ---- */

static struct decision device_op(uint8_t op, unsigned n)
{
	struct decision d = {.op = op, .identity_kind = IDENTITY_URI, .has = DECISION_HAS_DEVICE};

	snprintf(d.identity, sizeof(d.identity), "spiffe://plant-7/camera/%u", n);
	if (op == DECISION_REVOKE_CERT) {
		d.not_before_ms = T0;
		d.has |= DECISION_HAS_NOT_BEFORE;
	}
	return d;
}

static struct message sign(struct decision_entry *e, const struct cose_signer *key)
{
	struct message m;
	struct err err = {0};

	if (decision_entry_seal(&m.data, &m.bytes, e, key, &err) != 0)
		fail_msg("%s", err.msg);
	return m;
}

/* Revision n with its own operation; revision 3 is a revocation. */
static struct message entry(const struct world *w, uint64_t n, const struct cose_signer *key,
			    uint64_t issued_ms, uint64_t expires_ms, const uint8_t *prev)
{
	struct decision op = device_op(n == 3 ? DECISION_REVOKE_CERT : DECISION_ENROL, (unsigned)n);
	struct decision_entry e = {.revision = n,
				   .issued_ms = issued_ms,
				   .expires_ms = expires_ms,
				   .n_ops = 1,
				   .ops = &op};

	memcpy(e.prev, prev != NULL ? prev : w->hash[n - 1], 32);
	return sign(&e, key);
}

static struct message snapshot(uint64_t revision, const uint8_t hash[32],
			       const struct cose_signer *key)
{
	struct decision op = device_op(DECISION_ENROL, 1);
	struct decision_entry e = {.revision = revision,
				   .issued_ms = T0 + revision,
				   .snapshot = true,
				   .n_ops = 1,
				   .ops = &op};

	memcpy(e.hash, hash, 32);
	return sign(&e, key);
}

static struct message heartbeat(uint64_t revision, const uint8_t hash[32], uint64_t issued_ms,
				const struct cose_signer *key)
{
	struct decision_heartbeat h = {
		.revision = revision, .issued_ms = issued_ms, .lease_ms = 20000};
	struct message m;

	memcpy(h.hash, hash, 32);
	assert_int_equal(decision_heartbeat_seal(&m.data, &m.bytes, &h, key), 0);
	return m;
}

/* ---- the scripted server ---- */

static int server_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct world *w = arg;
	struct frame f;

	assert_int_equal(frame_decode(&f, data, bytes, NULL), 0);
	if (f.type == FRAME_SUBSCRIBE) {
		w->subscribes++;
		w->last_subscribe = f;
	} else if (f.type == FRAME_WANT_SNAPSHOT) {
		w->wants++;
	} else {
		assert_int_equal(f.type, FRAME_RECEIPT);
		w->receipts++;
		w->last_receipt = f.receipt;
	}
	return 0;
}

static void turn(struct world *w)
{
	link_dispatch(w->link, w->boot_ms, w->wall_ms);
	link_tick(w->link, w->boot_ms, w->wall_ms);
	if (w->server != NULL)
		stream_pump(w->server, server_frame, w);
}

static void connect_link(struct world *w)
{
	int fd;

	w->boot_ms += 10000;
	link_tick(w->link, w->boot_ms, w->wall_ms);
	fd = accept(w->listener, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(stream_adopt(&w->server, fd, FRAME_UP_BYTES, 1 << 20), 0);
	turn(w);
}

static void send_raw(struct world *w, enum frame_type type, const void *cose, size_t bytes)
{
	struct frame f = {.type = type, .cose = cose, .cose_bytes = bytes};
	uint8_t *data;
	size_t n;

	assert_int_equal(frame_encode(&data, &n, &f), 0);
	assert_int_equal(stream_send(w->server, data, n), 0);
	free(data);
	turn(w);
}

/* Takes m over. */
static void send_new(struct world *w, enum frame_type type, struct message m)
{
	send_raw(w, type, m.data, m.bytes);
	free(m.data);
}

static void send_chain(struct world *w, uint64_t from, uint64_t to)
{
	for (uint64_t n = from; n <= to; n++)
		send_raw(w, FRAME_ENTRY, w->chain[n].data, w->chain[n].bytes);
}

/* ---- life ---- */

static void open_link(struct world *w)
{
	struct err err = {0};

	if (store_open(&w->store, w->cfg.state_dir, &err) != 0 ||
	    link_new(&w->link, &w->cfg, w->store, &callbacks, &w->seen, &err) != 0)
		fail_msg("%s", err.msg);
}

static void close_link(struct world *w)
{
	link_free(w->link);
	store_close(w->store);
	stream_close(w->server);
	w->link = NULL;
	w->store = NULL;
	w->server = NULL;
}

static void reopen(struct world *w)
{
	close_link(w);
	memset(&w->seen, 0, sizeof(w->seen));
	open_link(w);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char path[128];
	struct err err = {0};

	strcpy(w->dir, "/tmp/sallyport-link-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(cose_key_create(w->dir, &err), 0);
	assert_int_equal(cose_signer_load(&w->key, w->dir, &err), 0);
	assert_int_equal(cose_signer_new(&w->other, &err), 0);
	w->boot_ms = 1000000;
	w->wall_ms = T0 + 1000;
	for (uint64_t n = 1; n <= CHAIN; n++) {
		w->chain[n] = entry(w, n, w->key, T0 + n, 0, NULL);
		cose_sha256(w->hash[n], w->chain[n].data, w->chain[n].bytes);
	}
	snprintf(w->cfg.name, sizeof(w->cfg.name), "gw1");
	snprintf(w->cfg.controller_socket, sizeof(w->cfg.controller_socket), "%s/dec.sock", w->dir);
	snprintf(w->cfg.controller_key, sizeof(w->cfg.controller_key), "%s/controller.pub", w->dir);
	snprintf(w->cfg.state_dir, sizeof(w->cfg.state_dir), "%s/state", w->dir);
	w->cfg.controller_skew_s = 30;
	snprintf(path, sizeof(path), "%s", w->cfg.controller_socket);
	w->listener = unix_listen(path, 4, &err);
	assert_true(w->listener >= 0);
	open_link(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char cmd[128];

	close_link(w);
	for (unsigned n = 1; n <= CHAIN; n++)
		free(w->chain[n].data);
	cose_signer_free(w->key);
	cose_signer_free(w->other);
	close(w->listener);
	snprintf(cmd, sizeof(cmd), "rm -r %s", w->dir);
	assert_int_equal(system(cmd), 0);
	free(w);
	return 0;
}

static uint64_t ours(const struct world *w)
{
	struct link_state s;

	link_get_state(w->link, &s);
	return s.revision;
}

/* ---- tests ---- */

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

	/* A repetition is harmless, and the receipt comes again. */
	send_chain(w, 2, 2);
	assert_int_equal(w->seen.applied, 4);
	assert_int_equal(w->seen.alarms, 0);
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

/* Each is sent while we are at revision 3. */
static void send_foreign_key(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 4, w->other, T0 + 4, 0, NULL));
}

static void send_flipped(struct world *w)
{
	w->chain[4].data[w->chain[4].bytes - 100] ^= 1;
	send_chain(w, 4, 4);
	w->chain[4].data[w->chain[4].bytes - 100] ^= 1;
}

static void send_cut(struct world *w)
{
	send_raw(w, FRAME_ENTRY, w->chain[4].data, w->chain[4].bytes - 10);
}

static void send_garbage_frame(struct world *w)
{
	assert_int_equal(stream_send(w->server, "\x01\x02\x03", 3), 0);
	turn(w);
}

static void send_gateways_frame(struct world *w)
{
	assert_int_equal(stream_send(w->server, "\x81\x03", 2), 0);
	turn(w);
}

static void send_hole(struct world *w)
{
	send_chain(w, 5, 5);
}

static void send_reordered(struct world *w)
{
	send_chain(w, 6, 6);
	send_chain(w, 5, 5);
}

static void send_other_prev(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 4, w->key, T0 + 4, 0, w->hash[2]));
}

static void send_second_version(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 2, w->key, T0 + 9, 0, NULL));
}

static void send_expired(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 4, w->key, T0 + 4, T0 + 900, NULL));
}

static void send_from_the_future(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 4, w->key, T0 + 1000 + 30001, 0, NULL));
}

static void send_from_before(struct world *w)
{
	send_new(w, FRAME_ENTRY, entry(w, 4, w->key, T0 + 2, 0, NULL));
}

static void send_entry_as_snapshot(struct world *w)
{
	send_raw(w, FRAME_SNAPSHOT, w->chain[4].data, w->chain[4].bytes);
}

static void send_foreign_snapshot(struct world *w)
{
	send_new(w, FRAME_SNAPSHOT, snapshot(6, w->hash[6], w->other));
}

static void send_old_snapshot(struct world *w)
{
	send_new(w, FRAME_SNAPSHOT, snapshot(2, w->hash[2], w->key));
}

static void send_snapshot_of_another_history(struct world *w)
{
	send_new(w, FRAME_SNAPSHOT, snapshot(3, w->hash[2], w->key));
}

static void send_foreign_heartbeat(struct world *w)
{
	send_new(w, FRAME_HEARTBEAT, heartbeat(3, w->hash[3], w->wall_ms, w->other));
}

static void send_old_heartbeat(struct world *w)
{
	send_new(w, FRAME_HEARTBEAT, heartbeat(3, w->hash[3], w->wall_ms - 30001, w->key));
}

static void send_heartbeat_from_the_future(struct world *w)
{
	send_new(w, FRAME_HEARTBEAT, heartbeat(3, w->hash[3], w->wall_ms + 30001, w->key));
}

static void send_heartbeat_behind_us(struct world *w)
{
	send_new(w, FRAME_HEARTBEAT, heartbeat(2, w->hash[2], w->wall_ms, w->key));
}

static void send_heartbeat_of_another_history(struct world *w)
{
	send_new(w, FRAME_HEARTBEAT, heartbeat(3, w->hash[2], w->wall_ms, w->key));
}

static const struct {
	const char *name;
	void (*send)(struct world *w);
	const char *kind;
	unsigned alarms;
} attacks[] = {
	{"entry of another key", send_foreign_key, LINK_ALARM_SIGNATURE, 1},
	{"entry with a flipped bit", send_flipped, LINK_ALARM_SIGNATURE, 1},
	{"entry cut short", send_cut, LINK_ALARM_MALFORMED, 1},
	{"frame that is none", send_garbage_frame, LINK_ALARM_MALFORMED, 1},
	{"frame of a gateway", send_gateways_frame, LINK_ALARM_MALFORMED, 1},
	{"revision left out", send_hole, LINK_ALARM_HOLE, 1},
	{"revisions in another order", send_reordered, LINK_ALARM_HOLE, 2},
	{"another previous hash", send_other_prev, LINK_ALARM_FORGED, 1},
	{"second version of a revision", send_second_version, LINK_ALARM_FORGED, 1},
	{"expired entry", send_expired, LINK_ALARM_EXPIRED, 1},
	{"entry from the future", send_from_the_future, LINK_ALARM_CLOCK, 1},
	{"entry older than its predecessor", send_from_before, LINK_ALARM_CLOCK, 1},
	{"entry as snapshot", send_entry_as_snapshot, LINK_ALARM_MALFORMED, 1},
	{"snapshot of another key", send_foreign_snapshot, LINK_ALARM_SIGNATURE, 1},
	{"snapshot from before", send_old_snapshot, LINK_ALARM_ROLLBACK, 1},
	{"snapshot of another history", send_snapshot_of_another_history, LINK_ALARM_FORGED, 1},
	{"heartbeat of another key", send_foreign_heartbeat, LINK_ALARM_SIGNATURE, 1},
	{"heartbeat from long ago", send_old_heartbeat, LINK_ALARM_CLOCK, 1},
	{"heartbeat from the future", send_heartbeat_from_the_future, LINK_ALARM_CLOCK, 1},
	{"heartbeat behind our revision", send_heartbeat_behind_us, LINK_ALARM_ROLLBACK, 1},
	{"heartbeat of another history", send_heartbeat_of_another_history, LINK_ALARM_FORGED, 1},
};

static void what_is_wrong_changes_nothing_and_is_reported(void **state)
{
	struct world *w = *state;

	connect_link(w);
	send_chain(w, 1, 3);
	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		struct link_state before, after;
		unsigned wants;

		/* Far apart, so that no limit on alarms or questions is met. */
		stream_close(w->server);
		w->server = NULL;
		turn(w);
		w->boot_ms += 100000;
		wants = w->wants;
		connect_link(w);
		link_get_state(w->link, &before);
		memset(&w->seen, 0, sizeof(w->seen));
		attacks[i].send(w);
		link_get_state(w->link, &after);
		if (w->seen.applied != 0 || after.revision != before.revision ||
		    memcmp(after.hash, before.hash, 32) != 0 || w->seen.leases != 0)
			fail_msg("%s: it changed something", attacks[i].name);
		if (w->seen.alarms != attacks[i].alarms ||
		    strcmp(w->seen.kind, attacks[i].kind) != 0)
			fail_msg("%s: %u alarms, last %s: %s", attacks[i].name, w->seen.alarms,
				 w->seen.kind, w->seen.text);
		turn(w);
		if (w->wants <= wants)
			fail_msg("%s: no snapshot asked for", attacks[i].name);
	}
	/* And after all that the right one is still taken. */
	send_chain(w, 4, 4);
	assert_int_equal(ours(w), 4);
}

static void a_stream_cut_inside_a_frame_is_reported(void **state)
{
	struct world *w = *state;
	struct link_state s;

	connect_link(w);
	assert_int_equal(send(stream_fd(w->server), "\0\0\1\0xyz", 7, MSG_NOSIGNAL), 7);
	turn(w);
	assert_int_equal(w->seen.alarms, 0);
	stream_close(w->server);
	w->server = NULL;
	turn(w);
	turn(w);
	assert_string_equal(w->seen.kind, LINK_ALARM_MALFORMED);
	link_get_state(w->link, &s);
	assert_false(s.connected);
	connect_link(w); /* and comes back */
	send_chain(w, 1, 1);
	assert_int_equal(ours(w), 1);
}

static void a_length_over_the_limit_ends_the_connection(void **state)
{
	struct world *w = *state;
	struct link_state s;

	connect_link(w);
	assert_int_equal(send(stream_fd(w->server), "\xff\xff\xff\xff", 4, MSG_NOSIGNAL), 4);
	link_dispatch(w->link, w->boot_ms, w->wall_ms);
	link_get_state(w->link, &s);
	assert_false(s.connected);
	assert_string_equal(w->seen.kind, LINK_ALARM_MALFORMED);
}

static void a_flood_is_limited_in_alarms_and_ends_the_connection(void **state)
{
	struct world *w = *state;
	struct link_state s;

	connect_link(w);
	for (unsigned i = 0; i < 15; i++)
		send_hole(w);
	assert_int_equal(w->seen.alarms, 4);
	assert_int_equal(w->wants, 1);
	link_get_state(w->link, &s);
	assert_true(s.connected);
	send_hole(w);
	link_get_state(w->link, &s);
	assert_false(s.connected);
	/* Later one alarm says how many there were. */
	stream_close(w->server);
	w->server = NULL;
	connect_link(w);
	w->boot_ms += 10000;
	send_hole(w);
	assert_non_null(strstr(w->seen.text, "and 12 like it before"));
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
		T(what_is_wrong_changes_nothing_and_is_reported),
		T(a_stream_cut_inside_a_frame_is_reported),
		T(a_length_over_the_limit_ends_the_connection),
		T(a_flood_is_limited_in_alarms_and_ends_the_connection),
		T(heartbeats_extend_the_lease_only_while_we_hold_the_log),
		T(a_snapshot_takes_us_on_and_keeps_every_revocation),
		T(a_damaged_store_is_believed_up_to_the_damage_and_no_further),
		T(link_and_feed_understand_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
