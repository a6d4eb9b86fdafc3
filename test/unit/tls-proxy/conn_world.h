/* SPDX-License-Identifier: GPL-3.0-or-later */
/* conn_world: a whole worker on loopback: a device of the TLS library, an upstream and an agent, all in this process. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/listeners.h"
#include "config/base/clock.h"
#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/worker.h"

#define SLOTS 8
#define SLOT 5
#define PATIENCE_MS 15000

static struct pki pki;
static enum gw_protocol world_protocol; /* of the listener and its upstream */

enum answer { ANSWER_YES, ANSWER_NO, ANSWER_HELD, ANSWER_NEVER, ANSWER_SEGMENT, ANSWER_STANDING };

struct world {
	struct gw_config cfg;
	struct worker w;
	struct trust_table table; /* ours, writable */
	int agent_listener, agent, up_listener, up;
	enum answer answer;
	uint8_t out_of_reach; /* upstreams, a bit for each */
	bool mute; /* no WELCOME */
	struct msg_admit admit; /* last */
	uint32_t admits, readmits, closed, refused;
	struct msg_session_closed last_closed;
	char refused_why[128];
	int64_t rechecked; /* closed of the answer; -1: none yet */
	/* device */
	int dev;
	WOLFSSL_CTX *ctx;
	WOLFSSL *ssl;
};

static inline uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

/* ---- the other ends ---- */

static inline void table_make(struct world *w, uint32_t slots)
{
	char path[MSG_PATH_BYTES], tmp[MSG_PATH_BYTES + 8];
	static uint64_t instance;
	void *base;
	int fd;

	snprintf(tmp, sizeof(tmp), "%s.new", gw_run_path(&w->cfg, "trust", path));
	fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, trust_map_bytes(slots)), 0);
	base = mmap(NULL, trust_map_bytes(slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	assert_ptr_not_equal(base, MAP_FAILED);
	trust_unmap(&w->table);
	trust_layout(&w->table, base, slots);
	memcpy(w->table.hdr->magic, TRUST_MAGIC, sizeof(w->table.hdr->magic));
	w->table.hdr->version = TRUST_VERSION;
	w->table.hdr->record_bytes = sizeof(struct trust_record);
	w->table.hdr->slots = slots;
	w->table.hdr->journal_entries = TRUST_JOURNAL_ENTRIES;
	w->table.hdr->instance = ++instance;
	for (uint32_t i = 0; i < slots; i++)
		w->table.rec[i].slot = i;
	assert_int_equal(rename(tmp, path), 0);
}

static inline void table_say(struct world *w, enum standing standing, uint64_t expires_ms,
			     uint32_t generation)
{
	struct trust_record *r = &w->table.rec[SLOT];

	r->standing = standing;
	r->segment = 3;
	r->generation = generation;
	r->expires_ms = expires_ms;
	w->table.journal[w->table.hdr->journal_head % TRUST_JOURNAL_ENTRIES] = SLOT;
	w->table.hdr->journal_head++;
}

static inline void agent_answer(struct world *w)
{
	struct msg_admitted m = {.session = w->admit.session};

	MSG_INIT(&m, MSG_ADMITTED, w->admit.h.seq);
	strcpy(m.reason, "test");
	if (w->answer != ANSWER_NO) {
		m.slot = SLOT;
		m.generation = SLOT < w->table.slots ? w->table.rec[SLOT].generation : 1;
		m.expires_ms = clock_boot_ms() + 3600000;
		m.standing = w->answer == ANSWER_STANDING ? STANDING_RESTRICTED : STANDING_FULL;
		m.relay = w->answer != ANSWER_HELD ? 0xff & ~w->out_of_reach : 0;
		strcpy(m.segment_name, w->answer == ANSWER_SEGMENT ? "elsewhere" : "cameras");
	}
	assert_int_equal(msg_send(w->agent, &m, -1), 0);
}

static inline void reload_say(struct world *w, uint16_t type)
{
	struct msg_reload m = {.listeners = gw_listeners_hash(&w->cfg)};

	MSG_INIT(&m, type, type);
	assert_int_equal(msg_send(w->agent, &m, -1), 0);
}

static inline void agent_message(struct world *w, const union msg_any *m)
{
	struct msg_welcome welcome = {.version = MSG_VERSION};

	switch (m->h.type) {
	case MSG_HELLO:
		MSG_INIT(&welcome, MSG_WELCOME, 0);
		gw_run_path(&w->cfg, "trust", welcome.trust_path);
		if (!w->mute)
			assert_int_equal(msg_send(w->agent, &welcome, -1), 0);
		break;
	case MSG_ADMIT:
		w->admit = m->admit;
		w->admits++;
		w->readmits += m->admit.readmit;
		if (w->answer != ANSWER_NEVER)
			agent_answer(w);
		break;
	case MSG_SESSION_CLOSED:
		w->closed++;
		memcpy(&w->last_closed, m, sizeof(w->last_closed));
		break;
	case MSG_HANDSHAKE_REFUSED:
		w->refused++;
		memcpy(w->refused_why, m->refused.reason, sizeof(w->refused_why));
		break;
	case MSG_RELOAD_WANTED:
		reload_say(w, MSG_RELOAD_PREPARE);
		break;
	case MSG_OK: /* it is prepared, or in force */
		if (m->h.seq == MSG_RELOAD_PREPARE)
			reload_say(w, MSG_RELOAD_COMMIT);
		break;
	case MSG_RECHECKED:
		w->rechecked = ((const struct msg_recheck *)m)->closed;
		break;
	default:
		fail_msg("the agent got %s", msg_type_name(m->h.type));
	}
}

static inline void agent_listen(struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	gw_run_path(&w->cfg, "agent.sock", sa.sun_path);
	unlink(sa.sun_path);
	w->agent_listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(w->agent_listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(w->agent_listener, 4), 0);
}

static inline void agent_kill(struct world *w)
{
	if (w->agent >= 0)
		close(w->agent);
	close(w->agent_listener);
	w->agent = w->agent_listener = -1;
}

/* On loopback, of the world's protocol. */
static inline int server_open(uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(in);
	int type = world_protocol == GW_DTLS ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), small = 16384;

	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

/* One turn of everybody but the device. */
static inline void turn(struct world *w, uint32_t wait_ms)
{
	union msg_any m;

	assert_int_equal(worker_turn(&w->w, wait_ms), 0);
	if (w->agent < 0 && w->agent_listener >= 0)
		w->agent = accept4(w->agent_listener, NULL, NULL, SOCK_NONBLOCK);
	while (w->agent >= 0) {
		ssize_t n = msg_recv(w->agent, &m, NULL);

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			close(w->agent);
			w->agent = -1;
			break;
		}
		agent_message(w, &m);
	}
	if (w->up < 0)
		w->up = accept4(w->up_listener, NULL, NULL, SOCK_NONBLOCK);
}

#define UNTIL(w, condition)                                                                        \
	do {                                                                                       \
		uint64_t end_ms = clock_boot_ms() + PATIENCE_MS;                                   \
		while (!(condition)) {                                                             \
			turn(w, 1);                                                                \
			if (clock_boot_ms() > end_ms)                                              \
				fail_msg("never came: %s", #condition);                            \
		}                                                                                  \
	} while (0)

/* How often the worker wakes up in a while in which nothing happens. */
static inline unsigned wakes(struct world *w, uint32_t ms)
{
	uint64_t end_ms = clock_boot_ms() + ms;
	unsigned n = 0;

	for (; clock_boot_ms() < end_ms; n++)
		assert_int_equal(worker_turn(&w->w, 250), 0);
	return n;
}

/* ---- the device ---- */

/* The library's way to a socket; arg is its descriptor. */
static inline int end_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	ssize_t n = recv(*(int *)arg, buf, bytes, 0);

	(void)ssl;
	if (n > 0)
		return n;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_CONN_CLOSE;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_READ : WOLFSSL_CBIO_ERR_CONN_RST;
}

static inline int end_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	ssize_t n = send(*(int *)arg, buf, bytes, MSG_NOSIGNAL);

	(void)ssl;
	if (n >= 0)
		return n;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_WRITE : WOLFSSL_CBIO_ERR_CONN_RST;
}

static inline void dev_connect(struct world *w)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(w->cfg.listeners[0].port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int small = 16384;

	w->dev = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(w->dev, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(connect(w->dev, (struct sockaddr *)&in, sizeof(in)), 0);
	fcntl(w->dev, F_SETFL, O_NONBLOCK);
	w->ssl = wolfSSL_new(w->ctx);
	wolfSSL_SSLSetIORecv(w->ssl, end_recv);
	wolfSSL_SSLSetIOSend(w->ssl, end_send);
	wolfSSL_SetIOReadCtx(w->ssl, &w->dev);
	wolfSSL_SetIOWriteCtx(w->ssl, &w->dev);
}

static inline void dev_reset(struct world *w)
{
	const struct linger none = {.l_onoff = 1};

	setsockopt(w->dev, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(w->dev);
	w->dev = -1;
}

static inline void dev_drop(struct world *w)
{
	wolfSSL_free(w->ssl);
	w->ssl = NULL;
	if (w->dev >= 0)
		close(w->dev);
	w->dev = -1;
	if (w->up >= 0)
		close(w->up);
	w->up = -1;
}

static inline int dev_alert(struct world *w)
{
	WOLFSSL_ALERT_HISTORY h;

	return wolfSSL_get_alert_history(w->ssl, &h) == WOLFSSL_SUCCESS ? h.last_rx.code : -1;
}

/* Plaintext; 0: none now; -1: it ended, look at dev_error() */
static inline int dev_read(struct world *w, void *buf, int bytes)
{
	int n = wolfSSL_read(w->ssl, buf, bytes);

	if (n > 0)
		return n;
	n = wolfSSL_get_error(w->ssl, n);
	return n == WOLFSSL_ERROR_WANT_READ || n == WOLFSSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Shake hands, be admitted, reach the upstream. */
static inline void session_up(struct world *w)
{
	uint32_t admits = w->admits;

	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS);
	UNTIL(w, w->admits > admits && w->up >= 0);
}

static inline struct conn *only(struct world *w)
{
	return LIST_FIRST(&w->w.conns);
}

/* ---- world ---- */

/* What a test wants otherwise, before the worker starts. */
static void (*world_prepare)(struct world *w, struct gw_listener *l);

static inline int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct gw_listener *l;
	struct err err = {""};
	struct ip_addr lo;
	uint16_t port;
	int fd;

	assert_non_null(w);
	w->agent = w->up = w->dev = w->agent_listener = -1;
	snprintf(w->cfg.run_dir, sizeof(w->cfg.run_dir), "%s", pki.dir);
	table_make(w, SLOTS);
	table_say(w, STANDING_FULL, UINT64_MAX, 7);
	agent_listen(w);
	assert_int_equal(ip_addr_parse(&lo, "127.0.0.1"), 0);
	l = &w->cfg.listeners[0];
	*l = (struct gw_listener){.name = "test",
				  .protocol = world_protocol,
				  .tls12 = world_protocol == GW_DTLS,
				  .addr = lo,
				  .upstreams = {{.addr = lo, .weight = 1}},
				  .n_upstreams = 1,
				  .half_closed_timeout_s = 60,
				  .handshake_timeout_s = 10,
				  .idle_timeout_s = 60,
				  .connect_timeout_s = 5,
				  .handshakes_max = 8,
				  .sessions_max = 8};
	w->up_listener = server_open(&l->upstreams[0].port);
	fd = server_open(&port); /* a port that is free now */
	close(fd);
	l->port = port;
	snprintf(l->certificate, sizeof(l->certificate), "%s/gw.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/gw.key", pki.dir);
	snprintf(l->ca, sizeof(l->ca), "%s/ca.pem", pki.dir);
	snprintf(l->crl, sizeof(l->crl), "%s/ca.crl", pki.dir);
	if (world_prepare != NULL)
		world_prepare(w, l);
	w->w.cfg = &w->cfg;
	w->w.agent.fd = w->w.signals.fd = -1;
	w->w.epoll = epoll_create1(0);
	conns_init(&w->w);
	if (listener_open(&w->w, &w->w.listeners[0], l, 0, &err) < 0)
		fail_msg("%s", err.msg);
	w->w.n_listeners = w->cfg.n_listeners = 1;
	w->ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	wolfSSL_CTX_set_verify(w->ctx, WOLFSSL_VERIFY_NONE, NULL);
	{
		char cert[128], key[128];

		snprintf(cert, sizeof(cert), "%s/dev.pem", pki.dir);
		snprintf(key, sizeof(key), "%s/dev.key", pki.dir);
		assert_int_equal(wolfSSL_CTX_use_certificate_chain_file(w->ctx, cert),
				 WOLFSSL_SUCCESS);
		assert_int_equal(wolfSSL_CTX_use_PrivateKey_file(w->ctx, key, WOLFSSL_FILETYPE_PEM),
				 WOLFSSL_SUCCESS);
	}
	UNTIL(w, w->w.agent_up);
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;

	dev_drop(w);
	worker_stop(&w->w);
	wolfSSL_CTX_free(w->ctx);
	trust_unmap(&w->table);
	agent_kill(w);
	close(w->up_listener);
	free(w);
	return 0;
}

static inline int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
			       pki_cert(&pki, "dev",
					"subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage="
					"clientAuth") != 0
		       ? -1
		       : 0;
}

static inline int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}
