/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/hotplug.h"

#include <errno.h>
#include <string.h>

#include "config/base/log.h"
#include "dataplane/doors.h"
#include "dataplane/worker.h"

static void changeable_forget(struct msg_dp_config *c)
{
	doors_forget(c);
	memset(c->ports, 0, sizeof(c->ports));
	c->n_ports = 0;
	c->h = (struct msg_hdr){0};
}

bool hotplug_suffices(const struct msg_dp_config *a, const struct msg_dp_config *b)
{
	struct msg_dp_config x = *a, y = *b;

	changeable_forget(&x);
	changeable_forget(&y);
	return memcmp(&x, &y, sizeof(x)) == 0;
}

/* Every worker begins a round after this call, and those that slept have let go of the ports' descriptors. */
static void workers_turn(struct state *st)
{
	for (unsigned i = 0; i < st->n_workers; i++) {
		struct command c = {.kind = COMMAND_NOTHING};

		worker_ask(st->workers[i], &c);
	}
}

static void slot_close(struct state *st, unsigned i)
{
	struct port *p = &st->ports[i];
	bool was = atomic_exchange(&p->present, false);

	/* What it was told as its own is another's from now on, or nobody's. */
	atomic_fetch_add(&st->topo, 1);
	workers_turn(st);
	if (was)
		log_info("port removed name=%s", p->name);
	port_close(p);
	port_none(p);
	memset(&st->cfg.ports[i], 0, sizeof(st->cfg.ports[i]));
}

static int slot_open(struct state *st, unsigned i, const struct msg_dp_config *want,
		     struct err *err)
{
	struct port *p = &st->ports[i];
	int ret;

	port_from_config(p, &want->ports[i]);
	p->owner = i % st->n_workers;
	st->cfg.ports[i] = want->ports[i];
	if (i >= st->n_ports)
		st->n_ports = i + 1;
	if (want->ports[i].devargs[0] == '\0')
		return 0;
	ret = port_open(p, i, want, st->n_workers, err);
	if (ret < 0)
		return err_wrap(err, ret, "port %s", p->name);
	atomic_store_explicit(&p->present, true, memory_order_release);
	for (unsigned k = 0; k < st->n_workers; k++)
		idle_wake(st->workers[k]);
	return 0;
}

static int doors_follow(struct state *st, const struct msg_dp_config *want)
{
	struct doors *d;

	if (!doors_differ(&st->cfg, want))
		return 0;
	d = doors_new(want);
	if (d == NULL)
		return -ENOMEM;
	doors_publish(st, d);
	memcpy(st->cfg.listeners, want->listeners, sizeof(want->listeners));
	memcpy(st->cfg.upstreams, want->upstreams, sizeof(want->upstreams));
	memcpy(st->cfg.sources, want->sources, sizeof(want->sources));
	st->cfg.n_listeners = want->n_listeners;
	st->cfg.n_upstreams = want->n_upstreams;
	st->cfg.n_sources = want->n_sources;
	log_info("listeners: %u, upstreams of the TLS workers' own stack: %u", want->n_listeners,
		 want->n_upstreams);
	return 0;
}

int hotplug_apply(struct state *st, const struct msg_dp_config *want, struct err *err)
{
	bool changed[MSG_PORTS_MAX];
	int ret = state_config_check(want, err);

	if (ret < 0)
		return ret;
	if (!hotplug_suffices(&st->cfg, want))
		return err_set(err, -EINVAL,
			       "more than ports and listeners has changed: restart the dataplane");
	ret = doors_follow(st, want);
	if (ret < 0)
		return err_set(err, ret, "no memory for the listeners");
	/* Leaving ports first: one that moved to another slot has its interface to itself again. */
	for (unsigned i = 0; i < MSG_PORTS_MAX; i++) {
		changed[i] =
			memcmp(&st->cfg.ports[i], &want->ports[i], sizeof(want->ports[i])) != 0;
		if (changed[i] && st->cfg.ports[i].name[0] != '\0')
			slot_close(st, i);
	}
	for (unsigned i = 0; i < MSG_PORTS_MAX; i++) {
		bool retry = want->ports[i].devargs[0] != '\0' && !port_present(&st->ports[i]);
		struct err why = {""};
		int step;

		if (want->ports[i].name[0] == '\0' || !(changed[i] || retry))
			continue;
		step = slot_open(st, i, want, &why);
		if (step < 0)
			log_error("%s", why.msg);
		if (step < 0 && ret == 0)
			ret = err_set(err, step, "%s", why.msg);
	}
	st->cfg.n_ports = want->n_ports;
	return ret;
}
