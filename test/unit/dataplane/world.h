/* SPDX-License-Identifier: GPL-3.0-or-later */
/* world: the whole packet path in memory, for tests and fuzz targets: two ports without ethdevs, a real trust table
 * file, a real policy, and the state built through the agent's own messages.
 *   port 0 "dev" (device side, untagged and VLAN 30), MAC 02::01; 10.1.0.0/24 and fd01::/64; 10.3.0.0/24 on VLAN 30
 *   port 1 "up" (uplink), MAC 02::02; 10.2.0.0/24, fd02::/64 and, through gateway 10.2.0.254, 10.9.0.0/16 */
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/base/trust.h"
#include "config/segments.h"
#include "dataplane/apply.h"
#include "dataplane/parse.h"
#include "dataplane/path.h"
#include "test/unit/dataplane/frame.h"

#define WORLD_SLOTS 64
#define WORLD_CAMS 1 /* the compiler gives ids in the text's order */
#define WORLD_PLCS 2

static const char world_policy[] =
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); },\n"
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } ); } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\", \"10.9.0.0/16\", "
	"\"fd02::/64\" ]; } );\n"
	"rules = ( { from = \"cams\"; to = \"core\"; service = [ \"tcp/554\", \"udp/5000-5100\", "
	"\"ping\" ]; log = true; },\n"
	"          { from = \"core\"; to = \"plcs\"; service = [ \"tcp/502\" ]; },\n"
	"          { from = \"cams\"; to = \"plcs\"; service = [ \"tcp/7000\" ]; } );\n";

struct world {
	struct state *st;
	struct apply *apply;
	struct worker *w;
	struct rte_mempool *pool;
	struct trust_table trust; /* writable */
	struct policy_form *form; /* last compiled */
	uint64_t now_us;
	char trust_path[64];
};

struct verdict {
	uint8_t edge; /* enum pkt_edge */
	uint8_t reason; /* enum drop_reason */
	uint16_t out_port;
	uint16_t bytes;
	uint8_t frame[FRAME_MAX]; /* as it leaves */
};

static inline int world_eal(void)
{
	static char *argv[] = {"test", "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry",
			       "-m",   "64",	    "-l",	   "0",	       "--log-level=error"};

	log_init("test", LOG_LEVEL_ERROR);
	return rte_eal_init(sizeof(argv) / sizeof(argv[0]), argv) < 0 ? -1 : 0;
}

static inline void world_trust_file(struct world *x, uint64_t instance)
{
	size_t bytes = trust_map_bytes(WORLD_SLOTS);
	struct trust_header *h;
	int fd;

	if (x->trust.hdr != NULL) {
		munmap(x->trust.hdr, bytes);
		unlink(x->trust_path);
	}
	snprintf(x->trust_path, sizeof(x->trust_path), "/tmp/dp-trust-XXXXXX");
	fd = mkstemp(x->trust_path);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	h = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (h == MAP_FAILED)
		abort();
	memcpy(h->magic, TRUST_MAGIC, sizeof(TRUST_MAGIC));
	h->version = TRUST_VERSION;
	h->record_bytes = sizeof(struct trust_record);
	h->slots = WORLD_SLOTS;
	h->journal_entries = TRUST_JOURNAL_ENTRIES;
	h->instance = instance;
	trust_layout(&x->trust, h, WORLD_SLOTS);
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		x->trust.rec[i].slot = i;
}

/* What the agent does: another generation with whatever changes but the expiry. */
static inline void world_trust(struct world *x, uint32_t slot, uint16_t segment, enum standing s,
			       uint64_t expires_ms)
{
	struct trust_record *r = &x->trust.rec[slot];

	atomic_fetch_add(&r->seq, 1);
	r->segment = segment;
	r->standing = s;
	atomic_fetch_add(&r->generation, 1);
	atomic_store(&r->expires_ms, expires_ms);
	atomic_fetch_add(&r->seq, 1);
}

static inline int world_say(struct world *x, const void *msg, size_t bytes, int fd)
{
	union msg_any m = {0};
	struct err err = {0};
	int ret;

	memcpy(&m, msg, bytes);
	ret = apply_message(x->apply, &m, fd, &err);
	if (ret == 0)
		ret = apply_flush(x->apply);
	return ret;
}

static inline int world_policy_set(struct world *x, const char *text, uint64_t epoch)
{
	struct msg_policy m = {.epoch = epoch};
	struct config_errors errs = {0};
	struct policy_form *form;
	struct segments *segs;
	struct err err = {0};
	int fd, ret;

	if (segments_parse(&segs, text, "test", &errs) < 0 ||
	    policy_compile(&form, segs, epoch, x->form, &err) < 0)
		return -1;
	segments_free(segs);
	fd = memfd_create("policy", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (fd < 0 || write(fd, form, form->bytes) != (ssize_t)form->bytes)
		return -1;
	fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	MSG_INIT(&m, MSG_POLICY_PREPARE, 1);
	ret = world_say(x, &m, sizeof(m), fd);
	close(fd);
	free(x->form);
	x->form = form;
	MSG_INIT(&m, MSG_POLICY_COMMIT, 1);
	return ret < 0 ? ret : world_say(x, &m, sizeof(m), -1);
}

static inline int world_bind(struct world *x, const char *ip, uint8_t mac, uint16_t port,
			     uint16_t vlan, uint32_t slot)
{
	struct msg_bind m = {
		.mac = {{2, 0, 0, 0, 0, mac}}, .port = port, .vlan = vlan, .slot = slot};

	ip_addr_parse(&m.ip, ip);
	MSG_INIT(&m, slot != 0 ? MSG_BIND_ADD : MSG_BIND_DEL, 1);
	return world_say(x, &m, sizeof(m), -1);
}

static inline int world_route(struct world *x, const char *prefix, uint8_t kind, uint16_t port,
			      uint16_t vlan, const char *gateway)
{
	struct msg_route m = {.kind = kind, .port = port, .vlan = vlan};

	ip_prefix_parse(&m.prefix, prefix);
	if (gateway != NULL) {
		m.has_gateway = 1;
		ip_addr_parse(&m.gateway, gateway);
	}
	MSG_INIT(&m, MSG_ROUTE_ADD, 1);
	return world_say(x, &m, sizeof(m), -1);
}

static inline int world_neigh(struct world *x, const char *ip, uint8_t mac, uint16_t port,
			      uint16_t vlan)
{
	struct msg_neigh m = {.mac = {{2, 0, 0, 0, 0, mac}}, .port = port, .vlan = vlan};

	ip_addr_parse(&m.ip, ip);
	MSG_INIT(&m, MSG_NEIGH_ADD, 1);
	return world_say(x, &m, sizeof(m), -1);
}

static inline void world_config(struct msg_dp_config *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	cfg->n_ports = 2;
	cfg->n_listeners = 1;
	cfg->stranger_services = STRANGER_DHCP | STRANGER_DNS | STRANGER_PING;
	cfg->flows_max = 256;
	cfg->bindings_max = 64;
	cfg->tcp_established_s = 600;
	cfg->tcp_opening_s = 30;
	cfg->tcp_closing_s = 30;
	cfg->udp_s = 60;
	cfg->udp_unanswered_s = 60;
	cfg->icmp_s = 10;
	cfg->refused_ms = 500;
	strcpy(cfg->ports[0].name, "dev");
	cfg->ports[0].side = PORT_DEVICE;
	cfg->ports[0].untagged = 1;
	cfg->ports[0].n_vlans = 1;
	cfg->ports[0].vlans[0] = 30;
	strcpy(cfg->ports[1].name, "up");
	cfg->ports[1].side = PORT_UPLINK;
	cfg->ports[1].untagged = 1;
	ip_addr_parse(&cfg->listeners[0].addr, "10.1.0.1");
	cfg->listeners[0].port = 8883;
	cfg->listeners[0].proto = IPPROTO_TCP;
}

static inline int world_routes(struct world *x)
{
	return world_route(x, "10.1.0.0/24", ROUTE_FORWARD, 0, 0, NULL) |
	       world_route(x, "fd01::/64", ROUTE_FORWARD, 0, 0, NULL) |
	       world_route(x, "10.3.0.0/24", ROUTE_FORWARD, 0, 30, NULL) |
	       world_route(x, "10.2.0.0/24", ROUTE_FORWARD, 1, 0, NULL) |
	       world_route(x, "fd02::/64", ROUTE_FORWARD, 1, 0, NULL) |
	       world_route(x, "10.9.0.0/16", ROUTE_FORWARD, 1, 0, "10.2.0.254") |
	       world_route(x, "10.8.0.0/16", ROUTE_FORWARD, MSG_PORT_KERNEL, 0, NULL) |
	       world_route(x, "10.1.0.1/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL) |
	       world_route(x, "fd01::1/128", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL) |
	       world_route(x, "10.2.0.1/32", ROUTE_LOCAL, MSG_PORT_KERNEL, 0, NULL) |
	       world_neigh(x, "10.2.0.10", 0x20, 1, 0) | world_neigh(x, "fd02::10", 0x20, 1, 0) |
	       world_neigh(x, "10.2.0.254", 0x2e, 1, 0);
}

/* Slot 5: a camera at 10.1.0.10, fd01::10 and, on VLAN 30, 10.3.0.10, MAC 02::10.
 * Slot 6: a PLC at 10.1.0.11, MAC 02::11. Every other address is a stranger's or a network's. */
static inline int world_of_workers(struct world *x, const struct msg_dp_config *change,
				   uint16_t n_workers)
{
	struct msg_hdr begin = {.type = MSG_SYNC_BEGIN, .bytes = sizeof(begin)};
	struct msg_hdr end = {.type = MSG_SYNC_END, .bytes = sizeof(end)};
	struct msg_dp_config cfg;
	struct err err = {0};
	char pool[RTE_MEMPOOL_NAMESIZE];

	memset(x, 0, sizeof(*x));
	world_config(&cfg);
	if (state_new(&x->st, change != NULL ? change : &cfg, n_workers, &err) < 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		x->st->ports[i].present = true;
		x->st->ports[i].mac = (struct mac_addr){{2, 0, 0, 0, 0, i + 1}};
	}
	x->w = x->st->workers[0];
	world_trust_file(x, 7);
	if (apply_new(&x->apply, x->st) < 0 ||
	    apply_trust(x->apply, x->trust_path, false, &err) < 0)
		return -1;
	if (world_say(x, &begin, sizeof(begin), -1) < 0 ||
	    world_policy_set(x, world_policy, 1) < 0 || world_routes(x) != 0)
		return -1;
	world_trust(x, 5, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	world_trust(x, 6, WORLD_PLCS, STANDING_FULL, CLOCK_NEVER_MS);
	if (world_bind(x, "10.1.0.10", 0x10, 0, 0, 5) < 0 ||
	    world_bind(x, "fd01::10", 0x10, 0, 0, 5) < 0 ||
	    world_bind(x, "10.3.0.10", 0x10, 0, 30, 5) < 0 ||
	    world_bind(x, "10.1.0.11", 0x11, 0, 0, 6) < 0)
		return -1;
	snprintf(pool, sizeof(pool), "test-%p", (void *)x); /* a test may have two worlds */
	x->pool = rte_pktmbuf_pool_create(pool, 255, 0, sizeof(struct pkt),
					  RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (x->pool == NULL || world_say(x, &end, sizeof(end), -1) < 0)
		return -1;
	x->now_us = clock_boot_us() + 1000;
	return 0;
}

static inline int world_new(struct world *x, const struct msg_dp_config *change)
{
	return world_of_workers(x, change, 1);
}

static inline void world_free(struct world *x)
{
	apply_free(x->apply);
	state_free(x->st);
	rte_mempool_free(x->pool);
	if (x->trust.hdr != NULL)
		munmap(x->trust.hdr, trust_map_bytes(WORLD_SLOTS));
	unlink(x->trust_path);
	free(x->form);
	memset(x, 0, sizeof(*x));
}

/* Run n frames as one burst that came in by one port. */
static inline void world_burst(struct world *x, uint16_t port, uint8_t (*frame)[FRAME_MAX],
			       const size_t *bytes, unsigned n, struct verdict *v)
{
	struct burst in = {0};

	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = rte_pktmbuf_alloc(x->pool);
		char *room = m != NULL ? rte_pktmbuf_append(m, (uint16_t)bytes[i]) : NULL;

		if (room == NULL)
			abort();
		memcpy(room, frame[i], bytes[i]);
		burst_push(&in, m);
	}
	worker_pin(x->w, x->now_us);
	path_run(x->w, &in, port);
	for (unsigned i = 0; i < n; i++) {
		const struct pkt *p = pkt_of(in.pkt[i]);

		v[i].edge = p->edge;
		v[i].reason = p->edge == EDGE_DROP ? p->reason : DROP_NONE;
		v[i].out_port = p->out_port;
		v[i].bytes = rte_pktmbuf_data_len(in.pkt[i]);
		memcpy(v[i].frame, rte_pktmbuf_mtod(in.pkt[i], void *), v[i].bytes);
		rte_pktmbuf_free(in.pkt[i]);
	}
}

static inline struct verdict world_one(struct world *x, uint16_t port, const struct frame_spec *s)
{
	uint8_t frame[1][FRAME_MAX];
	size_t bytes = frame_make(frame[0], s);
	struct verdict v;

	world_burst(x, port, frame, &bytes, 1, &v);
	return v;
}
