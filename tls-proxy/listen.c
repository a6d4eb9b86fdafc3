/* SPDX-License-Identifier: GPL-3.0-or-later */
/* listen: a listener, whoever carries its connections. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "config/base/clock.h"
#include "config/listeners.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/tickets.h"
#include "tls-proxy/worker.h"

#define SAY_EVERY_MS 10000

int listener_prepare(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		     uint8_t index, struct err *err)
{
	int ret;

	*l = (struct listener){.w = w,
			       .cfg = cfg,
			       .index = index,
			       .upstreams = gw_listener_upstreams_hash(cfg),
			       .src = {.fd = -1}};
	if (cfg->handshakes_s > 0 || cfg->handshakes_each > 0 || cfg->handshakes_each_s > 0) {
		l->limit = calloc(1, sizeof(*l->limit));
		if (l->limit == NULL || getrandom(&l->limit->secret, sizeof(l->limit->secret), 0) !=
						sizeof(l->limit->secret))
			return -ENOMEM;
	}
	ret = tls_ctx_load(&l->ctx, cfg, w->files, err);
	return ret == 0 ? upstreams_open(l, err) : ret;
}

int listener_listen(struct listener *l, struct err *err)
{
	const struct gw_listener *cfg = l->cfg;
	char text[ADDR_TEXT_BYTES];
	int ret = cfg->protocol == GW_DTLS ? dtls_listen(l, err) : transport_listen(l, err);

	if (ret < 0)
		return ret;
	log_info("listening name=%s address=%s port=%u %s=%s", cfg->name,
		 ip_addr_text(&cfg->addr, text), cfg->port,
		 cfg->protocol == GW_DTLS ? "dtls" : "tls", cfg->tls12 ? "1.2,1.3" : "1.3");
	return 0;
}

int listener_open(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		  uint8_t index, struct err *err)
{
	int ret = listener_prepare(w, l, cfg, index, err);

	if (ret == 0)
		ret = listener_listen(l, err);
	return ret < 0 ? err_wrap(err, ret, "listener %s", cfg->name) : 0;
}

struct listener *listener_now(struct listener *l)
{
	while (l->heir != NULL)
		l = l->heir;
	return l;
}

bool listener_room(struct listener *l)
{
	if (l->w->drain_ms == 0 && !l->retired && l->handshakes < l->cfg->handshakes_max &&
	    l->sessions < l->cfg->sessions_max)
		return true;
	l->count[TLS_OVER_HANDSHAKES] += l->handshakes >= l->cfg->handshakes_max;
	l->count[TLS_OVER_SESSIONS] += l->sessions >= l->cfg->sessions_max;
	l->turned_away++;
	return false;
}

bool listener_admits(struct listener *l, const struct ip_addr *from)
{
	enum limit_verdict v;

	if (!listener_room(l))
		return false;
	v = l->limit == NULL ? LIMIT_TAKEN : limit_take(l->limit, l->cfg, from, clock_boot_ms());
	if (v == LIMIT_TAKEN)
		return true;
	l->turned_away++;
	l->turned_rate += v == LIMIT_RATE;
	l->turned_source += v != LIMIT_RATE;
	l->count[v == LIMIT_RATE ? TLS_OVER_RATE : TLS_OVER_SOURCE]++;
	return false;
}

/* Once for each file that went out of date; clients go on without it. */
static void staple_say(struct listener *l)
{
	const char *path = l->retired || l->stale_said ? NULL : tls_ctx_stale(&l->ctx, time(NULL));

	if (path == NULL)
		return;
	log_warn("OCSP response is not fresh, it is not handed out listener=%s file=%s: fetch a "
		 "new one, "
		 "then reload",
		 l->cfg->name, path);
	l->stale_said = true;
}

void listeners_tick(struct worker *w, uint64_t now_ms)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		dtls_tick(l, now_ms);
		tickets_expire(l->ctx.tickets, now_ms);
		source_set(w, &l->src, EPOLLIN);
		if (!l->retired)
			upstreams_tick(l, now_ms);
		staple_say(l);
		if (l->turned_away == 0 || now_ms < l->say_ms)
			continue;
		log_warn("connections turned away listener=%s n=%u of_sources=%u of_rate=%u "
			 "handshakes=%u "
			 "sessions=%u: too many at a time, or of one source, or a second",
			 l->cfg->name, l->turned_away, l->turned_source, l->turned_rate,
			 l->handshakes, l->sessions);
		l->turned_source = l->turned_rate = 0;
		l->turned_away = 0;
		l->say_ms = now_ms + SAY_EVERY_MS;
	}
}

static const struct gw_listener nobody;

void listener_close(struct listener *l)
{
	transport_unlisten(l);
	dtls_close(l);
	upstreams_close(l);
	tls_ctx_fini(&l->ctx);
	free(l->limit);
	l->limit = NULL;
	if (l->own != NULL)
		l->cfg = &nobody; /* its place is still looked at */
	free(l->own);
	l->own = NULL;
}
