/* SPDX-License-Identifier: GPL-3.0-or-later */
/* handshakes: those who have something to say in a handshake wait here for their turn. A step of one costs as much
 * processor time as ten messages of an open session, and anybody may ask for it: open sessions come first, and a flood of
 * strangers takes what they leave. */
#include "config/base/clock_near.h"
#include "tls-proxy/worker.h"

#define TURN_US 250 /* of a turn; then frames, streams and the agent come first again */
#define SHARE                                                                                      \
	4 /* a worker that is behind gives handshakes a quarter of its time, lest nobody gets in */

static void leave(struct conn *c)
{
	TAILQ_REMOVE(&c->w->shaking, c, turn);
	c->shaking = false;
}

void handshake_wait(struct conn *c)
{
	if (c->shaking)
		return;
	c->shaking = true;
	TAILQ_INSERT_TAIL(&c->w->shaking, c, turn);
	stream_want(&c->dev, 0);
}

void handshake_leave(struct conn *c)
{
	if (c->shaking)
		leave(c);
}

void handshakes_turn(struct worker *w, uint64_t now_us)
{
	uint64_t begun_us = now_us;
	struct conn *c;

	if (TAILQ_EMPTY(&w->shaking) || (w->behind && now_us < w->shake_after_us))
		return;
	while ((c = TAILQ_FIRST(&w->shaking)) != NULL && now_us < begun_us + TURN_US) {
		leave(c);
		conn_work(c);
		/* A revocation waits for one of them at most. */
		conns_follow(w);
		now_us = clock_near_us();
	}
	w->shake_after_us = now_us + (now_us - begun_us) * (SHARE - 1);
}
