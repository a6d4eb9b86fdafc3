/* SPDX-License-Identifier: GPL-3.0-or-later */
/* limit_world: a world with three devices and rules, for the tests of limits. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_malloc.h>

#include "test/unit/dataplane/world.h"

#define DEV 0
#define UP 1
#define SYN 2
#define SYNACK 18
#define ACK 16
#define RST 4
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define US_A_S 1000000ull

/* Cameras 5 and 7, PLC 6. %s: of the segment; of the rule. */
static const char policy_text[] =
	"segments = ( { name = \"cams\"; members = ( { san = \"spiffe://x/cam/*\"; } ); %s },\n"
	"             { name = \"plcs\"; members = ( { san = \"spiffe://x/plc/*\"; } ); } );\n"
	"networks = ( { name = \"core\"; prefixes = [ \"10.2.0.0/24\" ]; } );\n"
	"rules = ( { name = \"video\"; from = \"cams\"; to = \"core\"; service = [ \"tcp/554\", "
	"\"udp/5000-5100\" ]; %s },\n"
	"          { name = \"free\"; from = \"cams\"; to = \"core\"; service = \"udp/6000-6100\"; "
	"},\n"
	"          { name = \"plc\"; from = \"core\"; to = \"plcs\"; service = \"udp/1-65535\"; } "
	");\n";

static inline void policy(struct world *x, uint64_t epoch, const char *segment, const char *rule)
{
	char text[2000];

	snprintf(text, sizeof(text), policy_text, segment, rule);
	assert_int_equal(world_policy_set(x, text, epoch), 0);
}

static inline void start(struct world *x, const struct msg_limits *limits, const char *segment,
			 const char *rule)
{
	struct msg_dp_config cfg;

	world_config(&cfg);
	cfg.flows_max = 4096;
	cfg.slots = WORLD_SLOTS;
	if (limits != NULL)
		cfg.limits = *limits;
	assert_int_equal(world_new(x, &cfg), 0);
	policy(x, 2, segment, rule);
	world_trust(x, 7, WORLD_CAMS, STANDING_FULL, CLOCK_NEVER_MS);
	assert_int_equal(world_bind(x, "10.1.0.12", 0x12, DEV, 0, 7), 0);
}

static inline struct verdict udp(struct world *x, unsigned cam, uint16_t sport, uint16_t dport,
				 uint16_t payload)
{
	struct frame_spec s = {cam == 5 ? "10.1.0.10" : "10.1.0.12",
			       "10.2.0.10",
			       .smac = cam == 5 ? 0x10 : 0x12,
			       .dmac = 1,
			       .proto = 17,
			       .sport = sport,
			       .dport = dport,
			       .payload = payload};

	return world_one(x, DEV, &s);
}

static inline struct verdict answer(struct world *x, unsigned cam, uint16_t sport, uint16_t dport,
				    uint16_t payload)
{
	struct frame_spec s = {"10.2.0.10",    cam == 5 ? "10.1.0.10" : "10.1.0.12",
			       .smac = 0x20,   .dmac = 2,
			       .proto = 17,    .sport = dport,
			       .dport = sport, .payload = payload};

	return world_one(x, UP, &s);
}

static inline void assert_verdict(struct verdict v, enum drop_reason want)
{
	if (want == DROP_NONE)
		assert_int_equal(v.edge, EDGE_FORWARD);
	assert_string_equal(drop_reason_name(v.reason), drop_reason_name(want));
}

static inline uint64_t draw(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}
