/* SPDX-License-Identifier: GPL-3.0-or-later */
/* worker: what the files of a TLS worker process share. One thread, one epoll loop, no privileges after start. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/base/trust.h"
#include "config/gateway.h"
#include "tls-proxy/buffer.h"
#include "tls-proxy/cpus.h"
#include "tls-proxy/limit.h"
#include "tls-proxy/opener.h"
#include "tls-proxy/session.h"
#include "tls-proxy/stack/stack.h"
#include "tls-proxy/stream.h"
#include "tls-proxy/tls_ctx.h"
#include "tls-proxy/upstream.h"

#define WORKER_TICK_MS 250
#define RELAY_BYTES (16 * 1024) /* plaintext held each way for a session at most */
#define QUIET_MS 1000 /* then a session's buffers go, until it moves again */
#define CONN_BUCKETS 65536 /* of each index; memory only where it is used */
#define WHEEL_TICK_MS 64
#define WHEEL_TICKS 1024

LIST_HEAD(conn_list, conn);
TAILQ_HEAD(conn_queue, conn);

struct datagram;

struct listener {
	struct worker *w;
	const struct gw_listener *cfg;
	struct gw_listener *own; /* cfg, after a reload; NULL: it is the worker's */
	bool lent; /* its stk listens for another one */
	bool retired; /* takes nobody any more; its sessions go on */
	bool preparing; /* of a reload that is not in force yet */
	uint64_t drain_ms; /* retired: its sessions end then; boot clock, 0: as their keys say */
	uint64_t upstreams; /* gw_listener_upstreams_hash(): what the agent's bits mean */
	struct listener *heir; /* NULL: there is none */
	bool stale_said; /* of an OCSP response */
	uint8_t index; /* in gateway.cfg */
	struct source src; /* socket.c */
	struct stack_listener stk;
	struct listener *stk_home; /* whose stk it is that listens; NULL: its own */
	struct dtls_port *dtls; /* dtls.c; NULL: over TCP */
	struct tls_ctx ctx;
	struct upstreams up;
	uint32_t handshakes, sessions; /* now */
	struct limit *limit; /* NULL: no limits but those of the whole listener at a time */
	uint64_t count[TLS_COUNTS];
	uint32_t turned_away; /* since it was last said */
	uint32_t turned_source, turned_rate; /* of these: a source's limits, the listener's rate */
	uint64_t say_ms; /* not again before; boot clock */
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
	LIST_ENTRY(conn) next, by_id, by_slot, due, again;
	TAILQ_ENTRY(conn) turn; /* handshakes.c */
	struct listener *l;
	struct worker *w;
	struct stream dev, up;
	struct assoc *assoc; /* dtls.h; NULL: over TCP */
	struct session *tls;
	struct session *up_tls; /* NULL: plain TCP */
	enum conn_state state;
	uint64_t id;
	struct ip_addr peer;
	uint16_t peer_port;
	uint64_t deadline_ms; /* of the present state; boot clock */
	uint64_t active_ms, begun_ms;
	bool shaking; /* waits for its turn */
	bool limited; /* limit_give() when the handshake is over */
	uint64_t wake_ms; /* in the wheel; 0: not */
	bool trimmed; /* its buffers went; conn_active() */
	bool is_again;
	/* what the agent granted */
	uint32_t slot, generation;
	uint64_t expires_ms;
	uint8_t standing;
	char segment[POLICY_NAME_BYTES];
	uint8_t relay; /* upstreams that it may reach, a bit for each */
	uint8_t tried, upstream; /* which were, and which it is */
	bool up_counted; /* among its upstream's sessions */
	bool cert_revoked; /* by a list that was read after the handshake */
	bool admitted; /* the agent counts it as a session */
	/* plaintext on its way */
	struct buffer to_up, to_dev;
	bool dev_may,
		up_may; /* the stream may have bytes: it said so, and was not found empty since */
	bool dev_eof, up_eof, up_shut, dev_shut;
	bool up_fin; /* as dev_fin, of a TLS upstream */
	bool up_lost; /* it takes nothing any more: reset, or silent for too long */
	bool up_torn; /* and what it says next is no end, though it looks like one */
	bool up_connected;
	bool tcp_shut; /* CONN_CLOSING: our FIN is out */
	bool dev_fin; /* the stream ended; what the session holds is still to be read */
	bool ended; /* conn_end() */
	uint64_t bytes_up, bytes_down;
	uint64_t
		moved_from; /* its id at the address before, which the agent still counts; 0: none */
	enum conn_state moved_state; /* what it was then, and will be again */
	char reason[64]; /* why it ends */
};

/* A session that ended by itself on what the table says, before the agent could ask: its next answer counts it. */
struct ended {
	uint32_t slot; /* 0: none */
	uint64_t at_ms;
};

#define WORKER_ENDED 256

struct reload;
struct agent_queued;

#define REFUSALS_SUMS 16

struct refusals { /* refusals.c */
	uint64_t second; /* that they are of; boot clock */
	uint32_t told; /* one by one */
	struct refusal {
		uint32_t n; /* 0: free, as all behind it are */
		char reason[128];
	} sums[REFUSALS_SUMS];
};

/* loop.c: the worker's counters when it was last looked whether free pages should go back, and when they went. */
struct heap_watch {
	uint64_t sessions; /* that came or went */
	uint64_t trimmed; /* the same, when pages went back */
	uint64_t work, since_ms; /* boot clock */
};

struct worker {
	const struct gw_config *cfg;
	struct gw_config *own_cfg; /* cfg, after a reload; NULL: it is main's */
	uint32_t index;
	int epoll;
	bool stop, reload;
	struct msg_reload reload_ask; /* of the agent, for the end of the turn; type 0: none */
	struct reload *prepared; /* NULL: none */
	uint64_t listeners_hash; /* of those in force */
	struct opener opener;
	const struct files *files; /* while a reload is under way; NULL: the disk */
	struct source signals, agent;
	STAILQ_HEAD(, agent_queued)
	agent_queue; /* that its socket had no room for, or that can wait */
	uint32_t agent_queued;
	bool agent_blocked; /* the socket had no room: an event says when there is */
	uint64_t agent_due_us; /* without that: at the latest it goes out then, boot clock */
	bool agent_urgent; /* it goes out before the worker waits */
	struct source steer; /* dtls_steer.c */
	struct stack *stack; /* NULL: no listener wants it, nor a port */
	struct port *port;
	uint16_t mtu_bytes; /* that both were made for */
	cpu_set_t dataplane_cpus; /* its workers' */
	struct source wake; /* the port's */
	bool asleep; /* the port's event is armed */
	struct heap_watch heap;
	uint64_t work; /* frames and events so far */
	uint64_t freed; /* sessions that are over, so far */
	uint64_t busy_us, asked_us; /* boot clock: the stack had work; the epoll set was asked */
	struct trust_table trust;
	uint64_t journal_seen;
	struct listener listeners[MSG_LISTENERS_MAX];
	uint32_t n_listeners;
	struct conn_list conns;
	struct conn_list dead; /* freed at the end of the turn */
	struct conn_queue shaking; /* handshakes that can go on */
	uint64_t shake_after_us; /* not before, while it is behind; boot clock */
	bool behind; /* frames or events are left that this turn did not come to */
	struct conn_list again; /* whose work was cut short; the others come first */
	struct conn_list by_id[CONN_BUCKETS], by_slot[CONN_BUCKETS];
	struct conn_list wheel[WHEEL_TICKS];
	uint64_t wheel_at; /* tick that was worked on last */
	uint64_t next_id, instance;
	uint64_t agent_retry_ms, agent_wait_ms;
	bool agent_up; /* WELCOME came */
	bool agent_lost; /* those who wait for its answer are still to be told */
	uint64_t
		drain_ms; /* it ends then, or with its last session; boot clock, 0: not asked to end */
	uint64_t tick_ms; /* next; boot clock */
	struct refusals refusals;
	struct ended ended[WORKER_ENDED]; /* a ring */
	uint32_t ended_at;
};

/* loop.c */
int source_add(struct worker *w, struct source *s, uint32_t events);
void source_set(struct worker *w, struct source *s, uint32_t events); /* 0: out of the set */
void source_close(struct worker *w, struct source *s);
/** Wait at most wait_ms and serve what is ready. @return 0 or -errno */
int worker_turn(struct worker *w, uint32_t wait_ms);
/** Take nobody new, and stop when all sessions have ended or drain_s is over. A second time: stop. */
void worker_drain(struct worker *w);
void worker_stop(
	struct worker *w); /* say good-bye to everybody, close everything; takes a half-built one */

/* reload.c */
/** SIGHUP: have the agent reload everybody; without one, only what listeners' files say. */
void worker_reload(struct worker *w);
/** What the agent asked for by reload_ask, and its answer. At the end of a turn: listeners come and go. */
void reload_work(struct worker *w);
void reload_abort(struct worker *w); /* no-op if nothing is prepared */
/** Sessions of removed listeners end when their time is over. */
void reload_tick(struct worker *w, uint64_t now_ms);

/* listen.c */
int listener_open(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		  uint8_t index, struct err *err);
/** The two halves of it. prepare: contexts, from w->files. listen: its socket. Close it whatever they return. */
int listener_prepare(struct worker *w, struct listener *l, const struct gw_listener *cfg,
		     uint8_t index, struct err *err);
int listener_listen(struct listener *l, struct err *err);
void listener_close(struct listener *l);
/** The one whose lists and CAs are in force for l's sessions: itself, or what took its place. */
struct listener *listener_now(struct listener *l);
void listeners_tick(struct worker *w, uint64_t now_ms);

/** Is there room for one more handshake? A refusal is counted. */
bool listener_room(struct listener *l);
/** The same, and the limits of rates and sources. True: limit_give() when the handshake is over, if there are any. */
bool listener_admits(struct listener *l, const struct ip_addr *from);

/* transport.c */
/** The stack and its port, if a listener wants them. Needs privileges, and waits for the dataplane. */
int transport_start(struct worker *w, struct err *err);
void transport_stop(struct worker *w); /* after all streams and listeners */
/** Frames in, streams told, frames out, and events, for which a worker without work waits. @return what events returned */
int transport_turn(struct worker *w, uint64_t wait_ms,
		   int (*events)(struct worker *w, uint32_t wait_ms));
void transport_woken(struct worker *w);
void transport_tick(struct worker *w);
int transport_listen(struct listener *l, struct err *err);
void transport_unlisten(struct listener *l);
/** l listens from now on where `from` did; who is connecting does not notice. */
void transport_take(struct listener *l, struct listener *from);
/** Begin to connect to an upstream the way the listener's devices came; STREAM_WRITE is wanted. @return 0 or -errno: s is
 * closed */
int transport_connect(struct listener *l, struct stream *s, const struct ip_addr *to,
		      uint16_t port);
/** The same of DTLS listeners, see datagram.h. */
int transport_udp_listen(struct listener *l, struct datagram *d, struct err *err);
int transport_udp_connect(struct listener *l, struct datagram *d, const struct ip_addr *to,
			  uint16_t port);

/* socket.c */
int socket_listen(struct listener *l, struct err *err);
void socket_take(struct listener *l, struct listener *from);
/** Begin to connect; STREAM_WRITE is wanted. @return 0 or -errno: s is closed */
int socket_connect(struct worker *w, struct stream *s, const struct ip_addr *to, uint16_t port);

/* conn.c */
/** Somebody connected: the transport puts its end into conn_device(), wanting STREAM_READ, or calls conn_end().
 * @return NULL: no room */
struct conn *conn_start(struct listener *l, const struct ip_addr *peer, uint16_t peer_port);
/** The same with a session that has begun; NULL leaves it to the caller. */
struct conn *conn_start_with(struct listener *l, const struct ip_addr *peer, uint16_t peer_port,
			     struct session *tls);
struct stream *conn_device(struct conn *c);
/** struct stack_config's fetch: a session that relays. */
void conn_fetch(const struct stream *s, int step);
/** An open session speaks from another address now: nothing is relayed until it is admitted from there.
 * @param got  what session_read() said of the datagram that told */
void conn_moved(struct conn *c, const struct ip_addr *peer, uint16_t peer_port, ssize_t got);
/** The agent's answer. @return false: nobody waits for it any more */
bool conn_admitted(struct conn *c, const struct msg_admitted *m);
void conn_close(struct conn *c, enum session_alert alert,
		const char *reason); /* alert 0: close_notify */
/** Refuse a handshake: in our log, at the agent's counters, and with an alert. */
void conn_refused(struct conn *c, enum session_alert alert, const char *reason);
void conn_work(struct conn *c); /* whatever can be done in its state */
/** Who, and why. The device is not told. */
void conn_log(const struct conn *c, const char *what, const char *reason);
void conn_revoked(struct conn *c); /* the table no longer vouches for it */
void conn_end(struct conn *c); /* without another word */
void conn_lost(struct conn *c); /* the device is gone, which is no regular end for its upstream */
bool conn_backlog(struct conn *c); /* does anything wait here that the device has not been sent? */
bool conn_current(const struct conn *c, uint64_t now_ms);
void conn_due(struct conn *c, uint64_t now_ms); /* its time has come */
/** After the times in it were moved: wake it when the first of them is due. */
void conn_wake(struct conn *c);
/** Data moved. */
void conn_active(struct conn *c, uint64_t now_ms);
bool conn_reverify(struct conn *c); /* conns_reverify() of one. @return true: it ended */
void conns_reap(struct worker *w);

/* refusals.c */
/** A handshake is refused: to the log and the agent's counters, if there are not too many. */
void refusal_tell(const struct conn *c, const char *reason);
void refusals_tick(struct worker *w, uint64_t now_ms); /* the sums of a second that is over */

/* handshakes.c */
/** There is something to read for c's handshake: it goes on when its turn comes, and wants nothing of its stream until then. */
void handshake_wait(struct conn *c);
void handshake_leave(struct conn *c); /* whether it waits or not */
/** Let those who wait go on, for a while; rarely while w->behind. */
void handshakes_turn(struct worker *w, uint64_t now_us);

/* conns.c */
void conns_init(struct worker *w);
void conns_add(struct conn *c);
void conns_remove(struct conn *c); /* to the dead */
void conn_number_set(struct conn *c); /* a new id */
void conn_slot_set(struct conn *c, uint32_t slot); /* 0: none */
void conn_wake_at(struct conn *c, uint64_t due_ms); /* conn_due() then, or sooner */
struct conn *conn_by_id(struct worker *w, uint64_t id);
/** It has work that no event will tell of: conns_again() gets back to it. */
void conn_again(struct conn *c);
/** Each of those who were put off until now. */
void conns_again(struct worker *w);
/** Wake who is due. Costs nothing for those who are not. */
void conns_tick(struct worker *w, uint64_t now_ms);
/** End what the trust table no longer vouches for; slot 0: of every device. */
void conns_recheck(struct worker *w, uint32_t slot, uint64_t now_ms);
/** The same for the slots that the table's journal names since the last time. One load if there are none. */
void conns_follow(struct worker *w);
/** How many ended on what the table says, a moment ago and not counted before; slot 0: of every device. */
uint32_t conns_ended(struct worker *w, uint32_t slot, uint64_t now_ms);
void conns_note_ended(struct worker *w, uint32_t slot);
/** After new revocation lists: who shook hands under the old ones begins anew; whose certificate does not pass the
 * new ones ends. @return how many ended */
uint32_t conns_reverify(struct listener *l);

/* report.c */
/** What its listeners are, to the agent. */
void report_send(struct worker *w, uint64_t seq);

/* connect.c */
void connect_begin(struct conn *c); /* admitted: to the upstream whose turn it is */
void connect_work(struct conn *c);
void connect_late(struct conn *c); /* its deadline is over */
/** The PROXY header of an admitted device. @return bytes, 0: it has none; -EMSGSIZE */
int connect_header(struct conn *c, uint8_t *out, size_t room);

/* relay.c */
/** From the stream into the engine, as far as it has room.
 * @param may is there anything? Cleared when there is not. @return false: the stream is done */
bool wire_receive(struct stream *s, struct session *tls, bool *may);
/** From the engine into the stream. @return false: it takes nothing any more */
bool wire_send(struct stream *s, struct session *tls);
void relay_work(struct conn *c);
/** Before the worker rests: no plaintext is left where the relay had it in its hands. */
void relay_wipe(void);

/* agent.c */
void agent_tick(struct worker *w, uint64_t now_ms); /* connect, reconnect */
/** Ask for admission; agent_post() sends it. @return 0, -ENOTCONN: there is no agent */
int agent_admit(struct conn *c, bool again);
/** Sent with the next message, or a little later by agent_post(). */
void agent_closed(struct conn *c);
/** What is due goes out, together: before the worker waits or gives its core away. */
void agent_post(struct worker *w, uint64_t now_us);
/** @return how long the worker may wait for what is not due yet, at most wait_ms */
uint64_t agent_rests(const struct worker *w, uint64_t now_us, uint64_t wait_ms);
void agent_moved(
	struct conn
		*c); /* c->moved_from is over: the address before is not the device's any more */
/** Ask for a reload of all processes. @return 0, -ENOTCONN: there is no agent */
int agent_reload(struct worker *w);
/** Answer RELOAD_*. code: 0 or -errno; text: of an error */
void agent_reload_done(struct worker *w, uint64_t seq, int code, const char *text);
int agent_tell(struct worker *w, const void *m); /* 0 or -errno */
bool agent_backlog(const struct worker *w); /* does anything wait that it has not been sent? */
void agent_fini(struct worker *w);
/** @param c  NULL: many, of which no one is told of */
void agent_refused(struct worker *w, const struct conn *c, const char *reason, uint32_t n);
