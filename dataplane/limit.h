/* SPDX-License-Identifier: GPL-3.0-or-later */
/* limit: how much may pass, and who pays. Rates of rules and of devices (rte_meter, RFC 2697, color-blind, without an
 * excess burst), and counts by token buckets: flows that an end tries to open, packets to the kernel, strangers.
 *
 * Whoever sends or opens pays, never who receives, so that no device can use up another's share:
 *   - a device: 64 bytes by its slot in the trust table; slot 0 stands for all networks;
 *   - a stranger: one of STRANGERS buckets, by port, VLAN and MAC address; and all strangers together;
 *   - a rule: its flows together, in both directions.
 * A worker owns its counts, so there is no lock. Counts are split among n workers: each enforces 1/n, never more than the
 * limit in sum, and flows spread evenly. Rates cannot be split, for a flow is one worker's: with several workers all draw
 * from one bucket (shared_bucket.h), with one it is rte_meter, which rounds a rate by up to 1 %. Packets of flows without a
 * rate pay for neither. Time is the worker's, an argument to all of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <rte_meter.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "config/base/policy.h"
#include "config/base/reason.h"
#include "dataplane/shared_bucket.h"

#define STRANGERS 4096u

struct flow;
struct pkt;
struct worker;

/* ---- token buckets ---- */

/* One token an interval; so many may come at once. As RFC 2697's bucket, kept as one number: the time at which the
 * bucket would be full again (GCRA, ITU-T I.371). */
struct bucket_rate {
	uint64_t interval_ns; /* 0: no limit */
	uint64_t tolerance_ns; /* (burst - 1) intervals */
};

struct bucket_rate bucket_rate_of(uint32_t per_s, uint32_t burst, uint16_t n_workers);

/** Take a token. A bucket starts as 0, which is full. @return false: empty, nothing is taken */
static inline bool bucket_take(uint64_t *full_ns, const struct bucket_rate *r, uint64_t now_ns)
{
	uint64_t at = *full_ns;

	if (r->interval_ns == 0)
		return true;
	if (at <= now_ns) {
		at = now_ns;
	} else if (at - now_ns > r->tolerance_ns) {
		/* Emptied under another, slower rate: what is owed is owed under this one. */
		if (at - now_ns > r->tolerance_ns + r->interval_ns)
			*full_ns = now_ns + r->tolerance_ns + r->interval_ns;
		return false;
	}
	*full_ns = at + r->interval_ns;
	return true;
}

/* ---- what a policy and the configuration say; control thread makes it, workers read it ---- */

struct limit_profile {
	struct rte_meter_srtcm_profile bytes; /* if has_bytes */
	struct bucket_rate packets, opens;
	uint32_t flows; /* at a time; 0: no limit */
	struct shared_rate shared_bytes, shared_packets; /* of all workers together */
	bool has_bytes;
	bool metered; /* its packets are looked at, one by one */
};

/* A rule's meters, of one worker. */
struct limit_meter {
	struct rte_meter_srtcm bytes;
	uint64_t packets_full_ns;
} __attribute__((aligned(64)));

struct limit_table;

/**
 * For a policy form. Rules that `prev` has under the same name and with the same rate keep their meters.
 * @param prev  of the policy in force; NULL: none
 * @param[out] out  caller owns, limit_table_free()
 * @return 0, -ENOMEM, -EINVAL (a rate that the meter cannot hold)
 */
int limit_table_new(struct limit_table **out, const struct policy_form *form,
		    const struct msg_limits *cfg, uint32_t flows_max, uint16_t n_workers,
		    struct limit_table *prev, struct err *err);
void limit_table_free(struct limit_table *t); /* NULL is a no-op */

/** The table of this epoch: `newest`, or while policies change over the one before it; NULL if neither is. */
const struct limit_table *limit_table_pick(const struct limit_table *newest, uint64_t epoch);
/** Nobody uses the one before any more: after a grace period of the workers. */
void limit_table_settle(struct limit_table *t);

/* ---- counts of one worker ---- */

struct limits;

/* Rates of devices, of all workers together, by slot. */
struct limit_shared {
	_Atomic uint64_t bytes_full, packets_full;
};

/** @param slots  of the trust table @return 0 or -ENOMEM */
int limits_new(struct limits **out, const struct msg_limits *cfg, uint32_t slots,
	       uint16_t n_workers, int numa_node);
void limits_free(struct limits *l); /* NULL is a no-op */
/** Keep devices' rates here instead, as the other workers do. @param shared  `slots` of them, borrowed */
void limits_share(struct limits *l, struct limit_shared *shared);
uint64_t limits_bytes(uint32_t slots); /* of memory, a worker */

/* ---- the questions of the stages. DROP_NONE: it may pass, and has been charged ---- */

/** Fetch what limit_open() will read. */
void limit_prefetch(const struct worker *w, uint32_t slot);

/** May this end try to open a flow? Before anything is judged or looked up. slot 0: a network. */
enum drop_reason limit_open(struct worker *w, uint32_t slot);

/** May this end have one more? @param f  a flow that it would replace, or NULL */
enum drop_reason limit_room(struct worker *w, uint32_t slot, const struct flow *f);

/** The flow's opener has it now; its ends and its rule are set. Says whether it is metered. */
void limit_flow_started(struct worker *w, struct flow *f);
/** Its opener has it no longer. Before its ends change, or it goes; harmless if it was not counted. */
void limit_flow_ended(struct worker *w, struct flow *f);

/** A packet of a metered flow. First the sender's rate, so that what a device may not send costs its rule nothing. */
enum drop_reason limit_packet(struct worker *w, const struct flow *f, const struct pkt *p);

/** A packet of a device towards the kernel port; others pass. */
enum drop_reason limit_kernel(struct worker *w, const struct pkt *p);
/** A packet of a device towards a listener; others pass. */
enum drop_reason limit_tls(struct worker *w, const struct pkt *p);
/** A stranger's packet, wherever it goes. @param mac  the frame's source */
enum drop_reason limit_stranger(struct worker *w, const struct pkt *p, const uint8_t *mac);
/** A stranger's flow towards a listener, of which the table will keep a record. */
enum drop_reason limit_stranger_flow(struct worker *w, const struct pkt *p, const uint8_t *mac);

/** Flows that the slot's device has open at this worker now. Any thread; a relaxed load. */
uint32_t limit_flows_now(const struct worker *w, uint32_t slot);
