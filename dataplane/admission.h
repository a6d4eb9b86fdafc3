/* SPDX-License-Identifier: GPL-3.0-or-later */
/* admission: may this end open this flow to that end, now? Reads the trust table, the policy and the clock that the
 * worker has pinned; changes nothing. The flow stage, the sweep and the tests ask the same function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/worker.h"

struct admission {
	uint32_t slot[2]; /* [0] the opener's, [1] the other end's; 0: a network */
	uint32_t generation[2];
	uint16_t segment[2];
	uint16_t rule; /* or FLOW_RULE_NONE */
	bool log;
};

/**
 * @param key  as the opener sees it; ICMP echo: `icmp_type` is judged, not the identifier
 * @param from, to  bindings of key->src, key->dst; NULL: a network's address
 * @param[out] out  filled as far as the judgement came, also when it refuses
 * @return DROP_NONE: admitted; else the reason
 */
enum drop_reason admission_judge(const struct worker *w, const struct flow_key *key,
				 const struct binding *from, const struct binding *to,
				 struct admission *out);

/** A flow again, in its opener's direction, with its ends' present bindings. */
enum drop_reason admission_of_flow(const struct worker *w, const struct flow *f,
				   const struct binding *const bind[2], struct admission *out);

/**
 * Would the flow's next packet pass without another admission?
 * @param bind  present bindings of id.src, id.dst
 */
bool admission_current(const struct worker *w, const struct flow *f,
		       const struct binding *const bind[2]);

/** Write what was judged into the flow: both ends and the rule. */
void admission_note(struct flow *f, const struct admission *a);

/** The key as the opener sees it. */
struct flow_key flow_opener_key(const struct flow *f);
