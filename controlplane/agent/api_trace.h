/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api_trace: `sallyctl trace`. One trace at a time: start it, ask for what came, stop it; it also ends by itself, when
 * nobody asks for three seconds, by its time, or when it is complete. */
#pragma once

#include <jansson.h>

#include "controlplane/agent/agent.h"

#define TRACE_ASKED_MS 3000

struct trace_session;

/** {"filter": {...}, "count": n, "for_ms": n}: answers {"id"} once all workers trace. */
void api_trace_start(struct agent *a, struct api_call *call, json_t *request);
/** {"id", "after": n}: {"packets": [...], "next": n, "done": bool} */
void api_trace_poll(struct agent *a, struct api_call *call, json_t *request);
/** {"id"} */
void api_trace_stop(struct agent *a, struct api_call *call, json_t *request);

int trace_came(struct agent *a, const struct msg_traced *m); /* 0, or -EPROTO: impossible */
void trace_tick(struct agent *a, uint64_t now_ms);
void trace_free(struct agent *a);

/** What a filter's names stand for; each returns false if there is no such thing. */
struct trace_names {
	void *arg;
	bool (*device)(void *arg, const char *name, uint32_t *slot);
	bool (*port)(void *arg, const char *name, uint16_t *index);
};

/**
 * A filter from outside: {"src","dst","host": prefix, "proto": "tcp|udp|icmp|icmp6" or number, "sport","dport","vlan":
 * number, "port","device","reason": name, "drop": true}. Pure, but for the names.
 * @return 0 or -EINVAL with text in err; out is then untouched
 */
int trace_filter_read(struct msg_trace_filter *out, const json_t *filter,
		      const struct trace_names *names, struct err *err);
