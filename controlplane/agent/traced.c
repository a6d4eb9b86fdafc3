/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/traced.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"

struct story {
	struct agent *a;
	const struct msg_traced *m;
	json_t *stages;
	const struct policy_form *form; /* of the packet's epoch; NULL: not the one in force */
};

static void stage(struct story *s, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void stage(struct story *s, const char *name, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(s->stages, json_pack("{s:s,s:s}", "stage", name, "text", text));
}

static bool is_link(uint16_t port)
{
	return port >= MSG_PORT_LINK && port < MSG_PORT_LINK + MSG_TLS_WORKERS_MAX;
}

static const char *port_name(const struct story *s, uint16_t port)
{
	static const char *const links[MSG_TLS_WORKERS_MAX] = {
		"tls0", "tls1", "tls2",	 "tls3",  "tls4",  "tls5",  "tls6",  "tls7",
		"tls8", "tls9", "tls10", "tls11", "tls12", "tls13", "tls14", "tls15"};

	if (is_link(port))
		return links[port - MSG_PORT_LINK];
	return port < s->a->cfg->n_ports ? s->a->cfg->ports[port].name : "the kernel";
}

static const char *proto_name(uint8_t proto, char out[16])
{
	switch (proto) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_ICMPV6:
		return "icmp6";
	}
	snprintf(out, 16, "proto %u", proto);
	return out;
}

static const char *identity(const struct story *s, uint32_t slot)
{
	const struct device *d = registry_by_slot(s->a->registry, slot);

	return d != NULL ? d->identity : "an unknown device";
}

static bool died_at(const struct msg_traced *m, enum traced_stage at)
{
	return m->edge == TRACED_DROPPED && m->stage == at;
}

static void tell_rx(struct story *s)
{
	const struct msg_traced *m = s->m;
	char from[MAC_TEXT_BYTES], to[MAC_TEXT_BYTES];

	if (m->frame_bytes == 0)
		return; /* a question about a packet that the dataplane would not get */
	stage(s, "receive", "port %s, core %u, %u bytes, %s > %s", port_name(s, m->in_port),
	      m->worker, m->frame_bytes, mac_addr_text(&m->src_mac, from),
	      mac_addr_text(&m->dst_mac, to));
}

static void tell_parse(struct story *s)
{
	static const char *const kinds[] = {"other", "", "ICMP error, ", "ARP, ",
					    "neighbour discovery, "};
	const struct msg_traced *m = s->m;
	char src[ADDR_TEXT_BYTES], dst[ADDR_TEXT_BYTES], number[16], vlan[24] = "";

	if (died_at(m, TRACED_PARSE)) {
		stage(s, "parse", "%s: %s", drop_reason_name(m->reason),
		      drop_reason_text(m->reason));
		return;
	}
	if (m->vlan != 0)
		snprintf(vlan, sizeof(vlan), "VLAN %u, ", m->vlan);
	ip_addr_text(&m->key.src, src);
	ip_addr_text(&m->key.dst, dst);
	if (m->key.proto == IPPROTO_TCP || m->key.proto == IPPROTO_UDP)
		stage(s, "parse", "%s%s%s %s port %u > %s port %u%s%s", vlan,
		      m->kind < 5 && m->kind > 0 ? kinds[m->kind] : "",
		      proto_name(m->key.proto, number), src, m->key.sport, dst, m->key.dport,
		      m->flags & TRACED_FRAGMENT ? ", fragment" : "",
		      m->flags & TRACED_UNUSUAL ? ", with options or a TTL at its end" : "");
	else
		stage(s, "parse", "%s%s%s %s > %s%s%s", vlan,
		      m->kind < 5 && m->kind > 0 ? kinds[m->kind] : "",
		      proto_name(m->key.proto, number), src, dst,
		      m->flags & TRACED_FRAGMENT ? ", fragment" : "",
		      m->flags & TRACED_UNUSUAL ? ", with options or a TTL at its end" : "");
}

static void tell_guard(struct story *s)
{
	const struct msg_traced *m = s->m;
	char mac[MAC_TEXT_BYTES];

	if (m->stage < TRACED_GUARD || m->stage == TRACED_LINK)
		return;
	if (m->bound)
		stage(s, "guard", "%ssource is bound to %s: port %s, VLAN %u, MAC %s",
		      died_at(m, TRACED_GUARD) ? "NOT FROM THERE: " : "",
		      identity(s, m->end[0].slot), port_name(s, m->bound_port), m->bound_vlan,
		      mac_addr_text(&m->bound_mac, mac));
	else if (m->flags & TRACED_STRANGER)
		stage(s, "guard", "source has no binding: a stranger");
	else if (died_at(m, TRACED_GUARD))
		stage(s, "guard", "%s: %s", drop_reason_name(m->reason),
		      drop_reason_text(m->reason));
	else
		stage(s, "guard", "source is no device's");
	if (m->end[1].slot != 0)
		stage(s, "guard", "destination is bound to %s", identity(s, m->end[1].slot));
}

static void tell_divert(struct story *s)
{
	const struct msg_traced *m = s->m;

	if (m->stage == TRACED_DIVERT && m->edge == TRACED_KERNEL)
		stage(s, "divert", "for a listener: to the TLS workers' sockets");
	else if (m->stage == TRACED_DIVERT && m->edge == TRACED_FORWARDED)
		stage(s, "divert", "diverted to TLS worker %u", m->out_port - MSG_PORT_LINK);
	else if (m->stage == TRACED_LINK && m->edge == TRACED_FORWARDED)
		stage(s, "link", "of TLS worker %u, from an address and port of its own",
		      m->in_port - MSG_PORT_LINK);
	else if (m->stage == TRACED_LINK)
		stage(s, "link", "of TLS worker %u: %s", m->in_port - MSG_PORT_LINK,
		      drop_reason_name(m->reason));
}

static void tell_route(struct story *s)
{
	const struct msg_traced *m = s->m;
	char gateway[ADDR_TEXT_BYTES], vlan[24] = "";

	if (m->stage < TRACED_ROUTE || m->stage == TRACED_LINK)
		return;
	if (m->out_vlan != 0)
		snprintf(vlan, sizeof(vlan), ", VLAN %u", m->out_vlan);
	if (m->route_kind == 0)
		stage(s, "route", m->flags & TRACED_ON_LINK ? "of the link itself" : "none");
	else if (m->route_kind == ROUTE_LOCAL)
		stage(s, "route", "an address of the box");
	else if (m->route_kind == ROUTE_DROP)
		stage(s, "route", "a blackhole or unreachable route: the kernel answers");
	else if (m->has_gateway)
		stage(s, "route", "port %s%s, by way of %s", port_name(s, m->out_port), vlan,
		      ip_addr_text(&m->gateway, gateway));
	else
		stage(s, "route", "port %s%s, on the link", port_name(s, m->out_port), vlan);
}

static const char *rule_name(const struct story *s)
{
	return s->form != NULL && s->m->rule < s->form->n_rules
		       ? policy_rules(s->form)[s->m->rule].name
		       : NULL;
}

static void tell_flow(struct story *s)
{
	const struct msg_traced *m = s->m;
	unsigned end = m->end[0].generation != m->end[0].flow_generation ? 0 : 1;

	if (m->stage < TRACED_FLOW || m->stage == TRACED_LINK || m->kind != 1)
		return;
	switch (m->flow) {
	case TRACED_NO_FLOW:
		stage(s, "flow", "none yet");
		break;
	case TRACED_CURRENT:
		stage(s, "flow", "%s, %llu packets, still admitted (generations %u, %u)",
		      flow_state_name(m->state_before), (unsigned long long)m->flow_packets,
		      m->end[0].flow_generation, m->end[1].flow_generation);
		break;
	case TRACED_STALE:
		if (m->end[end].generation != m->end[end].flow_generation)
			stage(s, "flow", "%s, %llu packets, STALE: generation %u, now %u",
			      flow_state_name(m->state_before), (unsigned long long)m->flow_packets,
			      m->end[end].flow_generation, m->end[end].generation);
		else
			stage(s, "flow", "%s, %llu packets, STALE: policy, binding or expiry",
			      flow_state_name(m->state_before),
			      (unsigned long long)m->flow_packets);
		break;
	case TRACED_REFUSED:
		stage(s, "flow", "refused a moment ago, %llu packets",
		      (unsigned long long)m->flow_packets);
		break;
	default:
		stage(s, "flow", "a listener's");
		break;
	}
}

static const char *endpoint(const struct story *s, const struct traced_end *e,
			    char out[POLICY_NAME_BYTES + 32])
{
	const struct policy_endpoint *ep =
		s->form != NULL ? policy_endpoint_by_id(s->form, e->segment) : NULL;
	const char *name = ep != NULL ? ep->name : "no segment";

	if (e->slot != 0)
		snprintf(out, POLICY_NAME_BYTES + 32, "%s (%s)", name, standing_name(e->standing));
	else
		snprintf(out, POLICY_NAME_BYTES + 32, "%s", name);
	return out;
}

static void tell_admission(struct story *s)
{
	const struct msg_traced *m = s->m;
	char from[POLICY_NAME_BYTES + 32], to[POLICY_NAME_BYTES + 32];
	const char *rule = rule_name(s);

	if (!m->judged || m->reason == DROP_BAD_STATE)
		return;
	stage(s, "admission", "%s > %s: %s", endpoint(s, &m->end[0], from),
	      endpoint(s, &m->end[1], to),
	      m->judged_reason == DROP_NONE ? "allowed" : drop_reason_name(m->judged_reason));
	if (rule != NULL)
		stage(s, "rule", "%s:%u: \"%s\"", s->form->file,
		      policy_rules(s->form)[m->rule].line, rule);
	else if (m->judged_reason == DROP_DENIED && s->form != NULL)
		stage(s, "rule", "none in %s allows it", s->form->file);
}

static void tell_rewrite(struct story *s)
{
	const struct msg_traced *m = s->m;
	char mac[MAC_TEXT_BYTES];

	if (m->stage != TRACED_REWRITE)
		return;
	if (m->edge == TRACED_FORWARDED)
		stage(s, "rewrite", "to %s, VLAN %u, TTL %u > %u",
		      mac_addr_text(&m->out_dst_mac, mac), m->out_vlan, m->ttl, m->out_ttl);
	else if (m->edge == TRACED_KERNEL)
		stage(s, "rewrite", "neighbour unknown, fragment, or too large: the kernel's");
}

static const char *end_text(const struct story *s, char *out, size_t bytes)
{
	const struct msg_traced *m = s->m;

	if (m->edge == TRACED_FORWARDED && is_link(m->out_port))
		snprintf(out, bytes, "to TLS worker %u", m->out_port - MSG_PORT_LINK);
	else if (m->edge == TRACED_FORWARDED)
		snprintf(out, bytes, "forwarded by port %s", port_name(s, m->out_port));
	else if (m->edge == TRACED_KERNEL)
		snprintf(out, bytes, "to the kernel, where nftables judges it");
	else
		snprintf(out, bytes, "%s", drop_reason_text(m->reason));
	return out;
}

json_t *traced_json(struct agent *a, const struct msg_traced *m)
{
	static const char *const verdicts[] = {"dropped", "forwarded", "kernel"};
	struct story s = {.a = a, .m = m, .stages = json_array()};
	char src[ADDR_TEXT_BYTES] = "", dst[ADDR_TEXT_BYTES] = "", number[16], text[256];
	uint64_t now_us = clock_boot_us();
	uint64_t ago_ms = now_us > m->at_us ? (now_us - m->at_us) / 1000 : 0;

	if (a->form != NULL && a->form->epoch == m->epoch)
		s.form = a->form;
	tell_rx(&s);
	if (m->frame_bytes != 0)
		tell_parse(&s);
	tell_guard(&s);
	tell_divert(&s);
	tell_route(&s);
	tell_flow(&s);
	tell_admission(&s);
	tell_rewrite(&s);
	end_text(&s, text, sizeof(text));
	if (m->edge == TRACED_DROPPED)
		stage(&s, "end", "dropped, %s: %s", drop_reason_name(m->reason), text);
	else
		stage(&s, "end", "%s", text);
	if (m->known || m->frame_bytes == 0) {
		ip_addr_text(&m->key.src, src);
		ip_addr_text(&m->key.dst, dst);
	}
	return json_pack("{s:I,s:s,s:s,s:s,s:s?,s:s,s:i,s:s,s:i,s:s,s:s,s:i,s:i,s:o}", "at_ms",
			 (json_int_t)(clock_wall_ms() - ago_ms), "verdict", verdicts[m->edge],
			 "reason", drop_reason_name(m->reason), "text", text, "rule", rule_name(&s),
			 "src", src, "sport", m->key.sport, "dst", dst, "dport", m->key.dport,
			 "proto", proto_name(m->key.proto, number), "port",
			 port_name(&s, m->in_port), "vlan", m->vlan, "core", m->worker, "stages",
			 s.stages);
}
