/* SPDX-License-Identifier: GPL-3.0-or-later */
/* links: the ports to the TLS workers, one each: vhost-user in client mode on <tls_dir>/tls<N>.sock, where the worker is
 * the virtio-user server. The driver connects again by itself when the worker was away. On a link go plain Ethernet
 * frames without VLAN between two fixed MAC addresses (msg.h), IP alone: the worker's stack is a point-to-point
 * interface, and the way on is known here.
 *
 * A worker's process is outside of what the dataplane trusts: of its frames, those are taken whose source is a listener
 * of the stack, or an upstream source address with a port of this worker's own and an upstream as destination. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/pkt.h"
#include "dataplane/state.h"

struct worker;

/** Fill links and doors from st->cfg; no ethdev yet. Of state_new(). @return 0 or -ENOMEM */
int links_from_config(struct state *st);
/** Open all links. A worker need not be there; a link that cannot be opened is logged and left !present. Control thread. */
void links_start(struct state *st);
/** Close them; workers have ended. */
void links_stop(struct state *st);

/** Which TLS workers are there now: bit N. A worker asks once a round. */
uint32_t links_up(const struct state *st);

/** The listener (TCP or UDP) with this address; NULL: none. */
const struct msg_listener *links_listener(const struct state *st, const struct ip_addr *addr,
					  uint16_t port, uint8_t proto);
/**
 * Would a packet from `src` to `dst` be the upstream leg's of some TLS worker? That worker has sport % tls_workers.
 * @return the upstream's index, or -1: it would not
 */
int links_upstream(const struct state *st, const struct ip_addr *src, uint16_t sport,
		   const struct ip_addr *dst, uint16_t dport, uint8_t proto);

/**
 * The TLS worker for a new connection: by a hash that is the same for both directions and outlives the dataplane; if
 * that worker is away, the next one that is there.
 * @return its number, or -1: none is there
 */
int links_choose(const struct worker *w, const struct flow_key *canonical);

/**
 * The TLS worker that made the connection ID of a DTLS record (RFC 9146 section 4, RFC 9147 section 4): its number is the first
 * byte. So a device that comes from another address finds the worker that knows it.
 * @return its number; -1: the packet names none that is there
 */
int links_named(const struct worker *w, struct rte_mbuf *m);

/** Send a packet to a TLS worker: the frame gets the link's header. @return false: dropped and counted */
bool links_hand(struct worker *w, struct rte_mbuf *m, unsigned tls_worker);
