/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Many sessions: each is found by id, slot and time, and nobody else is touched on the way. */
#include "test/unit/tls-proxy/conn_world.h"

#ifndef MANY
#define MANY 10000
#endif

static ssize_t silent_recv(struct stream *s, void *out, size_t bytes)
{
	(void)s, (void)out, (void)bytes;
	return -EAGAIN;
}
static ssize_t silent_send(struct stream *s, const void *data, size_t bytes)
{
	(void)s, (void)data;
	return bytes;
}
static int silent_connected(struct stream *s)
{
	(void)s;
	return 0;
}
static bool silent_unsent(struct stream *s)
{
	(void)s;
	return false;
}
static void silent_want(struct stream *s, uint32_t events)
{
	(void)s, (void)events;
}
static void silent_end(struct stream *s)
{
	(void)s;
}

static const struct stream_ops silent_ops = {
	.recv = silent_recv,
	.send = silent_send,
	.connected = silent_connected,
	.unsent = silent_unsent,
	.want = silent_want,
	.shut = silent_end,
	.close = silent_end,
	.reset = silent_end,
};

/* A session in the middle of its life, whose device says nothing. */
static struct conn *silent(struct world *w, uint32_t slot)
{
	struct conn *c = conn_start(&w->w.listeners[0], &w->cfg.listeners[0].addr, 1);

	assert_non_null(c);
	conn_device(c)->ops = &silent_ops;
	conn_device(c)->w = &w->w;
	c->l->handshakes--;
	c->state = CONN_HELD;
	conn_slot_set(c, slot);
	c->generation = w->table.rec[slot].generation;
	c->expires_ms = UINT64_MAX;
	conn_wake(c);
	return c;
}

static void say(struct world *w, uint32_t slot, uint32_t generation, uint64_t expires_ms)
{
	struct trust_header *h = w->table.hdr;

	w->table.rec[slot].standing = STANDING_FULL;
	w->table.rec[slot].generation = generation;
	w->table.rec[slot].expires_ms = expires_ms;
	w->table.journal[h->journal_head % TRUST_JOURNAL_ENTRIES] = slot;
	h->journal_head++;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int many_setup(void **state)
{
	struct world *w;

	if (setup(state) != 0)
		return -1;
	w = *state;
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	table_make(w, 2 * MANY);
	agent_listen(w);
	UNTIL(w, w->w.agent_up);
	w->cfg.listeners[0].sessions_max = w->cfg.listeners[0].handshakes_max = UINT32_MAX;
	for (uint32_t i = 1; i < 2 * MANY; i++)
		say(w, i, 7, UINT64_MAX);
	return 0;
}

static unsigned closing(const struct world *w)
{
	const struct conn *c;
	unsigned n = 0;

	LIST_FOREACH(c, &w->w.conns, next)
		n += c->state == CONN_CLOSING;
	return n;
}

static void a_session_is_found_by_its_id(void **state)
{
	struct world *w = *state;
	struct conn *c[3];

	for (unsigned i = 0; i < 3; i++) {
		w->w.next_id = i * CONN_BUCKETS; /* the same bucket */
		c[i] = silent(w, 1);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(conn_by_id(&w->w, i * CONN_BUCKETS + 1), c[i]);
	assert_null(conn_by_id(&w->w, 3 * CONN_BUCKETS + 1));
	conn_end(c[1]);
	assert_null(conn_by_id(&w->w, CONN_BUCKETS + 1));
	assert_ptr_equal(conn_by_id(&w->w, 1), c[0]);
	assert_ptr_equal(conn_by_id(&w->w, 2 * CONN_BUCKETS + 1), c[2]);
}

static void a_revocation_among_many_ends_its_own(void **state)
{
	struct world *w = *state;
	struct conn *c, *two;
	uint64_t ns[2];

	for (uint32_t i = 1; i <= MANY; i++)
		c = silent(w, i);
	two = silent(w, 77);
	conns_follow(&w->w);
	assert_int_equal(closing(w), 0);
	/* those of other slots are not even looked at */
	c->l = NULL;
	say(w, 77, 8, UINT64_MAX);
	ns[0] = cpu_ns();
	conns_follow(&w->w);
	ns[0] = cpu_ns() - ns[0];
	ns[1] = cpu_ns();
	conns_follow(&w->w);
	ns[1] = cpu_ns() - ns[1];
	print_message("two of %u sessions end in %u us; nothing new takes %u ns\n", MANY + 1,
		      (unsigned)(ns[0] / 1000), (unsigned)ns[1]);
	c->l = &w->w.listeners[0];
	assert_int_equal(closing(w), 2);
	assert_int_equal(two->state, CONN_CLOSING);
	/* the agent's question finds them counted */
	assert_int_equal(conns_ended(&w->w, 77, clock_boot_ms()), 2);
}

static void every_entry_of_the_journal_counts(void **state)
{
	static const struct {
		const char *name;
		uint32_t slots, entries;
	} rows[] = {{"one", 1, 1},
		    {"some", 50, 50},
		    {"the last that fit", 100, TRUST_JOURNAL_ENTRIES - 1},
		    {"the ring went round once", 100, TRUST_JOURNAL_ENTRIES},
		    {"and further", 100, 3 * TRUST_JOURNAL_ENTRIES + 5}};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct conn *other;

		for (uint32_t s = 1; s <= rows[i].slots; s++)
			silent(w, s);
		other = silent(w, MANY);
		conns_follow(&w->w);
		for (uint32_t s = 1; s <= rows[i].slots; s++)
			say(w, s, 8, UINT64_MAX);
		for (uint32_t n = rows[i].slots; n < rows[i].entries; n++)
			say(w, MANY + 1, 7, UINT64_MAX);
		conns_follow(&w->w);
		if (closing(w) != rows[i].slots || other->state == CONN_CLOSING)
			fail_msg("%s: %u of %u ended", rows[i].name, closing(w), rows[i].slots);
		while (only(w) != NULL)
			conn_end(only(w));
		for (uint32_t s = 1; s <= rows[i].slots; s++)
			say(w, s, 7, UINT64_MAX);
	}
}

static void a_tick_touches_only_what_is_due(void **state)
{
	struct world *w = *state;
	uint64_t now_ms = clock_boot_ms(), ns;
	struct conn *c, *soon, *far;

	w->cfg.listeners[0].idle_timeout_s = 100000;
	conns_tick(&w->w, now_ms);
	for (uint32_t i = 1; i <= MANY; i++) {
		c = silent(w, i);
	}
	conns_tick(&w->w, now_ms += 1000);
	soon = silent(w, 5);
	soon->expires_ms = now_ms + 5000;
	conn_wake(soon);
	far = silent(w, 6);
	far->expires_ms = now_ms + 3 * WHEEL_TICKS * WHEEL_TICK_MS;
	conn_wake(far);
	conns_tick(&w->w, now_ms += 1000); /* buffers of the two went */
	/* whoever is touched before its time loses its listener to it */
	LIST_FOREACH(c, &w->w.conns, next)
		c->l = c == soon || c == far ? c->l : NULL;
	ns = cpu_ns();
	for (unsigned i = 0; i < 3; i++)
		conns_tick(&w->w, now_ms += 999);
	ns = cpu_ns() - ns;
	print_message("a tick of %u sessions, none due: %u ns\n", MANY + 2, (unsigned)(ns / 3));
	assert_int_equal(soon->state, CONN_HELD);
	conns_tick(&w->w, now_ms += 1100);
	assert_int_equal(soon->state, CONN_CLOSING);
	LIST_FOREACH(c, &w->w.conns, next)
		c->l = &w->w.listeners[0];
	/* beyond the wheel's reach: neither early nor late */
	while (now_ms + 1000 < far->expires_ms) {
		conns_tick(&w->w, now_ms += 900);
		assert_int_equal(far->state, CONN_HELD);
	}
	conns_tick(&w->w, far->expires_ms + WHEEL_TICK_MS);
	assert_int_equal(far->state, CONN_CLOSING);
}

static void a_standing_that_is_shortened_ends_in_time(void **state)
{
	struct world *w = *state;
	uint64_t now_ms = clock_boot_ms();
	struct conn *c = silent(w, 3);

	conns_tick(&w->w, now_ms += 2000);
	say(w, 3, 7, now_ms + 1000);
	conns_follow(&w->w);
	assert_int_equal(c->state, CONN_HELD);
	conns_tick(&w->w, now_ms += 900);
	assert_int_equal(c->state, CONN_HELD);
	conns_tick(&w->w, now_ms += 200);
	assert_int_equal(c->state, CONN_CLOSING);
	assert_string_equal(c->reason, "standing expired");
}

static void a_long_sleep_forgets_nobody(void **state)
{
	struct world *w = *state;
	uint64_t now_ms = clock_boot_ms();
	struct conn *c[5];

	conns_tick(&w->w, now_ms);
	for (unsigned i = 0; i < 5; i++) {
		c[i] = silent(w, i + 1);
		c[i]->expires_ms = now_ms + 7000 * (i + 1);
		conn_wake(c[i]);
	}
	conns_tick(&w->w, now_ms + 3600000);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(c[i]->state, CONN_CLOSING);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, many_setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_session_is_found_by_its_id),
		T(a_revocation_among_many_ends_its_own),
		T(every_entry_of_the_journal_counts),
		T(a_tick_touches_only_what_is_due),
		T(a_standing_that_is_shortened_ends_in_time),
		T(a_long_sleep_forgets_nobody),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
