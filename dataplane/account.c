/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/account.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/admission.h"
#include "dataplane/worker.h"

#define WAYS (2 * ACCOUNTS_MAX) /* of the hash tables below; a power of two */
#define STEP_FLOWS 512 /* some 15 us */
#define STEP_COPIES 1024

/* An account by the numbers of one policy. */
struct account_id {
	uint16_t rule, from, to;
	uint8_t reason;
	uint8_t used;
};

/* From one policy's numbers to accounts, so that an admission compares no names. */
struct account_map {
	uint32_t epoch;
	uint32_t n;
	struct account_id id[WAYS];
	uint16_t account[WAYS];
};

struct accounts {
	_Atomic uint32_t n; /* accounts with a name */
	uint32_t n_devices;
	struct account_name name[ACCOUNTS_MAX];
	uint16_t by_name[WAYS]; /* account, 0: free */
	struct tally tally[ACCOUNTS_MAX];
	struct device_tally *device;
	struct account_map map[2]; /* of this policy and of the one before */
	unsigned now;
	/* a query under way */
	struct account_query *query;
	uint32_t visited; /* flows below have been added */
	uint32_t copied; /* accounts below have been added */
	uint32_t copied_devices;
};

int accounts_new(struct accounts **out, uint32_t slots)
{
	/* Fresh pages are zero and cost memory when they are used: most slots are never. */
	struct accounts *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return -ENOMEM;
	a->device = calloc(slots > 0 ? slots : 1, sizeof(*a->device));
	if (a->device == NULL) {
		free(a);
		return -ENOMEM;
	}
	a->n_devices = slots;
	atomic_store(&a->n, 1); /* ACCOUNT_OTHER */
	*out = a;
	return 0;
}

void accounts_free(struct accounts *a)
{
	if (a == NULL)
		return;
	free(a->device);
	free(a);
}

uint32_t accounts_count(const struct accounts *a)
{
	return atomic_load_explicit(&a->n, memory_order_acquire);
}

uint32_t accounts_devices(const struct accounts *a)
{
	return a->n_devices;
}

const struct account_name *accounts_name(const struct accounts *a, uint32_t i)
{
	return &a->name[i];
}

/* ---- which account ---- */

static uint32_t name_hash(const struct account_name *n)
{
	const unsigned char *b = (const unsigned char *)n;
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < sizeof(*n); i++)
		h = (h ^ b[i]) * 16777619u;
	return h;
}

/* The account of this name; a new one if it has none and there is room. */
static uint32_t account_named(struct accounts *a, const struct account_name *name)
{
	uint32_t n = atomic_load_explicit(&a->n, memory_order_relaxed);
	uint32_t at = name_hash(name) & (WAYS - 1);

	for (; a->by_name[at] != 0; at = (at + 1) & (WAYS - 1)) {
		if (memcmp(&a->name[a->by_name[at]], name, sizeof(*name)) == 0)
			return a->by_name[at];
	}
	if (n == ACCOUNTS_MAX)
		return ACCOUNT_OTHER;
	a->name[n] = *name;
	a->by_name[at] = n;
	atomic_store_explicit(&a->n, n + 1, memory_order_release);
	return n;
}

static void endpoint_name(const struct policy_form *f, uint16_t id, char out[POLICY_NAME_BYTES])
{
	const struct policy_endpoint *ep = id != 0 ? policy_endpoint_by_id(f, id) : NULL;

	if (ep != NULL)
		strcpy(out, ep->name); /* terminated: policy_form_check() */
}

static uint32_t account_resolve(struct worker *w, const struct account_id *id)
{
	struct account_name name;
	const struct policy_form *f = w->policy;

	memset(&name, 0, sizeof(name)); /* compared as bytes */
	name.reason = id->reason;
	if (f != NULL) {
		if (id->rule < f->n_rules)
			strcpy(name.rule, policy_rules(f)[id->rule].name);
		endpoint_name(f, id->from, name.from);
		endpoint_name(f, id->to, name.to);
	}
	return account_named(w->accounts, &name);
}

static uint32_t id_way(const struct account_map *m, const struct account_id *id)
{
	uint32_t h = id->rule * 0x9e3779b1u ^ id->from * 0x85ebca6bu ^ id->to * 0xc2b2ae35u ^
		     id->reason * 0x27d4eb2fu;
	uint32_t at = (h ^ h >> 15) & (WAYS - 1);

	while (m->id[at].used && (m->id[at].rule != id->rule || m->id[at].from != id->from ||
				  m->id[at].to != id->to || m->id[at].reason != id->reason))
		at = (at + 1) & (WAYS - 1);
	return at;
}

/* The map of the policy that the worker has pinned. */
static struct account_map *map_now(struct worker *w)
{
	struct accounts *a = w->accounts;

	if (a->map[a->now].epoch != w->epoch) {
		a->now = !a->now;
		if (a->map[a->now].epoch != w->epoch) {
			memset(&a->map[a->now], 0, sizeof(a->map[0]));
			a->map[a->now].epoch = w->epoch;
		}
	}
	return &a->map[a->now];
}

/* Names are there only while the policy is: who opens an account resolves it then, who closes it finds it here. */
static uint32_t account_of(struct worker *w, uint32_t epoch, const struct account_id *id)
{
	struct account_map *m = map_now(w);
	bool now = m->epoch == epoch;
	uint32_t at;

	if (!now)
		m = &w->accounts->map[!w->accounts->now];
	if (m->epoch != epoch)
		return ACCOUNT_OTHER;
	at = id_way(m, id);
	if (m->id[at].used)
		return m->account[at];
	if (!now || m->n == ACCOUNTS_MAX)
		return ACCOUNT_OTHER;
	m->n++;
	m->id[at] = *id;
	m->id[at].used = 1;
	m->account[at] = account_resolve(w, id);
	return m->account[at];
}

static uint32_t flow_account(struct worker *w, const struct flow *f)
{
	struct account_id id = {.rule = f->rule,
				.from = f->end[f->opener].segment,
				.to = f->end[!f->opener].segment,
				.reason = f->state == FLOW_REFUSED ? flow_reason(f) : DROP_NONE};

	if (f->state == FLOW_DIVERTED)
		return ACCOUNT_OTHER; /* no rule has to do with it */
	return account_of(w, f->epoch, &id);
}

/* ---- counting ---- */

static struct device_tally *device_of(struct accounts *a, struct device_tally *all, uint32_t slot)
{
	return slot != TRUST_SLOT_NONE && slot < a->n_devices ? &all[slot] : NULL;
}

static void add_device(struct device_tally *d, const struct flow *f, uint64_t sign)
{
	if (d == NULL)
		return;
	if (f->state == FLOW_REFUSED) {
		d->refused += sign * f->packets;
	} else if (f->state == FLOW_DIVERTED) {
		d->diverted += sign * f->packets;
	} else {
		d->packets += sign * f->packets;
		d->bytes += sign * f->bytes;
	}
}

static void add_account(struct tally *t, const struct flow *f, uint64_t sign)
{
	if (f->state == FLOW_DIVERTED)
		return;
	t->packets += sign * f->packets;
	t->bytes += sign * f->bytes;
}

/* The query has counted this flow while it lived, and will find it in what has not been copied yet: once too often. */
static void take_back(struct worker *w, const struct flow *f, uint32_t account)
{
	struct accounts *a = w->accounts;
	struct account_query *q = a->query;

	if ((uint32_t)(f - w->flows->flows) >= a->visited)
		return;
	if (account >= a->copied)
		add_account(&q->account[account], f, -1ull);
	for (int end = 0; q->device != NULL && end < 2; end++) {
		if (f->end[end].slot >= a->copied_devices)
			add_device(device_of(a, q->device, f->end[end].slot), f, -1ull);
	}
}

void account_prefetch(const struct worker *w, uint32_t slot)
{
	rte_prefetch0(device_of(w->accounts, w->accounts->device, slot));
}

void account_open(struct worker *w, const struct flow *f)
{
	struct accounts *a = w->accounts;

	a->tally[flow_account(w, f)].flows++;
	for (int end = 0; end < 2 && f->state != FLOW_REFUSED; end++) {
		struct device_tally *d = device_of(a, a->device, f->end[end].slot);

		if (d != NULL)
			d->flows++;
	}
}

void account_close(struct worker *w, const struct flow *f)
{
	struct accounts *a = w->accounts;
	uint32_t account;

	if (f->packets == 0)
		return;
	account = flow_account(w, f);
	add_account(&a->tally[account], f, 1);
	for (int end = 0; end < 2; end++)
		add_device(device_of(a, a->device, f->end[end].slot), f, 1);
	if (a->query != NULL)
		take_back(w, f, account);
}

void account_leave(struct worker *w, struct flow *f)
{
	account_close(w, f);
	f->packets = f->bytes = 0;
}

void account_refused(struct worker *w, const struct admission *adm, enum drop_reason why,
		     uint16_t ip_bytes)
{
	struct accounts *a = w->accounts;
	struct account_id id = {
		.rule = adm->rule, .from = adm->segment[0], .to = adm->segment[1], .reason = why};
	struct tally *t = &a->tally[account_of(w, w->epoch, &id)];

	t->flows++;
	t->packets++;
	t->bytes += ip_bytes;
	for (int end = 0; end < 2; end++) {
		struct device_tally *d = device_of(a, a->device, adm->slot[end]);

		if (d != NULL)
			d->refused++;
	}
}

bool account_moves(struct worker *w, const struct flow *f, const struct admission *adm)
{
	struct account_id id = {.rule = adm->rule, .from = adm->segment[0], .to = adm->segment[1]};

	return f->end[f->opener].slot != adm->slot[0] || f->end[!f->opener].slot != adm->slot[1] ||
	       flow_account(w, f) != account_of(w, w->epoch, &id);
}

/* ---- queries ---- */

static void query_flow(struct worker *w, const struct flow *f)
{
	struct account_query *q = w->accounts->query;
	uint32_t account = flow_account(w, f);

	add_account(&q->account[account], f, 1);
	q->account[account].open += f->state != FLOW_DIVERTED;
	for (int end = 0; q->device != NULL && end < 2; end++) {
		struct device_tally *d = device_of(w->accounts, q->device, f->end[end].slot);

		add_device(d, f, 1);
		if (d != NULL)
			d->open += f->state != FLOW_REFUSED;
	}
}

/* @return true: all flows have been visited */
static bool visit_flows(struct worker *w)
{
	struct accounts *a = w->accounts;
	uint32_t end = RTE_MIN(a->visited + STEP_FLOWS, w->flows->high + 1);

	for (; a->visited < end; a->visited++) {
		if (w->flows->flows[a->visited].used)
			query_flow(w, &w->flows->flows[a->visited]);
	}
	return a->visited > w->flows->high;
}

static void copy_accounts(struct accounts *a, struct account_query *q)
{
	uint32_t end = RTE_MIN(a->copied + STEP_COPIES, accounts_count(a));

	for (; a->copied < end; a->copied++) {
		const struct tally *t = &a->tally[a->copied];

		q->account[a->copied].packets += t->packets;
		q->account[a->copied].bytes += t->bytes;
		q->account[a->copied].flows += t->flows;
	}
}

static void copy_devices(struct accounts *a, struct account_query *q)
{
	uint32_t end = RTE_MIN(a->copied_devices + STEP_COPIES, a->n_devices);

	for (; a->copied_devices < end; a->copied_devices++) {
		const struct device_tally *d = &a->device[a->copied_devices];
		struct device_tally *to = &q->device[a->copied_devices];

		if ((d->packets | d->flows | d->refused | d->diverted) == 0)
			continue; /* its page may not even be there */
		to->packets += d->packets;
		to->bytes += d->bytes;
		to->flows += d->flows;
		to->refused += d->refused;
		to->diverted += d->diverted;
	}
}

enum query_phase { QUERY_BEGIN, QUERY_FLOWS, QUERY_ACCOUNTS, QUERY_DEVICES };

bool account_query_step(struct worker *w, struct account_query *q, uint64_t *at)
{
	struct accounts *a = w->accounts;

	switch (*at) {
	case QUERY_BEGIN:
		a->query = q;
		a->visited = 1;
		a->copied = a->copied_devices = 0;
		*at = QUERY_FLOWS;
		return false;
	case QUERY_FLOWS:
		if (visit_flows(w)) {
			a->visited = UINT32_MAX;
			*at = QUERY_ACCOUNTS;
		}
		return false;
	case QUERY_ACCOUNTS:
		copy_accounts(a, q);
		if (a->copied == accounts_count(a)) {
			a->copied =
				UINT32_MAX; /* nor is what is opened from here on a part of it */
			*at = QUERY_DEVICES;
		}
		return false;
	default:
		if (q->device != NULL)
			copy_devices(a, q);
		if (q->device != NULL && a->copied_devices < a->n_devices)
			return false;
		a->query = NULL;
		return true;
	}
}
