/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A trace's filter as the API gets it: whatever is accepted, the dataplane's own check takes. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/agent/api_trace.h"

#define PORTS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool device(void *arg, const char *name, uint32_t *slot)
{
	(void)arg;
	*slot = 1;
	return name[0] == 'd';
}

static bool port(void *arg, const char *name, uint16_t *index)
{
	(void)arg;
	*index = PORTS - 1;
	return name[0] == 'p';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct trace_names names = {NULL, device, port};
	json_t *filter = json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL);
	struct msg_trace_filter f;
	struct err err = {""};

	if (filter == NULL)
		return 0;
	if (trace_filter_read(&f, filter, &names, &err) == 0) {
		if (!msg_trace_filter_check(&f, PORTS))
			abort();
	} else if (err.msg[0] == '\0') {
		abort();
	}
	json_decref(filter);
	return 0;
}
