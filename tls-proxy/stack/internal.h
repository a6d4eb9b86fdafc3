/* SPDX-License-Identifier: GPL-3.0-or-later */
/* internal: what the files of the stack share, and nobody else sees. */
#pragma once

#include "tls-proxy/datagram.h"
#include "tls-proxy/stack/pcbs.h"
#include "tls-proxy/stack/pmtu.h"
#include "tls-proxy/stack/stack.h"

#define STACK_ADDRS_MAX 64
#define STACK_UDP_SHELVES 4096
/* Who wants smaller pieces wants our time: 536 is the least that anybody must take (RFC 9293, 3.7.1). */
#define STACK_MSS_MIN 64

#define STACK_OWED 256 /* connections whose acknowledgement waits for the end of a turn */

LIST_HEAD(ready_list, stream);
LIST_HEAD(udp_ready_list, datagram);

struct stack {
	struct stack_config cfg;
	struct stack_stats stats;
	struct pcbs *pcbs;
	struct netif netif;
	struct ip_addr addrs[STACK_ADDRS_MAX];
	uint16_t mtus[STACK_ADDRS_MAX]; /* of these */
	uint16_t mtu_least; /* of all of them */
	uint32_t n_addrs;
	/* streams of whom something is wanted and possible: to be told in the next turn, in this one */
	struct ready_list ready, serving;
	struct udp_ready_list udp_ready, udp_serving; /* the same of datagrams */
	struct udp_pcb *udp[STACK_UDP_SHELVES]; /* by the local port's last bits */
	uint64_t now_us;
	uint64_t isn_key[2];
	struct pmtu_path paths[PMTU_PATHS]; /* pmtu.c */
	uint32_t next_port; /* index in the slice */
	struct {
		uint32_t bucket;
		uint16_t local_port, remote_port;
	} owed[STACK_OWED];
	uint32_t n_owed;
	uint32_t arriving; /* bucket of the segment that comes in just now */
	uint8_t ext; /* of control blocks: whom to tell when one is freed */
};

extern struct stack *the_stack; /* lwIP's callbacks and hooks carry no context */

/* stream.c */
void stream_attach(struct stack *st, struct stream *s, struct tcp_pcb *pcb, uint32_t wanted);
void stream_connects(struct stream *s); /* its connection has come about */
void stream_tell(struct stream *s); /* something may have become possible */

extern const struct tcp_ext_arg_callbacks stream_ext_callbacks;
extern uint8_t stream_half_open; /* its address stands where a stream will */

/* stack.c */
void stack_acknowledge(struct stack *st); /* what is owed */
void stack_speaks_as(struct stack *st,
		     const struct ip_addr *own); /* what goes out next comes from there */
/** Of packets from there. */
uint16_t stack_mtu_of(const struct stack *st, const struct ip_addr *own);
/** Of this worker's slice, in turn. @return 0: it has none */
uint16_t stack_next_port(struct stack *st);

/* udp.c */
void udp_arrives(struct stack *st, struct pbuf *p, uint16_t port);
/** As stack_serve(). */
bool udp_serve(struct stack *st, bool (*enough)(void *arg), void *arg);
