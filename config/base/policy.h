/* SPDX-License-Identifier: GPL-3.0-or-later */
/* policy: the compiled form of segments.cfg, from which both planes are made: the dataplane's snapshot and the
 * nftables batch. One flat, position-independent block of memory, so that it crosses a process border in a sealed
 * memfd; policy_form_check() is run on it before anything else.
 *
 * Endpoints are segments (of devices) and networks (of prefixes); they share one id space, 1..POLICY_ID_MAX.
 * Entries are disjoint: for a (from, to, protocol) the first matching rule of the text has been cut into
 * port ranges that do not overlap, sorted, so both planes can use sets and maps. What no entry covers is denied. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/addr.h"
#include "config/base/err.h"

#define POLICY_MAGIC 0x53505032u /* "SPP2" */
#define POLICY_ID_MAX 4095
#define POLICY_NAME_BYTES 32 /* with the end */
/* Ranges of limits, and the least burst: one packet of the largest MTU must fit, or it would never pass. */
#define POLICY_RATE_BYTES_MIN UINT64_C(1000) /* a second: 8 kbit/s */
#define POLICY_RATE_BYTES_MAX UINT64_C(12500000000) /* a second: 100 Gbit/s */
#define POLICY_BURST_BYTES_MIN UINT64_C(9216)
#define POLICY_PACKETS_MAX 10000000u /* a second */
#define POLICY_BURST_PACKETS_MIN 8u
#define POLICY_BURST_MS_MAX 10000u
#define POLICY_NEW_FLOWS_MAX 1000000u /* a second */
#define POLICY_FLOWS_MAX 67108864u
#define POLICY_PROTO_TCP 6
#define POLICY_PROTO_UDP 17
#define POLICY_PROTO_ICMP 1
#define POLICY_PROTO_ICMP6 58

enum endpoint_kind { ENDPOINT_SEGMENT = 1, ENDPOINT_NETWORK = 2 };

/* What may pass at most. A rate of 0: no limit here. A burst is 0 where its rate is, and nowhere else. */
struct policy_limits {
	uint64_t bytes_per_s, burst_bytes; /* of IP packets */
	uint32_t packets_per_s, burst_packets;
	uint32_t new_flows_per_s, burst_new_flows; /* endpoints alone; 0: what gateway.cfg says */
	uint32_t flows; /* at a time; endpoints alone; 0: what gateway.cfg says */
	uint32_t reserved;
};

struct policy_endpoint {
	char name[POLICY_NAME_BYTES];
	uint16_t id; /* keeps its value across policies while the name stays */
	uint8_t kind; /* enum endpoint_kind */
	uint8_t reserved[5];
	struct policy_limits
		limits; /* of each device in it: what it sends, what it opens. A network: none */
};

/* Disjoint and sorted by lo: nested prefixes are already cut, the longest wins. Both ends inclusive. */
struct policy_range {
	struct ip_addr lo, hi;
	uint16_t endpoint;
	uint8_t reserved[6];
};

enum policy_action { POLICY_DENY = 0, POLICY_ALLOW = 1 };

/* Sorted by (from, to, proto, port_lo). */
struct policy_entry {
	uint16_t from, to; /* endpoint ids: who opens the flow, towards whom */
	uint16_t port_lo,
		port_hi; /* destination port, host order, inclusive; ICMP: the type; other protocols: 0..65535 */
	uint8_t proto; /* IP protocol number */
	uint8_t action; /* enum policy_action */
	uint16_t rule; /* index into rules */
};

struct policy_rule {
	char name[POLICY_NAME_BYTES]; /* `name` of the text, or "line N" */
	uint32_t line; /* in the policy's file */
	uint8_t log; /* flow starts under this rule are logged */
	uint8_t action; /* enum policy_action */
	uint8_t reserved[2];
	struct policy_limits limits; /* of all its flows together, both directions */
};

struct policy_form {
	uint32_t magic; /* POLICY_MAGIC */
	uint32_t bytes; /* of the whole block */
	uint64_t epoch; /* grows with every policy put in force; never 0 */
	char file[128]; /* name of the text's file, for `file:line` */
	uint8_t sha256[32]; /* of the text */
	uint32_t n_endpoints, n_ranges, n_rules, n_entries;
	uint32_t off_endpoints, off_ranges, off_rules,
		off_entries; /* bytes from the start, multiples of 8 */
};

static inline const struct policy_endpoint *policy_endpoints(const struct policy_form *f)
{
	return (const void *)((const char *)f + f->off_endpoints);
}
static inline const struct policy_range *policy_ranges(const struct policy_form *f)
{
	return (const void *)((const char *)f + f->off_ranges);
}
static inline const struct policy_rule *policy_rules(const struct policy_form *f)
{
	return (const void *)((const char *)f + f->off_rules);
}
static inline const struct policy_entry *policy_entries(const struct policy_form *f)
{
	return (const void *)((const char *)f + f->off_entries);
}

/** Is this block a well-formed policy form (sizes, order, disjointness, ids, indices)? @return 0 or -EPROTO */
int policy_form_check(const void *block, size_t bytes, struct err *err);

/** Endpoint id of an address outside the device side; 0 if no network has it. O(log ranges). */
uint16_t policy_network_of(const struct policy_form *f, const struct ip_addr *a);

/**
 * The entry that decides about a flow from `from` to `to`.
 * @param port destination port; ICMP type for ICMP and ICMPv6; 0 for other protocols
 * @return NULL if nothing covers it: denied. O(log entries); no allocation
 */
const struct policy_entry *policy_lookup(const struct policy_form *f, uint16_t from, uint16_t to,
					 uint8_t proto, uint16_t port);

/** @return NULL if there is none */
const struct policy_endpoint *policy_endpoint_by_id(const struct policy_form *f, uint16_t id);
const struct policy_endpoint *policy_endpoint_by_name(const struct policy_form *f,
						      const char *name);
