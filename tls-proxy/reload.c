/* SPDX-License-Identifier: GPL-3.0-or-later */
/* reload: gateway.cfg and the files of its listeners once more, all of them or none. A listener of which only files have
 * changed goes on with new ones. Any other change makes a new listener in another place of the table, which takes over
 * the socket: nobody who connects is refused; sessions stay with the old one, and end as its keys said. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/tls_client.h"
#include "tls-proxy/worker.h"

enum step { STEP_KEEP, STEP_CHANGE, STEP_ADD };

struct plan {
	enum step step;
	struct listener *old; /* NULL: STEP_ADD */
	struct listener *fresh; /* NULL: STEP_KEEP */
	struct tls_ctx ctx, up; /* of STEP_KEEP; up: to its upstreams */
};

/* Where a group stands in the file is no change. */
static bool same_keys(const struct gw_listener *a, const struct gw_listener *b)
{
	struct gw_listener *copy = malloc(sizeof(*copy));
	bool same = false;

	if (copy != NULL) {
		memcpy(copy, a, sizeof(*copy));
		if (a->upstream_tls.line != 0 && b->upstream_tls.line != 0)
			copy->upstream_tls.line = b->upstream_tls.line;
		same = memcmp(copy, b, sizeof(*copy)) == 0;
	}
	free(copy);
	return same;
}

static bool same_place(const struct gw_listener *a, const struct gw_listener *b)
{
	return ip_addr_eq(&a->addr, &b->addr) && a->port == b->port &&
	       a->transport == b->transport && a->protocol == b->protocol;
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
	if (!l->retired || l->sessions > 0 || l->stk.pcb != NULL)
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
	p->fresh->retired = true; /* until it is in force */
	if (ret < 0 || (p->old != NULL && same_place(p->old->cfg, cfg)))
		return ret;
	return listener_listen(p->fresh, err);
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
	int ret;

	p->old = live_by_name(w, cfg->name);
	p->step = p->old == NULL ? STEP_ADD : same_keys(p->old->cfg, cfg) ? STEP_KEEP : STEP_CHANGE;
	if (p->step == STEP_CHANGE &&
	    (cfg->protocol == GW_DTLS || p->old->cfg->protocol == GW_DTLS))
		return err_set(err, -ENOTSUP,
			       "listener %s: other keys of a DTLS listener need a restart",
			       cfg->name);
	if (p->step == STEP_KEEP)
		ret = contexts_load(w, p, cfg, err);
	else
		ret = fresh_open(w, p, cfg, index, err);
	if (ret == 0 && p->old != NULL)
		ret = tls_ctx_newer(p->step == STEP_KEEP ? &p->ctx : &p->fresh->ctx, &p->old->ctx,
				    err);
	return ret < 0 ? err_wrap(err, ret, "listener %s", cfg->name) : 0;
}

static void plan_undo(struct plan *p)
{
	tls_ctx_fini(&p->ctx);
	tls_ctx_fini(&p->up);
	if (p->fresh != NULL)
		listener_close(p->fresh);
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
			if (same_place(p->old->cfg, l->cfg))
				transport_take(l, p->old);
			else
				transport_unlisten(p->old);
			p->old->retired = true;
			p->old->heir = l;
		}
		l->retired = false;
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

static bool named(const struct gw_config *cfg, const char *name)
{
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (strcmp(cfg->listeners[i].name, name) == 0)
			return true;
	}
	return false;
}

static void removed_retire(struct worker *w, const struct gw_config *cfg)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		if (l->retired || named(cfg, l->cfg->name))
			continue;
		if (l->cfg->protocol == GW_DTLS) {
			log_warn("listener %s stays: removing one of DTLS needs a restart",
				 l->cfg->name);
			continue;
		}
		transport_unlisten(l);
		l->retired = true;
		log_info("removed listener=%s sessions=%u", l->cfg->name, l->sessions);
	}
}

static int reload_all(struct worker *w, const struct gw_config *cfg, struct err *err)
{
	struct plan *plans = calloc(cfg->n_listeners + 1, sizeof(*plans));
	uint32_t n = 0;
	int ret = plans == NULL ? -ENOMEM : 0;

	for (uint32_t i = 0; ret == 0 && i < cfg->n_listeners; i++, n++)
		ret = plan_one(w, &plans[i], &cfg->listeners[i], i, err);
	for (uint32_t i = 0; ret < 0 && i < n; i++)
		plan_undo(&plans[i]);
	if (ret == 0) {
		removed_retire(w, cfg);
		for (uint32_t i = 0; i < n; i++)
			plan_do(&plans[i]);
	}
	free(plans);
	return ret;
}

void worker_reload(struct worker *w)
{
	struct gw_config *cfg = NULL;
	struct files files = {0};
	struct err err = {""};
	int ret = 0;

	if (w->opener.fd > 0) {
		ret = opener_ask(&w->opener, &cfg, &files, &err);
		w->files = ret == 0 ? &files : NULL;
	}
	if (ret == 0)
		ret = reload_all(w, cfg != NULL ? cfg : w->cfg, &err);
	if (ret < 0)
		log_error("reload, everything stays as it was: %s",
			  err.msg[0] != '\0' ? err.msg : strerror(-ret));
	w->files = NULL;
	files_fini(&files);
	gw_config_free(cfg);
}
