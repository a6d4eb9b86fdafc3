/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "tls-proxy/stack/memory.h"
#include "tls-proxy/stack/pcbs.h"
#include "tls-proxy/stack/siphash.h"
#include "tls-proxy/stream.h"

#define ROUND_US (TCP_TMR_INTERVAL * 1000ull)
#define TICKS(ms) ((ms) / PCBS_TICK_MS)
#define TIME_WAIT_MS 2000 /* the other end's last FIN may still be under way */
#define HALF_OPEN_MS 5000
#define ORPHAN_MS 30000 /* closed here, and the other end takes neither what is left nor our FIN */
#define ROUND_TRIP_MS 60000 /* a sign of life that is older says nothing of the way */
#define FETCH_AHEAD 16 /* buckets */
#define LARGE_PAGE ((size_t)2 << 20)
#define LONG_AGO TICKS(60000) /* beyond any of lwIP's own timeouts */
/* Of those that just began to wait: one is acknowledged when so many more have come, or so much time has passed; and looked
 * after by the timers later still. All of them are to fit into the cache. */
#define YOUNG 8192 /* a power of two */
#define YOUNG_ACK (YOUNG / 4)
#define YOUNG_OLD (YOUNG / 2)
#define YOUNG_ACK_US 40000
#define YOUNG_OLD_US 80000
#define NOBODY UINT32_MAX /* in place of a bucket */
/* A power of two. Buckets of TIME-WAIT alone; more of them are visited each round. */
#define RESTING 32768
#define TF_YOUNG 0x8000u /* in pcb->flags, where lwIP has no use for it */

_Static_assert(PCBS_TICK_MS == TCP_SLOW_INTERVAL, "a tick is lwIP's");
_Static_assert(sizeof(struct tcp_pcb) <= STACK_BLOCK_BYTES &&
		       sizeof(struct tcp_pcb) > STACK_BLOCK_BYTES - 64,
	       "a control block is told by its size");

struct bucket {
	struct tcp_pcb *active, *tw;
};

/* Most connections wait for a moment only: for an answer that carries the acknowledgement, or for that of the other end.
 * They stand in line here first, and when their turn comes most are looked for in vain: the timers never hear of them. */
struct young {
	uint32_t bucket;
	uint16_t local_port, remote_port;
	uint32_t since_us;
};

/* A bucket that holds TIME-WAIT alone: the timers need not look before that ends. */
struct resting {
	uint32_t bucket;
	uint32_t since_us;
};

struct pcbs {
	struct bucket *b;
	uint64_t *timed; /* a bit each bucket: somebody in it waits for something */
	uint32_t mask, words;
	uint64_t key[2];
	uint32_t in; /* entered; UINT32_MAX: none */
	uint32_t n_timed;
	/* the present round, of all words of `timed` */
	uint32_t at;
	bool slow; /* it counts a tick */
	uint64_t round_us;
	/* positions in `young`, modulo YOUNG: the first, the first that has not been acknowledged, behind the last */
	uint32_t first, owing, end;
	uint32_t now_us;
	struct young young[YOUNG];
	/* positions in `resting`, modulo RESTING: the first, behind the last */
	uint32_t rest_first, rest_end;
	struct resting resting[RESTING];
};

/* lwIP's own counter of timer calls. A connection that carries its value is passed over, and with as many calls as there
 * are buckets that would come true by chance. */
static uint8_t timer_calls;

/* Of many connections, on large pages: each segment reads one of them. */
static struct bucket *buckets_new(uint32_t n)
{
	size_t bytes = (size_t)n * sizeof(struct bucket);
	void *mem = bytes >= LARGE_PAGE ? aligned_alloc(LARGE_PAGE, bytes) : calloc(1, bytes);

	if (mem == NULL || bytes < LARGE_PAGE)
		return mem;
	madvise(mem, bytes, MADV_HUGEPAGE);
	memset(mem, 0, bytes);
	return mem;
}

int pcbs_new(struct pcbs **out, uint32_t buckets, uint64_t now_us)
{
	struct pcbs *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -ENOMEM;
	t->mask = buckets - 1;
	t->words = buckets / 64;
	t->b = buckets_new(buckets);
	t->timed = calloc(t->words, sizeof(*t->timed));
	t->in = UINT32_MAX;
	t->round_us = now_us;
	t->now_us = (uint32_t)now_us;
	if (t->b == NULL || t->timed == NULL ||
	    getrandom(t->key, sizeof(t->key), 0) != sizeof(t->key)) {
		pcbs_free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

void pcbs_free(struct pcbs *t)
{
	if (t == NULL)
		return;
	for (uint32_t i = 0; t->b != NULL && i <= t->mask; i++) {
		pcbs_enter(t, i);
		while (tcp_active_pcbs != NULL)
			tcp_abandon(tcp_active_pcbs, 0);
		while (tcp_tw_pcbs != NULL)
			tcp_abandon(tcp_tw_pcbs, 0);
		pcbs_leave(t, false);
	}
	free(t->timed);
	free(t->b);
	free(t);
}

uint32_t pcbs_bucket(const struct pcbs *t, const struct ip_addr *local, uint16_t local_port,
		     const struct ip_addr *remote, uint16_t remote_port)
{
	uint64_t in[5];

	memcpy(in, local->b, 16);
	memcpy(in + 2, remote->b, 16);
	in[4] = (uint64_t)local_port << 16 | remote_port;
	/* The mapped form's first eight bytes say nothing. */
	if (in[0] == 0 && in[2] == 0) {
		in[2] = in[3];
		return (uint32_t)siphash(t->key, (uint64_t[]){in[1], in[2], in[4]}, 3, 1, 3) &
		       t->mask;
	}
	return (uint32_t)siphash(t->key, in, 5, 1, 3) & t->mask;
}

uint32_t pcbs_bucket_of(const struct pcbs *t, const struct tcp_pcb *pcb)
{
	struct ip_addr local = addr_of_lwip(&pcb->local_ip), remote = addr_of_lwip(&pcb->remote_ip);

	return pcbs_bucket(t, &local, pcb->local_port, &remote, pcb->remote_port);
}

void pcbs_fetch(const struct pcbs *t, uint32_t bucket)
{
	__builtin_prefetch(&t->b[bucket]);
}

static void fetch(const void *what, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)what + at);
}

void pcbs_fetch_more(const struct pcbs *t, uint32_t bucket, uint16_t remote_port, int step)
{
	const struct tcp_pcb *pcb = t->b[bucket].active;

	if (pcb == NULL)
		return;
	if (step == 1) {
		fetch(pcb, sizeof(*pcb));
		return;
	}
	if (pcb->remote_port != remote_port && pcb->next != NULL) {
		if (step == 2)
			fetch(pcb->next, sizeof(*pcb));
		pcb = pcb->next;
		step--;
	}
	if (step == 2) {
		if (pcb->callback_arg != NULL)
			fetch(pcb->callback_arg, sizeof(struct stream));
		if (pcb->unacked != NULL)
			fetch(pcb->unacked, sizeof(*pcb->unacked));
	} else if (step == 3 && pcb->unacked != NULL) {
		fetch(pcb->unacked->p, 2 * 64);
	}
}

/* Does lwIP's clock matter to it? An idle connection waits for nothing: the dataplane's and conn.c's clocks end it. */
enum wait {
	WAIT_NOT,
	WAIT_WHILE, /* for an acknowledgement, its own or the other's */
	WAIT_TIMERS,
};

static enum wait pcb_waits(const struct tcp_pcb *pcb)
{
	if (pcb->unsent != NULL || pcb->ooseq != NULL || pcb->refused_data != NULL ||
	    (pcb->flags & (TF_ACK_NOW | TF_CLOSEPEND)))
		return WAIT_TIMERS;
	switch (pcb->state) {
	case ESTABLISHED:
	case CLOSE_WAIT:
		return pcb->unacked != NULL || (pcb->flags & TF_ACK_DELAY) ? WAIT_WHILE : WAIT_NOT;
	case FIN_WAIT_2:
		return (pcb->flags & (TF_RXCLOSED | TF_ACK_DELAY)) || pcb->unacked != NULL
			       ? WAIT_TIMERS
			       : WAIT_NOT;
	default:
		return WAIT_TIMERS;
	}
}

static void bucket_timed(struct pcbs *t, uint32_t i)
{
	uint64_t bit = 1ull << (i & 63);

	t->n_timed += (t->timed[i / 64] & bit) == 0;
	t->timed[i / 64] |= bit;
}

/* Whatever it waits for, somebody looks after it from now on. */
static void pcb_note(struct pcbs *t, uint32_t bucket, struct tcp_pcb *pcb)
{
	enum wait wait = pcb_waits(pcb);

	if (wait == WAIT_WHILE && (pcb->flags & TF_YOUNG))
		return;
	if (wait == WAIT_WHILE && t->end - t->first < YOUNG) {
		pcb->flags |= TF_YOUNG;
		t->young[t->end++ % YOUNG] =
			(struct young){bucket, pcb->local_port, pcb->remote_port, t->now_us};
	} else if (wait != WAIT_NOT) {
		bucket_timed(t, bucket);
	}
}

void pcbs_enter(struct pcbs *t, uint32_t bucket)
{
	LWIP_ASSERT("one bucket at a time", t->in == UINT32_MAX);
	t->in = bucket;
	tcp_active_pcbs = t->b[bucket].active;
	tcp_tw_pcbs = t->b[bucket].tw;
}

static void leave(struct pcbs *t)
{
	struct bucket *b = &t->b[t->in];

	b->active = tcp_active_pcbs;
	b->tw = tcp_tw_pcbs;
	tcp_active_pcbs = tcp_tw_pcbs = NULL;
	t->in = UINT32_MAX;
}

void pcbs_leave(struct pcbs *t, bool changed)
{
	if (changed || tcp_tw_pcbs != NULL)
		bucket_timed(t, t->in);
	else if (tcp_active_pcbs != NULL)
		pcb_note(t, t->in, tcp_active_pcbs);
	leave(t);
}

void pcbs_touched(struct pcbs *t, uint32_t bucket, struct tcp_pcb *pcb)
{
	pcb_note(t, bucket, pcb);
}

static bool list_has(const struct tcp_pcb *pcb, const ip_addr_t *local, uint16_t local_port,
		     const ip_addr_t *remote, uint16_t remote_port)
{
	for (; pcb != NULL; pcb = pcb->next) {
		if (pcb->local_port == local_port && pcb->remote_port == remote_port &&
		    lwip_addr_eq(&pcb->local_ip, local) && lwip_addr_eq(&pcb->remote_ip, remote))
			return true;
	}
	return false;
}

struct tcp_pcb *pcbs_with(const struct pcbs *t, uint32_t bucket, uint16_t local_port,
			  uint16_t remote_port)
{
	struct tcp_pcb *pcb = t->b[bucket].active;

	while (pcb != NULL && (pcb->local_port != local_port || pcb->remote_port != remote_port))
		pcb = pcb->next;
	return pcb;
}

bool pcbs_has(const struct pcbs *t, const struct ip_addr *local, uint16_t local_port,
	      const struct ip_addr *remote, uint16_t remote_port)
{
	const struct bucket *b = &t->b[pcbs_bucket(t, local, local_port, remote, remote_port)];
	ip_addr_t l = addr_to_lwip(local), r = addr_to_lwip(remote);

	return list_has(b->active, &l, local_port, &r, remote_port) ||
	       list_has(b->tw, &l, local_port, &r, remote_port);
}

/* Where lwIP's patience is not ours: it goes by pcb->tmr, the tick of the last sign of life. */
static void patience(void)
{
	struct tcp_pcb *pcb, *next;

	for (pcb = tcp_tw_pcbs; pcb != NULL; pcb = pcb->next) {
		if (tcp_ticks - pcb->tmr > TICKS(TIME_WAIT_MS))
			pcb->tmr = tcp_ticks - LONG_AGO;
	}
	for (pcb = tcp_active_pcbs; pcb != NULL; pcb = next) {
		uint32_t age = tcp_ticks - pcb->tmr;

		next = pcb->next;
		if (pcb->state == SYN_RCVD && age > TICKS(HALF_OPEN_MS))
			pcb->tmr = tcp_ticks - LONG_AGO;
		else if (pcb->state > SYN_RCVD && (pcb->flags & TF_RXCLOSED) &&
			 age > TICKS(ORPHAN_MS))
			tcp_abort(pcb);
	}
}

/* What lwIP's timers hold for impossible. It probes a shut window with a byte of what waits, and does not stop its probes
 * when that was all and is taken. It counts a round trip's ticks in 16 bits, however long the answer takes. */
static void repair(void)
{
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) {
		if (pcb->unsent == NULL || pcb->unacked != NULL)
			pcb->persist_backoff = 0;
		if (pcb->rttest != 0 && tcp_ticks - pcb->rttest > TICKS(ROUND_TRIP_MS))
			pcb->rttest = 0;
	}
}

static void unseen(void)
{
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
		pcb->last_timer = timer_calls;
}

static bool pcb_is_left(const struct tcp_pcb *pcb)
{
	enum wait wait = pcb_waits(pcb);

	return wait == WAIT_TIMERS || (wait == WAIT_WHILE && !(pcb->flags & TF_YOUNG));
}

/* Of the bucket that is entered, in which nobody but TIME-WAIT waits. @return false: it has to be visited */
static bool bucket_rests(struct pcbs *t)
{
	for (const struct tcp_pcb *pcb = tcp_tw_pcbs; pcb != NULL; pcb = pcb->next) {
		if (tcp_ticks - pcb->tmr > TICKS(TIME_WAIT_MS / 2))
			return false; /* it ends sooner than the bucket's turn would come */
	}
	if (t->rest_end - t->rest_first == RESTING)
		return false;
	t->resting[t->rest_end++ % RESTING] = (struct resting){t->in, t->now_us};
	return true;
}

/* Whose rest is over has its timers from the next round on. */
static void rest_settle(struct pcbs *t)
{
	for (; t->rest_first != t->rest_end; t->rest_first++) {
		const struct resting *r = &t->resting[t->rest_first % RESTING];

		if (t->now_us - r->since_us < TIME_WAIT_MS * 1000)
			break;
		bucket_timed(t, r->bucket);
	}
}

static void bucket_timers(struct pcbs *t, uint32_t i)
{
	bool waits = false;

	pcbs_enter(t, i);
	unseen();
	tcp_fasttmr();
	timer_calls++;
	if (t->slow) {
		patience();
		repair();
		unseen();
		tcp_ticks--; /* which lwIP counts by itself, at each call */
		tcp_slowtmr();
		timer_calls++;
	}
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL && !waits; pcb = pcb->next)
		waits = pcb_is_left(pcb);
	if (waits || (tcp_tw_pcbs != NULL && !bucket_rests(t))) {
		pcbs_leave(t, false);
		return;
	}
	t->timed[i / 64] &= ~(1ull << (i & 63));
	t->n_timed--;
	leave(t);
}

static void neighbour_fetch(const struct tcp_pcb *pcb)
{
	if (pcb != NULL && pcb->next != NULL)
		fetch(pcb->next, sizeof(*pcb));
}

/* Some words' buckets: first into the cache, then their timers. @return the next word */
static uint32_t words_timers(struct pcbs *t, uint32_t word, uint32_t end)
{
	uint32_t due[FETCH_AHEAD + 64], n = 0;

	for (; word < end && n < FETCH_AHEAD; word++) {
		for (uint64_t bits = t->timed[word]; bits != 0; bits &= bits - 1) {
			due[n] = word * 64 + __builtin_ctzll(bits);
			pcbs_fetch(t, due[n++]);
		}
	}
	for (uint32_t i = 0; i < n + 2 * PCBS_FETCH_APART; i++) {
		if (i < n)
			pcbs_fetch_more(t, due[i], 0, 1);
		if (i - PCBS_FETCH_APART < n)
			neighbour_fetch(t->b[due[i - PCBS_FETCH_APART]].active);
		if (i >= 2 * PCBS_FETCH_APART)
			bucket_timers(t, due[i - 2 * PCBS_FETCH_APART]);
	}
	return word;
}

/* ---- those who just began to wait --------------------------------------------------------------- */

static bool young_is_due(const struct pcbs *t, uint32_t at, uint32_t others, uint32_t age_us)
{
	return at != t->end &&
	       (t->end - at > others || t->now_us - t->young[at % YOUNG].since_us >= age_us);
}

/* @return NULL: it is gone. Those behind it come into the cache; beyond the last stand earlier ones, which does no harm. */
static struct tcp_pcb *young_take(const struct pcbs *t, uint32_t at)
{
	const struct young *y = &t->young[at % YOUNG];
	uint32_t next = t->young[(at + PCBS_FETCH_APART) % YOUNG].bucket;

	pcbs_fetch(t, t->young[(at + 2 * PCBS_FETCH_APART) % YOUNG].bucket & t->mask);
	if (next != NOBODY)
		pcbs_fetch_more(t, next, 0, 1);
	return y->bucket != NOBODY ? pcbs_with(t, y->bucket, y->local_port, y->remote_port) : NULL;
}

static void young_settle(struct pcbs *t)
{
	struct tcp_pcb *pcb;

	for (; young_is_due(t, t->owing, YOUNG_ACK, YOUNG_ACK_US); t->owing++) {
		struct young *y = &t->young[t->owing % YOUNG];

		pcb = young_take(t, t->owing);
		if (pcb != NULL && (pcb->flags & TF_ACK_DELAY)) {
			tcp_ack_now(pcb);
			tcp_output(pcb);
			pcb_note(t, y->bucket, pcb);
		}
		if (pcb != NULL && pcb_waits(pcb) != WAIT_NOT)
			continue;
		if (pcb != NULL)
			pcb->flags &= ~TF_YOUNG;
		y->bucket = NOBODY;
	}
	for (; young_is_due(t, t->first, YOUNG_OLD, YOUNG_OLD_US); t->first++) {
		pcb = young_take(t, t->first);
		if (pcb == NULL || !(pcb->flags & TF_YOUNG))
			continue;
		pcb->flags &= ~TF_YOUNG;
		if (pcb_waits(pcb) != WAIT_NOT)
			bucket_timed(t, t->young[t->first % YOUNG].bucket);
	}
}

void pcbs_timers(struct pcbs *t, uint64_t now_us)
{
	uint64_t past_us = now_us - t->round_us;
	uint32_t end = past_us >= ROUND_US ? t->words : past_us * t->words / ROUND_US;

	t->now_us = (uint32_t)now_us;
	young_settle(t);
	while (t->at < end)
		t->at = words_timers(t, t->at, end);
	if (past_us < ROUND_US)
		return;
	/* Who was kept from coming makes one round of it, and the clock is right again. */
	tcp_ticks += (past_us / ROUND_US + t->slow) / 2;
	t->slow ^= past_us / ROUND_US & 1;
	t->round_us += past_us / ROUND_US * ROUND_US;
	t->at = 0;
	rest_settle(t);
}

static uint64_t young_wait_us(const struct pcbs *t, uint32_t at, uint32_t age_us, uint64_t now_us)
{
	uint32_t past_us = (uint32_t)now_us - t->young[at % YOUNG].since_us;

	if (at == t->end)
		return UINT64_MAX;
	return past_us < age_us ? age_us - past_us : 0;
}

/* A round later than it must be, for all those whose rest ends until then. */
static uint64_t rest_wait_us(const struct pcbs *t, uint64_t now_us)
{
	uint32_t past_us = (uint32_t)now_us - t->resting[t->rest_first % RESTING].since_us;
	uint32_t all_us = TIME_WAIT_MS * 1000 + ROUND_US;

	if (t->rest_first == t->rest_end)
		return UINT64_MAX;
	return past_us < all_us ? all_us - past_us : 0;
}

uint64_t pcbs_wait_us(const struct pcbs *t, uint64_t now_us)
{
	uint64_t next_us = t->round_us + ROUND_US, wait_us = UINT64_MAX;
	uint64_t ack_us = young_wait_us(t, t->owing, YOUNG_ACK_US, now_us);
	uint64_t old_us = young_wait_us(t, t->first, YOUNG_OLD_US, now_us);
	uint64_t rest_us = rest_wait_us(t, now_us);

	if (t->n_timed > 0)
		wait_us = next_us > now_us ? next_us - now_us : 0;
	if (wait_us > ack_us)
		wait_us = ack_us;
	if (wait_us > rest_us)
		wait_us = rest_us;
	return wait_us < old_us ? wait_us : old_us;
}

void pcbs_forget(struct pcbs *t, const struct tcp_pcb_listen *l)
{
	for (uint32_t i = 0; i <= t->mask; i++) {
		for (struct tcp_pcb *pcb = t->b[i].active; pcb != NULL; pcb = pcb->next) {
			if (pcb->listener == l)
				pcb->listener = NULL;
		}
	}
}

/* @return how many that stand in line are there still */
static int64_t young_there(const struct pcbs *t)
{
	int64_t n = 0;

	for (uint32_t at = t->first; at != t->end; at++) {
		const struct young *y = &t->young[at % YOUNG];
		const struct tcp_pcb *p =
			y->bucket == NOBODY
				? NULL
				: pcbs_with(t, y->bucket, y->local_port, y->remote_port);

		n += p != NULL && (p->flags & TF_YOUNG);
	}
	return n;
}

static bool rests(const struct pcbs *t, uint32_t bucket)
{
	for (uint32_t at = t->rest_first; at != t->rest_end; at++) {
		if (t->resting[at % RESTING].bucket == bucket)
			return true;
	}
	return false;
}

int64_t pcbs_check(const struct pcbs *t)
{
	int64_t n = 0, young = 0;

	if (tcp_active_pcbs != NULL || tcp_tw_pcbs != NULL || tcp_bound_pcbs != NULL)
		return -1;
	for (uint32_t i = 0; i <= t->mask; i++) {
		bool waits = false, timed = t->timed[i / 64] >> (i & 63) & 1;

		for (const struct tcp_pcb *p = t->b[i].active; p != NULL; p = p->next, n++) {
			waits |= pcb_is_left(p);
			young += (p->flags & TF_YOUNG) != 0;
			if (pcbs_bucket_of(t, p) != i || p->state <= LISTEN ||
			    p->state == TIME_WAIT)
				return -1;
		}
		for (const struct tcp_pcb *p = t->b[i].tw; p != NULL; p = p->next, n++) {
			if (pcbs_bucket_of(t, p) != i || p->state != TIME_WAIT)
				return -1;
		}
		if (!timed && (waits || (t->b[i].tw != NULL && !rests(t, i))))
			return -1;
	}
	return young <= young_there(t) ? n : -1;
}
