/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls-device: a device that speaks DTLS with a connection ID, and moves. For what no packaged client can do.
 *   dtls-device [--v13] [--no-cid] [--bind ADDRESS] HOST PORT CA CERTIFICATE KEY
 * A line on standard input: "say TEXT" sends a datagram, "move ADDRESS" goes on from another own address, "end" says
 * good-bye. It prints "open VERSION cid=0|1", "got TEXT", and at the end "closed alert=N". */
#include <arpa/inet.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "config/base/clock.h"

#define DATAGRAM_BYTES 2048
#define LINE_BYTES 1500

struct device {
	const char *host, *port, *from;
	int fd;
	WOLFSSL *ssl;
	bool open;
	uint64_t again_ms; /* boot clock */
	char line[LINE_BYTES];
	size_t line_bytes;
};

static void die(const char *what)
{
	fprintf(stderr, "dtls-device: %s\n", what);
	exit(1);
}

static int socket_from(const struct device *d)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
	struct addrinfo *to, *own = NULL;
	int fd;

	if (getaddrinfo(d->host, d->port, &hints, &to) != 0 ||
	    (d->from != NULL && getaddrinfo(d->from, NULL, &hints, &own) != 0))
		die("no such address");
	fd = socket(to->ai_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (fd < 0 || (own != NULL && bind(fd, own->ai_addr, own->ai_addrlen) < 0) ||
	    connect(fd, to->ai_addr, to->ai_addrlen) < 0)
		die("the socket cannot be had");
	freeaddrinfo(to);
	if (own != NULL)
		freeaddrinfo(own);
	return fd;
}

static int on_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	const struct device *d = arg;
	ssize_t n = recv(d->fd, buf, bytes, 0);

	(void)ssl;
	return n > 0 ? n : WOLFSSL_CBIO_ERR_WANT_READ;
}

/* What cannot be sent is lost, as on any network. */
static int on_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	const struct device *d = arg;

	(void)ssl;
	if (send(d->fd, buf, bytes, 0) < 0)
		perror("dtls-device: send");
	return bytes;
}

static WOLFSSL *session_make(bool v13, bool cid, char **files)
{
	WOLFSSL_CTX *ctx =
		wolfSSL_CTX_new(v13 ? wolfDTLSv1_3_client_method() : wolfDTLSv1_2_client_method());
	WOLFSSL *ssl;

	if (ctx == NULL ||
	    wolfSSL_CTX_load_verify_locations(ctx, files[0], NULL) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_certificate_chain_file(ctx, files[1]) != WOLFSSL_SUCCESS ||
	    wolfSSL_CTX_use_PrivateKey_file(ctx, files[2], WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
		die("CA, certificate or key cannot be read");
	ssl = wolfSSL_new(ctx);
	wolfSSL_CTX_free(ctx);
	if (ssl == NULL || (cid && (wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS ||
				    wolfSSL_dtls_cid_set(ssl, NULL, 0) != WOLFSSL_SUCCESS)))
		die("no session");
	return ssl;
}

static int closed(struct device *d)
{
	WOLFSSL_ALERT_HISTORY h;

	memset(&h, 0, sizeof(h));
	wolfSSL_get_alert_history(d->ssl, &h);
	printf("closed alert=%d\n", h.last_rx.code);
	return 0;
}

static bool waits(struct device *d, int ret)
{
	int error = wolfSSL_get_error(d->ssl, ret);

	return error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE;
}

/* @return false: it ended */
static bool session_work(struct device *d)
{
	char text[DATAGRAM_BYTES];
	int n;

	if (!d->open) {
		n = wolfSSL_connect(d->ssl);
		if (n != WOLFSSL_SUCCESS)
			return waits(d, n);
		d->open = true;
		printf("open %s cid=%d\n", wolfSSL_get_version(d->ssl),
		       wolfSSL_dtls_cid_is_enabled(d->ssl));
	}
	while ((n = wolfSSL_read(d->ssl, text, sizeof(text))) > 0)
		printf("got %.*s\n", n, text);
	return waits(d, n);
}

/* @return false: it is to end */
static bool command(struct device *d, char *line)
{
	if (strncmp(line, "say ", 4) == 0) {
		if (!d->open || wolfSSL_write(d->ssl, line + 4, strlen(line + 4)) <= 0)
			puts("not sent");
	} else if (strncmp(line, "move ", 5) == 0) {
		close(d->fd);
		d->from = line + 5;
		d->fd = socket_from(d);
		printf("moved %s\n", d->from);
	} else if (strcmp(line, "end") == 0) {
		wolfSSL_shutdown(d->ssl);
		return false;
	}
	return true;
}

static bool commands(struct device *d)
{
	ssize_t n = read(STDIN_FILENO, d->line + d->line_bytes, LINE_BYTES - 1 - d->line_bytes);
	char *end;

	if (n <= 0)
		return false;
	d->line_bytes += n;
	d->line[d->line_bytes] = '\0';
	while ((end = strchr(d->line, '\n')) != NULL) {
		*end = '\0';
		if (!command(d, d->line))
			return false;
		d->line_bytes -= end + 1 - d->line;
		memmove(d->line, end + 1, d->line_bytes + 1);
	}
	return true;
}

static int run(struct device *d)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = d->fd, .events = POLLIN},
				      {.fd = STDIN_FILENO, .events = POLLIN}};

		if (!session_work(d))
			return closed(d);
		fflush(stdout);
		poll(p, 2, 250);
		if (p[1].revents != 0 && !commands(d))
			return closed(d);
		if (p[0].revents != 0 || d->open) {
			d->again_ms = clock_boot_ms() + 1000;
		} else if (clock_boot_ms() >= d->again_ms) {
			wolfSSL_dtls_got_timeout(d->ssl);
			d->again_ms = clock_boot_ms() + 1000;
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"v13", no_argument, NULL, '3'},
					      {"no-cid", no_argument, NULL, 'n'},
					      {"bind", required_argument, NULL, 'b'},
					      {0}};
	struct device d = {.again_ms = clock_boot_ms() + 1000};
	bool v13 = false, cid = true;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		v13 |= c == '3';
		cid &= c != 'n';
		if (c == 'b')
			d.from = optarg;
		else if (c == '?')
			return 2;
	}
	if (argc - optind != 5)
		die("usage: dtls-device [--v13] [--no-cid] [--bind ADDRESS] HOST PORT CA "
		    "CERTIFICATE KEY");
	d.host = argv[optind];
	d.port = argv[optind + 1];
	wolfSSL_Init();
	d.fd = socket_from(&d);
	d.ssl = session_make(v13, cid, argv + optind + 2);
	wolfSSL_SSLSetIORecv(d.ssl, on_recv);
	wolfSSL_SSLSetIOSend(d.ssl, on_send);
	wolfSSL_SetIOReadCtx(d.ssl, &d);
	wolfSSL_SetIOWriteCtx(d.ssl, &d);
	c = run(&d);
	wolfSSL_free(d.ssl);
	return c;
}
