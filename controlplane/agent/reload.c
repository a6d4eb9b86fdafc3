/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "config/listeners.h"
#include "config/schema.h"
#include "controlplane/agent/api_ports.h"
#include "controlplane/agent/listeners.h"

#define PREPARE_MS 15000 /* revocation lists of some megabytes */
#define CHANGE_MS 10000
#define EXPIRE_MS 1000

struct reload_waiter { /* who wants to know */
	STAILQ_ENTRY(reload_waiter) next;
	struct api_call *call; /* NULL: a peer, or nobody */
	uint64_t peer, seq; /* its instance; 0: nobody */
};

STAILQ_HEAD(reload_waiters, reload_waiter);

/* One at a time; who asks meanwhile waits for the next. */
struct reload_job {
	struct agent *a;
	struct reload_waiters waiters;
	struct gw_config *file; /* as it was read */
	struct gw_config *before; /* to go back to */
	struct listeners fresh;
	uint32_t open; /* answers to come */
	bool failed;
	char text[ERR_MSG_BYTES]; /* why it failed, or what falls short though it did not */
};

struct reloads {
	struct reload_job *job; /* NULL: none */
	struct reload_waiters next;
	bool due;
	uint64_t expire_ms; /* when it is looked next what has left; boot clock */
};

static struct reloads *reloads_of(struct agent *a)
{
	if (a->reloads == NULL) {
		a->reloads = calloc(1, sizeof(*a->reloads));
		if (a->reloads != NULL)
			STAILQ_INIT(&a->reloads->next);
	}
	return a->reloads;
}

/* ---- sessions by listener ---- */

static void sessions_count(const struct agent *a, uint32_t *out)
{
	const struct session *s;

	memset(out, 0, MSG_LISTENERS_MAX * sizeof(*out));
	LIST_FOREACH(s, &a->sessions, next) {
		if (s->listener < MSG_LISTENERS_MAX)
			out[s->listener]++;
	}
}

/* Their listeners have other places in the table now. */
static void listeners_move(struct agent *a, const struct listeners *l)
{
	struct session *s;

	LIST_FOREACH(s, &a->sessions, next)
		s->listener =
			s->listener < MSG_LISTENERS_MAX ? l->was[s->listener] : LISTENERS_NONE;
	admit_listeners_move(a, l->was);
	listeners_take(a->cfg, l);
}

/* ---- answers ---- */

static void answer_one(struct agent *a, const struct reload_waiter *w, int code, const char *text)
{
	struct peer *p = w->peer != 0 ? peers_by_instance(a->peers, w->peer) : NULL;
	struct msg_result m = {.code = code};

	if (w->call != NULL && code == 0)
		api_reply(w->call, json_pack("{s:s}", "text", text));
	else if (w->call != NULL)
		api_fail(w->call, "invalid", "nothing has changed: %s", text);
	if (p == NULL)
		return;
	MSG_INIT(&m, code == 0 ? MSG_OK : MSG_ERROR, w->seq);
	snprintf(m.text, sizeof(m.text), "%s", text);
	peer_send(p, &m, -1);
}

static void answer_all(struct agent *a, struct reload_waiters *ws, int code, const char *text)
{
	struct reload_waiter *w;

	while ((w = STAILQ_FIRST(ws)) != NULL) {
		STAILQ_REMOVE_HEAD(ws, next);
		answer_one(a, w, code, text);
		free(w);
	}
}

static void policy_reloaded(void *arg, int result, const char *text,
			    const struct enforcement *closed)
{
	(void)arg;
	(void)closed;
	if (result == 0)
		log_info("reloaded: %s", text);
}

static void policy_reload(struct agent *a)
{
	struct config_errors errs = {0};
	char *text = NULL;

	if (a->policy_decided) {
		log_warn("the policy came by a decision; %s is not read. Use `sallyctl policy "
			 "apply`",
			 a->cfg->segments);
		return;
	}
	if (schema_slurp(&text, a->cfg->segments, &errs) < 0)
		log_error("%s", errs.line[0]);
	else
		policy_apply(a, text, a->cfg->segments, false, policy_reloaded, a);
	free(text);
}

static void job_end(struct reload_job *j, int code)
{
	struct agent *a = j->a;
	char text[ERR_MSG_BYTES];

	if (code == 0) {
		snprintf(text, sizeof(text),
			 "%u listeners in force: %u added, %u changed, %u removed%.400s",
			 j->file->n_listeners, j->fresh.added, j->fresh.changed, j->fresh.removed,
			 j->text);
		log_info("reloaded: %s", text);
	} else {
		snprintf(text, sizeof(text), "%s", j->text);
		log_error("reload, everything stays as it was: %s", text);
	}
	a->port_change = false;
	a->reloads->job = NULL;
	answer_all(a, &j->waiters, code, text);
	gw_config_free(j->file);
	free(j->before);
	free(j);
	if (code != 0 || a->stop)
		return;
	api_ports_reload(a);
	policy_reload(a);
}

static void job_fail(struct reload_job *j, const char *text)
{
	if (j->failed)
		return;
	j->failed = true;
	snprintf(j->text, sizeof(j->text), "%.511s", text);
}

/* ---- all TLS workers ---- */

struct asked {
	struct reload_job *j;
	uint32_t worker;
	uint64_t instance;
	void (*done)(struct reload_job *j);
	bool must; /* a worker that does not answer is cut off: it joins again, and is told anew */
};

static void worker_answered(void *arg, const union msg_any *reply)
{
	struct asked *x = arg;
	struct reload_job *j = x->j;
	struct peer *p = peers_by_instance(j->a->peers, x->instance);
	char text[ERR_MSG_BYTES];

	/* One that has gone starts anew, or joins again: then it is told what is in force. */
	if (reply == NULL && p != NULL && x->must) {
		agent_alarm(j->a, "tls-worker", "worker %u does not take the listeners: no answer",
			    x->worker);
		peer_cut(p, "is not in step");
	} else if (reply == NULL && p != NULL) {
		snprintf(text, sizeof(text), "TLS worker %u did not answer", x->worker);
		job_fail(j, text);
	} else if (reply != NULL && reply->h.type != MSG_OK) {
		snprintf(text, sizeof(text), "TLS worker %u: %.480s", x->worker,
			 reply->result.text);
		job_fail(j, text);
	} else if (reply != NULL && reply->result.text[0] != '\0' && j->text[0] == '\0') {
		snprintf(j->text, sizeof(j->text), "; TLS worker %u: %.400s", x->worker,
			 reply->result.text);
	}
	if (--j->open == 0)
		x->done(j);
	free(x);
}

static void workers_ask(struct reload_job *j, uint16_t type, uint32_t ms, bool must,
			void (*done)(struct reload_job *j))
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(j->a->peers, tls, PEERS_MAX);

	j->open = 1; /* ours, so that done() comes last */
	for (uint32_t i = 0; i < n; i++) {
		struct asked *x = calloc(1, sizeof(*x));
		struct msg_reload m = {.listeners = gw_listeners_hash(j->file)};

		if (x == NULL) {
			job_fail(j, "out of memory");
			continue;
		}
		*x = (struct asked){j, peer_worker(tls[i]), peer_instance(tls[i]), done, must};
		MSG_INIT(&m, type, 0);
		j->open++;
		peer_request(tls[i], &m, -1, ms, worker_answered, x);
	}
	if (--j->open == 0)
		done(j);
}

static void aborted(struct reload_job *j)
{
	job_end(j, -EINVAL);
}

static void abort_all(struct reload_job *j)
{
	workers_ask(j, MSG_RELOAD_ABORT, CHANGE_MS, true, aborted);
}

/* ---- dataplane and nftables ---- */

static void sources_take(struct gw_config *cfg, const struct gw_config *from)
{
	cfg->n_tls_addrs = from->n_tls_addrs;
	memcpy(cfg->tls_addrs, from->tls_addrs, sizeof(cfg->tls_addrs));
	cfg->n_tls_sources = from->n_tls_sources;
	memcpy(cfg->tls_sources, from->tls_sources, sizeof(cfg->tls_sources));
}

static void gone_told(void *arg, const union msg_any *reply)
{
	struct agent *a = arg;

	if (a->dp_ready && (reply == NULL || reply->h.type != MSG_OK))
		sync_failed(a, "does not take the listeners", reply);
}

/* What the configuration holds now, to both planes, for better or worse. */
static void planes_follow(struct agent *a)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_dp_config m;
	struct err err = {""};
	int ret = nft_put_interfaces(a->nft, &err);

	if (ret < 0)
		enforce_kernel_failed(a, "listeners not in force", ret, &err);
	if (dp == NULL)
		return;
	sync_config_msg(a->cfg, &m);
	peer_request(dp, &m, -1, CHANGE_MS, gone_told, a);
}

/* Whoever came meanwhile keeps its listener: it is one of those before, or it has none. */
static void go_back(struct reload_job *j)
{
	struct listeners *l = &j->fresh;
	uint8_t was[MSG_LISTENERS_MAX];

	memset(was, LISTENERS_NONE, sizeof(was));
	for (uint32_t i = 0; i < MSG_LISTENERS_MAX; i++) {
		if (l->was[i] != LISTENERS_NONE)
			was[l->was[i]] = (uint8_t)i;
	}
	memcpy(l->was, was, sizeof(was));
	l->n = j->before->n_listeners;
	memcpy(l->list, j->before->listeners, sizeof(l->list));
	listeners_move(j->a, l);
	sources_take(j->a->cfg, j->before);
	planes_follow(j->a);
}

static void committed(struct reload_job *j)
{
	struct agent *a = j->a;

	a->review = true;
	enforce_now(a);
	job_end(j, 0);
}

static void dataplane_took(void *arg, const union msg_any *reply)
{
	struct reload_job *j = arg;
	struct agent *a = j->a;
	struct err err = {""};
	int ret;

	/* Without a dataplane: it is told when it comes. */
	if (reply == NULL ? a->dp_ready : reply->h.type != MSG_OK)
		job_fail(j, reply != NULL ? reply->result.text : "the dataplane did not answer");
	ret = j->failed ? 0 : nft_put_interfaces(a->nft, &err);
	if (ret < 0)
		job_fail(j, err.msg);
	if (j->failed) {
		go_back(j);
		abort_all(j);
		return;
	}
	managed_soon(a->managed);
	workers_ask(j, MSG_RELOAD_COMMIT, CHANGE_MS, true, committed);
}

static void prepared(struct reload_job *j)
{
	struct agent *a = j->a;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	uint32_t sessions[MSG_LISTENERS_MAX];
	struct msg_dp_config m;
	struct err err = {""};

	sessions_count(a, sessions);
	if (!j->failed &&
	    listeners_merge(&j->fresh, a->cfg, j->file, sessions, clock_boot_ms(), &err) < 0)
		job_fail(j, err.msg);
	if (j->failed) {
		abort_all(j);
		return;
	}
	memcpy(j->before, a->cfg, sizeof(*j->before));
	listeners_move(a, &j->fresh);
	sources_take(a->cfg, j->file);
	if (dp == NULL) {
		dataplane_took(j, NULL);
		return;
	}
	sync_config_msg(a->cfg, &m);
	peer_request(dp, &m, -1, CHANGE_MS, dataplane_took, j);
}

/* ---- begin ---- */

static void job_begin(struct agent *a, struct reload_waiters *waiters)
{
	struct reload_job *j = calloc(1, sizeof(*j));
	char why[ERR_MSG_BYTES];
	struct err err = {""};

	if (j == NULL) {
		log_error("reload, everything stays as it was: out of memory");
		answer_all(a, waiters, -ENOMEM, "out of memory");
		return;
	}
	j->a = a;
	STAILQ_INIT(&j->waiters);
	STAILQ_CONCAT(&j->waiters, waiters);
	a->reloads->job = j;
	a->port_change = true;
	j->before = calloc(1, sizeof(*j->before));
	j->file = api_ports_file(a, why, sizeof(why));
	if (j->before == NULL || j->file == NULL)
		job_fail(j, j->before == NULL ? "out of memory" : why);
	else if (gw_reload_check(a->cfg, j->file, &err) < 0)
		job_fail(j, err.msg);
	if (j->failed)
		job_end(j, -EINVAL);
	else
		workers_ask(j, MSG_RELOAD_PREPARE, PREPARE_MS, false, prepared);
}

static void wait_for_it(struct agent *a, struct api_call *call, uint64_t peer, uint64_t seq)
{
	struct reloads *r = reloads_of(a);
	struct reload_waiter *w = calloc(1, sizeof(*w));

	if (r == NULL || w == NULL) {
		log_error("reload, everything stays as it was: out of memory");
		if (call != NULL)
			api_fail(call, "internal", "out of memory");
		free(w);
		return;
	}
	*w = (struct reload_waiter){.call = call, .peer = peer, .seq = seq};
	STAILQ_INSERT_TAIL(&r->next, w, next);
	r->due = true;
	if (r->job == NULL && !a->port_change)
		reload_tick(a, clock_boot_ms());
}

void reload_all(struct agent *a)
{
	wait_for_it(a, NULL, 0, 0);
}

void reload_call(struct agent *a, struct api_call *call, json_t *request)
{
	(void)request;
	wait_for_it(a, call, 0, 0);
}

void reload_wanted(struct agent *a, struct peer *p, const struct msg_reload *m)
{
	wait_for_it(a, NULL, peer_instance(p), m->h.seq);
}

void reload_join(struct agent *a, const struct peer *p)
{
	if (peer_listeners(p) == 0 || peer_listeners(p) == gw_listeners_hash(a->cfg))
		return;
	log_warn("TLS worker %u runs other listeners than those in force: %s is read again",
		 peer_worker(p), a->cfg->file);
	if (reloads_of(a) != NULL)
		a->reloads->due = true;
}

/* Nobody in them any more, or their time is over. */
static void left_expire(struct agent *a)
{
	uint32_t sessions[MSG_LISTENERS_MAX];
	struct listeners *l;

	if (a->cfg->n_listeners == 0 ||
	    a->cfg->listeners[a->cfg->n_listeners - 1].left == GW_LISTENER_STAYS)
		return;
	l = malloc(sizeof(*l));
	if (l == NULL)
		return;
	sessions_count(a, sessions);
	if (listeners_expire(l, a->cfg, sessions, clock_boot_ms())) {
		listeners_move(a, l);
		planes_follow(a);
	}
	free(l);
}

void reload_tick(struct agent *a, uint64_t now_ms)
{
	struct reloads *r = a->reloads;
	struct reload_waiters waiters = STAILQ_HEAD_INITIALIZER(waiters);

	if (r == NULL || a->port_change)
		return;
	if (now_ms >= r->expire_ms) {
		r->expire_ms = now_ms + EXPIRE_MS;
		left_expire(a);
	}
	if (!r->due)
		return;
	r->due = false;
	STAILQ_CONCAT(&waiters, &r->next);
	job_begin(a, &waiters);
}

void reload_fini(struct agent *a)
{
	struct reload_waiter *w;

	if (a->reloads == NULL)
		return;
	while ((w = STAILQ_FIRST(&a->reloads->next)) != NULL) {
		STAILQ_REMOVE_HEAD(&a->reloads->next, next);
		free(w);
	}
	free(a->reloads);
	a->reloads = NULL;
}
