/* SPDX-License-Identifier: GPL-3.0-or-later */
/* agent: what the agent's files share. One thread, one loop.
 *
 * How a decision travels: link (verified, stored) > entry.c (what it means) > registry > enforce.c (judge, trust table,
 * nft; then ask TLS workers and dataplane what they closed) > receipt > link.
 * How a device gets in: TLS worker > admit.c > registry, enforce.c > bindings.c (dataplane, nft) > TLS worker. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/gateway.h"
#include "config/segments.h"
#include "controlplane/agent/link.h"
#include "controlplane/agent/loop.h"
#include "controlplane/agent/netlink.h"
#include "controlplane/agent/nft.h"
#include "controlplane/agent/peers.h"
#include "controlplane/agent/registry.h"
#include "controlplane/agent/store.h"
#include "controlplane/agent/tallies.h"
#include "controlplane/agent/trust_writer.h"
#include "controlplane/api_server.h"

#define AGENT_TICK_MS 250
#define AGENT_BINDINGS_A_DEVICE 32
#define AGENT_ANSWER_MS 2000 /* an enforcement point that does not answer by then is untracked */

struct MHD_Daemon;

/* A device's address, and where it must come from. */
struct binding {
	LIST_ENTRY(binding) of_device, unsaved;
	struct device *dev;
	struct ip_addr ip;
	struct mac_addr mac;
	uint16_t port, vlan;
	uint32_t sessions; /* open from this address */
	uint64_t lease_ms; /* boot clock; CLOCK_NEVER_MS while a session is open */
	bool is_unsaved; /* its lease is another than the store's: bindings_save() */
};

/* A live TLS session, as its worker announced it. */
struct session {
	LIST_ENTRY(session) next, of_device;
	struct peer *worker;
	uint64_t id;
	struct device *dev;
	struct device_cert cert;
	struct ip_addr ip;
	uint64_t since_ms; /* boot clock */
	uint32_t generation; /* of the record when it was admitted; another one has ended it */
	uint8_t listener; /* index in cfg, which moves with it; LISTENERS_NONE: gone */
	uint8_t relay; /* as in struct msg_admitted */
};

struct refusal { /* handshakes refused, by reason */
	char reason[128];
	uint64_t n;
};

#define AGENT_REFUSALS_MAX 64

struct policy_job;
struct reloads;
struct admission;
struct trace_session;

struct agent {
	struct gw_config *
		cfg; /* ports (api_ports.c) and listeners (reload.c) come and go in it; nothing else changes */
	bool port_change; /* one is under way, of ports or listeners */
	struct reloads *reloads; /* reload.c; NULL: none so far */
	struct loop *loop;
	struct store *store;
	struct link *link;
	struct registry *registry;
	struct trust_table trust;
	struct peers *peers;
	struct nft *nft;
	struct ports *ports;
	struct managed *managed; /* neighbours of upstreams */
	struct mirror *mirror;
	struct api_server *api;
	struct MHD_Daemon *metrics;
	struct loop_source link_src, nft_src, mirror_src, api_src, metrics_src, signal_src;
	bool stop;
	int failed; /* -errno: cannot go on; the supervisor starts a new process */

	/* policy in force; both NULL: none, everything is denied */
	struct segments *segments;
	struct policy_form *form;
	bool policy_decided; /* it came by a decision, not from the file */
	bool ids_stored; /* the store has the ids of the policy in force, and no others */
	char *replayed_text,
		*replayed_file; /* newest policy decision of the stored log, for policy_first() */
	STAILQ_HEAD(, policy_job) policy_jobs; /* the first one is under way */

	void *bindings; /* tsearch(3) by ip */
	uint32_t n_bindings;
	LIST_HEAD(device_bindings, binding) * bound; /* by slot */
	LIST_HEAD(, binding) unsaved;
	LIST_HEAD(, session) sessions;
	LIST_HEAD(, admission) admissions;
	LIST_HEAD(, admission) saving; /* of them, those that wait for the store: admit_settle() */
	struct refusal refusals[AGENT_REFUSALS_MAX];

	bool dp_ready; /* the dataplane has ports and gets changes */
	uint64_t dp_instance; /* of the one that was synced last */
	struct msg_stats stats; /* the dataplane's last; h.type 0 = none */
	uint64_t stats_ms;
	bool stats_asked;
	uint64_t tls_state_ms; /* when the TLS workers were asked last */
	struct tallies tallies; /* the dataplane's last, for the metrics; empty = none */
	uint64_t tallies_ms;
	bool tallies_asked;
	struct trace_session *trace; /* api_trace.c; NULL: none */

	uint64_t lease_until_ms; /* boot clock: controller was alive up to here */
	uint64_t lease_before_boot_ms; /* that is 0: it ended so long before the box started */
	uint64_t started_ms, tick_ms, heartbeat_ms, lease_saved_ms;
	int64_t wall_minus_boot_ms; /* when everybody was last judged by it; another one re-judges everybody */
	uint64_t
		nft_retry_ms; /* 0: the kernel plane is as it should be; else its lease is not renewed */
	bool review; /* any device's sessions may have lost their ground though their devices did not change */
};

/* alarm.c: log it as an error, and keep it in the store for `sallyctl status` */
void agent_alarm(struct agent *a, const char *kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* bindings.c: who is bound where. Changes reach dataplane and kernel plane. */
struct binding *binding_find(struct agent *a, const struct ip_addr *ip);
/**
 * Bind an address to a device; an earlier binding of the address goes. Kernel plane and store follow at once, the
 * dataplane before done(arg, NULL reply = not in force there) is called; at once if there is no dataplane.
 * @return 0, -ENOMEM, -EDQUOT (too many addresses for one device); done is then not called
 */
int binding_set(struct agent *a, struct device *dev, const struct ip_addr *ip,
		const struct mac_addr *mac, uint16_t port, uint16_t vlan, uint64_t lease_ms,
		peer_done *done, void *arg);
void binding_remove(struct agent *a, struct binding *b, const char *why);
void binding_session(struct agent *a, const struct ip_addr *ip, struct device *dev, int change);
void bindings_expire(struct agent *a, uint64_t now_ms);
/** Leases of which the store has others. They change with sessions, and after a crash the last ones are of no weight. */
void bindings_save(struct agent *a);
int bindings_restore(struct agent *a, struct err *err); /* from the store, same boot only */
void bindings_sync(struct agent *a, struct peer *dp); /* all to a dataplane */
void bindings_free(struct agent *a);
bool binding_nft(const struct agent *a, const struct binding *b,
		 struct nft_binding *out); /* false: nothing passes */
/** Put all bindings into the open nft transaction. @return 0 or -errno */
int bindings_put_all(struct agent *a);
void bindings_each(struct agent *a, void (*each)(void *arg, struct binding *b), void *arg);

/* enforce.c */
struct enforcement { /* what a change did, for the receipt */
	struct agent *a;
	uint64_t t0_us; /* boot clock */
	uint32_t open; /* answers to come */
	uint64_t sessions_closed, flows_closed, untracked;
	bool all; /* set it before enforce_run(): flows may have lost their ground though no device changed */
	int32_t result;
	char text[256];
	void (*done)(void *arg, struct enforcement *e); /* frees e */
	void *arg;
};

/** What is known about a device now, the controller's lease included. */
struct evidence enforce_evidence(const struct agent *a, const struct device *dev, uint64_t now_ms);
/** The segment that a device belongs to by the policy in force; NULL: none. */
const struct seg_segment *enforce_home(const struct agent *a, struct device *dev);
/** Judge one device, write its record. @return true if its generation changed */
bool enforce_judge(struct agent *a, struct device *dev);
/** Judge all dirty devices: records first, then the kernel plane in one transaction.
 * @param e  between the two it asks the enforcement points what they closed, if it is not for all; may be NULL
 * @return 0, or -errno of the kernel plane: shut as a whole if it could not be set right at once */
int enforce_dirty(struct agent *a, struct enforcement *e);
/** Judge this certificate as if the device's standing rested on it. */
struct judgement enforce_judge_with(struct agent *a, struct device *dev,
				    const struct device_cert *c);
/** The kernel plane did not take a change: put everything anew, or shut it and try again. */
void enforce_kernel_failed(struct agent *a, const char *what, int ret, const struct err *err);
/** The same, then ask all enforcement points what they closed; e->done is called when all have answered. */
void enforce_run(struct enforcement *e);
struct enforcement *enforcement_new(struct agent *a, void (*done)(void *arg, struct enforcement *e),
				    void *arg);
/** For changes without a receipt (expiry, handshake, clock): judge, close what no longer holds. */
void enforce_now(struct agent *a);
/** Which of the listener's upstreams may its segment reach? A bit for each. */
uint8_t enforce_relay(const struct agent *a, const struct device *dev, uint8_t listener);
/** The same of any device of segment `from` (endpoint id), by this policy. */
uint8_t enforce_relay_by(const struct agent *a, const struct policy_form *form, uint16_t from,
			 uint8_t listener);
bool enforce_is_upstream(const struct agent *a, const struct ip_addr *ip); /* of any listener */
void enforce_tick(struct agent *a, uint64_t now_ms);

/* policy.c */
/**
 * Put a policy text in force in both planes, or in neither. Queued behind one that is under way. Copies text.
 * @param done  called once, when it is in force or was refused. closed: what it ended, borrowed; NULL if it was refused
 *              or nobody could count
 */
typedef void policy_done(void *arg, int result, const char *text, const struct enforcement *closed);
void policy_apply(struct agent *a, const char *text, const char *file, bool decided,
		  policy_done *done, void *arg);
/** At start, before peers: compile and put into the kernel plane. @return 0 or -errno, text in err or errs */
int policy_first(struct agent *a, const char *text, const char *file, bool decided,
		 struct config_errors *errs, struct err *err);
int policy_memfd(const struct policy_form *f); /* sealed; @return descriptor or -errno */

/* entry.c: link's callbacks */
extern const struct link_callbacks entry_callbacks;
void entry_lease_load(struct agent *a, uint64_t now_boot_ms,
		      uint64_t now_wall_ms); /* from the store, at start */

/* admit.c */
int admit_message(struct agent *a, struct peer *p, const union msg_any *m);
/** At the end of a turn: what it brought is written to the disk as one, and only then answered. */
void admit_settle(struct agent *a);
/** Listeners have other indices: by the one before, the one now. */
void admit_listeners_move(struct agent *a, const uint8_t was[static MSG_LISTENERS_MAX]);
void admit_worker_left(struct agent *a, struct peer *p);
void admit_cert_load(struct agent *a, struct device *dev); /* what it presented before a restart */

/* sync.c: the dataplane's side of the agent */
void sync_config_msg(const struct gw_config *cfg, struct msg_dp_config *m);
/** The dataplane must not go on half told: raise an alarm, and make it connect again. reply: its last, or NULL */
void sync_failed(struct agent *a, const char *what, const union msg_any *reply);
extern const struct peers_handler sync_peers_handler;
extern const struct mirror_ops sync_mirror_ops;
void sync_stats(struct agent *a);

/* api.c */
void api_handle(void *arg, struct api_call *call, const char *cmd, json_t *request);

/* metrics.c */
int metrics_start(struct agent *a, struct err *err);
void metrics_tick(struct agent *a); /* time limits of its clients */
void metrics_stop(struct agent *a);
