/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stack: the `stack` transport: TCP and UDP (udp.h) in this process (lwIP), for devices and upstreams behind the dataplane's ports.
 * IP packets go in and out; who carries them is port.c, or a test. One stack a process, as lwIP; one thread, without a
 * system call.
 *
 * Memory of a connection: its control block, at most TCP_WND unread and TCP_SND_BUF unacknowledged bytes, and for each of
 * at most TCP_SND_QUEUELEN segments some 150 bytes. Of all connections: memory_bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/gateway.h"
#include "tls-proxy/stream.h"

#define STACK_FETCH_STEPS 4
#define STACK_BURST 32 /* packets that are best given to it at a time */

struct pbuf;
struct stack;

struct stack_listener {
	struct tcp_pcb *pcb; /* NULL: it does not listen */
	/* Somebody connected. @return the stream that takes the connection over, with ready and arg set, wanting STREAM_READ;
	 * NULL: the connection is reset */
	struct stream *(*accept)(void *arg, const struct ip_addr *peer, uint16_t peer_port);
	void *arg;
};

struct stack_config {
	uint16_t mtu_bytes; /* that the port takes */
	/* Of packets from this address of ours, at most mtu_bytes; NULL: mtu_bytes. With `mtu_arg`; asked when a connection
	 * begins */
	uint16_t (*mtu_of)(void *mtu_arg, const struct ip_addr *own);
	void *mtu_arg;
	/* towards upstreams: ports first..last with port % workers == index */
	uint16_t port_first, port_last;
	uint32_t workers, index;
	uint32_t buckets; /* a power of two, about as many as connections */
	uint32_t
		half_open_max; /* connections whose handshake of TCP is under way; a SYN beyond is dropped */
	size_t memory_bytes;
	/* Takes an IP packet; the pbuf stays the stack's. @return false: no room now, it will be offered again */
	bool (*send)(void *arg, const struct pbuf *p);
	void *arg;
	/* Into the cache: what ready() of such a stream will touch, in steps of which each needs the one before. NULL: the
	 * stack knows only its own */
	void (*fetch)(const struct stream *s, int step);
};

struct stack_stats {
	uint64_t in, out; /* packets */
	uint64_t dropped; /* not TCP or UDP in plain IP, cut, or not to an address of ours */
	uint64_t syns_dropped; /* half_open_max */
	uint64_t again; /* segments that were sent again */
	uint64_t out_stalled; /* no room at the port */
	uint64_t narrowed; /* connections that learned of a smaller path MTU */
	uint64_t ports_out; /* no port left towards an upstream */
	uint64_t udp_lost; /* datagrams: too large, too many waiting, no memory */
	uint32_t half_open, streams; /* now */
};

/** @param[out] out  caller owns. @return 0, -ENOMEM or -EBUSY: there is one */
int stack_new(struct stack **out, const struct stack_config *cfg, struct err *err);
void stack_free(struct stack *st); /* after all its streams were closed; NULL is a no-op */
const struct stack_stats *stack_stats(struct stack *st);
/** Connections of TCP in whatever state, whose end nobody waits for any more too. Visits them all. */
int64_t stack_connections(const struct stack *st);

/** Packets to this address are ours. @return 0 or -ENOSPC */
int stack_address_add(struct stack *st, const struct ip_addr *a);

/** Packets from the wire: IP, each in one piece. Takes the pbufs. Calls accept(), and no ready(). */
void stack_input(struct stack *st, struct pbuf *const *in, unsigned n);
/** What the clock makes due; first of all it is the time of what follows. */
void stack_clock(struct stack *st, uint64_t now_us);
/** Tell streams what is possible, at most until `enough` says so. @return is anything left that is possible now? */
bool stack_serve(struct stack *st, bool (*enough)(void *arg), void *arg);
/** Into the cache: a stream of the stack that will be read or written soon. */
void stack_fetch(const struct stream *s);
/** @return microseconds that the stack can do without stack_clock() and stack_serve(); UINT64_MAX: any time */
uint64_t stack_wait_us(const struct stack *st, uint64_t now_us);

/** With l->accept and l->arg set; l is in use until stack_unlisten(). */
int stack_listen(struct stack *st, struct stack_listener *l, const struct ip_addr *a, uint16_t port,
		 struct err *err);
void stack_unlisten(struct stack *st, struct stack_listener *l); /* no-op unless it listens */

/** Begin to connect, from one of `from` (most wanted first); STREAM_WRITE is wanted. @return 0; -EADDRNOTAVAIL: no port
 * is left; or -errno: s is closed */
int stack_connect(struct stack *st, struct stream *s, const struct ip_addr *from, unsigned n_from,
		  const struct ip_addr *to, uint16_t port);
