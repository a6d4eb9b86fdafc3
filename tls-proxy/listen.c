/* SPDX-License-Identifier: GPL-3.0-or-later */
/* listen: the `socket` transport's front: kernel sockets on a listener's address. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls-proxy/sockaddr.h"
#include "tls-proxy/worker.h"

#define BACKLOG 1024
#define ACCEPTS_A_TURN 32
#define SAY_EVERY_MS 10000

static void listener_ready(void *arg, uint32_t events)
{
	struct listener *l = arg;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		struct sockaddr_storage ss;
		socklen_t n = sizeof(ss);
		struct ip_addr peer;
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
		if (sockaddr_read(&ss, &peer, &port) < 0) {
			close(fd);
			continue;
		}
		conn_start(l, fd, &peer, port);
	}
}

int listener_open(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		  uint8_t index, struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, &cfg->addr, cfg->port);
	char text[ADDR_TEXT_BYTES];
	int on = 1, fd, ret;

	*l = (struct listener){.w = w, .cfg = cfg, .index = index, .src = {.fd = -1}};
	ret = tls_ctx_init(&l->ctx, cfg, err);
	if (ret < 0)
		return err_wrap(err, ret, "listener %s", cfg->name);
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "listener %s: %s", cfg->name, strerror(errno));
	l->src = (struct source){.fd = fd, .ready = listener_ready, .arg = l};
	/* FREEBIND: the address belongs to a shadow interface, which comes and goes with the dataplane. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
	    (ss.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
	    bind(fd, (struct sockaddr *)&ss, n) < 0 || listen(fd, BACKLOG) < 0)
		return err_set(err, -errno, "listener %s: %s port %u: %s", cfg->name,
			       ip_addr_text(&cfg->addr, text), cfg->port, strerror(errno));
	ret = source_add(w, &l->src, EPOLLIN);
	if (ret == 0)
		log_info("listening name=%s address=%s port=%u tls=%s", cfg->name,
			 ip_addr_text(&cfg->addr, text), cfg->port, cfg->tls12 ? "1.2,1.3" : "1.3");
	return ret;
}

void listeners_tick(struct worker *w, uint64_t now_ms)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		source_set(w, &l->src, EPOLLIN);
		if (l->turned_away == 0 || now_ms < l->say_ms)
			continue;
		log_warn("connections turned away listener=%s n=%u handshakes=%u sessions=%u: too "
			 "many "
			 "at a time",
			 l->cfg->name, l->turned_away, l->handshakes, l->sessions);
		l->turned_away = 0;
		l->say_ms = now_ms + SAY_EVERY_MS;
	}
}

void listener_close(struct listener *l)
{
	source_close(l->w, &l->src);
	tls_ctx_fini(&l->ctx);
}
