/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/links.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rte_ethdev.h>

#include "config/base/log.h"
#include "dataplane/doors.h"
#include "dataplane/path.h"
#include "dataplane/port_pool.h"
#include "dataplane/rewrite.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define UDP_BYTES 8
#define DTLS12_CID 25 /* content type tls12_cid */
#define DTLS12_CID_AT 11
#define DTLS13_CID 0x30 /* unified header with a connection ID, which follows at once */
#define DTLS_HEAD_BYTES 13 /* no sealed record is shorter, of either version */
#define MIX 0x9e3779b97f4a7c15ull

/* Sessions outlive the dataplane, so its next run must give each connection to the same TLS worker; and nobody outside
 * should be able to aim at one. */
static uint64_t boot_seed(void)
{
	uint8_t text[64] = {0};
	uint64_t seed = MIX, word;
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text)) <= 0)
		log_warn("%s cannot be read: TLS workers are chosen by a known hash", BOOT_ID);
	if (fd >= 0)
		close(fd);
	for (unsigned i = 0; i < sizeof(text); i += sizeof(word)) {
		memcpy(&word, text + i, sizeof(word));
		seed = flow_fold(seed ^ word, MIX) + MIX;
	}
	return seed;
}

int links_from_config(struct state *st)
{
	static const struct mac_addr mac = TLS_LINK_MAC_DATAPLANE;
	struct doors *d = doors_new(&st->cfg);

	if (d == NULL)
		return -ENOMEM;
	doors_publish(st, d);
	st->tls_seed = boot_seed();
	for (unsigned n = 0; n < MSG_TLS_WORKERS_MAX; n++) {
		struct port *p = &st->ports[PORT_LINKS + n];

		port_none(p);
		snprintf(p->name, sizeof(p->name), "tls%u", n);
		p->vlans[0] = 1;
		p->mtu_bytes = port_pool_mtu(&st->cfg);
		p->mac = mac;
		p->owner = n % st->n_workers;
	}
	return 0;
}

void links_start(struct state *st)
{
	for (unsigned n = 0; n < st->cfg.tls_workers; n++) {
		struct port *p = &st->ports[PORT_LINKS + n];
		struct err err = {""};

		if (port_open_link(p, n, &st->cfg, st->n_workers, &err) < 0)
			log_error("link to TLS worker %u: %s", n, err.msg);
		else
			atomic_store_explicit(&p->present, true, memory_order_release);
	}
}

void links_stop(struct state *st)
{
	ports_stop(st->ports + PORT_LINKS, MSG_TLS_WORKERS_MAX);
}

uint32_t links_up(const struct state *st)
{
	uint32_t up = 0;

	for (unsigned n = 0; n < st->cfg.tls_workers; n++) {
		const struct port *p = &st->ports[PORT_LINKS + n];
		struct rte_eth_link link = {.link_status = 1};

		if (!port_present(p))
			continue;
		if (p->eth != PORT_ETH_NONE)
			(void)rte_eth_link_get_nowait(p->eth, &link);
		up |= (uint32_t)link.link_status << n;
	}
	return up;
}

const struct msg_listener *links_listener(const struct state *st, const struct ip_addr *addr,
					  uint16_t port, uint8_t proto)
{
	const struct doors *d = atomic_load_explicit(&st->doors, memory_order_acquire);

	if (!(d->listener_ports >> (port % 64) & 1))
		return NULL;
	for (unsigned i = 0; i < d->n_listeners; i++) {
		const struct msg_listener *l = &d->listeners[i];

		if (l->port == port && l->proto == proto && ip_addr_eq(&l->addr, addr))
			return l;
	}
	return NULL;
}

int links_upstream(const struct state *st, const struct ip_addr *src, uint16_t sport,
		   const struct ip_addr *dst, uint16_t dport, uint8_t proto)
{
	const struct doors *d = atomic_load_explicit(&st->doors, memory_order_acquire);
	bool ours = false;

	if (sport < st->cfg.tls_port_first || sport > st->cfg.tls_port_last ||
	    !(d->upstream_ports >> (dport % 64) & 1))
		return -1;
	for (unsigned i = 0; i < d->n_sources && !ours; i++)
		ours = ip_addr_eq(&d->sources[i], src);
	for (unsigned i = 0; ours && i < d->n_upstreams; i++) {
		const struct msg_upstream *u = &d->upstreams[i];

		if (u->port == dport && u->proto == proto && ip_addr_eq(&u->addr, dst))
			return (int)i;
	}
	return -1;
}

int links_choose(const struct worker *w, const struct flow_key *canonical)
{
	const uint16_t n = w->st->cfg.tls_workers;
	uint64_t hash = w->st->tls_seed, word;

	for (unsigned i = 0; i < sizeof(*canonical); i += sizeof(word)) {
		memcpy(&word, (const uint8_t *)canonical + i, sizeof(word));
		hash = flow_fold(hash ^ word, MIX) + MIX;
	}
	for (unsigned i = 0; i < n; i++) {
		unsigned at = ((hash >> 32) + i) % n;

		if (w->tls_up >> at & 1)
			return (int)at;
	}
	return -1;
}

int links_named(const struct worker *w, struct rte_mbuf *m)
{
	const struct pkt *p = pkt_of(m);
	uint32_t at = p->l4_off + UDP_BYTES, end = p->l3_off + p->ip_bytes;
	const uint8_t *record = rte_pktmbuf_mtod_offset(m, const uint8_t *, at);
	unsigned n;

	if (p->id.proto != IPPROTO_UDP || end > rte_pktmbuf_data_len(m) ||
	    at + DTLS_HEAD_BYTES > end)
		return -1;
	if (record[0] == DTLS12_CID && record[1] == 0xfe)
		n = record[DTLS12_CID_AT];
	else if ((record[0] & 0xf0) == DTLS13_CID)
		n = record[1];
	else
		return -1;
	return n < w->st->cfg.tls_workers && (w->tls_up >> n & 1) ? (int)n : -1;
}

bool links_hand(struct worker *w, struct rte_mbuf *m, unsigned tls_worker)
{
	const struct mac_addr mac = TLS_LINK_MAC(tls_worker);
	struct pkt *p = pkt_of(m);
	struct rewrite r = {.mac = neigh_pack(&mac),
			    .out = &w->st->ports[PORT_LINKS + tls_worker],
			    .l3_off = p->l3_off,
			    .ip_bytes = p->ip_bytes,
			    .v4 = p->flags & PKT_V4};

	if (!(w->tls_up >> tls_worker & 1)) {
		pkt_drop(w, p, DROP_TLS_DOWN);
		return false;
	}
	if (rewrite_link(m, &r) == 0) {
		pkt_drop(w, p, DROP_TX_FULL);
		return false;
	}
	p->out_port = PORT_LINKS + tls_worker;
	p->edge = EDGE_FORWARD;
	return true;
}
