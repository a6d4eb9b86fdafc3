/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/parse.h"
#include "dataplane/worker.h"

#define LIST_ROOM 256

void query_origin(struct state *st, struct msg_flow_origin *m)
{
	struct command c = {.kind = COMMAND_ORIGIN, .id = m->key};

	memset(c.id.reserved, 0, sizeof(c.id.reserved));
	flow_key_canonical(&c.id);
	worker_ask(st->workers[flow_worker(flow_hash(st->seed, &c.id), st->n_workers)], &c);
	m->found = c.origin.found;
	m->mac = c.origin.mac;
	m->port = c.origin.port;
	m->vlan = c.origin.vlan;
}

void query_sweep(struct state *st, struct msg_sweep *m)
{
	m->closed = 0;
	m->last_forward_us = 0;
	for (unsigned i = 0; i < st->n_workers; i++) {
		struct command c = {.kind = COMMAND_SWEEP, .slot = m->slot};

		worker_ask(st->workers[i], &c);
		m->closed += c.count;
		if (c.last_forward_us > m->last_forward_us)
			m->last_forward_us = c.last_forward_us;
	}
}

int query_flows(struct state *st, uint32_t slot, uint32_t max,
		int (*each)(void *arg, struct msg_flow_info *info), void *arg)
{
	struct msg_flow_info *list = calloc(LIST_ROOM, sizeof(*list));
	int ret = 0;

	if (list == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < st->n_workers && max > 0 && ret == 0; i++) {
		uint32_t cursor = 0;

		do {
			struct command c = {.kind = COMMAND_LIST,
					    .slot = slot,
					    .cursor = cursor,
					    .room = max < LIST_ROOM ? max : LIST_ROOM,
					    .list = list};

			worker_ask(st->workers[i], &c);
			for (uint32_t k = 0; k < c.count && ret == 0; k++)
				ret = each(arg, &list[k]);
			max -= c.count;
			cursor = c.cursor;
		} while (cursor != 0 && max > 0 && ret == 0);
	}
	free(list);
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

void query_stats(struct state *st, struct msg_stats *m)
{
	for (unsigned i = 0; i < st->n_workers; i++) {
		add_worker(m, &st->workers[i]->stats, st->n_ports);
		m->flows_max += st->cfg.flows_max;
	}
	m->bindings = bindings_count(st->bindings);
	m->started_ms = st->started_ms;
	m->n_ports = st->n_ports;
	m->n_lcores = st->n_workers;
	for (unsigned i = 0; i < st->n_ports; i++) {
		m->ports[i].present = st->ports[i].present;
		m->ports[i].link_up = port_link_up(&st->ports[i]);
	}
}
