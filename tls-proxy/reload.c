/* SPDX-License-Identifier: GPL-3.0-or-later */
/* reload: gateway.cfg and the files of its listeners once more, all of them or none. The agent has every worker prepare,
 * then commit or abort. A listener is where it listens: one of which only files have changed goes on with new ones; any
 * other change makes a new one in another place of the table, which takes over the socket, so nobody who connects is
 * refused, and sessions stay with the old one, and end as its keys said. One whose place is gone takes nobody any more;
 * its sessions have gateway.drain_s to finish. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "config/listeners.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/tls_client.h"
#include "tls-proxy/worker.h"

enum step { STEP_KEEP, STEP_CHANGE, STEP_ADD };

struct plan {
	enum step step;
	struct listener *old; /* NULL: STEP_ADD */
	struct listener *fresh; /* NULL: STEP_KEEP */
	struct tls_ctx ctx, up; /* of STEP_KEEP; up: to its upstreams */
};

struct reload { /* what was prepared */
	struct gw_config *cfg;
	uint32_t n; /* plans */
	struct plan plan[MSG_LISTENERS_MAX];
};

static struct listener *live_at(struct worker *w, const struct gw_listener *cfg)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		if (!w->listeners[i].retired && gw_listener_same_place(w->listeners[i].cfg, cfg))
			return &w->listeners[i];
	}
	return NULL;
}

static struct listener *live_by_name(struct worker *w, const char *name)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		if (!w->listeners[i].retired && strcmp(w->listeners[i].cfg->name, name) == 0)
			return &w->listeners[i];
	}
	return NULL;
}

/* Nobody is in it any more, and no other one leans on it. */
static bool vacant(const struct worker *w, const struct listener *l)
{
	if (!l->retired || l->preparing || l->sessions > 0 || l->stk.pcb != NULL ||
	    !dtls_is_empty(l))
		return false;
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		if (w->listeners[i].heir == l || w->listeners[i].stk_home == l)
			return false;
	}
	return true;
}

static struct listener *slot_take(struct worker *w)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (vacant(w, l)) {
			listener_close(l);
			return l;
		}
	}
	return w->n_listeners < MSG_LISTENERS_MAX ? &w->listeners[w->n_listeners++] : NULL;
}

static int listen_anew(struct listener *l, struct err *err)
{
	int ret = listener_listen(l, err);

	return ret == -EACCES ? err_wrap(err, ret,
					 "a port below 1024 needs a restart of the TLS "
					 "workers, which have no privileges by now")
			      : ret;
}

static int fresh_open(struct worker *w, struct plan *p, const struct gw_listener *cfg,
		      uint8_t index, struct err *err)
{
	struct gw_listener *own = malloc(sizeof(*own));
	int ret;

	if (own == NULL)
		return -ENOMEM;
	memcpy(own, cfg, sizeof(*own));
	p->fresh = slot_take(w);
	if (p->fresh == NULL) {
		free(own);
		return err_set(
			err, -ENOSPC,
			"too many changed listeners still have sessions; restart the worker");
	}
	ret = listener_prepare(w, p->fresh, own, index, err);
	p->fresh->own = own;
	p->fresh->retired = p->fresh->preparing = true; /* until it is in force */
	return ret == 0 && p->old == NULL ? listen_anew(p->fresh, err) : ret;
}

static int contexts_load(struct worker *w, struct plan *p, const struct gw_listener *cfg,
			 struct err *err)
{
	int ret = tls_ctx_load(&p->ctx, cfg, w->files, err);

	if (ret == 0 && cfg->upstream_tls.line != 0)
		ret = tls_client_load(&p->up, &cfg->upstream_tls, w->files, err);
	return ret;
}

static int plan_one(struct worker *w, struct plan *p, const struct gw_listener *cfg, uint8_t index,
		    struct err *err)
{
	struct listener *before;
	int ret;

	p->old = live_at(w, cfg);
	before = p->old != NULL ? p->old : live_by_name(w, cfg->name);
	p->step = p->old == NULL			    ? STEP_ADD
		  : gw_listener_same_keys(p->old->cfg, cfg) ? STEP_KEEP
							    : STEP_CHANGE;
	if (p->step == STEP_KEEP)
		ret = contexts_load(w, p, cfg, err);
	else
		ret = fresh_open(w, p, cfg, index, err);
	if (ret == 0 && before != NULL)
		ret = tls_ctx_newer(p->step == STEP_KEEP ? &p->ctx : &p->fresh->ctx, &before->ctx,
				    err);
	return ret < 0 ? err_wrap(err, ret, "listener %s", cfg->name) : 0;
}

static void plan_undo(struct plan *p)
{
	tls_ctx_fini(&p->ctx);
	tls_ctx_fini(&p->up);
	if (p->fresh == NULL)
		return;
	p->fresh->preparing = false;
	listener_close(p->fresh);
}

/* One that has moved: what is said of it counts for its last sessions at the place before. */
static void heir_find(struct listener *l)
{
	for (uint32_t i = 0; i < l->w->n_listeners; i++) {
		struct listener *gone = &l->w->listeners[i];

		if (gone->drain_ms != 0 && gone->heir == NULL &&
		    strcmp(gone->cfg->name, l->cfg->name) == 0)
			gone->heir = l;
	}
}

/* A CA or a list may have changed: in force at once for who is in already, too. */
static void plan_do(struct plan *p)
{
	struct listener *l = p->step == STEP_KEEP ? p->old : p->fresh;
	uint32_t closed = 0;

	if (p->step == STEP_KEEP) {
		tls_ctx_fini(&l->ctx);
		l->ctx = p->ctx;
		tls_ctx_fini(&l->up.tls);
		l->up.tls = p->up;
	} else {
		if (p->step == STEP_CHANGE) {
			transport_take(l, p->old);
			p->old->retired = true;
			p->old->heir = l;
			upstreams_rest(p->old);
			upstreams_inherit(l, p->old);
			memcpy(l->count, p->old->count, sizeof(l->count));
		}
		l->retired = l->preparing = false;
		heir_find(l);
	}
	for (uint32_t i = 0; i < l->w->n_listeners; i++) {
		struct listener *older = &l->w->listeners[i];

		if (older == l || (older->retired && listener_now(older) == l))
			closed += conns_reverify(older);
	}
	l->stale_said = false;
	log_info("%s listener=%s sessions_closed=%u revoked=%u",
		 p->step == STEP_ADD ? "added" : "reloaded", l->cfg->name, closed,
		 revoked_count(l->ctx.revoked));
}

/* ---- listeners whose place is gone ---- */

static bool has_place(const struct gw_config *cfg, const struct gw_listener *l)
{
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (gw_listener_same_place(&cfg->listeners[i], l))
			return true;
	}
	return false;
}

/* Another transport has its address and port now: its devices' packets do not come here any more. */
static bool has_door(const struct gw_config *cfg, const struct gw_listener *l)
{
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (gw_listener_same_door(&cfg->listeners[i], l))
			return true;
	}
	return false;
}

/* With those that it has taken the place of: their sessions lean on it. */
static void retire(struct worker *w, struct listener *gone, uint64_t drain_ms)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (l->drain_ms == 0 &&
		    (l == gone || (l->retired && !l->preparing && listener_now(l) == gone)))
			l->drain_ms = drain_ms;
	}
	/* DTLS: its sessions live behind the one socket; listener_room() turns away. */
	if (gone->cfg->protocol != GW_DTLS)
		transport_unlisten(gone);
	gone->retired = true;
	upstreams_rest(gone);
	log_info("removed listener=%s sessions=%u", gone->cfg->name, gone->sessions);
}

static void removed_retire(struct worker *w, const struct gw_config *cfg)
{
	uint64_t now_ms = clock_boot_ms();

	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (l->retired || has_place(cfg, l->cfg))
			continue;
		retire(w, l, has_door(cfg, l->cfg) ? now_ms : now_ms + w->cfg->drain_s * 1000ull);
	}
}

static void sessions_end(struct listener *l)
{
	struct conn *c, *next;

	for (c = LIST_FIRST(&l->w->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (c->l == l && c->state != CONN_CLOSING)
			conn_close(c, 0, "its listener was removed");
	}
}

void reload_tick(struct worker *w, uint64_t now_ms)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (l->drain_ms == 0)
			continue;
		if (l->sessions > 0 && now_ms >= l->drain_ms)
			sessions_end(l);
		if (l->sessions == 0 && l->dtls != NULL && dtls_is_empty(l))
			dtls_close(l);
	}
}

/* ---- all of them ---- */

static void reload_free(struct reload *r)
{
	if (r == NULL)
		return;
	gw_config_free(r->cfg);
	free(r);
}

static int plan_all(struct worker *w, struct reload *r, struct err *err)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < r->cfg->n_listeners; i++, r->n++)
		ret = plan_one(w, &r->plan[i], &r->cfg->listeners[i], i, err);
	return ret;
}

void reload_abort(struct worker *w)
{
	if (w->prepared == NULL)
		return;
	for (uint32_t i = 0; i < w->prepared->n; i++)
		plan_undo(&w->prepared->plan[i]);
	reload_free(w->prepared);
	w->prepared = NULL;
}

/* Without an opener files are on the disk, and nothing but these can change. */
static int config_read(struct worker *w, struct gw_config **cfg, struct files *files,
		       struct err *err)
{
	if (w->opener.fd > 0)
		return opener_ask(&w->opener, cfg, files, err);
	*cfg = malloc(sizeof(**cfg));
	if (*cfg == NULL)
		return -ENOMEM;
	memcpy(*cfg, w->cfg, sizeof(**cfg));
	return 0;
}

/* @param hash  of the listeners that the file must hold; 0: of those that run */
static int prepare(struct worker *w, uint64_t hash, struct err *err)
{
	struct reload *r = calloc(1, sizeof(*r));
	struct files files = {0};
	int ret;

	reload_abort(w);
	if (r == NULL)
		return -ENOMEM;
	ret = config_read(w, &r->cfg, &files, err);
	if (ret < 0) {
		reload_free(r);
		return ret;
	}
	w->files = w->opener.fd > 0 ? &files : NULL;
	w->prepared = r;
	if (gw_listeners_hash(r->cfg) != (hash != 0 ? hash : w->listeners_hash))
		ret = err_set(err, -EAGAIN,
			      hash != 0
				      ? "%s has changed meanwhile: reload once more"
				      : "%s has other listeners than those that run, and the agent "
					"is not there: only files can be read again",
			      r->cfg->file);
	if (ret == 0)
		ret = plan_all(w, r, err);
	w->files = NULL;
	files_fini(&files);
	if (ret < 0)
		reload_abort(w);
	return ret;
}

/* Its packet buffers are as large as the ports' MTU was when it began. */
static void mtu_look(const struct worker *w, struct err *note)
{
	uint16_t mtu = gw_stack_mtu_max(w->cfg);

	if (w->stack == NULL || mtu <= w->mtu_bytes)
		return;
	err_set(note, 0,
		"a port has mtu = %u, and this worker's packets stay at %u bytes: restart it to "
		"have larger ones",
		mtu, w->mtu_bytes);
	log_warn("%s", note->msg);
}

/* @param[out] note  what falls short of the file, if anything does */
static void commit(struct worker *w, struct err *note)
{
	struct reload *r = w->prepared;

	if (r == NULL)
		return;
	w->prepared = NULL;
	removed_retire(w, r->cfg);
	for (uint32_t i = 0; i < r->n; i++)
		plan_do(&r->plan[i]);
	w->listeners_hash = gw_listeners_hash(r->cfg);
	gw_config_free(w->own_cfg);
	w->own_cfg = r->cfg;
	w->cfg = w->own_cfg;
	r->cfg = NULL;
	reload_free(r);
	reload_tick(w, clock_boot_ms());
	mtu_look(w, note);
}

void reload_work(struct worker *w)
{
	struct msg_reload ask = w->reload_ask;
	struct err err = {""};
	int ret = 0;

	w->reload_ask.h.type = 0;
	switch (ask.h.type) {
	case MSG_RELOAD_PREPARE:
		/* Who ends takes nobody any more, whatever the file says. */
		ret = w->drain_ms == 0 ? prepare(w, ask.listeners, &err) : 0;
		break;
	case MSG_RELOAD_COMMIT:
		commit(w, &err);
		break;
	case MSG_RELOAD_ABORT:
		reload_abort(w);
		break;
	default:
		return;
	}
	agent_reload_done(w, ask.h.seq, ret,
			  err.msg[0] != '\0' || ret == 0 ? err.msg : strerror(-ret));
}

void worker_reload(struct worker *w)
{
	struct err err = {""};
	int ret;

	if (agent_reload(w) == 0)
		return;
	ret = prepare(w, 0, &err);
	if (ret == 0)
		commit(w, &err);
	else
		log_error("reload, everything stays as it was: %s",
			  err.msg[0] != '\0' ? err.msg : strerror(-ret));
}
