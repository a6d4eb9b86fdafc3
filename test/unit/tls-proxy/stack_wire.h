/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stack_wire: both ends of connections in one stack, over a wire that loses, repeats, reorders and delays as told.
 * The device's end is a stream as the worker's is: who connects takes the part of the device. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/memory.h"

#define WIRE_PACKETS 65536
#define ENDS_MAX 8

struct packet {
	uint16_t bytes;
	uint8_t ip[];
};

struct end { /* of a connection, as conn.c would hold it */
	struct stream s;
	uint32_t told; /* STREAM_*, of the last time */
	unsigned tells;
};

struct wire {
	struct stack *stack;
	struct stack_listener l;
	struct ip_addr at; /* it listens there, port 443 */
	struct packet *queue[WIRE_PACKETS];
	uint32_t head, tail;
	uint64_t now_us;
	/* per thousand packets */
	unsigned lose, repeat, swap;
	bool cut; /* nothing passes */
	unsigned stall; /* so many packets are refused */
	uint64_t random, passed;
	bool (*filter)(struct wire *x, uint8_t *ip, uint16_t bytes); /* false: lost */
	/* who came, from the worker's side */
	struct end *in;
	uint32_t n_in, in_max;
	bool refuse;
};

static uint32_t wire_random(struct wire *x, uint32_t below)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 7;
	x->random ^= x->random << 17;
	return (uint32_t)(x->random >> 33) % below;
}

static void wire_put(struct wire *x, const void *ip, uint16_t bytes)
{
	struct packet *p = malloc(sizeof(*p) + bytes);

	assert_non_null(p);
	p->bytes = bytes;
	memcpy(p->ip, ip, bytes);
	assert_true(x->tail - x->head < WIRE_PACKETS);
	x->queue[x->tail++ % WIRE_PACKETS] = p;
	if (x->tail - x->head >= 2 && wire_random(x, 1000) < x->swap) {
		struct packet **a = &x->queue[(x->tail - 1) % WIRE_PACKETS];
		struct packet **b = &x->queue[(x->tail - 2) % WIRE_PACKETS], *t = *a;

		*a = *b;
		*b = t;
	}
}

static bool wire_send(void *arg, const struct pbuf *p)
{
	struct wire *x = arg;
	uint8_t ip[9100];

	if (x->stall > 0) {
		x->stall--;
		return false;
	}
	assert_true(p->tot_len <= sizeof(ip));
	assert_int_equal(pbuf_copy_partial(p, ip, p->tot_len, 0), p->tot_len);
	if (x->cut || wire_random(x, 1000) < x->lose)
		return true;
	if (x->filter != NULL && !x->filter(x, ip, p->tot_len))
		return true;
	wire_put(x, ip, p->tot_len);
	if (wire_random(x, 1000) < x->repeat)
		wire_put(x, ip, p->tot_len);
	return true;
}

static void wire_in(struct wire *x, const void *ip, uint16_t bytes)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, bytes, PBUF_RAM);

	if (p == NULL)
		return; /* as a full pool at the port */
	memcpy(p->payload, ip, bytes);
	stack_input(x->stack, &p, 1);
	x->passed++;
}

/* Everything that is on the wire now arrives; then who is ready is told. */
static void wire_turn(struct wire *x, uint64_t pass_us)
{
	uint32_t end = x->tail;

	while (x->head != end) {
		struct packet *p = x->queue[x->head++ % WIRE_PACKETS];

		wire_in(x, p->ip, p->bytes);
		free(p);
	}
	x->now_us += pass_us;
	stack_clock(x->stack, x->now_us);
	stack_serve(x->stack, NULL, NULL);
}

/* Time passes until there is nothing under way and nobody waits, or `us` are over. */
static void wire_settle(struct wire *x, uint64_t us)
{
	for (uint64_t end_us = x->now_us + us; x->now_us < end_us;)
		wire_turn(x, x->head == x->tail ? 10000 : 10);
}

#define WIRE_UNTIL(x, condition)                                                                   \
	do {                                                                                       \
		uint64_t end_us = (x)->now_us + 300 * 1000000ull;                                  \
		while (!(condition)) {                                                             \
			wire_turn(x, (x)->head == (x)->tail ? 10000 : 10);                         \
			if ((x)->now_us > end_us)                                                  \
				fail_msg("never came: %s", #condition);                            \
		}                                                                                  \
	} while (0)

static void end_ready(void *arg, uint32_t events)
{
	struct end *e = arg;

	e->told = events;
	e->tells++;
}

static struct ip_addr addr(const char *text)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, text), 0);
	return a;
}

static struct stream *wire_accept(void *arg, const struct ip_addr *peer, uint16_t peer_port)
{
	struct wire *x = arg;
	struct end *e = &x->in[x->n_in];

	assert_true(peer_port != 0 && peer->b[15] != 0);
	if (x->refuse || x->n_in == x->in_max)
		return NULL;
	x->n_in++;
	e->s.ready = end_ready;
	e->s.arg = e;
	return &e->s;
}

static struct wire *wire_new(uint32_t in_max, const char *listen_at)
{
	struct wire *x = calloc(1, sizeof(*x));
	struct stack_config cfg = {.mtu_bytes = 1500,
				   .port_first = 16384,
				   .port_last = 32767,
				   .workers = 1,
				   .buckets = 4096,
				   .half_open_max = 4096,
				   .memory_bytes = 1 << 30,
				   .send = wire_send,
				   .arg = x};
	struct err err = {""};

	assert_non_null(x);
	x->random = 88172645463325252ull;
	x->in_max = in_max;
	x->in = calloc(in_max, sizeof(*x->in));
	x->l = (struct stack_listener){.accept = wire_accept, .arg = x};
	x->at = addr(listen_at);
	if (stack_new(&x->stack, &cfg, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(stack_listen(x->stack, &x->l, &x->at, 443, &err), 0);
	return x;
}

static void wire_free(struct wire *x)
{
	for (uint32_t i = 0; i < x->n_in; i++)
		stream_reset(&x->in[i].s);
	stack_unlisten(x->stack, &x->l);
	stack_free(x->stack);
	for (; x->head != x->tail; x->head++)
		free(x->queue[x->head % WIRE_PACKETS]);
	free(x->in);
	free(x);
	assert_int_equal(stack_mem_used(), 0);
}

/* A device's end begins to connect. */
static inline void end_connect(struct wire *x, struct end *e)
{
	bool v4 = ip_addr_is_v4(&x->at);
	struct ip_addr from = addr(v4 ? "10.0.0.1" : "fd00::1");

	*e = (struct end){.s = {.ready = end_ready, .arg = e}};
	assert_int_equal(stack_connect(x->stack, &e->s, &from, 1, &x->at, 443), 0);
}

/* A whole connection. @return the worker's end */
static inline struct end *pair_up(struct wire *x, struct end *dev)
{
	uint32_t n = x->n_in;

	end_connect(x, dev);
	WIRE_UNTIL(x, x->n_in == n + 1 && stream_connected(&dev->s) == 0);
	return &x->in[n];
}
