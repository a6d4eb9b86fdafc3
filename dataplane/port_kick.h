/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_kick: how a vhost-user port wakes a sleeping worker. Its peer writes an eventfd when it sends, while it is asked to
 * ("kick"). DPDK 22.11 hands that descriptor out by a structure that its own thread frees when the peer leaves, so this
 * follows the link events and keeps a descriptor of its own for each queue, whose number stays for the port's life.
 * Opened and closed by the control thread; a queue is armed and disarmed by the worker that polls it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct port_kick;

/**
 * Of a started port.
 * @param[out] fds  a descriptor a queue, to poll; they end with port_kick_close()
 * @return NULL: this is no vhost-user port, or there are no descriptors left; it must be asked by time
 */
struct port_kick *port_kick_open(uint16_t eth, uint16_t queues, int *fds);
void port_kick_close(struct port_kick *k); /* NULL is a no-op */

/** Ask the peer to kick. What it sent before may go unsaid: look once more, then sleep.
 * @return false: it cannot kick, it must be asked by time */
bool port_kick_arm(struct port_kick *k, uint16_t queue);
void port_kick_disarm(struct port_kick *k, uint16_t queue);
