/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_socket: the generator's streams over the kernel's sockets, and its epoll set. */
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/tls_device.h"
#include "tls-proxy/stream.h"

#define SOCKET_EVENTS 256

static int socket_set; /* the epoll set */

static inline void socket_watch(struct stream *s, int op, uint32_t events)
{
	struct epoll_event ev = {.events = ((events & STREAM_READ) ? EPOLLIN : 0u) |
					   ((events & STREAM_WRITE) ? EPOLLOUT : 0u),
				 .data.ptr = s};

	if (epoll_ctl(socket_set, op, s->src.fd, &ev) < 0)
		device_die("epoll");
	s->src.events = events;
}

static ssize_t socket_recv(struct stream *s, void *out, size_t bytes)
{
	ssize_t n = recv(s->src.fd, out, bytes, 0);

	return n >= 0 ? n : -errno;
}

static ssize_t socket_send(struct stream *s, const void *data, size_t bytes)
{
	ssize_t n = send(s->src.fd, data, bytes, MSG_NOSIGNAL);

	return n >= 0 ? n : -errno;
}

static int socket_connected(struct stream *s)
{
	socklen_t n = sizeof(int);
	int error = 0;

	return getsockopt(s->src.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 ? -errno : -error;
}

static void socket_want(struct stream *s, uint32_t events)
{
	if (s->src.events != events)
		socket_watch(s, EPOLL_CTL_MOD, events);
}

static void socket_close(struct stream *s)
{
	close(s->src.fd);
}

static void socket_reset(struct stream *s)
{
	const struct linger none = {.l_onoff = 1};

	setsockopt(s->src.fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(s->src.fd);
}

static const struct stream_ops socket_ops = {
	.recv = socket_recv,
	.send = socket_send,
	.connected = socket_connected,
	.want = socket_want,
	.close = socket_close,
	.reset = socket_reset,
};

/** Begin to connect from a device's address, with ready and arg set; STREAM_WRITE is wanted. @return 0 or -errno */
static inline int socket_connect(struct stream *s, uint32_t device, const struct sockaddr_in *to)
{
	struct sockaddr_in from = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(DEVICE_NET + DEVICE_FIRST + device)};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	/* The port is chosen with the connection, so that a device has 64,000 of them for each target. */
	if (fd < 0 || setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0)
		device_die("a socket cannot be bound to a device's address");
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 && errno != EINPROGRESS) {
		int error = errno;

		close(fd);
		return -error;
	}
	s->ops = &socket_ops;
	s->src.fd = fd;
	socket_watch(s, EPOLL_CTL_ADD, STREAM_WRITE);
	return 0;
}

/** @return true: standard input, which was added with no stream, has something */
static inline bool socket_turn(int timeout_ms)
{
	struct epoll_event ev[SOCKET_EVENTS];
	int n = epoll_wait(socket_set, ev, SOCKET_EVENTS, timeout_ms);
	bool asked = false;

	for (int i = 0; i < n; i++) {
		struct stream *s = ev[i].data.ptr;
		uint32_t e = ev[i].events;

		if (s == NULL)
			asked = true;
		else if (stream_is_open(s))
			s->ready(s->arg, ((e & EPOLLIN) ? STREAM_READ : 0u) |
						 ((e & EPOLLOUT) ? STREAM_WRITE : 0u) |
						 ((e & (EPOLLHUP | EPOLLERR)) ? STREAM_GONE : 0u));
	}
	return asked;
}
