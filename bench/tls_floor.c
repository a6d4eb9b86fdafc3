/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_floor: what the TLS library alone costs a server: both ends in this process, bytes by memory, each end's processor
 * time by itself. Nothing can be cheaper with this library, so it stands beside what the gateway costs.
 *   tls_floor CA-CERTIFICATE CA-KEY CERTIFICATE KEY RUNS     a line a measure for bench/run */
#include <time.h>

#include "bench/tls_device.h"

#define HANDSHAKES 200 /* a run */
#define DEVICES 100
#define MESSAGES 20000
#define MESSAGE_BYTES 256
#define RECORDS 4000
#define RECORD_BYTES (16 * 1024)
#define RUNS_MAX 64

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

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
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

static void emit(const char *name, const char *unit, const double *sample, int runs)
{
	printf("%s\t%s\tmedian\t\t", name, unit);
	for (int i = 0; i < runs; i++)
		printf("%s%.3f", i ? "," : "", sample[i]);
	puts("\t\t");
}

static void handshakes(const char *server_name, const char *client_name, int group, int runs)
{
	static struct pair p;
	double server[RUNS_MAX], client[RUNS_MAX];

	for (int i = 0; i < runs; i++) {
		uint64_t server_ns = 0, client_ns = 0;

		for (int k = 0; k < HANDSHAKES; k++) {
			handshake(&p, group, &server_ns, &client_ns);
			pair_free(&p, &server_ns);
		}
		server[i] = (double)server_ns / HANDSHAKES / 1000;
		client[i] = (double)client_ns / HANDSHAKES / 1000;
	}
	emit(server_name, "us", server, runs);
	if (client_name != NULL)
		emit(client_name, "us", client, runs);
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

/* What the server decrypts and encrypts of one message and its echo; and of a stream of large records. */
static void records(int runs)
{
	static struct pair p;
	static uint8_t data[RECORD_BYTES];
	double message[RUNS_MAX], bulk[RUNS_MAX];
	uint64_t server_ns = 0, client_ns = 0;

	handshake(&p, WOLFSSL_ECC_X25519, &server_ns, &client_ns);
	for (int i = 0; i < runs; i++) {
		server_ns = 0;
		for (int k = 0; k < MESSAGES; k++) {
			move(p.client, p.server, data, MESSAGE_BYTES, &client_ns, &server_ns);
			move(p.server, p.client, data, MESSAGE_BYTES, &server_ns, &client_ns);
		}
		message[i] = (double)server_ns / MESSAGES / 1000;
		server_ns = 0;
		for (int k = 0; k < RECORDS; k++)
			move(p.client, p.server, data, RECORD_BYTES, &client_ns, &server_ns);
		bulk[i] = (double)RECORDS * RECORD_BYTES * 1000 / (double)server_ns;
	}
	pair_free(&p, &server_ns);
	emit("floor_message_us", "us", message, runs);
	emit("floor_bulk_mb_per_s", "MB/s", bulk, runs);
}

int main(int argc, char **argv)
{
	int runs = argc == 6 ? atoi(argv[5]) : 0;

	if (runs < 1 || runs > RUNS_MAX) {
		fputs("usage: tls_floor CA-CERTIFICATE CA-KEY CERTIFICATE KEY RUNS\n", stderr);
		return 2;
	}
	if (wolfSSL_Init() != WOLFSSL_SUCCESS)
		device_die("no TLS library");
	device_ca_load(&ca, argv[1], argv[2]);
	for (unsigned d = 0; d < DEVICES; d++)
		device_make(&device[d], &ca, d);
	client_ctx = device_ctx(&ca);
	server_ctx = wolfSSL_CTX_new(wolfTLSv1_3_server_method());
	if (server_ctx == NULL ||
	    wolfSSL_CTX_use_certificate_file(server_ctx, argv[3], WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(server_ctx, argv[4], WOLFSSL_FILETYPE_PEM) !=
		    WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_load_verify_buffer(server_ctx, ca.der, ca.der_bytes,
					   WOLFSSL_FILETYPE_ASN1) != WOLFSSL_SUCCESS)
		device_die("no server context");
	wolfSSL_CTX_set_verify(server_ctx,
			       WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	handshakes("floor_handshake_us", "floor_client_handshake_us", WOLFSSL_X25519MLKEM768, runs);
	handshakes("floor_handshake_x25519_us", NULL, WOLFSSL_ECC_X25519, runs);
	records(runs);
	wolfSSL_CTX_free(server_ctx);
	wolfSSL_CTX_free(client_ctx);
	wolfSSL_Cleanup();
	return 0;
}
