/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A listener of DTLS without a network: bytes from several addresses, and datagrams of two real devices, which arrive
 * from anywhere, damaged, twice or never; meanwhile time passes, the agent answers, the table changes, secrets turn. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "test/unit/tls-proxy/pki.h"
#include "tls-proxy/dtls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define PLACES 4 /* addresses */
#define DEVICES 2
#define QUEUE 16 /* datagrams to a place */
#define DATAGRAM_BYTES 2048
#define SLOTS 4
#define SLOT 2

struct queue {
	uint8_t data[QUEUE][DATAGRAM_BYTES];
	size_t bytes[QUEUE];
	unsigned at, n;
};

struct device {
	WOLFSSL *ssl;
	unsigned place;
	struct queue out;
	bool open;
};

struct input {
	const uint8_t *at, *end;
};

static struct tls_ctx ctx;
static WOLFSSL_CTX *device_ctx[DEVICES];
static struct gw_config cfg;
static struct worker w;
static struct queue to_place[PLACES];
static struct device device[DEVICES];
static uint64_t now_ms;

static uint8_t next(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static void queue_put(struct queue *q, const void *data, size_t bytes)
{
	unsigned i = (q->at + q->n) % QUEUE;

	if (q->n == QUEUE || bytes > DATAGRAM_BYTES)
		return;
	memcpy(q->data[i], data, bytes);
	q->bytes[i] = bytes;
	q->n++;
}

static size_t queue_take(struct queue *q, uint8_t *out, size_t room)
{
	unsigned i = q->at % QUEUE;
	size_t n;

	if (q->n == 0)
		return 0;
	n = q->bytes[i] < room ? q->bytes[i] : room;
	memcpy(out, q->data[i], n);
	q->at++;
	q->n--;
	return n;
}

/* ---- the network ---- */

static const uint8_t *arriving;
static size_t arriving_bytes;
static struct datagram_peer arriving_from;

static struct datagram_peer place(unsigned i)
{
	struct datagram_peer p = {.port = 4000 + i};

	ip_addr_parse(&p.addr, i % 2 == 0 ? "10.7.0.5" : "fd07::5");
	return p;
}

static ssize_t net_recv(struct datagram *d, void *out, size_t bytes, struct datagram_peer *from)
{
	size_t n = arriving_bytes < bytes ? arriving_bytes : bytes;

	(void)d;
	if (arriving == NULL)
		return -EAGAIN;
	memcpy(out, arriving, n);
	*from = arriving_from;
	arriving = NULL;
	return n;
}

static void net_send(struct datagram *d, const struct datagram_peer *to, const void *head,
		     size_t head_bytes, const void *data, size_t bytes)
{
	(void)d;
	(void)head;
	if (head_bytes != 0)
		abort();
	for (unsigned i = 0; i < PLACES; i++) {
		struct datagram_peer p = place(i);

		if (datagram_peer_eq(&p, to))
			queue_put(&to_place[i], data, bytes);
	}
}

static void net_want(struct datagram *d, uint32_t events)
{
	(void)d;
	(void)events;
}

static void net_close(struct datagram *d)
{
	(void)d;
}

static const struct datagram_ops net = {
	.recv = net_recv, .send = net_send, .want = net_want, .close = net_close};

static void arrives(unsigned from, const uint8_t *data, size_t bytes)
{
	struct dtls_port *p = w.listeners[0].dtls;

	arriving = data;
	arriving_bytes = bytes;
	arriving_from = place(from);
	p->d.ready(p->d.arg, STREAM_READ);
	dtls_turn(&w.listeners[0]);
	conns_reap(&w);
}

/* ---- the devices ---- */

static int on_recv(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct device *d = arg;
	size_t n = queue_take(&to_place[d->place], (uint8_t *)buf, bytes);

	(void)ssl;
	return n > 0 ? (int)n : WOLFSSL_CBIO_ERR_WANT_READ;
}

static int on_send(WOLFSSL *ssl, char *buf, int bytes, void *arg)
{
	struct device *d = arg;

	(void)ssl;
	queue_put(&d->out, buf, bytes);
	return bytes;
}

static void device_step(struct device *d)
{
	uint8_t buf[256];

	if (!d->open)
		d->open = wolfSSL_connect(d->ssl) == WOLFSSL_SUCCESS;
	if (d->open)
		wolfSSL_read(d->ssl, buf, sizeof(buf));
}

/* What it has sent since: from where it is, or from elsewhere, as it was or not. */
static void device_delivers(struct device *d, struct input *in)
{
	uint8_t how = next(in), buf[DATAGRAM_BYTES];
	size_t n;

	while ((n = queue_take(&d->out, buf, sizeof(buf))) > 0) {
		unsigned from = (how & 1) ? (how >> 1) % PLACES : d->place;

		if (how & 0x10) {
			size_t at = next(in) | (size_t)(how & 0x60) << 3;

			buf[at % n] ^= next(in);
		}
		if (how & 0x80)
			n = 1 + next(in) % n;
		if ((how & 0x08) && (how & 0x04))
			continue;
		arrives(from, buf, n);
		if (how & 0x08)
			arrives(from, buf, n);
	}
}

/* ---- the agent ---- */

static void agent_answers(int agent, uint8_t how)
{
	union msg_any m;

	while (msg_recv(agent, &m, NULL) > 0) {
		struct msg_admitted a = {.session = m.admit.session};
		struct conn *c;

		if (m.h.type != MSG_ADMIT)
			continue;
		if (m.admit.flow.proto != POLICY_PROTO_UDP)
			abort();
		if ((how & 3) != 3) {
			a.slot = SLOT;
			a.generation = w.trust.rec[SLOT].generation;
			a.expires_ms = UINT64_MAX;
			a.standing = (how & 4) ? STANDING_RESTRICTED : STANDING_FULL;
			a.relay = !(how & 8);
		}
		c = conn_by_id(&w, a.session);
		if (c != NULL)
			conn_admitted(c, &a);
		dtls_turn(&w.listeners[0]);
		conns_reap(&w);
	}
}

/* Nothing goes to an upstream but of those whom the agent has admitted. */
static void check(void)
{
	struct conn *c;

	LIST_FOREACH(c, &w.conns, next) {
		if (stream_is_open(&c->up) && !c->admitted)
			abort();
		if (c->state == CONN_RELAY && (c->slot != SLOT || c->moved_from != 0))
			abort();
	}
}

static void one(int agent, struct input *in)
{
	struct dtls_port *p = w.listeners[0].dtls;
	uint8_t op = next(in);
	struct device *d = &device[op >> 7];
	size_t n;

	switch (op & 7) {
	case 0:
		n = next(in) | (size_t)(op & 0x18) << 5;
		if (n > (size_t)(in->end - in->at))
			n = in->end - in->at;
		if (n > 0)
			arrives(op >> 5 & 3, in->at, n);
		in->at += n;
		break;
	case 1:
		device_step(d);
		device_delivers(d, in);
		break;
	case 2:
		device_step(d);
		if (d->open)
			wolfSSL_write(d->ssl, "text", 4);
		device_delivers(d, in);
		break;
	case 3:
		d->place = op >> 3 & 3;
		break;
	case 4:
		now_ms += (uint64_t)next(in) * 100;
		wolfSSL_dtls_got_timeout(d->ssl);
		dtls_tick(p->l, now_ms);
		conns_tick(&w, now_ms);
		break;
	case 5:
		agent_answers(agent, op >> 3);
		break;
	case 6:
		w.trust.rec[SLOT].standing = (op & 8) ? STANDING_REVOKED : STANDING_FULL;
		w.trust.rec[SLOT].expires_ms = (op & 16) ? 0 : UINT64_MAX;
		w.trust.rec[SLOT].generation += op >> 5 & 1;
		conns_recheck(&w, 0, clock_boot_ms());
		break;
	case 7:
		dtls_tick(p->l, p->secret_ms + DTLS_SECRET_MS);
		if (op & 8)
			p->secret_ms = 0;
		break;
	}
	dtls_turn(p->l);
	conns_reap(&w);
	check();
}

/* ---- the world ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct gw_listener *l = &cfg.listeners[0];
	struct err err = {""};
	char cert[128], key[128];
	struct pki pki;

	(void)argc;
	(void)argv;
	log_init("fuzz", LOG_LEVEL_ERROR);
	if (tls_ctx_global_init() < 0 || pki_make(&pki) != 0 ||
	    pki_cert(&pki, "dev",
		     "subjectAltName=URI:spiffe://p/cam/1\\nextendedKeyUsage=clientAuth") != 0)
		abort();
	*l = (struct gw_listener){.name = "fuzz",
				  .protocol = GW_DTLS,
				  .tls12 = true,
				  .n_upstreams = 1,
				  .half_closed_timeout_s = 60,
				  .handshake_timeout_s = 10,
				  .idle_timeout_s = 60,
				  .connect_timeout_s = 5,
				  .handshakes_max = 8,
				  .sessions_max = 8};
	ip_addr_parse(&l->addr, "127.0.0.1");
	l->upstreams[0] = (struct gw_upstream){.addr = l->addr, .port = 9, .weight = 1};
	snprintf(l->certificate, sizeof(l->certificate), "%s/gw.pem", pki.dir);
	snprintf(l->key, sizeof(l->key), "%s/gw.key", pki.dir);
	snprintf(l->ca, sizeof(l->ca), "%s/ca.pem", pki.dir);
	snprintf(l->crl, sizeof(l->crl), "%s/ca.crl", pki.dir);
	snprintf(cert, sizeof(cert), "%s/dev.pem", pki.dir);
	snprintf(key, sizeof(key), "%s/dev.key", pki.dir);
	device_ctx[0] = wolfSSL_CTX_new(wolfDTLSv1_2_client_method());
	device_ctx[1] = wolfSSL_CTX_new(wolfDTLSv1_3_client_method());
	for (unsigned i = 0; i < DEVICES; i++) {
		wolfSSL_CTX_set_verify(device_ctx[i], WOLFSSL_VERIFY_NONE, NULL);
		if (wolfSSL_CTX_use_certificate_chain_file(device_ctx[i], cert) !=
			    WOLFSSL_SUCCESS ||
		    wolfSSL_CTX_use_PrivateKey_file(device_ctx[i], key, WOLFSSL_FILETYPE_PEM) !=
			    WOLFSSL_SUCCESS)
			abort();
	}
	if (tls_ctx_init(&ctx, l, &err) < 0)
		abort();
	pki_drop(&pki);
	return 0;
}

static void world_make(int agent, void *table)
{
	struct listener *l = &w.listeners[0];
	struct err err = {""};

	memset(&w, 0, sizeof(w));
	memset(table, 0, trust_map_bytes(SLOTS));
	memset(to_place, 0, sizeof(to_place));
	memset(device, 0, sizeof(device));
	now_ms = clock_boot_ms();
	trust_layout(&w.trust, table, SLOTS);
	w.trust.rec[SLOT].standing = STANDING_FULL;
	w.trust.rec[SLOT].expires_ms = UINT64_MAX;
	w.cfg = &cfg;
	w.epoll = epoll_create1(EPOLL_CLOEXEC);
	conns_init(&w);
	w.agent.fd = agent;
	w.agent_up = true;
	*l = (struct listener){.w = &w, .cfg = &cfg.listeners[0], .ctx = ctx, .src = {.fd = -1}};
	if (dtls_listen(l, &err) < 0)
		abort();
	w.n_listeners = 1;
	datagram_close(&l->dtls->d);
	l->dtls->d.ops = &net;
	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = &device[i];

		d->place = i;
		d->ssl = wolfSSL_new(device_ctx[i]);
		if (d->ssl == NULL || wolfSSL_dtls_cid_use(d->ssl) != WOLFSSL_SUCCESS ||
		    wolfSSL_dtls_cid_set(d->ssl, (unsigned char *)"d", 1) != WOLFSSL_SUCCESS)
			abort();
		wolfSSL_SSLSetIORecv(d->ssl, on_recv);
		wolfSSL_SSLSetIOSend(d->ssl, on_send);
		wolfSSL_SetIOReadCtx(d->ssl, d);
		wolfSSL_SetIOWriteCtx(d->ssl, d);
	}
}

static void world_end(void)
{
	struct dtls_port *p = w.listeners[0].dtls;
	struct conn *c;

	while ((c = LIST_FIRST(&w.conns)) != NULL)
		conn_end(c);
	conns_reap(&w);
	agent_fini(&w);
	if (p->by_address.n != 0 || p->by_cid.n != 0 || w.listeners[0].sessions != 0 ||
	    w.listeners[0].handshakes != 0)
		abort();
	dtls_close(&w.listeners[0]);
	for (unsigned i = 0; i < DEVICES; i++)
		wolfSSL_free(device[i].ssl);
	close(w.epoll);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = {data, data + bytes};
	void *table = aligned_alloc(64, (trust_map_bytes(SLOTS) + 63) / 64 * 64);
	int agent[2];

	if (table == NULL ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, agent) < 0)
		abort();
	world_make(agent[0], table);
	/* A good beginning, or the whole budget would go into finding one. */
	for (unsigned i = 0; i < 12 && next(&in) % 4 != 0; i++) {
		static const uint8_t good[] = {1, 0};
		struct input step = {good, good + sizeof(good)};

		device_step(&device[i % 2]);
		device_delivers(&device[i % 2], &step);
		if (i > 6)
			agent_answers(agent[1], 0);
	}
	while (in.at < in.end && w.agent_up)
		one(agent[1], &in);
	world_end();
	close(agent[1]);
	free(table);
	return 0;
}
