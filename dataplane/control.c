/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/control.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <rte_ring_elem.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "dataplane/hotplug.h"
#include "dataplane/judge.h"
#include "dataplane/query.h"
#include "dataplane/sweep.h"
#include "dataplane/trace.h"
#include "dataplane/worker.h"

#define KNOCK_FIRST_MS 20
#define KNOCK_LAST_MS 1000
#define REPLY_WAIT_MS 5000 /* an agent that is stopped, or hangs, is not waited for longer */
#define ROUND_MS 100 /* flow logs wait at most so long */
#define MESSAGES_A_ROUND 512
#define SWEEP_LOOK_US 200

enum { CONTINUE = 0, ANOTHER_CONFIG = 1 };

struct server { /* what control_run() passes around */
	struct control *c;
	struct state *st;
	struct apply *a;
	struct sweeper sweeper;
	struct judge *judge; /* made at the first question */
};

int control_init(struct control *c, const char *path, const volatile sig_atomic_t *stop)
{
	*c = (struct control){.path = path, .stop = stop, .sock = -1};
	if (getrandom(&c->instance, sizeof(c->instance), 0) != sizeof(c->instance))
		return -EIO;
	return 0;
}

static void hang_up(struct control *c)
{
	if (c->sock >= 0)
		close(c->sock);
	c->sock = -1;
}

void control_fini(struct control *c)
{
	hang_up(c);
}

/* Signals (the TAP PMD's SIGIO among them) interrupt, so the deadline counts. @return 0, -ETIMEDOUT or -EINTR */
static int wait_for(const struct control *c, short events, uint64_t ms)
{
	uint64_t until = clock_boot_ms() + ms, now;

	while ((now = clock_boot_ms()) < until) {
		struct pollfd p = {.fd = events != 0 ? c->sock : -1, .events = events};
		uint64_t left = until - now;

		if (*c->stop)
			return -EINTR;
		if (poll(&p, 1, left < ROUND_MS ? (int)left : ROUND_MS) > 0)
			return 0;
	}
	return *c->stop ? -EINTR : -ETIMEDOUT;
}

static int say(struct control *c, const void *msg)
{
	int ret = msg_send(c->sock, msg, -1);

	while (ret == -EAGAIN) {
		ret = wait_for(c, POLLOUT, REPLY_WAIT_MS);
		if (ret == 0)
			ret = msg_send(c->sock, msg, -1);
	}
	return ret;
}

static int hear(struct control *c, union msg_any *m, uint16_t type, struct err *err)
{
	ssize_t n;
	int ret = wait_for(c, POLLIN, REPLY_WAIT_MS);

	if (ret < 0)
		return err_set(err, ret, "waiting for %s: %s", msg_type_name(type), strerror(-ret));
	n = msg_recv(c->sock, m, NULL);
	if (n <= 0)
		return err_set(err, n < 0 ? (int)n : -ECONNRESET, "waiting for %s: hung up",
			       msg_type_name(type));
	if (m->h.type != type)
		return err_set(err, -EPROTO, "%s came instead of %s", msg_type_name(m->h.type),
			       msg_type_name(type));
	return 0;
}

/* HELLO > WELCOME, DP_CONFIG. Fills trust_path; cfg is the caller's. */
static int meet(struct control *c, struct msg_dp_config *cfg, struct err *err)
{
	struct msg_hello hello = {.version = MSG_VERSION,
				  .role = MSG_ROLE_DATAPLANE,
				  .pid = getpid(),
				  .instance = c->instance};
	const struct msg_welcome *welcome;
	union msg_any m;
	int ret;

	c->sock = msg_connect(c->path);
	if (c->sock < 0)
		return err_set(err, c->sock, "%s: %s", c->path, strerror(-c->sock));
	MSG_INIT(&hello, MSG_HELLO, 1);
	ret = say(c, &hello);
	if (ret < 0)
		return err_set(err, ret, "HELLO: %s", strerror(-ret));
	ret = hear(c, &m, MSG_WELCOME, err);
	if (ret < 0)
		return ret;
	welcome = (const void *)&m;
	if (welcome->version != MSG_VERSION ||
	    memchr(welcome->trust_path, '\0', sizeof(welcome->trust_path)) == NULL)
		return err_set(err, -EPROTO, "WELCOME of version %u", welcome->version);
	memcpy(c->trust_path, welcome->trust_path, sizeof(c->trust_path));
	ret = hear(c, &m, MSG_DP_CONFIG, err);
	if (ret < 0)
		return ret;
	*cfg = m.dp_config;
	cfg->h = (struct msg_hdr){0};
	return 0;
}

static int forward_traced(struct control *c, struct state *st)
{
	struct msg_traced msg;

	for (unsigned i = 0; i < st->n_workers; i++) {
		while (rte_ring_sc_dequeue_elem(st->workers[i]->traced, &msg, sizeof(msg)) == 0) {
			int ret = c->sock >= 0 ? msg_send(c->sock, &msg, -1) : 0;

			if (ret < 0 && ret != -EAGAIN)
				return ret;
		}
	}
	trace_tick(st, clock_boot_us());
	return 0;
}

static int forward_logs(struct control *c, struct state *st)
{
	struct msg_flow_log msg;

	for (unsigned i = 0; i < st->n_workers; i++) {
		while (rte_ring_sc_dequeue_elem(st->workers[i]->log, &msg, sizeof(msg)) == 0) {
			int ret = c->sock >= 0 ? msg_send(c->sock, &msg, -1) : 0;

			if (ret < 0 && ret != -EAGAIN) /* a slow reader loses logs, not packets */
				return ret;
		}
	}
	return forward_traced(c, st);
}

/* Until the agent answers. Says once that it is away, not at each knock. */
static int meet_patiently(struct control *c, struct msg_dp_config *cfg, const struct server *s)
{
	uint64_t knock_ms = KNOCK_FIRST_MS;
	bool said = false;

	while (!*c->stop) {
		struct err err = {0};

		if (meet(c, cfg, &err) == 0)
			return 0;
		hang_up(c);
		if (!said && !*c->stop)
			log_warn("agent away: %s", err.msg);
		said = true;
		if (s != NULL)
			(void)forward_logs(c, s->st);
		if (wait_for(c, 0, knock_ms) == -EINTR)
			break;
		knock_ms = knock_ms * 2 < KNOCK_LAST_MS ? knock_ms * 2 : KNOCK_LAST_MS;
	}
	return -EINTR;
}

int control_first_meeting(struct control *c)
{
	return meet_patiently(c, &c->cfg, NULL);
}

static int reply_result(struct control *c, uint64_t seq, int code, const struct err *err)
{
	struct msg_result r = {.code = code};

	if (seq == 0)
		return 0;
	MSG_INIT(&r, code == 0 ? MSG_OK : MSG_ERROR, seq);
	if (code != 0)
		memcpy(r.text, err->msg, sizeof(r.text));
	return say(c, &r);
}

struct lister {
	struct control *c;
	uint64_t seq;
};

static int send_info(void *arg, struct msg_flow_info *info)
{
	struct lister *l = arg;

	info->h.seq = l->seq;
	return say(l->c, info);
}

static int send_tallies(void *arg, struct msg_tallies *part)
{
	struct lister *l = arg;

	part->h.seq = l->seq;
	return say(l->c, part);
}

static int answer_judge(struct server *s, const struct msg_judge *m)
{
	struct err err = {0};
	struct msg_traced out;
	int ret = s->judge != NULL ? 0 : judge_new(&s->judge, s->st);

	if (ret == 0)
		ret = judge_flow(s->judge, m, &out);
	if (ret < 0) {
		err_set(&err, ret, "%s", strerror(-ret));
		return reply_result(s->c, m->h.seq, ret, &err);
	}
	MSG_INIT(&out, MSG_JUDGED, m->h.seq);
	return say(s->c, &out);
}

static bool flows_get_ok(const struct msg_flows_get *m)
{
	return m->order <= FLOWS_BY_BYTES && m->segment <= POLICY_ID_MAX;
}

/* Also when the agent comes back: a port that is absent is tried again then. */
static int ports_follow(struct server *s, const struct msg_dp_config *want, struct err *err)
{
	int ret = hotplug_apply(s->st, want, err);

	s->c->cfg = s->st->cfg;
	return ret;
}

/* @return 0, or -errno: the connection is of no use any more */
static int answer(struct server *s, union msg_any *m, int fd)
{
	struct err err = {0};
	int ret;

	switch (m->h.type) {
	case MSG_FLOW_ORIGIN:
		query_origin(s->st, (void *)m);
		return say(s->c, m);
	case MSG_SWEEP:
		ret = sweep_order(&s->sweeper, (const void *)m);
		if (ret != -EAGAIN)
			return ret;
		return reply_result(s->c, m->h.seq, err_set(&err, ret, "too many sweeps at a time"),
				    &err);
	case MSG_STATS_GET: {
		struct msg_stats stats;

		memset(&stats, 0, sizeof(stats));
		MSG_INIT(&stats, MSG_STATS, m->h.seq);
		query_stats(s->st, &stats);
		return say(s->c, &stats);
	}
	case MSG_FLOWS_GET: {
		const struct msg_flows_get *get = (const void *)m;
		struct lister l = {.c = s->c, .seq = m->h.seq};

		if (!flows_get_ok(get))
			return -EPROTO;
		ret = query_flows(s->st, get, send_info, &l);
		if (ret < 0 && ret != -ENOMEM)
			return ret;
		return reply_result(s->c, l.seq, ret, &err);
	}
	case MSG_TALLIES_GET: {
		struct lister l = {.c = s->c, .seq = m->h.seq};

		ret = query_tallies(s->st, (const void *)m, send_tallies, &l);
		if (ret < 0 && ret != -ENOMEM)
			return ret;
		return reply_result(s->c, l.seq, ret, &err);
	}
	case MSG_TRACE_ARM:
		ret = trace_arm(s->st, (const void *)m, clock_boot_us());
		return ret == -EPROTO ? ret : reply_result(s->c, m->h.seq, ret, &err);
	case MSG_TRACE_DISARM:
		trace_disarm(s->st);
		return reply_result(s->c, m->h.seq, 0, &err);
	case MSG_JUDGE:
		return answer_judge(s, (const void *)m);
	case MSG_DP_CONFIG:
		ret = ports_follow(s, &m->dp_config, &err);
		return reply_result(s->c, m->h.seq, ret, &err);
	case MSG_OK:
		return 0;
	case MSG_ERROR:
		log_warn("agent reports an error seq=%llu", (unsigned long long)m->h.seq);
		return 0;
	}
	ret = apply_message(s->a, m, fd, &err);
	if (ret == 0 && m->h.seq != 0 && (m->h.type == MSG_ROUTE_ADD || m->h.type == MSG_ROUTE_DEL))
		ret = apply_flush(s->a);
	if (ret < 0)
		log_warn("message refused type=%s: %s", msg_type_name(m->h.type), err.msg);
	if (reply_result(s->c, m->h.seq, ret, &err) < 0 || ret == -EPROTO)
		return -EPROTO;
	return 0;
}

/* @return 0, or -errno: hang up */
static int read_messages(struct server *s)
{
	union msg_any m;

	for (unsigned i = 0; i < MESSAGES_A_ROUND; i++) {
		int fd, ret;
		ssize_t n = msg_recv(s->c->sock, &m, &fd);

		if (n == -EAGAIN)
			break;
		if (n <= 0)
			return n < 0 ? (int)n : -ECONNRESET;
		ret = answer(s, &m, fd);
		if (fd >= 0)
			close(fd);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* @return CONTINUE, ANOTHER_CONFIG, or -EINTR */
static int meet_again(struct server *s)
{
	struct msg_dp_config cfg;
	struct err err = {0};
	int ret = meet_patiently(s->c, &cfg, s);

	if (ret < 0)
		return ret;
	if (!hotplug_suffices(&cfg, &s->c->cfg))
		return ANOTHER_CONFIG;
	(void)ports_follow(s, &cfg, &err);
	err.msg[0] = '\0';
	ret = apply_trust(s->a, s->c->trust_path, true, &err);
	if (ret < 0) {
		log_error("trust table: %s", err.msg);
		hang_up(s->c);
		return wait_for(s->c, 0, KNOCK_LAST_MS) == -EINTR ? -EINTR : CONTINUE;
	}
	log_info("agent is back");
	return CONTINUE;
}

static int announce(struct control *c)
{
	struct msg_hdr ready = {.type = MSG_DP_READY, .bytes = sizeof(ready), .seq = 2};

	return say(c, &ready);
}

static int send_swept(void *arg, struct msg_sweep *m)
{
	return say(arg, m);
}

/* Small tables are swept while we look, large ones in the background. */
static int sweeps(struct server *s, uint64_t *wait_ms)
{
	uint64_t until = clock_boot_us() + SWEEP_LOOK_US;
	int ret = 0;

	while (ret == 0 && sweep_busy(&s->sweeper) && clock_boot_us() < until)
		ret = sweep_step(&s->sweeper, s->st, send_swept, s->c);
	if (sweep_busy(&s->sweeper))
		*wait_ms = 1;
	return ret;
}

int control_run(struct control *c, struct state *st, struct apply *a)
{
	struct server s = {.c = c, .st = st, .a = a};
	uint64_t wait_ms = ROUND_MS;
	int ret = announce(c);

	while (!*c->stop) {
		if (ret < 0 && c->sock >= 0) {
			log_warn("agent lost: %s", strerror(-ret));
			hang_up(c);
			sweep_drop(&s.sweeper, st);
		}
		if (c->sock < 0) {
			ret = meet_again(&s);
			if (ret == -EINTR)
				break;
			if (ret == ANOTHER_CONFIG)
				break;
			if (c->sock < 0)
				continue;
			ret = announce(c);
			continue;
		}
		ret = wait_for(c, POLLIN, wait_ms) == 0 ? read_messages(&s) : 0;
		wait_ms = ROUND_MS;
		if (ret == 0)
			ret = sweeps(&s, &wait_ms);
		if (ret == 0)
			ret = apply_flush_due(a, clock_boot_ms(), &wait_ms);
		if (ret == 0)
			ret = forward_logs(c, st);
	}
	sweep_drop(&s.sweeper, st);
	judge_free(s.judge);
	return ret == ANOTHER_CONFIG;
}
