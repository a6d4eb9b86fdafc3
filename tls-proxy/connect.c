/* SPDX-License-Identifier: GPL-3.0-or-later */
/* connect: from an admitted device to an upstream that answers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/dtls.h"
#include "tls-proxy/proxyv2.h"
#include "tls-proxy/worker.h"

#define UPSTREAM_TRIES 3 /* a device waits meanwhile */

int connect_header(struct conn *c, uint8_t *out, size_t room)
{
	const struct listener *l = c->l;
	const struct tls_cert *shown;
	char sni[256], alpn[256], id[PROXYV2_UNIQUE_ID_BYTES];
	struct proxyv2 p = {.tlvs = l->cfg->proxy_tlvs,
			    .src = c->peer,
			    .dst = l->cfg->addr,
			    .sport = c->peer_port,
			    .dport = l->cfg->port,
			    .datagrams = c->assoc != NULL,
			    .id = session_identity(c->tls),
			    .resumed = session_resumed(c->tls),
			    .tls_version = session_version(c->tls),
			    .cipher = session_cipher(c->tls),
			    .group = session_group(c->tls),
			    .authority = sni,
			    .alpn = alpn,
			    .unique_id = id,
			    .segment = c->segment,
			    .standing = standing_name(c->standing)};

	if (!l->cfg->proxy_protocol)
		return 0;
	session_sni(c->tls, sni, sizeof(sni));
	shown = tls_ctx_choose(&l->ctx, sni);
	p.front = shown != NULL ? &shown->front : NULL;
	session_alpn(c->tls, alpn, sizeof(alpn));
	p.cert = session_certificate(c->tls, &p.cert_bytes);
	snprintf(id, sizeof(id), "%016llx-%llx", (unsigned long long)c->w->instance,
		 (unsigned long long)c->id);
	return proxyv2_encode(out, room, &p);
}

/* Datagrams have it each: dtls_assoc.c. */
static int proxy_header(struct conn *c)
{
	int n;

	if (!c->l->cfg->proxy_protocol || c->assoc != NULL)
		return 0;
	if (!buffer_hold(&c->to_up))
		return -ENOMEM;
	n = connect_header(c, c->to_up.data, c->to_up.capacity);
	if (n > 0)
		c->to_up.n = n;
	return n;
}

void connect_begin(struct conn *c)
{
	char alpn[256];
	int i;

	for (unsigned n = 0; n < UPSTREAM_TRIES; n++) {
		i = __builtin_popcount(c->tried) < UPSTREAM_TRIES
			    ? upstream_pick(c->l, c->relay & ~c->tried)
			    : -EHOSTUNREACH;
		if (i < 0)
			break;
		c->tried |= 1u << i;
		if (c->up_counted)
			upstream_left(c->l, c->upstream);
		c->up_counted = false;
		c->upstream = i;
		c->state = CONN_CONNECT;
		c->up_connected = false;
		c->deadline_ms = clock_boot_ms() + c->l->cfg->connect_timeout_s * 1000ull;
		if (proxy_header(c) < 0) {
			conn_close(c, SESSION_ALERT_INTERNAL_ERROR, "PROXY header: no room");
			return;
		}
		session_alpn(c->tls, alpn, sizeof(alpn));
		i = c->assoc != NULL ? assoc_connect(c)
				     : upstream_dial(c->l, i, &c->up, &c->up_tls,
						     alpn[0] != '\0' ? alpn : NULL);
		if (i == 0) {
			conn_wake(c);
			conn_work(c);
			return;
		}
		upstream_failed(c->l, c->upstream, strerror(-i));
	}
	conn_log(c, "no upstream",
		 c->tried == 0 ? "none that it may reach is up"
			       : "none of those that were tried answers");
	conn_close(c, SESSION_ALERT_INTERNAL_ERROR, "upstream cannot be reached");
}

/* The device has heard of nothing yet, and nothing of it was sent: another one may do. */
static void connect_failed(struct conn *c, const char *why)
{
	char what[96], text[ADDR_TEXT_BYTES];
	const struct gw_upstream *u = &c->l->cfg->upstreams[c->upstream];

	snprintf(what, sizeof(what), "upstream refused upstream=%s upstream_port=%u",
		 ip_addr_text(&u->addr, text), u->port);
	conn_log(c, what, why);
	upstream_failed(c->l, c->upstream, why);
	if (c->assoc != NULL) {
		conn_close(c, SESSION_ALERT_INTERNAL_ERROR, "upstream cannot be reached");
		return;
	}
	stream_reset(&c->up);
	session_free(c->up_tls);
	c->up_tls = NULL;
	buffer_drop(&c->to_up);
	connect_begin(c);
}

static void connect_done(struct conn *c)
{
	if (!c->up_counted)
		upstream_worked(c->l, c->upstream);
	c->up_counted = true;
	session_certificate_drop(c->tls);
	c->state = CONN_RELAY;
	c->dev_may = c->up_may = true;
	if (stream_is_near(&c->dev))
		session_carry(c->tls, &(struct session_wire){&c->dev, &c->dev_may, &c->dev_fin});
	if (c->up_tls != NULL && stream_is_near(&c->up))
		session_carry(c->up_tls, &(struct session_wire){&c->up, &c->up_may, &c->up_fin});
	c->active_ms = clock_boot_ms();
	conn_wake(c);
	relay_work(c);
}

/* @return 0, -EAGAIN: its stream will tell, or -errno */
static int connect_shake(struct conn *c)
{
	enum session_state state;
	bool may = true;

	/* The header goes before the handshake, in the clear: so do the servers that read it expect it. */
	while (buffer_waiting(&c->to_up) > 0) {
		ssize_t n =
			stream_send(&c->up, c->to_up.data + c->to_up.at, buffer_waiting(&c->to_up));

		if (n < 0)
			return n;
		buffer_taken(&c->to_up, n);
	}
	if (!wire_receive(&c->up, c->up_tls, &may))
		return -ECONNRESET;
	state = session_step(c->up_tls);
	if (!wire_send(&c->up, c->up_tls))
		return -ECONNRESET;
	stream_want(&c->up, STREAM_READ | (session_backlog(c->up_tls) ? STREAM_WRITE : 0u));
	return state == SESSION_OPEN ? 0 : state == SESSION_FAILED ? -EPROTO : -EAGAIN;
}

void connect_work(struct conn *c)
{
	int ret = c->up_connected ? 0 : stream_connected(&c->up);

	stream_want(&c->dev, 0); /* back-pressure until there is somewhere to go */
	c->up_connected = ret == 0;
	if (ret == 0 && c->up_tls != NULL)
		ret = connect_shake(c);
	if (ret == -EINPROGRESS || ret == -EAGAIN)
		return;
	if (ret == 0)
		connect_done(c);
	else
		connect_failed(c, ret == -EPROTO ? session_reason(c->up_tls) : strerror(-ret));
}

void connect_late(struct conn *c)
{
	connect_failed(c, "no answer in time");
}
