/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stack: packets in and out, the clock, and who is listening. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/hooks.h"
#include "tls-proxy/stack/memory.h"
#include "tls-proxy/stack/siphash.h"

struct stack *the_stack;

enum { PROTO_TCP = 6, PROTO_UDP = 17 };

/* What stands in a packet where the bucket is looked for. */
struct tuple {
	struct ip_addr src, dst;
	uint16_t sport, dport;
	uint8_t proto;
};

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

/* lwIP takes an option's word for its length, and looks for it behind the last byte. */
static bool tcp_options_good(const uint8_t *tcp, size_t bytes)
{
	size_t end = bytes < 20 ? 0 : (tcp[12] >> 4) * 4u, at = 20;

	if (end < 20 || end > bytes)
		return false;
	while (at < end && tcp[at] != 0) {
		if (tcp[at] == 1) {
			at++;
			continue;
		}
		if (end - at < 2 || tcp[at + 1] < 2 || tcp[at + 1] > end - at)
			return false;
		at += tcp[at + 1];
	}
	return true;
}

/* @return false: nothing for us. lwIP reads what stands here once more; this is so that it never has to refuse. */
static bool tuple_read(struct tuple *t, const uint8_t *ip, size_t bytes)
{
	size_t at, end;

	if (bytes >= 20 && ip[0] >> 4 == 4) {
		at = (ip[0] & 15) * 4u;
		if (at < 20 || be16(ip + 2) > bytes || be16(ip + 2) < at + 8)
			return false;
		if ((be16(ip + 6) & 0x3fff) != 0) /* a fragment */
			return false;
		end = be16(ip + 2);
		t->proto = ip[9];
		t->src = ip_addr_from_v4(ip + 12);
		t->dst = ip_addr_from_v4(ip + 16);
	} else if (bytes >= 48 && ip[0] >> 4 == 6) {
		at = 40;
		if (be16(ip + 4) > bytes - at || be16(ip + 4) < 8)
			return false;
		end = at + be16(ip + 4);
		t->proto = ip[6];
		t->src = ip_addr_from_v6(ip + 8);
		t->dst = ip_addr_from_v6(ip + 24);
		if (ip_addr_is_v4(&t->src) || ip_addr_is_v4(&t->dst))
			return false;
	} else {
		return false;
	}
	if (t->proto != PROTO_TCP && t->proto != PROTO_UDP)
		return false;
	if (t->proto == PROTO_TCP && !tcp_options_good(ip + at, end - at))
		return false;
	t->sport = be16(ip + at);
	t->dport = be16(ip + at + 2);
	return !ip_addr_eq(&t->src, &t->dst);
}

/* @return -1: not ours */
static int address_find(const struct stack *st, const struct ip_addr *a)
{
	for (uint32_t i = 0; i < st->n_addrs; i++) {
		if (ip_addr_eq(&st->addrs[i], a))
			return (int)i;
	}
	return -1;
}

uint16_t stack_mtu_of(const struct stack *st, const struct ip_addr *own)
{
	int i = address_find(st, own);

	return i >= 0 ? st->mtus[i] : st->mtu_least;
}

/* It has the address that this packet is for, and the MTU by which a connection's largest segment is said. */
static void interface_is(struct netif *n, const struct ip_addr *a, uint16_t mtu)
{
	n->mtu = mtu;
	if (ip_addr_is_v4(a))
		lwip_netif_v4(n, a->b + 12);
	else
		memcpy(n->ip6_addr[0].u_addr.ip6.addr, a->b, 16);
}

void stack_speaks_as(struct stack *st, const struct ip_addr *own)
{
	interface_is(&st->netif, own, stack_mtu_of(st, own));
}

uint16_t stack_next_port(struct stack *st)
{
	const struct stack_config *c = &st->cfg;
	uint32_t first = c->port_first, slice;

	while (first % c->workers != c->index)
		first++;
	if (first > c->port_last)
		return 0;
	slice = (c->port_last - first) / c->workers + 1;
	return first + st->next_port++ % slice * c->workers;
}

#define FETCH_LEAD (PCBS_FETCH_APART * (PCBS_FETCH_STEPS - 1))

/* One packet of a burst, between the passes over it. */
struct arrival {
	struct pbuf *p;
	struct tuple t;
	uint32_t bucket;
	int to; /* the address of ours */
};

static bool arrival_read(const struct stack *st, struct arrival *a, struct pbuf *p)
{
	a->p = p;
	if (p->next != NULL || !tuple_read(&a->t, p->payload, p->len))
		return false;
	a->to = address_find(st, &a->t.dst);
	if (a->to < 0)
		return false;
	if (a->t.proto == PROTO_TCP)
		a->bucket = pcbs_bucket(st->pcbs, &a->t.dst, a->t.dport, &a->t.src, a->t.sport);
	return true;
}

/* lwIP takes a maximum segment size at any time, and asserts when what waits is larger than the new one. RFC 9293 section
 * 3.2: in SYNs only. */
static bool mss_is_late(const struct tcp_hdr *hdr, uint16_t option_bytes)
{
	const uint8_t *at = (const uint8_t *)(hdr + 1), *end = at + option_bytes;

	while (at < end && *at != 0) {
		if (*at == 1) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2)
			return false; /* lwIP reads no further either */
		if (*at == 2)
			return !(TCPH_FLAGS(hdr) & TCP_SYN);
		at += at[1];
	}
	return false;
}

/* RFC 5681 section 4.2 wants an acknowledgement for two segments. Those of a turn came as one burst, and for them one
 * goes out when all are in: with data if there is some by then. lwIP acknowledges at once who has waited already, so
 * he has not. Only where every way that the segment may go sets the flag again, or acknowledges. */
err_t stack_segment(struct tcp_pcb *pcb, const struct tcp_hdr *hdr, uint16_t option_bytes,
		    const struct pbuf *p)
{
	struct stack *st = the_stack;

	if (option_bytes > 0 && mss_is_late(hdr, option_bytes)) {
		st->stats.dropped++;
		return ERR_VAL;
	}
	if (pcb->state != ESTABLISHED || !(pcb->flags & TF_ACK_DELAY) || p->tot_len == 0 ||
	    (TCPH_FLAGS(hdr) & ~TCP_PSH) != TCP_ACK || st->n_owed == STACK_OWED)
		return ERR_OK;
	pcb->flags &= ~TF_ACK_DELAY;
	if (st->n_owed == 0 || st->owed[st->n_owed - 1].bucket != st->arriving ||
	    st->owed[st->n_owed - 1].remote_port != pcb->remote_port) {
		st->owed[st->n_owed].bucket = st->arriving;
		st->owed[st->n_owed].local_port = pcb->local_port;
		st->owed[st->n_owed++].remote_port = pcb->remote_port;
	}
	return ERR_OK;
}

void stack_acknowledge(struct stack *st)
{
	for (uint32_t i = 0; i < st->n_owed; i++) {
		struct tcp_pcb *pcb = pcbs_with(st->pcbs, st->owed[i].bucket,
						st->owed[i].local_port, st->owed[i].remote_port);

		if (pcb == NULL || !(pcb->flags & TF_ACK_DELAY))
			continue; /* gone, or it went out with data */
		tcp_ack_now(pcb);
		tcp_output(pcb);
		pcbs_touched(st->pcbs, st->owed[i].bucket, pcb);
	}
	st->n_owed = 0;
}

static void arrival_input(struct stack *st, struct arrival *a)
{
	interface_is(&st->netif, &a->t.dst, st->mtus[a->to]);
	if (a->t.proto == PROTO_UDP) {
		udp_arrives(st, a->p, a->t.dport);
		return;
	}
	st->arriving = a->bucket;
	pcbs_enter(st->pcbs, a->bucket);
	ip_input(a->p, &st->netif);
	pcbs_leave(st->pcbs, false);
}

/* With many connections each one's memory is cold: it is fetched a few packets ahead, in the order of the pointers. */
static void burst_input(struct stack *st, struct pbuf *const *in, unsigned n)
{
	struct arrival a[STACK_BURST];
	unsigned m = 0;

	for (unsigned i = 0; i < n; i++) {
		if (arrival_read(st, &a[m], in[i])) {
			if (a[m].t.proto == PROTO_TCP)
				pcbs_fetch(st->pcbs, a[m].bucket);
			m++;
		} else {
			if (in[i]->next == NULL && pmtu_input(st, in[i]->payload, in[i]->len))
				st->stats.narrowed++;
			else
				st->stats.dropped++;
			pbuf_free(in[i]);
		}
	}
	for (unsigned i = 0; i < m + FETCH_LEAD; i++) {
		for (unsigned step = 1, at = i; step < PCBS_FETCH_STEPS;
		     step++, at -= PCBS_FETCH_APART) {
			if (at < m && a[at].t.proto == PROTO_TCP)
				pcbs_fetch_more(st->pcbs, a[at].bucket, a[at].t.sport, step);
		}
		if (i >= FETCH_LEAD)
			arrival_input(st, &a[i - FETCH_LEAD]);
	}
	st->stats.in += n;
}

void stack_input(struct stack *st, struct pbuf *const *in, unsigned n)
{
	for (unsigned i = 0; i < n; i += STACK_BURST)
		burst_input(st, in + i, n - i < STACK_BURST ? n - i : STACK_BURST);
}

static err_t packet_out(struct netif *n, struct pbuf *p)
{
	struct stack *st = n->state;

	if (!st->cfg.send(st->cfg.arg, p)) {
		st->stats.out_stalled++;
		return ERR_MEM;
	}
	st->stats.out++;
	return ERR_OK;
}

static err_t output_v4(struct netif *n, struct pbuf *p, const ip4_addr_t *to)
{
	(void)to;
	pmtu_whole(p);
	return packet_out(n, p);
}

static err_t output_v6(struct netif *n, struct pbuf *p, const ip6_addr_t *to)
{
	(void)to;
	return packet_out(n, p);
}

static err_t interface_init(struct netif *n)
{
	const struct stack *st = n->state;

	n->name[0] = 's';
	n->name[1] = 'p';
	n->mtu = st->cfg.mtu_bytes;
	n->output = output_v4;
	n->output_ip6 = output_v6;
	return ERR_OK;
}

static int interface_add(struct stack *st)
{
	/* Of no meaning but that none is "any", which lwIP would not send from; see interface_is(). */
	ip4_addr_t some = {lwip_htonl(0xc0000001)}, mask = {0xffffffff}, none = {0};

	if (netif_add(&st->netif, &some, &mask, &none, st, interface_init, NULL) == NULL)
		return -EBUSY;
	netif_set_default(&st->netif);
	netif_set_link_up(&st->netif);
	netif_set_up(&st->netif);
	st->netif.ip6_addr[0].type = IPADDR_TYPE_V6;
	netif_ip6_addr_set_state(&st->netif, 0, IP6_ADDR_PREFERRED);
	return 0;
}

int stack_new(struct stack **out, const struct stack_config *cfg, struct err *err)
{
	static bool lwip_is_up;
	struct stack *st = NULL;
	int ret = -ENOMEM;

	if (the_stack != NULL)
		return err_set(err, -EBUSY, "a second stack in one process");
	if (!lwip_is_up)
		lwip_init();
	lwip_is_up = true;
	st = calloc(1, sizeof(*st));
	if (st == NULL)
		goto fail;
	st->cfg = *cfg;
	st->mtu_least = cfg->mtu_bytes;
	stack_mem_limit(cfg->memory_bytes);
	ret = pcbs_new(&st->pcbs, cfg->buckets, 0);
	if (ret < 0)
		goto fail;
	if (getrandom(st->isn_key, sizeof(st->isn_key), 0) != sizeof(st->isn_key) ||
	    getrandom(&st->next_port, sizeof(st->next_port), 0) != sizeof(st->next_port)) {
		ret = -EIO;
		goto fail;
	}
	ret = interface_add(st);
	if (ret < 0)
		goto fail;
	st->ext = 0;
	the_stack = *out = st;
	return 0;
fail:
	stack_free(st);
	return err_set(err, ret, "no TCP stack: %s", strerror(-ret));
}

void stack_free(struct stack *st)
{
	if (st == NULL)
		return;
	pcbs_free(st->pcbs);
	if (netif_default == &st->netif)
		netif_remove(&st->netif);
	the_stack = NULL;
	free(st);
}

const struct stack_stats *stack_stats(struct stack *st)
{
	st->stats.again = lwip_stats.mib2.tcpretranssegs;
	return &st->stats;
}

int64_t stack_connections(const struct stack *st)
{
	return pcbs_check(st->pcbs);
}

int stack_address_add(struct stack *st, const struct ip_addr *a)
{
	uint16_t mtu = st->cfg.mtu_of != NULL ? st->cfg.mtu_of(st->cfg.mtu_arg, a) : 0;
	int i = address_find(st, a);

	if (i < 0 && st->n_addrs == STACK_ADDRS_MAX)
		return -ENOSPC;
	if (i < 0)
		i = (int)st->n_addrs++;
	st->addrs[i] = *a;
	st->mtus[i] = mtu != 0 && mtu < st->cfg.mtu_bytes ? mtu : st->cfg.mtu_bytes;
	st->mtu_least = st->cfg.mtu_bytes;
	for (uint32_t k = 0; k < st->n_addrs; k++)
		st->mtu_least = st->mtus[k] < st->mtu_least ? st->mtus[k] : st->mtu_least;
	return 0;
}

void stack_clock(struct stack *st, uint64_t now_us)
{
	st->now_us = now_us;
	st->netif.mtu = st->mtu_least; /* a SYN that is sent again: whosever it is */
	pcbs_timers(st->pcbs, now_us);
}

uint64_t stack_wait_us(const struct stack *st, uint64_t now_us)
{
	if (!LIST_EMPTY(&st->ready) || !LIST_EMPTY(&st->serving) || !LIST_EMPTY(&st->udp_ready) ||
	    !LIST_EMPTY(&st->udp_serving))
		return 0;
	return pcbs_wait_us(st->pcbs, now_us);
}

uint32_t stack_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote,
		   uint16_t remote_port)
{
	struct ip_addr l = addr_of_lwip(local), r = addr_of_lwip(remote);
	uint64_t in[5];

	memcpy(in, l.b, 16);
	memcpy(in + 2, r.b, 16);
	in[4] = (uint64_t)local_port << 16 | remote_port;
	return (uint32_t)(siphash(the_stack->isn_key, in, 5, 2, 4) + the_stack->now_us / 4);
}

/* lwIP's, for the times that its counters note. */
uint32_t sys_now(void)
{
	return the_stack != NULL ? (uint32_t)(the_stack->now_us / 1000) : 0;
}

/* ---- listening -------------------------------------------------------------------------------- */

static err_t accepted(void *arg, struct tcp_pcb *pcb, err_t err)
{
	const struct stack_listener *l = arg;
	struct stream *s = NULL;
	struct ip_addr peer;

	if (err != ERR_OK || pcb == NULL)
		return ERR_VAL;
	peer = addr_of_lwip(&pcb->remote_ip);
	if (pcb->mss >= STACK_MSS_MIN)
		s = l->accept(l->arg, &peer, pcb->remote_port);
	if (s == NULL) {
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	stream_attach(the_stack, s, pcb, STREAM_READ);
	stream_connects(s);
	return ERR_OK;
}

int stack_listen(struct stack *st, struct stack_listener *l, const struct ip_addr *a, uint16_t port,
		 struct err *err)
{
	ip_addr_t at = addr_to_lwip(a);
	struct tcp_pcb *pcb = NULL;
	char text[ADDR_TEXT_BYTES];
	int ret = stack_address_add(st, a);

	if (ret == 0) {
		ret = -ENOMEM;
		pcb = tcp_new_ip_type(at.type);
	}
	if (pcb == NULL)
		goto fail;
	ret = -EADDRINUSE;
	if (tcp_bind(pcb, &at, port) != ERR_OK)
		goto fail;
	ret = -ENOMEM;
	tcp_arg(pcb, l);
	tcp_ext_arg_set_callbacks(pcb, st->ext, &stream_ext_callbacks);
	l->pcb = tcp_listen(pcb);
	if (l->pcb == NULL)
		goto fail;
	tcp_accept(l->pcb, accepted);
	return 0;
fail:
	if (pcb != NULL)
		tcp_close(pcb);
	return err_set(err, ret, "%s port %u: %s", ip_addr_text(a, text), port, strerror(-ret));
}

void stack_unlisten(struct stack *st, struct stack_listener *l)
{
	if (l->pcb == NULL)
		return;
	pcbs_forget(st->pcbs, (struct tcp_pcb_listen *)l->pcb);
	tcp_close(l->pcb);
	l->pcb = NULL;
}
