/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The end of the path: buffers a port, one send a loop. Where each worker has a transmit queue, each sends; elsewhere,
 * and to shadows, only the port's owner does, and the others hand over by ring. */
#include <rte_cycles.h>
#include <rte_ethdev.h>

#include "dataplane/backlog.h"
#include "dataplane/path.h"
#include "dataplane/port_tap.h"

/* Of a send to a TLS worker, on this machine; what is above it was the worker's time, whom its bell has woken up on our
 * core. */
#define LINK_US 2
#define LINK_PACKETS_US 8 /* packets in one */

static void free_dropped(struct worker *w, struct rte_mbuf *m, enum drop_reason why)
{
	w->stats.drops[why]++;
	rte_pktmbuf_free(m);
}

static void send_link(struct worker *w, uint16_t port)
{
	struct backlog *b = w->backlog[port - PORT_LINKS];
	const struct port *p = &w->st->ports[port];
	uint16_t n = w->tx[port].n, kept = 0;
	uint64_t start = rte_rdtsc(), took, most, bytes = 0;
	uint32_t sent = 0;

	if (b != NULL && port_present(p) && p->eth != PORT_ETH_NONE)
		sent = backlog_send(b, p->eth, port_tx_queue(p, w->index), w->tx[port].pkt, n,
				    w->now_us, &kept, &bytes);
	for (uint16_t i = kept; i < n; i++)
		free_dropped(w, w->tx[port].pkt[i], DROP_TX_FULL);
	if (b != NULL)
		w->stats.drops[DROP_TX_FULL] += backlog_expire(b, w->now_us);
	w->stats.port[port].tx_packets += sent;
	w->stats.port[port].tx_bytes += bytes;
	w->tx[port].n = 0;
	most = (LINK_US + sent / LINK_PACKETS_US) * w->cycles_us;
	took = rte_rdtsc() - start;
	if (took > most)
		w->lent_cycles += took - most;
}

static void send_port(struct worker *w, uint16_t port)
{
	struct rte_mbuf **pkt = w->tx[port].pkt;
	const struct port *p = &w->st->ports[port];
	uint16_t n = w->tx[port].n, sent = 0;
	uint64_t bytes = 0;

	if (port_is_link(port)) {
		send_link(w, port);
		return;
	}
	for (uint16_t i = 0; i < n; i++)
		bytes += rte_pktmbuf_pkt_len(pkt[i]);
	if (port_present(p) && p->eth != PORT_ETH_NONE)
		sent = p->large_fd >= 0
			       ? port_tap_send(p->eth, p->large_fd, port_tx_queue(p, w->index), pkt,
					       n)
			       : rte_eth_tx_burst(p->eth, port_tx_queue(p, w->index), pkt, n);
	for (uint16_t i = sent; i < n; i++) {
		bytes -= rte_pktmbuf_pkt_len(pkt[i]);
		free_dropped(w, pkt[i], DROP_TX_FULL);
	}
	w->stats.forwarded += sent;
	w->stats.port[port].tx_packets += sent;
	w->stats.port[port].tx_bytes += bytes;
	w->tx[port].n = 0;
}

static uint32_t waiting(const struct worker *w, uint16_t link)
{
	const struct backlog *b = w->backlog[link - PORT_LINKS];

	return b != NULL ? b->n : 0;
}

static void send_kernel(struct worker *w, uint16_t port)
{
	struct rte_mbuf **pkt = w->kernel[port].pkt;
	const struct port *p = &w->st->ports[port];
	uint16_t n = w->kernel[port].n, sent = 0;

	if (port_present(p) && p->tap_eth != PORT_ETH_NONE)
		sent = port_tap_send(p->tap_eth, p->tap_fd, 0, pkt, n);
	for (uint16_t i = sent; i < n; i++)
		free_dropped(w, pkt[i], DROP_KERNEL_FULL);
	w->stats.port[port].to_kernel += sent;
	w->kernel[port].n = 0;
}

static void send_away(struct worker *w, uint16_t to)
{
	struct rte_ring *ring = w->st->workers[to]->from[w->index];
	uint16_t n = w->away[to].n;
	unsigned sent = rte_ring_sp_enqueue_burst(ring, (void *const *)w->away[to].pkt, n, NULL);

	w->stats.handed += n;
	w->stats.ring_dropped += n - sent;
	for (uint16_t i = sent; i < n; i++)
		free_dropped(w, w->away[to].pkt[i], DROP_TX_FULL);
	w->away[to].n = 0;
	idle_wake(w->st->workers[to]);
}

static void put_away(struct worker *w, uint16_t to, struct rte_mbuf *m)
{
	w->away[to].pkt[w->away[to].n++] = m;
	if (w->away[to].n == TX_BUFFER)
		send_away(w, to);
}

void emit_put(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	bool kernel = p->edge == EDGE_KERNEL;
	uint16_t port = kernel ? p->in_port : p->out_port;
	const struct port *to = &w->st->ports[port];

	if (to->owner != w->index && (kernel || !to->queues.own_tx)) {
		put_away(w, to->owner, m);
	} else if (kernel) {
		w->kernel[port].pkt[w->kernel[port].n++] = m;
		if (w->kernel[port].n == TX_BUFFER)
			send_kernel(w, port);
	} else {
		w->tx[port].pkt[w->tx[port].n++] = m;
		if (w->tx[port].n == TX_BUFFER)
			send_port(w, port);
	}
}

void emit_burst(struct worker *w, struct burst *in)
{
	for (uint16_t i = 0; i < in->n; i++) {
		struct pkt *p = pkt_of(in->pkt[i]);

		switch (p->edge) {
		case EDGE_FORWARD:
		case EDGE_KERNEL:
			emit_put(w, in->pkt[i]);
			break;
		case EDGE_AWAY:
			put_away(w, flow_worker(p->hash, w->st->n_workers), in->pkt[i]);
			break;
		default: /* counted where it died */
			rte_pktmbuf_free(in->pkt[i]);
			break;
		}
	}
}

unsigned emit_flush(struct worker *w)
{
	unsigned n = 0;

	for (uint16_t i = 0; i < w->st->n_ports; i++) {
		n += w->tx[i].n + w->kernel[i].n;
		if (w->tx[i].n > 0)
			send_port(w, i);
		if (w->kernel[i].n > 0)
			send_kernel(w, i);
	}
	for (uint16_t i = PORT_LINKS; i < PORT_LINKS + w->st->cfg.tls_workers; i++) {
		n += w->tx[i].n;
		if (w->tx[i].n > 0 || waiting(w, i) > 0)
			send_link(w, i);
		n += waiting(w, i);
	}
	for (uint16_t i = 0; i < w->st->n_workers; i++) {
		n += w->away[i].n;
		if (w->away[i].n > 0)
			send_away(w, i);
	}
	return n;
}
