/* SPDX-License-Identifier: GPL-3.0-or-later */
/* segment_cost: what a TCP segment costs in the TLS worker's stack, by how many connections there are.
 * `segment_cost [RUNS]` prints one line a measure (see bench/run).
 *
 * Both ends of each connection are in one stack, over a wire that is a ring in memory. A round: 32 connections, drawn at
 * random from all, send 256 bytes each; they arrive as a burst, are read and answered with 256 bytes, and these are read.
 * Timed is all of it, timers and the wire's copying too, by the CPU time of the thread; the clock of the stack moves 20 us a turn. A
 * segment is counted where it arrives, so its cost is what both of its ends spend. Whom a round writes to is fetched a few
 * connections ahead, as a worker's relay does it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tls-proxy/stack/internal.h"

#define RUNS_MAX 64
#define CONNECTIONS_MAX 100000
#define PER_SOURCE 40000
#define BURST STACK_BURST
#define ROUNDS 8000 /* a run */
#define WIRE 4096
#define MESSAGE_BYTES 256

struct bench {
	struct stack *st;
	struct stack_listener l;
	struct pbuf *wire[WIRE];
	uint32_t head, tail;
	struct stream *dev, *in;
	uint32_t n_dev, n_in;
	uint64_t now_us, segments, random, moved;
};

static void die(const char *what)
{
	fprintf(stderr, "segment_cost: %s\n", what);
	exit(1);
}

static uint32_t draw(struct bench *b, uint32_t below)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return (uint32_t)(b->random >> 33) % below;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static bool wire_send(void *arg, const struct pbuf *p)
{
	struct bench *b = arg;
	struct pbuf *q;

	if (b->tail - b->head == WIRE)
		return false;
	q = pbuf_alloc(PBUF_RAW, p->tot_len, PBUF_RAM);
	if (q == NULL)
		die("no memory");
	pbuf_copy_partial(p, q->payload, p->tot_len, 0);
	b->wire[b->tail++ % WIRE] = q;
	return true;
}

static void wire_deliver(struct bench *b)
{
	struct pbuf *in[BURST];

	while (b->head != b->tail) {
		unsigned n = 0;

		while (n < BURST && b->head != b->tail)
			in[n++] = b->wire[b->head++ % WIRE];
		stack_input(b->st, in, n);
		b->segments += n;
	}
}

static void ready(void *arg, uint32_t events)
{
	struct bench *b = the_stack->cfg.arg;
	struct stream *s = arg;
	uint8_t buf[MESSAGE_BYTES];
	ssize_t n;

	if (!(events & STREAM_READ))
		return;
	n = stream_recv(s, buf, sizeof(buf));
	if (n == -EAGAIN)
		return;
	if (n != MESSAGE_BYTES)
		die("a message came in pieces");
	b->moved++;
	if (s >= b->in && s < b->in + CONNECTIONS_MAX &&
	    stream_send(s, buf, sizeof(buf)) != MESSAGE_BYTES)
		die("no room for an answer");
}

static struct stream *accept_one(void *arg, const struct ip_addr *peer, uint16_t port)
{
	struct bench *b = arg;
	struct stream *s = &b->in[b->n_in++];

	(void)peer;
	(void)port;
	s->ready = ready;
	s->arg = s;
	return s;
}

static void turn(struct bench *b)
{
	wire_deliver(b);
	b->now_us += 20;
	stack_clock(b->st, b->now_us);
	stack_serve(b->st, NULL, NULL);
}

static void settle(struct bench *b)
{
	do
		turn(b);
	while (b->head != b->tail);
}

/* Those that were begun have come about, and wait for answers from now on. */
static void connected(struct bench *b, uint32_t from)
{
	settle(b);
	for (uint32_t i = from; i < b->n_dev; i++) {
		if (stream_connected(&b->dev[i]) != 0)
			die("a connection did not come about");
		stream_want(&b->dev[i], STREAM_READ);
	}
}

static void connections(struct bench *b, uint32_t n)
{
	struct ip_addr to;
	uint32_t begun = b->n_dev;

	ip_addr_parse(&to, "10.0.0.2");
	while (b->n_dev < n) {
		struct stream *s = &b->dev[b->n_dev];
		struct ip_addr from = to;

		from.b[13] = 1 + b->n_dev++ / PER_SOURCE;
		s->ready = ready;
		s->arg = s;
		if (stack_connect(b->st, s, &from, 1, &to, 443) < 0)
			die("no connection");
		if (b->n_dev - begun == BURST) {
			connected(b, begun);
			begun = b->n_dev;
		}
	}
	connected(b, begun);
	/* 100 ms: what is left of the handshakes is done */
	for (int i = 0; i < 10000; i++)
		turn(b);
	if (b->n_in != n || pcbs_check(b->st->pcbs) != 2 * (int64_t)n)
		die("the lists are not as they should be");
}

static double ns_a_segment(struct bench *b)
{
	static const uint8_t message[MESSAGE_BYTES];
	uint32_t who[BURST];
	uint64_t ns = 0, start;

	b->segments = b->moved = 0;
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < BURST; i++)
			who[i] = draw(b, b->n_dev);
		start = cpu_ns();
		for (int i = 0; i < BURST; i++) {
			if (i + 4 < BURST) {
				__builtin_prefetch(&b->dev[who[i + 4]]);
				__builtin_prefetch((char *)&b->dev[who[i + 4] + 1] - 1);
			}
			if (i + 2 < BURST)
				stack_fetch(&b->dev[who[i + 2]]);
			if (stream_send(&b->dev[who[i]], message, sizeof(message)) != MESSAGE_BYTES)
				die("no room for a message");
		}
		settle(b);
		ns += cpu_ns() - start;
	}
	if (b->moved != 2ull * ROUNDS * BURST)
		die("messages were lost");
	return (double)ns / b->segments;
}

static void line(const char *name, const char *unit, const char *goal, const double *v, int n,
		 int digits)
{
	printf("%s\t%s\tmedian\t%s\t", name, unit, goal);
	for (int i = 0; i < n; i++)
		printf("%s%.*f", i ? "," : "", digits, v[i]);
	printf("\t\t\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static struct bench b;
	static const struct {
		const char *label;
		uint32_t connections;
	} cases[] = {{"100", 100}, {"1k", 1000}, {"10k", 10000}, {"100k", CONNECTIONS_MAX}};
	struct stack_config cfg = {.mtu_bytes = 1500,
				   .port_first = 1024,
				   .port_last = 65535,
				   .workers = 1,
				   .buckets = 1 << 18,
				   .half_open_max = 4096,
				   .memory_bytes = SIZE_MAX,
				   .send = wire_send,
				   .arg = &b};
	double ns[4][RUNS_MAX], ratio[RUNS_MAX];
	int runs = argc > 1 ? atoi(argv[1]) : 5;
	struct ip_addr at;
	struct err err = {""};
	char name[64];

	if (runs < 1 || runs > RUNS_MAX)
		die("usage: segment_cost [RUNS]");
	b.random = 88172645463325252ull;
	b.dev = calloc(CONNECTIONS_MAX, sizeof(*b.dev));
	b.in = calloc(CONNECTIONS_MAX, sizeof(*b.in));
	b.l = (struct stack_listener){.accept = accept_one, .arg = &b};
	ip_addr_parse(&at, "10.0.0.2");
	if (b.dev == NULL || b.in == NULL || stack_new(&b.st, &cfg, &err) < 0 ||
	    stack_listen(b.st, &b.l, &at, 443, &err) < 0)
		die("no stack");
	for (int c = 0; c < 4; c++) {
		connections(&b, cases[c].connections);
		for (int r = -1; r < runs; r++) /* one to warm up */
			ns[c][r < 0 ? 0 : r] = ns_a_segment(&b);
		snprintf(name, sizeof(name), "segment_ns_%s", cases[c].label);
		line(name, "ns/segment", "", ns[c], runs, 0);
	}
	for (int r = 0; r < runs; r++)
		ratio[r] = ns[3][r] / ns[0][r];
	line("segment_cost_100k_vs_100", "ratio", "<= 1.5", ratio, runs, 2);
	return 0;
}
