/* SPDX-License-Identifier: GPL-3.0-or-later */
/* load: what all benchmarks of the packet path put on it: one policy, and flows in an order that no cache likes. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#define LOAD_SEGMENTS 64
#define LOAD_NETWORKS 32 /* the last one takes no UDP */
#define LOAD_RULES 2000
#define LOAD_DPORT 5000
#define LOAD_DPORTS 100

/* Each segment may reach 31 networks at a hundred UDP ports, and one at a TCP port. */
static inline void policy_write(FILE *to, unsigned variant)
{
	int n = 0;

	for (int i = 0; i < LOAD_SEGMENTS; i++)
		fprintf(to, "%s{ name = \"s%d\"; members = ( { san = \"spiffe://x/s%d/*\"; } ); }",
			i ? ",\n" : "segments = ( ", i, i);
	for (int i = 0; i < LOAD_NETWORKS; i++)
		fprintf(to,
			"%s{ name = \"n%d\"; prefixes = [ \"10.32.%d.0/24\", \"fd32:0:0:%x::/64\" "
			"]; }",
			i ? ",\n" : " );\nnetworks = ( ", i, i, i);
	for (int k = 0; k < LOAD_NETWORKS - 1; k++) {
		for (int i = 0; i < LOAD_SEGMENTS; i++, n++)
			fprintf(to, "%s{ from = \"s%d\"; to = \"n%d\"; service = \"udp/%d-%d\"; }",
				n ? ",\n" : " );\nrules = ( ", i, k, LOAD_DPORT,
				LOAD_DPORT + LOAD_DPORTS - 1);
	}
	for (; n < LOAD_RULES; n++)
		fprintf(to, ",\n{ from = \"s%d\"; to = \"n%d\"; service = \"tcp/%u\"; }",
			n % LOAD_SEGMENTS, LOAD_NETWORKS - 1,
			n == LOAD_RULES - 1 ? 443 + variant : 443);
	fputs(" );\n", to);
}

/* 0..n-1 in an order that is the same in every run. */
static inline void shuffle(uint32_t *order, uint32_t n)
{
	uint64_t random = 88172645463325252ull; /* xorshift64 */

	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t j, swap = order[i];

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		j = random % (i + 1);
		order[i] = order[j];
		order[j] = swap;
	}
}
