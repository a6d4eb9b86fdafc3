/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A policy form crosses a process border: what passes its check may be looked up without reading outside. */
#include <stdlib.h>
#include <string.h>

#include "config/base/policy.h"
#include "config/rate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Nothing that a meter would divide by zero with, nor a burst in which the largest packet would never fit. */
static void use_limits(const struct policy_limits *l)
{
	char text[RATE_TEXT_BYTES];

	limits_text(l, text);
	if ((l->bytes_per_s != 0 && l->burst_bytes < POLICY_BURST_BYTES_MIN) ||
	    (l->packets_per_s != 0 && l->burst_packets == 0) ||
	    (l->new_flows_per_s != 0 && l->burst_new_flows == 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct policy_form *f = malloc(bytes + 1);
	struct ip_addr a = {{0}};
	struct err err = {""};

	memcpy(f, data, bytes);
	/* the magic and the size would cost the fuzzer its time */
	if (bytes >= sizeof(*f)) {
		f->magic = POLICY_MAGIC;
		f->bytes = bytes;
	}
	if (policy_form_check(f, bytes, &err) == 0) {
		for (unsigned i = 0; i < 64; i++) {
			memset(&a, i * 4, sizeof(a));
			policy_endpoint_by_id(f, policy_network_of(f, &a));
			policy_lookup(f, i, 63 - i, i % 2 ? 6 : 17, i * 1000);
		}
		policy_endpoint_by_name(f, "cameras");
		for (uint32_t i = 0; i < f->n_rules; i++)
			use_limits(&policy_rules(f)[i].limits);
		for (uint32_t i = 0; i < f->n_endpoints; i++)
			use_limits(&policy_endpoints(f)[i].limits);
	}
	free(f);
	return 0;
}
