/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/doors.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/state.h"

struct doors *doors_new(const struct msg_dp_config *cfg)
{
	struct doors *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->n_listeners = cfg->n_listeners;
	d->n_upstreams = cfg->n_upstreams;
	d->n_sources = cfg->n_sources;
	memcpy(d->listeners, cfg->listeners, sizeof(d->listeners));
	memcpy(d->upstreams, cfg->upstreams, sizeof(d->upstreams));
	memcpy(d->sources, cfg->sources, sizeof(d->sources));
	for (unsigned i = 0; i < d->n_listeners; i++)
		d->listener_ports |= 1ull << (d->listeners[i].port % 64);
	for (unsigned i = 0; i < d->n_upstreams; i++)
		d->upstream_ports |= 1ull << (d->upstreams[i].port % 64);
	return d;
}

bool doors_differ(const struct msg_dp_config *a, const struct msg_dp_config *b)
{
	return a->n_listeners != b->n_listeners || a->n_upstreams != b->n_upstreams ||
	       a->n_sources != b->n_sources ||
	       memcmp(a->listeners, b->listeners, sizeof(a->listeners)) != 0 ||
	       memcmp(a->upstreams, b->upstreams, sizeof(a->upstreams)) != 0 ||
	       memcmp(a->sources, b->sources, sizeof(a->sources)) != 0;
}

void doors_publish(struct state *st, struct doors *d)
{
	const struct doors *old = atomic_exchange_explicit(&st->doors, d, memory_order_acq_rel);

	/* Which upstreams the guard has taken is remembered by their numbers. */
	atomic_fetch_add(&st->topo, 1);
	if (old != NULL)
		state_grace(st);
	free((void *)old);
}

void doors_forget(struct msg_dp_config *c)
{
	memset(c->listeners, 0, sizeof(c->listeners));
	memset(c->upstreams, 0, sizeof(c->upstreams));
	memset(c->sources, 0, sizeof(c->sources));
	c->n_listeners = c->n_upstreams = c->n_sources = 0;
}
