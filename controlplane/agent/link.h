/* SPDX-License-Identifier: GPL-3.0-or-later */
/* link: the gateway's end of the decision log. Reads what a transport brings, believes only what the controller's key
 * signed, in order, in time, and stored on disk; only that reaches the agent.
 *
 * An entry, in this order: signature > order (our revision + 1, previous hash = our head's) > times > store > apply.
 * Whatever fails: nothing is applied, an alarm is raised, and a signed snapshot is asked for; no further entry is applied
 * until that has come, or a good heartbeat that names our head. A snapshot counts from our revision on (at our revision
 * only with our hash), and every revocation that we hold is added to its operations: a snapshot cannot bring a revoked
 * certificate or software back.
 * A heartbeat extends the lease only while we hold the whole log that it names: withholding a decision costs the lease.
 *
 * One thread, no blocking but the store's disk writes. The owner polls link_fd() for reading (an epoll descriptor,
 * always the same), calls link_dispatch(), and calls link_tick() about every 250 ms. Callbacks run inside these calls
 * and inside link_replay(); they may call link_receipt(), and no other function of the link. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/err.h"
#include "config/gateway.h"
#include "controlplane/agent/store.h"
#include "controlplane/decision.h"
#include "controlplane/frame.h"
#include "controlplane/transport.h"

struct link;

/* Kinds of alarms, for sallyctl and tests. Each kind is raised at most 4 times in a row, then once in 10 s with a count. */
#define LINK_ALARM_SIGNATURE "signature" /* other key, or bytes changed on the way */
#define LINK_ALARM_MALFORMED "malformed" /* truncated, not ours, not strict */
#define LINK_ALARM_HOLE "hole" /* a revision is missing: lost or reordered */
#define LINK_ALARM_FORGED                                                                          \
	"forged" /* signed, but not on our chain: other previous hash, or a second version of a revision */
#define LINK_ALARM_REPLAYED                                                                        \
	"replayed" /* an entry that we have, though we did not ask for it again */
#define LINK_ALARM_EXPIRED "expired" /* an entry that came after its expiry */
#define LINK_ALARM_CLOCK "clock" /* issued in the future, or before its predecessor */
#define LINK_ALARM_ROLLBACK "rollback" /* snapshot or heartbeat from before our revision */
#define LINK_ALARM_STORE                                                                           \
	"store" /* not written, so not applied; or the stored log does not verify */

struct link_callbacks {
	/**
	 * Put an entry in force, or (entry->snapshot) replace the whole state by its ops. It is already durable.
	 * `entry` is borrowed until the callback returns. replay: from the store at start, no receipt is due.
	 * Else answer once with link_receipt(), now or later, also when it could not be put in force.
	 */
	void (*apply)(void *arg, const struct decision_entry *entry, bool replay);
	/** The controller's word holds until this moment of the boot clock. Not called: it has lapsed, or never came. */
	void (*lease)(void *arg, uint64_t until_boot_ms);
	void (*alarm)(void *arg, const char *kind, const char *text);
};

struct link_state {
	bool connected;
	bool frozen; /* the stored log is damaged: no newer decision is taken */
	bool behind; /* the last heartbeat named a head that we do not hold */
	uint64_t revision; /* ours; 0 = none */
	uint8_t hash[32];
	uint64_t head; /* as the last good heartbeat said; 0 = none heard */
	uint64_t lease_boot_ms; /* 0 = never had one */
};

/**
 * Make a link; loads the controller's public key. Does not connect: link_tick() does.
 * @param cfg    copied: controller_socket, controller_key, controller_skew_s, name
 * @param store  borrowed, must outlive the link
 * @param cb     copied, all set
 * @param[out] out  caller owns, link_free(); untouched on error
 * @return 0, -ENOENT or -EPROTO (key file), -ENOMEM, -errno; text in err
 */
int link_new(struct link **out, const struct gw_config *cfg, struct store *store,
	     const struct link_callbacks *cb, void *arg, struct err *err);
void link_free(struct link *l); /* NULL is a no-op */

/**
 * Verify the stored log from its beginning and apply it (replay = true). Call once, before the first link_tick().
 * @return 0; -EBADMSG: what verified before the damage is applied, the rest is not, an alarm was raised and the link is
 *         frozen (it takes no newer decision, and the lease runs out); or a store error. Text in err
 */
int link_replay(struct link *l, struct err *err);

int link_fd(const struct link *l);
void link_dispatch(struct link *l, uint64_t now_boot_ms, uint64_t now_wall_ms);
void link_tick(struct link *l, uint64_t now_boot_ms,
	       uint64_t now_wall_ms); /* connect, reconnect with back-off, time limits */

/**
 * The agent's answer to a revision: store it, and send it if the controller is there (else it is sent on reconnection
 * if it is the newest). r->gateway is filled in.
 * @return 0, or a store error (the receipt is then not sent)
 */
int link_receipt(struct link *l, struct receipt *r, struct err *err);

void link_get_state(const struct link *l, struct link_state *out);

/**
 * Verify and decode a stored row (for `log`).
 * @param[out] out caller owns, decision_entry_free(); untouched on error
 * @return 0, -EBADMSG, -EPROTO, -ENOMEM; text in err
 */
int link_open_stored(const struct link *l, const struct store_entry *row,
		     struct decision_entry **out, struct err *err);
