/* SPDX-License-Identifier: GPL-3.0-or-later */
/* pcbs: lwIP's connections in hash buckets. lwIP keeps them in two lists and walks these for each segment and each tick;
 * here its globals point at the lists of one bucket while it works on a connection of that bucket, and are empty
 * otherwise. One set a process, as lwIP itself; one thread.
 *
 * What walks or changes lwIP's lists must happen between pcbs_enter() and pcbs_leave(): input, tcp_connect(), tcp_close(),
 * tcp_abort(), timers. tcp_write(), tcp_output(), tcp_recved() and tcp_shutdown() of the sending half do not. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tls-proxy/stack/lwip.h"

#define PCBS_TICK_MS 100 /* of tcp_ticks */

struct pcbs;

/** @return 0 or -ENOMEM. buckets: a power of two, at least 64 */
int pcbs_new(struct pcbs **out, uint32_t buckets, uint64_t now_us);
void pcbs_free(struct pcbs *t); /* whatever is left is aborted; NULL is a no-op */

uint32_t pcbs_bucket(const struct pcbs *t, const struct ip_addr *local, uint16_t local_port,
		     const struct ip_addr *remote, uint16_t remote_port);
uint32_t pcbs_bucket_of(const struct pcbs *t, const struct tcp_pcb *pcb);

void pcbs_enter(struct pcbs *t, uint32_t bucket);
/** changed: somebody in it may wait for something now, whoever. Else, after input, only the first of the list, where lwIP
 * puts whom a segment was for. */
void pcbs_leave(struct pcbs *t, bool changed);
/** Into the cache, for a pcbs_enter() that follows: the bucket; then step by step what it points at. The processor forgets
 * what it is asked for while two dozen lines are under way: one connection at a time, and the next while another one is
 * worked on, so many apart. */
enum { PCBS_FETCH_STEPS = 4, PCBS_FETCH_APART = 2 };
void pcbs_fetch(const struct pcbs *t, uint32_t bucket);
void pcbs_fetch_more(const struct pcbs *t, uint32_t bucket, uint16_t remote_port, int step);

/** After tcp_write(), tcp_recved() and the like, outside of a bucket: its timers may run now. */
void pcbs_touched(struct pcbs *t, uint32_t bucket, struct tcp_pcb *pcb);

/** The first connection of the bucket with these ports; not between pcbs_enter() and pcbs_leave(). NULL: none */
struct tcp_pcb *pcbs_with(const struct pcbs *t, uint32_t bucket, uint16_t local_port,
			  uint16_t remote_port);

/** Is the connection there, in whatever state? */
bool pcbs_has(const struct pcbs *t, const struct ip_addr *local, uint16_t local_port,
	      const struct ip_addr *remote, uint16_t remote_port);

/** The part of the timers' round that is due. Walks only buckets in which somebody waits for something. */
void pcbs_timers(struct pcbs *t, uint64_t now_us);
/** @return microseconds until pcbs_timers() may have something to do; UINT64_MAX: nobody waits */
uint64_t pcbs_wait_us(const struct pcbs *t, uint64_t now_us);

/** No accepted connection names this listener any more. */
void pcbs_forget(struct pcbs *t, const struct tcp_pcb_listen *l);

/** Every connection is in the bucket of its addresses, in the list of its state, once. Visits them all. @return how many;
 * -1: not so */
int64_t pcbs_check(const struct pcbs *t);
