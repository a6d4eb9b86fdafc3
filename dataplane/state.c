/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <rte_malloc.h>

#include "config/base/clock.h"
#include "dataplane/links.h"
#include "dataplane/worker.h"

#define NEIGHS_DEFAULT 16384 /* if the configuration does not say */

static int tls_check(const struct msg_dp_config *cfg, struct err *err)
{
	for (unsigned i = 0; i < cfg->n_listeners; i++) {
		if (cfg->listeners[i].stack && cfg->tls_workers == 0)
			return err_set(err, -EINVAL,
				       "configuration: listener %u is of no TLS worker", i);
	}
	if (cfg->n_upstreams > MSG_UPSTREAMS_MAX || cfg->n_sources > MSG_SOURCES_MAX)
		return err_set(err, -EINVAL, "configuration: %u upstreams, %u sources",
			       cfg->n_upstreams, cfg->n_sources);
	if (cfg->tls_workers == 0)
		return 0;
	if (cfg->tls_workers > MSG_TLS_WORKERS_MAX || cfg->tls_port_first > cfg->tls_port_last ||
	    memchr(cfg->tls_dir, '\0', sizeof(cfg->tls_dir) - 24) == NULL)
		return err_set(err, -EINVAL, "configuration: %u TLS workers, ports %u-%u",
			       cfg->tls_workers, cfg->tls_port_first, cfg->tls_port_last);
	return 0;
}

/* The agent is trusted to mean well, not to be free of errors: no index of its goes unchecked. */
int state_config_check(const struct msg_dp_config *cfg, struct err *err)
{
	if (cfg->n_ports > MSG_PORTS_MAX || cfg->n_listeners > MSG_LISTENERS_MAX)
		return err_set(err, -EINVAL, "configuration: %u ports, %u listeners", cfg->n_ports,
			       cfg->n_listeners);
	if (memchr(cfg->lcores, '\0', sizeof(cfg->lcores)) == NULL ||
	    memchr(cfg->file_prefix, '\0', sizeof(cfg->file_prefix)) == NULL)
		return err_set(err, -EINVAL, "configuration: unterminated text");
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		const struct msg_port *p = &cfg->ports[i];

		if (memchr(p->name, '\0', sizeof(p->name)) == NULL ||
		    memchr(p->tap, '\0', sizeof(p->tap)) == NULL ||
		    memchr(p->devargs, '\0', sizeof(p->devargs)) == NULL)
			return err_set(err, -EINVAL, "configuration: port %u: unterminated text",
				       i);
		if (p->name[0] == '\0')
			continue;
		if (p->n_vlans > MSG_VLANS_MAX ||
		    (p->side != PORT_DEVICE && p->side != PORT_UPLINK))
			return err_set(err, -EINVAL, "configuration: port %s: side %u, %u VLANs",
				       p->name, p->side, p->n_vlans);
	}
	return tls_check(cfg, err);
}

int state_new(struct state **out, const struct msg_dp_config *cfg, uint16_t n_workers,
	      struct err *err)
{
	struct state *st;
	int ret = state_config_check(cfg, err);

	if (ret < 0)
		return ret;
	if (n_workers < 1 || n_workers > WORKERS_MAX)
		return err_set(err, -EINVAL, "%u workers: not in 1..%u", n_workers, WORKERS_MAX);
	st = calloc(1, sizeof(*st));
	if (st == NULL)
		return -ENOMEM;
	st->cfg = *cfg;
	st->n_ports = cfg->n_ports;
	st->n_workers = n_workers;
	st->started_ms = clock_boot_ms();
	for (unsigned i = 0; i < cfg->n_ports; i++) {
		port_from_config(&st->ports[i], &cfg->ports[i]);
		st->ports[i].owner = i % n_workers;
	}
	ret = links_from_config(st);
	if (ret < 0)
		goto fail;
	if (getrandom(st->seed, sizeof(st->seed), 0) != sizeof(st->seed)) {
		ret = err_set(err, -EIO, "no random numbers");
		goto fail;
	}
	ret = -ENOMEM;
	st->qsbr = rte_zmalloc("qsbr", rte_rcu_qsbr_get_memsize(n_workers), RTE_CACHE_LINE_SIZE);
	if (st->qsbr == NULL || rte_rcu_qsbr_init(st->qsbr, n_workers) != 0) {
		err_set(err, ret, "no memory for the workers' grace periods");
		goto fail;
	}
	ret = bindings_new(&st->bindings, cfg->bindings_max, st->qsbr, err);
	if (ret < 0)
		goto fail;
	/* The agent pins bound addresses as neighbours of the kernel: room for these comes on top. */
	ret = neighs_new(&st->neighs,
			 (cfg->neighbours_max != 0 ? cfg->neighbours_max : NEIGHS_DEFAULT) +
				 cfg->bindings_max,
			 st->qsbr, err);
	if (ret < 0)
		goto fail;
	if (n_workers > 1) {
		uint32_t slots = cfg->slots != 0 ? cfg->slots : cfg->bindings_max;

		ret = -ENOMEM;
		st->shared_limits =
			rte_zmalloc("shared_limits", (size_t)slots * sizeof(*st->shared_limits),
				    RTE_CACHE_LINE_SIZE);
		if (st->shared_limits == NULL) {
			err_set(err, ret, "no memory for the rates of %u devices", slots);
			goto fail;
		}
	}
	for (unsigned i = 0; i < n_workers; i++) {
		ret = worker_new(&st->workers[i], st, i, err);
		if (ret < 0)
			goto fail;
	}
	*out = st;
	return 0;
fail:
	state_free(st);
	return ret;
}

void state_free(struct state *st)
{
	if (st == NULL)
		return;
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		worker_free(st->workers[i]);
	bindings_free(st->bindings);
	neighs_free(st->neighs);
	fib_free((struct fib *)atomic_load(&st->fib));
	rte_free(st->shared_limits);
	rte_free(st->qsbr);
	free((void *)atomic_load(&st->trace));
	free((void *)atomic_load(&st->doors));
	free(st);
}

void state_grace(struct state *st)
{
	rte_rcu_qsbr_synchronize(st->qsbr, RTE_QSBR_THRID_INVALID);
}
