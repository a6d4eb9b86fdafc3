/* SPDX-License-Identifier: GPL-3.0-or-later */
/* transport: which of the two carries what, and the worker's turn of the one in this process. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "config/base/clock_near.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/stack/port.h"
#include "tls-proxy/stack/udp.h"
#include "tls-proxy/worker.h"

#define FRAMES_A_TURN 256
#define SERVE_US 500 /* of a turn; then frames, the agent and the clock come first */
#define YIELD_US 100 /* a turn of such a length lets others have the core */
#define SPIN_US                                                                                    \
	50 /* without work before it sleeps, on a core of its own: waking up costs as much */
#define ASK_US 50 /* so often a busy worker asks for events of descriptors */
#define HALF_OPEN_MAX 16384
#define MEMORY_BYTES (256ull << 20) /* for data; beside it SESSION_BYTES for each session */
#define SESSION_BYTES 2048

static void wake_ready(void *arg, uint32_t events)
{
	(void)arg;
	(void)events; /* transport_woken() takes what it says */
}

static uint64_t stack_sessions(const struct gw_config *cfg)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (cfg->listeners[i].transport == GW_STACK)
			n += cfg->listeners[i].sessions_max;
	}
	return n;
}

static uint16_t mtu_of(void *arg, const struct ip_addr *own)
{
	return gw_stack_mtu(((struct worker *)arg)->cfg, own);
}

int transport_start(struct worker *w, struct err *err)
{
	const struct gw_config *cfg = w->cfg;
	uint64_t sessions = stack_sessions(cfg);
	struct stack_config sc = {
		.port_first = cfg->tls_port_first,
		.port_last = cfg->tls_port_last,
		.workers = cfg->tls_workers,
		.index = w->index,
		.buckets = 4096,
		.half_open_max = HALF_OPEN_MAX,
		.memory_bytes = MEMORY_BYTES + sessions * SESSION_BYTES,
		.send = port_send,
		.fetch = conn_fetch,
		.mtu_of = mtu_of,
	};
	struct port_config pc = {.index = w->index, .hugepages = cfg->hugepages};
	char leaf[32], path[MSG_PATH_BYTES];
	int ret;

	if (!gw_uses_stack(cfg))
		return 0;
	if (w->index >= cfg->tls_workers)
		return err_set(err, -EINVAL, "--worker %u: tls.workers in gateway.cfg is %u",
			       w->index, cfg->tls_workers);
	snprintf(leaf, sizeof(leaf), "tls%u.sock", w->index);
	pc.path = gw_run_path(cfg, leaf, path);
	sc.mtu_bytes = pc.mtu_bytes = w->mtu_bytes = gw_stack_mtu_max(cfg);
	sc.mtu_arg = w;
	while (sc.buckets < 2 * sessions && sc.buckets < 1u << 19)
		sc.buckets *= 2;
	cpus_read(cfg->lcores, &w->dataplane_cpus);
	ret = port_open(&w->port, &pc, err);
	sc.arg = w->port;
	if (ret == 0)
		ret = stack_new(&w->stack, &sc, err);
	if (ret < 0)
		return ret;
	w->wake = (struct source){.fd = port_wake_fd(w->port), .ready = wake_ready};
	return source_add(w, &w->wake, EPOLLIN | EPOLLET);
}

static void counters_say(struct worker *w)
{
	const struct stack_stats *s = stack_stats(w->stack);
	const struct port_stats *p = port_stats(w->port);

	log_info("stack: in=%" PRIu64 " out=%" PRIu64 " sent_again=%" PRIu64 " dropped=%" PRIu64
		 " syns_dropped=%" PRIu64 " stalled=%" PRIu64 " no_port=%" PRIu64
		 " narrowed=%" PRIu64 " connections=%" PRId64 "; port: no_ip=%" PRIu64
		 " copied=%" PRIu64,
		 s->in, s->out, s->again, s->dropped, s->syns_dropped, s->out_stalled, s->ports_out,
		 s->narrowed, stack_connections(w->stack), p->in_dropped, p->in_copied);
}

void transport_stop(struct worker *w)
{
	if (w->stack != NULL)
		counters_say(w);
	stack_free(w->stack);
	port_close(w->port);
	w->stack = NULL;
	w->port = NULL;
	w->wake.fd = -1; /* the port's, and closed with it */
}

#define ASK_STREAMS 8 /* told between two looks at the clock */

struct serving {
	struct worker *w;
	uint64_t until_us;
	unsigned told;
};

static bool serve_enough(void *arg)
{
	struct serving *v = arg;

	/* A revocation waits for one stream at most, not for a batch of handshakes. */
	conns_follow(v->w);
	return ++v->told % ASK_STREAMS == 0 && clock_near_us() >= v->until_us;
}

static bool shares_core(const struct worker *w)
{
	int cpu = sched_getcpu();

	return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &w->dataplane_cpus);
}

/* Frames in, streams told, frames out. @return microseconds that the worker may sleep; the port's event is armed then */
static uint64_t stack_turn(struct worker *w)
{
	uint64_t now_us = clock_near_us();
	struct serving v = {.w = w, .until_us = now_us + SERVE_US};
	/* On a core of the dataplane's, what goes out early only takes the core from us, and nothing comes before we
	 * leave it. */
	bool shared = shares_core(w);
	unsigned frames;
	bool more;

	port_hold(w->port, shared);
	stack_clock(w->stack, now_us);
	frames = port_receive(w->port, w->stack, FRAMES_A_TURN);
	w->work += frames;
	more = stack_serve(w->stack, serve_enough, &v);
	w->behind = more || frames >= FRAMES_A_TURN;
	handshakes_turn(w, clock_near_us());
	port_flush(w->port);
	agent_post(w, clock_near_us());
	if (frames > 0 || more || !TAILQ_EMPTY(&w->shaking))
		w->busy_us = now_us;
	/* On a core that it shares with the dataplane, which waits for these frames. */
	if (clock_near_us() > now_us + YIELD_US)
		sched_yield();
	if (w->busy_us == now_us || now_us < w->busy_us + (shared ? 0 : SPIN_US) ||
	    stack_wait_us(w->stack, now_us) == 0)
		return 0;
	w->asleep = port_sleep(w->port, w->stack);
	return w->asleep ? stack_wait_us(w->stack, now_us) : 0;
}

int transport_turn(struct worker *w, uint64_t wait_ms,
		   int (*events)(struct worker *w, uint32_t wait_ms))
{
	uint64_t sleep_us, now_us;

	if (w->stack == NULL) {
		int ret = events(w, wait_ms);

		handshakes_turn(w, clock_near_us());
		return ret;
	}
	sleep_us = stack_turn(w);
	now_us = clock_near_us();
	if (sleep_us == 0 && now_us < w->asked_us + ASK_US)
		return 0;
	w->asked_us = now_us;
	return events(w, sleep_us / 1000 < wait_ms ? (sleep_us + 999) / 1000 : wait_ms);
}

void transport_woken(struct worker *w)
{
	if (w->asleep)
		port_wake(w->port);
	w->asleep = false;
}

void transport_tick(struct worker *w)
{
	if (w->port != NULL)
		port_tick(w->port);
}

static struct stream *stack_accepts(void *arg, const struct ip_addr *peer, uint16_t peer_port)
{
	struct conn *c = conn_start(arg, peer, peer_port);

	if (c == NULL)
		return NULL;
	conn_device(c)->w = ((struct listener *)arg)->w;
	return conn_device(c);
}

int transport_listen(struct listener *l, struct err *err)
{
	if (l->cfg->transport == GW_SOCKET)
		return socket_listen(l, err);
	if (l->w->stack == NULL)
		return err_set(err, -ENOTSUP,
			       "transport = \"stack\" of the first listener needs a restart");
	l->stk = (struct stack_listener){.accept = stack_accepts, .arg = l};
	return stack_listen(l->w->stack, &l->stk, &l->cfg->addr, l->cfg->port, err);
}

void transport_take(struct listener *l, struct listener *from)
{
	if (l->cfg->protocol == GW_DTLS) {
		dtls_take(l, from);
		return;
	}
	if (l->cfg->transport == GW_SOCKET) {
		socket_take(l, from);
		return;
	}
	/* The stack knows it by its place; only whom it tells changes. */
	l->stk_home = from->stk_home != NULL ? from->stk_home : from;
	l->stk_home->stk.arg = l;
	from->stk_home = NULL;
	from->lent = l->stk_home == from;
}

void transport_unlisten(struct listener *l)
{
	struct listener *home = l->stk_home != NULL ? l->stk_home : l;

	source_close(l->w, &l->src);
	if (l->w->stack != NULL && !l->lent)
		stack_unlisten(l->w->stack, &home->stk);
	if (home != l)
		home->lent = false;
	l->stk_home = NULL;
}

int transport_connect(struct listener *l, struct stream *s, const struct ip_addr *to, uint16_t port)
{
	struct ip_addr from[MSG_SOURCES_MAX];
	unsigned n;

	if (l->cfg->transport == GW_SOCKET)
		return socket_connect(l->w, s, to, port);
	n = gw_upstream_sources(l->w->cfg, to, from, MSG_SOURCES_MAX);
	s->w = l->w;
	return stack_connect(l->w->stack, s, from, n, to, port);
}

int transport_udp_listen(struct listener *l, struct datagram *d, struct err *err)
{
	if (l->cfg->transport == GW_SOCKET)
		return datagram_listen(l->w, d, &l->cfg->addr, l->cfg->port, err);
	d->w = l->w;
	return stack_udp_listen(l->w->stack, d, &l->cfg->addr, l->cfg->port, err);
}

int transport_udp_connect(struct listener *l, struct datagram *d, const struct ip_addr *to,
			  uint16_t port)
{
	struct ip_addr from[MSG_SOURCES_MAX];
	unsigned n;

	if (l->cfg->transport == GW_SOCKET)
		return datagram_connect(l->w, d, to, port);
	n = gw_upstream_sources(l->w->cfg, to, from, MSG_SOURCES_MAX);
	d->w = l->w;
	return stack_udp_connect(l->w->stack, d, from, n, to, port);
}
