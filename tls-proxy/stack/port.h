/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port: the worker's one DPDK port: virtio-user in server mode at <run_dir>/tls<N>.sock, with the dataplane's vhost-user
 * port as its client. On it go Ethernet frames with IPv4 or IPv6, without VLAN, ARP and ND; the dataplane knows the way.
 *
 * The dataplane may go and come back at any time: frames under way are lost, connections are not. One thread, but for
 * EAL's own, which waits for the dataplane to come back. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"

struct pbuf;
struct port;
struct stack;

struct port_config {
	const char *path; /* of the socket; one that is there is replaced */
	uint32_t index; /* of the worker: the last byte of its MAC address */
	uint16_t mtu_bytes;
	bool hugepages;
};

struct port_stats {
	uint64_t in, out; /* frames */
	uint64_t in_dropped; /* neither IPv4 nor IPv6, or in pieces */
	uint64_t in_copied; /* as too many buffers were held by connections */
	uint64_t out_stalled;
};

/**
 * Start EAL and open the port. Needs privileges, and waits for the dataplane to come.
 * @param[out] out  caller owns
 * @return 0 or -errno
 */
int port_open(struct port **out, const struct port_config *cfg, struct err *err);
void port_close(struct port *p); /* after the stack is gone; NULL is a no-op */
const struct port_stats *port_stats(const struct port *p);

/** struct stack_config's send. */
bool port_send(void *port, const struct pbuf *p);
/** Received frames into the stack, at most `max`. @return how many */
unsigned port_receive(struct port *p, struct stack *st, unsigned max);
void port_flush(struct port *p);
/** Frames go out by port_flush() alone, not by the burst: each bell that is rung for a burst would have the dataplane run on
 * our core, for those few. */
void port_hold(struct port *p, bool hold);

/** Readable when frames came after port_sleep(). */
int port_wake_fd(const struct port *p);
/** From now on a frame makes the descriptor readable. @return false: do not sleep, the stack just got some */
bool port_sleep(struct port *p, struct stack *st);
void port_wake(struct port *p); /* no more; takes what the descriptor says */

/** A few times a second: is the dataplane there? */
void port_tick(struct port *p);
