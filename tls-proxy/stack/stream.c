/* SPDX-License-Identifier: GPL-3.0-or-later */
/* stream: stream_ops over a connection of lwIP. lwIP's callbacks only note what became possible; the streams of whom
 * something is wanted as well stand in a list, which stack_serve() works off. */
#include <errno.h>

#include "tls-proxy/stack/internal.h"
#include "tls-proxy/stack/memory.h"

#define SEND_ROOM (16 * 1024) /* then writing is possible again: a record of TLS */
#define RX_PIECES 8 /* then small segments are copied together: each would hold a whole buffer */
#define RX_SMALL_BYTES 1024
#define RX_BUFFER_BYTES 4096
#define PORT_TRIES 2048

uint8_t stream_half_open;

static const struct stream_ops stack_ops;

/* ---- what is possible ------------------------------------------------------------------------- */

/* Where memory is scarce, those who have nothing under way go on, a segment at a time: others' readers that do not read
 * must not stop them. */
static bool send_room(const struct tcp_pcb *pcb)
{
	return pcb->snd_buf >= SEND_ROOM && pcb->snd_queuelen <= TCP_SND_QUEUELEN / 2 &&
	       (pcb->snd_queuelen == 0 ? !stack_mem_spent() : !stack_mem_scarce());
}

/* Whoever waits for more gets what there is when memory is scarce: the parts of many records must not be all that it holds,
 * or none of them would ever be whole. */
static bool rx_ready(const struct stack_end *e)
{
	return (e->rx_bytes > 0 && (e->rx_bytes >= e->rx_low || stack_mem_scarce())) || e->eof;
}

static uint32_t stream_events(const struct stream *s)
{
	const struct stack_end *e = &s->stk;
	uint32_t can = 0;

	if (e->error != 0)
		return e->wanted == 0 && e->lost_told ? 0 : e->wanted | STREAM_GONE | STREAM_LOST;
	if (e->wanted == 0)
		return 0;
	if (rx_ready(e))
		can |= STREAM_READ;
	if ((e->wanted & STREAM_WRITE) && (e->pcb == NULL || (e->connected && send_room(e->pcb))))
		can |= STREAM_WRITE;
	can &= e->wanted;
	return can | (e->eof && e->shut ? STREAM_GONE : 0u);
}

void stream_tell(struct stream *s)
{
	if (s->stk.queued || stream_events(s) == 0)
		return;
	s->stk.queued = true;
	LIST_INSERT_HEAD(&the_stack->ready, s, stk.next);
}

void stack_fetch(const struct stream *s)
{
	const char *pcb = (const char *)s->stk.pcb;

	if (s->ops != &stack_ops || pcb == NULL)
		return;
	for (size_t at = 0; at < sizeof(struct tcp_pcb); at += 64)
		__builtin_prefetch(pcb + at);
}

/* A step of a stream that will be told, the first of all its own. */
static void serving_fetch_step(const struct stack *st, const struct stream *s, int step)
{
	if (step == 0) {
		stack_fetch(s);
		__builtin_prefetch(s->stk.rx);
	}
	if (st->cfg.fetch != NULL)
		st->cfg.fetch(s, step);
}

/* Of the stream that is so many behind s. */
static void serving_fetch(const struct stack *st, const struct stream *s, int behind, int step)
{
	while (s != NULL && behind-- > 0)
		s = LIST_NEXT(s, stk.next);
	if (s != NULL)
		serving_fetch_step(st, s, step);
}

/* The first ones of a turn have nobody before them in whose time their memory could come. */
static void serving_begin(struct stack *st)
{
	struct stream *s = LIST_FIRST(&st->ready);

	if (!LIST_EMPTY(&st->serving) || s == NULL)
		return;
	LIST_FIRST(&st->serving) = s;
	s->stk.next.le_prev = &LIST_FIRST(&st->serving);
	LIST_INIT(&st->ready);
	for (int step = 0; step < STACK_FETCH_STEPS; step++) {
		serving_fetch(st, s, 0, step);
		serving_fetch(st, s, 1, step);
	}
	for (int step = 0; step < STACK_FETCH_STEPS - 1; step++)
		serving_fetch(st, s, 2, step);
	serving_fetch(st, s, 3, 0);
}

bool stack_serve(struct stack *st, bool (*enough)(void *arg), void *arg)
{
	struct stream *s;

	/* Whoever became ready meanwhile waits until the others have had their turn. */
	serving_begin(st);
	/* enough() may close streams. */
	while ((enough == NULL || !enough(arg)) && (s = LIST_FIRST(&st->serving)) != NULL) {
		uint32_t events = stream_events(s);

		/* Two steps before it is told and two after, so that none has to wait for the one before:
		 * see PCBS_FETCH_APART. */
		serving_fetch(st, s, 3, 1);
		serving_fetch(st, s, 4, 0);
		LIST_REMOVE(s, stk.next);
		s->stk.queued = false;
		if (events == 0)
			continue;
		s->stk.lost_told = events & STREAM_LOST;
		s->ready(s->arg, events);
		if (s->ops == &stack_ops)
			stream_tell(s);
		serving_fetch(st, LIST_FIRST(&st->serving), 2, 2);
		serving_fetch(st, LIST_FIRST(&st->serving), 1, 3);
	}
	stack_acknowledge(st);
	return udp_serve(st, enough, arg) || !LIST_EMPTY(&st->serving) || !LIST_EMPTY(&st->ready);
}

/* ---- what lwIP tells -------------------------------------------------------------------------- */

static void rx_append(struct stack_end *e, struct pbuf *p)
{
	e->rx_bytes += p->len;
	if (e->rx_n >= RX_PIECES && p->len < RX_SMALL_BYTES) {
		if (e->rx_room < p->len) {
			struct pbuf *b = pbuf_alloc(PBUF_RAW, RX_BUFFER_BYTES, PBUF_RAM);

			if (b != NULL) {
				b->len = 0;
				e->rx_last->next = b;
				e->rx_last = b;
				e->rx_n++;
				e->rx_room = RX_BUFFER_BYTES;
			}
		}
		if (e->rx_room >= p->len) {
			memcpy((uint8_t *)e->rx_last->payload + e->rx_last->len, p->payload,
			       p->len);
			e->rx_last->len += p->len;
			e->rx_room -= p->len;
			pbuf_free(p);
			return;
		}
	}
	if (e->rx == NULL)
		e->rx = p;
	else
		e->rx_last->next = p;
	e->rx_last = p;
	e->rx_n++;
	e->rx_room = 0;
}

static void rx_drop(struct stack_end *e)
{
	struct pbuf *p;

	while ((p = e->rx) != NULL) {
		e->rx = p->next;
		p->next = NULL;
		pbuf_free(p);
	}
	e->rx_last = NULL;
	e->rx_n = e->rx_room = e->rx_at = 0;
	e->rx_bytes = 0;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct stream *s = arg;

	(void)pcb;
	(void)err;
	if (s == NULL) {
		if (p != NULL)
			pbuf_free(p);
		return ERR_OK;
	}
	if (p == NULL)
		s->stk.eof = s->stk.fin = true;
	while (p != NULL) {
		struct pbuf *next = p->next;

		p->next = NULL;
		if (p->len > 0)
			rx_append(&s->stk, p);
		else
			pbuf_free(p);
		p = next;
	}
	stream_tell(s);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, uint16_t bytes)
{
	(void)pcb;
	(void)bytes;
	if (arg != NULL)
		stream_tell(arg);
	return ERR_OK;
}

/* lwIP makes segments of half of the largest window that it was ever offered, but whole ones where there was none yet; and
 * asserts when a small window comes and such a one still waits. */
void stream_connects(struct stream *s)
{
	struct tcp_pcb *pcb = s->stk.pcb;

	if (pcb->snd_wnd_max < 2 * STACK_MSS_MIN)
		pcb->snd_wnd_max = 2 * STACK_MSS_MIN;
	pmtu_connected(the_stack, pcb);
	s->stk.connected = true;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct stream *s = arg;

	(void)pcb;
	(void)err;
	stream_connects(s);
	stream_tell(s);
	return ERR_OK;
}

static void on_error(void *arg, err_t err)
{
	struct stream *s = arg;

	if (s == NULL || err == ERR_CLSD) /* both ends have said all: no error */
		return;
	s->stk.error = err != ERR_RST ? ETIMEDOUT : s->stk.connected ? ECONNRESET : ECONNREFUSED;
	stream_tell(s);
}

/* Before on_error(), after it, or alone when TIME-WAIT is over. */
static void on_freed(uint8_t id, void *data)
{
	struct stream *s = data;

	(void)id;
	if (data == &stream_half_open) {
		the_stack->stats.half_open--;
		return;
	}
	if (s == NULL)
		return;
	s->stk.pcb = NULL;
	s->stk.eof = s->stk.shut = true;
	stream_tell(s);
}

/* A SYN: before anything is sent. */
static err_t on_syn(uint8_t id, struct tcp_pcb_listen *l, struct tcp_pcb *pcb)
{
	struct stack *st = the_stack;

	(void)l;
	if (st->stats.half_open >= st->cfg.half_open_max || stack_mem_scarce()) {
		st->stats.syns_dropped++;
		return ERR_MEM;
	}
	st->stats.half_open++;
	tcp_ext_arg_set_callbacks(pcb, id, &stream_ext_callbacks);
	tcp_ext_arg_set(pcb, id, &stream_half_open);
	return ERR_OK;
}

const struct tcp_ext_arg_callbacks stream_ext_callbacks = {
	.destroy = on_freed,
	.passive_open = on_syn,
};

void stream_attach(struct stack *st, struct stream *s, struct tcp_pcb *pcb, uint32_t wanted)
{
	if (tcp_ext_arg_get(pcb, st->ext) == &stream_half_open)
		st->stats.half_open--;
	s->ops = &stack_ops;
	s->stk = (struct stack_end){
		.pcb = pcb, .bucket = pcbs_bucket_of(st->pcbs, pcb), .wanted = wanted};
	tcp_ext_arg_set_callbacks(pcb, st->ext, &stream_ext_callbacks);
	tcp_ext_arg_set(pcb, st->ext, s);
	tcp_arg(pcb, s);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	tcp_nagle_disable(pcb);
	st->stats.streams++;
}

/* ---- stream_ops ------------------------------------------------------------------------------- */

/* The next bytes, to nowhere if out is NULL. @return how many */
static uint32_t rx_take(struct stack_end *e, uint8_t *out, size_t bytes)
{
	uint32_t n = 0;

	while (e->rx != NULL && n < bytes) {
		struct pbuf *p = e->rx;
		size_t take = p->len - e->rx_at;

		if (take > bytes - n)
			take = bytes - n;
		if (out != NULL)
			memcpy(out + n, (uint8_t *)p->payload + e->rx_at, take);
		n += take;
		e->rx_at += take;
		if (e->rx_at < p->len)
			break;
		e->rx = p->next;
		e->rx_at = 0;
		e->rx_n--;
		p->next = NULL;
		pbuf_free(p);
	}
	if (e->rx == NULL) {
		e->rx_last = NULL;
		e->rx_room = 0;
	}
	e->rx_bytes -= n;
	e->rx_low = 0;
	return n;
}

/* So many were read: the peer may send as many more. */
static void rx_taken(struct stack_end *e, uint32_t n)
{
	if (n == 0 || e->pcb == NULL)
		return;
	for (uint32_t left = n; left > 0;) {
		uint16_t part = left < 0xffff ? left : 0xffff;

		tcp_recved(e->pcb, part);
		left -= part;
	}
	/* The news of the window may not have got out. */
	pcbs_touched(the_stack->pcbs, e->bucket, e->pcb);
}

static ssize_t stack_recv(struct stream *s, void *out, size_t bytes)
{
	struct stack_end *e = &s->stk;
	uint32_t n = rx_take(e, out, bytes);

	rx_taken(e, n);
	if (n > 0)
		return n;
	/* Whoever has said all has said all, whatever became of it then. */
	return e->error != 0 && !e->fin ? -e->error : e->eof ? 0 : -EAGAIN;
}

static bool stack_has(const struct stream *s)
{
	return rx_ready(&s->stk) || s->stk.error != 0;
}

static const uint8_t *stack_view(struct stream *s, void *buf, size_t bytes)
{
	struct stack_end *e = &s->stk;
	const struct pbuf *p = e->rx;
	size_t at = e->rx_at, n = 0;

	e->rx_low = bytes;
	if (e->rx_bytes < bytes || p == NULL)
		return NULL;
	if (p->len - at >= bytes)
		return (const uint8_t *)p->payload + at;
	for (; n < bytes; p = p->next, at = 0) {
		size_t part = p->len - at;

		if (part > bytes - n)
			part = bytes - n;
		memcpy((uint8_t *)buf + n, (const uint8_t *)p->payload + at, part);
		n += part;
	}
	return buf;
}

static void stack_taken(struct stream *s, size_t bytes)
{
	rx_taken(&s->stk, rx_take(&s->stk, NULL, bytes));
}

static ssize_t stack_send(struct stream *s, const void *data, size_t bytes)
{
	struct stack_end *e = &s->stk;
	struct tcp_pcb *pcb = e->pcb;
	uint32_t segment, room;

	if (e->error != 0)
		return -e->error;
	if (pcb == NULL || e->shut)
		return -EPIPE;
	if (!e->connected || !send_room(pcb))
		return -EAGAIN;
	/* lwIP cuts to half of the largest window that it was ever offered; each segment is an entry of its queue. */
	segment = pcb->snd_wnd_max / 2 < pcb->mss ? pcb->snd_wnd_max / 2 : pcb->mss;
	room = (TCP_SND_QUEUELEN - pcb->snd_queuelen - 2) * (segment > 0 ? segment : pcb->mss);
	if (room > pcb->snd_buf)
		room = pcb->snd_buf;
	if (room > 0xffff)
		room = 0xffff;
	if (stack_mem_scarce() && room > pcb->mss)
		room = pcb->mss;
	if (bytes > room)
		bytes = room;
	if (bytes == 0 || tcp_write(pcb, data, bytes, TCP_WRITE_FLAG_COPY) != ERR_OK)
		return -EAGAIN;
	tcp_output(pcb);
	pcbs_touched(the_stack->pcbs, e->bucket, pcb);
	return (ssize_t)bytes;
}

static int stack_connected(struct stream *s)
{
	if (s->stk.error != 0)
		return -s->stk.error;
	return s->stk.connected ? 0 : -EINPROGRESS;
}

static bool stack_unsent(struct stream *s)
{
	const struct tcp_pcb *pcb = s->stk.pcb;

	return pcb != NULL && TCP_SEQ_LT(pcb->snd_nxt, pcb->snd_lbb);
}

static void stack_want(struct stream *s, uint32_t events)
{
	s->stk.wanted = events;
	stream_tell(s);
}

static void stack_shut(struct stream *s)
{
	struct stack_end *e = &s->stk;

	if (e->pcb == NULL || e->shut)
		return;
	e->shut = true;
	e->pcb->tmr =
		tcp_ticks; /* LAST-ACK counts from here, not from the last segment that came in */
	pcbs_enter(the_stack->pcbs, e->bucket);
	tcp_shutdown(e->pcb, 0, 1);
	pcbs_leave(the_stack->pcbs, true);
	stream_tell(s);
}

/* lwIP's half of it is nobody's any more. @return that half, or NULL */
static struct tcp_pcb *stream_detach(struct stream *s)
{
	struct tcp_pcb *pcb = s->stk.pcb;

	if (s->stk.queued)
		LIST_REMOVE(s, stk.next);
	rx_drop(&s->stk);
	s->stk = (struct stack_end){.bucket = s->stk.bucket};
	the_stack->stats.streams--;
	if (pcb == NULL)
		return NULL;
	tcp_arg(pcb, NULL);
	tcp_ext_arg_set(pcb, the_stack->ext, NULL);
	return pcb;
}

/* lwIP resets what is closed with bytes unread, but not behind its FIN: there the peer would knock at a shut window until the
 * orphan is given up. */
static void stack_close(struct stream *s)
{
	bool unread = s->stk.rx_bytes > 0;
	struct tcp_pcb *pcb = stream_detach(s);

	if (pcb == NULL)
		return;
	pcb->tmr = tcp_ticks; /* from now on it is an orphan */
	pcbs_enter(the_stack->pcbs, s->stk.bucket);
	if (unread && pcb->state == FIN_WAIT_2)
		tcp_abort(pcb);
	else
		tcp_close(pcb);
	pcbs_leave(the_stack->pcbs, true);
}

static void stack_reset(struct stream *s)
{
	struct tcp_pcb *pcb = stream_detach(s);

	if (pcb == NULL)
		return;
	pcbs_enter(the_stack->pcbs, s->stk.bucket);
	tcp_abort(pcb);
	pcbs_leave(the_stack->pcbs, true);
}

static const struct stream_ops stack_ops = {
	.recv = stack_recv,
	.send = stack_send,
	.connected = stack_connected,
	.unsent = stack_unsent,
	.want = stack_want,
	.shut = stack_shut,
	.close = stack_close,
	.reset = stack_reset,
	.has = stack_has,
	.view = stack_view,
	.taken = stack_taken,
};

/* ---- connecting ------------------------------------------------------------------------------- */

/* The next port of this worker's slice that is free towards that upstream. lwIP would walk all connections for it, and
 * knows no slice. @return 0: none */
static uint16_t port_pick(struct stack *st, const struct ip_addr *from, const struct ip_addr *to,
			  uint16_t to_port)
{
	for (uint32_t i = 0; i < PORT_TRIES; i++) {
		uint16_t port = stack_next_port(st);

		if (port == 0 || !pcbs_has(st->pcbs, from, port, to, to_port))
			return port;
	}
	return 0;
}

static int connect_from(struct stack *st, struct stream *s, const struct ip_addr *from,
			uint16_t from_port, const struct ip_addr *to, uint16_t port)
{
	ip_addr_t l = addr_to_lwip(from), r = addr_to_lwip(to);
	struct tcp_pcb *pcb = tcp_new_ip_type(l.type);
	uint32_t bucket = pcbs_bucket(st->pcbs, from, from_port, to, port);
	err_t err;

	if (pcb == NULL)
		return -ENOMEM;
	if (tcp_bind(pcb, &l, from_port) != ERR_OK) { /* a listener's */
		tcp_close(pcb);
		return -EADDRINUSE;
	}
	stream_attach(st, s, pcb, STREAM_WRITE);
	s->stk.bucket = bucket;
	stack_speaks_as(st, from); /* its MTU */
	pcbs_enter(st->pcbs, bucket);
	err = tcp_connect(pcb, &r, port, on_connected);
	pcbs_leave(st->pcbs, true);
	if (err == ERR_OK)
		return 0;
	tcp_close(stream_detach(s));
	return err == ERR_MEM ? -ENOMEM : -ENETUNREACH;
}

int stack_connect(struct stack *st, struct stream *s, const struct ip_addr *from, unsigned n_from,
		  const struct ip_addr *to, uint16_t port)
{
	int ret = -EADDRNOTAVAIL;

	s->ops = NULL;
	for (unsigned i = 0; i < n_from && ret == -EADDRNOTAVAIL; i++) {
		uint16_t from_port = port_pick(st, &from[i], to, port);

		if (from_port == 0 || ip_addr_is_v4(&from[i]) != ip_addr_is_v4(to))
			continue;
		ret = stack_address_add(st, &from[i]);
		if (ret == 0)
			ret = connect_from(st, s, &from[i], from_port, to, port);
	}
	if (ret == -EADDRNOTAVAIL)
		st->stats.ports_out++;
	if (ret < 0)
		s->ops = NULL;
	return ret;
}
