/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What an attacker on the transport can send to the link: nothing of it may change anything, all of it is reported. */
#include "test/unit/controlplane/agent/link_world.h"

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
	{"revisions in another order", send_reordered, LINK_ALARM_HOLE, 1},
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
		send_new(w, FRAME_SNAPSHOT,
			 snapshot(3, w->hash[3], w->key)); /* settles the row before */
		w->boot_ms += 2000;
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
	/* And after all that the right one is still taken, once the controller has said where it is. */
	send_chain(w, 4, 4);
	assert_int_equal(ours(w), 3);
	send_new(w, FRAME_SNAPSHOT, snapshot(3, w->hash[3], w->key));
	send_chain(w, 4, 4);
	assert_int_equal(ours(w), 4);
	send_foreign_key(w);
	send_chain(w, 5, 5);
	assert_int_equal(ours(w), 4);
	send_new(w, FRAME_HEARTBEAT, heartbeat(4, w->hash[4], w->wall_ms, w->key));
	send_chain(w, 5, 5);
	assert_int_equal(ours(w), 5);
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
		send_cut(w);
	assert_int_equal(w->seen.alarms, 4);
	assert_int_equal(w->wants, 1);
	link_get_state(w->link, &s);
	assert_true(s.connected);
	send_cut(w);
	link_get_state(w->link, &s);
	assert_false(s.connected);
	/* Later one alarm says how many there were. */
	stream_close(w->server);
	w->server = NULL;
	connect_link(w);
	w->boot_ms += 10000;
	send_cut(w);
	assert_non_null(strstr(w->seen.text, "and 12 like it before"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(what_is_wrong_changes_nothing_and_is_reported),
		T(a_stream_cut_inside_a_frame_is_reported),
		T(a_length_over_the_limit_ends_the_connection),
		T(a_flood_is_limited_in_alarms_and_ends_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
