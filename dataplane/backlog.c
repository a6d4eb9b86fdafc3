/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/backlog.h"

#include <sched.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#define BUSY_US 2000 /* as long as a turn of a TLS worker takes, and then some */

static uint16_t send_some(uint16_t eth, uint16_t queue, struct rte_mbuf **pkt, uint16_t n,
			  uint64_t *sent_bytes)
{
	uint64_t bytes = 0;
	uint16_t sent;

	for (uint16_t i = 0; i < n; i++)
		bytes += rte_pktmbuf_pkt_len(pkt[i]);
	sent = rte_eth_tx_burst(eth, queue, pkt, n);
	for (uint16_t i = sent; i < n; i++)
		bytes -= rte_pktmbuf_pkt_len(pkt[i]);
	*sent_bytes += bytes;
	return sent;
}

/* Those that wait. @return how many left */
static uint32_t send_waiting(struct backlog *b, uint16_t eth, uint16_t queue, uint64_t *sent_bytes)
{
	uint32_t all = 0;

	while (b->n > 0) {
		uint32_t run = RTE_MIN(b->n, BACKLOG_MAX - b->at); /* to the end of the array */
		uint16_t sent = send_some(eth, queue, b->pkt + b->at, run, sent_bytes);

		b->at = (b->at + sent) % BACKLOG_MAX;
		b->n -= sent;
		all += sent;
		if (sent < run)
			break;
	}
	return all;
}

uint32_t backlog_send(struct backlog *b, uint16_t eth, uint16_t queue, struct rte_mbuf **pkt,
		      uint16_t n, uint64_t now_us, uint16_t *kept, uint64_t *sent_bytes)
{
	uint32_t all = 0;
	uint16_t at = 0;

	/* The one system call of the path: what it would delay cannot leave anyway. Not for one that does not want the
	 * core, or it would cost all other packets. */
	for (int turn = 0; turn < 2 && (b->n > 0 || at < n); turn++) {
		if (turn > 0 && b->n > 0 && now_us >= b->taken_us + BUSY_US)
			break;
		if (turn > 0)
			sched_yield();
		all += send_waiting(b, eth, queue, sent_bytes);
		if (b->n == 0 && at < n) {
			uint16_t sent = send_some(eth, queue, pkt + at, n - at, sent_bytes);

			at += sent;
			all += sent;
		}
	}
	if (all > 0 || b->n == 0)
		b->taken_us = now_us;
	for (; at < n && b->n < BACKLOG_MAX; at++)
		b->pkt[(b->at + b->n++) % BACKLOG_MAX] = pkt[at];
	*kept = at;
	return all;
}

void backlog_drop(struct backlog *b)
{
	for (; b->n > 0; b->n--) {
		rte_pktmbuf_free(b->pkt[b->at]);
		b->at = (b->at + 1) % BACKLOG_MAX;
	}
}

uint32_t backlog_expire(struct backlog *b, uint64_t now_us)
{
	uint32_t n = b->n;

	if (n == 0 || now_us < b->taken_us + BACKLOG_US)
		return 0;
	backlog_drop(b);
	return n;
}
