/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences of frames through the whole path, with standings that come and go. Whatever the bytes: what leaves by the
 * fast path is between a bound device that may pass now and somebody, from the right MAC, and unbound never. A second
 * world without the fast lane gets the same, and must judge the same. */
#include <stdlib.h>
#include <string.h>

#include "test/unit/dataplane/world.h"

#define MAY_PORT 1u
#define MAY_MACS 2u /* make the MACs right, so that the fuzzer gets deeper */
#define MAY_SUM 4u
#define MAY_REVOKE 8u
#define MAY_TIME 16u
#define MAY_TEMPLATE                                                                               \
	32u /* a good frame, patched by pairs (offset, value); the two bits above say which */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct frame_spec templates[2][4] = {
	{{"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 6, .sport = 9, .dport = 554,
	  .tcp_flags = 2},
	 {"10.1.0.10", "10.2.0.10", .smac = 0x10, .dmac = 1, .proto = 17, .sport = 9,
	  .dport = 5000},
	 {"fd01::10", "fd02::10", .smac = 0x10, .dmac = 1, .proto = 58, .sport = 128 << 8,
	  .dport = 1},
	 {"10.1.0.77", "10.1.0.1", .smac = 0x77, .dmac = 1, .proto = 6, .sport = 9, .dport = 8883,
	  .tcp_flags = 16}},
	{{"10.2.0.10", "10.1.0.10", .smac = 0x20, .dmac = 2, .proto = 6, .sport = 554, .dport = 9,
	  .tcp_flags = 18},
	 {"10.2.0.10", "10.1.0.10", .smac = 0x20, .dmac = 2, .proto = 17, .sport = 5000,
	  .dport = 9},
	 {"fd02::10", "fd01::10", .smac = 0x20, .dmac = 2, .proto = 58, .sport = 129 << 8,
	  .dport = 1},
	 {"10.2.0.10", "10.1.0.10", .smac = 0x20, .dmac = 2, .proto = 1, .sport = 3 << 8,
	  .payload = 28}},
};
#define FLOWS_OF_A_DEVICE 24

/* As world_policy, with rates; and caps that a sequence of frames can reach. */
static const char policy[] =
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } );\n"
	"               limits = { new_flows = 20; }; },\n"
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } );\n"
	"               limits = { rate = \"400 packet/s\"; }; } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\", \"10.9.0.0/16\", "
	"\"fd02::/64\" ]; } );\n"
	"rules = ( { from = \"cams\"; to = \"core\"; service = [ \"tcp/554\", \"ping\" ]; },\n"
	"          { from = \"cams\"; to = \"core\"; service = \"udp/5000-5100\"; rate = \"1 "
	"Mbit/s\"; "
	"},\n"
	"          { from = \"core\"; to = \"plcs\"; service = [ \"tcp/502\" ]; },\n"
	"          { from = \"cams\"; to = \"plcs\"; service = [ \"tcp/7000\" ]; } );\n";

static struct world world, plain;
static bool revoked;

static void end(void)
{
	world_free(&world);
	world_free(&plain);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct msg_dp_config cfg;

	(void)argc;
	(void)argv;
	world_config(&cfg);
	cfg.limits = (struct msg_limits){.device_flows = FLOWS_OF_A_DEVICE,
					 .device_kernel_packets = 100,
					 .device_tls_packets = 100,
					 .network_flows_pct = 5,
					 .stranger_packets = 300,
					 .stranger_each_packets = 100,
					 .stranger_new_flows = 100,
					 .stranger_each_new_flows = 20};
	if (world_eal() < 0 || world_new(&world, &cfg) < 0 || world_new(&plain, &cfg) < 0 ||
	    world_policy_set(&world, policy, 2) < 0 || world_policy_set(&plain, policy, 2) < 0)
		abort();
	atomic_store(&plain.st->lane_off, true);
	world.now_us = plain.now_us;
	atexit(end);
	return 0;
}

static void repair(uint8_t *b, size_t n, uint8_t flags, uint16_t port)
{
	size_t header;

	if ((flags & MAY_MACS) && n >= 12) {
		b[0] = b[6] = 2;
		memset(b + 1, 0, 4);
		memset(b + 7, 0, 4);
		b[5] = port + 1;
		b[11] = port == 0 ? 0x10 : 0x20;
	}
	if (!(flags & MAY_SUM) || n < 34 || b[12] != 8 || b[13] != 0)
		return;
	header = (size_t)(b[14] & 15) * 4;
	if (header < 20 || 14 + header > n)
		return;
	frame_put16(b + 24, 0);
	frame_put16(b + 24, frame_sum(b + 14, header));
}

static void fill(uint8_t *b, size_t *n, const uint8_t *data, uint8_t flags, uint16_t port)
{
	size_t given = *n;

	if (!(flags & MAY_TEMPLATE)) {
		memcpy(b, data, given);
		return;
	}
	*n = frame_make(b, &templates[port][flags >> 6]);
	for (size_t i = 0; i + 1 < given; i += 2)
		b[data[i]] = data[i + 1];
}

/* 0: no device; else its slot */
static uint32_t slot_of(const uint8_t *frame, size_t off4, size_t off6, bool v4)
{
	struct ip_addr a = v4 ? ip_addr_from_v4(frame + off4) : ip_addr_from_v6(frame + off6);
	const struct binding *b = bindings_find(world.st->bindings, &a);

	return b != NULL ? b->slot : 0;
}

static void check(const struct verdict *v, uint16_t port, const uint8_t *before)
{
	size_t l3 = v->frame[12] == 0x81 ? 18 : 14;
	bool v4 = v->frame[l3] >> 4 == 4;
	uint32_t src, dst;

	if (v->edge == EDGE_KERNEL && memcmp(v->frame, before, v->bytes) != 0)
		abort(); /* the kernel gets what came */
	if (v->edge != EDGE_FORWARD)
		return;
	src = slot_of(v->frame + l3, 12, 8, v4);
	dst = slot_of(v->frame + l3, 16, 24, v4);
	if (port == 0 && (src == 0 || before[11] != (src == 5 ? 0x10 : 0x11)))
		abort();
	if (port == 1 && (src != 0 || dst == 0 || v->out_port != 0))
		abort();
	if (revoked && (src == 5 || dst == 5))
		abort();
	if (v->frame[l3 + (v4 ? 8 : 7)] == 0)
		abort();
}

static void forget(struct world *x)
{
	struct command c = {.kind = COMMAND_FORGET};

	while (!worker_command_step(x->w, &c))
		;
	if (flow_count(x->w->flows) != 0)
		abort();
	for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
		if (limit_flows_now(x->w, slot) != 0)
			abort(); /* a flow that ended still counts, or counted twice */
	}
}

static void trust(bool passes)
{
	world_trust(&world, 5, passes ? WORLD_CAMS : 0, passes ? STANDING_FULL : STANDING_REVOKED,
		    passes ? CLOCK_NEVER_MS : 0);
	world_trust(&plain, 5, passes ? WORLD_CAMS : 0, passes ? STANDING_FULL : STANDING_REVOKED,
		    passes ? CLOCK_NEVER_MS : 0);
}

static void same(const struct verdict *a, const struct verdict *b)
{
	if (a->edge != b->edge || a->reason != b->reason || a->bytes != b->bytes ||
	    (a->edge == EDGE_FORWARD && a->out_port != b->out_port) ||
	    memcmp(a->frame, b->frame, a->bytes) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	revoked = false;
	plain.now_us = world.now_us += 2000000; /* buckets are full again */
	trust(true);
	while (size >= 2) {
		static uint8_t frame[1][FRAME_MAX], before[1][FRAME_MAX];
		uint16_t port = (data[0] & MAY_PORT) ? 1 : 0;
		uint8_t flags = data[0];
		size_t n = data[1], used;
		struct verdict v, w;

		data += 2;
		size -= 2;
		if (n > size)
			n = size;
		used = n;
		memset(frame, 0, sizeof(frame));
		fill(frame[0], &n, data, flags, port);
		data += used;
		size -= used;
		if (flags & MAY_REVOKE) {
			revoked = !revoked;
			trust(!revoked);
		}
		if (flags & MAY_TIME)
			plain.now_us = world.now_us += 700000;
		repair(frame[0], n, flags, port);
		memcpy(before, frame, sizeof(before));
		world_burst(&world, port, frame, &n, 1, &v);
		world_burst(&plain, port, before, &n, 1, &w);
		worker_age(world.w);
		worker_age(plain.w);
		same(&v, &w);
		check(&v, port, before[0]);
		if (limit_flows_now(world.w, 5) > FLOWS_OF_A_DEVICE)
			abort();
	}
	forget(&world);
	forget(&plain);
	return 0;
}
