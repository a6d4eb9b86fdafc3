/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/api_stats.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/api_why.h"
#include "controlplane/agent/tallies.h"

/* ---- parts ---- */

static const char *link_name(const struct gw_port *cfg, const struct msg_stats_port *p)
{
	if (cfg->kernel[0] != '\0')
		return "kernel";
	if (!p->present)
		return "absent";
	return p->link_up ? "up" : "down";
}

static json_t *port_counters(const char *name, const char *side, const char *link,
			     const struct msg_stats_port *p)
{
	return json_pack(
		"{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", name, "side", side,
		"link", link, "rx_packets", (json_int_t)p->rx_packets, "rx_bytes",
		(json_int_t)p->rx_bytes, "tx_packets", (json_int_t)p->tx_packets, "tx_bytes",
		(json_int_t)p->tx_bytes, "to_kernel", (json_int_t)p->to_kernel, "from_kernel",
		(json_int_t)p->from_kernel, "nic_missed", (json_int_t)p->nic_missed,
		"nic_rx_errors", (json_int_t)p->nic_rx_errors, "nic_no_buffer",
		(json_int_t)p->nic_no_buffer, "nic_tx_errors", (json_int_t)p->nic_tx_errors);
}

json_t *stats_ports(const struct gw_config *cfg, const struct msg_stats *s)
{
	json_t *list = json_array();
	char name[16];

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *p = &cfg->ports[i];

		if (p->name[0] != '\0')
			json_array_append_new(
				list,
				port_counters(p->name, p->side == PORT_DEVICE ? "device" : "uplink",
					      link_name(p, &s->ports[i]), &s->ports[i]));
	}
	for (uint32_t n = 0; n < s->n_tls && n < MSG_TLS_WORKERS_MAX; n++) {
		snprintf(name, sizeof(name), "tls%u", n);
		json_array_append_new(list, port_counters(name, "tls worker",
							  !s->tls[n].present  ? "absent"
							  : s->tls[n].link_up ? "up"
									      : "down",
							  &s->tls[n]));
	}
	return list;
}

json_t *stats_reasons(const struct msg_stats *s)
{
	json_t *list = json_array();

	for (unsigned i = 1; i < DROP_REASON_COUNT; i++)
		json_array_append_new(
			list, json_pack("{s:s,s:I,s:s}", "reason", drop_reason_name(i), "packets",
					(json_int_t)s->drops[i], "text", drop_reason_text(i)));
	return list;
}

/* What a rule let pass, or refused. */
json_t *stats_rules(const struct tallies *t)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < t->n_accounts; i++) {
		const struct msg_tally_account *e = &t->account[i];

		if (e->rule[0] == '\0')
			continue;
		json_array_append_new(
			list,
			json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "rule", e->rule, "from",
				  e->from, "to", e->to, "verdict",
				  e->reason == DROP_NONE ? "allowed" : drop_reason_name(e->reason),
				  "packets", (json_int_t)e->packets, "bytes", (json_int_t)e->bytes,
				  "flows", (json_int_t)e->flows, "open", (json_int_t)e->open));
	}
	return list;
}

static void count(json_t *o, const char *key, uint64_t more)
{
	json_object_set_new(
		o, key,
		json_integer(json_integer_value(json_object_get(o, key)) + (json_int_t)more));
}

/* Accounts are sorted by rule first, so a pair's are not neighbours. */
json_t *stats_pairs(const struct tallies *t)
{
	json_t *list = json_array(), *by_name = json_object();

	for (uint32_t i = 0; i < t->n_accounts; i++) {
		const struct msg_tally_account *e = &t->account[i];
		char key[2 * POLICY_NAME_BYTES + 2];
		json_t *pair;

		snprintf(key, sizeof(key), "%s>%s", e->from, e->to);
		pair = json_object_get(by_name, key);
		if (pair == NULL) {
			pair = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:{}}", "from", e->from,
					 "to", e->to, "packets", (json_int_t)0, "bytes",
					 (json_int_t)0, "flows", (json_int_t)0, "open",
					 (json_int_t)0, "refused", (json_int_t)0, "reasons");
			json_object_set(by_name, key, pair);
			json_array_append_new(list, pair);
		}
		if (e->reason != DROP_NONE) {
			count(pair, "refused", e->packets);
			count(json_object_get(pair, "reasons"), drop_reason_name(e->reason),
			      e->packets);
			continue;
		}
		count(pair, "packets", e->packets);
		count(pair, "bytes", e->bytes);
		count(pair, "flows", e->flows);
		count(pair, "open", e->open);
	}
	json_decref(by_name);
	return list;
}

static json_t *stats_devices(const struct agent *a, const struct tallies *t)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < t->n_devices; i++) {
		const struct msg_tally_device *e = &t->device[i];
		const struct device *d = registry_by_slot(a->registry, e->slot);

		if (d == NULL)
			continue;
		json_array_append_new(
			list,
			json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "device", d->identity,
				  "segment", d->judged.segment, "packets", (json_int_t)e->packets,
				  "bytes", (json_int_t)e->bytes, "flows", (json_int_t)e->flows,
				  "open", (json_int_t)e->open, "refused", (json_int_t)e->refused,
				  "diverted", (json_int_t)e->diverted));
	}
	return list;
}

static double ratio(double of, uint64_t by)
{
	return by > 0 ? of / (double)by : 0;
}

json_t *stats_lcores(const struct tallies *t)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < t->n_lcores; i++) {
		const struct msg_tally_lcore *l = &t->lcore[i];

		json_array_append_new(
			list,
			json_pack("{s:I,s:I,s:f,s:f,s:f,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "lcore",
				  (json_int_t)l->worker, "cpu", (json_int_t)l->cpu, "busy_pct",
				  ratio(100.0 * (double)l->busy_cycles, l->total_cycles),
				  "cycles_per_packet", ratio((double)l->busy_cycles, l->packets),
				  "burst_fill", ratio((double)l->packets, l->bursts), "packets",
				  (json_int_t)l->packets, "bursts", (json_int_t)l->bursts,
				  "busy_cycles", (json_int_t)l->busy_cycles, "total_cycles",
				  (json_int_t)l->total_cycles, "flows", (json_int_t)l->flows,
				  "flows_max", (json_int_t)l->flows_max, "handed",
				  (json_int_t)l->handed, "ring_dropped",
				  (json_int_t)l->ring_dropped));
	}
	return list;
}

static json_t *stats_totals(const struct msg_stats *s)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "forwarded", (json_int_t)s->forwarded,
			 "lane", (json_int_t)s->lane, "diverted", (json_int_t)s->diverted,
			 "admissions", (json_int_t)s->admissions, "refusals",
			 (json_int_t)s->refusals, "flows", (json_int_t)s->flows, "flows_max",
			 (json_int_t)s->flows_max, "bindings", (json_int_t)s->bindings);
}

/* ---- stats ---- */

#define WANT_STATS 1u /* struct msg_stats */
#define WANT_ACCOUNTS TALLY_BIT(TALLY_ACCOUNTS)
#define WANT_DEVICES TALLY_BIT(TALLY_DEVICES)
#define WANT_LCORES TALLY_BIT(TALLY_LCORES)

static const struct {
	const char *name;
	uint32_t want;
} parts[] = {
	{"ports", WANT_STATS},	  {"reasons", WANT_STATS},   {"rules", WANT_ACCOUNTS},
	{"pairs", WANT_ACCOUNTS}, {"devices", WANT_DEVICES}, {"lcores", WANT_LCORES},
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

struct stats_call {
	struct agent *a;
	struct api_call *call;
	char what[16]; /* "": all */
	uint32_t want, slot;
	struct msg_stats stats;
};

static bool wants(const struct stats_call *c, const char *part)
{
	return c->what[0] == '\0' || strcmp(c->what, part) == 0;
}

static void stats_fail(struct stats_call *c)
{
	api_fail(c->call, "unavailable", "the dataplane is not connected, or did not answer");
	free(c);
}

static void stats_answer(void *arg, const struct tallies *t)
{
	struct stats_call *c = arg;
	struct agent *a = c->a;
	json_t *r;

	if (t == NULL) {
		stats_fail(c);
		return;
	}
	/* at_us is when the counters were read: what a rate is made of */
	r = json_pack("{s:I}", "at_us", (json_int_t)clock_boot_us());
	if (c->what[0] == '\0')
		json_object_set_new(r, "totals", stats_totals(&c->stats));
	if (wants(c, "ports"))
		json_object_set_new(r, "ports", stats_ports(a->cfg, &c->stats));
	if (wants(c, "reasons"))
		json_object_set_new(r, "reasons", stats_reasons(&c->stats));
	if (wants(c, "rules"))
		json_object_set_new(r, "rules", stats_rules(t));
	if (wants(c, "pairs"))
		json_object_set_new(r, "pairs", stats_pairs(t));
	if (wants(c, "devices"))
		json_object_set_new(r, "devices", stats_devices(a, t));
	if (wants(c, "lcores"))
		json_object_set_new(r, "lcores", stats_lcores(t));
	api_reply(c->call, r);
	free(c);
}

static void stats_came(void *arg, const union msg_any *reply)
{
	static const struct tallies none;
	struct stats_call *c = arg;
	uint32_t kinds = c->want & ~WANT_STATS;

	if (reply == NULL || reply->h.type != MSG_STATS) {
		stats_fail(c);
		return;
	}
	c->stats = reply->stats;
	if (kinds != 0)
		tallies_ask(c->a, kinds, c->slot, stats_answer, c);
	else
		stats_answer(c, &none);
}

static bool stats_wanted(struct stats_call *c, const char *what)
{
	bool found = what == NULL;

	for (unsigned i = 0; i < PARTS; i++) {
		if (what != NULL && strcmp(what, parts[i].name) != 0)
			continue;
		c->want |= parts[i].want;
		found = true;
	}
	if (what != NULL && found)
		snprintf(c->what, sizeof(c->what), "%s", what);
	return found;
}

void api_stats(struct agent *a, struct api_call *call, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "device"));
	const char *what = json_string_value(json_object_get(request, "what"));
	struct msg_hdr m = {.type = MSG_STATS_GET, .bytes = sizeof(m)};
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	const struct device *d = name != NULL ? api_device(a, name) : NULL;
	struct stats_call *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		api_fail(call, "internal", "out of memory");
		return;
	}
	c->a = a;
	c->call = call;
	if (!stats_wanted(c, what)) {
		api_fail(call, "invalid",
			 "no such counters: \"%s\"; there are ports, reasons, rules, pairs, "
			 "devices and lcores",
			 what);
	} else if (name != NULL && d == NULL) {
		api_fail(call, "not_found", "no device \"%s\"", name);
	} else if (dp == NULL) {
		api_fail(call, "unavailable", "the dataplane is not connected");
	} else {
		c->slot = d != NULL ? d->slot : 0;
		peer_request(dp, &m, -1, AGENT_ANSWER_MS, stats_came, c);
		return;
	}
	free(c);
}

/* ---- flows ---- */

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 100000

struct flows_call {
	struct agent *a;
	struct api_call *call;
	json_t *list;
	uint32_t top; /* 0: as they lie */
	const char *by; /* a literal */
};

static const char *endpoint_name(const struct agent *a, uint16_t id)
{
	const struct policy_endpoint *ep =
		a->form != NULL ? policy_endpoint_by_id(a->form, id) : NULL;

	return ep != NULL ? ep->name : "";
}

static void flows_one(void *arg, const union msg_any *m)
{
	const struct msg_flow_info *f = (const struct msg_flow_info *)m;
	struct flows_call *x = arg;
	const struct device *ds = registry_by_slot(x->a->registry, f->slot_src);
	const struct device *dd = registry_by_slot(x->a->registry, f->slot_dst);
	char src[ADDR_TEXT_BYTES], dst[ADDR_TEXT_BYTES];
	const char *rule = "";

	if (x->a->form != NULL && f->epoch == x->a->form->epoch && f->rule < x->a->form->n_rules)
		rule = policy_rules(x->a->form)[f->rule].name;
	json_array_append_new(
		x->list,
		json_pack("{s:i,s:s,s:i,s:s,s:i,s:s,s:s,s:s,s:s?,s:s?,s:s,s:b,s:I,s:I,s:I}",
			  "proto", f->key.proto, "src", ip_addr_text(&f->key.src, src), "sport",
			  f->key.sport, "dst", ip_addr_text(&f->key.dst, dst), "dport",
			  f->key.dport, "state", flow_state_name(f->state), "segment_src",
			  endpoint_name(x->a, f->segment_src), "segment_dst",
			  endpoint_name(x->a, f->segment_dst), "device_src",
			  ds != NULL ? ds->identity : NULL, "device_dst",
			  dd != NULL ? dd->identity : NULL, "rule", rule, "current", f->current,
			  "packets", (json_int_t)f->packets, "bytes", (json_int_t)f->bytes,
			  "idle_ms", (json_int_t)f->idle_ms));
}

struct ranked {
	json_int_t weight;
	json_t *flow;
};

static int ranked_cmp(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;

	return a->weight > b->weight ? -1 : a->weight < b->weight;
}

/* Each worker sent its largest ones. @return the largest of all, sorted; a new reference */
static json_t *largest(const struct flows_call *x)
{
	size_t n = json_array_size(x->list), i;
	struct ranked *rank = calloc(n + 1, sizeof(*rank));
	json_t *out = json_array(), *f;

	if (rank == NULL)
		return out;
	json_array_foreach(x->list, i, f)
		rank[i] = (struct ranked){json_integer_value(json_object_get(f, x->by)), f};
	qsort(rank, n, sizeof(*rank), ranked_cmp);
	for (i = 0; i < n && i < x->top; i++)
		json_array_append(out, rank[i].flow);
	free(rank);
	return out;
}

static void flows_done(void *arg, const union msg_any *reply)
{
	struct flows_call *x = arg;

	if (reply != NULL && reply->h.type == MSG_OK)
		api_reply(x->call,
			  json_pack("{s:I,s:o}", "at_us", (json_int_t)clock_boot_us(), "flows",
				    x->top > 0 ? largest(x) : json_incref(x->list)));
	else
		api_fail(x->call, "unavailable", "the dataplane did not answer");
	json_decref(x->list);
	free(x);
}

static bool state_parse(const char *name, uint8_t *out)
{
	for (unsigned s = FLOW_NEW; s <= FLOW_DIVERTED; s++) {
		if (strcmp(flow_state_name(s), name) == 0) {
			*out = s;
			return true;
		}
	}
	return false;
}

static bool rule_parse(const struct policy_form *form, const char *name, uint16_t *out)
{
	for (uint32_t i = 0; i < form->n_rules && i < MSG_ANY; i++) {
		if (strcmp(policy_rules(form)[i].name, name) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

/* @return false: the call has been answered */
static bool flows_filter(struct agent *a, struct api_call *call, const json_t *request,
			 struct msg_flows_get *m)
{
	const char *device = json_string_value(json_object_get(request, "device"));
	const char *segment = json_string_value(json_object_get(request, "segment"));
	const char *rule = json_string_value(json_object_get(request, "rule"));
	const char *state = json_string_value(json_object_get(request, "state"));
	const struct policy_endpoint *ep = NULL;
	const struct device *d = NULL;

	if (device != NULL && (d = api_device(a, device)) == NULL)
		api_fail(call, "not_found", "no device \"%s\"", device);
	else if (segment != NULL && (ep = policy_endpoint_by_name(a->form, segment)) == NULL)
		api_fail(call, "not_found", "no segment or network \"%s\" in %s", segment,
			 a->form->file);
	else if (rule != NULL && !rule_parse(a->form, rule, &m->rule))
		api_fail(call, "not_found", "no rule \"%s\" in %s", rule, a->form->file);
	else if (state != NULL && !state_parse(state, &m->state))
		api_fail(call, "invalid",
			 "no state \"%s\"; there are new, opening, established, closing, refused "
			 "and diverted",
			 state);
	else {
		m->slot = d != NULL ? d->slot : 0;
		m->segment = ep != NULL ? ep->id : 0;
		return true;
	}
	return false;
}

/* What is asked for is built in memory. */
static uint32_t number_to(const json_t *n, uint32_t without, uint32_t max)
{
	json_int_t v = json_is_integer(n) ? json_integer_value(n) : without;

	return v < 0 ? 0 : v > max ? max : (uint32_t)v;
}

void api_flows(struct agent *a, struct api_call *call, json_t *request)
{
	const char *by = json_string_value(json_object_get(request, "by"));
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_flows_get m = {.rule = MSG_ANY, .state = UINT8_MAX};
	struct flows_call *x;

	if (!flows_filter(a, call, request, &m))
		return;
	if (dp == NULL) {
		api_fail(call, "unavailable", "the dataplane is not connected");
		return;
	}
	x = calloc(1, sizeof(*x));
	if (x == NULL) {
		api_fail(call, "internal", "out of memory");
		return;
	}
	x->a = a;
	x->call = call;
	x->list = json_array();
	x->top = number_to(json_object_get(request, "top"), 0, MSG_FLOWS_TOP_MAX);
	x->by = by != NULL && strcmp(by, "packets") == 0 ? "packets" : "bytes";
	m.max = number_to(json_object_get(request, "limit"), LIMIT_DEFAULT, LIMIT_MAX);
	if (x->top > 0) {
		m.max = x->top;
		m.order = strcmp(x->by, "packets") == 0 ? FLOWS_BY_PACKETS : FLOWS_BY_BYTES;
	}
	MSG_INIT(&m, MSG_FLOWS_GET, 0);
	peer_request_many(dp, &m, 10000, MSG_FLOW_INFO, flows_one, flows_done, x);
}
