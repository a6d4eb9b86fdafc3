/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A whole worker on loopback: a device of the TLS library, an upstream and an agent, all in this process. */
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

#include "config/base/clock.h"
#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/worker.h"

#define SLOTS 8
#define SLOT 5
#define PATIENCE_MS 15000

static struct pki pki;

enum answer { ANSWER_YES, ANSWER_NO, ANSWER_HELD, ANSWER_NEVER, ANSWER_SEGMENT, ANSWER_STANDING };

struct world {
	struct gw_config cfg;
	struct worker w;
	struct trust_table table; /* ours, writable */
	int agent_listener, agent, up_listener, up;
	enum answer answer;
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

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

/* ---- the other ends ---- */

static void table_make(struct world *w, uint32_t slots)
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

static void table_say(struct world *w, enum standing standing, uint64_t expires_ms,
		      uint32_t generation)
{
	struct trust_record *r = &w->table.rec[SLOT];

	r->standing = standing;
	r->segment = 3;
	r->generation = generation;
	r->expires_ms = expires_ms;
}

static void agent_answer(struct world *w)
{
	struct msg_admitted m = {.session = w->admit.session};

	MSG_INIT(&m, MSG_ADMITTED, w->admit.h.seq);
	strcpy(m.reason, "test");
	if (w->answer != ANSWER_NO) {
		m.slot = SLOT;
		m.generation = SLOT < w->table.slots ? w->table.rec[SLOT].generation : 1;
		m.expires_ms = clock_boot_ms() + 3600000;
		m.standing = w->answer == ANSWER_STANDING ? STANDING_RESTRICTED : STANDING_FULL;
		m.relay = w->answer != ANSWER_HELD;
		strcpy(m.segment_name, w->answer == ANSWER_SEGMENT ? "elsewhere" : "cameras");
	}
	assert_int_equal(msg_send(w->agent, &m, -1), 0);
}

static void agent_message(struct world *w, const union msg_any *m)
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
	case MSG_RECHECKED:
		w->rechecked = ((const struct msg_recheck *)m)->closed;
		break;
	default:
		fail_msg("the agent got %s", msg_type_name(m->h.type));
	}
}

static void agent_listen(struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	gw_run_path(&w->cfg, "agent.sock", sa.sun_path);
	unlink(sa.sun_path);
	w->agent_listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(w->agent_listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(w->agent_listener, 4), 0);
}

static void agent_kill(struct world *w)
{
	if (w->agent >= 0)
		close(w->agent);
	close(w->agent_listener);
	w->agent = w->agent_listener = -1;
}

static int tcp_listen(uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), small = 16384;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

/* One turn of everybody but the device. */
static void turn(struct world *w, uint32_t wait_ms)
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
static unsigned wakes(struct world *w, uint32_t ms)
{
	uint64_t end_ms = clock_boot_ms() + ms;
	unsigned n = 0;

	for (; clock_boot_ms() < end_ms; n++)
		assert_int_equal(worker_turn(&w->w, 250), 0);
	return n;
}

/* ---- the device ---- */

static int dev_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct world *w = arg;
	ssize_t n = recv(w->dev, buf, bytes, 0);

	(void)ssl;
	if (n > 0)
		return n;
	if (n == 0)
		return WOLFSSL_CBIO_ERR_CONN_CLOSE;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_READ : WOLFSSL_CBIO_ERR_CONN_RST;
}

static int dev_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct world *w = arg;
	ssize_t n = send(w->dev, buf, bytes, MSG_NOSIGNAL);

	(void)ssl;
	if (n >= 0)
		return n;
	return errno == EAGAIN ? WOLFSSL_CBIO_ERR_WANT_WRITE : WOLFSSL_CBIO_ERR_CONN_RST;
}

static void dev_connect(struct world *w)
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
	wolfSSL_SSLSetIORecv(w->ssl, dev_recv);
	wolfSSL_SSLSetIOSend(w->ssl, dev_send);
	wolfSSL_SetIOReadCtx(w->ssl, w);
	wolfSSL_SetIOWriteCtx(w->ssl, w);
}

static void dev_reset(struct world *w)
{
	const struct linger none = {.l_onoff = 1};

	setsockopt(w->dev, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(w->dev);
	w->dev = -1;
}

static void dev_drop(struct world *w)
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

static int dev_alert(struct world *w)
{
	WOLFSSL_ALERT_HISTORY h;

	return wolfSSL_get_alert_history(w->ssl, &h) == WOLFSSL_SUCCESS ? h.last_rx.code : -1;
}

/* Plaintext; 0: none now; -1: it ended, look at dev_error() */
static int dev_read(struct world *w, void *buf, int bytes)
{
	int n = wolfSSL_read(w->ssl, buf, bytes);

	if (n > 0)
		return n;
	n = wolfSSL_get_error(w->ssl, n);
	return n == WOLFSSL_ERROR_WANT_READ || n == WOLFSSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Shake hands, be admitted, reach the upstream. */
static void session_up(struct world *w)
{
	uint32_t admits = w->admits;

	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS);
	UNTIL(w, w->admits > admits && w->up >= 0);
}

static struct conn *only(struct world *w)
{
	return LIST_FIRST(&w->w.conns);
}

/* ---- world ---- */

static int setup(void **state)
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
				  .addr = lo,
				  .upstream_addr = lo,
				  .handshake_timeout_s = 10,
				  .idle_timeout_s = 60,
				  .connect_timeout_s = 5,
				  .handshakes_max = 8,
				  .sessions_max = 8};
	w->up_listener = tcp_listen(&l->upstream_port);
	fd = tcp_listen(&port); /* a port that is free now */
	close(fd);
	l->port = port;
	snprintf(l->certificate, sizeof(l->certificate), "%s/gw.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/gw.key", pki.dir);
	snprintf(l->ca, sizeof(l->ca), "%s/ca.pem", pki.dir);
	snprintf(l->crl, sizeof(l->crl), "%s/ca.crl", pki.dir);
	w->w.cfg = &w->cfg;
	w->w.agent.fd = w->w.signals.fd = -1;
	w->w.epoll = epoll_create1(0);
	if (listener_open(&w->w, &w->w.listeners[0], l, 0, &err) < 0)
		fail_msg("%s", err.msg);
	w->w.n_listeners = 1;
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

static int teardown(void **state)
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

static int group_setup(void **state)
{
	(void)state;
	return tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
			       pki_cert(&pki, "dev",
					"subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage="
					"clientAuth") != 0
		       ? -1
		       : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	tls_ctx_global_fini();
	return 0;
}

/* ---- tests ---- */

/* `bytes` both ways at once, in pieces of `record`; each end reads at most `dev_gulp`, `up_gulp` at a time. */
static void exchange(struct world *w, size_t bytes, size_t record, size_t dev_gulp, size_t up_gulp)
{
	size_t dev_out = 0, dev_in = 0, up_out = 0, up_in = 0;
	uint64_t end_ms = clock_boot_ms() + 4 * PATIENCE_MS;
	uint8_t buf[16384];

	while (dev_in < bytes || up_in < bytes) {
		ssize_t n = bytes - dev_out < record ? bytes - dev_out : record;

		for (ssize_t i = 0; i < n; i++)
			buf[i] = pattern(dev_out + i);
		n = n > 0 ? wolfSSL_write(w->ssl, buf, n) : 0;
		dev_out += n > 0 ? n : 0;
		n = bytes - up_out < sizeof(buf) ? bytes - up_out : sizeof(buf);
		for (ssize_t i = 0; i < n; i++)
			buf[i] = pattern(up_out + i + 5);
		n = n > 0 ? send(w->up, buf, n, MSG_NOSIGNAL) : 0;
		up_out += n > 0 ? n : 0;
		turn(w, 0);
		n = dev_read(w, buf, dev_gulp);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(dev_in + i + 5));
		dev_in += n > 0 ? n : 0;
		n = recv(w->up, buf, up_gulp, 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(up_in + i));
		up_in += n > 0 ? n : 0;
		if (clock_boot_ms() > end_ms)
			fail_msg("stuck: device %zu/%zu, upstream %zu/%zu", dev_in, dev_out, up_in,
				 up_out);
	}
}

static void bytes_pass_unchanged_at_any_pace(void **state)
{
	static const struct {
		const char *name;
		size_t bytes, record, dev_gulp, up_gulp;
	} rows[] = {
		{"all as fast as it goes", 2 << 20, 16384, 16384, 16384},
		{"a slow device", 2 << 20, 16384, 1400, 16384},
		{"a slow upstream, large records", 2 << 20, 16384, 16384, 1400},
		{"a slow upstream, small records", 512 << 10, 100, 16384, 700},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		print_message("%s\n", rows[i].name);
		session_up(w);
		exchange(w, rows[i].bytes, rows[i].record, rows[i].dev_gulp, rows[i].up_gulp);
		dev_drop(w);
		UNTIL(w, w->closed == i + 1);
		assert_int_equal(w->last_closed.bytes_up, rows[i].bytes);
		assert_int_equal(w->last_closed.bytes_down, rows[i].bytes);
	}
	assert_int_equal(w->refused, 0);
}

static void what_comes_with_the_handshake_follows_the_proxy_header(void **state)
{
	struct world *w = *state;
	uint8_t buf[1024];
	ssize_t n, got = 0;

	w->cfg.listeners[0].proxy_protocol = true;
	w->answer = ANSWER_NEVER;
	dev_connect(w);
	/* everything that the device has to say is there before the worker looks */
	while (w->admits == 0) {
		if (wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->dev >= 0 && got == 0) {
			assert_int_equal(wolfSSL_write(w->ssl, "early", 5), 5);
			got = 1;
		}
		turn(w, 1);
	}
	agent_answer(w);
	for (got = 0; got < 5 || memcmp(buf + got - 5, "early", 5) != 0;) {
		uint64_t end_ms = clock_boot_ms() + PATIENCE_MS;

		turn(w, 1);
		n = w->up >= 0 ? recv(w->up, buf + got, sizeof(buf) - got, 0) : 0;
		got += n > 0 ? n : 0;
		assert_true(clock_boot_ms() < end_ms);
	}
	assert_memory_equal(buf, "\r\n\r\n\0\r\nQUIT\n", 12);
}

static void each_side_may_end_first(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	/* the device ends; the upstream still talks */
	session_up(w);
	assert_int_equal(wolfSSL_write(w->ssl, "bye", 3), 3);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 3);
	UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 0);
	assert_int_equal(send(w->up, "answer", 6, 0), 6);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) == 6);
	assert_memory_equal(buf, "answer", 6);
	assert_int_equal(w->closed, 0);
	shutdown(w->up, SHUT_WR);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "closed");
	dev_drop(w);

	/* the upstream ends; the device still talks */
	session_up(w);
	shutdown(w->up, SHUT_WR);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), 0); /* close_notify */
	assert_int_equal(w->closed, 1);
	assert_int_equal(wolfSSL_write(w->ssl, "late", 4), 4);
	UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 4);
	wolfSSL_shutdown(w->ssl);
	UNTIL(w, w->closed == 2);
	assert_string_equal(w->last_closed.reason, "closed");
}

static void an_upstream_that_breaks_off_is_no_clean_end(void **state)
{
	struct world *w = *state;
	const struct linger none = {.l_onoff = 1};
	uint8_t buf[64];

	session_up(w);
	setsockopt(w->up, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(w->up);
	w->up = -1;
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
}

/* The device writes until nobody takes more. @return bytes */
static size_t stuff_upstream(struct world *w)
{
	static const uint8_t buf[16384];
	size_t total = 0;

	for (unsigned idle = 0; idle < 50;) {
		int n = wolfSSL_write(w->ssl, buf, sizeof(buf));

		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
		total += n > 0 ? n : 0;
	}
	return total;
}

static void stuff_device(struct world *w)
{
	static const uint8_t buf[16384];

	for (unsigned idle = 0; idle < 50;) {
		ssize_t n = send(w->up, buf, sizeof(buf), MSG_NOSIGNAL);

		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
	}
}

static void a_stuck_upstream_pushes_back_and_burns_nothing(void **state)
{
	struct world *w = *state;

	session_up(w);
	assert_true(stuff_upstream(w) < 12u << 20);
	assert_true(wakes(w, 300) < 20);
	/* the device gives up: its EPOLLHUP stays, and nothing can be done about it yet */
	dev_reset(w);
	assert_true(wakes(w, 300) < 20);
	assert_int_equal(w->closed, 0);
	only(w)->active_ms = 0;
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "idle");
}

static void a_stuck_device_pushes_back_and_burns_nothing(void **state)
{
	struct world *w = *state;

	session_up(w);
	stuff_device(w);
	assert_true(wakes(w, 300) < 20);
	close(w->up);
	w->up = -1;
	assert_true(wakes(w, 300) < 20);
	dev_reset(w);
	UNTIL(w, w->closed == 1);
}

static void a_device_that_vanishes_while_it_is_admitted(void **state)
{
	struct world *w = *state;

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	dev_reset(w);
	assert_true(wakes(w, 300) < 20);
	w->answer = ANSWER_YES;
	agent_answer(w);
	UNTIL(w, w->closed == 1);
	assert_null(only(w));
}

static void an_answer_that_comes_too_late_is_handed_back(void **state)
{
	struct world *w = *state;

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	only(w)->deadline_ms = 0;
	UNTIL(w, w->refused == 1);
	assert_string_equal(w->refused_why, "the agent does not answer");
	w->answer = ANSWER_YES;
	agent_answer(w);
	UNTIL(w, w->closed == 1);
	assert_int_equal(w->last_closed.session, w->admit.session);
	assert_int_equal(w->up, -1);
}

static void recheck(struct world *w)
{
	struct msg_recheck m = {.slot = SLOT};

	MSG_INIT(&m, MSG_RECHECK, 9);
	w->rechecked = -1;
	assert_int_equal(msg_send(w->agent, &m, -1), 0);
	UNTIL(w, w->rechecked >= 0);
}

static void the_table_ends_sessions(void **state)
{
	static const struct {
		const char *name;
		enum answer answer;
		enum standing standing;
		bool past;
		uint32_t generation;
		int alert;
		const char *why;
	} rows[] = {
		{"revoked", ANSWER_YES, STANDING_REVOKED, true, 8, 44, "revoked"},
		{"revoked while held", ANSWER_HELD, STANDING_REVOKED, true, 8, 44, "revoked"},
		{"moved", ANSWER_YES, STANDING_REMEDIATION, false, 8, 49, "standing changed"},
		{"expired", ANSWER_YES, STANDING_FULL, true, 7, 45, "standing expired"},
	};
	struct world *w = *state;
	uint8_t buf[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t closed = w->closed;

		w->answer = rows[i].answer;
		table_say(w, STANDING_FULL, UINT64_MAX, 7);
		dev_connect(w);
		UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == i + 1);
		UNTIL(w, only(w)->state == CONN_RELAY || only(w)->state == CONN_HELD);
		table_say(w, rows[i].standing, rows[i].past ? 1 : UINT64_MAX, rows[i].generation);
		/* a session that sees it by itself, by data on its way, is counted too */
		if (i % 2 == 0)
			wolfSSL_write(w->ssl, "x", 1);
		recheck(w);
		if (w->rechecked != 1)
			fail_msg("%s: %d closed", rows[i].name, (int)w->rechecked);
		UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
		assert_int_equal(dev_alert(w), rows[i].alert);
		recheck(w);
		assert_int_equal(w->rechecked, 0);
		dev_drop(w);
		UNTIL(w, w->closed == closed + 1);
		assert_string_equal(w->last_closed.reason, rows[i].why);
	}
}

static void an_expiry_needs_no_agent(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	table_say(w, STANDING_FULL, clock_boot_ms() + 50, 7);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_CERTIFICATE_EXPIRED);
}

static void revocation_delivers_nothing_that_was_queued(void **state)
{
	struct world *w = *state;
	uint8_t buf[16384];
	ssize_t n;
	size_t late = 0;

	session_up(w);
	stuff_device(w);
	table_say(w, STANDING_REVOKED, 0, 8);
	recheck(w);
	assert_int_equal(w->rechecked, 1);
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "revoked");
	/* what had crossed the wire before stays the device's; then the connection is reset, without an end */
	while ((n = recv(w->dev, buf, sizeof(buf), 0)) > 0)
		late += n;
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(late < 200000);
	/* the upstream does not take it for a regular end either */
	while ((n = recv(w->up, buf, sizeof(buf), 0)) > 0)
		;
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

static void an_agent_that_comes_back_is_told_and_decides_anew(void **state)
{
	static const struct {
		const char *name;
		enum answer answer;
		bool lives;
	} rows[] = {
		{"as before", ANSWER_YES, true},
		{"refused", ANSWER_NO, false},
		{"in another segment", ANSWER_SEGMENT, false},
		{"with another standing", ANSWER_STANDING, false},
		{"the upstream is out of reach now", ANSWER_HELD, false},
	};
	struct world *w = *state;
	uint8_t buf[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t readmits = w->readmits;

		w->answer = ANSWER_YES;
		session_up(w);
		agent_kill(w);
		UNTIL(w, !w->w.agent_up);
		/* meanwhile it goes on */
		assert_int_equal(wolfSSL_write(w->ssl, "on", 2), 2);
		UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 2);
		w->answer = rows[i].answer;
		table_say(w, STANDING_FULL, UINT64_MAX, 7 + i);
		only(w)->generation = 7 + i;
		agent_listen(w);
		UNTIL(w, w->readmits == readmits + 1);
		if (rows[i].lives) {
			assert_int_equal(wolfSSL_write(w->ssl, "ok", 2), 2);
			UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 2);
		} else {
			UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
			if (dev_alert(w) != SESSION_ALERT_ACCESS_DENIED)
				fail_msg("%s: alert %d", rows[i].name, dev_alert(w));
		}
		dev_drop(w);
		UNTIL(w, only(w) == NULL);
	}
}

static void a_session_that_is_ending_is_not_announced_again(void **state)
{
	struct world *w = *state;

	session_up(w);
	table_say(w, STANDING_REVOKED, 0, 8);
	recheck(w); /* the device does not react: the session lingers */
	assert_int_equal(only(w)->state, CONN_CLOSING);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	agent_listen(w);
	UNTIL(w, w->w.agent_up);
	assert_int_equal(w->readmits, 0);
}

static void a_smaller_table_is_never_read_past_its_end(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	session_up(w);
	agent_kill(w);
	UNTIL(w, !w->w.agent_up);
	table_make(w, 2);
	w->answer = ANSWER_NEVER;
	agent_listen(w);
	UNTIL(w, w->w.agent_up);
	assert_int_equal(w->w.trust.slots, 2);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
}

static void an_agent_that_only_hangs_costs_no_cpu(void **state)
{
	struct world *w = *state;

	w->mute = true;
	agent_kill(w);
	agent_listen(w);
	UNTIL(w, !w->w.agent_up);
	UNTIL(w, w->w.agent.fd >= 0);
	assert_true(wakes(w, 1500) < 40);
	/* nobody gets in meanwhile */
	dev_connect(w);
	UNTIL(w, (wolfSSL_connect(w->ssl), only(w) != NULL && only(w)->state == CONN_CLOSING));
	assert_int_equal(w->up, -1);
}

static void those_who_wait_are_told_when_the_agent_dies(void **state)
{
	struct world *w = *state;
	uint8_t buf[64];

	w->answer = ANSWER_NEVER;
	dev_connect(w);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
	agent_kill(w);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_INTERNAL_ERROR);
	assert_int_equal(w->up, -1);
}

static void no_descriptors_left_is_no_busy_loop(void **state)
{
	struct world *w = *state;
	struct rlimit was, now;
	int spare;

	dev_connect(w);
	spare = dup(0);
	close(spare);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	now = was;
	now.rlim_cur = spare;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	assert_true(wakes(w, 300) < 20);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	UNTIL(w, wolfSSL_connect(w->ssl) == WOLFSSL_SUCCESS && w->admits == 1);
}

static void new_revocation_lists_reach_live_sessions(void **state)
{
	struct world *w = *state, other = {.dev = -1};
	uint8_t buf[64];

	session_up(w);
	w->w.reload = true;
	turn(w, 1);
	assert_int_equal(wolfSSL_write(w->ssl, "x", 1), 1);
	UNTIL(w, recv(w->up, buf, sizeof(buf), 0) == 1);
	/* a second device stands in the middle of its handshake */
	other.ctx = w->ctx;
	other.cfg.listeners[0].port = w->cfg.listeners[0].port;
	dev_connect(&other);
	wolfSSL_connect(other.ssl);
	UNTIL(w, w->w.listeners[0].handshakes == 1);
	assert_int_equal(pki_sh(&pki, "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem "
				      "-revoke dev.pem && openssl ca -config ca.cnf -gencrl "
				      "-keyfile ca.key -cert ca.pem -out ca.crl"),
			 0);
	w->w.reload = true;
	UNTIL(w, w->closed == 1);
	assert_string_equal(w->last_closed.reason, "revoked (CRL)");
	assert_int_equal(w->refused, 1);
	UNTIL(w, dev_read(w, buf, sizeof(buf)) < 0);
	assert_int_equal(dev_alert(w), SESSION_ALERT_CERTIFICATE_REVOKED);
	other.up = -1;
	dev_drop(&other);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(bytes_pass_unchanged_at_any_pace),
		T(what_comes_with_the_handshake_follows_the_proxy_header),
		T(each_side_may_end_first),
		T(an_upstream_that_breaks_off_is_no_clean_end),
		T(a_stuck_upstream_pushes_back_and_burns_nothing),
		T(a_stuck_device_pushes_back_and_burns_nothing),
		T(a_device_that_vanishes_while_it_is_admitted),
		T(an_answer_that_comes_too_late_is_handed_back),
		T(the_table_ends_sessions),
		T(an_expiry_needs_no_agent),
		T(revocation_delivers_nothing_that_was_queued),
		T(an_agent_that_comes_back_is_told_and_decides_anew),
		T(a_session_that_is_ending_is_not_announced_again),
		T(a_smaller_table_is_never_read_past_its_end),
		T(an_agent_that_only_hangs_costs_no_cpu),
		T(those_who_wait_are_told_when_the_agent_dies),
		T(no_descriptors_left_is_no_busy_loop),
		T(new_revocation_lists_reach_live_sessions), /* last: its list stays */
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
