/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A policy form crosses a process border: what passes its check may be looked up without reading outside. */
#include <stdlib.h>
#include <string.h>

#include "config/base/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

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
	}
	free(f);
	return 0;
}
