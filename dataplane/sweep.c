/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/sweep.h"

#include <errno.h>
#include <string.h>

int sweep_order(struct sweeper *s, const struct msg_sweep *m)
{
	if (m->n_slots > MSG_SWEEP_SLOTS)
		return -EPROTO;
	if (s->n_next == SWEEP_ORDERS_MAX)
		return -EAGAIN;
	s->next[s->n_next++] = *m;
	return 0;
}

static void want_all(struct sweep_slots *w)
{
	w->n = 0;
}

/* @return false: that many are all */
static bool want_slot(struct sweep_slots *w, uint32_t slot)
{
	if (w->n == MSG_SWEEP_SLOTS)
		return false;
	w->slot[w->n++] = slot;
	w->some |= 1ull << (slot % 64);
	return true;
}

static void what_is_wanted(const struct sweeper *s, struct sweep_slots *w)
{
	memset(w, 0, sizeof(*w));
	for (uint32_t i = 0; i < s->n_now; i++) {
		bool fits = s->now[i].n_slots > 0;

		for (uint32_t k = 0; fits && k < s->now[i].n_slots; k++)
			fits = want_slot(w, s->now[i].slot[k]);
		if (!fits) {
			want_all(w);
			return;
		}
	}
}

static void begin(struct sweeper *s, struct state *st)
{
	struct sweep_slots wanted;

	memcpy(s->now, s->next, s->n_next * sizeof(s->next[0]));
	s->n_now = s->n_next;
	s->n_next = 0;
	what_is_wanted(s, &wanted);
	for (unsigned i = 0; i < st->n_workers; i++) {
		s->command[i] = (struct command){.kind = COMMAND_SWEEP, .sweep = wanted};
		s->done[i] = false;
		worker_post(st->workers[i], &s->command[i]);
	}
	s->running = true;
}

static bool collect(struct sweeper *s, const struct state *st)
{
	bool all = true;

	for (unsigned i = 0; i < st->n_workers; i++) {
		if (!s->done[i] && sem_trywait(&s->command[i].done) == 0) {
			sem_destroy(&s->command[i].done);
			s->done[i] = true;
		}
		all &= s->done[i];
	}
	return all;
}

static int reply_all(struct sweeper *s, const struct state *st,
		     int (*reply)(void *arg, struct msg_sweep *m), void *arg)
{
	uint64_t last_us = 0;
	uint32_t closed = 0;
	int ret = 0;

	for (unsigned i = 0; i < st->n_workers; i++) {
		closed += s->command[i].count;
		if (s->command[i].last_forward_us > last_us)
			last_us = s->command[i].last_forward_us;
	}
	for (uint32_t i = 0; i < s->n_now && ret == 0; i++) {
		s->now[i].closed = i == 0 ? closed : 0; /* each flow is told of once */
		s->now[i].last_forward_us = last_us;
		ret = reply(arg, &s->now[i]);
	}
	s->n_now = 0;
	return ret;
}

int sweep_step(struct sweeper *s, struct state *st, int (*reply)(void *arg, struct msg_sweep *m),
	       void *arg)
{
	if (s->running) {
		if (!collect(s, st))
			return 0;
		s->running = false;
		return reply_all(s, st, reply, arg);
	}
	if (s->n_next > 0)
		begin(s, st);
	return 0;
}

void sweep_drop(struct sweeper *s, struct state *st)
{
	for (unsigned i = 0; s->running && i < st->n_workers; i++) {
		while (!s->done[i] && sem_wait(&s->command[i].done) < 0 && errno == EINTR)
			;
		if (!s->done[i])
			sem_destroy(&s->command[i].done);
		s->done[i] = true;
	}
	s->running = false;
	s->n_now = s->n_next = 0;
}
