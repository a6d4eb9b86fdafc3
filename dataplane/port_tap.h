/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_tap: TAP devices with an MTU above 1500, for which the driver of DPDK 22.11 has no word: it sends nothing larger,
 * though the kernel would take it, and receives whatever fits a buffer. A shadow's frames pass here, and a TAP port's. */
#pragma once

#include <stdint.h>

#include <rte_mbuf.h>

/** Give the kernel's interface this MTU. @return 0 or -errno. Control thread */
int port_tap_mtu(unsigned if_index, uint16_t mtu);

/** As rte_eth_tx_burst(), also for larger frames, at a system call each as the driver's own. @param fd  of the TAP */
uint16_t port_tap_send(uint16_t eth, int fd, uint16_t queue, struct rte_mbuf **pkt, uint16_t n);
