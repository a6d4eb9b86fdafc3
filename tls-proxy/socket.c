/* SPDX-License-Identifier: GPL-3.0-or-later */
/* socket: the `socket` transport: kernel sockets, for devices behind interfaces that DPDK cannot take. */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls-proxy/sockaddr.h"
#include "tls-proxy/worker.h"

#define BACKLOG 1024
#define ACCEPTS_A_TURN 32
#define UNSENT_BYTES (64 * 1024) /* that the kernel holds each way beside what is in flight */

static ssize_t socket_recv(struct stream *s, void *out, size_t bytes)
{
	ssize_t n = recv(s->src.fd, out, bytes, 0);

	return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t socket_send(struct stream *s, const void *data, size_t bytes)
{
	ssize_t n = send(s->src.fd, data, bytes, MSG_NOSIGNAL);

	return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static int socket_connected(struct stream *s)
{
	struct sockaddr_storage ss;
	socklen_t ss_n = sizeof(ss), n = sizeof(int);
	int error = 0;

	if (getsockopt(s->src.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		return -errno;
	if (error != 0)
		return -error;
	return getpeername(s->src.fd, (struct sockaddr *)&ss, &ss_n) < 0 ? -EINPROGRESS : 0;
}

static bool socket_unsent(struct stream *s)
{
	struct tcp_info info = {0};
	socklen_t bytes = sizeof(info);

	return getsockopt(s->src.fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0 ||
	       info.tcpi_notsent_bytes > 0;
}

static void socket_want(struct stream *s, uint32_t events)
{
	uint32_t ask =
		((events & STREAM_READ) ? EPOLLIN : 0u) | ((events & STREAM_WRITE) ? EPOLLOUT : 0u);

	/* EPOLLERR and EPOLLHUP come unasked; where nothing can be done about them, once and not for ever. */
	source_set(s->w, &s->src, ask != 0 ? ask : (uint32_t)EPOLLET);
}

static void socket_shut(struct stream *s)
{
	shutdown(s->src.fd, SHUT_WR);
}

static void socket_close(struct stream *s)
{
	source_close(s->w, &s->src);
}

static void socket_reset(struct stream *s)
{
	const struct linger none = {.l_onoff = 1};

	setsockopt(s->src.fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	source_close(s->w, &s->src);
}

static const struct stream_ops socket_ops = {
	.recv = socket_recv,
	.send = socket_send,
	.connected = socket_connected,
	.unsent = socket_unsent,
	.want = socket_want,
	.shut = socket_shut,
	.close = socket_close,
	.reset = socket_reset,
};

static void socket_ready(void *arg, uint32_t events)
{
	struct stream *s = arg;
	uint32_t told = ((events & EPOLLIN) ? STREAM_READ : 0u) |
			((events & EPOLLOUT) ? STREAM_WRITE : 0u) |
			((events & (EPOLLHUP | EPOLLERR)) ? STREAM_GONE : 0u) |
			((events & EPOLLERR) ? STREAM_LOST : 0u);

	if (s->ops == &socket_ops)
		s->ready(s->arg, told);
}

/* A peer that does not read must not pin the kernel's memory: what cannot be sent soon stays with its sender. */
static int socket_attach(struct worker *w, struct stream *s, int fd, uint32_t events)
{
	int on = 1, unsent = UNSENT_BYTES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	s->ops = &socket_ops;
	s->w = w;
	s->src = (struct source){.fd = fd, .ready = socket_ready, .arg = s};
	return source_add(w, &s->src, events);
}

int socket_connect(struct worker *w, struct stream *s, const struct ip_addr *to, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, to, port);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&ss, n) < 0 && errno != EINPROGRESS) {
		ret = -errno;
		close(fd);
		return ret;
	}
	ret = socket_attach(w, s, fd, EPOLLOUT);
	if (ret < 0)
		stream_close(s);
	return ret;
}

static void listening_ready(void *arg, uint32_t events)
{
	struct listener *l = arg;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		struct sockaddr_storage ss;
		socklen_t n = sizeof(ss);
		struct ip_addr peer;
		struct conn *c;
		uint16_t port;
		int fd = accept4(l->src.fd, (struct sockaddr *)&ss, &n,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			/* No descriptor or memory left: the queue stays ready, and asking again would only burn CPU. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			    errno == ENOMEM) {
				log_error("listener %s pauses: %s", l->cfg->name, strerror(errno));
				source_set(l->w, &l->src, 0);
			}
			return;
		}
		c = sockaddr_read(&ss, &peer, &port) == 0 ? conn_start(l, &peer, port) : NULL;
		if (c == NULL)
			close(fd);
		else if (socket_attach(l->w, conn_device(c), fd, EPOLLIN) < 0)
			conn_end(c);
	}
}

void socket_take(struct listener *l, struct listener *from)
{
	int fd = from->src.fd;

	source_set(from->w, &from->src, 0);
	from->src.fd = -1;
	l->src = (struct source){.fd = fd, .ready = listening_ready, .arg = l};
	if (source_add(l->w, &l->src, EPOLLIN) < 0)
		l->src.events = 0; /* the next tick asks again */
}

int socket_listen(struct listener *l, struct err *err)
{
	const struct gw_listener *cfg = l->cfg;
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, &cfg->addr, cfg->port);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	char text[ADDR_TEXT_BYTES];
	int on = 1;

	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	l->src = (struct source){.fd = fd, .ready = listening_ready, .arg = l};
	/* FREEBIND: the address belongs to a shadow interface, which comes and goes with the dataplane. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
	    (ss.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
	    bind(fd, (struct sockaddr *)&ss, n) < 0 || listen(fd, BACKLOG) < 0)
		return err_set(err, -errno, "%s port %u: %s", ip_addr_text(&cfg->addr, text),
			       cfg->port, strerror(errno));
	return source_add(l->w, &l->src, EPOLLIN);
}
