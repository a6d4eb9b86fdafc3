/* SPDX-License-Identifier: GPL-3.0-or-later */
/* entry: what a verified, stored decision means here, and the receipt for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

#define LEASE_KEY "lease_wall_ms"

struct entry_job {
	struct agent *a;
	struct receipt receipt;
	uint64_t t0_us;
	uint32_t open;
};

static void entry_part_done(struct entry_job *j)
{
	struct err err = {""};

	if (--j->open > 0)
		return;
	j->receipt.in_force_us = clock_boot_us() - j->t0_us;
	log_info("revision %llu %s us=%llu sessions_closed=%llu flows_closed=%llu "
		 "untracked=%llu%s%s",
		 (unsigned long long)j->receipt.revision,
		 j->receipt.result == 0 ? "in force" : "NOT in force",
		 (unsigned long long)j->receipt.in_force_us,
		 (unsigned long long)j->receipt.sessions_closed,
		 (unsigned long long)j->receipt.flows_closed,
		 (unsigned long long)j->receipt.untracked,
		 j->receipt.text[0] != '\0' ? " text=" : "", j->receipt.text);
	if (link_receipt(j->a->link, &j->receipt, &err) < 0)
		agent_alarm(j->a, "store", "receipt of revision %llu: %s",
			    (unsigned long long)j->receipt.revision, err.msg);
	free(j);
}

static void entry_failed(struct entry_job *j, int result, const char *text)
{
	if (j->receipt.result == 0)
		j->receipt.result = result;
	if (j->receipt.text[0] == '\0')
		snprintf(j->receipt.text, sizeof(j->receipt.text), "%.250s", text);
}

static void entry_enforced(void *arg, struct enforcement *e)
{
	struct entry_job *j = arg;

	j->receipt.sessions_closed += e->sessions_closed;
	j->receipt.flows_closed += e->flows_closed;
	j->receipt.untracked += e->untracked;
	if (e->result < 0)
		entry_failed(j, e->result, e->text);
	free(e);
	entry_part_done(j);
}

static void entry_policy_done(void *arg, int result, const char *text,
			      const struct enforcement *closed)
{
	struct entry_job *j = arg;

	if (closed != NULL) {
		j->receipt.sessions_closed += closed->sessions_closed;
		j->receipt.flows_closed += closed->flows_closed;
		j->receipt.untracked += closed->untracked;
		if (closed->result < 0)
			entry_failed(j, closed->result, closed->text);
	}
	if (result < 0)
		entry_failed(j, result, text);
	else if (j->receipt.text[0] == '\0')
		snprintf(j->receipt.text, sizeof(j->receipt.text), "%.250s", text);
	entry_part_done(j);
}

/* Everything but policy. What one operation cannot do does not keep the others from being done. */
static void entry_registry(struct agent *a, const struct decision_entry *entry, struct entry_job *j)
{
	a->review |= entry->snapshot;
	if (entry->snapshot)
		registry_reset(a->registry);
	for (uint32_t i = 0; i < entry->n_ops; i++) {
		const struct decision *d = &entry->ops[i];
		struct err err = {""};
		int ret;

		if (d->op == DECISION_POLICY)
			continue;
		/* A session may rest on another certificate than its device's standing does. */
		a->review |= d->op == DECISION_REVOKE_CERT &&
			     (d->has & (DECISION_HAS_CERT | DECISION_HAS_ISSUER)) != 0;
		ret = registry_apply(a->registry, d, entry->revision, &err);
		if (ret == 0)
			continue;
		agent_alarm(a, "registry", "revision %llu: %s: %s",
			    (unsigned long long)entry->revision, decision_op_name(d->op),
			    err.msg[0] != '\0' ? err.msg : strerror(-ret));
		if (j != NULL)
			entry_failed(j, ret, err.msg[0] != '\0' ? err.msg : strerror(-ret));
	}
}

static const struct decision *entry_policy(const struct decision_entry *entry)
{
	for (uint32_t i = entry->n_ops; i > 0; i--) {
		if (entry->ops[i - 1].op == DECISION_POLICY)
			return &entry->ops[i - 1];
	}
	return NULL;
}

/* A text that was refused when it came is refused at start too: the one before it stays the policy. */
static bool entry_policy_good(struct agent *a, const struct decision_entry *entry,
			      const struct decision *policy)
{
	struct config_errors *errs = calloc(1, sizeof(*errs));
	int ret = errs == NULL ? -ENOMEM : segments_check(NULL, policy->text, policy->file, errs);

	if (ret < 0)
		agent_alarm(a, "policy", "revision %llu: %s: the policy before it stays",
			    (unsigned long long)entry->revision,
			    errs != NULL && errs->n > 0 ? errs->line[0] : strerror(-ret));
	free(errs);
	return ret == 0;
}

static void entry_replay(struct agent *a, const struct decision_entry *entry)
{
	const struct decision *policy = entry_policy(entry);

	entry_registry(a, entry, NULL);
	if (policy == NULL || !entry_policy_good(a, entry, policy))
		return;
	free(a->replayed_text);
	free(a->replayed_file);
	a->replayed_text = strdup(policy->text);
	a->replayed_file = strdup(policy->file);
}

static void entry_apply(void *arg, const struct decision_entry *entry, bool replay)
{
	struct agent *a = arg;
	const struct decision *policy = entry_policy(entry);
	char summary[DECISION_SUMMARY_BYTES];
	struct entry_job *j;
	struct enforcement *e;

	if (replay) {
		entry_replay(a, entry);
		return;
	}
	log_info("revision %llu: %s", (unsigned long long)entry->revision,
		 entry->snapshot ? "snapshot" : decision_entry_summary(summary, entry));
	j = calloc(1, sizeof(*j));
	e = j != NULL ? enforcement_new(a, entry_enforced, j) : NULL;
	if (e == NULL) {
		/* No memory for a receipt is no reason not to enforce. */
		free(j);
		entry_registry(a, entry, NULL);
		enforce_dirty(a, NULL);
		return;
	}
	j->a = a;
	j->t0_us = e->t0_us;
	j->receipt.revision = entry->revision;
	j->open = policy != NULL ? 2 : 1;
	entry_registry(a, entry, j);
	enforce_run(e);
	if (policy != NULL)
		policy_apply(a, policy->text, policy->file, true, entry_policy_done, j);
}

/* "until saved", both on the wall clock. */
void entry_lease_load(struct agent *a, uint64_t now_boot_ms, uint64_t now_wall_ms)
{
	unsigned long long until = 0, saved = 0, left;
	uint64_t boot_wall_ms = now_wall_ms > now_boot_ms ? now_wall_ms - now_boot_ms : 0;
	char text[64];
	int ret = store_meta_get(a->store, LEASE_KEY, text, sizeof(text));

	if (ret == -ENOENT) { /* the controller was never heard of: its time begins now */
		a->lease_until_ms = now_boot_ms;
		return;
	}
	if (ret < 0 || sscanf(text, "%llu %llu", &until, &saved) != 2 ||
	    now_wall_ms + a->cfg->controller_skew_s * 1000ull < saved) {
		/* A clock that stands before what it said itself (no battery, say) cannot tell how much is left. */
		log_warn("the controller's lease cannot be taken over: %s",
			 ret < 0 ? strerror(-ret) : "the wall clock went back, or it is damaged");
		a->lease_until_ms = 0;
		a->lease_before_boot_ms = CLOCK_NEVER_MS;
		return;
	}
	/* Never more than was left when it was saved, wherever the clock stands. */
	left = until > saved ? until - saved : 0;
	if (until > now_wall_ms && until - now_wall_ms > left)
		until = now_wall_ms + left;
	a->lease_until_ms = clock_boot_of_wall(until, now_wall_ms, now_boot_ms);
	a->lease_before_boot_ms = until < boot_wall_ms ? boot_wall_ms - until : 0;
}

/* Does any device's expiry hang on it? */
static bool lease_counts(const struct segments *s)
{
	for (uint32_t i = 0; s != NULL && i < s->n_segments; i++) {
		if (s->segments[i].lease_action != LEASE_HOLD)
			return true;
	}
	return false;
}

static void entry_lease(void *arg, uint64_t until_boot_ms)
{
	struct agent *a = arg;
	uint64_t now = clock_boot_ms();
	bool lapsed = a->lease_until_ms < now;
	char text[64];
	struct err err = {""};

	if (until_boot_ms <= a->lease_until_ms)
		return;
	a->lease_until_ms = until_boot_ms;
	a->lease_before_boot_ms = 0;
	/* Expiries that hang on the lease move with it; nobody's standing gets worse, so nothing has to be closed. */
	if (lapsed || lease_counts(a->segments)) {
		registry_touch_all(a->registry);
		enforce_now(a);
	}
	if (lapsed)
		log_info("controller vouches again until_ms=%llu",
			 (unsigned long long)until_boot_ms);
	if (now - a->lease_saved_ms < 10000 && a->lease_saved_ms != 0)
		return;
	a->lease_saved_ms = now;
	snprintf(text, sizeof(text), "%llu %llu",
		 (unsigned long long)(clock_wall_ms() +
				      (until_boot_ms > now ? until_boot_ms - now : 0)),
		 (unsigned long long)clock_wall_ms());
	if (store_meta_put(a->store, LEASE_KEY, text, &err) < 0)
		log_warn("lease not stored: %s", err.msg);
}

static void entry_alarm(void *arg, const char *kind, const char *text)
{
	agent_alarm(arg, kind, "%s", text);
}

const struct link_callbacks entry_callbacks = {
	.apply = entry_apply, .lease = entry_lease, .alarm = entry_alarm};
