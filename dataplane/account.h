/* SPDX-License-Identifier: GPL-3.0-or-later */
/* account: how much passed, and was refused, under which rule, between which segments, by which device. The packet path
 * pays nothing for it: a flow counts its packets and bytes; they are folded into its worker's accounts when the flow
 * ends or comes under another rule, and a question adds what the live flows hold.
 *
 * An account is (rule, from, to, reason): names, not the indices of one policy, so that it goes on when a policy is
 * replaced. Each worker has its own, opened when a flow is admitted or refused; account 0 takes what has no other: more
 * than ACCOUNTS_MAX of them, or flows that outlived two policies. Reason is DROP_NONE for what passed.
 * A device's account counts flows at either of its ends.
 *
 * The worker writes. The control thread reads names below accounts_count(), and counters by a query alone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"
#include "config/base/reason.h"

#define ACCOUNTS_MAX 4096
#define ACCOUNT_OTHER 0

struct worker;
struct flow;
struct admission;
struct accounts;

struct tally {
	uint64_t packets, bytes; /* that passed; of a refusal: that were refused */
	uint64_t flows; /* started; of a refusal: judgements */
	uint64_t open; /* now; of a query alone */
};

struct account_name {
	char rule[POLICY_NAME_BYTES], from[POLICY_NAME_BYTES], to[POLICY_NAME_BYTES]; /* "": none */
	uint8_t reason; /* enum drop_reason */
};

struct device_tally {
	uint64_t packets, bytes; /* that passed, both directions */
	uint64_t flows; /* started */
	uint64_t refused; /* packets */
	uint64_t diverted; /* packets to a listener */
	uint64_t open; /* flows now; of a query alone */
};

/* What a query adds to; the asker's. */
struct account_query {
	struct tally *account; /* ACCOUNTS_MAX of them */
	struct device_tally *device; /* by slot; accounts_devices() of them. NULL: not asked for */
};

/** @param slots  of the trust table; a device beyond is not counted by itself @return 0 or -ENOMEM */
int accounts_new(struct accounts **out, uint32_t slots);
void accounts_free(struct accounts *a); /* NULL is a no-op */

/** Fetch what account_open() will write for a device. */
void account_prefetch(const struct worker *w, uint32_t slot);

/** A flow was admitted or refused (state, rule, epoch and ends are set): note where it counts. Worker. */
void account_open(struct worker *w, const struct flow *f);
/** Fold what the flow holds: it is removed now. Worker. */
void account_close(struct worker *w, const struct flow *f);
/** The same for a flow that stays, and will count elsewhere: its packets and bytes begin anew. Worker. */
void account_leave(struct worker *w, struct flow *f);
/** A refusal that got no place in the flow table. Worker. */
void account_refused(struct worker *w, const struct admission *a, enum drop_reason why,
		     uint16_t ip_bytes);
/** Would the flow count elsewhere after this admission? Then it leaves before, and is opened after. Worker. */
bool account_moves(struct worker *w, const struct flow *f, const struct admission *a);

/**
 * A bounded step of a query. What ends while it runs is counted once, so no sum is ever lower than in an earlier query.
 * @param at  0 at first; kept between the steps
 * @return true: q is complete
 */
bool account_query_step(struct worker *w, struct account_query *q, uint64_t *at);

uint32_t accounts_count(const struct accounts *a); /* any thread */
uint32_t accounts_devices(const struct accounts *a); /* constant */
/** The name of an account below accounts_count(); never changes. Any thread. */
const struct account_name *accounts_name(const struct accounts *a, uint32_t i);
