/* SPDX-License-Identifier: GPL-3.0-or-later */
/* datagram: our end of UDP, whoever carries it: the kernel (socket_udp.c) or the stack in this process (stack/udp.c).
 * Either bound to an address of ours and open to all, or connected to one peer. One thread; nothing here blocks or calls
 * back: what became possible is told by ready(), from the worker's turn, for as long as it is wanted and possible. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "config/base/addr.h"
#include "tls-proxy/stream.h"

struct datagram;

struct datagram_peer {
	struct ip_addr addr;
	uint16_t port;
};

/* One of the stack in this process: stack/udp.c. */
struct udp_pcb;
struct stack_datagram;
struct stack_talk {
	struct udp_pcb *pcb;
	struct ip_addr own;
	struct stack_datagram *first, **last; /* that wait to be read */
	LIST_ENTRY(datagram) next; /* of those of whom something is wanted and possible */
	uint16_t n, max;
	uint8_t wanted; /* STREAM_* */
	bool queued;
};

struct datagram_ops {
	ssize_t (*recv)(struct datagram *d, void *out, size_t bytes, struct datagram_peer *from);
	void (*send)(struct datagram *d, const struct datagram_peer *to, const void *head,
		     size_t head_bytes, const void *data, size_t bytes);
	void (*want)(struct datagram *d, uint32_t events);
	void (*close)(struct datagram *d);
};

struct datagram {
	const struct datagram_ops *ops; /* NULL: closed */
	struct worker *w;
	void (*ready)(void *arg, uint32_t events); /* STREAM_*; set by the owner, as arg is */
	void *arg;
	union {
		struct source src; /* socket_udp.c */
		struct stack_talk stk; /* stack/udp.c */
	};
};

static inline bool datagram_is_open(const struct datagram *d)
{
	return d->ops != NULL;
}

static inline bool datagram_peer_eq(const struct datagram_peer *a, const struct datagram_peer *b)
{
	return a->port == b->port && ip_addr_eq(&a->addr, &b->addr);
}

/** One datagram. Empty ones, those larger than `bytes`, and what the network says of lost ones, are passed over.
 * @param[out] from  NULL: of no interest. @return bytes, or -EAGAIN: none now */
static inline ssize_t datagram_recv(struct datagram *d, void *out, size_t bytes,
				    struct datagram_peer *from)
{
	return d->ops->recv(d, out, bytes, from);
}

/** One datagram: head, then data. What cannot be sent now is lost, as on any network.
 * @param to  NULL: to whom it is connected. @param head  NULL: none */
static inline void datagram_send(struct datagram *d, const struct datagram_peer *to,
				 const void *head, size_t head_bytes, const void *data,
				 size_t bytes)
{
	d->ops->send(d, to, head, head_bytes, data, bytes);
}

/** STREAM_READ | STREAM_WRITE; 0: ready() is not called, whatever happens. No-op on a closed one. */
static inline void datagram_want(struct datagram *d, uint32_t events)
{
	if (d->ops != NULL)
		d->ops->want(d, events);
}

/** No-op on a closed one. */
static inline void datagram_close(struct datagram *d)
{
	if (d->ops != NULL)
		d->ops->close(d);
	d->ops = NULL;
}

/* socket_udp.c: the kernel's sockets. d's ready and arg are set. */
struct err;
/** Bound to an own address; STREAM_READ is wanted. @return 0 or -errno: d is closed; text in err */
int datagram_listen(struct worker *w, struct datagram *d, const struct ip_addr *own, uint16_t port,
		    struct err *err);
/** Connected; STREAM_READ is wanted. @return 0 or -errno: d is closed */
int datagram_connect(struct worker *w, struct datagram *d, const struct ip_addr *to, uint16_t port);
