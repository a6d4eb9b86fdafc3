/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ethdev.h>
#include <rte_lcore.h>

#include "dataplane/links.h"
#include "dataplane/parse.h"
#include "dataplane/port_pool.h"
#include "dataplane/worker.h"

#define LIST_ROOM 256

/* Each TLS session asks this. We look ourselves: to wake a worker costs it more than a packet does. */
void query_origin(struct state *st, struct msg_flow_origin *m)
{
	struct command c = {.kind = COMMAND_ORIGIN, .id = m->key};
	struct worker *owner;
	uint64_t hash;
	int ret;

	memset(c.id.reserved, 0, sizeof(c.id.reserved));
	flow_key_canonical(&c.id);
	hash = flow_hash(st->seed, &c.id);
	owner = st->workers[flow_worker(hash, st->n_workers)];
	ret = flow_peek(owner->flows, &c.id, hash, &c.origin);
	if (ret == -EAGAIN) {
		worker_ask(owner, &c);
		ret = c.count > 0;
	}
	m->found = ret > 0;
	m->mac = c.origin.mac;
	m->port = c.origin.port;
	m->vlan = c.origin.vlan;
}

static int list_worker(struct worker *w, const struct command *like, uint32_t *left,
		       int (*each)(void *arg, struct msg_flow_info *info), void *arg)
{
	uint32_t cursor = 0;
	int ret = 0;

	do {
		struct command c = *like;

		c.cursor = cursor;
		if (*left < c.room)
			c.room = *left;
		worker_ask(w, &c);
		for (uint32_t k = 0; k < c.count && ret == 0; k++)
			ret = each(arg, &c.list[k]);
		if (like->filter.order == FLOWS_AS_THEY_LIE)
			*left -= c.count;
		cursor = c.cursor;
	} while (cursor != 0 && *left > 0 && ret == 0);
	return ret;
}

int query_flows(struct state *st, const struct msg_flows_get *get,
		int (*each)(void *arg, struct msg_flow_info *info), void *arg)
{
	bool ordered = get->order != FLOWS_AS_THEY_LIE;
	uint32_t left = ordered ? RTE_MIN(get->max, (uint32_t)MSG_FLOWS_TOP_MAX) : get->max;
	struct command c = {
		.kind = COMMAND_LIST,
		.slot = get->slot,
		.filter = {.segment = get->segment,
			   .rule = get->rule,
			   .state = get->state,
			   .order = get->order},
		.room = ordered ? left : LIST_ROOM,
	};
	int ret = 0;

	c.list = calloc(ordered ? MSG_FLOWS_TOP_MAX : LIST_ROOM, sizeof(*c.list));
	if (c.list == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < st->n_workers && left > 0 && ret == 0; i++)
		ret = list_worker(st->workers[i], &c, &left, each, arg);
	free(c.list);
	return ret;
}

static uint64_t read64(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add_worker(struct msg_stats *m, const struct worker_stats *s, unsigned n_ports)
{
	for (unsigned i = 0; i < DROP_REASON_COUNT; i++)
		m->drops[i] += read64(&s->drops[i]);
	m->forwarded += read64(&s->forwarded);
	m->lane += read64(&s->lane);
	m->diverted += read64(&s->diverted);
	m->admissions += read64(&s->admissions);
	m->refusals += read64(&s->refusals);
	m->flows += read64(&s->flows);
	m->busy_cycles += read64(&s->busy_cycles);
	m->total_cycles += read64(&s->total_cycles);
	for (unsigned i = 0; i < n_ports; i++) {
		m->ports[i].rx_packets += read64(&s->port[i].rx_packets);
		m->ports[i].rx_bytes += read64(&s->port[i].rx_bytes);
		m->ports[i].tx_packets += read64(&s->port[i].tx_packets);
		m->ports[i].tx_bytes += read64(&s->port[i].tx_bytes);
		m->ports[i].to_kernel += read64(&s->port[i].to_kernel);
		m->ports[i].from_kernel += read64(&s->port[i].from_kernel);
	}
}

static void nic_counters(const struct port *p, struct msg_stats_port *out)
{
	struct rte_eth_stats nic;

	if (p->eth == PORT_ETH_NONE || rte_eth_stats_get(p->eth, &nic) != 0)
		return;
	out->nic_missed = nic.imissed;
	out->nic_rx_errors = nic.ierrors;
	out->nic_no_buffer = nic.rx_nombuf;
	out->nic_tx_errors = nic.oerrors;
}

static void add_links(struct msg_stats *m, const struct worker_stats *s)
{
	for (unsigned n = 0; n < MSG_TLS_WORKERS_MAX; n++) {
		m->tls[n].rx_packets += read64(&s->port[PORT_LINKS + n].rx_packets);
		m->tls[n].rx_bytes += read64(&s->port[PORT_LINKS + n].rx_bytes);
		m->tls[n].tx_packets += read64(&s->port[PORT_LINKS + n].tx_packets);
		m->tls[n].tx_bytes += read64(&s->port[PORT_LINKS + n].tx_bytes);
	}
}

void query_counters(const struct state *st, struct msg_stats *m)
{
	for (unsigned i = 0; i < st->n_workers; i++) {
		add_worker(m, &st->workers[i]->stats, st->n_ports);
		add_links(m, &st->workers[i]->stats);
		m->flows_max += st->cfg.flows_max;
	}
}

void query_stats(struct state *st, struct msg_stats *m)
{
	query_counters(st, m);
	m->bindings = bindings_count(st->bindings);
	m->routes = st->n_routes;
	m->neighbours = neighs_count(st->neighs);
	port_pool_count(&m->buffers, &m->buffers_free);
	m->started_ms = st->started_ms;
	m->n_ports = st->n_ports;
	m->n_lcores = st->n_workers;
	m->n_tls = st->cfg.tls_workers;
	for (unsigned n = 0; n < st->cfg.tls_workers; n++) {
		m->tls[n].present = st->ports[PORT_LINKS + n].present;
		m->tls[n].link_up = links_up(st) >> n & 1;
	}
	for (unsigned i = 0; i < st->n_ports; i++) {
		m->ports[i].present = st->ports[i].present;
		m->ports[i].link_up = port_link_up(&st->ports[i]);
		nic_counters(&st->ports[i], &m->ports[i]);
	}
}

void query_lcore(const struct state *st, unsigned worker, struct msg_tally_lcore *out)
{
	const struct worker_stats *s = &st->workers[worker]->stats;

	*out = (struct msg_tally_lcore){
		.worker = worker,
		.cpu = rte_lcore_to_cpu_id((int)worker + 1),
		.busy_cycles = read64(&s->busy_cycles),
		.total_cycles = read64(&s->total_cycles),
		.packets = read64(&s->packets),
		.bursts = read64(&s->bursts),
		.handed = read64(&s->handed),
		.ring_dropped = read64(&s->ring_dropped),
		.flows = read64(&s->flows),
		.flows_max = st->cfg.flows_max,
	};
}

/* One TALLIES that is filled entry by entry, and sent when it is full. */
struct parts {
	struct msg_tallies m;
	unsigned room;
	int (*each)(void *arg, struct msg_tallies *part);
	void *arg;
	int ret;
};

static void parts_begin(struct parts *p, uint16_t kind, unsigned room)
{
	memset(&p->m, 0, sizeof(p->m));
	MSG_INIT(&p->m, MSG_TALLIES, 0);
	p->m.kind = kind;
	p->room = room;
}

static void parts_flush(struct parts *p)
{
	if (p->m.n > 0 && p->ret == 0)
		p->ret = p->each(p->arg, &p->m);
	parts_begin(p, p->m.kind, p->room);
}

/* @return index of the next entry */
static unsigned parts_next(struct parts *p)
{
	if (p->m.n == p->room)
		parts_flush(p);
	return p->m.n++;
}

static void send_accounts(struct parts *p, const struct accounts *a, const struct tally *t)
{
	parts_begin(p, TALLY_ACCOUNTS, MSG_TALLY_ACCOUNTS);
	for (uint32_t i = 0; i < accounts_count(a) && p->ret == 0; i++) {
		const struct account_name *name = accounts_name(a, i);
		struct msg_tally_account *e;

		if ((t[i].packets | t[i].flows | t[i].open) == 0)
			continue;
		e = &p->m.account[parts_next(p)];
		memcpy(e->rule, name->rule, sizeof(e->rule));
		memcpy(e->from, name->from, sizeof(e->from));
		memcpy(e->to, name->to, sizeof(e->to));
		e->reason = name->reason;
		e->packets = t[i].packets;
		e->bytes = t[i].bytes;
		e->flows = t[i].flows;
		e->open = t[i].open;
	}
	parts_flush(p);
}

static void send_devices(struct parts *p, const struct device_tally *d, uint32_t n, uint32_t slot)
{
	parts_begin(p, TALLY_DEVICES, MSG_TALLY_DEVICES);
	for (uint32_t i = slot != 0 ? slot : 1; i < (slot != 0 ? slot + 1 : n) && p->ret == 0;
	     i++) {
		if (i >= n || (d[i].packets | d[i].flows | d[i].refused | d[i].diverted) == 0)
			continue;
		p->m.device[parts_next(p)] = (struct msg_tally_device){
			.slot = i,
			.packets = d[i].packets,
			.bytes = d[i].bytes,
			.flows = d[i].flows,
			.open = d[i].open,
			.refused = d[i].refused,
			.diverted = d[i].diverted,
		};
	}
	parts_flush(p);
}

static void send_lcores(struct parts *p, const struct state *st)
{
	parts_begin(p, TALLY_LCORES, MSG_TALLY_LCORES);
	for (unsigned i = 0; i < st->n_workers; i++)
		query_lcore(st, i, &p->m.lcore[parts_next(p)]);
	parts_flush(p);
}

int query_tallies(struct state *st, const struct msg_tallies_get *get,
		  int (*each)(void *arg, struct msg_tallies *part), void *arg)
{
	bool accounts = get->kinds & TALLY_BIT(TALLY_ACCOUNTS);
	bool devices = get->kinds & TALLY_BIT(TALLY_DEVICES);
	struct parts *p = calloc(1, sizeof(*p));
	int ret = -ENOMEM;

	if (p == NULL)
		return ret;
	p->each = each;
	p->arg = arg;
	if (get->kinds & TALLY_BIT(TALLY_LCORES))
		send_lcores(p, st);
	for (unsigned i = 0; (accounts || devices) && i < st->n_workers && p->ret == 0; i++) {
		struct command c = {.kind = COMMAND_TALLY};
		const struct accounts *a = st->workers[i]->accounts;

		c.tally.account = calloc(ACCOUNTS_MAX, sizeof(*c.tally.account));
		c.tally.device =
			devices ? calloc(accounts_devices(a), sizeof(*c.tally.device)) : NULL;
		p->ret = -ENOMEM;
		if (c.tally.account != NULL && (!devices || c.tally.device != NULL)) {
			p->ret = 0;
			worker_ask(st->workers[i], &c);
			if (accounts)
				send_accounts(p, a, c.tally.account);
			if (devices)
				send_devices(p, c.tally.device, accounts_devices(a), get->slot);
		}
		free(c.tally.account);
		free(c.tally.device);
	}
	ret = p->ret;
	free(p);
	return ret;
}
