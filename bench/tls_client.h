/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tls_client: one TLS connection of the generator (tls_load.c), from connect to close. One thread, one epoll set; nothing
 * blocks. What a connection does next is asked of tls_load.c by client_told(). */
#pragma once

#include <arpa/inet.h>
#include <stdbool.h>

#include "bench/tls_socket.h"
#include "bench/tls_wire.h"
#include "config/base/clock.h"

#define CLIENT_RECORD (16 * 1024)
#define CLIENT_TIMEOUT_US 10000000u /* to open, and to close */

enum client_state {
	CLIENT_NONE,
	CLIENT_CONNECT,
	CLIENT_HANDSHAKE,
	CLIENT_GREETING, /* the upstream's first byte is awaited: only then is the session good for anything */
	CLIENT_OPEN,
	CLIENT_CLOSE, /* close_notify is out */
	CLIENT_ENDED, /* by the server; alert and ended_us say how and when */
	CLIENT_FLOOD, /* a ClientHello, and gone when it is answered */
};

enum client_event {
	CLIENT_OPENED, /* greeted */
	CLIENT_ECHOED, /* a whole message came back */
	CLIENT_CLOSED, /* after our close_notify */
	CLIENT_LOST, /* the server ended it, or it did not come about */
};

struct target {
	struct sockaddr_in at;
	int group;
};

struct client {
	WOLFSSL *ssl;
	const struct target *target;
	struct stream s;
	uint8_t state, alert; /* alert: 0, none came */
	bool bulk,
		ending; /* ending: no more bulk after the record under way, but a mark that the upstream answers */
	bool held; /* a record of bulk was not taken as a whole: it goes first */
	uint32_t device;
	uint32_t message, got; /* bytes: of a message, of those that came back */
	uint64_t begun_us; /* of the present state or message; boot clock */
	uint64_t ended_us;
	uint64_t sent; /* bytes of bulk */
};

struct engine {
	struct device_ca ca;
	WOLFSSL_CTX *ctx;
	struct device_identity *device;
	uint8_t hello[4096]; /* a ClientHello, for a flood */
	int hello_bytes;
	uint8_t payload[CLIENT_RECORD];
};

static struct engine engine;

static void client_told(struct client *c, enum client_event event);

/* Without another word: RST, if it is still open. */
static inline void client_drop(struct client *c)
{
	stream_reset(&c->s);
	wolfSSL_free(c->ssl);
	c->ssl = NULL;
	c->state = CLIENT_NONE;
}

static inline void client_end(struct client *c, enum client_event event)
{
	WOLFSSL_ALERT_HISTORY h = {0};

	c->ended_us = clock_boot_us();
	c->alert = 0;
	if (c->ssl != NULL && wolfSSL_get_alert_history(c->ssl, &h) == WOLFSSL_SUCCESS &&
	    h.last_rx.level == alert_fatal)
		c->alert = (uint8_t)h.last_rx.code;
	if (event == CLIENT_CLOSED) /* both have said good-bye: no RST */
		stream_close(&c->s);
	client_drop(c);
	c->state = CLIENT_ENDED;
	client_told(c, event);
}

static inline WOLFSSL *client_session(uint32_t d, int group)
{
	device_make(&engine.device[d], &engine.ca, d);
	return device_session(engine.ctx, &engine.device[d], group);
}

static void client_ready(void *arg, uint32_t events);

/* Connect from a device's address. */
static inline void client_connect(struct client *c, const struct target *t, uint32_t device,
				  uint8_t state)
{
	*c = (struct client){.target = t,
			     .device = device,
			     .state = state,
			     .begun_us = clock_boot_us(),
			     .s = {.ready = client_ready, .arg = c}};
	if ((wire.up ? wire_connect(&c->s, &c->device, &t->at)
		     : socket_connect(&c->s, device, &t->at)) < 0)
		client_end(c, CLIENT_LOST);
}

static inline void client_open(struct client *c, const struct target *t, uint32_t device)
{
	client_connect(c, t, device, CLIENT_CONNECT);
}

static inline void client_close(struct client *c)
{
	c->state = CLIENT_CLOSE;
	c->begun_us = clock_boot_us();
	wolfSSL_shutdown(c->ssl);
}

/* One message; its echo is told. Small enough for any socket buffer. */
static inline void client_message(struct client *c, uint32_t bytes)
{
	c->message = bytes;
	c->got = 0;
	c->begun_us = clock_boot_us();
	if (wolfSSL_write(c->ssl, engine.payload, (int)bytes) != (int)bytes)
		client_end(c, CLIENT_LOST);
}

static inline bool client_would_block(struct client *c, int ret)
{
	int error = wolfSSL_get_error(c->ssl, ret);

	return error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE;
}

static inline void client_upload(struct client *c)
{
	for (int i = 0; i < 16; i++) {
		bool mark = c->ending && !c->held;
		int n = mark ? wolfSSL_write(c->ssl, "E", 1)
			     : wolfSSL_write(c->ssl, engine.payload, CLIENT_RECORD);

		c->held = n <= 0 && !mark;
		if (n <= 0) {
			if (!client_would_block(c, n))
				client_end(c, CLIENT_LOST);
			return;
		}
		if (mark) { /* its answer is awaited as that of a message */
			c->bulk = c->ending = false;
			c->message = 1;
			c->got = 0;
			stream_want(&c->s, STREAM_READ);
			return;
		}
		c->sent += (uint64_t)n;
	}
}

static inline void client_handshake(struct client *c)
{
	int ret = wolfSSL_connect(c->ssl);

	if (ret == WOLFSSL_SUCCESS) {
		wolfSSL_UnloadCertsKeys(c->ssl); /* a hundred thousand sessions need no copy each */
		c->state = CLIENT_GREETING;
	} else if (!client_would_block(c, ret)) {
		client_end(c, CLIENT_LOST);
	}
}

static inline void client_connected(struct client *c)
{
	int ret = stream_connected(&c->s);

	if (ret == -EINPROGRESS)
		return;
	if (ret < 0) {
		client_end(c, CLIENT_LOST);
		return;
	}
	stream_want(&c->s, STREAM_READ);
	if (c->state == CLIENT_FLOOD) {
		c->got = 1; /* sent */
		if (stream_send(&c->s, engine.hello, (size_t)engine.hello_bytes) !=
		    engine.hello_bytes)
			client_end(c, CLIENT_LOST);
		return;
	}
	c->ssl = client_session(c->device, c->target->group);
	wolfSSL_SetIOReadCtx(c->ssl, &c->s);
	wolfSSL_SetIOWriteCtx(c->ssl, &c->s);
	c->state = CLIENT_HANDSHAKE;
	client_handshake(c);
}

static inline void client_receive(struct client *c)
{
	static uint8_t buf[CLIENT_RECORD];
	int n = wolfSSL_read(c->ssl, buf, sizeof(buf));

	if (n <= 0) {
		if (n < 0 && client_would_block(c, n))
			return;
		client_end(c, c->state == CLIENT_CLOSE ? CLIENT_CLOSED : CLIENT_LOST);
		return;
	}
	if (c->state == CLIENT_GREETING) {
		c->state = CLIENT_OPEN;
		client_told(c, CLIENT_OPENED);
	} else if (c->state == CLIENT_OPEN && !c->bulk) {
		c->got += (uint32_t)n;
		if (c->got >= c->message)
			client_told(c, CLIENT_ECHOED);
	}
}

/* A flood's ClientHello: a ServerHello with a key share is what costs the server; anything else is a refusal. */
static inline void client_answered(struct client *c)
{
	static const uint8_t retry[4] = {0xcf, 0x21, 0xad, 0x74}; /* RFC 8446 section 4.1.3 */
	uint8_t head[16];
	ssize_t n = stream_recv(&c->s, head, sizeof(head));
	bool hello = n == sizeof(head) && head[0] == 22 && head[5] == 2 &&
		     memcmp(head + 11, retry, sizeof(retry)) != 0;

	client_end(c, hello ? CLIENT_OPENED : CLIENT_LOST);
}

static void client_ready(void *arg, uint32_t events)
{
	struct client *c = arg;

	switch (c->state) {
	case CLIENT_CONNECT:
		client_connected(c);
		break;
	case CLIENT_HANDSHAKE:
		client_handshake(c);
		/* What came with the last flight makes no event of its own. */
		if (c->state == CLIENT_GREETING && wolfSSL_pending(c->ssl) > 0)
			client_receive(c);
		break;
	case CLIENT_GREETING:
	case CLIENT_CLOSE:
		client_receive(c);
		break;
	case CLIENT_OPEN:
		if (events & (STREAM_READ | STREAM_GONE))
			client_receive(c);
		if (c->state == CLIENT_OPEN && c->bulk && (events & STREAM_WRITE))
			client_upload(c);
		break;
	case CLIENT_FLOOD:
		if (c->got == 0)
			client_connected(c);
		else
			client_answered(c);
		break;
	default:
		break;
	}
}

static int client_io_recv(WOLFSSL *ssl, char *out, int bytes, void *arg)
{
	ssize_t n = stream_recv(arg, out, (size_t)bytes);

	(void)ssl;
	return n > 0	      ? (int)n
	       : n == -EAGAIN ? WOLFSSL_CBIO_ERR_WANT_READ
	       : n == 0	      ? WOLFSSL_CBIO_ERR_CONN_CLOSE
			      : WOLFSSL_CBIO_ERR_CONN_RST;
}

static int client_io_send(WOLFSSL *ssl, char *data, int bytes, void *arg)
{
	ssize_t n = stream_send(arg, data, (size_t)bytes);

	(void)ssl;
	return n > 0	      ? (int)n
	       : n == -EAGAIN ? WOLFSSL_CBIO_ERR_WANT_WRITE
			      : WOLFSSL_CBIO_ERR_CONN_RST;
}

static inline void client_ctx_new(void)
{
	engine.ctx = device_ctx(&engine.ca);
	wolfSSL_CTX_SetIORecv(engine.ctx, client_io_recv);
	wolfSSL_CTX_SetIOSend(engine.ctx, client_io_send);
}

static inline int client_hello_keep(WOLFSSL *ssl, char *data, int bytes, void *arg)
{
	(void)ssl;
	(void)arg;
	if (engine.hello_bytes + bytes > (int)sizeof(engine.hello))
		device_die("a ClientHello of more than 4096 bytes");
	memcpy(engine.hello + engine.hello_bytes, data, (size_t)bytes);
	engine.hello_bytes += bytes;
	return bytes;
}

static inline int client_hello_wait(WOLFSSL *ssl, char *data, int bytes, void *arg)
{
	(void)ssl;
	(void)data;
	(void)bytes;
	(void)arg;
	return WOLFSSL_CBIO_ERR_WANT_READ;
}

/* What a flood sends again and again. */
static inline void client_hello_make(int group)
{
	WOLFSSL *ssl = client_session(0, group);

	engine.hello_bytes = 0;
	wolfSSL_SSLSetIOSend(ssl, client_hello_keep);
	wolfSSL_SSLSetIORecv(ssl, client_hello_wait);
	wolfSSL_connect(ssl);
	wolfSSL_free(ssl);
	if (engine.hello_bytes == 0)
		device_die("no ClientHello");
}
