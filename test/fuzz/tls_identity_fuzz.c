/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A certificate from outside: refused, or with a name that is printable and ends. */
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct identity id;
	struct err err = {""};

	if (identity_from_der(&id, data, bytes, &err) == 0) {
		size_t n = strnlen(id.name, sizeof(id.name));

		if (n == 0 || n == sizeof(id.name) || id.serial_bytes > sizeof(id.serial))
			abort();
		for (size_t i = 0; i < n; i++) {
			if (id.name[i] <= 0x20 || id.name[i] >= 0x7f)
				abort();
		}
	} else if (err.msg[0] == '\0') {
		abort(); /* refused without a word */
	}
	return 0;
}
