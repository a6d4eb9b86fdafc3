/* SPDX-License-Identifier: GPL-3.0-or-later */
/* links_world: a dataplane with a device port, an uplink and the links of three TLS workers, for tests of what passes
 * between them. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <rte_ip.h>

#include "dataplane/hotplug.h"
#include "dataplane/links.h"
#include "dataplane/trace.h"
#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define LINK(n) (PORT_LINKS + (n))
#define ANY_LINK 0xfffe
#define CAM .smac = 0x10, .dmac = 1
#define STRANGE .smac = 0x77, .dmac = 1
#define CORE .smac = 0x20, .dmac = 2
#define SYN 2
#define ACK 16
#define TCP .proto = IPPROTO_TCP
#define ROWS(t) (sizeof(t) / sizeof((t)[0]))
#define WORKERS 3

static const struct frame_spec syn = {"10.1.0.77", "10.1.0.1",	  STRANGE,	   TCP,
				      .sport = 9,  .dport = 8884, .tcp_flags = SYN};
static const struct frame_spec ack = {"10.1.0.77", "10.1.0.1",	  STRANGE,	   TCP,
				      .sport = 9,  .dport = 8884, .tcp_flags = ACK};
static const struct frame_spec back = {"10.1.0.1",    "10.1.0.77", TCP,
				       .sport = 8884, .dport = 9,  .tcp_flags = ACK};

/* Beside the world's own listener of the kernel's sockets: 10.1.0.1:8884 and [fd01::1]:8884 of the stack, whose
 * upstreams are 10.2.0.10:1883, [fd02::10]:1883 and, through a gateway, 10.9.0.5:1883. */
static inline void config(struct msg_dp_config *c)
{
	static const struct {
		const char *addr;
		uint16_t port;
	} up[] = {{"10.2.0.10", 1883},
		  {"fd02::10", 1883},
		  {"10.9.0.5", 1883},
		  {"10.2.0.99", 1883},
		  {"10.8.0.5", 1883}};

	world_config(c);
	c->flows_max = 4096;
	c->n_listeners = 3;
	for (int i = 1; i < 3; i++) {
		ip_addr_parse(&c->listeners[i].addr, i == 1 ? "10.1.0.1" : "fd01::1");
		c->listeners[i].port = 8884;
		c->listeners[i].proto = IPPROTO_TCP;
		c->listeners[i].stack = 1;
	}
	c->tls_workers = WORKERS;
	c->tls_port_first = 16384;
	c->tls_port_last = 32767;
	strcpy(c->tls_dir, "/tmp");
	for (unsigned i = 0; i < ROWS(up); i++) {
		ip_addr_parse(&c->upstreams[i].addr, up[i].addr);
		c->upstreams[i].port = up[i].port;
		c->upstreams[i].proto = IPPROTO_TCP;
	}
	c->n_upstreams = ROWS(up);
	ip_addr_parse(&c->sources[0], "10.2.0.1");
	ip_addr_parse(&c->sources[1], "fd02::1");
	c->n_sources = 2;
}

static inline void setup(struct world *x)
{
	struct msg_dp_config c;

	config(&c);
	assert_int_equal(world_new(x, &c), 0);
	for (int n = 0; n < WORKERS; n++)
		x->st->ports[LINK(n)].present = true;
}

static inline void away(struct world *x, unsigned n, bool is)
{
	x->st->ports[LINK(n)].present = !is;
}

/* As a worker's stack makes it. */
static inline size_t link_frame(uint8_t *b, const struct frame_spec *s, unsigned n)
{
	const struct mac_addr to = TLS_LINK_MAC_DATAPLANE, from = TLS_LINK_MAC(n);
	size_t bytes = frame_make(b, s);

	memcpy(b, to.b, 6);
	memcpy(b + 6, from.b, 6);
	return bytes;
}

static inline struct verdict send_by(struct world *x, uint16_t port, const struct frame_spec *s)
{
	uint8_t frame[1][FRAME_MAX];
	size_t bytes = port_is_link(port) ? link_frame(frame[0], s, port - PORT_LINKS)
					  : frame_make(frame[0], s);
	struct verdict v;

	world_burst(x, port, frame, &bytes, 1, &v);
	return v;
}

static inline void goes(const char *name, const struct verdict *v, uint16_t port,
			enum drop_reason why)
{
	enum pkt_edge edge = why != DROP_NONE	       ? EDGE_DROP
			     : port == MSG_PORT_KERNEL ? EDGE_KERNEL
						       : EDGE_FORWARD;

	if (v->edge != edge || v->reason != why ||
	    (edge == EDGE_FORWARD &&
	     (port == ANY_LINK ? !port_is_link(v->out_port) : v->out_port != port)))
		fail_msg("%s: edge %u port %u %s, want edge %u port %u %s", name, v->edge,
			 v->out_port, drop_reason_name(v->reason), edge, port,
			 drop_reason_name(why));
}
