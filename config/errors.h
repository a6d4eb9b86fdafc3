/* SPDX-License-Identifier: GPL-3.0-or-later */
/* errors: everything that is wrong with a configuration text, as "file:line: key: why" lines. */
#pragma once

#include <stdint.h>

#define CONFIG_ERRORS_MAX 64

struct config_errors {
	uint32_t n; /* lines kept */
	uint32_t more; /* further errors that did not fit */
	char line[CONFIG_ERRORS_MAX][256];
};

/** Note one error. line 0: of the whole file. @return -EINVAL, always */
int config_error(struct config_errors *errs, const char *file, unsigned line, const char *key,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/** Note one error whose line is complete already. @return -EINVAL, always */
int config_error_whole(struct config_errors *errs, const char *line);
