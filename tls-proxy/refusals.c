/* SPDX-License-Identifier: GPL-3.0-or-later */
/* refusals: each handshake that is refused is told to the log and to the agent, but a flood of them in sums: a line and a
 * message each would cost more than the refusals. */
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"
#include "tls-proxy/worker.h"

#define EACH_A_SECOND 32

/* The last sum is of all reasons that found none of their own. */
static struct refusal *sum_of(struct refusals *r, const char *reason)
{
	struct refusal *sum = r->sums;

	while (sum < r->sums + REFUSALS_SUMS - 1 && sum->n > 0 && strcmp(sum->reason, reason) != 0)
		sum++;
	if (sum->n == 0)
		snprintf(sum->reason, sizeof(sum->reason), "%s",
			 sum < r->sums + REFUSALS_SUMS - 1 ? reason : "other");
	return sum;
}

static void sums_tell(struct worker *w)
{
	struct refusals *r = &w->refusals;

	for (struct refusal *sum = r->sums; sum < r->sums + REFUSALS_SUMS && sum->n > 0; sum++) {
		log_info("handshakes refused n=%u why=\"%s\": beside the %d a second that are told "
			 "one by one",
			 sum->n, sum->reason, EACH_A_SECOND);
		agent_refused(w, NULL, sum->reason, sum->n);
		sum->n = 0;
	}
}

void refusals_tick(struct worker *w, uint64_t now_ms)
{
	struct refusals *r = &w->refusals;

	if (now_ms / 1000 == r->second)
		return;
	r->second = now_ms / 1000;
	r->told = 0;
	sums_tell(w);
}

void refusal_tell(const struct conn *c, const char *reason)
{
	struct refusals *r = &c->w->refusals;
	char text[sizeof(r->sums[0].reason)];

	refusals_tick(c->w, clock_boot_ms());
	if (r->told < EACH_A_SECOND) {
		r->told++;
		conn_log(c, "handshake refused", reason);
		agent_refused(c->w, c, reason, 1);
		return;
	}
	snprintf(text, sizeof(text), "%.127s", reason);
	sum_of(r, text)->n++;
}
