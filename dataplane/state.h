/* SPDX-License-Identifier: GPL-3.0-or-later */
/* state: what the control thread publishes and the workers read. Each pointer is replaced whole; the old one is freed
 * after state_grace(). Everything else is set before workers start and then constant. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_rcu_qsbr.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "config/base/policy.h"
#include "config/base/trust.h"
#include "dataplane/bind.h"
#include "dataplane/fib.h"
#include "dataplane/flow.h"
#include "dataplane/ports.h"

#define WORKERS_MAX 16

struct doors;
struct limit_shared;
struct limit_table;
struct trace;
struct worker;

struct state {
	_Atomic(const struct trust_table *) trust; /* NULL: nothing is current */
	_Atomic(const struct policy_form *) policy; /* NULL: NO_POLICY */
	_Atomic(const struct limit_table *) limits; /* of the policy, stored before it */
	_Atomic(const struct fib *) fib; /* NULL: no routes */
	_Atomic(const struct doors *) doors; /* never NULL */
	_Atomic uint32_t
		topo; /* another value: hints of flows are void, see lane.h. After fib, doors */
	_Atomic bool ready; /* the first sync is complete */
	_Atomic uint64_t
		pickup_until_ms; /* boot clock; until then a packet mid-stream may open its flow */
	_Atomic bool lane_off; /* every packet takes every stage: tests */
	_Atomic(const struct trace *) trace; /* armed; the fast lane is off while it is */
	uint32_t n_routes; /* of fib; control thread's */
	_Atomic bool stop; /* workers end */

	/* constant while workers run, but for ports and doors (which workers read above), by hotplug.h */
	struct msg_dp_config cfg;
	struct port ports[PORTS_ALL];
	_Atomic uint16_t n_ports; /* never shrinks; a port without name is none (any more) */
	uint16_t n_workers;
	uint64_t tls_seed; /* of the choice of a TLS worker: the same as long as the box is up */
	uint64_t seed[FLOW_SEEDS];
	uint64_t started_ms; /* boot clock */
	struct bindings *bindings; /* writable by the control thread alone */
	struct neighs *neighs;
	struct limit_shared *shared_limits; /* with several workers: by slot */
	struct rte_rcu_qsbr *qsbr; /* reader id = worker index */
	struct worker *workers[WORKERS_MAX];
};

/**
 * Tables and worker structs for this configuration; the EAL must be up. Checks every index and count of cfg.
 * Ports are filled from cfg without ethdevs: the process calls ports_start(), a test sets `present` and `mac`.
 * @param n_workers  1..WORKERS_MAX
 * @param[out] out  caller owns, state_free()
 * @return 0, -EINVAL, -ENOMEM with the cause in err
 */
int state_new(struct state **out, const struct msg_dp_config *cfg, uint16_t n_workers,
	      struct err *err);
void state_free(
	struct
	state *st); /* NULL is a no-op; workers have ended. Frees the published fib, not trust and policy */

/** Every index, count and text of a configuration. @return 0 or -EINVAL */
int state_config_check(const struct msg_dp_config *cfg, struct err *err);

/** Wait until no worker holds anything that was unpublished before this call. */
void state_grace(struct state *st);
