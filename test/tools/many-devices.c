/* SPDX-License-Identifier: GPL-3.0-or-later */
/* many-devices: thousands of devices in one process, each with its own address, key, certificate and words; and a server that
 * echoes to as many.
 *   many-devices CA-CERTIFICATE CA-KEY ADDRESS PORT N     all open; each says who it is and wants to hear exactly that
 *   many-devices echo ADDRESS PORT
 * Device d speaks from 10.64.1.0 + d and is spiffe://bench/device/d. Lines on standard output: "open N" when all are,
 * "echoed N" when each has got its own words, "ended D" when the other end ends device d's session. A line on standard input
 * makes those who are left speak once more; its end closes all. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/tls_device.h"

#define DEVICES_MAX 20000
#define UNDER_WAY 64 /* who has begun and not heard its own words yet: only then it is admitted */
#define WORDS_BYTES 600

struct device {
	WOLFSSL *ssl; /* NULL: not begun, or over */
	int fd;
	bool open, heard;
	size_t got; /* of its words */
};

static struct device devices[DEVICES_MAX];
static unsigned n_devices, begun, n_open, n_over, n_heard, round_no;
static struct device_ca ca;
static WOLFSSL_CTX *ctx;
static struct sockaddr_in server;
static int set;

static void die(const char *what)
{
	fprintf(stderr, "many-devices: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void say(const char *what, unsigned n)
{
	printf("%s %u\n", what, n);
	fflush(stdout);
}

static void watch(int fd, unsigned d)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = d};

	if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("epoll");
}

/* Nobody else's words are like these. */
static void words(unsigned d, char out[static WORDS_BYTES])
{
	for (int at = 0; at < WORDS_BYTES;)
		at += snprintf(out + at, WORDS_BYTES - at, "device %u round %u at %d;", d, round_no,
			       at);
}

static void device_begin(unsigned d)
{
	struct sockaddr_in from = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(DEVICE_NET + DEVICE_FIRST + d)};
	struct device_identity id = {0};
	struct device *v = &devices[d];
	int on = 1;

	device_make(&id, &ca, d);
	v->ssl = device_session(ctx, &id, WOLFSSL_ECC_X25519);
	free(id.cert);
	v->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (v->fd < 0 || bind(v->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	    (connect(v->fd, (struct sockaddr *)&server, sizeof(server)) < 0 &&
	     errno != EINPROGRESS))
		die("connect");
	setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	wolfSSL_set_fd(v->ssl, v->fd);
	watch(v->fd, d);
}

static void device_end(unsigned d)
{
	wolfSSL_free(devices[d].ssl);
	close(devices[d].fd);
	devices[d].ssl = NULL;
	n_over++;
}

static void device_speak(unsigned d)
{
	char text[WORDS_BYTES];

	words(d, text);
	devices[d].got = 0;
	devices[d].heard = false;
	if (wolfSSL_write(devices[d].ssl, text, sizeof(text)) != (int)sizeof(text))
		die("a device cannot send");
}

/* @return false: its session is over */
static bool device_hear(unsigned d)
{
	struct device *v = &devices[d];
	char got[WORDS_BYTES], want[WORDS_BYTES];
	int n;

	while ((n = wolfSSL_read(v->ssl, got, sizeof(got))) > 0) {
		words(d, want);
		if (v->got + n > WORDS_BYTES || memcmp(got, want + v->got, n) != 0) {
			printf("device %u got what it did not say\n", d);
			exit(1);
		}
		v->got += n;
		if (v->got == WORDS_BYTES && !v->heard) {
			v->heard = true;
			n_heard++;
		}
	}
	return wolfSSL_get_error(v->ssl, n) == WOLFSSL_ERROR_WANT_READ;
}

static void device_work(unsigned d)
{
	struct device *v = &devices[d];
	int error;

	if (v->ssl == NULL)
		return;
	if (!v->open) {
		if (wolfSSL_connect(v->ssl) != WOLFSSL_SUCCESS) {
			error = wolfSSL_get_error(v->ssl, 0);
			if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE)
				return;
			printf("device %u cannot open: %d\n", d, error);
			exit(1);
		}
		v->open = true;
		n_open++;
		device_speak(d);
	}
	if (!device_hear(d)) {
		say("ended", d);
		device_end(d);
	}
}

static void all_speak(void)
{
	round_no++;
	n_heard = 0;
	for (unsigned d = 0; d < n_devices; d++) {
		if (devices[d].ssl != NULL)
			device_speak(d);
	}
}

/* @return false: no more of it */
static bool command_take(void)
{
	char line[64];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line));

	if (n > 0)
		all_speak();
	return n != 0;
}

static void all_close(void)
{
	for (unsigned d = 0; d < n_devices; d++) {
		if (devices[d].ssl == NULL)
			continue;
		wolfSSL_shutdown(devices[d].ssl);
		device_end(d);
	}
}

static void devices_run(void)
{
	unsigned told_open = 0, told_heard = 0;
	struct epoll_event ev[256];

	watch(STDIN_FILENO, DEVICES_MAX);
	for (;;) {
		int n;

		while (begun < n_devices && begun - n_heard - n_over < UNDER_WAY)
			device_begin(begun++);
		n = epoll_wait(set, ev, 256, -1);
		for (int i = 0; i < n; i++) {
			if (ev[i].data.u32 != DEVICES_MAX)
				device_work(ev[i].data.u32);
			else if (!command_take())
				return;
		}
		if (n_open == n_devices && told_open == 0)
			say("open", told_open = n_open);
		if (n_open == n_devices && n_heard == n_devices - n_over &&
		    told_heard <= round_no) {
			say("echoed", n_heard);
			told_heard = round_no + 1;
		}
	}
}

/* ---- the server ------------------------------------------------------------------------------- */

static void echo_one(int fd)
{
	char data[4096];
	ssize_t n;

	while ((n = recv(fd, data, sizeof(data), 0)) > 0) {
		if (send(fd, data, n, MSG_NOSIGNAL) != n)
			break;
	}
	if (n < 0 && errno == EAGAIN)
		return;
	close(fd);
}

static void echo_run(void)
{
	int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	struct epoll_event ev[256];

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (l < 0 || bind(l, (struct sockaddr *)&server, sizeof(server)) < 0 || listen(l, 4096) < 0)
		die("listen");
	watch(l, l);
	say("listens", ntohs(server.sin_port));
	for (;;) {
		int n = epoll_wait(set, ev, 256, -1);

		for (int i = 0; i < n; i++) {
			int fd = ev[i].data.u32;

			if (fd != l) {
				echo_one(fd);
				continue;
			}
			while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
				watch(fd, fd);
		}
	}
}

static void server_read(const char *address, const char *port)
{
	server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	if (inet_pton(AF_INET, address, &server.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
}

int main(int argc, char **argv)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	set = epoll_create1(EPOLL_CLOEXEC);
	if (argc == 4 && strcmp(argv[1], "echo") == 0) {
		server_read(argv[2], argv[3]);
		echo_run();
	}
	if (argc != 6 || atoi(argv[5]) < 1 || atoi(argv[5]) > DEVICES_MAX) {
		fputs("usage: many-devices CA-CERTIFICATE CA-KEY ADDRESS PORT N\n"
		      "       many-devices echo ADDRESS PORT\n",
		      stderr);
		return 2;
	}
	wolfSSL_Init();
	device_ca_load(&ca, argv[1], argv[2]);
	ctx = device_ctx(&ca);
	server_read(argv[3], argv[4]);
	n_devices = atoi(argv[5]);
	devices_run();
	all_close();
	return 0;
}
