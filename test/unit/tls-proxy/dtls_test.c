/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Devices that speak DTLS: their handshakes, their datagrams, and where they are. */
#include "test/unit/tls-proxy/dtls_world.h"
#include "tls-proxy/transcript.h"

static void a_datagram_stays_a_datagram(void **state)
{
	static const size_t sizes[] = {1, 100, 1100, 1472, 4000, 15000};
	struct world *w = *state;
	struct sockaddr_in peer;
	uint8_t out[16384], in[20000];

	for (size_t i = 0; i < N_HOWS; i++) {
		uint64_t spared = transcript_seen().spared;
		struct device *d = device_up(w, &hows[i], 1);

		assert_int_equal(transcript_seen().spared > spared, hows[i].v13);
		print_message("%s: %s %s %s\n", hows[i].name, session_version(only(w)->tls),
			      session_cipher(only(w)->tls), session_group(only(w)->tls));
		assert_int_equal(w->admit.flow.proto, POLICY_PROTO_UDP);
		assert_int_equal(session_dtls_has_cid(only(w)->tls), hows[i].cid);
		for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
			ssize_t n = -1;

			for (size_t b = 0; b < sizes[k]; b++)
				out[b] = pattern(b + k);
			/* the library's own devices send no record beyond the link's size */
			if (sizes[k] <= 1100) {
				assert_int_equal(wolfSSL_write(d->ssl, out, sizes[k]), sizes[k]);
				UNTIL(w, (n = upstream_gets(w, in, sizeof(in), &peer)) >= 0);
				assert_int_equal(n, sizes[k]);
				assert_memory_equal(in, out, n);
			}
			wolfSSL_dtls_set_mtu(d->ssl, 16384);
			upstream_says(w, &peer, out, sizes[k]);
			UNTIL(w, (n = device_reads(d, in, sizeof(in))) != 0);
			wolfSSL_dtls_set_mtu(d->ssl, 1400);
			assert_int_equal(n, sizes[k]);
			assert_memory_equal(in, out, n);
		}
		wolfSSL_shutdown(d->ssl);
		UNTIL(w, w->closed == i + 1);
		assert_string_equal(w->last_closed.reason, "closed");
		assert_null(only(w));
		device_free(d);
	}
	assert_int_equal(port_of(w)->by_address.n + port_of(w)->by_cid.n, 0);
}

/* RFC 9147 section 4.3: each record of a datagram is a datagram of its own behind us, and none waits for the next. */
static void records_that_come_together_go_on_at_once(void **state)
{
	struct world *w = *state;
	struct sockaddr_in peer;
	uint8_t both[2 * DATAGRAM_BYTES], in[64];

	for (size_t i = 0; i < N_HOWS; i++) {
		struct device *d = device_up(w, &hows[i], 1);
		size_t first;
		ssize_t n = -1;

		d->mute = true;
		assert_int_equal(wolfSSL_write(d->ssl, "one", 3), 3);
		first = d->last_bytes;
		memcpy(both, d->last, first);
		assert_int_equal(wolfSSL_write(d->ssl, "two", 3), 3);
		memcpy(both + first, d->last, d->last_bytes);
		d->mute = false;
		assert_int_equal(send(d->fd, both, first + d->last_bytes, 0),
				 first + d->last_bytes);
		UNTIL(w, (n = upstream_gets(w, in, sizeof(in), &peer)) >= 0);
		assert_int_equal(n, 3);
		assert_memory_equal(in, "one", 3);
		UNTIL(w, (n = upstream_gets(w, in, sizeof(in), &peer)) >= 0);
		assert_int_equal(n, 3);
		assert_memory_equal(in, "two", 3);
		wolfSSL_shutdown(d->ssl);
		UNTIL(w, w->closed == i + 1);
		device_free(d);
	}
}

static void a_bad_wire_delays_and_loses_and_no_more(void **state)
{
	static const struct {
		const char *name;
		unsigned lose, repeat, swap;
	} rows[] = {
		{"losing", 20, 0, 0},
		{"repeating", 0, 30, 0},
		{"reordering", 0, 0, 30},
		{"all of it", 10, 10, 10},
	};
	struct world *w = *state;

	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (size_t i = 0; i < N_HOWS; i++) {
			struct device *d = device_new(w, &hows[i], 1);
			uint32_t closed = w->closed, admits = w->admits;
			uint8_t seen_up[200] = {0}, seen_down[200] = {0};
			struct sockaddr_in peer;
			unsigned up = 0, down = 0;
			uint32_t one;

			d->in.lose_pct = d->out.lose_pct = rows[r].lose;
			d->in.repeat_pct = d->out.repeat_pct = rows[r].repeat;
			d->in.swap_pct = d->out.swap_pct = rows[r].swap;
			if (!device_connects(w, d))
				fail_msg("%s, %s: %d", rows[r].name, hows[i].name,
					 wolfSSL_get_error(d->ssl, 0));
			for (unsigned k = 0; k < 20000 && w->admits == admits; k++) {
				device_reads(d, &one, sizeof(one));
				turn(w, k % 8 == 0);
				if (k % 64 == 0)
					time_passes(w, d);
			}
			assert_int_equal(w->admits, admits + 1);
			UNTIL(w, only(w)->state == CONN_RELAY);
			for (uint32_t k = 0; k < 200; k++) {
				assert_int_equal(wolfSSL_write(d->ssl, &k, sizeof(k)), sizeof(k));
				turn(w, 0);
				while (upstream_gets(w, &one, sizeof(one), &peer) == sizeof(one)) {
					assert_true(one < 200 && seen_up[one]++ == 0);
					up++;
					upstream_says(w, &peer, &one, sizeof(one));
				}
				turn(w, 0);
				while (device_reads(d, &one, sizeof(one)) == sizeof(one)) {
					assert_true(one < 200 && seen_down[one]++ == 0);
					down++;
				}
			}
			if (up < 100 || down < 60)
				fail_msg("%s, %s: %u up, %u down", rows[r].name, hows[i].name, up,
					 down);
			conn_close(only(w), 0, "test");
			UNTIL(w, w->closed == closed + 1);
			device_free(d);
		}
	}
	assert_int_equal(w->refused, 0);
}

/* The device's next datagrams come from another socket. */
static void device_moves(struct world *w, struct device *d, uint8_t host)
{
	int fd = device_socket(w, host);

	close(d->fd);
	d->fd = fd;
}

static void a_device_with_a_connection_id_may_move(void **state)
{
	static const struct how *const which[] = {HOW_12_CID, HOW_13_CID};
	struct world *w = *state;
	struct sockaddr_in peer;
	struct ip_addr second;
	uint8_t buf[64];

	ip_addr_parse(&second, "127.0.0.2");
	for (size_t i = 0; i < 2; i++) {
		uint32_t closed = w->closed, admits = w->admits;
		struct device *d;
		uint64_t id;

		w->answer = ANSWER_YES;
		d = device_up(w, which[i], 1);
		id = only(w)->id;
		only(w)->assoc->moved_ms = 0;
		w->answer = ANSWER_NEVER;
		device_moves(w, d, 2);
		assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
		UNTIL(w, w->admits == admits + 2);
		/* asked for the new place, and nothing passes before the answer */
		assert_true(ip_addr_eq(&w->admit.flow.src, &second));
		assert_int_equal(w->admit.flow.proto, POLICY_PROTO_UDP);
		assert_true(w->admit.session != id);
		assert_int_equal(wolfSSL_write(d->ssl, "two", 3), 3);
		turn(w, 20);
		assert_int_equal(upstream_gets(w, buf, sizeof(buf), &peer), -1);
		assert_int_equal(w->closed, closed);
		agent_answer(w);
		UNTIL(w, w->closed == closed + 1);
		/* the session of the old place is over, and says why */
		assert_int_equal(w->last_closed.session, id);
		assert_int_equal(w->last_closed.moved, 1);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 4);
		assert_memory_equal(buf, "here", 4);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 3);
		upstream_says(w, &peer, "back", 4);
		UNTIL(w, device_reads(d, buf, sizeof(buf)) == 4);
		assert_int_equal(port_of(w)->n.moved, i + 1);
		assert_int_equal(port_of(w)->by_address.n, 1);
		wolfSSL_shutdown(d->ssl);
		UNTIL(w, w->closed == closed + 2);
		assert_int_equal(w->last_closed.session, w->admit.session);
		assert_int_equal(w->last_closed.moved, 0);
		device_free(d);
	}
	assert_int_equal(w->refused, 0);
}

static void a_move_that_is_refused_ends_the_session(void **state)
{
	struct world *w = *state;
	struct sockaddr_in peer;
	struct device *d = device_up(w, HOW_12_CID, 1);
	uint8_t buf[64];

	only(w)->assoc->moved_ms = 0;
	w->answer = ANSWER_NO;
	device_moves(w, d, 2);
	assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
	UNTIL(w, device_reads(d, buf, sizeof(buf)) < 0);
	assert_int_equal(device_alert(d), SESSION_ALERT_ACCESS_DENIED);
	UNTIL(w, w->closed == 1 && only(w) == NULL);
	assert_int_equal(w->last_closed.moved, 1);
	assert_int_equal(w->refused, 1);
	assert_int_equal(upstream_gets(w, buf, sizeof(buf), &peer), -1);
	device_free(d);
}

static void an_agent_that_is_gone_admits_no_move(void **state)
{
	struct world *w = *state;
	struct device *d = device_up(w, HOW_13_CID, 1);
	uint8_t buf[64];

	only(w)->assoc->moved_ms = 0;
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	device_moves(w, d, 2);
	assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
	UNTIL(w, device_reads(d, buf, sizeof(buf)) < 0);
	assert_int_equal(device_alert(d), SESSION_ALERT_INTERNAL_ERROR);
	device_free(d);
}

static void without_a_connection_id_a_new_address_is_a_stranger(void **state)
{
	struct world *w = *state;
	struct sockaddr_in peer;
	struct device *d = device_up(w, HOW_12, 1);
	uint8_t buf[64];
	int first = d->fd;

	d->fd = device_socket(w, 2);
	assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
	UNTIL(w, port_of(w)->n.stray == 1);
	assert_int_equal(w->admits, 1);
	assert_int_equal(upstream_gets(w, buf, sizeof(buf), &peer), -1);
	close(d->fd);
	d->fd = first;
	assert_int_equal(wolfSSL_write(d->ssl, "home", 4), 4);
	UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 4);
	assert_memory_equal(buf, "home", 4);
	device_free(d);
}

static void only_a_new_record_moves_an_association(void **state)
{
	static const struct how *const which[] = {HOW_12_CID, HOW_13_CID};
	struct world *w = *state;
	struct sockaddr_in peer;
	uint8_t buf[64], old[256], late[256];
	size_t old_bytes, late_bytes;

	for (size_t i = 0; i < 2; i++) {
		struct device *d = device_up(w, which[i], 1);
		uint64_t unmoved = port_of(w)->n.unmoved, moved = port_of(w)->n.moved;
		uint32_t admits = w->admits;
		int other = device_socket(w, 2);

		only(w)->assoc->moved_ms = 0;
		assert_int_equal(wolfSSL_write(d->ssl, "one", 3), 3);
		memcpy(old, d->last, old_bytes = d->last_bytes);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 3);
		/* this one is overtaken by the next */
		d->mute = true;
		assert_int_equal(wolfSSL_write(d->ssl, "late", 4), 4);
		memcpy(late, d->last, late_bytes = d->last_bytes);
		d->mute = false;
		assert_int_equal(wolfSSL_write(d->ssl, "three", 5), 5);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 5);
		/* repeated */
		assert_int_equal(send(other, old, old_bytes, 0), old_bytes);
		UNTIL(w, port_of(w)->n.unmoved == unmoved + 1);
		/* overtaken */
		assert_int_equal(send(other, late, late_bytes, 0), late_bytes);
		UNTIL(w, port_of(w)->n.unmoved == unmoved + 2);
		/* forged */
		late[late_bytes - 1] ^= 1;
		late[late_bytes - 20] ^= 1;
		assert_int_equal(send(other, late, late_bytes, 0), late_bytes);
		UNTIL(w, port_of(w)->n.unmoved == unmoved + 3);
		/* with an ID of nobody */
		unmoved = port_of(w)->n.stray;
		late[(i == 0 ? 11 : 1) + 3] ^= 1;
		assert_int_equal(send(other, late, late_bytes, 0), late_bytes);
		UNTIL(w, port_of(w)->n.stray == unmoved + 1);
		assert_int_equal(port_of(w)->n.moved, moved);
		assert_int_equal(w->admits, admits);
		assert_int_equal(upstream_gets(w, buf, sizeof(buf), &peer), -1);
		/* and the device goes on where it is */
		assert_int_equal(wolfSSL_write(d->ssl, "still", 5), 5);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 5);
		upstream_says(w, &peer, "ok", 2);
		UNTIL(w, device_reads(d, buf, sizeof(buf)) == 2);
		wolfSSL_shutdown(d->ssl);
		UNTIL(w, only(w) == NULL);
		close(other);
		device_free(d);
	}
}

static void the_table_ends_associations(void **state)
{
	static const struct how *const which[] = {HOW_12, HOW_13_CID};
	struct world *w = *state;
	struct sockaddr_in peer;
	uint8_t buf[64];

	for (size_t i = 0; i < 2; i++) {
		struct device *d;

		table_say(w, STANDING_FULL, UINT64_MAX, 7);
		d = device_up(w, which[i], 1);
		assert_int_equal(wolfSSL_write(d->ssl, "one", 3), 3);
		UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 3);
		table_say(w, STANDING_REVOKED, 0, 8);
		/* its very next datagram, and the upstream's, go nowhere */
		assert_int_equal(wolfSSL_write(d->ssl, "two", 3), 3);
		upstream_says(w, &peer, "no", 2);
		UNTIL(w, device_reads(d, buf, sizeof(buf)) < 0);
		assert_int_equal(device_alert(d), SESSION_ALERT_CERTIFICATE_REVOKED);
		UNTIL(w, w->closed == i + 1);
		assert_string_equal(w->last_closed.reason, "revoked");
		assert_int_equal(upstream_gets(w, buf, sizeof(buf), &peer), -1);
		assert_null(only(w));
		device_free(d);
	}
}

static void silence_ends_an_association(void **state)
{
	struct world *w = *state;
	struct device *d = device_up(w, HOW_12, 1);
	uint8_t buf[64];

	only(w)->active_ms = 0;
	only(w)->wake_ms = 0;
	conn_wake_at(only(w), 1);
	UNTIL(w, device_reads(d, buf, sizeof(buf)) < 0);
	assert_int_equal(device_alert(d), 0);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "idle");
	device_free(d);
}

/* One datagram with the header of a device at this address, and this text behind it. */
static void expect_header(struct world *w, uint8_t host, const char *text)
{
	static const uint8_t head[] = {'\r', '\n', '\r', '\n', 0,   '\r',
				       '\n', 'Q',  'U',	 'I',  'T', '\n'};
	struct sockaddr_in peer;
	uint8_t buf[4096];
	ssize_t n = -1;

	UNTIL(w, (n = upstream_gets(w, buf, sizeof(buf), &peer)) >= 0);
	assert_true(n > 16 + 12);
	assert_memory_equal(buf, head, sizeof(head));
	assert_int_equal(buf[12], 0x21); /* version 2, PROXY */
	assert_int_equal(buf[13], 0x12); /* UDP over IPv4 */
	assert_int_equal(16 + (buf[14] << 8 | buf[15]) + strlen(text), n);
	assert_int_equal(buf[16], 127);
	assert_int_equal(buf[19], host);
	assert_memory_equal(buf + n - strlen(text), text, strlen(text));
}

static void each_datagram_has_the_proxy_header(void **state)
{
	struct world *w = *state;
	struct device *d;

	w->cfg.listeners[0].proxy_protocol = true;
	d = device_up(w, HOW_13_CID, 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wolfSSL_write(d->ssl, "datagram", 8), 8);
		expect_header(w, 1, "datagram");
	}
	/* and it says where the device is, not where it was */
	only(w)->assoc->moved_ms = 0;
	device_moves(w, d, 2);
	assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
	expect_header(w, 2, "here");
	assert_int_equal(wolfSSL_write(d->ssl, "again", 5), 5);
	expect_header(w, 2, "again");
	device_free(d);
}

static void what_comes_while_it_is_admitted_waits(void **state)
{
	struct world *w = *state;
	struct device *d = device_new(w, HOW_13_CID, 1);
	struct sockaddr_in peer;
	uint8_t one;

	w->answer = ANSWER_NEVER;
	assert_true(device_connects(w, d));
	UNTIL(w, w->admits == 1);
	for (uint8_t i = 0; i < DTLS_WAITING_MAX + 3; i++)
		assert_int_equal(wolfSSL_write(d->ssl, &i, 1), 1);
	/* an acknowledgement of the handshake's end may be among them */
	UNTIL(w, port_of(w)->n.overrun >= 3);
	assert_int_equal(upstream_gets(w, &one, 1, &peer), -1);
	agent_answer(w);
	for (uint8_t i = 0; i < DTLS_WAITING_MAX - 1; i++) {
		UNTIL(w, upstream_gets(w, &one, 1, &peer) == 1);
		assert_int_equal(one, i);
	}
	device_free(d);
}

static void an_upstream_that_is_not_there_loses_datagrams_and_no_more(void **state)
{
	struct world *w = *state;
	struct device *d = device_up(w, HOW_12, 1);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in peer;
	uint8_t buf[64];

	in.sin_port = htons(w->cfg.listeners[0].upstreams[0].port);
	close(w->up_listener);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(wolfSSL_write(d->ssl, "lost", 4), 4);
		turn(w, 10);
	}
	assert_int_equal(w->closed, 0);
	w->up_listener = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(w->up_listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(wolfSSL_write(d->ssl, "found", 5), 5);
	UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 5);
	device_free(d);
}

/* A device of the one worker, whose datagrams the kernel gives to the other as soon as it moves. */
static struct device *device_of(struct world *w, struct worker *other)
{
	for (unsigned host = 1; host < 60; host++) {
		struct device *d = device_new(w, HOW_13_CID, host);
		uint64_t hellos = port_of(w)->n.hellos, others = other->listeners[0].dtls->n.hellos;

		wolfSSL_connect(d->ssl);
		UNTIL(w, (worker_turn(other, 0),
			  port_of(w)->n.hellos + other->listeners[0].dtls->n.hellos >
				  hellos + others));
		if (port_of(w)->n.hellos > hellos) {
			assert_true(device_connects(w, d));
			UNTIL(w, w->admits == 1 && only(w)->state == CONN_RELAY);
			return d;
		}
		device_free(d);
	}
	fail_msg("the kernel gives everything to the other worker");
	return NULL;
}

static void a_device_that_moves_stays_with_its_worker(void **state)
{
	struct world *w = *state;
	struct worker *other = calloc(1, sizeof(*other));
	struct dtls_counters *n;
	struct sockaddr_in peer;
	struct err err = {""};
	uint8_t buf[64], forged[40] = {0x3c};
	struct device *d;

	w->cfg.n_listeners = 1;
	other->cfg = &w->cfg;
	other->index = 1;
	other->agent.fd = other->signals.fd = other->wake.fd = -1;
	other->agent_retry_ms = UINT64_MAX;
	other->epoll = epoll_create1(0);
	conns_init(other);
	other->tick_ms = UINT64_MAX;
	assert_int_equal(listener_open(other, &other->listeners[0], &w->cfg.listeners[0], 0, &err),
			 0);
	other->n_listeners = 1;
	assert_int_equal(dtls_steer_open(&w->w, &err), 0);
	assert_int_equal(dtls_steer_open(other, &err), 0);
	n = &other->listeners[0].dtls->n;
	d = device_of(w, other);
	for (unsigned host = 100; n->steered < 3; host++) {
		assert_true(host < 200);
		only(w)->assoc->moved_ms = 0;
		device_moves(w, d, host);
		assert_int_equal(wolfSSL_write(d->ssl, "here", 4), 4);
		UNTIL(w, (worker_turn(other, 0), upstream_gets(w, buf, sizeof(buf), &peer) == 4));
		upstream_says(w, &peer, "ok", 2);
		UNTIL(w, device_reads(d, buf, sizeof(buf)) == 2);
	}
	assert_int_equal(other->listeners[0].sessions, 0);
	/* of a third worker, which is not there; and of this one, but nobody's: no way round and round */
	for (unsigned index = 0; index < 3; index++) {
		uint64_t stray = port_of(w)->n.stray + n->stray;

		forged[1] = index;
		assert_int_equal(send(d->fd, forged, sizeof(forged), 0), sizeof(forged));
		UNTIL(w, (worker_turn(other, 0), port_of(w)->n.stray + n->stray == stray + 1));
	}
	device_free(d);
	worker_stop(other);
	free(other);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, dtls_setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_datagram_stays_a_datagram),
		T(records_that_come_together_go_on_at_once),
		T(a_bad_wire_delays_and_loses_and_no_more),
		T(a_device_with_a_connection_id_may_move),
		T(a_move_that_is_refused_ends_the_session),
		T(an_agent_that_is_gone_admits_no_move),
		T(without_a_connection_id_a_new_address_is_a_stranger),
		T(only_a_new_record_moves_an_association),
		T(a_device_that_moves_stays_with_its_worker),
		T(the_table_ends_associations),
		T(silence_ends_an_association),
		T(each_datagram_has_the_proxy_header),
		T(what_comes_while_it_is_admitted_waits),
		T(an_upstream_that_is_not_there_loses_datagrams_and_no_more),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
