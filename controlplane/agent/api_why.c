/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/api_why.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config/base/clock.h"
#include "controlplane/agent/traced.h"

#define SPORT_DEFAULT 40000 /* rules do not look at it */

static void line(json_t *lines, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void line(json_t *lines, const char *what, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(lines, json_pack("{s:s,s:s}", "what", what, "text", text));
}

static const char *when(char *out, size_t bytes, uint64_t wall_ms)
{
	time_t t = wall_ms / 1000;
	struct tm tm;

	if (wall_ms == CLOCK_NEVER_MS)
		return "never";
	gmtime_r(&t, &tm);
	strftime(out, bytes, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return out;
}

static void why_certificate(const struct agent *a, const struct device *d, json_t *lines)
{
	char nb[32], na[32], crl[32], sha[65];

	if (!d->cert.known) {
		line(lines, "certificate", "none presented yet");
		return;
	}
	line(lines, "certificate", "%.16s.. valid %s to %s%s%s", hex_text(sha, d->cert.sha256, 32),
	     when(nb, sizeof(nb), d->cert.not_before_s * 1000),
	     when(na, sizeof(na), d->cert.not_after_s * 1000),
	     registry_cert_revoked(a->registry, d, &d->cert) ? ", REVOKED" : "",
	     d->pinned
		     ? memcmp(d->pin, d->cert.sha256, 32) == 0 ? ", pinned" : ", NOT the pinned one"
		     : "");
	if (d->cert.crl_next_update_s != 0)
		line(lines, "evidence", "revocation list good until %s",
		     when(crl, sizeof(crl), d->cert.crl_next_update_s * 1000));
}

static void why_software(const struct agent *a, const struct device *d, json_t *lines)
{
	const struct software *s = registry_software(a->registry, d->digest);
	char sha[65], until[32];

	hex_text(sha, d->digest, 32);
	if (s == NULL || (!s->certified && !s->revoked))
		line(lines, "evidence", "software sha256:%.16s.. is not certified", sha);
	else
		line(lines, "evidence", "software sha256:%.16s.. %s %s %s until %s", sha, s->name,
		     s->version, s->revoked ? "certification REVOKED" : "certified",
		     when(until, sizeof(until), s->not_after_ms));
}

static void why_attestation(const struct agent *a, const struct device *d, json_t *lines)
{
	uint64_t now = clock_wall_ms();
	char until[32];

	if (!d->attested) {
		line(lines, "evidence", "no attestation result");
		return;
	}
	line(lines, "evidence", "attestation %s, %llu s old, %s %s", attest_tier_name(d->tier),
	     (unsigned long long)(now > d->attested_ms ? (now - d->attested_ms) / 1000 : 0),
	     d->attest_expires_ms > now ? "good until" : "EXPIRED at",
	     when(until, sizeof(until), d->attest_expires_ms));
	why_software(a, d, lines);
}

/* Judged afresh, by the live path's own function. */
static struct judgement why_device(struct agent *a, const struct device *d, json_t *lines)
{
	const struct seg_segment *home = segments_match(a->segments, d->kind, d->identity);
	uint64_t now = clock_boot_ms(), wall = clock_wall_ms();
	struct evidence ev = enforce_evidence(a, d, now);
	struct judgement j = decide(&ev, home, a->segments, now);
	const struct binding *b;
	char text[ADDR_TEXT_BYTES], mac[MAC_TEXT_BYTES], until[32];

	line(lines, "device", "%s, %s, last decision %llu", d->identity,
	     d->enrolled ? "enrolled" : "NOT enrolled", (unsigned long long)d->revision);
	why_certificate(a, d, lines);
	why_attestation(a, d, lines);
	if (d->quarantined)
		line(lines, "evidence", "quarantined: %s",
		     d->quarantine_reason[0] != '\0' ? d->quarantine_reason : "no reason given");
	if (a->lease_before_boot_ms == CLOCK_NEVER_MS)
		line(lines, "evidence", "controller not heard of since the box started");
	else if (a->lease_until_ms <= now)
		line(lines, "evidence", "controller out of reach for %llu s",
		     (unsigned long long)(now - a->lease_until_ms + a->lease_before_boot_ms) /
			     1000);
	line(lines, "standing", "%s: %s", standing_name(j.standing), decide_reason_text(j.reason));
	if (home != NULL)
		line(lines, "segment", "%s (own segment: %s, %s:%u)",
		     j.segment[0] != '\0' ? j.segment : "none", home->name, a->segments->file,
		     home->line);
	else
		line(lines, "segment", "none: no member pattern in %s matches", a->segments->file);
	LIST_FOREACH(b, &a->bound[d->slot], of_device)
		line(lines, "binding", "%s at %s, port %s, vlan %u%s", ip_addr_text(&b->ip, text),
		     mac_addr_text(&b->mac, mac), a->cfg->ports[b->port].name, b->vlan,
		     b->sessions > 0 ? ", session open" : ", under lease");
	if (LIST_EMPTY(&a->bound[d->slot]))
		line(lines, "binding", "none: it has no session, and no lease is left");
	if (j.expires_ms != 0)
		line(lines, "expiry", "%s, in %llu s",
		     when(until, sizeof(until),
			  j.expires_ms == CLOCK_NEVER_MS ? CLOCK_NEVER_MS
							 : wall + j.expires_ms - now),
		     (unsigned long long)(j.expires_ms - now) / 1000);
	return j;
}

struct end {
	struct ip_addr ip;
	uint16_t endpoint; /* 0: in nothing */
	bool passes;
	enum drop_reason why; /* if not */
};

/* As admission names it. */
static enum drop_reason standing_reason(const struct judgement *j, uint64_t now_ms)
{
	if (j->standing == STANDING_REVOKED)
		return DROP_REVOKED;
	if (!standing_passes(j->standing))
		return DROP_NO_TRUST;
	return now_ms >= j->expires_ms ? DROP_EXPIRED : DROP_NO_TRUST;
}

static bool why_end(struct agent *a, json_t *request, const char *key, struct end *e, json_t *lines)
{
	const char *text = json_string_value(json_object_get(request, key));
	const struct policy_endpoint *ep;
	const struct binding *b;

	if (text == NULL || ip_addr_parse(&e->ip, text) < 0)
		return false;
	b = binding_find(a, &e->ip);
	if (b != NULL) {
		struct judgement j;

		line(lines, key, "%s is bound to %s", text, b->dev->identity);
		j = why_device(a, b->dev, lines);
		ep = policy_endpoint_by_name(a->form, j.segment);
		e->endpoint = ep != NULL ? ep->id : 0;
		e->passes = standing_passes(j.standing) && e->endpoint != 0;
		e->why = standing_reason(&j, clock_boot_ms());
		return true;
	}
	e->endpoint = policy_network_of(a->form, &e->ip);
	e->passes = e->endpoint != 0;
	e->why = DROP_NO_SEGMENT;
	ep = policy_endpoint_by_id(a->form, e->endpoint);
	if (ep != NULL)
		line(lines, key, "%s is in network %s", text, ep->name);
	else
		line(lines, key, "%s is no bound device and in no network", text);
	return true;
}

static bool proto_parse(const char *text, uint8_t *proto, bool v4)
{
	if (text == NULL)
		return false;
	if (strcmp(text, "tcp") == 0)
		*proto = POLICY_PROTO_TCP;
	else if (strcmp(text, "udp") == 0)
		*proto = POLICY_PROTO_UDP;
	else if (strcmp(text, "icmp") == 0 || strcmp(text, "ping") == 0)
		*proto = v4 ? POLICY_PROTO_ICMP : POLICY_PROTO_ICMP6;
	else
		return false;
	return true;
}

struct why_call {
	struct api_call *call;
	struct agent *a;
	json_t *lines;
	const char *verdict, *reason; /* the policy's, should the dataplane not know */
};

/* With a dataplane its word counts: it sent a packet through its own stages. */
static void why_judged(void *arg, const union msg_any *reply)
{
	struct why_call *c = arg;
	json_t *told = NULL, *stage, *r;
	size_t i;

	if (reply != NULL && reply->h.type == MSG_JUDGED &&
	    msg_traced_check(&reply->traced, c->a->cfg->n_ports))
		told = traced_json(c->a, &reply->traced);
	json_array_foreach(json_object_get(told, "stages"), i, stage) {
		json_array_append_new(c->lines, json_pack("{s:O,s:O}", "what",
							  json_object_get(stage, "stage"), "text",
							  json_object_get(stage, "text")));
	}
	if (told == NULL)
		line(c->lines, "packet",
		     "the dataplane cannot be asked: this is the policy's word");
	else if (reply->traced.edge == TRACED_DROPPED) {
		c->verdict = "deny";
		c->reason = drop_reason_name(reply->traced.reason);
	} else if (reply->traced.stage == TRACED_DIVERT) {
		c->verdict = "listener";
		c->reason = drop_reason_name(DROP_NONE);
	} else if (reply->traced.edge == TRACED_FORWARDED) {
		c->verdict = "allow";
		c->reason = drop_reason_name(DROP_NONE);
	}
	r = json_pack("{s:s,s:s,s:o}", "verdict", c->verdict, "reason", c->reason, "lines",
		      c->lines);
	if (told != NULL)
		json_object_set(r, "packet", told);
	api_reply(c->call, r);
	json_decref(told);
	free(c);
}

/* What the policy says by itself; it is all there is without a dataplane, and what nftables does. */
static void why_policy(struct why_call *c, const struct end *src, const struct end *dst,
		       uint8_t proto, uint16_t port)
{
	const struct policy_form *form = c->a->form;
	const struct policy_entry *e =
		policy_lookup(form, src->endpoint, dst->endpoint, proto, port);

	c->verdict = "deny";
	if (!src->passes || !dst->passes) {
		const struct end *who = !src->passes ? src : dst;

		c->reason = drop_reason_name(who->why);
		line(c->lines, "rule", "not looked at: %s passes nothing (%s)",
		     !src->passes ? "the source" : "the destination", c->reason);
	} else if (e == NULL) {
		c->reason = drop_reason_name(DROP_DENIED);
		line(c->lines, "rule", "none in %s allows it: denied", form->file);
	} else {
		const struct policy_rule *r = &policy_rules(form)[e->rule];

		c->verdict = e->action == POLICY_ALLOW ? "allow" : "deny";
		c->reason = drop_reason_name(e->action == POLICY_ALLOW ? DROP_NONE : DROP_DENIED);
		line(c->lines, "rule", "%s:%u: \"%s\": %s", form->file, r->line, r->name,
		     c->verdict);
	}
}

static void why_flow(struct agent *a, struct api_call *call, json_t *request)
{
	json_t *dport = json_object_get(request, "dport"),
	       *sport = json_object_get(request, "sport");
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct why_call *c = calloc(1, sizeof(*c));
	struct end src = {0}, dst = {0};
	struct msg_judge m = {0};
	uint16_t port = json_integer_value(dport);

	if (c == NULL) {
		api_fail(call, "internal", "out of memory");
		return;
	}
	*c = (struct why_call){.call = call, .a = a, .lines = json_array()};
	if (!why_end(a, request, "src", &src, c->lines) ||
	    !why_end(a, request, "dst", &dst, c->lines) ||
	    !proto_parse(json_string_value(json_object_get(request, "proto")), &m.key.proto,
			 ip_addr_is_v4(&src.ip)) ||
	    json_integer_value(dport) < 0 || json_integer_value(dport) > 65535 ||
	    json_integer_value(sport) < 0 || json_integer_value(sport) > 65535) {
		json_decref(c->lines);
		free(c);
		api_fail(call, "invalid",
			 "a flow is src, dst (addresses), proto (tcp, udp, icmp) and dport");
		return;
	}
	if (dport == NULL && m.key.proto != POLICY_PROTO_TCP && m.key.proto != POLICY_PROTO_UDP)
		port = m.key.proto == POLICY_PROTO_ICMP ? 8 : 128;
	why_policy(c, &src, &dst, m.key.proto, port);
	m.key.src = src.ip;
	m.key.dst = dst.ip;
	m.key.dport = port;
	m.key.sport = sport != NULL ? json_integer_value(sport) : SPORT_DEFAULT;
	MSG_INIT(&m, MSG_JUDGE, 0);
	if (dp != NULL)
		peer_request(dp, &m, -1, AGENT_ANSWER_MS, why_judged, c);
	else
		why_judged(c, NULL);
}

void api_why(struct agent *a, struct api_call *call, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "device"));
	json_t *lines;
	struct device *d;
	struct judgement j;

	if (name == NULL) {
		why_flow(a, call, request);
		return;
	}
	d = api_device(a, name);
	if (d == NULL) {
		api_fail(call, "not_found", "no device \"%s\": it was never enrolled", name);
		return;
	}
	lines = json_array();
	j = why_device(a, d, lines);
	api_reply(call, json_pack("{s:s,s:s,s:o}", "verdict", standing_name(j.standing), "segment",
				  j.segment, "lines", lines));
}
