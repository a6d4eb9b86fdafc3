/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Records opened and sealed past the library: whatever comes, the session says what it says with the library alone, fed with
 * bytes and carried by a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test/unit/tls-proxy/craft.h"
#include "test/unit/tls-proxy/near.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/session_internal.h"

#define SEALS_MAX 0x016a09e6u /* RFC 8446 section 5.5 */

static struct pki pki;
static struct tls_ctx server;
static WOLFSSL_CTX *client_ctx;
static uint8_t data[17000];

struct world {
	struct pump p;
	struct session *s;
	struct near w;
	uint8_t wire[CRAFT_BYTES];
	size_t n_wire;
	bool carried, alone; /* by a stream; with the library alone */
	uint8_t got[40000];
	size_t n_got;
	ssize_t last; /* what session_read() said that was no bytes */
};

static int to_wire(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct world *x = arg;

	(void)ssl;
	memcpy(x->wire + x->n_wire, buf, bytes);
	x->n_wire += bytes;
	return bytes;
}

static struct world *world_new(bool carried, bool alone, const char *suites)
{
	struct world *x = calloc(1, sizeof(*x));
	WOLFSSL *ssl = wolfSSL_new(client_ctx);

	assert_non_null(x);
	x->carried = carried;
	x->alone = alone;
	assert_int_equal(wolfSSL_set_cipher_list(ssl, suites), WOLFSSL_SUCCESS);
	assert_int_equal(session_new(&x->s, &server), 0);
	pump_join(&x->p, ssl, x->s);
	assert_int_equal(pump_shake(&x->p), SESSION_OPEN);
	if (carried)
		near_join(&x->w, x->s);
	wolfSSL_SSLSetIOSend(ssl, to_wire);
	wolfSSL_SetIOWriteCtx(ssl, x);
	return x;
}

static void world_free(struct world *x)
{
	wolfSSL_free(x->p.ssl);
	session_free(x->s);
	free(x);
}

static void library_alone(struct world *x)
{
	if (x->alone)
		x->s->opens = x->s->seals = NULL;
}

static void read_all(struct world *x)
{
	for (;;) {
		library_alone(x);
		x->last = session_read(x->s, x->got + x->n_got, SESSION_RECORD_BYTES);
		if (x->last <= 0)
			return;
		x->n_got += x->last;
		x->w.may = true;
	}
}

/* Bytes from the client's wire, so many at a time. */
static void arrive(struct world *x, const uint8_t *bytes, size_t n, size_t piece)
{
	for (size_t at = 0; at < n && (x->last == 0 || x->last == -EAGAIN);) {
		size_t part = piece < n - at ? piece : n - at;

		if (x->carried) {
			memcpy(x->w.in + x->w.n, bytes + at, part);
			x->w.n = x->w.arrived = x->w.n + part;
			x->w.may = near_has(&x->w.stream);
		} else {
			if (part > session_room(x->s))
				part = session_room(x->s);
			assert_true(part > 0);
			session_feed(x->s, bytes + at, part);
		}
		at += part;
		read_all(x);
	}
}

static void arrive_crafted(struct world *x, uint8_t type, size_t n, size_t pad, size_t piece)
{
	size_t bytes = craft(x->p.ssl, type, data, n, pad, x->wire);

	assert_true(bytes > 0);
	arrive(x, x->wire, bytes, piece);
}

/* What the session has for the wire, in the client's hands. */
static void answer(struct world *x)
{
	size_t n;
	const uint8_t *rest = session_output(x->s, &n);

	memcpy(x->p.in, x->w.out, x->w.n_out);
	if (n > 0)
		memcpy(x->p.in + x->w.n_out, rest, n);
	x->p.in_at = 0;
	x->p.in_n = x->w.n_out + n;
	x->w.n_out = 0;
	session_sent(x->s, n);
}

static int group_setup(void **state)
{
	(void)state;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0)
		return -1;
	client_ctx = craft_ends(&pki, &server);
	if (client_ctx == NULL)
		return -1;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + 1;
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	wolfSSL_CTX_free(client_ctx);
	tls_ctx_fini(&server);
	tls_ctx_global_fini();
	pki_drop(&pki);
	return 0;
}

static void each_record_means_what_it_means_to_the_library(void **state)
{
	static const struct {
		const char *name;
		uint8_t type; /* inner; 0: zeros alone */
		size_t n, pad;
		int flip; /* byte of the record that comes wrong; -1: none */
		ssize_t want; /* bytes of data, then open; 0: close_notify; -EPROTO */
	} rows[] = {
		{"a byte", 23, 1, 0, -1, 1},
		{"a short one", 23, 256, 0, -1, 256},
		{"the largest", 23, 16384, 0, -1, 16384},
		{"padded", 23, 100, 155, -1, 100},
		{"padded to the most", 23, 1, 16384 - 1, -1, 1},
		{"the largest, padded", 23, 16384, 200, -1, -EPROTO},
		{"a byte too long", 23, 16385, 0, -1, -EPROTO},
		{"longer than any", 23, 16700, 0, -1, -EPROTO},
		{"no data", 23, 0, 0, -1, -EAGAIN},
		{"no data, padded", 23, 0, 40, -1, -EAGAIN},
		{"zeros alone", 0, 0, 30, -1, -EPROTO},
		{"nothing at all", 0, 0, 0, -1, -EPROTO},
		{"an unknown alert", 21, 2, 0, -1, -EPROTO},
		{"a handshake's message that is none", 22, 4, 0, -1, -EPROTO},
		{"ChangeCipherSpec, sealed", 20, 1, 0, -1, -EPROTO},
		{"an unknown type", 99, 10, 0, -1, -EPROTO},
		{"a wrong tag", 23, 256, 0, 5 + 257 + 15, -EPROTO},
		{"a wrong byte", 23, 256, 0, 20, -EPROTO},
		{"a wrong type", 23, 256, 0, 0, -EPROTO},
		{"a wrong length", 23, 256, 0, 4, -EPROTO},
	};
	static const size_t pieces[] = {1460, 1, 70000};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned how = 0; how < 3 * 4; how++) {
			struct world *x = world_new(how & 1, how & 2,
						    how & 1 ? "TLS13-AES256-GCM-SHA384"
							    : "TLS13-AES128-GCM-SHA256");
			size_t n = craft(x->p.ssl, rows[i].type, data, rows[i].n, rows[i].pad,
					 x->wire);

			if (!(how & 2) && (x->s->opens == NULL || x->s->seals == NULL))
				fail_msg("the library does it all");
			if (rows[i].flip >= 0)
				x->wire[rows[i].flip] ^= rows[i].flip == 4 ? 1 : 0x40;
			arrive(x, x->wire, n, pieces[how / 4]);
			/* A length too large waits for the next record. */
			if (rows[i].flip == 4)
				arrive_crafted(x, 23, 10, 0, 70000);
			if (x->last != (rows[i].want > 0 ? -EAGAIN : rows[i].want) ||
			    x->n_got != (rows[i].want > 0 ? (size_t)rows[i].want : 0) ||
			    memcmp(x->got, data, x->n_got) != 0)
				fail_msg("%s (%u): %zu bytes, %zd", rows[i].name, how, x->n_got,
					 x->last);
			if (x->last == -EPROTO) { /* and it is told why */
				answer(x);
				assert_true(wolfSSL_read(x->p.ssl, x->got, 1) <= 0);
				if (rows[i].type != 21 && /* an alert has no answer */
				    wolfSSL_get_error(x->p.ssl, -1) == WOLFSSL_ERROR_WANT_READ)
					fail_msg("%s (%u): no alert", rows[i].name, how);
				world_free(x);
				continue;
			}
			arrive_crafted(x, 23, 33, 0, 70000); /* it goes on */
			assert_int_equal(x->n_got,
					 (rows[i].want > 0 ? (size_t)rows[i].want : 0) + 33);
			assert_int_equal(session_write(x->s, data, 44), 44);
			answer(x);
			assert_int_equal(wolfSSL_read(x->p.ssl, x->got, sizeof(x->got)), 44);
			world_free(x);
		}
	}
}

static void the_library_takes_over_at_any_record(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 2; how++) {
		struct world *x = world_new(how & 1, false, "TLS13-AES128-GCM-SHA256");
		uint8_t got[100];

		for (int i = 0; i < 6; i++) {
			size_t was = x->n_got;

			x->n_wire = 0;
			if (i % 2 == 0) /* the keys change, with a record before and behind */
				assert_int_equal(wolfSSL_write(x->p.ssl, data, 20), 20);
			if (i % 2 == 0)
				assert_int_equal(wolfSSL_update_keys(x->p.ssl), WOLFSSL_SUCCESS);
			assert_int_equal(wolfSSL_write(x->p.ssl, data, 30), 30);
			arrive(x, x->wire, x->n_wire, i < 3 ? 70000 : 3);
			assert_int_equal(x->n_got - was, i % 2 == 0 ? 50 : 30);
			assert_non_null(x->s->opens);
			assert_int_equal(session_write(x->s, data, 60), 60);
			assert_non_null(x->s->seals);
			answer(x);
			assert_int_equal(wolfSSL_read(x->p.ssl, got, sizeof(got)), 60);
			assert_memory_equal(got, data, 60);
		}
		x->n_wire = 0;
		wolfSSL_shutdown(x->p.ssl);
		arrive(x, x->wire, x->n_wire, 70000);
		assert_int_equal(x->last, 0);
		assert_int_equal(session_write(x->s, data, 70), 70); /* half-closed */
		session_close_notify(x->s);
		assert_int_equal(session_write(x->s, data, 70), -EPROTO);
		answer(x);
		assert_int_equal(wolfSSL_read(x->p.ssl, got, sizeof(got)), 70);
		assert_int_equal(wolfSSL_read(x->p.ssl, got, sizeof(got)), 0);
		world_free(x);
	}
}

/* So many records as one key is good for: the library changes it, RFC 8446 section 5.5. */
static void a_key_is_not_used_too_often(void **state)
{
	struct world *x = world_new(true, false, "TLS13-AES128-GCM-SHA256");
	uint8_t got[100];

	(void)state;
	x->s->ssl->keys.sequence_number_lo = x->p.ssl->keys.peer_sequence_number_lo = SEALS_MAX - 1;
	for (int i = 0; i < 3; i++)
		assert_int_equal(session_write(x->s, data, 50), 50);
	assert_int_equal(x->s->ssl->keys.sequence_number_lo, 2); /* of the new key */
	answer(x);
	assert_int_equal(wolfSSL_read(x->p.ssl, got, 50), 50);
	assert_int_equal(wolfSSL_read(x->p.ssl, got, 50), 50);
	assert_int_equal(wolfSSL_read(x->p.ssl, got, 50), 50);
	assert_memory_equal(got, data, 50);
	world_free(x);
}

static void a_counter_passes_32_bits(void **state)
{
	struct world *x = world_new(true, false, "TLS13-AES128-GCM-SHA256");

	(void)state;
	x->s->ssl->keys.peer_sequence_number_lo = x->p.ssl->keys.sequence_number_lo = UINT32_MAX;
	for (int i = 0; i < 3; i++)
		arrive_crafted(x, 23, 40, 0, 70000);
	assert_int_equal(x->n_got, 120);
	assert_int_equal(x->s->ssl->keys.peer_sequence_number_hi, 1);
	assert_int_equal(x->s->ssl->keys.peer_sequence_number_lo, 2);
	world_free(x);
}

/* A stream of empty records is an attack, data between them makes it none. */
static void empty_records_are_counted(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct world *x = world_new(how & 1, how & 2, "TLS13-AES128-GCM-SHA256");

		for (int i = 0; i < 5 * WOLFSSL_MAX_EMPTY_RECORDS; i++)
			arrive_crafted(x, 23, i % 2, 0, 70000);
		assert_int_equal(x->last, -EAGAIN);
		for (int i = 0; i < WOLFSSL_MAX_EMPTY_RECORDS && x->last == -EAGAIN; i++)
			arrive_crafted(x, 23, 0, 0, 70000);
		assert_int_equal(x->last, -EPROTO);
		world_free(x);
	}
}

static void other_ciphers_are_the_library_s(void **state)
{
	struct world *x = world_new(true, false, "TLS13-CHACHA20-POLY1305-SHA256");

	(void)state;
	assert_null(x->s->opens);
	assert_null(x->s->seals);
	assert_int_equal(wolfSSL_write(x->p.ssl, data, 20), 20);
	arrive(x, x->wire, x->n_wire, 7);
	assert_int_equal(x->n_got, 20);
	assert_null(x->s->opens);
	world_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_means_what_it_means_to_the_library),
		cmocka_unit_test(the_library_takes_over_at_any_record),
		cmocka_unit_test(a_key_is_not_used_too_often),
		cmocka_unit_test(a_counter_passes_32_bits),
		cmocka_unit_test(empty_records_are_counted),
		cmocka_unit_test(other_ciphers_are_the_library_s),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
