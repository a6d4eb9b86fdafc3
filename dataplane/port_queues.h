/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_queues: how many queues a port gets, and who polls them. With several receive queues each worker polls its own;
 * which queue a packet comes by is the NIC's or the peer's choice, and only saves the distributor work: a packet of
 * another worker's flow still goes to that worker. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <rte_ethdev.h>

#define PORT_QUEUES_MAX 32
#define RSS_KEY_MAX 64

struct port_queues {
	uint64_t rss; /* RTE_ETH_RSS_*: what the NIC is to hash; 0: nothing */
	uint16_t rx, tx; /* 1..PORT_QUEUES_MAX */
	bool own_tx; /* each worker sends by a queue for itself, that of its index; else all is sent by queue 0 */
};

/**
 * 1. A port that can hash flows (RSS) gets a receive and a transmit queue a worker, as far as it has them.
 * 2. One that cannot, but whose devargs ask for queues (`queues=`, `queue_count=`, `qpairs=`), gets all of those: the
 *    other side spreads, perhaps over every one of them. To a kernel's sockets (AF_XDP, AF_PACKET) each worker sends by
 *    its own, if there are enough; to others all is sent by queue 0, the only one that a peer surely reads.
 * 3. Any other has one.
 * Pure.
 */
void port_queues_pick(const struct rte_eth_dev_info *info, const char *devargs, uint16_t workers,
		      struct port_queues *out);

/** How many queues devargs ask for. @return 0: they say nothing of queues */
unsigned port_queues_asked(const char *devargs);

/** One of each: what a port falls back to that refuses to hash. */
void port_queues_one(struct port_queues *out);

/** The symmetric key of Toeplitz hashes: both directions of a flow have one hash, and so come by one queue number. */
void port_queues_key(uint8_t *key, unsigned bytes);
