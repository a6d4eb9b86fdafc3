/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a worker does with its flow table between bursts: the control thread's questions, and ageing. Each step is
 * bounded, so that no packet waits long behind a table of a million flows. */
#include <netinet/in.h>
#include <string.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_prefetch.h>

#include "dataplane/admission.h"
#include "dataplane/lane.h"
#include "dataplane/tcp.h"
#include "dataplane/worker.h"

#define STEP_TOP 1024
#define SWEEP_LOOK 256 /* blocks passed by between two looks at the clock */
#define AGE_ROUND_MS 1000 /* once round the table */
#define AGE_STEP_MAX 1024
#define DIED_MS 5000u /* for so long the sweep that follows a revocation finds what it closed */

static void bindings_of(const struct worker *w, const struct flow *f, const struct binding *bind[2])
{
	bind[0] = bindings_find(w->st->bindings, &f->id.src);
	bind[1] = bindings_find(w->st->bindings, &f->id.dst);
}

static bool is_of_slot(const struct flow *f, uint32_t slot)
{
	return slot == 0 || f->end[0].slot == slot || f->end[1].slot == slot;
}

static bool is_swept_end(const struct sweep_slots *s, uint32_t slot)
{
	if (!(s->some >> (slot % 64) & 1))
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		if (s->slot[i] == slot)
			return true;
	}
	return false;
}

static bool is_swept(const struct flow *f, const struct sweep_slots *s)
{
	return s->n == 0 || is_swept_end(s, f->end[0].slot) || is_swept_end(s, f->end[1].slot);
}

/* When a packet last passed, rounded up to the end of its tick; 0: never. */
static uint64_t last_pass_us(const struct worker *w, const struct flow *f)
{
	uint64_t ago = (uint64_t)(uint32_t)(w->tick - f->seen) << FLOW_TICK_SHIFT;
	uint64_t now = (w->now_us | ((1u << FLOW_TICK_SHIFT) - 1));

	return f->packets > 0 ? RTE_MIN(now - ago, w->now_us) : 0;
}

static void forget(struct worker *w, struct flow *f)
{
	limit_flow_ended(w, f);
	account_close(w, f);
	flow_remove(w->flows, f);
}

static void close_flow(struct worker *w, struct flow *f, struct command *c)
{
	uint64_t last_us = last_pass_us(w, f);

	c->count++;
	if (last_us > c->last_forward_us)
		c->last_forward_us = last_us;
	forget(w, f);
}

/* A flow that a new judgement admits is kept, and loses no packet; one that died at a packet since is counted. */
static void sweep_flow(struct worker *w, struct flow *f, struct command *c)
{
	const struct binding *bind[2];
	struct admission a;
	bool moves;

	if (!flow_is_swept(f) || !is_swept(f, &c->sweep))
		return;
	if (f->state == FLOW_REFUSED) { /* it has died */
		close_flow(w, f, c);
		return;
	}
	if (lane_current(w, f))
		return;
	bindings_of(w, f, bind);
	if (admission_current(w, f, bind))
		return;
	if (admission_of_flow(w, f, bind, &a) != DROP_NONE) {
		close_flow(w, f, c);
		return;
	}
	moves = account_moves(w, f, &a);
	if (moves)
		account_leave(w, f);
	limit_flow_ended(w, f);
	admission_note(f, &a);
	f->epoch = w->epoch;
	limit_flow_started(w, f);
	if (moves)
		account_open(w, f);
}

/* Where the opener's frames come from, or would come from now. */
static void origin_of(const struct worker *w, const struct flow *f, const struct binding *b,
		      uint16_t *port, uint16_t *vlan)
{
	const struct nexthop *nh;

	*port = MSG_PORT_KERNEL;
	*vlan = 0;
	if (f->state == FLOW_DIVERTED) {
		*port = f->origin_port;
		*vlan = f->origin_vlan;
		return;
	}
	if (b != NULL) {
		*port = b->port;
		*vlan = b->vlan;
		return;
	}
	nh = w->fib != NULL ? fib_lookup(w->fib, f->opener ? &f->id.dst : &f->id.src) : NULL;
	if (nh != NULL) {
		*port = nh->port;
		*vlan = nh->vlan;
	}
}

/* A flow keeps the low half of its policy's epoch, which is the present one or an earlier. */
static uint64_t epoch_of(const struct worker *w, const struct flow *f)
{
	uint64_t now = w->policy != NULL ? w->policy->epoch : 0;

	return now - (uint32_t)((uint32_t)now - f->epoch);
}

static bool is_listed(const struct worker *w, const struct flow *f, const struct command *c)
{
	const struct flow_filter *want = &c->filter;

	if (!is_of_slot(f, c->slot))
		return false;
	if (want->segment != 0 && f->end[0].segment != want->segment &&
	    f->end[1].segment != want->segment)
		return false;
	if (want->rule != MSG_ANY &&
	    (f->state == FLOW_DIVERTED || f->rule != want->rule || f->epoch != w->epoch))
		return false;
	return want->state == UINT8_MAX || f->state == want->state;
}

static void describe_flow(const struct worker *w, const struct flow *f, struct msg_flow_info *i)
{
	const struct binding *bind[2];

	bindings_of(w, f, bind);
	memset(i, 0, sizeof(*i));
	MSG_INIT(i, MSG_FLOW_INFO, 0);
	i->key = flow_opener_key(f);
	i->slot_src = f->end[f->opener].slot;
	i->slot_dst = f->end[!f->opener].slot;
	i->segment_src = f->end[f->opener].segment;
	i->segment_dst = f->end[!f->opener].segment;
	origin_of(w, f, bind[f->opener], &i->port_in, &i->vlan_in);
	i->rule = f->state != FLOW_DIVERTED ? f->rule : FLOW_RULE_NONE;
	i->state = f->state;
	i->current = f->state != FLOW_REFUSED &&
		     (f->state == FLOW_DIVERTED || admission_current(w, f, bind));
	i->epoch = f->state != FLOW_DIVERTED ? epoch_of(w, f) : 0;
	i->packets = f->packets;
	i->bytes = f->bytes;
	i->idle_ms = flow_ticks_ms(w->tick, f->seen);
}

static uint64_t weight(const struct msg_flow_info *i, uint8_t order)
{
	return order == FLOWS_BY_BYTES ? i->bytes : i->packets;
}

/* Put list[at] where it belongs in the heap below: the smallest at the top, where the next larger one replaces it. */
static void heap_down(struct msg_flow_info *list, uint32_t n, uint32_t at, uint8_t order)
{
	for (;;) {
		uint32_t least = at;
		struct msg_flow_info swap;

		for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++) {
			if (weight(&list[child], order) < weight(&list[least], order))
				least = child;
		}
		if (least == at)
			return;
		swap = list[at];
		list[at] = list[least];
		list[least] = swap;
		at = least;
	}
}

static void keep_largest(const struct worker *w, const struct flow *f, struct command *c)
{
	uint8_t order = c->filter.order;

	if (c->count < c->room) {
		describe_flow(w, f, &c->list[c->count++]);
		for (uint32_t i = c->count / 2; c->count == c->room && i-- > 0;)
			heap_down(c->list, c->count, i, order);
	} else if (c->room > 0 &&
		   (order == FLOWS_BY_BYTES ? f->bytes : f->packets) > weight(&c->list[0], order)) {
		describe_flow(w, f, &c->list[0]);
		heap_down(c->list, c->count, 0, order);
	}
}

/* All flows have to be seen before one is known to be among the largest. */
static bool top_step(struct worker *w, struct command *c)
{
	uint32_t step = RTE_MIN(w->step_flows, (uint32_t)STEP_TOP);
	uint32_t end = RTE_MIN(c->cursor + step, w->flows->high + 1);

	for (; c->cursor < end; c->cursor++) {
		const struct flow *f = &w->flows->flows[c->cursor];

		if (f->used && is_listed(w, f, c))
			keep_largest(w, f, c);
	}
	if (end <= w->flows->high)
		return false;
	c->cursor = 0;
	return true;
}

static bool find_origin(const struct worker *w, struct command *c)
{
	const struct flow *f = flow_find(w->flows, &c->id, flow_hash(w->st->seed, &c->id));

	if (f == NULL || f->state != FLOW_DIVERTED)
		return true;
	c->count = 1;
	c->origin = (struct flow_origin){
		.mac = f->origin_mac, .vlan = f->origin_vlan, .port = f->origin_port};
	return true;
}

static bool list_step(struct worker *w, struct command *c)
{
	uint32_t end = RTE_MIN(c->cursor + w->step_flows, w->flows->high + 1);
	uint32_t i;

	for (i = RTE_MAX(c->cursor, 1u); i < end && c->count < c->room; i++) {
		if (w->flows->flows[i].used && is_listed(w, &w->flows->flows[i], c))
			describe_flow(w, &w->flows->flows[i], &c->list[c->count++]);
	}
	c->cursor = i <= w->flows->high ? i : 0;
	return c->cursor == 0 || c->count == c->room;
}

/* All of a block's flows are asked for at once. */
static void sweep_block(struct worker *w, uint32_t block, struct command *c)
{
	uint32_t first = RTE_MAX(block * FLOW_BLOCK, 1u);
	uint32_t end = RTE_MIN((block + 1) * FLOW_BLOCK, w->flows->max + 1);

	for (uint32_t i = first; i < end; i++)
		flow_prefetch(&w->flows->flows[i]);
	for (uint32_t i = first; i < end; i++)
		sweep_flow(w, &w->flows->flows[i], c);
	flow_block_marks(w->flows, block);
}

/* A worker has few cycles to spare, and flows differ: one that is current takes ten, one to be judged a thousand. Blocks of
 * nobody who is swept are passed by. */
static bool sweep_step(struct worker *w, struct command *c)
{
	uint64_t until = rte_rdtsc() + w->sweep_cycles,
		 some = c->sweep.n != 0 ? c->sweep.some : ~0ull;

	while (c->cursor < flow_blocks(w->flows)) {
		uint32_t block = c->cursor++;
		bool swept = (w->flows->marks[block] & some) != 0;

		if (swept)
			sweep_block(w, block, c);
		if ((swept || c->cursor % SWEEP_LOOK == 0) && rte_rdtsc() >= until)
			return false;
	}
	return true;
}

static bool forget_step(struct worker *w, struct command *c)
{
	uint32_t end = c->cursor + w->step_flows;

	for (; c->cursor < end && c->cursor <= w->flows->high; c->cursor++) {
		if (w->flows->flows[c->cursor].used)
			forget(w, &w->flows->flows[c->cursor]);
	}
	return c->cursor > w->flows->high;
}

bool worker_command_step(struct worker *w, struct command *c)
{
	if (c->kind == COMMAND_NOTHING)
		return true;
	if (c->kind == COMMAND_ORIGIN)
		return find_origin(w, c);
	if (c->kind == COMMAND_LIST)
		return c->filter.order != FLOWS_AS_THEY_LIE ? top_step(w, c) : list_step(w, c);
	if (c->kind == COMMAND_TALLY)
		return account_query_step(w, &c->tally, &c->tally_at);
	return c->kind == COMMAND_SWEEP ? sweep_step(w, c) : forget_step(w, c);
}

/* Closed in one direction alone, a connection may go on in the other for as long as an open one. */
static uint32_t tcp_limit_s(const struct msg_dp_config *cfg, uint8_t tcp)
{
	switch (tcp) {
	case TCP_ESTAB:
	case TCP_FIN_OPENER:
	case TCP_FIN_REPLIER:
		return cfg->tcp_established_s;
	case TCP_LAST:
	case TCP_RESET:
		return cfg->tcp_closing_s;
	}
	return cfg->tcp_opening_s;
}

static uint64_t idle_limit_ms(const struct msg_dp_config *cfg, const struct flow *f)
{
	if (f->state == FLOW_REFUSED)
		return f->died ? RTE_MAX(cfg->refused_ms, DIED_MS) : cfg->refused_ms;
	switch (f->id.proto) {
	case IPPROTO_TCP:
		return 1000ull * tcp_limit_s(cfg, f->tcp);
	case IPPROTO_UDP:
		/* a stranger's record at a listener: stage_divert.c */
		if (f->state == FLOW_OPENING ||
		    (f->state == FLOW_DIVERTED && f->tcp == TCP_SYN_SENT))
			return 1000ull * cfg->udp_unanswered_s;
		return 1000ull * cfg->udp_s;
	}
	return 1000ull * cfg->icmp_s;
}

static uint64_t idle_ms(const struct worker *w, const struct flow *f)
{
	return flow_ticks_ms(w->tick, f->state == FLOW_REFUSED ? f->refused_at : f->seen);
}

bool worker_age(struct worker *w)
{
	uint64_t ms = w->now_ms - w->aged_ms;
	uint32_t n;

	w->aged_ms = w->now_ms;
	if (ms > 0)
		flow_log_tick(w);
	/* What was not looked at in time, because the worker slept or was busy, is still due; once round is enough. */
	w->age_due = RTE_MIN(w->age_due + ms * (w->flows->high / AGE_ROUND_MS + 1),
			     (uint64_t)w->flows->high);
	if (flow_count(w->flows) == 0)
		w->age_due = 0;
	n = RTE_MIN(w->age_due, (uint64_t)AGE_STEP_MAX);
	w->age_due -= n;
	while (n-- > 0 && w->flows->high > 0) {
		struct flow *f;

		w->age_at = w->age_at < w->flows->high ? w->age_at + 1 : 1;
		f = &w->flows->flows[w->age_at];
		if (f->used && idle_ms(w, f) > idle_limit_ms(&w->st->cfg, f))
			forget(w, f);
	}
	return w->age_due > 0;
}
