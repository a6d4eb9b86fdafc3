/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_sink: the upstream of the TLS benchmark, as cheap as one can be: plain TCP, one thread, epoll.
 *   tls_sink [--proxy] ADDRESS PORT [PORTS]    PORTS ports from PORT on (default 1)
 * Each connection is greeted with one byte. The first byte that comes then chooses: 'E' all is echoed, 'S' all is swallowed,
 * and an 'E' at the end of what has come so far is answered with one: all before it is here.
 * --proxy: a PROXY protocol version 2 header comes first, and is skipped. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256
#define PROXY_HEAD 16
#define BYTES (64 * 1024)

enum mode { MODE_PROXY, MODE_NEW, MODE_ECHO, MODE_SWALLOW };

struct peer {
	int fd;
	uint8_t mode;
	bool listens;
	uint32_t skip; /* of the PROXY header */
	uint8_t head[PROXY_HEAD], head_n;
	uint32_t waits, sent; /* bytes of an echo that the socket did not take */
	uint8_t *data;
};

static int set;
static bool proxy;

static void die(const char *what)
{
	fprintf(stderr, "tls_sink: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(struct peer *p, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = p};

	if (epoll_ctl(set, op, p->fd, &ev) < 0)
		die("epoll");
}

static void end(struct peer *p)
{
	close(p->fd);
	free(p->data);
	free(p);
}

static void greet(struct peer *at)
{
	for (int i = 0; i < 64; i++) {
		int on = 1, fd = accept4(at->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct peer *p;

		if (fd < 0)
			return;
		p = calloc(1, sizeof(*p));
		if (p == NULL)
			die("memory");
		p->fd = fd;
		p->mode = proxy ? MODE_PROXY : MODE_NEW;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (send(fd, "+", 1, MSG_NOSIGNAL) != 1)
			end(p);
		else
			watch(p, EPOLL_CTL_ADD, EPOLLIN);
	}
}

/* @return bytes of data that are the header's; all of them until it is complete. -1: it is none */
static ssize_t header_skip(struct peer *p, const uint8_t *data, size_t n)
{
	static const uint8_t signature[12] = "\r\n\r\n\0\r\nQUIT\n";
	size_t at = 0;

	while (at < n && p->head_n < PROXY_HEAD)
		p->head[p->head_n++] = data[at++];
	if (p->head_n < PROXY_HEAD)
		return (ssize_t)at;
	if (p->skip == 0) {
		if (memcmp(p->head, signature, sizeof(signature)) != 0)
			return -1;
		p->skip = 1 + ((uint32_t)p->head[14] << 8 | p->head[15]);
	}
	while (at < n && p->skip > 1) {
		at++;
		p->skip--;
	}
	if (p->skip == 1)
		p->mode = MODE_NEW;
	return (ssize_t)at;
}

/* What is not taken now waits, and nothing is read meanwhile. */
static void echo(struct peer *p, const uint8_t *data, size_t n)
{
	ssize_t sent = send(p->fd, data, n, MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN) {
		end(p);
		return;
	}
	if (sent < 0)
		sent = 0;
	if ((size_t)sent == n)
		return;
	p->data = malloc(n - (size_t)sent);
	if (p->data == NULL)
		die("memory");
	p->waits = (uint32_t)(n - (size_t)sent);
	p->sent = 0;
	memcpy(p->data, data + sent, p->waits);
	watch(p, EPOLL_CTL_MOD, EPOLLOUT);
}

static void echo_rest(struct peer *p)
{
	ssize_t sent = send(p->fd, p->data + p->sent, p->waits - p->sent, MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN) {
		end(p);
		return;
	}
	p->sent += sent > 0 ? (uint32_t)sent : 0;
	if (p->sent < p->waits)
		return;
	free(p->data);
	p->data = NULL;
	p->waits = 0;
	watch(p, EPOLL_CTL_MOD, EPOLLIN);
}

static void receive(struct peer *p)
{
	static uint8_t buf[BYTES];
	uint8_t *data = buf;
	ssize_t skip, n = recv(p->fd, buf, sizeof(buf), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		end(p);
		return;
	}
	if (p->mode == MODE_PROXY) {
		skip = header_skip(p, data, (size_t)n);
		if (skip < 0) {
			end(p);
			return;
		}
		data += skip;
		n -= skip;
	}
	if (n == 0)
		return;
	if (p->mode == MODE_NEW)
		p->mode = data[0] == 'S' ? MODE_SWALLOW : MODE_ECHO;
	if (p->mode == MODE_ECHO)
		echo(p, data, (size_t)n);
	else if (data[n - 1] == 'E')
		echo(p, data + n - 1, 1);
}

static void listen_at(const char *address, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct peer *p = calloc(1, sizeof(*p));
	int on = 1;

	if (p == NULL || inet_pton(AF_INET, address, &sa.sin_addr) != 1)
		die(address);
	p->listens = true;
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(p->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(p->fd, 65535) < 0)
		die(address);
	watch(p, EPOLL_CTL_ADD, EPOLLIN);
}

int main(int argc, char **argv)
{
	struct rlimit most;
	struct epoll_event ev[EVENTS];
	int first, ports;

	proxy = argc > 1 && strcmp(argv[1], "--proxy") == 0;
	argv += proxy;
	argc -= proxy;
	if (argc < 3) {
		fputs("usage: tls_sink [--proxy] ADDRESS PORT [PORTS]\n", stderr);
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &most);
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
	set = epoll_create1(EPOLL_CLOEXEC);
	first = atoi(argv[2]);
	ports = argc > 3 ? atoi(argv[3]) : 1;
	for (int i = 0; i < ports; i++)
		listen_at(argv[1], (uint16_t)(first + i));
	for (;;) {
		int n = epoll_wait(set, ev, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;

			if (p->listens)
				greet(p);
			else if (p->waits > 0)
				echo_rest(p);
			else
				receive(p);
		}
	}
}
