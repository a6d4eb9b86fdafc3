/* SPDX-License-Identifier: GPL-3.0-or-later */
/* client: one request to a daemon's API socket, and its response. Blocking, with a deadline over the whole exchange. */
#pragma once

#include <jansson.h>

#include "config/base/err.h"

/**
 * Ask and wait.
 * @param request  an object; borrowed
 * @param[out] response  an object with a boolean "ok"; caller owns; untouched on error
 * @return 0; -ENOENT, -ECONNREFUSED, -EACCES, ... (cannot reach it), -ETIMEDOUT, -EPROTO (no such response); text in err
 */
int client_call(const char *socket_path, const json_t *request, unsigned timeout_ms,
		json_t **response, struct err *err);
