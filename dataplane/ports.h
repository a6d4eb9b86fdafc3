/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ports: the DPDK ports and their TAP shadows ("kernel ports"). A port's index is gateway.cfg's, everywhere.
 * Filled by the control thread before workers start; read-only afterwards, but for the NIC's own counters. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/base/msg.h"

#define PORT_ETH_NONE 0xffff /* no ethdev: kernel-only, absent, or a test */

struct port {
	char name[16];
	struct mac_addr mac;
	uint8_t side; /* enum port_side */
	bool present; /* the fast path may send here */
	uint16_t mtu_bytes;
	uint16_t eth; /* DPDK port id, or PORT_ETH_NONE */
	uint16_t tap_eth; /* of the shadow */
	int rx_fd, tap_fd; /* readable while packets wait; -1: it cannot say. The drivers' own */
	uint16_t owner; /* index of the only worker that receives and sends here */
	uint64_t vlans[64]; /* bitmap of accepted VLAN ids; bit 0: frames without a tag */
};

static inline bool port_has_vlan(const struct port *p, uint16_t vlan)
{
	return vlan < 4096 && (p->vlans[vlan / 64] >> (vlan % 64) & 1) != 0;
}

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

bool port_link_up(const struct port *p); /* control thread */
