/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who knocks at a listener of DTLS, and what is kept of it. */
#include <malloc.h>

#include "test/unit/tls-proxy/dtls_world.h"

/* The first ClientHello of a device, and nothing of it on any wire. */
static size_t hello_of(struct world *w, const struct how *how, uint8_t *out)
{
	struct device *d = device_new(w, how, 1);
	size_t n;

	d->mute = true;
	wolfSSL_connect(d->ssl);
	memcpy(out, d->last, n = d->last_bytes);
	device_free(d);
	return n;
}

/* Hellos from many addresses that nobody is at: nothing is kept of them, and nobody gets more than he sent. */
static void a_flood_of_hellos_leaves_nothing(void **state)
{
	enum { SOURCES = 200, ROUNDS = 50 };
	struct world *w = *state;
	uint8_t hello[2][1400], buf[2048];
	size_t n[2] = {hello_of(w, HOW_12, hello[0]), hello_of(w, HOW_13_CID, hello[1])};
	struct device *d = device_up(w, HOW_13_CID, 1);
	struct sockaddr_in peer;
	uint64_t proved = port_of(w)->n.proved;
	size_t before = 0, got = 0, sent = 0;
	int fd[SOURCES];

	for (unsigned i = 0; i < SOURCES; i++)
		fd[i] = device_socket(w, 2 + i);
	for (unsigned r = 0; r < ROUNDS; r++) {
		/* what the doors themselves need is there after the first */
		if (r == 1)
			before = mallinfo2().uordblks;
		for (unsigned i = 0; i < SOURCES; i++) {
			const unsigned k = (r + i) % 2;
			ssize_t a;

			hello[k][30 + r % 8] ^= i; /* another random value */
			assert_int_equal(send(fd[i], hello[k], n[k], 0), n[k]);
			if (i % 16 == 15)
				turn(w, 0);
			a = recv(fd[i], buf, sizeof(buf), 0);
			got += a > 0 ? a : 0;
			sent += n[k];
		}
		turn(w, 0);
		turn(w, 0);
	}
	UNTIL(w, port_of(w)->n.hellos >= SOURCES * ROUNDS);
	assert_int_equal(port_of(w)->n.proved, proved);
	assert_int_equal(w->w.listeners[0].sessions, 1);
	assert_int_equal(w->w.listeners[0].handshakes, 0);
	assert_int_equal(port_of(w)->by_address.n, 1);
	print_message("%u hellos: %zd bytes more on the heap, %zu bytes in, %zu out\n",
		      SOURCES * ROUNDS, (ssize_t)(mallinfo2().uordblks - before), sent, got);
	assert_true(mallinfo2().uordblks < before + 4096);
	assert_true(got > 0 && got < sent);
	/* and the device that was there does not notice */
	assert_int_equal(wolfSSL_write(d->ssl, "on", 2), 2);
	UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 2);
	for (unsigned i = 0; i < SOURCES; i++)
		close(fd[i]);
	device_free(d);
}

/* The clock is the worker's; a device that asked before the turn comes back after it. */
static void a_cookie_outlives_its_secret_for_a_while(void **state)
{
	static const struct {
		const char *name;
		unsigned turns;
		bool late, proves;
	} rows[] = {
		{"same secret", 0, false, true},
		{"just turned", 1, false, true},
		{"turned a while ago", 1, true, false},
		{"turned twice", 2, false, false},
	};
	static const struct how *const which[] = {HOW_12, HOW_13_CID};
	struct world *w = *state;
	struct dtls_port *p = port_of(w);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 2; i++) {
		struct device *d = device_new(w, which[i % 2], 1);
		uint64_t proved = p->n.proved, hellos = p->n.hellos;
		uint64_t now_ms = clock_boot_ms();

		wolfSSL_connect(d->ssl);
		UNTIL(w, p->n.hellos == hellos + 1);
		for (unsigned k = 0; k < rows[i / 2].turns; k++)
			dtls_tick(p->l, p->secret_ms + DTLS_SECRET_MS);
		p->secret_ms = rows[i / 2].late ? now_ms - DTLS_SECRET_GRACE_MS - 1 : now_ms;
		wolfSSL_connect(d->ssl); /* with the cookie */
		UNTIL(w, p->n.hellos == hellos + 2);
		if ((p->n.proved == proved + 1) != rows[i / 2].proves)
			fail_msg("%s, %s", rows[i / 2].name, which[i % 2]->name);
		if (only(w) != NULL)
			conn_end(only(w));
		turn(w, 0);
		device_free(d);
	}
}

static void a_cookie_is_good_for_its_own_address_alone(void **state)
{
	static const struct how *const which[] = {HOW_12, HOW_13_CID};
	struct world *w = *state;

	for (size_t i = 0; i < 2; i++) {
		struct device *d = device_new(w, which[i], 1);
		uint64_t hellos = port_of(w)->n.hellos;
		int other = device_socket(w, 2);

		wolfSSL_connect(d->ssl);
		UNTIL(w, port_of(w)->n.hellos == hellos + 1);
		d->mute = true;
		UNTIL(w, (wolfSSL_connect(d->ssl), d->sent == 2));
		assert_int_equal(send(other, d->last, d->last_bytes, 0), d->last_bytes);
		UNTIL(w, port_of(w)->n.hellos == hellos + 2);
		assert_int_equal(port_of(w)->n.proved, 0);
		assert_int_equal(w->w.listeners[0].sessions, 0);
		close(other);
		device_free(d);
	}
}

static void the_limits_hold(void **state)
{
	struct world *w = *state;
	struct device *d[3];

	w->cfg.listeners[0].sessions_max = 2;
	for (unsigned i = 0; i < 2; i++)
		d[i] = device_up(w, HOW_12, 1 + i);
	d[2] = device_new(w, HOW_12, 3);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_not_equal(wolfSSL_connect(d[2]->ssl), WOLFSSL_SUCCESS);
		turn(w, 1);
	}
	assert_int_equal(w->w.listeners[0].sessions, 2);
	assert_true(w->w.listeners[0].turned_away > 0);
	conn_end(only(w));
	for (unsigned i = 0; i < 3; i++)
		device_free(d[i]);
}

/* A restarted device has lost its keys, and takes the port that it had. */
static void a_device_may_begin_anew_from_the_same_address(void **state)
{
	struct world *w = *state;
	struct sockaddr_in peer;
	uint8_t buf[64];

	for (size_t i = 0; i < N_HOWS; i++) {
		struct device *old = device_up(w, &hows[i], 1), *d = device_new(w, &hows[i], 1);
		uint32_t closed = w->closed, admits = w->admits;

		close(d->fd);
		d->fd = dup(old->fd);
		if (!device_connects(w, d))
			fail_msg("%s", hows[i].name);
		UNTIL(w, w->admits == admits + 1 && only(w)->state == CONN_RELAY);
		assert_int_equal(port_of(w)->by_address.n, 1);
		/* one with a connection ID may still come from elsewhere; any other has lost its place */
		UNTIL(w, w->closed == closed + !hows[i].cid);
		assert_int_equal(wolfSSL_write(d->ssl, "new", 3), 3);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 3);
		while (only(w) != NULL)
			conn_end(only(w));
		turn(w, 0);
		device_free(old);
		device_free(d);
	}
}

static void a_quiet_association_is_small(void **state)
{
	enum { N = 64 };
	struct world *w = *state;

	w->cfg.listeners[0].sessions_max = N;
	for (size_t i = 0; i < N_HOWS; i++) {
		struct device *d[N];
		struct conn *c;
		size_t with, bytes;

		for (unsigned k = 0; k < N; k++) {
			uint8_t buf[64];
			struct sockaddr_in peer;

			d[k] = device_up(w, &hows[i], 1 + k);
			assert_int_equal(wolfSSL_write(d[k]->ssl, "on", 2), 2);
			UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 2);
		}
		LIST_FOREACH(c, &w->w.conns, next) {
			c->active_ms = clock_boot_ms() - QUIET_MS;
			conn_due(c, clock_boot_ms());
		}
		with = mallinfo2().uordblks;
		while (only(w) != NULL)
			conn_end(only(w));
		turn(w, 0);
		bytes = (with - mallinfo2().uordblks) / N;
		print_message("%s: %zu bytes\n", hows[i].name, bytes);
		assert_true(bytes < 16000);
		for (unsigned k = 0; k < N; k++)
			device_free(d[k]);
	}
}

static void the_first_record_says_whose_a_datagram_is(void **state)
{
	static const uint8_t hello[] = {
		22,   0xfe, 0xff, 0,  0,    0, 0, 0, 0, 0, 0, 0,  54, /* record */
		1,    0,    0,	  42, 0,    0, 0, 0, 0, 0, 0, 42, /* handshake */
		0xfe, 0xfd, 1,	  2,  3,    4, 5, 6, 7, 8, 0, 0,  0,  0, 0, 0,
		0,    0, /* version, random */
		0,    0,    0,	  0,  0,    0, 0, 0, 0, 0, 0, 0,  0,  0, 0, 0, /* its rest */
		0,    0,    0,	  2,  0x13, 1, 1, 0 /* session, cookie, suites, compression */
	};
	static const struct {
		const char *name;
		unsigned at, value, bytes; /* a change; 0: of nothing; bytes: 0: all */
		enum dtls_kind kind;
		bool begins;
	} rows[] = {
		{"a hello", 0, 22, 0, DTLS_HELLO, true},
		{"cut in the record's header", 0, 22, 12, DTLS_NOTHING, false},
		{"cut in the handshake's header", 0, 22, 24, DTLS_NOTHING, false},
		{"cut in the record", 0, 22, sizeof(hello) - 1, DTLS_NOTHING, false},
		{"another protocol", 1, 3, 0, DTLS_NOTHING, false},
		{"SSL's message", 0, 0x80, 0, DTLS_NOTHING, false},
		{"no type of DTLS", 0, 27, 0, DTLS_NOTHING, false},
		{"an alert", 0, 21, 0, DTLS_RECORD, false},
		{"of epoch 1", 4, 1, 0, DTLS_RECORD, false},
		{"another handshake message", 13, 2, 0, DTLS_RECORD, false},
		{"a later piece", 21, 9, 0, DTLS_NOTHING, false},
		{"a message shorter than its piece", 16, 41, 0, DTLS_NOTHING, false},
		{"a longer message, of which this is the first piece", 16, 99, 0, DTLS_HELLO, true},
		{"a session beyond the end", 59, 200, 0, DTLS_NOTHING, false},
		{"a cookie that takes what follows", 60, 2, 0, DTLS_NOTHING, false},
		{"DTLS 1.2 with an ID", 0, 25, 0, DTLS_CID, false},
		{"DTLS 1.2 with an ID, cut", 0, 25, 20, DTLS_NOTHING, false},
		{"DTLS 1.3 with an ID", 0, 0x3c, 0, DTLS_CID, false},
		{"DTLS 1.3 with an ID, cut", 0, 0x3c, 8, DTLS_NOTHING, false},
		{"DTLS 1.3 without", 0, 0x2c, 0, DTLS_RECORD, false},
		{"nothing", 0, 22, 1, DTLS_NOTHING, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t one[sizeof(hello)];
		struct dtls_record r;
		enum dtls_kind kind;

		memcpy(one, hello, sizeof(one));
		one[rows[i].at] = rows[i].value;
		kind = dtls_record_read(&r, one, rows[i].bytes != 0 ? rows[i].bytes : sizeof(one));
		if (kind != rows[i].kind || r.begins != rows[i].begins)
			fail_msg("%s: %d, begins %d, cookie %d", rows[i].name, kind, r.begins,
				 r.cookie);
		assert_true(r.bytes <= sizeof(one));
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, dtls_setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_flood_of_hellos_leaves_nothing),
		T(a_cookie_outlives_its_secret_for_a_while),
		T(a_cookie_is_good_for_its_own_address_alone),
		T(the_limits_hold),
		T(a_device_may_begin_anew_from_the_same_address),
		T(a_quiet_association_is_small),
		cmocka_unit_test(the_first_record_says_whose_a_datagram_is),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
