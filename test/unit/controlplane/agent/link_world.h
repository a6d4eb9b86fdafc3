/* SPDX-License-Identifier: GPL-3.0-or-later */
/* link_world: a link, its store, a chain of signed entries, and a server that the test scripts. Time is an argument. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/agent/link.h"
#include "controlplane/controller/feed.h"
#include "controlplane/stream.h"
#include "controlplane/unix_listen.h"

#define T0 1750000000000ull /* wall clock of the test */
#define CHAIN 6

struct message {
	uint8_t *data;
	size_t bytes;
};

/* What the agent saw. */
struct seen {
	unsigned applied, replayed, snapshots, leases, alarms;
	uint64_t last_revision, lease_ms;
	unsigned revocations_in_snapshot;
	char kind[32], text[512];
	struct link *answer; /* send a receipt for every entry by this link */
};

struct world {
	char dir[64];
	struct cose_signer *key, *other;
	struct message chain[CHAIN + 1]; /* [revision] */
	uint8_t hash[CHAIN + 1][32];
	struct gw_config cfg;
	struct store *store;
	struct link *link;
	struct seen seen;
	uint64_t boot_ms, wall_ms;
	int listener;
	struct stream *server;
	unsigned subscribes, wants, receipts;
	struct frame last_subscribe;
	struct receipt last_receipt;
};

static inline void on_apply(void *arg, const struct decision_entry *e, bool replay)
{
	struct seen *s = arg;

	s->last_revision = e->revision;
	if (replay)
		s->replayed++;
	else
		s->applied++;
	if (e->snapshot) {
		s->snapshots++;
		s->revocations_in_snapshot = 0;
		for (uint32_t i = 0; i < e->n_ops; i++)
			s->revocations_in_snapshot += decision_is_revocation(&e->ops[i]);
	}
	if (s->answer != NULL && !replay) {
		struct receipt r = {
			.revision = e->revision, .in_force_us = 412, .sessions_closed = 1};

		assert_int_equal(link_receipt(s->answer, &r, NULL), 0);
	}
}

static inline void on_lease(void *arg, uint64_t until_boot_ms)
{
	struct seen *s = arg;

	s->leases++;
	s->lease_ms = until_boot_ms;
}

static inline void on_alarm(void *arg, const char *kind, const char *text)
{
	struct seen *s = arg;

	s->alarms++;
	snprintf(s->kind, sizeof(s->kind), "%s", kind);
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static const struct link_callbacks callbacks = {on_apply, on_lease, on_alarm};

/* ---- signed bytes ---- */

static inline struct decision device_op(uint8_t op, unsigned n)
{
	struct decision d = {.op = op, .identity_kind = IDENTITY_URI, .has = DECISION_HAS_DEVICE};

	snprintf(d.identity, sizeof(d.identity), "spiffe://plant-7/camera/%u", n);
	if (op == DECISION_REVOKE_CERT) {
		d.not_before_ms = T0;
		d.has |= DECISION_HAS_NOT_BEFORE;
	}
	return d;
}

static inline struct message sign(struct decision_entry *e, const struct cose_signer *key)
{
	struct message m;
	struct err err = {0};

	if (decision_entry_seal(&m.data, &m.bytes, e, key, &err) != 0)
		fail_msg("%s", err.msg);
	return m;
}

/* Revision n with its own operation; revision 3 is a revocation. */
static inline struct message entry(const struct world *w, uint64_t n, const struct cose_signer *key,
				   uint64_t issued_ms, uint64_t expires_ms, const uint8_t *prev)
{
	struct decision op = device_op(n == 3 ? DECISION_REVOKE_CERT : DECISION_ENROL, (unsigned)n);
	struct decision_entry e = {.revision = n,
				   .issued_ms = issued_ms,
				   .expires_ms = expires_ms,
				   .n_ops = 1,
				   .ops = &op};

	memcpy(e.prev, prev != NULL ? prev : w->hash[n - 1], 32);
	return sign(&e, key);
}

static inline struct message snapshot(uint64_t revision, const uint8_t hash[32],
				      const struct cose_signer *key)
{
	struct decision op = device_op(DECISION_ENROL, 1);
	struct decision_entry e = {.revision = revision,
				   .issued_ms = T0 + revision,
				   .snapshot = true,
				   .n_ops = 1,
				   .ops = &op};

	memcpy(e.hash, hash, 32);
	return sign(&e, key);
}

static inline struct message heartbeat(uint64_t revision, const uint8_t hash[32],
				       uint64_t issued_ms, const struct cose_signer *key)
{
	struct decision_heartbeat h = {
		.revision = revision, .issued_ms = issued_ms, .lease_ms = 20000};
	struct message m;

	memcpy(h.hash, hash, 32);
	assert_int_equal(decision_heartbeat_seal(&m.data, &m.bytes, &h, key), 0);
	return m;
}

/* ---- the scripted server ---- */

static inline int server_frame(void *arg, const uint8_t *data, size_t bytes)
{
	struct world *w = arg;
	struct frame f;

	assert_int_equal(frame_decode(&f, data, bytes, NULL), 0);
	if (f.type == FRAME_SUBSCRIBE) {
		w->subscribes++;
		w->last_subscribe = f;
	} else if (f.type == FRAME_WANT_SNAPSHOT) {
		w->wants++;
	} else {
		assert_int_equal(f.type, FRAME_RECEIPT);
		w->receipts++;
		w->last_receipt = f.receipt;
	}
	return 0;
}

static inline void turn(struct world *w)
{
	link_dispatch(w->link, w->boot_ms, w->wall_ms);
	link_tick(w->link, w->boot_ms, w->wall_ms);
	if (w->server != NULL)
		stream_pump(w->server, server_frame, w);
}

static inline void connect_link(struct world *w)
{
	int fd;

	w->boot_ms += 10000;
	link_tick(w->link, w->boot_ms, w->wall_ms);
	fd = accept(w->listener, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(stream_adopt(&w->server, fd, FRAME_UP_BYTES, 1 << 20), 0);
	turn(w);
}

static inline void send_raw(struct world *w, enum frame_type type, const void *cose, size_t bytes)
{
	struct frame f = {.type = type, .cose = cose, .cose_bytes = bytes};
	uint8_t *data;
	size_t n;

	assert_int_equal(frame_encode(&data, &n, &f), 0);
	assert_int_equal(stream_send(w->server, data, n), 0);
	free(data);
	turn(w);
}

/* Takes m over. */
static inline void send_new(struct world *w, enum frame_type type, struct message m)
{
	send_raw(w, type, m.data, m.bytes);
	free(m.data);
}

static inline void send_chain(struct world *w, uint64_t from, uint64_t to)
{
	for (uint64_t n = from; n <= to; n++)
		send_raw(w, FRAME_ENTRY, w->chain[n].data, w->chain[n].bytes);
}

/* ---- life ---- */

static inline void open_link(struct world *w)
{
	struct err err = {0};

	if (store_open(&w->store, w->cfg.state_dir, &err) != 0 ||
	    link_new(&w->link, &w->cfg, w->store, &callbacks, &w->seen, &err) != 0)
		fail_msg("%s", err.msg);
}

static inline void close_link(struct world *w)
{
	link_free(w->link);
	store_close(w->store);
	stream_close(w->server);
	w->link = NULL;
	w->store = NULL;
	w->server = NULL;
}

static inline void reopen(struct world *w)
{
	close_link(w);
	memset(&w->seen, 0, sizeof(w->seen));
	open_link(w);
}

static inline int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char path[GW_PATH_BYTES];
	struct err err = {0};

	strcpy(w->dir, "/tmp/sallyport-link-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(cose_key_create(w->dir, &err), 0);
	assert_int_equal(cose_signer_load(&w->key, w->dir, &err), 0);
	assert_int_equal(cose_signer_new(&w->other, &err), 0);
	w->boot_ms = 1000000;
	w->wall_ms = T0 + 1000;
	for (uint64_t n = 1; n <= CHAIN; n++) {
		w->chain[n] = entry(w, n, w->key, T0 + n, 0, NULL);
		cose_sha256(w->hash[n], w->chain[n].data, w->chain[n].bytes);
	}
	snprintf(w->cfg.name, sizeof(w->cfg.name), "gw1");
	snprintf(w->cfg.controller_socket, sizeof(w->cfg.controller_socket), "%s/dec.sock", w->dir);
	snprintf(w->cfg.controller_key, sizeof(w->cfg.controller_key), "%s/controller.pub", w->dir);
	snprintf(w->cfg.state_dir, sizeof(w->cfg.state_dir), "%s/state", w->dir);
	w->cfg.controller_skew_s = 30;
	snprintf(path, sizeof(path), "%s", w->cfg.controller_socket);
	w->listener = unix_listen(path, 4, &err);
	assert_true(w->listener >= 0);
	open_link(w);
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;
	char cmd[128];

	close_link(w);
	for (unsigned n = 1; n <= CHAIN; n++)
		free(w->chain[n].data);
	cose_signer_free(w->key);
	cose_signer_free(w->other);
	close(w->listener);
	snprintf(cmd, sizeof(cmd), "rm -r %s", w->dir);
	assert_int_equal(system(cmd), 0);
	free(w);
	return 0;
}

static inline uint64_t ours(const struct world *w)
{
	struct link_state s;

	link_get_state(w->link, &s);
	return s.revision;
}
