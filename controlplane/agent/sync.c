/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sync: what dataplane and TLS workers are told when they join, and the kernel's changes after that. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/api_trace.h"
#include "controlplane/agent/reload.h"
#include "controlplane/agent/tls_state.h"

#define SYNC_MS 15000

static void put_upstream(struct msg_dp_config *m, const struct ip_addr *addr, uint16_t port,
			 uint8_t proto)
{
	for (uint16_t i = 0; i < m->n_upstreams; i++) {
		if (m->upstreams[i].port == port && m->upstreams[i].proto == proto &&
		    ip_addr_eq(&m->upstreams[i].addr, addr))
			return;
	}
	if (m->n_upstreams < MSG_UPSTREAMS_MAX)
		m->upstreams[m->n_upstreams++] =
			(struct msg_upstream){.addr = *addr, .port = port, .proto = proto};
}

/* Of those at one place it needs one. */
static void put_listener(struct msg_dp_config *m, const struct gw_listener *l)
{
	for (uint16_t i = 0; i < m->n_listeners; i++) {
		if (m->listeners[i].port == l->port &&
		    m->listeners[i].proto == gw_listener_proto(l) &&
		    ip_addr_eq(&m->listeners[i].addr, &l->addr))
			return;
	}
	m->listeners[m->n_listeners++] = (struct msg_listener){.addr = l->addr,
							       .port = l->port,
							       .proto = gw_listener_proto(l),
							       .stack = l->transport == GW_STACK};
}

/* What the dataplane must know to tell the workers' packets, and upstreams' answers to them, from others. */
static void put_tls(const struct gw_config *cfg, struct msg_dp_config *m)
{
	if (!gw_uses_stack(cfg))
		return;
	snprintf(m->tls_dir, sizeof(m->tls_dir), "%.84s", cfg->run_dir);
	m->tls_workers = cfg->tls_workers;
	m->tls_port_first = cfg->tls_port_first;
	m->tls_port_last = cfg->tls_port_last;
	m->n_sources = (uint16_t)cfg->n_tls_sources;
	memcpy(m->sources, cfg->tls_sources, sizeof(m->sources));
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		const struct gw_listener *l = &cfg->listeners[i];

		if (l->transport != GW_STACK)
			continue;
		for (uint32_t u = 0; u < l->n_upstreams; u++)
			put_upstream(m, &l->upstreams[u].addr, l->upstreams[u].port,
				     gw_listener_proto(l));
	}
}

void sync_config_msg(const struct gw_config *cfg, struct msg_dp_config *m)
{
	memset(m, 0, sizeof(*m));
	MSG_INIT(m, MSG_DP_CONFIG, 0);
	memcpy(m->lcores, cfg->lcores, sizeof(m->lcores));
	m->main_lcore = cfg->main_lcore;
	m->memory_mb = cfg->memory_mb;
	m->hugepages = cfg->hugepages;
	m->poll_always = cfg->poll_always;
	m->n_ports = cfg->n_ports;
	m->stranger_services = cfg->strangers;
	m->flows_max = cfg->flows_max;
	m->neighbours_max = cfg->neighbours_max;
	m->bindings_max = cfg->devices_max * 2;
	m->tcp_established_s = cfg->tcp_established_s;
	m->tcp_opening_s = cfg->tcp_opening_s;
	m->tcp_closing_s = cfg->tcp_closing_s;
	m->udp_s = cfg->udp_s;
	m->udp_unanswered_s = cfg->udp_unanswered_s;
	m->icmp_s = cfg->icmp_s;
	m->refused_ms = cfg->refused_ms;
	m->pickup_ms = cfg->pickup == PICKUP_RESTART  ? cfg->pickup_ms
		       : cfg->pickup == PICKUP_ALWAYS ? MSG_PICKUP_ALWAYS
						      : 0;
	m->slots = cfg->devices_max;
	m->limits = cfg->limits;
	snprintf(m->file_prefix, sizeof(m->file_prefix), "sp-%.28s", cfg->name);
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *p = &cfg->ports[i];
		struct msg_port *o = &m->ports[i];

		memcpy(o->name, p->name, sizeof(o->name));
		memcpy(o->tap, p->tap, sizeof(o->tap));
		memcpy(o->devargs, p->devargs, sizeof(o->devargs));
		o->side = p->side;
		o->untagged = p->untagged;
		o->mtu_bytes = p->mtu_bytes;
		for (uint32_t v = 1; v < p->n_vlans; v++) {
			o->outer[o->n_vlans] = p->vlans[v].outer;
			o->vlans[o->n_vlans++] = p->vlans[v].tag;
		}
	}
	for (uint32_t i = 0; i < cfg->n_listeners; i++)
		put_listener(m, &cfg->listeners[i]);
	put_tls(cfg, m);
}

static void joined(void *arg, struct peer *p)
{
	struct agent *a = arg;
	struct msg_welcome w = {.version = MSG_VERSION};
	struct msg_dp_config m;

	MSG_INIT(&w, MSG_WELCOME, 0);
	gw_run_path(a->cfg, "trust", w.trust_path);
	peer_send(p, &w, -1);
	if (peer_role(p) == MSG_ROLE_TLS) {
		log_info("tls worker joined pid=%u", peer_pid(p));
		reload_join(a, p);
		return;
	}
	log_info("dataplane joined pid=%u", peer_pid(p));
	a->dp_ready = false;
	sync_config_msg(a->cfg, &m);
	peer_send(p, &m, -1);
}

/* It connects again and is told everything anew. */
void sync_failed(struct agent *a, const char *what, const union msg_any *reply)
{
	struct peer *dp = peers_dataplane(a->peers);

	if (dp == NULL || peer_instance(dp) != a->dp_instance)
		return; /* it has gone by itself */
	agent_alarm(a, "dataplane", "%s: %s", what,
		    reply != NULL && reply->h.type == MSG_ERROR ? reply->result.text : "no answer");
	peer_cut(dp, "is not in step");
}

static void sync_ended(void *arg, const union msg_any *reply)
{
	if (reply != NULL && reply->h.type == MSG_OK)
		log_info("dataplane is in step");
	else
		sync_failed(arg, "sync failed", reply);
}

static void policy_synced(void *arg, const union msg_any *reply)
{
	if (reply == NULL || reply->h.type != MSG_OK)
		sync_failed(arg, "does not take the policy", reply);
}

static void dataplane_sync(struct agent *a, struct peer *p)
{
	struct msg_hdr begin = {.type = MSG_SYNC_BEGIN, .bytes = sizeof(begin)};
	struct msg_hdr end = {.type = MSG_SYNC_END, .bytes = sizeof(end)};
	struct msg_policy m = {0};
	int fd;

	a->dp_instance = peer_instance(p);
	peer_send(p, &begin, -1);
	if (a->form != NULL) {
		fd = policy_memfd(a->form);
		if (fd < 0) {
			agent_alarm(a, "dataplane", "no memory for the policy: %s", strerror(-fd));
			peer_cut(p, "is not in step");
			return;
		}
		m.epoch = a->form->epoch;
		MSG_INIT(&m, MSG_POLICY_PREPARE, 0);
		peer_request(p, &m, fd, SYNC_MS, policy_synced, a);
		MSG_INIT(&m, MSG_POLICY_COMMIT, 0);
		peer_request(p, &m, -1, SYNC_MS, policy_synced, a);
		close(fd);
	}
	a->dp_ready = true;
	mirror_dump(a->mirror);
	bindings_sync(a, p);
	peer_request(p, &end, -1, SYNC_MS, sync_ended, a);
}

static void flow_log(struct agent *a, const struct msg_flow_log *m)
{
	const struct device *src = registry_by_slot(a->registry, m->slot_src);
	const struct device *dst = registry_by_slot(a->registry, m->slot_dst);
	char s[ADDR_TEXT_BYTES], d[ADDR_TEXT_BYTES];
	const char *rule = "-";

	if (m->more > 0) {
		log_info("flow %s: and %u more in that second%s%s",
			 m->reason == DROP_NONE ? "allowed" : "refused", m->more,
			 m->reason == DROP_NONE ? "" : " why=",
			 m->reason == DROP_NONE ? "" : drop_reason_name(m->reason));
		return;
	}
	if (a->form != NULL && a->form->epoch == m->epoch && m->rule < a->form->n_rules)
		rule = policy_rules(a->form)[m->rule].name;
	log_info("flow %s proto=%u src=%s sport=%u dst=%s dport=%u from=%s to=%s rule=\"%s\"%s%s",
		 m->reason == DROP_NONE ? "allowed" : "refused", m->key.proto,
		 ip_addr_text(&m->key.src, s), m->key.sport, ip_addr_text(&m->key.dst, d),
		 m->key.dport, src != NULL ? src->identity : "-", dst != NULL ? dst->identity : "-",
		 rule, m->reason == DROP_NONE ? "" : " why=",
		 m->reason == DROP_NONE ? "" : drop_reason_name(m->reason));
}

static int message(void *arg, struct peer *p, const union msg_any *m)
{
	struct agent *a = arg;

	if (peer_role(p) == MSG_ROLE_TLS)
		return admit_message(a, p, m);
	if (p != peers_dataplane(a->peers))
		return -EPROTO;
	switch (m->h.type) {
	case MSG_DP_READY:
		dataplane_sync(a, p);
		return 0;
	case MSG_TRACED:
		return trace_came(a, &m->traced);
	case MSG_FLOW_LOG:
		flow_log(a, (const struct msg_flow_log *)m);
		return 0;
	default:
		return -EPROTO;
	}
}

static void left(void *arg, struct peer *p)
{
	struct agent *a = arg;

	if (peer_role(p) == MSG_ROLE_TLS) {
		log_warn("tls worker left pid=%u", peer_pid(p));
		admit_worker_left(a, p);
		tls_state_left(p);
		return;
	}
	log_warn("dataplane left pid=%u", peer_pid(p));
	if (peers_dataplane(a->peers) == NULL) {
		a->dp_ready = false;
		a->stats.h.type = 0;
		a->stats_asked = false;
		tallies_forget(a);
	}
}

const struct peers_handler sync_peers_handler = {
	.joined = joined, .message = message, .left = left};

static void on_route(void *arg, bool add, const struct msg_route *r)
{
	struct agent *a = arg;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_route m = *r;

	MSG_INIT(&m, add ? MSG_ROUTE_ADD : MSG_ROUTE_DEL, 0);
	if (dp != NULL)
		peer_send(dp, &m, -1);
}

static void on_neigh(void *arg, bool add, const struct msg_neigh *n)
{
	struct agent *a = arg;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_neigh m = *n;

	MSG_INIT(&m, add ? MSG_NEIGH_ADD : MSG_NEIGH_DEL, 0);
	if (dp != NULL)
		peer_send(dp, &m, -1);
}

struct repin {
	struct agent *a;
	uint16_t port;
};

/* Neighbour entries die with their interface: a new shadow gets them again. */
static void repin_one(void *arg, struct binding *b)
{
	struct repin *r = arg;

	if (b->port != r->port)
		return;
	neigh_pin_add(r->a->ports, &b->ip, &b->mac, b->port, b->vlan);
	neigh_proxy_add(r->a->ports, &b->ip, b->port, b->vlan);
}

static void on_link(void *arg, const char *ifname, bool up, bool exists)
{
	struct agent *a = arg;
	struct repin r = {.a = a};
	struct err err = {""};
	uint16_t vlan;

	if (!exists)
		return;
	if (ports_configure(a->ports, ifname, &err) < 0)
		agent_alarm(a, "ports", "%s: %s", ifname, err.msg);
	if (up && ports_find(a->cfg, ifname, &r.port, &vlan))
		bindings_each(a, repin_one, &r);
}

const struct mirror_ops sync_mirror_ops = {.route = on_route, .neigh = on_neigh, .link = on_link};

static void stats_came(void *arg, const union msg_any *reply)
{
	struct agent *a = arg;

	a->stats_asked = false;
	if (reply != NULL && reply->h.type == MSG_STATS) {
		a->stats = reply->stats;
		/* The driver of AF_XDP says "up" whatever the cable does. */
		for (uint32_t i = 0; i < a->cfg->n_ports; i++) {
			if (a->cfg->ports[i].raw[0] != '\0' &&
			    !mirror_link_up(a->mirror, a->cfg->ports[i].raw))
				a->stats.ports[i].link_up = 0;
		}
		a->stats_ms = clock_boot_ms();
	}
}

void sync_stats(struct agent *a)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_hdr m = {.type = MSG_STATS_GET, .bytes = sizeof(m)};

	if (dp == NULL || a->stats_asked)
		return;
	a->stats_asked = true;
	peer_request(dp, &m, -1, AGENT_ANSWER_MS, stats_came, a);
}
