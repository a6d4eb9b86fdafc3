/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls-proxy/cpus.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>

/* @return where it ends; NULL: no number of a core */
static const char *number(const char *at, unsigned long *out)
{
	char *end;

	if (!isdigit((unsigned char)*at))
		return NULL;
	*out = strtoul(at, &end, 10);
	return *out < CPU_SETSIZE ? end : NULL;
}

void cpus_read(const char *text, cpu_set_t *out)
{
	unsigned long first, last;

	CPU_ZERO(out);
	for (;;) {
		text = number(text, &first);
		last = first;
		if (text != NULL && *text == '-')
			text = number(text + 1, &last);
		if (text == NULL || (*text != '\0' && *text != ','))
			break;
		for (; first <= last; first++)
			CPU_SET(first, out);
		if (*text++ == '\0')
			return;
	}
	CPU_ZERO(out);
}
