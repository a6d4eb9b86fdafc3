/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The link's connection: back-off, frames in and out, receipts, alarms. */
#include "controlplane/agent/link.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "controlplane/agent/link_internal.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define SILENCE_MS 90000 /* three times the longest heartbeat interval: the peer is gone or stuck */
#define ASK_EVERY_MS 1000 /* snapshots and resubscriptions */
#define VIOLATIONS_MAX 16 /* on one connection, without a good heartbeat between */
#define ALARM_BURST 4
#define ALARM_REFILL_MS 10000

static const char *const alarm_names[ALARM_KINDS] = {
	[ALARM_SIGNATURE] = LINK_ALARM_SIGNATURE, [ALARM_MALFORMED] = LINK_ALARM_MALFORMED,
	[ALARM_HOLE] = LINK_ALARM_HOLE,		  [ALARM_FORGED] = LINK_ALARM_FORGED,
	[ALARM_REPLAYED] = LINK_ALARM_REPLAYED,	  [ALARM_EXPIRED] = LINK_ALARM_EXPIRED,
	[ALARM_CLOCK] = LINK_ALARM_CLOCK,	  [ALARM_ROLLBACK] = LINK_ALARM_ROLLBACK,
	[ALARM_STORE] = LINK_ALARM_STORE,
};

/* ---- alarms ---- */

static bool alarm_token(struct link *l, struct alarm_limit *a)
{
	if (a->tokens == ALARM_BURST)
		a->refill_ms =
			l->now_boot_ms + ALARM_REFILL_MS; /* full: its clock starts with this one */
	for (; a->tokens < ALARM_BURST && l->now_boot_ms >= a->refill_ms; a->tokens++)
		a->refill_ms += ALARM_REFILL_MS;
	if (a->tokens == 0) {
		a->suppressed++;
		return false;
	}
	a->tokens--;
	return true;
}

__attribute__((format(printf, 3, 0))) static void
raise_va(struct link *l, enum link_alarm_kind kind, const char *fmt, va_list ap)
{
	struct alarm_limit *a = &l->alarms[kind];
	char text[ERR_MSG_BYTES];
	size_t n;

	if (!alarm_token(l, a))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	n = strlen(text);
	if (a->suppressed > 0)
		snprintf(text + n, sizeof(text) - n, " (and %u like it before)", a->suppressed);
	a->suppressed = 0;
	l->cb.alarm(l->arg, alarm_names[kind], text);
}

void link_raise(struct link *l, enum link_alarm_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	raise_va(l, kind, fmt, ap);
	va_end(ap);
}

void link_ask_snapshot(struct link *l)
{
	struct frame f = {.type = FRAME_WANT_SNAPSHOT};

	l->want_snapshot = true;
	if (l->transport == NULL ||
	    (l->asked_snapshot_ms != 0 && l->now_boot_ms - l->asked_snapshot_ms < ASK_EVERY_MS))
		return;
	l->asked_snapshot_ms = l->now_boot_ms;
	link_send(l, &f);
}

void link_violation(struct link *l, enum link_alarm_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	raise_va(l, kind, fmt, ap);
	va_end(ap);
	if (++l->violations >= VIOLATIONS_MAX)
		l->broken = true;
	link_ask_snapshot(l);
}

/* ---- frames ---- */

void link_send(struct link *l, const struct frame *f)
{
	uint8_t *data;
	size_t bytes;

	if (l->transport == NULL || l->broken)
		return;
	if (frame_encode(&data, &bytes, f) < 0) {
		l->broken = true;
		return;
	}
	if (l->ops->send(l->transport, data, bytes) < 0)
		l->broken = true;
	free(data);
}

void link_subscribe(struct link *l)
{
	struct frame f = {.type = FRAME_SUBSCRIBE, .revision = l->state.revision};

	if (l->subscribed_ms != 0 && l->now_boot_ms - l->subscribed_ms < ASK_EVERY_MS)
		return;
	l->resubscribed = l->subscribed_ms != 0;
	if (!l->resubscribed)
		l->first_from = l->state.revision;
	l->subscribed_ms = l->now_boot_ms;
	memcpy(f.gateway, l->gateway, sizeof(f.gateway));
	memcpy(f.hash, l->state.hash, sizeof(f.hash));
	link_send(l, &f);
}

void link_send_stored_receipt(struct link *l, uint64_t revision)
{
	uint8_t hash[32], *data = NULL;
	size_t bytes = 0;

	if (l->transport == NULL || l->broken || revision == 0)
		return;
	if (store_entry_find(l->store, revision, hash, &data, &bytes) == 0 && bytes > 0 &&
	    l->ops->send(l->transport, data, bytes) < 0)
		l->broken = true;
	free(data);
}

static int on_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct link *l = arg;
	struct err err = {0};
	struct frame f;

	l->heard_ms = l->now_boot_ms;
	if (frame_decode(&f, data, bytes, &err) < 0) {
		link_violation(l, ALARM_MALFORMED, "from the controller's socket: %s", err.msg);
		return l->broken ? -EPROTO : 0;
	}
	switch (f.type) {
	case FRAME_ENTRY:
		link_on_entry(l, f.cose, f.cose_bytes);
		break;
	case FRAME_SNAPSHOT:
		link_on_snapshot(l, f.cose, f.cose_bytes);
		break;
	case FRAME_HEARTBEAT:
		link_on_heartbeat(l, f.cose, f.cose_bytes);
		break;
	case FRAME_SUBSCRIBE:
	case FRAME_RECEIPT:
	case FRAME_WANT_SNAPSHOT:
		link_violation(l, ALARM_MALFORMED,
			       "from the controller's socket: a gateway's frame");
		break;
	}
	return l->broken ? -EPROTO : 0;
}

/* ---- connection ---- */

static void disconnect(struct link *l)
{
	l->ops->close(l->transport); /* leaves the epoll set with it */
	l->transport = NULL;
	l->broken = false;
	l->state.connected = false;
	l->backoff_ms = l->backoff_ms == 0 ? BACKOFF_MIN_MS : l->backoff_ms * 2;
	if (l->backoff_ms > BACKOFF_MAX_MS)
		l->backoff_ms = BACKOFF_MAX_MS;
	l->retry_ms = l->now_boot_ms + l->backoff_ms;
}

static void watch(struct link *l)
{
	struct epoll_event ev = {.events = EPOLLIN};

	if (l->transport == NULL)
		return;
	if (l->broken) {
		disconnect(l);
		return;
	}
	if (l->ops->wants_write(l->transport))
		ev.events |= EPOLLOUT;
	if (ev.events == l->events)
		return;
	if (epoll_ctl(l->epoll, l->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
		      l->ops->fd(l->transport), &ev) < 0)
		disconnect(l);
	else
		l->events = ev.events;
}

static void connect_now(struct link *l)
{
	if (l->ops->open(&l->transport, l->address, NULL) < 0) {
		l->transport = NULL;
		disconnect(l);
		return;
	}
	l->events = 0;
	l->violations = 0;
	l->asked_snapshot_ms = l->subscribed_ms = 0;
	l->heard_ms = l->now_boot_ms;
	l->state.connected = true;
	link_subscribe(l);
	link_send_stored_receipt(l, l->state.revision);
	if (l->want_snapshot)
		link_ask_snapshot(l);
	watch(l);
}

void link_dispatch(struct link *l, uint64_t now_boot_ms, uint64_t now_wall_ms)
{
	int ret;

	l->now_boot_ms = now_boot_ms;
	l->now_wall_ms = now_wall_ms;
	if (l->transport == NULL)
		return;
	ret = l->ops->pump(l->transport, on_frame, l);
	if (ret == -EPROTO && !l->broken)
		link_raise(l, ALARM_MALFORMED, "the controller's stream is truncated or malformed");
	if (ret < 0)
		l->broken = true;
	watch(l);
}

void link_tick(struct link *l, uint64_t now_boot_ms, uint64_t now_wall_ms)
{
	l->now_boot_ms = now_boot_ms;
	l->now_wall_ms = now_wall_ms;
	if (l->state.frozen)
		return;
	if (l->transport == NULL) {
		if (now_boot_ms >= l->retry_ms)
			connect_now(l);
		return;
	}
	if (now_boot_ms - l->heard_ms > SILENCE_MS)
		l->broken = true;
	watch(l);
}

int link_receipt(struct link *l, struct receipt *r, struct err *err)
{
	uint8_t *data;
	size_t bytes;
	int ret;

	memcpy(r->gateway, l->gateway, sizeof(r->gateway));
	ret = receipt_encode(&data, &bytes, r);
	if (ret < 0)
		return err_set(err, ret, "receipt: %s",
			       ret == -ENOMEM ? "out of memory" : "a field is wrong");
	ret = store_receipt_put(l->store, r->revision, data, bytes, err);
	if (ret == 0 && l->transport != NULL && !l->broken) {
		if (l->ops->send(l->transport, data, bytes) < 0)
			l->broken =
				true; /* closed by the next tick or dispatch; we may be inside one */
	}
	free(data);
	return ret;
}

/* ---- life ---- */

int link_new(struct link **out, const struct gw_config *cfg, struct store *store,
	     const struct link_callbacks *cb, void *arg, struct err *err)
{
	struct link *l = calloc(1, sizeof(*l));
	int ret = -ENOMEM;

	if (l == NULL)
		return err_set(err, ret, "out of memory");
	l->epoll = -1;
	l->ops = &transport_embedded;
	l->store = store;
	l->cb = *cb;
	l->arg = arg;
	l->skew_ms = (uint64_t)cfg->controller_skew_s * 1000;
	snprintf(l->address, sizeof(l->address), "%s", cfg->controller_socket);
	snprintf(l->gateway, sizeof(l->gateway), "%s", cfg->name);
	for (unsigned i = 0; i < ALARM_KINDS; i++)
		l->alarms[i].tokens = ALARM_BURST;
	ret = cose_verifier_load(&l->key, cfg->controller_key, err);
	if (ret < 0) {
		err_wrap(err, ret, "controller key");
		goto fail;
	}
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0) {
		ret = err_set(err, -errno, "epoll: %s", strerror(errno));
		goto fail;
	}
	*out = l;
	return 0;
fail:
	link_free(l);
	return ret;
}

void link_free(struct link *l)
{
	if (l == NULL)
		return;
	if (l->ops != NULL)
		l->ops->close(l->transport);
	if (l->epoll >= 0)
		close(l->epoll);
	free(l->revocations);
	free(l);
}

int link_fd(const struct link *l)
{
	return l->epoll;
}

void link_get_state(const struct link *l, struct link_state *out)
{
	*out = l->state;
}
