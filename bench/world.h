/* SPDX-License-Identifier: GPL-3.0-or-later */
/* world: what bench/path measures in: a policy of 64 segments and 2,000 rules, devices, routes, a flow table, and
 * traffic for them. Built through the agent's messages, as test/unit/dataplane/world.h does at a smaller size.
 * Whatever fails ends the program. */
#pragma once

#include "bench/load.h"
#include "test/unit/dataplane/world.h"

#define RING 1024
#define FLOWS_MAX 1000000
#define TABLE_MAX 1048576 /* flows; the traffic fills it almost */
#define FRAME_BYTES_V4 60 /* 64 with the frame check sequence, which no mbuf holds */
#define FRAME_BYTES_V6 62 /* the least that holds Ethernet, IPv6 and UDP */
#define UP 1

enum stage { PARSE, GUARD, DIVERT, ROUTE, FLOW, REWRITE, STAGES };

struct frame64 {
	uint8_t b[64];
};

/* Flows as frames, of both directions, in an order that has nothing to do with their place in the tables. */
struct traffic {
	uint32_t flows;
	bool v4;
	uint16_t bytes;
	struct frame64 *frame[2]; /* [0] from the device, [1] from the uplink */
};

struct bench {
	struct world x;
	uint32_t devices;
	struct rte_mbuf *ring[RING];
	struct rte_hash *ref;
	uint64_t stage[STAGES]; /* cycles, when stages are timed */
};

static inline void die(const char *what)
{
	fprintf(stderr, "path: %s\n", what);
	exit(1);
}

static inline void trust_file(struct world *x, uint32_t slots)
{
	size_t bytes = trust_map_bytes(slots);
	struct trust_header *h;
	int fd;

	snprintf(x->trust_path, sizeof(x->trust_path), "/tmp/bench-trust-XXXXXX");
	fd = mkstemp(x->trust_path);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		die("no trust table file");
	h = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (h == MAP_FAILED)
		die("no trust table");
	memcpy(h->magic, TRUST_MAGIC, sizeof(TRUST_MAGIC));
	h->version = TRUST_VERSION;
	h->record_bytes = sizeof(struct trust_record);
	h->slots = slots;
	h->journal_entries = TRUST_JOURNAL_ENTRIES;
	h->instance = 1;
	trust_layout(&x->trust, h, slots);
	for (uint32_t i = 0; i < slots; i++)
		x->trust.rec[i].slot = i;
}

static inline char *policy_text(void)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	if (f == NULL)
		die("no memory");
	policy_write(f, 0);
	fclose(f);
	return text;
}

static inline struct ip_addr device_addr(uint32_t d, bool v4)
{
	struct ip_addr a = {{0xfd, 1}};
	uint8_t low[4] = {10, (uint8_t)(64 + (d >> 16)), (uint8_t)(d >> 8), (uint8_t)d};

	if (v4)
		return ip_addr_from_v4(low);
	memcpy(a.b + 12, low, 4);
	return a;
}

static inline struct ip_addr server_addr(uint32_t f, bool v4)
{
	uint8_t net = f % (LOAD_NETWORKS - 1), host = 1 + f / (LOAD_NETWORKS - 1) % 250;
	uint8_t low[4] = {10, 32, net, host};
	struct ip_addr a = {{0xfd, 0x32, 0, 0, 0, 0, 0, net}};

	if (v4)
		return ip_addr_from_v4(low);
	a.b[15] = host;
	return a;
}

static inline void device_mac(uint32_t d, uint8_t *six)
{
	uint8_t mac[6] = {2, 1, 0, (uint8_t)(d >> 16), (uint8_t)(d >> 8), (uint8_t)d};

	memcpy(six, mac, sizeof(mac));
}

static inline void bind_of(struct msg_bind *m, uint32_t d, bool v4)
{
	*m = (struct msg_bind){.ip = device_addr(d, v4), .port = 0, .slot = d + 1};
	device_mac(d, m->mac.b);
	MSG_INIT(m, MSG_BIND_ADD, 1);
}

static inline void devices_new(struct world *x, uint32_t devices)
{
	for (uint32_t d = 0; d < devices; d++) {
		const struct policy_endpoint *e;
		char name[8];
		struct msg_bind m;

		snprintf(name, sizeof(name), "s%u", d % LOAD_SEGMENTS);
		e = policy_endpoint_by_name(x->form, name);
		if (e == NULL)
			die("no such segment");
		world_trust(x, d + 1, e->id, STANDING_FULL, CLOCK_NEVER_MS);
		for (int v4 = 0; v4 < 2; v4++) {
			bind_of(&m, d, v4);
			if (world_say(x, &m, sizeof(m), -1) < 0)
				die("a binding was refused");
		}
	}
}

static inline void bench_new(struct bench *b, uint32_t devices, struct rte_mempool *pool)
{
	struct msg_hdr begin = {.type = MSG_SYNC_BEGIN, .bytes = sizeof(begin)};
	struct msg_hdr end = {.type = MSG_SYNC_END, .bytes = sizeof(end)};
	struct world *x = &b->x;
	struct msg_dp_config cfg;
	struct err err = {0};
	char *text = policy_text();

	memset(b, 0, sizeof(*b));
	b->devices = devices;
	x->pool = pool;
	world_config(&cfg);
	cfg.flows_max = TABLE_MAX;
	cfg.bindings_max = 2 * devices;
	if (state_new(&x->st, &cfg, 1, &err) < 0)
		die("no state: memory?");
	for (int i = 0; i < 2; i++) {
		x->st->ports[i].present = true;
		x->st->ports[i].mac = (struct mac_addr){{2, 0, 0, 0, 0, i + 1}};
	}
	x->w = x->st->workers[0];
	trust_file(x, devices + 1);
	if (apply_new(&x->apply, x->st) < 0 ||
	    apply_trust(x->apply, x->trust_path, false, &err) < 0 ||
	    world_say(x, &begin, sizeof(begin), -1) < 0 || world_policy_set(x, text, 1) < 0)
		die("no policy");
	unlink(x->trust_path); /* it is mapped twice */
	if (world_route(x, "10.64.0.0/10", ROUTE_FORWARD, 0, 0, NULL) |
	    world_route(x, "fd01::/64", ROUTE_FORWARD, 0, 0, NULL) |
	    world_route(x, "10.2.0.0/24", ROUTE_FORWARD, UP, 0, NULL) |
	    world_route(x, "fd02::/64", ROUTE_FORWARD, UP, 0, NULL) |
	    world_route(x, "0.0.0.0/0", ROUTE_FORWARD, UP, 0, "10.2.0.254") |
	    world_route(x, "::/0", ROUTE_FORWARD, UP, 0, "fd02::fe") |
	    world_neigh(x, "10.2.0.254", 0x2e, UP, 0) | world_neigh(x, "fd02::fe", 0x2e, UP, 0))
		die("no routes");
	devices_new(x, devices);
	if (world_say(x, &end, sizeof(end), -1) < 0 ||
	    rte_pktmbuf_alloc_bulk(pool, b->ring, RING) != 0)
		die("no sync, or no mbufs");
	free(text);
}

static inline void bench_free(struct bench *b)
{
	struct world *x = &b->x;

	rte_pktmbuf_free_bulk(b->ring, RING);
	apply_free(x->apply);
	state_free(x->st);
	munmap(x->trust.hdr, trust_map_bytes(b->devices + 1));
	free(x->form);
}

/* ---- traffic ---------------------------------------------------------------------------------- */

static inline void frame_of(struct frame64 *out, uint32_t f, uint32_t devices, bool v4, int dir)
{
	struct ip_addr dev = device_addr(f % devices, v4), srv = server_addr(f, v4);
	uint16_t sport = 10000 + f / devices % 50000, dport = 5000 + f % 100;
	char src[ADDR_TEXT_BYTES], dst[ADDR_TEXT_BYTES];
	struct frame_spec s = {
		.src = ip_addr_text(dir ? &srv : &dev, src),
		.dst = ip_addr_text(dir ? &dev : &srv, dst),
		.smac = 0x2e,
		.dmac = dir ? 2 : 1,
		.proto = IPPROTO_UDP,
		.sport = dir ? dport : sport,
		.dport = dir ? sport : dport,
		.payload = v4 ? FRAME_BYTES_V4 - 42 : 0,
	};
	uint8_t frame[FRAME_MAX];

	frame_make(frame, &s);
	if (dir == 0)
		device_mac(f % devices, frame + 6);
	memcpy(out->b, frame, sizeof(out->b));
}

static inline void traffic_new(struct traffic *t, uint32_t flows, uint32_t devices, bool v4)
{
	uint32_t *order = malloc(flows * sizeof(*order));

	*t = (struct traffic){
		.flows = flows, .v4 = v4, .bytes = v4 ? FRAME_BYTES_V4 : FRAME_BYTES_V6};
	if (order == NULL)
		die("no memory");
	shuffle(order, flows);
	for (int dir = 0; dir < 2; dir++) {
		t->frame[dir] = aligned_alloc(64, (size_t)flows * sizeof(struct frame64));
		if (t->frame[dir] == NULL)
			die("no memory");
		for (uint32_t i = 0; i < flows; i++)
			frame_of(&t->frame[dir][i], order[i], devices, v4, dir);
	}
	free(order);
}

static inline void traffic_free(struct traffic *t)
{
	free(t->frame[0]);
	free(t->frame[1]);
}
