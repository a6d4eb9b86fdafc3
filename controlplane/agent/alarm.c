/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdarg.h>
#include <stdio.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

void agent_alarm(struct agent *a, const char *kind, const char *fmt, ...)
{
	char text[STORE_ALARM_TEXT_BYTES];
	struct err err = {""};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("ALARM %s: %s", kind, text);
	if (store_alarm_add(a->store, clock_wall_ms(), kind, text, &err) < 0)
		log_error("alarm not stored: %s", err.msg);
}
