/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/port_queues.h"

#include <stdlib.h>
#include <string.h>

/* Addresses with ports; the flow's hash does not look at VLANs either. */
#define HASHED                                                                                     \
	(RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV4_TCP |                      \
	 RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV6_TCP |                             \
	 RTE_ETH_RSS_NONFRAG_IPV6_UDP)
#define HASHED_FLOWS                                                                               \
	(RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP |                             \
	 RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP)

static uint16_t least(uint16_t a, uint16_t b)
{
	return a < b ? a : b;
}

static bool kernel_reads_all(const char *driver)
{
	return driver != NULL &&
	       (strcmp(driver, "net_af_xdp") == 0 || strcmp(driver, "net_af_packet") == 0);
}

unsigned port_queues_asked(const char *devargs)
{
	static const char *const keys[] = {",queues=", ",queue_count=", ",qpairs="};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *at = strstr(devargs, keys[i]);

		if (at != NULL)
			return strtoul(at + strlen(keys[i]), NULL, 10);
	}
	return 0;
}

void port_queues_one(struct port_queues *out)
{
	*out = (struct port_queues){.rx = 1, .tx = 1};
}

void port_queues_pick(const struct rte_eth_dev_info *info, const char *devargs, uint16_t workers,
		      struct port_queues *out)
{
	uint16_t rx = least(info->max_rx_queues, PORT_QUEUES_MAX);
	uint16_t tx = least(info->max_tx_queues, PORT_QUEUES_MAX);
	bool hashes = (info->flow_type_rss_offloads & HASHED_FLOWS) != 0 &&
		      info->hash_key_size <= RSS_KEY_MAX;

	port_queues_one(out);
	if (rx < 2 || tx < 1)
		return;
	if (hashes && workers > 1) {
		out->rx = least(rx, workers);
		out->tx = least(tx, workers);
		out->own_tx = out->tx == workers;
		out->rss = info->flow_type_rss_offloads & HASHED;
	} else if (!hashes && port_queues_asked(devargs) > 1) {
		out->rx = rx;
		out->tx = tx < rx ? 1 : rx; /* drivers of sockets want pairs */
		out->own_tx = kernel_reads_all(info->driver_name) && out->tx >= workers;
	}
}

void port_queues_key(uint8_t *key, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		key[i] = i % 2 == 0 ? 0x6d : 0x5a;
}
