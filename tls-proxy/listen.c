/* SPDX-License-Identifier: GPL-3.0-or-later */
/* listen: a listener, whoever carries its connections. */
#include <string.h>
#include <sys/epoll.h>

#include "tls-proxy/dtls.h"
#include "tls-proxy/worker.h"

#define SAY_EVERY_MS 10000

int listener_open(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		  uint8_t index, struct err *err)
{
	char text[ADDR_TEXT_BYTES];
	int ret;

	*l = (struct listener){.w = w, .cfg = cfg, .index = index, .src = {.fd = -1}};
	ret = tls_ctx_init(&l->ctx, cfg, err);
	if (ret == 0)
		ret = upstreams_open(l, err);
	if (ret == 0)
		ret = cfg->protocol == GW_DTLS ? dtls_listen(l, err) : transport_listen(l, err);
	if (ret < 0)
		return err_wrap(err, ret, "listener %s", cfg->name);
	log_info("listening name=%s address=%s port=%u %s=%s", cfg->name,
		 ip_addr_text(&cfg->addr, text), cfg->port,
		 cfg->protocol == GW_DTLS ? "dtls" : "tls", cfg->tls12 ? "1.2,1.3" : "1.3");
	return 0;
}

bool listener_room(struct listener *l)
{
	if (l->w->drain_ms == 0 && l->handshakes < l->cfg->handshakes_max &&
	    l->sessions < l->cfg->sessions_max)
		return true;
	l->turned_away++;
	return false;
}

void listeners_tick(struct worker *w, uint64_t now_ms)
{
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		struct listener *l = &w->listeners[i];

		dtls_tick(l, now_ms);
		source_set(w, &l->src, EPOLLIN);
		upstreams_tick(l, now_ms);
		if (l->turned_away == 0 || now_ms < l->say_ms)
			continue;
		log_warn("connections turned away listener=%s n=%u handshakes=%u sessions=%u: too "
			 "many at a time",
			 l->cfg->name, l->turned_away, l->handshakes, l->sessions);
		l->turned_away = 0;
		l->say_ms = now_ms + SAY_EVERY_MS;
	}
}

void listener_close(struct listener *l)
{
	transport_unlisten(l);
	dtls_close(l);
	upstreams_close(l);
	tls_ctx_fini(&l->ctx);
}
