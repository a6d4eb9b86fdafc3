/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/tls_state.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"

#define EVERY_MS 1000

const struct tls_state *tls_state_of(struct peer *p)
{
	const struct tls_state *s = *peer_data(p);

	return s != NULL && s->at_ms != 0 ? s : NULL;
}

void tls_state_left(struct peer *p)
{
	free(*peer_data(p));
	*peer_data(p) = NULL;
}

/* ---- asking ---- */

struct asked {
	struct agent *a;
	uint64_t instance; /* of the peer, which may have gone */
};

static struct tls_state *state_of(const struct asked *x)
{
	struct peer *p = peers_by_instance(x->a->peers, x->instance);

	return p != NULL ? *peer_data(p) : NULL;
}

static void listener_came(void *arg, const union msg_any *m)
{
	struct tls_state *s = state_of(arg);

	if (s != NULL && s->n_coming < MSG_LISTENERS_MAX &&
	    msg_tls_listener_check(&m->tls_listener))
		s->coming[s->n_coming++] = m->tls_listener;
}

static void all_came(void *arg, const union msg_any *reply)
{
	struct tls_state *s = state_of(arg);

	if (s != NULL)
		s->asked = false;
	if (s != NULL && reply != NULL && reply->h.type == MSG_OK) {
		memcpy(s->list, s->coming, s->n_coming * sizeof(s->list[0]));
		s->n = s->n_coming;
		s->at_ms = clock_boot_ms();
	}
	free(arg);
}

static void ask(struct agent *a, struct peer *p)
{
	struct msg_hdr m = {.type = MSG_TLS_STATE_GET, .bytes = sizeof(m)};
	struct tls_state *s = *peer_data(p);
	struct asked *x;

	if (s == NULL)
		s = *peer_data(p) = calloc(1, sizeof(*s));
	if (s == NULL || s->asked)
		return;
	x = calloc(1, sizeof(*x));
	if (x == NULL)
		return;
	*x = (struct asked){a, peer_instance(p)};
	s->asked = true;
	s->n_coming = 0;
	peer_request_many(p, &m, AGENT_ANSWER_MS, MSG_TLS_LISTENER, listener_came, all_came, x);
}

void tls_state_tick(struct agent *a, uint64_t now_ms)
{
	struct peer *tls[PEERS_MAX];
	uint32_t n;

	if (now_ms < a->tls_state_ms + EVERY_MS)
		return;
	a->tls_state_ms = now_ms;
	n = peers_tls(a->peers, tls, PEERS_MAX);
	for (uint32_t i = 0; i < n; i++)
		ask(a, tls[i]);
}

/* ---- sallyctl ---- */

/* How one listener of the configuration is in one worker, its sessions under other keys included. */
struct found {
	bool there;
	uint32_t sessions, handshakes, leaving;
	const struct msg_tls_listener *m; /* the one that takes devices; NULL: none */
};

static struct found find(const struct tls_state *s, const struct gw_listener *l)
{
	struct found f = {.there = false};

	for (uint32_t i = 0; s != NULL && i < s->n; i++) {
		const struct msg_tls_listener *m = &s->list[i];

		if (m->port != l->port || m->proto != gw_listener_proto(l) ||
		    m->stack != (l->transport == GW_STACK) || !ip_addr_eq(&m->addr, &l->addr))
			continue;
		f.there = true;
		f.sessions += m->sessions;
		f.handshakes += m->handshakes;
		f.leaving += m->left ? m->sessions : 0;
		f.m = m->left ? f.m : m;
	}
	return f;
}

static json_t *worker_row(struct peer *p, const struct found *f)
{
	json_t *o = json_pack("{s:I,s:b,s:I,s:I,s:I}", "worker", (json_int_t)peer_worker(p),
			      "listening", f->m != NULL, "sessions",
			      (json_int_t)(f->sessions - f->handshakes), "handshakes",
			      (json_int_t)f->handshakes, "leaving", (json_int_t)f->leaving);

	for (unsigned c = 0; f->m != NULL && c < TLS_COUNTS; c++) {
		char key[32];

		snprintf(key, sizeof(key), "%s_total", tls_count_name(c));
		json_object_set_new(o, key, json_integer((json_int_t)f->m->count[c]));
	}
	return o;
}

static json_t *listener_row(const struct gw_listener *l, struct peer **tls, uint32_t n)
{
	uint32_t sessions = 0, handshakes = 0, leaving = 0, listening = 0;
	json_t *workers = json_array(), *turned = json_object(), *o;
	uint64_t sum[TLS_COUNTS] = {0};
	char addr[ADDR_TEXT_BYTES];

	for (uint32_t i = 0; i < n; i++) {
		struct found f = find(tls_state_of(tls[i]), l);

		if (!f.there)
			continue;
		sessions += f.sessions;
		handshakes += f.handshakes;
		leaving += f.leaving;
		listening += f.m != NULL;
		for (unsigned c = 0; f.m != NULL && c < TLS_COUNTS; c++)
			sum[c] += f.m->count[c];
		json_array_append_new(workers, worker_row(tls[i], &f));
	}
	for (unsigned c = TLS_OVER_HANDSHAKES; c < TLS_COUNTS; c++)
		json_object_set_new(turned, tls_count_name(c), json_integer((json_int_t)sum[c]));
	o = json_pack("{s:s,s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:I}", "name", l->name, "address",
		      ip_addr_text(&l->addr, addr), "port", l->port, "protocol",
		      l->protocol == GW_DTLS ? "dtls" : "tls", "transport",
		      l->transport == GW_STACK ? "stack" : "socket", "state",
		      l->left == GW_LISTENER_CLOSING ? "closing"
		      : listening > 0		     ? "listening"
						     : "down",
		      "sessions", (json_int_t)(sessions - handshakes), "handshakes",
		      (json_int_t)handshakes, "leaving", (json_int_t)leaving);
	json_object_set_new(o, "begun", json_integer((json_int_t)sum[TLS_BEGUN]));
	json_object_set_new(o, "admitted", json_integer((json_int_t)sum[TLS_SESSIONS]));
	json_object_set_new(o, "refused", json_integer((json_int_t)sum[TLS_REFUSED]));
	json_object_set_new(o, "turned_away", turned);
	json_object_set_new(o, "workers", workers);
	return o;
}

static json_t *workers_list(struct agent *a, struct peer **tls, uint32_t n)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < n; i++) {
		const struct tls_state *s = tls_state_of(tls[i]);
		uint32_t sessions = 0, handshakes = 0, w = peer_worker(tls[i]);
		const char *link = "none";

		for (uint32_t k = 0; s != NULL && k < s->n; k++) {
			sessions += s->list[k].sessions;
			handshakes += s->list[k].handshakes;
		}
		if (a->stats.h.type == MSG_STATS && w < a->stats.n_tls && w < MSG_TLS_WORKERS_MAX)
			link = a->stats.tls[w].present && a->stats.tls[w].link_up ? "up" : "down";
		json_array_append_new(list,
				      json_pack("{s:I,s:I,s:s,s:I,s:I}", "worker", (json_int_t)w,
						"pid", (json_int_t)peer_pid(tls[i]), "link", link,
						"sessions", (json_int_t)(sessions - handshakes),
						"handshakes", (json_int_t)handshakes));
	}
	return list;
}

void api_listeners(struct agent *a, struct api_call *call, json_t *request)
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(a->peers, tls, PEERS_MAX);
	json_t *list = json_array();

	(void)request;
	for (uint32_t i = 0; i < a->cfg->n_listeners; i++) {
		if (a->cfg->listeners[i].left != GW_LISTENER_BEFORE)
			json_array_append_new(list, listener_row(&a->cfg->listeners[i], tls, n));
	}
	api_reply(call,
		  json_pack("{s:o,s:o}", "listeners", list, "workers", workers_list(a, tls, n)));
}

/* ---- upstreams ---- */

struct sum { /* of one upstream, over all workers */
	uint32_t workers, down, sessions;
	uint64_t connected, failed, checks, checks_failed, failed_ms;
	bool checked;
	char why[64];
};

static void sum_add(struct sum *s, const struct msg_tls_upstream *u, bool left)
{
	s->sessions += u->sessions;
	if (left)
		return;
	s->workers++;
	s->down += u->down;
	s->connected += u->connected;
	s->failed += u->failed;
	s->checks += u->checks;
	s->checks_failed += u->checks_failed;
	s->checked |= u->checked;
	if (u->failed_ms <= s->failed_ms)
		return;
	s->failed_ms = u->failed_ms;
	memcpy(s->why, u->why, sizeof(s->why));
}

static void sum_worker(struct sum *sum, const struct tls_state *s, const struct gw_listener *l,
		       const struct gw_upstream *u)
{
	for (uint32_t i = 0; s != NULL && i < s->n; i++) {
		const struct msg_tls_listener *m = &s->list[i];

		if (m->port != l->port || m->proto != gw_listener_proto(l) ||
		    !ip_addr_eq(&m->addr, &l->addr))
			continue;
		for (uint32_t k = 0; k < m->n_upstreams; k++) {
			if (m->upstream[k].port == u->port &&
			    ip_addr_eq(&m->upstream[k].addr, &u->addr))
				sum_add(sum, &m->upstream[k], m->left);
		}
	}
}

static json_t *upstream_row(const struct gw_listener *l, const struct gw_upstream *u,
			    struct peer **tls, uint32_t n)
{
	struct sum s = {.workers = 0};
	char addr[ADDR_TEXT_BYTES], why[sizeof(s.why)];
	json_t *o;

	for (uint32_t i = 0; i < n; i++)
		sum_worker(&s, tls_state_of(tls[i]), l, u);
	log_clean(why, sizeof(why), s.why);
	o = json_pack("{s:s,s:s,s:i,s:s,s:I,s:I,s:I,s:b}", "listener", l->name, "address",
		      ip_addr_text(&u->addr, addr), "port", u->port, "state",
		      l->left != GW_LISTENER_STAYS ? "left"
		      : s.workers == 0		   ? "unknown"
		      : s.down == 0		   ? "up"
		      : s.down == s.workers	   ? "down"
						   : "partly",
		      "workers", (json_int_t)s.workers, "workers_down", (json_int_t)s.down,
		      "connections", (json_int_t)s.sessions, "checked", s.checked);
	json_object_set_new(o, "connected", json_integer((json_int_t)s.connected));
	json_object_set_new(o, "failed", json_integer((json_int_t)s.failed));
	json_object_set_new(o, "checks", json_integer((json_int_t)s.checks));
	json_object_set_new(o, "checks_failed", json_integer((json_int_t)s.checks_failed));
	json_object_set_new(o, "last_error", s.failed_ms != 0 ? json_string(why) : json_null());
	json_object_set_new(
		o, "last_error_age_s",
		s.failed_ms != 0 ? json_integer((json_int_t)(clock_boot_ms() - s.failed_ms) / 1000)
				 : json_null());
	return o;
}

void api_upstreams(struct agent *a, struct api_call *call, json_t *request)
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(a->peers, tls, PEERS_MAX);
	json_t *list = json_array();

	(void)request;
	for (uint32_t i = 0; i < a->cfg->n_listeners; i++) {
		const struct gw_listener *l = &a->cfg->listeners[i];

		for (uint32_t k = 0; k < l->n_upstreams; k++)
			json_array_append_new(list, upstream_row(l, &l->upstreams[k], tls, n));
	}
	api_reply(call, json_pack("{s:o}", "upstreams", list));
}
