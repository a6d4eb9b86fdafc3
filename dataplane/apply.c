/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "dataplane/worker.h"

#define POLICY_BYTES_MAX (256u << 20)
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#define FLUSH_MS 50

struct apply {
	struct state *st;
	struct trust_table *trust; /* published */
	struct policy_form *policy; /* published; mapped, policy->bytes long */
	struct policy_form *prepared;
	struct limit_table *limits; /* of policy, published */
	struct limit_table *prepared_limits; /* of prepared */
	struct fib *fib; /* published; st frees it */
	struct routes *routes;
	uint16_t mark; /* of the sync under way, or of the last */
	bool syncing;
	uint64_t flushed_ms; /* boot clock, routes by apply_flush_due() */
};

/* Messages of every type have one size (msg_recv() has checked it): a view of the right struct. */
union view {
	const union msg_any *any;
	const struct msg_policy *policy;
	const struct msg_route *route;
	const struct msg_neigh *neigh;
	const struct msg_bind *bind;
};

int apply_new(struct apply **out, struct state *st)
{
	struct apply *a = calloc(1, sizeof(*a));
	int ret;

	if (a == NULL)
		return -ENOMEM;
	a->st = st;
	a->mark = 1;
	ret = routes_new(&a->routes);
	if (ret < 0) {
		free(a);
		return ret;
	}
	*out = a;
	return 0;
}

static void policy_unmap(struct policy_form *f)
{
	if (f != NULL)
		munmap(f, f->bytes);
}

static void prepared_drop(struct apply *a)
{
	limit_table_free(a->prepared_limits);
	policy_unmap(a->prepared);
	a->prepared_limits = NULL;
	a->prepared = NULL;
}

/* No worker uses it any more. */
static void policy_drop(struct apply *a)
{
	limit_table_free(a->limits);
	policy_unmap(a->policy);
	a->limits = NULL;
	a->policy = NULL;
}

void apply_free(struct apply *a)
{
	if (a == NULL)
		return;
	atomic_store(&a->st->trust, NULL);
	atomic_store(&a->st->policy, NULL);
	atomic_store(&a->st->limits, NULL);
	prepared_drop(a);
	policy_drop(a);
	trust_unmap(a->trust);
	free(a->trust);
	routes_free(a->routes);
	free(a);
}

static void forget_flows(struct state *st)
{
	for (unsigned i = 0; i < st->n_workers; i++) {
		struct command c = {.kind = COMMAND_FORGET};

		worker_ask(st->workers[i], &c);
	}
}

int apply_trust(struct apply *a, const char *path, bool running, struct err *err)
{
	struct trust_table *new = calloc(1, sizeof(*new)), *old = a->trust;
	bool other;
	int ret;

	if (new == NULL)
		return -ENOMEM;
	ret = trust_map(new, path, err);
	if (ret < 0) {
		free(new);
		return ret;
	}
	other = old != NULL && old->hdr->instance != new->hdr->instance;
	if (other) {
		log_warn("trust table is another one: all flows are forgotten");
		atomic_store(&a->st->ready, false);
		atomic_store(&a->st->policy, NULL);
		atomic_store(&a->st->limits, NULL);
	}
	atomic_store(&a->st->trust, new);
	a->trust = new;
	state_grace(a->st);
	if (other) {
		prepared_drop(a); /* its limits may lean on those of the policy */
		policy_drop(a);
		if (running)
			forget_flows(a->st);
	}
	trust_unmap(old);
	free(old);
	return 0;
}

static int map_policy(int fd, struct policy_form **out, struct err *err)
{
	struct stat st;
	void *block;
	int seals, ret;

	if (fd < 0)
		return err_set(err, -EPROTO, "policy: no descriptor");
	/* Unsealed memory could change after it was checked, or shrink under our feet. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS)
		return err_set(err, -EPROTO, "policy: the memory is not sealed");
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(struct policy_form) || st.st_size > POLICY_BYTES_MAX)
		return err_set(err, -EPROTO, "policy: %lld bytes", (long long)st.st_size);
	block = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (block == MAP_FAILED)
		return err_set(err, -errno, "policy: map: %s", strerror(errno));
	ret = policy_form_check(block, st.st_size, err);
	if (ret < 0) {
		munmap(block, st.st_size);
		return ret;
	}
	*out = block;
	return 0;
}

static int policy_prepare(struct apply *a, const struct msg_policy *m, int fd, struct err *err)
{
	struct policy_form *form = NULL;
	int ret = map_policy(fd, &form, err);

	if (ret < 0)
		return ret;
	if (form->epoch != m->epoch) {
		policy_unmap(form);
		return err_set(err, -EPROTO, "policy: epoch differs from the message's");
	}
	/* Flows remember the epoch alone: one epoch must mean one policy. */
	if (a->policy != NULL && form->epoch == a->policy->epoch &&
	    (form->bytes != a->policy->bytes || memcmp(form, a->policy, form->bytes) != 0)) {
		policy_unmap(form);
		return err_set(err, -EINVAL, "policy: epoch %llu is in force with another content",
			       (unsigned long long)m->epoch);
	}
	prepared_drop(a);
	ret = limit_table_new(&a->prepared_limits, form, &a->st->cfg.limits, a->st->cfg.flows_max,
			      a->st->n_workers, a->limits, err);
	if (ret < 0) {
		policy_unmap(form);
		return ret;
	}
	a->prepared = form;
	return 0;
}

static int policy_commit(struct apply *a, const struct msg_policy *m, struct err *err)
{
	struct policy_form *old = a->policy;
	struct limit_table *old_limits = a->limits;

	if (a->prepared == NULL || a->prepared->epoch != m->epoch)
		return err_set(err, -EINVAL, "policy: epoch %llu is not prepared",
			       (unsigned long long)m->epoch);
	a->policy = a->prepared;
	a->prepared = NULL;
	a->limits = a->prepared_limits;
	a->prepared_limits = NULL;
	atomic_store(&a->st->limits, a->limits); /* it leads to the old one: see worker_pin() */
	atomic_store(&a->st->policy, a->policy);
	state_grace(a->st);
	limit_table_settle(a->limits);
	limit_table_free(old_limits);
	policy_unmap(old);
	return 0;
}

static int policy_abort(struct apply *a, const struct msg_policy *m)
{
	if (a->prepared != NULL && a->prepared->epoch == m->epoch)
		prepared_drop(a);
	return 0;
}

int apply_flush(struct apply *a)
{
	struct fib *new, *old = a->fib;
	struct nexthop *nh;
	uint32_t n;
	int ret;

	if (a->syncing || !routes_dirty(a->routes))
		return 0;
	ret = fib_build(&new, a->routes);
	if (ret < 0)
		return ret;
	nh = fib_nexthops(new, &n);
	for (uint32_t i = 0; i < n; i++) {
		if (nh[i].has_gateway)
			atomic_store(&nh[i].mac, neighs_mac(a->st->neighs, nh[i].port, nh[i].vlan,
							    &nh[i].gateway));
	}
	a->fib = new;
	atomic_store(&a->st->fib, new);
	a->st->n_routes = routes_count(a->routes);
	atomic_fetch_add(&a->st->topo, 1); /* after the fib: see worker_pin() */
	state_grace(a->st);
	fib_free(old);
	return 0;
}

int apply_flush_due(struct apply *a, uint64_t now_ms, uint64_t *wait_ms)
{
	uint64_t since = now_ms - a->flushed_ms;
	int ret;

	if (a->syncing || !routes_dirty(a->routes))
		return 0;
	if (since < FLUSH_MS) {
		if (FLUSH_MS - since < *wait_ms)
			*wait_ms = FLUSH_MS - since;
		return 0;
	}
	ret = apply_flush(a);
	a->flushed_ms = now_ms;
	return ret;
}

static bool port_ok(const struct state *st, uint16_t port)
{
	return port < st->n_ports;
}

/* Plain VLANs are the packets' business; a number for a pair of tags must be one of the port's. */
static bool vlan_ok(const struct state *st, uint16_t port, uint16_t vlan)
{
	return vlan <= 4094 || (port_ok(st, port) && port_qinq(&st->ports[port], vlan) != NULL);
}

static int route(struct apply *a, const struct msg_route *m, bool add, struct err *err)
{
	int ret;

	if (add &&
	    (m->kind < ROUTE_FORWARD || m->kind > ROUTE_DROP ||
	     (m->kind == ROUTE_FORWARD && m->port != MSG_PORT_KERNEL && !port_ok(a->st, m->port)) ||
	     !vlan_ok(a->st, m->port, m->vlan)))
		return err_set(err, -EPROTO, "route: kind %u, port %u, VLAN %u", m->kind, m->port,
			       m->vlan);
	ret = add ? routes_add(a->routes, m, a->mark) : routes_del(a->routes, m);
	return ret == -EINVAL ? err_set(err, -EPROTO, "route: impossible prefix") : ret;
}

static int neigh(struct apply *a, const struct msg_neigh *m, bool add, struct err *err)
{
	bool moved = false;
	int ret;

	if (m->port == MSG_PORT_KERNEL)
		return 0; /* the kernel's own business */
	if (!port_ok(a->st, m->port) || !vlan_ok(a->st, m->port, m->vlan))
		return err_set(err, -EPROTO, "neighbour: port %u, VLAN %u", m->port, m->vlan);
	if (!add) {
		if (a->fib != NULL)
			fib_set_gateway(a->fib, m->port, m->vlan, &m->ip, 0);
		(void)neighs_del(a->st->neighs, m); /* gone already is gone */
		return 0;
	}
	ret = neighs_add(a->st->neighs, m, a->mark, &moved);
	if (moved)
		atomic_fetch_add(&a->st->topo, 1);
	if (ret < 0)
		return err_set(err, ret, "neighbour: table full");
	if (a->fib != NULL)
		fib_set_gateway(a->fib, m->port, m->vlan, &m->ip, neigh_pack(&m->mac));
	return 0;
}

/* Flows remember that an end is a network, and that a device is where its address is routed to. Of a binding that
 * breaks either, they hear by this; one that was to be expected changes nothing for any flow but its own. */
static bool is_expected(const struct apply *a, const struct msg_bind *m)
{
	const struct nexthop *nh = a->fib != NULL ? fib_lookup(a->fib, &m->ip) : NULL;

	if (nh == NULL || nh->kind != ROUTE_FORWARD)
		return false;
	if (nh->port == MSG_PORT_KERNEL) /* nor was anything before */
		return true;
	return !nh->has_gateway && nh->port == m->port && nh->vlan == m->vlan &&
	       a->st->ports[nh->port].side == PORT_DEVICE;
}

static int bind_add(struct apply *a, const struct msg_bind *m, struct err *err)
{
	int ret;

	if (!port_ok(a->st, m->port) || !vlan_ok(a->st, m->port, m->vlan) ||
	    m->slot == TRUST_SLOT_NONE || a->trust == NULL || m->slot >= a->trust->slots)
		return err_set(err, -EPROTO, "binding: port %u, VLAN %u, slot %u", m->port, m->vlan,
			       m->slot);
	ret = bindings_add(a->st->bindings, m, a->mark);
	if (ret == 1 && !is_expected(a, m))
		atomic_fetch_add(&a->st->topo, 1);
	return ret < 0 ? err_set(err, ret, "binding: table full") : 0;
}

/* Whatever this sync did not name is gone from the world, and goes from here too. */
static int sync_end(struct apply *a, struct err *err)
{
	uint32_t bindings, neighs;
	bool first = !atomic_load(&a->st->ready);
	int ret;

	if (!a->syncing)
		return err_set(err, -EPROTO, "SYNC_END without SYNC_BEGIN");
	a->syncing = false;
	bindings = bindings_sweep(a->st->bindings, a->mark);
	neighs = neighs_sweep(a->st->neighs, a->mark);
	routes_sweep(a->routes, a->mark);
	ret = apply_flush(a);
	if (ret < 0)
		return ret;
	if (neighs > 0 && a->fib != NULL) {
		struct nexthop *nh;
		uint32_t n;

		nh = fib_nexthops(a->fib, &n);
		for (uint32_t i = 0; i < n; i++)
			atomic_store(&nh[i].mac, neighs_mac(a->st->neighs, nh[i].port, nh[i].vlan,
							    &nh[i].gateway));
	}
	if (first) {
		atomic_store(&a->st->pickup_until_ms,
			     a->st->cfg.pickup_ms == MSG_PICKUP_ALWAYS
				     ? CLOCK_NEVER_MS
				     : clock_boot_ms() + a->st->cfg.pickup_ms);
		atomic_store(&a->st->ready, true);
	}
	log_info("synchronised bindings=%u removed=%u neighbours_removed=%u",
		 bindings_count(a->st->bindings), bindings, neighs);
	return 0;
}

int apply_message(struct apply *a, const union msg_any *m, int fd, struct err *err)
{
	union view v = {.any = m};

	switch (m->h.type) {
	case MSG_SYNC_BEGIN:
		a->syncing = true;
		a->mark = a->mark % 0x7fff + 1; /* neighbours keep 15 bits of it */
		return 0;
	case MSG_SYNC_END:
		return sync_end(a, err);
	case MSG_POLICY_PREPARE:
		return policy_prepare(a, v.policy, fd, err);
	case MSG_POLICY_COMMIT:
		return policy_commit(a, v.policy, err);
	case MSG_POLICY_ABORT:
		return policy_abort(a, v.policy);
	case MSG_ROUTE_ADD:
	case MSG_ROUTE_DEL:
		return route(a, v.route, m->h.type == MSG_ROUTE_ADD, err);
	case MSG_NEIGH_ADD:
	case MSG_NEIGH_DEL:
		return neigh(a, v.neigh, m->h.type == MSG_NEIGH_ADD, err);
	case MSG_BIND_ADD:
		return bind_add(a, v.bind, err);
	case MSG_BIND_DEL:
		(void)bindings_del(a->st->bindings, &v.bind->ip);
		return 0;
	}
	return err_set(err, -EPROTO, "unexpected message %s", msg_type_name(m->h.type));
}
