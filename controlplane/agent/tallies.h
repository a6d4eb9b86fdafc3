/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tallies: the dataplane's accounts, added up over its workers. Rules and endpoints are named by the dataplane, so an
 * account goes on over policies. Counters begin anew with a new dataplane. Agent's main thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/msg.h"

struct agent;

struct tallies {
	uint32_t n_accounts, n_devices, n_lcores;
	uint32_t cap_accounts, cap_devices;
	struct msg_tally_account *account; /* sorted by rule, from, to, reason */
	struct msg_tally_device *device; /* sorted by slot */
	struct msg_tally_lcore lcore[MSG_TALLY_LCORES]; /* by worker */
};

/** t is borrowed until this returns; NULL: the dataplane is not there or did not answer. */
typedef void tallies_done(void *arg, const struct tallies *t);

/**
 * Ask the dataplane. done is called once: later, or at once if it cannot be asked.
 * @param kinds  TALLY_BIT()s
 * @param slot   for TALLY_DEVICES: of this one alone; 0: of all
 */
void tallies_ask(struct agent *a, uint32_t kinds, uint32_t slot, tallies_done *done, void *arg);

/** Keep a copy for the metrics that is a second old at most, ten with many flows (all of them are visited). */
void tallies_tick(struct agent *a, uint64_t now_ms);
void tallies_forget(struct agent *a); /* the dataplane has gone */

/* For tests: one part of an answer, and its end. */
int tallies_add(struct tallies *t, const struct msg_tallies *m); /* @return 0, -EPROTO, -ENOMEM */
void tallies_merge(struct tallies *t); /* sort, add up what has one name */
void tallies_clear(struct tallies *t); /* frees the lists */
