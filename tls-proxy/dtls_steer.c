/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls_steer: from worker to worker. The kernel gives a datagram to one of the workers by its addresses; when a device has
 * moved, that is not the one that has its association. The connection ID names it, and it gets the datagram by a local
 * socket, as if it had come to its own: it may be as forged as any. One hop, no answer; what finds no room is lost. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tls-proxy/dtls.h"

#define STEERED_A_TURN 64

struct steered { /* before the datagram */
	struct ip_addr addr; /* of the device */
	struct ip_addr own; /* of the listener: each worker counts its own */
	uint16_t port, own_port;
};

static void path_of(const struct worker *w, unsigned index, struct sockaddr_un *out)
{
	char leaf[32], path[MSG_PATH_BYTES];

	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(leaf, sizeof(leaf), "dtls%u.sock", index);
	snprintf(out->sun_path, sizeof(out->sun_path), "%s", gw_run_path(w->cfg, leaf, path));
}

static struct listener *listener_at(struct worker *w, const struct ip_addr *own, uint16_t port)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (l->dtls != NULL && l->cfg->port == port && ip_addr_eq(&l->cfg->addr, own))
			return l;
	}
	return NULL;
}

static void steered_ready(void *arg, uint32_t events)
{
	static uint8_t buf[sizeof(struct steered) + DTLS_DATAGRAM_BYTES_MAX]; /* one thread */
	struct worker *w = arg;
	struct steered head;
	struct listener *l;

	(void)events;
	for (int i = 0; i < STEERED_A_TURN; i++) {
		ssize_t n = recv(w->steer.fd, buf, sizeof(buf), MSG_TRUNC);
		struct datagram_peer from;

		if (n < 0)
			return;
		if ((size_t)n <= sizeof(head) || (size_t)n > sizeof(buf))
			continue;
		memcpy(&head, buf, sizeof(head));
		l = listener_at(w, &head.own, head.own_port);
		if (l == NULL)
			continue;
		from = (struct datagram_peer){head.addr, head.port};
		dtls_steered(l, &from, buf + sizeof(head), n - sizeof(head));
	}
}

int dtls_steer_open(struct worker *w, struct err *err)
{
	const struct passwd *pw = getpwnam(w->cfg->user);
	struct sockaddr_un sa;
	int fd, ret;

	path_of(w, w->index, &sa);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	unlink(sa.sun_path); /* of a worker that is gone */
	/* The other workers may write: their user, and root. */
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(sa.sun_path, 0600) < 0 ||
	    (geteuid() == 0 && pw != NULL && chown(sa.sun_path, pw->pw_uid, pw->pw_gid) < 0)) {
		ret = err_set(err, -errno, "%s: %s", sa.sun_path, strerror(errno));
		close(fd);
		return ret;
	}
	w->steer = (struct source){.fd = fd, .ready = steered_ready, .arg = w};
	return source_add(w, &w->steer, EPOLLIN);
}

/* 0 is no descriptor of ours: a worker that did not come so far has a zero there. */
void dtls_steer_close(struct worker *w)
{
	if (w->steer.fd > 0)
		source_close(w, &w->steer);
}

bool dtls_steer(struct listener *l, unsigned worker, const struct datagram_peer *from,
		const uint8_t *data, size_t bytes)
{
	struct steered head = {.addr = from->addr,
			       .own = l->cfg->addr,
			       .port = from->port,
			       .own_port = l->cfg->port};
	struct iovec part[2] = {{&head, sizeof(head)}, {(void *)data, bytes}};
	struct sockaddr_un sa;
	struct msghdr m = {
		.msg_name = &sa, .msg_namelen = sizeof(sa), .msg_iov = part, .msg_iovlen = 2};

	if (l->w->steer.fd <= 0)
		return false;
	path_of(l->w, worker, &sa);
	return sendmsg(l->w->steer.fd, &m, MSG_NOSIGNAL) >= 0;
}
