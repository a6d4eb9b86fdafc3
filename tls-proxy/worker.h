/* SPDX-License-Identifier: GPL-3.0-or-later */
/* worker: what the files of a TLS worker process share. One thread, one epoll loop, no privileges after start. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/base/trust.h"
#include "config/gateway.h"
#include "tls-proxy/session.h"
#include "tls-proxy/tls_ctx.h"

#define WORKER_TICK_MS 250
#define RELAY_BYTES (16 * 1024) /* plaintext held each way for a session at most */

struct worker;

struct source { /* something in the epoll set */
	int fd; /* -1: not there */
	uint32_t events; /* as registered */
	void (*ready)(void *arg, uint32_t events);
	void *arg;
};

struct listener {
	struct worker *w;
	const struct gw_listener *cfg;
	uint8_t index; /* in gateway.cfg */
	struct source src;
	struct tls_ctx ctx;
	uint32_t handshakes, sessions; /* now */
};

enum conn_state {
	CONN_HANDSHAKE, /* until the TLS session is open */
	CONN_ADMIT, /* the agent is asked; nothing is read from the device */
	CONN_CONNECT, /* to the upstream */
	CONN_RELAY,
	CONN_HELD, /* its segment may not reach the upstream: the session stays, nothing is relayed */
	CONN_CLOSING, /* the last bytes (an alert) go out */
};

struct conn {
	LIST_ENTRY(conn) next;
	struct listener *l;
	struct worker *w;
	struct source dev, up;
	struct session *tls;
	enum conn_state state;
	uint64_t id;
	struct ip_addr peer;
	uint16_t peer_port;
	uint64_t deadline_ms; /* of the present state; boot clock */
	uint64_t active_ms;
	/* what the agent granted */
	uint32_t slot, generation;
	uint64_t expires_ms;
	uint8_t standing;
	char segment[POLICY_NAME_BYTES];
	bool admitted; /* the agent counts it as a session */
	/* plaintext on its way */
	uint8_t to_up[RELAY_BYTES + 1024]; /* room for the PROXY header before the first bytes */
	size_t up_at, up_n;
	uint8_t to_dev[RELAY_BYTES];
	size_t dev_at, dev_n;
	bool dev_eof, up_eof, up_shut, dev_shut;
	bool dev_fin; /* the socket ended; what the session holds is still to be read */
	uint64_t bytes_up, bytes_down;
	char reason[64]; /* why it ends */
};

struct worker {
	const struct gw_config *cfg;
	uint32_t index;
	int epoll;
	bool stop, reload;
	struct source signals, agent;
	struct trust_table trust;
	uint64_t journal_seen;
	struct listener listeners[MSG_LISTENERS_MAX];
	uint32_t n_listeners;
	LIST_HEAD(, conn) conns;
	LIST_HEAD(, conn) dead; /* freed at the end of the turn */
	uint64_t next_id, instance;
	uint64_t agent_retry_ms, agent_wait_ms;
	bool agent_up; /* WELCOME came */
};

/* loop.c */
int source_add(struct worker *w, struct source *s, uint32_t events);
void source_set(struct worker *w, struct source *s, uint32_t events);
void source_close(struct worker *w, struct source *s);

/* listen.c */
int listener_open(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		  uint8_t index, struct err *err);
void listener_close(struct listener *l);

/* conn.c */
void conn_start(struct listener *l, int fd, const struct ip_addr *peer, uint16_t peer_port);
void conn_admitted(struct conn *c, const struct msg_admitted *m);
void conn_close(struct conn *c, enum session_alert alert,
		const char *reason); /* alert 0: close_notify */
bool conn_current(const struct conn *c, uint64_t now_ms);
void conns_tick(struct worker *w, uint64_t now_ms);
/** End what the trust table no longer vouches for. @return how many */
uint32_t conns_recheck(struct worker *w, uint32_t slot, uint64_t now_ms);
void conns_reap(struct worker *w);
struct conn *conn_by_id(struct worker *w, uint64_t id);

/* agent.c */
void agent_tick(struct worker *w, uint64_t now_ms); /* connect, reconnect */
/** Ask for admission. @return 0, -ENOTCONN: there is no agent */
int agent_admit(struct conn *c, bool again);
void agent_closed(struct conn *c);
void agent_refused(struct conn *c, const char *reason);
