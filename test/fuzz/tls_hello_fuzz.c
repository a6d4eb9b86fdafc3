/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A first message of any bytes, also in pieces: the same answer, and a name of printable ASCII or none. */
#include <stdlib.h>
#include <string.h>

#include "tls-proxy/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char name[HELLO_NAME_BYTES], again[HELLO_NAME_BYTES];
	size_t ticket_bytes, part_bytes;
	enum hello whole = hello_read(data, bytes, name, &ticket_bytes);

	if (memchr(name, '\0', sizeof(name)) == NULL ||
	    (whole != HELLO_WHOLE && name[0] != '\0' && whole != HELLO_STRANGE))
		abort();
	if (ticket_bytes > bytes)
		abort();
	for (const char *p = name; *p != '\0'; p++) {
		if (*p <= 0x20 || *p >= 0x7f || (*p >= 'A' && *p <= 'Z'))
			abort();
	}
	/* What was whole stays it, and what was strange too, whatever comes behind. */
	for (size_t n = 0; n < bytes; n += 1 + n / 4) {
		enum hello part = hello_read(data, n, again, &part_bytes);

		if (part != HELLO_MORE && part != whole)
			abort();
		if (part == HELLO_WHOLE && (strcmp(name, again) != 0 || part_bytes != ticket_bytes))
			abort();
	}
	return 0;
}
