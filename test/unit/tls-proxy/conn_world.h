/* SPDX-License-Identifier: GPL-3.0-or-later */
/* conn_world: a whole worker, on loopback or over its own stack: a device of the TLS library, an upstream and an agent, all in
 * this process. */
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
#include <time.h>
#include <unistd.h>

#include "config/listeners.h"
#include "config/base/clock.h"
#include "test/unit/tls-proxy/ends.h"
#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/stack/memory.h"
#include "tls-proxy/worker.h"

#define SLOTS 8
#define WORLD_ADDRESS "10.1.0.1" /* of the listener over the stack */
#define SLOT 5
#define PATIENCE_MS 15000

static struct pki pki;
static enum gw_protocol world_protocol; /* of the listener and its upstream */
static enum gw_transport world_transport; /* GW_STACK: the test is linked with stack_loop.c */

enum answer { ANSWER_YES, ANSWER_NO, ANSWER_HELD, ANSWER_NEVER, ANSWER_SEGMENT, ANSWER_STANDING };

struct world {
	struct gw_config cfg;
	struct worker w;
	struct trust_table table; /* ours, writable */
	struct msg_tls_listener told; /* the last */
	unsigned n_told;
	int agent_listener, agent, up_listener, up;
	enum answer answer;
	uint8_t out_of_reach; /* upstreams, a bit for each */
	bool mute; /* no WELCOME */
	struct msg_admit admit; /* last */
	uint32_t admits, readmits, closed, refused, refusals_told;
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
		w->refused += m->refused.n;
		w->refusals_told++;
		memcpy(w->refused_why, m->refused.reason, sizeof(w->refused_why));
		break;
	case MSG_TLS_LISTENER:
		w->told = m->tls_listener;
		w->n_told++;
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

/* Of the world's protocol. */
static inline int server_open(uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(in);
	int fd;

	*port = 0;
	if (world_protocol != GW_DTLS)
		return end_listen(port);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
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
		w->up = end_accept(w->up_listener);
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

static inline uint64_t cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

/* How often the worker wakes up in a while in which nothing happens. Over its stack it looks round for a moment whenever
 * something came: there a sixtieth of the while in processor time counts like one. */
static inline unsigned wakes(struct world *w, uint32_t ms)
{
	uint64_t end_ms = clock_boot_ms() + ms, begun_us = cpu_us();
	unsigned n = 0;

	for (; clock_boot_ms() < end_ms; n++)
		assert_int_equal(worker_turn(&w->w, 250), 0);
	return ends_stack == NULL ? n : (cpu_us() - begun_us) * 60 / (ms * 1000ull);
}

/* ---- the device ---- */

static inline void dev_connect(struct world *w)
{
	const struct ip_addr at = end_addr(WORLD_ADDRESS);

	w->dev = end_connect(&at, w->cfg.listeners[0].port);
	w->ssl = wolfSSL_new(w->ctx);
	end_tls(w->ssl, &w->dev);
}

static inline void dev_reset(struct world *w)
{
	end_reset(&w->dev);
}

static inline void dev_drop(struct world *w)
{
	wolfSSL_free(w->ssl);
	w->ssl = NULL;
	end_close(&w->dev);
	end_close(&w->up);
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

/* ---- ends that take nothing ---- */

/* The device writes until nobody takes more. @return bytes */
static inline size_t stuff_upstream(struct world *w)
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

static inline void stuff_device(struct world *w)
{
	static const uint8_t buf[16384];

	for (unsigned idle = 0; idle < 50;) {
		ssize_t n = end_send(w->up, buf, sizeof(buf));

		turn(w, 1);
		idle = n > 0 ? 0 : idle + 1;
	}
}

static inline void upstream_is_reset(struct world *w)
{
	uint8_t buf[16384];
	ssize_t n = 0;

	UNTIL(w, (n = end_recv(w->up, buf, sizeof(buf))) <= 0 && errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
}

/* ---- world ---- */

/* What a test wants otherwise, before the worker starts. */
static void (*world_prepare)(struct world *w, struct gw_listener *l);

/* Where everybody is. Over the stack: the worker's has an address towards its upstreams, and one port to them. */
static inline void world_places(struct world *w, struct gw_listener *l)
{
	struct err err = {""};

	w->w.cfg = &w->cfg;
	w->w.agent.fd = w->w.signals.fd = w->w.wake.fd = -1;
	w->w.epoll = epoll_create1(0);
	w->cfg.n_listeners = 1;
	conns_init(&w->w);
	ends_stack = NULL;
	if (world_transport == GW_SOCKET) {
		assert_int_equal(ip_addr_parse(&l->addr, "127.0.0.1"), 0);
		l->upstreams[0].addr = l->addr;
		return;
	}
	l->transport = GW_STACK;
	l->addr = end_addr(WORLD_ADDRESS);
	l->port = 8883;
	l->upstreams[0].addr = end_addr(END_UPSTREAM);
	w->cfg.tls_workers = 1;
	w->cfg.tls_port_first = 16384;
	w->cfg.tls_port_last = 32767;
	w->cfg.tls_addrs[w->cfg.n_tls_addrs++] = end_addr("10.2.0.1");
	strcpy(w->cfg.ports[w->cfg.n_ports].devargs, "loop");
	w->cfg.ports[w->cfg.n_ports++].mtu_bytes = 1500;
	if (transport_start(&w->w, &err) < 0)
		fail_msg("%s", err.msg);
	ends_stack = w->w.stack;
}

/* One that is free when all servers have theirs: whoever took it afterwards would be who the device talks to. */
static inline void world_port(struct gw_listener *l)
{
	int fd;

	if (l->transport == GW_STACK)
		return;
	fd = server_open(&l->port);
	end_close(&fd);
}

static inline int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct gw_listener *l;
	struct err err = {""};

	assert_non_null(w);
	w->agent = w->up = w->dev = w->agent_listener = -1;
	snprintf(w->cfg.run_dir, sizeof(w->cfg.run_dir), "%s", pki.dir);
	table_make(w, SLOTS);
	table_say(w, STANDING_FULL, UINT64_MAX, 7);
	agent_listen(w);
	l = &w->cfg.listeners[0];
	*l = (struct gw_listener){.name = "test",
				  .protocol = world_protocol,
				  .tls12 = world_protocol == GW_DTLS,
				  .upstreams = {{.weight = 1}},
				  .n_upstreams = 1,
				  .half_closed_timeout_s = 60,
				  .handshake_timeout_s = 10,
				  .idle_timeout_s = 60,
				  .connect_timeout_s = 5,
				  .handshakes_max = 8,
				  .sessions_max = 8};
	world_places(w, l);
	w->up_listener = server_open(&l->upstreams[0].port);
	snprintf(l->certificate, sizeof(l->certificate), "%s/gw.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/gw.key", pki.dir);
	snprintf(l->ca, sizeof(l->ca), "%s/ca.pem", pki.dir);
	snprintf(l->crl, sizeof(l->crl), "%s/ca.crl", pki.dir);
	if (world_prepare != NULL)
		world_prepare(w, l);
	world_port(l);
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

static inline int teardown(void **state)
{
	struct world *w = *state;

	dev_drop(w);
	end_unlisten(&w->up_listener);
	worker_stop(&w->w);
	ends_stack = NULL;
	wolfSSL_CTX_free(w->ctx);
	trust_unmap(&w->table);
	agent_kill(w);
	assert_int_equal(stack_mem_used(), 0);
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

/* The same tests over sockets, and over the worker's own stack: how many failed. */
#define WORLD_RUN(tests, begin)                                                                    \
	({                                                                                         \
		int failed;                                                                        \
		world_transport = GW_SOCKET;                                                       \
		failed =                                                                           \
			cmocka_run_group_tests_name("over sockets", tests, begin, group_teardown); \
		world_transport = GW_STACK;                                                        \
		failed += cmocka_run_group_tests_name("over the stack", tests, begin,              \
						      group_teardown);                             \
		failed;                                                                            \
	})
