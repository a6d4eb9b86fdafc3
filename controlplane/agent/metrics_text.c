/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/metrics_text.h"

#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"
#include "controlplane/agent/api_stats.h"
#include "controlplane/agent/tls_state.h"

struct family {
	const char *name; /* behind "sallyport_" */
	const char *type;
	const char *help;
	unsigned long long (*value)(const struct agent *a); /* of one without labels */
	void (*samples)(FILE *f, struct agent *a, const struct family *me);
	bool dataplane; /* only while it is there */
};

void metrics_label(FILE *f, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', f);
		if (*text == '\n')
			fputs("\\n", f);
		else
			fputc(*text, f);
	}
}

static void open_sample(FILE *f, const struct family *me, const char *label, const char *value)
{
	fprintf(f, "sallyport_%s{%s=\"", me->name, label);
	metrics_label(f, value);
	fputc('"', f);
}

static void more_label(FILE *f, const char *label, const char *value)
{
	fprintf(f, ",%s=\"", label);
	metrics_label(f, value);
	fputc('"', f);
}

static void close_sample(FILE *f, uint64_t value)
{
	fprintf(f, "} %llu\n", (unsigned long long)value);
}

/* ---- the agent ---- */

static unsigned long long uptime(const struct agent *a)
{
	return (clock_boot_ms() - a->started_ms) / 1000;
}

static unsigned long long bindings(const struct agent *a)
{
	return a->n_bindings;
}

static unsigned long long sessions(const struct agent *a)
{
	const struct session *s;
	unsigned n = 0;

	LIST_FOREACH(s, &a->sessions, next)
		n++;
	return n;
}

static unsigned long long policy_epoch(const struct agent *a)
{
	return a->form != NULL ? a->form->epoch : 0;
}

static unsigned long long lease(const struct agent *a)
{
	uint64_t now = clock_boot_ms();

	return a->lease_until_ms > now ? (a->lease_until_ms - now) / 1000 : 0;
}

static struct link_state link_now(const struct agent *a)
{
	struct link_state l;

	link_get_state(a->link, &l);
	return l;
}

static unsigned long long connected(const struct agent *a)
{
	return link_now(a).connected;
}

static unsigned long long revision(const struct agent *a)
{
	return link_now(a).revision;
}

static unsigned long long head(const struct agent *a)
{
	return link_now(a).head;
}

static unsigned long long dataplane_up(const struct agent *a)
{
	return a->dp_ready && a->stats.h.type == MSG_STATS;
}

static void build_samples(FILE *f, struct agent *a, const struct family *me)
{
	(void)a;
	open_sample(f, me, "version", SALLYPORT_VERSION);
	close_sample(f, 1);
}

static void standing_samples(FILE *f, struct agent *a, const struct family *me)
{
	uint32_t count[STANDING_COUNT] = {0};

	for (uint32_t i = 0; i < registry_devices(a->registry); i++)
		count[registry_device(a->registry, i)->judged.standing]++;
	for (int s = 0; s < STANDING_COUNT; s++) {
		open_sample(f, me, "standing", standing_name(s));
		close_sample(f, count[s]);
	}
}

static void refused_samples(FILE *f, struct agent *a, const struct family *me)
{
	for (unsigned i = 0; i < AGENT_REFUSALS_MAX && a->refusals[i].n > 0; i++) {
		open_sample(f, me, "reason", a->refusals[i].reason);
		close_sample(f, a->refusals[i].n);
	}
}

struct kernel_counters {
	FILE *f;
	const struct family *me;
};

static void kernel_sample(void *arg, const char *name, uint64_t packets, uint64_t bytes)
{
	const struct kernel_counters *k = arg;

	(void)bytes;
	open_sample(k->f, k->me, "counter", name);
	close_sample(k->f, packets);
}

static void kernel_samples(FILE *f, struct agent *a, const struct family *me)
{
	struct kernel_counters k = {f, me};

	nft_counters(a->nft, kernel_sample, &k);
}

/* ---- the dataplane ---- */

#define FROM_STATS(member)                                                                         \
	static unsigned long long stats_##member(const struct agent *a)                            \
	{                                                                                          \
		return a->stats.member;                                                            \
	}
FROM_STATS(forwarded)
FROM_STATS(lane)
FROM_STATS(diverted)
FROM_STATS(admissions)
FROM_STATS(refusals)
FROM_STATS(flows)
FROM_STATS(flows_max)
FROM_STATS(buffers)
FROM_STATS(buffers_free)
FROM_STATS(busy_cycles)
FROM_STATS(total_cycles)
#undef FROM_STATS

static void reason_samples(FILE *f, struct agent *a, const struct family *me)
{
	for (unsigned i = 1; i < DROP_REASON_COUNT; i++) {
		open_sample(f, me, "reason", drop_reason_name(i));
		close_sample(f, a->stats.drops[i]);
	}
}

static bool port_is_there(const struct agent *a, uint32_t i)
{
	return a->cfg->ports[i].name[0] != '\0';
}

static void port_pair(FILE *f, const struct agent *a, const struct family *me, uint32_t i,
		      uint64_t rx, uint64_t tx)
{
	open_sample(f, me, "port", a->cfg->ports[i].name);
	more_label(f, "direction", "rx");
	close_sample(f, rx);
	open_sample(f, me, "port", a->cfg->ports[i].name);
	more_label(f, "direction", "tx");
	close_sample(f, tx);
}

static void link_samples(FILE *f, const struct agent *a, const struct family *me, bool bytes)
{
	const struct msg_stats *s = &a->stats;
	char name[16];

	for (uint32_t n = 0; n < s->n_tls && n < MSG_TLS_WORKERS_MAX; n++) {
		snprintf(name, sizeof(name), "tls%u", n);
		open_sample(f, me, "port", name);
		more_label(f, "direction", "rx");
		close_sample(f, bytes ? s->tls[n].rx_bytes : s->tls[n].rx_packets);
		open_sample(f, me, "port", name);
		more_label(f, "direction", "tx");
		close_sample(f, bytes ? s->tls[n].tx_bytes : s->tls[n].tx_packets);
	}
}

static void port_samples(FILE *f, struct agent *a, const struct family *me)
{
	const struct msg_stats *s = &a->stats;
	bool bytes = strcmp(me->name, "port_bytes_total") == 0;

	for (uint32_t i = 0; i < s->n_ports && i < a->cfg->n_ports; i++) {
		const struct msg_stats_port *p = &s->ports[i];

		if (port_is_there(a, i))
			port_pair(f, a, me, i, bytes ? p->rx_bytes : p->rx_packets,
				  bytes ? p->tx_bytes : p->tx_packets);
	}
	link_samples(f, a, me, bytes);
}

static void port_kernel_samples(FILE *f, struct agent *a, const struct family *me)
{
	const struct msg_stats *s = &a->stats;

	for (uint32_t i = 0; i < s->n_ports && i < a->cfg->n_ports; i++) {
		if (!port_is_there(a, i))
			continue;
		open_sample(f, me, "port", a->cfg->ports[i].name);
		more_label(f, "direction", "to");
		close_sample(f, s->ports[i].to_kernel);
		open_sample(f, me, "port", a->cfg->ports[i].name);
		more_label(f, "direction", "from");
		close_sample(f, s->ports[i].from_kernel);
	}
}

static void port_up_samples(FILE *f, struct agent *a, const struct family *me)
{
	const struct msg_stats *s = &a->stats;

	for (uint32_t i = 0; i < s->n_ports && i < a->cfg->n_ports; i++) {
		if (!port_is_there(a, i) || a->cfg->ports[i].kernel[0] != '\0')
			continue;
		open_sample(f, me, "port", a->cfg->ports[i].name);
		close_sample(f, s->ports[i].present && s->ports[i].link_up);
	}
	for (uint32_t n = 0; n < s->n_tls && n < MSG_TLS_WORKERS_MAX; n++) {
		char name[16];

		snprintf(name, sizeof(name), "tls%u", n);
		open_sample(f, me, "port", name);
		close_sample(f, s->tls[n].present && s->tls[n].link_up);
	}
}

static void port_error_samples(FILE *f, struct agent *a, const struct family *me)
{
	const struct msg_stats *s = &a->stats;

	for (uint32_t i = 0; i < s->n_ports && i < a->cfg->n_ports; i++) {
		const struct msg_stats_port *p = &s->ports[i];
		const struct {
			const char *kind;
			uint64_t n;
		} rows[] = {{"missed", p->nic_missed},
			    {"rx", p->nic_rx_errors},
			    {"no_buffer", p->nic_no_buffer},
			    {"tx", p->nic_tx_errors}};

		for (unsigned k = 0; port_is_there(a, i) && k < 4; k++) {
			open_sample(f, me, "port", a->cfg->ports[i].name);
			more_label(f, "kind", rows[k].kind);
			close_sample(f, rows[k].n);
		}
	}
}

/* ---- its accounts, of tallies_tick() ---- */

static void rule_samples(FILE *f, struct agent *a, const struct family *me)
{
	for (uint32_t i = 0; i < a->tallies.n_accounts; i++) {
		const struct msg_tally_account *e = &a->tallies.account[i];

		if (e->reason != DROP_NONE || e->rule[0] == '\0')
			continue;
		open_sample(f, me, "rule", e->rule);
		more_label(f, "from", e->from);
		more_label(f, "to", e->to);
		close_sample(f, strcmp(me->name, "rule_packets_total") == 0 ? e->packets
				: strcmp(me->name, "rule_bytes_total") == 0 ? e->bytes
									    : e->flows);
	}
}

/* Several rules may refuse for one pair, and most refusals have no rule. */
static void pair_refused_samples(FILE *f, struct agent *a, const struct family *me)
{
	json_t *pairs = stats_pairs(&a->tallies), *pair, *n;
	const char *reason;
	size_t i;

	json_array_foreach(pairs, i, pair) {
		json_object_foreach(json_object_get(pair, "reasons"), reason, n) {
			open_sample(f, me, "from",
				    json_string_value(json_object_get(pair, "from")));
			more_label(f, "to", json_string_value(json_object_get(pair, "to")));
			more_label(f, "reason", reason);
			close_sample(f, (uint64_t)json_integer_value(n));
		}
	}
	json_decref(pairs);
}

static void device_samples(FILE *f, struct agent *a, const struct family *me)
{
	for (uint32_t i = 0; a->cfg->metrics_devices && i < a->tallies.n_devices; i++) {
		const struct msg_tally_device *e = &a->tallies.device[i];
		const struct device *d = registry_by_slot(a->registry, e->slot);

		if (d == NULL)
			continue;
		open_sample(f, me, "device", d->identity);
		close_sample(f, strcmp(me->name, "device_packets_total") == 0 ? e->packets
				: strcmp(me->name, "device_bytes_total") == 0 ? e->bytes
									      : e->refused);
	}
}

static uint64_t lcore_value(const struct msg_tally_lcore *l, const char *name)
{
	static const struct {
		const char *name;
		size_t at;
	} rows[] = {
		{"lcore_busy_cycles_total", offsetof(struct msg_tally_lcore, busy_cycles)},
		{"lcore_cycles_total", offsetof(struct msg_tally_lcore, total_cycles)},
		{"lcore_packets_total", offsetof(struct msg_tally_lcore, packets)},
		{"lcore_bursts_total", offsetof(struct msg_tally_lcore, bursts)},
		{"lcore_ring_dropped_packets_total",
		 offsetof(struct msg_tally_lcore, ring_dropped)},
		{"lcore_flows", offsetof(struct msg_tally_lcore, flows)},
		{"lcore_flows_max", offsetof(struct msg_tally_lcore, flows_max)},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(rows[i].name, name) == 0)
			return *(const uint64_t *)((const char *)l + rows[i].at);
	}
	return 0;
}

static void lcore_samples(FILE *f, struct agent *a, const struct family *me)
{
	for (uint32_t i = 0; i < a->tallies.n_lcores; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%u", a->tallies.lcore[i].worker);
		open_sample(f, me, "lcore", number);
		close_sample(f, lcore_value(&a->tallies.lcore[i], me->name));
	}
}

/* ---- the TLS workers, of tls_state_tick() ---- */

/* Those that take devices: one under a name and worker, and its counters go on when its keys change. */
static void tls_samples(FILE *f, struct agent *a, const struct family *me,
			void (*each)(FILE *f, const struct family *me, const char *worker,
				     const struct msg_tls_listener *l))
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(a->peers, tls, PEERS_MAX);
	char worker[16];

	for (uint32_t i = 0; i < n; i++) {
		const struct tls_state *s = tls_state_of(tls[i]);

		snprintf(worker, sizeof(worker), "%u", peer_worker(tls[i]));
		for (uint32_t k = 0; s != NULL && k < s->n; k++) {
			if (!s->list[k].left)
				each(f, me, worker, &s->list[k]);
		}
	}
}

static void open_listener(FILE *f, const struct family *me, const char *worker,
			  const struct msg_tls_listener *l)
{
	open_sample(f, me, "listener", l->name);
	more_label(f, "worker", worker);
}

static void listener_one(FILE *f, const struct family *me, const char *worker,
			 const struct msg_tls_listener *l)
{
	open_listener(f, me, worker, l);
	close_sample(f, strcmp(me->name, "listener_sessions") == 0     ? l->sessions - l->handshakes
			: strcmp(me->name, "listener_handshakes") == 0 ? l->handshakes
			: strcmp(me->name, "listener_handshakes_total") == 0 ? l->count[TLS_BEGUN]
			: strcmp(me->name, "listener_sessions_total") == 0 ? l->count[TLS_SESSIONS]
									   : l->count[TLS_REFUSED]);
}

static void listener_samples(FILE *f, struct agent *a, const struct family *me)
{
	tls_samples(f, a, me, listener_one);
}

static void turned_one(FILE *f, const struct family *me, const char *worker,
		       const struct msg_tls_listener *l)
{
	for (unsigned c = TLS_OVER_HANDSHAKES; c < TLS_COUNTS; c++) {
		open_listener(f, me, worker, l);
		more_label(f, "limit", tls_count_name(c));
		close_sample(f, l->count[c]);
	}
}

static void turned_samples(FILE *f, struct agent *a, const struct family *me)
{
	tls_samples(f, a, me, turned_one);
}

static uint64_t upstream_value(const struct msg_tls_upstream *u, const char *name)
{
	if (strcmp(name, "upstream_up") == 0)
		return !u->down;
	if (strcmp(name, "upstream_connections") == 0)
		return u->sessions;
	if (strcmp(name, "upstream_connections_total") == 0)
		return u->connected;
	if (strcmp(name, "upstream_failed_total") == 0)
		return u->failed;
	return strcmp(name, "upstream_checks_total") == 0 ? u->checks : u->checks_failed;
}

static void upstream_one(FILE *f, const struct family *me, const char *worker,
			 const struct msg_tls_listener *l)
{
	for (uint32_t i = 0; i < l->n_upstreams; i++) {
		const struct msg_tls_upstream *u = &l->upstream[i];
		char addr[ADDR_TEXT_BYTES], text[ADDR_TEXT_BYTES + 16];

		snprintf(text, sizeof(text), ip_addr_is_v4(&u->addr) ? "%s:%u" : "[%s]:%u",
			 ip_addr_text(&u->addr, addr), u->port);
		open_listener(f, me, worker, l);
		more_label(f, "upstream", text);
		close_sample(f, upstream_value(u, me->name));
	}
}

static void upstream_samples(FILE *f, struct agent *a, const struct family *me)
{
	tls_samples(f, a, me, upstream_one);
}

static void worker_samples(FILE *f, struct agent *a, const struct family *me)
{
	struct peer *tls[PEERS_MAX];
	uint32_t n = peers_tls(a->peers, tls, PEERS_MAX);
	char worker[16];

	for (uint32_t i = 0; i < n; i++) {
		const struct tls_state *s = tls_state_of(tls[i]);

		snprintf(worker, sizeof(worker), "%u", peer_worker(tls[i]));
		open_sample(f, me, "worker", worker);
		close_sample(f, s != NULL);
	}
}

/* ---- all of them ---- */

/* clang-format off */
static const struct family families[] = {
	{"build_info", "gauge", "Version.", NULL, build_samples, false},
	{"uptime_seconds", "gauge", "Of the agent.", uptime, NULL, false},
	{"devices", "gauge", "Devices by standing.", NULL, standing_samples, false},
	{"bindings", "gauge", "Addresses bound to devices.", bindings, NULL, false},
	{"tls_sessions", "gauge", "Open mTLS sessions.", sessions, NULL, false},
	{"handshakes_refused_total", "counter", "Handshakes refused, by reason.", NULL, refused_samples, false},
	{"tls_worker_up", "gauge", "Is the TLS worker there, and does it answer?", NULL, worker_samples, false},
	{"listener_sessions", "gauge", "Open sessions of a listener, by TLS worker.", NULL, listener_samples, false},
	{"listener_handshakes", "gauge", "Handshakes under way.", NULL, listener_samples, false},
	{"listener_handshakes_total", "counter", "Handshakes begun.", NULL, listener_samples, false},
	{"listener_sessions_total", "counter", "Sessions begun.", NULL, listener_samples, false},
	{"listener_refused_total", "counter", "Handshakes refused.", NULL, listener_samples, false},
	{"listener_turned_away_total", "counter", "Devices turned away before a handshake, by the limit that did.", NULL, turned_samples, false},
	{"upstream_up", "gauge", "Do sessions of this TLS worker go to the upstream?", NULL, upstream_samples, false},
	{"upstream_connections", "gauge", "Sessions connected to an upstream.", NULL, upstream_samples, false},
	{"upstream_connections_total", "counter", "Sessions that reached it.", NULL, upstream_samples, false},
	{"upstream_failed_total", "counter", "Sessions that could not reach it.", NULL, upstream_samples, false},
	{"upstream_checks_total", "counter", "Checks of it.", NULL, upstream_samples, false},
	{"upstream_checks_failed_total", "counter", "Checks that failed.", NULL, upstream_samples, false},
	{"policy_epoch", "gauge", "Of the policy in force.", policy_epoch, NULL, false},
	{"controller_connected", "gauge", "Is the controller there?", connected, NULL, false},
	{"decision_revision", "gauge", "Last decision in force here.", revision, NULL, false},
	{"decision_head", "gauge", "Last decision that the controller's heartbeat named.", head, NULL, false},
	{"controller_lease_seconds", "gauge", "For how long the controller's word still holds.", lease, NULL, false},
	{"dataplane_up", "gauge", "Is the dataplane connected and in step?", dataplane_up, NULL, false},
	{"forwarded_packets_total", "counter", "Packets that went port to port by the fast path.", stats_forwarded, NULL, true},
	{"lane_packets_total", "counter", "Packets that the fast lane judged.", stats_lane, NULL, true},
	{"diverted_packets_total", "counter", "Packets to a TLS listener.", stats_diverted, NULL, true},
	{"admissions_total", "counter", "Flows admitted.", stats_admissions, NULL, true},
	{"refusals_total", "counter", "Flows refused.", stats_refusals, NULL, true},
	{"flows", "gauge", "Flows now.", stats_flows, NULL, true},
	{"flows_max", "gauge", "Room for flows.", stats_flows_max, NULL, true},
	{"buffers", "gauge", "Packet buffers, for all ports.", stats_buffers, NULL, true},
	{"buffers_free", "gauge", "Packet buffers that hold no packet.", stats_buffers_free, NULL, true},
	{"worker_busy_cycles_total", "counter", "TSC cycles in which the workers had packets.", stats_busy_cycles, NULL, true},
	{"worker_cycles_total", "counter", "TSC cycles of the workers.", stats_total_cycles, NULL, true},
	{"dropped_packets_total", "counter", "Packets dropped, by reason.", NULL, reason_samples, true},
	{"port_packets_total", "counter", "Packets of a port.", NULL, port_samples, true},
	{"port_bytes_total", "counter", "Bytes of a port's frames.", NULL, port_samples, true},
	{"port_kernel_packets_total", "counter", "Packets between a port and its kernel shadow.", NULL, port_kernel_samples, true},
	{"port_up", "gauge", "Is the port there, with a link?", NULL, port_up_samples, true},
	{"port_nic_errors_total", "counter", "What the NIC counted: no descriptor, bad frame, no buffer, not sent.", NULL, port_error_samples, true},
	{"rule_packets_total", "counter", "Packets that passed, by rule and pair of segments.", NULL, rule_samples, true},
	{"rule_bytes_total", "counter", "Bytes of IP packets that passed, by rule and pair.", NULL, rule_samples, true},
	{"rule_flows_total", "counter", "Flows started, by rule and pair.", NULL, rule_samples, true},
	{"pair_refused_packets_total", "counter", "Packets refused, by pair of segments and reason.", NULL, pair_refused_samples, true},
	{"device_packets_total", "counter", "Packets of a device that passed; with metrics.devices = true.", NULL, device_samples, true},
	{"device_bytes_total", "counter", "Bytes of a device that passed; with metrics.devices = true.", NULL, device_samples, true},
	{"device_refused_packets_total", "counter", "Packets refused to a device; with metrics.devices = true.", NULL, device_samples, true},
	{"lcore_busy_cycles_total", "counter", "TSC cycles of rounds with packets, by worker.", NULL, lcore_samples, true},
	{"lcore_cycles_total", "counter", "TSC cycles, by worker.", NULL, lcore_samples, true},
	{"lcore_packets_total", "counter", "Packets taken, by worker.", NULL, lcore_samples, true},
	{"lcore_bursts_total", "counter", "Bursts with packets, by worker; 32 packets at most each.", NULL, lcore_samples, true},
	{"lcore_ring_dropped_packets_total", "counter", "Packets for another worker whose ring was full.", NULL, lcore_samples, true},
	{"lcore_flows", "gauge", "Flows now, by worker.", NULL, lcore_samples, true},
	{"lcore_flows_max", "gauge", "Room for flows, by worker.", NULL, lcore_samples, true},
	{"kernel_packets_total", "counter", "Packets of the kernel path, by nftables counter.", NULL, kernel_samples, false},
};
/* clang-format on */

#define FAMILIES (sizeof(families) / sizeof(families[0]))

void metrics_write(FILE *f, struct agent *a)
{
	for (unsigned i = 0; i < FAMILIES; i++) {
		const struct family *me = &families[i];

		if (me->dataplane && !dataplane_up(a))
			continue;
		fprintf(f, "# HELP sallyport_%s %s\n# TYPE sallyport_%s %s\n", me->name, me->help,
			me->name, me->type);
		if (me->value != NULL)
			fprintf(f, "sallyport_%s %llu\n", me->name, me->value(a));
		else
			me->samples(f, a, me);
	}
}

void metrics_reference(FILE *to)
{
	for (unsigned i = 0; i < FAMILIES; i++)
		fprintf(to, "sallyport_%-34s %-8s %s\n", families[i].name, families[i].type,
			families[i].help);
}
