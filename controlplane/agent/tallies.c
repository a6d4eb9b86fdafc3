/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/tallies.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/agent/agent.h"

#define ANSWER_MS 10000 /* a walk over millions of flows waits for packets */
#define ENTRIES_MAX (1u << 21) /* more cannot be meant */
#define MANY_FLOWS 65536

static int grow(void *array, uint32_t n, uint32_t *cap, size_t each)
{
	void **at = array;
	uint32_t more = *cap == 0 ? 64 : 2 * *cap;
	void *new;

	if (n < *cap)
		return 0;
	if (n >= ENTRIES_MAX)
		return -EPROTO;
	new = reallocarray(*at, more, each);
	if (new == NULL)
		return -ENOMEM;
	*at = new;
	*cap = more;
	return 0;
}

int tallies_add(struct tallies *t, const struct msg_tallies *m)
{
	int ret = 0;

	if (!msg_tallies_check(m))
		return -EPROTO;
	for (unsigned i = 0; i < m->n && ret == 0; i++) {
		switch (m->kind) {
		case TALLY_ACCOUNTS:
			ret = grow(&t->account, t->n_accounts, &t->cap_accounts,
				   sizeof(*t->account));
			if (ret == 0)
				t->account[t->n_accounts++] = m->account[i];
			break;
		case TALLY_DEVICES:
			ret = grow(&t->device, t->n_devices, &t->cap_devices, sizeof(*t->device));
			if (ret == 0)
				t->device[t->n_devices++] = m->device[i];
			break;
		case TALLY_LCORES:
			if (t->n_lcores == MSG_TALLY_LCORES)
				return -EPROTO;
			t->lcore[t->n_lcores++] = m->lcore[i];
			break;
		}
	}
	return ret;
}

static int account_cmp(const void *x, const void *y)
{
	const struct msg_tally_account *a = x, *b = y;
	int c = strcmp(a->rule, b->rule);

	if (c == 0)
		c = strcmp(a->from, b->from);
	if (c == 0)
		c = strcmp(a->to, b->to);
	return c != 0 ? c : (int)a->reason - (int)b->reason;
}

static int device_cmp(const void *x, const void *y)
{
	const struct msg_tally_device *a = x, *b = y;

	return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static void merge_accounts(struct tallies *t)
{
	uint32_t n = 0;

	qsort(t->account, t->n_accounts, sizeof(*t->account), account_cmp);
	for (uint32_t i = 0; i < t->n_accounts; i++) {
		const struct msg_tally_account *e = &t->account[i];
		struct msg_tally_account *to = n > 0 ? &t->account[n - 1] : NULL;

		if (to == NULL || account_cmp(to, e) != 0) {
			t->account[n++] = *e;
			continue;
		}
		to->packets += e->packets;
		to->bytes += e->bytes;
		to->flows += e->flows;
		to->open += e->open;
	}
	t->n_accounts = n;
}

static void merge_devices(struct tallies *t)
{
	uint32_t n = 0;

	qsort(t->device, t->n_devices, sizeof(*t->device), device_cmp);
	for (uint32_t i = 0; i < t->n_devices; i++) {
		const struct msg_tally_device *e = &t->device[i];
		struct msg_tally_device *to = n > 0 ? &t->device[n - 1] : NULL;

		if (to == NULL || to->slot != e->slot) {
			t->device[n++] = *e;
			continue;
		}
		to->packets += e->packets;
		to->bytes += e->bytes;
		to->flows += e->flows;
		to->open += e->open;
		to->refused += e->refused;
		to->diverted += e->diverted;
	}
	t->n_devices = n;
}

void tallies_merge(struct tallies *t)
{
	if (t->n_accounts > 1)
		merge_accounts(t);
	if (t->n_devices > 1)
		merge_devices(t);
}

void tallies_clear(struct tallies *t)
{
	free(t->account);
	free(t->device);
	*t = (struct tallies){0};
}

struct tallies_call {
	struct tallies t;
	int ret;
	tallies_done *done;
	void *arg;
};

static void part_came(void *arg, const union msg_any *m)
{
	struct tallies_call *c = arg;

	if (c->ret == 0)
		c->ret = tallies_add(&c->t, &m->tallies);
}

static void all_came(void *arg, const union msg_any *reply)
{
	struct tallies_call *c = arg;

	if (c->ret == -EPROTO)
		log_warn("the dataplane's counters are malformed, and left out");
	tallies_merge(&c->t);
	c->done(c->arg, c->ret == 0 && reply != NULL && reply->h.type == MSG_OK ? &c->t : NULL);
	tallies_clear(&c->t);
	free(c);
}

void tallies_ask(struct agent *a, uint32_t kinds, uint32_t slot, tallies_done *done, void *arg)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_tallies_get m = {.kinds = kinds, .slot = slot};
	struct tallies_call *c = dp != NULL ? calloc(1, sizeof(*c)) : NULL;

	if (c == NULL) {
		done(arg, NULL);
		return;
	}
	c->done = done;
	c->arg = arg;
	MSG_INIT(&m, MSG_TALLIES_GET, 0);
	peer_request_many(dp, &m, ANSWER_MS, MSG_TALLIES, part_came, all_came, c);
}

/* ---- for the metrics ---- */

static void keep(void *arg, const struct tallies *t)
{
	struct agent *a = arg;
	struct tallies *old = &a->tallies;

	a->tallies_asked = false;
	if (t == NULL)
		return;
	tallies_clear(old);
	*old = *t;
	old->account = NULL; /* t's are freed by their owner */
	old->device = NULL;
	old->cap_accounts = old->n_accounts;
	old->cap_devices = old->n_devices;
	if (t->n_accounts > 0)
		old->account = malloc(t->n_accounts * sizeof(*t->account));
	if (t->n_devices > 0)
		old->device = malloc(t->n_devices * sizeof(*t->device));
	if ((t->n_accounts > 0 && old->account == NULL) ||
	    (t->n_devices > 0 && old->device == NULL)) {
		tallies_clear(old);
		return;
	}
	if (t->n_accounts > 0)
		memcpy(old->account, t->account, t->n_accounts * sizeof(*t->account));
	if (t->n_devices > 0)
		memcpy(old->device, t->device, t->n_devices * sizeof(*t->device));
}

void tallies_tick(struct agent *a, uint64_t now_ms)
{
	uint32_t kinds = TALLY_BIT(TALLY_ACCOUNTS) | TALLY_BIT(TALLY_LCORES);
	uint64_t every_ms = a->stats.flows > MANY_FLOWS ? 10000 : 1000;

	if (a->cfg->metrics_port == 0 || a->tallies_asked || now_ms - a->tallies_ms < every_ms)
		return;
	if (a->cfg->metrics_devices)
		kinds |= TALLY_BIT(TALLY_DEVICES);
	a->tallies_asked = true;
	a->tallies_ms = now_ms;
	tallies_ask(a, kinds, 0, keep, a);
}

void tallies_forget(struct agent *a)
{
	tallies_clear(&a->tallies);
}
