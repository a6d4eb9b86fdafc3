/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a listener of DTLS offers, to how many, and to whom it passes them on. */
#include "test/unit/tls-proxy/dtls_world.h"
#include "test/unit/tls-proxy/mldsa.h"

/* ---- AES-CCM ---- */

static void ccm_prepare(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->aes_ccm = true;
}

static int ccm_setup(void **state)
{
	world_prepare = ccm_prepare;
	return dtls_setup(state);
}

static int plain_setup(void **state)
{
	world_prepare = NULL;
	return dtls_setup(state);
}

struct offer {
	const char *name;
	bool v13;
	const char *suites, *want; /* NULL: refused */
};

static void offers_check(struct world *w, const struct offer *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct how how = {rows[i].name, rows[i].v13, false, 0};
		struct device *d = device_new(w, &how, 1 + i);
		struct sockaddr_in peer;
		uint8_t buf[64];
		bool open;

		assert_int_equal(wolfSSL_set_cipher_list(d->ssl, rows[i].suites), WOLFSSL_SUCCESS);
		open = device_connects(w, d);
		if (open != (rows[i].want != NULL))
			fail_msg("%s: %d", rows[i].name, wolfSSL_get_error(d->ssl, 0));
		if (open) {
			UNTIL(w, only(w) != NULL && only(w)->state == CONN_RELAY);
			assert_string_equal(session_cipher(only(w)->tls), rows[i].want);
			assert_int_equal(wolfSSL_write(d->ssl, "on", 2), 2);
			UNTIL(w, upstream_gets(w, buf, sizeof(buf), &peer) == 2);
			upstream_says(w, &peer, "off", 3);
			UNTIL(w, device_reads(d, buf, sizeof(buf)) == 3);
		}
		while (only(w) != NULL)
			conn_end(only(w));
		turn(w, 0);
		device_free(d);
	}
}

static void a_device_with_nothing_but_ccm_gets_in_where_it_may(void **state)
{
	static const struct offer rows[] = {
		{"1.2, CCM_8 alone", false, "ECDHE-ECDSA-AES128-CCM-8", "ECDHE-ECDSA-AES128-CCM-8"},
		{"1.2, CCM_8 before GCM", false,
		 "ECDHE-ECDSA-AES128-CCM-8:ECDHE-ECDSA-AES128-GCM-SHA256",
		 "ECDHE-ECDSA-AES128-GCM-SHA256"},
		{"1.2, both kinds of CCM", false, "ECDHE-ECDSA-AES128-CCM-8:ECDHE-ECDSA-AES128-CCM",
		 "ECDHE-ECDSA-AES128-CCM"},
		{"1.3, CCM", true, "TLS13-AES128-CCM-SHA256", "TLS13-AES128-CCM-SHA256"},
		{"1.3, CCM before GCM", true, "TLS13-AES128-CCM-SHA256:TLS13-AES128-GCM-SHA256",
		 "TLS13-AES128-GCM-SHA256"},
		{"1.3, CCM_8", true, "TLS13-AES128-CCM-8-SHA256", NULL},
	};

	offers_check(*state, rows, sizeof(rows) / sizeof(rows[0]));
}

static void and_nowhere_else(void **state)
{
	static const struct offer rows[] = {
		{"1.2, CCM_8", false, "ECDHE-ECDSA-AES128-CCM-8", NULL},
		{"1.2, CCM", false, "ECDHE-ECDSA-AES128-CCM", NULL},
		{"1.3, CCM", true, "TLS13-AES128-CCM-SHA256", NULL},
		{"1.3, GCM", true, "TLS13-AES128-GCM-SHA256", "TLS13-AES128-GCM-SHA256"},
	};

	offers_check(*state, rows, sizeof(rows) / sizeof(rows[0]));
}

/* ---- ML-DSA ---- */

static struct mldsa_party mldsa_ca;
static WC_RNG rng;

static void mldsa_prepare(struct world *w, struct gw_listener *l)
{
	(void)w;
	assert_int_equal(wc_InitRng(&rng), 0);
	mldsa_make(&mldsa_ca, ML_DSA_65_TYPE, "ml-dsa", NULL, NULL, &rng);
	mldsa_write(pki.dir, "mldsa.pem", mldsa_ca.cert, mldsa_ca.cert_bytes, CERT_TYPE);
	snprintf(l->ca, sizeof(l->ca), "%s/mldsa.pem", pki.dir);
	l->crl[0] = '\0';
}

static int mldsa_setup(void **state)
{
	world_prepare = mldsa_prepare;
	return dtls_setup(state);
}

/* Its certificate fills several datagrams. */
static void a_device_with_an_ml_dsa_certificate(void **state)
{
	static const int kinds[] = {ML_DSA_44_TYPE, ML_DSA_87_TYPE};
	static struct mldsa_party party;
	static uint8_t key[MLDSA_CERT_BYTES];
	struct world *w = *state;

	for (unsigned i = 0; i < 2; i++) {
		struct device *d = device_new(w, HOW_13_CID, 1 + i);
		int n;

		mldsa_make(&party, kinds[i], "device", "spiffe://p/cam/1", &mldsa_ca, &rng);
		n = wc_MlDsaKey_KeyToDer(&party.key, key, sizeof(key));
		assert_int_equal(wolfSSL_use_certificate_buffer(d->ssl, party.cert,
								party.cert_bytes,
								WOLFSSL_FILETYPE_ASN1),
				 WOLFSSL_SUCCESS);
		assert_int_equal(
			wolfSSL_use_PrivateKey_buffer(d->ssl, key, n, WOLFSSL_FILETYPE_ASN1),
			WOLFSSL_SUCCESS);
		if (!device_connects(w, d))
			fail_msg("kind %u: %d", i, wolfSSL_get_error(d->ssl, 0));
		UNTIL(w, only(w) != NULL && only(w)->state == CONN_RELAY);
		conn_end(only(w));
		turn(w, 0);
		mldsa_free(&party);
		device_free(d);
	}
	mldsa_free(&mldsa_ca);
	wc_FreeRng(&rng);
}

static void own_prepare(struct world *w, struct gw_listener *l)
{
	static struct mldsa_party own;
	static uint8_t key[MLDSA_CERT_BYTES];
	int n;

	(void)w;
	assert_int_equal(wc_InitRng(&rng), 0);
	mldsa_make(&mldsa_ca, ML_DSA_87_TYPE, "ml-dsa", NULL, NULL, &rng);
	mldsa_make(&own, ML_DSA_87_TYPE, "gateway", "spiffe://p/gw", &mldsa_ca, &rng);
	n = wc_MlDsaKey_KeyToDer(&own.key, key, sizeof(key));
	mldsa_write(pki.dir, "mldsa.pem", mldsa_ca.cert, mldsa_ca.cert_bytes, CERT_TYPE);
	mldsa_write(pki.dir, "own.pem", own.cert, own.cert_bytes, CERT_TYPE);
	mldsa_write(pki.dir, "own.key", key, n, PKCS8_PRIVATEKEY_TYPE);
	snprintf(l->certificate, sizeof(l->certificate), "%s/own.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/own.key", pki.dir);
	mldsa_free(&own);
}

static int own_setup(void **state)
{
	world_prepare = own_prepare;
	return dtls_setup(state);
}

static void our_own_ml_dsa_certificate(void **state)
{
	struct world *w = *state;
	struct device *d = device_new(w, HOW_13_CID, 1);
	char path[128];

	/* The device believes this CA too. */
	snprintf(path, sizeof(path), "%s/mldsa.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(wolfSSL_get_SSL_CTX(d->ssl), path, NULL),
			 WOLFSSL_SUCCESS);
	if (!device_connects(w, d))
		fail_msg("%d", wolfSSL_get_error(d->ssl, 0));
	UNTIL(w, only(w) != NULL && only(w)->state == CONN_RELAY);
	mldsa_free(&mldsa_ca);
	wc_FreeRng(&rng);
	device_free(d);
}

/* ---- limits ---- */

static void each_prepare(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->handshakes_each = 1;
}

static int each_setup(void **state)
{
	world_prepare = each_prepare;
	return dtls_setup(state);
}

static void rate_prepare(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->handshakes_each_s = 2;
}

static int rate_setup(void **state)
{
	world_prepare = rate_prepare;
	return dtls_setup(state);
}

/* It has proved its address, and says no more. */
static struct device *half_way(struct world *w, uint8_t host)
{
	struct device *d = device_new(w, HOW_13_CID, host);
	uint64_t proved = port_of(w)->n.proved;

	UNTIL(w, (wolfSSL_connect(d->ssl), d->sent == 2)); /* the second hello, with the cookie */
	UNTIL(w, port_of(w)->n.proved == proved + 1);
	return d;
}

static void a_source_has_so_many_unfinished_handshakes(void **state)
{
	struct world *w = *state;
	struct listener *l = &w->w.listeners[0];
	struct device *one = half_way(w, 1), *two = half_way(w, 1), *other;

	assert_int_equal(l->handshakes, 1);
	assert_int_equal(l->turned_source, 1);
	other = device_up(w, HOW_13_CID, 2);
	assert_int_equal(l->turned_source, 1);
	/* the first one's is over: the source has room again, and its cookie is still good */
	for (struct conn *c = LIST_FIRST(&w->w.conns), *next; c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (c->state == CONN_HANDSHAKE)
			conn_end(c);
	}
	assert_true(device_connects(w, two));
	UNTIL(w, l->handshakes == 0 && l->sessions == 2);
	device_free(one);
	device_free(two);
	device_free(other);
}

static void a_source_begins_so_many_a_second(void **state)
{
	struct world *w = *state;
	struct listener *l = &w->w.listeners[0];
	struct device *d[4];

	for (unsigned i = 0; i < 3; i++)
		d[i] = half_way(w, 1);
	assert_int_equal(l->turned_source, 1);
	assert_int_equal(l->sessions, 2);
	d[3] = half_way(w, 2);
	assert_int_equal(l->sessions, 3);
	for (unsigned i = 0; i < 4; i++)
		device_free(d[i]);
}

/* ---- upstreams ---- */

static int second = -1; /* socket of the second upstream */

static void upstreams_prepare(struct world *w, struct gw_listener *l)
{
	(void)w;
	l->upstreams[1] = l->upstreams[0];
	l->upstreams[0].weight = 2;
	second = server_open(&l->upstreams[1].port);
	l->n_upstreams = 2;
	l->upstream_check =
		(struct gw_upstream_check){.interval_s = 1, .timeout_s = 1, .rise = 1, .fall = 1};
}

static int upstreams_setup(void **state)
{
	world_prepare = upstreams_prepare;
	return dtls_setup(state);
}

static void associations_go_to_the_upstreams_by_turns(void **state)
{
	enum { DEVICES = 6 };
	struct world *w = *state;
	struct device *d[DEVICES];
	unsigned got[2] = {0, 0};
	uint8_t buf[64];

	for (unsigned i = 0; i < DEVICES; i++) {
		struct sockaddr_in peer;
		socklen_t n = sizeof(peer);
		int at = -1;

		d[i] = device_new(w, HOW_12, 1 + i);
		assert_true(device_connects(w, d[i]));
		UNTIL(w, w->admits == i + 1);
		assert_int_equal(wolfSSL_write(d[i]->ssl, "on", 2), 2);
		UNTIL(w, (at = upstream_gets(w, buf, sizeof(buf), &peer) == 2 ? 0
			       : recvfrom(second, buf, sizeof(buf), 0, (struct sockaddr *)&peer,
					  &n) == 2
				       ? 1
				       : -1) >= 0);
		got[at]++;
		assert_int_equal(sendto(at == 0 ? w->up_listener : second, "off", 3, 0,
					(struct sockaddr *)&peer, sizeof(peer)),
				 3);
		UNTIL(w, device_reads(d[i], buf, sizeof(buf)) == 3);
	}
	assert_int_equal(got[0], 4); /* of weight 2 */
	assert_int_equal(got[1], 2);
	for (unsigned i = 0; i < DEVICES; i++)
		device_free(d[i]);
	close(second);
}

/* Nobody answers UDP to say that he is there: all stay in turn. */
static void no_upstream_is_taken_for_down(void **state)
{
	struct world *w = *state;
	struct listener *l = &w->w.listeners[0];

	close(second);
	for (unsigned i = 0; i < 100; i++) {
		upstreams_tick(l, clock_boot_ms() + i * 1000);
		upstream_failed(l, 1, "nothing");
		turn(w, 0);
	}
	assert_false(l->up.list[0].down || l->up.list[1].down);
	assert_false(stream_is_open(&l->up.list[0].probe.stream) ||
		     stream_is_open(&l->up.list[1].probe.stream));
}

int main(void)
{
#define T(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_device_with_nothing_but_ccm_gets_in_where_it_may, ccm_setup),
		T(and_nowhere_else, plain_setup),
		T(a_device_with_an_ml_dsa_certificate, mldsa_setup),
		T(our_own_ml_dsa_certificate, own_setup),
		T(a_source_has_so_many_unfinished_handshakes, each_setup),
		T(a_source_begins_so_many_a_second, rate_setup),
		T(associations_go_to_the_upstreams_by_turns, upstreams_setup),
		T(no_upstream_is_taken_for_down, upstreams_setup),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
