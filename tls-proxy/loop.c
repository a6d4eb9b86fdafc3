/* SPDX-License-Identifier: GPL-3.0-or-later */
/* loop: the worker's epoll set, and one turn of it. */
#include <errno.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/clock_near.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/worker.h"

#define TURN_EVENTS 128
#define TRIM_SESSIONS 1000 /* that came or went since the last time */
#define TRIM_WORK 300 /* frames and events in a window at most */
#define TRIM_FRESH                                                                                 \
	100 /* in a window at most: the wave is over, and buffers of quiet sessions are gone */
#define TRIM_WINDOW_MS 3000
#define FAREWELL_MS 1000 /* for what the agent is still to be told */
#define GOODBYE_MS 500 /* for the last words of a worker that ends */

int source_add(struct worker *w, struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	s->events = events;
	return epoll_ctl(w->epoll, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

void source_set(struct worker *w, struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (s->fd < 0 || s->events == events)
		return;
	/* Out of the set, not merely without a bit: EPOLLHUP and EPOLLERR come unasked, again and again. */
	epoll_ctl(w->epoll,
		  events == 0	   ? EPOLL_CTL_DEL
		  : s->events == 0 ? EPOLL_CTL_ADD
				   : EPOLL_CTL_MOD,
		  s->fd, &ev);
	s->events = events;
}

void source_close(struct worker *w, struct source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(w->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	close(s->fd);
	s->fd = -1;
	s->events = 0;
}

static int events_serve(struct worker *w, uint32_t wait_ms)
{
	struct epoll_event ev[TURN_EVENTS];
	int n = epoll_wait(w->epoll, ev, TURN_EVENTS, (int)wait_ms);
	int ret = n < 0 && errno != EINTR ? -errno : 0;

	transport_woken(w);
	if (ret < 0)
		return ret;
	if (w->stack == NULL)
		w->behind = n == TURN_EVENTS;
	w->work += n > 0 ? n : 0;
	for (int i = 0; i < n; i++) {
		struct source *s = ev[i].data.ptr;

		if (s->fd >= 0)
			s->ready(s->arg, ev[i].events);
		/* A revocation waits for one event at most, not for a batch of handshakes. */
		conns_follow(w);
	}
	return 0;
}

/* A wave of handshakes leaves the heap full of holes, twice what the sessions need, and a wave of ends all that they had:
 * pages that are free go back when it is over. That takes 20 ms for 200 MB, in which nobody is served. So it is not done for
 * a few sessions, and not while there is work: under load the holes are filled again soon. */
static void heap_trim(struct worker *w, uint64_t now_ms)
{
	struct heap_watch *h = &w->heap;
	uint64_t sessions = w->next_id + w->freed, fresh = sessions - h->sessions;
	uint64_t work = w->work - h->work;

	if (now_ms < h->since_ms + TRIM_WINDOW_MS)
		return;
	h->sessions = sessions;
	h->work = w->work;
	h->since_ms = now_ms;
	if (fresh > TRIM_FRESH || work > TRIM_WORK || sessions - h->trimmed < TRIM_SESSIONS)
		return;
	h->trimmed = sessions;
	malloc_trim(0);
}

int worker_turn(struct worker *w, uint32_t wait_ms)
{
	uint64_t now = clock_near_ms();
	uint64_t left_ms;
	int ret;

	if (now >= w->tick_ms) {
		w->tick_ms = now + WORKER_TICK_MS;
		agent_tick(w, now);
		conns_follow(w);
		transport_tick(w);
		heap_trim(w, now);
		conns_tick(w, now);
		listeners_tick(w, now);
		reload_tick(w, now);
		refusals_tick(w, now);
	}
	if (w->agent.fd < 0 && w->agent_retry_ms < w->tick_ms)
		w->tick_ms = w->agent_retry_ms;
	left_ms = w->tick_ms > now && TAILQ_EMPTY(&w->shaking) && LIST_EMPTY(&w->again)
			  ? w->tick_ms - now
			  : 0;
	agent_post(w, clock_near_us());
	left_ms = agent_rests(w, clock_near_us(), left_ms);
	ret = transport_turn(w, left_ms < wait_ms ? left_ms : wait_ms, events_serve);
	if (ret < 0)
		return ret;
	conns_again(w);
	if (w->reload)
		worker_reload(w);
	w->reload = false;
	reload_work(w);
	for (uint32_t i = 0; i < w->n_listeners; i++)
		dtls_turn(&w->listeners[i]);
	conns_reap(w);
	relay_wipe();
	if (w->drain_ms != 0 && (LIST_EMPTY(&w->conns) || now >= w->drain_ms))
		w->stop = true;
	return 0;
}

void worker_drain(struct worker *w)
{
	if (w->drain_ms != 0 || w->cfg->drain_s == 0) {
		w->stop = true;
		return;
	}
	w->drain_ms = clock_boot_ms() + w->cfg->drain_s * 1000ull;
	log_info("ending: nobody new, up to %u s for those who are here", w->cfg->drain_s);
	reload_abort(w); /* what it has prepared listens already */
	/* DTLS: the sessions live behind the one socket; listener_room() turns away */
	for (uint32_t i = 0; i < w->n_listeners; i++) {
		if (w->listeners[i].cfg->protocol != GW_DTLS)
			transport_unlisten(&w->listeners[i]);
	}
}

/* Has everybody been sent what there was to send? */
static bool all_told(struct worker *w)
{
	struct conn *c;

	LIST_FOREACH(c, &w->conns, next) {
		if (conn_backlog(c))
			return false;
	}
	return true;
}

void worker_stop(struct worker *w)
{
	uint64_t end_ms = clock_boot_ms() + GOODBYE_MS;
	struct conn *c, *next;

	for (uint32_t i = 0; i < w->n_listeners; i++)
		transport_unlisten(&w->listeners[i]);
	for (c = LIST_FIRST(&w->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		conn_close(c, 0, "the worker ends");
	}
	while (!all_told(w) && clock_boot_ms() < end_ms && worker_turn(w, 10) == 0)
		;
	while ((c = LIST_FIRST(&w->conns)) != NULL)
		conn_end(c);
	/* Who was here is the agent's to know: what its socket has no room for yet waits. */
	while (agent_backlog(w) && clock_boot_ms() < end_ms + FAREWELL_MS &&
	       worker_turn(w, 10) == 0)
		;
	conns_reap(w);
	reload_abort(w);
	for (uint32_t i = 0; i < w->n_listeners; i++)
		listener_close(&w->listeners[i]);
	opener_stop(&w->opener);
	agent_fini(w);
	dtls_steer_close(w);
	source_close(w, &w->signals);
	transport_stop(w);
	trust_unmap(&w->trust);
	gw_config_free(w->own_cfg);
	close(w->epoll);
}
