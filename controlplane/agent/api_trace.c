/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/api_trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "config/base/clock.h"
#include "controlplane/agent/api_why.h"
#include "controlplane/agent/traced.h"

#define COUNT_DEFAULT 10
#define FOR_DEFAULT_MS 30000

struct trace_session {
	uint64_t id;
	uint32_t count;
	uint64_t until_ms, asked_ms; /* boot clock */
	json_t *packets;
	struct api_call *starting; /* until the dataplane has said OK */
};

static bool device_slot(void *arg, const char *name, uint32_t *slot)
{
	const struct device *d = api_device(arg, name);

	if (d != NULL)
		*slot = d->slot;
	return d != NULL;
}

static bool port_index(void *arg, const char *name, uint16_t *index)
{
	const struct agent *a = arg;

	for (uint32_t i = 0; i < a->cfg->n_ports; i++) {
		if (strcmp(a->cfg->ports[i].name, name) == 0) {
			*index = (uint16_t)i;
			return true;
		}
	}
	return false;
}

void trace_free(struct agent *a)
{
	if (a->trace == NULL)
		return;
	json_decref(a->trace->packets);
	free(a->trace);
	a->trace = NULL;
}

static bool is_complete(const struct trace_session *t, uint64_t now_ms)
{
	return json_array_size(t->packets) >= t->count || now_ms >= t->until_ms;
}

static void disarmed(void *arg, const union msg_any *reply)
{
	(void)arg;
	(void)reply;
}

static void disarm(struct agent *a)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_trace_arm m = {.id = a->trace->id};

	MSG_INIT(&m, MSG_TRACE_DISARM, 0);
	if (dp != NULL)
		peer_request(dp, &m, -1, AGENT_ANSWER_MS, disarmed, a);
	trace_free(a);
}

/* ---- start ---- */

static void armed(void *arg, const union msg_any *reply)
{
	struct agent *a = arg;
	struct trace_session *t = a->trace;
	struct api_call *call;

	if (t == NULL || t->starting == NULL)
		return;
	call = t->starting;
	t->starting = NULL;
	if (reply != NULL && reply->h.type == MSG_OK) {
		api_reply(call, json_pack("{s:I}", "id", (json_int_t)t->id));
		return;
	}
	trace_free(a);
	api_fail(call, "unavailable", "the dataplane did not take the trace");
}

static json_int_t number_or(const json_t *request, const char *key, json_int_t without)
{
	const json_t *v = json_object_get(request, key);

	return json_is_integer(v) ? json_integer_value(v) : without;
}

static bool read_request(struct agent *a, struct api_call *call, const json_t *request,
			 struct msg_trace_arm *m)
{
	const struct trace_names names = {a, device_slot, port_index};
	json_int_t count = number_or(request, "count", COUNT_DEFAULT);
	json_int_t for_ms = number_or(request, "for_ms", FOR_DEFAULT_MS);
	struct err err = {""};

	if (trace_filter_read(&m->filter, json_object_get(request, "filter"), &names, &err) < 0) {
		api_fail(call, "invalid", "%s", err.msg);
		return false;
	}
	if (count < 1 || count > MSG_TRACE_COUNT_MAX || for_ms < 1 || for_ms > MSG_TRACE_MS_MAX) {
		api_fail(call, "invalid", "a trace has 1 to %d packets and ends within %d s",
			 MSG_TRACE_COUNT_MAX, MSG_TRACE_MS_MAX / 1000);
		return false;
	}
	m->count = (uint32_t)count;
	m->for_ms = (uint32_t)for_ms;
	return true;
}

void api_trace_start(struct agent *a, struct api_call *call, json_t *request)
{
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	uint64_t now = clock_boot_ms();
	struct msg_trace_arm m = {0};
	struct trace_session *t;

	trace_tick(a, now);
	if (!read_request(a, call, request, &m))
		return;
	if (a->trace != NULL && !is_complete(a->trace, now)) {
		api_fail(call, "conflict",
			 "another trace is under way for %llu s more; one at a time",
			 (unsigned long long)(a->trace->until_ms - now) / 1000 + 1);
		return;
	}
	trace_free(a);
	t = dp != NULL ? calloc(1, sizeof(*t)) : NULL;
	if (t == NULL || getrandom(&t->id, sizeof(t->id), 0) != sizeof(t->id)) {
		free(t);
		api_fail(call, "unavailable", "the dataplane is not connected");
		return;
	}
	t->id &= INT64_MAX; /* JSON integers have a sign */
	t->count = m.count;
	t->until_ms = now + m.for_ms;
	t->asked_ms = now;
	t->packets = json_array();
	t->starting = call;
	a->trace = t;
	m.id = t->id;
	MSG_INIT(&m, MSG_TRACE_ARM, 0);
	peer_request(dp, &m, -1, AGENT_ANSWER_MS, armed, a);
}

/* ---- packets ---- */

int trace_came(struct agent *a, const struct msg_traced *m)
{
	if (!msg_traced_check(m, a->cfg->n_ports))
		return -EPROTO;
	/* one of a trace that was stopped may still be on its way */
	if (a->trace != NULL && a->trace->id == m->id &&
	    json_array_size(a->trace->packets) < a->trace->count)
		json_array_append_new(a->trace->packets, traced_json(a, m));
	return 0;
}

static struct trace_session *session_of(struct agent *a, struct api_call *call,
					const json_t *request)
{
	if (a->trace != NULL && (json_int_t)a->trace->id == number_or(request, "id", -1))
		return a->trace;
	api_fail(call, "not_found", "there is no such trace, or it has ended");
	return NULL;
}

void api_trace_poll(struct agent *a, struct api_call *call, json_t *request)
{
	struct trace_session *t = session_of(a, call, request);
	json_int_t after = number_or(request, "after", 0);
	json_t *list;
	size_t n;

	if (t == NULL)
		return;
	t->asked_ms = clock_boot_ms();
	n = json_array_size(t->packets);
	list = json_array();
	for (size_t i = after < 0 ? 0 : (size_t)after; i < n; i++)
		json_array_append(list, json_array_get(t->packets, i));
	api_reply(call, json_pack("{s:o,s:I,s:b}", "packets", list, "next", (json_int_t)n, "done",
				  is_complete(t, t->asked_ms)));
}

void api_trace_stop(struct agent *a, struct api_call *call, json_t *request)
{
	if (session_of(a, call, request) == NULL)
		return;
	disarm(a);
	api_reply(call, json_object());
}

void trace_tick(struct agent *a, uint64_t now_ms)
{
	struct trace_session *t = a->trace;

	if (t != NULL && t->starting == NULL && now_ms - t->asked_ms > TRACE_ASKED_MS)
		disarm(a);
}
