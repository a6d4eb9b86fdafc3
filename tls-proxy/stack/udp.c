/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/memory.h"
#include "tls-proxy/stack/udp.h"

#define WAITING_MAX 32 /* datagrams of a connected one; more are lost */
#define LISTENER_WAITING_MAX 1024
#define PORT_TRIES 1024
#define UDP_BYTES 8

struct stack_datagram {
	struct stack_datagram *next;
	struct pbuf *p; /* without headers */
	struct datagram_peer from;
};

static const struct datagram_ops stack_udp_ops;

/* lwIP keeps its blocks in one list and walks it for each datagram: here it sees those alone that have the local port's
 * last bits. */
static struct udp_pcb **shelf(struct stack *st, uint16_t port)
{
	return &st->udp[port % STACK_UDP_SHELVES];
}

static void shelf_enter(struct stack *st, uint16_t port)
{
	udp_pcbs = *shelf(st, port);
}

static void shelf_leave(struct stack *st, uint16_t port)
{
	*shelf(st, port) = udp_pcbs;
	udp_pcbs = NULL;
}

void udp_arrives(struct stack *st, struct pbuf *p, uint16_t port)
{
	if (*shelf(st, port) == NULL) {
		st->stats.dropped++;
		pbuf_free(p);
		return;
	}
	shelf_enter(st, port);
	ip_input(p, &st->netif);
	shelf_leave(st, port);
}

/* ---- what is possible ------------------------------------------------------------------------- */

static uint32_t events_of(const struct datagram *d)
{
	return ((d->stk.first != NULL ? STREAM_READ : 0u) | STREAM_WRITE) & d->stk.wanted;
}

static void tell(struct datagram *d)
{
	if (d->stk.queued || events_of(d) == 0)
		return;
	d->stk.queued = true;
	LIST_INSERT_HEAD(&the_stack->udp_ready, d, stk.next);
}

bool udp_serve(struct stack *st, bool (*enough)(void *arg), void *arg)
{
	struct datagram *d;

	if (LIST_EMPTY(&st->udp_serving) && !LIST_EMPTY(&st->udp_ready)) {
		LIST_FIRST(&st->udp_serving) = LIST_FIRST(&st->udp_ready);
		LIST_FIRST(&st->udp_serving)->stk.next.le_prev = &LIST_FIRST(&st->udp_serving);
		LIST_INIT(&st->udp_ready);
	}
	while ((enough == NULL || !enough(arg)) && (d = LIST_FIRST(&st->udp_serving)) != NULL) {
		uint32_t events = events_of(d);

		LIST_REMOVE(d, stk.next);
		d->stk.queued = false;
		if (events == 0)
			continue;
		d->ready(d->arg, events);
		if (d->ops == &stack_udp_ops)
			tell(d);
	}
	return !LIST_EMPTY(&st->udp_serving) || !LIST_EMPTY(&st->udp_ready);
}

/* ---- what lwIP tells -------------------------------------------------------------------------- */

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from,
			uint16_t port)
{
	struct datagram *d = arg;
	struct stack_datagram *one = NULL;

	(void)pcb;
	if (d->stk.n < d->stk.max && !stack_mem_scarce())
		one = mem_malloc(sizeof(*one));
	if (one == NULL) {
		the_stack->stats.udp_lost++;
		pbuf_free(p);
		return;
	}
	*one = (struct stack_datagram){.p = p, .from = {.addr = addr_of_lwip(from), .port = port}};
	*d->stk.last = one;
	d->stk.last = &one->next;
	d->stk.n++;
	tell(d);
}

/* ---- datagram_ops ----------------------------------------------------------------------------- */

static void drop_first(struct datagram *d)
{
	struct stack_datagram *one = d->stk.first;

	d->stk.first = one->next;
	if (one->next == NULL)
		d->stk.last = &d->stk.first;
	d->stk.n--;
	pbuf_free(one->p);
	mem_free(one);
}

static ssize_t stack_udp_recv(struct datagram *d, void *out, size_t bytes,
			      struct datagram_peer *from)
{
	struct stack_datagram *one;

	while ((one = d->stk.first) != NULL) {
		size_t n = one->p->tot_len;

		if (n > 0 && n <= bytes) {
			pbuf_copy_partial(one->p, out, n, 0);
			if (from != NULL)
				*from = one->from;
			drop_first(d);
			return (ssize_t)n;
		}
		drop_first(d);
	}
	return -EAGAIN;
}

static void stack_udp_send(struct datagram *d, const struct datagram_peer *to, const void *head,
			   size_t head_bytes, const void *data, size_t bytes)
{
	struct stack *st = the_stack;
	struct udp_pcb *pcb = d->stk.pcb;
	ip_addr_t addr = to != NULL ? addr_to_lwip(&to->addr) : pcb->remote_ip;
	size_t room =
		stack_mtu_of(st, &d->stk.own) - UDP_BYTES - (IP_IS_V4(&addr) ? IP_HLEN : IP6_HLEN);
	struct pbuf *p = NULL;

	if (head_bytes + bytes <= room && !stack_mem_scarce())
		p = pbuf_alloc(PBUF_TRANSPORT, head_bytes + bytes, PBUF_RAM);
	if (p == NULL) {
		st->stats.udp_lost++;
		return;
	}
	if (head_bytes > 0)
		memcpy(p->payload, head, head_bytes);
	memcpy((uint8_t *)p->payload + head_bytes, data, bytes);
	stack_speaks_as(st, &d->stk.own);
	if (udp_sendto(pcb, p, &addr, to != NULL ? to->port : pcb->remote_port) != ERR_OK)
		st->stats.udp_lost++;
	pbuf_free(p);
}

static void stack_udp_want(struct datagram *d, uint32_t events)
{
	d->stk.wanted = events;
	tell(d);
}

static void stack_udp_close(struct datagram *d)
{
	uint16_t port = d->stk.pcb->local_port;

	if (d->stk.queued)
		LIST_REMOVE(d, stk.next);
	while (d->stk.first != NULL)
		drop_first(d);
	shelf_enter(the_stack, port);
	udp_remove(d->stk.pcb);
	shelf_leave(the_stack, port);
	d->stk = (struct stack_talk){.pcb = NULL};
}

static const struct datagram_ops stack_udp_ops = {
	.recv = stack_udp_recv,
	.send = stack_udp_send,
	.want = stack_udp_want,
	.close = stack_udp_close,
};

/* @return -EADDRINUSE: somebody has this port */
static int attach(struct stack *st, struct datagram *d, const struct ip_addr *own, uint16_t port,
		  uint16_t max)
{
	ip_addr_t at = addr_to_lwip(own);
	struct udp_pcb *pcb = udp_new_ip_type(at.type);
	err_t err;

	d->ops = NULL;
	if (pcb == NULL)
		return -ENOMEM;
	shelf_enter(st, port);
	err = udp_bind(pcb, &at, port);
	if (err != ERR_OK)
		udp_remove(pcb);
	shelf_leave(st, port);
	if (err != ERR_OK)
		return -EADDRINUSE;
	d->ops = &stack_udp_ops;
	d->stk = (struct stack_talk){.pcb = pcb, .own = *own, .max = max, .wanted = STREAM_READ};
	d->stk.last = &d->stk.first;
	udp_recv(pcb, on_datagram, d);
	return 0;
}

int stack_udp_listen(struct stack *st, struct datagram *d, const struct ip_addr *own, uint16_t port,
		     struct err *err)
{
	char text[ADDR_TEXT_BYTES];
	int ret = stack_address_add(st, own);

	d->ops = NULL;
	if (ret == 0)
		ret = attach(st, d, own, port, LISTENER_WAITING_MAX);
	if (ret < 0)
		return err_set(err, ret, "%s port %u: %s", ip_addr_text(own, text), port,
			       strerror(-ret));
	return 0;
}

int stack_udp_connect(struct stack *st, struct datagram *d, const struct ip_addr *from,
		      unsigned n_from, const struct ip_addr *to, uint16_t port)
{
	ip_addr_t peer = addr_to_lwip(to);
	int ret = -EADDRNOTAVAIL;

	d->ops = NULL;
	for (unsigned i = 0; i < n_from; i++) {
		if (ip_addr_is_v4(&from[i]) != ip_addr_is_v4(to) ||
		    stack_address_add(st, &from[i]) < 0)
			continue;
		ret = -EADDRINUSE;
		for (unsigned k = 0; ret == -EADDRINUSE && k < PORT_TRIES; k++) {
			uint16_t own = stack_next_port(st);

			if (own == 0)
				break;
			ret = attach(st, d, &from[i], own, WAITING_MAX);
		}
		if (ret != -EADDRINUSE)
			break;
		ret = -EADDRNOTAVAIL;
	}
	if (ret == -EADDRNOTAVAIL)
		st->stats.ports_out++;
	if (ret < 0)
		return ret;
	shelf_enter(st, d->stk.pcb->local_port);
	udp_connect(d->stk.pcb, &peer, port);
	shelf_leave(st, d->stk.pcb->local_port);
	return 0;
}
