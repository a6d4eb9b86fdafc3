/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/flow_log.h"

#include <string.h>

#include <rte_ring_elem.h>

#include "dataplane/admission.h"
#include "dataplane/worker.h"

static bool log_send(struct worker *w, const struct flow_key *key, const struct admission *a,
		     enum drop_reason why)
{
	struct msg_flow_log msg;

	memset(&msg, 0, sizeof(msg));
	MSG_INIT(&msg, MSG_FLOW_LOG, 0);
	msg.key = *key;
	msg.slot_src = a->slot[0];
	msg.slot_dst = a->slot[1];
	msg.rule = a->rule;
	msg.reason = why;
	msg.epoch = w->policy != NULL ? w->policy->epoch : 0;
	return rte_ring_sp_enqueue_elem(w->log, &msg, sizeof(msg)) == 0;
}

static void leave(struct worker *w, enum drop_reason why)
{
	w->flow_log.left[why]++;
	w->flow_log.any_left = true;
}

/* What finds no room in the ring is said later. */
static void say_left(struct worker *w)
{
	struct flow_log *l = &w->flow_log;

	l->any_left = false;
	for (unsigned i = 0; i < DROP_REASON_COUNT; i++) {
		struct msg_flow_log msg;

		if (l->left[i] == 0)
			continue;
		memset(&msg, 0, sizeof(msg));
		MSG_INIT(&msg, MSG_FLOW_LOG, 0);
		msg.rule = FLOW_RULE_NONE;
		msg.reason = i;
		msg.more = l->left[i];
		if (rte_ring_sp_enqueue_elem(w->log, &msg, sizeof(msg)) == 0)
			l->left[i] = 0;
		else
			l->any_left = true;
	}
}

void flow_log_tick(struct worker *w)
{
	struct flow_log *l = &w->flow_log;
	uint64_t second = w->now_ms / 1000;

	if (l->second == second)
		return;
	if (l->any_left)
		say_left(w);
	l->second = second;
	l->starts = l->refusals = l->limited = 0;
}

void flow_log_note(struct worker *w, const struct flow_key *key, const struct admission *a,
		   enum drop_reason why)
{
	struct flow_log *l = &w->flow_log;
	bool room;

	if (why == DROP_NONE && !a->log)
		return;
	flow_log_tick(w);
	room = why == DROP_NONE ? l->starts++ < FLOW_LOG_STARTS_PER_S
				: l->refusals++ < FLOW_LOG_REFUSALS_PER_S;
	if (!room || !log_send(w, key, a, why))
		leave(w, why);
}

bool flow_log_wants(struct worker *w, enum drop_reason why)
{
	struct flow_log *l = &w->flow_log;

	flow_log_tick(w);
	if (l->limited >> why & 1) {
		leave(w, why);
		return false;
	}
	l->limited |= 1ull << why;
	return true;
}

void flow_log_send(struct worker *w, const struct flow_key *key, const struct admission *a,
		   enum drop_reason why)
{
	if (!log_send(w, key, a, why))
		leave(w, why);
}

void flow_log_limited(struct worker *w, const struct flow_key *key, const struct admission *a,
		      enum drop_reason why)
{
	if (flow_log_wants(w, why))
		flow_log_send(w, key, a, why);
}
