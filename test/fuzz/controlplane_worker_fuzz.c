/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The agent, and a TLS worker that somebody has taken over: whatever it says, the agent goes on, nobody who is not enrolled
 * is let in, and what it held is gone with it. Needs root: nftables in a network namespace of its own.
 * The input: steps of a template, a number of changes, and for each where and what. */
#include "test/unit/controlplane/agent/admit_world.h"

#include "config/base/log.h"
#include "controlplane/agent/reload.h"

#define STEPS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct world *world;

static void drop(void)
{
	void *state = world;

	reload_fini(&world->a);
	teardown(&state);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	void *state = NULL;

	(void)argc;
	(void)argv;
	log_init("fuzz", LOG_LEVEL_ERROR);
	if (setup(&state) != 0)
		abort();
	world = state;
	close(world->tls);
	world->tls = -1;
	turns(world, 3);
	atexit(drop);
	return 0;
}

/* A good message of each kind that a worker sends. */
static void template_of(uint8_t kind, union msg_any *m)
{
	uint64_t now_s = clock_wall_ms() / 1000;
	static const uint16_t types[] = {
		MSG_ADMIT,	  MSG_SESSION_CLOSED, MSG_RECHECKED, MSG_HANDSHAKE_REFUSED,
		MSG_TLS_LISTENER, MSG_HELLO,	      MSG_STATS,     MSG_RELOAD_WANTED};
	struct msg_admit *a = &m->admit;

	memset(m, 0, sizeof(*m));
	m->h.type = types[kind % (sizeof(types) / sizeof(types[0]))];
	m->h.bytes = msg_type_bytes(m->h.type);
	if (m->h.type != MSG_ADMIT)
		return;
	a->session = kind;
	a->not_before_s = now_s - 3600;
	a->not_after_s = now_s + 3600;
	a->identity_kind = IDENTITY_URI;
	a->serial[0] = kind;
	a->serial_bytes = 1;
	a->cert_sha256[0] = kind % 4;
	strcpy(a->identity, kind & 32 ? CAM : kind & 64 ? CAM2 : "spiffe://p/cam/stranger");
	if (ip_addr_parse(&a->flow.src, kind & 128 ? "10.1.0.7" : "10.1.0.8") < 0 ||
	    ip_addr_parse(&a->flow.dst, "10.1.0.1") < 0)
		abort();
	a->upstreams = gw_listener_upstreams_hash(&world->cfg.listeners[0]);
	a->flow.dport = 8883;
	a->flow.proto = POLICY_PROTO_TCP;
}

/* The world's own worker: what it is asked it does not answer. */
static void heard(struct world *w, const union msg_any *m)
{
	struct msg_admitted a;

	if (m->h.type != MSG_ADMITTED)
		return;
	memcpy(&a, m, sizeof(a));
	if (a.slot != 0 && registry_by_slot(w->a.registry, a.slot) == NULL)
		abort();
	w->answers++;
}

static void turn(struct world *w)
{
	if (loop_turn(w->a.loop, 0) < 0)
		abort();
	peers_tick(w->a.peers, clock_boot_ms());
	bindings_save(&w->a);
	admit_settle(&w->a);
	hear(w, &w->dp, dataplane_hears);
	hear(w, &w->tls, heard);
}

static void check(const struct world *w)
{
	const struct session *s;

	LIST_FOREACH(s, &w->a.sessions, next) {
		if (strcmp(s->dev->identity, CAM) != 0 && strcmp(s->dev->identity, CAM2) != 0)
			abort();
	}
	if (w->dp < 0 || !w->a.dp_ready) /* it is not the worker's to end */
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct world *w = world;
	union msg_any m;
	size_t at = 0;

	w->tls = join(w, MSG_ROLE_TLS);
	turn(w);
	for (int i = 0; i < STEPS_MAX && at + 2 <= bytes && w->tls >= 0; i++) {
		uint8_t kind = data[at++], changes = data[at++] % 16;
		bool raw = data[at - 1] & 0x80;
		size_t size;

		template_of(kind, &m);
		size = m.h.bytes;
		for (; changes > 0 && at + 3 <= bytes; changes--, at += 3) {
			size_t where = (data[at] << 8 | data[at + 1]) % size;

			/* The header's length is checked before all else: seldom that. */
			if (raw || where >= sizeof(m.h))
				((uint8_t *)&m)[where] = data[at + 2];
		}
		if (m.h.bytes == 0 || m.h.bytes > sizeof(m) || msg_send(w->tls, &m, -1) < 0)
			break;
		turn(w);
		turn(w);
		check(w);
	}
	if (w->tls >= 0)
		close(w->tls);
	w->tls = -1;
	for (int i = 0; i < 4; i++)
		turn(w);
	check(w);
	if (sessions(w) != 0 || !LIST_EMPTY(&w->a.admissions))
		abort();
	return 0;
}
