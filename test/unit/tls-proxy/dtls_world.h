/* SPDX-License-Identifier: GPL-3.0-or-later */
/* dtls_world: conn_world over UDP: devices of the TLS library behind a wire that loses, repeats and reorders. */
#pragma once

#include <sys/time.h>

#include "test/unit/tls-proxy/conn_world.h"
#include "tls-proxy/dtls.h"

#define DATAGRAM_BYTES 20000

struct wire { /* one way */
	unsigned lose_pct, repeat_pct, swap_pct;
	uint64_t random;
	size_t held_bytes; /* of one that comes behind the next; 0: none */
	uint8_t held[DATAGRAM_BYTES];
	bool again; /* held[] is a repetition */
};

struct device {
	int fd;
	WOLFSSL *ssl;
	struct wire out, in;
	unsigned sent; /* datagrams */
	size_t last_bytes; /* the last that was sent, also if it was lost */
	uint8_t last[DATAGRAM_BYTES];
	bool mute; /* nothing goes out */
};

static inline unsigned wire_pct(struct wire *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random % 100;
}

/* What comes out of the wire for this datagram now. @return 0: nothing */
static inline bool wire_passes(struct wire *w, const void *data, size_t bytes)
{
	if (wire_pct(w) < w->lose_pct)
		return false;
	if (w->held_bytes == 0 && wire_pct(w) < w->swap_pct) {
		memcpy(w->held, data, bytes);
		w->held_bytes = bytes;
		return false;
	}
	if (w->held_bytes == 0 && wire_pct(w) < w->repeat_pct) {
		memcpy(w->held, data, bytes);
		w->held_bytes = bytes;
	}
	return true;
}

static inline int device_sends(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct device *d = arg;

	(void)ssl;
	assert_true((size_t)bytes <= sizeof(d->last));
	d->sent++;
	memcpy(d->last, buf, bytes);
	d->last_bytes = bytes;
	if (d->mute)
		return bytes;
	if (wire_passes(&d->out, buf, bytes)) {
		send(d->fd, buf, bytes, 0);
		if (d->out.held_bytes > 0)
			send(d->fd, d->out.held, d->out.held_bytes, 0);
		d->out.held_bytes = 0;
	}
	return bytes;
}

static inline int device_receives(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct device *d = arg;
	ssize_t n;

	(void)ssl;
	for (;;) {
		uint8_t one[DATAGRAM_BYTES];

		n = recv(d->fd, one, sizeof(one), 0);
		if (n < 0 && d->in.held_bytes > 0) {
			n = d->in.held_bytes;
			memcpy(buf, d->in.held, n < bytes ? n : bytes);
			d->in.held_bytes = 0;
			return n < bytes ? n : bytes;
		}
		if (n < 0)
			return WOLFSSL_CBIO_ERR_WANT_READ;
		if (!wire_passes(&d->in, one, n))
			continue;
		n = n < bytes ? n : bytes;
		memcpy(buf, one, n);
		return n;
	}
}

/* A socket of its own on loopback, towards the listener; host: last byte of 127.0.0.x */
static inline int device_socket(struct world *w, uint8_t host)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(w->cfg.listeners[0].port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in own = {.sin_family = AF_INET,
				  .sin_addr.s_addr = htonl((INADDR_LOOPBACK & ~0xff) | host)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

struct how {
	const char *name;
	bool v13, cid;
	int group; /* 0: the library's choice */
};

static inline WOLFSSL_CTX *device_ctx(const struct how *how)
{
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(how->v13 ? wolfDTLSv1_3_client_method()
						    : wolfDTLSv1_2_client_method());
	char path[128];

	assert_non_null(ctx);
	snprintf(path, sizeof(path), "%s/ca.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_load_verify_locations(ctx, path, NULL), WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/dev.pem", pki.dir);
	assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(ctx, path), WOLFSSL_SUCCESS);
	snprintf(path, sizeof(path), "%s/dev.key", pki.dir);
	assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(ctx, path, WOLFSSL_FILETYPE_PEM),
			 WOLFSSL_SUCCESS);
	return ctx;
}

static inline struct device *device_new(struct world *w, const struct how *how, uint8_t host)
{
	struct device *d = calloc(1, sizeof(*d));
	WOLFSSL_CTX *ctx = device_ctx(how);
	int group = how->group;

	assert_non_null(d);
	d->fd = device_socket(w, host);
	d->out.random = 88172645463325252ull;
	d->in.random = 1181783497276652981ull;
	d->ssl = wolfSSL_new(ctx);
	wolfSSL_CTX_free(ctx);
	assert_non_null(d->ssl);
	if (how->group != 0) {
		assert_int_equal(wolfSSL_set_groups(d->ssl, &group, 1), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_UseKeyShare(d->ssl, how->group), WOLFSSL_SUCCESS);
	}
	if (how->cid) {
		assert_int_equal(wolfSSL_dtls_cid_use(d->ssl), WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_dtls_cid_set(d->ssl, (unsigned char *)"dev", 3),
				 WOLFSSL_SUCCESS);
	}
	wolfSSL_SSLSetIORecv(d->ssl, device_receives);
	wolfSSL_SSLSetIOSend(d->ssl, device_sends);
	wolfSSL_SetIOReadCtx(d->ssl, d);
	wolfSSL_SetIOWriteCtx(d->ssl, d);
	return d;
}

static inline void device_free(struct device *d)
{
	wolfSSL_free(d->ssl);
	close(d->fd);
	free(d);
}

static uint64_t skew_us; /* of the library's clock, which is this function */

int gettimeofday(struct timeval *restrict tv, void *restrict zone);
int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	uint64_t us = clock_wall_ms() * 1000 + skew_us;

	(void)zone;
	tv->tv_sec = us / 1000000;
	tv->tv_usec = us % 1000000;
	return 0;
}

/* Retransmission of both sides at once, when nothing has moved: no test waits for a second to pass. */
static inline void time_passes(struct world *w, struct device *d)
{
	struct assoc *a;

	skew_us += 2000000;
	wolfSSL_dtls_got_timeout(d->ssl);
	LIST_FOREACH(a, &w->w.listeners[0].dtls->opening, opening)
		a->timer_ms = 0;
	w->w.tick_ms = 0;
}

/* @return 0: never came about; see wolfSSL_get_error() */
static inline bool device_connects(struct world *w, struct device *d)
{
	for (unsigned i = 1; i < 20000; i++) {
		int ret = wolfSSL_connect(d->ssl);

		if (ret == WOLFSSL_SUCCESS)
			return true;
		ret = wolfSSL_get_error(d->ssl, ret);
		if (ret != WOLFSSL_ERROR_WANT_READ && ret != WOLFSSL_ERROR_WANT_WRITE)
			return false;
		turn(w, i % 8 == 0 ? 1 : 0);
		if (i % 64 == 0)
			time_passes(w, d);
	}
	return false;
}

/* 0: nothing now; -1: it ended */
static inline int device_reads(struct device *d, void *buf, int bytes)
{
	int n = wolfSSL_read(d->ssl, buf, bytes);

	if (n > 0)
		return n;
	n = wolfSSL_get_error(d->ssl, n);
	return n == WOLFSSL_ERROR_WANT_READ || n == WOLFSSL_ERROR_WANT_WRITE ? 0 : -1;
}

static inline int device_alert(struct device *d)
{
	WOLFSSL_ALERT_HISTORY h;

	return wolfSSL_get_alert_history(d->ssl, &h) == WOLFSSL_SUCCESS ? h.last_rx.code : -1;
}

static inline struct dtls_port *port_of(struct world *w)
{
	return w->w.listeners[0].dtls;
}

/* One datagram at the upstream, and to whom it answers. @return -1: none */
static inline ssize_t upstream_gets(struct world *w, void *buf, size_t bytes,
				    struct sockaddr_in *from)
{
	socklen_t n = sizeof(*from);

	return recvfrom(w->up_listener, buf, bytes, 0, (struct sockaddr *)from, &n);
}

static inline void upstream_says(struct world *w, const struct sockaddr_in *to, const void *data,
				 size_t bytes)
{
	assert_int_equal(
		sendto(w->up_listener, data, bytes, 0, (const struct sockaddr *)to, sizeof(*to)),
		bytes);
}

static inline int dtls_setup(void **state)
{
	world_protocol = GW_DTLS;
	return setup(state);
}

static const struct how hows[] = {
	{"DTLS 1.2", false, false, 0},
	{"DTLS 1.2 with connection ID", false, true, 0},
	{"DTLS 1.3, P-256", true, false, WOLFSSL_ECC_SECP256R1},
	{"DTLS 1.3, X25519, connection ID", true, true, WOLFSSL_ECC_X25519},
	{"DTLS 1.3, X25519MLKEM768: a ClientHello in pieces", true, true, WOLFSSL_X25519MLKEM768},
};
#define N_HOWS (sizeof(hows) / sizeof(hows[0]))
#define HOW_12 (&hows[0])
#define HOW_12_CID (&hows[1])
#define HOW_13_CID (&hows[3])

static inline struct device *device_up(struct world *w, const struct how *how, uint8_t host)
{
	struct device *d = device_new(w, how, host);
	uint32_t admits = w->admits;

	if (!device_connects(w, d))
		fail_msg("%s: %d", how->name, wolfSSL_get_error(d->ssl, 0));
	UNTIL(w, w->admits == admits + 1 && only(w)->state == CONN_RELAY);
	return d;
}
