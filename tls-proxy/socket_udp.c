/* SPDX-License-Identifier: GPL-3.0-or-later */
/* socket_udp: datagrams of the `socket` transport: kernel sockets. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tls-proxy/datagram.h"
#include "tls-proxy/sockaddr.h"
#include "tls-proxy/worker.h"

#define PASSED_OVER_MAX 16 /* then the others come first */
#define QUEUE_BYTES (1024 * 1024) /* a flight of many devices at once */

/* An error here is of a datagram that was sent before (ICMP), and nobody waits for that. */
static ssize_t udp_recv(struct datagram *d, void *out, size_t bytes, struct datagram_peer *from)
{
	for (int i = 0; i < PASSED_OVER_MAX; i++) {
		struct sockaddr_storage ss;
		socklen_t ss_n = sizeof(ss);
		ssize_t n =
			recvfrom(d->src.fd, out, bytes, MSG_TRUNC, (struct sockaddr *)&ss, &ss_n);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return -EAGAIN;
		if (n <= 0 || (size_t)n > bytes)
			continue;
		if (from != NULL && sockaddr_read(&ss, &from->addr, &from->port) < 0)
			continue;
		return n;
	}
	return -EAGAIN;
}

static void udp_send(struct datagram *d, const struct datagram_peer *to, const void *head,
		     size_t head_bytes, const void *data, size_t bytes)
{
	struct iovec part[2] = {{(void *)head, head_bytes}, {(void *)data, bytes}};
	struct sockaddr_storage ss;
	struct msghdr m = {.msg_iov = part, .msg_iovlen = 2};

	if (to != NULL) {
		m.msg_namelen = sockaddr_write(&ss, &to->addr, to->port);
		m.msg_name = &ss;
	}
	/* The first may carry the error of one before. */
	if (sendmsg(d->src.fd, &m, MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED)
		sendmsg(d->src.fd, &m, MSG_NOSIGNAL);
}

static void udp_want(struct datagram *d, uint32_t events)
{
	source_set(d->w, &d->src,
		   ((events & STREAM_READ) ? EPOLLIN : 0u) |
			   ((events & STREAM_WRITE) ? EPOLLOUT : 0u));
}

static void udp_close(struct datagram *d)
{
	source_close(d->w, &d->src);
}

static const struct datagram_ops udp_ops = {
	.recv = udp_recv,
	.send = udp_send,
	.want = udp_want,
	.close = udp_close,
};

static void udp_ready(void *arg, uint32_t events)
{
	struct datagram *d = arg;

	/* EPOLLERR goes away once it was read. */
	if (d->ops == &udp_ops)
		d->ready(d->arg, ((events & (EPOLLIN | EPOLLERR)) ? STREAM_READ : 0u) |
					 ((events & EPOLLOUT) ? STREAM_WRITE : 0u));
}

static int udp_attach(struct worker *w, struct datagram *d, int fd)
{
	int ret;

	d->ops = &udp_ops;
	d->w = w;
	d->src = (struct source){.fd = fd, .ready = udp_ready, .arg = d};
	ret = source_add(w, &d->src, EPOLLIN);
	if (ret < 0)
		datagram_close(d);
	return ret;
}

int datagram_connect(struct worker *w, struct datagram *d, const struct ip_addr *to, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, to, port);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&ss, n) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return udp_attach(w, d, fd);
}

int datagram_listen(struct worker *w, struct datagram *d, const struct ip_addr *own, uint16_t port,
		    struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, own, port);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, queue = QUEUE_BYTES, ret;
	char text[ADDR_TEXT_BYTES];

	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof(queue));
	/* FREEBIND: the address belongs to a shadow interface, which comes and goes with the dataplane. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
	    (ss.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
	    bind(fd, (struct sockaddr *)&ss, n) < 0) {
		ret = err_set(err, -errno, "%s port %u: %s", ip_addr_text(own, text), port,
			      strerror(errno));
		close(fd);
		return ret;
	}
	return udp_attach(w, d, fd);
}
