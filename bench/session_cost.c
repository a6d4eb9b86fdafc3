/* SPDX-License-Identifier: GPL-3.0-or-later */
/* session_cost: what the TLS engine costs without a transport: `session_cost [HANDSHAKES [SESSIONS [REVOKED...]]]`.
 *
 * Clients of the TLS library, 64 devices by turns, shake hands with our session in memory: X25519MLKEM768, P-256
 * certificates of one CA on both sides. Timed is what the session does, by the thread's own clock; the client's share is not. For each number of
 * REVOKED certificates (default 0 10000 100000) a revocation list of the CA names as many others. Then SESSIONS are
 * held open: what the allocator gave out for our side, after a trim. handshake_first is that of devices whose certificate's
 * signature is not known yet, all others come again. handshake_resumed is a handshake with a ticket, the next ticket
 * included. record_N: N bytes of an open session opened, and sealed for the way back. One line a measure: name value unit
 * min max. */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "bench/tls_device.h"
#include "test/unit/tls-proxy/pki.h"
#include "test/unit/tls-proxy/pump.h"
#include "tls-proxy/signatures.h"
#include "tls-proxy/tickets.h"

#define HANDSHAKES_MAX 100000
#define CHAIN TICKET_LINKS_MAX
#define DEVICES 64 /* more than the library keeps multiples of keys for */

static struct pki pki;
static struct device_ca ca;
static struct device_identity devices[DEVICES];
static uint64_t spent_ns, began_ns;

static void begin(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	began_ns = t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void end(void)
{
	uint64_t at = began_ns;

	begin();
	spent_ns += began_ns - at;
}

static void die(const char *what)
{
	fprintf(stderr, "session_cost: %s\n", what);
	pki_drop(&pki);
	exit(EXIT_FAILURE);
}

static void timer(bool on)
{
	if (on)
		begin();
	else
		end();
}

/* One handshake, whole or with a ticket; what the session spent is added to spent_ns. */
static void shake(struct pump *p, WOLFSSL_CTX *ctx, const struct tls_ctx *server,
		  WOLFSSL_SESSION *ticket)
{
	static unsigned n;
	struct session *s = NULL;
	WOLFSSL *ssl = device_session(ctx, &devices[n++ % DEVICES], WOLFSSL_X25519MLKEM768);

	if (ticket != NULL && wolfSSL_set_session(ssl, ticket) != WOLFSSL_SUCCESS)
		die("the client cannot use its ticket");
	begin();
	if (session_new(&s, server) < 0)
		die("out of memory");
	end();
	pump_join(p, ssl, s);
	p->timer = timer;
	if (pump_shake(p) != SESSION_OPEN)
		die(session_reason(s));
	if (strcmp(session_group(s), "X25519MLKEM768") != 0)
		die("not the hybrid group");
	if (session_resumed(s) != (ticket != NULL))
		die("resumed, or not, as it should not be");
}

/* The ticket that the session gives, as the client keeps it. */
static WOLFSSL_SESSION *ticket_take(struct pump *p)
{
	WOLFSSL_SESSION *kept;
	uint8_t buf[16];

	begin();
	session_ticket_give(p->peer);
	end();
	while (pump_carry(p))
		;
	wolfSSL_read(p->ssl, buf, sizeof(buf));
	kept = wolfSSL_get1_session(p->ssl);
	if (kept == NULL)
		die("no ticket");
	return kept;
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print(const char *name, double *us, unsigned n)
{
	qsort(us, n, sizeof(us[0]), by_size);
	printf("%s %.2f us %.2f %.2f\n", name, us[n / 2], us[0], us[n * 99 / 100]);
	fflush(stdout);
}

static double over(struct pump *p)
{
	begin();
	session_free(p->peer);
	end();
	wolfSSL_free(p->ssl);
	return spent_ns / 1000.0;
}

static void handshakes(const char *name, WOLFSSL_CTX *ctx, const struct tls_ctx *server, unsigned n)
{
	static double us[HANDSHAKES_MAX];
	static struct pump p;

	for (unsigned i = 0; i < n; i++) {
		spent_ns = 0;
		shake(&p, ctx, server, NULL);
		us[i] = over(&p);
	}
	print(name, us, n);
}

/* As few signatures are remembered as can be: each device's is forgotten when it comes again. */
static void handshakes_first(WOLFSSL_CTX *ctx, const struct tls_ctx *server, unsigned n)
{
	signatures_fini();
	if (signatures_init(4) < 0)
		die("out of memory");
	handshakes("handshake_first", ctx, server, n);
	if (signatures_seen().known > 0)
		die("a signature was known");
	signatures_fini();
	if (signatures_init(SIGNATURES_MAX) < 0)
		die("out of memory");
}

/* Each with the ticket of the one before. */
static void resumed(WOLFSSL_CTX *ctx, const struct tls_ctx *server, unsigned n)
{
	static double us[HANDSHAKES_MAX];
	static struct pump p;
	WOLFSSL_SESSION *ticket = NULL, *next;

	for (unsigned i = 0; i < n; i++) {
		if (i % CHAIN == 0) { /* as long as one may be, and no longer */
			wolfSSL_SESSION_free(ticket);
			shake(&p, ctx, server, NULL);
			ticket = ticket_take(&p);
			over(&p);
		}
		spent_ns = 0;
		shake(&p, ctx, server, ticket);
		next = ticket_take(&p);
		wolfSSL_SESSION_free(ticket);
		ticket = next;
		us[i] = over(&p);
	}
	wolfSSL_SESSION_free(ticket);
	print("handshake_resumed", us, n);
}

/* @return ns for a record there and one back, of `batch` that came together */
static double echo(struct pump *p, size_t bytes, unsigned batch)
{
	static uint8_t data[16384], back[SESSION_RECORD_BYTES];

	for (unsigned i = 0; i < batch; i++) {
		if (wolfSSL_write(p->ssl, data, bytes) != (int)bytes)
			die("the client cannot write");
	}
	spent_ns = 0;
	begin();
	for (unsigned i = 0; i < batch; i++) {
		if (session_read(p->peer, back, sizeof(back)) != (ssize_t)bytes ||
		    session_write(p->peer, back, bytes) != (ssize_t)bytes)
			die("a record is lost");
	}
	end();
	while (pump_carry(p))
		;
	for (unsigned i = 0; i < batch; i++) {
		if (wolfSSL_read(p->ssl, back, bytes) != (int)bytes)
			die("the client cannot read");
	}
	return (double)spent_ns / batch;
}

static void records(WOLFSSL_CTX *ctx, const struct tls_ctx *server, size_t bytes, unsigned batch,
		    unsigned n)
{
	static double us[HANDSHAKES_MAX];
	static struct pump p;
	char name[32];

	shake(&p, ctx, server, NULL);
	for (unsigned i = 0; i < n; i++)
		us[i] = echo(&p, bytes, batch) / 1000;
	over(&p);
	snprintf(name, sizeof(name), "record_%zu", bytes);
	print(name, us, n);
}

static size_t allocated(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* The clients are gone before the second look, so what is left is our side's. */
static void memory(WOLFSSL_CTX *ctx, const struct tls_ctx *server, unsigned n)
{
	struct session **held = calloc(n, sizeof(struct session *));
	static struct pump p;
	struct session *silent;
	size_t before;

	if (held == NULL)
		die("out of memory");
	before = allocated();
	for (unsigned i = 0; i < n; i++) {
		shake(&p, ctx, server, NULL);
		session_trim(p.peer);
		held[i] = p.peer;
		wolfSSL_free(p.ssl);
	}
	printf("session_memory %.0f B - -\n", (double)(allocated() - before) / n);
	for (unsigned i = 0; i < n; i++)
		session_free(held[i]);
	free(held);
	before = allocated();
	if (session_new(&silent, server) < 0)
		die("out of memory");
	printf("silent_peer_memory %.0f B - -\n", (double)(allocated() - before));
	session_free(silent);
}

/* Tickets that nobody has used, and nothing else of their sessions. */
static void ticket_memory(WOLFSSL_CTX *ctx, const struct tls_ctx *server, unsigned n)
{
	static struct pump p;
	size_t before = 0;

	for (unsigned i = 0; i <= n; i++) {
		if (i == 1) /* what the first one makes once */
			before = allocated();
		shake(&p, ctx, server, NULL);
		wolfSSL_SESSION_free(ticket_take(&p));
		over(&p);
	}
	if (tickets_count(server->tickets) < n)
		die("tickets were forgotten");
	printf("ticket_memory %.0f B - -\n", (double)(allocated() - before) / n);
}

/* A list that names `n` certificates, none of them in use. */
static void list_make(unsigned n)
{
	if (pki_sh(&pki,
		   "rm -f index.txt; i=0; awk 'BEGIN { for (i = 0; i < %u; i++) "
		   "printf \"R\\t391231000000Z\\t260101000000Z\\t%%024X\\tunknown\\t/CN=x\\n\", i "
		   "* 7919 + 4096 }' > "
		   "index.txt; openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out "
		   "ca.crl",
		   n) != 0)
		die("the revocation list cannot be made");
}

static void path(char *out, const char *file)
{
	snprintf(out, GW_PATH_BYTES, "%s/%s", pki.dir, file);
}

int main(int argc, char **argv)
{
	static char *const revoked_default[] = {"0", "10000", "100000"};
	unsigned n = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
	unsigned sessions = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
	char *const *revoked = argc > 3 ? argv + 3 : revoked_default;
	int n_revoked = argc > 3 ? argc - 3 : 3;
	struct gw_listener l = {0};
	struct tls_ctx server = {0};
	char key[GW_PATH_BYTES], name[64];
	struct err err = {""};
	WOLFSSL_CTX *ctx;

	if (n == 0 || n > HANDSHAKES_MAX || sessions == 0)
		die("usage: session_cost [HANDSHAKES [SESSIONS [REVOKED...]]]");
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0)
		die("no certificates: is openssl there?");
	path(l.certificate, "gw.pem");
	path(l.key, "gw.key");
	path(l.ca, "ca.pem");
	path(key, "ca.key");
	device_ca_load(&ca, l.ca, key);
	for (uint32_t d = 0; d < DEVICES; d++)
		device_make(&devices[d], &ca, d);
	ctx = device_ctx(&ca);
	if (tls_ctx_init(&server, &l, &err) < 0)
		die(err.msg);
	handshakes_first(ctx, &server, n);
	handshakes("handshake_no_list", ctx, &server, n);
	records(ctx, &server, 256, 32, n);
	records(ctx, &server, 16384, 1, n);
	memory(ctx, &server, sessions);
	tls_ctx_fini(&server);
	l.resumption_s = 3600;
	l.sessions_max = sessions + 2;
	if (tls_ctx_init(&server, &l, &err) < 0)
		die(err.msg);
	resumed(ctx, &server, n);
	ticket_memory(ctx, &server, sessions);
	tls_ctx_fini(&server);
	l.resumption_s = 0;
	path(l.crl, "ca.crl");
	for (int i = 0; i < n_revoked; i++) {
		list_make(strtoul(revoked[i], NULL, 10));
		begin();
		spent_ns = 0;
		if (tls_ctx_init(&server, &l, &err) < 0)
			die(err.msg);
		end();
		printf("load_%s %.1f ms - -\n", revoked[i], spent_ns / 1e6);
		snprintf(name, sizeof(name), "handshake_revoked_%s", revoked[i]);
		handshakes(name, ctx, &server, n);
		tls_ctx_fini(&server);
	}
	wolfSSL_CTX_free(ctx);
	tls_ctx_global_fini();
	pki_drop(&pki);
	return 0;
}
