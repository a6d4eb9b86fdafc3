/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

#define CLOCK_JUMP_MS 1000

static uint16_t segment_id(const struct agent *a, const char *name)
{
	const struct policy_endpoint *ep;

	if (a->form == NULL || name[0] == '\0')
		return 0;
	ep = policy_endpoint_by_name(a->form, name);
	return ep != NULL ? ep->id : 0;
}

static void log_change(const struct device *dev, const struct judgement *was)
{
	const struct judgement *j = &dev->judged;

	if (was->standing == j->standing && was->reason == j->reason &&
	    strcmp(was->segment, j->segment) == 0)
		return;
	log_info("standing device=%s from=%s to=%s segment=%s revision=%llu why=\"%s\"",
		 dev->identity, standing_name(was->standing), standing_name(j->standing),
		 j->segment[0] != '\0' ? j->segment : "-", (unsigned long long)dev->revision,
		 decide_reason_text(j->reason));
}

struct evidence enforce_evidence(const struct agent *a, const struct device *dev, uint64_t now_ms)
{
	struct evidence ev =
		registry_evidence(a->registry, dev, a->lease_until_ms, now_ms, clock_wall_ms());

	ev.lease_before_boot_ms = a->lease_before_boot_ms;
	return ev;
}

const struct seg_segment *enforce_home(const struct agent *a, struct device *dev)
{
	const struct seg_segment *home;

	if (a->segments == NULL || dev->home == DEVICE_HOME_NONE)
		return NULL;
	if (dev->home != DEVICE_HOME_UNKNOWN)
		return &a->segments->segments[dev->home - 1];
	home = segments_match(a->segments, dev->kind, dev->identity);
	dev->home = home != NULL ? (uint32_t)(home - a->segments->segments) + 1 : DEVICE_HOME_NONE;
	return home;
}

bool enforce_judge(struct agent *a, struct device *dev)
{
	uint64_t now = clock_boot_ms(), now_us = clock_boot_us();
	struct judgement was = dev->judged;
	struct trust_state ts = {.revision = dev->revision, .identity_hash = dev->identity_hash};
	struct evidence ev;
	bool bump = dev->bump;

	if (a->segments != NULL) {
		ev = enforce_evidence(a, dev, now);
		dev->judged = decide(&ev, enforce_home(a, dev), a->segments, now);
	} else {
		dev->judged = (struct judgement){.reason = DECIDE_NONE, .next_ms = CLOCK_NEVER_MS};
	}
	dev->bump = false;
	ts.standing = dev->judged.standing;
	ts.reason = dev->judged.reason;
	ts.segment = segment_id(a, dev->judged.segment);
	ts.expires_ms = dev->judged.expires_ms;
	if (ts.segment == 0 && standing_passes(ts.standing))
		ts.standing = STANDING_UNKNOWN; /* fail closed: in no segment, no packet */
	memcpy(ts.cert_sha256_head, dev->cert.sha256, sizeof(ts.cert_sha256_head));
	log_change(dev, &was);
	return trust_writer_put(&a->trust, dev->slot, &ts, bump, now_us);
}

/* The device's elements in the open nft transaction follow its judgement. */
static int kernel_follow(struct agent *a, struct device *dev)
{
	struct nft_binding nb;
	struct binding *b;
	int ret = 0;

	LIST_FOREACH(b, &a->bound[dev->slot], of_device) {
		ret = binding_nft(a, b, &nb) ? nft_put_binding(a->nft, &nb)
					     : nft_del_binding(a->nft, &b->ip);
		if (ret < 0)
			break;
	}
	return ret;
}

/* Everything, as it should be now. */
static int kernel_put(struct agent *a, struct err *err)
{
	int ret = nft_begin(a->nft);

	if (ret < 0)
		return err_set(err, ret, "a change is under way");
	if (a->form != NULL)
		ret = nft_put_policy(a->nft, a->form);
	if (ret == 0)
		ret = bindings_put_all(a);
	if (ret == 0)
		return nft_commit(a->nft, err);
	nft_abort(a->nft);
	return err_set(err, ret, "%s", strerror(-ret));
}

/* The table itself may be gone. What a restore brings back is what was last in force: put what should be after it. */
static int kernel_recover(struct agent *a, struct err *err)
{
	int ret = kernel_put(a, err);

	if (ret < 0 && nft_restore(a->nft, err) == 0)
		ret = kernel_put(a, err);
	if (ret < 0)
		return ret;
	a->nft_retry_ms = 0;
	a->heartbeat_ms = 0; /* its lease is renewed at the next tick */
	return 0;
}

void enforce_kernel_failed(struct agent *a, const char *what, int ret, const struct err *err)
{
	const char *why = err->msg[0] != '\0' ? err->msg : strerror(-ret);
	struct err again = {""}, shut = {""};

	if (a->nft_retry_ms != 0) {
		log_warn("kernel plane is shut; %s: %s", what, why);
		return;
	}
	agent_alarm(a, "kernel-plane", "%s: %s", what, why);
	if (kernel_recover(a, &again) == 0) {
		log_info("kernel plane was put anew as a whole, and is in force");
		return;
	}
	a->nft_retry_ms = clock_boot_ms() + 1000;
	/* What should have gone may still be in it. */
	ret = nft_heartbeat(a->nft, 0, &shut);
	agent_alarm(a, "kernel-plane", "%s: %s",
		    ret == 0 ? "shut until it takes changes" : "cannot be shut",
		    ret == 0 ? again.msg : shut.msg);
}

bool enforce_is_upstream(const struct agent *a, const struct ip_addr *ip)
{
	for (uint32_t i = 0; i < a->cfg->n_listeners; i++) {
		const struct gw_listener *l = &a->cfg->listeners[i];

		for (uint32_t k = 0; k < l->n_upstreams; k++) {
			if (ip_addr_eq(ip, &l->upstreams[k].addr))
				return true;
		}
	}
	return false;
}

/* Whether others may reach a listener's upstream hangs on the device that holds its address. */
static bool holds_upstream(const struct agent *a, const struct device *dev)
{
	const struct binding *b;

	LIST_FOREACH(b, &a->bound[dev->slot], of_device) {
		if (enforce_is_upstream(a, &b->ip))
			return true;
	}
	return false;
}

/* A session whose own certificate gives less by now (revoked, not the pinned one, run out) ends even if the device has a
 * better one; so does a session whose upstream the policy now grants or denies. */
static void session_review(struct agent *a, struct session *s)
{
	const struct trust_record *r = &a->trust.rec[s->dev->slot];
	struct judgement j;
	uint8_t relay;

	/* Ended by its record before, and its worker has not told yet: what came after it must not end with it. */
	if (!standing_passes(s->dev->judged.standing) ||
	    atomic_load_explicit(&r->generation, memory_order_relaxed) != s->generation)
		return;
	j = enforce_judge_with(a, s->dev, &s->cert);
	relay = enforce_relay(a, s->dev, s->listener);
	/* One upstream more is for sessions to come, unless this one is held for want of any. */
	if (j.standing != s->dev->judged.standing || (s->relay & ~relay) != 0 ||
	    (s->relay == 0) != (relay == 0)) {
		s->dev->bump = true;
		registry_touch(a->registry, s->dev);
	}
}

/* One that ends its device's flows and sessions makes it dirty again. */
static void device_review(struct agent *a, struct device *dev)
{
	struct session *s;

	if (!dev->review)
		return;
	dev->review = false;
	LIST_FOREACH(s, &dev->held, of_device)
		session_review(a, s);
}

struct judgement enforce_judge_with(struct agent *a, struct device *dev,
				    const struct device_cert *c)
{
	uint64_t now = clock_boot_ms();
	struct device with = *dev;
	struct evidence ev;

	with.cert = *c;
	ev = enforce_evidence(a, &with, now);
	return decide(&ev, enforce_home(a, dev), a->segments, now);
}

static bool may_reach(const struct agent *a, const struct policy_form *form, uint16_t from,
		      uint8_t proto, const struct gw_upstream *u)
{
	struct binding *b = binding_find((struct agent *)a, &u->addr);
	const struct policy_endpoint *ep;
	const struct policy_entry *e;
	uint16_t to;

	if (b != NULL) {
		ep = policy_endpoint_by_name(form, b->dev->judged.segment);
		to = ep != NULL ? ep->id : 0;
	} else {
		to = policy_network_of(form, &u->addr);
	}
	e = policy_lookup(form, from, to, proto, u->port);
	return e != NULL && e->action == POLICY_ALLOW;
}

uint8_t enforce_relay_by(const struct agent *a, const struct policy_form *form, uint16_t from,
			 uint8_t listener)
{
	const struct gw_listener *l;
	uint8_t relay = 0;

	if (listener >= a->cfg->n_listeners)
		return 0; /* gone, and with it what its bits meant */
	l = &a->cfg->listeners[listener];

	for (uint32_t i = 0; i < l->n_upstreams; i++)
		relay |= may_reach(a, form, from, gw_listener_proto(l), &l->upstreams[i]) ? 1u << i
											  : 0;
	return relay;
}

uint8_t enforce_relay(const struct agent *a, const struct device *dev, uint8_t listener)
{
	uint16_t from = segment_id(a, dev->judged.segment);

	return from != 0 && standing_passes(dev->judged.standing)
		       ? enforce_relay_by(a, a->form, from, listener)
		       : 0;
}

struct enforcement *enforcement_new(struct agent *a, void (*done)(void *arg, struct enforcement *e),
				    void *arg)
{
	struct enforcement *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->a = a;
	e->t0_us = clock_boot_us();
	e->done = done;
	e->arg = arg;
	return e;
}

static void answered(struct enforcement *e)
{
	if (--e->open == 0)
		e->done(e->arg, e);
}

static void swept(void *arg, const union msg_any *reply)
{
	struct enforcement *e = arg;

	if (reply != NULL && reply->h.type == MSG_SWEEP)
		e->flows_closed += ((const struct msg_sweep *)reply)->closed;
	else
		e->untracked++;
	answered(e);
}

static void rechecked(void *arg, const union msg_any *reply)
{
	struct enforcement *e = arg;

	if (reply != NULL && reply->h.type == MSG_RECHECKED)
		e->sessions_closed += ((const struct msg_recheck *)reply)->closed;
	else
		e->untracked++;
	answered(e);
}

/* Devices whose generation changed and that could pass before. */
struct changed {
	uint32_t n; /* also counts those that `slot` has no room for */
	uint32_t slot[MSG_SWEEP_SLOTS];
};

static void note_changed(struct changed *c, uint32_t slot)
{
	if (c->n < MSG_SWEEP_SLOTS)
		c->slot[c->n] = slot;
	c->n++;
}

/* The trust table has spoken already; this makes idle sessions and flows end now, and counts them. */
static void confirm(struct enforcement *e, const struct changed *c)
{
	struct peer *tls[PEERS_MAX], *dp = e->a->dp_ready ? peers_dataplane(e->a->peers) : NULL;
	uint32_t n = peers_tls(e->a->peers, tls, PEERS_MAX);

	for (uint32_t i = 0; i < n; i++) {
		struct msg_recheck m = {.slot = !e->all && c->n == 1 ? c->slot[0] : 0};

		MSG_INIT(&m, MSG_RECHECK, 0);
		e->open++;
		peer_request(tls[i], &m, -1, AGENT_ANSWER_MS, rechecked, e);
	}
	if (dp != NULL) {
		struct msg_sweep m = {0};

		if (!e->all && c->n <= MSG_SWEEP_SLOTS) {
			m.n_slots = c->n;
			memcpy(m.slot, c->slot, c->n * sizeof(m.slot[0]));
		}
		MSG_INIT(&m, MSG_SWEEP, 0);
		e->open++;
		peer_request(dp, &m, -1, AGENT_ANSWER_MS, swept, e);
	}
}

int enforce_dirty(struct agent *a, struct enforcement *e)
{
	struct changed changed = {0};
	struct device *dev;
	struct err err = {""};
	bool passed;
	int ret;

	ret = nft_begin(a->nft);
	/* All records first: they stop the fast path and TLS with one store each. */
	while ((dev = registry_next_dirty(a->registry)) != NULL) {
		passed = standing_passes(dev->judged.standing);
		if (enforce_judge(a, dev)) {
			/* What could not pass has no session and no flow that could be left over. */
			if (passed)
				note_changed(&changed, dev->slot);
			a->review |= holds_upstream(a, dev);
		}
		device_review(a, dev);
		if (ret == 0)
			ret = kernel_follow(a, dev);
	}
	/* They end sessions while the kernel, which takes longer, has our time. */
	if (e != NULL && changed.n > 0 && !e->all)
		confirm(e, &changed);
	if (ret == 0)
		ret = nft_commit(a->nft, &err);
	else
		nft_abort(a->nft);
	if (ret < 0)
		enforce_kernel_failed(a, "change not in force", ret, &err);
	return a->nft_retry_ms == 0 ? 0 : ret;
}

static void sessions_review(struct agent *a)
{
	struct session *s;

	if (!a->review)
		return;
	a->review = false;
	LIST_FOREACH(s, &a->sessions, next)
		session_review(a, s);
}

void enforce_run(struct enforcement *e)
{
	int ret;

	e->open++; /* ours, so that done() comes last */
	ret = enforce_dirty(e->a, e);
	sessions_review(e->a);
	if (ret == 0)
		ret = enforce_dirty(e->a, e);
	else
		enforce_dirty(e->a, e);
	if (ret < 0) {
		e->result = ret;
		snprintf(e->text, sizeof(e->text), "kernel plane: %s", strerror(-ret));
	}
	if (e->all)
		confirm(e, NULL);
	answered(e);
}

static void now_done(void *arg, struct enforcement *e)
{
	(void)arg;
	free(e);
}

void enforce_now(struct agent *a)
{
	struct enforcement *e;

	if (!a->review && !registry_is_dirty(a->registry))
		return; /* most devices that come are known */
	e = enforcement_new(a, now_done, NULL);
	if (e != NULL)
		enforce_run(e);
	else
		enforce_dirty(a, NULL);
}

/* What the kernel plane refused is tried again as a whole. */
static void kernel_retry(struct agent *a, uint64_t now_ms)
{
	struct err err = {""};
	int ret;

	if (a->nft_retry_ms == 0 || now_ms < a->nft_retry_ms)
		return;
	ret = kernel_recover(a, &err);
	if (ret == 0) {
		log_info("kernel plane is in force again");
		return;
	}
	a->nft_retry_ms = now_ms + 5000;
	agent_alarm(a, "kernel-plane", "still not in force: %s", err.msg);
}

void enforce_tick(struct agent *a, uint64_t now_ms)
{
	int64_t offset = (int64_t)clock_wall_ms() - (int64_t)now_ms;
	bool due = false;

	if (offset - a->wall_minus_boot_ms > CLOCK_JUMP_MS ||
	    a->wall_minus_boot_ms - offset > CLOCK_JUMP_MS) {
		log_warn("wall clock moved by %lld ms: all standings are judged again",
			 (long long)(offset - a->wall_minus_boot_ms));
		/* Only now: a clock that is slewed for long gets as far as one that is set. */
		a->wall_minus_boot_ms = offset;
		registry_touch_all(a->registry);
		a->review = due = true;
	}
	due |= a->review;
	for (uint32_t i = 0; i < registry_devices(a->registry); i++) {
		struct device *dev = registry_device(a->registry, i);

		if (dev->judged.next_ms <= now_ms) {
			registry_touch(a->registry, dev);
			due = true;
		}
	}
	if (due)
		enforce_now(a);
	kernel_retry(a, now_ms);
}
