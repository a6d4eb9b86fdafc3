/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Segments into the TCP stack, some of them aimed at connections that are there, while their owner reads, writes, shuts
 * and closes. The input is a script: each step one byte of what to do, and its operands. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/memory.h"

#define STREAMS 8
#define OUT_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct script {
	const uint8_t *at, *end;
};

static struct stream streams[STREAMS];
static bool wire_full;
/* the last segment that went out: what a peer would answer to */
static uint8_t last[64];
static uint16_t last_bytes;

static uint32_t number(struct script *s, unsigned bytes)
{
	uint32_t n = 0;

	while (bytes-- > 0)
		n = n << 8 | (s->at < s->end ? *s->at++ : 0u);
	return n;
}

static bool wire_send(void *arg, const struct pbuf *p)
{
	(void)arg;
	if (wire_full)
		return false;
	last_bytes = pbuf_copy_partial(p, last, sizeof(last), 0);
	return true;
}

static void ready(void *arg, uint32_t events)
{
	struct stream *s = arg;
	uint8_t buf[2000];

	if (events & STREAM_GONE)
		stream_close(s);
	else if (events & STREAM_READ)
		stream_recv(s, buf, sizeof(buf));
}

static struct stream *stream_free_one(void)
{
	for (uint32_t i = 0; i < STREAMS; i++) {
		if (!stream_is_open(&streams[i])) {
			streams[i].ready = ready;
			streams[i].arg = &streams[i];
			return &streams[i];
		}
	}
	return NULL;
}

static struct stream *accept_one(void *arg, const struct ip_addr *peer, uint16_t port)
{
	(void)arg;
	(void)peer;
	(void)port;
	return stream_free_one();
}

static void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void put32(uint8_t *at, uint32_t v)
{
	put16(at, v >> 16);
	put16(at + 2, v);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void checksums(uint8_t *ip, uint16_t bytes)
{
	uint8_t pseudo[12] = {0};
	uint32_t sum;
	uint16_t sum16;

	memcpy(pseudo, ip + 12, 8);
	pseudo[9] = 6;
	put16(pseudo + 10, bytes - 20u);
	memset(ip + 36, 0, 2);
	memset(ip + 10, 0, 2);
	sum = stack_checksum(pseudo, 12) + stack_checksum(ip + 20, bytes - 20);
	sum16 = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
	memcpy(ip + 36, &sum16, 2);
	sum16 = (uint16_t)~stack_checksum(ip, 20);
	memcpy(ip + 10, &sum16, 2);
}

static void input(const void *ip, uint16_t bytes)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, bytes, PBUF_RAM);

	if (p == NULL)
		return;
	memcpy(p->payload, ip, bytes);
	stack_input(the_stack, &p, 1);
}

/* A segment with the flags, options and numbers of the script: to the listener, or to where the last one came from. */
static void segment(struct script *s)
{
	static const uint8_t model[20] = {0x45, 0, 0,  0, 0, 0, 0x40, 0, 64, 6,
					  0,	0, 10, 0, 0, 1, 10,   0, 0,  2};
	uint8_t ip[600] = {0};
	uint32_t kind = number(s, 1), options = (kind >> 4 & 7) * 4, payload = number(s, 1) * 2;
	uint16_t bytes = 40 + options + payload;

	memcpy(ip, model, sizeof(model));
	put16(ip + 2, bytes);
	if ((kind & 1) && last_bytes >= 40 && last[0] == 0x45) {
		memcpy(ip + 12, last + 16, 4);
		memcpy(ip + 16, last + 12, 4);
		memcpy(ip + 20, last + 22, 2);
		memcpy(ip + 22, last + 20, 2);
		/* from a little before what is expected to a little behind */
		put32(ip + 24, get32(last + 28) + number(s, 1) * ((kind & 2) ? 1 : 97) -
				       ((kind & 4) ? 100 : 0));
		put32(ip + 28, get32(last + 24) + number(s, 1));
	} else {
		put16(ip + 20, 1000 + number(s, 1) % 4);
		put16(ip + 22, 443);
		put32(ip + 24, number(s, 4));
		put32(ip + 28, number(s, 4));
	}
	ip[32] = (uint8_t)((20 + options) / 4 << 4);
	ip[33] = (uint8_t)number(s, 1);
	put16(ip + 34, (kind & 8) ? number(s, 2) : 0xffff);
	for (uint32_t i = 0; i < options; i++)
		ip[40 + i] = (uint8_t)number(s, 1);
	checksums(ip, bytes);
	input(ip, bytes);
}

static void raw(struct script *s)
{
	size_t n = number(s, 1);

	if (n > (size_t)(s->end - s->at))
		n = s->end - s->at;
	if (n > 0)
		input(s->at, (uint16_t)n);
	s->at += n;
}

/* A router's word about the last segment that went out, a little changed. */
static void too_big(struct script *s)
{
	uint8_t ip[56] = {0x45, [3] = 56, [8] = 64, 1, [12] = 192, 0, 2, 1};
	uint32_t at = number(s, 1), value = number(s, 1);
	uint16_t sum;

	memcpy(ip + 16, last + 12, 4);
	ip[20] = 3;
	ip[21] = 4;
	put16(ip + 26, number(s, 2));
	memcpy(ip + 28, last, 28);
	if (at < sizeof(ip))
		ip[at] ^= (uint8_t)value;
	memset(ip + 10, 0, 2);
	memset(ip + 22, 0, 2);
	sum = (uint16_t)~stack_checksum(ip, 20);
	memcpy(ip + 10, &sum, 2);
	sum = (uint16_t)~stack_checksum(ip + 20, 36);
	memcpy(ip + 22, &sum, 2);
	input(ip, sizeof(ip));
}

static void owner(struct script *s)
{
	static const uint8_t zeroes[40000];
	struct stream *t = &streams[number(s, 1) % STREAMS];
	struct ip_addr from, to;
	uint8_t buf[3000];
	uint32_t what = number(s, 1) % 8, n = number(s, 2) % sizeof(zeroes);

	if (!stream_is_open(t)) {
		if (what != 0)
			return;
		ip_addr_parse(&from, "10.0.0.2");
		ip_addr_parse(&to, "10.0.0.1");
		t->ready = ready;
		t->arg = t;
		stack_connect(the_stack, t, &from, 1, &to, 80);
		return;
	}
	switch (what) {
	case 1:
		stream_recv(t, buf, n % sizeof(buf));
		break;
	case 2:
		stream_shut(t);
		break;
	case 3:
		stream_close(t);
		break;
	case 4:
		stream_reset(t);
		break;
	case 5:
		stream_want(t, n & (STREAM_READ | STREAM_WRITE));
		break;
	default:
		stream_send(t, zeroes, n);
		stream_unsent(t);
	}
}

static void run(struct script *s)
{
	uint64_t now_us = 1000000;

	while (s->at < s->end) {
		uint32_t what = number(s, 1);

		switch (what % 8) {
		case 0:
			if (what & 8)
				too_big(s);
			else
				raw(s);
			break;
		case 1:
			wire_full = what & 8;
			break;
		case 2:
			now_us += 1000ull << (what >> 4);
			break;
		case 3:
			stack_mem_limit((what & 16) ? 1 << 20 : stack_mem_used() + 300);
			break;
		case 4:
		case 5:
			owner(s);
			break;
		default:
			segment(s);
		}
		stack_clock(the_stack, now_us);
		stack_serve(the_stack, NULL, NULL);
		if (pcbs_check(the_stack->pcbs) < 0)
			abort();
		if (stack_mem_used() > 8 << 20)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct stack_config cfg = {.mtu_bytes = 1500,
				   .port_first = 20000,
				   .port_last = 20007,
				   .workers = 1,
				   .buckets = 64,
				   .half_open_max = 4,
				   .memory_bytes = 1 << 20,
				   .send = wire_send};
	struct stack_listener l = {.accept = accept_one};
	struct script s = {data, data + bytes};
	struct stack *st;
	struct ip_addr at;

	wire_full = false;
	last_bytes = 0;
	ip_addr_parse(&at, "10.0.0.2");
	if (stack_new(&st, &cfg, NULL) < 0 || stack_listen(st, &l, &at, 443, NULL) < 0)
		abort();
	run(&s);
	for (uint32_t i = 0; i < STREAMS; i++)
		stream_reset(&streams[i]);
	stack_unlisten(st, &l);
	stack_free(st);
	if (stack_mem_used() != 0)
		abort();
	return 0;
}
