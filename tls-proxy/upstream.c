/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/upstream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/proxyv2.h"
#include "tls-proxy/tls_client.h"
#include "tls-proxy/worker.h"

/* With nobody else to turn to, knowing that it is down would only add silence; and over UDP no answer means nothing. */
bool upstreams_checked(const struct listener *l)
{
	return l->up.n > 1 && l->cfg->protocol != GW_DTLS && l->cfg->upstream_check.interval_s > 0;
}

static unsigned upstreams_left(const struct listener *l)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < l->up.n; i++)
		n += !l->up.list[i].down;
	return n;
}

static void turn(struct upstream *u, bool down, const char *why)
{
	char text[ADDR_TEXT_BYTES];
	unsigned left;

	u->down = down;
	u->streak = 0;
	left = upstreams_left(u->l);
	ip_addr_text(&u->cfg->addr, text);
	if (!down)
		log_info("upstream up listener=%s upstream=%s port=%u up=%u", u->l->cfg->name, text,
			 u->cfg->port, left);
	else
		log_warn("upstream down listener=%s upstream=%s port=%u up=%u why=\"%s\"",
			 u->l->cfg->name, text, u->cfg->port, left, why);
	if (left == 0)
		log_error("no upstream is up listener=%s: devices are refused until one is",
			  u->l->cfg->name);
}

/* One result. Only as many in a row as configured change anything. */
static void judge(struct upstream *u, bool good, const char *why)
{
	const struct gw_upstream_check *cfg = &u->l->cfg->upstream_check;

	if (!upstreams_checked(u->l))
		return;
	if (good != u->down) {
		u->streak = 0;
		return;
	}
	if (++u->streak >= (u->down ? cfg->rise : cfg->fall))
		turn(u, !u->down, why);
}

static void failure_note(struct upstream *u, const char *why)
{
	u->failed_ms = clock_boot_ms();
	snprintf(u->why, sizeof(u->why), "%s", why);
}

void upstream_worked(struct listener *l, unsigned i)
{
	l->up.list[i].connected++;
	l->up.list[i].sessions++;
	judge(&l->up.list[i], true, "");
}

void upstream_left(struct listener *l, unsigned i)
{
	l->up.list[i].sessions--;
}

void upstream_failed(struct listener *l, unsigned i, const char *why)
{
	l->up.list[i].failed++;
	failure_note(&l->up.list[i], why);
	judge(&l->up.list[i], false, why);
}

/* Each gets credit by its weight, and the richest pays for its turn: no upstream gets its share all at once. */
int upstream_pick(struct listener *l, uint32_t allowed)
{
	struct upstream *best = NULL;
	int32_t total = 0;

	for (uint32_t i = 0; i < l->up.n; i++) {
		struct upstream *u = &l->up.list[i];

		if (u->down || !(allowed & 1u << i))
			continue;
		u->credit += u->cfg->weight;
		total += u->cfg->weight;
		if (best == NULL || u->credit > best->credit)
			best = u;
	}
	if (best == NULL)
		return -EHOSTUNREACH;
	best->credit -= total;
	return best - l->up.list;
}

int upstream_dial(struct listener *l, unsigned i, struct stream *s, struct session **tls,
		  const char *alpn)
{
	const struct gw_upstream *to = &l->up.list[i].cfg[0];
	const struct session_server server = {.name = l->cfg->upstream_tls.name,
					      .addr = to->addr,
					      .alpn = l->cfg->upstream_tls.alpn ? alpn : NULL};
	int ret;

	*tls = NULL;
	if (l->up.tls.n_certs != 0) {
		ret = session_new_client(tls, &l->up.tls, &server);
		if (ret < 0)
			return ret;
	}
	ret = transport_connect(l, s, &to->addr, to->port);
	if (ret < 0) {
		session_free(*tls);
		*tls = NULL;
	}
	return ret;
}

/* ---- checks ---- */

static void probe_end(struct upstream *u, bool good, const char *why)
{
	struct upstream_probe *p = &u->probe;

	stream_close(&p->stream);
	session_free(p->tls);
	p->tls = NULL;
	p->next_ms = clock_boot_ms() + u->l->cfg->upstream_check.interval_s * 1000ull;
	u->checks++;
	u->checks_failed += !good;
	if (!good)
		failure_note(u, why);
	judge(u, good, why);
}

/* The server reads a header before all else: this one says that the connection is the gateway's own. */
static int probe_connected(struct upstream *u)
{
	struct upstream_probe *p = &u->probe;
	uint8_t header[PROXYV2_LOCAL_BYTES];
	int ret = stream_connected(&p->stream);

	if (ret < 0 || p->connected)
		return ret;
	if (u->l->cfg->proxy_protocol) {
		proxyv2_local(header);
		if (stream_send(&p->stream, header, sizeof(header)) != sizeof(header))
			return -EIO;
	}
	p->connected = true;
	return 0;
}

/* Bytes both ways until the handshake is done. @return 0, -EAGAIN or -errno */
static int probe_shake(struct upstream_probe *p)
{
	enum session_state state;

	bool may = true;

	if (!wire_receive(&p->stream, p->tls, &may))
		return -ECONNRESET;
	state = session_step(p->tls);
	if (!wire_send(&p->stream, p->tls))
		return -ECONNRESET;
	if (state == SESSION_OPEN) {
		session_close_notify(p->tls);
		wire_send(&p->stream, p->tls);
		return 0;
	}
	stream_want(&p->stream, STREAM_READ | (session_backlog(p->tls) ? STREAM_WRITE : 0u));
	return state == SESSION_FAILED ? -EPROTO : -EAGAIN;
}

static void probe_ready(void *arg, uint32_t events)
{
	struct upstream *u = arg;
	struct upstream_probe *p = &u->probe;
	int ret = p->connected ? 0 : probe_connected(u);

	(void)events;
	if (ret == 0 && p->tls != NULL)
		ret = probe_shake(p);
	if (ret == -EAGAIN || ret == -EINPROGRESS)
		return;
	probe_end(u, ret == 0, ret == -EPROTO ? session_reason(p->tls) : strerror(-ret));
}

static void probe_begin(struct upstream *u, uint64_t now_ms)
{
	struct upstream_probe *p = &u->probe;
	int ret;

	p->stream = (struct stream){.ready = probe_ready, .arg = u};
	p->connected = false;
	p->deadline_ms = now_ms + u->l->cfg->upstream_check.timeout_s * 1000ull;
	ret = upstream_dial(u->l, u - u->l->up.list, &p->stream, &p->tls, NULL);
	if (ret < 0)
		probe_end(u, false, strerror(-ret));
}

void upstreams_tick(struct listener *l, uint64_t now_ms)
{
	for (uint32_t i = 0; upstreams_checked(l) && i < l->up.n; i++) {
		struct upstream *u = &l->up.list[i];

		if (stream_is_open(&u->probe.stream)) {
			if (now_ms >= u->probe.deadline_ms)
				probe_end(u, false, "no answer in time");
		} else if (now_ms >= u->probe.next_ms) {
			probe_begin(u, now_ms);
		}
	}
}

/* ---- start and end ---- */

int upstreams_open(struct listener *l, struct err *err)
{
	uint64_t now_ms = clock_boot_ms();

	l->up = (struct upstreams){.n = l->cfg->n_upstreams};
	for (uint32_t i = 0; i < l->up.n; i++) {
		l->up.list[i].l = l;
		l->up.list[i].cfg = &l->cfg->upstreams[i];
		/* one after the other */
		l->up.list[i].probe.next_ms =
			now_ms + l->cfg->upstream_check.interval_s * 1000ull * (i + 1) / l->up.n;
	}
	if (l->cfg->upstream_tls.line == 0)
		return 0;
	return tls_client_load(&l->up.tls, &l->cfg->upstream_tls, l->w->files, err);
}

/* Of a listener whose upstreams are the same ones, none is up for its new keys' sake. */
void upstreams_inherit(struct listener *l, const struct listener *from)
{
	for (uint32_t i = 0; i < l->up.n; i++) {
		struct upstream *u = &l->up.list[i];

		for (uint32_t k = 0; k < from->up.n; k++) {
			const struct upstream *was = &from->up.list[k];

			if (was->cfg->port != u->cfg->port ||
			    !ip_addr_eq(&was->cfg->addr, &u->cfg->addr))
				continue;
			u->down = was->down && upstreams_checked(l);
			u->connected = was->connected;
			u->failed = was->failed;
			u->checks = was->checks;
			u->checks_failed = was->checks_failed;
			u->failed_ms = was->failed_ms;
			memcpy(u->why, was->why, sizeof(u->why));
		}
	}
}

void upstreams_rest(struct listener *l)
{
	for (uint32_t i = 0; i < l->up.n; i++) {
		stream_close(&l->up.list[i].probe.stream);
		session_free(l->up.list[i].probe.tls);
		l->up.list[i].probe.tls = NULL;
	}
}

void upstreams_close(struct listener *l)
{
	upstreams_rest(l);
	tls_ctx_fini(&l->up.tls);
}
