/* SPDX-License-Identifier: GPL-3.0-or-later */
/* state: what the whole log adds up to, by folding it entry by entry (decision.h says what each operation means).
 * The controller checks commands against it and makes snapshots of it. Pure: no I/O, no clock. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "controlplane/decision.h"

struct state;

struct state_device {
	uint8_t identity_kind;
	char identity[MSG_IDENTITY_BYTES];
	/* each NULL, or the decision that says so; owned */
	struct decision *enrol, *quarantine, *attest;
};

struct state_software {
	uint8_t digest[32];
	struct decision *certify, *revoke;
};

int state_new(struct state **out); /* @return 0 or -ENOMEM */
void state_free(struct state *s); /* NULL is a no-op */

/** @return 0 or -ENOMEM: the state is then of no more use */
int state_fold(struct state *s, const struct decision_entry *e);

/** A device that the log ever named, enrolled or not. NULL if none. Good until the next fold. */
const struct state_device *state_find_device(struct state *s, uint8_t identity_kind,
					     const char *identity);
const struct state_software *state_find_software(struct state *s, const uint8_t digest[32]);
const struct decision *state_policy(const struct state *s); /* NULL: none yet */

/**
 * The operations that rebuild this state, revocations included.
 * @param[out] out  an array from malloc; free with free() alone: texts in it stay the state's
 * @return 0 or -ENOMEM
 */
int state_operations(struct state *s, struct decision **out, uint32_t *n);

/** For people: {devices:[..], revocations:[..], software:[..], policy:{..}|null}. NULL: out of memory */
json_t *state_json(struct state *s);
