/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ends: the other ends of a worker's connections, a device's and an upstream's: kernel sockets, or, where ends_stack is set,
 * streams of the worker's own stack (stack_loop.c). A number stands for one as a descriptor does, -1 for none, and the calls
 * are as of sockets that do not block. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "tls-proxy/stack/stack.h"

#define END_OF_STACK 0x40000000 /* its number is this and its place below */
#define ENDS_MAX 64
#define END_LISTENERS_MAX 8
#define END_BUFFER_BYTES 16384 /* of a socket, each way */

struct end_listener {
	struct stack_listener l;
	uint16_t port;
	int waiting[ENDS_MAX]; /* not accepted yet */
	unsigned n;
};

static struct stack *ends_stack; /* NULL: sockets */
static struct stream ends[ENDS_MAX];
static bool ends_used[ENDS_MAX];
static struct end_listener end_listeners[END_LISTENERS_MAX];

#define END_DEVICE "10.1.0.9"
#define END_UPSTREAM "10.2.0.2"

static inline void end_ready(void *arg, uint32_t events)
{
	(void)arg;
	(void)events; /* who has an end asks it */
}

static inline struct ip_addr end_addr(const char *text)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, text), 0);
	return a;
}

static inline int end_new(void)
{
	for (int i = 0; i < ENDS_MAX; i++) {
		if (ends_used[i])
			continue;
		ends_used[i] = true;
		ends[i] = (struct stream){.ready = end_ready};
		return END_OF_STACK | i;
	}
	fail_msg("more than %d ends", ENDS_MAX);
	return -1;
}

static inline struct stream *end_stream(int end)
{
	return end >= END_OF_STACK ? &ends[end & (ENDS_MAX - 1)] : NULL;
}

static inline ssize_t end_said(ssize_t n)
{
	errno = n < 0 ? (int)-n : 0;
	return n < 0 ? -1 : n;
}

static inline ssize_t end_recv(int end, void *out, size_t bytes)
{
	struct stream *s = end_stream(end);

	return s != NULL ? end_said(stream_recv(s, out, bytes)) : recv(end, out, bytes, 0);
}

static inline ssize_t end_send(int end, const void *data, size_t bytes)
{
	struct stream *s = end_stream(end);

	return s != NULL ? end_said(stream_send(s, data, bytes))
			 : send(end, data, bytes, MSG_NOSIGNAL);
}

/* No more is sent. */
static inline void end_shut(int end)
{
	struct stream *s = end_stream(end);

	if (s != NULL)
		stream_shut(s);
	else
		shutdown(end, SHUT_WR);
}

static inline void end_close(int *end)
{
	struct stream *s = end_stream(*end);

	if (s != NULL) {
		stream_close(s);
		ends_used[*end & (ENDS_MAX - 1)] = false;
	} else if (*end >= 0) {
		close(*end);
	}
	*end = -1;
}

static inline void end_reset(int *end)
{
	const struct linger none = {.l_onoff = 1};

	if (end_stream(*end) != NULL)
		stream_reset(end_stream(*end));
	else
		setsockopt(*end, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	end_close(end);
}

/* A device's. */
static inline int end_connect(const struct ip_addr *to, uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int small = END_BUFFER_BYTES, end;

	if (ends_stack != NULL) {
		struct ip_addr from = end_addr(END_DEVICE);

		end = end_new();
		assert_int_equal(stack_connect(ends_stack, end_stream(end), &from, 1, to, port), 0);
		stream_want(end_stream(end), 0);
		return end;
	}
	end = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(end, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(connect(end, (struct sockaddr *)&in, sizeof(in)), 0);
	fcntl(end, F_SETFL, O_NONBLOCK);
	return end;
}

static inline struct stream *end_arrives(void *arg, const struct ip_addr *peer, uint16_t peer_port)
{
	struct end_listener *l = arg;

	(void)peer;
	(void)peer_port;
	if (l->n == ENDS_MAX)
		return NULL;
	l->waiting[l->n] = end_new();
	return end_stream(l->waiting[l->n++]);
}

static uint16_t ends_next_port = 40000; /* of the stack's */

/* A port at which nobody listens: who connects is refused, and nobody else gets it. 0: any, which is told. */
static inline int end_reserve(uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(*port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(in);
	int fd, small = END_BUFFER_BYTES, on = 1;

	if (ends_stack != NULL) {
		if (*port == 0)
			*port = ends_next_port++;
		return -1; /* its ports are taken by number only */
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

/* An upstream's, at `port`; 0: any, which is told. */
static inline int end_listen(uint16_t *port)
{
	struct err err = {""};
	int fd;

	for (int i = 0; ends_stack != NULL && i < END_LISTENERS_MAX; i++) {
		struct ip_addr at = end_addr(END_UPSTREAM);

		if (end_listeners[i].port != 0)
			continue;
		end_reserve(port);
		end_listeners[i] = (struct end_listener){
			.l = {.accept = end_arrives, .arg = &end_listeners[i]}, .port = *port};
		assert_int_equal(stack_listen(ends_stack, &end_listeners[i].l, &at, *port, &err),
				 0);
		return END_OF_STACK | i;
	}
	fd = end_reserve(port);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* @return -1: nobody came */
static inline int end_accept(int listener)
{
	struct end_listener *l = &end_listeners[listener & (END_LISTENERS_MAX - 1)];
	int end;

	if (listener < END_OF_STACK)
		return accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	if (l->n == 0)
		return -1;
	end = l->waiting[0];
	stream_want(end_stream(end), 0);
	memmove(l->waiting, l->waiting + 1, --l->n * sizeof(l->waiting[0]));
	return end;
}

/* Who was not accepted is reset. */
static inline void end_unlisten(int *listener)
{
	struct end_listener *l = &end_listeners[*listener & (END_LISTENERS_MAX - 1)];

	if (*listener >= 0 && *listener < END_OF_STACK) {
		close(*listener);
	} else if (*listener >= 0) {
		while (l->n > 0)
			end_reset(&l->waiting[--l->n]);
		stack_unlisten(ends_stack, &l->l);
		l->port = 0;
	}
	*listener = -1;
}

/* The TLS library's way to an end; arg points at it. */
static inline int end_tls_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	ssize_t n = end_recv(*(int *)arg, buf, bytes);

	(void)ssl;
	if (n > 0)
		return n;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_CONN_CLOSE;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_READ : WOLFSSL_CBIO_ERR_CONN_RST;
}

static inline int end_tls_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	ssize_t n = end_send(*(int *)arg, buf, bytes);

	(void)ssl;
	if (n >= 0)
		return n;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_WRITE : WOLFSSL_CBIO_ERR_CONN_RST;
}

static inline void end_tls(WOLFSSL *ssl, int *end)
{
	wolfSSL_SSLSetIORecv(ssl, end_tls_recv);
	wolfSSL_SSLSetIOSend(ssl, end_tls_send);
	wolfSSL_SetIOReadCtx(ssl, end);
	wolfSSL_SetIOWriteCtx(ssl, end);
}
