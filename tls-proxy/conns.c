/* SPDX-License-Identifier: GPL-3.0-or-later */
/* conns: all sessions of a worker, found by what is asked for: by id (the agent's answers), by trust slot (the journal), by
 * when they are due (a timer wheel). Nothing here walks them all but what concerns them all. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/worker.h"

#define ENDED_MS 5000 /* for so long the agent may ask for what ended by itself */

static struct conn_list *id_bucket(struct worker *w, uint64_t id)
{
	return &w->by_id[id % CONN_BUCKETS];
}

static struct conn_list *slot_bucket(struct worker *w, uint32_t slot)
{
	return &w->by_slot[slot % CONN_BUCKETS];
}

void conns_init(struct worker *w)
{
	LIST_INIT(&w->conns);
	LIST_INIT(&w->dead);
	TAILQ_INIT(&w->shaking);
}

void conns_add(struct conn *c)
{
	c->id = ++c->w->next_id;
	LIST_INSERT_HEAD(&c->w->conns, c, next);
	LIST_INSERT_HEAD(id_bucket(c->w, c->id), c, by_id);
}

static void wheel_leave(struct conn *c)
{
	if (c->wake_ms != 0)
		LIST_REMOVE(c, due);
	c->wake_ms = 0;
}

static void again_leave(struct conn *c)
{
	if (!c->is_again)
		return;
	LIST_REMOVE(c, again);
	c->is_again = false;
}

void conn_again(struct conn *c)
{
	if (c->is_again || c->ended)
		return;
	LIST_INSERT_HEAD(&c->w->again, c, again);
	c->is_again = true;
}

void conns_again(struct worker *w)
{
	struct conn_list now = w->again;
	struct conn *c;

	if (LIST_EMPTY(&now))
		return;
	/* Whoever is put off anew meanwhile waits for the next turn. */
	LIST_FIRST(&now)->again.le_prev = &LIST_FIRST(&now);
	LIST_INIT(&w->again);
	while ((c = LIST_FIRST(&now)) != NULL) {
		again_leave(c);
		conn_work(c);
		conns_follow(w);
	}
}

void conns_remove(struct conn *c)
{
	wheel_leave(c);
	handshake_leave(c);
	again_leave(c);
	conn_slot_set(c, 0);
	LIST_REMOVE(c, by_id);
	LIST_REMOVE(c, next);
	LIST_INSERT_HEAD(&c->w->dead, c, next);
}

void conn_number_set(struct conn *c)
{
	LIST_REMOVE(c, by_id);
	c->id = ++c->w->next_id;
	LIST_INSERT_HEAD(id_bucket(c->w, c->id), c, by_id);
}

void conn_slot_set(struct conn *c, uint32_t slot)
{
	if (c->slot == slot)
		return;
	if (c->slot != 0)
		LIST_REMOVE(c, by_slot);
	c->slot = slot;
	if (slot != 0)
		LIST_INSERT_HEAD(slot_bucket(c->w, slot), c, by_slot);
}

struct conn *conn_by_id(struct worker *w, uint64_t id)
{
	struct conn *c;

	LIST_FOREACH(c, id_bucket(w, id), by_id) {
		if (c->id == id)
			return c;
	}
	return NULL;
}

/* A time falls into the tick behind it, so that whoever is met there is due. What lies further ahead than the wheel
 * reaches waits in its last tick, and is put back from there. */
void conn_wake_at(struct conn *c, uint64_t due_ms)
{
	struct worker *w = c->w;
	uint64_t most_ms = (w->wheel_at + WHEEL_TICKS - 2) * WHEEL_TICK_MS;
	uint64_t at;

	if (c->ended)
		return;
	if (due_ms > most_ms)
		due_ms = most_ms;
	/* Later than it is due already: that comes first, and asks again. */
	if (c->wake_ms != 0 && c->wake_ms <= due_ms)
		return;
	wheel_leave(c);
	c->wake_ms = due_ms > 0 ? due_ms : 1;
	at = c->wake_ms / WHEEL_TICK_MS + 1;
	if (at <= w->wheel_at)
		at = w->wheel_at + 1;
	LIST_INSERT_HEAD(&w->wheel[at % WHEEL_TICKS], c, due);
}

static void wheel_tick(struct worker *w, uint64_t now_ms)
{
	struct conn_list *bucket = &w->wheel[w->wheel_at % WHEEL_TICKS];
	struct conn *c;

	/* Each leaves before it acts, and comes back further ahead: acting may end others, here too. */
	while ((c = LIST_FIRST(bucket)) != NULL) {
		wheel_leave(c);
		conn_due(c, now_ms);
	}
}

void conns_tick(struct worker *w, uint64_t now_ms)
{
	uint64_t now = now_ms / WHEEL_TICK_MS;

	/* A sleep longer than the wheel: once round meets everybody. */
	if (now > w->wheel_at + WHEEL_TICKS)
		w->wheel_at = now - WHEEL_TICKS;
	while (w->wheel_at < now) {
		w->wheel_at++;
		wheel_tick(w, now_ms);
	}
}

static void recheck_one(struct conn *c, uint64_t now_ms)
{
	if (c->state == CONN_CLOSING)
		return;
	if (!conn_current(c, now_ms))
		conn_revoked(c);
	else
		conn_wake(c); /* it may have to end sooner than it was said before */
}

void conns_recheck(struct worker *w, uint32_t slot, uint64_t now_ms)
{
	struct conn *c, *next;

	for (c = LIST_FIRST(slot_bucket(w, slot)); slot != 0 && c != NULL; c = next) {
		next = LIST_NEXT(c, by_slot);
		if (c->slot == slot)
			recheck_one(c, now_ms);
	}
	for (c = LIST_FIRST(&w->conns); slot == 0 && c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (c->slot != 0)
			recheck_one(c, now_ms);
	}
}

/* The agent also asks (RECHECK); this needs no agent. */
static void follow_to(struct worker *w, uint64_t head)
{
	uint64_t seen = w->journal_seen, now_ms = clock_boot_ms();

	w->journal_seen = head;
	if (head - seen <= TRUST_JOURNAL_ENTRIES) {
		for (uint64_t at = seen; at != head; at++)
			conns_recheck(
				w,
				atomic_load_explicit(&w->trust.journal[at % TRUST_JOURNAL_ENTRIES],
						     memory_order_relaxed),
				now_ms);
		atomic_thread_fence(memory_order_acquire);
		head = atomic_load_explicit(&w->trust.hdr->journal_head, memory_order_relaxed);
	}
	/* The ring went round while it was read, or before: what it said is lost. The writer fills an entry before it
	 * moves the head, so the oldest may be another one already. */
	if (head - seen >= TRUST_JOURNAL_ENTRIES)
		conns_recheck(w, 0, now_ms);
}

void conns_follow(struct worker *w)
{
	uint64_t head;

	if (w->trust.hdr == NULL)
		return;
	head = atomic_load_explicit(&w->trust.hdr->journal_head, memory_order_acquire);
	if (head != w->journal_seen)
		follow_to(w, head);
}

void conns_note_ended(struct worker *w, uint32_t slot)
{
	w->ended[w->ended_at++ % WORKER_ENDED] =
		(struct ended){.slot = slot, .at_ms = clock_boot_ms()};
}

uint32_t conns_ended(struct worker *w, uint32_t slot, uint64_t now_ms)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < WORKER_ENDED; i++) {
		struct ended *e = &w->ended[i];

		if (e->slot == 0 || (slot != 0 && e->slot != slot))
			continue;
		n += now_ms < e->at_ms + ENDED_MS;
		e->slot = 0;
	}
	return n;
}

uint32_t conns_reverify(struct listener *l)
{
	struct conn *c, *next;
	uint32_t n = 0;

	for (c = LIST_FIRST(&l->w->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (c->l == l && c->state != CONN_CLOSING)
			n += conn_reverify(c);
	}
	return n;
}
