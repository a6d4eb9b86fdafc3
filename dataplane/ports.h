/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ports: the DPDK ports and their TAP shadows ("kernel ports"). A port's index is the agent's, everywhere.
 * The control thread fills a port while no worker sees it, and then sets `present`; see hotplug.h. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "dataplane/port_kick.h"
#include "dataplane/port_queues.h"

/* Behind the configured ports come the links to the TLS workers, which no configuration names: link N leads to
 * worker N. See links.h. */
#define PORT_LINKS MSG_PORT_LINK
#define PORTS_ALL (PORT_LINKS + MSG_TLS_WORKERS_MAX)

#define PORT_ETH_NONE 0xffff /* no ethdev: kernel-only, absent, or a test */

struct port {
	char name[16];
	struct mac_addr mac;
	uint8_t side; /* enum port_side; of a link 0 */
	_Atomic bool
		present; /* workers may receive and send here. Control thread writes, workers read */
	uint16_t mtu_bytes;
	uint16_t eth; /* DPDK port id, or PORT_ETH_NONE */
	uint16_t tap_eth; /* of the shadow */
	uint16_t owner; /* the worker of the shadow, and of eth where that has one queue for all */
	struct port_queues queues; /* of eth. The shadow has one of each */
	uint64_t vlans[64]; /* bitmap of accepted VLAN ids; bit 0: frames without a tag */
	uint16_t n_qinq;
	struct port_qinq {
		uint16_t outer, tag, id; /* subinterface_id() */
	} qinq[MSG_VLANS_MAX];
	int rx_fd
		[PORT_QUEUES_MAX]; /* a queue; readable while packets wait; -1: it cannot say. The drivers' own */
	struct port_kick *kick; /* of a vhost-user port, to be armed before sleeping; else NULL */
	int tap_fd; /* the same of the shadow */
	int large_fd; /* of a TAP port with an MTU that its driver does not know (port_tap.h); else -1 */
	uint64_t rx_cookie
		[PORT_QUEUES_MAX]; /* of rx_fd, where it is an AF_XDP socket. Control thread's */
};

/* The receive queues that worker `index` of n polls: from the first in steps of n, below queues.rx. A single queue is
 * the owner's. */
static inline uint16_t port_queue_first(const struct port *p, uint16_t index)
{
	return p->queues.rx > 1 ? index : p->owner == index ? 0 : PORT_QUEUES_MAX;
}

/* Of worker `index`, which with `own_tx` may be any, else is the owner. */
static inline uint16_t port_tx_queue(const struct port *p, uint16_t index)
{
	return p->queues.own_tx ? index : 0;
}

static inline bool port_is_link(uint16_t index)
{
	return index >= PORT_LINKS && index < PORTS_ALL;
}

/* Ask once a round, before the port's other members are read: with `true` they are all set, and stay so until the
 * control thread has heard of the round's end. */
static inline bool port_present(const struct port *p)
{
	return atomic_load_explicit(&p->present, memory_order_acquire);
}

static inline bool port_has_vlan(const struct port *p, uint16_t vlan)
{
	return vlan < 4096 && (p->vlans[vlan / 64] >> (vlan % 64) & 1) != 0;
}

/** The pair of tags of this subinterface. @return NULL: none, or a plain VLAN */
static inline const struct port_qinq *port_qinq(const struct port *p, uint16_t id)
{
	for (unsigned i = 0; i < p->n_qinq; i++) {
		if (p->qinq[i].id == id)
			return &p->qinq[i];
	}
	return NULL;
}

/** No port: what a place without one holds. */
void port_none(struct port *p);

/** Fill what the configuration says (side, VLANs, MTU); no ethdev yet. */
void port_from_config(struct port *p, const struct msg_port *cfg);

/**
 * Start the EAL for this configuration. The control thread is lcore 0 on cfg->main_lcore, worker i is lcore i + 1 on
 * the i-th CPU of cfg->lcores. Once a process.
 * @return number of workers, or -errno with the cause in err
 */
int ports_eal_init(const struct msg_dp_config *cfg, struct err *err);

/**
 * Attach, configure and start every DPDK port and its shadow. A port that does not come up is logged and left
 * !present; no port at all coming up is an error.
 * @return 0 or -errno
 */
int ports_start(struct port *ports, const struct msg_dp_config *cfg, uint16_t workers,
		struct err *err);

/** Stop and close; workers must have ended. */
void ports_stop(struct port *ports, uint16_t n);

/**
 * Attach, configure and start one port and its shadow. No worker sees p, and the caller sets `present` afterwards.
 * @return 0, or -errno with the cause in err and nothing left behind
 */
int port_open(struct port *p, unsigned index, const struct msg_dp_config *cfg, uint16_t workers,
	      struct err *err);
/** Stop, close and detach port and shadow. No worker uses them any more. */
void port_close(struct port *p);

/** The same of the link to TLS worker n (links.h): vhost-user in client mode, no shadow. The worker may be away. */
int port_open_link(struct port *p, unsigned n, const struct msg_dp_config *cfg, uint16_t workers,
		   struct err *err);

bool port_link_up(const struct port *p); /* control thread */
