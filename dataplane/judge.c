/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/judge.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <rte_malloc.h>
#include <rte_ring_elem.h>

#include "config/base/clock.h"
#include "dataplane/parse.h"
#include "dataplane/path.h"
#include "dataplane/trace.h"
#include "dataplane/rewrite.h"

#define FLOWS 64
#define LOGS 16
#define ROOM 256
#define HEAD RTE_PKTMBUF_HEADROOM
#define HOPS 64
#define ECHO_ID 1

struct judge {
	struct state *st;
	struct worker *w; /* in no list: it runs in the control thread */
	struct {
		struct rte_mbuf m;
		struct pkt p; /* rte_mbuf_to_priv() */
		uint8_t data[HEAD + ROOM];
	} frame __attribute__((aligned(64)));
};

static struct rte_ring *log_new(const struct judge *j)
{
	char name[RTE_RING_NAMESIZE];

	snprintf(name, sizeof(name), "judge-%lx", (unsigned long)(uintptr_t)j);
	return rte_ring_create_elem(name, sizeof(struct msg_flow_log), LOGS, SOCKET_ID_ANY,
				    RING_F_SP_ENQ | RING_F_SC_DEQ);
}

int judge_new(struct judge **out, struct state *st)
{
	uint32_t slots = st->cfg.slots != 0 ? st->cfg.slots : st->cfg.bindings_max;
	struct judge *j = rte_zmalloc("judge", sizeof(*j), 64);
	struct worker *w;

	if (j == NULL)
		return -ENOMEM;
	j->st = st;
	w = j->w = rte_zmalloc("judge_worker", sizeof(*w), 64);
	if (w == NULL)
		goto fail;
	w->st = st;
	w->judging = true;
	w->bindings = st->workers[0]->bindings;
	w->neighs = st->workers[0]->neighs;
	w->log = log_new(j);
	if (w->log == NULL || flow_table_new(&w->flows, FLOWS, st->seed, SOCKET_ID_ANY) < 0 ||
	    limits_new(&w->limits, &st->cfg.limits, slots, 1, SOCKET_ID_ANY) < 0 ||
	    accounts_new(&w->accounts, 0) < 0)
		goto fail;
	*out = j;
	return 0;
fail:
	judge_free(j);
	return -ENOMEM;
}

void judge_free(struct judge *j)
{
	if (j == NULL)
		return;
	if (j->w != NULL) {
		rte_ring_free(j->w->log);
		flow_table_free(j->w->flows);
		limits_free(j->w->limits);
		accounts_free(j->w->accounts);
		rte_free(j->w);
	}
	rte_free(j);
}

static void put16(uint8_t *b, uint16_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

/* The first packet of such a flow. @return its bytes behind the IP header; 0: there is none */
static uint16_t make_l4(uint8_t *b, const struct flow_key *k, bool v4)
{
	switch (k->proto) {
	case IPPROTO_TCP:
		put16(b, k->sport);
		put16(b + 2, k->dport);
		b[12] = 5 << 4;
		b[13] = PARSE_TCP_SYN;
		return 20;
	case IPPROTO_UDP:
		put16(b, k->sport);
		put16(b + 2, k->dport);
		put16(b + 4, 8);
		return 8;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((k->proto == IPPROTO_ICMP) != v4)
			return 0;
		b[0] = v4 ? 8 : 128;
		put16(b + 4, ECHO_ID);
		return 8;
	}
	return 0;
}

static uint16_t ipv4_sum(const uint8_t *b)
{
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)(b[i] << 8 | b[i + 1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* @return bytes of the IP packet, or 0 */
static uint16_t make_l3(uint8_t *b, const struct flow_key *k)
{
	bool v4 = ip_addr_is_v4(&k->src);
	uint16_t head = v4 ? 20 : 40, l4;

	if (v4 != ip_addr_is_v4(&k->dst))
		return 0;
	l4 = make_l4(b + head, k, v4);
	if (l4 == 0)
		return 0;
	if (!v4) {
		b[0] = 0x60;
		put16(b + 4, l4);
		b[6] = k->proto;
		b[7] = HOPS;
		memcpy(b + 8, &k->src, 16);
		memcpy(b + 24, &k->dst, 16);
		return head + l4;
	}
	b[0] = 0x45;
	put16(b + 2, head + l4);
	b[8] = HOPS;
	b[9] = k->proto;
	memcpy(b + 12, k->src.b + 12, 4);
	memcpy(b + 16, k->dst.b + 12, 4);
	put16(b + 10, ipv4_sum(b));
	return head + l4;
}

struct entrance {
	uint16_t port, vlan;
	struct mac_addr mac;
};

static const struct mac_addr somebody = {{2, 0, 0, 0, 0, 2}};

static void entrance_of(const struct judge *j, const struct ip_addr *src, struct entrance *e)
{
	const struct state *st = j->st;
	const struct binding *b = bindings_find(st->bindings, src);
	const struct nexthop *nh;

	if (b != NULL) {
		*e = (struct entrance){b->port, b->vlan, b->mac};
		return;
	}
	*e = (struct entrance){.port = MSG_PORT_KERNEL, .mac = somebody};
	nh = j->w->fib != NULL ? fib_lookup(j->w->fib, src) : NULL;
	if (nh != NULL && nh->kind == ROUTE_FORWARD) {
		e->port = nh->port;
		e->vlan = nh->vlan;
		return;
	}
	for (unsigned i = 0; nh == NULL && i < st->n_ports; i++) {
		if (st->ports[i].side == PORT_UPLINK && e->port == MSG_PORT_KERNEL)
			e->port = i;
	}
}

static struct rte_mbuf *make_frame(struct judge *j, const struct entrance *e,
				   const struct flow_key *key)
{
	struct rte_mbuf *m = &j->frame.m;
	uint8_t *b = j->frame.data + HEAD;
	const struct port_qinq *pair = port_qinq(&j->st->ports[e->port], e->vlan);
	uint16_t head = 14 + rewrite_tags_bytes(e->vlan), ip;

	memset(&j->frame, 0, sizeof(j->frame));
	memcpy(b, j->st->ports[e->port].mac.b, 6);
	memcpy(b + 6, e->mac.b, 6);
	if (pair != NULL) {
		rewrite_pair(b, pair);
	} else if (e->vlan != 0) {
		put16(b + 12, 0x8100);
		put16(b + 14, e->vlan);
	}
	put16(b + head - 2, ip_addr_is_v4(&key->src) ? 0x0800 : 0x86dd);
	ip = make_l3(b + head, key);
	if (ip == 0)
		return NULL;
	m->buf_addr = j->frame.data;
	m->buf_len = sizeof(j->frame.data);
	m->data_off = HEAD;
	m->data_len = m->pkt_len = head + ip;
	m->priv_size = sizeof(struct pkt);
	m->nb_segs = 1;
	rte_mbuf_refcnt_set(m, 1);
	pkt_of(m)->in_port = e->port;
	return m;
}

/* A flow that this packet opened must not answer the next question. */
static void forget_all(struct worker *w)
{
	for (uint32_t i = w->flows->high; i > 0; i--) {
		if (!w->flows->flows[i].used)
			continue;
		limit_flow_ended(w, &w->flows->flows[i]);
		flow_remove(w->flows, &w->flows->flows[i]);
	}
	rte_ring_reset(w->log);
}

int judge_flow(struct judge *j, const struct msg_judge *m, struct msg_traced *out)
{
	struct flow_key canonical = m->key;
	struct worker *w = j->w;
	struct entrance e;
	struct rte_mbuf *frame;

	memset(canonical.reserved, 0, sizeof(canonical.reserved));
	if (canonical.proto == IPPROTO_ICMP || canonical.proto == IPPROTO_ICMPV6)
		canonical.sport = canonical.dport = ECHO_ID;
	flow_key_canonical(&canonical);
	worker_pin(w, clock_boot_us());
	w->pickup = false;
	w->trace = NULL;
	/* Whoever owns the flow judges it. */
	w->index = flow_worker(flow_hash(j->st->seed, &canonical), j->st->n_workers);
	entrance_of(j, &m->key.src, &e);
	if (e.port >= j->st->n_ports || !j->st->ports[e.port].present) {
		memset(out, 0, sizeof(*out));
		out->key = m->key;
		out->at_us = w->now_us;
		out->epoch = w->policy != NULL ? w->policy->epoch : 0;
		out->edge = TRACED_KERNEL;
		out->rule = FLOW_RULE_NONE;
		out->in_port = e.port < j->st->n_ports ? e.port : 0;
		return 0;
	}
	frame = make_frame(j, &e, &m->key);
	if (frame == NULL)
		return -EINVAL;
	path_run_noted(w, frame, out);
	forget_all(w);
	return 0;
}
