/* SPDX-License-Identifier: GPL-3.0-or-later */
/* link_internal: what link.c (connection) and link_log.c (what may be believed) share. Nobody else includes it. */
#pragma once

#include "controlplane/agent/link.h"

enum link_alarm_kind {
	ALARM_SIGNATURE,
	ALARM_MALFORMED,
	ALARM_HOLE,
	ALARM_FORGED,
	ALARM_REPLAYED,
	ALARM_EXPIRED,
	ALARM_CLOCK,
	ALARM_ROLLBACK,
	ALARM_STORE,
	ALARM_KINDS
};

struct alarm_limit {
	uint64_t refill_ms; /* boot clock, when the next token comes */
	uint32_t tokens;
	uint32_t suppressed;
};

struct link {
	/* from link_new, constant */
	struct store *store;
	struct link_callbacks cb;
	void *arg;
	const struct transport_ops *ops;
	struct cose_verifier key;
	uint64_t skew_ms;
	char address[GW_PATH_BYTES];
	char gateway[FRAME_GATEWAY_BYTES];

	/* connection */
	int epoll;
	struct transport *transport; /* NULL: not connected */
	uint32_t events;
	bool broken; /* close when back from the transport */
	uint32_t violations; /* on this connection */
	uint64_t now_boot_ms, now_wall_ms; /* of the call that we are in */
	uint64_t retry_ms, backoff_ms; /* boot clock; present step */
	uint64_t heard_ms; /* boot clock, last frame */
	uint64_t asked_snapshot_ms, subscribed_ms; /* boot clock, 0 = not on this connection */
	uint64_t first_from; /* revision that we first subscribed from on this connection */
	bool resubscribed; /* on this connection: repetitions after first_from are our own doing */
	bool want_snapshot; /* something was wrong: application stands still until a snapshot or a heartbeat settles it */
	struct alarm_limit alarms[ALARM_KINDS];

	/* log */
	struct link_state state;
	uint64_t issued_ms; /* of our head */
	uint64_t heartbeat_ms; /* wall clock, issued of the newest good heartbeat */
	struct decision *revocations; /* every one that we hold, none twice */
	uint32_t n_revocations, cap_revocations;
};

void link_raise(struct link *l, enum link_alarm_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** An alarm about what the peer sent; also asks for a snapshot, and ends a connection that goes on like this. */
void link_violation(struct link *l, enum link_alarm_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void link_send(struct link *l, const struct frame *f);
void link_subscribe(struct link *l);
void link_ask_snapshot(struct link *l);
void link_send_stored_receipt(struct link *l, uint64_t revision);

/* link_log.c: judge what a transport brought */
void link_on_entry(struct link *l, const uint8_t *cose, size_t bytes);
void link_on_snapshot(struct link *l, const uint8_t *cose, size_t bytes);
void link_on_heartbeat(struct link *l, const uint8_t *cose, size_t bytes);
