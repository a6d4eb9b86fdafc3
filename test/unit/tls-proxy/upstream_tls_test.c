/* SPDX-License-Identifier: GPL-3.0-or-later */
/* TLS to an upstream, and how the two ends of a session end. */
#include "test/unit/tls-proxy/upstream_world.h"

static struct {
	const char *name;
	const char *ca, *want, *client; /* of upstream_tls; client "": no certificate */
	bool tls12;
	/* the server */
	const char *cert;
	bool old, asks;
	/* */
	const char *why; /* NULL: works */
} const tls_rows[] = {
	{"by name", "ca", "srv.test", "", false, "srv", false, false, NULL},
	{"by address", "ca", "", "", false, "srv", false, false, NULL},
	{"another name", "ca", "other.test", "", false, "srv", false, false,
	 "the certificate is for another name"},
	{"no such address", "ca", "", "", false, "srv-name", false, false,
	 "the certificate is for another address"},
	{"another CA", "other", "srv.test", "", false, "srv", false, false, "unknown CA"},
	{"a device's certificate", "ca", "dev.test", "", false, "dev-dns", false, false,
	 "wrong key usage: no clientAuth"},
	{"TLS 1.2 where it is not allowed", "ca", "srv.test", "", false, "srv", true, false, ""},
	{"TLS 1.2 where it is", "ca", "srv.test", "", true, "srv", true, false, NULL},
	{"TLS 1.3 where 1.2 is allowed", "ca", "srv.test", "", true, "srv", false, false, NULL},
	{"a client certificate", "ca", "srv.test", "dev", false, "srv", false, true, NULL},
	{"a client certificate in 1.2", "ca", "srv.test", "dev", true, "srv", true, true, NULL},
};
static size_t tls_row;

static void tls_upstream(struct world *w, struct gw_listener *l)
{
	struct gw_upstream_tls *t = &l->upstream_tls;
	char path[128];

	(void)w;
	t->line = 1;
	snprintf(t->ca, sizeof(t->ca), "%s/%s.pem", pki.dir, tls_rows[tls_row].ca);
	strcpy(t->name, tls_rows[tls_row].want);
	t->tls12 = tls_rows[tls_row].tls12;
	if (tls_rows[tls_row].client[0] != '\0') {
		snprintf(t->certificate, sizeof(t->certificate), "%s/%s.pem", pki.dir,
			 tls_rows[tls_row].client);
		snprintf(t->key, sizeof(t->key), "%s/%s.key", pki.dir, tls_rows[tls_row].client);
	}
	server_listen(&tls);
	l->upstreams[0].port = tls.port;
	tls.ctx = wolfSSL_CTX_new(tls_rows[tls_row].old ? wolfTLSv1_2_server_method()
							: wolfTLSv1_3_server_method());
	snprintf(path, sizeof(path), "%s/%s.pem", pki.dir, tls_rows[tls_row].cert);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(tls.ctx, path), WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/%s.key", pki.dir, tls_rows[tls_row].cert);
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(tls.ctx, path, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/ca.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(tls.ctx, path, NULL), WOLFSSL_SUCCESS);
	wolfSSL_CTX_set_verify(tls.ctx,
			       tls_rows[tls_row].asks
				       ? WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT
				       : WOLFSSL_VERIFY_NONE,
			       NULL);
}

static void tls_session_up(struct world *w)
{
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), server_shake(&tls)));
	UNTIL(w, only(w)->state == CONN_RELAY);
}

static void the_server_is_always_verified(void **state)
{
	(void)state;
	for (tls_row = 0; tls_row < sizeof(tls_rows) / sizeof(tls_rows[0]); tls_row++) {
		const char *why = tls_rows[tls_row].why;
		struct world *w;
		uint8_t buf[64];
		void *state2;

		print_message("%s\n", tls_rows[tls_row].name);
		prepare = tls_upstream;
		assert_int_equal(upstream_setup(&state2), 0);
		w = state2;
		if (why == NULL) {
			tls_session_up(w);
			assert_int_equal(wolfSSL_write(w->ssl, "up", 2), 2);
			UNTIL(w, wolfSSL_read(tls.ssl, buf, sizeof(buf)) == 2);
			assert_memory_equal(buf, "up", 2);
			assert_int_equal(wolfSSL_write(tls.ssl, "down", 4), 4);
			UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
			assert_memory_equal(buf, "down", 4);
		} else {
			dev_connect(w);
			UNTIL(w, (wolfSSL_connect(w->ssl), server_shake(&tls),
				  dev_read(w, buf, sizeof(buf)) < 0));
			assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
			/* nothing of the device's, and no regular end of a session */
			assert_true(wolfSSL_read(tls.ssl, buf, sizeof(buf)) < 0);
		}
		upstream_teardown(&state2);
	}
	tls_row = 0;
}

static void bulk_passes_between_two_engines(void **state)
{
	struct world *w = *state;
	const size_t bytes = 1 << 20;
	size_t dev_out = 0, dev_in = 0, up_out = 0, up_in = 0;
	uint64_t end_ms = clock_boot_ms() + 4 * PATIENCE_MS;
	uint8_t buf[16384];

	tls_session_up(w);
	while (dev_in < bytes || up_in < bytes) {
		int n = bytes - dev_out < 3000 ? bytes - dev_out : 3000;

		for (int i = 0; i < n; i++)
			buf[i] = pattern(dev_out + i);
		n = n > 0 ? wolfSSL_write(w->ssl, buf, n) : 0;
		dev_out += n > 0 ? n : 0;
		n = bytes - up_out < 9000 ? bytes - up_out : 9000;
		for (int i = 0; i < n; i++)
			buf[i] = pattern(up_out + i + 5);
		n = n > 0 ? wolfSSL_write(tls.ssl, buf, n) : 0;
		up_out += n > 0 ? n : 0;
		turn(w, 0);
		n = dev_read(w, buf, 1400);
		for (int i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(dev_in + i + 5));
		dev_in += n > 0 ? n : 0;
		n = wolfSSL_read(tls.ssl, buf, 700);
		for (int i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(up_in + i));
		up_in += n > 0 ? n : 0;
		if (clock_boot_ms() > end_ms)
			fail_msg("stuck: device %zu/%zu, upstream %zu/%zu", dev_in, dev_out, up_in,
				 up_out);
	}
}

static bool server_eof(struct server *s)
{
	uint8_t buf[64];
	int n = wolfSSL_read(s->ssl, buf, sizeof(buf));

	return n <= 0 && wolfSSL_get_error(s->ssl, n) == WOLFSSL_ERROR_ZERO_RETURN;
}

static void each_end_of_two_engines_may_close_first(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	tls_session_up(w);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, server_eof(&tls));
	assert_int_equal(wolfSSL_write(tls.ssl, "late", 4), 4);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
	assert_int_equal(w->closed, 0);
	wolfSSL_shutdown(tls.ssl);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "closed");
	dev_drop(w);
	server_drop(&tls);

	tls_session_up(w);
	wolfSSL_shutdown(tls.ssl);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), 0);
	assert_int_equal(wolfSSL_write(w->ssl, "late", 4), 4);
	UNTIL(w, wolfSSL_read(tls.ssl, buf, sizeof(buf)) == 4);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "closed");
}

static void an_upstream_cut_short_is_no_regular_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	tls_session_up(w);
	assert_int_equal(wolfSSL_write(tls.ssl, "part", 4), 4);
	end_shut(tls.fd); /* FIN, and no close_notify */
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 4);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
}

static void a_device_cut_short_is_no_regular_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	ssize_t n = 0;

	/* TLS to the upstream */
	tls_session_up(w);
	end_shut(w->dev);
	UNTIL(w, (errno = 0, n = end_recv(tls.fd, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

static void a_plain_upstream_sees_a_device_cut_short(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	ssize_t n = 0;

	session_up(w);
	UNTIL(w, only(w)->state == CONN_RELAY);
	end_shut(w->dev);
	UNTIL(w, (errno = 0, n = end_recv(w->up, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

static void a_stuck_upstream_holds_little_and_burns_nothing(void **state)
{
	static const uint8_t buf[16384];
	struct world *w = *state;
	size_t total = 0, out;
	uint8_t in[16384];
	int n;

	tls_session_up(w);
	for (unsigned idle = 0; idle < 50;) {
		n = wolfSSL_write(w->ssl, buf, sizeof(buf));
		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
		total += n > 0 ? n : 0;
	}
	/* what the kernels hold between them, and in the worker a record here and there */
	assert_true(total < 12u << 20);
	session_output(only(w)->up_tls, &out);
	assert_true(out <= 40 * 1024);
	assert_true(buffer_waiting(&only(w)->to_up) <= RELAY_BYTES);
	assert_true(wakes(w, 300) < 20);
	/* it goes on when the upstream does: all of it arrives */
	for (size_t got = 0; got<total; got += n> 0 ? n : 0) {
		UNTIL(w, (n = wolfSSL_read(tls.ssl, in, sizeof(in))) > 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(in[i], 0);
	}
}

/* An upstream that takes nothing, for it waits for its own words to be taken: many in one piece, each a record. */
static void who_does_not_read_is_read_all_the_same(void **state)
{
	static const uint8_t buf[16384];
	struct world *w = *state;
	size_t got = 0;
	uint8_t in[64];

	tls_session_up(w);
	for (unsigned idle = 0; idle < 50;) {
		int n = wolfSSL_write(w->ssl, buf, sizeof(buf));

		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
	}
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(wolfSSL_write(tls.ssl, "word", 4), 4);
	UNTIL(w, (got += dev_read(w, in, sizeof(in))) == 800);
}

/* Records that wait for a slow device make no event once they are with the worker. */
static void a_slow_device_gets_all_that_was_said(void **state)
{
	static uint8_t buf[9000];
	struct world *w = *state;
	size_t said = 0, got = 0;

	tls_session_up(w);
	for (unsigned idle = 0; idle < 20; idle++) {
		int n = wolfSSL_write(tls.ssl, buf, sizeof(buf));

		said += n > 0 ? n : 0;
		idle = n > 0 ? 0 : idle;
		turn(w, 1);
	}
	/* what the library still holds of a record goes out with the next byte */
	UNTIL(w, (got += dev_read(w, buf, 1000),
		  got >= said || wolfSSL_write(tls.ssl, buf, sizeof(buf)) == (int)sizeof(buf)));
	said += sizeof(buf);
	UNTIL(w, (got += dev_read(w, buf, 1000)) == said);
}

/* Whoever resets, and whenever: the session ends, and the other side hears no regular end. */
static void a_reset_ends_it_in_every_state(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];
	int fd = -1;

	/* the upstream, before it says a word of TLS */
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), fd = end_accept(tls.listener)) >= 0);
	assert_int_equal(only(w)->state, CONN_CONNECT);
	end_reset(&fd);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	dev_drop(w);
	UNTIL(w, w->closed == 1 && only(w) == NULL);

	/* the device, while its upstream is being reached */
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && only(w) != NULL &&
			 only(w)->state == CONN_CONNECT && only(w)->up_connected);
	dev_reset(w);
	UNTIL(w, w->closed == 2 && only(w) == NULL);
	UNTIL(w, accepted(&tls) >= 0);
	UNTIL(w, end_recv(tls.fd, buf, sizeof(buf)) < 0 && errno != EAGAIN);
	assert_int_equal(errno, ECONNRESET);
	dev_drop(w);
	server_drop(&tls);

	/* the upstream, in the middle */
	tls_session_up(w);
	end_reset(&tls.fd);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	dev_drop(w);
	server_drop(&tls);
	UNTIL(w, w->closed == 3 && only(w) == NULL);

	/* the device, in the middle, and when one direction is over already */
	for (unsigned half = 0; half < 2; half++) {
		ssize_t n = 0;

		tls_session_up(w);
		if (half) {
			wolfSSL_shutdown(tls.ssl);
			UNTIL(w, only(w)->up_eof);
		}
		dev_reset(w);
		UNTIL(w,
		      (errno = 0, n = end_recv(tls.fd, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
		assert_int_equal(n, -1);
		dev_drop(w);
		server_drop(&tls);
		UNTIL(w, w->closed == 4 + half && only(w) == NULL);
	}
}

static void half_closed(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->half_closed_timeout_s = 1;
}

static void a_session_half_closed_does_not_stay_for_ever(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, end_recv(w->up, buf, sizeof(buf)) == 0);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "half-closed and idle");
	dev_drop(w);
	session_up(w);
	end_shut(w->up);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "half-closed and idle");
}

static int tls_group_setup(void **state)
{
	return group_setup(state) != 0 ||
			       pki_cert(&pki, "srv",
					"subjectAltName=DNS:srv.test,IP:127.0.0.1,IP:" END_UPSTREAM
					"\\n"
					"extendedKeyUsage=serverAuth") != 0 ||
			       pki_cert(&pki, "srv-name",
					"subjectAltName=DNS:srv.test\\nextendedKeyUsage="
					"serverAuth") != 0 ||
			       pki_cert(&pki, "dev-dns",
					"subjectAltName=DNS:dev.test\\nextendedKeyUsage="
					"clientAuth") != 0
		       ? -1
		       : 0;
}

PREPARED(tls_upstream)
PREPARED(half_closed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_server_is_always_verified),
		T(bulk_passes_between_two_engines, tls_upstream_setup),
		T(each_end_of_two_engines_may_close_first, tls_upstream_setup),
		T(an_upstream_cut_short_is_no_regular_end, tls_upstream_setup),
		T(a_device_cut_short_is_no_regular_end, tls_upstream_setup),
		T(a_plain_upstream_sees_a_device_cut_short, upstream_setup),
		T(a_stuck_upstream_holds_little_and_burns_nothing, tls_upstream_setup),
		T(who_does_not_read_is_read_all_the_same, tls_upstream_setup),
		T(a_slow_device_gets_all_that_was_said, tls_upstream_setup),
		T(a_reset_ends_it_in_every_state, tls_upstream_setup),
		T(a_session_half_closed_does_not_stay_for_ever, half_closed_setup),
	};

	return WORLD_RUN(tests, tls_group_setup);
}
