/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_prefetch.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

#include "dataplane/admission.h"
#include "dataplane/path.h"

#define DEVICE_SHARE 8 /* by default a device has at most 1/DEVICE_SHARE of the flow table */

/* ---- token buckets ---- */

static uint32_t share(uint32_t whole, uint16_t n_workers)
{
	return whole / n_workers > 0 ? whole / n_workers : 1;
}

struct bucket_rate bucket_rate_of(uint32_t per_s, uint32_t burst, uint16_t n_workers)
{
	struct bucket_rate r = {0};

	if (per_s == 0)
		return r;
	r.interval_ns = ((uint64_t)NS_PER_S * n_workers + per_s - 1) / per_s;
	r.tolerance_ns = r.interval_ns * (share(burst, n_workers) - 1);
	return r;
}

/* ---- the table of a policy ---- */

/* What one rule counts with. Goes from a policy's table to the next while the rule stays as it is; the control thread
 * alone counts its holders. */
struct rule_state {
	uint32_t holders;
	struct limit_shared shared; /* with several workers */
	struct limit_meter *meter; /* one a worker */
};

struct limit_rule {
	struct limit_profile profile;
	struct rule_state *state;
	const struct policy_rule *rule; /* in `form` */
};

struct limit_table {
	const struct policy_form *form; /* borrowed: lives as long as the table */
	_Atomic(const struct limit_table *) before; /* while policies change over */
	uint16_t *rule_at; /* of a rule's index: into rules, 0 = not limited */
	struct limit_rule *rules; /* [0] is never used */
	uint32_t n_rules;
	struct limit_profile *segments; /* [0]: what gateway.cfg says */
	uint16_t segment_at[POLICY_ID_MAX + 1]; /* of an endpoint id: into segments */
	struct limit_profile networks;
};

static int profile_set(struct limit_profile *p, const struct policy_limits *l, uint16_t n_workers)
{
	struct rte_meter_srtcm_params params = {.cir = l->bytes_per_s / n_workers,
						.cbs = l->burst_bytes / n_workers};

	p->packets = bucket_rate_of(l->packets_per_s, l->burst_packets, n_workers);
	p->shared_bytes = shared_rate_of(l->bytes_per_s, l->burst_bytes);
	p->shared_packets = shared_rate_of(l->packets_per_s, l->burst_packets);
	p->metered = l->bytes_per_s != 0 || l->packets_per_s != 0;
	p->has_bytes = l->bytes_per_s != 0;
	if (!p->has_bytes)
		return 0;
	if (params.cir == 0)
		params.cir = 1;
	if (params.cbs < POLICY_BURST_BYTES_MIN)
		params.cbs = POLICY_BURST_BYTES_MIN;
	return rte_meter_srtcm_profile_config(&p->bytes, &params) == 0 ? 0 : -EINVAL;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t flows_share(uint32_t flows, uint16_t n_workers)
{
	return flows / n_workers + (flows % n_workers != 0);
}

/* flows_max is a worker's already. */
static void profile_defaults(struct limit_profile *p, const struct msg_limits *cfg,
			     uint32_t flows_max, uint16_t n_workers)
{
	p->opens = bucket_rate_of(cfg->device_new_flows, cfg->device_new_flows_burst, n_workers);
	if (cfg->device_flows != 0)
		p->flows = least(flows_share(cfg->device_flows, n_workers),
				 flows_max / DEVICE_SHARE + 1);
}

static void rule_state_drop(struct rule_state *s)
{
	if (s == NULL || --s->holders > 0)
		return;
	rte_free(s->meter);
	free(s);
}

static bool same_rule(const struct policy_rule *a, const struct policy_rule *b)
{
	return strcmp(a->name, b->name) == 0 &&
	       memcmp(&a->limits, &b->limits, sizeof(a->limits)) == 0;
}

/* The state of the same rule in `prev`, or a new one. Policies mostly keep their order: *hint is where to look first. */
static struct rule_state *rule_state_of(const struct policy_rule *rule,
					const struct limit_table *prev, uint32_t *hint,
					uint16_t n_workers)
{
	uint32_t n = prev != NULL ? prev->n_rules - 1 : 0; /* [0] is none */
	struct rule_state *s;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = 1 + (*hint + i) % n;

		if (same_rule(prev->rules[at].rule, rule)) {
			*hint = at; /* the one after it */
			prev->rules[at].state->holders++;
			return prev->rules[at].state;
		}
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->holders = 1;
	/* A zeroed meter was last used when the box started: its bucket is full. */
	s->meter = rte_zmalloc("limit_meter", n_workers * sizeof(*s->meter), 64);
	if (s->meter == NULL) {
		free(s);
		return NULL;
	}
	return s;
}

static bool has_rate(const struct policy_limits *l)
{
	return l->bytes_per_s != 0 || l->packets_per_s != 0;
}

static int rules_build(struct limit_table *t, const struct limit_table *prev, uint16_t n_workers)
{
	const struct policy_rule *rule = policy_rules(t->form);
	uint32_t n = 1, hint = 0;

	for (uint32_t i = 0; i < t->form->n_rules; i++)
		n += has_rate(&rule[i].limits);
	t->rule_at = calloc(t->form->n_rules + 1, sizeof(*t->rule_at));
	t->rules = calloc(n, sizeof(*t->rules));
	if (t->rule_at == NULL || t->rules == NULL || n > UINT16_MAX)
		return -ENOMEM;
	t->n_rules = 1;
	for (uint32_t i = 0; i < t->form->n_rules; i++) {
		struct limit_rule *r = &t->rules[t->n_rules];

		if (!has_rate(&rule[i].limits))
			continue;
		if (profile_set(&r->profile, &rule[i].limits, n_workers) < 0)
			return -EINVAL;
		r->rule = &rule[i];
		r->state = rule_state_of(&rule[i], prev, &hint, n_workers);
		if (r->state == NULL)
			return -ENOMEM;
		t->rule_at[i] = (uint16_t)t->n_rules++;
	}
	return 0;
}

static int segments_build(struct limit_table *t, const struct msg_limits *cfg, uint32_t flows_max,
			  uint16_t n_workers)
{
	const struct policy_endpoint *ep = policy_endpoints(t->form);
	uint16_t n = 1;

	/* The form check has seen to it that an id is there once, so that n fits. */
	t->segments = calloc(t->form->n_endpoints + 1, sizeof(*t->segments));
	if (t->segments == NULL)
		return -ENOMEM;
	profile_defaults(&t->segments[0], cfg, flows_max, n_workers);
	for (uint32_t i = 0; i < t->form->n_endpoints; i++) {
		const struct policy_limits *l = &ep[i].limits;
		struct limit_profile *p = &t->segments[n];

		if (!has_rate(l) && l->new_flows_per_s == 0 && l->flows == 0)
			continue;
		*p = t->segments[0];
		if (profile_set(p, l, n_workers) < 0)
			return -EINVAL;
		if (l->new_flows_per_s != 0)
			p->opens =
				bucket_rate_of(l->new_flows_per_s, l->burst_new_flows, n_workers);
		if (l->flows != 0)
			p->flows = flows_share(l->flows, n_workers);
		t->segment_at[ep[i].id] = n++;
	}
	return 0;
}

int limit_table_new(struct limit_table **out, const struct policy_form *form,
		    const struct msg_limits *cfg, uint32_t flows_max, uint16_t n_workers,
		    struct limit_table *prev, struct err *err)
{
	struct limit_table *t = calloc(1, sizeof(*t));
	int ret = -ENOMEM;

	if (t == NULL)
		return err_set(err, ret, "no memory for the policy's limits");
	t->form = form;
	t->networks.opens =
		bucket_rate_of(cfg->network_new_flows, cfg->network_new_flows, n_workers);
	if (cfg->network_flows_pct != 0)
		t->networks.flows = (uint32_t)((uint64_t)flows_max * cfg->network_flows_pct / 100);
	ret = segments_build(t, cfg, flows_max, n_workers);
	if (ret == 0)
		ret = rules_build(t, prev, n_workers);
	if (ret < 0) {
		limit_table_free(t);
		return err_set(err, ret,
			       ret == -ENOMEM ? "no memory for the policy's limits"
					      : "policy: a rate that no meter can hold");
	}
	atomic_store(&t->before, prev);
	*out = t;
	return 0;
}

void limit_table_free(struct limit_table *t)
{
	if (t == NULL)
		return;
	for (uint32_t i = 1; i < t->n_rules; i++)
		rule_state_drop(t->rules[i].state);
	free(t->rule_at);
	free(t->rules);
	free(t->segments);
	free(t);
}

const struct limit_table *limit_table_pick(const struct limit_table *newest, uint64_t epoch)
{
	if (newest != NULL && newest->form->epoch != epoch)
		newest = atomic_load_explicit(&newest->before, memory_order_acquire);
	return newest != NULL && newest->form->epoch == epoch ? newest : NULL;
}

void limit_table_settle(struct limit_table *t)
{
	atomic_store(&t->before, NULL);
}

/* ---- counts ---- */

struct device {
	struct rte_meter_srtcm bytes;
	uint64_t packets_full_ns, opens_full_ns, kernel_full_ns, tls_full_ns;
	uint32_t flows; /* the worker writes, any thread reads */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct device) == 64, "a device's counts are one cache line");

struct source {
	uint64_t packets_full_ns, flows_full_ns;
};

struct limits {
	struct device *devices;
	struct limit_shared *shared; /* of devices; NULL: this worker is alone */
	uint32_t slots;
	struct bucket_rate kernel, tls; /* of each device */
	struct bucket_rate each_packets, each_flows; /* of each stranger */
	struct bucket_rate all_packets, all_flows; /* of all strangers */
	struct source all, source[STRANGERS];
	uint64_t hz;
	uint64_t cycles_at_us, cycles; /* the time as rte_meter wants it, made once a burst */
};

/* So much at once as in a second, but never less than a handshake needs. */
static struct bucket_rate second_of(uint32_t per_s, uint16_t n_workers)
{
	return bucket_rate_of(per_s, per_s < 16 ? 16 : per_s, n_workers);
}

uint64_t limits_bytes(uint32_t slots)
{
	return sizeof(struct limits) + (uint64_t)slots * sizeof(struct device);
}

int limits_new(struct limits **out, const struct msg_limits *cfg, uint32_t slots,
	       uint16_t n_workers, int numa_node)
{
	struct limits *l = rte_zmalloc_socket("limits", sizeof(*l), 64, numa_node);

	if (l == NULL)
		return -ENOMEM;
	l->slots = slots;
	l->devices = rte_zmalloc_socket("limit_devices", (uint64_t)slots * sizeof(*l->devices), 64,
					numa_node);
	if (l->devices == NULL) {
		limits_free(l);
		return -ENOMEM;
	}
	l->kernel = second_of(cfg->device_kernel_packets, n_workers);
	l->tls = second_of(cfg->device_tls_packets, n_workers);
	l->each_packets = second_of(cfg->stranger_each_packets, n_workers);
	l->each_flows = second_of(cfg->stranger_each_new_flows, n_workers);
	l->all_packets = second_of(cfg->stranger_packets, n_workers);
	l->all_flows = second_of(cfg->stranger_new_flows, n_workers);
	l->hz = rte_get_tsc_hz();
	*out = l;
	return 0;
}

void limits_share(struct limits *l, struct limit_shared *shared)
{
	l->shared = shared;
}

void limits_free(struct limits *l)
{
	if (l == NULL)
		return;
	rte_free(l->devices);
	rte_free(l);
}

static uint64_t now_ns(const struct worker *w)
{
	return w->now_us * 1000;
}

static uint64_t now_cycles(const struct worker *w)
{
	struct limits *l = w->limits;

	if (l->cycles_at_us != w->now_us) {
		l->cycles_at_us = w->now_us;
		l->cycles = w->now_us / US_PER_S * l->hz + w->now_us % US_PER_S * l->hz / US_PER_S;
	}
	return l->cycles;
}

/* NULL: not a slot of the trust table that this process was started for; whoever asks refuses. */
static struct device *device_of(const struct worker *w, uint32_t slot)
{
	return slot < w->limits->slots ? &w->limits->devices[slot] : NULL;
}

static const struct limit_profile *profile_of(const struct limit_table *t, uint32_t slot,
					      uint16_t segment)
{
	if (slot == TRUST_SLOT_NONE)
		return &t->networks;
	return &t->segments[segment <= POLICY_ID_MAX ? t->segment_at[segment] : 0];
}

/* As the trust record has it now; without one the defaults hold, and the judgement that follows refuses. */
static uint16_t segment_of(const struct worker *w, uint32_t slot)
{
	if (w->trust == NULL || slot >= w->trust->slots)
		return 0;
	return __atomic_load_n(&w->trust->rec[slot].segment, __ATOMIC_RELAXED);
}

void limit_prefetch(const struct worker *w, uint32_t slot)
{
	rte_prefetch0(device_of(w, slot)); /* of no address: nothing */
}

enum drop_reason limit_open(struct worker *w, uint32_t slot)
{
	struct device *d = device_of(w, slot);

	if (d == NULL)
		return DROP_NEW_FLOW_RATE;
	if (w->limit_table == NULL) /* no policy: the judgement refuses */
		return DROP_NONE;
	return bucket_take(&d->opens_full_ns,
			   &profile_of(w->limit_table, slot, segment_of(w, slot))->opens, now_ns(w))
		       ? DROP_NONE
		       : DROP_NEW_FLOW_RATE;
}

enum drop_reason limit_room(struct worker *w, uint32_t slot, const struct flow *f)
{
	const struct device *d = device_of(w, slot);
	uint32_t max, has;

	if (d == NULL || (w->limit_table == NULL && w->policy != NULL))
		return DROP_FLOW_CAP;
	if (w->limit_table == NULL)
		return DROP_NONE;
	max = profile_of(w->limit_table, slot, segment_of(w, slot))->flows;
	has = d->flows;
	if (f != NULL && f->counted && f->end[f->opener].slot == slot)
		has--;
	return max == 0 || has < max ? DROP_NONE : DROP_FLOW_CAP;
}

static const struct limit_rule *rule_of(const struct limit_table *t, uint16_t rule)
{
	uint16_t at = rule < t->form->n_rules ? t->rule_at[rule] : 0;

	return at != 0 ? &t->rules[at] : NULL;
}

/* Also for a flow of which the table is not at hand: limit_packet() then refuses. */
static bool is_metered(const struct worker *w, const struct flow *f)
{
	const struct limit_table *t = w->limit_table;

	if (t == NULL || rule_of(t, f->rule) != NULL)
		return true;
	return profile_of(t, f->end[0].slot, f->end[0].segment)->metered ||
	       profile_of(t, f->end[1].slot, f->end[1].segment)->metered;
}

static void flows_add(struct device *d, int n)
{
	if (d != NULL)
		__atomic_store_n(&d->flows, d->flows + (uint32_t)n, __ATOMIC_RELAXED);
}

void limit_flow_started(struct worker *w, struct flow *f)
{
	f->metered = f->state != FLOW_DIVERTED && is_metered(w, f);
	if (f->counted)
		return;
	f->counted = 1;
	flows_add(device_of(w, f->end[f->opener].slot), 1);
}

void limit_flow_ended(struct worker *w, struct flow *f)
{
	if (!f->counted)
		return;
	f->counted = 0;
	flows_add(device_of(w, f->end[f->opener].slot), -1);
}

static bool meter_passes(const struct worker *w, const struct limit_profile *p,
			 struct rte_meter_srtcm *bytes, uint64_t *packets_full_ns,
			 uint16_t ip_bytes)
{
	if (!bucket_take(packets_full_ns, &p->packets, now_ns(w)))
		return false;
	return !p->has_bytes ||
	       rte_meter_srtcm_color_blind_check(bytes, (struct rte_meter_srtcm_profile *)&p->bytes,
						 now_cycles(w), ip_bytes) == RTE_COLOR_GREEN;
}

static bool shared_passes(const struct worker *w, const struct limit_profile *p,
			  struct limit_shared *s, uint16_t ip_bytes)
{
	return shared_take(&s->packets_full, &p->shared_packets, w->now_us, 1) &&
	       shared_take(&s->bytes_full, &p->shared_bytes, w->now_us, ip_bytes);
}

static bool device_passes(const struct worker *w, uint32_t slot, const struct limit_profile *p,
			  uint16_t ip_bytes)
{
	struct device *d = &w->limits->devices[slot];

	return w->limits->shared != NULL
		       ? shared_passes(w, p, &w->limits->shared[slot], ip_bytes)
		       : meter_passes(w, p, &d->bytes, &d->packets_full_ns, ip_bytes);
}

static bool rule_passes(const struct worker *w, const struct limit_rule *r, uint16_t ip_bytes)
{
	struct limit_meter *m = &r->state->meter[w->index];

	return w->limits->shared != NULL
		       ? shared_passes(w, &r->profile, &r->state->shared, ip_bytes)
		       : meter_passes(w, &r->profile, &m->bytes, &m->packets_full_ns, ip_bytes);
}

/* So that the statistics name who sends too much. */
static enum drop_reason refuse(struct worker *w, uint32_t slot, enum drop_reason why,
			       const struct pkt *p)
{
	struct admission a = {.slot = {slot}, .rule = FLOW_RULE_NONE};

	account_refused(w, &a, why, p->ip_bytes);
	return why;
}

static enum drop_reason refuse_of_flow(struct worker *w, const struct flow *f, const struct pkt *p,
				       enum drop_reason why)
{
	struct admission a = {.slot = {f->end[f->opener].slot, f->end[!f->opener].slot},
			      .segment = {f->end[f->opener].segment, f->end[!f->opener].segment},
			      .rule = f->rule};

	account_refused(w, &a, why, p->ip_bytes);
	return why;
}

enum drop_reason limit_packet(struct worker *w, const struct flow *f, const struct pkt *p)
{
	const struct flow_end *from = &f->end[(p->flags & PKT_REVERSED) != 0];
	const struct limit_table *t = w->limit_table;
	const struct limit_rule *r;

	if (t == NULL || device_of(w, from->slot) == NULL)
		return DROP_RATE_RULE;
	if (from->slot != TRUST_SLOT_NONE &&
	    !device_passes(w, from->slot, profile_of(t, from->slot, from->segment), p->ip_bytes))
		return refuse(w, from->slot, DROP_RATE_DEVICE, p);
	r = rule_of(t, f->rule);
	if (r != NULL && !w->judging && !rule_passes(w, r, p->ip_bytes))
		return refuse_of_flow(w, f, p, DROP_RATE_RULE);
	return DROP_NONE;
}

enum drop_reason limit_kernel(struct worker *w, const struct pkt *p)
{
	struct device *d;

	if (p->src_bind == NULL)
		return DROP_NONE;
	d = device_of(w, p->src_bind->slot);
	return d != NULL && bucket_take(&d->kernel_full_ns, &w->limits->kernel, now_ns(w))
		       ? DROP_NONE
		       : refuse(w, p->src_bind->slot, DROP_KERNEL_RATE, p);
}

enum drop_reason limit_tls(struct worker *w, const struct pkt *p)
{
	struct device *d;

	if (p->src_bind == NULL)
		return DROP_NONE;
	d = device_of(w, p->src_bind->slot);
	return d != NULL && bucket_take(&d->tls_full_ns, &w->limits->tls, now_ns(w))
		       ? DROP_NONE
		       : refuse(w, p->src_bind->slot, DROP_KERNEL_RATE, p);
}

/* Keyed, so that nobody can choose to share another's bucket. */
static struct source *source_of(const struct worker *w, const struct pkt *p, const uint8_t *mac)
{
	uint64_t m = 0;

	memcpy(&m, mac, 6);
	m = flow_fold(m ^ w->st->seed[0], ((uint64_t)p->in_port << 16 | p->vlan) ^ w->st->seed[1]);
	return &w->limits->source[m % STRANGERS];
}

/* The source's own bucket first: what it may not send takes nothing from the others. */
enum drop_reason limit_stranger(struct worker *w, const struct pkt *p, const uint8_t *mac)
{
	struct limits *l = w->limits;
	uint64_t now = now_ns(w);

	return bucket_take(&source_of(w, p, mac)->packets_full_ns, &l->each_packets, now) &&
			       bucket_take(&l->all.packets_full_ns, &l->all_packets, now)
		       ? DROP_NONE
		       : DROP_STRANGER_RATE;
}

enum drop_reason limit_stranger_flow(struct worker *w, const struct pkt *p, const uint8_t *mac)
{
	struct limits *l = w->limits;
	uint64_t now = now_ns(w);

	return bucket_take(&source_of(w, p, mac)->flows_full_ns, &l->each_flows, now) &&
			       bucket_take(&l->all.flows_full_ns, &l->all_flows, now)
		       ? DROP_NONE
		       : DROP_STRANGER_RATE;
}

uint32_t limit_flows_now(const struct worker *w, uint32_t slot)
{
	const struct device *d = device_of(w, slot);

	return d != NULL ? __atomic_load_n(&d->flows, __ATOMIC_RELAXED) : 0;
}
