/* SPDX-License-Identifier: GPL-3.0-or-later */
/* agent: the worker's end of config/base/msg.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/clock_near.h"
#include "tls-proxy/worker.h"

#define QUEUE_MAX                                                                                  \
	262144u /* messages; then it is an agent that does not read: begin anew, with everything announced again */
#define END_HOLD_US 2000 /* the end of a session waits so long for company */
/* One who asks to be let in waits so long for others in a handshake, who may soon ask too. */
#define ADMIT_HOLD_US 300
#define RETRY_FIRST_MS 50
#define RETRY_MOST_MS 1000

struct agent_queued {
	STAILQ_ENTRY(agent_queued) next;
	char bytes[]; /* a message */
};

static void queue_pop(struct worker *w)
{
	struct agent_queued *q = STAILQ_FIRST(&w->agent_queue);

	STAILQ_REMOVE_HEAD(&w->agent_queue, next);
	w->agent_queued--;
	free(q);
}

static void queue_drop(struct worker *w)
{
	while (w->agent_queued > 0)
		queue_pop(w);
}

/* Touches no conn: some caller may be walking them. */
static void agent_lost(struct worker *w, const char *why)
{
	if (w->agent_up)
		log_warn("agent lost: %s; sessions go on under their expiries, nobody new gets in",
			 why);
	source_close(w, &w->agent);
	queue_drop(w);
	w->agent_blocked = false;
	w->agent_up = false;
	w->agent_lost = true;
	w->agent_retry_ms = clock_boot_ms() + RETRY_FIRST_MS;
}

/* Whoever waited for its answer will not get one. */
static void waiting_refuse(struct worker *w)
{
	struct conn *c, *next;

	for (c = LIST_FIRST(&w->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (c->state == CONN_ADMIT)
			conn_refused(c, SESSION_ALERT_INTERNAL_ERROR, "the agent is not there");
	}
	w->agent_lost = false;
	reload_abort(w);
}

/* Thousands of sessions that end at once are more than the socket takes at once. */
static int queue_put(struct worker *w, const struct msg_hdr *h)
{
	struct agent_queued *q = w->agent_queued < QUEUE_MAX ? malloc(sizeof(*q) + h->bytes) : NULL;

	if (q == NULL)
		return -ENOBUFS;
	if (w->agent_queued == 0)
		STAILQ_INIT(&w->agent_queue);
	memcpy(q->bytes, h, h->bytes);
	STAILQ_INSERT_TAIL(&w->agent_queue, q, next);
	w->agent_queued++;
	return 0;
}

static void blocked_set(struct worker *w, bool blocked)
{
	if (w->agent_blocked != blocked)
		source_set(w, &w->agent, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
	w->agent_blocked = blocked;
}

/* @return 0, or -errno: the agent is lost */
static int queue_flush(struct worker *w)
{
	while (w->agent_queued > 0) {
		const void *msgs[MSG_MANY];
		struct agent_queued *q;
		unsigned n = 0;
		int ret;

		STAILQ_FOREACH(q, &w->agent_queue, next) {
			if (n == w->agent_queued || n == MSG_MANY)
				break;
			msgs[n++] = q->bytes;
		}
		ret = msg_send_many(w->agent.fd, msgs, n);
		if (ret == -EAGAIN)
			blocked_set(w, true);
		if (ret < 0)
			return ret == -EAGAIN ? 0 : ret;
		while (ret-- > 0)
			queue_pop(w);
	}
	blocked_set(w, false);
	return 0;
}

/* Each message by itself wakes the agent up, which costs more than to send it: what can wait so long goes out together.
 * @param urgent  somebody waits for the answer: no longer than there are handshakes to go on with */
static int agent_send_within(struct worker *w, const void *m, uint32_t hold_us, bool urgent)
{
	uint64_t due_us = clock_near_us() + hold_us;
	int ret;

	if (!w->agent_up)
		return -ENOTCONN;
	if (w->agent_queued == 0) {
		w->agent_due_us = due_us;
		w->agent_urgent = false;
	}
	if (due_us < w->agent_due_us)
		w->agent_due_us = due_us;
	w->agent_urgent |= urgent;
	ret = queue_put(w, m);
	if (ret < 0)
		agent_lost(w, strerror(-ret));
	return ret;
}

/* Behind what waits, which goes with it. */
static int agent_send(struct worker *w, const void *m)
{
	int ret = w->agent_queued == 0 && w->agent_up ? msg_send(w->agent.fd, m, -1) : -EAGAIN;

	if (ret == -EAGAIN)
		ret = agent_send_within(w, m, 0, true);
	if (ret == 0 && w->agent_queued > 0 && !w->agent_blocked)
		ret = queue_flush(w);
	if (ret < 0 && w->agent_up)
		agent_lost(w, strerror(-ret));
	return ret;
}

static bool is_due(const struct worker *w, uint64_t now_us)
{
	return now_us >= w->agent_due_us || (w->agent_urgent && TAILQ_EMPTY(&w->shaking));
}

void agent_post(struct worker *w, uint64_t now_us)
{
	int ret;

	if (w->agent_queued == 0 || w->agent_blocked || !is_due(w, now_us))
		return;
	ret = queue_flush(w);
	if (ret < 0)
		agent_lost(w, strerror(-ret));
}

uint64_t agent_rests(const struct worker *w, uint64_t now_us, uint64_t wait_ms)
{
	uint64_t left_ms;

	if (w->agent_queued == 0 || w->agent_blocked)
		return wait_ms;
	left_ms = is_due(w, now_us) ? 0 : (w->agent_due_us - now_us + 999) / 1000;
	return wait_ms < left_ms ? wait_ms : left_ms;
}

int agent_tell(struct worker *w, const void *m)
{
	return agent_send(w, m);
}

bool agent_backlog(const struct worker *w)
{
	return w->agent_queued > 0;
}

void agent_fini(struct worker *w)
{
	queue_drop(w);
	source_close(w, &w->agent);
}

static int welcome(struct worker *w, const struct msg_welcome *m)
{
	struct trust_table t = {0};
	struct err err = {""};
	bool other;
	struct conn *c;

	if (m->version != MSG_VERSION ||
	    memchr(m->trust_path, '\0', sizeof(m->trust_path)) == NULL) {
		log_error("the agent speaks version %u, this is %u", m->version, MSG_VERSION);
		return -EPROTO;
	}
	if (trust_map(&t, m->trust_path, &err) < 0) {
		log_error("trust table: %s", err.msg);
		return -EPROTO;
	}
	other = w->trust.hdr == NULL || w->trust.hdr->instance != t.hdr->instance;
	trust_unmap(&w->trust);
	w->trust = t;
	w->journal_seen = atomic_load(&t.hdr->journal_head);
	w->agent_up = true;
	w->agent_wait_ms = RETRY_FIRST_MS;
	log_info("agent joined");
	LIST_FOREACH(c, &w->conns, next) {
		if (other) {
			/* Of a table that is gone: current only once admitted again. */
			c->generation = 0;
			conn_slot_set(c, c->slot < w->trust.slots ? c->slot : 0);
			conn_wake(c);
		}
		if (c->admitted && c->state != CONN_CLOSING && w->agent_up)
			agent_admit(c, true);
	}
	return 0;
}

/* It counts a session that ended here while it was being admitted. */
static int unwanted(struct worker *w, const struct msg_admitted *a)
{
	struct msg_session_closed m = {
		.session = a->session, .slot = a->slot, .reason = "ended before it was admitted"};

	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	return a->slot != 0 ? agent_send(w, &m) : 0;
}

static int recheck(struct worker *w, const struct msg_recheck *m)
{
	struct msg_recheck out = *m;

	conns_recheck(w, m->slot, clock_boot_ms());
	out.closed = conns_ended(w, m->slot, clock_boot_ms());
	out.h.type = MSG_RECHECKED;
	return agent_send(w, &out);
}

/* To what agent_reload() asked for. */
static int reload_answered(const struct msg_result *m)
{
	if (memchr(m->text, '\0', sizeof(m->text)) == NULL)
		return -EPROTO;
	if (m->h.type == MSG_ERROR)
		log_error("reload, everything stays as it was: %s", m->text);
	return 0;
}

int agent_reload(struct worker *w)
{
	struct msg_reload m = {.listeners = 0};

	MSG_INIT(&m, MSG_RELOAD_WANTED, 1);
	return agent_send(w, &m);
}

void agent_reload_done(struct worker *w, uint64_t seq, int code, const char *text)
{
	struct msg_result m = {.code = code};

	MSG_INIT(&m, code == 0 ? MSG_OK : MSG_ERROR, seq);
	snprintf(m.text, sizeof(m.text), "%s", text);
	agent_send(w, &m);
}

static int agent_message(struct worker *w, const union msg_any *m)
{
	const struct msg_admitted *a;
	struct conn *c;

	if (!w->agent_up)
		return m->h.type == MSG_WELCOME ? welcome(w, (const struct msg_welcome *)m)
						: -EPROTO;
	switch (m->h.type) {
	case MSG_ADMITTED:
		a = (const struct msg_admitted *)m;
		if (memchr(a->reason, '\0', sizeof(a->reason)) == NULL ||
		    memchr(a->segment_name, '\0', sizeof(a->segment_name)) == NULL ||
		    a->slot >= w->trust.slots)
			return -EPROTO;
		c = conn_by_id(w, a->session);
		return c != NULL && conn_admitted(c, a) ? 0 : unwanted(w, a);
	case MSG_RELOAD_PREPARE:
	case MSG_RELOAD_COMMIT:
	case MSG_RELOAD_ABORT:
		w->reload_ask =
			*(const struct msg_reload *)m; /* listeners go at the end of the turn */
		return 0;
	case MSG_OK:
	case MSG_ERROR:
		return reload_answered(&m->result);
	case MSG_TLS_STATE_GET:
		report_send(w, m->h.seq);
		return 0;
	case MSG_RECHECK:
		return recheck(w, (const struct msg_recheck *)m);
	default:
		return -EPROTO;
	}
}

static void agent_ready(void *arg, uint32_t events)
{
	struct worker *w = arg;
	union msg_any m;
	int ret = (events & EPOLLOUT) ? queue_flush(w) : 0;

	if (ret < 0)
		agent_lost(w, strerror(-ret));
	for (int i = 0; i < 256 && w->agent.fd >= 0; i++) {
		ssize_t n = msg_recv(w->agent.fd, &m, NULL);

		if (n == -EAGAIN)
			return;
		if (n > 0 && agent_message(w, &m) >= 0)
			continue;
		agent_lost(w, n == 0 ? "closed" : n < 0 ? strerror(-n) : "protocol error");
		return;
	}
}

void agent_tick(struct worker *w, uint64_t now_ms)
{
	struct msg_hello m = {.version = MSG_VERSION,
			      .role = MSG_ROLE_TLS,
			      .pid = getpid(),
			      .worker = w->index,
			      .instance = w->instance,
			      .listeners = w->listeners_hash};
	char path[MSG_PATH_BYTES];
	int fd;

	if (w->agent_lost)
		waiting_refuse(w);
	if (w->agent.fd >= 0 || now_ms < w->agent_retry_ms)
		return;
	if (w->agent_wait_ms < RETRY_MOST_MS)
		w->agent_wait_ms = w->agent_wait_ms == 0 ? RETRY_FIRST_MS : w->agent_wait_ms * 2;
	w->agent_retry_ms = now_ms + w->agent_wait_ms;
	fd = msg_connect(gw_run_path(w->cfg, "agent.sock", path));
	if (fd < 0) {
		log_debug("agent: %s: %s", path, strerror(-fd));
		return;
	}
	w->agent = (struct source){.fd = fd, .ready = agent_ready, .arg = w};
	MSG_INIT(&m, MSG_HELLO, 0);
	if (source_add(w, &w->agent, EPOLLIN) < 0 || msg_send(fd, &m, -1) < 0)
		agent_lost(w, "cannot greet");
}

int agent_admit(struct conn *c, bool again)
{
	const struct identity *id = session_identity(c->tls);
	struct msg_admit m = {.session = c->id,
			      .not_before_s = id->not_before_s,
			      .not_after_s = id->not_after_s,
			      .crl_next_update_s = c->l->ctx.crl_next_update_s,
			      .serial_bytes = id->serial_bytes,
			      .identity_kind = id->kind,
			      .readmit = again,
			      .upstreams = c->l->upstreams};

	MSG_INIT(&m, MSG_ADMIT, 0);
	m.flow = (struct flow_key){.src = c->peer,
				   .dst = c->l->cfg->addr,
				   .sport = c->peer_port,
				   .dport = c->l->cfg->port,
				   .proto = gw_listener_proto(c->l->cfg)};
	memcpy(m.cert_sha256, id->cert_sha256, sizeof(m.cert_sha256));
	memcpy(m.issuer_sha256, id->issuer_sha256, sizeof(m.issuer_sha256));
	memcpy(m.serial, id->serial, sizeof(m.serial));
	memcpy(m.identity, id->name, sizeof(m.identity));
	return agent_send_within(c->w, &m, ADMIT_HOLD_US, true);
}

void agent_closed(struct conn *c)
{
	struct msg_session_closed m = {.session = c->id,
				       .slot = c->slot,
				       .cert_revoked = c->cert_revoked,
				       .bytes_up = c->bytes_up,
				       .bytes_down = c->bytes_down};

	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	snprintf(m.reason, sizeof(m.reason), "%.63s", c->reason);
	agent_send_within(c->w, &m, END_HOLD_US, false);
}

void agent_moved(struct conn *c)
{
	struct msg_session_closed m = {.session = c->moved_from,
				       .slot = c->slot,
				       .moved = 1,
				       .bytes_up = c->bytes_up,
				       .bytes_down = c->bytes_down,
				       .reason = "speaks from another address now"};

	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	c->moved_from = 0;
	c->bytes_up = c->bytes_down = 0;
	agent_send(c->w, &m);
}

void agent_refused(struct worker *w, const struct conn *c, const char *reason, uint32_t n)
{
	const struct identity *id = c != NULL ? session_identity(c->tls) : NULL;
	struct msg_handshake_refused m = {.n = n};

	MSG_INIT(&m, MSG_HANDSHAKE_REFUSED, 0);
	if (c != NULL) {
		m.peer = c->peer;
		m.peer_port = c->peer_port;
		m.listener = c->l->index;
	}
	snprintf(m.reason, sizeof(m.reason), "%.127s", reason);
	if (id != NULL)
		memcpy(m.identity, id->name, sizeof(m.identity));
	agent_send(w, &m);
}
