/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/dtls.h"

/* ---- towards the device ---- */

struct datagram_peer assoc_peer(const struct assoc *a)
{
	return (struct datagram_peer){a->c->peer, a->c->peer_port};
}

static ssize_t device_recv(struct stream *s, void *out, size_t bytes)
{
	struct assoc *a = s->assoc;
	size_t n = a->now_bytes < bytes ? a->now_bytes : bytes;

	if (a->now == NULL)
		return a->shut ? 0 : -EAGAIN; /* who has said good-bye waits for nobody's */
	memcpy(out, a->now, n);
	a->now = NULL;
	return n;
}

static ssize_t device_give(struct stream *s, const void *data, size_t bytes)
{
	struct assoc *a = s->assoc;
	struct datagram_peer to = assoc_peer(a);

	datagram_send(&a->p->d, &to, NULL, 0, data, bytes);
	return bytes;
}

static int always_connected(struct stream *s)
{
	(void)s;
	return 0;
}

static bool never_unsent(struct stream *s)
{
	(void)s;
	return false;
}

static void device_want(struct stream *s, uint32_t events)
{
	struct assoc *a = s->assoc;

	a->want = events;
	if (a->n_waiting == 0 || !(events & STREAM_READ) || a->is_ripe)
		return;
	LIST_INSERT_HEAD(&a->p->ripe, a, ripe);
	a->is_ripe = true;
}

static void device_shut(struct stream *s)
{
	s->assoc->shut = true;
}

static void waiting_drop(struct assoc *a)
{
	for (; a->n_waiting > 0; a->n_waiting--)
		free(a->waiting[a->waiting_at++ % DTLS_WAITING_MAX].data);
}

/* Nobody finds it any more; the memory goes with the conn's. */
static void device_close(struct stream *s)
{
	struct assoc *a = s->assoc;

	dtls_table_del(&a->p->by_address, &a->by_address);
	dtls_table_del(&a->p->by_cid, &a->by_cid);
	if (a->is_opening)
		LIST_REMOVE(a, opening);
	if (a->is_ripe)
		LIST_REMOVE(a, ripe);
	a->is_opening = a->is_ripe = false;
	waiting_drop(a);
}

static const struct stream_ops device_ops = {
	.recv = device_recv,
	.send = device_give,
	.connected = always_connected,
	.unsent = never_unsent,
	.want = device_want,
	.shut = device_shut,
	.close = device_close,
	.reset = device_close,
};

/* ---- towards the upstream ---- */

static ssize_t upstream_recv(struct stream *s, void *out, size_t bytes)
{
	struct assoc *a = s->assoc;

	return a->up_shut ? 0 : datagram_recv(&a->up, out, bytes, NULL);
}

static ssize_t upstream_send(struct stream *s, const void *data, size_t bytes)
{
	struct assoc *a = s->assoc;

	datagram_send(&a->up, NULL, a->head, a->head_bytes, data, bytes);
	return bytes;
}

static void upstream_want(struct stream *s, uint32_t events)
{
	datagram_want(&s->assoc->up, events);
}

static void upstream_shut(struct stream *s)
{
	s->assoc->up_shut = true;
}

static void upstream_close(struct stream *s)
{
	datagram_close(&s->assoc->up);
}

static const struct stream_ops upstream_ops = {
	.recv = upstream_recv,
	.send = upstream_send,
	.connected = always_connected,
	.unsent = never_unsent,
	.want = upstream_want,
	.shut = upstream_shut,
	.close = upstream_close,
	.reset = upstream_close,
};

static void upstream_ready(void *arg, uint32_t events)
{
	struct assoc *a = arg;

	if (stream_is_open(&a->c->up))
		a->c->up.ready(a->c->up.arg, events);
}

/* The header goes before each datagram: the upstream knows no first one, and any may be lost. */
int assoc_header(struct assoc *a)
{
	uint8_t *head = malloc(RELAY_BYTES), *fits = NULL;
	int n = head != NULL ? connect_header(a->c, head, RELAY_BYTES) : -ENOMEM;

	if (n > 0) {
		fits = realloc(head, n);
		head = NULL;
	}
	free(head);
	if (n < 0 || (n > 0 && fits == NULL))
		return n < 0 ? n : -ENOMEM;
	free(a->head);
	a->head = fits;
	a->head_bytes = n;
	return 0;
}

int assoc_connect(struct conn *c)
{
	struct assoc *a = c->assoc;
	int ret = assoc_header(a);

	if (ret < 0)
		return ret;
	a->up.ready = upstream_ready;
	a->up.arg = a;
	ret = transport_udp_connect(c->l, &a->up, &c->l->cfg->upstreams[c->upstream].addr,
				    c->l->cfg->upstreams[c->upstream].port);
	if (ret < 0)
		return ret;
	c->up.ops = &upstream_ops;
	c->up.w = c->w;
	c->up.assoc = a;
	return 0;
}

/* ---- the association ---- */

struct assoc *assoc_new(struct dtls_port *p, struct conn *c, const struct dtls_door *door,
			uint64_t random)
{
	struct assoc *a = calloc(1, sizeof(*a));
	struct datagram_peer peer;
	uint64_t hash;

	if (a == NULL)
		return NULL;
	a->c = c;
	a->p = p;
	a->random = random;
	a->want = STREAM_READ;
	memcpy(a->cid, door->cid, sizeof(a->cid));
	memcpy(&hash, a->cid, sizeof(hash));
	c->assoc = a;
	c->dev.ops = &device_ops;
	c->dev.w = c->w;
	c->dev.assoc = a;
	peer = assoc_peer(a);
	dtls_table_put(&p->by_address, &a->by_address, dtls_address_hash(p, &peer));
	dtls_table_put(&p->by_cid, &a->by_cid, hash);
	LIST_INSERT_HEAD(&p->opening, a, opening);
	a->is_opening = true;
	return a;
}

void assoc_free(struct assoc *a)
{
	if (a == NULL)
		return;
	free(a->head);
	free(a);
}

/* Whether the peer wants connection IDs is known when the handshake is over. */
static void settle(struct assoc *a)
{
	if (a->c->ended || a->settled)
		return;
	if (a->c->state == CONN_HANDSHAKE) {
		a->timer_ms = clock_boot_ms() + session_dtls_timeout_ms(a->c->tls);
		session_trim(a->c->tls); /* half-open ones may be many, and wait for a long time */
		return;
	}
	a->settled = true;
	if (!session_dtls_has_cid(a->c->tls))
		dtls_table_del(&a->p->by_cid, &a->by_cid);
}

/* Once at the least: what the session holds from before its association began counts as well. */
void assoc_work(struct assoc *a)
{
	for (;;) {
		struct waiting *first = &a->waiting[a->waiting_at % DTLS_WAITING_MAX];
		uint8_t *data = NULL;

		if (a->c->ended)
			return;
		if (a->n_waiting > 0 && (a->want & STREAM_READ)) {
			data = first->data;
			a->now = data;
			a->now_bytes = first->bytes;
			a->waiting_at++;
			a->n_waiting--;
		}
		a->c->dev.ready(a->c->dev.arg, STREAM_READ);
		a->now = NULL;
		free(data);
		settle(a);
		if (data == NULL)
			return;
	}
}

static void wait(struct assoc *a, const uint8_t *data, size_t bytes)
{
	struct waiting *w = &a->waiting[(a->waiting_at + a->n_waiting) % DTLS_WAITING_MAX];

	if (a->n_waiting == DTLS_WAITING_MAX || (w->data = malloc(bytes)) == NULL) {
		a->p->n.overrun++;
		return;
	}
	memcpy(w->data, data, bytes);
	w->bytes = bytes;
	a->n_waiting++;
}

void assoc_take(struct assoc *a, const uint8_t *data, size_t bytes)
{
	if (!(a->want & STREAM_READ) || a->n_waiting > 0) {
		wait(a, data, bytes);
		return;
	}
	a->now = data;
	a->now_bytes = bytes;
	a->c->dev.ready(a->c->dev.arg, STREAM_READ);
	a->now = NULL;
	settle(a);
}

/* What it said waits in front of the upstream, until the device is admitted from where it is now. */
static void keep(struct conn *c, const uint8_t *data, size_t bytes)
{
	if (buffer_waiting(&c->to_up) > 0 || !buffer_hold(&c->to_up))
		return;
	buffer_put(&c->to_up, data, bytes);
	c->bytes_up += bytes;
}

static bool newer(struct dtls_newest than, struct dtls_newest is)
{
	return is.epoch > than.epoch || (is.epoch == than.epoch && is.sequence > than.sequence);
}

/* RFC 9146 section 6: only a record that was decrypted, and is newer than all before, says where the device is. */
static bool moved(struct assoc *a, const uint8_t *data, size_t bytes, ssize_t *got, uint8_t *text,
		  size_t text_bytes)
{
	struct conn *c = a->c;
	struct dtls_newest before = session_dtls_newest(c->tls);
	uint64_t now_ms = clock_boot_ms();

	if ((c->state != CONN_RELAY && c->state != CONN_HELD) || session_room(c->tls) < bytes ||
	    now_ms < a->moved_ms + DTLS_MOVE_MS)
		return false;
	session_feed(c->tls, data, bytes);
	*got = session_read(c->tls, text, text_bytes);
	if (!newer(before, session_dtls_newest(c->tls)))
		return false;
	a->moved_ms = now_ms;
	return true;
}

void assoc_take_moved(struct assoc *a, const struct datagram_peer *from, const uint8_t *data,
		      size_t bytes)
{
	static uint8_t text[DTLS_DATAGRAM_BYTES_MAX]; /* one thread; wiped below */
	struct conn *c = a->c;
	ssize_t n = -EAGAIN;

	if (c->state != CONN_CLOSING && c->slot != 0 && !conn_current(c, clock_boot_ms())) {
		conn_revoked(c);
		return;
	}
	if (!moved(a, data, bytes, &n, text, sizeof(text))) {
		a->p->n.unmoved++;
		/* What the session has to say to it, if anything, goes to where the device was seen last. */
		if (!c->ended && c->state != CONN_CLOSING)
			c->dev.ready(c->dev.arg, STREAM_WRITE);
		goto out;
	}
	a->p->n.moved++;
	dtls_table_del(&a->p->by_address, &a->by_address);
	dtls_table_put(&a->p->by_address, &a->by_address, dtls_address_hash(a->p, from));
	if (n > 0 && c->state == CONN_RELAY)
		keep(c, text, n);
	conn_moved(c, &from->addr, from->port, n);
out:
	explicit_bzero(text, n > 0 ? (size_t)n : 0);
}
