/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Records of an open session, from a peer that holds the keys and writes what it likes: two sessions see the same, one with
 * the library alone, and must say the same. The input is steps: what, how much, how it is padded and cut. */
#include <stdlib.h>
#include <string.h>

#include "test/unit/tls-proxy/craft.h"
#include "test/unit/tls-proxy/near.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/session_internal.h"

#define STEPS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct tls_ctx server;
static WOLFSSL_CTX *client_ctx;

struct side {
	struct pump p;
	struct session *s;
	struct near w;
	bool carried, alone;
	uint8_t wire[CRAFT_BYTES];
	size_t n_wire, n_got, n_out;
	uint32_t sum; /* of what was read */
	ssize_t last;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct pki pki;

	(void)argc;
	(void)argv;
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0)
		abort();
	client_ctx = craft_ends(&pki, &server);
	if (client_ctx == NULL)
		abort();
	pki_drop(&pki);
	return 0;
}

static int to_wire(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct side *x = arg;

	(void)ssl;
	memcpy(x->wire + x->n_wire, buf, bytes);
	x->n_wire += bytes;
	return bytes;
}

static void side_open(struct side *x, bool carried, bool alone)
{
	WOLFSSL *ssl = wolfSSL_new(client_ctx);

	memset(x, 0, sizeof(*x));
	if (ssl == NULL ||
	    wolfSSL_set_cipher_list(ssl, "TLS13-AES128-GCM-SHA256") != WOLFSSL_SUCCESS ||
	    wolfSSL_UseKeyShare(ssl, WOLFSSL_ECC_X25519) != WOLFSSL_SUCCESS ||
	    session_new(&x->s, &server) < 0)
		abort();
	pump_join(&x->p, ssl, x->s);
	if (pump_shake(&x->p) != SESSION_OPEN)
		abort();
	x->alone = alone;
	x->carried = carried;
	if (carried)
		near_join(&x->w, x->s);
	wolfSSL_SSLSetIOSend(ssl, to_wire);
	wolfSSL_SetIOWriteCtx(ssl, x);
	x->last = -EAGAIN;
}

static void library_alone(struct side *x)
{
	if (x->alone)
		x->s->opens = x->s->seals = NULL;
}

static void read_all(struct side *x)
{
	static uint8_t got[SESSION_RECORD_BYTES];

	for (;;) {
		library_alone(x);
		x->last = session_read(x->s, got, sizeof(got));
		if (x->last <= 0)
			break;
		for (ssize_t i = 0; i < x->last; i++)
			x->sum = x->sum * 31 + got[i];
		x->n_got += x->last;
		x->w.may = true;
	}
}

static void arrive(struct side *x, const uint8_t *bytes, size_t n, size_t piece)
{
	for (size_t at = 0; at < n && x->last == -EAGAIN;) {
		size_t part = piece < n - at ? piece : n - at;

		if (x->carried) {
			if (part > sizeof(x->w.in) - x->w.n) {
				memmove(x->w.in, x->w.in + x->w.at, x->w.n - x->w.at);
				x->w.n = x->w.arrived = x->w.n - x->w.at;
				x->w.at = 0;
			}
			if (part > sizeof(x->w.in) - x->w.n)
				abort(); /* it must read what is there */
			memcpy(x->w.in + x->w.n, bytes + at, part);
			x->w.n = x->w.arrived = x->w.n + part;
			x->w.may = near_has(&x->w.stream);
		} else {
			if (part > session_room(x->s))
				part = session_room(x->s);
			if (part == 0)
				abort();
			session_feed(x->s, bytes + at, part);
		}
		at += part;
		read_all(x);
	}
}

static void answer(struct side *x)
{
	size_t n;

	session_output(x->s, &n);
	x->n_out += n + x->w.n_out;
	session_sent(x->s, n);
	x->w.n_out = 0;
	x->w.room = sizeof(x->w.out);
}

/* One step of five bytes, for one side. */
static void step(struct side *x, const uint8_t *b)
{
	static uint8_t text[20000];
	size_t n = (b[1] << 8 | b[2]) % 16500, pad = b[3], piece = b[4] == 0 ? 70000 : b[4] * 97u;
	size_t bytes = 0;

	memset(text, b[2], n);
	x->n_wire = 0;
	switch (b[0] % 8) {
	case 0: /* data */
	case 1:
		bytes = craft(x->p.ssl, 23, text, n, pad, x->wire);
		break;
	case 2: /* another type, or zeros */
		n %= 64;
		bytes = craft(x->p.ssl, b[2] % 26, text, n, pad, x->wire);
		break;
	case 3: /* damaged */
		bytes = craft(x->p.ssl, 23, text, n, 0, x->wire);
		x->wire[b[3] < 5 ? b[3] : 5 + n % (bytes - 5)] ^= b[4] | 1;
		break;
	case 4: /* no record */
		memset(x->wire, b[3], n % 300);
		bytes = n % 300;
		break;
	case 5:
		library_alone(x);
		if (n > 0 && session_write(x->s, text, n) < 0 && x->last == -EAGAIN)
			abort();
		break;
	case 6:
		wolfSSL_update_keys(x->p.ssl);
		bytes = x->n_wire;
		break;
	case 7:
		if (b[1] == 0) {
			wolfSSL_shutdown(x->p.ssl);
			bytes = x->n_wire;
		}
		break;
	}
	arrive(x, x->wire, bytes, piece);
	answer(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct side ours, theirs;
	bool carried = bytes > 0 && data[0] & 1;

	if (bytes < 6)
		return 0;
	side_open(&ours, carried, false);
	side_open(&theirs, carried, true);
	for (size_t i = 0; i < STEPS_MAX && 1 + 5 * (i + 1) <= bytes; i++) {
		step(&ours, data + 1 + 5 * i);
		step(&theirs, data + 1 + 5 * i);
		if (ours.n_got != theirs.n_got || ours.sum != theirs.sum ||
		    ours.last != theirs.last || ours.n_out != theirs.n_out ||
		    strcmp(session_reason(ours.s), session_reason(theirs.s)) != 0)
			abort();
	}
	wolfSSL_free(ours.p.ssl);
	wolfSSL_free(theirs.p.ssl);
	session_free(ours.s);
	session_free(theirs.s);
	return 0;
}
