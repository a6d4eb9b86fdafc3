/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/dtls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "config/base/clock.h"
#include "tls-proxy/sockaddr.h"

#define DATAGRAMS_A_TURN 64
#define SAY_EVERY_MS 10000

static uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t dtls_address_hash(const struct dtls_port *p, const struct datagram_peer *peer)
{
	uint64_t half[2];

	memcpy(half, peer->addr.b, sizeof(half));
	return fold(fold(half[0] ^ p->key[0], half[1] ^ p->key[1]) ^ peer->port, p->key[2]);
}

struct assoc *dtls_find_address(const struct dtls_port *p, const struct datagram_peer *peer)
{
	struct dtls_link *l = dtls_table_first(&p->by_address, dtls_address_hash(p, peer));

	for (; l != NULL; l = dtls_table_next(l)) {
		struct assoc *a = (struct assoc *)((char *)l - offsetof(struct assoc, by_address));
		struct datagram_peer its = assoc_peer(a);

		if (datagram_peer_eq(&its, peer))
			return a;
	}
	return NULL;
}

static struct assoc *find_cid(const struct dtls_port *p, const uint8_t *cid)
{
	struct dtls_link *l;
	uint64_t hash;

	memcpy(&hash, cid, sizeof(hash)); /* random, and ours */
	l = dtls_table_first(&p->by_cid, hash);
	return l != NULL ? (struct assoc *)((char *)l - offsetof(struct assoc, by_cid)) : NULL;
}

/* ---- the door ---- */

static void door_close(struct dtls_door *door)
{
	session_free(door->s);
	door->s = NULL;
}

/* An ID that some association or the other door has may not be given again. */
static int cid_make(const struct dtls_port *p, uint8_t *out)
{
	uint8_t cid[DTLS_CID_BYTES];

	do {
		if (getrandom(cid, sizeof(cid), 0) != sizeof(cid))
			return -EIO;
		cid[0] = p->l->w->index;
	} while (find_cid(p, cid) != NULL || memcmp(p->door[0].cid, cid, sizeof(cid)) == 0 ||
		 memcmp(p->door[1].cid, cid, sizeof(cid)) == 0);
	memcpy(out, cid, sizeof(cid));
	return 0;
}

static int door_open(struct dtls_port *p, struct dtls_door *door)
{
	int ret;

	if (door->s != NULL && door->ctx == p->l->ctx.certs[0]->wolf &&
	    door->lists == p->l->ctx.revoked)
		return 0;
	door_close(door);
	ret = session_new(&door->s, &p->l->ctx);
	if (ret == 0)
		ret = cid_make(p, door->cid);
	if (ret == 0)
		ret = session_dtls_open_door(door->s, door->secret, door->cid);
	door->ctx = p->l->ctx.certs[0]->wolf;
	door->lists = p->l->ctx.revoked;
	if (ret < 0)
		door_close(door);
	return ret;
}

static int secret_turn(struct dtls_port *p, uint64_t now_ms)
{
	door_close(&p->door[1]);
	p->door[1] = p->door[0];
	p->door[0].s = NULL;
	p->secret_ms = now_ms;
	return getrandom(p->door[0].secret, DTLS_SECRET_BYTES, 0) == DTLS_SECRET_BYTES ? 0 : -EIO;
}

static void door_say(struct dtls_port *p, struct dtls_door *door, const struct datagram_peer *to)
{
	const uint8_t *data;
	size_t n;

	while ((data = session_output(door->s, &n)) != NULL) {
		if (to != NULL)
			datagram_send(&p->d, to, NULL, 0, data, n);
		session_sent(door->s, n);
	}
}

/* The peer has shown that it gets what is sent to its address: only now there is something to keep of it. */
static void let_in(struct dtls_port *p, struct dtls_door *door, const struct datagram_peer *from,
		   uint64_t random)
{
	struct assoc *old = dtls_find_address(p, from), *a;
	struct conn *c;

	p->n.proved++;
	/* RFC 9147 section 5.11: it begins anew. One with a connection ID may live on, but not at this address. */
	if (old != NULL && old->settled && old->by_cid.in) {
		dtls_table_del(&p->by_address, &old->by_address);
	} else if (old != NULL) {
		snprintf(old->c->reason, sizeof(old->c->reason), "the device began anew");
		conn_end(old->c);
	}
	if (!listener_admits(p->l, &from->addr)) {
		door_close(door);
		return;
	}
	c = conn_start_with(p->l, &from->addr, from->port, door->s);
	if (c == NULL) {
		if (p->l->limit != NULL)
			limit_give(p->l->limit, &from->addr);
		door_close(door);
		return;
	}
	c->limited = p->l->limit != NULL;
	door->s = NULL;
	a = assoc_new(p, c, door, random);
	if (a == NULL) {
		conn_end(c);
		return;
	}
	assoc_work(a);
}

static enum knock knock_at(struct dtls_port *p, struct dtls_door *door,
			   const struct datagram_peer *from, const uint8_t *record, size_t bytes)
{
	struct sockaddr_storage ss;
	socklen_t n = sockaddr_write(&ss, &from->addr, from->port);

	if (door_open(p, door) < 0)
		return KNOCK_BROKEN;
	return session_dtls_knock(door->s, &ss, n, record, bytes);
}

static void knock(struct dtls_port *p, const struct datagram_peer *from, const uint8_t *record,
		  const struct dtls_record *r)
{
	struct dtls_door *door = &p->door[0], *before = &p->door[1];
	bool grace = clock_boot_ms() < p->secret_ms + DTLS_SECRET_GRACE_MS;
	enum knock k;

	p->n.hellos++;
	k = knock_at(p, door, from, record, r->bytes);
	/* A cookie that was given just before the secret turned: its own door hears it, and is not heard. */
	if (k != KNOCK_PROVED && r->cookie && grace) {
		enum knock old = knock_at(p, before, from, record, r->bytes);

		if (old == KNOCK_PROVED) {
			if (door->s != NULL)
				door_say(p, door, NULL);
			let_in(p, before, from, r->random);
			return;
		}
		if (before->s != NULL)
			door_say(p, before, NULL);
		if (old == KNOCK_BROKEN)
			door_close(before);
	}
	if (k == KNOCK_PROVED) {
		let_in(p, door, from, r->random);
		return;
	}
	if (door->s != NULL)
		door_say(p, door, from);
	if (k == KNOCK_BROKEN)
		door_close(door);
}

/* ---- datagrams ---- */

/* Of the handshake that the association is in, and no new one? */
static bool belongs(const struct assoc *a, const struct dtls_record *r)
{
	return a != NULL && a->c->state == CONN_HANDSHAKE &&
	       (!r->begins || (r->cookie && r->random == a->random));
}

static void datagram_take(struct dtls_port *p, const struct datagram_peer *from,
			  const uint8_t *data, size_t bytes, bool steered)
{
	struct dtls_record r;
	enum dtls_kind kind = dtls_record_read(&r, data, bytes);
	struct datagram_peer its;
	struct assoc *a = NULL;

	if (kind == DTLS_CID)
		a = find_cid(p, r.cid);
	else if (kind != DTLS_NOTHING)
		a = dtls_find_address(p, from);
	if (kind == DTLS_HELLO && !belongs(a, &r)) {
		if (r.begins)
			knock(p, from, data, &r);
		else
			p->n.stray++;
		return;
	}
	if (kind == DTLS_CID && a == NULL && !steered && r.cid[0] != p->l->w->index &&
	    dtls_steer(p->l, r.cid[0], from, data, bytes)) {
		p->n.steered++;
		return;
	}
	/* RFC 9146 section 3: who has one uses it, once there are keys. */
	if (a == NULL || (kind == DTLS_RECORD && r.sealed && a->by_cid.in && a->settled)) {
		p->n.stray++;
		return;
	}
	its = assoc_peer(a);
	if (datagram_peer_eq(&its, from))
		assoc_take(a, data, bytes);
	else
		assoc_take_moved(a, from, data, bytes);
}

static void port_ready(void *arg, uint32_t events)
{
	static uint8_t
		buf[DTLS_DATAGRAM_BYTES_MAX]; /* one thread, and of no use beyond this call */
	struct dtls_port *p = arg;
	struct datagram_peer from;

	(void)events;
	for (int i = 0; i < DATAGRAMS_A_TURN; i++) {
		ssize_t n = datagram_recv(&p->d, buf, sizeof(buf), &from);

		if (n < 0)
			return;
		datagram_take(p, &from, buf, n, false);
	}
}

void dtls_steered(struct listener *l, const struct datagram_peer *from, const uint8_t *data,
		  size_t bytes)
{
	datagram_take(l->dtls, from, data, bytes, true);
}

/* ---- the listener ---- */

int dtls_listen(struct listener *l, struct err *err)
{
	struct dtls_port *p = calloc(1, sizeof(*p));
	int ret = -ENOMEM;

	if (p == NULL)
		return ret;
	l->dtls = p;
	p->l = l;
	p->d.ready = port_ready;
	p->d.arg = p;
	LIST_INIT(&p->opening);
	LIST_INIT(&p->ripe);
	/* Both doors get a secret at once: a known one, of zeros, would open the second. */
	if (getrandom(p->key, sizeof(p->key), 0) != sizeof(p->key) || secret_turn(p, 0) < 0 ||
	    secret_turn(p, clock_boot_ms()) < 0)
		return -EIO;
	p->key[2] |= 1;
	ret = dtls_table_init(&p->by_address);
	if (ret == 0)
		ret = dtls_table_init(&p->by_cid);
	if (ret == 0)
		ret = transport_udp_listen(l, &p->d, err);
	return ret;
}

/* The doors are of other contexts now, and are made anew when somebody knocks. */
void dtls_take(struct listener *l, struct listener *from)
{
	l->dtls = from->dtls;
	from->dtls = NULL;
	l->dtls->l = l;
}

bool dtls_is_empty(const struct listener *l)
{
	return l->dtls == NULL || (l->dtls->by_address.n == 0 && l->dtls->by_cid.n == 0);
}

void dtls_close(struct listener *l)
{
	struct dtls_port *p = l->dtls;

	if (p == NULL)
		return;
	datagram_close(&p->d);
	for (int i = 0; i < 2; i++)
		door_close(&p->door[i]);
	dtls_table_fini(&p->by_address);
	dtls_table_fini(&p->by_cid);
	explicit_bzero(p, sizeof(*p));
	free(p);
	l->dtls = NULL;
}

static void say(struct dtls_port *p, uint64_t now_ms)
{
	const struct dtls_counters *n = &p->n, *was = &p->said;

	if (now_ms < p->say_ms ||
	    (n->stray == was->stray && n->unmoved == was->unmoved && n->overrun == was->overrun))
		return;
	log_info("datagrams dropped listener=%s of_nobody=%llu from_another_address=%llu "
		 "too_many_waiting=%llu",
		 p->l->cfg->name, (unsigned long long)(n->stray - was->stray),
		 (unsigned long long)(n->unmoved - was->unmoved),
		 (unsigned long long)(n->overrun - was->overrun));
	p->said = *n;
	p->say_ms = now_ms + SAY_EVERY_MS;
}

static void opening_tick(struct assoc *a, uint64_t now_ms)
{
	if (a->c->state != CONN_HANDSHAKE || a->c->ended) {
		LIST_REMOVE(a, opening);
		a->is_opening = false;
		return;
	}
	if (now_ms < a->timer_ms)
		return;
	if (session_dtls_timed_out(a->c->tls) < 0) {
		conn_refused(a->c, SESSION_ALERT_ACCESS_DENIED, "handshake timed out");
		return;
	}
	a->timer_ms = now_ms + session_dtls_timeout_ms(a->c->tls);
	a->c->dev.ready(a->c->dev.arg, STREAM_WRITE);
}

void dtls_tick(struct listener *l, uint64_t now_ms)
{
	struct dtls_port *p = l->dtls;
	struct assoc *a, *next;

	if (p == NULL)
		return;
	for (a = LIST_FIRST(&p->opening); a != NULL; a = next) {
		next = LIST_NEXT(a, opening);
		opening_tick(a, now_ms);
	}
	if (now_ms >= p->secret_ms + DTLS_SECRET_MS && secret_turn(p, now_ms) < 0)
		log_error("listener %s: no randomness for a new cookie secret", l->cfg->name);
	say(p, now_ms);
}

void dtls_turn(struct listener *l)
{
	struct dtls_port *p = l->dtls;
	struct assoc *a;

	if (p == NULL)
		return;
	while ((a = LIST_FIRST(&p->ripe)) != NULL) {
		LIST_REMOVE(a, ripe);
		a->is_ripe = false;
		assoc_work(a);
	}
}
