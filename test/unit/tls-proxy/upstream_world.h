/* SPDX-License-Identifier: GPL-3.0-or-later */
/* upstream_world: conn_world with a second upstream, and servers of the TLS library. */
#pragma once

#include "test/unit/tls-proxy/conn_world.h"

/* A server of the TLS library on an accepted connection. */
struct server {
	int listener, fd;
	uint16_t port;
	WOLFSSL_CTX *ctx;
	WOLFSSL *ssl;
};

static struct server second; /* plain unless a test gives it a context */
static struct server tls = {.listener = -1, .fd = -1};
static uint16_t closed_port; /* nobody listens there */
static int closed = -1; /* holds it, of sockets */

static inline void server_listen(struct server *s)
{
	*s = (struct server){.listener = server_open(&s->port), .fd = -1, .port = s->port};
}

static inline void server_drop(struct server *s)
{
	wolfSSL_free(s->ssl);
	s->ssl = NULL;
	end_close(&s->fd);
}

static inline void server_end(struct server *s)
{
	server_drop(s);
	wolfSSL_CTX_free(s->ctx);
	s->ctx = NULL;
	end_unlisten(&s->listener);
}

/* @return true once its handshake is done */
static inline bool server_shake(struct server *s)
{
	if (s->fd < 0) {
		s->fd = end_accept(s->listener);
		if (s->fd < 0)
			return false;
		s->ssl = wolfSSL_new(s->ctx);
		end_tls(s->ssl, &s->fd);
	}
	return wolfSSL_accept(s->ssl) == WOLFSSL_SUCCESS;
}

static inline struct listener *listener_of(struct world *w)
{
	return &w->w.listeners[0];
}

/* Checks that come due, without the wait: `now` runs ahead of the clock. */
static inline void check_now(struct world *w)
{
	upstreams_tick(listener_of(w), UINT64_MAX / 2);
}

static inline bool checking(struct world *w)
{
	struct listener *l = listener_of(w);

	for (uint32_t i = 0; i < l->up.n; i++) {
		if (stream_is_open(&l->up.list[i].probe.stream))
			return true;
	}
	return false;
}

static void (*prepare)(struct world *w, struct gw_listener *l); /* beside the servers */

static inline void servers_open(struct world *w, struct gw_listener *l)
{
	closed_port = 0;
	closed = end_reserve(&closed_port);
	server_listen(&second);
	if (prepare != NULL)
		prepare(w, l);
}

/* Somebody listens at the closed port. @return the listener */
static inline int closed_opens(void)
{
	end_close(&closed);
	return end_listen(&closed_port);
}

static inline int upstream_setup(void **state)
{
	world_prepare = servers_open;
	return setup(state);
}

static inline int upstream_teardown(void **state)
{
	server_end(&second);
	server_end(&tls);
	end_close(&closed);
	teardown(state);
	world_prepare = NULL;
	prepare = NULL;
	return 0;
}

static inline int accepted(struct server *s)
{
	return s->fd >= 0 ? s->fd : (s->fd = end_accept(s->listener));
}

#define PREPARED(name)                                                                             \
	static int name##_setup(void **state)                                                      \
	{                                                                                          \
		prepare = name;                                                                    \
		return upstream_setup(state);                                                      \
	}

#define T(name, prepared) cmocka_unit_test_setup_teardown(name, prepared, upstream_teardown)
