/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the link believes: entries, snapshots, heartbeats, and the stored log. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/agent/link_internal.h"

/* ---- revocations are kept for ever ---- */

static bool same_revocation(const struct decision *a, const struct decision *b)
{
	return a->op == b->op && a->has == b->has &&
	       memcmp(a->cert_sha256, b->cert_sha256, 32) == 0 &&
	       memcmp(a->digest, b->digest, 32) == 0 &&
	       memcmp(a->issuer_sha256, b->issuer_sha256, 32) == 0 &&
	       a->serial_bytes == b->serial_bytes &&
	       memcmp(a->serial, b->serial, a->serial_bytes) == 0 &&
	       a->not_before_ms == b->not_before_ms && a->identity_kind == b->identity_kind &&
	       strcmp(a->identity, b->identity) == 0;
}

static bool holds_revocation(const struct decision *list, uint32_t n, const struct decision *d)
{
	for (uint32_t i = 0; i < n; i++) {
		if (decision_is_revocation(&list[i]) && same_revocation(&list[i], d))
			return true;
	}
	return false;
}

/* Room first, so that nothing can fail once the entry is stored. */
static int reserve_revocations(struct link *l, const struct decision_entry *e)
{
	uint32_t need = l->n_revocations;
	struct decision *list;

	for (uint32_t i = 0; i < e->n_ops; i++)
		need += decision_is_revocation(&e->ops[i]);
	if (need <= l->cap_revocations)
		return 0;
	list = realloc(l->revocations, (size_t)need * 2 * sizeof(*list));
	if (list == NULL)
		return -ENOMEM;
	l->revocations = list;
	l->cap_revocations = need * 2;
	return 0;
}

static void keep_revocations(struct link *l, const struct decision_entry *e)
{
	for (uint32_t i = 0; i < e->n_ops; i++) {
		if (decision_is_revocation(&e->ops[i]) &&
		    !holds_revocation(l->revocations, l->n_revocations, &e->ops[i]))
			l->revocations[l->n_revocations++] = e->ops[i]; /* has no text to own */
	}
}

/* What we hold and the snapshot lacks. */
static int add_kept_revocations(struct link *l, struct decision_entry *e)
{
	uint32_t n = e->n_ops;
	struct decision *ops;

	if (l->n_revocations == 0)
		return 0;
	ops = realloc(e->ops, ((size_t)n + l->n_revocations) * sizeof(*ops));
	if (ops == NULL)
		return -ENOMEM;
	e->ops = ops;
	for (uint32_t i = 0; i < l->n_revocations; i++) {
		if (!holds_revocation(ops, n, &l->revocations[i]))
			ops[e->n_ops++] = l->revocations[i];
	}
	return 0;
}

/* ---- taking over ---- */

/* Past all checks: make it durable, then ours, then the agent's. */
static int take(struct link *l, struct decision_entry *e, const uint8_t *cose, size_t bytes,
		bool replay, struct err *err)
{
	struct store_entry row = {.revision = e->revision,
				  .stored_ms = l->now_wall_ms,
				  .snapshot = e->snapshot,
				  .cose = cose,
				  .cose_bytes = bytes};
	int ret = e->snapshot ? add_kept_revocations(l, e) : 0;

	if (ret == 0)
		ret = reserve_revocations(l, e);
	if (ret < 0)
		return err_set(err, ret, "out of memory");
	if (!replay) {
		memcpy(row.hash, e->hash, sizeof(row.hash));
		ret = store_entry_add(l->store, &row, err);
		if (ret < 0)
			return ret;
	}
	keep_revocations(l, e);
	l->state.revision = e->revision;
	memcpy(l->state.hash, e->hash, sizeof(l->state.hash));
	l->issued_ms = e->issued_ms;
	l->want_snapshot = false;
	l->cb.apply(l->arg, e, replay);
	return 0;
}

/* Order alone: does this entry continue our chain? The kind of alarm if not, else -1. */
static int order_fault(const struct link *l, const struct decision_entry *e, const char **why)
{
	if (e->snapshot) {
		if (e->revision < l->state.revision) {
			*why = "a snapshot from before our revision";
			return ALARM_ROLLBACK;
		}
		if (e->revision == l->state.revision && memcmp(e->hash, l->state.hash, 32) != 0) {
			*why = "a snapshot of our revision with another hash";
			return ALARM_FORGED;
		}
	} else if (e->revision != l->state.revision + 1) {
		*why = "a revision is missing before it";
		return ALARM_HOLE;
	} else if (memcmp(e->prev, l->state.hash, 32) != 0) {
		*why = "its previous hash is not our head's";
		return ALARM_FORGED;
	}
	if (e->issued_ms < l->issued_ms) {
		*why = "issued before its predecessor";
		return ALARM_CLOCK;
	}
	return -1;
}

static int time_fault(const struct link *l, const struct decision_entry *e, const char **why)
{
	if (e->issued_ms > l->now_wall_ms + l->skew_ms) {
		*why = "issued in the future";
		return ALARM_CLOCK;
	}
	if (e->expires_ms != 0 && e->expires_ms <= l->now_wall_ms) {
		*why = "it has expired";
		return ALARM_EXPIRED;
	}
	return -1;
}

static void refuse_open(struct link *l, int ret, const char *what, const struct err *err)
{
	if (ret == -ENOMEM)
		link_raise(l, ALARM_STORE, "%s not taken: out of memory", what);
	else
		link_violation(l, ret == -EBADMSG ? ALARM_SIGNATURE : ALARM_MALFORMED,
			       "%s refused: %s", what, err->msg);
}

/* A revision that we passed: the very same bytes are a harmless repetition, others are a second history. */
static void on_old_entry(struct link *l, const struct decision_entry *e)
{
	uint8_t hash[32];
	int ret = store_entry_find(l->store, e->revision, hash, NULL, NULL);

	if (ret == -ENOENT)
		return; /* a snapshot took us past it: nothing to compare with, and nothing to apply */
	if (ret < 0) {
		link_raise(l, ALARM_STORE, "cannot look up revision %llu: %s",
			   (unsigned long long)e->revision, strerror(-ret));
		return;
	}
	if (memcmp(hash, e->hash, sizeof(hash)) != 0) {
		link_violation(l, ALARM_FORGED, "a second version of revision %llu",
			       (unsigned long long)e->revision);
		return;
	}
	if (!l->resubscribed || e->revision <= l->first_from)
		link_raise(l, ALARM_REPLAYED, "revision %llu came again (we are at %llu)",
			   (unsigned long long)e->revision, (unsigned long long)l->state.revision);
	link_send_stored_receipt(l, e->revision);
}

void link_on_entry(struct link *l, const uint8_t *cose, size_t bytes)
{
	struct decision_entry *e = NULL;
	const char *why = "";
	struct err err = {0};
	int fault, ret = decision_entry_open(&e, cose, bytes, &l->key, &err);

	if (ret < 0) {
		refuse_open(l, ret, "entry", &err);
		return;
	}
	if (e->revision <= l->state.revision) {
		on_old_entry(l, e);
		goto out;
	}
	/* Something was wrong before: nothing more is applied until the controller's word about its head has come. */
	if (l->want_snapshot)
		goto out;
	fault = order_fault(l, e, &why);
	if (fault < 0)
		fault = time_fault(l, e, &why);
	if (fault >= 0) {
		link_violation(l, fault, "revision %llu refused: %s (we are at %llu)",
			       (unsigned long long)e->revision, why,
			       (unsigned long long)l->state.revision);
		goto out;
	}
	ret = take(l, e, cose, bytes, false, &err);
	if (ret < 0)
		link_raise(l, ALARM_STORE, "revision %llu not applied: %s",
			   (unsigned long long)e->revision, err.msg);
out:
	decision_entry_free(e);
}

void link_on_snapshot(struct link *l, const uint8_t *cose, size_t bytes)
{
	struct decision_entry *e = NULL;
	const char *why = "";
	struct err err = {0};
	int fault, ret = decision_snapshot_open(&e, cose, bytes, &l->key, &err);

	if (ret < 0) {
		refuse_open(l, ret, "snapshot", &err);
		return;
	}
	fault = order_fault(l, e, &why);
	if (fault < 0)
		fault = time_fault(l, e, &why);
	if (fault >= 0) {
		link_violation(l, fault, "snapshot of revision %llu refused: %s (we are at %llu)",
			       (unsigned long long)e->revision, why,
			       (unsigned long long)l->state.revision);
		goto out;
	}
	if (e->revision == l->state.revision) {
		l->want_snapshot = false; /* the controller confirms what we have */
		goto out;
	}
	ret = take(l, e, cose, bytes, false, &err);
	if (ret < 0)
		link_raise(l, ALARM_STORE, "snapshot of revision %llu not applied: %s",
			   (unsigned long long)e->revision, err.msg);
out:
	decision_entry_free(e);
}

void link_on_heartbeat(struct link *l, const uint8_t *cose, size_t bytes)
{
	struct decision_heartbeat h;
	struct err err = {0};
	int ret = decision_heartbeat_open(&h, cose, bytes, &l->key, &err);

	if (ret < 0) {
		refuse_open(l, ret, "heartbeat", &err);
		return;
	}
	if (h.issued_ms > l->now_wall_ms + l->skew_ms ||
	    h.issued_ms + l->skew_ms < l->now_wall_ms) {
		link_violation(l, ALARM_CLOCK, "heartbeat refused: its time is %lld ms from ours",
			       (long long)(h.issued_ms - l->now_wall_ms));
		return;
	}
	if (h.issued_ms < l->heartbeat_ms) {
		link_violation(l, ALARM_ROLLBACK, "heartbeat refused: older than one that we had");
		return;
	}
	if (h.revision < l->state.revision) {
		link_violation(
			l, ALARM_ROLLBACK, "the controller is at revision %llu, we are at %llu",
			(unsigned long long)h.revision, (unsigned long long)l->state.revision);
		return;
	}
	if (h.revision == l->state.revision && memcmp(h.hash, l->state.hash, 32) != 0) {
		link_violation(l, ALARM_FORGED,
			       "the controller's revision %llu has another hash than ours",
			       (unsigned long long)h.revision);
		return;
	}
	l->heartbeat_ms = h.issued_ms;
	l->state.head = h.revision;
	l->state.behind = h.revision > l->state.revision;
	if (l->state.behind) {
		/* A tail got lost, or is being withheld: no lease until we hold it. */
		link_subscribe(l);
		if (l->want_snapshot)
			link_ask_snapshot(l);
		return;
	}
	l->want_snapshot = false; /* the controller confirms what we have */
	l->backoff_ms = 0;
	l->violations = 0;
	l->state.lease_boot_ms = l->now_boot_ms + h.lease_ms;
	l->cb.lease(l->arg, l->state.lease_boot_ms);
}

/* ---- the stored log ---- */

int link_open_stored(const struct link *l, const struct store_entry *row,
		     struct decision_entry **out, struct err *err)
{
	return row->snapshot ? decision_snapshot_open(out, row->cose, row->cose_bytes, &l->key, err)
			     : decision_entry_open(out, row->cose, row->cose_bytes, &l->key, err);
}

struct replay {
	struct link *link;
	struct err *err;
};

static int replay_row(void *arg, const struct store_entry *row)
{
	struct replay *r = arg;
	struct link *l = r->link;
	struct decision_entry *e = NULL;
	const char *why = "";
	int ret = link_open_stored(l, row, &e, r->err);

	if (ret == -ENOMEM)
		return ret;
	if (ret < 0)
		return err_wrap(r->err, -EBADMSG, "stored revision %llu",
				(unsigned long long)row->revision);
	if (e->revision != row->revision || memcmp(e->hash, row->hash, sizeof(row->hash)) != 0)
		ret = err_set(r->err, -EBADMSG, "stored revision %llu: its row says something else",
			      (unsigned long long)row->revision);
	else if (order_fault(l, e, &why) >= 0)
		ret = err_set(r->err, -EBADMSG, "stored revision %llu: %s",
			      (unsigned long long)row->revision, why);
	else
		ret = take(l, e, row->cose, row->cose_bytes, true, r->err);
	decision_entry_free(e);
	return ret;
}

int link_replay(struct link *l, struct err *err)
{
	struct err local = {0};
	struct replay r = {.link = l, .err = err != NULL ? err : &local};
	int ret = store_entries(l->store, replay_row, &r, r.err);

	if (ret < 0) {
		l->state.frozen = true;
		link_raise(l, ALARM_STORE,
			   "the stored decisions are damaged after revision %llu: %s; no newer "
			   "decision is taken",
			   (unsigned long long)l->state.revision, r.err->msg);
	}
	return ret;
}
