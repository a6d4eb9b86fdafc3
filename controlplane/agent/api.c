/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api: what `sallyctl` asks the agent. Reads only, but for ports: other changes are decisions, and those come from the
 * controller. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/api_stats.h"
#include "controlplane/agent/api_trace.h"
#include "controlplane/agent/api_ports.h"
#include "controlplane/agent/api_why.h"
#include "controlplane/agent/reload.h"
#include "controlplane/agent/tls_state.h"

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 100000

static json_t *seconds_left(uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms == CLOCK_NEVER_MS || at_ms == 0)
		return json_null();
	return json_integer(at_ms > now_ms ? (json_int_t)(at_ms - now_ms) / 1000 : 0);
}

/* ---- status ---- */

static json_t *status_dataplane(const struct agent *a)
{
	const struct msg_stats *s = &a->stats;
	bool known = s->h.type == MSG_STATS;

	return json_pack("{s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:o}",
			 "connected", peers_dataplane(a->peers) != NULL, "ready",
			 a->dp_ready && known, "forwarded", (json_int_t)s->forwarded, "diverted",
			 (json_int_t)s->diverted, "admissions", (json_int_t)s->admissions,
			 "refusals", (json_int_t)s->refusals, "flows", (json_int_t)s->flows,
			 "flows_max", (json_int_t)s->flows_max, "bindings", (json_int_t)s->bindings,
			 "routes", (json_int_t)s->routes, "neighbours", (json_int_t)s->neighbours,
			 "buffers", (json_int_t)s->buffers, "buffers_free",
			 (json_int_t)s->buffers_free, "busy_pct",
			 s->total_cycles > 0 ? 100.0 * s->busy_cycles / s->total_cycles : 0.0,
			 "ports", stats_ports(a->cfg, s));
}

static json_t *status_drops(const struct agent *a)
{
	json_t *drops = json_object();

	for (unsigned i = 1; i < DROP_REASON_COUNT; i++) {
		if (a->stats.drops[i] > 0)
			json_object_set_new(drops, drop_reason_name(i),
					    json_integer(a->stats.drops[i]));
	}
	return drops;
}

static json_t *status_workers(const struct agent *a)
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(a->peers, tls, PEERS_MAX);
	json_t *workers = json_array();

	for (uint32_t i = 0; i < n; i++) {
		const struct session *s;
		unsigned sessions = 0;

		LIST_FOREACH(s, &a->sessions, next)
			sessions += s->worker == tls[i];
		json_array_append_new(workers,
				      json_pack("{s:I,s:I}", "pid", (json_int_t)peer_pid(tls[i]),
						"sessions", (json_int_t)sessions));
	}
	return workers;
}

static json_t *status_devices(const struct agent *a)
{
	uint32_t count[STANDING_COUNT] = {0};
	json_t *o = json_object();

	for (uint32_t i = 0; i < registry_devices(a->registry); i++)
		count[registry_device(a->registry, i)->judged.standing]++;
	for (int s = 0; s < STANDING_COUNT; s++)
		json_object_set_new(o, standing_name(s), json_integer(count[s]));
	return o;
}

static json_t *status_refusals(const struct agent *a)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < AGENT_REFUSALS_MAX && a->refusals[i].n > 0; i++)
		json_object_set_new(o, a->refusals[i].reason, json_integer(a->refusals[i].n));
	return o;
}

static void kernel_one(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	(void)bytes;
	json_object_set_new(arg, name, json_integer(packets));
}

static int alarm_one(void *arg, const struct store_alarm *al)
{
	json_array_append_new(arg, json_pack("{s:I,s:s,s:s}", "at", (json_int_t)al->at_ms, "kind",
					     al->kind, "text", al->text));
	return 0;
}

static void status(struct agent *a, struct api_call *call, json_t *request)
{
	uint64_t now = clock_boot_ms();
	json_t *kernel = json_object(), *alarms = json_array(), *policy;
	struct link_state l;
	char sha[65];

	(void)request;
	link_get_state(a->link, &l);
	nft_counters(a->nft, kernel_one, kernel);
	store_alarms(a->store, 10, alarm_one, alarms, NULL);
	policy = json_pack("{s:I,s:s,s:s,s:s}", "epoch", (json_int_t)a->form->epoch, "file",
			   a->form->file, "sha256", hex_text(sha, a->form->sha256, 32), "source",
			   a->policy_decided ? "decision" : "file");
	api_reply(call,
		  json_pack("{s:s,s:s,s:I,s:o,s:{s:b,s:b,s:I,s:I,s:o},s:o,s:o,s:o,s:o,s:o,s:o,s:o}",
			    "gateway", a->cfg->name, "version", SALLYPORT_VERSION, "uptime_s",
			    (json_int_t)(now - a->started_ms) / 1000, "policy", policy,
			    "controller", "connected", l.connected, "frozen", l.frozen, "revision",
			    (json_int_t)l.revision, "head", (json_int_t)l.head, "lease_left_s",
			    seconds_left(a->lease_until_ms, now), "dataplane", status_dataplane(a),
			    "tls_workers", status_workers(a), "devices", status_devices(a), "drops",
			    status_drops(a), "handshakes_refused", status_refusals(a), "kernel",
			    kernel, "alarms", alarms));
}

/* ---- devices, bindings, segments ---- */

static void devices(struct agent *a, struct api_call *call, json_t *request)
{
	uint64_t now = clock_boot_ms();
	json_t *list = json_array();

	(void)request;
	for (uint32_t i = 0; i < registry_devices(a->registry); i++) {
		struct device *d = registry_device(a->registry, i);
		const struct seg_segment *home = enforce_home(a, d);
		const struct binding *b;
		json_t *addresses = json_array();
		char text[ADDR_TEXT_BYTES], sha[65];

		LIST_FOREACH(b, &a->bound[d->slot], of_device)
			json_array_append_new(addresses, json_string(ip_addr_text(&b->ip, text)));
		json_array_append_new(
			list,
			json_pack("{s:s,s:s,s:s,s:s,s:s?,s:s,s:o,s:I,s:o,s:I,s:o}", "device",
				  d->identity, "kind", identity_kind_name(d->kind), "standing",
				  standing_name(d->judged.standing), "segment", d->judged.segment,
				  "home", home != NULL ? home->name : NULL, "reason",
				  decide_reason_text(d->judged.reason), "expires_s",
				  seconds_left(d->judged.expires_ms, now), "sessions",
				  (json_int_t)d->sessions, "addresses", addresses, "revision",
				  (json_int_t)d->revision, "cert_sha256",
				  d->cert.known ? json_string(hex_text(sha, d->cert.sha256, 32))
						: json_null()));
	}
	api_reply(call, json_pack("{s:o}", "devices", list));
}

struct bindings_list {
	struct agent *a;
	json_t *list;
	uint64_t now_ms;
};

static void bindings_one(void *arg, struct binding *b)
{
	struct bindings_list *x = arg;
	char ip[ADDR_TEXT_BYTES], mac[MAC_TEXT_BYTES];

	json_array_append_new(x->list,
			      json_pack("{s:s,s:s,s:s,s:i,s:s,s:o}", "ip", ip_addr_text(&b->ip, ip),
					"mac", mac_addr_text(&b->mac, mac), "port",
					x->a->cfg->ports[b->port].name, "vlan", b->vlan, "device",
					b->dev->identity, "lease_left_s",
					seconds_left(b->lease_ms, x->now_ms)));
}

static void bindings(struct agent *a, struct api_call *call, json_t *request)
{
	struct bindings_list x = {a, json_array(), clock_boot_ms()};

	(void)request;
	bindings_each(a, bindings_one, &x);
	api_reply(call, json_pack("{s:o}", "bindings", x.list));
}

static const char *service_text(const struct seg_service *s, char *out, size_t bytes)
{
	const char *name = s->proto == POLICY_PROTO_TCP	    ? "tcp"
			   : s->proto == POLICY_PROTO_UDP   ? "udp"
			   : s->proto == POLICY_PROTO_ICMP  ? "icmp"
			   : s->proto == POLICY_PROTO_ICMP6 ? "icmp6"
							    : NULL;

	if (name == NULL)
		snprintf(out, bytes, "proto/%u", s->proto);
	else if (s->lo == 0 && s->hi >= 255)
		snprintf(out, bytes, "%s", name);
	else if (s->lo == s->hi)
		snprintf(out, bytes, "%s/%u", name, s->lo);
	else
		snprintf(out, bytes, "%s/%u-%u", name, s->lo, s->hi);
	return out;
}

/* What holds for a member: its segment's limits, and gateway.cfg's where the segment has none. */
static const char *endpoint_limits(const struct agent *a, const struct policy_endpoint *ep,
				   char *out)
{
	struct policy_limits l = ep->limits;

	if (ep->kind == ENDPOINT_SEGMENT && l.new_flows_per_s == 0)
		l.new_flows_per_s = a->cfg->limits.device_new_flows;
	if (ep->kind == ENDPOINT_SEGMENT && l.flows == 0)
		l.flows = a->cfg->limits.device_flows;
	return limits_text(&l, out);
}

static json_t *segments_endpoints(const struct agent *a)
{
	char limits[RATE_TEXT_BYTES];
	const struct policy_endpoint *ep = policy_endpoints(a->form);
	json_t *list = json_array();
	char text[ADDR_TEXT_BYTES];

	for (uint32_t i = 0; i < a->form->n_endpoints; i++) {
		json_t *prefixes = json_array();
		unsigned members = 0;

		for (uint32_t k = 0; k < a->segments->n_networks; k++) {
			const struct seg_network *n = &a->segments->networks[k];

			for (uint32_t p = 0; strcmp(n->name, ep[i].name) == 0 && p < n->n_prefixes;
			     p++)
				json_array_append_new(prefixes, json_string(ip_prefix_text(
									&n->prefixes[p], text)));
		}
		for (uint32_t k = 0; k < registry_devices(a->registry); k++)
			members += strcmp(registry_device(a->registry, k)->judged.segment,
					  ep[i].name) == 0;
		json_array_append_new(
			list,
			json_pack("{s:i,s:s,s:s,s:I,s:s,s:o}", "id", ep[i].id, "name", ep[i].name,
				  "kind", ep[i].kind == ENDPOINT_SEGMENT ? "segment" : "network",
				  "devices", (json_int_t)members, "limits",
				  endpoint_limits(a, &ep[i], limits), "prefixes", prefixes));
	}
	return list;
}

static void segments(struct agent *a, struct api_call *call, json_t *request)
{
	json_t *rules = json_array();
	char text[32], limits[RATE_TEXT_BYTES];

	(void)request;
	for (uint32_t i = 0; i < a->segments->n_rules; i++) {
		const struct seg_rule *r = &a->segments->rules[i];
		struct policy_limits l = {0};
		json_t *services = json_array();

		for (uint32_t k = 0; k < r->n_services; k++)
			json_array_append_new(
				services,
				json_string(service_text(&r->services[k], text, sizeof(text))));
		rate_limits(&l, &r->rate, r->burst_ms);
		json_array_append_new(
			rules,
			json_pack("{s:s,s:I,s:s,s:s,s:o,s:s,s:b,s:s}", "name", r->name, "line",
				  (json_int_t)r->line, "from", r->from, "to", r->to, "services",
				  services, "action", r->action == POLICY_ALLOW ? "allow" : "deny",
				  "log", r->log, "limits", limits_text(&l, limits)));
	}
	api_reply(call, json_pack("{s:s,s:o,s:o}", "file", a->form->file, "segments",
				  segments_endpoints(a), "rules", rules));
}

/* What is asked for is built in memory. */
static uint32_t limit_of(const json_t *limit)
{
	json_int_t n = json_is_integer(limit) ? json_integer_value(limit) : LIMIT_DEFAULT;

	return n < 0 ? 0 : n > LIMIT_MAX ? LIMIT_MAX : (uint32_t)n;
}

struct device *api_device(struct agent *a, const char *name)
{
	struct device *d = NULL;

	for (uint8_t kind = IDENTITY_URI; d == NULL && kind <= IDENTITY_CN; kind++)
		d = registry_find(a->registry, kind, name);
	return d;
}

/* ---- log, policy ---- */

struct log_call {
	struct agent *a;
	json_t *list;
};

/* What was decided is read from the signed bytes, not from a note about them. */
static json_t *log_summary(const struct log_call *x, const struct store_entry *e,
			   uint64_t *issued_ms)
{
	char text[DECISION_SUMMARY_BYTES];
	struct decision_entry *d = NULL;
	struct err err = {""};
	json_t *out;

	if (link_open_stored(x->a->link, e, &d, &err) < 0)
		return json_sprintf("UNREADABLE: %s", err.msg);
	*issued_ms = d->issued_ms;
	out = json_string(decision_entry_summary(text, d));
	decision_entry_free(d);
	return out;
}

static int log_one(void *arg, const struct store_entry *e)
{
	struct log_call *x = arg;
	json_t *receipt = json_null(), *summary;
	uint64_t issued_ms = 0;
	struct receipt r;
	struct err err = {""};
	char hash[65];

	if (e->receipt != NULL && receipt_decode(&r, e->receipt, e->receipt_bytes, &err) == 0)
		receipt = json_pack("{s:s,s:i,s:I,s:I,s:I,s:I,s:s}", "gateway", r.gateway, "result",
				    r.result, "in_force_us", (json_int_t)r.in_force_us,
				    "sessions_closed", (json_int_t)r.sessions_closed,
				    "flows_closed", (json_int_t)r.flows_closed, "untracked",
				    (json_int_t)r.untracked, "text", r.text);
	summary = log_summary(x, e, &issued_ms);
	json_array_append_new(
		x->list, json_pack("{s:I,s:I,s:I,s:s,s:o,s:o}", "revision", (json_int_t)e->revision,
				   "issued", (json_int_t)issued_ms, "stored",
				   (json_int_t)e->stored_ms, "hash", hex_text(hash, e->hash, 32),
				   "summary", summary, "receipt", receipt));
	return 0;
}

static void log_list(struct agent *a, struct api_call *call, json_t *request)
{
	json_t *after = json_object_get(request, "after"),
	       *limit = json_object_get(request, "limit");
	struct log_call x = {.a = a, .list = json_array()};
	struct err err = {""};
	int ret = store_entries_after(a->store,
				      json_is_integer(after) ? json_integer_value(after) : 0,
				      limit_of(limit), log_one, &x, &err);

	if (ret == 0) {
		api_reply(call, json_pack("{s:o}", "entries", x.list));
		return;
	}
	json_decref(x.list);
	api_fail(call, "internal", "%s", err.msg);
}

static void policy_check(struct agent *a, struct api_call *call, json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "text"));
	const char *file = json_string_value(json_object_get(request, "file"));
	struct config_errors *errs = calloc(1, sizeof(*errs));
	json_t *list = json_array();

	(void)a;
	if (text == NULL || errs == NULL) {
		api_fail(call, text == NULL ? "invalid" : "internal",
			 text == NULL ? "text is missing" : "out of memory");
	} else if (segments_check(NULL, text, file != NULL ? file : "policy", errs) == -ENOMEM) {
		api_fail(call, "internal", "out of memory");
	} else {
		for (uint32_t i = 0; i < errs->n; i++)
			json_array_append_new(list, json_string(errs->line[i]));
		api_reply(call, json_pack("{s:O}", "errors", list));
	}
	json_decref(list);
	free(errs);
}

void api_handle(void *arg, struct api_call *call, const char *cmd, json_t *request)
{
	static const struct {
		const char *cmd;
		void (*run)(struct agent *a, struct api_call *call, json_t *request);
	} commands[] = {
		{"status", status},
		{"devices", devices},
		{"bindings", bindings},
		{"segments", segments},
		{"flows", api_flows},
		{"stats", api_stats},
		{"trace_start", api_trace_start},
		{"trace_poll", api_trace_poll},
		{"trace_stop", api_trace_stop},
		{"why", api_why},
		{"log", log_list},
		{"port_add", api_port_add},
		{"port_remove", api_port_remove},
		{"port_list", api_port_list},
		{"policy_check", policy_check},
		{"reload", reload_call},
		{"listeners", api_listeners},
		{"upstreams", api_upstreams},
	};

	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].cmd, cmd) == 0) {
			commands[i].run(arg, call, request);
			return;
		}
	}
	api_fail(call, "invalid", "unknown command \"%s\"", cmd);
}
