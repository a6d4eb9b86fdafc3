/* SPDX-License-Identifier: GPL-3.0-or-later */
/* unix_listen: a listening Unix stream socket, safe to start again after a crash. */
#pragma once

#include "config/base/err.h"

/**
 * Listen on `path` with mode 0600, non-blocking. A socket that nobody serves any more is replaced; anything else at that
 * path is left alone.
 * @return descriptor, or -EADDRINUSE (somebody answers there), -EEXIST (not a socket), -errno; text in err
 */
int unix_listen(const char *path, int backlog, struct err *err);
