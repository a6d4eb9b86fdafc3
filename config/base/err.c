/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int ret, const char *fmt, ...)
{
	va_list ap;

	if (err == NULL)
		return ret;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return ret;
}

int err_wrap(struct err *err, int ret, const char *fmt, ...)
{
	char old[ERR_MSG_BYTES];
	va_list ap;
	int n;

	if (err == NULL)
		return ret;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n + 2 < sizeof(err->msg)) {
		memcpy(err->msg + n, ": ", 2);
		memccpy(err->msg + n + 2, old, '\0', sizeof(err->msg) - n - 2);
		err->msg[sizeof(err->msg) - 1] = '\0';
	}
	return ret;
}
