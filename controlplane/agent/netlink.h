/* SPDX-License-Identifier: GPL-3.0-or-later */
/* netlink: the kernel's routes, neighbours and links mirrored for the dataplane, and the kernel side of the ports.
 *
 * An interface is a (port index, VLAN) of gateway.cfg by its name: a port's TAP shadow or its kernel-only interface is
 * VLAN 0, "<that name>.N" is VLAN N, "<that name>.O.N" is VLAN N inside the service tag O. Other interfaces (and, in routes, kernel-only ports) are MSG_PORT_KERNEL.
 *
 * Single-threaded. Calls wait for the kernel's answer and for nothing else; cfg is borrowed and outlives the objects. */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "config/base/err.h"
#include "config/base/msg.h"
#include "config/gateway.h"

/** Name of the kernel interface of (port, vlan) into out, IFNAMSIZ bytes. @return 0, or -EINVAL: no such port, VLAN not
 * configured there, or name too long */
int ports_ifname(const struct gw_config *cfg, uint16_t port, uint16_t vlan, char *out);

/** The reverse. @return false if the interface belongs to no configured (port, vlan) */
bool ports_find(const struct gw_config *cfg, const char *ifname, uint16_t *port, uint16_t *vlan);

/* ---- mirror ---- */

struct mirror;

/* Called from mirror_dispatch() and mirror_dump(). Structs are complete but for their msg_hdr. */
struct mirror_ops {
	void (*route)(void *arg, bool add,
		      const struct msg_route *r); /* add replaces an equal prefix */
	void (*neigh)(void *arg, bool add,
		      const struct msg_neigh *n); /* add replaces an equal (ip, port, vlan) */
	/* any interface of the machine; a new TAP, raw or kernel-only interface wants ports_configure() */
	void (*link)(void *arg, const char *ifname, bool up, bool exists);
};

/**
 * Subscribe and read the present state, without a callback: call mirror_dump().
 * @param ops  borrowed; no member is NULL
 * @return 0 or -errno
 */
int mirror_new(struct mirror **out, const struct gw_config *cfg, const struct mirror_ops *ops,
	       void *arg, struct err *err);
void mirror_free(struct mirror *m); /* NULL is a no-op */
int mirror_fd(const struct mirror *m); /* poll for reading, then mirror_dispatch() */

/**
 * Take in what changed and report the differences. Lost notifications (ENOBUFS) are made up for by reading everything
 * again. Routes are read again as a whole when any changed: the first time at once, then, while changes go on, only so
 * often that a tenth of the time goes into it, and twice a second at the least. See mirror_wait_ms().
 * @return 0 or -errno (try again later; nothing is forgotten)
 */
int mirror_dispatch(struct mirror *m, struct err *err);

/** Report every route and neighbour as added, for a dataplane that starts afresh. */
void mirror_dump(struct mirror *m);

/** Which (mac, port, vlan) of the configured interfaces has this address, by the kernel's neighbour table, which is asked
 * if the mirror does not know. For kernel-only ports, where no dataplane saw the frames. @return 0 or -ENOENT, -errno */
int mirror_neigh_find(struct mirror *m, const struct ip_addr *ip, struct mac_addr *mac,
		      uint16_t *port, uint16_t *vlan);

/** When to call mirror_dispatch() though there is nothing to read: 0 now, -1 never. */
int mirror_wait_ms(const struct mirror *m);

/** The configuration's ports have changed: the next mirror_dispatch() reads everything again, and says what became of
 * whom. */
void mirror_refresh(struct mirror *m);

/** Does this interface exist, and has it a carrier? By the last notification. */
bool mirror_link_up(const struct mirror *m, const char *ifname);

/* ---- ports ---- */

struct ports;

int ports_new(struct ports **out, const struct gw_config *cfg, struct err *err);
void ports_free(struct ports *p); /* leaves the interfaces as they are; NULL is a no-op */

/** Turn the box into a router (ip_forward, conntrack that tolerates flows of which it sees a part). Only after
 * nft_new() succeeded: the table must stand before anything is forwarded. @return 0 or -errno */
int ports_forwarding(struct ports *p, struct err *err);

/**
 * Bring an interface of the configuration to its configured state: sysctls, MTU, VLAN subinterfaces, addresses, up;
 * then every configured route whose gateway is reachable by now. A raw interface: up, no IPv6, no ARP answers.
 * Idempotent; what is right already is not touched. An interface that is absent, or not of the configuration, is no
 * error.
 * @param ifname  TAP, raw or kernel-only interface; NULL = all that exist
 * @return 0 or -errno of the first thing that failed; the rest was still done
 */
int ports_configure(struct ports *p, const char *ifname, struct err *err);

/** Before a port leaves the configuration: take the box's addresses from a kernel-only interface. A shadow takes its own
 * along. @return 0 or -errno of the first that failed */
int ports_deconfigure(struct ports *p, uint16_t port, struct err *err);

/**
 * Answer neighbour solicitations for a bound device on its port (RFC 4389 style), so that its isolated peers reach it
 * through the box. IPv6 needs an entry an address; for IPv4 proxy_arp_pvlan does it and this is a no-op, as it is on
 * a port that is not `isolated`. Hosts must reach the prefix through the box either way; RAs should say off-link.
 * @return 0 (also: already there, already gone), -EINVAL or -errno
 */
int neigh_proxy_add(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan);
int neigh_proxy_del(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan);

/**
 * Pin a bound device in the kernel's neighbour table (permanent entry): nobody else's ARP or ND can take its traffic.
 * The mirror reports the entry like any other. Pins and proxies are remembered: a port without its interface is no
 * error, and ports_configure() puts them (again) when it comes. @return 0, -EINVAL or -errno
 */
int neigh_pin_add(struct ports *p, const struct ip_addr *ip, const struct mac_addr *mac,
		  uint16_t port, uint16_t vlan);
/** @return 0, also if it is gone already; or -errno */
int neigh_pin_del(struct ports *p, const struct ip_addr *ip, uint16_t port, uint16_t vlan);

/* ---- managed ---- */

struct managed;

/* The kernel sends nothing to the upstreams of the TLS workers' own stack, and so would forget where they are; the
 * dataplane knows only what the kernel knows. So the kernel is asked to keep the neighbour of each, or of its route's
 * gateway. */
int managed_new(struct managed **out, const struct gw_config *cfg, struct err *err);
void managed_free(struct managed *m); /* NULL is a no-op; the kernel goes on */
/** Once a second, whatever now_ms says more often: ask again, for routes and interfaces change. */
void managed_tick(struct managed *m, uint64_t now_ms);
void managed_soon(struct managed *m); /* the configuration has other upstreams: at the next tick */
