/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/controller/pending.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/controller/feed.h"

struct waiter {
	char gateway[FRAME_GATEWAY_BYTES];
	const char
		*outcome; /* NULL: still waiting; "": answered; else why there will be no answer */
};

struct pending {
	struct pending *next;
	struct api_call *call;
	uint64_t revision, deadline_ms;
	uint8_t hash[32];
	json_t *receipts;
	uint32_t n;
	struct waiter waiters[FEED_GATEWAYS_MAX];
};

json_t *receipt_json(const struct receipt *r)
{
	return json_pack("{s:s, s:I, s:i, s:s, s:I, s:I, s:I, s:I}", "gateway", r->gateway,
			 "revision", (json_int_t)r->revision, "result", r->result, "text", r->text,
			 "in_force_us", (json_int_t)r->in_force_us, "sessions_closed",
			 (json_int_t)r->sessions_closed, "flows_closed",
			 (json_int_t)r->flows_closed, "untracked", (json_int_t)r->untracked);
}

static void add_waiter(void *arg, const char *gateway, uint64_t sent)
{
	struct pending *p = arg;

	(void)sent;
	snprintf(p->waiters[p->n++].gateway, FRAME_GATEWAY_BYTES, "%s", gateway);
}

static bool settled(const struct pending *p)
{
	for (uint32_t i = 0; i < p->n; i++) {
		if (p->waiters[i].outcome == NULL)
			return false;
	}
	return true;
}

/* Frees p, which is no longer in a list. */
static void answer(struct pending *p)
{
	char hex[HEX_SHA256_BYTES], warning[ERR_MSG_BYTES] = "";
	json_t *missing = json_array();
	size_t n = 0;
	json_t *obj =
		json_pack("{s:I, s:s, s:O, s:O}", "revision", (json_int_t)p->revision, "hash",
			  hex_text(hex, p->hash, 32), "receipts", p->receipts, "missing", missing);

	if (p->n == 0)
		snprintf(warning, sizeof(warning),
			 "no gateway is connected: the decision takes effect when one connects");
	for (uint32_t i = 0; i < p->n; i++) {
		const char *outcome = p->waiters[i].outcome == NULL ? "no receipt in time"
								    : p->waiters[i].outcome;

		if (outcome[0] == '\0')
			continue;
		json_array_append_new(missing, json_string(p->waiters[i].gateway));
		if (n < sizeof(warning))
			n += (size_t)snprintf(warning + n, sizeof(warning) - n, "%s%s: %s",
					      n > 0 ? "; " : "", p->waiters[i].gateway, outcome);
	}
	if (obj != NULL && warning[0] != '\0')
		json_object_set_new(obj, "warning", json_string(warning));
	json_decref(missing);
	api_reply(p->call, obj);
	json_decref(p->receipts);
	free(p);
}

/* Answer all that are settled or past their deadline. Answering can add new ones to the head of the list. */
static void sweep(struct pending **list, uint64_t now_boot_ms)
{
	struct pending *due = NULL, *p;

	for (struct pending **at = list; *at != NULL;) {
		p = *at;
		if (!settled(p) && now_boot_ms < p->deadline_ms) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		p->next = due;
		due = p;
	}
	while ((p = due) != NULL) {
		due = p->next;
		answer(p);
	}
}

void pending_add(struct pending **list, struct api_call *call, const struct feed *feed,
		 uint64_t revision, const uint8_t hash[32], uint64_t deadline_boot_ms)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (p != NULL)
		p->receipts = json_array();
	if (p == NULL || p->receipts == NULL) {
		free(p);
		api_fail(call, "internal",
			 "out of memory; the decision is in the log as revision %llu",
			 (unsigned long long)revision);
		return;
	}
	p->call = call;
	p->revision = revision;
	p->deadline_ms = deadline_boot_ms;
	memcpy(p->hash, hash, sizeof(p->hash));
	feed_gateways(feed, add_waiter, p);
	if (p->n == 0) {
		answer(p);
		return;
	}
	p->next = *list;
	*list = p;
}

static struct waiter *find_waiter(struct pending *p, const char *gateway)
{
	for (uint32_t i = 0; i < p->n; i++) {
		if (p->waiters[i].outcome == NULL && strcmp(p->waiters[i].gateway, gateway) == 0)
			return &p->waiters[i];
	}
	return NULL;
}

void pending_receipt(struct pending **list, const struct receipt *r, uint64_t covers)
{
	for (struct pending *p = *list; p != NULL; p = p->next) {
		struct waiter *w = find_waiter(p, r->gateway);

		if (w == NULL || p->revision < covers || p->revision > r->revision)
			continue;
		w->outcome = "";
		json_array_append_new(p->receipts, receipt_json(r));
	}
	sweep(list, 0);
}

void pending_gone(struct pending **list, const char *gateway)
{
	for (struct pending *p = *list; p != NULL; p = p->next) {
		struct waiter *w = find_waiter(p, gateway);

		if (w != NULL)
			w->outcome = "its connection ended before its receipt came";
	}
	sweep(list, 0);
}

void pending_tick(struct pending **list, uint64_t now_boot_ms)
{
	sweep(list, now_boot_ms);
}

void pending_free(struct pending **list)
{
	struct pending *p;

	while ((p = *list) != NULL) {
		*list = p->next;
		api_fail(p->call, "unavailable",
			 "the controller stops; the decision is in the log as revision %llu",
			 (unsigned long long)p->revision);
		json_decref(p->receipts);
		free(p);
	}
}
