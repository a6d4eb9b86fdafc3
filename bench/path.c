/* SPDX-License-Identifier: GPL-3.0-or-later */
/* path: what the packet path costs without a port: `path [RUNS [1k|100k|1m]]` prints one line a measure (see bench/run).
 *
 * Real are: the trust table file, the policy (compiled from text, through a sealed memfd), bindings, routes and flow
 * table, all built through the agent's messages. A ring of 1,024 mbufs stands for a port's: before each timed round of
 * 32 bursts it is filled with fresh frames, and after it every packet's edge is checked, both untimed. So what a
 * rewrite changes needs no undoing, and the frames are in the cache, as after a NIC's DMA into it or a software port's
 * copy. Timed is what worker_round() does with a burst between ports: clock, worker_pin(), path_run(). */
#include <inttypes.h>
#include <malloc.h>

#include <rte_cycles.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>
#include <rte_random.h>

#include "bench/world.h"

#define RUNS_MAX 64
#define PACKETS_MIN 2000000 /* a run */

static const char *const stage_names[STAGES] = {"parse", "guard", "divert",
						"route", "flow",  "rewrite"};

struct ref_key {
	struct ip_addr a, b; /* the lower one first: one entry a flow, as ours */
	uint16_t aport, bport;
	uint8_t proto, zero[3];
};

struct ref_key4 {
	uint32_t a, b;
	uint16_t aport, bport;
	uint8_t proto, zero[3];
};

/* ---- what is timed ---------------------------------------------------------------------------- */

static void run_ours(struct bench *b, struct burst *in, int dir, const struct traffic *t)
{
	(void)t;
	worker_pin(b->x.w, clock_boot_us());
	path_run(b->x.w, in, dir);
}

/* What a packet costs that the fast lane does not take: the other stages, with a look at the TSC between them, dearer by
 * some cycles a packet. */
static void run_stages(struct bench *b, struct burst *in, int dir, const struct traffic *t)
{
	struct burst out[STAGES] = {0};
	struct worker *w = b->x.w;
	uint64_t at[STAGES + 1];

	(void)t;
	worker_pin(w, clock_boot_us());
	for (uint16_t i = 0; i < in->n; i++)
		pkt_of(in->pkt[i])->in_port = dir;
	at[PARSE] = rte_rdtsc();
	stage_parse(w, in, &out[PARSE]);
	at[GUARD] = rte_rdtsc();
	stage_guard(w, &out[PARSE], &out[GUARD]);
	at[DIVERT] = rte_rdtsc();
	stage_divert(w, &out[GUARD], &out[DIVERT]);
	at[ROUTE] = rte_rdtsc();
	stage_route(w, &out[DIVERT], &out[ROUTE]);
	at[FLOW] = rte_rdtsc();
	stage_flow(w, &out[ROUTE], &out[FLOW]);
	at[REWRITE] = rte_rdtsc();
	stage_rewrite(w, &out[FLOW]);
	at[STAGES] = rte_rdtsc();
	for (int s = 0; s < STAGES; s++)
		b->stage[s] += at[s + 1] - at[s];
}

static void ref_key_of(const uint8_t *frame, bool v4, struct ref_key4 *k4, struct ref_key *k6)
{
	if (v4) {
		uint32_t src, dst;
		uint16_t port[2];
		bool swap;

		memcpy(&src, frame + 26, 4);
		memcpy(&dst, frame + 30, 4);
		memcpy(port, frame + 34, 4);
		swap = src > dst;
		*k4 = (struct ref_key4){.a = swap ? dst : src,
					.b = swap ? src : dst,
					.aport = port[swap],
					.bport = port[!swap],
					.proto = frame[23]};
	} else {
		bool swap = memcmp(frame + 22, frame + 38, 16) > 0;
		uint16_t port[2];

		memcpy(port, frame + 54, 4);
		*k6 = (struct ref_key){
			.aport = port[swap], .bport = port[!swap], .proto = frame[20]};
		memcpy(&k6->a, frame + (swap ? 38 : 22), 16);
		memcpy(&k6->b, frame + (swap ? 22 : 38), 16);
	}
}

/* Plain exact-match forwarding, no check: 5-tuple, rte_hash in bulk, MACs, TTL and checksum. */
static void run_reference(struct bench *b, struct burst *in, int dir, const struct traffic *t)
{
	static const uint8_t macs[2][12] = {{2, 0, 0, 0, 0, 0x2e, 2, 0, 0, 0, 0, 2},
					    {2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 1}};
	const void *key[BURST_MAX];
	struct ref_key4 k4[BURST_MAX];
	struct ref_key k6[BURST_MAX];
	int32_t pos[BURST_MAX];

	for (uint16_t i = 0; i < in->n; i++) {
		ref_key_of(rte_pktmbuf_mtod(in->pkt[i], uint8_t *), t->v4, &k4[i], &k6[i]);
		key[i] = t->v4 ? (void *)&k4[i] : (void *)&k6[i];
	}
	rte_hash_lookup_bulk(b->ref, key, in->n, pos);
	for (uint16_t i = 0; i < in->n; i++) {
		uint8_t *frame = rte_pktmbuf_mtod(in->pkt[i], uint8_t *);
		struct pkt *p = pkt_of(in->pkt[i]);

		p->edge = pos[i] >= 0 ? EDGE_FORWARD : EDGE_DROP;
		p->out_port = !dir;
		memcpy(frame, macs[dir], 12);
		if (t->v4) {
			uint32_t sum = (uint32_t)(frame[24] << 8 | frame[25]) + 0x100;

			sum = (sum & 0xffff) + (sum >> 16);
			frame[22]--;
			frame[24] = (uint8_t)(sum >> 8);
			frame[25] = (uint8_t)sum;
		} else {
			frame[21]--;
		}
	}
}

static void ref_new(struct bench *b, const struct traffic *t)
{
	struct rte_hash_parameters params = {
		.name = "reference",
		.entries = t->flows + t->flows / 4 + 64,
		.key_len = t->v4 ? sizeof(struct ref_key4) : sizeof(struct ref_key),
		.hash_func = rte_hash_crc,
		.socket_id = SOCKET_ID_ANY,
	};

	b->ref = rte_hash_create(&params);
	for (uint32_t i = 0; b->ref != NULL && i < t->flows; i++) {
		struct ref_key4 k4;
		struct ref_key k6;

		ref_key_of(t->frame[0][i].b, t->v4, &k4, &k6);
		if (rte_hash_add_key(b->ref, t->v4 ? (void *)&k4 : (void *)&k6) < 0)
			die("the reference's table is full");
	}
	if (b->ref == NULL)
		die("no memory for the reference");
}

/* ---- measuring -------------------------------------------------------------------------------- */

typedef void run_fn(struct bench *, struct burst *, int dir, const struct traffic *);

static void fill(struct bench *b, const struct traffic *t, int dir, uint32_t at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct rte_mbuf *m = b->ring[i];

		rte_pktmbuf_reset(m);
		m->data_len = t->bytes;
		m->pkt_len = t->bytes;
		memcpy(rte_pktmbuf_mtod(m, void *), &t->frame[dir][at + i], sizeof(struct frame64));
	}
}

/* Every packet must have left by the other port, with its TTL one lower. */
static void check(const struct bench *b, const struct traffic *t, int dir, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *frame = rte_pktmbuf_mtod(b->ring[i], uint8_t *);
		const struct pkt *p = pkt_of(b->ring[i]);

		if (p->edge == EDGE_FORWARD && p->out_port == !dir && frame[t->v4 ? 22 : 21] == 63)
			continue;
		fprintf(stderr, "path: a packet took edge %u (%s)\n", p->edge,
			drop_reason_name(p->edge == EDGE_DROP ? p->reason : DROP_NONE));
		exit(1);
	}
}

/* All flows once in one direction. @return cycles */
static uint64_t pass(struct bench *b, const struct traffic *t, int dir, run_fn *run)
{
	uint64_t cycles = 0;

	for (uint32_t at = 0; at < t->flows; at += RING) {
		uint32_t n = t->flows - at < RING ? t->flows - at : RING;
		uint64_t start;

		fill(b, t, dir, at, n);
		start = rte_rdtsc_precise();
		for (uint32_t i = 0; i < n; i += BURST_MAX) {
			struct burst in = {.n = n - i < BURST_MAX ? n - i : BURST_MAX};

			memcpy(in.pkt, b->ring + i, in.n * sizeof(in.pkt[0]));
			run(b, &in, dir, t);
		}
		cycles += rte_rdtsc_precise() - start;
		check(b, t, dir, n);
	}
	return cycles;
}

static double cycles_a_packet(struct bench *b, const struct traffic *t, run_fn *run)
{
	uint64_t cycles = 0, packets = 0;

	while (packets < PACKETS_MIN) {
		cycles += pass(b, t, 0, run);
		cycles += pass(b, t, 1, run);
		packets += 2ull * t->flows;
	}
	return (double)cycles / packets;
}

static void forget(struct bench *b)
{
	struct command c = {.kind = COMMAND_FORGET};

	sem_init(&c.done, 0, 0);
	while (!worker_command_step(b->x.w, &c))
		;
	sem_destroy(&c.done);
	if (flow_count(b->x.w->flows) != 0)
		die("flows were not forgotten");
}

static void samples(const double *v, int n, int digits)
{
	for (int i = 0; i < n; i++)
		printf("%s%.*f", i ? "," : "", digits, v[i]);
}

/* name, unit, statistic, goal, samples, reference, its samples; bench/run makes JSON and the table of it */
static void line(const char *name, const char *unit, const char *goal, const double *v, int n,
		 int digits, const char *reference, const double *ref)
{
	printf("%s\t%s\tmedian\t%s\t", name, unit, goal);
	samples(v, n, digits);
	printf("\t%s\t", reference);
	if (ref != NULL)
		samples(ref, n, digits);
	putchar('\n');
	fflush(stdout);
}

static void flows_measure(struct bench *b, uint32_t flows, const char *label, bool v4, int runs,
			  const char *goal)
{
	double ours[RUNS_MAX], ref[RUNS_MAX], opened[RUNS_MAX], stage[STAGES][RUNS_MAX];
	const char *family = v4 ? "" : "_ipv6";
	struct traffic t;
	char name[64];

	traffic_new(&t, flows, b->devices, v4);
	ref_new(b, &t);
	for (int r = 0; r < runs; r++) {
		uint64_t packets = 0;

		forget(b);
		opened[r] = (double)rte_get_tsc_hz() * flows / pass(b, &t, 0, run_ours);
		pass(b, &t, 1, run_ours);
		if (flow_count(b->x.w->flows) != flows)
			die("not every flow is in the table");
		ours[r] = cycles_a_packet(b, &t, run_ours);
		ref[r] = cycles_a_packet(b, &t, run_reference);
		memset(b->stage, 0, sizeof(b->stage));
		while (packets < PACKETS_MIN) {
			pass(b, &t, 0, run_stages);
			pass(b, &t, 1, run_stages);
			packets += 2ull * flows;
		}
		for (int s = 0; s < STAGES; s++)
			stage[s][r] = (double)b->stage[s] / packets;
	}
	snprintf(name, sizeof(name), "path_cycles_%s%s", label, family);
	line(name, "cycles/packet", goal, ours, runs, 1, "exact_match_forward", ref);
	for (int s = 0; s < STAGES; s++) {
		snprintf(name, sizeof(name), "stage_cycles_%s%s_%s", label, family, stage_names[s]);
		line(name, "cycles/packet", "", stage[s], runs, 1, "", NULL);
	}
	if (flows == FLOWS_MAX) {
		snprintf(name, sizeof(name), "new_flows_per_s%s", family);
		line(name, "1/s", v4 ? ">= 1000000" : "", opened, runs, 0, "", NULL);
	}
	rte_hash_free(b->ref);
	traffic_free(&t);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static double heap_bytes(void)
{
	struct rte_malloc_socket_stats s;
	struct mallinfo2 libc = mallinfo2();

	if (rte_malloc_get_socket_stats(0, &s) < 0)
		die("no heap statistics");
	return (double)s.heap_allocsz_bytes + libc.uordblks + libc.hblkhd;
}

static void memory_measure(void)
{
	const uint32_t devices = 100000;
	struct rte_rcu_qsbr *qsbr = rte_zmalloc(NULL, rte_rcu_qsbr_get_memsize(1), 64);
	double before = heap_bytes(), bytes, refused = 0;
	uint64_t seed[FLOW_SEEDS];
	struct bindings *bindings = NULL;
	struct flow_table *t = NULL;
	struct err err = {0};
	struct msg_bind m;

	for (int i = 0; i < FLOW_SEEDS; i++)
		seed[i] = rte_rand();
	if (flow_table_new(&t, FLOWS_MAX, seed, SOCKET_ID_ANY) < 0 || qsbr == NULL ||
	    rte_rcu_qsbr_init(qsbr, 1) != 0)
		die("no memory for a flow table");
	bytes = (heap_bytes() - before) / FLOWS_MAX;
	line("bytes_per_flow", "bytes", "<= 128", &bytes, 1, 1, "", NULL);
	/* Keys as in the traffic; what finds both of its buckets full. */
	for (uint32_t f = 0; f < FLOWS_MAX; f++) {
		struct flow_key id = {.src = device_addr(f % devices, true),
				      .dst = server_addr(f, true),
				      .sport = 10000 + f / devices,
				      .dport = 5000 + f % 100,
				      .proto = IPPROTO_UDP};

		refused += flow_insert(t, &id, flow_hash(seed, &id)) == NULL;
	}
	line("flows_refused", "flows", "<= 0", &refused, 1, 0, "", NULL);
	flow_table_free(t);

	before = heap_bytes();
	if (bindings_new(&bindings, 2 * devices, qsbr, &err) < 0)
		die("no memory for bindings");
	for (uint32_t d = 0; d < devices; d++) {
		for (int v4 = 0; v4 < 2; v4++) {
			bind_of(&m, d, v4);
			if (bindings_add(bindings, &m, 1) < 0)
				die("a binding was refused");
		}
	}
	bytes = (heap_bytes() - before) / devices +
		(double)(trust_map_bytes(devices + 1) - trust_map_bytes(1)) / devices;
	line("bytes_per_device", "bytes", "<= 512", &bytes, 1, 1, "", NULL);
	bindings_free(bindings);
	rte_free(qsbr);
}

int main(int argc, char **argv)
{
	static char *eal[] = {"path", "--in-memory", "--no-pci",	 "--no-telemetry",
			      "-l",   "1",	     "--log-level=error"};
	static struct bench b;
	static const struct {
		const char *label, *goal;
		uint32_t flows, devices;
	} cases[] = {{"1k", "<= 90", 1000, 1000},
		     {"100k", "", 100000, 100000},
		     {"1m", "<= 180", FLOWS_MAX, 100000}};
	int runs = argc > 1 ? atoi(argv[1]) : 5;
	const char *only = argc > 2 ? argv[2] : "";
	struct rte_mempool *pool;

	if (runs < 1 || runs > RUNS_MAX)
		die("usage: path [RUNS [1k|100k|1m]]");
	log_init("path", LOG_LEVEL_ERROR);
	if (rte_eal_init(sizeof(eal) / sizeof(eal[0]), eal) < 0)
		die("no EAL: 2 MB huge pages (256) and core 1 are needed");
	pool = rte_pktmbuf_pool_create("path", 2 * RING - 1, 0, sizeof(struct pkt),
				       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL)
		die("no mbufs");
	if (only[0] == '\0')
		memory_measure();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (only[0] != '\0' && strcmp(only, cases[i].label) != 0)
			continue;
		bench_new(&b, cases[i].devices, pool);
		flows_measure(&b, cases[i].flows, cases[i].label, true, runs, cases[i].goal);
		flows_measure(&b, cases[i].flows, cases[i].label, false, runs, "");
		bench_free(&b);
	}
	rte_mempool_free(pool);
	rte_eal_cleanup();
	return 0;
}
