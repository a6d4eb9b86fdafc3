/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_floor: what the TLS library alone costs a server: both ends in this process, bytes by memory, each end's processor
 * time by itself. It is what plain use of the library costs, every signature verified each time, and stands beside what the
 * gateway costs. While others run, it looks at how fast its core is.
 *   tls_floor CA-CERTIFICATE CA-KEY CERTIFICATE KEY
 * Commands come on standard input, one a line; each is answered by one line, "ok ..." or "error ...".
 *   handshakes GROUP N     mlkem768, x25519 or p256; each end's processor time a handshake
 *   messages N             of 256 bytes and their echoes; the server's processor time of one
 *   bulk N                 records of 16 kB to the server; megabytes a second of its processor time
 *   watch US               from now on, each US microseconds: a look, which takes LOOK_CHECKS + 1 checks of a signature
 *   seen                   no more; the looks since, each the least processor time of a check, in ns
 * Before all of them something is done that does not count: whatever ran before has left other things in the caches. */
#include <poll.h>
#include <time.h>

#include "bench/tls_device.h"

#define DEVICES 100
#define MESSAGE_BYTES 256
#define RECORD_BYTES (16 * 1024)
#define N_MAX 1000000u
#define WARM_HANDSHAKES 4
#define WARM_RECORDS 32
#define LOOKS_MAX 4096 /* of one watch; later ones are not kept */
#define LOOK_CHECKS 3
#define DIGEST_BYTES 32

/* Bytes on their way to one end. */
struct way {
	uint8_t data[64 * 1024];
	int at, n;
};

struct pair {
	WOLFSSL *server, *client;
	struct way to_server, to_client;
};

static struct device_ca ca;
static WOLFSSL_CTX *server_ctx, *client_ctx;
static struct device_identity device[DEVICES];

static struct watch {
	uint8_t digest[DIGEST_BYTES], signature[ECC_MAX_SIG_SIZE]; /* by the CA's key */
	word32 signature_bytes;
	uint64_t every_ns, next_ns; /* every_ns 0: nobody watches. Monotonic clock */
	uint32_t ns[LOOKS_MAX];
	uint32_t n;
} watch;

static uint64_t time_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t cpu_ns(void)
{
	return time_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int way_recv(WOLFSSL *ssl, char *out, int bytes, void *arg)
{
	struct way *w = arg;
	int n = w->n - w->at;

	(void)ssl;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_WANT_READ;
	n = n < bytes ? n : bytes;
	memcpy(out, w->data + w->at, (size_t)n);
	w->at += n;
	if (w->at == w->n)
		w->at = w->n = 0;
	return n;
}

static int way_send(WOLFSSL *ssl, char *data, int bytes, void *arg)
{
	struct way *w = arg;

	(void)ssl;
	if (bytes > (int)sizeof(w->data) - w->n)
		return WOLFSSL_CBIO_ERR_WANT_WRITE;
	memcpy(w->data + w->n, data, (size_t)bytes);
	w->n += bytes;
	return bytes;
}

static void carry(WOLFSSL *ssl, struct way *in, struct way *out)
{
	wolfSSL_SSLSetIORecv(ssl, way_recv);
	wolfSSL_SSLSetIOSend(ssl, way_send);
	wolfSSL_SetIOReadCtx(ssl, in);
	wolfSSL_SetIOWriteCtx(ssl, out);
}

/* @return true: it is complete */
static bool handshake_step(WOLFSSL *ssl, int (*step)(WOLFSSL *), uint64_t *ns)
{
	uint64_t start = cpu_ns();
	int ret = step(ssl), error = wolfSSL_get_error(ssl, ret);

	*ns += cpu_ns() - start;
	if (ret != WOLFSSL_SUCCESS && error != WOLFSSL_ERROR_WANT_READ)
		device_die("the handshake fails");
	return ret == WOLFSSL_SUCCESS;
}

/* Adds the processor time of each end. The server's object is made and freed in its time, as in a server. */
static void handshake(struct pair *p, int group, uint64_t *server_ns, uint64_t *client_ns)
{
	static unsigned n;
	uint64_t start = cpu_ns();
	bool server = false, client = false;

	p->server = wolfSSL_new(server_ctx);
	if (p->server == NULL)
		device_die("memory");
	*server_ns += cpu_ns() - start;
	p->client = device_session(client_ctx, &device[n++ % DEVICES], group);
	p->to_server.at = p->to_server.n = p->to_client.at = p->to_client.n = 0;
	carry(p->server, &p->to_server, &p->to_client);
	carry(p->client, &p->to_client, &p->to_server);
	while (!server || !client) {
		client = client || handshake_step(p->client, wolfSSL_connect, client_ns);
		server = server || handshake_step(p->server, wolfSSL_accept, server_ns);
	}
}

static void pair_free(struct pair *p, uint64_t *server_ns)
{
	uint64_t start = cpu_ns();

	wolfSSL_free(p->server);
	*server_ns += cpu_ns() - start;
	wolfSSL_free(p->client);
}

static void do_handshakes(int group, uint32_t n)
{
	static struct pair p;
	uint64_t server_ns = 0, client_ns = 0;

	for (uint32_t i = 0; i < WARM_HANDSHAKES + n; i++) {
		if (i == WARM_HANDSHAKES)
			server_ns = client_ns = 0;
		handshake(&p, group, &server_ns, &client_ns);
		pair_free(&p, &server_ns);
	}
	printf("ok server_us=%.3f client_us=%.3f\n", (double)server_ns / n / 1000,
	       (double)client_ns / n / 1000);
}

static void move(WOLFSSL *from, WOLFSSL *to, uint8_t *data, int bytes, uint64_t *from_ns,
		 uint64_t *to_ns)
{
	uint64_t start = cpu_ns(), sent;
	int got = 0;

	if (wolfSSL_write(from, data, bytes) != bytes)
		device_die("a record is not taken");
	sent = cpu_ns();
	while (got < bytes) {
		int n = wolfSSL_read(to, data, bytes);

		if (n <= 0)
			device_die("a record is not there");
		got += n;
	}
	*to_ns += cpu_ns() - sent;
	*from_ns += sent - start;
}

/* What the server decrypts, and encrypts of echoes, in ns. */
static uint64_t records(int bytes, bool echo, uint32_t n)
{
	static struct pair p;
	static uint8_t data[RECORD_BYTES];
	uint64_t server_ns = 0, client_ns = 0, out;

	handshake(&p, WOLFSSL_ECC_X25519, &server_ns, &client_ns);
	for (uint32_t i = 0; i < WARM_RECORDS + n; i++) {
		if (i == WARM_RECORDS)
			server_ns = 0;
		move(p.client, p.server, data, bytes, &client_ns, &server_ns);
		if (echo)
			move(p.server, p.client, data, bytes, &server_ns, &client_ns);
	}
	out = server_ns;
	pair_free(&p, &server_ns);
	return out;
}

/* @return 0: not a number from 1 to N_MAX */
static uint32_t number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && n <= N_MAX ? (uint32_t)n : 0;
}

static void watch_init(void)
{
	watch.signature_bytes = sizeof(watch.signature);
	memset(watch.digest, 'D', sizeof(watch.digest));
	if (wc_ecc_sign_hash(watch.digest, sizeof(watch.digest), watch.signature,
			     &watch.signature_bytes, &ca.rng, &ca.key) != 0)
		device_die("nothing can be signed");
}

static uint64_t check_ns(void)
{
	uint64_t start = cpu_ns();
	int good = 0;

	if (wc_ecc_verify_hash(watch.signature, watch.signature_bytes, watch.digest,
			       sizeof(watch.digest), &good, &ca.key) != 0 ||
	    good != 1)
		device_die("its own signature is no good");
	return cpu_ns() - start;
}

/* The least of them: an interrupt meets one, a slower machine all. */
static void watch_look(void)
{
	uint64_t least = UINT64_MAX;

	check_ns();
	for (int i = 0; i < LOOK_CHECKS; i++) {
		uint64_t ns = check_ns();

		least = ns < least ? ns : least;
	}
	if (watch.n < LOOKS_MAX)
		watch.ns[watch.n++] = (uint32_t)least;
}

static void do_watch(uint32_t every_us)
{
	watch.n = 0;
	watch.every_ns = (uint64_t)every_us * 1000;
	watch.next_ns = time_ns(CLOCK_MONOTONIC);
	puts("ok");
}

static void do_seen(void)
{
	watch.every_ns = 0;
	printf("ok");
	for (uint32_t i = 0; i < watch.n; i++)
		printf(" %u", watch.ns[i]);
	putchar('\n');
	watch.n = 0;
}

static void command(char **word, unsigned words)
{
	uint32_t n = words > 1 ? number(word[words - 1]) : 0;
	int group = words == 3 ? device_group(word[1]) : 0;

	if (words == 3 && strcmp(word[0], "handshakes") == 0 && group != 0 && n > 0)
		do_handshakes(group, n);
	else if (words == 2 && strcmp(word[0], "messages") == 0 && n > 0)
		printf("ok us=%.4f\n", (double)records(MESSAGE_BYTES, true, n) / n / 1000);
	else if (words == 2 && strcmp(word[0], "bulk") == 0 && n > 0)
		printf("ok mb_per_s=%.3f\n",
		       (double)n * RECORD_BYTES * 1000 / (double)records(RECORD_BYTES, false, n));
	else if (words == 2 && strcmp(word[0], "watch") == 0 && n > 0)
		do_watch(n);
	else if (words == 1 && strcmp(word[0], "seen") == 0)
		do_seen();
	else
		puts("error no such command, wrong number of words, or out of range");
}

/* Looks, as long as somebody watches, until a command is there. */
static void command_await(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	while (watch.every_ns != 0) {
		uint64_t now = time_ns(CLOCK_MONOTONIC);
		uint64_t wait = watch.next_ns > now ? watch.next_ns - now : 0;
		struct timespec t = {.tv_sec = (time_t)(wait / 1000000000),
				     .tv_nsec = (long)(wait % 1000000000)};

		if (ppoll(&in, 1, &t, NULL) != 0)
			return;
		watch_look();
		watch.next_ns = time_ns(CLOCK_MONOTONIC) + watch.every_ns;
	}
}

static void commands(void)
{
	char line[256], *word[4], *save;

	setvbuf(stdin, NULL, _IONBF, 0); /* poll() must see what is there */
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ok ready");
	for (;;) {
		unsigned n = 0;

		command_await();
		if (fgets(line, sizeof(line), stdin) == NULL)
			return;
		for (char *w = strtok_r(line, " \n", &save); w != NULL && n < 4;
		     w = strtok_r(NULL, " \n", &save))
			word[n++] = w;
		command(word, n);
	}
}

static void server_ctx_new(const char *cert, const char *key)
{
	server_ctx = wolfSSL_CTX_new(wolfTLSv1_3_server_method());
	if (server_ctx == NULL ||
	    wolfSSL_CTX_use_certificate_file(server_ctx, cert, WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(server_ctx, key, WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_load_verify_buffer(server_ctx, ca.der, ca.der_bytes,
					   WOLFSSL_FILETYPE_ASN1) != WOLFSSL_SUCCESS)
		device_die("no server context");
	wolfSSL_CTX_set_verify(server_ctx,
			       WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fputs("usage: tls_floor CA-CERTIFICATE CA-KEY CERTIFICATE KEY\n", stderr);
		return 2;
	}
	if (wolfSSL_Init() != WOLFSSL_SUCCESS)
		device_die("no TLS library");
	device_ca_load(&ca, argv[1], argv[2]);
	for (unsigned d = 0; d < DEVICES; d++)
		device_make(&device[d], &ca, d);
	client_ctx = device_ctx(&ca);
	server_ctx_new(argv[3], argv[4]);
	watch_init();
	commands();
	wolfSSL_CTX_free(server_ctx);
	wolfSSL_CTX_free(client_ctx);
	wolfSSL_Cleanup();
	return 0;
}
