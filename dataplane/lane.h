/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lane: the fast lane. A packet whose flow is established, and of which nothing has changed since a packet of it last
 * took the other stages, needs neither of them: the flow remembers where its ends' entries lie (hints), and each entry
 * proves itself when it is used.
 *   - end is a device: the binding at the hint still is this address's, of the slot that was admitted; the trust record
 *     of the slot is current. As a source, the frame's port, VLAN and MAC are the binding's.
 *   - end is a network: no route, and no binding of an address that is routed elsewhere, has changed (state.topo); as
 *     a source, the port is an uplink. As a destination, the gateway or the neighbour at the hint has a MAC now.
 *   - the policy's epoch is the one that admitted the flow.
 *   - the packet changes no connection's state, fits the way out, and is what parse_frame() calls a usual TCP or UDP
 *     packet.
 * So it is for a connection of a device to a listener of the TLS workers' stack, once its record says which worker has it
 * (the binding alone counts, not the device's trust: that is the worker's to judge), and for the answers of upstreams that
 * the guard has taken since routes and bindings changed. Of these two the lane drops what limits.device.tls_packets does.
 * Whatever is not so is left to the stages, which see the frame as it came. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/path.h"

struct lane_pkt {
	uint64_t key[5]; /* struct flow_key as words, canonical */
	uint64_t hash;
	struct flow *flow;
	uint16_t port; /* ingress */
	uint16_t l3_off, vlan, ip_bytes;
	bool reversed; /* as PKT_REVERSED */
	bool v4;
	bool tcp;
};

/**
 * The part of parse_frame() that the lane needs. Pure.
 * @param bytes  of the frame, all in one segment
 * @return false: not for the lane, *out is undefined. true: parse_frame() would give this key and no flag that the
 *         lane would have to heed, provided that a flow with this key has passed it
 */
bool lane_parse(const struct port *port, const uint8_t *frame, uint32_t bytes,
		struct lane_pkt *out);

/** Would the flow's ends be taken by the lane? True means admission_current(); false means nothing. */
bool lane_current(const struct worker *w, const struct flow *f);

/** A packet of this flow passed the stages: set the hints from what they found. */
void lane_learn(const struct worker *w, struct flow *f, const struct pkt *p);
