/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_pool: packet buffers. Ports whose frames fit an ordinary buffer share one pool; those with a larger MTU, and the
 * links to the TLS workers then, share a second one, whose buffers take a whole frame. A frame that leaves by another
 * port is not copied, whichever pool it is of. Control thread, but for port_pool_count(). */
#pragma once

#include <stdint.h>

#include <rte_mempool.h>

#include "config/base/err.h"
#include "config/base/msg.h"

#define RX_DESCRIPTORS 2048
#define TX_DESCRIPTORS 2048
#define DESCRIPTORS_MIN 256 /* a queue */

/** Around an IP packet: Ethernet, two VLAN tags. */
#define PORT_FRAME_BYTES 22

/**
 * Buffers for a port. The pool is made when it is first asked for; its size is written to the log.
 * @param devargs  of the port
 * @return 0, -ENOMEM, or -EMSGSIZE: this driver has no buffers for such an MTU
 */
int port_pool_get(struct rte_mempool **out, const struct msg_dp_config *cfg, const char *devargs,
		  uint16_t mtu, uint16_t workers, struct err *err);

/** The largest MTU of the ports that have a device; at least 1500. */
uint16_t port_pool_mtu(const struct msg_dp_config *cfg);

/** Of both pools: how many buffers there are, and how many are free. No port was opened: 0. Any thread. */
void port_pool_count(uint64_t *all, uint64_t *free);
