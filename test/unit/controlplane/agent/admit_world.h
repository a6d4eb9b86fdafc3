/* SPDX-License-Identifier: GPL-3.0-or-later */
/* admit_world: the agent without its main(): real store, trust table, registry, nftables (in a namespace of its own) and
 * socket, with a TLS worker and a dataplane that the test plays. */
#pragma once

#include "test/unit/controlplane/agent/net_world.h"

#include <sys/capability.h>
#include <sys/epoll.h>

#include "config/listeners.h"
#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

#define SLOTS 16
#define CAM "spiffe://p/cam/1"
#define CAM2 "spiffe://p/cam/2"
#define POLICY                                                                                     \
	"segments = ( { name = \"cameras\"; members = ( { san = \"spiffe://p/cam/*\"; } ); }, "    \
	"{ name = \"quarantine\"; } ); networks = ( { name = \"core\"; "                           \
	"prefixes = [ \"10.2.0.0/24\" ]; } ); "                                                    \
	"rules = ( { from = \"cameras\"; to = \"core\"; service = [ \"tcp/1883\" ]; } );"
#define POLICY_MOVED                                                                               \
	"segments = ( { name = \"others\"; members = ( { san = \"spiffe://p/cam/*\"; } ); }, "     \
	"{ name = \"quarantine\"; } ); networks = ( { name = \"core\"; "                           \
	"prefixes = [ \"10.2.0.0/24\" ]; } ); "                                                    \
	"rules = ( { from = \"others\"; to = \"core\"; service = [ \"tcp/1883\" ]; } );"

struct world {
	struct agent a;
	struct gw_config cfg;
	char dir[64];
	uint64_t revision;
	int tls, dp;
	/* how the dataplane behaves */
	bool hold_origin, refuse_bind, refuse_commit;
	struct msg_flow_origin origin; /* the last question */
	unsigned binds, unbinds, commits;
	uint16_t segment_at_commit;
	/* what the worker heard */
	struct msg_admitted admitted;
	unsigned answers, rechecks;
	uint64_t session;
};

/* ---- the other ends ---- */

static void reply_origin(struct world *w)
{
	w->origin.found = 1;
	w->origin.port = 0;
	w->origin.vlan = 0;
	memcpy(w->origin.mac.b, "\x02\0\0\0\0\x05", 6);
	assert_int_equal(msg_send(w->dp, &w->origin, -1), 0);
}

static void result(struct world *w, uint64_t seq, int code)
{
	struct msg_result r = {.code = code};

	MSG_INIT(&r, code == 0 ? MSG_OK : MSG_ERROR, seq);
	strcpy(r.text, code == 0 ? "" : "no room");
	if (seq != 0)
		assert_int_equal(msg_send(w->dp, &r, -1), 0);
}

static void dataplane_hears(struct world *w, const union msg_any *m)
{
	struct msg_sweep sweep;

	switch (m->h.type) {
	case MSG_FLOW_ORIGIN:
		memcpy(&w->origin, m, sizeof(w->origin));
		if (!w->hold_origin)
			reply_origin(w);
		break;
	case MSG_BIND_ADD:
		w->binds++;
		result(w, m->h.seq, w->refuse_bind ? -ENOSPC : 0);
		break;
	case MSG_BIND_DEL:
		w->unbinds++;
		break;
	case MSG_SWEEP:
		memcpy(&sweep, m, sizeof(sweep));
		assert_int_equal(msg_send(w->dp, &sweep, -1), 0);
		break;
	case MSG_POLICY_COMMIT:
		w->commits++;
		w->segment_at_commit = w->a.trust.rec[1].segment;
		result(w, m->h.seq, w->refuse_commit ? -EIO : 0);
		break;
	case MSG_POLICY_PREPARE:
	case MSG_SYNC_END:
		result(w, m->h.seq, 0);
		break;
	default: /* WELCOME, DP_CONFIG, SYNC_BEGIN, routes, neighbours */
		break;
	}
}

static void worker_hears(struct world *w, const union msg_any *m)
{
	struct msg_recheck r;

	switch (m->h.type) {
	case MSG_ADMITTED:
		memcpy(&w->admitted, m, sizeof(w->admitted));
		w->answers++;
		break;
	case MSG_RECHECK:
		memcpy(&r, m, sizeof(r));
		r.h.type = MSG_RECHECKED;
		w->rechecks++;
		assert_int_equal(msg_send(w->tls, &r, -1), 0);
		break;
	default:
		break;
	}
}

static void hear(struct world *w, int *fd, void (*hears)(struct world *w, const union msg_any *m))
{
	union msg_any m;

	while (*fd >= 0) {
		ssize_t n = msg_recv(*fd, &m, NULL);

		if (n == -EAGAIN)
			return;
		if (n > 0) {
			hears(w, &m);
			continue;
		}
		close(*fd);
		*fd = -1;
	}
}

static void turns(struct world *w, int n)
{
	for (int i = 0; i < n; i++) {
		assert_int_equal(loop_turn(w->a.loop, 0), 0);
		peers_tick(w->a.peers, clock_boot_ms());
		admit_settle(&w->a);
		hear(w, &w->dp, dataplane_hears);
		hear(w, &w->tls, worker_hears);
	}
}

static int join(struct world *w, uint32_t role)
{
	struct msg_hello hello = {.version = MSG_VERSION, .role = role, .instance = role};
	char path[MSG_PATH_BYTES];
	int fd = msg_connect(gw_run_path(&w->cfg, "agent.sock", path));

	assert_true(fd >= 0);
	MSG_INIT(&hello, MSG_HELLO, 0);
	assert_int_equal(msg_send(fd, &hello, -1), 0);
	return fd;
}

static void dataplane_join(struct world *w)
{
	struct msg_hdr ready = {.type = MSG_DP_READY, .bytes = sizeof(ready)};

	w->dp = join(w, MSG_ROLE_DATAPLANE);
	turns(w, 3);
	assert_int_equal(msg_send(w->dp, &ready, -1), 0);
	turns(w, 5);
	assert_true(w->a.dp_ready);
}

/* ---- what happens ---- */

static void decide_now(struct world *w, struct decision d)
{
	struct decision_entry e = {.revision = ++w->revision, .n_ops = 1, .ops = &d};
	struct store_entry row = {
		.revision = e.revision, .cose = (const uint8_t *)"x", .cose_bytes = 1};
	struct err err = {""};

	row.hash[0] = e.revision;
	assert_int_equal(store_entry_add(w->a.store, &row, &err), 0);
	entry_callbacks.apply(&w->a, &e, false);
	turns(w, 5);
}

static inline struct receipt receipt_of(struct world *w, uint64_t revision)
{
	struct receipt r = {0};
	struct err err = {""};
	uint8_t hash[32], *data = NULL;
	size_t bytes = 0;

	assert_int_equal(store_entry_find(w->a.store, revision, hash, &data, &bytes), 0);
	assert_non_null(data);
	assert_int_equal(receipt_decode(&r, data, bytes, &err), 0);
	free(data);
	return r;
}

static struct decision on_device(uint8_t op, const char *identity)
{
	struct decision d = {.op = op, .has = DECISION_HAS_DEVICE, .identity_kind = IDENTITY_URI};

	strcpy(d.identity, identity);
	return d;
}

static inline struct decision on_cert(uint8_t op, const char *identity, uint8_t cert)
{
	struct decision d = on_device(op, identity);

	d.has |= DECISION_HAS_CERT;
	memset(d.cert_sha256, cert, sizeof(d.cert_sha256));
	return d;
}

/* Certificate n is good from an hour ago for n hours. */
static inline void knock_only(struct world *w, const char *identity, uint8_t cert, const char *ip)
{
	uint64_t now_s = clock_wall_ms() / 1000;
	struct msg_admit m = {.session = ++w->session,
			      .not_before_s = now_s - 3600,
			      .not_after_s = now_s + cert * 3600,
			      .identity_kind = IDENTITY_URI,
			      .serial = {cert},
			      .serial_bytes = 1};

	MSG_INIT(&m, MSG_ADMIT, 0);
	memset(m.cert_sha256, cert, sizeof(m.cert_sha256));
	strcpy(m.identity, identity);
	assert_int_equal(ip_addr_parse(&m.flow.src, ip), 0);
	assert_int_equal(ip_addr_parse(&m.flow.dst, "10.1.0.1"), 0);
	m.upstreams = gw_listener_upstreams_hash(&w->cfg.listeners[0]);
	m.flow.dport = 8883;
	m.flow.proto = POLICY_PROTO_TCP;
	assert_int_equal(msg_send(w->tls, &m, -1), 0);
}

static inline void knock(struct world *w, const char *identity, uint8_t cert, const char *ip)
{
	knock_only(w, identity, cert, ip);
	turns(w, 5);
}

static inline void session_ends(struct world *w, uint64_t session)
{
	struct msg_session_closed m = {.session = session, .reason = "test"};

	MSG_INIT(&m, MSG_SESSION_CLOSED, 0);
	assert_int_equal(msg_send(w->tls, &m, -1), 0);
	turns(w, 3);
}

static inline struct binding *bound(struct world *w, const char *ip)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(&a, ip), 0);
	return binding_find(&w->a, &a);
}

static inline bool in_kernel(const char *ip)
{
	return sh("nft list set inet sallyport bound4 | grep -q '%s\\b'", ip) == 0;
}

static inline uint32_t generation(struct world *w, const char *identity)
{
	return w->a.trust.rec[registry_find(w->a.registry, IDENTITY_URI, identity)->slot]
		.generation;
}

static unsigned sessions(const struct world *w)
{
	const struct session *s;
	unsigned n = 0;

	LIST_FOREACH(s, &w->a.sessions, next)
		n++;
	return n;
}

/* ---- world ---- */

static void key_file(struct world *w)
{
	FILE *f;

	snprintf(w->cfg.controller_key, sizeof(w->cfg.controller_key), "%s/key", w->dir);
	f = fopen(w->cfg.controller_key, "w");
	assert_non_null(f);
	fputs("ed25519 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29\n", f);
	fclose(f);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct agent *a = &w->a;
	struct err err = {""};
	char path[MSG_PATH_BYTES];
	bool kept;

	world_gateway = world_new();
	strcpy(w->dir, "/tmp/sp-admit-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->tls = w->dp = -1;
	snprintf(w->cfg.run_dir, sizeof(w->cfg.run_dir), "%s", w->dir);
	strcpy(w->cfg.name, "gw");
	strcpy(w->cfg.controller_socket, "/nonexistent");
	w->cfg.devices_max = SLOTS - 1;
	w->cfg.binding_lease_s = 60;
	w->cfg.kernel_lease_s = 10;
	w->cfg.n_ports = 2;
	w->cfg.ports[0] = (struct gw_port){.name = "cam",
					   .devargs = "net_tap",
					   .tap = "sp-cam",
					   .side = PORT_DEVICE,
					   .untagged = true,
					   .n_vlans = 1};
	w->cfg.ports[1] = (struct gw_port){.name = "up",
					   .devargs = "net_tap",
					   .tap = "sp-up",
					   .side = PORT_UPLINK,
					   .untagged = true,
					   .n_vlans = 1};
	w->cfg.n_listeners = 1;
	strcpy(w->cfg.listeners[0].name, "mqtt");
	w->cfg.listeners[0].port = 8883;
	assert_int_equal(ip_addr_parse(&w->cfg.listeners[0].addr, "10.1.0.1"), 0);
	assert_int_equal(ip_addr_parse(&w->cfg.listeners[0].upstreams[0].addr, "10.2.0.10"), 0);
	w->cfg.listeners[0].upstreams[0].port = 1883;
	w->cfg.listeners[0].n_upstreams = 1;
	key_file(w);
	a->cfg = &w->cfg;
	STAILQ_INIT(&a->policy_jobs);
	a->bound = calloc(SLOTS, sizeof(*a->bound));
	assert_int_equal(store_open(&a->store, w->dir, &err), 0);
	assert_int_equal(trust_writer_open(&a->trust, gw_run_path(&w->cfg, "trust", path), SLOTS,
					   &kept, &err),
			 0);
	assert_int_equal(registry_new(&a->registry, SLOTS, NULL, NULL), 0);
	assert_int_equal(loop_new(&a->loop), 0);
	if (link_new(&a->link, &w->cfg, a->store, &entry_callbacks, a, &err) < 0 ||
	    nft_new(&a->nft, &w->cfg, NULL, &err) < 0 || ports_new(&a->ports, &w->cfg, &err) < 0 ||
	    mirror_new(&a->mirror, &w->cfg, &sync_mirror_ops, a, &err) < 0 ||
	    policy_first(a, POLICY, "segments.cfg", false, errs, &err) < 0 ||
	    peers_new(&a->peers, a->loop, gw_run_path(&w->cfg, "agent.sock", path), 0,
		      &sync_peers_handler, a, &err) < 0)
		fail_msg("%s %s", err.msg, errs->n > 0 ? errs->line[0] : "");
	free(errs);
	*state = w;
	dataplane_join(w);
	w->tls = join(w, MSG_ROLE_TLS);
	decide_now(w, on_device(DECISION_ENROL, CAM));
	decide_now(w, on_device(DECISION_ENROL, CAM2));
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct agent *a = &w->a;

	peers_free(a->peers);
	assert_int_equal(sessions(w), 0);
	assert_true(LIST_EMPTY(&a->admissions));
	bindings_free(a);
	mirror_free(a->mirror);
	ports_free(a->ports);
	nft_free(a->nft);
	link_free(a->link);
	registry_free(a->registry);
	store_close(a->store);
	trust_unmap(&a->trust);
	segments_free(a->segments);
	free(a->form);
	free(a->bound);
	loop_free(a->loop);
	if (w->tls >= 0)
		close(w->tls);
	if (w->dp >= 0)
		close(w->dp);
	close(world_gateway);
	assert_int_equal(sh("rm -rf %s", w->dir), 0);
	free(w);
	return 0;
}
