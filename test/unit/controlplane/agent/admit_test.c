/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who gets in, what ends a session, and what a failure leaves behind. */
#include "test/unit/controlplane/agent/admit_world.h"

#include <sqlite3.h>

static void a_good_device_gets_in_and_out(void **state)
{
	struct world *w = *state;
	uint64_t end_ms;

	knock(w, CAM, 2, "10.1.0.5");
	assert_int_equal(w->answers, 1);
	assert_int_not_equal(w->admitted.slot, 0);
	assert_int_equal(w->admitted.relay, 1);
	assert_int_equal(w->admitted.generation, generation(w, CAM));
	assert_string_equal(w->admitted.segment_name, "cameras");
	/* the session's own limit is its certificate */
	end_ms = clock_boot_ms() + 2 * 3600000;
	assert_true(w->admitted.expires_ms > end_ms - 5000 &&
		    w->admitted.expires_ms < end_ms + 5000);
	assert_non_null(bound(w, "10.1.0.5"));
	assert_true(bound(w, "10.1.0.5")->lease_ms == CLOCK_NEVER_MS);
	assert_true(in_kernel("10.1.0.5"));
	session_ends(w, 1);
	assert_int_equal(sessions(w), 0);
	assert_true(bound(w, "10.1.0.5")->lease_ms < clock_boot_ms() + 61000);
	bindings_expire(&w->a, clock_boot_ms() + 61000);
	assert_null(bound(w, "10.1.0.5"));
	assert_false(in_kernel("10.1.0.5"));
	turns(w, 2);
	assert_int_equal(w->unbinds, 1);
	knock(w, "spiffe://p/cam/9", 2, "10.1.0.6");
	assert_int_equal(w->answers, 2);
	assert_int_equal(w->admitted.slot, 0);
}

/* Certificates that the store would have after a crash. */
static unsigned certificates_stored(const struct world *w)
{
	sqlite3_stmt *st = NULL;
	char path[128];
	sqlite3 *db;
	unsigned n;

	snprintf(path, sizeof(path), "%s/store.db", w->dir);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM meta WHERE k LIKE 'cert/%'",
					    -1, &st, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = (unsigned)sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

/* Who comes in one turn waits for one write to the disk, and nobody is answered before it. */
static void devices_of_one_turn_are_stored_as_one(void **state)
{
	static const struct {
		const char *name;
		bool dataplane;
	} rows[] = {{"with a dataplane", true}, {"without", false}};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned answers = w->answers, stored = certificates_stored(w);
		uint8_t cert = 20 + i;

		if (!rows[i].dataplane) {
			close(w->dp);
			w->dp = -1;
			turns(w, 3);
		}
		knock_only(w, CAM, cert, "10.1.0.5");
		knock_only(w, CAM2, cert, "10.1.0.6");
		knock_only(w, CAM, cert,
			   "10.1.0.7"); /* the same once more, while it is not stored */
		for (int k = 0; k < 3; k++) {
			assert_int_equal(loop_turn(w->a.loop, 0), 0);
			hear(w, &w->tls, worker_hears);
			hear(w, &w->dp, dataplane_hears);
		}
		assert_int_equal(w->answers, answers);
		assert_int_equal(certificates_stored(w), stored);
		turns(w, 6);
		if (w->answers != answers + 3 || w->admitted.slot == 0)
			fail_msg("%s: %u answers, %s", rows[i].name, w->answers - answers,
				 w->admitted.reason);
		assert_int_equal(certificates_stored(w), 2);
		assert_true(LIST_EMPTY(&w->a.saving));
	}
}

static void what_is_decided_while_the_dataplane_is_asked_counts(void **state)
{
	static const struct {
		const char *name;
		uint8_t op, cert;
		bool in;
	} rows[] = {
		{"nothing", 0, 0, true},
		{"another certificate is revoked", DECISION_REVOKE_CERT, 9, true},
		{"another certificate is pinned", DECISION_ENROL, 9, false},
		{"this one is pinned", DECISION_ENROL, 3, true},
		{"the device is unenrolled", DECISION_UNENROL, 0, false},
		{"and enrolled again", DECISION_ENROL, 0, true},
		{"its certificate is revoked", DECISION_REVOKE_CERT, 3, false},
	};
	struct world *w = *state;

	w->hold_origin = true;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned answers = w->answers;

		/* not refused at the door: that is another test */
		if (i == 5)
			decide_now(w, on_device(DECISION_ENROL, CAM));
		knock(w, CAM, 3, "10.1.0.5");
		assert_int_equal(w->answers, answers);
		if (rows[i].op != 0)
			decide_now(w, rows[i].cert != 0 ? on_cert(rows[i].op, CAM, rows[i].cert)
							: on_device(rows[i].op, CAM));
		reply_origin(w);
		turns(w, 5);
		assert_int_equal(w->answers, answers + 1);
		if ((w->admitted.slot != 0) != rows[i].in)
			fail_msg("%s: slot %u, %s", rows[i].name, w->admitted.slot,
				 w->admitted.reason);
		if (w->admitted.slot != 0)
			session_ends(w, w->session);
		/* pins are no part of the next row */
		if (rows[i].op == DECISION_ENROL)
			decide_now(w, on_device(DECISION_ENROL, CAM));
	}
}

static void a_session_stands_on_its_own_certificate(void **state)
{
	static const struct {
		const char *name;
		uint8_t op, cert;
	} rows[] = {
		{"revoked by itself", DECISION_REVOKE_CERT, 3},
		{"another one is pinned", DECISION_ENROL, 7},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t own = 3 + i;
		struct decision d = on_cert(rows[i].op, CAM, rows[i].cert);
		uint32_t was;

		if (rows[i].op == DECISION_REVOKE_CERT) /* by certificate alone, naming nobody */
			d.has &= ~DECISION_HAS_DEVICE;
		knock(w, CAM, own, "10.1.0.5");
		knock(w, CAM, 7, "10.1.0.5"); /* ends later: the standing rests on it */
		assert_int_not_equal(w->admitted.slot, 0);
		was = w->admitted.generation;
		assert_int_equal(generation(w, CAM), was);
		decide_now(w, d);
		if (generation(w, CAM) != was + 1)
			fail_msg("%s: the session goes on", rows[i].name);
		assert_int_equal(receipt_of(w, w->revision).result, 0);
		/* The device is back before the worker has told of the end: that must not end it again. */
		knock(w, CAM, 7, "10.1.0.5");
		assert_int_equal(w->admitted.generation, was + 1);
		decide_now(w, on_device(DECISION_QUARANTINE, CAM2));
		decide_now(w, on_device(DECISION_RESTORE, CAM2));
		assert_int_equal(generation(w, CAM), was + 1);
		for (uint64_t s = w->session - 2; s <= w->session; s++)
			session_ends(w, s);
	}
}

/* The fast path and the kernel path end with the session, and a restart does not bring the certificate back. */
static void a_list_that_names_its_certificate_ends_everything(void **state)
{
	struct world *w = *state;
	struct msg_session_closed m = {.cert_revoked = 1, .reason = "revoked (CRL)"};
	const struct trust_record *rec;
	struct device *dev;
	uint32_t was;

	knock(w, CAM, 2, "10.1.0.5");
	dev = registry_find(w->a.registry, IDENTITY_URI, CAM);
	rec = &w->a.trust.rec[dev->slot];
	was = w->admitted.generation;
	assert_true(trust_current(rec, was, clock_boot_ms()));
	assert_true(in_kernel("10.1.0.5"));
	m.session = w->session;
	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	assert_int_equal(msg_send(w->tls, &m, -1), 0);
	turns(w, 5);
	assert_false(trust_current(rec, was, clock_boot_ms()));
	assert_false(trust_current(rec, atomic_load(&rec->generation), clock_boot_ms()));
	assert_false(in_kernel("10.1.0.5"));
	admit_cert_load(&w->a, dev);
	assert_false(dev->cert.known);
	/* with another certificate it is back */
	knock(w, CAM, 4, "10.1.0.5");
	assert_int_not_equal(w->admitted.slot, 0);
	assert_true(in_kernel("10.1.0.5"));
}

static void a_binding_is_in_both_planes_or_in_none(void **state)
{
	struct world *w = *state;

	w->refuse_bind = true;
	knock(w, CAM, 3, "10.1.0.5");
	assert_int_equal(w->answers, 1);
	assert_int_equal(w->admitted.slot, 0);
	assert_null(bound(w, "10.1.0.5"));
	assert_false(in_kernel("10.1.0.5"));
	w->refuse_bind = false;
	knock(w, CAM, 3, "10.1.0.5");
	assert_int_not_equal(w->admitted.slot, 0);
	assert_int_equal(w->binds, 2);
	assert_true(in_kernel("10.1.0.5"));
}

static void a_binding_never_outlives_all_its_sessions(void **state)
{
	struct world *w = *state;

	knock(w, CAM, 3, "10.1.0.5");
	knock(w, CAM2, 4, "10.1.0.5"); /* the address is another's for a while */
	assert_ptr_equal(bound(w, "10.1.0.5")->dev,
			 registry_find(w->a.registry, IDENTITY_URI, CAM2));
	knock(w, CAM, 3, "10.1.0.5");
	assert_int_equal(bound(w, "10.1.0.5")->sessions, 2);
	session_ends(w, 1);
	assert_true(bound(w, "10.1.0.5")->lease_ms == CLOCK_NEVER_MS);
	session_ends(w, 2);
	session_ends(w, 3);
	assert_int_equal(bound(w, "10.1.0.5")->sessions, 0);
	assert_true(bound(w, "10.1.0.5")->lease_ms < clock_boot_ms() + 61000);
}

static void session_moves(struct world *w, uint64_t session)
{
	struct msg_session_closed m = {.session = session, .moved = 1, .reason = "test"};

	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	assert_int_equal(msg_send(w->tls, &m, -1), 0);
	turns(w, 3);
}

/* A connection ID took a session to another address: the worker asks for the new one, then ends the old. */
static void an_address_that_was_left_is_unbound_at_once(void **state)
{
	struct world *w = *state;

	decide_now(w, on_device(DECISION_ENROL, CAM));
	knock(w, CAM, 1, "10.1.0.5");
	knock(w, CAM, 1, "10.1.0.6");
	assert_non_null(bound(w, "10.1.0.5"));
	session_moves(w, w->session - 1);
	assert_null(bound(w, "10.1.0.5"));
	assert_false(in_kernel("10.1.0.5"));
	assert_non_null(bound(w, "10.1.0.6"));
	assert_int_equal(sessions(w), 1);
	/* another port of the same address: it stays */
	knock(w, CAM, 1, "10.1.0.6");
	session_moves(w, w->session - 1);
	assert_non_null(bound(w, "10.1.0.6"));
	assert_true(in_kernel("10.1.0.6"));
	assert_int_equal(sessions(w), 1);
	/* and an ordinary end leaves the lease */
	session_ends(w, w->session);
	assert_non_null(bound(w, "10.1.0.6"));
}

static void peers_that_die_in_the_middle(void **state)
{
	struct world *w = *state;

	/* the worker: nothing is left of it but the lease */
	w->hold_origin = true;
	knock(w, CAM, 3, "10.1.0.5");
	close(w->tls);
	w->tls = -1;
	turns(w, 3);
	reply_origin(w);
	turns(w, 5);
	assert_int_equal(sessions(w), 0);
	assert_true(LIST_EMPTY(&w->a.admissions));
	assert_true(bound(w, "10.1.0.5") == NULL ||
		    bound(w, "10.1.0.5")->lease_ms != CLOCK_NEVER_MS);
	/* the dataplane: a session, and no binding that nobody saw */
	w->tls = join(w, MSG_ROLE_TLS);
	knock(w, CAM2, 3, "10.1.0.6");
	close(w->dp);
	w->dp = -1;
	turns(w, 5);
	assert_int_equal(w->answers, 1);
	assert_int_not_equal(w->admitted.slot, 0);
	assert_null(bound(w, "10.1.0.6"));
	/* sessions go with their worker */
	close(w->tls);
	w->tls = -1;
	turns(w, 3);
	assert_int_equal(sessions(w), 0);
}

static void may_change_the_kernel(bool may)
{
	static const cap_value_t admin[] = {CAP_NET_ADMIN};
	cap_t caps = cap_get_proc();

	assert_int_equal(cap_set_flag(caps, CAP_EFFECTIVE, 1, admin, may ? CAP_SET : CAP_CLEAR), 0);
	assert_int_equal(cap_set_proc(caps), 0);
	cap_free(caps);
}

static void the_kernel_plane_follows_or_shuts(void **state)
{
	struct world *w = *state;

	knock(w, CAM, 3, "10.1.0.5");
	knock(w, CAM2, 4, "10.1.0.6");
	assert_true(in_kernel("10.1.0.5"));
	/* nobody has told the agent yet that its table is gone */
	assert_int_equal(sh("nft delete table inet sallyport"), 0);
	decide_now(w, on_cert(DECISION_REVOKE_CERT, CAM, 3));
	assert_int_equal(w->a.nft_retry_ms, 0);
	assert_false(in_kernel("10.1.0.5"));
	assert_true(in_kernel("10.1.0.6"));
	assert_int_equal(receipt_of(w, w->revision).result, 0);
	/* it takes nothing for a while: the receipt says so, the retry puts what should be, not what was */
	may_change_the_kernel(false);
	decide_now(w, on_cert(DECISION_REVOKE_CERT, CAM2, 4));
	assert_int_not_equal(w->a.nft_retry_ms, 0);
	assert_int_equal(receipt_of(w, w->revision).result, -EPERM);
	assert_int_equal(w->a.trust.rec[2].standing, STANDING_REVOKED);
	enforce_tick(&w->a, clock_boot_ms() + 2000);
	assert_int_not_equal(w->a.nft_retry_ms, 0);
	may_change_the_kernel(true);
	assert_true(in_kernel("10.1.0.6"));
	enforce_tick(&w->a, clock_boot_ms() + 20000);
	assert_int_equal(w->a.nft_retry_ms, 0);
	assert_false(in_kernel("10.1.0.6"));
}

static void a_policy_is_in_both_planes(void **state)
{
	struct world *w = *state;
	struct decision d = {.op = DECISION_POLICY,
			     .has = DECISION_HAS_TEXT | DECISION_HAS_FILE,
			     .file = "segments.cfg",
			     .text = strdup(POLICY_MOVED)};
	uint16_t was;

	assert_int_equal(registry_find(w->a.registry, IDENTITY_URI, CAM)->slot, 1);
	knock(w, CAM, 3, "10.1.0.5");
	was = w->a.trust.rec[1].segment;
	/* The record is in the new segment before the dataplane judges by the new policy; the number is new to both. */
	decide_now(w, d);
	assert_int_equal(w->commits, 2); /* one was the sync's */
	assert_int_not_equal(w->segment_at_commit, was);
	assert_int_equal(w->segment_at_commit, policy_endpoint_by_name(w->a.form, "others")->id);
	assert_int_equal(receipt_of(w, w->revision).result, 0);
	assert_int_equal(receipt_of(w, w->revision).untracked, 0);
	/* A dataplane that cannot follow is cut off, and the receipt does not call it in force there. */
	w->refuse_commit = true;
	free(d.text);
	d.text = strdup(POLICY);
	decide_now(w, d);
	turns(w, 5);
	assert_int_equal(w->dp, -1);
	assert_null(peers_dataplane(w->a.peers));
	assert_int_equal(receipt_of(w, w->revision).untracked, 1);
	w->refuse_commit = false;
	dataplane_join(w);
	assert_int_equal(w->commits, 4);
	free(d.text);
}

static void a_dataplane_that_is_not_in_step_begins_again(void **state)
{
	struct world *w = *state;

	close(w->dp);
	w->refuse_commit = true;
	w->dp = -1;
	turns(w, 3);
	w->dp = join(w, MSG_ROLE_DATAPLANE);
	turns(w, 3);
	assert_int_equal(
		msg_send(w->dp,
			 &(struct msg_hdr){.type = MSG_DP_READY, .bytes = sizeof(struct msg_hdr)},
			 -1),
		0);
	turns(w, 6);
	assert_int_equal(w->dp, -1);
	assert_null(peers_dataplane(w->a.peers));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_good_device_gets_in_and_out),
		T(devices_of_one_turn_are_stored_as_one),
		T(what_is_decided_while_the_dataplane_is_asked_counts),
		T(a_session_stands_on_its_own_certificate),
		T(a_list_that_names_its_certificate_ends_everything),
		T(a_binding_is_in_both_planes_or_in_none),
		T(a_binding_never_outlives_all_its_sessions),
		T(an_address_that_was_left_is_unbound_at_once),
		T(peers_that_die_in_the_middle),
		T(the_kernel_plane_follows_or_shuts),
		T(a_policy_is_in_both_planes),
		T(a_dataplane_that_is_not_in_step_begins_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
