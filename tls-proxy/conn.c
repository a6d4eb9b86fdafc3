/* SPDX-License-Identifier: GPL-3.0-or-later */
/* conn: a device's session from accept to close; relay.c moves its bytes.
 *   HANDSHAKE > ADMIT > CONNECT > RELAY > CLOSING        ADMIT > HELD > CLOSING
 * Before plaintext moves, in either direction, the device's trust record is asked (one cache line). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/worker.h"

#define ADMIT_MS 5000
#define LINGER_MS 2000 /* an alert that nobody takes */

static const char handshake_closed[] = "connection closed in the handshake";

void conn_log(const struct conn *c, const char *what, const char *reason)
{
	const struct identity *id = session_identity(c->tls);
	char peer[ADDR_TEXT_BYTES];

	log_info("%s listener=%s peer=%s port=%u device=%s why=\"%s\"", what, c->l->cfg->name,
		 ip_addr_text(&c->peer, peer), c->peer_port, id != NULL ? id->name : "-", reason);
}

static void conn_free(struct conn *c)
{
	session_free(c->tls);
	session_free(c->up_tls);
	assoc_free(c->assoc);
	buffer_drop(&c->to_up);
	buffer_drop(&c->to_dev);
	explicit_bzero(c, sizeof(*c));
	free(c);
}

static void handshake_over(struct conn *c)
{
	c->l->handshakes--;
	if (c->limited)
		limit_give(c->l->limit, &c->peer);
	c->limited = false;
}

/* Off the books at once; the memory goes at the end of the turn, for events that name it may still be under way. */
void conn_end(struct conn *c)
{
	if (c->ended)
		return;
	c->ended = true;
	if (c->state == CONN_HANDSHAKE)
		handshake_over(c);
	if (c->moved_from != 0)
		agent_moved(c); /* of where it is now, the agent has not answered yet */
	else if (c->admitted)
		agent_closed(c);
	c->admitted = false;
	stream_close(&c->dev);
	stream_close(&c->up);
	conns_remove(c);
	if (c->up_counted)
		upstream_left(c->l, c->upstream);
	c->l->sessions--;
}

void conn_lost(struct conn *c)
{
	if (c->state != CONN_CLOSING)
		snprintf(c->reason, sizeof(c->reason), "device closed the connection");
	stream_reset(&c->up);
	conn_end(c);
}

void conns_reap(struct worker *w)
{
	struct conn *c;

	while ((c = LIST_FIRST(&w->dead)) != NULL) {
		LIST_REMOVE(c, next);
		c->w->freed++;
		conn_free(c);
	}
}

static void device_ready(void *arg, uint32_t events);
static void upstream_ready(void *arg, uint32_t events);

/* What comes from one end goes to the other. */
static void sessions_fetch(const struct conn *c, bool of_device, int step)
{
	session_fetch(c->tls, of_device, step);
	if (c->up_tls != NULL)
		session_fetch(c->up_tls, !of_device, step);
}

void conn_fetch(const struct stream *s, int step)
{
	const struct conn *c = s->arg;

	if (s->ready != device_ready && s->ready != upstream_ready)
		return;
	if (step == 0) {
		for (size_t at = 0; at < sizeof(*c); at += 64)
			__builtin_prefetch((const char *)c + at);
		return;
	}
	if (c->state != CONN_RELAY || c->assoc != NULL)
		return;
	if (step == 1) {
		stack_fetch(s == &c->dev ? &c->up : &c->dev);
		__builtin_prefetch(&c->w->trust.rec[c->slot]);
	}
	if (step - 1 < SESSION_FETCH_STEPS)
		sessions_fetch(c, s == &c->dev, step - 1);
}

static void device_ready(void *arg, uint32_t events)
{
	struct conn *c = arg;

	if (c->ended)
		return;
	if (c->state == CONN_CLOSING && (events & STREAM_GONE)) {
		conn_end(c);
		return;
	}
	c->dev_may = true;
	/* A datagram is there now or never. */
	if (c->state == CONN_HANDSHAKE && c->assoc == NULL) {
		handshake_wait(c);
		return;
	}
	conn_work(c);
	/* Its last bytes go on as far as that is possible at once, and nobody waits for more. */
	if ((events & STREAM_LOST) && !c->ended)
		conn_lost(c);
}

static void upstream_ready(void *arg, uint32_t events)
{
	struct conn *c = arg;

	if (c->ended)
		return;
	c->up_may = true;
	/* No more wanted from it, and told this once. */
	if ((events & STREAM_LOST) && c->state == CONN_RELAY && c->assoc == NULL)
		c->up_lost = true;
	conn_work(c);
}

bool conn_backlog(struct conn *c)
{
	size_t out;

	session_output(c->tls, &out);
	return out > 0 || stream_unsent(&c->dev);
}

struct stream *conn_device(struct conn *c)
{
	return &c->dev;
}

struct conn *conn_start(struct listener *l, const struct ip_addr *peer, uint16_t peer_port)
{
	struct session *tls = NULL;
	struct conn *c;

	if (!listener_admits(l, peer))
		return NULL;
	if (session_new(&tls, &l->ctx) == 0 &&
	    (c = conn_start_with(l, peer, peer_port, tls)) != NULL) {
		c->limited = l->limit != NULL;
		return c;
	}
	if (l->limit != NULL)
		limit_give(l->limit, peer);
	session_free(tls);
	log_error("connection refused listener=%s: out of memory", l->cfg->name);
	return NULL;
}

struct conn *conn_start_with(struct listener *l, const struct ip_addr *peer, uint16_t peer_port,
			     struct session *tls)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->tls = tls;
	c->l = l;
	c->w = l->w;
	c->peer = *peer;
	c->peer_port = peer_port;
	c->dev.ready = device_ready;
	c->up.ready = upstream_ready;
	c->dev.arg = c->up.arg = c;
	c->to_up.capacity = c->to_dev.capacity = RELAY_BYTES;
	c->active_ms = c->begun_ms = clock_boot_ms();
	c->deadline_ms = c->active_ms + l->cfg->handshake_timeout_s * 1000ull;
	l->handshakes++;
	l->sessions++;
	l->count[TLS_BEGUN]++;
	conns_add(c);
	conn_wake(c);
	return c;
}

bool conn_current(const struct conn *c, uint64_t now_ms)
{
	return c->slot != 0 && now_ms < c->expires_ms &&
	       trust_current(&c->w->trust.rec[c->slot], c->generation, now_ms);
}

/* The upstream goes at once: what it still wanted to say is not for this device any more. What it has not got yet of the
 * device's is missing: that is no regular end. */
static void upstream_leave(struct conn *c, bool regular)
{
	if (!stream_is_open(&c->up))
		return;
	if (!regular || buffer_waiting(&c->to_up) > 0) {
		stream_reset(&c->up);
		return;
	}
	if (c->up_tls != NULL) {
		session_close_notify(c->up_tls);
		wire_send(&c->up, c->up_tls);
	}
	stream_close(&c->up);
}

void conn_close(struct conn *c, enum session_alert alert, const char *reason)
{
	if (c->state == CONN_CLOSING)
		return;
	snprintf(c->reason, sizeof(c->reason), "%.63s", reason);
	handshake_leave(c);
	if (c->state == CONN_HANDSHAKE)
		handshake_over(c);
	if (alert == 0)
		session_close_notify(c->tls);
	else
		session_abort(c->tls, alert);
	upstream_leave(c, alert == 0);
	c->state = CONN_CLOSING;
	c->deadline_ms = clock_boot_ms() + LINGER_MS;
	conn_wake(c);
	conn_work(c);
}

/* Say which way, and deliver nothing more in either direction. An alert could only follow the records that wait for a
 * slow reader: rather no alert than these. */
static void conn_cut(struct conn *c, enum session_alert alert, const char *reason)
{
	if (c->state == CONN_CLOSING)
		return;
	conns_note_ended(c->w, c->slot);
	stream_reset(&c->up);
	if (conn_backlog(c)) {
		stream_reset(&c->dev);
		snprintf(c->reason, sizeof(c->reason), "%.63s", reason);
		conn_end(c);
		return;
	}
	conn_close(c, alert, reason);
}

void conn_revoked(struct conn *c)
{
	uint64_t now_ms = clock_boot_ms();
	struct trust_view v = {0};
	bool known = trust_read(&c->w->trust, c->slot, &v);

	if (known && v.standing == STANDING_REVOKED)
		conn_cut(c, SESSION_ALERT_CERTIFICATE_REVOKED, "revoked");
	else if (now_ms >= c->expires_ms || (known && v.generation == c->generation))
		conn_cut(c, SESSION_ALERT_CERTIFICATE_EXPIRED, "standing expired");
	else
		conn_cut(c, SESSION_ALERT_ACCESS_DENIED, "standing changed");
}

void conn_refused(struct conn *c, enum session_alert alert, const char *reason)
{
	refusal_tell(c, reason);
	c->l->count[TLS_REFUSED]++;
	conn_close(c, alert, reason);
}

static void handshake_work(struct conn *c)
{
	char reason[128];

	switch (session_step(c->tls)) {
	case SESSION_HANDSHAKE:
		return;
	case SESSION_OPEN:
		handshake_over(c);
		c->state = CONN_ADMIT;
		/* Lists may have been read again since it began. */
		if (session_reverify(c->tls, &listener_now(c->l)->ctx) < 0) {
			conn_refused(c, SESSION_ALERT_CERTIFICATE_REVOKED,
				     "certificate revoked (CRL)");
			return;
		}
		c->deadline_ms = clock_boot_ms() + ADMIT_MS;
		conn_wake(c);
		if (agent_admit(c, false) < 0)
			conn_refused(c, SESSION_ALERT_INTERNAL_ERROR, "the agent is not there");
		return;
	case SESSION_FAILED:
		snprintf(reason, sizeof(reason), "%s", session_reason(c->tls));
		conn_refused(c, SESSION_ALERT_ACCESS_DENIED, reason);
		return;
	}
}

/* Announced again after the agent was away: it goes on only as what it was. */
static void conn_readmitted(struct conn *c, const struct msg_admitted *m)
{
	if (m->slot == 0) {
		c->admitted = false; /* the agent does not count it */
		conn_cut(c, SESSION_ALERT_ACCESS_DENIED, m->reason);
		return;
	}
	/* The upstream was told segment and standing at the beginning. */
	if ((c->state == CONN_HELD ? m->relay != 0 : !(m->relay & 1u << c->upstream)) ||
	    c->standing != m->standing || strcmp(c->segment, m->segment_name) != 0) {
		conn_cut(c, SESSION_ALERT_ACCESS_DENIED, "standing changed");
		return;
	}
	conn_slot_set(c, m->slot);
	c->generation = m->generation;
	c->expires_ms = m->expires_ms;
	conn_wake(c);
}

/* RFC 9146 section 6. Whoever holds the old address may be anybody by now, and the new one is not bound. */
void conn_moved(struct conn *c, const struct ip_addr *peer, uint16_t peer_port, ssize_t got)
{
	char from[ADDR_TEXT_BYTES], to[ADDR_TEXT_BYTES];

	log_info("session moves listener=%s device=%s from=%s port=%u to=%s port=%u",
		 c->l->cfg->name, session_identity(c->tls)->name, ip_addr_text(&c->peer, from),
		 c->peer_port, ip_addr_text(peer, to), peer_port);
	c->peer = *peer;
	c->peer_port = peer_port;
	if (got == 0) {
		conn_close(c, 0, "closed");
		return;
	}
	if (got > 0 && c->state == CONN_HELD) {
		conn_close(c, SESSION_ALERT_ACCESS_DENIED,
			   "its segment may not reach the upstream");
		return;
	}
	if (c->admitted)
		c->moved_from = c->id;
	c->moved_state = c->state;
	conn_number_set(c);
	c->state = CONN_ADMIT;
	c->deadline_ms = clock_boot_ms() + ADMIT_MS;
	conn_wake(c);
	stream_want(&c->up, 0);
	if (agent_admit(c, false) < 0)
		conn_refused(c, SESSION_ALERT_INTERNAL_ERROR, "the agent is not there");
	else
		conn_work(c);
}

static void moved_admitted(struct conn *c, const struct msg_admitted *m)
{
	agent_moved(c);
	if (m->slot == 0) {
		c->admitted = false;
		conn_refused(c, SESSION_ALERT_ACCESS_DENIED, m->reason);
		return;
	}
	c->state = c->moved_state;
	c->active_ms = clock_boot_ms();
	conn_readmitted(c, m);
	if (c->state == CONN_RELAY && assoc_header(c->assoc) < 0) {
		conn_close(c, SESSION_ALERT_INTERNAL_ERROR, "PROXY header: no room");
		return;
	}
	if (c->state == c->moved_state && !c->ended)
		conn_work(c);
}

bool conn_admitted(struct conn *c, const struct msg_admitted *m)
{
	if (c->moved_from != 0 && c->state == CONN_ADMIT) {
		moved_admitted(c, m);
		return true;
	}
	if (c->admitted) {
		conn_readmitted(c, m);
		return true;
	}
	if (c->state != CONN_ADMIT)
		return false;
	if (m->slot == 0) {
		conn_refused(c, SESSION_ALERT_ACCESS_DENIED, m->reason);
		return true;
	}
	conn_slot_set(c, m->slot);
	c->generation = m->generation;
	c->expires_ms = m->expires_ms;
	c->standing = m->standing;
	memcpy(c->segment, m->segment_name, sizeof(c->segment));
	c->admitted = true;
	c->l->count[TLS_SESSIONS]++;
	c->active_ms = clock_boot_ms();
	log_info("session begins listener=%s device=%s segment=%s standing=%s tls=%s cipher=%s "
		 "group=%s resumed=%d id=%016llx-%llx",
		 c->l->cfg->name, session_identity(c->tls)->name, c->segment,
		 standing_name(c->standing), session_version(c->tls), session_cipher(c->tls),
		 session_group(c->tls), session_resumed(c->tls), (unsigned long long)c->w->instance,
		 (unsigned long long)c->id);
	session_ticket_give(c->tls);
	c->relay = m->relay;
	if (c->relay == 0) {
		c->state = CONN_HELD;
		conn_wake(c);
		conn_work(c);
	} else {
		connect_begin(c);
	}
	return true;
}

/* No upstream for its segment. The session keeps the device bound; data has nowhere to go. */
static void held_work(struct conn *c)
{
	uint8_t buf[256];
	ssize_t n;

	if (!conn_current(c, clock_boot_ms())) {
		conn_revoked(c);
		return;
	}
	if (!wire_receive(&c->dev, c->tls, &c->dev_may)) {
		conn_close(c, 0, "device closed the connection");
		return;
	}
	n = session_read(c->tls, buf, sizeof(buf));
	if (n > 0)
		conn_close(c, SESSION_ALERT_ACCESS_DENIED,
			   "its segment may not reach the upstream");
	else if (n == 0)
		conn_close(c, 0, "closed");
	else if (n == -EPROTO)
		conn_close(c, 0, session_reason(c->tls));
}

static void closing_work(struct conn *c)
{
	size_t n;

	if (!wire_send(&c->dev, c->tls)) {
		conn_end(c);
		return;
	}
	session_output(c->tls, &n);
	if (n > 0) {
		stream_want(&c->dev, STREAM_WRITE);
		return;
	}
	/* Closing with unread bytes would reset the connection, and the alert would be lost: shut, and wait for the peer. */
	if (!c->tcp_shut)
		stream_shut(&c->dev);
	c->tcp_shut = true;
	stream_want(&c->dev, STREAM_READ);
	for (int i = 0; i < 16; i++) {
		uint8_t buf[4096];
		ssize_t got = stream_recv(&c->dev, buf, sizeof(buf));

		if (got == -EAGAIN)
			return;
		if (got <= 0) {
			conn_end(c);
			return;
		}
	}
}

/* Is anything wanted from the device? While its session cannot answer what it has, it takes no more. */
static bool reads(const struct conn *c)
{
	return c->state != CONN_ADMIT && (c->state != CONN_HELD || !session_may_read(c->tls));
}

void conn_work(struct conn *c)
{
	size_t out;

	switch (c->state) {
	case CONN_HANDSHAKE:
		if (!wire_receive(&c->dev, c->tls, &c->dev_may)) {
			conn_refused(c, SESSION_ALERT_ACCESS_DENIED, handshake_closed);
			return;
		}
		handshake_work(c);
		break;
	case CONN_ADMIT:
		break;
	case CONN_CONNECT:
		connect_work(c);
		return;
	case CONN_RELAY:
		relay_work(c);
		return;
	case CONN_HELD:
		held_work(c);
		break;
	case CONN_CLOSING:
		closing_work(c);
		return;
	}
	if (c->state == CONN_CLOSING || c->ended)
		return;
	if (!wire_send(&c->dev, c->tls)) {
		if (c->state == CONN_HANDSHAKE)
			conn_refused(c, SESSION_ALERT_ACCESS_DENIED, handshake_closed);
		else
			conn_close(c, SESSION_ALERT_ACCESS_DENIED, "device closed the connection");
		return;
	}
	session_output(c->tls, &out);
	stream_want(&c->dev, (reads(c) ? STREAM_READ : 0u) | (out > 0 ? STREAM_WRITE : 0u));
	if (c->state == CONN_HELD && out == 0 && session_may_read(c->tls))
		conn_again(c);
}

void conn_active(struct conn *c, uint64_t now_ms)
{
	c->active_ms = now_ms;
	if (!c->trimmed)
		return;
	c->trimmed = false;
	conn_wake(c);
}

/* When is it silent for too long? */
static uint64_t idle_at(const struct conn *c)
{
	uint32_t s = c->l->cfg->idle_timeout_s;

	if ((c->dev_eof || c->up_eof || c->up_lost) && c->l->cfg->half_closed_timeout_s < s)
		s = c->l->cfg->half_closed_timeout_s;
	return c->active_ms + s * 1000ull;
}

/* When must the device prove itself anew? */
static uint64_t old_at(const struct conn *c)
{
	uint32_t s = c->l->cfg->max_session_s;

	return s == 0 ? UINT64_MAX : c->begun_ms + s * 1000ull;
}

static uint64_t expires_at(const struct conn *c)
{
	uint64_t record = c->slot == 0 ? 0
				       : atomic_load_explicit(&c->w->trust.rec[c->slot].expires_ms,
							      memory_order_acquire);

	return record < c->expires_ms ? record : c->expires_ms;
}

void conn_wake(struct conn *c)
{
	uint64_t at_ms = c->deadline_ms;

	if (c->state == CONN_RELAY || c->state == CONN_HELD) {
		uint64_t expires_ms = expires_at(c);

		at_ms = c->trimmed ? idle_at(c) : c->active_ms + QUIET_MS;
		if (idle_at(c) < at_ms)
			at_ms = idle_at(c);
		if (expires_ms < at_ms)
			at_ms = expires_ms;
		if (old_at(c) < at_ms)
			at_ms = old_at(c);
	}
	conn_wake_at(c, at_ms);
}

/* What still holds bytes keeps its memory until they have moved on: conn_active() comes then. */
static void conn_trim(struct conn *c)
{
	session_trim(c->tls);
	if (c->up_tls != NULL)
		session_trim(c->up_tls);
	buffer_trim(&c->to_up);
	buffer_trim(&c->to_dev);
	c->trimmed = true;
}

static void quiet_due(struct conn *c, uint64_t now_ms)
{
	if (!conn_current(c, now_ms))
		conn_revoked(c);
	else if (now_ms >= old_at(c))
		conn_close(c, 0, "as old as a session may be");
	else if (now_ms >= idle_at(c))
		conn_close(c, 0,
			   c->dev_eof || c->up_eof || c->up_lost ? "half-closed and idle" : "idle");
	else if (now_ms >= c->active_ms + QUIET_MS)
		conn_trim(c);
}

void conn_due(struct conn *c, uint64_t now_ms)
{
	switch (c->state) {
	case CONN_HANDSHAKE:
		if (now_ms >= c->deadline_ms)
			conn_refused(c, SESSION_ALERT_ACCESS_DENIED, "handshake timed out");
		break;
	case CONN_ADMIT:
		if (now_ms >= c->deadline_ms)
			conn_refused(c, SESSION_ALERT_INTERNAL_ERROR, "the agent does not answer");
		break;
	case CONN_CONNECT:
		if (now_ms >= c->deadline_ms)
			connect_late(c);
		break;
	case CONN_RELAY:
	case CONN_HELD:
		quiet_due(c, now_ms);
		break;
	case CONN_CLOSING:
		if (now_ms >= c->deadline_ms)
			conn_end(c);
		break;
	}
	if (!c->ended)
		conn_wake(c);
}

bool conn_reverify(struct conn *c)
{
	if (c->state == CONN_HANDSHAKE)
		return false; /* handshake_work() asks */
	if (session_reverify(c->tls, &listener_now(c->l)->ctx) == 0)
		return false;
	if (c->state == CONN_ADMIT && !c->admitted) {
		conn_refused(c, SESSION_ALERT_CERTIFICATE_REVOKED, "certificate revoked (CRL)");
		return false;
	}
	conn_log(c, "session cut", "its certificate does not pass the new revocation lists");
	c->cert_revoked = true;
	conn_cut(c, SESSION_ALERT_CERTIFICATE_REVOKED, "revoked (CRL)");
	return true;
}
