/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/listeners.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FNV_BASIS 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

bool gw_listener_same_door(const struct gw_listener *a, const struct gw_listener *b)
{
	return ip_addr_eq(&a->addr, &b->addr) && a->port == b->port && a->protocol == b->protocol;
}

bool gw_listener_same_place(const struct gw_listener *a, const struct gw_listener *b)
{
	return gw_listener_same_door(a, b) && a->transport == b->transport;
}

/* Where a group stands in the file is no change; nor is what the agent notes of it. */
static struct gw_listener *keys_of(const struct gw_listener *l)
{
	struct gw_listener *copy = malloc(sizeof(*copy));

	if (copy == NULL)
		return NULL;
	memcpy(copy, l, sizeof(*copy));
	copy->upstream_tls.line = l->upstream_tls.line != 0;
	copy->left = GW_LISTENER_STAYS;
	copy->until_ms = 0;
	return copy;
}

bool gw_listener_same_keys(const struct gw_listener *a, const struct gw_listener *b)
{
	struct gw_listener *x = keys_of(a), *y = keys_of(b);
	bool same = x != NULL && y != NULL && memcmp(x, y, sizeof(*x)) == 0;

	free(x);
	free(y);
	return same;
}

static uint64_t fold(uint64_t hash, const void *data, size_t bytes)
{
	const uint8_t *at = data;

	while (bytes-- > 0)
		hash = (hash ^ *at++) * FNV_PRIME;
	return hash;
}

uint64_t gw_listener_upstreams_hash(const struct gw_listener *l)
{
	uint64_t hash = FNV_BASIS;

	for (uint32_t i = 0; i < l->n_upstreams; i++) {
		hash = fold(hash, &l->upstreams[i].addr, sizeof(l->upstreams[i].addr));
		hash = fold(hash, &l->upstreams[i].port, sizeof(l->upstreams[i].port));
	}
	return hash != 0 ? hash : 1;
}

uint64_t gw_listeners_hash(const struct gw_config *cfg)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		struct gw_listener *l = keys_of(&cfg->listeners[i]);

		if (l != NULL && cfg->listeners[i].left == GW_LISTENER_STAYS)
			sum += fold(FNV_BASIS, l, sizeof(*l));
		free(l);
	}
	return sum;
}

/* clang-format off */
#define K(key, field, who) {key, who, offsetof(struct gw_config, field), sizeof(((struct gw_config *)0)->field)}
static const struct {
	const char *key, *who; /* to restart */
	size_t at, bytes;
} fixed[] = {
	K("gateway.name", name, "everything"),
	K("gateway.run_dir", run_dir, "everything"),
	K("gateway.state_dir", state_dir, "the agent"),
	K("gateway.segments", segments, "the agent"),
	K("gateway.user", user, "the agent and the TLS workers"),
	K("gateway.log_level", log_level, "the agent and the TLS workers"),
	K("gateway.devices_max", devices_max, "everything"),
	K("gateway.binding_lease_s", binding_lease_s, "the agent"),
	K("gateway.drain_s", drain_s, "the agent and the TLS workers"),
	K("gateway.kernel_lease_s", kernel_lease_s, "the agent"),
	K("gateway.strangers", strangers, "the agent"),
	K("dataplane.lcores", lcores, "the agent"),
	K("dataplane.main_lcore", main_lcore, "the agent"),
	K("dataplane.memory_mb", memory_mb, "the agent"),
	K("dataplane.hugepages", hugepages, "the agent and the TLS workers"),
	K("dataplane.poll_always", poll_always, "the agent"),
	K("dataplane.flows_max", flows_max, "the agent"),
	K("dataplane.neighbours_max", neighbours_max, "the agent"),
	K("dataplane.tcp_established_s", tcp_established_s, "the agent"),
	K("dataplane.tcp_opening_s", tcp_opening_s, "the agent"),
	K("dataplane.tcp_closing_s", tcp_closing_s, "the agent"),
	K("dataplane.udp_s", udp_s, "the agent"),
	K("dataplane.udp_unanswered_s", udp_unanswered_s, "the agent"),
	K("dataplane.icmp_s", icmp_s, "the agent"),
	K("dataplane.refused_ms", refused_ms, "the agent"),
	K("dataplane.pickup_ms", pickup_ms, "the agent"),
	K("dataplane.pickup", pickup, "the agent"),
	K("limits", limits, "the agent"),
	K("tls.workers", tls_workers, "the agent and the TLS workers"),
	K("tls.upstream_ports", tls_port_first, "the agent and the TLS workers"),
	K("tls.upstream_ports", tls_port_last, "the agent and the TLS workers"),
	K("routes", n_routes, "the agent"),
	K("routes", routes, "the agent"),
	K("controller.socket", controller_socket, "the agent"),
	K("controller.public_key", controller_key, "the agent"),
	K("controller.clock_skew_s", controller_skew_s, "the agent"),
	K("metrics.address", metrics_addr, "the agent"),
	K("metrics.port", metrics_port, "the agent"),
	K("metrics.devices", metrics_devices, "the agent"),
};
#undef K
/* clang-format on */

int gw_reload_check(const struct gw_config *now, const struct gw_config *next, struct err *err)
{
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		if (memcmp((const char *)now + fixed[i].at, (const char *)next + fixed[i].at,
			   fixed[i].bytes) != 0)
			return err_set(err, -ENOTSUP,
				       "%s: %s: cannot change while the gateway runs: take the old "
				       "value back, or restart %s",
				       next->file, fixed[i].key, fixed[i].who);
	}
	for (uint32_t i = 0; i < next->n_listeners; i++) {
		const struct gw_listener *l = &next->listeners[i];

		if (l->transport == GW_STACK && !now->stack_ready)
			return err_set(
				err, -ENOTSUP,
				"%s: listeners.%s.transport: the first listener with \"stack\" "
				"needs a restart of the agent and the TLS workers",
				next->file, l->name);
	}
	return 0;
}
