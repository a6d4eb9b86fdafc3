/* SPDX-License-Identifier: GPL-3.0-or-later */
/* rate: how limits are written in segments.cfg, and shown: "2 Mbit/s", "1000 packet/s". Bits are decimal (1 Mbit/s is
 * 1,000,000 bit/s) and those of IP packets, without the link's own bytes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/policy.h"

#define RATE_TEXT_BYTES 128

struct rate {
	uint64_t bits_per_s; /* 0: none */
	uint32_t packets_per_s; /* 0: none */
};

/**
 * Take one text: it sets the bits or the packets of `r`, which must be unset.
 * @return 0, or -EINVAL with a reason in why (static text)
 */
int rate_parse(struct rate *r, const char *text, const char **why);

/** The rate's part of what a plane enforces; burst_ms says how much may come at once, in time of the rate. */
void rate_limits(struct policy_limits *out, const struct rate *r, uint32_t burst_ms);

/** As "2 Mbit/s, 1000 packet/s, 20 new flows/s, 200 flows" into out (RATE_TEXT_BYTES); "" if there is none. */
const char *limits_text(const struct policy_limits *l, char *out);
