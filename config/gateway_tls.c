/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/gateway_tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT_FIRST 1024 /* below are the well-known ones */

int gw_tls_ports_parse(void *parent, const char *text, const char **why)
{
	struct gw_config *c = parent;
	unsigned long first, last;
	char *end;

	*why = "must be FIRST-LAST within 1024-65535";
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	first = strtoul(text, &end, 10);
	if (end[0] != '-' || end[1] < '0' || end[1] > '9')
		return -EINVAL;
	last = strtoul(end + 1, &end, 10);
	if (*end != '\0' || first < PORT_FIRST || last > 65535 || first > last)
		return -EINVAL;
	c->tls_port_first = first;
	c->tls_port_last = last;
	return 0;
}

int gw_tls_address_parse(void *parent, const char *text, const char **why)
{
	struct gw_config *c = parent;
	struct ip_addr a;

	if (c->n_tls_addrs == MSG_SOURCES_MAX) {
		*why = "too many addresses";
		return -EINVAL;
	}
	if (ip_addr_parse(&a, text) < 0) {
		*why = "is not an IP address";
		return -EINVAL;
	}
	for (uint32_t i = 0; i < c->n_tls_addrs; i++) {
		if (ip_addr_eq(&c->tls_addrs[i], &a)) {
			*why = "is there twice";
			return -EINVAL;
		}
	}
	c->tls_addrs[c->n_tls_addrs++] = a;
	return 0;
}

const struct gw_vlan *gw_address_home(const struct gw_config *cfg, const struct ip_addr *a,
				      const struct gw_port **port)
{
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		for (unsigned v = 0; v < cfg->ports[i].n_vlans; v++) {
			const struct gw_vlan *vlan = &cfg->ports[i].vlans[v];

			for (unsigned k = 0; k < vlan->n_addrs; k++) {
				if (!ip_addr_eq(&vlan->addrs[k].addr, a))
					continue;
				if (port != NULL)
					*port = &cfg->ports[i];
				return vlan;
			}
		}
	}
	return NULL;
}

/* The port's own address in the subnet that holds an address; the narrowest subnet wins. */
static const struct ip_addr *on_link(const struct gw_config *cfg, const struct ip_addr *a)
{
	const struct ip_addr *best = NULL;
	int best_len = -1;

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		for (unsigned v = 0; v < cfg->ports[i].n_vlans; v++) {
			const struct gw_vlan *vlan = &cfg->ports[i].vlans[v];

			for (unsigned k = 0; k < vlan->n_addrs; k++) {
				const struct gw_ifaddr *own = &vlan->addrs[k];
				struct ip_prefix p = {own->addr, own->len};

				if (ip_addr_is_v4(a) != ip_addr_is_v4(&own->addr) ||
				    own->len <= best_len || !ip_prefix_has(&p, a))
					continue;
				best = &own->addr;
				best_len = own->len;
			}
		}
	}
	return best;
}

static const struct ip_addr *by_route(const struct gw_config *cfg, const struct ip_addr *a)
{
	const struct gw_route *best = NULL;

	for (uint32_t i = 0; i < cfg->n_routes; i++) {
		const struct gw_route *r = &cfg->routes[i];

		if (ip_addr_is_v4(a) == ip_addr_is_v4(&r->via) && ip_prefix_has(&r->to, a) &&
		    (best == NULL || r->to.len > best->to.len))
			best = r;
	}
	return best != NULL ? on_link(cfg, &best->via) : NULL;
}

unsigned gw_upstream_sources(const struct gw_config *cfg, const struct ip_addr *upstream,
			     struct ip_addr *out, unsigned max)
{
	const struct ip_addr *near = on_link(cfg, upstream);
	unsigned n = 0;

	if (near == NULL)
		near = by_route(cfg, upstream);
	if (cfg->n_tls_addrs == 0) {
		if (near != NULL && max > 0)
			out[n++] = *near;
		return n;
	}
	/* The nearest first, then the others as they are listed. */
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < cfg->n_tls_addrs && n < max; i++) {
			const struct ip_addr *a = &cfg->tls_addrs[i];
			bool nearest = near != NULL && ip_addr_eq(a, near);

			if (nearest == (pass == 0) && ip_addr_is_v4(a) == ip_addr_is_v4(upstream))
				out[n++] = *a;
		}
	}
	return n;
}

int gw_upstream_source(const struct gw_config *cfg, const struct ip_addr *upstream,
		       struct ip_addr *out)
{
	return gw_upstream_sources(cfg, upstream, out, 1) == 1 ? 0 : -EADDRNOTAVAIL;
}

bool gw_uses_stack(const struct gw_config *cfg)
{
	if (cfg->stack_ready)
		return true;
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		if (cfg->listeners[i].transport == GW_STACK)
			return true;
	}
	return false;
}

uint16_t gw_stack_mtu(const struct gw_config *cfg, const struct ip_addr *own)
{
	const struct gw_port *home;
	uint16_t mtu = 0;

	if (gw_address_home(cfg, own, &home) != NULL && home->devargs[0] != '\0')
		return home->mtu_bytes;

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *p = &cfg->ports[i];

		if (p->devargs[0] != '\0' && (mtu == 0 || p->mtu_bytes < mtu))
			mtu = p->mtu_bytes;
	}
	return mtu;
}

uint16_t gw_stack_mtu_max(const struct gw_config *cfg)
{
	uint16_t mtu = 0;

	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		const struct gw_port *p = &cfg->ports[i];

		if (p->devargs[0] != '\0' && p->mtu_bytes > mtu)
			mtu = p->mtu_bytes;
	}
	return mtu;
}

static void source_check(const struct gw_config *c, const struct ip_addr *a, const char *key,
			 struct config_errors *errs)
{
	const struct gw_port *port;
	char text[ADDR_TEXT_BYTES];

	ip_addr_text(a, text);
	if (gw_address_home(c, a, &port) == NULL)
		config_error(errs, c->file, 0, key, "%s is not one of the ports' addresses", text);
	else if (port->devargs[0] == '\0')
		config_error(errs, c->file, 0, key,
			     "%s is on the kernel-only port %s; take an address of a port with "
			     "devargs",
			     text, port->name);
}

static void stack_upstream_check(const struct gw_config *c, const struct ip_addr *up,
				 const char *key, struct config_errors *errs)
{
	const struct gw_port *port;
	char text[ADDR_TEXT_BYTES];
	struct ip_addr source;

	ip_addr_text(up, text);
	if (gw_address_home(c, up, NULL) != NULL || (ip_addr_is_v4(up) && up->b[12] == 127)) {
		config_error(errs, c->file, 0, key,
			     "upstream %s is this box; transport = \"stack\" reaches only other "
			     "hosts: take \"socket\"",
			     text);
		return;
	}
	if (gw_upstream_source(c, up, &source) < 0) {
		config_error(errs, c->file, 0, key,
			     "no port's subnet and no route leads to the upstream %s: name an "
			     "address to send from in tls.upstream_addresses",
			     text);
		return;
	}
	if (c->n_tls_addrs > 0)
		return; /* where these are has been checked */
	source_check(c, &source, key, errs);
	if (gw_address_home(c, &source, &port) != NULL && port->side == PORT_DEVICE)
		config_error(errs, c->file, 0, key,
			     "upstream %s is behind the device port %s; transport = \"stack\" "
			     "reaches upstreams behind uplink ports: take \"socket\"",
			     text, port->name);
}

/* Where its packets come and go, DPDK must see them. */
static void stack_check(const struct gw_config *c, const struct gw_listener *l,
			struct config_errors *errs)
{
	const struct gw_port *port;
	char key[64];

	snprintf(key, sizeof(key), "listeners.%s", l->name);
	if (gw_address_home(c, &l->addr, &port) != NULL && port->devargs[0] == '\0')
		config_error(errs, c->file, 0, key,
			     "transport = \"stack\" needs an address of a port with devargs; %s is "
			     "a kernel-only port: take \"socket\"",
			     port->name);
	for (uint32_t i = 0; i < l->n_upstreams; i++)
		stack_upstream_check(c, &l->upstreams[i].addr, key, errs);
}

/* A connection to a listener must not look like an answer of an upstream. */
static void overlap_check(const struct gw_config *c, const struct gw_listener *l,
			  struct config_errors *errs)
{
	if (l->port >= c->tls_port_first && l->port <= c->tls_port_last)
		config_error(errs, c->file, 0, "tls.upstream_ports",
			     "%u-%u holds port %u of listener %s: take another range",
			     c->tls_port_first, c->tls_port_last, l->port, l->name);
}

static void source_note(struct gw_config *c, const struct ip_addr *a)
{
	for (uint32_t i = 0; i < c->n_tls_sources; i++) {
		if (ip_addr_eq(&c->tls_sources[i], a))
			return;
	}
	if (c->n_tls_sources < MSG_SOURCES_MAX)
		c->tls_sources[c->n_tls_sources++] = *a;
}

static void sources_note(struct gw_config *c, const struct gw_listener *l)
{
	struct ip_addr a[MSG_SOURCES_MAX];

	for (uint32_t k = 0; k < l->n_upstreams; k++) {
		unsigned n = gw_upstream_sources(c, &l->upstreams[k].addr, a, MSG_SOURCES_MAX);

		for (unsigned i = 0; i < n; i++)
			source_note(c, &a[i]);
	}
}

void gw_tls_check(struct gw_config *cfg, struct config_errors *errs)
{
	for (uint32_t i = 0; i < cfg->n_tls_addrs; i++)
		source_check(cfg, &cfg->tls_addrs[i], "tls.upstream_addresses", errs);
	if (!gw_uses_stack(cfg))
		return;
	if (cfg->tls_port_last - cfg->tls_port_first + 1u < cfg->tls_workers)
		config_error(errs, cfg->file, 0, "tls.upstream_ports",
			     "%u-%u has fewer ports than there are workers (%u)",
			     cfg->tls_port_first, cfg->tls_port_last, cfg->tls_workers);
	for (uint32_t i = 0; i < cfg->n_listeners; i++) {
		overlap_check(cfg, &cfg->listeners[i], errs);
		if (cfg->listeners[i].transport != GW_STACK)
			continue;
		stack_check(cfg, &cfg->listeners[i], errs);
		sources_note(cfg, &cfg->listeners[i]);
	}
}
